//! The hands of a rack's actors, as `rack::agent`, `rack::deputies` and the DHCP thread have them.

use std::time::Duration;

use actors::{
    agent::{Agent, AgentEffect, AgentEvent},
    core::Verdict,
    errand::{Errand, ErrandEffect, ErrandEvent, PowerFault, Ran},
    leases::{LeaseEffect, LeaseEvent, Outcome, SubnetLeases},
};
use schema::{id::SystemId, messages::link::FromRack, power::PowerAction};

use super::{Fresh, RackEv, dhcp};
use crate::seeds::{
    hosted::{Hosted, Kind, Pending, Tag, Takes, Who, tell},
    weather::Way,
    world::World,
};

/// What a driver says of a BMC that does not answer, after so long.
const SILENT: Duration = Duration::from_secs(7);

impl Kind for Agent {
    fn of<'w>(w: &'w mut World, who: &Who) -> Option<&'w mut Hosted<Self>> {
        if let Who::Agent(rack) = who { w.racks[*rack].memory.agent.as_mut() } else { None }
    }

    /// Nothing of it is kept.
    fn disk(_: &mut World, _: &Who, _: &Pending<Self>) -> Option<Duration> {
        None
    }

    fn keep(_: &mut World, _: &Who, _: &Pending<Self>) {}

    fn perform(w: &mut World, who: &Who, effect: AgentEffect) {
        let Who::Agent(rack) = who else { return };
        match effect {
            AgentEffect::SayHello { .. } => w.say_hello(*rack),
            AgentEffect::SayPlanInForce { generation } => {
                if w.racks[*rack].memory.listening {
                    w.say_to_region(*rack, FromRack::PlanInForce { generation });
                }
            }
        }
    }

    fn said(event: &AgentEvent) -> (String, String) {
        (format!("{event:?}"), String::new())
    }
}

impl Kind for Errand {
    fn of<'w>(w: &'w mut World, who: &Who) -> Option<&'w mut Hosted<Self>> {
        if let Who::Errand(rack, id) = who { w.racks[*rack].memory.errands.get_mut(id) } else { None }
    }

    fn disk(w: &mut World, who: &Who, _: &Pending<Self>) -> Option<Duration> {
        matches!(who, Who::Errand(..)).then(|| w.weather.disk(&mut w.draw))
    }

    fn takes(w: &mut World, who: &Who) -> Takes {
        let refused = matches!(who, Who::Errand(rack, _) if w.refuses(*rack));
        if refused { Takes::Later } else { Takes::Yes }
    }

    /// The errand and the facts that it reports stand or fall together.
    fn keep(w: &mut World, who: &Who, step: &Pending<Self>) {
        let Who::Errand(rack, id) = who else { return };
        let facts = step.effects.iter().filter_map(|effect| match effect {
            ErrandEffect::Report { attempt, at, fact } => {
                Some(Fresh { machine: *id, attempt: *attempt, at: *at, fact: fact.clone() })
            }
            _ => None,
        });
        let kept = (step.after.order.as_deref().cloned(), step.after.progress.clone());
        let disk = &mut w.racks[*rack].disk;
        disk.put(facts);
        disk.errands.insert(*id, kept);
        w.drain(*rack);
    }

    fn perform(w: &mut World, who: &Who, effect: ErrandEffect) {
        let Who::Errand(rack, machine) = who else { return };
        match effect {
            ErrandEffect::RunPower { run, action, .. } => {
                w.laws.a_run_has_a_cause(&w.racks[*rack].disk.errands, *machine, run);
                w.racks[*rack].memory.runs.insert(*machine, run);
                let way = w.weather.stream(&mut w.draw) + Duration::from_millis(5);
                w.for_rack(way, *rack, RackEv::Bmc { machine: *machine, run, action });
            }
            ErrandEffect::StopPower { run } => {
                let runs = &mut w.racks[*rack].memory.runs;
                if runs.get(machine) == Some(&run) {
                    runs.remove(machine);
                }
            }
            ErrandEffect::Report { .. } => {} // Written with the record.
        }
    }

    fn show(w: &mut World, who: &Who, _: &Verdict, _: Tag) {
        let Who::Errand(rack, machine) = who else { return };
        let Some(errand) = w.racks[*rack].memory.errands.get(machine).map(|hosted| hosted.core.clone()) else { return };
        let event = match errand.under_way() {
            Some(attempt) => AgentEvent::OrderHeld { machine: *machine, attempt },
            None => AgentEvent::OrderOver { machine: *machine, attempt: errand.progress.attempt },
        };
        tell::<Agent>(w, Who::Agent(*rack), event, Tag::Nobody);
    }

    fn said(event: &ErrandEvent) -> (String, String) {
        let said = match event {
            ErrandEvent::Ordered { order } => format!("Ordered {} of attempt {}", order.action.label(), order.attempt),
            other => format!("{other:?}"),
        };
        (said, String::new())
    }
}

impl World {
    /// A driver's run reaches the BMC, unless it was stopped meanwhile.
    pub(super) fn run_bmc(&mut self, rack: usize, machine: SystemId, run: u32, action: PowerAction) {
        if self.racks[rack].memory.runs.get(&machine) != Some(&run) {
            return;
        }
        let Some(index) = self.by_id.get(&machine).copied() else { return };
        let (result, takes) = if self.cuts.has(Way::Bmcs(rack)) {
            (self.metals[index].unanswered(), SILENT)
        } else {
            self.drive(index, action)
        };
        let back = takes + self.weather.stream(&mut self.draw);
        self.for_rack(back, rack, RackEv::Ran { machine, run, result });
    }

    pub(super) fn ran(&mut self, rack: usize, machine: SystemId, run: u32, result: Result<Ran, PowerFault>) {
        let runs = &mut self.racks[rack].memory.runs;
        if runs.get(&machine) == Some(&run) {
            runs.remove(&machine);
            tell::<Errand>(self, Who::Errand(rack, machine), ErrandEvent::Ran { run, result }, Tag::Nobody);
        }
    }
}

impl Kind for SubnetLeases {
    fn of<'w>(w: &'w mut World, who: &Who) -> Option<&'w mut Hosted<Self>> {
        if let Who::Leases(rack, id) = who { w.racks[*rack].memory.leases.get_mut(id) } else { None }
    }

    fn disk(w: &mut World, who: &Who, step: &Pending<Self>) -> Option<Duration> {
        let rows = matches!(who, Who::Leases(..))
            && step.effects.iter().any(|e| matches!(e, LeaseEffect::Keep(_) | LeaseEffect::Copy(_)));
        rows.then(|| w.weather.disk(&mut w.draw))
    }

    fn takes(w: &mut World, who: &Who) -> Takes {
        let refused = matches!(who, Who::Leases(rack, _) if w.refuses(*rack));
        if refused { Takes::Never } else { Takes::Yes }
    }

    fn keep(w: &mut World, who: &Who, step: &Pending<Self>) {
        let Who::Leases(rack, subnet) = who else { return };
        for effect in &step.effects {
            if let LeaseEffect::Keep(row) | LeaseEffect::Copy(row) = effect {
                w.racks[*rack].disk.leases.insert((*subnet, row.lease.ip), row.clone());
            }
        }
    }

    fn perform(w: &mut World, who: &Who, effect: LeaseEffect) {
        let Who::Leases(rack, _) = who else { return };
        match effect {
            LeaseEffect::Keep(row) => {
                let lease = dhcp::reported(row);
                w.racks[*rack].memory.table.put(lease.clone());
                w.a_lease(*rack, &lease);
                if w.racks[*rack].memory.listening {
                    w.say_to_region(*rack, FromRack::Leases(vec![lease]));
                }
            }
            LeaseEffect::Copy(row) => w.racks[*rack].memory.table.put(dhcp::reported(row)),
            LeaseEffect::Answer { to, outcome: Outcome::Probe { ip }, .. } => w.probe(*rack, to, ip),
            LeaseEffect::Answer { to, outcome, .. } => w.dhcp_deliver(*rack, &to, &outcome),
        }
    }

    fn show(w: &mut World, _: &Who, verdict: &Verdict, tag: Tag) {
        match tag {
            Tag::Batch(rack, subnet, flight) => {
                w.landed(rack, flight);
                w.batch_over(rack, subnet);
            }
            Tag::Probed(rack, flight) => w.landed(rack, flight),
            Tag::Copied(rack) => w.copied(rack, !matches!(verdict, Verdict::Ignored { .. })),
            _ => {}
        }
    }

    fn said(event: &LeaseEvent) -> (String, String) {
        let said = match event {
            LeaseEvent::Asked(batch) => {
                let asks = batch.asks.iter().map(|ask| format!("{} {:?}", ask.mac, ask.want));
                format!("Asked {}", asks.collect::<Vec<_>>().join(", "))
            }
            other => format!("{other:?}"),
        };
        (said, String::new())
    }
}
