//! Whether a rack can be counted on now, and for what: the one answer behind plans, names, orders, tickets and every page.

use schema::{
    catalogue::RackEntry,
    messages::machine::Ailment,
    service::{Health, ServiceStatus},
};
use serde::Serialize;

use super::{LinkState, Rack};

/// What a rack may be wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Machines are led to it by name: metadata, packages, syslog.
    Names,
    /// It holds tickets: boots machines, from their first DHCP message on, and hears them.
    Boot,
    /// It leases addresses.
    Dhcp,
    /// It switches machines.
    Power,
}

impl Duty {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Names, Self::Boot, Self::Dhcp, Self::Power];

    /// Without which service it cannot do that.
    #[must_use]
    pub fn service(self) -> &'static str {
        match self {
            Self::Names | Self::Boot => "http",
            Self::Dhcp => "dhcp",
            Self::Power => "power",
        }
    }
}

/// Why a rack is not counted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfit {
    pub why: String,
    pub remedy: String,
}

impl From<Unfit> for Ailment {
    fn from(Unfit { why, remedy }: Unfit) -> Self {
        Self { serves: false, why, remedy }
    }
}

impl Unfit {
    fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

/// Without which no machine boots.
const BOOTS: [&str; 4] = [ServiceStatus::DISK, "dhcp", "tftp", "http"];

/// Without which those machines boot that go by addresses.
const HELPS: [&str; 1] = ["dns"];

/// What a service says of itself.
fn told(status: &ServiceStatus) -> (String, String) {
    let unsaid = || ("it does not say why".to_owned(), "see the rack's log".to_owned());
    status.last_error.as_ref().map_or_else(unsaid, |error| (error.why.clone(), error.remedy.clone()))
}

impl Rack {
    /// Whether it is there and speaks: linked, enrolled still, and not silent.
    ///
    /// # Errors
    /// Why not.
    pub fn alive(&self, entry: &RackEntry) -> Result<(), Unfit> {
        let see = "look at the rack's host and its log; what it holds goes on without the region";
        match (self.link, self.silent) {
            _ if entry.revoked => Err(Unfit::new("its certificate was revoked", "enrol it anew")),
            (LinkState::Connected, None) => Ok(()),
            (LinkState::Connected, Some(since)) => {
                Err(Unfit::new(format!("it has said nothing of its services since {since}"), see))
            }
            (LinkState::Enrolled, _) => {
                Err(Unfit::new("it has never connected", "start it, and let its UDP reach the region's port 5250"))
            }
            (LinkState::Disconnected | LinkState::Lost, _) => {
                Err(Unfit::new(format!("its link is down since {}", self.since), see))
            }
        }
    }

    /// Whether it was there a moment ago and may be back before anybody notices: its link is down and not lost, or it is silent. Work for
    /// which there is no other rack waits for it. `linked`: it is connected to this region as it runs now.
    #[must_use]
    pub fn is_awaited(&self, entry: &RackEntry, linked: bool) -> bool {
        let away = match self.link {
            LinkState::Connected => !linked || self.silent.is_some(),
            LinkState::Disconnected => true,
            LinkState::Enrolled | LinkState::Lost => false,
        };
        away && !entry.revoked && entry.drained.is_none()
    }

    /// Whether new work of that kind may be given to it. The one definition of a healthy rack.
    ///
    /// # Errors
    /// Why not.
    pub fn fit(&self, duty: Duty, entry: &RackEntry) -> Result<(), Unfit> {
        self.alive(entry)?;
        if let Some(since) = entry.drained {
            let undo = format!("hostler rack drain {} --undo", entry.hostname);
            return Err(Unfit::new(format!("it is drained since {since}"), undo));
        }
        // Before its first word it is taken for what it was started as.
        if self.services.is_empty() {
            return Ok(());
        }
        if let Some(disk) = self.services.iter().find(|s| s.service == ServiceStatus::DISK) {
            let (why, remedy) = told(disk);
            return Err(Unfit::new(format!("its disk: {why}"), remedy));
        }
        self.serves(duty.service(), true)?;
        match duty {
            // Firmware asks for an address first, and most of it fetches its loader by TFTP.
            Duty::Boot => self.serves("dhcp", true).and_then(|()| self.serves("tftp", false)),
            Duty::Names | Duty::Dhcp | Duty::Power => Ok(()),
        }
    }

    /// Whether a service serves; `needed`: one that was switched off, too, is a lack.
    fn serves(&self, service: &str, needed: bool) -> Result<(), Unfit> {
        match self.services.iter().find(|s| s.service == service) {
            Some(ServiceStatus { health: Health::Running | Health::Degraded, .. }) => Ok(()),
            Some(ServiceStatus { health: Health::Off, .. }) | None if needed => {
                Err(Unfit::new(format!("it does not serve {service}"), format!("name {service} in its rack.only")))
            }
            Some(ServiceStatus { health: Health::Off, .. }) | None => Ok(()),
            Some(ServiceStatus { last_error: Some(error), .. }) => {
                Err(Unfit::new(format!("its {service} is dead: {}", error.why), error.remedy.clone()))
            }
            Some(_) => Err(Unfit::new(format!("its {service} is dead"), "see the rack's log")),
        }
    }

    /// What keeps it from booting machines, or from doing so well, by its own word or its silence.
    #[must_use]
    pub fn ailment(&self) -> Option<Ailment> {
        if self.revoked {
            let remedy = "enrol it anew with a fresh token; what it sees meanwhile reaches nobody".into();
            return Some(Ailment { serves: false, why: super::REVOKED.into(), remedy });
        }
        if let Some(since) = self.silent {
            let remedy = "look at the rack's log; restart it if it hangs".into();
            let why = format!("it has said nothing of its services since {since}");
            return Some(Ailment { serves: false, why, remedy });
        }
        let of = |health, among: &'static [&'static str]| {
            self.services.iter().find(move |s| s.health == health && among.contains(&s.service.as_str()))
        };
        let dead = || of(Health::Dead, &BOOTS).map(|s| (s, false));
        let lame = || of(Health::Dead, &HELPS).or_else(|| of(Health::Degraded, &BOOTS)).map(|s| (s, true));
        let (status, serves) = dead().or_else(lame)?;
        let (why, remedy) = told(status);
        let word = if status.health == Health::Degraded { "serves in part" } else { "does not serve" };
        Some(Ailment { serves, why: format!("its {} {word}: {why}", status.service), remedy })
    }

    /// A service in MAAS's words: `unknown` where the rack cannot be asked.
    #[must_use]
    pub fn word(&self, status: &ServiceStatus) -> &'static str {
        match (self.link, self.silent, status.health) {
            (LinkState::Connected, None, Health::Running) => "running",
            (LinkState::Connected, None, Health::Degraded) => "degraded",
            (LinkState::Connected, None, Health::Dead) => "dead",
            (_, _, Health::Off) => "off",
            _ => "unknown",
        }
    }
}
