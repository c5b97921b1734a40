//! The package proxy under abuse: ways to the house, smuggled requests, loops, floods of connections; and the ways that the operator opens.

use std::time::Duration;

use rack::proxy::Reach;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::proxy_yard::{Act, Got, Origin, authority, head, ok, read, yard};

fn text(got: &Got) -> String {
    String::from_utf8_lossy(&got.body).into_owned()
}

/// Issue 3, abuse 5: no address and no name leads to the rack, the region, metadata or loopback.
#[tokio::test]
async fn no_way_leads_to_the_house() {
    let dir = tempfile::tempdir().unwrap();
    let house = Origin::start(|_, _| ok("", b"secret")).await;
    let port = house.address.port();
    let proxy = yard(dir.path(), |c| c.reach.allow.clear());
    for url in [
        format!("http://127.0.0.1:{port}/MAAS/metadata/"),
        format!("http://127.1:{port}/"),
        format!("http://0x7f000001:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        // A name is judged by the address it leads to.
        format!("http://localhost:{port}/"),
        "http://169.254.169.254/latest/meta-data/".into(),
        "http://[fe80::1]/".into(),
        "http://224.0.0.1/".into(),
        format!("http://{}/", proxy.proxy.address()),
    ] {
        let got = proxy.get(&url, "").await;
        assert_eq!(got.status, 403, "{url}: {}", text(&got));
        assert!(text(&got).contains("out of bounds"), "{url}: {}", text(&got));
    }
    assert_eq!(proxy.count("refused_address"), 12);
    assert!(house.seen().is_empty());
    // Nor to a port that is none of a repository's.
    let proxy =
        yard(dir.path(), |c| c.reach = Reach { allow: vec!["127.0.0.0/8".parse().unwrap()], ..Reach::default() });
    for port in [22, 25, 5_240, 5_248, 5_250] {
        let got = proxy.get(&format!("http://127.0.0.1:{port}/"), "").await;
        assert!(got.status == 403 && text(&got).contains("proxy.ports"), "{port}: {}", text(&got));
    }
}

#[tokio::test]
async fn a_redirect_is_the_clients_business() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_, _| vec![Act::Send(head(302, "location: http://169.254.169.254/\r\n", 0))]).await;
    let proxy = yard(dir.path(), |_| {});
    let got = proxy.get(&origin.url("/x"), "").await;
    assert_eq!((got.status, got.field("location")), (302, Some("http://169.254.169.254/")));
    assert_eq!((origin.seen().len(), proxy.proxy.census().0), (1, 0));
}

#[tokio::test]
async fn a_smuggled_request_reaches_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_, _| ok("etag: \"a\"\r\n", b"x")).await;
    let proxy = yard(dir.path(), |_| {});
    let (url, host) = (origin.url("/pool/a.deb"), origin.address.to_string());
    let hidden = format!("GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", origin.url("/hidden"));
    for fields in [
        format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{hidden}"),
        format!("X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!("X: y\nContent-Length: 9\r\n\r\n{hidden}"),
    ] {
        let mut stream = proxy.connect().await;
        stream.write_all(format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{fields}").as_bytes()).await.unwrap();
        let got = read(&mut stream, false).await;
        assert_eq!((got.status, got.field("connection")), (400, Some("close")), "{fields}: {}", got.head);
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("a close").ok();
        assert!(rest.is_empty(), "{fields}");
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
    for nonsense in
        [&b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[b'G'; 40_000], &[0; 300]]
    {
        let mut stream = proxy.connect().await;
        stream.write_all(nonsense).await.ok();
        stream.shutdown().await.ok();
        let got = read(&mut stream, false).await;
        assert!(got.status == 0 || (400..500).contains(&got.status), "{}", got.head);
    }
    assert_eq!(proxy.get(&url, "").await.status, 200, "it serves on");
}

#[tokio::test]
async fn a_loop_ends_at_its_first_turn() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = yard(dir.path(), |_| {});
    // The proxy is asked for its own address: what comes back to it is in origin form, and refused; as a peer of itself it would be a loop.
    let own = proxy.proxy.address();
    let mut plan = crate::proxy_yard::plan();
    plan.settings.proxy.url = Some(format!("http://{own}/"));
    plan.settings.proxy.peer = true;
    proxy.plan.store(plan);
    let got = proxy.get("http://127.0.0.9:8080/x", "").await;
    assert_eq!(got.status, 508, "{}", text(&got));
    assert_eq!(proxy.count("refused_loop"), 1);
}

#[tokio::test]
async fn only_clients_of_subnets_that_may_use_it_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_, _| ok("etag: \"a\"\r\n", b"x")).await;
    let proxy = yard(dir.path(), |_| {});
    let url = origin.url("/pool/a.deb");
    // On one connection, so that a change of the plan is seen by those who are in already.
    let mut stream = proxy.connect().await;
    let request = format!("GET {url} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read(&mut stream, false).await.status, 200);
    let mut plan = crate::proxy_yard::plan();
    plan.subnets[0].allow_proxy = false;
    proxy.plan.store(plan.clone());
    stream.write_all(request.as_bytes()).await.unwrap();
    let got = read(&mut stream, false).await;
    assert!(got.status == 403 && text(&got).contains("allow_proxy"), "{}", text(&got));
    plan.subnets.clear();
    proxy.plan.store(plan.clone());
    assert!(text(&proxy.get(&url, "").await).contains("no subnet"));
    plan = crate::proxy_yard::plan();
    plan.settings.proxy.enabled = false;
    proxy.plan.store(plan);
    assert!(text(&proxy.get(&url, "").await).contains("switched off"));
    assert_eq!(proxy.count("refused_client"), 3);
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = yard(dir.path(), |c| (c.connections, c.per_client) = (10, 3));
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = proxy.connect().await;
        stream.write_all(b"GET http://a/ HT").await.unwrap();
        held.push(stream);
    }
    let answered = async |wanted: &[u16]| {
        while !wanted.contains(&proxy.get("http://127.0.0.1:1/", "").await.status) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Their places are taken when the server has accepted them, and free again when it has seen them leave.
    answered(&[0, 503]).await;
    proxy.until("it is counted", |y| y.count("refused_limit") >= 1).await;
    held.clear();
    answered(&[502]).await;
}

#[tokio::test]
async fn connect_leads_where_the_operator_said_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut hello = [0; 5];
                stream.read_exact(&mut hello).await.unwrap();
                stream.write_all(&hello).await.unwrap();
            });
        }
    });
    let closed = yard(dir.path(), |_| {});
    let connect = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\nhello");
    let got = closed.ask(&connect).await;
    assert!(got.status == 403 && text(&got).contains("proxy.connect"), "{}", text(&got));
    let open = yard(dir.path(), |c| c.connect = vec![address.to_string().parse().unwrap()]);
    let mut stream = open.connect().await;
    stream.write_all(connect.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 Connection Established\r\n\r\nhello");
    // What the operator lists is still judged by its address.
    let listed = yard(dir.path(), |c| {
        c.connect = vec![address.to_string().parse().unwrap()];
        c.reach.allow.clear();
    });
    assert_eq!(listed.ask(&connect).await.status, 403);
}

#[tokio::test]
async fn a_peer_proxy_is_asked_for_everything() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Origin::start(|_, asked| match asked.starts_with("connect") {
        true => vec![Act::Send(b"HTTP/1.1 200 OK\r\n\r\ntunnel".to_vec()), Act::Close],
        false => ok("etag: \"a\"\r\n", b"from the peer"),
    })
    .await;
    let proxy = yard(dir.path(), |c| c.connect = vec!["deb.invalid:443".parse().unwrap()]);
    let mut plan = crate::proxy_yard::plan();
    plan.settings.proxy.url = Some(format!("http://{}/", peer.address));
    plan.settings.proxy.peer = true;
    proxy.plan.store(plan);
    // A name that only the peer knows.
    let url = "http://deb.invalid:8080/pool/a.deb";
    assert_eq!(proxy.get(url, "").await.body, b"from the peer");
    assert!(peer.seen()[0].starts_with(&format!("get {url} http/1.1\r\n")), "{}", peer.seen()[0]);
    assert!(peer.seen()[0].contains(&format!("host: {}\r\n", authority(url))));
    assert_eq!(proxy.get(url, "").await.how(), "hit");
    let mut stream = proxy.connect().await;
    stream.write_all(b"CONNECT deb.invalid:443 HTTP/1.1\r\nHost: deb.invalid\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 Connection Established\r\n\r\ntunnel");
    // What may not be reached may not be reached through a peer either.
    assert_eq!(proxy.get("http://169.254.169.254/", "").await.status, 403);
}
