//! The leases' laws: one holder per address, the order of choice, RFC 2131's answers, and that what is on disk is what was acknowledged.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use schema::plan::PlanSubnet;

use super::*;

struct Kept(Vec<(MacAddr, Ipv4Addr)>);

impl Reservations for Kept {
    fn of(&self, mac: MacAddr) -> Option<Ipv4Addr> {
        self.0.iter().find(|(m, _)| *m == mac).map(|(_, ip)| *ip)
    }

    fn holder(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        self.0.iter().find(|(_, i)| *i == ip).map(|(m, _)| *m)
    }
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// Dynamic addresses 10.0.0.`from` to `to`.
fn rules(version: u64, from: u8, to: u8, reserved: &[(u8, u8)]) -> Rules {
    let subnet: PlanSubnet = serde_json::from_value(serde_json::json!({
        "id": 1, "cidr": "10.0.0.0/24", "rack_address": "10.0.0.1",
        "dynamic": [{"start": ip(from), "end": ip(to)}]
    }))
    .unwrap();
    let reserved = reserved.iter().map(|(m, i)| (mac(*m), ip(*i))).collect();
    Rules { version, pool: Arc::new(Pool::of(&subnet, &[])), reservations: Arc::new(Kept(reserved)), shared: None }
}

fn ask(who: u8, want: Want) -> Ask {
    Ask { mac: mac(who), hostname: None, lease_s: 600, want, to: ReplyTo(Arc::new(())) }
}

/// A subnet under test: the core, and the rows that its hands would have on disk.
struct Yard {
    core: SubnetLeases,
    disk: HashMap<Ipv4Addr, Row>,
    now: Timestamp,
}

impl Yard {
    fn new() -> Self {
        Self {
            core: SubnetLeases::load(SubnetId(1), []),
            disk: HashMap::new(),
            now: Timestamp::from_seconds(1_000_000),
        }
    }

    fn ask(&mut self, rules: &Rules, who: u8, want: Want) -> Outcome {
        let ask = ask(who, want);
        if let Some(outcome) = self.core.settled(&ask, rules, self.now) {
            return outcome;
        }
        let batch = Batch { rules: rules.clone(), asks: vec![ask] };
        let step = self.core.step(&LeaseEvent::Asked(Arc::new(batch)), self.now);
        self.core = step.next.unwrap();
        let mut outcome = None;
        for effect in step.effects {
            match effect {
                LeaseEffect::Keep(row) | LeaseEffect::Copy(row) => drop(self.disk.insert(row.lease.ip, row)),
                LeaseEffect::Answer { outcome: said, .. } => outcome = Some(said),
            }
        }
        outcome.unwrap()
    }

    fn discover(&mut self, rules: &Rules, who: u8) -> Option<Ipv4Addr> {
        match self.ask(rules, who, Want::Offer { requested: None }) {
            Outcome::Offer { ip, .. } => Some(ip),
            Outcome::Full { .. } => None,
            other => panic!("{other:?}"),
        }
    }

    fn take(&mut self, rules: &Rules, who: u8, ip: Ipv4Addr) -> Outcome {
        self.ask(rules, who, Want::Take { ip })
    }

    fn dora(&mut self, rules: &Rules, who: u8) -> Ipv4Addr {
        let ip = self.discover(rules, who).unwrap();
        assert!(matches!(self.take(rules, who, ip), Outcome::Ack { ip: got, .. } if got == ip));
        ip
    }

    fn later(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn restart(&mut self) {
        self.core = SubnetLeases::load(SubnetId(1), self.disk.values().cloned());
    }
}

#[test]
fn the_order_of_choice_is_reservation_own_lease_wish_unused_least_recent() {
    let (mut yard, plain) = (Yard::new(), rules(1, 10, 13, &[]));
    assert_eq!(
        yard.ask(&plain, 1, Want::Offer { requested: Some(ip(12)) }),
        Outcome::Offer { ip: ip(12), lease_s: 600 }
    );
    assert_eq!(yard.take(&plain, 1, ip(12)), Outcome::Ack { ip: ip(12), lease_s: 600 });
    assert_eq!(yard.dora(&plain, 2), ip(10));
    assert_eq!(yard.dora(&plain, 3), ip(11));
    // Its own, long after it ended, whatever it wishes for now.
    yard.later(5_000);
    assert_eq!(
        yard.ask(&plain, 1, Want::Offer { requested: Some(ip(10)) }),
        Outcome::Offer { ip: ip(12), lease_s: 600 }
    );
    // What nobody ever had before what is longest unused.
    assert_eq!(yard.dora(&plain, 4), ip(13));
    assert_eq!(yard.dora(&plain, 5), ip(10), "the first that ended");
    assert_eq!(yard.dora(&plain, 6), ip(11));
    let kept = rules(2, 10, 13, &[(1, 50)]);
    assert_eq!(yard.dora(&kept, 1), ip(50));
    assert_eq!(yard.core.lease_of(mac(1), yard.now).unwrap().ip, ip(50));
}

#[test]
fn an_offer_stands_for_its_mac_and_for_nobody_else() {
    let (mut yard, rules) = (Yard::new(), rules(1, 10, 11, &[]));
    assert_eq!(yard.discover(&rules, 1), Some(ip(10)));
    assert_eq!(yard.discover(&rules, 2), Some(ip(11)));
    assert_eq!(yard.discover(&rules, 1), Some(ip(10)));
    assert_eq!(yard.discover(&rules, 3), None, "both are offered");
    assert!(matches!(yard.take(&rules, 3, ip(10)), Outcome::Nak { .. }));
    yard.later(OFFER_HOLD.as_secs() + 1);
    assert_eq!(yard.discover(&rules, 3), Some(ip(10)), "offers end");
    // RFC 2131 section 3.1, 4: the client took another server's offer.
    yard.ask(&rules, 3, Want::Elsewhere);
    assert_eq!(yard.discover(&rules, 4), Some(ip(11)));
    assert_eq!(yard.discover(&rules, 5), Some(ip(10)));
    assert!(yard.disk.is_empty(), "an offer is not durable");
}

#[test]
fn a_full_pool_says_what_to_do_and_recovers() {
    let (mut yard, small) = (Yard::new(), rules(1, 10, 11, &[]));
    yard.dora(&small, 1);
    yard.dora(&small, 2);
    match yard.ask(&small, 3, Want::Offer { requested: None }) {
        Outcome::Full { why, remedy } => {
            assert!(why.contains("all 2 addresses"), "{why}");
            assert!(remedy.contains("dynamic range"), "{remedy}");
        }
        other => panic!("{other:?}"),
    }
    let none = Rules { pool: Arc::default(), ..small.clone() };
    assert!(
        matches!(yard.ask(&none, 3, Want::Offer { requested: None }), Outcome::Full { why, .. } if why.contains("no dynamic range"))
    );
    // A wider range, then also a lower one, are found by the next packet.
    assert_eq!(yard.discover(&rules(2, 10, 12, &[]), 3), Some(ip(12)));
    assert_eq!(yard.discover(&rules(3, 9, 12, &[]), 4), Some(ip(9)));
}

#[test]
fn rfc_2131_4_3_2_requests() {
    let (mut yard, plain) = (Yard::new(), rules(1, 10, 20, &[(9, 15)]));
    let first = yard.dora(&plain, 1);
    // RENEWING, REBINDING and INIT-REBOOT name the address they have.
    yard.later(300);
    assert_eq!(yard.take(&plain, 1, first), Outcome::Ack { ip: first, lease_s: 600 });
    assert_eq!(yard.disk[&first].lease.expires, yard.now + Duration::from_secs(600));
    for (who, wanted, why) in [
        (2, first, "the address is in use"),
        (2, ip(200), "the address is not for you on this subnet"),
        (2, ip(15), "the address is not for you on this subnet"),
        (2, Ipv4Addr::new(192, 168, 0, 9), "the address is not for you on this subnet"),
        (9, ip(11), "another address is reserved for you"),
    ] {
        assert_eq!(yard.take(&plain, who, wanted), Outcome::Nak { why }, "{who} {wanted}");
    }
    // After the rack lost its table: a free address of the pool is given to who says it had it.
    let mut lost = Yard::new();
    assert_eq!(lost.take(&plain, 1, first), Outcome::Ack { ip: first, lease_s: 600 });
    // A lease that ended is renewed, unless somebody has the address by now.
    yard.later(10_000);
    assert!(matches!(yard.take(&plain, 1, first), Outcome::Ack { .. }));
}

#[test]
fn what_changes_nothing_is_answered_without_a_record() {
    let (mut yard, rules) = (Yard::new(), rules(1, 10, 20, &[]));
    let address = yard.dora(&rules, 1);
    let settled = |yard: &Yard, want| yard.core.settled(&ask(1, want), &rules, yard.now);
    assert_eq!(settled(&yard, Want::Offer { requested: None }), Some(Outcome::Offer { ip: address, lease_s: 600 }));
    yard.later(150);
    assert_eq!(settled(&yard, Want::Take { ip: address }), Some(Outcome::Ack { ip: address, lease_s: 450 }));
    yard.later(1);
    assert_eq!(settled(&yard, Want::Take { ip: address }), None, "three quarters of the lease must be left");
    let pxe = Ask { lease_s: 30, ..ask(1, Want::Take { ip: address }) };
    assert_eq!(yard.core.settled(&pxe, &rules, yard.now), Some(Outcome::Ack { ip: address, lease_s: 30 }));
    yard.later(600);
    assert_eq!(yard.core.settled(&pxe, &rules, yard.now), None);
}

#[test]
fn releases_and_declines() {
    let (mut yard, rules) = (Yard::new(), rules(1, 10, 11, &[]));
    let address = yard.dora(&rules, 1);
    assert_eq!(
        yard.ask(&rules, 2, Want::Release { ip: address }),
        Outcome::Silent { why: "a release of an address that the client does not hold" }
    );
    yard.ask(&rules, 1, Want::Release { ip: address });
    let row = &yard.disk[&address].lease;
    assert_eq!((row.expires, row.granted), (yard.now, yard.now));
    assert_eq!(yard.core.lease_of(mac(1), yard.now), None);
    assert_eq!(yard.discover(&rules, 1), Some(address), "it gets it again while nobody needs it");
    yard.dora(&rules, 1);
    // RFC 2131 section 4.3.3: somebody else uses it.
    yard.ask(&rules, 1, Want::Decline { ip: address });
    assert_eq!(yard.disk[&address].kind, Kind::Declined);
    assert_eq!(yard.dora(&rules, 1), ip(11));
    assert_eq!(yard.discover(&rules, 2), None);
    yard.restart();
    assert_eq!(yard.discover(&rules, 2), None, "a declined address stays declined over a restart");
    yard.later(DECLINE_HOLD.as_secs() + 1);
    assert!(yard.discover(&rules, 2).is_some());
    let before = yard.disk.len();
    yard.ask(&rules, 7, Want::Decline { ip: ip(11) });
    assert_eq!(yard.disk.len(), before, "only who was given an address may decline it");
}

#[test]
fn a_reservation_that_somebody_sits_on_is_given_when_he_leaves() {
    let (mut yard, before) = (Yard::new(), rules(1, 10, 20, &[]));
    let address = yard.dora(&before, 1);
    let after = rules(2, 10, 20, &[(2, address.octets()[3])]);
    let other = yard.dora(&after, 2);
    assert_ne!(other, address);
    yard.later(300);
    assert!(matches!(yard.take(&after, 1, address), Outcome::Nak { .. }), "who sits on it is sent away at its renewal");
    yard.later(400);
    assert!(matches!(yard.take(&after, 2, other), Outcome::Nak { why: "another address is reserved for you" }));
    assert_eq!(yard.dora(&after, 2), address);
}

#[derive(Debug, Clone)]
enum Act {
    Discover(u8, Option<u8>),
    Take(u8, u8),
    TakeOffered(u8),
    Elsewhere(u8),
    Release(u8),
    Decline(u8),
    Later(u64),
    Restart,
    Plan(u8, u8, Vec<(u8, u8)>),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0_u8..12;
    let address = 8_u8..24;
    prop_oneof![
        4 => (who.clone(), prop::option::of(address.clone())).prop_map(|(w, a)| Act::Discover(w, a)),
        4 => who.clone().prop_map(Act::TakeOffered),
        2 => (who.clone(), address.clone()).prop_map(|(w, a)| Act::Take(w, a)),
        1 => who.clone().prop_map(Act::Elsewhere),
        1 => who.clone().prop_map(Act::Release),
        1 => who.clone().prop_map(Act::Decline),
        2 => (0_u64..900).prop_map(Act::Later),
        1 => Just(Act::Restart),
        1 => (8_u8..14, 12_u8..20, prop::collection::btree_map(address, who, 0..3))
            .prop_map(|(from, to, kept)| Act::Plan(from, to, kept.into_iter().map(|(a, w)| (w, a)).collect())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever clients, time, plan and power do: an address acknowledged to one MAC is acknowledged to no other before that lease ends,
    /// and the disk holds every acknowledged lease.
    #[test]
    fn no_address_is_leased_twice(acts in prop::collection::vec(act(), 1..200)) {
        let mut yard = Yard::new();
        let mut plan = rules(1, 10, 15, &[]);
        // What clients believe: address to holder and end.
        let mut told: HashMap<Ipv4Addr, (MacAddr, Timestamp)> = HashMap::new();
        let mut offered: HashMap<u8, Ipv4Addr> = HashMap::new();
        for (version, act) in (2..).zip(acts) {
            let (who, want) = match act {
                Act::Later(seconds) => { yard.later(seconds); continue }
                Act::Restart => { yard.restart(); continue }
                Act::Plan(from, to, kept) => { plan = rules(version, from, to.max(from), &kept); continue }
                Act::Discover(who, wish) => (who, Want::Offer { requested: wish.map(ip) }),
                Act::Take(who, address) => (who, Want::Take { ip: ip(address) }),
                Act::TakeOffered(who) => match offered.get(&who) {
                    Some(address) => (who, Want::Take { ip: *address }),
                    None => continue,
                },
                Act::Elsewhere(who) => (who, Want::Elsewhere),
                Act::Release(who) => match told.iter().find(|(_, (m, end))| *m == mac(who) && *end > yard.now) {
                    Some((address, _)) => (who, Want::Release { ip: *address }),
                    None => continue,
                },
                Act::Decline(who) => match offered.get(&who) {
                    Some(address) => (who, Want::Decline { ip: *address }),
                    None => continue,
                },
            };
            let outcome = yard.ask(&plan, who, want);
            match (want, outcome) {
                (_, Outcome::Offer { ip, .. }) => {
                    prop_assert!(told.get(&ip).is_none_or(|(m, end)| *m == mac(who) || *end <= yard.now), "{ip} was offered while leased");
                    offered.insert(who, ip);
                }
                (Want::Take { ip: asked }, Outcome::Ack { ip, lease_s }) => {
                    prop_assert_eq!(asked, ip);
                    let own = plan.reservations.of(mac(who));
                    prop_assert!(plan.pool.contains(ip) || own == Some(ip), "{} is nobody's to give", ip);
                    if let Some((holder, end)) = told.get(&ip) {
                        prop_assert!(*holder == mac(who) || *end <= yard.now, "{ip} was leased twice");
                    }
                    let end = yard.now + Duration::from_secs(lease_s.into());
                    let row = &yard.disk[&ip];
                    prop_assert!(row.lease.mac == mac(who) && row.lease.expires >= end && row.kind == Kind::Bound);
                    // A client has one address on a subnet; taking another gives up the first.
                    told.retain(|_, (m, _)| *m != mac(who));
                    told.insert(ip, (mac(who), end));
                }
                (Want::Release { ip } | Want::Decline { ip }, _) => {
                    told.retain(|address, (m, _)| *address != ip || *m != mac(who));
                }
                _ => {}
            }
        }
        let running = yard.core.running(yard.now);
        for (address, (holder, end)) in told {
            if end > yard.now {
                prop_assert!(running.iter().any(|l| l.ip == address && l.mac == holder), "{address} of {holder} was forgotten");
            }
        }
    }
}
