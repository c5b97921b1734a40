//! A machine's lines from the wire to the operator: real rack, real link, real region, the operator's command; also while the region
//! is away. And the clock of a rack.

use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use region::api::oauth::Key;
use serde_json::Value;

/// `hostler dev`, and the commands of its operator.
struct Dev {
    child: Child,
    ready: Value,
    _folder: tempfile::TempDir,
}

impl Dev {
    async fn start() -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ready");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = hostler(&["dev", "--simulate", "0", "--racks", "1", "--port", "0", "--data-dir"]);
        command.arg(folder.path().join("data")).arg("--ready-file").arg(&file).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        for _ in 0..600 {
            if let Some(ready) = std::fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok()) {
                return Self { child, ready, _folder: folder };
            }
            assert!(child.try_wait().unwrap().is_none(), "{}", said(&folder.path().join("log")));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("dev is not ready: {}", said(&folder.path().join("log")));
    }

    fn text(&self, path: &str) -> &str {
        self.ready.pointer(path).and_then(Value::as_str).unwrap_or_else(|| panic!("no {path} in {}", self.ready))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = hostler(words);
        command.env("HOSTLER_URL", self.text("/url")).env("HOSTLER_KEY", self.text("/api_key"));
        command
    }

    fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Keeps an address for a MAC: that is how the rack knows whose lines come from there.
    async fn reserve(&self, mac: &str, ip: &str) {
        let key: Key = self.text("/api_key").parse().unwrap();
        let request = reqwest::Client::new()
            .post(format!("{}api/2.0/reservedips/", self.text("/url")))
            .header("authorization", key.header())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("ip={ip}&mac_address={mac}"));
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    fn send(&self, from: &str, line: &str) {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.send_to(line.as_bytes(), self.text("/racks/0/syslog")).unwrap();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn hostler(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
    command.args(words).env("XDG_CONFIG_HOME", "/nonexistent").env("HOSTLER_LOG", "info").stdin(Stdio::null());
    command
}

fn said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..300 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machines_lines_reach_its_operator_and_go_on() {
    let dev = Dev::start().await;
    assert!(dev.text("/racks/0/ntp").starts_with("127.77.0.2:"));
    dev.run(&["subnet", "add", "127.77.0.0/24", "--dynamic", "127.77.0.50-127.77.0.199"]);
    dev.run(&["machine", "add", "fox", "--mac", "52:54:00:77:00:01"]);
    dev.reserve("52:54:00:77:00:01", "127.77.0.20").await;
    assert_eq!(dev.run(&["machine", "logs", "fox"]), "");
    // The plan with the reservation is in force when a line arrives.
    until("the first line", || {
        dev.send("127.77.0.20", "<86>Nov 25 09:00:00 fox sshd[812]: a login");
        dev.run(&["machine", "logs", "fox"]).contains("sshd[812]: a login")
    })
    .await;
    let mut following =
        dev.command(&["machine", "logs", "fox", "-f", "-n", "1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("a login"));
    dev.send("127.77.0.20", "<13>fox: what comes later");
    let mut next = lines.next().unwrap().unwrap();
    while next.contains("a login") {
        next = lines.next().unwrap().unwrap();
    }
    assert!(next.ends_with("fox: what comes later"), "{next}");
    following.kill().unwrap();
    following.wait().unwrap();
    // What a stranger sends is nobody's.
    dev.send("127.77.0.77", "<13>x: nobody's");
    let json: Vec<Value> = dev
        .run(&["machine", "logs", "fox", "-n", "1", "-o", "ndjson"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((json.len(), json[0]["host"].as_str(), json[0]["severity"].as_u64()), (1, Some("fox"), Some(5)));
    let none = dev.run(&["machine", "logs", "fox", "--since", "2999-01-01T00:00:00Z"]);
    assert_eq!(none + &dev.run(&["machine", "logs", "fox", "--attempt", "7"]), "");
    for (words, part) in [(["--since", "soon"], "since"), (["-n", "100001"], "100000")] {
        let output = dev.command(&[&["machine", "logs", "fox"][..], &words].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(part));
    }
}
