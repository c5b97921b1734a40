//! The plan as packet servers read it: an immutable snapshot with its indexes. A change costs what changed: the next snapshot shares the rest
//! with the last. Keeping the plan on disk is the store's business.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use actors::{dns::Zones, sorted::Sorted};
use arc_swap::ArcSwap;
use schema::{
    boot::{BodyRef, BootFile, Sha256},
    id::{Generation, SubnetId, SystemId},
    messages::link::PlanUpdate,
    net::MacAddr,
    plan::{Plan, PlanSettings, PlanSubnet, Reservation, Ticket},
    time::Timestamp,
};

/// A plan with its indexes. Never changed after it is made.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What is not kept by rows.
    pub plan: Head,
    boot_files: Arc<Files>,
    tickets: Sorted<SystemId, Arc<Ticket>>,
    tickets_by_mac: Sorted<(MacAddr, SystemId), ()>,
    tickets_by_token: Sorted<Arc<str>, SystemId>,
    reservations: Sorted<(MacAddr, SubnetId), Arc<Reservation>>,
    reserved: Sorted<(Ipv4Addr, SubnetId, MacAddr), ()>,
    bodies: Sorted<Sha256, Named>,
    zones: Zones,
}

/// The parts of a plan that are replaced whole.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// 0: no region gave it (a plan file).
    pub generation: Generation,
    pub settings: Arc<PlanSettings>,
    pub subnets: Arc<Vec<PlanSubnet>>,
    /// Boot loaders by the name firmware asks for.
    pub boot_files: Arc<Vec<BootFile>>,
}

/// The boot files' indexes.
#[derive(Debug, Default)]
struct Files {
    by_name: HashMap<String, BodyRef>,
    by_hash: HashMap<Sha256, BodyRef>,
}

/// A body, and how many times tickets name it.
#[derive(Debug, Clone)]
struct Named {
    body: BodyRef,
    /// As a file of an image, which any machine may fetch.
    public: u32,
    /// As user-data or a script.
    private: u32,
}

impl Snapshot {
    /// The plan with its indexes. Where a row stands twice, the later one wins.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self::default().after(PlanUpdate::from(plan))
    }

    /// The snapshot after an update that fits this one.
    #[must_use]
    pub fn after(&self, update: PlanUpdate) -> Self {
        let mut next = if update.base.is_none() { Self::default() } else { self.clone() };
        next.plan.generation = update.generation;
        if let Some(settings) = update.settings {
            next.plan.settings = Arc::new(settings);
        }
        if let Some(subnets) = update.subnets {
            next.plan.subnets = Arc::new(subnets);
        }
        if let Some(files) = update.boot_files {
            next.boot_files = Arc::new(Files {
                by_name: files.iter().map(|f| (f.name.clone(), f.body)).collect(),
                by_hash: files.iter().map(|f| (f.body.sha256, f.body)).collect(),
            });
            next.plan.boot_files = Arc::new(files);
        }
        if update.reservations.replace {
            (next.reservations, next.reserved) = Default::default();
        }
        for mac in update.reservations.remove {
            next.remove_reservations(mac);
        }
        for reservation in update.reservations.put {
            next.put_reservation(reservation);
        }
        if update.tickets.replace {
            (next.tickets, next.tickets_by_mac, next.tickets_by_token) = Default::default();
            next.bodies = Sorted::default();
        }
        for machine in update.tickets.remove {
            next.remove_ticket(machine);
        }
        for ticket in update.tickets.put {
            next.put_ticket(ticket);
        }
        next.zones.apply(&update.zones, &update.records);
        next
    }

    /// What DNS answers by itself.
    #[must_use]
    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    fn put_reservation(&mut self, reservation: Reservation) {
        let Reservation { subnet, mac, ip, .. } = reservation;
        if let Some(old) = self.reservations.insert((mac, subnet), Arc::new(reservation)) {
            self.reserved.remove(&(old.ip, subnet, mac));
        }
        self.reserved.insert((ip, subnet, mac), ());
    }

    /// Those of a MAC on every subnet.
    fn remove_reservations(&mut self, mac: MacAddr) {
        let of_mac = self.reservations.iter_from(&(mac, SubnetId(i64::MIN))).take_while(|((m, _), _)| *m == mac);
        let gone: Vec<_> = of_mac.map(|((_, subnet), r)| (*subnet, r.ip)).collect();
        for (subnet, ip) in gone {
            self.reservations.remove(&(mac, subnet));
            self.reserved.remove(&(ip, subnet, mac));
        }
    }

    fn put_ticket(&mut self, ticket: Ticket) {
        self.remove_ticket(ticket.machine);
        for mac in &ticket.macs {
            self.tickets_by_mac.insert((*mac, ticket.machine), ());
        }
        if let Some(boot) = &ticket.boot {
            self.tickets_by_token.insert(boot.key.token_key.as_str().into(), ticket.machine);
        }
        for (body, public) in named(&ticket) {
            let known = self.bodies.get(&body.sha256).cloned();
            let mut named = known.unwrap_or(Named { body, public: 0, private: 0 });
            named.count(public, 1);
            self.bodies.insert(body.sha256, named);
        }
        self.tickets.insert(ticket.machine, Arc::new(ticket));
    }

    fn remove_ticket(&mut self, machine: SystemId) {
        let Some(ticket) = self.tickets.remove(&machine) else { return };
        for mac in &ticket.macs {
            self.tickets_by_mac.remove(&(*mac, machine));
        }
        if let Some(boot) = &ticket.boot
            && self.tickets_by_token.get(boot.key.token_key.as_str()) == Some(&machine)
        {
            self.tickets_by_token.remove(boot.key.token_key.as_str());
        }
        for (body, public) in named(&ticket) {
            let Some(mut named) = self.bodies.remove(&body.sha256) else { continue };
            named.count(public, -1);
            if named.public + named.private > 0 {
                self.bodies.insert(body.sha256, named);
            }
        }
    }

    /// Every ticket, void ones too, in the order of machines.
    pub fn tickets(&self) -> impl Iterator<Item = &Arc<Ticket>> {
        self.tickets.iter().map(|(_, ticket)| ticket)
    }

    /// Every reservation, in the order of MACs.
    pub fn reservations(&self) -> impl Iterator<Item = &Arc<Reservation>> {
        self.reservations.iter().map(|(_, reservation)| reservation)
    }

    /// The ticket of the machine with that MAC, unless it is void at `now`.
    #[must_use]
    pub fn ticket_by_mac(&self, mac: MacAddr, now: Timestamp) -> Option<&Ticket> {
        let of_mac = self.tickets_by_mac.iter_from(&(mac, SystemId::FIRST)).take_while(|((m, _), ())| *m == mac);
        of_mac.filter_map(|((_, machine), ())| self.ticket(*machine, now)).last()
    }

    /// The ticket of that machine, unless it is void at `now`.
    #[must_use]
    pub fn ticket(&self, machine: SystemId, now: Timestamp) -> Option<&Ticket> {
        self.tickets.get(&machine).map(Arc::as_ref).filter(|t| t.expires > now)
    }

    /// The ticket whose node key has that token, unless it is void at `now`. The token names the key; its secret is still to be compared.
    #[must_use]
    pub fn ticket_by_token(&self, token_key: &str, now: Timestamp) -> Option<&Ticket> {
        self.ticket(*self.tickets_by_token.get(token_key)?, now)
    }

    /// The address kept for that MAC on that subnet.
    #[must_use]
    pub fn reservation(&self, subnet: SubnetId, mac: MacAddr) -> Option<&Reservation> {
        self.reservations.get(&(mac, subnet)).map(Arc::as_ref)
    }

    /// For whom that address is kept.
    #[must_use]
    pub fn reserved_for(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        let first = (ip, SubnetId(i64::MIN), MacAddr::default());
        let of_ip = self.reserved.iter_from(&first).next().filter(|((reserved, ..), ())| *reserved == ip);
        of_ip.map(|((_, _, mac), ())| *mac)
    }

    /// The subnet that holds that address.
    #[must_use]
    pub fn subnet_of(&self, address: IpAddr) -> Option<&PlanSubnet> {
        self.plan.subnets.iter().find(|s| s.cidr.contains(address))
    }

    /// The boot file of that name (no leading slash).
    #[must_use]
    pub fn boot_file(&self, name: &str) -> Option<BodyRef> {
        self.boot_files.by_name.get(name).copied()
    }

    /// A body that the plan names, by its hash; `None` for every other hash.
    #[must_use]
    pub fn body(&self, sha256: Sha256) -> Option<BodyRef> {
        let of_tickets = self.bodies.get(&sha256).map(|named| named.body);
        of_tickets.or_else(|| self.boot_files.by_hash.get(&sha256).copied())
    }

    /// A file of an image, or a boot file, by its hash: what any machine may fetch. `None` for user-data, scripts and every other hash.
    #[must_use]
    pub fn public_body(&self, sha256: Sha256) -> Option<BodyRef> {
        let of_tickets = self.bodies.get(&sha256).filter(|named| named.public > 0).map(|named| named.body);
        of_tickets.or_else(|| self.boot_files.by_hash.get(&sha256).copied())
    }

    /// Every body that the plan names.
    pub fn bodies(&self) -> impl Iterator<Item = BodyRef> + '_ {
        self.bodies.iter().map(|(_, named)| named.body).chain(self.boot_files.by_hash.values().copied())
    }
}

impl Named {
    fn count(&mut self, public: bool, by: i32) {
        let counter = if public { &mut self.public } else { &mut self.private };
        *counter = counter.saturating_add_signed(by);
    }
}

/// The bodies that a ticket names, and whether any machine may fetch them.
fn named(ticket: &Ticket) -> impl Iterator<Item = (BodyRef, bool)> + '_ {
    ticket.boot.iter().flat_map(|boot| {
        let image = [Some(boot.image.kernel), Some(boot.image.initrd), boot.image.squashfs].into_iter().flatten();
        let private = [boot.user_data].into_iter().chain(boot.scripts.iter().map(|s| s.body));
        image.map(|body| (body, true)).chain(private.map(|body| (body, false)))
    })
}

/// The plan in force, and where this rack answers names of it. Cloned freely; reading takes no lock.
#[derive(Debug, Clone, Default)]
pub struct PlanHandle {
    snapshot: Arc<ArcSwap<Snapshot>>,
    dns: Arc<ArcSwap<Vec<IpAddr>>>,
}

impl PlanHandle {
    /// A handle that starts with `plan`.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self { snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::new(plan))), dns: Arc::default() }
    }

    /// The snapshot in force now.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts `plan` in force. The caller has made it durable.
    pub fn store(&self, plan: Plan) {
        self.snapshot.store(Arc::new(Snapshot::new(plan)));
    }

    /// Puts the plan in force as it is after an update that fits it. The caller has made the update durable.
    pub fn apply(&self, update: PlanUpdate) {
        let next = self.snapshot.load().after(update);
        self.snapshot.store(Arc::new(next));
    }

    /// Names are answered at these addresses, on the port where machines ask.
    pub fn dns_serves(&self, addresses: Vec<IpAddr>) {
        if **self.dns.load() != addresses {
            self.dns.store(Arc::new(addresses));
        }
    }

    /// Whether a machine that asks that address for names is answered.
    #[must_use]
    pub fn has_dns(&self, address: IpAddr) -> bool {
        self.dns.load().contains(&address.to_canonical())
    }
}
