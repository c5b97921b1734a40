//! What the catalogue admits: references exist, networks do not overlap, ranges lie in their subnet, tokens are used once. Pure.

use std::{fmt::Display, net::IpAddr};

use schema::{
    catalogue::{
        Catalogue as Content, CatalogueItem, CatalogueKey, EnrolmentToken, Range, RangeType, ReservedIp, Subnet, Vlan,
    },
    id::{FabricId, RackId, SubnetId},
    net::Cidr,
    time::Timestamp,
};

use super::dns;
use crate::core::{Core, Step};

/// A value that the catalogue does not admit: the field, the value, the bound and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} \"{value}\" {bound}")]
pub struct Fault {
    /// MAAS's name of the field.
    pub field: &'static str,
    pub value: String,
    /// What it breaks: "is not between 0 and 4094".
    pub bound: String,
    pub remedy: String,
}

impl Fault {
    pub(super) fn new(
        field: &'static str,
        value: impl Display,
        bound: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { field, value: value.to_string(), bound: bound.into(), remedy: remedy.into() }
    }

    pub(super) fn refuse<C: Core>(&self) -> Step<C> {
        Step::refused(self.to_string(), self.remedy.clone())
    }
}

/// Whether an item of that id or name may be added.
pub(super) fn absent(c: &Content, item: &CatalogueItem) -> Result<(), Fault> {
    let taken = match item {
        CatalogueItem::Fabric(x) => c.fabrics.contains_key(&x.id),
        CatalogueItem::Vlan(x) => c.vlans.contains_key(&x.id),
        CatalogueItem::Subnet(x) => c.subnets.contains_key(&x.id),
        CatalogueItem::Range(x) => c.ranges.contains_key(&x.id),
        CatalogueItem::ReservedIp(x) => c.reserved_ips.contains_key(&x.id),
        CatalogueItem::Script(x) => c.scripts.contains_key(&x.id),
        CatalogueItem::Image(x) => c.images.contains_key(&x.id),
        CatalogueItem::User(x) if c.users.contains_key(&x.username) => {
            return Err(Fault::new("username", &x.username, "is taken", "choose another name"));
        }
        CatalogueItem::Rack(x) => c.racks.contains_key(&x.id),
        CatalogueItem::ApiKey(x) => c.api_keys.contains_key(&x.token_key),
        CatalogueItem::Domain(x) => c.domains.contains_key(&x.id),
        CatalogueItem::DnsResource(x) => c.dns_resources.contains_key(&x.id),
        CatalogueItem::DnsRecord(x) => c.dns_records.contains_key(&x.id),
        _ => false,
    };
    if taken {
        Err(Fault::new("id", "of the new item", "was given to another one meanwhile", "try again"))
    } else {
        Ok(())
    }
}

/// Whether an item may stand in the catalogue, in its own place or as a new one.
///
/// # Errors
/// [`Fault`]: the first rule it breaks.
pub fn check(c: &Content, item: &CatalogueItem) -> Result<(), Fault> {
    match item {
        CatalogueItem::Fabric(fabric) => {
            named("name", &fabric.name)?;
            let twin = c.fabrics.values().any(|f| f.id != fabric.id && f.name == fabric.name);
            unless(twin, || Fault::new("name", &fabric.name, "is another fabric's", "choose another name"))
        }
        CatalogueItem::Vlan(vlan) => check_vlan(c, vlan),
        CatalogueItem::Subnet(subnet) => check_subnet(c, subnet),
        CatalogueItem::Range(range) => check_range(c, range),
        CatalogueItem::ReservedIp(ip) => check_reserved(c, ip),
        CatalogueItem::User(user) => named("username", &user.username),
        CatalogueItem::ApiKey(key) => exists(c.users.contains_key(&key.username), "username", &key.username),
        CatalogueItem::Script(script) => {
            named("name", &script.name)?;
            let twin = c.scripts.values().any(|s| s.id != script.id && s.name == script.name);
            unless(twin, || {
                Fault::new("name", &script.name, "is another script's", "choose another name, or update that script")
            })
        }
        CatalogueItem::Image(image) => {
            let twin = c.images.values().any(|i| i.id != image.id && i.image.name == image.image.name);
            named("name", &image.image.name)?;
            unless(twin, || {
                Fault::new(
                    "name",
                    &image.image.name,
                    "is another image's",
                    "replace that image, or choose another name",
                )
            })
        }
        CatalogueItem::BootFile(file) => {
            named("name", &file.name)?;
            unless(file.name.starts_with('/') || file.name.split('/').any(|part| part == ".."), || {
                Fault::new(
                    "name",
                    &file.name,
                    "starts with a slash or climbs out",
                    "write it as firmware asks for it, as in bootx64.efi",
                )
            })
        }
        CatalogueItem::Rack(_) | CatalogueItem::EnrolmentToken(_) => Ok(()),
        CatalogueItem::Setting { name, value } => {
            let json = serde_json::from_str::<serde_json::Value>(value).is_ok();
            unless(!json, || Fault::new("value", value, format!("of setting {name} is not JSON"), "quote texts"))?;
            dns::setting(c, name, value)
        }
        CatalogueItem::Domain(domain) => dns::domain(c, domain),
        CatalogueItem::DefaultDomain(id) => {
            exists(c.domains.contains_key(id), "domain", id)?;
            let ours = c.domains.get(id).is_some_and(|d| d.authoritative);
            unless(!ours, || Fault::new("domain", id, "is not authoritative", "make it so, or choose another"))
        }
        CatalogueItem::DnsResource(resource) => dns::resource(c, resource),
        CatalogueItem::DnsRecord(record) => dns::record(c, record),
    }
}

fn check_vlan(c: &Content, vlan: &Vlan) -> Result<(), Fault> {
    exists(c.fabrics.contains_key(&vlan.fabric), "fabric", vlan.fabric)?;
    unless(vlan.vid > 4_094, || Fault::new("vid", vlan.vid, "is not between 0 and 4094", "use 0 for untagged frames"))?;
    unless(!(552..=65_535).contains(&vlan.mtu), || {
        Fault::new("mtu", vlan.mtu, "is not between 552 and 65535", "leave it at 1500")
    })?;
    let twin = c.vlans.values().find(|v| v.id != vlan.id && v.fabric == vlan.fabric && v.vid == vlan.vid);
    if let Some(twin) = twin {
        let bound = format!("is that of VLAN {} of the same fabric", twin.id);
        return Err(Fault::new("vid", vlan.vid, bound, "choose another VID, or another fabric"));
    }
    for (field, rack) in [("primary_rack", vlan.primary_rack), ("secondary_rack", vlan.secondary_rack)] {
        let Some(rack) = rack else { continue };
        let known = c.racks.get(&rack).is_some_and(|r| !r.revoked);
        unless(!known, || {
            Fault::new(field, rack, "is no enrolled rack controller", "take one of `hostler rack list`")
        })?;
    }
    unless(vlan.secondary_rack.is_some() && vlan.primary_rack == vlan.secondary_rack, || {
        Fault::new("secondary_rack", show(vlan.secondary_rack), "is the primary rack too", "leave it empty")
    })?;
    if let Some(relay) = vlan.relay_vlan {
        exists(c.vlans.contains_key(&relay), "relay_vlan", relay)?;
        unless(relay == vlan.id, || Fault::new("relay_vlan", relay, "is the VLAN itself", "leave it empty"))?;
    }
    unless(vlan.dhcp_on && vlan.primary_rack.is_none(), || {
        Fault::new(
            "dhcp_on",
            true,
            "needs a rack that serves it",
            "give primary_rack, or turn relaying on from another VLAN",
        )
    })
}

fn check_subnet(c: &Content, subnet: &Subnet) -> Result<(), Fault> {
    let Some(vlan) = c.vlans.get(&subnet.vlan) else {
        return exists(false, "vlan", subnet.vlan);
    };
    named("name", &subnet.name)?;
    let others = || c.subnets.values().filter(|s| s.id != subnet.id);
    let same_fabric = |s: &&Subnet| c.vlans.get(&s.vlan).is_some_and(|v| v.fabric == vlan.fabric);
    if let Some(other) = others().filter(same_fabric).find(|s| overlap(&s.cidr, &subnet.cidr)) {
        let bound = format!("overlaps subnet {} ({}) of the same fabric", other.id, other.cidr);
        return Err(Fault::new("cidr", subnet.cidr, bound, "choose another network, or another fabric"));
    }
    if let Some(gateway) = subnet.gateway {
        within("gateway_ip", gateway, subnet)?;
    }
    unless(subnet.rdns_mode > 2, || {
        Fault::new("rdns_mode", subnet.rdns_mode, "is not 0, 1 or 2", "0 is off, 1 on, 2 by RFC 2317")
    })?;
    for range in c.ranges.values().filter(|r| r.subnet == subnet.id) {
        let inside = subnet.cidr.contains(range.range.start) && subnet.cidr.contains(range.range.end);
        unless(!inside, || {
            Fault::new("cidr", subnet.cidr, format!("does not hold its range {}", range.id), "remove that range first")
        })?;
    }
    Ok(())
}

fn check_range(c: &Content, range: &Range) -> Result<(), Fault> {
    let subnet = subnet_of(c, range.subnet)?;
    within("start_ip", range.range.start, subnet)?;
    within("end_ip", range.range.end, subnet)?;
    unless(range.range.end < range.range.start, || {
        Fault::new("end_ip", range.range.end, format!("lies before {}", range.range.start), "swap the two addresses")
    })?;
    let others = c.ranges.values().filter(|r| r.id != range.id && r.subnet == range.subnet);
    for other in others {
        let apart = other.range.end < range.range.start || range.range.end < other.range.start;
        unless(!apart, || {
            let bound = format!("overlaps range {} ({} to {})", other.id, other.range.start, other.range.end);
            Fault::new("start_ip", range.range.start, bound, "choose addresses outside of it")
        })?;
    }
    let gateway = subnet.gateway.filter(|g| range.range_type == RangeType::Dynamic && range.range.contains(*g));
    match gateway {
        Some(gateway) => Err(Fault::new(
            "start_ip",
            range.range.start,
            format!("begins a range that leases the gateway {gateway}"),
            "leave the gateway out",
        )),
        None => Ok(()),
    }
}

fn check_reserved(c: &Content, ip: &ReservedIp) -> Result<(), Fault> {
    let subnet = subnet_of(c, ip.subnet)?;
    within("ip", ip.ip, subnet)?;
    for other in c.reserved_ips.values().filter(|o| o.id != ip.id) {
        unless(other.ip == ip.ip, || {
            Fault::new("ip", ip.ip, format!("is kept for {}", other.mac), "choose another address")
        })?;
        unless(other.subnet == ip.subnet && other.mac == ip.mac, || {
            Fault::new("mac_address", ip.mac, format!("has {} on this subnet", other.ip), "change that reservation")
        })?;
    }
    Ok(())
}

/// Whether an item may go.
///
/// # Errors
/// [`Fault`]: it is not there, or something stands on it.
pub fn check_removal(c: &Content, key: &CatalogueKey) -> Result<(), Fault> {
    let used = |field, value: &dyn Display, by: String| Err(Fault::new(field, value, by, "remove that first"));
    match key {
        CatalogueKey::Fabric(id) => {
            exists(c.fabrics.contains_key(id), "fabric", id)?;
            unless(*id == FabricId(0), || Fault::new("fabric", id, "is the default fabric", "keep it"))?;
            let holds = |s: &&Subnet| c.vlans.get(&s.vlan).is_some_and(|v| v.fabric == *id);
            c.subnets.values().find(holds).map_or(Ok(()), |s| used("fabric", id, format!("holds subnet {}", s.cidr)))
        }
        CatalogueKey::Vlan(id) => {
            let Some(vlan) = c.vlans.get(id) else { return exists(false, "vlan", id) };
            let siblings = c.vlans.values().filter(|v| v.fabric == vlan.fabric);
            unless(siblings.count() == 1, || Fault::new("vlan", id, "is the last of its fabric", "remove the fabric"))?;
            let subnet = c.subnets.values().find(|s| s.vlan == *id);
            subnet.map_or(Ok(()), |s| used("vlan", id, format!("holds subnet {}", s.cidr)))
        }
        CatalogueKey::Subnet(id) => exists(c.subnets.contains_key(id), "subnet", id),
        CatalogueKey::Range(id) => exists(c.ranges.contains_key(id), "iprange", id),
        CatalogueKey::ReservedIp(id) => exists(c.reserved_ips.contains_key(id), "reserved_ip", id),
        CatalogueKey::User(name) => {
            let Some(user) = c.users.get(name) else { return exists(false, "username", name) };
            let admins = c.users.values().filter(|u| u.is_superuser).count();
            unless(user.is_superuser && admins == 1, || {
                Fault::new("username", name, "is the last administrator", "make another one first")
            })
        }
        CatalogueKey::ApiKey(token) => exists(c.api_keys.contains_key(token), "token_key", token),
        CatalogueKey::Script(id) => match c.scripts.get(id) {
            Some(script) if script.default => Err(Fault::new(
                "name",
                &script.name,
                "ships with Hostler",
                "leave it; name other scripts when you commission",
            )),
            script => exists(script.is_some(), "script", id),
        },
        CatalogueKey::Image(id) => exists(c.images.contains_key(id), "image", id),
        CatalogueKey::BootFile(name) => exists(c.boot_files.contains_key(name), "name", name),
        CatalogueKey::Rack(id) => {
            exists(c.racks.contains_key(id), "system_id", id)?;
            let serves = |v: &&Vlan| v.primary_rack == Some(*id) || v.secondary_rack == Some(*id);
            let vlan = c.vlans.values().find(serves);
            vlan.map_or(Ok(()), |v| used("system_id", id, format!("serves VLAN {}", v.id)))
        }
        CatalogueKey::EnrolmentToken(token) => exists(c.enrolment_tokens.contains_key(token), "token", token),
        CatalogueKey::Setting(name) => exists(c.settings.contains_key(name), "name", name),
        CatalogueKey::Domain(id) => dns::domain_goes(c, *id),
        CatalogueKey::DnsResource(id) => exists(c.dns_resources.contains_key(id), "dnsresource", id),
        CatalogueKey::DnsRecord(id) => exists(c.dns_records.contains_key(id), "dnsresourcerecord", id),
    }
}

/// The enrolment token, if that rack may use it now.
pub(super) fn token<'a>(
    c: &'a Content,
    token_sha256: &str,
    rack: RackId,
    now: Timestamp,
) -> Result<&'a EnrolmentToken, Fault> {
    // The hash is of a random token, so a look-up by it tells a guesser nothing.
    let remedy = "make a new one with `hostler rack token`";
    let wrong = |bound: String| Fault::new("token", "[hidden]", bound, remedy);
    let token = c.enrolment_tokens.get(token_sha256).ok_or_else(|| wrong("is not one of this region's".into()))?;
    if let Some(by) = token.used_by.filter(|by| *by != rack) {
        return Err(wrong(format!("was used by rack {by}; each serves once")));
    }
    unless(token.used_by.is_some(), || wrong(format!("was used by rack {rack} before; each serves once")))?;
    unless(token.expires <= now, || wrong(format!("expired at {}", token.expires)))?;
    Ok(token)
}

fn subnet_of(c: &Content, id: SubnetId) -> Result<&Subnet, Fault> {
    c.subnets.get(&id).ok_or_else(|| Fault::new("subnet", id, "does not exist", "take one of `hostler subnet list`"))
}

fn within(field: &'static str, address: IpAddr, subnet: &Subnet) -> Result<(), Fault> {
    let edge = address == subnet.cidr.network() && subnet.cidr.prefix() < 31 && address.is_ipv4()
        || subnet.cidr.broadcast().is_some_and(|b| address == b && subnet.cidr.prefix() < 31);
    unless(edge || !subnet.cidr.contains(address), || {
        Fault::new(field, address, format!("is no host address of subnet {}", subnet.cidr), "choose one inside of it")
    })
}

fn named(field: &'static str, name: &str) -> Result<(), Fault> {
    unless(name.trim().is_empty() || name.len() > 256, || {
        Fault::new(field, name, "is not 1 to 256 characters long", "give it a name")
    })
}

pub(super) fn exists(it_does: bool, field: &'static str, value: impl Display) -> Result<(), Fault> {
    unless(!it_does, || Fault::new(field, value, "does not exist", "look at the list of what there is"))
}

pub(super) fn unless(wrong: bool, fault: impl FnOnce() -> Fault) -> Result<(), Fault> {
    if wrong { Err(fault()) } else { Ok(()) }
}

fn overlap(a: &Cidr, b: &Cidr) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

fn show(rack: Option<RackId>) -> String {
    rack.map_or_else(String::new, |r| r.to_string())
}
