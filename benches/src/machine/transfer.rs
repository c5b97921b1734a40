//! One file by TFTP on the machine's side: rack's own receiver decides, this keeps the bytes and writes the packets.

use std::time::Duration;

use rack::tftp::{
    packet::{Code, Options, Packet},
    receiver::{Next, Receiver, Reply},
    transfer::Event,
};

use super::{Action, Use};

/// How long firmware waits for a packet.
const PATIENCE: Duration = Duration::from_secs(4);

/// The options that are asked for, in their order on the wire, which differs between programs.
pub(super) type Asked = &'static [(&'static str, &'static str)];

/// What the transfer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Whole,
    /// UEFI asks for the size and breaks off.
    Probe,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    NotYet,
    Whole,
    Absent(String),
}

/// A transfer under way.
#[derive(Debug, Clone)]
pub(super) struct Transfer {
    name: String,
    request: Vec<u8>,
    manner: Manner,
    then: Use,
    receiver: Receiver,
    begun: bool,
    body: Vec<u8>,
}

impl PartialEq for Transfer {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.body.len()) == (&other.name, other.body.len())
    }
}

impl Eq for Transfer {}

impl Transfer {
    pub(super) fn new(name: String, asked: Asked, manner: Manner, then: Use) -> Self {
        let texts = [&*name, "octet"].into_iter().chain(asked.iter().flat_map(|(option, value)| [*option, *value]));
        let mut request = vec![0, 1];
        texts.for_each(|text| request.extend(text.bytes().chain([0])));
        let options = match Packet::parse(&request) {
            Ok(Packet::Read { options, .. }) => options,
            _ => Options::default(),
        };
        let receiver = Receiver::new(options, PATIENCE);
        Self { name, request, manner, then, receiver, begun: false, body: Vec::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn then(&self) -> Use {
        self.then
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Begins, takes a packet, or (without one) finds that none came.
    pub(super) fn step(&mut self, packet: Option<&[u8]>) -> (Vec<Action>, Done) {
        let parsed = match packet.map(Packet::parse) {
            Some(Err(_)) => return (Vec::new(), Done::NotYet),
            Some(Ok(packet)) => Some(packet),
            None => None,
        };
        if let (Manner::Probe, Some(Packet::OptionAck(_))) = (self.manner, &parsed) {
            // What OVMF says once it knows the size.
            let enough = Packet::Error { code: Code::Options, message: "User aborted the transfer" };
            self.body.push(0);
            return (vec![Action::TftpSay(bytes(&enough))], Done::Whole);
        }
        let event = match parsed {
            Some(packet) => Event::Packet(packet),
            None if self.begun => Event::Elapsed,
            None => Event::Start,
        };
        self.begun = true;
        let heard = self.receiver.step(event);
        if let (true, Event::Packet(Packet::Data { data, .. })) = (heard.take, event) {
            self.body.extend_from_slice(data);
        }
        let mut actions = match heard.reply {
            Reply::Nothing => Vec::new(),
            Reply::Request => vec![Action::TftpAsk(self.request.clone())],
            Reply::Ack(block) => vec![Action::TftpSay(bytes(&Packet::Ack { block }))],
            Reply::Error(code) => vec![Action::TftpSay(bytes(&Packet::Error { code, message: "" }))],
        };
        match heard.next {
            Next::Wait(time) => {
                actions.push(Action::Expect(time));
                (actions, Done::NotYet)
            }
            Next::Complete => (actions, Done::Whole),
            Next::Failed(why) => (actions, Done::Absent(why)),
        }
    }
}

fn bytes(packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    packet.write(&mut out);
    out
}
