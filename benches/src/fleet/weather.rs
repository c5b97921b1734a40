//! The network between a rack and its machines: fair, slow or cut. What is done to it is done on the machines' side of the wire.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// No packet passes.
const CUT: u64 = u64::MAX;
/// How often one who waits behind a cut looks again.
const LOOK: Duration = Duration::from_millis(100);

/// One rack's network. The default is fair.
#[derive(Debug, Default)]
pub struct Weather(AtomicU64);

impl Weather {
    /// Everything takes so long longer, each way counted once.
    pub fn slow(&self, delay: Duration) {
        self.0.store(u64::try_from(delay.as_millis()).unwrap_or(CUT - 1).min(CUT - 1), Ordering::Relaxed);
    }

    /// Nothing passes.
    pub fn cut(&self) {
        self.0.store(CUT, Ordering::Relaxed);
    }

    /// As it should be.
    pub fn fair(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.load(Ordering::Relaxed) == CUT
    }

    /// The delay, if there is one.
    pub(super) fn delay(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 | CUT => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }

    /// Resolves when something passes: TCP tries again for as long as it is let.
    pub(super) async fn pass(&self) {
        while self.is_cut() {
            tokio::time::sleep(LOOK).await;
        }
        if let Some(delay) = self.delay() {
            tokio::time::sleep(delay).await;
        }
    }
}
