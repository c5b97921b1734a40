//! From a change to everybody who watches: how long until one machine's new status is with a hundred watchers of its actor, and with a hundred
//! browsers on the fleet's page; and what a hundred watchers cost while nothing happens. Prints a table.
//!
//! Hypothesis: a watcher of the inspection is told within its own interval (250 ms at least: it samples), a browser within its pace of half a
//! second, and a hundred of them delay each other by milliseconds.
//! Run: `cargo bench -p benches --bench watch [-- CHANGES]`. One region with SQLite and its clients in one process, over loopback.

mod place;

use std::{sync::Arc, time::Duration};

use actors::clock::tick;
use benches::{
    api::stream,
    yard::{Trouble, operator::add},
};
use place::{Place, quantile};
use tokio::{sync::mpsc, task::JoinSet};

/// As many as may watch at once.
const WATCHERS: usize = 100;
/// What the changed status is called, in both streams.
const WORD: &[u8] = b"Broken";
/// Between two changes, so that everybody has seen the one before.
const REST: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(5);

fn main() -> std::process::ExitCode {
    place::main("CHANGES", (20, 1, 10_000), measure)
}

async fn measure(changes: usize) -> Result<(), Trouble> {
    let place = Place::open().await?;
    let form = [("hostname", "fox"), ("architecture", "amd64"), ("mac_addresses", "52:54:00:00:00:01")];
    let form = form.into_iter().chain([("power_type", "manual"), ("commission", "false")]);
    let form: Vec<_> = form.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let id = add(&place.api, &form).await?;
    println!("{WATCHERS} watchers, {changes} changes, load {}", place::load());
    println!("| who | reached | p50 ms | p99 ms | all of them, p50 ms | CPU ms/s of each while nothing happens |");
    println!("|---|--:|--:|--:|--:|--:|");
    let watch = format!("/inspect/v1/watch?every_ms=250&topics=actor:machine/{id}");
    round(&place, &id, "inspection, one actor, each 250 ms", &watch, changes).await?;
    let all = "summary,findings,flow,heat:queue,kind:machine";
    let every = format!("/inspect/v1/watch?topics={all},actor:machine/{id}");
    round(&place, &id, "inspection, all topics, each second", &every, changes).await?;
    round(&place, &id, "browsers on the fleet's page", "/live", changes).await?;
    place.close().await;
    Ok(())
}

/// One row.
async fn round(place: &Place, id: &str, who: &str, path: &str, changes: usize) -> Result<(), Trouble> {
    let (heard, mut hears) = mpsc::unbounded_channel();
    let (mut watchers, path) = (JoinSet::new(), Arc::<str>::from(path));
    let before = idle().await;
    for number in 0..WATCHERS {
        let (to, headers, path, heard) = (place.address, place.headers(), path.clone(), heard.clone());
        watchers.spawn(async move {
            let told = |piece: &[u8]| {
                let broken = piece.windows(WORD.len()).any(|window| window == WORD);
                heard.send((number, broken, tick())).ok(); // The round is over.
            };
            stream::listen(to, &path, &headers, told).await
        });
    }
    // Each has its first event, of the state as it is.
    let mut present = [false; WATCHERS];
    while present.contains(&false) {
        tokio::select! {
            Some((number, ..)) = hears.recv() => present[number] = true,
            Some(ended) = watchers.join_next() => return Err(Trouble(format!("a watcher ended: {ended:?}"))),
            () = tokio::time::sleep(PATIENCE) => return Err(Trouble("not all watchers have an event".into())),
        }
    }
    let cost = (idle().await - before) / WATCHERS as f64;
    let (mut ms, mut last) = (Vec::new(), Vec::new());
    for _ in 0..changes {
        tokio::time::sleep(REST).await;
        while hears.try_recv().is_ok() {}
        let (began, mut reached) = (tick(), [false; WATCHERS]);
        place.api.post(&format!("/MAAS/api/2.0/machines/{id}/?op=mark_broken"), &[]).await?;
        while reached.contains(&false) {
            let next = tokio::time::timeout(PATIENCE, hears.recv()).await;
            let Ok(Some((number, broken, at))) = next else { break };
            if broken && !std::mem::replace(&mut reached[number], true) {
                ms.push(at.duration_since(began).as_secs_f64() * 1e3);
            }
        }
        last.extend(
            ms.get(ms.len().saturating_sub(WATCHERS)..).and_then(|these| these.iter().copied().reduce(f64::max)),
        );
        place.api.post(&format!("/MAAS/api/2.0/machines/{id}/?op=mark_fixed"), &[]).await?;
    }
    let reached = ms.len();
    let (p50, p99, all) = (quantile(&mut ms, 50), quantile(&mut ms, 99), quantile(&mut last, 50));
    let of = changes * WATCHERS;
    println!("| {who} | {reached} of {of} | {p50:.0} | {p99:.0} | {all:.0} | {:.2} |", cost * 1e3);
    Ok(())
}

/// CPU seconds a second of this process, while it only waits.
async fn idle() -> f64 {
    let (cpu, began) = (place::cpu(), tick());
    tokio::time::sleep(IDLE).await;
    (place::cpu() - cpu) / began.elapsed().as_secs_f64()
}
