//! `hostler dev` as its user meets it: machines that become Ready, a fault that is announced, explained and healed, and what it refuses.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use actors::clock::tick;
use serde_json::Value;

use crate::cli::{House, path};

/// However loaded the machine that runs this is.
const PATIENCE: Duration = Duration::from_secs(200);

/// A yard in a process of its own.
struct Yard {
    process: Child,
    ready: PathBuf,
    /// What it says on stderr.
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Yard {
    fn start(h: &House, words: &[&str]) -> Self {
        let (ready, dir) = (h.path("ready"), h.path("yard"));
        let own = ["dev", "--port", "0", "--ready-file", path(&ready), "--data-dir", path(&dir)];
        let mut command = h.command(&[&own[..], words].concat());
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = channel();
        let stderr = process.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr.take(1 << 24)).lines().map_while(Result::ok) {
                tell.send(line).ok();
            }
        });
        Self { process, ready, lines, said: Vec::new() }
    }

    /// The next line with all of these in it.
    #[track_caller]
    fn says(&mut self, parts: &[&str]) -> String {
        let end = tick() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(tick())) {
            self.said.push(line.clone());
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
        }
        panic!("{parts:?} was not said:\n{}", self.said.join("\n"));
    }

    fn told(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(&self.ready).unwrap()).unwrap()
    }
}

/// Asks until the answer is as wanted.
#[track_caller]
fn until(h: &House, words: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
    let end = tick() + PATIENCE;
    loop {
        let answer = h.run(words).json();
        if wanted(&answer) {
            return answer;
        }
        assert!(tick() < end, "{words:?}: {answer:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_yard_announces_a_fault_explains_it_heals_it_and_drives_no_real_bmc() {
    let h = House::new();
    let mut yard = Yard::start(&h, &["--simulate", "4", "--speed", "20"]);
    yard.says(&["2 racks and 4 simulated machines are alive"]);
    let told = yard.told();
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    assert_eq!(h.run(&["login", "yard", &text("url"), &text("api_key")]).code, 0);

    // Who adds a real machine here by mistake does not switch it.
    let owl = ["machine", "add", "owl", "--mac", "52:54:00:77:00:09", "--power-type", "ipmi"];
    assert_eq!(h.run(&[&owl[..], &["--power-address", "192.0.2.7", "--power-user", "admin"]].concat()).code, 0);
    h.run(&["machine", "commission", "owl"]);
    let refused = until(&h, &["explain", "owl", "-o", "json"], |e| e["status"] == "Failed commissioning");
    assert!(refused["error"].as_str().unwrap().contains("no real machine is switched from here"), "{refused:#}");

    let line = yard.says(&["fault: ", "its firmware never asks DHCP", "look: hostler explain "]);
    let name = line.rsplit(' ').next().unwrap().to_owned();
    let stuck = until(&h, &["explain", &name, "-o", "json"], |explained| {
        explained["wait"]["what"].as_str().is_some_and(|what| what.contains("a DHCP request"))
    });
    assert_eq!(stuck["power_state"], "on", "{stuck:#}");
    assert!(stuck["wait"]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{stuck:#}");
    let causes = stuck["causes"].as_array().unwrap();
    assert!(causes.iter().any(|cause| cause["id"] == "wait" && cause["rank"].is_u64()), "{stuck:#}");
    yard.says(&["healed after ", &name]);
    yard.says(&[&format!("{name} is Ready")]);
    // A progress line is for a terminal, and this is none.
    assert!(yard.said.iter().all(|line| !line.contains('\r')), "{:?}", yard.said);
}

#[test]
fn a_yard_refuses_what_it_cannot_be() {
    let h = House::new();
    h.run(&["dev", "--port", "80"]).fails(2, "no privileged port");
    h.run(&["dev", "--faults", "some"]).fails(2, "none, story");
    h.run(&["dev", "--bmcs", "serial"]).fails(2, "half, ipmi, redfish");
    h.run(&["dev", "--simulate", "501"]).fails(2, "--racks 3");
    h.run(&["bench", "commission", "--bmcs", "serial"]).fails(2, "half, ipmi, redfish");
}
