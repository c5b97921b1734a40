//! The DHCP service over loopback sockets, as a relay would use it: no rights needed. Real clients are in `peers_dhcp`.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use actors::shell::Registry;
use dhcproto::{
    Decodable, Decoder,
    v4::{DhcpOption, Message, MessageType, OptionCode},
};
use rack::{
    dhcp::{self, DhcpConfig, DhcpHandles, Listen, Neighbours, Running},
    disk::Disk,
    leases::LeaseTable,
    plan::PlanHandle,
    report::{Reporter, Seen},
};
use schema::{messages::report::Fact, plan::Plan};
use tokio::sync::mpsc::UnboundedReceiver;

/// A running service with everything around it.
struct Served {
    running: Option<Running>,
    plan: PlanHandle,
    leases: LeaseTable,
    seen: UnboundedReceiver<Seen>,
    client: UdpSocket,
    server: SocketAddr,
}

pub(crate) fn plan(json: serde_json::Value) -> Plan {
    serde_json::from_value(json).unwrap()
}

fn lab() -> Plan {
    plan(serde_json::json!({
        "subnets": [{
            "id": 1, "cidr": "10.77.0.0/24", "rack_address": "10.77.0.1", "gateway": "10.77.0.254", "dhcp": true,
            "dns_servers": ["10.77.0.1"], "ntp_servers": ["10.77.0.1"], "search": ["maas", "lab.example"],
            "dynamic": [{"start": "10.77.0.80", "end": "10.77.0.99"}]
        }],
        "reservations": [{"subnet": 1, "mac": "52:54:00:77:00:09", "ip": "10.77.0.9", "hostname": "nine"}],
        "tickets": [ticket("4xk9qd", "52:54:00:77:00:01", "commissioning"), ticket("4xk9qe", "52:54:00:77:00:02", "local")]
    }))
}

fn ticket(machine: &str, mac: &str, purpose: &str) -> serde_json::Value {
    serde_json::json!({
        "machine": machine, "attempt": 1, "purpose": purpose, "macs": [mac], "hostname": "swift-otter", "domain": "maas",
        "arch": "amd64", "expires": i64::MAX
    })
}

fn serve(plan: Plan, state: &Path) -> Served {
    let plan = PlanHandle::new(plan);
    let leases = LeaseTable::default();
    let (reporter, seen) = Reporter::channel();
    let config = DhcpConfig {
        listen: Listen::At(vec!["127.0.0.1:0".parse().unwrap()]),
        http_port: 5248,
        state: state.to_owned(),
        peers: Vec::new(),
        seek: false,
    };
    let handles = DhcpHandles {
        plan: plan.clone(),
        leases: leases.clone(),
        reporter,
        registry: Registry::default(),
        neighbours: Neighbours::default(),
        disk: Disk::default(),
    };
    let running = dhcp::start(config, handles).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let server = running.addresses()[0];
    Served { running: Some(running), plan, leases, seen, client, server }
}

/// A client's message through a relay at 10.77.0.2, with these options as raw code, data pairs.
fn packet(kind: u8, mac: [u8; 6], options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    (bytes[0], bytes[1], bytes[2]) = (1, 1, 6);
    bytes[4..8].copy_from_slice(&[9, 8, 7, 6]);
    bytes[24..28].copy_from_slice(&[10, 77, 0, 2]);
    bytes[28..34].copy_from_slice(&mac);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, kind]);
    for (code, data) in options {
        bytes.extend([*code, u8::try_from(data.len()).unwrap()]);
        bytes.extend_from_slice(data);
    }
    bytes.push(255);
    bytes
}

fn mac(last: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0x77, 0, last]
}

const BIOS: (u8, &[u8]) = (60, b"PXEClient:Arch:00000:UNDI:002001");

impl Served {
    fn ask(&self, bytes: &[u8]) -> Message {
        self.client.send_to(bytes, self.server).unwrap();
        let mut buffer = [0; 2_048];
        let len = self.client.recv(&mut buffer).unwrap();
        assert!(len >= 300, "padded to 300 bytes");
        Message::decode(&mut Decoder::new(&buffer[..len])).unwrap()
    }

    fn silent(&self, bytes: &[u8]) {
        self.client.send_to(bytes, self.server).unwrap();
        self.client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(self.client.recv(&mut [0; 2_048]).is_err(), "an answer came");
        self.client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }

    /// DISCOVER, OFFER, REQUEST, ACK.
    fn dora(&self, mac: [u8; 6], options: &[(u8, &[u8])]) -> (Ipv4Addr, Message) {
        let offer = self.ask(&packet(1, mac, options));
        assert_eq!(offer.opts().msg_type(), Some(MessageType::Offer));
        let ip = offer.yiaddr();
        let (octets, server) = (ip.octets(), [10, 77, 0, 1]);
        let mut options = options.to_vec();
        options.extend([(50, &octets[..]), (54, &server[..])]);
        let ack = self.ask(&packet(3, mac, &options));
        assert_eq!(ack.opts().msg_type(), Some(MessageType::Ack));
        assert_eq!(ack.yiaddr(), ip);
        (ip, ack)
    }

    fn count(&self, what: &str) -> u64 {
        self.running.as_ref().unwrap().status().counts.get(what).copied().unwrap_or_default()
    }
}

fn text(message: &Message, code: OptionCode) -> String {
    match message.opts().get(code) {
        Some(DhcpOption::BootfileName(bytes) | DhcpOption::TFTPServerName(bytes)) => {
            String::from_utf8(bytes.clone()).unwrap()
        }
        Some(DhcpOption::Unknown(unknown)) => String::from_utf8(unknown.data().to_vec()).unwrap(),
        other => panic!("{code:?} is {other:?}"),
    }
}

#[test]
fn a_machine_under_orders_gets_address_loader_and_facts() {
    let state = tempfile::tempdir().unwrap();
    let mut served = serve(lab(), state.path());
    let (ip, ack) = served.dora(mac(1), &[BIOS, (93, &[0, 0])]);
    assert_eq!(ip, Ipv4Addr::new(10, 77, 0, 80));
    assert_eq!(ack.siaddr(), Ipv4Addr::new(10, 77, 0, 1));
    assert_eq!(text(&ack, OptionCode::BootfileName), "lpxelinux.0");
    assert_eq!(text(&ack, OptionCode::TFTPServerName), "10.77.0.1");
    assert_eq!(text(&ack, OptionCode::from(210)), "http://10.77.0.1:5248/");
    assert_eq!(ack.opts().get(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(30)));
    let took = served.running.as_ref().unwrap().counters().latency();
    assert!(took.count() >= 1, "at least the offer was counted before the request was read: {took:?}");
    let now = actors::clock::now();
    assert_eq!(served.leases.mac_of(ip, now).map(|m| m.0), Some(mac(1)));
    let facts: Vec<_> = std::iter::from_fn(|| served.seen.try_recv().ok()).collect();
    assert!(matches!(&facts[0], Seen::Fact { fact: Fact::Offered { .. }, .. }));
    assert!(matches!(&facts[1], Seen::Lease(lease) if lease.ip == ip));
    assert!(matches!(&facts[2], Seen::Fact { fact: Fact::Leased { lease_s: 30, .. }, .. }));
}

#[test]
fn three_identities_in_one_boot_keep_one_address() {
    let state = tempfile::tempdir().unwrap();
    let served = serve(lab(), state.path());
    let client_id = [&[1][..], &mac(1)].concat();
    let (first, _) = served.dora(mac(1), &[BIOS, (61, &client_id)]);
    let (second, ack) = served.dora(mac(1), &[(60, b"Linux ipconfig")]);
    assert_eq!(ack.opts().get(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(600)));
    let (third, _) = served.dora(mac(1), &[(61, &[255, 1, 2, 3, 4, 0, 1, 0, 1, 9, 9, 9, 9])]);
    assert_eq!((first, second), (second, third));
}

#[test]
fn a_machine_without_orders_boots_from_its_disk() {
    let state = tempfile::tempdir().unwrap();
    let served = serve(lab(), state.path());
    let (_, ack) = served.dora(mac(2), &[BIOS, (93, &[0, 0])]);
    assert!(ack.opts().get(OptionCode::BootfileName).is_none());
    assert_eq!(ack.siaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(ack.fname().is_none());
}

#[test]
fn a_stranger_gets_no_answer_until_the_next_packet_after_its_reservation() {
    let state = tempfile::tempdir().unwrap();
    let served = serve(lab(), state.path());
    served.silent(&packet(1, mac(50), &[BIOS]));
    assert_eq!(served.count("stranger"), 1);
    let generation = served.plan.load().plan.generation;
    let mut update = schema::messages::link::PlanUpdate::empty(Some(generation), generation.next());
    update.reservations.put.push(
        serde_json::from_value(serde_json::json!({"subnet": 1, "mac": "52:54:00:77:00:32", "ip": "10.77.0.50"}))
            .unwrap(),
    );
    served.plan.apply(update);
    assert_eq!(served.dora(mac(50), &[]).0, Ipv4Addr::new(10, 77, 0, 50));
}

#[test]
fn leases_are_there_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let mut served = serve(lab(), state.path());
    let (ip, _) = served.dora(mac(1), &[]);
    served.running.take().unwrap().stop();
    let again = serve(lab(), state.path());
    assert_eq!(again.leases.mac_of(ip, actors::clock::now()).map(|m| m.0), Some(mac(1)));
    assert_eq!(again.dora(mac(2), &[]).0, Ipv4Addr::new(10, 77, 0, 81));
    assert_eq!(again.dora(mac(1), &[]).0, ip);
}

#[test]
fn mutated_packets_never_stop_the_service() {
    let state = tempfile::tempdir().unwrap();
    let served = serve(lab(), state.path());
    let good = packet(1, mac(1), &[BIOS, (93, &[0, 0]), (82, &[1, 1, 7])]);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..5_000_u64 {
        let mut bytes = good.clone();
        for _ in 0..=round % 9 {
            let at = usize::try_from(random()).unwrap() % bytes.len();
            bytes[at] = u8::try_from(random() & 255).unwrap();
        }
        if round % 5 == 0 {
            bytes.truncate(usize::try_from(random()).unwrap() % bytes.len());
        }
        served.client.send_to(&bytes, served.server).unwrap();
    }
    served.client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    while served.client.recv(&mut [0; 2_048]).is_ok() {}
    served.client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    served.dora(mac(2), &[]);
    assert!(served.count("malformed") > 100);
    assert!(served.running.as_ref().unwrap().status().foreign.values().all(|f| !f.proven), "noise is no DHCP server");
}

#[test]
fn a_flood_of_invented_clients_takes_nothing_from_the_known() {
    for strangers in ["ignore", "local"] {
        let state = tempfile::tempdir().unwrap();
        let mut plan = lab();
        plan.subnets[0].strangers = serde_json::from_value(strangers.into()).unwrap();
        let served = serve(plan, state.path());
        let (held, _) = served.dora(mac(1), &[]);
        for invented in 0..2_000_u32 {
            let [_, b, c, d] = invented.to_be_bytes();
            served.client.send_to(&packet(1, [2, 66, 66, b, c, d], &[]), served.server).unwrap();
        }
        served.client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        while served.client.recv(&mut [0; 2_048]).is_ok() {}
        served.client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(served.dora(mac(1), &[]).0, held, "who has a lease keeps it");
        assert_eq!(served.dora(mac(9), &[]).0, Ipv4Addr::new(10, 77, 0, 9), "a reservation is nobody else's");
        // Every invented client is counted: as a stranger, or as one for whom no address is left.
        assert!(served.count(if strangers == "ignore" { "stranger" } else { "full" }) > 100);
    }
}

#[test]
fn an_exhausted_subnet_is_reported_with_a_remedy() {
    let state = tempfile::tempdir().unwrap();
    let mut plan = lab();
    plan.subnets[0].dynamic.clear();
    let mut served = serve(plan, state.path());
    served.silent(&packet(1, mac(1), &[BIOS]));
    let fact = std::iter::from_fn(|| served.seen.try_recv().ok()).next();
    assert!(
        matches!(fact, Some(Seen::Fact { fact: Fact::NoAddress { ref remedy, .. }, .. }) if remedy.contains("dynamic range")),
        "{fact:?}"
    );
    assert_eq!(served.running.as_ref().unwrap().status().full[&1].mac.0, mac(1));
}
