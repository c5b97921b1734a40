//! Making, changing and deleting a machine: fields checked, all faults at once, then one event to its actor.

use std::collections::BTreeMap;

use schema::{
    id::{SystemId, VlanId},
    messages::machine::{CommissionOptions, MachineChanges, MachineEvent, MachineSpec},
    net::{HostName, MacAddr},
    power::{PowerConfig, PowerType},
    secret::Secret,
};

use super::{operate, show};
use crate::{
    api::{
        call::{Answer, Call},
        domains::find,
        fault::{Fault, Faults},
        hostname,
        params::Params,
    },
    store::queries::MachineFilter,
};

/// Debian's words for the architectures a machine may have.
const ARCHES: [&str; 7] = ["amd64", "arm64", "armhf", "i386", "ppc64el", "riscv64", "s390x"];

/// Secrets by field name.
pub type Secrets = BTreeMap<String, Secret<String>>;

/// POST `machines/`: makes the machine, and commissions it unless `commission=false`.
pub async fn create(call: &Call) -> Answer {
    let by = call.admin()?.username.clone();
    let _edit = call.house.editing().await;
    let params = &call.params;
    let mut faults = Faults::default();
    let architecture = faults.take(architecture(params)).flatten();
    if architecture.is_none() && params.filled("architecture").is_none() {
        faults.add("architecture", "This field is required.");
    }
    let macs = faults.take(macs(call).await).unwrap_or_default();
    let name = faults.take(host_name(call, None).await).flatten();
    let domain = faults.take(domain(call)).flatten();
    let power =
        faults.take(power(params, None, params.truth("power_parameters_skip_check").ok().flatten() == Some(true)));
    if params.filled("power_type").is_none() {
        faults.add("power_type", "This field is required: manual, or the BMC's type, as ipmi.");
    }
    let commission = faults.take(params.truth("commission")).flatten().unwrap_or(true);
    if faults.take(params.truth("deployed")).flatten() == Some(true) {
        faults.add("deployed", "Machines that run already can be taken in by a later version; leave it out.");
    }
    let options = faults.take(operate::options(params));
    let vlan = faults.take(vlan(call));
    faults.check()?;
    let (config, secrets) = power.unwrap_or_default();
    let spec = MachineSpec {
        system_id: call.house.fresh_id().await?,
        hostname: match name {
            Some(name) => name,
            None => fresh_name(call).await?,
        },
        domain: domain.unwrap_or_else(|| call.house.catalogue().main_domain().name.to_string()),
        architecture: architecture.unwrap_or_default(),
        macs,
        power: config,
        description: params.get("description").unwrap_or_default().to_owned(),
        zone: params.filled("zone").unwrap_or_default().to_owned(),
        pool: params.filled("pool").unwrap_or_default().to_owned(),
        vlan: vlan.flatten(),
    };
    let id = spec.system_id;
    call.house.create_machine(&by, spec, secrets).await?;
    if commission {
        let options: CommissionOptions = options.unwrap_or_default();
        // The machine is there whatever comes of this: what keeps it from commissioning is said in its own words.
        operate::commission(call, id, &by, options).await?;
    }
    show(call, id).await
}

/// PUT `machines/<id>/`: only the fields that are given change; power parameters merge with those there are.
pub async fn update(call: &Call, id: SystemId) -> Answer {
    let by = call.admin()?.username.clone();
    let _edit = call.house.editing().await;
    let present = call.house.state(id).await?;
    let params = &call.params;
    let mut faults = Faults::default();
    let mut changes = MachineChanges {
        hostname: faults.take(host_name(call, Some(id)).await).flatten(),
        domain: faults.take(domain(call)).flatten(),
        architecture: faults.take(architecture(params)).flatten(),
        description: params.get("description").map(str::to_owned),
        zone: params.filled("zone").map(str::to_owned),
        pool: params.filled("pool").map(str::to_owned),
        vlan: faults.take(vlan(call)).flatten(),
        ..MachineChanges::default()
    };
    let touches_power =
        params.filled("power_type").is_some() || params.iter().any(|(n, _)| n.starts_with("power_parameters"));
    let mut secrets = Secrets::new();
    if touches_power {
        let skip = params.truth("power_parameters_skip_check").ok().flatten() == Some(true);
        if let Some((config, given)) = faults.take(power(params, Some(&present.spec.power), skip)) {
            changes.power = Some(config);
            secrets = given;
        }
    }
    faults.check()?;
    if changes != MachineChanges::default() {
        call.house.update_machine(id, &by, changes, secrets).await?;
    }
    show(call, id).await
}

/// DELETE `machines/<id>/`.
pub async fn delete(call: &Call, id: SystemId) -> Result<(), Fault> {
    let by = call.admin()?.username.clone();
    call.house.obey(id, MachineEvent::Deleted { by }).await
}

/// `vlan`: the id of the VLAN that the machine boots on. Hostler's own parameter: with it, only that VLAN's racks hold the machine's tickets.
fn vlan(call: &Call) -> Result<Option<VlanId>, Fault> {
    let Some(id) = call.params.parsed::<i64>("vlan")?.map(VlanId) else { return Ok(None) };
    let known = call.house.catalogue().vlans.contains_key(&id);
    if known {
        Ok(Some(id))
    } else {
        Err(Fault::field("vlan", format!("There is no VLAN {id}; see vlans of /fabrics/.")))
    }
}

/// A generated name that no machine has.
async fn fresh_name(call: &Call) -> Result<String, Fault> {
    let names: Vec<String> = (0..16).map(|_| hostname::fresh(|_| false)).collect();
    let taken = call.house.summaries(MachineFilter { hostnames: names.clone(), ..MachineFilter::default() }).await?;
    let free = names.iter().find(|n| taken.iter().all(|m| m.hostname != **n)).cloned();
    // Sixteen hits mean a large fleet: a number then makes the name free.
    Ok(free.unwrap_or_else(|| hostname::fresh(|n| n.split('-').count() == 2)))
}

fn architecture(params: &Params) -> Result<Option<String>, Fault> {
    let Some(text) = params.filled("architecture") else { return Ok(None) };
    let (arch, sub) = text.split_once('/').unwrap_or((text, params.filled("subarchitecture").unwrap_or("generic")));
    if !ARCHES.contains(&arch) || sub.is_empty() || !sub.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
    {
        let message =
            format!("\"{text}\" is not a valid architecture. It is one of {}, as in amd64/generic.", ARCHES.join(", "));
        return Err(Fault::field("architecture", message));
    }
    Ok(Some(format!("{arch}/{sub}")))
}

async fn macs(call: &Call) -> Result<Vec<MacAddr>, Fault> {
    let params = &call.params;
    let mut faults = Faults::default();
    let mut macs: Vec<MacAddr> = Vec::new();
    for text in params.list("mac_addresses") {
        match text.parse::<MacAddr>() {
            Err(error) => faults.add("mac_addresses", format!("{error}.")),
            Ok(mac) if mac.0[0] & 1 == 1 || mac == MacAddr::default() => {
                faults.add("mac_addresses", format!("{mac} is no address of a network card."));
            }
            Ok(mac) if macs.contains(&mac) => {}
            Ok(mac) => macs.push(mac),
        }
    }
    if !macs.is_empty() {
        let held = MachineFilter { macs: macs.clone(), ..MachineFilter::default() };
        for holder in call.house.summaries(held).await? {
            faults.add("mac_addresses", format!("MAC address already in use on {}.", holder.hostname));
        }
    }
    if params.list("mac_addresses").is_empty() {
        faults.add("mac_addresses", "This field is required: the address of the card that the machine boots from.");
    }
    faults.check()?;
    Ok(macs)
}

/// The host name that is asked for, without its domain; `None` when there is none.
async fn host_name(call: &Call, own: Option<SystemId>) -> Result<Option<String>, Fault> {
    let Some(text) = call.params.filled("hostname") else { return Ok(None) };
    let name: HostName = text.parse().map_err(|e| Fault::field("hostname", format!("{e}.")))?;
    let label = name.as_str().split('.').next().unwrap_or_default().to_owned();
    let named = MachineFilter { hostnames: vec![label.clone()], ..MachineFilter::default() };
    if call.house.summaries(named).await?.iter().any(|m| Some(m.system_id) != own) {
        return Err(Fault::field("hostname", format!("Node with hostname \"{label}\" already exists.")));
    }
    Ok(Some(label))
}

/// The domain that is asked for, by name or id.
fn domain(call: &Call) -> Result<Option<String>, Fault> {
    let Some(text) = call.params.filled("domain") else { return Ok(None) };
    let c = call.house.catalogue();
    let found = find::domain(&c, text).map(|domain| domain.name.to_string());
    found.map(Some).ok_or_else(|| Fault::field("domain", format!("Domain \"{text}\" does not exist; see domains/.")))
}

/// `power_parameters` as JSON and `power_parameters_NAME`, the latter wins; blank values remove.
fn given_parameters(params: &Params) -> Result<BTreeMap<String, String>, Fault> {
    let mut given = BTreeMap::new();
    if let Some(text) = params.filled("power_parameters") {
        let map: BTreeMap<String, serde_json::Value> = serde_json::from_str(text)
            .map_err(|e| Fault::field("power_parameters", format!("This is not a JSON object of parameters: {e}.")))?;
        given.extend(map.into_iter().map(|(k, v)| (k, v.as_str().map_or_else(|| v.to_string(), str::to_owned))));
    }
    for (name, value) in params.iter() {
        if let Some(name) = name.strip_prefix("power_parameters_").filter(|n| *n != "skip_check") {
            given.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(given)
}

/// Type and parameters as they will be, and the secrets that were given. `skip` leaves required fields and choices unchecked.
fn power(params: &Params, present: Option<&PowerConfig>, skip: bool) -> Result<(PowerConfig, Secrets), Fault> {
    let given = given_parameters(params)?;
    let asked: Option<PowerType> = params.parsed("power_type")?;
    let power_type = asked.or(present.map(|p| p.power_type)).unwrap_or(PowerType::Manual);
    // Another type keeps nothing of the old one.
    let kept = present.filter(|p| p.power_type == power_type);
    let mut config = kept.cloned().unwrap_or_default();
    config.power_type = power_type;
    let (mut secrets, mut faults) = (Secrets::new(), Faults::default());
    for (name, value) in given {
        let Some(field) = power_type.fields().iter().find(|f| f.name == name) else {
            if !skip && !value.is_empty() {
                let known: Vec<_> = power_type.fields().iter().map(|f| f.name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                faults.add(
                    &format!("power_parameters_{name}"),
                    format!("Power type {} has no such parameter; it has: {known}.", power_type.name()),
                );
            }
            continue;
        };
        if !skip && !field.choices.is_empty() && !field.choices.contains(&value.as_str()) {
            let choices: Vec<_> = field.choices.iter().map(|c| if c.is_empty() { "(empty)" } else { c }).collect();
            faults
                .add(&format!("power_parameters_{name}"), format!("\"{value}\" is not one of {}.", choices.join(", ")));
        } else if field.secret {
            config.secret_fields.retain(|f| *f != name);
            config.secret_fields.push(name.clone());
            secrets.insert(name, Secret::new(value));
        } else if value.is_empty() {
            config.params.remove(&name);
        } else {
            config.params.insert(name, value);
        }
    }
    for field in power_type.fields().iter().filter(|f| f.required && !skip) {
        if !config.params.contains_key(field.name) && !config.secret_fields.iter().any(|f| f == field.name) {
            faults
                .add(&format!("power_parameters_{}", field.name), format!("This field is required: {}.", field.label));
        }
    }
    faults.check()?;
    Ok((config, secrets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_parameters_merge_and_secrets_stand_apart() {
        let first = Params::form(
            "power_type=ipmi&power_parameters_power_address=10.0.0.7&power_parameters_power_pass=x&power_parameters_power_user=a",
        );
        let (config, secrets) = power(&first, None, false).unwrap();
        assert_eq!(config.address(), Some("10.0.0.7"));
        assert_eq!(config.secret_fields, ["power_pass"]);
        assert_eq!(secrets["power_pass"].expose(), "x");
        assert!(!format!("{config:?}").contains('x') || !config.params.contains_key("power_pass"));
        let second = Params::form("power_parameters=%7B%22power_user%22%3A%22b%22%7D");
        let (config, secrets) = power(&second, Some(&config), false).unwrap();
        assert_eq!((config.params["power_user"].as_str(), config.address()), ("b", Some("10.0.0.7")));
        assert!(secrets.is_empty() && config.secret_fields == ["power_pass"]);
    }

    #[test]
    fn wrong_power_parameters_are_all_named() {
        let params = Params::form("power_type=ipmi&power_parameters_colour=red&power_parameters_privilege_level=KING");
        let Err(Fault::Fields(fields)) = power(&params, None, false) else { panic!("no fault") };
        let names: Vec<_> = fields.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["power_parameters_colour", "power_parameters_power_address", "power_parameters_privilege_level"]
        );
        assert!(power(&params, None, true).is_ok());
        assert!(power(&Params::form("power_type=steam"), None, false).is_err());
    }

    #[test]
    fn a_redfish_machine_needs_address_user_and_password() {
        let Err(Fault::Fields(fields)) = power(&Params::form("power_type=redfish"), None, false) else {
            panic!("no fault")
        };
        let names: Vec<_> = fields.keys().map(|name| name.trim_start_matches("power_parameters_")).collect();
        assert_eq!(names, ["power_address", "power_pass", "power_user"]);
    }

    #[test]
    fn architectures_are_completed() {
        let of = |text: &str| architecture(&Params::form(text));
        assert_eq!(of("architecture=amd64").unwrap().unwrap(), "amd64/generic");
        assert_eq!(of("architecture=arm64/xgene").unwrap().unwrap(), "arm64/xgene");
        assert!(of("architecture=z80").is_err() && of("architecture=amd64/../x").is_err());
    }
}
