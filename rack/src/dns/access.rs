//! Who may ask what. Pure.

use std::net::IpAddr;

use schema::plan::{PlanSettings, PlanSubnet};

/// What a client may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Any name.
    All,
    /// The names of our zones.
    Ours,
    /// A short refusal, and not too many of them: whoever asks from there may be somebody else's address.
    Nothing,
}

/// By MAAS's rule: subnets with `allow_dns`, the trusted networks, and this host itself. `own`: this host's addresses.
pub(super) fn admit(settings: &PlanSettings, subnets: &[PlanSubnet], own: &[IpAddr], peer: IpAddr) -> Admitted {
    let peer = peer.to_canonical();
    let subnet = subnets.iter().find(|s| s.cidr.contains(peer));
    if subnet.is_some_and(|s| s.allow_dns)
        || peer.is_loopback()
        || settings.dns_trusted.iter().any(|network| network.contains(peer))
        || own.contains(&peer)
    {
        return Admitted::All;
    }
    if subnet.is_some() { Admitted::Ours } else { Admitted::Nothing }
}

#[cfg(test)]
mod tests {
    use schema::plan::Plan;

    use super::*;

    #[test]
    fn subnets_and_the_trusted_may_ask_and_strangers_may_not() {
        let plan = r#"{"settings": {"dns_trusted": ["10.9.0.0/16"]}, "subnets": [
            {"id": 1, "cidr": "10.77.0.0/24"}, {"id": 2, "cidr": "10.78.0.0/24", "allow_dns": false}]}"#;
        let plan: Plan = serde_json::from_str(plan).unwrap();
        let own = ["192.0.2.7".parse().unwrap()];
        for (peer, admitted) in [
            ("10.77.0.9", Admitted::All),
            ("::ffff:10.77.0.9", Admitted::All),
            ("10.9.3.3", Admitted::All),
            ("127.0.0.1", Admitted::All),
            ("192.0.2.7", Admitted::All),
            ("10.78.0.9", Admitted::Ours),
            ("192.0.2.8", Admitted::Nothing),
            ("2001:db8::1", Admitted::Nothing),
        ] {
            assert_eq!(admit(&plan.settings, &plan.subnets, &own, peer.parse().unwrap()), admitted, "{peer}");
        }
    }
}
