//! Whose line it is: by the address it came from, through leases, reservations and tickets. Pure but for a short memory.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc, time::Duration};

use schema::{
    id::AttemptId,
    logs::LogSource,
    plan::{Strangers, Ticket},
    time::Timestamp,
};

use crate::{leases::LeaseTable, plan::Snapshot};

/// How long an address is known before it is looked up again: leases and tickets change rarely, lines come by thousands.
const KNOWN: Duration = Duration::from_secs(1);
/// Addresses remembered.
const MEMORY: usize = 16_384;

/// A sender whose lines are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    pub source: LogSource,
    /// The machine's name in the plan, or the address.
    pub host: Arc<str>,
}

/// Who sends from that address; `None`: nobody whose lines are taken.
#[must_use]
pub fn who(ip: Ipv4Addr, snapshot: &Snapshot, leases: &LeaseTable, now: Timestamp) -> Option<Sender> {
    // Who stands in no subnet of the plan is nobody here, whatever lease he may hold.
    let subnet = snapshot.subnet_of(ip.into())?;
    let mac = leases.mac_of(ip, now).or_else(|| snapshot.reserved_for(ip));
    if let Some(ticket) = mac.and_then(|mac| snapshot.ticket_by_mac(mac, now)) {
        return Some(of(ticket));
    }
    (subnet.strangers != Strangers::Ignore)
        .then(|| Sender { source: LogSource::Stranger(ip.into()), host: ip.to_string().into() })
}

fn of(ticket: &Ticket) -> Sender {
    let none = ticket.boot.is_none();
    let attempt = if none { AttemptId(0) } else { ticket.attempt };
    Sender { source: LogSource::Machine { machine: ticket.machine, attempt }, host: ticket.hostname.as_str().into() }
}

/// [`who`], remembered for a second.
#[derive(Debug, Default)]
pub struct Desk(HashMap<Ipv4Addr, (Timestamp, Option<Sender>)>);

impl Desk {
    /// As [`who`]; `snapshot` is asked for only when the memory does not say.
    pub fn who(
        &mut self,
        ip: Ipv4Addr,
        snapshot: impl FnOnce() -> Arc<Snapshot>,
        leases: &LeaseTable,
        now: Timestamp,
    ) -> Option<&Sender> {
        if self.0.len() >= MEMORY && !self.0.contains_key(&ip) {
            self.0.clear();
        }
        let (since, sender) = self.0.entry(ip).or_insert((Timestamp(i64::MIN), None));
        if now.0.abs_diff(since.0) >= KNOWN.as_micros() as u64 {
            *sender = who(ip, &snapshot(), leases, now);
            *since = now;
        }
        sender.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use schema::{
        id::SubnetId,
        net::MacAddr,
        plan::{Lease, Plan},
    };

    use super::*;

    #[test]
    fn lines_belong_to_the_machine_that_holds_the_address() {
        let plan: Plan = serde_json::from_value(serde_json::json!({
            "subnets": [{"id": 1, "cidr": "10.77.0.0/24"}, {"id": 2, "cidr": "10.78.0.0/24", "strangers": "enlist"}],
            "reservations": [{"subnet": 1, "mac": "52:54:00:77:00:02", "ip": "10.77.0.20"}],
            "tickets": [{"machine": "abc234", "attempt": 7, "purpose": "local", "macs": ["52:54:00:77:00:01", "52:54:00:77:00:02"],
                "hostname": "fox", "domain": "lab", "arch": "amd64", "expires": i64::MAX}],
        })).unwrap();
        let (snapshot, leases, now) =
            (Arc::new(Snapshot::new(plan)), LeaseTable::default(), Timestamp::from_seconds(100));
        let ip = Ipv4Addr::new(10, 77, 0, 50);
        assert_eq!(who(ip, &snapshot, &leases, now), None);
        leases.put(Lease {
            subnet: SubnetId(1),
            ip,
            mac: MacAddr([0x52, 0x54, 0, 0x77, 0, 1]),
            hostname: None,
            granted: now,
            expires: now + KNOWN,
        });
        let fox = LogSource::Machine { machine: "abc234".parse().unwrap(), attempt: AttemptId(0) };
        for address in [ip, Ipv4Addr::new(10, 77, 0, 20)] {
            let sender = who(address, &snapshot, &leases, now).unwrap();
            assert_eq!((sender.source, &*sender.host), (fox, "fox"));
        }
        let stranger = Ipv4Addr::new(10, 78, 0, 9);
        assert_eq!(who(stranger, &snapshot, &leases, now).unwrap().source, LogSource::Stranger(stranger.into()));
        assert_eq!(who(Ipv4Addr::new(192, 0, 2, 1), &snapshot, &leases, now), None);
        let mut desk = Desk::default();
        assert!(desk.who(ip, || snapshot.clone(), &leases, now).is_some());
        assert!(desk.who(ip, || unreachable!(), &leases, now + KNOWN / 2).is_some(), "remembered");
        assert!(desk.who(ip, || snapshot.clone(), &leases, now + KNOWN).is_none(), "the lease has ended");
    }
}
