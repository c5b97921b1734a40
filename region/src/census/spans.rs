//! Spans of time, counted in buckets of at most 6 % width: quantiles of any number of them in 2 KiB.

use std::time::Duration;

use super::ENDS_S;

/// Buckets per power of two, and powers of two of a millisecond (up to 49 days).
const FINE: u64 = 16;
const BUCKETS: usize = 33 * 16;

/// The buckets.
#[derive(Debug, Clone)]
pub(super) struct Spans(Vec<u32>);

impl Default for Spans {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

impl Spans {
    pub(super) fn add(&mut self, span: Duration) {
        let bucket = bucket(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        if let Some(n) = self.0.get_mut(bucket) {
            *n = n.saturating_add(1);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|n| u64::from(*n)).sum()
    }

    /// Counts by the buckets of [`ENDS_S`], and the sum of all spans in seconds.
    pub(super) fn within(&self) -> ([u64; ENDS_S.len() + 1], f64) {
        let (mut counts, mut sum) = ([0; ENDS_S.len() + 1], 0.0);
        for (bucket, n) in self.0.iter().enumerate().filter(|(_, n)| **n > 0) {
            let ms = value(bucket);
            let at = ENDS_S.iter().position(|end| ms <= end * 1_000).unwrap_or(ENDS_S.len());
            if let Some(count) = counts.get_mut(at) {
                *count += u64::from(*n);
            }
            sum += ms as f64 / 1_000.0 * f64::from(*n);
        }
        (counts, sum)
    }

    /// The span in milliseconds that so many percent do not exceed; 0 without any.
    pub(super) fn quantile(&self, percent: u64) -> u64 {
        let rank = (self.count() * percent).div_ceil(100);
        let mut seen = 0;
        let found = self.0.iter().position(|n| {
            seen += u64::from(*n);
            seen >= rank && rank > 0
        });
        found.map_or(0, value)
    }
}

/// Exact below 16 ms; then sixteen buckets for each doubling.
fn bucket(ms: u64) -> usize {
    if ms < FINE {
        return usize::try_from(ms).unwrap_or(0);
    }
    let doublings = u64::from(ms.ilog2()) - 4;
    let within = (ms >> doublings) - FINE;
    usize::try_from((doublings + 1) * FINE + within).unwrap_or(0).min(BUCKETS - 1)
}

/// The largest span of a bucket.
fn value(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket;
    }
    let (doublings, within) = (bucket / FINE - 1, bucket % FINE);
    ((FINE + within + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_lies_in_its_bucket() {
        for ms in (0..5_000).chain([60_000, 3_600_000, 4_000_000_000]) {
            let top = value(bucket(ms));
            assert!(top >= ms && (top - ms) * 16 <= ms.max(16), "{ms} is shown as {top}");
        }
    }

    #[test]
    fn quantiles_of_a_hundred() {
        let mut spans = Spans::default();
        assert_eq!(spans.quantile(50), 0);
        (1..=100).for_each(|ms| spans.add(Duration::from_millis(ms)));
        assert_eq!((spans.count(), spans.quantile(50), spans.quantile(99)), (100, 51, 99));
    }
}
