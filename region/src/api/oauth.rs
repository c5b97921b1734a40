//! OAuth 1.0 PLAINTEXT (RFC 5849 section 3.4.4) as MAAS uses it: keys, the header both ways, and the memory of nonces. Knows no user.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    str::FromStr,
    sync::Mutex,
};

use schema::secret::Secret;

/// MAAS's API key: `consumer_key:token_key:token_secret`. The consumer secret is always empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub consumer_key: String,
    pub token_key: String,
    pub token_secret: Secret<String>,
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().split(':').collect::<Vec<_>>()[..] {
            [c, t, s] if ![c, t, s].iter().any(|p| p.is_empty()) => {
                Ok(Self { consumer_key: c.into(), token_key: t.into(), token_secret: Secret::new(s.into()) })
            }
            _ => {
                Err("the API key has not three parts; it looks like CONSUMER:TOKEN:SECRET (`hostler init` printed it)"
                    .into())
            }
        }
    }
}

impl Key {
    /// The value of the `Authorization` header for one request made now.
    #[must_use]
    pub fn header(&self) -> String {
        let nonce: u64 = rand::random();
        format!(
            "OAuth oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"{}\", oauth_token=\"{}\", \
             oauth_signature=\"%26{}\", oauth_timestamp=\"{}\", oauth_nonce=\"{nonce:016x}\"",
            encoded(&self.consumer_key),
            encoded(&self.token_key),
            // The signature is `&` and the encoded secret, and the whole of it is encoded once more.
            encoded(&encoded(self.token_secret.expose())),
            actors::clock::now().seconds(),
        )
    }
}

/// What a request's header claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub consumer_key: String,
    pub token_key: String,
    pub token_secret: Secret<String>,
    /// Seconds since the epoch.
    pub timestamp: i64,
    pub nonce: String,
}

/// Why a header is no claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No OAuth header, or parts of it are missing: it counts as no credentials at all.
    #[error("no OAuth credentials")]
    None,
    /// 400 in MAAS.
    #[error("oauth_timestamp \"{0}\" is not an integer; send seconds since 1970")]
    Timestamp(String),
    /// Another method than PLAINTEXT.
    #[error("signature method \"{0}\" is not known here; use PLAINTEXT")]
    Method(String),
}

impl Claim {
    /// Reads an `Authorization` header: parameters in any order, quoted or not, with or without `realm`.
    ///
    /// # Errors
    /// [`ClaimError`], by kind.
    pub fn read(header: &str) -> Result<Self, ClaimError> {
        let (scheme, rest) = header.trim().split_once(char::is_whitespace).ok_or(ClaimError::None)?;
        if !scheme.eq_ignore_ascii_case("oauth") {
            return Err(ClaimError::None);
        }
        let parts: BTreeMap<&str, String> = rest
            .split(',')
            .filter_map(|p| p.trim().split_once('='))
            .map(|(k, v)| (k.trim(), decoded(v.trim().trim_matches('"'))))
            .collect();
        let part = |name: &str| parts.get(name).filter(|v| !v.is_empty()).cloned().ok_or(ClaimError::None);
        let method = part("oauth_signature_method")?;
        if method != "PLAINTEXT" {
            return Err(ClaimError::Method(method));
        }
        let signature = part("oauth_signature")?;
        let (_, secret) = signature.split_once('&').ok_or(ClaimError::None)?;
        let stamp = part("oauth_timestamp")?;
        Ok(Self {
            consumer_key: part("oauth_consumer_key")?,
            token_key: part("oauth_token")?,
            token_secret: Secret::new(decoded(secret)),
            timestamp: stamp.parse().map_err(|_| ClaimError::Timestamp(stamp.clone()))?,
            nonce: part("oauth_nonce")?,
        })
    }
}

/// How long ago a request may have been signed, in seconds. Stamps from the future pass, as in MAAS.
pub const WINDOW_S: i64 = 300;
/// Nonces kept at most; beyond it the oldest half is forgotten, which only shortens the window for repeats.
const NONCES: usize = 400_000;

/// The nonces of the last [`WINDOW_S`] seconds: a signed request serves once.
#[derive(Debug, Default)]
pub struct Nonces(Mutex<HashMap<(String, String), i64>>);

impl Nonces {
    /// Whether (token, nonce) is new; it is then remembered. `now` in seconds.
    pub fn fresh(&self, token: &str, nonce: &str, now: i64) -> bool {
        let Ok(mut seen) = self.0.lock() else { return true };
        if seen.len() >= NONCES {
            seen.retain(|_, at| *at > now - WINDOW_S);
            if seen.len() >= NONCES {
                seen.retain(|_, at| *at > now - WINDOW_S / 2);
            }
        }
        match seen.insert((token.to_owned(), nonce.to_owned()), now) {
            Some(at) => at <= now - WINDOW_S,
            None => true,
        }
    }
}

/// Percent-encoding by RFC 5849 section 3.6.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").ok(); // Writing to a String cannot fail.
        }
    }
    out
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let pair =
            after.get(..2).and_then(|p| std::str::from_utf8(p).ok()).and_then(|p| u8::from_str_radix(p, 16).ok());
        match (first, pair) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_signed_can_be_read() {
        let key: Key = "ck:tk:t%s&x".parse().unwrap();
        let claim = Claim::read(&key.header()).unwrap();
        assert_eq!((claim.consumer_key.as_str(), claim.token_key.as_str()), ("ck", "tk"));
        assert_eq!(claim.token_secret.expose(), "t%s&x");
    }

    #[test]
    fn headers_of_real_clients_are_read() {
        let l = "OAuth realm=\"OAuth\", oauth_nonce=\"15677957300786397608\", oauth_timestamp=\"1795333402\", oauth_version=\"1.0\", \
            oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"ck\", oauth_token=\"tk\", oauth_signature=\"%26ts\"";
        let g = "OAuth oauth_version=\"1.0\",realm=\"MAAS+API\",oauth_consumer_key=\"ck\",oauth_signature=\"%26ts\",oauth_token=\"tk\",\
            oauth_signature_method=\"PLAINTEXT\",oauth_timestamp=\"1795333402\",oauth_nonce=\"a\"";
        for header in [l, g] {
            let claim = Claim::read(header).unwrap();
            assert_eq!(claim.token_secret.expose(), "ts");
            assert_eq!(claim.timestamp, 1_795_333_402);
        }
    }

    #[test]
    fn incomplete_headers_are_no_credentials_and_a_wrong_stamp_is_said() {
        for header in ["", "Basic abc", "OAuth ", "OAuth oauth_token=\"x\""] {
            assert_eq!(Claim::read(header), Err(ClaimError::None), "{header}");
        }
        let header = "OAuth oauth_signature_method=PLAINTEXT,oauth_consumer_key=c,oauth_token=t,oauth_signature=%26s,oauth_timestamp=soon,oauth_nonce=n";
        assert_eq!(Claim::read(header), Err(ClaimError::Timestamp("soon".into())));
    }

    #[test]
    fn a_nonce_serves_once_within_the_window() {
        let nonces = Nonces::default();
        assert!(nonces.fresh("t", "n", 1_000));
        assert!(!nonces.fresh("t", "n", 1_001));
        assert!(nonces.fresh("t", "m", 1_001));
        assert!(nonces.fresh("t", "m", 1_001 + WINDOW_S));
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_reader(header in "(OAuth )?\\PC{0,200}") {
            Claim::read(&header).ok();
        }
    }
}
