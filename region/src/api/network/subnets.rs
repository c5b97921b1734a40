//! `subnets/` and `subnets/<id>/`.

use std::net::IpAddr;

use actors::catalogue::Table;
use schema::{
    catalogue::{Catalogue, CatalogueItem, CatalogueKey, Fabric, Subnet, Vlan},
    id::{FabricId, RackId, SubnetId, VlanId},
    messages::link::Hello,
    net::Cidr,
    plan::Strangers,
};
use serde_json::{Value, json};

use super::find;
use crate::{
    api::{
        call::{Answer, Call, gone, json},
        fault::{Fault, Faults},
        params::Params,
        shape::{event_when, network as shape},
    },
    store::queries::{LeaseFilter, MachineFilter},
};

/// `subnets/`.
pub async fn all(call: Call) -> Answer {
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            let c = call.house.catalogue();
            Ok(json(&Value::Array(c.subnets.values().map(|s| shape::subnet(&c, s)).collect())))
        }
        ("POST", "") => create(&call).await,
        _ => Err(call.unknown()),
    }
}

/// `subnets/<id>/`; the id may be a number, a network, or `cidr:…`, `name:…`.
pub async fn one(call: Call) -> Answer {
    let c = call.house.catalogue();
    let s = find::the_subnet(&c, call.part("subnet_id"))?.clone();
    if call.wants().0 == "GET" {
        call.user()?;
    }
    match call.wants() {
        ("GET", "") => Ok(json(&shape::subnet(&c, &s))),
        ("GET", "reserved_ip_ranges") => Ok(json(&json!(shape::reserved_ranges(&c, &s)))),
        ("GET", "unreserved_ip_ranges") => Ok(json(&json!(shape::unreserved_ranges(&c, &s)))),
        ("GET", "statistics") => Ok(json(&shape::statistics(&c, &s))),
        ("GET", "ip_addresses") => addresses(&call, &s).await,
        ("PUT", "") => {
            let by = call.admin()?.username.clone();
            let changed = changed(&call, &c, s)?;
            let id = changed.id;
            call.house.put(&by, vec![CatalogueItem::Subnet(changed)]).await?;
            show(&call, id)
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            call.house.remove(&by, CatalogueKey::Subnet(s.id)).await?;
            Ok(gone())
        }
        _ => Err(call.unknown()),
    }
}

fn show(call: &Call, id: SubnetId) -> Answer {
    let c = call.house.catalogue();
    c.subnets.get(&id).map(|s| json(&shape::subnet(&c, s))).ok_or_else(|| Fault::no("Subnet"))
}

async fn create(call: &Call) -> Answer {
    let by = call.admin()?.username.clone();
    let _edit = call.house.editing().await;
    let c = call.house.catalogue();
    let cidr: Cidr = call.params.parsed("cidr")?.ok_or_else(|| Fault::field("cidr", "This field is required."))?;
    let chosen = find::vlan(&c, call)?.cloned();
    let base = Subnet::new(SubnetId(0), chosen.as_ref().map_or(VlanId(0), |v| v.id), cidr);
    let mut subnet = changed(call, &c, base)?;
    let mut items = Vec::new();
    let on: Option<bool> = call.params.truth("dhcp_on")?;
    let mut vlan = match chosen {
        Some(vlan) => vlan,
        None => default_vlan(call, &c, &mut items),
    };
    subnet.vlan = vlan.id;
    subnet.id = SubnetId(call.house.next_id(Table::Subnets));
    if let Some(on) = on.filter(|on| *on != vlan.dhcp_on) {
        vlan.dhcp_on = on;
        if vlan.primary_rack.is_none() && vlan.relay_vlan.is_none() {
            [vlan.primary_rack, vlan.secondary_rack] = racks_in(call, cidr).await;
        }
        items.retain(|i| !matches!(i, CatalogueItem::Vlan(_)));
        items.push(CatalogueItem::Vlan(vlan));
    }
    let id = subnet.id;
    items.push(CatalogueItem::Subnet(subnet));
    call.house.put(&by, items).await?;
    show(call, id)
}

/// The first two connected racks with an address in that network: they are to serve it, unless the operator named others.
async fn racks_in(call: &Call, cidr: Cidr) -> [Option<RackId>; 2] {
    let racks = call.house.racks().await;
    let near = |hello: &Hello| hello.interfaces.iter().flat_map(|i| &i.addresses).any(|(ip, _)| cidr.contains(*ip));
    let mut found = racks.iter().filter(|r| r.hello.as_deref().is_some_and(near)).map(|r| r.entry.id);
    [found.next(), found.next()]
}

/// The VLAN of a subnet that names none: untagged, in a fabric of its own, or in the first one while that has no subnet.
fn default_vlan(call: &Call, c: &Catalogue, items: &mut Vec<CatalogueItem>) -> Vlan {
    let unused = c.vlans.values().find(|v| v.vid == 0 && c.subnets.values().all(|s| s.vlan != v.id));
    if let Some(vlan) = unused {
        return vlan.clone();
    }
    let fabric = FabricId(call.house.next_id(Table::Fabrics));
    items.push(CatalogueItem::Fabric(Fabric { id: fabric, name: format!("fabric-{fabric}") }));
    let vlan = super::untagged(call, fabric);
    items.push(CatalogueItem::Vlan(vlan.clone()));
    vlan
}

/// The subnet with the given fields changed, all faults at once.
fn changed(call: &Call, c: &Catalogue, mut s: Subnet) -> Result<Subnet, Fault> {
    let params = &call.params;
    let mut faults = Faults::default();
    if let Some(cidr) = faults.take(params.parsed::<Cidr>("cidr")).flatten() {
        if s.name == s.cidr.to_string() {
            s.name = cidr.to_string();
        }
        s.cidr = cidr;
    }
    let apart = |a: &Cidr, b: &Cidr| !a.contains(b.network()) && !b.contains(a.network());
    if let Some(other) = c.subnets.values().find(|o| o.id != s.id && !apart(&o.cidr, &s.cidr)) {
        faults.add("cidr", format!("Subnet {} overlaps with {}.", s.cidr, other.cidr));
    }
    if let Some(name) = params.filled("name") {
        name.clone_into(&mut s.name);
    }
    if let Some(text) = params.get("description") {
        text.clone_into(&mut s.description);
    }
    if let Some(vlan) = faults.take(find::vlan(c, call)).flatten() {
        s.vlan = vlan.id;
    }
    if let Some(gateway) = faults.take(address(params, "gateway_ip")) {
        s.gateway = gateway.unwrap_or(s.gateway);
    }
    if let Some(gateway) = s.gateway.filter(|g| !s.cidr.contains(*g)) {
        faults.add("gateway_ip", format!("{gateway} lies outside {}.", s.cidr));
    }
    if params.get("dns_servers").is_some() {
        let words = params.all("dns_servers").join(",");
        let servers = words.split([',', ' ']).filter(|w| !w.is_empty()).map(|w| w.parse::<IpAddr>().map_err(|_| w));
        match servers.collect::<Result<Vec<_>, _>>() {
            Ok(servers) => s.dns_servers = servers,
            Err(word) => faults.add("dns_servers", format!("\"{word}\" is not an IP address.")),
        }
    }
    if let Some(mode) = faults.take(params.parsed::<u8>("rdns_mode")).flatten() {
        if mode > 2 {
            faults.add("rdns_mode", format!("{mode} is not 0 (off), 1 (on) or 2 (RFC 2317)."));
        }
        s.rdns_mode = mode;
    }
    switches(params, &mut s, &mut faults);
    faults.check()?;
    Ok(s)
}

fn switches(params: &Params, s: &mut Subnet, faults: &mut Faults) {
    let fields = [
        ("allow_dns", &mut s.allow_dns),
        ("allow_proxy", &mut s.allow_proxy),
        ("active_discovery", &mut s.active_discovery),
        ("managed", &mut s.managed),
        ("tftp_window", &mut s.tftp_window),
        ("beside_foreign_dhcp", &mut s.beside_foreign_dhcp),
    ];
    for (name, field) in fields {
        if let Some(on) = faults.take(params.truth(name)).flatten() {
            *field = on;
        }
    }
    match params.filled("strangers") {
        None => {}
        Some("ignore") => s.strangers = Strangers::Ignore,
        Some("local") => s.strangers = Strangers::Local,
        Some("enlist") => s.strangers = Strangers::Enlist,
        Some(other) => faults.add("strangers", format!("\"{other}\" is not one of ignore, local, enlist.")),
    }
}

/// `None`: not given. `Some(None)`: given blank.
#[expect(clippy::option_option, reason = "absent and blank differ: blank removes")]
fn address(params: &Params, name: &str) -> Result<Option<Option<IpAddr>>, Fault> {
    match params.get(name).map(str::trim) {
        None => Ok(None),
        Some("") => Ok(Some(None)),
        Some(text) => {
            let wrong = |_| Fault::field(name, format!("\"{text}\" is not an IP address."));
            text.parse().map(|ip| Some(Some(ip))).map_err(wrong)
        }
    }
}

/// `op=ip_addresses`: who holds which address now.
async fn addresses(call: &Call, s: &Subnet) -> Answer {
    let leases =
        call.house.leases(LeaseFilter { subnet: Some(s.id), at: Some(actors::clock::now()), macs: Vec::new() }).await?;
    let macs = leases.iter().map(|l| l.mac).collect();
    // An empty list of addresses would admit every machine.
    let machines = match leases.is_empty() {
        true => Vec::new(),
        false => call.house.machines(MachineFilter { macs, ..MachineFilter::default() }).await?,
    };
    let shown = leases.iter().map(|lease| {
        let holder = machines.iter().find(|m| m.has_mac(lease.mac));
        let mut value = json!({
            "ip": lease.ip, "alloc_type": 5, "created": event_when(lease.granted), "updated": event_when(lease.granted),
            "mac_address": lease.mac,
        });
        if let Some(m) = holder {
            value["node_summary"] = json!({
                "system_id": m.id(), "node_type": 0, "fqdn": m.fqdn(),
                "hostname": m.record.machine.hostname, "is_container": false, "via": null,
            });
        }
        value
    });
    Ok(json(&Value::Array(shown.collect())))
}
