//! The DHCP door and the bytes of answers: real clients' options (extracted from captures of a lab), the RFCs' tables, arbitrary bytes. No sockets.

use std::net::Ipv4Addr;

use actors::leases::{Outcome, Want};
use dhcproto::{
    Decodable, Decoder,
    v4::{DhcpOption, Message, OptionCode},
};
use proptest::prelude::*;
use rack::{
    dhcp::{
        answer::{self, Target},
        boot::{Server, loader},
        packet::{self, Malformed, MessageType, Packet, Request},
        route::{self, Action, Passed},
    },
    plan::Snapshot,
};
use schema::{boot::BootMethod, time::Timestamp};

const NOW: Timestamp = Timestamp(1_000_000_000);
const HERE: [Ipv4Addr; 1] = [Ipv4Addr::new(10, 77, 0, 1)];

/// SeaBIOS with QEMU's iPXE ROM.
const IPXE_BIOS: &str = "350101390205c05d0200005e030102013c20505845436c69656e743a417263683a30303030303a554e44493a3030323030314d04695058453717010306070c0f111a2b3c4243778081828384858687afcbaf30b105011af41000eb030100001701012201011301011101012701011901012901011001022101011501011801011201013d070152540077000161110000000000000000408000000000000001ff";
/// OVMF, PXEv4.
const OVMF_PXE: &str = "350101390205c037230102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687611100000000000000004080000000000000015e030103005d0200073c20505845436c69656e743a417263683a30303030373a554e44493a303033303030ff";
/// OVMF, HTTPv4.
const OVMF_HTTP: &str = "350101390205c0371b0102030405060c0d0f111216171c28292a2b3233363a3b3ceb4361611100000000000000004080000000000000015e030103005d0200103c2148545450436c69656e743a417263683a30303031363a554e44493a303033303030ff";
/// snponly.efi (iPXE under UEFI).
const SNPONLY: &str = "350101390205c05d0200075e0301030a3c20505845436c69656e743a417263683a30303030373a554e44493a3030333031304d04695058453717010306070c0f111a2b3c4243778081828384858687afcbaf24b105011af41000eb030100001701012401011301011101012701012901011501011201013d070152540077000161110000000000000000408000000000000001ff";
/// klibc's ipconfig in an initrd.
const IPCONFIG: &str = "350101370b0103060c0f111a1c2877793c0e4c696e7578206970636f6e666967ff";
/// busybox.
const UDHCPC: &str = "3501013902024037070103060c0f1c2a3c0c756468637020312e33352e303d0701525400770001ff";
/// ISC dhclient in the ephemeral system.
const DHCLIENT: &str =
    "3501010c096c6f63616c686f7374370d011c02030f06770c2c2f1a792a3d13ff007700010001000132956060525400770001ff";

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

/// A client's packet with these options (from the message type to the end).
fn packet(options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    (bytes[0], bytes[1], bytes[2]) = (1, 1, 6);
    bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x77, 0, 1]);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend_from_slice(options);
    bytes
}

fn request(bytes: &[u8]) -> Request {
    match packet::parse(bytes) {
        Ok(Packet::Request(request)) => *request,
        other => panic!("{other:?}"),
    }
}

fn snapshot() -> Snapshot {
    let json = serde_json::json!({
        "subnets": [
            {"id": 1, "cidr": "10.77.0.0/24", "gateway": "10.77.0.254", "dhcp": true, "mtu": 9000, "dns_servers": ["10.77.0.1", "fd00::1"],
             "ntp_servers": ["10.77.0.1"], "search": ["maas", "lab.example"], "dynamic": [{"start": "10.77.0.80", "end": "10.77.0.99"}]},
            {"id": 2, "cidr": "10.78.0.0/24", "rack_address": "10.77.0.1", "dhcp": true},
            {"id": 3, "cidr": "10.79.0.0/24", "dhcp": false}
        ],
        "reservations": [],
        "tickets": [{
            "machine": "4xk9qd", "attempt": 1, "purpose": "commissioning", "macs": ["52:54:00:77:00:01"], "hostname": "swift-otter",
            "domain": "maas", "arch": "amd64", "expires": i64::MAX
        }]
    });
    Snapshot::new(serde_json::from_value(json).unwrap())
}

fn answered(request: &Request, outcome: &Outcome) -> Option<answer::Reply> {
    let plan = snapshot();
    let routed = route::route(request, &HERE, &plan, NOW).unwrap();
    let around = route::around(&plan, routed, request, 5248, NOW).unwrap();
    answer::reply(request, outcome, &around)
}

fn decoded(bytes: &[u8]) -> Message {
    Message::decode(&mut Decoder::new(bytes)).unwrap()
}

const OFFER: Outcome = Outcome::Offer { ip: Ipv4Addr::new(10, 77, 0, 80), lease_s: 600 };

#[test]
fn real_clients_are_known_by_their_options() {
    for (options, method, firmware) in [
        (IPXE_BIOS, Some(BootMethod::Ipxe), true),
        (OVMF_PXE, Some(BootMethod::UefiAmd64Tftp), true),
        (OVMF_HTTP, Some(BootMethod::UefiAmd64Http), true),
        (SNPONLY, Some(BootMethod::Ipxe), true),
        (IPCONFIG, None, false),
        (UDHCPC, None, false),
        (DHCLIENT, None, false),
    ] {
        let request = request(&packet(&hex(options)));
        assert_eq!((request.client.method(), request.client.is_firmware()), (method, firmware), "{options}");
        assert_eq!(request.kind, MessageType::Discover);
    }
    assert_eq!(request(&packet(&hex(DHCLIENT))).hostname, None, "localhost is no name");
    assert_eq!(request(&packet(&hex(UDHCPC))).max_size, 576);
    assert_eq!(request(&packet(&hex(OVMF_PXE))).max_size, 1_472);
}

#[test]
fn architectures_and_user_classes() {
    const PXE: &[u8] = b"PXEClient:Arch:00000:UNDI:002001";
    type Said<'a> = &'a [(u8, &'a [u8])];
    let table: [(Said<'_>, Option<BootMethod>); 16] = [
        (&[(60, PXE), (93, &[0, 0])], Some(BootMethod::Pxe)),
        (&[(60, PXE)], Some(BootMethod::Pxe)),
        (&[(93, &[0, 0])], Some(BootMethod::Pxe)),
        (&[(93, &[0, 7])], Some(BootMethod::UefiAmd64Tftp)),
        (&[(93, &[0, 9])], Some(BootMethod::UefiAmd64Tftp)),
        (&[(93, &[0, 11])], Some(BootMethod::UefiArm64Tftp)),
        (&[(93, &[0, 16])], Some(BootMethod::UefiAmd64Http)),
        (&[(93, &[0, 19])], Some(BootMethod::UefiArm64Http)),
        // RFC 4578 section 2.1: a list; the first that has a loader.
        (&[(93, &[0, 6, 0, 7])], Some(BootMethod::UefiAmd64Tftp)),
        (&[(60, PXE), (93, &[0, 12])], None),
        (&[(93, &[0, 7, 0])], None),
        // RFC 3004: a length before each class; and raw as iPXE sends it.
        (&[(93, &[0, 7]), (77, b"\x03foo\x04iPXE")], Some(BootMethod::Ipxe)),
        (&[(93, &[0, 7]), (77, b"iPXE")], Some(BootMethod::Ipxe)),
        (&[(93, &[0, 7]), (77, b"gPXE")], Some(BootMethod::UefiAmd64Tftp)),
        // Option 175: HTTP and EFI, without a user class; HTTP alone does not boot.
        (&[(93, &[0, 7]), (175, &[19, 1, 1, 36, 1, 1])], Some(BootMethod::Ipxe)),
        (&[(93, &[0, 7]), (175, &[19, 1, 1, 36, 1, 0])], Some(BootMethod::UefiAmd64Tftp)),
    ];
    for (options, method) in table {
        let mut bytes = vec![53, 1, 1];
        for (code, data) in options {
            bytes.extend([*code, u8::try_from(data.len()).unwrap()]);
            bytes.extend_from_slice(data);
        }
        bytes.push(255);
        assert_eq!(request(&packet(&bytes)).client.method(), method, "{options:?}");
    }
}

#[test]
fn loaders_by_method() {
    let server = Server { address: HERE[0], http_port: 5248 };
    for (method, file, class, prefix) in [
        (BootMethod::Ipxe, "http://10.77.0.1:5248/ipxe.cfg", None, None),
        (BootMethod::Pxe, "lpxelinux.0", None, Some("http://10.77.0.1:5248/")),
        (BootMethod::UefiAmd64Tftp, "bootx64.efi", None, None),
        (BootMethod::UefiAmd64Http, "http://10.77.0.1:5248/snponly.efi", Some("HTTPClient"), None),
        (BootMethod::UefiArm64Tftp, "bootaa64.efi", None, None),
        (BootMethod::UefiArm64Http, "http://10.77.0.1:5248/bootaa64.efi", Some("HTTPClient"), None),
    ] {
        let told = loader(method, server);
        assert_eq!((&*told.file, told.vendor_class, told.path_prefix.as_deref()), (file, class, prefix));
    }
}

#[test]
fn what_is_no_packet_for_us_has_a_name() {
    let good = packet(&[53, 1, 1, 255]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        packet::parse(&bytes).map(drop)
    };
    assert_eq!(packet::parse(&good[..240]).map(drop), Err(Malformed::Short(240)));
    assert_eq!(with(0, 3), Err(Malformed::Op(3)));
    assert_eq!(with(0, 2), Err(Malformed::Direction));
    // dhcproto's chaddr() would panic here.
    assert_eq!(with(2, 17), Err(Malformed::Hardware { htype: 1, hlen: 17 }));
    assert_eq!(with(1, 32), Err(Malformed::Hardware { htype: 32, hlen: 6 }));
    assert_eq!(with(28, 1), Err(Malformed::Address));
    assert_eq!(with(236, 0), Err(Malformed::Cookie));
    assert_eq!(with(242, 14), Err(Malformed::Type));
    let options = |o: &[u8]| packet::parse(&packet(o)).map(drop);
    assert_eq!(options(&[255]), Err(Malformed::NoType));
    assert_eq!(
        options(&[53, 1, 1, 50, 3, 1, 2, 3, 255]),
        Err(Malformed::Length { code: 50, len: 3, must: "4 bytes (an address)" })
    );
    assert!(matches!(options(&[53, 1, 1, 82, 2, 1, 9, 255]), Err(Malformed::Length { code: 82, .. })));
    // Comfort that is malformed is passed over.
    assert_eq!(options(&[53, 1, 1, 57, 1, 9, 12, 1, 0, 93, 1, 0, 255]), Ok(()));
}

#[test]
fn an_offer_has_what_was_asked_for_and_its_order() {
    let mut options = hex(OVMF_PXE);
    options.pop();
    options.extend([82, 4, 1, 2, 7, 7, 255]);
    let reply = answered(&request(&packet(&options)), &OFFER).unwrap();
    assert_eq!(&reply.bytes[240..243], [53, 1, 2], "the type is first");
    let relay = reply.bytes.windows(6).position(|w| w == [82, 4, 1, 2, 7, 7]).unwrap();
    assert_eq!(reply.bytes[relay + 6], 255, "option 82 is last");
    let message = decoded(&reply.bytes);
    let option = |code| message.opts().get(code).cloned();
    assert_eq!(message.siaddr(), HERE[0]);
    assert_eq!(message.fname(), Some(&b"bootx64.efi\0"[..]));
    assert_eq!(option(OptionCode::ServerIdentifier), Some(DhcpOption::ServerIdentifier(HERE[0])));
    assert_eq!(option(OptionCode::SubnetMask), Some(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0))));
    assert_eq!(option(OptionCode::BroadcastAddr), Some(DhcpOption::BroadcastAddr(Ipv4Addr::new(10, 77, 0, 255))));
    assert_eq!(option(OptionCode::Router), Some(DhcpOption::Router(vec![Ipv4Addr::new(10, 77, 0, 254)])));
    assert_eq!(option(OptionCode::DomainNameServer), Some(DhcpOption::DomainNameServer(vec![HERE[0]])));
    assert_eq!(option(OptionCode::NtpServers), Some(DhcpOption::NtpServers(vec![HERE[0]])));
    assert_eq!(option(OptionCode::Renewal), Some(DhcpOption::Renewal(300)));
    assert_eq!(option(OptionCode::Rebinding), Some(DhcpOption::Rebinding(525)));
    assert_eq!(option(OptionCode::Hostname), Some(DhcpOption::Hostname("swift-otter".into())));
    assert_eq!(option(OptionCode::InterfaceMtu), None, "OVMF did not ask for 26");
    let told = decoded(&answered(&request(&packet(&hex(IPCONFIG))), &OFFER).unwrap().bytes);
    assert_eq!(told.opts().get(OptionCode::InterfaceMtu), Some(&DhcpOption::InterfaceMtu(9_000)));
    let search = told.opts().get(OptionCode::DomainSearch).cloned();
    assert!(matches!(search, Some(DhcpOption::DomainSearch(names)) if names.len() == 2), "RFC 3397");
    assert_eq!(told.opts().get(OptionCode::BootfileName), None, "an operating system boots nothing");
}

#[test]
fn http_boot_gets_its_class_and_uri() {
    let message = decoded(&answered(&request(&packet(&hex(OVMF_HTTP))), &OFFER).unwrap().bytes);
    assert_eq!(
        message.opts().get(OptionCode::ClassIdentifier),
        Some(&DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()))
    );
    let uri = b"http://10.77.0.1:5248/snponly.efi".to_vec();
    assert_eq!(message.opts().get(OptionCode::BootfileName), Some(&DhcpOption::BootfileName(uri)));
}

#[test]
fn rfc_2131_4_1_where_answers_go() {
    let discover = request(&packet(&[53, 1, 1, 255]));
    let ip = Ipv4Addr::new(10, 77, 0, 80);
    let to = |request: &Request, outcome: &Outcome| answered(request, outcome).unwrap().to;
    assert_eq!(to(&discover, &OFFER), Target::Hardware { mac: discover.mac, ip });
    assert_eq!(to(&Request { flags: 0x8000, ..discover.clone() }, &OFFER), Target::Broadcast);
    let renewing = Request { kind: MessageType::Request, ciaddr: ip, ..discover.clone() };
    let ack = Outcome::Ack { ip, lease_s: 600 };
    assert_eq!(to(&renewing, &ack), Target::Client(ip));
    let nak = Outcome::Nak { why: "no" };
    assert_eq!(to(&renewing, &nak), Target::Broadcast);
    let giaddr = Ipv4Addr::new(10, 78, 0, 9);
    let relayed = Request { giaddr, ..discover };
    assert_eq!(to(&relayed, &OFFER), Target::Relay { giaddr, same_port: false });
    let refused = answered(&relayed, &nak).unwrap();
    assert_eq!(refused.to, Target::Relay { giaddr, same_port: false });
    assert_eq!(refused.bytes[10], 0x80, "section 4.3.2: the relay must broadcast a NAK");
    assert_eq!(answered(&relayed, &Outcome::Silent { why: "" }), None);
}

#[test]
fn rfc_2131_4_3_what_clients_want() {
    let plan = snapshot();
    let base = request(&packet(&[53, 1, 3, 255]));
    let ip = Ipv4Addr::new(10, 77, 0, 80);
    let want = |request: &Request| route::route(request, &HERE, &plan, NOW).map(|r| r.action);
    let other = Some(Ipv4Addr::new(10, 77, 0, 3));
    let selecting = Request { requested: Some(ip), server_id: Some(HERE[0]), ..base.clone() };
    assert_eq!(want(&selecting), Ok(Action::Ask(Want::Take { ip })));
    assert_eq!(want(&Request { server_id: other, ..selecting.clone() }), Ok(Action::Ask(Want::Elsewhere)));
    assert_eq!(want(&Request { server_id: None, ..selecting }), Ok(Action::Ask(Want::Reboot { ip })));
    assert_eq!(want(&Request { ciaddr: ip, ..base.clone() }), Ok(Action::Ask(Want::Renew { ip })));
    assert_eq!(want(&base), Err(Passed::NoAddress));
    let release = Request { kind: MessageType::Release, ciaddr: ip, server_id: Some(HERE[0]), ..base.clone() };
    assert_eq!(want(&release), Ok(Action::Ask(Want::Release { ip })));
    assert_eq!(want(&Request { server_id: other, ..release }), Err(Passed::OtherServer));
    let decline = Request { kind: MessageType::Decline, requested: Some(ip), ..base.clone() };
    assert_eq!(want(&decline), Ok(Action::Ask(Want::Decline { ip })));
    assert_eq!(want(&Request { kind: MessageType::Inform, ciaddr: ip, ..base.clone() }), Ok(Action::Inform));
    let stranger = Request { mac: "52:54:00:77:00:99".parse().unwrap(), kind: MessageType::Discover, ..base };
    assert_eq!(want(&stranger), Err(Passed::Stranger));
}

#[test]
fn a_relay_names_the_subnet() {
    let plan = snapshot();
    let subnet = |options: &[u8], giaddr: [u8; 4]| {
        let mut bytes = packet(options);
        bytes[24..28].copy_from_slice(&giaddr);
        route::route(&request(&bytes), &HERE, &plan, NOW).map(|r| (r.subnet, r.server))
    };
    assert_eq!(subnet(&[53, 1, 1, 255], [0; 4]), Ok((0, HERE[0])));
    assert_eq!(subnet(&[53, 1, 1, 255], [10, 78, 0, 9]), Ok((1, HERE[0])));
    // RFC 3527: link selection before giaddr.
    assert_eq!(subnet(&[53, 1, 1, 82, 6, 5, 4, 10, 78, 0, 0, 255], [10, 77, 0, 9]), Ok((1, HERE[0])));
    assert_eq!(subnet(&[53, 1, 1, 255], [10, 79, 0, 9]), Err(Passed::UnknownRelay), "DHCP is off there");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Arbitrary bytes, and real packets with some bytes changed: an answer or an error, never a panic; an answer is decodable and fits.
    #[test]
    fn no_bytes_panic(
        base in 0_usize..7,
        changes in prop::collection::vec((0_usize..500, any::<u8>()), 0..12),
        cut in 0_usize..500,
        noise in prop::collection::vec(any::<u8>(), 0..400),
        pick in 0_u8..3,
    ) {
        let mut bytes = packet(&hex([IPXE_BIOS, OVMF_PXE, OVMF_HTTP, SNPONLY, IPCONFIG, UDHCPC, DHCLIENT][base]));
        match pick {
            0 => bytes = noise,
            1 => { bytes.truncate(241); bytes.extend(noise) }
            _ => bytes.truncate(cut.max(200)),
        }
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        if let Ok(Packet::Request(request)) = packet::parse(&bytes) {
            let plan = snapshot();
            if let Ok(routed) = route::route(&request, &HERE, &plan, NOW) {
                let around = route::around(&plan, routed, &request, 5248, NOW).unwrap();
                let reply = answer::reply(&request, &OFFER, &around).unwrap();
                prop_assert!(reply.bytes.len() + 28 <= usize::from(request.max_size));
                prop_assert!(Message::decode(&mut Decoder::new(&reply.bytes)).is_ok());
                prop_assert!(answer::inform(&request, &around).bytes.len() >= 300);
            }
        }
    }
}
