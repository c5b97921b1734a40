//! TFTP packets as bytes (RFC 1350 section 5, RFC 2347), for the server and for machines that are simulated. Knows no order of packets.

use std::fmt;

/// Longest read or write request that is parsed, in bytes. RFC 2347 allows 512; firmware with long URLs exceeds it.
pub const MAX_REQUEST: usize = 2_048;
/// Bytes before the data of a DATA packet.
pub const DATA_HEAD: usize = 4;

/// Error codes (RFC 1350 appendix I, RFC 2347 for 8). What is none of these keeps its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 0: see the text.
    Other,
    /// 1
    NotFound,
    /// 2
    AccessViolation,
    /// 3
    DiskFull,
    /// 4
    IllegalOperation,
    /// 5
    UnknownTransfer,
    /// 6
    FileExists,
    /// 7
    NoSuchUser,
    /// 8: the options do not suit. UEFI ends its probe of a file's size with it.
    Options,
    /// Any other number.
    Unknown(u16),
}

impl Code {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Other => 0,
            Self::NotFound => 1,
            Self::AccessViolation => 2,
            Self::DiskFull => 3,
            Self::IllegalOperation => 4,
            Self::UnknownTransfer => 5,
            Self::FileExists => 6,
            Self::NoSuchUser => 7,
            Self::Options => 8,
            Self::Unknown(number) => number,
        }
    }
}

impl From<u16> for Code {
    fn from(number: u16) -> Self {
        match number {
            0 => Self::Other,
            1 => Self::NotFound,
            2 => Self::AccessViolation,
            3 => Self::DiskFull,
            4 => Self::IllegalOperation,
            5 => Self::UnknownTransfer,
            6 => Self::FileExists,
            7 => Self::NoSuchUser,
            8 => Self::Options,
            other => Self::Unknown(other),
        }
    }
}

/// A transfer's mode (RFC 1350 section 1), by its word in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Octet,
    /// Served as octet: boot files hold no lines, and firmware that says netascii wants the bytes.
    Netascii,
    /// Obsolete by RFC 1350 section 1; refused.
    Mail,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Octet => "octet",
            Self::Netascii => "netascii",
            Self::Mail => "mail",
        }
    }
}

/// The options this implementation knows. `None`: not asked for, or not with a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a block, 8..=65464 (RFC 2348).
    pub blksize: Option<u16>,
    /// Bytes of the whole file; 0 in a read request (RFC 2349).
    pub tsize: Option<u64>,
    /// Seconds before a retransmission, 1..=255 (RFC 2349).
    pub timeout_s: Option<u8>,
    /// Blocks per acknowledgement, 1..=65535 (RFC 7440).
    pub windowsize: Option<u16>,
}

impl Options {
    /// Whether no option is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A value out of its RFC's range counts as not asked for: the server then leaves the option out of its OACK (RFC 2347).
    fn take(&mut self, name: &str, value: &str) {
        let number = value.parse::<u64>().ok();
        let within = |low: u64, high: u64| number.filter(|n| (low..=high).contains(n));
        let small = |n: Option<u64>| n.and_then(|n| u16::try_from(n).ok());
        if name.eq_ignore_ascii_case("blksize") {
            self.blksize = small(within(8, 65_464));
        } else if name.eq_ignore_ascii_case("tsize") {
            self.tsize = number;
        } else if name.eq_ignore_ascii_case("timeout") {
            self.timeout_s = within(1, 255).and_then(|n| u8::try_from(n).ok());
        } else if name.eq_ignore_ascii_case("windowsize") {
            self.windowsize = small(within(1, 65_535));
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let options = [
            ("blksize", self.blksize.map(u64::from)),
            ("tsize", self.tsize),
            ("timeout", self.timeout_s.map(u64::from)),
            ("windowsize", self.windowsize.map(u64::from)),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                text(out, name);
                text(out, &value.to_string());
            }
        }
    }
}

/// A packet; names, texts and data are borrowed from the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    Read { name: &'a str, mode: Mode, options: Options },
    Write { name: &'a str, mode: Mode, options: Options },
    Data { block: u16, data: &'a [u8] },
    Ack { block: u16 },
    Error { code: Code, message: &'a str },
    OptionAck(Options),
}

/// Bytes that are no TFTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Shorter than its kind needs.
    #[error("{len} bytes are too few for a TFTP packet of this kind; at least {min} are needed")]
    Short { len: usize, min: usize },
    /// A request beyond [`MAX_REQUEST`].
    #[error("a request of {len} bytes exceeds {MAX_REQUEST}; shorten the file name")]
    Long { len: usize },
    /// Not 1 to 6.
    #[error("opcode {0} is none of TFTP's 1 to 6")]
    Opcode(u16),
    /// No NUL where a text must end.
    #[error("the {field} does not end with a NUL byte")]
    Unterminated { field: &'static str },
    /// Not UTF-8 (of which RFC 1350's netascii is a part).
    #[error("the {field} is not ASCII or UTF-8 text")]
    Text { field: &'static str },
    /// Not a mode of RFC 1350.
    #[error("the mode is none of octet, netascii and mail")]
    Mode,
}

impl<'a> Packet<'a> {
    /// Reads one packet.
    ///
    /// # Errors
    /// [`PacketError`] for everything that is not a packet of RFC 1350 or RFC 2347. Never panics.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let short = |min| PacketError::Short { len: bytes.len(), min };
        let (opcode, rest) = bytes.split_first_chunk::<2>().ok_or(short(2))?;
        let number = || rest.split_first_chunk::<2>().map(|(n, tail)| (u16::from_be_bytes(*n), tail)).ok_or(short(4));
        match u16::from_be_bytes(*opcode) {
            1 => request(rest).map(|(name, mode, options)| Self::Read { name, mode, options }),
            2 => request(rest).map(|(name, mode, options)| Self::Write { name, mode, options }),
            3 => number().map(|(block, data)| Self::Data { block, data }),
            4 => number().map(|(block, _)| Self::Ack { block }),
            5 => number().map(|(code, tail)| Self::Error { code: code.into(), message: error_text(tail) }),
            6 => Ok(Self::OptionAck(options(rest))),
            other => Err(PacketError::Opcode(other)),
        }
    }

    /// Appends the packet's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Read { name, mode, options } => write_request(out, 1, name, *mode, options),
            Self::Write { name, mode, options } => write_request(out, 2, name, *mode, options),
            Self::Data { block, data } => {
                head(out, 3, *block);
                out.extend_from_slice(data);
            }
            Self::Ack { block } => head(out, 4, *block),
            Self::Error { code, message } => {
                head(out, 5, code.number());
                text(out, message);
            }
            Self::OptionAck(options) => {
                out.extend_from_slice(&6_u16.to_be_bytes());
                options.write(out);
            }
        }
    }

    /// The packet's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.write(&mut out);
        out
    }
}

impl fmt::Display for Packet<'_> {
    /// One short line for logs; data by its length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { name, .. } => write!(f, "RRQ {name:?}"),
            Self::Write { name, .. } => write!(f, "WRQ {name:?}"),
            Self::Data { block, data } => write!(f, "DATA {block} of {} bytes", data.len()),
            Self::Ack { block } => write!(f, "ACK {block}"),
            Self::Error { code, message } => write!(f, "ERROR {} {message:?}", code.number()),
            Self::OptionAck(_) => write!(f, "OACK"),
        }
    }
}

fn head(out: &mut Vec<u8>, opcode: u16, number: u16) {
    out.extend_from_slice(&opcode.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
}

/// A NUL inside would end the text early, so it is left out.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|b| *b != 0));
    out.push(0);
}

fn write_request(out: &mut Vec<u8>, opcode: u16, name: &str, mode: Mode, options: &Options) {
    out.extend_from_slice(&opcode.to_be_bytes());
    text(out, name);
    text(out, mode.word());
    options.write(out);
}

fn split_text<'a>(bytes: &'a [u8], field: &'static str) -> Result<(&'a str, &'a [u8]), PacketError> {
    let end = bytes.iter().position(|b| *b == 0).ok_or(PacketError::Unterminated { field })?;
    let (text, rest) = bytes.split_at(end);
    let text = std::str::from_utf8(text).map_err(|_| PacketError::Text { field })?;
    Ok((text, rest.get(1..).unwrap_or_default()))
}

fn request(bytes: &[u8]) -> Result<(&str, Mode, Options), PacketError> {
    if bytes.len() > MAX_REQUEST {
        return Err(PacketError::Long { len: bytes.len() });
    }
    let (name, rest) = split_text(bytes, "file name")?;
    let (mode, rest) = split_text(rest, "mode")?;
    let modes = [Mode::Octet, Mode::Netascii, Mode::Mail];
    let mode = modes.into_iter().find(|m| mode.eq_ignore_ascii_case(m.word())).ok_or(PacketError::Mode)?;
    Ok((name, mode, options(rest)))
}

/// Pairs of texts until they end; a pair that is broken ends them, since firmware is known to pad requests.
fn options(mut bytes: &[u8]) -> Options {
    let mut options = Options::default();
    while let Ok((name, rest)) = split_text(bytes, "option") {
        let Ok((value, rest)) = split_text(rest, "option's value") else { break };
        options.take(name, value);
        bytes = rest;
    }
    options
}

/// Some firmware leaves out the NUL, or the whole text.
fn error_text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.get(..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
}
