//! A region on SQLite commissions a machine with a scripted rack at the other end of the real link; restarted half-way, it goes on.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use actors::{
    catalogue::CatalogueEvent,
    clock,
    core::{TraceId, Verdict},
    link::{
        Timing,
        ca::RackIdentity,
        client::{ClientConfig, Event, LinkClient},
        enrol,
    },
};
use region::{
    app::{self, App, Running},
    builtin,
    config::Config,
    init,
    store::queries,
};
use schema::{
    boot::{BodyRef, Image, Sha256},
    catalogue::{CatalogueImage, CatalogueItem, Range, RangeType, Subnet},
    commissioning::{CommissionStep, StepState},
    id::{AttemptId, Generation, RangeId, ReportSeq, SubnetId, SystemId, VlanId},
    messages::{
        link::{FromRack, Hello, RackInterface, ToRack},
        machine::{CommissionOptions, MachineEvent, MachineSpec},
        report::{Fact, FileKind, Report},
    },
    net::{IpRange, MacAddr},
    plan::{BootPurpose, Ticket, TicketBoot},
    power::{PowerAction, PowerConfig, PowerType},
    script::{Content, ScriptOutput, SignalStatus},
    secret::Secret,
    status::{NodeStatus, PowerState},
};
use tokio::{sync::watch, task::JoinHandle};

pub(crate) const MACHINE: &str = "q7m3xd";
const MAC: &str = "52:54:00:77:00:01";
const RESOURCES: &[u8] = include_bytes!("../../../schema/tests/it/samples/resources.json");
const LLDP: &[u8] = include_bytes!("../../../schema/tests/it/samples/lldpctl.xml");

/// The rack's end of the link: does what an errand and the packet servers would report, and keeps reports until they are acknowledged.
struct FakeRack {
    client: LinkClient,
    plan: Generation,
    tickets: BTreeMap<SystemId, Ticket>,
    outbox: Vec<Report>,
    last: u64,
    /// How many facts of the boot may go out.
    allowed: watch::Receiver<usize>,
    boot: Vec<Fact>,
    told: usize,
    attempt: AttemptId,
    /// Power secrets as they arrived.
    passwords: watch::Sender<Vec<String>>,
}

impl FakeRack {
    fn start(
        identity: &RackIdentity,
        region: SocketAddr,
        allowed: watch::Receiver<usize>,
    ) -> (JoinHandle<()>, watch::Receiver<Vec<String>>) {
        let timing = Timing {
            back_off: Duration::from_millis(20),
            back_off_max: Duration::from_millis(100),
            ..Timing::default()
        };
        let config = ClientConfig { timing, ..ClientConfig::new(vec![region.to_string()]) };
        let (client, mut events) = LinkClient::start(config, identity, || 0.5).unwrap();
        let (passwords, seen) = watch::channel(Vec::new());
        let mut rack = Self {
            client,
            plan: Generation(0),
            tickets: BTreeMap::new(),
            outbox: Vec::new(),
            last: 0,
            allowed,
            boot: Vec::new(),
            told: 0,
            attempt: AttemptId(0),
            passwords,
        };
        let task = tokio::spawn(async move {
            loop {
                let mut allowed = rack.allowed.clone();
                tokio::select! {
                    event = events.recv() => match event {
                        Some(event) => rack.hear(event).await,
                        None => return,
                    },
                    Ok(()) = allowed.changed() => rack.go_on().await,
                }
                rack.allowed.mark_unchanged();
            }
        });
        (task, seen)
    }

    async fn hear(&mut self, event: Event) {
        match event {
            Event::Up { welcome, .. } => {
                self.outbox.retain(|r| r.seq > welcome.last_report);
                let own: std::net::IpAddr = "10.77.0.2".parse().unwrap();
                let eth0 = RackInterface {
                    name: "eth0".into(),
                    mac: None,
                    addresses: vec![(own, "10.77.0.0/24".parse().unwrap())],
                };
                let hello = Hello {
                    version: "0.1.0".into(),
                    hostname: "rack-1".into(),
                    plan: self.plan,
                    interfaces: vec![eth0],
                    listening: Vec::new(),
                    orders: Vec::new(),
                    now: clock::now(),
                };
                self.say(&FromRack::Hello(hello)).await;
                for report in self.outbox.clone() {
                    self.say(&FromRack::Report(report)).await;
                }
            }
            Event::Message { message, .. } => self.obey(message).await,
            Event::Down { .. } => {}
        }
    }

    async fn obey(&mut self, message: ToRack) {
        match message {
            ToRack::Plan(update) => {
                assert!(update.base.is_none_or(|base| base == self.plan), "{:?} after {}", update.base, self.plan);
                if update.tickets.replace {
                    self.tickets.clear();
                }
                self.tickets.extend(update.tickets.put.iter().map(|t| (t.machine, t.clone())));
                update.tickets.remove.iter().for_each(|id| drop(self.tickets.remove(id)));
                self.plan = update.generation;
                self.say(&FromRack::PlanInForce { generation: update.generation }).await;
                for ticket in update.tickets.put.iter().filter(|t| t.purpose == BootPurpose::Commissioning) {
                    self.report(ticket.attempt, Fact::TicketHeld).await;
                    self.report(ticket.attempt, Fact::ResourcesReady { fetched: 0 }).await;
                }
            }
            ToRack::Order(order) => {
                self.passwords.send_modify(|p| p.extend(order.access.secrets.values().map(|s| s.expose().clone())));
                self.report(order.attempt, Fact::OrderAccepted).await;
                match order.action {
                    PowerAction::NetworkBoot if order.attempt == self.attempt => {} // Once per attempt.
                    PowerAction::NetworkBoot => {
                        self.attempt = order.attempt;
                        let boot = self.tickets[&order.machine].boot.clone().unwrap();
                        self.boot = boot_facts(&boot);
                        self.told = 0;
                        self.go_on().await;
                    }
                    action => self.report(order.attempt, Fact::PowerDone { action, state: PowerState::Off }).await,
                }
            }
            ToRack::Ack { through } => self.outbox.retain(|r| r.seq > through),
            _ => {}
        }
    }

    async fn go_on(&mut self) {
        let allowed = *self.allowed.borrow();
        while self.told < self.boot.len().min(allowed) {
            let fact = self.boot[self.told].clone();
            self.told += 1;
            self.report(self.attempt, fact).await;
        }
    }

    async fn report(&mut self, attempt: AttemptId, fact: Fact) {
        self.last += 1;
        let report =
            Report { seq: ReportSeq(self.last), at: clock::now(), machine: MACHINE.parse().unwrap(), attempt, fact };
        self.outbox.push(report.clone());
        self.say(&FromRack::Report(report)).await;
    }

    async fn say(&self, message: &FromRack) {
        self.client.send(0, message, TraceId(7)).await.ok(); // Down: said again when it is up.
    }
}

fn content(bytes: &[u8]) -> Option<Content> {
    let body = BodyRef { sha256: Sha256::of(bytes), len: bytes.len() as u64 };
    Some(Content { body, inline: Some(bytes.to_vec()) })
}

/// What a machine that boots well makes a rack report, from the BMC's word to the runner's last.
fn boot_facts(boot: &TicketBoot) -> Vec<Fact> {
    let mac = MAC.parse().unwrap();
    let leased = |method| Fact::Leased { mac, ip: [10, 77, 0, 100].into(), subnet: SubnetId(1), method, lease_s: 30 };
    let fetched =
        |kind| Fact::FileFetched { file: format!("{kind:?}"), kind, service: "http".into(), bytes: 1_000, took_ms: 5 };
    let asked = |kind| Fact::FileAsked { file: format!("{kind:?}"), kind, service: "http".into(), found: true };
    let mut facts = vec![
        Fact::PowerTry { action: PowerAction::NetworkBoot, try_number: 1 },
        Fact::PowerDone { action: PowerAction::NetworkBoot, state: PowerState::On },
        leased(Some(schema::boot::BootMethod::Ipxe)),
        fetched(FileKind::Loader),
        asked(FileKind::Config),
        asked(FileKind::Kernel),
        fetched(FileKind::Kernel),
        fetched(FileKind::Initrd),
        leased(None),
        fetched(FileKind::Squashfs),
        Fact::PreseedFetched { from: [10, 77, 0, 100].into() },
        Fact::UserDataFetched,
        Fact::ScriptsFetched { scripts: u32::try_from(boot.scripts.len()).unwrap() },
    ];
    for script in &boot.scripts {
        let (result, name) = (script.script_result_id, script.name.clone());
        let output = match name.as_str() {
            builtin::INVENTORY => content(RESOURCES),
            builtin::LLDP => content(LLDP),
            _ => content(b"done\n"),
        };
        facts.push(Fact::ScriptStarted { result, name: name.clone(), status: SignalStatus::Working });
        facts.push(Fact::ScriptEnded {
            result,
            name,
            status: SignalStatus::Working,
            exit_status: 0,
            runtime_ms: 900,
            output: Box::new(ScriptOutput { stdout: output, ..ScriptOutput::default() }),
        });
    }
    facts.push(Fact::Finished { status: SignalStatus::Ok, error: String::new() });
    facts
}

/// A new region in `dir`, running; its enrolment token and configuration.
pub(crate) async fn new_region(dir: &Path) -> (Running, String, Config) {
    let made = init::init(init::Options {
        config: dir.join("region.toml"),
        data_dir: dir.join("data"),
        database: None,
        api_listen: "127.0.0.1:0".parse().unwrap(),
        link_listen: "127.0.0.1:0".parse().unwrap(),
        dns_listen: "127.0.0.1:0".parse().unwrap(),
        username: "admin".into(),
        email: "admin@example.com".into(),
        password: None,
        token_lasts: Duration::from_secs(600),
    });
    let made = made.await.unwrap();
    let written = Config::load(Some(&dir.join("region.toml")), []).unwrap();
    assert_eq!(written, made.config);
    let running = app::start(written.clone()).await.unwrap();
    let config = Config { link_listen: running.link, ..written };
    (running, made.token.expose().clone(), config)
}

pub(crate) async fn furnish(app: &App, rack: SystemId) {
    let mut vlan = app.catalogue_content().vlans[&VlanId(5_001)].clone();
    vlan.dhcp_on = true;
    vlan.primary_rack = Some(rack);
    let subnet = Subnet { name: "lab".into(), ..Subnet::new(SubnetId(1), vlan.id, "10.77.0.0/24".parse().unwrap()) };
    let range = IpRange { start: "10.77.0.100".parse().unwrap(), end: "10.77.0.200".parse().unwrap() };
    let range = Range {
        id: RangeId(1),
        subnet: subnet.id,
        range_type: RangeType::Dynamic,
        range,
        comment: String::new(),
        user: None,
    };
    let body = |bytes: &[u8]| app.bodies.put(bytes).unwrap();
    let image = Image {
        name: "debian/bookworm/amd64/generic".into(),
        arch: "amd64".into(),
        kernel: body(b"kernel"),
        initrd: body(b"initrd"),
        squashfs: Some(body(b"squashfs")),
        kernel_params: String::new(),
    };
    let items = vec![
        CatalogueItem::Subnet(subnet),
        CatalogueItem::Range(range),
        CatalogueItem::Vlan(vlan),
        CatalogueItem::Image(CatalogueImage { id: 1, image, default: true }),
    ];
    let put = CatalogueEvent::PutAll { by: "admin".into(), items };
    assert_eq!(app.change_catalogue(put, TraceId(1)).await.unwrap(), Verdict::Moved);
}

pub(crate) async fn add_machine(app: &App) {
    add(app, MACHINE.parse().unwrap(), MAC.parse().unwrap()).await;
}

async fn add(app: &App, system_id: SystemId, mac: MacAddr) {
    let params = [("power_address".to_owned(), "10.78.0.1".to_owned()), ("power_user".to_owned(), "root".to_owned())];
    let spec = MachineSpec {
        system_id,
        hostname: format!("fox-{system_id}"),
        domain: "maas".into(),
        architecture: "amd64/generic".into(),
        macs: vec![mac],
        power: PowerConfig { power_type: PowerType::Ipmi, params: params.into(), secret_fields: Vec::new() },
        description: String::new(),
        zone: "default".into(),
        pool: "default".into(),
        vlan: None,
    };
    let secrets = [("power_pass".to_owned(), Secret::new("calvin".to_owned()))];
    let made = app.create_machine("admin", spec, secrets.into()).await.unwrap();
    assert!(matches!(made, Verdict::Moved), "{made:?}");
}

async fn commission(app: &App, machine: SystemId) {
    let actor = app.machine(machine).await.unwrap();
    let options = CommissionOptions::default();
    let brief = app.brief(&actor.snapshot(), &options).await.unwrap();
    let asked = actor.ask(MachineEvent::Commission { by: "admin".into(), options, brief }, TraceId(2)).await.unwrap();
    assert!(matches!(asked, Verdict::Waiting(_)), "{asked:?}");
}

async fn until(what: &str, app: &App, done: impl AsyncFn() -> bool) {
    for _ in 0..400 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let machine = app.machine(MACHINE.parse().unwrap()).await.unwrap();
    panic!("{what} did not come; the machine: {:#?}\n{:#?}", machine.view(), machine.probe().steps());
}

async fn status(app: &App) -> NodeStatus {
    app.machine(MACHINE.parse().unwrap()).await.unwrap().snapshot().status
}

/// Commissions the machine; `restart_after`: so many facts of the boot, then the region goes down and comes back.
async fn story(restart_after: Option<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut running, token, config) = new_region(dir.path()).await;
    let region = running.link;
    let identity = enrol::enrol(&region.to_string(), &token.parse().unwrap(), "rack-1", "0.1.0").await.unwrap();
    let again = enrol::enrol(&region.to_string(), &token.parse().unwrap(), "rack-2", "0.1.0").await;
    assert!(again.err().unwrap().to_string().contains("used by rack"), "a token serves once");
    let (allow, allowed) = watch::channel(restart_after.unwrap_or(usize::MAX));
    furnish(&running.app, identity.rack).await;
    let (rack, passwords) = FakeRack::start(&identity, region, allowed);
    let app = running.app.clone();
    until("the rack", &app, async || !app.racks().is_empty()).await;
    add_machine(&app).await;
    commission(&app, MACHINE.parse().unwrap()).await;
    if let Some(facts) = restart_after {
        let machine = app.machine(MACHINE.parse().unwrap()).await.unwrap();
        until("the boot", &app, async || machine.snapshot().attempt.as_ref().is_some_and(|a| a.ip.is_some())).await;
        assert!(facts > 3);
        drop((app, machine));
        running.stop().await;
        running = app::start(config).await.unwrap();
        allow.send_replace(usize::MAX);
    }
    let app = running.app.clone();
    until("Ready", &app, async || status(&app).await == NodeStatus::Ready).await;
    check(&app).await;
    assert!(passwords.borrow().iter().all(|p| p == "calvin") && !passwords.borrow().is_empty());
    rack.abort();
    running.stop().await;
    secrets_stay_sealed(dir.path());
}

/// What an operator reads at the end.
async fn check(app: &App) {
    let id: SystemId = MACHINE.parse().unwrap();
    let (record, sets) =
        app.store.read(move |db| Ok((queries::machine_record(db, id)?, queries::script_sets(db, id)?))).await.unwrap();
    let record = record.unwrap();
    assert!(record.hardware.unwrap().cpu_count > 0);
    assert!(!record.interfaces.is_empty() && !record.disks.is_empty());
    assert_eq!(sets[0].results.len(), builtin::scripts().unwrap().len());
    let machine = app.machine(id).await.unwrap().snapshot();
    let attempt = machine.attempt.clone().unwrap();
    assert!(attempt.steps.iter().all(|s| s.ended.is_some() && !s.evidence.is_empty()), "{:#?}", attempt.steps);
    let page = app.metrics().await;
    for (step, record) in CommissionStep::ALL.iter().zip(&attempt.steps).filter(|(_, r)| r.state == StepState::Done) {
        let rack = record.rack.map_or_else(String::new, |rack| rack.to_string());
        let labels = format!("{{step=\"{}\",rack=\"{rack}\",outcome=\"done\"}}", step.label());
        assert!(page.contains(&format!("hostler_commission_step_seconds_count{labels} 1\n")), "{labels} of {page}");
    }
    assert!(attempt.steps.iter().any(|record| record.rack == Some(attempt.boot_racks[0])));
    assert_eq!(machine.power_state, PowerState::Off);
    let key = app.seal.all(id.as_str(), "node_key/").await.unwrap();
    assert!(key.is_empty(), "the node key is destroyed with its attempt");
}

/// No file of the region holds the BMC's password in the clear.
fn secrets_stay_sealed(dir: &Path) {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(6).any(|w| w == b"calvin"), "{}", path.display());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_goes_from_new_to_ready_over_the_real_link() {
    story(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_restarts_half_way_goes_on_where_it_was() {
    story(Some(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_its_turn_still_has_its_place_after_a_restart() {
    const MACHINES: u8 = 40;
    let dir = tempfile::tempdir().unwrap();
    let (running, token, config) = new_region(dir.path()).await;
    let identity = enrol::enrol(&running.link.to_string(), &token.parse().unwrap(), "rack-1", "0.1.0").await.unwrap();
    furnish(&running.app, identity.rack).await;
    let (_allow, allowed) = watch::channel(0);
    let (rack, _passwords) = FakeRack::start(&identity, running.link, allowed);
    let app = running.app.clone();
    until("the rack", &app, async || !app.racks().is_empty()).await;
    // It answers nobody any more, so not all of them begin.
    rack.abort();
    until("the end of the link", &app, async || app.racks().is_empty()).await;
    for n in 0..MACHINES {
        let id = SystemId::from_draws([1, 1, 1, 1, n / 20, n % 20]);
        add(&app, id, format!("52:54:00:77:00:{n:02x}").parse().unwrap()).await;
        commission(&app, id).await;
    }
    let asked = app.turns.counts();
    assert_eq!(asked.under_way + asked.waiting, usize::from(MACHINES), "{asked:?}");
    assert!(asked.waiting > 0, "{asked:?}");
    drop(app);
    running.stop().await;
    let running = app::start(config).await.unwrap();
    let found = running.app.turns.counts();
    assert_eq!(found.under_way + found.waiting, usize::from(MACHINES), "{found:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_makes_one_region_and_a_database_without_one_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let (running, _, config) = new_region(dir.path()).await;
    let scripts: Vec<_> = running.app.catalogue_content().scripts.values().map(|s| s.name.clone()).collect();
    assert!(scripts.contains(&builtin::INVENTORY.to_owned()));
    let actor = Arc::new(running.app.machine("nobody".parse().unwrap()).await);
    assert!(actor.as_ref().as_ref().unwrap_err().to_string().contains("there is no machine nobody"));
    running.stop().await;
    let empty = Config { database: Secret::new(format!("sqlite:{}", dir.path().join("other.db").display())), ..config };
    let refused = app::start(empty).await.err().unwrap().to_string();
    assert!(refused.contains("hostler init"), "{refused}");
}
