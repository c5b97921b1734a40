//! Every port of the product: number, direction, purpose, setting. Defaults, `doctor` and `docs/ports.md` go by this table.

/// Who opens a conversation, or answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Party {
    /// A server that boots, or what runs on it.
    Machine,
    /// A relay agent of a subnet without a rack.
    Relay,
    Bmc,
    Rack,
    Region,
    /// A person's browser or program.
    Operator,
    Database,
    /// Servers of others: names, time, packages, logs.
    Outside,
}

impl Party {
    /// Its name in a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Relay => "DHCP relay",
            Self::Bmc => "BMC",
            Self::Rack => "rack",
            Self::Region => "region",
            Self::Operator => "operator",
            Self::Database => "PostgreSQL",
            Self::Outside => "outside",
        }
    }
}

/// One port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The service, as settings name it.
    pub service: &'static str,
    /// "tcp", "udp" or "tcp, udp".
    pub transport: &'static str,
    pub number: u16,
    /// Who opens the conversation.
    pub from: Party,
    /// Who listens.
    pub to: Party,
    pub why: &'static str,
    /// The setting that changes it; empty where another side decides.
    pub setting: &'static str,
}

macro_rules! ports {
    ($($name:ident = $service:literal $transport:literal $number:literal $from:ident -> $to:ident, $why:literal, $setting:literal;)*) => {
        $(
            #[doc = $why]
            pub const $name: Port = Port {
                service: $service,
                transport: $transport,
                number: $number,
                from: Party::$from,
                to: Party::$to,
                why: $why,
                setting: $setting,
            };
        )*
        /// All of them, in the order of the page.
        pub const ALL: &[Port] = &[$($name),*];
    };
}

ports! {
    API = "api" "tcp" 5240 Operator -> Region, "API, dashboard, inspection, metrics", "api.listen (region.toml)";
    INSPECT = "inspect" "tcp" 5241 Operator -> Region, "only where the inspection has a listener of its own", "inspect.listen (region.toml)";
    LINK = "link" "udp" 5250 Rack -> Region, "the link: QUIC with mutual TLS; plans, orders, reports, bodies", "link.listen (region.toml), region.addresses (rack.toml)";
    ZONES = "dns" "tcp, udp" 5253 Outside -> Region, "authoritative names: zone transfers, and queries of the site's own servers", "dns.listen (region.toml)";
    DATABASE = "database" "tcp" 5432 Region -> Database, "only where the region's database is PostgreSQL", "database.url (region.toml)";
    DNS = "dns" "tcp, udp" 53 Machine -> Rack, "names, on the addresses of the rack's subnets", "dns.listen (rack.toml)";
    DHCP = "dhcp" "udp" 67 Machine -> Rack, "addresses and what to boot; answers go to port 68", "dhcp.listen (rack.toml)";
    DHCP_RELAYED = "dhcp" "udp" 67 Relay -> Rack, "requests of subnets behind a relay; answers go to the relay's port 67", "dhcp.listen (rack.toml)";
    TFTP = "tftp" "udp" 69 Machine -> Rack, "boot loaders and their configuration; each transfer has a port of its own above 1023", "tftp.listen (rack.toml)";
    NTP = "ntp" "udp" 123 Machine -> Rack, "time", "ntp.listen (rack.toml)";
    SYSLOG = "syslog" "tcp, udp" 5247 Machine -> Rack, "log lines of machines", "syslog.listen (rack.toml)";
    HTTP = "http" "tcp" 5248 Machine -> Rack, "boot files, images, metadata, results", "http.listen (rack.toml)";
    PROXY = "proxy" "tcp" 8000 Machine -> Rack, "packages", "proxy.listen (rack.toml)";
    METRICS = "metrics" "tcp" 5239 Operator -> Rack, "metrics, on loopback unless it is set otherwise", "metrics.listen (rack.toml)";
    IPMI = "power" "udp" 623 Rack -> Bmc, "IPMI 2.0: power and boot device", "power_address of the machine";
    REDFISH = "power" "tcp" 443 Rack -> Bmc, "Redfish: power and boot device", "power_address of the machine";
    UPSTREAM_DNS = "dns" "tcp, udp" 53 Rack -> Outside, "names that are none of ours", "upstream_dns (set-config)";
    UPSTREAM_NTP = "ntp" "udp" 123 Rack -> Outside, "the rack's own time", "ntp_servers (set-config)";
    ARCHIVES = "proxy" "tcp" 80 Rack -> Outside, "package archives; 443 where they are asked for by HTTPS", "http_proxy (set-config) puts a proxy in between";
    REMOTE_SYSLOG = "syslog" "udp" 514 Rack -> Outside, "only where log lines are sent on", "remote_syslog (set-config)";
}

/// The page: a table for the firewall's keeper.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Ports\n\nGenerated from `schema::ports` by `schema/tests/it/ports.rs`; do not edit. The defaults; `hostler doctor` checks those of a host.\n\
         The first column opens the conversation, the second one listens. Nothing else is needed: machines reach racks alone, \
         BMCs call nobody, and racks never reach the database.\n\n\
         | from | to | port | service | why | changed by |\n|---|---|---|---|---|---|\n",
    );
    for port in ALL {
        let Port { service, transport, number, from, to, why, setting } = port;
        let (from, to) = (from.name(), to.name());
        page.push_str(&format!("| {from} | {to} | {number}/{transport} | {service} | {why} | {setting} |\n"));
    }
    page
}
