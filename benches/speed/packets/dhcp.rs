//! The DHCP section: the pure path (parse, route, decide, write) without sockets, then whole exchanges over loopback with leases on disk.

use std::{
    collections::HashMap,
    hint::black_box,
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use actors::{
    clock,
    core::Core,
    leases::{Ask, Batch, LeaseEffect, LeaseEvent, Outcome, Pool, ReplyTo, Row, Rules, SubnetLeases},
    shell::Registry,
};
use benches::relayed;
use nix::sys::socket::{setsockopt, sockopt};
use rack::{
    dhcp::{
        self, DhcpConfig, DhcpHandles, Listen, Neighbours, answer,
        journal::{LeaseStore, RedbStore},
        packet::{self, Packet, Request},
        route::{self, Action, Reserved},
    },
    disk::Disk,
    leases::LeaseTable,
    plan::{PlanHandle, Snapshot},
    report::Reporter,
};
use schema::{id::SubnetId, plan::Plan, time::Timestamp};

const HERE: [Ipv4Addr; 1] = [Ipv4Addr::new(10, 55, 0, 1)];

/// A /16 with 60,000 dynamic addresses; strangers get addresses.
fn plan() -> Plan {
    let subnet: schema::plan::PlanSubnet = serde_json::from_value(serde_json::json!({
        "id": 1, "cidr": "10.55.0.0/16", "rack_address": "10.55.0.1", "gateway": "10.55.0.254", "dhcp": true, "strangers": "local",
        "dns_servers": ["10.55.0.1"], "dynamic": [{"start": "10.55.1.0", "end": "10.55.240.255"}]
    }))
    .unwrap_or_else(|e| panic!("the bench's plan: {e}"));
    Plan { subnets: vec![subnet], ..Plan::default() }
}

/// A message of that client through a relay; its number is the transaction id.
fn message(client: u32, kind: u8, taken: Option<Ipv4Addr>) -> Vec<u8> {
    let relay = Ipv4Addr::new(10, 55, 0, 2);
    relayed::message(client, relayed::mac(client), kind, relay, taken.map(|ip| (ip, HERE[0])))
}

/// The pure path, as the service takes it.
struct Pure {
    plan: Arc<Snapshot>,
    rules: Rules,
    leases: SubnetLeases,
    now: Timestamp,
}

impl Pure {
    fn new() -> Self {
        let plan = Arc::new(Snapshot::new(plan()));
        let subnet = &plan.plan.subnets[0];
        let reserved = Reserved { plan: plan.clone(), subnet: subnet.id, cidr: subnet.cidr };
        let rules = Rules {
            version: 1,
            pool: Arc::new(Pool::of(subnet, &HERE)),
            reservations: Arc::new(reserved),
            shared: None,
        };
        Self { rules, leases: SubnetLeases::load(SubnetId(1), []), plan, now: Timestamp::from_seconds(1_000_000) }
    }

    fn read(&self, bytes: &[u8]) -> (Box<Request>, route::Routed, Ask) {
        let Ok(Packet::Request(request)) = packet::parse(bytes) else { panic!("the bench's packet is malformed") };
        let routed = route::route(&request, &HERE, &self.plan, self.now).unwrap_or_else(|e| panic!("{e}"));
        let Action::Ask(want) = routed.action else { panic!("not a matter of leases") };
        let ask = Ask { mac: request.mac, hostname: None, lease_s: routed.lease_s, want, to: ReplyTo(Arc::new(())) };
        (request, routed, ask)
    }

    fn write(&self, request: &Request, routed: route::Routed, outcome: &Outcome) -> Vec<u8> {
        let around = route::around(&self.plan, routed, request, 5248, self.now);
        around.and_then(|a| answer::reply(request, outcome, &a)).map(|r| r.bytes).unwrap_or_default()
    }

    /// A batch of messages through one step; answers and the rows for the disk.
    fn step(&mut self, messages: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<Row>) {
        let read: Vec<_> = messages.iter().map(|m| self.read(m)).collect();
        let asks = read.iter().map(|(_, _, ask)| ask.clone()).collect();
        let batch = Batch { rules: self.rules.clone(), asks };
        let step = self.leases.step(&LeaseEvent::Asked(Arc::new(batch)), self.now);
        self.leases = step.next.unwrap_or_else(|| self.leases.clone());
        let (mut answers, mut rows) = (Vec::new(), Vec::new());
        for effect in step.effects {
            match effect {
                LeaseEffect::Keep(row) | LeaseEffect::Copy(row) => rows.push(row),
                LeaseEffect::Answer { outcome, .. } => {
                    let (request, routed, _) = &read[answers.len()];
                    answers.push(self.write(request, *routed, &outcome));
                }
            }
        }
        (answers, rows)
    }
}

fn ns(took: Duration, times: u32) -> u128 {
    took.as_nanos() / u128::from(times)
}

fn yiaddr(reply: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(reply[16], reply[17], reply[18], reply[19])
}

/// Prints the section.
pub(crate) fn report() {
    println!("DHCP");
    for held in [1_000, 10_000, 50_000] {
        pure(held);
    }
    journal();
    for (clients, window) in [(1_000, 1), (2_000, 64), (10_000, 64), (10_000, 256)] {
        exchanges(clients, window);
    }
}

fn pure(held: u32) {
    let mut pure = Pure::new();
    let all: Vec<u32> = (0..held).collect();
    for some in all.chunks(64) {
        let discovers: Vec<_> = some.iter().map(|c| message(*c, 1, None)).collect();
        let (offers, _) = pure.step(&discovers);
        let requests: Vec<_> = some.iter().zip(&offers).map(|(c, o)| message(*c, 3, Some(yiaddr(o)))).collect();
        pure.step(&requests);
    }
    let repeat = message(7, 1, None);
    let begun = clock::tick();
    const TIMES: u32 = 20_000;
    for _ in 0..TIMES {
        let (request, routed, ask) = pure.read(black_box(&repeat));
        let outcome = pure.leases.settled(&ask, &pure.rules, pure.now).unwrap_or(Outcome::Silent { why: "" });
        black_box(pure.write(&request, routed, &outcome));
    }
    let settled = ns(begun.elapsed(), TIMES);
    for batch in [1_usize, 64] {
        let rounds = 1_024 / batch;
        let base = 1_000_000 + u32::try_from(batch).unwrap_or(0) * 10_000;
        let new: Vec<u32> = (base..).take(rounds * batch).collect();
        let begun = clock::tick();
        for some in new.chunks(batch) {
            let discovers: Vec<_> = some.iter().map(|c| message(*c, 1, None)).collect();
            let (offers, _) = pure.step(&discovers);
            let requests: Vec<_> = some.iter().zip(&offers).map(|(c, o)| message(*c, 3, Some(yiaddr(o)))).collect();
            black_box(pure.step(&requests));
        }
        let fresh = ns(begun.elapsed(), 1_024);
        println!(
            "  {held:>6} leases held, batch {batch:>2}: {fresh:>6} ns a new DORA (pure, client's bytes included), {settled} ns a repeated answer"
        );
    }
}

/// The disk alone: rows a second by commit size.
fn journal() {
    let Ok(dir) = tempfile::tempdir_in(std::env::var_os("HOSTLER_BENCH_DIR").unwrap_or_else(|| ".".into())) else {
        return;
    };
    let Ok(mut store) = RedbStore::open(dir.path(), Disk::default()) else { return };
    let mut pure = Pure::new();
    for batch in [1_u32, 16, 64, 256] {
        let base = batch * 10_000;
        let clients: Vec<u32> = (base..base + batch * 32).collect();
        let mut commits = Vec::new();
        for some in clients.chunks(usize::try_from(batch).unwrap_or(1)) {
            let (offers, _) = pure.step(&some.iter().map(|c| message(*c, 1, None)).collect::<Vec<_>>());
            let requests: Vec<_> = some.iter().zip(&offers).map(|(c, o)| message(*c, 3, Some(yiaddr(o)))).collect();
            commits.push(pure.step(&requests).1);
        }
        let begun = clock::tick();
        for rows in &commits {
            store.commit(rows).unwrap_or_else(|e| panic!("{e}"));
        }
        let took = begun.elapsed();
        let rate = f64::from(batch * 32) / took.as_secs_f64();
        println!("  journal, {batch:>3} rows a commit: {:>8} us a commit, {rate:>8.0} rows/s", took.as_micros() / 32);
    }
}

/// Whole exchanges of new clients over loopback, `window` of them outstanding; the server and the clients share the machine.
fn exchanges(clients: u32, window: usize) {
    let Ok(dir) = tempfile::tempdir_in(std::env::var_os("HOSTLER_BENCH_DIR").unwrap_or_else(|| ".".into())) else {
        return;
    };
    let (reporter, _seen) = Reporter::channel();
    let handles = DhcpHandles {
        plan: PlanHandle::new(plan()),
        leases: LeaseTable::default(),
        reporter,
        registry: Registry::default(),
        neighbours: Neighbours::default(),
        disk: Disk::default(),
    };
    let listen = Listen::At(vec![std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)]);
    let config = DhcpConfig { listen, http_port: 5248, state: dir.path().to_owned(), peers: Vec::new(), seek: false };
    let server = dhcp::start(config, handles).unwrap_or_else(|e| panic!("{e}"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
    // A gust of answers must fit here as it must there: the default of 208 KiB holds about 170 of them.
    setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20)).ok();
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok();
    socket.connect(server.addresses()[0]).unwrap_or_else(|e| panic!("{e}"));
    let (mut next, mut done, mut lost) = (0_u32, 0_u32, 0_u32);
    let mut begun_at = HashMap::new();
    let mut took = Vec::with_capacity(usize::try_from(clients).unwrap_or(0));
    let begun = clock::tick();
    let mut buffer = [0; 2_048];
    while done + lost < clients {
        while begun_at.len() < window && next < clients {
            begun_at.insert(next, clock::tick());
            socket.send(&message(next, 1, None)).ok();
            next += 1;
        }
        let Ok(len) = socket.recv(&mut buffer) else {
            lost += u32::try_from(begun_at.len()).unwrap_or(0);
            begun_at.clear();
            continue;
        };
        let client = u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]);
        if buffer[242] == 2 {
            socket.send(&message(client, 3, Some(yiaddr(&buffer[..len])))).ok();
        } else if let Some(at) = begun_at.remove(&client) {
            took.push(at.elapsed());
            done += 1;
        }
    }
    let rate = f64::from(done) / begun.elapsed().as_secs_f64();
    let dropped = [server.addresses()[0].port(), socket.local_addr().map_or(0, |a| a.port())].map(dropped);
    took.sort_unstable();
    let at = |share: usize| took.get(took.len() * share / 100).map_or(0, |t| t.as_micros());
    println!(
        "  {clients:>6} new clients, {window:>3} outstanding: {rate:>7.0} DORA/s, p50 {} us, p99 {} us, lost {lost} (no room: server {}, clients {})",
        at(50),
        at(99),
        dropped[0],
        dropped[1]
    );
}

/// Packets that the kernel threw away since the socket of that port had no room (the last column of /proc/net/udp).
fn dropped(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let local = format!(":{port:04X} ");
    let row = table
        .lines()
        .find(|l| l.split_once(':').is_some_and(|(_, rest)| rest.get(..15).is_some_and(|r| r.contains(&local))));
    row.and_then(|l| l.split_whitespace().last()?.parse().ok()).unwrap_or(0)
}
