//! What machines, clients, racks and settings make of names.

use actors::dns::{Transport, Zones, answer};
use schema::{
    catalogue::{Range, Subnet},
    id::{RangeId, SubnetId, VlanId},
    net::IpRange,
    power::PowerConfig,
};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn house() -> Catalogue {
    let mut c = actors::catalogue::Catalogue::first().content;
    let (id, vlan) = (SubnetId(1), VlanId(5_001));
    let cidr = "10.77.0.0/24".parse().unwrap();
    let subnet = Subnet { name: "lab".into(), ..Subnet::new(id, vlan, cidr) };
    c.subnets.insert(id, subnet);
    c
}

fn machine(n: u8, macs: &[u8]) -> MachineSpec {
    MachineSpec {
        system_id: format!("mach0{n}").parse().unwrap(),
        hostname: format!("m{n}"),
        domain: "maas".into(),
        architecture: "amd64/generic".into(),
        macs: macs.iter().map(|m| MacAddr([2, 0, 0, 0, 0, *m])).collect(),
        power: PowerConfig::default(),
        description: String::new(),
        vlan: None,
        zone: String::new(),
        pool: String::new(),
    }
}

fn lease(last: u8, mac: u8, hostname: &str) -> Lease {
    Lease {
        subnet: SubnetId(1),
        ip: [10, 77, 0, last].into(),
        mac: MacAddr([2, 0, 0, 0, 0, mac]),
        hostname: Some(hostname.into()),
        granted: NOW,
        expires: NOW + std::time::Duration::from_secs(600),
    }
}

/// The names and data that the composer's records make, as text.
fn told(composer: &mut Composer) -> BTreeMap<String, String> {
    composer.delta(1);
    let whole = composer.whole();
    let addresses = |data: &RecordData| match data {
        RecordData::A(all) => Some(format!("{all:?}")),
        RecordData::Ptr(all) => Some(format!("{all:?}")),
        _ => None,
    };
    whole.records.put.iter().filter_map(|set| Some((set.name.to_string(), addresses(&set.data)?))).collect()
}

fn rack(n: u8, address: &str) -> (RackId, Vec<RackInterface>) {
    let ip: IpAddr = address.parse().unwrap();
    let cidr = Cidr::new(ip, 24).unwrap();
    let interface = RackInterface { name: "eth0".into(), mac: None, addresses: vec![(ip, cidr)] };
    (format!("rack0{n}").parse().unwrap(), vec![interface])
}

#[test]
fn a_subnets_name_leads_to_its_racks_and_forgets_them_as_they_go() {
    let mut composer = Composer::default();
    composer.catalogue(Arc::new(house()));
    composer.racks(vec![rack(1, "10.77.0.2"), rack(2, "10.77.0.3"), rack(3, "10.88.0.2")]);
    let name = "10-77-0-0--24.maas-internal";
    assert_eq!(told(&mut composer)[name], "[10.77.0.2, 10.77.0.3]");
    composer.racks(vec![rack(2, "10.77.0.3")]);
    assert_eq!(told(&mut composer)[name], "[10.77.0.3]");
    assert_eq!(composer.whole().zones.put.iter().filter(|z| z.name.as_str() == "maas-internal").count(), 1);
    let ttl = composer.whole().records.put.iter().find(|s| s.name.as_str() == name).map(|s| s.ttl);
    assert_eq!(ttl, Some(15));
    composer.racks(Vec::new());
    assert!(!told(&mut composer).contains_key(name));
}

#[test]
fn a_reverse_zone_makes_up_the_names_of_its_own_subnets_alone() {
    let mut c = house();
    for n in 1..=3_u8 {
        let (id, cidr) = (SubnetId(n.into()), format!("10.77.{n}.0/24").parse().unwrap());
        c.subnets.insert(id, Subnet::new(id, VlanId(5_001), cidr));
        let range = IpRange { start: [10, 77, n, 100].into(), end: [10, 77, n, 199].into() };
        let (id, range_type, comment) = (RangeId(n.into()), RangeType::Dynamic, String::new());
        c.ranges.insert(id, Range { id, subnet: SubnetId(n.into()), range_type, range, comment, user: None });
    }
    let mut composer = Composer::default();
    composer.catalogue(Arc::new(c));
    told(&mut composer);
    let ranges = |name: &str| {
        let zones = composer.whole().zones.put;
        let zone = zones.into_iter().find(|zone| zone.name.as_str() == name).unwrap();
        zone.generated.iter().map(|g| g.range.start.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ranges("2.77.10.in-addr.arpa"), ["10.77.2.100"]);
    assert_eq!(ranges("maas"), ["10.77.1.100", "10.77.2.100", "10.77.3.100"]);
}

#[test]
fn machines_are_named_by_their_leases_and_clients_take_no_machines_name() {
    let mut composer = Composer::default();
    composer.catalogue(Arc::new(house()));
    let spec = machine(1, &[1]);
    composer.machine(spec.system_id, Some(&spec));
    composer.nics(spec.system_id, [(MacAddr([2, 0, 0, 0, 0, 9]), "eth1".to_owned())].into());
    composer
        .leases([lease(51, 1, "whatever"), lease(52, 9, "x"), lease(66, 66, "M1.evil"), lease(67, 67, "_My PC!")], NOW);
    let told_ = told(&mut composer);
    assert_eq!(told_["m1.maas"], "[10.77.0.51]", "and not the client's 10.77.0.66");
    assert_eq!(told_["eth1.m1.maas"], "[10.77.0.52]");
    assert_eq!(told_["my-pc.maas"], "[10.77.0.67]");
    assert_eq!(told_["51.0.77.10.in-addr.arpa"], "[m1.maas]");
    composer.expire(NOW + std::time::Duration::from_secs(601));
    let told_ = told(&mut composer);
    assert!(!told_.contains_key("m1.maas") && !told_.contains_key("my-pc.maas") && told_.is_empty(), "{told_:?}");
    composer.machine(spec.system_id, None);
    assert!(told(&mut composer).is_empty());
}

/// However it came about, what is given out piece by piece is what is given out at once.
#[test]
fn pieces_add_up_to_the_whole() {
    let mut composer = Composer::default();
    let mut zones = Zones::default();
    let mut c = house();
    let mut give = |composer: &mut Composer, serial| {
        if let Some(delta) = composer.delta(serial) {
            zones.apply(&delta.zones, &delta.records);
        }
    };
    composer.catalogue(Arc::new(c.clone()));
    give(&mut composer, 1);
    for n in 1..=9 {
        let spec = machine(n, &[n]);
        composer.machine(spec.system_id, Some(&spec));
        composer.leases([lease(100 + n, n, "c")], NOW);
        give(&mut composer, u32::from(n) + 1);
    }
    composer.machine(machine(4, &[]).system_id, None);
    composer.leases([lease(105, 6, "c")], NOW);
    c.domains.insert(1, Domain { id: 1, name: "lab".parse().unwrap(), ..Domain::default() });
    c.subnets.get_mut(&SubnetId(1)).unwrap().rdns_mode = 0;
    composer.catalogue(Arc::new(c));
    give(&mut composer, 20);
    let whole = composer.whole();
    let anew = Zones::of(&whole.zones.put, &whole.records.put);
    assert_eq!(zones.names(), anew.names());
    for set in &whole.records.put {
        let name = actors::dns::name::wire(&set.name);
        let question =
            [&[0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], &name[..], &set.data.rtype().to_be_bytes(), &[0, 1]].concat();
        let (mut one, mut other) = (Vec::new(), Vec::new());
        answer(&question, &zones, Transport::Udp, 0, &mut one);
        answer(&question, &anew, Transport::Udp, 0, &mut other);
        assert_eq!(one, other, "{}", set.name);
    }
}
