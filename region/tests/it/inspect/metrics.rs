//! `/metrics` of the region: every name is in the list that `docs/metrics.md` is made of, and every name of the list is there.

use std::collections::BTreeSet;

use actors::metrics::{FAMILIES, labels, names};

use crate::api::Region;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_has_every_documented_name_and_no_other() {
    let r = Region::start().await;
    r.machine("fox", "52:54:00:77:00:01").await;
    let said = r.send(r.request("GET", "/metrics"), None).await;
    assert_eq!((said.status.as_u16(), said.kind.as_str()), (200, actors::metrics::CONTENT_TYPE), "{}", said.text);
    let served: BTreeSet<_> = names(&said.text).into_iter().collect();
    let listed: BTreeSet<_> = FAMILIES.iter().filter(|f| f.by != "rack").map(|f| f.name.to_owned()).collect();
    assert_eq!(served, listed);
    assert_eq!(names(&said.text).len(), served.len(), "each name stands once");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    assert!(served.iter().all(|name| page.contains(&format!("| `{name}` |"))));
    assert!(said.text.contains("hostler_machines{status=\"New\"} 1\n"), "{}", said.text);
    assert!(said.text.contains("hostler_actor_handle_seconds_count{kind=\"machine\",message=\"Created\"} 1\n"));
    assert!(said.text.contains("route=\"/MAAS/api/2.0/machines/\",code=\"200\""));
    for (name, labels) in labels(&said.text) {
        let family = FAMILIES.iter().find(|family| family.name == name).unwrap();
        assert_eq!(labels, family.labels, "{name}");
    }
    for line in said.text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = name.split('{').next().unwrap();
        let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(listed.contains(name) || listed.contains(plain), "{line}");
        assert!(!line.contains("fox") && !line.contains("52:54"), "no label names a machine: {line}");
    }
    r.send(r.request("GET", "/nothing/at/all"), None).await;
    let said = r.get("/metrics").await;
    assert!(!said.text.contains("nothing/at/all"), "a path that nobody serves is no label");
    r.stop().await;
}
