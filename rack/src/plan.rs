//! The plan as packet servers read it: an immutable snapshot with its indexes, swapped whole. Keeping it on disk is the store's business.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use schema::{
    boot::{BodyRef, Sha256},
    id::{SubnetId, SystemId},
    net::MacAddr,
    plan::{Plan, PlanSubnet, Reservation, Ticket},
    time::Timestamp,
};

/// A plan with its indexes. Never changed after it is made.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub plan: Plan,
    tickets_by_mac: HashMap<MacAddr, usize>,
    tickets_by_machine: HashMap<SystemId, usize>,
    tickets_by_token: HashMap<String, usize>,
    reservations: HashMap<(SubnetId, MacAddr), usize>,
    reserved: HashMap<Ipv4Addr, MacAddr>,
    boot_files: HashMap<String, BodyRef>,
    bodies: HashMap<Sha256, BodyRef>,
    /// Those of `bodies` that any machine may fetch by hash: image files and boot files, never user-data or scripts.
    public: HashMap<Sha256, BodyRef>,
}

impl Snapshot {
    /// The plan with its indexes. Where a MAC or a name stands twice, the later row wins.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut snapshot = Self { plan, ..Self::default() };
        for (i, ticket) in snapshot.plan.tickets.iter().enumerate() {
            snapshot.tickets_by_machine.insert(ticket.machine, i);
            snapshot.tickets_by_mac.extend(ticket.macs.iter().map(|mac| (*mac, i)));
            if let Some(boot) = &ticket.boot {
                snapshot.tickets_by_token.insert(boot.key.token_key.clone(), i);
                let image =
                    [Some(boot.image.kernel), Some(boot.image.initrd), boot.image.squashfs, Some(boot.user_data)];
                snapshot.public.extend(image.iter().take(3).flatten().map(|b| (b.sha256, *b)));
                let scripts = boot.scripts.iter().map(|s| s.body);
                snapshot.bodies.extend(image.into_iter().flatten().chain(scripts).map(|b| (b.sha256, b)));
            }
        }
        for (i, reservation) in snapshot.plan.reservations.iter().enumerate() {
            snapshot.reservations.insert((reservation.subnet, reservation.mac), i);
            snapshot.reserved.insert(reservation.ip, reservation.mac);
        }
        for file in &snapshot.plan.boot_files {
            snapshot.boot_files.insert(file.name.clone(), file.body);
            snapshot.bodies.insert(file.body.sha256, file.body);
            snapshot.public.insert(file.body.sha256, file.body);
        }
        snapshot
    }

    /// The ticket of the machine with that MAC, unless it is void at `now`.
    #[must_use]
    pub fn ticket_by_mac(&self, mac: MacAddr, now: Timestamp) -> Option<&Ticket> {
        self.plan.tickets.get(*self.tickets_by_mac.get(&mac)?).filter(|t| t.expires > now)
    }

    /// The ticket of that machine, unless it is void at `now`.
    #[must_use]
    pub fn ticket(&self, machine: SystemId, now: Timestamp) -> Option<&Ticket> {
        self.plan.tickets.get(*self.tickets_by_machine.get(&machine)?).filter(|t| t.expires > now)
    }

    /// The ticket whose node key has that token, unless it is void at `now`. The token names the key; its secret is still to be compared.
    #[must_use]
    pub fn ticket_by_token(&self, token_key: &str, now: Timestamp) -> Option<&Ticket> {
        self.plan.tickets.get(*self.tickets_by_token.get(token_key)?).filter(|t| t.expires > now)
    }

    /// The address kept for that MAC on that subnet.
    #[must_use]
    pub fn reservation(&self, subnet: SubnetId, mac: MacAddr) -> Option<&Reservation> {
        self.plan.reservations.get(*self.reservations.get(&(subnet, mac))?)
    }

    /// For whom that address is kept.
    #[must_use]
    pub fn reserved_for(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        self.reserved.get(&ip).copied()
    }

    /// The subnet that holds that address.
    #[must_use]
    pub fn subnet_of(&self, address: IpAddr) -> Option<&PlanSubnet> {
        self.plan.subnets.iter().find(|s| s.cidr.contains(address))
    }

    /// The boot file of that name (no leading slash).
    #[must_use]
    pub fn boot_file(&self, name: &str) -> Option<BodyRef> {
        self.boot_files.get(name).copied()
    }

    /// A body that the plan names, by its hash; `None` for every other hash.
    #[must_use]
    pub fn body(&self, sha256: Sha256) -> Option<BodyRef> {
        self.bodies.get(&sha256).copied()
    }

    /// A file of an image, or a boot file, by its hash: what any machine may fetch. `None` for user-data, scripts and every other hash.
    #[must_use]
    pub fn public_body(&self, sha256: Sha256) -> Option<BodyRef> {
        self.public.get(&sha256).copied()
    }

    /// Every body that the plan names.
    pub fn bodies(&self) -> impl Iterator<Item = BodyRef> + '_ {
        self.bodies.values().copied()
    }
}

/// The plan in force. Cloned freely; reading takes no lock.
#[derive(Debug, Clone, Default)]
pub struct PlanHandle(Arc<ArcSwap<Snapshot>>);

impl PlanHandle {
    /// A handle that starts with `plan`.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Snapshot::new(plan))))
    }

    /// The snapshot in force now.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Puts `plan` in force. The caller has made it durable.
    pub fn store(&self, plan: Plan) {
        self.0.store(Arc::new(Snapshot::new(plan)));
    }
}
