//! What may be kept, for how long it will do, and when a broken body may be continued: RFC 9111 by `http-cache-semantics`, with the three things
//! that are known of package repositories. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, response};
use http_cache_semantics::{AfterResponse, BeforeRequest, CacheOptions, CachePolicy};
use schema::time::Timestamp;

use super::request::strip_hop_by_hop;
use crate::http::files::path_of;

/// How long a file of a pool will do if its server does not say (MAAS: 129,600 minutes).
const POOL: Duration = Duration::from_secs(90 * 86_400);
/// How long after its time an answer may stand in for a server that fails, unless the server says otherwise (RFC 5861 section 4).
const STALE: Duration = Duration::from_secs(7 * 86_400);
/// An older age than this is a mistake of the server's.
const OLDEST: u64 = 10 * 365 * 86_400;

/// What a name says about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// An index of a repository: its content changes under the same name, and indexes belong together. Asked for anew each time, as MAAS does.
    Index,
    /// A package or a file named by its hash: another content has another name.
    Immutable,
    Other,
}

/// What the path of an address says.
pub(super) fn class(path: &str) -> Class {
    const PACKED: [&str; 7] = [".gz", ".bz2", ".xz", ".lzma", ".lz4", ".zst", ".gpg"];
    const PACKAGES: [&str; 5] = [".deb", ".udeb", ".ddeb", ".dsc", ".diff.gz"];
    let path = path_of(path);
    let name = path.rsplit('/').next().unwrap_or_default();
    let plain = PACKED.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    if path.contains("/by-hash/") {
        Class::Immutable
    } else if matches!(plain, "Release" | "InRelease" | "Packages" | "Sources")
        || plain.starts_with("Translation-")
        || path.contains("/Packages.diff/")
        || path.contains("/Sources.diff/")
    {
        Class::Index
    } else if path.contains("/pool/") && (PACKAGES.iter().any(|e| name.ends_with(e)) || name.contains(".tar.")) {
        Class::Immutable
    } else {
        Class::Other
    }
}

/// The answer's fields as they are kept and passed on: end to end, legible, with an age that can be.
pub(super) fn clean(fields: &mut HeaderMap) {
    strip_hop_by_hop(fields);
    let age = fields.get(header::AGE).and_then(|v| v.to_str().ok()).and_then(|v| v.trim().parse::<u64>().ok());
    if age.is_none_or(|age| age > OLDEST) {
        fields.remove(header::AGE);
    }
}

/// Why an answer is passed on but not kept.
///
/// # Errors
/// The reason.
pub(super) fn may_keep(policy: &CachePolicy, answer: &response::Parts, now: Timestamp) -> Result<(), &'static str> {
    let fields = &answer.headers;
    let changes = fields.contains_key(header::ETAG) || fields.contains_key(header::LAST_MODIFIED);
    if answer.status != StatusCode::OK {
        Err("only an answer 200 is kept")
    } else if fields.contains_key(header::SET_COOKIE) {
        Err("it sets a cookie")
    } else if fields.contains_key(header::CONTENT_RANGE) {
        Err("it is a part")
    } else if fields.get_all(header::VARY).iter().any(|v| v.as_bytes().contains(&b'*')) {
        Err("it varies by more than the request says")
    } else if !policy.is_storable() {
        Err("its server or its client forbids it")
    } else if !changes && policy.time_to_live(system(now)).is_zero() {
        Err("it could never be used again")
    } else {
        Ok(())
    }
}

/// The rules for an answer, with what its name says added in HTTP's own words.
pub(super) fn rules(class: Class, request: &Request<()>, answer: &response::Parts, now: Timestamp) -> CachePolicy {
    let options = CacheOptions { immutable_min_time_to_live: POOL, ..CacheOptions::default() };
    CachePolicy::new_options(request, &with_class(class, answer), system(now), options)
}

/// Answers are told to the crate legible and with a directive for their class; the client gets them as they came.
fn with_class(class: Class, answer: &response::Parts) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    for (name, value) in &answer.headers {
        if value.to_str().is_ok() {
            response.headers_mut().append(name, value.clone());
        }
    }
    lower_directives(response.headers_mut());
    let fields = response.headers_mut();
    let said = ["max-age", "s-maxage", "no-cache", "no-store", "private"];
    let explicit = fields.contains_key(header::EXPIRES) || said.iter().any(|d| directive(fields, d).is_some());
    let add = match class {
        Class::Index => "no-cache",
        Class::Immutable if !explicit => "immutable",
        _ => return response,
    };
    let all: Vec<_> = fields.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok()).collect();
    let all = all.into_iter().chain([add]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::try_from(all) {
        fields.insert(header::CACHE_CONTROL, value);
    }
    response
}

/// Directives in lower case: they have none (RFC 9111 section 5.2), and the crate knows them in this one.
pub(super) fn lower_directives(fields: &mut HeaderMap) {
    for name in [header::CACHE_CONTROL, header::PRAGMA] {
        if let header::Entry::Occupied(mut values) = fields.entry(name) {
            for value in values.iter_mut() {
                let lower = value.as_bytes().to_ascii_lowercase();
                *value = HeaderValue::from_bytes(&lower).unwrap_or_else(|_| value.clone());
            }
        }
    }
}

/// A directive of Cache-Control; `Some(None)` when it has no number.
fn directive(fields: &HeaderMap, name: &str) -> Option<Option<u64>> {
    let all = fields.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).find_map(|part| {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        let number = || value.and_then(|v| v.trim().trim_matches('"').parse().ok());
        key.trim().eq_ignore_ascii_case(name).then(number)
    })
}

/// Until when a kept answer will do without asking.
pub(super) fn fresh_until(policy: &CachePolicy, now: Timestamp) -> Timestamp {
    now + policy.time_to_live(system(now))
}

/// How long after its time an answer with these fields may stand in for a server that fails.
pub(super) fn stale_for(fields: &HeaderMap) -> Duration {
    if ["no-cache", "must-revalidate", "proxy-revalidate"].iter().any(|d| directive(fields, d).is_some()) {
        return Duration::ZERO;
    }
    match directive(fields, "stale-if-error") {
        Some(Some(seconds)) => Duration::from_secs(seconds.min(OLDEST)),
        _ => STALE,
    }
}

/// Whether a kept answer will do for a request.
#[derive(Debug)]
pub(super) enum Verdict {
    Fresh,
    /// It is the right one and its server is to be asked whether it still is, with this request.
    Ask(Box<http::request::Parts>),
    /// It answers another request (Vary).
    Other,
}

/// Judges a kept answer.
pub(super) fn judge(policy: &CachePolicy, request: &Request<()>, now: Timestamp) -> Verdict {
    match policy.before_request(request, system(now)) {
        BeforeRequest::Fresh(_) => Verdict::Fresh,
        BeforeRequest::Stale { request, matches: true } => Verdict::Ask(Box::new(request)),
        BeforeRequest::Stale { matches: false, .. } => Verdict::Other,
    }
}

/// The rules after the server said 304; `None` when that answer is about another content.
pub(super) fn renewed(
    class: Class,
    policy: &CachePolicy,
    request: &Request<()>,
    answer: &response::Parts,
    now: Timestamp,
) -> Option<CachePolicy> {
    let said = answer.headers.contains_key(header::CACHE_CONTROL) || answer.headers.contains_key(header::EXPIRES);
    // Where the server says nothing anew, what it said before stands, with the directive of the class.
    let answer = if said { with_class(class, answer) } else { with_class(Class::Other, answer) };
    match policy.after_response(request, &answer, system(now)) {
        AfterResponse::NotModified(policy, _) => Some(policy),
        AfterResponse::Modified(..) => None,
    }
}

/// The strong validator of an answer, as If-Range wants it (RFC 9110 section 13.1.5): a strong entity tag, or a date of change that is
/// at least a minute older than the answer.
pub(super) fn strong(fields: &HeaderMap) -> Option<HeaderValue> {
    if let Some(tag) = fields.get(header::ETAG) {
        return (tag.as_bytes().starts_with(b"\"")).then(|| tag.clone());
    }
    let date = |name| httpdate::parse_http_date(fields.get(name)?.to_str().ok()?).ok();
    let (changed, answered) = (date(header::LAST_MODIFIED)?, date(header::DATE)?);
    let old = answered.duration_since(changed).is_ok_and(|age| age >= Duration::from_secs(60));
    old.then(|| fields.get(header::LAST_MODIFIED).cloned())?
}

/// What to do with the answer to a request for the rest of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    /// It is the rest.
    Append,
    /// It is the same body from its start: as many bytes are known already.
    Skip(u64),
    /// It is another body, or none: what is here cannot become whole.
    Never(&'static str),
}

/// Decides whether `answer` continues the first `have` of `whole` bytes that came with `first`'s fields.
pub(super) fn rest(first: &HeaderMap, have: u64, whole: u64, answer: &response::Parts) -> Rest {
    let fields = &answer.headers;
    let same = |name: header::HeaderName| match (first.get(&name), fields.get(&name)) {
        (Some(old), Some(new)) => Some(old == new),
        (None, None) => None,
        _ => Some(false),
    };
    // RFC 9110 section 15.3.7: a 206 to If-Range carries the validator; an ETag, if there was one, always.
    let unchanged = same(header::ETAG).unwrap_or_else(|| same(header::LAST_MODIFIED).unwrap_or(false));
    if !unchanged {
        return Rest::Never("the server has another version by now");
    }
    let text = |name| fields.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::trim);
    match answer.status {
        StatusCode::PARTIAL_CONTENT => {
            let wanted = format!("bytes {have}-{}/{whole}", whole.saturating_sub(1));
            let length = text(header::CONTENT_LENGTH).is_none_or(|n| n.parse() == Ok(whole - have));
            if text(header::CONTENT_RANGE) == Some(wanted.as_str()) && length {
                Rest::Append
            } else {
                Rest::Never("the server sent another part than was asked for")
            }
        }
        StatusCode::OK if text(header::CONTENT_LENGTH).is_some_and(|n| n.parse() == Ok(whole)) => Rest::Skip(have),
        StatusCode::OK => Rest::Never("the server has a body of another length by now"),
        _ => Rest::Never("the server has no rest"),
    }
}

/// A point in time as the crate wants it.
pub(super) fn system(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at.0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_764_000_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn answer(status: u16, fields: &[(&'static str, &str)]) -> response::Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap().into_parts().0
    }

    fn get() -> Request<()> {
        Request::get("http://deb.example/x").body(()).unwrap()
    }

    #[test]
    fn names_tell_indexes_and_packages() {
        for path in [
            "/debian/dists/bookworm/InRelease",
            "/dists/x/Release.gpg",
            "/dists/x/main/binary-amd64/Packages.xz",
            "/d/main/i18n/Translation-en.bz2",
            "/d/main/source/Sources",
            "/dists/%52elease",
            "/d/Packages.diff/Index",
        ] {
            assert_eq!(class(path), Class::Index, "{path}");
        }
        for path in ["/pool/main/h/hello/hello_1_amd64.deb", "/pool/h/h_1.tar.xz", "/dists/x/main/by-hash/SHA256/ab"] {
            assert_eq!(class(path), Class::Immutable, "{path}");
        }
        for path in ["/x.deb", "/", "/Packages-list", "/dists/Contents-amd64.gz"] {
            assert_eq!(class(path), Class::Other, "{path}");
        }
    }

    /// A server's own words win; where it is silent, the class speaks.
    #[test]
    fn freshness_follows_the_server_and_then_the_class() {
        let ttl = |class, fields: &[(&'static str, &str)]| {
            let answer = answer(200, fields);
            rules(class, &get(), &answer, NOW).time_to_live(system(NOW))
        };
        let tag = ("etag", "\"a\"");
        assert_eq!(ttl(Class::Immutable, &[tag]), POOL);
        assert_eq!(ttl(Class::Immutable, &[tag, ("cache-control", "max-age=60")]), Duration::from_secs(60));
        assert_eq!(ttl(Class::Immutable, &[tag, ("cache-control", "no-cache")]), Duration::ZERO);
        assert_eq!(ttl(Class::Index, &[tag, ("cache-control", "max-age=600")]), Duration::ZERO);
        assert_eq!(ttl(Class::Other, &[tag]), Duration::ZERO);
        assert_eq!(ttl(Class::Other, &[("cache-control", "public, max-age=86400")]), DAY);
        assert_eq!(
            ttl(Class::Other, &[("cache-control", "max-age=86400"), ("age", "400")]),
            DAY - Duration::from_secs(400)
        );
    }

    #[test]
    fn what_is_private_or_of_no_use_is_not_kept() {
        let keep = |status, fields: &[(&'static str, &str)]| {
            let answer = answer(status, fields);
            may_keep(&rules(Class::Other, &get(), &answer, NOW), &answer, NOW).is_ok()
        };
        let age = ("cache-control", "max-age=60");
        assert!(keep(200, &[age]) && keep(200, &[("etag", "\"a\"")]));
        assert!(!keep(404, &[age]) && !keep(206, &[age]) && !keep(301, &[age]) && !keep(200, &[]));
        assert!(!keep(200, &[age, ("set-cookie", "a=b")]) && !keep(200, &[age, ("vary", "*")]));
        for no in ["private, max-age=60", "no-store", "max-age=60, No-Store"] {
            assert!(!keep(200, &[("cache-control", no)]), "{no}");
        }
        let forbidden = Request::get("http://a/").header("cache-control", "no-store").body(()).unwrap();
        let answer = answer(200, &[age]);
        assert!(may_keep(&rules(Class::Other, &forbidden, &answer, NOW), &answer, NOW).is_err());
    }

    #[test]
    fn vary_chooses_and_staleness_asks() {
        let request = Request::get("http://a/").header("accept-encoding", "gzip").body(()).unwrap();
        let answer = answer(200, &[("cache-control", "max-age=60"), ("vary", "Accept-Encoding"), ("etag", "\"a\"")]);
        let policy = rules(Class::Other, &request, &answer, NOW);
        assert!(matches!(judge(&policy, &request, NOW), Verdict::Fresh));
        let other = Request::get("http://a/").body(()).unwrap();
        assert!(matches!(judge(&policy, &other, NOW), Verdict::Other));
        match judge(&policy, &request, NOW + DAY) {
            Verdict::Ask(parts) => assert_eq!(parts.headers["if-none-match"], "\"a\""),
            other => panic!("{other:?}"),
        }
        let yes = super::tests::answer(304, &[("etag", "\"a\"")]);
        let renewed = renewed(Class::Other, &policy, &request, &yes, NOW + DAY).unwrap();
        assert!(matches!(judge(&renewed, &request, NOW + DAY), Verdict::Fresh));
        let no = super::tests::answer(304, &[("etag", "\"b\"")]);
        assert!(super::renewed(Class::Other, &policy, &request, &no, NOW + DAY).is_none());
    }

    #[test]
    fn an_index_stays_one_after_it_was_confirmed() {
        for fields in [&[("etag", "\"a\"")][..], &[("etag", "\"a\""), ("cache-control", "max-age=600")]] {
            let first = answer(200, fields);
            let policy = rules(Class::Index, &get(), &first, NOW);
            let renewed = renewed(Class::Index, &policy, &get(), &answer(304, fields), NOW).unwrap();
            assert!(matches!(judge(&renewed, &get(), NOW), Verdict::Ask(_)));
        }
    }

    #[test]
    fn stale_answers_stand_in_unless_forbidden() {
        let stale = |value| stale_for(&answer(200, &[("cache-control", value)]).headers);
        assert_eq!(stale("max-age=1"), STALE);
        assert_eq!(stale("max-age=1, stale-if-error=\"30\""), Duration::from_secs(30));
        assert_eq!(stale("Must-Revalidate"), Duration::ZERO);
    }

    #[test]
    fn only_the_same_body_is_continued() {
        let first = answer(200, &[("etag", "\"a\""), ("content-length", "100")]).headers;
        let part = |fields: &[(&'static str, &str)]| rest(&first, 40, 100, &answer(206, fields));
        assert_eq!(part(&[("etag", "\"a\""), ("content-range", "bytes 40-99/100")]), Rest::Append);
        for wrong in [
            &[("etag", "\"b\""), ("content-range", "bytes 40-99/100")][..],
            &[("etag", "\"a\""), ("content-range", "bytes 41-99/100")],
            &[("etag", "\"a\""), ("content-range", "bytes 40-99/101")],
            &[("etag", "\"a\""), ("content-range", "bytes 40-99/100"), ("content-length", "59")],
            &[("etag", "\"a\"")],
            &[("content-range", "bytes 40-99/100")],
        ] {
            assert!(matches!(part(wrong), Rest::Never(_)), "{wrong:?}");
        }
        let whole = |tag, len| rest(&first, 40, 100, &answer(200, &[("etag", tag), ("content-length", len)]));
        assert_eq!(whole("\"a\"", "100"), Rest::Skip(40));
        assert!(matches!(whole("\"a\"", "99"), Rest::Never(_)) && matches!(whole("\"b\"", "100"), Rest::Never(_)));
        let date =
            |changed| answer(200, &[("last-modified", changed), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")]).headers;
        assert!(strong(&date("Sun, 06 Nov 1994 08:40:00 GMT")).is_some());
        assert!(strong(&date("Sun, 06 Nov 1994 08:49:00 GMT")).is_none());
        assert!(strong(&answer(200, &[("etag", "W/\"a\"")]).headers).is_none());
    }

    proptest! {
        /// No server's fields break the crate: it adds ages and spans that they name.
        #[test]
        fn any_fields_are_judged(
            control in "(max-age|s-maxage|stale-if-error|no-cache|immutable|public)=?\"?[0-9]{0,20}\"?(, ?[a-z-]{0,12}=?[0-9]{0,22}){0,3}",
            age in "[0-9]{0,22}",
            date in "(Sun, 06 Nov [0-9]{4} 08:49:37 GMT|[ -~]{0,30})",
            asked in "(max-age|min-fresh|max-stale|no-cache)=?[0-9]{0,22}",
            later in 0_u64..10_000_000_000,
        ) {
            let mut answer = answer(200, &[
                ("cache-control", &control), ("age", &age), ("expires", &date), ("date", &date), ("last-modified", &date), ("etag", "\"a\""),
            ]);
            clean(&mut answer.headers);
            let request = Request::get("http://a/").header("cache-control", asked).body(()).unwrap();
            let later = NOW + Duration::from_secs(later);
            for class in [Class::Index, Class::Immutable, Class::Other] {
                let policy = rules(class, &request, &answer, NOW);
                let _ = (may_keep(&policy, &answer, NOW), fresh_until(&policy, NOW), judge(&policy, &request, later));
                let _ = renewed(class, &policy, &request, &answer, later);
                let _ = (stale_for(&answer.headers), strong(&answer.headers));
            }
        }
    }
}
