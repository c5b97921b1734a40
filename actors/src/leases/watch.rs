//! Which of two racks answers a new client: the first, and the second when the first does not. Pure.
//!
//! The second rack learns of the first's loss from the region's plan, or by its own eyes: a client that asked some seconds ago and has
//! chosen no server since got no answer. (RFC 2131's `secs` says the same of a client that this rack did not hear at first.)

use std::{collections::HashMap, time::Duration};

use schema::{net::MacAddr, time::Timestamp};

/// A client is left to the first rack for this long. Firmware asks again after 4 s and 8 s, so it is answered within 10 s.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// So many unanswered clients with no sign of the first rack between them: it is lost, and every client is answered at once.
const UNANSWERED: usize = 2;
/// A returned first rack waits this long for the copies of what was leased without it, before it serves without them.
pub const COPIES: Duration = Duration::from_secs(10);
/// Clients remembered; the longest silent go first.
const CLIENTS: usize = 8_192;
/// A client that was silent for this long begins anew.
const FORGET: Duration = Duration::from_secs(60);

/// The order of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Answers new clients.
    First,
    /// Answers them when the first does not.
    Second,
}

/// What one rack has seen on a subnet's wire of clients that ask.
#[derive(Debug, Clone)]
pub struct Watch {
    started: Timestamp,
    /// When a client that has chosen no server yet was first and last heard.
    asking: HashMap<MacAddr, (Timestamp, Timestamp)>,
    /// The first few that went without an answer for too long, since the other rack was last heard.
    unanswered: Vec<MacAddr>,
}

/// What to do with a new client's DISCOVER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Answer,
    /// The other rack's turn.
    Leave,
    /// The other rack's leases are not here yet.
    Copies,
}

impl Watch {
    /// A rack that has just begun to serve.
    #[must_use]
    pub fn new(started: Timestamp) -> Self {
        Self { started, asking: HashMap::new(), unanswered: Vec::new() }
    }

    /// A client asks for an address. `secs`: for how long already, as it says. `other_up`: what the region's plan says of the other rack;
    /// `heard`: whether the other's leases are here.
    pub fn asks(
        &mut self,
        mac: MacAddr,
        secs: u16,
        role: Role,
        other_up: Option<bool>,
        heard: bool,
        now: Timestamp,
    ) -> Turn {
        if role == Role::First {
            let ready = heard || now.since(self.started) >= COPIES;
            return if ready { Turn::Answer } else { Turn::Copies };
        }
        let waited = self.note(mac, now).max(Duration::from_secs(claimed(secs)));
        if other_up == Some(false) || waited >= PATIENCE || self.lost() { Turn::Answer } else { Turn::Leave }
    }

    /// How long that client has been asking.
    fn note(&mut self, mac: MacAddr, now: Timestamp) -> Duration {
        if self.asking.len() >= CLIENTS && !self.asking.contains_key(&mac) {
            self.asking.retain(|_, (_, last)| now.since(*last) < FORGET / 4);
            if self.asking.len() >= CLIENTS {
                self.asking.clear(); // A flood of invented MACs. Real clients ask again.
            }
        }
        let (first, last) = self.asking.entry(mac).or_insert((now, now));
        if now.since(*last) >= FORGET {
            *first = now;
        }
        *last = now;
        let waited = now.since(*first);
        if waited >= PATIENCE && self.unanswered.len() < UNANSWERED && !self.unanswered.contains(&mac) {
            self.unanswered.push(mac);
        }
        waited
    }

    /// A client has chosen this rack.
    pub fn chosen(&mut self, mac: MacAddr) {
        self.asking.remove(&mac);
    }

    /// The other rack was heard, or a client has chosen it.
    pub fn other_lives(&mut self) {
        self.asking.clear();
        self.unanswered.clear();
    }

    /// Whether the other rack answers nobody.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.unanswered.len() >= UNANSWERED
    }
}

/// Clients count in seconds; some put them into the wrong byte.
fn claimed(secs: u16) -> u64 {
    u64::from(if secs & 0xff == 0 { secs >> 8 } else { secs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_seconds(1_000_000) + Duration::from_secs(s)
    }

    fn mac(n: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, n])
    }

    fn second(watch: &mut Watch, n: u8, secs: u16, now: u64) -> Turn {
        watch.asks(mac(n), secs, Role::Second, None, true, at(now))
    }

    #[test]
    fn the_second_answers_who_was_left_without_an_answer_and_soon_everybody() {
        let mut watch = Watch::new(at(0));
        assert_eq!(second(&mut watch, 1, 0, 0), Turn::Leave);
        assert_eq!(second(&mut watch, 2, 0, 1), Turn::Leave);
        assert_eq!(second(&mut watch, 1, 0, 4), Turn::Answer, "it has asked for 4 s");
        assert_eq!(second(&mut watch, 3, 0, 4), Turn::Leave, "one may be a client that the first ignores");
        assert_eq!(second(&mut watch, 2, 0, 5), Turn::Answer);
        assert_eq!(second(&mut watch, 4, 0, 5), Turn::Answer, "two went without: the first is lost");
        watch.chosen(mac(4));
        assert_eq!(second(&mut watch, 5, 0, 6), Turn::Answer, "what this rack serves is no sign of the other");
        watch.other_lives();
        assert_eq!(second(&mut watch, 7, 0, 7), Turn::Leave, "the first is back");
    }

    #[test]
    fn the_clients_own_word_and_the_regions_count() {
        let mut watch = Watch::new(at(0));
        assert_eq!(second(&mut watch, 1, 4, 0), Turn::Answer);
        assert_eq!(second(&mut watch, 2, 4 << 8, 0), Turn::Answer, "the wrong byte");
        assert_eq!(watch.asks(mac(3), 0, Role::Second, Some(false), true, at(1)), Turn::Answer);
        assert_eq!(watch.asks(mac(4), 0, Role::Second, Some(true), true, at(1)), Turn::Leave);
    }

    #[test]
    fn a_returned_first_rack_has_the_copies_before_it_serves() {
        let mut watch = Watch::new(at(0));
        assert_eq!(watch.asks(mac(1), 0, Role::First, None, false, at(1)), Turn::Copies);
        assert_eq!(watch.asks(mac(1), 0, Role::First, None, true, at(1)), Turn::Answer);
        assert_eq!(watch.asks(mac(1), 0, Role::First, None, false, at(10)), Turn::Answer, "it does not wait for ever");
    }

    #[test]
    fn a_flood_of_invented_clients_does_not_grow_it() {
        let mut watch = Watch::new(at(0));
        for n in 0..3 * u32::try_from(CLIENTS).unwrap() {
            let [a, b, c, d] = n.to_be_bytes();
            watch.asks(MacAddr([2, 9, a, b, c, d]), 0, Role::Second, None, true, at(u64::from(n) / 1_000));
        }
        assert!(watch.asking.len() <= CLIENTS);
    }
}
