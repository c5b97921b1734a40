//! What a line of syslog says, in whatever form it came: RFC 5424, RFC 3164, what programs make of them, or plain text. Pure.
//!
//! Nothing is refused: what has no form is text. So a sender's fault costs a field, never a line.

use crate::time::Timestamp;

/// A line by its parts; those that it does not say are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed<'a> {
    pub pri: u8,
    pub time: Option<Timestamp>,
    pub host: &'a str,
    pub app: &'a str,
    pub procid: &'a str,
    /// Structured data with its brackets.
    pub data: &'a str,
    pub text: &'a str,
}

/// What a line without a priority counts as: user, notice (RFC 3164 section 4.3.3).
const PRI: u8 = 13;
/// The highest: facility 23, severity 7.
const PRI_MAX: u8 = 191;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The longest program name that is taken for one.
const TAG: usize = 64;

/// Reads a line that was heard at `now` (which settles the year that RFC 3164 leaves out).
#[must_use]
pub fn parse(line: &str, now: Timestamp) -> Parsed<'_> {
    let line = line.trim_end_matches(['\n', '\r', '\0']);
    let (pri, rest) = priority(line).unwrap_or((PRI, line));
    rest.strip_prefix("1 ").and_then(|body| rfc5424(pri, body)).unwrap_or_else(|| rfc3164(pri, rest, now))
}

fn priority(line: &str) -> Option<(u8, &str)> {
    let (digits, rest) = line.strip_prefix('<')?.split_once('>')?;
    let good = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let pri: u8 = digits.parse().ok().filter(|pri| good && *pri <= PRI_MAX)?;
    Some((pri, rest))
}

/// RFC 5424 section 6, after the version.
fn rfc5424(pri: u8, body: &str) -> Option<Parsed<'_>> {
    let mut rest = body;
    let mut field = || {
        let (word, tail) = rest.split_once(' ')?;
        rest = tail;
        Some(if word == "-" { "" } else { word })
    };
    let (time, host, app, procid, _msgid) = (field()?, field()?, field()?, field()?, field()?);
    let (data, text) = structured_data(rest)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Some(Parsed { pri, time: Timestamp::parse_rfc3339(time), host, app, procid, data, text })
}

/// `-` or elements in brackets, whose quoted values escape `"`, `\` and `]`; then the text.
fn structured_data(rest: &str) -> Option<(&str, &str)> {
    if let Some(text) = rest.strip_prefix('-') {
        return text.strip_prefix(' ').or(text.is_empty().then_some("")).map(|text| ("", text));
    }
    let bytes = rest.as_bytes();
    let (mut at, mut quoted) = (0, false);
    while bytes.get(at) == Some(&b'[') {
        loop {
            at += 1;
            match bytes.get(at)? {
                b'\\' if quoted => at += 1,
                b'"' => quoted = !quoted,
                b']' if !quoted => break,
                _ => {}
            }
        }
        at += 1;
    }
    let text = rest.get(at..)?;
    let text = text.strip_prefix(' ').or(text.is_empty().then_some(""))?;
    (at > 0).then(|| (rest.get(..at).unwrap_or(""), text))
}

/// RFC 3164 section 4, with RFC 3339's times as rsyslog sends them.
fn rfc3164(pri: u8, rest: &str, now: Timestamp) -> Parsed<'_> {
    let (time, after) = match old_time(rest, now) {
        Some((time, after)) => (Some(time), after),
        None => match rest.split_once(' ').and_then(|(word, after)| Some((Timestamp::parse_rfc3339(word)?, after))) {
            Some((time, after)) => (Some(time), after),
            None => (None, rest),
        },
    };
    // A host name stands only behind a time; a word with a colon or a bracket is the program already.
    let (host, after) = match after.split_once(' ') {
        Some((word, tail)) if time.is_some() && !word.is_empty() && tag(after).is_none() => (word, tail),
        _ => ("", after),
    };
    let (app, procid, text) = tag(after).unwrap_or(("", "", after));
    Parsed { pri, time, host, app, procid, data: "", text }
}

/// `Mmm dd hh:mm:ss ` in UTC, in the year that brings it nearest to `now`.
fn old_time(text: &str, now: Timestamp) -> Option<(Timestamp, &str)> {
    let (stamp, rest) = (text.get(..15)?, text.get(15..)?.strip_prefix(' ')?);
    let month = u32::try_from(MONTHS.iter().position(|m| stamp.starts_with(m))?).ok()? + 1;
    let number = |at: std::ops::Range<usize>| stamp.get(at)?.trim_start().parse::<u32>().ok();
    let marks = [(3, b' '), (6, b' '), (9, b':'), (12, b':')];
    if marks.iter().any(|(at, mark)| stamp.as_bytes().get(*at) != Some(mark)) {
        return None;
    }
    let (day, hour, minute, second) = (number(4..6)?, number(7..9)?, number(10..12)?, number(13..15)?);
    let this = now.civil().0;
    let years = [this - 1, this, this + 1].into_iter();
    let times = years.filter_map(|year| Timestamp::from_civil(year, month, day, hour, minute, second));
    times.min_by_key(|time| time.0.abs_diff(now.0)).map(|time| (time, rest))
}

/// `name: text`, `name[123]: text`, and without the colon `name[123] text`.
fn tag(text: &str) -> Option<(&str, &str, &str)> {
    let end = text.bytes().take(TAG + 1).position(|b| matches!(b, b':' | b'[' | b' '))?;
    let (name, rest) = text.split_at_checked(end)?;
    let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
    let (procid, rest) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (procid, rest) = inner.split_once(']')?;
            let fine = procid.len() <= TAG && procid.bytes().all(|b| b.is_ascii_graphic());
            (fine.then_some(procid)?, rest.strip_prefix(':').unwrap_or(rest))
        }
        None => ("", rest.strip_prefix(':')?),
    };
    // "kernel:x" is a name, "10:30" and "http://x" are not.
    let apart = rest.is_empty() || rest.starts_with(' ');
    (named && apart).then(|| (name, procid, rest.strip_prefix(' ').unwrap_or(rest)))
}

/// A text without control characters: they become `#` and three octal digits, as rsyslog writes them. So no line breaks in a log,
/// and nothing that a terminal obeys.
#[must_use]
pub fn plain(text: &str) -> String {
    use std::fmt::Write;
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            c if c.is_control() => write!(out, "#{:03o}", c as u32).unwrap_or_default(), // To a String it cannot fail.
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_366_923_000_000);

    fn parts(line: &str) -> (u8, &str, &str, &str, &str) {
        let p = parse(line, NOW);
        (p.pri, p.host, p.app, p.procid, p.text)
    }

    #[test]
    fn both_standards_and_what_programs_make_of_them() {
        let cases = [
            (
                "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed",
                (34, "mymachine.example.com", "su", "", "'su root' failed"),
            ),
            (
                "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time",
                (165, "192.0.2.1", "myproc", "8710", "%% It's time"),
            ),
            ("<165>1 - - ev - - [a@1 x=\"3\" y=\"a\\\"]b\"][b@1] An event", (165, "", "ev", "", "An event")),
            ("<13>1 - - - - - -", (13, "", "", "", "")),
            ("<34>Oct 11 22:14:15 mymachine su: 'su root' failed", (34, "mymachine", "su", "", "'su root' failed")),
            (
                "<13>Nov 25 09:45:03 fox cloud-init[1234]: Up 31.52 seconds.\n",
                (13, "fox", "cloud-init", "1234", "Up 31.52 seconds."),
            ),
            ("<13>2026-11-25T09:45:03.123456+00:00 fox kernel: [    0.1] x", (13, "fox", "kernel", "", "[    0.1] x")),
            ("<13>Nov  5 09:45:03 root: no host", (13, "", "root", "", "no host")),
            ("<30>dnsmasq[7]: started", (30, "", "dnsmasq", "7", "started")),
            ("<6>random text at 10:30", (6, "", "", "", "random text at 10:30")),
            ("<13>http://x is no tag", (13, "", "", "", "http://x is no tag")),
            ("plain", (13, "", "", "", "plain")),
            ("<192>x", (13, "", "", "", "<192>x")),
            ("<1>1 broken", (1, "", "", "", "1 broken")),
            ("<13>1 2026 h a p m [x=\"", (13, "", "", "", "1 2026 h a p m [x=\"")),
            ("", (13, "", "", "", "")),
        ];
        for (line, wanted) in cases {
            assert_eq!(parts(line), wanted, "{line}");
        }
    }

    #[test]
    fn the_year_is_the_nearest_one() {
        let year = |line: &str, now: Timestamp| parse(line, now).time.unwrap().civil().0;
        let eve = Timestamp::from_civil(2026, 12, 31, 23, 59, 0).unwrap();
        assert_eq!(year("<13>Jan  1 00:00:01 fox a: b", eve), 2027);
        assert_eq!(year("<13>Dec 31 23:59:59 fox a: b", Timestamp::from_civil(2027, 1, 1, 0, 0, 5).unwrap()), 2026);
        assert_eq!(parse("<13>Feb 30 10:00:00 fox a: b", eve).time, None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_line(line in "\\PC{0,200}", start in "(<[0-9]{0,4}>)?(1 )?([A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} )?") {
            let text = format!("{start}{line}");
            let parsed = parse(&text, NOW);
            prop_assert!(parsed.pri <= PRI_MAX);
            prop_assert!(text.contains(parsed.text) && text.contains(parsed.host) && text.contains(parsed.app));
        }

        #[test]
        fn plain_text_has_no_control_characters(text in any::<String>()) {
            prop_assert!(!plain(&text).contains(char::is_control));
        }
    }
}
