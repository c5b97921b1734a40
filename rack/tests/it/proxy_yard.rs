//! A proxy with a scripted server behind it: what the proxy's tests share.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use rack::{
    plan::PlanHandle,
    proxy::{self, ProxyConfig, ProxyHandles, Running, Whereabouts},
    service::Serving,
};
use schema::plan::Plan;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};

/// What the server does next on a connection.
#[derive(Clone)]
pub(crate) enum Act {
    Send(Vec<u8>),
    /// Waits for a permit of the test's.
    Wait(Arc<Semaphore>),
    Close,
}

/// A server that answers as a script says.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    /// `script` gets the number of the request (from 0) and its head in lower case.
    pub(crate) async fn start(script: impl Fn(usize, &str) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, script) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(script));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                tokio::spawn(async move { serve(stream, &log, &*script).await });
            }
        });
        Self { address, seen }
    }

    /// The heads of all requests so far, in lower case.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<String>>,
    script: &(dyn Fn(usize, &str) -> Vec<Act> + Send + Sync),
) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let number = {
            let mut log = log.lock().unwrap();
            log.push(head.clone());
            log.len() - 1
        };
        for act in script(number, &head) {
            match act {
                Act::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Act::Wait(gate) => gate.acquire().await.unwrap().forget(),
                Act::Close => return,
            }
        }
    }
}

/// A whole answer with a length.
pub(crate) fn ok(fields: &str, body: &[u8]) -> Vec<Act> {
    vec![Act::Send(head(200, fields, body.len())), Act::Send(body.to_vec())]
}

pub(crate) fn head(status: u16, fields: &str, len: usize) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-length: {len}\r\n{fields}\r\n").into_bytes()
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub(crate) struct Yard {
    pub(crate) proxy: Running,
    pub(crate) plan: PlanHandle,
}

/// A plan in which loopback is a managed subnet.
pub(crate) fn plan() -> Plan {
    let subnet = serde_json::from_str(r#"{"id": 1, "cidr": "127.0.0.0/8"}"#).unwrap();
    Plan { subnets: vec![subnet], ..Plan::default() }
}

/// A proxy that may reach loopback, with its cache in `dir`.
pub(crate) fn yard(dir: &Path, change: impl FnOnce(&mut ProxyConfig)) -> Yard {
    let mut config = ProxyConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ProxyConfig::default() };
    config.reach.ports = vec!["1-65535".parse().unwrap()];
    config.reach.allow = vec!["127.0.0.0/8".parse().unwrap()];
    change(&mut config);
    let plan = PlanHandle::new(plan());
    let known = Whereabouts::default();
    let handles = ProxyHandles { state: dir.into(), regions: Vec::new(), plan: plan.clone(), known };
    let proxy = proxy::start(config, handles).unwrap();
    Yard { proxy, plan }
}

/// What a client got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The body came to the end that its head announced.
    pub(crate) whole: bool,
}

impl Got {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// "hit", "fwd=uri-miss; stored", …
    pub(crate) fn how(&self) -> &str {
        self.field("cache-status").and_then(|s| s.strip_prefix("hostler; ")).unwrap_or("")
    }
}

impl Yard {
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.proxy.meter().counters().into_iter().find(|(n, _)| n == name).unwrap().1
    }

    /// GET with HTTP/1.1 and these further fields (each ends with CR LF).
    pub(crate) async fn get(&self, url: &str, fields: &str) -> Got {
        self.ask(&format!("GET {url} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", authority(url))).await
    }

    pub(crate) async fn ask(&self, request: &str) -> Got {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read(&mut stream, request.starts_with("HEAD")).await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.connect(self.proxy.address()).await.unwrap()
    }

    /// Waits for a condition that the proxy reaches by itself.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .unwrap_or_else(|_| panic!("{what} did not come about"));
    }
}

pub(crate) fn authority(url: &str) -> &str {
    url.strip_prefix("http://").unwrap().split('/').next().unwrap()
}

/// Reads one answer.
pub(crate) async fn read(stream: &mut TcpStream, bare: bool) -> Got {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return Got::default(),
            }
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut got = Got { status, head, body: Vec::new(), whole: true };
        if bare || status == 304 || status == 204 {
            return got;
        }
        if let Some(len) = got.field("content-length").map(|n| n.parse::<u64>().unwrap()) {
            stream.take(len).read_to_end(&mut got.body).await.ok();
            got.whole = got.body.len() as u64 == len;
        } else if got.field("transfer-encoding") == Some("chunked") {
            got.whole = chunks(stream, &mut got.body).await.is_ok();
        } else {
            got.whole = stream.read_to_end(&mut got.body).await.is_ok();
        }
        got
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("an answer")
}

async fn chunks(stream: &mut TcpStream, body: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await?);
        }
        let len = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = vec![0; len + 2];
        stream.read_exact(&mut chunk).await?;
        body.extend_from_slice(&chunk[..len]);
        if len == 0 {
            return Ok(());
        }
    }
}
