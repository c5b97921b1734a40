//! Another program at the same SQLite file, as a backup or a shell is: whatever the store does meanwhile, that program's end takes nothing from it.

use std::{
    env, fs, io,
    io::{BufRead, BufReader, Write as _},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use region::store::{Store, queries};

use super::step;

/// The database for the child; without it the child has nothing to do.
const OTHER: &str = "HOSTLER_STORE_OTHER";

/// Not a test by itself: the other program. It holds the lock until it hears a line; then it closes the database.
#[test]
fn child_that_holds_the_lock() {
    let Ok(path) = env::var(OTHER) else { return };
    let mut database = SqliteConnection::establish(&path).unwrap();
    database.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
    println!("it is locked");
    io::stdin().read_line(&mut String::new()).unwrap();
    database.batch_execute("ROLLBACK").unwrap();
}

/// Whether the system knows of a lock on that file.
fn is_locked(path: &Path) -> bool {
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    fs::read_to_string("/proc/locks").unwrap().lines().any(|lock| lock.contains(" READ ") && lock.contains(&inode))
}

/// Whoever is the last to close a database of this kind removes its journal. Who that is, SQLite tells by locks on the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_connected_anew_still_tells_other_programs_that_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("region.db");
    let store = Store::open(&format!("sqlite:{}", path.display())).unwrap();
    store.commit(step("a", 0, vec![])).await.unwrap();
    // Its connection is kept, and with it the lock by which others know that somebody is there.
    store.read(|db| queries::load_actor(db, "test", "a")).await.unwrap().unwrap();
    assert!(is_locked(&path));

    let mut other = Command::new(env::current_exe().unwrap())
        .args(["--exact", "store::locks::child_that_holds_the_lock", "--nocapture"])
        .env(OTHER, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("it is locked")));
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.commit(step("a", 1, vec![])).await }
    });
    // It hears that the database is locked, and connects anew.
    while store.stalled().is_none_or(|stalled| stalled.why.is_empty()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    other.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(other.wait().unwrap().success());

    waiting.await.unwrap().unwrap();
    assert!(is_locked(&path), "another program would take this one for gone, and its journal away");
}
