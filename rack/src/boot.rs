//! What a machine that boots is answered: which name means what, for whom, and the boot configs in words. Pure; `desk` puts it to work.

use std::net::{IpAddr, SocketAddr};

use schema::{
    boot::{BodyRef, Sha256},
    messages::report::FileKind,
    net::MacAddr,
    plan::{BootPurpose, Ticket, TicketBoot},
    time::Timestamp,
};

use crate::{plan::Snapshot, syslog};
use names::{Loader, Name};

pub mod desk;
pub mod grub;
pub mod host;
pub mod ipxe;
pub mod names;
pub mod pxelinux;

/// A request for a boot file, by TFTP or HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// As the client wrote it.
    pub name: &'a str,
    pub peer: IpAddr,
    /// The rack's HTTP as this machine reaches it: the host of every URL in the answer.
    pub rack: SocketAddr,
    /// Whether this rack serves DNS at that address.
    pub names: bool,
}

/// Who is known to hold the asking address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Holders {
    /// By a lease that runs.
    pub now: Option<MacAddr>,
    /// By a lease that ran out a short while ago. Firmware's leases are short and loaders do not renew them.
    pub lately: Option<MacAddr>,
}

/// What the answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A boot config.
    Text(String),
    /// A body that the plan names, whether it is here or not.
    Body(BodyRef),
    Missing,
}

/// A decided answer.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    /// The name asked for, in its plain form.
    pub name: String,
    pub kind: FileKind,
    /// Whose request it is; `None` for a client that the plan does not know.
    pub ticket: Option<&'a Ticket>,
    pub content: Content,
}

/// Decides what a request is answered with.
///
/// A client is found by its lease, then by the MAC in the name, then by its reservation, then by its last lease.
/// A client that is not found gets loaders and images, which are no secret, and no config.
#[must_use]
pub fn answer<'a>(snapshot: &'a Snapshot, asked: &Asked<'_>, holders: Holders, now: Timestamp) -> Answer<'a> {
    let name = names::plain(asked.name);
    let parsed = names::parse(&name);
    let reserved = match asked.peer {
        IpAddr::V4(ip) => snapshot.reserved_for(ip),
        IpAddr::V6(_) => None,
    };
    let known = [holders.now, parsed.mac(), reserved, holders.lately]
        .into_iter()
        .flatten()
        .find_map(|mac| Some((mac, snapshot.ticket_by_mac(mac, now)?)));
    let ticket = known.map(|(_, ticket)| ticket);
    let (kind, content) = match parsed {
        Name::Config { loader, .. } => {
            let host = host::host(snapshot, asked.peer, asked.rack, asked.names);
            (FileKind::Config, config(loader, known, asked.rack, host))
        }
        Name::Image { sha256, file } => image(snapshot, ticket, sha256, file),
        Name::File { habit } => file(snapshot, &name, habit),
    };
    Answer { name, kind, ticket, content }
}

fn config(loader: Loader, known: Option<(MacAddr, &Ticket)>, rack: SocketAddr, host: String) -> Content {
    let Some((mac, ticket)) = known else { return Content::Missing };
    let text = match (ticket.purpose, &ticket.boot) {
        (BootPurpose::Local, _) => match loader {
            Loader::Ipxe => ipxe::local(ticket),
            Loader::Pxelinux => pxelinux::local(ticket),
            Loader::Grub => grub::local(ticket),
        },
        (BootPurpose::Commissioning, Some(boot)) => {
            let system = System::new(ticket, boot, mac, rack, host);
            match loader {
                Loader::Ipxe => ipxe::ephemeral(&system),
                Loader::Pxelinux => pxelinux::ephemeral(&system),
                Loader::Grub => grub::ephemeral(&system),
            }
        }
        // A plan without the image it orders: nothing to boot into.
        (BootPurpose::Commissioning, None) => return Content::Missing,
    };
    Content::Text(text)
}

fn image(snapshot: &Snapshot, ticket: Option<&Ticket>, sha256: Sha256, file: &str) -> (FileKind, Content) {
    let kind = ticket
        .and_then(|t| t.boot.as_ref())
        .and_then(|boot| {
            let image = &boot.image;
            let parts = [
                (Some(image.kernel), FileKind::Kernel),
                (Some(image.initrd), FileKind::Initrd),
                (image.squashfs, FileKind::Squashfs),
            ];
            parts.into_iter().find(|(body, _)| body.is_some_and(|b| b.sha256 == sha256)).map(|(_, kind)| kind)
        })
        .unwrap_or(match file {
            "boot-kernel" => FileKind::Kernel,
            "boot-initrd" => FileKind::Initrd,
            "squashfs" => FileKind::Squashfs,
            _ => FileKind::Other,
        });
    (kind, snapshot.public_body(sha256).map_or(Content::Missing, Content::Body))
}

fn file(snapshot: &Snapshot, name: &str, habit: bool) -> (FileKind, Content) {
    let kind = if names::is_loader(name) && !habit { FileKind::Loader } else { FileKind::Other };
    (kind, snapshot.boot_file(name).map_or(Content::Missing, Content::Body))
}

/// The ephemeral system of one ticket as one machine reaches it.
#[derive(Debug)]
pub struct System<'a> {
    pub ticket: &'a Ticket,
    boot: &'a TicketBoot,
    mac: MacAddr,
    rack: SocketAddr,
    host: String,
}

impl<'a> System<'a> {
    /// The system that `ticket` orders, for a machine that boots with `mac`, reaches this rack's HTTP at `rack`, and metadata at `host`.
    #[must_use]
    pub fn new(ticket: &'a Ticket, boot: &'a TicketBoot, mac: MacAddr, rack: SocketAddr, host: String) -> Self {
        Self { ticket, boot, mac, rack, host }
    }

    /// `images/<sha256>/boot-kernel`, without a leading slash.
    #[must_use]
    pub fn kernel_path(&self) -> String {
        format!("images/{}/boot-kernel", self.boot.image.kernel.sha256)
    }

    /// `images/<sha256>/boot-initrd`, without a leading slash.
    #[must_use]
    pub fn initrd_path(&self) -> String {
        format!("images/{}/boot-initrd", self.boot.image.initrd.sha256)
    }

    /// The URL of a path at this rack.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.rack)
    }

    /// `BOOTIF=01-aa-bb-…`: the NIC that booted, by PXELINUX's convention (01 is Ethernet). The rack knows it from the lease;
    /// a loader's own variable would name the first NIC of a machine that booted from its second.
    #[must_use]
    pub fn bootif(&self) -> String {
        format!("BOOTIF=01-{}", self.mac.dashed())
    }

    /// The kernel's parameters: the image's own with their placeholders filled, then the operator's. One line.
    #[must_use]
    pub fn parameters(&self) -> String {
        let image = &self.boot.image;
        let squashfs = image.squashfs.map(|body| self.url(&format!("images/{}/squashfs", body.sha256)));
        let preseed =
            format!("http://{}/MAAS/metadata/latest/by-id/{}/?op=get_preseed", self.host, self.ticket.machine);
        let filled = image
            .kernel_params
            .replace("{squashfs_url}", squashfs.as_deref().unwrap_or_default())
            .replace("{hostname}", &self.ticket.hostname)
            .replace("{preseed_url}", &preseed)
            .replace("{log_host}", &self.rack.ip().to_string())
            .replace("{log_port}", &syslog::PORT.to_string());
        one_line(&format!("{filled} {}", self.boot.kernel_opts))
    }
}

/// Parameters on one line: a line break inside would end the loader's command and begin another.
fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
