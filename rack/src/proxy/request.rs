//! One request to the proxy, read and checked (RFC 9112): GET and HEAD in absolute form, or CONNECT. What two readers could understand in two
//! ways is refused, never repaired. Opens nothing.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::{Host, Url};

use super::policy::lower_directives;

/// Longest head that is read, in bytes.
pub(super) const MAX_HEAD: usize = 16_384;
/// Most header fields in a head.
const MAX_FIELDS: usize = 64;
/// Proxies that a request may have come through.
const MAX_VIA: usize = 8;

/// Why a request is not served: in HTTP, in the counters, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub counter: &'static str,
    pub why: String,
}

impl Refusal {
    pub(super) fn new(status: u16, counter: &'static str, why: impl Into<String>) -> Self {
        Self { status, counter, why: why.into() }
    }
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Object(Asking),
    /// CONNECT: bytes both ways.
    Tunnel {
        host: String,
        port: u16,
    },
}

/// A request for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asking {
    pub head_only: bool,
    /// `http`, without user and fragment, in its normal form: the key of the cache.
    pub url: Url,
    /// HTTP/1.1 or later; an older client knows no chunks.
    pub chunks: bool,
    pub keep_alive: bool,
    pub conditions: Conditions,
    /// Nothing in its head bears on whether a stored answer will do.
    pub plain: bool,
    /// It speaks for one person (Authorization, Cookie): its answer is nobody else's.
    pub personal: bool,
}

/// The fields by which a client says what it holds already, as they came (RFC 9110 sections 13 and 14).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub if_none_match: Option<String>,
    pub if_modified_since: Option<String>,
}

/// Reads one request's head; `None` while its end is not here. `own` is this proxy's name in Via fields.
///
/// # Errors
/// [`Refusal`] for everything that is no well-formed request to a proxy. The connection cannot be used further.
pub(super) fn parse(bytes: &[u8], own: &str) -> Result<Option<(Asked, usize)>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => {
            return Err(Refusal::new(
                431,
                "refused_limit",
                format!("a head exceeds {MAX_HEAD} bytes; send fewer fields"),
            ));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(
                431,
                "refused_limit",
                format!("a head has more than {MAX_FIELDS} fields; send fewer"),
            ));
        }
        Err(httparse::Error::Version) => {
            return Err(Refusal::new(505, "refused_syntax", "this proxy speaks HTTP/1.1; ask with it"));
        }
        Err(error) => return Err(syntax(format!("this is no HTTP/1 request: {error}"))),
    };
    let bare = |pair: &[u8]| matches!(pair, [before, b'\n'] if *before != b'\r');
    if bytes.get(..len).unwrap_or_default().windows(2).any(bare) {
        return Err(syntax("a line of the head ends without a carriage return; end lines with CR LF"));
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    match method {
        "GET" | "HEAD" | "CONNECT" => {}
        "POST" | "PUT" | "DELETE" | "OPTIONS" | "TRACE" | "PATCH" => {
            let why = format!("{method} is not for packages; ask with GET or HEAD");
            return Err(Refusal::new(405, "refused_method", why));
        }
        other => {
            let why = format!("{other} is unknown here; ask with GET or HEAD");
            return Err(Refusal::new(501, "refused_method", why));
        }
    }
    let seen = Seen::read(request.headers, own)?;
    let old = request.version == Some(0);
    if !old && seen.host.is_none() {
        return Err(syntax("a Host field is missing; HTTP/1.1 wants one"));
    }
    if method == "CONNECT" {
        return tunnel(target).map(|tunnel| Some((tunnel, len)));
    }
    let url = object(target)?;
    // Nearly always they are the same letters.
    let written = target.get("http://".len()..).and_then(|rest| rest.split(['/', '?']).next());
    if seen.host.is_some_and(|host| Some(host.as_str()) != written && !same_authority(&host, &url)) {
        return Err(Refusal::new(
            400,
            "refused_syntax",
            "Host names another server than the address does; send the same",
        ));
    }
    let asking = Asking {
        head_only: method == "HEAD",
        url,
        chunks: !old,
        keep_alive: !seen.close && (!old || seen.keep),
        conditions: seen.conditions,
        plain: seen.plain,
        personal: seen.personal,
    };
    Ok(Some((Asked::Object(asking), len)))
}

fn syntax(why: impl Into<String>) -> Refusal {
    Refusal::new(400, "refused_syntax", why)
}

/// What the fields of a head say that matters here.
#[derive(Default)]
struct Seen {
    host: Option<String>,
    close: bool,
    keep: bool,
    conditions: Conditions,
    plain: bool,
    personal: bool,
}

impl Seen {
    fn read(fields: &[httparse::Header<'_>], own: &str) -> Result<Self, Refusal> {
        let mut seen = Self { plain: true, ..Self::default() };
        let (mut length, mut via) = (false, 0);
        for field in fields {
            let text = std::str::from_utf8(field.value).unwrap_or("\u{fffd}").trim();
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("host") {
                if seen.host.replace(text.to_owned()).is_some() {
                    return Err(syntax("two Host fields; send one"));
                }
            } else if is("transfer-encoding") {
                return Err(syntax("a request for a package has no body; leave out Transfer-Encoding"));
            } else if is("content-length") {
                if std::mem::replace(&mut length, true) || text != "0" {
                    return Err(syntax("a request for a package has no body; leave out Content-Length"));
                }
            } else if is("expect") {
                return Err(Refusal::new(417, "refused_syntax", "there is no body to expect; leave out Expect"));
            } else if is("connection") || is("proxy-connection") {
                let named = |word: &str| text.split(',').any(|t| t.trim().eq_ignore_ascii_case(word));
                seen.close |= is("connection") && named("close");
                seen.keep |= named("keep-alive");
            } else if is("via") {
                via += text.split(',').count();
                if text.split([',', ' ']).any(|word| word == own) || via > MAX_VIA {
                    let why = "the request has been here before, or came through too many proxies; mend their parents";
                    return Err(Refusal::new(508, "refused_loop", why));
                }
            } else if is("range") {
                seen.conditions.range = Some(text.to_owned());
            } else if is("if-range") {
                seen.conditions.if_range = Some(text.to_owned());
            } else if is("if-none-match") {
                seen.conditions.if_none_match = Some(text.to_owned());
            } else if is("if-modified-since") {
                seen.conditions.if_modified_since = Some(text.to_owned());
            } else if is("cache-control") || is("pragma") {
                seen.plain = false;
            } else if is("authorization") || is("cookie") {
                seen.personal = true;
            }
        }
        Ok(seen)
    }
}

/// The target of GET and HEAD: `http://host[:port]/path[?query]` (RFC 9112 section 3.2.2).
fn object(target: &str) -> Result<Url, Refusal> {
    let scheme = target.split_once("://").map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    match scheme.as_ref().map(|(scheme, rest)| (scheme.as_str(), *rest)) {
        Some(("http", rest)) if !rest.starts_with('/') => {}
        Some(("http", _)) => return Err(syntax("the address names no host")),
        Some(("https", _)) => {
            let why = "https does not pass through a cache; have the repository named with http, or let the operator allow CONNECT";
            return Err(Refusal::new(501, "refused_method", why));
        }
        Some(_) if !target.starts_with('/') => {
            return Err(Refusal::new(501, "refused_method", "only http addresses are served"));
        }
        _ => return Err(syntax("this is a proxy for packages: ask with a whole address, as in GET http://HOST/PATH")),
    }
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err(syntax("the address has a character that belongs escaped; write it with %"));
    }
    let url = Url::parse(target).map_err(|e| syntax(format!("the address cannot be read: {e}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(syntax("the address names a user; send Authorization instead"));
    }
    if url.fragment().is_some() {
        return Err(syntax("the address has a fragment (#); leave it out"));
    }
    match url.host() {
        None => Err(syntax("the address names no host")),
        Some(_) => Ok(url),
    }
}

fn same_authority(host: &str, url: &Url) -> bool {
    let host = Url::parse(&format!("http://{host}/")).ok();
    host.is_some_and(|host| {
        host.host() == url.host()
            && host.port_or_known_default() == url.port_or_known_default()
            && host.path() == "/"
            && host.username().is_empty()
    })
}

/// The target of CONNECT: `host:port` (RFC 9112 section 3.2.3).
fn tunnel(target: &str) -> Result<Asked, Refusal> {
    let wrong = || syntax("CONNECT wants HOST:PORT");
    let (_, port) = target.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let url = Url::parse(&format!("http://{target}/")).map_err(|_| wrong())?;
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        None => return Err(wrong()),
    };
    if url.path() != "/" || !url.username().is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(Asked::Tunnel { host, port })
}

/// Fields that concern one connection only (RFC 9110 section 7.6.1), and those that a proxy writes itself.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Takes out what concerns one connection only.
pub(super) fn strip_hop_by_hop(fields: &mut HeaderMap) {
    let named: Vec<String> = fields
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    for name in named.iter().map(String::as_str).chain(HOP_BY_HOP) {
        fields.remove(name);
    }
}

/// The fields of a head that [`parse`] accepted, as they go on to the server: end to end only, `Via` added. Host follows from the address.
pub(super) fn onward(head: &[u8], own: &str) -> HeaderMap {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let mut map = HeaderMap::new();
    if request.parse(head).is_ok() {
        for field in request.headers.iter() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(field.name), HeaderValue::from_bytes(field.value)) {
                map.append(name, value);
            }
        }
    }
    strip_hop_by_hop(&mut map);
    lower_directives(&mut map);
    map.remove(header::HOST);
    map.remove(header::CONTENT_LENGTH);
    let version = if request.version == Some(0) { "1.0" } else { "1.1" };
    if let Ok(via) = HeaderValue::try_from(format!("{version} {own}")) {
        map.append(header::VIA, via);
    }
    map
}

/// Takes out what the client alone asked for: the cache wants the whole object.
pub(super) fn strip_conditions(fields: &mut HeaderMap) {
    let conditions = [
        header::RANGE,
        header::IF_RANGE,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_MATCH,
        header::IF_UNMODIFIED_SINCE,
    ];
    for name in conditions {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(head: &str) -> Result<Asking, Refusal> {
        match parse(head.as_bytes(), "me")? {
            Some((Asked::Object(asking), len)) => {
                assert_eq!(len, head.len());
                Ok(asking)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_in_absolute_form_is_read() {
        let head = "GET http://Deb.Example:80/debian/../pool/a%20b.deb?x=1 HTTP/1.1\r\nHost: deb.example\r\nRange: bytes=5-\r\nIf-Range: \"e\"\r\n\r\n";
        let asking = ask(head).unwrap();
        assert_eq!(asking.url.as_str(), "http://deb.example/pool/a%20b.deb?x=1");
        assert_eq!(asking.conditions.range.as_deref(), Some("bytes=5-"));
        assert!(asking.keep_alive && asking.chunks && asking.plain && !asking.personal && !asking.head_only);
        let old = ask("HEAD http://a/b HTTP/1.0\r\nConnection: keep-alive\r\nPragma: no-cache\r\nCookie: a=b\r\n\r\n")
            .unwrap();
        assert!(old.keep_alive && !old.chunks && !old.plain && old.personal && old.head_only);
        assert!(!ask("GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n").unwrap().keep_alive);
    }

    /// Each of these is read in two ways by somebody.
    #[test]
    fn what_could_smuggle_is_refused() {
        let table = [
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\nHost: a\n\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
            ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
            ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://a\\@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
            ("GET http://a/#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /pool/x.deb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET https://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("POST http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("BREW http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("GET http://a/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", 417),
            ("GET http://a/x HTTP/1.1\r\nHost: a\r\nVia: 1.1 other, 1.1 me (x)\r\n\r\n", 508),
            ("GET http://a/x HTTP/1.1\r\nHost: a\r\nVia: 1 a, 1 b, 1 c, 1 d, 1 e, 1 f, 1 g, 1 h, 1 i\r\n\r\n", 508),
            ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT u@a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://a/x HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ];
        for (head, status) in table {
            let refusal = parse(head.as_bytes(), "me").expect_err(head);
            assert_eq!(refusal.status, status, "{head}: {}", refusal.why);
        }
        let tunnel =
            parse(b"CONNECT Deb.example:443 HTTP/1.1\r\nHost: deb.example:443\r\n\r\n", "me").unwrap().unwrap().0;
        assert_eq!(tunnel, Asked::Tunnel { host: "deb.example".into(), port: 443 });
        let long = format!("GET http://a/ HTTP/1.1\r\nX: {}", "y".repeat(MAX_HEAD));
        assert_eq!(parse(long.as_bytes(), "me").unwrap_err().status, 431);
        let many = format!("GET http://a/ HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
        assert_eq!(parse(many.as_bytes(), "me").unwrap_err().status, 431);
    }

    #[test]
    fn what_concerns_one_connection_does_not_go_on() {
        let head = b"GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: X-Own, close\r\nX-Own: 1\r\nProxy-Authorization: s\r\nTE: trailers\r\nAccept: x\r\nUpgrade: h2c\r\n\r\n";
        let fields = onward(head, "me");
        let names: Vec<_> = fields.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept", "via"]);
        assert_eq!(fields[header::VIA], "1.1 me");
    }

    proptest! {
        /// Whatever arrives, there is an answer and no panic; what is accepted has one meaning.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = parse(&bytes, "me");
        }

        #[test]
        fn anything_put_into_a_request_is_read_or_refused(
            at in 0_usize..90,
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':')], 0..20),
        ) {
            let mut head = b"GET http://deb.example/pool/a.deb HTTP/1.1\r\nHost: deb.example\r\nContent-Length: 0\r\n\r\n".to_vec();
            let at = at.min(head.len());
            head.splice(at..at, bytes);
            if let Ok(Some((Asked::Object(asking), len))) = parse(&head, "me") {
                prop_assert!(head[..len].ends_with(b"\r\n\r\n"));
                prop_assert_eq!(asking.url.scheme(), "http");
                prop_assert!(asking.url.host().is_some() && asking.url.username().is_empty());
                let onward = onward(&head[..len], "me");
                prop_assert!(!onward.contains_key("transfer-encoding") && !onward.contains_key("content-length"));
            }
        }
    }
}
