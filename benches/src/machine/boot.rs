//! The order of things: what firmware, loaders, the kernel, cloud-init and the runner do one after the other. Read this first.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    Booted, Step, Use,
    config::Dialect,
    dhcp::{Identity, Lease},
    http::Agent,
    session,
    signal::Signal,
    transfer::{Asked, Manner},
};
use crate::hardware::{Firmware, Hardware};

fn pause(seconds: f32) -> Step {
    Step::Pause(Duration::from_secs_f32(seconds))
}

fn get(url: String, agent: Agent, then: Use) -> Step {
    Step::Get { url, agent, then }
}

/// From power-on until the card asks for an address.
pub(super) fn firmware(firmware: Firmware) -> Vec<Step> {
    let identity = match firmware {
        Firmware::Bios => Identity::BiosPxe,
        Firmware::UefiTftp => Identity::UefiPxe,
        Firmware::UefiHttp => Identity::UefiHttp,
        Firmware::IpxeRom => Identity::IpxeRom,
    };
    vec![pause(5.0), Step::Dhcp(identity)]
}

/// What a client does with its lease; `None`: nothing in it says how to go on.
pub(super) fn with_lease(hardware: &Hardware, identity: Identity, lease: &Lease) -> Option<Vec<Step>> {
    Some(match identity {
        Identity::BiosPxe => pxelinux(hardware, lease)?,
        Identity::UefiPxe => shim_and_grub(lease)?,
        Identity::UefiHttp => {
            let loader = lease.file.clone().filter(|f| f.starts_with("http://"))?;
            vec![
                get(loader.clone(), Agent::UefiHead, Use::Loader),
                get(loader, Agent::Uefi, Use::Loader),
                pause(0.5),
                Step::Dhcp(Identity::Ipxe),
            ]
        }
        Identity::Ipxe | Identity::IpxeRom => {
            let script = lease.file.clone().filter(|f| f.starts_with("http://"))?;
            vec![get(script, Agent::Ipxe, Use::Config(Dialect::Ipxe))]
        }
        Identity::Initramfs | Identity::System => Vec::new(),
    })
}

/// `lpxelinux.0` by TFTP; its module, its config and the kernel by HTTP, since option 210 is a URL.
fn pxelinux(hardware: &Hardware, lease: &Lease) -> Option<Vec<Step>> {
    let (loader, prefix) = (lease.file.clone()?, lease.path_prefix.clone()?);
    let config = |name: String, then| get(format!("{prefix}pxelinux.cfg/{name}"), Agent::Pxelinux, then);
    Some(vec![
        Step::Tftp { name: loader, asked: PXELINUX, manner: Manner::Whole, then: Use::Loader },
        get(format!("{prefix}ldlinux.c32"), Agent::Pxelinux, Use::Loader),
        config(hardware.uuid_text(), Use::Habit),
        config(format!("01-{}", hardware.mac().dashed()), Use::Config(Dialect::Pxelinux)),
    ])
}

/// The firmware probes the loader's size and breaks off, then fetches it; shim looks for revocations; GRUB looks for its lists.
fn shim_and_grub(lease: &Lease) -> Option<Vec<Step>> {
    let loader = lease.file.clone()?;
    let tftp = |name: &str, asked, manner, then| Step::Tftp { name: name.to_owned(), asked, manner, then };
    let mut steps = vec![
        tftp(&loader, PROBE, Manner::Probe, Use::Loader),
        tftp(&loader, OVMF, Manner::Whole, Use::Loader),
        tftp("revocations_sku.efi", SHIM, Manner::Whole, Use::Habit),
        tftp("revocations_sbat.efi", SHIM, Manner::Whole, Use::Habit),
        tftp("shim_certificate_0.efi", SHIM, Manner::Whole, Use::Habit),
        tftp("grubx64.efi", SHIM, Manner::Whole, Use::Loader),
    ];
    for list in ["command.lst", "fs.lst", "crypto.lst", "terminal.lst"] {
        steps.push(tftp(&format!("/grub/x86_64-efi/{list}"), GRUB, Manner::Whole, Use::Habit));
    }
    steps.push(tftp("/grub/grub.cfg", GRUB, Manner::Whole, Use::Config(Dialect::Grub)));
    Some(steps)
}

/// Options in each program's order.
const PXELINUX: Asked = &[("tsize", "0"), ("blksize", "1408")];
const PROBE: Asked = &[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")];
const OVMF: Asked = &[("blksize", "1468"), ("windowsize", "4")];
const SHIM: Asked = &[("blksize", "512"), ("windowsize", "4")];
const GRUB: Asked = &[("blksize", "1024"), ("tsize", "0")];

/// Kernel and initrd, then everything up to the preseed.
pub(super) fn ephemeral(booted: &Booted, dialect: Dialect) -> Vec<Step> {
    let body = |place: &String| match dialect {
        Dialect::Grub => Step::Tftp { name: place.clone(), asked: GRUB, manner: Manner::Whole, then: Use::Body },
        Dialect::Pxelinux => get(place.clone(), Agent::Pxelinux, Use::Body),
        Dialect::Ipxe => get(place.clone(), Agent::Ipxe, Use::Body),
    };
    let mut steps = vec![body(&booted.kernel), body(&booted.initrd), pause(6.0), Step::Dhcp(Identity::Initramfs)];
    // A system that is whole in its initrd has none.
    steps.extend(booted.squashfs.clone().map(|squashfs| get(squashfs, Agent::Wget, Use::Body)));
    steps.extend([pause(12.0), get(booted.preseed.clone(), Agent::CloudInit, Use::Preseed)]);
    steps
}

/// After the first preseed: cloud-init's stages. The system takes a lease of its own once the crawl has told how its network is to be.
pub(super) fn cloud_init(booted: &Booted, metadata_url: &str) -> Vec<Step> {
    let item = |name: &str, agent, then| get(format!("{metadata_url}2012-03-01/{name}"), agent, then);
    let status = |stage| session::events_of(stage).map(Step::Status);
    let mut steps: Vec<Step> = status("init-local").collect();
    steps.extend([
        pause(4.0),
        get(booted.preseed.clone(), Agent::CloudInit, Use::Metadata),
        item("meta-data/instance-id", Agent::CloudInitSigned, Use::Identity),
    ]);
    // The look into the cache, then the crawl, then what is made of it. The crawl's first request overtakes the event that announces it.
    let mut network = status("init-network");
    steps.extend(network.by_ref().take(2));
    steps.push(item("meta-data/instance-id", Agent::Requests, Use::Identity));
    steps.extend(network.by_ref().take(1));
    steps.extend([
        item("meta-data/local-hostname", Agent::Requests, Use::HostName),
        item("meta-data/public-keys", Agent::Requests, Use::Metadata),
        item("meta-data/vendor-data", Agent::Requests, Use::Metadata),
        item("user-data", Agent::Requests, Use::UserData),
    ]);
    steps.extend(network.by_ref().take(1));
    steps.push(Step::Dhcp(Identity::System));
    steps.extend(network);
    steps.push(pause(8.0));
    steps.extend(status("modules-config"));
    steps.push(pause(4.0));
    let mut last: Vec<_> = status("modules-final").collect();
    let after = last.split_off(3.min(last.len()));
    steps.extend(last);
    steps.push(scripts_left(metadata_url));
    steps.extend(after);
    steps.extend([pause(5.0), Step::Release, Step::Off]);
    steps
}

/// The runner: first the scripts that want to be alone, then all others at once. Each is begun, takes its time, and is told of with what it
/// printed; half-way comes a sign of life. Then it asks whether there are more scripts.
pub(super) fn runner(hardware: &Hardware, session: &session::Session, cmdline: &str, ip: Ipv4Addr) -> Vec<Step> {
    let scripts = session.scripts.iter().enumerate().map(|(number, script)| {
        let (_, time) = crate::hardware::output(hardware, &script.name, cmdline, ip);
        (number, script, time)
    });
    let (mut alone, mut others): (Vec<_>, Vec<_>) = scripts.partition(|(_, script, _)| script.parallel == 0);
    alone.sort_by_key(|(_, script, _)| (&script.name, script.script_result_id));
    others.sort_by_key(|(_, script, _)| (&script.name, script.script_result_id));
    let mut steps = Vec::new();
    for (number, _, time) in alone {
        steps.extend([
            Step::Signal(Signal::Begun(number)),
            Step::Pause(time),
            Step::Signal(Signal::Ended(number, time)),
        ]);
    }
    steps.extend(others.iter().map(|(number, ..)| Step::Signal(Signal::Begun(*number))));
    others.sort_by_key(|(_, _, time)| *time);
    let mut past = Duration::ZERO;
    for (number, _, time) in others {
        steps.extend([Step::Pause(time.saturating_sub(past)), Step::Signal(Signal::Ended(number, time))]);
        past = time;
    }
    let ends = |step: &Step| matches!(step, Step::Signal(Signal::Ended(..)));
    let half = steps.iter().enumerate().filter(|(_, step)| ends(step)).map(|(at, _)| at).nth(session.scripts.len() / 2);
    if let Some(half) = half {
        steps.insert(half + 1, Step::Signal(Signal::Alive));
    }
    steps.push(scripts_left(&session.metadata_url));
    steps
}

fn scripts_left(metadata_url: &str) -> Step {
    get(format!("{metadata_url}2012-03-01/maas-scripts"), Agent::Runner, Use::Scripts)
}
