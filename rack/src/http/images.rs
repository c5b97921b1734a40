//! Boot files over HTTP: one connection from its first request to its last. Bodies go from the page cache to the socket by sendfile(2).
//! What belongs to actix-web (everything below `/MAAS/`, everything but GET and HEAD) is handed over untouched, for good.

use std::{
    io,
    ops::Range,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use actors::clock::{self, tick};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Ends,
    files::{self, Asking, Entity, HeadError, MAX_HEAD, Reply},
    send::{self, STALL},
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
/// Bodies up to this many bytes are read and go out together with their head.
const SMALL: u64 = 32_768;

/// Why a connection left this module.
pub(super) enum Parting {
    Closed,
    /// The next request is actix-web's; not a byte of it has been taken.
    HandOver(TcpStream),
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

/// Serves files on `stream` until it closes, idles out, or asks for something else.
pub(super) async fn converse(mut stream: TcpStream, ends: Ends, desk: &BootDesk) -> Parting {
    let mut buffer = vec![0; MAX_HEAD];
    let mut delivery = None;
    loop {
        let heard = next_head(&stream, &mut buffer, &mut delivery).await;
        if let Some(delivery) = delivery.take() {
            delivery.settle(&stream);
        }
        let (asking, len) = match heard {
            Heard::Asking(asking, len) => (asking, len),
            Heard::Other => return Parting::HandOver(stream),
            Heard::Gone => return Parting::Closed,
            Heard::Wrong(status, why) => {
                tracing::debug!(peer = %ends.peer, "HTTP refused {}: {why}", ends.peer);
                refuse(&mut stream, status, &why).await.ok(); // It closes either way.
                return Parting::Closed;
            }
        };
        let taken = match buffer.get_mut(..len) {
            Some(head) => stream.read_exact(head).await,
            None => return Parting::Closed,
        };
        let keep_alive = asking.keep_alive;
        if taken.is_err() {
            return Parting::Closed;
        }
        delivery = match answer(&mut stream, ends, desk, &asking).await {
            Ok(delivery) => delivery,
            Err(_) => return Parting::Closed, // Reported where it happened.
        };
        if !keep_alive {
            let fin = stream.shutdown().await.is_ok();
            if let Some(mut delivery) = delivery {
                delivery.fin = u32::from(fin);
                delivery.await_acknowledgement(&stream).await;
                delivery.settle(&stream);
            }
            return Parting::Closed;
        }
    }
}

enum Heard {
    Asking(Asking, usize),
    Other,
    Gone,
    Wrong(u16, String),
}

/// Looks at the next head without taking it, and meanwhile at whether the last answer has arrived.
async fn next_head(stream: &TcpStream, buffer: &mut [u8], delivery: &mut Option<Delivery>) -> Heard {
    let began = tick();
    let (mut known, mut first_byte) = (0, None);
    loop {
        let poll = match delivery {
            Some(delivery) => delivery.poll_interval(),
            None => IDLE,
        };
        let len = match tokio::time::timeout(poll, stream.peek(buffer)).await {
            Ok(Ok(0)) | Ok(Err(_)) => return Heard::Gone,
            Ok(Ok(len)) => len,
            Err(_) => {
                if let Some(waiting) = delivery.as_mut()
                    && waiting.is_over(stream)
                    && let Some(delivery) = delivery.take()
                {
                    delivery.settle(stream);
                }
                if began.elapsed() > IDLE {
                    return Heard::Gone;
                }
                continue;
            }
        };
        let bytes = buffer.get(..len).unwrap_or_default();
        match whose(bytes) {
            Whose::Others => return Heard::Other,
            Whose::Ours => match files::parse(bytes) {
                Ok(Some((asking, len))) => return Heard::Asking(asking, len),
                Ok(None) if len == MAX_HEAD => return Heard::Wrong(431, format!("a head exceeds {MAX_HEAD} bytes")),
                Ok(None) => {}
                Err(HeadError::Method) => return Heard::Other,
                Err(error) => return Heard::Wrong(400, error.to_string()),
            },
            Whose::Unclear => {}
        }
        if first_byte.get_or_insert_with(tick).elapsed() > HEAD_WAIT {
            return Heard::Gone;
        }
        // A peek finds the same bytes again at once; a head in pieces is rare, so a short nap is all it gets.
        if len == known {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        known = len;
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
    let asked = Asked { name: &asking.path, peer: ends.peer.ip(), rack: ends.local };
    let Opened { content, tracking, name, .. } = desk.open("http", &asked);
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
    match written {
        // A part before the last leaves the file unfinished, which is no failure either.
        Ok(()) if reply.ends_at(whole) => Ok(Some(Delivery { tracking, bytes: whole, since, stalled: tick(), fin: 0 })),
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
        Held::Body { body, .. } => Entity::Body { len: body.len, sha256: body.sha256 },
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
    if !asking.head_only {
        head.extend_from_slice(reply.note.as_bytes());
        let range = reply.range.clone();
        match content {
            Held::Text(text) => head.extend_from_slice(slice(text, &range)),
            Held::Body { file, .. } if range.end - range.start <= SMALL => {
                let at = head.len();
                head.resize(at + usize::try_from(range.end - range.start).unwrap_or(0), 0);
                file.read_exact_at(head.get_mut(at..).unwrap_or_default(), range.start)?;
            }
            Held::Body { file, .. } => {
                send::write_more(stream, &head).await?;
                return send::copy(stream, file, range).await;
            }
            Held::Missing | Held::Absent(_) => {}
        }
    }
    send::write(stream, &head).await
}

fn slice<'a>(text: &'a str, range: &Range<u64>) -> &'a [u8] {
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    text.as_bytes().get(at(range.start)..at(range.end)).unwrap_or_default()
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
