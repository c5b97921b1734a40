//! The messages that set a session up: Open Session, RAKP 1 to 4 (IPMI 2.0 sections 13.17 to 13.23).

use std::fmt;

use super::packet::{Malformed, malformed};

/// RMCP+ and RAKP status codes (table 13-15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    pub const OK: Self = Self(0x00);
    pub const NO_RESOURCES: Self = Self(0x01);
    pub const INVALID_SESSION: Self = Self(0x02);
    pub const INVALID_AUTHENTICATION: Self = Self(0x04);
    pub const INVALID_INTEGRITY: Self = Self(0x05);
    pub const INACTIVE_SESSION: Self = Self(0x08);
    pub const INVALID_ROLE: Self = Self(0x09);
    pub const UNAUTHORIZED_ROLE: Self = Self(0x0a);
    pub const NO_RESOURCES_FOR_ROLE: Self = Self(0x0b);
    pub const INVALID_NAME_LENGTH: Self = Self(0x0c);
    pub const UNAUTHORIZED_NAME: Self = Self(0x0d);
    pub const UNAUTHORIZED_GUID: Self = Self(0x0e);
    pub const INVALID_CHECK: Self = Self(0x0f);
    pub const INVALID_CONFIDENTIALITY: Self = Self(0x10);
    pub const NO_SUITE: Self = Self(0x11);

    /// Whether the BMC says that it does not know the cipher suite.
    #[must_use]
    pub fn is_of_the_suite(self) -> bool {
        [Self::INVALID_AUTHENTICATION, Self::INVALID_INTEGRITY, Self::INVALID_CONFIDENTIALITY, Self::NO_SUITE]
            .contains(&self)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            0x00 => "no error",
            0x01 => "insufficient resources for a session",
            0x02 => "invalid session id",
            0x04 => "invalid authentication algorithm",
            0x05 => "invalid integrity algorithm",
            0x08 => "inactive session id",
            0x09 => "invalid role",
            0x0a => "unauthorized role or privilege level",
            0x0b => "insufficient resources for a session of that role",
            0x0c => "invalid name length",
            0x0d => "unauthorized name",
            0x0e => "unauthorized GUID",
            0x0f => "invalid integrity check value",
            0x10 => "invalid confidentiality algorithm",
            0x11 => "no matching cipher suite",
            0x12 => "illegal parameter",
            other => return write!(f, "status 0x{other:02x}"),
        };
        write!(f, "{words} (0x{:02x})", self.0)
    }
}

/// The console asks for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRequest {
    pub tag: u8,
    /// Most privilege asked for; 0: the most that the algorithms allow.
    pub privilege: u8,
    pub console_session: u32,
    /// Authentication, integrity, confidentiality.
    pub algorithms: [u8; 3],
}

/// The BMC's answer. With a status other than OK, only `tag` and `status` count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenResponse {
    pub tag: u8,
    pub status: Status,
    pub privilege: u8,
    pub console_session: u32,
    pub bmc_session: u32,
    pub algorithms: [u8; 3],
}

/// The console's random number, and who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp1 {
    pub tag: u8,
    pub bmc_session: u32,
    pub console_random: [u8; 16],
    pub role: u8,
    /// At most 16 bytes.
    pub user: Vec<u8>,
}

/// The BMC's random number, its GUID, and its proof. With a status other than OK, only the first two count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp2 {
    pub tag: u8,
    pub status: Status,
    pub console_session: u32,
    pub bmc_random: [u8; 16],
    pub guid: [u8; 16],
    pub code: Vec<u8>,
}

/// RAKP 3 (the console's proof; `session` is the BMC's) and RAKP 4 (the BMC's check; `session` is the console's) have the same form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub tag: u8,
    pub status: Status,
    pub session: u32,
    pub code: Vec<u8>,
}

impl OpenRequest {
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![self.tag, self.privilege, 0, 0];
        bytes.extend(self.console_session.to_le_bytes());
        bytes.extend(algorithms(self.algorithms));
        bytes
    }

    /// # Errors
    /// [`Malformed`]: too short.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let fields = Fields::new("the open session request's length", bytes, 32)?;
        Ok(Self {
            tag: bytes[0],
            privilege: bytes[1] & 0x0f,
            console_session: fields.number(4),
            algorithms: fields.algorithms(8),
        })
    }
}

impl OpenResponse {
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![self.tag, self.status.0, self.privilege, 0];
        bytes.extend(self.console_session.to_le_bytes());
        if self.status == Status::OK {
            bytes.extend(self.bmc_session.to_le_bytes());
            bytes.extend(algorithms(self.algorithms));
        }
        bytes
    }

    /// # Errors
    /// [`Malformed`]: too short for its status.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let name = "the open session response's length";
        let (tag, status) = verdict(name, bytes)?;
        let refused = Self {
            tag,
            status,
            privilege: bytes.get(2).map_or(0, |bits| bits & 0x0f),
            console_session: 0,
            bmc_session: 0,
            algorithms: [0; 3],
        };
        if refused.status != Status::OK {
            return Ok(refused);
        }
        let fields = Fields::new(name, bytes, 36)?;
        let (console_session, bmc_session) = (fields.number(4), fields.number(8));
        Ok(Self { console_session, bmc_session, algorithms: fields.algorithms(12), ..refused })
    }
}

impl Rakp1 {
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![self.tag, 0, 0, 0];
        bytes.extend(self.bmc_session.to_le_bytes());
        bytes.extend(self.console_random);
        bytes.extend([self.role, 0, 0, u8::try_from(self.user.len()).unwrap_or(u8::MAX)]);
        bytes.extend(&self.user);
        bytes
    }

    /// # Errors
    /// [`Malformed`]: too short, or a name above 16 bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let fields = Fields::new("the RAKP 1 message's length", bytes, 28)?;
        let length = usize::from(bytes[27]);
        let user = bytes.get(28..28 + length).filter(|name| name.len() <= 16);
        Ok(Self {
            tag: bytes[0],
            bmc_session: fields.number(4),
            console_random: fields.sixteen(8),
            role: bytes[24],
            user: user.ok_or(malformed("the user name's length", length, "at most 16, and in the message"))?.to_vec(),
        })
    }
}

impl Rakp2 {
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![self.tag, self.status.0, 0, 0];
        bytes.extend(self.console_session.to_le_bytes());
        if self.status == Status::OK {
            bytes.extend(self.bmc_random);
            bytes.extend(self.guid);
            bytes.extend(&self.code);
        }
        bytes
    }

    /// # Errors
    /// [`Malformed`]: too short for its status.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let name = "the RAKP 2 message's length";
        let (tag, status) = verdict(name, bytes)?;
        if status != Status::OK {
            return Ok(Self { tag, status, console_session: 0, bmc_random: [0; 16], guid: [0; 16], code: Vec::new() });
        }
        let fields = Fields::new(name, bytes, 40)?;
        let (console_session, code) = (fields.number(4), bytes[40..].to_vec());
        Ok(Self { tag, status, console_session, bmc_random: fields.sixteen(8), guid: fields.sixteen(24), code })
    }
}

impl Proof {
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![self.tag, self.status.0, 0, 0];
        bytes.extend(self.session.to_le_bytes());
        bytes.extend(&self.code);
        bytes
    }

    /// # Errors
    /// [`Malformed`]: too short.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let name = "the RAKP 3 or 4 message's length";
        let (tag, status) = verdict(name, bytes)?;
        if status != Status::OK && bytes.len() < 8 {
            return Ok(Self { tag, status, session: 0, code: Vec::new() });
        }
        let fields = Fields::new(name, bytes, 8)?;
        Ok(Self { tag, status, session: fields.number(4), code: bytes[8..].to_vec() })
    }
}

/// Tag and status. A refusal may have nothing else: ipmi_sim's has two bytes.
fn verdict(name: &'static str, bytes: &[u8]) -> Result<(u8, Status), Malformed> {
    match bytes {
        [tag, status, ..] => Ok((*tag, Status(*status))),
        _ => Err(malformed(name, bytes.len(), "2 or more")),
    }
}

/// The three algorithm payloads (table 13-9): type, length 8, algorithm.
fn algorithms(chosen: [u8; 3]) -> impl Iterator<Item = u8> {
    chosen.into_iter().zip(0..).flat_map(|(algorithm, kind)| [kind, 0, 0, 8, algorithm, 0, 0, 0])
}

/// Bytes that are known to be long enough.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn new(name: &'static str, bytes: &'a [u8], least: usize) -> Result<Self, Malformed> {
        let bound = match least {
            8 => "8 or more",
            28 => "28 or more",
            32 => "32 or more",
            36 => "36 or more",
            _ => "40 or more",
        };
        if bytes.len() < least { Err(malformed(name, bytes.len(), bound)) } else { Ok(Self(bytes)) }
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn sixteen(&self, at: usize) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[at..at + 16]);
        bytes
    }

    /// An algorithm payload of length zero stands for "any": it reads as 0, which is none.
    fn algorithms(&self, at: usize) -> [u8; 3] {
        [self.0[at + 4] & 0x3f, self.0[at + 12] & 0x3f, self.0[at + 20] & 0x3f]
    }
}
