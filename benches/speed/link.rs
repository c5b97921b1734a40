//! The link over loopback: round trips of report and acknowledgement a second, registrations, and bulk bytes. Prints tables.
//!
//! Hypothesis: with 64 reports under way one rack brings more than 50,000 acknowledged reports a second; region and rack share
//! this process and its two workers. Run: `cargo bench -p benches --bench link [-- SECONDS_PER_ROW]`.

use std::{
    collections::VecDeque,
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use actors::{
    clock::{now, tick},
    core::TraceId,
    link::{
        Admitted, Doorkeeper, Enrolling, Pending, Refusal,
        ca::Ca,
        client::{ClientConfig, Event, LinkClient},
        enrol::{self, Token},
        server::{Connection, Incoming, LinkServer, ServerConfig},
    },
};
use schema::{
    boot::{BodyRef, Sha256},
    id::{AttemptId, RackId, ReportSeq},
    messages::{
        link::{FromRack, ToRack},
        report::{Fact, Report},
    },
    time::Timestamp,
};
use tokio::sync::mpsc;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const RACK: [u8; 6] = [1; 6];
const BODY: usize = 256 << 20;

/// Lets everybody in.
struct Open;

impl Doorkeeper for Open {
    fn admit(&self, _: Sha256) -> Pending<'_, Result<Admitted, Refusal>> {
        Box::pin(async { Ok(Admitted { rack: RackId::from_draws(RACK), last_report: ReportSeq(0) }) })
    }

    fn enrol(&self, _: Enrolling) -> Pending<'_, Result<RackId, Refusal>> {
        Box::pin(async { Ok(RackId::from_draws(RACK)) })
    }
}

fn main() -> Fallible<()> {
    let seconds: f64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(3.0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(Duration::from_secs_f64(seconds)))
}

async fn run(span: Duration) -> Fallible<()> {
    let ca = Ca::create(now())?;
    let token = Token::mint(&ca, [7; 24]);
    let config = ServerConfig::new(([127, 0, 0, 1], 0).into(), "regn77".parse()?);
    let (server, connections) = LinkServer::start(config, ca, Arc::new(Open))?;
    let address = server.address().to_string();
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("body");
    std::fs::write(&path, vec![0x5a; BODY])?;
    let body = BodyRef { sha256: Sha256::of(&std::fs::read(&path)?), len: BODY as u64 };
    tokio::spawn(region(connections, path));
    let identity = enrol::enrol(&address, &token, "rack-1", "0.1.0").await?;

    let start = tick();
    let mut connected = 0u32;
    while start.elapsed() < span {
        let (client, mut events) = LinkClient::start(ClientConfig::new(vec![address.clone()]), &identity, || 0.5)?;
        while !matches!(events.recv().await, Some(Event::Up { .. }) | None) {}
        connected += 1;
        drop((client, events));
    }
    println!("connections (mutual TLS, to the Welcome), one after the other: {:.0}/s", rate(connected, start));

    let (client, mut events) = LinkClient::start(ClientConfig::new(vec![address]), &identity, || 0.5)?;
    while !matches!(events.recv().await, Some(Event::Up { .. }) | None) {}
    println!("\n{:>9} {:>14} {:>9} {:>9}", "under way", "round trips/s", "p50 us", "p99 us");
    for window in [1, 64, 1_024] {
        round_trips(&client, &mut events, window, span).await?;
    }

    let start = tick();
    let partial = dir.path().join("partial");
    client.fetch(0, body, &partial).await?;
    let mib = (BODY >> 20) as f64 / start.elapsed().as_secs_f64();
    println!("\nbulk fetch of {} MiB, hashed and synced: {mib:.0} MiB/s", BODY >> 20);
    client.stop().await;
    server.stop("the bench is over").await;
    Ok(())
}

/// Acknowledges each report by itself, which is the dearest way.
async fn region(mut connections: mpsc::Receiver<Connection>, body: PathBuf) {
    while let Some(mut rack) = connections.recv().await {
        let body = body.clone();
        tokio::spawn(async move {
            while let Some(incoming) = rack.incoming.recv().await {
                match incoming {
                    Incoming::Message(trace, FromRack::Report(report)) => {
                        rack.sender.send(&ToRack::Ack { through: report.seq }, trace).await.ok(); // Down: the bench ends.
                    }
                    Incoming::Message(..) => {}
                    Incoming::Bulk(request) => {
                        let body = body.clone();
                        tokio::spawn(async move { request.serve(&body).await });
                    }
                    Incoming::Closed { .. } => return,
                }
            }
        });
    }
}

async fn round_trips(
    client: &LinkClient,
    events: &mut mpsc::Receiver<Event>,
    window: usize,
    span: Duration,
) -> Fallible<()> {
    let machine = "4y3h7n".parse()?;
    let (mut sent, mut took, mut seq) = (VecDeque::new(), Vec::new(), 0);
    let start = tick();
    while start.elapsed() < span || !sent.is_empty() {
        while sent.len() < window && start.elapsed() < span {
            seq += 1;
            let report = Report {
                seq: ReportSeq(seq),
                at: Timestamp(seq as i64),
                machine,
                attempt: AttemptId(1),
                fact: Fact::Heartbeat,
            };
            client.send(0, &FromRack::Report(report), TraceId(1)).await?;
            sent.push_back(tick());
        }
        if let Some(Event::Message { message: ToRack::Ack { .. }, .. }) = events.recv().await
            && let Some(at) = sent.pop_front()
        {
            took.push(at.elapsed());
        }
    }
    let rate = rate(u32::try_from(took.len())?, start);
    took.sort_unstable();
    let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default().as_micros();
    println!("{window:>9} {rate:>14.0} {:>9} {:>9}", at(50), at(99));
    Ok(())
}

fn rate(count: u32, start: Instant) -> f64 {
    f64::from(count) / start.elapsed().as_secs_f64()
}
