//! Rows of scripts: the sets that were chosen, how each script ended, and what it printed.

use std::collections::BTreeMap;

use diesel::{QueryResult, prelude::*};
use schema::{
    id::{AttemptId, ResultId, SystemId},
    messages::machine::BriefScript,
    projection::Projection,
    script::{Content, ResultStatus, ScriptOutput, ScriptType},
    tables::*,
    time::Timestamp,
};

use super::{insert, number, text, word};
use crate::store::{Db, ids, statement::Statement, steps::allot};

/// Script sets of a machine that are kept, counted in attempts (MAAS keeps ten).
const KEPT_ATTEMPTS: i64 = 10;

/// A script set for each type of script of the attempt; sets of attempts long gone make room.
pub(super) fn choose(
    db: &mut Db,
    id: SystemId,
    attempt: AttemptId,
    at: Timestamp,
    scripts: &[BriefScript],
) -> QueryResult<()> {
    for script_type in [ScriptType::Commissioning, ScriptType::Testing] {
        let chosen: Vec<&BriefScript> = scripts.iter().filter(|s| s.script_type == script_type).collect();
        if chosen.is_empty() {
            continue;
        }
        let set = ScriptSetRow {
            id: allot(db, ids::SCRIPT_SET, 1)?,
            system_id: id.to_string(),
            attempt: attempt.0.into(),
            script_type: word(&script_type),
            at: at.0,
        };
        diesel::insert_into(script_sets::table).values(&set).execute(db)?;
        let rows: Vec<_> = chosen.into_iter().map(|script| pending(set.id, script)).collect();
        insert!(db, script_results::table, rows);
    }
    let old = i64::from(attempt.0) - KEPT_ATTEMPTS;
    let sets = script_sets::table.filter(script_sets::system_id.eq(id.as_str())).filter(script_sets::attempt.le(old));
    diesel::delete(sets).execute(db)?;
    Ok(())
}

fn pending(script_set: i64, script: &BriefScript) -> ScriptResultRow {
    ScriptResultRow {
        id: script.result.0,
        script_set,
        name: text(&script.name),
        timeout_s: script.timeout_s.into(),
        may_reboot: script.may_reboot,
        status: ResultStatus::Pending.number(),
        started: None,
        ended: None,
        exit_status: None,
        runtime_ms: None,
    }
}

/// What a report says of one script's run.
pub(super) struct Move<'a> {
    result: ResultId,
    status: ResultStatus,
    at: Timestamp,
    exit_status: Option<i32>,
    runtime_ms: Option<u64>,
    output: Option<&'a ScriptOutput>,
}

impl<'a> Move<'a> {
    pub(super) fn of(projection: &'a Projection) -> Option<Self> {
        match projection {
            Projection::ScriptResult { result, status, at, exit_status, runtime_ms, output } => Some(Self {
                result: *result,
                status: *status,
                at: *at,
                exit_status: *exit_status,
                runtime_ms: *runtime_ms,
                output: output.as_deref(),
            }),
            _ => None,
        }
    }

    /// Moves the result's row. A missing start is the end less the run time, as in MAAS.
    fn apply(&self, row: &mut ScriptResultRow) {
        let at = self.at.0;
        row.status = self.status.number();
        row.exit_status = self.exit_status.map(i64::from).or(row.exit_status);
        row.runtime_ms = self.runtime_ms.map(number).or(row.runtime_ms);
        if self.status.ended() {
            row.ended = Some(at);
            row.started = row.started.or(row.runtime_ms.map(|ms| at.saturating_sub(ms.saturating_mul(1_000))));
        } else if self.status != ResultStatus::Pending {
            row.started = row.started.or(Some(at));
        }
    }
}

/// Moves the results' rows and replaces the outputs of those that have new ones.
pub(super) fn write(db: &mut Db, moves: &[Move<'_>]) -> QueryResult<()> {
    if moves.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = moves.iter().map(|of| of.result.0).collect();
    let rows: Vec<ScriptResultRow> = script_results::table.filter(script_results::id.eq_any(&ids)).load(db)?;
    let mut rows: BTreeMap<i64, ScriptResultRow> = rows.into_iter().map(|row| (row.id, row)).collect();
    let mut outputs: BTreeMap<i64, &ScriptOutput> = BTreeMap::new();
    for of in moves {
        let Some(row) = rows.get_mut(&of.result.0) else {
            tracing::warn!("A result for script run {}, which is not in the database, was dropped", of.result);
            continue;
        };
        of.apply(row);
        outputs.extend(of.output.map(|output| (row.id, output)));
    }
    put_results(db, &rows.into_values().collect::<Vec<_>>())?;
    put_outputs(db, &outputs)
}

/// Writes rows over those that are there.
fn put_results(db: &mut Db, rows: &[ScriptResultRow]) -> QueryResult<()> {
    match db {
        Db::Postgres(_) if rows.is_empty() => {}
        Db::Postgres(conn) => drop(Statement::upsert(rows, &["id"], &[]).execute(conn)?),
        Db::Sqlite(conn) => {
            for row in rows {
                diesel::update(script_results::table.find(row.id)).set(row).execute(conn)?;
            }
        }
    }
    Ok(())
}

fn put_outputs(db: &mut Db, outputs: &BTreeMap<i64, &ScriptOutput>) -> QueryResult<()> {
    if outputs.is_empty() {
        return Ok(());
    }
    let old = script_outputs::table.filter(script_outputs::result.eq_any(outputs.keys().copied()));
    diesel::delete(old).execute(db)?;
    let rows: Vec<_> = outputs.iter().flat_map(|(result, output)| output_rows(*result, output)).collect();
    insert!(db, script_outputs::table, rows);
    Ok(())
}

fn output_rows(result: i64, output: &ScriptOutput) -> impl Iterator<Item = ScriptOutputRow> {
    let streams = [
        ("combined", &output.combined),
        ("stdout", &output.stdout),
        ("stderr", &output.stderr),
        ("result", &output.result),
    ];
    streams.into_iter().filter_map(move |(stream, content)| Some(output_row(result, stream, content.as_ref()?)))
}

fn output_row(result: i64, stream: &str, content: &Content) -> ScriptOutputRow {
    ScriptOutputRow {
        result,
        stream: stream.into(),
        sha256: content.body.sha256.to_string(),
        len: number(content.body.len),
        content: content.inline.clone(),
    }
}
