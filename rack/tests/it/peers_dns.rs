//! The rack's DNS with real peers: dig asks, unbound answers upstream, dnsperf loads.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use rack::service::Serving;
use tokio::process::{Child, Command};

use crate::dns::serve;

/// Whether the program is here. Missing: fails, unless the environment allows to skip.
fn have(program: &str) -> bool {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).chain(["/usr/sbin".into()]).any(|d| d.join(program).is_file());
    if !found {
        assert!(std::env::var("HOSTLER_TEST_SKIP").is_ok_and(|v| v == "1"), "{program} is missing; apt-get install it");
        println!("SKIPPED: {program} is missing");
    }
    found
}

async fn said(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("ended").unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn dig(server: SocketAddr, args: &[&str]) -> String {
    let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
    let fixed = [at.as_str(), "-p", &port, "+tries=1", "+time=20"];
    said("dig", &[&fixed[..], args].concat()).await
}

/// Unbound with a zone of its own, on a port of loopback. Unbound cannot choose one itself, and one that was free a moment
/// ago may be taken meanwhile, by UDP or by TCP: then it ends, and is started on another.
async fn unbound(dir: &Path) -> (Child, SocketAddr) {
    let mut said = String::new();
    for _ in 0..10 {
        let port = free_port();
        let mut child = unbound_at(dir, port);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        for _ in 0..200 {
            if dig(address, &["+time=1", "www.example.test"]).await.contains("192.0.2.80") {
                return (child, address);
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        said = std::fs::read_to_string(dir.join("unbound.log")).unwrap_or_default();
    }
    panic!("unbound never answered; it said: {said}");
}

/// A port that neither UDP nor TCP has in use.
fn free_port() -> u16 {
    loop {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        if std::net::UdpSocket::bind(address).is_ok() {
            return address.port();
        }
    }
}

fn unbound_at(dir: &Path, port: u16) -> Child {
    let text = format!(
        "server:\n interface: 127.0.0.1@{port}\n do-daemonize: no\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n use-syslog: no\n \
         directory: \"{}\"\n module-config: \"iterator\"\n do-not-query-localhost: no\n \
         local-zone: \"example.test.\" static\n local-data: \"www.example.test. 300 IN A 192.0.2.80\"\n \
         local-data: \"big.example.test. 300 IN TXT '{}'\"\n local-data: \"big.example.test. 300 IN TXT '{}'\"\n \
         local-data: \"example.test. 300 IN SOA ns.example.test. x.example.test. 1 2 3 4 60\"\n",
        dir.display(),
        "a".repeat(250),
        "b".repeat(250),
    );
    let file = dir.join("unbound.conf");
    std::fs::write(&file, text).unwrap();
    let log = std::fs::File::create(dir.join("unbound.log")).unwrap();
    let mut command = Command::new("/usr/sbin/unbound");
    command.args(["-d", "-c"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.kill_on_drop(true).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_dig_reads_zones_and_what_unbound_says() {
    if !have("dig") || !have("unbound") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_unbound, upstream) = unbound(dir.path()).await;
    let (running, server) = serve(&[upstream]);
    let fox = dig(server, &["fox.maas"]).await;
    for part in ["status: NOERROR", "flags: qr aa rd ra;", "10.77.0.5", "udp: 1232"] {
        assert!(fox.contains(part), "{part} is missing in {fox}");
    }
    let none = dig(server, &["none.maas"]).await;
    assert!(none.contains("NXDOMAIN") && none.contains("SOA"), "{none}");
    assert!(dig(server, &["+tcp", "long.maas", "TXT"]).await.contains("ANSWER: 40"));
    assert!(dig(server, &["long.maas", "TXT"]).await.contains("Truncated, retrying in TCP mode"));
    assert!(dig(server, &["fox.maas", "ANY", "+notcp"]).await.contains("RFC8482"));
    assert!(dig(server, &["CH", "version.bind", "TXT"]).await.contains("REFUSED"));
    assert!(dig(server, &["+opcode=UPDATE", "fox.maas"]).await.contains("NOTIMP"));
    assert!(dig(server, &["AXFR", "maas"]).await.contains("Transfer failed"));
    assert!(dig(server, &["www.example.test"]).await.contains("192.0.2.80"));
    assert!(dig(server, &["+noedns", "www.example.test"]).await.contains("192.0.2.80"));
    let big = dig(server, &["+noedns", "+ignore", "big.example.test", "TXT"]).await;
    assert!(big.contains(" tc "), "{big}");
    assert!(dig(server, &["+tcp", "big.example.test", "TXT"]).await.contains("ANSWER: 2"));
    let gone = dig(server, &["gone.example.test"]).await;
    assert!(gone.contains("NXDOMAIN") && gone.contains("SOA"), "{gone}");
    assert_eq!(running.meter().last_error(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_dnsperf_loses_no_answer() {
    if !have("dnsperf") || !have("unbound") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_unbound, upstream) = unbound(dir.path()).await;
    let (_running, server) = serve(&[upstream]);
    let queries = dir.path().join("queries");
    std::fs::write(&queries, "fox.maas A\nwww.example.test A\nnone.maas A\ngone.example.test A\nlong.maas TXT\n")
        .unwrap();
    let (ip, port) = (server.ip().to_string(), server.port().to_string());
    let file = queries.display().to_string();
    // 20,000 queries at most, 50 on their way at once.
    let args = ["-s", &ip, "-p", &port, "-d", &file, "-n", "4000", "-q", "50", "-l", "30", "-t", "20"];
    let report = said("dnsperf", &args).await;
    assert!(report.contains("Queries lost:         0"), "{report}");
    assert!(report.contains("NXDOMAIN") && report.contains("NOERROR") && !report.contains("SERVFAIL"), "{report}");
}
