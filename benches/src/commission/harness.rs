//! The harness's own limits, so that they are not taken for the product's: what the fleet's thread did, how late it was, what was dropped.

use std::fs;

use serde_json::{Value, json};

/// Shares of the fleet's one thread, over the run and in its busiest ten seconds, from which on the fleet is what a run waits for.
const BUSY: f64 = 0.85;
const BUSIEST: f64 = 0.97;
const STRETCH: f64 = 10.0;
/// Timers that are later than that are part of the times that are measured.
const LATE_MS: u64 = 100;
/// Datagrams of ten thousand that may be lost in full buffers before the run is about buffers.
const LOST: u64 = 10;

/// What was seen of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Share of one core that the fleet took, over all and in its busiest stretch.
    pub busy: f64,
    pub busiest: f64,
    pub lag_p99_ms: u64,
    /// Datagrams that full receive buffers of this host dropped, the product's too.
    pub dropped: u64,
    /// Datagrams and requests that the machines sent.
    pub sent: u64,
    /// CPU seconds of the bench itself: it asks, looks on and writes.
    pub bench_cpu: f64,
}

impl Seen {
    /// Why the figures are the harness's own; empty when they are not.
    #[must_use]
    pub fn bound(&self) -> Vec<String> {
        let mut why = Vec::new();
        let percent = |share: f64| (share * 100.0).round();
        if self.busy >= BUSY {
            why.push(format!("the fleet's one thread was busy {} % of the time", percent(self.busy)));
        } else if self.busiest >= BUSIEST {
            let share = percent(self.busiest);
            why.push(format!("the fleet's one thread was busy {share} % of its busiest {STRETCH} s"));
        }
        if self.lag_p99_ms >= LATE_MS {
            why.push(format!("its timers were {} ms late (p99), which the times hold too", self.lag_p99_ms));
        }
        if self.dropped * 10_000 > self.sent * LOST && self.dropped > 0 {
            why.push(format!("{} datagrams were dropped in full receive buffers", self.dropped));
        }
        why
    }

    pub(super) fn json(&self) -> Value {
        let percent = |share: f64| (share * 1e3).round() / 10.0;
        json!({
            "lag_p99_ms": self.lag_p99_ms, "dropped": self.dropped, "busy_percent": percent(self.busy),
            "busiest_percent": percent(self.busiest), "bench_cpu_seconds": self.bench_cpu, "bound": self.bound(),
        })
    }
}

/// The greatest share of a core in any stretch, from looks at CPU seconds by time.
pub(super) fn busiest(looks: &[(f64, f64)]) -> f64 {
    let share = |(at, (s, cpu)): (usize, &(f64, f64))| {
        let before = looks.get(..at)?.iter().rfind(|(t, _)| s - t >= STRETCH)?;
        Some((cpu - before.1) / (s - before.0))
    };
    looks.iter().enumerate().filter_map(share).fold(0.0, f64::max)
}

/// Datagrams that were dropped in full receive buffers since the host started (RFC 4113's counters, as Linux tells them).
pub(super) fn drops() -> u64 {
    buffer_errors(&fs::read_to_string("/proc/net/snmp").unwrap_or_default()).unwrap_or(0)
}

fn buffer_errors(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_ascii_whitespace().position(|name| name == "RcvbufErrors")?;
    values.split_ascii_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_the_harnesss_when_its_thread_is_busy_late_or_deaf() {
        let idle = Seen { busy: 0.4, busiest: 0.9, lag_p99_ms: 20, dropped: 1, sent: 100_000, bench_cpu: 1.0 };
        assert_eq!(idle.bound(), Vec::<String>::new());
        let said = |seen: &Seen, part: &str| {
            let why = seen.bound();
            assert!(why.len() == 1 && why[0].contains(part), "{part}: {why:?}");
        };
        said(&Seen { busy: 0.9, ..idle.clone() }, "busy 90 % of the time");
        said(&Seen { busiest: 0.99, ..idle.clone() }, "busy 99 % of its busiest 10 s");
        said(&Seen { lag_p99_ms: 250, ..idle.clone() }, "250 ms late");
        said(&Seen { dropped: 200, ..idle.clone() }, "200 datagrams were dropped");
        assert_eq!(idle.json()["bound"], json!([]));
    }

    #[test]
    fn the_busiest_stretch_is_found() {
        // Half a core, then all of it for twelve seconds.
        let cpu = |s: f64| if s <= 20.0 { s * 0.5 } else { 10.0 + (s - 20.0) };
        let looks: Vec<_> = (0..33).map(f64::from).map(|s| (s, cpu(s))).collect();
        assert!((busiest(&looks) - 1.0).abs() < 1e-9);
        assert_eq!(busiest(looks.get(..5).unwrap()), 0.0);
    }

    #[test]
    fn the_kernels_counter_is_found_by_its_name() {
        let snmp = "Tcp: A B\nTcp: 1 2\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\nUdp: 9 8 7 6 5 4\n";
        assert_eq!(buffer_errors(snmp), Some(5));
        assert_eq!(buffer_errors("Udp: A\n"), None);
    }
}
