//! "Why is this machine stuck?": the wait in words and the twelve steps, from the machine's state alone. Pure.

use std::{fmt::Write, time::Duration};

use actors::{
    core::TraceId,
    machine::Machine,
    rack::{Rack, RackClock},
};
use schema::{
    commissioning::{CommissionStep, StepRecord, StepState},
    id::{RackId, SystemId},
    messages::{link::ForeignDhcp, machine::Ailment},
    status::NodeStatus,
    time::Timestamp,
    wait::Wait,
};
use serde_json::{Value, json};

use super::{
    call::{Own, OwnAnswer, json},
    fault::Fault,
    house::House,
    shape::machine::fqdn,
};
use crate::store::Stalled;

mod causes;
pub mod strays;

pub use strays::Beside;

/// GET `/inspect/v1/explain/<id>`.
pub async fn show(Own(call): Own) -> OwnAnswer {
    call.user()?;
    super::inspect::nothing_asked(&call)?;
    let id = super::machines::id(&call).map_err(|_| Fault::NotFound("There is no machine of that id.".into()))?;
    Ok(json(&now(&call.house, id).await?))
}

/// The explanation of a machine as it stands, with all that racks and wires add to it.
///
/// # Errors
/// When there is no such machine, or the store does not answer.
pub async fn now(house: &House, id: SystemId) -> Result<Value, Fault> {
    let (machine, site) = (house.state(id).await?, house.site_ails().await);
    let strays = strays::known(house.app.links.strays(), |macs| house.app.tickets.of_macs(macs));
    // A look at every machine, for those only that it may concern.
    let same_power = if strays::boots(&machine) { house.app.tickets.of_power(&machine.spec) } else { Vec::new() };
    let beside = Beside { strays, same_power };
    Ok(with(&machine, &site, &house.app.links.foreign(), &beside, actors::clock::now()))
}

/// What ails racks and store that a machine's wait may come from.
#[derive(Debug, Clone, Default)]
pub struct SiteAils {
    clocks: Vec<String>,
    ailing: Vec<(RackId, Ailment)>,
    store: Option<Stalled>,
}

impl SiteAils {
    /// Before any rack is noted. `store`: the database takes no writes.
    #[must_use]
    pub fn new(store: Option<Stalled>) -> Self {
        Self { store, ..Self::default() }
    }

    /// A connected rack, as its actor has it.
    pub fn note(&mut self, id: RackId, rack: &Rack) {
        self.clocks.extend(rack.clock.filter(RackClock::is_off).map(|clock| clock.said_of(id)));
        self.ailing.extend(rack.ailment().map(|ailment| (id, ailment)));
    }

    /// What of it concerns a machine that waits, and what the machine itself does not know already.
    fn evidence(&self, m: &Machine) -> Vec<String> {
        let attempt = m.open_attempt();
        let news = |(id, ailment): &&(RackId, Ailment)| {
            attempt.is_some_and(|a| {
                a.boot_racks.contains(id) && !a.ailing.iter().any(|(of, known)| (of, known) == (id, ailment))
            })
        };
        let said = |(id, ailment): &(RackId, Ailment)| format!("rack {id}: {}; {}", ailment.why, ailment.remedy);
        self.clocks.iter().cloned().chain(self.ailing.iter().filter(news).map(said)).collect()
    }
}

/// The explanation, with what racks say of themselves and of clients that nobody expected among its evidence, and of other DHCP servers.
#[must_use]
pub fn with(m: &Machine, site: &SiteAils, heard: &[(RackId, ForeignDhcp)], beside: &Beside, now: Timestamp) -> Value {
    let beside_it = strays::told(m, beside);
    let evidence: Vec<_> = site.evidence(m).into_iter().chain(beside_it.iter().cloned()).collect();
    let mut explained = if evidence.is_empty() || m.wait.is_none() {
        at(m, now)
    } else {
        let mut m = m.clone();
        m.wait.iter_mut().for_each(|wait| wait.evidence.extend(evidence.iter().cloned()));
        at(&m, now)
    };
    if m.wait.is_none() && !beside_it.is_empty() {
        // It has failed meanwhile, and they are the reason as before.
        let mut text = explained["text"].as_str().unwrap_or_default().to_owned();
        beside_it.iter().for_each(|seen| line(&mut text, "seen", seen));
        explained["text"] = text.into();
    }
    explained["beside"] = beside_it.into();
    explained["foreign_dhcp"] = foreign(m, heard);
    let causes = causes::ranked(m, site, &explained);
    let text = explained["text"].as_str().unwrap_or_default();
    explained["text"] = format!("{text}{}", causes::text(&causes)).into();
    explained["causes"] = causes.into();
    explained
}

/// Other DHCP servers on the wires where the machine may ask: one of them may have answered it instead of us.
fn foreign(m: &Machine, heard: &[(RackId, ForeignDhcp)]) -> Value {
    let racks = m.open_attempt().map(|attempt| attempt.boot_racks.as_slice()).unwrap_or_default();
    let near = heard.iter().filter(|(rack, f)| f.proven && racks.contains(rack));
    let shown = near.map(|(rack, f)| {
        json!({
            "rack": rack, "subnet": f.subnet, "server": f.server, "mac": f.mac, "evidence": f.evidence,
            "first": f.first.to_string(), "last": f.last.to_string(),
            "remedy": "turn that server off, or set beside_foreign_dhcp on the subnet if both shall serve",
        })
    });
    shown.collect()
}

/// The explanation as JSON; `text` is the same for reading.
#[must_use]
pub fn of(m: &Machine) -> Value {
    at(m, actors::clock::now())
}

/// The explanation as it is at `now`.
#[must_use]
pub fn at(m: &Machine, now: Timestamp) -> Value {
    json!({
        "machine": m.spec.system_id, "hostname": m.spec.hostname, "fqdn": fqdn(&m.spec.hostname, &m.spec.domain), "at": now.to_string(),
        "status": m.status.label(), "power_state": m.power_state.label(), "error": m.error,
        "waiting": m.wait.is_some(), "overdue": m.wait.as_ref().is_some_and(|w| w.deadline < now),
        "wait": m.wait.as_ref().map(wait), "attempt": m.attempt.as_ref().map(|a| json!({
            "number": a.id, "trace": TraceId::of_attempt(m.spec.system_id, a.id).to_string(), "by": a.by, "started": a.started.to_string(), "ended": a.ended.map(|t| t.to_string()),
            "image": a.image.name, "ip": a.ip, "boot_mac": a.boot_mac, "seen": a.seen,
        })),
        "steps": steps(m, now), "summary": summary(m, now), "text": text(m, now),
    })
}

fn wait(wait: &Wait) -> Value {
    json!({
        "what": wait.what, "owed_by": wait.owed_by.to_string(), "since": wait.since.to_string(),
        "until": wait.deadline.to_string(), "evidence": wait.evidence, "on_timeout": wait.on_timeout,
        "remedy": wait.remedy,
    })
}

fn took(record: &StepRecord, now: Timestamp) -> Option<Duration> {
    Some(record.ended.unwrap_or(now).since(record.started?))
}

fn steps(m: &Machine, now: Timestamp) -> Vec<Value> {
    let records = m.attempt.iter().flat_map(|a| CommissionStep::ALL.into_iter().zip(&a.steps));
    let step = |(step, r): (CommissionStep, &StepRecord)| {
        json!({
            "number": step.number(), "name": step.label(), "state": r.state,
            "started": r.started.map(|t| t.to_string()), "ended": r.ended.map(|t| t.to_string()),
            "duration_ms": took(r, now).map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            "rack": r.rack, "service": r.service, "evidence": r.evidence,
        })
    };
    records.map(step).collect()
}

/// One sentence.
fn summary(m: &Machine, now: Timestamp) -> String {
    let name = &m.spec.hostname;
    match (&m.wait, m.error.as_str()) {
        (Some(w), _) => {
            format!("{name} waits for {}, owed by {}, for {}.", w.what, w.owed_by, words(now.since(w.since)))
        }
        (None, "") if m.status == NodeStatus::New => format!("{name} is New and waits for nothing; commission it."),
        (None, "") => format!("{name} is {} and waits for nothing.", m.status.label()),
        (None, error) => format!("{name} is {}: {error}", m.status.label()),
    }
}

/// The explanation in lines.
fn text(m: &Machine, now: Timestamp) -> String {
    let mut out = summary(m, now);
    out.push('\n');
    if let Some(w) = &m.wait {
        let left = w.deadline.since(now);
        let until = if left.is_zero() { "overdue".to_owned() } else { format!("{} left", words(left)) };
        line(&mut out, "since", &w.since.to_string());
        line(&mut out, "until", &format!("{} ({until})", w.deadline));
        line(&mut out, "then", &w.on_timeout);
        for seen in &w.evidence {
            line(&mut out, "seen", seen);
        }
        line(&mut out, "remedy", &w.remedy);
    }
    let Some(attempt) = &m.attempt else { return out };
    writeln!(out, "Attempt {} by {}, started {}:", attempt.id, attempt.by, attempt.started).ok();
    for (step, r) in CommissionStep::ALL.into_iter().zip(&attempt.steps) {
        let mark = match r.state {
            StepState::Pending => "○",
            StepState::Running => "▶",
            StepState::Done => "●",
            StepState::NotUsed => "–",
            StepState::Failed => "✕",
        };
        let duration = took(r, now).map_or_else(String::new, words);
        let server = r.rack.map_or_else(|| r.service.clone(), |rack| format!("{rack}/{}", r.service));
        let row =
            format!("{mark} {:>2} {:<15} {duration:>9}  {server:<16} {}", step.number(), step.label(), r.evidence);
        writeln!(out, "{}", row.trim_end()).ok();
    }
    out
}

fn line(out: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        writeln!(out, "  {name:<7} {value}").ok(); // Writing to a String cannot fail.
    }
}

/// A span for reading: `840 ms`, `12.3 s`, `4 m 12 s`, `2 h 3 m`.
fn words(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{s}.{} s", span.subsec_millis() / 100),
        60..3_600 => format!("{} m {} s", s / 60, s % 60),
        _ => format!("{} h {} m", s / 3_600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use schema::{id::SystemId, wait::OwedBy};

    use super::*;

    #[test]
    fn the_text_says_what_who_since_until_then_and_remedy() {
        let mut m = Machine::absent(SystemId::from_draws([1; 6]));
        m.spec.hostname = "fox".into();
        let start = Timestamp::from_seconds(1_000);
        m.wait = Some(Wait {
            what: "a DHCP request from 52:54:00:77:00:01".into(),
            owed_by: OwedBy::Machine,
            since: start,
            deadline: Timestamp::from_seconds(1_300),
            evidence: vec!["the BMC says on".into()],
            on_timeout: "the attempt fails".into(),
            remedy: "check the cable".into(),
        });
        let told = text(&m, Timestamp::from_seconds(1_072));
        for part in [
            "fox waits for a DHCP request",
            "owed by the machine",
            "1 m 12 s",
            "3 m 48 s left",
            "the attempt fails",
            "the BMC says on",
            "check the cable",
        ] {
            assert!(told.contains(part), "{part} is missing in:\n{told}");
        }
        assert!(text(&m, Timestamp::from_seconds(1_400)).contains("overdue"));
    }
}
