//! Metrics as Prometheus reads them: the one list of names, and the text of a page. No label names a machine. Collects nothing but actors.

use std::{fmt::Write, sync::atomic::Ordering::Relaxed};

use crate::shell::{
    Registry,
    inspect::{BUCKETS, Spread},
};

/// What a page is served as.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One name.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    pub name: &'static str,
    /// `gauge`, `counter` or `histogram`.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    /// Who serves it: `region`, `rack` or `both`.
    pub by: &'static str,
    pub help: &'static str,
}

macro_rules! families {
    ($($name:literal $kind:literal $labels:expr, $by:literal, $help:literal;)*) => {
        /// Every name, in the order of the page.
        pub const FAMILIES: &[Family] =
            &[$(Family { name: $name, kind: $kind, labels: &$labels, by: $by, help: $help }),*];
    };
}

families! {
    "hostler_build_info" "gauge" ["version", "role"], "both", "1, with the version that runs.";
    "hostler_machines" "gauge" ["status"], "region", "Machines by status.";
    "hostler_stuck" "gauge" ["cause"], "region", "Machines that need a look, by the step at which they wait or the status in which they failed.";
    "hostler_commission_step_seconds" "histogram" ["step", "rack", "outcome"], "region", "How long each of the twelve steps of a commissioning took, by the rack that served it (empty: the region) and its end: done or failed. Counted when the commissioning ends.";
    "hostler_commission_seconds" "histogram" [], "region", "How long commissionings took, whatever their end.";
    "hostler_commission_total" "counter" ["outcome"], "region", "Commissionings that ended since the region started: ready or failed.";
    "hostler_turns" "gauge" ["what"], "region", "Commissionings under way at once: how many may be (limit), are (under_way), wait for their turn (waiting).";
    "hostler_actors" "gauge" ["kind"], "both", "Actors that are awake.";
    "hostler_actor_queue" "gauge" ["kind"], "both", "Messages in mailboxes, those in hand included.";
    "hostler_actor_mailbox_wait_seconds" "histogram" ["kind"], "both", "Time that messages spent in mailboxes.";
    "hostler_actor_handle_seconds" "histogram" ["kind", "message"], "both", "Time from a decision to its effects, the record included.";
    "hostler_actor_restarts_total" "counter" ["kind", "reason"], "both", "Actors that ended to be loaded anew (overtaken), or decide no more (quarantined).";
    "hostler_actor_panics_total" "counter" ["kind"], "both", "Decisions that panicked; the state is unchanged.";
    "hostler_dead_letters_total" "counter" [], "both", "Messages that found a mailbox full; their senders kept them.";
    "hostler_findings" "gauge" ["severity"], "region", "What deserves a look: see /inspect/v1/findings.";
    "hostler_rack_up" "gauge" ["rack"], "region", "1 while the rack's link is up.";
    "hostler_quic_rtt_seconds" "gauge" ["rack"], "region", "Round trip of the rack's link.";
    "hostler_quic_streams" "gauge" ["rack"], "region", "Open streams of the rack's link: one for messages, the others with bodies.";
    "hostler_dns_serial_lag" "gauge" ["rack"], "region", "Changes of names, each with its serial, that a linked rack has not said to have in force.";
    "hostler_dhcp_requests_total" "counter" ["rack", "type"], "region", "DHCP messages of clients by type, as the rack said last of its service; they begin anew with it.";
    "hostler_tftp_bytes_total" "counter" ["rack"], "region", "Bytes of files sent by TFTP, as the rack said last of its service; they begin anew with it.";
    "hostler_http_boot_bytes_total" "counter" ["rack", "kind"], "region", "Bytes of boot files sent by HTTP in answers that went out whole: loader, config, kernel, initrd, squashfs, other; counted as those by TFTP.";
    "hostler_service_up" "gauge" ["rack", "service"], "both", "1 while the service serves, 0.5 while it serves in part, 0 while it should and does not.";
    "hostler_service_events_total" "counter" ["service", "event"], "rack", "What services counted: packets, transfers, requests, by what became of them.";
    "hostler_dhcp_latency_seconds" "histogram" [], "rack", "Time from a DHCP message that was read to its answer sent, a probe of the address included.";
    "hostler_service_restarts_total" "counter" ["service"], "rack", "How often a service was started again after it had died.";
    "hostler_outbox_reports" "gauge" [], "rack", "Reports on disk that no region has acknowledged.";
    "hostler_api_request_seconds" "histogram" ["route", "code"], "region", "Time of API requests, by route and status code.";
    "hostler_store_commit_seconds" "histogram" [], "region", "Time of the database's commits, tries while it was away included.";
    "hostler_ui_stream_clients" "gauge" [], "region", "Watchers of the inspection.";
    "hostler_ui_stream_dropped_total" "counter" [], "region", "Samples that watchers missed since they read too slowly.";
}

/// `docs/metrics.md`.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from `actors::metrics` by `actors/tests/it/metrics.rs`; do not edit. The region serves them at `/metrics` of its API's port, \
         a rack at `/metrics` of `metrics.listen`. No label names a machine.\n\n| name | kind | labels | served by | what |\n|---|---|---|---|---|\n",
    );
    for Family { name, kind, labels, by, help } in FAMILIES {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        page.push_str(&format!("| `{name}` | {kind} | {} | {by} | {help} |\n", labels.join(", ")));
    }
    page
}

/// The text of one page.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    /// The samples that follow belong to that name, which is one of [`FAMILIES`].
    pub fn family(&mut self, name: &str) -> &mut Self {
        if let Some(family) = FAMILIES.iter().find(|f| f.name == name) {
            let Family { name, kind, help, .. } = family;
            self.name = name;
            writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").ok(); // A String takes all.
        }
        self
    }

    /// One value.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, value);
    }

    /// One histogram.
    pub fn histogram(&mut self, labels: &[(&str, &str)], spread: &Spread) {
        let ends = (0..BUCKETS).map(|at| Spread::end_of(at).map(|us| us as f64 / 1_000_000.0));
        self.buckets(labels, ends.zip(spread.buckets.iter().copied()), spread.sum_us as f64 / 1_000_000.0);
    }

    /// One histogram, of its buckets' ends in seconds (`None`: the last) with their counts, and of the sum of all.
    pub fn buckets(&mut self, labels: &[(&str, &str)], buckets: impl Iterator<Item = (Option<f64>, u64)>, sum: f64) {
        let mut count = 0;
        for (end, more) in buckets {
            count += more;
            if let Some(end) = end {
                self.line("_bucket", labels, Some(&end.to_string()), count as f64);
            }
        }
        self.line("_bucket", labels, Some("+Inf"), count as f64);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], end: Option<&str>, value: f64) {
        let labels = labels.iter().copied().chain(end.map(|end| ("le", end)));
        let labels: Vec<_> = labels.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.text, "{}{suffix}{labels} {value}", self.name).ok(); // A String takes all.
    }

    /// The text.
    #[must_use]
    pub fn text(self) -> String {
        self.text
    }

    /// What the actors of a process have done.
    pub fn actors(&mut self, registry: &Registry) {
        let kinds = registry.kinds();
        let count = |kind: &str| {
            let probes = registry.list(Some(kind));
            (
                probes.len(),
                probes.iter().map(|p| p.depth()).sum::<usize>(),
                probes.iter().map(|p| p.panics()).sum::<u64>(),
            )
        };
        let counts: Vec<_> = kinds.iter().map(|k| (k.kind, count(k.kind))).collect();
        self.family("hostler_actors");
        counts.iter().for_each(|(kind, (n, ..))| self.sample(&[("kind", kind)], *n as f64));
        self.family("hostler_actor_queue");
        counts.iter().for_each(|(kind, (_, queue, _))| self.sample(&[("kind", kind)], *queue as f64));
        self.family("hostler_actor_mailbox_wait_seconds");
        for kind in &kinds {
            let mut wait = Spread::default();
            kind.events().iter().for_each(|event| wait.add(&event.wait.spread()));
            self.histogram(&[("kind", kind.kind)], &wait);
        }
        self.family("hostler_actor_handle_seconds");
        for kind in &kinds {
            for event in kind.events() {
                self.histogram(&[("kind", kind.kind), ("message", &event.name)], &event.handle.spread());
            }
        }
        self.family("hostler_actor_restarts_total");
        for kind in &kinds {
            self.sample(&[("kind", kind.kind), ("reason", "overtaken")], kind.overtaken.load(Relaxed) as f64);
            self.sample(&[("kind", kind.kind), ("reason", "quarantined")], kind.quarantined.load(Relaxed) as f64);
        }
        self.family("hostler_actor_panics_total");
        for kind in &kinds {
            let panics: u64 = kind.events().iter().map(|event| event.panics.load(Relaxed)).sum();
            self.sample(&[("kind", kind.kind)], panics as f64);
        }
        let undelivered: u64 = kinds.iter().map(|kind| kind.undelivered.load(Relaxed)).sum();
        self.family("hostler_dead_letters_total").sample(&[], undelivered as f64);
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The labels of each sample of a page, `le` of a histogram left out: what tests compare with [`FAMILIES`].
#[must_use]
pub fn labels(text: &str) -> Vec<(&str, Vec<&str>)> {
    let (mut name, mut found) = ("", Vec::new());
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            name = family.split(' ').next().unwrap_or_default();
        }
        if let Some(rest) = line.strip_prefix(name).filter(|_| !name.is_empty()) {
            // A value may hold anything; what stands before `="` after a brace or a comma is a name.
            let inside = rest.split_once('{').map_or("", |(_, inside)| inside);
            let names = inside.split("=\"").filter_map(|part| part.rsplit([',', '"', '{']).next());
            let plain = |name: &&str| {
                !name.is_empty() && *name != "le" && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            };
            found.push((name, names.filter(plain).collect()));
        }
    }
    found
}

/// The names that a page's text has: what tests compare with [`FAMILIES`].
#[must_use]
pub fn names(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_prometheus_wants_it() {
        let mut page = Page::default();
        page.family("hostler_machines").sample(&[("status", "a \"b\"\n")], 3.0);
        let spread = Spread { buckets: [1, 2].into_iter().chain([0; BUCKETS - 2]).collect(), sum_us: 9, max_us: 7 };
        page.family("hostler_store_commit_seconds").histogram(&[], &spread);
        let text = page.text();
        assert!(text.contains("hostler_machines{status=\"a \\\"b\\\"\\n\"} 3\n"), "{text}");
        assert!(
            text.contains("_bucket{le=\"0.000004\"} 1\n") && text.contains("_bucket{le=\"0.000008\"} 3\n"),
            "{text}"
        );
        assert!(text.ends_with("_bucket{le=\"+Inf\"} 3\nhostler_store_commit_seconds_sum 0.000009\nhostler_store_commit_seconds_count 3\n"), "{text}");
        assert_eq!(names(&text), ["hostler_machines", "hostler_store_commit_seconds"]);
        let labels = labels(&text);
        assert_eq!(labels[0], ("hostler_machines", vec!["status"]));
        assert!(labels.len() == BUCKETS + 3 && labels[1..].iter().all(|(_, names)| names.is_empty()), "{labels:?}");
    }

    #[test]
    fn no_label_names_a_machine_and_each_name_stands_once() {
        for family in FAMILIES {
            assert!(
                family.labels.iter().all(|label| !["machine", "system_id", "hostname", "mac", "ip"].contains(label))
            );
            assert_eq!(FAMILIES.iter().filter(|f| f.name == family.name).count(), 1, "{}", family.name);
            assert!(["gauge", "counter", "histogram"].contains(&family.kind) && family.name.starts_with("hostler_"));
            assert_eq!(family.kind == "counter", family.name.ends_with("_total"), "{}", family.name);
        }
    }
}
