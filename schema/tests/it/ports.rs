//! docs/ports.md is the table of ports, and nothing else. `HOSTLER_WRITE_DOCS=1` rewrites it.

use schema::ports;

#[test]
fn docs_ports_md_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ports.md");
    if std::env::var_os("HOSTLER_WRITE_DOCS").is_some() {
        std::fs::write(path, ports::page()).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == ports::page(), "docs/ports.md is stale: run `HOSTLER_WRITE_DOCS=1 cargo test -p schema ports`");
}
