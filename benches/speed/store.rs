//! How many state transitions a second the store makes durable, gathered and one by one, on both databases. Prints a table.
//!
//! Hypothesis: with 64 actors waiting, one commit for all of them beats a commit for each by about ten, and on PostgreSQL
//! it beats 64 clients with a row each (pgbench, prepared statements) by 1.5 at least.
//! Run: `cargo bench -p benches --bench store [-- SECONDS]`. A transition is an UPDATE of an actor's row guarded by its generation,
//! and one row of the journal; a machine's step adds the row of the read model and a line of history.

use std::{error::Error, fs, os::unix::fs::PermissionsExt, path::Path, thread, time::Duration};

use actors::{clock::tick, core::TraceId, machine::Machine};
use region::{
    store::{Change, Store, Tuning, Write},
    testing::Postgres,
};
use schema::{
    id::{Generation, SystemId},
    projection::{EventLine, Level, Projection},
    time::Timestamp,
};

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Actors in the database; each of those who wait steps some of them in turn.
const ACTORS: usize = 10_240;
/// Bytes of a state: what a machine's has in the middle of its commissioning, about.
const STATE: usize = 2_048;

/// How one row of the table is made.
#[derive(Clone, Copy)]
struct Plan {
    /// The actors' kind: each plan has actors of its own.
    kind: &'static str,
    label: &'static str,
    waiting: usize,
    batch: usize,
    machine: bool,
}

const PLANS: [Plan; 4] = [
    Plan { kind: "bench0", label: "1 waits, one by one", waiting: 1, batch: 1, machine: false },
    Plan { kind: "bench1", label: "64 wait, one by one", waiting: 64, batch: 1, machine: false },
    Plan { kind: "bench2", label: "64 wait, gathered", waiting: 64, batch: 256, machine: false },
    Plan { kind: "bench3", label: "64 wait, gathered, machine's step", waiting: 64, batch: 256, machine: true },
];

struct Row {
    database: &'static str,
    label: String,
    per_second: f64,
    p50_ms: f64,
    p99_ms: Option<f64>,
    server_us: Option<f64>,
}

fn main() -> Fallible<()> {
    let seconds: u64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(5);
    let span = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();

    let dir = tempfile::tempdir()?;
    let url = format!("sqlite:{}", dir.path().join("region.db").display());
    for plan in PLANS {
        rows.push(runtime.block_on(measure("SQLite, FULL", &url, plan, span, None))?);
    }
    let server = Postgres::start(true)?;
    let url = server.database()?;
    drop(Store::open(&url)?);
    peer_rows(&server, &url)?;
    rows.push(peer(&server, &url, seconds, dir.path())?);
    for plan in PLANS {
        rows.push(runtime.block_on(measure("PostgreSQL, on", &url, plan, span, Some(&server)))?);
    }
    // Once more at the end, since the machine's other load comes and goes.
    rows.push(peer(&server, &url, seconds, dir.path())?);
    print(&rows, seconds);
    Ok(())
}

fn print(rows: &[Row], seconds: u64) {
    let cores = thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{ACTORS} actors, {STATE} bytes of state, {seconds} s a row, {cores} cores, load {}", load.trim());
    println!("| database | | transitions/s | p50 ms | p99 ms | server CPU us |");
    println!("|---|---|--:|--:|--:|--:|");
    for row in rows {
        let cpu = row.server_us.map_or_else(|| "-".into(), |us| format!("{us:.0}"));
        let p99 = row.p99_ms.map_or_else(|| "-".into(), |ms| format!("{ms:.2}"));
        let (database, label) = (row.database, &row.label);
        println!("| {database} | {label} | {:.0} | {:.2} | {p99} | {cpu} |", row.per_second, row.p50_ms);
    }
}

fn system_id(n: usize) -> SystemId {
    let digit = |place: u32| u8::try_from(n / 24_usize.pow(place) % 24).unwrap_or(0);
    SystemId::from_draws([0, 0, digit(3), digit(2), digit(1), digit(0)])
}

fn write(plan: Plan, n: usize, generation: u64) -> Write {
    let id = system_id(n);
    let at = actors::clock::now();
    let projections = if plan.machine {
        let mut row = Machine::absent(id);
        row.spec.hostname = format!("host-{id}");
        let line = EventLine {
            at,
            level: Level::Info,
            event_type: "GATHERING_INFO".into(),
            description: "a step of the bench".into(),
            by: None,
        };
        vec![Change::Machine(Box::new(row)), Change::Of(id, Projection::Event(line))]
    } else {
        Vec::new()
    };
    Write {
        kind: plan.kind,
        id: id.to_string(),
        generation: Generation(generation),
        state: "s".repeat(STATE),
        event: "e".repeat(200),
        verdict: r#"{"verdict":"moved"}"#.into(),
        trace: TraceId(1),
        at,
        deadline: Some(Timestamp(at.0 + 1)),
        projections,
    }
}

/// The first generation of every actor of the plan.
async fn populate(store: &Store, plan: Plan) -> Fallible<()> {
    let first = |n| {
        let store = store.clone();
        async move { store.commit(write(plan, n, 0)).await }
    };
    for made in (0..ACTORS).map(|n| tokio::spawn(first(n))).collect::<Vec<_>>() {
        made.await??;
    }
    Ok(())
}

/// Each of those who wait steps its own actors in turn.
async fn measure(
    database: &'static str,
    url: &str,
    plan: Plan,
    span: Duration,
    server: Option<&Postgres>,
) -> Fallible<Row> {
    populate(&Store::open(url)?, plan).await?;
    let store = Store::open_with(url, Tuning { batch: plan.batch, ..Tuning::default() })?;
    let (cpu, began) = (server.map(cpu_us), tick());
    let worker = |w: usize| {
        let store = store.clone();
        async move {
            let mut took = Vec::new();
            for generation in 1.. {
                for n in (w..ACTORS).step_by(plan.waiting) {
                    let now = tick();
                    if now.duration_since(began) > span {
                        return Ok(took);
                    }
                    store.commit(write(plan, n, generation)).await?;
                    took.push(now.elapsed());
                }
            }
            Ok::<_, region::store::StoreError>(took)
        }
    };
    let mut took = Vec::new();
    for worker in (0..plan.waiting).map(|w| tokio::spawn(worker(w))).collect::<Vec<_>>() {
        took.extend(worker.await??);
    }
    let elapsed = began.elapsed();
    let server_us = server.zip(cpu).map(|(server, before)| (cpu_us(server) - before) / took.len() as f64);
    took.sort_unstable();
    let at = |share: f64| {
        let place = (took.len() as f64 * share) as usize;
        took.get(place.min(took.len().saturating_sub(1))).map_or(0.0, |t| t.as_secs_f64() * 1_000.0)
    };
    let per_second = took.len() as f64 / elapsed.as_secs_f64();
    Ok(Row { database, label: plan.label.into(), per_second, p50_ms: at(0.5), p99_ms: Some(at(0.99)), server_us })
}

/// As many actors for pgbench, named by number.
fn peer_rows(server: &Postgres, url: &str) -> Fallible<()> {
    let sql = format!(
        "INSERT INTO actors SELECT 'peer', n::text, 1, repeat('s', {STATE}), NULL, 1 FROM generate_series(1, {ACTORS}) n; ANALYZE actors"
    );
    let done = server.client("psql", url).args(["-q", "-c", &sql]).status()?;
    if done.success() { Ok(()) } else { Err("psql could not fill the table".into()) }
}

/// The peer: 64 clients, each with a connection, a transaction and a row of its own.
fn peer(server: &Postgres, url: &str, seconds: u64, dir: &Path) -> Fallible<Row> {
    let script = dir.join("step.sql");
    fs::write(
        &script,
        format!(
            "\\set m random(1, {ACTORS})\n\
             WITH u AS (UPDATE actors SET generation = generation + 1, state = repeat('t', {STATE}), updated = 2 \
             WHERE kind = 'peer' AND id = (:m)::int::text RETURNING *) \
             INSERT INTO journal (kind, id, generation, event, state, verdict, trace, at) \
             SELECT kind, id, generation, repeat('e', 200), state, 'v', 't', updated FROM u;\n"
        ),
    )?;
    // The server's user must read it.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let before = cpu_us(server);
    let mut pgbench = server.client("pgbench", url);
    pgbench.args(["-n", "-M", "prepared", "-c", "64", "-j", "2", "-T", &seconds.to_string(), "-f"]).arg(&script);
    let out = pgbench.output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let number = |key: &str| -> Option<f64> { text.split_once(key)?.1.split_whitespace().next()?.parse().ok() };
    let (Some(per_second), Some(average)) = (number("tps = "), number("latency average = ")) else {
        return Err(format!("pgbench: {text}{}", String::from_utf8_lossy(&out.stderr)).into());
    };
    let server_us = Some((cpu_us(server) - before) / (per_second * seconds as f64));
    let label = "64 clients, a row each (pgbench; p50: mean)".into();
    Ok(Row { database: "PostgreSQL, on", label, per_second, p50_ms: average, p99_ms: None, server_us })
}

/// Microseconds of CPU that the server and its children have used so far.
fn cpu_us(server: &Postgres) -> f64 {
    let Some(pid) = server.pid() else { return 0.0 };
    let used = |stat: String| -> Option<(u32, f64)> {
        // The name in parentheses may hold spaces; fields are counted from behind it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 = fields[11..15].iter().filter_map(|f| f.parse::<f64>().ok()).sum();
        Some((fields[1].parse().ok()?, ticks * 10_000.0))
    };
    let Ok(processes) = fs::read_dir("/proc") else { return 0.0 };
    processes
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let this: u32 = path.file_name()?.to_str()?.parse().ok()?;
            let (parent, us) = used(fs::read_to_string(path.join("stat")).ok()?)?;
            (this == pid || parent == pid).then_some(us)
        })
        .sum()
}
