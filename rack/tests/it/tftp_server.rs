//! The TFTP server over loopback sockets: probes, refusals, limits, a thousand packets of nonsense, five hundred first requests.

use std::{net::UdpSocket, sync::Arc, time::Duration};

use rack::tftp::{
    self, Running, TftpConfig,
    packet::{Code, Mode, Options, Packet},
};
use schema::messages::report::{Fact, FileKind};

use crate::boot_yard::{Yard, pattern};

fn serve(yard: &Yard) -> Running {
    let config = TftpConfig { listen: "127.77.9.1:0".parse().unwrap(), ..TftpConfig::default() };
    tftp::start(config, Arc::new(yard.desk.clone())).unwrap()
}

fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

fn read(name: &str, options: Options) -> Vec<u8> {
    Packet::Read { name, mode: Mode::Octet, options }.to_bytes()
}

/// RFC 2349 section 3, as UEFI uses it: ask with tsize, learn the size, break off with ERROR 8, ask again from the same port.
#[test]
fn a_probe_for_the_size_is_no_failure_and_the_same_port_may_ask_again() {
    let mut yard = Yard::new(&pattern(10), 5_248);
    let server = serve(&yard);
    let socket = client("127.77.9.11");
    let mut buffer = [0; 2_048];
    let options = Options { tsize: Some(0), blksize: Some(1_468), windowsize: Some(4), timeout_s: None };
    socket.send_to(&read("bootx64.efi", options), server.address()).unwrap();
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    let Packet::OptionAck(granted) = Packet::parse(&buffer[..len]).unwrap() else { panic!("an OACK") };
    assert_eq!(granted, Options { tsize: Some(4_404), ..options });
    assert_ne!(from, server.address(), "a transfer has a port of its own (RFC 1350 section 4)");
    socket.send_to(&Packet::Error { code: Code::Options, message: "aborted" }.to_bytes(), from).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(
        yard.facts(),
        [Fact::FileAsked { file: "bootx64.efi".into(), kind: FileKind::Loader, service: "tftp".into(), found: true }]
    );
    socket.send_to(&read("bootx64.efi", options), server.address()).unwrap();
    let (len, _) = socket.recv_from(&mut buffer).unwrap();
    assert!(matches!(Packet::parse(&buffer[..len]).unwrap(), Packet::OptionAck(_)));
}
