//! GET over kept connections, on one thread. Bodies are dropped inside the kernel, so that the server has the processor.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use actors::clock::tick;
use clap::Args;
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use serde_json::{Value, json};

/// Bytes that one call drops at most.
const PIECE: usize = 4 << 20;
/// Reads of one connection before the others have their turn.
const TURN: usize = 16;

#[derive(Debug, Args)]
pub(super) struct Http {
    #[arg(long)]
    server: Ipv4Addr,
    #[arg(long)]
    port: u16,
    /// The target, as in /squashfs or http://origin/file; "{}" becomes 0, 1, … below --objects
    #[arg(long)]
    target: String,
    #[arg(long, default_value_t = 1)]
    objects: u64,
    /// Connections
    #[arg(long)]
    clients: usize,
    #[arg(long)]
    seconds: f64,
    /// The Host field
    #[arg(long, default_value = "rack")]
    host: String,
}

struct Connection {
    stream: TcpStream,
    /// The head as far as it has come.
    head: Vec<u8>,
    /// Bytes of the body that are still to come; `None` before the head has ended.
    left: Option<u64>,
    begun: Instant,
    /// Waits for its turn.
    queued: bool,
}

#[derive(Default)]
struct Counts {
    asked: u64,
    bytes: u64,
    wrong: u64,
    took_ms: Vec<f64>,
}

/// What a turn of a connection left.
enum Turn {
    /// Nothing more to read for now.
    Dry,
    /// There may be more.
    More,
}

impl Http {
    pub(super) fn run(&self) -> io::Result<Value> {
        let (mut poll, mut events, mut counts) = (Poll::new()?, Events::with_capacity(1_024), Counts::default());
        let address = SocketAddr::from((self.server, self.port));
        let begin = tick();
        let mut connections = Vec::with_capacity(self.clients);
        for number in 0..self.clients {
            let mut stream = TcpStream::from_std(std::net::TcpStream::connect(address)?);
            stream.set_nodelay(true)?;
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            let mut connection = Connection { stream, head: Vec::new(), left: None, begun: tick(), queued: false };
            self.ask(&mut connection, &mut counts)?;
            connections.push(connection);
        }
        let (mut buffer, mut ready) = (vec![0; PIECE], VecDeque::new());
        while begin.elapsed().as_secs_f64() < self.seconds {
            let wait = if ready.is_empty() { Duration::from_millis(50) } else { Duration::ZERO };
            poll.poll(&mut events, Some(wait))?;
            for number in events.iter().map(|event| event.token().0) {
                if let Some(connection) = connections.get_mut(number)
                    && !std::mem::replace(&mut connection.queued, true)
                {
                    ready.push_back(number);
                }
            }
            // One turn each, then the clock and the poll again.
            for _ in 0..ready.len() {
                let Some(number) = ready.pop_front() else { break };
                let Some(connection) = connections.get_mut(number) else { continue };
                connection.queued = matches!(self.turn(connection, &mut buffer, &mut counts)?, Turn::More);
                if connection.queued {
                    ready.push_back(number);
                }
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        let Counts { bytes, wrong, mut took_ms, .. } = counts;
        took_ms.sort_by(f64::total_cmp);
        Ok(json!({
            "mb": bytes as f64 / 1e6, "done": took_ms.len(), "wrong": wrong, "seconds": seconds,
            "p50_ms": super::share(&took_ms, 0.5), "p99_ms": super::share(&took_ms, 0.99),
        }))
    }

    fn ask(&self, connection: &mut Connection, counts: &mut Counts) -> io::Result<()> {
        let target = self.target.replace("{}", &(counts.asked % self.objects).to_string());
        counts.asked += 1;
        connection.head.clear();
        (connection.left, connection.begun) = (None, tick());
        // A request of a few hundred bytes fits into the buffer of an idle connection.
        connection.stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host).as_bytes())
    }

    fn turn(&self, connection: &mut Connection, buffer: &mut [u8], counts: &mut Counts) -> io::Result<Turn> {
        for _ in 0..TURN {
            let taken = match connection.left {
                None => self.read_head(connection, buffer, counts),
                Some(left) => drop_body(connection, left, buffer),
            };
            match taken {
                Ok(len) => counts.bytes += len,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Turn::Dry),
                Err(e) => return Err(e),
            }
            if connection.left == Some(0) {
                counts.took_ms.push(connection.begun.elapsed().as_secs_f64() * 1e3);
                self.ask(connection, counts)?;
            }
        }
        Ok(Turn::More)
    }

    /// Reads what is there; when the head ends in it, the rest is the body's beginning. Returns bytes of the body.
    fn read_head(&self, connection: &mut Connection, buffer: &mut [u8], counts: &mut Counts) -> io::Result<u64> {
        let room = buffer.get_mut(..16_384).unwrap_or_default();
        let len = connection.stream.read(room)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        connection.head.extend_from_slice(room.get(..len).unwrap_or_default());
        let Some(end) = connection.head.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(0) };
        let head = String::from_utf8_lossy(connection.head.get(..end).unwrap_or_default()).to_ascii_lowercase();
        let field = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let announced: u64 = field.and_then(|n| n.trim().parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        counts.wrong += u64::from(!head.starts_with("http/1.1 200"));
        let here = (connection.head.len() - end - 4) as u64;
        connection.left = Some(announced.saturating_sub(here));
        Ok(here)
    }
}

/// Drops what has come of the body, and says how much (`MSG_TRUNC`: the kernel copies nothing).
fn drop_body(connection: &mut Connection, left: u64, buffer: &mut [u8]) -> io::Result<u64> {
    let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let room = buffer.get_mut(..most).unwrap_or_default();
    match recv(connection.stream.as_raw_fd(), room, MsgFlags::MSG_TRUNC) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(len) => {
            connection.left = Some(left.saturating_sub(len as u64));
            Ok(len as u64)
        }
        Err(Errno::EINTR) => Ok(0),
        Err(e) => Err(e.into()),
    }
}
