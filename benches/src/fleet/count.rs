//! What the fleet's machines said and heard, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// Counters of the whole fleet.
#[derive(Debug, Default)]
pub struct Counts {
    dhcp: AtomicU64,
    tftp: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    hangs: AtomicU64,
    silences: AtomicU64,
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub(super) fn dhcp(&self, bytes: usize) {
        one(&self.dhcp);
        self.sent(bytes);
    }

    pub(super) fn tftp(&self, bytes: usize) {
        one(&self.tftp);
        self.sent(bytes);
    }

    pub(super) fn request(&self, bytes: usize) {
        one(&self.requests);
        self.sent(bytes);
    }

    fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn failure(&self) {
        one(&self.failures);
    }

    pub(super) fn hang(&self) {
        one(&self.hangs);
    }

    pub(super) fn silence(&self) {
        one(&self.silences);
    }

    /// All of them. `silences`: answers that did not come in time (pauses between tries count too).
    #[must_use]
    pub fn json(&self) -> Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "dhcp": get(&self.dhcp), "tftp": get(&self.tftp), "requests": get(&self.requests),
            "failures": get(&self.failures), "sent": get(&self.sent), "received": get(&self.received),
            "hangs": get(&self.hangs), "silences": get(&self.silences),
        })
    }
}
