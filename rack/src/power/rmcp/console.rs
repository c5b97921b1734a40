//! The console's end of a session as decisions: what to send after each request, datagram and silence. Setting a session up is the file below.
//!
//! A lost packet is sent again with a new number; a lost RAKP message starts over from Open Session, since the BMC may have drawn a new random
//! number that never came. A kept session that falls silent is opened again once: the BMC may have restarted.

mod handshake;

use std::{fmt, sync::Arc, time::Duration};

use schema::{secret::Secret, time::Timestamp};

use super::{
    command::{Command, Completion, Privilege, Reply},
    crypto::{Keys, Suite},
    message::{Message, SEQUENCES},
    packet::{Malformed, Packet, Plus, Window, malformed, open_sealed, write_sealed},
    setup::Status,
};

/// How long each sending of a packet is waited on. After the last the BMC counts as silent.
pub const WAITS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(3), Duration::from_secs(4)];
/// A suite that is met with silence so often is given up for the next, and a kept session for a new one.
const DOUBTS: usize = 2;
/// Bytes of a user name (section 13.20).
pub const USER_BYTES: usize = 16;

/// What a console needs to know to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// At most [`USER_BYTES`]; empty for the BMC's anonymous user.
    pub user: String,
    /// At most [`super::crypto::KEY_BYTES`].
    pub password: Secret<Vec<u8>>,
    /// The BMC's own key, where it has one.
    pub kg: Option<Secret<Vec<u8>>>,
    pub privilege: Privilege,
    /// To be tried in this order.
    pub suites: Vec<Suite>,
    pub quirks: Quirks,
}

/// Habits of BMCs that a console can be told to bear, by FreeIPMI's (and so MAAS's) names of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quirks {
    /// `opensesspriv`: the BMC hashes the privilege of Open Session instead of RAKP 1's.
    pub open_session_privilege: bool,
    /// `integritycheckvalue`: the BMC's RAKP 4 carries a wrong check.
    pub no_check_value: bool,
    /// `nochecksumcheck`: the BMC's messages carry wrong checksums.
    pub no_checksums: bool,
    /// `authcap`: what the BMC says of its abilities is wrong.
    pub no_abilities: bool,
}

/// One end of a session, or of none yet.
#[derive(Debug, Clone)]
pub struct Console {
    login: Arc<Login>,
    phase: Phase,
    /// Index into the login's suites.
    suite: usize,
    /// Suites that the BMC refused, with its word.
    refused: Vec<(Suite, Option<Status>)>,
    /// What to ask once the session stands.
    pending: Option<Command>,
    /// The tag of the last set-up message; only its answer counts.
    tag: u8,
    /// The number of the last message.
    message: u8,
    /// How often the present packet was sent.
    tries: usize,
}

#[derive(Debug, Clone)]
enum Phase {
    Closed,
    /// Get Channel Authentication Capabilities is out.
    Probing,
    /// Open Session is out.
    Opening {
        console_session: u32,
    },
    /// RAKP 1 is out.
    Proving {
        exchange: Box<super::crypto::Exchange>,
    },
    /// RAKP 3 is out.
    Checking {
        exchange: Box<super::crypto::Exchange>,
        session_key: Vec<u8>,
    },
    /// Set Session Privilege Level is out.
    Raising {
        link: Link,
    },
    /// Nothing is out.
    Open {
        link: Link,
    },
    /// The pending command is out. `kept`: the session has carried another before.
    Asking {
        link: Link,
        kept: bool,
    },
}

/// A session that stands.
#[derive(Debug, Clone)]
struct Link {
    keys: Keys,
    console_session: u32,
    bmc_session: u32,
    /// The number of the last packet sent.
    sent: u32,
    heard: Window,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// A command is to be carried out. Only while none is under way.
    Ask(Command),
    /// A datagram of the BMC's address.
    Heard(&'a [u8]),
    /// The time of the last [`Then::Wait`] went by.
    Elapsed,
    /// The BMC's host says that nobody listens there (ICMP).
    Refused,
    /// The session is no longer needed.
    Close,
}

/// A decision.
#[derive(Debug)]
pub struct Step {
    pub next: Console,
    /// Send this.
    pub send: Option<Vec<u8>>,
    pub then: Then,
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    /// [`Event::Elapsed`] is due at its end; replaces the wait before.
    Wait(Wait),
    /// The datagram changes nothing, and the wait under way goes on.
    Ignored(Malformed),
    /// The command is over. The session is kept if it stands.
    Ended(Result<Reply, Failure>),
    /// No session stands, and nothing is under way.
    Closed,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub what: Awaited,
    pub since: Timestamp,
    pub until: Timestamp,
    /// Sendings of this packet so far.
    pub tries: usize,
}

/// An answer that the BMC owes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    Abilities,
    Session,
    Rakp2,
    Rakp4,
    Privilege,
    Answer(&'static str),
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abilities => "Get Channel Authentication Capabilities",
            Self::Session => "Open Session",
            Self::Rakp2 => "RAKP 1",
            Self::Rakp4 => "RAKP 3",
            Self::Privilege => "Set Session Privilege Level",
            Self::Answer(command) => command,
        })
    }
}

/// Why a command came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("it did not answer {awaited} in {tries} tries")]
    Silent { awaited: Awaited, tries: usize },
    #[error("nothing listens at its IPMI port")]
    Refused,
    #[error("it speaks IPMI 1.5 only")]
    NotIpmi2,
    #[error("it refuses the cipher suites {}", suites(.0))]
    NoSuite(Vec<(Suite, Option<Status>)>),
    #[error("it does not know the user \"{0}\"")]
    WrongUser(String),
    #[error("the password of the user \"{0}\" is wrong")]
    WrongPassword(String),
    #[error("the BMC key k_g is wrong{}", if *.given { "" } else { ": the BMC has one, and none is configured" })]
    WrongKey { given: bool },
    #[error("it does not give the user the privilege level {wanted}: {said}")]
    Privilege { wanted: Privilege, said: String },
    #[error("it answered {to}: {status}")]
    NoSession { to: Awaited, status: Status },
    #[error("it answered {command}: {completion}")]
    Command { command: &'static str, completion: Completion },
    #[error("a command was asked while another was under way")]
    Confused,
}

fn suites(refused: &[(Suite, Option<Status>)]) -> String {
    let words = refused.iter().map(|(suite, status)| match status {
        Some(status) => format!("{} ({status})", suite.id()),
        None => format!("{} (silence)", suite.id()),
    });
    words.collect::<Vec<_>>().join(", ")
}

impl Console {
    /// A console without a session.
    #[must_use]
    pub fn new(login: Arc<Login>) -> Self {
        let phase = Phase::Closed;
        Self { login, phase, suite: 0, refused: Vec::new(), pending: None, tag: 0, message: 0, tries: 0 }
    }

    /// Who logs in.
    #[must_use]
    pub fn login(&self) -> &Arc<Login> {
        &self.login
    }

    /// Whether a session stands, so that the next command needs none set up.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// The suite of the session, or the one to be tried next.
    #[must_use]
    pub fn suite(&self) -> Option<Suite> {
        self.login.suites.get(self.suite).copied()
    }

    /// Decides. `random` is drawn anew for every step: a vector, a session id or RAKP's random number.
    #[must_use]
    pub fn step(&self, event: &Event<'_>, random: [u8; 16], now: Timestamp) -> Step {
        let next = self.clone();
        match event {
            Event::Ask(command) => next.ask(command.clone(), random, now),
            Event::Heard(bytes) => match next.heard(bytes, random, now) {
                Ok(step) => step,
                Err(why) => Step { next: self.clone(), send: None, then: Then::Ignored(why) },
            },
            Event::Elapsed => next.elapsed(random, now),
            Event::Refused => next.end(Err(Failure::Refused)),
            Event::Close => next.close(random),
        }
    }

    fn ask(mut self, command: Command, random: [u8; 16], now: Timestamp) -> Step {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        match phase {
            Phase::Closed => {
                self.pending = Some(command);
                self.begin(random, now)
            }
            Phase::Open { link } => {
                self.pending = Some(command);
                self.tries = 0;
                self.next_message();
                self.command(link, true, random, now)
            }
            under_way => {
                self.phase = under_way;
                Step { next: self, send: None, then: Then::Ended(Err(Failure::Confused)) }
            }
        }
    }

    fn heard(mut self, bytes: &[u8], random: [u8; 16], now: Timestamp) -> Result<Step, Malformed> {
        let packet = Packet::read(bytes)?;
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        match (phase, packet) {
            (Phase::Probing, Packet::Plain(message)) => self.abilities(message, random, now),
            (Phase::Opening { console_session }, Packet::Plus(plus)) => {
                self.opened(console_session, &plus, random, now)
            }
            (Phase::Proving { exchange }, Packet::Plus(plus)) => self.proved(*exchange, &plus, now),
            (Phase::Checking { exchange, session_key }, Packet::Plus(plus)) => {
                self.checked(&exchange, &session_key, &plus, random, now)
            }
            (Phase::Raising { mut link }, Packet::Plus(plus)) => {
                let answer = self.answer(&mut link, &plus, &self.raise())?;
                self.raised(link, answer, random, now)
            }
            (Phase::Asking { mut link, .. }, Packet::Plus(plus)) => {
                let Some(command) = self.pending.take() else {
                    return Err(malformed("the payload type", plus.kind as usize, "an answer to something"));
                };
                let ended = self.answer(&mut link, &plus, &command)?;
                self.phase = Phase::Open { link };
                Ok(self.end(ended.map_err(|completion| Failure::Command { command: command.name(), completion })))
            }
            _ => Err(malformed("the packet's kind", 0, "an answer to what was asked")),
        }
    }

    /// The answer to `command` in a packet of the session.
    fn answer(
        &self,
        link: &mut Link,
        plus: &Plus<'_>,
        command: &Command,
    ) -> Result<Result<Reply, Completion>, Malformed> {
        if plus.session != link.console_session {
            return Err(malformed("the session id", plus.session as usize, "this session's"));
        }
        let bytes = open_sealed(&link.keys, plus)?;
        if !link.heard.admit(plus.sequence) {
            return Err(malformed(
                "the packet's sequence number",
                plus.sequence as usize,
                "one that did not come before",
            ));
        }
        read_answer(&bytes, command, self.message, !self.login.quirks.no_checksums)
    }

    /// Nothing came in time.
    fn elapsed(mut self, random: [u8; 16], now: Timestamp) -> Step {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        let Some(awaited) = self.awaited(&phase) else {
            self.phase = phase;
            let then = if self.is_open() { Then::Ended(Err(Failure::Confused)) } else { Then::Closed };
            return Step { next: self, send: None, then };
        };
        let doubtful = self.tries >= DOUBTS;
        match phase {
            Phase::Opening { .. } if doubtful && self.suite + 1 < self.login.suites.len() => {
                self.next_suite(None, random, now)
            }
            Phase::Asking { kept: true, .. } if doubtful => self.begin(random, now),
            _ if self.tries >= WAITS.len() => {
                let tries = self.tries;
                self.end(Err(Failure::Silent { awaited, tries }))
            }
            Phase::Probing => self.probe(now),
            Phase::Opening { .. } | Phase::Proving { .. } | Phase::Checking { .. } => self.open(random, now),
            Phase::Raising { link } => self.send_raise(link, random, now),
            Phase::Asking { link, kept } => self.command(link, kept, random, now),
            Phase::Closed | Phase::Open { .. } => self.end(Err(Failure::Confused)),
        }
    }

    fn awaited(&self, phase: &Phase) -> Option<Awaited> {
        match phase {
            Phase::Closed | Phase::Open { .. } => None,
            Phase::Probing => Some(Awaited::Abilities),
            Phase::Opening { .. } => Some(Awaited::Session),
            Phase::Proving { .. } => Some(Awaited::Rakp2),
            Phase::Checking { .. } => Some(Awaited::Rakp4),
            Phase::Raising { .. } => Some(Awaited::Privilege),
            Phase::Asking { .. } => Some(Awaited::Answer(self.pending.as_ref().map_or("a command", Command::name))),
        }
    }

    /// Sends the pending command in the session.
    fn command(mut self, mut link: Link, kept: bool, random: [u8; 16], now: Timestamp) -> Step {
        let Some(command) = &self.pending else {
            self.phase = Phase::Open { link };
            return Step { next: self, send: None, then: Then::Ended(Err(Failure::Confused)) };
        };
        let bytes = link.seal(&command.write(self.message), random);
        self.phase = Phase::Asking { link, kept };
        self.wait(bytes, now)
    }

    fn close(mut self, random: [u8; 16]) -> Step {
        let send = match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Open { mut link } | Phase::Asking { mut link, .. } | Phase::Raising { mut link } => {
                self.next_message();
                let command = Command::CloseSession { session: link.bmc_session };
                Some(link.seal(&command.write(self.message), random))
            }
            _ => None,
        };
        self.pending = None;
        Step { next: self, send, then: Then::Closed }
    }

    /// Counts a sending, and waits for its answer.
    fn wait(mut self, bytes: Vec<u8>, now: Timestamp) -> Step {
        let patience = WAITS[self.tries.min(WAITS.len() - 1)];
        self.tries += 1;
        let what = self.awaited(&self.phase).unwrap_or(Awaited::Session);
        let wait = Wait { what, since: now, until: now + patience, tries: self.tries };
        Step { next: self, send: Some(bytes), then: Then::Wait(wait) }
    }

    fn end(mut self, result: Result<Reply, Failure>) -> Step {
        if !self.is_open() {
            self.phase = Phase::Closed;
        }
        self.pending = None;
        self.tries = 0;
        Step { next: self, send: None, then: Then::Ended(result) }
    }

    fn next_message(&mut self) {
        self.message = (self.message + 1) % SEQUENCES;
    }
}

impl Link {
    fn seal(&mut self, message: &[u8], iv: [u8; 16]) -> Vec<u8> {
        // Zero is for packets outside sessions.
        self.sent = self.sent.wrapping_add(1).max(1);
        write_sealed(&self.keys, self.bmc_session, self.sent, message, iv)
    }
}

/// Reads an answer to `command` with that number: its data, or how it was refused.
fn read_answer(
    bytes: &[u8],
    command: &Command,
    number: u8,
    strict: bool,
) -> Result<Result<Reply, Completion>, Malformed> {
    let message = Message::read(bytes, strict)?;
    let (function, code) = command.code();
    if (message.function, message.command, message.sequence) != (function + 1, code, number) {
        return Err(malformed("the message's number", message.sequence.into(), "that of the request"));
    }
    match message.data {
        [0, data @ ..] => Reply::read(command, data).map(Ok),
        [completion, ..] => Ok(Err(Completion(*completion))),
        [] => Err(malformed("the answer's length", 0, "1 or more")),
    }
}
