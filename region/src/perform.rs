//! The hands of the region's actors: steps become rows, effects become orders, tickets and plans. Decides nothing.

use actors::{
    catalogue::{Catalogue, CatalogueEffect},
    clock,
    core::{Core, Moved, RecordError, TraceId, Verdict},
    machine::{Life, Machine, MachineEffect},
    rack::{Rack, RackEffect},
    shell::{ActorRef, LocalBoxFuture, Perform, Source},
    subnet::{Subnet, SubnetEffect},
};
use schema::{
    id::AttemptId,
    messages::{link::ToRack, machine::MachineEvent},
    projection::Projection,
    time::Timestamp,
    wait::Wait,
};
use serde::Serialize;
use tracing::{Instrument, error};

use crate::{
    app::App,
    links::ToDo,
    plans,
    store::{Change, Write},
};

/// The hands. One value serves actors of every kind.
#[derive(Clone)]
pub struct Hands(pub App);

/// The name of an attempt's node key among the machine's sealed secrets.
pub(crate) fn node_key(attempt: AttemptId) -> String {
    format!("node_key/{attempt}/")
}

/// What stands before the names of a machine's sealed power parameters.
pub(crate) const POWER: &str = "power/";

impl Hands {
    fn keep<C>(&self, moved: &Moved<C>, wait: Option<&Wait>, projections: Vec<Change>) -> Kept
    where
        C: Core<Event: Serialize> + Serialize,
    {
        let write = write(moved, wait, projections);
        let store = self.0.store.clone();
        Box::pin(async move { Ok(store.commit(write?).await?) })
    }

    /// Runs `work` where it may wait, within the present trace and as the present actor.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(Source::present().scope(work.in_current_span()));
    }
}

type Kept = LocalBoxFuture<'static, Result<(), RecordError>>;

/// A step as the store takes it.
fn write<C>(moved: &Moved<C>, wait: Option<&Wait>, projections: Vec<Change>) -> Result<Write, RecordError>
where
    C: Core<Event: Serialize> + Serialize,
{
    let unwritable = |e: serde_json::Error| RecordError::Unavailable(format!("a step cannot be written as JSON: {e}"));
    let verdict = wait.map_or(Verdict::Moved, |wait| Verdict::Waiting(wait.clone()));
    Ok(Write {
        kind: C::KIND,
        id: moved.id.to_string(),
        generation: moved.generation,
        state: serde_json::to_string(&*moved.after).map_err(unwritable)?,
        event: serde_json::to_string(&moved.event).map_err(unwritable)?,
        verdict: serde_json::to_string(&verdict).map_err(unwritable)?,
        trace: moved.trace,
        at: moved.at,
        deadline: wait.map(|wait| wait.deadline),
        projections,
    })
}

impl Perform<Machine> for Hands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn record(&self, moved: Moved<Machine>) -> Kept {
        let id = moved.id;
        let mut projections = vec![match moved.after.life {
            Life::Deleted => Change::MachineDeleted(id),
            Life::Absent | Life::Present => Change::Machine(Box::new(Machine::clone(&moved.after))),
        }];
        projections.extend(moved.effects.iter().filter_map(|effect| match effect {
            MachineEffect::Store(projection) => Some(Change::Of(id, projection.clone())),
            MachineEffect::WithdrawTicket { attempt } => {
                Some(Change::SecretsGone { owner: id.to_string(), prefix: node_key(*attempt) })
            }
            _ => None,
        }));
        if let MachineEvent::Reported { rack, .. } = &moved.event {
            // Not this report's own number: one that came before it may not be durable yet.
            projections.extend(self.0.links.seen(*rack).map(|seq| Change::ReportSeen { rack: *rack, seq }));
        }
        self.keep(&moved, moved.after.wait.as_ref(), projections)
    }

    fn perform(&self, me: &ActorRef<Machine>, effect: MachineEffect, trace: TraceId) {
        let machine = *me.id();
        match effect {
            MachineEffect::SendOrder { rack, attempt, action, deadline } => {
                let todo = ToDo::Order { state: me.snapshot(), attempt, action, deadline };
                self.0.links.queue(rack, todo, trace);
            }
            MachineEffect::CancelOrder { rack, attempt } => {
                self.0.links.queue(rack, ToDo::Say(Box::new(ToRack::CancelOrder { machine, attempt })), trace);
            }
            MachineEffect::PublishTicket { attempt, racks, expires } => {
                let (app, state) = (self.0.clone(), me.snapshot());
                let publishing = app.publishing.begin();
                self.spawn(async move {
                    app.publish(&state, attempt, racks, expires).await;
                    drop(publishing);
                });
            }
            MachineEffect::WithdrawTicket { attempt } => {
                self.0.tickets.withdraw(machine, attempt);
                self.0.mark(machine);
            }
            // It went with the record; interfaces have names in DNS.
            MachineEffect::Store(Projection::Hardware(report)) => self.0.names.hardware(machine, &report.interfaces),
            MachineEffect::Store(_) => {}
        }
    }

    fn show(&self, me: &ActorRef<Machine>, verdict: &Verdict) {
        let state = me.snapshot();
        if self.0.tickets.note(&state) {
            // It may be on another VLAN than before.
            self.0.links.mark(*me.id(), None);
            let spec = Some(&state.spec).filter(|_| state.life == Life::Present);
            self.0.names.change(|composer| composer.machine(*me.id(), spec));
            self.0.ways.changed.send_replace(());
        }
        self.0.turns.note(&state);
        if matches!(verdict, Verdict::Moved | Verdict::Waiting(_)) {
            self.0.census.note(&state, true);
        }
        self.0.changed.send(*me.id()).ok(); // Nobody may be watching.
    }

    fn stale(&self, me: &ActorRef<Machine>, event: MachineEvent, trace: TraceId) {
        let (app, id) = (self.0.clone(), *me.id());
        self.spawn(async move {
            match app.machine(id).await {
                Ok(actor) => drop(actor.ask(event, trace).await),
                Err(error) => error!(machine = %id, %error, "an event of a stale actor is lost"),
            }
        });
    }
}

impl Perform<Rack> for Hands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn record(&self, moved: Moved<Rack>) -> Kept {
        self.keep(&moved, moved.after.wait.as_ref(), Vec::new())
    }

    fn perform(&self, me: &ActorRef<Rack>, effect: RackEffect, trace: TraceId) {
        let rack = *me.id();
        match effect {
            RackEffect::SendPlan => self.0.links.send_whole(rack),
            RackEffect::HealthChanged => {
                self.0.links.mark_sections();
                self.0.racks_changed();
                self.0.health_changed.send_replace(());
                self.0.ways.changed.send_replace(());
            }
            RackEffect::TellMachines { up } => {
                let app = self.0.clone();
                self.spawn(async move { app.tell_machines(rack, &MachineEvent::RackLink { rack, up }, trace).await });
            }
            RackEffect::TellBegan => {
                let app = self.0.clone();
                self.spawn(async move { app.tell_machines(rack, &MachineEvent::RackBegan { rack }, trace).await });
            }
            RackEffect::TellAilment => {
                let (app, ailment) = (self.0.clone(), me.snapshot().ailment());
                let event = MachineEvent::RackAils { rack, ailment };
                self.spawn(async move { app.tell_machines(rack, &event, trace).await });
            }
        }
    }

    fn stale(&self, me: &ActorRef<Rack>, event: actors::rack::RackEvent, trace: TraceId) {
        let (app, id) = (self.0.clone(), *me.id());
        self.spawn(async move {
            if let Ok(actor) = app.rack(id).await {
                actor.ask(event, trace).await.ok(); // The next word of the rack says it again.
            }
        });
    }
}

impl Perform<Subnet> for Hands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn record(&self, moved: Moved<Subnet>) -> Kept {
        let row = |effect: &SubnetEffect| match effect {
            SubnetEffect::StoreLease(lease) => Some(Change::Lease(lease.clone())),
            SubnetEffect::Copy { .. } => None,
        };
        let rows = moved.effects.iter().filter_map(row).collect();
        self.keep(&moved, None, rows)
    }

    fn perform(&self, me: &ActorRef<Subnet>, effect: SubnetEffect, trace: TraceId) {
        match effect {
            // The row went with the record.
            SubnetEffect::StoreLease(lease) => self.0.names.change(|composer| composer.leases([lease], clock::now())),
            SubnetEffect::Copy { leases, from } => {
                let mut racks = plans::serving_racks(&self.0.catalogue_content(), *me.id());
                racks.retain(|rack| Some(*rack) != from);
                leases.chunks(512).for_each(|part| self.0.links.copy(&racks, part, trace));
            }
        }
    }
}

impl Perform<Catalogue> for Hands {
    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn record(&self, moved: Moved<Catalogue>) -> Kept {
        self.keep(&moved, None, Vec::new())
    }

    fn perform(&self, me: &ActorRef<Catalogue>, effect: CatalogueEffect, trace: TraceId) {
        // Plans are composed from what is published here, so it comes before the word that they changed.
        self.0.catalogue.publish(&me.snapshot());
        match effect {
            CatalogueEffect::PlansChanged => {
                self.0.links.mark_sections();
                let content = self.0.catalogue_content();
                self.0.names.change(|composer| composer.catalogue(content));
                self.0.racks_changed(); // One may have been drained.
                self.0.health_changed.send_replace(());
                self.0.ways.changed.send_replace(());
                let app = self.0.clone();
                self.spawn(async move { app.size_subnets(trace).await });
            }
            CatalogueEffect::CloseLink { rack } => self.0.links.close(rack, actors::rack::REVOKED),
        }
    }

    fn show(&self, me: &ActorRef<Catalogue>, verdict: &Verdict) {
        if matches!(verdict, Verdict::Moved) {
            self.0.catalogue.publish(&me.snapshot());
        }
    }
}
