//! DNS, the pure part: what a query is answered from our zones. Region and rack share it; [`listen`] is their common skin.
//!
//! Queries and answers are read and written here on the wire itself: an answer is a copy of the question and of records that were encoded
//! when the zone was put in force. `hickory-proto` is the tests' oracle (its parse and emit alone cost more than the whole answer here).

use schema::dns::DnsName;

mod answer;
pub mod listen;
pub mod name;
pub mod reply;
mod rows;
mod tcp;
pub mod text;
pub mod transfer;
mod udp;
pub mod wire;
mod zones;

pub use self::{
    answer::{Found, Style, find},
    wire::{Query, Transport, Unread},
    zones::Zones,
};

/// Answers a query from `zones` alone, as an authoritative server does. False: it deserves no answer, and `out` is empty.
///
/// `draw` is any number; it says where the addresses of a name begin, so that their order turns.
pub fn answer(packet: &[u8], zones: &Zones, transport: Transport, draw: u32, out: &mut Vec<u8>) -> bool {
    out.clear();
    let query = match Query::read(packet) {
        Ok(query) => query,
        Err(unread) => return unread.answer(packet, out),
    };
    if let Some(rcode) = query.refusal() {
        wire::refuse(&query, rcode, false, out);
        return true;
    }
    let style = Style { recursive: false, transport, draw };
    if let Found::Elsewhere | Found::Forward(_) = find(&query, zones, &style, out) {
        wire::refuse(&query, wire::REFUSED, false, out);
    }
    true
}

/// Whether users may have that name: not where the internal domain is.
///
/// # Errors
/// The reason and the remedy in one line.
pub fn not_internal(name: &DnsName, internal: &DnsName) -> Result<(), String> {
    if name.within(internal) {
        return Err(format!(
            "{name} lies in {internal}, the internal domain, whose names are Hostler's own; choose another name, or set maas_internal_domain"
        ));
    }
    Ok(())
}
