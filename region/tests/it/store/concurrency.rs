//! Cases of several writers: generations are neither lost nor doubled, whatever the order.

use std::collections::HashMap;

use futures_util::future::join_all;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use region::store::{Store, StoreError, Tuning, Write, queries};
use schema::id::Generation;

use super::{Empty, step};

/// One of two regions tries to step one of three actors, from what it believes or from what it looks up.
#[derive(Debug, Clone)]
struct Try {
    region: usize,
    actor: usize,
    looks: bool,
}

fn tries() -> impl Strategy<Value = Vec<Vec<Try>>> {
    let one = (0..2_usize, 0..3_usize, any::<bool>()).prop_map(|(region, actor, looks)| Try { region, actor, looks });
    // Each inner list goes out at once.
    prop::collection::vec(prop::collection::vec(one, 1..12), 1..8)
}

/// As for any other property, but with a database that outlives its cases: each case has actors of its own.
pub(crate) async fn two_writers_never_lose_or_double_a_generation(empty: Empty<'_>) {
    let regions = [empty.open(), empty.open()];
    let mut runner = TestRunner::new(Config::default());
    for case in 0..25 {
        let plan = tries().new_tree(&mut runner).unwrap().current();
        run(&regions, case, &plan).await.unwrap_or_else(|err| panic!("{err} in {plan:?}"));
    }
}

async fn run(regions: &[Store; 2], case: usize, plan: &[Vec<Try>]) -> Result<(), String> {
    let name = |actor: usize| format!("case{case}-actor{actor}");
    let mut believed = [[0_u64; 3]; 2];
    let mut done: HashMap<usize, Vec<u64>> = HashMap::new();
    for at_once in plan {
        for attempt in at_once.iter().filter(|t| t.looks) {
            let id = name(attempt.actor);
            let found = regions[attempt.region].read(move |db| queries::load_actor(db, "test", &id)).await;
            believed[attempt.region][attempt.actor] = found.map_err(|e| e.to_string())?.map_or(0, |(_, g)| g.0);
        }
        let commit = |(n, t): (usize, &Try)| {
            let generation = believed[t.region][t.actor];
            let mut write: Write = step(&name(t.actor), generation, vec![]);
            write.event = format!(r#"{{"try":{n}}}"#);
            let commit = regions[t.region].commit(write);
            let (region, actor) = (t.region, t.actor);
            async move { (region, actor, generation, commit.await) }
        };
        for (region, actor, generation, end) in join_all(at_once.iter().enumerate().map(commit)).await {
            match end {
                Ok(()) => {
                    done.entry(actor).or_default().push(generation + 1);
                    believed[region][actor] = believed[region][actor].max(generation + 1);
                }
                Err(StoreError::Stale { .. }) => {}
                Err(other) => return Err(other.to_string()),
            }
        }
    }
    for (actor, mut generations) in done {
        let id = name(actor);
        let (found, steps) = regions[0]
            .read(move |db| {
                Ok((queries::load_actor(db, "test", &id)?, queries::journal_of(db, "test", &id, None, 1_000)?))
            })
            .await
            .map_err(|e| e.to_string())?;
        generations.sort_unstable();
        let all: Vec<u64> = (1..=generations.len() as u64).collect();
        let written: Vec<u64> = steps.iter().rev().map(|s| s.generation.0).collect();
        if generations != all || written != all || found.map(|(_, g)| g) != Some(Generation(all.len() as u64)) {
            return Err(format!("actor {actor}: acknowledged {generations:?}, journal {written:?}"));
        }
    }
    Ok(())
}

pub(crate) async fn steps_of_one_actor_keep_their_order_within_a_gathering(empty: Empty<'_>) {
    let store =
        Store::open_with(&empty.url, Tuning { gather: std::time::Duration::from_millis(50), ..Tuning::default() });
    let store = store.unwrap();
    // Sent without waiting for each other: the second needs the first's generation.
    for round in 0..10 {
        let ends = join_all((0..5).map(|n| store.commit(step("a", 5 * round + n, vec![])))).await;
        assert_eq!(ends, vec![Ok(()); 5]);
    }
}
