//! Golden frames, limits, and bytes that are no frames.

use std::{fmt::Debug, sync::LazyLock};

use proptest::prelude::*;
use schema::{
    codec::{self, CodecError, Deframer, Kind, Message, PREFIX, TraceParent},
    id::{ReportSeq, SubnetId},
    messages::{
        enrol::{EnrolAnswer, EnrolAsk},
        link::{BulkAnswer, BulkHeader, FromRack, PlanUpdate, Rows, ToRack},
    },
    net::MacAddr,
    plan::{Reservation, Ticket},
};

use crate::{samples, wire_variants};

const PARENT: TraceParent =
    TraceParent { trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span: 0xb7ad_6b71_6920_3331 };

/// Every sample as `NAME` and its frame.
fn frames() -> Vec<(String, Vec<u8>)> {
    fn add<M: Message + Debug + PartialEq>(all: &mut Vec<(String, Vec<u8>)>, of: &str, samples: &[M]) {
        for message in samples {
            let frame = codec::encode(message, PARENT, 12).unwrap();
            let (envelope, back) = codec::decode::<M>(&frame[PREFIX..]).unwrap();
            assert_eq!(
                (&back, envelope.parent, envelope.sequence, envelope.kind),
                (message, PARENT, 12, message.kind())
            );
            all.push((format!("{of}::{}", variant(message)), frame));
        }
    }
    let mut all = Vec::new();
    add(&mut all, "ToRack", &samples::to_rack());
    add(&mut all, "FromRack", &samples::from_rack());
    add(&mut all, "BulkHeader", &samples::bulk_headers());
    add(&mut all, "BulkAnswer", &samples::bulk_answers());
    add(&mut all, "EnrolAsk", &samples::enrol_asks());
    add(&mut all, "EnrolAnswer", &samples::enrol_answers());
    for fact in samples::facts() {
        let frame = codec::encode(&FromRack::Report(samples::report(fact.clone())), PARENT, 12).unwrap();
        all.push((format!("Fact::{}", variant(&fact)), frame));
    }
    all
}

fn variant(value: &impl Debug) -> String {
    format!("{value:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn every_variant_has_its_golden_frame() {
    let now: String = frames().iter().map(|(name, frame)| format!("{name} {}\n", hex(frame))).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");
    if std::env::var_os("HOSTLER_GOLDEN").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let frozen = std::fs::read_to_string(path).unwrap_or_default();
    for (of, variants) in wire_variants::all() {
        for name in variants {
            let line = format!("{of}::{name} ");
            assert!(
                frozen.lines().any(|l| l.starts_with(&line)),
                "{of}::{name} has no frame: add a sample, then HOSTLER_GOLDEN=1"
            );
        }
    }
    for (frozen, now) in frozen.lines().zip(now.lines()) {
        assert_eq!(
            frozen, now,
            "a wire shape changed; racks of the last version would not understand: add a variant at the end instead"
        );
    }
    assert_eq!(frozen.lines().count(), now.lines().count(), "HOSTLER_GOLDEN=1 adds the frames of new variants");
}

static FRAMES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(frames);

/// All that a stream may carry; whatever comes must be an error or a message that encodes again.
fn decode_as_anything(bytes: &[u8]) {
    fn one<M: Message>(bytes: &[u8]) {
        if let Ok((envelope, message)) = codec::decode::<M>(bytes) {
            let again = codec::encode(&message, envelope.parent, envelope.sequence).unwrap();
            assert!(codec::decode::<M>(&again[PREFIX..]).is_ok());
        }
    }
    one::<ToRack>(bytes);
    one::<FromRack>(bytes);
    one::<BulkHeader>(bytes);
    one::<BulkAnswer>(bytes);
    one::<EnrolAsk>(bytes);
    one::<EnrolAnswer>(bytes);
}

/// Every golden frame, cut at every place and with every byte changed in the ways that matter to bincode. The same on every run;
/// the fuzz target goes on from here.
#[test]
fn every_single_byte_of_every_frame_may_be_wrong() {
    for (_, frame) in FRAMES.iter() {
        let frame = &frame[PREFIX..];
        for place in 0..frame.len() {
            decode_as_anything(&frame[..place]);
            for value in
                [0, 1, 0x7f, 0x80, 250, 251, 252, 253, 254, 255, frame[place] ^ 1, frame[place].wrapping_add(1)]
            {
                let mut bytes = frame.to_vec();
                bytes[place] = value;
                decode_as_anything(&bytes);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), version: bool) {
        if let (true, Some(first)) = (version, bytes.first_mut()) {
            *first = codec::VERSION;
        }
        decode_as_anything(&bytes);
    }

    #[test]
    fn mutated_frames_never_panic(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut: prop::sample::Index,
        how in 0..4u8,
    ) {
        let mut bytes = FRAMES[which.index(FRAMES.len())].1[PREFIX..].to_vec();
        if how != 0 {
            for (place, value) in &changes {
                let at = place.index(bytes.len());
                bytes[at] = *value;
            }
        }
        if how % 2 == 0 {
            bytes.truncate(cut.index(bytes.len()));
        } else if how == 3 {
            bytes.extend_from_slice(&[changes[0].1; 3]);
        }
        decode_as_anything(&bytes);
    }

    #[test]
    fn frames_survive_any_cutting_of_the_stream(cuts in prop::collection::vec(1usize..300, 0..60)) {
        let messages = samples::from_rack();
        let bytes: Vec<u8> = messages.iter().flat_map(|m| codec::encode(m, PARENT, 1).unwrap()).collect();
        let (mut deframer, mut rest, mut seen) = (Deframer::default(), bytes.as_slice(), Vec::new());
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            rest = tail;
            deframer.push(head);
            while let Some((_, message)) = deframer.take::<FromRack>().unwrap() {
                seen.push(message);
            }
        }
        prop_assert_eq!(seen, messages);
        prop_assert!(deframer.is_empty());
    }
}

#[test]
fn errors_name_the_limit_and_the_value() {
    let good = codec::encode(&FromRack::Goodbye, PARENT, 1).unwrap()[PREFIX..].to_vec();
    let error = |bytes: &[u8]| codec::decode::<FromRack>(bytes).unwrap_err().to_string();
    assert!(error(&[]).contains("empty"));
    assert!(error(&[2, 0]).contains("version 2 is not the 1"));
    assert!(error(&[good.as_slice(), &[0]].concat()).contains("1 of 2 bytes are left"));
    assert!(error(&good[..good.len() - 1]).contains("0 bytes are no FromRack"));
    assert!(codec::decode::<ToRack>(&good).unwrap_err().to_string().contains("kind FromRack came where ToRack"));
    // A frame that says it is no plan must not hold one: its limit is another.
    let mut plan = codec::encode(&ToRack::Plan(Box::new(samples::plan())), PARENT, 1).unwrap()[PREFIX..].to_vec();
    plan[1] = 0;
    assert!(matches!(codec::decode::<ToRack>(&plan), Err(CodecError::Kind { seen: Kind::ToRack, .. })));
    let long = codec::announced::<FromRack>(u32::MAX.to_be_bytes()).unwrap_err().to_string();
    assert!(long.contains("4294967295 bytes") && long.contains("1048576 bytes"), "{long}");
    let order = ToRack::Refused { why: "x".repeat(1 << 20), remedy: String::new() };
    assert!(codec::encode(&order, PARENT, 1).unwrap_err().to_string().contains("exceeds the limit of 1048576"));
}

#[test]
fn ten_hostile_bytes_ask_for_no_memory() {
    // A `Leases` of 2^60 rows: bincode's marker for u64, then the length.
    let mut bytes = vec![codec::VERSION, 2, 0, 0, 1, 3, 253];
    bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
    let error = codec::decode::<FromRack>(&bytes).unwrap_err().to_string();
    assert!(error.contains("LimitExceeded"), "{error}");
}

/// bincode counts memory, not bytes: what may be sent must also be readable, for the rows that grow most in memory.
#[test]
fn the_largest_plans_that_can_be_sent_can_be_read() {
    let bare = Ticket {
        boot: None,
        hostname: String::new(),
        domain: String::new(),
        arch: String::new(),
        macs: vec![],
        ..samples::ticket()
    };
    let row = Reservation { subnet: SubnetId(0), mac: MacAddr([0; 6]), ip: [0, 0, 0, 0].into(), hostname: None };
    let rows = |tickets: usize, reservations: usize| {
        ToRack::Plan(Box::new(PlanUpdate {
            reservations: Rows { replace: true, put: vec![row.clone(); reservations], remove: vec![] },
            tickets: Rows { replace: true, put: vec![bare.clone(); tickets], remove: vec![] },
            ..samples::plan()
        }))
    };
    for plan in [rows(2_900, 0), rows(46_000, 0), rows(0, 60_000)] {
        let frame = codec::encode(&plan, PARENT, 1).unwrap();
        assert!(codec::decode::<ToRack>(&frame[PREFIX..]).unwrap().1 == plan, "{} bytes", frame.len());
    }
    // The same ratio bounds the largest tier, which is too large to build here.
    let bytes = |plan: &ToRack| codec::encode(plan, PARENT, 1).unwrap().len();
    let per_ticket = (bytes(&rows(1_100, 0)) - bytes(&rows(100, 0))) / 1_000;
    assert!(
        size_of::<Ticket>() <= 31 * per_ticket,
        "{} bytes in memory, {per_ticket} on the wire",
        size_of::<Ticket>()
    );
}

#[test]
fn sequence_and_trace_are_kept_at_their_ends() {
    for (parent, sequence) in
        [(TraceParent::default(), 0), (TraceParent { trace: u128::MAX, span: u64::MAX }, u64::MAX)]
    {
        let frame = codec::encode(&ToRack::Ack { through: ReportSeq(u64::MAX) }, parent, sequence).unwrap();
        let (envelope, _) = codec::decode::<ToRack>(&frame[PREFIX..]).unwrap();
        assert_eq!((envelope.parent, envelope.sequence), (parent, sequence));
    }
}
