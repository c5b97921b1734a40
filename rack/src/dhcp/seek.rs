//! Looking for other DHCP servers: a DISCOVER from this host's own hardware address, as MAAS's racks send it, and what answers it.
//! The service asks at its start and every ten minutes; `doctor` asks once. Nothing is taken of what is offered.

use std::{net::Ipv4Addr, time::Duration};

use actors::clock;
use schema::net::MacAddr;
use tokio::time::timeout;

use super::{
    packet::{self, Packet, option},
    socket::{Ear, Interface, Port, interfaces},
};

/// How long a port that was just opened leaves new clients to others, while it listens for what answers.
pub const LISTEN: Duration = Duration::from_secs(1);
/// How often the wire is asked.
pub const EVERY: Duration = Duration::from_secs(600);
/// How often, while another server is known: so that its end is noticed.
pub const EVERY_BESIDE: Duration = Duration::from_secs(60);

/// A server that answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub interface: String,
    pub server: Ipv4Addr,
    pub mac: MacAddr,
}

/// A DISCOVER that wants its answer by broadcast, so that it is overheard.
#[must_use]
pub fn discover(mac: MacAddr, xid: u32) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&mac.0);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([option::MESSAGE_TYPE, 1, 1, option::WANTED, 2, option::SUBNET_MASK, option::ROUTER, 255]);
    bytes.resize(300, 0);
    bytes
}

/// Asks every interface of this host that has an IPv4 address, and listens for that long.
///
/// # Errors
/// Without CAP_NET_RAW.
pub async fn look(listen: Duration) -> std::io::Result<Vec<Found>> {
    let ear = Ear::open()?;
    let asked: Vec<Interface> = interfaces()?.into_iter().filter(|i| i.mac != MacAddr::default()).collect();
    for interface in &asked {
        Port::frames(interface)?.ask(&discover(interface.mac, rand::random()))?;
    }
    let mut found = Vec::new();
    let mut buffer = vec![0; 4_096];
    let until = clock::tick() + listen;
    while let Some(left) = until.checked_duration_since(clock::tick()).filter(|left| !left.is_zero()) {
        let Ok(ready) = timeout(left, ear.readable()).await else { break };
        ready?;
        let Ok(Some(heard)) = ear.receive(&mut buffer) else { continue };
        let bytes = buffer.get(heard.at..heard.at + heard.len).unwrap_or_default();
        let Ok(Packet::Heard(answer)) = packet::parse(bytes) else { continue };
        let Some(on) = asked.iter().find(|i| i.index == heard.interface) else { continue };
        let server = answer.server_id.unwrap_or(heard.source);
        found.push(Found { interface: on.name.clone(), server, mac: heard.mac });
    }
    found.sort();
    found.dedup();
    Ok(found)
}
