//! Whether somebody uses an address: ARP probes on the link (RFC 5227 section 2.1.1), an echo request where the link is behind a relay.
//! Needs CAP_NET_RAW. Knows no leases.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
    time::Duration,
};

use actors::clock;
use nix::{
    libc,
    sys::socket::{self, LinkAddr, recvfrom},
};
use schema::net::MacAddr;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket, time::timeout};

/// Probes sent, and the pause after each. RFC 5227 takes seconds, for hosts that claim an address; a client that waits for its offer has less.
const PROBES: u32 = 2;
const PAUSE: Duration = Duration::from_millis(250);
const ETHERNET: usize = 14;
const ARP_LEN: usize = 28;

/// Asks the link of an interface. `None`: nobody answered.
///
/// # Errors
/// When the socket cannot be had or used.
pub async fn arp(link: LinkAddr, ip: Ipv4Addr) -> io::Result<Option<MacAddr>> {
    let protocol = i32::from((libc::ETH_P_ARP as u16).to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol)))?;
    socket.set_nonblocking(true)?;
    // The interface's address names no protocol: the socket keeps its own.
    socket::bind(socket.as_raw_fd(), &link)?;
    let own = MacAddr(link.addr().unwrap_or_default());
    let socket = UdpSocket::from_std(socket.into())?;
    let frame = request(own, ip);
    for _ in 0..PROBES {
        let send = || socket2::SockRef::from(&socket).send(&frame);
        socket.try_io(Interest::WRITABLE, send).or_else(|e: io::Error| would_block(&e).then_some(0).ok_or(e))?;
        let mut buffer = [0; 128];
        let until = clock::tick() + PAUSE;
        while let Some(left) = until.checked_duration_since(clock::tick()).filter(|left| !left.is_zero()) {
            let Ok(ready) = timeout(left, socket.readable()).await else { break };
            ready?;
            let receive = || Ok(recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer)?);
            match socket.try_io(Interest::READABLE, receive) {
                Ok((len, from)) => {
                    // What came before the socket was bound may be another link's.
                    let here = from.is_some_and(|from| from.ifindex() == link.ifindex());
                    let user = sender(buffer.get(..len).unwrap_or_default()).filter(|(_, of)| here && *of == ip);
                    if let Some((mac, _)) = user.filter(|(mac, _)| *mac != own) {
                        return Ok(Some(mac));
                    }
                }
                Err(e) if would_block(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(None)
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// "Who has `ip`?" to everybody, with a sender address of zero, so that nobody's table is changed by the question.
fn request(own: MacAddr, ip: Ipv4Addr) -> [u8; ETHERNET + ARP_LEN] {
    let mut frame = [0; ETHERNET + ARP_LEN];
    frame[..6].copy_from_slice(&[0xff; 6]);
    frame[6..12].copy_from_slice(&own.0);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&own.0);
    frame[38..42].copy_from_slice(&ip.octets());
    frame
}

/// Who sends an ARP frame, and from which address.
fn sender(frame: &[u8]) -> Option<(MacAddr, Ipv4Addr)> {
    let packet: &[u8; ARP_LEN] = frame.get(ETHERNET..)?.first_chunk()?;
    let plain = packet[..6] == [0, 1, 8, 0, 6, 4];
    let (mut mac, mut ip) = ([0; 6], [0; 4]);
    mac.copy_from_slice(&packet[8..14]);
    ip.copy_from_slice(&packet[14..18]);
    (plain && mac != [0; 6]).then(|| (MacAddr(mac), ip.into()))
}

/// Asks a host behind a relay. What answers has no hardware address here.
///
/// # Errors
/// When the socket cannot be had or used. That there is no way to the host is no error: nobody answered.
pub async fn echo(ip: Ipv4Addr, id: u16) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_nonblocking(true)?;
    let to = SocketAddrV4::new(ip, 0);
    let wrapped = UdpSocket::from_std(socket.into())?;
    let socket = socket2::SockRef::from(&wrapped);
    for sequence in 0..PROBES {
        let message = echo_request(id, u16::try_from(sequence).unwrap_or(0));
        if socket.send_to(&message, &to.into()).is_err() {
            return Ok(false);
        }
        let until = clock::tick() + PAUSE * 2;
        while let Some(left) = until.checked_duration_since(clock::tick()).filter(|left| !left.is_zero()) {
            let Ok(ready) = timeout(left, wrapped.readable()).await else { break };
            ready?;
            let mut buffer = [MaybeUninit::<u8>::uninit(); 256];
            let receive = || socket.recv_from(&mut buffer);
            match wrapped.try_io(Interest::READABLE, receive) {
                // The kernel hands every echo reply to every such socket; who answered is enough.
                Ok((_, from)) if from.as_socket_ipv4().is_some_and(|from| *from.ip() == ip) => return Ok(true),
                Ok(_) => {}
                Err(e) if would_block(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(false)
}

/// RFC 792: type 8, with its checksum.
fn echo_request(id: u16, sequence: u16) -> [u8; 8] {
    let mut message = [8, 0, 0, 0, 0, 0, 0, 0];
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let words = message.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    message[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_probe_names_no_sender_address_and_an_answer_is_read() {
        let (own, ip) = (MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 77, 0, 9));
        let mut packet = request(own, ip);
        assert_eq!(sender(&packet), Some((own, Ipv4Addr::UNSPECIFIED)));
        packet[28..32].copy_from_slice(&ip.octets());
        assert_eq!(sender(&packet), Some((own, ip)));
        assert_eq!(sender(&packet[..41]), None);
    }

    #[test]
    fn an_echo_request_has_a_checksum_that_sums_to_nothing() {
        let message = echo_request(0xfedc, 1);
        let sum: u32 = message.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_fault(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            sender(&bytes);
        }
    }
}
