//! Test vectors, round trips, arbitrary bytes.

use proptest::prelude::*;

use super::{
    command::{BootDevice, BootFlags, ChannelAuth, Command, Completion, Control, Privilege, Reply},
    crypto::{Exchange, Keys, Suite, same},
    message::Message,
    packet::{self, Kind, LONGEST, Packet, Plus, Window, open_sealed, write_sealed, write_setup},
    setup::{OpenRequest, OpenResponse, Proof, Rakp1, Rakp2, Status},
};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// ipmitool 1.8.19 (`>`) and ipmi_sim 2.0.33 (`<`) with suite 3, user maas, password labpass, as they were on the wire.
const SUITE_3: [&str; 10] = [
    "> 0600ff0706100000000000000000200000030000a4a3a2a0000000080100000001000008010000000200000801000000",
    "< 0600ff0706110000000000000000240000000300a4a3a2a002000000000000080100000001000008010000000200000801000000",
    "> 0600ff070612000000000000000020000000000002000000d70c79be40099e0e3f126f1bb9cc3269130000046d616173",
    "< 0600ff07061300000000000000003c0000000000a4a3a2a00d52c36f4073cf6358519ffba0b7ed3ea123456789abcdefa12345670000000129af19bfe1c553bb0dc33198d63799bba84d0ef6",
    "> 0600ff07061400000000000000001c0000000000020000004a9c7a6be5408ee78437ef0b8a43d04216b740ae",
    "< 0600ff0706150000000000000000140000000000a4a3a2a03c601a61219e5cf818e0f7da",
    "> 0600ff0706c0020000000300000020008cf78f997b9f9718cefc7de9665f8504d7d99d8d575b56c5b1872179ccb55feeffff0207450b2492bcfef1182a3ebed4",
    "< 0600ff0706c0a4a3a2a00100000020000ab495cb19ec69aa14b896a4d4ab183febb3526dcff69cb5e506ee5729894458ffff0207664f8a92189792866596dd0a",
    "> 0600ff0706c00200000004000000200056e2168ec96d3e9028ecfdc6d3fc946f8a756e050e9bce2247f13e874399c4e7ffff0207e581c4c88645526da2b3cd43",
    "< 0600ff0706c0a4a3a2a00200000020008355c46a2ddcaf49975bbc7ea4ae27019de0077d11c4af6fb5294af2e14b60a5ffff0207592364c4874945455f08b088",
];

fn plus(bytes: &[u8]) -> Plus<'_> {
    match Packet::read(bytes) {
        Ok(Packet::Plus(plus)) => plus,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_real_session_of_suite_3_is_understood_and_its_codes_are_ours() {
    let wire: Vec<_> = SUITE_3.iter().map(|line| hex(&line[2..])).collect();
    let body = |n: usize, kind| {
        let plus = plus(&wire[n]);
        assert_eq!((plus.kind, plus.session, plus.encrypted), (kind, 0, false));
        plus.payload
    };
    let request = OpenRequest::read(body(0, Kind::OpenRequest)).unwrap();
    let response = OpenResponse::read(body(1, Kind::OpenResponse)).unwrap();
    let first = Rakp1::read(body(2, Kind::Rakp1)).unwrap();
    let second = Rakp2::read(body(3, Kind::Rakp2)).unwrap();
    let third = Proof::read(body(4, Kind::Rakp3)).unwrap();
    let fourth = Proof::read(body(5, Kind::Rakp4)).unwrap();
    assert_eq!(request.algorithms, Suite::Sha1.algorithms());
    assert_eq!(response.algorithms, Suite::Sha1.algorithms());
    assert_eq!((first.role, first.user.as_slice()), (0x13, &b"maas"[..]));
    let exchange = Exchange {
        suite: Suite::Sha1,
        console_session: request.console_session,
        bmc_session: response.bmc_session,
        console_random: first.console_random,
        bmc_random: second.bmc_random,
        guid: second.guid,
        role: first.role,
        user: first.user.clone(),
    };
    assert_eq!(exchange.bmc_code(b"labpass"), second.code);
    assert_eq!(exchange.console_code(b"labpass"), third.code);
    let key = exchange.session_key(b"labpass");
    assert_eq!(exchange.check(&key), fourth.code);
    assert!(!same(&exchange.bmc_code(b"labpasz"), &second.code));
    // And back: the same bytes.
    let again = [
        write_setup(Kind::OpenRequest, &request.write()),
        write_setup(Kind::OpenResponse, &response.write()),
        write_setup(Kind::Rakp1, &first.write()),
        write_setup(Kind::Rakp2, &second.write()),
        write_setup(Kind::Rakp3, &third.write()),
        write_setup(Kind::Rakp4, &fourth.write()),
    ];
    assert_eq!(again[..], wire[..6]);

    let keys = Keys::new(Suite::Sha1, &key);
    let ask = open_sealed(&keys, &plus(&wire[6])).unwrap();
    let raise = Command::SetPrivilege { privilege: Privilege::Operator };
    assert_eq!(Command::read(&Message::read(&ask, true).unwrap()), Ok(raise.clone()));
    let answer = open_sealed(&keys, &plus(&wire[7])).unwrap();
    let message = Message::read(&answer, true).unwrap();
    assert_eq!(Reply::read(&raise, &message.data[1..]), Ok(Reply::Privilege(Privilege::Operator)));
    for packet in &wire[8..] {
        open_sealed(&keys, &plus(packet)).unwrap();
    }
}

/// Computed by Python's hmac and hashlib and by its cryptography package, from the text of the specification.
#[test]
fn suite_17_with_a_key_of_the_bmc_computes_what_others_compute() {
    let exchange = Exchange {
        suite: Suite::Sha256,
        console_session: 0xa0a2_a3a4,
        bmc_session: 0x0200,
        console_random: std::array::from_fn(|n| 0x10 + n as u8),
        bmc_random: std::array::from_fn(|n| 0x80 + n as u8),
        guid: std::array::from_fn(|n| 0xa0 + n as u8),
        role: 0x13,
        user: b"maas".to_vec(),
    };
    let bmc = "71eecfcdddeb1c2de63b0b40f139f35fa4f2ceeef9203a41d8dbd623c5379a89";
    let console = "f4d5a23cac2c0eb8cf743d2eadaf4b018d4ad8752b516ac36f3c3c7e982867d4";
    assert_eq!(exchange.bmc_code(b"labpass"), hex(bmc));
    assert_eq!(exchange.console_code(b"labpass"), hex(console));
    let key = exchange.session_key(&[1, 2, 3]);
    assert_eq!(exchange.check(&key), hex("fe778559b56009364b740c9f166214ac"));
    let keys = Keys::new(Suite::Sha256, &key);
    let message = Command::SetPrivilege { privilege: Privilege::Operator }.write(1);
    assert_eq!(message, hex("2018c881043b033d"));
    let sealed = write_sealed(&keys, 0x0200, 3, &message, std::array::from_fn(|n| 0x30 + n as u8));
    let packet = "0600ff0706c000020000030000002000303132333435363738393a3b3c3d3e3f6c2a3d500e0a4f09acd8f62d77a84917\
                  ffff020787fb5813728d95b8b0433a1b4a5c0dfa";
    assert_eq!(sealed, hex(packet));
    assert_eq!(open_sealed(&keys, &plus(&sealed)), Ok(message));
}

/// ipmi_sim refuses suite 17 in two bytes.
#[test]
fn a_short_refusal_is_understood() {
    let packet = hex("0600ff070611000000000000000002000004");
    let said = OpenResponse::read(plus(&packet).payload).unwrap();
    assert_eq!((said.tag, said.status), (0, Status::INVALID_AUTHENTICATION));
    assert_eq!(Rakp2::read(&[7, 0x0d]).unwrap().status, Status::UNAUTHORIZED_NAME);
    assert_eq!(Proof::read(&[7, 0x0f]).unwrap().status, Status::INVALID_CHECK);
}

#[test]
fn a_ping_has_its_pong() {
    assert_eq!(packet::ping(7), hex("0600ff06000011be80070000"));
    assert_eq!(Packet::read(&packet::ping(7)), Ok(Packet::Ping { tag: 7 }));
    assert_eq!(Packet::read(&packet::pong(7)), Ok(Packet::Pong { tag: 7, ipmi: true }));
}

#[test]
fn a_number_counts_once_and_late_ones_within_the_window() {
    let mut window = Window::default();
    let admitted: Vec<_> = [1, 2, 2, 5, 3, 3, 0, 60, 28, 29, 60].into_iter().map(|n| window.admit(n)).collect();
    assert_eq!(admitted, [true, true, false, true, true, false, false, true, false, true, false]);
    let mut wrapping = Window::default();
    assert!(wrapping.admit(u32::MAX) && wrapping.admit(1) && !wrapping.admit(u32::MAX));
}

fn commands() -> impl Strategy<Value = Command> {
    let privilege = prop_oneof![Just(Privilege::User), Just(Privilege::Operator), Just(Privilege::Administrator)];
    let control = prop_oneof![
        Just(Control::Off),
        Just(Control::On),
        Just(Control::Cycle),
        Just(Control::Reset),
        Just(Control::SoftOff)
    ];
    prop_oneof![
        Just(Command::DeviceId),
        Just(Command::SystemGuid),
        Just(Command::ChassisStatus),
        privilege.clone().prop_map(|privilege| Command::ChannelAuth { privilege }),
        privilege.prop_map(|privilege| Command::SetPrivilege { privilege }),
        (0_u8..64).prop_map(|index| Command::CipherSuites { index }),
        any::<u32>().prop_map(|session| Command::CloseSession { session }),
        control.prop_map(Command::ChassisControl),
        (0_u8..128, proptest::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(parameter, data)| Command::SetBootOption { parameter, data }),
        (0_u8..128).prop_map(|parameter| Command::GetBootOption { parameter }),
    ]
}

proptest! {
    #[test]
    fn requests_come_back_as_they_went(command in commands(), sequence in 0_u8..64) {
        let bytes = command.write(sequence);
        let message = Message::read(&bytes, true).unwrap();
        prop_assert_eq!((message.sequence, (message.function, message.command)), (sequence, command.code()));
        prop_assert_eq!(Command::read(&message), Ok(command));
    }

    #[test]
    fn replies_come_back_as_they_went(on: bool, keyed: bool, guid: [u8; 16], data in proptest::collection::vec(any::<u8>(), 0..16)) {
        let pairs = [
            (Command::ChassisStatus, Reply::Chassis { on }),
            (Command::ChannelAuth { privilege: Privilege::User }, Reply::ChannelAuth(ChannelAuth { ipmi2: on, keyed })),
            (Command::SystemGuid, Reply::SystemGuid(guid)),
            (Command::CipherSuites { index: 0 }, Reply::CipherSuites(data.clone())),
            (Command::GetBootOption { parameter: 5 }, Reply::BootOption { parameter: 5, data: data.clone() }),
            (Command::ChassisControl(Control::On), Reply::Done),
        ];
        for (command, reply) in pairs {
            prop_assert_eq!(Reply::read(&command, &reply.write()), Ok(reply));
        }
    }

    #[test]
    fn boot_flags_come_back_as_they_went(valid: bool, persistent: bool, efi: bool, device in 0_u8..16) {
        let device = match device {
            0 => BootDevice::Default,
            1 => BootDevice::Network,
            2 => BootDevice::Disk,
            other => BootDevice::Other(other),
        };
        let flags = BootFlags { valid, persistent, efi, device };
        prop_assert_eq!(BootFlags::read(&flags.write()), Ok(flags));
    }

    #[test]
    fn sealed_messages_open_with_their_key_alone(
        message in proptest::collection::vec(any::<u8>(), 0..200), session: u32, sequence: u32, iv: [u8; 16], sha256: bool,
    ) {
        let suite = if sha256 { Suite::Sha256 } else { Suite::Sha1 };
        let (keys, others) = (Keys::new(suite, b"one"), Keys::new(suite, b"other"));
        let bytes = write_sealed(&keys, session, sequence, &message, iv);
        let packet = plus(&bytes);
        prop_assert_eq!((packet.session, packet.sequence), (session, sequence));
        prop_assert!(open_sealed(&others, &packet).is_err());
        prop_assert_eq!(open_sealed(&keys, &packet), Ok(message));
    }

    /// No byte of anybody brings a parser down.
    #[test]
    fn arbitrary_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..LONGEST), known: bool) {
        let mut bytes = bytes;
        if known && bytes.len() > 4 {
            bytes[..4].copy_from_slice(&[6, 0, 0xff, 7]);
            bytes[4] = if bytes[4] & 1 == 0 { 0 } else { 6 };
        }
        if let Ok(Packet::Plus(packet)) = Packet::read(&bytes) {
            prop_assert!(open_sealed(&Keys::new(Suite::Sha1, b"key"), &packet).is_err());
        }
        let keys = Keys::new(Suite::Sha256, b"key");
        keys.decrypt(&bytes).ok();
        OpenRequest::read(&bytes).ok();
        OpenResponse::read(&bytes).ok();
        Rakp1::read(&bytes).ok();
        Rakp2::read(&bytes).ok();
        Proof::read(&bytes).ok();
        BootFlags::read(&bytes).ok();
        for strict in [false, true] {
            if let Ok(message) = Message::read(&bytes, strict)
                && let Ok(command) = Command::read(&message)
            {
                Reply::read(&command, message.data).ok();
            }
        }
    }

    /// Every code has words, for the log.
    #[test]
    fn codes_have_words(code: u8) {
        prop_assert!(!Status(code).to_string().is_empty() && !Completion(code).to_string().is_empty());
    }
}
