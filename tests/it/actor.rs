//! `hostler actor …` against a real region: every verb, every output form, and what is wrong in its use.

use crate::cli::House;

#[test]
fn actors_are_listed_drawn_shown_and_traced() {
    let mut h = House::new();
    let key = h.init()["api_key"].as_str().unwrap().to_owned();
    let url = h.start();
    assert_eq!(h.run(&["login", "lab", &url, &key]).code, 0);
    let words = ["machine", "add", "fox", "--mac", "52:54:00:77:00:01", "--power-type", "manual", "-o", "json"];
    let id = h.run(&words).json()["system_id"].as_str().unwrap().to_owned();
    let path = format!("region/machine/{id}");
    for form in ["table", "json", "yaml", "ndjson", "csv", "name"] {
        let done = h.run(&["actor", "list", "--kind", "machine", "-o", form]);
        assert!(done.code == 0 && done.out.contains(&path), "{form}: {}{}", done.out, done.err);
    }
    assert_eq!(h.run(&["actor", "list", "-q", "fox", "--sort=-queue", "-o", "name"]).out, format!("{path}\n"));
    let some = h.run(&["actor", "list", "-n", "1"]);
    assert!(some.err.contains("1 of 2 actors"), "{}", some.err);
    let tree = h.run(&["actor", "tree"]);
    assert!(tree.out.starts_with("region: 2 actors\n") && tree.out.contains("machine ×1"), "{}", tree.out);
    for name in ["fox", &id, &path, &format!("machine/{id}")] {
        assert_eq!(h.run(&["actor", "show", name, "-o", "json"]).json()["path"], path);
    }
    let shown = h.run(&["actor", "show", "fox"]);
    assert!(shown.out.contains("State") && shown.out.contains("New") && shown.out.contains("Created"), "{}", shown.out);
    let messages = h.run(&["actor", "messages", "fox", "-o", "json"]).json();
    assert_eq!((messages[0]["event"].as_str(), messages[0]["sender"].as_str()), (Some("Created"), Some("api")));
    assert!(h.run(&["actor", "messages", "fox", "--transitions"]).out.contains("Created"));
    let top = h.run(&["actor", "top", "--every", "0.25", "--count", "2", "-o", "ndjson"]);
    assert!(top.code == 0 && top.out.lines().count() == 4, "{}{}", top.out, top.err);
    let trace = messages[0]["trace"].as_str().unwrap();
    assert!(h.run(&["actor", "trace", trace]).out.contains(&format!("machine/{id}")));
    assert_eq!(h.run(&["actor", "findings", "-o", "json"]).json(), serde_json::json!([]));

    h.run(&["actor", "trace", "fox"]).fails(3, "no attempt");
    h.run(&["actor", "trace", &"0".repeat(31)]).fails(3, "no machine");
    h.run(&["actor", "show", "machine/aaaaaa"]).fails(3, "is awake on region");
    h.run(&["actor", "show", "owl"]).fails(3, "no machine \"owl\"");
    h.run(&["actor", "list", "--sort", "colour"]).fails(2, "sort: \"colour\" is none of its values");
    h.run(&["actor", "list", "-n", "5000"]).fails(2, "limit: \"5000\" is not a whole number from 1 to 1000");
    h.run(&["actor", "top", "--every", "0"]).fails(2, "0.25 to 3600");
    h.run(&["actor", "top", "-o", "json"]).fails(2, "--count");
    h.run(&["actor", "tree", "nowhere"]).fails(2, "root: \"nowhere\"");
    assert!(h.run(&["--help"]).out.contains("actor"));
}
