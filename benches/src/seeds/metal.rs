//! A machine of the deterministic yard with its BMC: `benches::machine` decides, this carries its packets over the weather.
//! What is wrong with a machine is done to it here, at its wires.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use rack::{dhcp::packet::MessageType, power::rmcp::BootDevice};
use schema::{id::SystemId, net::MacAddr, time::Timestamp};

use super::{
    cell::RackEv,
    controller::Controller,
    faults::{Fate, Ill},
    weather::Way,
    world::{Ev, World},
};
use crate::{
    bmc::chassis::{Boot, PowerEvent},
    hardware::Hardware,
    machine::{Action, Event, Machine, Request},
};

/// One machine.
pub(super) struct Metal {
    pub(super) id: SystemId,
    pub(super) hostname: String,
    pub(super) hardware: Arc<Hardware>,
    /// The network that it is on.
    pub(super) wire: usize,
    pub(super) bmc: String,
    machine: Machine,
    pub(super) controller: Controller,
    /// The BMC starts anew, until then.
    pub(super) bmc_away: Timestamp,
    pub(super) ip: Option<Ipv4Addr>,
    /// Counts its sockets: what is meant for an old one is lost.
    socket: u64,
    wait: u64,
    /// HTTP requests that its BMC answered.
    pub(super) http: u32,
    requests: u64,
    request: Option<u64>,
    /// It does nothing any more, whatever happens, until its power goes.
    frozen: bool,
    pub(super) ills: Vec<Ill>,
    /// Why it hung last.
    pub(super) hung: Option<String>,
    /// What the operator was refused last.
    pub(super) refused: Option<String>,
    /// How often it was switched on.
    pub(super) boots: u32,
}

/// What happens to it.
pub(super) enum MetalEv {
    Datagram {
        socket: u64,
        bytes: Vec<u8>,
    },
    Answered {
        request: u64,
        status: u16,
        body: Vec<u8>,
    },
    Failed {
        request: u64,
    },
    /// It has looked a name up, and tries what it found.
    Connect {
        request: u64,
        asked: Box<Request>,
        addresses: Vec<Ipv4Addr>,
    },
    Waited(u64),
    Power(PowerEvent),
    /// Its power goes, if that boot is still the last.
    Dies {
        boots: u32,
    },
}

impl Metal {
    pub(super) fn new(id: SystemId, hostname: String, hardware: Hardware, wire: usize, seed: u64) -> Self {
        let hardware = Arc::new(hardware);
        let [_, _, hi, lo] = (hardware.index + 1).to_be_bytes();
        Self {
            id,
            hostname,
            wire,
            bmc: format!("10.78.{hi}.{lo}"),
            machine: Machine::new(hardware.clone(), seed),
            controller: Controller::of(hardware.index),
            hardware,
            bmc_away: Timestamp(0),
            ip: None,
            socket: 0,
            wait: 0,
            http: 0,
            requests: 0,
            request: None,
            frozen: false,
            ills: Vec::new(),
            hung: None,
            refused: None,
            boots: 0,
        }
    }

    /// The machine, while it is off, with another address in its card.
    pub(super) fn clone_card(&mut self, mac: MacAddr, seed: u64) {
        let mut hardware = Hardware::clone(&self.hardware);
        hardware.nics.iter_mut().take(1).for_each(|nic| nic.mac = mac);
        self.hardware = Arc::new(hardware);
        self.machine = Machine::new(self.hardware.clone(), seed);
    }

    /// It reads no further, and does nothing any more, where its memory is too small for that file.
    pub(super) fn overflows(&mut self, path: &str) -> bool {
        let over = self.ills.contains(&Ill::LittleMemory) && path.ends_with("/squashfs");
        self.frozen |= over;
        over
    }

    /// Whether it waits for the answer to that request.
    pub(super) fn awaits(&self, request: u64) -> bool {
        self.request == Some(request)
    }

    pub(super) fn name_servers(&self) -> Vec<Ipv4Addr> {
        self.machine.name_servers().to_vec()
    }

    fn forget(&mut self) {
        self.socket += 1;
        self.wait += 1;
        (self.request, self.ip, self.frozen) = (None, None, false);
    }
}

impl World {
    pub(super) fn metal_event(&mut self, index: usize, what: MetalEv) {
        let clock = self.queue.now.seconds() + self.metals[index].ills.iter().map(Ill::skew_s).sum::<i64>();
        let metal = &mut self.metals[index];
        if metal.frozen && !matches!(what, MetalEv::Power(_) | MetalEv::Dies { .. }) {
            return;
        }
        let actions = match what {
            MetalEv::Power(event) => return self.power(index, event, clock),
            MetalEv::Dies { boots } => {
                if metal.boots == boots {
                    metal.controller.chassis_mut().set_power(false);
                    self.power(index, PowerEvent::Off, clock);
                }
                return;
            }
            MetalEv::Connect { request, asked, addresses } => return self.connect(index, request, asked, addresses),
            MetalEv::Datagram { bytes, .. } if metal.ills.iter().any(|ill| ill.is_too_long(&bytes)) => return,
            MetalEv::Datagram { socket, bytes } if socket == metal.socket => {
                metal.machine.step(Event::Datagram(&bytes), clock)
            }
            MetalEv::Answered { request, status, body } if metal.request == Some(request) => {
                (metal.request, metal.wait) = (None, metal.wait + 1);
                metal.machine.step(Event::Answered { status, body: &body }, clock)
            }
            MetalEv::Failed { request } if metal.request == Some(request) => {
                (metal.request, metal.wait) = (None, metal.wait + 1);
                metal.machine.step(Event::Failed, clock)
            }
            MetalEv::Waited(number) if number == metal.wait => {
                (metal.request, metal.wait) = (None, metal.wait + 1);
                metal.machine.step(Event::Elapsed, clock)
            }
            _ => return,
        };
        self.act(index, actions);
    }

    fn power(&mut self, index: usize, event: PowerEvent, clock: i64) {
        let metal = &mut self.metals[index];
        let boot = match event {
            PowerEvent::On(boot) => Some(boot),
            PowerEvent::Restart(boot) => Some(boot),
            PowerEvent::Off | PowerEvent::SoftOff => None,
        };
        drop(metal.machine.step(Event::PowerOff, clock));
        metal.forget();
        if event == PowerEvent::SoftOff {
            metal.controller.chassis_mut().set_power(false);
        }
        let Some(boot) = boot else { return self.say(&format!("m{index} is off")) };
        metal.boots += 1;
        metal.hung = None;
        let dies = metal.ills.iter().find_map(|ill| if let Ill::Dies(ms) = ill { Some(*ms) } else { None });
        if let Some(ms) = dies {
            let what = MetalEv::Dies { boots: metal.boots };
            self.queue.after(Duration::from_millis(ms), Ev::Metal { index, what });
        }
        let metal = &mut self.metals[index];
        let network = boot.device == BootDevice::Network && !metal.ills.contains(&Ill::DeafCard);
        let actions = metal.machine.step(Event::PowerOn { network }, clock);
        self.say(&format!("m{index} is on"));
        self.act(index, actions);
    }

    /// Does what the machine does.
    fn act(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            let metal = &mut self.metals[index];
            match action {
                Action::Dhcp { fresh, bytes } => {
                    metal.socket += u64::from(fresh);
                    self.say_dhcp(index, bytes);
                }
                Action::Address(ip) => metal.ip = Some(ip),
                Action::TftpAsk(bytes) => {
                    metal.socket += 1;
                    self.say_tftp(index, bytes);
                }
                Action::TftpSay(bytes) => self.say_tftp(index, bytes),
                Action::Http(request) => self.ask_http(index, request),
                Action::Wait(time) | Action::Expect(time) => {
                    metal.wait += 1;
                    let number = metal.wait;
                    self.queue.after(time, Ev::Metal { index, what: MetalEv::Waited(number) });
                }
                Action::Off => {
                    metal.controller.chassis_mut().set_power(false);
                    metal.forget();
                    self.say(&format!("m{index} goes off"));
                }
                Action::Hang(why) => {
                    metal.wait += 1;
                    metal.hung = Some(why.clone());
                    self.say(&format!("m{index} hangs: {why}"));
                }
            }
        }
    }

    fn say_dhcp(&mut self, index: usize, mut bytes: Vec<u8>) {
        let metal = &self.metals[index];
        let (mut wire, socket) = (metal.wire, metal.socket);
        for ill in &metal.ills {
            if let Ill::WrongWire(other) = ill {
                wire = *other;
            }
        }
        if metal.ills.iter().any(|ill| ill.loops_at(&bytes)) {
            return self.starts_anew(index, Boot { device: BootDevice::Network, ..Boot::default() });
        }
        metal.ills.iter().for_each(|ill| ill.meddle_dhcp(&mut bytes));
        for rack in self.racks_on(wire) {
            if self.cuts.has(Way::Machines(rack)) {
                continue;
            }
            if let Some(server) = self.racks[rack].foreign {
                self.foreign_answer(index, rack, server, &bytes);
            }
            for way in self.weather.datagram(&mut self.draw) {
                let what = RackEv::Dhcp { metal: index, socket, bytes: bytes.clone() };
                self.for_rack(way, rack, what);
            }
        }
    }

    /// The racks that serve a network.
    pub(super) fn racks_on(&self, wire: usize) -> std::ops::Range<usize> {
        let per = self.scenario.racks_per_wire();
        wire * per..(wire + 1) * per
    }

    pub(super) fn rack_at(&self, address: Ipv4Addr) -> Option<usize> {
        self.racks.iter().position(|rack| rack.address == address)
    }

    /// Another server on the wire is always a little faster, and names nothing to boot.
    fn foreign_answer(&mut self, index: usize, rack: usize, server: Ipv4Addr, request: &[u8]) {
        let metal = &self.metals[index];
        let socket = metal.socket;
        let kind = match request.get(242) {
            Some(1) => MessageType::Offer,
            Some(3) if request.windows(4).any(|w| w == server.octets()) => MessageType::Ack,
            _ => return,
        };
        let mut answer = request.get(..240).unwrap_or_default().to_vec();
        let [_, _, _, last] = (100 + metal.hardware.index % 100).to_be_bytes();
        answer[0] = 2;
        answer[16..20].copy_from_slice(&[192, 168, 7, last]);
        answer.extend([53, 1, kind as u8, 54, 4]);
        answer.extend(server.octets());
        answer.extend([51, 4, 0, 0, 2, 0, 255]);
        let what = MetalEv::Datagram { socket, bytes: answer };
        self.queue.after(Duration::from_micros(60), Ev::Metal { index, what });
        self.for_rack(Duration::from_micros(70), rack, RackEv::Overheard { server });
    }

    fn say_tftp(&mut self, index: usize, bytes: Vec<u8>) {
        let metal = &self.metals[index];
        let socket = metal.socket;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if metal.ills.iter().any(|ill| ill.loops_at(&bytes)) {
            return self.starts_anew(index, Boot { device: BootDevice::Network, ..Boot::default() });
        }
        let Some(rack) = self.rack_at(metal.machine.server()) else { return };
        if self.cuts.has(Way::Machines(rack)) || metal.ills.iter().any(|ill| ill.swallows(&text)) {
            return;
        }
        for way in self.weather.datagram(&mut self.draw) {
            self.for_rack(way, rack, RackEv::Tftp { metal: index, socket, bytes: bytes.clone() });
        }
    }

    fn ask_http(&mut self, index: usize, mut asked: Request) {
        let metal = &mut self.metals[index];
        metal.socket += 1;
        metal.requests += 1;
        let request = metal.requests;
        metal.request = Some(request);
        let ills = metal.ills.clone();
        for ill in &ills {
            match ill.meddle(&mut asked) {
                Fate::Goes => {}
                Fate::Lost => return,
                Fate::Freezes => {
                    metal.frozen = true;
                    return self.say(&format!("m{index} freezes"));
                }
                Fate::Dies => {
                    let what = MetalEv::Dies { boots: metal.boots };
                    return self.queue.after(Duration::ZERO, Ev::Metal { index, what });
                }
                Fate::Reboots => return self.starts_anew(index, Boot::default()),
                Fate::Loops => {
                    return self.starts_anew(index, Boot { device: BootDevice::Network, ..Boot::default() });
                }
            }
        }
        if asked.name.is_some() {
            return self.look_up(index, request, asked);
        }
        let Some(rack) = self.rack_at(*asked.to.ip()) else { return };
        if self.cuts.has(Way::Machines(rack)) {
            return;
        }
        let way = self.weather.stream(&mut self.draw) * 2;
        if !self.racks[rack].up {
            // Its host says that nobody listens.
            return self.queue.after(way, Ev::Metal { index, what: MetalEv::Failed { request } });
        }
        self.ask_rack(index, request, rack, way, Box::new(asked));
    }

    fn starts_anew(&mut self, index: usize, boot: Boot) {
        let what = MetalEv::Power(PowerEvent::Restart(boot));
        self.queue.after(Duration::from_millis(300), Ev::Metal { index, what });
    }

    pub(super) fn ask_rack(&mut self, index: usize, request: u64, rack: usize, way: Duration, asked: Box<Request>) {
        self.for_rack(way, rack, RackEv::Http { metal: index, request, asked });
    }
}
