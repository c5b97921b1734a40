//! One more boot. Firmware that loses its server in the middle of a transfer gives up for good; so a machine whose boot ran out of time
//! after a rack of its boot VLAN was lost is switched on once more, and the racks that are left serve it.

use std::time::Duration;

use schema::{
    commissioning::{CommissionStep, StepRecord},
    id::AttemptId,
    power::PowerType,
    projection::Level,
    time::Timestamp,
};

use super::{Attempt, Machine, admission::event};
use crate::core::Step;

/// How long a boot may go on after a rack was lost and before the next step is seen: large servers test their memory for minutes.
const CUT: Duration = Duration::from_secs(180);
/// What a second boot goes through anew.
const BOOT: [CommissionStep; 7] = [
    CommissionStep::RackChosen,
    CommissionStep::PowerOn,
    CommissionStep::DhcpLease,
    CommissionStep::NextServer,
    CommissionStep::BootConfig,
    CommissionStep::EphemeralBoot,
    CommissionStep::Metadata,
];

impl Machine {
    /// Whether the machine is switched on once more when that step runs out of time.
    pub(super) fn boots_again(&self, attempt: &Attempt, step: CommissionStep) -> bool {
        let booting = BOOT.contains(&step) && attempt.is_done(CommissionStep::PowerOn);
        booting && attempt.cut.is_some() && attempt.again.is_none() && self.spec.power.power_type != PowerType::Manual
    }

    /// When that step, which began at `since` and has until `deadline` by itself, is given up.
    pub(super) fn given_up(
        &self,
        attempt: &Attempt,
        step: CommissionStep,
        since: Timestamp,
        deadline: Timestamp,
    ) -> Timestamp {
        // A step that began after the loss is the sign that the boot goes on: it has its own time.
        let cut = attempt.cut.filter(|cut| since <= *cut && self.boots_again(attempt, step));
        cut.map_or(deadline, |cut| attempt.not_held(deadline.min(cut + CUT)))
    }

    /// It is; on another rack's order where that of the first boot is away.
    pub(super) fn boot_again(&self, step: CommissionStep, now: Timestamp) -> Step<Self> {
        let id = self.next_attempt;
        let text = format!(
            "a rack was lost while it booted, and step {} ran out of time: it is booted once more",
            step.number()
        );
        let mut next = self.with_attempt(|a| {
            a.again = Some(id);
            (a.bmc_racks, a.bmc_rack) = (a.off_racks(), 0);
            for step in BOOT {
                if let Some(record) = a.steps.get_mut(step as usize) {
                    *record = StepRecord::default();
                }
            }
            a.begin(CommissionStep::RackChosen, now);
            a.see(now, text.clone());
        });
        next.next_attempt = id.next();
        let order = next.attempt.as_mut().and_then(|a| a.order(now));
        let line = event(now, Level::Warning, "NODE_COMMISSIONING_HINDERED", text, None);
        next.expecting(now).with(order).with([line])
    }
}

impl Attempt {
    /// The number of the order to power on: the attempt's own, or that of the second boot, which racks take for another one.
    pub(super) fn on_number(&self) -> AttemptId {
        self.again.unwrap_or(self.id)
    }
}
