//! The filters of a machine listing (MAAS's names, each repeatable). Pure; what it does not know it ignores, as MAAS does.

use schema::{net::MacAddr, status::NodeStatus};

use crate::{
    api::{fault::Fault, params::Params, shape::machine::Facts},
    store::queries::MachineFilter,
};

/// What a listing asks for. An empty list admits all.
#[derive(Debug, Default)]
pub struct Filter {
    ids: Vec<String>,
    hostnames: Vec<String>,
    macs: Vec<MacAddr>,
    domains: Vec<String>,
    zones: Vec<String>,
    pools: Vec<String>,
    arches: Vec<String>,
    statuses: Vec<NodeStatus>,
    not_statuses: Vec<NodeStatus>,
    power_states: Vec<String>,
    owners: Vec<String>,
    tags: Vec<String>,
    min_cpus: Option<u32>,
    min_memory: Option<u64>,
    not_ids: Vec<String>,
    not_hostnames: Vec<String>,
    not_zones: Vec<String>,
    not_pools: Vec<String>,
    not_arches: Vec<String>,
}

impl Filter {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 that names the field when a MAC address, a status or a number is none.
    pub fn read(params: &Params) -> Result<Self, Fault> {
        let macs = params.list("mac_address").into_iter();
        let macs =
            macs.map(|m| m.parse().map_err(|e: schema::net::NetError| Fault::field("mac_address", e.to_string())));
        Ok(Self {
            ids: [params.list("id"), params.list("system_id")].concat(),
            hostnames: params.list("hostname"),
            macs: macs.collect::<Result<_, _>>()?,
            domains: params.list("domain"),
            zones: params.list("zone"),
            pools: params.list("pool"),
            arches: params.list("arch"),
            statuses: statuses(params, "status")?,
            not_statuses: statuses(params, "not_status")?,
            power_states: params.list("power_state"),
            owners: params.list("owner"),
            tags: params.list("tags"),
            min_cpus: params.parsed("cpu_count")?,
            min_memory: params.parsed("mem")?,
            not_ids: params.list("not_id"),
            not_hostnames: params.list("not_hostname"),
            not_zones: params.list("not_in_zone"),
            not_pools: params.list("not_in_pool"),
            not_arches: params.list("not_arch"),
        })
    }

    /// The part of it that the database can answer; [`Self::admits`] does the whole.
    #[must_use]
    pub fn rows(&self) -> MachineFilter {
        let short = self.hostnames.iter().all(|n| !n.contains('.'));
        MachineFilter {
            system_ids: self.ids.iter().filter_map(|id| id.parse().ok()).collect(),
            hostnames: if short { self.hostnames.clone() } else { Vec::new() },
            macs: self.macs.clone(),
            statuses: self.statuses.clone(),
            ..MachineFilter::default()
        }
    }

    /// Whether the machine is asked for.
    #[must_use]
    pub fn admits(&self, facts: &Facts) -> bool {
        let m = &facts.record.machine;
        let fqdn = facts.fqdn();
        let within = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
        let named = |list: &[String]| list.iter().any(|v| *v == m.hostname || *v == fqdn);
        let arch =
            |list: &[String]| list.iter().any(|v| *v == m.architecture || m.architecture.starts_with(&format!("{v}/")));
        let mac = |mac: &MacAddr| facts.has_mac(*mac);
        let hw = facts.record.hardware.as_ref();
        let or_default = |name: &str| if name.is_empty() { "default".to_owned() } else { name.to_owned() };
        within(&self.ids, m.system_id.as_str())
            && (self.hostnames.is_empty() || named(&self.hostnames))
            && (self.macs.is_empty() || self.macs.iter().any(mac))
            && within(&self.domains, &m.domain)
            && within(&self.zones, &or_default(&m.zone))
            && within(&self.pools, &or_default(&m.pool))
            && (self.arches.is_empty() || arch(&self.arches))
            && (self.statuses.is_empty() || self.statuses.contains(&m.status))
            && within(&self.power_states, m.power_state.label())
            // Owners and tags come with a later issue: no machine has any.
            && self.owners.is_empty()
            && self.tags.is_empty()
            && self.min_cpus.is_none_or(|n| hw.is_some_and(|h| h.cpu_count >= n))
            && self.min_memory.is_none_or(|n| hw.is_some_and(|h| h.memory >= n))
            && !self.excludes(facts, named(&self.not_hostnames), arch(&self.not_arches))
    }

    fn excludes(&self, facts: &Facts, by_name: bool, by_arch: bool) -> bool {
        let m = &facts.record.machine;
        let or_default = |name: &str| if name.is_empty() { "default".to_owned() } else { name.to_owned() };
        by_name
            || by_arch
            || self.not_ids.iter().any(|v| v == m.system_id.as_str())
            || self.not_statuses.contains(&m.status)
            || self.not_zones.contains(&or_default(&m.zone))
            || self.not_pools.contains(&or_default(&m.pool))
    }
}

/// MAAS takes its labels in lower case; spaces may be underscores.
fn statuses(params: &Params, name: &str) -> Result<Vec<NodeStatus>, Fault> {
    let find = |word: String| {
        let plain = word.to_ascii_lowercase().replace('_', " ");
        let found = NodeStatus::ALL.iter().copied().find(|s| s.label().to_ascii_lowercase() == plain);
        found.or_else(|| word.parse().ok().and_then(NodeStatus::from_number)).ok_or_else(|| {
            let known: Vec<_> = NodeStatus::ALL.iter().map(|s| s.label().to_ascii_lowercase()).collect();
            Fault::field(name, format!("\"{word}\" is not a status; use one of {}.", known.join(", ")))
        })
    };
    params.list(name).into_iter().map(find).collect()
}
