//! A database that takes no writes is named where it is looked for: among the findings, and first among a machine's causes.

use actors::findings::RULES;
use diesel::{Connection, SqliteConnection, connection::SimpleConnection};

use serde_json::Value;

use super::until;
use crate::api::Region;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_found_and_is_the_first_cause_of_a_wait() {
    let r = Region::start().await;
    let fox = r.machine("fox", "52:54:00:77:00:01").await;
    let nothing = r.get("/inspect/v1/findings?id=store.stalled").await.json(200);
    assert_eq!(nothing["count"], 0);

    // Another program holds the lock, as a backup that hangs would.
    let address = r.app().store.address();
    let mut other = SqliteConnection::establish(address.strip_prefix("sqlite:").unwrap()).unwrap();
    other.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").unwrap();
    let store = r.app().store.clone();
    let write = tokio::spawn(async move { store.allot("results", 1).await });
    let found = until(&r, "/inspect/v1/findings?id=store.stalled", |f| f["count"] == 1).await;
    let finding = &found["items"][0];
    assert_eq!((finding["severity"].as_str(), finding["subject"].as_str()), (Some("critical"), Some(&*address)));
    assert!(finding["since"].is_string() && finding["remedy"].as_str().unwrap().contains("holds a lock"), "{finding}");
    assert!(RULES.iter().any(|(id, _)| *id == "store.stalled"));

    // The actor whose step waits for it is counted there, and is no finding of its own.
    let id = fox["system_id"].as_str().unwrap();
    let path = format!("machines/{id}/?op=mark_broken");
    let look = async {
        let one = |f: &Value| f["items"][0]["text"].as_str().is_some_and(|text| text.contains("steps of 1 actors"));
        let all = until(&r, "/inspect/v1/findings", one).await;
        assert_eq!(all["count"], 1, "{all}");
        // The machine waits for nothing: it has no cause.
        let at_rest = r.get(&format!("/inspect/v1/explain/{id}")).await.json(200);
        assert_eq!(at_rest["causes"].as_array().map(Vec::len), Some(0), "{at_rest}");
        other.batch_execute("ROLLBACK").unwrap();
    };
    let (marked, ()) = tokio::join!(r.call("POST", &path, &[("comment", "smoke")]), look);
    assert_eq!(marked.json(200)["status_name"], "Broken");
    write.await.unwrap().unwrap();
    until(&r, "/inspect/v1/findings?id=store.stalled", |f| f["count"] == 0).await;
    r.stop().await;
}
