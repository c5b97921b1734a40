//! Real DHCP clients and another real server against the DHCP service, each test in two network namespaces of its own. Needs root.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use actors::{clock, shell::Registry};
use rack::{
    dhcp::{self, DhcpConfig, DhcpHandles, Listen, Neighbours},
    disk::Disk,
    leases::LeaseTable,
    plan::PlanHandle,
    report::Reporter,
};
use serde_json::{Value, json};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A namespace for the server and one for the clients, joined by a veth pair `srv` (10.88.0.1/16) and `cli`.
struct Wire {
    server: String,
    client: String,
    state: tempfile::TempDir,
}

/// Whether the test can run. Without its tools it fails, unless skipping was asked for.
pub(crate) fn ready(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools.iter().filter(|t| !found(t)).copied().collect();
    let root = nix::unistd::geteuid().is_root();
    if missing.is_empty() && root {
        return true;
    }
    let why = format!(
        "needs root ({root}) and {missing:?}; install isc-dhcp-client isc-dhcp-relay udhcpc dhcping kea-admin dnsmasq-base tcpdump"
    );
    assert!(std::env::var_os("HOSTLER_TEST_SKIP").is_some(), "{why}");
    println!("SKIPPED: {why}");
    false
}

fn found(tool: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(tool).is_file())
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

pub(crate) fn ip(arguments: &str) {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>());
}

impl Wire {
    fn new() -> Self {
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let wire = Self {
            server: format!("hx-dhcp-{id}-s"),
            client: format!("hx-dhcp-{id}-c"),
            state: tempfile::tempdir().unwrap(),
        };
        let (s, c) = (&wire.server, &wire.client);
        ip(&format!("netns add {s}"));
        ip(&format!("netns add {c}"));
        ip(&format!("link add srv netns {s} type veth peer name cli netns {c}"));
        ip(&format!("-n {c} link set cli address 52:54:00:88:00:01"));
        ip(&format!("-n {s} addr add 10.88.0.1/16 dev srv"));
        for (namespace, link) in [(s, "srv"), (s, "lo"), (c, "cli"), (c, "lo")] {
            ip(&format!("-n {namespace} link set {link} up"));
        }
        wire
    }

    fn serve(&self, plan: &Value) -> Server {
        Server::start(&self.server, plan, self.state.path())
    }

    fn client(&self, program: &str, arguments: &str) -> Output {
        let words: Vec<_> = arguments.split_whitespace().collect();
        let all = [&["netns", "exec", &self.client, program][..], &words].concat();
        Command::new("ip").args(all).stdin(Stdio::null()).current_dir(self.state.path()).output().unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            Command::new("ip").args(["netns", "del", namespace]).status().ok();
        }
    }
}

pub(crate) struct Server {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// The service in a process of its own inside a namespace.
    pub(crate) fn start(namespace: &str, plan: &Value, state: &Path) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(std::env::current_exe().unwrap())
            .args(["peers_dhcp::server_process", "--exact", "--nocapture"])
            .env("HX_DHCP_PLAN", plan.to_string())
            .env("HX_DHCP_STATE", state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("serving") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the server process ended");
        }
        Self { child, lines }
    }

    /// What the service says of itself now.
    pub(crate) fn status(&mut self) -> Value {
        self.child.stdin.as_mut().unwrap().write_all(b"status\n").unwrap();
        let mut line = String::new();
        while !line.starts_with('{') {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the server process ended");
        }
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn count(&mut self, what: &str) -> u64 {
        self.status()["counts"][what].as_u64().unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What `doctor` finds on the links of that namespace.
fn rack_doctor(namespace: &str) -> String {
    let output = Command::new("ip")
        .args(["netns", "exec", namespace])
        .arg(std::env::current_exe().unwrap())
        .args(["peers_dhcp::doctor_process", "--exact", "--nocapture"])
        .env("HX_DHCP_DOCTOR", "1")
        .output()
        .unwrap();
    said(&output)
}

/// Not a test: the process that [`rack_doctor`] starts.
#[test]
fn doctor_process() {
    if std::env::var_os("HX_DHCP_DOCTOR").is_some() {
        rack::doctor::checks(&rack::config::RackConfig::default()).iter().for_each(|f| println!("{f:?}"));
    }
}

/// Not a test: the process that [`Wire::serve`] starts. One line on stdin asks for the status; the end of stdin ends it.
#[test]
fn server_process() {
    let (Ok(plan), Ok(state)) = (std::env::var("HX_DHCP_PLAN"), std::env::var("HX_DHCP_STATE")) else { return };
    let config =
        DhcpConfig { listen: Listen::Interfaces, http_port: 5248, state: state.into(), peers: Vec::new(), seek: true };
    let (reporter, _seen) = Reporter::channel();
    let handles = DhcpHandles {
        plan: PlanHandle::new(serde_json::from_str(&plan).unwrap()),
        leases: LeaseTable::default(),
        reporter,
        registry: Registry::default(),
        neighbours: Neighbours::default(),
        disk: Disk::default(),
    };
    let running = dhcp::start(config, handles).unwrap();
    println!("serving");
    for line in std::io::stdin().lines() {
        assert_eq!(line.unwrap(), "status");
        println!("\n{}", serde_json::to_string(&running.status()).unwrap());
    }
}

fn plan(strangers: &str) -> Value {
    json!({
        "subnets": [{
            "id": 1, "cidr": "10.88.0.0/16", "dhcp": true, "strangers": strangers, "gateway": "10.88.0.254",
            "dns_servers": ["10.88.0.1"], "dynamic": [{"start": "10.88.1.0", "end": "10.88.60.255"}]
        }],
        "reservations": [{"subnet": 1, "mac": "52:54:00:88:00:01", "ip": "10.88.0.77", "hostname": "seventy-seven"}]
    })
}

/// A daemon's pid, once it has written it: that is after the parent, which we waited for, is gone.
fn pid_written_to(path: &Path) -> String {
    let until = clock::tick() + Duration::from_secs(5);
    loop {
        let pid = std::fs::read_to_string(path).unwrap_or_default();
        if pid.ends_with('\n') {
            return pid.trim().to_owned();
        }
        assert!(clock::tick() < until, "no pid in {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn dhclient_gets_its_reservation_renews_and_releases() {
    if !ready(&["dhclient"]) {
        return;
    }
    let wire = Wire::new();
    let _server = wire.serve(&plan("ignore"));
    let at = wire.state.path().display();
    let dhclient = |what: &str| {
        said(&wire.client("dhclient", &format!("-4 {what} -v -sf /bin/true -lf {at}/leases -pf {at}/pid cli")))
    };
    std::fs::write(wire.state.path().join("leases"), "").unwrap();
    let bound = dhclient("-1");
    assert!(bound.contains("bound to 10.88.0.77"), "{bound}");
    // It remembers the lease and asks for it again: INIT-REBOOT.
    run("kill", &[&pid_written_to(&wire.state.path().join("pid"))]);
    let again = dhclient("-1");
    assert!(again.contains("bound to 10.88.0.77") && !again.contains("DHCPDISCOVER"), "{again}");
    let released = dhclient("-r");
    assert!(released.contains("DHCPRELEASE of 10.88.0.77"), "{released}");
}

#[test]
fn udhcpc_is_reached_without_an_address_and_a_stranger_is_not() {
    if !ready(&["busybox"]) {
        return;
    }
    let wire = Wire::new();
    let mut server = wire.serve(&plan("ignore"));
    let known = wire.client("busybox", "udhcpc -f -q -n -t 3 -T 1 -i cli -s /bin/true");
    assert!(said(&known).contains("lease of 10.88.0.77 obtained"), "{}", said(&known));
    ip(&format!("-n {} link set cli down", wire.client));
    ip(&format!("-n {} link set cli address 52:54:00:88:00:02 up", wire.client));
    let stranger = wire.client("busybox", "udhcpc -f -q -n -t 2 -T 1 -i cli -s /bin/true");
    assert!(!stranger.status.success(), "{}", said(&stranger));
    assert!(server.count("stranger") >= 2);
}

#[test]
fn dhcping_is_answered() {
    if !ready(&["dhcping"]) {
        return;
    }
    let wire = Wire::new();
    let _server = wire.serve(&plan("ignore"));
    ip(&format!("-n {} addr add 10.88.0.77/16 dev cli", wire.client));
    let answered = wire.client("dhcping", "-v -h 52:54:00:88:00:01 -c 10.88.0.77 -s 10.88.0.1");
    assert!(answered.status.success(), "{}", said(&answered));
}

#[test]
fn an_avalanche_of_perfdhcp_is_served_whole() {
    if !ready(&["perfdhcp"]) {
        return;
    }
    let wire = Wire::new();
    let mut server = wire.serve(&plan("local"));
    ip(&format!("-n {} addr add 10.88.0.2/16 dev cli", wire.client));
    let relayed = wire.client("perfdhcp", "-4 -l cli --scenario avalanche -R 1000 10.88.0.1");
    assert!(said(&relayed).contains("It took"), "{}", said(&relayed));
    assert!(server.count("ack") >= 1_000);
    // perfdhcp's four-way exchange at a steady rate, nothing lost.
    let steady = wire.client("perfdhcp", "-4 -l cli -r 200 -R 2000 -p 3 -W 1000000 10.88.0.1");
    assert!(steady.status.success(), "{}", said(&steady));
}

#[test]
fn leases_survive_kill_9() {
    if !ready(&["busybox"]) {
        return;
    }
    let wire = Wire::new();
    let mut server = wire.serve(&plan("local"));
    let mut addresses = Vec::new();
    for i in 10..13 {
        ip(&format!("-n {} link set cli down", wire.client));
        ip(&format!("-n {} link set cli address 52:54:00:88:00:{i} up", wire.client));
        let bound = said(&wire.client("busybox", "udhcpc -f -q -n -t 3 -T 1 -i cli -s /bin/true"));
        addresses.push(bound.split("lease of ").nth(1).unwrap().split(' ').next().unwrap().to_owned());
    }
    server.kill();
    let _again = wire.serve(&plan("local"));
    // The last client first: an empty table would give it the first address.
    for (i, address) in (10..13).zip(&addresses).rev() {
        ip(&format!("-n {} link set cli down", wire.client));
        ip(&format!("-n {} link set cli address 52:54:00:88:00:{i} up", wire.client));
        let bound = said(&wire.client("busybox", "udhcpc -f -q -n -t 3 -T 1 -i cli -s /bin/true"));
        assert!(bound.contains(&format!("lease of {address} obtained")), "{address}: {bound}");
    }
}

#[test]
fn another_server_on_the_wire_stops_the_offers() {
    if !ready(&["dnsmasq", "busybox"]) {
        return;
    }
    let wire = Wire::new();
    let mut server = wire.serve(&plan("local"));
    ip(&format!("-n {} addr add 10.88.0.3/16 dev cli", wire.client));
    let mut other = Command::new("ip")
        .args([
            "netns",
            "exec",
            &wire.client,
            "dnsmasq",
            "-k",
            "-C",
            "/dev/null",
            "-p",
            "0",
            "-i",
            "cli",
            "-z",
            "--no-ping",
        ])
        .args([
            "--dhcp-authoritative",
            "-F",
            "10.88.100.1,10.88.100.9,255.255.0.0,2m",
            "--user=root",
            "--dhcp-broadcast",
        ])
        .arg(format!("--dhcp-leasefile={}", wire.state.path().join("other").display()))
        .arg(format!("--pid-file={}", wire.state.path().join("other.pid").display()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    pid_written_to(&wire.state.path().join("other.pid"));
    // Nobody asks but the service itself, at its start.
    drop(server);
    server = wire.serve(&plan("local"));
    let until = clock::tick() + Duration::from_secs(10);
    while server.status()["foreign"]["1"]["proven"] != json!(true) {
        assert!(clock::tick() < until, "{}", server.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    let foreign = server.status()["foreign"]["1"].clone();
    assert_eq!((&foreign["server"], &foreign["mac"]), (&json!("10.88.0.3"), &json!("52:54:00:88:00:01")));
    let found = rack_doctor(&wire.server);
    assert!(found.contains("10.88.0.3 (52:54:00:88:00:01) answers on srv"), "{found}");
    other.kill().unwrap();
    other.wait().unwrap();
    ip(&format!("-n {} link set cli down", wire.client));
    ip(&format!("-n {} link set cli address 52:54:00:88:00:02 up", wire.client));
    let refused = wire.client("busybox", "udhcpc -f -q -n -t 2 -T 1 -i cli -s /bin/true");
    assert!(!refused.status.success(), "{}", said(&refused));
    assert!(server.count("halted") >= 1);
}
