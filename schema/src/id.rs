//! Identities: of machines, controllers, subnets, attempts. Parsing lives here; nothing here allocates an id from a clock or a die.

use std::{fmt, str::FromStr};

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The 24 symbols of MAAS's system ids: digits and letters that cannot be read as another.
pub const SYSTEM_ID_ALPHABET: &[u8; 24] = b"34678abcdefghkmnpqrstwxy";
/// Symbols of a [`SystemId`].
pub const SYSTEM_ID_LEN: usize = 6;

/// MAAS's `system_id`: six characters that name a machine or a controller, in one common space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct SystemId([u8; SYSTEM_ID_LEN]);

/// A rack controller's `system_id`.
pub type RackId = SystemId;

/// A text that is no system id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("system id \"{0}\" is not six lower-case letters or digits; copy it from `hostler machine list`")]
pub struct SystemIdError(pub String);

impl SystemId {
    /// No id is less: where a range of ids begins.
    pub const FIRST: Self = Self(*b"000000");

    /// The id made of six draws. Each draw is taken modulo the alphabet's size, so any source of randomness serves.
    #[must_use]
    pub fn from_draws(draws: [u8; SYSTEM_ID_LEN]) -> Self {
        Self(draws.map(|d| SYSTEM_ID_ALPHABET[usize::from(d) % SYSTEM_ID_ALPHABET.len()]))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Both constructors admit ASCII only.
        std::str::from_utf8(&self.0).unwrap_or("??????")
    }
}

impl FromStr for SystemId {
    type Err = SystemIdError;

    /// # Errors
    /// When the text is not six lower-case ASCII letters or digits. (Wider than the alphabet on purpose: ids made elsewhere stay readable.)
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; SYSTEM_ID_LEN] = text.as_bytes().try_into().map_err(|_| SystemIdError(text.into()))?;
        if bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            Ok(Self(bytes))
        } else {
            Err(SystemIdError(text.into()))
        }
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SystemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SystemId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A subnet's integer id, as the MAAS API shows it.
    SubnetId(i64)
}
number! {
    /// A VLAN's integer id (not its VID). MAAS starts at 5001.
    VlanId(i64)
}
number! {
    /// A fabric's integer id.
    FabricId(i64)
}
number! {
    /// An IP range's integer id.
    RangeId(i64)
}
number! {
    /// One try at an operation on one machine; counts up from 1 per machine, 0 is none. What carries an older attempt is ignored.
    AttemptId(u32)
}
number! {
    /// The version of a plan or of an actor's row; counts up from 1, 0 is "never written".
    Generation(u64)
}
number! {
    /// A place in one rack's stream of reports; counts up from 1 without gaps for the life of the rack's outbox.
    ReportSeq(u64)
}
number! {
    /// A script result's integer id, unique in the region; what makes a repeated result harmless.
    ResultId(i64)
}

impl AttemptId {
    /// The attempt after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_of_an_id_differ() {
        assert!(SYSTEM_ID_ALPHABET.is_sorted_by(|a, b| a < b));
    }
}
