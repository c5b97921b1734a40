//! The catalogue: fabrics, VLANs, subnets, ranges, users, keys, scripts, images, settings, enrolled racks. Few writes, each checked whole.
//! Absent on purpose: machines, leases, password hashing, the bytes of bodies.

use schema::{
    catalogue::{Catalogue as Content, CatalogueItem, CatalogueKey, Domain, EnrolmentToken, Fabric, RackEntry, Vlan},
    id::{FabricId, RackId, VlanId},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::core::{Core, Resume, Step, Verdict, View};

mod check;
mod dns;
mod ids;

pub use self::{
    check::{Fault, check, check_removal},
    ids::{Table, next_id},
};

/// The one catalogue of a region. Its content is read from [`crate::shell::ActorRef::snapshot`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Catalogue {
    pub content: Content,
}

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum CatalogueEvent {
    /// A new item: refused when one of that id or name exists. Integer ids come from [`next_id`].
    Add {
        by: String,
        item: CatalogueItem,
    },
    /// Adds or replaces whole.
    Put {
        by: String,
        item: CatalogueItem,
    },
    Remove {
        by: String,
        key: CatalogueKey,
    },
    /// Several `Put`s, all or none.
    PutAll {
        by: String,
        items: Vec<CatalogueItem>,
    },
    /// A rack enrols: the token is used up, and the rack admitted with the certificate it was given.
    Enrol {
        token_sha256: String,
        rack: RackEntry,
    },
}

/// What a change asks of the hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogueEffect {
    /// What racks serve may have changed: compose their plans anew.
    PlansChanged,
    /// This rack's certificate is not admitted any more: close its link.
    CloseLink { rack: RackId },
}

/// The catalogue has no timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoTimer {}

impl Core for Catalogue {
    const KIND: &'static str = "catalogue";
    type Id = &'static str;
    type Event = CatalogueEvent;
    type Effect = CatalogueEffect;
    type Timer = NoTimer;

    fn id(&self) -> &'static str {
        "catalogue"
    }

    fn step(&self, event: &CatalogueEvent, now: Timestamp) -> Step<Self> {
        match event {
            CatalogueEvent::Add { item, .. } => match check::absent(&self.content, item) {
                Ok(()) => self.put_all(std::slice::from_ref(item)),
                Err(fault) => fault.refuse(),
            },
            CatalogueEvent::Put { item, .. } => self.put_all(std::slice::from_ref(item)),
            CatalogueEvent::PutAll { items, .. } => self.put_all(items),
            CatalogueEvent::Remove { key, .. } => self.remove(key),
            CatalogueEvent::Enrol { token_sha256, rack } => self.enrol(token_sha256, rack, now),
        }
    }

    fn resume(&self, _: Timestamp) -> Resume<Self> {
        Resume { effects: vec![CatalogueEffect::PlansChanged], timers: Vec::new() }
    }

    fn elapsed(timer: NoTimer) -> CatalogueEvent {
        match timer {}
    }

    fn view(&self) -> View {
        let c = &self.content;
        // Counts only: users' hashes and keys' hashes stay out of the inspector.
        let detail = serde_json::json!({
            "fabrics": c.fabrics.len(), "vlans": c.vlans.len(), "subnets": c.subnets.len(), "ranges": c.ranges.len(),
            "reserved_ips": c.reserved_ips.len(), "users": c.users.len(), "scripts": c.scripts.len(),
            "domains": c.domains.len(), "dns_resources": c.dns_resources.len(), "images": c.images.len(), "boot_files": c.boot_files.len(), "racks": c.racks.len(),
        });
        View { state: "kept".into(), wait: None, detail }
    }
}

impl Catalogue {
    /// The catalogue of a new region: `fabric-0` with its untagged VLAN 5001, and the domain `maas`.
    #[must_use]
    pub fn first() -> Self {
        let mut content = Content::default();
        let fabric = FabricId(ids::first(Table::Fabrics));
        let vlan = VlanId(ids::first(Table::Vlans));
        ids::note(&mut content, Table::Fabrics, fabric.0);
        ids::note(&mut content, Table::Vlans, vlan.0);
        ids::note(&mut content, Table::Domains, 0);
        content.domains.insert(0, Domain::default());
        content.fabrics.insert(fabric, Fabric { id: fabric, name: format!("fabric-{fabric}") });
        content.vlans.insert(vlan, untagged(vlan, fabric));
        Self { content }
    }

    fn put_all(&self, items: &[CatalogueItem]) -> Step<Self> {
        let mut next = self.clone();
        let mut effects = Vec::new();
        for item in items {
            if let Err(fault) = check(&next.content, item) {
                return fault.refuse();
            }
            next.put(item, &mut effects);
        }
        self.become_(next, effects)
    }

    fn put(&mut self, item: &CatalogueItem, effects: &mut Vec<CatalogueEffect>) {
        if let Some((table, id)) = ids::of(item) {
            ids::note(&mut self.content, table, id);
        }
        let c = &mut self.content;
        match item.clone() {
            CatalogueItem::Fabric(fabric) => drop(c.fabrics.insert(fabric.id, fabric)),
            CatalogueItem::Vlan(vlan) => drop(c.vlans.insert(vlan.id, vlan)),
            CatalogueItem::Subnet(subnet) => drop(c.subnets.insert(subnet.id, subnet)),
            CatalogueItem::Range(range) => drop(c.ranges.insert(range.id, range)),
            CatalogueItem::ReservedIp(ip) => drop(c.reserved_ips.insert(ip.id, ip)),
            CatalogueItem::User(user) => drop(c.users.insert(user.username.clone(), user)),
            CatalogueItem::ApiKey(key) => drop(c.api_keys.insert(key.token_key.clone(), key)),
            CatalogueItem::Script(script) => drop(c.scripts.insert(script.id, script)),
            CatalogueItem::Image(image) => {
                if image.default {
                    let others = c.images.values_mut().filter(|i| i.image.arch == image.image.arch);
                    others.for_each(|i| i.default = false);
                }
                c.images.insert(image.id, image);
            }
            CatalogueItem::BootFile(file) => drop(c.boot_files.insert(file.name.clone(), file)),
            CatalogueItem::Rack(rack) => {
                let admitted = c.racks.get(&rack.id).filter(|old| !old.revoked);
                if admitted.is_some_and(|old| rack.revoked || old.certificate_sha256 != rack.certificate_sha256) {
                    effects.push(CatalogueEffect::CloseLink { rack: rack.id });
                }
                c.racks.insert(rack.id, rack);
            }
            CatalogueItem::EnrolmentToken(token) => {
                drop(c.enrolment_tokens.insert(token.token_sha256.clone(), token));
            }
            CatalogueItem::Setting { name, value } => drop(c.settings.insert(name, value)),
            CatalogueItem::Domain(domain) => drop(c.domains.insert(domain.id, domain)),
            CatalogueItem::DefaultDomain(id) => c.default_domain = id,
            CatalogueItem::DnsResource(resource) => drop(c.dns_resources.insert(resource.id, resource)),
            CatalogueItem::DnsRecord(record) => drop(c.dns_records.insert(record.id, record)),
        }
    }

    fn remove(&self, key: &CatalogueKey) -> Step<Self> {
        if let Err(fault) = check_removal(&self.content, key) {
            return fault.refuse();
        }
        let mut next = self.clone();
        let mut effects = Vec::new();
        let c = &mut next.content;
        match key {
            CatalogueKey::Fabric(id) => {
                c.vlans.retain(|_, vlan| vlan.fabric != *id);
                c.fabrics.remove(id);
            }
            CatalogueKey::Vlan(id) => drop(c.vlans.remove(id)),
            CatalogueKey::Subnet(id) => {
                c.ranges.retain(|_, range| range.subnet != *id);
                c.reserved_ips.retain(|_, ip| ip.subnet != *id);
                c.subnets.remove(id);
            }
            CatalogueKey::Range(id) => drop(c.ranges.remove(id)),
            CatalogueKey::ReservedIp(id) => drop(c.reserved_ips.remove(id)),
            CatalogueKey::User(name) => {
                c.api_keys.retain(|_, key| key.username != *name);
                c.users.remove(name);
            }
            CatalogueKey::ApiKey(token) => drop(c.api_keys.remove(token)),
            CatalogueKey::Script(id) => drop(c.scripts.remove(id)),
            CatalogueKey::Image(id) => drop(c.images.remove(id)),
            CatalogueKey::BootFile(name) => drop(c.boot_files.remove(name)),
            CatalogueKey::Rack(id) => {
                c.racks.remove(id);
                effects.push(CatalogueEffect::CloseLink { rack: *id });
            }
            CatalogueKey::EnrolmentToken(token) => drop(c.enrolment_tokens.remove(token)),
            CatalogueKey::Setting(name) => drop(c.settings.remove(name)),
            CatalogueKey::Domain(id) => drop(c.domains.remove(id)),
            CatalogueKey::DnsResource(id) => {
                c.dns_records.retain(|_, record| record.resource != *id);
                c.dns_resources.remove(id);
            }
            CatalogueKey::DnsRecord(id) => drop(c.dns_records.remove(id)),
        }
        self.become_(next, effects)
    }

    fn enrol(&self, token_sha256: &str, rack: &RackEntry, now: Timestamp) -> Step<Self> {
        let token = match check::token(&self.content, token_sha256, rack.id, now) {
            Ok(token) => EnrolmentToken { used_by: Some(rack.id), ..token.clone() },
            Err(fault) => return fault.refuse(),
        };
        self.put_all(&[CatalogueItem::EnrolmentToken(token), CatalogueItem::Rack(rack.clone())])
    }

    /// The step to `next`; none when it changes nothing.
    fn become_(&self, next: Self, mut effects: Vec<CatalogueEffect>) -> Step<Self> {
        if next == *self {
            return Step::ignored("the catalogue says so already");
        }
        if self.serves_else(&next) {
            effects.push(CatalogueEffect::PlansChanged);
        }
        Step { next: Some(next), effects, timers: Vec::new(), verdict: Verdict::Moved }
    }

    /// Whether a plan could differ. Users, keys, tokens and scripts are in no plan (scripts travel in tickets).
    fn serves_else(&self, next: &Self) -> bool {
        let (a, b) = (&self.content, &next.content);
        a.vlans != b.vlans
            || a.subnets != b.subnets
            || a.ranges != b.ranges
            || a.reserved_ips != b.reserved_ips
            || a.boot_files != b.boot_files
            || a.settings != b.settings
            || a.racks != b.racks
            || (a.default_domain, &a.domains) != (b.default_domain, &b.domains)
            || a.dns_resources != b.dns_resources
            || a.dns_records != b.dns_records
    }
}

/// The VLAN that every fabric begins with.
#[must_use]
pub fn untagged(id: VlanId, fabric: FabricId) -> Vlan {
    Vlan {
        id,
        fabric,
        vid: 0,
        name: "untagged".into(),
        mtu: 1_500,
        dhcp_on: false,
        primary_rack: None,
        secondary_rack: None,
        relay_vlan: None,
    }
}
