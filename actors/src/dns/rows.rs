//! Records as bytes: each with its length before it, as packets hold them.

use schema::dns::{RecordData, Zone};

use super::name::wire;

/// MAAS's values for a zone's SOA record, in seconds.
const REFRESH: u32 = 600;
const RETRY: u32 = 1_800;
const EXPIRE: u32 = 604_800;
/// MAAS's placeholder of a zone's mailbox.
const MAILBOX: &[u8] = b"\x06nobody\x07example\x03com\0";

/// The records of a set, one after the other, and how many they are. A record longer than a packet's field is left out.
pub(super) fn encode(data: &RecordData) -> (Vec<u8>, usize) {
    let mut all = Rows::default();
    match data {
        RecordData::A(addresses) => addresses.iter().for_each(|a| all.put(&a.octets())),
        RecordData::Aaaa(addresses) => addresses.iter().for_each(|a| all.put(&a.octets())),
        RecordData::Cname(target) => all.put(&wire(target)),
        RecordData::Ns(names) | RecordData::Ptr(names) => names.iter().for_each(|name| all.put(&wire(name))),
        RecordData::Mx(hosts) => {
            hosts.iter().for_each(|mx| all.put(&[&mx.preference.to_be_bytes()[..], &wire(&mx.exchange)].concat()));
        }
        RecordData::Srv(hosts) => {
            for srv in hosts {
                let numbers = [srv.priority, srv.weight, srv.port].map(u16::to_be_bytes);
                all.put(&[numbers.as_flattened(), &wire(&srv.target)].concat());
            }
        }
        RecordData::Txt(texts) => texts.iter().for_each(|text| all.put(&strings(text))),
        RecordData::Sshfp(prints) => {
            for print in prints {
                let hex =
                    |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16).unwrap_or(0);
                let digest = print.fingerprint.as_bytes().chunks(2).map(hex);
                all.put(&[print.algorithm, print.kind].into_iter().chain(digest).collect::<Vec<_>>());
            }
        }
    }
    (all.bytes, all.count)
}

/// The data of the zone's SOA record, with its length before it.
pub(super) fn soa(zone: &Zone) -> Vec<u8> {
    let numbers = [zone.serial, REFRESH, RETRY, EXPIRE, zone.ttl].map(u32::to_be_bytes);
    let mut all = Rows::default();
    all.put(&[&wire(&zone.name), MAILBOX, numbers.as_flattened()].concat());
    all.bytes
}

#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    count: usize,
}

impl Rows {
    fn put(&mut self, data: &[u8]) {
        if let Ok(len) = u16::try_from(data.len()) {
            self.bytes.extend_from_slice(&len.to_be_bytes());
            self.bytes.extend_from_slice(data);
            self.count += 1;
        }
    }
}

/// A text as strings of 255 bytes and less (RFC 1035 section 3.3).
fn strings(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return vec![0];
    }
    let string = |part: &[u8]| [&[u8::try_from(part.len()).unwrap_or(0)], part].concat();
    text.as_bytes().chunks(255).flat_map(string).collect()
}

/// The records of [`encode`], each with its length before it.
pub(super) fn each(mut rows: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_be_bytes(*rows.first_chunk()?));
        let (row, rest) = rows.split_at_checked(2 + len)?;
        rows = rest;
        Some(row)
    })
}
