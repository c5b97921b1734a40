//! The thread that drives QUIC: reads the sockets, runs the connections' timers, encrypts. It serves every link of the process and nothing
//! else, so that a node which is busy with other things neither drops packets nor takes the other side for silent.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

use quinn::{AsyncTimer, AsyncUdpSocket, EndpointConfig, Runtime, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use tokio::runtime::{Builder, Handle};

/// What may come while the thread is elsewhere: some thousand packets. The system's limit may be lower.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What an endpoint that listens needs.
pub(super) struct Listening {
    pub(super) config: quinn::ServerConfig,
    /// The same over restarts, and nobody else's. A region that was killed knows by it which packets are of connections that it had, and
    /// tells their senders at once that it has them no more (a stateless reset, RFC 9000, 10.3); without it they would wait for
    /// [`Timing::idle`](super::Timing::idle).
    pub(super) secret: hmac::Key,
}

/// An endpoint on a socket at that address.
///
/// # Errors
/// When the address is taken, or there is no room for a socket or a thread.
pub(super) fn endpoint(at: SocketAddr, listening: Option<Listening>) -> io::Result<quinn::Endpoint> {
    let socket = UdpSocket::bind(at)?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER).ok();
    let (config, server) = match listening {
        Some(Listening { config, secret }) => (known_again(secret), Some(config)),
        None => (EndpointConfig::default(), None),
    };
    quinn::Endpoint::new(config, server, socket, Arc::new(Driver(thread()?)))
}

/// Connection ids and reset tokens that an endpoint with the same secret recognises as its own.
fn known_again(secret: hmac::Key) -> EndpointConfig {
    let ids = hmac::sign(&secret, b"connection ids").as_ref().first_chunk().copied().map_or(0, u64::from_le_bytes);
    let mut config = EndpointConfig::new(Arc::new(secret));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// The thread's runtime. It lasts as long as the process.
fn thread() -> io::Result<Handle> {
    static THREAD: Mutex<Option<Handle>> = Mutex::new(None);
    let mut running = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = &*running {
        return Ok(running.clone());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name("link".into()).spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    *running = Some(handle.clone());
    Ok(handle)
}

/// quinn's view of it.
#[derive(Debug)]
struct Driver(Handle);

impl Runtime for Driver {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let _inside = self.0.enter();
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _inside = self.0.enter();
        socket.set_nonblocking(true)?;
        TokioRuntime.wrap_udp_socket(socket)
    }
}
