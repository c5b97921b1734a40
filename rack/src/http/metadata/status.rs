//! cloud-init's status events (`POST status/<system_id>`): which of them are facts worth reporting.

use schema::messages::report::Fact;
use serde::Deserialize;

/// Longest text of a field that is kept, in characters.
const TEXT: usize = 500;

/// An event as cloud-init's webhook reporter posts it. What else it holds is ignored.
#[derive(Debug, Deserialize)]
struct Event {
    event_type: String,
    #[serde(rename = "origin")]
    _origin: String,
    name: String,
    description: String,
    #[serde(default)]
    result: Option<String>,
}

/// Reads an event. `None`: understood, and not worth a report (the good end of one module among dozens).
///
/// # Errors
/// A text for the sender: not ASCII, no JSON, a key missing.
pub(super) fn read(body: &[u8]) -> Result<Option<Fact>, String> {
    if !body.is_ascii() {
        return Err("Status payload must be ASCII JSON; escape other characters as \\uXXXX.\n".into());
    }
    let event: Event = serde_json::from_slice(body).map_err(|e| {
        format!("Status payload is not an event ({e}); it needs event_type, origin, name and description as texts.\n")
    })?;
    // A start says where the machine is, a failure why it is stuck; top-level names (no "/") are cloud-init's stages.
    let good = event.result.as_deref().is_none_or(|r| r == "SUCCESS");
    if event.event_type == "finish" && good && event.name.contains('/') {
        return Ok(None);
    }
    let cut = |text: String| text.chars().take(TEXT).collect::<String>();
    Ok(Some(Fact::CloudInit {
        name: cut(event.name),
        event_type: cut(event.event_type),
        result: event.result.map(cut),
        description: cut(event.description),
    }))
}
