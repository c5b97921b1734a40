//! Changed zones are the same as zones made anew; transfers hold them whole.

use actors::dns::{Query, Transport, Zones, answer, transfer::transfer};
use hickory_proto::op::Message;
use proptest::prelude::*;
use schema::{
    dns::{RecordData, RecordKey, RecordSet},
    messages::link::Rows,
};

use super::{a, house, query, zone};

const NAMES: [&str; 6] = ["maas", "a.maas", "b.a.maas", "c.b.a.maas", "x.y.maas", "y.maas"];

fn put(set: RecordSet) -> Rows<RecordSet, RecordKey> {
    Rows { put: vec![set], ..Rows::default() }
}

proptest! {
    /// Any history of changes: names above come and go with those below, and nothing of a record that is gone is answered.
    #[test]
    fn changes_lead_where_a_new_beginning_leads(steps in proptest::collection::vec((0_usize..6, 0_u8..4), 1..40)) {
        let mut zones = Zones::of(&[zone("maas")], &[]);
        let mut held: [u8; 6] = [0; 6];
        for (at, last) in steps {
            let rows = if last == 0 {
                Rows { remove: vec![RecordKey { name: NAMES[at].parse().unwrap(), rtype: 1 }], ..Rows::default() }
            } else {
                put(a(NAMES[at], &[&format!("10.0.0.{last}")]))
            };
            held[at] = last;
            let before = zones.clone();
            let names = before.names();
            zones.apply(&Rows::default(), &rows);
            prop_assert_eq!(before.names(), names, "the map before is not touched");
        }
        let records = || NAMES.iter().zip(held).filter(|(_, last)| *last > 0);
        let records: Vec<_> = records().map(|(name, last)| a(name, &[&format!("10.0.0.{last}")])).collect();
        let anew = Zones::of(&[zone("maas")], &records);
        prop_assert_eq!(zones.names(), anew.names());
        for name in NAMES.iter().chain(&["z.maas", "b.maas"]) {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for (zones, out) in [(&zones, &mut one), (&anew, &mut other)] {
                prop_assert!(answer(&query(name, 1, 1, 0), zones, Transport::Udp, 0, out));
            }
            prop_assert_eq!(one, other);
        }
    }
}

#[test]
fn a_zone_that_goes_takes_its_answers_along() {
    let mut zones = house();
    let code = |zones: &Zones| {
        let mut out = Vec::new();
        answer(&query("fox.maas", 1, 1, 0), zones, Transport::Udp, 0, &mut out);
        u16::from(out[3] & 15)
    };
    assert_eq!(code(&zones), 0);
    zones.apply(&Rows { remove: vec!["maas".parse().unwrap()], ..Rows::default() }, &Rows::default());
    assert_eq!(code(&zones), 5);
    zones.apply(&Rows { replace: true, put: vec![zone("maas")], remove: vec![] }, &Rows::default());
    assert_eq!(code(&zones), 0);
    zones.apply(&Rows::default(), &Rows { replace: true, ..put(a("badger.maas", &["10.0.0.1"])) });
    assert_eq!((code(&zones), zones.names()), (3, 3), "the root, the zone, the badger");
}

#[test]
fn a_transfer_holds_the_zone_between_two_soas_and_no_other() {
    let mut zones = house();
    let many: Vec<_> = (0..2_000).map(|n| a(&format!("node{n}.maas"), &["10.1.0.1"])).collect();
    zones.apply(&Rows::default(), &Rows { put: many, ..Rows::default() });
    let packet = query("maas", 252, 1, 0);
    let messages = transfer(&Query::read(&packet).unwrap(), &zones).unwrap();
    assert!(messages.len() > 2);
    let records: Vec<_> =
        messages.iter().flat_map(|m| Message::from_vec(m).unwrap().answers).map(|r| r.to_string()).collect();
    let soa = |r: &String| r.contains("SOA");
    assert!(soa(&records[0]) && soa(records.last().unwrap()) && records.iter().filter(|r| soa(r)).count() == 2);
    let has = |name: &str| records.iter().any(|r| r.starts_with(name));
    assert!(has("fox.maas.") && has("given.maas.") && has("ns.given.maas.") && has("node1999.maas."));
    assert!(!has("badger.inner.maas.") && !has("5.0.77.10."));
    let packet = query("corp", 252, 1, 0);
    assert!(transfer(&Query::read(&packet).unwrap(), &zones).is_none(), "a zone that is forwarded is not ours to give");
}

#[test]
fn every_type_is_written_as_the_rfcs_want_it() {
    let sets = [
        (
            r#"{"name":"x.maas","srv":[{"priority":1,"weight":2,"port":5060,"target":"sip.maas"}]}"#,
            "1 2 5060 sip.maas.",
        ),
        (r#"{"name":"x.maas","sshfp":[{"algorithm":4,"kind":2,"fingerprint":"00ff10"}]}"#, "4 2 00FF10"),
        (r#"{"name":"x.maas","aaaa":["fd00::1"]}"#, "fd00::1"),
        (r#"{"name":"x.maas","txt":["v=spf1 -all"]}"#, "v=spf1 -all"),
        (r#"{"name":"x.maas","ns":["ns.other"]}"#, "ns.other."),
    ];
    for (json, wanted) in sets {
        let set: RecordSet = serde_json::from_str(json).unwrap();
        let (zones, packet) =
            (Zones::of(&[zone("maas")], std::slice::from_ref(&set)), query("x.maas", set.data.rtype(), 1, 0));
        let mut out = Vec::new();
        assert!(answer(&packet, &zones, Transport::Udp, 0, &mut out));
        let message = Message::from_vec(&out).unwrap();
        let said: Vec<_> = message.answers.iter().chain(&message.authorities).map(|r| r.to_string()).collect();
        assert!(said.len() == 1 && said[0].to_lowercase().contains(&wanted.to_lowercase()), "{said:?}");
    }
    assert_eq!(RecordData::Sshfp(vec![]).rtype(), 44);
}
