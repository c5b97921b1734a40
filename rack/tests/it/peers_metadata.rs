//! The real runner under python3 against the real server: whole conversations, with big outputs, failures, time-outs, retries and a wrong clock.

use std::{path::PathBuf, process::Stdio, time::Duration};

use actors::clock;
use rack::{
    bodies::Bodies,
    http::{self, HttpConfig, HttpState, Running},
    leases::LeaseTable,
    plan::PlanHandle,
    report::{Reporter, Seen},
};
use schema::{
    messages::report::Fact,
    plan::Plan,
    script::{Content, OUTPUT_LIMIT, ScriptOutput, ScriptRef, ScriptType, SignalStatus},
    time::Timestamp,
};
use tokio::{process::Command, sync::mpsc::UnboundedReceiver};

use crate::metadata::{MAC, body, lease, script, ticket};

const RUNNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../region/machine/runner.py");

struct House {
    dir: tempfile::TempDir,
    bodies: Bodies,
    server: Running,
    facts: UnboundedReceiver<Seen>,
}

/// A served rack with one machine; `texts` are put into the body store unless `keep_back`.
fn house(ip: &str, scripts: &[(ScriptRef, &str)], keep_back: bool) -> House {
    let dir = tempfile::tempdir().unwrap();
    let bodies = Bodies::open(dir.path()).unwrap();
    let now = clock::now();
    let later = Timestamp(now.0 + 600_000_000);
    if !keep_back {
        for (_, text) in scripts {
            bodies.put(text.as_bytes()).unwrap();
        }
    }
    let plan = Plan { tickets: vec![ticket(scripts.iter().map(|s| s.0.clone()).collect(), later)], ..Plan::default() };
    let (leases, (reporter, facts)) = (LeaseTable::default(), Reporter::channel());
    leases.put(lease(ip, MAC, later));
    let (plan, metadata) = (PlanHandle::new(plan), http::metadata::Memory::default());
    let state = HttpState {
        plan,
        leases,
        bodies: bodies.clone(),
        reporter,
        metadata,
        proxy: rack::proxy::Whereabouts::default(),
    };
    let config = HttpConfig { listen: format!("{ip}:0").parse().unwrap(), workers: 1, ..HttpConfig::default() };
    let server = http::start(config, state).unwrap();
    House { dir, bodies, server, facts }
}

fn with(text: &'static str, mut script: ScriptRef, change: impl FnOnce(&mut ScriptRef)) -> (ScriptRef, &'static str) {
    script.body = body(text.as_bytes());
    change(&mut script);
    (script, text)
}

fn plain(id: i64, name: &str, text: &'static str) -> (ScriptRef, &'static str) {
    with(text, script(id, name, ScriptType::Commissioning, b""), |_| ())
}

impl House {
    /// Fetches the preseed as the kernel's parameter would have it, into the file where cloud-init leaves it.
    async fn preseed(&self) -> PathBuf {
        let url = format!("http://{}/MAAS/metadata/latest/by-id/abc123/?op=get_preseed", self.server.address());
        // From the leased address, which here is the server's own.
        let address = self.server.address().ip().to_string();
        let path = self.dir.path().join("91_kernel_cmdline_url.cfg");
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "-D", "-", "--interface", &address, "-o"]).arg(&path).arg(url);
        let output = curl.output().await.expect("curl is here; apt-get install curl");
        let head = String::from_utf8_lossy(&output.stdout).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 ok"), "{head}");
        assert!(head.contains("\ndate: "), "clients with a wrong clock set it by this: {head}");
        path
    }

    /// Runs the runner to its end: exit status, what it printed, and the facts.
    async fn run(&mut self, python: &[&str], arguments: &[&str]) -> (i32, String, Vec<Fact>) {
        let config = self.preseed().await;
        let work = self.dir.path().join("work");
        std::fs::create_dir_all(&work).unwrap();
        let mut command = Command::new("python3");
        command.args(python).arg("--config").arg(config).arg("--work").arg(&work).args(["--hurry", "10"]);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("the runner ends");
        let output = output.expect("python3 is here; apt-get install python3-minimal");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let mut facts = Vec::new();
        while let Ok(seen) = self.facts.try_recv() {
            if let Seen::Fact { fact, .. } = seen {
                facts.push(fact);
            }
        }
        (output.status.code().unwrap_or(-1), said, facts)
    }

    fn content(&self, content: Option<&Content>) -> Vec<u8> {
        let content = content.expect("the file was sent");
        content.inline.clone().unwrap_or_else(|| self.bodies.read(content.body).unwrap())
    }
}

fn ended<'a>(facts: &'a [Fact], script: &str) -> (&'a SignalStatus, i32, &'a ScriptOutput) {
    let found = facts.iter().find_map(|f| match f {
        Fact::ScriptEnded { name, status, exit_status, output, .. } if name == script => {
            Some((status, *exit_status, &**output))
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{script} did not end: {facts:?}"))
}

fn last(facts: &[Fact]) -> (SignalStatus, &str) {
    match facts.last() {
        Some(Fact::Finished { status, error }) => (*status, error),
        other => panic!("the last word is missing: {other:?}"),
    }
}

fn order(facts: &[Fact]) -> Vec<&str> {
    let started = |f| match f {
        &Fact::ScriptStarted { ref name, status: SignalStatus::Working, .. } => Some(name.as_str()),
        _ => None,
    };
    facts.iter().filter_map(started).collect()
}

#[tokio::test]
async fn a_good_commissioning_from_preseed_to_the_last_word() {
    let environment = "#!/bin/sh\nfor v in OUTPUT_COMBINED_PATH OUTPUT_STDOUT_PATH OUTPUT_STDERR_PATH RESULT_PATH DOWNLOAD_PATH RUNTIME HAS_STARTED BMC_CONFIG_PATH; do eval \"echo $v=\\$$v\"; done\nprintf '10%%\\r20%%\\r100%%\\n' >&2\nprintf 'status: degraded\\nresults: {speed: 7}\\n' > $RESULT_PATH\n";
    let big = "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\n";
    let daemon = "#!/bin/sh\nsleep 300 & echo $! > $DOWNLOAD_PATH/pid; echo left\n";
    let scripts = [
        plain(1, "10-environment", environment),
        plain(2, "20-big", big),
        with(daemon, script(3, "05-daemon", ScriptType::Commissioning, b""), |s| s.hardware_type = 4),
        with("#!/bin/sh\nsleep 0.6\n", script(4, "any-a", ScriptType::Commissioning, b""), |s| s.parallel = 2),
        with("#!/bin/sh\nsleep 0.6; echo b\n", script(5, "any-b", ScriptType::Commissioning, b""), |s| s.parallel = 2),
        with("#!/bin/sh\necho tested\n", script(6, "test", ScriptType::Testing, b""), |_| ()),
    ];
    let mut house = house("127.77.12.1", &scripts, false);
    let begun = clock::tick();
    let (exit, said, facts) = house.run(&[RUNNER], &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(begun.elapsed() < Duration::from_secs(20), "nothing waits for the daemon that was left behind");
    assert!(matches!(facts.first(), Some(Fact::PreseedFetched { .. })));
    assert_eq!(last(&facts), (SignalStatus::Ok, ""));

    // Network before the machine as a whole, then by name; the parallel ones after the serial; tests last.
    let order = order(&facts);
    assert_eq!(order[..3], ["05-daemon", "10-environment", "20-big"]);
    assert_eq!(order[5], "test");
    let fetched: Vec<_> = facts
        .iter()
        .filter_map(|f| if let Fact::ScriptsFetched { scripts } = f { Some(*scripts) } else { None })
        .collect();
    assert_eq!(fetched, [6, 1]);

    let (status, exit, output) = ended(&facts, "10-environment");
    assert_eq!((*status, exit), (SignalStatus::Working, 0));
    let stdout = String::from_utf8(house.content(output.stdout.as_ref())).unwrap();
    for line in ["RUNTIME=30\n", "HAS_STARTED=False\n"] {
        assert!(stdout.contains(line), "{stdout}");
    }
    assert!(stdout.lines().all(|l| !l.ends_with('=')), "every variable is set: {stdout}");
    assert_eq!(house.content(output.stderr.as_ref()), b"100%\n", "a carriage return overwrites");
    assert_eq!(house.content(output.result.as_ref()), b"status: degraded\nresults: {speed: 7}\n");

    let big = house.content(ended(&facts, "20-big").2.combined.as_ref());
    assert_eq!(big.len(), OUTPUT_LIMIT);
    assert!(big.starts_with(b"xxx") && big.ends_with(b"bytes\n"));
    assert!(ended(&facts, "20-big").2.combined.as_ref().unwrap().inline.is_none());

    let daemon = house.dir.path().join("work/downloads/05-daemon.3/pid");
    let pid = std::fs::read_to_string(daemon).unwrap();
    std::process::Command::new("kill").arg(pid.trim()).status().unwrap();
    house.server.stop().await;
}

#[tokio::test]
async fn failures_and_time_outs_end_it_before_the_tests() {
    let hang = "#!/bin/sh\ntrap '' TERM\necho going; while :; do sleep 1; done\n";
    let scripts = [
        plain(1, "10-fails", "#!/bin/sh\necho why >&2; exit 3\n"),
        with(hang, script(2, "20-hangs", ScriptType::Commissioning, b""), |s| s.timeout_seconds = 1),
        plain(3, "30-no-interpreter", "#!/no/such/thing\n"),
        plain(4, "40-killed", "#!/bin/sh\nkill -9 $$\n"),
        with("#!/bin/sh\n", script(5, "50-never", ScriptType::Testing, b""), |_| ()),
    ];
    let mut house = house("127.77.12.2", &scripts, false);
    let (exit, said, facts) = house.run(&[RUNNER], &["--grace", "0.2", "--heartbeat", "0.5"]).await;
    assert_eq!(exit, 0, "{said}");
    let (status, error) = last(&facts);
    assert_eq!(status, SignalStatus::Failed);
    assert_eq!(error, "4 commissioning script(s) failed: 10-fails, 20-hangs, 30-no-interpreter, 40-killed");
    assert_eq!(ended(&facts, "10-fails").1, 3);
    assert_eq!(house.content(ended(&facts, "10-fails").2.stderr.as_ref()), b"why\n");
    let (status, exit, output) = ended(&facts, "20-hangs");
    assert_eq!((*status, exit), (SignalStatus::Timedout, 124));
    assert_eq!(house.content(output.stdout.as_ref()), b"going\n");
    assert_eq!(ended(&facts, "30-no-interpreter").1, 2);
    assert_eq!(ended(&facts, "40-killed").1, 137);
    assert!(!order(&facts).contains(&"50-never"));
    assert!(facts.iter().any(|f| matches!(f, Fact::Heartbeat)), "it beats while a script hangs");
    house.server.stop().await;
}

#[tokio::test]
async fn bodies_that_come_late_are_waited_for() {
    let scripts = [plain(1, "10-late", "#!/bin/sh\necho late\n")];
    let mut house = house("127.77.12.3", &scripts, true);
    let bodies = house.bodies.clone();
    let bring = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        bodies.put(b"#!/bin/sh\necho late\n").unwrap();
    });
    let (exit, said, facts) = house.run(&[RUNNER], &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert_eq!(last(&facts), (SignalStatus::Ok, ""));
    bring.await.unwrap();
    house.server.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_off_is_corrected_by_the_date() {
    let scripts = [plain(1, "10-ok", "#!/bin/sh\n")];
    let mut house = house("127.77.12.4", &scripts, false);
    // The runner as it is, with a clock that runs 5,000 s behind.
    let slow = format!(
        "import runpy, sys, time; real = time.time; time.time = lambda: real() - 5000; sys.argv[0] = 'runner'; runpy.run_path({RUNNER:?}, run_name='__main__')"
    );
    let (exit, said, facts) = house.run(&["-c", &slow], &[]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("the clock is off by -"), "{said}");
    let skews: Vec<_> = facts
        .iter()
        .filter_map(|f| if let Fact::AuthRefused { skew_s: Some(s), .. } = f { Some(*s) } else { None })
        .collect();
    assert!(matches!(skews[..], [s] if (-5_010..=-4_990).contains(&s)), "{skews:?}");
    assert_eq!(last(&facts), (SignalStatus::Ok, ""));
    house.server.stop().await;
}

#[tokio::test]
async fn a_key_that_was_withdrawn_ends_the_runner_with_a_reason() {
    let scripts = [plain(1, "10-ok", "#!/bin/sh\n")];
    let mut house = house("127.77.12.5", &scripts, false);
    let wrong = "import runpy, sys, re; p = sys.argv[sys.argv.index('--config') + 1]; t = open(p).read().replace('s3cret-of-the-node', 'old'); open(p, 'w').write(t); sys.argv[0] = 'runner'; runpy.run_path(RUN, run_name='__main__')"
        .replace("RUN", &format!("{RUNNER:?}"));
    let (exit, said, facts) = house.run(&["-c", &wrong], &["--hurry", "1000"]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("giving up: maas-scripts answered 401: Authorization Error"), "{said}");
    // Knocking again and again is reported once.
    assert_eq!(facts.iter().filter(|f| matches!(f, Fact::AuthRefused { .. })).count(), 1);
    house.server.stop().await;
}
