//! The hands of the region's actors, as `region::perform` has them: steps become rows, effects become orders, tickets and plans.

use std::time::Duration;

use actors::{
    catalogue::{Catalogue, CatalogueEffect, CatalogueEvent},
    core::Verdict,
    machine::{Machine, MachineEffect},
    rack::{Rack, RackEffect, RackEvent},
    subnet::{Subnet, SubnetEffect, SubnetEvent},
};
use schema::{
    id::{RackId, SystemId},
    messages::{
        link::{Order, ToRack},
        machine::MachineEvent,
    },
    projection::Projection,
};

use super::{RegionEv, ways};
use crate::seeds::{
    hosted::{Hosted, Kind, Pending, Tag, Who, tell},
    world::World,
};

/// The kind of a report's fact, out of its JSON: outputs are not in there.
fn label(json: &str) -> String {
    let word = |key: &str| {
        let rest = json.split_once(&format!("\"{key}\":\""))?.1;
        rest.split('"').next().map(str::to_owned)
    };
    let event = word("event").unwrap_or_default();
    match word("fact") {
        Some(fact) => format!("{event} {fact}"),
        None => event,
    }
}

impl Kind for Machine {
    fn of<'w>(w: &'w mut World, who: &Who) -> Option<&'w mut Hosted<Self>> {
        if let Who::Machine(id) = who { w.region.machines.get_mut(id) } else { None }
    }

    fn disk(w: &mut World, _: &Who, _: &Pending<Self>) -> Option<Duration> {
        Some(w.store_takes())
    }

    fn keep(w: &mut World, who: &Who, step: &Pending<Self>) {
        let Who::Machine(id) = who else { return };
        w.machine_moves(step);
        if let MachineEvent::Reported { rack, .. } = &step.event
            && let Some(rack) = w.by_rack.get(rack).copied()
            && let Some(session) = w.region.sessions.get(&rack)
            && session.last_report().0 > 0
        {
            w.region.store.seen.insert(rack, session.last_report());
        }
        let store = &mut w.region.store;
        if let Ok(text) = serde_json::to_string(&*step.after) {
            store.machines.insert(*id, text);
        }
        for effect in &step.effects {
            match effect {
                MachineEffect::Store(Projection::ScriptsChosen { scripts, .. }) => {
                    store.results.extend(scripts.iter().map(|s| (s.result, Default::default())));
                }
                MachineEffect::Store(Projection::ScriptResult { result, status, .. }) => {
                    store.results.insert(*result, *status);
                }
                MachineEffect::Store(Projection::Hardware(_)) => drop(store.hardware.insert(*id)),
                MachineEffect::WithdrawTicket { attempt } => drop(store.keys.remove(&(*id, *attempt))),
                _ => {}
            }
        }
    }

    fn perform(w: &mut World, who: &Who, effect: MachineEffect) {
        let Who::Machine(id) = who else { return };
        match effect {
            MachineEffect::SendOrder { rack, attempt, action, deadline } => {
                let (Some(core), Some(rack)) = (w.machine_core(*id), w.by_rack.get(&rack).copied()) else { return };
                let access = ways::access(&core.spec.power);
                let hostname = core.spec.hostname.clone();
                let order = Order { machine: *id, attempt, hostname, action, access, deadline };
                w.say_to_rack(rack, ToRack::Order(order));
            }
            MachineEffect::CancelOrder { rack, attempt } => {
                if let Some(rack) = w.by_rack.get(&rack).copied() {
                    w.say_to_rack(rack, ToRack::CancelOrder { machine: *id, attempt });
                }
            }
            MachineEffect::PublishTicket { attempt, racks, expires } => {
                let Some(machine) = w.machine_core(*id).map(Box::new) else { return };
                let wait = w.store_takes();
                w.for_region(wait, RegionEv::Publish { machine, attempt, racks, expires });
            }
            MachineEffect::WithdrawTicket { attempt } => {
                w.region.tickets.withdraw(*id, attempt);
                w.mark(*id);
            }
            MachineEffect::Store(_) => {} // It went with the record.
        }
    }

    fn show(w: &mut World, who: &Who, verdict: &Verdict, tag: Tag) {
        let Who::Machine(id) = who else { return };
        let Some(core) = w.region.machines.get(id).map(|hosted| hosted.core.clone()) else { return };
        if w.region.tickets.note(&core) {
            w.mark(*id);
        }
        w.region.turns.note(&core);
        w.look_for_turns();
        if let (Verdict::Refused { why, remedy }, Some(index)) = (verdict, w.by_id.get(id)) {
            w.metals[*index].refused = Some(format!("{why}. Remedy: {remedy}"));
        }
        w.machine_stands(*id);
        if let Tag::Report(rack, seq) = tag {
            w.report_durable(rack, seq);
        }
    }

    fn said(event: &MachineEvent) -> (String, String) {
        let json = serde_json::to_string(event).unwrap_or_default();
        (label(&json), json)
    }
}

impl Kind for Rack {
    fn of<'w>(w: &'w mut World, who: &Who) -> Option<&'w mut Hosted<Self>> {
        if let Who::Rack(id) = who { w.region.racks.get_mut(id) } else { None }
    }

    fn disk(w: &mut World, _: &Who, _: &Pending<Self>) -> Option<Duration> {
        Some(w.store_takes())
    }

    fn keep(w: &mut World, who: &Who, step: &Pending<Self>) {
        if let (Who::Rack(id), Ok(text)) = (who, serde_json::to_string(&*step.after)) {
            w.region.store.racks.insert(*id, text);
        }
    }

    fn perform(w: &mut World, who: &Who, effect: RackEffect) {
        let Who::Rack(id) = who else { return };
        let Some(rack) = w.by_rack.get(id).copied() else { return };
        match effect {
            RackEffect::SendPlan => {
                if let Some(conn) = w.region.conns.get_mut(&rack) {
                    conn.whole = true;
                }
                w.gather_soon(rack);
            }
            RackEffect::HealthChanged => {
                w.mark_sections();
                w.ways_changed();
            }
            RackEffect::TellMachines { up } => w.tell_machines(*id, &MachineEvent::RackLink { rack: *id, up }),
            RackEffect::TellBegan => w.tell_machines(*id, &MachineEvent::RackBegan { rack: *id }),
            RackEffect::TellAilment => {
                let ailment = w.region.racks.get(id).and_then(|hosted| hosted.core.ailment());
                w.tell_machines(*id, &MachineEvent::RackAils { rack: *id, ailment });
            }
        }
    }

    fn show(w: &mut World, _: &Who, _: &Verdict, tag: Tag) {
        if let Tag::Plan(rack) = tag {
            w.plan_wanted(rack);
        }
    }

    fn said(event: &RackEvent) -> (String, String) {
        let json = serde_json::to_string(event).unwrap_or_default();
        (label(&json), json)
    }
}

impl World {
    /// As `App::tell_machines`: the machines whose work that rack has a part in.
    fn tell_machines(&mut self, rack: RackId, event: &MachineEvent) {
        let machines = self.region.machines.iter();
        let concerned: Vec<SystemId> = machines.filter(|(_, m)| m.core.counts_on(rack)).map(|(id, _)| *id).collect();
        for machine in concerned {
            tell::<Machine>(self, Who::Machine(machine), event.clone(), Tag::Nobody);
        }
    }
}

impl Kind for Subnet {
    fn of<'w>(w: &'w mut World, who: &Who) -> Option<&'w mut Hosted<Self>> {
        if let Who::Subnet(id) = who { w.region.subnets.get_mut(id) } else { None }
    }

    fn disk(w: &mut World, _: &Who, _: &Pending<Self>) -> Option<Duration> {
        Some(w.store_takes())
    }

    fn keep(w: &mut World, who: &Who, step: &Pending<Self>) {
        let Who::Subnet(id) = who else { return };
        if let Ok(text) = serde_json::to_string(&*step.after) {
            w.region.store.subnets.insert(*id, text);
        }
        for effect in &step.effects {
            if let SubnetEffect::StoreLease(lease) = effect {
                w.region.store.leases.insert((*id, lease.ip), lease.clone());
            }
        }
    }

    /// Rows went with the record.
    fn perform(w: &mut World, who: &Who, effect: SubnetEffect) {
        if let (Who::Subnet(id), SubnetEffect::Copy { leases, from }) = (who, effect) {
            w.copy_leases(*id, &leases, from);
        }
    }

    fn show(w: &mut World, _: &Who, _: &Verdict, tag: Tag) {
        if let Tag::Leases(rack, link) = tag {
            w.leases_kept(rack, link);
        }
    }

    fn said(event: &SubnetEvent) -> (String, String) {
        let json = serde_json::to_string(event).unwrap_or_default();
        (label(&json), json)
    }
}

impl Kind for Catalogue {
    fn of<'w>(w: &'w mut World, who: &Who) -> Option<&'w mut Hosted<Self>> {
        if *who == Who::Catalogue { w.region.catalogue.as_mut() } else { None }
    }

    fn disk(w: &mut World, _: &Who, _: &Pending<Self>) -> Option<Duration> {
        Some(w.store_takes())
    }

    fn keep(w: &mut World, _: &Who, step: &Pending<Self>) {
        w.region.store.catalogue = serde_json::to_string(&*step.after).ok();
    }

    fn perform(w: &mut World, _: &Who, effect: CatalogueEffect) {
        match effect {
            CatalogueEffect::PlansChanged => w.mark_sections(),
            CatalogueEffect::CloseLink { rack } => {
                if let Some(rack) = w.by_rack.get(&rack).copied() {
                    w.end_link(rack, actors::rack::REVOKED);
                }
            }
        }
    }

    fn said(event: &CatalogueEvent) -> (String, String) {
        let json = serde_json::to_string(event).unwrap_or_default();
        (label(&json), json)
    }
}
