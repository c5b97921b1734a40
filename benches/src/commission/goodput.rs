//! Goodput: machines that became Ready, by time. Its peak, its worst, and when it is back after something was killed. Pure.

use serde_json::{Value, json};

/// Windows that goodput is looked at in, in seconds. In a short one chance alone makes a tenth; a long one needs a long run.
const WINDOWS: [f64; 2] = [10.0, 60.0];
/// The window in which goodput after a kill is compared with what it was before, and the share that it must reach again.
const AGAIN: f64 = 5.0;
const ENOUGH: f64 = 0.9;

/// How many machines were Ready at which second, in the order of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curve(Vec<(f64, f64)>);

/// The best and the worst window of a run, in machines per minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Windows {
    pub seconds: f64,
    pub peak: f64,
    pub worst: f64,
    /// The worst from the peak on.
    pub worst_after: f64,
}

impl Curve {
    /// Adds a look.
    pub fn add(&mut self, second: f64, ready: u64) {
        self.0.push((second, ready as f64));
    }

    /// Machines that were Ready at that second; between two looks they came evenly.
    fn at(&self, second: f64) -> f64 {
        let after = self.0.partition_point(|(s, _)| *s <= second);
        match (after.checked_sub(1).and_then(|i| self.0.get(i)), self.0.get(after)) {
            (Some((s, n)), Some((t, m))) => n + (m - n) * (second - s) / (t - s),
            (Some((_, n)), None) => *n,
            (None, _) => 0.0,
        }
    }

    /// Machines per minute over the window that ends there.
    #[must_use]
    pub fn rate(&self, end: f64, window: f64) -> f64 {
        (self.at(end) - self.at(end - window)) * 60.0 / window
    }

    /// The windows of that length from the first machine that is Ready to the last tenth of them; `None` when there are not two of them
    /// that do not overlap.
    #[must_use]
    pub fn windows(&self, machines: u64, seconds: f64) -> Option<Windows> {
        let begin = self.0.iter().rfind(|(_, ready)| *ready == 0.0)?.0;
        let end = self.0.iter().find(|(_, ready)| *ready >= machines as f64 * 0.9)?.0;
        if end - begin < 2.0 * seconds {
            return None;
        }
        let ends = self.0.iter().map(|(s, _)| *s).filter(|s| s - seconds >= begin && *s <= end);
        let rates: Vec<f64> = ends.map(|s| self.rate(s, seconds)).collect();
        let least = |of: &[f64]| of.iter().copied().fold(f64::INFINITY, f64::min);
        // Of equal ones the first.
        let (at, peak) = rates.iter().copied().enumerate().rev().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let after = least(rates.get(at..).unwrap_or_default());
        Some(Windows { seconds, peak, worst: least(&rates), worst_after: after })
    }

    /// What the report says of a run.
    #[must_use]
    pub fn json(&self, machines: u64) -> Value {
        let shown = |w: Windows| {
            json!({
                "window_s": w.seconds, "peak_per_minute": w.peak, "worst_per_minute": w.worst, "worst_of_peak": share(w.worst, w.peak),
                "worst_after_peak_per_minute": w.worst_after, "worst_after_peak_of_peak": share(w.worst_after, w.peak),
            })
        };
        WINDOWS.into_iter().filter_map(|seconds| self.windows(machines, seconds)).map(shown).collect()
    }

    /// Goodput before that second, in machines per minute.
    #[must_use]
    pub fn before(&self, second: f64) -> f64 {
        let first = self.0.first().map_or(0.0, |(s, _)| *s);
        let window = WINDOWS[0].min(second - first);
        if window > 0.0 { self.rate(second, window) } else { 0.0 }
    }

    /// The second, not before that one, from which goodput was for a while nearly what is given; `None` when it never was.
    #[must_use]
    pub fn back(&self, not_before: f64, per_minute: f64) -> Option<f64> {
        let mut ends = self.0.iter().map(|(s, _)| *s).filter(|s| s - AGAIN >= not_before);
        let found = ends.find(|end| per_minute > 0.0 && self.rate(*end, AGAIN) >= ENOUGH * per_minute);
        found.map(|end| end - AGAIN)
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole * 1e3).round() / 1e3 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many machines in each second.
    fn curve(each: impl IntoIterator<Item = u64>) -> (Curve, u64) {
        let (mut curve, mut ready) = (Curve::default(), 0);
        curve.add(0.0, 0);
        for (second, n) in (1..).zip(each) {
            ready += n;
            curve.add(f64::from(second), ready);
        }
        (curve, ready)
    }

    #[test]
    fn even_goodput_is_its_own_peak_and_the_last_tenth_does_not_count() {
        let (curve, all) = curve((0..100).map(|s| if s < 90 { 10 } else { 1 }));
        let w = curve.windows(all, 10.0).unwrap();
        assert_eq!((w.peak, w.worst, w.worst_after), (600.0, 600.0, 600.0));
        assert_eq!(curve.json(all)[0]["worst_of_peak"], 1.0);
    }

    #[test]
    fn a_dip_after_the_peak_is_told_apart_from_a_slow_start() {
        let slow_start = (0..100).map(|s| if s < 20 { 5 } else { 10 });
        let (curve_a, all) = curve(slow_start);
        let w = curve_a.windows(all, 10.0).unwrap();
        assert_eq!((w.peak, w.worst, w.worst_after), (600.0, 300.0, 600.0));
        let dip = (0..100).map(|s| if (50..60).contains(&s) { 2 } else { 10 });
        let (curve_b, all) = curve(dip);
        let w = curve_b.windows(all, 10.0).unwrap();
        assert_eq!((w.peak, w.worst_after), (600.0, 120.0));
        assert_eq!(curve_b.json(all)[0]["worst_after_peak_of_peak"], 0.2);
        assert!(curve_b.windows(all, 60.0).is_none(), "too short a run for two minutes");
    }

    #[test]
    fn nothing_is_said_of_a_run_without_two_windows() {
        let (short, all) = curve([10; 12]);
        assert_eq!(short.windows(all, 10.0), None);
        assert_eq!(Curve::default().json(10), json!([]));
    }

    #[test]
    fn goodput_is_back_when_it_stays_so_for_a_while() {
        // Ten a second; killed at 30; nothing for 8 s; a single burst at 34 is not yet goodput.
        let (curve, _) = curve((0..60).map(|s| match s {
            34 => 9,
            30..38 => 0,
            _ => 10,
        }));
        let before = curve.before(30.0);
        assert_eq!(before, 600.0);
        assert_eq!(curve.back(31.0, before), Some(38.0));
        assert_eq!(curve.back(56.0, before), None, "the run ended before");
        assert_eq!(curve.back(31.0, 0.0), None, "nothing became Ready before");
        assert_eq!(curve.before(0.0), 0.0);
    }
}
