//! The scripts a machine is to run, as a tar with MAAS's `index.json` (version 1.0).

use std::io;

use schema::{
    boot::BodyRef,
    plan::{Ticket, TicketBoot},
    script::{ScriptRef, ScriptType},
    time::Timestamp,
};
use serde_json::{Map, Value, json};

use super::{Progress, progress::Stage};

/// One file of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub path: String,
    pub mode: u32,
    pub source: Source,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Bytes(Vec<u8>),
    Stored(BodyRef),
}

/// The scripts that have not ended, with how far they are.
fn open<'a>(ticket: &Ticket, boot: &'a TicketBoot, progress: &Progress) -> Vec<(&'a ScriptRef, bool)> {
    let stage = |s: &ScriptRef| progress.stage(ticket.machine, ticket.attempt, s.script_result_id);
    let scripts = boot.scripts.iter().map(|s| (s, stage(s))).filter(|(_, stage)| *stage != Some(Stage::Ended));
    let mut scripts: Vec<_> = scripts.map(|(s, stage)| (s, stage == Some(Stage::Begun))).collect();
    scripts.sort_by(|(a, _), (b, _)| (&a.name, a.script_result_id).cmp(&(&b.name, b.script_result_id)));
    scripts
}

fn folder(kind: ScriptType) -> &'static str {
    match kind {
        ScriptType::Commissioning => "commissioning",
        ScriptType::Testing => "testing",
    }
}

fn entry(script: &ScriptRef, has_started: bool) -> Value {
    let packages: Map<String, Value> = serde_json::from_str(&script.packages).unwrap_or_default();
    json!({
        "name": script.name,
        "path": format!("{}/{}", folder(script.script_type), script.name),
        "script_result_id": script.script_result_id,
        "script_version_id": script.script_version_id,
        "timeout_seconds": script.timeout_seconds,
        "parallel": script.parallel,
        "hardware_type": script.hardware_type,
        "parameters": {},
        "packages": packages,
        "for_hardware": [],
        "apply_configured_networking": false,
        "has_started": has_started,
    })
}

/// The files of `maas-scripts`, index last; none when nothing is left to run. Also the number of scripts.
pub(super) fn scripts(ticket: &Ticket, boot: &TicketBoot, progress: &Progress) -> (Vec<Member>, u32) {
    let open = open(ticket, boot, progress);
    let mut members = Vec::new();
    for (script, _) in &open {
        let path = format!("{}/{}", folder(script.script_type), script.name);
        // Two results may share one script.
        if !members.iter().any(|m: &Member| m.path == path) {
            members.push(Member { path, mode: 0o755, source: Source::Stored(script.body) });
        }
    }
    let mut lists = Map::new();
    for (key, kind) in [("commissioning_scripts", ScriptType::Commissioning), ("testing_scripts", ScriptType::Testing)]
    {
        let list: Vec<_> =
            open.iter().filter(|(s, _)| s.script_type == kind).map(|(s, begun)| entry(s, *begun)).collect();
        if !list.is_empty() {
            lists.insert(key.into(), list.into());
        }
    }
    if !members.is_empty() {
        let index = json!({ "1.0": lists }).to_string().into_bytes();
        members.push(Member { path: "index.json".into(), mode: 0o644, source: Source::Bytes(index) });
    }
    (members, u32::try_from(open.len()).unwrap_or(u32::MAX))
}

/// The files of the older `maas-commissioning-scripts`: every commissioning script, no index.
pub(super) fn legacy(boot: &TicketBoot) -> Vec<Member> {
    let commissioning = boot.scripts.iter().filter(|s| s.script_type == ScriptType::Commissioning);
    commissioning
        .map(|s| Member { path: format!("commissioning.d/{}", s.name), mode: 0o755, source: Source::Stored(s.body) })
        .collect()
}

/// The tar's bytes.
///
/// # Errors
/// When a body cannot be read or a path does not fit the format.
pub fn assemble(
    members: &[Member],
    now: Timestamp,
    read: impl Fn(BodyRef) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    let mut archive = ::tar::Builder::new(Vec::new());
    for member in members {
        let stored;
        let bytes: &[u8] = match &member.source {
            Source::Bytes(bytes) => bytes,
            Source::Stored(body) => {
                stored = read(*body)
                    .map_err(|e| io::Error::new(e.kind(), format!("{} ({}): {e}", member.path, body.sha256)))?;
                &stored
            }
        };
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(member.mode);
        header.set_mtime(u64::try_from(now.seconds()).unwrap_or(0));
        archive.append_data(&mut header, &member.path, bytes)?;
    }
    archive.into_inner()
}
