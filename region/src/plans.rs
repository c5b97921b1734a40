//! Plans: catalogue, tickets and a rack's interfaces to what that rack must know, and what of it changed since it was told. Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
};

use actors::machine::Attempt;
use schema::{
    boot::{BodyRef, BootFile},
    catalogue::{Catalogue, Range, RangeType, Script, Subnet, Vlan},
    id::{AttemptId, Generation, RackId, SubnetId, SystemId, VlanId},
    messages::{
        link::{PlanUpdate, RackInterface, Rows},
        machine::{BriefScript, MachineSpec},
    },
    net::{IpRange, MacAddr},
    plan::{BootPurpose, Failover, NodeKey, Plan, PlanSettings, PlanSubnet, Reservation, Ticket, TicketBoot},
    script::ScriptRef,
    time::Timestamp,
};

use crate::{dns::Delta, settings};

/// What the region keeps of a machine for the racks' plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRow {
    pub spec: MachineSpec,
    /// The attempt under way, once its ticket is published.
    pub boot: Option<BootRow>,
}

/// What a machine is handed for that attempt; scripts that left the catalogue are left out.
#[must_use]
pub fn ticket_boot(c: &Catalogue, attempt: &Attempt, key: NodeKey, user_data: BodyRef) -> TicketBoot {
    let script = |brief: &BriefScript| c.scripts.values().find(|s| s.name == brief.name).map(|s| script_ref(s, brief));
    TicketBoot {
        image: attempt.image.clone(),
        kernel_opts: attempt.kernel_opts.clone(),
        key,
        user_data,
        scripts: attempt.scripts.iter().filter_map(|s| script(&s.script)).collect(),
        ssh_keys: c.users.get(&attempt.by).map(|u| u.ssh_keys.clone()).unwrap_or_default(),
        stay_on: attempt.options.enable_ssh,
    }
}

fn script_ref(script: &Script, brief: &BriefScript) -> ScriptRef {
    ScriptRef {
        name: script.name.clone(),
        script_type: script.script_type,
        script_result_id: brief.result,
        script_version_id: script.version,
        timeout_seconds: script.timeout_s,
        parallel: script.parallel,
        hardware_type: script.hardware_type,
        may_reboot: script.may_reboot,
        packages: script.packages.clone(),
        body: script.body,
    }
}

/// A published ticket's part that only the racks of the boot VLAN get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootRow {
    pub attempt: AttemptId,
    pub racks: Vec<RackId>,
    pub expires: Timestamp,
    pub boot: TicketBoot,
}

/// Everything of a plan but its tickets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sections {
    pub settings: PlanSettings,
    pub subnets: Vec<PlanSubnet>,
    pub boot_files: Vec<BootFile>,
    pub reservations: Vec<Reservation>,
}

/// The ticket of a machine as that rack is to hold it: the attempt's, or "boot from your disk".
#[must_use]
pub fn ticket(row: &MachineRow, rack: RackId) -> Ticket {
    let spec = &row.spec;
    let boot = row.boot.as_ref().filter(|b| b.racks.contains(&rack));
    Ticket {
        machine: spec.system_id,
        attempt: boot.map_or(AttemptId(0), |b| b.attempt),
        purpose: if boot.is_some() { BootPurpose::Commissioning } else { BootPurpose::Local },
        macs: spec.macs.clone(),
        hostname: spec.hostname.clone(),
        domain: spec.domain.clone(),
        arch: deb_arch(&spec.architecture).to_owned(),
        // A machine under no orders is known for as long as it is in the database.
        expires: boot.map_or(Timestamp(i64::MAX), |b| b.expires),
        boot: boot.map(|b| b.boot.clone()),
    }
}

/// Debian's word in MAAS's `amd64/generic`.
#[must_use]
pub fn deb_arch(architecture: &str) -> &str {
    architecture.split('/').next().unwrap_or_default()
}

/// The sections of one rack: the subnets whose DHCP it serves, and those that it has an address in.
#[must_use]
pub fn sections(c: &Catalogue, rack: RackId, interfaces: &[RackInterface]) -> Sections {
    let subnets: Vec<_> = c.subnets.values().filter_map(|s| plan_subnet(c, s, rack, interfaces)).collect();
    let served: HashSet<_> = subnets.iter().map(|s| s.id).collect();
    let reservations = c.reserved_ips.values().filter(|r| served.contains(&r.subnet)).filter_map(|r| match r.ip {
        IpAddr::V4(ip) => Some(Reservation { subnet: r.subnet, mac: r.mac, ip, hostname: r.hostname.clone() }),
        IpAddr::V6(_) => None,
    });
    Sections {
        settings: settings::plan(c),
        reservations: reservations.collect(),
        boot_files: c.boot_files.values().cloned().collect(),
        subnets,
    }
}

/// The VLAN whose racks serve that VLAN's DHCP: its own, or the one its requests are relayed to.
pub(crate) fn serving<'a>(c: &'a Catalogue, vlan: &'a Vlan) -> &'a Vlan {
    vlan.relay_vlan.and_then(|id| c.vlans.get(&id)).unwrap_or(vlan)
}

fn plan_subnet(c: &Catalogue, subnet: &Subnet, rack: RackId, interfaces: &[RackInterface]) -> Option<PlanSubnet> {
    let IpAddr::V4(_) = subnet.cidr.network() else { return None };
    let vlan = c.vlans.get(&subnet.vlan)?;
    let server = serving(c, vlan);
    let serves = server.primary_rack == Some(rack) || server.secondary_rack == Some(rack);
    let own = addresses(interfaces).find(|a| subnet.cidr.contains(IpAddr::V4(*a)));
    if !serves && own.is_none() {
        return None;
    }
    let v4 = |ip: Option<IpAddr>| match ip {
        Some(IpAddr::V4(ip)) => Some(ip),
        _ => None,
    };
    let ranges = c.ranges.values().filter(|r| r.subnet == subnet.id);
    let (dynamic, reserved): (Vec<_>, Vec<_>) = ranges.partition(|r| r.range_type == RangeType::Dynamic);
    // MAAS's order: the rack first, since it alone knows the internal names, then what the operator names.
    let rack_address = own.or_else(|| relay_address(c, server, interfaces));
    let names = rack_address.filter(|_| subnet.allow_dns).map(IpAddr::V4);
    let named = subnet.dns_servers.iter().copied().filter(|ip| Some(*ip) != names);
    let dns_servers = names.into_iter().chain(named).collect();
    let domain = c.main_domain().name.to_string();
    let shares = |rack| dynamic.iter().filter_map(|r| share(r, server, rack)).collect();
    let failover = peer(server, rack).filter(|_| serves).map(|peer| Failover {
        peer,
        peer_addresses: Vec::new(),
        secondary: server.secondary_rack == Some(rack),
        others: shares(peer),
    });
    let dynamic = shares(rack);
    Some(PlanSubnet {
        id: subnet.id,
        vlan: subnet.vlan,
        cidr: subnet.cidr,
        rack_address,
        gateway: v4(subnet.gateway),
        dns_servers,
        ntp_servers: external_time(c),
        search: search(c, &domain),
        domain: Some(domain),
        mtu: vlan.mtu,
        dynamic,
        excluded: reserved.iter().map(|r| r.range).collect(),
        dhcp: serves && server.dhcp_on && subnet.managed,
        strangers: subnet.strangers,
        beside_foreign_dhcp: subnet.beside_foreign_dhcp,
        tftp_window: subnet.tftp_window,
        allow_dns: subnet.allow_dns,
        allow_proxy: subnet.allow_proxy,
        racks: Vec::new(),
        failover,
    })
}

/// The domains whose hosts are found by their first label: the default one, then the others that are ours (MAAS's search list).
fn search(c: &Catalogue, main: &str) -> Vec<String> {
    let others = c.domains.values().filter(|d| d.authoritative && d.name.as_str() != main);
    // Old resolvers take six (resolv.conf(5)).
    std::iter::once(main.to_owned()).chain(others.map(|d| d.name.to_string())).take(6).collect()
}

/// What machines are told of instead of their racks (`ntp_external_only`). DHCP's option 42 holds addresses only: names are left out
/// here, and machines without any are told of none.
fn external_time(c: &Catalogue) -> Vec<IpAddr> {
    let settings = settings::plan(c);
    let only = settings.ntp_servers.iter().filter(|_| settings.ntp_external_only);
    only.filter_map(|server| server.parse().ok()).collect()
}

/// The racks that serve a subnet's DHCP.
#[must_use]
pub fn serving_racks(c: &Catalogue, subnet: SubnetId) -> Vec<RackId> {
    let vlan = c.subnets.get(&subnet).and_then(|s| c.vlans.get(&s.vlan));
    let server = vlan.map(|vlan| serving(c, vlan));
    server.into_iter().flat_map(|s| [s.primary_rack, s.secondary_rack]).flatten().collect()
}

/// The other rack that serves that VLAN.
fn peer(vlan: &Vlan, rack: RackId) -> Option<RackId> {
    match (vlan.primary_rack?, vlan.secondary_rack?) {
        (first, second) if first == rack => Some(second).filter(|second| *second != rack),
        (first, second) if second == rack => Some(first),
        _ => None,
    }
}

/// Puts in where the other racks are: a server at one of those addresses is none that harms.
pub fn with_peers(sections: &mut Sections, addresses_of: impl Fn(RackId) -> Vec<Ipv4Addr>) {
    for failover in sections.subnets.iter_mut().filter_map(|s| s.failover.as_mut()) {
        failover.peer_addresses = addresses_of(failover.peer);
    }
}

/// A rack without an address in a relayed subnet answers with the one it has where the relay sends to.
fn relay_address(c: &Catalogue, server: &Vlan, interfaces: &[RackInterface]) -> Option<Ipv4Addr> {
    let near = c.subnets.values().filter(|s| s.vlan == server.id);
    near.flat_map(|s| addresses(interfaces).filter(|a| s.cidr.contains(IpAddr::V4(*a)))).next()
}

/// A rack's IPv4 addresses.
pub(crate) fn addresses(interfaces: &[RackInterface]) -> impl Iterator<Item = Ipv4Addr> + '_ {
    interfaces.iter().flat_map(|i| &i.addresses).filter_map(|(address, _)| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

/// That rack's part of a dynamic range. Two racks that serve the same VLAN lease from halves of their own, so that they
/// never give out the same address without a word between them. Each range is halved by itself, so that one more moves no address from
/// one rack to the other; the odd address goes to the first rack or to the second by the range's number.
fn share(range: &Range, vlan: &Vlan, rack: RackId) -> Option<IpRange> {
    let (IpAddr::V4(start), IpAddr::V4(end)) = (range.range.start, range.range.end) else { return None };
    let (start, end) = (u64::from(u32::from(start)), u64::from(u32::from(end)));
    let (Some(first), Some(second)) = (vlan.primary_rack, vlan.secondary_rack) else { return Some(range.range) };
    if first == second {
        return Some(range.range);
    }
    let odd = u64::from(range.id.0 % 2 == 0);
    // The second's half begins there.
    let middle = start + (end + 1 - start + 1 - odd) / 2;
    let (start, end) = if second == rack { (middle, end) } else { (start, middle.checked_sub(1)?) };
    let at = |ip: u64| u32::try_from(ip).map(|ip| IpAddr::from(Ipv4Addr::from(ip))).ok();
    let half = IpRange { start: at(start)?, end: at(end)? };
    (start <= end).then_some(half)
}

/// Racks that serve DHCP on that VLAN; `None`: on any.
#[must_use]
pub fn dhcp_racks(c: &Catalogue, vlan: Option<VlanId>) -> HashSet<RackId> {
    let asked = c.vlans.values().filter(|v| vlan.is_none_or(|id| v.id == id));
    let on = asked.map(|v| serving(c, v)).filter(|v| v.dhcp_on);
    on.flat_map(|v| [v.primary_rack, v.secondary_rack]).flatten().collect()
}

/// The racks that hold the tickets of machines on that VLAN.
#[must_use]
pub fn vlan_racks(c: &Catalogue, vlan: VlanId) -> HashSet<RackId> {
    let serving = c.vlans.get(&vlan).map(|v| serving(c, v));
    serving.into_iter().flat_map(|v| [v.primary_rack, v.secondary_rack]).flatten().collect()
}

/// The VLANs whose machines that rack must know.
#[must_use]
pub fn served_vlans(c: &Catalogue, rack: RackId) -> HashSet<VlanId> {
    let by = |v: &&Vlan| [serving(c, v).primary_rack, serving(c, v).secondary_rack].contains(&Some(rack));
    c.vlans.values().filter(by).map(|v| v.id).collect()
}

/// What a rack was told over its present connection.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub generation: Generation,
    /// How far the names are told, as [`crate::dns::Names::since`] counts.
    pub names: u64,
    sections: Sections,
    reservations: HashMap<(SubnetId, MacAddr), Reservation>,
    tickets: BTreeMap<SystemId, Ticket>,
}

impl Told {
    /// A rack that was told nothing yet: its first plan gets the generation after that one.
    #[must_use]
    pub fn nothing(generation: Generation) -> Self {
        Self { generation, ..Self::default() }
    }

    /// The subnets as it was told of them.
    #[must_use]
    pub fn subnets(&self) -> &[PlanSubnet] {
        &self.sections.subnets
    }

    /// The whole plan, as a rack gets it first on a connection.
    #[must_use]
    pub fn whole(generation: Generation, sections: Sections, tickets: Vec<Ticket>) -> (Self, PlanUpdate) {
        let Sections { settings, subnets, boot_files, reservations } = sections.clone();
        let tables = Plan { tickets: tickets.clone(), ..Plan::default() };
        let plan = Plan { generation, settings, subnets, boot_files, reservations, ..tables };
        let tickets = tickets.into_iter().map(|t| (t.machine, t)).collect();
        let reservations = index(&sections.reservations);
        (Self { generation, names: 0, sections, reservations, tickets }, plan.into())
    }

    /// What changed: the sections if they were composed anew, and these machines' tickets (`None`: the machine is gone).
    /// `None` when nothing did.
    pub fn update(
        &mut self,
        sections: Option<Sections>,
        tickets: impl IntoIterator<Item = (SystemId, Option<Ticket>)>,
    ) -> Option<PlanUpdate> {
        let mut update = PlanUpdate::empty(Some(self.generation), self.generation.next());
        if let Some(new) = sections {
            let old = &self.sections;
            update.settings = (old.settings != new.settings).then(|| new.settings.clone());
            update.subnets = (old.subnets != new.subnets).then(|| new.subnets.clone());
            update.boot_files = (old.boot_files != new.boot_files).then(|| new.boot_files.clone());
            update.reservations = self.reservation_rows(&new);
            self.reservations = index(&new.reservations);
            self.sections = new;
        }
        for (machine, ticket) in tickets {
            match ticket {
                Some(ticket) if self.tickets.get(&machine) == Some(&ticket) => {}
                Some(ticket) => {
                    update.tickets.put.push(ticket.clone());
                    self.tickets.insert(machine, ticket);
                }
                None if self.tickets.remove(&machine).is_some() => update.tickets.remove.push(machine),
                None => {}
            }
        }
        (!update.is_empty()).then(|| {
            self.generation = update.generation;
            update
        })
    }

    /// A change of names, as an update of its own.
    pub fn page(&mut self, names: Delta) -> PlanUpdate {
        let base = self.generation;
        self.generation = base.next();
        PlanUpdate { zones: names.zones, records: names.records, ..PlanUpdate::empty(Some(base), self.generation) }
    }

    /// A removal is by MAC alone, so a MAC that loses one of several reservations has the others put again.
    fn reservation_rows(&self, new: &Sections) -> Rows<Reservation, MacAddr> {
        let now = index(&new.reservations);
        let gone = self.reservations.keys().filter(|key| !now.contains_key(key)).map(|(_, mac)| *mac);
        let remove: HashSet<MacAddr> = gone.collect();
        let news = new
            .reservations
            .iter()
            .filter(|r| remove.contains(&r.mac) || self.reservations.get(&(r.subnet, r.mac)) != Some(*r));
        let put = news.cloned().collect();
        let mut remove: Vec<_> = remove.into_iter().collect();
        remove.sort();
        Rows { replace: false, put, remove }
    }
}

fn index(reservations: &[Reservation]) -> HashMap<(SubnetId, MacAddr), Reservation> {
    reservations.iter().map(|r| ((r.subnet, r.mac), r.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::{
        catalogue::{Range, ReservedIp},
        id::{RangeId, SubnetId, VlanId},
        power::PowerConfig,
    };

    fn rack(n: u8) -> RackId {
        format!("rack0{n}").parse().unwrap()
    }

    fn house() -> Catalogue {
        let mut c = actors::catalogue::Catalogue::first().content;
        let vlan = c.vlans.get_mut(&VlanId(5_001)).unwrap();
        vlan.dhcp_on = true;
        vlan.primary_rack = Some(rack(1));
        let subnet = Subnet {
            name: "lab".into(),
            gateway: Some("10.77.0.1".parse().unwrap()),
            ..Subnet::new(SubnetId(1), VlanId(5_001), "10.77.0.0/24".parse().unwrap())
        };
        c.subnets.insert(subnet.id, subnet);
        let range = IpRange { start: "10.77.0.100".parse().unwrap(), end: "10.77.0.199".parse().unwrap() };
        let range = Range {
            id: RangeId(1),
            subnet: SubnetId(1),
            range_type: RangeType::Dynamic,
            range,
            comment: String::new(),
            user: None,
        };
        c.ranges.insert(range.id, range);
        c
    }

    fn eth(address: &str) -> Vec<RackInterface> {
        let ip = address.parse().unwrap();
        let cidr = format!("{address}/24").parse().unwrap();
        vec![RackInterface { name: "eth0".into(), mac: None, addresses: vec![(ip, cidr)] }]
    }

    fn row(n: u8) -> MachineRow {
        let spec = MachineSpec {
            system_id: format!("mach0{n}").parse().unwrap(),
            hostname: format!("m{n}"),
            domain: "maas".into(),
            architecture: "amd64/generic".into(),
            macs: vec![MacAddr([2, 0, 0, 0, 0, n])],
            power: PowerConfig::default(),
            description: String::new(),
            zone: String::new(),
            pool: String::new(),
            vlan: None,
        };
        MachineRow { spec, boot: None }
    }

    #[test]
    fn a_rack_gets_the_subnets_it_serves_or_stands_in_and_no_others() {
        let c = house();
        let served = sections(&c, rack(1), &eth("10.77.0.2"));
        assert_eq!(served.subnets[0].rack_address, Some("10.77.0.2".parse().unwrap()));
        assert!(served.subnets[0].dhcp);
        assert!(sections(&c, rack(2), &eth("10.88.0.2")).subnets.is_empty());
        let near = sections(&c, rack(2), &eth("10.77.0.3"));
        assert_eq!((near.subnets.len(), near.subnets[0].dhcp), (1, false));
    }

    #[test]
    fn external_time_servers_are_named_by_address_where_racks_are_not_to_be() {
        let mut c = house();
        c.settings.insert("ntp_servers".into(), "\"10.0.0.1 ntp.example\"".into());
        let named = |c: &Catalogue| sections(c, rack(1), &eth("10.77.0.2")).subnets[0].ntp_servers.clone();
        assert!(named(&c).is_empty(), "the rack names itself");
        c.settings.insert("ntp_external_only".into(), "true".into());
        assert_eq!(named(&c), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn two_racks_of_a_vlan_lease_from_halves_that_do_not_meet() {
        let mut c = house();
        c.vlans.get_mut(&VlanId(5_001)).unwrap().secondary_rack = Some(rack(2));
        let half = |n| sections(&c, rack(n), &[]).subnets[0].dynamic[0];
        assert_eq!(half(1).end.to_string(), "10.77.0.149");
        assert_eq!(half(2).start.to_string(), "10.77.0.150");
        let shared = |n| sections(&c, rack(n), &[]).subnets[0].failover.clone().unwrap();
        assert_eq!((shared(1).peer, shared(1).secondary, shared(1).others), (rack(2), false, vec![half(2)]));
        assert_eq!((shared(2).peer, shared(2).secondary, shared(2).others), (rack(1), true, vec![half(1)]));
        assert_eq!(serving_racks(&c, SubnetId(1)), [rack(1), rack(2)]);
        c.vlans.get_mut(&VlanId(5_001)).unwrap().secondary_rack = Some(rack(1));
        assert_eq!(sections(&c, rack(1), &[]).subnets[0].dynamic[0].end.to_string(), "10.77.0.199", "one rack twice");
    }

    #[test]
    fn every_range_is_shared_out_whole_and_once_whatever_its_size() {
        let mut c = house();
        c.vlans.get_mut(&VlanId(5_001)).unwrap().secondary_rack = Some(rack(2));
        c.ranges.clear();
        let ranges = [(1, 10, 10), (2, 20, 20), (3, 30, 36), (4, 40, 46), (5, 50, 51), (6, 0, 255)];
        for (id, start, end) in ranges {
            let at = |last: u8| std::net::IpAddr::from([10, 77, u8::from(id == 6), last]);
            let (range, subnet, range_type) =
                (IpRange { start: at(start), end: at(end) }, SubnetId(1), RangeType::Dynamic);
            let range = Range { id: RangeId(id), subnet, range_type, range, comment: String::new(), user: None };
            c.ranges.insert(range.id, range);
        }
        let of = |n| sections(&c, rack(n), &[]).subnets[0].dynamic.clone();
        let sizes = |n| of(n).iter().map(IpRange::len).sum::<u64>();
        assert_eq!((sizes(1), sizes(2)), (1 + 4 + 3 + 1 + 128, 1 + 3 + 4 + 1 + 128));
        for one in of(1) {
            assert!(of(2).iter().all(|two| two.end < one.start || two.start > one.end), "{one:?} meets the other half");
        }
    }

    #[test]
    fn an_update_holds_what_changed_and_nothing_else() {
        let mut c = house();
        let machine = row(1);
        let compose = |c: &Catalogue| sections(c, rack(1), &eth("10.77.0.2"));
        let (mut told, first) = Told::whole(Generation(5), compose(&c), vec![ticket(&machine, rack(1))]);
        assert_eq!((first.base, first.generation, first.tickets.put.len()), (None, Generation(5), 1));
        let id = machine.spec.system_id;
        assert!(told.update(Some(compose(&c)), [(id, Some(ticket(&machine, rack(1))))]).is_none());
        let kept = ReservedIp {
            id: 1,
            subnet: SubnetId(1),
            mac: machine.spec.macs[0],
            ip: "10.77.0.9".parse().unwrap(),
            hostname: None,
            comment: String::new(),
        };
        c.reserved_ips.insert(1, kept);
        let update = told.update(Some(compose(&c)), []).unwrap();
        assert_eq!((update.base, update.generation), (Some(Generation(5)), Generation(6)));
        assert_eq!((update.reservations.put.len(), update.subnets), (1, None));
        c.reserved_ips.clear();
        let update = told.update(Some(compose(&c)), [(id, None)]).unwrap();
        assert_eq!((update.reservations.remove.len(), update.tickets.remove), (1, vec![id]));
    }
}
