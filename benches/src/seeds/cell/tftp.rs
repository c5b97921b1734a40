//! The rack's TFTP: which name holds which bytes is `rack::boot`'s answer, each transfer is `rack::tftp::transfer`'s decision.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rack::{
    boot::{self, Asked, Content, Holders},
    tftp::{
        packet::{Code, Mode, Packet},
        transfer::{End, Event, MAX_WINDOW, Send, Step, Then, Transfer},
    },
};
use schema::{
    boot::BodyRef,
    id::{AttemptId, SystemId},
    messages::report::{Fact, FileKind},
    time::Timestamp,
};

use super::{RackEv, dhcp::HTTP};
use crate::seeds::world::World;

/// How long after its end a lease still says who asks, as in `rack::boot::desk`.
const LATELY: Duration = Duration::from_secs(3_600);

/// One transfer.
pub(super) struct Sender {
    transfer: Transfer,
    bytes: Vec<u8>,
    request: Vec<u8>,
    whose: Option<(SystemId, AttemptId)>,
    file: String,
    kind: FileKind,
    begun: Timestamp,
    /// Counts the waits: only the last one's end counts.
    wait: u64,
}

/// What a boot file's name stands for on this rack.
pub(super) enum Held {
    Bytes(Vec<u8>, Option<BodyRef>),
    Missing,
    Absent,
}

/// An answer to a request for a boot file.
pub(super) struct Opened {
    pub(super) held: Held,
    pub(super) file: String,
    pub(super) kind: FileKind,
    pub(super) whose: Option<(SystemId, AttemptId)>,
}

impl World {
    /// As `rack::boot::desk` opens a file: the answer, its bytes, and the report that it was asked for.
    pub(super) fn open_file(&mut self, rack: usize, service: &str, name: &str, peer: IpAddr) -> Opened {
        let now = self.rack_now(rack);
        let node = &self.racks[rack];
        let plan = node.memory.plan.clone();
        let at = SocketAddr::from((node.address, HTTP));
        let asked = Asked { name, peer, rack: at, names: self.scenario.house.names };
        let IpAddr::V4(ip) = peer else { return nothing(name) };
        let lately = Timestamp(now.0 - i64::try_from(LATELY.as_micros()).unwrap_or(0));
        let holders = Holders { now: node.memory.table.mac_of(ip, now), lately: node.memory.table.mac_of(ip, lately) };
        let answer = boot::answer(&plan, &asked, holders, now);
        let whose = answer.ticket.map(|t| (t.machine, t.attempt));
        let (file, kind) = (answer.name.clone(), answer.kind);
        let held = match answer.content {
            Content::Text(text) => Held::Bytes(text.into_bytes(), None),
            Content::Missing => Held::Missing,
            Content::Body(body) => match node.disk.bodies.get(&body.sha256) {
                Some(bytes) => Held::Bytes(bytes.clone(), Some(body)),
                None => {
                    self.missing_body(rack, whose, body);
                    Held::Absent
                }
            },
        };
        if let Some((machine, attempt)) = whose {
            let found = matches!(held, Held::Bytes(..));
            let (file, service) = (file.clone(), service.to_owned());
            self.report(rack, machine, attempt, Fact::FileAsked { file, kind, service, found });
        }
        Opened { held, file, kind, whose }
    }

    /// The absence of a body is reported once per attempt.
    fn missing_body(&mut self, rack: usize, whose: Option<(SystemId, AttemptId)>, body: BodyRef) {
        if let Some((machine, attempt)) = whose
            && self.racks[rack].memory.absent.insert((machine, attempt, body.sha256))
        {
            let why = "it has not been fetched yet".to_owned();
            self.report(rack, machine, attempt, Fact::ResourcesMissing { body, why });
        }
    }

    pub(super) fn tftp_packet(&mut self, rack: usize, metal: usize, socket: u64, bytes: &[u8]) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        let key = (metal, socket);
        if let Packet::Read { name, mode: Mode::Octet | Mode::Netascii, options } = packet {
            if self.racks[rack].memory.transfers.contains_key(&key) {
                return; // It repeated itself before it heard us.
            }
            let Some(peer) = self.metals[metal].ip else { return };
            let opened = self.open_file(rack, "tftp", name, peer.into());
            let (held, begun) = match opened.held {
                Held::Bytes(bytes, _) => (bytes, self.rack_now(rack)),
                Held::Missing => return self.tftp_error(rack, metal, socket, Code::NotFound, "not found"),
                Held::Absent => {
                    let text = "the rack has not fetched this file yet; ask again";
                    return self.tftp_error(rack, metal, socket, Code::Other, text);
                }
            };
            let transfer = Transfer::new(held.len() as u64, &options, 1_468, MAX_WINDOW);
            let (request, whose) = (bytes.to_vec(), opened.whose);
            let (file, kind) = (opened.file, opened.kind);
            let sender = Sender { transfer, bytes: held, request, whose, file, kind, begun, wait: 0 };
            self.racks[rack].memory.transfers.insert(key, sender);
            return self.tftp_step(rack, key, Event::Start);
        }
        if self.racks[rack].memory.transfers.get(&key).is_some_and(|sender| sender.request != bytes) {
            self.tftp_step(rack, key, Event::Packet(packet));
        }
    }

    pub(super) fn tftp_silence(&mut self, rack: usize, metal: usize, socket: u64, number: u64) {
        let sender = self.racks[rack].memory.transfers.get(&(metal, socket));
        if sender.is_some_and(|sender| sender.wait == number) {
            self.tftp_step(rack, (metal, socket), Event::Elapsed);
        }
    }

    fn tftp_error(&mut self, rack: usize, metal: usize, socket: u64, code: Code, message: &str) {
        self.datagram_to(rack, metal, socket, &Packet::Error { code, message }.to_bytes());
    }

    fn tftp_step(&mut self, rack: usize, key: (usize, u64), event: Event<'_>) {
        let Some(sender) = self.racks[rack].memory.transfers.get_mut(&key) else { return };
        let Step { send, then } = sender.transfer.step(event);
        let mut out = Vec::new();
        match send {
            Send::Nothing => {}
            Send::OptionAck(options) => out.push(Packet::OptionAck(options).to_bytes()),
            Send::Blocks { first, count } => {
                for block in first..first + u64::from(count) {
                    let data = sender.bytes.get(sender.transfer.range(block)).unwrap_or_default();
                    let block = u16::try_from(block & 0xffff).unwrap_or(0);
                    out.push(Packet::Data { block, data }.to_bytes());
                }
            }
        }
        if matches!(then, Then::Wait(_)) {
            sender.wait += 1;
        }
        let number = sender.wait;
        for bytes in out {
            self.datagram_to(rack, key.0, key.1, &bytes);
        }
        match then {
            Then::Wait(time) => {
                let (metal, socket) = key;
                self.for_rack(time, rack, RackEv::TftpSilence { metal, socket, number });
            }
            Then::Keep => {}
            Then::Ended(end) => self.tftp_over(rack, key, end),
        }
    }

    fn tftp_over(&mut self, rack: usize, key: (usize, u64), end: End) {
        let now = self.rack_now(rack);
        let Some(sender) = self.racks[rack].memory.transfers.remove(&key) else { return };
        let Some((machine, attempt)) = sender.whose else { return };
        let (file, kind, service) = (sender.file, sender.kind, "tftp".to_owned());
        if end == End::Complete {
            let bytes = sender.bytes.len() as u64;
            let took_ms = u32::try_from(now.since(sender.begun).as_millis()).unwrap_or(u32::MAX);
            let fact = Fact::FileFetched { file, kind, service, bytes, took_ms };
            return self.report(rack, machine, attempt, fact);
        }
        if let Some(why) = end.why(sender.transfer.block()) {
            self.report(rack, machine, attempt, Fact::FileAborted { file, kind, service, why });
        }
    }
}

fn nothing(name: &str) -> Opened {
    Opened { held: Held::Missing, file: name.to_owned(), kind: FileKind::Other, whose: None }
}
