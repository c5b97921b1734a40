//! OAuth 1.0 PLAINTEXT (RFC 5849 sections 3.1, 3.4.4 and 3.5.1) as nodes sign with it: reading the header, comparing it with a ticket's key.
//! Nonces are not remembered: a PLAINTEXT header carries the secret itself, so refusing a repeated nonce would stop nobody who has heard one.

use schema::{
    plan::{Ticket, TicketBoot},
    time::Timestamp,
};
use subtle::ConstantTimeEq;

use crate::plan::Snapshot;

/// How far behind the rack's clock a request may be signed, in seconds. Stamps of the future pass, as in MAAS.
const BEHIND_S: i64 = 300;
/// Headers longer than this many bytes are not read.
const HEADER_LIMIT: usize = 4_096;

/// What an `Authorization: OAuth …` header says.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub consumer_key: String,
    pub token: String,
    /// `CONSUMER_SECRET&TOKEN_SECRET`, decoded.
    signature: String,
    /// Seconds since the epoch, by the client's clock.
    timestamp: Result<i64, String>,
}

/// Why a request is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// 401, or 400 for a timestamp that is no number.
    pub status: u16,
    pub why: String,
    /// The machine's clock minus ours in seconds, when that is the reason.
    pub skew_s: Option<i64>,
}

impl Credentials {
    /// Reads the header. Parts may be separated by "," or ", ". `None` for what is no complete PLAINTEXT header:
    /// that counts as no credentials.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("oauth") || header.len() > HEADER_LIMIT {
            return None;
        }
        let field = |name: &str| {
            rest.split(',').find_map(|part| {
                let (key, value) = part.split_once('=')?;
                (key.trim() == name).then(|| percent_decode(value.trim().trim_matches('"')))?
            })
        };
        if !field("oauth_signature_method")?.eq_ignore_ascii_case("PLAINTEXT") || field("oauth_nonce")?.is_empty() {
            return None;
        }
        let stamp = field("oauth_timestamp")?;
        Some(Self {
            consumer_key: field("oauth_consumer_key")?,
            token: field("oauth_token")?,
            signature: field("oauth_signature")?,
            timestamp: stamp.parse().map_err(|_| stamp),
        })
    }

    /// The ticket these credentials open.
    ///
    /// # Errors
    /// When no open ticket has this key, the secret is wrong, or the stamp is older than 300 s.
    pub fn open<'a>(&self, snapshot: &'a Snapshot, now: Timestamp) -> Result<(&'a Ticket, &'a TicketBoot), Denied> {
        let denied = |status, why: String, skew_s| Denied { status, why, skew_s };
        let unknown = || denied(401, "Authorization Error: Invalid API key.".into(), None);
        let ticket = snapshot.ticket_by_token(&self.token, now).ok_or_else(unknown)?;
        let boot = ticket.boot.as_ref().ok_or_else(unknown)?;
        if !self.signed_by(boot) {
            return Err(denied(401, "Authorization Error: 'Invalid signature.'".into(), None));
        }
        match &self.timestamp {
            Err(text) => Err(denied(
                400,
                format!("oauth_timestamp \"{text}\" is not a whole number of seconds since 1970.\n"),
                None,
            )),
            Ok(stamp) if now.seconds().saturating_sub(*stamp) > BEHIND_S => {
                let skew = stamp.saturating_sub(now.seconds());
                let why = format!(
                    "Authorization Error: 'Expired timestamp: given {stamp} and now {} has a greater difference than threshold {BEHIND_S}'; set the clock by the Date of this answer and sign again",
                    now.seconds()
                );
                Err(denied(401, why, Some(skew)))
            }
            Ok(_) => Ok((ticket, boot)),
        }
    }

    /// Whether key and secret are the ticket's, compared in constant time.
    #[must_use]
    pub fn signed_by(&self, boot: &TicketBoot) -> bool {
        let expected = format!("&{}", boot.key.token_secret.expose());
        let secret = self.signature.as_bytes().ct_eq(expected.as_bytes());
        let consumer = self.consumer_key.as_bytes().ct_eq(boot.key.consumer_key.as_bytes());
        bool::from(secret & consumer)
    }
}

/// Decodes `%XX`; `None` when an escape is broken or the result is no UTF-8.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separator_forms_and_any_order_are_read() {
        let a = "OAuth realm=\"\", oauth_nonce=\"n\", oauth_timestamp=\"12\", oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"ck\", oauth_token=\"tk\", oauth_signature=\"%26ts\"";
        let b = "oauth oauth_signature=\"%26ts\",oauth_token=\"tk\",oauth_consumer_key=\"ck\",oauth_signature_method=\"PLAINTEXT\",oauth_timestamp=\"12\",oauth_nonce=\"n\"";
        let (a, b) = (Credentials::parse(a).unwrap(), Credentials::parse(b).unwrap());
        assert!(a == b && a.signature == "&ts" && a.timestamp == Ok(12));
    }

    #[test]
    fn an_incomplete_header_is_no_credentials() {
        for header in
            ["", "OAuth", "Basic eDp5", "OAuth oauth_token=\"x\"", "OAuth oauth_signature=\"%2\", oauth_token=x"]
        {
            assert!(Credentials::parse(header).is_none(), "{header}");
        }
    }
}
