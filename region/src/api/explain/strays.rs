//! Clients that asked for an address to boot although nobody asked them to. A machine of ours: the BMC that was told may be its own. A strange
//! card: it may be one of the machine that is waited for. Pure.

use std::{collections::HashSet, time::Duration};

use actors::machine::Machine;
use schema::{
    commissioning::{CommissionStep, StepRecord, StepState},
    id::RackId,
    messages::link::Stray,
    net::MacAddr,
};

use crate::tickets::Owner;

/// The clocks of a rack and of the region may differ so much.
const CLOCKS: Duration = Duration::from_secs(2);
/// More are beside the point: a whole site that boots.
const MOST: usize = 3;

/// A client that asked a rack and was not expected there, and the machine of ours that it is, if it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unexpected {
    pub rack: RackId,
    pub stray: Stray,
    pub owner: Option<Owner>,
}

/// What else a machine's wait may come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    pub strays: Vec<Unexpected>,
    /// The host names of other machines with its power address.
    pub same_power: Vec<String>,
}

/// Those that are no machine under orders. `owners`: whose these MACs are.
pub fn known(strays: Vec<(RackId, Stray)>, owners: impl FnOnce(&HashSet<MacAddr>) -> Vec<Owner>) -> Vec<Unexpected> {
    let macs = strays.iter().map(|(_, stray)| stray.mac).collect();
    let owners = owners(&macs);
    let of = |(rack, stray): (RackId, Stray)| {
        let owner = owners.iter().find(|owner| owner.mac == stray.mac).cloned();
        owner.as_ref().is_none_or(|owner| !owner.ordered).then_some(Unexpected { rack, stray, owner })
    };
    strays.into_iter().filter_map(of).collect()
}

/// It in words: who shares its power address, and the first of those that began to ask since this machine should have: it was switched on, or
/// its kernel was fetched.
#[must_use]
pub fn told(m: &Machine, beside: &Beside) -> Vec<String> {
    let power = m.spec.power.address().unwrap_or_default();
    let same = |name: &String| {
        format!(
            "{name} has the same power address, {power}: whoever is switched on there, one of them does not boot; correct the power_address of the wrong one"
        )
    };
    let shared = beside.same_power.iter().filter(|_| boots(m)).take(MOST).map(same);
    shared.chain(unexpected(m, &beside.strays)).collect()
}

/// Whether it is to boot, or failed to: its system has never called.
#[must_use]
pub fn boots(m: &Machine) -> bool {
    let called = |r: &StepRecord| r.state == StepState::Done;
    m.attempt.as_ref().is_some_and(|a| !a.steps.get(CommissionStep::Metadata as usize).is_some_and(called))
}

fn unexpected(m: &Machine, strays: &[Unexpected]) -> Vec<String> {
    let Some(attempt) = &m.attempt else { return Vec::new() };
    let step = |step: CommissionStep| attempt.steps.get(step as usize);
    let done = |s| step(s).is_some_and(|r| r.state == StepState::Done);
    let (began, system) = match (done(CommissionStep::DhcpLease), done(CommissionStep::EphemeralBoot)) {
        (false, _) => (step(CommissionStep::PowerOn).and_then(|r| r.started), false),
        (true, false) => (step(CommissionStep::BootConfig).and_then(|r| r.ended), true),
        (true, true) => (None, true),
    };
    let Some(began) = began else { return Vec::new() };
    let meanwhile = |s: &&Unexpected| {
        let of_another = s.owner.as_ref().is_some_and(|owner| owner.machine != m.spec.system_id);
        let strange = s.owner.is_none() && attempt.boot_racks.contains(&s.rack);
        let since =
            s.stray.first + CLOCKS >= began && attempt.ended.is_none_or(|ended| s.stray.first <= ended + CLOCKS);
        since && (of_another && !system || strange)
    };
    let mut all: Vec<_> = strays.iter().filter(meanwhile).collect();
    // Our own machines before strange cards, the first before the later.
    all.sort_by_key(|s| (s.owner.is_none(), s.stray.first, s.stray.mac));
    all.into_iter().take(MOST).map(|s| said(m, s, system)).collect()
}

fn said(m: &Machine, unexpected: &Unexpected, system: bool) -> String {
    let Unexpected { rack, stray, owner } = unexpected;
    let (mac, at, own) = (stray.mac, stray.first, m.spec.power.address().unwrap_or("its BMC"));
    let name = &m.spec.hostname;
    match owner {
        Some(Owner { hostname, power_address, .. }) => format!(
            "{hostname} ({mac}) asked rack {rack} for an address at {at} although nobody asked it to boot, after {own} was told to switch on: are the power addresses of {name} ({own}) and {hostname} ({power_address}) swapped?"
        ),
        None if system => format!(
            "{mac}, a card of no machine that is known, asked rack {rack} for an address at {at}, after {name}'s kernel was fetched: if it is a card of {name}, its system uses another card than its firmware; cable that one or take it off this network"
        ),
        None => format!(
            "{mac}, a card of no machine that is known, asked rack {rack} for an address to boot at {at}, after {own} was told to switch on: if it is a card of {name}, add its MAC to the machine"
        ),
    }
}
