//! Power outside a commissioning: on, off, and the question; and what racks say of it at any time.

use schema::{
    id::{AttemptId, RackId},
    messages::{
        machine::{Brief, MachineTimer},
        report::Fact,
    },
    power::{PowerAction, PowerType},
    projection::Level,
    status::PowerState,
    time::Timestamp,
};
use std::time::Duration;

use super::{Machine, MachineEffect, PowerErrand, admission::event};
use crate::core::Step;

/// How long a power action may take: all of a rack's tries (4, 8, 16, 32 s between them) and the tool's own time.
const POWER_LIMIT: Duration = Duration::from_secs(150);
/// How long one rack may try while there is another that could.
pub(super) const ONE_OF_SEVERAL: Duration = Duration::from_secs(45);
/// How long after that its word may take to come, before the next rack is tried without it.
pub(super) const WORD: Duration = Duration::from_secs(15);
/// Between the reason of a failure and what a power action said later.
const AFTERWARDS: &str = " Afterwards: ";
/// How long a question may take.
const QUERY_LIMIT: Duration = Duration::from_secs(60);

impl PowerErrand {
    /// The order to the rack in charge.
    pub(super) fn order(&self) -> Option<MachineEffect> {
        let rack = *self.racks.get(self.rack)?;
        let deadline = self.started + self.limit();
        Some(MachineEffect::SendOrder { rack, attempt: self.attempt, action: self.action, deadline })
    }

    pub(super) fn cancel(&self) -> MachineEffect {
        let rack = self.racks.get(self.rack).copied().unwrap_or_else(|| RackId::from_draws([0; 6]));
        MachineEffect::CancelOrder { rack, attempt: self.attempt }
    }

    pub(super) fn deadline(&self) -> Timestamp {
        let word = if self.another_rack() { WORD } else { Duration::ZERO };
        self.started + self.limit() + word
    }

    /// How long the rack in charge may try.
    fn limit(&self) -> Duration {
        let limit = if self.action == PowerAction::Query { QUERY_LIMIT } else { POWER_LIMIT };
        if self.another_rack() { limit.min(ONE_OF_SEVERAL) } else { limit }
    }

    fn another_rack(&self) -> bool {
        self.rack + 1 < self.racks.len()
    }
}

impl Machine {
    pub(super) fn ask_power(&self, by: &str, action: PowerAction, brief: &Brief, now: Timestamp) -> Step<Self> {
        if self.open_attempt().is_some() {
            return Step::refused(
                "the machine is being commissioned; its power belongs to that",
                format!("wait, or abort it: hostler machine abort {}", self.spec.hostname),
            );
        }
        if self.spec.power.power_type == PowerType::Manual && action == PowerAction::Query {
            return Step::refused("a machine of power type manual cannot be asked", "look at it, or give it a BMC");
        }
        if brief.bmc_racks.is_empty() {
            return Step::refused(
                "no rack that reaches the machine's BMC is connected",
                "start one with `hostler rack`; see `GET /MAAS/api/2.0/rackcontrollers/`",
            );
        }
        let step = self.start_errand(action, brief.bmc_racks.clone(), now);
        if action == PowerAction::Query {
            return step;
        }
        step.with([event(now, Level::Info, "NODE_POWER_REQUESTED", format!("Asked to {}.", action.label()), Some(by))])
    }

    /// The machine with that power action under way. One that runs already is given up for it.
    pub(super) fn start_errand(&self, action: PowerAction, racks: Vec<RackId>, now: Timestamp) -> Step<Self> {
        let errand =
            PowerErrand { attempt: self.next_attempt, action, racks, rack: 0, started: now, tried: Vec::new() };
        let effects: Vec<_> = self.errand.iter().map(PowerErrand::cancel).chain(errand.order()).collect();
        let next = Self { next_attempt: errand.attempt.next(), errand: Some(errand), ..self.clone() };
        next.expecting(now).with(effects)
    }

    /// A fact of the power errand; `None` when it belongs to something else.
    pub(super) fn errand_fact(
        &self,
        rack: RackId,
        attempt: AttemptId,
        fact: &Fact,
        now: Timestamp,
    ) -> Option<Step<Self>> {
        let errand = self.errand.as_ref().filter(|e| e.attempt == attempt)?;
        Some(match fact {
            Fact::OrderAccepted => Step::ignored("the rack accepted the order; its result is awaited"),
            Fact::PowerTry { .. } => Step::ignored("a try at the BMC; its result is awaited"),
            Fact::PowerTryFailed { .. } => Step::ignored("a try at the BMC failed; the next one follows"),
            Fact::PowerByHand { action } => {
                // A person does it and nobody reports it: the errand ends with what can be known.
                let text = format!("A person must do it: {}.", action.label());
                self.errand_over(PowerState::Unknown, now).with([event(
                    now,
                    Level::Warning,
                    "NODE_POWER_BY_HAND",
                    text,
                    None,
                )])
            }
            Fact::PowerDone { action, state } => {
                let line = match (action, state) {
                    (PowerAction::Query, _) => None,
                    (_, PowerState::On) => Some(event(now, Level::Info, "NODE_POWERED_ON", "The BMC says on.", None)),
                    (_, PowerState::Off) => {
                        Some(event(now, Level::Info, "NODE_POWERED_OFF", "The BMC says off.", None))
                    }
                    _ => None,
                };
                self.errand_over(*state, now).with(line)
            }
            // Another rack may reach the BMC, or have the tool; a wrong password is wrong everywhere.
            Fact::BmcUnreachable { why, .. } | Fact::OrderRefused { why, .. } => self.next_rack(errand, rack, why, now),
            Fact::PowerFailed { why, .. } => self.errand_failed(errand, rack, why, now),
            _ => Step::ignored("no part of a power action"),
        })
    }

    /// The errand goes to the next rack that may reach the BMC, or ends in failure.
    fn next_rack(&self, errand: &PowerErrand, rack: RackId, why: &str, now: Timestamp) -> Step<Self> {
        if errand.racks.get(errand.rack) != Some(&rack) {
            return Step::ignored("the action is in another rack's hands by now");
        }
        let mut next = PowerErrand { rack: errand.rack + 1, started: now, ..errand.clone() };
        next.tried.push(format!("rack {rack}: {why}"));
        if let Some(order) = next.order() {
            let text = format!("Rack {rack}: {why} Trying the next rack.");
            let line = event(now, Level::Warning, failed_event(errand.action), text, None);
            return Self { errand: Some(next), ..self.clone() }.expecting(now).with([errand.cancel(), order, line]);
        }
        self.errand_failed(errand, rack, why, now)
    }

    /// The errand ends in failure; what every rack said stands in the machine's error.
    fn errand_failed(&self, errand: &PowerErrand, rack: RackId, why: &str, now: Timestamp) -> Step<Self> {
        if errand.racks.get(errand.rack) != Some(&rack) {
            return Step::ignored("the action is in another rack's hands by now");
        }
        let line = event(now, Level::Error, failed_event(errand.action), format!("Rack {rack}: {why}"), None);
        let before = errand.tried.iter().map(|tried| format!("{tried}; "));
        let error = format!("{} failed: {}rack {rack}: {why}", errand.action.label(), before.collect::<String>());
        let mut step = self.errand_over(PowerState::Error, now);
        if let Some(machine) = step.next.as_mut() {
            // Why the machine failed stays; that it could not be switched off either is said after it.
            machine.error = match self.lasting_error() {
                "" => error,
                reason => format!("{reason}{AFTERWARDS}{error}"),
            };
        }
        step.with([line])
    }

    /// The rack of a power action is back, or gone: it hears the order again, or another one does.
    pub(super) fn errand_link(&self, rack: RackId, up: bool, now: Timestamp) -> Step<Self> {
        let Some(errand) = self.errand.as_ref().filter(|e| e.racks.get(e.rack) == Some(&rack)) else {
            return Step::ignored("that rack has no work for the machine");
        };
        match (up, errand.another_rack()) {
            (true, _) => self.clone().expecting(now).with(errand.order()),
            (false, true) => self.next_rack(errand, rack, "its link was lost", now),
            (false, false) => Step::ignored("no other rack reaches the BMC; the order waits for it"),
        }
    }

    fn errand_over(&self, power_state: PowerState, now: Timestamp) -> Step<Self> {
        let error = if power_state == PowerState::Error { &self.error } else { self.lasting_error() }.to_owned();
        Self { power_state, power_asked: Some(now), errand: None, error, ..self.clone() }.resting()
    }

    /// The reason of a failed status, without what a power action said after it; empty where the status is none of failure.
    fn lasting_error(&self) -> &str {
        let failed = self.status.label().starts_with("Failed");
        if failed { self.error.split(AFTERWARDS).next().unwrap_or_default() } else { "" }
    }

    /// The state seen by a sweep.
    pub(super) fn power_seen(&self, state: PowerState, now: Timestamp) -> Step<Self> {
        if self.power_state == state {
            return Step::ignored("the power state is known");
        }
        let line = match state {
            PowerState::On => event(now, Level::Info, "NODE_POWERED_ON", "Found switched on.", None),
            PowerState::Off => event(now, Level::Info, "NODE_POWERED_OFF", "Found switched off.", None),
            _ => event(now, Level::Warning, "NODE_POWER_QUERY_FAILED", "The BMC does not tell the power state.", None),
        };
        Step::moved(Self { power_state: state, power_asked: Some(now), ..self.clone() }).with([line])
    }

    /// A sweep got no answer. Another rack is asked to watch the machine; until it has, nothing is known.
    pub(super) fn power_unseen(&self, rack: RackId, why: &str, now: Timestamp) -> Step<Self> {
        if self.open_attempt().is_some() || self.errand.is_some() || self.power_state == PowerState::Unknown {
            return Step::ignored("nothing is known of the power, or it is being switched");
        }
        let text = format!("Rack {rack}: {why}");
        let line = event(now, Level::Warning, "NODE_POWER_QUERY_FAILED", text, None);
        Step::moved(Self { power_state: PowerState::Unknown, power_asked: Some(now), ..self.clone() }).with([line])
    }

    pub(super) fn errand_late(&self, now: Timestamp) -> Step<Self> {
        match &self.errand {
            Some(errand) if errand.deadline() <= now => {
                let rack = errand.racks.get(errand.rack).copied();
                let why = "the rack did not report in time";
                rack.map_or_else(
                    || self.errand_over(PowerState::Error, now),
                    |r| self.next_rack(&restarted(errand, now), r, why, now),
                )
            }
            Some(errand) => Step::ignored("the deadline has moved").arm(MachineTimer::Deadline, errand.deadline()),
            None => Step::ignored("nothing is awaited"),
        }
    }
}

/// The errand with its time counted anew, for the next rack.
fn restarted(errand: &PowerErrand, now: Timestamp) -> PowerErrand {
    PowerErrand { started: now, ..errand.clone() }
}

/// MAAS's event type for a failed action.
pub(super) fn failed_event(action: PowerAction) -> &'static str {
    match action {
        PowerAction::NetworkBoot | PowerAction::On => "NODE_POWER_ON_FAILED",
        PowerAction::Off => "NODE_POWER_OFF_FAILED",
        PowerAction::Query => "NODE_POWER_QUERY_FAILED",
    }
}
