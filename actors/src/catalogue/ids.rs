//! Integer ids of the catalogue's tables: MAAS's first numbers, never given out twice.

use schema::catalogue::{Catalogue as Content, CatalogueItem};

/// A table with integer ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Fabrics,
    Vlans,
    Subnets,
    Ranges,
    ReservedIps,
    Scripts,
    Images,
    Domains,
    DnsResources,
    DnsRecords,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Fabrics => "fabrics",
            Self::Vlans => "vlans",
            Self::Subnets => "subnets",
            Self::Ranges => "ranges",
            Self::ReservedIps => "reserved_ips",
            Self::Scripts => "scripts",
            Self::Images => "images",
            Self::Domains => "domains",
            Self::DnsResources => "dns_resources",
            Self::DnsRecords => "dns_records",
        }
    }
}

/// The id to give the next item of that table. Two callers may get the same one: [`super::CatalogueEvent::Add`] refuses the second.
#[must_use]
pub fn next_id(content: &Content, table: Table) -> i64 {
    content.next_ids.get(table.name()).copied().unwrap_or_else(|| first(table))
}

/// MAAS's first number: fabrics and domains count from 0, VLANs from 5001, the rest from 1.
pub(super) fn first(table: Table) -> i64 {
    match table {
        Table::Fabrics | Table::Domains => 0,
        Table::Vlans => 5_001,
        _ => 1,
    }
}

/// Notes that `id` is taken.
pub(super) fn note(content: &mut Content, table: Table, id: i64) {
    let next = next_id(content, table).max(id.saturating_add(1));
    content.next_ids.insert(table.name().to_owned(), next);
}

/// The table and id of an item that has one.
pub(super) fn of(item: &CatalogueItem) -> Option<(Table, i64)> {
    Some(match item {
        CatalogueItem::Fabric(fabric) => (Table::Fabrics, fabric.id.0),
        CatalogueItem::Vlan(vlan) => (Table::Vlans, vlan.id.0),
        CatalogueItem::Subnet(subnet) => (Table::Subnets, subnet.id.0),
        CatalogueItem::Range(range) => (Table::Ranges, range.id.0),
        CatalogueItem::ReservedIp(ip) => (Table::ReservedIps, ip.id),
        CatalogueItem::Script(script) => (Table::Scripts, script.id),
        CatalogueItem::Image(image) => (Table::Images, image.id),
        CatalogueItem::Domain(domain) => (Table::Domains, domain.id),
        CatalogueItem::DnsResource(resource) => (Table::DnsResources, resource.id),
        CatalogueItem::DnsRecord(record) => (Table::DnsRecords, record.id),
        _ => return None,
    })
}
