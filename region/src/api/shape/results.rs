//! Script sets and their results, and lines of history, as the MAAS API shows them.

use schema::{
    id::ResultId,
    projection::Level,
    script::{ResultStatus, ScriptType},
    time::Timestamp,
};
use serde_json::{Value, json};

use super::{ROOT, event_when, span, when};
use crate::store::queries::{Event, ScriptResult, ScriptSet};

/// The four output files of a result, read.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    pub combined: Option<Vec<u8>>,
    pub stdout: Option<Vec<u8>>,
    pub stderr: Option<Vec<u8>>,
    pub result: Option<Vec<u8>>,
}

/// Outputs by result; `None` where they were not asked for.
pub type OutputsOf<'a> = Option<&'a dyn Fn(ResultId) -> Outputs>;

fn kind(script_type: ScriptType) -> (i64, &'static str) {
    match script_type {
        ScriptType::Commissioning => (0, "Commissioning"),
        ScriptType::Testing => (2, "Testing"),
    }
}

/// One result.
fn result(row: &ScriptResult, created: Timestamp, outputs: OutputsOf<'_>) -> Value {
    let took = || u64::try_from(row.ended?.since(row.started?).as_millis()).ok();
    let runtime = row.runtime_ms.or_else(took);
    let updated = row.ended.or(row.started).unwrap_or(created);
    let seconds = |at: Option<Timestamp>| at.map(Timestamp::seconds);
    let mut value = json!({
        "id": row.id, "name": row.name, "created": event_when(created), "updated": event_when(updated),
        "status": row.status.number(), "status_name": row.status.label(), "exit_status": row.exit_status,
        "started": row.started.map(when), "ended": row.ended.map(when), "runtime": runtime.map_or(String::new(), span),
        "starttime": seconds(row.started), "endtime": seconds(row.ended), "estimated_runtime": "Unknown",
        "parameters": {}, "script_id": null, "script_revision_id": null, "suppressed": false,
        // Hostler's own: to the millisecond.
        "runtime_ms": runtime, "timeout_s": row.timeout_s,
    });
    if let Some(read) = outputs {
        let outputs = read(row.id);
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
        value["output"] = json!(text(&outputs.combined));
        value["stdout"] = json!(text(&outputs.stdout));
        value["stderr"] = json!(text(&outputs.stderr));
        value["result"] = json!(text(&outputs.result));
    }
    value
}

/// One script set with its results.
#[must_use]
pub fn set(set: &ScriptSet, outputs: OutputsOf<'_>) -> Value {
    let status = set.status().unwrap_or(ResultStatus::Pending);
    let (type_number, type_name) = kind(set.script_type);
    let started = set.results.iter().filter_map(|r| r.started).min();
    let ended = if status.ended() { set.results.iter().filter_map(|r| r.ended).max() } else { None };
    let runtime = started.zip(ended).and_then(|(s, e)| u64::try_from(e.since(s).as_millis()).ok());
    let last = set.results.iter().filter_map(|r| r.ended.or(r.started)).max();
    let results: Vec<_> = set.results.iter().map(|r| result(r, set.at, outputs)).collect();
    json!({
        "id": set.id, "system_id": set.system_id, "type": type_number, "type_name": type_name,
        "last_ping": last.map(when), "status": status.number(), "status_name": status.label(),
        "started": started.map(when), "ended": ended.map(when), "runtime": runtime.map_or(String::new(), span),
        "results": results, "suppressed": false, "attempt": set.attempt,
        "resource_uri": format!("{ROOT}/nodes/{}/results/{}/", set.system_id, set.id),
    })
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

/// One line of history.
#[must_use]
pub fn event(row: &Event) -> Value {
    json!({
        "id": row.id, "node": row.system_id, "hostname": row.hostname.clone().unwrap_or_default(),
        "username": row.line.by, "level": level(row.line.level), "created": event_when(row.line.at),
        "type": row.line.event_type, "description": row.line.description,
        // Hostler's own: to the millisecond.
        "at": row.line.at.to_string(), "trace": row.trace,
    })
}
