//! The answers' heads: which part of an object a client gets, and the lines before it (RFC 9110, RFC 9111 section 5.1, RFC 9211). Sends nothing.

use std::{fmt::Write, ops::Range};

use http::{HeaderMap, StatusCode, header};
use schema::time::Timestamp;

use super::{
    index::Entry,
    request::{Conditions, Refusal},
};
use crate::http::files::{date, part};

/// What was chosen of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub status: u16,
    /// Bytes of the body that follow.
    pub range: Range<u64>,
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Hit,
    /// Fetched for this client.
    Miss,
    /// Fetched for another client who was first.
    Shared,
    /// Kept, and confirmed by its server.
    Revalidated,
    /// Kept, and in place of a server that fails.
    Stale,
    /// Passed on.
    Passed,
}

impl How {
    /// The counter of such answers.
    pub(super) fn counter(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Shared => "shared",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Passed => "passed",
        }
    }

    /// As Cache-Status says it (RFC 9211).
    fn status(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "fwd=uri-miss; stored",
            Self::Shared => "fwd=uri-miss; collapsed",
            Self::Revalidated => "fwd=stale; fwd-status=304",
            Self::Stale => "hit; detail=stale-if-error",
            Self::Passed => "fwd=bypass",
        }
    }
}

/// Decides what a client gets of a whole object of `len` bytes: all, a part, nothing new (RFC 9110 section 13.2.2).
pub(super) fn choose(asked: &Conditions, etag: Option<&str>, changed: Option<&str>, len: u64) -> Chosen {
    let nothing = |status| Chosen { status, range: 0..0 };
    if let Some(tags) = &asked.if_none_match {
        let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        if tags.trim() == "*" || etag.is_some_and(|etag| tags.split(',').any(|tag| weak(tag) == weak(etag))) {
            return nothing(304);
        }
    } else if let (Some(since), Some(changed)) = (&asked.if_modified_since, changed) {
        let known = |text: &str| httpdate::parse_http_date(text).ok();
        if since == changed
            || matches!((known(since), known(changed)), (Some(since), Some(changed)) if changed <= since)
        {
            return nothing(304);
        }
    }
    let strong = |wanted: &String| {
        Some(wanted.as_str()) == etag && !wanted.starts_with("W/") || Some(wanted.as_str()) == changed
    };
    let range = asked.range.as_ref().filter(|_| asked.if_range.as_ref().is_none_or(strong));
    match range.and_then(|range| part(range, len)) {
        None => Chosen { status: 200, range: 0..len },
        Some(None) => nothing(416),
        Some(Some(range)) => Chosen { status: 206, range },
    }
}

/// The fields of a server's answer as the lines that are kept: without those that every answer of ours has anew.
pub(super) fn lines(fields: &HeaderMap, own: &str) -> String {
    let anew = [header::CONTENT_LENGTH, header::AGE, header::CONTENT_RANGE, header::ACCEPT_RANGES];
    let mut text = String::with_capacity(512);
    for (name, value) in fields {
        if let (false, Ok(value)) = (anew.contains(name), value.to_str()) {
            write!(text, "{name}: {value}\r\n").ok(); // Writing to a String cannot fail.
        }
    }
    write!(text, "via: 1.1 {own}\r\n").ok();
    text
}

/// The lines of a kept answer after its server confirmed it with these fields (RFC 9111 section 3.2): what says how the body is, stays.
pub(super) fn renewed_lines(old: &str, fields: &HeaderMap) -> String {
    let stays = |name: &str| name.starts_with("content-") || matches!(name, "age" | "via" | "vary" | "accept-ranges");
    let mut text: String = old
        .split_inclusive("\r\n")
        .filter(|line| line.split_once(':').is_some_and(|(name, _)| stays(name) || !fields.contains_key(name)))
        .collect();
    for (name, value) in fields {
        if let (false, Ok(value)) = (stays(name.as_str()), value.to_str()) {
            write!(text, "{name}: {value}\r\n").ok();
        }
    }
    text
}

/// The head of an answer from an object of the cache, whole or coming.
pub(super) fn head(entry: &Entry, chosen: &Chosen, how: How, keep_alive: bool, now: Timestamp) -> Vec<u8> {
    let mut text = String::with_capacity(entry.head.len() + 256);
    let Range { start, end } = chosen.range;
    let age = entry.age.saturating_add(now.since(entry.confirmed).as_secs());
    start_line(&mut text, chosen.status);
    text.push_str(&entry.head);
    write!(text, "accept-ranges: bytes\r\nage: {age}\r\n").ok();
    match chosen.status {
        206 => write!(text, "content-range: bytes {start}-{}/{}\r\n", end.saturating_sub(1), entry.len).ok(),
        416 => write!(text, "content-range: bytes */{}\r\n", entry.len).ok(),
        _ => None,
    };
    if chosen.status != 304 {
        write!(text, "content-length: {}\r\n", end - start).ok();
    }
    finish(&mut text, how, keep_alive);
    text.into_bytes()
}

/// How the end of a passed body shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body.
    None,
    Length(u64),
    Chunks,
    /// The connection closes.
    Close,
}

/// The head of an answer that is passed on.
pub(super) fn passed(status: StatusCode, fields: &HeaderMap, framing: Framing, keep_alive: bool, own: &str) -> Vec<u8> {
    let mut text = String::with_capacity(1_024);
    start_line(&mut text, status.as_u16());
    for (name, value) in fields {
        if let (false, Ok(value)) = (*name == header::CONTENT_LENGTH && framing != Framing::None, value.to_str()) {
            write!(text, "{name}: {value}\r\n").ok();
        }
    }
    write!(text, "via: 1.1 {own}\r\n").ok();
    match framing {
        Framing::Length(len) => write!(text, "content-length: {len}\r\n").ok(),
        Framing::Chunks => write!(text, "transfer-encoding: chunked\r\n").ok(),
        Framing::None | Framing::Close => None,
    };
    finish(&mut text, How::Passed, keep_alive);
    text.into_bytes()
}

/// A whole answer that says why there is none.
pub(super) fn refused(refusal: &Refusal, keep_alive: bool, head_only: bool, now: Timestamp) -> Vec<u8> {
    let mut text = String::with_capacity(512);
    start_line(&mut text, refusal.status);
    let body = format!("The package proxy of the rack: {}.\n", refusal.why);
    write!(text, "date: {}\r\ncontent-type: text/plain; charset=utf-8\r\n", date(now)).ok();
    write!(text, "cache-control: no-store\r\ncontent-length: {}\r\n", body.len()).ok();
    match refusal.status {
        405 => text.push_str("allow: GET, HEAD\r\n"),
        502..=504 => text.push_str("retry-after: 5\r\n"),
        _ => {}
    }
    text.push_str(if keep_alive { "connection: keep-alive\r\n\r\n" } else { "connection: close\r\n\r\n" });
    if !head_only {
        text.push_str(&body);
    }
    text.into_bytes()
}

fn start_line(text: &mut String, status: u16) {
    let reason = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Answer");
    write!(text, "HTTP/1.1 {status} {reason}\r\n").ok();
}

fn finish(text: &mut String, how: How, keep_alive: bool) {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    write!(text, "cache-status: hostler; {}\r\nconnection: {connection}\r\n\r\n", how.status()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(fields: [Option<&str>; 4]) -> Conditions {
        let [range, if_range, if_none_match, if_modified_since] = fields.map(|f| f.map(str::to_owned));
        Conditions { range, if_range, if_none_match, if_modified_since }
    }

    #[test]
    fn a_client_gets_the_part_it_lacks() {
        const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        let chosen = |fields| choose(&ask(fields), Some("\"a\""), Some(DATE), 100);
        let table = [
            ([None; 4], 200, 0..100),
            ([Some("bytes=40-"), None, None, None], 206, 40..100),
            ([Some("bytes=40-"), Some("\"a\""), None, None], 206, 40..100),
            ([Some("bytes=40-"), Some(DATE), None, None], 206, 40..100),
            ([Some("bytes=40-"), Some("\"b\""), None, None], 200, 0..100),
            ([Some("bytes=40-"), Some("W/\"a\""), None, None], 200, 0..100),
            ([Some("bytes=100-"), None, None, None], 416, 0..0),
            ([Some("bytes=1-2,4-5"), None, None, None], 200, 0..100),
            ([None, None, Some("W/\"a\", \"x\""), None], 304, 0..0),
            ([None, None, Some("*"), None], 304, 0..0),
            ([None, None, Some("\"b\""), Some(DATE)], 200, 0..100),
            ([None, None, None, Some("Sun, 06 Nov 1994 08:49:38 GMT")], 304, 0..0),
            ([None, None, None, Some("Sun, 06 Nov 1994 08:49:36 GMT")], 200, 0..100),
            ([Some("bytes=40-"), None, None, Some("nonsense")], 206, 40..100),
        ];
        for (fields, status, range) in table {
            assert_eq!(chosen(fields), Chosen { status, range }, "{fields:?}");
        }
    }
}
