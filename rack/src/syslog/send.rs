//! From the queue to the region, batch by batch: one is on its way, and it is sent again on every new link until the region says
//! that it is kept. Without a region: into files in the state directory.

use std::{path::PathBuf, time::Duration};

use actors::{
    core::TraceId,
    link::client::LinkClient,
    logbook::{Limits, Logbook},
};
use schema::{logs::LogBatch, messages::link::FromRack};
use tokio::sync::watch;

use super::queue::Queue;
use crate::outbox::Ready;

/// Bytes of one batch: small enough that reports on the same stream do not wait for it.
const BATCH: usize = 64 * 1_024;
/// Bytes written to files at once.
const WRITE: usize = 1 << 20;
/// No word of the region for this long: the batch is sent again.
const SILENCE: Duration = Duration::from_secs(10);

/// The batches that the region has kept: the run, and the last number.
pub type Kept = watch::Sender<(u64, u64)>;

/// Sends lines over the first link that is ready, until the links end.
pub async fn to_region(queue: Queue, client: LinkClient, ready: Ready, kept: Kept) {
    let run: u64 = rand::random();
    let (mut links, mut kept) = (ready.subscribe(), kept.subscribe());
    for number in 1.. {
        let batch = LogBatch { run, number, lines: queue.take(BATCH).await };
        let message = FromRack::Logs(batch);
        loop {
            let first = links.wait_for(|up| !up.is_empty()).await.map(|up| up.first_key_value().map(|(l, s)| (*l, *s)));
            let Ok(first) = first else { return };
            let Some((link, session)) = first else { continue };
            client.send(link, &message, TraceId::default()).await.ok(); // Down: seen below.
            let done = kept.wait_for(|(r, n)| *r == run && *n >= number);
            let other = links.wait_for(|up| up.get(&link) != Some(&session));
            tokio::select! {
                done = done => match done {
                    Ok(_) => break,
                    Err(_) => return,
                },
                gone = other => if gone.is_err() { return },
                () = tokio::time::sleep(SILENCE) => {}
            }
        }
    }
}

/// Writes lines to files, until dropped: how a rack of a plan file keeps its machines' logs.
pub async fn to_files(queue: Queue, dir: PathBuf, limits: Limits) {
    let opened = tokio::task::spawn_blocking(move || Logbook::open(dir, limits)).await;
    let mut book = match opened {
        Ok(Ok(book)) => book,
        Ok(Err(error)) => {
            return tracing::error!(%error, "the machines' logs cannot be kept; make the state directory writable");
        }
        Err(_) => return, // The runtime is going down.
    };
    loop {
        let lines = queue.take(WRITE).await;
        let written = tokio::task::spawn_blocking(move || {
            let done = book.append(&lines);
            (book, done, lines.len())
        });
        let Ok((back, done, count)) = written.await else { return };
        book = back;
        if let Err(error) = done {
            tracing::error!(%error, lost = count, "lines of machines' logs were not written; free some space");
        }
    }
}
