//! `hostler bench` as its user meets it: a small run with a kill in it, its report and pictures; and every wrong option said in one error.

use serde_json::Value;

use crate::cli::{House, path};

#[test]
fn a_run_survives_a_killed_region_and_reports_plots_and_compares() {
    let h = House::new();
    let (report, plots) = (h.path("report.json"), h.path("plots"));
    let run = ["bench", "commission", "--machines", "40", "--racks", "2", "--kill-region", "2s", "--watch"];
    let done = h.run(&[&run[..], &["--report", path(&report), "--plot", path(&plots)]].concat());
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    let told: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!((told["ready"].as_u64(), told["stuck"].as_u64()), (Some(40), Some(0)), "{told:#}");
    let kill = &told["kills"]["done"][0];
    assert!(kill["api_s"].is_number() && kill["linked_s"].as_f64() >= kill["api_s"].as_f64(), "{kill:#}");
    let audit = &told["kills"]["audit"];
    assert_eq!(
        (audit["checked"].as_u64(), audit["lost"].as_u64(), audit["done_twice"].as_u64()),
        (Some(40), Some(0), Some(0))
    );
    assert!(
        told["explain_ms"]["after"]["p99"].is_number() && told["watched"]["events"]["summary"].as_u64() > Some(0),
        "{told:#}"
    );
    assert!(told["harness"]["bound"].is_array() && told["harness"]["busy_percent"].is_number(), "{told:#}");
    for part in
        ["kill -9 of the region", "0 lost, 0 done twice", "during the run", "watcher: ", "harness: its thread busy"]
    {
        assert!(done.out.contains(part), "\"{part}\" is missing: {}", done.out);
    }
    for kind in ["status", "rate", "use"] {
        let svg = std::fs::read_to_string(plots.join(format!("commission-40-sqlite-{kind}.svg"))).unwrap();
        assert!(svg.contains("hostler bench commission --machines 40 --racks 2 --database sqlite --seed 1"), "{kind}");
        // A picture is published: it names no file of this machine.
        assert!(!svg.contains(path(&report)), "{kind}");
    }
    // The same pictures from the report alone.
    let again = h.path("again");
    assert_eq!(h.run(&["bench", "plot", path(&report), path(&again)]).code, 0);
    assert_eq!(std::fs::read_dir(&again).unwrap().count(), 3);
}

#[test]
fn racks_killed_amid_a_small_run_lose_no_machine() {
    let h = House::new();
    let report = h.path("report.json");
    let run = ["bench", "commission", "--machines", "40", "--racks", "2", "--kill-racks", "5", "--kill-racks", "50%"];
    let done = h.run(&[&run[..], &["--report", path(&report)]].concat());
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    let told: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!((told["ready"].as_u64(), told["stuck"].as_u64()), (Some(40), Some(0)), "{told:#}");
    assert_eq!(
        told["kills"]["not_done"],
        serde_json::json!([]),
        "a kill by a count comes before the last machine is asked for"
    );
    let kills = told["kills"]["done"].as_array().unwrap();
    assert_eq!(kills.len(), 2, "{kills:#?}");
    for (kill, least) in kills.iter().zip([5, 20]) {
        assert_eq!((kill["what"].as_str(), kill["api_s"].is_null()), (Some("racks"), true), "{kill:#}");
        assert!(kill["ready"].as_u64().is_some_and(|ready| (least..40).contains(&ready)), "{kill:#}");
        assert!(kill["linked_s"].as_f64() > Some(0.0), "{kill:#}");
    }
    let audit = &told["kills"]["audit"];
    assert_eq!(
        (audit["checked"].as_u64(), audit["lost"].as_u64(), audit["done_twice"].as_u64()),
        (Some(40), Some(0), Some(0)),
        "{audit:#}"
    );
    assert!(done.out.contains("kill -9 of the racks"), "{}", done.out);
}

#[test]
fn a_watchers_cost_is_compared_in_turn() {
    let h = House::new();
    let report = h.path("inspection.json");
    let words = ["bench", "inspection", "--machines", "10", "--racks", "1", "--rounds", "2", "--report", path(&report)];
    let done = h.run(&words);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(
        done.out.contains("region and racks CPU ms/machine") && done.out.contains("aim: a watcher costs less"),
        "{}",
        done.out
    );
    let told: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let rounds = told["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    assert!(
        rounds.iter().all(|r| r["without"]["watched"].is_null() && r["with"]["watched"]["bytes"].as_u64() > Some(0)),
        "{told:#}"
    );
}

/// Each wrong option: what is given, and what the one error must name: option, value, bound, remedy.
#[test]
fn wrong_options_are_said_before_anything_starts() {
    let h = House::new();
    let (text, no_report) = (h.path("text"), h.path("no-report"));
    std::fs::write(&text, "no JSON").unwrap();
    std::fs::write(&no_report, "{}").unwrap();
    let (nowhere, folder) = (h.path("nowhere/report.json"), h.path("folder"));
    std::fs::create_dir(&folder).unwrap();
    let whole = |most: &str| format!("it is a whole number from 1 to {most}; give one, as in ");
    let at = "it is a count of Ready machines (1 or more), a share of them (1% to 99%), or a time of the run (1s to 86400s); give one, as in 1000, 50% or 30s";
    let cases: &[(&[&str], &[&str])] = &[
        (&["--machines", "0"], &["--machines", "'0'", "from 1 to 60000", "10000"]),
        (&["--machines", "many"], &["--machines", "'many'", "from 1 to 60000"]),
        (&["--machines=-5"], &["--machines", "'-5'", "from 1 to 60000"]),
        (&["--machines", "60001"], &["--machines", "'60001'", "from 1 to 60000"]),
        (&["--machines", "501"], &["--machines 501", "2 racks", "500", "--racks 3"]),
        (&["--racks", "0"], &["--racks", "'0'", "from 1 to 240", "40"]),
        (&["--racks", "241"], &["--racks", "'241'", "from 1 to 240"]),
        (&["--seed", "x"], &["--seed", "'x'", "from 0 to 18446744073709551615"]),
        (&["--seed=-1"], &["--seed", "'-1'", "from 0 to"]),
        (&["--speed", "fast"], &["--speed", "'fast'", "0 (no delays) or a number above", "as in 10"]),
        (&["--speed", "inf"], &["--speed", "'inf'", "as in 10"]),
        (&["--speed=-1"], &["--speed", "'-1'", "as in 10"]),
        (&["--bmcs", "serial"], &["--bmcs", "'serial'", "half, ipmi, redfish"]),
        (&["--database", "mysql"], &["--database", "'mysql'", "sqlite, postgres"]),
        (&["--kill-region", "soon"], &["--kill-region", "'soon'", at]),
        (&["--kill-region", "100%"], &["--kill-region", "'100%'", at]),
        (&["--kill-region", "200"], &["--kill-region 200", "fewer than all 200 machines", "--kill-region 50%"]),
        (&["--kill-racks", "0s"], &["--kill-racks", "'0s'", at]),
        (&["--kill-racks", "900"], &["--kill-racks 900", "fewer than all 200 machines", "--kill-racks 50%"]),
        (
            &["--report", path(&nowhere)],
            &["--report", path(&nowhere), "nothing can be written", "a folder that you may write to"],
        ),
        (&["--report", path(&folder)], &["--report", path(&folder), "it is a folder, and must be a file"]),
        (&["--plot", path(&text)], &["--plot", path(&text), "must be a folder", "a folder that you may write to"]),
        (&["--compare", path(&nowhere)], &["--compare", path(&nowhere), "cannot be read", "--report has written"]),
        (&["--compare", path(&text)], &["--compare", path(&text), "it is no report", "--report has written"]),
        (&["--compare", path(&no_report)], &["--compare", "machines_per_minute", "--report has written"]),
        (&["--report"], &["--report", "value is required"]),
        (&["--fly"], &["--fly"]),
    ];
    let check = |words: &[&str], parts: &[&str]| {
        let done = h.run(words);
        assert_eq!(done.code, 2, "{words:?}: {}{}", done.out, done.err);
        for part in parts {
            assert!(done.err.contains(part), "{words:?}: \"{part}\" is not in: {}", done.err);
        }
        assert_eq!(done.err.matches("error:").count(), 1, "{words:?}: {}", done.err);
        assert!(done.out.is_empty(), "{words:?}: {}", done.out);
    };
    for (words, parts) in cases {
        check(&[&["bench", "commission"][..], words].concat(), parts);
    }
    let rounds = whole("100");
    check(&["bench", "inspection", "--rounds", "0"], &["--rounds", "'0'", &rounds]);
    check(&["bench", "inspection", "--rounds", "101"], &["--rounds", "'101'", &rounds]);
    check(&["bench", "inspection", "--machines", "501"], &["--machines 501", "--racks 3"]);
    check(
        &["bench", "inspection", "--report", path(&nowhere)],
        &["--report", path(&nowhere), "nothing can be written"],
    );
    check(&["bench", "plot", path(&text), path(&h.path("plots"))], &["REPORT", path(&text), "it is no report"]);
    check(&["bench", "plot"], &["REPORT", "DIR"]);
    check(&["bench", "swim"], &["swim"]);
}
