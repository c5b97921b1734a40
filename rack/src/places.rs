//! Where a service that needs no more than addresses listens: those of this host in the plan's subnets, or given ones; opened and
//! closed as plan and interfaces change.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinHandle;

use crate::{agent, dhcp::Listen, plan::Snapshot};

/// A flood must fit while a batch is handled, so that others' packets are not lost by it.
const RECEIVE_BUFFER: usize = 4 << 20;

/// How soon a new interface, address or subnet is served.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where to listen now. With [`Listen::Interfaces`]: `port` at every address of this host that lies in a subnet of the plan,
/// never the wildcard, so that what the host runs for itself stays alone.
#[must_use]
pub fn wanted(listen: &Listen, snapshot: &Snapshot, port: u16) -> Vec<SocketAddrV4> {
    let mut places = candidates(listen, port);
    if *listen == Listen::Interfaces {
        places.retain(|place| snapshot.subnet_of((*place.ip()).into()).is_some());
    }
    places
}

/// Where it would listen if every address of this host lay in a subnet of the plan.
#[must_use]
pub fn candidates(listen: &Listen, port: u16) -> Vec<SocketAddrV4> {
    let mut places: Vec<SocketAddrV4> = match listen {
        Listen::At(addresses) => addresses.clone(),
        Listen::Interfaces => {
            let own = agent::interfaces().into_iter().flat_map(|interface| interface.addresses);
            let v4 = |address| if let IpAddr::V4(v4) = address { Some(SocketAddrV4::new(v4, port)) } else { None };
            own.filter_map(|(address, _)| v4(address)).collect()
        }
    };
    places.sort_unstable();
    places.dedup();
    places
}

/// A UDP socket at that address. Where the host has a server of its own on the wildcard, ours stands beside it: the kernel prefers
/// the socket of the address. Another server on the very address is an error.
///
/// # Errors
/// When the address cannot be had.
pub fn udp(place: SocketAddrV4) -> io::Result<Socket> {
    let open = |beside: bool| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(beside)?;
        // Beyond net.core.rmem_max where the rights are there, up to it where they are not.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket.bind(&place.into())?;
        Ok::<_, io::Error>(socket)
    };
    match open(false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !held(place) => open(true),
        done => done,
    }
}

/// Whether somebody holds that very address and port, not the wildcard.
fn held(place: SocketAddrV4) -> bool {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let own = format!("{:08X}:{:04X}", u32::from_ne_bytes(place.ip().octets()), place.port());
    table.lines().any(|line| line.split_whitespace().nth(1) == Some(&own))
}

/// Where a service listens at this moment; read by whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Bound(Arc<Mutex<Vec<SocketAddr>>>);

impl Bound {
    /// The addresses, with the ports that the system chose.
    #[must_use]
    pub fn get(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says where it listens from now on.
    pub fn set(&self, addresses: Vec<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }
}

/// A port that is open: where, and the tasks that read it.
pub type Opened = (SocketAddr, Vec<JoinHandle<()>>);

/// The open ports of a service.
#[derive(Debug, Default)]
pub struct Ports {
    open: BTreeMap<SocketAddrV4, Opened>,
    bound: Bound,
}

impl Ports {
    /// Ports whose addresses are told to `bound`.
    #[must_use]
    pub fn telling(bound: Bound) -> Self {
        Self { open: BTreeMap::new(), bound }
    }

    /// Closes what is not wanted any more, opens what is new or whose reader ended, and returns what could not be opened.
    pub fn follow(
        &mut self,
        wanted: &[SocketAddrV4],
        mut open: impl FnMut(SocketAddrV4) -> io::Result<Opened>,
    ) -> Vec<(SocketAddrV4, io::Error)> {
        self.open.retain(|place, (_, tasks)| {
            let stays = wanted.contains(place) && !tasks.iter().any(JoinHandle::is_finished);
            if !stays {
                tasks.iter().for_each(JoinHandle::abort);
            }
            stays
        });
        let mut failed = Vec::new();
        for place in wanted {
            if !self.open.contains_key(place) {
                match open(*place) {
                    Ok(opened) => drop(self.open.insert(*place, opened)),
                    Err(error) => failed.push((*place, error)),
                }
            }
        }
        self.bound.set(self.open.values().map(|(address, _)| *address).collect());
        failed
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.open.values().flat_map(|(_, tasks)| tasks).for_each(JoinHandle::abort);
        self.bound.set(Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use schema::plan::Plan;

    use super::*;

    #[test]
    fn only_addresses_in_the_plans_subnets_are_served() {
        let plan: Plan =
            serde_json::from_value(serde_json::json!({"subnets": [{"id": 1, "cidr": "127.0.0.0/8"}]})).unwrap();
        assert_eq!(wanted(&Listen::Interfaces, &Snapshot::new(plan), 123), ["127.0.0.1:123".parse().unwrap()]);
        assert!(wanted(&Listen::Interfaces, &Snapshot::default(), 123).is_empty());
    }

    #[test]
    fn a_server_on_the_wildcard_is_no_hindrance_and_one_on_the_address_is() {
        let wild = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        wild.set_reuse_address(true).unwrap();
        wild.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
        let port = wild.local_addr().unwrap().as_socket().unwrap().port();
        let place = SocketAddrV4::new([127, 77, 11, 1].into(), port);
        let ours = udp(place).unwrap();
        assert_eq!(udp(place).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(ours);
    }

    #[tokio::test]
    async fn ports_come_and_go_and_one_that_cannot_be_had_is_named() {
        let bound = Bound::default();
        let mut ports = Ports::telling(bound.clone());
        let places: Vec<SocketAddrV4> = ["127.0.0.1:1", "127.0.0.2:1"].map(|a| a.parse().unwrap()).to_vec();
        let open = |place: SocketAddrV4| {
            if place.ip().octets()[3] == 2 {
                return Err(io::Error::from(io::ErrorKind::AddrInUse));
            }
            Ok((place.into(), vec![tokio::spawn(std::future::pending())]))
        };
        let failed = ports.follow(&places, open);
        assert_eq!((failed.len(), failed[0].0, bound.get()), (1, places[1], vec![places[0].into()]));
        assert!(ports.follow(&[], open).is_empty() && bound.get().is_empty());
    }
}
