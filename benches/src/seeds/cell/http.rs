//! The rack's HTTP: boot files by `rack::http::files`, metadata by `rack::http::metadata`, both as pure answers.

use std::{cell::Cell, io, net::SocketAddr, time::Duration};

use rack::{
    boot::host::host,
    http::{
        files::{self, Entity},
        metadata::{self, Answer, Body, Method, Request as Asked},
    },
};
use schema::{
    boot::{BodyRef, Sha256},
    id::{AttemptId, SystemId},
    messages::report::{Fact, FileKind},
    time::Timestamp,
};

use super::{RackEv, Settling, dhcp::HTTP, tftp::Held};
use crate::{
    machine::Request,
    seeds::{
        metal::MetalEv,
        weather::Way,
        world::{Ev, World},
    },
};

/// A delivery whose last byte is yet to arrive.
struct Delivery {
    whose: (SystemId, AttemptId),
    file: String,
    kind: FileKind,
    bytes: u64,
    since: Timestamp,
}

impl World {
    pub(super) fn http_request(&mut self, rack: usize, metal: usize, request: u64, asked: &Request) {
        let at = asked.bytes.windows(4).position(|w| w == b"\r\n\r\n").map_or(asked.bytes.len(), |at| at + 4);
        let (head, body) = asked.bytes.split_at(at);
        let text = String::from_utf8_lossy(head).into_owned();
        let mut words = text.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if target.starts_with("/MAAS/") {
            return self.metadata(rack, metal, request, method, target, &text, body);
        }
        let Some(peer) = self.metals[metal].ip else { return };
        let Ok(Some((asking, _))) = files::parse(head) else {
            return self.answer_machine(rack, metal, request, 400, Vec::new());
        };
        let since = self.rack_now(rack);
        let opened = self.open_file(rack, "http", &asking.path, peer.into());
        let (entity, bytes) = match opened.held {
            Held::Bytes(bytes, Some(body)) => (Entity::Body { len: body.len, sha256: body.sha256 }, bytes),
            Held::Bytes(bytes, None) => (Entity::Text { len: bytes.len() as u64 }, bytes),
            Held::Missing => (Entity::Missing, Vec::new()),
            Held::Absent => (Entity::Absent, Vec::new()),
        };
        let reply = files::reply(&asking, entity);
        let whole = bytes.len() as u64;
        let part = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
        let part = bytes.get(part(reply.range.start)..part(reply.range.end)).unwrap_or_default();
        let sent = if asking.head_only { Vec::new() } else { part.to_vec() };
        let delivery = opened.whose.filter(|_| reply.ends_at(whole) && !asking.head_only).map(|whose| Delivery {
            whose,
            file: opened.file,
            kind: opened.kind,
            bytes: whole,
            since,
        });
        let over = self.metals[metal].overflows(&asking.path);
        let way = self.send_answer(rack, metal, request, reply.status, sent);
        if let (Some(d), Some(way)) = (delivery, way) {
            // The far end's acknowledgement comes back, if the machine is there to give it.
            let back = way + self.weather.stream(&mut self.draw);
            let (whose, file, kind, bytes, since) = (d.whose, d.file, d.kind, d.bytes, d.since);
            let ok = self.metals[metal].awaits(request) && !over;
            self.for_rack(back, rack, RackEv::Arrived { whose, file, kind, bytes, since, ok });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one event")]
    pub(super) fn arrived(
        &mut self,
        rack: usize,
        (machine, attempt): (SystemId, AttemptId),
        file: String,
        kind: FileKind,
        bytes: u64,
        since: Timestamp,
        ok: bool,
    ) {
        let service = "http".to_owned();
        let took_ms = u32::try_from(self.rack_now(rack).since(since).as_millis()).unwrap_or(u32::MAX);
        let fact = if ok {
            Fact::FileFetched { file, kind, service, bytes, took_ms }
        } else {
            let why = "the machine left with bytes unacknowledged".to_owned();
            Fact::FileAborted { file, kind, service, why }
        };
        self.report(rack, machine, attempt, fact);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one request")]
    fn metadata(
        &mut self,
        rack: usize,
        metal: usize,
        request: u64,
        method: &str,
        target: &str,
        head: &str,
        body: &[u8],
    ) {
        let now = self.rack_now(rack);
        let Some(from) = self.metals[metal].ip else { return };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let field = |name: &str| {
            head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name))).map(|(_, v)| v)
        };
        let node = &self.racks[rack];
        let at = SocketAddr::from((node.address, HTTP));
        let host = host(&node.memory.plan, from.into(), at, self.scenario.house.names);
        let method = if method == "POST" { Method::POST } else { Method::GET };
        let asked = Asked {
            method: &method,
            path,
            query,
            from: from.into(),
            host: &host,
            proxy: None,
            authorization: field("authorization"),
            content_type: field("content-type"),
            body,
        };
        let plan = node.memory.plan.clone();
        let answer = match metadata::admit(&asked, &plan, now) {
            Err(refusal) => *refusal,
            Ok(_) => metadata::answer(&asked, &plan, &node.memory.table, &node.memory.progress, now),
        };
        self.carry_out_answer(rack, metal, request, answer);
    }

    /// Outputs to disk, then facts to the outbox, then the answer: as `rack::http::metadata` carries it out.
    fn carry_out_answer(&mut self, rack: usize, metal: usize, request: u64, mut answer: Answer) {
        let now = self.rack_now(rack);
        let dear = answer.facts.iter().any(|f| matches!(f, Fact::ScriptEnded { .. } | Fact::Finished { .. }));
        let bodies = &self.racks[rack].disk.bodies;
        let missed = Cell::new(None);
        let lost = |body, why: &str| {
            missed.set(Some((body, why.to_owned())));
            io::Error::new(io::ErrorKind::NotFound, why)
        };
        let read = |body: BodyRef| match bodies.get(&body.sha256) {
            Some(bytes) if Sha256::of(bytes) == body.sha256 => Ok(bytes.clone()),
            Some(_) => Err(lost(body, "its bytes on the rack's disk were damaged; it is fetched anew")),
            None => Err(lost(body, "No such file or directory (os error 2)")),
        };
        let bytes = match std::mem::replace(&mut answer.response.body, Body::Bytes(Vec::new())) {
            Body::Bytes(bytes) => Ok(bytes),
            Body::Stored(body) => read(body),
            Body::Tar(members) => metadata::assemble(&members, now, read),
        };
        if let Some((body, why)) = missed.take() {
            self.racks[rack].disk.bodies.remove(&body.sha256);
            if let Some((machine, attempt)) = answer.about {
                self.report(rack, machine, attempt, Fact::ResourcesMissing { body, why });
            }
            self.fetch(rack);
        }
        let full = !answer.keep.is_empty() && self.refuses(rack);
        let Some(bytes) = bytes.ok().filter(|_| !full) else {
            return self.answer_machine(rack, metal, request, 503, Vec::new());
        };
        for output in &answer.keep {
            self.racks[rack].disk.bodies.insert(Sha256::of(output), output.clone());
        }
        if let Some((machine, attempt)) = answer.about {
            for fact in answer.facts.drain(..) {
                if self.racks[rack].memory.progress.note(machine, attempt, &fact, now) {
                    self.report(rack, machine, attempt, fact);
                }
            }
        }
        let status = answer.response.status;
        if dear {
            // What the machine takes for delivered survives a kill of the rack.
            self.racks[rack].memory.settling.push(Settling { metal, request, status, body: bytes });
            return self.gather_facts(rack);
        }
        self.answer_machine(rack, metal, request, status, bytes);
    }

    pub(super) fn answer_machine(&mut self, rack: usize, metal: usize, request: u64, status: u16, body: Vec<u8>) {
        self.send_answer(rack, metal, request, status, body);
    }

    /// After how long it arrives; `None`: the way is cut, and the connection hangs.
    fn send_answer(&mut self, rack: usize, metal: usize, request: u64, status: u16, body: Vec<u8>) -> Option<Duration> {
        if self.cuts.has(Way::Machines(rack)) {
            return None;
        }
        let way = self.weather.stream(&mut self.draw);
        let what = MetalEv::Answered { request, status, body };
        self.queue.after(way, Ev::Metal { index: metal, what });
        Some(way)
    }
}
