//! The machines' logs in the region: batches of the racks into files, and word to whoever follows one. Files, not the journal: a log
//! is read by people, and must never grow the database.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use actors::{
    core::TraceId,
    logbook::{self, Limits, Logbook, Place, Wanted},
};
use schema::{
    id::RackId,
    logs::{KeptLine, LogBatch},
    messages::link::ToRack,
};
use tokio::sync::{broadcast, mpsc};
use tracing::{error, warn};

use crate::{app::App, links::ToDo};

/// Batches that may wait for the disk; a rack has one on its way.
const WAITING: usize = 256;

/// The way to the logs. Cloned freely.
#[derive(Clone)]
pub struct Logs {
    dir: PathBuf,
    batches: mpsc::Sender<(RackId, LogBatch)>,
    /// The names of the logs that grew.
    grown: broadcast::Sender<String>,
}

/// The end that writes; [`keep`] runs it.
pub struct Keeper {
    dir: PathBuf,
    limits: Limits,
    batches: mpsc::Receiver<(RackId, LogBatch)>,
    grown: broadcast::Sender<String>,
}

impl Logs {
    /// The logs below a region's data directory.
    #[must_use]
    pub fn new(data_dir: &Path, limits: Limits) -> (Self, Keeper) {
        let (dir, (sender, batches)) = (data_dir.join("logs"), mpsc::channel(WAITING));
        let grown = broadcast::channel(1_024).0;
        let keeper = Keeper { dir: dir.clone(), limits, batches, grown: grown.clone() };
        (Self { dir, batches: sender, grown }, keeper)
    }

    /// Takes a rack's batch. One too many is dropped: it is not acknowledged, so the rack sends it again.
    pub(crate) fn take(&self, rack: RackId, batch: LogBatch) {
        if self.batches.try_send((rack, batch)).is_err() {
            warn!(%rack, "a batch of machines' logs must wait: the disk does not keep up");
        }
    }

    /// Lines of one log. Reads files: call it where blocking is allowed.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn read(&self, name: &str, wanted: Wanted) -> std::io::Result<(Vec<KeptLine>, Place)> {
        logbook::read(&self.dir, name, wanted)
    }

    /// The names of logs, as they grow. Who is too slow misses some, and reads anew.
    #[must_use]
    pub fn grown(&self) -> broadcast::Receiver<String> {
        self.grown.subscribe()
    }
}

/// Writes batches until the region ends, and says to their racks that they are kept.
pub(crate) async fn keep(app: App, keeper: Keeper) {
    let Keeper { dir, limits, mut batches, grown } = keeper;
    let opened = tokio::task::spawn_blocking(move || Logbook::open(dir, limits)).await;
    let mut book = match opened {
        Ok(Ok(book)) => book,
        Ok(Err(error)) => {
            return error!(%error, "machines' logs cannot be kept and wait on the racks; make the data directory writable");
        }
        Err(_) => return, // The region is going down.
    };
    let mut last: HashMap<RackId, (u64, u64)> = HashMap::new();
    while let Some((rack, batch)) = batches.recv().await {
        let (run, number) = (batch.run, batch.number);
        let repeat = last.get(&rack).is_some_and(|(r, n)| *r == run && number <= *n);
        if !repeat {
            let names: std::collections::BTreeSet<String> = batch.lines.iter().map(|l| l.source.name()).collect();
            let written = tokio::task::spawn_blocking(move || {
                let done = book.append(&batch.lines);
                (book, done)
            });
            let Ok((back, done)) = written.await else { return };
            book = back;
            if let Err(error) = done {
                // Unsaid, so the rack sends it again.
                error!(%rack, %error, "lines of machines' logs were not written; free some space");
                continue;
            }
            last.insert(rack, (run, number));
            names.into_iter().for_each(|name| drop(grown.send(name)));
        }
        app.links.queue(rack, ToDo::Say(Box::new(ToRack::LogsKept { run, number })), TraceId::default());
    }
}
