//! DNS answers, each read again by hickory: what stands in them, and that no bytes make the answerer stumble.

use actors::dns::{Transport, Zones, answer};
use hickory_proto::op::{Message, ResponseCode};
use proptest::prelude::*;
use schema::{
    dns::{Generated, Mx, RecordData, RecordSet, Zone},
    net::IpRange,
};

mod changes;
mod replies;

const A: u16 = 1;
const SOA: u16 = 6;
const TXT: u16 = 16;
const ANY: u16 = 255;

/// A query's bytes: number 7, RD; with EDNS when `size` is not 0.
fn query(name: &str, rtype: u16, class: u16, size: u16) -> Vec<u8> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(size > 0)];
    for label in name.split('.').filter(|l| !l.is_empty()) {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend([rtype.to_be_bytes(), class.to_be_bytes()].concat());
    if size > 0 {
        packet.extend([&[0, 0, 41][..], &size.to_be_bytes(), &[0; 6]].concat());
    }
    packet
}

fn zone(name: &str) -> Zone {
    Zone { name: name.parse().unwrap(), serial: 41, ttl: 30, forward: vec![], generated: vec![] }
}

fn set(name: &str, data: RecordData) -> RecordSet {
    RecordSet { name: name.parse().unwrap(), ttl: 60, data }
}

fn a(name: &str, addresses: &[&str]) -> RecordSet {
    set(name, RecordData::A(addresses.iter().map(|a| a.parse().unwrap()).collect()))
}

fn house() -> Zones {
    let range = IpRange { start: "10.77.0.100".parse().unwrap(), end: "10.77.0.199".parse().unwrap() };
    let generated = vec![Generated { range, domain: "maas".parse().unwrap() }];
    let cname = |name: &str, target: &str| set(name, RecordData::Cname(target.parse().unwrap()));
    let zones = [
        Zone { generated: generated.clone(), ..zone("maas") },
        Zone { generated, ..zone("0.77.10.in-addr.arpa") },
        zone("inner.maas"),
        Zone { forward: vec!["10.0.0.53:53".parse().unwrap()], ..zone("corp") },
    ];
    let records = [
        set("maas", RecordData::Ns(vec!["maas".parse().unwrap()])),
        a("maas", &["10.77.0.1"]),
        a("fox.maas", &["10.77.0.5", "10.77.0.6", "10.77.0.7"]),
        set("fox.maas", RecordData::Txt(vec!["x".repeat(300)])),
        a("deep.down.maas", &["10.77.0.8"]),
        a("badger.inner.maas", &["10.77.0.9"]),
        cname("www.maas", "fox.maas"),
        cname("in.maas", "badger.inner.maas"),
        cname("out.maas", "www.example.com"),
        cname("round.maas", "about.maas"),
        cname("about.maas", "round.maas"),
        set("5.0.77.10.in-addr.arpa", RecordData::Ptr(vec!["fox.maas".parse().unwrap()])),
        set("given.maas", RecordData::Ns(vec!["ns.given.maas".parse().unwrap()])),
        a("ns.given.maas", &["10.77.0.53"]),
        set("mail.maas", RecordData::Mx(vec![Mx { preference: 10, exchange: "fox.maas".parse().unwrap() }])),
        set("long.maas", RecordData::Txt((0..40).map(|n| format!("{n}{}", "y".repeat(100))).collect())),
    ];
    Zones::of(&zones, &records)
}

fn ask(zones: &Zones, packet: &[u8], draw: u32) -> Option<Message> {
    let mut out = vec![1, 2, 3];
    answer(packet, zones, Transport::Udp, draw, &mut out).then(|| {
        assert!(out.len() <= 1_232);
        Message::from_vec(&out).unwrap()
    })
}

fn asked(name: &str, rtype: u16) -> Message {
    ask(&house(), &query(name, rtype, 1, 1_232), 0).unwrap()
}

fn says(message: &Message) -> (ResponseCode, Vec<String>, Vec<String>) {
    let show = |records: &[hickory_proto::rr::Record]| records.iter().map(|r| r.to_string()).collect();
    (message.metadata.response_code, show(&message.answers), show(&message.authorities))
}

#[test]
fn records_are_found_and_aliases_followed_across_zones() {
    let fox = asked("fox.maas", A);
    assert!(fox.metadata.authoritative && fox.metadata.recursion_desired && !fox.metadata.recursion_available);
    assert_eq!(fox.answers.len(), 3);
    assert_eq!(says(&asked("5.0.77.10.in-addr.arpa", 12)).1, ["5.0.77.10.in-addr.arpa. 60 IN PTR fox.maas."]);
    assert_eq!(says(&asked("mail.maas", 15)).1, ["mail.maas. 60 IN MX 10 fox.maas."]);
    let in_ = says(&asked("in.maas", A)).1;
    assert_eq!(in_, ["in.maas. 60 IN CNAME badger.inner.maas.", "badger.inner.maas. 60 IN A 10.77.0.9"]);
    assert_eq!(says(&asked("www.maas", 5)).1, ["www.maas. 60 IN CNAME fox.maas."]);
    assert_eq!(says(&asked("out.maas", A)).1, ["out.maas. 60 IN CNAME www.example.com."]);
    assert_eq!(asked("round.maas", A).answers.len(), 8, "a ring of aliases ends");
    assert_eq!(asked("maas", SOA).answers.len(), 1);
}

#[test]
fn no_such_name_and_no_such_type_are_told_apart_with_the_soa() {
    for (name, rtype, rcode) in [
        ("none.maas", A, ResponseCode::NXDomain),
        ("x.fox.maas", A, ResponseCode::NXDomain),
        ("fox.maas", 28, ResponseCode::NoError),
        ("down.maas", A, ResponseCode::NoError), // Empty, with names below.
        ("www.maas", 28, ResponseCode::NoError),
        ("6.0.77.10.in-addr.arpa", 12, ResponseCode::NXDomain),
        ("10-77-0-99.maas", A, ResponseCode::NXDomain),
        ("10-77-0-100.maas", 28, ResponseCode::NoError),
        ("*.maas", A, ResponseCode::NXDomain),
    ] {
        let message = asked(name, rtype);
        assert_eq!(message.metadata.response_code, rcode, "{name}");
        let zone = if name.ends_with("arpa") { "0.77.10.in-addr.arpa." } else { "maas." };
        let soa = format!("{zone} 30 IN SOA {zone} nobody.example.com. 41 600 1800 604800 30");
        assert_eq!(says(&message).2, [soa], "{name}");
    }
}

#[test]
fn addresses_of_ranges_have_names_both_ways() {
    assert_eq!(says(&asked("10-77-0-100.maas", A)).1, ["10-77-0-100.maas. 30 IN A 10.77.0.100"]);
    let back = says(&asked("199.0.77.10.in-addr.arpa", 12)).1;
    assert_eq!(back, ["199.0.77.10.in-addr.arpa. 30 IN PTR 10-77-0-199.maas."]);
}

#[test]
fn what_is_not_ours_or_not_served_is_refused() {
    for (name, rtype, class) in
        [("example.com", A, 1), ("", A, 1), ("x.corp", A, 1), ("fox.maas", A, 3), ("maas", 252, 1), ("maas", 251, 1)]
    {
        let message = ask(&house(), &query(name, rtype, class, 0), 0).unwrap();
        assert_eq!(message.metadata.response_code, ResponseCode::Refused, "{name} {rtype} {class}");
        assert!(message.answers.is_empty() && message.authorities.is_empty());
    }
    let referral = asked("host.given.maas", A);
    assert!(!referral.metadata.authoritative && referral.answers.is_empty());
    assert_eq!((referral.authorities.len(), referral.additionals.len()), (1, 1));
    assert_eq!(says(&asked("fox.maas", ANY)).1.len(), 1, "RFC 8482");
}

#[test]
fn addresses_turn_and_the_questions_letters_come_back() {
    let zones = house();
    let first = |draw| ask(&zones, &query("fOX.Maas", A, 1, 0), draw).unwrap().answers[0].to_string();
    let all: std::collections::BTreeSet<_> = (0..3).map(first).collect();
    assert_eq!(all.len(), 3);
    let mut out = Vec::new();
    assert!(answer(&query("fOX.Maas", A, 1, 0), &zones, Transport::Udp, 0, &mut out));
    assert_eq!(&out[12..22], b"\x03fOX\x04Maas\0");
}

#[test]
fn long_answers_are_cut_to_what_the_client_takes() {
    let zones = house();
    for (size, cut) in [(0, true), (512, true), (4_096, true)] {
        let message = ask(&zones, &query("long.maas", TXT, 1, size), 0).unwrap();
        assert_eq!((message.metadata.truncation, message.answers.is_empty()), (cut, cut));
        assert_eq!(message.edns.is_some(), size > 0);
    }
    let mut out = Vec::new();
    assert!(answer(&query("long.maas", TXT, 1, 0), &zones, Transport::Tcp, 0, &mut out));
    assert_eq!(Message::from_vec(&out).unwrap().answers.len(), 40);
    assert!(!ask(&zones, &query("fox.maas", TXT, 1, 1_232), 0).unwrap().metadata.truncation);
}

#[test]
fn malformed_queries_get_formerr_and_answers_get_nothing() {
    let zones = house();
    let good = query("fox.maas", A, 1, 1_232);
    let code = |packet: &[u8]| ask(&zones, packet, 0).map(|m| m.metadata.response_code);
    let with = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    assert_eq!((code(&good[..11]), code(&with(2, 0x81))), (None, None));
    assert_eq!(code(&with(2, 0x28)), Some(ResponseCode::NotImp), "UPDATE");
    for packet in [
        with(5, 0),
        with(5, 2),
        with(7, 1),
        with(12, 0xc0),
        with(11, 2),
        good[..30].to_vec(),
        [&good[..], b"x"].concat(),
    ] {
        assert_eq!(code(&packet), Some(ResponseCode::FormErr), "{packet:?}");
    }
    // 16, which TSIG calls BADSIG and EDNS BADVERS.
    assert_eq!(code(&with(good.len() - 5, 1)).map(u16::from), Some(16));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_answered_by_a_message_or_not_at_all(packet in proptest::collection::vec(any::<u8>(), 0..600), draw: u32) {
        ask(&house(), &packet, draw);
    }

    #[test]
    fn damaged_queries_are_answered_by_a_message_or_not_at_all(
        name in prop::sample::select(vec!["fox.maas", "out.maas", "in.maas", "host.given.maas", "199.0.77.10.in-addr.arpa", "x.down.maas", ""]),
        rtype in 0_u16..260, at in 0_usize..40, byte: u8, cut in 0_usize..60,
    ) {
        let mut packet = query(name, rtype, 1, 1_232);
        let len = packet.len();
        packet[at.min(len - 1)] = byte;
        packet.truncate(cut.max(12).min(len));
        ask(&house(), &packet, 1);
    }
}
