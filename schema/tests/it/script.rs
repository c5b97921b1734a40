//! Script headers and result files: MAAS's forms, every fault named, and nothing that panics.

use proptest::prelude::*;
use schema::script::{
    ResultStatus, ScriptType,
    header::{HeaderError, ScriptHeader},
    outcome::Outcome,
};

fn script(header: &str) -> String {
    let lines: String = header.lines().map(|l| format!("# {l}\n")).collect();
    format!(
        "#!/bin/sh\n#\n# --- Start MAAS 1.0 script metadata ---\n{lines}# --- End MAAS 1.0 script metadata ---\nexit 0\n"
    )
}

fn problems(header: &str) -> Vec<String> {
    ScriptHeader::parse(&script(header)).unwrap_err().problems
}

#[test]
fn a_full_header_is_read() {
    let header = ScriptHeader::parse(&script(
        "name: smart-check\ntitle: SMART\ndescription: >\n  two\n  lines\nscript_type: testing\nhardware_type: disk\nparallel: instance\ntimeout: 00:05:30\ntags: a, b\npackages: {apt: smartmontools, snap: [{name: core, channel: edge}], url: [http://x/y.tgz]}\nparameters:\n  storage: {type: storage, argument_format: '{path}'}\nresults:\n  - speed\nfor_hardware: ['pci:8086:1521', modalias:usb]\nmay_reboot: True\ndestructive: no",
    ))
    .unwrap();
    assert_eq!(header.name.as_deref(), Some("smart-check"));
    assert_eq!(header.description.trim(), "two lines");
    assert_eq!(header.script_type, Some(ScriptType::Testing));
    assert_eq!((header.hardware_type, header.parallel, header.timeout_s), (3, 1, 330));
    assert_eq!(header.tags, ["a", "b"]);
    assert_eq!(header.packages["apt"], serde_json::json!(["smartmontools"]));
    assert_eq!(header.for_hardware, ["pci:8086:1521", "modalias:usb"]);
    assert!(header.may_reboot && !header.destructive);
    assert_eq!(header.parameters["storage"]["type"], "storage");
}

#[test]
fn markers_are_read_as_maas_reads_them() {
    let odd = "#!/usr/bin/env python3\n# -- START MAAS 1.0 Script Metadata -----\n#name: x\n# - end maas 1.0 script metadata -\n";
    assert_eq!(ScriptHeader::parse(odd).unwrap().name.as_deref(), Some("x"));
    assert_eq!(ScriptHeader::parse("#!/bin/sh\necho no header\n").unwrap(), ScriptHeader::default());
    assert_eq!(ScriptHeader::parse(&script("")).unwrap(), ScriptHeader::default());
}

#[test]
fn every_fault_is_named_at_once() {
    let found = problems(
        "name: a b\nscript_type: deploy\nhardware_type: fridge\nparallel: maybe\ntimeout: soon\ncolour: red\nmay_reboot: perhaps\nfor_hardware: [isa:1]\npackages: {apt: ['-o'], npm: x}\nparameters: {p: {type: gpu}}\ntags: {a: b}",
    );
    let expected = [
        ("name", "a b"),
        ("script_type", "deploy"),
        ("hardware_type", "fridge"),
        ("parallel", "maybe"),
        ("timeout", "soon"),
        ("colour", "no key"),
        ("may_reboot", "perhaps"),
        ("for_hardware", "isa:1"),
        ("packages.apt", "-o"),
        ("packages", "npm"),
        ("parameters.p", "gpu"),
        ("tags", "list of texts"),
    ];
    for (field, part) in expected {
        assert!(found.iter().any(|p| p.starts_with(&format!("{field}:")) && p.contains(part)), "{field}: {found:?}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn broken_files_are_refused_with_a_reason() {
    let error = |text: &str| ScriptHeader::parse(text).unwrap_err().to_string();
    assert!(error("echo hi\n").contains("#!/bin/sh"));
    let open = "#!/bin/sh\n# --- Start MAAS 1.0 script metadata ---\n# name: x\n";
    assert!(error(open).contains("End MAAS 1.0"));
    assert!(error(&format!("{open}echo\n")).contains("line 4"));
    assert!(error(&open.replace("1.0", "2.0")).contains("\"2.0\""));
    assert!(error(&script("a: [")).contains("not YAML"));
    assert!(error(&script("just text")).contains("key: value"));
}

#[test]
fn result_files_override_and_are_checked() {
    let read = |text: &str| Outcome::parse(text.as_bytes());
    let good = read("status: skipped\nresults: {speed: 7, list: [1, two], ok: true}\nlink_connected: false\n").unwrap();
    assert_eq!((good.status, good.link_connected), (Some(ResultStatus::Skipped), Some(false)));
    assert_eq!(good.results["list"], serde_json::json!([1, "two"]));
    assert_eq!(read("").unwrap(), Outcome::default());
    for (text, part) in [
        ("status: fine", "fine"),
        ("[1]", "map"),
        ("results: [1]", "results"),
        ("results: {a: {b: 1}}", "results.a"),
        ("link_connected: up", "link_connected"),
        ("a: [", "not YAML"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn no_header_and_no_result_file_panics(text in "([ -~]{0,30}\n){0,8}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let parsed: Result<_, HeaderError> = ScriptHeader::parse(&script(&text));
        if let Err(error) = parsed {
            prop_assert!(!error.problems.is_empty());
        }
        ScriptHeader::parse(&text).ok();
        Outcome::parse(text.as_bytes()).ok();
        Outcome::parse(&bytes).ok();
    }

    #[test]
    fn deep_nesting_is_refused_not_fatal(depth in 1_usize..20_000) {
        Outcome::parse("[".repeat(depth).as_bytes()).ok();
        ScriptHeader::parse(&script(&format!("a: {}", "{a: ".repeat(depth)))).ok();
    }
}
