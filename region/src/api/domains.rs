//! `domains/`; their names and records stand below. The catalogue decides what it admits.

pub mod find;
pub mod records;
pub mod resources;

use std::net::IpAddr;

use actors::catalogue::{self, Table};
use schema::{
    catalogue::{Catalogue, CatalogueItem, CatalogueKey, Domain},
    dns::DnsName,
};
use serde_json::Value;

use super::{
    call::{Answer, Call, gone, json, text},
    fault::{Fault, Faults},
    params::Params,
    shape::dns as shape,
};

/// `domains/`.
pub async fn all(call: Call) -> Answer {
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            let c = call.house.catalogue();
            Ok(json(&Value::Array(c.domains.values().map(|d| shape::domain(&c, d)).collect())))
        }
        ("POST", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            call.params.required("name")?;
            let id = call.house.next_id(Table::Domains);
            let domain = changed(&call.params, Domain { id, ..Domain::default() })?;
            put(&call, &by, CatalogueItem::Domain(domain)).await?;
            show(&call, id)
        }
        ("POST", "set_serial") => {
            call.admin()?;
            let wrong = || Fault::field("serial", "Give a whole number of 1 to 4294967295.");
            let serial = call.params.required("serial")?.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
            let app = &call.house.app;
            let raised =
                app.names.raise(app, serial).await.map_err(|e| Fault::unavailable(e.to_string(), "Try again."))?;
            raised.map_err(|present| {
                Fault::field("serial", format!("{serial} is not above the present serial {present}."))
            })?;
            Ok(text("OK"))
        }
        _ => Err(call.unknown()),
    }
}

/// `domains/<id>/`.
pub async fn one(call: Call) -> Answer {
    let c = call.house.catalogue();
    let domain = find::domain(&c, call.part("domain_id")).ok_or_else(|| Fault::no("Domain"))?.clone();
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            Ok(json(&shape::domain(&c, &domain)))
        }
        ("PUT", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            let (id, before) = (domain.id, domain.name.clone());
            let domain = changed(&call.params, domain)?;
            if domain.name != before {
                unused(&call, &before, "renamed")?;
            }
            put(&call, &by, CatalogueItem::Domain(domain)).await?;
            show(&call, id)
        }
        ("DELETE", "") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            unused(&call, &domain.name, "deleted")?;
            let key = CatalogueKey::Domain(domain.id);
            catalogue::check_removal(&call.house.catalogue(), &key).map_err(|fault| Fault::Bad(said(&fault)))?;
            call.house.remove(&by, key).await?;
            Ok(gone())
        }
        ("POST", "set_default") => {
            let by = call.admin()?.username.clone();
            let _edit = call.house.editing().await;
            put(&call, &by, CatalogueItem::DefaultDomain(domain.id)).await?;
            show(&call, domain.id)
        }
        _ => Err(call.unknown()),
    }
}

/// Machines hold their domain by its name.
fn unused(call: &Call, name: &DnsName, what: &str) -> Result<(), Fault> {
    let mut machines = 0;
    call.house.app.tickets.each(|spec| machines += usize::from(spec.domain == name.as_str()));
    if machines == 0 {
        return Ok(());
    }
    Err(Fault::Bad(format!(
        "{machines} machines are in domain {name}, so it cannot be {what}. Give them another domain first."
    )))
}

fn show(call: &Call, id: i64) -> Answer {
    let c = call.house.catalogue();
    c.domains.get(&id).map(|d| json(&shape::domain(&c, d))).ok_or_else(|| Fault::no("Domain"))
}

fn changed(params: &Params, mut domain: Domain) -> Result<Domain, Fault> {
    let mut faults = Faults::default();
    if let Some(name) = faults.take(params.parsed::<DnsName>("name")).flatten() {
        domain.name = name;
    }
    if let Some(ours) = faults.take(params.truth("authoritative")).flatten() {
        domain.authoritative = ours;
    }
    if let Some(ttl) = faults.take(seconds(params, "ttl")).flatten() {
        domain.ttl = ttl;
    }
    if params.get("forward_dns_servers").is_some() {
        domain.forward_dns_servers = faults.take(addresses(params, "forward_dns_servers")).unwrap_or_default();
    }
    faults.check()?;
    Ok(domain)
}

/// A span that was given: a number, or blank for "as everywhere".
fn seconds(params: &Params, field: &str) -> Result<Option<Option<u32>>, Fault> {
    match params.get(field).map(str::trim) {
        None => Ok(None),
        Some("") => Ok(Some(None)),
        Some(_) => params.parsed(field).map(Some),
    }
}

/// Addresses with blanks or commas between, or given several times.
fn addresses(params: &Params, field: &str) -> Result<Vec<IpAddr>, Fault> {
    let texts = params.list(field);
    let words = texts.iter().flat_map(|text| text.split([' ', ','])).filter(|word| !word.is_empty());
    let read = |word: &str| word.parse().map_err(|_| Fault::field(field, format!("\"{word}\" is not an IP address.")));
    words.map(read).collect()
}

/// Puts an item that the catalogue admits; what it does not is said at its field.
async fn put(call: &Call, by: &str, item: CatalogueItem) -> Result<(), Fault> {
    admitted(&call.house.catalogue(), &item)?;
    call.house.put(by, vec![item]).await
}

/// Whether the catalogue admits it.
///
/// # Errors
/// 400 with the field.
pub(super) fn admitted(c: &Catalogue, item: &CatalogueItem) -> Result<(), Fault> {
    catalogue::check(c, item).map_err(|fault| Fault::field(fault.field, said(&fault)))
}

fn said(fault: &catalogue::Fault) -> String {
    let mut remedy = fault.remedy.clone();
    if let Some(first) = remedy.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!("{} {}. {remedy}.", fault.value, fault.bound)
}
