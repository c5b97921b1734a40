//! Two DHCP services on one wire, real clients, no region: the first is killed in a storm, and the second, which learns of it by its own eyes
//! alone, answers within 10 s. What went over the wire is captured: no address was given to two. Needs root.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use actors::clock;
use serde_json::{Value, json};

use super::peers_dhcp::{Server, ip, ready, run, said};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A bridge in a namespace, with the two racks and the clients on it, each in a namespace of its own.
struct Street {
    id: String,
    state: tempfile::TempDir,
}

const PLACES: [&str; 3] = ["r1", "r2", "c"];

impl Street {
    fn new() -> Self {
        let id = format!("hx-two-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let street = Self { id, state: tempfile::tempdir().unwrap() };
        let wire = street.namespace("w");
        ip(&format!("netns add {wire}"));
        ip(&format!("-n {wire} link add br0 type bridge"));
        ip(&format!("-n {wire} link set br0 up"));
        for (place, address) in PLACES.into_iter().zip(["10.89.0.1/16", "10.89.0.2/16", "10.89.0.3/16"]) {
            let there = street.namespace(place);
            ip(&format!("netns add {there}"));
            ip(&format!("link add eth0 netns {there} type veth peer name {place} netns {wire}"));
            ip(&format!("-n {wire} link set {place} master br0 up"));
            ip(&format!("-n {there} addr add {address} dev eth0"));
            ip(&format!("-n {there} link set lo up"));
            ip(&format!("-n {there} link set eth0 up"));
        }
        street
    }

    fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.id)
    }

    fn command(&self, place: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(place), program]).stdin(Stdio::null());
        command.current_dir(self.state.path());
        command
    }

    fn serve(&self, place: &str, plan: &Value) -> Server {
        let state = self.state.path().join(place);
        std::fs::create_dir_all(&state).unwrap();
        Server::start(&self.namespace(place), plan, &state)
    }

    /// Whether a client of that MAC gets an address, and which.
    fn client(&self, last: u8, tries: u32) -> Option<Ipv4Addr> {
        let there = self.namespace("c");
        let link = format!("m{last}");
        ip(&format!("-n {there} link add {link} link eth0 address 52:54:00:89:00:{last:02x} type macvlan mode bridge"));
        ip(&format!("-n {there} link set {link} up"));
        let tries = tries.to_string();
        let arguments = ["udhcpc", "-f", "-q", "-n", "-t", &tries, "-T", "2", "-i", &link, "-s", "/bin/true"];
        let output = self.command("c", "busybox").args(arguments).output().unwrap();
        ip(&format!("-n {there} link del {link}"));
        said(&output).split("lease of ").nth(1)?.split(' ').next()?.parse().ok()
    }
}

impl Drop for Street {
    fn drop(&mut self) {
        for place in PLACES.into_iter().chain(["w"]) {
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

/// The subnet as the first or the second rack has it.
fn plan(second: bool) -> Value {
    let halves =
        [json!([{"start": "10.89.1.0", "end": "10.89.1.255"}]), json!([{"start": "10.89.2.0", "end": "10.89.2.255"}])];
    let [first_half, second_half] = halves;
    let (own, others) = if second { (second_half, first_half) } else { (first_half, second_half) };
    json!({
        "subnets": [{
            "id": 1, "cidr": "10.89.0.0/16", "dhcp": true, "strangers": "local", "dynamic": own,
            "failover": {
                "peer": if second { "rack01" } else { "rack02" }, "secondary": second, "others": others,
                "peer_addresses": [if second { "10.89.0.1" } else { "10.89.0.2" }],
            }
        }]
    })
}

/// Every DHCPACK of a capture: address, client, server.
fn acks(capture: &Path) -> Vec<(Ipv4Addr, [u8; 6], Ipv4Addr)> {
    let bytes = std::fs::read(capture).unwrap();
    let mut at = 24;
    let mut found = Vec::new();
    while let Some(head) = bytes.get(at..at + 16) {
        let len = usize::try_from(u32::from_ne_bytes(head[8..12].try_into().unwrap())).unwrap();
        let Some(frame) = bytes.get(at + 16..at + 16 + len) else { break };
        at += 16 + len;
        // Ethernet, IPv4 without options, UDP from the server's port.
        let Some(message) = frame.get(42..).filter(|_| frame[12..14] == [8, 0] && frame[34..36] == [0, 67]) else {
            continue;
        };
        let Ok(rack::dhcp::packet::Packet::Heard(heard)) = rack::dhcp::packet::parse(message) else { continue };
        if heard.kind == rack::dhcp::packet::MessageType::Ack {
            found.push((heard.yiaddr, message[28..34].try_into().unwrap(), heard.server_id.unwrap()));
        }
    }
    found
}

#[test]
fn the_second_takes_over_in_a_storm_and_no_address_is_given_to_two() {
    if !ready(&["perfdhcp", "busybox", "tcpdump"]) {
        return;
    }
    let street = Street::new();
    let capture = street.state.path().join("wire.pcap");
    let mut dump = street.command("w", "tcpdump");
    let dump = dump.args(["-i", "br0", "-U", "--immediate-mode", "-w", capture.to_str().unwrap(), "udp", "port", "67"]);
    let dump = Ended(dump.stderr(Stdio::null()).spawn().unwrap());
    let mut first = street.serve("r1", &plan(false));
    let mut second = street.serve("r2", &plan(true));
    // Without a region the first waits for copies for a while; then it is the one that answers.
    let until = clock::tick() + Duration::from_secs(40);
    let mut last = 10;
    while street.client(last, 3).is_none_or(|ip| ip.octets()[2] != 1) {
        assert!(clock::tick() < until, "the first rack answers nobody: {}", first.status());
        last += 1;
    }
    // Sixty clients that ask again and again, by broadcast: both racks hear them.
    let storm = ["-4", "-l", "eth0", "-B", "-r", "20", "-R", "60", "-p", "25", "-W", "1000000"];
    let storm =
        Ended(street.command("c", "perfdhcp").args(storm).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    while first.count("ack") < 40 {
        assert!(clock::tick() < until + Duration::from_secs(20), "{}", first.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    let before = second.count("ack");
    first.kill();
    let killed = clock::tick();
    let taken_over = street.client(200, 5).expect("no address after the first rack was lost");
    assert!(killed.elapsed() < Duration::from_secs(10), "the second rack took {:?}", killed.elapsed());
    assert_eq!(taken_over.octets()[2], 2, "from its own half");
    assert!(second.count("ack") > before);
    // The first comes back with what it had on disk.
    let mut first = street.serve("r1", &plan(false));
    let back = first.count("ack");
    let until = clock::tick() + Duration::from_secs(60);
    let mut last = 100;
    while first.count("ack") == back {
        assert!(clock::tick() < until, "the returned rack answers nobody: {} {}", first.status(), second.status());
        street.client(last, 2);
        last += 1;
    }
    drop(storm);
    run("sync", &[]);
    drop(dump);
    let mut holders: BTreeMap<Ipv4Addr, BTreeSet<[u8; 6]>> = BTreeMap::new();
    let acks = acks(&capture);
    for (ip, mac, _) in &acks {
        holders.entry(*ip).or_default().insert(*mac);
    }
    // No lease of ten minutes has ended yet, and nobody has given one back.
    let twice: Vec<_> = holders.iter().filter(|(_, macs)| macs.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let servers: BTreeSet<_> = acks.iter().map(|(.., server)| *server).collect();
    assert_eq!(servers.len(), 2, "both racks are in the capture: {} packets, {servers:?}", acks.len());
}
