//! Real NTP clients against both servers, and chrony under supervision: chronyd -Q, ntpdig, chronyc. Each in a namespace of its own.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rack::{
    dhcp::Listen,
    ntp::{
        self, NtpConfig, Running, Server,
        chrony::Files,
        packet::{NtpTime, Request, Response},
    },
    plan::PlanHandle,
    service::Serving,
};
use schema::{plan::PlanSubnet, service::Health};

use crate::{
    alone::{inside, run},
    ntp::{plan, plan_of},
};

const ADDRESS: &str = "127.77.0.1";
const PATIENCE: Duration = Duration::from_secs(60);

fn config(state: &Path, server: Server) -> NtpConfig {
    NtpConfig {
        listen: Listen::At(vec![format!("{ADDRESS}:123").parse().unwrap()]),
        server,
        set_clock: false,
        rate: 8,
        state: state.into(),
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waited).await.is_ok(), "{what} did not come");
}

/// chrony as a client: how far it finds this clock from the server's. It looks and sets nothing.
fn chrony_says() -> f64 {
    let dir = tempfile::tempdir().unwrap();
    // As root it would remove whatever file it is told is its own.
    let (source, pid) = (format!("server {ADDRESS} iburst"), format!("pidfile {}/pid", dir.path().display()));
    let said = run("chronyd", &["-Q", "-t", "20", &source, &pid, "cmdport 0", "bindcmdaddress /"]);
    let (_, wrong) = said.split_once("System clock wrong by ").unwrap_or_else(|| panic!("{said}"));
    wrong.split_whitespace().next().unwrap().parse().unwrap()
}

fn asked_by_real_clients() {
    assert!(chrony_says().abs() < 0.5);
    let said = run("ntpdig", &["-j", "-t", "10", ADDRESS]);
    assert!(said.contains("\"offset\":") && said.contains(ADDRESS), "{said}");
}

/// The stratum of an answer.
fn stratum(version: u8) -> Option<u8> {
    let socket = UdpSocket::bind("127.77.0.9:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let request = Request { version, poll: 6, transmit: NtpTime(9) };
    socket.send_to(&request.to_bytes(), SocketAddr::new(ADDRESS.parse().unwrap(), 123)).unwrap();
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).ok()?;
    Some(Response::parse(&buffer[..len])?.clock.stratum)
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_server_is_believed() {
    if !inside("peers_ntp::our_own_server_is_believed", &["chronyd", "ntpdig"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let running = ntp::start(config(dir.path(), Server::Own), plan("127.0.0.0/8")).unwrap();
    assert!(!running.by_chrony());
    tokio::task::spawn_blocking(asked_by_real_clients).await.unwrap();
    // Beside a chrony of the host on the wildcard, the address is still ours; only its own answers are of stratum 9.
    let host = dir.path().join("host.conf");
    let text = format!(
        "port 123\nallow\nlocal stratum 9\ncmdport 0\npidfile {0}/host.pid\nbindcmdaddress /\n",
        dir.path().display()
    );
    std::fs::write(&host, text).unwrap();
    running.stop().await;
    let mut child = Command::new("chronyd").args(["-x", "-d", "-u", "root", "-f"]).arg(&host).spawn().unwrap();
    until("the host's chrony", || stratum(4) == Some(9)).await;
    let running = ntp::start(config(dir.path(), Server::Own), plan("127.0.0.0/8")).unwrap();
    assert_ne!(stratum(4), Some(9), "the address is ours");
    child.kill().unwrap();
    child.wait().unwrap();
    running.stop().await;
}

fn pid(dir: &Path) -> Option<i32> {
    std::fs::read_to_string(Files::below(dir).pid()).ok()?.trim().parse().ok()
}

fn restarts(running: &Running) -> u64 {
    running.meter().counters().into_iter().find(|(name, _)| name == "restarts").unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn chrony_serves_is_watched_started_again_and_given_a_new_plan() {
    let name = "peers_ntp::chrony_serves_is_watched_started_again_and_given_a_new_plan";
    if !inside(name, &["chronyd", "chronyc", "ntpdig"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let plan: PlanHandle = plan("127.0.0.0/8");
    let running = ntp::start(config(dir.path(), Server::Auto), plan.clone()).unwrap();
    assert!(running.by_chrony());
    until("chrony's own word", || !running.addresses().is_empty()).await;
    assert_eq!(running.health(), Health::Running, "{:?}", running.meter().last_error());
    tokio::task::spawn_blocking(asked_by_real_clients).await.unwrap();
    for version in 1..=4 {
        assert_eq!(stratum(version), Some(10));
    }
    // It dies.
    let first = pid(dir.path()).unwrap();
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    until("another chrony", || pid(dir.path()).is_some_and(|now| now != first) && stratum(4) == Some(10)).await;
    assert_eq!(restarts(&running), 1, "{:?}", running.meter().last_error());
    assert!(running.meter().last_error().unwrap().why.contains("chronyd ended"));
    // The plan changes: other sources, which do not answer, and another subnet.
    let mut next = plan_of("127.0.0.0/8", &["127.77.9.9"]);
    let mut subnet: PlanSubnet = next.subnets[0].clone();
    subnet.cidr = "10.99.0.0/24".parse().unwrap();
    next.subnets.push(subnet);
    plan.store(next);
    let files = Files::below(dir.path());
    until("the new configuration", || {
        let text = std::fs::read_to_string(files.config()).unwrap();
        text.contains("server 127.77.9.9 iburst") && text.contains("allow 10.99.0.0/24")
    })
    .await;
    until("the complaint", || {
        running.health() == Health::Degraded
            && running.meter().last_error().is_some_and(|e| e.why.contains("127.77.9.9"))
    })
    .await;
    assert_eq!(restarts(&running), 1, "a new plan is no death");
    // A killed rack leaves it behind; the next rack ends it first.
    running.stop().await;
    let mut left = Command::new("chronyd").args(["-x", "-d", "-u", "root", "-f"]).arg(files.config()).spawn().unwrap();
    until("the one that is left", || pid(dir.path()).is_some()).await;
    let again = ntp::start(config(dir.path(), Server::Chrony), plan.clone()).unwrap();
    until("its end", || left.try_wait().unwrap().is_some()).await;
    until("the next rack's chrony", || !again.addresses().is_empty()).await;
    again.stop().await;
    assert_eq!(stratum(4), None, "it has ended");
}

/// The test below starts itself as a rack, with this for its state directory.
const AS_RACK: &str = "HX_NTP_RACK";

#[tokio::test(flavor = "multi_thread")]
async fn a_rack_that_is_killed_takes_its_chrony_with_it() {
    let name = "peers_ntp::a_rack_that_is_killed_takes_its_chrony_with_it";
    if let Some(state) = std::env::var_os(AS_RACK) {
        let running = ntp::start(config(Path::new(&state), Server::Chrony), plan("127.0.0.0/8")).unwrap();
        until("chrony's own word", || !running.addresses().is_empty()).await;
        // Threads that the runtime has no use for come and go meanwhile; only the rack's own end counts.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        return std::future::pending().await;
    }
    if !inside(name, &["chronyd", "chronyc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut rack = Command::new(std::env::current_exe().unwrap());
    rack.args([name, "--exact", "--nocapture"]).env(AS_RACK, dir.path());
    let mut rack = rack.spawn().unwrap();
    until("chrony's answer", || stratum(4) == Some(10)).await;
    let chronyd = pid(dir.path()).unwrap();
    assert!(rack.try_wait().unwrap().is_none(), "the rack lives, and so does {chronyd}");
    kill(Pid::from_raw(i32::try_from(rack.id()).unwrap()), Signal::SIGKILL).unwrap();
    rack.wait().unwrap();
    until("chrony's end", || kill(Pid::from_raw(chronyd), None).is_err()).await;
    assert_eq!(stratum(4), None, "nobody serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rights_or_with_many_subnets_the_wildcard_is_bound_and_strangers_are_not_answered() {
    let name = "peers_ntp::without_rights_or_with_many_subnets_the_wildcard_is_bound_and_strangers_are_not_answered";
    if !inside(name, &["chronyd", "chronyc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let listen = Listen::At(vec!["127.77.0.1:123".parse().unwrap(), "127.78.0.1:123".parse().unwrap()]);
    let running =
        ntp::start(NtpConfig { listen, ..config(dir.path(), Server::Chrony) }, plan("127.77.0.0/16")).unwrap();
    until("chrony's own word", || !running.addresses().is_empty()).await;
    assert_eq!((running.addresses().len(), stratum(4)), (2, Some(10)));
    let stranger = UdpSocket::bind("127.78.0.9:0").unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let request = Request { version: 4, poll: 6, transmit: NtpTime(9) };
    stranger.send_to(&request.to_bytes(), "127.78.0.1:123").unwrap();
    assert!(stranger.recv(&mut [0; 64]).is_err(), "127.78.0.0/16 is none of the plan's subnets");
    running.stop().await;
}
