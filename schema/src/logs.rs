//! Lines of the machines' logs: as a rack takes them, as the region keeps them, and their one written form (RFC 5424).

use std::{fmt::Write, net::IpAddr};

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    id::{AttemptId, SystemId},
    time::Timestamp,
};

pub mod parse;

/// The structured data of ours. 32473 is the number of examples (RFC 5612): we have none of our own.
const OURS: &str = "hostler@32473";
/// A machine's own clock is worth a word from that many microseconds on.
const APART: u64 = 2_000_000;

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// By the address that it holds. Attempt 0: under no orders.
    Machine { machine: SystemId, attempt: AttemptId },
    /// An address that no machine of the plan holds, on a subnet that allows strangers.
    Stranger(IpAddr),
}

impl LogSource {
    /// The name its log is kept under: the machine's id, or the address.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Machine { machine, .. } => machine.to_string(),
            Self::Stranger(address) => address.to_string(),
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LogLine {
    /// When the rack heard it, by the rack's clock.
    pub at: Timestamp,
    pub source: LogSource,
    /// The host's name as the plan has it; of a stranger its address.
    pub host: String,
    /// Facility times 8 and severity (RFC 5424 section 6.2.1).
    pub pri: u8,
    /// The program; empty where the line does not say.
    pub app: String,
    /// Its process; empty where the line does not say.
    pub procid: String,
    /// When the machine says it was, where that is seconds away from `at`.
    pub said: Option<Timestamp>,
    /// One line of text without control characters.
    pub text: String,
}

/// What a rack sends of its machines' logs at once. Sent again until the region says that it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LogBatch {
    /// Drawn at the rack's start; batches of another run have another.
    pub run: u64,
    /// Counts the batches of a run up from 1.
    pub number: u64,
    pub lines: Vec<LogLine>,
}

impl LogLine {
    /// The line as it came in `bytes` from `source`.
    #[must_use]
    pub fn heard(bytes: &[u8], source: LogSource, host: &str, at: Timestamp) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let line = parse::parse(&text, at);
        Self {
            at,
            source,
            host: host.to_owned(),
            pri: line.pri,
            app: parse::plain(line.app),
            procid: parse::plain(line.procid),
            said: line.time.filter(|said| said.0.abs_diff(at.0) >= APART),
            // A mark of byte order is none of the text, and would not survive RFC 5424.
            text: parse::plain(line.text.trim_start_matches('\u{feff}')),
        }
    }

    /// A line of our own in that log: lines before it are missing.
    #[must_use]
    pub fn lost(lines: u64, why: &str, source: LogSource, host: &str, at: Timestamp) -> Self {
        let text = format!("{lines} {} lost: {why}", if lines == 1 { "line" } else { "lines" });
        // Facility syslog, severity warning.
        Self {
            at,
            source,
            host: host.to_owned(),
            pri: 5 * 8 + 4,
            app: "hostler".into(),
            procid: String::new(),
            said: None,
            text,
        }
    }

    /// Bytes that it takes in memory and on the wire, about.
    #[must_use]
    pub fn size(&self) -> usize {
        64 + self.host.len() + self.app.len() + self.procid.len() + self.text.len()
    }

    /// Appends the line in RFC 5424's form, without an end of line.
    pub fn write(&self, out: &mut String) {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { word(text) };
        write!(out, "<{}>1 ", self.pri).ok(); // Writing to a String cannot fail.
        self.at.write_precise(out);
        write!(out, " {} {} {} - ", dash(&self.host), dash(&self.app), dash(&self.procid)).ok();
        let attempt = match self.source {
            LogSource::Machine { attempt, .. } if attempt.0 > 0 => Some(attempt),
            _ => None,
        };
        if attempt.is_none() && self.said.is_none() {
            out.push('-');
        } else {
            out.push('[');
            out.push_str(OURS);
            if let Some(attempt) = attempt {
                write!(out, " attempt=\"{attempt}\"").ok();
            }
            if let Some(said) = self.said {
                out.push_str(" said=\"");
                said.write_precise(out);
                out.push('"');
            }
            out.push(']');
        }
        out.push(' ');
        out.push_str(&self.text);
    }
}

/// A header field: printable ASCII without spaces (section 6).
fn word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(128).collect()
}

/// A kept line, read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptLine {
    /// When the rack heard it; RFC 3339.
    pub at: String,
    #[serde(skip)]
    pub time: Timestamp,
    pub attempt: Option<u32>,
    /// When the machine says it was, where that is seconds away from `at`.
    pub said: Option<String>,
    pub host: String,
    /// RFC 5424 section 6.2.1: 0 kernel, 1 user, 3 daemon, 4 and 10 security, …
    pub facility: u8,
    /// 0 emergency to 7 debug.
    pub severity: u8,
    pub app: String,
    pub procid: String,
    pub text: String,
}

impl KeptLine {
    /// Reads what [`LogLine::write`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let parsed = parse::parse(line, Timestamp(0));
        let time = parsed.time?;
        let own = |name: &str| {
            let rest = parsed.data.strip_prefix('[')?.strip_prefix(OURS)?;
            let (_, value) = rest.split_once(&format!(" {name}=\""))?;
            value.split('"').next()
        };
        Some(Self {
            at: time.precise(),
            time,
            attempt: own("attempt").and_then(|a| a.parse().ok()),
            said: own("said").map(str::to_owned),
            host: parsed.host.to_owned(),
            facility: parsed.pri >> 3,
            severity: parsed.pri & 7,
            app: parsed.app.to_owned(),
            procid: parsed.procid.to_owned(),
            text: parsed.text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(attempt: u32) -> LogSource {
        LogSource::Machine { machine: "4y3h7n".parse().unwrap(), attempt: AttemptId(attempt) }
    }

    #[test]
    fn a_line_is_kept_with_attempt_and_the_machines_own_time() {
        let at = Timestamp(1_795_366_923_456_789);
        let line = LogLine::heard(b"<86>Nov 22 16:02:03 fox sshd[812]: hello\x1b[0m", source(3), "fox", at);
        let mut text = String::new();
        line.write(&mut text);
        let kept = KeptLine::parse(&text).unwrap();
        assert_eq!((kept.time, kept.attempt, kept.facility, kept.severity), (at, Some(3), 10, 6));
        assert_eq!((kept.app.as_str(), kept.procid.as_str(), kept.text.as_str()), ("sshd", "812", "hello#033[0m"));
        assert_eq!(kept.said.as_deref(), Some("2026-11-22T16:02:03.000000Z"));
        let near = LogLine::heard(b"<13>Nov 22 17:02:03 fox x: y", source(0), "fox", at);
        assert_eq!(near.said, None);
        let lost = LogLine::lost(1, "too fast", source(3), "fox", at);
        assert_eq!(lost.text, "1 line lost: too fast");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line_that_is_kept_and_read_back(bytes in prop::collection::vec(any::<u8>(), 0..400), attempt in 0_u32..5) {
            let line = LogLine::heard(&bytes, source(attempt), "fox", Timestamp(1_795_366_923_456_789));
            prop_assert!(!line.text.contains(|c: char| c.is_control()));
            let mut text = String::new();
            line.write(&mut text);
            prop_assert!(!text.contains('\n'));
            let kept = KeptLine::parse(&text);
            prop_assert_eq!(kept.map(|k| (k.time, k.text)), Some((line.at, line.text)));
        }
    }
}
