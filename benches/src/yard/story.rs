//! The story that `hostler dev` tells: one thing after the other goes wrong in the yard, on purpose, and heals. Each fault is real where it is
//! made: packets are late or lost, a BMC is silent, a card asks for nothing. What region and racks make of it is theirs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actors::clock;

use super::{Trouble, cable::Cable};
use crate::{
    api::Api,
    bmc::chassis::Faults,
    fleet::{Fleet, Weather, bmcs::Bmcs},
};

/// What goes wrong, in this order; each round has it from another rack and with other machines.
const ROUND: [Fault; 5] = [Fault::MuteCard, Fault::SlowRack, Fault::SilentBmc, Fault::LostLink, Fault::UnreachableRack];
/// A slow rack's packets are late by this.
const SLOW: Duration = Duration::from_millis(700);
/// How often the story looks at what it waits for.
const LOOK: Duration = Duration::from_millis(250);
/// How long it waits for a machine that is to be well again, before it goes on without it.
const PATIENCE: Duration = Duration::from_secs(300);
/// A link that is lost for less is not missed: its own idle time is 8 s.
const LINK_LOST: Duration = Duration::from_secs(12);

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    SilentBmc,
    SlowRack,
    MuteCard,
    LostLink,
    UnreachableRack,
}

/// What the story is told with.
pub struct Stage {
    pub api: Api,
    pub fleet: Fleet,
    pub bmcs: Bmcs,
    /// Each rack's way to the region.
    pub cables: Arc<[Cable]>,
    /// How long a fault lasts.
    pub lasts: Duration,
}

/// A machine that is looked at.
struct Victim {
    index: u32,
    id: String,
    name: String,
    /// Its rack's number.
    rack: u32,
}

/// How long each fault of a story lasts at that speed of the machines: 20 s at the usual one.
#[must_use]
pub fn lasts(speed: f64) -> Duration {
    let seconds = if speed > 0.0 { 200.0 / speed } else { 0.0 };
    Duration::from_secs_f64(seconds.clamp(4.0, 60.0))
}

impl Stage {
    /// Tells it for ever. `say` hears a line when a fault begins, when it ends, and when its machine is well again.
    ///
    /// # Errors
    /// When the region does not answer any more.
    pub async fn tell(&self, say: impl Fn(&str)) -> Result<(), Trouble> {
        if self.fleet.hardware().is_empty() {
            return Ok(());
        }
        for number in 0_u32.. {
            // Before the first, so that a yard that works is seen first.
            let victim = self.next_victim(number).await?;
            tokio::time::sleep(self.lasts / 2).await;
            let place = usize::try_from(number).unwrap_or(0) % ROUND.len();
            self.play(ROUND[place], &victim, &say).await?;
        }
        Ok(())
    }

    /// One fault from its beginning to the end of what it did.
    async fn play(&self, fault: Fault, victim: &Victim, say: &impl Fn(&str)) -> Result<(), Trouble> {
        let name = &victim.name;
        if fault == Fault::LostLink {
            // It goes on by itself once its orders are at the rack.
            self.commission(victim).await?;
            self.until_on(victim.index).await;
        }
        self.set(fault, victim, true);
        say(&format!("fault: {}; look: hostler explain {name}", fault.begins(victim)));
        let began = clock::tick();
        if fault != Fault::LostLink {
            self.commission(victim).await?;
        }
        let lasts = if fault == Fault::LostLink { self.lasts.max(LINK_LOST) } else { self.lasts };
        tokio::time::sleep(lasts).await;
        self.set(fault, victim, false);
        say(&format!("healed after {} s: {}", seconds(began), fault.ends(victim)));
        self.until_well(victim, began, say).await
    }

    fn set(&self, fault: Fault, victim: &Victim, wrong: bool) {
        let weather = |set: fn(&Weather)| self.fleet.weather(victim.rack).map(set).unwrap_or_default();
        match fault {
            Fault::SilentBmc => self.bmcs.set_faults(victim.index, Faults { silent: wrong, ..Faults::default() }),
            Fault::SlowRack => weather(if wrong { |w| w.slow(SLOW) } else { Weather::fair }),
            Fault::UnreachableRack => weather(if wrong { Weather::cut } else { Weather::fair }),
            Fault::LostLink => {
                if let Some(cable) = usize::try_from(victim.rack).ok().and_then(|rack| self.cables.get(rack)) {
                    cable.pull(wrong);
                }
            }
            Fault::MuteCard => {
                self.fleet.mute(victim.index, wrong);
                if !wrong && self.fleet.is_on(victim.index) {
                    self.fleet.power_off(victim.index);
                    self.fleet.power_on(victim.index, true);
                }
            }
        }
    }

    /// Waits until the machine is Ready. One whose commissioning failed meanwhile is asked for once more, as an operator would.
    async fn until_well(&self, victim: &Victim, began: Instant, say: &impl Fn(&str)) -> Result<(), Trouble> {
        let name = &victim.name;
        let mut again = false;
        let end = clock::tick() + PATIENCE;
        loop {
            match self.status(&victim.id).await?.as_str() {
                "Ready" => {
                    say(&format!("{name} is Ready, {} s after the fault began", seconds(began)));
                    return Ok(());
                }
                "Failed commissioning" if !again => {
                    again = true;
                    say(&format!("{name} had failed; it is commissioned once more"));
                    self.commission(victim).await?;
                }
                status if clock::tick() > end => {
                    say(&format!("{name} is {status} still; the story goes on. hostler explain {name}"));
                    return Ok(());
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// The next machine that is Ready, on the next rack.
    async fn next_victim(&self, number: u32) -> Result<Victim, Trouble> {
        let racks = self.fleet.racks().max(1);
        let rack = number % racks;
        let hardware = self.fleet.hardware();
        let own: Vec<_> = hardware.iter().filter(|h| h.index % racks == rack).collect();
        // A rack without machines has nothing to tell: those of all are looked at then.
        let own = if own.is_empty() { hardware.iter().collect() } else { own };
        loop {
            for place in 0..own.len() {
                let place = (place + usize::try_from(number / racks).unwrap_or(0)) % own.len();
                let index = own[place].index;
                let found = self.api.get(&format!("/MAAS/api/2.0/machines/?mac_address={}", own[place].mac())).await?;
                let text = |name: &str| found[0][name].as_str().unwrap_or_default().to_owned();
                if text("status_name") == "Ready" && !self.fleet.is_on(index) {
                    return Ok(Victim { index, id: text("system_id"), name: text("hostname"), rack: index % racks });
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn commission(&self, victim: &Victim) -> Result<(), Trouble> {
        self.api.post(&format!("/MAAS/api/2.0/machines/{}/?op=commission", victim.id), &[]).await.map(|_| ())
    }

    async fn status(&self, id: &str) -> Result<String, Trouble> {
        let machine = self.api.get(&format!("/MAAS/api/2.0/machines/{id}/")).await?;
        Ok(machine["status_name"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits until that machine is on.
    async fn until_on(&self, index: u32) {
        let end = clock::tick() + PATIENCE;
        while !self.fleet.is_on(index) && clock::tick() < end {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Fault {
    fn begins(self, victim: &Victim) -> String {
        let Victim { name, rack, .. } = victim;
        match self {
            Self::SilentBmc => format!("the BMC of {name} answers nothing"),
            Self::SlowRack => {
                format!("rack-{rack} is slow, each packet between it and its machines {} ms late", SLOW.as_millis())
            }
            Self::MuteCard => format!("{name} goes on, and its firmware never asks DHCP"),
            Self::LostLink => {
                format!("rack-{rack} has lost its link to the region, in the middle of {name}'s commissioning")
            }
            Self::UnreachableRack => format!("rack-{rack} cannot be reached by its machines"),
        }
    }

    fn ends(self, victim: &Victim) -> String {
        let Victim { name, rack, .. } = victim;
        match self {
            Self::SilentBmc => format!("the BMC of {name} answers"),
            Self::SlowRack => format!("rack-{rack} is as fast as before"),
            Self::MuteCard => format!("{name} was reset by hand and asks DHCP"),
            Self::LostLink => format!("the way from rack-{rack} to the region is open, it dials again"),
            Self::UnreachableRack => format!("rack-{rack} is reached again"),
        }
    }
}

fn seconds(since: Instant) -> u64 {
    since.elapsed().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faster_yard_tells_a_faster_story_within_bounds() {
        assert_eq!(lasts(10.0), Duration::from_secs(20));
        assert_eq!(
            (lasts(0.0), lasts(1e9), lasts(0.01)),
            (lasts(1e3), Duration::from_secs(4), Duration::from_secs(60))
        );
    }
}
