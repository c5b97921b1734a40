//! POST `/inspect/v1/actors/NODE/KIND/ID/{restart|drain|resume}`: what may be done to an actor, where `inspect.control` admits it.
//! It does what the shell's supervision does anyway, and nothing beside it; what makes no sense for an actor is refused with what does.

use std::time::Duration;

use actors::{
    catalogue::Catalogue,
    clock,
    core::Core,
    machine::Machine,
    rack::Rack,
    shell::{ActorRef, Probe, inspect::Current},
    subnet::Subnet,
};
use schema::{
    catalogue::{CatalogueItem, RackEntry},
    id::{RackId, SubnetId},
};
use serde_json::{Value, json};
use tracing::info;

use super::{asked, asked::short, looked_inside, one::path};
use crate::{
    api::{
        call::{Own, OwnAnswer, json},
        fault::Fault,
        house::House,
    },
    app::{App, Missing},
    inspect::REGION,
};

/// What may be done.
const VERBS: [&str; 3] = ["restart", "drain", "resume"];
/// How long an actor may take for it.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(10);

/// Does it.
pub(super) async fn control(Own(call): Own) -> OwnAnswer {
    let by = looked_inside(&call)?.username.clone();
    let text = call.part("path");
    let (actor, verb) = text.trim_end_matches('/').rsplit_once('/').unwrap_or((text, ""));
    let none = || {
        let verbs = VERBS.join(", ");
        Fault::NotFound(format!(
            "\"{}\" is nothing that can be done to an actor; POST to its path and one of {verbs}.",
            short(verb)
        ))
    };
    let verb = VERBS.into_iter().find(|known| *known == verb).ok_or_else(none)?;
    asked(&call, &[]).done()?;
    let wrong = || Fault::Bad(format!("\"{}\" is no actor's path; write NODE/KIND/ID before /{verb}.", short(actor)));
    let at = path(actor).filter(|at| at.part.is_none()).ok_or_else(wrong)?;
    let named = format!("{}/{}/{}", at.node, at.kind, at.id);
    super::one::whole(&call.house.app, (at.node, at.kind, at.id)).await?;
    if !call.house.app.config.inspect_control {
        info!(target: "audit", user = by, actor = named, verb, "refused to touch an actor: inspect.control is off");
        return Err(Fault::Off {
            why: format!("This region lets nobody {verb} actors."),
            remedy:
                "Set inspect.control = true in region.toml (or HOSTLER_INSPECT_CONTROL=true) and start the region anew."
                    .into(),
        }
        .into());
    }
    if at.node != REGION {
        return Err(of_rack(at.node, at.kind, verb).into());
    }
    let done = match verb {
        "restart" => restart(&call.house.app, at.kind, at.id).await,
        "drain" => drain(&call.house, &by, at.kind, at.id).await,
        _ => resume(&call.house, &by, at.kind, at.id).await,
    };
    let outcome = done.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
    info!(target: "audit", user = by, actor = named, verb, outcome, "touches an actor");
    let mut shown = done?;
    shown["path"] = named.into();
    shown["done"] = verb.into();
    shown["at"] = clock::now().to_string().into();
    Ok(json(&shown))
}

/// A rack supervises its own actors: the region may let it rest, and no more.
fn of_rack(rack: &str, kind: &str, verb: &str) -> Fault {
    let why = format!("A rack supervises its actors by itself; the region does not {verb} its {}.", short(kind));
    let remedy = match verb {
        "restart" => {
            "A service that died starts again by itself; restart the rack's process for all of its actors.".into()
        }
        _ => format!("{verb} region/rack/{rack}, which is the rack as a whole."),
    };
    Fault::conflict(why, remedy)
}

/// Ends the actor between two messages and loads it anew from the store. What waited in its mailbox is handed to the new one.
async fn restart(app: &App, kind: &str, id: &str) -> Result<Value, Fault> {
    let probe = app.registry.get(kind, id).ok_or_else(|| ended(kind, id))?;
    not_blocked(&probe)?;
    match kind {
        Machine::KIND => {
            let id = id.parse().map_err(|_| ended(kind, id))?;
            let old = app.awake_machine(id).ok_or_else(|| ended(kind, id.as_str()))?;
            if old.generation().0 == 0 {
                // Nothing could be loaded: its first step is on its way.
                return Err(Fault::conflict(format!("{old} is not in the store yet."), "Try again in a moment."));
            }
            retired(&old).await?;
            anew(&app.machine(id).await)
        }
        Rack::KIND => {
            let id: RackId = id.parse().map_err(|_| ended(kind, id))?;
            retired(&app.rack(id).await.map_err(|why| lost(&why))?).await?;
            anew(&app.rack(id).await)
        }
        Subnet::KIND => {
            let id = SubnetId(id.parse().map_err(|_| ended(kind, id))?);
            retired(&app.subnet(id).await.map_err(|why| lost(&why))?).await?;
            anew(&app.subnet(id).await)
        }
        Catalogue::KIND => {
            retired(&*app.catalogue_actor().ok_or_else(|| ended(kind, id))?).await?;
            app.reload_catalogue().await.map_err(|why| lost(&why))?;
            Ok(json!({ "state": app.catalogue_actor().map(|actor| actor.view().state.clone()) }))
        }
        _ => Err(no_actor_of_ours(kind)),
    }
}

async fn retired<C: Core>(actor: &ActorRef<C>) -> Result<(), Fault> {
    actor.retire();
    let began = clock::tick();
    while !actor.is_gone() {
        if began.elapsed() >= PATIENCE {
            let held = actor.probe().held().map_or_else(|| "it is at a message still".to_owned(), |why| (*why).clone());
            let why = format!("{actor} did not end within {} s: {held}.", PATIENCE.as_secs());
            return Err(Fault::unavailable(why, "It ends, and is loaded anew, as soon as it can; look at its page."));
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

fn anew<C: Core>(actor: &Result<ActorRef<C>, Missing>) -> Result<Value, Fault> {
    match actor {
        Ok(actor) => Ok(json!({ "state": actor.view().state, "generation": actor.generation().0 })),
        Err(why) => Err(lost(why)),
    }
}

/// No new work; what it has goes on.
async fn drain(house: &House, by: &str, kind: &str, id: &str) -> Result<Value, Fault> {
    if kind != Rack::KIND {
        let why = format!("A {} is not drained: it does only what is asked of it.", short(kind));
        return Err(Fault::conflict(why, "Drain a rack (region/rack/ID), which then gets no new work."));
    }
    let entry = entry(house, id)?;
    let since = entry.drained.unwrap_or_else(clock::now);
    house.put(by, vec![CatalogueItem::Rack(RackEntry { drained: Some(since), ..entry })]).await?;
    Ok(json!({ "drained": since.to_string() }))
}

/// A drained rack gets work again; a quarantined actor decides again.
async fn resume(house: &House, by: &str, kind: &str, id: &str) -> Result<Value, Fault> {
    let probe = house.app.registry.get(kind, id).ok_or_else(|| ended(kind, id))?;
    let drained =
        if kind == Rack::KIND { Some(entry(house, id)?).filter(|entry| entry.drained.is_some()) } else { None };
    if drained.is_none() && probe.quarantine().is_none() {
        let why = format!("{kind} {id} is neither drained nor quarantined.");
        return Err(Fault::conflict(why, "There is nothing to resume; see its page for what it waits for."));
    }
    if probe.quarantine().is_some() {
        not_blocked(&probe)?;
        released(&house.app, kind, id).await?;
        let began = clock::tick();
        while probe.quarantine().is_some() {
            if began.elapsed() >= PATIENCE {
                let why = format!("{kind} {id} is still quarantined after {} s.", PATIENCE.as_secs());
                return Err(Fault::unavailable(why, "It is released once it has refused what waits in its mailbox."));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
    let undrained = drained.is_some();
    if let Some(entry) = drained {
        house.put(by, vec![CatalogueItem::Rack(RackEntry { drained: None, ..entry })]).await?;
    }
    Ok(json!({ "undrained": undrained }))
}

async fn released(app: &App, kind: &str, id: &str) -> Result<(), Fault> {
    match kind {
        Machine::KIND => {
            let id = id.parse().map_err(|_| ended(kind, id))?;
            app.awake_machine(id).ok_or_else(|| ended(kind, id.as_str()))?.release();
        }
        Rack::KIND => {
            let id: RackId = id.parse().map_err(|_| ended(kind, id))?;
            app.rack(id).await.map_err(|why| lost(&why))?.release();
        }
        Subnet::KIND => {
            let id = SubnetId(id.parse().map_err(|_| ended(kind, id))?);
            app.subnet(id).await.map_err(|why| lost(&why))?.release();
        }
        Catalogue::KIND => app.catalogue_actor().ok_or_else(|| ended(kind, id))?.release(),
        _ => return Err(no_actor_of_ours(kind)),
    }
    Ok(())
}

/// A message cannot reach an actor that is at one without an end.
fn not_blocked(probe: &Probe) -> Result<(), Fault> {
    if probe.status() != "blocked" {
        return Ok(());
    }
    let event = probe.current().map_or_else(String::new, |Current { event, .. }| format!(" on {event}"));
    let why = format!("{} {} is blocked: it has been deciding{event} for a second or more.", probe.kind(), probe.id());
    Err(Fault::conflict(why, "Report it as a defect with its page; if it does not end, restart the region."))
}

fn entry(house: &House, id: &str) -> Result<RackEntry, Fault> {
    let entry = id.parse::<RackId>().ok().and_then(|id| house.catalogue().racks.get(&id).cloned());
    entry.ok_or_else(|| Fault::NotFound(format!("No rack {} is enrolled; see `hostler rack list`.", short(id))))
}

fn ended(kind: &str, id: &str) -> Fault {
    Fault::NotFound(format!("{} {} has just ended; it is loaded anew at its next use.", short(kind), short(id)))
}

fn lost(why: &Missing) -> Fault {
    Fault::unavailable(
        format!("The actor has ended and could not be loaded anew: {why}."),
        "It is loaded at its next use; see to the store.",
    )
}

fn no_actor_of_ours(kind: &str) -> Fault {
    let why = format!("Actors of the kind {} come and go with what they belong to.", short(kind));
    Fault::conflict(why, "Restart a machine, a rack, a subnet or the catalogue.")
}
