//! The harness's own limits, so that they are not taken for the product's: what the fleet's thread did, how late it was, what was dropped.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use super::usage::Each;

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
    /// Datagrams that the fleet's full receive buffers dropped.
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
            why.push(format!("{} datagrams for the fleet were dropped in full receive buffers", self.dropped));
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

/// Datagrams that the sockets of each group dropped since they were opened, since their buffers were full.
pub(super) fn drops(groups: &Each<u32>) -> Each<u64> {
    let of = |pid: &u32| {
        let table = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        let lost: BTreeMap<String, u64> = lossy(&table("udp")).chain(lossy(&table("udp6"))).collect();
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let sockets = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        sockets.filter_map(|socket| lost.get(socket.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?)).sum()
    };
    groups.iter().map(|(name, pid)| (*name, of(pid))).collect()
}

/// Sockets that dropped something, by inode: fields 10 and 13 of proc_net_udp(5).
fn lossy(table: &str) -> impl Iterator<Item = (String, u64)> + '_ {
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let drops = fields.get(12)?.parse().ok().filter(|drops| *drops > 0)?;
        Some(((*fields.get(9)?).to_owned(), drops))
    })
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
        said(&Seen { dropped: 200, ..idle.clone() }, "200 datagrams for the fleet were dropped");
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
    fn a_deaf_socket_is_found_with_whom_it_belongs_to() {
        let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let caller = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mine = || drops(&[("fleet", std::process::id())].into())["fleet"];
        let before = mine();
        // More than a buffer of the kernel's usual size holds.
        for _ in 0..2_000 {
            caller.send_to(&[0; 1_000], deaf.local_addr().unwrap()).unwrap();
        }
        assert!(mine() > before);
        assert_eq!(lossy("head\nno socket").count(), 0);
    }
}
