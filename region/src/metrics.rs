//! What the region measures, as one page for Prometheus. Reads counters; decides nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use actors::{
    findings::Severity,
    metrics::Page,
    rack::LinkState,
    shell::inspect::{Histogram, Spread},
};
use schema::{id::RackId, service::Health};

use crate::{
    app::App,
    census::{ENDS_S, Served, Took},
};

/// Routes with codes that are told apart; the others are counted together.
const MOST: usize = 512;
/// What boot files are, by the names of a rack's counters.
const BOOT_FILES: [&str; 6] = ["loader", "config", "kernel", "initrd", "squashfs", "other"];
/// What clients send, by the names of a rack's counters.
const DHCP_REQUESTS: [&str; 5] = ["discover", "request", "decline", "release", "inform"];

/// How long API requests took, by route and status code.
#[derive(Default)]
pub struct Requests(Mutex<BTreeMap<(String, u16), Arc<Histogram>>>);

impl Requests {
    /// One was answered.
    pub fn note(&self, route: &str, code: u16, took: Duration) {
        let histogram = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let route = if all.len() < MOST { route } else { "other" };
            all.entry((route.to_owned(), code)).or_default().clone()
        };
        histogram.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    fn spreads(&self) -> Vec<(String, u16, Spread)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|((route, code), histogram)| (route.clone(), *code, histogram.spread())).collect()
    }
}

impl App {
    /// The page.
    pub async fn metrics(&self) -> String {
        let mut page = Page::default();
        let version = [("version", env!("CARGO_PKG_VERSION")), ("role", "region")];
        page.family("hostler_build_info").sample(&version, 1.0);
        self.machines_measured(&mut page);
        let turns = self.turns.counts();
        page.family("hostler_turns");
        for (what, count) in [("limit", turns.limit), ("under_way", turns.under_way), ("waiting", turns.waiting)] {
            page.sample(&[("what", what)], count as f64);
        }
        page.actors(&self.registry);
        let found = self.findings().await;
        page.family("hostler_findings");
        for (severity, name) in [(Severity::Critical, "critical"), (Severity::Warning, "warning")] {
            page.sample(&[("severity", name)], found.iter().filter(|f| f.severity == severity).count() as f64);
        }
        self.racks_measured(&mut page);
        page.family("hostler_api_request_seconds");
        for (route, code, spread) in self.requests.spreads() {
            page.histogram(&[("route", &route), ("code", &code.to_string())], &spread);
        }
        page.family("hostler_store_commit_seconds").histogram(&[], &self.store.commits().spread());
        page.family("hostler_ui_stream_clients").sample(&[], self.inspector.watchers() as f64);
        page.family("hostler_ui_stream_dropped_total").sample(&[], self.inspector.missed.load(Relaxed) as f64);
        page.text()
    }

    fn machines_measured(&self, page: &mut Page) {
        let now = actors::clock::now();
        page.family("hostler_machines");
        for (status, count) in self.census.fleet(now).statuses {
            page.sample(&[("status", status)], count.into());
        }
        page.family("hostler_stuck");
        for (cause, stuck) in self.census.causes(now) {
            page.sample(&[("cause", &cause)], stuck.count as f64);
        }
        let Took { steps, whole, outcomes } = self.census.took();
        let ends = || ENDS_S.iter().map(|end| Some(*end as f64)).chain([None]);
        page.family("hostler_commission_step_seconds");
        // Racks come and go; those that are enrolled are as many as there are.
        let c = self.catalogue_content();
        for Served { step, rack, outcome, counts: (counts, sum) } in steps {
            if rack.is_none_or(|rack| c.racks.contains_key(&rack)) {
                let rack = rack.as_ref().map_or("", |rack| rack.as_str());
                page.buckets(&[("step", step.label()), ("rack", rack), ("outcome", outcome)], ends().zip(counts), sum);
            }
        }
        page.family("hostler_commission_seconds").buckets(&[], ends().zip(whole.0), whole.1);
        page.family("hostler_commission_total");
        for (outcome, count) in outcomes {
            page.sample(&[("outcome", outcome)], count as f64);
        }
    }

    fn racks_measured(&self, page: &mut Page) {
        let racks: Vec<_> = self.catalogue_content().racks.keys().copied().collect();
        page.family("hostler_rack_up");
        for rack in &racks {
            let up = self.rack_state(*rack).is_some_and(|state| state.link == LinkState::Connected);
            page.sample(&[("rack", rack.as_str())], f64::from(u8::from(up)));
        }
        page.family("hostler_quic_rtt_seconds");
        if let Some(server) = self.links.server.load_full() {
            for (rack, rtt) in server.round_trips() {
                page.sample(&[("rack", rack.as_str())], rtt.as_secs_f64());
            }
        }
        page.family("hostler_quic_streams");
        if let Some(server) = self.links.server.load_full() {
            for (rack, streams) in server.streams() {
                page.sample(&[("rack", rack.as_str())], streams as f64);
            }
        }
        page.family("hostler_dns_serial_lag");
        for (rack, in_force) in self.links.names_in_force() {
            let lag = self.names.version().saturating_sub(in_force);
            page.sample(&[("rack", rack.as_str())], lag as f64);
        }
        self.services_measured(&racks, page);
        page.family("hostler_service_up");
        for rack in racks {
            for status in self.services(rack) {
                let up = match status.health {
                    Health::Running => 1.0,
                    Health::Degraded => 0.5,
                    Health::Dead => 0.0,
                    Health::Off => continue,
                };
                page.sample(&[("rack", rack.as_str()), ("service", &status.service)], up);
            }
        }
    }

    /// What racks say of their services, where it has a name of its own.
    fn services_measured(&self, racks: &[RackId], page: &mut Page) {
        let counters = |rack: RackId, service: &str| {
            let status = self.services(rack).into_iter().find(|status| status.service == service);
            status.map(|status| status.counters).unwrap_or_default()
        };
        page.family("hostler_dhcp_requests_total");
        for rack in racks {
            let known = |(kind, _): &(String, u64)| DHCP_REQUESTS.contains(&kind.as_str());
            for (kind, count) in counters(*rack, "dhcp").into_iter().filter(known) {
                page.sample(&[("rack", rack.as_str()), ("type", &kind)], count as f64);
            }
        }
        page.family("hostler_tftp_bytes_total");
        for rack in racks {
            for (_, bytes) in counters(*rack, "tftp").into_iter().filter(|(name, _)| name == "bytes") {
                page.sample(&[("rack", rack.as_str())], bytes as f64);
            }
        }
        page.family("hostler_http_boot_bytes_total");
        for rack in racks {
            for (name, bytes) in counters(*rack, "http") {
                if let Some(kind) = name.strip_prefix("bytes_").filter(|kind| BOOT_FILES.contains(kind)) {
                    page.sample(&[("rack", rack.as_str()), ("kind", kind)], bytes as f64);
                }
            }
        }
    }
}
