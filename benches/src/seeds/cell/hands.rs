//! The hands of a rack's actors, as `rack::agent`, `rack::deputies` and the DHCP thread have them.

use std::time::Duration;

use actors::{
    agent::{Agent, AgentEffect, AgentEvent},
    core::Verdict,
    errand::{Errand, ErrandEffect, ErrandEvent},
    leases::{LeaseEffect, LeaseEvent, Outcome, SubnetLeases},
};
use schema::messages::link::FromRack;

use super::{Fresh, dhcp, power::Whose};
use crate::seeds::{
    hosted::{Hosted, Kind, Pending, Tag, Takes, Who, tell},
    world::World,
};

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
        if let Who::Errand(rack, _) = who { Some(w.rack_write(*rack)) } else { None }
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
            ErrandEffect::RunPower { run, action, access } => {
                w.laws.a_run_has_a_cause(&w.racks[*rack].disk.errands, *machine, run);
                w.drive(*rack, *machine, Whose::Errand(run), action, &access);
            }
            ErrandEffect::StopPower { run } => w.stop_run(*rack, *machine, run),
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

impl Kind for SubnetLeases {
    fn of<'w>(w: &'w mut World, who: &Who) -> Option<&'w mut Hosted<Self>> {
        if let Who::Leases(rack, id) = who { w.racks[*rack].memory.leases.get_mut(id) } else { None }
    }

    fn disk(w: &mut World, who: &Who, step: &Pending<Self>) -> Option<Duration> {
        let Who::Leases(rack, _) = who else { return None };
        let rows = step.effects.iter().any(|e| matches!(e, LeaseEffect::Keep(_) | LeaseEffect::Copy(_)));
        rows.then(|| w.rack_write(*rack))
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
