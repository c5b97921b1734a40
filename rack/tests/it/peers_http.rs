//! curl against the HTTP server: ranges, HEAD, validators, keep-alive across files and metadata, what is not here yet.

use std::{path::Path, process::Stdio, time::Duration};

use rack::http::{self, HttpConfig, HttpState, Running};
use schema::messages::report::{Fact, FileKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    process::Command,
};

use crate::boot_yard::{Yard, pattern};

fn serve(yard: &Yard) -> Running {
    let config = HttpConfig { listen: "127.77.9.1:0".parse().unwrap(), ..HttpConfig::default() };
    let desk = &yard.desk;
    let state = HttpState {
        plan: desk.plan.clone(),
        leases: desk.leases.clone(),
        bodies: desk.bodies.clone(),
        reporter: desk.reporter.clone(),
        metadata: http::metadata::Memory::default(),
        proxy: rack::proxy::Whereabouts::default(),
    };
    http::start(config, state).unwrap()
}

async fn curl(args: &[&str], dir: &Path) -> String {
    let mut command = Command::new("curl");
    command.args(["-sS", "--interface", "127.77.9.11"]).args(args).current_dir(dir).stdin(Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(30), command.kill_on_drop(true).output()).await;
    let output = output.expect("curl ended").expect("curl is here; apt-get install curl");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_machine_fetches_its_config_kernel_and_squashfs() {
    let kernel = pattern(5_000_000);
    let mut yard = Yard::new(&kernel, 5_248);
    let server = serve(&yard);
    let (base, dir) = (format!("http://{}", server.address()), yard.dir.path().to_owned());
    let script = curl(&[&format!("{base}/ipxe.cfg")], &dir).await;
    let url = script.lines().find_map(|l| l.strip_prefix("kernel ")).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(url, format!("{base}/images/{}/boot-kernel", yard.image().kernel.sha256));
    curl(&["-o", "out", &url], &dir).await;
    assert_eq!(std::fs::read(dir.join("out")).unwrap(), kernel);
    let fact = yard.wait_for("fetched", |f| matches!(f, Fact::FileFetched { kind: FileKind::Kernel, .. })).await;
    assert!(matches!(fact, Fact::FileFetched { bytes: 5_000_000, ref service, .. } if service == "http"));
    // HTTP/1.0 closes after each answer, and the last byte is seen all the same.
    curl(&["-0", "-o", "out", &url], &dir).await;
    yard.wait_for("fetched", |f| matches!(f, Fact::FileFetched { kind: FileKind::Kernel, .. })).await;
    server.stop().await;
}

#[tokio::test]
async fn ranges_heads_and_validators() {
    let kernel = pattern(100_000);
    let mut yard = Yard::new(&kernel, 5_248);
    let server = serve(&yard);
    let (hash, dir) = (yard.image().kernel.sha256, yard.dir.path().to_owned());
    let url = format!("http://{}/images/{hash}/boot-kernel", server.address());
    for (range, expected) in [
        ("0-9", &kernel[..10]),
        ("99990-", &kernel[99_990..]),
        ("-5", &kernel[99_995..]),
        ("40000-99999", &kernel[40_000..]),
    ] {
        let head = curl(&["-D", "-", "-o", "out", "-r", range, &url], &dir).await;
        assert!(head.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{head}");
        assert_eq!(std::fs::read(dir.join("out")).unwrap(), expected, "{range}");
    }
    let head = curl(&["-D", "-", "-o", "out", "-r", "100000-", &url], &dir).await;
    assert!(head.contains("416 Range") && head.contains("content-range: bytes */100000"), "{head}");
    let etag = format!("If-None-Match: \"{hash}\"");
    let head = curl(&["-D", "-", "-H", &etag, &url], &dir).await;
    assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{head}");
    let head = curl(&["-I", &format!("http://{}/bootx64.efi", server.address())], &dir).await;
    assert!(head.contains("content-type: application/efi") && head.contains("content-length: 4404"), "{head}");
    // Only what held the last byte is a file fetched.
    let fetched = yard.facts().iter().filter(|f| matches!(f, Fact::FileFetched { .. })).count();
    assert_eq!(fetched, 3);
}

#[tokio::test]
async fn what_is_not_named_is_not_found_and_what_is_not_here_is_unavailable() {
    let mut yard = Yard::new(b"kernel", 5_248);
    let server = serve(&yard);
    let (base, dir) = (format!("http://{}", server.address()), yard.dir.path().to_owned());
    let user_data = yard.plan.tickets[0].boot.as_ref().unwrap().user_data.sha256;
    for path in [
        "nothing.efi",
        "pxelinux.cfg/0A4D0050",
        "../etc/passwd",
        "%2e%2e/x",
        &format!("images/{user_data}/boot-kernel"),
    ] {
        let head = curl(&["-D", "-", "-o", "out", "--path-as-is", &format!("{base}/{path}")], &dir).await;
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
    }
    let squashfs = yard.image().squashfs.unwrap();
    std::fs::remove_file(yard.desk.bodies.path(squashfs.sha256).unwrap()).unwrap();
    let url = format!("{base}/images/{}/squashfs", squashfs.sha256);
    for _ in 0..3 {
        let head = curl(&["-D", "-", "-o", "out", &url], &dir).await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 5"), "{head}");
    }
    let missing = yard.facts().iter().filter(|f| matches!(f, Fact::ResourcesMissing { .. })).count();
    assert_eq!(missing, 1, "told once, not per request");
    // A stranger gets no config.
    let url = format!("{base}/ipxe.cfg");
    let stranger = curl(&["--interface", "127.77.9.99", "-o", "out", "-w", "%{http_code}", &url], &dir).await;
    assert_eq!(stranger, "404");
}

async fn connect(server: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.77.9.11:0".parse().unwrap()).unwrap();
    socket.connect(server.address()).await.unwrap()
}

#[tokio::test]
async fn one_connection_asks_files_then_metadata_then_files() {
    let mut yard = Yard::new(&pattern(200_000), 5_248);
    let server = serve(&yard);
    let kernel = format!("/images/{}/boot-kernel", yard.image().kernel.sha256);
    let preseed = "/MAAS/metadata/latest/by-id/abc123/?op=get_preseed";
    let mut stream = connect(&server).await;
    for path in ["/grub/grub.cfg", &kernel, preseed, &kernel, "/grub/command.lst"] {
        // In pieces: a head may take as many segments as it likes.
        let request = format!("GET {path} HTTP/1.1\r\nHost: rack\r\n\r\n");
        for piece in request.as_bytes().chunks(7) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let (head, body) = read_answer(&mut stream).await;
        let expected = if path.ends_with(".lst") { "HTTP/1.1 404" } else { "HTTP/1.1 200" };
        assert!(head.starts_with(expected), "{path}: {head}");
        assert_eq!(body == 200_000, path == kernel, "{path}");
    }
    for _ in 0..2 {
        yard.wait_for("fetched", |f| matches!(f, Fact::FileFetched { kind: FileKind::Kernel, .. })).await;
    }
}

async fn read_answer(stream: &mut TcpStream) -> (String, usize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await.expect("an answer").unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase().replacen("http", "HTTP", 1);
    let len = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    stream.read_exact(&mut vec![0; len]).await.unwrap();
    (head, len)
}

#[tokio::test]
async fn a_machine_that_leaves_early_has_not_fetched() {
    let mut yard = Yard::new(&pattern(60_000_000), 5_248);
    let server = serve(&yard);
    let mut stream = connect(&server).await;
    let request = format!("GET /images/{}/boot-kernel HTTP/1.1\r\n\r\n", yard.image().kernel.sha256);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 10_000]).await.unwrap();
    drop(stream);
    let fact = yard.wait_for("the end", |f| !matches!(f, Fact::FileAsked { .. })).await;
    assert!(matches!(fact, Fact::FileAborted { kind: FileKind::Kernel, .. }), "{fact:?}");
}

#[tokio::test]
async fn nonsense_gets_one_answer_and_stops_nothing() {
    let yard = Yard::new(b"kernel", 5_248);
    let server = serve(&yard);
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"GET /a b c HTTP/9\r\n\r\n",
        b"GET /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
    ]
    .into_iter()
    .chain([&[b'G'; 20_000][..], &[0; 300][..]])
    {
        let mut stream = connect(&server).await;
        stream.write_all(nonsense).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = vec![];
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("an end").ok();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /ipxe.cfg HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(read_answer(&mut stream).await.0.starts_with("HTTP/1.1 200"));
}
