//! Domains, names and records as the MAAS API shows them. The catalogue is the only input.

use std::net::IpAddr;

use schema::catalogue::{Catalogue, DnsRecord, DnsResource, Domain};
use serde_json::{Value, json};

use super::{ROOT, network};

/// A domain.
#[must_use]
pub fn domain(c: &Catalogue, d: &Domain) -> Value {
    let here = |id: &i64| c.dns_resources.get(id).is_some_and(|r| r.domain == d.id);
    let records = c.dns_records.values().filter(|record| here(&record.resource)).count();
    let addresses: usize = c.dns_resources.values().filter(|r| here(&r.id)).map(|r| r.ip_addresses.len()).sum();
    json!({
        "id": d.id, "name": d.name, "ttl": d.ttl, "authoritative": d.authoritative,
        "resource_record_count": records + addresses, "is_default": d.id == c.default_domain,
        // Hostler's own, beside MAAS's.
        "forward_dns_servers": d.forward_dns_servers,
        "resource_uri": format!("{ROOT}/domains/{}/", d.id),
    })
}

/// The domain of a machine, by its name; the default one when that is empty.
#[must_use]
pub fn domain_of(c: &Catalogue, name: &str) -> Value {
    let found = c.domains.values().find(|d| d.name.as_str() == name);
    found.map_or_else(|| domain(c, &c.main_domain()), |d| domain(c, d))
}

/// A name with its addresses and records.
#[must_use]
pub fn resource(c: &Catalogue, r: &DnsResource) -> Value {
    let records: Vec<_> = c.dns_records.values().filter(|d| d.resource == r.id).map(|d| record(c, d)).collect();
    json!({
        "id": r.id, "fqdn": c.fqdn(r), "address_ttl": r.address_ttl, "resource_records": records,
        "ip_addresses": r.ip_addresses.iter().map(|ip| address(c, *ip)).collect::<Vec<_>>(),
        "resource_uri": format!("{ROOT}/dnsresources/{}/", r.id),
    })
}

/// An address that a user gave a name (MAAS: allocation type 4).
fn address(c: &Catalogue, ip: IpAddr) -> Value {
    let subnet = c.subnets.values().find(|s| s.cidr.contains(ip));
    json!({
        "ip": ip, "alloc_type": 4, "alloc_type_name": "User reserved", "subnet": subnet.map(|s| network::subnet(c, s)),
        "interface_set": [], "resource_uri": format!("{ROOT}/ipaddresses/"),
    })
}

/// A record.
#[must_use]
pub fn record(c: &Catalogue, d: &DnsRecord) -> Value {
    let resource = c.dns_resources.get(&d.resource);
    json!({
        "id": d.id, "fqdn": resource.and_then(|r| c.fqdn(r)), "ttl": d.ttl, "rrtype": d.rrtype, "rrdata": d.rrdata,
        "resource_uri": format!("{ROOT}/dnsresourcerecords/{}/", d.id),
    })
}
