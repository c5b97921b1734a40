//! What machines are told of the package proxy (MAAS: `enable_http_proxy`, `http_proxy`, `use_peer_proxy`, `allow_proxy`). Pure.

use std::net::{IpAddr, SocketAddr};

use crate::plan::Snapshot;

/// The proxy that the machine at `machine`, which reaches this rack by `rack` (its internal name, or an address), fetches its packages through.
/// `own`: where this rack's proxy listens, if it runs.
#[must_use]
pub fn proxy_url(snapshot: &Snapshot, machine: IpAddr, rack: &str, own: Option<SocketAddr>) -> Option<String> {
    let settings = &snapshot.plan.settings.proxy;
    if !settings.enabled || !snapshot.subnet_of(machine).is_some_and(|subnet| subnet.allow_proxy) {
        return None;
    }
    match &settings.url {
        Some(url) if !settings.peer => Some(url.clone()),
        _ => own.map(|own| format!("http://{rack}:{}/", own.port())),
    }
}

#[cfg(test)]
mod tests {
    use schema::plan::{Plan, ProxySettings};

    use super::*;

    /// MAAS's table: maas-flow of `enable_http_proxy`, `http_proxy` and `use_peer_proxy`.
    #[test]
    fn machines_are_told_of_the_proxy_that_the_settings_name() {
        let url = |settings: ProxySettings, allow: bool, runs: bool| {
            let text = r#"{"id": 1, "cidr": "10.77.0.0/24"}"#;
            let mut subnet: schema::plan::PlanSubnet = serde_json::from_str(text).unwrap();
            subnet.allow_proxy = allow;
            let mut plan = Plan { subnets: vec![subnet], ..Plan::default() };
            plan.settings.proxy = settings;
            let own = runs.then(|| "0.0.0.0:8000".parse().unwrap());
            proxy_url(&Snapshot::new(plan), [10, 77, 0, 9].into(), "10-77-0-0--24.maas-internal", own)
        };
        let set = |enabled, url: Option<&str>, peer| ProxySettings { enabled, url: url.map(str::to_owned), peer };
        let (own, other) = (
            Some("http://10-77-0-0--24.maas-internal:8000/".to_owned()),
            Some("http://proxy.example:3128/".to_owned()),
        );
        assert_eq!(url(set(false, None, false), true, true), None);
        assert_eq!(url(set(true, None, false), true, true), own);
        assert_eq!(url(set(true, other.as_deref(), false), true, false), other);
        assert_eq!(url(set(true, other.as_deref(), true), true, true), own);
        assert_eq!(url(set(true, None, false), false, true), None);
        assert_eq!(url(set(true, None, false), true, false), None);
    }
}
