//! Facts into the rack's outbox, and from there to the region, as `rack::outbox` does it: durable first, in order, again until acknowledged.

use std::time::Duration;

use actors::session::Want;
use schema::{
    id::ReportSeq,
    messages::{
        link::FromRack,
        report::{Fact, Report},
    },
};

use super::{Disk, Fresh, RackEv};
use crate::seeds::world::World;

const SILENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(5);
/// When an acknowledgement reaches the disk for which nothing else was written.
const ACKED_LATEST: Duration = Duration::from_secs(1);

impl Disk {
    /// Puts facts into the outbox: numbered, and within its bounds.
    pub(super) fn put(&mut self, facts: impl IntoIterator<Item = Fresh>) {
        for Fresh { machine, attempt, at, fact } in facts {
            self.last += 1;
            let report = Report { seq: ReportSeq(self.last), at, machine, attempt, fact };
            let bytes = serde_json::to_vec(&report).map_or(0, |text| text.len() as u64);
            self.index.add(self.last, bytes, &report.fact);
            self.outbox.insert(self.last, report);
        }
        self.most = self.most.max(self.outbox.len());
        for gone in self.index.overflow() {
            self.outbox.remove(&gone);
        }
    }

    pub(super) fn forget(&mut self, through: ReportSeq) {
        for gone in self.index.acked(through.0) {
            self.outbox.remove(&gone);
        }
    }
}

impl World {
    /// What the servers saw goes to the disk together, one write after the other.
    pub(in crate::seeds) fn gather_facts(&mut self, rack: usize) {
        let memory = &mut self.racks[rack].memory;
        if memory.writing.is_some() || (memory.fresh.is_empty() && memory.settling.is_empty()) {
            return;
        }
        memory.writing = Some((std::mem::take(&mut memory.fresh), std::mem::take(&mut memory.settling)));
        let wait = self.rack_write(rack);
        self.for_rack(wait, rack, RackEv::Gathered);
    }

    pub(in crate::seeds) fn gathered(&mut self, rack: usize) {
        let Some((facts, settling)) = self.racks[rack].memory.writing.take() else { return };
        if !facts.is_empty() && self.refuses(rack) {
            // Facts wait in memory until the disk takes them.
            self.racks[rack].memory.writing = Some((facts, settling));
            return self.for_rack(AGAIN, rack, RackEv::Gathered);
        }
        self.forget_acked(rack);
        self.racks[rack].disk.put(facts);
        for answer in settling {
            self.answer_machine(rack, answer.metal, answer.request, answer.status, answer.body);
        }
        self.drain(rack);
        self.gather_facts(rack);
    }

    /// Sends what may be sent.
    pub(in crate::seeds) fn drain(&mut self, rack: usize) {
        if !self.racks[rack].memory.listening {
            return;
        }
        let mut sent = false;
        while let Some(Want { after, room }) = self.racks[rack].memory.sending.as_ref().and_then(|s| s.wants()) {
            let outbox = &self.racks[rack].disk.outbox;
            let batch: Vec<Report> = outbox.range(after.0 + 1..).take(room.min(256)).map(|(_, r)| r.clone()).collect();
            if batch.is_empty() {
                break;
            }
            for report in batch {
                let seq = report.seq;
                self.upload(rack, &report);
                if !self.say_to_region(rack, FromRack::Report(report)) {
                    return;
                }
                sent = true;
                if let Some(sending) = &mut self.racks[rack].memory.sending {
                    sending.sent(seq);
                }
            }
        }
        if sent {
            let acked = self.racks[rack].memory.acked;
            self.for_rack(SILENCE, rack, RackEv::Silence { acked });
        }
    }

    /// Large outputs go before the report that names them.
    fn upload(&mut self, rack: usize, report: &Report) {
        let Fact::ScriptEnded { output, .. } = &report.fact else { return };
        let parts = [&output.combined, &output.stdout, &output.stderr, &output.result];
        for content in parts.into_iter().flatten().filter(|c| c.inline.is_none()) {
            if let Some(bytes) = self.racks[rack].disk.bodies.get(&content.body.sha256) {
                self.region.store.bodies.insert(content.body.sha256, bytes.clone());
            }
        }
    }

    pub(in crate::seeds) fn acked(&mut self, rack: usize, through: ReportSeq) {
        let node = &mut self.racks[rack];
        node.memory.acked = node.memory.acked.max(through);
        if let Some(through) = node.memory.sending.as_mut().and_then(|sending| sending.acked(through))
            && node.memory.forgets.replace(through).is_none()
        {
            self.for_rack(ACKED_LATEST, rack, RackEv::Forget);
        }
        self.drain(rack);
    }

    pub(in crate::seeds) fn forget_acked(&mut self, rack: usize) {
        if let Some(through) = self.racks[rack].memory.forgets.take()
            && !self.refuses(rack)
        {
            self.racks[rack].disk.forget(through);
        }
    }

    /// The region has said nothing for long: what is out is sent again.
    pub(in crate::seeds) fn outbox_silence(&mut self, rack: usize, acked: ReportSeq) {
        let memory = &mut self.racks[rack].memory;
        if let Some(sending) = memory.sending.as_mut().filter(|s| memory.acked == acked && s.under_way() > 0) {
            sending.up(acked);
            self.drain(rack);
        }
    }
}
