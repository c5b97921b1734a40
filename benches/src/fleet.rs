//! The fleet's hands: thousands of simulated machines in one process, each with sockets of its own on the address it was leased.
//! A machine takes memory and descriptors only while it is on.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use actors::clock;
use schema::net::MacAddr;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    bmc::Mix,
    hardware::Hardware,
    machine::{Action, Event, Machine},
};

pub mod bmcs;
pub mod count;
pub(crate) mod http;
pub mod lag;
mod weather;
mod wire;

pub use count::Counts;
pub use weather::Weather;
use wire::Wire;

/// Where a machine's broadcasts arrive: the rack of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    pub dhcp: SocketAddrV4,
    /// The port of the rack's TFTP; 69 in the world outside.
    pub tftp_port: u16,
}

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    pub seed: u64,
    /// Machine `i` is plugged into rack `i % racks`.
    pub machines: u32,
    pub doors: Vec<Door>,
    /// Divides the machines' own delays; 0: they have none.
    pub speed: f64,
    /// Some machines have iPXE in their card's ROM, and so need no loader.
    pub roms: bool,
    /// What the BMCs speak.
    pub bmcs: Mix,
}

/// The fleet. Cloned freely.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    config: FleetConfig,
    slots: RwLock<Vec<Arc<Slot>>>,
    counts: Counts,
    /// Of each rack's network.
    weather: Vec<Weather>,
    runtime: Handle,
    told: OnceLock<Box<dyn Fn(u32, bool) + Send + Sync>>,
}

/// One machine's place.
struct Slot {
    hardware: Arc<Hardware>,
    on: AtomicBool,
    /// How often it was switched on.
    starts: AtomicU32,
    /// Its firmware never asks for an address.
    mute: AtomicBool,
    power: Mutex<Option<mpsc::Sender<()>>>,
    /// Why it hangs.
    hangs: Mutex<Option<String>>,
}

impl Slot {
    fn new(hardware: Hardware) -> Arc<Self> {
        let (on, mute, power, hangs) =
            (AtomicBool::new(false), AtomicBool::new(false), Mutex::new(None), Mutex::new(None));
        Arc::new(Self { hardware: Arc::new(hardware), on, starts: AtomicU32::new(0), mute, power, hangs })
    }
}

impl Fleet {
    /// A fleet of machines that are off; those switched on run on `runtime`.
    #[must_use]
    pub fn new(config: FleetConfig, runtime: Handle) -> Self {
        let racks = u32::try_from(config.doors.len()).unwrap_or(1).max(1);
        let slot = |index| Slot::new(Hardware::draw(config.seed, index, index % racks, config.roms));
        let slots = RwLock::new((0..config.machines).map(slot).collect());
        let weather = config.doors.iter().map(|_| Weather::default()).collect();
        Self(Arc::new(Inner { config, slots, counts: Counts::default(), weather, runtime, told: OnceLock::new() }))
    }

    /// What the machines' BMCs speak.
    #[must_use]
    pub fn bmcs(&self) -> Mix {
        self.0.config.bmcs
    }

    /// The network between that rack and its machines.
    #[must_use]
    pub fn weather(&self, rack: u32) -> Option<&Weather> {
        self.0.weather.get(usize::try_from(rack).ok()?)
    }

    /// From its next start on, that machine's firmware never asks for an address, or does so again.
    pub fn mute(&self, index: u32, mute: bool) {
        if let Some(slot) = self.slot(index) {
            slot.mute.store(mute, Ordering::Relaxed);
        }
    }

    /// What the machines have sent and received.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// The machines' hardware, by number.
    #[must_use]
    pub fn hardware(&self) -> Vec<Arc<Hardware>> {
        self.slots().iter().map(|slot| slot.hardware.clone()).collect()
    }

    /// Racks that its machines are plugged into.
    #[must_use]
    pub fn racks(&self) -> u32 {
        u32::try_from(self.0.config.doors.len()).unwrap_or(u32::MAX)
    }

    /// Whether that machine has power.
    #[must_use]
    pub fn is_on(&self, index: u32) -> bool {
        self.slot(index).is_some_and(|slot| slot.on.load(Ordering::Relaxed))
    }

    /// Machines that were switched on more than once, with how often.
    #[must_use]
    pub fn started_again(&self) -> Vec<(u32, u32)> {
        let starts = |slot: &Arc<Slot>| (slot.hardware.index, slot.starts.load(Ordering::Relaxed));
        self.slots().iter().map(starts).filter(|(_, starts)| *starts > 1).collect()
    }

    /// Gives it power; nothing happens to a machine that has it. `network`: it boots from there, this once.
    pub fn power_on(&self, index: u32, network: bool) {
        let Some(slot) = self.slot(index) else { return };
        if slot.on.swap(true, Ordering::AcqRel) {
            return;
        }
        slot.starts.fetch_add(1, Ordering::Relaxed);
        let (sender, off) = mpsc::channel(1);
        *lock(&slot.power) = Some(sender);
        *lock(&slot.hangs) = None;
        let fleet = self.clone();
        self.0.runtime.spawn(async move { fleet.live(&slot, network, off).await });
    }

    /// Takes the power away.
    pub fn power_off(&self, index: u32) {
        if let Some(slot) = self.slot(index)
            && lock(&slot.power).take().is_some()
        {
            slot.on.store(false, Ordering::Release);
        }
    }

    /// Who is told when a machine goes on or off by itself, or by a hand.
    pub fn on_power(&self, told: impl Fn(u32, bool) + Send + Sync + 'static) {
        self.0.told.set(Box::new(told)).ok(); // A fleet has one kind of BMCs.
    }

    /// Tells it.
    pub fn tell_power(&self, index: u32, on: bool) {
        if let Some(told) = self.0.told.get() {
            told(index, on);
        }
    }

    /// The machine that boots with one of these MACs; a new one, in the first rack's network, when the fleet has none.
    #[must_use]
    pub fn with_mac(&self, macs: &[MacAddr]) -> u32 {
        let known = self.slots().iter().find(|s| macs.contains(&s.hardware.mac())).map(|s| s.hardware.index);
        known.unwrap_or_else(|| self.add(macs.first().copied()))
    }

    fn add(&self, mac: Option<MacAddr>) -> u32 {
        let (config, racks) = (&self.0.config, self.0.config.doors.len().max(1));
        let mut slots = self.0.slots.write().unwrap_or_else(PoisonError::into_inner);
        // The next number that is plugged into the first rack: those between are left out.
        let index = u32::try_from(slots.len().next_multiple_of(racks)).unwrap_or(u32::MAX);
        while slots.len() < usize::try_from(index).unwrap_or(0) {
            let left_out = u32::try_from(slots.len()).unwrap_or(u32::MAX);
            slots.push(Slot::new(Hardware::draw(config.seed, left_out, 0, config.roms)));
        }
        let mut hardware = Hardware::draw(config.seed, index, 0, config.roms);
        if let (Some(mac), Some(nic)) = (mac, hardware.nics.first_mut()) {
            nic.mac = mac;
        }
        slots.push(Slot::new(hardware));
        index
    }

    /// Machines that hang, with what they wait for in vain.
    #[must_use]
    pub fn hanging(&self) -> Vec<(u32, String)> {
        self.slots().iter().filter_map(|slot| Some((slot.hardware.index, lock(&slot.hangs).clone()?))).collect()
    }

    fn slot(&self, index: u32) -> Option<Arc<Slot>> {
        self.slots().get(usize::try_from(index).ok()?).cloned()
    }

    fn slots(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<Slot>>> {
        self.0.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// One machine from power-on to power-off.
    async fn live(self, slot: &Slot, network: bool, mut off: mpsc::Receiver<()>) {
        let config = &self.0.config;
        let index = usize::try_from(slot.hardware.index).unwrap_or(0);
        let place = index % config.doors.len().max(1);
        let Some((door, weather)) = config.doors.get(place).zip(self.0.weather.get(place)) else { return };
        let mut machine = Machine::new(slot.hardware.clone(), config.seed);
        let mut wire = Wire::new(*door, weather, &self.0.counts);
        let (mut wait, mut expects) = (None, false);
        let network = network && !slot.mute.load(Ordering::Relaxed);
        let mut actions = machine.step(Event::PowerOn { network }, clock::now().seconds());
        loop {
            let mut at_once = false;
            for action in actions.drain(..) {
                match action {
                    Action::Wait(time) => match divided(time, config.speed) {
                        Some(time) => (wait, expects) = (Some(time), false),
                        None => at_once = true,
                    },
                    Action::Expect(time) => (wait, expects) = (Some(time), true),
                    Action::Off => return self.went_off(slot),
                    Action::Hang(why) => {
                        self.0.counts.hang();
                        *lock(&slot.hangs) = Some(why);
                        wait = None;
                    }
                    action => wire.carry_out(action),
                }
            }
            if at_once {
                actions = machine.step(Event::Elapsed, clock::now().seconds());
                continue;
            }
            let heard = tokio::select! {
                // Power that is gone ends it whatever it does.
                _ = off.recv() => return,
                heard = wire.hear() => heard,
                () = elapse(wait) => wire::Heard::Silence,
            };
            let event = match &heard {
                wire::Heard::Datagram => Event::Datagram(wire.datagram()),
                wire::Heard::Answer(answer) => Event::Answered { status: answer.status, body: &answer.body },
                wire::Heard::Broken => Event::Failed,
                wire::Heard::Silence => {
                    if expects {
                        self.0.counts.silence();
                    }
                    Event::Elapsed
                }
            };
            // A wait that is not renewed has been for this event.
            actions = machine.step(event, clock::now().seconds());
            if matches!(heard, wire::Heard::Silence | wire::Heard::Answer(_) | wire::Heard::Broken) {
                wait = None;
            }
        }
    }

    fn went_off(&self, slot: &Slot) {
        lock(&slot.power).take();
        slot.on.store(false, Ordering::Release);
        self.tell_power(slot.hardware.index, false);
    }
}

/// A delay of the machine's own at that speed; `None`: none.
fn divided(time: Duration, speed: f64) -> Option<Duration> {
    (speed > 0.0).then(|| time.div_f64(speed)).filter(|time| *time > Duration::from_millis(1))
}

async fn elapse(wait: Option<Duration>) {
    match wait {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address of a rack on subnet `number` of the yard: 127.77.`number`.2.
#[must_use]
pub fn rack_address(number: u32) -> Ipv4Addr {
    let [_, _, _, subnet] = number.to_be_bytes();
    Ipv4Addr::new(127, 77, subnet, 2)
}
