//! The syslog service over loopback: lines by UDP and TCP to their machines' files, strangers, floods, and an external server that
//! comes and goes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

use actors::logbook::{self, Limits, Wanted};
use rack::{
    dhcp::Listen,
    leases::LeaseTable,
    plan::PlanHandle,
    service::Serving,
    syslog::{self, Running, SyslogConfig, queue::Lines, send},
};
use schema::{
    logs::KeptLine,
    plan::{BootPurpose, Plan, Reservation, Ticket},
};
use serde_json::json;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);

/// Two machines at 127.77.40.20 (abc234, no orders) and 127.77.40.21 (def567); who else comes from there is a stranger.
fn plan(remote: Option<SocketAddr>) -> PlanHandle {
    let mut plan: Plan =
        serde_json::from_value(json!({"subnets": [{"id": 1, "cidr": "127.77.40.0/24"}, {"id": 2, "cidr": "127.77.41.0/24", "strangers": "local"}]}))
            .unwrap();
    plan.settings.remote_syslog = remote;
    for (n, machine) in ["abc234", "def567"].into_iter().enumerate() {
        let mac = schema::net::MacAddr([0x52, 0x54, 0, 0x77, 0, n as u8]);
        plan.reservations.push(Reservation {
            subnet: plan.subnets[0].id,
            mac,
            ip: format!("127.77.40.{}", 20 + n).parse().unwrap(),
            hostname: None,
        });
        plan.tickets.push(Ticket {
            machine: machine.parse().unwrap(),
            attempt: schema::id::AttemptId(0),
            purpose: BootPurpose::Local,
            macs: vec![mac],
            hostname: format!("host{n}"),
            domain: "lab".into(),
            arch: "amd64".into(),
            expires: schema::time::Timestamp(i64::MAX),
            boot: None,
        });
    }
    PlanHandle::new(plan)
}

struct Yard {
    running: Running,
    keeping: JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Yard {
    fn start(plan: PlanHandle, rate: u32, room: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = Listen::At(vec!["127.77.40.1:0".parse().unwrap()]);
        let (config, lines) = (SyslogConfig { listen, rate, room, ..SyslogConfig::default() }, Lines::new(room));
        let running = syslog::start(config, plan, LeaseTable::default(), lines.clone()).unwrap();
        let keeping = tokio::spawn(send::to_files(lines.region, dir.path().join("logs"), Limits::default()));
        Self { running, keeping, dir }
    }

    fn at(&self) -> SocketAddr {
        self.running.addresses()[0]
    }

    fn kept(&self, name: &str) -> Vec<KeptLine> {
        logbook::read(&self.dir.path().join("logs"), name, Wanted::default()).unwrap().0
    }

    fn counted(&self, what: &str) -> u64 {
        self.running.meter().counters().into_iter().find(|(name, _)| name == what).unwrap().1
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let waited = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "{what} did not come");
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

fn udp(from: &str, to: SocketAddr, line: &str) {
    UdpSocket::bind((from, 0)).unwrap().send_to(line.as_bytes(), to).unwrap();
}

fn tcp(from: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_to_their_machines_and_strangers_are_refused() {
    let yard = Yard::start(plan(None), 0, 1 << 20);
    udp("127.77.40.20", yard.at(), "<86>Nov 25 09:00:00 fox sshd[812]: a login");
    udp("127.77.40.99", yard.at(), "<13>x: nobody's");
    udp("127.77.41.50", yard.at(), "<13>x: a stranger who may");
    let mut stream = tcp("127.77.40.21", yard.at());
    stream.write_all(b"29 <13>1 - - app 7 - - counted\xc3\xa4<13>tag: ended by a line feed\n<13>tag: no end").unwrap();
    drop(stream);
    yard.until("four lines", |y| {
        y.kept("abc234").len() == 1 && y.kept("def567").len() == 3 && y.kept("127.77.41.50").len() == 1
    })
    .await;
    let login = &yard.kept("abc234")[0];
    assert_eq!((login.host.as_str(), login.app.as_str(), login.procid.as_str()), ("host0", "sshd", "812"));
    assert_eq!((login.facility, login.severity, login.attempt), (10, 6, None));
    let texts: Vec<_> = yard.kept("def567").into_iter().map(|l| l.text).collect();
    assert_eq!(texts, ["countedä", "ended by a line feed", "no end"]);
    yard.until("the refusal", |y| y.counted("refused") == 1).await;
    assert!(yard.kept("127.77.40.99").is_empty());
    assert!(yard.running.meter().last_error().unwrap().why.contains("127.77.40.99"));
    // A stranger's connection is closed before it is read.
    let mut stream = tcp("127.77.40.99", yard.at());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
    yard.until("the refusal", |y| y.counted("refused") == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_loses_its_own_lines_only_and_its_log_says_how_many() {
    let yard = Yard::start(plan(None), 100, 1 << 20);
    let mut flood = tcp("127.77.40.20", yard.at());
    let line = b"<13>flood: all work and no play makes Jack a dull boy\n";
    flood.write_all(&line.repeat(20_000)).unwrap();
    udp("127.77.40.21", yard.at(), "<13>calm: here I am");
    yard.until("the calm one", |y| y.kept("def567").len() == 1).await;
    yard.until("all of the flood", |y| y.counted("lines") + y.counted("lost") == 20_001).await;
    let told = |y: &Yard| {
        let lines = y.kept("abc234");
        let lost = lines
            .iter()
            .filter_map(|l| l.text.split_once(" line").filter(|_| l.app == "hostler")?.0.parse::<u64>().ok());
        let lost: u64 = lost.sum();
        lost + lines.iter().filter(|l| l.app == "flood").count() as u64
    };
    yard.until("every line, kept or said to be lost", |y| told(y) == 20_000).await;
    assert!(yard.counted("lost") > 10_000, "{}", yard.counted("lost"));
}

/// A server that takes octet-counted lines.
fn remote(listener: &TcpListener) -> impl FnMut() -> String + use<> {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    move || {
        let mut count = String::new();
        loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            if byte[0] == b' ' {
                break;
            }
            count.push(char::from(byte[0]));
        }
        let mut line = vec![0; count.parse().unwrap()];
        stream.read_exact(&mut line).unwrap();
        String::from_utf8(line).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_server_gets_every_line_and_what_it_missed_when_it_is_back() {
    let listener = TcpListener::bind("127.77.40.200:0").unwrap();
    let address = listener.local_addr().unwrap();
    let yard = Yard::start(plan(Some(address)), 0, 1 << 20);
    udp("127.77.40.20", yard.at(), "<86>Nov 25 09:00:00 fox sshd[812]: one");
    let mut next = tokio::task::spawn_blocking(move || {
        let next = remote(&listener);
        (next, listener)
    })
    .await
    .unwrap();
    let line = (next.0)();
    assert!(line.starts_with("<86>1 ") && line.contains(" host0 sshd 812 - ") && line.ends_with(" one"), "{line}");
    drop(next);
    // It is away, and lines go on to come.
    yard.until("the complaint", |y| y.counted("remote") > 0).await;
    udp("127.77.40.21", yard.at(), "<13>x: two");
    yard.until("the line in its file", |y| y.kept("def567").len() == 1).await;
    let listener = TcpListener::bind(address).unwrap();
    let line = tokio::task::spawn_blocking(move || remote(&listener)()).await.unwrap();
    assert!(line.ends_with(" two"), "{line}");
    assert!(yard.running.meter().last_error().unwrap().remedy.contains("remote_syslog"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_held_is_named() {
    let holder = UdpSocket::bind("127.77.40.3:0").unwrap();
    let listen = Listen::At(vec![holder.local_addr().unwrap().to_string().parse().unwrap()]);
    let config = SyslogConfig { listen, ..SyslogConfig::default() };
    let error = syslog::start(config, plan(None), LeaseTable::default(), Lines::new(1_000)).unwrap_err().to_string();
    assert!(error.contains("127.77.40.3") && error.contains("syslog.listen"), "{error}");
}

pub(crate) fn for_peers(dir: &Path, listen: &str, remote: Option<SocketAddr>) -> (Running, JoinHandle<()>) {
    let listen = Listen::At(vec![listen.parse().unwrap()]);
    let (config, lines) = (SyslogConfig { listen, ..SyslogConfig::default() }, Lines::new(1 << 20));
    let running = syslog::start(config, plan(remote), LeaseTable::default(), lines.clone()).unwrap();
    let keeping = tokio::spawn(send::to_files(lines.region, dir.join("logs"), Limits::default()));
    (running, keeping)
}
