//! The wall clock, for hands only. Decisions take `now`.

use std::time::{SystemTime, UNIX_EPOCH};

use schema::time::Timestamp;

/// Now, in whole microseconds.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A point for measuring spans.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn tick() -> std::time::Instant {
    std::time::Instant::now()
}
