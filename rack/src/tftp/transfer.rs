//! One transfer from the sender's side, as decisions: what to send after each packet and each silence. Holds no socket, no clock, no bytes of the file.
//!
//! RFC 1350 (lock step), RFC 2347 (option acknowledgement), RFC 2348 (block size), RFC 2349 (size, time-out), RFC 7440 (windows).
//!
//! A duplicate acknowledgement sends nothing: only silence repeats a block. So no duplicate breeds another (RFC 1123 section 4.2.3.1).
//! The price: when exactly the first block of a window is lost, the window waits for the time-out.

use std::time::Duration;

use schema::messages::report::Fact;

use super::packet::{Code, Options, Packet};

/// Largest window that is granted. Firmware is known to acknowledge larger ones wrongly.
pub const MAX_WINDOW: u16 = 16;
/// How often the same packet or window is sent before the far end counts as gone.
pub const TRIES: u8 = 6;
/// Block size without options (RFC 1350).
pub const DEFAULT_BLOCK: u16 = 512;

/// Something that happened to a transfer.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The request was accepted.
    Start,
    /// A packet of the far end.
    Packet(Packet<'a>),
    /// The time given by the last [`Then::Wait`] went by.
    Elapsed,
}

/// What to send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Send {
    Nothing,
    OptionAck(Options),
    /// DATA packets `first..first + count`. Blocks count from 1 without wrapping; the wire carries the low 16 bits.
    Blocks {
        first: u64,
        count: u16,
    },
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// [`Event::Elapsed`] is due after this time; replaces the time before.
    Wait(Duration),
    /// The time under way goes on.
    Keep,
    Ended(End),
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The last byte is acknowledged.
    Complete,
    /// The client asked for the size only and broke off before any data was acknowledged (UEFI does so with ERROR 8).
    Probe,
    /// The client sent ERROR.
    Refused { code: Code, message: String },
    /// The far end was silent through all tries; blocks acknowledged until then.
    Silent { acknowledged: u64 },
}

impl End {
    /// Why no file arrived; `None` where one did, or where none was meant to. `block`: bytes in each.
    #[must_use]
    pub fn why(&self, block: usize) -> Option<String> {
        match self {
            Self::Complete | Self::Probe => None,
            Self::Refused { code, message } => {
                Some(format!("the machine broke off with ERROR {}: {message}", code.number()))
            }
            Self::Silent { acknowledged: 0 } => Some(format!(
                "{} and acknowledged none of the blocks of {block} bytes: do datagrams of that size reach it (MTU, fragments, firewall)?",
                Fact::FELL_SILENT
            )),
            Self::Silent { acknowledged } => Some(format!("{} after block {acknowledged}", Fact::FELL_SILENT)),
        }
    }
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub send: Send,
    pub then: Then,
}

/// The sending side of one transfer.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Bytes of the file.
    len: u64,
    block: u16,
    window: u16,
    /// What the client asked for and gets; `None`: no option was asked for, so no OACK is sent.
    granted: Option<Options>,
    timeout_s: Option<u8>,
    /// The last block that is acknowledged; `None` while the OACK is not.
    acknowledged: Option<u64>,
    /// The last block that was sent.
    sent: u64,
    /// How often what is outstanding was sent.
    tries: u8,
}

impl Transfer {
    /// Bytes of a block.
    #[must_use]
    pub fn block(&self) -> usize {
        self.block.into()
    }

    /// A transfer of `len` bytes to a client that asked for `asked`; `max_block` in bytes, `max_window` in blocks.
    #[must_use]
    pub fn new(len: u64, asked: &Options, max_block: u16, max_window: u16) -> Self {
        let max_window = max_window.clamp(1, MAX_WINDOW);
        let granted = Options {
            blksize: asked.blksize.map(|b| b.min(max_block.max(8))),
            tsize: asked.tsize.map(|_| len),
            timeout_s: asked.timeout_s,
            // Where windows are switched off the option is left out: a client then knows that it has lock step.
            windowsize: asked.windowsize.filter(|_| max_window > 1).map(|w| w.min(max_window)),
        };
        Self {
            len,
            block: granted.blksize.unwrap_or(DEFAULT_BLOCK),
            window: granted.windowsize.unwrap_or(1),
            granted: (!granted.is_empty()).then_some(granted),
            timeout_s: granted.timeout_s,
            acknowledged: None,
            sent: 0,
            tries: 0,
        }
    }

    /// Bytes of a full block.
    #[must_use]
    pub fn block_size(&self) -> u16 {
        self.block
    }

    /// Blocks per acknowledgement.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.window
    }

    /// Number of the last block, which is shorter than the others and may be empty (RFC 1350 section 6).
    #[must_use]
    pub fn last_block(&self) -> u64 {
        self.len / u64::from(self.block) + 1
    }

    /// The place of that block in the file; empty beyond its end.
    #[must_use]
    pub fn range(&self, block: u64) -> std::ops::Range<usize> {
        let at = |n: u64| usize::try_from(n.saturating_mul(u64::from(self.block)).min(self.len)).unwrap_or(usize::MAX);
        at(block.saturating_sub(1))..at(block)
    }

    /// Whether the far end has acknowledged any data.
    #[must_use]
    pub fn moved(&self) -> bool {
        self.acknowledged.is_some_and(|block| block > 0)
    }

    /// Decides what follows an event.
    pub fn step(&mut self, event: Event<'_>) -> Step {
        if self.acknowledged.is_some_and(|block| block >= self.last_block()) {
            return Step { send: Send::Nothing, then: Then::Ended(End::Complete) };
        }
        match event {
            Event::Start => self.start(),
            Event::Packet(Packet::Ack { block }) => self.hear(block),
            Event::Packet(Packet::Error { code, message }) => Self::refused(self.moved(), code, message),
            // Nothing else comes from a client that reads; its own silence or ERROR will end it.
            Event::Packet(_) => Step { send: Send::Nothing, then: Then::Keep },
            Event::Elapsed => self.repeat(),
        }
    }

    fn start(&mut self) -> Step {
        self.tries = 1;
        match self.granted {
            Some(granted) => Step { send: Send::OptionAck(granted), then: Then::Wait(self.patience()) },
            None => self.advance(0),
        }
    }

    fn hear(&mut self, block: u16) -> Step {
        let Some(acknowledged) = self.acknowledged else {
            // RFC 2347: ACK 0 accepts the options.
            return if block == 0 { self.advance(0) } else { Step { send: Send::Nothing, then: Then::Keep } };
        };
        // The wire's 16 bits are unambiguous: at most 16 blocks are outstanding.
        let ahead = u64::from(block.wrapping_sub((acknowledged & 0xffff) as u16));
        if ahead == 0 || ahead > self.sent - acknowledged {
            return Step { send: Send::Nothing, then: Then::Keep };
        }
        self.advance(acknowledged + ahead)
    }

    /// Everything up to `acknowledged` has arrived; the next window goes out. After a gap it begins where the gap was (RFC 7440 section 4).
    fn advance(&mut self, acknowledged: u64) -> Step {
        self.acknowledged = Some(acknowledged);
        self.tries = 1;
        if acknowledged >= self.last_block() {
            return Step { send: Send::Nothing, then: Then::Ended(End::Complete) };
        }
        self.send_window(acknowledged)
    }

    fn send_window(&mut self, acknowledged: u64) -> Step {
        let left = self.last_block() - acknowledged;
        let count = u16::try_from(left).unwrap_or(u16::MAX).min(self.window);
        self.sent = acknowledged + u64::from(count);
        Step { send: Send::Blocks { first: acknowledged + 1, count }, then: Then::Wait(self.patience()) }
    }

    fn repeat(&mut self) -> Step {
        if self.tries >= TRIES {
            let acknowledged = self.acknowledged.unwrap_or(0);
            return Step { send: Send::Nothing, then: Then::Ended(End::Silent { acknowledged }) };
        }
        self.tries += 1;
        match (self.acknowledged, self.granted) {
            (None, Some(granted)) => Step { send: Send::OptionAck(granted), then: Then::Wait(self.patience()) },
            (acknowledged, _) => self.send_window(acknowledged.unwrap_or(0)),
        }
    }

    fn refused(moved: bool, code: Code, message: &str) -> Step {
        let end = if moved { End::Refused { code, message: message.chars().take(128).collect() } } else { End::Probe };
        Step { send: Send::Nothing, then: Then::Ended(end) }
    }

    /// The client's own time-out when it named one (RFC 2349), else 1, 2, 4, 8, 8, 8 seconds.
    fn patience(&self) -> Duration {
        let seconds = self.timeout_s.map_or(1 << u32::from(self.tries.saturating_sub(1).min(3)), u64::from);
        Duration::from_secs(seconds)
    }
}
