//! One service of a rack under supervision: started, looked at, and started again with back-off when it does not serve. What it serves is its own.

use std::{net::SocketAddr, time::Duration};

use schema::{
    id::RackId,
    service::{Health, ServiceError, ServiceStatus},
    time::Timestamp,
    wait::{OwedBy, Wait},
};
use serde::Serialize;

use crate::core::{Core, Resume, Step, TimerOp, View};

/// How long a start may take before it is called stuck.
const START: Duration = Duration::from_secs(30);
/// The pause after the first failure; each failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Who served that long begins with the first pause again.
const STEADY: Duration = Duration::from_secs(60);

/// A service, as its supervisor knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// The rack that it is of.
    pub rack: RackId,
    /// "dhcp", "tftp", …
    pub name: &'static str,
    pub state: ServiceState,
    /// Since when its health is so.
    pub since: Timestamp,
    /// How often it was started again.
    pub restarts: u32,
    /// Failures since it last served for a minute.
    pub failures: u32,
    pub last_error: Option<ServiceError>,
    pub wait: Option<Wait>,
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ServiceState {
    /// Nobody wants it.
    Off,
    /// Its start is under way.
    Starting,
    Serving {
        addresses: Vec<SocketAddr>,
        /// Not all that it should; the last error says what.
        degraded: bool,
    },
    /// It does not serve, and is started again then.
    Resting { until: Timestamp },
}

/// What went wrong with a service, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFault {
    pub why: String,
    pub remedy: String,
}

impl ServiceFault {
    /// Errors of this house say why, then, after a semicolon, what to do.
    #[must_use]
    pub fn said(error: &str) -> Self {
        let (why, remedy) = error.split_once("; ").unwrap_or((error, "see the rack's log"));
        Self { why: why.into(), remedy: remedy.into() }
    }
}

impl<E: std::error::Error> From<E> for ServiceFault {
    fn from(error: E) -> Self {
        Self::said(&error.to_string())
    }
}

/// What happens to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceEvent {
    /// It is wanted.
    Start,
    /// It is wanted no more.
    Stop,
    /// Its start succeeded.
    Started {
        addresses: Vec<SocketAddr>,
    },
    /// Its start did not succeed.
    Failed {
        fault: ServiceFault,
    },
    /// It served, and does not any more.
    Died {
        fault: ServiceFault,
    },
    /// It serves less than it should.
    Degraded {
        fault: ServiceFault,
    },
    /// It serves all that it should, perhaps elsewhere than before.
    Well {
        addresses: Vec<SocketAddr>,
    },
    Elapsed {
        timer: ServiceTimer,
    },
}

/// Timers of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceTimer {
    /// Its start takes too long.
    Stuck,
    /// The pause is over.
    Again,
}

/// What a service's decision asks of its hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceEffect {
    /// Start it; the answer is [`ServiceEvent::Started`] or [`ServiceEvent::Failed`].
    Start,
    /// End what runs of it.
    Stop,
}

impl Service {
    /// A service that nobody wants yet.
    #[must_use]
    pub fn off(rack: RackId, name: &'static str, now: Timestamp) -> Self {
        let (restarts, failures) = (0, 0);
        Self { rack, name, state: ServiceState::Off, since: now, restarts, failures, last_error: None, wait: None }
    }

    /// How it is, in MAAS's words.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.state {
            ServiceState::Off => Health::Off,
            ServiceState::Serving { degraded: false, .. } => Health::Running,
            ServiceState::Serving { degraded: true, .. } => Health::Degraded,
            ServiceState::Starting | ServiceState::Resting { .. } => Health::Dead,
        }
    }

    /// Where it serves now.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        match &self.state {
            ServiceState::Serving { addresses, .. } => addresses,
            _ => &[],
        }
    }

    /// What is said of it; the counters are the running service's own.
    #[must_use]
    pub fn status(&self) -> ServiceStatus {
        ServiceStatus {
            service: self.name.into(),
            health: self.health(),
            since: self.since,
            addresses: self.addresses().to_vec(),
            counters: Vec::new(),
            last_error: self.last_error.clone(),
            restarts: self.restarts,
        }
    }

    fn to(&self, state: ServiceState, now: Timestamp) -> Self {
        let mut next = Self { state, wait: None, ..self.clone() };
        if next.health() != self.health() {
            next.since = now;
        }
        next
    }

    fn with_error(mut self, fault: &ServiceFault, now: Timestamp) -> Self {
        self.last_error = Some(ServiceError { at: now, why: fault.why.clone(), remedy: fault.remedy.clone() });
        self
    }

    fn start(&self, now: Timestamp) -> Step<Self> {
        let next = self.to(ServiceState::Starting, now);
        let deadline = now + START;
        next.expecting(now, deadline).arm(ServiceTimer::Stuck, deadline).with([ServiceEffect::Start])
    }

    /// It does not serve: it rests, longer after each failure.
    fn rest(&self, fault: &ServiceFault, now: Timestamp) -> Step<Self> {
        let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures));
        let until = now + doubled.min(LONGEST_PAUSE);
        let mut next = self.to(ServiceState::Resting { until }, now).with_error(fault, now);
        next.failures = self.failures.saturating_add(1);
        next.expecting(now, until).arm(ServiceTimer::Again, until)
    }

    fn expecting(mut self, now: Timestamp, deadline: Timestamp) -> Step<Self> {
        let starting = self.state == ServiceState::Starting;
        let error = self.last_error.as_ref();
        let wait = Wait {
            what: if starting { format!("{} to start", self.name) } else { format!("the next start of {}", self.name) },
            owed_by: OwedBy::Rack(self.rack),
            since: now,
            deadline,
            evidence: error.map(|e| format!("{}: {}", e.at, e.why)).into_iter().collect(),
            on_timeout: if starting {
                "the start is called stuck and waited for".into()
            } else {
                "it is started".into()
            },
            remedy: error.map_or_else(|| "nothing yet".into(), |e| e.remedy.clone()),
        };
        self.wait = Some(wait.clone());
        Step::waiting(self, wait)
    }

    fn died(&self, fault: &ServiceFault, now: Timestamp) -> Step<Self> {
        let steady = now.since(self.since) >= STEADY;
        let failures = if steady { 0 } else { self.failures };
        Self { failures, ..self.clone() }.rest(fault, now).with([ServiceEffect::Stop])
    }

    fn degraded(&self, fault: &ServiceFault, now: Timestamp) -> Step<Self> {
        let addresses = self.addresses().to_vec();
        let known = self.last_error.as_ref().is_some_and(|e| e.why == fault.why);
        if known && self.health() == Health::Degraded {
            return Step::ignored("that is known");
        }
        Step::moved(self.to(ServiceState::Serving { addresses, degraded: true }, now).with_error(fault, now))
    }

    fn elapsed_at(&self, timer: ServiceTimer, now: Timestamp) -> Step<Self> {
        match (timer, &self.state) {
            (ServiceTimer::Again, ServiceState::Resting { until }) if now < *until => {
                Step::ignored("the timer came early").arm(ServiceTimer::Again, *until)
            }
            (ServiceTimer::Again, ServiceState::Resting { .. }) => {
                Self { restarts: self.restarts.saturating_add(1), ..self.clone() }.start(now)
            }
            (ServiceTimer::Stuck, ServiceState::Starting) => {
                let why = format!("its start has not come to an end in {} s", START.as_secs());
                let fault = ServiceFault { why, remedy: "restart the rack if this stays so".into() };
                let deadline = now + START;
                self.clone().with_error(&fault, now).expecting(now, deadline).arm(ServiceTimer::Stuck, deadline)
            }
            _ => Step::ignored("that is over"),
        }
    }
}

impl Core for Service {
    const KIND: &'static str = "service";
    type Id = &'static str;
    type Event = ServiceEvent;
    type Effect = ServiceEffect;
    type Timer = ServiceTimer;

    fn id(&self) -> &'static str {
        self.name
    }

    fn step(&self, event: &ServiceEvent, now: Timestamp) -> Step<Self> {
        use ServiceEvent as E;
        use ServiceState as S;
        match (&self.state, event) {
            (S::Off, E::Start) => self.start(now),
            (S::Off, E::Started { .. }) => Step::moved(self.clone()).with([ServiceEffect::Stop]), // Stopped while it started.
            (S::Off, E::Stop) => Step::ignored("it is off"),
            (_, E::Stop) => Step::moved(self.to(S::Off, now)).with([ServiceEffect::Stop]),
            (S::Starting, E::Started { addresses }) => {
                Step::moved(self.to(S::Serving { addresses: addresses.clone(), degraded: false }, now))
            }
            (S::Starting, E::Failed { fault }) => self.rest(fault, now),
            (S::Serving { .. }, E::Died { fault }) => self.died(fault, now),
            (S::Serving { .. }, E::Degraded { fault }) => self.degraded(fault, now),
            (S::Serving { addresses: was, degraded: false }, E::Well { addresses }) if was == addresses => {
                Step::ignored("it serves so already")
            }
            (S::Serving { .. }, E::Well { addresses }) => {
                Step::moved(self.to(S::Serving { addresses: addresses.clone(), degraded: false }, now))
            }
            (_, E::Elapsed { timer }) => self.elapsed_at(*timer, now),
            _ => Step::ignored("that is over"),
        }
    }

    /// Nothing of it is kept over a restart of the rack.
    fn resume(&self, _now: Timestamp) -> Resume<Self> {
        let timers = match self.state {
            ServiceState::Resting { until } => vec![TimerOp::Arm { timer: ServiceTimer::Again, at: until }],
            _ => Vec::new(),
        };
        Resume { effects: Vec::new(), timers }
    }

    fn elapsed(timer: ServiceTimer) -> ServiceEvent {
        ServiceEvent::Elapsed { timer }
    }

    fn view(&self) -> View {
        let state = match &self.state {
            ServiceState::Off => "off",
            ServiceState::Starting => "starting",
            ServiceState::Serving { degraded: false, .. } => "serving",
            ServiceState::Serving { degraded: true, .. } => "degraded",
            ServiceState::Resting { .. } => "resting",
        };
        View { state: state.into(), wait: self.wait.clone(), detail: serde_json::Value::Null }
    }

    fn detail(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}
