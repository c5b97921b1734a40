//! A simulated machine at the end of a pipe: events come as lines of JSON, and a line for each says what the machine does. It has no sockets, so
//! whoever holds the pipe is its whole world. The lab plays it the answers that a real machine was given, and compares what it says.

use std::{
    io::{self, BufRead, Write},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use schema::net::MacAddr;
use serde::{Deserialize, Serialize};

use crate::{
    hardware::{Firmware, Hardware},
    machine::{Action, Event, Machine},
};

/// Which machine.
#[derive(Debug, Clone, Args)]
pub struct Which {
    #[arg(long)]
    pub firmware: Firmware,
    #[arg(long)]
    pub mac: MacAddr,
    /// 32 hexadecimal digits, with hyphens or without
    #[arg(long)]
    pub uuid: String,
    /// Seconds since the epoch, all the time
    #[arg(long)]
    pub now: i64,
}

/// A line in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    PowerOn,
    /// In base64, as all bytes here.
    Datagram(String),
    Answered {
        status: u16,
        body: String,
    },
    Failed,
    Elapsed,
}

/// What the machine does, in a line out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Deed {
    Dhcp { fresh: bool, bytes: String },
    Address(std::net::Ipv4Addr),
    TftpAsk(String),
    TftpSay(String),
    Http { name: Option<String>, bytes: String, keep: bool },
    Wait(f64),
    Expect(f64),
    Off,
    Hang(String),
}

impl From<Action> for Deed {
    fn from(action: Action) -> Self {
        match action {
            Action::Dhcp { fresh, bytes } => Self::Dhcp { fresh, bytes: STANDARD.encode(bytes) },
            Action::Address(ip) => Self::Address(ip),
            Action::TftpAsk(bytes) => Self::TftpAsk(STANDARD.encode(bytes)),
            Action::TftpSay(bytes) => Self::TftpSay(STANDARD.encode(bytes)),
            Action::Http(r) => Self::Http { name: r.name, bytes: STANDARD.encode(r.bytes), keep: r.keep },
            Action::Wait(time) => Self::Wait(time.as_secs_f64()),
            Action::Expect(time) => Self::Expect(time.as_secs_f64()),
            Action::Off => Self::Off,
            Action::Hang(why) => Self::Hang(why),
        }
    }
}

fn wrong(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_string())
}

/// A machine with that firmware, MAC and UUID; the rest of its hardware is drawn.
fn hardware(which: &Which) -> io::Result<Hardware> {
    let digits: String = which.uuid.chars().filter(|c| *c != '-').collect();
    let uuid = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
    let uuid = uuid.ok_or_else(|| wrong("the UUID is not 32 hexadecimal digits"))?.to_be_bytes();
    let mut drawn = (0..1_000).map(|index| Hardware::draw(1, index, 0, true));
    let mut hardware =
        drawn.find(|h| h.firmware == which.firmware).ok_or_else(|| wrong("no such firmware is drawn"))?;
    hardware.uuid = uuid;
    if let Some(nic) = hardware.nics.first_mut() {
        nic.mac = which.mac;
    }
    Ok(hardware)
}

/// Runs the machine until the lines end.
///
/// # Errors
/// When a line cannot be read or written.
pub fn run(which: &Which, events: impl BufRead, mut deeds: impl Write) -> io::Result<()> {
    let mut machine = Machine::new(Arc::new(hardware(which)?), 1);
    for line in events.lines() {
        let line: Line = serde_json::from_str(&line?).map_err(wrong)?;
        let decoded = |text: &str| STANDARD.decode(text).map_err(wrong);
        let actions = match line {
            Line::PowerOn => machine.step(Event::PowerOn { network: true }, which.now),
            Line::Datagram(bytes) => machine.step(Event::Datagram(&decoded(&bytes)?), which.now),
            Line::Answered { status, body } => {
                machine.step(Event::Answered { status, body: &decoded(&body)? }, which.now)
            }
            Line::Failed => machine.step(Event::Failed, which.now),
            Line::Elapsed => machine.step(Event::Elapsed, which.now),
        };
        let line: Vec<Deed> = actions.into_iter().map(Deed::from).collect();
        serde_json::to_writer(&mut deeds, &line)?;
        deeds.write_all(b"\n")?;
        deeds.flush()?;
    }
    Ok(())
}
