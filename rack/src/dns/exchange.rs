//! One question put to one server: from a port and with a number of its own, and only that server's answer to it is taken.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use actors::dns::reply::{NoReply, Reply};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::service::Meter;

/// Packets that are no answer to the question, after which somebody is taken to be guessing (RFC 5452 section 9.2): TCP it is then.
const GUESSES: u32 = 16;
/// The largest packet that a server may send; we offer less.
const PACKET: usize = 4_096;

/// What is put to a server.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// Name, type and class, as they are sent.
    pub(super) question: Vec<u8>,
    pub(super) dnssec_ok: bool,
    pub(super) unchecked: bool,
    /// The letters are of random case, and must come back so.
    pub(super) exact: bool,
}

impl Question {
    /// The query's bytes. Without EDNS for servers that do not know it.
    fn packet(&self, id: u16, edns: bool) -> Vec<u8> {
        // RD, and AD: tell us whether it was validated (RFC 6840 section 5.7).
        let flags = 0x0120_u16 | if self.unchecked { 0x0010 } else { 0 };
        let mut packet = [id.to_be_bytes(), flags.to_be_bytes()].concat();
        packet.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
        packet.extend_from_slice(&self.question);
        if edns {
            let size = actors::dns::wire::UDP_MAX.to_be_bytes();
            let flags = if self.dnssec_ok { 0x80 } else { 0 };
            packet.extend_from_slice(&[0, 0, 41, size[0], size[1], 0, 0, flags, 0, 0, 0]);
        }
        packet
    }

    /// Asks `server` and waits that long.
    ///
    /// # Errors
    /// No answer in time, or the network's own error.
    pub(super) async fn ask(&self, server: SocketAddr, wait: Duration, meter: &Meter) -> io::Result<Reply> {
        let reply = self.over_udp(server, true, wait, meter).await?;
        let reply = match reply {
            // RFC 6891 section 7: a server that does not know EDNS says FORMERR or NOTIMP.
            Some(reply) if matches!(reply.rcode, 1 | 4) => self.over_udp(server, false, wait, meter).await?,
            reply => reply,
        };
        match reply {
            Some(reply) if !reply.truncated => Ok(reply),
            _ => timeout(wait, self.over_tcp(server)).await?,
        }
    }

    /// The answer; `None` when there was guessing.
    async fn over_udp(
        &self,
        server: SocketAddr,
        edns: bool,
        wait: Duration,
        meter: &Meter,
    ) -> io::Result<Option<Reply>> {
        // A socket for this question alone: the kernel draws its port, and takes packets of this server only.
        let any: SocketAddr =
            if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(server).await?;
        let id = rand::random();
        socket.send(&self.packet(id, edns)).await?;
        let listen = async {
            let mut packet = vec![0; PACKET];
            for _ in 0..GUESSES {
                let len = socket.recv(&mut packet).await?;
                match Reply::read(&packet[..len], id, &self.question, self.exact) {
                    Ok(reply) => return Ok(Some(reply)),
                    Err(NoReply::Malformed) => {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "a malformed answer"));
                    }
                    Err(NoReply::Other) => {
                        let why = format!(
                            "{server} sent an answer with another number or question: a forgery, or one that came late"
                        );
                        meter.complain(
                            "forged",
                            why,
                            "none: it was dropped; if there are many, look who sends in that server's name",
                        );
                    }
                }
            }
            Ok(None)
        };
        timeout(wait, listen).await?
    }

    async fn over_tcp(&self, server: SocketAddr) -> io::Result<Reply> {
        let mut stream = TcpStream::connect(server).await?;
        let id = rand::random();
        let packet = self.packet(id, true);
        let len = u16::try_from(packet.len()).unwrap_or(0).to_be_bytes();
        stream.write_all(&[&len[..], &packet].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        let wrong = |e: NoReply| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
        Reply::read(&answer, id, &self.question, self.exact).map_err(wrong)
    }
}
