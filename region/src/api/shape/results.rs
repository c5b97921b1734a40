//! Script sets and their results, and the list of events, as the MAAS API shows them.

use std::collections::BTreeMap;

use schema::{
    id::{AttemptId, ResultId, SystemId},
    projection::{EventLine, Level},
    script::{ResultStatus, ScriptType},
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{ROOT, event_when, machine::set_status, span, when};

/// One script's result, with its outputs when they were asked for.
#[derive(Debug, Clone)]
pub struct ResultRow {
    pub id: ResultId,
    pub attempt: AttemptId,
    pub name: String,
    pub script_type: ScriptType,
    pub status: ResultStatus,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub exit_status: Option<i32>,
    pub runtime_ms: Option<u64>,
    /// `None`: not asked for, or none.
    pub outputs: Outputs,
}

/// The four output files.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    pub combined: Option<Vec<u8>>,
    pub stdout: Option<Vec<u8>>,
    pub stderr: Option<Vec<u8>>,
    pub result: Option<Vec<u8>>,
}

fn kind(script_type: ScriptType) -> (i64, &'static str) {
    match script_type {
        ScriptType::Commissioning => (0, "Commissioning"),
        ScriptType::Testing => (2, "Testing"),
    }
}

/// One result.
#[must_use]
pub fn result(row: &ResultRow, with_output: bool) -> Value {
    let runtime = row.runtime_ms.or_else(|| {
        let took = row.ended?.since(row.started?).as_millis();
        u64::try_from(took).ok()
    });
    let seconds = |at: Option<Timestamp>| at.map(|t| t.seconds());
    let mut value = json!({
        "id": row.id, "name": row.name, "created": event_when(row.created), "updated": event_when(row.updated),
        "status": row.status.number(), "status_name": row.status.label(), "exit_status": row.exit_status,
        "started": row.started.map(when), "ended": row.ended.map(when), "runtime": runtime.map_or(String::new(), span),
        "starttime": seconds(row.started), "endtime": seconds(row.ended), "estimated_runtime": "Unknown",
        "parameters": {}, "script_id": null, "script_revision_id": null, "suppressed": false,
    });
    if with_output {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
        value["output"] = json!(text(&row.outputs.combined));
        value["stdout"] = json!(text(&row.outputs.stdout));
        value["stderr"] = json!(text(&row.outputs.stderr));
        value["result"] = json!(text(&row.outputs.result));
    }
    value
}

/// The sets of a machine, newest first: one per attempt and type. A set's id is that of its first result.
#[must_use]
pub fn sets(machine: SystemId, rows: &[ResultRow], with_output: bool) -> Vec<(i64, AttemptId, Value)> {
    let mut groups: BTreeMap<(AttemptId, i64), Vec<&ResultRow>> = BTreeMap::new();
    for row in rows {
        groups.entry((row.attempt, kind(row.script_type).0)).or_default().push(row);
    }
    let mut sets: Vec<_> = groups
        .into_values()
        .filter_map(|mut group| {
            group.sort_by_key(|r| r.id);
            let first = *group.first()?;
            Some((first.id.0, first.attempt, set(machine, &group, with_output)))
        })
        .collect();
    sets.reverse();
    sets
}

fn set(machine: SystemId, group: &[&ResultRow], with_output: bool) -> Value {
    let statuses: Vec<_> = group.iter().map(|r| r.status).collect();
    let status = set_status(&statuses).unwrap_or_default();
    let (type_number, type_name) = group.first().map_or((0, "Commissioning"), |r| kind(r.script_type));
    let id = group.first().map_or(0, |r| r.id.0);
    let started = group.iter().filter_map(|r| r.started).min();
    let ended = if status.ended() { group.iter().filter_map(|r| r.ended).max() } else { None };
    let runtime = started.zip(ended).and_then(|(s, e)| u64::try_from(e.since(s).as_millis()).ok());
    let results: Vec<_> = group.iter().map(|r| result(r, with_output)).collect();
    json!({
        "id": id, "system_id": machine, "type": type_number, "type_name": type_name,
        "last_ping": group.iter().map(|r| r.updated).max().map(when), "status": status.number(),
        "status_name": status.label(), "started": started.map(when), "ended": ended.map(when),
        "runtime": runtime.map_or(String::new(), span), "results": results, "suppressed": false,
        "resource_uri": format!("{ROOT}/nodes/{machine}/results/{id}/"),
    })
}

/// A line of history with its id and machine.
#[derive(Debug, Clone)]
pub struct EventRow {
    pub id: i64,
    pub machine: SystemId,
    pub hostname: String,
    pub line: EventLine,
}

/// MAAS's word for a level.
#[must_use]
pub fn level(level: Level) -> &'static str {
    match level {
        Level::Audit => "AUDIT",
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warning => "WARNING",
        Level::Error => "ERROR",
    }
}

/// One event.
#[must_use]
pub fn event(row: &EventRow) -> Value {
    json!({
        "id": row.id, "node": row.machine, "hostname": row.hostname, "username": row.line.by,
        "level": level(row.line.level), "created": event_when(row.line.at), "type": row.line.event_type,
        "description": row.line.description,
        // Hostler's own: to the millisecond.
        "at": row.line.at.to_string(),
    })
}
