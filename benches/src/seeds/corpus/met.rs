//! More faults as operators meet them: wrong cables and addresses, Secure Boot, little memory, slow links and disks, dead services.

use std::{net::Ipv4Addr, time::Duration};

use super::{Chaos, Ends, Ill, Row, SEED, Step, Way, harmless, row};
use crate::hardware::{Firmware, Hardware};

const SCRIPT: &str = "maas-support-info";
/// Among so many machines of one seed there is one of each firmware.
const MOST: u32 = 24;
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 1);

pub(super) fn rows() -> Vec<Row> {
    [cables(), loaders(), systems(), slowness()].concat()
}

/// A fault from the beginning on that a machine gets over.
fn passes(name: &'static str) -> Row {
    Row { step: None, ..row(name, Step::PowerOn, "", &[], Ends::Ready) }
}

fn cables() -> Vec<Row> {
    let machine = "the machine";
    vec![
        row(
            "power addresses of two machines are swapped",
            Step::DhcpLease,
            machine,
            &["yard-0002", "although nobody asked it to boot", "10.78.0.1", "10.78.0.3", "swapped"],
            Ends::Failed,
        )
        .house(|s| (s.machines, s.house.asked) = (3, Some(1)))
        .does([Chaos::Falls(0, Ill::WiredTo(2)), Chaos::Falls(2, Ill::WiredTo(0))]),
        row(
            "two machines were entered with one power address",
            Step::DhcpLease,
            machine,
            &["a DHCP request from", "yard-0000 has the same power address, 10.78.0.1"],
            Ends::Failed,
        )
        .house(|s| (s.machines, s.house.same_power) = (3, Some(2)))
        .watched(2),
        row(
            "a relay asks for a network that nobody knows",
            Step::DhcpLease,
            machine,
            &["through the relay 10.9.9.1", "add its subnet with DHCP on"],
            Ends::Failed,
        )
        .ill(Ill::Relayed(RELAY)),
        row(
            "the system asks DHCP with another card than firmware did",
            Step::EphemeralBoot,
            machine,
            &["0c:42:a0:00:00:55", "after yard-0000's kernel was fetched", "its system uses another card"],
            Ends::Failed,
        )
        .ill(Ill::OtherCardLater),
        row(
            "two hosts with one MAC, a cloned card",
            Step::EphemeralBoot,
            machine,
            &["two hosts ask for an address with the MAC 0c:42:a0:00:00:00", "a cloned card", "another MAC"],
            Ends::Ready,
        )
        .house(|s| s.machines = MOST)
        .does([Chaos::Falls(neighbour(), Ill::Twin(0))]),
    ]
}

fn loaders() -> Vec<Row> {
    let machine = "the machine";
    vec![
        row(
            "Secure Boot refuses what shim is to start",
            Step::BootConfig,
            machine,
            &["the kernel to be asked for", "by network boot once more", "Secure Boot"],
            Ends::Failed,
        )
        .house(|s| s.machines = MOST)
        .watched(first(Firmware::UefiTftp))
        .ill(Ill::Loops("revocations_sku.efi")),
        row(
            "Secure Boot refuses iPXE of HTTP boot",
            Step::BootConfig,
            machine,
            &["the kernel to be asked for", "by network boot once more", "firmware refuses iPXE"],
            Ends::Failed,
        )
        .house(|s| s.machines = MOST)
        .watched(first(Firmware::UefiHttp))
        .ill(Ill::Loops("iPXE")),
        row(
            "the kernel panics whenever it has its system, and starts anew",
            Step::EphemeralBoot,
            machine,
            &["the ephemeral system to be fetched", "by network boot once more", "started anew"],
            Ends::Failed,
        )
        .ill(Ill::Loops("/squashfs")),
        row(
            "memory too small for the system",
            Step::EphemeralBoot,
            machine,
            &["squashfs broke off", "bytes unacknowledged", "check memory"],
            Ends::Failed,
        )
        .ill(Ill::LittleMemory),
    ]
}

fn systems() -> Vec<Row> {
    let machine = "the machine";
    vec![
        row(
            "goes off by itself in the middle of its scripts",
            Step::Scripts,
            machine,
            &["the BMC says off", "power supplies"],
            Ends::Failed,
        )
        .ill(Ill::DiesIn(SCRIPT)),
        row(
            "a script's output arrives damaged",
            Step::Scripts,
            machine,
            &["what the machine sent was refused", "maas-support-info to end"],
            Ends::Failed,
        )
        .ill(Ill::Truncates(SCRIPT)),
        passes("is on and runs an old system when it is commissioned").does([Chaos::SwitchOn(0)]),
        harmless("the runner is damaged on the rack's disk", Step::DhcpLease, [Chaos::Damage(0, "user-data")]),
        harmless("an old system at its address asks by a key of long ago", Step::Scripts, [Chaos::OldKey(0)]),
        row(
            "the rack's DNS dies while a machine boots",
            Step::Metadata,
            machine,
            &[
                "its dns does not serve",
                "its port is taken",
                "stop the other dns server on the rack; look at the console",
            ],
            Ends::Failed,
        )
        .house(|s| s.house.names = true)
        .at(Step::EphemeralBoot)
        .does([Chaos::Dead(0, "dns")]),
        row(
            "the rack's certificate is revoked while a machine boots",
            Step::EphemeralBoot,
            "rack aaaa33",
            &["certificate was revoked", "enrol it anew"],
            Ends::Failed,
        )
        .at(Step::EphemeralBoot)
        .does([Chaos::Revoke(0)]),
    ]
}

fn slowness() -> Vec<Row> {
    let s = Duration::from_secs;
    vec![
        row(
            "the rack's DHCP dies once the machine is on",
            Step::DhcpLease,
            "rack aaaa33",
            &["its dhcp does not serve", "its port is taken", "stop the other dhcp server"],
            Ends::Failed,
        )
        .at(Step::DhcpLease)
        .does([Chaos::Dead(0, "dhcp")]),
        row(
            "the BMC falls silent while scripts run",
            Step::Stored,
            "the BMC",
            &["10.78.0.1", "did not answer"],
            Ends::Failed,
        )
        .at(Step::Scripts)
        .ill(Ill::SilentBmc),
        row(
            "the rack loses the region for good while scripts run",
            Step::Scripts,
            "the machine",
            &["lost its link", "look at its host and its way to the region"],
            Ends::Failed,
        )
        .at(Step::Scripts)
        .does([Chaos::Cut(Way::Region(0))]),
        harmless(
            "the rack loses the region for a minute while machines boot",
            Step::DhcpLease,
            [Chaos::Cut(Way::Region(0)), Chaos::In(s(60), Box::new(Chaos::Mend(Way::Region(0))))],
        ),
        passes("each word between region and rack takes 2 s").does([Chaos::SlowLink(0, s(2))]),
        passes("each write of the rack takes 5 s").does([Chaos::SlowDisk(0, s(5))]),
    ]
}

/// A machine on the first one's network whose firmware says its board's UUID.
fn neighbour() -> u32 {
    let says = |n: &u32| Hardware::draw(SEED, *n, 0, true).firmware == Firmware::UefiTftp;
    (2..MOST).step_by(2).find(says).unwrap_or(MOST)
}

/// The first machine of the corpus' seed that boots so.
fn first(firmware: Firmware) -> u32 {
    (0..MOST).find(|n| Hardware::draw(SEED, *n, 0, true).firmware == firmware).unwrap_or(MOST)
}
