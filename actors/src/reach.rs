//! Which rack reaches which BMC: learned from every power action, question and sweep, forgotten after a while. Chooses who is asked next.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    time::Duration,
};

use schema::{id::RackId, messages::report::Fact, power::PowerAction, time::Timestamp};
use serde::{Deserialize, Serialize};

/// What was seen to work counts that long.
pub const REACHED: Duration = Duration::from_secs(24 * 3_600);
/// What did not work is tried again after that.
pub const MISSED: Duration = Duration::from_secs(600);
/// So many racks are tried for one BMC; each may take a minute, and what they learn puts others first the next time.
pub const TRIED: usize = 16;
/// What is known already is written down again after this part of its time, so that it does not expire while it holds.
const REFRESH: u32 = 4;

/// One thing learned: whether that rack reached that BMC, when, and what told so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// `power_address`, in lower case.
    pub bmc: String,
    pub rack: RackId,
    pub reachable: bool,
    pub at: Timestamp,
    /// "power on", "query", "sweep".
    pub how: String,
}

impl Reached {
    /// What a rack's report tells of the way to the BMC; `None` when it tells nothing.
    #[must_use]
    pub fn learned(bmc: &str, rack: RackId, fact: &Fact, at: Timestamp) -> Option<Self> {
        let (reachable, how) = match fact {
            Fact::PowerDone { action, .. } => (true, action.label()),
            Fact::PowerSeen { .. } => (true, "sweep"),
            Fact::BmcUnreachable { action: PowerAction::Query, .. } => (false, "query"),
            Fact::BmcUnreachable { action, .. } => (false, action.label()),
            _ => return None,
        };
        Some(Self { bmc: bmc.to_ascii_lowercase(), rack, reachable, at, how: how.into() })
    }

    /// When it counts no more.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.at + if self.reachable { REACHED } else { MISSED }
    }
}

/// A rack that could be given a BMC's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub rack: RackId,
    /// It has an address in the BMC's subnet.
    pub near: bool,
    /// Machines boot from it.
    pub boots: bool,
}

/// All that is known, by BMC and rack: who asks does so of one BMC and many racks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    known: BTreeMap<String, BTreeMap<RackId, Reached>>,
}

impl Reach {
    /// What was kept.
    #[must_use]
    pub fn of(kept: impl IntoIterator<Item = Reached>) -> Self {
        let mut all = Self::default();
        kept.into_iter().for_each(|r| all.put(r));
        all
    }

    /// Takes what was learned. True when it is to be written down: it is new, another, or refreshes what grows old.
    pub fn note(&mut self, learned: &Reached) -> bool {
        let old = self.known.get(&learned.bmc).and_then(|racks| racks.get(&learned.rack));
        let worth = old.is_none_or(|old| {
            let half_gone = old.expires().since(old.at) / REFRESH;
            learned.at >= old.at && (old.reachable != learned.reachable || learned.at.since(old.at) >= half_gone)
        });
        if worth {
            self.put(learned.clone());
        }
        worth
    }

    fn put(&mut self, learned: Reached) {
        self.known.entry(learned.bmc.clone()).or_default().insert(learned.rack, learned);
    }

    /// Forgets what has expired; what went.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Reached> {
        let all = std::mem::take(&mut self.known).into_values().flat_map(BTreeMap::into_values);
        let (gone, kept): (Vec<_>, Vec<_>) = all.partition(|r| r.expires() <= now);
        *self = Self::of(kept);
        gone
    }

    /// All of it.
    pub fn all(&self) -> impl Iterator<Item = &Reached> {
        self.known.values().flat_map(BTreeMap::values)
    }

    /// The candidates in the order in which they are tried: those in the BMC's subnet, those that reached it, those that machines boot
    /// from, the others, and at last those that did not reach it a moment ago. Among equals each BMC has an order of its own; at most
    /// [`TRIED`] of them.
    #[must_use]
    pub fn order(&self, bmc: Option<&str>, candidates: &[Candidate], now: Timestamp) -> Vec<RackId> {
        let rank = self.ranking(bmc, now);
        let mut ranked: Vec<_> = candidates.iter().map(|c| (rank(c), spread(bmc, c.rack), c.rack)).collect();
        ranked.sort_unstable();
        ranked.truncate(TRIED);
        ranked.into_iter().map(|(_, _, rack)| rack).collect()
    }

    /// The first of that order, without putting the others into it: a site asks it for each of its machines.
    #[must_use]
    pub fn first(&self, bmc: Option<&str>, candidates: &[Candidate], now: Timestamp) -> Option<RackId> {
        let rank = self.ranking(bmc, now);
        let best = candidates.iter().map(&rank).min()?;
        let equal = candidates.iter().filter(|c| rank(c) == best);
        equal.map(|c| (spread(bmc, c.rack), c.rack)).min().map(|(_, rack)| rack)
    }

    /// How good each candidate is for a BMC: the least first.
    fn ranking(&self, bmc: Option<&str>, now: Timestamp) -> impl Fn(&Candidate) -> u8 {
        let known = bmc.and_then(|bmc| self.known.get(&bmc.to_ascii_lowercase()));
        move |c| {
            let reached = known.and_then(|racks| racks.get(&c.rack)).filter(|r| r.expires() > now);
            match (reached.map(|r| r.reachable), c) {
                (Some(false), _) => 4,
                (_, Candidate { near: true, .. }) => 0,
                (Some(true), _) => 1,
                (None, Candidate { boots: true, .. }) => 2,
                (None, _) => 3,
            }
        }
    }
}

/// The place of a rack among its equals, another one for each BMC.
fn spread(bmc: Option<&str>, rack: RackId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (bmc, rack).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::status::PowerState;

    use super::*;

    fn rack(n: u8) -> RackId {
        format!("rack0{n}").parse().unwrap()
    }

    fn at(s: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + s)
    }

    fn candidate(n: u8, near: bool, boots: bool) -> Candidate {
        Candidate { rack: rack(n), near, boots }
    }

    fn told(n: u8, fact: &Fact, s: i64) -> Reached {
        Reached::learned("10.9.0.5", rack(n), fact, at(s)).unwrap()
    }

    fn seen() -> Fact {
        Fact::PowerSeen { state: PowerState::On }
    }

    fn missed() -> Fact {
        Fact::BmcUnreachable { action: PowerAction::Off, why: "no answer".into(), remedy: "look".into() }
    }

    #[test]
    fn the_near_come_first_then_those_that_reached_it_and_those_that_did_not_come_last() {
        let mut reach = Reach::default();
        let all = [
            candidate(1, false, false),
            candidate(2, false, true),
            candidate(3, true, false),
            candidate(4, false, false),
        ];
        assert_eq!(reach.order(Some("10.9.0.5"), &all, at(0))[..2], [rack(3), rack(2)]);
        assert!(reach.note(&told(4, &seen(), 0)));
        assert_eq!(reach.order(Some("10.9.0.5"), &all, at(1)), [rack(3), rack(4), rack(2), rack(1)]);
        assert!(reach.note(&told(3, &missed(), 2)));
        assert_eq!(reach.order(Some("10.9.0.5"), &all, at(3)), [rack(4), rack(2), rack(1), rack(3)]);
        assert_eq!(reach.order(Some("10.9.0.6"), &all, at(3))[0], rack(3), "another BMC is another matter");
        // Ten minutes later the failure is forgotten, a day later the success.
        assert_eq!(reach.order(Some("10.9.0.5"), &all, at(603))[0], rack(3));
        assert_eq!(reach.expire(at(86_401)).len(), 2);
        assert_eq!(reach, Reach::default());
    }

    #[test]
    fn what_holds_is_written_again_before_it_expires_and_not_each_time() {
        let mut reach = Reach::default();
        assert!(reach.note(&told(1, &seen(), 0)));
        assert!(!reach.note(&told(1, &seen(), 300)));
        assert!(reach.note(&told(1, &missed(), 400)));
        assert!(!reach.note(&told(1, &seen(), 399)), "what is older than what is known");
        assert!(reach.note(&told(1, &seen(), 500)));
        assert!(reach.note(&told(1, &seen(), 500 + 6 * 3_600)));
        assert!(Reached::learned("x", rack(1), &Fact::OrderAccepted, at(0)).is_none());
    }

    proptest! {
        #[test]
        fn an_order_holds_every_candidate_once(
            facts in prop::collection::vec((1..6_u8, any::<bool>(), 0..90_000_i64), 0..40),
            near in any::<u8>(),
        ) {
            let mut reach = Reach::default();
            for (n, good, s) in facts {
                let fact = if good { seen() } else { missed() };
                reach.note(&told(n, &fact, s));
            }
            let all: Vec<_> = (1..6).map(|n| candidate(n, near & (1 << n) != 0, n % 2 == 0)).collect();
            let mut ordered = reach.order(Some("10.9.0.5"), &all, at(90_000));
            prop_assert_eq!(ordered.first().copied(), reach.first(Some("10.9.0.5"), &all, at(90_000)));
            prop_assert_eq!(&ordered, &reach.order(Some("10.9.0.5"), &all, at(90_000)));
            ordered.sort();
            prop_assert_eq!(ordered, (1..6).map(rack).collect::<Vec<_>>());
        }
    }
}
