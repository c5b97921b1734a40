//! What deserves a look in the whole site: actors by the rules of `actors::findings`, the store, racks and their services, stuck machines by cause.

use std::time::Duration;

use actors::{
    clock,
    findings::{self, Finding, Severity},
    rack::LinkState,
};
use schema::{service::Health, time::Timestamp};

use super::{Node, REGION, Sample};
use crate::{app::App, store::Stalled};

impl App {
    /// All findings as they are now, the worst first.
    pub async fn findings(&self) -> Vec<Finding> {
        let sample = self.sample(Duration::ZERO).await;
        self.found(&sample).to_vec()
    }

    pub(super) fn look_through(&self, sample: &Sample) -> Vec<Finding> {
        let mut found = self.own_findings(sample);
        for node in sample.nodes.iter() {
            self.of_rack(node, &mut found);
            for row in &node.rows {
                let path = format!("{}/{}/{}", node.id, row.kind, row.id);
                found.extend(findings::of_actor(&path, row, node.at));
            }
        }
        if let Some(stalled) = self.store.stalled() {
            let of_it = found.extract_if(.., |finding| comes_of_the_store(finding));
            let held = of_it.filter(|finding| finding.id == "actor.held").count();
            found.push(Finding {
                id: "store.stalled".into(),
                severity: Severity::Critical,
                subject: self.store.address(),
                since: Some(stalled.since),
                text: format!("{stalled}; steps of {held} actors wait to be written"),
                remedy: Stalled::REMEDY.into(),
            });
        }
        findings::sort(&mut found);
        found
    }

    /// Those of the region's own actors and machines.
    fn own_findings(&self, sample: &Sample) -> Vec<Finding> {
        let now = clock::now();
        let mut found = Vec::new();
        for (probe, gauge) in sample.own() {
            let waits = probe.view().wait.as_ref().is_some_and(|wait| wait.deadline < now);
            if waits || probe.quarantine().is_some() || findings::suspicious(gauge, now) {
                let path = format!("{REGION}/{}/{}", probe.kind(), probe.id());
                found.extend(findings::of_actor(&path, &probe.row(), now));
            }
        }
        let stuck = |(cause, stuck): (String, crate::census::Causing)| Finding {
            id: "machines.stuck".into(),
            severity: Severity::Warning,
            subject: cause.clone(),
            since: None,
            text: format!("{} {} stuck at {cause}: {}", stuck.count, machines(stuck.count), stuck.example),
            remedy: format!("hostler explain {}", stuck.hostname),
        };
        found.extend(self.census.causes(now).into_iter().map(stuck));
        found
    }

    fn of_rack(&self, node: &Node, found: &mut Vec<Finding>) {
        let mut add = |id: &str, severity, subject: String, since: Timestamp, text: String, remedy: &str| {
            found.push(Finding { id: id.into(), severity, subject, since: Some(since), text, remedy: remedy.into() });
        };
        let name = format!("{}", node.id);
        let see = "look at the rack's log, and at the network between rack and region";
        match node.link {
            LinkState::Connected | LinkState::Enrolled => {}
            LinkState::Disconnected => {
                let text = format!("the link of rack {} is down", node.hostname);
                add("rack.away", Severity::Warning, name.clone(), node.since, text, see);
            }
            LinkState::Lost => {
                let text = format!("rack {} is lost", node.hostname);
                add("rack.lost", Severity::Critical, name.clone(), node.since, text, see);
            }
        }
        if let Some(why) = &node.trouble {
            add("rack.unasked", Severity::Warning, name.clone(), node.at, why.clone(), see);
        }
        let Some(rack) = self.rack_state(node.id).filter(|rack| rack.link == LinkState::Connected) else { return };
        if let Some(since) = rack.silent {
            let text = format!("rack {} is linked and says nothing of its services", node.hostname);
            add(
                "rack.silent",
                Severity::Critical,
                name.clone(),
                since,
                text,
                "look at the rack's log; restart it if it hangs",
            );
        }
        for service in &rack.services {
            let (id, severity) = match service.health {
                Health::Dead => ("service.dead", Severity::Critical),
                Health::Degraded => ("service.degraded", Severity::Warning),
                Health::Running | Health::Off => continue,
            };
            let (why, remedy) =
                service.last_error.as_ref().map_or(("it does not say why", see), |e| (&e.why, &e.remedy));
            let text = format!("{} of rack {}: {why}", service.service, node.hostname);
            add(id, severity, format!("{name}/service/{}", service.service), service.since, text, remedy);
        }
    }
}

/// Whether a store that takes no writes is enough to explain it: then it is no finding of its own. What racks say waits behind their reports.
fn comes_of_the_store(finding: &Finding) -> bool {
    let own = finding.subject.strip_prefix(REGION).is_some_and(|rest| rest.starts_with('/'));
    match finding.id.as_str() {
        "actor.held" | "actor.behind" => own,
        "rack.unasked" => true,
        _ => false,
    }
}

fn machines(count: usize) -> &'static str {
    if count == 1 { "machine is" } else { "machines are" }
}
