//! The rack's own core: its links, its plan, its services, the orders it holds. What one order does is the errand's; packets are nobody's here.

use std::{collections::BTreeMap, time::Duration};

use schema::{
    id::{AttemptId, Generation, RackId, SystemId},
    service::ServiceStatus,
    time::Timestamp,
    wait::{OwedBy, Wait},
};
use serde::{Deserialize, Serialize};

use crate::core::{Core, Resume, Step, TimerOp, View};

/// How long a rack without a region says that it waits for one; then it goes on alone, and says that.
const PATIENCE: Duration = Duration::from_secs(60);

/// A rack, as it knows itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub rack: RackId,
    /// By HOST:PORT as configured. Empty: it serves a plan file alone.
    pub regions: BTreeMap<String, RegionLink>,
    /// The plan in force; 0 is none.
    pub plan: Generation,
    /// By name: "dhcp", "tftp", "http", "power", …; without their counters.
    pub services: BTreeMap<String, ServiceStatus>,
    /// The orders under way.
    pub orders: BTreeMap<SystemId, AttemptId>,
    /// Set while no region is linked and it still counts on one.
    pub wait: Option<Wait>,
}

/// One region, from here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionLink {
    pub up: bool,
    /// Its id, once it said so.
    pub region: Option<SystemId>,
    /// Since when the link is up or down.
    pub since: Timestamp,
    /// Why there is no link, and what to do; empty while there is.
    pub why: String,
    pub remedy: String,
    /// Tries since the link was lost.
    pub tries: u32,
}

/// What happens to a rack.
#[derive(Debug, Clone)]
pub enum AgentEvent {
    LinkUp {
        address: String,
        region: SystemId,
    },
    LinkDown {
        address: String,
        why: String,
        remedy: String,
    },
    /// That plan is durable and in force.
    PlanInForce {
        generation: Generation,
    },
    /// An update does not fit the plan in force: the region at `address` is to send it whole.
    PlanGap {
        address: String,
    },
    /// A service changed.
    Service {
        status: ServiceStatus,
    },
    OrderHeld {
        machine: SystemId,
        attempt: AttemptId,
    },
    OrderOver {
        machine: SystemId,
        attempt: AttemptId,
    },
    /// The region asks anew what the rack is.
    HelloAsked {
        address: String,
    },
    Elapsed {
        timer: AgentTimer,
    },
}

/// Timers of a rack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgentTimer {
    /// The end of its patience with the regions.
    Alone,
}

/// What a rack's decision asks of its hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentEffect {
    /// Say what the rack is and holds, to that region.
    SayHello { address: String },
    /// Say that the plan is in force, to every region that is linked.
    SayPlanInForce { generation: Generation },
}

impl Agent {
    /// A rack that starts, with what its store kept.
    #[must_use]
    pub fn starting(
        rack: RackId,
        regions: impl IntoIterator<Item = String>,
        plan: Generation,
        orders: BTreeMap<SystemId, AttemptId>,
        now: Timestamp,
    ) -> Self {
        let link = RegionLink { since: now, why: "not dialled yet".into(), ..RegionLink::default() };
        let regions: BTreeMap<_, _> = regions.into_iter().map(|address| (address, link.clone())).collect();
        let agent = Self { rack, regions, plan, services: BTreeMap::new(), orders, wait: None };
        let wait = (!agent.regions.is_empty()).then(|| agent.dialling(now));
        Self { wait, ..agent }
    }

    /// Whether any region is linked.
    #[must_use]
    pub fn linked(&self) -> bool {
        self.regions.values().any(|link| link.up)
    }

    fn dialling(&self, now: Timestamp) -> Wait {
        let seen = |(address, link): (&String, &RegionLink)| {
            let why = if link.why.is_empty() { "the link ended" } else { &link.why };
            format!("{address}: {why}")
        };
        let remedy = self.regions.values().find(|link| !link.remedy.is_empty()).map(|link| link.remedy.clone());
        Wait {
            what: "a link to a region".into(),
            owed_by: OwedBy::Region,
            since: now,
            deadline: now + PATIENCE,
            evidence: self.regions.iter().map(seen).collect(),
            on_timeout:
                "the rack goes on alone: it serves its plan, carries out the orders it holds and keeps reports on disk"
                    .into(),
            remedy: remedy.unwrap_or_else(|| "check that a region runs and that UDP 5250 passes both ways".into()),
        }
    }

    fn link(&self, address: &str, now: Timestamp, change: impl FnOnce(&mut RegionLink)) -> Option<Self> {
        let mut next = self.clone();
        let link = next.regions.get_mut(address)?;
        let was = link.up;
        change(link);
        if link.up != was {
            link.since = now;
        }
        Some(next)
    }

    fn linked_up(&self, address: &str, region: SystemId, now: Timestamp) -> Step<Self> {
        let up = |link: &mut RegionLink| {
            *link = RegionLink { up: true, region: Some(region), since: link.since, ..RegionLink::default() };
        };
        let Some(mut next) = self.link(address, now, up) else { return unknown(address) };
        next.wait = None;
        Step::moved(next).with([AgentEffect::SayHello { address: address.into() }])
    }

    fn linked_down(&self, address: &str, why: &str, remedy: &str, now: Timestamp) -> Step<Self> {
        let down = |link: &mut RegionLink| {
            link.tries = if link.up { 0 } else { link.tries.saturating_add(1) };
            link.up = false;
            why.clone_into(&mut link.why);
            remedy.clone_into(&mut link.remedy);
        };
        let Some(mut next) = self.link(address, now, down) else { return unknown(address) };
        if next.linked() {
            return Step::moved(next);
        }
        match &self.wait {
            // Patience runs from the first loss, not from the last try.
            Some(wait) => {
                let wait = Wait { since: wait.since, deadline: wait.deadline, ..next.dialling(now) };
                next.wait = Some(wait.clone());
                Step::waiting(next, wait)
            }
            None if self.linked() => {
                let wait = next.dialling(now);
                next.wait = Some(wait.clone());
                let deadline = wait.deadline;
                Step::waiting(next, wait).arm(AgentTimer::Alone, deadline)
            }
            None => Step::moved(next), // Alone before, and still.
        }
    }

    fn elapsed_at(&self, now: Timestamp) -> Step<Self> {
        let Some(wait) = &self.wait else { return Step::ignored("a region is linked, or none is counted on") };
        if now < wait.deadline {
            return Step::ignored("the timer came early").arm(AgentTimer::Alone, wait.deadline);
        }
        Step::moved(Self { wait: None, ..self.clone() })
    }
}

fn unknown(address: &str) -> Step<Agent> {
    Step::ignored(format!("{address} is no region of this rack"))
}

impl Core for Agent {
    const KIND: &'static str = "agent";
    type Id = RackId;
    type Event = AgentEvent;
    type Effect = AgentEffect;
    type Timer = AgentTimer;

    fn id(&self) -> RackId {
        self.rack
    }

    fn step(&self, event: &AgentEvent, now: Timestamp) -> Step<Self> {
        match event {
            AgentEvent::LinkUp { address, region } => self.linked_up(address, *region, now),
            AgentEvent::LinkDown { address, why, remedy } => self.linked_down(address, why, remedy, now),
            AgentEvent::PlanInForce { generation } => {
                let next = Self { plan: *generation, ..self.clone() };
                Step::moved(next).with([AgentEffect::SayPlanInForce { generation: *generation }])
            }
            AgentEvent::PlanGap { address } | AgentEvent::HelloAsked { address } => {
                match self.regions.get(address).filter(|link| link.up) {
                    None => Step::ignored(format!("{address} is not linked")),
                    Some(_) => Step::moved(self.clone()).with([AgentEffect::SayHello { address: address.clone() }]),
                }
            }
            AgentEvent::Service { status } if self.services.get(&status.service) == Some(status) => {
                Step::ignored(format!("{} stands so already", status.service))
            }
            AgentEvent::Service { status } => {
                let mut next = self.clone();
                next.services.insert(status.service.clone(), status.clone());
                Step::moved(next)
            }
            AgentEvent::OrderHeld { machine, attempt } => match self.orders.get(machine) {
                Some(held) if held >= attempt => Step::ignored(format!("attempt {held} is held")),
                _ => {
                    let mut next = self.clone();
                    next.orders.insert(*machine, *attempt);
                    Step::moved(next)
                }
            },
            AgentEvent::OrderOver { machine, attempt } => match self.orders.get(machine) {
                Some(held) if held == attempt => {
                    let mut next = self.clone();
                    next.orders.remove(machine);
                    Step::moved(next)
                }
                _ => Step::ignored(format!("no order of attempt {attempt} is held")),
            },
            AgentEvent::Elapsed { timer: AgentTimer::Alone } => self.elapsed_at(now),
        }
    }

    fn resume(&self, _now: Timestamp) -> Resume<Self> {
        let timers = self.wait.iter().map(|w| TimerOp::Arm { timer: AgentTimer::Alone, at: w.deadline }).collect();
        Resume { effects: Vec::new(), timers }
    }

    fn elapsed(timer: AgentTimer) -> AgentEvent {
        AgentEvent::Elapsed { timer }
    }

    fn view(&self) -> View {
        let state = match &self.wait {
            _ if self.regions.is_empty() => "plan file",
            _ if self.linked() => "linked",
            Some(_) => "dialling",
            None => "alone",
        };
        let detail = serde_json::to_value(self).unwrap_or_default();
        View { state: state.into(), wait: self.wait.clone(), detail }
    }
}
