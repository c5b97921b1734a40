//! The package proxy against a scripted server: what is kept and for how long, who shares a fetch, and what a broken server leads to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{io::AsyncWriteExt, sync::Semaphore};

use crate::proxy_yard::{Act, Origin, head, ok, pattern, read, yard};

const DEB: &str = "/pool/main/h/hello/hello_1_amd64.deb";

#[tokio::test]
async fn what_was_fetched_once_is_served_from_the_cache_also_after_a_restart() {
    let (dir, body) = (tempfile::tempdir().unwrap(), pattern(300_000));
    let served = body.clone();
    let origin =
        Origin::start(move |_, _| ok("etag: \"a\"\r\nx-own: 1\r\nconnection: x-hop\r\nx-hop: 1\r\n", &served)).await;
    let url = origin.url(DEB);
    let proxy = yard(dir.path(), |_| {});
    let first = proxy.get(&url, "Accept: x\r\nProxy-Connection: keep-alive\r\n").await;
    assert_eq!((first.status, first.how(), first.whole), (200, "fwd=uri-miss; stored", true), "{}", first.head);
    assert_eq!(first.body, body);
    assert!(first.field("x-hop").is_none() && first.field("x-own") == Some("1") && first.field("via").is_some());
    let upstream = &origin.seen()[0];
    assert!(
        upstream.starts_with(&format!("get {DEB} http/1.1\r\n")) && upstream.contains("via: 1.1 hostler-"),
        "{upstream}"
    );
    assert!(upstream.contains(&format!("host: {}\r\n", origin.address)) && !upstream.contains("proxy-"), "{upstream}");
    let hit = proxy.get(&url, "").await;
    assert_eq!((hit.how(), &hit.body), ("hit", &body));
    assert!(hit.field("age").is_some());
    let head = proxy.ask(&format!("HEAD {url} HTTP/1.0\r\n\r\n")).await;
    assert_eq!(
        (head.how(), head.field("content-length"), head.field("connection")),
        ("hit", Some("300000"), Some("close"))
    );
    assert_eq!((proxy.count("hit"), proxy.count("miss"), proxy.count("bytes_from_cache")), (2, 1, 300_000));
    proxy.proxy.stop().await;
    let proxy = yard(dir.path(), |_| {});
    proxy.until("the cache is found", |y| y.proxy.census().0 == 1).await;
    let hit = proxy.get(&url, "").await;
    assert_eq!((hit.how(), &hit.body), ("hit", &body));
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn parts_are_served_from_the_cache_and_from_what_is_coming() {
    let (dir, body) = (tempfile::tempdir().unwrap(), pattern(200_000));
    let served = body.clone();
    let origin = Origin::start(move |_, _| ok("etag: \"a\"\r\n", &served)).await;
    let proxy = yard(dir.path(), |_| {});
    let url = origin.url(DEB);
    // The first one is cold: the whole object is fetched for it.
    for (fields, status, range) in [
        ("Range: bytes=150000-\r\nIf-Range: \"a\"\r\n", 206, 150_000..200_000),
        ("Range: bytes=0-9\r\n", 206, 0..10),
        ("Range: bytes=-5\r\n", 206, 199_995..200_000),
        ("Range: bytes=100-120000\r\n", 206, 100..120_001),
        ("Range: bytes=0-9\r\nIf-Range: \"b\"\r\n", 200, 0..200_000),
        ("Range: bytes=200000-\r\n", 416, 0..0),
        ("If-None-Match: \"a\"\r\n", 304, 0..0),
    ] {
        let got = proxy.get(&url, fields).await;
        assert_eq!((got.status, got.whole), (status, true), "{fields}{}", got.head);
        assert_eq!(got.body, body[range.clone()], "{fields}");
        if status == 206 {
            let field = format!("bytes {}-{}/200000", range.start, range.end - 1);
            assert_eq!(got.field("content-range"), Some(field.as_str()));
        }
    }
    assert_eq!(origin.seen().len(), 1);
    assert!(!origin.seen()[0].contains("range"), "the whole object was asked for");
}

#[tokio::test]
async fn many_clients_of_a_cold_object_share_one_fetch_and_read_along() {
    const CLIENTS: usize = 20;
    let (dir, body) = (tempfile::tempdir().unwrap(), pattern(1_000_000));
    let gate = Arc::new(Semaphore::new(0));
    let (served, wait) = (body.clone(), Arc::clone(&gate));
    let origin = Origin::start(move |_, _| {
        let halves = (served[..400_000].to_vec(), served[400_000..].to_vec());
        vec![
            Act::Send(head(200, "etag: \"a\"\r\n", 1_000_000)),
            Act::Send(halves.0),
            Act::Wait(Arc::clone(&wait)),
            Act::Send(halves.1),
        ]
    })
    .await;
    let proxy = Arc::new(yard(dir.path(), |_| {}));
    let url = origin.url(DEB);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (proxy, url) = (Arc::clone(&proxy), url.clone());
            tokio::spawn(async move { proxy.get(&url, "").await })
        })
        .collect();
    // All have a head, and with it half of the body, while the server still holds the rest.
    proxy.until("all read along", |y| y.count("miss") + y.count("shared") == CLIENTS as u64).await;
    gate.add_permits(1);
    for client in clients {
        let got = client.await.unwrap();
        assert!(got.whole && got.body == body, "{}", got.head);
    }
    assert_eq!((origin.seen().len(), proxy.count("miss")), (1, 1));
    assert_eq!(proxy.count("bytes_from_upstream"), 1_000_000);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_continued_with_its_validator() {
    let (dir, body) = (tempfile::tempdir().unwrap(), pattern(300_000));
    let served = body.clone();
    // The first connection is cut at 100,000; the second answers 503; the third cuts again; the fourth ignores the range but has the same body.
    let origin = Origin::start(move |n, _| match n {
        0 => vec![Act::Send(head(200, "etag: \"a\"\r\n", 300_000)), Act::Send(served[..100_000].to_vec()), Act::Close],
        1 => vec![Act::Send(head(503, "", 0))],
        2 => {
            let fields = "etag: \"a\"\r\ncontent-range: bytes 100000-299999/300000\r\n";
            vec![Act::Send(head(206, fields, 200_000)), Act::Send(served[100_000..150_000].to_vec()), Act::Close]
        }
        _ => ok("etag: \"a\"\r\n", &served),
    })
    .await;
    let proxy = yard(dir.path(), |_| {});
    let got = proxy.get(&origin.url(DEB), "").await;
    assert!(got.whole && got.body == body, "{}", got.head);
    let seen = origin.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen[1].contains("range: bytes=100000-\r\n") && seen[1].contains("if-range: \"a\"\r\n"), "{}", seen[1]);
    assert!(seen[3].contains("range: bytes=150000-\r\n"), "{}", seen[3]);
    assert_eq!(proxy.get(&origin.url(DEB), "").await.how(), "hit");
    assert_eq!(proxy.count("resumed"), 2);
}

/// What cannot become whole is never served as whole, and never kept.
#[tokio::test]
async fn a_body_that_changed_lies_or_ends_early_is_neither_whole_nor_kept() {
    type Script = fn(usize) -> Vec<Act>;
    let table: [(&str, Script); 5] = [
        ("another version by then", |n| match n {
            0 => vec![Act::Send(head(200, "etag: \"a\"\r\n", 50_000)), Act::Send(vec![1; 20_000]), Act::Close],
            _ => ok("etag: \"b\"\r\n", &[2; 50_000]),
        }),
        ("another part than asked for", |n| match n {
            0 => vec![Act::Send(head(200, "etag: \"a\"\r\n", 50_000)), Act::Send(vec![1; 20_000]), Act::Close],
            _ => vec![
                Act::Send(head(206, "etag: \"a\"\r\ncontent-range: bytes 0-29999/50000\r\n", 30_000)),
                Act::Send(vec![1; 30_000]),
            ],
        }),
        ("no strong validator", |_| {
            vec![Act::Send(head(200, "etag: W/\"a\"\r\n", 50_000)), Act::Send(vec![1; 20_000]), Act::Close]
        }),
        ("chunks without an end", |_| {
            let head = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\netag: \"a\"\r\n\r\n5\r\nabcde\r\n".to_vec();
            vec![Act::Send(head), Act::Close]
        }),
        ("chunks that are none", |_| {
            let head = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\netag: \"a\"\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n"
                .to_vec();
            vec![Act::Send(head)]
        }),
    ];
    for (what, script) in table {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start(move |n, _| script(n)).await;
        let proxy = yard(dir.path(), |_| {});
        let got = proxy.get(&origin.url(DEB), "").await;
        assert!(got.status == 502 || !got.whole, "{what}: {} and {} bytes", got.head, got.body.len());
        proxy.until("the draft is gone", |y| y.proxy.census().1 == 0).await;
        assert_eq!(proxy.proxy.census().0, 0, "{what}");
    }
}

#[tokio::test]
async fn answers_with_two_meanings_are_refused() {
    for answer in [
        "HTTP/1.1 200 X\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "HTTP/1.1 200 X\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        "HTTP/1.1 200 X\r\ncontent-length: -5\r\n\r\nabcde",
        "HTTP/1.1 200 X\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "HTTP/1.1 200 X\r\netag: \"a\"\r\n folded\r\ncontent-length: 5\r\n\r\nabcde",
        "HTTP/1.1 101 X\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start(move |_, _| vec![Act::Send(answer.as_bytes().to_vec()), Act::Close]).await;
        let proxy = yard(dir.path(), |_| {});
        let got = proxy.get(&origin.url(DEB), "").await;
        assert_eq!((got.status, proxy.proxy.census().0), (502, 0), "{answer}: {}", got.head);
        assert!(String::from_utf8_lossy(&got.body).contains("server"), "{:?}", String::from_utf8_lossy(&got.body));
    }
    // More bytes than announced are nobody's: they are no answer to the next request.
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start(|n, _| match n {
        0 => vec![
            Act::Send(head(200, "etag: \"a\"\r\n", 5)),
            Act::Send(b"abcdeHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil".to_vec()),
        ],
        _ => ok("etag: \"b\"\r\n", b"good"),
    })
    .await;
    let proxy = yard(dir.path(), |_| {});
    assert_eq!(proxy.get(&origin.url("/pool/a.deb"), "").await.body, b"abcde");
    assert_eq!(proxy.get(&origin.url("/pool/b.deb"), "").await.body, b"good");
}

#[tokio::test]
async fn a_body_without_a_length_is_passed_on_and_kept_when_it_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_, _| {
        let text = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\netag: \"a\"\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
        vec![Act::Send(text.as_bytes().to_vec())]
    })
    .await;
    let proxy = yard(dir.path(), |c| c.max_object = 20);
    let url = origin.url(DEB);
    let got = proxy.get(&url, "").await;
    assert_eq!((got.how(), got.whole, got.body.as_slice()), ("fwd=bypass", true, b"hello world".as_slice()));
    proxy.until("it is kept", |y| y.proxy.census().0 == 1).await;
    let hit = proxy.get(&url, "").await;
    assert_eq!(
        (hit.how(), hit.field("content-length"), hit.body.as_slice()),
        ("hit", Some("11"), b"hello world".as_slice())
    );
    // An older client knows no chunks, and what is larger than the bound is not kept.
    let long = Origin::start(|_, _| {
        let head = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\netag: \"a\"\r\n\r\n1e\r\n012345678901234567890123456789\r\n0\r\n\r\n";
        vec![Act::Send(head.to_vec())]
    })
    .await;
    let got = proxy.ask(&format!("GET {} HTTP/1.0\r\n\r\n", long.url(DEB))).await;
    assert_eq!((got.field("transfer-encoding"), got.field("connection"), got.body.len()), (None, Some("close"), 30));
    let whole = Origin::start(|_, _| ok("etag: \"a\"\r\n", &[7; 21])).await;
    assert_eq!(proxy.get(&whole.url(DEB), "").await.how(), "fwd=bypass");
    assert_eq!(proxy.proxy.census().0, 1);
    // Without length and chunks nobody knows whether it was all.
    let closing =
        Origin::start(|_, _| vec![Act::Send(b"HTTP/1.0 200 X\r\netag: \"a\"\r\n\r\nall?".to_vec()), Act::Close]).await;
    assert_eq!(proxy.get(&closing.url(DEB), "").await.body, b"all?");
    assert_eq!(proxy.proxy.census().0, 1);
}

#[tokio::test]
async fn indexes_are_confirmed_each_time_and_stand_in_for_a_server_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let version = Arc::new(AtomicUsize::new(1));
    let current = Arc::clone(&version);
    let origin = Origin::start(move |_, head| {
        let version = current.load(Ordering::SeqCst);
        let etag = format!("etag: \"{version}\"\r\ncache-control: max-age=600\r\n");
        match version {
            0 => vec![Act::Send(crate::proxy_yard::head(500, "", 0))],
            _ if head.contains(&format!("if-none-match: \"{version}\"")) => {
                vec![Act::Send(format!("HTTP/1.1 304 X\r\n{etag}x-new: 1\r\n\r\n").into_bytes())]
            }
            _ => ok(&etag, format!("version {version}").as_bytes()),
        }
    })
    .await;
    let proxy = yard(dir.path(), |_| {});
    let url = origin.url("/debian/dists/x/InRelease");
    assert_eq!(proxy.get(&url, "").await.body, b"version 1");
    for _ in 0..2 {
        let again = proxy.get(&url, "Cache-Control: max-age=0\r\n").await;
        assert_eq!((again.how(), again.body.as_slice()), ("fwd=stale; fwd-status=304", b"version 1".as_slice()));
        assert_eq!(again.field("x-new"), Some("1"));
    }
    version.store(2, Ordering::SeqCst);
    assert_eq!(proxy.get(&url, "").await.body, b"version 2");
    version.store(0, Ordering::SeqCst);
    let stale = proxy.get(&url, "").await;
    assert_eq!(
        (stale.status, stale.how(), stale.body.as_slice()),
        (200, "hit; detail=stale-if-error", b"version 2".as_slice())
    );
    assert_eq!((proxy.count("revalidated"), proxy.count("stale"), proxy.proxy.census().0), (2, 1, 1));
    // What is not kept has nothing to stand in.
    assert_eq!(proxy.get(&origin.url("/dists/x/Release"), "").await.status, 500);
    let gone = proxy.get("http://127.0.0.1:1/x", "").await;
    assert_eq!(gone.status, 502, "{}", gone.head);
}

#[tokio::test]
async fn what_is_private_is_not_kept_and_vary_keeps_answers_apart() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start(|n, head| {
        let fields = match head.split(' ').nth(1).unwrap() {
            "/cookie" => "set-cookie: a=b\r\ncache-control: max-age=60, public\r\n",
            "/private" => "cache-control: private, max-age=60\r\n",
            "/vary" => "vary: accept-encoding\r\ncache-control: max-age=60\r\n",
            _ => "cache-control: max-age=60\r\n",
        };
        ok(fields, n.to_string().as_bytes())
    })
    .await;
    let proxy = yard(dir.path(), |_| {});
    for (path, fields) in
        [("/cookie", ""), ("/private", ""), ("/open", "Authorization: Basic eA==\r\n"), ("/open", "Cookie: a=b\r\n")]
    {
        let (one, two) = (proxy.get(&origin.url(path), fields).await, proxy.get(&origin.url(path), fields).await);
        assert!(one.body != two.body && one.how() == "fwd=bypass", "{path}");
    }
    assert_eq!(proxy.proxy.census().0, 0);
    assert!(origin.seen().iter().any(|head| head.contains("authorization: basic ea==")), "it is passed on");
    let url = origin.url("/vary");
    let gzip = proxy.get(&url, "Accept-Encoding: gzip\r\n").await.body;
    let plain = proxy.get(&url, "").await.body;
    assert_ne!(gzip, plain);
    assert_eq!(proxy.get(&url, "Accept-Encoding: gzip\r\n").await.body, gzip);
    assert_eq!(proxy.get(&url, "").await.body, plain);
    assert_eq!(proxy.proxy.census().0, 2);
    // A client that wants it anew gets it anew.
    let open = origin.url("/open");
    let kept = proxy.get(&open, "").await.body;
    assert_eq!(proxy.get(&open, "").await.body, kept);
    assert_ne!(proxy.get(&open, "Cache-Control: no-cache\r\n").await.body, kept);
}

#[tokio::test]
async fn the_cache_stays_within_its_bound_and_an_abandoned_fetch_ends() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let wait = Arc::clone(&gate);
    let origin = Origin::start(move |_, asked| {
        if asked.contains("/large") {
            let start = vec![Act::Send(head(200, "etag: \"a\"\r\n", 40 << 20)), Act::Send(vec![1; 100_000])];
            return [
                start,
                vec![Act::Wait(Arc::clone(&wait)), Act::Send(vec![1; 1 << 20]), Act::Wait(Arc::clone(&wait))],
            ]
            .concat();
        }
        ok("etag: \"a\"\r\n", &[1; 10_000])
    })
    .await;
    let proxy = yard(dir.path(), |c| c.cache = 50 << 20);
    let small = yard(&dir.path().join("small"), |c| c.cache = 100_000);
    for n in 0..30 {
        assert_eq!(small.get(&origin.url(&format!("/pool/{n}.deb")), "").await.body.len(), 10_000);
    }
    let (answers, bytes, evicted) = small.proxy.census();
    assert!(bytes <= 100_000 && answers as u64 + evicted == 30, "{answers} {bytes} {evicted}");
    assert_eq!(small.get(&origin.url("/pool/29.deb"), "").await.how(), "hit");
    assert_eq!(small.get(&origin.url("/pool/0.deb"), "").await.how(), "fwd=uri-miss; stored");
    // A client leaves while far more is to come than it is worth to go on for.
    let url = origin.url("/pool/large.deb");
    let mut stream = proxy.connect().await;
    stream.write_all(format!("GET {url} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.address).as_bytes()).await.unwrap();
    proxy.until("it comes", |y| y.count("bytes_from_upstream") >= 100_000).await;
    assert_eq!(proxy.proxy.census().1, 40 << 20, "its room is promised");
    drop(stream);
    gate.add_permits(1);
    proxy.until("the fetch ends", |y| y.proxy.census().1 == 0).await;
    assert_eq!(proxy.count("aborted"), 1);
}

#[tokio::test]
async fn requests_in_one_connection_are_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start(|_, head| ok("etag: \"a\"\r\n", head.split(' ').nth(1).unwrap().as_bytes())).await;
    let proxy = yard(dir.path(), |_| {});
    let mut stream = proxy.connect().await;
    let one = |path: &str| format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", origin.url(path), origin.address);
    let all = ["/a", "/b", "/a", "/none/../c"].map(one).concat();
    // Pipelined, and in pieces that end anywhere.
    for piece in all.as_bytes().chunks(11) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    for body in ["/a", "/b", "/a", "/c"] {
        assert_eq!(read(&mut stream, false).await.body, body.as_bytes());
    }
}
