//! The link between region and racks in the deterministic yard: ordered, whole, with an end. QUIC's place is taken; what is said over it is real.

use std::time::Duration;

use schema::{
    id::ReportSeq,
    messages::link::{FromRack, ToRack},
    time::Timestamp,
};

use super::{
    weather::Way,
    world::{Ev, World},
};

/// As `actors::link::Timing` has them.
const IDLE: Duration = Duration::from_secs(8);
const BACK_OFF: Duration = Duration::from_millis(250);
const BACK_OFF_MOST: Duration = Duration::from_secs(30);

/// One rack's link.
#[derive(Default)]
pub(super) struct Link {
    /// Counts the connections; 0: never connected.
    pub(super) number: u64,
    /// What each side believes.
    pub(super) region_up: bool,
    pub(super) rack_up: bool,
    /// When the last word arrives, by direction: a stream keeps its order.
    to_rack: Timestamp,
    from_rack: Timestamp,
    /// Counts the cuts, so that an end of patience belongs to one of them.
    pub(super) cut: u64,
    /// What was said while the way was cut: sent again when it is whole, if the connection still stands.
    held: Vec<Ev>,
    pause: Duration,
    /// Each word takes so much longer.
    pub(super) slower: Duration,
    /// What the region said it has when the link came up.
    pub(super) welcome: ReportSeq,
}

impl World {
    fn is_cut(&self, rack: usize) -> bool {
        self.cuts.has(Way::Region(rack))
    }

    /// The rack's next try.
    pub(super) fn dial_later(&mut self, rack: usize) {
        let link = &mut self.links[rack];
        let whole = link.pause.max(BACK_OFF);
        link.pause = (whole * 2).min(BACK_OFF_MOST);
        let half = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX);
        let wait = Duration::from_micros(half + self.draw.below(half.max(1)));
        let life = self.racks[rack].life;
        self.queue.after(wait, Ev::Dial { rack, life });
    }

    pub(super) fn dial(&mut self, rack: usize, life: u32) {
        if !self.racks[rack].up || self.racks[rack].life != life || self.links[rack].rack_up {
            return;
        }
        let revoked = self.region.content().racks.get(&self.racks[rack].id).is_some_and(|entry| entry.revoked);
        if self.is_cut(rack) || !self.region.up || revoked {
            // A rack that is not admitted is told so; the region's host answers that nobody listens; a cut way says nothing.
            return self.dial_later(rack);
        }
        let way = self.weather.stream(&mut self.draw) * 3;
        let link = &mut self.links[rack];
        link.number += 1;
        link.pause = Duration::ZERO;
        let number = link.number;
        (link.to_rack, link.from_rack) = (self.queue.now, self.queue.now);
        link.held.clear();
        link.region_up = true;
        link.rack_up = false;
        let last = self.admit(rack);
        self.links[rack].welcome = last;
        self.say(&format!("link r{rack} connects for the time {number}"));
        self.queue.after(way, Ev::Welcome { rack, number });
    }

    pub(super) fn welcome(&mut self, rack: usize, number: u64) {
        let link = &mut self.links[rack];
        if link.number != number || !link.region_up || !self.racks[rack].up {
            return;
        }
        link.rack_up = true;
        let last = link.welcome;
        self.rack_linked(rack, last);
    }

    /// The region says it to that rack.
    pub(super) fn say_to_rack(&mut self, rack: usize, message: ToRack) {
        let number = self.links[rack].number;
        if !self.links[rack].region_up {
            return; // It is said again when the rack is back.
        }
        let event = Ev::ToRack { rack, number, message: Box::new(message) };
        if self.is_cut(rack) {
            return self.links[rack].held.push(event);
        }
        let at = self.queue.now + self.links[rack].slower + self.weather.stream(&mut self.draw);
        let link = &mut self.links[rack];
        link.to_rack = link.to_rack.max(at);
        self.queue.at(link.to_rack, event);
    }

    /// The rack says it to the region. `false`: no link.
    pub(super) fn say_to_region(&mut self, rack: usize, message: FromRack) -> bool {
        let number = self.links[rack].number;
        if !self.links[rack].rack_up {
            return false;
        }
        let event = Ev::FromRack { rack, number, message: Box::new(message) };
        if self.is_cut(rack) {
            self.links[rack].held.push(event);
            return true;
        }
        let at = self.queue.now + self.links[rack].slower + self.weather.stream(&mut self.draw);
        let link = &mut self.links[rack];
        link.from_rack = link.from_rack.max(at);
        self.queue.at(link.from_rack, event);
        true
    }

    pub(super) fn reached_rack(&mut self, rack: usize, number: u64, message: ToRack) {
        if self.links[rack].number == number && self.links[rack].rack_up && self.racks[rack].up {
            self.rack_hears(rack, message);
        }
    }

    pub(super) fn reached_region(&mut self, rack: usize, number: u64, message: FromRack) {
        if self.links[rack].number == number && self.links[rack].region_up && self.region.up {
            self.region_hears(rack, message);
        }
    }

    /// The way is cut, or whole again.
    pub(super) fn cut_link(&mut self, rack: usize, cut: bool) {
        self.cuts.set(Way::Region(rack), cut);
        self.links[rack].cut += 1;
        if cut {
            return self.patience(rack);
        }
        let mut held = std::mem::take(&mut self.links[rack].held);
        for event in held.drain(..) {
            let way = self.weather.stream(&mut self.draw);
            let now = self.queue.now;
            let link = &mut self.links[rack];
            let last = if matches!(event, Ev::ToRack { .. }) { &mut link.to_rack } else { &mut link.from_rack };
            *last = (*last).max(now + way);
            let at = *last;
            self.queue.at(at, event);
        }
    }

    /// After so much silence each side takes the other for gone.
    fn patience(&mut self, rack: usize) {
        let (number, cut) = (self.links[rack].number, self.links[rack].cut);
        self.queue.after(IDLE, Ev::Idle { rack, number, cut });
    }

    pub(super) fn idle(&mut self, rack: usize, number: u64, cut: u64) {
        if self.links[rack].number == number && self.links[rack].cut == cut {
            self.end_link(rack, "no answer");
        }
    }

    /// Both sides know that the connection is over.
    pub(super) fn end_link(&mut self, rack: usize, why: &str) {
        let link = &mut self.links[rack];
        let (region, own) = (link.region_up, link.rack_up);
        (link.region_up, link.rack_up) = (false, false);
        link.held.clear();
        if region && self.region.up {
            self.rack_gone(rack, why);
        }
        if self.racks[rack].up {
            if own {
                self.rack_unlinked(rack, why);
            }
            self.dial_later(rack);
        }
    }

    /// One side has died: the other learns it by silence.
    pub(super) fn half_dead(&mut self, rack: usize) {
        self.links[rack].cut += 1;
        self.patience(rack);
    }
}
