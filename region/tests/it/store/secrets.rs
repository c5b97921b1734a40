//! The case of sealed secrets: they open with their key, in their place, and nowhere else.

use std::{fs, os::unix::fs::PermissionsExt};

use diesel::{QueryDsl, RunQueryDsl};
use region::{
    seal::{Seal, SealError},
    store::{Change, queries},
};
use schema::{secret::Secret, tables::secrets};

use super::{Empty, step};

pub(crate) async fn secrets_open_only_with_their_key(empty: Empty<'_>) {
    let store = empty.open();
    let key = empty.dir.join("secret.key");
    Seal::create_key(&key).unwrap();
    assert!(matches!(Seal::create_key(&key), Err(SealError::Exists(_))));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

    let seal = Seal::open(&key, store.clone()).await.unwrap();
    let password = Secret::new("correct horse".to_owned());
    let change = seal.seal("aaaaaa", "power/power_pass", &password).unwrap();
    store.commit(step("aaaaaa", 0, vec![change])).await.unwrap();
    seal.put("aaaaaa", "node_key/1", &Secret::new("c:t:s".into())).await.unwrap();
    seal.put("aaaaaa", "node_key/1", &Secret::new("c:t:s2".into())).await.unwrap();
    assert!(seal.get("aaaaaa", "power/power_pass").await.unwrap() == Some(password));
    assert!(seal.get("bbbbbb", "power/power_pass").await.unwrap().is_none());
    let keys = seal.all("aaaaaa", "node_key/").await.unwrap();
    assert_eq!(
        keys.iter().map(|(n, s)| (n.as_str(), s.expose().as_str())).collect::<Vec<_>>(),
        [("node_key/1", "c:t:s2")]
    );

    let rows: Vec<Vec<u8>> = store.read(|db| secrets::table.select(secrets::sealed).load(db)).await.unwrap();
    assert!(rows.iter().all(|row| !row.windows(7).any(|part| part == b"correct")));

    // A value that was moved to another place does not open there.
    let Change::Secret { sealed, .. } = seal.seal("aaaaaa", "x", &Secret::new("v".into())).unwrap() else { panic!() };
    store.put(vec![Change::Secret { owner: "aaaaaa".into(), name: "y".into(), sealed }]).await.unwrap();
    assert!(matches!(seal.get("aaaaaa", "y").await, Err(SealError::WrongKey { .. })));

    seal.destroy("aaaaaa", "node_key/").await.unwrap();
    let left =
        store.read(|db| secrets::table.select(secrets::name).order(secrets::name).load::<String>(db)).await.unwrap();
    assert_eq!(left, ["check", "power/power_pass", "y"]);
    assert_eq!(store.read(|db| queries::load_actor(db, "test", "aaaaaa")).await.unwrap().map(|a| a.1.0), Some(1));

    let other = empty.dir.join("other.key");
    Seal::create_key(&other).unwrap();
    let err = Seal::open(&other, store.clone()).await.err().unwrap().to_string();
    assert!(err.contains("other.key") && err.contains("restore the key file"), "{err}");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let err = Seal::open(&other, store.clone()).await.err().unwrap().to_string();
    assert!(err.contains("0644") && err.contains("chmod 600"), "{err}");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&other, "no key").unwrap();
    assert!(matches!(Seal::open(&other, store.clone()).await, Err(SealError::Malformed(_))));
    assert!(matches!(Seal::open(&empty.dir.join("none"), store).await, Err(SealError::File { .. })));
}
