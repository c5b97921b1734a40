//! `hostler event tail`: what happened to the machines, and what goes on to happen.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    client::{Client, Fields},
    failure::Failure,
    input::whole,
    machine::{array, find, id},
    output::{self, Format},
};

/// What happened.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The last events, oldest first; with -f also those to come
    Tail(Tail),
}

/// Which events.
#[derive(Debug, Args)]
pub struct Tail {
    /// Only of these machines
    pub machines: Vec<String>,
    /// Go on as events come
    #[arg(short, long)]
    pub follow: bool,
    /// Only this level and graver ones; audit: only that
    #[arg(long, value_parser = ["audit", "debug", "info", "warning", "error"])]
    pub level: Option<String>,
    /// Only the last ones, at most 1000
    #[arg(short = 'n', long = "lines", default_value_t = 20, value_parser = whole::<u32>(1, PAGE, "20"))]
    pub lines: u32,
}

/// The most events that the region answers at once.
const PAGE: u64 = 1_000;
/// How long a follower waits before it asks anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints them.
///
/// # Errors
/// As the region says.
pub async fn run(format: Format, client: &Client, Command::Tail(asked): Command) -> Result<(), Failure> {
    if asked.follow && !matches!(format, Format::Table | Format::Ndjson) {
        return Err(Failure::usage(
            "events that go on have no end to close a list with",
            "use -o ndjson, or leave --follow",
        ));
    }
    let mut filter: Fields<'_> = vec![("op", "query".to_owned())];
    for name in &asked.machines {
        filter.push(("id", id(&find(client, name).await?)?));
    }
    filter.extend(asked.level.map(|level| ("level", level.to_uppercase())));
    filter.push(("limit", asked.lines.to_string()));
    let mut newest = print(format, &client.get("events/", &filter).await?)?.unwrap_or(0);
    if !asked.follow {
        return Ok(());
    }
    filter.pop();
    filter.push(("limit", PAGE.to_string()));
    loop {
        tokio::time::sleep(PAUSE).await;
        let after = [&filter[..], &[("after", newest.to_string())]].concat();
        newest = print(format, &client.get("events/", &after).await?)?.unwrap_or(newest);
    }
}

/// Prints a page, oldest first, and says the id of its newest event.
fn print(format: Format, page: &Value) -> Result<Option<u64>, Failure> {
    const COLUMNS: &[output::Column] = &[
        ("AT", "/at"),
        ("LEVEL", "/level"),
        ("MACHINE", "/hostname"),
        ("ID", "/node"),
        ("TYPE", "/type"),
        ("BY", "/username"),
        ("DESCRIPTION", "/description"),
    ];
    let mut events = array(&page["events"]).to_vec();
    events.reverse();
    match format {
        Format::Table => output::print(&events.iter().map(line).collect::<String>())?,
        _ => output::list(format, COLUMNS, "/id", &events)?,
    }
    Ok(events.last().and_then(|event| event["id"].as_u64()))
}

/// An event as people read it. Columns would have to know how wide those to come are.
fn line(event: &Value) -> String {
    let part = |name: &str| event[name].as_str().filter(|text| !text.is_empty());
    let by = part("username").map(|user| format!(" (by {user})")).unwrap_or_default();
    let machine = part("hostname").or(part("node")).unwrap_or("-");
    let [at, level, what] = ["at", "level", "description"].map(|name| part(name).unwrap_or_default());
    format!("{at} {level:<7} {machine}: {}{by}\n", what.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line_that_names_its_machine() {
        let mut event = json!({
            "at": "T", "level": "INFO", "hostname": "fox", "node": "abcdef", "username": "", "description": "on\nand off",
        });
        assert_eq!(line(&event), "T INFO    fox: on and off\n");
        event["username"] = "admin".into();
        event["hostname"] = "".into(); // It was deleted since.
        assert_eq!(line(&event), "T INFO    abcdef: on and off (by admin)\n");
    }
}
