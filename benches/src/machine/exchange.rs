//! The machine's DHCP exchanges and HTTP requests: what is sent, what an answer changes, when to try again and when to give up.

use std::time::Duration;

use schema::boot::Sha256;

use super::{
    Action, Doing, Machine, Step, Use, boot, config,
    dhcp::{self, Client, Heard, Identity, Kind, Offered},
    http, session, signal,
    transfer::{Asked, Done, Manner, Transfer},
};

/// How long a DHCP client waits for an answer, by its number of tries so far (RFC 2131 section 4.1, without the jitter).
const DHCP_WAITS: [u64; 4] = [4, 8, 16, 32];
/// Seconds before each further try of a request: the runner's.
const PAUSES: [u64; 7] = [1, 1, 2, 4, 8, 16, 32];
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// iPXE asks again though it has an offer, since a proxy may have another one; then it waits for that.
const ASKS_AGAIN: Duration = Duration::from_secs(1);
const WAITS_FOR_PROXY: Duration = Duration::from_secs(2);

impl Machine {
    pub(super) fn discover(&mut self, identity: Identity) -> Vec<Action> {
        let xid = u32::try_from(self.draw.bits() >> 32).unwrap_or(1);
        self.say_dhcp(Client { identity, xid, offered: Offered::Nothing, taken: None, tries: 0 }, true)
    }

    fn say_dhcp(&mut self, client: Client, fresh: bool) -> Vec<Action> {
        let kind = if client.taken.is_some() { Kind::Request } else { Kind::Discover };
        let bytes = dhcp::message(&self.hardware, &self.host_name, client.identity, kind, client.xid, client.taken);
        let wait = DHCP_WAITS.get(client.tries as usize).copied().unwrap_or(32);
        let wait = match (client.offered, client.taken) {
            (Offered::Again(_), None) => Action::Wait(WAITS_FOR_PROXY),
            _ => Action::Expect(Duration::from_secs(wait)),
        };
        self.doing = Doing::Dhcp(client);
        vec![Action::Dhcp { fresh, bytes }, wait]
    }

    pub(super) fn repeat_dhcp(&mut self, client: Client) -> Vec<Action> {
        match (client.offered, client.taken) {
            (Offered::Once(lease), None) => {
                return self.say_dhcp(Client { offered: Offered::Again(lease), ..client }, false);
            }
            (Offered::Again(lease), None) => {
                return self.say_dhcp(Client { taken: Some(lease), tries: 0, ..client }, false);
            }
            _ => {}
        }
        let tries = client.tries + 1;
        if tries as usize >= DHCP_WAITS.len() {
            return self.hang(format!("no DHCP server answers {:?}", client.identity));
        }
        self.say_dhcp(Client { tries, ..client }, false)
    }

    pub(super) fn hear_dhcp(&mut self, client: Client, bytes: &[u8]) -> Vec<Action> {
        let heard = dhcp::hear(&self.hardware, client.xid, bytes);
        match (heard, client.taken) {
            (Some(Heard::Offer(lease)), None) if client.identity.is_ipxe() && client.offered == Offered::Nothing => {
                let offered = Offered::Once((lease.ip, lease.server));
                self.doing = Doing::Dhcp(Client { offered, ..client });
                vec![Action::Wait(ASKS_AGAIN)]
            }
            (Some(Heard::Offer(lease)), None) if client.offered == Offered::Nothing => {
                let taken = Some((lease.ip, lease.server));
                self.say_dhcp(Client { taken, tries: 0, ..client }, false)
            }
            (Some(Heard::Ack(lease)), Some(_)) => {
                let identity = client.identity;
                let address = (self.ip != Some(lease.ip)).then_some(Action::Address(lease.ip));
                (self.ip, self.server) = (Some(lease.ip), lease.server);
                let after = boot::with_lease(&self.hardware, identity, &lease);
                self.lease = Some(lease);
                let Some(after) = after else {
                    return self.hang(format!("{identity:?} was given an address and nothing to boot"));
                };
                self.put_first(after);
                address.into_iter().chain(self.next()).collect()
            }
            (Some(Heard::Nak), Some(_)) => self.discover(client.identity),
            // Not for this exchange: the wait goes on.
            _ => {
                self.doing = Doing::Dhcp(client);
                Vec::new()
            }
        }
    }

    /// The system gives its address back when it goes down.
    pub(super) fn release(&mut self) -> Vec<Action> {
        let xid = u32::try_from(self.draw.bits() >> 32).unwrap_or(1);
        let taken = self.lease.as_ref().map(|l| (l.ip, l.server));
        let bytes = dhcp::message(&self.hardware, &self.host_name, Identity::System, Kind::Release, xid, taken);
        let mut actions = vec![Action::Dhcp { fresh: true, bytes }];
        actions.extend(self.next());
        actions
    }

    pub(super) fn transfer(&mut self, name: String, asked: Asked, manner: Manner, then: Use) -> Vec<Action> {
        self.step_tftp(Box::new(Transfer::new(name, asked, manner, then)), None)
    }

    pub(super) fn step_tftp(&mut self, mut transfer: Box<Transfer>, packet: Option<&[u8]>) -> Vec<Action> {
        let (mut actions, done) = transfer.step(packet);
        match done {
            Done::NotYet => {
                self.doing = Doing::Tftp(transfer);
                return actions;
            }
            Done::Whole => {
                let (name, then) = (transfer.name().to_owned(), transfer.then());
                actions.extend(self.take(then, &name, transfer.body()));
            }
            Done::Absent(_) if transfer.then() == Use::Habit => actions.extend(self.next()),
            Done::Absent(why) => actions.extend(self.hang(format!("{}: {why}", transfer.name()))),
        }
        actions
    }

    /// Sends a request, for the time `tries + 1`.
    pub(super) fn ask(&mut self, step: Step, tries: u32) -> Vec<Action> {
        let nonce = self.draw.bits();
        let request = match &step {
            Step::Get { url, agent, .. } => {
                let signature = self
                    .session
                    .as_ref()
                    .filter(|_| agent.signs())
                    .map(|s| s.key.sign(&agent.nonce(nonce, self.now), self.now));
                http::get(url, *agent, signature)
            }
            Step::Status(event) => self.session.as_ref().and_then(|s| session::event(s, *event, nonce, self.now)),
            Step::Signal(said) => self.session.as_ref().and_then(|session| {
                let cmdline = self.booted.as_ref().map_or("", |b| &b.cmdline);
                let ip = self.ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
                signal::request(session, *said, &self.hardware, (cmdline, ip), nonce, self.now)
            }),
            _ => None,
        };
        let Some(request) = request else { return self.hang(format!("a request that cannot be made: {step:?}")) };
        self.doing = Doing::Http { tries, step: Box::new(step) };
        vec![Action::Http(request), Action::Expect(ANSWER)]
    }

    pub(super) fn answered(&mut self, status: u16, body: &[u8]) -> Vec<Action> {
        let (tries, step) = match std::mem::replace(&mut self.doing, Doing::Resting) {
            Doing::Http { tries, step } => (tries, step),
            other => {
                self.doing = other;
                return Vec::new();
            }
        };
        let lenient = matches!(&*step, Step::Get { then: Use::Habit | Use::Metadata, .. } | Step::Status(_));
        match status {
            200..=299 | 404 if lenient => return self.next(),
            200..=299 => {}
            // What may come later is asked for again.
            0 | 408 | 429 | 500.. => return self.recover(step, tries, status),
            _ => {
                let text: String = String::from_utf8_lossy(body).chars().take(160).collect();
                return self.hang(format!("{} was answered {status}: {text}", what(&step)));
            }
        }
        match *step {
            Step::Get { agent: http::Agent::UefiHead, .. } => self.next(),
            Step::Get { url, then, .. } => self.take(then, &url, body),
            _ => self.next(),
        }
    }

    fn recover(&mut self, step: Box<Step>, tries: u32, status: u16) -> Vec<Action> {
        let Some(pause) = PAUSES.get(tries as usize) else {
            return self.hang(format!("{} failed {} times, the last time with {status}", what(&step), tries + 1));
        };
        self.doing = Doing::Recovering { tries: tries + 1, step };
        vec![Action::Expect(Duration::from_secs(*pause))]
    }

    /// Puts steps before all others, in their order.
    fn put_first(&mut self, steps: Vec<Step>) {
        steps.into_iter().rev().for_each(|step| self.ahead.push_front(step));
    }

    /// Puts a fetched thing to use, and goes on.
    fn take(&mut self, then: Use, name: &str, body: &[u8]) -> Vec<Action> {
        match self.used(then, name, body) {
            Ok(steps) => {
                self.put_first(steps);
                self.next()
            }
            Err(why) => self.hang(why),
        }
    }

    fn used(&mut self, then: Use, name: &str, body: &[u8]) -> Result<Vec<Step>, String> {
        let text = || std::str::from_utf8(body).map_err(|_| format!("{name} is no text"));
        match then {
            Use::Habit | Use::Metadata => {}
            Use::Loader if body.is_empty() => return Err(format!("{name} is empty")),
            Use::Loader => {}
            Use::Config(dialect) => {
                let booted = config::read(dialect, text()?, &self.hardware.mac().dashed())?;
                let steps = boot::ephemeral(&booted, dialect);
                self.booted = Some(booted);
                return Ok(steps);
            }
            Use::Body => verify(name, body)?,
            Use::Preseed => {
                let session = session::Session::read(text()?)?;
                let booted = self.booted.as_ref().ok_or("a preseed without a boot config")?;
                let steps = boot::cloud_init(booted, &session.metadata_url);
                self.session = Some(Box::new(session));
                return Ok(steps);
            }
            Use::Identity | Use::HostName if body.is_empty() => return Err(format!("{name} is empty")),
            Use::Identity => {}
            Use::HostName => text()?.split('.').next().unwrap_or_default().clone_into(&mut self.host_name),
            // cloud-init runs what begins like a script.
            Use::UserData if !body.starts_with(b"#!") && !body.starts_with(b"Content-Type: multipart") => {
                return Err("the user-data is nothing that cloud-init runs".into());
            }
            Use::UserData => {}
            // 204: nothing is left to run.
            Use::Scripts if body.is_empty() => return Ok(vec![Step::Signal(signal::Signal::AllWell)]),
            Use::Scripts => {
                let session = self.session.as_mut().ok_or("scripts without a preseed")?;
                session.scripts = session::scripts(body)?;
                let cmdline = self.booted.as_ref().map_or("", |b| &b.cmdline);
                return Ok(boot::runner(&self.hardware, session, cmdline, self.ip.ok_or("no address")?));
            }
        }
        Ok(Vec::new())
    }
}

/// `…/images/<sha256>/…`: the body must be what its name says.
fn verify(name: &str, body: &[u8]) -> Result<(), String> {
    let named = name.split_once("images/").and_then(|(_, rest)| rest.split('/').next()?.parse::<Sha256>().ok());
    let named = named.ok_or_else(|| format!("{name} names no SHA-256"))?;
    if Sha256::of(body) == named {
        Ok(())
    } else {
        Err(format!("{name} is damaged: {} bytes of another sum", body.len()))
    }
}

fn what(step: &Step) -> String {
    match step {
        Step::Get { url, .. } => format!("GET {url}"),
        Step::Status(event) => format!("status event {event}"),
        Step::Signal(said) => format!("signal {said:?}"),
        other => format!("{other:?}"),
    }
}
