//! What a rack and a region say once, before the rack has a certificate. Tokens are made and checked elsewhere.

use bincode::{Decode, Encode};

use crate::{id::RackId, secret::Secret};

/// Rack to region, the only frame of its stream, under ALPN `hostler-enrol/1`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum EnrolAsk {
    /// Let me in: the token's secret half, and a certificate signing request (PKCS 10, DER) for the rack's own key.
    Enrol { token: Secret<String>, request: Vec<u8>, hostname: String, version: String },
}

/// Region to rack, the only answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum EnrolAnswer {
    /// The rack is known from now on: its id, its certificate and the region's CA (X.509, DER).
    Enrolled { rack: RackId, certificate: Vec<u8>, ca: Vec<u8> },
    /// It is not.
    Refused { why: String, remedy: String },
}
