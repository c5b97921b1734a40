//! The sweep against OpenIPMI's BMC simulator: what a hand does at the machine is seen, what stands still is not reported twice.

use std::time::Duration;

use actors::core::TraceId;
use rack::app::App;
use schema::{
    messages::{
        link::{FromRack, SweepTarget, SweepUpdate, ToRack},
        report::Fact,
    },
    power::PowerAccess,
    service::Health,
    status::PowerState,
};

use crate::{
    peers_power::{Bmc, PASSWORD},
    region_link::{PATIENCE, Region, config, enrolled},
};

fn watch(machine: &str, access: PowerAccess) -> SweepUpdate {
    let target = SweepTarget { machine: machine.parse().unwrap(), access };
    SweepUpdate { replace: true, put: vec![target], remove: Vec::new() }
}

async fn tell(rack: &actors::link::server::Connection, update: SweepUpdate) {
    rack.sender.send(&ToRack::Sweep(Box::new(update)), TraceId::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hand_does_is_seen_and_a_silent_bmc_is_named() {
    let (bmc, mut region, dir) = (Bmc::start("127.77.201.9").await, Region::start(), tempfile::tempdir().unwrap());
    // Enrolled once, then started with a sweep that a test can wait for.
    enrolled(dir.path(), &region).await.stop().await;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(100), region.next()).await {}
    let mut settings = config(dir.path(), &region);
    settings.power.sweep = Duration::from_secs(10);
    let running = App::start(settings).await.unwrap();
    let (mut rack, _) = region.connected().await;
    tell(&rack, watch("abc234", bmc.access())).await;
    let seen = |wanted: PowerState| move |fact: &Fact| matches!(fact, Fact::PowerSeen { state } if *state == wanted);
    let facts = region.until(&mut rack, seen(PowerState::Off)).await;
    assert_eq!(facts.len(), 1, "{facts:?}");
    std::fs::write(bmc.dir.path().join("power"), "1").unwrap();
    let facts = region.until(&mut rack, seen(PowerState::On)).await;
    assert_eq!(facts.len(), 1, "changes alone are reported: {facts:?}");
    let mut nobody = bmc.access();
    nobody.params.insert("power_address".into(), "127.77.201.99:6230".into());
    tell(&rack, watch("abc235", nobody)).await;
    let facts = region.until(&mut rack, |fact| matches!(fact, Fact::BmcUnreachable { .. })).await;
    assert!(matches!(facts.last(), Some(Fact::BmcUnreachable { remedy, .. }) if !remedy.is_empty()), "{facts:?}");
    running.stop().await;
    assert!(!on_disk(dir.path(), PASSWORD.as_bytes()), "the credentials of a sweep are in memory alone");
}

fn on_disk(dir: &std::path::Path, what: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|entry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => on_disk(&entry.path(), what),
        kind if kind.is_file() => std::fs::read(entry.path()).unwrap().windows(what.len()).any(|w| w == what),
        _ => false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rack_says_how_its_services_stand_again_and_again() {
    use actors::link::server::Incoming;
    let (mut region, dir) = (Region::start(), tempfile::tempdir().unwrap());
    let running = enrolled(dir.path(), &region).await;
    let (mut rack, _) = region.connected().await;
    let mut said = 0;
    let hearing = async {
        while said < 3 {
            if let Some(Incoming::Message(_, FromRack::Services(services))) = rack.incoming.recv().await {
                let of = |name: &str| services.iter().find(|s| s.service == name).map(|s| s.health);
                assert_eq!(
                    (of("http"), of("power"), of("tftp")),
                    (Some(Health::Running), Some(Health::Running), Some(Health::Off))
                );
                said += 1;
            }
        }
    };
    tokio::time::timeout(PATIENCE, hearing).await.unwrap();
    running.stop().await;
}
