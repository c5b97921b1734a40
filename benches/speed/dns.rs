//! DNS without sockets: a zone of ten thousand hosts from nothing, one host's change, one answer; beside the last what parsing and
//! writing it by hickory-proto alone would cost.

use std::{hint::black_box, sync::Arc};

use actors::{
    clock,
    dns::{Transport, Zones, answer},
};
use hickory_proto::op::Message;
use region::dns::Composer;
use schema::{
    catalogue::{Catalogue, ReservedIp, Subnet},
    id::{SubnetId, SystemId, VlanId},
    messages::machine::MachineSpec,
    net::MacAddr,
    power::PowerConfig,
};

const HOSTS: u32 = 10_000;
const ROUNDS: u32 = 5;
const CHANGES: u32 = 200;
const ANSWERS: u32 = 200_000;

fn mac(n: u32) -> MacAddr {
    let [_, a, b, c] = n.to_be_bytes();
    MacAddr([2, 0, 0, a, b, c])
}

/// One subnet, an address kept for each host, the domain `maas`.
fn catalogue(hosts: u32) -> Catalogue {
    let mut c = actors::catalogue::Catalogue::first().content;
    let id = SubnetId(1);
    let subnet = Subnet {
        name: "bench".into(),
        ..Subnet::new(id, VlanId(5_001), "10.60.0.0/16".parse().unwrap_or_else(|e| panic!("{e}")))
    };
    c.subnets.insert(id, subnet);
    for n in 0..hosts {
        let ip = std::net::Ipv4Addr::from(0x0a3c_0100 + n).into();
        let kept = ReservedIp { id: n.into(), subnet: id, mac: mac(n), ip, hostname: None, comment: String::new() };
        c.reserved_ips.insert(n.into(), kept);
    }
    c
}

fn machine(n: u32, hostname: String) -> MachineSpec {
    MachineSpec {
        system_id: id(n),
        hostname,
        domain: "maas".into(),
        architecture: "amd64/generic".into(),
        macs: vec![mac(n)],
        power: PowerConfig::default(),
        description: String::new(),
        vlan: None,
        zone: String::new(),
        pool: String::new(),
    }
}

fn main() {
    let c = Arc::new(catalogue(HOSTS));
    let machines: Vec<_> = (0..HOSTS).map(|n| machine(n, format!("node{n}"))).collect();
    println!("Names of {HOSTS} hosts, forward and reverse");
    let (mut best, mut kept) = (f64::MAX, None);
    for _ in 0..ROUNDS {
        let begun = clock::tick();
        let mut composer = Composer::default();
        composer.catalogue(c.clone());
        machines.iter().for_each(|spec| composer.machine(spec.system_id, Some(spec)));
        let delta = composer.delta(1).unwrap_or_default();
        let composed = begun.elapsed();
        let mut zones = Zones::default();
        zones.apply(&delta.zones, &delta.records);
        let whole = begun.elapsed();
        println!(
            "  from nothing: {:.1} ms composed, {:.1} ms until answered, {} record sets",
            composed.as_secs_f64() * 1e3,
            whole.as_secs_f64() * 1e3,
            delta.records.put.len()
        );
        best = best.min(whole.as_secs_f64() * 1e3);
        kept = Some((composer, zones));
    }
    let Some((mut composer, mut zones)) = kept else { return };
    println!("  best {best:.1} ms (target: 30)");
    let begun = clock::tick();
    for n in 0..CHANGES {
        let spec = machine(n, format!("renamed{n}"));
        composer.machine(spec.system_id, Some(&spec));
        let delta = composer.delta(n + 2).unwrap_or_default();
        let mut next = zones.clone();
        next.apply(&delta.zones, &delta.records);
        zones = next;
    }
    println!(
        "  one host renamed: {:.0} us until answered (target: below 1000)",
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(CHANGES)
    );
    answers(&zones);
}

/// A system id for each number below 24^6.
fn id(n: u32) -> SystemId {
    let digit = |place: u32| u8::try_from(n / 24_u32.pow(place) % 24).unwrap_or(0);
    SystemId::from_draws([digit(5), digit(4), digit(3), digit(2), digit(1), digit(0)])
}

fn answers(zones: &Zones) {
    let mut query =
        b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x08node5000\x04maas\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0".to_vec();
    let mut out = Vec::new();
    let begun = clock::tick();
    for n in 0..ANSWERS {
        query[1] = n.to_be_bytes()[3];
        assert!(answer(black_box(&query), zones, Transport::Udp, n, &mut out), "it is answered");
    }
    let each = |begun: std::time::Instant| begun.elapsed().as_secs_f64() * 1e9 / f64::from(ANSWERS);
    println!("  one answer: {:.0} ns, {} bytes", each(begun), out.len());
    let begun = clock::tick();
    for _ in 0..ANSWERS {
        let (asked, answer) = (Message::from_vec(black_box(&query)), Message::from_vec(black_box(&out)));
        drop(black_box(asked));
        drop(black_box(answer.map(|answer| answer.to_vec())));
    }
    println!("  hickory-proto: {:.0} ns to read the question and to read and write the answer", each(begun));
}
