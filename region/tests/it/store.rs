//! The store's suite: each case runs on SQLite and on PostgreSQL, on an empty database of its own.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use actors::core::TraceId;
use futures_util::future::join_all;
use region::{
    store::{Change, Store, StoreError, Tuning, Write, ids, queries},
    testing::Postgres,
};
use schema::{id::Generation, time::Timestamp};

mod concurrency;
mod locks;
mod reading;
mod secrets;
mod writing;

/// An empty database: its address, and a directory for files beside it.
pub(crate) struct Empty<'a> {
    pub(crate) url: String,
    pub(crate) dir: &'a Path,
}

impl Empty<'_> {
    pub(crate) fn open(&self) -> Store {
        Store::open(&self.url).unwrap()
    }
}

macro_rules! suite {
    ($($module:ident :: $case:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let dir = tempfile::tempdir().unwrap();
                    let url = format!("sqlite:{}", dir.path().join("region.db").display());
                    super::$module::$case(super::Empty { url, dir: dir.path() }).await;
                }
            )*
        }

        mod peers_postgres {
            /// One server for all cases, a database for each.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn the_same_suite() {
                let Some(server) = super::server() else { return };
                $({
                    eprintln!("{}", stringify!($case));
                    let dir = tempfile::tempdir().unwrap();
                    let url = server.database().unwrap();
                    super::$module::$case(super::Empty { url, dir: dir.path() }).await;
                })*
            }
        }
    };
}

suite! {
    writing::a_step_is_its_state_its_journal_row_and_its_projections,
    writing::a_stale_write_is_refused_and_spoils_no_other,
    writing::what_the_database_refuses_spoils_no_other,
    writing::nul_characters_are_replaced_and_stop_nobody,
    writing::ids_are_given_out_once,
    writing::the_journal_is_pruned_by_age_and_the_actors_stay,
    writing::a_deleted_machine_takes_its_rows_and_secrets_along,
    writing::migrations_go_down_and_up_again,
    writing::a_state_that_is_nowhere_is_an_error_that_says_so,
    writing::states_survive_the_newest_migration,
    writing::a_newer_database_is_left_alone,
    reading::hardware_is_replaced_and_what_stays_keeps_its_id,
    reading::script_results_move_from_pending_to_their_end,
    reading::machines_are_found_by_each_filter,
    reading::events_come_in_pages_newest_first,
    reading::the_lease_granted_last_stands,
    reading::reports_seen_only_rise,
    reading::deadlines_come_earliest_first,
    secrets::secrets_open_only_with_their_key,
    concurrency::two_writers_never_lose_or_double_a_generation,
    concurrency::steps_of_one_actor_keep_their_order_within_a_gathering,
}

/// A PostgreSQL server, or `None` where the caller allows to do without.
fn server() -> Option<Postgres> {
    match Postgres::start(false) {
        Ok(server) => Some(server),
        Err(err) if std::env::var_os("HOSTLER_TEST_SKIP").is_some_and(|v| v == "1") => {
            println!("SKIPPED: {err}");
            None
        }
        Err(err) => panic!("{err}"),
    }
}

/// A step of a test's actor.
pub(crate) fn step(id: &str, generation: u64, projections: Vec<Change>) -> Write {
    Write {
        kind: "test",
        id: id.into(),
        generation: Generation(generation),
        state: format!(r#"{{"steps":{}}}"#, generation + 1),
        event: r#"{"event":"stepped"}"#.into(),
        verdict: r#"{"verdict":"moved"}"#.into(),
        trace: TraceId(7),
        at: Timestamp::from_seconds(1_800_000_000 + i64::try_from(generation).unwrap()),
        deadline: None,
        projections,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_directories_that_lead_nowhere_say_what_to_do() {
    let text = |url: &str| Store::open(url).err().unwrap().to_string();
    assert!(text("mysql://root:geheim@h/db").contains("write sqlite:PATH or postgres://"));
    assert!(!text("mysql://root:geheim@h/db").contains("geheim"));
    let nowhere = text("sqlite:/nonexistent/region.db");
    assert!(nowhere.contains("/nonexistent/region.db") && nowhere.contains("check that the directory exists"));
    let dead = text("postgres://u:geheim@/d?host=/nonexistent");
    assert!(dead.contains("/nonexistent") && dead.contains("check that the server runs"), "{dead}");
    assert!(!dead.contains("geheim"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("region.db");
    let store = Store::open(&format!("sqlite:{}", file.display())).unwrap();
    store.commit(step("a", 0, vec![])).await.unwrap();
    for name in ["region.db", "region.db-wal", "region.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

mod peers_postgres_lost {
    use super::*;

    /// A write that meets a server that is away waits for it; one whose patience ends says so and wrote nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lost_connection_is_made_again_and_patience_has_an_end() {
        let Some(server) = server() else { return };
        let tuning = Tuning { patience: Duration::from_millis(1_500), ..Tuning::default() };
        let store = Store::open_with(&server.database().unwrap(), tuning).unwrap();
        store.commit(step("a", 0, vec![])).await.unwrap();
        assert!(store.read(|db| queries::load_actor(db, "test", "a")).await.unwrap().is_some());

        server.stop();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.commit(step("a", 1, vec![])).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!waiting.is_finished());
        server.resume().unwrap();
        waiting.await.unwrap().unwrap();

        server.stop();
        let refused = store.commit(step("a", 2, vec![])).await;
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
        server.resume().unwrap();
        let (_, generation) = store.read(|db| queries::load_actor(db, "test", "a")).await.unwrap().unwrap();
        assert_eq!(generation, Generation(2));
        store.commit(step("a", 2, vec![])).await.unwrap();
        assert_eq!(store.read(|db| queries::journal_of(db, "test", "a", None, 10)).await.unwrap().len(), 3);
    }
}

/// The database for the child of the kill test; without it the child has nothing to do.
const CHILD: &str = "HOSTLER_STORE_CHILD";

/// Not a test by itself: what the kill test runs as a process of its own, and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let Some(url) = std::env::var_os(CHILD) else { return };
    let store = Store::open(url.to_str().unwrap()).unwrap();
    let actor = |n: usize| {
        let store = store.clone();
        async move {
            for generation in 0.. {
                store.commit(step(&format!("a{n}"), generation, vec![])).await.unwrap();
                println!("acknowledged a{n} {}", generation + 1);
            }
        }
    };
    join_all((0..16).map(actor)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_acknowledged_commit() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("region.db").display());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, &url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = std::collections::HashMap::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = |line: String| {
        // The test harness writes on the same lines.
        let said = line.split_once("acknowledged ").and_then(|(_, said)| said.split_once(' '));
        if let Some((actor, generation)) = said.and_then(|(a, g)| Some((a, g.parse::<u64>().ok()?))) {
            acknowledged.insert(actor.to_owned(), generation);
        }
    };
    for line in lines.by_ref().map_while(Result::ok).take(2_000) {
        read(line);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said before it died counts too; of a torn last line, what is left of the number claims less.
    for line in lines.map_while(Result::ok) {
        read(line);
    }
    assert_eq!(acknowledged.len(), 16);
    let store = Store::open(&url).unwrap();
    for (actor, generation) in acknowledged {
        let id = actor.clone();
        let (_, stored) = store.read(move |db| queries::load_actor(db, "test", &id)).await.unwrap().unwrap();
        assert!(stored.0 >= generation, "{actor}: acknowledged {generation}, found {stored}");
        let steps = store.read(move |db| queries::journal_of(db, "test", &actor, None, i64::MAX)).await.unwrap();
        let generations: BTreeSet<u64> = steps.iter().map(|step| step.generation.0).collect();
        assert_eq!(generations, (1..=stored.0).collect());
    }
    assert_eq!(store.allot(ids::RESULT, 1).await.unwrap(), 1);
}
