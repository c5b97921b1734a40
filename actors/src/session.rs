//! The session of reports between one rack and one region: what to send, what is a repeat, what may be acknowledged. No I/O, no clock.
//!
//! A rack numbers its reports upwards on disk (numbers may be missing: a full outbox drops its cheapest). [`Sending`] says
//! which of them to send over the connection that is up; [`Receiving`] says which are new to the region, and up to where all
//! are durable. Together: every report takes effect once and in the rack's order, over cuts and restarts of either side.
//!
//! ```
//! # use actors::session::{Receiving, Sending, Taken};
//! # use schema::id::ReportSeq;
//! let mut rack = Sending::new(256);
//! let mut region = Receiving::new(ReportSeq(7));       // what its store says
//! rack.up(ReportSeq(7));                               // what Welcome says; the outbox forgets reports up to there
//! let want = rack.wants().unwrap();                    // read the outbox after 7, at most 256
//! assert_eq!((want.after, want.room), (ReportSeq(7), 256));
//! rack.sent(ReportSeq(8));
//! region.connected();
//! assert_eq!(region.take(ReportSeq(8)), Taken::New);   // give it to its machine
//! assert_eq!(region.durable(ReportSeq(8)), Some(ReportSeq(8))); // record, then acknowledge
//! assert_eq!(rack.acked(ReportSeq(8)), Some(ReportSeq(8)));     // the outbox forgets it
//! ```

use std::collections::{BTreeMap, VecDeque};

use schema::id::ReportSeq;

/// The rack's side of one link. Kept in memory only: the outbox on disk and the region's Welcome restore it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    window: usize,
    up: bool,
    /// The newest that was sent over this connection, or that the region had before.
    sent: ReportSeq,
    /// Sent and not acknowledged, in order.
    under_way: VecDeque<ReportSeq>,
}

/// What to read from the outbox and send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Reports with higher numbers, lowest first.
    pub after: ReportSeq,
    /// At most so many.
    pub room: usize,
}

impl Sending {
    /// A session that is down. `window`: reports that may be under way unacknowledged, 1 or more.
    #[must_use]
    pub fn new(window: usize) -> Self {
        Self { window: window.max(1), up: false, sent: ReportSeq(0), under_way: VecDeque::new() }
    }

    /// The region said Welcome: everything after `last_report` is sent (again). Up to there the outbox forgets.
    pub fn up(&mut self, last_report: ReportSeq) {
        *self = Self { up: true, sent: last_report, ..Self::new(self.window) };
    }

    /// The connection has ended: what was under way may be lost.
    pub fn down(&mut self) {
        self.up = false;
        self.under_way.clear();
    }

    /// What to send next; `None` while the link is down or the window is full.
    #[must_use]
    pub fn wants(&self) -> Option<Want> {
        let room = self.window.saturating_sub(self.under_way.len());
        (self.up && room > 0).then_some(Want { after: self.sent, room })
    }

    /// That report was handed to the link. Numbers that do not grow, and reports after the connection's end, count for nothing.
    pub fn sent(&mut self, seq: ReportSeq) {
        if self.up && seq > self.sent {
            self.sent = seq;
            self.under_way.push_back(seq);
        }
    }

    /// The region acknowledged; `Some`: the outbox forgets up to there. An acknowledgement of what was not sent is cut to what
    /// was, so that a region with a fault cannot make a rack forget.
    pub fn acked(&mut self, through: ReportSeq) -> Option<ReportSeq> {
        let mut newest = None;
        while let Some(first) = self.under_way.front().copied().filter(|s| *s <= through) {
            newest = Some(first);
            self.under_way.pop_front();
        }
        newest
    }

    /// Reports under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }
}

/// The region's side for one rack. Lives as long as the region's process knows the rack, across its connections: a report that
/// is being worked on must not be begun again since the rack has reconnected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiving {
    /// Everything up to here is durable.
    through: ReportSeq,
    /// The highest that came over this connection. The rack sends what it has in order, so below it nothing is still to come;
    /// above it a missing number may be one that the rack dropped, or one that it will send again.
    reached: ReportSeq,
    /// Taken above the line.
    above: BTreeMap<ReportSeq, State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    UnderWay,
    Durable,
    /// Not recorded; the connection is to be closed.
    Failed,
    /// Not recorded, and the rack has begun to send anew.
    Awaited,
}

/// What a report is to the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Give it to its machine, and say [`Receiving::durable`] when that is recorded.
    New,
    /// It is durable already: record `through` where that is news, and acknowledge again, since the rack has not heard it.
    Repeat { through: ReportSeq },
    /// It is being worked on; its acknowledgement will come.
    UnderWay,
    /// It comes after a later one: the rack's side has a fault. Drop it and close the connection; the rack then begins anew.
    OutOfOrder { after: ReportSeq },
}

impl Receiving {
    /// As the store has it: every report up to and with `through` is durable.
    #[must_use]
    pub fn new(through: ReportSeq) -> Self {
        Self::restore(through, [])
    }

    /// As a store has it that also knows which reports above are durable, so that not even a restart repeats one.
    #[must_use]
    pub fn restore(through: ReportSeq, above: impl IntoIterator<Item = ReportSeq>) -> Self {
        let above = above.into_iter().filter(|s| *s > through).map(|s| (s, State::Durable)).collect();
        Self { through, reached: through, above }
    }

    /// What Welcome says.
    #[must_use]
    pub fn last_report(&self) -> ReportSeq {
        self.through
    }

    /// The rack has connected, and will send what it still has after [`Receiving::last_report`], lowest first.
    pub fn connected(&mut self) {
        self.reached = self.through;
        for state in self.above.values_mut().filter(|s| **s == State::Failed) {
            *state = State::Awaited;
        }
    }

    /// A report came.
    pub fn take(&mut self, seq: ReportSeq) -> Taken {
        self.above.retain(|held, state| *held >= seq || *state != State::Awaited);
        let before = self.reached;
        self.reached = before.max(seq);
        self.advance();
        if seq <= self.through {
            return Taken::Repeat { through: self.through };
        }
        match self.above.get(&seq) {
            Some(State::UnderWay | State::Durable) => Taken::UnderWay,
            None if seq <= before => Taken::OutOfOrder { after: before },
            Some(State::Failed | State::Awaited) | None => {
                self.above.insert(seq, State::UnderWay);
                Taken::New
            }
        }
    }

    /// The report's effect is durable, or it will never have one (ignored, refused, its machine gone: say so in the log).
    /// `Some(through)`: nothing is missing up to there; record that, then acknowledge it.
    pub fn durable(&mut self, seq: ReportSeq) -> Option<ReportSeq> {
        *self.above.get_mut(&seq)? = State::Durable;
        let before = self.through;
        self.advance();
        (self.through > before).then_some(self.through)
    }

    fn advance(&mut self) {
        while let Some(first) = self.above.first_entry() {
            if *first.get() != State::Durable || *first.key() > self.reached {
                return;
            }
            self.through = *first.key();
            first.remove();
        }
    }

    /// The report could not be recorded now. Close the connection: on the next one the rack sends it again, and it is new again.
    pub fn failed(&mut self, seq: ReportSeq) {
        if let Some(state @ State::UnderWay) = self.above.get_mut(&seq) {
            *state = State::Failed;
        }
    }

    /// Reports taken and not yet below the acknowledged line.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.above.len()
    }
}
