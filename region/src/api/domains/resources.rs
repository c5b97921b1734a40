//! `dnsresources/`: names with addresses.

use actors::catalogue::Table;
use schema::catalogue::{CatalogueItem, CatalogueKey, DnsResource};
use serde_json::Value;

use super::{addresses, find, put, seconds};
use crate::api::{
    call::{Answer, Call, gone, json},
    fault::{Fault, Faults},
    params::Params,
    shape::dns as shape,
};

/// `dnsresources/`.
pub async fn all(call: Call) -> Answer {
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            let c = call.house.catalogue();
            let typed = |r: &&DnsResource| {
                let Some(rrtype) = call.params.filled("rrtype") else { return true };
                let has = |v4: bool| r.ip_addresses.iter().any(|ip| ip.is_ipv4() == v4);
                match rrtype.to_ascii_uppercase().as_str() {
                    "A" => has(true),
                    "AAAA" => has(false),
                    other => c.dns_records.values().any(|d| d.resource == r.id && d.rrtype == other),
                }
            };
            let wanted = c.dns_resources.values().filter(|r| find::wanted(&c, &call.params, r)).filter(typed);
            Ok(json(&Value::Array(wanted.map(|r| shape::resource(&c, r)).collect())))
        }
        ("POST", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let c = call.house.catalogue();
            let (domain, name) = find::place(&c, &call.params, None)?;
            let id = call.house.next_id(Table::DnsResources);
            let new = DnsResource { id, domain: domain.id, name, address_ttl: None, ip_addresses: Vec::new() };
            let resource = changed(&call.params, new)?;
            put(&call, &by, CatalogueItem::DnsResource(resource)).await?;
            show(&call, id)
        }
        _ => Err(call.unknown()),
    }
}

/// `dnsresources/<id>/`.
pub async fn one(call: Call) -> Answer {
    let c = call.house.catalogue();
    let none = || Fault::no("DNSResource");
    let id: i64 = call.part("resource_id").parse().map_err(|_| none())?;
    let resource = c.dns_resources.get(&id).ok_or_else(none)?.clone();
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&shape::resource(&c, &resource)))
        }
        ("PUT", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let (domain, name) = find::place(&c, &call.params, Some(&resource))?;
            let resource = changed(&call.params, DnsResource { domain: domain.id, name, ..resource })?;
            put(&call, &by, CatalogueItem::DnsResource(resource)).await?;
            show(&call, id)
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            call.house.remove(&by, CatalogueKey::DnsResource(id)).await?;
            Ok(gone())
        }
        _ => Err(call.unknown()),
    }
}

fn show(call: &Call, id: i64) -> Answer {
    let c = call.house.catalogue();
    c.dns_resources.get(&id).map(|r| json(&shape::resource(&c, r))).ok_or_else(|| Fault::no("DNSResource"))
}

fn changed(params: &Params, mut resource: DnsResource) -> Result<DnsResource, Fault> {
    let mut faults = Faults::default();
    if let Some(ttl) = faults.take(seconds(params, "address_ttl")).flatten() {
        resource.address_ttl = ttl;
    }
    if params.get("ip_addresses").is_some() {
        resource.ip_addresses = faults.take(addresses(params, "ip_addresses")).unwrap_or_default();
        resource.ip_addresses.sort_unstable();
        resource.ip_addresses.dedup();
    }
    faults.check()?;
    Ok(resource)
}
