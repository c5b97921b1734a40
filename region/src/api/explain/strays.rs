//! Machines of ours that asked for an address to boot although nobody asked them to: the BMC that was told may be theirs. Pure.

use std::{collections::HashSet, time::Duration};

use actors::machine::Machine;
use schema::{
    commissioning::{CommissionStep, StepState},
    id::RackId,
    messages::link::Stray,
    net::MacAddr,
};

use crate::tickets::Owner;

/// The clocks of a rack and of the region may differ so much.
const CLOCKS: Duration = Duration::from_secs(2);
/// More are beside the point: a whole site that boots.
const MOST: usize = 3;

/// A client that asked a rack and was not expected there, and the machine of ours that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrayOfOurs {
    pub rack: RackId,
    pub stray: Stray,
    pub owner: Owner,
}

/// Those that are machines of ours and not under orders. `owners`: whose these MACs are.
pub fn of_ours(
    strays: Vec<(RackId, Stray)>,
    owners: impl FnOnce(&HashSet<MacAddr>) -> Vec<Owner>,
) -> Vec<StrayOfOurs> {
    let macs = strays.iter().map(|(_, stray)| stray.mac).collect();
    let owners = owners(&macs);
    let of = |(rack, stray): (RackId, Stray)| {
        let owner = owners.iter().find(|owner| owner.mac == stray.mac && !owner.ordered)?.clone();
        Some(StrayOfOurs { rack, stray, owner })
    };
    strays.into_iter().filter_map(of).collect()
}

/// Those that asked after this machine's BMC was told to switch on, while it does not ask itself: the first of them, in words.
#[must_use]
pub fn beside(m: &Machine, strays: &[StrayOfOurs]) -> Vec<String> {
    let Some(attempt) = &m.attempt else { return Vec::new() };
    let step = |step: CommissionStep| attempt.steps.get(step as usize);
    let asked = step(CommissionStep::DhcpLease).is_some_and(|r| r.state == StepState::Done);
    let Some(on) = step(CommissionStep::PowerOn).and_then(|r| r.started).filter(|_| !asked) else { return Vec::new() };
    let meanwhile = |s: &&StrayOfOurs| {
        let at = s.stray.at;
        at + CLOCKS >= on && attempt.ended.is_none_or(|ended| at <= ended + CLOCKS)
    };
    let mut all: Vec<_> = strays.iter().filter(|s| s.owner.machine != m.spec.system_id).filter(meanwhile).collect();
    all.sort_by_key(|s| (s.stray.at, s.stray.mac));
    let own = m.spec.power.address().unwrap_or("its BMC");
    let said = |s: &StrayOfOurs| {
        let StrayOfOurs { rack, stray, owner } = s;
        let (name, address) = (&owner.hostname, &owner.power_address);
        format!(
            "{name} ({}) asked rack {rack} for an address at {} although nobody asked it to boot, after {own} was told to switch on: are the power addresses of {} ({own}) and {name} ({address}) swapped?",
            stray.mac, stray.at, m.spec.hostname
        )
    };
    all.into_iter().take(MOST).map(said).collect()
}
