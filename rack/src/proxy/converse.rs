//! One connection to the proxy, from its first request to its last. What is kept goes from the page cache to the socket; what is coming is read along.

use std::{io, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use actors::clock;
use bytes::BytesMut;
use http::{Method, Request, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use schema::time::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Desk,
    answer::{self, Framing, How},
    fetch::{self, Fetched, Passing, Stale},
    flight::{Growing, Lead, Progress, Reader, Turn},
    guard,
    index::Entry,
    policy::{self, Verdict},
    request::{self, Asked, Asking, MAX_HEAD, Refusal},
    store::Found,
    tunnel,
};
use crate::{http::send, plan::Snapshot};

/// How long a head may take to arrive.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long a connection may stand idle between two requests.
const IDLE: Duration = Duration::from_secs(60);
/// How long, and for how many bytes, a refused client is still listened to, so that it gets to read why.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1 << 20);

/// Serves one client until it leaves, idles out or cannot be understood.
pub(super) async fn converse(mut stream: TcpStream, client: IpAddr, desk: &Rc<Desk>) {
    let mut buffer = BytesMut::new();
    let mut admitted: Option<Arc<Snapshot>> = None;
    loop {
        let (asked, head) = match next_head(&mut stream, &mut buffer, &desk.shared.own).await {
            Heard::Asked(asked, len) => (asked, buffer.split_to(len)),
            Heard::Gone => return,
            Heard::Wrong(refusal) => return part(stream, client, desk, &refusal).await,
        };
        let plan = desk.shared.plan.load();
        if !admitted.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &plan)) {
            if let Err(why) = guard::admit(&plan, client) {
                return part(stream, client, desk, &Refusal::new(403, "refused_client", why)).await;
            }
            admitted = Some(plan);
        }
        match asked {
            Asked::Tunnel { host, port } => {
                if let Err(refusal) = tunnel::run(&mut stream, &mut buffer, desk, &host, port).await {
                    part(stream, client, desk, &refusal).await;
                }
                return;
            }
            Asked::Object(asking) => {
                let kept =
                    Conversation { stream: &mut stream, client, desk, asking: &asking, head: &head }.answer().await;
                if !matches!(kept, Ok(true)) {
                    stream.shutdown().await.ok(); // It closes either way.
                    return;
                }
            }
        }
    }
}

enum Heard {
    Asked(Asked, usize),
    Gone,
    Wrong(Refusal),
}

/// Reads until a whole head is in the buffer.
async fn next_head(stream: &mut TcpStream, buffer: &mut BytesMut, own: &str) -> Heard {
    let mut wait = IDLE;
    let mut end = clock::tick() + IDLE;
    loop {
        if !buffer.is_empty() {
            match request::parse(buffer, own) {
                Ok(Some((asked, len))) => return Heard::Asked(asked, len),
                Ok(None) if wait == IDLE => (wait, end) = (HEAD_WAIT, clock::tick() + HEAD_WAIT),
                Ok(None) => {}
                Err(refusal) => return Heard::Wrong(refusal),
            }
        }
        buffer.reserve(if buffer.is_empty() { 2_048 } else { MAX_HEAD });
        let left = end.saturating_duration_since(clock::tick());
        match tokio::time::timeout(left, stream.read_buf(buffer)).await {
            Ok(Ok(1..)) => {}
            Err(_) if wait == HEAD_WAIT => {
                return Heard::Wrong(Refusal::new(408, "refused_limit", "a head took too long to arrive; ask again"));
            }
            _ => return Heard::Gone,
        }
    }
}

/// Says why, and ends the connection.
async fn part(mut stream: TcpStream, client: IpAddr, desk: &Desk, refusal: &Refusal) {
    note(client, desk, refusal);
    let text = answer::refused(refusal, false, false, clock::now());
    if send::write(&mut stream, &text).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // A close with bytes unread would take the answer back.
    let (mut left, mut waste) = (LINGER.1, vec![0; 4_096]);
    let listen = async {
        while let Ok(n @ 1..) = stream.read(&mut waste).await {
            left = left.saturating_sub(n);
            if left == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(LINGER.0, listen).await.ok(); // Who goes on talking is left.
}

fn note(client: IpAddr, desk: &Desk, refusal: &Refusal) {
    desk.shared.meter.complain(
        refusal.counter,
        format!("{client} was refused: {}", refusal.why),
        "see the reason; the client was told as well",
    );
}

/// One request and all that its answer needs.
struct Conversation<'a> {
    stream: &'a mut TcpStream,
    client: IpAddr,
    desk: &'a Rc<Desk>,
    asking: &'a Asking,
    /// The request's head as it came.
    head: &'a [u8],
}

impl Conversation<'_> {
    /// Answers. Whether the connection can take another request.
    async fn answer(mut self) -> io::Result<bool> {
        let now = clock::now();
        let url = self.asking.url.as_str();
        let found = if self.asking.personal { Found::None } else { self.desk.shared.store.find(url) };
        if let Some(entry) = self.simple(&found, now) {
            return self.kept(entry, How::Hit).await;
        }
        let request = match self.onward() {
            Ok(request) => request,
            Err(refusal) => return self.refuse(&refusal).await,
        };
        if self.asking.personal {
            return self.alone(request).await;
        }
        let mut stale = None;
        for entry in found.as_slice() {
            let Some(policy) = self.desk.shared.store.policy(entry) else {
                self.desk.shared.store.drop_entry(entry);
                continue;
            };
            match policy::judge(&policy, &request, now) {
                Verdict::Fresh => return self.kept(entry, How::Hit).await,
                Verdict::Ask(ask) => stale = Some(Stale { entry: Arc::clone(entry), policy, ask }),
                Verdict::Other => {}
            }
        }
        if self.asking.head_only {
            return self.alone(request).await;
        }
        match self.desk.shared.flights.join(url) {
            Turn::Follow(reader) => self.follow(reader, request).await,
            Turn::Fetch(lead) => {
                // Another client's fetch may have ended while this one looked around.
                let found = self.desk.shared.store.find(url);
                if let Some(entry) = self.simple(&found, now) {
                    lead.tell(Progress::Kept(Arc::clone(entry), How::Hit));
                    return self.kept(entry, How::Hit).await;
                }
                self.lead(request, stale, lead).await
            }
        }
    }

    /// What will do without asking anybody.
    fn simple<'f>(&self, found: &'f Found, now: Timestamp) -> Option<&'f Arc<Entry>> {
        found.as_slice().iter().find(|entry| self.asking.plain && !entry.varies && entry.fresh_until > now)
    }

    /// Fetches for all who want the object.
    async fn lead(&mut self, request: Request<()>, stale: Option<Stale>, lead: Lead) -> io::Result<bool> {
        match self.desk.fetch(self.asking.url.as_str(), request, stale, lead).await {
            Ok(Fetched::Along(reader)) => self.along(reader, How::Miss).await,
            Ok(Fetched::Kept(entry, how)) => self.kept(&entry, how).await,
            Ok(Fetched::Pass(passing)) => self.pass(*passing).await,
            Err(refusal) => self.refuse(&refusal).await,
        }
    }

    /// The request as it goes to the server for the whole object.
    fn onward(&self) -> Result<Request<()>, Refusal> {
        let unusable = |e| Refusal::new(400, "refused_syntax", format!("the address cannot be used: {e}"));
        let mut request = Request::new(());
        *request.uri_mut() = Uri::try_from(self.asking.url.as_str()).map_err(unusable)?;
        if self.asking.head_only {
            *request.method_mut() = Method::HEAD;
        }
        *request.headers_mut() = request::onward(self.head, &self.desk.shared.own);
        if !self.asking.personal {
            request::strip_conditions(request.headers_mut());
        }
        Ok(request)
    }

    async fn refuse(&mut self, refusal: &Refusal) -> io::Result<bool> {
        note(self.client, self.desk, refusal);
        let text = answer::refused(refusal, self.asking.keep_alive, self.asking.head_only, clock::now());
        send::write(self.stream, &text).await.map(|()| self.asking.keep_alive)
    }

    fn choose(&self, entry: &Entry) -> answer::Chosen {
        answer::choose(&self.asking.conditions, entry.etag.as_deref(), entry.last_modified.as_deref(), entry.len)
    }

    /// Answers from an object of the cache.
    async fn kept(&mut self, entry: &Entry, how: How) -> io::Result<bool> {
        let Ok(file) = self.desk.shared.store.open_body(entry) else {
            // Let go a moment ago: the next request finds it gone.
            return self.refuse(&Refusal::new(503, "disk_failed", "the object has just been let go; ask again")).await;
        };
        let chosen = self.choose(entry);
        let bytes = if self.asking.head_only { 0 } else { chosen.range.end - chosen.range.start };
        self.desk.shared.meter.count(how.counter());
        self.desk.shared.meter.add("bytes_from_cache", bytes);
        let head = answer::head(entry, &chosen, how, self.asking.keep_alive, clock::now());
        if bytes == 0 {
            send::write(self.stream, &head).await?;
        } else {
            send::file(self.stream, head, &file, chosen.range).await?;
        }
        Ok(self.asking.keep_alive)
    }

    /// Waits for somebody else's fetch.
    async fn follow(&mut self, mut reader: Reader, request: Request<()>) -> io::Result<bool> {
        match reader.answered().await {
            Progress::Growing { object, .. } if self.suits(&object, &request) => self.along(reader, How::Shared).await,
            Progress::Kept(entry, how) if !entry.varies => self.kept(&entry, how).await,
            Progress::Failed(refusal) => self.refuse(&refusal).await,
            _ => {
                drop(reader);
                self.alone(request).await
            }
        }
    }

    /// Whether an object that comes for another client's request answers this one as well.
    fn suits(&self, object: &Growing, request: &Request<()>) -> bool {
        !object.entry.varies || !matches!(policy::judge(&object.policy, request, clock::now()), Verdict::Other)
    }

    /// Sends an object as it comes. A fetch that fails shows as a body that is too short, never as a whole one.
    async fn along(&mut self, mut reader: Reader, how: How) -> io::Result<bool> {
        let Progress::Growing { object, .. } = reader.answered().await else {
            return self.refuse(&Refusal::new(502, "upstream_failed", "the fetch failed; ask again")).await;
        };
        let chosen = self.choose(&object.entry);
        let head = answer::head(&object.entry, &chosen, how, self.asking.keep_alive, clock::now());
        self.desk.shared.meter.count(how.counter());
        let mut at = chosen.range.start;
        send::write(self.stream, &head).await?;
        while at < chosen.range.end {
            let here = tokio::select! {
                here = reader.more_than(at) => here.ok_or_else(|| io::Error::other("the fetch failed"))?,
                () = gone(self.stream) => return Err(io::ErrorKind::ConnectionAborted.into()),
            };
            let to = here.min(chosen.range.end);
            send::copy(self.stream, &object.file, at..to).await?;
            at = to;
        }
        Ok(self.asking.keep_alive)
    }

    /// Asks the server for this client alone; nothing is kept.
    async fn alone(&mut self, request: Request<()>) -> io::Result<bool> {
        match self.desk.alone(request).await {
            Ok(passing) => self.pass(passing).await,
            Err(refusal) => self.refuse(&refusal).await,
        }
    }

    /// Passes an answer on.
    async fn pass(&mut self, passing: Passing) -> io::Result<bool> {
        let Passing { answer, mut body, mut tee } = passing;
        let bare = self.asking.head_only || matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing = match body.size_hint().exact() {
            _ if bare => Framing::None,
            Some(len) => Framing::Length(len),
            None if self.asking.chunks => Framing::Chunks,
            None => Framing::Close,
        };
        let keep_alive = self.asking.keep_alive && framing != Framing::Close;
        let head = answer::passed(answer.status, &answer.headers, framing, keep_alive, &self.desk.shared.own);
        self.desk.shared.meter.count(How::Passed.counter());
        send::write(self.stream, &head).await?;
        if framing != Framing::None {
            self.pour(&mut body, framing, &mut tee).await?;
        }
        if let Some(tee) = tee.filter(|_| !bare) {
            self.desk.keep(self.asking.url.as_str(), tee, &answer.headers);
        }
        Ok(keep_alive)
    }

    /// The body of a passed answer, into the cache as well while it fits there.
    async fn pour(&mut self, body: &mut Incoming, framing: Framing, tee: &mut Option<fetch::Tee>) -> io::Result<()> {
        while let Some(bytes) = fetch::next(body).await? {
            self.desk.shared.meter.add("bytes_from_upstream", bytes.len() as u64);
            if tee.as_mut().is_some_and(|t| {
                t.draft.written + bytes.len() as u64 > self.desk.shared.max_object || t.draft.write(&bytes).is_err()
            }) {
                *tee = None;
            }
            if framing == Framing::Chunks {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(&bytes);
                chunk.extend_from_slice(b"\r\n");
                send::write(self.stream, &chunk).await?;
            } else {
                send::write(self.stream, &bytes).await?;
            }
        }
        if framing == Framing::Chunks {
            send::write(self.stream, b"0\r\n\r\n").await?;
        }
        Ok(())
    }
}

/// Waits until the client has closed its end.
async fn gone(stream: &TcpStream) {
    if let Ok(1..) = stream.peek(&mut [0]).await {
        std::future::pending::<()>().await; // It has asked for more already.
    }
}
