//! How soon a reservation is honoured: one client asks every millisecond, the server is told of it, and the first offer of that address ends the time.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use actors::clock::tick;
use benches::relayed::{self, DISCOVER, OFFER};
use clap::Args;
use serde_json::{Value, json};

/// How long it asks before the command, so that the server is warm.
const BEFORE: Duration = Duration::from_millis(200);
/// How long it goes on after the first right offer, to see what is lost.
const AFTER: Duration = Duration::from_millis(300);
/// How long it waits for that offer.
const PATIENCE: Duration = Duration::from_secs(8);
const PACE: Duration = Duration::from_millis(1);

#[derive(Debug, Args)]
pub(super) struct Probe {
    #[arg(long)]
    server: Ipv4Addr,
    #[arg(long)]
    relay: Ipv4Addr,
    /// The number of the client that is reserved for
    #[arg(long)]
    client: u32,
    /// The address that is to be reserved
    #[arg(long)]
    wanted: Ipv4Addr,
    /// The server is told by a text to this socket
    #[arg(long)]
    socket: Option<PathBuf>,
    /// The server is told by a file that is made with a text
    #[arg(long, conflicts_with = "socket")]
    file: Option<PathBuf>,
    /// The text; without socket and file: the program that reserves, and its arguments
    #[arg(last = true, required = true)]
    words: Vec<String>,
}

impl Probe {
    pub(super) fn run(&self) -> io::Result<Value> {
        let socket = super::dhcp::socket(self.relay, self.server)?;
        socket.set_nonblocking(true)?; // A read's time-out is counted in the kernel's ticks: 4 ms and more.
        let (begin, mut sent, mut told) = (tick(), 0_u32, None::<(Instant, JoinHandle<io::Result<()>>)>);
        let (mut honoured, mut open) = (None::<Instant>, HashMap::new());
        let (mut answered, mut silence, mut heard) = (0_u32, Duration::ZERO, tick());
        let mut buffer = [0; 2_048];
        loop {
            let over = match (honoured, told.as_ref()) {
                (Some(at), _) => at.elapsed() > AFTER,
                (None, Some((at, _))) => at.elapsed() > PATIENCE,
                (None, None) => false,
            };
            if over {
                break;
            }
            if told.is_none() && begin.elapsed() > BEFORE {
                told = Some(self.tell());
            }
            if begin.elapsed() >= PACE * sent {
                let message = relayed::message(sent, relayed::mac(self.client), DISCOVER, self.relay, None);
                if socket.send(&message).is_ok() {
                    open.insert(sent, tick());
                }
                sent += 1;
            }
            // Nothing yet, or nobody listens now: that counts as lost.
            let Ok(len) = socket.recv(&mut buffer) else {
                thread::sleep(PACE / 10);
                continue;
            };
            let Some(answer) = relayed::answer(buffer.get(..len).unwrap_or_default()) else { continue };
            if open.remove(&answer.xid).is_some() {
                answered += 1;
                silence = silence.max(heard.elapsed());
                heard = tick();
                if answer.kind == OFFER && answer.ip == self.wanted && honoured.is_none() {
                    honoured = Some(heard);
                }
            }
        }
        let after = honoured.zip(told.as_ref()).map(|(at, (told, _))| (at - *told).as_secs_f64() * 1e3);
        if let Some((_, telling)) = told {
            telling.join().map_err(|_| io::Error::other("the telling thread panicked"))??;
        }
        // The last few are still on their way.
        let lost = open.values().filter(|at| at.elapsed() > Duration::from_millis(50)).count();
        Ok(json!({
            "honoured_ms": after, "answered": answered, "lost": lost, "silence_ms": silence.as_secs_f64() * 1e3,
        }))
    }

    /// Tells the server from a thread of its own, so that asking goes on.
    fn tell(&self) -> (Instant, JoinHandle<io::Result<()>>) {
        let (socket, file, words) = (self.socket.clone(), self.file.clone(), self.words.clone());
        let text = format!("{}\n", words.join(" "));
        let telling = move || match (socket, file) {
            (Some(socket), _) => {
                let mut stream = UnixStream::connect(socket)?;
                stream.write_all(text.as_bytes())?;
                stream.read(&mut [0; 4_096]).map(drop)
            }
            (None, Some(file)) => std::fs::write(file, text),
            (None, None) => {
                let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
                Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status().map(drop)
            }
        };
        (tick(), thread::spawn(telling))
    }
}
