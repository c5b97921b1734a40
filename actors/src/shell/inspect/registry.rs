//! All actors of a process: who is there, what each kind has done, where steps are put down. Shows nothing by itself.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use schema::time::Timestamp;

use super::{
    EventTally, KindTally, Outcome, Probe, RING, Source, StepTrace, TRANSITIONS, Tap, TapRefusal, Wanted, micros, tap,
};
use crate::core::TraceId;

/// A step, before its words are shared.
pub(in crate::shell) struct Note<'a> {
    pub(in crate::shell) at: Timestamp,
    pub(in crate::shell) event: &'a EventTally,
    pub(in crate::shell) sender: Source,
    pub(in crate::shell) from: &'a str,
    pub(in crate::shell) to: &'a str,
    pub(in crate::shell) outcome: Outcome,
    pub(in crate::shell) waited: Duration,
    pub(in crate::shell) took: Duration,
    pub(in crate::shell) trace: TraceId,
}

/// All actors of a process. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By kind and id.
    probes: RwLock<HashMap<&'static str, HashMap<String, Arc<Probe>>>>,
    kinds: RwLock<HashMap<&'static str, Arc<KindTally>>>,
    /// Names of states, once each however many rings hold them.
    words: RwLock<HashSet<Arc<str>>>,
    /// Message traces by their numbers, until they are old.
    taps: Mutex<BTreeMap<u64, Arc<Tap>>>,
}

impl Registry {
    /// The actor of that kind and id.
    #[must_use]
    pub fn get(&self, kind: &str, id: &str) -> Option<Arc<Probe>> {
        let probes = self.0.probes.read().unwrap_or_else(PoisonError::into_inner);
        probes.get(kind)?.get(id).cloned()
    }

    /// Every actor, or those of one kind; in no order.
    #[must_use]
    pub fn list(&self, kind: Option<&str>) -> Vec<Arc<Probe>> {
        let probes = self.0.probes.read().unwrap_or_else(PoisonError::into_inner);
        let chosen = probes.iter().filter(|(k, _)| kind.is_none_or(|kind| kind == **k));
        chosen.flat_map(|(_, probes)| probes.values().cloned()).collect()
    }

    /// What each kind has handled, by name.
    #[must_use]
    pub fn kinds(&self) -> Vec<Arc<KindTally>> {
        let mut kinds: Vec<_> = self.0.kinds.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        kinds.sort_by_key(|kind| kind.kind);
        kinds
    }

    /// Every step of that trace that a ring still holds, oldest first, with the actor's kind and id.
    #[must_use]
    pub fn traced(&self, trace: TraceId) -> Vec<(&'static str, String, StepTrace)> {
        let mut found = Vec::new();
        for probe in self.list(None) {
            let desk = probe.desk();
            let seen: HashSet<u64> = desk.steps.iter().map(|s| s.seq).collect();
            let older = desk.transitions.iter().filter(|s| !seen.contains(&s.seq));
            let steps = older.chain(&desk.steps).filter(|s| s.trace == trace);
            found.extend(steps.map(|s| (probe.kind(), probe.id.clone(), s.clone())));
        }
        found.sort_by_key(|(_, _, step)| step.at);
        found
    }

    /// Traces the next messages of an actor, under that number.
    ///
    /// # Errors
    /// [`TapRefusal`].
    pub fn tap(&self, number: u64, kind: &str, id: &str, wanted: Wanted) -> Result<Arc<Tap>, TapRefusal> {
        let mut taps = self.taps();
        taps.retain(|_, tap| !tap.is_old());
        let probe = self.get(kind, id).ok_or(TapRefusal::Asleep)?;
        let taken = probe.desk().tap.as_ref().is_some_and(|tap| tap.end().is_none());
        if taken {
            return Err(TapRefusal::Taken);
        }
        if taps.len() >= tap::TAPS {
            let ended = taps.iter().find(|(_, tap)| tap.end().is_some()).map(|(number, _)| *number);
            taps.remove(&ended.ok_or(TapRefusal::Full)?);
        }
        let tap = Arc::new(Tap::new(wanted, &probe));
        probe.desk().tap = Some(tap.clone());
        taps.insert(number, tap.clone());
        Ok(tap)
    }

    /// The trace of that number, running or ended.
    #[must_use]
    pub fn tapped(&self, number: u64) -> Option<Arc<Tap>> {
        self.taps().get(&number).cloned()
    }

    /// Ends the trace of that number and forgets it. False: there is none.
    pub fn untap(&self, number: u64) -> bool {
        let tap = self.taps().remove(&number);
        tap.is_some_and(|tap| {
            tap.close("it was taken off");
            true
        })
    }

    fn taps(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Tap>>> {
        self.0.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::shell) fn kind(&self, kind: &'static str, parent: &'static str) -> Arc<KindTally> {
        if let Some(known) = self.0.kinds.read().unwrap_or_else(PoisonError::into_inner).get(kind) {
            return known.clone();
        }
        let mut kinds = self.0.kinds.write().unwrap_or_else(PoisonError::into_inner);
        kinds.entry(kind).or_insert_with(|| Arc::new(KindTally::new(kind, parent))).clone()
    }

    pub(in crate::shell) fn add(&self, probe: Arc<Probe>) {
        let mut probes = self.0.probes.write().unwrap_or_else(PoisonError::into_inner);
        probes.entry(probe.kind()).or_default().insert(probe.id.clone(), probe);
    }

    /// Removes that very probe; the one of an actor loaded since then stays.
    pub(in crate::shell) fn remove(&self, probe: &Arc<Probe>) {
        let tap = probe.desk().tap.take();
        if let Some(tap) = tap {
            tap.close("the actor has ended; trace it again once it is awake");
        }
        let mut probes = self.0.probes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(probes) = probes.get_mut(probe.kind())
            && probes.get(&probe.id).is_some_and(|p| Arc::ptr_eq(p, probe))
        {
            probes.remove(&probe.id);
        }
    }

    /// Puts a step down. The trace that wants it, if there is one, with a copy.
    pub(in crate::shell) fn note(&self, probe: &Probe, note: Note<'_>) -> Option<(Arc<Tap>, StepTrace)> {
        let (waited_us, took_us) = (micros(note.waited), micros(note.took));
        for (histogram, us) in [
            (&probe.wait, waited_us),
            (&probe.handle, took_us),
            (&note.event.wait, waited_us),
            (&note.event.handle, took_us),
        ] {
            histogram.add(us);
        }
        probe.tally.came_from(note.sender.kind);
        if matches!(note.outcome, Outcome::Refused(_)) {
            note.event.refused.fetch_add(1, Relaxed);
        }
        let (from, to) = (self.word(note.from), self.word(note.to));
        let changed = from != to;
        let mut desk = probe.desk();
        desk.current = None;
        desk.handled += 1;
        let step = StepTrace {
            seq: desk.handled,
            at: note.at,
            event: note.event.name.clone(),
            sender: note.sender,
            from,
            to,
            outcome: note.outcome,
            waited_us,
            took_us,
            trace: note.trace,
        };
        if changed {
            keep(&mut desk.transitions, step.clone(), TRANSITIONS);
        }
        let wanted = desk.tap.clone().map(|tap| (tap, step.clone()));
        keep(&mut desk.steps, step, RING);
        wanted
    }

    fn word(&self, word: &str) -> Arc<str> {
        if let Some(known) = self.0.words.read().unwrap_or_else(PoisonError::into_inner).get(word) {
            return known.clone();
        }
        let new: Arc<str> = word.into();
        self.0.words.write().unwrap_or_else(PoisonError::into_inner).insert(new.clone());
        new
    }
}

fn keep(ring: &mut VecDeque<StepTrace>, step: StepTrace, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(step);
}
