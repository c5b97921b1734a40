//! The house stays the house: arrows between packages, who may name which heavy library, file sizes, first lines, versions in one place.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Which of our packages each of ours may use.
const ARROWS: [(&str, &[&str]); 6] = [
    ("schema", &[]),
    ("actors", &["schema"]),
    ("rack", &["schema", "actors"]),
    ("region", &["schema", "actors"]),
    ("benches", &["schema", "actors", "rack", "region"]),
    ("hostler", &["schema", "actors", "rack", "region", "benches"]),
];

/// Who may depend on a heavy library, in the product (tests may use what they like as an oracle).
const HEAVY: [(&str, &[&str]); 8] = [
    ("bincode", &["schema"]),
    ("quinn", &["actors"]),
    ("actix", &["actors", "rack", "region"]),
    ("dhcproto", &["rack", "benches"]),
    ("hickory-proto", &["actors", "rack"]),
    ("diesel", &["schema", "region", "benches"]),
    ("actix-web", &["rack", "region"]),
    ("tftp_server", &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

fn ours(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

/// Every file that git would keep, below our packages, with that ending.
fn sources(ending: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "corpus" {
                walk(&path, ending, found);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for part in ["schema", "actors", "rack", "region", "benches", "src", "tests"] {
        let dir = root().join(part);
        if dir.is_dir() {
            walk(&dir, ending, &mut found);
        }
    }
    found
}

#[test]
fn packages_depend_only_downwards() {
    let metadata = metadata();
    let names: BTreeSet<_> = ARROWS.iter().map(|(name, _)| *name).collect();
    for package in ours(&metadata) {
        let (_, allowed) = ARROWS
            .iter()
            .find(|(name, _)| *name == package.name.as_str())
            .expect("a package without a place in the tower");
        for dependency in package.dependencies.iter().filter(|d| names.contains(d.name.as_str())) {
            let test_only = dependency.kind == DependencyKind::Development && package.name.as_str() == "region";
            assert!(
                allowed.contains(&dependency.name.as_str()) || test_only && dependency.name != "rack",
                "{} may not use {}: see the tower in docs/ARCHITECTURE.md",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn heavy_libraries_stand_where_they_belong() {
    let metadata = metadata();
    for package in ours(&metadata) {
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let Some((_, allowed)) = HEAVY.iter().find(|(name, _)| *name == dependency.name) else { continue };
            assert!(allowed.contains(&package.name.as_str()), "{} may not name {}", package.name, dependency.name);
        }
    }
}

#[test]
fn rust_files_are_short_and_say_first_what_they_hold() {
    for path in sources(".rs") {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines; 600 is the limit", path.display());
        assert!(text.starts_with("//! "), "{} does not begin with //!", path.display());
        assert!(
            path.file_name().is_some_and(|n| n != "mod.rs"),
            "{}: modules are named after themselves",
            path.display()
        );
    }
}

#[test]
fn versions_stand_in_the_workspace_table_alone() {
    for package in ours(&metadata()) {
        if package.name.as_str() == "hostler" {
            continue;
        }
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        for line in manifest.lines().filter(|l| !l.trim_start().starts_with('#')) {
            let versioned =
                line.contains("= \"") && line.chars().any(|c| c.is_ascii_digit()) && !line.starts_with("name");
            let exempt = line.starts_with("path") || line.contains("path =") || line.starts_with("harness");
            assert!(
                !versioned || exempt,
                "{}: \"{line}\" names a version; it belongs into [workspace.dependencies]",
                package.manifest_path
            );
        }
    }
}

#[test]
fn only_the_codec_calls_bincode_and_only_the_shell_handles() {
    for path in sources(".rs") {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        if name.starts_with("benches/tests") || name.contains("/tests/") || name.starts_with("benches/fuzz") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let calls =
            text.contains("bincode::encode") || text.contains("bincode::decode") || text.contains("bincode::config");
        assert!(!calls || name == "schema/src/codec.rs", "{name} calls bincode; schema::codec is the one place");
        let handles = text.lines().any(|l| l.trim_start().starts_with("impl") && l.contains(" Handler<"));
        assert!(
            !handles || name == "actors/src/shell.rs" || name.starts_with("actors/src/shell/"),
            "{name} implements Handler"
        );
    }
}
