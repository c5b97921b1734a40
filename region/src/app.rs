//! The region as one value: store, actors, bodies, links. `start` wires them; API and link use them.

use std::{collections::BTreeMap, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use actors::{
    catalogue::{Catalogue, CatalogueEvent},
    clock,
    core::{Core, TraceId, Verdict},
    link::{
        LinkError,
        ca::{Ca, CaError},
        enrol::Token,
    },
    machine::Machine,
    rack::{Duty, Rack},
    shell::{ActorRef, ArbiterHandle, AskError, Registry, spawn},
    subnet::Subnet,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use schema::{
    boot::BodyRef,
    catalogue::{Catalogue as Content, EnrolmentToken},
    id::{Generation, RackId, SubnetId, SystemId},
    messages::{
        link::Hello,
        machine::{Ailment, Brief, CommissionOptions, MachineChanges, MachineEvent, MachineSpec},
    },
    secret::Secret,
};
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, broadcast, watch};

use crate::{
    bodies::{Bodies, BodyError},
    briefs,
    census::Census,
    config::Config,
    directory::Directory,
    dns::{self, Names},
    inspect::Inspector,
    links::Links,
    logs::Logs,
    metrics::Requests,
    perform::{Hands, POWER},
    seal::{Seal, SealError},
    sessions::Sessions,
    store::{Change, Store, StoreError, ids, queries},
    sweeps::Ways,
    tickets::Tickets,
    turns::Turns,
};

mod publish;
pub(crate) mod scripts;
mod start;

pub use start::{Running, start};

/// The region. Cloned freely.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// What it holds.
pub struct Inner {
    pub config: Config,
    pub store: Store,
    pub seal: Seal,
    pub bodies: Bodies,
    pub registry: Registry,
    pub catalogue: CatalogueDoor,
    pub links: Links,
    pub logs: Logs,
    pub names: Names,
    /// The machines that changed, for whoever watches. A slow watcher misses some and reads anew.
    pub changed: broadcast::Sender<SystemId>,
    /// Where every machine stands, counted.
    pub census: Census,
    /// What looking at actors needs.
    pub inspector: Inspector,
    /// How long the API took.
    pub requests: Requests,
    /// Logins of browsers.
    pub sessions: Sessions,
    /// How many commissionings are under way at once.
    pub turns: Turns,
    /// A rack's health may be another: see [`App::health_changes`].
    pub(crate) health_changed: watch::Sender<()>,
    pub(crate) tickets: Tickets,
    pub(crate) ways: Ways,
    pub(crate) machines: Directory<Machine>,
    pub(crate) racks: Directory<Rack>,
    pub(crate) subnets: Directory<Subnet>,
    pub(crate) arbiter: ArbiterHandle,
    pub(crate) runtime: tokio::runtime::Handle,
    /// The runner that every machine gets as its user-data.
    pub(crate) user_data: BodyRef,
    pub(crate) publishing: Pending,
    pub(crate) ca: Ca,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Why the region does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Bodies(#[from] BodyError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Dns(#[from] dns::server::StartError),
    #[error("the actors' thread did not start: {0}; check the limit of threads")]
    Thread(std::io::Error),
    #[error("{database} holds no region; make one with `hostler init`")]
    Empty { database: String },
    #[error(transparent)]
    Actor(#[from] Missing),
}

/// Why there is no actor, or no answer from it.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error("there is no {kind} {id}; list them with `hostler {kind} list`")]
    NotThere { kind: &'static str, id: String },
    #[error(
        "the stored state of {kind} {id} cannot be read: {why}; restore it from a backup, or report it as a defect"
    )]
    Unreadable { kind: &'static str, id: String, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// The way to the catalogue: its present actor, and its content.
#[derive(Default)]
pub struct CatalogueDoor {
    actor: ArcSwapOption<ActorRef<Catalogue>>,
    content: ArcSwap<Content>,
    loading: Mutex<()>,
}

impl CatalogueDoor {
    pub(crate) fn publish(&self, catalogue: &Catalogue) {
        self.content.store(Arc::new(catalogue.content.clone()));
    }
}

/// Counts work under way that the start waits for.
pub(crate) struct Pending(watch::Sender<usize>);

pub(crate) struct PendingOne(watch::Sender<usize>);

impl Pending {
    pub(crate) fn begin(&self) -> PendingOne {
        self.0.send_modify(|n| *n += 1);
        PendingOne(self.0.clone())
    }

    /// Until none is under way.
    pub(crate) async fn none(&self) {
        self.0.subscribe().wait_for(|n| *n == 0).await.ok(); // The sender lives as long as this.
    }
}

impl Drop for PendingOne {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// A new trace: of an API call, of a start.
#[must_use]
pub fn new_trace() -> TraceId {
    TraceId(rand::random())
}

impl App {
    /// The catalogue as it is now.
    #[must_use]
    pub fn catalogue_content(&self) -> Arc<Content> {
        self.catalogue.content.load_full()
    }

    /// The catalogue's present actor.
    pub(crate) fn catalogue_actor(&self) -> Option<Arc<ActorRef<Catalogue>>> {
        self.catalogue.actor.load_full()
    }

    /// A machine's actor, if it is awake.
    pub(crate) fn awake_machine(&self, id: SystemId) -> Option<ActorRef<Machine>> {
        self.machines.awake(&id)
    }

    /// Asks the catalogue; an actor that another process overtook is loaded anew first.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn change_catalogue(&self, event: CatalogueEvent, trace: TraceId) -> Result<Verdict, Missing> {
        loop {
            let Some(actor) = self.catalogue.actor.load_full() else {
                self.reload_catalogue().await?;
                continue;
            };
            match actor.ask(event.clone(), trace).await {
                Err(AskError::Gone { .. }) => self.reload_catalogue().await?,
                verdict => return Ok(verdict?),
            }
        }
    }

    /// Takes the catalogue from the store if it is not here, or another process wrote it.
    pub(crate) async fn reload_catalogue(&self) -> Result<(), Missing> {
        let _one = self.catalogue.loading.lock().await;
        let present = self.catalogue.actor.load_full();
        let Some((catalogue, generation)) = load::<Catalogue>(&self.store, "catalogue").await? else {
            return Err(Missing::NotThere { kind: Catalogue::KIND, id: "catalogue".into() });
        };
        if present.as_ref().is_none_or(|a| a.is_gone() || generation > a.generation()) {
            if let Some(old) = present {
                old.retire();
            }
            self.catalogue.publish(&catalogue);
            let anew = spawn(&self.arbiter, catalogue, generation, Hands(self.clone()), &self.registry, true);
            self.catalogue.actor.store(Some(Arc::new(anew)));
        }
        Ok(())
    }

    /// A machine's actor, woken from the store if it sleeps.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn machine(&self, id: SystemId) -> Result<ActorRef<Machine>, Missing> {
        let wake = || async {
            let stored = load::<Machine>(&self.store, id.as_str()).await?;
            let Some((machine, generation)) = stored else {
                return Err(Missing::NotThere { kind: Machine::KIND, id: id.to_string() });
            };
            // Before a restart it may have waited for its turn. Nothing else happens to such a machine that would tell of it.
            self.turns.note(&machine);
            Ok(spawn(&self.arbiter, machine, generation, Hands(self.clone()), &self.registry, true))
        };
        self.machines.get(&id, wake).await
    }

    /// A rack's actor.
    ///
    /// # Errors
    /// [`Missing`]: the rack is not enrolled, or the store does not answer.
    pub async fn rack(&self, id: RackId) -> Result<ActorRef<Rack>, Missing> {
        let wake = || async {
            let stored = load::<Rack>(&self.store, id.as_str()).await?;
            let enrolled = self.catalogue_content().racks.contains_key(&id);
            let fresh = enrolled.then(|| (Rack::enrolled(id, clock::now()), Generation(0)));
            let Some((rack, generation)) = stored.or(fresh) else {
                return Err(Missing::NotThere { kind: Rack::KIND, id: id.to_string() });
            };
            Ok(spawn(&self.arbiter, rack, generation, Hands(self.clone()), &self.registry, true))
        };
        self.racks.get(&id, wake).await
    }

    /// A subnet's actor, with its leases.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn subnet(&self, id: SubnetId) -> Result<ActorRef<Subnet>, Missing> {
        let wake = || async {
            let stored = load::<Subnet>(&self.store, &id.to_string()).await?;
            let known = self.catalogue_content().subnets.contains_key(&id);
            let fresh = known.then(|| (Subnet::empty(id), Generation(0)));
            let Some((subnet, generation)) = stored.or(fresh) else {
                return Err(Missing::NotThere { kind: Subnet::KIND, id: id.to_string() });
            };
            let running = queries::LeaseFilter { subnet: Some(id), at: Some(clock::now()), ..Default::default() };
            let leases = self.store.read(move |db| queries::leases(db, &running)).await?;
            let subnet = subnet.with_leases(leases);
            Ok(spawn(&self.arbiter, subnet, generation, Hands(self.clone()), &self.registry, true))
        };
        self.subnets.get(&id, wake).await
    }

    /// Makes a machine. Its secrets are sealed first, and destroyed again when it is refused.
    ///
    /// # Errors
    /// [`Missing`]: no answer.
    pub async fn create_machine(
        &self,
        by: &str,
        mut spec: MachineSpec,
        secrets: BTreeMap<String, Secret<String>>,
    ) -> Result<Verdict, Missing> {
        let id = spec.system_id;
        spec.power.secret_fields = secrets.keys().cloned().collect();
        let fresh = || async {
            let machine = Machine::absent(id);
            Ok::<_, Missing>(spawn(&self.arbiter, machine, Generation(0), Hands(self.clone()), &self.registry, false))
        };
        let actor = self.machines.get(&id, fresh).await?;
        self.keep_power_secrets(id, &secrets).await?;
        let created = actor.ask(MachineEvent::Created { by: by.to_owned(), spec }, new_trace()).await;
        if actor.generation() == Generation(0) {
            actor.retire();
            self.seal.destroy(id.as_str(), POWER).await?;
        }
        Ok(created?)
    }

    /// Changes a machine; given secrets replace those of the same name.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn update_machine(
        &self,
        id: SystemId,
        by: &str,
        mut changes: MachineChanges,
        secrets: BTreeMap<String, Secret<String>>,
    ) -> Result<Verdict, Missing> {
        let actor = self.machine(id).await?;
        if !secrets.is_empty() {
            self.keep_power_secrets(id, &secrets).await?;
            let power = changes.power.get_or_insert_with(|| actor.snapshot().spec.power.clone());
            power.secret_fields.extend(secrets.keys().cloned());
            power.secret_fields.sort();
            power.secret_fields.dedup();
        }
        Ok(actor.ask(MachineEvent::Updated { by: by.to_owned(), changes }, new_trace()).await?)
    }

    async fn keep_power_secrets(
        &self,
        id: SystemId,
        secrets: &BTreeMap<String, Secret<String>>,
    ) -> Result<(), Missing> {
        let seal = |(name, secret): (&String, _)| self.seal.seal(id.as_str(), &format!("{POWER}{name}"), secret);
        let changes: Vec<Change> = secrets.iter().map(seal).collect::<Result<_, _>>()?;
        if !changes.is_empty() {
            self.store.put(changes).await?;
            self.ways.secrets_changed(id);
        }
        Ok(())
    }

    /// A machine's sealed power parameters, by field name.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn power_secrets(&self, id: SystemId) -> Result<BTreeMap<String, Secret<String>>, Missing> {
        let secrets = self.seal.all(id.as_str(), POWER).await?;
        Ok(secrets.into_iter().map(|(name, secret)| (name.trim_start_matches(POWER).to_owned(), secret)).collect())
    }

    /// What a decision about that machine needs: racks, image, scripts with result ids.
    ///
    /// # Errors
    /// [`Missing`].
    pub async fn brief(&self, machine: &Machine, options: &CommissionOptions) -> Result<Brief, Missing> {
        let (brief, scripts) = self.compose_brief(machine, Some(options));
        let first = self.store.allot(ids::RESULT, u32::try_from(scripts.len()).unwrap_or(u32::MAX)).await?;
        let brief = Brief { place: self.turns.ask(machine.spec.system_id, clock::tick()), ..brief };
        Ok(briefs::with_results(brief, &scripts, first))
    }

    /// As [`App::brief`] for a power action: no scripts, so nothing is allotted.
    #[must_use]
    pub fn power_brief(&self, machine: &Machine) -> Brief {
        self.compose_brief(machine, None).0
    }

    fn compose_brief(
        &self,
        machine: &Machine,
        options: Option<&CommissionOptions>,
    ) -> (Brief, Vec<schema::catalogue::Script>) {
        let ails = |id| self.fit(id, Duty::Boot).err().map(Ailment::from);
        let (address, vlan) = (machine.spec.power.address(), machine.spec.vlan);
        let racks = briefs::Racks {
            linked: self.racks().into_iter().map(|(id, _)| id).collect(),
            ails,
            awaited: || self.awaited_racks().into_iter().map(|(id, _)| id).collect(),
            bmc: self.bmc_racks(address, vlan),
            awaited_bmc: || self.awaited_bmc_racks(address, vlan),
        };
        briefs::compose(&self.catalogue_content(), racks, &machine.spec, options)
    }

    /// Connected racks, with what they say of themselves.
    #[must_use]
    pub fn racks(&self) -> Vec<(RackId, Arc<Hello>)> {
        self.links.hellos()
    }

    /// A new enrolment token: the text that is shown once, and what the catalogue keeps.
    #[must_use]
    pub fn new_enrolment_token(&self, lasts: Duration) -> (String, EnrolmentToken) {
        let token = Token::mint(&self.ca, rand::random());
        let kept =
            EnrolmentToken { token_sha256: token.hash().to_string(), expires: clock::now() + lasts, used_by: None };
        (token.text(), kept)
    }

    /// Where racks dial in.
    #[must_use]
    pub fn link_address(&self) -> Option<SocketAddr> {
        self.links.server.load().as_ref().map(|server| server.address())
    }
}

/// An actor's stored state.
async fn load<C: Core + DeserializeOwned>(store: &Store, id: &str) -> Result<Option<(C, Generation)>, Missing> {
    let own = id.to_owned();
    let row = store.read(move |db| queries::load_actor(db, C::KIND, &own)).await?;
    row.map(|(state, generation)| read(&state, id).map(|core| (core, generation))).transpose()
}

fn read<C: Core + DeserializeOwned>(state: &str, id: &str) -> Result<C, Missing> {
    serde_json::from_str(state).map_err(|e| Missing::Unreadable {
        kind: C::KIND,
        id: id.to_owned(),
        why: e.to_string(),
    })
}
