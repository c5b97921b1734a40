//! The machine that a bench ran on, and the build: without them a figure says nothing.

use std::{fs, thread};

use serde_json::{Value, json};

/// As a report shows it; `words` is the same in one line.
pub(super) fn host() -> Value {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown CPU".into());
    let memory = value(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let words = format!("{cores} cores of {cpu}, {} GiB, Linux {kernel}, {build} build", (kib + (1 << 19)) >> 20);
    json!({ "cores": cores, "cpu": cpu, "memory_kib": kib, "kernel": kernel, "build": build, "words": words })
}

/// The value of the first `name : value` line.
fn value(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_cores_memory_and_a_kernel() {
        let host = host();
        assert!(host["cores"].as_u64() > Some(0) && host["memory_kib"].as_u64() > Some(0), "{host}");
        assert!(host["words"].as_str().unwrap().contains("Linux "), "{host}");
        assert_eq!(value("model name\t: AMD EPYC\nx: y", "model name").as_deref(), Some("AMD EPYC"));
    }
}
