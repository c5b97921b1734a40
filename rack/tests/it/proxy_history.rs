//! Random histories of the package proxy against a model: whatever a server does, a client gets a version that was right, or sees that it got none.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use proptest::{prelude::*, test_runner::TestRunner};

use crate::proxy_yard::{Act, Origin, head, ok, pattern, yard};

#[derive(Debug, Clone)]
enum Op {
    /// GET of object `n`; a part of it where there is one.
    Get { n: usize, from: Option<usize>, anew: bool },
    /// The server has another version of object `n`.
    Change(usize),
    /// From now on the server is well, cuts every body, or answers 500.
    Server(Mood),
    /// The proxy is started anew on its directory.
    Restart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Cuts,
    Fails,
}

/// Three indexes and three packages.
const PATHS: [&str; 6] = [
    "/dists/a/InRelease",
    "/dists/a/main/Packages.xz",
    "/dists/b/Release",
    "/pool/a.deb",
    "/pool/b.deb",
    "/pool/c.deb",
];

/// Differs in every byte from the other versions, so that each part of it tells which it is.
fn body(n: usize, version: usize) -> Vec<u8> {
    let version = u8::try_from(version).unwrap();
    pattern(3_019 + n * 1_000).into_iter().map(|byte| byte.wrapping_add(version)).collect()
}

fn op() -> impl Strategy<Value = Op> {
    let n = || 0..PATHS.len();
    prop_oneof![
        6 => (n(), prop::option::of(0_usize..3_000), any::<bool>()).prop_map(|(n, from, anew)| Op::Get { n, from, anew }),
        2 => n().prop_map(Op::Change),
        2 => prop_oneof![Just(Mood::Well), Just(Mood::Cuts), Just(Mood::Fails)].prop_map(Op::Server),
        1 => Just(Op::Restart),
    ]
}

struct World {
    versions: [usize; 6],
    mood: Mood,
}

fn answer(world: &World, asked: &str) -> Vec<Act> {
    let n = PATHS.iter().position(|p| asked.starts_with(&format!("get {} ", p.to_lowercase()))).unwrap();
    let body = body(n, world.versions[n]);
    // The indexes have weak validators: what breaks off there cannot be continued.
    let etag = format!("{}\"{n}-{}\"", if n < 3 { "W/" } else { "" }, world.versions[n]);
    let fields = format!("etag: {etag}\r\n");
    match world.mood {
        Mood::Fails => vec![Act::Send(head(500, "", 0))],
        _ if asked.contains(&format!("if-none-match: {}\r\n", etag.to_lowercase())) => {
            vec![Act::Send(format!("HTTP/1.1 304 X\r\n{fields}\r\n").into_bytes())]
        }
        // What is asked for after a cut comes whole, if it is still the same.
        Mood::Cuts if asked.contains(&format!("if-range: {}\r\n", etag.to_lowercase())) => {
            let from = asked
                .split_once("range: bytes=")
                .and_then(|(_, r)| r.split('-').next()?.parse::<usize>().ok())
                .unwrap();
            let fields = format!("{fields}content-range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
            vec![Act::Send(head(206, &fields, body.len() - from)), Act::Send(body[from..].to_vec())]
        }
        Mood::Cuts => {
            vec![Act::Send(head(200, &fields, body.len())), Act::Send(body[..body.len() / 2].to_vec()), Act::Close]
        }
        Mood::Well => ok(&fields, &body),
    }
}

async fn play(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(Mutex::new(World { versions: [0; 6], mood: Mood::Well }));
    let seen = Arc::clone(&world);
    let origin = Origin::start(move |_, asked| answer(&seen.lock().unwrap(), asked)).await;
    let mut proxy = yard(dir.path(), |c| c.cache = 20_000);
    // Which version the model holds kept, where it is sure.
    let mut kept: BTreeMap<usize, usize> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Change(n) => world.lock().unwrap().versions[n] += 1,
            Op::Server(mood) => world.lock().unwrap().mood = mood,
            Op::Restart => {
                let answers = proxy.proxy.census().0;
                proxy.proxy.stop().await;
                proxy = yard(dir.path(), |c| c.cache = 20_000);
                proxy.until("the cache is found", |y| y.proxy.census().0 == answers).await;
            }
            Op::Get { n, from, anew } => {
                let (current, mood) = {
                    let world = world.lock().unwrap();
                    (world.versions[n], world.mood)
                };
                let range = from.map(|from| format!("Range: bytes={from}-\r\n")).unwrap_or_default();
                let anew = if anew { "Cache-Control: no-cache\r\n" } else { "" };
                let got = proxy.get(&origin.url(PATHS[n]), &format!("{range}{anew}")).await;
                if got.status >= 500 || !got.whole {
                    prop_assert!(mood != Mood::Well, "a server that is well and {} of {}", got.status, PATHS[n]);
                    continue;
                }
                let is = |version| got.body == body(n, version)[from.unwrap_or(0)..];
                let version = (0..=current).rev().find(|v| is(*v));
                prop_assert!(version.is_some(), "{} bytes of no version of {}", got.body.len(), PATHS[n]);
                let version = version.unwrap_or(0);
                // An old version is right only if it was kept, and for an index or a client that wants it anew only when the server fails.
                if version < current {
                    prop_assert_eq!(kept.get(&n), Some(&version), "{}: {}", PATHS[n], &got.head);
                    prop_assert!(n >= 3 && anew.is_empty() || mood != Mood::Well, "{}: {}", PATHS[n], &got.head);
                }
                kept.insert(n, version);
            }
        }
        prop_assert!(proxy.proxy.census().1 <= 20_000, "the bound holds");
    }
    proxy.proxy.stop().await;
    Ok(())
}

#[test]
fn random_histories_agree_with_the_model() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // A case takes a while: few, unless more are asked for.
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let (cases, failure_persistence) = (asked.unwrap_or(24), None);
    let config = ProptestConfig { cases, max_shrink_iters: 200, failure_persistence, ..ProptestConfig::default() };
    TestRunner::new(config).run(&prop::collection::vec(op(), 1..40), |ops| runtime.block_on(play(ops))).unwrap();
}
