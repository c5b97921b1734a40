//! The BMCs of the deterministic yard: the simulated IPMI and Redfish cores (`crate::bmc`) at the far end of the seeded network. Datagrams are
//! lost, come twice and out of order; HTTP is refused, slow or breaks off.

use std::{io, time::Duration};

use rack::power::redfish::talk::{Broken, Call, Pass, Reply, Told};
use schema::power::PowerType;

use super::{
    cell::{BmcEv, RackEv},
    faults::Ill,
    metal::MetalEv,
    weather::Way,
    world::{Ev, World},
};
use crate::bmc::{
    chassis::{Chassis, PowerEvent},
    ipmi, redfish,
};

/// A machine's BMC.
pub(super) enum Controller {
    Ipmi(Box<ipmi::Bmc>),
    Redfish(Box<redfish::Bmc>),
}

/// Who asks a BMC: a rack, in that life, from that socket or connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    pub(super) rack: usize,
    pub(super) life: u32,
    pub(super) socket: u64,
}

/// What reaches a BMC.
pub(super) enum Asked {
    Datagram(Vec<u8>),
    Http(Box<Call>),
}

impl Controller {
    /// That of the machine of that number: every second one speaks Redfish.
    pub(super) fn of(index: u32) -> Self {
        if index % 2 == 1 {
            return Self::Redfish(Box::new(redfish::Bmc::new(redfish::Setup::default())));
        }
        let [_, _, hi, lo] = index.to_be_bytes();
        Self::Ipmi(Box::new(ipmi::Bmc::new(ipmi::Setup::at([10, 78, hi, lo].into()))))
    }

    pub(super) fn power_type(&self) -> PowerType {
        match self {
            Self::Ipmi(_) => PowerType::Ipmi,
            Self::Redfish(_) => PowerType::Redfish,
        }
    }

    pub(super) fn chassis(&self) -> &Chassis {
        match self {
            Self::Ipmi(bmc) => &bmc.chassis,
            Self::Redfish(bmc) => &bmc.chassis,
        }
    }

    pub(super) fn chassis_mut(&mut self) -> &mut Chassis {
        match self {
            Self::Ipmi(bmc) => &mut bmc.chassis,
            Self::Redfish(bmc) => &mut bmc.chassis,
        }
    }

    /// It forgets its sessions.
    pub(super) fn restart(&mut self) {
        match self {
            Self::Ipmi(bmc) => bmc.restart(),
            Self::Redfish(bmc) => bmc.restart(),
        }
    }
}

impl World {
    pub(super) fn random(&mut self) -> [u8; 16] {
        (u128::from(self.draw.bits()) << 64 | u128::from(self.draw.bits())).to_be_bytes()
    }

    pub(super) fn bmc_hears(&mut self, index: usize, from: Caller, what: Asked) {
        let away = self.metals[index].bmc_away > self.queue.now;
        match what {
            // Its host has no network yet.
            Asked::Datagram(_) if away => {}
            Asked::Datagram(bytes) => self.bmc_datagram(index, from, &bytes),
            Asked::Http(_) if away || self.metals[index].ills.contains(&Ill::RefusesHttp) => {
                let refused = Broken::Lost(io::Error::from_raw_os_error(111).to_string());
                self.bmc_answers(index, from, Duration::ZERO, Err(refused));
            }
            Asked::Http(call) => self.bmc_http(index, from, &call),
        }
    }

    /// How long a BMC thinks: they are small computers.
    fn thinks(&mut self) -> Duration {
        Duration::from_millis(2 + self.draw.below(40))
    }

    fn switches(&mut self, index: usize, event: Option<PowerEvent>) {
        if let Some(event) = event {
            let wired = |ill: &Ill| if let Ill::WiredTo(other) = ill { Some(*other as usize) } else { None };
            let index = self.metals[index].ills.iter().find_map(wired).unwrap_or(index);
            self.queue.after(Duration::from_millis(5), Ev::Metal { index, what: MetalEv::Power(event) });
        }
    }

    fn bmc_datagram(&mut self, index: usize, from: Caller, bytes: &[u8]) {
        let (random, now, thinks) = (self.random(), self.queue.now, self.thinks());
        let Controller::Ipmi(bmc) = &mut self.metals[index].controller else { return };
        let answer = bmc.answer(bytes, random, now);
        self.switches(index, answer.event);
        let Some(reply) = answer.reply.filter(|_| !self.cuts.has(Way::Bmcs(from.rack))) else { return };
        for way in self.weather.datagram(&mut self.draw) {
            let what = BmcEv::Said { socket: from.socket, bytes: reply.clone() };
            self.answer_caller(index, from, thinks + answer.after + way, what);
        }
    }

    fn bmc_http(&mut self, index: usize, from: Caller, call: &Call) {
        let (random, now, thinks) = (u128::from_be_bytes(self.random()), self.queue.now, self.thinks());
        let metal = &mut self.metals[index];
        let breaks = metal.ills.iter().find_map(|ill| if let Ill::BreaksHttp(nth) = ill { Some(*nth) } else { None });
        metal.http += 1;
        let breaks = breaks.is_some_and(|nth| metal.http.is_multiple_of(nth));
        let Controller::Redfish(bmc) = &mut metal.controller else { return };
        let body = call.body.as_ref().map(ToString::to_string).unwrap_or_default();
        let request = redfish::Request {
            method: call.method.as_str(),
            path: call.url.path(),
            token: if let Pass::Token(token) = &call.pass { Some(token.expose()) } else { None },
            basic: if let Pass::Basic { user, password } = &call.pass { Some((user, password.expose())) } else { None },
            if_match: call.if_match.as_deref(),
            body: body.as_bytes(),
        };
        let answer = bmc.answer(&request, random, now);
        self.switches(index, answer.event);
        let Some(mut reply) = answer.status.and_then(Reply::of) else { return };
        let head = |name: &str| answer.headers.iter().find(|(known, _)| *known == name).map(|(_, v)| v.clone());
        (reply.etag, reply.location, reply.token) = (head("etag"), head("location"), head("x-auth-token"));
        reply.body = answer.body.unwrap_or_default();
        let broken = Broken::Lost("connection closed before message completed".into());
        self.bmc_answers(index, from, thinks + answer.after, if breaks { Err(broken) } else { Ok(reply) });
    }

    fn bmc_answers(&mut self, index: usize, from: Caller, after: Duration, reply: Result<Reply, Broken>) {
        if self.cuts.has(Way::Bmcs(from.rack)) {
            return;
        }
        let way = self.weather.stream(&mut self.draw);
        self.answer_caller(index, from, after + way, BmcEv::Told { request: from.socket, told: Told::Reply(reply) });
    }

    /// What is for a rack that has died since is lost.
    fn answer_caller(&mut self, index: usize, from: Caller, wait: Duration, what: BmcEv) {
        let what = RackEv::Bmc(self.metals[index].id, what);
        self.queue.after(wait, Ev::Rack { rack: from.rack, life: from.life, what });
    }
}
