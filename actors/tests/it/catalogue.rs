//! What the catalogue refuses, and how a token is used once.

use actors::{
    catalogue::{Catalogue, CatalogueEffect, CatalogueEvent, Table, next_id},
    core::{Core, Verdict},
};
use schema::{
    catalogue::{CatalogueItem, CatalogueKey, EnrolmentToken, RackEntry, Range, RangeType, Subnet},
    id::{RangeId, SubnetId, VlanId},
    net::IpRange,
    time::Timestamp,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn subnet(id: i64, cidr: &str) -> CatalogueItem {
    CatalogueItem::Subnet(Subnet::new(SubnetId(id), VlanId(5_001), cidr.parse().unwrap()))
}

fn range(id: i64, start: &str, end: &str) -> CatalogueItem {
    CatalogueItem::Range(Range {
        id: RangeId(id),
        subnet: SubnetId(1),
        range_type: RangeType::Dynamic,
        range: IpRange { start: start.parse().unwrap(), end: end.parse().unwrap() },
        comment: String::new(),
        user: None,
    })
}

fn rack(id: &str) -> RackEntry {
    RackEntry {
        id: id.parse().unwrap(),
        hostname: id.into(),
        certificate_sha256: "ab".into(),
        revoked: false,
        drained: None,
    }
}

fn put(item: CatalogueItem) -> CatalogueEvent {
    CatalogueEvent::Put { by: "admin".into(), item }
}

fn add(item: CatalogueItem) -> CatalogueEvent {
    CatalogueEvent::Add { by: "admin".into(), item }
}

fn after(catalogue: &Catalogue, event: CatalogueEvent) -> Catalogue {
    let step = catalogue.step(&event, NOW);
    step.next.unwrap_or_else(|| panic!("{event:?}: {:?}", step.verdict))
}

fn why(catalogue: &Catalogue, event: CatalogueEvent) -> String {
    match catalogue.step(&event, NOW).verdict {
        Verdict::Refused { why, remedy } if !remedy.is_empty() => why,
        verdict => panic!("{event:?}: {verdict:?}"),
    }
}

#[test]
fn ids_begin_where_maas_begins_and_never_come_twice() {
    let catalogue = Catalogue::first();
    let ids = |c: &Catalogue| [Table::Fabrics, Table::Vlans, Table::Subnets].map(|t| next_id(&c.content, t));
    assert_eq!(ids(&catalogue), [1, 5_002, 1]);
    let catalogue = after(&catalogue, add(subnet(1, "10.77.0.0/24")));
    assert!(why(&catalogue, add(subnet(1, "10.78.0.0/24"))).contains("given to another"));
    let catalogue =
        after(&catalogue, CatalogueEvent::Remove { by: "admin".into(), key: CatalogueKey::Subnet(SubnetId(1)) });
    assert_eq!(next_id(&catalogue.content, Table::Subnets), 2);
}

#[test]
fn networks_and_ranges_do_not_overlap_and_refusals_name_the_field() {
    let catalogue = after(&Catalogue::first(), add(subnet(1, "10.77.0.0/24")));
    assert!(why(&catalogue, add(subnet(2, "10.77.0.128/25"))).starts_with("cidr \"10.77.0.128/25\" overlaps subnet 1"));
    let catalogue = after(&catalogue, add(range(1, "10.77.0.100", "10.77.0.150")));
    assert!(why(&catalogue, add(range(2, "10.77.0.150", "10.77.0.200"))).contains("overlaps range 1"));
    assert!(
        why(&catalogue, add(range(2, "10.77.1.1", "10.77.1.9")))
            .starts_with("start_ip \"10.77.1.1\" is no host address")
    );
    assert!(why(&catalogue, add(range(2, "10.77.0.200", "10.77.0.255"))).starts_with("end_ip"));
    // The same range, put again, is not its own rival.
    let again = catalogue.step(&put(range(1, "10.77.0.100", "10.77.0.150")), NOW);
    assert!(matches!(again.verdict, Verdict::Ignored { .. }));
}

#[test]
fn dhcp_needs_a_rack_that_is_enrolled() {
    let catalogue = Catalogue::first();
    let mut vlan = catalogue.content.vlans[&VlanId(5_001)].clone();
    vlan.dhcp_on = true;
    assert!(why(&catalogue, put(CatalogueItem::Vlan(vlan.clone()))).starts_with("dhcp_on"));
    vlan.primary_rack = Some("rack01".parse().unwrap());
    assert!(why(&catalogue, put(CatalogueItem::Vlan(vlan.clone()))).starts_with("primary_rack \"rack01\""));
    let catalogue = after(&catalogue, put(CatalogueItem::Rack(rack("rack01"))));
    let step = catalogue.step(&put(CatalogueItem::Vlan(vlan)), NOW);
    assert_eq!(step.effects, [CatalogueEffect::PlansChanged]);
}

#[test]
fn a_token_admits_one_rack_once_and_a_revoked_rack_loses_its_link() {
    let hash = "00ff".to_owned();
    let token = EnrolmentToken { token_sha256: hash.clone(), expires: Timestamp(NOW.0 + 1), used_by: None };
    let catalogue = after(&Catalogue::first(), put(CatalogueItem::EnrolmentToken(token)));
    let enrol = |token: &str, id: &str| CatalogueEvent::Enrol { token_sha256: token.into(), rack: rack(id) };
    assert!(why(&catalogue, enrol("beef", "rack01")).contains("not one of this region's"));
    let late = catalogue.step(&enrol(&hash, "rack01"), Timestamp(NOW.0 + 1)).verdict;
    assert!(matches!(late, Verdict::Refused { why, .. } if why.contains("expired")));
    let catalogue = after(&catalogue, enrol(&hash, "rack01"));
    assert!(why(&catalogue, enrol(&hash, "rack02")).contains("was used by rack rack01"));
    assert!(why(&catalogue, enrol(&hash, "rack01")).contains("used"));
    let revoked = RackEntry { revoked: true, ..rack("rack01") };
    let step = catalogue.step(&put(CatalogueItem::Rack(revoked)), NOW);
    assert_eq!(step.effects[0], CatalogueEffect::CloseLink { rack: "rack01".parse().unwrap() });
}

#[test]
fn several_items_go_in_together_or_not_at_all() {
    let items =
        vec![subnet(1, "10.77.0.0/24"), range(1, "10.77.0.10", "10.77.0.20"), range(2, "10.77.0.15", "10.77.0.30")];
    let event = CatalogueEvent::PutAll { by: "admin".into(), items };
    assert!(why(&Catalogue::first(), event).contains("overlaps range 1"));
}
