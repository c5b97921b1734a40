//! `hostler actor trace PATH`: an actor's next messages, as they come. The region keeps them for as long as this runs, and not longer.

use clap::{Args, ValueEnum};
use region::inspect::most;
use reqwest::Method;
use serde_json::Value;

use super::{
    actor::{MESSAGES, step},
    client::{Client, Fields},
    failure::Failure,
    input::whole,
    output::{self, Format},
};

/// What to keep of an actor's messages.
#[derive(Debug, Clone, Args)]
pub struct Wanted {
    /// Messages, 100 at most; for an actor, not for a trace id
    #[arg(long, value_parser = whole::<u32>(1, most::TRACED, "20"))]
    pub messages: Option<u32>,
    /// Seconds, 60 at most
    #[arg(long, value_parser = whole::<u32>(1, most::SECONDS, "30"))]
    pub seconds: Option<u32>,
    /// How much of their content
    #[arg(long, value_enum)]
    pub payload: Option<Payload>,
}

/// How much of a message's content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Payload {
    /// Nothing but its name
    None,
    /// The names of its types and fields
    Types,
    /// All of it but secrets
    Redacted,
}

impl Wanted {
    /// Whether any of it was asked for.
    #[must_use]
    pub fn any(&self) -> bool {
        self.messages.is_some() || self.seconds.is_some() || self.payload.is_some()
    }

    fn form(&self, path: &str) -> Fields<'static> {
        let payload = self.payload.map(|payload| match payload {
            Payload::None => "none",
            Payload::Types => "types",
            Payload::Redacted => "redacted",
        });
        let mut form: Fields<'static> = vec![("path", path.to_owned())];
        form.extend(self.messages.map(|n| ("messages", n.to_string())));
        form.extend(self.seconds.map(|n| ("seconds", n.to_string())));
        form.extend(payload.map(|p| ("payload", p.to_owned())));
        form
    }
}

/// Traces an actor until as many messages came, or the time is over, or somebody interrupts it.
///
/// # Errors
/// As the region says.
pub async fn run(format: Format, client: &Client, path: &str, wanted: &Wanted) -> Result<(), Failure> {
    let begun = client.own(Method::POST, "/inspect/v1/traces", Some(&wanted.form(path))).await?;
    let place = format!("/inspect/v1/traces/{}", begun["id"].as_str().unwrap_or_default());
    let words = |name: &str| begun[name].to_string();
    eprintln!("the next {} messages of {path}, for at most {} s", words("messages"), words("seconds"));
    let read = tokio::select! {
        read = read(format, client, &place) => read,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    // It has been read; where this does not arrive, the region forgets it by itself.
    client.own(Method::DELETE, &place, None).await.ok();
    read
}

async fn read(format: Format, client: &Client, place: &str) -> Result<(), Failure> {
    let mut stream = client.stream(place, &vec![("as", "ndjson".to_owned())], false).await?;
    let mut all = Vec::new();
    while let Some(value) = stream.next_line().await? {
        if let Some(end) = value["end"].as_str() {
            eprintln!("{} messages; {end}", value["messages"]);
            continue;
        }
        match format {
            Format::Table => output::print(&text(&value))?,
            Format::Ndjson => output::print(&format!("{value}\n"))?,
            _ => all.push(step(&value)),
        }
    }
    match format {
        Format::Table | Format::Ndjson => Ok(()),
        _ => output::list(format, MESSAGES, "/event", &all),
    }
}

/// A message as people read it: a line, and its content on a second one.
fn text(message: &Value) -> String {
    let shown = step(message);
    let part = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
    let why = part("why");
    let why = if why.is_empty() { why } else { format!(" ({why})") };
    let [at, event, sender, verdict, to] = ["at", "event", "sender", "verdict", "to"].map(part);
    let (waited, took) = (part("waited"), part("took"));
    let cut = if shown["payload_whole"] == false { " …" } else { "" };
    let payload = shown["payload"].as_str().map(|payload| format!("    {payload}{cut}\n")).unwrap_or_default();
    format!("{at} {event} from {sender}: {verdict}{why}, now {to}; waited {waited}, took {took}\n{payload}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_a_line_with_its_content_below() {
        let mut message = json!({
            "at": "T", "event": "Created", "sender": "api", "verdict": "moved", "why": "", "to": "New", "wait_us": 5, "handle_us": 2_000,
        });
        let line = "T Created from api: moved, now New; waited 5 µs, took 2 ms\n";
        assert_eq!(text(&message), line);
        message["payload"] = "Created { .. }".into();
        message["payload_whole"] = false.into();
        assert_eq!(text(&message), format!("{line}    Created {{ .. }} …\n"));
    }
}
