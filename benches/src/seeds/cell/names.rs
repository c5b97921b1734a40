//! Names as machines look them up: a query to the servers of their lease, by the rack's own answer (`actors::dns`); then the addresses one
//! after the other, until one lets them in.

use std::{net::Ipv4Addr, time::Duration};

use actors::dns::{self, Transport, name, wire};

use crate::{
    machine::Request,
    seeds::{
        metal::MetalEv,
        weather::Way,
        world::{Ev, World},
    },
};

/// How long a resolver waits for a server (resolv.conf(5)).
const SERVER: Duration = Duration::from_secs(5);
/// How long the kernel looks for a neighbour that does not answer: three times a second.
const NEIGHBOUR: Duration = Duration::from_secs(3);

impl World {
    /// A machine looks its request's host up, and goes on with the addresses.
    pub(in crate::seeds) fn look_up(&mut self, index: usize, request: u64, asked: Request) {
        let (mut takes, mut found) = (Duration::ZERO, Vec::new());
        let servers = self.metals[index].name_servers();
        let racks: Vec<usize> = servers.into_iter().filter_map(|server| self.rack_at(server)).collect();
        for rack in racks {
            takes += self.weather.stream(&mut self.draw) * 2;
            if self.cuts.has(Way::Machines(rack)) {
                takes += SERVER;
            } else if self.racks[rack].up && !self.racks[rack].dead.contains("dns") {
                found = self.addresses_of(rack, asked.name.as_deref().unwrap_or_default());
                break;
            }
        }
        let what = MetalEv::Connect { request, asked: Box::new(asked), addresses: found };
        self.queue.after(takes, Ev::Metal { index, what });
    }

    /// What that rack answers.
    fn addresses_of(&mut self, rack: usize, host: &str) -> Vec<Ipv4Addr> {
        let memory = &mut self.racks[rack].memory;
        memory.turn = memory.turn.wrapping_add(1);
        let Ok(host) = host.parse() else { return Vec::new() };
        // A number, RD, one question of type A and class IN.
        let head = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let query = [&head[..], &name::wire(&host), &[0, 1, 0, 1]].concat();
        let mut out = Vec::new();
        dns::answer(&query, memory.plan.zones(), Transport::Udp, memory.turn, &mut out);
        addresses(&out, query.len()).unwrap_or_default()
    }

    /// Tries the first address; the next one when it does not let the machine in.
    pub(in crate::seeds) fn connect(
        &mut self,
        index: usize,
        request: u64,
        asked: Box<Request>,
        mut addresses: Vec<Ipv4Addr>,
    ) {
        if !self.metals[index].awaits(request) {
            return;
        }
        if addresses.is_empty() {
            return self.queue.after(Duration::ZERO, Ev::Metal { index, what: MetalEv::Failed { request } });
        }
        let address = addresses.remove(0);
        let rack = self.rack_at(address);
        let way = self.weather.stream(&mut self.draw) * 2;
        let wait = match rack {
            Some(rack) if self.cuts.has(Way::Machines(rack)) => NEIGHBOUR,
            Some(rack) if self.racks[rack].up => return self.ask_rack(index, request, rack, way, asked),
            // Its host says that nobody listens.
            Some(_) => way,
            None => NEIGHBOUR,
        };
        self.say(&format!("m{index} does not reach {address} and tries the next address"));
        self.queue.after(wait, Ev::Metal { index, what: MetalEv::Connect { request, asked, addresses } });
    }
}

/// The addresses of an answer whose records begin at `at`.
fn addresses(answer: &[u8], mut at: usize) -> Option<Vec<Ipv4Addr>> {
    let mut found = Vec::new();
    for _ in 0..wire::u16_at(answer, 6)? {
        let fixed = wire::skip_name(answer, at)?;
        let len = usize::from(wire::u16_at(answer, fixed + 8)?);
        let data = answer.get(fixed + 10..fixed + 10 + len)?;
        if wire::u16_at(answer, fixed)? == wire::A
            && let Ok(ip) = <[u8; 4]>::try_from(data)
        {
            found.push(ip.into());
        }
        at = fixed + 10 + len;
    }
    Some(found)
}
