//! DORA after DORA through one relay's socket: each client once (a storm of first leases), or all of them again and again.

use std::{
    collections::{HashSet, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use actors::clock::tick;
use benches::relayed::{self, Answer, DISCOVER, OFFER, REQUEST};
use clap::Args;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

/// ACK and NAK (RFC 2132 section 9.6).
const ACK: u8 = 5;
const NAK: u8 = 6;
/// What is not answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Dhcp {
    #[arg(long)]
    server: Ipv4Addr,
    /// The relay: an address of this host, on whose port 67 answers arrive
    #[arg(long)]
    relay: Ipv4Addr,
    #[arg(long)]
    clients: u32,
    /// The number of the first client
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// Exchanges outstanding
    #[arg(long)]
    window: usize,
    /// Goes round the clients for so long; without it each of them has one exchange
    #[arg(long)]
    seconds: Option<f64>,
    /// Exchanges begun per second at most
    #[arg(long)]
    rate: Option<f64>,
}

/// A relay's socket, with room for a storm of answers.
pub(super) fn socket(relay: Ipv4Addr, server: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((relay, 67))?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
    socket.connect(SocketAddr::from((server, 67)))?;
    Ok(socket)
}

/// The exchanges under way and what became of them.
struct Exchanges<'a> {
    load: &'a Dhcp,
    socket: UdpSocket,
    /// By the client's place: when its exchange began, and its transaction.
    open: Vec<Option<(Instant, u32)>>,
    /// In the order of their beginning.
    begun: VecDeque<(usize, Instant)>,
    outstanding: usize,
    started: u32,
    lost: u64,
    refused: u64,
    took_ms: Vec<f64>,
    addresses: HashSet<Ipv4Addr>,
}

impl Dhcp {
    pub(super) fn run(&self) -> io::Result<Value> {
        let socket = socket(self.relay, self.server)?;
        socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        let mut exchanges = Exchanges {
            load: self,
            socket,
            open: vec![None; self.clients as usize],
            begun: VecDeque::new(),
            outstanding: 0,
            started: 0,
            lost: 0,
            refused: 0,
            took_ms: Vec::new(),
            addresses: HashSet::new(),
        };
        let seconds = exchanges.exhaust()?;
        let Exchanges { mut took_ms, lost, refused, addresses, .. } = exchanges;
        took_ms.sort_by(f64::total_cmp);
        Ok(json!({
            "done": took_ms.len(), "lost": lost, "refused": refused, "addresses": addresses.len(), "seconds": seconds,
            "rate": took_ms.len() as f64 / seconds, "p50_ms": super::share(&took_ms, 0.5), "p99_ms": super::share(&took_ms, 0.99),
        }))
    }
}

impl Exchanges<'_> {
    /// All exchanges to their end; the seconds they took.
    fn exhaust(&mut self) -> io::Result<f64> {
        let begin = tick();
        let mut buffer = [0; 2_048];
        loop {
            let over = match self.load.seconds {
                Some(seconds) => begin.elapsed().as_secs_f64() >= seconds,
                None => self.started >= self.load.clients,
            };
            if over && self.outstanding == 0 {
                return Ok(begin.elapsed().as_secs_f64());
            }
            while !over && self.outstanding < self.load.window && self.is_due(begin) && self.begin()? {}
            match self.socket.recv(&mut buffer) {
                Ok(len) => self.hear(relayed::answer(buffer.get(..len).unwrap_or_default()))?,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => {}
                Err(e) => return Err(e),
            }
            self.give_up();
        }
    }

    fn is_due(&self, begin: Instant) -> bool {
        self.load.rate.is_none_or(|rate| f64::from(self.started) < begin.elapsed().as_secs_f64() * rate)
    }

    /// Begins the next client's exchange; `false` while its last one is under way, or when each had its own.
    fn begin(&mut self) -> io::Result<bool> {
        let client = self.started % self.load.clients;
        if self.load.seconds.is_none() && self.started >= self.load.clients {
            return Ok(false);
        }
        let Some(open @ None) = self.open.get_mut(client as usize) else { return Ok(false) };
        let (now, xid) = (tick(), self.started);
        *open = Some((now, xid));
        self.begun.push_back((client as usize, now));
        self.outstanding += 1;
        self.started += 1;
        self.send(xid, DISCOVER, None)?;
        Ok(true)
    }

    fn send(&self, xid: u32, kind: u8, taken: Option<(Ipv4Addr, Ipv4Addr)>) -> io::Result<()> {
        let mac = relayed::mac(self.load.first + xid % self.load.clients);
        match self.socket.send(&relayed::message(xid, mac, kind, self.load.relay, taken)) {
            // A server that restarts: what it does not answer is counted as lost.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            sent => sent.map(drop),
        }
    }

    fn hear(&mut self, answer: Option<Answer>) -> io::Result<()> {
        let Some(answer) = answer else { return Ok(()) };
        let client = (answer.xid % self.load.clients) as usize;
        let Some((begun, _)) = self.open.get(client).copied().flatten().filter(|(_, xid)| *xid == answer.xid) else {
            return Ok(());
        };
        match answer.kind {
            OFFER => return self.send(answer.xid, REQUEST, Some((answer.ip, answer.server))),
            ACK => {
                self.took_ms.push(begun.elapsed().as_secs_f64() * 1e3);
                self.addresses.insert(answer.ip);
            }
            NAK => self.refused += 1,
            _ => return Ok(()),
        }
        self.close(client);
        Ok(())
    }

    fn close(&mut self, client: usize) {
        if self.open.get_mut(client).is_some_and(|open| open.take().is_some()) {
            self.outstanding -= 1;
        }
    }

    /// What has waited for too long is lost.
    fn give_up(&mut self) {
        while let Some((client, begun)) = self.begun.front().copied() {
            let open = self.open.get(client).copied().flatten().is_some_and(|(at, _)| at == begun);
            if open && begun.elapsed() < PATIENCE {
                return;
            }
            if open {
                self.lost += 1;
                self.close(client);
            }
            self.begun.pop_front();
        }
    }
}
