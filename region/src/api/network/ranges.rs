//! `ipranges/` and `reservedips/`.

use std::net::IpAddr;

use actors::catalogue::Table;
use schema::{
    catalogue::{Catalogue, CatalogueItem, CatalogueKey, Range, RangeType, ReservedIp, Subnet},
    id::RangeId,
    net::{IpRange, MacAddr},
};
use serde_json::Value;

use super::find;
use crate::api::{
    call::{Answer, Call, gone, json},
    fault::{Fault, Faults},
    params::Params,
    shape::network as shape,
};

/// `ipranges/`.
pub async fn all(call: Call) -> Answer {
    let c = call.house.catalogue();
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&Value::Array(c.ranges.values().map(|r| shape::range(&c, r)).collect())))
        }
        ("POST", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let mut range = new_range(&call.params, &call.house.catalogue(), &by)?;
            range.id = RangeId(call.house.next_id(Table::Ranges));
            let id = range.id;
            call.house.put(&by, vec![CatalogueItem::Range(range)]).await?;
            show(&call, id)
        }
        _ => Err(call.unknown()),
    }
}

/// `ipranges/<id>/`.
pub async fn one(call: Call) -> Answer {
    let c = call.house.catalogue();
    let none = || Fault::no("IPRange");
    let id = RangeId(call.part("range_id").parse().map_err(|_| none())?);
    let range = c.ranges.get(&id).ok_or_else(none)?.clone();
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&shape::range(&c, &range)))
        }
        ("PUT", "") => {
            let by = call.admin()?.username.clone();
            let subnet = c.subnets.get(&range.subnet).ok_or_else(|| Fault::no("Subnet"))?;
            let edges = edges(&call.params, Some(range.range))?;
            apart(&c, subnet, edges, Some(id))?;
            let comment = call.params.get("comment").unwrap_or(&range.comment).to_owned();
            call.house.put(&by, vec![CatalogueItem::Range(Range { range: edges, comment, ..range })]).await?;
            show(&call, id)
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            call.house.remove(&by, CatalogueKey::Range(id)).await?;
            Ok(gone())
        }
        _ => Err(call.unknown()),
    }
}

fn show(call: &Call, id: RangeId) -> Answer {
    let c = call.house.catalogue();
    c.ranges.get(&id).map(|r| json(&shape::range(&c, r))).ok_or_else(|| Fault::no("IPRange"))
}

fn new_range(params: &Params, c: &Catalogue, by: &str) -> Result<Range, Fault> {
    let mut faults = Faults::default();
    let range_type = match params.filled("type") {
        Some("dynamic") => RangeType::Dynamic,
        Some("reserved") => RangeType::Reserved,
        other => {
            let said = other.map_or_else(|| "This field is required".to_owned(), |o| format!("\"{o}\" is no type"));
            faults.add("type", format!("{said}: dynamic or reserved."));
            RangeType::Reserved
        }
    };
    let range = faults.take(edges(params, None));
    // MAAS finds the subnet by the range when none is named.
    let subnet = match params.filled("subnet") {
        Some(text) => find::subnet(c, text),
        None => range.and_then(|r| c.subnets.values().find(|s| s.cidr.contains(r.start))),
    };
    if subnet.is_none() {
        faults.add("subnet", "There is no such subnet; give its id, its network or its name.");
    }
    if let (Some(range), Some(subnet)) = (range, subnet) {
        faults.take(apart(c, subnet, range, None));
    }
    faults.check()?;
    match (range, subnet) {
        (Some(range), Some(subnet)) => Ok(Range {
            id: RangeId(0),
            subnet: subnet.id,
            range_type,
            range,
            comment: params.get("comment").unwrap_or_default().to_owned(),
            user: Some(by.to_owned()),
        }),
        _ => Err(Fault::field("subnet", "This field is required.")),
    }
}

fn edges(params: &Params, present: Option<IpRange>) -> Result<IpRange, Fault> {
    let mut faults = Faults::default();
    let mut edge = |name: &str, old: Option<IpAddr>| {
        let given = faults.take(params.parsed::<IpAddr>(name)).flatten();
        if given.is_none() && old.is_none() && params.filled(name).is_none() {
            faults.add(name, "This field is required.");
        }
        given.or(old)
    };
    let (start, end) = (edge("start_ip", present.map(|p| p.start)), edge("end_ip", present.map(|p| p.end)));
    faults.check()?;
    match (start, end) {
        (Some(start), Some(end)) => IpRange::new(start, end).map_err(|e| Fault::field("end_ip", format!("{e}."))),
        _ => Err(Fault::field("start_ip", "This field is required.")),
    }
}

/// Within its subnet, and over no other range nor the gateway.
fn apart(c: &Catalogue, subnet: &Subnet, range: IpRange, own: Option<RangeId>) -> Result<(), Fault> {
    let mut faults = Faults::default();
    for (name, ip) in [("start_ip", range.start), ("end_ip", range.end)] {
        if !subnet.cidr.contains(ip) {
            faults.add(name, format!("{ip} lies outside the subnet {}.", subnet.cidr));
        }
    }
    let over = |r: &&Range| {
        r.subnet == subnet.id && Some(r.id) != own && r.range.start <= range.end && range.start <= r.range.end
    };
    if let Some(other) = c.ranges.values().find(over) {
        let message = format!("The range overlaps with {} to {}.", other.range.start, other.range.end);
        faults.add("__all__", message);
    }
    if let Some(gateway) = subnet.gateway.filter(|g| range.contains(*g)) {
        faults.add("__all__", format!("The range holds the gateway {gateway}."));
    }
    faults.check()
}

/// `reservedips/`.
pub async fn reserved_all(call: Call) -> Answer {
    let c = call.house.catalogue();
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&Value::Array(c.reserved_ips.values().map(|r| shape::reserved(&c, r)).collect())))
        }
        ("POST", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let mut reserved = new_reserved(&call.params, &call.house.catalogue())?;
            reserved.id = call.house.next_id(Table::ReservedIps);
            let id = reserved.id;
            call.house.put(&by, vec![CatalogueItem::ReservedIp(reserved)]).await?;
            show_reserved(&call, id)
        }
        _ => Err(call.unknown()),
    }
}

/// `reservedips/<id>/`.
pub async fn reserved_one(call: Call) -> Answer {
    let c = call.house.catalogue();
    let none = || Fault::no("ReservedIP");
    let id: i64 = call.part("reserved_id").parse().map_err(|_| none())?;
    let reserved = c.reserved_ips.get(&id).ok_or_else(none)?.clone();
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&shape::reserved(&c, &reserved)))
        }
        ("PUT", "") => {
            let by = call.admin()?.username.clone();
            let comment = call.params.get("comment").unwrap_or(&reserved.comment).to_owned();
            call.house.put(&by, vec![CatalogueItem::ReservedIp(ReservedIp { comment, ..reserved })]).await?;
            show_reserved(&call, id)
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            call.house.remove(&by, CatalogueKey::ReservedIp(id)).await?;
            Ok(gone())
        }
        _ => Err(call.unknown()),
    }
}

fn show_reserved(call: &Call, id: i64) -> Answer {
    let c = call.house.catalogue();
    c.reserved_ips.get(&id).map(|r| json(&shape::reserved(&c, r))).ok_or_else(|| Fault::no("ReservedIP"))
}

fn new_reserved(params: &Params, c: &Catalogue) -> Result<ReservedIp, Fault> {
    let mut faults = Faults::default();
    let ip: Option<IpAddr> =
        faults.take(params.required("ip")).and_then(|_| faults.take(params.parsed("ip")).flatten());
    let mac: Option<MacAddr> =
        faults.take(params.required("mac_address")).and_then(|_| faults.take(params.parsed("mac_address")).flatten());
    let subnet = match params.filled("subnet") {
        Some(text) => find::subnet(c, text),
        None => ip.and_then(|ip| c.subnets.values().find(|s| s.cidr.contains(ip))),
    };
    match (subnet, ip) {
        (None, Some(ip)) => faults.add("subnet", format!("No subnet holds {ip}.")),
        (Some(s), Some(ip)) if !s.cidr.contains(ip) => faults.add("ip", format!("{ip} lies outside {}.", s.cidr)),
        _ => {}
    }
    if let Some(ip) = ip.filter(|ip| c.reserved_ips.values().any(|r| r.ip == *ip)) {
        faults.add("ip", format!("{ip} is reserved already."));
    }
    let clash = |s: &Subnet| c.reserved_ips.values().any(|r| r.subnet == s.id && Some(r.mac) == mac);
    if subnet.is_some_and(clash) {
        faults.add("mac_address", "This MAC address has a reserved address in that subnet already.");
    }
    faults.check()?;
    match (ip, mac, subnet) {
        (Some(ip), Some(mac), Some(subnet)) => Ok(ReservedIp {
            id: 0,
            subnet: subnet.id,
            mac,
            ip,
            hostname: params.filled("hostname").map(str::to_owned),
            comment: params.get("comment").unwrap_or_default().to_owned(),
        }),
        _ => Err(Fault::field("ip", "This field is required.")),
    }
}
