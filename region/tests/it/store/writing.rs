//! Cases of writing: what one transaction holds, and what spoils it.

use actors::machine::{Life, Machine};
use diesel::{Connection, PgConnection, QueryDsl, RunQueryDsl, SqliteConnection, connection::SimpleConnection};
use diesel_migrations::MigrationHarness;
use futures_util::future::join_all;
use region::store::{Change, Db, StoreError, ids, queries, revert_migrations};
use schema::{
    hardware::HardwareReport,
    id::{Generation, SystemId},
    projection::{EventLine, Level, Projection},
    tables,
    time::Timestamp,
};

use super::{Empty, step};

/// A machine that was created, with one interface.
pub(crate) fn machine(id: &str) -> Machine {
    let mut machine = Machine::absent(id.parse().unwrap());
    machine.life = Life::Present;
    machine.spec.hostname = format!("host-{id}");
    machine.spec.architecture = "amd64/generic".into();
    machine.spec.macs = vec![mac(id)];
    machine
}

/// An address made of the id.
pub(crate) fn mac(id: &str) -> schema::net::MacAddr {
    let bytes: [u8; 6] = id.as_bytes().try_into().unwrap();
    schema::net::MacAddr(bytes.map(|b| b & 0xfe))
}

pub(crate) fn line(description: &str) -> EventLine {
    EventLine {
        at: Timestamp::from_seconds(1_800_000_000),
        level: Level::Info,
        event_type: "READY".into(),
        description: description.into(),
        by: None,
    }
}

fn id(text: &str) -> SystemId {
    text.parse().unwrap()
}

pub(crate) async fn a_step_is_its_state_its_journal_row_and_its_projections(empty: Empty<'_>) {
    let store = empty.open();
    let created = machine("aaaaaa");
    let changes = vec![Change::Machine(Box::new(created)), Change::Of(id("aaaaaa"), Projection::Event(line("made")))];
    let mut write = step("aaaaaa", 0, changes);
    write.deadline = Some(Timestamp(42));
    store.commit(write).await.unwrap();
    store.commit(step("aaaaaa", 1, vec![])).await.unwrap();

    let (state, generation) = store.read(|db| queries::load_actor(db, "test", "aaaaaa")).await.unwrap().unwrap();
    assert_eq!((state.as_str(), generation), (r#"{"steps":2}"#, Generation(2)));
    assert_eq!(store.read(|db| queries::load_actor(db, "other", "aaaaaa")).await.unwrap(), None);
    assert_eq!(store.read(|db| queries::actor_ids(db, "test")).await.unwrap(), ["aaaaaa"]);
    let steps = store.read(|db| queries::journal_of(db, "test", "aaaaaa", None, 10)).await.unwrap();
    assert_eq!(steps.iter().map(|s| s.generation.0).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(steps[0].trace, format!("{:032x}", 7));
    let older = steps[0].seq;
    let older = store.read(move |db| queries::journal_of(db, "test", "aaaaaa", Some(older), 10)).await.unwrap();
    assert_eq!(older, steps[1..]);
    assert_eq!(store.read(queries::journal_size).await.unwrap().0, 2);

    let record = store.read(|db| queries::machine_record(db, id("aaaaaa"))).await.unwrap().unwrap();
    assert_eq!(record.machine.hostname, "host-aaaaaa");
    assert_eq!(record.interfaces.iter().map(|i| i.hardware.mac).collect::<Vec<_>>(), [mac("aaaaaa")]);
    assert_eq!(store.read(|db| queries::events(db, &queries::EventFilter::default())).await.unwrap().len(), 1);
}

pub(crate) async fn a_stale_write_is_refused_and_spoils_no_other(empty: Empty<'_>) {
    let store = empty.open();
    for name in ["a", "b", "c"] {
        store.commit(step(name, 0, vec![])).await.unwrap();
    }
    // Gathered into one commit as like as not; the outcome must not depend on it.
    for round in 0..20 {
        let writes = [
            step("a", round + 1, vec![]),
            step("b", round + 7, vec![]),
            step("c", round + 1, vec![]),
            step("a", 0, vec![]),
        ];
        let ends = join_all(writes.into_iter().map(|write| store.commit(write))).await;
        assert_eq!(ends[0], Ok(()));
        assert_eq!(ends[1], Err(StoreError::Stale { kind: "test", id: "b".into(), expected: Generation(round + 7) }));
        assert_eq!(ends[2], Ok(()));
        assert!(matches!(ends[3], Err(StoreError::Stale { .. })));
    }
    let (_, generation) = store.read(|db| queries::load_actor(db, "test", "b")).await.unwrap().unwrap();
    assert_eq!(generation, Generation(1));
}

pub(crate) async fn what_the_database_refuses_spoils_no_other(empty: Empty<'_>) {
    let store = empty.open();
    for round in 0..20 {
        // Hardware of a machine that does not exist breaks a foreign key.
        let bad = vec![Change::Of(id("zzzzzz"), Projection::Hardware(HardwareReport::default().into()))];
        let writes = [step("a", round, vec![]), step("b", 0, bad), step("c", round, vec![])];
        let ends = join_all(writes.into_iter().map(|write| store.commit(write))).await;
        assert_eq!((&ends[0], &ends[2]), (&Ok(()), &Ok(())));
        let Err(StoreError::Refused { what, why }) = &ends[1] else { panic!("{:?}", ends[1]) };
        assert!(what.contains("test b") && why.to_lowercase().contains("foreign key"), "{what}: {why}");
    }
    assert_eq!(store.read(|db| queries::load_actor(db, "test", "b")).await.unwrap(), None);
    assert_eq!(store.read(|db| queries::journal_of(db, "test", "b", None, 9)).await.unwrap(), []);
}

pub(crate) async fn nul_characters_are_replaced_and_stop_nobody(empty: Empty<'_>) {
    let store = empty.open();
    let mut odd = machine("aaaaaa");
    odd.error = "a\0b".into();
    let changes = vec![Change::Machine(Box::new(odd)), Change::Of(id("aaaaaa"), Projection::Event(line("x\0y")))];
    store.commit(step("aaaaaa", 0, changes)).await.unwrap();
    let record = store.read(|db| queries::machine_record(db, id("aaaaaa"))).await.unwrap().unwrap();
    assert_eq!(record.machine.error, "a\u{fffd}b");
}

pub(crate) async fn ids_are_given_out_once(empty: Empty<'_>) {
    let store = empty.open();
    let firsts = join_all((0..50).map(|_| store.allot(ids::RESULT, 3))).await;
    let mut firsts: Vec<i64> = firsts.into_iter().map(Result::unwrap).collect();
    firsts.sort_unstable();
    assert_eq!(firsts, (0..50).map(|n| 1 + 3 * n).collect::<Vec<_>>());
    drop(store);
    assert_eq!(empty.open().allot(ids::RESULT, 1).await, Ok(151));
    assert_eq!(empty.open().allot("other", 1).await, Ok(1));
}

pub(crate) async fn the_journal_is_pruned_by_age_and_the_actors_stay(empty: Empty<'_>) {
    let store = empty.open();
    for generation in 0..100 {
        store.commit(step("a", generation, vec![])).await.unwrap();
    }
    let before = Timestamp::from_seconds(1_800_000_060);
    assert_eq!(store.prune_journal(before).await.unwrap(), 60);
    assert_eq!(store.prune_journal(before).await.unwrap(), 0);
    let steps = store.read(|db| queries::journal_of(db, "test", "a", None, 1_000)).await.unwrap();
    assert_eq!(steps.last().map(|s| s.generation), Some(Generation(61)));
    assert_eq!(steps.len(), 40);
    let state = async |id| store.read(move |db| queries::load_actor(db, "test", id)).await.unwrap();
    assert_eq!(state("a").await, Some((r#"{"steps":100}"#.into(), Generation(100))));

    // One that sleeps for longer than the journal is kept goes on from where it was.
    let later = Timestamp::from_seconds(1_900_000_000);
    assert_eq!(store.prune_journal(later).await.unwrap(), 40);
    assert_eq!(state("a").await, Some((r#"{"steps":100}"#.into(), Generation(100))));
    store.commit(step("a", 100, vec![])).await.unwrap();
    assert_eq!(state("a").await, Some((r#"{"steps":101}"#.into(), Generation(101))));
    assert_eq!(store.prune_journal(later).await.unwrap(), 1);
    assert_eq!(state("a").await, Some((r#"{"steps":101}"#.into(), Generation(101))));
}

pub(crate) async fn a_deleted_machine_takes_its_rows_and_secrets_along(empty: Empty<'_>) {
    let store = empty.open();
    let secret = |owner: &str| Change::Secret { owner: owner.into(), name: "power/power_pass".into(), sealed: vec![1] };
    for name in ["aaaaaa", "bbbbbb"] {
        let changes = vec![
            Change::Machine(Box::new(machine(name))),
            Change::Of(id(name), Projection::Hardware(HardwareReport::default().into())),
            Change::Of(id(name), Projection::Event(line("made"))),
            secret(name),
        ];
        store.commit(step(name, 0, changes)).await.unwrap();
    }
    let gone = vec![Change::Machine(Box::new(machine("aaaaaa"))), Change::MachineDeleted(id("aaaaaa"))];
    store.commit(step("aaaaaa", 1, gone)).await.unwrap();
    let left = store.read(|db| queries::machine_records(db, &queries::MachineFilter::default())).await.unwrap();
    assert_eq!(left.iter().map(|r| r.machine.system_id).collect::<Vec<_>>(), [id("bbbbbb")]);
    assert!(left[0].hardware.is_some());
    let (interfaces, secrets): (i64, Vec<String>) = store
        .read(|db| {
            let hardware = tables::hardware::table.count().get_result::<i64>(db)?;
            Ok((hardware, tables::secrets::table.select(tables::secrets::owner).load(db)?))
        })
        .await
        .unwrap();
    assert_eq!((interfaces, secrets), (1, vec!["bbbbbb".to_owned()]));
    assert_eq!(store.read(|db| queries::events(db, &queries::EventFilter::default())).await.unwrap().len(), 2);
}

/// A connection that no store made.
fn bare(url: &str) -> Db {
    match url.strip_prefix("sqlite:") {
        Some(path) => {
            let mut conn = SqliteConnection::establish(path).unwrap();
            // The store that was dropped may still be closing.
            conn.batch_execute("PRAGMA busy_timeout = 5000").unwrap();
            Db::Sqlite(conn)
        }
        None => Db::Postgres(PgConnection::establish(url).unwrap()),
    }
}

pub(crate) async fn migrations_go_down_and_up_again(empty: Empty<'_>) {
    for _ in 0..2 {
        let store = empty.open();
        store.commit(step("a", 0, vec![Change::Machine(Box::new(machine("aaaaaa")))])).await.unwrap();
        drop(store);
        let mut db = bare(&empty.url);
        revert_migrations(&mut db).unwrap();
        // Nothing is left but the list of migrations, which is empty.
        assert!(tables::actors::table.count().get_result::<i64>(&mut db).is_err());
        assert!(tables::machines::table.count().get_result::<i64>(&mut db).is_err());
    }
}

pub(crate) async fn a_state_that_is_nowhere_is_an_error_that_says_so(empty: Empty<'_>) {
    let store = empty.open();
    store.commit(step("a", 0, vec![])).await.unwrap();
    diesel::delete(tables::journal::table).execute(&mut bare(&empty.url)).unwrap();
    let error = store.read(|db| queries::load_actor(db, "test", "a")).await.unwrap_err().to_string();
    assert!(error.contains("test a has no state") && error.contains("from a backup"), "{error}");
}

/// Before the newest migration states stood in the actors' rows, and were never dropped from there.
pub(crate) async fn states_survive_the_newest_migration(empty: Empty<'_>) {
    let store = empty.open();
    store.commit(step("b", 0, vec![])).await.unwrap();
    assert_eq!(store.prune_journal(Timestamp::from_seconds(1_900_000_000)).await.unwrap(), 1);
    store.commit(step("a", 0, vec![])).await.unwrap();
    store.commit(step("a", 1, vec![])).await.unwrap();
    drop(store);

    let mut db = bare(&empty.url);
    match &mut db {
        Db::Sqlite(conn) => conn.revert_last_migration(tables::SQLITE_MIGRATIONS).map(drop),
        Db::Postgres(conn) => conn.revert_last_migration(tables::POSTGRES_MIGRATIONS).map(drop),
    }
    .unwrap();
    let states = tables::actors::table.order(tables::actors::id).select(tables::actors::state);
    let (first, second) = (r#"{"steps":2}"#.to_owned(), r#"{"steps":1}"#.to_owned());
    assert_eq!(states.load::<Option<String>>(&mut db).unwrap(), [Some(first.clone()), Some(second)]);
    drop(db);

    let store = empty.open();
    store.commit(step("b", 1, vec![])).await.unwrap();
    let (a, b) = store
        .read(|db| Ok((queries::load_actor(db, "test", "a")?, queries::load_actor(db, "test", "b")?)))
        .await
        .unwrap();
    assert_eq!((a, b), (Some((first.clone(), Generation(2))), Some((first, Generation(2)))));
}

pub(crate) async fn a_newer_database_is_left_alone(empty: Empty<'_>) {
    drop(empty.open());
    bare(&empty.url)
        .batch_execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')")
        .unwrap();
    let err = region::store::Store::open(&empty.url).err().unwrap();
    assert!(err.to_string().contains("newer hostler (migration 29991231000000)"), "{err}");
}
