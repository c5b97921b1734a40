//! One trace id per commissioning, from the API call to Ready: in the region's journal, in the rack's actors and in what comes over the link.

use std::{collections::BTreeSet, time::Duration};

use actors::{clock, core::TraceId};
use benches::{
    api::Api,
    bmc::Mix,
    fleet::{Fleet, bmcs::Bmcs},
    yard::{Layout, Region, RegionPlace, door, operator::enlist, rack_config, start_rack},
};
use region::{api::annex::Annexes, store::queries};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_commissioning_has_one_trace_from_the_call_to_ready_on_region_and_rack() {
    let dir = tempfile::tempdir().unwrap();
    let region = Region::start(RegionPlace { dir: dir.path().into(), database: None }).await.unwrap();
    let served = region.open_api(0, Annexes::new()).unwrap();
    let layout = Layout { machines: 1, racks: 1, seed: 7, speed: 0.0, roms: true, bmcs: Mix::Half };
    let token = region.tokens(1).await.unwrap().remove(0);
    let (rack, running) = start_rack(rack_config(dir.path(), 0, region.running.link), &token).await.unwrap();
    region.furnish(&[rack]).await.unwrap();
    let fleet = Fleet::new(layout.fleet(vec![door(&running).unwrap()]), tokio::runtime::Handle::current());
    let bmcs = Bmcs::start(&fleet).unwrap();
    let api = Api::new(&format!("http://{}/MAAS/", served.address), region.made.api_key.expose()).unwrap();
    let machine = enlist(&api, &fleet, &bmcs).await.unwrap().remove(0);
    api.post(&format!("/MAAS/api/2.0/machines/{machine}/?op=commission"), &[]).await.unwrap();
    let end = clock::tick() + Duration::from_secs(120);
    while api.get("/fleet").await.unwrap()["statuses"]["Ready"] != json!(1) {
        assert!(clock::tick() < end, "{:#}", api.get(&format!("/inspect/v1/explain/{machine}")).await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let explained = api.get(&format!("/inspect/v1/explain/{machine}")).await.unwrap();
    let trace = explained["attempt"]["trace"].as_str().unwrap().to_owned();
    let wanted: TraceId = trace.parse().unwrap();

    // The journal: every step from the call on.
    let id = machine.to_string();
    let rows =
        region.running.app.store.read(move |db| queries::journal_of(db, "machine", &id, None, 1_000)).await.unwrap();
    let called = rows.iter().position(|row| row.event.contains("\"commission\"")).expect("the call is in the journal");
    // A rack's own question for the power state belongs to no attempt.
    let of_attempts = rows[..=called].iter().filter(|row| !row.event.contains("\"attempt\":0"));
    let since: BTreeSet<_> = of_attempts.map(|row| row.trace.as_str()).collect();
    assert!(rows[..=called].len() >= 12, "the twelve steps are there");
    assert_eq!(since, BTreeSet::from([trace.as_str()]), "newest first: {:#?}", &rows[..=called]);
    // The history that operators read.
    let history =
        api.get(&format!("/MAAS/api/2.0/events/?op=query&id={machine}&level=DEBUG&limit=1000")).await.unwrap();
    let lines = history["events"].as_array().unwrap();
    let of_it = lines.iter().filter(|line| line["trace"] == trace.as_str()).count();
    assert!(of_it >= 5, "{history:#}");
    // What the rack tells over the link brings it along: its errand's own steps have it too.
    let errand = running.registry.get("errand", machine.as_str()).expect("the rack drove the BMC");
    // What comes when nothing is awaited any more belongs to no attempt.
    let steps = errand.steps();
    assert!(steps.iter().all(|step| step.trace == wanted || step.outcome.name() == "ignored"), "{steps:#?}");
    let path = api.get(&format!("/inspect/v1/traces/{trace}")).await.unwrap();
    let items = path["items"].as_array().unwrap();
    assert_eq!(path["nodes"], json!(BTreeSet::from([rack.to_string(), "region".to_owned()])), "{path:#}");
    assert_eq!(
        (items[0]["event"].as_str(), items[0]["actor"].as_str()),
        (Some("Commission"), Some(&*format!("machine/{machine}")))
    );
    assert!(items.iter().any(|item| item["to"] == "Ready"), "{path:#}");
    assert!(
        items.iter().any(|item| item["actor"] == format!("errand/{machine}") && item["node"] == rack.as_str()),
        "{path:#}"
    );
    // A rack's actor is seen through the region.
    let seen = api.get(&format!("/inspect/v1/actors/{rack}/errand/{machine}")).await.unwrap();
    assert_eq!(seen["kind"], "errand");
    assert!(seen["messages"].as_array().unwrap().iter().any(|m| m["event"] == "Ordered"), "{seen:#}");
    running.stop().await;
    served.stop().await;
    region.running.stop().await;
}
