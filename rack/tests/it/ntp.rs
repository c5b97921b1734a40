//! Our own NTP server over loopback: who is answered, who is not, and what a flood costs the others.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use actors::clock;
use rack::{
    dhcp::Listen,
    ntp::{
        self, NtpConfig, Running, Server,
        packet::{NtpTime, Request, Response},
    },
    plan::PlanHandle,
    service::Serving,
};
use schema::{plan::Plan, service::Health};
use serde_json::json;

pub(crate) fn plan_of(cidr: &str, servers: &[&str]) -> Plan {
    serde_json::from_value(json!({"settings": {"ntp_servers": servers}, "subnets": [{"id": 1, "cidr": cidr}]})).unwrap()
}

pub(crate) fn plan(cidr: &str) -> PlanHandle {
    PlanHandle::new(plan_of(cidr, &[]))
}

fn serve(state: &Path, listen: &str, rate: u32) -> Running {
    let config = NtpConfig {
        listen: Listen::At(vec![listen.parse().unwrap()]),
        server: Server::Own,
        set_clock: false,
        rate,
        state: state.into(),
    };
    ntp::start(config, plan("127.77.0.0/16")).unwrap()
}

fn client(from: &str) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn ask(socket: &UdpSocket, server: SocketAddr, packet: &[u8]) -> Option<Response> {
    socket.send_to(packet, server).unwrap();
    let mut buffer = [0; 256];
    let len = socket.recv(&mut buffer).ok()?;
    assert!(len <= packet.len(), "no answer is longer than its question");
    Response::parse(&buffer[..len])
}

fn counted(running: &Running, what: &str) -> u64 {
    running.meter().counters().into_iter().find(|(name, _)| name == what).unwrap().1
}

#[test]
fn a_machine_gets_the_racks_time_and_a_stranger_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path(), "127.77.30.1:0", 8);
    let server = running.addresses()[0];
    assert_eq!(running.health(), Health::Running);
    let machine = client("127.77.30.9");
    for version in 1..=4 {
        let sent = NtpTime::from(clock::now());
        let request = Request { version, poll: 6, transmit: sent };
        let told = ask(&machine, server, &request.to_bytes()).expect("an answer");
        assert_eq!((told.version, told.origin), (version, sent));
        let now = clock::now();
        for time in [told.receive, told.transmit] {
            assert!(now.since(time.near(now)) < Duration::from_secs(5) && time.0 >= sent.0, "{:?}", time.near(now));
        }
        assert!((2..15).contains(&told.clock.stratum) && told.clock.leap < 3, "{told:?}");
    }
    let stranger = client("127.99.0.1");
    stranger.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let request = Request { version: 4, poll: 6, transmit: NtpTime(1) }.to_bytes();
    assert_eq!(ask(&stranger, server, &request), None);
    // What amplifiers are made of: control messages and monlist.
    machine.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    for packet in [&[0x16, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0x17, 0, 3, 42, 0, 0, 0, 0], &[0x1b; 47], b"x"] {
        assert_eq!(ask(&machine, server, packet), None);
    }
    let counts = ["answered", "stranger", "malformed"].map(|what| counted(&running, what));
    assert_eq!(counts, [4, 1, 4]);
}

#[test]
fn a_flood_is_told_so_counted_and_nobody_elses_matter() {
    let dir = tempfile::tempdir().unwrap();
    let running = serve(dir.path(), "127.77.31.1:0", 4);
    let server = running.addresses()[0];
    let flooder = client("127.77.31.66");
    let request = Request { version: 4, poll: 4, transmit: NtpTime(5) }.to_bytes();
    for _ in 0..2_000 {
        flooder.send_to(&request, server).unwrap();
    }
    let machine = client("127.77.31.9");
    machine.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let told = (0..10).find_map(|_| ask(&machine, server, &request)).expect("another is served");
    assert!(told.clock.stratum > 0, "{told:?}");
    flooder.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut buffer, mut times, mut kisses) = ([0; 64], 0, 0);
    while let Ok(len) = flooder.recv(&mut buffer) {
        match Response::parse(&buffer[..len]).unwrap().clock {
            clock if clock.stratum == 0 => {
                assert_eq!(&clock.reference_id, b"RATE");
                kisses += 1;
            }
            _ => times += 1,
        }
    }
    assert!((1..200).contains(&times) && (1..20).contains(&kisses), "{times} answers, {kisses} kisses");
    assert!(counted(&running, "silenced") > 0 && running.meter().last_error().is_some());
}

#[test]
fn a_port_that_is_held_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let holder = client("127.77.32.1");
    let config = NtpConfig {
        listen: Listen::At(vec![holder.local_addr().unwrap().to_string().parse().unwrap()]),
        server: Server::Own,
        state: dir.path().into(),
        ..NtpConfig::default()
    };
    let error = ntp::start(config, plan("127.77.0.0/16")).unwrap_err().to_string();
    assert!(error.contains("127.77.32.1") && error.contains("ntp.listen"), "{error}");
}
