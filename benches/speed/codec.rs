//! Nanoseconds to encode and to decode a frame of the link, by message. Prints a table.
//!
//! Hypothesis: a frame costs about a microsecond each way, so that the link and not the codec is what reports cost.
//! Run: `cargo bench -p benches --bench codec [-- SECONDS_PER_ROW]`.

use std::{hint::black_box, time::Duration};

use actors::clock::tick;
use schema::{
    boot::{BodyRef, Sha256},
    codec::{self, CodecError, Message, PREFIX, TraceParent},
    id::{AttemptId, Generation, ReportSeq, ResultId, SubnetId},
    messages::{
        link::{FromRack, PlanUpdate, Rows, ToRack},
        report::{Fact, FileKind, Report},
    },
    net::MacAddr,
    plan::{BootPurpose, Reservation, Ticket},
    script::{Content, ScriptOutput, SignalStatus},
    time::Timestamp,
};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    let seconds: f64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(0.5);
    let span = Duration::from_secs_f64(seconds);
    println!("{:<34} {:>9} {:>12} {:>12}", "frame", "bytes", "encode ns", "decode ns");
    let fetched = Fact::FileFetched {
        file: "images/0f/boot-kernel".into(),
        kind: FileKind::Kernel,
        service: "http".into(),
        bytes: 8_000_000,
        took_ms: 120,
    };
    row("Report: heartbeat", &report(Fact::Heartbeat)?, span)?;
    row("Report: file fetched", &report(fetched)?, span)?;
    row("Report: script ended, 16 KiB", &report(ended())?, span)?;
    row("Ack", &ToRack::Ack { through: ReportSeq(123_456) }, span)?;
    row("Plan: 1,000 tickets and rows", &plan()?, span)?;
    Ok(())
}

fn row<M: Message>(name: &str, message: &M, span: Duration) -> Fallible<()> {
    let parent = TraceParent { trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span: 0xb7ad_6b71_6920_3331 };
    let frame = codec::encode(message, parent, 1_000)?;
    let encode = time(span, || codec::encode(black_box(message), parent, 1_000).map(|f| f.len()))?;
    let body = frame.get(PREFIX..).unwrap_or_default();
    let decode = time(span, || codec::decode::<M>(black_box(body)).map(|(_, m)| usize::from(M::is(m.kind()))))?;
    println!("{name:<34} {:>9} {encode:>12.0} {decode:>12.0}", frame.len());
    Ok(())
}

/// Nanoseconds a call: the best of ten rounds that fill the span together.
fn time(span: Duration, mut call: impl FnMut() -> Result<usize, CodecError>) -> Result<f64, CodecError> {
    let (mut best, mut calls) = (f64::MAX, 1u32);
    let start = tick();
    while start.elapsed() < span || best == f64::MAX {
        let round = tick();
        for _ in 0..calls {
            black_box(call()?);
        }
        let took = round.elapsed();
        if took < span / 10 && calls < 1 << 24 {
            calls *= 2; // Not long enough to measure yet.
        } else {
            best = best.min(took.as_nanos() as f64 / f64::from(calls));
        }
    }
    Ok(best)
}

fn report(fact: Fact) -> Fallible<FromRack> {
    Ok(FromRack::Report(Report {
        seq: ReportSeq(123_456),
        at: Timestamp(1_795_366_923_456_789),
        machine: "4y3h7n".parse()?,
        attempt: AttemptId(3),
        fact,
    }))
}

fn ended() -> Fact {
    let bytes = vec![b'x'; 16 * 1024];
    let body = BodyRef { sha256: Sha256::of(&bytes), len: bytes.len() as u64 };
    let combined = Some(Content { body, inline: Some(bytes) });
    Fact::ScriptEnded {
        result: ResultId(41),
        name: "20-lldp".into(),
        status: SignalStatus::Ok,
        exit_status: 0,
        runtime_ms: 1_500,
        output: Box::new(ScriptOutput { combined, ..ScriptOutput::default() }),
    }
}

fn plan() -> Fallible<ToRack> {
    let mac = |n: u16| MacAddr([0x52, 0x54, 0, 0x77, (n >> 8) as u8, n as u8]);
    let ticket = Ticket {
        machine: "4y3h7n".parse()?,
        attempt: AttemptId(0),
        purpose: BootPurpose::Local,
        macs: vec![mac(1)],
        hostname: "fox-0001".into(),
        domain: "maas".into(),
        arch: "amd64".into(),
        expires: Timestamp(1_795_366_923_456_789),
        boot: None,
    };
    let row = |n: u16| Reservation {
        subnet: SubnetId(1),
        mac: mac(n),
        ip: [10, 77, (n >> 8) as u8, n as u8].into(),
        hostname: Some(format!("fox-{n:04}")),
    };
    Ok(ToRack::Plan(Box::new(PlanUpdate {
        reservations: Rows { replace: true, put: (0..1_000).map(row).collect(), remove: vec![] },
        tickets: Rows { replace: true, put: vec![ticket; 1_000], remove: vec![] },
        ..PlanUpdate::empty(None, Generation(5))
    })))
}
