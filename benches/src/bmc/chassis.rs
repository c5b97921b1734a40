//! What is behind a BMC, whatever protocol it speaks: power, boot flags, and the faults of hardware.

use std::{num::NonZeroU32, time::Duration};

use rack::power::rmcp::{BootDevice, BootFlags, Completion, Control};

/// What a BMC does to its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// Off until now; it boots from there.
    On(Boot),
    Off,
    /// On until now; off and on again, or reset. It boots from there.
    Restart(Boot),
    /// The operating system is asked to go down; [`Chassis::set_power`] says when it did.
    SoftOff,
}

/// What a machine boots from this time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Boot {
    pub device: BootDevice,
    /// Asked for by UEFI; without a device it means nothing.
    pub efi: bool,
}

/// Things that go wrong with BMCs. The default is a sound one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// It answers nothing.
    pub silent: bool,
    /// No password is right.
    pub wrong_password: bool,
    /// Each answer takes so long.
    pub slow: Duration,
    /// It says on or off whatever is true.
    pub says: Option<bool>,
    /// It accepts orders to switch, and does nothing.
    pub powerless: bool,
    /// Every nth request is lost.
    pub drops_every: Option<NonZeroU32>,
    /// It accepts boot flags, and forgets them.
    pub ignores_boot: bool,
    /// It answers that it is busy.
    pub busy: bool,
    /// Its account is locked after wrong tries: the user counts as unknown.
    pub locked: bool,
    /// All its sessions are taken by others.
    pub no_sessions: bool,
}

/// Power and boot flags of one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chassis {
    on: bool,
    boot: BootFlags,
    /// Requests that came.
    heard: u32,
    pub faults: Faults,
}

impl Chassis {
    /// Whether it is on, in truth.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Counts a request. `true`: it is lost, or the BMC is silent.
    pub fn loses(&mut self) -> bool {
        self.heard = self.heard.wrapping_add(1);
        self.faults.silent || self.faults.drops_every.is_some_and(|n| self.heard.is_multiple_of(n.get()))
    }

    /// What it says when it is asked.
    #[must_use]
    pub fn says_on(&self) -> bool {
        self.faults.says.unwrap_or(self.on)
    }

    /// The machine went on or off by itself.
    pub fn set_power(&mut self, on: bool) {
        self.on = on;
    }

    /// The boot flags as they are kept.
    #[must_use]
    pub fn boot(&self) -> BootFlags {
        self.boot
    }

    /// Sets them.
    pub fn set_boot(&mut self, flags: BootFlags) {
        if !self.faults.ignores_boot {
            self.boot = flags;
        }
    }

    /// Switches the machine.
    ///
    /// # Errors
    /// A cycle or a reset of a machine that is off.
    pub fn control(&mut self, control: Control) -> Result<Option<PowerEvent>, Completion> {
        if matches!(control, Control::Cycle | Control::Reset) && !self.on {
            return Err(Completion::NOT_IN_PRESENT_STATE);
        }
        if self.faults.powerless {
            return Ok(None);
        }
        Ok(match control {
            Control::On if self.on => None,
            Control::On => {
                self.on = true;
                Some(PowerEvent::On(self.take_boot()))
            }
            Control::Cycle | Control::Reset => Some(PowerEvent::Restart(self.take_boot())),
            Control::Off | Control::SoftOff if !self.on => None,
            Control::Off => {
                self.on = false;
                Some(PowerEvent::Off)
            }
            Control::SoftOff => Some(PowerEvent::SoftOff),
        })
    }

    /// What it boots from now; a flag for once is spent.
    fn take_boot(&mut self) -> Boot {
        let flags = self.boot;
        if !flags.persistent {
            self.boot = BootFlags::default();
        }
        if flags.valid { Boot { device: flags.device, efi: flags.efi } } else { Boot::default() }
    }
}
