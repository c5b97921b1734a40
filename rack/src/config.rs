//! A rack's settings: `rack.toml` and `HOSTLER_<SECTION>_<KEY>`, checked as a whole. Every fault is found in one go and comes with its remedy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use actors::logbook::Limits;
use schema::ports;

use crate::{
    dhcp::Listen,
    dns::{self, DnsConfig},
    ntp::{self, NtpConfig},
    power::PowerSettings,
    proxy::{Ports, ProxyConfig, Reach},
    state::OutboxLimits,
    syslog::{self, SyslogConfig},
};

/// Checked settings of one rack.
#[derive(Debug, Clone)]
pub struct RackConfig {
    /// The state directory: key, store, bodies, leases, identity.
    pub state: PathBuf,
    /// HOST:PORT of every region. Empty with a plan file.
    pub regions: Vec<String>,
    /// Serve from this plan file alone.
    pub plan: Option<PathBuf>,
    /// Where relative `path`s of the plan file are looked up; its own directory if not set.
    pub files: Option<PathBuf>,
    pub services: BTreeSet<Service>,
    pub dhcp: Listen,
    /// Other racks' addresses on the served subnets.
    pub dhcp_peers: Vec<Ipv4Addr>,
    /// Whether DHCP looks for other servers on the wire.
    pub dhcp_seek: bool,
    pub tftp: SocketAddrV4,
    pub http: SocketAddr,
    pub dns: DnsConfig,
    pub proxy: ProxyConfig,
    pub power: PowerSettings,
    /// Its state directory is the rack's.
    pub ntp: NtpConfig,
    pub syslog: SyslogConfig,
    pub outbox: OutboxLimits,
}

/// What a rack may be told to do (`--only`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    Dhcp,
    Tftp,
    /// Boot files, images and the metadata service.
    Http,
    Power,
    Dns,
    /// Packages, through a cache.
    Proxy,
    /// Time for the machines.
    Ntp,
    /// The machines' logs.
    Syslog,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Dhcp, Self::Tftp, Self::Http, Self::Power, Self::Dns, Self::Proxy, Self::Ntp, Self::Syslog];

    /// All their names, as a remedy lists them.
    #[must_use]
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Its name in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Tftp => "tftp",
            Self::Http => "http",
            Self::Power => "power",
            Self::Dns => "dns",
            Self::Proxy => "proxy",
            Self::Ntp => "ntp",
            Self::Syslog => "syslog",
        }
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|s| s.name() == text.trim());
        named.ok_or_else(|| format!("\"{text}\" is none of {}", Self::names()))
    }
}

impl Default for RackConfig {
    fn default() -> Self {
        Self {
            state: "/var/lib/hostler/rack".into(),
            regions: Vec::new(),
            plan: None,
            files: None,
            services: Service::ALL.into(),
            dhcp: Listen::Interfaces,
            dhcp_peers: Vec::new(),
            dhcp_seek: true,
            tftp: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, ports::TFTP.number),
            http: SocketAddr::from((Ipv4Addr::UNSPECIFIED, ports::HTTP.number)),
            dns: DnsConfig::default(),
            proxy: ProxyConfig::default(),
            power: PowerSettings::default(),
            ntp: NtpConfig::default(),
            syslog: SyslogConfig::default(),
            outbox: OutboxLimits::default(),
        }
    }
}

/// One thing that is wrong, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `section.key`, or the file.
    pub key: String,
    pub why: String,
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.why, self.remedy)
    }
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Fault>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// What may stand in the file, by section.
const KEYS: &[(&str, &[&str])] = &[
    ("rack", &["state", "only", "plan", "files"]),
    ("region", &["addresses"]),
    ("dhcp", &["listen", "peers", "seek_foreign"]),
    ("tftp", &["listen"]),
    ("http", &["listen"]),
    ("power", &["ipmi", "redfish_tls", "ipmitool", "timeout_s", "at_once", "sweep_s"]),
    (
        "proxy",
        &[
            "listen",
            "dir",
            "cache_mebibytes",
            "max_object_mebibytes",
            "ports",
            "allow",
            "deny",
            "connect",
            "connections",
            "per_client",
        ],
    ),
    ("dns", &["listen", "port", "upstreams", "cache_mebibytes", "mixed_case"]),
    ("ntp", &["listen", "server", "set_clock", "rate"]),
    ("syslog", &["listen", "rate", "mebibytes", "keep_mebibytes"]),
    ("outbox", &["reports", "mebibytes"]),
];

impl RackConfig {
    /// Reads the file (none: defaults) and then the environment, which wins. `env` holds names and values, as [`std::env::vars`].
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn load(file: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        if let Some(path) = file {
            match std::fs::read_to_string(path) {
                Ok(text) => reader.file(&path.display().to_string(), &text),
                Err(e) => reader.fault(path.display(), e, "give the path of a readable rack.toml"),
            }
        }
        reader.environment(env);
        let config = reader.config();
        if reader.faults.is_empty() { Ok(config) } else { Err(ConfigError(reader.faults)) }
    }
}

/// Values by `section.key`, as text or as lists of texts, with where they came from.
#[derive(Default)]
struct Reader {
    values: BTreeMap<(String, String), Vec<String>>,
    faults: Vec<Fault>,
}

impl Reader {
    fn fault(&mut self, key: impl fmt::Display, why: impl fmt::Display, remedy: impl Into<String>) {
        self.faults.push(Fault { key: key.to_string(), why: why.to_string(), remedy: remedy.into() });
    }

    fn file(&mut self, name: &str, text: &str) {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(e) => {
                let why = e.to_string();
                return self.fault(name, why.trim().replace('\n', " "), "correct the TOML there");
            }
        };
        for (section, entries) in table {
            let Some((_, keys)) = KEYS.iter().find(|(s, _)| *s == section) else {
                let known: Vec<_> = KEYS.iter().map(|(s, _)| *s).collect();
                self.fault(&section, "no such section", format!("use one of {}", known.join(", ")));
                continue;
            };
            let toml::Value::Table(entries) = entries else {
                self.fault(&section, "it is not a section", format!("write [{section}] and its keys below"));
                continue;
            };
            for (key, value) in entries {
                if !keys.contains(&key.as_str()) {
                    self.fault(format!("{section}.{key}"), "no such key", format!("use one of {}", keys.join(", ")));
                    continue;
                }
                match texts(&value) {
                    Some(texts) => drop(self.values.insert((section.clone(), key), texts)),
                    None => {
                        self.fault(
                            format!("{section}.{key}"),
                            format!("{value} is no text, number or list"),
                            "correct its type",
                        );
                    }
                }
            }
        }
    }

    fn environment(&mut self, env: impl IntoIterator<Item = (String, String)>) {
        let env: BTreeMap<String, String> = env.into_iter().collect();
        for (section, keys) in KEYS {
            for key in *keys {
                let name = format!("HOSTLER_{}_{}", section.to_uppercase(), key.to_uppercase());
                if let Some(value) = env.get(&name) {
                    let list = value.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty());
                    self.values.insert(((*section).into(), (*key).into()), list.collect());
                }
            }
        }
    }

    fn config(&mut self) -> RackConfig {
        let base = RackConfig::default();
        let (tftp, http) = (base.tftp, base.http);
        let services: Vec<Service> = self.list("rack", "only", &format!("name services: {}", Service::names()));
        let listen = self.listen("dhcp", 67);
        let state: PathBuf = self.one("rack", "state", base.state, "give a directory");
        let config = RackConfig {
            regions: self.regions(),
            plan: self.optional("rack", "plan"),
            files: self.optional("rack", "files"),
            services: if services.is_empty() { base.services } else { services.into_iter().collect() },
            dhcp: listen,
            dhcp_peers: self.list("dhcp", "peers", "give IPv4 addresses of other racks"),
            dhcp_seek: self.one("dhcp", "seek_foreign", true, "write true or false"),
            tftp: self.one("tftp", "listen", tftp, "write ADDRESS:PORT as in 0.0.0.0:69"),
            http: self.one("http", "listen", http, "write ADDRESS:PORT as in 0.0.0.0:5248"),
            dns: self.dns(),
            proxy: self.proxy(base.proxy),
            power: self.power(base.power, &state),
            ntp: self.ntp(&state),
            syslog: self.syslog(),
            state,
            outbox: OutboxLimits {
                reports: usize::try_from(self.number(
                    "outbox",
                    "reports",
                    base.outbox.reports as u64,
                    100,
                    100_000_000,
                ))
                .unwrap_or(base.outbox.reports),
                bytes: self.number("outbox", "mebibytes", base.outbox.bytes >> 20, 1, 1 << 20) << 20,
            },
        };
        if config.plan.is_some() && !config.regions.is_empty() {
            self.fault(
                "rack.plan",
                "a rack serves a plan file or a region, not both",
                "remove rack.plan or region.addresses",
            );
        }
        config
    }

    fn regions(&mut self) -> Vec<String> {
        let regions = self.values.get(&("region".into(), "addresses".into())).cloned().unwrap_or_default();
        for region in &regions {
            let port =
                region.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(1..))) {
                let why = format!("\"{region}\" is not HOST:PORT");
                self.fault("region.addresses", why, "write it as in region.example:5250");
            }
        }
        regions
    }

    /// Where a service of addresses listens: `"interfaces"`, or a list.
    fn listen(&mut self, section: &str, port: u16) -> Listen {
        match self.values.get(&(section.to_owned(), "listen".to_owned())).map(Vec::as_slice) {
            None => Listen::Interfaces,
            Some([word]) if word == "interfaces" => Listen::Interfaces,
            Some(_) => {
                let remedy = format!("write \"interfaces\", or addresses as in [\"10.77.0.1:{port}\"]");
                Listen::At(self.list(section, "listen", &remedy))
            }
        }
    }

    fn dns(&mut self) -> DnsConfig {
        let base = DnsConfig::default();
        let port = u16::try_from(self.number("dns", "port", 53, 1, 65_535)).unwrap_or(53);
        let key = ("dns".to_owned(), "listen".to_owned());
        let listen = match self.values.get(&key).map(Vec::as_slice) {
            None => dns::Listen::Subnets { port },
            Some([word]) if word == "subnets" => dns::Listen::Subnets { port },
            Some(_) => dns::Listen::At(self.dns_listen()),
        };
        DnsConfig {
            listen,
            upstreams: self.upstreams(),
            cache: self.number("dns", "cache_mebibytes", base.cache >> 20, 1, 4_096) << 20,
            mixed_case: self.one("dns", "mixed_case", base.mixed_case, "write true or false"),
        }
    }

    fn dns_listen(&mut self) -> Vec<SocketAddr> {
        let remedy = "write \"subnets\", or addresses as in [\"10.77.0.1:53\"]";
        let listen: Vec<SocketAddr> = self.list("dns", "listen", remedy);
        for wide in listen.iter().filter(|address| address.ip().is_unspecified()) {
            let why = format!("{wide} would take the port on every address, also on the host's own resolver's");
            self.fault("dns.listen", why, remedy);
        }
        listen
    }

    /// Addresses, with ports or without.
    fn upstreams(&mut self) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        for text in self.values.get(&("dns".into(), "upstreams".into())).cloned().unwrap_or_default() {
            let alone = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
            match text.parse().or_else(|_| alone()) {
                Ok(server) => found.push(server),
                Err(_) => {
                    let why = format!("\"{text}\" is no address");
                    self.fault("dns.upstreams", why, "write addresses as in [\"192.0.2.53\", \"192.0.2.54:5353\"]");
                }
            }
        }
        found
    }

    fn proxy(&mut self, base: ProxyConfig) -> ProxyConfig {
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let ports: Vec<Ports> = self.list("proxy", "ports", "give ports or ranges as in [\"80\", \"8000-8099\"]");
        let connections = self.number("proxy", "connections", base.connections as u64, 1, 100_000);
        let per_client = self.number("proxy", "per_client", base.per_client as u64, 1, 100_000);
        ProxyConfig {
            listen: self.one("proxy", "listen", base.listen, "write ADDRESS:PORT as in 0.0.0.0:8000"),
            dir: self.optional("proxy", "dir"),
            cache: self.number("proxy", "cache_mebibytes", base.cache >> 20, 1, 100 << 20) << 20,
            max_object: self.number("proxy", "max_object_mebibytes", base.max_object >> 20, 1, 1 << 20) << 20,
            reach: Reach {
                ports: if ports.is_empty() { base.reach.ports } else { ports },
                allow: self.list("proxy", "allow", "give networks as in [\"10.5.0.0/24\"]"),
                deny: self.list("proxy", "deny", "give networks as in [\"10.9.0.0/16\"]"),
            },
            connect: self.list("proxy", "connect", "give servers as in [\"deb.example:443\", \"*.example.org:443\"]"),
            connections: count(connections),
            per_client: count(per_client),
            workers: base.workers,
        }
    }

    fn power(&mut self, base: PowerSettings, state: &Path) -> PowerSettings {
        let at_once = self.number("power", "at_once", base.at_once as u64, 1, 1_024);
        PowerSettings {
            ipmi: self.one("power", "ipmi", base.ipmi, "write \"native\" or \"ipmitool\""),
            redfish_tls: self.one("power", "redfish_tls", base.redfish_tls, "write \"pin\", \"verify\" or \"any\""),
            pins: Some(state.join("bmc-certificates")),
            ipmitool: self.one("power", "ipmitool", base.ipmitool, "give the program's path"),
            timeout: Duration::from_secs(self.number("power", "timeout_s", base.timeout.as_secs(), 1, 300)),
            at_once: usize::try_from(at_once).unwrap_or(base.at_once),
            loopback_only: base.loopback_only,
            sweep: Duration::from_secs(self.number("power", "sweep_s", base.sweep.as_secs(), 10, 86_400)),
        }
    }

    fn ntp(&mut self, state: &Path) -> NtpConfig {
        let base = NtpConfig::default();
        NtpConfig {
            listen: self.listen("ntp", ntp::PORT),
            server: self.one("ntp", "server", base.server, "write auto, chrony or own"),
            set_clock: self.one("ntp", "set_clock", base.set_clock, "write true or false"),
            rate: u32::try_from(self.number("ntp", "rate", base.rate.into(), 0, 1_000_000)).unwrap_or(base.rate),
            state: state.into(),
        }
    }

    fn syslog(&mut self) -> SyslogConfig {
        let base = SyslogConfig::default();
        let room = self.number("syslog", "mebibytes", (base.room >> 20) as u64, 1, 4_096);
        SyslogConfig {
            listen: self.listen("syslog", syslog::PORT),
            rate: u32::try_from(self.number("syslog", "rate", base.rate.into(), 0, 10_000_000)).unwrap_or(base.rate),
            room: usize::try_from(room << 20).unwrap_or(base.room),
            keep: Limits {
                machine: self.number("syslog", "keep_mebibytes", base.keep.machine >> 20, 1, 1 << 20) << 20,
                ..base.keep
            },
        }
    }

    fn optional(&mut self, section: &str, key: &str) -> Option<PathBuf> {
        self.values.get(&(section.into(), key.into())).and_then(|texts| texts.first()).map(PathBuf::from)
    }

    fn one<T: FromStr>(&mut self, section: &str, key: &str, default: T, remedy: &str) -> T {
        match self.values.get(&(section.into(), key.into())).map(Vec::as_slice) {
            None => default,
            Some([text]) => match text.parse() {
                Ok(value) => value,
                Err(_) => {
                    self.fault(format!("{section}.{key}"), format!("\"{text}\" is not usable"), remedy);
                    default
                }
            },
            Some(several) => {
                let why = format!("{} values stand where one belongs", several.len());
                self.fault(format!("{section}.{key}"), why, remedy);
                default
            }
        }
    }

    fn number(&mut self, section: &str, key: &str, default: u64, least: u64, most: u64) -> u64 {
        let bound = format!("give a number of {least} to {most}");
        let value = self.one(section, key, default, &bound);
        if (least..=most).contains(&value) {
            return value;
        }
        self.fault(format!("{section}.{key}"), format!("{value} is out of bounds"), bound);
        default
    }

    fn list<T: FromStr>(&mut self, section: &str, key: &str, remedy: &str) -> Vec<T> {
        let texts = self.values.get(&(section.into(), key.into())).cloned().unwrap_or_default();
        let mut values = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(value) => values.push(value),
                Err(_) => self.fault(format!("{section}.{key}"), format!("\"{text}\" is not usable"), remedy),
            }
        }
        values
    }
}

/// A scalar as one text, a list of scalars as several.
fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::Array(values) => {
            let lists: Option<Vec<_>> = values.iter().map(texts).collect();
            lists.map(|lists| lists.concat())
        }
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(yes) => Some(vec![yes.to_string()]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, env: &[(&str, &str)]) -> Result<RackConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rack.toml");
        std::fs::write(&path, text).unwrap();
        RackConfig::load(Some(&path), env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn three_mistakes_are_three_lines_with_remedies() {
        let text = "[rack]\nstat = \"/tmp/x\"\n[tftp]\nlisten = \"69\"\n[power]\nat_once = 5000\n";
        let error = load(text, &[]).unwrap_err();
        let lines: Vec<String> = error.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "rack.stat: no such key; use one of state, only, plan, files");
        assert!(lines[1].starts_with("tftp.listen: \"69\"") && lines[1].contains("0.0.0.0:69"), "{}", lines[1]);
        assert_eq!(lines[2], "power.at_once: 5000 is out of bounds; give a number of 1 to 1024");
    }

    #[test]
    fn the_proxy_is_told_where_it_may_lead() {
        let text = "[proxy]\nlisten = \"127.0.0.1:8000\"\ncache_mebibytes = 5\nports = [80, \"8000-8099\"]\ndeny = [\"10.9.0.0/16\"]\n";
        let proxy = load(text, &[("HOSTLER_PROXY_CONNECT", "deb.example:443")]).unwrap().proxy;
        assert_eq!(
            (proxy.cache, proxy.reach.ports.len(), proxy.reach.deny.len(), proxy.connect.len()),
            (5 << 20, 2, 1, 1)
        );
        let wrong =
            "[proxy]\nports = [\"no\"]\nallow = [\"10.0.0.1\"]\nconnect = [\"deb.example\"]\ncache_mebibytes = 0\n";
        assert_eq!(load(wrong, &[]).unwrap_err().0.len(), 4);
    }

    #[test]
    fn the_environment_wins_and_lists_are_separated_by_commas() {
        let env = [("HOSTLER_REGION_ADDRESSES", "a:5250, b:5250"), ("HOSTLER_RACK_ONLY", "dhcp,http")];
        let config = load("[rack]\nonly = [\"tftp\"]\n[dhcp]\nlisten = [\"127.77.0.2:0\"]\n", &env).unwrap();
        assert_eq!(config.regions, ["a:5250", "b:5250"]);
        assert_eq!(config.services, BTreeSet::from([Service::Dhcp, Service::Http]));
        assert_eq!(config.dhcp, Listen::At(vec!["127.77.0.2:0".parse().unwrap()]));
        for region in ["nohost", ":5250", "a:0", "a:99999"] {
            assert!(load("", &[("HOSTLER_REGION_ADDRESSES", region)]).is_err(), "{region}");
        }
        assert!(load("[rack", &[]).is_err());
        assert!(RackConfig::load(Some(Path::new("/nonexistent/rack.toml")), []).is_err());
    }
}
