//! What is done when the cache alone cannot answer: ask the server, and gather its body into the cache while clients read along. A body that breaks
//! off is continued where it stopped, if it is still the same one.

use std::{io, rc::Rc, sync::Arc, sync::atomic::AtomicU64, time::Duration};

use actors::clock;
use http::{HeaderMap, Request, Response, StatusCode, header, request, response};
use http_body_util::BodyExt;
use http_cache_semantics::CachePolicy;
use hyper::body::{Body, Bytes, Incoming};
use schema::time::Timestamp;

use super::{
    Desk,
    answer::{self, How},
    flight::{Growing, Lead, Progress, Reader},
    index::Entry,
    policy::{self, Class, Rest},
    request::Refusal,
    store::Draft,
    upstream::Failure,
};

/// How long a server may send nothing of a body.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// How often one body is continued in vain.
const RESUMES: u32 = 5;
/// The pause before the first time; it doubles while nothing comes.
const RESUME_WAIT: Duration = Duration::from_millis(50);
/// So many bytes before its end a fetch goes on although nobody waits any more.
const NEARLY: u64 = 16 << 20;

/// An answer of the cache that is to be confirmed.
pub(super) struct Stale {
    pub entry: Arc<Entry>,
    pub policy: CachePolicy,
    /// The request that asks for it.
    pub ask: Box<request::Parts>,
}

/// What the first client gets.
pub(super) enum Fetched {
    /// It reads along.
    Along(Reader),
    Kept(Arc<Entry>, How),
    Pass(Box<Passing>),
}

/// An answer that goes to its client alone.
pub(super) struct Passing {
    pub answer: response::Parts,
    pub body: Incoming,
    /// It may be kept if it ends well: it has no length, so that nobody could read along.
    pub tee: Option<Tee>,
}

/// A passed body's way into the cache.
pub(super) struct Tee {
    pub draft: Draft,
    policy: CachePolicy,
    instead_of: Option<u64>,
}

impl Desk {
    /// Asks the server for an object on behalf of all who want it.
    ///
    /// # Errors
    /// What the client is told.
    pub(super) async fn fetch(
        self: &Rc<Self>,
        url: &str,
        request: Request<()>,
        stale: Option<Stale>,
        lead: Lead,
    ) -> Result<Fetched, Refusal> {
        match self.ask_for(url, request, stale).await {
            Ok(Asked::Gather(gathering)) => {
                let reader = lead.reader();
                lead.tell(Progress::Growing { object: Arc::clone(&gathering.object), written: 0 });
                tokio::task::spawn_local(gathering.run(Rc::clone(self), lead));
                Ok(Fetched::Along(reader))
            }
            Ok(Asked::Kept(entry, how)) => {
                lead.tell(Progress::Kept(Arc::clone(&entry), how));
                Ok(Fetched::Kept(entry, how))
            }
            Ok(Asked::Pass(passing)) => {
                lead.tell(Progress::Alone);
                Ok(Fetched::Pass(passing))
            }
            Err(refusal) => {
                lead.tell(Progress::Failed(refusal.clone()));
                Err(refusal)
            }
        }
    }

    async fn ask_for(&self, url: &str, request: Request<()>, stale: Option<Stale>) -> Result<Asked, Refusal> {
        let class = policy::class(request.uri().path());
        let asked = stale.as_ref().map_or_else(|| request.clone().into_parts().0, |s| (*s.ask).clone());
        let answer = self.upstream.ask(asked).await;
        let now = clock::now();
        let Some(stale) = stale else {
            return self.take(url, class, request, None, answer?, now);
        };
        let instead = |why: &str| {
            let usable = now < stale.entry.stale_until;
            usable.then(|| {
                self.shared.meter.complain(
                    "upstream_failed",
                    format!("{url}: {why}; what is kept stands in"),
                    "mend that server",
                );
                Asked::Kept(Arc::clone(&stale.entry), How::Stale)
            })
        };
        match answer {
            Err(failure @ Failure::Forbidden(_)) => Err(failure.into()),
            Err(failure) => instead(&failure.to_string()).ok_or_else(|| failure.into()),
            Ok(answer) if answer.status().is_server_error() => {
                match instead(&format!("it answers {}", answer.status())) {
                    Some(kept) => Ok(kept),
                    None => self.take(url, class, request, Some(&stale.entry), answer, now),
                }
            }
            Ok(answer) if answer.status() == StatusCode::NOT_MODIFIED => {
                let (mut parts, _) = answer.into_parts();
                policy::clean(&mut parts.headers);
                match self.renew(class, &stale, &request, &parts, now) {
                    Some(entry) => Ok(Asked::Kept(entry, How::Revalidated)),
                    None => {
                        // It confirms another content than ours.
                        self.shared.store.drop_entry(&stale.entry);
                        let answer = self.upstream.ask(request.clone().into_parts().0).await?;
                        self.take(url, class, request, None, answer, now)
                    }
                }
            }
            Ok(answer) => self.take(url, class, request, Some(&stale.entry), answer, now),
        }
    }

    /// The kept entry with the rules of a 304.
    fn renew(
        &self,
        class: Class,
        stale: &Stale,
        request: &Request<()>,
        answer: &response::Parts,
        now: Timestamp,
    ) -> Option<Arc<Entry>> {
        let old = &stale.entry;
        let policy = policy::renewed(class, &stale.policy, request, &confirming(answer, old), now)?;
        let text = |name| answer.headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok());
        let entry = Entry {
            id: old.id,
            url: old.url.clone(),
            len: old.len,
            confirmed: now,
            age: text(header::AGE).and_then(|age| age.parse().ok()).unwrap_or(0),
            fresh_until: policy::fresh_until(&policy, now),
            stale_until: now + old.stale_until.since(old.fresh_until.max(old.confirmed)),
            varies: old.varies,
            etag: text(header::ETAG).map(Into::into).or_else(|| old.etag.clone()),
            last_modified: text(header::LAST_MODIFIED).map(Into::into).or_else(|| old.last_modified.clone()),
            head: answer::renewed_lines(&old.head, &answer.headers).into(),
            used: AtomicU64::new(0),
        };
        let failed = |error: &io::Error| {
            self.shared.meter.complain(
                "disk_failed",
                format!("the cache: {error}"),
                "free some space, or mend the disk",
            );
        };
        self.shared.store.renew(entry, &policy).inspect_err(failed).ok().or_else(|| Some(Arc::clone(old)))
    }

    /// Decides what becomes of a whole new answer.
    fn take(
        &self,
        url: &str,
        class: Class,
        request: Request<()>,
        old: Option<&Entry>,
        answer: Response<Incoming>,
        now: Timestamp,
    ) -> Result<Asked, Refusal> {
        let (mut parts, body) = answer.into_parts();
        sound(&parts)?;
        let chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
        policy::clean(&mut parts.headers);
        let policy = policy::rules(class, &request, &parts, now);
        let keep = policy::may_keep(&policy, &parts, now);
        let over = parts.status.is_success() || matches!(parts.status, StatusCode::NOT_FOUND | StatusCode::GONE);
        if let Some(old) = old.filter(|_| keep.is_err() && over) {
            self.shared.store.drop_entry(old);
        }
        let (whole, instead_of) = (body.size_hint().exact(), old.map(|o| o.id));
        let pass = |parts, body, tee| Ok(Asked::Pass(Box::new(Passing { answer: parts, body, tee })));
        // Without a length, only chunks tell a whole body from one that broke off.
        if keep.is_err() || whole.is_none() && !chunked || whole.is_some_and(|n| n > self.shared.max_object) {
            return pass(parts, body, None);
        }
        let draft = match self.shared.store.draft(whole.unwrap_or(0)) {
            Ok(draft) => draft,
            Err(error) => {
                let why = format!("{url} cannot be kept: {error}");
                self.shared.meter.complain(
                    "disk_failed",
                    why,
                    "free some space, or set a larger proxy.cache_mebibytes",
                );
                return pass(parts, body, None);
            }
        };
        let (Some(len), Some(file)) = (whole, draft.file()) else {
            return pass(parts, body, Some(Tee { draft, policy, instead_of }));
        };
        let entry = self.entry(url, draft.id, len, &parts.headers, &policy, now);
        let object = Arc::new(Growing { entry, policy, file });
        let request = request.into_parts().0;
        let gathering =
            Gathering { object, draft, request, first: parts.headers, body, carry: Bytes::new(), instead_of };
        Ok(Asked::Gather(Box::new(gathering)))
    }

    fn entry(
        &self,
        url: &str,
        id: u64,
        len: u64,
        fields: &HeaderMap,
        policy: &CachePolicy,
        now: Timestamp,
    ) -> Arc<Entry> {
        let text = |name| fields.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok());
        let fresh_until = policy::fresh_until(policy, now);
        Arc::new(Entry {
            id,
            url: url.into(),
            len,
            confirmed: now,
            age: text(header::AGE).and_then(|age| age.parse().ok()).unwrap_or(0),
            fresh_until,
            stale_until: fresh_until + policy::stale_for(fields),
            varies: fields.contains_key(header::VARY),
            etag: text(header::ETAG).map(Into::into),
            last_modified: text(header::LAST_MODIFIED).map(Into::into),
            head: answer::lines(fields, &self.shared.own).into(),
            used: AtomicU64::new(0),
        })
    }

    /// Asks the server for one client alone; nothing is kept.
    ///
    /// # Errors
    /// What the client is told.
    pub(super) async fn alone(&self, request: Request<()>) -> Result<Passing, Refusal> {
        let (mut answer, body) = self.upstream.ask(request.into_parts().0).await?.into_parts();
        sound(&answer)?;
        policy::clean(&mut answer.headers);
        Ok(Passing { answer, body, tee: None })
    }

    /// A passed body ended well: it is kept.
    pub(super) fn keep(&self, url: &str, tee: Tee, fields: &HeaderMap) {
        let Tee { draft, policy, instead_of } = tee;
        let entry = self.entry(url, draft.id, draft.written, fields, &policy, clock::now());
        self.kept(url, draft.finish(entry, &policy, instead_of));
    }

    fn kept(&self, url: &str, finished: io::Result<()>) {
        if let Err(error) = finished {
            let why = format!("{url} cannot be kept: {error}");
            self.shared.meter.complain("disk_failed", why, "free some space, or mend the disk");
        }
    }
}

enum Asked {
    Gather(Box<Gathering>),
    Kept(Arc<Entry>, How),
    Pass(Box<Passing>),
}

/// A 304 that names no version confirms the one that was asked about: ours, since no other was named.
fn confirming(answer: &response::Parts, old: &Entry) -> response::Parts {
    let mut answer = answer.clone();
    let validators = [(header::ETAG, &old.etag), (header::LAST_MODIFIED, &old.last_modified)];
    if validators.iter().all(|(name, _)| !answer.headers.contains_key(name)) {
        for (name, value) in validators {
            if let Some(value) = value.as_deref().and_then(|v| v.try_into().ok()) {
                answer.headers.insert(name, value);
            }
        }
    }
    answer
}

/// Whether an answer has one meaning.
fn sound(answer: &response::Parts) -> Result<(), Refusal> {
    let bad = |why: &str| Err(Refusal::new(502, "upstream_failed", format!("the server's answer is refused: {why}")));
    let fields = &answer.headers;
    if fields.contains_key(header::TRANSFER_ENCODING) && fields.contains_key(header::CONTENT_LENGTH) {
        bad("it has both Content-Length and Transfer-Encoding")
    } else if fields.get_all(header::TRANSFER_ENCODING).iter().any(|v| !v.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        bad("its transfer encoding is other than chunked")
    } else if answer.status.is_informational() {
        bad("it switches to another protocol")
    } else {
        Ok(())
    }
}

/// A body on its way into the cache.
struct Gathering {
    object: Arc<Growing>,
    draft: Draft,
    request: request::Parts,
    /// The fields that the body's first bytes came with.
    first: HeaderMap,
    body: Incoming,
    /// Bytes of the body that were read together with what was to be skipped.
    carry: Bytes,
    instead_of: Option<u64>,
}

impl Gathering {
    /// Gathers to the end, continuing what breaks off.
    async fn run(mut self, desk: Rc<Desk>, lead: Lead) {
        let (len, meter) = (self.object.entry.len, desk.shared.meter.clone());
        let url = self.object.entry.url.clone();
        let (mut in_vain, mut had) = (0, 0);
        loop {
            let broken = match self.gather(&desk, &lead, len).await {
                Ok(()) => break,
                Err(broken) => broken,
            };
            in_vain = if self.draft.written > had { 1 } else { in_vain + 1 };
            had = self.draft.written;
            if let Broken::Here(why) = &broken {
                return meter.complain("aborted", format!("{url}: {why}"), "nothing, unless it goes on");
            }
            let resumed = if in_vain > RESUMES {
                Err("it does so again and again".to_owned())
            } else {
                tokio::time::sleep(RESUME_WAIT * (1 << in_vain)).await;
                self.resume(&desk).await
            };
            match resumed {
                Ok((body, carry)) => (self.body, self.carry) = (body, carry),
                Err(why) if why.is_empty() => {} // The server is away; once more.
                Err(why) => {
                    let why = format!("{url} broke off at {had} of {len} bytes: {why}");
                    return meter.complain("upstream_failed", why, "mend that server, or the way to it");
                }
            }
        }
        let Self { object, draft, instead_of, .. } = self;
        desk.kept(&url, draft.finish(Arc::clone(&object.entry), &object.policy, instead_of));
        lead.grew(len);
    }

    /// Takes what comes until the body is whole. The last bytes are told of once the object is in the cache.
    async fn gather(&mut self, desk: &Desk, lead: &Lead, len: u64) -> Result<(), Broken> {
        while self.draft.written < len {
            let bytes = match std::mem::take(&mut self.carry) {
                none if none.is_empty() => tokio::select! {
                    bytes = next(&mut self.body) => bytes.map_err(|_| Broken::There)?.ok_or(Broken::There)?,
                    () = lead.unwanted(), if len - self.draft.written > NEARLY => {
                        return Err(Broken::Here("nobody waits for it any more".into()));
                    }
                },
                carried => carried,
            };
            if bytes.len() as u64 > len - self.draft.written {
                return Err(Broken::Here("the server sends more than it announced".into()));
            }
            self.draft.write(&bytes).map_err(|e| Broken::Here(e.to_string()))?;
            desk.shared.meter.add("bytes_from_upstream", bytes.len() as u64);
            if self.draft.written < len {
                lead.grew(self.draft.written);
            }
        }
        Ok(())
    }

    /// The rest of the body, from a new request. An empty reason: the server gave no answer at all.
    async fn resume(&self, desk: &Desk) -> Result<(Incoming, Bytes), String> {
        let validator = policy::strong(&self.first).ok_or("its server gave no strong validator")?;
        let have = self.draft.written;
        let mut request = self.request.clone();
        let range = format!("bytes={have}-").try_into().map_err(|_| "no range")?;
        request.headers.insert(header::RANGE, range);
        request.headers.insert(header::IF_RANGE, validator);
        let answer = match desk.upstream.ask(request).await {
            Ok(answer) if answer.status().is_server_error() => return Err(String::new()),
            Ok(answer) => answer,
            Err(Failure::Forbidden(why)) => return Err(why.to_string()),
            Err(_) => return Err(String::new()),
        };
        let (parts, mut body) = answer.into_parts();
        sound(&parts).map_err(|refusal| refusal.why)?;
        let carry = match policy::rest(&self.first, have, self.object.entry.len, &parts) {
            Rest::Append => Bytes::new(),
            Rest::Skip(known) => skip(&mut body, known).await.ok_or_else(String::new)?,
            Rest::Never(why) => return Err(why.into()),
        };
        desk.shared.meter.count("resumed");
        Ok((body, carry))
    }
}

/// Why a body stops before its end.
enum Broken {
    /// Its server, or the way to it.
    There,
    /// Our own decision.
    Here(String),
}

/// The next bytes of a body; `None` at its end.
///
/// # Errors
/// When it breaks off or the server sends nothing for [`BODY_WAIT`].
pub(super) async fn next(body: &mut Incoming) -> io::Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(BODY_WAIT, body.frame()).await.map_err(|_| io::ErrorKind::TimedOut)?;
        match frame.transpose().map_err(io::Error::other)? {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// Passes over bytes that are here already. Returns what was read beyond them; `None` when it breaks off before.
async fn skip(body: &mut Incoming, known: u64) -> Option<Bytes> {
    let mut left = known;
    loop {
        let mut bytes = next(body).await.ok()??;
        match left.checked_sub(bytes.len() as u64) {
            Some(more @ 1..) => left = more,
            _ => return Some(bytes.split_off(usize::try_from(left).ok()?)),
        }
    }
}
