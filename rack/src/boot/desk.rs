//! Puts boot answers to work for TFTP and HTTP alike: looks up the asker, opens the body, reports what was asked and what arrived.

use std::{
    collections::HashSet,
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actors::clock;
use bytes::Bytes;
use schema::{
    boot::{BodyRef, Sha256},
    id::{AttemptId, SystemId},
    messages::report::{Fact, FileKind},
    plan::Ticket,
    time::Timestamp,
};

use super::{Answer, Asked, Content, Holders, answer};
use crate::{
    bodies::Bodies,
    leases::LeaseTable,
    plan::PlanHandle,
    report::Reporter,
    tftp::{Ask, BootFiles, Found, Limits, Receipt, transfer::MAX_WINDOW},
};

/// How long after its end a lease still says who asks for boot files. Firmware gets leases of 30 seconds and loaders do not renew them.
const LATELY: Duration = Duration::from_secs(3_600);
/// Bytes of the IP, UDP and TFTP heads around one block.
const BLOCK_HEADS: u16 = 20 + 8 + 4;

/// The keeper of boot files. Cloned freely.
#[derive(Clone)]
pub struct BootDesk {
    pub plan: PlanHandle,
    pub leases: LeaseTable,
    pub bodies: Bodies,
    pub reporter: Reporter,
    /// The port of this rack's HTTP, for URLs in configs that go out by TFTP.
    pub http_port: u16,
    /// Bodies whose absence was reported, per attempt.
    absent: Arc<Mutex<HashSet<(SystemId, AttemptId, Sha256)>>>,
    /// What was sent to machines, where the server counts it.
    pub sent: Sent,
}

/// Bytes of files that were sent, by what they are. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Sent(Arc<[AtomicU64; 6]>);

impl Sent {
    const NAMES: [(FileKind, &'static str); 6] = [
        (FileKind::Loader, "bytes_loader"),
        (FileKind::Config, "bytes_config"),
        (FileKind::Kernel, "bytes_kernel"),
        (FileKind::Initrd, "bytes_initrd"),
        (FileKind::Squashfs, "bytes_squashfs"),
        (FileKind::Other, "bytes_other"),
    ];

    /// So many more bytes of such a file.
    pub fn add(&self, kind: FileKind, bytes: u64) {
        let place = Self::NAMES.iter().zip(self.0.iter()).find(|((known, _), _)| *known == kind);
        if let Some((_, count)) = place {
            count.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The counters with their names.
    #[must_use]
    pub fn named(&self) -> Vec<(String, u64)> {
        let named = Self::NAMES.iter().zip(self.0.iter());
        named.map(|((_, name), count)| ((*name).to_owned(), count.load(Ordering::Relaxed))).collect()
    }
}

/// An answer with its bytes.
pub struct Opened {
    /// The name in its plain form.
    pub name: String,
    pub kind: FileKind,
    pub content: Held,
    pub tracking: Tracking,
}

/// Bytes at hand, or why not.
pub enum Held {
    Text(String),
    /// A whole small body, from memory.
    Small {
        bytes: Bytes,
        body: BodyRef,
    },
    /// A whole body; `file` stands at its beginning.
    Body {
        file: File,
        body: BodyRef,
    },
    Missing,
    /// The plan names it and it is not here yet.
    Absent(BodyRef),
}

impl BootDesk {
    /// A desk over a rack's handles.
    #[must_use]
    pub fn new(plan: PlanHandle, leases: LeaseTable, bodies: Bodies, reporter: Reporter, http_port: u16) -> Self {
        Self { plan, leases, bodies, reporter, http_port, absent: Arc::default(), sent: Sent::default() }
    }

    /// Answers a request of `service` ("tftp", "http") and reports that it was asked.
    #[must_use]
    pub fn open(&self, service: &'static str, asked: &Asked<'_>) -> Opened {
        let now = clock::now();
        let snapshot = self.plan.load();
        let Answer { name, kind, ticket, content } = answer(&snapshot, asked, self.holders(asked.peer, now), now);
        let content = match content {
            Content::Text(text) => Held::Text(text),
            Content::Missing => Held::Missing,
            Content::Body(body) => self.body(body, ticket, now),
        };
        let found = !matches!(content, Held::Missing | Held::Absent(_));
        let tracking = Tracking {
            reporter: self.reporter.clone(),
            whose: ticket.map(|t| (t.machine, t.attempt)),
            file: name.clone(),
            kind,
            service,
        };
        let machine = ticket.map(|t| t.machine.to_string()).unwrap_or_default();
        tracing::debug!(peer = %asked.peer, machine, service, found, "{} asks for {name}", asked.peer);
        tracking.tell(|file, kind, service| Fact::FileAsked { file, kind, service, found });
        Opened { name, kind, content, tracking }
    }

    fn holders(&self, peer: IpAddr, now: Timestamp) -> Holders {
        let IpAddr::V4(ip) = peer else { return Holders::default() };
        Holders { now: self.leases.mac_of(ip, now), lately: self.leases.mac_of(ip, now - LATELY) }
    }

    fn body(&self, body: BodyRef, ticket: Option<&Ticket>, now: Timestamp) -> Held {
        if let Some(bytes) = self.bodies.small(body) {
            return Held::Small { bytes, body };
        }
        let opened = self.bodies.path(body.sha256).ok_or(io::ErrorKind::NotFound.into()).and_then(File::open);
        let why = match opened {
            Ok(file) => return Held::Body { file, body },
            Err(error) if error.kind() == io::ErrorKind::NotFound => "it has not been fetched yet".to_owned(),
            Err(error) => format!("it cannot be opened: {error}"),
        };
        if let Some(ticket) = ticket {
            let mut told = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
            // Attempts that ended leave their rows; a rack that gathers thousands begins anew rather than grow.
            if told.len() > 10_000 {
                told.clear();
            }
            if told.insert((ticket.machine, ticket.attempt, body.sha256)) {
                tracing::warn!(machine = %ticket.machine, body = %body.sha256, "{} waits for body {}: {why}", ticket.machine, body.sha256);
                self.reporter.fact(ticket, now, Fact::ResourcesMissing { body, why });
            }
        }
        Held::Absent(body)
    }
}

/// Reports how one delivery ends. Says nothing for a client that the plan does not know.
pub struct Tracking {
    reporter: Reporter,
    whose: Option<(SystemId, AttemptId)>,
    file: String,
    kind: FileKind,
    service: &'static str,
}

impl Tracking {
    /// Whether anybody is told of the end.
    #[must_use]
    pub fn is_of_a_machine(&self) -> bool {
        self.whose.is_some()
    }

    /// The far end has the last byte.
    pub fn fetched(self, bytes: u64, took: Duration) {
        let took_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        self.tell(|file, kind, service| Fact::FileFetched { file, kind, service, bytes, took_ms });
    }

    /// It has not.
    pub fn aborted(self, why: &str) {
        tracing::debug!(service = self.service, "{} did not arrive: {why}", self.file);
        self.tell(|file, kind, service| Fact::FileAborted { file, kind, service, why: why.into() });
    }

    fn tell(&self, fact: impl FnOnce(String, FileKind, String) -> Fact) {
        if let Some((machine, attempt)) = self.whose {
            let fact = fact(self.file.clone(), self.kind, self.service.into());
            self.reporter.of(machine, attempt, clock::now(), fact);
        }
    }
}

impl Receipt for Tracking {
    fn fetched(self: Box<Self>, bytes: u64, took: Duration) {
        Tracking::fetched(*self, bytes, took);
    }

    fn aborted(self: Box<Self>, why: &str) {
        Tracking::aborted(*self, why);
    }
}

impl BootFiles for BootDesk {
    fn find(&self, ask: &Ask<'_>) -> Found {
        let rack = SocketAddr::new(ask.local, self.http_port);
        let opened = self
            .open("tftp", &Asked { name: ask.name, peer: ask.peer.ip(), rack, names: self.plan.has_dns(rack.ip()) });
        let bytes = match opened.content {
            Held::Text(text) => Bytes::from(text),
            Held::Small { bytes, .. } => bytes,
            Held::Missing => return Found::Missing,
            Held::Absent(_) => return Found::Unready("the rack has not fetched this file yet; ask again".into()),
            Held::Body { file, .. } => match map(&file) {
                Ok(bytes) => bytes,
                Err(error) => return Found::Unready(format!("the rack cannot read this file: {error}")),
            },
        };
        Found::File { bytes, receipt: Box::new(opened.tracking) }
    }

    fn limits(&self, peer: IpAddr) -> Limits {
        let snapshot = self.plan.load();
        let subnet = snapshot.subnet_of(peer);
        Limits {
            window: if subnet.is_none_or(|s| s.tftp_window) { MAX_WINDOW } else { 1 },
            block: subnet.map(|s| s.mtu.saturating_sub(BLOCK_HEADS)),
            transfers: usize::try_from(snapshot.plan.settings.tftp_transfers).unwrap_or(usize::MAX),
        }
    }
}

/// A body as memory that the page cache backs: five hundred machines that fetch one kernel share its pages.
pub(crate) fn map(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    #[expect(
        unsafe_code,
        reason = "a body is never changed or cut once it has its name: it is written elsewhere, verified, and renamed"
    )]
    let map = unsafe { memmap2::Mmap::map(file) }?;
    Ok(Bytes::from_owner(map))
}
