//! `rackcontrollers/` with their services and their drain, and the enrolment of racks: tokens are made here, once shown, and kept as hashes.

use std::{sync::Arc, time::Duration};

use actors::{
    clock,
    rack::{Duty, LinkState, Rack, Unfit},
};
use schema::{
    catalogue::{Catalogue, CatalogueItem, CatalogueKey, EnrolmentToken, RackEntry},
    messages::link::Hello,
    service::ServiceStatus,
};
use serde_json::{Value, json};

use super::{
    call::{Answer, Call, Own, OwnAnswer, gone, json},
    fault::Fault,
    shape::{self, ROOT},
};

/// A rack as it was enrolled, what it said of itself if it is connected, and what the region knows of it.
#[derive(Debug, Clone)]
pub struct RackFacts {
    pub entry: RackEntry,
    pub hello: Option<Arc<Hello>>,
    pub state: Option<Arc<Rack>>,
    /// With counters while it is connected.
    pub services: Vec<ServiceStatus>,
    /// Hostnames of the machines whose present work it has a part in.
    pub machines: Vec<String>,
}

impl RackFacts {
    fn fit(&self, duty: Duty) -> Result<(), Unfit> {
        let nothing = || Unfit { why: "it has never connected".into(), remedy: "start it".into() };
        self.state.as_ref().ok_or_else(nothing)?.fit(duty, &self.entry)
    }

    /// In one word: what is to be known first.
    fn word(&self) -> &'static str {
        match self.state.as_ref().map(|state| (state.link, state.silent)) {
            _ if self.entry.revoked => "revoked",
            None | Some((LinkState::Enrolled, _)) => "enrolled",
            Some((LinkState::Lost, _)) => "lost",
            Some((LinkState::Disconnected, _)) => "disconnected",
            Some((LinkState::Connected, Some(_))) => "silent",
            Some(_) if self.entry.drained.is_some() => "drained",
            Some(_) if Duty::ALL.iter().any(|duty| self.fit(*duty).is_err()) => "degraded",
            Some(_) => "healthy",
        }
    }
}

/// `rackcontrollers/`.
pub async fn all(call: Call) -> Answer {
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            let wanted = [call.params.list("id"), call.params.list("hostname"), call.params.list("system_id")].concat();
            let (c, racks) = (call.house.catalogue(), call.house.racks().await);
            let admitted = racks.iter().filter(|r| {
                wanted.is_empty() || wanted.iter().any(|w| *w == r.entry.hostname || *w == r.entry.id.to_string())
            });
            Ok(json(&Value::Array(admitted.map(|facts| rack(&c, facts)).collect())))
        }
        ("GET", "describe_power_types") => {
            call.user()?;
            Ok(json(&Value::Array(power_types())))
        }
        _ => Err(call.unknown()),
    }
}

/// `rackcontrollers/<id>/`.
pub async fn one(call: Call) -> Answer {
    let racks = call.house.racks().await;
    let wanted = call.part("system_id");
    let facts = racks.iter().find(|r| r.entry.id.as_str() == wanted || r.entry.hostname == wanted);
    let facts = facts.ok_or_else(|| Fault::no("RackController"))?;
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&rack(&call.house.catalogue(), facts)))
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            call.house.remove(&by, CatalogueKey::Rack(facts.entry.id)).await?;
            Ok(gone())
        }
        ("POST", "revoke") => {
            let by = call.admin()?.username.clone();
            let entry = RackEntry { revoked: true, ..facts.entry.clone() };
            call.house.put(&by, vec![CatalogueItem::Rack(entry.clone())]).await?;
            Ok(json(&rack(&call.house.catalogue(), &RackFacts { entry, hello: None, ..facts.clone() })))
        }
        ("GET", "services") => {
            call.user()?;
            Ok(json(&Value::Array(services(facts))))
        }
        ("POST", "drain" | "undrain") => {
            let by = call.admin()?.username.clone();
            let since = facts.entry.drained.unwrap_or_else(clock::now);
            let drained = (call.wants().1 == "drain").then_some(since);
            let entry = RackEntry { drained, ..facts.entry.clone() };
            call.house.put(&by, vec![CatalogueItem::Rack(entry.clone())]).await?;
            Ok(json(&rack(&call.house.catalogue(), &RackFacts { entry, ..facts.clone() })))
        }
        _ => Err(call.unknown()),
    }
}

fn rack(c: &Catalogue, facts: &RackFacts) -> Value {
    let domain = shape::dns::domain_of(c, "");
    let RackFacts { entry, hello, machines, .. } = facts;
    let id = entry.id;
    let interfaces = hello.iter().flat_map(|h| &h.interfaces).enumerate().map(|(at, i)| {
        let addresses: Vec<_> = i.addresses.iter().map(|(ip, _)| ip).collect();
        json!({
            "id": at, "system_id": id, "name": i.name, "type": "physical", "enabled": true, "mac_address": i.mac,
            "ip_addresses": addresses, "vlan": null, "links": [], "tags": [], "parents": [], "children": [], "params": "",
            "discovered": null, "effective_mtu": 1_500, "resource_uri": format!("{ROOT}/nodes/{id}/interfaces/{at}/"),
        })
    });
    let addresses: Vec<_> =
        hello.iter().flat_map(|h| &h.interfaces).flat_map(|i| &i.addresses).map(|(ip, _)| ip).collect();
    let state = if hello.is_some() { "running" } else { "dead" };
    let mut services =
        vec![json!({"name": "rackd", "status": state, "status_info": if entry.revoked { "revoked" } else { "" }})];
    services.extend(facts.services.iter().map(|status| maas_service(facts, status)));
    let unfit = Duty::ALL.iter().find_map(|duty| facts.fit(*duty).err());
    let mut value = json!({
        "system_id": id, "hostname": entry.hostname, "fqdn": entry.hostname, "description": "", "hardware_uuid": null,
        "domain": domain, "zone": shape::zone(""), "architecture": "", "cpu_count": 0, "cpu_speed": 0, "memory": 0,
        "swap_size": null, "osystem": "", "distro_series": "", "power_type": "", "power_state": "unknown",
        "ip_addresses": addresses, "interface_set": interfaces.collect::<Vec<_>>(), "status_action": "", "node_type": 2,
        "node_type_name": "Rack controller", "service_set": services, "tag_names": [],
        "version": hello.as_ref().map(|h| h.version.clone()).unwrap_or_default(), "hardware_info": {},
        "current_commissioning_result_id": null, "current_testing_result_id": null, "current_installation_result_id": null,
        // Hostler's own, beside MAAS's.
        "connected": hello.is_some(), "revoked": entry.revoked, "plan": facts.state.as_ref().map(|state| state.plan_in_force),
        "state": facts.word(), "healthy": facts.fit(Duty::Names).is_ok(), "drained": entry.drained.map(|at| at.to_string()),
        "why": unfit.as_ref().map(|u| &u.why), "remedy": unfit.as_ref().map(|u| &u.remedy),
        "machines": machines, "services": self::services(facts),
        "resource_uri": format!("{ROOT}/rackcontrollers/{id}/"),
    });
    let kinds = [
        "commissioning",
        "testing",
        "cpu_test",
        "memory_test",
        "network_test",
        "storage_test",
        "interface_test",
        "other_test",
    ];
    for kind in kinds {
        value[format!("{kind}_status")] = json!(-1);
        value[format!("{kind}_status_name")] = json!("Unknown");
    }
    value
}

/// A service as MAAS's clients know it, under MAAS's name.
fn maas_service(facts: &RackFacts, status: &ServiceStatus) -> Value {
    let name = match status.service.as_str() {
        "dhcp" => "dhcpd",
        "dns" => "dns_rack",
        "ntp" => "ntp_rack",
        "proxy" => "proxy_rack",
        "syslog" => "syslog_rack",
        own => own,
    };
    let addresses: Vec<_> = status.addresses.iter().map(ToString::to_string).collect();
    let info = match &status.last_error {
        Some(error) if addresses.is_empty() => error.why.clone(),
        _ => addresses.join(" "),
    };
    json!({"name": name, "status": service_word(facts, status), "status_info": info})
}

/// A service that its rack cannot be asked about is in no known state.
fn service_word(facts: &RackFacts, status: &ServiceStatus) -> &'static str {
    facts.state.as_ref().map_or("unknown", |state| state.word(status))
}

/// A rack's services, as Hostler's own tools show them.
fn services(facts: &RackFacts) -> Vec<Value> {
    let show = |status: &ServiceStatus| {
        let counters: serde_json::Map<_, _> = status.counters.iter().map(|(n, c)| (n.clone(), json!(c))).collect();
        let error = status.last_error.as_ref();
        json!({
            "rack": facts.entry.hostname, "system_id": facts.entry.id, "service": status.service,
            "state": service_word(facts, status), "since": status.since.to_string(), "addresses": status.addresses,
            "counters": counters, "restarts": status.restarts,
            "last_error": error.map(|e| json!({"at": e.at.to_string(), "why": e.why, "remedy": e.remedy})),
        })
    };
    facts.services.iter().map(show).collect()
}

/// The power drivers and their fields.
fn power_types() -> Vec<Value> {
    let field = |f: &schema::power::PowerField| {
        let choices: Vec<_> = f.choices.iter().map(|c| json!([c, c])).collect();
        let kind = if f.secret {
            "password"
        } else if choices.is_empty() {
            "string"
        } else {
            "choice"
        };
        json!({
            "name": f.name, "label": f.label, "required": f.required, "secret": f.secret, "field_type": kind,
            "choices": choices, "default": f.default, "scope": "bmc",
        })
    };
    let types = schema::power::PowerType::ALL.into_iter();
    types
        .map(|t| {
            let fields: Vec<_> = t.fields().iter().map(field).collect();
            json!({
                "driver_type": "power", "name": t.name(), "description": t.name(), "fields": fields,
                "queryable": t.queryable(), "missing_packages": [],
            })
        })
        .collect()
}

/// How long a token may wait to be used, unless `hours` says otherwise.
const TOKEN_HOURS: u64 = 24;

/// POST `/racks/tokens`: a single-use enrolment token, shown this once.
pub async fn token(Own(call): Own) -> OwnAnswer {
    let ("POST", _) = call.wants() else { return Err(call.unknown().into()) };
    let by = call.admin()?.username.clone();
    let hours: u64 = call.params.parsed("hours")?.unwrap_or(TOKEN_HOURS);
    if !(1..=24 * 30).contains(&hours) {
        return Err(Fault::field("hours", format!("{hours} is not within 1 and 720.")).into());
    }
    let (token, kept) = call.house.enrolment_token(Duration::from_secs(hours * 3_600));
    let expires = kept.expires;
    call.house.put(&by, vec![CatalogueItem::EnrolmentToken(kept)]).await?;
    Ok(json(&json!({"token": token, "expires": expires.to_string()})))
}

/// GET `/racks/tokens` shows when tokens end and who used them; never the tokens.
pub async fn tokens(Own(call): Own) -> OwnAnswer {
    call.admin()?;
    let c = call.house.catalogue();
    let show =
        |t: &EnrolmentToken| json!({"sha256": t.token_sha256, "expires": t.expires.to_string(), "used_by": t.used_by});
    Ok(json(&Value::Array(c.enrolment_tokens.values().map(show).collect())))
}
