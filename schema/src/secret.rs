//! `Secret<T>`: a value that cannot be printed, logged or serialised by accident.
//! It has no `Debug` of its content, no `Display` and no `Serialize`; only the link's codec carries it, and stores seal it.

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer};

/// A password, key or token. `expose` is the one way to its content, so that every use can be found by name.
#[derive(Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The content, for the one place that needs it (a BMC login, an OAuth comparison, sealing).
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Secret<T> {
    /// Reading a secret (a plan file, an API body) is allowed; writing one is not.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}
