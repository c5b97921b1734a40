//! A whole yard in one process: region, racks and machines over real loopback sockets.

use std::{collections::HashSet, time::Duration};

use actors::clock;
use benches::{
    api::Api,
    bmc::Mix,
    fleet::{Fleet, bmcs::Bmcs},
    hardware::Hardware,
    yard::{Layout, Region, RegionPlace, door, operator::enlist, rack_config, start_rack},
};
use region::api::annex::Annexes;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_every_firmware_become_ready_by_their_own_requests() {
    let dir = tempfile::tempdir().unwrap();
    let region = Region::start(RegionPlace { dir: dir.path().into(), database: None }).await.unwrap();
    let served = region.open_api(0, Annexes::new()).unwrap();
    // A seed that draws every kind of firmware.
    let kinds = |seed| (0..12).map(|i| Hardware::draw(seed, i, 0, true).firmware).collect::<HashSet<_>>().len();
    let seed = (1..1_000).find(|seed| kinds(*seed) == 4).unwrap();
    let layout = Layout { machines: 12, racks: 2, seed, speed: 0.0, roms: true, bmcs: Mix::Half };
    let tokens = region.tokens(layout.racks).await.unwrap();
    let mut racks = Vec::new();
    for (number, token) in (0..).zip(&tokens) {
        racks.push(start_rack(rack_config(dir.path(), number, region.running.link), token).await.unwrap());
    }
    region.furnish(&racks.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await.unwrap();
    let doors = racks.iter().map(|(_, rack)| door(rack).unwrap()).collect();
    let fleet = Fleet::new(layout.fleet(doors), tokio::runtime::Handle::current());
    let bmcs = Bmcs::start(&fleet).unwrap();

    let api = Api::new(&format!("http://{}/MAAS/", served.address), region.made.api_key.expose()).unwrap();
    let ids = enlist(&api, &fleet, &bmcs).await.unwrap();
    for id in &ids {
        api.post(&format!("/MAAS/api/2.0/machines/{id}/?op=commission"), &[]).await.unwrap();
    }
    let end = clock::tick() + Duration::from_secs(120);
    loop {
        let seen = api.get("/fleet").await.unwrap();
        if seen["statuses"]["Ready"] == json!(12) {
            break;
        }
        assert!(clock::tick() < end, "{seen:#}\n{:?}\n{}", fleet.hanging(), fleet.counts().json());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let hardware = &fleet.hardware()[0];
    let found = api.get(&format!("/MAAS/api/2.0/machines/?mac_address={}", hardware.mac())).await.unwrap();
    let shown = &found[0];
    assert_eq!(shown["cpu_count"], json!(hardware.threads()));
    assert_eq!(shown["memory"], json!(hardware.memory * 1_024));
    let fleet_seen = api.get("/fleet").await.unwrap();
    assert_eq!(fleet_seen["attempts"]["ended"], json!(12));
    for (_, rack) in racks {
        rack.stop().await;
    }
    served.stop().await;
    region.running.stop().await;
}
