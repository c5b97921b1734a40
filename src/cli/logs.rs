//! `hostler machine logs`: what a machine wrote to syslog, and what it goes on to write.

use std::{io::Write, net::IpAddr};

use clap::Args;
use serde_json::Value;

use super::{
    client::{Client, Fields},
    failure::Failure,
    machine::{find, id},
    output::{self, Format},
};

/// Which lines.
#[derive(Debug, Args)]
pub struct Logs {
    /// A machine; or the address of one that is not known, where its subnet lets strangers in
    pub machine: String,
    /// Go on as lines come
    #[arg(short, long)]
    pub follow: bool,
    /// Only those of this attempt
    #[arg(long)]
    pub attempt: Option<u32>,
    /// Only those since a time (RFC 3339) or for a span, as in 90s, 30m or 2h
    #[arg(long)]
    pub since: Option<String>,
    /// Only the last ones, at most 100000
    #[arg(short = 'n', long = "lines", default_value_t = 1_000)]
    pub lines: usize,
}

/// Prints them.
///
/// # Errors
/// As the region says; when the stream breaks off.
pub async fn run(format: Format, client: &Client, asked: Logs) -> Result<(), Failure> {
    let name = match asked.machine.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => id(&find(client, &asked.machine).await?)?,
    };
    let mut query: Fields<'_> = vec![("lines", asked.lines.to_string()), ("follow", asked.follow.to_string())];
    query.extend(asked.attempt.map(|a| ("attempt", a.to_string())));
    if let Some(since) = &asked.since {
        // A span is told as seconds; what is none is a time, and the region says when it is not.
        let seconds = super::machine::span(since).map(|span| span.as_secs().to_string());
        query.push(("since", seconds.unwrap_or_else(|_| since.clone())));
    }
    let mut stream = client.stream(&format!("/logs/{name}"), &query, asked.follow).await?;
    let mut all = Vec::new();
    while let Some(value) = stream.next_line().await? {
        match format {
            Format::Table => write(&text(&value))?,
            Format::Ndjson => write(&format!("{value}\n"))?,
            _ if asked.follow => {
                return Err(Failure::usage(
                    "a log that goes on has no end to close a list with",
                    "use -o ndjson, or leave --follow",
                ));
            }
            _ => all.push(value),
        }
    }
    match format {
        Format::Table | Format::Ndjson => Ok(()),
        _ => output::list(format, COLUMNS, "/text", &all),
    }
}

const COLUMNS: &[output::Column] = &[
    ("TIME", "/at"),
    ("ATTEMPT", "/attempt"),
    ("HOST", "/host"),
    ("FACILITY", "/facility"),
    ("SEVERITY", "/severity"),
    ("PROGRAM", "/app"),
    ("PROCESS", "/procid"),
    ("TEXT", "/text"),
];

/// A line as people read it: time, program with its process, text.
fn text(line: &Value) -> String {
    let part = |name: &str| line[name].as_str().unwrap_or_default();
    let process = if part("procid").is_empty() { String::new() } else { format!("[{}]", part("procid")) };
    let program = if part("app").is_empty() { String::new() } else { format!("{}{process}: ", part("app")) };
    let said = if part("said").is_empty() { String::new() } else { format!(" (its clock says {})", part("said")) };
    format!("{} {program}{}{said}\n", part("at"), part("text"))
}

/// One line at once: a follower must not wait for a full buffer.
fn write(text: &str) -> Result<(), Failure> {
    output::print(text)?;
    std::io::stdout().flush().ok(); // A reader that has gone is noticed by the next line.
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_names_time_program_and_a_clock_that_is_off() {
        let line = json!({"at": "T", "app": "sshd", "procid": "812", "text": "hello", "said": null});
        assert_eq!(text(&line), "T sshd[812]: hello\n");
        let line = json!({"at": "T", "app": "", "procid": "", "text": "hello", "said": "1970"});
        assert_eq!(text(&line), "T hello (its clock says 1970)\n");
    }
}
