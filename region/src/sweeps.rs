//! Which rack watches which machine's power, and what is known of the ways to the BMCs. The choice itself is made in `actors::reach`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::{
    clock,
    link::stream::Sender,
    rack::Duty,
    reach::{Candidate, Reach, Reached},
};
use schema::{
    catalogue::Catalogue,
    id::{RackId, SystemId, VlanId},
    messages::{
        link::{RackInterface, SweepTarget, SweepUpdate, ToRack},
        report::{Fact, Report},
    },
    net::Cidr,
    power::{PowerAccess, PowerConfig},
    time::Timestamp,
};
use tokio::sync::watch;
use tracing::warn;

use crate::{
    app::{App, Missing, new_trace},
    plans,
    store::{Change, StoreError, queries},
};

/// Changes of what racks watch gather for that long: whoever commissions a site learns of thousands of BMCs.
const GATHER: Duration = Duration::from_secs(2);
/// And for so many times as long as the last reckoning took: at a large site it takes no more than this part of a core.
const SPARING: u32 = 20;
/// Machines in one message at most.
const BATCH: usize = 512;
/// How often what has expired is forgotten.
const EXPIRE: Duration = Duration::from_secs(60);

/// What is known of the ways to BMCs, and who is to be told.
#[derive(Default)]
pub struct Ways {
    reach: Mutex<Reach>,
    /// How often each machine's power secrets were changed since the start.
    secrets: Mutex<HashMap<SystemId, u64>>,
    /// Which rack watches what may be another.
    pub(crate) changed: watch::Sender<()>,
    assigned: watch::Sender<Arc<Assignment>>,
}

/// The machines that each rack watches: how they are switched, and how often their secrets changed.
pub type Assignment = HashMap<RackId, BTreeMap<SystemId, (PowerConfig, u64)>>;

impl Ways {
    /// Takes what the store kept.
    pub(crate) fn restore(&self, kept: Vec<Reached>) {
        *self.reach() = Reach::of(kept);
    }

    /// That machine's power secrets are others.
    pub(crate) fn secrets_changed(&self, machine: SystemId) {
        *self.secrets().entry(machine).or_default() += 1;
        self.changed.send_replace(());
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn secrets(&self) -> MutexGuard<'_, HashMap<SystemId, u64>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// What a report tells of the way to a BMC is kept. Nobody waits for it: what is lost with the region is learned again.
    pub(crate) fn learn(&self, rack: RackId, report: &Report) {
        if !tells(&report.fact) {
            return;
        }
        let Some(machine) = self.machines.awake(&report.machine).map(|actor| actor.snapshot()) else { return };
        let Some(bmc) = machine.spec.power.address() else { return };
        let Some(learned) = Reached::learned(bmc, rack, &report.fact, clock::now()) else { return };
        if !self.ways.reach().note(&learned) {
            return;
        }
        self.ways.changed.send_replace(());
        let app = self.clone();
        self.runtime.spawn(async move {
            if let Err(error) = app.store.put(vec![Change::Reached(learned)]).await {
                warn!(%rack, %error, "what was learned of a BMC is known in memory alone");
            }
        });
    }

    /// What is known of the ways to BMCs now.
    #[must_use]
    pub fn reach(&self) -> Vec<Reached> {
        let now = clock::now();
        self.ways.reach().all().filter(|known| known.expires() > now).cloned().collect()
    }

    /// The racks that may be given that BMC's work, in the order in which they are tried. `vlan`: where the machine boots, if known.
    #[must_use]
    pub fn bmc_racks(&self, address: Option<&str>, vlan: Option<VlanId>) -> Vec<RackId> {
        self.in_order(&self.power_racks(), address, vlan)
    }

    /// As [`App::bmc_racks`], of the racks that may be back in a moment.
    #[must_use]
    pub fn awaited_bmc_racks(&self, address: Option<&str>, vlan: Option<VlanId>) -> Vec<RackId> {
        let awaited = self.awaited_racks();
        let known = awaited.iter().map(|(id, rack)| (*id, rack.facts.iter().flat_map(|f| &f.interfaces)));
        self.in_order(&PowerRacks::of(known), address, vlan)
    }

    fn in_order(&self, racks: &PowerRacks, address: Option<&str>, vlan: Option<VlanId>) -> Vec<RackId> {
        let boots = plans::dhcp_racks(&self.catalogue_content(), vlan);
        self.ways.reach().order(address, &racks.candidates(address, &boots), clock::now())
    }

    /// The racks that may be given power work now.
    fn power_racks(&self) -> PowerRacks {
        PowerRacks::of(self.fit_racks(Duty::Power).iter().map(|(id, hello)| (*id, &hello.interfaces)))
    }

    fn assignment(&self) -> Assignment {
        let (c, racks) = (self.catalogue_content(), self.power_racks());
        let (machines, secrets) = (self.tickets.powers(), self.ways.secrets().clone());
        assigned(&c, machines, &secrets, &racks, &self.ways.reach(), clock::now())
    }
}

/// Whether a fact tells anything of the way to a BMC.
#[must_use]
pub fn tells(fact: &Fact) -> bool {
    matches!(fact, Fact::PowerDone { .. } | Fact::PowerSeen { .. } | Fact::BmcUnreachable { .. })
}

/// Which rack is to watch which machine: the first that would be given its work. `secrets`: how often each machine's were changed.
#[must_use]
pub fn assigned(
    c: &Catalogue,
    machines: Vec<(SystemId, PowerConfig, Option<VlanId>)>,
    secrets: &HashMap<SystemId, u64>,
    racks: &PowerRacks,
    reach: &Reach,
    now: Timestamp,
) -> Assignment {
    let mut boots: HashMap<Option<VlanId>, HashSet<RackId>> = HashMap::new();
    let mut assigned = Assignment::new();
    for (machine, power, vlan) in machines {
        if !power.power_type.queryable() || power.address().is_none() {
            continue;
        }
        let boots = boots.entry(vlan).or_insert_with(|| plans::dhcp_racks(c, vlan));
        if let Some(rack) = reach.first(power.address(), &racks.candidates(power.address(), boots), now) {
            let version = secrets.get(&machine).copied().unwrap_or_default();
            assigned.entry(rack).or_default().insert(machine, (power, version));
        }
    }
    assigned
}

/// The racks that may be given power work, each with the networks that it has an address in.
pub struct PowerRacks(Vec<(RackId, Vec<Cidr>)>);

impl PowerRacks {
    /// By the interfaces that each said to have.
    #[must_use]
    pub fn of<'a, I: IntoIterator<Item = &'a RackInterface>>(racks: impl IntoIterator<Item = (RackId, I)>) -> Self {
        let networks = |interfaces: I| {
            let own = interfaces.into_iter().flat_map(|i| &i.addresses).filter(|(own, _)| !own.is_loopback());
            own.map(|(_, cidr)| *cidr).collect()
        };
        Self(racks.into_iter().map(|(rack, interfaces)| (rack, networks(interfaces))).collect())
    }

    /// What they are to the BMC of that address. `boots`: the racks that serve where the machine boots.
    #[must_use]
    pub fn candidates(&self, address: Option<&str>, boots: &HashSet<RackId>) -> Vec<Candidate> {
        let bmc = address.and_then(schema::power::bmc_ip);
        let candidate = |(rack, networks): &(RackId, Vec<Cidr>)| {
            let near = bmc.is_some_and(|bmc| networks.iter().any(|cidr| cidr.contains(bmc)));
            Candidate { rack: *rack, near, boots: boots.contains(rack) }
        };
        self.0.iter().map(candidate).collect()
    }
}

/// Keeps the assignment of machines to racks up to date, for all connections at once.
pub(crate) async fn assign(app: App) {
    let mut changed = app.ways.changed.subscribe();
    loop {
        let began = clock::tick();
        let reckoning = tokio::task::spawn_blocking({
            let app = app.clone();
            move || app.assignment()
        });
        let Ok(assigned) = reckoning.await else { return }; // The runtime stops.
        let pause = GATHER.max(began.elapsed() * SPARING);
        app.ways.assigned.send_if_modified(|old| {
            let differs = **old != assigned;
            if differs {
                *old = Arc::new(assigned);
            }
            differs
        });
        if changed.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        changed.mark_unchanged();
    }
}

/// Keeps a connected rack's list of watched machines up to date: whole first, then what changed.
pub(crate) async fn keep(app: App, rack: RackId, sender: Sender<ToRack>) {
    let mut assigned = app.ways.assigned.subscribe();
    let mut told = BTreeMap::new();
    let mut replace = true;
    loop {
        let all = assigned.borrow_and_update().clone();
        let wanted = all.get(&rack).cloned().unwrap_or_default();
        let put: Vec<_> = wanted.iter().filter(|(machine, how)| told.get(*machine) != Some(*how)).collect();
        let remove: Vec<SystemId> = told.keys().filter(|machine| !wanted.contains_key(machine)).copied().collect();
        let targets = match targets(&app, &put).await {
            Ok(targets) => targets,
            Err(error) => {
                warn!(%rack, %error, "the power secrets of watched machines cannot be read; they are tried again");
                tokio::time::sleep(GATHER * 5).await;
                continue;
            }
        };
        for update in updates(replace, targets, remove) {
            if let Err(error) = sender.send(&ToRack::Sweep(Box::new(update)), new_trace()).await {
                return warn!(%rack, %error, "the machines to watch were not sent; they are when it is back");
            }
        }
        (told, replace) = (wanted, false);
        if assigned.changed().await.is_err() {
            return;
        }
    }
}

async fn targets(app: &App, put: &[(&SystemId, &(PowerConfig, u64))]) -> Result<Vec<SweepTarget>, Missing> {
    let mut targets = Vec::with_capacity(put.len());
    for (machine, (power, _)) in put {
        let secrets = app.power_secrets(**machine).await?;
        let access = PowerAccess { power_type: power.power_type, params: power.params.clone(), secrets };
        targets.push(SweepTarget { machine: **machine, access });
    }
    Ok(targets)
}

/// In messages of a bounded size; none when nothing is another.
#[must_use]
pub fn updates(replace: bool, mut targets: Vec<SweepTarget>, remove: Vec<SystemId>) -> Vec<SweepUpdate> {
    let mut updates = Vec::new();
    if replace || !remove.is_empty() || !targets.is_empty() {
        let rest = targets.split_off(targets.len().min(BATCH));
        updates.push(SweepUpdate { replace, put: targets, remove });
        targets = rest;
    }
    while !targets.is_empty() {
        let rest = targets.split_off(targets.len().min(BATCH));
        updates.push(SweepUpdate { replace: false, put: targets, remove: Vec::new() });
        targets = rest;
    }
    updates
}

/// Forgets what has expired, here and in the store.
pub(crate) async fn expire(app: App) {
    loop {
        tokio::time::sleep(EXPIRE).await;
        let gone = app.ways.reach().expire(clock::now());
        if gone.is_empty() {
            continue;
        }
        app.ways.changed.send_replace(());
        if let Err(error) = app.store.put(gone.into_iter().map(Change::Unreached).collect()).await {
            warn!(%error, "expired facts of BMCs stay in the store until the next start");
        }
    }
}

/// What the store kept of the ways to BMCs.
pub(crate) async fn restore(app: &App) -> Result<(), StoreError> {
    let kept = app.store.read(queries::reach).await?;
    app.ways.restore(kept);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_in_the_bmcs_network_comes_first_however_the_address_is_written() {
        let rack = |id: &str, ip: &str| {
            let addresses = vec![(ip.parse().unwrap(), format!("{ip}/24").parse().unwrap())];
            (id.parse::<RackId>().unwrap(), [RackInterface { name: "eth0".into(), mac: None, addresses }])
        };
        let racks = [rack("rack01", "10.9.0.1"), rack("rack02", "10.77.1.1")];
        let all = PowerRacks::of(racks.iter().map(|(id, interfaces)| (*id, interfaces)));
        for address in ["10.77.1.9", "10.77.1.9:6230", "https://10.77.1.9", "https://10.77.1.9:8443/redfish/v1"] {
            let candidates = all.candidates(Some(address), &HashSet::new());
            let first = Reach::default().first(Some(address), &candidates, Timestamp(0));
            assert_eq!(first, Some(racks[1].0), "{address}");
        }
    }
}
