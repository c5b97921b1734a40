//! The wire: one UDP socket per interface, frames for clients without an address, and an ear for other servers. Reads and writes bytes; knows no leases.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd,
};

use actors::clock;
use etherparse::PacketBuilder;
use nix::{
    ifaddrs::getifaddrs,
    libc,
    net::if_::InterfaceFlags,
    sys::socket::{
        self, ControlMessage, LinkAddr, MsgFlags, SockaddrIn, SockaddrLike, recvfrom, sendmsg, setsockopt, sockopt,
    },
};
use schema::{net::MacAddr, time::Timestamp};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::answer::{Reply, Target};

/// A storm of exchanges must fit while the disk syncs (the default of 208 KiB drops from 256 outstanding on).
const RECEIVE_BUFFER: usize = 4 << 20;
pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;
const TTL: u8 = 64;

/// A network interface with its IPv4 addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub index: usize,
    pub mac: MacAddr,
    /// With their prefix lengths.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    link: Option<LinkAddr>,
}

/// The interfaces that are up and have IPv4 addresses.
///
/// # Errors
/// When the kernel does not list them.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut found: Vec<Interface> = Vec::new();
    for entry in getifaddrs()?.filter(|e| e.flags.contains(InterfaceFlags::IFF_UP)) {
        let Some(address) = entry.address else { continue };
        let name = entry.interface_name;
        let at = found.iter().position(|i| i.name == name).unwrap_or_else(|| {
            let (index, mac, link) = (0, MacAddr::default(), None);
            found.push(Interface { name, index, mac, addresses: Vec::new(), link });
            found.len() - 1
        });
        let Some(interface) = found.get_mut(at) else { continue };
        if let Some(link) = address.as_link_addr() {
            interface.index = link.ifindex();
            interface.mac = MacAddr(link.addr().unwrap_or_default());
            interface.link = Some(*link);
        } else if let Some(ip) = address.as_sockaddr_in() {
            let mask = entry.netmask.and_then(|m| m.as_sockaddr_in().map(SockaddrIn::ip));
            let prefix = mask.map_or(32, |m| u32::from(m).leading_ones());
            interface.addresses.push((ip.ip(), u8::try_from(prefix).unwrap_or(32)));
        }
    }
    found.retain(|i| !i.addresses.is_empty());
    Ok(found)
}

/// Where packets come in and answers go out.
#[derive(Debug)]
pub struct Port {
    /// The interface's name, or the address of a port without one.
    pub name: String,
    pub interface: Option<Interface>,
    /// Addresses of this host on that link.
    pub addresses: Vec<Ipv4Addr>,
    /// Since when it is open.
    pub opened: Timestamp,
    udp: UdpSocket,
    frames: Option<Frames>,
}

/// A socket that could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("cannot serve DHCP on {place}: {why}; {remedy}")]
    Open { place: String, why: io::Error, remedy: &'static str },
}

impl PortError {
    pub(super) fn open(place: &str, why: io::Error) -> Self {
        let remedy = match why.kind() {
            io::ErrorKind::PermissionDenied => {
                "give the rack CAP_NET_BIND_SERVICE and CAP_NET_RAW (the packaged unit does), or run it as root"
            }
            io::ErrorKind::AddrInUse => "stop the other DHCP server on this host: `ss -ulpn 'sport = 67'` names it",
            io::ErrorKind::AddrNotAvailable => "give an address that this host has",
            _ => "see `hostler doctor`",
        };
        Self::Open { place: place.to_owned(), why, remedy }
    }
}

impl Port {
    /// A port on an interface: broadcasts, relays and renewals arrive here; clients without an address are reached by frames.
    ///
    /// # Errors
    /// [`PortError`] without the rights, or with another server on the port that does not share it.
    pub fn on(interface: Interface) -> Result<Self, PortError> {
        let name = interface.name.clone();
        let failed = |why| PortError::open(&format!("{name} (port {SERVER_PORT})"), why);
        let udp = udp(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, SERVER_PORT), Some(&name)).map_err(failed)?;
        let frames = interface.link.map(Frames::open).transpose().map_err(failed)?;
        let addresses = interface.addresses.iter().map(|(ip, _)| *ip).collect();
        Ok(Self { name: name.clone(), interface: Some(interface), addresses, opened: clock::now(), udp, frames })
    }

    /// A port on one address, for relays and for tests without root. Answers go to where a packet came from.
    ///
    /// # Errors
    /// [`PortError`] when the address cannot be bound.
    pub fn at(address: SocketAddrV4) -> Result<Self, PortError> {
        let failed = |why| PortError::open(&address.to_string(), why);
        let udp = udp(address, None).map_err(failed)?;
        let name = local(&udp).map_err(failed)?.to_string();
        Ok(Self { name, interface: None, addresses: vec![*address.ip()], opened: clock::now(), udp, frames: None })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn local(&self) -> io::Result<SocketAddr> {
        local(&self.udp)
    }

    /// Resolves when there may be a packet.
    ///
    /// # Errors
    /// When the thread's reactor is gone.
    pub async fn readable(&self) -> io::Result<()> {
        self.udp.readable().await
    }

    /// The next packet, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddrV4)> {
        match self.udp.try_recv_from(buffer)? {
            (len, SocketAddr::V4(source)) => Ok((len, source)),
            (_, SocketAddr::V6(_)) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends an answer to a request that came from `source`, with `server` as its sender.
    ///
    /// # Errors
    /// When the kernel does not take it (full queue, no route, interface down).
    pub fn send(&self, reply: &Reply, source: SocketAddrV4, server: Ipv4Addr) -> io::Result<()> {
        let Some(interface) = &self.interface else {
            self.udp.try_send_to(&reply.bytes, source.into())?;
            return Ok(());
        };
        let to = match reply.to {
            Target::Relay { giaddr, same_port } => {
                let port = if same_port { source.port() } else { SERVER_PORT };
                SocketAddrV4::new(giaddr, port)
            }
            Target::Client(ip) => SocketAddrV4::new(ip, CLIENT_PORT),
            Target::Broadcast => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
            Target::Hardware { mac, ip } => match &self.frames {
                Some(frames) => return frames.send(server, mac, ip, &reply.bytes),
                None => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
            },
        };
        self.send_from(interface.index, server, to, &reply.bytes)
    }

    /// Sends a client's message to every server on the link, from this host's hardware address.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn ask_servers(&self, message: &[u8]) -> io::Result<()> {
        match &self.frames {
            Some(frames) => frames.ask(message),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The way to send frames on an interface, without a port there.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or on an interface that carries no frames.
    pub(super) fn frames(interface: &Interface) -> io::Result<Frames> {
        Frames::open(interface.link.ok_or(io::ErrorKind::Unsupported)?)
    }

    /// The link that it is on; `None` for a port on an address alone.
    #[must_use]
    pub fn link(&self) -> Option<LinkAddr> {
        self.interface.as_ref().and_then(|i| i.link)
    }

    fn send_from(&self, index: usize, server: Ipv4Addr, to: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        let info = libc::in_pktinfo {
            // A relay may be behind a router on another interface; the link's own clients are not.
            ipi_ifindex: if to.ip().is_broadcast() { i32::try_from(index).unwrap_or(0) } else { 0 },
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(server.octets()) },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(to);
        let fd = self.udp.as_raw_fd();
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        sendmsg(fd, &[IoSlice::new(bytes)], &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }
}

fn local(udp: &UdpSocket) -> io::Result<SocketAddr> {
    udp.local_addr()
}

fn udp(address: SocketAddrV4, device: Option<&str>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    if device.is_some() {
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
    }
    socket.bind_device(device.map(str::as_bytes))?;
    // Beyond net.core.rmem_max where the rights are there, up to it where they are not.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Ethernet frames on one interface, for clients that cannot answer ARP yet.
#[derive(Debug)]
pub(super) struct Frames {
    socket: Socket,
    mac: MacAddr,
}

impl Frames {
    fn open(link: LinkAddr) -> io::Result<Self> {
        // Protocol 0: it sends only.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket::bind(socket.as_raw_fd(), &link)?;
        Ok(Self { socket, mac: MacAddr(link.addr().unwrap_or_default()) })
    }

    fn send(&self, from: Ipv4Addr, mac: MacAddr, to: Ipv4Addr, payload: &[u8]) -> io::Result<()> {
        let builder = PacketBuilder::ethernet2(self.mac.0, mac.0)
            .ipv4(from.octets(), to.octets(), TTL)
            .udp(SERVER_PORT, CLIENT_PORT);
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload).map_err(io::Error::other)?;
        self.socket.send(&frame)?;
        Ok(())
    }

    /// Sends a client's message to every server on the link.
    pub(super) fn ask(&self, payload: &[u8]) -> io::Result<()> {
        let builder = PacketBuilder::ethernet2(self.mac.0, [0xff; 6])
            .ipv4([0; 4], Ipv4Addr::BROADCAST.octets(), TTL)
            .udp(CLIENT_PORT, SERVER_PORT);
        let mut frame = Vec::with_capacity(builder.size(payload.len()));
        builder.write(&mut frame, payload).map_err(io::Error::other)?;
        self.socket.send(&frame)?;
        Ok(())
    }
}

/// An ear for answers of other DHCP servers on every interface of this host. (tokio only watches the descriptor: it is a packet socket.)
#[derive(Debug)]
pub struct Ear(UdpSocket);

/// A server's answer that passed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overheard {
    pub interface: usize,
    pub mac: MacAddr,
    pub source: Ipv4Addr,
    /// Where the DHCP message begins in the buffer.
    pub at: usize,
    pub len: usize,
}

impl Ear {
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let ip = i32::from((libc::ETH_P_IP as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(ip)))?;
        socket.set_nonblocking(true)?;
        // Only whole UDP packets from port 67 to port 68 wake us: the kernel drops the rest.
        socket.attach_filter(&[
            SockFilter::new(0x30, 0, 0, 9),
            SockFilter::new(0x15, 0, 8, 17),
            SockFilter::new(0x28, 0, 0, 6),
            SockFilter::new(0x45, 6, 0, 0x1fff),
            SockFilter::new(0xb1, 0, 0, 0),
            SockFilter::new(0x48, 0, 0, 0),
            SockFilter::new(0x15, 0, 3, SERVER_PORT.into()),
            SockFilter::new(0x48, 0, 0, 2),
            SockFilter::new(0x15, 0, 1, CLIENT_PORT.into()),
            SockFilter::new(0x06, 0, 0, 0xffff),
            SockFilter::new(0x06, 0, 0, 0),
        ])?;
        // What came between the socket and its filter.
        let mut buffer = [MaybeUninit::<u8>::uninit(); 64];
        while socket.recv(&mut buffer).is_ok() {}
        Ok(Self(UdpSocket::from_std(socket.into())?))
    }

    /// Resolves when something may have been heard.
    ///
    /// # Errors
    /// When the thread's reactor is gone.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// The next answer that passed by, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Overheard>> {
        let receive = || Ok(recvfrom::<LinkAddr>(self.0.as_raw_fd(), buffer)?);
        let (len, from) = self.0.try_io(Interest::READABLE, receive)?;
        let Some(link) = from.filter(|l| l.len() > 0) else { return Ok(None) };
        let Some(header) = buffer.get(..20).filter(|_| len > 28) else { return Ok(None) };
        let at = usize::from(header[0] & 15) * 4 + 8;
        let mac = MacAddr(link.addr().unwrap_or_default());
        let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
        Ok((at < len).then_some(Overheard { interface: link.ifindex(), mac, source, at, len: len - at }))
    }
}
