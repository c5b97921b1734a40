//! The one thread that writes: gathers what comes within a few milliseconds into one commit, and tries again when the database is away.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use actors::{
    clock::{now, tick},
    shell::inspect::Histogram,
};
use diesel::result::{DatabaseErrorKind, Error};
use schema::time::Timestamp;
use tokio::sync::oneshot;

use super::{
    Change, Db, Stalled, StoreError, Tuning, Write,
    backend::{Address, atomically},
    steps,
};

/// What the writer is asked for. The answer is a number where one is asked for, else 0.
#[derive(Debug)]
pub(super) enum Work {
    Step(Box<Write>),
    Put(Vec<Change>),
    Allot { name: &'static str, count: u32 },
    Prune { before: Timestamp },
}

/// Why one piece of work was left out of a commit.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The generation check failed.
    Stale,
    /// The database refuses the values.
    Refused(String),
}

/// How one piece of work ended within a commit.
pub(super) type Outcome = Result<i64, Refusal>;

#[derive(Debug)]
struct Job {
    work: Work,
    reply: oneshot::Sender<Result<i64, StoreError>>,
}

/// The writer's mailbox. It is not bounded, since everybody who writes waits for the answer.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    inbox: Sender<Job>,
    /// How long commits took.
    pub(super) commits: Arc<Histogram>,
    owed: Arc<Owed>,
}

/// The write that the database owes, from its first try to its success.
#[derive(Debug, Default)]
struct Owed(Mutex<Option<Stalled>>);

impl Owed {
    fn change(&self, change: impl FnOnce(&mut Option<Stalled>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The first pause before another try; doubles up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

impl Writer {
    /// Starts the thread. It ends when the last handle goes, after everything that was asked for.
    pub(super) fn start(db: Db, address: Address, tuning: Tuning) -> Result<Self, StoreError> {
        let (sender, inbox) = mpsc::channel();
        let shown = address.shown();
        let (commits, owed) = (Arc::<Histogram>::default(), Arc::<Owed>::default());
        let hand = Hand { db: Some(db), address, tuning, commits: commits.clone(), owed: owed.clone() };
        thread::Builder::new().name("store-writer".into()).spawn(move || run(hand, &inbox)).map_err(|err| {
            StoreError::Open {
                address: shown,
                why: format!("no thread for the writer: {err}"),
                remedy: "raise the limit of tasks of this service",
            }
        })?;
        Ok(Self { inbox: sender, commits, owed })
    }

    /// The write that is under way, or the last one if it failed.
    pub(super) fn owed(&self) -> Option<Stalled> {
        self.owed.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn ask(&self, work: Work) -> Result<i64, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Job { work, reply }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn run(mut hand: Hand, inbox: &Receiver<Job>) {
    let mut waiting = VecDeque::new();
    let mut expected = 1;
    loop {
        if waiting.is_empty() {
            match inbox.recv() {
                Ok(job) => waiting.push_back(job),
                Err(_) => return,
            }
        }
        gather(inbox, &mut waiting, expected, &hand.tuning);
        let batch = take_batch(&mut waiting, hand.tuning.batch);
        expected = batch.len();
        hand.commit(batch);
    }
}

/// Adds what has come. Those who wrote last time are likely to write again at once, so it waits a moment for as many:
/// a lone writer never waits, and 64 of them meet in one commit.
fn gather(inbox: &Receiver<Job>, waiting: &mut VecDeque<Job>, expected: usize, tuning: &Tuning) {
    let until = tick() + tuning.gather;
    loop {
        waiting.extend(inbox.try_iter());
        if waiting.len() >= expected.min(tuning.batch) {
            return;
        }
        match inbox.recv_timeout(until.saturating_duration_since(tick())) {
            Ok(job) => waiting.push_back(job),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The oldest jobs, in order, at most `limit`, and no two steps of one actor: the second must see the first's generation.
fn take_batch(waiting: &mut VecDeque<Job>, limit: usize) -> Vec<Job> {
    let mut actors = HashSet::new();
    let (mut batch, mut later) = (Vec::new(), VecDeque::new());
    for job in waiting.drain(..) {
        let alone = match &job.work {
            Work::Step(write) => actors.insert((write.kind, write.id.clone())),
            _ => true,
        };
        if alone && batch.len() < limit {
            batch.push(job);
        } else {
            later.push_back(job);
        }
    }
    *waiting = later;
    batch
}

/// The writer's own connection.
struct Hand {
    /// `None` after an error: nobody knows in which state that left it.
    db: Option<Db>,
    address: Address,
    tuning: Tuning,
    commits: Arc<Histogram>,
    owed: Arc<Owed>,
}

impl Hand {
    /// Commits the jobs and answers each. Tries again while the database is away, as long as the patience lasts.
    fn commit(&mut self, jobs: Vec<Job>) {
        let works: Vec<&Work> = jobs.iter().map(|job| &job.work).collect();
        let began = tick();
        // One that was given up is owed until another one succeeds.
        self.owed.change(|owed| {
            owed.get_or_insert_with(|| Stalled { since: now(), why: String::new() });
        });
        let mut pause = FIRST_PAUSE;
        let mut again = false;
        let outcomes = loop {
            match self.attempt(&works, again) {
                Ok(outcomes) => {
                    self.owed.change(|owed| *owed = None);
                    break Ok(outcomes);
                }
                Err(why) if began.elapsed() >= self.tuning.patience => break Err(why),
                Err(why) => {
                    if !again {
                        tracing::warn!(
                            "The database {} does not take writes, trying again: {why}",
                            self.address.shown()
                        );
                    }
                    again = true;
                    self.owed.change(|owed| owed.iter_mut().for_each(|owed| owed.why.clone_from(&why)));
                    thread::sleep(pause);
                    pause = (2 * pause).min(Duration::from_secs(1));
                }
            }
        };
        self.commits.add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        match outcomes {
            Ok(outcomes) => {
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    // Who asked may have gone; the write stands.
                    job.reply.send(outcome.map_err(|refusal| refusal.tell(&job.work))).ok();
                }
            }
            Err(why) => {
                tracing::error!("The database {} took no write, given up: {why}", self.address.shown());
                for job in jobs {
                    let (address, why) = (self.address.shown(), why.clone());
                    let tried_s = began.elapsed().as_secs();
                    job.reply.send(Err(StoreError::Unavailable { address, tried_s, why })).ok();
                }
            }
        }
    }

    /// One try at one commit. `again`: an earlier try may have come through although its answer was lost.
    fn attempt(&mut self, works: &[&Work], again: bool) -> Result<Vec<Outcome>, String> {
        let mut db = match self.db.take() {
            Some(db) => db,
            None => self.address.writer().map_err(|err| err.to_string())?,
        };
        let mut done = atomically(&mut db, |db| steps::apply(db, works, again));
        if matches!(&done, Err(err) if !is_passing(err)) {
            // One of them spoils the rest: each in a savepoint of its own.
            db = self.address.writer().map_err(|err| err.to_string())?;
            done = atomically(&mut db, |db| works.iter().map(|work| apart(db, work, again)).collect());
        }
        let outcomes = done.map_err(|err| err.to_string().trim().replace('\n', "; "))?;
        self.db = Some(db);
        Ok(outcomes)
    }
}

/// The work by itself in a savepoint; what the database refuses becomes its own outcome.
fn apart(db: &mut Db, work: &Work, again: bool) -> Result<Outcome, Error> {
    use diesel::Connection;
    match db.transaction(|db| steps::apply(db, &[work], again)) {
        Ok(outcomes) => Ok(outcomes.into_iter().next().unwrap_or(Err(Refusal::Stale))),
        Err(err) if is_passing(&err) => Err(err),
        Err(err) => Ok(Err(Refusal::Refused(err.to_string()))),
    }
}

/// Whether the error is of the database's moment and not of the values: another try may succeed.
fn is_passing(err: &Error) -> bool {
    match err {
        Error::DatabaseError(
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::SerializationFailure
            | DatabaseErrorKind::ReadOnlyTransaction,
            _,
        ) => true,
        // What diesel has no kind for: locks of other processes, a full or failing disk, a server that stops.
        Error::DatabaseError(DatabaseErrorKind::Unknown, info) => {
            let message = info.message();
            [
                "locked",
                "deadlock",
                "disk",
                "full",
                "No space",
                "terminat",
                "shut",
                "connection",
                "recovery",
                "read-only",
                "readonly",
            ]
            .iter()
            .any(|sign| message.contains(sign))
        }
        Error::RollbackErrorOnCommit { .. } | Error::BrokenTransactionManager | Error::AlreadyInTransaction => true,
        _ => false,
    }
}

impl Refusal {
    fn tell(self, work: &Work) -> StoreError {
        match (self, work) {
            (Self::Stale, Work::Step(write)) => {
                StoreError::Stale { kind: write.kind, id: write.id.clone(), expected: write.generation }
            }
            (Self::Stale, _) => StoreError::Refused { what: work.name(), why: "nothing came of it".into() },
            (Self::Refused(why), _) => StoreError::Refused { what: work.name(), why },
        }
    }
}

impl Work {
    fn name(&self) -> String {
        match self {
            Self::Step(write) => format!("a step of {} {}", write.kind, write.id),
            Self::Put(changes) => format!("{} changes", changes.len()),
            Self::Allot { name, .. } => format!("the counter {name}"),
            Self::Prune { .. } => "the journal's old rows".into(),
        }
    }
}
