//! Two hosts with one MAC: a cloned card, or a copied virtual machine. Firmware says the UUID of its board, and a machine has one. Pure.

use std::{collections::BTreeMap, time::Duration};

use schema::{id::AttemptId, net::MacAddr, time::Timestamp};

/// So many MACs are kept in mind; they are of machines under orders.
const MOST: usize = 20_000;
/// The same is told again after that.
const AGAIN: Duration = Duration::from_secs(60);

/// The first UUID of each MAC in its attempt.
#[derive(Debug, Default)]
pub struct Twins(BTreeMap<MacAddr, First>);

#[derive(Debug)]
struct First {
    attempt: AttemptId,
    uuid: [u8; 16],
    told: Option<Timestamp>,
}

impl Twins {
    /// Firmware with that UUID asks for an address. The two that ask by turns, when there are two and that is to be told.
    pub fn note(&mut self, mac: MacAddr, attempt: AttemptId, uuid: [u8; 16], now: Timestamp) -> Option<[[u8; 16]; 2]> {
        if self.0.len() >= MOST && !self.0.contains_key(&mac) {
            self.0.clear();
        }
        let first = self.0.entry(mac).or_insert(First { attempt, uuid, told: None });
        if first.attempt != attempt {
            *first = First { attempt, uuid, told: None };
        }
        // Some firmware turns the first three fields round.
        if first.uuid == uuid || first.uuid == turned(uuid) || first.told.is_some_and(|at| now.since(at) < AGAIN) {
            return None;
        }
        first.told = Some(now);
        Some([first.uuid, uuid])
    }
}

/// The UUID with its first three fields in the other byte order.
fn turned(u: [u8; 16]) -> [u8; 16] {
    [u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_board_is_one_whichever_way_round_it_says_its_uuid() {
        let (mac, mut twins) = (MacAddr([2, 0, 0, 0, 0, 1]), Twins::default());
        let (one, other) = (std::array::from_fn(|n| u8::try_from(n).unwrap()), [7; 16]);
        let mut note = |attempt, uuid, s| twins.note(mac, AttemptId(attempt), uuid, Timestamp::from_seconds(s));
        assert_eq!(note(1, one, 100), None);
        assert_eq!(note(1, turned(one), 101), None);
        assert_eq!(note(1, other, 102), Some([one, other]));
        assert_eq!(note(1, other, 103), None, "told just before");
        assert_eq!(note(1, other, 170), Some([one, other]));
        assert_eq!(note(2, other, 171), None, "another attempt, perhaps of another board");
    }
}
