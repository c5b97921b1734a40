//! Power drivers behind one door: one run at a time per BMC, a bounded number in all. When to run and when to stop is the errand's decision.

pub mod dialogue;
pub mod ipmi;
pub mod manual;
pub mod redfish;
pub mod rmcp;

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use actors::errand::{FaultKind, PowerFault, Ran};
use schema::{
    power::{PowerAccess, PowerAction, PowerType, split_address},
    service::Health,
};
use tokio::sync::Semaphore;

use crate::service::{Meter, Serving, Stopping};

/// The answer of a driver, when it comes. Dropping it ends the run, whatever it waits for.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Ran, PowerFault>> + Send + 'a>>;

/// A way to switch machines. One call is one run: it has an end of its own, and never tries again by itself.
pub trait Power: Send + Sync {
    /// Carries `action` out once.
    fn run<'a>(&'a self, action: PowerAction, access: &'a PowerAccess) -> Running<'a>;
}

/// What the drivers of a rack may be told.
#[derive(Debug, Clone)]
pub struct PowerSettings {
    /// How IPMI is spoken.
    pub ipmi: ipmi::IpmiBy,
    /// How certificates of Redfish services are looked at.
    pub redfish_tls: redfish::RedfishTls,
    /// The file that keeps those certificates' hashes; without one they are kept until the process ends.
    pub pins: Option<PathBuf>,
    /// The program that speaks IPMI.
    pub ipmitool: PathBuf,
    /// How long one run of a driver (one call of the program) may take.
    pub timeout: Duration,
    /// Runs at once, over all BMCs. 1 to 1,024. A silent BMC holds its place until it is given up.
    pub at_once: usize,
    /// BMCs on loopback alone are spoken to: a yard beside a real network switches nothing there.
    pub loopback_only: bool,
    /// How often a BMC that answers is asked for the power state when nothing else goes on.
    pub sweep: Duration,
}

impl Default for PowerSettings {
    fn default() -> Self {
        Self {
            ipmi: ipmi::IpmiBy::default(),
            redfish_tls: redfish::RedfishTls::default(),
            pins: None,
            ipmitool: "ipmitool".into(),
            timeout: Duration::from_secs(20),
            at_once: 512,
            loopback_only: false,
            sweep: Duration::from_secs(300),
        }
    }
}

/// All drivers, with a queue per BMC. Cloned freely.
#[derive(Clone)]
pub struct Drivers(Arc<Inner>);

struct Inner {
    meter: Meter,
    ipmi: ipmi::Ipmi,
    redfish: redfish::Redfish,
    manual: manual::Manual,
    slots: Semaphore,
    loopback_only: bool,
    /// BMCs that are in use or waited for now.
    queues: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Drivers {
    /// The drivers with those settings.
    #[must_use]
    pub fn new(settings: &PowerSettings) -> Self {
        let meter = Meter::new("power", &["runs", "failed", "ignored"]);
        Self(Arc::new(Inner {
            ipmi: ipmi::Ipmi::new(settings, meter.clone()),
            meter,
            redfish: redfish::Redfish::new(settings),
            manual: manual::Manual,
            slots: Semaphore::new(settings.at_once.clamp(1, 1_024)),
            loopback_only: settings.loopback_only,
            queues: Mutex::default(),
        }))
    }

    /// Runs a driver once, after all that were asked before for the same BMC. Dropping the future ends the run.
    ///
    /// # Errors
    /// What the BMC, the tool or the parameters did wrong, with its remedy.
    pub async fn run(&self, action: PowerAction, access: &PowerAccess) -> Result<Ran, PowerFault> {
        self.0.meter.count("runs");
        let ran = self.run_in_turn(action, access).await;
        if let Err(fault) = &ran {
            self.0.meter.complain("failed", &fault.why, &fault.remedy);
        }
        ran
    }

    async fn run_in_turn(&self, action: PowerAction, access: &PowerAccess) -> Result<Ran, PowerFault> {
        let driver: &dyn Power = match access.power_type {
            PowerType::Ipmi => &self.0.ipmi,
            PowerType::Redfish => &self.0.redfish,
            PowerType::Manual => &self.0.manual,
        };
        let Some(address) = access.params.get("power_address").filter(|a| !a.is_empty()) else {
            return driver.run(action, access).await;
        };
        if self.0.loopback_only && !is_loopback(address) {
            let why =
                format!("this is a yard, and {address} is no address of it: no real machine is switched from here");
            let remedy = "give a power_address of 127.0.0.0/8, or the power type manual";
            return Err(fault(FaultKind::Unfit, why, remedy));
        }
        let queue = self.queue(&format!("{} {}", access.power_type.name(), address.to_ascii_lowercase()));
        let _turn = queue.lock().await;
        let slot = self.0.slots.acquire().await;
        let _slot =
            slot.map_err(|_| fault(FaultKind::Unfit, "the rack is shutting down", "wait for it to come back"))?;
        driver.run(action, access).await
    }

    fn queue(&self, bmc: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(bmc).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::default();
        queues.insert(bmc.into(), Arc::downgrade(&queue));
        queue
    }
}

impl Serving for Drivers {
    /// It calls, and is not called.
    fn addresses(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    fn health(&self) -> Health {
        Health::Running
    }

    fn meter(&self) -> &Meter {
        &self.0.meter
    }

    /// Runs under way are the errands' to end.
    fn stop(self: Box<Self>) -> Stopping {
        Box::pin(async {})
    }
}

pub(crate) fn fault(kind: FaultKind, why: impl Into<String>, remedy: impl Into<String>) -> PowerFault {
    PowerFault { kind, why: why.into(), remedy: remedy.into() }
}

fn unreachable(host: &str) -> String {
    format!("check that UDP port 623 of {host} can be reached from this rack and that IPMI over LAN is enabled there")
}

/// Whether a BMC's address, in whatever form, is one of this host's loopback. A name is not: who knows where it leads.
fn is_loopback(address: &str) -> bool {
    let host = match reqwest::Url::parse(address) {
        Ok(url) if address.contains("://") => url.host_str().map(str::to_owned),
        _ => split_address(address).map(|(host, _)| host),
    };
    host.and_then(|host| host.parse::<std::net::IpAddr>().ok()).is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yard_knows_its_own_bmcs() {
        for own in ["127.78.0.1", "127.78.0.1:623", "https://127.78.0.1:8000", "http://127.0.0.1/redfish", "::1"] {
            assert!(is_loopback(own), "{own}");
        }
        let others = [
            "10.0.0.1",
            "10.0.0.1:623",
            "https://10.0.0.1",
            "localhost",
            "bmc.lab",
            "http://127.0.0.1@10.0.0.1",
            "::ffff:a",
            "https://127.0.0.1.example",
            "",
            "127.0.0.1 10.0.0.1",
        ];
        for other in others {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
