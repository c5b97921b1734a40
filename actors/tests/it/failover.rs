//! Two racks on one subnet, their region and their clients, in any order of loss, partition, delay and restart: no address is held by two.
//!
//! What is left open on purpose, so that the law does not lean on it: which rack hears and answers whom (either may, at any time), whether a
//! rack takes the other for lost, and the racks' clocks, which differ by minutes. What is assumed: a host that uses an address answers a probe.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use actors::{
    core::Core,
    leases::{
        Ask, Batch, LeaseEffect, LeaseEvent, Outcome, Pool, ReplyTo, Reservations, Row, Rules, Shared, SubnetLeases,
        Want,
    },
    subnet::{Subnet, SubnetEffect, SubnetEvent},
};
use proptest::prelude::*;
use schema::{
    id::{RackId, SubnetId},
    net::MacAddr,
    plan::{Lease, PlanSubnet},
    time::Timestamp,
};

const SUBNET: SubnetId = SubnetId(1);
const LEASE: Duration = Duration::from_secs(600);
/// Addresses of each half.
const HALF: u8 = 3;

/// The last MAC has a reservation in the first rack's half, the one before it outside both.
struct Kept;

impl Reservations for Kept {
    fn of(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        [(mac_of(7), ip(10)), (mac_of(6), ip(100))].into_iter().find(|(m, _)| *m == mac).map(|(_, ip)| ip)
    }

    fn holder(&self, wanted: Ipv4Addr) -> Option<MacAddr> {
        [(mac_of(7), ip(10)), (mac_of(6), ip(100))].into_iter().find(|(_, i)| *i == wanted).map(|(mac, _)| mac)
    }
}

fn mac_of(n: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, u8::try_from(n).unwrap()])
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn rack_id(n: usize) -> RackId {
    RackId::from_draws([u8::try_from(n).unwrap(); 6])
}

fn half(n: usize) -> Arc<Pool> {
    let first = 10 + HALF * u8::try_from(n).unwrap();
    let subnet: PlanSubnet = serde_json::from_value(serde_json::json!({
        "id": 1, "cidr": "10.0.0.0/24", "dynamic": [{"start": ip(first), "end": ip(first + HALF - 1)}]
    }))
    .unwrap();
    Arc::new(Pool::of(&subnet, &[]))
}

/// What goes over a rack's link, each way in order.
#[derive(Debug, Clone)]
enum Word {
    Leases(Vec<Lease>),
    Through(Timestamp),
}

struct Rack {
    up: bool,
    /// Its clock is ahead by so much, in microseconds.
    ahead: i64,
    core: SubnetLeases,
    disk: BTreeMap<Ipv4Addr, Row>,
    since: Timestamp,
    heard: Option<Timestamp>,
    linked: bool,
    to_region: VecDeque<Word>,
    from_region: VecDeque<Word>,
    /// Whether the region has said the whole table on this connection.
    tabled: bool,
}

#[derive(Debug, Clone)]
struct Client {
    /// The address it uses, who gave it, and until when by the true clock.
    lease: Option<(Ipv4Addr, usize, Timestamp)>,
}

struct World {
    now: Timestamp,
    racks: [Rack; 2],
    region: Subnet,
    through: HashMap<usize, Timestamp>,
    clients: Vec<Client>,
}

#[derive(Debug, Clone)]
enum Act {
    /// A client without an address asks; these racks answer, and it takes the offer of the first or of the second.
    Dora {
        who: usize,
        answer: [bool; 2],
        second: bool,
        lost: [bool; 2],
    },
    /// It renews; these racks hear it.
    Renew {
        who: usize,
        answer: [bool; 2],
        lost: [bool; 2],
    },
    /// It starts again and remembers its address; these racks hear it, and the answer of the first or of the second counts.
    Reboot {
        who: usize,
        answer: [bool; 2],
        second: bool,
        lost: [bool; 2],
    },
    Release {
        who: usize,
    },
    /// It is gone without a word.
    Vanish {
        who: usize,
    },
    Later(u64),
    Crash(usize),
    Start(usize),
    Link(usize, bool),
    /// So many words of a link arrive.
    Deliver {
        rack: usize,
        up: usize,
        down: usize,
    },
    /// The rack says up to when it has told all.
    Tell(usize),
}

fn acts() -> impl Strategy<Value = Act> {
    let (who, rack, flags) = (0_usize..8, 0_usize..2, any::<[bool; 2]>());
    prop_oneof![
        12 => (who.clone(), flags, any::<bool>(), flags)
            .prop_map(|(who, answer, second, lost)| Act::Dora { who, answer, second, lost }),
        12 => (who.clone(), flags, flags).prop_map(|(who, answer, lost)| Act::Renew { who, answer, lost }),
        3 => (who.clone(), flags, any::<bool>(), flags)
            .prop_map(|(who, answer, second, lost)| Act::Reboot { who, answer, second, lost }),
        1 => who.clone().prop_map(|who| Act::Release { who }),
        1 => who.clone().prop_map(|who| Act::Vanish { who }),
        8 => (0_u64..400).prop_map(Act::Later),
        1 => rack.clone().prop_map(Act::Crash),
        2 => rack.clone().prop_map(Act::Start),
        1 => rack.clone().prop_map(|rack| Act::Link(rack, false)),
        3 => rack.clone().prop_map(|rack| Act::Link(rack, true)),
        8 => (rack.clone(), 0_usize..4, 0_usize..4).prop_map(|(rack, up, down)| Act::Deliver { rack, up, down }),
        4 => rack.prop_map(Act::Tell),
    ]
}

impl World {
    fn new(ahead: i64) -> Self {
        let now = Timestamp::from_seconds(1_000_000);
        let rack = |ahead| Rack {
            up: true,
            ahead,
            core: SubnetLeases::load(SUBNET, []),
            disk: BTreeMap::new(),
            since: Timestamp(now.0 + ahead),
            heard: None,
            linked: false,
            to_region: VecDeque::new(),
            from_region: VecDeque::new(),
            tabled: false,
        };
        let clients = vec![Client { lease: None }; 8];
        let racks = [rack(0), rack(ahead)];
        Self { now, racks, region: Subnet::empty(SUBNET), through: HashMap::new(), clients }
    }

    fn clock(&self, rack: usize) -> Timestamp {
        Timestamp(self.now.0 + self.racks[rack].ahead)
    }

    fn rules(&self, rack: usize, lost: bool) -> Rules {
        let Rack { heard, since, .. } = self.racks[rack];
        let shared = Shared { others: half(1 - rack), heard, since, lost };
        Rules { version: 1, pool: half(rack), reservations: Arc::new(Kept), shared: Some(shared) }
    }

    /// One event of a rack's core: what is durable, and what it tells the region.
    fn step(&mut self, rack: usize, event: &LeaseEvent) -> Option<Outcome> {
        let now = self.clock(rack);
        let rack = &mut self.racks[rack];
        let step = rack.core.step(event, now);
        rack.core = step.next.unwrap();
        let (mut said, mut told) = (None, Vec::new());
        for effect in step.effects {
            match effect {
                LeaseEffect::Keep(row) => {
                    told.push(row.lease.clone());
                    rack.disk.insert(row.lease.ip, row);
                }
                LeaseEffect::Copy(row) => drop(rack.disk.insert(row.lease.ip, row)),
                LeaseEffect::Answer { outcome, .. } => said = Some(outcome),
            }
        }
        if rack.linked && !told.is_empty() {
            rack.to_region.push_back(Word::Leases(told));
        }
        said
    }

    /// A client's packet at a rack, with the probes that its answer takes.
    fn ask(&mut self, rack: usize, who: usize, want: Want, lost: bool) -> Option<Outcome> {
        if !self.racks[rack].up {
            return None;
        }
        let lease_s = u32::try_from(LEASE.as_secs()).unwrap();
        let ask = Ask { mac: mac_of(who), hostname: None, lease_s, want, to: ReplyTo(Arc::new(())) };
        let rules = self.rules(rack, lost);
        if let Some(outcome) = self.racks[rack].core.settled(&ask, &rules, self.clock(rack)) {
            return Some(outcome);
        }
        let batch = Batch { rules: rules.clone(), asks: vec![ask.clone()] };
        let mut outcome = self.step(rack, &LeaseEvent::Asked(Arc::new(batch)))?;
        while let Outcome::Probe { ip } = outcome {
            let user = self.holders(ip).next().map(mac_of);
            outcome = self.step(rack, &LeaseEvent::Probed { rules: rules.clone(), ask: ask.clone(), ip, user })?;
        }
        Some(outcome)
    }

    /// Who uses that address now.
    fn holders(&self, ip: Ipv4Addr) -> impl Iterator<Item = usize> + '_ {
        let uses = move |c: &Client| c.lease.is_some_and(|(held, _, until)| held == ip && until > self.now);
        self.clients.iter().enumerate().filter(move |(_, c)| uses(c)).map(|(who, _)| who)
    }

    fn answered(&mut self, who: usize, rack: usize, outcome: Option<Outcome>) {
        match outcome {
            Some(Outcome::Ack { ip, lease_s }) => {
                self.clients[who].lease = Some((ip, rack, self.now + Duration::from_secs(lease_s.into())));
            }
            Some(Outcome::Nak { .. }) => self.clients[who].lease = None,
            _ => {}
        }
    }

    fn dora(&mut self, who: usize, answer: [bool; 2], second: bool, lost: [bool; 2]) {
        if self.clients[who].lease.is_some_and(|(_, _, until)| until > self.now) {
            return;
        }
        let mut offers = Vec::new();
        for rack in [0, 1].into_iter().filter(|rack| answer[*rack]) {
            if let Some(Outcome::Offer { ip, .. }) = self.ask(rack, who, Want::Offer { requested: None }, lost[rack]) {
                offers.push((rack, ip));
            }
        }
        let chosen = if second { offers.last() } else { offers.first() };
        let Some((rack, ip)) = chosen.copied() else { return };
        let outcome = self.ask(rack, who, Want::Take { ip }, lost[rack]);
        if answer[1 - rack] {
            self.ask(1 - rack, who, Want::Chosen { ip }, lost[1 - rack]);
        }
        self.answered(who, rack, outcome);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Dora { who, answer, second, lost } => self.dora(who, answer, second, lost),
            Act::Renew { who, answer, lost } => {
                for rack in [0, 1].into_iter().filter(|rack| answer[*rack]) {
                    let Some((ip, ..)) = self.clients[who].lease.filter(|(_, _, until)| *until > self.now) else {
                        return;
                    };
                    let outcome = self.ask(rack, who, Want::Renew { ip }, lost[rack]);
                    self.answered(who, rack, outcome);
                }
            }
            Act::Reboot { who, answer, second, lost } => {
                let Some((ip, ..)) = self.clients[who].lease else { return };
                let heard = [0, 1].into_iter().filter(|rack| answer[*rack]);
                let mut said: Vec<_> =
                    heard.map(|rack| (rack, self.ask(rack, who, Want::Reboot { ip }, lost[rack]))).collect();
                said.retain(|(_, o)| matches!(o, Some(Outcome::Ack { .. } | Outcome::Nak { .. })));
                if second {
                    said.reverse();
                }
                if let Some((rack, outcome)) = said.into_iter().next() {
                    self.answered(who, rack, outcome);
                }
            }
            Act::Release { who } => {
                let Some((ip, server, _)) = self.clients[who].lease.take().filter(|(_, _, until)| *until > self.now)
                else {
                    return;
                };
                self.ask(server, who, Want::Release { ip }, false);
            }
            Act::Vanish { who } => self.clients[who].lease = None,
            Act::Later(seconds) => self.now = self.now + Duration::from_secs(seconds),
            Act::Crash(rack) => {
                self.link(rack, false);
                self.racks[rack].up = false;
            }
            Act::Start(rack) if !self.racks[rack].up => {
                let now = self.clock(rack);
                let rack = &mut self.racks[rack];
                (rack.up, rack.since, rack.heard) = (true, now, None);
                rack.core = SubnetLeases::load(SUBNET, rack.disk.values().cloned());
            }
            Act::Start(_) => {}
            Act::Link(rack, up) => self.link(rack, up),
            Act::Deliver { rack, up, down } => {
                for _ in 0..up {
                    self.at_region(rack);
                }
                for _ in 0..down {
                    self.at_rack(rack);
                }
            }
            Act::Tell(rack) => {
                let now = self.clock(rack);
                if self.racks[rack].linked {
                    self.racks[rack].to_region.push_back(Word::Through(now));
                }
            }
        }
    }

    /// A link comes up with the rack's own leases that run, or goes down with all that was on it.
    fn link(&mut self, rack: usize, up: bool) {
        let now = self.clock(rack);
        let rack = &mut self.racks[rack];
        if rack.linked == up || (up && !rack.up) {
            return;
        }
        rack.linked = up;
        rack.tabled = false;
        rack.to_region.clear();
        rack.from_region.clear();
        if up {
            rack.to_region.push_back(Word::Leases(rack.core.granted_here(now)));
        }
    }

    fn at_region(&mut self, rack: usize) {
        let region = self.now;
        if self.racks[rack].linked && !self.racks[rack].tabled {
            // What the region knows of the other's telling is read before the table that must hold it.
            let through = self.through.get(&(1 - rack)).copied();
            let table = self.region.leases.values().cloned().collect();
            let rack = &mut self.racks[rack];
            rack.from_region.push_back(Word::Leases(table));
            rack.from_region.extend(through.map(Word::Through));
            rack.tabled = true;
        }
        let Some(word) = self.racks[rack].to_region.pop_front() else { return };
        let to_other = match word {
            Word::Leases(leases) => {
                let step = self.region.step(&SubnetEvent::Leases { leases, from: Some(rack_id(rack)) }, region);
                let Some(next) = step.next else { return };
                self.region = next;
                let copy = step.effects.into_iter().find_map(|e| match e {
                    SubnetEffect::Copy { leases, .. } => Some(leases),
                    SubnetEffect::StoreLease(_) => None,
                });
                Word::Leases(copy.unwrap())
            }
            Word::Through(through) => {
                self.through.insert(rack, through);
                Word::Through(through)
            }
        };
        let other = &mut self.racks[1 - rack];
        if other.linked && other.tabled {
            other.from_region.push_back(to_other);
        }
    }

    fn at_rack(&mut self, rack: usize) {
        match self.racks[rack].from_region.pop_front() {
            Some(Word::Leases(leases)) => drop(self.step(rack, &LeaseEvent::Copied(Arc::new(leases)))),
            Some(Word::Through(through)) => self.racks[rack].heard = self.racks[rack].heard.max(Some(through)),
            None => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn failover_never_leaves_an_address_with_two(
        ahead in -300_000_000_i64..300_000_000,
        all in prop::collection::vec(acts(), 1..250),
    ) {
        let mut world = World::new(ahead);
        for rack in [0, 1] {
            world.act(Act::Link(rack, true));
            world.act(Act::Deliver { rack, up: 1, down: 1 });
        }
        for act in all {
            world.act(act.clone());
            for last in (10..10 + 2 * HALF).chain([100]) {
                let users: Vec<_> = world.holders(ip(last)).collect();
                prop_assert!(users.len() <= 1, "{} is used by clients {users:?} after {act:?}", ip(last));
            }
        }
    }
}

/// The story of the issue: the first rack is lost, the second serves with what it knows, the first comes back.
#[test]
fn failover_and_hand_back() {
    let mut world = World::new(0);
    let both = [false, false];
    for rack in [0, 1] {
        world.act(Act::Link(rack, true));
        world.act(Act::Deliver { rack, up: 9, down: 9 });
    }
    world.act(Act::Later(60));
    for rack in [0, 1] {
        world.act(Act::Tell(rack));
        world.act(Act::Deliver { rack, up: 9, down: 0 });
    }
    for rack in [0, 1] {
        world.act(Act::Deliver { rack, up: 0, down: 9 });
    }
    world.act(Act::Dora { who: 0, answer: [true, false], second: false, lost: both });
    let (first, server, _) = world.clients[0].lease.unwrap();
    assert_eq!((first, server), (ip(11), 0), "10 is reserved");
    world.act(Act::Deliver { rack: 0, up: 9, down: 0 });
    world.act(Act::Deliver { rack: 1, up: 0, down: 9 });
    world.act(Act::Crash(0));
    world.act(Act::Later(400));
    // It renews what it knows, and gives new leases from its own half.
    world.act(Act::Renew { who: 0, answer: [true, true], lost: [false, true] });
    let (address, server, until) = world.clients[0].lease.unwrap();
    assert_eq!((address, server, until), (first, 1, world.now + LEASE));
    world.act(Act::Dora { who: 1, answer: [false, true], second: false, lost: [false, true] });
    assert_eq!(world.clients[1].lease.unwrap().0, ip(13));
    // The first is back; before it has the copies, the address is not taken for free.
    world.act(Act::Later(200));
    world.act(Act::Start(0));
    for who in [2, 3] {
        world.act(Act::Dora { who, answer: [true, false], second: false, lost: both });
    }
    assert_eq!(world.clients[2].lease.unwrap().0, ip(12));
    assert_eq!(world.clients[3].lease, None, "the half is full: the probe found client 0 on {first}");
    world.act(Act::Link(0, true));
    world.act(Act::Deliver { rack: 1, up: 9, down: 0 });
    world.act(Act::Deliver { rack: 0, up: 9, down: 9 });
    assert!(world.racks[0].core.lease_of(mac_of(1), world.now).is_some(), "the copies are here");
}

/// Found by the law above: a copy is no permit for a client that does not use its address. The owner may have given it away by a probe.
#[test]
fn failover_offers_no_copied_address_that_somebody_uses() {
    let mut world = World::new(-104_000_000);
    for rack in [0, 1] {
        world.act(Act::Link(rack, true));
        world.act(Act::Deliver { rack, up: 1, down: 1 });
    }
    let first = |who| Act::Dora { who, answer: [true, false], second: false, lost: [false, false] };
    world.act(first(1));
    world.act(Act::Deliver { rack: 0, up: 1, down: 0 });
    world.act(Act::Deliver { rack: 1, up: 0, down: 1 });
    world.act(Act::Later(465));
    world.act(first(2));
    // By the first rack's clock the lease of client 1 is over; by the second's, which is behind, it runs.
    world.act(Act::Later(136));
    world.act(first(3));
    assert_eq!(world.clients[3].lease.unwrap().0, ip(11), "given away after a probe");
    world.act(Act::Dora { who: 1, answer: [false, true], second: false, lost: [false, false] });
    assert_eq!(world.clients[1].lease.unwrap().0, ip(13), "of the second rack's own half");
}
