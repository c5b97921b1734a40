//! Clients that ask for an address to boot and that this rack has no order to boot: the region may know whose they are, and who waits for
//! them elsewhere. Which are told, and when again. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use schema::{messages::link::Stray, net::MacAddr, time::Timestamp};

use super::{
    packet::{MessageType, Request},
    route::{self, Passed, Routed},
};
use crate::plan::Snapshot;

/// So many are told of, whoever floods the wire.
const MOST: usize = 64;
/// One that goes on asking is told again after that.
const AGAIN: Duration = Duration::from_secs(30);
/// One that was silent for so long is forgotten.
const GONE: Duration = Duration::from_secs(600);
/// A client that was silent for longer begins anew.
const ANEW: Duration = Duration::from_secs(120);

/// Those of the last ten minutes.
#[derive(Debug, Default)]
pub struct Strays(BTreeMap<MacAddr, Stray>);

impl Strays {
    /// Takes one. All of them, when that is news.
    pub fn note(&mut self, stray: Stray) -> Option<Vec<Stray>> {
        let now = stray.at;
        let goes_on = self.0.get(&stray.mac).filter(|known| now.since(known.at) < ANEW).map(|known| known.first);
        let stray = Stray { first: goes_on.unwrap_or(now), ..stray };
        let same = |known: &Stray| (known.subnet, known.relay, &known.why) == (stray.subnet, stray.relay, &stray.why);
        if self.0.get(&stray.mac).is_some_and(|known| same(known) && now.since(known.at) < AGAIN) {
            return None;
        }
        self.0.retain(|_, known| now.since(known.at) < GONE);
        if self.0.len() >= MOST && !self.0.contains_key(&stray.mac) {
            let oldest = self.0.values().min_by_key(|known| known.at)?;
            if now.since(oldest.at) < AGAIN {
                return None;
            }
            let mac = oldest.mac;
            self.0.remove(&mac);
        }
        self.0.insert(stray.mac, stray);
        Some(self.0.values().cloned().collect())
    }
}

/// A request for an address, of firmware or of a kernel that wants its system, that leads to no boot here. `routed`: what the router made of it.
#[must_use]
pub fn of(
    request: &Request,
    routed: Result<&Routed, Passed>,
    here: &[Ipv4Addr],
    plan: &Snapshot,
    interface: &str,
    now: Timestamp,
) -> Option<Stray> {
    if request.kind != MessageType::Discover || !request.client.boots() {
        return None;
    }
    let why = match routed {
        Ok(_) if route::orders(plan, request.mac, now).is_some() => return None,
        Ok(_) | Err(Passed::Stranger) => "this rack has no order to boot it".into(),
        Err(why @ (Passed::UnknownRelay | Passed::NoSubnet)) => why.to_string(),
        Err(_) => return None,
    };
    let subnet = route::subnet_of(request, here, plan);
    let relay = Some(request.giaddr).filter(|ip| !ip.is_unspecified());
    Some(Stray { mac: request.mac, first: now, at: now, subnet, relay, interface: interface.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use schema::id::SubnetId;

    use super::*;

    fn stray(mac: u32, s: i64, subnet: i64) -> Stray {
        let [a, b, c, d] = mac.to_be_bytes();
        let (mac, at) = (MacAddr([2, 0, a, b, c, d]), Timestamp::from_seconds(s));
        Stray {
            mac,
            first: at,
            at,
            subnet: Some(SubnetId(subnet)),
            relay: None,
            interface: "eth0".into(),
            why: "no".into(),
        }
    }

    #[test]
    fn one_that_goes_on_asking_is_told_now_and_then() {
        let mut strays = Strays::default();
        assert_eq!(strays.note(stray(1, 1_000, 1)).map(|all| all.len()), Some(1));
        assert_eq!(strays.note(stray(1, 1_020, 1)), None);
        assert!(strays.note(stray(1, 1_021, 2)).is_some(), "somewhere else is news at once");
        let again = strays.note(stray(1, 1_051, 2)).unwrap();
        assert_eq!((again[0].first, again[0].at), (Timestamp::from_seconds(1_000), Timestamp::from_seconds(1_051)));
        let anew = strays.note(stray(1, 1_200, 2)).unwrap();
        assert_eq!(anew[0].first, Timestamp::from_seconds(1_200));
        assert_eq!(strays.note(stray(2, 1_900, 1)).map(|all| all.len()), Some(1), "the first was silent");
    }

    #[test]
    fn a_flood_drives_nobody_out_at_once_and_fills_nothing() {
        let mut strays = Strays::default();
        let told = (0..500).filter_map(|n| strays.note(stray(n, 1_000, 1))).count();
        assert_eq!(told, MOST);
        assert_eq!(strays.note(stray(600, 1_031, 1)).map(|all| all.len()), Some(MOST));
    }
}
