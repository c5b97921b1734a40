//! Says a thing once per span and counts the rest, so that a hostile peer cannot fill a log.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One kind of message that may come too often.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<(Option<Instant>, u64)>);

impl Throttle {
    const SPAN: Duration = Duration::from_secs(10);

    /// `Some(n)` when it is time to speak, `n` being how often it was silent since; `None` otherwise.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| now.duration_since(last) < Self::SPAN) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_once_per_span_and_counts_the_rest() {
        let (throttle, start) = (Throttle::default(), crate::clock::tick());
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start + Duration::from_secs(1)), None);
        assert_eq!(throttle.pass(start + Duration::from_secs(9)), None);
        assert_eq!(throttle.pass(start + Duration::from_secs(10)), Some(2));
    }
}
