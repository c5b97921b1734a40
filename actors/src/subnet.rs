//! A subnet as the region sees it: the leases that racks report, and how full it is. Choosing addresses is the rack's.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use schema::{
    id::{RackId, SubnetId},
    plan::Lease,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::core::{Core, Resume, Step, TimerOp, View};

/// Expired leases are swept no more often than this.
const SWEEP: Duration = Duration::from_secs(60);

/// One subnet's leases. The rows stand in a table of their own and are put back in when the actor wakes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    /// Addresses that may be leased.
    pub size: u64,
    /// Addresses kept for a MAC.
    pub reserved: u64,
    /// Leases that ran when the state was written.
    pub used: u64,
    #[serde(skip)]
    pub leases: BTreeMap<Ipv4Addr, Lease>,
}

/// What happens to a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum SubnetEvent {
    /// A rack reports leases: granted, renewed, or ended (`expires` = `granted`).
    Leases {
        leases: Vec<Lease>,
        #[serde(default)]
        from: Option<RackId>,
    },
    /// The catalogue gives it that many addresses.
    Sized {
        size: u64,
        reserved: u64,
    },
    Elapsed {
        timer: SubnetTimer,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubnetTimer {
    /// A lease has expired.
    Sweep,
}

/// Leases are written with the journal row, in its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubnetEffect {
    StoreLease(Lease),
    /// To the other racks that serve the subnet's DHCP, once the leases are durable.
    Copy {
        leases: Vec<Lease>,
        from: Option<RackId>,
    },
}

impl Subnet {
    /// A subnet without leases.
    #[must_use]
    pub fn empty(id: SubnetId) -> Self {
        Self { id, size: 0, reserved: 0, used: 0, leases: BTreeMap::new() }
    }

    /// With these rows of the lease table put back in.
    #[must_use]
    pub fn with_leases(mut self, leases: impl IntoIterator<Item = Lease>) -> Self {
        self.leases = leases.into_iter().map(|l| (l.ip, l)).collect();
        self
    }

    /// Addresses that nobody holds.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.size.saturating_sub(self.used)
    }

    fn sweep_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.leases.values().map(|l| l.expires).min().map(|first| first.max(now + SWEEP))
    }

    fn counted(mut self, now: Timestamp) -> Step<Self> {
        self.leases.retain(|_, lease| lease.expires > now);
        self.used = self.leases.len() as u64;
        let sweep = self.sweep_at(now);
        let step = Step::moved(self);
        match sweep {
            Some(at) => step.arm(SubnetTimer::Sweep, at),
            None => step,
        }
    }
}

impl Core for Subnet {
    const KIND: &'static str = "subnet";
    type Id = SubnetId;
    type Event = SubnetEvent;
    type Effect = SubnetEffect;
    type Timer = SubnetTimer;

    fn id(&self) -> SubnetId {
        self.id
    }

    fn step(&self, event: &SubnetEvent, now: Timestamp) -> Step<Self> {
        match event {
            SubnetEvent::Leases { leases, from } => {
                let news = |lease: &&Lease| match self.leases.get(&lease.ip) {
                    // Racks send again what was not acknowledged: an older word on an address is no news.
                    Some(known) => lease.supersedes(known),
                    None => lease.expires > now,
                };
                let news: Vec<_> = leases.iter().filter(news).cloned().collect();
                if news.is_empty() {
                    return Step::ignored("these leases are known");
                }
                let mut next = self.clone();
                next.leases.extend(news.iter().map(|l| (l.ip, l.clone())));
                let copy = SubnetEffect::Copy { leases: news.clone(), from: *from };
                next.counted(now).with(news.into_iter().map(SubnetEffect::StoreLease).chain([copy]))
            }
            SubnetEvent::Sized { size, reserved } if (self.size, self.reserved) == (*size, *reserved) => {
                Step::ignored("the subnet has that size already")
            }
            SubnetEvent::Sized { size, reserved } => {
                Self { size: *size, reserved: *reserved, ..self.clone() }.counted(now)
            }
            SubnetEvent::Elapsed { timer: SubnetTimer::Sweep } => self.clone().counted(now),
        }
    }

    fn resume(&self, now: Timestamp) -> Resume<Self> {
        let sweep = self.sweep_at(now).map(|at| TimerOp::Arm { timer: SubnetTimer::Sweep, at });
        Resume { effects: Vec::new(), timers: sweep.into_iter().collect() }
    }

    fn elapsed(timer: SubnetTimer) -> SubnetEvent {
        SubnetEvent::Elapsed { timer }
    }

    fn view(&self) -> View {
        let state = if self.size > 0 && self.free() == 0 { "full" } else { "open" };
        View { state: state.into(), wait: None, detail: serde_json::Value::Null }
    }

    fn detail(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + s)
    }

    fn lease(last: u8, granted: i64, expires: i64) -> Lease {
        Lease {
            subnet: SubnetId(1),
            ip: Ipv4Addr::new(10, 0, 0, last),
            mac: schema::net::MacAddr([2, 0, 0, 0, 0, last]),
            hostname: None,
            granted: at(granted),
            expires: at(expires),
        }
    }

    #[test]
    fn leases_are_counted_once_and_forgotten_when_they_expire() {
        let subnet = Subnet { size: 2, ..Subnet::empty(SubnetId(1)) };
        let both = SubnetEvent::Leases { leases: vec![lease(1, 0, 100), lease(2, 0, 600)], from: None };
        let step = subnet.step(&both, at(1));
        assert_eq!(step.effects.len(), 3, "two rows, and one word to the other racks");
        let subnet = step.next.unwrap();
        assert_eq!((subnet.free(), subnet.view().state.as_str()), (0, "full"));
        assert!(subnet.step(&both, at(2)).next.is_none(), "a repeat is harmless");
        let swept = subnet.step(&SubnetEvent::Elapsed { timer: SubnetTimer::Sweep }, at(101)).next.unwrap();
        assert_eq!((swept.used, swept.free()), (1, 1));
        let released = SubnetEvent::Leases { leases: vec![lease(2, 200, 200)], from: None };
        assert_eq!(swept.step(&released, at(200)).next.unwrap().used, 0);
    }
}
