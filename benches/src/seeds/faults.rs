//! What is done to the deterministic yard: ills of single machines, and what befalls nodes and ways. It knows what it did: it is the oracle.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use actors::catalogue::{Catalogue, CatalogueEvent};
use schema::catalogue::{CatalogueItem, RackEntry};

use super::{
    furniture,
    hosted::{Tag, Who, tell},
    metal::MetalEv,
    office::RegionEv,
    weather::Way,
    world::{Ev, World},
};
use crate::{
    bmc::chassis::{Boot, PowerEvent},
    machine::{Key, Request},
};

/// What is wrong with a machine, from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ill {
    /// The password that the region has is not the BMC's.
    WrongPassword,
    /// The BMC answers nothing.
    SilentBmc,
    /// The BMC answers that it is busy.
    BusyBmc,
    /// The BMC loses each nth request.
    LossyBmc(u32),
    /// Each of its answers takes so many milliseconds.
    SlowBmc(u64),
    /// All its sessions are taken.
    FullBmc,
    /// Its account is locked.
    LockedBmc,
    /// Nobody listens at its HTTP port.
    RefusesHttp,
    /// Each nth of its HTTP answers breaks off.
    BreaksHttp(u32),
    /// The BMC accepts orders and does nothing.
    Powerless,
    /// The BMC says on for ever.
    SaysOn,
    /// The machine boots its own disk, whatever the BMC was told.
    DeafCard,
    /// It boots with another card than the one that is known.
    OtherCard,
    /// Its card is cabled into the network of that number.
    WrongWire(usize),
    /// The address of its BMC is that machine's: it is the other one that is switched.
    WiredTo(u32),
    /// Its card is a clone of that machine's.
    Twin(u32),
    /// Its network asks through a relay of that address.
    Relayed(Ipv4Addr),
    /// The system's DHCP clients use another card than firmware did.
    OtherCardLater,
    /// It goes off by itself so many milliseconds after it was switched on.
    Dies(u64),
    /// It goes off by itself in the middle of that script.
    DiesIn(&'static str),
    /// Its memory ends while it fetches the system.
    LittleMemory,
    /// What it tells of that script's end is cut off in the middle.
    Truncates(&'static str),
    /// It starts anew from the network whenever it asks for something that holds this text.
    Loops(&'static str),
    /// Datagrams with more bytes do not reach it.
    Narrow(usize),
    /// Requests that hold this text are lost.
    Loses(&'static str),
    /// Its clock, in seconds after ours.
    Clock(i64),
    /// It signs with another secret.
    WrongKey,
    /// That script exits with 1.
    ScriptFails(&'static str),
    /// That script is ended by the runner at its time-out.
    ScriptTimesOut(&'static str),
    /// Nothing more is heard from the machine once that script has begun.
    FreezesIn(&'static str),
    /// The machine starts anew, from its disk, in the middle of that script.
    RebootsIn(&'static str),
    /// That script prints three million bytes.
    Floods(&'static str),
    /// What that script prints is no JSON.
    Garbles(&'static str),
    /// The runner says at the end that it failed.
    RunnerFails,
}

/// What becomes of a request.
pub(super) enum Fate {
    Goes,
    Lost,
    /// The machine does nothing any more.
    Freezes,
    /// The machine starts anew.
    Reboots,
    /// The machine starts anew, and from the network.
    Loops,
    /// Its power goes.
    Dies,
}

impl Ill {
    /// How far the machine's clock is ahead.
    pub(super) fn skew_s(&self) -> i64 {
        if let Self::Clock(seconds) = self { *seconds } else { 0 }
    }

    /// Whether a datagram with this text is lost.
    pub(super) fn swallows(&self, text: &str) -> bool {
        matches!(self, Self::Loses(part) if text.contains(part))
    }

    /// Whether the machine starts anew over a datagram with this text.
    pub(super) fn loops_at(&self, bytes: &[u8]) -> bool {
        matches!(self, Self::Loops(text) if find(bytes, text.as_bytes()).is_some())
    }

    /// What becomes of a DHCP client's packet on its way.
    pub(super) fn meddle_dhcp(&self, bytes: &mut [u8]) {
        let firmware = find(bytes, b"PXEClient").or_else(|| find(bytes, b"HTTPClient")).is_some();
        match self {
            Self::OtherCard => bytes.iter_mut().skip(33).take(1).for_each(|last| *last ^= 0x55),
            Self::OtherCardLater if !firmware => bytes.iter_mut().skip(33).take(1).for_each(|last| *last ^= 0x55),
            Self::Relayed(relay) => {
                if let Some(giaddr) = bytes.get_mut(24..28) {
                    giaddr.copy_from_slice(&relay.octets());
                }
            }
            _ => {}
        }
    }

    /// Whether a datagram is too long for the way to the machine.
    pub(super) fn is_too_long(&self, bytes: &[u8]) -> bool {
        matches!(self, Self::Narrow(most) if bytes.len() > *most)
    }

    /// Has its way with a request of the machine.
    pub(super) fn meddle(&self, request: &mut Request) -> Fate {
        let head_end = request.bytes.windows(4).position(|w| w == b"\r\n\r\n").map_or(request.bytes.len(), |at| at + 4);
        let head = String::from_utf8_lossy(request.bytes.get(..head_end).unwrap_or_default()).into_owned();
        if self.swallows(head.lines().next().unwrap_or_default()) {
            return Fate::Lost;
        }
        if *self == Self::WrongKey {
            let wrong = head.replace("oauth_signature=\"%26", "oauth_signature=\"%26x");
            let body = request.bytes.split_off(head_end);
            request.bytes = [wrong.into_bytes(), body].concat();
            return Fate::Goes;
        }
        if matches!(self, Self::Loops(text) if head.contains(text)) {
            return Fate::Loops;
        }
        let body = request.bytes.get(head_end..).unwrap_or_default();
        let says = |what: &str| find(body, what.as_bytes()).is_some();
        let ended = |name: &str| says(&format!("Finished {name}:"));
        match self {
            Self::FreezesIn(name) if ended(name) => Fate::Freezes,
            Self::RebootsIn(name) if ended(name) => Fate::Reboots,
            Self::DiesIn(name) if ended(name) => Fate::Dies,
            Self::Truncates(name) if ended(name) => {
                request.bytes.truncate(head_end + (request.bytes.len() - head_end) / 2);
                Fate::Goes
            }
            Self::ScriptFails(name) if ended(name) => {
                replace(request, b"name=\"exit_status\"\r\n\r\n0", b"name=\"exit_status\"\r\n\r\n1");
                Fate::Goes
            }
            Self::ScriptTimesOut(name) if ended(name) => {
                replace(request, b"\r\n\r\nWORKING\r\n", b"\r\n\r\nTIMEDOUT\r\n");
                replace(request, b"name=\"exit_status\"\r\n\r\n0", b"name=\"exit_status\"\r\n\r\n124");
                Fate::Goes
            }
            Self::Floods(name) if ended(name) => {
                let head = format!("filename=\"{name}.out\"\r\nContent-Type: application/octet-stream\r\n\r\n");
                let flood = [head.as_bytes(), "all work and no play\n".repeat(150_000).as_bytes()].concat();
                replace(request, head.as_bytes(), &flood);
                Fate::Goes
            }
            Self::Garbles(name) if ended(name) => {
                for file in [(*name).to_owned(), format!("{name}.out")] {
                    let head = format!("filename=\"{file}\"\r\nContent-Type: application/octet-stream\r\n\r\n");
                    let garbled = [head.as_bytes(), b"Traceback (most recent call last): "].concat();
                    replace(request, head.as_bytes(), &garbled);
                }
                Fate::Goes
            }
            Self::RunnerFails if says("\r\n\r\nOK\r\n") => {
                replace(request, b"\r\n\r\nOK\r\n", b"\r\n\r\nFAILED\r\n");
                replace(request, b"name=\"error\"\r\n\r\n", b"name=\"error\"\r\n\r\nthe disk of the system is full");
                Fate::Goes
            }
            _ => Fate::Goes,
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

fn replace(request: &mut Request, what: &[u8], by: &[u8]) {
    if let Some(at) = find(&request.bytes, what) {
        request.bytes.splice(at..at + what.len(), by.iter().copied());
    }
}

/// What befalls nodes and ways, at its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chaos {
    KillRegion,
    StartRegion,
    KillRack(usize),
    StartRack(usize),
    Cut(Way),
    Mend(Way),
    /// Nothing can be written on that rack's disk, or it can again.
    DiskFull(usize, bool),
    /// That rack's disk is mounted to be read only.
    DiskReadOnly(usize),
    /// The database does not answer for so long.
    StoreAway(Duration),
    /// Another DHCP server stands on that rack's wire, or not any more.
    Foreign(usize, bool),
    /// A body on that rack's disk is another one than its name says.
    Damage(usize, &'static str),
    /// A body on that rack's disk is gone.
    Lose(usize, &'static str),
    /// A machine's BMC starts anew: its sessions are forgotten, and it answers nothing for so long.
    RestartBmc(u32, Duration),
    /// A machine's ill begins, or ends.
    Falls(u32, Ill),
    Heals(u32),
    /// That rack's clock goes ahead by so many microseconds.
    Skew(usize, i64),
    /// That rack's link is cut and mended so often.
    Flap(usize, u32),
    /// That rack's words and those to it take so much longer.
    SlowLink(usize, Duration),
    /// Each write of that rack takes so much longer.
    SlowDisk(usize, Duration),
    /// That rack's service does not answer, and it says so.
    Dead(usize, &'static str),
    /// That rack's certificate is revoked.
    Revoke(usize),
    /// Somebody switches that machine on; it boots its disk.
    SwitchOn(u32),
    /// An old system at that machine's address asks for metadata by a key of long ago.
    OldKey(u32),
    /// Something happens after so long.
    In(Duration, Box<Self>),
}

impl World {
    pub(super) fn chaos(&mut self, chaos: Chaos) {
        self.say(&format!("chaos {chaos:?}"));
        match chaos {
            Chaos::KillRegion => self.kill_region(),
            Chaos::StartRegion => {
                self.start_region();
                self.ask_for_all();
            }
            Chaos::KillRack(rack) => self.kill_rack(rack),
            Chaos::StartRack(rack) => self.start_rack(rack),
            Chaos::Cut(Way::Region(rack)) => self.cut_link(rack, true),
            Chaos::Mend(Way::Region(rack)) => self.cut_link(rack, false),
            Chaos::Cut(way) => self.cuts.set(way, true),
            Chaos::Mend(way) => self.cuts.set(way, false),
            Chaos::DiskFull(rack, full) => {
                let disk = &mut self.racks[rack].disk;
                (disk.full, disk.refusal) = (full, "No space left on device (os error 28)");
            }
            Chaos::DiskReadOnly(rack) => {
                let disk = &mut self.racks[rack].disk;
                (disk.full, disk.refusal) = (true, "Read-only file system (os error 30)");
            }
            Chaos::StoreAway(time) => self.region.store.away = (self.queue.now, self.queue.now + time),
            Chaos::Foreign(rack, there) => {
                self.racks[rack].foreign = there.then(|| Ipv4Addr::new(192, 168, 7, 1));
            }
            Chaos::Damage(rack, name) => {
                if let Some(bytes) = self.racks[rack].disk.bodies.get_mut(&furniture::body(name).0) {
                    bytes.reverse();
                }
            }
            Chaos::Lose(rack, name) => drop(self.racks[rack].disk.bodies.remove(&furniture::body(name).0)),
            Chaos::RestartBmc(machine, time) => {
                let back = self.queue.now + time;
                if let Some(metal) = self.metals.get_mut(machine as usize) {
                    metal.controller.restart();
                    metal.bmc_away = back;
                }
            }
            Chaos::Falls(machine, ill) => self.falls(machine as usize, ill),
            Chaos::Heals(machine) => {
                if let Some(metal) = self.metals.get_mut(machine as usize) {
                    metal.ills.clear();
                    metal.controller.chassis_mut().faults = Default::default();
                }
            }
            Chaos::Skew(rack, us) => self.racks[rack].skew_us = us,
            Chaos::Flap(rack, times) => {
                for n in 0..times {
                    let at = Duration::from_secs(u64::from(n) * 9);
                    self.queue.after(at, Ev::Chaos(Chaos::Cut(Way::Region(rack))));
                    let lasts = Duration::from_secs(if n % 2 == 0 { 3 } else { 6 + u64::from(n % 3) });
                    self.queue.after(at + lasts, Ev::Chaos(Chaos::Mend(Way::Region(rack))));
                }
            }
            Chaos::SlowLink(rack, by) => self.links[rack].slower = by,
            Chaos::SlowDisk(rack, by) => self.racks[rack].disk.slower = by,
            Chaos::Dead(rack, service) => {
                self.racks[rack].dead.insert(service);
                self.tell_services(rack);
            }
            Chaos::Revoke(rack) => {
                let id = self.racks[rack].id;
                let Some(entry) = self.region.content().racks.get(&id).cloned() else { return };
                let item = CatalogueItem::Rack(RackEntry { revoked: true, ..entry });
                let event = CatalogueEvent::Put { by: "operator".into(), item };
                tell::<Catalogue>(self, Who::Catalogue, event, Tag::Nobody);
            }
            Chaos::SwitchOn(machine) => {
                let index = machine as usize;
                self.metals[index].controller.chassis_mut().set_power(true);
                let what = MetalEv::Power(PowerEvent::On(Boot::default()));
                self.queue.after(Duration::ZERO, Ev::Metal { index, what });
            }
            Chaos::OldKey(machine) => self.old_key(machine as usize),
            Chaos::In(wait, chaos) => self.queue.after(wait, Ev::Chaos(*chaos)),
        }
    }

    /// The machine is ill from now on.
    pub(super) fn falls(&mut self, index: usize, ill: Ill) {
        if let Ill::Twin(of) = ill {
            let mac = self.metals[of as usize].hardware.mac();
            self.metals[index].clone_card(mac, self.scenario.seed);
        }
        let Some(metal) = self.metals.get_mut(index) else { return };
        let faults = &mut metal.controller.chassis_mut().faults;
        match ill {
            Ill::WrongPassword => faults.wrong_password = true,
            Ill::SilentBmc => faults.silent = true,
            Ill::BusyBmc => faults.busy = true,
            Ill::LossyBmc(nth) => faults.drops_every = std::num::NonZeroU32::new(nth),
            Ill::SlowBmc(ms) => faults.slow = Duration::from_millis(ms),
            Ill::FullBmc => faults.no_sessions = true,
            Ill::LockedBmc => faults.locked = true,
            Ill::Powerless => faults.powerless = true,
            Ill::SaysOn => faults.says = Some(true),
            _ => {}
        }
        metal.ills.push(ill);
    }

    /// A request that is signed with a key that was destroyed, from the machine's address.
    fn old_key(&mut self, index: usize) {
        let Some(rack) = self.racks_on(self.metals[index].wire).next() else { return };
        let key = Key {
            consumer_key: "oldoldoldoldoldold".into(),
            token_key: "longlonglongago".into(),
            token_secret: "forgotten".into(),
        };
        let signed = key.sign("17", self.queue.now.seconds());
        let path = "/MAAS/metadata/2012-03-01/meta-data/instance-id";
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: rack\r\nAuthorization: {signed}\r\n\r\n").into_bytes();
        let to = SocketAddrV4::new(self.racks[rack].address, 5_248);
        let asked = Request { to, name: None, bytes, keep: false, head: false };
        // No machine waits for the answer.
        self.ask_rack(index, u64::MAX, rack, Duration::from_millis(1), Box::new(asked));
    }

    /// The operator asks for every machine that is New.
    pub(super) fn ask_for_all(&mut self) {
        let ids: Vec<_> = self.metals.iter().map(|metal| metal.id).collect();
        for (n, id) in (0..).zip(ids) {
            self.for_region(Duration::from_millis(200 + 7 * n), RegionEv::Commission(id));
        }
    }

    /// An operator aborts what is under way there.
    pub(super) fn abort(&mut self, index: usize) {
        let id = self.metals[index].id;
        if self.wake_machine(id) {
            let event =
                schema::messages::machine::MachineEvent::Abort { by: "operator".into(), comment: String::new() };
            tell::<actors::machine::Machine>(self, Who::Machine(id), event, Tag::Nobody);
        }
    }
}
