//! Reading script sets, their results and the outputs.

use diesel::{QueryResult, prelude::*};
use schema::{
    boot::BodyRef,
    id::{AttemptId, ResultId, SystemId},
    script::{Content, ResultStatus, ScriptOutput, ScriptType},
    tables::*,
    time::Timestamp,
};

use super::{parsed, read_word, unsigned};
use crate::store::Db;

/// The scripts of one type of one attempt, with how they ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptSet {
    pub id: i64,
    pub system_id: SystemId,
    pub attempt: AttemptId,
    pub script_type: ScriptType,
    pub at: Timestamp,
    pub results: Vec<ScriptResult>,
}

/// One script's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptResult {
    pub id: ResultId,
    pub name: String,
    /// 0 is none.
    pub timeout_s: u32,
    pub may_reboot: bool,
    pub status: ResultStatus,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub exit_status: Option<i32>,
    pub runtime_ms: Option<u64>,
}

impl ScriptSet {
    /// The status of the whole by MAAS's precedence; `None` for a set without scripts. Skipped ones do not count.
    #[must_use]
    pub fn status(&self) -> Option<ResultStatus> {
        use ResultStatus::*;
        let first = [
            Running,
            ApplyingNetconf,
            Installing,
            Pending,
            Aborted,
            Failed,
            FailedApplyingNetconf,
            FailedInstalling,
            TimedOut,
            Degraded,
        ];
        let has = |status: &ResultStatus| self.results.iter().any(|result| result.status == *status);
        (!self.results.is_empty()).then(|| first.into_iter().find(has).unwrap_or(Passed))
    }
}

/// A machine's script sets, newest attempt first.
pub fn script_sets(db: &mut Db, id: SystemId) -> QueryResult<Vec<ScriptSet>> {
    script_sets_of(db, &[id.to_string()])
}

/// One script set of that machine.
pub fn script_set(db: &mut Db, machine: SystemId, id: i64) -> QueryResult<Option<ScriptSet>> {
    let rows: Vec<ScriptSetRow> = script_sets::table
        .filter(script_sets::id.eq(id))
        .filter(script_sets::system_id.eq(machine.as_str()))
        .load(db)?;
    Ok(with_results(db, rows)?.pop())
}

pub(super) fn script_sets_of(db: &mut Db, ids: &[String]) -> QueryResult<Vec<ScriptSet>> {
    let rows: Vec<ScriptSetRow> = script_sets::table
        .filter(script_sets::system_id.eq_any(ids))
        .order((script_sets::attempt.desc(), script_sets::id))
        .load(db)?;
    with_results(db, rows)
}

fn with_results(db: &mut Db, sets: Vec<ScriptSetRow>) -> QueryResult<Vec<ScriptSet>> {
    let ids: Vec<i64> = sets.iter().map(|set| set.id).collect();
    let mut results: Vec<ScriptResultRow> = Vec::new();
    for ids in ids.chunks(500) {
        let some = script_results::table.filter(script_results::script_set.eq_any(ids)).order(script_results::id);
        results.extend(some.load::<ScriptResultRow>(db)?);
    }
    let mut by_set: std::collections::HashMap<i64, Vec<ScriptResult>> = std::collections::HashMap::new();
    for row in results {
        by_set.entry(row.script_set).or_default().push(result(row));
    }
    let set = |row: ScriptSetRow| {
        Ok(ScriptSet {
            id: row.id,
            system_id: parsed("script_sets.system_id", &row.system_id)?,
            attempt: AttemptId(unsigned(row.attempt)),
            script_type: read_word("script_sets.script_type", &row.script_type)?,
            at: Timestamp(row.at),
            results: by_set.remove(&row.id).unwrap_or_default(),
        })
    };
    sets.into_iter().map(set).collect()
}

fn result(row: ScriptResultRow) -> ScriptResult {
    ScriptResult {
        id: ResultId(row.id),
        name: row.name,
        timeout_s: unsigned(row.timeout_s),
        may_reboot: row.may_reboot,
        status: ResultStatus::from_number(row.status).unwrap_or_default(),
        started: row.started.map(Timestamp),
        ended: row.ended.map(Timestamp),
        exit_status: row.exit_status.and_then(|n| n.try_into().ok()),
        runtime_ms: row.runtime_ms.map(unsigned),
    }
}

/// The outputs of a result. A content without `inline` bytes is in the region's body store under its hash.
pub fn script_output(db: &mut Db, id: ResultId) -> QueryResult<ScriptOutput> {
    let rows: Vec<ScriptOutputRow> = script_outputs::table.filter(script_outputs::result.eq(id.0)).load(db)?;
    let mut output = ScriptOutput::default();
    for row in rows {
        let body = BodyRef { sha256: parsed("script_outputs.sha256", &row.sha256)?, len: unsigned(row.len) };
        let content = Some(Content { body, inline: row.content });
        match row.stream.as_str() {
            "combined" => output.combined = content,
            "stdout" => output.stdout = content,
            "stderr" => output.stderr = content,
            _ => output.result = content,
        }
    }
    Ok(output)
}

/// The bodies that outputs refer to: what must not be taken for garbage of the body store.
pub fn bodies_of_outputs(db: &mut Db) -> QueryResult<Vec<schema::boot::Sha256>> {
    let hashes: Vec<String> = script_outputs::table
        .filter(script_outputs::content.is_null())
        .select(script_outputs::sha256)
        .distinct()
        .load(db)?;
    hashes.iter().map(|hash| parsed("script_outputs.sha256", hash)).collect()
}
