//! The IPMI commands that power needs, and those that other consoles send to a BMC on the way; both directions of each.

use std::fmt;

use super::{
    message::Message,
    packet::{Malformed, malformed},
};

const CHASSIS: u8 = 0x00;
const APP: u8 = 0x06;

/// What a session may do (section 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Privilege {
    Callback = 1,
    User = 2,
    Operator = 3,
    Administrator = 4,
}

impl Privilege {
    /// The level of the low four bits.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        [Self::Callback, Self::User, Self::Operator, Self::Administrator].into_iter().find(|p| *p as u8 == bits & 0x0f)
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Callback => "CALLBACK",
            Self::User => "USER",
            Self::Operator => "OPERATOR",
            Self::Administrator => "ADMINISTRATOR",
        })
    }
}

/// How a chassis is switched (section 28.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Control {
    Off = 0,
    On = 1,
    /// Off for a second or more, then on; refused by some BMCs where the machine is off.
    Cycle = 2,
    Reset = 3,
    /// The operating system is asked to go down.
    SoftOff = 5,
}

/// What a machine boots from (section 28.13, parameter 5, data 2). Other devices are kept as their number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BootDevice {
    /// As the machine is set up.
    #[default]
    Default,
    Network,
    Disk,
    /// Any other of the sixteen.
    Other(u8),
}

/// Boot flags, parameter 5 of the boot options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct BootFlags {
    /// Without it the others mean nothing.
    pub valid: bool,
    /// For every boot, not the next alone.
    pub persistent: bool,
    /// By UEFI, not by the legacy BIOS.
    pub efi: bool,
    pub device: BootDevice,
}

impl BootFlags {
    /// The number of the parameter.
    pub const PARAMETER: u8 = 5;

    /// Boot from the network, once.
    #[must_use]
    pub fn network_once(efi: bool) -> Self {
        Self { valid: true, persistent: false, efi, device: BootDevice::Network }
    }

    #[must_use]
    pub fn write(self) -> [u8; 5] {
        let device = match self.device {
            BootDevice::Default => 0,
            BootDevice::Network => 1,
            BootDevice::Disk => 2,
            BootDevice::Other(number) => number & 0x0f,
        };
        [u8::from(self.valid) << 7 | u8::from(self.persistent) << 6 | u8::from(self.efi) << 5, device << 2, 0, 0, 0]
    }

    /// # Errors
    /// [`Malformed`]: fewer than two bytes. The other three are for consoles and verbosity.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let [flags, device, ..] = bytes else {
            return Err(malformed("the boot flags' length", bytes.len(), "5"));
        };
        let device = match device >> 2 & 0x0f {
            0 => BootDevice::Default,
            1 => BootDevice::Network,
            2 => BootDevice::Disk,
            other => BootDevice::Other(other),
        };
        Ok(Self { valid: flags & 0x80 != 0, persistent: flags & 0x40 != 0, efi: flags & 0x20 != 0, device })
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Get Device ID (section 20.1).
    DeviceId,
    /// Get System GUID (section 22.14).
    SystemGuid,
    /// Get Channel Authentication Capabilities, of the channel it comes by, with the bit that asks for 2.0 (section 22.13).
    ChannelAuth { privilege: Privilege },
    /// Get Channel Cipher Suites, the 16 bytes of that index (section 22.15).
    CipherSuites { index: u8 },
    /// Set Session Privilege Level (section 22.18).
    SetPrivilege { privilege: Privilege },
    /// Close Session (section 22.19).
    CloseSession { session: u32 },
    /// Get Chassis Status (section 28.2).
    ChassisStatus,
    /// Chassis Control (section 28.3).
    ChassisControl(Control),
    /// Set System Boot Options (section 28.12).
    SetBootOption { parameter: u8, data: Vec<u8> },
    /// Get System Boot Options (section 28.13).
    GetBootOption { parameter: u8 },
}

impl Command {
    /// The request that sets those boot flags.
    #[must_use]
    pub fn set_boot(flags: BootFlags) -> Self {
        Self::SetBootOption { parameter: BootFlags::PARAMETER, data: flags.write().to_vec() }
    }

    /// Its name in the specification.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::DeviceId => "Get Device ID",
            Self::SystemGuid => "Get System GUID",
            Self::ChannelAuth { .. } => "Get Channel Authentication Capabilities",
            Self::CipherSuites { .. } => "Get Channel Cipher Suites",
            Self::SetPrivilege { .. } => "Set Session Privilege Level",
            Self::CloseSession { .. } => "Close Session",
            Self::ChassisStatus => "Get Chassis Status",
            Self::ChassisControl(Control::Off) => "Chassis Control (power down)",
            Self::ChassisControl(Control::On) => "Chassis Control (power up)",
            Self::ChassisControl(Control::Cycle) => "Chassis Control (power cycle)",
            Self::ChassisControl(Control::Reset) => "Chassis Control (hard reset)",
            Self::ChassisControl(Control::SoftOff) => "Chassis Control (soft shutdown)",
            Self::SetBootOption { .. } => "Set System Boot Options",
            Self::GetBootOption { .. } => "Get System Boot Options",
        }
    }

    /// Function and command number.
    #[must_use]
    pub fn code(&self) -> (u8, u8) {
        match self {
            Self::DeviceId => (APP, 0x01),
            Self::SystemGuid => (APP, 0x37),
            Self::ChannelAuth { .. } => (APP, 0x38),
            Self::CipherSuites { .. } => (APP, 0x54),
            Self::SetPrivilege { .. } => (APP, 0x3b),
            Self::CloseSession { .. } => (APP, 0x3c),
            Self::ChassisStatus => (CHASSIS, 0x01),
            Self::ChassisControl(_) => (CHASSIS, 0x02),
            Self::SetBootOption { .. } => (CHASSIS, 0x08),
            Self::GetBootOption { .. } => (CHASSIS, 0x09),
        }
    }

    /// The message with that number, as bytes.
    #[must_use]
    pub fn write(&self, sequence: u8) -> Vec<u8> {
        let data = match self {
            Self::DeviceId | Self::SystemGuid | Self::ChassisStatus => Vec::new(),
            Self::ChannelAuth { privilege } => vec![0x8e, *privilege as u8],
            Self::CipherSuites { index } => vec![0x0e, 0x00, 0x80 | index & 0x3f],
            Self::SetPrivilege { privilege } => vec![*privilege as u8],
            Self::CloseSession { session } => session.to_le_bytes().to_vec(),
            Self::ChassisControl(control) => vec![*control as u8],
            Self::SetBootOption { parameter, data } => {
                let mut bytes = vec![parameter & 0x7f];
                bytes.extend(data);
                bytes
            }
            Self::GetBootOption { parameter } => vec![parameter & 0x7f, 0, 0],
        };
        let (function, command) = self.code();
        Message { function, sequence, command, data: &data }.write()
    }

    /// What a request asks for, on the BMC's side.
    ///
    /// # Errors
    /// The completion code to answer with.
    pub fn read(message: &Message<'_>) -> Result<Self, Completion> {
        let command = match (message.function, message.command, message.data) {
            (APP, 0x01, _) => Self::DeviceId,
            (APP, 0x37, _) => Self::SystemGuid,
            (APP, 0x38, [_, privilege, ..]) => {
                Self::ChannelAuth { privilege: Privilege::from_bits(*privilege).ok_or(Completion::INVALID_FIELD)? }
            }
            (APP, 0x54, [_, _, index, ..]) => Self::CipherSuites { index: index & 0x3f },
            // 0 asks for the present level.
            (APP, 0x3b, [privilege, ..]) => Self::SetPrivilege {
                privilege: Privilege::from_bits((*privilege).max(2)).ok_or(Completion::INVALID_FIELD)?,
            },
            (APP, 0x3c, [s0, s1, s2, s3, ..]) => {
                Self::CloseSession { session: u32::from_le_bytes([*s0, *s1, *s2, *s3]) }
            }
            (CHASSIS, 0x01, _) => Self::ChassisStatus,
            (CHASSIS, 0x02, [control, ..]) => Self::ChassisControl(match control & 0x0f {
                0 => Control::Off,
                1 => Control::On,
                2 => Control::Cycle,
                3 => Control::Reset,
                5 => Control::SoftOff,
                _ => return Err(Completion::INVALID_FIELD),
            }),
            (CHASSIS, 0x08, [parameter, data @ ..]) => {
                Self::SetBootOption { parameter: parameter & 0x7f, data: data.to_vec() }
            }
            (CHASSIS, 0x09, [parameter, ..]) => Self::GetBootOption { parameter: parameter & 0x7f },
            (APP, 0x38 | 0x3b | 0x3c | 0x54, _) | (CHASSIS, 0x02 | 0x08 | 0x09, _) => {
                return Err(Completion::TOO_SHORT);
            }
            _ => return Err(Completion::INVALID_COMMAND),
        };
        Ok(command)
    }
}

/// What a BMC says of its channel (section 22.13). A console needs no more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelAuth {
    /// It speaks IPMI 2.0 (RMCP+).
    pub ipmi2: bool,
    /// It wants a K_g.
    pub keyed: bool,
}

/// The data of a good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done, with nothing more to say.
    Done,
    /// The bytes of Get Device ID.
    DeviceId(Vec<u8>),
    SystemGuid([u8; 16]),
    ChannelAuth(ChannelAuth),
    /// Suite records, up to 16 bytes of them.
    CipherSuites(Vec<u8>),
    Privilege(Privilege),
    /// Whether the machine is on.
    Chassis {
        on: bool,
    },
    BootOption {
        parameter: u8,
        data: Vec<u8>,
    },
}

impl Reply {
    /// Reads the answer to `command`; `data` is what follows the completion code.
    ///
    /// # Errors
    /// [`Malformed`]: too short.
    pub fn read(command: &Command, data: &[u8]) -> Result<Self, Malformed> {
        let short = |bound| malformed("the answer's length", data.len(), bound);
        Ok(match command {
            Command::CloseSession { .. } | Command::ChassisControl(_) | Command::SetBootOption { .. } => Self::Done,
            Command::DeviceId => Self::DeviceId(data.to_vec()),
            Command::SystemGuid => Self::SystemGuid(*data.first_chunk().ok_or(short("16"))?),
            Command::ChannelAuth { .. } => match data {
                [_, kinds, flags, extended, ..] => Self::ChannelAuth(ChannelAuth {
                    // Bit 7 of the kinds says that the byte of extended capabilities counts.
                    ipmi2: kinds & 0x80 != 0 && extended & 0x02 != 0,
                    keyed: flags & 0x20 != 0,
                }),
                _ => return Err(short("8")),
            },
            Command::CipherSuites { .. } => Self::CipherSuites(data.get(1..).ok_or(short("1 or more"))?.to_vec()),
            Command::SetPrivilege { .. } => {
                let level = data.first().and_then(|bits| Privilege::from_bits(*bits));
                Self::Privilege(level.ok_or(short("1, a privilege level"))?)
            }
            Command::ChassisStatus => Self::Chassis { on: data.first().ok_or(short("3 or more"))? & 1 != 0 },
            Command::GetBootOption { .. } => match data {
                [_, parameter, data @ ..] => Self::BootOption { parameter: parameter & 0x7f, data: data.to_vec() },
                _ => return Err(short("2 or more")),
            },
        })
    }

    /// The data of the answer, after the completion code.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        match self {
            Self::Done => Vec::new(),
            Self::DeviceId(bytes) => bytes.clone(),
            Self::SystemGuid(guid) => guid.to_vec(),
            // Channel 1; named users with and without names; 2.0 only.
            Self::ChannelAuth(said) => {
                let extended = if said.ipmi2 { 0x02 } else { 0x01 };
                vec![1, u8::from(said.ipmi2) << 7 | 0x04, u8::from(said.keyed) << 5 | 0x04, extended, 0, 0, 0, 0]
            }
            Self::CipherSuites(records) => [&[1], records.as_slice()].concat(),
            Self::Privilege(level) => vec![*level as u8],
            Self::Chassis { on } => vec![u8::from(*on), 0, 0],
            Self::BootOption { parameter, data } => [&[1, *parameter], data.as_slice()].concat(),
        }
    }
}

/// How a request ended (section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion(pub u8);

impl Completion {
    pub const OK: Self = Self(0x00);
    pub const PARAMETER_UNSUPPORTED: Self = Self(0x80);
    /// Set Session Privilege Level: above the user's limit.
    pub const ABOVE_USER_LIMIT: Self = Self(0x81);
    pub const BUSY: Self = Self(0xc0);
    pub const INVALID_COMMAND: Self = Self(0xc1);
    pub const TIMEOUT: Self = Self(0xc3);
    pub const OUT_OF_SPACE: Self = Self(0xc4);
    pub const TOO_SHORT: Self = Self(0xc7);
    pub const INVALID_FIELD: Self = Self(0xcc);
    pub const CANNOT_RESPOND: Self = Self(0xce);
    pub const IN_UPDATE: Self = Self(0xd1);
    pub const IN_INITIALISATION: Self = Self(0xd2);
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(0xd4);

    /// Whether it may do the same a little later.
    #[must_use]
    pub fn may_pass(self) -> bool {
        let passing = [
            Self::BUSY,
            Self::TIMEOUT,
            Self::OUT_OF_SPACE,
            Self::CANNOT_RESPOND,
            Self::IN_UPDATE,
            Self::IN_INITIALISATION,
        ];
        passing.contains(&self)
    }
    pub const NOT_IN_PRESENT_STATE: Self = Self(0xd5);
}

impl fmt::Display for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            0x00 => "done",
            0x80 => "parameter not supported",
            0x81 => "privilege level above the limit of user or channel",
            0xc0 => "node busy",
            0xc1 => "invalid command",
            0xc2 => "command invalid for the LUN",
            0xc3 => "timeout while the command was processed",
            0xc4 => "out of space",
            0xc7 => "request data length invalid",
            0xc9 => "parameter out of range",
            0xcc => "invalid data field",
            0xce => "response could not be given",
            0xd1 => "firmware or SDR update under way",
            0xd2 => "BMC is initialising",
            0xd4 => "insufficient privilege level",
            0xd5 => "not supported in the present state",
            other => return write!(f, "completion code 0x{other:02x}"),
        };
        write!(f, "{words} (0x{:02x})", self.0)
    }
}
