//! `scripts/` and `scripts/<name>`: commissioning and testing scripts of the operator's own, beside the built-in ones. MAAS's shapes.

use actix_web::HttpResponse;
use actors::catalogue::Table;
use base64::Engine;
use schema::{
    catalogue::{Catalogue, CatalogueItem, CatalogueKey, Script},
    script::{
        ScriptType,
        header::{SCRIPT_LIMIT, ScriptHeader},
    },
};
use serde_json::{Value, json};

use super::{
    call::{Answer, Call, gone, json},
    fault::{Fault, Faults},
    params::Params,
    shape::{ROOT, span},
};
use crate::app::scripts::entry;

/// `scripts/`.
pub async fn all(call: Call) -> Answer {
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            let wanted = call.params.filled("type").map(script_type).transpose()?;
            let with_text = call.params.truth("include_script")?.unwrap_or_default();
            let c = call.house.catalogue();
            let chosen = c.scripts.values().filter(|s| wanted.is_none_or(|t| t == s.script_type));
            Ok(json(&Value::Array(chosen.map(|s| shown(&call, s, with_text)).collect())))
        }
        ("POST", "") => {
            let by = call.admin()?.username.clone();
            let text = text(&call.params)?.ok_or_else(|| Fault::field("script", "This field is required."))?;
            let _edit = call.house.editing().await;
            let id = call.house.next_id(Table::Scripts);
            let added = read(&call, &text, id, None)?;
            let taken = call.house.catalogue().scripts.values().any(|s| s.name == added.name);
            if taken {
                return Err(Fault::field("name", format!("Script with name \"{}\" already exists.", added.name)));
            }
            let body = shown(&call, &added, false);
            call.house.put(&by, vec![CatalogueItem::Script(added)]).await?;
            Ok(json(&body))
        }
        _ => Err(call.unknown()),
    }
}

/// `scripts/<name>`; the id serves as well.
pub async fn one(call: Call) -> Answer {
    let c = call.house.catalogue();
    let script = found(&c, call.part("name"))?;
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            let with_text = call.params.truth("include_script")?.unwrap_or_default();
            Ok(json(&shown(&call, script, with_text)))
        }
        ("GET", "download") => {
            call.user()?;
            let bytes = call.house.read_body(script.body)?;
            Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(bytes))
        }
        ("PUT", "") => {
            let by = call.admin()?.username.clone();
            own(script)?;
            let text = match text(&call.params)? {
                Some(text) => text,
                None => String::from_utf8_lossy(&call.house.read_body(script.body)?).into_owned(),
            };
            let changed = read(&call, &text, script.id, Some(script))?;
            let body = shown(&call, &changed, false);
            call.house.put(&by, vec![CatalogueItem::Script(changed)]).await?;
            Ok(json(&body))
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            own(script)?;
            call.house.remove(&by, CatalogueKey::Script(script.id)).await?;
            Ok(gone())
        }
        _ => Err(call.unknown()),
    }
}

fn found<'a>(c: &'a Catalogue, wanted: &str) -> Result<&'a Script, Fault> {
    c.scripts.values().find(|s| s.name == wanted || s.id.to_string() == wanted).ok_or_else(|| Fault::no("Script"))
}

/// A built-in script comes with the release and goes with it.
fn own(script: &Script) -> Result<(), Fault> {
    if script.default {
        return Err(Fault::Bad(format!(
            "{} is a built-in script and stays as it is; add one of your own.",
            script.name
        )));
    }
    Ok(())
}

/// The script's text, from a file part or a field.
fn text(params: &Params) -> Result<Option<String>, Fault> {
    let Some(file) = params.file("script") else {
        return Ok(params.get("script").filter(|t| !t.is_empty()).map(str::to_owned));
    };
    let text = std::str::from_utf8(&file.content)
        .map_err(|e| Fault::field("script", format!("The script is not UTF-8: {e}. Save it as UTF-8.")))?;
    Ok(Some(text.to_owned()))
}

/// The entry that a text and the request's fields make; fields win over the text's header, and that over what there was.
fn read(call: &Call, text: &str, id: i64, old: Option<&Script>) -> Result<Script, Fault> {
    let params = &call.params;
    if text.len() > SCRIPT_LIMIT {
        return Err(Fault::field("script", format!("The script is longer than {SCRIPT_LIMIT} bytes.")));
    }
    let mut header = ScriptHeader::parse(text).map_err(|e| Fault::field("script", format!("{e}.")))?;
    let mut faults = Faults::default();
    let given = params.filled("name").map(str::to_owned);
    let name = given.or_else(|| header.name.clone()).or_else(|| old.map(|s| s.name.clone())).unwrap_or_default();
    if name.is_empty() || name.len() > 255 || name.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace()) {
        faults.add("name", "Give 1 to 255 characters without blanks and slashes, here or in the script's header.");
    }
    if name == "none" || name.parse::<i64>().is_ok() {
        faults.add("name", format!("\"{name}\" cannot be told from an id or from no script; choose another name."));
    }
    if let Some(title) = params.get("title") {
        title.clone_into(&mut header.title);
    }
    if let Some(description) = params.get("description") {
        description.clone_into(&mut header.description);
    }
    if params.get("tags").is_some() {
        header.tags = params.list("tags");
    }
    if let Some(Some(kind)) = faults.take(params.filled("type").map(script_type).transpose()) {
        header.script_type = Some(kind);
    }
    if let Some(Some(seconds)) = faults.take(params.filled("timeout").map(seconds).transpose()) {
        header.timeout_s = seconds;
    }
    faults.check()?;
    header.script_type = header.script_type.or(old.map(|s| s.script_type));
    let body = call.house.put_body(text.as_bytes())?;
    let version = old.map_or(1, |s| if s.body == body { s.version } else { s.version + 1 });
    Ok(entry(id, version, &name, header, false, body))
}

/// MAAS's numbers and words.
fn script_type(text: &str) -> Result<ScriptType, Fault> {
    match text.to_ascii_lowercase().as_str() {
        "commissioning" | "commission" | "0" => Ok(ScriptType::Commissioning),
        "testing" | "test" | "2" => Ok(ScriptType::Testing),
        _ => Err(Fault::field("type", format!("\"{text}\" is no script type here; use commissioning or testing."))),
    }
}

/// Seconds, or `[[H:]MM:]SS`; at most 30 days, 0 is none.
fn seconds(text: &str) -> Result<u32, Fault> {
    let wrong =
        || Fault::field("timeout", format!("\"{text}\" is no time-out; give seconds or H:MM:SS, up to 30 days."));
    let parts = text.split(':').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?;
    let total = parts.iter().try_fold(0_u32, |sum, part| sum.checked_mul(60)?.checked_add(*part));
    total.filter(|s| parts.len() <= 3 && *s <= 30 * 86_400).ok_or_else(wrong)
}

/// A script in MAAS's shape.
fn shown(call: &Call, s: &Script, with_text: bool) -> Value {
    let (kind, number) = match s.script_type {
        ScriptType::Commissioning => ("Commissioning script", 0),
        ScriptType::Testing => ("Testing script", 2),
    };
    let hardware = ["Node", "CPU", "Memory", "Storage", "Network"].get(usize::from(s.hardware_type));
    let parallel = ["Disabled", "Run along other instances of this script", "Run along any other script"];
    let packages: Value = serde_json::from_str(&s.packages).unwrap_or_default();
    let mut value = json!({
        "id": s.id, "name": s.name, "title": s.title, "description": s.description, "tags": s.tags,
        "type": number, "type_name": kind, "hardware_type": s.hardware_type, "hardware_type_name": hardware,
        "parallel": s.parallel, "parallel_name": parallel.get(usize::from(s.parallel)),
        "timeout": span(u64::from(s.timeout_s) * 1_000), "packages": packages, "parameters": {}, "results": {},
        "destructive": false, "for_hardware": [], "may_reboot": s.may_reboot, "recommission": false,
        "apply_configured_networking": false, "default": s.default,
        "history": [{"id": s.version, "comment": "", "created": null}],
        "resource_uri": format!("{ROOT}/scripts/{}", s.name),
    });
    if with_text {
        let text = call.house.read_body(s.body).unwrap_or_default();
        value["script"] = base64::engine::general_purpose::STANDARD.encode(text).into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_seconds_or_clock_times_within_a_month() {
        assert_eq!([seconds("90").unwrap(), seconds("1:30").unwrap(), seconds("1:00:05").unwrap()], [90, 90, 3_605]);
        for wrong in ["", "soon", "1:2:3:4", "-1", "2592001", "4294967295:0:0"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
