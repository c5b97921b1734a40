//! A machine that asks for its address where nobody expects it.

use std::net::Ipv4Addr;

use actors::{core::Core, machine::Machine};
use schema::{
    id::SubnetId,
    messages::{
        link::Stray,
        machine::{MachineEvent, MachineTimer},
    },
    net::MacAddr,
};

use crate::story::*;

/// Its boot card, seen on another subnet or through that relay.
pub(crate) fn astray(relay: Option<Ipv4Addr>) -> Stray {
    Stray {
        mac: spec(schema::power::PowerType::Ipmi).macs[0],
        first: at(39),
        at: at(39),
        subnet: relay.is_none().then_some(SubnetId(2)),
        relay,
        interface: "eth1".into(),
        why: "this rack has no order to boot it".into(),
    }
}

/// The wait's evidence and remedy say where it asked; what was over before it was on, and what comes after its address, is nothing.
#[test]
fn a_machine_that_asks_where_nobody_expects_it_is_told_of_with_the_remedy() {
    let strayed = |relay| MachineEvent::Strayed { rack: rack(2), stray: astray(relay) };
    let (machine, _) = after(5);
    let told = |m: &Machine| {
        let wait = m.wait.clone().unwrap();
        (wait.evidence.iter().filter(|e| e.contains("asked for an address to boot on")).count(), wait.remedy)
    };
    assert_eq!(told(&machine).0, 0);
    let (wrong, _) = run(machine.clone(), [strayed(None)], 40);
    assert_eq!(told(&wrong).0, 1);
    assert!(told(&wrong).1.contains("switch port's VLAN"), "{wrong:?}");
    assert!(wrong.step(&strayed(None), at(41)).next.is_none(), "known");
    let (relayed, _) = run(wrong, [strayed(Some(Ipv4Addr::new(10, 9, 9, 1)))], 42);
    assert!(told(&relayed).1.contains("the relay 10.9.9.1"), "{relayed:?}");
    let late = relayed.step(&MachineEvent::Elapsed { timer: MachineTimer::Deadline }, at(5_000)).next.unwrap();
    assert!(
        late.error.contains("through the relay 10.9.9.1") && late.error.contains("add its subnet"),
        "{}",
        late.error
    );
    for facts in [0, 8] {
        assert!(after(facts).0.step(&strayed(None), at(50)).next.is_none(), "after {facts} facts");
    }
    let other = Stray { mac: MacAddr([2, 9, 9, 9, 9, 9]), ..astray(None) };
    assert!(machine.step(&MachineEvent::Strayed { rack: rack(2), stray: other }, at(40)).next.is_none());
}
