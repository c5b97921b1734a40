//! The node's signals (`op=signal`): a form read into facts.

use schema::{
    boot::{BodyRef, Sha256},
    messages::report::Fact,
    plan::TicketBoot,
    script::{Content, INLINE_LIMIT, OUTPUT_LIMIT, ScriptOutput, ScriptRef, SignalStatus},
};

use super::{Form, Part};

/// Longest error text that is kept, in characters.
const ERROR_TEXT: usize = 2_000;
/// The longest run time believed: ten years, in seconds.
const RUNTIME_S: f64 = 315_576_000.0;

/// The facts of a signal, and outputs to be kept before they are reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) facts: Vec<Fact>,
    pub(super) keep: Vec<Vec<u8>>,
}

/// Reads a signal.
///
/// # Errors
/// A text for the sender that names field, value and remedy.
pub(super) fn read(form: &Form, boot: &TicketBoot) -> Result<Heard, String> {
    let status = form.text("status").ok_or("signal has no field \"status\"; send OK, FAILED, WORKING, …")?;
    let status: SignalStatus = status.trim().parse()?;
    let script = script(form, boot)?;
    let exit_status: Option<i32> = number(form, "exit_status", "a whole number of 32 bits, as in 0")?;
    let runtime = runtime_ms(form)?;
    let error: String = form.text("error").unwrap_or("").chars().take(ERROR_TEXT).collect();

    let mut heard = Heard::default();
    let last = matches!(status, SignalStatus::Ok | SignalStatus::Failed);
    let files = script.is_some_and(|s| form.parts.iter().any(|p| slot(p, s).is_some()));
    match script {
        Some(script) if exit_status.is_some() || files || status == SignalStatus::Timedout => {
            let output = output(form, script, &mut heard.keep);
            let fallback = if matches!(status, SignalStatus::Failed | SignalStatus::Timedout) { 1 } else { 0 };
            heard.facts.push(Fact::ScriptEnded {
                result: script.script_result_id,
                name: script.name.clone(),
                status,
                exit_status: exit_status.unwrap_or(fallback),
                runtime_ms: runtime,
                output: Box::new(output),
            });
        }
        Some(script) if !last => {
            heard.facts.push(Fact::ScriptStarted { result: script.script_result_id, name: script.name.clone(), status })
        }
        _ if !last => heard.facts.push(Fact::Heartbeat),
        _ => {}
    }
    if last {
        heard.facts.push(Fact::Finished { status, error });
    }
    Ok(heard)
}

/// The script a signal is about: by result id, else by name, else by its files.
fn script<'a>(form: &Form, boot: &'a TicketBoot) -> Result<Option<&'a ScriptRef>, String> {
    let scripts = &boot.scripts;
    if let Some(id) = number::<i64>(form, "script_result_id", "an id from index.json")? {
        let found = scripts.iter().find(|s| s.script_result_id.0 == id);
        return found.map(Some).ok_or_else(|| {
            format!("script_result_id {id} is none of this attempt's; take it from the index.json of maas-scripts")
        });
    }
    if let Some(name) = form.text("name").map(str::trim).filter(|n| !n.is_empty()) {
        let found = scripts.iter().find(|s| s.name == name);
        return found.map(Some).ok_or_else(|| {
            let known: Vec<_> = scripts.iter().map(|s| s.name.as_str()).collect();
            let name: String = name.chars().take(100).collect();
            format!("name \"{name}\" is none of this attempt's scripts ({})", known.join(", "))
        });
    }
    Ok(scripts.iter().find(|s| form.parts.iter().any(|p| slot(p, s).is_some())))
}

fn number<T: std::str::FromStr>(form: &Form, field: &str, rule: &str) -> Result<Option<T>, String> {
    let Some(text) = form.text(field).map(str::trim).filter(|t| !t.is_empty()) else { return Ok(None) };
    let shown: String = text.chars().take(60).collect();
    text.parse().map(Some).map_err(|_| format!("{field} \"{shown}\" is not {rule}"))
}

fn runtime_ms(form: &Form) -> Result<u64, String> {
    let rule = "a number of seconds from 0 to ten years, as in 1.5";
    match number::<f64>(form, "runtime", rule)? {
        None => Ok(0),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie in 0..=3.2e11")]
        Some(s) if (0.0..=RUNTIME_S).contains(&s) => Ok((s * 1_000.0).round() as u64),
        Some(s) => Err(format!("runtime \"{s}\" is not {rule}")),
    }
}

/// Which of the four files a part is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Combined,
    Out,
    Err,
    Result,
}

/// The file that a part is for that script, by part name or file name.
fn slot(part: &Part, script: &ScriptRef) -> Option<Slot> {
    if part.filename.is_none() && matches!(part.name.as_str(), "op" | "status" | "error" | "name" | "runtime") {
        return None;
    }
    [Some(part.name.as_str()), part.filename.as_deref()].into_iter().flatten().find_map(|name| {
        Some(match name.strip_prefix(script.name.as_str())? {
            "" => Slot::Combined,
            ".out" => Slot::Out,
            ".err" => Slot::Err,
            ".yaml" => Slot::Result,
            _ => return None,
        })
    })
}

fn output(form: &Form, script: &ScriptRef, keep: &mut Vec<Vec<u8>>) -> ScriptOutput {
    let mut output = ScriptOutput::default();
    for part in &form.parts {
        let Some(slot) = slot(part, script) else { continue };
        let content = content(cut(&part.content), keep);
        *match slot {
            Slot::Combined => &mut output.combined,
            Slot::Out => &mut output.stdout,
            Slot::Err => &mut output.stderr,
            Slot::Result => &mut output.result,
        } = Some(content);
    }
    output
}

/// At most 1 MiB; what is cut says so in its last line (a comment, so that cut YAML stays YAML where it can).
fn cut(bytes: &[u8]) -> Vec<u8> {
    if bytes.len() <= OUTPUT_LIMIT {
        return bytes.to_vec();
    }
    let note = format!("\n# cut here: {} bytes were sent, {OUTPUT_LIMIT} are kept\n", bytes.len());
    let mut kept = bytes.get(..OUTPUT_LIMIT - note.len()).unwrap_or_default().to_vec();
    kept.extend_from_slice(note.as_bytes());
    kept
}

fn content(bytes: Vec<u8>, keep: &mut Vec<Vec<u8>>) -> Content {
    let body = BodyRef { sha256: Sha256::of(&bytes), len: bytes.len() as u64 };
    if bytes.len() <= INLINE_LIMIT {
        return Content { body, inline: Some(bytes) };
    }
    keep.push(bytes);
    Content { body, inline: None }
}
