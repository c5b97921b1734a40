//! One address where DNS is served: a UDP socket with a thread of its own, a TCP listener with tasks, and the end of both.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinHandle;

use super::{tcp, udp};

/// Bytes of a socket's receive buffer: a thousand machines ask in the same moment.
const RECEIVE_BUFFER: usize = 1 << 20;
/// How often a free port is looked for that both protocols can have.
const TRIES: usize = 16;

/// What answers.
pub trait Server: Send + Sync + 'static {
    /// Answers a packet into `out`, at once. False: nothing is to be sent now; an answer that takes time is sent by `via`.
    fn datagram(&self, packet: &[u8], peer: SocketAddr, via: &Arc<UdpSocket>, out: &mut Vec<u8>) -> bool;

    /// The messages that answer one that came over TCP. None: the connection ends.
    fn message(&self, message: &[u8], peer: SocketAddr) -> impl Future<Output = Vec<Vec<u8>>> + Send;
}

/// An address that is served, until it is dropped.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    udp: Arc<Socket>,
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
    tcp: JoinHandle<()>,
}

impl Listener {
    /// Binds both sockets and serves, on the present tokio runtime. Port 0 takes one that is free for both.
    ///
    /// # Errors
    /// Those of the kernel: the port is held, the address is not ours, or the right is missing.
    pub fn open<S: Server>(address: SocketAddr, server: &Arc<S>, connections: &Connections) -> io::Result<Self> {
        let (tcp, udp, address) = both(address)?;
        let tcp = tokio::net::TcpListener::from_std(tcp)?;
        let udp = Arc::new(udp);
        let via = Arc::new(UdpSocket::from(udp.try_clone()?));
        let ended = Arc::new(AtomicBool::new(false));
        let (answering, until) = (server.clone(), ended.clone());
        let thread = thread::Builder::new().name("dns".into()).spawn(move || udp::serve(&via, &*answering, &until))?;
        let tcp = tokio::spawn(tcp::serve(tcp, server.clone(), connections.clone()));
        Ok(Self { address, udp, ended, thread: Some(thread), tcp })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether both protocols are served.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.tcp.is_finished() && self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it; the thread ends soon, and its port is free when it has.
    pub fn close(mut self) -> Option<thread::JoinHandle<()>> {
        self.thread.take()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.tcp.abort();
        self.ended.store(true, Ordering::Release);
        // Says ENOTCONN, and wakes the thread all the same.
        self.udp.shutdown(std::net::Shutdown::Both).ok();
    }
}

pub use tcp::Connections;

fn both(address: SocketAddr) -> io::Result<(std::net::TcpListener, Socket, SocketAddr)> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        let tcp = bound(address, Type::STREAM, Protocol::TCP)?;
        tcp.listen(256)?;
        tcp.set_nonblocking(true)?;
        let tcp: std::net::TcpListener = tcp.into();
        let at = tcp.local_addr()?;
        tries -= 1;
        match bound(at, Type::DGRAM, Protocol::UDP) {
            Ok(udp) => {
                udp.set_recv_buffer_size(RECEIVE_BUFFER).ok(); // The system's limit may be lower.
                return Ok((tcp, udp, at));
            }
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn bound(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
