//! The metadata service for cloud-init and the runner: shapes of a request and its answer, and the thin actix-web skin. Decides nothing itself: see [`answer`](mod@answer).

mod answer;
mod multipart;
mod oauth;
mod preseed;
mod progress;
mod signal;
mod status;
mod tar;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use actors::clock;
use futures_util::StreamExt;
use schema::{
    boot::BodyRef,
    id::{AttemptId, SystemId},
    messages::report::Fact,
    time::Timestamp,
};

pub use actix_web::http::Method;

use self::answer::without_body;
pub use self::{
    answer::{admit, answer},
    multipart::{Form, FormError, Part},
    oauth::{Credentials, Denied},
    progress::Progress,
    tar::{Member, Source, assemble},
};
use super::{HttpState, ends};
use crate::boot::host::host;

/// The path that everything here lies under.
pub const PREFIX: &str = "/MAAS/metadata";
/// The longest body of a signal in bytes: four output files of 1 MiB and ample room.
pub const SIGNAL_LIMIT: usize = 16 * 1024 * 1024;
/// The longest body of a status event in bytes.
pub const STATUS_LIMIT: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_WAIT: Duration = Duration::from_secs(120);

/// One request, as far as an answer depends on it.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a Method,
    /// As sent, without the query.
    pub path: &'a str,
    pub query: &'a str,
    /// Who asks.
    pub from: IpAddr,
    /// The host and port of every URL in the answer: the subnet's internal name, or the rack's address as the client reached it.
    pub host: &'a str,
    /// Where the rack's package proxy listens, if it runs.
    pub proxy: Option<SocketAddr>,
    pub authorization: Option<&'a str>,
    pub content_type: Option<&'a str>,
    pub body: &'a [u8],
}

/// What goes back.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Body,
}

/// The bytes of a response, or where they stand.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    Bytes(Vec<u8>),
    /// A body of the store.
    Stored(BodyRef),
    /// An uncompressed tar of these.
    Tar(Vec<Member>),
}

impl fmt::Debug for Response {
    /// Without the content: a preseed holds a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.content_type)
    }
}

impl Response {
    /// Plain text.
    #[must_use]
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: Body::Bytes(text.into().into_bytes()) }
    }

    /// Nothing but a status.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self::text(status, "")
    }
}

/// A response with what was learned from its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub response: Response,
    /// Whom the facts concern.
    pub about: Option<(SystemId, AttemptId)>,
    /// To be reported once `keep` is durable.
    pub facts: Vec<Fact>,
    /// Outputs too long to travel inside a fact: to be put into the body store.
    pub keep: Vec<Vec<u8>>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { response, about: None, facts: Vec::new(), keep: Vec::new() }
    }
}

/// What the service remembers between requests. Make one per rack and clone it.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    progress: Progress,
    refusals: Arc<Refusals>,
}

/// Requests refused, counted; and when one was last logged.
#[derive(Debug, Default)]
struct Refusals {
    count: AtomicU64,
    logged: AtomicI64,
}

impl Memory {
    /// How many requests were refused or not understood since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refusals.count.load(Ordering::Relaxed)
    }

    /// Counts a refusal and logs at most one in ten seconds.
    fn refuse(&self, from: IpAddr, path: &str, response: &Response, now: Timestamp) {
        let count = self.refusals.count.fetch_add(1, Ordering::Relaxed) + 1;
        let last = self.refusals.logged.load(Ordering::Relaxed);
        if now.seconds() - last >= 10 {
            self.refusals.logged.store(now.seconds(), Ordering::Relaxed);
            let why = match &response.body {
                Body::Bytes(bytes) => String::from_utf8_lossy(bytes),
                _ => "".into(),
            };
            tracing::warn!(%from, path, status = response.status, count, "Metadata request refused: {why}");
        }
    }
}

/// Carries an answer out: outputs to disk, then facts to the outbox, then the bytes of the response.
/// Reads and writes files: call it where blocking is allowed. Fails when a body the answer needs is not here
/// or the disk refuses; nothing but that has been reported then.
fn carry_out(state: &HttpState, answer: &mut Answer, now: Timestamp) -> io::Result<Vec<u8>> {
    let about = answer.about;
    // Somebody waits for it.
    let missed = |body: BodyRef, why: &io::Error| {
        if let Some((machine, attempt)) = about {
            state.reporter.of(machine, attempt, now, Fact::ResourcesMissing { body, why: why.to_string() });
        }
    };
    let read = |body: BodyRef| state.bodies.read(body).inspect_err(|why| missed(body, why));
    let bytes = match std::mem::replace(&mut answer.response.body, Body::Bytes(Vec::new())) {
        Body::Bytes(bytes) => bytes,
        Body::Stored(body) => read(body)?,
        Body::Tar(members) => tar::assemble(&members, now, read)?,
    };
    for output in &answer.keep {
        state.bodies.put(output)?;
    }
    if let Some((machine, attempt)) = answer.about {
        for fact in answer.facts.drain(..) {
            if state.metadata.progress.note(machine, attempt, &fact, now) {
                state.reporter.of(machine, attempt, now, fact);
            }
        }
    }
    Ok(bytes)
}

/// Mounts every metadata URL.
pub fn configure(config: &mut web::ServiceConfig, state: &HttpState) {
    let state = state.clone();
    let service = move |request: HttpRequest, payload: web::Payload| serve(state.clone(), request, payload);
    config.service(web::resource([PREFIX.to_owned(), format!("{PREFIX}/{{tail:.*}}")]).route(web::route().to(service)));
}

async fn serve(state: HttpState, http: HttpRequest, payload: web::Payload) -> HttpResponse {
    let now = clock::now();
    let ends = ends(&http);
    let from = ends.peer.ip().to_canonical();
    let rack = SocketAddr::new(ends.local.ip().to_canonical(), ends.local.port());
    let snapshot = state.plan.load();
    let host = host(&snapshot, from, rack, state.plan.has_dns(rack.ip()));
    let text = |name| http.headers().get(name).and_then(|v: &header::HeaderValue| v.to_str().ok());
    let mut request = Request {
        method: http.method(),
        path: http.path(),
        query: http.query_string(),
        from,
        host: &host,
        proxy: state.proxy.get(),
        authorization: text(header::AUTHORIZATION),
        content_type: text(header::CONTENT_TYPE),
        body: &[],
    };
    // A stranger's body is not even read.
    let body = match admit(&request, &snapshot, now) {
        Err(refusal) => return finish(state, *refusal, &http, from, now).await,
        Ok(0) => Vec::new(),
        Ok(limit) => match read(payload, limit).await {
            Ok(body) => body,
            Err((status, why)) => {
                let answer = without_body(&request, &snapshot, status, why, now);
                return finish(state, answer, &http, from, now).await;
            }
        },
    };
    request.body = &body;
    let answer = answer(&request, &snapshot, &state.leases, &state.metadata.progress, now);
    finish(state, answer, &http, from, now).await
}

/// The body, or the status and the reason of a refusal.
async fn read(mut payload: web::Payload, limit: usize) -> Result<Vec<u8>, (u16, String)> {
    let gather = async {
        let mut body = Vec::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|e| (400, format!("The body broke off: {e}. Send it again")))?;
            if body.len() + chunk.len() > limit {
                return Err((413, format!("The body exceeds {limit} bytes. Cut the output files to 1 MiB each")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    };
    let late = || (408, format!("The body did not arrive within {} s", BODY_WAIT.as_secs()));
    tokio::time::timeout(BODY_WAIT, gather).await.unwrap_or_else(|_| Err(late()))
}

async fn finish(
    state: HttpState,
    mut answer: Answer,
    http: &HttpRequest,
    from: IpAddr,
    now: Timestamp,
) -> HttpResponse {
    // "Not found" is an ordinary answer here: cloud-init asks for what may be missing.
    if answer.response.status >= 400 && answer.response.status != 404 {
        state.metadata.refuse(from, http.path(), &answer.response, now);
    }
    let (status, content_type) = (answer.response.status, answer.response.content_type);
    let dear = answer.facts.iter().any(|f| matches!(f, Fact::ScriptEnded { .. } | Fact::Finished { .. }));
    let settling = state.reporter.clone();
    // Small answers without files to touch need no other thread.
    let simple = answer.keep.is_empty() && matches!(answer.response.body, Body::Bytes(_));
    let carried = if simple {
        carry_out(&state, &mut answer, now)
    } else {
        let worker = state.clone();
        web::block(move || carry_out(&worker, &mut answer, now)).await.unwrap_or_else(|e| Err(io::Error::other(e)))
    };
    if dear {
        // What the machine takes for delivered survives a kill of the rack.
        settling.settled().await;
    }
    let mut reply = HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    if status == 401 {
        reply.insert_header((header::WWW_AUTHENTICATE, "OAuth realm=\"OAuth\""));
    }
    match carried {
        Ok(bytes) if bytes.is_empty() => reply.finish(),
        Ok(bytes) => reply.insert_header((header::CONTENT_TYPE, content_type)).body(bytes),
        Err(error) => {
            tracing::warn!(%from, path = http.path(), %error, "Metadata request not served: a body is missing or the disk refuses");
            let why = format!("The rack cannot serve this yet ({error}). Ask again in a few seconds.\n");
            HttpResponse::ServiceUnavailable().insert_header((header::RETRY_AFTER, "5")).body(why)
        }
    }
}
