//! Reads what `lldpctl` prints, as XML (`-f xml`) or JSON (`-f json`, `-f json0`), into neighbours.

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

use super::LldpNeighbour;

/// The longest output in bytes.
pub const LLDP_LIMIT: usize = 4 * 1024 * 1024;
/// Neighbours kept at most.
const NEIGHBOURS: usize = 4_096;
/// Longest text that is kept, in characters.
const TEXT: usize = 512;

/// Output that names no neighbours because it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LldpError {
    #[error("the LLDP output has {len} bytes, more than {LLDP_LIMIT}; look at the script's output")]
    TooLong { len: usize },
    #[error("the LLDP output is not UTF-8 (byte {0}); look at the script's output")]
    Utf8(usize),
    #[error("the LLDP output is not XML: {0}; look at the script's output")]
    Xml(String),
    #[error("the LLDP output is not JSON: {0}; look at the script's output")]
    Json(String),
    #[error("the LLDP output has no \"lldp\" at its top but \"{0}\"; it must come from lldpctl -f xml or -f json")]
    Root(String),
    #[error("the LLDP output names more than {NEIGHBOURS} neighbours")]
    TooMany,
}

/// The neighbours in an output of lldpctl. Empty output names none.
///
/// # Errors
/// When it is too long, neither XML nor JSON, or of another program.
pub fn parse(bytes: &[u8]) -> Result<Vec<LldpNeighbour>, LldpError> {
    if bytes.len() > LLDP_LIMIT {
        return Err(LldpError::TooLong { len: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|e| LldpError::Utf8(e.valid_up_to()))?.trim();
    let neighbours = match text.chars().next() {
        None => Vec::new(),
        Some('{' | '[') => json(text)?,
        Some(_) => xml(text)?,
    };
    if neighbours.len() > NEIGHBOURS {
        return Err(LldpError::TooMany);
    }
    Ok(neighbours)
}

fn kept(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control() || *c == '\n').take(TEXT).collect()
}

// --- XML

fn xml(text: &str) -> Result<Vec<LldpNeighbour>, LldpError> {
    let options = ParsingOptions { allow_dtd: false, nodes_limit: 200_000, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|e| LldpError::Xml(e.to_string()))?;
    let root = document.root_element();
    if root.tag_name().name() != "lldp" {
        return Err(LldpError::Root(kept(root.tag_name().name())));
    }
    Ok(root.children().filter(|n| n.has_tag_name("interface")).map(xml_neighbour).collect())
}

fn xml_neighbour(interface: Node<'_, '_>) -> LldpNeighbour {
    let all = |within: Option<Node<'_, '_>>, tag: &str| -> Vec<String> {
        let children = within.into_iter().flat_map(|n| n.children().collect::<Vec<_>>());
        children.filter(|n| n.has_tag_name(tag)).map(|n| kept(n.text().unwrap_or(""))).collect()
    };
    let one = |within, tag| all(within, tag).into_iter().next().unwrap_or_default();
    let child = |tag: &str| interface.children().find(|n| n.has_tag_name(tag));
    let (chassis, port) = (child("chassis"), child("port"));
    let vlans = interface.children().filter(|n| n.has_tag_name("vlan")).filter_map(|n| n.attribute("vlan-id"));
    LldpNeighbour {
        interface: kept(interface.attribute("name").unwrap_or("")),
        via: kept(interface.attribute("via").unwrap_or("")),
        chassis_id: one(chassis, "id"),
        chassis_name: one(chassis, "name"),
        chassis_description: one(chassis, "descr"),
        management_addresses: all(chassis, "mgmt-ip"),
        port_id: one(port, "id"),
        port_description: one(port, "descr"),
        vlan_ids: vlans.filter_map(|v| v.trim().parse().ok()).collect(),
    }
}

// --- JSON

fn json(text: &str) -> Result<Vec<LldpNeighbour>, LldpError> {
    let root: Value = serde_json::from_str(text).map_err(|e| LldpError::Json(e.to_string()))?;
    let lldp = root.get("lldp").ok_or_else(|| {
        let first = root.as_object().and_then(|map| map.keys().next().cloned());
        LldpError::Root(kept(&first.unwrap_or_default()))
    })?;
    let mut found = Vec::new();
    for lldp in items(lldp) {
        for interface in lldp.get("interface").map(items).unwrap_or_default() {
            if interface.get("chassis").is_some() || interface.get("port").is_some() {
                // json0: the interface's name is a member.
                found.push(json_neighbour(&scalar(interface.get("name")), interface));
            } else {
                let named = interface.as_object().into_iter().flatten();
                let each = named.flat_map(|(name, about)| items(about).into_iter().map(move |a| (name, a)));
                found.extend(each.filter(|(_, a)| a.is_object()).map(|(name, a)| json_neighbour(name, a)));
            }
        }
    }
    Ok(found)
}

/// A list's entries, or the one value that stands for itself.
fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Null => Vec::new(),
        single => vec![single],
    }
}

/// A text: bare, as `{"value": …}`, or the first of a list of these.
fn scalar(value: Option<&Value>) -> String {
    match value.map(items).unwrap_or_default().first() {
        Some(Value::String(text)) => kept(text),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Object(map)) => map.get("value").and_then(Value::as_str).map(kept).unwrap_or_default(),
        _ => String::new(),
    }
}

fn json_neighbour(name: &str, about: &Value) -> LldpNeighbour {
    let empty = Value::Null;
    let first = |key: &str| about.get(key).map(items).unwrap_or_default().first().copied().unwrap_or(&empty);
    let (mut chassis, port) = (first("chassis"), first("port"));
    let mut chassis_name = scalar(chassis.get("name"));
    // json: a chassis with a name stands below it.
    if chassis.get("id").is_none()
        && let Some((name, inner)) = chassis.as_object().and_then(|map| map.iter().next())
    {
        chassis_name = kept(name);
        chassis = items(inner).first().copied().unwrap_or(&empty);
    }
    let addresses = chassis.get("mgmt-ip").map(items).unwrap_or_default();
    let vlans = about.get("vlan").map(items).unwrap_or_default();
    LldpNeighbour {
        interface: kept(name),
        via: scalar(about.get("via")),
        chassis_id: scalar(chassis.get("id")),
        chassis_name,
        chassis_description: scalar(chassis.get("descr")),
        management_addresses: addresses.into_iter().map(|a| scalar(Some(a))).filter(|a| !a.is_empty()).collect(),
        port_id: scalar(port.get("id")),
        port_description: scalar(port.get("descr")),
        vlan_ids: vlans.into_iter().filter_map(|v| scalar(v.get("vlan-id")).parse().ok()).collect(),
    }
}
