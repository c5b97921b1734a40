//! DHCP through a real relay agent (isc-dhcp-relay) that adds option 82: the subnet behind it is served, and what the relay said comes back.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use actors::clock;
use serde_json::json;

use super::peers_dhcp::{Server, ip, ready, said};

/// A rack on 10.90.0.0/24, a relay between it and 10.91.0.0/24, and a client there, each in a namespace.
struct Road {
    id: String,
    state: tempfile::TempDir,
}

impl Road {
    fn new() -> Self {
        let road = Self { id: format!("hx-relay-{}", std::process::id()), state: tempfile::tempdir().unwrap() };
        let [rack, relay, client] = ["r", "y", "c"].map(|place| road.namespace(place));
        for there in [&rack, &relay, &client] {
            ip(&format!("netns add {there}"));
            ip(&format!("-n {there} link set lo up"));
        }
        ip(&format!("link add near netns {rack} type veth peer name upper netns {relay}"));
        ip(&format!("link add lower netns {relay} type veth peer name cli netns {client}"));
        ip(&format!("-n {client} link set cli address 52:54:00:91:00:01"));
        for (there, link, address) in
            [(&rack, "near", "10.90.0.1/24"), (&relay, "upper", "10.90.0.2/24"), (&relay, "lower", "10.91.0.1/24")]
        {
            ip(&format!("-n {there} addr add {address} dev {link}"));
        }
        for (there, link) in [(&rack, "near"), (&relay, "upper"), (&relay, "lower"), (&client, "cli")] {
            ip(&format!("-n {there} link set {link} up"));
        }
        ip(&format!("-n {rack} route add 10.91.0.0/24 via 10.90.0.2"));
        road
    }

    fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.id)
    }

    fn start(&self, place: &str, program: &str, arguments: &[&str]) -> Ended {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(place), program]).args(arguments);
        Ended(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        for place in ["r", "y", "c"] {
            Command::new("ip").args(["netns", "del", &self.namespace(place)]).status().ok();
        }
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Option 82 of every DHCP message with that `op` in a capture.
fn relayed(capture: &Path, op: u8) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(capture).unwrap_or_default();
    let mut at = 24;
    let mut found = Vec::new();
    while let Some(head) = bytes.get(at..at + 16) {
        let len = usize::try_from(u32::from_ne_bytes(head[8..12].try_into().unwrap())).unwrap();
        let Some(frame) = bytes.get(at + 16..at + 16 + len) else { break };
        at += 16 + len;
        let Some(message) = frame.get(42..).filter(|m| m.first() == Some(&op)) else { continue };
        let mut options = message.get(240..).unwrap_or_default();
        while let [code, len, rest @ ..] = options {
            let Some((value, next)) = rest.split_at_checked(usize::from(*len)).filter(|_| *code != 255) else { break };
            if *code == 82 {
                found.push(value.to_vec());
            }
            options = next;
        }
    }
    found
}

#[test]
fn a_client_behind_a_relay_is_served_and_option_82_comes_back() {
    if !ready(&["dhcrelay", "busybox", "tcpdump"]) {
        return;
    }
    let road = Road::new();
    let capture = road.state.path().join("near.pcap");
    let shown = capture.display().to_string();
    let dump = road.start("r", "tcpdump", &["-i", "near", "-U", "--immediate-mode", "-w", &shown, "udp", "port", "67"]);
    let plan = json!({
        "subnets": [
            {"id": 1, "cidr": "10.90.0.0/24", "rack_address": "10.90.0.1", "dhcp": true, "strangers": "local"},
            {
                "id": 2, "cidr": "10.91.0.0/24", "rack_address": "10.90.0.1", "dhcp": true, "strangers": "local",
                "gateway": "10.91.0.1", "dynamic": [{"start": "10.91.0.50", "end": "10.91.0.60"}]
            }
        ]
    });
    let state = road.state.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    let mut server = Server::start(&road.namespace("r"), &plan, &state);
    let pid = road.state.path().join("relay.pid").display().to_string();
    let _relay =
        road.start("y", "dhcrelay", &["-4", "-d", "-a", "-pf", &pid, "-id", "lower", "-iu", "upper", "10.90.0.1"]);
    let until = clock::tick() + Duration::from_secs(40);
    let leased = loop {
        let client = Command::new("ip")
            .args(["netns", "exec", &road.namespace("c"), "busybox", "udhcpc"])
            .args(["-f", "-q", "-n", "-t", "3", "-T", "2", "-i", "cli", "-s", "/bin/true"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = said(&client);
        if let Some(ip) = text.split("lease of ").nth(1).and_then(|rest| rest.split(' ').next()) {
            break ip.parse::<Ipv4Addr>().unwrap();
        }
        assert!(clock::tick() < until, "{text} {}", server.status());
    };
    assert_eq!(leased.octets()[..3], [10, 91, 0], "of the subnet behind the relay");
    drop(dump);
    let (asked, answered) = (relayed(&capture, 1), relayed(&capture, 2));
    assert!(!answered.is_empty() && asked.contains(&answered[0]), "{asked:?} {answered:?}");
}
