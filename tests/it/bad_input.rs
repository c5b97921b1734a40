//! Bad input to every option of the benches, the yard and the inspection: one error, exit code 2, with option, value, bound and remedy, and
//! nothing left behind. The options are read from the program's own help, so that a new one without a row here is a failure.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    actor::fox,
    cli::{Done, House},
};

/// What is wrong for an option, and what must be said of it.
enum Bad {
    /// It is a whole number from here to there.
    Whole(u64, u64),
    /// Each value with words of its bound and remedy, said before a region is asked.
    Here(&'static [(&'static str, &'static str)]),
    /// The same, said by the region, which knows the option as a parameter.
    There(&'static [(&'static str, &'static str)]),
    /// It names what is not there: exit code 3 for what could be a name, and 2 for what is none.
    Name(&'static [(&'static str, i32, &'static str)]),
    /// It takes no value.
    Flag,
}

use Bad::{Flag, Here, Name, There, Whole};

/// The commands; what each needs beside the option that is tried.
const COMMANDS: &[(&str, &[&str])] = &[
    ("bench commission", &[]),
    ("bench inspection", &[]),
    ("bench plot", &[]),
    ("yard boot", &["fox"]),
    ("yard seed", &["1"]),
    ("yard seeds", &["1..2"]),
    ("dev", &[]),
    ("actor list", &[]),
    ("actor tree", &[]),
    ("actor show", &["fox"]),
    ("actor messages", &["fox"]),
    ("actor top", &[]),
    ("actor trace", &["fox"]),
    ("actor findings", &[]),
    ("actor restarts", &[]),
    ("actor deadletters", &[]),
    ("actor restart", &["fox"]),
    ("actor drain", &["fox"]),
    ("actor resume", &["fox"]),
    ("debug bundle", &[]),
];

const EMPTY: (&str, &str) = ("", "is empty; give a value");
const CHOICE: &str = "possible values: ";
const SPEED: &[(&str, &str)] =
    &[("", "0 (no delays)"), ("fast", "as in 10"), ("-1", "as in 10"), ("NaN", "as in 10"), ("inf", "as in 10")];
const AT: &[(&str, &str)] = &[
    ("", "as in 1000, 50% or 30s"),
    ("soon", "1% to 99%"),
    ("-1", "1 or more"),
    ("0%", "1% to 99%"),
    ("86401s", "1s to 86400s"),
];
const BMCS: &[(&str, &str)] = &[("", CHOICE), ("serial", "half, ipmi, redfish")];
/// A path that cannot be had, whoever asks.
const NOWHERE: &str = "/dev/null/nowhere";
const FILE: &[(&str, &str)] =
    &[("", "a value is required"), (NOWHERE, "give a file in a folder that you may write to"), ("/", "it is a folder")];
const FOLDER: &[(&str, &str)] = &[("", "a value is required"), (NOWHERE, "give a folder that you may write to")];
const REPORT: &[(&str, &str)] =
    &[("", "a value is required"), (NOWHERE, "--report has written"), ("/dev/null", "--report has written")];
const NODE: &[(&str, &str)] = &[EMPTY, ("nowhere", "use region, or the system id of a rack")];
const KIND: &[(&str, &str)] = &[EMPTY, ("machines", "use one of agent, catalogue"), ("-1", "use one of agent")];
const TEXT: &[(&str, &str)] =
    &[EMPTY, (LONG, "longer than 200 bytes"), ("\u{7}", "control characters; give a shorter one")];
const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const ACTOR: &[(&str, i32, &str)] = &[
    ("", 2, "give a name, a path or an id"),
    ("owl", 3, "see `hostler machine list`"),
    ("machine/zzzzzz", 3, "see /inspect/v1/actors"),
    ("a/b/c/d", 2, "write NODE/KIND/ID"),
];
const SEEDS: &str = "FROM..TO of two whole numbers from 0 to 18446744073709551615, with TO the greater by 100000 at most; give one, as in 1..21";

/// Command, option (or argument, as the help writes it), and what is wrong for it. No command: every one takes it.
const ROWS: &[(&str, &str, Bad)] = &[
    ("", "--output", Here(&[("", CHOICE), ("xml", "table, json, yaml, ndjson, csv, name")])),
    ("", "--profile", Here(&[("", "log in: hostler login"), ("nobody", "log in: hostler login")])),
    (
        "",
        "--url",
        Here(&[
            ("", "http://HOST:5240/MAAS"),
            ("nowhere", "http://HOST:5240/MAAS"),
            ("ftp://h/", "http://HOST:5240/MAAS"),
        ]),
    ),
    ("", "--key", Here(&[("", "three parts"), ("a:b", "three parts")])),
    ("", "--verbose", Flag),
    ("bench commission", "--machines", Whole(1, 60_000)),
    ("bench commission", "--racks", Whole(1, 240)),
    ("bench commission", "--seed", Whole(0, u64::MAX)),
    ("bench commission", "--bmcs", Here(BMCS)),
    ("bench commission", "--database", Here(&[("", CHOICE), ("mysql", "sqlite, postgres")])),
    ("bench commission", "--speed", Here(SPEED)),
    ("bench commission", "--kill-region", Here(AT)),
    ("bench commission", "--kill-racks", Here(AT)),
    ("bench commission", "--watch", Flag),
    ("bench commission", "--report", Here(FILE)),
    ("bench commission", "--compare", Here(REPORT)),
    ("bench commission", "--plot", Here(FOLDER)),
    ("bench inspection", "--machines", Whole(1, 60_000)),
    ("bench inspection", "--racks", Whole(1, 240)),
    ("bench inspection", "--seed", Whole(0, u64::MAX)),
    ("bench inspection", "--bmcs", Here(BMCS)),
    ("bench inspection", "--database", Here(&[("", CHOICE), ("mysql", "sqlite, postgres")])),
    ("bench inspection", "--speed", Here(SPEED)),
    ("bench inspection", "--rounds", Whole(1, 100)),
    ("bench inspection", "--report", Here(FILE)),
    ("bench plot", "<REPORT>", Here(&[])), // Both are tried together below: neither is wrong without the other.
    ("bench plot", "<DIR>", Here(&[])),
    (
        "yard boot",
        "<MACHINE>",
        Name(&[("", 2, "give a name, a path or an id"), ("owl", 3, "see `hostler machine list`")]),
    ),
    ("yard seed", "<SEED>", Whole(0, u64::MAX)),
    ("yard seed", "--machines", Whole(1, 5_000)),
    ("yard seed", "--fair", Flag),
    ("yard seed", "--trace", Flag),
    (
        "yard seeds",
        "<SEEDS>",
        Here(&[
            ("", SEEDS),
            ("7", SEEDS),
            ("2..2", SEEDS),
            ("3..1", SEEDS),
            ("a..b", SEEDS),
            ("-1..2", SEEDS),
            ("0..100001", SEEDS),
            ("0..99999999999999999999", SEEDS),
        ]),
    ),
    ("yard seeds", "--machines", Whole(1, 5_000)),
    ("dev", "--simulate", Whole(0, 60_000)),
    ("dev", "--racks", Whole(1, 240)),
    (
        "dev",
        "--port",
        Here(&[
            ("", "0 (a free one)"),
            ("80", "no privileged port"),
            ("65536", "1024 to 65535"),
            ("-1", "1024 to 65535"),
            ("http", "as in 5240"),
        ]),
    ),
    ("dev", "--data-dir", Here(FOLDER)),
    ("dev", "--seed", Whole(0, u64::MAX)),
    ("dev", "--speed", Here(SPEED)),
    ("dev", "--faults", Here(&[("", CHOICE), ("some", "none, story")])),
    ("dev", "--bmcs", Here(BMCS)),
    ("dev", "--idle", Flag),
    ("dev", "--ready-file", Here(FILE)),
    ("actor list", "--kind", There(KIND)),
    ("actor list", "--node", There(NODE)),
    ("actor list", "--parent", There(&[EMPTY, ("region", "use one that \"parent\" of an actor names")])),
    ("actor list", "--state", There(TEXT)),
    ("actor list", "--min-queue", Whole(0, 1_000_000)),
    ("actor list", "--min-wait-ms", Whole(0, 86_400_000)),
    ("actor list", "-q", There(TEXT)),
    ("actor list", "--status", There(&[EMPTY, ("dead", "use one of idle, busy")])),
    ("actor list", "--finding", There(&[EMPTY, ("bad.luck", "use one of actor.blocked")])),
    (
        "actor list",
        "--sort",
        There(&[EMPTY, ("colour", "use one of path, queue, -queue"), ("--queue", "use one of path")]),
    ),
    ("actor list", "--limit", Whole(1, 1_000)),
    ("actor tree", "[ROOT]", There(&[EMPTY, ("nowhere", "use region, or the system id of a rack")])),
    ("actor tree", "--depth", Whole(1, 3)),
    ("actor show", "<ACTOR>", Name(ACTOR)),
    ("actor messages", "<ACTOR>", Name(ACTOR)),
    ("actor messages", "--limit", Whole(1, 1_000)),
    ("actor messages", "--before", Whole(1, 4_294_967_295)),
    ("actor messages", "--since", Whole(0, 4_294_967_295)),
    ("actor messages", "--transitions", Flag),
    ("actor top", "--kind", There(KIND)),
    ("actor top", "--node", There(NODE)),
    ("actor top", "--parent", There(&[EMPTY, ("nowhere/machine", "use one that \"parent\" of an actor names")])),
    ("actor top", "--state", There(TEXT)),
    ("actor top", "--min-queue", Whole(0, 1_000_000)),
    ("actor top", "--min-wait-ms", Whole(0, 86_400_000)),
    ("actor top", "-q", There(TEXT)),
    ("actor top", "--status", There(&[EMPTY, ("dead", "use one of idle, busy")])),
    ("actor top", "--finding", There(&[EMPTY, ("bad.luck", "use one of actor.blocked")])),
    ("actor top", "--sort", There(&[EMPTY, ("colour", "use one of path, queue, -queue")])),
    ("actor top", "--limit", Whole(1, 1_000)),
    (
        "actor top",
        "--every",
        Here(&[
            ("", "from 0.25 to 3600"),
            ("0", "as in 1"),
            ("-1", "as in 1"),
            ("3601", "as in 1"),
            ("NaN", "as in 1"),
            ("soon", "as in 1"),
        ]),
    ),
    ("actor top", "--count", Whole(1, 4_294_967_295)),
    (
        "actor trace",
        "<TRACE>",
        Name(&[
            ("", 2, "give a name, a path or an id"),
            ("owl", 3, "see `hostler machine list`"),
            ("machine/zzzzzz", 3, "see /inspect/v1/actors"),
            ("a/b/c/d", 2, "write NODE/KIND/ID"),
            ("00000000000000000000000000000001", 3, "neither in a ring"),
        ]),
    ),
    ("actor trace", "--messages", Whole(1, 100)),
    ("actor trace", "--seconds", Whole(1, 60)),
    ("actor trace", "--payload", Here(&[("", CHOICE), ("all", "none, types, redacted")])),
    ("actor restarts", "--kind", There(KIND)),
    ("actor restarts", "--node", There(NODE)),
    ("actor restarts", "--limit", Whole(1, 1_000)),
    ("actor deadletters", "--kind", There(KIND)),
    ("actor deadletters", "--node", There(NODE)),
    ("actor deadletters", "--limit", Whole(1, 1_000)),
    ("actor restart", "<ACTOR>", Name(ACTOR)),
    ("actor drain", "<ACTOR>", Name(ACTOR)),
    ("actor resume", "<ACTOR>", Name(ACTOR)),
    ("debug bundle", "--file", Here(FILE)),
    ("debug bundle", "--actors", Whole(0, 100)),
    ("debug bundle", "--lines", Whole(0, 5_000)),
];

/// Options that do not go together, and words of the one error.
const TOGETHER: &[(&[&str], &str)] = &[
    (&["dev", "--simulate", "501"], "--racks 3"),
    (&["dev", "--idle", "--faults", "story"], "--idle"),
    (&["dev", "--idle=yes"], "'--idle'"),
    (&["bench", "commission", "--machines", "501"], "--racks 3"),
    (&["bench", "commission", "--kill-racks", "200"], "--kill-racks 50%"),
    (&["bench", "plot", NOWHERE, NOWHERE], "--report has written"),
    (&["bench", "plot", "", ""], "a value is required"),
    (&["bench", "plot"], "<REPORT>"),
    (&["yard", "seed"], "<SEED>"),
    (&["actor", "top", "-o", "json"], "or give --count"),
    (&["actor", "trace", "00000000000000000000000000000001", "--messages", "1"], "leave --messages"),
    (&["actor", "list", "--limit", "1", "--limit", "2"], "cannot be used multiple times"),
    (&["actor", "show"], "<ACTOR>"),
    (&["actor", "restart"], "<ACTOR>"),
    (&["actor", "messages", "fox", "--before", "5", "--since", "4"], "leaves nothing before 5"),
    (&["actor"], "Commands:"),
];

/// The commands below these words, and what this one takes: its options by their long name, its arguments as the help writes them.
fn help(h: &House, words: &[&str]) -> (Vec<String>, BTreeSet<String>) {
    let said = h.run(&[words, &["--help"]].concat());
    assert_eq!(said.code, 0, "{words:?}: {}", said.err);
    let (mut part, mut commands, mut takes) = ("", Vec::new(), BTreeSet::new());
    for line in said.out.lines() {
        if let Some(title) = line.strip_suffix(':').filter(|title| !title.starts_with(' ')) {
            part = title;
        }
        let words: Vec<_> = line.split_whitespace().map(|word| word.trim_end_matches([',', '.'])).collect();
        let indented = line.starts_with("  ");
        match (part, words.first().copied().filter(|_| indented)) {
            ("Commands", Some(name)) if line.as_bytes().get(2) != Some(&b' ') && name != "help" => {
                commands.push(name.to_owned());
            }
            ("Arguments", Some(name)) if name.starts_with(['<', '[']) && line.as_bytes().get(2) != Some(&b' ') => {
                takes.insert(name.to_owned());
            }
            ("Options", Some(short)) if short.starts_with('-') && short != "-" => {
                let long = words.iter().take(2).find(|word| word.starts_with("--")).copied().unwrap_or(short);
                if !["--help", "--version"].contains(&long) {
                    takes.insert(long.to_owned());
                }
            }
            _ => {}
        }
    }
    (commands, takes)
}

#[test]
fn every_option_has_its_wrong_values_here() {
    let h = House::new();
    let global: BTreeSet<String> = help(&h, &[]).1;
    let rows = |command: &str| -> BTreeSet<String> {
        ROWS.iter().filter(|(of, ..)| *of == command).map(|(_, name, _)| (*name).to_owned()).collect()
    };
    assert_eq!(global, rows(""), "what every command takes");
    let mut left: Vec<Vec<String>> =
        ["bench", "yard", "dev", "actor", "debug"].map(|noun| vec![noun.to_owned()]).into();
    let mut met = BTreeSet::new();
    while let Some(words) = left.pop() {
        let (commands, takes) = help(&h, &words.iter().map(String::as_str).collect::<Vec<_>>());
        left.extend(commands.iter().map(|name| [&words[..], std::slice::from_ref(name)].concat()));
        if commands.is_empty() {
            let command = words.join(" ");
            assert_eq!(takes.difference(&global).cloned().collect::<BTreeSet<_>>(), rows(&command), "{command}");
            met.insert(command);
        }
    }
    assert_eq!(met, COMMANDS.iter().map(|(name, _)| (*name).to_owned()).collect());
}

/// Where commands run, and where they would put what they put away: both stay empty.
struct Empty {
    h: House,
    folders: [PathBuf; 2],
}

impl Empty {
    fn new(h: House) -> Self {
        let folders = ["work", "tmp"].map(|name| h.path(name));
        folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        Self { h, folders }
    }

    fn run(&self, words: &[&str]) -> Done {
        let [work, tmp] = &self.folders;
        let output = self.h.command(words).current_dir(work).env("TMPDIR", tmp).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// One error with that code and these words, and nothing else.
    #[track_caller]
    fn refuses(&self, words: &[&str], code: i32, parts: &[&str]) {
        let done = self.run(words);
        assert_eq!(done.code, code, "{words:?}: {}{}", done.out, done.err);
        for part in parts {
            assert!(done.err.contains(part), "{words:?}: \"{part}\" is not in: {}", done.err);
        }
        assert!(done.err.matches("error:").count() <= 1 && done.err.len() < 2_000, "{words:?}: {}", done.err);
        assert!(done.out.is_empty(), "{words:?}: {}", done.out);
        for folder in &self.folders {
            let left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(left.is_empty(), "{words:?} left {left:?} behind");
        }
    }

    /// A command with a value for one of its options, or for its argument.
    #[track_caller]
    fn tries(&self, command: &str, option: &str, value: &str, code: i32, parts: &[&str]) {
        let (command, needs) =
            COMMANDS.iter().find(|(name, _)| *name == command).copied().unwrap_or(("machine list", &[]));
        let mut words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        if option.starts_with("--") && value.parse::<f64>().is_ok_and(|number| number < 0.0) {
            words.extend([option.to_owned(), value.to_owned()]); // As it is written most; it looks like an option itself.
        } else if option.starts_with("--") {
            words.push(format!("{option}={value}"));
        } else if option.starts_with('-') {
            words.push(format!("{option}{}{value}", if value.is_empty() { "=" } else { "" }));
        }
        words.push("--".into());
        if option.starts_with('-') {
            words.extend(needs.iter().map(|word| (*word).to_owned()));
        } else {
            words.push(value.to_owned());
        }
        self.refuses(&words.iter().map(String::as_str).collect::<Vec<_>>(), code, parts);
    }
}

#[test]
fn each_wrong_value_is_one_error_with_option_value_bound_and_remedy() {
    let mut h = House::new();
    fox(&mut h);
    let empty = Empty::new(h);
    for (command, option, bad) in ROWS {
        let field = option.trim_start_matches('-').trim_matches(['[', ']']).to_lowercase().replace('-', "_");
        match bad {
            Whole(least, most) => {
                let bound = format!("it is a whole number from {least} to {most}; give one, as in ");
                let (below, above) = (i128::from(*least) - 1, u128::from(*most) + 1);
                let values = ["", "many", "1.5", "-5", "0x10", "99999999999999999999999"].map(str::to_owned);
                for value in values.into_iter().chain([below.to_string(), above.to_string()]) {
                    empty.tries(command, option, &value, 2, &[option, &format!("'{value}'"), &bound]);
                }
            }
            Here(values) => {
                for (value, words) in *values {
                    // An empty path has nothing that could be repeated; a key is not repeated at all.
                    let shown = if *option == "--key" || value.is_empty() { "" } else { value };
                    let name = if command.is_empty() { "" } else { option };
                    empty.tries(command, option, value, 2, &[name, shown, words]);
                }
            }
            There(values) => {
                for (value, words) in *values {
                    let shown: String = value.chars().filter(|c| !c.is_control()).take(60).collect();
                    empty.tries(command, option, value, 2, &[&format!("{field}: \"{shown}"), words]);
                }
            }
            Name(values) => {
                for (value, code, words) in *values {
                    empty.tries(command, option, value, *code, &[value, words]);
                }
            }
            Flag => empty.tries(command, option, "yes", 2, &[option, "'yes'"]),
        }
    }
}

#[test]
fn what_is_unknown_or_does_not_go_together_is_one_error() {
    let mut h = House::new();
    fox(&mut h);
    let empty = Empty::new(h);
    for (command, needs) in COMMANDS {
        let words: Vec<_> = command.split(' ').chain(needs.iter().copied()).collect();
        empty.refuses(&[&words[..], &["--colour", "red"]].concat(), 2, &["'--colour'"]);
        empty.refuses(&[&words[..], &["a", "b", "surplus"]].concat(), 2, &["unexpected argument"]);
    }
    for (words, part) in TOGETHER {
        empty.refuses(words, 2, &[part]);
    }
    for noun in ["bench", "yard", "actor", "debug"] {
        empty.refuses(&[noun, "swim"], 2, &["'swim'"]);
    }
}
