//! The region's names: what composes them, who is told, and the serial of each change. [`server`] answers from them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actors::{clock, dns::Zones, rack::Duty};
use arc_swap::ArcSwap;
use schema::{
    dns::{DnsName, RecordKey, RecordSet, Zone},
    hardware::HardwareInterface,
    id::SystemId,
    messages::link::Rows,
    net::MacAddr,
};
use tokio::sync::Notify;
use tracing::warn;

use crate::{
    app::App,
    store::{StoreError, ids, queries},
};

mod book;
mod compose;
mod reverse;
pub mod server;

pub use self::{book::Delta, compose::Composer};

/// Changes gather for that long before they go out together.
const GATHER: Duration = Duration::from_millis(5);
/// How often leases that ran out are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Serials taken from the store in one go; a restart skips the rest.
const SERIALS: u32 = 256;
/// Rows that are kept for racks which are a little behind; one that is further behind gets everything.
const LOG: usize = 50_000;
/// Rows in one update.
const PAGE: usize = 10_000;

/// All names. Every change is composed here and then given out by [`keep`].
pub struct Names {
    inner: Mutex<Inner>,
    zones: ArcSwap<Zones>,
    woken: Notify,
    /// The next serial, and the one at which new ones must be taken from the store, as halves.
    serials: AtomicU64,
}

#[derive(Default)]
struct Inner {
    composer: Composer,
    /// Counts the changes that were given out.
    version: u64,
    log: VecDeque<Delta>,
    logged: usize,
}

impl Names {
    /// No names yet. `own`: where the region's own server is reached.
    #[must_use]
    pub fn new(own: Vec<IpAddr>) -> Self {
        let inner = Inner { composer: Composer::new(own), ..Inner::default() };
        Self { inner: Mutex::new(inner), zones: ArcSwap::default(), woken: Notify::new(), serials: AtomicU64::new(0) }
    }

    /// The zones as they are answered now.
    #[must_use]
    pub fn zones(&self) -> Arc<Zones> {
        self.zones.load_full()
    }

    /// Something that names are made of changed.
    pub fn change(&self, change: impl FnOnce(&mut Composer)) {
        let dirty = {
            let mut inner = self.inner();
            change(&mut inner.composer);
            inner.composer.is_dirty()
        };
        if dirty {
            self.woken.notify_one();
        }
    }

    /// Counts the changes that were given out, each under a serial of its own.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.inner().version
    }

    /// What a system calls its interfaces, after it was inventoried.
    pub fn hardware(&self, id: SystemId, interfaces: &[HardwareInterface]) {
        let nics = interfaces.iter().map(|i| (i.mac, i.name.clone())).collect();
        self.change(|composer| composer.nics(id, nics));
    }

    /// What changed since that version, as pages for a rack's plan; everything when it is too long ago (0: nothing is known there).
    #[must_use]
    pub fn since(&self, version: u64) -> (u64, Vec<Delta>) {
        let inner = self.inner();
        let behind = usize::try_from(inner.version.saturating_sub(version)).unwrap_or(usize::MAX);
        if behind == 0 {
            return (inner.version, Vec::new());
        }
        if version == 0 || behind > inner.log.len() {
            return (inner.version, pages(inner.composer.whole()));
        }
        let news = inner.log.iter().skip(inner.log.len() - behind);
        (inner.version, pages(merged(news)))
    }

    /// Gives out what changed under that serial. True when something did.
    fn publish(&self, serial: u32) -> bool {
        let mut inner = self.inner();
        let Some(delta) = inner.composer.delta(serial) else { return false };
        let mut zones = Zones::clone(&self.zones());
        zones.apply(&delta.zones, &delta.records);
        self.zones.store(Arc::new(zones));
        inner.version += 1;
        inner.logged += rows(&delta);
        inner.log.push_back(delta);
        while inner.logged > LOG
            && let Some(old) = inner.log.pop_front()
        {
            inner.logged -= rows(&old);
        }
        true
    }

    /// One more serial: never given before, also by a region that ran before this one.
    async fn serial(&self, app: &App) -> Result<u32, StoreError> {
        loop {
            let taken = self.serials.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
                let (next, end) = (at >> 32, at & u64::from(u32::MAX));
                (next < end).then_some((next + 1) << 32 | end)
            });
            if let Ok(at) = taken {
                return Ok(u32::try_from(at >> 32).unwrap_or(1));
            }
            let first = app.store.allot(ids::DNS_SERIAL, SERIALS).await?;
            // RFC 1982 numbers go round at 2^32; at a change a second that takes a century.
            let first = u64::try_from(first).unwrap_or(1) % u64::from(u32::MAX - SERIALS);
            self.serials.store(first << 32 | (first + u64::from(SERIALS)), Ordering::Relaxed);
        }
    }

    /// The next serial is `serial` or above (MAAS: `op=set_serial`).
    ///
    /// # Errors
    /// The store's; the present serial where it is not below `serial`.
    pub async fn raise(&self, app: &App, serial: u32) -> Result<Result<(), u32>, StoreError> {
        let present = self.serial(app).await?;
        if serial <= present {
            return Ok(Err(present));
        }
        self.serials.store(0, Ordering::Relaxed);
        app.store.allot(ids::DNS_SERIAL, serial - present).await.map(|_| Ok(()))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rows(delta: &Delta) -> usize {
    delta.zones.put.len() + delta.zones.remove.len() + delta.records.put.len() + delta.records.remove.len()
}

/// Several changes as one: of each row the last word.
fn merged<'a>(deltas: impl Iterator<Item = &'a Delta>) -> Delta {
    let mut zones: HashMap<&DnsName, Option<&Zone>> = HashMap::new();
    let mut records: HashMap<RecordKey, Option<&RecordSet>> = HashMap::new();
    for delta in deltas {
        zones.extend(delta.zones.remove.iter().map(|name| (name, None)));
        zones.extend(delta.zones.put.iter().map(|zone| (&zone.name, Some(zone))));
        records.extend(delta.records.remove.iter().map(|key| (key.clone(), None)));
        records.extend(delta.records.put.iter().map(|set| (set.key(), Some(set))));
    }
    let mut whole = Delta::default();
    for (name, zone) in zones {
        match zone {
            Some(zone) => whole.zones.put.push(zone.clone()),
            None => whole.zones.remove.push(name.clone()),
        }
    }
    for (key, set) in records {
        match set {
            Some(set) => whole.records.put.push(set.clone()),
            None => whole.records.remove.push(key),
        }
    }
    whole
}

/// In parts that fit a frame; what is replaced is replaced by the first.
fn pages(mut delta: Delta) -> Vec<Delta> {
    let mut rest = delta.records.put.split_off(delta.records.put.len().min(PAGE));
    let mut pages = vec![delta];
    while !rest.is_empty() {
        let more = rest.split_off(rest.len().min(PAGE));
        let records = Rows { put: std::mem::replace(&mut rest, more), ..Rows::default() };
        pages.push(Delta { records, ..Delta::default() });
    }
    pages
}

impl App {
    /// A rack came, went, or is not what it was: the internal domain follows.
    pub fn racks_changed(&self) {
        let mut racks: Vec<_> =
            self.fit_racks(Duty::Names).into_iter().map(|(rack, hello)| (rack, hello.interfaces.clone())).collect();
        racks.sort_by_key(|(rack, _)| *rack);
        self.names.change(|composer| composer.racks(racks));
    }

    /// Takes up all names: from the catalogue, the machines that are known, and the leases that run.
    pub(crate) async fn begin_names(&self) -> Result<(), StoreError> {
        let now = clock::now();
        let read = move |db: &mut crate::store::Db| {
            let running = queries::LeaseFilter { at: Some(now), ..Default::default() };
            Ok((queries::leases(db, &running)?, queries::interface_names(db)?))
        };
        let (leases, interfaces) = self.store.read(read).await?;
        let mut nics: BTreeMap<SystemId, BTreeMap<MacAddr, String>> = BTreeMap::new();
        for (id, mac, name) in interfaces {
            nics.entry(id).or_default().insert(mac, name);
        }
        self.names.change(|composer| {
            composer.catalogue(self.catalogue_content());
            composer.leases(leases, now);
            self.tickets.each(|spec| composer.machine(spec.system_id, Some(spec)));
            nics.into_iter().for_each(|(id, nics)| composer.nics(id, nics));
        });
        let serial = self.names.serial(self).await?;
        self.names.publish(serial);
        Ok(())
    }
}

/// Gives out changes as they come, and forgets leases that ran out.
pub(crate) async fn keep(app: App) {
    loop {
        tokio::select! {
            () = app.names.woken.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(SWEEP) => app.names.change(|composer| composer.expire(clock::now())),
        }
        if !app.names.inner().composer.is_dirty() {
            continue;
        }
        match app.names.serial(&app).await {
            Ok(serial) if app.names.publish(serial) => app.links.mark_names(),
            Ok(_) => {}
            Err(error) => {
                warn!(%error, "changed names are given out once the store answers");
                tokio::time::sleep(SWEEP).await;
                app.names.woken.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::{catalogue::Catalogue, dns::RecordData};

    use super::*;

    fn set(name: &str) -> RecordSet {
        RecordSet { name: name.parse().unwrap(), ttl: 30, data: RecordData::A(vec![[10, 0, 0, 1].into()]) }
    }

    #[test]
    fn a_rack_that_is_behind_gets_the_last_word_of_each_row() {
        let put = |name: &str| Delta { records: Rows { put: vec![set(name)], ..Rows::default() }, ..Delta::default() };
        let gone = |name: &str| Delta {
            records: Rows { remove: vec![set(name).key()], ..Rows::default() },
            ..Delta::default()
        };
        let all = merged([put("a.maas"), put("b.maas"), gone("a.maas"), gone("c.maas"), put("c.maas")].iter());
        let mut names: Vec<_> = all.records.put.iter().map(|set| set.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!((names, all.records.remove), (vec!["b.maas", "c.maas"], vec![set("a.maas").key()]));
    }

    #[test]
    fn changes_are_counted_and_everything_comes_in_pages() {
        let names = Names::new(Vec::new());
        assert_eq!(names.since(0), (0, Vec::new()));
        names.change(|composer| composer.catalogue(Arc::new(Catalogue::default())));
        assert!(names.publish(7) && !names.publish(8), "once");
        let (version, whole) = names.since(0);
        assert!(version == 1 && whole.len() == 1 && whole[0].zones.replace && whole[0].records.replace);
        assert!(whole[0].zones.put.iter().all(|zone| zone.serial == 7));
        assert_eq!(names.since(1), (1, Vec::new()));
        let many = Delta {
            records: Rows {
                replace: true,
                put: (0..25_000).map(|n| set(&format!("n{n}.maas"))).collect(),
                remove: vec![],
            },
            ..Delta::default()
        };
        let pages = pages(many);
        assert_eq!(pages.iter().map(|page| page.records.put.len()).collect::<Vec<_>>(), [10_000, 10_000, 5_000]);
        assert_eq!(pages.iter().filter(|page| page.records.replace).count(), 1);
    }
}
