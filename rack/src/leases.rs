//! Who holds which address now: what boot and metadata requests are matched against. Written by the subnet actors, read by every server.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, PoisonError, RwLock},
};

use schema::{net::MacAddr, plan::Lease, time::Timestamp};

/// The leases by address. Cloned freely; one short lock per look-up.
#[derive(Debug, Clone, Default)]
pub struct LeaseTable(Arc<RwLock<HashMap<Ipv4Addr, Lease>>>);

impl LeaseTable {
    /// The lease of that address, if it runs at `now`.
    #[must_use]
    pub fn get(&self, ip: Ipv4Addr, now: Timestamp) -> Option<Lease> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&ip).filter(|lease| lease.expires > now).cloned()
    }

    /// The MAC that holds that address at `now`.
    #[must_use]
    pub fn mac_of(&self, ip: Ipv4Addr, now: Timestamp) -> Option<MacAddr> {
        self.get(ip, now).map(|lease| lease.mac)
    }

    /// Puts a durable lease, or replaces it.
    pub fn put(&self, lease: Lease) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(lease.ip, lease);
    }
}
