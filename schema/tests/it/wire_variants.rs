//! The variants of the wire enums, read out of their sources, so that none can be left out of the golden frames or of `docs/protocol.md`.

const LINK: &str = include_str!("../../src/messages/link.rs");
const REPORT: &str = include_str!("../../src/messages/report.rs");
const ENROL: &str = include_str!("../../src/messages/enrol.rs");

/// Every enum that a frame may hold, with its variants in the order of their numbers.
pub(crate) fn all() -> Vec<(&'static str, Vec<&'static str>)> {
    let enums = [
        (LINK, ["ToRack", "FromRack", "BulkHeader", "BulkAnswer"].as_slice()),
        (REPORT, &["Fact"]),
        (ENROL, &["EnrolAsk", "EnrolAnswer"]),
    ];
    enums.iter().flat_map(|(source, names)| names.iter().map(|name| (*name, variants(source, name)))).collect()
}

fn variants(source: &'static str, name: &str) -> Vec<&'static str> {
    let (_, body) = source.split_once(&format!("pub enum {name} {{\n")).expect("the enum has moved");
    let (body, _) = body.split_once("\n}").unwrap();
    let found: Vec<_> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap())
        .collect();
    assert!(!found.is_empty(), "{name}");
    found
}

#[test]
fn every_wire_message_stands_in_the_protocol_document() {
    let document = include_str!("../../../docs/protocol.md");
    let missing: Vec<_> = all()
        .into_iter()
        .flat_map(|(of, variants)| variants.into_iter().map(move |v| format!("`{of}::{v}`")))
        .filter(|name| !document.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/protocol.md says nothing of {}", missing.join(", "));
}
