//! One transfer's socket: connected to the client, bound to the address it asked. Packs windows into few system calls; decides nothing, waits for nothing.

use std::{
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg},
};

use super::{
    packet::{Code, DATA_HEAD, Packet},
    transfer::{Send, Transfer},
};

/// Bytes of an IPv4 and a UDP header, and of a DATA packet's head.
const HEADS: u32 = 20 + 8 + 4;
/// What the kernel takes in one segmented send, in bytes (UDP_SEGMENT).
const SEGMENTED: usize = 65_507;

/// The socket of one transfer.
pub(super) struct Outlet {
    socket: UdpSocket,
    /// Bytes of a full DATA packet.
    frame: usize,
    /// Packets of one segmented send; 1 where the kernel or the card refuses them.
    together: usize,
    /// Blocks that the socket's full queue has not taken yet: the next one, and the one after the last.
    rest: Option<(u64, u64)>,
}

impl Outlet {
    /// A socket on a free port of `local` that hears `peer` only.
    pub(super) fn open(local: Ipv4Addr, peer: SocketAddrV4) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::from((local, 0)))?;
        socket.connect(peer)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, frame: 0, together: 1, rest: None })
    }

    /// The largest block that travels in one frame to this client, in bytes (the IP layer need not fragment it).
    pub(super) fn largest_block(&self) -> u16 {
        let mtu = crate::kernel::route_mtu(&self.socket).unwrap_or(1_500);
        u16::try_from(mtu.saturating_sub(HEADS).clamp(8, 65_464)).unwrap_or(512)
    }

    /// Sets the shape of DATA packets.
    pub(super) fn shape(&mut self, block: u16, window: u16) {
        self.frame = usize::from(block) + DATA_HEAD;
        self.together = usize::from(window).min(SEGMENTED / self.frame).max(1);
    }

    /// Sends one ERROR. It is not acknowledged (RFC 1350 section 7).
    pub(super) fn error(&self, code: Code, message: &str) -> io::Result<()> {
        self.put(&Packet::Error { code, message }.to_bytes()).map(drop)
    }

    /// The length of the next packet; `None` when there is none. An ICMP answer to an earlier packet is none either:
    /// the client may yet come, and its silence is what ends the transfer.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.socket.recv(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if passes(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends what was decided, packed in `space`. What a full queue does not take is kept for [`Self::resume`].
    pub(super) fn send(
        &mut self,
        send: &Send,
        transfer: &Transfer,
        file: &[u8],
        space: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.rest = None;
        match send {
            Send::Nothing => Ok(()),
            Send::OptionAck(options) => self.put(&Packet::OptionAck(*options).to_bytes()).map(drop),
            Send::Blocks { first, count } => {
                self.rest = Some((*first, *first + u64::from(*count)));
                self.resume(transfer, file, space)
            }
        }
    }

    /// Whether the socket's queue was full.
    pub(super) fn is_full(&self) -> bool {
        self.rest.is_some()
    }

    /// Sends what is left, as far as the queue takes it.
    pub(super) fn resume(&mut self, transfer: &Transfer, file: &[u8], space: &mut Vec<u8>) -> io::Result<()> {
        while let Some((next, end)) = self.rest {
            let until = end.min(next + self.together as u64);
            space.clear();
            for block in next..until {
                let data = file.get(transfer.range(block)).unwrap_or_default();
                Packet::Data { block: (block & 0xffff) as u16, data }.write(space);
            }
            let taken = if until - next > 1 { self.segmented(space) } else { self.put(space) };
            match taken {
                Ok(true) => self.rest = (until < end).then_some((until, end)),
                Ok(false) => return Ok(()),
                Err(error) if self.together > 1 && refuses_segments(&error) => self.together = 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One packet; `false` when the queue is full.
    fn put(&self, packet: &[u8]) -> io::Result<bool> {
        taken(self.socket.send(packet).map(drop))
    }

    /// Packets of [`Self::frame`] bytes, of which the last may be shorter, in one call; `false` when the queue is full.
    fn segmented(&self, packets: &[u8]) -> io::Result<bool> {
        let segment = u16::try_from(self.frame).unwrap_or(u16::MAX);
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let parts = [IoSlice::new(packets)];
        let sent = sendmsg::<SockaddrIn>(self.socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), None);
        taken(sent.map(drop).map_err(io::Error::from))
    }
}

impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn taken(sent: io::Result<()>) -> io::Result<bool> {
    match sent {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) if passes(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// What is no end of a transfer: nothing there, an earlier packet's ICMP answer, a card's full queue (as lost on the way).
fn passes(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionRefused, io::ErrorKind::Interrupted];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// What the kernel says when a card cannot checksum segments, or knows no UDP_SEGMENT.
fn refuses_segments(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP | Errno::ENOPROTOOPT))
}
