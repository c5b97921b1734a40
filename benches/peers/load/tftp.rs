//! Read requests by the product's own receiver, on one thread, a socket for each transfer.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use actors::clock::tick;
use clap::Args;
use mio::{Events, Interest, Poll, Token, net::UdpSocket};
use rack::tftp::{
    packet::{Mode, Options, Packet},
    receiver::{Heard, Next, Receiver, Reply},
    transfer::Event,
};
use serde_json::{Value, json};

/// Silence after which a transfer repeats itself.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often silences are looked for.
const SWEEP: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub(super) struct Tftp {
    #[arg(long)]
    server: Ipv4Addr,
    #[arg(long)]
    file: String,
    /// Transfers at once
    #[arg(long)]
    clients: usize,
    /// Fetches again and again for so long; without it each client fetches once
    #[arg(long)]
    seconds: Option<f64>,
    #[arg(long)]
    block: u16,
    #[arg(long, default_value_t = 1)]
    window: u16,
}

#[derive(Default)]
struct Counts {
    bytes: u64,
    complete: u64,
    failed: u64,
    /// Requests that had to be sent again, and other packets that had.
    asked_again: u64,
    repeated: u64,
    why: String,
}

struct Client {
    socket: UdpSocket,
    receiver: Receiver,
    /// The server's port of this transfer, once known.
    peer: Option<SocketAddr>,
    heard: Instant,
    over: bool,
}

impl Tftp {
    pub(super) fn run(&self) -> io::Result<Value> {
        let (mut poll, mut events, mut counts) = (Poll::new()?, Events::with_capacity(1_024), Counts::default());
        let begin = tick();
        let mut clients = Vec::with_capacity(self.clients);
        for number in 0..self.clients {
            clients.push(self.begin(&poll, number)?);
        }
        let (mut buffer, mut swept) = (vec![0; 65_536], begin);
        while self.seconds.is_none_or(|s| begin.elapsed().as_secs_f64() < s) && clients.iter().any(|c| !c.over) {
            poll.poll(&mut events, Some(SWEEP))?;
            for event in &events {
                let Token(number) = event.token();
                let Some(client) = clients.get_mut(number) else { continue };
                self.hear(client, &mut buffer, &mut counts)?;
                if client.over && self.seconds.is_some() {
                    *client = self.begin(&poll, number)?;
                }
            }
            if swept.elapsed() > SWEEP {
                swept = tick();
                for client in clients.iter_mut().filter(|c| !c.over && c.heard.elapsed() > PATIENCE) {
                    client.heard = tick();
                    let heard = client.receiver.step(Event::Elapsed);
                    *if heard.reply == Reply::Request { &mut counts.asked_again } else { &mut counts.repeated } += 1;
                    self.follow(client, &heard, &mut counts)?;
                }
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        let Counts { bytes, complete, failed, asked_again, repeated, why } = counts;
        Ok(json!({
            "mb": bytes as f64 / 1e6, "seconds": seconds, "complete": complete, "failed": failed, "why": why,
            "asked_again": asked_again, "repeated": repeated,
        }))
    }

    fn asked(&self) -> Options {
        Options {
            blksize: (self.block != 512).then_some(self.block),
            tsize: Some(0),
            windowsize: (self.window > 1).then_some(self.window),
            ..Options::default()
        }
    }

    fn begin(&self, poll: &Poll, number: usize) -> io::Result<Client> {
        let mut socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
        poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
        let receiver = Receiver::new(self.asked(), PATIENCE);
        let mut client = Client { socket, receiver, peer: None, heard: tick(), over: false };
        let heard = client.receiver.step(Event::Start);
        self.follow(&mut client, &heard, &mut Counts::default())?;
        Ok(client)
    }

    /// Everything that has arrived.
    fn hear(&self, client: &mut Client, buffer: &mut [u8], counts: &mut Counts) -> io::Result<()> {
        while !client.over {
            let (len, from) = match client.socket.recv_from(buffer) {
                Ok(received) => received,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            };
            let Ok(packet) = Packet::parse(buffer.get(..len).unwrap_or_default()) else { continue };
            if *client.peer.get_or_insert(from) != from {
                continue;
            }
            client.heard = tick();
            let heard = client.receiver.step(Event::Packet(packet));
            if let (true, Packet::Data { data, .. }) = (heard.take, packet) {
                counts.bytes += data.len() as u64;
            }
            self.follow(client, &heard, counts)?;
        }
        Ok(())
    }

    fn follow(&self, client: &mut Client, heard: &Heard, counts: &mut Counts) -> io::Result<()> {
        let (packet, to) = match heard.reply {
            Reply::Nothing => (None, None),
            Reply::Request => {
                let request = Packet::Read { name: &self.file, mode: Mode::Octet, options: self.asked() };
                (Some(request), Some((self.server, 69).into()))
            }
            Reply::Ack(block) => (Some(Packet::Ack { block }), client.peer),
            Reply::Error(code) => (Some(Packet::Error { code, message: "" }), client.peer),
        };
        if let (Some(packet), Some(to)) = (packet, to) {
            client.socket.send_to(&packet.to_bytes(), to)?;
        }
        match &heard.next {
            Next::Wait(_) => {}
            Next::Complete => {
                client.over = true;
                counts.complete += 1;
            }
            Next::Failed(why) => {
                client.over = true;
                counts.failed += 1;
                counts.why.clone_from(why);
            }
        }
        Ok(())
    }
}
