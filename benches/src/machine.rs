//! A simulated machine: what real firmware, a real loader, the ephemeral system and cloud-init do from power-on to power-off, as
//! decisions. An event goes in, what the machine does next comes out; sockets, clocks and the speed of time belong to the hands.
//!
//! It says what the captures of real machines say (`benches/tests/it/machine.rs` compares), and it believes nothing: bodies are checked
//! against their SHA-256, the key of the preseed signs, and a refusal stops it just as it would stop a real machine.

use std::{collections::VecDeque, net::Ipv4Addr, sync::Arc, time::Duration};

use crate::hardware::{Draw, Hardware};

mod boot;
mod config;
pub mod dhcp;
mod exchange;
mod http;
mod session;
mod signal;
mod transfer;

pub use config::Booted;
pub use http::Request;
pub use session::{Key, STATUS_EVENTS};

/// What happens to a machine.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The BMC gives power. `network`: its one-shot boot device is the network.
    PowerOn { network: bool },
    /// The BMC takes it away.
    PowerOff,
    /// A datagram for the client that is at work: DHCP's, or TFTP's (`new`: from a port of the server not heard before).
    Datagram(&'a [u8]),
    /// The answer to the request under way.
    Answered { status: u16, body: &'a [u8] },
    /// The request under way failed: the connection did not come about, or broke.
    Failed,
    /// The time of the last [`Action::Wait`] or [`Action::Expect`] went by.
    Elapsed,
}

/// What a machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Its network card says this to the DHCP server. `fresh`: a new client is at work, which hears nothing meant for the one before.
    Dhcp { fresh: bool, bytes: Vec<u8> },
    /// It has that address now.
    Address(Ipv4Addr),
    /// To the TFTP server's port, from a port of its own that is new.
    TftpAsk(Vec<u8>),
    /// To the port that the server answered from.
    TftpSay(Vec<u8>),
    /// A request over HTTP; answered by `Answered` or `Failed`.
    Http(Request),
    /// The machine's own time: starting, computing. The hands may divide it.
    Wait(Duration),
    /// How long it waits for an answer before it does something about it. Never divided.
    Expect(Duration),
    /// It is off, and forgets everything.
    Off,
    /// It hangs, as a real machine would: what it waits for in vain. Only its BMC gets it out of there.
    Hang(String),
}

/// One thing after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Starting or computing takes this long.
    Pause(Duration),
    Dhcp(dhcp::Identity),
    /// A file by TFTP.
    Tftp {
        name: String,
        asked: transfer::Asked,
        manner: transfer::Manner,
        then: Use,
    },
    /// A file or a document by HTTP.
    Get {
        url: String,
        agent: http::Agent,
        then: Use,
    },
    /// One of cloud-init's status events.
    Status(usize),
    Signal(signal::Signal),
    Release,
    Off,
}

/// What a fetched thing is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Its absence is an ordinary answer.
    Habit,
    /// Code of the loader: it must be there.
    Loader,
    /// The boot config, in that loader's language.
    Config(config::Dialect),
    /// A body of the image, named by its SHA-256.
    Body,
    Preseed,
    /// Metadata that may be missing.
    Metadata,
    /// Metadata that must be there.
    Identity,
    /// The same: what the system calls itself from then on.
    HostName,
    UserData,
    Scripts,
}

/// What the machine is at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Doing {
    /// No power.
    Nothing,
    Pausing,
    Dhcp(dhcp::Client),
    Tftp(Box<transfer::Transfer>),
    Http {
        tries: u32,
        step: Box<Step>,
    },
    /// Between two tries of a request.
    Recovering {
        tries: u32,
        step: Box<Step>,
    },
    /// Its own disk's system runs, or nothing does.
    Resting,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    hardware: Arc<Hardware>,
    draw: Draw,
    doing: Doing,
    ahead: VecDeque<Step>,
    ip: Option<Ipv4Addr>,
    /// The rack as the last lease named it.
    server: Ipv4Addr,
    lease: Option<dhcp::Lease>,
    /// Without its domain.
    host_name: String,
    /// What the boot config said.
    booted: Option<Booted>,
    session: Option<Box<session::Session>>,
    /// Seconds since the epoch, for signatures: told with each event.
    now: i64,
}

impl Machine {
    /// A machine that is off.
    #[must_use]
    pub fn new(hardware: Arc<Hardware>, seed: u64) -> Self {
        let draw = Draw::of(seed ^ 0x006d_6163_6869_6e65, hardware.index.into());
        Self {
            hardware,
            draw,
            doing: Doing::Nothing,
            ahead: VecDeque::new(),
            ip: None,
            server: Ipv4Addr::UNSPECIFIED,
            lease: None,
            host_name: "localhost".into(),
            booted: None,
            session: None,
            now: 0,
        }
    }

    /// What it is made of.
    #[must_use]
    pub fn hardware(&self) -> &Arc<Hardware> {
        &self.hardware
    }

    /// The server that its last lease named: its loaders come from there.
    #[must_use]
    pub fn server(&self) -> Ipv4Addr {
        self.server
    }

    /// The name servers of its last lease.
    #[must_use]
    pub fn name_servers(&self) -> &[Ipv4Addr] {
        self.lease.as_ref().map(|lease| lease.dns.as_slice()).unwrap_or_default()
    }

    /// Whether it has power.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.doing != Doing::Nothing
    }

    /// Where it is, in a few words.
    #[must_use]
    pub fn place(&self) -> &'static str {
        match &self.doing {
            Doing::Nothing => "off",
            Doing::Resting => "resting",
            Doing::Dhcp(_) => "asking for an address",
            _ if self.session.is_some() => "running the ephemeral system",
            _ => "booting",
        }
    }

    /// Decides what follows an event. `now`: seconds since the epoch by the machine's clock.
    #[must_use]
    pub fn step(&mut self, event: Event<'_>, now: i64) -> Vec<Action> {
        self.now = now;
        match event {
            Event::PowerOn { .. } if self.is_on() => Vec::new(),
            Event::PowerOn { network } => self.power_on(network),
            Event::PowerOff => self.power_off(),
            _ if !self.is_on() => Vec::new(),
            Event::Datagram(bytes) => self.datagram(bytes),
            Event::Answered { status, body } => self.answered(status, body),
            Event::Failed => self.answered(0, &[]),
            Event::Elapsed => self.elapsed(),
        }
    }

    fn power_on(&mut self, network: bool) -> Vec<Action> {
        if !network {
            self.doing = Doing::Resting;
            return Vec::new();
        }
        self.ahead = boot::firmware(self.hardware.firmware).into();
        self.next()
    }

    fn power_off(&mut self) -> Vec<Action> {
        *self = Self { draw: self.draw, ..Self::new(self.hardware.clone(), 0) };
        vec![Action::Off]
    }

    fn elapsed(&mut self) -> Vec<Action> {
        match std::mem::replace(&mut self.doing, Doing::Resting) {
            Doing::Pausing => self.next(),
            Doing::Dhcp(client) => self.repeat_dhcp(client),
            Doing::Tftp(transfer) => self.step_tftp(transfer, None),
            Doing::Recovering { tries, step } => self.ask(*step, tries),
            // The answer took too long: as if the connection had broken.
            doing @ Doing::Http { .. } => {
                self.doing = doing;
                self.answered(0, &[])
            }
            other => {
                self.doing = other;
                Vec::new()
            }
        }
    }

    fn datagram(&mut self, bytes: &[u8]) -> Vec<Action> {
        match std::mem::replace(&mut self.doing, Doing::Resting) {
            Doing::Dhcp(client) => self.hear_dhcp(client, bytes),
            Doing::Tftp(transfer) => self.step_tftp(transfer, Some(bytes)),
            other => {
                self.doing = other;
                Vec::new()
            }
        }
    }

    /// Begins the next step.
    fn next(&mut self) -> Vec<Action> {
        let Some(step) = self.ahead.pop_front() else {
            self.doing = Doing::Resting;
            return Vec::new();
        };
        match step {
            Step::Pause(time) => {
                self.doing = Doing::Pausing;
                vec![Action::Wait(time)]
            }
            Step::Dhcp(identity) => self.discover(identity),
            Step::Tftp { name, asked, manner, then } => self.transfer(name, asked, manner, then),
            Step::Release => self.release(),
            Step::Off => self.power_off(),
            step => self.ask(step, 0),
        }
    }

    /// Stays where it is for good.
    fn hang(&mut self, why: String) -> Vec<Action> {
        self.doing = Doing::Resting;
        self.ahead.clear();
        vec![Action::Hang(why)]
    }
}
