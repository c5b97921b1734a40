//! One transfer's socket: connected to the client, bound to the address it asked. Packs windows into few system calls; decides nothing.

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg},
};
use tokio::{io::Interest, net::UdpSocket};

use super::{
    packet::{Code, DATA_HEAD, Packet},
    transfer::{Send, Transfer},
};

/// Bytes of an IPv4 and a UDP header, and of a DATA packet's head.
const HEADS: u32 = 20 + 8 + 4;
/// What the kernel takes in one segmented send, in bytes and packets (UDP_SEGMENT).
const SEGMENTED: usize = 65_507;

/// The socket of one transfer.
pub(super) struct Outlet {
    socket: UdpSocket,
}

impl Outlet {
    /// A socket on a free port of `local` that hears `peer` only.
    pub(super) fn open(local: Ipv4Addr, peer: SocketAddrV4) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(SocketAddr::from((local, 0)))?;
        socket.connect(peer)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from_std(socket)? })
    }

    /// The largest block that travels in one frame to this client, in bytes (the IP layer need not fragment it).
    pub(super) fn largest_block(&self) -> u16 {
        let mtu = crate::kernel::route_mtu(&self.socket).unwrap_or(1_500);
        u16::try_from(mtu.saturating_sub(HEADS).clamp(8, 65_464)).unwrap_or(512)
    }

    /// Sends one ERROR. It is not acknowledged (RFC 1350 section 7).
    pub(super) async fn error(&self, code: Code, message: &str) -> io::Result<()> {
        self.socket.send(&Packet::Error { code, message }.to_bytes()).await.map(drop)
    }

    /// Ready for DATA packets of that block size.
    pub(super) fn frames(&self, block: u16, window: u16) -> Frames<'_> {
        let frame = usize::from(block) + DATA_HEAD;
        Frames {
            socket: &self.socket,
            frame,
            together: usize::from(window).min(SEGMENTED / frame).max(1),
            buffer: Vec::with_capacity(frame * usize::from(window).min(SEGMENTED / frame).max(1)),
        }
    }
}

/// Sends packets of one transfer.
pub(super) struct Frames<'a> {
    socket: &'a UdpSocket,
    /// Bytes of a full DATA packet.
    frame: usize,
    /// Packets of one segmented send; 1 where the kernel or the card refuses them.
    together: usize,
    buffer: Vec<u8>,
}

impl Frames<'_> {
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.recv(buffer).await {
                // An ICMP answer to an earlier packet. The client may yet come: its silence is what ends the transfer.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                other => return other,
            }
        }
    }

    pub(super) async fn send(&mut self, send: &Send, transfer: &Transfer, bytes: &[u8]) -> io::Result<()> {
        match send {
            Send::Nothing => Ok(()),
            Send::OptionAck(options) => {
                self.buffer.clear();
                Packet::OptionAck(*options).write(&mut self.buffer);
                self.flush(1).await
            }
            Send::Blocks { first, count } => {
                let (mut next, end) = (*first, *first + u64::from(*count));
                while next < end {
                    let until = end.min(next + self.together as u64);
                    self.buffer.clear();
                    for block in next..until {
                        let data = bytes.get(transfer.range(block)).unwrap_or_default();
                        Packet::Data { block: (block & 0xffff) as u16, data }.write(&mut self.buffer);
                    }
                    self.flush((until - next) as usize).await?;
                    next = until;
                }
                Ok(())
            }
        }
    }

    /// Sends what the buffer holds: `packets` of [`Self::frame`] bytes, of which the last may be shorter.
    async fn flush(&mut self, packets: usize) -> io::Result<()> {
        if packets > 1 {
            match self.segmented().await {
                Err(error) if refuses_segments(&error) => self.together = 1,
                other => return other,
            }
        }
        for packet in self.buffer.chunks(if packets > 1 { self.frame } else { self.buffer.len().max(1) }) {
            match self.socket.send(packet).await {
                Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn segmented(&self) -> io::Result<()> {
        let segment = u16::try_from(self.frame).unwrap_or(u16::MAX);
        let write = || {
            let parts = [IoSlice::new(&self.buffer)];
            let control = [ControlMessage::UdpGsoSegments(&segment)];
            let sent = sendmsg::<SockaddrIn>(self.socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), None);
            sent.map(drop).map_err(io::Error::from)
        };
        self.socket.async_io(Interest::WRITABLE, write).await
    }
}

/// What the kernel says when a card cannot checksum segments, or knows no UDP_SEGMENT.
fn refuses_segments(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT))
}
