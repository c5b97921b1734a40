//! HTTP for files, as decisions (RFC 9110): one request's head, which bytes answer it, and the answer's head. Opens nothing, sends nothing.

use std::{fmt::Write, ops::Range};

use schema::{boot::Sha256, time::Timestamp};

/// Longest head that is read, in bytes.
pub const MAX_HEAD: usize = 8_192;
/// Most header fields in a head.
const MAX_FIELDS: usize = 64;
/// What a machine is told to wait for a file that is not here yet, in seconds.
const RETRY_AFTER_S: u8 = 5;

/// A request for a file: GET or HEAD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asking {
    /// HEAD: only the answer's head goes out.
    pub head_only: bool,
    /// The path without its query, percent-decoded.
    pub path: String,
    pub keep_alive: bool,
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub if_none_match: Option<String>,
}

/// A head that cannot be answered with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// No HTTP/1 request.
    #[error("this is no HTTP/1 request: {0}")]
    Syntax(String),
    /// A body, which no request for a file has.
    #[error("a request for a file has no body; leave out Content-Length and Transfer-Encoding")]
    Body,
    /// Another method.
    #[error("files are read with GET or HEAD")]
    Method,
}

/// What stands behind a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    /// A body: its length and its hash, which is its strong validator.
    Body {
        len: u64,
        sha256: Sha256,
    },
    /// A text made for this request.
    Text {
        len: u64,
    },
    Missing,
    /// It should be here, and is not yet.
    Absent,
}

/// The answer but for its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    /// Which bytes of the entity follow.
    pub range: Range<u64>,
    /// The body's length as announced (HEAD announces without sending).
    pub len: u64,
    /// A sentence in place of an entity.
    pub note: &'static str,
}

impl Reply {
    /// Whether the entity's last byte goes out with this answer.
    #[must_use]
    pub fn ends_at(&self, len: u64) -> bool {
        matches!(self.status, 200 | 206) && self.range.end == len
    }
}

/// Reads the head of one request; `None` while its end is not here.
///
/// # Errors
/// [`HeadError`] for everything but GET and HEAD without a body.
pub fn parse(bytes: &[u8]) -> Result<Option<(Asking, usize)>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(HeadError::Syntax(error.to_string())),
    };
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(HeadError::Method),
    };
    let mut asking = Asking {
        head_only,
        path: path_of(request.path.unwrap_or_default()),
        keep_alive: request.version == Some(1),
        ..Asking::default()
    };
    for field in request.headers.iter() {
        let text = || std::str::from_utf8(field.value).ok().map(str::to_owned);
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("range") {
            asking.range = text();
        } else if is("if-range") {
            asking.if_range = text();
        } else if is("if-none-match") {
            asking.if_none_match = text();
        } else if is("connection") {
            let value = text().unwrap_or_default().to_ascii_lowercase();
            asking.keep_alive = !value.contains("close") && (asking.keep_alive || value.contains("keep-alive"));
        } else if is("transfer-encoding") || is("content-length") && field.value != b"0" {
            return Err(HeadError::Body);
        }
    }
    Ok(Some((asking, len)))
}

/// The path of a request target in origin form, without query and fragment, percent-decoded; what is no text becomes U+FFFD.
#[must_use]
pub fn path_of(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if !path.contains('%') {
        return path.to_owned();
    }
    let (mut out, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        let pair = tail.get(..2).and_then(|p| std::str::from_utf8(p).ok());
        let escaped = (byte == b'%').then(|| pair.and_then(|p| u8::from_str_radix(p, 16).ok())).flatten();
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Decides which bytes answer `asking`.
#[must_use]
pub fn reply(asking: &Asking, entity: Entity) -> Reply {
    let note = |status, note: &'static str| Reply {
        status,
        fields: vec![("content-type", "text/plain; charset=utf-8".into())],
        range: 0..0,
        len: note.len() as u64,
        note,
    };
    let (len, etag) = match entity {
        Entity::Missing => return note(404, "Not found.\n"),
        Entity::Absent => {
            let mut reply = note(503, "The rack has not fetched this file yet. Ask again.\n");
            reply.fields.push(("retry-after", RETRY_AFTER_S.to_string()));
            return reply;
        }
        Entity::Body { len, sha256 } => (len, Some(format!("\"{sha256}\""))),
        Entity::Text { len } => (len, None),
    };
    let mut fields = vec![("content-type", content_type(&asking.path, entity).to_owned())];
    if let Some(etag) = &etag {
        fields.push(("etag", etag.clone()));
        fields.push(("accept-ranges", "bytes".into()));
        let matched =
            |list: &str| list.split(',').map(str::trim).any(|t| t == "*" || t.trim_start_matches("W/") == etag);
        if asking.if_none_match.as_deref().is_some_and(matched) {
            return Reply { status: 304, fields, range: 0..0, len: 0, note: "" };
        }
    }
    // A range of a text that is made anew each time has no meaning; RFC 9110 section 14.2 lets a server ignore it.
    let fits = etag.is_some() && asking.if_range.as_ref().is_none_or(|wanted| Some(wanted) == etag.as_ref());
    match asking.range.as_deref().filter(|_| fits && !asking.head_only).and_then(|r| part(r, len)) {
        None => Reply { status: 200, fields, range: 0..len, len, note: "" },
        Some(None) => {
            fields.push(("content-range", format!("bytes */{len}")));
            Reply { status: 416, fields, range: 0..0, len: 0, note: "" }
        }
        Some(Some(range)) => {
            fields.push(("content-range", format!("bytes {}-{}/{len}", range.start, range.end - 1)));
            Reply { status: 206, fields, len: range.end - range.start, range, note: "" }
        }
    }
}

/// One byte range of `len` bytes (RFC 9110 section 14.1.2). `None`: not one range of bytes, so the field is ignored;
/// `Some(None)`: it lies outside.
pub(crate) fn part(field: &str, len: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = field.trim().strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = match (first.trim().is_empty(), last.trim().is_empty()) {
        (true, true) => return None,
        (true, false) => len.saturating_sub(number(last)?)..len,
        (false, true) => number(first)?..len,
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(len)
        }
    };
    Some((range.start < range.end).then_some(range))
}

/// UEFI HTTP boot insists on `application/efi` for what it runs.
fn content_type(path: &str, entity: Entity) -> &'static str {
    match entity {
        Entity::Text { .. } => "text/plain; charset=utf-8",
        _ if path.ends_with(".efi") => "application/efi",
        _ => "application/octet-stream",
    }
}

/// The answer's head as bytes, its empty line included.
#[must_use]
pub fn head(reply: &Reply, keep_alive: bool, now: Timestamp) -> Vec<u8> {
    let mut text = String::with_capacity(384);
    // Writing to a String cannot fail.
    write!(text, "HTTP/1.1 {} {}\r\ndate: {}\r\n", reply.status, reason(reply.status), date(now)).ok();
    for (name, value) in &reply.fields {
        write!(text, "{name}: {value}\r\n").ok();
    }
    if reply.status != 304 {
        write!(text, "content-length: {}\r\n", reply.len).ok();
    }
    text.push_str(if keep_alive { "connection: keep-alive\r\n\r\n" } else { "connection: close\r\n\r\n" });
    text.into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Answer",
    }
}

/// RFC 9110 section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(crate) fn date(now: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, hour, minute, second) = now.civil();
    // 1 January 1970 was a Thursday.
    let weekday = DAYS[usize::try_from(now.seconds().div_euclid(86_400).rem_euclid(7)).unwrap_or(0)];
    let month = MONTHS[usize::try_from(month.saturating_sub(1)).unwrap_or(0).min(11)];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: Entity = Entity::Body { len: 1_000, sha256: Sha256([0xab; 32]) };

    fn get(fields: &str) -> Asking {
        let text = format!("GET /x HTTP/1.1\r\n{fields}\r\n");
        parse(text.as_bytes()).unwrap().unwrap().0
    }

    /// RFC 9110 section 14: one range, in its three forms and at its edges.
    #[test]
    fn ranges_select_bytes_or_are_refused_or_ignored() {
        let table = [
            ("bytes=0-0", 206, 0..1),
            ("bytes=0-999", 206, 0..1_000),
            ("bytes=990-5000", 206, 990..1_000),
            ("bytes=999-", 206, 999..1_000),
            ("bytes=-1", 206, 999..1_000),
            ("bytes=-5000", 206, 0..1_000),
            ("bytes=1000-", 416, 0..0),
            ("bytes=-0", 416, 0..0),
            ("bytes=5-4", 200, 0..1_000),
            ("bytes=0-1,5-6", 200, 0..1_000),
            ("bytes=-", 200, 0..1_000),
            ("lines=1-2", 200, 0..1_000),
            ("bytes=99999999999999999999-", 200, 0..1_000),
        ];
        for (range, status, bytes) in table {
            let reply = reply(&get(&format!("Range: {range}\r\n")), BODY);
            assert_eq!((reply.status, reply.range.clone()), (status, bytes), "{range}");
            assert_eq!(reply.ends_at(1_000), reply.range.end == 1_000, "{range}");
        }
        assert_eq!(reply(&get("Range: bytes=0-1\r\nIf-Range: \"other\"\r\n"), BODY).status, 200);
        assert_eq!(reply(&get("Range: bytes=0-1\r\n"), Entity::Text { len: 10 }).status, 200);
        assert_eq!(reply(&get("Range: bytes=0-\r\n"), Entity::Body { len: 0, sha256: Sha256([0; 32]) }).status, 416);
    }

    #[test]
    fn validators_and_absence_have_their_statuses() {
        let etag = format!("\"{}\"", Sha256([0xab; 32]));
        for (field, status) in [(etag.as_str(), 304), ("\"x\", *", 304), ("\"x\"", 200)] {
            assert_eq!(reply(&get(&format!("If-None-Match: {field}\r\n")), BODY).status, status, "{field}");
        }
        assert_eq!(reply(&get(""), Entity::Missing).status, 404);
        let absent = reply(&get(""), Entity::Absent);
        assert_eq!((absent.status, absent.fields.last()), (503, Some(&("retry-after", "5".to_owned()))));
        let head = head(&reply(&get(""), BODY), false, Timestamp::from_seconds(784_111_777));
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.contains("\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n") && head.ends_with("connection: close\r\n\r\n")
        );
        assert!(head.contains("\r\ncontent-length: 1000\r\n"), "{head}");
    }

    #[test]
    fn heads_are_read_or_refused() {
        assert_eq!(
            parse(b"GET /a%20b%zz?x=1 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nrest").unwrap().unwrap().0,
            Asking { path: "/a b%zz".into(), keep_alive: true, ..Asking::default() }
        );
        assert!(!get("Connection: close\r\n").keep_alive);
        assert_eq!(parse(b"GET /a HTTP/1.1\r\nHost: x\r\n"), Ok(None));
        assert_eq!(parse(b"POST /a HTTP/1.1\r\n\r\n"), Err(HeadError::Method));
        assert_eq!(parse(b"GET /a HTTP/1.1\r\nContent-Length: 3\r\n\r\n"), Err(HeadError::Body));
        assert!(matches!(parse(b"GET /a\x00 HTTP/1.1\r\n\r\n"), Err(HeadError::Syntax(_))));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100));
        assert!(matches!(parse(many.as_bytes()), Err(HeadError::Syntax(_))));
    }
}
