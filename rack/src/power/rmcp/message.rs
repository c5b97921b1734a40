//! One IPMI message on the LAN: addresses, function, sequence, checksums (IPMI 2.0 section 13.8). The BMC is 0x20, the console 0x81.

use super::packet::{Malformed, malformed};

const BMC: u8 = 0x20;
const CONSOLE: u8 = 0x81;
/// Sequence numbers of messages have six bits.
pub const SEQUENCES: u8 = 64;

/// A request or, with an odd function, a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Network function: even in a request, one more in its response.
    pub function: u8,
    /// The number of a request, below [`SEQUENCES`]; the response repeats it.
    pub sequence: u8,
    pub command: u8,
    /// In a response, the first byte is the completion code.
    pub data: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes a message apart. `strict`: the checksums must be right.
    ///
    /// # Errors
    /// [`Malformed`] names the field.
    pub fn read(bytes: &'a [u8], strict: bool) -> Result<Self, Malformed> {
        let [_, function, first, _, sequence, command, data @ .., second] = bytes else {
            return Err(malformed("the message's length", bytes.len(), "7 or more"));
        };
        let sum = |part: &[u8]| part.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        if strict && (sum(&bytes[..3]) != 0 || sum(&bytes[3..]) != 0) {
            return Err(malformed("a checksum of the message", (*first).max(*second).into(), "right"));
        }
        Ok(Self { function: function >> 2, sequence: sequence >> 2, command: *command, data })
    }

    /// The message as bytes, from the console where the function is even, from the BMC where it is odd.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let (to, from) = if self.function.is_multiple_of(2) { (BMC, CONSOLE) } else { (CONSOLE, BMC) };
        let function = self.function << 2;
        let mut bytes = Vec::with_capacity(7 + self.data.len());
        bytes.extend([to, function, checksum(&[to, function]), from, self.sequence << 2, self.command]);
        bytes.extend(self.data);
        bytes.push(checksum(&bytes[3..]));
        bytes
    }
}

/// What makes the sum zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}
