//! Real senders and a real receiver: logger by UDP and TCP in its forms, rsyslog as a machine's sender and as the external server.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use actors::logbook::{self, Wanted};
use schema::logs::KeptLine;

use crate::{
    alone::{inside, run},
    syslog::for_peers,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn kept(dir: &Path, name: &str) -> Vec<KeptLine> {
    logbook::read(&dir.join("logs"), name, Wanted::default()).unwrap().0
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "{what} did not come");
}

/// rsyslogd with that configuration, in the foreground.
struct Rsyslog(Child);

impl Rsyslog {
    fn start(dir: &Path, name: &str, config: &str) -> Self {
        let file = dir.join(format!("{name}.conf"));
        std::fs::write(&file, format!("global(workDirectory=\"{}\")\n{config}", dir.display())).unwrap();
        let pid = dir.join(format!("{name}.pid"));
        let child =
            Command::new("rsyslogd").arg("-n").arg("-f").arg(&file).arg("-i").arg(pid).stdin(Stdio::null()).spawn();
        Self(child.unwrap())
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The machine's address is 127.77.40.20: its route to the rack is made to leave from there.
fn route_from_the_machine() {
    run("ip", &["addr", "add", "127.77.40.20/32", "dev", "lo"]);
    run("ip", &["route", "replace", "local", "127.77.40.1", "dev", "lo", "src", "127.77.40.20", "table", "local"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn logger_in_every_form() {
    if !inside("peers_syslog::logger_in_every_form", &["logger", "ip"]) {
        return;
    }
    route_from_the_machine();
    let dir = tempfile::tempdir().unwrap();
    let (running, keeping) = for_peers(dir.path(), "127.77.40.1:5247", None);
    let forms: [&[&str]; 5] = [&["-d"], &["-T"], &["-d", "--rfc3164"], &["-T", "--rfc3164"], &["-T", "--octet-count"]];
    for (n, form) in forms.iter().enumerate() {
        let text = format!("form {n} ä");
        let all =
            [&["-n", "127.77.40.1", "-P", "5247", "-t", "probe", "--id=812", "-p", "auth.warning"][..], form, &[&text]];
        tokio::task::block_in_place(|| run("logger", &all.concat()));
        until("the line", || kept(dir.path(), "abc234").len() == n + 1).await;
        let line = kept(dir.path(), "abc234").pop().unwrap();
        assert_eq!(
            (line.app.as_str(), line.procid.as_str(), line.text.as_str()),
            ("probe", "812", text.as_str()),
            "{form:?}"
        );
        assert_eq!((line.facility, line.severity, line.host.as_str()), (4, 4, "host0"));
    }
    running.stop().await;
    keeping.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_sends_and_receives() {
    if !inside("peers_syslog::rsyslog_sends_and_receives", &["rsyslogd", "logger", "ip"]) {
        return;
    }
    route_from_the_machine();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("received");
    let receiver = format!(
        "module(load=\"imtcp\")\ntemplate(name=\"t\" type=\"string\" string=\"%HOSTNAME% %APP-NAME% %PROCID% %STRUCTURED-DATA% %msg%\\n\")\n\
         input(type=\"imtcp\" port=\"6514\" address=\"127.77.40.200\")\n*.* action(type=\"omfile\" file=\"{}\" template=\"t\")\n",
        out.display()
    );
    let receiver = Rsyslog::start(dir.path(), "receiver", &receiver);
    let (running, keeping) = for_peers(dir.path(), "127.77.40.1:5247", Some("127.77.40.200:6514".parse().unwrap()));
    // The machine's own rsyslog: by UDP in the old form, by TCP in both framings and the new form.
    let sender = format!(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"{0}/log.sock\")\n\
         *.* action(type=\"omfwd\" target=\"127.77.40.1\" port=\"5247\" protocol=\"udp\")\n\
         *.* action(type=\"omfwd\" target=\"127.77.40.1\" port=\"5247\" protocol=\"tcp\" template=\"RSYSLOG_SyslogProtocol23Format\" TCP_Framing=\"octet-counted\")\n\
         *.* action(type=\"omfwd\" target=\"127.77.40.1\" port=\"5247\" protocol=\"tcp\" template=\"RSYSLOG_ForwardFormat\")\n",
        dir.path().display()
    );
    let sender = Rsyslog::start(dir.path(), "sender", &sender);
    let socket = dir.path().join("log.sock");
    until("the sender's socket", || socket.exists()).await;
    let says = socket.display().to_string();
    tokio::task::spawn_blocking(move || {
        run("logger", &["-u", &says, "-t", "probe", "--id=812", "-p", "daemon.info", "three ways"])
    })
    .await
    .unwrap();
    let ours = || kept(dir.path(), "abc234").into_iter().filter(|l| l.app == "probe").collect::<Vec<_>>();
    until("the line by three ways", || ours().len() == 3).await;
    for line in ours() {
        assert_eq!((line.procid.as_str(), line.text.trim(), line.facility, line.severity), ("812", "three ways", 3, 6));
    }
    let arrived = || std::fs::read_to_string(&out).unwrap_or_default();
    let wanted =
        |text: &str| text.lines().filter(|l| l.starts_with("host0 probe 812") && l.ends_with("three ways")).count();
    until("the lines at the external server", || wanted(&arrived()) == 3).await;
    drop((sender, receiver));
    running.stop().await;
    keeping.abort();
}
