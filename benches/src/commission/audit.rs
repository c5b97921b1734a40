//! After a kill: whether each machine is still there, was commissioned to the end, and once. Asked machine by machine over the API, and of
//! the fleet, which knows how often it was switched on.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::kill::Victim;
use crate::{
    api::Api,
    yard::{Trouble, operator::many},
};

/// Machines that are named of each kind.
const NAMED: usize = 10;

/// What is wrong with one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong {
    machine: String,
    lost: Vec<String>,
    twice: Vec<String>,
}

/// Looks at all of them. `started_again`: machines that the fleet was told to start more than once.
pub(super) async fn audit(
    api: &Api,
    machines: &[String],
    victims: &[Victim],
    started_again: u64,
) -> Result<Value, Trouble> {
    let looked = many(machines.to_vec(), |id| {
        let api = api.clone();
        async move { look(&api, id).await }
    });
    let wrong: Vec<Wrong> = looked.await?.into_iter().flatten().collect();
    // A machine whose rack was killed under it may have to be started anew; a region that was killed is no reason for that.
    let twice_started = if victims.contains(&Victim::Racks) { 0 } else { started_again };
    let names = |of: fn(&Wrong) -> &Vec<String>| {
        let found = wrong.iter().filter(|w| !of(w).is_empty());
        found.map(|w| format!("{}: {}", w.machine, of(w).join(", "))).collect::<Vec<_>>()
    };
    let (lost, twice) = (names(|w| &w.lost), names(|w| &w.twice));
    let some: Vec<&String> = lost.iter().take(NAMED).chain(twice.iter().take(NAMED)).collect();
    Ok(json!({
        "checked": machines.len(), "lost": lost.len(), "done_twice": twice.len() as u64 + twice_started,
        "started_again": started_again, "some": some,
    }))
}

async fn look(api: &Api, id: String) -> Result<Option<Wrong>, Trouble> {
    let explained = api.get(&format!("/inspect/v1/explain/{id}")).await?;
    let sets = api.get(&format!("/MAAS/api/2.0/nodes/{id}/results/")).await?;
    Ok(judge(id, &explained, &sets))
}

/// One machine, from its explanation and its sets of results; `None`: all is well.
fn judge(machine: String, explained: &Value, sets: &Value) -> Option<Wrong> {
    let (mut lost, mut twice) = (Vec::new(), Vec::new());
    if explained["status"] != "Ready" {
        lost.push(format!("it is {}", explained["status"].as_str().unwrap_or("nowhere")));
    }
    let attempt = explained["attempt"]["number"].as_u64().unwrap_or(0);
    if attempt > 1 {
        twice.push(format!("{attempt} attempts"));
    }
    let sets = sets.as_array().map(Vec::as_slice).unwrap_or_default();
    if sets.len() > 1 {
        twice.push(format!("{} sets of results", sets.len()));
    }
    let results: Vec<&Value> = sets.first().and_then(|set| set["results"].as_array()).into_iter().flatten().collect();
    let names: BTreeSet<_> = results.iter().filter_map(|r| r["name"].as_str()).collect();
    if names.len() < results.len() {
        twice.push(format!("{} results of {} scripts", results.len(), names.len()));
    }
    let passed = |r: &&&Value| r["status_name"] == "Passed";
    let missing = results.len() - results.iter().filter(passed).count();
    if missing > 0 || results.is_empty() {
        lost.push(format!("{missing} of {} results", results.len()));
    }
    (!lost.is_empty() || !twice.is_empty()).then_some(Wrong { machine, lost, twice })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: &str, attempt: u64, sets: &Value) -> Option<(Vec<String>, Vec<String>)> {
        let explained = json!({ "status": status, "attempt": { "number": attempt } });
        judge("aaaaaa".into(), &explained, sets).map(|w| (w.lost, w.twice))
    }

    #[test]
    fn a_machine_is_whole_once_or_it_is_said_what_is_wrong() {
        let result = |name: &str, status: &str| json!({ "name": name, "status_name": status });
        let set = |results: &[Value]| json!([{ "results": results }]);
        let whole = set(&[result("a", "Passed"), result("b", "Passed")]);
        assert_eq!(judged("Ready", 1, &whole), None);
        let lost = |words: &str| Some((vec![words.to_owned()], vec![]));
        let twice = |words: &str| Some((vec![], vec![words.to_owned()]));
        assert_eq!(judged("Commissioning", 1, &whole), lost("it is Commissioning"));
        assert_eq!(judged("Ready", 2, &whole), twice("2 attempts"));
        assert_eq!(judged("Ready", 1, &set(&[result("a", "Passed"), result("b", "Running")])), lost("1 of 2 results"));
        assert_eq!(judged("Ready", 1, &json!([])), lost("0 of 0 results"));
        let again = set(&[result("a", "Passed"), result("a", "Passed")]);
        assert_eq!(judged("Ready", 1, &again), twice("2 results of 1 scripts"));
        let two = json!([whole[0], whole[0]]);
        assert_eq!(judged("Ready", 1, &two), twice("2 sets of results"));
    }
}
