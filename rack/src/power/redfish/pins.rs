//! Certificates of BMCs: nearly all are signed by themselves. The first one seen of a BMC is kept, and another is refused.

use std::{
    collections::HashMap,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use schema::boot::Sha256;

/// How certificates of BMCs are looked at (`[power] redfish_tls`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RedfishTls {
    /// The first certificate of a BMC is kept; another one later is refused.
    #[default]
    Pin,
    /// By the certificate authorities of this host.
    Verify,
    /// Any at any time: who is in between can read the password.
    Any,
}

impl std::str::FromStr for RedfishTls {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "pin" => Ok(Self::Pin),
            "verify" => Ok(Self::Verify),
            "any" => Ok(Self::Any),
            _ => Err(()),
        }
    }
}

/// What was seen of each BMC's certificate, by host. Cloned freely.
#[derive(Debug, Clone)]
pub(super) struct Pins(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// A line per host: its name and the SHA-256 of the certificate. A later line wins.
    file: Option<PathBuf>,
    known: Mutex<HashMap<String, Sha256>>,
    provider: Arc<CryptoProvider>,
    any: bool,
}

impl Pins {
    /// The pins in `file`, or none yet; `any` accepts everything and keeps nothing.
    pub(super) fn open(file: Option<PathBuf>, any: bool) -> Self {
        let text = file.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let known = lines.filter_map(|(host, hash)| Some((host.to_owned(), hash.trim().parse().ok()?))).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self(Arc::new(Inner { file, known: Mutex::new(known), provider, any }))
    }

    /// A client that looks at certificates this way.
    ///
    /// # Errors
    /// When the provider knows no protocol version, which it does.
    pub(super) fn client(&self) -> Result<ClientConfig, Error> {
        let config =
            ClientConfig::builder_with_provider(self.0.provider.clone()).with_safe_default_protocol_versions()?;
        let verifier = Arc::new(Verifier(self.clone()));
        Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }

    /// Where they are kept, for a sentence.
    pub(super) fn place(&self) -> String {
        self.0.file.as_ref().map_or_else(|| "this process's memory".into(), |path| path.display().to_string())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Sha256>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that certificate is the host's. The first one is.
    fn admit(&self, host: &str, certificate: &[u8]) -> bool {
        if self.0.any {
            return true;
        }
        let hash = Sha256::of(certificate);
        let mut known = self.known();
        if let Some(pinned) = known.get(host) {
            return *pinned == hash;
        }
        tracing::info!(host, sha256 = %hash, "the certificate of the BMC {host} is kept from now on");
        if let Some(path) = &self.0.file {
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
            if let Err(e) = opened.and_then(|mut file| writeln!(file, "{host} {hash}")) {
                tracing::warn!("the certificate of the BMC {host} cannot be kept in {}: {e}", path.display());
            }
        }
        known.insert(host.into(), hash);
        true
    }
}

#[derive(Debug)]
struct Verifier(Pins);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.0.admit(&server_name.to_str(), end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.0.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.0.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.0.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_certificate_is_kept_over_restarts_and_another_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(dir.path().join("pins"));
        let pins = Pins::open(file.clone(), false);
        assert!(pins.admit("bmc-1", b"one") && pins.admit("bmc-2", b"two") && pins.admit("bmc-1", b"one"));
        assert!(!pins.admit("bmc-1", b"other"));
        let again = Pins::open(file, false);
        assert!(again.admit("bmc-1", b"one") && !again.admit("bmc-2", b"other"));
        assert!(Pins::open(None, true).admit("bmc-1", b"other"));
    }
}
