//! What a rack says of its services: kept with its connection, told to its actor when it is another, and missed when it does not come.

use std::{sync::Arc, time::Duration};

use actors::{
    clock,
    core::TraceId,
    rack::{LinkState, Rack, RackEvent},
};
use schema::{
    service::{Health, ServiceStatus},
    time::Timestamp,
};

use super::Talking;
use crate::app::new_trace;

/// How often a connection is looked at for silence.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// A rack speaks every two seconds or so: three words missed are a silence.
const SILENCE: Duration = Duration::from_secs(6);
/// The first word may take longer: the rack is just starting.
const FIRST_WORD: Duration = Duration::from_secs(15);

impl Talking {
    /// The rack says how its services stand. Only what is another becomes a step of its actor.
    pub(super) async fn take_services(&self, services: Vec<ServiceStatus>, trace: TraceId) {
        let told: Vec<_> = services.iter().map(bare).collect();
        self.connected.heard(services, clock::now());
        let known = self.app.rack_state(self.rack);
        if known.is_none_or(|rack| rack.silent.is_some() || !same(&rack.services, &told)) {
            self.tell_rack(RackEvent::Services { services: told }, trace).await;
        }
    }

    /// Tells the actor, once, that the rack is silent. `listening`: since when it could have been heard.
    pub(super) async fn listen_for_silence(&self, listening: Timestamp) {
        let speaks = |rack: Arc<Rack>| rack.link == LinkState::Connected && rack.silent.is_none();
        if is_silent(self.connected.last_heard(), listening, clock::now())
            && self.app.rack_state(self.rack).is_some_and(speaks)
        {
            self.tell_rack(RackEvent::Silent, new_trace()).await;
        }
    }
}

/// Whether a rack is silent that was heard last then, by one who listens since `listening`.
fn is_silent(heard: Option<Timestamp>, listening: Timestamp, now: Timestamp) -> bool {
    match heard {
        Some(heard) => now.since(heard.max(listening)) > SILENCE,
        None => now.since(listening) > FIRST_WORD,
    }
}

/// A status as the actor keeps it: no counters, and an error only where it matters now.
fn bare(status: &ServiceStatus) -> ServiceStatus {
    let last_error = status.last_error.clone().filter(|_| matches!(status.health, Health::Degraded | Health::Dead));
    ServiceStatus { counters: Vec::new(), last_error, ..status.clone() }
}

/// The time of an error is no change: a service that fails over and over would write a row each time.
fn same(a: &[ServiceStatus], b: &[ServiceStatus]) -> bool {
    let why = |s: &ServiceStatus| s.last_error.as_ref().map(|e| e.why.clone());
    let one = |(a, b): (&ServiceStatus, &ServiceStatus)| {
        (&a.service, a.health, &a.addresses, a.restarts, why(a))
            == (&b.service, b.health, &b.addresses, b.restarts, why(b))
    };
    a.len() == b.len() && a.iter().zip(b).all(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + s)
    }

    #[test]
    fn three_words_missed_are_a_silence_and_the_first_may_take_longer() {
        assert!(!is_silent(Some(at(0)), at(-60), at(6)));
        assert!(is_silent(Some(at(0)), at(-60), at(7)));
        assert!(!is_silent(None, at(0), at(15)));
        assert!(is_silent(None, at(0), at(16)));
    }

    #[test]
    fn what_a_busy_region_did_not_read_is_no_silence() {
        // It was busy for a minute, and reads again since five seconds.
        assert!(!is_silent(Some(at(0)), at(60), at(65)));
        assert!(is_silent(Some(at(0)), at(60), at(67)));
    }
}
