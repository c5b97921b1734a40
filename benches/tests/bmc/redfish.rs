//! The rack's Redfish driver against simulated BMCs with the habits of real ones, over HTTP and TLS.

use std::{net::Ipv4Addr, path::PathBuf};

use actors::errand::{FaultKind, PowerFault, Ran};
use benches::bmc::{
    Powered,
    chassis::{Boot, Faults, PowerEvent},
    redfish::{Bmc, Setup},
    web::Web,
};
use rack::power::{Drivers, PowerSettings, redfish::RedfishTls, rmcp::BootDevice};
use schema::{
    power::{PowerAccess, PowerAction, PowerType},
    secret::Secret,
    status::PowerState,
};
use tokio::sync::mpsc::UnboundedReceiver;

struct Yard {
    web: Web,
    events: UnboundedReceiver<Powered>,
    address: Ipv4Addr,
}

impl Yard {
    async fn new(last: u8, tls: bool, setup: Setup) -> Self {
        let (web, events) = Web::start(0, tls).unwrap();
        let address = Ipv4Addr::new(127, 78, 11, last);
        web.put(address, Bmc::new(setup));
        Self { web, events, address }
    }

    fn access(&self, params: &[(&str, &str)]) -> PowerAccess {
        let own = [("power_address", self.web.url(self.address)), ("power_user", "maas".into())];
        let more = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        PowerAccess {
            power_type: PowerType::Redfish,
            params: own.into_iter().map(|(k, v)| (k.to_owned(), v)).chain(more).collect(),
            secrets: [("power_pass".to_owned(), Secret::new("yard".to_owned()))].into(),
        }
    }

    async fn run(&self, drivers: &Drivers, action: PowerAction) -> Result<Ran, PowerFault> {
        drivers.run(action, &self.access(&[])).await
    }

    fn next(&mut self) -> Option<PowerEvent> {
        self.events.try_recv().ok().map(|powered| powered.event)
    }
}

fn drivers() -> Drivers {
    Drivers::new(&PowerSettings { timeout: std::time::Duration::from_secs(5), ..PowerSettings::default() })
}

const PXE: Boot = Boot { device: BootDevice::Network, efi: false };
const DONE: Result<Ran, PowerFault> = Ok(Ran::Accepted { notes: Vec::new() });

/// Boot from the network, restart, off: with every habit the same comes of it.
#[tokio::test]
async fn every_habit_boots_restarts_and_switches_off() {
    let habits = [
        Setup::default(),
        Setup { sessions: false, ..Setup::default() },
        Setup { wants_etag: true, ..Setup::default() },
        Setup { boot_by_settings: true, wants_etag: true, ..Setup::default() },
        Setup { wants_mode: true, ..Setup::default() },
        Setup { boot_by_settings: true, wants_mode: true, ..Setup::default() },
        Setup { slashes: true, ..Setup::default() },
        Setup { admits: vec!["On", "ForceOff", "PowerCycle"], ..Setup::default() },
        Setup { admits: vec!["On", "ForceOff"], ..Setup::default() },
    ];
    let drivers = drivers();
    for (last, setup) in (1..).zip(habits) {
        let (habit, cannot_restart) = (format!("{setup:?}"), setup.admits.len() == 2);
        let mut yard = Yard::new(last, false, setup).await;
        assert_eq!(yard.run(&drivers, PowerAction::Query).await, Ok(Ran::State { state: PowerState::Off }), "{habit}");
        assert_eq!(yard.run(&drivers, PowerAction::NetworkBoot).await, DONE, "{habit}");
        assert_eq!(yard.next(), Some(PowerEvent::On(PXE)), "{habit}");
        assert_eq!(yard.run(&drivers, PowerAction::NetworkBoot).await, DONE, "{habit}");
        if cannot_restart {
            assert_eq!((yard.next(), yard.next()), (Some(PowerEvent::Off), Some(PowerEvent::On(PXE))), "{habit}");
        } else {
            assert_eq!(yard.next(), Some(PowerEvent::Restart(PXE)), "{habit}");
        }
        assert_eq!(yard.run(&drivers, PowerAction::Query).await, Ok(Ran::State { state: PowerState::On }), "{habit}");
        assert_eq!(yard.run(&drivers, PowerAction::Off).await, DONE, "{habit}");
        assert_eq!(yard.next(), Some(PowerEvent::Off), "{habit}");
        assert_eq!(yard.run(&drivers, PowerAction::Off).await, DONE, "{habit}");
        assert_eq!(yard.next(), None, "{habit}");
    }
}

#[tokio::test]
async fn faults_come_with_their_kind() {
    let yard = Yard::new(20, false, Setup::default()).await;
    let drivers =
        Drivers::new(&PowerSettings { timeout: std::time::Duration::from_secs(1), ..PowerSettings::default() });
    let fault = async |faults: Faults, params: &[(&str, &str)]| {
        yard.web.set_faults(yard.address, faults);
        drivers.run(PowerAction::Query, &yard.access(params)).await.unwrap_err()
    };
    let wrong = fault(Faults { wrong_password: true, ..Faults::default() }, &[]).await;
    assert!(wrong.kind == FaultKind::Auth && wrong.remedy.contains("power_pass"), "{wrong}");
    let wrong = fault(Faults { silent: true, ..Faults::default() }, &[]).await;
    assert_eq!(wrong.kind, FaultKind::Unreachable, "{wrong}");
    let wrong = fault(Faults { busy: true, ..Faults::default() }, &[]).await;
    assert_eq!(wrong.kind, FaultKind::Busy, "{wrong}");
    let wrong = fault(Faults::default(), &[("node_id", "7")]).await;
    assert!(wrong.kind == FaultKind::Unfit && wrong.why.contains("\"7\", only 1"), "{wrong}");
    let wrong = fault(Faults::default(), &[("power_address", "http://127.78.11.99:9")]).await;
    assert_eq!(wrong.kind, FaultKind::Unreachable, "{wrong}");
    for address in ["", "ftp://10.0.0.1", "http://", "https://user:secret@10.0.0.1"] {
        let wrong = fault(Faults::default(), &[("power_address", address)]).await;
        assert!(wrong.kind == FaultKind::Unfit && wrong.why.contains("power_address"), "{wrong}");
        assert!(!wrong.to_string().contains("secret"), "{wrong}");
    }
    // What a machine survives is a note.
    yard.web.with(yard.address, |bmc| *bmc = Bmc::new(Setup { admits: vec!["GracefulShutdown"], ..Setup::default() }));
    let wrong = drivers.run(PowerAction::On, &yard.access(&[])).await.unwrap_err();
    assert!(wrong.kind == FaultKind::Unfit && wrong.why.contains("GracefulShutdown"), "{wrong}");
}

#[tokio::test]
async fn a_session_is_kept_renewed_when_it_ran_out_and_a_new_password_is_used() {
    let yard = Yard::new(21, false, Setup::default()).await;
    let drivers = drivers();
    yard.run(&drivers, PowerAction::Query).await.unwrap();
    yard.web.with(yard.address, Bmc::restart);
    yard.run(&drivers, PowerAction::Query).await.unwrap();
    let mut other = yard.access(&[]);
    other.secrets.insert("power_pass".into(), Secret::new("other".into()));
    assert_eq!(drivers.run(PowerAction::Query, &other).await.unwrap_err().kind, FaultKind::Auth);
    yard.run(&drivers, PowerAction::Query).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_pinned_and_another_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = |redfish_tls| {
        let pins: PathBuf = dir.path().join("bmc-certificates");
        Drivers::new(&PowerSettings { redfish_tls, pins: Some(pins), ..PowerSettings::default() })
    };
    let (first, second) = (Yard::new(22, true, Setup::default()).await, Yard::new(22, true, Setup::default()).await);
    let pinned = settings(RedfishTls::Pin);
    first.run(&pinned, PowerAction::Query).await.unwrap();
    let wrong = second.run(&pinned, PowerAction::Query).await.unwrap_err();
    assert!(wrong.kind == FaultKind::Auth && wrong.remedy.contains("bmc-certificates"), "{wrong}");
    // A restart forgets nothing.
    assert_eq!(second.run(&settings(RedfishTls::Pin), PowerAction::Query).await.unwrap_err().kind, FaultKind::Auth);
    second.run(&settings(RedfishTls::Any), PowerAction::Query).await.unwrap();
    let wrong = first.run(&settings(RedfishTls::Verify), PowerAction::Query).await.unwrap_err();
    // A host without any authority cannot even ask.
    assert!(matches!(wrong.kind, FaultKind::Unreachable | FaultKind::Unfit), "{wrong}");
}

const SUSHY: &str = r"
import sys, sushy
c = sushy.Sushy(sys.argv[1], username='maas', password='yard')
s = c.get_system()
s.set_system_boot_options(sushy.BOOT_SOURCE_TARGET_PXE, sushy.BOOT_SOURCE_ENABLED_ONCE)
s.reset_system(sushy.RESET_ON)
s.refresh()
print(s.power_state)
s.reset_system(sushy.RESET_FORCE_OFF)
s.refresh()
print(s.power_state)
";

/// Ironic's client.
#[tokio::test]
async fn peers_sushy_boots_and_switches_off() {
    for (last, setup) in [(30, Setup::default()), (31, Setup { sessions: false, ..Setup::default() })] {
        let mut yard = Yard::new(last, false, setup).await;
        let url = yard.web.url(yard.address);
        let output = tokio::process::Command::new("/usr/bin/python3").args(["-c", SUSHY, &url]).output().await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        let states: Vec<_> =
            said.lines().map(|line| line.rsplit('.').next().unwrap_or(line).to_ascii_lowercase()).collect();
        assert_eq!(states, ["on", "off"], "{errors}");
        assert_eq!(yard.next(), Some(PowerEvent::On(PXE)));
        assert_eq!(yard.next(), Some(PowerEvent::Off));
    }
}
