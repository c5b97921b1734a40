//! Two racks on one subnet over the real link: who is hung, dead or drained leaves plans, names and orders, and comes back.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actors::{
    catalogue::CatalogueEvent,
    clock,
    core::TraceId,
    link::{
        LinkError, Timing,
        ca::RackIdentity,
        client::{ClientConfig, Event, LinkClient},
        enrol,
    },
    rack::Duty,
};
use region::app::{self, App, Running};
use schema::{
    catalogue::{CatalogueItem, RackEntry},
    id::{Generation, RackId, ReportSeq, SystemId},
    messages::{
        link::{FromRack, Hello, Order, RackInterface, ToRack},
        machine::MachineEvent,
        report::{Fact, Report},
    },
    net::Cidr,
    plan::PlanSubnet,
    power::PowerAction,
    service::{Health, ServiceStatus},
    status::PowerState,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::commission::{MACHINE, add_machine, furnish, new_region};

/// What the product promises: a rack that is gone or hung is out of names and plans within this.
const GONE: Duration = Duration::from_secs(10);

/// What a scripted rack heard.
#[derive(Default)]
struct Heard {
    subnets: Vec<PlanSubnet>,
    orders: Vec<Order>,
    /// Passwords of the machines it is to watch.
    watched: BTreeMap<SystemId, String>,
}

/// A rack at the end of the link that says of itself what the test wants.
struct Scripted {
    id: RackId,
    heard: Arc<Mutex<Heard>>,
    /// How its HTTP is; `None`: it says nothing.
    http: watch::Sender<Option<Health>>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn identity(app: &App, region: &str, name: &str) -> Result<RackIdentity, LinkError> {
    let (token, kept) = app.new_enrolment_token(Duration::from_secs(60));
    let put = CatalogueEvent::Put { by: "admin".into(), item: CatalogueItem::EnrolmentToken(kept) };
    app.change_catalogue(put, TraceId(1)).await.unwrap();
    enrol::enrol(region, &token.parse().unwrap(), name, "0.1.0").await
}

impl Scripted {
    /// `reaches`: whether a BMC answers it.
    fn start(identity: &RackIdentity, region: &str, address: &str, reaches: bool) -> Self {
        let timing = Timing { back_off: Duration::from_millis(20), ..Timing::default() };
        let config = ClientConfig { timing, ..ClientConfig::new(vec![region.to_owned()]) };
        let (client, mut events) = LinkClient::start(config, identity, || 0.5).unwrap();
        let (http, told) = watch::channel(Some(Health::Running));
        let heard = Arc::<Mutex<Heard>>::default();
        let (kept, address) = (heard.clone(), address.parse().unwrap());
        let task = tokio::spawn(async move {
            let (mut last, mut tick) = (0, tokio::time::interval(Duration::from_secs(1)));
            let mut told = told;
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Some(Event::Up { .. }) => {
                            let cidr = Cidr::new(address, 24).unwrap();
                            let eth0 = RackInterface { name: "eth0".into(), mac: None, addresses: vec![(address, cidr)] };
                            let hello = Hello {
                                version: "0.1.0".into(),
                                hostname: "scripted".into(),
                                plan: Generation(0),
                                interfaces: vec![eth0],
                                listening: Vec::new(),
                                orders: Vec::new(),
                                now: clock::now(),
                            };
                            client.send(0, &FromRack::Hello(hello), TraceId(7)).await.ok();
                            tick.reset_immediately();
                        }
                        Some(Event::Message { message, .. }) => {
                            for fact in hear(&kept, message, reaches) {
                                last += 1;
                                let report = Report { seq: ReportSeq(last), at: clock::now(), ..fact };
                                client.send(0, &FromRack::Report(report), TraceId(7)).await.ok();
                            }
                        }
                        Some(Event::Down { .. }) => {}
                        None => return,
                    },
                    _ = tick.tick() => {
                        let http = *told.borrow();
                        speak(&client, http).await;
                    }
                    Ok(()) = told.changed() => {
                        let http = *told.borrow_and_update();
                        speak(&client, http).await;
                    }
                }
            }
        });
        Self { id: identity.rack, heard, http, task }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }
}

async fn speak(client: &LinkClient, http: Option<Health>) {
    let Some(http) = http else { return };
    let status = |service: &str, health| ServiceStatus {
        service: service.into(),
        health,
        since: clock::now(),
        addresses: Vec::new(),
        counters: vec![("requests".into(), 7)],
        last_error: None,
        restarts: 0,
    };
    let services = vec![status("dhcp", Health::Running), status("http", http), status("power", Health::Running)];
    client.send(0, &FromRack::Services(services), TraceId(7)).await.ok();
}

fn hear(heard: &Mutex<Heard>, message: ToRack, reaches: bool) -> Vec<Report> {
    let mut heard = heard.lock().unwrap();
    match message {
        ToRack::Plan(update) => {
            heard.subnets = update.subnets.unwrap_or_else(|| heard.subnets.clone());
            Vec::new()
        }
        ToRack::Sweep(update) => {
            if update.replace {
                heard.watched.clear();
            }
            update.remove.iter().for_each(|id| drop(heard.watched.remove(id)));
            for target in update.put {
                heard.watched.insert(target.machine, target.access.secrets["power_pass"].expose().clone());
            }
            Vec::new()
        }
        ToRack::Order(order) => {
            let (machine, attempt, action) = (order.machine, order.attempt, order.action);
            let state = if action == PowerAction::Off { PowerState::Off } else { PowerState::On };
            let end = if reaches {
                Fact::PowerDone { action, state }
            } else {
                Fact::BmcUnreachable { action, why: "no answer".into(), remedy: "look at the cable".into() }
            };
            heard.orders.push(order);
            let report = |fact| Report { seq: ReportSeq(0), at: clock::now(), machine, attempt, fact };
            vec![report(Fact::OrderAccepted), report(end)]
        }
        _ => Vec::new(),
    }
}

async fn until(what: &str, within: Duration, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(within, waiting).await.is_ok(), "{what} did not come within {within:?}");
}

/// A region, and two racks on its subnet; the BMCs are on another network.
async fn house(dir: &std::path::Path, reaches: [bool; 2]) -> (Running, region::config::Config, [Scripted; 2]) {
    let (running, _, config) = new_region(dir).await;
    let (app, region) = (running.app.clone(), running.link.to_string());
    let first = identity(&app, &region, "rack-1").await.unwrap();
    let second = identity(&app, &region, "rack-2").await.unwrap();
    furnish(&app, first.rack).await;
    let racks = [
        Scripted::start(&first, &region, "10.77.0.2", reaches[0]),
        Scripted::start(&second, &region, "10.77.0.3", reaches[1]),
    ];
    until("both racks", Duration::from_secs(60), || named(&app).len() == 2).await;
    (running, config, racks)
}

/// The racks that machines of the subnet are led to.
fn named(app: &App) -> Vec<RackId> {
    app.subnet_racks("10.77.0.0/24".parse().unwrap()).into_iter().map(|r| r.rack).collect()
}

async fn drain(app: &App, rack: RackId, drained: bool) {
    let entry = app.catalogue_content().racks[&rack].clone();
    let entry = RackEntry { drained: drained.then(clock::now), ..entry };
    let put = CatalogueEvent::Put { by: "admin".into(), item: CatalogueItem::Rack(entry) };
    app.change_catalogue(put, TraceId(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_hung_dead_or_drained_leaves_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (running, config, [one, two]) = house(dir.path(), [true, true]).await;
    let app = running.app.clone();
    let mut both = vec![one.id, two.id];
    both.sort();
    until("both in names", GONE, || named(&app) == both).await;
    let planned = |rack: &Scripted| rack.heard().subnets.first().map(|s| s.racks.len());
    until("the neighbours in the plan", GONE, || planned(&one) == Some(2) && planned(&two) == Some(2)).await;
    let servers: Vec<_> = two.heard().subnets[0].dns_servers.iter().take(2).map(ToString::to_string).collect();
    assert_eq!(servers, ["10.77.0.3", "10.77.0.2"], "itself first, then its neighbour");
    assert!(app.services(two.id).iter().all(|s| s.counters == [("requests".to_owned(), 7)]));

    // Its HTTP is dead: out of names and plans at once, though it still switches machines.
    two.http.send_replace(Some(Health::Dead));
    until("a dead service", GONE, || named(&app) == [one.id] && planned(&one) == Some(1)).await;
    assert!(app.fit(two.id, Duty::Power).is_ok() && app.fit(two.id, Duty::Boot).is_err());
    two.http.send_replace(Some(Health::Running));
    until("a service that is back", GONE, || named(&app) == both).await;

    // Hung: the link stands, and nothing is said.
    two.http.send_replace(None);
    until("a hung rack", GONE, || named(&app) == [one.id]).await;
    assert!(app.fit(two.id, Duty::Power).unwrap_err().why.contains("said nothing"));
    two.http.send_replace(Some(Health::Running));
    until("a rack that speaks again", GONE, || named(&app) == both && planned(&one) == Some(2)).await;

    // Drained: no new work, and it survives a restart of the region.
    drain(&app, one.id, true).await;
    until("a drain", GONE, || named(&app) == [two.id] && planned(&two) == Some(1)).await;
    assert_eq!(app.bmc_racks(None, None), [two.id]);
    assert!(app.fit(one.id, Duty::Boot).unwrap_err().remedy.contains("--undo"));
    drop(app);
    running.stop().await;
    let running = app::start(config).await.unwrap();
    let app = running.app.clone();
    until("the racks' return", Duration::from_secs(60), || named(&app) == [two.id]).await;
    drain(&app, one.id, false).await;
    until("the end of the drain", Duration::from_secs(60), || named(&app) == both).await;

    // Gone without a word.
    drop(two);
    until("a rack that is gone", GONE, || named(&app) == [one.id]).await;
    drop(app);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connected_racks_name_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (running, _, [first, second]) = house(dir.path(), [true, true]).await;
    let (app, region) = (running.app.clone(), running.link.to_string());
    let refused = identity(&app, &region, "rack-1").await.err().unwrap().to_string();
    assert!(refused.contains("connected") && refused.contains("--name"), "{refused}");
    let id = first.id;
    drop(first);
    until("its end", Duration::from_secs(60), || app.racks().iter().all(|(rack, _)| *rack != id)).await;
    assert_eq!(identity(&app, &region, "rack-1").await.unwrap().rack, id, "it takes its own place again");
    drop(second);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_action_finds_the_rack_that_reaches_the_bmc_and_the_region_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let (running, config, [one, two]) = house(dir.path(), [false, true]).await;
    let app = running.app.clone();
    add_machine(&app).await;
    let id: SystemId = MACHINE.parse().unwrap();
    let machine = app.machine(id).await.unwrap();
    let on = async |action| {
        let brief = app.power_brief(&machine.snapshot());
        let event = MachineEvent::Power { by: "admin".into(), action, brief };
        machine.ask(event, TraceId(2)).await.unwrap();
    };
    let patience = Duration::from_secs(60);
    // Rack one boots machines, so it is asked first, and does not reach the BMC.
    on(PowerAction::On).await;
    until("power on by the other rack", patience, || machine.snapshot().power_state == PowerState::On).await;
    assert_eq!((one.heard().orders.len(), two.heard().orders.len()), (1, 1));
    let mut known: Vec<_> = app.reach().into_iter().map(|r| (r.rack == two.id, r.reachable)).collect();
    known.sort_unstable();
    assert_eq!(known, [(false, false), (true, true)]);
    // The next action goes to the one that reached it, and so does the sweep, with the credentials.
    on(PowerAction::Off).await;
    until("power off", patience, || machine.snapshot().power_state == PowerState::Off).await;
    assert_eq!((one.heard().orders.len(), two.heard().orders.len()), (1, 2));
    until("the sweep", patience, || two.heard().watched.contains_key(&id) && one.heard().watched.is_empty()).await;
    assert_eq!(two.heard().watched[&id], "calvin");
    drop((machine, app));
    running.stop().await;
    let running = app::start(config).await.unwrap();
    let app = running.app.clone();
    assert_eq!(app.reach().len(), 2, "what was learned outlives the region");
    until("the racks' return", patience, || named(&app).len() == 2).await;
    assert_eq!(app.bmc_racks(Some("10.78.0.1"), None), [two.id, one.id]);
    // The rack that reaches it is drained: the other one watches, though it did not reach it a moment ago.
    drain(&app, two.id, true).await;
    until("the hand-over of the sweep", patience, || {
        one.heard().watched.contains_key(&id) && two.heard().watched.is_empty()
    })
    .await;
    drop(app);
    running.stop().await;
}
