//! The region's own CA, the certificates it makes, and the files both sides keep (0600). Who may have a certificate is not decided here.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use ring::hmac;
use rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
    pem::{PemObject, SectionKind},
};
use schema::{boot::Sha256, id::RackId, time::Timestamp};

use super::tls::REGION_NAME;

const DAY: Duration = Duration::from_secs(86_400);
/// How long the CA and a region's certificate live. A region makes its own anew at every start.
const LONG: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long a rack's certificate lives by default. Revocation does not wait for it: certificates are pinned per rack.
pub const RACK_VALIDITY: Duration = Duration::from_secs(5 * 365 * 86_400);

/// Why certificates could not be read, made or kept.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {why}; restore it from a backup")]
    Damaged { path: PathBuf, why: String },
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// The region's CA: signs its own certificates and those of its racks.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate chain and its key, as the region shows it.
pub struct RegionIdentity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// A certificate made for a rack.
#[derive(Debug, Clone)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    /// Its SHA-256, to be pinned.
    pub fingerprint: Sha256,
}

impl Ca {
    /// A new CA, in memory.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn create(now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let id = Sha256::of(key.public_key_raw()).to_string();
        let mut params = CertificateParams::default();
        // The name differs from region to region, so that a foreign certificate is told apart by its issuer.
        params.distinguished_name = common_name(&format!("Hostler CA {}", id.get(..16).unwrap_or_default()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        live(&mut params, now, LONG);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The CA of `dir/ca.pem`, made when there is none. The file holds the key: mode 0600.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is damaged. A damaged CA is never replaced: every rack depends on it.
    pub fn open_or_create(dir: &Path, now: Timestamp) -> Result<Self, CaError> {
        let path = dir.join("ca.pem");
        match fs::read(&path) {
            Ok(pem) => Self::from_pem(&pem).map_err(|why| CaError::Damaged { path, why }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let ca = Self::create(now)?;
                let key = pem("PRIVATE KEY", ca.issuer.key().serialized_der());
                fs::create_dir_all(dir).map_err(|source| CaError::File { path: dir.into(), source })?;
                write_private(&path, &format!("{}{key}", pem("CERTIFICATE", &ca.certificate)))?;
                Ok(ca)
            }
            Err(source) => Err(CaError::File { path, source }),
        }
    }

    fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|e| format!("no certificate: {e}"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|e| format!("no private key: {e}"))?;
        let key = KeyPair::try_from(&key).map_err(|e| e.to_string())?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|e| e.to_string())?;
        Ok(Self { issuer, certificate })
    }

    /// A secret for that purpose, reckoned from the CA's key: it lasts as long as the CA, and gives nothing of the key away.
    pub(super) fn secret(&self, purpose: &[u8]) -> hmac::Key {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.issuer.key().serialized_der());
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, purpose).as_ref())
    }

    /// The CA's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The SHA-256 of the CA's certificate, which enrolment tokens carry.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.certificate)
    }

    /// A certificate with a fresh key for a region's server; lives in memory only.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn region_identity(&self, now: Timestamp) -> Result<RegionIdentity, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([REGION_NAME.to_owned()])?;
        params.distinguished_name = common_name("Hostler region");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serial_number = Some(serial(key.public_key_raw(), now));
        live(&mut params, now, LONG);
        let leaf = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(RegionIdentity {
            chain: vec![leaf, self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// A certificate for the key of a signing request (PKCS 10, DER), whose signature proves that the rack has the key.
    /// Nothing else of the request is used.
    ///
    /// # Errors
    /// When the bytes are no signing request.
    pub fn issue(&self, request: &[u8], hostname: &str, now: Timestamp, validity: Duration) -> Result<Issued, CaError> {
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("Hostler rack {hostname}"));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial(&Sha256::of(hostname.as_bytes()).0, now));
        live(&mut params, now, validity);
        request.params = params;
        let certificate = request.signed_by(&self.issuer)?.der().clone();
        let fingerprint = Sha256::of(&certificate);
        Ok(Issued { certificate, fingerprint })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

/// Valid from a day ago, since clocks differ.
fn live(params: &mut CertificateParams, now: Timestamp, validity: Duration) {
    let since_epoch =
        |t: Timestamp| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(t.seconds()).unwrap_or(0));
    params.not_before = since_epoch(now - DAY);
    params.not_after = since_epoch(now + validity);
}

fn serial(key: &[u8], now: Timestamp) -> SerialNumber {
    let mut serial = Sha256::of(&[key, &now.0.to_be_bytes()].concat()).0;
    serial[0] &= 0x7f; // RFC 5280 section 4.1.2.2: positive, at most 20 octets.
    SerialNumber::from_slice(serial.get(..16).unwrap_or_default())
}

/// What a rack holds after enrolment.
pub struct RackIdentity {
    pub rack: RackId,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) ca: CertificateDer<'static>,
}

impl RackIdentity {
    /// From its parts: certificate, PKCS 8 key, CA, all DER.
    #[must_use]
    pub fn new(rack: RackId, certificate: Vec<u8>, key: Vec<u8>, ca: Vec<u8>) -> Self {
        let key = PrivatePkcs8KeyDer::from(key).into();
        Self { rack, certificate: certificate.into(), key, ca: ca.into() }
    }

    /// The SHA-256 of the rack's certificate, as the region has pinned it.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.certificate)
    }

    /// Keeps it in one file, mode 0600, replaced at once or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), CaError> {
        let text = format!(
            "rack: {}\n{}{}{}",
            self.rack,
            pem("CERTIFICATE", &self.certificate),
            pem("CERTIFICATE", &self.ca),
            pem("PRIVATE KEY", self.key.secret_der()),
        );
        write_private(path, &text)
    }

    /// Reads what [`RackIdentity::save`] wrote.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn load(path: &Path) -> Result<Self, CaError> {
        let text = fs::read_to_string(path).map_err(|source| CaError::File { path: path.into(), source })?;
        Self::parse(&text).map_err(|why| CaError::Damaged { path: path.into(), why })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let rack = text.lines().find_map(|l| l.strip_prefix("rack: ")).ok_or("the line \"rack: ID\" is missing")?;
        let rack = rack.trim().parse().map_err(|e: schema::id::SystemIdError| e.to_string())?;
        let (mut certificates, mut key) = (Vec::new(), None);
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            match section.map_err(|e| e.to_string())? {
                (SectionKind::Certificate, der) => certificates.push(der),
                (SectionKind::PrivateKey, der) => key = Some(der),
                _ => {}
            }
        }
        match (<[Vec<u8>; 2]>::try_from(certificates), key) {
            (Ok([certificate, ca]), Some(key)) => Ok(Self::new(rack, certificate, key, ca)),
            _ => Err("it does not hold two certificates and a key".into()),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Writes beside the file and renames, so that a crash leaves the old one.
fn write_private(path: &Path, text: &str) -> Result<(), CaError> {
    let write = || -> io::Result<()> {
        let beside = path.with_extension("new");
        fs::remove_file(&beside).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| CaError::File { path: path.into(), source })
}
