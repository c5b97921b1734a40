//! A BMC that speaks IPMI 2.0 over LAN, as a pure function of its state, a datagram, random bytes and the time.

mod login;

use std::{net::Ipv4Addr, time::Duration};

use rack::power::rmcp::{
    BootFlags, Command, Completion, Privilege, Reply, Suite,
    command::ChannelAuth,
    crypto::{Exchange, Keys},
    message::Message,
    packet::{self, Kind, Packet, Plus, Window},
};
use schema::time::Timestamp;

use super::{
    Simulated,
    chassis::{Chassis, Faults, PowerEvent},
};

/// Sessions at once, set-up included; many BMCs have four.
const SESSIONS: usize = 8;
/// A session ends when nothing came for so long (IPMI 2.0 section 6.12.15).
const IDLE: Duration = Duration::from_secs(60);

/// How a BMC is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub user: String,
    pub password: String,
    /// A key of its own, or none.
    pub kg: Option<Vec<u8>>,
    pub guid: [u8; 16],
    pub suites: Vec<Suite>,
    /// The most that its user may do.
    pub limit: Privilege,
    /// It speaks IPMI 2.0. If not, it says so and answers nothing else: a 1.5 session is not simulated.
    pub two: bool,
}

impl Default for Setup {
    /// User `maas`, password `yard`, both suites, administrator.
    fn default() -> Self {
        Self {
            user: "maas".into(),
            password: "yard".into(),
            kg: None,
            guid: [0; 16],
            suites: Suite::ALL.to_vec(),
            limit: Privilege::Administrator,
            two: true,
        }
    }
}

impl Setup {
    /// The default, with a GUID of its own made from an address.
    #[must_use]
    pub fn at(address: Ipv4Addr) -> Self {
        let mut guid = [0x5a; 16];
        guid[12..].copy_from_slice(&address.octets());
        Self { guid, ..Self::default() }
    }
}

/// One BMC.
#[derive(Debug, Clone)]
pub struct Bmc {
    setup: Setup,
    pub chassis: Chassis,
    sessions: Vec<Session>,
    /// Session ids that were given.
    given: u32,
}

#[derive(Debug, Clone)]
struct Session {
    exchange: Exchange,
    stage: Stage,
    used: Timestamp,
    level: Privilege,
}

#[derive(Debug, Clone)]
enum Stage {
    /// Open Session was answered.
    Opened,
    /// RAKP 2 is out.
    Proved,
    Active {
        keys: Box<Keys>,
        sent: u32,
        heard: Window,
        last: Option<(Vec<u8>, Vec<u8>)>,
    },
}

/// What comes of a datagram.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub reply: Option<Vec<u8>>,
    /// The reply is to be sent after this.
    pub after: Duration,
    /// What becomes of the machine.
    pub event: Option<PowerEvent>,
}

impl Simulated for Bmc {
    fn chassis(&mut self) -> &mut Chassis {
        &mut self.chassis
    }
}

impl Bmc {
    /// A BMC whose machine is off.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self { setup, chassis: Chassis::default(), sessions: Vec::new(), given: 0 }
    }

    /// The machine went on or off by itself.
    pub fn set_power(&mut self, on: bool) {
        self.chassis.set_power(on);
    }

    /// What is to go wrong from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.chassis.faults = faults;
    }

    /// Loses every session, as a restart of the BMC does.
    pub fn restart(&mut self) {
        self.sessions.clear();
    }

    /// Answers a datagram. `random` is drawn anew for every one.
    pub fn answer(&mut self, datagram: &[u8], random: [u8; 16], now: Timestamp) -> Answer {
        if self.chassis.loses() {
            return Answer::default();
        }
        let after = self.chassis.faults.slow;
        self.sessions.retain(|s| now.since(s.used) < IDLE);
        let mut event = None;
        // What is malformed is not answered, as no BMC does.
        let reply = match Packet::read(datagram) {
            Ok(Packet::Ping { tag: 255 } | Packet::Pong { .. }) | Err(_) => None,
            Ok(Packet::Ping { tag }) => Some(packet::pong(tag)),
            Ok(Packet::Plain(message)) => self.open_door(message).map(|bytes| packet::write_plain(&bytes)),
            Ok(Packet::Plus(_)) if !self.setup.two => None,
            Ok(Packet::Plus(plus)) if plus.kind == Kind::Ipmi && plus.session == 0 => {
                self.open_door(plus.payload).map(|bytes| packet::write_setup(Kind::Ipmi, &bytes))
            }
            Ok(Packet::Plus(plus)) if plus.kind == Kind::Ipmi => {
                let said = self.in_session(&plus, random, now);
                said.map(|(bytes, done)| {
                    event = done;
                    bytes
                })
            }
            Ok(Packet::Plus(plus)) => self.log_in(&plus, random, now),
        };
        Answer { reply, after, event }
    }

    /// The few commands that need no session.
    fn open_door(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let message = Message::read(bytes, true).ok()?;
        let said = match Command::read(&message) {
            Ok(Command::ChannelAuth { .. }) => {
                Ok(Reply::ChannelAuth(ChannelAuth { ipmi2: self.setup.two, keyed: self.setup.kg.is_some() }))
            }
            Ok(Command::SystemGuid) => Ok(Reply::SystemGuid(self.setup.guid)),
            Ok(Command::CipherSuites { index }) => Ok(Reply::CipherSuites(self.suites(index))),
            Ok(_) => Err(Completion::INSUFFICIENT_PRIVILEGE),
            Err(completion) => Err(completion),
        };
        Some(respond(&message, said))
    }

    /// The 16 bytes of that index of the suites' records (section 22.15.1).
    fn suites(&self, index: u8) -> Vec<u8> {
        let records = self.setup.suites.iter().flat_map(|suite| {
            let [authentication, integrity, confidentiality] = suite.algorithms();
            [0xc0, suite.id(), authentication, 0x40 | integrity, 0x80 | confidentiality]
        });
        records.skip(16 * usize::from(index)).take(16).collect()
    }

    fn in_session(
        &mut self,
        plus: &Plus<'_>,
        random: [u8; 16],
        now: Timestamp,
    ) -> Option<(Vec<u8>, Option<PowerEvent>)> {
        let at = self.sessions.iter().position(|s| s.exchange.bmc_session == plus.session)?;
        let Stage::Active { keys, sent, heard, last } = &mut self.sessions[at].stage else { return None };
        let bytes = packet::open_sealed(keys, plus).ok()?;
        if !heard.admit(plus.sequence) {
            return None;
        }
        *sent = sent.wrapping_add(1).max(1);
        let (keys, sequence, repeated) = (keys.clone(), *sent, last.clone().filter(|(asked, _)| *asked == bytes));
        self.sessions[at].used = now;
        let to = self.sessions[at].exchange.console_session;
        if let Some((_, said)) = repeated {
            return Some((packet::write_sealed(&keys, to, sequence, &said, random), None));
        }
        let message = Message::read(&bytes, true).ok()?;
        let mut event = None;
        let said = Command::read(&message).and_then(|command| self.carry_out(at, &command, &mut event));
        let closes = matches!(Command::read(&message), Ok(Command::CloseSession { .. })) && said.is_ok();
        let answer = respond(&message, said);
        if closes {
            self.sessions.remove(at);
        } else if let Stage::Active { last, .. } = &mut self.sessions[at].stage {
            // Only what must not be done twice is remembered.
            let switches = matches!(Command::read(&message), Ok(Command::ChassisControl(_)));
            *last = switches.then(|| (bytes.clone(), answer.clone()));
        }
        Some((packet::write_sealed(&keys, to, sequence, &answer, random), event))
    }

    fn carry_out(&mut self, at: usize, command: &Command, event: &mut Option<PowerEvent>) -> Result<Reply, Completion> {
        if self.chassis.faults.busy {
            return Err(Completion::BUSY);
        }
        let level = self.sessions[at].level;
        match command {
            Command::DeviceId => Ok(Reply::DeviceId(vec![0x20, 1, 1, 0, 0x02, 0x80, 0, 0, 0, 0, 0])),
            Command::SystemGuid => Ok(Reply::SystemGuid(self.setup.guid)),
            Command::ChannelAuth { .. } => {
                Ok(Reply::ChannelAuth(ChannelAuth { ipmi2: true, keyed: self.setup.kg.is_some() }))
            }
            Command::CipherSuites { index } => Ok(Reply::CipherSuites(self.suites(*index))),
            Command::SetPrivilege { privilege } => {
                if *privilege > self.setup.limit {
                    return Err(Completion::ABOVE_USER_LIMIT);
                }
                self.sessions[at].level = *privilege;
                Ok(Reply::Privilege(*privilege))
            }
            Command::CloseSession { session } if *session == self.sessions[at].exchange.bmc_session => Ok(Reply::Done),
            Command::CloseSession { .. } => Err(Completion(0x87)), // Invalid session id in the request.
            Command::ChassisStatus => Ok(Reply::Chassis { on: self.chassis.says_on() }),
            Command::ChassisControl(_) | Command::SetBootOption { .. } if level < Privilege::Operator => {
                Err(Completion::INSUFFICIENT_PRIVILEGE)
            }
            Command::ChassisControl(control) => {
                *event = self.chassis.control(*control)?;
                Ok(Reply::Done)
            }
            Command::SetBootOption { parameter: BootFlags::PARAMETER, data } => {
                self.chassis.set_boot(BootFlags::read(data).map_err(|_| Completion::TOO_SHORT)?);
                Ok(Reply::Done)
            }
            // Set in progress, service partition, flag clearing, acknowledgement: taken, and without effect here.
            Command::SetBootOption { parameter: 0..5, .. } => Ok(Reply::Done),
            Command::GetBootOption { parameter: BootFlags::PARAMETER } => {
                let data = self.chassis.boot().write().to_vec();
                Ok(Reply::BootOption { parameter: BootFlags::PARAMETER, data })
            }
            Command::GetBootOption { parameter: parameter @ 0..5 } => {
                Ok(Reply::BootOption { parameter: *parameter, data: vec![0, 0] })
            }
            Command::SetBootOption { .. } | Command::GetBootOption { .. } => Err(Completion::PARAMETER_UNSUPPORTED),
        }
    }
}

/// The answer to a request, as bytes.
fn respond(request: &Message<'_>, said: Result<Reply, Completion>) -> Vec<u8> {
    let data = match said {
        Ok(reply) => [&[Completion::OK.0], reply.write().as_slice()].concat(),
        Err(completion) => vec![completion.0],
    };
    Message { function: request.function | 1, sequence: request.sequence, command: request.command, data: &data }
        .write()
}
