//! TLS of the link: rustls configurations, who is verified by what, and TLS failures in words. Certificates are made in [`super::ca`].
//!
//! The region's side lets any client finish the handshake, so that a refusal can be said in words over the stream; it then
//! judges the certificate ([`Judge`]) before it reads a byte. The rack's side verifies the region by the CA it enrolled with.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use schema::{boot::Sha256, time::Timestamp};

use super::{ALPN, ALPN_ENROL, Refusal};

/// The name in every region's certificate. Racks dial addresses and know the CA, so one name serves.
pub const REGION_NAME: &str = "region.hostler";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(ca: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    Ok(Arc::new(roots))
}

/// The region's end, for both protocols.
pub(super) fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<quinn::crypto::rustls::QuicServerConfig, Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(JudgedLater(provider())))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_ENROL.to_vec()];
    // Each connection shows its certificate anew, so that each is judged; resuming saved nothing when measured.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.try_into().map_err(|_| Error::General("the TLS provider lacks TLS13_AES_128_GCM_SHA256".into()))
}

/// The rack's end, with its certificate.
pub(super) fn client(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    ca: &CertificateDer<'_>,
) -> Result<quinn::crypto::rustls::QuicClientConfig, Error> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(vec![certificate], key)?;
    quic_client(config, ALPN)
}

/// The rack's end before it has a certificate: the region is known by its CA's fingerprint.
pub(super) fn enrolling(ca: Sha256) -> Result<quinn::crypto::rustls::QuicClientConfig, Error> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByFingerprint { ca, provider: provider() }))
        .with_no_client_auth();
    quic_client(config, ALPN_ENROL)
}

fn quic_client(
    mut config: rustls::ClientConfig,
    alpn: &[u8],
) -> Result<quinn::crypto::rustls::QuicClientConfig, Error> {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.try_into().map_err(|_| Error::General("the TLS provider lacks TLS13_AES_128_GCM_SHA256".into()))
}

/// Judges rack certificates: of this CA, for clients, not expired.
pub(super) struct Judge(Arc<dyn ClientCertVerifier>);

impl Judge {
    pub(super) fn new(ca: &CertificateDer<'_>) -> Result<Self, Error> {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider())
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        Ok(Self(verifier))
    }

    /// The fingerprint of the peer's certificate, if it is good at `now`.
    pub(super) fn judge(&self, connection: &quinn::Connection, now: Timestamp) -> Result<Sha256, Refusal> {
        let chain = connection.peer_identity().and_then(|c| c.downcast::<Vec<CertificateDer<'static>>>().ok());
        let Some((leaf, rest)) = chain.as_deref().and_then(|c| c.split_first()) else {
            return Err(Refusal::new(
                "this rack shows no certificate",
                "enrol it: hostler rack enrol --region HOST:PORT --token TOKEN",
            ));
        };
        let since = std::time::Duration::from_secs(u64::try_from(now.seconds()).unwrap_or(0));
        match self.0.verify_client_cert(leaf, rest, UnixTime::since_unix_epoch(since)) {
            Ok(_) => Ok(Sha256::of(leaf)),
            Err(e) => Err(refused_certificate(&e, now)),
        }
    }
}

fn refused_certificate(error: &Error, now: Timestamp) -> Refusal {
    use CertificateError as C;
    let again = "enrol the rack again with a new token";
    match error {
        Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            Refusal::new(format!("the rack's certificate has expired (it is {now} here)"), again)
        }
        Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => Refusal::new(
            format!("the rack's certificate is not valid yet (it is {now} here)"),
            "set the clocks of region and rack",
        ),
        Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => Refusal::new(
            "the rack's certificate was made by another region's CA",
            "point the rack at its own region, or enrol it here with a token of this region",
        ),
        other => Refusal::new(format!("the rack's certificate is not accepted: {other}"), again),
    }
}

/// A TLS failure of a handshake in words. `here`: this side found it; otherwise the other side said so.
pub(super) fn explain(code: u64, reason: &str, here: bool) -> Refusal {
    // RFC 9001 section 4.8: a TLS alert is 0x100 plus its number (RFC 8446 section 6).
    match code.checked_sub(0x100) {
        Some(45) if here => {
            Refusal::new("the region's certificate has expired", "check the rack's clock; restart the region")
        }
        Some(42 | 45 | 48 | 51) if here => Refusal::new(
            "the region's certificate is not of the CA that this rack enrolled with: it is another region",
            "correct the rack's region address, or enrol the rack there with a token of that region",
        ),
        Some(42 | 45 | 48 | 51) => Refusal::new(
            "the rack does not accept this region's certificate: it enrolled with another region",
            "point the rack at its own region, or enrol it here",
        ),
        Some(120) => Refusal::new(
            "the other side speaks no protocol that is spoken here (hostler/1)",
            "check the address; upgrade the older side",
        ),
        Some(alert) => {
            Refusal::new(format!("TLS alert {alert}: {reason}"), "check that the address is a Hostler region's link")
        }
        None => Refusal::new(format!("QUIC error {code:#x}: {reason}"), "check that both sides run the same version"),
    }
}

/// Lets every client certificate pass the handshake, where its key signs for it. [`Judge`] has the last word.
#[derive(Debug)]
struct JudgedLater(Arc<CryptoProvider>);

impl ClientCertVerifier for JudgedLater {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Trusts the chain whose CA has that SHA-256, and nothing else.
#[derive(Debug)]
struct ByFingerprint {
    ca: Sha256,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = rest
            .iter()
            .find(|c| Sha256::of(c) == self.ca)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        WebPkiServerVerifier::builder_with_provider(roots(ca)?, self.provider.clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?
            .verify_server_cert(leaf, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
