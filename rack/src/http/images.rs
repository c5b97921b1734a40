//! Boot files over HTTP: one connection from its first request to its last. Images go from the page cache to the socket by sendfile(2), small files from memory.
//! What belongs to actix-web (everything below `/MAAS/`, everything but GET and HEAD) is handed over untouched, for good.

use std::{
    cell::Cell,
    io,
    ops::Range,
    rc::Rc,
    time::{Duration, Instant},
};

use actors::clock::{self, tick};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    Ends,
    files::{self, Asking, Entity, HeadError, MAX_HEAD, Reply},
    send::{self, STALL},
    wire::Wire,
};
use crate::{
    boot::{
        Asked,
        desk::{BootDesk, Held, Opened, Tracking},
    },
    kernel,
};

/// How long a head may take to arrive.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long a connection may stand idle between two requests.
const IDLE: Duration = Duration::from_secs(60);
/// How long either may take where connections are many.
const HURRY: Duration = Duration::from_secs(3);
/// How often a connection that says nothing looks whether it may stay.
const LOOK: Duration = Duration::from_secs(5);

/// Why a connection left this module.
pub(super) enum Parting {
    Closed,
    /// The next request is actix-web's; every byte of it is still on the wire.
    HandOver(Wire),
}

/// An answer that is written and that the machine has yet to acknowledge.
struct Delivery {
    tracking: Tracking,
    bytes: u64,
    since: Instant,
    stalled: Instant,
    /// Our FIN counts as one byte until it is acknowledged.
    fin: u32,
}

/// How many connections a thread holds, and may hold.
#[derive(Clone)]
pub(super) struct Crowd {
    pub(super) open: Rc<Cell<usize>>,
    pub(super) limit: usize,
}

impl Crowd {
    /// How long somebody who says nothing may stay who otherwise might for `most`. Where places are scarce, not for long.
    fn patience(&self, most: Duration) -> Duration {
        if self.open.get() > self.limit / 4 * 3 { most.min(HURRY) } else { most }
    }
}

/// Serves files on `stream` until it closes, idles out, or asks for something else.
pub(super) async fn converse(stream: TcpStream, ends: Ends, desk: &BootDesk, crowd: &Crowd) -> Parting {
    let (mut wire, mut delivery) = (Wire::new(stream), None);
    loop {
        let heard = next_head(&mut wire, &mut delivery, crowd).await;
        if let Some(delivery) = delivery.take() {
            delivery.settle(wire.stream());
        }
        let asking = match heard {
            Heard::Asking(asking) => asking,
            Heard::Other => return Parting::HandOver(wire),
            Heard::Gone => return Parting::Closed,
            Heard::Wrong(status, why) => {
                tracing::debug!(peer = %ends.peer, "HTTP refused {}: {why}", ends.peer);
                refuse(wire.stream_mut(), status, &why).await.ok(); // It closes either way.
                return Parting::Closed;
            }
        };
        let stream = wire.stream_mut();
        delivery = match answer(stream, ends, desk, &asking).await {
            Ok(delivery) => delivery,
            Err(_) => return Parting::Closed, // Reported where it happened.
        };
        if !asking.keep_alive {
            let fin = stream.shutdown().await.is_ok();
            if let Some(mut delivery) = delivery {
                delivery.fin = u32::from(fin);
                delivery.await_acknowledgement(stream).await;
                delivery.settle(stream);
            }
            return Parting::Closed;
        }
    }
}

enum Heard {
    /// A whole head, which is consumed.
    Asking(Asking),
    Other,
    Gone,
    Wrong(u16, String),
}

/// Waits for the next head, and meanwhile looks whether the last answer has arrived.
async fn next_head(wire: &mut Wire, delivery: &mut Option<Delivery>, crowd: &Crowd) -> Heard {
    let (began, mut first_byte) = (tick(), None);
    loop {
        if let Some(heard) = head_in(wire) {
            return heard;
        }
        let poll = delivery.as_ref().map_or(LOOK, Delivery::poll_interval);
        match tokio::time::timeout(poll, wire.fill(MAX_HEAD)).await {
            Ok(Ok(0)) | Ok(Err(_)) => return Heard::Gone,
            Ok(Ok(_)) => {}
            Err(_) => {
                if let Some(waiting) = delivery.as_mut()
                    && waiting.is_over(wire.stream())
                    && let Some(delivery) = delivery.take()
                {
                    delivery.settle(wire.stream());
                }
            }
        }
        let (since, most) = match (wire.unread().is_empty(), first_byte) {
            (true, _) => (began, IDLE),
            (false, at) => (at.unwrap_or_else(tick), HEAD_WAIT),
        };
        if !wire.unread().is_empty() {
            first_byte = Some(since);
        }
        if since.elapsed() > crowd.patience(most) {
            return Heard::Gone;
        }
    }
}

/// What the unread bytes are, if that can be said.
fn head_in(wire: &mut Wire) -> Option<Heard> {
    let bytes = wire.unread();
    if bytes.is_empty() {
        return None;
    }
    match whose(bytes) {
        Whose::Others => return Some(Heard::Other),
        Whose::Unclear => return None,
        Whose::Ours => {}
    }
    match files::parse(bytes) {
        Ok(Some((asking, len))) => {
            wire.consume(len);
            Some(Heard::Asking(asking))
        }
        Ok(None) if bytes.len() >= MAX_HEAD => Some(Heard::Wrong(431, format!("a head exceeds {MAX_HEAD} bytes"))),
        Ok(None) => None,
        Err(HeadError::Method) => Some(Heard::Other),
        Err(error) => Some(Heard::Wrong(400, error.to_string())),
    }
}

enum Whose {
    Ours,
    Others,
    Unclear,
}

/// Files are what is asked with GET or HEAD of a path that does not lie below `/MAAS/`.
fn whose(bytes: &[u8]) -> Whose {
    let rest = ["GET /", "HEAD /"].iter().find_map(|m| bytes.strip_prefix(m.as_bytes()));
    let Some(rest) = rest else {
        let begun = ["GET /", "HEAD /"].iter().any(|m| m.as_bytes().starts_with(bytes));
        return if begun { Whose::Unclear } else { Whose::Others };
    };
    let path = rest.iter().position(|b| *b != b'/').and_then(|at| rest.get(at..)).unwrap_or_default();
    match path.strip_prefix(b"MAAS") {
        Some([]) => Whose::Unclear,
        Some([b'/' | b' ' | b'?', ..]) => Whose::Others,
        _ if b"MAAS".starts_with(path) => Whose::Unclear,
        _ => Whose::Ours,
    }
}

async fn refuse(stream: &mut TcpStream, status: u16, why: &str) -> io::Result<()> {
    let fields = vec![("content-type", "text/plain; charset=utf-8".into())];
    let reply = Reply { status, fields, range: 0..0, len: why.len() as u64 + 2, note: "" };
    let mut bytes = files::head(&reply, false, clock::now());
    bytes.extend_from_slice(why.as_bytes());
    bytes.extend_from_slice(b".\n");
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// Answers one request. The delivery is what its end must be waited for; `None` where nothing is to be reported.
async fn answer(stream: &mut TcpStream, ends: Ends, desk: &BootDesk, asking: &Asking) -> io::Result<Option<Delivery>> {
    let since = tick();
    let asked =
        Asked { name: &asking.path, peer: ends.peer.ip(), rack: ends.local, names: desk.plan.has_dns(ends.local.ip()) };
    let Opened { content, tracking, name, kind } = desk.open("http", &asked);
    let entity = entity(&content);
    let reply = files::reply(asking, entity);
    let head = files::head(&reply, asking.keep_alive, clock::now());
    let written = write(stream, head, asking, &reply, &content).await;
    tracing::debug!(peer = %ends.peer, status = reply.status, bytes = reply.len, "{} asks for {name}", ends.peer);
    let whole = match entity {
        Entity::Body { len, .. } | Entity::Text { len } => len,
        Entity::Missing | Entity::Absent => return written.map(|()| None),
    };
    if asking.head_only {
        return written.map(|()| None);
    }
    if written.is_ok() {
        desk.sent.add(kind, reply.range.end - reply.range.start);
    }
    match written {
        // A part before the last leaves the file unfinished, which is no failure either.
        Ok(()) if reply.ends_at(whole) && tracking.is_of_a_machine() => {
            Ok(Some(Delivery { tracking, bytes: whole, since, stalled: tick(), fin: 0 }))
        }
        Ok(()) => Ok(None),
        Err(error) => {
            tracking.aborted(&format!("the machine took no more: {error}"));
            Err(error)
        }
    }
}

/// What the desk holds, as an entity of HTTP.
pub(super) fn entity(content: &Held) -> Entity {
    match content {
        Held::Text(text) => Entity::Text { len: text.len() as u64 },
        Held::Small { body, .. } | Held::Body { body, .. } => Entity::Body { len: body.len, sha256: body.sha256 },
        Held::Missing => Entity::Missing,
        Held::Absent(_) => Entity::Absent,
    }
}

async fn write(
    stream: &mut TcpStream,
    mut head: Vec<u8>,
    asking: &Asking,
    reply: &Reply,
    content: &Held,
) -> io::Result<()> {
    let mut bytes: &[u8] = &[];
    if !asking.head_only {
        head.extend_from_slice(reply.note.as_bytes());
        match content {
            Held::Text(text) => bytes = slice(text.as_bytes(), &reply.range),
            Held::Small { bytes: whole, .. } => bytes = slice(whole, &reply.range),
            Held::Body { file, .. } if !reply.range.is_empty() => {
                return send::file(stream, head, file, reply.range.clone()).await;
            }
            Held::Body { .. } | Held::Missing | Held::Absent(_) => {}
        }
    }
    send::write_both(stream, &head, bytes).await
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    bytes.get(at(range.start)..at(range.end)).unwrap_or_default()
}

impl Delivery {
    /// Milliseconds between two looks, longer the longer it takes.
    fn poll_interval(&self) -> Duration {
        (self.stalled.elapsed() / 4).clamp(Duration::from_millis(2), Duration::from_millis(100))
    }

    /// Whether the wait has an end: everything is acknowledged, the connection is broken, or nothing moves any more.
    fn is_over(&mut self, stream: &TcpStream) -> bool {
        let broken = stream.peer_addr().is_err();
        broken || kernel::unacknowledged(stream).map_or(true, |left| left <= self.fin) || self.stalled.elapsed() > STALL
    }

    async fn await_acknowledgement(&mut self, stream: &TcpStream) {
        while !self.is_over(stream) {
            tokio::time::sleep(self.poll_interval()).await;
        }
    }

    /// Reports. Only what the far end's kernel has acknowledged has arrived; what was merely written has not.
    /// How the connection ends says nothing: UEFI resets it after a whole body.
    fn settle(self, stream: &TcpStream) {
        match kernel::unacknowledged(stream) {
            Ok(left) if left <= self.fin => self.tracking.fetched(self.bytes, self.since.elapsed()),
            Ok(left) => self.tracking.aborted(&format!("the machine left with {left} bytes unacknowledged")),
            Err(error) => self.tracking.aborted(&format!("the connection is gone: {error}")),
        }
    }
}
