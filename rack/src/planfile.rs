//! A plan from a file: TOML or JSON of the plan's own shape, bodies named by local paths, watched and swapped. How a rack serves without a region.

use std::{
    collections::HashSet,
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};

use notify::Watcher;
use schema::plan::{Plan, PlanSubnet, Reservation};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    bodies::Bodies,
    plan::{PlanHandle, Snapshot},
};

/// Editors write a file in several strokes.
const SETTLE: Duration = Duration::from_millis(200);
/// Looked at by itself as well: not every file system tells of changes.
const LOOK: Duration = Duration::from_secs(10);

/// Why a plan file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    #[error("the plan {path} cannot be read: {source}; give the path of a readable file")]
    Read { path: PathBuf, source: io::Error },
    #[error("the plan {path}: {why}; correct it there (a name ending in .json is read as JSON, all else as TOML)")]
    Parse { path: PathBuf, why: String },
    #[error("the plan {path} names the file {file}: {source}; put it there or correct its path")]
    Body { path: PathBuf, file: PathBuf, source: io::Error },
}

/// Where the file wants to be served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PlanListen {
    pub dhcp: Vec<SocketAddrV4>,
    pub tftp: Option<SocketAddrV4>,
    pub http: Option<SocketAddr>,
    pub proxy: Option<SocketAddr>,
    pub dns: Vec<SocketAddr>,
    pub ntp: Vec<SocketAddrV4>,
    pub syslog: Vec<SocketAddrV4>,
}

/// A plan file as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanFile {
    pub plan: Plan,
    pub listen: PlanListen,
}

/// Reads a plan file. Where it says `path = "FILE"` in place of a body's hash and length, the file is taken into `bodies`.
///
/// # Errors
/// [`PlanFileError`], naming file and field.
pub fn read(path: &Path, files: Option<&Path>, bodies: &Bodies) -> Result<PlanFile, PlanFileError> {
    let parse = |why: String| PlanFileError::Parse { path: path.into(), why: why.trim().replace('\n', " ") };
    let mut value = value(path)?;
    let base = files.or_else(|| path.parent()).unwrap_or(Path::new("."));
    adopt(&mut value, base, bodies).map_err(|(file, source)| PlanFileError::Body {
        path: path.into(),
        file,
        source,
    })?;
    let listen = value.as_object_mut().and_then(|table| table.remove("listen")).unwrap_or_default();
    let listen = if listen.is_null() { PlanListen::default() } else { field(listen, "listen").map_err(parse)? };
    let mut known =
        ["generation", "settings", "subnets", "reservations", "tickets", "boot_files", "zones", "records"].iter();
    if let Some(unknown) = value.as_object().and_then(|t| t.keys().find(|k| !known.clone().any(|n| n == k))) {
        let known: Vec<_> = known.by_ref().copied().collect();
        return Err(parse(format!("there is no \"{unknown}\" in a plan; use {}, listen", known.join(", "))));
    }
    Ok(PlanFile { plan: field(value, "the plan").map_err(parse)?, listen })
}

/// The subnets of a plan file, without a look at its bodies.
///
/// # Errors
/// [`PlanFileError`], naming file and field.
pub fn subnets(path: &Path) -> Result<Vec<PlanSubnet>, PlanFileError> {
    let mut value = value(path)?;
    let subnets = value.as_object_mut().and_then(|table| table.remove("subnets"));
    let parse = |why| PlanFileError::Parse { path: path.into(), why };
    subnets.map_or_else(|| Ok(Vec::new()), |subnets| field(subnets, "subnets").map_err(parse))
}

/// The file as a value.
fn value(path: &Path) -> Result<Value, PlanFileError> {
    let parse = |why: String| PlanFileError::Parse { path: path.into(), why: why.trim().replace('\n', " ") };
    let text = fs::read_to_string(path).map_err(|source| PlanFileError::Read { path: path.into(), source })?;
    if path.extension().is_some_and(|e| e == "json") {
        serde_json::from_str(&text).map_err(|e| parse(e.to_string()))
    } else {
        toml::from_str(&text).map_err(|e| parse(e.to_string()))
    }
}

fn field<T: for<'de> Deserialize<'de>>(value: Value, name: &str) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| format!("{name}: {e}"))
}

/// Replaces every `path` by the hash and length of that file, which is then in the store.
fn adopt(value: &mut Value, base: &Path, bodies: &Bodies) -> Result<(), (PathBuf, io::Error)> {
    match value {
        Value::Array(values) => values.iter_mut().try_for_each(|v| adopt(v, base, bodies)),
        Value::Object(table) => {
            if let Some(Value::String(path)) = table.remove("path") {
                let file = base.join(path);
                let body = fs::read(&file).and_then(|bytes| bodies.put(&bytes)).map_err(|e| (file, e))?;
                let fields = [("sha256", Value::from(body.sha256.to_string())), ("len", Value::from(body.len))];
                // A boot file has its body in a field of its own; everywhere else the table is the body.
                if table.contains_key("name") {
                    let body = fields.map(|(k, v)| (k.to_owned(), v)).into_iter().collect();
                    table.insert("body".into(), Value::Object(body));
                } else {
                    table.extend(fields.map(|(k, v)| (k.to_owned(), v)));
                }
            }
            table.values_mut().try_for_each(|v| adopt(v, base, bodies))
        }
        _ => Ok(()),
    }
}

/// `plan` with the reservations that were made at this rack; one of the file for the same MAC or address wins.
#[must_use]
pub fn with_reservations(mut plan: Plan, own: &[Reservation]) -> Plan {
    let ips: HashSet<_> = plan.reservations.iter().map(|r| r.ip).collect();
    let macs: HashSet<_> = plan.reservations.iter().map(|r| (r.mac, r.subnet)).collect();
    let free = |r: &&Reservation| !ips.contains(&r.ip) && !macs.contains(&(r.mac, r.subnet));
    plan.reservations.extend(own.iter().filter(free).cloned());
    plan
}

/// Puts each new version of the file in force, until dropped. A version with a fault is logged, and the old one stays.
pub async fn watch(
    path: PathBuf,
    files: Option<PathBuf>,
    bodies: Bodies,
    plan: PlanHandle,
    own: impl Fn() -> Vec<Reservation>,
    mut in_force: impl FnMut(&Plan),
) {
    let (sender, mut changed) = mpsc::channel::<()>(1);
    let name = path.file_name().map(ToOwned::to_owned);
    // Its directory is watched, since editors replace files; what else happens there (our own state, perhaps) is none of ours.
    let ours = move |e: notify::Event| !e.kind.is_access() && e.paths.iter().any(|p| p.file_name() == name.as_deref());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(&ours) {
            sender.try_send(()).ok(); // Full: a look is due anyway.
        }
    })
    .inspect_err(|error| tracing::warn!(%error, "the plan file is looked at every {} s only", LOOK.as_secs()))
    .ok();
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Some(Err(error)) = watcher.as_mut().map(|w| w.watch(dir, notify::RecursiveMode::NonRecursive)) {
        tracing::warn!(%error, "the plan file is looked at every {} s only", LOOK.as_secs());
    }
    let mut seen = fs::read(&path).ok();
    loop {
        tokio::select! {
            told = changed.recv(), if watcher.is_some() => if told.is_none() { watcher = None },
            () = tokio::time::sleep(LOOK) => {}
        }
        tokio::time::sleep(SETTLE).await;
        let now = fs::read(&path).ok();
        if now == seen {
            continue;
        }
        seen = now;
        match read(&path, files.as_deref(), &bodies) {
            Ok(file) => {
                let next = with_reservations(file.plan, &own());
                tracing::info!(path = %path.display(), subnets = next.subnets.len(), "the plan file changed and is in force");
                in_force(&next);
                plan.store(next);
            }
            Err(error) => tracing::error!(%error, "the old plan stays in force"),
        }
    }
}

/// What a reservation may not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    #[error("{ip} is in no subnet of the plan; give an address of {subnets}")]
    NoSubnet { ip: Ipv4Addr, subnets: String },
    #[error("{ip} is kept for {mac} already; choose another address or remove that reservation")]
    Taken { ip: Ipv4Addr, mac: schema::net::MacAddr },
    #[error("{ip} is the {what} of its subnet; choose another address")]
    Special { ip: Ipv4Addr, what: &'static str },
}

/// A reservation that fits the plan; one of the same MAC on the same subnet gives way to it.
///
/// # Errors
/// [`ReserveError`].
pub fn reservation(
    snapshot: &Snapshot,
    mac: schema::net::MacAddr,
    ip: Ipv4Addr,
    name: Option<String>,
) -> Result<Reservation, ReserveError> {
    let Some(subnet) = snapshot.subnet_of(ip.into()) else {
        let subnets: Vec<_> = snapshot.plan.subnets.iter().map(|s| s.cidr.to_string()).collect();
        return Err(ReserveError::NoSubnet { ip, subnets: subnets.join(", ") });
    };
    let special = [
        (Some(subnet.cidr.network()), "network address"),
        (subnet.cidr.broadcast().map(Into::into), "broadcast address"),
        (subnet.rack_address.map(Into::into), "rack's own address"),
        (subnet.gateway.map(Into::into), "gateway"),
    ];
    if let Some((_, what)) = special.into_iter().find(|(address, _)| *address == Some(ip.into())) {
        return Err(ReserveError::Special { ip, what });
    }
    if let Some(other) = snapshot.reserved_for(ip).filter(|other| *other != mac) {
        return Err(ReserveError::Taken { ip, mac: other });
    }
    Ok(Reservation { subnet: subnet.id, mac, ip, hostname: name })
}
