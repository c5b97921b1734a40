//! The fleet at a glance: how many machines stand where, how long each step took, who is stuck and why. Kept as machines change, so that
//! ten thousand of them cost a page no more than ten. Memory only; begun anew from the store at each start.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::machine::{Life, Machine};
use schema::{
    commissioning::{CommissionStep, StepRecord, StepState},
    id::{AttemptId, SystemId},
    status::NodeStatus,
    time::Timestamp,
};
use serde_json::{Value, json};
use tokio::sync::watch;

mod served;
mod spans;

use served::Steps;
pub use served::{Counts, Served};
use spans::Spans;

/// Stuck machines that are named; the rest is counted.
const NAMED: usize = 50;
/// A wait is worth a look once this part of its time is over (in percent), and at least that many seconds.
const LATE_PERCENT: u128 = 60;
const LATE: Duration = Duration::from_secs(20);

/// The census.
pub struct Census {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    places: HashMap<SystemId, Place>,
    statuses: BTreeMap<&'static str, u32>,
    steps: [u32; 12],
    /// How long each step took, and whole attempts.
    took: [Spans; 12],
    attempts: Spans,
    served: Steps,
    outcomes: BTreeMap<&'static str, u64>,
}

/// Where a machine stands.
struct Place {
    hostname: String,
    status: NodeStatus,
    step: Option<CommissionStep>,
    /// The last attempt whose end is counted.
    counted: AttemptId,
    error: String,
    wait: Option<Waiting>,
}

struct Waiting {
    what: String,
    owed_by: String,
    remedy: String,
    since: Timestamp,
    deadline: Timestamp,
}

/// A machine that needs a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    pub machine: SystemId,
    pub hostname: String,
    pub status: &'static str,
    pub reason: String,
    pub remedy: String,
    /// Seconds that it has waited; `None` where it waits no more.
    pub seconds: Option<u64>,
}

/// The ends of the buckets of [`Took`], in seconds; the last bucket has no end.
pub const ENDS_S: [u64; 14] = [1, 2, 3, 5, 10, 20, 30, 60, 120, 180, 300, 600, 1_800, 3_600];

/// How long steps and whole attempts took: counts by bucket, and the sum in seconds, which of whole attempts is right to a sixteenth.
#[derive(Debug, Clone, PartialEq)]
pub struct Took {
    pub steps: Vec<Served>,
    pub whole: Counts,
    /// Attempts that ended `ready` or `failed`.
    pub outcomes: BTreeMap<&'static str, u64>,
}

/// The machines that are stuck for the same cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Causing {
    pub count: usize,
    /// One of them, with its reason.
    pub hostname: String,
    pub example: String,
}

/// The census at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    pub machines: usize,
    pub statuses: Vec<(&'static str, u32)>,
    pub steps: Vec<Step>,
    /// Attempts that ended, with their median and 99th percentile in milliseconds.
    pub attempts: (u64, u64, u64),
    pub stuck: usize,
    /// The first of them.
    pub named: Vec<Stuck>,
}

/// One of the twelve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub step: CommissionStep,
    /// Machines that are at it.
    pub now: u32,
    /// How often it ended well, and how long that took: median and 99th percentile in milliseconds.
    pub done: u64,
    pub p50_ms: u64,
    pub p99_ms: u64,
}

impl Default for Census {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Census {
    /// Takes what a machine says of itself now. `live`: it has just moved, so that a step's end counts.
    pub fn note(&self, machine: &Machine, live: bool) {
        self.inner().note(machine, live);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Tells that something changed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The fleet as it stands.
    #[must_use]
    pub fn fleet(&self, now: Timestamp) -> Fleet {
        self.inner().fleet(now)
    }

    /// Who is stuck, by cause: the step at which machines wait, or the status in which they failed.
    #[must_use]
    pub fn causes(&self, now: Timestamp) -> BTreeMap<String, Causing> {
        let inner = self.inner();
        let mut causes: BTreeMap<String, Causing> = BTreeMap::new();
        for (id, place) in &inner.places {
            let Some(stuck) = place.stuck(*id, now) else { continue };
            let cause = match place.step {
                Some(step) if stuck.seconds.is_some() => format!("{} {}", step.number(), step.label()),
                _ => stuck.status.to_owned(),
            };
            let of = causes.entry(cause).or_default();
            of.count += 1;
            if of.hostname.is_empty() || stuck.hostname < of.hostname {
                (of.hostname, of.example) = (stuck.hostname, stuck.reason);
            }
        }
        causes
    }

    /// How long steps and whole attempts took, for metrics.
    #[must_use]
    pub fn took(&self) -> Took {
        let inner = self.inner();
        let mut outcomes = BTreeMap::from([("ready", 0), ("failed", 0)]);
        outcomes.extend(&inner.outcomes);
        Took { steps: inner.served.all(), whole: inner.attempts.within(), outcomes }
    }

    /// The host name of a machine.
    #[must_use]
    pub fn hostname(&self, machine: SystemId) -> Option<String> {
        self.inner().places.get(&machine).map(|place| place.hostname.clone())
    }

    /// The machines whose host name has that in it.
    #[must_use]
    pub fn named_like(&self, part: &str) -> HashSet<String> {
        let inner = self.inner();
        let like = inner.places.iter().filter(|(_, place)| place.hostname.contains(part));
        like.map(|(id, _)| id.to_string()).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn note(&mut self, machine: &Machine, live: bool) {
        let id = machine.spec.system_id;
        let before = self.places.remove(&id);
        if let Some(before) = &before {
            self.count(before, false);
        }
        if machine.life != Life::Present {
            return;
        }
        let mut counted = before.map_or(AttemptId(0), |b| b.counted);
        if let Some((attempt, ended)) = machine.attempt.as_ref().and_then(|a| Some((a, a.ended?)))
            && attempt.id > counted
        {
            counted = attempt.id;
            if live {
                let outcome = if machine.error.is_empty() { "ready" } else { "failed" };
                *self.outcomes.entry(outcome).or_default() += 1;
                self.attempts.add(ended.since(attempt.started));
                self.served.add(attempt, ended);
                attempt
                    .steps
                    .iter()
                    .zip(&mut self.took)
                    .filter_map(|(r, t)| Some((span(r)?, t)))
                    .for_each(|(s, t)| t.add(s));
            }
        }
        let waiting = |w: &schema::wait::Wait| Waiting {
            what: w.what.clone(),
            owed_by: w.owed_by.to_string(),
            remedy: w.remedy.clone(),
            since: w.since,
            deadline: w.deadline,
        };
        let place = Place {
            hostname: machine.spec.hostname.clone(),
            status: machine.status,
            step: machine.open_attempt().and_then(actors::machine::Attempt::current_step),
            counted,
            error: machine.error.clone(),
            wait: machine.wait.as_ref().map(waiting),
        };
        self.count(&place, true);
        self.places.insert(id, place);
    }

    fn count(&mut self, place: &Place, in_: bool) {
        let change = |n: &mut u32| *n = if in_ { *n + 1 } else { n.saturating_sub(1) };
        change(self.statuses.entry(place.status.label()).or_default());
        if let Some(n) = place.step.and_then(|step| self.steps.get_mut(step as usize)) {
            change(n);
        }
    }

    fn fleet(&self, now: Timestamp) -> Fleet {
        let step = |(step, (now, took)): (CommissionStep, (&u32, &Spans))| Step {
            step,
            now: *now,
            done: took.count(),
            p50_ms: took.quantile(50),
            p99_ms: took.quantile(99),
        };
        let mut named: Vec<_> = self.places.iter().filter_map(|(id, place)| place.stuck(*id, now)).collect();
        let stuck = named.len();
        named.sort_by(|a, b| (b.seconds, &a.hostname).cmp(&(a.seconds, &b.hostname)));
        named.truncate(NAMED);
        Fleet {
            machines: self.places.len(),
            statuses: self.statuses.iter().filter(|(_, n)| **n > 0).map(|(s, n)| (*s, *n)).collect(),
            steps: CommissionStep::ALL.into_iter().zip(self.steps.iter().zip(&self.took)).map(step).collect(),
            attempts: (self.attempts.count(), self.attempts.quantile(50), self.attempts.quantile(99)),
            stuck,
            named,
        }
    }
}

/// How long a step took that ended well.
fn span(record: &StepRecord) -> Option<Duration> {
    (record.state == StepState::Done).then_some(())?;
    Some(record.ended?.since(record.started?))
}

impl Place {
    fn stuck(&self, machine: SystemId, now: Timestamp) -> Option<Stuck> {
        let (reason, remedy, seconds) = match &self.wait {
            None if self.error.is_empty() => return None,
            None => (self.error.clone(), String::new(), None),
            Some(wait) => {
                let (waited, whole) = (now.since(wait.since), wait.deadline.since(wait.since));
                let late = waited >= LATE && waited.as_millis() * 100 >= whole.as_millis() * LATE_PERCENT;
                if !late {
                    return None;
                }
                (
                    format!("waits for {}, owed by {}", wait.what, wait.owed_by),
                    wait.remedy.clone(),
                    Some(waited.as_secs()),
                )
            }
        };
        let (hostname, status) = (self.hostname.clone(), self.status.label());
        Some(Stuck { machine, hostname, status, reason, remedy, seconds })
    }
}

impl Fleet {
    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let statuses: BTreeMap<_, _> = self.statuses.iter().copied().collect();
        let step = |s: &Step| {
            json!({
                "number": s.step.number(), "name": s.step.label(), "now": s.now, "done": s.done,
                "p50_ms": s.p50_ms, "p99_ms": s.p99_ms,
            })
        };
        let stuck = |s: &Stuck| {
            json!({
                "system_id": s.machine, "hostname": s.hostname, "status": s.status, "reason": s.reason,
                "remedy": s.remedy, "seconds": s.seconds,
            })
        };
        json!({
            "machines": self.machines, "statuses": statuses, "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "attempts": { "ended": self.attempts.0, "p50_ms": self.attempts.1, "p99_ms": self.attempts.2 },
            "stuck": self.stuck, "named": self.named.iter().map(stuck).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use schema::wait::{OwedBy, Wait};

    use super::*;

    fn machine(n: u8, status: NodeStatus) -> Machine {
        let mut machine = Machine::absent(SystemId::from_draws([n; 6]));
        machine.life = Life::Present;
        machine.spec.hostname = format!("m{n}");
        machine.status = status;
        machine
    }

    #[test]
    fn a_machine_counts_where_it_stands_and_nowhere_else() {
        let census = Census::default();
        census.note(&machine(1, NodeStatus::New), true);
        census.note(&machine(2, NodeStatus::New), true);
        census.note(&machine(1, NodeStatus::Ready), true);
        let fleet = census.fleet(Timestamp(0));
        assert_eq!((fleet.machines, fleet.statuses, fleet.stuck), (2, vec![("New", 1), ("Ready", 1)], 0));
        let mut gone = machine(2, NodeStatus::New);
        gone.life = Life::Deleted;
        census.note(&gone, true);
        assert_eq!(census.fleet(Timestamp(0)).statuses, [("Ready", 1)]);
    }

    #[test]
    fn a_failure_is_stuck_and_a_wait_only_when_most_of_its_time_is_over() {
        let census = Census::default();
        let mut failed = machine(1, NodeStatus::FailedCommissioning);
        failed.error = "no DHCP request came".into();
        census.note(&failed, true);
        let mut waits = machine(2, NodeStatus::Commissioning);
        let at = Timestamp::from_seconds;
        waits.wait = Some(Wait {
            what: "a DHCP request".into(),
            owed_by: OwedBy::Machine,
            since: at(100),
            deadline: at(400),
            evidence: Vec::new(),
            on_timeout: String::new(),
            remedy: "look at the cable".into(),
        });
        census.note(&waits, true);
        assert_eq!(census.fleet(at(150)).stuck, 1);
        let fleet = census.fleet(at(300));
        assert_eq!((fleet.stuck, fleet.named[0].seconds), (2, Some(200)));
        assert!(fleet.named[0].reason.contains("a DHCP request") && fleet.named[1].reason.contains("no DHCP"));
    }
}
