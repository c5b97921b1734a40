//! A machine that asks for its address where nobody expects it: the cable, the VLAN or the relay is another one than the region knows.

use schema::{commissioning::CommissionStep, id::RackId, messages::link::Stray, net::MacAddr, time::Timestamp};

use super::{Attempt, Machine};
use crate::core::Step;

impl Machine {
    /// A rack that has no order to boot it was asked by it. Before it is switched on, and once it has an address, that says nothing: firmware
    /// tries its cards one after the other.
    pub(super) fn strayed(&self, rack: RackId, stray: &Stray, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return Step::ignored("no attempt is under way") };
        if attempt.ordered.is_none() || attempt.is_done(CommissionStep::DhcpLease) {
            return Step::ignored("no request for an address is awaited");
        }
        if !self.spec.macs.contains(&stray.mac) {
            return Step::ignored("that is no card of this machine");
        }
        let place = |s: &Stray| (s.mac, s.subnet, s.relay, s.interface.clone(), s.why.clone());
        if attempt.astray.as_ref().is_some_and(|(of, known)| (*of, place(known)) == (rack, place(stray))) {
            return Step::ignored("that is known");
        }
        let mut next = self.clone();
        if let Some(attempt) = next.attempt.as_mut() {
            attempt.astray = Some((rack, stray.clone()));
        }
        next.hindered(now, format!("rack {rack}: {stray}"), now)
    }
}

impl Machine {
    /// Another host asks with its MAC. Both may get the same address, and neither boots for long.
    pub(super) fn two_hosts(&self, at: Timestamp, mac: MacAddr, uuids: &[[u8; 16]; 2], now: Timestamp) -> Step<Self> {
        let [one, other] = uuids.map(|uuid| format!("{:032x}", u128::from_be_bytes(uuid)));
        let text = format!(
            "two hosts ask for an address with the MAC {mac} (their firmware says the UUIDs {one} and {other}): a cloned card or a copied virtual machine; give one of them another MAC, or take it off this network"
        );
        self.hindered(at, text, now)
    }
}

impl Attempt {
    /// What a person can do about it.
    pub(super) fn astray_remedy(&self) -> Option<String> {
        let (rack, stray) = self.astray.as_ref()?;
        Some(match (stray.relay, stray.subnet) {
            (Some(relay), None) => format!(
                "the relay {relay} asks for a network that no subnet of rack {rack} holds: add its subnet with DHCP on, or give the relay an address in a subnet that is known"
            ),
            _ => format!(
                "its card {} is cabled into another network than the one it is to boot on: correct the cable or the switch port's VLAN, or say on which VLAN it boots (`vlan` of the machine), with a rack that serves it",
                stray.mac
            ),
        })
    }
}
