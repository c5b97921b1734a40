//! The statements of one commit: generation checks, journal rows, projections, counters. When to commit is the writer's business.

use ::actors::{clock, core::TraceId};
use diesel::{
    QueryResult,
    pg::{Pg, PgConnection},
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Nullable, Text},
};
use schema::tables::{ActorRow, NewJournalRow, actors, journal};

use super::{
    Db, Write, projections,
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
            actors::state.eq(&row.state),
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
        state: write.state.clone(),
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
fn advance_all(conn: &mut PgConnection, writes: &[&Write]) -> QueryResult<Vec<bool>> {
    let all = AdvanceAll {
        n: (0_i64..).take(writes.len()).collect(),
        kind: writes.iter().map(|w| w.kind).collect(),
        id: writes.iter().map(|w| w.id.as_str()).collect(),
        after: writes.iter().map(|w| after(w)).collect(),
        state: writes.iter().map(|w| w.state.as_str()).collect(),
        deadline: writes.iter().map(|w| w.deadline.map(|at| at.0)).collect(),
        at: writes.iter().map(|w| w.at.0).collect(),
        event: writes.iter().map(|w| w.event.as_str()).collect(),
        verdict: writes.iter().map(|w| w.verdict.as_str()).collect(),
        trace: writes.iter().map(|w| w.trace.to_string()).collect(),
    };
    let mut moved = vec![false; writes.len()];
    for n in all.load::<i64>(conn)? {
        if let Some(moved) = usize::try_from(n).ok().and_then(|n| moved.get_mut(n)) {
            *moved = true;
        }
    }
    Ok(moved)
}

/// Steps as columns: what `unnest` makes rows of. In the order of their keys, so that two regions never lock crosswise.
struct AdvanceAll<'a> {
    n: Vec<i64>,
    kind: Vec<&'a str>,
    id: Vec<&'a str>,
    after: Vec<i64>,
    state: Vec<&'a str>,
    deadline: Vec<Option<i64>>,
    at: Vec<i64>,
    event: Vec<&'a str>,
    verdict: Vec<&'a str>,
    trace: Vec<String>,
}

impl QueryId for AdvanceAll<'_> {
    type QueryId = AdvanceAll<'static>;

    const HAS_STATIC_QUERY_ID: bool = true;
}

impl Query for AdvanceAll<'_> {
    type SqlType = BigInt;
}

impl RunQueryDsl<PgConnection> for AdvanceAll<'_> {}

impl QueryFragment<Pg> for AdvanceAll<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH step AS MATERIALIZED (SELECT * FROM unnest(");
        out.push_bind_param::<Array<BigInt>, _>(&self.n)?;
        out.push_sql(",");
        out.push_bind_param::<Array<Text>, _>(&self.kind)?;
        out.push_sql(",");
        out.push_bind_param::<Array<Text>, _>(&self.id)?;
        out.push_sql(",");
        out.push_bind_param::<Array<BigInt>, _>(&self.after)?;
        out.push_sql(",");
        out.push_bind_param::<Array<Text>, _>(&self.state)?;
        out.push_sql(",");
        out.push_bind_param::<Array<Nullable<BigInt>>, _>(&self.deadline)?;
        out.push_sql(",");
        out.push_bind_param::<Array<BigInt>, _>(&self.at)?;
        out.push_sql(",");
        out.push_bind_param::<Array<Text>, _>(&self.event)?;
        out.push_sql(",");
        out.push_bind_param::<Array<Text>, _>(&self.verdict)?;
        out.push_sql(",");
        out.push_bind_param::<Array<Text>, _>(&self.trace)?;
        out.push_sql(
            ") AS s (n, kind, id, after, state, deadline, at, event, verdict, trace) ORDER BY kind, id), \
             born AS (INSERT INTO actors (kind, id, generation, state, deadline, updated) \
               SELECT kind, id, after, state, deadline, at FROM step WHERE after = 1 \
               ON CONFLICT DO NOTHING RETURNING kind, id), \
             moved AS (UPDATE actors SET generation = step.after, state = step.state, deadline = step.deadline, \
               updated = step.at FROM step WHERE step.after > 1 AND actors.kind = step.kind AND actors.id = step.id \
               AND actors.generation = step.after - 1 RETURNING actors.kind, actors.id), \
             done AS (SELECT step.* FROM step JOIN (SELECT * FROM born UNION ALL SELECT * FROM moved) AS m \
               ON m.kind = step.kind AND m.id = step.id), \
             told AS (INSERT INTO journal (kind, id, generation, event, state, verdict, trace, at) \
               SELECT kind, id, after, event, state, verdict, trace, at FROM done ORDER BY n) \
             SELECT n FROM done",
        );
        Ok(())
    }
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
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = BigInt)]
        next: i64,
    }
    // SQLite numbers placeholders by first appearance, so each stands once.
    let next: Next = diesel::sql_query(
        "INSERT INTO counters (name, next) VALUES ($1, 1 + $2) \
         ON CONFLICT (name) DO UPDATE SET next = counters.next + excluded.next - 1 RETURNING next",
    )
    .bind::<Text, _>(name)
    .bind::<BigInt, _>(count)
    .get_result(db)?;
    Ok(next.next - count)
}

fn prune(db: &mut Db, before: i64) -> QueryResult<i64> {
    // The numbers follow the times, near enough: only the oldest rows are looked at, without an index on times.
    let oldest: Vec<(i64, i64)> =
        journal::table.select((journal::seq, journal::at)).order(journal::seq).limit(PRUNE).load(db)?;
    let old: Vec<i64> = oldest.into_iter().filter(|(_, at)| *at < before).map(|(seq, _)| seq).collect();
    let gone = diesel::delete(journal::table.filter(journal::seq.eq_any(&old))).execute(db)?;
    Ok(i64::try_from(gone).unwrap_or(0))
}
