//! How long "why is it stuck?" takes over the API: asked now and then during the run, and one after the other after it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actors::clock;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::api::Api;

/// Between two questions during the run: seldom enough that they are no load, often enough for a p99.
const EACH: Duration = Duration::from_millis(250);
/// Questions after the run.
const AFTER: usize = 1_000;
/// From one machine to the next: a prime, so that they come from all over the fleet.
const STRIDE: usize = 7_919;

/// Milliseconds that questions took.
#[derive(Debug, Default, Clone)]
struct Taken {
    during: Vec<f64>,
    after: Vec<f64>,
    /// By the status that the machine was in.
    statuses: BTreeMap<String, Vec<f64>>,
    /// Questions without an answer.
    failed: u64,
}

/// The questions of a run.
pub(super) struct Explains {
    api: Api,
    machines: Arc<[String]>,
    taken: Arc<Mutex<Taken>>,
    asking: JoinHandle<()>,
}

impl Explains {
    /// Asks now and then, from now on.
    pub(super) fn begin(api: &Api, machines: &[String]) -> Self {
        let (api, taken) = (api.clone(), Arc::<Mutex<Taken>>::default());
        let machines: Arc<[String]> = machines.into();
        let asking = tokio::spawn({
            let (api, machines, taken) = (api.clone(), Arc::clone(&machines), taken.clone());
            async move {
                let mut turn = 0;
                loop {
                    tokio::time::sleep(EACH).await;
                    ask(&api, &machines, turn, &taken, |taken| &mut taken.during).await;
                    turn += 1;
                }
            }
        });
        Self { api, machines, taken, asking }
    }

    /// The run is over: asks one after the other, and tells what all of it took.
    pub(super) async fn end(self) -> Value {
        self.asking.abort();
        for turn in 0..AFTER {
            ask(&self.api, &self.machines, turn, &self.taken, |taken| &mut taken.after).await;
        }
        let taken = lock(&self.taken).clone();
        taken.json()
    }
}

impl Drop for Explains {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

async fn ask(
    api: &Api,
    machines: &[String],
    turn: usize,
    taken: &Mutex<Taken>,
    place: impl Fn(&mut Taken) -> &mut Vec<f64>,
) {
    let at = turn.wrapping_mul(STRIDE).checked_rem(machines.len());
    let Some(id) = at.and_then(|at| machines.get(at)) else { return };
    let began = clock::tick();
    let answer = api.get(&format!("/inspect/v1/explain/{id}")).await;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let mut taken = lock(taken);
    match answer {
        Ok(explained) => {
            place(&mut taken).push(ms);
            let status = explained["status"].as_str().unwrap_or_default().to_owned();
            taken.statuses.entry(status).or_default().push(ms);
        }
        Err(_) => taken.failed += 1,
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Taken {
    fn json(&self) -> Value {
        let statuses: serde_json::Map<_, _> =
            self.statuses.iter().map(|(status, taken)| (status.clone(), quantiles(taken))).collect();
        json!({
            "during": quantiles(&self.during), "after": quantiles(&self.after), "statuses": statuses, "failed": self.failed,
        })
    }
}

/// Count, median, 99th percentile and maximum.
pub(super) fn quantiles(ms: &[f64]) -> Value {
    let mut sorted = ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(rank).map(|ms| (ms * 1e3).round() / 1e3)
    };
    json!({ "count": sorted.len(), "p50": at(50), "p99": at(99), "max": at(100) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_hundred_and_of_none() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantiles(&hundred), json!({ "count": 100, "p50": 50.0, "p99": 99.0, "max": 100.0 }));
        assert_eq!(quantiles(&[]), json!({ "count": 0, "p50": null, "p99": null, "max": null }));
        assert_eq!(quantiles(&[0.1234567])["p50"], 0.123);
    }
}
