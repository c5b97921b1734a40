//! What the catalogue admits of names: domains, resources, records; nothing where the internal domain is, and no wildcards.

use schema::{
    catalogue::{Catalogue as Content, DnsRecord, DnsResource, Domain},
    dns::{DnsName, RecordData},
    net::HostName,
};

use super::check::{Fault, exists, unless};
use crate::dns::{not_internal, text};

/// Seconds: a week.
const TTL_MAX: u32 = 604_800;
/// Addresses of one name; all of them go in one answer.
const ADDRESSES: usize = 64;

pub(super) fn domain(c: &Content, domain: &Domain) -> Result<(), Fault> {
    let name = &domain.name;
    let wrong =
        || Fault::new("name", name, "is not a domain name", "use letters, digits and hyphens, as in lab.example.com");
    unless(name.as_str().parse::<HostName>().is_err(), wrong)?;
    ours(&c.internal_domain(), "name", name)?;
    let twin = c.domains.values().any(|d| d.id != domain.id && d.name == *name);
    unless(twin, || Fault::new("name", name, "is another domain's", "choose another name"))?;
    let mixed = domain.authoritative && !domain.forward_dns_servers.is_empty();
    unless(mixed, || {
        Fault::new("forward_dns_servers", name, "is authoritative: nobody else is asked", "set authoritative to false")
    })?;
    let main = c.default_domain == domain.id && !domain.authoritative;
    unless(main, || {
        Fault::new("authoritative", name, "is the default domain, which is ours", "make another one the default first")
    })?;
    ttl("ttl", domain.ttl)
}

pub(super) fn domain_goes(c: &Content, id: i64) -> Result<(), Fault> {
    let Some(domain) = c.domains.get(&id) else { return exists(false, "domain", id) };
    let name = &domain.name;
    unless(id == c.default_domain, || {
        Fault::new("domain", name, "is the default domain, it cannot be deleted", "make another one the default first")
    })?;
    let used = c.dns_resources.values().find(|r| r.domain == id);
    used.map_or(Ok(()), |r| {
        Err(Fault::new("domain", name, format!("holds the name {}", r.name), "delete its DNS resources first"))
    })
}

pub(super) fn resource(c: &Content, resource: &DnsResource) -> Result<(), Fault> {
    let name = &resource.name;
    let domain = c.domains.get(&resource.domain);
    let domain =
        domain.ok_or_else(|| Fault::new("domain", resource.domain, "does not exist", "take one of domains/"))?;
    unless(name.split('.').any(|label| label == "*"), || {
        Fault::new("name", name, "is a wildcard, which is not served", "name each host")
    })?;
    let fqdn = c.fqdn(resource);
    let fqdn = fqdn.ok_or_else(|| {
        Fault::new(
            "name",
            name,
            format!("is no name in {}", domain.name),
            "use labels of 1 to 63 characters, or @ for the domain itself",
        )
    })?;
    ours(&c.internal_domain(), "name", &fqdn)?;
    let twin = c.dns_resources.values().any(|r| r.id != resource.id && (r.domain, &r.name) == (resource.domain, name));
    unless(twin, || Fault::new("name", name, format!("is in {} already", domain.name), "change that DNS resource"))?;
    let many = resource.ip_addresses.len();
    unless(many > ADDRESSES, || {
        Fault::new("ip_addresses", many, format!("addresses are more than {ADDRESSES}"), "use several names")
    })?;
    let alias = records_of(c, resource.id).any(|r| r.rrtype == "CNAME");
    unless(alias && many > 0, || {
        Fault::new("ip_addresses", name, "is an alias (CNAME), which has no addresses", "delete the CNAME first")
    })?;
    ttl("address_ttl", resource.address_ttl)
}

pub(super) fn record(c: &Content, record: &DnsRecord) -> Result<(), Fault> {
    let resource = c.dns_resources.get(&record.resource);
    let resource =
        resource.ok_or_else(|| Fault::new("name", record.resource, "is no DNS resource", "make it first"))?;
    let data = text::parse(&record.rrtype, &record.rrdata);
    let data = data.map_err(|wrong| Fault::new(wrong.field, wrong.value, wrong.bound, wrong.remedy))?;
    let mut others = records_of(c, record.resource).filter(|r| r.id != record.id);
    let alone = matches!(data, RecordData::Cname(_));
    let with_alias = others.clone().any(|r| r.rrtype == "CNAME");
    let crowded =
        alone && (others.clone().next().is_some() || !resource.ip_addresses.is_empty() || resource.name == "@");
    unless(with_alias || crowded, || {
        Fault::new(
            "rrtype",
            &record.rrtype,
            "meets other records of that name, and an alias (CNAME) stands alone",
            "use another name",
        )
    })?;
    let same = others.any(|r| (&r.rrtype, &r.rrdata) == (&record.rrtype, &record.rrdata));
    unless(same, || Fault::new("rrdata", &record.rrdata, "is there already", "leave it"))?;
    ttl("ttl", record.ttl)
}

/// The internal domain may not come to lie over names that users made.
pub(super) fn setting(c: &Content, name: &str, value: &str) -> Result<(), Fault> {
    let internal = match (name, serde_json::from_str::<DnsName>(value)) {
        ("maas_internal_domain", Ok(internal)) => internal,
        _ => return Ok(()),
    };
    let domains = c.domains.values().map(|d| d.name.clone());
    let names = domains.chain(c.dns_resources.values().filter_map(|r| c.fqdn(r)));
    names.filter(|name| name.within(&internal)).try_for_each(|taken| {
        Err(Fault::new("value", &internal, format!("would hide the name {taken}"), "choose a domain that nobody uses"))
    })
}

fn records_of(c: &Content, resource: i64) -> impl Iterator<Item = &DnsRecord> + Clone {
    c.dns_records.values().filter(move |r| r.resource == resource)
}

fn ours(internal: &DnsName, field: &'static str, name: &DnsName) -> Result<(), Fault> {
    not_internal(name, internal).map_err(|why| Fault::new(field, name, why, "choose another name"))
}

fn ttl(field: &'static str, ttl: Option<u32>) -> Result<(), Fault> {
    let bound = format!("is not between 1 and {TTL_MAX} seconds");
    ttl.filter(|ttl| !(1..=TTL_MAX).contains(ttl))
        .map_or(Ok(()), |ttl| Err(Fault::new(field, ttl, bound, "choose one within")))
}
