//! The run itself: every commissioning asked for at once, a look each second, kills when they are due, until no machine moves any more.
//!
//! A kill must come amid the run, however small it is: while one is to come by a count of machines, looks are frequent, and the last machine is
//! not asked for.

use std::time::{Duration, Instant};

use actors::clock;
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    Bench,
    crew::Crew,
    goodput::Curve,
    kill::{At, Kill, Killed, Victim},
    usage::{Each, Usage},
};
use crate::{
    api::Api,
    yard::{Trouble, operator::many, trouble},
};

/// No machine moved for that long: longer than any step may take, so those that are left are stuck.
const STILL: Duration = Duration::from_secs(330);
/// Between two looks; and between two glances at what was killed.
const LOOK: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(20);
/// Between two questions after the fleet while a kill is to come by a count of machines.
const OFTEN: Duration = Duration::from_millis(200);
/// How long what was killed may take until it is back, and how long a request is tried again meanwhile.
const MEND: Duration = Duration::from_secs(180);
/// What a machine says that was asked for before.
const UNDER_WAY: &str = "is being commissioned already";

/// What one look saw.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) second: f64,
    /// Machines by status.
    pub(super) statuses: Value,
    pub(super) cpu: Each<f64>,
    pub(super) pss: Each<u64>,
}

/// A run that is over.
pub(super) struct Course {
    pub(super) seconds: f64,
    pub(super) looks: Vec<Look>,
    pub(super) curve: Curve,
    pub(super) killed: Vec<Killed>,
    /// Kills whose time did not come.
    pub(super) spared: Vec<Kill>,
    pub(super) usage: Usage,
}

/// A run.
pub(super) struct Run<'a, P> {
    bench: &'a Bench,
    crew: &'a mut Crew,
    progress: &'a P,
    began: Instant,
    usage: Usage,
    looks: Vec<Look>,
    curve: Curve,
    kills: Vec<Kill>,
    /// Told, the last machine is asked for.
    last: Option<oneshot::Sender<()>>,
    killed: Vec<Killed>,
    /// The last of `killed` is not yet what it was.
    mending: Option<Mending>,
}

/// How far what was killed is back.
struct Mending {
    since: Instant,
    /// Its process said that it is up.
    up: bool,
}

impl<'a, P: Fn(&str)> Run<'a, P> {
    pub(super) fn begin(bench: &'a Bench, crew: &'a mut Crew, progress: &'a P) -> Self {
        let usage = Usage::begin(&crew.pids(bench.database_process));
        Self {
            bench,
            crew,
            progress,
            began: clock::tick(),
            usage,
            looks: Vec::new(),
            curve: Curve::default(),
            kills: bench.kills.clone(),
            last: None,
            killed: Vec::new(),
            mending: None,
        }
    }

    /// Asks for every commissioning at once, and waits until none moves any more.
    pub(super) async fn until_the_end(mut self, machines: &[String]) -> Result<Course, Trouble> {
        self.curve.add(0.0, 0);
        let (told, tell) = oneshot::channel();
        self.last = Some(told);
        self.release_the_last();
        let mut asking = Some(ask_for_all(&self.crew.api, machines, !self.bench.kills.is_empty(), tell));
        let (mut last, mut moved) = (String::new(), self.began);
        let ended = loop {
            self.pause().await?;
            if asking.as_ref().is_some_and(JoinHandle::is_finished)
                && let Some(done) = asking.take()
            {
                done.await.map_err(trouble("asking"))??;
                (self.progress)(&format!("all asked for after {:.1} s", self.seconds()));
            }
            let looks = self.looks.len();
            let Some(fleet) = self.look().await? else { continue };
            let now = clock::tick();
            let told = format!("{}{}", fleet["statuses"], fleet["steps"]);
            if told != last {
                (last, moved) = (told, now);
            }
            let of = |status: &str| fleet["statuses"][status].as_u64().unwrap_or(0);
            let (ready, failed, under_way) = (of("Ready"), of("Failed commissioning"), of("Commissioning"));
            if self.looks.len() > looks {
                (self.progress)(&format!(
                    "{:6.1} s  ready {ready} of {}, failed {failed}, under way {under_way}",
                    self.seconds(),
                    machines.len()
                ));
            }
            if ready + failed == machines.len() as u64 && asking.is_none() && self.mending.is_none() {
                break now;
            }
            if now.duration_since(moved) > STILL {
                break moved;
            }
            self.kill_what_is_due(ready, under_way).await?;
        };
        self.usage.look();
        Ok(Course {
            seconds: ended.duration_since(self.began).as_secs_f64(),
            looks: self.looks,
            curve: self.curve,
            killed: self.killed,
            spared: self.kills,
            usage: self.usage,
        })
    }

    fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// The last machine is asked for once no kill is to come that waits for machines: without it the run does not end before.
    fn release_the_last(&mut self) {
        if !self.counts() {
            drop(self.last.take());
        }
    }

    /// Whether a kill is to come by a count of machines.
    fn counts(&self) -> bool {
        self.kills.iter().any(|kill| !matches!(kill.at, At::Seconds(_)))
    }

    /// Until the next look is due; or until something is known of what was killed.
    async fn pause(&mut self) -> Result<(), Trouble> {
        let last = self.looks.last().map_or(0.0, |look| look.second);
        let left = Duration::from_secs_f64((last + LOOK.as_secs_f64() - self.seconds()).max(0.0));
        let left = if self.counts() { left.min(OFTEN) } else { left };
        match self.mending.take() {
            None => tokio::time::sleep(left).await,
            Some(mending) => self.mending = self.mend(mending, left).await?,
        }
        Ok(())
    }

    /// What is left to mend after a glance.
    async fn mend(&mut self, mut mending: Mending, left: Duration) -> Result<Option<Mending>, Trouble> {
        let Some(mut killed) = self.killed.pop() else { return Ok(None) };
        let (victim, option) = (killed.kill.victim, killed.kill.victim.option());
        if !mending.up {
            if let Ok(heard) = tokio::time::timeout(left.max(GLANCE), self.crew.heard(victim)).await {
                heard?;
                mending.up = true;
            }
        } else {
            tokio::time::sleep(GLANCE).await;
        }
        let since = || mending.since.elapsed().as_secs_f64();
        if mending.up && victim == Victim::Region && killed.answers.is_none() {
            killed.answers = self.crew.api.get("/fleet").await.is_ok().then(since);
        }
        let answers = victim == Victim::Racks || killed.answers.is_some();
        if mending.up && answers && self.crew.linked(victim, self.bench.layout.racks).await.unwrap_or(false) {
            killed.linked = Some(since());
            let words = killed.answers.map_or_else(String::new, |s| format!("answers after {s:.2} s, "));
            (self.progress)(&format!("the {} is back: {words}all racks linked after {:.2} s", victim.name(), since()));
            self.killed.push(killed);
            return Ok(None);
        }
        if mending.since.elapsed() > MEND {
            return Err(Trouble(format!("{option}: what was killed was not back after {} s", MEND.as_secs())));
        }
        self.killed.push(killed);
        Ok(Some(mending))
    }

    /// A look at everything, if one is due and the region can be asked; in between, only the fleet, while a kill waits for it.
    async fn look(&mut self) -> Result<Option<Value>, Trouble> {
        let due = self.looks.last().is_none_or(|look| self.seconds() - look.second >= LOOK.as_secs_f64());
        if !due && !self.counts() {
            return Ok(None);
        }
        let fleet = match self.crew.api.get("/fleet").await {
            Ok(fleet) => fleet,
            Err(_) if self.region_is_away() => return Ok(None),
            Err(error) => return Err(error),
        };
        if !due {
            return Ok(Some(fleet));
        }
        self.usage.look();
        let (second, statuses) = (self.seconds(), fleet["statuses"].clone());
        self.curve.add(second, statuses["Ready"].as_u64().unwrap_or(0));
        self.looks.push(Look { second, statuses, cpu: self.usage.cpu_seconds(), pss: self.usage.pss() });
        Ok(Some(fleet))
    }

    fn region_is_away(&self) -> bool {
        let away = |killed: &Killed| killed.kill.victim == Victim::Region && killed.answers.is_none();
        self.mending.is_some() && self.killed.last().is_some_and(away)
    }

    async fn kill_what_is_due(&mut self, ready: u64, under_way: u64) -> Result<(), Trouble> {
        let (machines, at) = (u64::from(self.bench.layout.machines), self.seconds());
        let due = self.kills.iter().position(|kill| kill.at.due(ready, machines, at));
        let Some(kill) = due.filter(|_| self.mending.is_none()).map(|at| self.kills.remove(at)) else {
            return Ok(());
        };
        self.usage.look();
        let (name, since) = (kill.victim.name(), clock::tick());
        let pid = self.crew.kill(kill.victim).await?;
        self.usage.replaced(name, pid);
        (self.progress)(&format!("kill -9 of the {name} with {under_way} machines under way; started again"));
        self.killed.push(Killed { kill, at, ready, under_way, answers: None, linked: None });
        self.release_the_last();
        self.mending = Some(Mending { since, up: false });
        Ok(())
    }
}

/// Asks for the commissioning of all machines. `patient`: the region may go away meanwhile.
/// `last`: when it ends, the last machine is asked for.
fn ask_for_all(
    api: &Api,
    machines: &[String],
    patient: bool,
    last: oneshot::Receiver<()>,
) -> JoinHandle<Result<(), Trouble>> {
    let mut paths: Vec<String> =
        machines.iter().map(|id| format!("/MAAS/api/2.0/machines/{id}/?op=commission")).collect();
    let (api, last_path) = (api.clone(), paths.pop());
    let of_many = api.clone();
    let asking = many(paths, move |path| {
        let api = of_many.clone();
        async move { ask_for(&api, &path, patient).await }
    });
    tokio::spawn(async move {
        asking.await?;
        last.await.ok(); // Its end is the word.
        match last_path {
            Some(path) => ask_for(&api, &path, patient).await,
            None => Ok(()),
        }
    })
}

async fn ask_for(api: &Api, path: &str, patient: bool) -> Result<(), Trouble> {
    let end = clock::tick() + MEND;
    loop {
        match api.told(path).await {
            Ok((200..=299, _)) => return Ok(()),
            // It was heard before the region was killed, and only the answer was lost.
            Ok((409, why)) if patient && why.contains(UNDER_WAY) => return Ok(()),
            // A region that is just back has no racks yet.
            Ok((409, _)) if patient && clock::tick() < end => tokio::time::sleep(OFTEN).await,
            Ok((status, why)) => return Err(Trouble(format!("POST {path} was answered {status}: {why}"))),
            Err(error) if !patient || clock::tick() > end => return Err(error),
            Err(_) => tokio::time::sleep(GLANCE).await,
        }
    }
}
