//! `/metrics` of a rack: every documented name, on its own listener, and not where machines ask.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use actors::metrics::{FAMILIES, labels, names};
use rack::{app::App, config::Service};

use crate::plan_file::{config, write_plan};

fn ask(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_name_is_served_and_machines_do_not_see_them() {
    let (dir, host) = (tempfile::tempdir().unwrap(), Ipv4Addr::new(127, 77, 201, 2));
    write_plan(&dir.path().join("plan.toml"), host, 600);
    std::fs::write(dir.path().join("loader.bin"), b"the loader").unwrap();
    let config = rack::config::RackConfig { metrics: Some(([127, 0, 0, 1], 0).into()), ..config(dir.path(), host) };
    let running = App::start(config.clone()).await.unwrap();
    let at = running.metrics.unwrap();
    let said = tokio::task::spawn_blocking(move || ask(at, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    let served: BTreeSet<_> = names(&said).into_iter().collect();
    let listed: BTreeSet<_> = FAMILIES.iter().filter(|f| f.by != "region").map(|f| f.name.to_owned()).collect();
    assert_eq!(served, listed);
    for (name, labels) in labels(&said) {
        assert_eq!(labels, FAMILIES.iter().find(|family| family.name == name).unwrap().labels, "{name}");
    }
    assert!(said.contains("hostler_service_events_total{service=\"http\",event=\"bytes_kernel\"} 0\n"), "{said}");
    assert!(said.contains("hostler_service_up{rack=\"\",service=\"http\"} 1\n"), "{said}");
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("\r\n\r\n", "405"),
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200"),
    ] {
        let said = tokio::task::spawn_blocking(move || ask(at, request)).await.unwrap();
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {said}");
    }
    let http = running.addresses(Service::Http)[0];
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let said = tokio::task::spawn_blocking(move || ask(http, request)).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 404") && !said.contains("hostler_"), "{said}");
    // What went out by HTTP is counted by what it is.
    let request = "GET /lpxelinux.0 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let said = tokio::task::spawn_blocking(move || ask(http, request)).await.unwrap();
    assert!(said.ends_with("the loader"), "{said}");
    let page = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
    for round in 0.. {
        let said = tokio::task::spawn_blocking(move || ask(at, page)).await.unwrap();
        if said.contains("hostler_service_events_total{service=\"http\",event=\"bytes_loader\"} 10\n") {
            break;
        }
        assert!(round < 600, "ten bytes were sent: {said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A port that is taken costs the metrics, not the rack.
    let dir = tempfile::tempdir().unwrap();
    write_plan(&dir.path().join("plan.toml"), Ipv4Addr::new(127, 77, 202, 2), 600);
    std::fs::write(dir.path().join("loader.bin"), b"the loader").unwrap();
    let taken = rack::config::RackConfig {
        metrics: Some(at),
        ..crate::plan_file::config(dir.path(), Ipv4Addr::new(127, 77, 202, 2))
    };
    let other = App::start(taken).await.unwrap();
    assert_eq!(other.metrics, None);
    other.stop().await;
    running.stop().await;
}

#[test]
fn metrics_listen_on_loopback_unless_they_are_set_otherwise() {
    let load = |value: Option<&str>| {
        let env = value.map(|v| ("HOSTLER_METRICS_LISTEN".to_owned(), v.to_owned()));
        rack::config::RackConfig::load(None, env)
    };
    assert_eq!(load(None).unwrap().metrics, Some(([127, 0, 0, 1], 5239).into()));
    assert_eq!(load(Some("off")).unwrap().metrics, None);
    assert_eq!(load(Some("10.0.0.1:9")).unwrap().metrics, Some(([10, 0, 0, 1], 9).into()));
    let wrong = load(Some("everywhere")).unwrap_err().to_string();
    assert!(
        wrong.contains("metrics.listen") && wrong.contains("everywhere") && wrong.contains("127.0.0.1:5239"),
        "{wrong}"
    );
}
