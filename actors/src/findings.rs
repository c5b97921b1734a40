//! What deserves a look among actors: pure rules over their rows. Each finding says what, since when and what to do.

use std::time::Duration;

use schema::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::shell::{Gauge, Row};

/// An actor that is at one event for so long is blocked.
pub const BLOCKED: Duration = Duration::from_secs(1);
/// A mailbox with so many messages is flooded, whatever its capacity.
pub const FLOOD: usize = 100;
/// Messages that wait for so long wait too long.
pub const BEHIND: Duration = Duration::from_secs(1);
/// A timer or a wait that is over for so long should have been noticed.
pub const OVERDUE: Duration = Duration::from_secs(5);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something does not work.
    Critical,
    /// Something may not work soon, or works badly.
    Warning,
}

/// Something that deserves a look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule's name: `actor.blocked`, `rack.silent`, …
    pub id: String,
    pub severity: Severity,
    /// What it is about: an actor's path, a rack, or a cause.
    pub subject: String,
    pub since: Option<Timestamp>,
    pub text: String,
    pub remedy: String,
}

/// The rules' names with what they say, as the page about them lists them.
pub const RULES: &[(&str, &str)] = &[
    (
        "actor.blocked",
        "an actor has been deciding on one event for a second or more; the thread it is on does nothing else",
    ),
    ("actor.held", "an actor's step is decided and cannot be written for a second or more; the store is away or slow"),
    ("actor.flooded", "100 messages wait in a mailbox, or half of what it holds"),
    ("actor.behind", "a message has waited for a second or more in a mailbox"),
    ("actor.quarantined", "an actor decides no more, since its decision panicked three times in a row"),
    ("actor.panicked", "a decision, or what carries it out, has panicked since the actor woke"),
    ("store.stalled", "the region's database has taken no write for a second or more"),
    ("timer.overdue", "a timer should have rung five seconds ago"),
    ("wait.overdue", "a wait should have ended five seconds ago"),
    ("rack.lost", "an enrolled rack's link has been down for a minute or more"),
    ("rack.away", "an enrolled rack's link is down"),
    ("rack.silent", "a linked rack says nothing of its services"),
    ("rack.unasked", "a linked rack did not answer the inspector in time"),
    ("service.dead", "a service of a rack should serve and does not"),
    ("service.degraded", "a service of a rack serves in part"),
    ("machines.stuck", "machines wait for longer than they should, or have failed; one finding for each cause"),
];

/// Whether there can be a finding on such an actor at all: a quick look before the row is made.
#[must_use]
pub fn suspicious(gauge: &Gauge, now: Timestamp) -> bool {
    long(gauge.busy_us, BLOCKED)
        || flooded(gauge)
        || long(gauge.oldest_wait_us, BEHIND)
        || gauge.panics > 0
        || gauge.timer_due.is_some_and(|at| over(at, now))
}

/// What deserves a look about one actor. `path`: as listings name it.
#[must_use]
pub fn of_actor(path: &str, row: &Row, now: Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |id: &str, severity, since, text: String, remedy: &str| {
        found.push(Finding { id: id.into(), severity, subject: path.to_owned(), since, text, remedy: remedy.into() });
    };
    let gauge = &row.gauge;
    let ago = |us: u64| Some(now - Duration::from_micros(us));
    if let Some((at, why)) = &row.quarantine {
        let text = format!("decides no more: {why}");
        let remedy = "report the event that its page shows as a defect; a restart of the node wakes it again";
        add("actor.quarantined", Severity::Critical, Some(*at), text, remedy);
    } else if gauge.panics > 0 {
        let text = format!("{} panics since it woke; its state is the one before them", gauge.panics);
        add("actor.panicked", Severity::Warning, None, text, "report what the log says of it as a defect");
    }
    if let Some(us) = gauge.busy_us.filter(|_| long(gauge.busy_us, BLOCKED)) {
        let (event, span) = (row.current.as_deref().unwrap_or("an event"), words(us));
        if gauge.recording {
            let why = row.held.as_deref().unwrap_or("the store is slow");
            let text = format!("its step on {event} has waited {span} to be written: {why}");
            add("actor.held", Severity::Critical, ago(us), text, "look at the database and its disk");
        } else {
            let text = format!("blocked for {span} on {event}; no other actor of its thread decides meanwhile");
            let remedy = "report it as a defect with its page; if it does not end, restart the node";
            add("actor.blocked", Severity::Critical, ago(us), text, remedy);
        }
    }
    if flooded(gauge) {
        let text = format!("{} of {} messages wait in its mailbox", gauge.queue, gauge.capacity);
        let remedy = "see who sends them (its mailbox and messages), and what it waits for";
        add("actor.flooded", Severity::Warning, gauge.oldest_wait_us.and_then(ago), text, remedy);
    } else if let Some(us) = gauge.oldest_wait_us.filter(|_| long(gauge.oldest_wait_us, BEHIND)) {
        let text = format!("its oldest message has waited {}", words(us));
        add("actor.behind", Severity::Warning, ago(us), text, "look for a blocked actor on the same node");
    }
    if let Some(at) = gauge.timer_due.filter(|at| over(*at, now)) {
        let text = format!("a timer was due at {at} and has not rung");
        add("timer.overdue", Severity::Warning, Some(at), text, "look for a blocked actor on the same node");
    }
    if let Some(wait) = row.wait.as_ref().filter(|wait| over(wait.deadline, now)) {
        let text = format!("waits for {}, owed by {}, until {}", wait.what, wait.owed_by, wait.deadline);
        add("wait.overdue", Severity::Warning, Some(wait.since), text, &wait.remedy);
    }
    found
}

/// The worst first, then the oldest, then by name.
pub fn sort(findings: &mut [Finding]) {
    let key = |f: &Finding| (f.severity, f.since.unwrap_or(Timestamp(i64::MAX)), f.id.clone(), f.subject.clone());
    findings.sort_by_cached_key(key);
}

fn long(us: Option<u64>, limit: Duration) -> bool {
    us.is_some_and(|us| Duration::from_micros(us) >= limit)
}

fn flooded(gauge: &Gauge) -> bool {
    gauge.queue >= FLOOD || gauge.queue > 4 && gauge.queue * 2 >= gauge.capacity
}

fn over(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) >= OVERDUE && now > at
}

/// A span as people read it.
#[must_use]
pub fn words(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..120_000_000 => format!("{:.1} s", us as f64 / 1_000_000.0),
        _ => format!("{} min", us / 60_000_000),
    }
}

#[cfg(test)]
mod tests {
    use schema::wait::{OwedBy, Wait};

    use super::*;

    fn row(gauge: Gauge) -> Row {
        Row {
            kind: "machine".into(),
            id: "aaaaaa".into(),
            parent: "machine".into(),
            state: "New".into(),
            wait: None,
            gauge: Gauge { capacity: 256, ..gauge },
            current: Some("Commission".into()),
            quarantine: None,
            held: None,
        }
    }

    fn ids(row: &Row, now: Timestamp) -> Vec<String> {
        let found = of_actor("region/machine/aaaaaa", row, now);
        assert!(
            found.iter().all(|f| RULES.iter().any(|(id, _)| *id == f.id) && !f.remedy.is_empty() && !f.text.is_empty())
        );
        found.into_iter().map(|f| f.id).collect()
    }

    #[test]
    fn each_rule_finds_its_case_and_a_quiet_actor_none() {
        let now = Timestamp::from_seconds(1_000);
        let second = Some(1_000_000);
        let cases: Vec<(Row, &str)> = vec![
            (row(Gauge { busy_us: second, ..Gauge::default() }), "actor.blocked"),
            (row(Gauge { busy_us: second, recording: true, ..Gauge::default() }), "actor.held"),
            (row(Gauge { queue: 100, ..Gauge::default() }), "actor.flooded"),
            (row(Gauge { oldest_wait_us: second, queue: 2, ..Gauge::default() }), "actor.behind"),
            (row(Gauge { panics: 1, ..Gauge::default() }), "actor.panicked"),
            (row(Gauge { timer_due: Some(Timestamp::from_seconds(994)), ..Gauge::default() }), "timer.overdue"),
            (Row { quarantine: Some((now, "why".into())), ..row(Gauge::default()) }, "actor.quarantined"),
        ];
        for (row, id) in cases {
            assert_eq!(ids(&row, now), [id]);
            assert!(row.quarantine.is_some() || suspicious(&row.gauge, now), "{id}");
        }
        let wait = Wait {
            what: "a DHCP request".into(),
            owed_by: OwedBy::Machine,
            since: Timestamp::from_seconds(900),
            deadline: Timestamp::from_seconds(990),
            evidence: Vec::new(),
            on_timeout: String::new(),
            remedy: "look at the cable".into(),
        };
        assert_eq!(ids(&Row { wait: Some(wait.clone()), ..row(Gauge::default()) }, now), ["wait.overdue"]);
        assert!(ids(&Row { wait: Some(wait), ..row(Gauge::default()) }, Timestamp::from_seconds(991)).is_empty());
        let quiet = row(Gauge { queue: 3, busy_us: Some(900_000), timer_due: Some(now), ..Gauge::default() });
        assert!(ids(&quiet, now).is_empty() && !suspicious(&quiet.gauge, now));
    }

    #[test]
    fn the_worst_and_oldest_come_first() {
        let now = Timestamp::from_seconds(10);
        let finding = |severity, since| Finding {
            id: "x".into(),
            severity,
            subject: "s".into(),
            since,
            text: String::new(),
            remedy: String::new(),
        };
        let mut all = vec![
            finding(Severity::Warning, Some(Timestamp(0))),
            finding(Severity::Critical, None),
            finding(Severity::Critical, Some(now)),
        ];
        sort(&mut all);
        assert_eq!(
            all.iter().map(|f| (f.severity, f.since)).collect::<Vec<_>>(),
            [(Severity::Critical, Some(now)), (Severity::Critical, None), (Severity::Warning, Some(Timestamp(0)))]
        );
    }
}
