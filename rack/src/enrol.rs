//! `hostler rack enrol`: spends a token and keeps the certificate. The exchange itself is the link's.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use actors::link::{
    LinkError,
    ca::{CaError, RackIdentity},
    enrol::{Token, TokenError},
};
use schema::id::RackId;

use crate::app::IDENTITY;

/// Why a rack could not be enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the state directory {dir}: {source}; make it writable for this user")]
    Directory { dir: PathBuf, source: io::Error },
    #[error("{path} holds the identity of rack {rack} already; remove it to enrol as another rack")]
    Already { path: PathBuf, rack: RackId },
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Keep(#[from] CaError),
}

/// Obtains this rack's certificate from `region` (HOST:PORT) with `token`, and keeps it with its key (mode 0600) and the
/// region's CA in the state directory. The rack has the host's name.
///
/// # Errors
/// [`EnrolError`]; a token is only spent when the region said yes.
pub async fn enrol(state: &Path, region: &str, token: &str) -> Result<RackId, EnrolError> {
    enrol_as(&crate::agent::hostname(), state, region, token).await
}

/// [`enrol`] under another name than the host's. Racks that share a host need it: one that is enrolled under a known name takes that rack's place.
///
/// # Errors
/// As [`enrol`].
pub async fn enrol_as(hostname: &str, state: &Path, region: &str, token: &str) -> Result<RackId, EnrolError> {
    let token: Token = token.parse()?;
    let directory = |source| EnrolError::Directory { dir: state.into(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(directory)?;
    let path = state.join(IDENTITY);
    if let Ok(old) = RackIdentity::load(&path) {
        return Err(EnrolError::Already { path, rack: old.rack });
    }
    let identity = actors::link::enrol::enrol(region, &token, hostname, env!("CARGO_PKG_VERSION")).await?;
    identity.save(&path)?;
    Ok(identity.rack)
}
