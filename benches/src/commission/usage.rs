//! CPU seconds and memory of process groups, from /proc.

use std::{collections::BTreeMap, fs};

/// Kernel ticks of CPU time in a second: fixed for user space on Linux.
const TICKS: f64 = 100.0;

/// A figure of each group.
pub(super) type Each<T> = BTreeMap<&'static str, T>;

/// Groups of processes: each a process with all that descend from it.
pub(super) struct Usage {
    groups: BTreeMap<&'static str, Group>,
    /// This process's own CPU seconds at the beginning.
    own_before: f64,
}

struct Group {
    pid: u32,
    /// CPU seconds of the present process when it was first looked at, and since then.
    before: f64,
    cpu: f64,
    /// CPU seconds of the processes that were in its place before it.
    gone: f64,
    pss: u64,
    pss_peak: u64,
}

impl Usage {
    pub(super) fn begin(pids: &Each<u32>) -> Self {
        let group = |pid| {
            let pss = pss(pid);
            Group { pid, before: cpu(pid), cpu: 0.0, gone: 0.0, pss, pss_peak: pss }
        };
        Self { groups: pids.iter().map(|(name, pid)| (*name, group(*pid))).collect(), own_before: own() }
    }

    /// Looks again.
    pub(super) fn look(&mut self) {
        for group in self.groups.values_mut() {
            group.cpu = group.cpu.max(cpu(group.pid) - group.before);
            group.pss = pss(group.pid);
            group.pss_peak = group.pss_peak.max(group.pss);
        }
    }

    /// Another process stands in that group's place: all it uses counts, its start too.
    pub(super) fn replaced(&mut self, name: &str, pid: u32) {
        if let Some(group) = self.groups.get_mut(name) {
            group.gone += group.cpu;
            (group.pid, group.before, group.cpu) = (pid, 0.0, 0.0);
        }
    }

    /// CPU seconds since the beginning, by group.
    pub(super) fn cpu_seconds(&self) -> Each<f64> {
        self.groups.iter().map(|(name, group)| (*name, group.gone + group.cpu)).collect()
    }

    /// Bytes that each group held at the last look: proportional set size.
    pub(super) fn pss(&self) -> Each<u64> {
        self.groups.iter().map(|(name, group)| (*name, group.pss)).collect()
    }

    /// The most bytes that each group held at once.
    pub(super) fn pss_peak(&self) -> Each<u64> {
        self.groups.iter().map(|(name, group)| (*name, group.pss_peak)).collect()
    }

    /// CPU seconds of this process alone since the beginning.
    pub(super) fn own_seconds(&self) -> f64 {
        own() - self.own_before
    }
}

/// The process and its children (PostgreSQL has one for each connection).
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).flat_map(family);
    std::iter::once(pid).chain(children).collect()
}

/// CPU seconds of one process: so many of the fields user time, system time, and both of dead children.
fn seconds(pid: u32, fields: usize) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything: state is field 3, user time 14, system time 15, those of dead children 16 and 17.
    let all: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(all.get(11..11 + fields)?.iter().filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / TICKS)
}

fn own() -> f64 {
    seconds(std::process::id(), 2).unwrap_or(0.0)
}

fn cpu(pid: u32) -> f64 {
    family(pid).into_iter().filter_map(|pid| seconds(pid, 4)).sum()
}

fn pss(pid: u32) -> u64 {
    let one = |pid: u32| -> Option<u64> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1_024)
    };
    family(pid).into_iter().filter_map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_before_a_process_was_replaced_still_counts() {
        let own = std::process::id();
        let mut usage = Usage::begin(&[("region", own)].into());
        assert!(usage.pss()["region"] > 1 << 20, "this test's own memory");
        usage.groups.get_mut("region").unwrap().cpu = 7.0;
        usage.replaced("region", own);
        usage.look();
        assert!(usage.cpu_seconds()["region"] >= 7.0);
        assert_eq!(usage.groups["region"].before, 0.0);
        assert!(usage.own_seconds() >= 0.0);
    }
}
