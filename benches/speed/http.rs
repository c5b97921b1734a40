//! What the rack's HTTP costs: MB/s and CPU per GB of an image, CPU per small request, per boot config and per metadata-like answer.
//! Hypothesis: sendfile keeps an image at nginx's cost, since no byte passes through this process.
#![allow(clippy::unwrap_used, reason = "a bench that cannot measure says so by panicking")]

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use actors::clock::tick;
use rack::http::{self, HttpConfig, HttpState};

fn main() {
    let (desk, _dir) = common::desk(1_000, &[("squashfs.img", 100 << 20), ("k4", 4_096), ("k50", 50_000)]);
    let state = HttpState {
        plan: desk.plan.clone(),
        leases: desk.leases.clone(),
        bodies: desk.bodies.clone(),
        reporter: desk.reporter.clone(),
        metadata: http::metadata::Memory::default(),
        proxy: rack::proxy::Whereabouts::default(),
    };
    let config = HttpConfig { listen: "127.77.255.1:0".parse().unwrap(), ..HttpConfig::default() };
    let server = http::start(config, state).unwrap();
    let preseed = "/MAAS/metadata/latest/by-id/zzzzzz/?op=get_preseed";
    for path in ["/squashfs.img", "/k50", "/k4", "/ipxe.cfg", "/grub/none.lst", preseed] {
        for clients in [1, 16] {
            let (before, start) = (common::cpu_of("http-"), tick());
            let address = server.address();
            let threads: Vec<_> = (0..clients).map(|_| thread::spawn(move || ask(address, path))).collect();
            let sums: Vec<(u64, u64)> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            let (requests, bytes) = sums.iter().fold((0, 0), |(r, b), (requests, bytes)| (r + requests, b + bytes));
            let (took, cpu) = (start.elapsed().as_secs_f64(), (common::cpu_of("http-") - before).as_secs_f64());
            println!(
                "http {path:<50} x{clients:<3} {:9.0} req/s {:8.1} MB/s  {:8.1} CPU us/request  {:7.0} CPU ms/GB of the server",
                requests as f64 / took,
                bytes as f64 / 1e6 / took,
                cpu * 1e6 / requests as f64,
                cpu * 1e3 / (bytes as f64 / 1e9)
            );
        }
    }
}

/// Asks over one connection for two seconds; requests and bytes of bodies.
fn ask(server: SocketAddr, path: &str) -> (u64, u64) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: rack\r\n\r\n");
    let (mut buffer, mut requests, mut bytes) = (vec![0; 1 << 20], 0, 0);
    let start = tick();
    while start.elapsed() < Duration::from_secs(2) {
        stream.write_all(request.as_bytes()).unwrap();
        let (mut have, mut end) = (0, None);
        let head = loop {
            have += stream.read(&mut buffer[have..]).unwrap();
            end = end.or_else(|| buffer[..have].windows(4).position(|w| w == b"\r\n\r\n"));
            if let Some(end) = end {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let len: usize = text.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut left = len - (have - head);
        while left > 0 {
            let room = left.min(buffer.len());
            left -= stream.read(&mut buffer[..room]).unwrap();
        }
        requests += 1;
        bytes += len as u64;
    }
    (requests, bytes)
}
