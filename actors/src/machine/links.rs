//! Racks that come and go while a machine is commissioned: who is in charge then, and who is left.

use schema::{
    commissioning::CommissionStep,
    id::RackId,
    messages::machine::{Ailment, Brief},
    time::Timestamp,
    wait::OwedBy,
};

use super::{Attempt, Machine, waits::BACK};
use crate::core::Step;

/// Said of a rack whose link is up again.
const CONNECTED: &str = "is connected again";

impl Machine {
    /// Whether that rack has a part in what is under way, so that the machine must hear what becomes of it. Of one that waits for its turn
    /// none has yet: its racks are looked up anew then.
    #[must_use]
    pub fn counts_on(&self, rack: RackId) -> bool {
        let begun = self.open_attempt().filter(|a| a.place.is_none());
        begun.is_some_and(|a| a.bmc_racks.contains(&rack) || a.boot_racks.contains(&rack))
            || self.errand.as_ref().is_some_and(|e| e.racks.contains(&rack))
    }

    /// How a rack's link stands. Only the last word on it is kept: a link that flaps must not drive out what else was seen.
    fn link_noted(&self, rack: RackId, word: &str, now: Timestamp) -> Step<Self> {
        let text = |word: &str| format!(" rack {rack} {word}");
        let before = [text(CONNECTED), text("lost its link; it goes on alone")];
        // What the rack kept is on its way: once in a step a deadline that is near waits for it.
        let near = self.wait.as_ref().filter(|w| word == CONNECTED && w.deadline < now + BACK).map(|w| w.since);
        self.with_attempt(|a| {
            if near.is_some_and(|since| a.held.is_none_or(|held| held < since)) {
                a.held = Some(now + BACK);
            }
            a.seen.retain(|line| !before.iter().any(|text| line.ends_with(text)));
            a.see(now, text(word).trim_start().into());
        })
        .expecting(now)
    }

    /// It is there, and was away for so short that its link was not missed: what it sent a machine broke off all the same.
    pub(super) fn rack_began(&self, rack: RackId, now: Timestamp) -> Step<Self> {
        match self.open_attempt() {
            Some(a) if a.boot_racks.contains(&rack) && a.is_booting() => {
                self.with_attempt(|a| a.cut = Some(now)).rack_link(rack, true, now)
            }
            _ => self.rack_link(rack, true, now),
        }
    }

    pub(super) fn rack_link(&self, rack: RackId, up: bool, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return self.errand_link(rack, up, now) };
        let in_charge = attempt.bmc_racks.get(attempt.bmc_rack) == Some(&rack);
        let heard = self.with_attempt(|a| {
            a.away.retain(|away| *away != rack);
            a.away.extend(Some(rack).filter(|_| !up));
            if !up && a.boot_racks.contains(&rack) && a.is_booting() {
                a.cut = Some(now);
            }
        });
        if up {
            let again: Vec<_> = self.lost_effects(attempt).filter(|e| e.concerns(rack)).collect();
            // Orders and tickets are idempotent by attempt: a rack that has them ignores them.
            return heard.link_noted(rack, CONNECTED, now).with(again);
        }
        // A rack whose link is lost may carry out an order that it did not say it has: the next one is asked when its time is over.
        if let Some(elsewhere) = heard.off_elsewhere(rack, "its link was lost", now) {
            return elsewhere;
        }
        if in_charge || attempt.bmc_racks.contains(&rack) || attempt.boot_racks.contains(&rack) {
            return heard.link_noted(rack, "lost its link; it goes on alone", now);
        }
        Step::ignored("that rack has no part in the attempt")
    }
}

impl Machine {
    /// What a rack lacks for booting the machine. Of each rack the last word stands.
    pub(super) fn rack_ails(&self, rack: RackId, ailment: Option<&Ailment>, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt().filter(|a| a.boot_racks.contains(&rack)) else {
            return Step::ignored("that rack boots nothing of this machine");
        };
        let known = attempt.ailing.iter().find(|(of, _)| *of == rack).map(|(_, known)| known);
        if known == ailment {
            return Step::ignored("that is known of the rack");
        }
        self.with_attempt(|a| {
            a.ailing.retain(|(of, _)| *of != rack);
            a.ailing.extend(ailment.map(|ailment| (rack, ailment.clone())));
        })
        .expecting(now)
    }
}

impl Attempt {
    /// Takes the racks as they are now. Those of the boot VLAN that were not chosen are evidence, with the reason; of those that were for want
    /// of others it is known what they lack.
    pub(super) fn take_racks(&mut self, brief: &Brief, now: Timestamp) {
        self.bmc_racks.clone_from(&brief.bmc_racks);
        self.boot_racks.clone_from(&brief.boot_racks);
        self.boot_subnets.clone_from(&brief.boot_subnets);
        self.away.clone_from(&brief.away);
        let (ailing, left_out): (Vec<_>, Vec<_>) =
            brief.lame.iter().cloned().partition(|(rack, _)| brief.boot_racks.contains(rack));
        self.ailing = ailing;
        for (rack, ailment) in left_out {
            self.see(now, format!("rack {rack} was not chosen to boot it: {}; {}", ailment.why, ailment.remedy));
        }
        for rack in &brief.away {
            self.see(now, format!("rack {rack} is not linked just now; there is no other, so it is waited for"));
        }
    }

    /// What its wait shows: what was seen, and after it what racks of the boot VLAN lack now.
    pub(super) fn evidence(&self) -> Vec<String> {
        // Of one that serves none, the remedy is the wait's own.
        let remedy = |a: &Ailment| if a.serves { format!("; {}", a.remedy) } else { String::new() };
        let ails = self.ailing.iter().map(|(rack, a)| format!("rack {rack}: {}{}", a.why, remedy(a)));
        self.seen.iter().cloned().chain(ails).collect()
    }

    /// The racks that hold its ticket, where the links of all are down: what they see is not known here.
    pub(super) fn unseen_by(&self) -> Option<String> {
        let lost = !self.held_by.is_empty() && self.held_by.iter().all(|rack| self.away.contains(rack));
        lost.then(|| self.held_by.iter().map(|rack| format!("rack {rack}")).collect::<Vec<_>>().join(", "))
    }

    /// What racks that serve all the same can be given: a system goes by their names.
    pub(super) fn helps_lack(&self) -> String {
        let lame = self.ailing.iter().filter(|(_, ailment)| ailment.serves);
        lame.map(|(rack, ailment)| format!("rack {rack}: {}; ", ailment.remedy)).collect()
    }

    /// A machine owes nothing to racks none of which serves it: then the first of them does.
    pub(super) fn owed_by_who_ails(&self, owed_by: OwedBy, remedy: String) -> (OwedBy, String) {
        let lame = |rack: &RackId| self.ailing.iter().find(|(of, ailment)| of == rack && !ailment.serves);
        let all = self.boot_racks.iter().map(lame).collect::<Option<Vec<_>>>().unwrap_or_default();
        match (owed_by, all.first()) {
            (OwedBy::Machine, Some((rack, ailment))) => (OwedBy::Rack(*rack), ailment.remedy.clone()),
            (OwedBy::AnyRack, Some((_, ailment))) => (OwedBy::AnyRack, ailment.remedy.clone()),
            (owed_by, _) => (owed_by, remedy),
        }
    }

    /// Whether it was ordered to be switched on and cloud-init is not yet at work.
    fn is_booting(&self) -> bool {
        self.ordered.is_some() && !self.is_done(CommissionStep::Metadata)
    }

    /// Whether a rack is left that could try after the one in charge.
    pub(super) fn another_rack(&self) -> bool {
        self.bmc_rack + 1 < self.bmc_racks.len()
    }

    /// Who is to switch the machine off, best first: the rack that switched it on, the others, and last those whose link is down.
    pub(super) fn off_racks(&self) -> Vec<RackId> {
        let mut racks = self.bmc_racks.clone();
        let first = self.bmc_rack.min(racks.len());
        racks.rotate_left(first);
        racks.sort_by_key(|rack| self.away.contains(rack));
        racks
    }
}
