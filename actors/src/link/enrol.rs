//! Enrolment: a single-use token buys a rack its certificate. Which tokens are good is the doorkeeper's business.
//!
//! The token's text is `SECRET.FINGERPRINT`: 48 hexadecimal digits that the region keeps only as a hash, and the SHA-256 of
//! the region's CA, by which the rack knows the region. So one line of text authenticates both ways.

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

use rcgen::{CertificateParams, KeyPair};
use schema::{
    boot::Sha256,
    messages::enrol::{EnrolAnswer, EnrolAsk},
    net::HostName,
    secret::Secret,
};

use super::{
    ALPN_ENROL, Close, Doorkeeper, Enrolling, LinkError, Refusal, Timing,
    ca::{Ca, RackIdentity},
    client, describe,
    stream::{read_one, write_one},
    tls,
};
use crate::clock;

/// An enrolment token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: Secret<String>,
    ca: Sha256,
}

/// A text that is no token. Does not repeat the text: most of it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no enrolment token ({0}); copy the whole line that `hostler init` or `hostler rack token` printed")]
pub struct TokenError(String);

impl Token {
    /// A new token for that CA. `random` comes from a cryptographic source.
    #[must_use]
    pub fn mint(ca: &Ca, random: [u8; 24]) -> Self {
        let secret = random.iter().map(|b| format!("{b:02x}")).collect();
        Self { secret: Secret::new(secret), ca: ca.fingerprint() }
    }

    /// What the region keeps of it: nobody can enrol with this.
    #[must_use]
    pub fn hash(&self) -> Sha256 {
        Sha256::of(self.secret.expose().as_bytes())
    }

    /// The text that the operator carries to the rack.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}.{}", self.secret.expose(), self.ca)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[secret].{}", self.ca)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// # Errors
    /// When it is not 48 hexadecimal digits, a point, and 64 hexadecimal digits. White space around it is no matter.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: String| TokenError(why);
        let (secret, ca) = text.trim().split_once('.').ok_or_else(|| wrong("it has no point".into()))?;
        if secret.len() != 48 || !secret.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong(format!(
                "before the point stand {} characters, not 48 hexadecimal digits",
                secret.len()
            )));
        }
        let ca = ca
            .parse()
            .map_err(|_| wrong(format!("after the point stand {} characters, not 64 hexadecimal digits", ca.len())))?;
        Ok(Self { secret: Secret::new(secret.to_ascii_lowercase()), ca })
    }
}

/// The rack's side: dials `region` (HOST:PORT), spends the token, and returns what [`RackIdentity::save`] keeps.
/// The private key is made here and never leaves.
///
/// # Errors
/// When the region cannot be reached, is not the token's region, or refuses.
pub async fn enrol(region: &str, token: &Token, hostname: &str, version: &str) -> Result<RackIdentity, LinkError> {
    let config = client::transport(tls::enrolling(token.ca)?, &Timing::default());
    let peer = |refusal| LinkError::Peer { address: region.into(), refusal };
    let (endpoint, connection) = client::dial(region, config, &Timing::default()).await.map_err(peer)?;
    let answer = tokio::time::timeout(Timing::default().answer, exchange(&connection, token, hostname, version)).await;
    let answer = answer.map_err(|_| peer(Refusal::new("the region did not answer", "see the region's log")))?;
    Close::Done.close(&connection, "enrolment is done");
    endpoint.wait_idle().await;
    answer.map_err(|e| match e {
        LinkError::Peer { refusal, .. } => peer(refusal),
        other => other,
    })
}

async fn exchange(
    connection: &quinn::Connection,
    token: &Token,
    hostname: &str,
    version: &str,
) -> Result<RackIdentity, LinkError> {
    let failed = |refusal| LinkError::Peer { address: String::new(), refusal };
    let key = KeyPair::generate().map_err(super::ca::CaError::from)?;
    let request = CertificateParams::default().serialize_request(&key).map_err(super::ca::CaError::from)?;
    let ask = EnrolAsk::Enrol {
        token: token.secret.clone(),
        request: request.der().to_vec(),
        hostname: hostname.into(),
        version: version.into(),
    };
    let talk = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|e| describe(&e))?;
        let broke = |e: super::stream::ReadError| match connection.close_reason() {
            Some(reason) => describe(&reason),
            None => Refusal::new(e.to_string(), "see the region's log"),
        };
        write_one(&mut send, &ask).await.map_err(broke)?;
        send.finish().ok(); // The answer tells whether it arrived.
        Ok(read_one::<EnrolAnswer>(&mut recv).await.map_err(broke)?.1)
    };
    match talk.await.map_err(failed)? {
        EnrolAnswer::Enrolled { ca, .. } if Sha256::of(&ca) != token.ca => Err(failed(Refusal::new(
            "the region sent another CA than the token names",
            "take a new token from that region",
        ))),
        EnrolAnswer::Enrolled { rack, certificate, ca } => {
            Ok(RackIdentity::new(rack, certificate, key.serialize_der(), ca))
        }
        EnrolAnswer::Refused { why, remedy } => Err(failed(Refusal::new(why, remedy))),
    }
}

/// The region's side of one enrolment.
pub(super) struct Desk {
    pub(super) ca: Ca,
    pub(super) keeper: Arc<dyn Doorkeeper>,
    pub(super) validity: std::time::Duration,
}

impl Desk {
    /// Answers one ask and waits until the answer has arrived or the rack is gone.
    pub(super) async fn serve(&self, connection: &quinn::Connection) -> Result<(), Refusal> {
        let (mut send, mut recv) = connection.accept_bi().await.map_err(|e| describe(&e))?;
        let ask = read_one::<EnrolAsk>(&mut recv).await;
        let answer = match ask {
            Ok((_, ask)) => self.decide(ask, connection.remote_address()).await,
            Err(e) => Err(Refusal::new(format!("no enrolment came: {e}"), "run the same version on both sides")),
        };
        let (said, result) = match answer {
            Ok(enrolled) => (enrolled, Ok(())),
            Err(refusal) => {
                let Refusal { why, remedy } = refusal.clone();
                (EnrolAnswer::Refused { why, remedy }, Err(refusal))
            }
        };
        write_one(&mut send, &said).await.ok(); // A rack that is gone asks again; the refusal counts either way.
        send.finish().ok();
        send.stopped().await.ok(); // Arrived, or the connection ended.
        result
    }

    async fn decide(&self, ask: EnrolAsk, peer: SocketAddr) -> Result<EnrolAnswer, Refusal> {
        let EnrolAsk::Enrol { token, request, hostname, version } = ask;
        hostname.parse::<HostName>().map_err(|e| Refusal::new(e.to_string(), "name the rack's host so"))?;
        let issued = self.ca.issue(&request, &hostname, clock::now(), self.validity).map_err(|e| {
            Refusal::new(format!("the signing request is not accepted: {e}"), "run the same version on both sides")
        })?;
        let token = Sha256::of(token.expose().as_bytes());
        let rack = Enrolling { token, hostname, version, peer, fingerprint: issued.fingerprint };
        let rack = self.keeper.enrol(rack).await?;
        let ca = self.ca.certificate().to_vec();
        Ok(EnrolAnswer::Enrolled { rack, certificate: issued.certificate.to_vec(), ca })
    }
}

/// The name of the protocol in logs.
#[must_use]
pub(super) fn is_enrolment(alpn: Option<&[u8]>) -> bool {
    alpn == Some(ALPN_ENROL)
}
