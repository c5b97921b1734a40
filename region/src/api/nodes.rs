//! `nodes/<id>/…`: script results, and the parts of a machine by themselves (interfaces, block devices; read only here).

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use schema::{id::ResultId, script::ScriptType};
use serde_json::Value;

use super::{
    call::{Answer, Call, json, text},
    fault::Fault,
    machines,
    params::Params,
    shape::{
        hardware,
        results::{self, Outputs, OutputsOf},
    },
};
use crate::store::queries::ScriptSet;

/// `nodes/<id>/results/`.
pub async fn results(call: Call) -> Answer {
    let ("GET", "") = call.wants() else { return Err(call.unknown()) };
    call.user()?;
    let id = machines::id(&call)?;
    call.house.machine(id).await?;
    let wanted = call.params.list("type");
    let sets = call.house.script_sets(id).await?;
    let outputs = outputs(&call, &sets, false).await?;
    let shown = sets.iter().map(|set| results::set(set, outputs.as_ref().map(|f| f as _)));
    let admitted = shown.filter(|set| {
        let names = [set["type"].to_string(), set["type_name"].as_str().unwrap_or("").to_ascii_lowercase()];
        wanted.is_empty() || wanted.iter().any(|w| names.contains(&w.to_ascii_lowercase()))
    });
    Ok(json(&Value::Array(admitted.collect())))
}

/// The outputs of all results of these sets, when `include_output` (or `always`) asks for them.
async fn outputs(
    call: &Call,
    sets: &[ScriptSet],
    always: bool,
) -> Result<Option<impl Fn(ResultId) -> Outputs + use<>>, Fault> {
    if !always && !call.params.truth("include_output")?.unwrap_or(false) {
        return Ok(None);
    }
    let ids: Vec<ResultId> = sets.iter().flat_map(|s| &s.results).map(|r| r.id).collect();
    let read: BTreeMap<ResultId, Outputs> = call.house.outputs(ids).await?;
    Ok(Some(move |id: ResultId| read.get(&id).cloned().unwrap_or_default()))
}

/// `nodes/<id>/results/<set>/`: a number, or `current-commissioning`.
pub async fn result(call: Call) -> Answer {
    call.user()?;
    let id = machines::id(&call)?;
    call.house.machine(id).await?;
    let download = match call.wants() {
        ("GET", "") => false,
        ("GET", "download") => true,
        _ => return Err(call.unknown()),
    };
    let sets = call.house.script_sets(id).await?;
    let newest = |kind: ScriptType| sets.iter().find(|s| s.script_type == kind);
    let set = match call.part("set") {
        "current-commissioning" => newest(ScriptType::Commissioning),
        "current-testing" => newest(ScriptType::Testing),
        number => number.parse().ok().and_then(|n: i64| sets.iter().find(|s| s.id == n)),
    };
    let set = set.ok_or_else(|| Fault::no("ScriptSet"))?;
    let outputs = outputs(&call, std::slice::from_ref(set), download).await?;
    let read: OutputsOf<'_> = outputs.as_ref().map(|f| f as _);
    match (download, read) {
        (true, Some(read)) => downloaded(&call.params, set, read),
        _ => Ok(json(&results::set(set, read))),
    }
}

/// `op=download`: one output of each result, one after the other, or a tar of all.
fn downloaded(params: &Params, set: &ScriptSet, read: &dyn Fn(ResultId) -> Outputs) -> Answer {
    let output = params.filled("output").unwrap_or("combined");
    let filters = params.list("filters");
    let rows = set
        .results
        .iter()
        .filter(|r| filters.is_empty() || filters.iter().any(|f| *f == r.name || *f == r.id.to_string()));
    let pick = |outputs: &Outputs, name: &str| match name {
        "combined" => outputs.combined.clone(),
        "stdout" => outputs.stdout.clone(),
        "stderr" => outputs.stderr.clone(),
        _ => outputs.result.clone(),
    };
    let names: &[(&str, &str)] = match output {
        "combined" => &[("combined", "out")],
        "stdout" => &[("stdout", "stdout")],
        "stderr" => &[("stderr", "stderr")],
        "result" => &[("result", "yaml")],
        "all" => &[("combined", "out"), ("stdout", "stdout"), ("stderr", "stderr"), ("result", "yaml")],
        other => {
            let message = format!("\"{other}\" is not an output; use combined, stdout, stderr, result or all.");
            return Err(Fault::field("output", message));
        }
    };
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for row in rows {
        let outputs = read(row.id);
        files.extend(
            names.iter().filter_map(|(name, suffix)| Some((format!("{}.{suffix}", row.name), pick(&outputs, name)?))),
        );
    }
    match params.filled("filetype").unwrap_or("txt") {
        // Clients that know the name of one script want its bytes and no heading.
        "txt" if files.len() == 1 => {
            let bytes = files.into_iter().next().map(|(_, b)| b).unwrap_or_default();
            Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(bytes))
        }
        "txt" => {
            let mut all = String::new();
            for (name, bytes) in &files {
                all.push_str(&format!(
                    "{}\n{name}\n{}\n{}\n",
                    "-".repeat(80),
                    "-".repeat(80),
                    String::from_utf8_lossy(bytes)
                ));
            }
            Ok(text(all))
        }
        "tar" => tarred(&files),
        other => {
            let message = format!("\"{other}\" is not made here; use txt or tar.");
            Err(Fault::field("filetype", message))
        }
    }
}

fn tarred(files: &[(String, Vec<u8>)]) -> Answer {
    let failed =
        |e: std::io::Error| Fault::unavailable(format!("The archive could not be made: {e}."), "Try filetype=txt.");
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes.as_slice()).map_err(failed)?;
    }
    let bytes = archive.into_inner().map_err(failed)?;
    Ok(HttpResponse::Ok().content_type("application/x-tar").body(bytes))
}

/// `nodes/<id>/interfaces/` and `nodes/<id>/interfaces/<interface>/`.
pub async fn interfaces(call: Call) -> Answer {
    let facts = part(&call).await?;
    let catalogue = call.house.catalogue();
    let shown = facts.record.interfaces.iter().map(|n| hardware::interface(&facts, n, &catalogue)).collect();
    chosen(&call, "interface", shown, "Interface")
}

/// `nodes/<id>/blockdevices/` and `nodes/<id>/blockdevices/<device>/`.
pub async fn block_devices(call: Call) -> Answer {
    let facts = part(&call).await?;
    let shown = facts.record.disks.iter().map(|d| hardware::block_device(facts.id(), d)).collect();
    chosen(&call, "device", shown, "BlockDevice")
}

async fn part(call: &Call) -> Result<super::shape::machine::Facts, Fault> {
    call.user()?;
    let id = machines::id(call)?;
    match call.wants() {
        ("GET", "") => call.house.machine(id).await,
        ("GET", _) => Err(call.unknown()),
        _ => {
            call.house.machine(id).await?;
            Err(Fault::conflict(
                "Interfaces and disks are read only here.",
                "Changing them comes with a later version; commissioning writes them.",
            ))
        }
    }
}

/// All of them, or the one whose id or name stands in the path.
fn chosen(call: &Call, part: &str, all: Vec<Value>, kind: &str) -> Answer {
    let wanted = call.part(part);
    if wanted.is_empty() {
        return Ok(json(&Value::Array(all)));
    }
    let is = |v: &Value| v["id"].as_i64() == wanted.parse().ok() && v["id"].is_i64() || v["name"] == wanted;
    all.iter().find(|v| is(v)).map(json).ok_or_else(|| Fault::no(kind))
}
