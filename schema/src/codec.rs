//! The wire's codec: frames, envelopes, limits. The only place that calls bincode (the derives apart); streams and sockets are not here.
//!
//! A frame is a length (u32, big endian, of what follows), an [`Envelope`], and one message. The first byte after the
//! length is the version, in every version to come. Frames are bounded by their [`Kind`]; what their containers may claim
//! in memory is bounded by the frame's own length, so that ten hostile bytes cannot ask for gigabytes.

use bincode::{Decode, Encode};

use crate::messages::{
    enrol::{EnrolAnswer, EnrolAsk},
    link::{BulkAnswer, BulkHeader, FromRack, ToRack},
};

/// The version of envelope and messages. Messages grow by variants at the end; only a changed envelope needs another version.
pub const VERSION: u8 = 1;
/// Bytes of a frame's length prefix.
pub const PREFIX: usize = 4;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a frame holds; decides its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Kind {
    /// A [`ToRack`] other than a plan.
    ToRack,
    /// [`ToRack::Plan`].
    Plan,
    /// A [`FromRack`].
    FromRack,
    /// A [`BulkHeader`].
    BulkHeader,
    /// A [`BulkAnswer`].
    BulkAnswer,
    /// An [`EnrolAsk`].
    EnrolAsk,
    /// An [`EnrolAnswer`].
    EnrolAnswer,
}

impl Kind {
    /// The most bytes that a frame of this kind may have after its length prefix.
    #[must_use]
    pub const fn limit(self) -> usize {
        match self {
            Self::ToRack | Self::FromRack => MIB,
            Self::Plan => 16 * MIB,
            Self::BulkHeader | Self::BulkAnswer | Self::EnrolAsk | Self::EnrolAnswer => 64 * KIB,
        }
    }
}

/// The trace that a message belongs to (W3C Trace Context): the trace, and the span that sent it. 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct TraceParent {
    pub trace: u128,
    pub span: u64,
}

/// What stands before every message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    pub version: u8,
    pub kind: Kind,
    pub parent: TraceParent,
    /// Counts the frames of one stream and direction up from 1; for traces and logs, since the stream itself keeps order.
    pub sequence: u64,
}

/// A message that may stand in a frame.
pub trait Message: Encode + Decode<()> {
    /// The name in errors.
    const NAME: &'static str;
    /// The largest [`Kind::limit`] of its kinds.
    const LIMIT: usize;
    /// Whether a frame of `kind` holds this type.
    fn is(kind: Kind) -> bool;
    /// The kind that this value travels as.
    fn kind(&self) -> Kind;
}

macro_rules! message {
    ($($name:ident),*) => {$(
        impl Message for $name {
            const NAME: &'static str = stringify!($name);
            const LIMIT: usize = Kind::$name.limit();

            fn is(kind: Kind) -> bool {
                kind == Kind::$name
            }

            fn kind(&self) -> Kind {
                Kind::$name
            }
        }
    )*};
}
message!(FromRack, BulkHeader, BulkAnswer, EnrolAsk, EnrolAnswer);

impl Message for ToRack {
    const NAME: &'static str = "ToRack";
    const LIMIT: usize = Kind::Plan.limit();

    fn is(kind: Kind) -> bool {
        matches!(kind, Kind::ToRack | Kind::Plan)
    }

    fn kind(&self) -> Kind {
        if matches!(self, Self::Plan(_)) { Kind::Plan } else { Kind::ToRack }
    }
}

/// Why bytes are no frame, or a message does not fit one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The length prefix, or the encoded message, exceeds the limit.
    #[error("a {kind} frame of {len} bytes exceeds the limit of {limit} bytes; send it in parts")]
    TooLong { kind: &'static str, len: usize, limit: usize },
    /// Another version.
    #[error("frame version {0} is not the {VERSION} that is spoken here; upgrade the older side")]
    Version(u8),
    /// The frame holds another type than this stream carries.
    #[error("a frame of kind {seen:?} came where {expected} belongs; the peer is no Hostler or has a fault")]
    Kind { seen: Kind, expected: &'static str },
    /// The bytes are not a value of that type.
    #[error("{len} bytes are no {what}: {why}; both sides must run versions that know the message")]
    Malformed { what: &'static str, len: usize, why: String },
    /// Bytes are left over.
    #[error("{left} of {len} bytes are left after the {what}; the frame is damaged or of a changed shape")]
    Trailing { what: &'static str, len: usize, left: usize },
    /// A message that cannot be encoded at all.
    #[error("{what} cannot be encoded: {why}")]
    Unencodable { what: &'static str, why: String },
}

/// An encoded message, known to fit its limit. What is queued, so that an oversized message is refused where it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    kind: Kind,
    bytes: Vec<u8>,
}

/// Room that every envelope fits in: version and kind 1 byte each, then 17, 9 and 9 (bincode's longest integers).
const ENVELOPE_MAX: usize = 37;

impl Body {
    /// Encodes `message`.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] above [`Kind::limit`].
    pub fn of<M: Message>(message: &M) -> Result<Self, CodecError> {
        let kind = message.kind();
        let bytes = bincode::encode_to_vec(message, bincode::config::standard())
            .map_err(|e| CodecError::Unencodable { what: M::NAME, why: e.to_string() })?;
        let len = bytes.len() + ENVELOPE_MAX;
        if len > kind.limit() {
            return Err(CodecError::TooLong { kind: M::NAME, len, limit: kind.limit() });
        }
        Ok(Self { kind, bytes })
    }

    /// Bytes that the frame will take at most, prefix included.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        PREFIX + ENVELOPE_MAX + self.bytes.len()
    }

    /// Appends the whole frame to `out`.
    ///
    /// # Errors
    /// [`CodecError::Unencodable`], should bincode refuse an envelope; `out` is then as before.
    pub fn frame(&self, parent: TraceParent, sequence: u64, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX]);
        let envelope = Envelope { version: VERSION, kind: self.kind, parent, sequence };
        if let Err(e) = bincode::encode_into_std_write(envelope, out, bincode::config::standard()) {
            out.truncate(start);
            return Err(CodecError::Unencodable { what: "Envelope", why: e.to_string() });
        }
        out.extend_from_slice(&self.bytes);
        let len = u32::try_from(out.len() - start - PREFIX).unwrap_or(u32::MAX); // Below 16 MiB, by `of`.
        if let Some(prefix) = out.get_mut(start..start + PREFIX) {
            prefix.copy_from_slice(&len.to_be_bytes());
        }
        Ok(())
    }
}

/// The whole frame of one message, prefix included.
///
/// # Errors
/// As [`Body::of`].
pub fn encode<M: Message>(message: &M, parent: TraceParent, sequence: u64) -> Result<Vec<u8>, CodecError> {
    let body = Body::of(message)?;
    let mut out = Vec::with_capacity(body.frame_len());
    body.frame(parent, sequence, &mut out)?;
    Ok(out)
}

/// The length of the frame that `prefix` announces on a stream of `M`.
///
/// # Errors
/// [`CodecError::TooLong`] above the largest limit of `M`.
pub fn announced<M: Message>(prefix: [u8; PREFIX]) -> Result<usize, CodecError> {
    let len = u32::from_be_bytes(prefix) as usize;
    if len > M::LIMIT {
        return Err(CodecError::TooLong { kind: M::NAME, len, limit: M::LIMIT });
    }
    Ok(len)
}

/// Decodes one frame without its prefix.
///
/// # Errors
/// For anything but exactly one envelope of this version and one `M` within its limit. Never panics.
pub fn decode<M: Message>(frame: &[u8]) -> Result<(Envelope, M), CodecError> {
    match frame.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(CodecError::Version(other)),
        None => return Err(CodecError::Malformed { what: "Envelope", len: 0, why: "the frame is empty".into() }),
    }
    let (envelope, used) = value::<Envelope>(frame, "Envelope")?;
    if !M::is(envelope.kind) {
        return Err(CodecError::Kind { seen: envelope.kind, expected: M::NAME });
    }
    let limit = envelope.kind.limit();
    if frame.len() > limit {
        return Err(CodecError::TooLong { kind: M::NAME, len: frame.len(), limit });
    }
    let rest = frame.get(used..).unwrap_or_default();
    let (message, used) = value::<M>(rest, M::NAME)?;
    if used != rest.len() {
        return Err(CodecError::Trailing { what: M::NAME, len: rest.len(), left: rest.len() - used });
    }
    if message.kind() != envelope.kind {
        return Err(CodecError::Kind { seen: envelope.kind, expected: M::NAME });
    }
    Ok((envelope, message))
}

/// One value from the front of `bytes`, and how many it took.
///
/// bincode counts what containers claim in *memory* against its limit, which is up to 24 times their bytes on the wire
/// (an empty ticket). So the limit is 32 times the frame's own length, in three steps since it is a constant.
fn value<T: Decode<()>>(bytes: &[u8], what: &'static str) -> Result<(T, usize), CodecError> {
    let config = bincode::config::standard();
    match bytes.len() {
        0..=0x1_0000 => bincode::decode_from_slice(bytes, config.with_limit::<{ 2 * MIB }>()),
        0x1_0001..=0x10_0000 => bincode::decode_from_slice(bytes, config.with_limit::<{ 32 * MIB }>()),
        _ => bincode::decode_from_slice(bytes, config.with_limit::<{ 512 * MIB }>()),
    }
    .map_err(|e| CodecError::Malformed { what, len: bytes.len(), why: e.to_string() })
}

/// Takes frames out of bytes as they come off a stream. Holds at most one unfinished frame.
#[derive(Debug, Default)]
pub struct Deframer {
    bytes: Vec<u8>,
    start: usize,
}

impl Deframer {
    /// Adds bytes that came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether no byte of an unfinished frame is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// The next whole message; `None` when more bytes are needed. After an error the stream has no more frames to trust.
    ///
    /// # Errors
    /// As [`announced`] and [`decode`].
    pub fn take<M: Message>(&mut self) -> Result<Option<(Envelope, M)>, CodecError> {
        let held = self.bytes.get(self.start..).unwrap_or_default();
        let Some((prefix, rest)) = held.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let len = announced::<M>(*prefix)?;
        let Some(frame) = rest.get(..len) else { return Ok(None) };
        let decoded = decode(frame)?;
        self.start += PREFIX + len;
        Ok(Some(decoded))
    }
}
