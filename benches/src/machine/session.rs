//! The machine's session with the metadata service: the key of its preseed, cloud-init's status events, the scripts of the tar.

use std::io::Read;

use serde::Deserialize;

use super::http::{self, Agent, Request};

/// cloud-init's status events that a simulated machine posts: of the 73 that a real boot sends, twenty from all its stages.
/// Type, name, result (of a finish), description.
pub const STATUS_EVENTS: [(&str, &str, &str, &str); 20] = [
    ("start", "init-local/check-cache", "", "attempting to read from cache [check]"),
    ("finish", "init-local/check-cache", "SUCCESS", "no cache found"),
    ("finish", "init-local", "SUCCESS", "searching for local datasources"),
    ("start", "init-network/check-cache", "", "attempting to read from cache [trust]"),
    ("finish", "init-network/check-cache", "SUCCESS", "no cache found"),
    ("start", "init-network/search-MAAS", "", "searching for network data from DataSourceMAAS"),
    ("finish", "init-network/search-MAAS", "SUCCESS", "found network data from DataSourceMAAS"),
    ("start", "init-network/setup-datasource", "", "setting up datasource"),
    ("finish", "init-network/setup-datasource", "SUCCESS", "setting up datasource"),
    ("start", "init-network/consume-user-data", "", "reading and applying user-data"),
    ("finish", "init-network/consume-user-data", "SUCCESS", "reading and applying user-data"),
    ("finish", "init-network", "SUCCESS", "searching for network datasources"),
    (
        "start",
        "modules-config/config-apt-configure",
        "",
        "running config-apt-configure with frequency once-per-instance",
    ),
    ("finish", "modules-config/config-apt-configure", "SUCCESS", "config-apt-configure ran successfully"),
    ("finish", "modules-config", "SUCCESS", "running modules for config"),
    (
        "start",
        "modules-final/config-scripts-per-instance",
        "",
        "running config-scripts-per-instance with frequency once-per-instance",
    ),
    ("finish", "modules-final/config-scripts-per-instance", "SUCCESS", "config-scripts-per-instance ran successfully"),
    ("start", "modules-final/config-scripts-user", "", "running config-scripts-user with frequency once-per-instance"),
    ("finish", "modules-final/config-scripts-user", "SUCCESS", "config-scripts-user ran successfully"),
    (
        "start",
        "modules-final/config-ssh-authkey-fingerprints",
        "",
        "running config-ssh-authkey-fingerprints with frequency once-per-instance",
    ),
];

/// The places of a stage's events in [`STATUS_EVENTS`].
pub(super) fn events_of(stage: &'static str) -> impl Iterator<Item = usize> {
    let of = move |name: &str| name == stage || name.strip_prefix(stage).is_some_and(|rest| rest.starts_with('/'));
    STATUS_EVENTS.iter().enumerate().filter(move |(_, (_, name, ..))| of(name)).map(|(at, _)| at)
}

/// A node's key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    pub consumer_key: String,
    pub token_key: String,
    pub token_secret: String,
}

impl std::fmt::Debug for Key {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.token_key)
    }
}

impl Key {
    /// The `Authorization` header of OAuth 1.0 PLAINTEXT (RFC 5849 section 3.4.4) as oauthlib writes it for cloud-init.
    #[must_use]
    pub fn sign(&self, nonce: &str, now: i64) -> String {
        format!(
            "OAuth oauth_nonce=\"{nonce}\", oauth_timestamp=\"{now}\", oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", \
             oauth_consumer_key=\"{}\", oauth_token=\"{}\", oauth_signature=\"%26{}\"",
            self.consumer_key, self.token_key, self.token_secret
        )
    }
}

/// What the preseed told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) key: Key,
    /// With its slash at the end.
    pub(super) metadata_url: String,
    endpoint: String,
    pub(super) scripts: Vec<Script>,
}

impl Session {
    /// Reads a preseed as cloud-init and the runner do.
    ///
    /// # Errors
    /// A text: what is missing.
    pub(super) fn read(preseed: &str) -> Result<Self, String> {
        if !preseed.starts_with("#cloud-config") {
            return Err(format!("the preseed is no cloud-config: {}", preseed.chars().take(120).collect::<String>()));
        }
        let field = |name: &str| {
            let line = preseed.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
            let value = line.map(|value| value.trim().trim_matches('"').to_owned());
            value.ok_or_else(|| format!("the preseed has no {name}"))
        };
        let key = Key {
            consumer_key: field("consumer_key")?,
            token_key: field("token_key")?,
            token_secret: field("token_secret")?,
        };
        let metadata_url = format!("{}/", field("metadata_url")?.trim_end_matches('/'));
        Ok(Self { key, metadata_url, endpoint: field("endpoint")?, scripts: Vec::new() })
    }
}

/// A status event as a request.
pub(super) fn event(session: &Session, number: usize, nonce: u64, now: i64) -> Option<Request> {
    let (kind, name, result, description) = STATUS_EVENTS.get(number)?;
    let result = if result.is_empty() { String::new() } else { format!(", \"result\": \"{result}\"") };
    let body = format!(
        "{{\"name\": \"{name}\", \"description\": \"{description}\", \"event_type\": \"{kind}\", \"origin\": \"cloudinit\", \"timestamp\": {now}.0{result}}}"
    );
    let agent = Agent::Requests;
    http::post(&session.endpoint, agent, &session.key.sign(&agent.nonce(nonce, now), now), None, body.as_bytes())
}

/// A script of the tar's index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Script {
    pub(super) name: String,
    path: String,
    pub(super) script_result_id: i64,
    pub(super) script_version_id: i64,
    /// 0: alone; 1: beside its own instances; 2: beside all such scripts.
    #[serde(default)]
    pub(super) parallel: u8,
}

#[derive(Deserialize)]
struct Index {
    #[serde(rename = "1.0")]
    one: Lists,
}

#[derive(Deserialize)]
struct Lists {
    #[serde(default)]
    commissioning_scripts: Vec<Script>,
    #[serde(default)]
    testing_scripts: Vec<Script>,
}

/// Reads the tar of scripts; every script of the index must be in it.
///
/// # Errors
/// A text: what is wrong.
pub(super) fn scripts(tar: &[u8]) -> Result<Vec<Script>, String> {
    let wrong = |e: std::io::Error| format!("the scripts are no tar: {e}");
    let (mut index, mut members) = (Vec::new(), Vec::new());
    for entry in tar::Archive::new(tar).entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let path = entry.path().map_err(wrong)?.to_string_lossy().into_owned();
        if path == "index.json" {
            entry.read_to_end(&mut index).map_err(wrong)?;
        } else {
            members.push((path, entry.size()));
        }
    }
    let index: Index = serde_json::from_slice(&index).map_err(|e| format!("index.json of the scripts: {e}"))?;
    let all: Vec<_> = index.one.commissioning_scripts.into_iter().chain(index.one.testing_scripts).collect();
    match all.iter().find(|s| !members.iter().any(|(path, size)| *path == s.path && *size > 0)) {
        Some(lost) => Err(format!("the tar lacks {}", lost.path)),
        None => Ok(all),
    }
}
