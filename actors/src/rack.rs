//! A rack as the region sees it: its link, what it said of itself, which plan it has and which it should have. Its inside is `agent`'s.

mod health;

use std::time::Duration;

use schema::{
    id::{AttemptId, Generation, RackId, ReportSeq, SystemId},
    messages::link::{Hello, RackInterface},
    plan::Listening,
    service::ServiceStatus,
    time::Timestamp,
    wait::{OwedBy, Wait},
};
use serde::{Deserialize, Serialize};

pub use self::health::{Duty, Unfit};
use crate::core::{Core, Resume, Step, Verdict, View};

/// How long a rack may take to make a plan durable before it is sent whole again.
const PLAN: Duration = Duration::from_secs(30);
/// How long a rack may be away before it counts as lost.
const AWAY: Duration = Duration::from_secs(60);

/// One enrolled rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rack {
    pub id: RackId,
    pub link: LinkState,
    /// Since when the link is as it is.
    pub since: Timestamp,
    /// What it said of itself last; `None` before its first connection.
    pub facts: Option<RackFacts>,
    /// The plan it should have.
    pub plan_wanted: Generation,
    /// The plan it said is durable and in force.
    pub plan_in_force: Generation,
    /// How often the wanted plan was sent without an answer.
    pub plan_tries: u32,
    /// The highest report that is durable here, as of the last connection's begin or end.
    pub last_report: ReportSeq,
    /// How its services stood when one of them last changed, without counters; empty before the first word of a connection.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// Since when it says nothing of its services although it is linked.
    #[serde(default)]
    pub silent: Option<Timestamp>,
    pub wait: Option<Wait>,
    /// How its clock stands, as it said last.
    #[serde(default)]
    pub clock: Option<RackClock>,
    /// Its link was closed since its certificate is not admitted any more.
    #[serde(default)]
    pub revoked: bool,
}

/// Why a link is closed whose rack's certificate was revoked.
pub const REVOKED: &str = "the rack's certificate was revoked";

/// A rack's clock, as the region reckons it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackClock {
    /// Milliseconds before the region's clock; negative: behind it. The way of the message is in it.
    pub ahead_ms: i64,
    /// Somebody on the rack keeps its clock and says that it is right.
    pub synchronised: bool,
}

/// Clocks that differ by more spoil deadlines and logins.
const CLOCK_OFF_MS: u64 = 5_000;

impl RackClock {
    /// Whether it differs from the region's by more than does no harm.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.ahead_ms.unsigned_abs() > CLOCK_OFF_MS
    }

    /// Whether another report says something new: by a second, or otherwise.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        self.synchronised != other.synchronised || self.ahead_ms.abs_diff(other.ahead_ms) >= 1_000
    }

    /// In words, with the remedy.
    #[must_use]
    pub fn said_of(&self, rack: RackId) -> String {
        let side = if self.ahead_ms < 0 { "behind" } else { "ahead of" };
        let kept =
            if self.synchronised { "keeps its clock by another source" } else { "has nobody who keeps its clock" };
        format!(
            "the clock of rack {rack} is {} s {side} the region's, and the rack {kept}: set ntp_servers and install chrony on it, and keep the region's clock by NTP too",
            self.ahead_ms.unsigned_abs() / 1_000
        )
    }
}

/// How a rack's link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Enrolled, never connected.
    Enrolled,
    Connected,
    /// Away for less than a minute.
    Disconnected,
    /// Away for longer.
    Lost,
}

/// What a rack says of itself, once per connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackFacts {
    pub version: String,
    pub hostname: String,
    pub interfaces: Vec<RackInterface>,
    pub listening: Vec<Listening>,
    /// Attempts whose orders it holds.
    pub orders: Vec<(SystemId, AttemptId)>,
}

impl From<&Hello> for RackFacts {
    fn from(hello: &Hello) -> Self {
        Self {
            version: hello.version.clone(),
            hostname: hello.hostname.clone(),
            interfaces: hello.interfaces.clone(),
            listening: hello.listening.clone(),
            orders: hello.orders.clone(),
        }
    }
}

/// What happens to a rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum RackEvent {
    /// Its connection was welcomed and it said what it is. `plan` is the generation it holds.
    Connected {
        facts: RackFacts,
        plan: Generation,
        last_report: ReportSeq,
        /// These are its first words on a new connection.
        #[serde(default)]
        anew: bool,
    },
    /// Its connection ended.
    Disconnected {
        why: String,
        last_report: ReportSeq,
    },
    /// Another plan was composed for it and, when it is connected, sent.
    PlanWanted {
        generation: Generation,
    },
    /// It says that plan is durable and in force.
    PlanInForce {
        generation: Generation,
    },
    /// It said how its clock stands, and that was news.
    ClockHeard {
        clock: RackClock,
    },
    /// A service of it changed, or it speaks again after a silence. Without counters.
    Services {
        services: Vec<ServiceStatus>,
    },
    /// It is linked and has said nothing of its services for too long.
    Silent,
    Elapsed {
        timer: RackTimer,
    },
}

/// Timers of a rack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RackTimer {
    Plan,
    Away,
}

/// What a rack's decision asks of the hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RackEffect {
    /// Send the whole plan of the wanted generation.
    SendPlan,
    /// Tell the machines whose orders it holds that its link is up, or down.
    TellMachines { up: bool },
    /// Tell them that it began anew before its loss was seen.
    TellBegan,
    /// What it can be counted on for may be another: plans and names are composed anew.
    HealthChanged,
    /// What keeps it from booting machines is another: those that it boots are told.
    TellAilment,
}

impl Rack {
    /// A rack that was just enrolled.
    #[must_use]
    pub fn enrolled(id: RackId, now: Timestamp) -> Self {
        Self {
            id,
            link: LinkState::Enrolled,
            since: now,
            facts: None,
            plan_wanted: Generation(0),
            plan_in_force: Generation(0),
            plan_tries: 0,
            last_report: ReportSeq(0),
            services: Vec::new(),
            silent: None,
            wait: None,
            clock: None,
            revoked: false,
        }
    }

    fn ails_otherwise(&self, next: &Self) -> Option<RackEffect> {
        (self.ailment() != next.ailment()).then_some(RackEffect::TellAilment)
    }

    fn to_link(&self, link: LinkState, now: Timestamp) -> Self {
        Self { link, since: if self.link == link { self.since } else { now }, ..self.clone() }
    }

    /// The state with its wait and the timer that ends it.
    fn expecting(mut self, now: Timestamp) -> Step<Self> {
        let (timer, wait) = match self.link {
            LinkState::Connected if self.plan_in_force < self.plan_wanted => (RackTimer::Plan, self.plan_wait(now)),
            LinkState::Disconnected => (RackTimer::Away, self.away_wait()),
            _ => {
                self.wait = None;
                return Step::moved(self);
            }
        };
        self.wait = Some(wait.clone());
        let deadline = wait.deadline;
        Step::waiting(self, wait).arm(timer, deadline)
    }

    /// The state with the wait that it has, whose timer runs on.
    fn waiting_on(self) -> Step<Self> {
        match self.wait.clone() {
            Some(wait) => Step::waiting(self, wait),
            None => Step::moved(self),
        }
    }

    fn plan_wait(&self, now: Timestamp) -> Wait {
        let tries = self.plan_tries;
        let mut evidence =
            vec![format!("it has plan {}; the wanted one was sent {tries} times again", self.plan_in_force)];
        evidence.extend(self.clock.filter(RackClock::is_off).map(|clock| clock.said_of(self.id)));
        Wait {
            what: format!("plan {} in force on rack {}", self.plan_wanted, self.id),
            owed_by: OwedBy::Rack(self.id),
            since: now,
            deadline: now + PLAN,
            evidence,
            on_timeout: "the whole plan is sent again".into(),
            remedy: "look at the rack's log: it says why it refuses the plan (a full disk, a newer version)".into(),
        }
    }

    fn away_wait(&self) -> Wait {
        Wait {
            what: format!("rack {} to dial in again", self.id),
            owed_by: OwedBy::Rack(self.id),
            since: self.since,
            deadline: self.since + AWAY,
            evidence: Vec::new(),
            on_timeout: "it counts as lost; it serves on by itself, and other racks take its orders".into(),
            remedy: "check the rack's host and that it reaches the region's UDP port 5250".into(),
        }
    }
}

impl Core for Rack {
    const KIND: &'static str = "rack";
    type Id = RackId;
    type Event = RackEvent;
    type Effect = RackEffect;
    type Timer = RackTimer;

    fn id(&self) -> RackId {
        self.id
    }

    fn step(&self, event: &RackEvent, now: Timestamp) -> Step<Self> {
        match event {
            RackEvent::Connected { facts, plan, last_report, anew } => {
                let next = Self {
                    facts: Some(facts.clone()),
                    plan_in_force: *plan,
                    plan_tries: 0,
                    last_report: *last_report,
                    since: now,
                    // A second Hello on the same connection changes nothing of them; what was before is not known of it any more.
                    services: if self.link == LinkState::Connected && !anew {
                        self.services.clone()
                    } else {
                        Vec::new()
                    },
                    silent: None,
                    revoked: false,
                    ..self.to_link(LinkState::Connected, now)
                };
                let ails = self.ails_otherwise(&next);
                let unseen = *anew && self.link == LinkState::Connected;
                let told = if unseen { RackEffect::TellBegan } else { RackEffect::TellMachines { up: true } };
                let all = [told, RackEffect::HealthChanged];
                next.expecting(now).with(all).with(ails)
            }
            RackEvent::Disconnected { .. } if self.link != LinkState::Connected => {
                Step::ignored("the rack was not connected")
            }
            RackEvent::Disconnected { why, last_report } => {
                let (last_report, revoked) = (*last_report, why == REVOKED);
                let next = Self { last_report, revoked, ..self.to_link(LinkState::Disconnected, now) };
                let ails = self.ails_otherwise(&next);
                next.expecting(now).with([RackEffect::TellMachines { up: false }, RackEffect::HealthChanged]).with(ails)
            }
            RackEvent::Services { .. } | RackEvent::Silent if self.link != LinkState::Connected => {
                Step::ignored("the rack is not connected")
            }
            RackEvent::Services { services } if self.silent.is_none() && *services == self.services => {
                Step::ignored("its services stand so already")
            }
            RackEvent::Services { services } => {
                let next = Self { services: services.clone(), silent: None, ..self.clone() };
                let ails = self.ails_otherwise(&next);
                next.waiting_on().with([RackEffect::HealthChanged]).with(ails)
            }
            RackEvent::Silent if self.silent.is_some() => Step::ignored("that is known"),
            RackEvent::Silent => {
                let effects = [RackEffect::HealthChanged, RackEffect::TellAilment];
                Self { silent: Some(now), ..self.clone() }.waiting_on().with(effects)
            }
            RackEvent::PlanWanted { generation } if *generation == self.plan_wanted => {
                Step::ignored("that plan is the wanted one already")
            }
            RackEvent::PlanWanted { generation } => {
                Self { plan_wanted: *generation, plan_tries: 0, ..self.clone() }.expecting(now)
            }
            RackEvent::PlanInForce { generation } if *generation == self.plan_in_force => {
                Step::ignored("that plan was in force already")
            }
            RackEvent::PlanInForce { generation } => {
                let mut step = Self { plan_in_force: *generation, plan_tries: 0, ..self.clone() }.expecting(now);
                if matches!(step.verdict, Verdict::Moved) {
                    step.timers.push(crate::core::TimerOp::Cancel { timer: RackTimer::Plan });
                }
                step
            }
            RackEvent::ClockHeard { clock } => Self { clock: Some(*clock), ..self.clone() }.expecting(now),
            RackEvent::Elapsed { timer: RackTimer::Plan } => {
                let overdue = self.link == LinkState::Connected && self.plan_in_force < self.plan_wanted;
                if !overdue {
                    return Step::ignored("no plan is owed");
                }
                let next = Self { plan_tries: self.plan_tries.saturating_add(1), ..self.clone() };
                next.expecting(now).with([RackEffect::SendPlan])
            }
            RackEvent::Elapsed { timer: RackTimer::Away } => {
                if self.link != LinkState::Disconnected {
                    return Step::ignored("the rack is not away");
                }
                self.to_link(LinkState::Lost, now).expecting(now)
            }
        }
    }

    /// After a restart of the region no link stands: what was connected is away from now on.
    fn resume(&self, now: Timestamp) -> Resume<Self> {
        let timers = match self.link {
            LinkState::Connected | LinkState::Disconnected => {
                let timer = if self.link == LinkState::Connected { RackTimer::Plan } else { RackTimer::Away };
                vec![crate::core::TimerOp::Arm { timer, at: now + AWAY }]
            }
            LinkState::Enrolled | LinkState::Lost => Vec::new(),
        };
        Resume { effects: Vec::new(), timers }
    }

    fn elapsed(timer: RackTimer) -> RackEvent {
        RackEvent::Elapsed { timer }
    }

    fn view(&self) -> View {
        let state = match self.link {
            LinkState::Enrolled => "enrolled",
            LinkState::Connected => "connected",
            LinkState::Disconnected => "disconnected",
            LinkState::Lost => "lost",
        };
        let detail = serde_json::to_value(self).unwrap_or_default();
        View { state: state.into(), wait: self.wait.clone(), detail }
    }
}

#[cfg(test)]
mod tests {
    use schema::{catalogue::RackEntry, service::Health};

    use super::*;
    use crate::core::TimerOp;

    fn now(s: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + s)
    }

    fn facts() -> RackFacts {
        RackFacts {
            version: "0.1.0".into(),
            hostname: "r1".into(),
            interfaces: Vec::new(),
            listening: Vec::new(),
            orders: Vec::new(),
        }
    }

    fn connected() -> RackEvent {
        RackEvent::Connected { facts: facts(), plan: Generation(0), last_report: ReportSeq(0), anew: true }
    }

    fn after(rack: &Rack, event: RackEvent, at: i64) -> Rack {
        rack.step(&event, now(at)).next.unwrap()
    }

    #[test]
    fn a_plan_is_owed_until_it_is_in_force_and_sent_again_when_it_is_not() {
        let rack = Rack::enrolled("rack01".parse().unwrap(), now(0));
        let rack = after(&rack, connected(), 1);
        assert_eq!((rack.link, &rack.wait), (LinkState::Connected, &None));
        let step = rack.step(&RackEvent::PlanWanted { generation: Generation(4) }, now(2));
        let Verdict::Waiting(wait) = &step.verdict else { panic!("{:?}", step.verdict) };
        assert_eq!(wait.deadline, now(32));
        let rack = step.next.unwrap();
        let late = rack.step(&RackEvent::Elapsed { timer: RackTimer::Plan }, now(32));
        assert_eq!(late.effects, [RackEffect::SendPlan]);
        let done = late.next.unwrap().step(&RackEvent::PlanInForce { generation: Generation(4) }, now(33));
        assert_eq!(done.timers, [TimerOp::Cancel { timer: RackTimer::Plan }]);
        assert_eq!(done.next.unwrap().wait, None);
    }

    fn status(service: &str, health: Health) -> ServiceStatus {
        let (addresses, counters) = (Vec::new(), Vec::new());
        let service = service.into();
        ServiceStatus { service, health, since: now(0), addresses, counters, last_error: None, restarts: 0 }
    }

    #[test]
    fn it_is_fit_for_what_it_serves_while_it_speaks_and_is_not_drained() {
        let (id, hostname, certificate_sha256) = ("rack01".parse().unwrap(), "r1".into(), String::new());
        let entry = RackEntry { id, hostname, certificate_sha256, revoked: false, drained: None };
        let rack = Rack::enrolled("rack01".parse().unwrap(), now(0));
        assert!(rack.fit(Duty::Power, &entry).unwrap_err().why.contains("never connected"));
        let rack = after(&rack, connected(), 1);
        assert!(Duty::ALL.iter().all(|duty| rack.fit(*duty, &entry).is_ok()), "before its first word");
        let services =
            vec![status("http", Health::Degraded), status("dhcp", Health::Dead), status("power", Health::Off)];
        let step = rack.step(&RackEvent::Services { services: services.clone() }, now(2));
        assert_eq!(step.effects, [RackEffect::HealthChanged, RackEffect::TellAilment]);
        let rack = step.next.unwrap();
        assert!(rack.step(&RackEvent::Services { services: services.clone() }, now(4)).next.is_none());
        assert!(rack.fit(Duty::Names, &entry).is_ok());
        for duty in [Duty::Boot, Duty::Dhcp] {
            assert!(rack.fit(duty, &entry).unwrap_err().why.contains("dhcp is dead"), "{duty:?}");
        }
        let boots = |tftp| {
            let services =
                [("http", Health::Running), ("dhcp", Health::Degraded), ("tftp", tftp)].map(|(s, h)| status(s, h));
            after(&rack, RackEvent::Services { services: services.into() }, 3).fit(Duty::Boot, &entry)
        };
        // Some firmware boots without TFTP: who switched it off meant it.
        assert_eq!([Health::Running, Health::Off].map(|tftp| boots(tftp).is_ok()), [true, true]);
        assert!(boots(Health::Dead).unwrap_err().why.contains("tftp is dead"));
        assert!(rack.fit(Duty::Power, &entry).unwrap_err().why.contains("does not serve power"));
        let drained = RackEntry { drained: Some(now(3)), ..entry.clone() };
        assert!(rack.fit(Duty::Names, &drained).unwrap_err().remedy.contains("--undo"));
        assert!(rack.alive(&drained).is_ok());
        let hung = after(&rack, RackEvent::Silent, 9);
        assert!(hung.fit(Duty::Names, &entry).unwrap_err().why.contains("said nothing"));
        assert_eq!(hung.word(&services[0]), "unknown");
        assert!(hung.step(&RackEvent::Silent, now(10)).next.is_none());
        let back = after(&hung, RackEvent::Services { services }, 11);
        assert!(back.fit(Duty::Names, &entry).is_ok());
    }

    #[test]
    fn what_keeps_it_from_booting_machines_is_told_when_it_is_another() {
        let rack = after(&Rack::enrolled("rack01".parse().unwrap(), now(0)), connected(), 1);
        let say = |services| RackEvent::Services { services };
        let well = vec![status("dhcp", Health::Running), status("ntp", Health::Dead)];
        let step = rack.step(&say(well.clone()), now(2));
        assert_eq!(
            (step.effects.as_slice(), step.next.as_ref().unwrap().ailment()),
            (&[RackEffect::HealthChanged][..], None)
        );
        let error =
            schema::service::ServiceError { at: now(3), why: "No space left".into(), remedy: "make room".into() };
        let disk = ServiceStatus { last_error: Some(error), ..status(ServiceStatus::DISK, Health::Dead) };
        let full = step.next.unwrap().step(&say([well.clone(), vec![disk]].concat()), now(3));
        assert_eq!(full.effects, [RackEffect::HealthChanged, RackEffect::TellAilment]);
        let full = full.next.unwrap();
        let ailment = full.ailment().unwrap();
        assert!(
            !ailment.serves && ailment.why.contains("disk") && ailment.why.contains("No space left"),
            "{ailment:?}"
        );
        let (id, hostname, certificate_sha256) = ("rack01".parse().unwrap(), "r1".into(), String::new());
        let entry = RackEntry { id, hostname, certificate_sha256, revoked: false, drained: None };
        assert!(Duty::ALL.iter().all(|duty| full.fit(*duty, &entry).unwrap_err().remedy == "make room"));
        // It died and is back within its silence; what it lacked then is not known of it any more.
        let back = full.step(&connected(), now(5));
        assert_eq!(back.effects, [RackEffect::TellBegan, RackEffect::HealthChanged, RackEffect::TellAilment]);
        assert_eq!(after(&full, say(well), 6).ailment(), None);
    }

    #[test]
    fn a_clock_that_is_off_is_told_with_seconds_and_remedy() {
        let rack = Rack::enrolled("rack01".parse().unwrap(), now(0));
        let rack = after(&rack, connected(), 1);
        let clock = RackClock { ahead_ms: -41_200, synchronised: false };
        let rack = after(&rack, RackEvent::ClockHeard { clock }, 2);
        assert!(clock.is_off() && !clock.differs(&RackClock { ahead_ms: -41_900, ..clock }));
        let wait = after(&rack, RackEvent::PlanWanted { generation: Generation(4) }, 3).wait.unwrap();
        assert!(wait.evidence.iter().any(|e| e.contains("41 s behind") && e.contains("ntp_servers")), "{wait:?}");
    }

    #[test]
    fn a_rack_that_stays_away_is_lost_after_a_minute() {
        let rack = Rack::enrolled("rack01".parse().unwrap(), now(0));
        let rack = after(&rack, connected(), 1);
        let away = RackEvent::Disconnected { why: "idle".into(), last_report: ReportSeq(9) };
        let step = rack.step(&away, now(10));
        assert_eq!(step.effects, [RackEffect::TellMachines { up: false }, RackEffect::HealthChanged]);
        assert_eq!(step.timers, [TimerOp::Arm { timer: RackTimer::Away, at: now(70) }]);
        let away_for_now = step.next.unwrap();
        let (id, hostname, certificate_sha256) = (rack.id, String::new(), String::new());
        let entry = RackEntry { id, hostname, certificate_sha256, revoked: false, drained: None };
        assert!(away_for_now.is_awaited(&entry, false));
        assert!(!away_for_now.is_awaited(&RackEntry { drained: Some(now(3)), ..entry.clone() }, false));
        let rack = after(&away_for_now, RackEvent::Elapsed { timer: RackTimer::Away }, 70);
        assert!(!rack.is_awaited(&entry, false));
        assert_eq!((rack.link, rack.last_report, rack.wait.is_none()), (LinkState::Lost, ReportSeq(9), true));
        assert!(matches!(rack.step(&away, now(71)).verdict, Verdict::Ignored { .. }), "a repeat is harmless");
    }
}
