//! Several ills at once, put in order: what bears on the present step before the wait's own remedy, what may bear on it after that. Each with its
//! evidence and what to do. Pure.

use actors::machine::Machine;
use schema::{
    commissioning::{CommissionStep, StepState},
    id::RackId,
    messages::machine::Ailment,
    wait::Wait,
};
use serde_json::{Value, json};

use super::SiteAils;
use crate::store::Stalled;

/// How near a cause is to what is waited for: the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bearing {
    /// It alone would explain that the present step does not end.
    Enough,
    /// The wait itself, or the failure: what is known without anybody's word.
    Itself,
    /// It is wrong, and may have to do with it.
    Perhaps,
}

struct Cause {
    id: &'static str,
    bearing: Bearing,
    text: String,
    evidence: Vec<String>,
    remedy: String,
}

/// All that may be wrong at once.
#[derive(Default)]
struct Ills<'a> {
    /// The step of the attempt under way, or the one that failed.
    step: Option<CommissionStep>,
    wait: Option<&'a Wait>,
    error: &'a str,
    boot_racks: &'a [RackId],
    /// The one that drives its BMC.
    bmc_rack: Option<RackId>,
    away: &'a [RackId],
    ailing: Vec<(RackId, Ailment)>,
    clocks: &'a [String],
    store: Option<&'a Stalled>,
    /// DHCP servers that are none of ours, as the explanation shows them.
    foreign: &'a [Value],
    /// What else was seen, in whole sentences.
    beside: Vec<&'a str>,
}

/// The causes of a machine's wait or failure, the likeliest first. `explained`: what is told of it so far.
pub(super) fn ranked(m: &Machine, site: &SiteAils, explained: &Value) -> Vec<Value> {
    let (attempt, list) = (m.attempt.as_ref(), |name: &str| explained[name].as_array().map(Vec::as_slice));
    let boot_racks = attempt.map(|a| a.boot_racks.as_slice()).unwrap_or_default();
    let mut ailing = attempt.map(|a| a.ailing.clone()).unwrap_or_default();
    let of_it = |(id, _): &&(RackId, Ailment)| boot_racks.contains(id) && !ailing.iter().any(|(known, _)| known == id);
    let more: Vec<_> = site.ailing.iter().filter(of_it).cloned().collect();
    ailing.extend(more);
    let at = |state| {
        let steps = CommissionStep::ALL.into_iter().zip(attempt.map(|a| a.steps.as_slice()).unwrap_or_default());
        steps.filter(|(_, record)| record.state == state).map(|(step, _)| step).next_back()
    };
    let ills = Ills {
        step: at(StepState::Running).or_else(|| at(StepState::Failed)),
        wait: m.wait.as_ref(),
        error: &m.error,
        boot_racks,
        bmc_rack: attempt.and_then(|a| a.bmc_racks.get(a.bmc_rack)).copied(),
        away: attempt.map(|a| a.away.as_slice()).unwrap_or_default(),
        ailing,
        clocks: &site.clocks,
        store: site.store.as_ref(),
        foreign: list("foreign_dhcp").unwrap_or_default(),
        beside: list("beside").unwrap_or_default().iter().filter_map(Value::as_str).collect(),
    };
    let shown = |(at, cause): (usize, Cause)| {
        json!({
            "rank": at + 1, "id": cause.id, "likely": cause.bearing != Bearing::Perhaps, "text": cause.text,
            "evidence": cause.evidence, "remedy": cause.remedy,
        })
    };
    ills.causes().into_iter().enumerate().map(shown).collect()
}

impl Ills<'_> {
    fn causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        match self.wait {
            Some(wait) => causes.push(Cause {
                id: "wait",
                bearing: Bearing::Itself,
                text: format!("{} is owed by {}", wait.what, wait.owed_by),
                evidence: wait.evidence.clone(),
                remedy: wait.remedy.clone(),
            }),
            None if self.error.is_empty() => return causes, // Nothing is wrong with it.
            None => causes.push(Cause {
                id: "failed",
                bearing: Bearing::Itself,
                text: self.error.to_owned(),
                evidence: Vec::new(),
                remedy: "mend what it names, then commission the machine anew".into(),
            }),
        }
        causes.extend(self.store.map(Self::of_store));
        causes.extend(self.of_racks());
        causes.extend(self.of_clocks());
        causes.extend(self.foreign.iter().map(|server| self.of_server(server)));
        causes.extend(self.beside.iter().map(|seen| Cause {
            id: "beside",
            bearing: Bearing::Perhaps,
            text: (*seen).to_owned(),
            evidence: Vec::new(),
            remedy: "see to what it names".into(),
        }));
        // Of the same bearing, as they were found.
        causes.sort_by_key(|cause| cause.bearing);
        causes
    }

    /// Whether the present step lies there.
    fn between(&self, first: CommissionStep, last: CommissionStep) -> bool {
        self.step.is_some_and(|step| (first as usize..=last as usize).contains(&(step as usize)))
    }

    /// What racks report meanwhile waits with them; the machine may be further than anybody here knows.
    fn of_store(stalled: &Stalled) -> Cause {
        Cause {
            id: "store.stalled",
            bearing: Bearing::Enough,
            text: stalled.to_string(),
            evidence: vec!["the region's own writes wait".into()],
            remedy: Stalled::REMEDY.into(),
        }
    }

    /// A rack that does not serve explains a machine that comes no further, if no other rack serves it.
    fn of_racks(&self) -> Vec<Cause> {
        let boots = self.between(CommissionStep::DhcpLease, CommissionStep::Scripts);
        let lame = |id: &RackId| self.ailing.iter().any(|(of, ailment)| of == id && !ailment.serves);
        let all = |out: &dyn Fn(&RackId) -> bool| !self.boot_racks.is_empty() && self.boot_racks.iter().all(out);
        let bearing = |enough: bool| if enough && boots { Bearing::Enough } else { Bearing::Perhaps };
        let none_serves = bearing(all(&|id| lame(id) || self.away.contains(id)));
        let ails = self.ailing.iter().map(|(id, ailment)| Cause {
            id: "rack.ails",
            bearing: if ailment.serves { Bearing::Perhaps } else { none_serves },
            text: format!("rack {id}: {}", ailment.why),
            evidence: vec![format!("rack {id} says so itself")],
            remedy: ailment.remedy.clone(),
        });
        let none_tells = bearing(all(&|id| self.away.contains(id)));
        // What a BMC says is heard from one rack alone.
        let switched = matches!(self.step, Some(CommissionStep::PowerOn | CommissionStep::Stored));
        let away = self.away.iter().map(|id| Cause {
            id: "rack.away",
            bearing: if switched && self.bmc_rack == Some(*id) { Bearing::Enough } else { none_tells },
            text: format!("the link of rack {id} is down: what the machine does there is told when it is back"),
            evidence: vec![format!("rack {id} is not connected")],
            remedy: "look at the rack's log, and at the network between rack and region".into(),
        });
        ails.chain(away).collect()
    }

    /// A clock that is off spoils what is signed with a time: metadata, and the scripts' signals.
    fn of_clocks(&self) -> Vec<Cause> {
        let signed = self.between(CommissionStep::Metadata, CommissionStep::Scripts);
        let cause = |said: &String| {
            let (why, remedy) = said.split_once(": ").unwrap_or((said, "keep the clocks of racks and region by NTP"));
            Cause {
                id: "clock.off",
                bearing: if signed { Bearing::Enough } else { Bearing::Perhaps },
                text: why.to_owned(),
                evidence: vec!["rack and region told each other the time".into()],
                remedy: remedy.to_owned(),
            }
        };
        self.clocks.iter().map(cause).collect()
    }

    /// Another server may have answered the machine's DHCP instead of us, until it has fetched from a rack what only we have.
    fn of_server(&self, server: &Value) -> Cause {
        let word = |name: &str| server[name].as_str().unwrap_or_default();
        let asks = self.between(CommissionStep::DhcpLease, CommissionStep::BootConfig);
        Cause {
            id: "dhcp.foreign",
            bearing: if asks { Bearing::Enough } else { Bearing::Perhaps },
            text: format!("another DHCP server, {}, answers where the machine boots", word("server")),
            evidence: vec![format!("rack {} heard it last at {}: {}", word("rack"), word("last"), word("evidence"))],
            remedy: word("remedy").to_owned(),
        }
    }
}

/// They in lines, where there are several; one is told already.
pub(super) fn text(causes: &[Value]) -> String {
    if causes.len() < 2 {
        return String::new();
    }
    let word = |cause: &Value, name: &str| cause[name].as_str().unwrap_or_default().to_owned();
    let line = |cause: &Value| {
        let maybe = if cause["likely"] == true { "" } else { " (perhaps)" };
        format!("  {}. {}{maybe}; {}\n", cause["rank"], word(cause, "text"), word(cause, "remedy"))
    };
    format!("Causes, the likeliest first:\n{}", causes.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use schema::{time::Timestamp, wait::OwedBy};

    use super::*;

    fn wait() -> Wait {
        Wait {
            what: "a DHCP request".into(),
            owed_by: OwedBy::Machine,
            since: Timestamp(0),
            deadline: Timestamp(1),
            evidence: vec!["the BMC says on".into()],
            on_timeout: "it fails".into(),
            remedy: "check the cable".into(),
        }
    }

    fn lame(id: RackId, serves: bool) -> (RackId, Ailment) {
        (id, Ailment { serves, why: "its dhcp is dead".into(), remedy: "see its log".into() })
    }

    fn ids(ills: &Ills<'_>) -> Vec<(&'static str, bool)> {
        let causes = ills.causes();
        assert!(causes.iter().all(|c| !c.text.is_empty() && !c.remedy.is_empty()));
        causes.iter().map(|c| (c.id, c.bearing != Bearing::Perhaps)).collect()
    }

    #[test]
    fn what_bears_on_the_present_step_comes_before_the_waits_own_remedy() {
        let (wait, racks) = (wait(), [RackId::from_draws([1; 6]), RackId::from_draws([2; 6])]);
        let foreign = [
            json!({ "server": "10.0.0.9", "rack": racks[0], "last": "now", "evidence": "an offer", "remedy": "turn it off" }),
        ];
        let clocks = ["the clock of rack x is 9 s behind the region's: set ntp_servers".to_owned()];
        let base =
            || Ills { step: Some(CommissionStep::DhcpLease), wait: Some(&wait), boot_racks: &racks, ..Ills::default() };
        assert_eq!(ids(&base()), [("wait", true)]);
        let many = Ills { foreign: &foreign, clocks: &clocks, ailing: vec![lame(racks[0], false)], ..base() };
        // One rack of two still serves.
        let order = [("dhcp.foreign", true), ("wait", true), ("rack.ails", false), ("clock.off", false)];
        assert_eq!(ids(&many), order);
        let both = Ills { ailing: vec![lame(racks[0], false), lame(racks[1], false)], ..base() };
        assert_eq!(ids(&both), [("rack.ails", true), ("rack.ails", true), ("wait", true)]);
        let one_away = Ills { ailing: vec![lame(racks[0], false)], away: &racks[1..], ..base() };
        assert_eq!(ids(&one_away), [("rack.ails", true), ("wait", true), ("rack.away", false)]);
        let all_away = Ills { away: &racks, ..base() };
        assert_eq!(ids(&all_away), [("rack.away", true), ("rack.away", true), ("wait", true)]);
        assert_eq!(ids(&Ills { ailing: vec![lame(racks[0], true)], ..base() })[1], ("rack.ails", false));
        // The rack that drives the BMC is away: the machine may be on, and go on. Without the other rack only a boot is the slower.
        let switched = |bmc_rack| Ills { step: Some(CommissionStep::PowerOn), bmc_rack, away: &racks[..1], ..base() };
        assert_eq!(ids(&switched(Some(racks[0]))), [("rack.away", true), ("wait", true)]);
        assert_eq!(ids(&switched(Some(racks[1]))), [("wait", true), ("rack.away", false)]);
        // What racks report meanwhile waits with them, whatever the step.
        let stalled = Stalled { since: Timestamp(0), why: "disk is full".into() };
        assert_eq!(ids(&Ills { store: Some(&stalled), ..base() }), [("store.stalled", true), ("wait", true)]);
        // Later, signatures count, and DHCP is over.
        let metadata = Ills { step: Some(CommissionStep::Metadata), foreign: &foreign, clocks: &clocks, ..base() };
        assert_eq!(ids(&metadata), [("clock.off", true), ("wait", true), ("dhcp.foreign", false)]);
        // One that failed has causes, too; one that waits for nothing has none.
        let failed = Ills { wait: None, error: "no DHCP request came", foreign: &foreign, ..base() };
        assert_eq!(ids(&failed), [("dhcp.foreign", true), ("failed", true)]);
        assert_eq!(ids(&Ills { wait: None, foreign: &foreign, ..base() }), []);
    }

    #[test]
    fn several_causes_are_told_in_lines_with_what_to_do() {
        let cause = |rank, likely| json!({ "rank": rank, "likely": likely, "text": "it is so", "remedy": "do that" });
        assert_eq!(text(&[cause(1, true)]), "");
        let told = text(&[cause(1, true), cause(2, false)]);
        assert_eq!(told, "Causes, the likeliest first:\n  1. it is so; do that\n  2. it is so (perhaps); do that\n");
    }
}
