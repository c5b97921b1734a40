//! Where the servers drop what they saw of a machine. Numbering, keeping and sending are the outbox's business.

use schema::{
    id::{AttemptId, SystemId},
    messages::report::Fact,
    plan::{Lease, Ticket},
    time::Timestamp,
};
use tokio::sync::mpsc;

/// Something a server saw.
#[derive(Debug, Clone)]
pub enum Seen {
    /// A fact about a machine under a ticket or an order.
    Fact { machine: SystemId, attempt: AttemptId, at: Timestamp, fact: Fact },
    /// A lease that is durable (`expires` = `granted` of the report: released).
    Lease(Lease),
    /// Every lease that was granted, renewed or ended before that moment was reported before this.
    LeasesThrough(Timestamp),
    /// Somebody waits until all that came before is durable; a word, or the end of this sender, tells it so.
    Settle(mpsc::UnboundedSender<()>),
}

/// The servers' end of the outbox. Sending never blocks a packet: the queue has no bound here,
/// and is drained into the outbox on disk, which has one.
#[derive(Debug, Clone)]
pub struct Reporter {
    sender: mpsc::UnboundedSender<Seen>,
    /// Whether the other end makes durable what it reads.
    kept: bool,
}

impl Reporter {
    /// A reporter and the end that the outbox (or a test) reads.
    #[must_use]
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Seen>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, kept: false }, receiver)
    }

    /// As [`Reporter::channel`], for a reader that makes durable what it reads and answers [`Seen::Settle`].
    #[must_use]
    pub fn kept() -> (Self, mpsc::UnboundedReceiver<Seen>) {
        let (reporter, receiver) = Self::channel();
        (Self { kept: true, ..reporter }, receiver)
    }

    /// Resolves when all that was reported before is durable: what must not be lost is confirmed to a machine after this only.
    pub async fn settled(&self) {
        if self.kept {
            let (done, mut settled) = mpsc::unbounded_channel();
            self.sender.send(Seen::Settle(done)).ok(); // No reader: the rack is going down.
            settled.recv().await;
        }
    }

    /// Reports a fact about the ticket's machine. A rack that is shutting down drops it.
    pub fn fact(&self, ticket: &Ticket, at: Timestamp, fact: Fact) {
        self.of(ticket.machine, ticket.attempt, at, fact);
    }

    /// Reports a fact about a machine by its ids.
    pub fn of(&self, machine: SystemId, attempt: AttemptId, at: Timestamp, fact: Fact) {
        self.sender.send(Seen::Fact { machine, attempt, at, fact }).ok(); // No reader: the rack is going down.
    }

    /// Reports a durable lease.
    pub fn lease(&self, lease: Lease) {
        self.sender.send(Seen::Lease(lease)).ok(); // As above.
    }

    /// Says that every lease of before `through` was reported.
    pub fn leases_through(&self, through: Timestamp) {
        self.sender.send(Seen::LeasesThrough(through)).ok(); // As above.
    }
}
