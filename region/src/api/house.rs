//! What handlers need of the region: reads from the store, events to actors, changes of the catalogue. The only file of the API that
//! knows how they are done.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actors::{
    catalogue::{CatalogueEvent, Table},
    core::{Core, TraceId, Verdict},
    machine::{Life, Machine},
    shell::{AskError, Registry},
};
use schema::{
    boot::{BodyRef, Sha256},
    catalogue::{Catalogue, CatalogueItem, CatalogueKey, EnrolmentToken},
    id::{ResultId, SystemId},
    messages::machine::{Brief, CommissionOptions, MachineChanges, MachineEvent, MachineSpec},
    net::MacAddr,
    plan::Lease,
    script::Content,
    secret::Secret,
};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    annex::Annexes,
    explain::SiteAils,
    fault::Fault,
    oauth::Nonces,
    racks::RackFacts,
    shape::{machine::Facts, results::Outputs},
};
use crate::{
    app::{App, Missing, new_trace},
    bodies::{BodyError, BodyWriter},
    store::{
        StoreError,
        queries::{self, Event, EventFilter, LeaseFilter, MachineFilter, MachineSummary, ScriptSet},
    },
};

/// The region, as handlers see it.
pub struct House {
    pub app: App,
    pub nonces: Nonces,
    /// What the program around the region adds.
    pub annexes: Annexes,
    /// Held from reading what a change depends on until it is durable.
    edit: Mutex<()>,
}

type Result<T> = std::result::Result<T, Fault>;

/// Machines whose leases are looked up one by one.
const FEW: usize = 100;

impl House {
    /// The region behind the API.
    #[must_use]
    pub fn new(app: App, annexes: Annexes) -> Self {
        Self { app, nonces: Nonces::default(), annexes, edit: Mutex::new(()) }
    }

    /// The catalogue as it is now.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.app.catalogue_content()
    }

    /// All actors of this process.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.app.registry
    }

    /// Changes that depend on what is there (names, free ids) come one at a time.
    pub async fn editing(&self) -> MutexGuard<'_, ()> {
        self.edit.lock().await
    }

    /// The next id of a catalogue table. Take it while [`Self::editing`].
    #[must_use]
    pub fn next_id(&self, table: Table) -> i64 {
        actors::catalogue::next_id(&self.catalogue(), table)
    }

    /// Adds or replaces items, all or none.
    pub async fn put(&self, by: &str, items: Vec<CatalogueItem>) -> Result<()> {
        self.change(CatalogueEvent::PutAll { by: by.to_owned(), items }).await
    }

    /// Removes an item and what hangs on it.
    pub async fn remove(&self, by: &str, key: CatalogueKey) -> Result<()> {
        self.change(CatalogueEvent::Remove { by: by.to_owned(), key }).await
    }

    async fn change(&self, event: CatalogueEvent) -> Result<()> {
        obeyed(self.app.change_catalogue(event, new_trace()).await.map_err(missing)?)
    }

    /// Whether the store answers.
    pub async fn ready(&self) -> Result<()> {
        self.app.store.read(|db| queries::actor_ids(db, "catalogue")).await.map(|_| ()).map_err(|e| unread(&e))
    }

    /// What connected racks lack, what is to be said of their clocks, and whether the store serves.
    pub async fn site_ails(&self) -> SiteAils {
        let mut site = SiteAils::new(self.app.store.stalled());
        for (id, _) in self.app.racks() {
            if let Ok(actor) = self.app.rack(id).await {
                site.note(id, &actor.snapshot());
            }
        }
        site
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut crate::store::Db) -> diesel::QueryResult<T> + Send + 'static,
    ) -> Result<T> {
        self.app.store.read(query).await.map_err(|e| unread(&e))
    }

    /// Rows of the machines that the filter admits.
    pub async fn summaries(&self, filter: MachineFilter) -> Result<Vec<MachineSummary>> {
        self.read(move |db| queries::machines(db, &filter)).await
    }

    /// The machines that the filter admits, with all that hangs on them: a fixed number of statements.
    pub async fn machines(&self, filter: MachineFilter) -> Result<Vec<Facts>> {
        let now = actors::clock::now();
        let read = move |db: &mut crate::store::Db| {
            let records = queries::machine_records(db, &filter)?;
            // Of a few machines by their MACs: a site has as many leases as machines, and one is asked for more often than all.
            let macs = if records.len() <= FEW { records.iter().flat_map(macs).collect() } else { Vec::new() };
            if records.len() <= FEW && macs.is_empty() {
                return Ok((records, Vec::new()));
            }
            let leases = queries::leases(db, &LeaseFilter { at: Some(now), macs, ..LeaseFilter::default() })?;
            Ok((records, leases))
        };
        let (records, leases) = self.read(read).await?;
        let mut by_mac: BTreeMap<MacAddr, Vec<Lease>> = BTreeMap::new();
        for lease in leases {
            by_mac.entry(lease.mac).or_default().push(lease);
        }
        let facts = |record: queries::MachineRecord| {
            let leases = macs(&record).iter().filter_map(|m| by_mac.get(m)).flatten().cloned().collect();
            Facts { record, leases }
        };
        Ok(records.into_iter().map(facts).collect())
    }

    /// One machine with all that hangs on it.
    pub async fn machine(&self, id: SystemId) -> Result<Facts> {
        let filter = MachineFilter { system_ids: vec![id], ..MachineFilter::default() };
        self.machines(filter).await?.pop().ok_or_else(|| Fault::no("Machine"))
    }

    /// A machine as its actor sees it now.
    pub async fn state(&self, id: SystemId) -> Result<Arc<Machine>> {
        let actor = self.app.machine(id).await.map_err(missing)?;
        let state = actor.snapshot();
        if state.life == Life::Present { Ok(state) } else { Err(Fault::no("Machine")) }
    }

    /// Tells a machine; the answer comes once it is durable.
    pub async fn obey(&self, id: SystemId, event: MachineEvent) -> Result<()> {
        loop {
            let actor = self.app.machine(id).await.map_err(missing)?;
            if actor.snapshot().life != Life::Present {
                return Err(Fault::no("Machine"));
            }
            match actor.ask(event.clone(), trace(&actor.snapshot(), &event)).await {
                // It was overtaken by another writer, and is loaded anew.
                Err(AskError::Gone { .. }) => {}
                verdict => return obeyed(verdict.map_err(|e| missing(Missing::Ask(e)))?),
            }
        }
    }

    /// An id that no machine and no rack has.
    pub async fn fresh_id(&self) -> Result<SystemId> {
        loop {
            let id = SystemId::from_draws(rand::random());
            let taken = self.read(move |db| queries::load_actor(db, "machine", id.as_str())).await?;
            if taken.is_none() && !self.catalogue().racks.contains_key(&id) {
                return Ok(id);
            }
        }
    }

    /// Makes a machine, its secrets sealed before it is there.
    pub async fn create_machine(
        &self,
        by: &str,
        spec: MachineSpec,
        secrets: BTreeMap<String, Secret<String>>,
    ) -> Result<()> {
        obeyed(self.app.create_machine(by, spec, secrets).await.map_err(missing)?)
    }

    /// Changes a machine; given secrets replace those there are.
    pub async fn update_machine(
        &self,
        id: SystemId,
        by: &str,
        changes: MachineChanges,
        secrets: BTreeMap<String, Secret<String>>,
    ) -> Result<()> {
        obeyed(self.app.update_machine(id, by, changes, secrets).await.map_err(missing)?)
    }

    /// The secrets of a machine's power parameters.
    pub async fn power_secrets(&self, id: SystemId) -> Result<BTreeMap<String, Secret<String>>> {
        self.app.power_secrets(id).await.map_err(missing)
    }

    /// What a decision about this machine needs to know: racks, image, scripts.
    pub async fn brief(&self, id: SystemId, options: &CommissionOptions) -> Result<Brief> {
        let machine = self.state(id).await?;
        self.app.brief(&machine, options).await.map_err(missing)
    }

    /// As [`Self::brief`] for a power action.
    pub async fn power_brief(&self, id: SystemId) -> Result<Brief> {
        let machine = self.state(id).await?;
        Ok(self.app.power_brief(&machine))
    }

    /// A machine's script sets, newest attempt first.
    pub async fn script_sets(&self, id: SystemId) -> Result<Vec<ScriptSet>> {
        self.read(move |db| queries::script_sets(db, id)).await
    }

    /// The outputs of results, by result; large ones from the body store.
    pub async fn outputs(&self, ids: Vec<ResultId>) -> Result<BTreeMap<ResultId, Outputs>> {
        let bodies = self.app.bodies.clone();
        let read = move |db: &mut crate::store::Db| {
            let bytes = |content: Option<Content>| {
                let Content { body, inline } = content?;
                inline.or_else(|| bodies.read(body.sha256).ok())
            };
            let one = |id: ResultId| {
                let out = queries::script_output(db, id)?;
                let (combined, stdout) = (bytes(out.combined), bytes(out.stdout));
                Ok((id, Outputs { combined, stdout, stderr: bytes(out.stderr), result: bytes(out.result) }))
            };
            ids.into_iter().map(one).collect()
        };
        self.read(read).await
    }

    /// The length of a body that is here.
    #[must_use]
    pub fn body_len(&self, sha256: Sha256) -> Option<u64> {
        std::fs::metadata(self.app.bodies.path(sha256)?).ok().map(|m| m.len())
    }

    /// The bytes of a small body.
    pub fn read_body(&self, body: BodyRef) -> Result<Vec<u8>> {
        let gone =
            |e| Fault::unavailable(format!("Body {} cannot be read: {e}.", body.sha256), "Look at the region's disk.");
        self.app.bodies.read(body.sha256).map_err(gone)
    }

    /// Keeps a small body.
    pub fn put_body(&self, bytes: &[u8]) -> Result<BodyRef> {
        self.app.bodies.put(bytes).map_err(|e| unkept(&e))
    }

    /// A body on its way in.
    pub fn new_body(&self) -> Result<BodyWriter> {
        self.app.bodies.writer().map_err(|e| unkept(&e))
    }

    /// A page of history.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<Event>> {
        self.read(move |db| queries::events(db, &filter)).await
    }

    /// The steps of a trace that are in the journal, oldest first, without the events' contents.
    pub async fn traced(&self, trace: TraceId, limit: i64) -> Result<Vec<serde_json::Value>> {
        let rows = self.read(move |db| queries::traced(db, &trace.to_string(), limit)).await?;
        let shown = |(kind, id, step): (String, String, queries::JournalStep)| {
            let word = |text: &str, name: &str| -> String {
                let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
                value[name].as_str().unwrap_or_default().to_owned()
            };
            serde_json::json!({
                "actor": format!("{kind}/{id}"), "seq": step.generation, "at": step.at.to_string(), "event": variant(&word(&step.event, "event")),
                "verdict": word(&step.verdict, "verdict"), "trace": step.trace, "source": "journal",
            })
        };
        Ok(rows.into_iter().map(shown).collect())
    }

    /// Leases.
    pub async fn leases(&self, filter: LeaseFilter) -> Result<Vec<Lease>> {
        self.read(move |db| queries::leases(db, &filter)).await
    }

    /// Every enrolled rack, with what it says of itself while it is connected.
    pub async fn racks(&self) -> Vec<RackFacts> {
        let connected = self.app.racks();
        let c = self.catalogue();
        let facts = |entry: &schema::catalogue::RackEntry| {
            let hello = connected.iter().find(|(id, _)| *id == entry.id).map(|(_, hello)| hello.clone());
            let (state, counted) = (self.app.rack_state(entry.id), self.app.services(entry.id));
            let services = match &state {
                Some(state) if counted.is_empty() => state.services.clone(),
                _ => counted,
            };
            let machines = self.app.machines_of(entry.id);
            RackFacts { entry: entry.clone(), hello, state, services, machines }
        };
        c.racks.values().map(facts).collect()
    }

    /// A new enrolment token: the text that is shown once, and what is kept.
    #[must_use]
    pub fn enrolment_token(&self, lasts: Duration) -> (String, EnrolmentToken) {
        self.app.new_enrolment_token(lasts)
    }
}

/// The trace of a call: of the attempt that it begins, or that it is about.
fn trace(machine: &Machine, event: &MachineEvent) -> TraceId {
    match event {
        MachineEvent::Commission { .. } | MachineEvent::Power { .. } => {
            TraceId::of_attempt(machine.spec.system_id, machine.next_attempt)
        }
        _ => machine.trace().or(new_trace),
    }
}

/// A verdict as an answer: what was refused is a conflict, with the way out; what changed nothing is well.
fn obeyed(verdict: Verdict) -> Result<()> {
    match verdict {
        Verdict::Moved | Verdict::Waiting(_) | Verdict::Ignored { .. } => Ok(()),
        Verdict::Refused { why, remedy } => Err(Fault::Conflict { why: sentence(&why), remedy: sentence(&remedy) }),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let head: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    let end = if text.is_empty() || text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{head}{}{end}", letters.as_str())
}

fn missing(error: Missing) -> Fault {
    match error {
        Missing::NotThere { .. } => Fault::no("Machine"),
        Missing::Ask(error) => Fault::unavailable(format!("It could not be decided: {error}."), "Try again."),
        Missing::Store(error) => unread(&error),
        other => {
            tracing::error!(error = %other, "the API got no answer");
            Fault::unavailable(format!("The region cannot answer: {other}."), "Look at the region's log.")
        }
    }
}

/// The MACs of a machine: those that were found in it, then those that it was only said to have.
fn macs(record: &queries::MachineRecord) -> Vec<MacAddr> {
    let found = |mac: &MacAddr| record.interfaces.iter().any(|i| i.hardware.mac == *mac);
    let said = record.machine.macs.iter().copied().filter(|mac| !found(mac));
    record.interfaces.iter().map(|i| i.hardware.mac).chain(said).collect()
}

/// The name of a variant, of its name in JSON.
fn variant(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (head, tail) = word.split_at(word.len().min(1));
        head.to_uppercase() + tail
    });
    words.collect()
}

/// A body that could not be kept.
pub(super) fn unkept(error: &BodyError) -> Fault {
    match error {
        BodyError::Mismatch { .. } => Fault::Bad(format!("{error}.")),
        BodyError::Disk { .. } => {
            Fault::unavailable(format!("The body was not kept: {error}."), "Make room, and send it again.")
        }
    }
}

fn unread(error: &StoreError) -> Fault {
    tracing::warn!(%error, "the store did not answer the API");
    Fault::unavailable("The store does not answer.", "Look at the region's log, and try again.")
}
