//! The thread of one UDP socket: packets come in gusts, and go out so. It never waits for an answer that takes time.

use std::{
    io::{IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg},
};

use super::listen::Server;

/// Packets of one gust.
const GUST: usize = 32;
/// Bytes of a query. A longer one is cut and then malformed.
const QUERY_MAX: usize = 1_232;

/// Serves until it has ended; who says so shuts the socket down, which wakes this thread.
pub(super) fn serve<S: Server>(socket: &Arc<UdpSocket>, server: &S, ended: &AtomicBool) {
    let fd = socket.as_raw_fd();
    let mut buffers = vec![[0_u8; QUERY_MAX]; GUST];
    let mut answers: Vec<Vec<u8>> = vec![Vec::new(); GUST];
    let mut heads = MultiHeaders::<SockaddrStorage>::preallocate(GUST, None);
    let mut outgoing = MultiHeaders::<SockaddrStorage>::preallocate(GUST, None);
    loop {
        let received = receive(fd, &mut heads, &mut buffers);
        if ended.load(Ordering::Acquire) {
            return;
        }
        let gust = match received {
            Ok(gust) => gust,
            // An ICMP error of an earlier answer, or a signal.
            Err(Errno::EINTR | Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH) => continue,
            Err(error) => {
                tracing::warn!(%error, "a DNS socket does not read");
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let mut ready = 0;
        let mut peers = Vec::with_capacity(gust.len());
        for ((bytes, from), buffer) in gust.into_iter().zip(&buffers) {
            let (Some(from), Some(out)) = (from, answers.get_mut(ready)) else { continue };
            let (Some(peer), Some(packet)) = (std_address(&from), buffer.get(..bytes)) else { continue };
            let answered = catch_unwind(AssertUnwindSafe(|| server.datagram(packet, peer, socket, out)));
            match answered {
                Ok(true) => {
                    peers.push(Some(from));
                    ready += 1;
                }
                Ok(false) => {}
                Err(_) => tracing::error!(%peer, "a DNS query met a defect; it is dropped and the server goes on"),
            }
        }
        let slices: Vec<_> = answers.iter().take(ready).map(|answer| [IoSlice::new(answer)]).collect();
        let mut sent = 0;
        while sent < ready {
            // A peer that cannot be reached is passed over; it asks again.
            let rest = (slices[sent..].iter(), &peers[sent..]);
            sent += sendmmsg(fd, &mut outgoing, rest.0, rest.1, [], MsgFlags::empty()).map_or(1, |r| r.count().max(1));
        }
    }
}

/// Waits for a packet and takes those that came with it: their lengths and senders.
fn receive(
    fd: RawFd,
    heads: &mut MultiHeaders<SockaddrStorage>,
    buffers: &mut [[u8; QUERY_MAX]],
) -> nix::Result<Vec<(usize, Option<SockaddrStorage>)>> {
    let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let received = recvmmsg(fd, heads, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)?;
    Ok(received.map(|message| (message.bytes, message.address)).collect())
}

fn std_address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| from.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}
