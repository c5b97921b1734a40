//! CPU seconds and memory of process groups, from /proc.

use std::{collections::BTreeMap, fs};

/// Kernel ticks of CPU time in a second: fixed for user space on Linux.
const TICKS: f64 = 100.0;

/// Groups of processes: each a process with all that descend from it.
pub(super) struct Usage {
    groups: BTreeMap<&'static str, Group>,
}

struct Group {
    pid: u32,
    cpu_before: f64,
    cpu: f64,
    pss_peak: u64,
}

impl Usage {
    pub(super) fn begin(pids: &BTreeMap<&'static str, u32>) -> Self {
        let group = |pid| Group { pid, cpu_before: cpu(pid), cpu: 0.0, pss_peak: pss(pid) };
        Self { groups: pids.iter().map(|(name, pid)| (*name, group(*pid))).collect() }
    }

    /// Looks again.
    pub(super) fn look(&mut self) {
        for group in self.groups.values_mut() {
            group.cpu = group.cpu.max(cpu(group.pid) - group.cpu_before);
            group.pss_peak = group.pss_peak.max(pss(group.pid));
        }
    }

    /// CPU seconds since the beginning, by group.
    pub(super) fn cpu_seconds(&self) -> BTreeMap<&'static str, f64> {
        self.groups.iter().map(|(name, group)| (*name, group.cpu)).collect()
    }

    /// The most bytes that each group held at once: proportional set size.
    pub(super) fn pss_peak(&self) -> BTreeMap<&'static str, u64> {
        self.groups.iter().map(|(name, group)| (*name, group.pss_peak)).collect()
    }
}

/// The process and its children (PostgreSQL has one for each connection).
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).flat_map(family);
    std::iter::once(pid).chain(children).collect()
}

fn cpu(pid: u32) -> f64 {
    let one = |pid: u32| -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: state is field 3, user time 14, system time 15, those of dead children 16 and 17.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        Some(fields.get(11..15)?.iter().filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() / TICKS)
    };
    family(pid).into_iter().filter_map(one).sum()
}

fn pss(pid: u32) -> u64 {
    let one = |pid: u32| -> Option<u64> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1_024)
    };
    family(pid).into_iter().filter_map(one).sum()
}
