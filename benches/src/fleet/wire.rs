//! One machine's sockets: a DHCP client's, a TFTP transfer's, an HTTP connection. Carries out what the machine does, brings back what it hears.

use std::{
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use rack::tftp::packet::MAX_REQUEST;
use socket2::SockRef;
use tokio::net::UdpSocket;

use super::{
    Counts, Door, Weather,
    http::{Answer, Connection, exchange},
};
use crate::machine::{Action, Request};

/// What came.
pub(super) enum Heard {
    /// See [`Wire::datagram`].
    Datagram,
    Answer(Answer),
    /// The request came to nothing.
    Broken,
    /// Nothing, in the time that was given.
    Silence,
}

/// The sockets.
pub(super) struct Wire<'a> {
    door: Door,
    weather: &'a Weather,
    counts: &'a Counts,
    /// What it was leased.
    ip: Ipv4Addr,
    udp: Option<Udp>,
    /// The request to be made, then under way.
    request: Option<Request>,
    connection: Option<Connection>,
    buffer: Vec<u8>,
    len: usize,
}

struct Udp {
    socket: UdpSocket,
    /// Who is heard. TFTP: the server's port for this transfer, once it has answered.
    peer: Option<SocketAddr>,
}

impl<'a> Wire<'a> {
    pub(super) fn new(door: Door, weather: &'a Weather, counts: &'a Counts) -> Self {
        let (ip, buffer) = (Ipv4Addr::UNSPECIFIED, Vec::new());
        Self { door, weather, counts, ip, udp: None, request: None, connection: None, buffer, len: 0 }
    }

    /// Does it, as far as it needs no waiting. What a full buffer drops is lost, as on a wire.
    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Dhcp { fresh, bytes } => {
                self.counts.dhcp(bytes.len());
                self.say_dhcp(fresh, &bytes).ok(); // The client asks again.
            }
            Action::Address(ip) => self.ip = ip,
            Action::TftpAsk(bytes) => {
                self.counts.tftp(bytes.len());
                self.ask_tftp(&bytes).ok(); // As above.
            }
            Action::TftpSay(bytes) => {
                self.counts.tftp(bytes.len());
                if let Some((udp, peer)) = self.udp.as_ref().and_then(|udp| Some((udp, udp.peer?))) {
                    self.send(&udp.socket, &bytes, peer).ok(); // As above.
                }
            }
            Action::Http(request) => {
                self.counts.request(request.bytes.len());
                self.udp = None;
                self.request = Some(request);
            }
            // The fleet's own.
            Action::Wait(_) | Action::Expect(_) | Action::Off | Action::Hang(_) => {}
        }
    }

    fn say_dhcp(&mut self, fresh: bool, bytes: &[u8]) -> io::Result<()> {
        if fresh {
            self.connection = None;
        }
        if fresh || self.udp.is_none() {
            // Its port may have been another machine's a moment ago, whose last datagrams still come: they are not heard.
            self.udp = Some(Udp { socket: bind(Ipv4Addr::UNSPECIFIED)?, peer: Some(self.door.dhcp.into()) });
        }
        if let Some(udp) = &self.udp {
            self.send(&udp.socket, bytes, self.door.dhcp.into())?;
        }
        Ok(())
    }

    fn ask_tftp(&mut self, bytes: &[u8]) -> io::Result<()> {
        let socket = bind(self.ip)?;
        let server = SocketAddrV4::new(*self.door.dhcp.ip(), self.door.tftp_port);
        self.send(&socket, bytes, server.into())?;
        self.udp = Some(Udp { socket, peer: None });
        Ok(())
    }

    /// Past tokio, which takes a new socket for one that cannot be written to until its driver has seen it.
    fn send(&self, socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        if self.weather.is_cut() {
            return Ok(());
        }
        SockRef::from(socket).send_to(bytes, &to.into()).map(|_| ())
    }

    /// The last datagram.
    pub(super) fn datagram(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// Waits for what comes. Dropping it loses no datagram, and breaks off a request.
    pub(super) async fn hear(&mut self) -> Heard {
        if let Some(request) = self.request.take() {
            // A connection that stood idle may have been closed meanwhile: then a new one is tried, once.
            let kept = self.connection.take().filter(|c| c.to() == request.to);
            self.weather.pass().await;
            let answered = exchange(kept, self.ip, &request).await;
            return match answered {
                Ok((answer, connection)) => {
                    self.counts.received(answer.bytes);
                    self.connection = connection.filter(|_| request.keep);
                    Heard::Answer(answer)
                }
                Err(_) => {
                    self.counts.failure();
                    Heard::Broken
                }
            };
        }
        let Some(udp) = &mut self.udp else { return pending().await };
        self.buffer.resize(MAX_REQUEST, 0);
        loop {
            // The datagram stays in the socket meanwhile.
            if let Some(delay) = self.weather.delay()
                && udp.socket.readable().await.is_ok()
            {
                tokio::time::sleep(delay).await;
            }
            let Ok((len, from)) = udp.socket.recv_from(&mut self.buffer).await else { continue };
            if self.weather.is_cut() {
                continue;
            }
            // TFTP: the port that answers first is the transfer's (RFC 1350 section 4).
            if *udp.peer.get_or_insert(from) == from {
                self.counts.received(len);
                self.len = len;
                return Heard::Datagram;
            }
        }
    }
}

fn bind(ip: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(SocketAddrV4::new(ip, 0))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
