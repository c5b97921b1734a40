//! How late the fleet's own timers are: what the harness adds to a machine's times, so that its limits are not taken for the product's.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actors::clock;
use tokio::task::JoinHandle;

const BEAT: Duration = Duration::from_millis(20);

/// A watch over one runtime; it ends when this is dropped.
pub struct Lag {
    /// Lateness of each beat in whole milliseconds; the last place holds all above.
    seen: Arc<Mutex<[u32; 2_000]>>,
    task: JoinHandle<()>,
}

impl Lag {
    /// Watches the present runtime.
    #[must_use]
    pub fn watch() -> Self {
        let seen = Arc::new(Mutex::new([0; 2_000]));
        let beats = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let due = clock::tick() + BEAT;
                tokio::time::sleep(BEAT).await;
                let late =
                    usize::try_from(clock::tick().saturating_duration_since(due).as_millis()).unwrap_or(usize::MAX);
                let mut beats = beats.lock().unwrap_or_else(PoisonError::into_inner);
                let place = late.min(beats.len() - 1);
                beats[place] += 1;
            }
        });
        Self { seen, task }
    }

    /// The lateness that 99 of 100 beats did not exceed.
    #[must_use]
    pub fn p99_ms(&self) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let all: u64 = seen.iter().map(|n| u64::from(*n)).sum();
        let mut passed = 0;
        let found = seen.iter().position(|n| {
            passed += u64::from(*n);
            passed * 100 >= all * 99
        });
        found.unwrap_or(0)
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.task.abort();
    }
}
