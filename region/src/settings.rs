//! What the operator's settings (MAAS's `set_config` names) mean to the racks. Defaults and types of all settings are the API's.

use std::{net::IpAddr, str::FromStr};

use schema::{
    catalogue::Catalogue,
    net::{Cidr, HostName},
    plan::{PlanSettings, ProxySettings},
};

/// A setting's text that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not {what}, which setting {name} takes.")]
pub struct Wrong {
    name: String,
    text: String,
    what: &'static str,
}

/// The settings as a rack's plan has them. A text that means nothing was refused when it was set; here it counts as not set.
#[must_use]
pub fn plan(c: &Catalogue) -> PlanSettings {
    let text = |name: &str| json(c, name).and_then(|v| v.as_str().map(str::to_owned)).filter(|t| !t.is_empty());
    let yes = |name: &str, default| json(c, name).and_then(|v| v.as_bool()).unwrap_or(default);
    let list = |name: &str| text(name).unwrap_or_default();
    let base = PlanSettings::default();
    PlanSettings {
        domain: c.main_domain().name.to_string(),
        internal_domain: text("maas_internal_domain").unwrap_or(base.internal_domain.clone()),
        upstream_dns: each(&list("upstream_dns")).filter_map(Result::ok).collect(),
        dns_trusted: each::<Network>(&list("dns_trusted_acl")).filter_map(Result::ok).map(|n| n.0).collect(),
        ntp_servers: each(&list("ntp_servers")).filter_map(Result::ok).collect(),
        ntp_external_only: yes("ntp_external_only", false),
        remote_syslog: text("remote_syslog").and_then(|t| syslog(&t)),
        proxy: ProxySettings {
            enabled: yes("enable_http_proxy", true),
            url: text("http_proxy"),
            peer: yes("use_peer_proxy", false),
        },
        ..base
    }
}

/// Whether `text` is a value of that setting; an empty text unsets it.
///
/// # Errors
/// [`Wrong`] with what belongs there.
pub fn check(name: &str, text: &str) -> Result<(), Wrong> {
    let (fine, what) = match name {
        "upstream_dns" => (all::<IpAddr>(text), "a list of IP addresses, separated by spaces"),
        "dns_trusted_acl" => (all::<Network>(text), "a list of networks or IP addresses, separated by spaces"),
        "ntp_servers" => (all::<HostName>(text) || all::<IpAddr>(text), "a list of host names or IP addresses"),
        "remote_syslog" => (syslog(text).is_some(), "IP-ADDRESS or IP-ADDRESS:PORT"),
        "http_proxy" => (text.starts_with("http://") || text.starts_with("https://"), "a URL as in http://proxy:3128/"),
        "maas_internal_domain" => (all::<HostName>(text), "a domain name"),
        _ => return Ok(()),
    };
    if text.is_empty() || fine { Ok(()) } else { Err(Wrong { name: name.into(), text: text.into(), what }) }
}

/// MAAS's port of remote syslog is 514 where none is given.
fn syslog(text: &str) -> Option<std::net::SocketAddr> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| (ip, 514).into()))
}

/// A network, or an address alone.
struct Network(Cidr);

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let alone = |ip: IpAddr| Cidr::new(ip, if ip.is_ipv4() { 32 } else { 128 });
        let cidr = text.parse().or_else(|_| text.parse().map_err(drop).and_then(|ip| alone(ip).map_err(drop)));
        cidr.map(Self)
    }
}

fn all<T: FromStr>(text: &str) -> bool {
    each::<T>(text).all(|value| value.is_ok())
}

fn each<T: FromStr>(text: &str) -> impl Iterator<Item = Result<T, T::Err>> {
    text.split([' ', ',']).filter(|part| !part.is_empty()).map(str::parse)
}

fn json(c: &Catalogue, name: &str) -> Option<serde_json::Value> {
    c.settings.get(name).and_then(|text| serde_json::from_str(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_reach_the_plan_and_nonsense_does_not() {
        let mut c = Catalogue::default();
        assert_eq!(plan(&c), PlanSettings::default());
        let set = [
            ("upstream_dns", "\"10.0.0.1, 10.0.0.2\""),
            ("dns_trusted_acl", "\"10.9.0.0/16 10.1.1.1\""),
            ("remote_syslog", "\"10.0.0.9\""),
            ("enable_http_proxy", "false"),
        ];
        c.settings.extend(set.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let plan = plan(&c);
        assert_eq!(plan.upstream_dns.len(), 2);
        assert_eq!(plan.dns_trusted, ["10.9.0.0/16".parse().unwrap(), "10.1.1.1/32".parse().unwrap()]);
        assert_eq!(plan.remote_syslog, Some("10.0.0.9:514".parse().unwrap()));
        assert!(!plan.proxy.enabled);
        for (name, text) in [("upstream_dns", "dns.example"), ("http_proxy", "ftp://x"), ("ntp_servers", "a b_c")] {
            assert!(check(name, text).is_err_and(|w| w.to_string().contains(name)), "{name}");
            assert!(check(name, "").is_ok());
        }
    }
}
