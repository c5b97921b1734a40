//! The plan's snapshot: whatever updates come, in whatever order, it answers as one that was made of the whole plan at once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rack::plan::Snapshot;
use schema::{
    boot::{BodyRef, BootFile, Sha256},
    id::{Generation, SubnetId, SystemId},
    messages::link::PlanUpdate,
    net::MacAddr,
    plan::{Plan, Reservation, Ticket},
    time::Timestamp,
};

const NOW: Timestamp = Timestamp(1_000);

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

fn body(n: u8) -> BodyRef {
    BodyRef { sha256: Sha256::of(&[n]), len: 1 }
}

fn machine(n: u8) -> SystemId {
    SystemId::from_draws([n; 6])
}

prop_compose! {
    fn tickets()(n in 0_u8..6, macs in prop::collection::vec(0_u8..8, 0..3), bodies in prop::array::uniform3(0_u8..6), boots in any::<bool>(), void in any::<bool>()) -> Ticket {
        let mut ticket = super::state::ticket(machine(n).as_str(), u32::from(n));
        ticket.macs = macs.into_iter().map(mac).collect();
        ticket.expires = if void { NOW } else { Timestamp(2_000) };
        match ticket.boot.as_mut().filter(|_| boots) {
            Some(boot) => {
                (boot.image.kernel, boot.image.initrd, boot.user_data) = (body(bodies[0]), body(bodies[1]), body(bodies[2]));
                boot.key.token_key = format!("token-{n}-{}", bodies[0]);
            }
            None => ticket.boot = None,
        }
        ticket
    }
}

prop_compose! {
    fn reservations()(subnet in 1_i64..3, n in 0_u8..8, last in 0_u8..8) -> Reservation {
        Reservation { subnet: SubnetId(subnet), mac: mac(n), ip: [10, 0, 0, last].into(), hostname: None }
    }
}

prop_compose! {
    fn updates()(
        whole in prop::bool::weighted(0.1),
        replace in (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        put in (prop::collection::vec(reservations(), 0..3), prop::collection::vec(tickets(), 0..3)),
        remove in (prop::collection::vec(0_u8..8, 0..2), prop::collection::vec(0_u8..6, 0..2)),
        files in prop::option::weighted(0.2, prop::collection::vec(0_u8..6, 0..3)),
    ) -> PlanUpdate {
        let base = (!whole).then_some(Generation(1));
        let mut update = PlanUpdate::empty(base, Generation(2));
        (update.reservations.replace, update.tickets.replace) = replace;
        (update.reservations.put, update.tickets.put) = put;
        update.reservations.remove = remove.0.into_iter().map(mac).collect();
        update.tickets.remove = remove.1.into_iter().map(machine).collect();
        update.boot_files = files.map(|f| f.into_iter().map(|n| BootFile { name: format!("file-{n}"), body: body(n) }).collect());
        update
    }
}

/// The plan by plain maps: what an update means.
#[derive(Default)]
struct Model {
    reservations: BTreeMap<(MacAddr, SubnetId), Reservation>,
    tickets: BTreeMap<SystemId, Ticket>,
    boot_files: Vec<BootFile>,
}

impl Model {
    fn take(&mut self, update: PlanUpdate) {
        if update.base.is_none() {
            *self = Self::default();
        }
        if update.reservations.replace {
            self.reservations.clear();
        }
        if update.tickets.replace {
            self.tickets.clear();
        }
        self.reservations.retain(|(mac, _), _| !update.reservations.remove.contains(mac));
        self.reservations.extend(update.reservations.put.into_iter().map(|r| ((r.mac, r.subnet), r)));
        self.tickets.retain(|machine, _| !update.tickets.remove.contains(machine));
        self.tickets.extend(update.tickets.put.into_iter().map(|t| (t.machine, t)));
        self.boot_files = update.boot_files.unwrap_or(std::mem::take(&mut self.boot_files));
    }

    fn plan(&self) -> Plan {
        Plan {
            reservations: self.reservations.values().cloned().collect(),
            tickets: self.tickets.values().cloned().collect(),
            boot_files: self.boot_files.clone(),
            ..Plan::default()
        }
    }
}

/// All that a server may ask of it.
fn answers(snapshot: &Snapshot) -> String {
    let by_mac = (0..8).map(|n| snapshot.ticket_by_mac(mac(n), NOW).cloned());
    let by_machine = (0..6).map(|n| snapshot.ticket(machine(n), NOW).cloned());
    let tokens = (0..6).flat_map(|n| (0..6).map(move |b| format!("token-{n}-{b}")));
    let by_token = tokens.map(|token| snapshot.ticket_by_token(&token, NOW).map(|t| t.machine));
    let reserved = (0..8).map(|n| snapshot.reserved_for([10, 0, 0, n].into()));
    let kept = (1..3).flat_map(|s| (0..8).map(move |n| (SubnetId(s), mac(n))));
    let kept = kept.map(|(subnet, mac)| snapshot.reservation(subnet, mac).cloned());
    let bodies = (0..6).map(|n| (snapshot.body(body(n).sha256), snapshot.public_body(body(n).sha256)));
    let files = (0..6).map(|n| snapshot.boot_file(&format!("file-{n}")));
    let mut all: Vec<_> = snapshot.bodies().map(|b| b.sha256).collect();
    all.sort_unstable();
    all.dedup();
    let lists = [
        format!("{:?}", by_mac.collect::<Vec<_>>()),
        format!("{:?}", by_machine.collect::<Vec<_>>()),
        format!("{:?}", by_token.collect::<Vec<_>>()),
        format!("{:?}", reserved.collect::<Vec<_>>()),
        format!("{:?}", kept.collect::<Vec<_>>()),
        format!("{:?}", bodies.collect::<Vec<_>>()),
        format!("{:?}", files.collect::<Vec<_>>()),
        format!("{all:?}"),
        format!("{:?}", snapshot.tickets().map(|t| t.machine).collect::<Vec<_>>()),
    ];
    lists.join("\n")
}

proptest! {
    #[test]
    fn plan_snapshot_by_rows_answers_as_one_of_the_whole_plan(all in prop::collection::vec(updates(), 1..12)) {
        let (mut snapshot, mut model) = (Snapshot::default(), Model::default());
        for update in all {
            let (before, said) = (snapshot.clone(), answers(&snapshot));
            snapshot = snapshot.after(update.clone());
            model.take(update);
            prop_assert_eq!(answers(&snapshot), answers(&Snapshot::new(model.plan())));
            prop_assert_eq!(answers(&before), said, "an older snapshot does not change");
        }
    }
}
