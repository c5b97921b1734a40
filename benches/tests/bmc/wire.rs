//! The rack's drivers against simulated BMCs over loopback.

use std::{collections::BTreeMap, net::Ipv4Addr};

use actors::errand::{FaultKind, Ran};
use benches::bmc::{
    chassis::{Boot, Faults, PowerEvent},
    farm::{Farm, Powered},
    ipmi::{Bmc, Setup},
};
use rack::power::{Drivers, PowerSettings, rmcp::BootDevice};
use schema::{
    power::{PowerAccess, PowerAction, PowerType},
    secret::Secret,
    status::PowerState,
};

pub(crate) fn access(address: Ipv4Addr, port: u16, params: &[(&str, &str)]) -> PowerAccess {
    let mut all: BTreeMap<String, String> = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.insert("power_address".into(), format!("{address}:{port}"));
    all.entry("power_user".into()).or_insert_with(|| "maas".into());
    let secrets = BTreeMap::from([("power_pass".to_owned(), Secret::new("yard".to_owned()))]);
    PowerAccess { power_type: PowerType::Ipmi, params: all, secrets }
}

#[tokio::test]
async fn three_hundred_bmcs_are_switched_at_once_each_by_its_own_session() {
    let (farm, mut events) = Farm::start(0).unwrap();
    let drivers = Drivers::new(&PowerSettings::default());
    let addresses: Vec<_> =
        (0..300_u16).map(|n| Ipv4Addr::new(127, 78, (n / 250) as u8, (n % 250 + 1) as u8)).collect();
    let runs = addresses.iter().map(|address| {
        farm.put(*address, Bmc::new(Setup::at(*address)));
        let (drivers, access) = (drivers.clone(), access(*address, farm.port(), &[("power_boot_type", "efi")]));
        async move {
            assert_eq!(
                drivers.run(PowerAction::NetworkBoot, &access).await.unwrap(),
                Ran::Accepted { notes: Vec::new() }
            );
            assert_eq!(drivers.run(PowerAction::Query, &access).await.unwrap(), Ran::State { state: PowerState::On });
        }
    });
    futures_util::future::join_all(runs).await;
    let mut seen = Vec::new();
    while let Ok(Powered { bmc, event }) = events.try_recv() {
        assert_eq!(event, PowerEvent::On(Boot { device: BootDevice::Network, efi: true }));
        seen.push(bmc);
    }
    seen.sort_unstable();
    assert_eq!(seen, addresses);
    // The machine goes off by itself.
    farm.set_power(addresses[0], false);
    let state = drivers.run(PowerAction::Query, &access(addresses[0], farm.port(), &[])).await;
    assert_eq!(state, Ok(Ran::State { state: PowerState::Off }));
}

#[tokio::test]
async fn faults_come_with_their_kind_and_a_remedy_that_names_the_parameter() {
    let (farm, _events) = Farm::start(0).unwrap();
    let drivers = Drivers::new(&PowerSettings { ipmitool: "/nonexistent/ipmitool".into(), ..PowerSettings::default() });
    let (here, none) = (Ipv4Addr::new(127, 78, 9, 1), Ipv4Addr::new(127, 78, 9, 2));
    farm.put(here, Bmc::new(Setup::at(here)));
    let fault = async |access: PowerAccess| drivers.run(PowerAction::Query, &access).await.unwrap_err();

    let wrong = fault(access(here, farm.port(), &[("power_user", "root")])).await;
    assert_eq!(wrong.kind, FaultKind::Auth);
    assert!(wrong.why.contains("root") && wrong.remedy.contains("power_user"), "{wrong}");
    farm.set_faults(here, Faults { wrong_password: true, ..Faults::default() });
    let wrong = fault(access(here, farm.port(), &[])).await;
    assert_eq!(wrong.kind, FaultKind::Auth);
    assert!(wrong.why.contains("password") && wrong.remedy.contains("power_pass"), "{wrong}");
    farm.set_faults(here, Faults::default());
    let mut keyed = access(here, farm.port(), &[]);
    keyed.secrets.insert("k_g".into(), Secret::new("0x6162".into()));
    let wrong = fault(keyed).await;
    assert!(wrong.kind == FaultKind::Auth && wrong.remedy.contains("k_g"), "{wrong}");
    // A suite that only the tool knows; the tool is not here.
    let wrong = fault(access(here, farm.port(), &[("cipher_suite_id", "8")])).await;
    assert!(wrong.kind == FaultKind::Unfit && wrong.remedy.contains("package ipmitool"), "{wrong}");
    // Nobody at that port, and the host says so.
    let wrong = fault(access(none, 9, &[])).await;
    assert!(wrong.kind == FaultKind::Unreachable && wrong.remedy.contains("UDP port"), "{wrong}");
}

#[tokio::test]
async fn a_changed_password_is_not_hidden_by_a_kept_session() {
    let (farm, _events) = Farm::start(0).unwrap();
    let drivers = Drivers::new(&PowerSettings::default());
    let here = Ipv4Addr::new(127, 78, 9, 3);
    farm.put(here, Bmc::new(Setup::at(here)));
    let good = access(here, farm.port(), &[]);
    drivers.run(PowerAction::Query, &good).await.unwrap();
    let mut bad = good.clone();
    bad.secrets.insert("power_pass".into(), Secret::new("other".into()));
    assert_eq!(drivers.run(PowerAction::Query, &bad).await.unwrap_err().kind, FaultKind::Auth);
    drivers.run(PowerAction::Query, &good).await.unwrap();
}

/// A stand-in for the tool that says with which words it was called: no peer here lacks IPMI 2.0, or has suite 8 alone.
#[tokio::test]
async fn the_tool_is_called_for_ipmi_1_5_and_for_other_suites_only() {
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("ipmitool");
    let script = format!("#!/bin/sh\necho \"$*\" >> {}/log\necho Chassis Power is on\n", dir.path().display());
    std::fs::write(&tool, script).unwrap();
    std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let drivers = Drivers::new(&PowerSettings { ipmitool: tool, ..PowerSettings::default() });
    let (farm, _events) = Farm::start(0).unwrap();
    let at = |last| Ipv4Addr::new(127, 78, 12, last);
    farm.put(at(1), Bmc::new(Setup { two: false, ..Setup::at(at(1)) }));
    farm.put(at(2), Bmc::new(Setup { suites: Vec::new(), ..Setup::at(at(2)) }));
    farm.put(at(3), Bmc::new(Setup::at(at(3))));
    let query = async |last, params: &[(&str, &str)]| {
        let ran = drivers.run(PowerAction::Query, &access(at(last), farm.port(), params)).await;
        (ran, std::fs::read_to_string(dir.path().join("log")).unwrap_or_default().lines().count())
    };
    let on = Ok(Ran::State { state: PowerState::On });
    assert_eq!(query(3, &[]).await, (Ok(Ran::State { state: PowerState::Off }), 0));
    assert_eq!(query(1, &[]).await, (on.clone(), 1));
    assert_eq!(query(2, &[]).await, (on.clone(), 2));
    assert_eq!(query(3, &[("cipher_suite_id", "8")]).await, (on.clone(), 3));
    assert_eq!(query(3, &[("power_driver", "LAN")]).await, (on, 4));
    // A suite that is configured is not replaced by another.
    assert_eq!(query(2, &[("cipher_suite_id", "17")]).await.1, 4);
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let ways: Vec<_> = log.lines().map(|line| line.contains("-I lanplus")).collect();
    assert_eq!(ways, [false, true, true, false], "{log}");
}
