//! The rack's store: what was durable survives a kill, secrets lie sealed, and the outbox keeps its bound.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use actors::{
    core::{Core, TraceId},
    errand::{Errand, ErrandEvent},
};
use rack::state::{NewReport, OutboxLimits, State, StateError};
use schema::{
    boot::{BodyRef, Image, Sha256},
    id::{AttemptId, Generation, ReportSeq, SubnetId, SystemId},
    messages::{
        link::{Order, PlanUpdate},
        report::Fact,
    },
    plan::{BootPurpose, NodeKey, Plan, PlanSettings, Reservation, Ticket, TicketBoot},
    power::{PowerAccess, PowerAction, PowerType},
    secret::Secret,
    time::Timestamp,
};

const CANARY: &str = "canary-7fd1c2-secret";

fn open(dir: &Path) -> State {
    State::open(dir, OutboxLimits::default()).unwrap()
}

fn machine() -> SystemId {
    "abc234".parse().unwrap()
}

fn report(fact: Fact) -> NewReport {
    NewReport { machine: machine(), attempt: AttemptId(1), at: Timestamp(1), fact, trace: TraceId(7) }
}

pub(crate) fn ticket(id: &str, attempt: u32) -> Ticket {
    let body = BodyRef { sha256: Sha256::of(b"body"), len: 4 };
    Ticket {
        machine: id.parse().unwrap(),
        attempt: AttemptId(attempt),
        purpose: BootPurpose::Commissioning,
        macs: vec!["52:54:00:77:00:01".parse().unwrap()],
        hostname: "fox".into(),
        domain: "maas".into(),
        arch: "amd64".into(),
        expires: Timestamp(i64::MAX),
        boot: Some(TicketBoot {
            image: Image {
                name: "debian/bookworm/amd64/tiny".into(),
                arch: "amd64".into(),
                kernel: body,
                initrd: body,
                squashfs: None,
                kernel_params: String::new(),
            },
            kernel_opts: String::new(),
            key: NodeKey { consumer_key: "c".into(), token_key: "t".into(), token_secret: Secret::new(CANARY.into()) },
            user_data: body,
            scripts: Vec::new(),
            ssh_keys: Vec::new(),
            stay_on: false,
        }),
    }
}

pub(crate) fn update(base: Option<u64>, generation: u64) -> PlanUpdate {
    PlanUpdate::empty(base.map(Generation), Generation(generation))
}

fn reservation(last: u8) -> Reservation {
    Reservation {
        subnet: SubnetId(1),
        mac: format!("52:54:00:77:00:{last:02x}").parse().unwrap(),
        ip: [10, 77, 0, last].into(),
        hostname: None,
    }
}

fn order() -> Box<Order> {
    Box::new(Order {
        machine: machine(),
        attempt: AttemptId(1),
        hostname: "fox".into(),
        action: PowerAction::On,
        access: PowerAccess {
            power_type: PowerType::Ipmi,
            params: [("power_address".to_owned(), "127.77.1.1".to_owned())].into(),
            secrets: [("power_pass".to_owned(), Secret::new(CANARY.to_owned()))].into(),
        },
        deadline: Timestamp(1_000_000_000),
    })
}

/// Whether any file under `dir` holds the canary in plain.
fn leaks(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().filter(|e| e.path().is_file()).any(|e| {
        let bytes = std::fs::read(e.path()).unwrap();
        bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes())
    })
}

#[tokio::test]
async fn plans_come_back_as_they_were_applied_and_secrets_lie_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let mut first = update(None, 1);
    first.settings = Some(PlanSettings { domain: "lab".into(), ..PlanSettings::default() });
    first.tickets.put = vec![ticket("abc234", 1), ticket("abc235", 1)];
    first.reservations.put = (1..=9).map(reservation).collect();
    state.apply(&first).await.unwrap();
    let mut second = update(Some(1), 2);
    second.tickets.put = vec![ticket("abc234", 2)];
    second.tickets.remove = vec!["abc235".parse().unwrap()];
    second.reservations.remove = vec![reservation(3).mac];
    state.apply(&second).await.unwrap();
    let check = |plan: &Plan| {
        assert_eq!(plan.generation, Generation(2));
        assert_eq!(plan.settings.domain, "lab", "what an update does not name stays");
        assert_eq!(plan.tickets, [ticket("abc234", 2)]);
        assert_eq!(plan.reservations.len(), 8);
    };
    check(&state.plan().unwrap());
    state.close().await;
    drop(state);
    assert!(!leaks(dir.path()));
    let state = open(dir.path());
    check(&state.plan().unwrap());
    // A whole plan replaces everything.
    state.apply(&update(None, 3)).await.unwrap();
    let empty = Plan {
        generation: Generation(3),
        settings: PlanSettings { domain: "lab".into(), ..PlanSettings::default() },
        ..Plan::default()
    };
    assert_eq!(state.plan().unwrap().tickets, empty.tickets);
    assert!(state.plan().unwrap().reservations.is_empty());
}

#[tokio::test]
async fn an_errand_and_its_facts_are_durable_together() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(dir.path());
    let step = Errand::idle(machine()).step(&ErrandEvent::Ordered { order: order() }, Timestamp(5));
    let errand = step.next.unwrap();
    state.keep_errand(&errand, vec![report(Fact::OrderAccepted)]).await.unwrap();
    state.close().await;
    drop(state);
    assert!(!leaks(dir.path()));
    let state = open(dir.path());
    assert_eq!(state.errands().unwrap(), [errand]);
    let waiting = state.reports_after(ReportSeq(0), usize::MAX).unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].0, waiting[0].1.seq, &waiting[0].1.fact), (TraceId(7), ReportSeq(1), &Fact::OrderAccepted));
}

#[tokio::test]
async fn the_outbox_keeps_its_bound_and_its_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), OutboxLimits { reports: 10, bytes: 1 << 20 }).unwrap();
    for i in 0..30 {
        state.report(vec![report(if i % 3 == 0 { Fact::TicketHeld } else { Fact::Heartbeat })]).await.unwrap();
    }
    let counts = *state.outbox().borrow();
    assert_eq!((counts.last, counts.waiting, counts.dropped), (ReportSeq(30), 10, 20));
    let waiting = state.reports_after(ReportSeq(0), usize::MAX).unwrap();
    assert!(waiting.iter().all(|(_, r)| r.fact == Fact::TicketHeld), "heartbeats go first");
    // What is acknowledged leaves the disk with the next write, before anything is dropped to make room,
    state.acked(ReportSeq(20)).await.unwrap();
    state.report(vec![report(Fact::Heartbeat)]).await.unwrap();
    assert!(state.reports_after(ReportSeq(0), usize::MAX).unwrap().iter().all(|(_, r)| r.seq > ReportSeq(20)));
    assert_eq!(state.outbox().borrow().dropped, 20);
    // or by itself a little later.
    state.acked(ReportSeq(31)).await.unwrap();
    let (mut outbox, patience) = (state.outbox(), Duration::from_secs(60));
    tokio::time::timeout(patience, outbox.wait_for(|counts| counts.waiting == 0)).await.unwrap().unwrap();
    assert_eq!(state.reports_after(ReportSeq(0), usize::MAX).unwrap(), []);
    // Numbers are not used twice, not even when everything was acknowledged before a restart.
    state.close().await;
    drop(state);
    let state = open(dir.path());
    state.report(vec![report(Fact::TicketHeld)]).await.unwrap();
    assert_eq!(state.outbox().borrow().last, ReportSeq(32));
    // A region that knows more: what waits gets numbers above.
    state.number_above(ReportSeq(99)).await.unwrap();
    let waiting = state.reports_after(ReportSeq(0), usize::MAX).unwrap();
    assert_eq!(waiting.iter().map(|(_, r)| r.seq.0).collect::<Vec<_>>(), [100]);
}

#[tokio::test]
async fn a_directory_serves_one_rack_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    assert!(matches!(State::open(dir.path(), OutboxLimits::default()), Err(StateError::InUse { .. })));
}

/// Not a test: what the next one kills.
#[tokio::test]
async fn child_that_writes_until_killed() {
    let Ok(dir) = std::env::var("HOSTLER_TEST_STATE") else { return };
    let state = open(Path::new(&dir));
    let mut first = update(None, 1);
    first.tickets.put = vec![ticket("abc234", 1)];
    state.apply(&first).await.unwrap();
    let step = Errand::idle(machine()).step(&ErrandEvent::Ordered { order: order() }, Timestamp(5));
    state.keep_errand(&step.next.unwrap(), Vec::new()).await.unwrap();
    loop {
        state.report(vec![report(Fact::TicketHeld)]).await.unwrap();
        println!("durable {}", state.outbox().borrow().last);
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "state::child_that_writes_until_killed", "--nocapture"])
        .env("HOSTLER_TEST_STATE", dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut durable = 0;
    for line in lines.map_while(Result::ok) {
        if let Some(seq) = line.split("durable ").nth(1) {
            durable = seq.trim().parse().unwrap();
        }
        if durable == 200 {
            child.kill().unwrap(); // SIGKILL
        }
    }
    child.wait().unwrap();
    assert!(durable >= 200);
    let state = open(dir.path());
    assert_eq!(state.plan().unwrap().tickets, [ticket("abc234", 1)]);
    assert!(state.errands().unwrap()[0].order.is_some());
    let seqs: Vec<_> = state.reports_after(ReportSeq(0), usize::MAX).unwrap().iter().map(|(_, r)| r.seq.0).collect();
    assert!(seqs.len() as u64 >= durable);
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
}
