//! Bodies over streams of their own: whole, cut and resumed, wrong, refused.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actors::link::{
    bulk::{BulkError, BulkRequest},
    ca::RackIdentity,
    server::Incoming,
};
use schema::{
    boot::{BodyRef, Sha256},
    messages::link::BulkHeader,
};
use tempfile::TempDir;

use super::{Rack, Region};

/// A region that keeps bodies as files named by their hash, and a rack that is up.
struct Pair {
    region: Arc<Region>,
    rack: Rack,
    identity: RackIdentity,
    dir: TempDir,
}

impl Pair {
    async fn new() -> Self {
        let mut region = Region::new();
        let identity = region.enrol().await;
        let mut rack = Rack::start(&region.address(), &identity);
        rack.up().await;
        let dir = tempfile::tempdir().unwrap();
        for name in ["region", "rack"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut connections = std::mem::replace(&mut region.connections, tokio::sync::mpsc::channel(1).1);
        let bodies = dir.path().join("region");
        tokio::spawn(async move {
            while let Some(mut rack) = connections.recv().await {
                let bodies = bodies.clone();
                tokio::spawn(async move {
                    while let Some(incoming) = rack.incoming.recv().await {
                        if let Incoming::Bulk(request) = incoming {
                            tokio::spawn(answer(request, bodies.clone()));
                        }
                    }
                });
            }
        });
        Self { region: Arc::new(region), rack, identity, dir }
    }

    fn path(&self, side: &str, name: impl ToString) -> PathBuf {
        self.dir.path().join(side).join(name.to_string())
    }

    fn region_holds(&self, bytes: &[u8]) -> BodyRef {
        let body = body(bytes);
        fs::write(self.path("region", body.sha256), bytes).unwrap();
        body
    }
}

fn body(bytes: &[u8]) -> BodyRef {
    BodyRef { sha256: Sha256::of(bytes), len: bytes.len() as u64 }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

async fn answer(mut request: BulkRequest, bodies: PathBuf) {
    let path = |body: &BodyRef| bodies.join(body.sha256.to_string());
    match request.header.clone() {
        BulkHeader::Fetch { body, .. } if path(&body).is_file() => _ = request.serve(&path(&body)).await,
        BulkHeader::Fetch { .. } => request.refuse("the region has no such body", "add the image").await,
        BulkHeader::Store { body } if path(&body).is_file() => request.held().await,
        BulkHeader::Store { body } => {
            let partial = bodies.join(format!("{}.partial", body.sha256));
            if request.receive(&partial).await.is_ok() {
                fs::rename(partial, path(&body)).unwrap();
                request.held().await;
            }
        }
    }
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

#[tokio::test]
async fn bodies_come_whole_and_a_part_that_is_here_is_not_fetched_again() {
    let pair = Pair::new().await;
    let bytes = noise(3_000_000);
    let body = pair.region_holds(&bytes);
    let partial = pair.path("rack", "partial");
    assert_eq!(pair.rack.client.fetch(0, body, &partial).await.unwrap(), 3_000_000);
    assert!(fs::read(&partial).unwrap() == bytes);
    fs::write(&partial, &bytes[..2_500_001]).unwrap();
    assert_eq!(pair.rack.client.fetch(0, body, &partial).await.unwrap(), 499_999);
    assert!(fs::read(&partial).unwrap() == bytes);
    assert_eq!(pair.rack.client.fetch(0, body, &partial).await.unwrap(), 0);
    let empty = pair.region_holds(b"");
    assert_eq!(pair.rack.client.fetch(0, empty, &pair.path("rack", "empty")).await.unwrap(), 0);
}

#[tokio::test]
async fn a_cut_costs_only_what_was_under_way() {
    let mut pair = Pair::new().await;
    let bytes = noise(24_000_000);
    let body = pair.region_holds(&bytes);
    let partial = pair.path("rack", "partial");
    let cut = async {
        while len(&partial) < 2_000_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        pair.region.server.disconnect(pair.identity.rack, "cut by the test");
    };
    let both = async { tokio::join!(pair.rack.client.fetch(0, body, &partial), cut) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("no cut in time");
    let Err(BulkError::Broke { done, why }) = result else { panic!("{result:?}") };
    // Under load the closing packet may be lost, and with it the reason.
    assert!((2_000_000..24_000_000).contains(&done) && !why.is_empty(), "{done} {why}");
    assert_eq!(len(&partial), done);
    pair.rack.up().await;
    assert_eq!(pair.rack.client.fetch(0, body, &partial).await.unwrap(), 24_000_000 - done);
    assert!(fs::read(&partial).unwrap() == bytes);
}

#[tokio::test]
async fn a_body_with_wrong_bytes_is_thrown_away() {
    let pair = Pair::new().await;
    let body = pair.region_holds(&noise(100_000));
    fs::write(pair.path("region", body.sha256), vec![0; 100_000]).unwrap();
    let partial = pair.path("rack", "partial");
    let error = pair.rack.client.fetch(0, body, &partial).await.unwrap_err();
    assert!(matches!(error, BulkError::Wrong { .. }), "{error}");
    assert_eq!(len(&partial), 0);
    // Another length is found before a byte is sent.
    fs::write(pair.path("region", body.sha256), "short").unwrap();
    let error = pair.rack.client.fetch(0, body, &partial).await.unwrap_err();
    assert!(error.to_string().contains("has 5 bytes here"), "{error}");
}

#[tokio::test]
async fn a_body_that_the_region_has_not_is_refused_with_a_remedy() {
    let pair = Pair::new().await;
    let error = pair.rack.client.fetch(0, body(b"nowhere"), &pair.path("rack", "partial")).await.unwrap_err();
    assert_eq!(error.to_string(), "the region has no such body; add the image");
}

#[tokio::test]
async fn stores_resume_are_verified_and_held_once() {
    let pair = Pair::new().await;
    let bytes = noise(1_000_000);
    let whole = body(&bytes);
    let source = pair.path("rack", "output");
    fs::write(&source, &bytes).unwrap();
    fs::write(pair.path("region", format!("{}.partial", whole.sha256)), &bytes[..600_000]).unwrap();
    pair.rack.client.store(0, whole, &source).await.unwrap();
    assert!(fs::read(pair.path("region", whole.sha256)).unwrap() == bytes);
    fs::remove_file(&source).unwrap();
    pair.rack.client.store(0, whole, &source).await.unwrap(); // Held: the file is not even opened.

    let lie = BodyRef { sha256: Sha256::of(b"something else"), len: 9 };
    fs::write(&source, b"not it at").unwrap();
    let error = pair.rack.client.store(0, lie, &source).await.unwrap_err();
    assert!(error.to_string().contains("thrown away"), "{error}");
    assert!(!pair.path("region", lie.sha256).exists());
}

#[tokio::test]
async fn many_bodies_at_once_wait_for_free_streams() {
    let pair = Pair::new().await;
    let mut fetches = tokio::task::JoinSet::new();
    for n in 0..150u32 {
        let body = pair.region_holds(&n.to_be_bytes().repeat(5_000));
        let (client, partial) = (pair.rack.client.clone(), pair.path("rack", n));
        fetches.spawn(async move { client.fetch(0, body, &partial).await });
    }
    while let Some(fetched) = fetches.join_next().await {
        assert_eq!(fetched.unwrap().unwrap(), 20_000);
    }
}
