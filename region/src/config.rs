//! The region's configuration: raw text to checked values, every fault at once. Opens nothing.
//!
//! Each setting stands as `key = value` under `[section]` of the file, or as `HOSTLER_<SECTION>_<KEY>` in the environment, which wins.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use actors::logbook::Limits;
use schema::{
    id::SystemId,
    net::{Cidr, NetError},
    secret::Secret,
};

/// What a region is told. Every field has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The region's own system id, told to its racks.
    pub id: SystemId,
    /// The key file, the CA and the bodies stand here.
    pub data_dir: PathBuf,
    /// `sqlite:PATH` or `postgres://…`. May hold a password.
    pub database: Secret<String>,
    /// API, dashboard, inspection and metrics: 5240/tcp. Port 0 takes a free one.
    pub api_listen: SocketAddr,
    /// The link to the racks: 5250/udp. Port 0 takes a free one.
    pub link_listen: SocketAddr,
    /// The zones, for whoever asks: 5253 udp and tcp. Port 0 takes a free one.
    pub dns_listen: SocketAddr,
    /// Who may have a whole zone (AXFR). Nobody by default.
    pub dns_transfer: Vec<Cidr>,
    /// A listener for `/inspect/v1` alone, with a thread of its own, beside that of the API. None by default; port 0 takes a free one.
    pub inspect_listen: Option<SocketAddr>,
    /// Whether administrators may restart, drain and resume actors over the inspection.
    pub inspect_control: bool,
    /// Who may read `/metrics` without a key.
    pub metrics_allow: Vec<Cidr>,
    /// Days that the journal is kept.
    pub journal_days: u32,
    /// Bytes of machines' logs that are kept.
    pub logs: Limits,
}

/// One wrong setting: where, what, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `region.toml: api.listen` or the variable's name.
    pub place: String,
    pub value: String,
    pub bound: String,
    pub remedy: String,
}

/// All that is wrong, one line each. The caller prints it and exits 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, value, bound, remedy } = self;
        let value = if value.is_empty() { String::new() } else { format!(" = {value}") };
        write!(f, "{place}{value}: {bound}; {remedy}")
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// Where nothing shall listen.
const OFF: &str = "off";

/// Every setting: section, key, what it is for. The one list; `config.rs` and `init` go by it.
const SETTINGS: &[(&str, &str)] = &[
    ("region", "id"),
    ("region", "data_dir"),
    ("database", "url"),
    ("api", "listen"),
    ("link", "listen"),
    ("dns", "listen"),
    ("dns", "transfer"),
    ("inspect", "listen"),
    ("inspect", "control"),
    ("metrics", "allow"),
    ("journal", "days"),
    ("logs", "machine_mebibytes"),
    ("logs", "total_mebibytes"),
];

impl Config {
    /// Reads and checks a file, then the environment over it. Without a file, the environment must hold what has no default.
    ///
    /// # Errors
    /// [`Faults`]: all of them.
    pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, Faults> {
        let Some(path) = path else { return Self::parse("", "region.toml", env) };
        let text = std::fs::read_to_string(path).map_err(|e| {
            Faults(vec![Fault {
                place: path.display().to_string(),
                value: String::new(),
                bound: format!("cannot be read ({e})"),
                remedy: "make one with `hostler init`, or give --config".into(),
            }])
        })?;
        Self::parse(&text, &path.display().to_string(), env)
    }

    /// As [`Config::load`], from the file's text; `name` is the file's in messages.
    ///
    /// # Errors
    /// [`Faults`]: all of them.
    pub fn parse(text: &str, name: &str, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, Faults> {
        let mut raw = Raw { name: name.to_owned(), values: BTreeMap::new(), faults: Vec::new() };
        raw.read_file(text);
        raw.read_environment(env);
        raw.check()
    }

    /// The file that `init` writes.
    #[must_use]
    pub fn to_toml(&self) -> String {
        self.toml_with(self.database.expose())
    }

    /// As [`Config::to_toml`], with no secret in it: what a debug bundle shows.
    #[must_use]
    pub fn to_redacted_toml(&self) -> String {
        // What kind of database it is says more than it gives away.
        let kind = self.database.expose().split(':').next().unwrap_or_default();
        self.toml_with(&format!("{kind}:[secret]"))
    }

    fn toml_with(&self, database: &str) -> String {
        let Self { id, data_dir, api_listen, link_listen, dns_listen, .. } = self;
        let Self { dns_transfer, inspect_listen, inspect_control, metrics_allow, journal_days, logs, .. } = self;
        let inspect_listen = inspect_listen.map_or_else(|| OFF.to_owned(), |at| at.to_string());
        let networks = |all: &[Cidr]| all.iter().map(Cidr::to_string).collect::<Vec<_>>().join(" ");
        let (transfer, allow) = (networks(dns_transfer), networks(metrics_allow));
        let text = |s: &str| toml::Value::String(s.to_owned()).to_string();
        format!(
            "# Hostler's region. Every setting also by environment: HOSTLER_<SECTION>_<KEY>, as in HOSTLER_API_LISTEN.\n\n\
             [region]\n# This region's own id, told to its racks.\nid = {}\n# Its key file, CA and bodies.\ndata_dir = {}\n\n\
             [database]\n# sqlite:PATH or postgres://USER@HOST/DATABASE\nurl = {}\n\n\
             [api]\n# API, dashboard and metrics.\nlisten = {}\n\n\
             [link]\n# Where racks dial in (UDP).\nlisten = {}\n\n\
             [dns]\n# The zones, for whoever asks.\nlisten = {}\n# Networks that may have a whole zone (AXFR), blanks between.\ntransfer = {}\n\n\
             [inspect]\n# A listener for /inspect/v1 alone, as in 127.0.0.1:5241; it stays on the API's, too.\nlisten = {}\n\
             # Whether administrators may restart, drain and resume actors there.\ncontrol = {inspect_control}\n\n\
             [journal]\n# How long steps are kept.\ndays = {journal_days}\n\n\
             [metrics]\n# Networks from which /metrics may be read without a key.\nallow = {}\n\n\
             [logs]\n# How much of a machine's log is kept, and of all of them.\nmachine_mebibytes = {}\ntotal_mebibytes = {}\n",
            text(id.as_str()),
            text(&data_dir.to_string_lossy()),
            text(database),
            text(&api_listen.to_string()),
            text(&link_listen.to_string()),
            text(&dns_listen.to_string()),
            text(&transfer),
            text(&inspect_listen),
            text(&allow),
            logs.machine >> 20,
            logs.total >> 20,
        )
    }

    /// Where the key that seals secrets lies.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.data_dir.join("seal.key")
    }

    /// Where the region's CA lies.
    #[must_use]
    pub fn ca_dir(&self) -> PathBuf {
        self.data_dir.join("ca")
    }
}

/// Values as they were found, and what is wrong with them.
struct Raw {
    name: String,
    /// By section and key: the value, and where it stood.
    values: BTreeMap<(&'static str, &'static str), (String, String)>,
    faults: Vec<Fault>,
}

impl Raw {
    fn fault(&mut self, place: &str, value: &str, bound: impl Into<String>, remedy: impl Into<String>) {
        let (bound, remedy) = (bound.into(), remedy.into());
        self.faults.push(Fault { place: place.to_owned(), value: value.to_owned(), bound, remedy });
    }

    fn read_file(&mut self, text: &str) {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map_or(1, |s| text.get(..s.start).unwrap_or_default().lines().count().max(1));
                let place = format!("{}: line {line}", self.name);
                return self.fault(
                    &place,
                    "",
                    format!("is no TOML ({})", error.message()),
                    "write key = \"value\" under [section]",
                );
            }
        };
        for (section, keys) in table {
            let Some(keys) = keys.as_table().cloned() else {
                let known = sections();
                self.fault(
                    &format!("{}: {section}", self.name),
                    "",
                    "is no section",
                    format!("put it under one of {known}"),
                );
                continue;
            };
            for (key, value) in keys {
                let place = format!("{}: {section}.{key}", self.name);
                let text = match value {
                    toml::Value::String(text) => text,
                    other => other.to_string(),
                };
                self.put(&section, &key, text, &place);
            }
        }
    }

    fn read_environment(&mut self, env: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in env {
            let found = SETTINGS.iter().find(|(s, k)| name == variable(s, k));
            if let Some((section, key)) = found {
                self.put(section, key, value, &name);
            }
        }
    }

    fn put(&mut self, section: &str, key: &str, value: String, place: &str) {
        match SETTINGS.iter().find(|(s, k)| *s == section && *k == key) {
            Some(setting) => drop(self.values.insert(*setting, (value, place.to_owned()))),
            None => {
                let known: Vec<_> = SETTINGS.iter().map(|(s, k)| format!("{s}.{k}")).collect();
                self.fault(place, "", "is no setting", format!("take one of {}, or remove the line", known.join(", ")));
            }
        }
    }

    /// The value of a setting, or its default; `None` after a fault.
    fn take<T: FromStr<Err: fmt::Display>>(
        &mut self,
        section: &'static str,
        key: &'static str,
        default: Option<&str>,
        remedy: &str,
    ) -> Option<T> {
        let (value, place) = match (self.values.get(&(section, key)).cloned(), default) {
            (Some(found), _) => found,
            (None, Some(default)) => (default.to_owned(), String::new()),
            (None, None) => {
                let place = format!("{}: {section}.{key}", self.name);
                let remedy = format!("{remedy}, or set {}", variable(section, key));
                self.fault(&place, "", "is missing", remedy);
                return None;
            }
        };
        match value.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(&place, &format!("\"{value}\""), error.to_string(), remedy);
                None
            }
        }
    }

    /// A list of networks with blanks between; empty where nothing is set.
    fn networks(&mut self, section: &'static str, key: &'static str) -> Vec<Cidr> {
        let Some((value, place)) = self.values.get(&(section, key)).cloned() else { return Vec::new() };
        let mut networks = Vec::new();
        for text in value.split([' ', ',']).filter(|text| !text.is_empty()) {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(error) => {
                    let error: NetError = error;
                    self.fault(
                        &place,
                        &format!("\"{text}\""),
                        error.to_string(),
                        "write networks, as in 10.0.0.0/8 192.0.2.7/32",
                    );
                }
            }
        }
        networks
    }

    /// A size of the section `logs`, in bytes.
    fn mebibytes(&mut self, key: &'static str, default: u64) -> u64 {
        let remedy = "write a number of MiB from 1 to 1048576";
        let size: Option<u64> = self.take("logs", key, Some(&(default >> 20).to_string()), remedy);
        if let Some(size) = size.filter(|size| !(1..=1 << 20).contains(size)) {
            self.fault(&format!("logs.{key}"), &size.to_string(), "is out of bounds", remedy);
        }
        size.unwrap_or(1).min(1 << 20) << 20
    }

    /// Where the inspection has a listener of its own: nowhere, unless it is said.
    fn inspect_listen(&mut self, api: Option<SocketAddr>) -> Option<SocketAddr> {
        let setting = ("inspect", "listen");
        let (value, place) = self.values.get(&setting).cloned().filter(|(value, _)| value != OFF)?;
        let remedy = "write ADDRESS:PORT, as in 127.0.0.1:5241, or \"off\"; port 0 takes a free one";
        let listen: SocketAddr = self.take(setting.0, setting.1, None, remedy)?;
        if listen.port() != 0 && api.is_some_and(|api| api.port() == listen.port()) {
            let bound = "has the port of api.listen, which serves the inspection, too";
            self.fault(&place, &format!("\"{value}\""), bound, "give it another port, or write \"off\"");
        }
        Some(listen)
    }

    fn check(mut self) -> Result<Config, Faults> {
        let listen = "write ADDRESS:PORT, as in 0.0.0.0:5240; port 0 takes a free one";
        let id = self.take("region", "id", None, "let `hostler init` make one: six lower-case letters or digits");
        let data_dir: Option<PathBuf> = self.take("region", "data_dir", Some("/var/lib/hostler"), "name a directory");
        let default_database = data_dir.as_ref().map(|d| format!("sqlite:{}", d.join("region.db").display()));
        let database: Option<String> = self.take("database", "url", default_database.as_deref().or(Some("")), "");
        if let Some(url) = database.as_ref().filter(|u| !known_database(u)) {
            let place = self.values.get(&("database", "url")).map(|(_, place)| place.clone()).unwrap_or_default();
            // What is no address may still hold a password: show the scheme only.
            let scheme = format!("\"{}:…\"", url.split(':').next().unwrap_or_default());
            self.fault(
                &place,
                &scheme,
                "is no database that is known here",
                "write sqlite:PATH or postgres://USER@HOST/DATABASE",
            );
        }
        let api_listen = self.take("api", "listen", Some("0.0.0.0:5240"), listen);
        let link_listen = self.take("link", "listen", Some("0.0.0.0:5250"), listen);
        let dns_listen = self.take("dns", "listen", Some("0.0.0.0:5253"), listen);
        let dns_transfer = self.networks("dns", "transfer");
        let inspect_listen = self.inspect_listen(api_listen);
        let inspect_control = self.take("inspect", "control", Some("false"), "write true or false");
        let metrics_set = self.values.contains_key(&("metrics", "allow"));
        let metrics_allow = if metrics_set { self.networks("metrics", "allow") } else { loopback() };
        let journal_days = self.take("journal", "days", Some("30"), "write a number of days, as in 30");
        if let Some(0) = journal_days {
            self.fault(
                "journal.days",
                "0",
                "is not 1 or more",
                "keep at least a day: a restart reads the journal's actors",
            );
        }
        let base = Limits::default();
        let logs = Limits {
            machine: self.mebibytes("machine_mebibytes", base.machine),
            total: self.mebibytes("total_mebibytes", base.total),
        };
        let listens = (api_listen, link_listen, dns_listen);
        let checked = (id, data_dir, database, listens, (inspect_control, journal_days));
        match checked {
            (
                Some(id),
                Some(data_dir),
                Some(database),
                (Some(api_listen), Some(link_listen), Some(dns_listen)),
                (Some(inspect_control), Some(journal_days)),
            ) if self.faults.is_empty() => {
                let database = Secret::new(database);
                Ok(Config {
                    id,
                    data_dir,
                    database,
                    api_listen,
                    link_listen,
                    dns_listen,
                    dns_transfer,
                    inspect_listen,
                    inspect_control,
                    metrics_allow,
                    journal_days,
                    logs,
                })
            }
            _ => Err(Faults(self.faults)),
        }
    }
}

/// This host alone.
#[must_use]
pub fn loopback() -> Vec<Cidr> {
    [Cidr::new([127, 0, 0, 0].into(), 8), Cidr::new(std::net::Ipv6Addr::LOCALHOST.into(), 128)]
        .into_iter()
        .flatten()
        .collect()
}

fn known_database(url: &str) -> bool {
    ["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme) && url.len() > scheme.len())
}

fn variable(section: &str, key: &str) -> String {
    format!("HOSTLER_{}_{}", section.to_uppercase(), key.to_uppercase())
}

fn sections() -> String {
    let mut sections: Vec<_> = SETTINGS.iter().map(|(s, _)| format!("[{s}]")).collect();
    sections.dedup();
    sections.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn defaults_file_and_environment_in_that_order() {
        let config =
            Config::parse("[region]\nid = \"4y3h7n\"\n[api]\nlisten = \"127.0.0.1:1\"\n", "region.toml", env(&[]))
                .unwrap();
        assert_eq!(config.api_listen.port(), 1);
        assert_eq!(config.database.expose(), "sqlite:/var/lib/hostler/region.db");
        let vars = env(&[("HOSTLER_API_LISTEN", "127.0.0.1:2"), ("HOSTLER_REGION_ID", "abc123"), ("PATH", "/bin")]);
        let over = Config::parse("[api]\nlisten = \"127.0.0.1:1\"", "region.toml", vars).unwrap();
        assert_eq!((over.api_listen.port(), over.id.as_str()), (2, "abc123"));
        let again = Config::parse(&config.to_toml(), "written", env(&[])).unwrap();
        assert_eq!(again, config);
        assert_eq!((config.inspect_listen, config.inspect_control), (None, false));
        let vars = env(&[("HOSTLER_INSPECT_LISTEN", "127.0.0.1:5241"), ("HOSTLER_INSPECT_CONTROL", "true")]);
        let set =
            Config::parse("[region]\nid = \"4y3h7n\"\n[inspect]\nlisten = \"off\"\n", "region.toml", vars).unwrap();
        assert_eq!((set.inspect_listen.map(|at| at.port()), set.inspect_control), (Some(5_241), true));
        assert_eq!(Config::parse(&set.to_toml(), "written", env(&[])).unwrap(), set);
    }

    #[test]
    fn every_fault_is_named_with_its_place_and_remedy() {
        let text = "[region]\ndata_dir = \"/d\"\n[api]\nlisten = \"nowhere\"\nport = 9\n[database]\nurl = \"mysql://root:hunter2@db\"\n[journal]\ndays = -4\n[colour]\nx = 1\n[inspect]\nlisten = \"here\"\ncontrol = \"yes\"\n";
        let faults = Config::parse(text, "region.toml", env(&[("HOSTLER_LINK_LISTEN", "5250")])).unwrap_err();
        let lines = faults.to_string();
        for part in [
            "region.toml: region.id: is missing",
            "region.toml: api.listen = \"nowhere\"",
            "region.toml: api.port: is no setting",
            "region.toml: database.url = \"mysql:…\"",
            "region.toml: journal.days = \"-4\"",
            "region.toml: colour.x: is no setting",
            "region.toml: inspect.listen = \"here\"",
            "region.toml: inspect.control = \"yes\"",
            "HOSTLER_LINK_LISTEN = \"5250\"",
        ] {
            assert!(lines.contains(part), "{part} is missing in\n{lines}");
        }
        assert_eq!(faults.0.len(), 9);
        let same = "[region]\nid = \"4y3h7n\"\n[inspect]\nlisten = \"0.0.0.0:5240\"\n";
        let same = Config::parse(same, "region.toml", env(&[])).unwrap_err().to_string();
        assert!(same.contains("inspect.listen = \"0.0.0.0:5240\": has the port of api.listen"), "{same}");
        assert!(!lines.contains("hunter2"));
        let broken = Config::parse("[region\n", "region.toml", env(&[])).unwrap_err().to_string();
        assert!(broken.starts_with("region.toml: line 1"), "{broken}");
    }
}
