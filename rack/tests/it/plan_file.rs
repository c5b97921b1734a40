//! A rack that serves from a plan file alone: DHCP, TFTP and HTTP answer, the file is watched, reservations come through the socket.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use dhcproto::{
    Decodable, Decoder,
    v4::{DhcpOption, Message, OptionCode},
};
use rack::{
    app::{App, AppError, Running},
    config::{RackConfig, Service},
    control,
    dhcp::Listen,
};
use schema::service::Health;

/// A plan whose rack is `host`. The machine 52:54:00:77:00:01 boots from disk, strangers are ignored.
pub(crate) fn write_plan(path: &Path, host: Ipv4Addr, lease_s: u32) {
    let [a, b, c, _] = host.octets();
    let text = format!(
        r#"
        [settings]
        domain = "lab"
        lease_s = {lease_s}
        [listen]
        tftp = "{host}:0"
        http = "{host}:0"
        [[subnets]]
        id = 1
        cidr = "{a}.{b}.{c}.0/24"
        rack_address = "{host}"
        dhcp = true
        dynamic = [{{ start = "{a}.{b}.{c}.100", end = "{a}.{b}.{c}.120" }}]
        [[reservations]]
        subnet = 1
        mac = "52:54:00:77:00:02"
        ip = "{a}.{b}.{c}.50"
        [[tickets]]
        machine = "abc234"
        attempt = 0
        purpose = "local"
        macs = ["52:54:00:77:00:01"]
        hostname = "fox"
        domain = "lab"
        arch = "amd64"
        expires = {}
        [[boot_files]]
        name = "lpxelinux.0"
        path = "loader.bin"
        "#,
        i64::MAX
    );
    std::fs::write(path.with_extension("part"), text).unwrap();
    std::fs::rename(path.with_extension("part"), path).unwrap();
}

pub(crate) fn config(dir: &Path, host: Ipv4Addr) -> RackConfig {
    RackConfig {
        state: dir.join("state"),
        plan: Some(dir.join("plan.toml")),
        services: BTreeSet::from([Service::Dhcp, Service::Tftp, Service::Http]),
        dhcp: Listen::At(vec![std::net::SocketAddrV4::new(host, 0)]),
        ..RackConfig::default()
    }
}

async fn start(dir: &Path, host: Ipv4Addr) -> Running {
    std::fs::write(dir.join("loader.bin"), b"the loader").unwrap();
    App::start(config(dir, host)).await.unwrap()
}

/// What DHCP says to a DISCOVER of that MAC, if anything.
fn discover(server: SocketAddr, mac_last: u8) -> Option<Message> {
    let relay = match server.ip() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => unreachable!(),
    };
    let client = UdpSocket::bind((server.ip(), 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(1_500))).unwrap();
    let mut bytes = vec![0; 240];
    (bytes[0], bytes[1], bytes[2]) = (1, 1, 6);
    bytes[24..27].copy_from_slice(&relay[..3]);
    bytes[27] = 2;
    bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x77, 0, mac_last]);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, 1, 255]);
    client.send_to(&bytes, server).unwrap();
    let mut buffer = [0; 2_048];
    let len = client.recv(&mut buffer).ok()?;
    Some(Message::decode(&mut Decoder::new(&buffer[..len])).unwrap())
}

/// The first block of a file by TFTP.
fn tftp(server: SocketAddr, name: &str) -> Vec<u8> {
    let client = UdpSocket::bind((server.ip(), 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.send_to(&[b"\0\x01", name.as_bytes(), b"\0octet\0"].concat(), server).unwrap();
    let mut buffer = [0; 1_024];
    let (len, from) = client.recv_from(&mut buffer).unwrap();
    client.send_to(&[0, 4, 0, 1], from).unwrap();
    buffer[..len].to_vec()
}

fn http(server: SocketAddr, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(server).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn dhcp_tftp_and_http_answer_from_the_file_and_the_file_is_watched() {
    let (dir, host) = (tempfile::tempdir().unwrap(), Ipv4Addr::new(127, 77, 202, 1));
    write_plan(&dir.path().join("plan.toml"), host, 600);
    let running = start(dir.path(), host).await;
    let at = |service| running.addresses(service)[0];
    let lease_time = |m: &Message| match m.opts().get(OptionCode::AddressLeaseTime) {
        Some(DhcpOption::AddressLeaseTime(s)) => *s,
        other => panic!("{other:?}"),
    };
    let offer = discover(at(Service::Dhcp), 1).expect("the machine of the plan gets an offer");
    assert_eq!(lease_time(&offer), 600);
    assert_eq!(discover(at(Service::Dhcp), 2).unwrap().yiaddr(), Ipv4Addr::new(127, 77, 202, 50));
    assert!(discover(at(Service::Dhcp), 9).is_none(), "a stranger is ignored");
    assert_eq!(tftp(at(Service::Tftp), "lpxelinux.0"), b"\0\x03\0\x01the loader");
    let answer = http(at(Service::Http), "/lpxelinux.0");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("the loader"), "{answer}");
    // A fault in the file is no end: the old plan stays. The next good version is in force.
    std::fs::write(dir.path().join("plan.toml"), "subnets = 5").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(discover(at(Service::Dhcp), 1).is_some());
    write_plan(&dir.path().join("plan.toml"), host, 1_200);
    let mut seen = 0;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen = discover(at(Service::Dhcp), 1).map_or(0, |m| lease_time(&m));
        if seen == 1_200 {
            break;
        }
    }
    assert_eq!(seen, 1_200, "the new version is in force");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_through_the_socket_holds_for_the_next_packet_and_after_a_restart() {
    let (dir, host) = (tempfile::tempdir().unwrap(), Ipv4Addr::new(127, 77, 203, 1));
    write_plan(&dir.path().join("plan.toml"), host, 600);
    let running = start(dir.path(), host).await;
    let state = dir.path().join("state");
    let mac = "52:54:00:77:00:09".parse().unwrap();
    let wanted = Ipv4Addr::new(127, 77, 203, 60);
    assert!(discover(running.addresses(Service::Dhcp)[0], 9).is_none());
    control::reserve(&state, mac, wanted, Some("nine".parse().unwrap())).await.unwrap();
    assert_eq!(discover(running.addresses(Service::Dhcp)[0], 9).unwrap().yiaddr(), wanted);
    for (ip, what) in [("10.0.0.1", "no subnet"), ("127.77.203.50", "kept for"), ("127.77.203.1", "own address")] {
        let error = control::reserve(&state, mac, ip.parse().unwrap(), None).await.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    running.stop().await;
    assert!(control::reserve(&state, mac, wanted, None).await.unwrap_err().to_string().contains("no rack listens"));
    let running = start(dir.path(), host).await;
    assert_eq!(discover(running.addresses(Service::Dhcp)[0], 9).unwrap().yiaddr(), wanted);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_one_error_with_a_remedy_and_a_taken_port_stops_one_service_alone() {
    let (dir, host) = (tempfile::tempdir().unwrap(), Ipv4Addr::new(127, 77, 204, 1));
    let plan = dir.path().join("plan.toml");
    let why = |e: Result<Running, AppError>| e.err().expect("an error").to_string();
    assert!(why(App::start(config(dir.path(), host)).await).contains("plan.toml cannot be read"));
    std::fs::write(&plan, "[[boot_files]]\nname = \"x\"\npath = \"missing\"").unwrap();
    assert!(why(App::start(config(dir.path(), host)).await).contains("missing"));
    std::fs::write(&plan, "subnet = []").unwrap();
    assert!(why(App::start(config(dir.path(), host)).await).contains("there is no \"subnet\" in a plan"));
    write_plan(&plan, host, 600);
    std::fs::write(dir.path().join("loader.bin"), b"x").unwrap();
    let holder = UdpSocket::bind((host, 0)).unwrap();
    let text = std::fs::read_to_string(&plan).unwrap();
    let taken = holder.local_addr().unwrap();
    std::fs::write(&plan, text.replace(&format!("tftp = \"{host}:0\""), &format!("tftp = \"{taken}\""))).unwrap();
    // One service that does not start stops nothing else, says why, and starts once it can.
    let running = App::start(config(dir.path(), host)).await.unwrap();
    let tftp_now = || running.services().into_iter().find(|s| s.service == "tftp").unwrap();
    let error = tftp_now().last_error.expect("why");
    assert_eq!(tftp_now().health, Health::Dead);
    assert!(error.why.contains(&taken.to_string()) && error.remedy.contains("port"), "{error:?}");
    assert!(http(running.addresses(Service::Http)[0], "/lpxelinux.0").starts_with("HTTP/1.1 200"));
    drop(holder);
    for _ in 0..600 {
        if tftp_now().health == Health::Running {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(tftp_now().health, Health::Running, "{:?}", tftp_now());
    assert!(tftp_now().restarts > 0);
    assert_eq!(tftp(taken, "lpxelinux.0")[..4], [0, 3, 0, 1]);
    assert!(tftp_now().counters.contains(&("requests".to_owned(), 1)), "{:?}", tftp_now());
    running.stop().await;
}
