//! Finding fabrics, VLANs, subnets and racks by what clients write: ids, names, networks, MAAS's `kind:value` specifiers. Pure.

use schema::{
    catalogue::{Catalogue, Fabric, Subnet, Vlan},
    id::RackId,
    net::Cidr,
};

use crate::api::{call::Call, fault::Fault};

/// A fabric by id or name.
///
/// # Errors
/// 404.
pub fn the_fabric<'a>(c: &'a Catalogue, text: &str) -> Result<&'a Fabric, Fault> {
    let plain = text.strip_prefix("name:").unwrap_or(text);
    let by_id = text.parse().ok().and_then(|id| c.fabrics.get(&schema::id::FabricId(id)));
    by_id.or_else(|| c.fabrics.values().find(|f| f.name == plain)).ok_or_else(|| Fault::no("Fabric"))
}

/// The VLAN of a path: `vlans/<id>/`, or `fabrics/<id>/vlans/<vid>/`.
///
/// # Errors
/// 404.
pub fn the_vlan<'a>(c: &'a Catalogue, call: &Call) -> Result<&'a Vlan, Fault> {
    let none = || Fault::no("VLAN");
    if call.part("fabric_id").is_empty() {
        let id = call.part("vlan_id").parse().map_err(|_| none())?;
        return c.vlans.get(&schema::id::VlanId(id)).ok_or_else(none);
    }
    let fabric = the_fabric(c, call.part("fabric_id"))?.id;
    let text = call.part("vid");
    let vid: u16 = if text == "untagged" { 0 } else { text.parse().map_err(|_| none())? };
    c.vlans.values().find(|v| v.fabric == fabric && v.vid == vid).ok_or_else(none)
}

/// A subnet by id, network, name, or `cidr:`, `name:`, `id:`, `ip:` in front of one.
#[must_use]
pub fn subnet<'a>(c: &'a Catalogue, text: &str) -> Option<&'a Subnet> {
    let text = text.trim();
    let by_id = |t: &str| t.parse().ok().and_then(|id| c.subnets.get(&schema::id::SubnetId(id)));
    let by_cidr = |t: &str| t.parse::<Cidr>().ok().and_then(|n| c.subnets.values().find(|s| s.cidr == n));
    let by_name = |t: &str| c.subnets.values().find(|s| s.name == t);
    let by_ip = |t: &str| t.parse().ok().and_then(|ip| c.subnets.values().find(|s| s.cidr.contains(ip)));
    match text.split_once(':') {
        Some(("cidr", rest)) => by_cidr(rest),
        Some(("name", rest)) => by_name(rest),
        Some(("id", rest)) => by_id(rest),
        Some(("ip", rest)) => by_ip(rest),
        _ => by_id(text).or_else(|| by_cidr(text)).or_else(|| by_name(text)),
    }
}

/// A subnet, as [`subnet`] finds it.
///
/// # Errors
/// 404.
pub fn the_subnet<'a>(c: &'a Catalogue, text: &str) -> Result<&'a Subnet, Fault> {
    // The router leaves an encoded slash as it is.
    let plain = text.replace("%2F", "/").replace("%2f", "/");
    subnet(c, &plain).ok_or_else(|| Fault::no("Subnet"))
}

/// A VLAN of a form field: its id, or `fabric` and `vid` beside it.
pub fn vlan<'a>(c: &'a Catalogue, call: &Call) -> Result<Option<&'a Vlan>, Fault> {
    let params = &call.params;
    if let Some(text) = params.filled("vlan") {
        let plain = text.strip_prefix("id:").unwrap_or(text);
        let by_id = plain.parse().ok().and_then(|id| c.vlans.get(&schema::id::VlanId(id)));
        let by_name = || c.vlans.values().find(|v| v.name == text);
        return by_id
            .or_else(by_name)
            .map(Some)
            .ok_or_else(|| Fault::field("vlan", format!("There is no VLAN {text}.")));
    }
    let fabric = params.filled("fabric");
    let vid: Option<u16> = params.parsed("vid")?;
    if fabric.is_none() && vid.is_none() {
        return Ok(None);
    }
    let fabric = match fabric {
        Some(text) => {
            Some(the_fabric(c, text).map_err(|_| Fault::field("fabric", format!("There is no fabric {text}.")))?)
        }
        None => c.fabrics.values().next(),
    };
    let vid = vid.unwrap_or(0);
    let found = c.vlans.values().find(|v| Some(v.fabric) == fabric.map(|f| f.id) && v.vid == vid);
    found.map(Some).ok_or_else(|| Fault::field("vid", format!("There is no VLAN with VID {vid} in that fabric.")))
}

/// A rack of a form field, by system id or host name; blank is none.
pub fn rack(c: &Catalogue, field: &str, text: &str) -> Result<Option<RackId>, Fault> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let by_id = text.parse::<RackId>().ok().filter(|id| c.racks.contains_key(id));
    let found = by_id.or_else(|| c.racks.values().find(|r| r.hostname == text).map(|r| r.id));
    found.map(Some).ok_or_else(|| Fault::field(field, format!("There is no rack {text}; see rackcontrollers/.")))
}
