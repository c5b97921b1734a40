//! The console's state machine against the simulated BMC, in virtual time: every fault has its name, and loss is never taken for another.

use std::{sync::Arc, time::Duration};

use benches::bmc::{
    chassis::{Boot, Faults, PowerEvent},
    ipmi::{Bmc, Setup},
};
use proptest::prelude::*;
use rack::power::rmcp::{
    BootDevice, BootFlags, Command, Completion, Console, Control, Event, Login, Privilege, Reply, Suite,
    console::{Failure, Quirks, Then},
    packet::LONGEST,
    setup::Status,
};
use schema::{secret::Secret, time::Timestamp};

/// Both ends and what is between them.
struct Wire {
    console: Console,
    bmc: Bmc,
    now: Timestamp,
    drawn: u64,
    events: Vec<PowerEvent>,
    /// What happens to the next datagrams; when it is over, all arrive.
    fate: Vec<Fate>,
    sent: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    Lost,
    Twice,
}

impl Wire {
    fn new(setup: Setup, login: Login) -> Self {
        Self {
            console: Console::new(Arc::new(login)),
            bmc: Bmc::new(setup),
            now: Timestamp(1_000_000),
            drawn: 0,
            events: Vec::new(),
            fate: Vec::new(),
            sent: 0,
        }
    }

    fn random(&mut self) -> [u8; 16] {
        self.drawn = self.drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (low, high) = (self.drawn, self.drawn.rotate_left(23) ^ 0x5555);
        (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
    }

    fn fate(&mut self) -> Fate {
        if self.fate.is_empty() { Fate::Arrives } else { self.fate.remove(0) }
    }

    fn ask(&mut self, command: Command) -> Result<Reply, Failure> {
        let mut random = self.random();
        let mut step = self.console.step(&Event::Ask(command), random, self.now);
        let mut until = self.now;
        let mut coming: Vec<Vec<u8>> = Vec::new();
        for _ in 0..10_000 {
            self.console = step.next;
            if let Some(bytes) = step.send {
                self.sent += 1;
                coming.extend(self.carry(&bytes));
            }
            match step.then {
                Then::Ended(result) => return result,
                Then::Wait(wait) => until = wait.until,
                Then::Ignored(_) => {}
                Then::Closed => panic!("closed by itself"),
            }
            random = self.random();
            step = if coming.is_empty() {
                self.now = until;
                self.console.step(&Event::Elapsed, random, self.now)
            } else {
                let bytes = coming.remove(0);
                self.console.step(&Event::Heard(&bytes), random, self.now)
            };
        }
        panic!("it never ended")
    }

    /// Takes a datagram to the BMC and its answer back.
    fn carry(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let times = match self.fate() {
            Fate::Lost => 0,
            Fate::Arrives => 1,
            Fate::Twice => 2,
        };
        let mut back = Vec::new();
        for _ in 0..times {
            let random = self.random();
            let answer = self.bmc.answer(bytes, random, self.now);
            self.now = self.now + answer.after;
            self.events.extend(answer.event);
            let Some(reply) = answer.reply else { continue };
            match self.fate() {
                Fate::Lost => {}
                Fate::Arrives => back.push(reply),
                Fate::Twice => back.extend([reply.clone(), reply]),
            }
        }
        back
    }
}

fn login() -> Login {
    Login {
        user: "maas".into(),
        password: Secret::new(b"yard".to_vec()),
        kg: None,
        privilege: Privilege::Operator,
        suites: Suite::ALL.to_vec(),
        quirks: Quirks::default(),
    }
}

const BOOT: Boot = Boot { device: BootDevice::Network, efi: true };

#[test]
fn a_machine_boots_once_from_the_network_and_one_session_carries_all() {
    for suite in Suite::ALL {
        let mut wire = Wire::new(Setup { suites: vec![suite], ..Setup::default() }, login());
        assert_eq!(wire.ask(Command::ChassisStatus), Ok(Reply::Chassis { on: false }));
        let set_up = wire.sent;
        assert_eq!(wire.console.suite(), Some(suite));
        wire.ask(Command::set_boot(BootFlags::network_once(true))).unwrap();
        wire.ask(Command::ChassisControl(Control::On)).unwrap();
        assert_eq!(wire.ask(Command::ChassisStatus), Ok(Reply::Chassis { on: true }));
        wire.ask(Command::ChassisControl(Control::Cycle)).unwrap();
        wire.ask(Command::ChassisControl(Control::Off)).unwrap();
        assert_eq!(wire.ask(Command::ChassisStatus), Ok(Reply::Chassis { on: false }));
        assert_eq!(wire.events, [PowerEvent::On(BOOT), PowerEvent::Restart(Boot::default()), PowerEvent::Off]);
        assert_eq!(wire.sent, set_up + 6, "each command is one datagram once the session stands");
    }
}

#[test]
fn each_fault_of_a_login_has_its_name() {
    let keyed = || Setup { kg: Some(b"key".to_vec()), ..Setup::default() };
    let only = |suite| Setup { suites: vec![suite], ..Setup::default() };
    let key = |key: &str| Some(Secret::new(key.as_bytes().to_vec()));
    let ask = |setup: Setup, login: Login| Wire::new(setup, login).ask(Command::ChassisStatus);
    let on = Ok(Reply::Chassis { on: false });

    let wrong = ask(Setup::default(), Login { password: Secret::new(b"nope".to_vec()), ..login() });
    assert_eq!(wrong, Err(Failure::WrongPassword("maas".into())));
    let wrong = ask(Setup::default(), Login { user: "root".into(), ..login() });
    assert_eq!(wrong, Err(Failure::WrongUser("root".into())));
    assert_eq!(ask(keyed(), login()), Err(Failure::WrongKey { given: false }));
    assert_eq!(ask(keyed(), Login { kg: key("kex"), ..login() }), Err(Failure::WrongKey { given: true }));
    assert_eq!(ask(keyed(), Login { kg: key("key"), ..login() }), on);
    let one = ask(only(Suite::Sha256), Login { suites: vec![Suite::Sha1], ..login() });
    assert_eq!(one, Err(Failure::NoSuite(vec![(Suite::Sha1, Some(Status::NO_SUITE))])));
    let high = ask(
        Setup { limit: Privilege::User, ..Setup::default() },
        Login { privilege: Privilege::Administrator, ..login() },
    );
    assert!(matches!(high, Err(Failure::Privilege { wanted: Privilege::Administrator, .. })), "{high:?}");
    let quirks = Quirks { open_session_privilege: true, no_abilities: true, ..Quirks::default() };
    assert_eq!(ask(Setup::default(), Login { quirks, ..login() }), on);
}

#[test]
fn a_silent_a_busy_and_a_restarted_bmc_are_told_apart() {
    let mut wire = Wire::new(Setup::default(), login());
    wire.bmc.set_faults(Faults { silent: true, ..Faults::default() });
    let began = wire.now;
    assert!(matches!(wire.ask(Command::ChassisStatus), Err(Failure::Silent { tries: 4, .. })));
    assert_eq!(wire.now.since(began), Duration::from_secs(10));
    wire.bmc.set_faults(Faults { busy: true, ..Faults::default() });
    let busy = wire.ask(Command::ChassisStatus);
    assert!(matches!(busy, Err(Failure::Command { completion: Completion::BUSY, .. })), "{busy:?}");
    wire.bmc.set_faults(Faults::default());
    wire.ask(Command::ChassisStatus).unwrap();
    // The session is lost, and nobody says so: it is opened again within the same command.
    wire.bmc.restart();
    let began = wire.now;
    assert_eq!(wire.ask(Command::ChassisStatus), Ok(Reply::Chassis { on: false }));
    assert_eq!(wire.now.since(began), Duration::from_secs(3));
    // The BMC ends a session without work; so does its slot.
    wire.now = wire.now + Duration::from_secs(61);
    assert_eq!(wire.ask(Command::ChassisStatus), Ok(Reply::Chassis { on: false }));
}

/// A RAKP 1 that comes twice makes the BMC draw twice, and refuse the answer to the first.
#[test]
fn a_doubled_message_is_not_a_wrong_password() {
    let mut wire = Wire::new(Setup::default(), login());
    wire.fate = [vec![Fate::Arrives; 4], vec![Fate::Twice]].concat();
    assert_eq!(wire.ask(Command::ChassisStatus), Ok(Reply::Chassis { on: false }));
}

#[test]
fn boot_flags_that_are_ignored_and_power_that_lies_show_in_what_the_machine_does() {
    let mut wire = Wire::new(Setup::default(), login());
    wire.bmc.set_faults(Faults { ignores_boot: true, says: Some(false), ..Faults::default() });
    wire.ask(Command::set_boot(BootFlags::network_once(false))).unwrap();
    wire.ask(Command::ChassisControl(Control::On)).unwrap();
    assert_eq!(wire.events, [PowerEvent::On(Boot::default())]);
    assert_eq!(wire.ask(Command::ChassisStatus), Ok(Reply::Chassis { on: false }));
    wire.bmc.set_faults(Faults { powerless: true, ..Faults::default() });
    wire.ask(Command::ChassisControl(Control::Off)).unwrap();
    assert_eq!(wire.ask(Command::ChassisStatus), Ok(Reply::Chassis { on: true }));
}

proptest! {
    /// Loss and repetition never look like a wrong password or a second action. At worst the BMC fell silent, or, when its messages were
    /// doubled up to the last try, the set-up failed in a way that may pass.
    #[test]
    fn loss_may_always_pass(
        fate in proptest::collection::vec(
            prop_oneof![3 => Just(Fate::Arrives), 2 => Just(Fate::Lost), 1 => Just(Fate::Twice)], 0..40)
    ) {
        let mut wire = Wire::new(Setup::default(), login());
        wire.fate = fate;
        let mut done = 0;
        for control in [Control::On, Control::Off] {
            match wire.ask(Command::ChassisControl(control)) {
                Ok(_) => done += 1,
                Err(Failure::Silent { .. } | Failure::NoSession { status: Status::INVALID_CHECK, .. }) => {}
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
        let all = [PowerEvent::On(Boot::default()), PowerEvent::Off];
        prop_assert!(all.starts_with(&wire.events), "{:?}", wire.events);
        prop_assert!(done < 2 || wire.events.len() == 2, "{:?}", wire.events);
    }

    /// Whatever comes, neither end falls over, and a session that stands goes on.
    #[test]
    fn arbitrary_datagrams_change_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..LONGEST),
        ipmi in any::<bool>(),
        kind in prop_oneof![Just(0_u8), 0x10_u8..0x16, Just(0xc0)],
    ) {
        let mut bytes = bytes;
        if ipmi && bytes.len() > 16 {
            let length = (bytes.len() - 16).to_le_bytes();
            bytes[..6].copy_from_slice(&[6, 0, 0xff, 7, 6, kind]);
            bytes[14..16].copy_from_slice(&length[..2]);
        }
        let mut wire = Wire::new(Setup::default(), login());
        wire.bmc.answer(&bytes, [1; 16], wire.now);
        wire.ask(Command::ChassisControl(Control::On)).unwrap();
        let answer = wire.bmc.answer(&bytes, [2; 16], wire.now);
        prop_assert_eq!(answer.event, None);
        // In the middle of a command.
        let step = wire.console.step(&Event::Ask(Command::ChassisStatus), [3; 16], wire.now);
        let heard = step.next.step(&Event::Heard(&bytes), [4; 16], wire.now);
        prop_assert!(matches!(heard.then, Then::Ignored(_)), "{:?}", heard.then);
        prop_assert_eq!(wire.ask(Command::ChassisStatus), Ok(Reply::Chassis { on: true }));
    }

    /// One flipped bit of a session's packet, and it is not obeyed.
    #[test]
    fn a_flipped_bit_is_not_obeyed(bit in 0_usize..8 * 60) {
        let mut wire = Wire::new(Setup::default(), login());
        wire.ask(Command::ChassisStatus).unwrap();
        let step = wire.console.step(&Event::Ask(Command::ChassisControl(Control::On)), [3; 16], wire.now);
        let mut bytes = step.send.unwrap();
        prop_assume!(bit / 8 < bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        let answer = wire.bmc.answer(&bytes, [5; 16], wire.now);
        // RMCP's reserved byte, sequence and the class's high bits are outside of what is signed.
        prop_assert!(answer.event.is_none() || bit / 8 < 4, "byte {}", bit / 8);
    }
}
