//! The corpus of faults: each is named by `explain` within its step's deadline and 5 s, and its machine ends as it must.

use std::{fs, path::Path};

use benches::seeds::corpus::{Tried, attempt, rows, table};

const BEGIN: &str = "<!-- corpus: written by a test -->\n";
const END: &str = "<!-- end of the corpus -->\n";

/// Every one is as it must be; and the table of the documentation is the one of this run.
#[test]
fn every_fault_of_the_corpus_is_named_in_time_and_ends_as_it_must() {
    let tried: Vec<Tried> = rows().iter().map(attempt).collect();
    let wrong: Vec<_> = tried.iter().filter(|t| !t.wrong.is_empty()).collect();
    for t in &wrong {
        println!("{}: {}\n    said: {}", t.row.name, t.wrong.join("; "), t.said);
    }
    println!("{} of {} are named and end as they must", tried.len() - wrong.len(), tried.len());
    assert_eq!(wrong.iter().map(|t| t.row.name).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(tried.len() >= 30);
    written(&table(&tried));
}

/// Rows whose name holds `ROWS`, each told whole: for work on one. Nothing without it.
#[test]
fn single_rows_by_the_environment() {
    let Ok(wanted) = std::env::var("ROWS") else { return };
    let tried: Vec<_> = rows().iter().filter(|row| row.name.contains(&wanted)).map(attempt).collect();
    for t in &tried {
        println!("{}: named {:?}, {:?}\n{}", t.row.name, t.named, t.wrong, t.text);
    }
    assert!(tried.iter().all(|t| t.wrong.is_empty()));
}

/// The table in `docs/seeds.md`; `HOSTLER_WRITE_DOCS=1` writes it.
fn written(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/seeds.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (old, after) = rest.split_once(END).unwrap();
    if std::env::var("HOSTLER_WRITE_DOCS").is_ok() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(old, table, "docs/seeds.md is not of this version: write it with HOSTLER_WRITE_DOCS=1");
    }
}
