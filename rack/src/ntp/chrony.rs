//! chrony as the rack runs it: its programs, the configuration that is written for it, and what it says of itself. Pure but for looking.

use std::{
    fmt::Write,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
};

use schema::{
    net::{Cidr, HostName},
    plan::{PlanSettings, PlanSubnet},
};

/// Stratum of a rack that follows no source: MAAS's racks say 8 and more.
const ALONE: u8 = 10;
/// Where a system's own programs are, besides `PATH`: a service's environment may lack `sbin`.
const SYSTEM: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/usr/local/sbin"];
/// Programs that keep a host's clock, by the kernel's (15 characters) names.
const KEEPERS: [&str; 6] = ["chronyd", "ntpd", "ntpsec", "openntpd", "systemd-timesyn", "ptp4l"];

/// chrony's two programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    pub chronyd: PathBuf,
    pub chronyc: PathBuf,
}

/// chrony, where both programs are installed.
#[must_use]
pub fn installed() -> Option<Programs> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from)).collect();
    let find = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
    Some(Programs { chronyd: find("chronyd")?, chronyc: find("chronyc")? })
}

/// Programs of this host that keep its clock now, but for those in `ours`; in this process's namespace.
#[must_use]
pub fn keepers(ours: Option<u32>) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let named = processes.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        (Some(pid) != ours && KEEPERS.contains(&name.trim())).then(|| name.trim().to_owned())
    });
    let mut names: Vec<_> = named.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Where chrony's files lie: a directory of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub dir: PathBuf,
}

impl Files {
    /// Below the rack's state directory.
    #[must_use]
    pub fn below(state: &Path) -> Self {
        Self { dir: state.join("ntp") }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("chrony.conf")
    }

    /// The file with its process id.
    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.dir.join("chronyd.pid")
    }

    /// Its command socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("chronyd.sock")
    }
}

/// A source of time as the settings name it; `None` for what is neither a host name nor an address.
fn source(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(format!("server {address} iburst"));
    }
    // A pool with one server is a server.
    text.parse::<HostName>().ok().map(|name| format!("pool {name} iburst"))
}

/// Sources of the plan that chrony is not told of, since they are no names.
#[must_use]
pub fn no_sources(settings: &PlanSettings) -> Vec<String> {
    settings.ntp_servers.iter().filter(|s| source(s).is_none()).cloned().collect()
}

/// The configuration for that plan, to serve at `places`. Without a place it serves nobody and only follows its sources.
#[must_use]
pub fn configuration(
    settings: &PlanSettings,
    subnets: &[PlanSubnet],
    places: &[SocketAddrV4],
    files: &Files,
) -> String {
    let mut text = String::from("# Written by Hostler for the rack's own chronyd; changes are lost.\n");
    let mut line = |words: std::fmt::Arguments<'_>| {
        text.write_fmt(words).and_then(|()| text.write_char('\n')).ok(); // Writing to a String cannot fail.
    };
    let mut sources = settings.ntp_servers.iter().filter_map(|s| source(s)).peekable();
    let alone = sources.peek().is_none();
    sources.for_each(|s| line(format_args!("{s}")));
    // A rack that has lost its sources still gives its machines one time. Among racks, those further from a source yield (orphan).
    line(format_args!("local stratum {ALONE}{}", if alone { "" } else { " orphan" }));
    let port = places.first().map_or(0, SocketAddrV4::port);
    line(format_args!("port {port}"));
    // It takes one address of each family; with several, the wildcard and the list of who may ask.
    let bind = if let [place] = places { *place.ip() } else { Ipv4Addr::UNSPECIFIED };
    line(format_args!("bindaddress {bind}"));
    let mut asked: Vec<&Cidr> = subnets.iter().map(|s| &s.cidr).collect();
    asked.sort_unstable();
    asked.dedup();
    if !places.is_empty() {
        asked.iter().for_each(|cidr| line(format_args!("allow {cidr}")));
    }
    line(format_args!("ratelimit interval 1 burst 64 leak 3"));
    line(format_args!("cmdport 0"));
    line(format_args!("bindcmdaddress {}", files.socket().display()));
    line(format_args!("pidfile {}", files.pid().display()));
    line(format_args!("driftfile {}", files.dir.join("drift").display()));
    line(format_args!("makestep 1.0 3"));
    text
}

/// What `chronyc -c tracking` says: one line of fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracking {
    /// The source it follows, as a name or an address.
    pub source: String,
    pub stratum: u8,
    /// Seconds that the clock is slow (positive) or fast of NTP time.
    pub offset_s: f64,
    /// chrony is sure of its time; with `local` it always is.
    pub synchronised: bool,
    /// It follows itself alone: no source, or none that answers.
    pub alone: bool,
}

impl Tracking {
    /// Reads the line; `None` when it has another form.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.trim().split(',').collect();
        let [id, source, stratum, _, offset, .., leap] = fields.as_slice() else { return None };
        Some(Self {
            source: (*source).to_owned(),
            stratum: stratum.parse().ok()?,
            offset_s: offset.parse().ok().filter(|s: &f64| s.is_finite())?,
            synchronised: *leap != "Not synchronised",
            alone: *id == "7F7F0101" || *id == "00000000",
        })
    }
}

/// How many questions chrony has answered: received less dropped, of `chronyc -c serverstats`.
#[must_use]
pub fn answered(line: &str) -> Option<u64> {
    let mut fields = line.trim().split(',').map(|field| field.parse::<u64>().ok());
    let (received, dropped) = (fields.next()??, fields.next()??);
    Some(received.saturating_sub(dropped))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::plan::Plan;

    use super::*;

    fn plan(servers: &[&str]) -> Plan {
        let value = serde_json::json!({
            "settings": {"ntp_servers": servers},
            "subnets": [{"id": 1, "cidr": "10.77.0.0/24"}, {"id": 2, "cidr": "10.78.0.0/24"}],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_configuration_names_sources_and_who_may_ask() {
        let (files, place) = (Files::below(Path::new("/var/lib/hostler/rack")), "10.77.0.1:123".parse().unwrap());
        let plan = plan(&["ntp.example", "10.0.0.1", "x\nallow all"]);
        let text = configuration(&plan.settings, &plan.subnets, &[place], &files);
        for line in [
            "pool ntp.example iburst",
            "server 10.0.0.1 iburst",
            "local stratum 10 orphan",
            "port 123",
            "bindaddress 10.77.0.1",
            "allow 10.77.0.0/24",
            "allow 10.78.0.0/24",
            "bindcmdaddress /var/lib/hostler/rack/ntp/chronyd.sock",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("allow all"), "what is no name stays out");
        assert_eq!(no_sources(&plan.settings), ["x\nallow all"]);
        let two = configuration(&plan.settings, &plan.subnets, &[place, "10.78.0.1:123".parse().unwrap()], &files);
        assert!(two.contains("bindaddress 0.0.0.0\n"));
        let none = configuration(&self::plan(&[]).settings, &plan.subnets, &[], &files);
        assert!(none.contains("local stratum 10\nport 0\n") && !none.contains("allow"), "{none}");
    }

    #[test]
    fn what_chrony_says_is_read() {
        let line = "0A000001,ntp.example,3,1795366923.1,0.000012,0.1,0.1,-3.2,0.0,0.1,0.003,0.002,64.2,Normal\n";
        let tracking = Tracking::parse(line).unwrap();
        assert_eq!((tracking.stratum, tracking.synchronised, tracking.alone), (3, true, false));
        let alone = Tracking::parse("7F7F0101,,10,1795366923.1,0.0,0.0,0.0,0,0,0,0,0,0,Normal").unwrap();
        assert!(alone.alone);
        assert_eq!(Tracking::parse("506 Cannot talk to daemon"), None);
        assert_eq!((answered("12,2,30,0\n"), answered("x")), (Some(10), None));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in ".{0,200}") {
            let read = (Tracking::parse(&line), answered(&line), source(&line));
            prop_assert!(read.2.is_none_or(|s| !s.contains('\n')));
        }
    }
}
