//! The cable between a rack and its region: a relay of datagrams that can be pulled out and put in again, under a link that knows nothing of it.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use socket2::SockRef;
use tokio::{
    net::UdpSocket,
    task::{AbortHandle, JoinSet},
};

/// Longest datagram.
const LONGEST: usize = 65_536;
/// Bytes of the kernel's queue at each end.
const BUFFER: usize = 2 << 20;

/// A cable. It is gone with this.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    out: AtomicBool,
    lost: AtomicU64,
}

impl State {
    /// Whether a datagram gets through.
    fn carries(&self) -> bool {
        let out = self.out.load(Ordering::Relaxed);
        self.lost.fetch_add(out.into(), Ordering::Relaxed);
        !out
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cable {
    /// Lays a cable to the region's link. Needs a tokio runtime, on which it lives.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn lay(region: SocketAddr) -> io::Result<Self> {
        let front = end().await?;
        let (address, state) = (front.local_addr()?, Arc::<State>::default());
        let task = tokio::spawn(carry(Arc::new(front), region, state.clone())).abort_handle();
        Ok(Self { address, state, task })
    }

    /// What the rack dials instead of the region.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pulls it out, or puts it in again.
    pub fn pull(&self, out: bool) {
        self.state.out.store(out, Ordering::Relaxed);
    }

    /// Datagrams that came while it was out.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

async fn end() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    // Smaller buffers lose more, and the link sends again.
    SockRef::from(&socket).set_recv_buffer_size(BUFFER).ok();
    Ok(socket)
}

/// Carries what comes, each of the rack's ports over a port of its own.
async fn carry(front: Arc<UdpSocket>, region: SocketAddr, state: Arc<State>) {
    let (mut ends, mut back) = (HashMap::<SocketAddr, Arc<UdpSocket>>::new(), JoinSet::new());
    let mut buffer = vec![0; LONGEST];
    loop {
        // An error is one of a datagram sent before.
        let Ok((len, from)) = front.recv_from(&mut buffer).await else { continue };
        if !state.carries() {
            continue;
        }
        let end = match ends.get(&from) {
            Some(end) => end.clone(),
            None => {
                let Ok(end) = end().await.map(Arc::new) else { continue };
                back.spawn(answers(end.clone(), front.clone(), from, state.clone()));
                ends.insert(from, end.clone());
                end
            }
        };
        end.send_to(buffer.get(..len).unwrap_or_default(), region).await.ok(); // Lost, as on a wire.
    }
}

/// Carries the region's datagrams back.
async fn answers(end: Arc<UdpSocket>, front: Arc<UdpSocket>, to: SocketAddr, state: Arc<State>) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok(len) = end.recv(&mut buffer).await else { continue };
        if state.carries() {
            front.send_to(buffer.get(..len).unwrap_or_default(), to).await.ok(); // As above.
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_carries_both_ways_and_nothing_while_it_is_out() {
        let region = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let cable = Cable::lay(region.local_addr().unwrap()).await.unwrap();
        let rack = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = [0; 64];
        rack.send_to(b"hello", cable.address()).await.unwrap();
        let (len, from) = region.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"hello");
        region.send_to(b"welcome", from).await.unwrap();
        let (len, by) = rack.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..len], by), (&b"welcome"[..], cable.address()));
        cable.pull(true);
        rack.send_to(b"lost", cable.address()).await.unwrap();
        region.send_to(b"lost too", from).await.unwrap();
        while cable.lost() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cable.pull(false);
        rack.send_to(b"again", cable.address()).await.unwrap();
        let (len, _) = region.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"again");
    }
}
