//! What TFTP costs: ns per block decided and packed, us per boot config, MB/s and CPU per MB over loopback.
//! Hypothesis: lock step is bounded by two system calls and a wake-up a block; a window of 16 leaves one send for sixteen blocks.
#![allow(clippy::unwrap_used, reason = "a bench that cannot measure says so by panicking")]

mod common;

use std::{hint::black_box, net::UdpSocket, sync::Arc, thread, time::Duration};

use actors::clock::tick;
use rack::tftp::{
    self, TftpConfig,
    packet::{Mode, Options, Packet},
    receiver::{Next, Receiver, Reply},
    transfer::{Event, Send, Transfer},
};

const FILE: &str = "kernel";
const MIB: usize = 1 << 20;

fn main() {
    let shapes = [(512, 1), (1_428, 1), (1_428, 16)];
    for (block, window) in shapes {
        println!("tftp block {block}:{window:<2}   decide and pack   {:8.0} ns/block", pack(block, window));
    }
    let (desk, _dir) = common::desk(10_000, &[(FILE, MIB)]);
    for name in ["grub/grub.cfg", "ipxe.cfg", "pxelinux.cfg/default", "grub/x86_64-efi/command.lst"] {
        let asked = rack::boot::Asked {
            name,
            peer: "127.77.3.7".parse().unwrap(),
            rack: "10.77.0.1:5248".parse().unwrap(),
            names: false,
        };
        let cost = common::each(Duration::from_millis(500), || drop(black_box(desk.open("tftp", &asked))));
        println!("boot config {name:<28} {:8.2} us, 10,000 tickets, fact reported", cost / 1e3);
    }
    let config = TftpConfig { listen: "127.77.255.1:0".parse().unwrap(), ..TftpConfig::default() };
    let server = tftp::start(config, Arc::new(desk)).unwrap();
    for (block, window) in shapes {
        for clients in [1, 50] {
            let (before, start) = (common::cpu_of("tftp"), tick());
            let threads: Vec<_> = (0..clients)
                .map(|_| {
                    let address = server.address();
                    thread::spawn(move || {
                        let mut bytes = 0;
                        while start.elapsed() < Duration::from_secs(2) {
                            bytes += fetch(address, block, window);
                        }
                        bytes
                    })
                })
                .collect();
            let bytes: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
            let (took, cpu) = (start.elapsed().as_secs_f64(), (common::cpu_of("tftp") - before).as_secs_f64());
            let megabytes = bytes as f64 / 1e6;
            println!(
                "tftp {block}:{window:<2} x{clients:<3} {:8.1} MB/s   {:6.2} CPU ms/MB of the server",
                megabytes / took,
                cpu * 1e3 / megabytes
            );
        }
    }
}

fn pack(block: u16, window: u16) -> f64 {
    let body = common::noise(MIB);
    let asked = Options { blksize: Some(block), windowsize: Some(window), ..Options::default() };
    let (mut buffer, mut blocks) = (Vec::with_capacity(65_536), 0_u64);
    let start = tick();
    while start.elapsed() < Duration::from_millis(500) {
        let mut transfer = Transfer::new(body.len() as u64, &asked, block, window);
        transfer.step(Event::Start);
        let mut acknowledged = 0;
        while let Send::Blocks { first, count } =
            transfer.step(Event::Packet(Packet::Ack { block: acknowledged as u16 })).send
        {
            buffer.clear();
            for number in first..first + u64::from(count) {
                let data = body.get(transfer.range(number)).unwrap_or_default();
                Packet::Data { block: number as u16, data }.write(&mut buffer);
            }
            black_box(&buffer);
            acknowledged = first + u64::from(count) - 1;
            blocks += u64::from(count);
        }
    }
    start.elapsed().as_nanos() as f64 / blocks as f64
}

/// One whole file by the receiver that simulated machines use.
fn fetch(server: std::net::SocketAddr, block: u16, window: u16) -> usize {
    let socket = UdpSocket::bind("127.77.3.7:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let asked = Options { blksize: Some(block), windowsize: Some(window).filter(|w| *w > 1), ..Options::default() };
    let mut receiver = Receiver::new(asked, Duration::from_secs(1));
    let (mut peer, mut bytes, mut buffer) = (server, 0, vec![0; 65_536]);
    let mut heard = receiver.step(Event::Start);
    loop {
        match heard.reply {
            Reply::Request => {
                let request = Packet::Read { name: FILE, mode: Mode::Octet, options: asked };
                socket.send_to(&request.to_bytes(), server).unwrap();
            }
            Reply::Ack(block) => drop(socket.send_to(&Packet::Ack { block }.to_bytes(), peer)),
            Reply::Nothing | Reply::Error(_) => {}
        }
        match heard.next {
            Next::Complete => return bytes,
            Next::Failed(why) => panic!("{why}"),
            Next::Wait(_) => {}
        }
        heard = match socket.recv_from(&mut buffer) {
            Err(_) => receiver.step(Event::Elapsed),
            Ok((len, from)) => {
                peer = from;
                let packet = Packet::parse(&buffer[..len]).unwrap();
                let heard = receiver.step(Event::Packet(packet));
                if let (true, Packet::Data { data, .. }) = (heard.take, packet) {
                    bytes += data.len();
                }
                heard
            }
        };
    }
}
