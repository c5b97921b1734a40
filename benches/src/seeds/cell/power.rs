//! The power drivers of a rack of the deterministic yard: the product's own sessions and runs (`rack::power`), their packets over the weather.
//! And its sweep, as `rack::sweep` has it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use actors::{
    errand::{Errand, ErrandEvent, PowerFault, Ran},
    sweep::Sweep,
};
use rack::{
    power::{
        PowerSettings,
        ipmi::{
            self,
            session::{Move, Session, Then},
            target::Target,
        },
        redfish::{
            self,
            run::{Run, Then as Next},
            talk::{Ask, Broken, Stop, Talk, Told},
        },
        rmcp::Event,
    },
    sweep::{AT_ONCE, state_of},
};
use schema::{
    id::{AttemptId, SystemId},
    messages::link::SweepUpdate,
    power::{PowerAccess, PowerAction, PowerType},
    time::Timestamp,
};

use super::RackEv;
use crate::seeds::{
    controller::{Asked, Caller},
    hosted::{Tag, Who, tell},
    weather::Way,
    world::{Ev, World},
};

/// Where a rack keeps certificates' hashes: nobody has TLS here.
const PINS: &str = "the rack's memory";

/// What a rack has in memory for BMCs.
pub(in crate::seeds) struct Power {
    runs: BTreeMap<SystemId, Driving>,
    /// Sessions and logins that are kept for the next run.
    kept: BTreeMap<SystemId, (Speech, u64)>,
    sweep: Sweep,
    access: BTreeMap<SystemId, PowerAccess>,
    /// Of the sweep's timers only the last counts.
    turn: u64,
}

impl Default for Power {
    fn default() -> Self {
        let sweep = Sweep::new(PowerSettings::default().sweep);
        Self { runs: BTreeMap::new(), kept: BTreeMap::new(), sweep, access: BTreeMap::new(), turn: 0 }
    }
}

/// Who a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Errand(u32),
    Sweep,
}

/// A driver's run under way.
struct Driving {
    whose: Whose,
    /// Its own number.
    number: u64,
    /// The socket that it speaks from, or the request that is out.
    socket: u64,
    /// The wait that counts.
    wait: u64,
    host: String,
    began: Timestamp,
    speech: Speech,
}

enum Speech {
    Ipmi(Box<Session>),
    Redfish(Box<Run>),
    /// A login that is kept.
    LoggedIn(Box<Talk>),
}

/// What happens to a run.
pub(in crate::seeds) enum BmcEv {
    /// A datagram of the BMC.
    Said { socket: u64, bytes: Vec<u8> },
    /// Its console has waited for long enough.
    Waited(u64),
    /// What came of a request.
    Told { request: u64, told: Told },
    /// The run of that number has taken longer than it may.
    Late(u64),
    /// What was kept under that number is not used any more.
    Idle(u64),
}

impl World {
    fn number(&mut self, rack: usize) -> u64 {
        self.racks[rack].numbers += 1;
        self.racks[rack].numbers
    }

    fn drivers(&mut self, rack: usize) -> &mut Power {
        &mut self.racks[rack].memory.power
    }

    /// Runs the driver once.
    pub(super) fn drive(
        &mut self,
        rack: usize,
        machine: SystemId,
        whose: Whose,
        action: PowerAction,
        access: &PowerAccess,
    ) {
        self.end_run(rack, machine);
        let (number, fresh, began) = (self.number(rack), self.number(rack), self.rack_now(rack));
        let kept = self.drivers(rack).kept.remove(&machine);
        let limit = PowerSettings::default().timeout;
        let driving = |socket, host, speech| Driving { whose, number, socket, wait: 0, host, began, speech };
        match access.power_type {
            PowerType::Manual => self.driven(rack, machine, whose, began, Ok(Ran::ByHand)),
            PowerType::Ipmi => {
                let target = match Target::check(access) {
                    Ok(target) => target,
                    Err(fault) => return self.driven(rack, machine, whose, began, Err(fault)),
                };
                let (mut session, socket) = match kept {
                    Some((Speech::Ipmi(session), socket)) => (session, socket),
                    _ => (Box::new(Session::new(Arc::new(target.login()))), fresh),
                };
                let first = session.begin(action, target.efi, || random(&mut self.draw), began);
                self.run_ends_at(rack, machine, number, limit);
                self.go_on(rack, machine, driving(socket, target.host.clone(), Speech::Ipmi(session)), first);
            }
            PowerType::Redfish => {
                let (talk, host) = match redfish::login(access) {
                    Ok(known) => known,
                    Err(fault) => return self.driven(rack, machine, whose, began, Err(fault)),
                };
                let talk = if let Some((Speech::LoggedIn(kept), _)) = kept { *kept } else { talk };
                let run = Box::new(Run::new(talk, action, redfish::boot_mode(access)));
                self.run_ends_at(rack, machine, number, limit * redfish::REQUESTS);
                self.converse(rack, machine, driving(fresh, host, Speech::Redfish(run)), None);
            }
        }
    }

    fn run_ends_at(&mut self, rack: usize, machine: SystemId, number: u64, limit: Duration) {
        self.for_rack(limit, rack, RackEv::Bmc(machine, BmcEv::Late(number)));
    }

    pub(super) fn bmc_event(&mut self, rack: usize, machine: SystemId, what: BmcEv) {
        if let BmcEv::Idle(socket) = what {
            return self.part(rack, machine, socket);
        }
        let now = self.rack_now(rack);
        let Some(mut driving) = self.drivers(rack).runs.remove(&machine) else { return };
        match (what, &mut driving.speech) {
            (BmcEv::Said { socket, bytes }, Speech::Ipmi(session)) if socket == driving.socket => {
                let next = session.step(&Event::Heard(&bytes), || random(&mut self.draw), now);
                self.go_on(rack, machine, driving, next);
            }
            (BmcEv::Waited(wait), Speech::Ipmi(session)) if wait == driving.wait => {
                let next = session.step(&Event::Elapsed, || random(&mut self.draw), now);
                self.go_on(rack, machine, driving, next);
            }
            (BmcEv::Told { request, told }, Speech::Redfish(_)) if request == driving.socket => {
                self.converse(rack, machine, driving, Some(told));
            }
            (BmcEv::Late(number), speech) if number == driving.number => {
                let fault = match speech {
                    Speech::Ipmi(_) => ipmi::late(&driving.host, PowerSettings::default().timeout),
                    _ => redfish::fault_of(&driving.host, Stop::Late, PINS),
                };
                let (whose, began) = (driving.whose, driving.began);
                self.hang_up(rack, machine, driving);
                self.driven(rack, machine, whose, began, Err(fault));
            }
            _ => drop(self.drivers(rack).runs.insert(machine, driving)),
        }
    }

    /// What an IPMI session wants next.
    fn go_on(&mut self, rack: usize, machine: SystemId, mut driving: Driving, next: Move) {
        for bytes in next.send {
            self.send_datagram(rack, machine, driving.socket, &bytes);
        }
        match next.then {
            Then::Wait(wait) => {
                driving.wait = self.number(rack);
                let what = RackEv::Bmc(machine, BmcEv::Waited(driving.wait));
                self.for_rack(wait.until.since(wait.since), rack, what);
            }
            Then::Ignored(_) => {}
            Then::Ended(result) => {
                let Driving { whose, host, began, speech, socket, .. } = driving;
                if matches!(&speech, Speech::Ipmi(session) if session.is_open()) {
                    self.keep_speech(rack, machine, speech, socket, ipmi::KEPT);
                }
                let result = result.map_err(|failure| ipmi::fault_of(&host, failure));
                return self.driven(rack, machine, whose, began, result);
            }
        }
        self.drivers(rack).runs.insert(machine, driving);
    }

    fn send_datagram(&mut self, rack: usize, machine: SystemId, socket: u64, bytes: &[u8]) {
        let Some(index) = self.by_id.get(&machine).copied() else { return };
        if self.cuts.has(Way::Bmcs(rack)) {
            return;
        }
        let from = Caller { rack, life: self.racks[rack].life, socket };
        for way in self.weather.datagram(&mut self.draw) {
            self.queue.after(way, Ev::Bmc { index, from, what: Asked::Datagram(bytes.to_vec()) });
        }
    }

    /// What a Redfish conversation wants next.
    fn converse(&mut self, rack: usize, machine: SystemId, mut driving: Driving, told: Option<Told>) {
        let Speech::Redfish(run) = &mut driving.speech else { return };
        let next = run.step(told);
        let request = self.number(rack);
        driving.socket = request;
        match next {
            Next::Ask(Ask::Pause(time)) => {
                self.for_rack(time, rack, RackEv::Bmc(machine, BmcEv::Told { request, told: Told::Rested }));
            }
            Next::Ask(Ask::Call(call)) => {
                let late = BmcEv::Told { request, told: Told::Reply(Err(Broken::Late)) };
                self.for_rack(PowerSettings::default().timeout, rack, RackEv::Bmc(machine, late));
                let index = self.by_id.get(&machine).copied();
                if let Some(index) = index.filter(|_| !self.cuts.has(Way::Bmcs(rack))) {
                    let from = Caller { rack, life: self.racks[rack].life, socket: request };
                    let way = self.weather.stream(&mut self.draw);
                    self.queue.after(way, Ev::Bmc { index, from, what: Asked::Http(call) });
                }
            }
            Next::Ended(talk, ran) => {
                if let Some(talk) = talk {
                    self.keep_speech(rack, machine, Speech::LoggedIn(talk), request, redfish::IDLE);
                }
                let result = ran.map_err(|stop| redfish::fault_of(&driving.host, stop, PINS));
                return self.driven(rack, machine, driving.whose, driving.began, result);
            }
        }
        self.drivers(rack).runs.insert(machine, driving);
    }

    fn keep_speech(&mut self, rack: usize, machine: SystemId, speech: Speech, number: u64, time: Duration) {
        self.drivers(rack).kept.insert(machine, (speech, number));
        self.for_rack(time, rack, RackEv::Bmc(machine, BmcEv::Idle(number)));
    }

    /// A run is over.
    fn driven(
        &mut self,
        rack: usize,
        machine: SystemId,
        whose: Whose,
        began: Timestamp,
        result: Result<Ran, PowerFault>,
    ) {
        match whose {
            Whose::Errand(run) => {
                tell::<Errand>(self, Who::Errand(rack, machine), ErrandEvent::Ran { run, result }, Tag::Nobody);
            }
            Whose::Sweep => self.swept(rack, machine, began, result),
        }
    }

    /// A kept session that is not used ends.
    fn part(&mut self, rack: usize, machine: SystemId, number: u64) {
        let kept = &mut self.drivers(rack).kept;
        if kept.get(&machine).is_none_or(|(_, known)| *known != number) {
            return;
        }
        match kept.remove(&machine) {
            Some((Speech::Ipmi(mut session), socket)) => self.close(rack, machine, &mut session, socket),
            // Nobody waits for the answer.
            Some((Speech::LoggedIn(talk), _)) => {
                if let Next::Ask(Ask::Call(call)) = Run::log_out(*talk).step(None)
                    && let Some(index) = self.by_id.get(&machine).copied()
                    && !self.cuts.has(Way::Bmcs(rack))
                {
                    let from = Caller { rack, life: self.racks[rack].life, socket: number };
                    let way = self.weather.stream(&mut self.draw);
                    self.queue.after(way, Ev::Bmc { index, from, what: Asked::Http(call) });
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, rack: usize, machine: SystemId, session: &mut Session, socket: u64) {
        let (random, now) = (self.random(), self.rack_now(rack));
        if let Some(bytes) = session.close(random, now) {
            self.send_datagram(rack, machine, socket, &bytes);
        }
    }

    /// A run that is dropped closes its session.
    fn hang_up(&mut self, rack: usize, machine: SystemId, driving: Driving) {
        if let Speech::Ipmi(mut session) = driving.speech {
            self.close(rack, machine, &mut session, driving.socket);
        }
    }

    fn end_run(&mut self, rack: usize, machine: SystemId) {
        if let Some(driving) = self.drivers(rack).runs.remove(&machine) {
            self.hang_up(rack, machine, driving);
        }
    }

    /// The errand wants no answer any more.
    pub(super) fn stop_run(&mut self, rack: usize, machine: SystemId, run: u32) {
        if self.drivers(rack).runs.get(&machine).is_some_and(|driving| driving.whose == Whose::Errand(run)) {
            self.end_run(rack, machine);
        }
    }

    /// An order for that machine came: the sweep leaves its BMC alone.
    pub(super) fn stand_aside(&mut self, rack: usize, machine: SystemId) {
        if self.drivers(rack).runs.get(&machine).is_some_and(|driving| driving.whose == Whose::Sweep) {
            self.end_run(rack, machine);
        }
        let now = self.rack_now(rack);
        self.drivers(rack).sweep.left_alone(machine, now);
    }

    /// The region says whom to watch.
    pub(super) fn watch_power(&mut self, rack: usize, update: SweepUpdate) {
        let now = self.rack_now(rack);
        let put: Vec<SystemId> = update.put.iter().map(|target| target.machine).collect();
        let watched: Vec<SystemId> = self.drivers(rack).sweep.watched().collect();
        let gone = watched.into_iter().filter(|machine| update.replace && !put.contains(machine));
        for machine in gone.chain(update.remove).collect::<Vec<_>>() {
            if self.drivers(rack).runs.get(&machine).is_some_and(|driving| driving.whose == Whose::Sweep) {
                self.end_run(rack, machine);
            }
            let power = self.drivers(rack);
            power.sweep.forget(machine);
            power.access.remove(&machine);
        }
        for target in update.put {
            let draw = share(&mut self.draw);
            let power = self.drivers(rack);
            let anew = power.access.get(&target.machine).is_some_and(|known| *known != target.access);
            power.sweep.watch(target.machine, anew, now, draw);
            power.access.insert(target.machine, target.access);
        }
        self.sweep_soon(rack);
    }

    fn sweep_soon(&mut self, rack: usize) {
        let (now, turn) = (self.rack_now(rack), self.number(rack));
        let power = self.drivers(rack);
        power.turn = turn;
        let asking = power.runs.values().filter(|driving| driving.whose == Whose::Sweep).count();
        // With all places taken, the next answer wakes the sweep.
        let next = power.sweep.next().filter(|_| asking < AT_ONCE);
        if let Some(next) = next {
            self.for_rack(next.since(now), rack, RackEv::Sweep(turn));
        }
    }

    /// Asks who is due.
    pub(super) fn sweep_due(&mut self, rack: usize, turn: u64) {
        let now = self.rack_now(rack);
        if self.drivers(rack).turn != turn || self.still.is_some_and(|still| self.queue.now >= still) {
            return;
        }
        let asking = self.drivers(rack).runs.values().filter(|driving| driving.whose == Whose::Sweep).count();
        for machine in self.drivers(rack).sweep.due(AT_ONCE.saturating_sub(asking), now) {
            let errand = self.racks[rack].memory.errands.get(&machine);
            let busy = errand.is_some_and(|errand| errand.core.under_way().is_some());
            match self.drivers(rack).access.get(&machine).cloned().filter(|_| !busy) {
                Some(access) => self.drive(rack, machine, Whose::Sweep, PowerAction::Query, &access),
                None => self.drivers(rack).sweep.left_alone(machine, now),
            }
        }
        self.sweep_soon(rack);
    }

    fn swept(&mut self, rack: usize, machine: SystemId, began: Timestamp, result: Result<Ran, PowerFault>) {
        let (now, draw) = (self.rack_now(rack), share(&mut self.draw));
        let answer = state_of(result);
        let fact = self.drivers(rack).sweep.answered(machine, &answer, now.since(began), now, draw);
        let index = self.by_id.get(&machine).copied().unwrap_or_default();
        let said = answer.map_or_else(|fault| fault.why, |state| state.label().to_owned());
        self.say(&format!("r{rack} sweep m{index}: {said}{}", if fact.is_some() { ", reported" } else { "" }));
        if let Some(fact) = fact {
            self.report(rack, machine, AttemptId(0), fact);
        }
        self.sweep_soon(rack);
    }
}

/// Drawn anew for every packet.
fn random(draw: &mut crate::hardware::Draw) -> [u8; 16] {
    (u128::from(draw.bits()) << 64 | u128::from(draw.bits())).to_be_bytes()
}

/// Something in 0..1.
fn share(draw: &mut crate::hardware::Draw) -> f64 {
    f64::from(u32::try_from(draw.below(1_000)).unwrap_or(0)) / 1_000.0
}
