//! docs/metrics.md is the list of metrics, and nothing else. `HOSTLER_WRITE_DOCS=1` rewrites it.

use actors::metrics;

#[test]
fn docs_metrics_md_is_the_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    if std::env::var_os("HOSTLER_WRITE_DOCS").is_some() {
        std::fs::write(path, metrics::page()).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == metrics::page(),
        "docs/metrics.md is stale: run `HOSTLER_WRITE_DOCS=1 cargo nextest run --workspace docs_metrics`"
    );
}
