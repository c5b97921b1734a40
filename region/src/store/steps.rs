//! The statements of one commit: generation checks, journal rows, projections, counters. When to commit is the writer's business.

use ::actors::{clock, core::TraceId};
use diesel::{QueryResult, pg::PgConnection, prelude::*};
use schema::tables::{
    ActorRow, NewJournalRow, actors,
    columns::{Column, Row},
    counters, journal,
};

use super::{
    Db, Write,
    backend::each,
    projections,
    statement::Statement,
    writer::{Outcome, Refusal, Work},
};

/// Journal rows that one prune takes, so that steps wait little.
const PRUNE: i64 = 2_000;

/// Carries out the works in the open transaction: one outcome for each, in order.
///
/// # Errors
/// When the database refuses anything; then the transaction must be rolled back.
pub(super) fn apply(db: &mut Db, works: &[&Work], again: bool) -> QueryResult<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = works.iter().map(|_| Ok(0)).collect();
    let mut steps: Vec<(usize, &Write)> = Vec::new();
    for (n, work) in works.iter().enumerate() {
        if let Work::Step(write) = work
            && !(again && is_written(db, write)?)
        {
            steps.push((n, write));
        }
    }
    let moved = advance(db, &steps.iter().map(|(_, write)| *write).collect::<Vec<_>>())?;
    let mut changes = projections::Gathered::default();
    for ((n, write), moved) in steps.into_iter().zip(moved) {
        if moved {
            changes.add(&write.projections, write.at, write.trace, write.generation.0 == 0);
        } else {
            outcomes[n] = Err(Refusal::Stale);
        }
    }
    for (outcome, work) in outcomes.iter_mut().zip(works) {
        match work {
            Work::Step(_) => {}
            Work::Put(put) => changes.add(put, clock::now(), TraceId::default(), false),
            Work::Allot { name, count } => *outcome = Ok(allot(db, name, i64::from(*count))?),
            Work::Prune { before } => *outcome = Ok(prune(db, before.0)?),
        }
    }
    changes.write(db)?;
    Ok(outcomes)
}

/// Moves each actor's row on and writes its journal row, where the generation is the expected one. One answer for each.
fn advance(db: &mut Db, writes: &[&Write]) -> QueryResult<Vec<bool>> {
    match db {
        _ if writes.is_empty() => Ok(Vec::new()),
        Db::Sqlite(conn) => writes.iter().map(|write| advance_one(conn, write)).collect(),
        Db::Postgres(conn) => advance_all(conn, writes),
    }
}

/// SQLite is called, not asked over a socket: a prepared statement for each row is the fastest there is.
fn advance_one(conn: &mut SqliteConnection, write: &Write) -> QueryResult<bool> {
    let row = actor_row(write);
    let moved = if write.generation.0 == 0 {
        diesel::insert_into(actors::table).values(&row).on_conflict_do_nothing().execute(conn)?
    } else {
        diesel::update(
            actors::table
                .filter(actors::kind.eq(write.kind))
                .filter(actors::id.eq(&write.id))
                .filter(actors::generation.eq(row.generation - 1)),
        )
        .set((
            actors::generation.eq(row.generation),
            actors::state.eq(None::<String>),
            actors::deadline.eq(row.deadline),
            actors::updated.eq(row.updated),
        ))
        .execute(conn)?
    };
    if moved == 1 {
        diesel::insert_into(journal::table).values(journal_row(write)).execute(conn)?;
    }
    Ok(moved == 1)
}

fn actor_row(write: &Write) -> ActorRow {
    ActorRow {
        kind: write.kind.into(),
        id: write.id.clone(),
        generation: after(write),
        state: None,
        deadline: write.deadline.map(|at| at.0),
        updated: write.at.0,
    }
}

fn journal_row(write: &Write) -> NewJournalRow {
    NewJournalRow {
        kind: write.kind.into(),
        id: write.id.clone(),
        generation: after(write),
        event: write.event.clone(),
        state: write.state.clone(),
        verdict: write.verdict.clone(),
        trace: write.trace.to_string(),
        at: write.at.0,
    }
}

fn after(write: &Write) -> i64 {
    i64::try_from(write.generation.next().0).unwrap_or(i64::MAX)
}

/// PostgreSQL's cost is the round trip of a statement: one for all of them.
/// In the order of their keys, so that two regions never lock crosswise.
fn advance_all(conn: &mut PgConnection, writes: &[&Write]) -> QueryResult<Vec<bool>> {
    let rows: Vec<NewJournalRow> = writes.iter().map(|write| journal_row(write)).collect();
    let mut columns = NewJournalRow::columns(&rows);
    columns.push(Column::Numbers(writes.iter().map(|write| write.deadline.map(|at| at.0)).collect()));
    columns.push(Column::Numbers((0..).take(writes.len()).map(Some).collect()));
    let advance = Statement::new(
        "WITH step AS MATERIALIZED (SELECT * FROM ",
        columns,
        " AS s (kind, id, generation, event, state, verdict, trace, at, deadline, n) ORDER BY kind, id), \
         born AS (INSERT INTO actors (kind, id, generation, deadline, updated) \
           SELECT kind, id, generation, deadline, at FROM step WHERE generation = 1 \
           ON CONFLICT DO NOTHING RETURNING kind, id), \
         moved AS (UPDATE actors SET generation = step.generation, state = NULL, deadline = step.deadline, \
           updated = step.at FROM step WHERE step.generation > 1 AND actors.kind = step.kind AND actors.id = step.id \
           AND actors.generation = step.generation - 1 RETURNING actors.kind, actors.id), \
         done AS (SELECT step.* FROM step JOIN (SELECT * FROM born UNION ALL SELECT * FROM moved) AS m \
           ON m.kind = step.kind AND m.id = step.id), \
         told AS (INSERT INTO journal (kind, id, generation, event, state, verdict, trace, at) \
           SELECT kind, id, generation, event, state, verdict, trace, at FROM done ORDER BY n) \
         SELECT n FROM done",
    );
    let mut moved = vec![false; writes.len()];
    for n in advance.load::<i64>(conn)? {
        if let Some(moved) = usize::try_from(n).ok().and_then(|n| moved.get_mut(n)) {
            *moved = true;
        }
    }
    Ok(moved)
}

/// Whether exactly this step is in the journal: its commit came through although the answer was lost.
fn is_written(db: &mut Db, write: &Write) -> QueryResult<bool> {
    let found: Option<(String, String, i64)> = journal::table
        .filter(journal::kind.eq(write.kind))
        .filter(journal::id.eq(&write.id))
        .filter(journal::generation.eq(after(write)))
        .select((journal::event, journal::trace, journal::at))
        .first(db)
        .optional()?;
    Ok(found
        .is_some_and(|(event, trace, at)| event == write.event && trace == write.trace.to_string() && at == write.at.0))
}

/// Takes `count` ids and returns the first.
pub(super) fn allot(db: &mut Db, name: &str, count: i64) -> QueryResult<i64> {
    let next: i64 = each!(db, conn => diesel::insert_into(counters::table)
        .values((counters::name.eq(name), counters::next.eq(1 + count)))
        .on_conflict(counters::name)
        .do_update()
        .set(counters::next.eq(counters::next + count))
        .returning(counters::next)
        .get_result(conn)?);
    Ok(next - count)
}

/// Drops old steps. An actor's last one leaves its state behind, in the actor's row.
fn prune(db: &mut Db, before: i64) -> QueryResult<i64> {
    let last = actors::table.filter(
        actors::kind.eq(journal::kind).and(actors::id.eq(journal::id)).and(actors::generation.eq(journal::generation)),
    );
    // The numbers follow the times, near enough: only the oldest rows are looked at, without an index on times.
    let oldest: Vec<(i64, i64)> =
        journal::table.select((journal::seq, journal::at)).order(journal::seq).limit(PRUNE).load(db)?;
    let old: Vec<i64> = oldest.into_iter().filter(|(_, at)| *at < before).map(|(seq, _)| seq).collect();
    let kept: Vec<(String, String, i64, String)> = journal::table
        .filter(journal::seq.eq_any(&old))
        .filter(diesel::dsl::exists(last))
        .select((journal::kind, journal::id, journal::generation, journal::state))
        .load(db)?;
    for (kind, id, generation, state) in kept {
        // Another region may have moved it on meanwhile: then this state is no longer its own.
        let row = actors::table.find((kind, id)).filter(actors::generation.eq(generation));
        diesel::update(row).set(actors::state.eq(Some(state))).execute(db)?;
    }
    let gone = diesel::delete(journal::table.filter(journal::seq.eq_any(&old))).execute(db)?;
    Ok(i64::try_from(gone).unwrap_or(0))
}
