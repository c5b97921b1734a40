//! The IPMI driver: natively over RMCP+, or by `ipmitool` where that is set, or where the BMC speaks nothing that the native way knows.

mod native;
pub mod session;
pub mod target;
pub mod tool;

use std::time::Duration;

use actors::errand::{FaultKind, PowerFault};
use schema::power::{PowerAccess, PowerAction};

use self::{
    native::{Native, Trouble},
    target::Target,
    tool::{Speech, Tool},
};
use super::{
    Power, PowerSettings, Running, fault,
    rmcp::{Suite, console::Failure},
};
use crate::service::Meter;

/// How IPMI is spoken (`[power] ipmi`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IpmiBy {
    /// By this process; `ipmitool` only for BMCs of IPMI 1.5 and for cipher suites other than 3 and 17.
    #[default]
    Native,
    /// By `ipmitool` alone.
    Ipmitool,
}

impl std::str::FromStr for IpmiBy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "native" => Ok(Self::Native),
            "ipmitool" => Ok(Self::Ipmitool),
            _ => Err(()),
        }
    }
}

/// The IPMI driver.
#[derive(Debug)]
pub struct Ipmi {
    by: IpmiBy,
    native: Native,
    tool: Tool,
}

impl Power for Ipmi {
    fn run<'a>(&'a self, action: PowerAction, access: &'a PowerAccess) -> Running<'a> {
        Box::pin(async move {
            let target = Target::check(access)?;
            if target.one_and_half {
                return self.tool.run(action, &target, Speech::OneAndHalf).await;
            }
            let known = target.suite.is_none_or(|id| Suite::ALL.iter().any(|suite| suite.id() == id));
            if self.by == IpmiBy::Ipmitool || !known {
                return self.tool.run(action, &target, Speech::Two).await;
            }
            let (speech, trouble) = match self.native.run(action, &target).await {
                Ok(ran) => return Ok(ran),
                Err(Trouble::OneAndHalf(fault)) => (Speech::OneAndHalf, fault),
                // A suite that is configured is the operator's word: no other is tried.
                Err(Trouble::Suites(fault)) if target.suite.is_none() => (Speech::Two, fault),
                Err(Trouble::Suites(fault) | Trouble::Fault(fault)) => return Err(fault),
            };
            let ran = self.tool.run(action, &target, speech).await;
            ran.map_err(|tool| match tool.kind {
                FaultKind::Unfit => fault(trouble.kind, trouble.why, format!("{}; or {}", trouble.remedy, tool.remedy)),
                _ => tool,
            })
        })
    }
}

/// What a failed command means to the operator, as the native driver says it.
#[must_use]
pub fn fault_of(host: &str, failure: Failure) -> PowerFault {
    match native::of_failure(host, failure) {
        Trouble::OneAndHalf(fault) | Trouble::Suites(fault) | Trouble::Fault(fault) => fault,
    }
}

/// What it means that a run took longer than `limit`.
#[must_use]
pub fn late(host: &str, limit: Duration) -> PowerFault {
    native::late(host, limit)
}

/// A session without work is kept so long.
pub const KEPT: Duration = native::IDLE;

impl Ipmi {
    /// The driver with those settings. `meter` counts what BMCs send and nobody waits for.
    #[must_use]
    pub fn new(settings: &PowerSettings, meter: Meter) -> Self {
        let tool = Tool::new(settings.ipmitool.clone(), settings.timeout);
        Self { by: settings.ipmi, native: Native::new(settings.timeout, meter), tool }
    }
}
