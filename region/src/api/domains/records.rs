//! `dnsresourcerecords/`: what else hangs on a name.

use actors::catalogue::Table;
use schema::catalogue::{CatalogueItem, CatalogueKey, DnsRecord, DnsResource};
use serde_json::Value;

use super::{admitted, find, put, seconds};
use crate::api::{
    call::{Answer, Call, gone, json},
    fault::Fault,
    shape::dns as shape,
};

/// `dnsresourcerecords/`.
pub async fn all(call: Call) -> Answer {
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            let c = call.house.catalogue();
            let rrtype = call.params.filled("rrtype").map(str::to_ascii_uppercase);
            let wanted = c.dns_records.values().filter(|record| {
                let resource = c.dns_resources.get(&record.resource);
                resource.is_some_and(|r| find::wanted(&c, &call.params, r))
                    && rrtype.as_ref().is_none_or(|wanted| record.rrtype == *wanted)
            });
            Ok(json(&Value::Array(wanted.map(|r| shape::record(&c, r)).collect())))
        }
        ("POST", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let c = call.house.catalogue();
            let (domain, name) = find::place(&c, &call.params, None)?;
            let known = c.dns_resources.values().find(|r| (r.domain, &r.name) == (domain.id, &name));
            let fresh = || DnsResource {
                id: call.house.next_id(Table::DnsResources),
                domain: domain.id,
                name: name.clone(),
                address_ttl: None,
                ip_addresses: Vec::new(),
            };
            let resource = known.cloned().unwrap_or_else(fresh);
            let record = DnsRecord {
                id: call.house.next_id(Table::DnsRecords),
                resource: resource.id,
                ttl: seconds(&call.params, "ttl")?.flatten(),
                rrtype: call.params.required("rrtype")?.to_ascii_uppercase(),
                rrdata: call.params.required("rrdata")?.to_owned(),
            };
            let id = record.id;
            // A name that nobody has yet comes into being with its first record; both or neither.
            let mut with = (*c).clone();
            let mut items = Vec::new();
            if known.is_none() {
                let item = CatalogueItem::DnsResource(resource.clone());
                admitted(&c, &item)?;
                with.dns_resources.insert(resource.id, resource);
                items.push(item);
            }
            let item = CatalogueItem::DnsRecord(record);
            admitted(&with, &item)?;
            items.push(item);
            call.house.put(&by, items).await?;
            show(&call, id)
        }
        _ => Err(call.unknown()),
    }
}

/// `dnsresourcerecords/<id>/`.
pub async fn one(call: Call) -> Answer {
    let c = call.house.catalogue();
    let none = || Fault::no("DNSData");
    let id: i64 = call.part("record_id").parse().map_err(|_| none())?;
    let record = c.dns_records.get(&id).ok_or_else(none)?.clone();
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&shape::record(&c, &record)))
        }
        ("PUT", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let given = |field: &str, old: &str| call.params.filled(field).unwrap_or(old).to_owned();
            let changed = DnsRecord {
                rrtype: given("rrtype", &record.rrtype).to_ascii_uppercase(),
                rrdata: given("rrdata", &record.rrdata),
                ttl: seconds(&call.params, "ttl")?.unwrap_or(record.ttl),
                ..record
            };
            put(&call, &by, CatalogueItem::DnsRecord(changed)).await?;
            show(&call, id)
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            call.house.remove(&by, CatalogueKey::DnsRecord(id)).await?;
            Ok(gone())
        }
        _ => Err(call.unknown()),
    }
}

fn show(call: &Call, id: i64) -> Answer {
    let c = call.house.catalogue();
    c.dns_records.get(&id).map(|r| json(&shape::record(&c, r))).ok_or_else(|| Fault::no("DNSData"))
}
