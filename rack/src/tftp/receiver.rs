//! One transfer from the receiver's side, as decisions: what simulated machines and tests answer a server with.

use std::time::Duration;

use super::{
    packet::{Code, Options, Packet},
    transfer::{DEFAULT_BLOCK, Event, TRIES},
};

/// What to send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Nothing,
    /// The read request, again.
    Request,
    Ack(u16),
    Error(Code),
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// [`Event::Elapsed`] is due after this time.
    Wait(Duration),
    /// Everything is here. The sender may repeat its last window when the last ACK is lost: answering [`Receiver::step`]
    /// for a while longer (RFC 1350 section 6, dallying) ends that early.
    Complete,
    Failed(String),
}

/// A decision. `take`: the packet's data is the file's next piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub reply: Reply,
    pub take: bool,
    pub next: Next,
}

/// The receiving side of one transfer.
#[derive(Debug, Clone)]
pub struct Receiver {
    asked: Options,
    block: u16,
    window: u16,
    /// Bytes of the file by the server's OACK.
    size: Option<u64>,
    /// Blocks received in order.
    received: u64,
    /// How many of them since the last ACK.
    unacknowledged: u16,
    /// A gap was already answered; the rest of that window is dropped in silence.
    gap_told: bool,
    started: bool,
    complete: bool,
    tries: u8,
    patience: Duration,
}

impl Receiver {
    /// A receiver that asks for `asked`, and repeats itself after `patience`.
    #[must_use]
    pub fn new(asked: Options, patience: Duration) -> Self {
        Self {
            asked,
            block: DEFAULT_BLOCK,
            window: 1,
            size: None,
            received: 0,
            unacknowledged: 0,
            gap_told: false,
            started: false,
            complete: false,
            tries: 0,
            patience,
        }
    }

    /// Bytes of the file, when the server said so.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Decides what follows an event.
    pub fn step(&mut self, event: Event<'_>) -> Heard {
        match event {
            Event::Start => self.say(Reply::Request),
            Event::Elapsed => self.repeat(),
            Event::Packet(Packet::OptionAck(granted)) => self.options(&granted),
            Event::Packet(Packet::Data { block, data }) => self.data(block, data.len()),
            Event::Packet(Packet::Error { code, message }) => {
                self.failed(Reply::Nothing, format!("the server refused: ERROR {} {message}", code.number()))
            }
            Event::Packet(_) => self.say(Reply::Nothing),
        }
    }

    fn options(&mut self, granted: &Options) -> Heard {
        if self.started {
            // The OACK again: our ACK 0 was lost, unless data has come.
            return self.say(if self.received == 0 { Reply::Ack(0) } else { Reply::Nothing });
        }
        let too_much = granted.blksize > self.asked.blksize || granted.windowsize > self.asked.windowsize;
        if too_much {
            return self.failed(Reply::Error(Code::Options), "the server granted more than was asked for".into());
        }
        self.started = true;
        self.block = granted.blksize.unwrap_or(DEFAULT_BLOCK);
        self.window = granted.windowsize.unwrap_or(1);
        self.size = granted.tsize;
        self.say(Reply::Ack(0))
    }

    fn data(&mut self, block: u16, len: usize) -> Heard {
        self.started = true;
        let ahead = block.wrapping_sub(self.low());
        if self.complete || ahead == 0 {
            // What we have comes again. After a whole window our ACK was lost; inside one it is a double, and an ACK would
            // make the sender begin the window anew.
            return self.say(if self.unacknowledged == 0 { Reply::Ack(self.low()) } else { Reply::Nothing });
        }
        if ahead != 1 {
            let gap = ahead <= self.window && !self.gap_told;
            self.gap_told |= gap;
            self.unacknowledged = 0;
            return self.say(if gap { Reply::Ack(self.low()) } else { Reply::Nothing });
        }
        self.received += 1;
        self.unacknowledged += 1;
        self.gap_told = false;
        self.tries = 0;
        self.complete = len < usize::from(self.block);
        let reply = if self.complete || self.unacknowledged >= self.window {
            self.unacknowledged = 0;
            Reply::Ack(self.low())
        } else {
            Reply::Nothing
        };
        Heard { take: true, ..self.say(reply) }
    }

    fn repeat(&mut self) -> Heard {
        self.tries += 1;
        if self.tries >= TRIES && !self.complete {
            return self.failed(Reply::Nothing, format!("no answer after {} blocks", self.received));
        }
        self.unacknowledged = 0;
        self.gap_told = false;
        self.say(if self.started { Reply::Ack(self.low()) } else { Reply::Request })
    }

    fn low(&self) -> u16 {
        (self.received & 0xffff) as u16
    }

    fn say(&self, reply: Reply) -> Heard {
        let next = if self.complete { Next::Complete } else { Next::Wait(self.patience) };
        Heard { reply, take: false, next }
    }

    fn failed(&self, reply: Reply, why: String) -> Heard {
        Heard { reply, take: false, next: Next::Failed(why) }
    }
}
