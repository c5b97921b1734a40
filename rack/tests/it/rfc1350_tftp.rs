//! TFTP by section of its RFCs: packets, transfers step by step, and whole transfers over a network that loses, doubles and reorders.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use proptest::prelude::*;
use rack::tftp::{
    packet::{Code, MAX_REQUEST, Mode, Options, Packet, PacketError},
    receiver::{Next, Receiver, Reply},
    transfer::{End, Event, MAX_WINDOW, Send, TRIES, Then, Transfer},
};
use tftp_server::packet as oracle;

use crate::boot_yard::pattern;

fn read(name: &str, options: Options) -> Packet<'_> {
    Packet::Read { name, mode: Mode::Octet, options }
}

const NO_OPTIONS: Options = Options { blksize: None, tsize: None, timeout_s: None, windowsize: None };

/// RFC 1350 section 5, RFC 2347: bytes to packets, as firmware sends them (lab captures) and as nobody should.
#[test]
fn packets_are_read_and_what_is_none_is_named() {
    let ovmf = b"\x00\x01bootx64.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
    let options = Options { blksize: Some(1_468), tsize: Some(0), windowsize: Some(4), timeout_s: None };
    let table: &[(&[u8], Result<Packet<'_>, PacketError>)] = &[
        (ovmf, Ok(read("bootx64.efi", options))),
        (
            b"\x00\x01/grub/grub.cfg\0OCTET\0BLKSIZE\x001024\0",
            Ok(read("/grub/grub.cfg", Options { blksize: Some(1_024), ..NO_OPTIONS })),
        ),
        (b"\x00\x01f\0octet\0", Ok(read("f", NO_OPTIONS))),
        (b"\x00\x01f\0octet\0blksize\x007\0timeout\x000\0windowsize\x000\0", Ok(read("f", NO_OPTIONS))),
        (b"\x00\x01f\0octet\0blksize\x0065465\0timeout\x00256\0", Ok(read("f", NO_OPTIONS))),
        (b"\x00\x01f\0octet\0multicast\0\0tsize\x000\0", Ok(read("f", Options { tsize: Some(0), ..NO_OPTIONS }))),
        (b"\x00\x01f\0octet\0tsize\x000\0blksi", Ok(read("f", Options { tsize: Some(0), ..NO_OPTIONS }))),
        (b"\x00\x01f\0netascii\0", Ok(Packet::Read { name: "f", mode: Mode::Netascii, options: NO_OPTIONS })),
        (b"\x00\x02f\0octet\0", Ok(Packet::Write { name: "f", mode: Mode::Octet, options: NO_OPTIONS })),
        (b"\x00\x03\xff\xffab", Ok(Packet::Data { block: 65_535, data: b"ab" })),
        (b"\x00\x04\x00\x00", Ok(Packet::Ack { block: 0 })),
        (b"\x00\x05\x00\x08User aborted\0", Ok(Packet::Error { code: Code::Options, message: "User aborted" })),
        (b"\x00\x05\x00\x63", Ok(Packet::Error { code: Code::Unknown(99), message: "" })),
        (b"\x00\x06tsize\x0077\0", Ok(Packet::OptionAck(Options { tsize: Some(77), ..NO_OPTIONS }))),
        (b"", Err(PacketError::Short { len: 0, min: 2 })),
        (b"\x00\x04\x00", Err(PacketError::Short { len: 3, min: 4 })),
        (b"\x00\x07\x00\x00", Err(PacketError::Opcode(7))),
        (b"\x00\x01f", Err(PacketError::Unterminated { field: "file name" })),
        (b"\x00\x01f\0octet", Err(PacketError::Unterminated { field: "mode" })),
        (b"\x00\x01\xff\xfe\0octet\0", Err(PacketError::Text { field: "file name" })),
        (b"\x00\x01f\0binary\0", Err(PacketError::Mode)),
    ];
    for (bytes, expected) in table {
        assert_eq!(Packet::parse(bytes), *expected, "{}", String::from_utf8_lossy(bytes));
    }
    let long = [b"\0\x01".as_slice(), &[b'a'; MAX_REQUEST], b"\0octet\0"].concat();
    assert!(matches!(Packet::parse(&long), Err(PacketError::Long { .. })));
}

fn arbitrary_options() -> impl Strategy<Value = Options> {
    let blksize = proptest::option::of(8_u16..=65_464);
    (blksize, proptest::option::of(any::<u64>()), proptest::option::of(1_u8..), proptest::option::of(1_u16..))
        .prop_map(|(blksize, tsize, timeout_s, windowsize)| Options { blksize, tsize, timeout_s, windowsize })
}

proptest! {
    #[test]
    fn no_bytes_upset_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(packet) = Packet::parse(&bytes) {
            let written = packet.to_bytes();
            prop_assert_eq!(Packet::parse(&written).map(|p| p.to_bytes()), Ok(written));
        }
    }

    #[test]
    fn what_is_written_is_read(name in "[ -~]{1,64}", options in arbitrary_options(), block: u16, data in proptest::collection::vec(any::<u8>(), 0..512)) {
        for packet in [
            read(&name, options),
            Packet::Write { name: &name, mode: Mode::Netascii, options },
            Packet::OptionAck(options),
            Packet::Data { block, data: &data },
            Packet::Ack { block },
            Packet::Error { code: block.into(), message: &name },
        ] {
            let bytes = packet.to_bytes();
            prop_assert_eq!(Packet::parse(&bytes), Ok(packet));
        }
    }

    /// Another implementation's codec reads what we write and writes what we read (RFC 1350 packets only: it knows no options).
    #[test]
    fn an_independent_codec_agrees(name in "[!-~]{1,64}", block: u16, data in proptest::collection::vec(any::<u8>(), 0..512)) {
        let theirs = |packet: &Packet<'_>| {
            let bytes = packet.to_bytes();
            let mut room = [0; oracle::MAX_PACKET_SIZE];
            room[..bytes.len()].copy_from_slice(&bytes);
            oracle::Packet::read(oracle::PacketData::new(room, bytes.len())).unwrap()
        };
        let mut block_of_512 = [0; 512];
        block_of_512[..data.len()].copy_from_slice(&data);
        let pairs = [
            (read(&name, NO_OPTIONS), oracle::Packet::RRQ { filename: name.clone(), mode: "octet".into() }),
            (Packet::Write { name: &name, mode: Mode::Octet, options: NO_OPTIONS }, oracle::Packet::WRQ { filename: name.clone(), mode: "octet".into() }),
            (Packet::Data { block, data: &data }, oracle::Packet::DATA { block_num: block, data: oracle::DataBytes(block_of_512), len: data.len() }),
            (Packet::Ack { block }, oracle::Packet::ACK(block)),
            (Packet::Error { code: Code::NotFound, message: &name }, oracle::Packet::ERROR { code: oracle::ErrorCode::FileNotFound, msg: name.clone() }),
        ];
        for (ours, expected) in pairs {
            prop_assert_eq!(&theirs(&ours), &expected);
            let bytes = expected.bytes().unwrap();
            prop_assert_eq!(Packet::parse(bytes.to_slice()), Ok(ours));
        }
    }

    /// Whatever comes in whatever order: no panic, no more than a window at once, no block beyond the last.
    #[test]
    fn no_sequence_of_events_upsets_a_transfer(len in 0_u64..100_000, options in arbitrary_options(), acks in proptest::collection::vec(proptest::option::of(any::<u16>()), 0..200)) {
        let mut transfer = Transfer::new(len, &options, 1_468, 16);
        transfer.step(Event::Start);
        for ack in acks {
            let event = ack.map_or(Event::Elapsed, |block| Event::Packet(Packet::Ack { block: block % 40 }));
            if let Send::Blocks { first, count } = transfer.step(event).send {
                prop_assert!(count >= 1 && count <= transfer.window() && first >= 1);
                prop_assert!(first + u64::from(count) - 1 <= transfer.last_block());
            }
        }
    }
}

fn ack(transfer: &mut Transfer, block: u16) -> (Send, Then) {
    let step = transfer.step(Event::Packet(Packet::Ack { block }));
    (step.send, step.then)
}

fn blocks(first: u64, count: u16) -> Send {
    Send::Blocks { first, count }
}

/// RFC 1350 section 2: lock step; section 6: a last block shorter than the others, empty when the length is a multiple.
#[test]
fn without_options_a_transfer_is_in_lock_step_and_ends_with_a_short_block() {
    for (len, last) in [(0, 1), (1, 1), (511, 1), (512, 2), (1_024, 3), (1_025, 3)] {
        let mut transfer = Transfer::new(len, &NO_OPTIONS, 1_468, 16);
        assert_eq!(transfer.last_block(), last, "{len} bytes");
        let mut send = transfer.step(Event::Start).send;
        for block in 1..=last {
            assert_eq!(send, blocks(block, 1));
            assert_eq!(transfer.range(block).len(), if block == last { len as usize % 512 } else { 512 });
            let (next, then) = ack(&mut transfer, block as u16);
            assert_eq!(then == Then::Ended(End::Complete), block == last);
            send = next;
        }
    }
}

/// RFC 2347: an OACK before data, ACK 0 accepts it. RFC 2348, 2349, 7440: what is granted.
#[test]
fn options_are_granted_within_bounds_and_acknowledged_before_data() {
    let asked = Options { blksize: Some(65_464), tsize: Some(0), timeout_s: Some(3), windowsize: Some(64) };
    let mut transfer = Transfer::new(5_000, &asked, 1_468, 100);
    let granted =
        Options { blksize: Some(1_468), tsize: Some(5_000), timeout_s: Some(3), windowsize: Some(MAX_WINDOW) };
    let step = transfer.step(Event::Start);
    assert_eq!((step.send, step.then), (Send::OptionAck(granted), Then::Wait(Duration::from_secs(3))));
    assert_eq!(ack(&mut transfer, 1), (Send::Nothing, Then::Keep), "only ACK 0 accepts options");
    assert_eq!(ack(&mut transfer, 0).0, blocks(1, 4));
    assert_eq!(ack(&mut transfer, 4), (Send::Nothing, Then::Ended(End::Complete)));
    // Windows switched off: the option is not granted at all.
    let mut transfer = Transfer::new(5_000, &asked, 512, 1);
    let Send::OptionAck(granted) = transfer.step(Event::Start).send else { panic!("an OACK") };
    assert_eq!((granted.windowsize, granted.blksize, transfer.window()), (None, Some(512), 1));
}

/// RFC 1123 section 4.2.3.1: a duplicate ACK repeats nothing; only silence does, and not for ever.
#[test]
fn duplicates_repeat_nothing_and_silence_repeats_with_a_bound() {
    let mut transfer = Transfer::new(10_000, &NO_OPTIONS, 512, 1);
    transfer.step(Event::Start);
    assert_eq!(ack(&mut transfer, 1).0, blocks(2, 1));
    for stale in [1, 0, 3, 65_535] {
        assert_eq!(ack(&mut transfer, stale), (Send::Nothing, Then::Keep), "ACK {stale}");
    }
    let mut waits = vec![];
    loop {
        let step = transfer.step(Event::Elapsed);
        match step.then {
            Then::Wait(wait) => waits.push(wait.as_secs()),
            then => break assert_eq!(then, Then::Ended(End::Silent { acknowledged: 1 })),
        }
        assert_eq!(step.send, blocks(2, 1));
    }
    assert_eq!(waits, [2, 4, 8, 8, 8], "with the first second: {TRIES} tries");
}

/// RFC 7440 section 4: an ACK inside the window begins the next window at the gap.
#[test]
fn a_gap_in_a_window_is_filled_from_where_it_was() {
    let asked = Options { windowsize: Some(8), ..NO_OPTIONS };
    let mut transfer = Transfer::new(512 * 30, &asked, 1_468, 16);
    transfer.step(Event::Start);
    assert_eq!(ack(&mut transfer, 0).0, blocks(1, 8));
    assert_eq!(ack(&mut transfer, 5).0, blocks(6, 8));
    assert_eq!(ack(&mut transfer, 5), (Send::Nothing, Then::Keep));
    assert_eq!(ack(&mut transfer, 13).0, blocks(14, 8));
    assert_eq!(transfer.step(Event::Elapsed).send, blocks(14, 8));
}

/// Block numbers go on after 65535 with 0.
#[test]
fn block_numbers_wrap() {
    let asked = Options { blksize: Some(8), windowsize: Some(16), ..NO_OPTIONS };
    let mut transfer = Transfer::new(8 * 140_000, &asked, 1_468, 16);
    transfer.step(Event::Start);
    let (mut send, _) = ack(&mut transfer, 0);
    let mut sent = 0;
    loop {
        let Send::Blocks { first, count } = send else { panic!("blocks") };
        assert_eq!(first, sent + 1);
        sent += u64::from(count);
        let (next, then) = ack(&mut transfer, sent as u16);
        if then == Then::Ended(End::Complete) {
            break;
        }
        send = next;
    }
    assert_eq!(sent, 140_001);
}

/// RFC 1350 section 7: ERROR ends a transfer. Before any data it is a probe for the size, after it a failure.
#[test]
fn an_error_ends_a_transfer_at_once() {
    let error = Event::Packet(Packet::Error { code: Code::Options, message: "User aborted the transfer" });
    let mut transfer = Transfer::new(9_000, &Options { tsize: Some(0), ..NO_OPTIONS }, 512, 1);
    transfer.step(Event::Start);
    assert_eq!(transfer.clone().step(error).then, Then::Ended(End::Probe));
    ack(&mut transfer, 0);
    ack(&mut transfer, 1);
    let message = "User aborted the transfer".to_owned();
    assert_eq!(transfer.step(error).then, Then::Ended(End::Refused { code: Code::Options, message }));
}

/// What a network does to a packet; all in per mille.
#[derive(Debug, Clone, Copy)]
struct Weather {
    loss: u64,
    double: u64,
    late: u64,
}

struct Outcome {
    end: End,
    received: Vec<u8>,
    complete: bool,
    data_packets: u64,
}

/// A whole transfer between [`Transfer`] and [`Receiver`] under a clock of milliseconds. The same seed gives the same run.
fn simulate(body: &[u8], asked: Options, weather: Weather, seed: u64) -> Outcome {
    let mut die = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut roll = move || {
        die ^= die << 13;
        die ^= die >> 7;
        die ^= die << 17;
        die % 1_000
    };
    let mut transfer = Transfer::new(body.len() as u64, &asked, 1_468, 16);
    let mut receiver = Receiver::new(asked, Duration::from_millis(1_500));
    let mut queue = BinaryHeap::new();
    let mut bytes: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let (mut now, mut number) = (0_u64, 0_u64);
    let mut outcome =
        Outcome { end: End::Silent { acknowledged: 0 }, received: vec![], complete: false, data_packets: 0 };
    let (mut sender_due, mut receiver_due) = (0_u64, u64::MAX);
    let (mut started, mut ended, mut done) = (false, false, false);
    while !(ended && (done || queue.is_empty())) && now < 3_600_000 {
        // The earliest of: a packet arrives, one side's time goes by.
        let next = queue.peek().map_or(u64::MAX, |Reverse((at, ..)): &Reverse<(u64, u64, bool)>| *at);
        let sender_at = if ended { u64::MAX } else { sender_due };
        let receiver_at = if done { u64::MAX } else { receiver_due };
        now = next.min(sender_at).min(receiver_at);
        let (mut out, over): (Vec<(bool, Vec<u8>)>, bool) = (vec![], ended);
        let mut at_sender = |event: Event<'_>, out: &mut Vec<(bool, Vec<u8>)>| {
            let step = transfer.step(event);
            match step.send {
                Send::Nothing => {}
                Send::OptionAck(options) => out.push((false, Packet::OptionAck(options).to_bytes())),
                Send::Blocks { first, count } => {
                    for block in first..first + u64::from(count) {
                        let data = &body[transfer.range(block)];
                        out.push((false, Packet::Data { block: block as u16, data }.to_bytes()));
                        outcome.data_packets += 1;
                    }
                }
            }
            match step.then {
                Then::Keep => {}
                Then::Wait(time) => sender_due = now + time.as_millis() as u64,
                Then::Ended(end) => (ended, outcome.end) = (true, end),
            }
        };
        let mut at_receiver = |event: Event<'_>, out: &mut Vec<(bool, Vec<u8>)>| {
            let heard = receiver.step(event);
            if let (true, Event::Packet(Packet::Data { data, .. })) = (heard.take, event) {
                outcome.received.extend_from_slice(data);
            }
            match heard.reply {
                Reply::Ack(block) => out.push((true, Packet::Ack { block }.to_bytes())),
                Reply::Error(code) => out.push((true, Packet::Error { code, message: "" }.to_bytes())),
                Reply::Nothing | Reply::Request => {}
            }
            match heard.next {
                Next::Wait(time) => receiver_due = now + time.as_millis() as u64,
                Next::Complete => (done, outcome.complete) = (true, true),
                Next::Failed(_) => done = true,
            }
        };
        if now == next {
            let Some(Reverse((_, id, to_sender))) = queue.pop() else { break };
            let packet = bytes.remove(&id).unwrap();
            let event = Event::Packet(Packet::parse(&packet).unwrap());
            match (to_sender, over) {
                (true, false) => at_sender(event, &mut out),
                (true, true) => {}
                (false, _) => at_receiver(event, &mut out),
            }
        } else if now == sender_at {
            at_sender(if started { Event::Elapsed } else { Event::Start }, &mut out);
            if !started {
                (started, receiver_due) = (true, 1_500);
            }
        } else {
            at_receiver(Event::Elapsed, &mut out);
        }
        for (to_sender, packet) in out {
            let copies = u64::from(roll() >= weather.loss) * (1 + u64::from(roll() < weather.double));
            for _ in 0..copies {
                let late = if roll() < weather.late { roll() % 40 } else { 0 };
                number += 1;
                queue.push(Reverse((now + 1 + late, number, to_sender)));
                bytes.insert(number, packet.clone());
            }
        }
    }
    outcome
}

const SHAPES: [Options; 4] = [
    NO_OPTIONS,
    Options { blksize: Some(1_468), tsize: Some(0), ..NO_OPTIONS },
    Options { blksize: Some(512), windowsize: Some(4), ..NO_OPTIONS },
    Options { blksize: Some(1_408), windowsize: Some(16), timeout_s: Some(1), tsize: Some(0) },
];

#[test]
fn files_arrive_whole_through_loss_doubling_and_disorder() {
    let body = pattern(60_123);
    let weathers = [(50, 0, 0), (0, 200, 0), (0, 0, 500), (80, 100, 200), (120, 200, 400)];
    let mut incomplete = 0;
    for seed in 0..60 {
        for (loss, double, late) in weathers {
            for asked in SHAPES {
                let weather = Weather { loss, double, late };
                let outcome = simulate(&body, asked, weather, seed);
                assert!(body.starts_with(&outcome.received), "seed {seed}, {weather:?}, {asked:?}: wrong bytes");
                if outcome.end == End::Complete {
                    assert_eq!(outcome.received.len(), body.len(), "seed {seed}, {weather:?}, {asked:?}");
                }
                incomplete += u32::from(!outcome.complete);
            }
        }
    }
    // A block is lost six times in a row about once in twenty thousand at the worst of these weathers.
    assert!(incomplete <= 12, "{incomplete} of 1200 transfers did not end whole");
}

/// The Sorcerer's Apprentice: where every packet comes twice and none is lost, no block is sent twice.
#[test]
fn doubled_packets_breed_no_packets() {
    let body = pattern(200_000);
    for asked in SHAPES {
        let outcome = simulate(&body, asked, Weather { loss: 0, double: 1_000, late: 0 }, 7);
        assert_eq!(outcome.end, End::Complete);
        let blocks = body.len() / usize::from(asked.blksize.unwrap_or(512)) + 1;
        assert_eq!(outcome.data_packets, blocks as u64, "{asked:?}");
    }
}
