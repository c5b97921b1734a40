//! What a change of the plan costs a rack that holds many rows: in memory, and until it is durable and in force.

use std::time::Duration;

use actors::clock;
use rack::{
    plan::PlanHandle,
    state::{OutboxLimits, State},
};
use schema::{
    id::{Generation, SubnetId},
    messages::link::PlanUpdate,
    net::MacAddr,
    plan::{Plan, Reservation},
};

const CHANGES: u32 = 500;

fn reservation(n: u32) -> Reservation {
    let [a, b, c, d] = n.to_be_bytes();
    Reservation { subnet: SubnetId(1), mac: MacAddr([2, 1, a, b, c, d]), ip: [10, b, c, d].into(), hostname: None }
}

/// Prints the section.
pub(crate) fn report() {
    println!("A reservation more, in the plan of a rack");
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|e| panic!("{e}"));
    for held in [100, 10_000, 100_000] {
        runtime.block_on(changes(held));
    }
}

async fn changes(held: u32) {
    let place = std::env::var_os("HOSTLER_BENCH_DIR").unwrap_or_else(|| ".".into());
    let Ok(dir) = tempfile::tempdir_in(place) else { return };
    let state = State::open(dir.path(), OutboxLimits::default()).unwrap_or_else(|e| panic!("{e}"));
    let plan = Plan { reservations: (0..held).map(reservation).collect(), ..Plan::default() };
    state.apply(&plan.clone().into()).await.unwrap_or_else(|e| panic!("{e}"));
    let plan = PlanHandle::new(plan);
    let (mut in_memory, mut durable) = (Duration::ZERO, Duration::ZERO);
    for n in held..held + CHANGES {
        let mut update = PlanUpdate::empty(Some(Generation(0)), Generation(0));
        update.reservations.put.push(reservation(n));
        let begun = clock::tick();
        state.apply(&update).await.unwrap_or_else(|e| panic!("{e}"));
        durable += begun.elapsed();
        let begun = clock::tick();
        plan.apply(update);
        in_memory += begun.elapsed();
    }
    state.close().await;
    println!(
        "  {held:>6} held: {} us until durable, then {} us until in force",
        (durable / CHANGES).as_micros(),
        (in_memory / CHANGES).as_micros()
    );
}
