//! Floods, slow clients and nonsense against TFTP, HTTP and DHCP: refused, counted, and a machine that boots meanwhile notices nothing.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actors::{clock::tick, shell::Registry};
use rack::{
    dhcp::{self, DhcpConfig, DhcpHandles, Listen, Neighbours},
    disk::Disk,
    http::{self, HttpConfig, HttpState},
    tftp::{
        self, TftpConfig,
        packet::{Mode, Options, Packet},
    },
};
use schema::{id::SubnetId, messages::report::Fact, plan::Reservation};

use crate::boot_yard::{ORDERED, Yard, pattern};

/// The longest that anything here may take on a loaded machine.
const END: Duration = Duration::from_secs(30);

fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(END)).unwrap();
    socket
}

fn read(name: &str) -> Vec<u8> {
    let options = Options { blksize: Some(1_428), ..Options::default() };
    Packet::Read { name, mode: Mode::Octet, options }.to_bytes()
}

/// A whole file in lock step, `between` after each block; a request that is refused for want of a place is made again.
fn fetch(server: SocketAddr, from: &str, name: &str, mut between: impl FnMut()) -> Vec<u8> {
    let (socket, begun) = (client(from), tick());
    let (mut bytes, mut buffer) = (Vec::new(), [0; 2_048]);
    socket.send_to(&read(name), server).unwrap();
    loop {
        assert!(begun.elapsed() < END, "{} bytes came", bytes.len());
        let (len, peer) = socket.recv_from(&mut buffer).unwrap();
        let ack = match Packet::parse(&buffer[..len]).unwrap() {
            Packet::OptionAck(_) => 0,
            Packet::Data { block, data } => {
                bytes.extend_from_slice(data);
                if data.len() < 1_428 {
                    socket.send_to(&Packet::Ack { block }.to_bytes(), peer).unwrap();
                    return bytes;
                }
                block
            }
            Packet::Error { message, .. } if message.contains("limit") => {
                std::thread::sleep(Duration::from_millis(20));
                socket.send_to(&read(name), server).unwrap();
                continue;
            }
            other => panic!("{other}"),
        };
        between();
        socket.send_to(&Packet::Ack { block: ack }.to_bytes(), peer).unwrap();
    }
}

/// Requests whose senders never answer take no place from machines, nonsense takes nothing at all.
#[test]
fn a_tftp_flood_is_counted_and_machines_boot_through_it() {
    let mut yard = Yard::new(&pattern(10), 5_248);
    yard.plan.settings.tftp_transfers = 20;
    yard.desk.plan.store(yard.plan.clone());
    let config = TftpConfig { listen: "127.77.12.1:0".parse().unwrap(), ..TftpConfig::default() };
    let server = tftp::start(config, Arc::new(yard.desk.clone())).unwrap();
    let (at, counters) = (server.address(), server.counters());
    let flood: Vec<_> = (0..30).map(|_| client("127.77.12.66")).collect();
    let initrd = yard.image().initrd.sha256;
    let mut seed = 0_usize;
    let mut flooding = || {
        for socket in &flood {
            socket.send_to(&read("bootx64.efi"), at).unwrap();
            seed += 1;
            socket.send_to(&pattern(seed % 600), at).unwrap();
        }
    };
    flooding();
    let bytes = fetch(at, "127.77.9.11", &format!("images/{initrd}/boot-initrd"), flooding);
    assert_eq!(bytes, pattern(70_000));
    let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert!(counted(&counters.malformed) > 0 && counted(&counters.refused) > 0, "{counters:?}");
    assert!(counted(&counters.active) <= 20, "{counters:?}");
    let begun = tick();
    while !yard.facts().iter().any(|f| matches!(f, Fact::FileFetched { bytes: 70_000, .. })) {
        assert!(begun.elapsed() < END, "the fetch was reported");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// HTTP on one thread with that many places.
fn serve(yard: &Yard, connections: usize) -> http::Running {
    let state = HttpState {
        plan: yard.desk.plan.clone(),
        leases: yard.desk.leases.clone(),
        bodies: yard.desk.bodies.clone(),
        reporter: yard.desk.reporter.clone(),
        metadata: http::metadata::Memory::default(),
        proxy: rack::proxy::Whereabouts::default(),
    };
    let listen = "127.77.12.1:0".parse().unwrap();
    http::start(HttpConfig { listen, workers: 1, connections, ..HttpConfig::default() }, state).unwrap()
}

fn ask(server: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(END)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: rack\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// Slow loris: heads that never end, and connections that say nothing, hold every place there is, and not for long.
#[test]
fn slow_heads_and_silent_connections_give_their_places_back() {
    let yard = Yard::new(&pattern(10), 5_248);
    let server = serve(&yard, 40);
    let slow: Vec<_> = (0..60)
        .map(|i| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            if i % 2 == 0 {
                stream.write_all(b"GET /bootx64.efi HTTP/1.1\r\nHost: ra").unwrap();
            }
            stream
        })
        .collect();
    let answer = ask(server.address(), "/bootx64.efi");
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&pattern(1_468 * 3)));
    drop(slow);
}

/// A head in the smallest pieces, two requests in one, and a request for metadata behind a file's: each has its answer.
#[test]
fn heads_in_pieces_and_together_are_answered() {
    let yard = Yard::new(&pattern(10), 5_248);
    let server = serve(&yard, 100);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(END)).unwrap();
    stream.set_nodelay(true).unwrap();
    let long = "x".repeat(3_000);
    for byte in b"GET /bootx64.efi HTTP/1.1\r\nHost: rack\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    write!(
        stream,
        "GET /bootx64.efi HTTP/1.1\r\nX-Long: {long}\r\n\r\nHEAD /bootx64.efi HTTP/1.1\r\n\r\n\
         GET /MAAS/metadata/ HTTP/1.1\r\nHost: rack\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    let text = String::from_utf8_lossy(&answers);
    assert_eq!(text.matches("HTTP/1.1 200").count(), 4, "{text}");
    assert_eq!(answers.windows(100).filter(|w| *w == &pattern(1_468 * 3)[..100]).count(), 2);
}

/// A DISCOVER of that MAC as a relay passes it on.
fn discover(mac: [u8; 6]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    (bytes[0], bytes[1], bytes[2]) = (1, 1, 6);
    bytes[24..28].copy_from_slice(&[127, 77, 9, 2]);
    bytes[28..34].copy_from_slice(&mac);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, 1, 255]);
    bytes
}

/// Strangers by the thousand and bytes that are no DHCP: nothing is offered, each is counted, the machine of the plan has its offer.
#[test]
fn a_dhcp_flood_is_counted_and_a_machine_has_its_offer() {
    let mut yard = Yard::new(&pattern(10), 5_248);
    let ip = Ipv4Addr::new(127, 77, 9, 50);
    yard.plan.reservations.push(Reservation { subnet: SubnetId(1), mac: ORDERED.parse().unwrap(), ip, hostname: None });
    yard.desk.plan.store(yard.plan.clone());
    let state = tempfile::tempdir().unwrap();
    let handles = DhcpHandles {
        plan: yard.desk.plan.clone(),
        leases: yard.desk.leases.clone(),
        reporter: yard.desk.reporter.clone(),
        registry: Registry::default(),
        neighbours: Neighbours::default(),
        disk: Disk::default(),
    };
    let listen = Listen::At(vec![SocketAddrV4::new(Ipv4Addr::new(127, 77, 9, 1), 0)]);
    let config =
        DhcpConfig { listen, http_port: 5_248, state: state.path().to_owned(), peers: Vec::new(), seek: false };
    let server = dhcp::start(config, handles).unwrap();
    let at = server.addresses()[0];
    let (flood, machine) = (client("127.77.12.66"), client("127.77.9.2"));
    machine.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mac, begun) = (ORDERED.parse::<schema::net::MacAddr>().unwrap().0, tick());
    let offered = loop {
        for number in 0_u16..500 {
            let [a, b] = number.to_be_bytes();
            flood.send_to(&discover([2, 0, 0, 0, a, b]), at).unwrap();
            flood.send_to(&pattern(usize::from(number)), at).unwrap();
        }
        machine.send_to(&discover(mac), at).unwrap();
        let mut buffer = [0; 2_048];
        match machine.recv(&mut buffer) {
            Ok(_) => break buffer,
            Err(_) => assert!(begun.elapsed() < END, "the machine's offer: {:?}", server.status().counts),
        }
    };
    assert_eq!((offered[0], &offered[16..20], &offered[28..34]), (2, &ip.octets()[..], &mac[..]));
    flood.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(flood.recv(&mut [0; 64]).is_err(), "a stranger had an answer");
    let counts = server.status().counts;
    assert!(counts.len() > 2 && counts.values().sum::<u64>() > 1_000, "{counts:?}");
    server.stop();
}
