//! The hands of the sweep: asks the BMCs that `actors::sweep` says are due. Their credentials are in memory alone, never on the disk.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::{
    clock,
    errand::{FaultKind, PowerFault, Ran},
    sweep::Sweep,
};
use schema::{
    id::{AttemptId, SystemId},
    messages::link::SweepUpdate,
    power::{PowerAccess, PowerAction},
    status::PowerState,
};
use tokio::{sync::Notify, task::AbortHandle};

use crate::{deputies::Deputies, power::Drivers, report::Reporter};

/// Questions under way at once, so that orders always find a free driver.
pub const AT_ONCE: usize = 16;

/// The sweep of this rack. Cloned freely.
#[derive(Clone)]
pub struct Sweeper(Arc<Inner>);

struct Inner {
    watching: Mutex<Watching>,
    woken: Notify,
    drivers: Drivers,
    deputies: Deputies,
    reporter: Reporter,
}

struct Watching {
    sweep: Sweep,
    access: HashMap<SystemId, PowerAccess>,
    asking: HashMap<SystemId, AbortHandle>,
}

impl Sweeper {
    /// A sweep that watches nothing yet and asks each BMC that often.
    #[must_use]
    pub fn new(every: Duration, drivers: Drivers, deputies: Deputies, reporter: Reporter) -> Self {
        let watching = Watching { sweep: Sweep::new(every), access: HashMap::new(), asking: HashMap::new() };
        Self(Arc::new(Inner { watching: Mutex::new(watching), woken: Notify::new(), drivers, deputies, reporter }))
    }

    /// The region says which machines this rack is to watch. What it is not to watch any more is forgotten, credentials too.
    pub fn update(&self, update: SweepUpdate) {
        let now = clock::now();
        let mut watching = self.watching();
        let kept: HashSet<SystemId> = update.put.iter().map(|target| target.machine).collect();
        let gone: Vec<_> = watching.sweep.watched().filter(|m| update.replace && !kept.contains(m)).collect();
        for machine in gone.into_iter().chain(update.remove) {
            watching.forget(machine);
        }
        for target in update.put {
            let anew = watching.access.get(&target.machine).is_some_and(|known| *known != target.access);
            watching.sweep.watch(target.machine, anew, now, rand::random());
            watching.access.insert(target.machine, target.access);
        }
        drop(watching);
        self.0.woken.notify_one();
    }

    /// An order for that machine came: a question under way ends, and the BMC is left alone until the errand is over.
    pub fn stand_aside(&self, machine: SystemId) {
        let mut watching = self.watching();
        if let Some(question) = watching.asking.remove(&machine) {
            question.abort();
        }
        watching.sweep.left_alone(machine, clock::now());
    }

    /// The machines that are watched.
    #[must_use]
    pub fn watched(&self) -> Vec<SystemId> {
        self.watching().sweep.watched().collect()
    }

    /// Asks who is due, until it is aborted.
    pub async fn run(self) {
        loop {
            let next = self.ask_who_is_due();
            let pause = next.map(|at| at.since(clock::now()));
            tokio::select! {
                () = self.0.woken.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or(Duration::from_secs(3_600))) => {}
            }
        }
    }

    fn ask_who_is_due(&self) -> Option<schema::time::Timestamp> {
        let mut watching = self.watching();
        let free = AT_ONCE.saturating_sub(watching.asking.len());
        for machine in watching.sweep.due(free, clock::now()) {
            let access = watching.access.get(&machine).cloned();
            let Some(access) = access.filter(|_| !self.0.deputies.busy(machine)) else {
                watching.sweep.left_alone(machine, clock::now());
                continue;
            };
            let sweeper = self.clone();
            let question = tokio::spawn(async move { sweeper.ask(machine, access).await });
            watching.asking.insert(machine, question.abort_handle());
        }
        // With all places taken, the next answer wakes the sweep.
        if watching.asking.len() < AT_ONCE { watching.sweep.next() } else { None }
    }

    async fn ask(&self, machine: SystemId, access: PowerAccess) {
        let began = clock::tick();
        let answer = state_of(self.0.drivers.run(PowerAction::Query, &access).await);
        let mut watching = self.watching();
        // An order came in between: the errand tells what the BMC says.
        if watching.asking.remove(&machine).is_some() {
            let now = clock::now();
            let fact = watching.sweep.answered(machine, &answer, began.elapsed(), now, rand::random());
            if let Some(fact) = fact {
                self.0.reporter.of(machine, AttemptId(0), now, fact);
            }
        }
        drop(watching);
        self.0.woken.notify_one();
    }

    fn watching(&self) -> MutexGuard<'_, Watching> {
        self.0.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watching {
    fn forget(&mut self, machine: SystemId) {
        self.sweep.forget(machine);
        self.access.remove(&machine);
        if let Some(question) = self.asking.remove(&machine) {
            question.abort();
        }
    }
}

/// What a question's run says of the power.
///
/// # Errors
/// Why it says nothing.
pub fn state_of(ran: Result<Ran, PowerFault>) -> Result<PowerState, PowerFault> {
    match ran? {
        Ran::State { state } => Ok(state),
        Ran::Accepted { .. } | Ran::ByHand => {
            let (why, remedy) = ("its driver cannot ask for the state".into(), "give it a BMC".into());
            Err(PowerFault { kind: FaultKind::Other, why, remedy })
        }
    }
}
