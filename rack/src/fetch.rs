//! Bodies that the plan names and that are not here: fetched over the link, a few at a time, verified, resumed after a cut.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use actors::{
    clock,
    link::{bulk::BulkError, client::LinkClient},
};
use schema::{
    boot::{BodyRef, Sha256},
    id::{AttemptId, SystemId},
    messages::report::Fact,
    plan::{BootPurpose, Ticket},
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use crate::{bodies::Bodies, plan::PlanHandle, report::Reporter};

/// Bodies under way at once.
const AT_ONCE: usize = 4;
/// After a failure that the link's return does not mend.
const AGAIN: Duration = Duration::from_secs(5);

/// Asks for the bodies of the plan in force. Cloned freely.
#[derive(Debug, Clone)]
pub struct Fetcher(mpsc::UnboundedSender<Vec<Ticket>>);

impl Fetcher {
    /// Another plan is in force, in which these tickets came or changed; each is answered with a fact once its bodies are here.
    pub fn plan_changed(&self, tickets: Vec<Ticket>) {
        self.0.send(tickets).ok(); // No reader: the rack is going down.
    }

    /// A fetcher and what runs it until the last handle is gone.
    pub fn new(
        client: LinkClient,
        links: usize,
        plan: PlanHandle,
        bodies: Bodies,
        reporter: Reporter,
    ) -> (Self, impl Future<Output = ()>) {
        let (sender, changes) = mpsc::unbounded_channel();
        let work = Work {
            client,
            links,
            plan,
            bodies,
            reporter,
            tickets: Vec::new(),
            under_way: HashSet::new(),
            pauses: HashMap::new(),
            tasks: JoinSet::new(),
        };
        (Self(sender), work.run(changes))
    }
}

/// A ticket whose bodies are not all here, or that was not told so yet.
struct Pending {
    machine: SystemId,
    attempt: AttemptId,
    bodies: Vec<BodyRef>,
    fetched: u64,
}

struct Work {
    client: LinkClient,
    links: usize,
    plan: PlanHandle,
    bodies: Bodies,
    reporter: Reporter,
    tickets: Vec<Pending>,
    under_way: HashSet<Sha256>,
    /// Bodies that failed, and when to try again.
    pauses: HashMap<Sha256, Instant>,
    tasks: JoinSet<(BodyRef, Result<u64, BulkError>)>,
}

impl Work {
    async fn run(mut self, mut changes: mpsc::UnboundedReceiver<Vec<Ticket>>) {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let idle = self.tickets.is_empty() && self.under_way.is_empty() && self.pauses.is_empty();
            tokio::select! {
                change = changes.recv() => match change {
                    Some(tickets) => self.take(tickets),
                    None => return,
                },
                Some(ended) = self.tasks.join_next() => if let Ok((body, result)) = ended {
                    self.ended(body, result);
                },
                () = self.bodies.lost() => {}
                _ = tick.tick(), if !idle => {}
            }
            self.tell();
            self.start();
        }
    }

    fn take(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets.into_iter().filter(|t| t.purpose == BootPurpose::Commissioning) {
            self.tickets.retain(|p| p.machine != ticket.machine);
            let bodies = bodies_of(&ticket);
            self.tickets.push(Pending { machine: ticket.machine, attempt: ticket.attempt, bodies, fetched: 0 });
        }
    }

    /// Reports the tickets whose bodies are all here; forgets those that are no longer in the plan.
    fn tell(&mut self) {
        let (snapshot, now) = (self.plan.load(), clock::now());
        let (bodies, reporter, under_way) = (&self.bodies, &self.reporter, &self.under_way);
        // One that is here but whose fetch was not heard to end is not counted yet.
        let missing = |b: &BodyRef| under_way.contains(&b.sha256) || bodies.path(b.sha256).is_none();
        self.tickets.retain(|pending| {
            if snapshot.ticket(pending.machine, now).is_none_or(|t| t.attempt != pending.attempt) {
                return false;
            }
            if pending.bodies.iter().any(missing) {
                return true;
            }
            let fact = Fact::ResourcesReady { fetched: pending.fetched };
            reporter.of(pending.machine, pending.attempt, now, fact);
            false
        });
    }

    /// Starts what is missing: bodies of tickets first, then the rest of the plan (loaders).
    fn start(&mut self) {
        if self.under_way.len() >= AT_ONCE {
            return;
        }
        let Some(link) = (0..self.links).find(|link| self.client.is_up(*link)) else { return };
        let snapshot = self.plan.load();
        self.pauses.retain(|sha256, _| snapshot.body(*sha256).is_some());
        let waited: Vec<_> = self.tickets.iter().flat_map(|t| t.bodies.iter().copied()).collect();
        let now = Instant::from_std(clock::tick());
        for body in waited.into_iter().chain(snapshot.bodies()) {
            let paused = self.pauses.get(&body.sha256).is_some_and(|until| *until > now);
            if paused || self.under_way.contains(&body.sha256) || self.bodies.path(body.sha256).is_some() {
                continue;
            }
            if self.under_way.len() >= AT_ONCE {
                return;
            }
            self.under_way.insert(body.sha256);
            let (client, bodies) = (self.client.clone(), self.bodies.clone());
            self.tasks.spawn(async move {
                let partial = bodies.partial(body.sha256);
                let fetched = match client.fetch(link, body, &partial).await {
                    Ok(bytes) => bodies
                        .adopt(body.sha256)
                        .map(|()| bytes)
                        .map_err(|source| BulkError::Disk { path: partial, source }),
                    Err(error) => Err(error),
                };
                (body, fetched)
            });
        }
    }

    fn ended(&mut self, body: BodyRef, result: Result<u64, BulkError>) {
        self.under_way.remove(&body.sha256);
        let concerned = |p: &&mut Pending| p.bodies.iter().any(|b| b.sha256 == body.sha256);
        match result {
            Ok(bytes) => {
                self.pauses.remove(&body.sha256);
                tracing::info!(body = %body.sha256, len = body.len, bytes, "a body is here and verified");
                self.tickets.iter_mut().filter(concerned).for_each(|p| p.fetched += bytes);
            }
            Err(BulkError::Down) => {} // Again when the link is up.
            Err(error) => {
                let again = Instant::from_std(clock::tick()) + AGAIN;
                // Once per ticket and body: a machine waits for it, and its region should know why.
                if self.pauses.insert(body.sha256, again).is_none() {
                    tracing::warn!(body = %body.sha256, %error, "a body of the plan could not be had; it is tried again");
                    let why = error.to_string();
                    for p in self.tickets.iter_mut().filter(concerned) {
                        let fact = Fact::ResourcesMissing { body, why: why.clone() };
                        self.reporter.of(p.machine, p.attempt, clock::now(), fact);
                    }
                }
            }
        }
    }
}

/// What a ticket names.
fn bodies_of(ticket: &Ticket) -> Vec<BodyRef> {
    let Some(boot) = &ticket.boot else { return Vec::new() };
    let image = [Some(boot.image.kernel), Some(boot.image.initrd), boot.image.squashfs, Some(boot.user_data)];
    image.into_iter().flatten().chain(boot.scripts.iter().map(|s| s.body)).collect()
}
