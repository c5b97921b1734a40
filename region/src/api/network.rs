//! Fabrics, VLANs, subnets, IP ranges and reserved addresses: reads from the catalogue, writes through its actor.

pub mod find;
pub mod ranges;
pub mod subnets;

use actors::catalogue::Table;
use schema::{
    catalogue::{Catalogue, CatalogueItem, CatalogueKey, Fabric, Vlan},
    id::{FabricId, VlanId},
    messages::link::ForeignDhcp,
};
use serde_json::{Value, json as object};

use super::{
    call::{Answer, Call, gone, json},
    fault::{Fault, Faults},
    shape::network as shape,
};
use find::{rack, the_fabric, the_vlan};

/// `fabrics/`.
pub async fn fabrics(call: Call) -> Answer {
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            let c = call.house.catalogue();
            Ok(json(&Value::Array(c.fabrics.values().map(|f| shape::fabric(&c, f)).collect())))
        }
        ("POST", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let id = FabricId(call.house.next_id(Table::Fabrics));
            let name = call.params.filled("name").map_or_else(|| format!("fabric-{id}"), str::to_owned);
            name_is_free(&call.house.catalogue(), None, &name)?;
            let vlan = untagged(&call, id);
            let items = vec![CatalogueItem::Fabric(Fabric { id, name }), CatalogueItem::Vlan(vlan)];
            call.house.put(&by, items).await?;
            show_fabric(&call, id)
        }
        _ => Err(call.unknown()),
    }
}

/// `fabrics/<id>/`.
pub async fn fabric(call: Call) -> Answer {
    let c = call.house.catalogue();
    let fabric = the_fabric(&c, call.part("fabric_id"))?.clone();
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&shape::fabric(&c, &fabric)))
        }
        ("PUT", "") => {
            let by = call.admin()?.username.clone();
            let name = call.params.filled("name").unwrap_or(&fabric.name).to_owned();
            name_is_free(&c, Some(fabric.id), &name)?;
            call.house.put(&by, vec![CatalogueItem::Fabric(Fabric { id: fabric.id, name })]).await?;
            show_fabric(&call, fabric.id)
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            call.house.remove(&by, CatalogueKey::Fabric(fabric.id)).await?;
            Ok(gone())
        }
        _ => Err(call.unknown()),
    }
}

fn name_is_free(c: &Catalogue, own: Option<FabricId>, name: &str) -> Result<(), Fault> {
    match c.fabrics.values().find(|f| f.name == name && Some(f.id) != own) {
        Some(_) => Err(Fault::field("name", format!("Fabric with this Name already exists: {name}."))),
        None => Ok(()),
    }
}

fn show_fabric(call: &Call, id: FabricId) -> Answer {
    let c = call.house.catalogue();
    c.fabrics.get(&id).map(|f| json(&shape::fabric(&c, f))).ok_or_else(|| Fault::no("Fabric"))
}

/// A new fabric's first VLAN.
fn untagged(call: &Call, fabric: FabricId) -> Vlan {
    Vlan {
        id: VlanId(call.house.next_id(Table::Vlans)),
        fabric,
        vid: 0,
        name: "untagged".into(),
        mtu: 1_500,
        dhcp_on: false,
        primary_rack: None,
        secondary_rack: None,
        relay_vlan: None,
    }
}

/// `fabrics/<id>/vlans/`.
pub async fn vlans(call: Call) -> Answer {
    let c = call.house.catalogue();
    let fabric = the_fabric(&c, call.part("fabric_id"))?.id;
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            let of = c.vlans.values().filter(|v| v.fabric == fabric);
            Ok(json(&Value::Array(of.map(|v| shown(&call, &c, v)).collect())))
        }
        ("POST", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let base = untagged(&call, fabric);
            let vid =
                call.params.parsed::<u16>("vid")?.ok_or_else(|| Fault::field("vid", "This field is required."))?;
            let named = Vlan { vid, name: format!("vlan-{vid}"), ..base };
            let vlan = changed_vlan(&call, &c, named)?;
            let id = vlan.id;
            call.house.put(&by, vec![CatalogueItem::Vlan(vlan)]).await?;
            show_vlan(&call, id)
        }
        _ => Err(call.unknown()),
    }
}

/// `vlans/<id>/` and `fabrics/<id>/vlans/<vid>/`.
pub async fn vlan(call: Call) -> Answer {
    let c = call.house.catalogue();
    let vlan = the_vlan(&c, &call)?.clone();
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&shown(&call, &c, &vlan)))
        }
        ("PUT", "") => {
            let by = call.admin()?.username.clone();
            let id = vlan.id;
            let vlan = changed_vlan(&call, &c, vlan)?;
            call.house.put(&by, vec![CatalogueItem::Vlan(vlan)]).await?;
            show_vlan(&call, id)
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            if vlan.vid == 0 {
                return Err(Fault::Bad("This VLAN is the default VLAN in the fabric, it cannot be deleted.".into()));
            }
            call.house.remove(&by, CatalogueKey::Vlan(vlan.id)).await?;
            Ok(gone())
        }
        _ => Err(call.unknown()),
    }
}

/// A VLAN with the DHCP server that is none of ours (MAAS: `external_dhcp`), if a rack hears one there.
fn shown(call: &Call, c: &Catalogue, vlan: &Vlan) -> Value {
    let mut shown = shape::vlan(c, vlan);
    let here = |f: &ForeignDhcp| c.subnets.get(&f.subnet).is_some_and(|s| s.vlan == vlan.id);
    let foreign = call.house.app.links.foreign().into_iter().map(|(_, f)| f).find(|f| f.proven && here(f));
    shown["external_dhcp"] = object!(foreign.map(|f| f.server));
    shown
}

fn show_vlan(call: &Call, id: VlanId) -> Answer {
    let c = call.house.catalogue();
    c.vlans.get(&id).map(|v| json(&shown(call, &c, v))).ok_or_else(|| Fault::no("VLAN"))
}

/// The VLAN with the given fields changed, all faults at once.
fn changed_vlan(call: &Call, c: &Catalogue, mut vlan: Vlan) -> Result<Vlan, Fault> {
    let params = &call.params;
    let mut faults = Faults::default();
    if let Some(name) = params.filled("name") {
        name.clone_into(&mut vlan.name);
    }
    if let Some(vid) = faults.take(params.parsed::<u16>("vid")).flatten() {
        vlan.vid = vid;
    }
    if vlan.vid > 4_094 {
        faults.add("vid", format!("VID {} is above 4094.", vlan.vid));
    }
    if c.vlans.values().any(|v| v.fabric == vlan.fabric && v.vid == vlan.vid && v.id != vlan.id) {
        faults.add("vid", format!("VID {} exists in this fabric already.", vlan.vid));
    }
    if let Some(mtu) = faults.take(params.parsed::<u16>("mtu")).flatten() {
        if !(552..=9_216).contains(&mtu) {
            faults.add("mtu", format!("MTU {mtu} is not within 552 and 9216."));
        }
        vlan.mtu = mtu;
    }
    if let Some(on) = faults.take(params.truth("dhcp_on")).flatten() {
        vlan.dhcp_on = on;
    }
    for (field, target) in [("primary_rack", &mut vlan.primary_rack), ("secondary_rack", &mut vlan.secondary_rack)] {
        if let Some(text) = params.get(field)
            && let Some(found) = faults.take(rack(c, field, text))
        {
            *target = found;
        }
    }
    if let Some(text) = params.get("relay_vlan") {
        vlan.relay_vlan = match text.trim() {
            "" => None,
            id => {
                let found = id.parse().ok().map(VlanId).filter(|id| c.vlans.contains_key(id) && *id != vlan.id);
                if found.is_none() {
                    faults.add("relay_vlan", format!("There is no other VLAN with id {id}."));
                }
                found
            }
        };
    }
    faults.check()?;
    Ok(vlan)
}
