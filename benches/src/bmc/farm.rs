//! Thousands of IPMI BMCs on the wire: one socket, one port, an address of 127.0.0.0/8 each. It answers only for addresses that it was given.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    ops::Deref,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use actors::clock;
use nix::{
    libc,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt},
};
use rack::power::rmcp::packet::LONGEST;
use tokio::{io::Interest, net::UdpSocket, sync::mpsc, task::AbortHandle};

use super::{Fleet, ipmi::Bmc};

pub use super::Powered;

/// Bytes of the kernel's queue: a gust of some thousand requests.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Many BMCs, one task. Cloned freely; it ends with its last handle. Its BMCs are reached through the [`Fleet`] that it stands for.
#[derive(Debug, Clone)]
pub struct Farm(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fleet: Fleet<Bmc>,
    port: u16,
    heard: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Deref for Farm {
    type Target = Fleet<Bmc>;

    fn deref(&self) -> &Self::Target {
        &self.0.fleet
    }
}

impl Farm {
    /// Listens at `port` of every loopback address (0: a free one); events come by the receiver. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(port: u16) -> io::Result<(Self, mpsc::UnboundedReceiver<Powered>)> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let port = socket.local_addr()?.port();
        let (fleet, (tell, events)) = (Fleet::default(), mpsc::unbounded_channel());
        let heard = Arc::new(AtomicU64::new(0));
        let server = Server { socket: Arc::new(socket), fleet: Fleet::clone(&fleet), heard: heard.clone(), tell };
        let task = tokio::spawn(server.run()).abort_handle();
        Ok((Self(Arc::new(Inner { fleet, port, heard, task })), events))
    }

    /// The port of all of them.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Datagrams that its BMCs were sent.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.0.heard.load(Ordering::Relaxed)
    }
}

struct Server {
    socket: Arc<UdpSocket>,
    fleet: Fleet<Bmc>,
    heard: Arc<AtomicU64>,
    tell: mpsc::UnboundedSender<Powered>,
}

impl Server {
    async fn run(self) {
        let mut buffer = [0; LONGEST];
        loop {
            if self.socket.readable().await.is_err() {
                return;
            }
            let received = self.socket.try_io(Interest::READABLE, || receive(&self.socket, &mut buffer));
            // An error is one of a datagram sent before (ICMP), or there is none.
            if let Ok((len, from, to)) = received {
                self.answer(&buffer[..len], from, to);
            }
        }
    }

    fn answer(&self, datagram: &[u8], from: SocketAddrV4, to: Ipv4Addr) {
        let answer = self.fleet.with(to, |bmc| bmc.answer(datagram, rand::random(), clock::now()));
        let Some(answer) = answer else { return };
        self.heard.fetch_add(1, Ordering::Relaxed);
        if let Some(event) = answer.event {
            // Nobody may be listening, as in a bench of the driver alone.
            self.tell.send(Powered { bmc: to, event }).ok();
        }
        let Some(reply) = answer.reply else { return };
        if answer.after.is_zero() {
            send(&self.socket, &reply, to, from).ok();
            return;
        }
        let socket = self.socket.clone();
        tokio::spawn(async move {
            tokio::time::sleep(answer.after).await;
            send(&socket, &reply, to, from).ok();
        });
    }
}

/// A datagram, where it came from, and the address it was sent to.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4, Ipv4Addr)> {
    let mut space = nix::cmsg_space!(libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    let to = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())),
        _ => None,
    });
    match (message.address, to) {
        (Some(from), Some(to)) => Ok((message.bytes, from.into(), to)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn send(socket: &UdpSocket, bytes: &[u8], from: Ipv4Addr, to: SocketAddrV4) -> io::Result<()> {
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    let to = SockaddrIn::from(to);
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
    Ok(())
}
