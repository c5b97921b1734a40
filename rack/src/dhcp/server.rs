//! The DHCP service's life: its thread, its ports as plan and interfaces come and go, its end. Packets are handled next door.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use actors::{
    clock,
    leases::Origin,
    service::ServiceFault,
    shell::{Registry, inspect::Spread},
};
use schema::{plan::PlanSubnet, service::Health};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    hands::{Hands, reported},
    journal::{Journal, LeaseStore, RedbStore, StoreError},
    neighbours::Neighbours,
    packet::{self, Packet},
    seek,
    socket::{Ear, Interface, Overheard, Port, PortError, SERVER_PORT, interfaces},
    status::{Counters, DhcpStatus, Sighting},
};
use crate::{
    disk::Disk,
    leases::LeaseTable,
    plan::PlanHandle,
    report::Reporter,
    service::{Meter, Serving, Stopping, alive},
};

/// Packets read before the actors get their turn.
const ROUND: usize = 64;
/// How soon a new interface, address or subnet is served.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest UDP payload of a DHCP packet that is read; Ethernet's is 1,472.
const LONGEST: usize = 4_096;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Port 67 on every interface that has an address in a subnet of the plan with DHCP on. Needs CAP_NET_BIND_SERVICE and CAP_NET_RAW.
    Interfaces,
    /// Only these addresses (port 0: any free one), answering to where a packet came from: relays, `dev`, tests. Needs no rights.
    At(Vec<SocketAddrV4>),
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct DhcpConfig {
    pub listen: Listen,
    /// The port of the machine-facing HTTP, named in boot URLs.
    pub http_port: u16,
    /// The rack's state directory; `leases.redb` is made there.
    pub state: PathBuf,
    /// Other racks' addresses on the served subnets: not foreign servers.
    pub peers: Vec<Ipv4Addr>,
    /// Whether to look for other DHCP servers, at the start and from time to time. Only with [`Listen::Interfaces`].
    pub seek: bool,
}

/// What the service works with.
#[derive(Debug, Clone)]
pub struct DhcpHandles {
    pub plan: PlanHandle,
    pub leases: LeaseTable,
    pub reporter: Reporter,
    pub registry: Registry,
    pub neighbours: Neighbours,
    /// Hears when leases cannot be written.
    pub disk: Disk,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum DhcpStartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("cannot list the network interfaces: {0}")]
    Interfaces(io::Error),
    #[error("the system gives no thread for DHCP: {0}")]
    Thread(io::Error),
}

/// The running service. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    counters: Counters,
    meter: Meter,
    stop: Option<oneshot::Sender<()>>,
    /// The one that serves, then the one that writes.
    threads: Vec<thread::JoinHandle<()>>,
}

/// Starts the service on a thread of its own. Leases on disk are in `handles.leases` when it returns.
///
/// # Errors
/// [`DhcpStartError`]; that no interface can be served (rights, another server) is an error when they are there at the start,
/// and a problem in [`DhcpStatus`] when they come later, or when another one is served.
pub fn start(config: DhcpConfig, handles: DhcpHandles) -> Result<Running, DhcpStartError> {
    let store = RedbStore::open(&config.state, handles.disk.clone())?;
    start_with(config, handles, store)
}

/// [`start`] with another store.
///
/// # Errors
/// As [`start`].
pub fn start_with(config: DhcpConfig, handles: DhcpHandles, store: impl LeaseStore) -> Result<Running, DhcpStartError> {
    let mut kept: HashMap<_, Vec<_>> = HashMap::new();
    let now = clock::now();
    for row in store.load()? {
        let lease = reported(row.clone());
        handles.leases.put(lease.clone());
        if row.origin == Origin::Own && lease.expires > now {
            handles.reporter.lease(lease); // A region may not have heard of it before this process began.
        }
        kept.entry(row.lease.subnet).or_default().push(row);
    }
    let counters = Counters::default();
    let (journal, writer) = Journal::start(store).map_err(DhcpStartError::Thread)?;
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = oneshot::channel();
    let meter = Meter::new("dhcp", &["not_served"]);
    let (seen, complained) = (counters.clone(), meter.clone());
    let run = move || {
        actix_rt::System::new().block_on(async move {
            let hands = Rc::new(Hands {
                plan: handles.plan,
                table: handles.leases,
                reporter: handles.reporter,
                counters: seen,
                meter: complained,
                registry: handles.registry,
                journal,
                http_port: config.http_port,
                peers: config.peers,
                kept: kept.into(),
                view: Default::default(),
                subnets: Default::default(),
                dirty: Default::default(),
                neighbours: handles.neighbours,
                shares: Default::default(),
                seek: config.seek && config.listen == Listen::Interfaces,
                flights: Default::default(),
                probing: Default::default(),
                told: Default::default(),
                strays: Default::default(),
                twins: Default::default(),
            });
            serve(hands, config.listen, ready, stopped).await;
        });
    };
    let thread = thread::Builder::new().name("dhcp".into()).spawn(run).map_err(DhcpStartError::Thread)?;
    let ended = || DhcpStartError::Thread(io::Error::other("the DHCP thread ended at its start"));
    let addresses = started.recv().map_err(|_| ended())??;
    Ok(Running { addresses, counters, meter, stop: Some(stop), threads: vec![thread, writer] })
}

impl Running {
    /// Where it listened when it started. With [`Listen::Interfaces`]: each interface's addresses on port 67.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it counts and knows of itself.
    #[must_use]
    pub fn status(&self) -> DhcpStatus {
        self.counters.snapshot()
    }

    /// The live counters, for a holder that outlives this value.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Stops reading packets and waits for the threads; the leases' file is closed then. What was acknowledged is on disk already.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok(); // It has ended already.
        }
        for thread in self.threads.drain(..) {
            thread.join().ok(); // A panic there was printed there.
        }
    }
}

impl Serving for Running {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.status().addresses
    }

    fn health(&self) -> Health {
        match alive(&self.threads) {
            Health::Running if !self.status().problems.is_empty() => Health::Degraded,
            health => health,
        }
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn counters(&self) -> Vec<(String, u64)> {
        self.counters.named()
    }

    fn latency(&self) -> Option<Spread> {
        Some(self.counters.latency())
    }

    fn stop(self: Box<Self>) -> Stopping {
        let end = tokio::task::spawn_blocking(move || Self::stop(*self));
        Box::pin(async move { end.await.unwrap_or_default() }) // A panic there was printed there.
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

type Ready = std::sync::mpsc::SyncSender<Result<Vec<SocketAddr>, DhcpStartError>>;

async fn serve(hands: Rc<Hands>, listen: Listen, ready: Ready, mut stopped: oneshot::Receiver<()>) {
    hands.refresh();
    let mut ports = Ports { hands: hands.clone(), open: HashMap::new(), problems: Vec::new() };
    let opened = match &listen {
        Listen::At(addresses) => ports.open_at(addresses),
        // One interface of several that cannot be served is a problem, not the end.
        Listen::Interfaces => ports.follow().and_then(|()| match ports.problems.pop() {
            Some(error) if ports.open.is_empty() => Err(error.into()),
            _ => Ok(ports.addresses()),
        }),
    };
    let ok = opened.is_ok();
    if ready.send(opened).is_err() || !ok {
        return;
    }
    let ear = listen_for_others(&hands, &listen);
    let copies = tokio::task::spawn_local(hands.clone().take_copies());
    let mut sought = clock::tick();
    ports.seek();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        hands.refresh();
        hands.say_through();
        hands.forget_gone(clock::now());
        let every = if hands.counters.foreign_now().is_empty() { seek::EVERY } else { seek::EVERY_BESIDE };
        if sought.elapsed() >= every {
            sought = clock::tick();
            ports.seek();
        }
        if listen == Listen::Interfaces
            && let Err(error) = ports.follow()
        {
            hands.counters.complain("problem", &error.to_string(), clock::now(), None);
        }
    }
    copies.abort();
    if let Some(ear) = ear {
        ear.abort();
    }
}

/// The open ports, each with its reading task.
struct Ports {
    hands: Rc<Hands>,
    open: HashMap<String, (Arc<Port>, JoinHandle<()>)>,
    problems: Vec<PortError>,
}

impl Ports {
    fn open_at(&mut self, addresses: &[SocketAddrV4]) -> Result<Vec<SocketAddr>, DhcpStartError> {
        let mut bound = Vec::new();
        for address in addresses {
            let port = Port::at(*address)?;
            bound.extend(port.local());
            self.read(port);
        }
        self.published();
        Ok(bound)
    }

    /// Serves the interfaces that the plan means, and only those.
    fn follow(&mut self) -> Result<(), DhcpStartError> {
        let plan = self.hands.view.borrow().plan.clone();
        let meant = |i: &Interface| {
            let on = |ip: &Ipv4Addr| plan.plan.subnets.iter().any(|s| s.dhcp && s.cidr.contains((*ip).into()));
            i.addresses.iter().any(|(ip, _)| on(ip))
        };
        let wanted: Vec<Interface> =
            interfaces().map_err(DhcpStartError::Interfaces)?.into_iter().filter(meant).collect();
        self.open.retain(|_, (port, task)| {
            // An address that came or went makes it a new port; a reader that ended (device gone) makes room for one.
            let same = wanted.iter().any(|i| port.interface.as_ref() == Some(i)) && !task.is_finished();
            if !same {
                task.abort();
            }
            same
        });
        self.problems.clear();
        for interface in wanted {
            if !self.open.contains_key(&interface.name) {
                let name = interface.name.clone();
                match Port::on(interface) {
                    Ok(port) => {
                        tracing::info!(interface = name, "DHCP is served");
                        if self.hands.seek {
                            ask_servers(&self.hands, &port);
                        }
                        self.read(port);
                    }
                    Err(error) => {
                        self.hands.counters.count("problem");
                        self.problems.push(error);
                    }
                }
            }
        }
        self.published();
        Ok(())
    }

    fn read(&mut self, port: Port) {
        let port = Arc::new(port);
        let task = tokio::task::spawn_local(read(self.hands.clone(), port.clone()));
        self.open.insert(port.name.clone(), (port, task));
    }

    /// Asks every link for other servers. What answers is overheard.
    fn seek(&self) {
        if self.hands.seek {
            self.open.values().for_each(|(port, _)| ask_servers(&self.hands, port));
        }
    }

    fn published(&self) {
        let mut own: Vec<Ipv4Addr> = self.open.values().flat_map(|(p, _)| p.addresses.iter().copied()).collect();
        own.sort_unstable();
        self.hands.set_own(own);
        let mut names: Vec<String> = self.open.keys().cloned().collect();
        names.sort_unstable();
        let problems: Vec<_> = self.problems.iter().map(ToString::to_string).collect();
        if let Some(problem) = problems.first() {
            let fault = ServiceFault::said(problem);
            self.hands.meter.complain("not_served", fault.why, &fault.remedy);
        }
        self.hands.counters.places(names, self.addresses(), problems);
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let at = |port: &Port| port.local().map_or(SERVER_PORT, |local| local.port());
        let all = self.open.values().flat_map(|(port, _)| port.addresses.iter().map(|ip| (*ip, at(port)).into()));
        let mut all: Vec<SocketAddr> = all.collect();
        all.sort_unstable();
        all
    }
}

fn ask_servers(hands: &Hands, port: &Port) {
    let Some(interface) = &port.interface else { return };
    if let Err(why) = port.ask_servers(&seek::discover(interface.mac, rand::random())) {
        let complaint = format!("other DHCP servers cannot be looked for on {}: {why}", port.name);
        hands.counters.complain("unsought", &complaint, clock::now(), None);
    }
}

/// Reads a port in rounds, so that one step and one commit serve all packets that came together.
async fn read(hands: Rc<Hands>, port: Arc<Port>) {
    let mut buffer = vec![0; LONGEST];
    while port.readable().await.is_ok() {
        hands.refresh();
        let now = clock::now();
        for _ in 0..ROUND {
            match port.receive(&mut buffer) {
                Ok((len, source)) => hands.packet(&port, buffer.get(..len).unwrap_or_default(), source, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if gone(&error) => return,
                // An ICMP error for an answer of ours, or an interrupted call: the next packet is not concerned.
                Err(_) => hands.counters.count("receive_error"),
            }
        }
        hands.flush();
        tokio::task::yield_now().await;
    }
}

/// The interface is away: the port is opened anew when it is back.
fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NetworkDown | io::ErrorKind::NotConnected)
        || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// Listens for answers of other DHCP servers, where the rights allow it. Requests that name one are noticed in any case.
fn listen_for_others(hands: &Rc<Hands>, listen: &Listen) -> Option<JoinHandle<()>> {
    if *listen != Listen::Interfaces {
        return None;
    }
    match Ear::open() {
        Ok(ear) => Some(tokio::task::spawn_local(hear(hands.clone(), ear))),
        Err(error) => {
            tracing::warn!(%error, "cannot listen for other DHCP servers' answers; give the rack CAP_NET_RAW");
            None
        }
    }
}

async fn hear(hands: Rc<Hands>, ear: Ear) {
    let mut buffer = vec![0; LONGEST];
    while ear.readable().await.is_ok() {
        match ear.receive(&mut buffer) {
            Ok(Some(heard)) => overheard(&hands, heard, &buffer),
            Ok(None) | Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn overheard(hands: &Hands, heard: Overheard, buffer: &[u8]) {
    let bytes = buffer.get(heard.at..heard.at + heard.len).unwrap_or_default();
    let Ok(Packet::Heard(answer)) = packet::parse(bytes) else { return };
    let here = |i: &Interface| i.index == heard.interface;
    let Some(link) = interfaces().ok().and_then(|all| all.into_iter().find(here)) else { return };
    let plan = hands.view.borrow().plan.clone();
    let server = answer.server_id.unwrap_or(heard.source);
    let on_link = |s: &&PlanSubnet| s.dhcp && link.addresses.iter().any(|(ip, _)| s.cidr.contains((*ip).into()));
    for subnet in plan.plan.subnets.iter().filter(on_link) {
        let evidence = "its answer to a client was heard";
        hands.note_foreign(subnet, &Sighting { server, mac: Some(heard.mac), evidence, certain: true }, clock::now());
    }
}
