//! `hostler dev`: a region, racks and a simulated fleet on loopback in one process, to look around. No root, no configuration, SQLite,
//! nothing outside its data directory. Real machines cannot be reached from here: every rack listens on loopback alone, and drives BMCs there.

use std::{
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use benches::{
    api::Api,
    bmc::Mix,
    fleet::{Fleet, bmcs::Bmcs, rack_address},
    yard::{
        self, Layout, MACHINES_PER_RACK, RACKS, Region, RegionPlace, Trouble,
        cable::Cable,
        operator,
        story::{self, Stage},
    },
};
use clap::{Args, ValueEnum};
use rack::{
    config::{RackConfig, Service},
    dhcp::Listen,
    dns::DnsConfig,
    ntp::{NtpConfig, Server},
    power::PowerSettings,
    proxy::ProxyConfig,
    syslog::SyslogConfig,
};
use region::{api::annex::Annexes, init};
use schema::id::RackId;
use serde_json::{Value, json};

use super::{CLEAR, bench::options, log_from, on_threads, until_told, write_ready};
use crate::cli::{
    failure::Failure,
    input::{speed, whole, yard_port},
};

/// How often the progress line is written.
const EACH: Duration = Duration::from_millis(500);

/// How to start it.
#[derive(Debug, Args)]
pub struct Dev {
    /// How many simulated machines
    #[arg(long, default_value_t = 200, value_parser = whole::<u32>(0, u64::from(RACKS * MACHINES_PER_RACK), "200"))]
    pub simulate: u32,
    /// How many racks; each serves a network of up to 250 machines
    #[arg(long, default_value_t = 2, value_parser = whole::<u32>(1, u64::from(RACKS), "2"))]
    pub racks: u32,
    /// The API's port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 5240, value_parser = yard_port)]
    pub port: u16,
    /// Where everything is kept; left out, a temporary folder that goes at the end
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// The same seed draws the same machines
    #[arg(long, default_value_t = 1, value_parser = whole::<u64>(0, u64::MAX, "1"))]
    pub seed: u64,
    /// Divides the machines' own delays; 0: they have none
    #[arg(long, default_value_t = 10.0, value_parser = speed)]
    pub speed: f64,
    /// What goes wrong on purpose; it is said on stderr. Left out, it is the story, and with --idle nothing
    #[arg(long, value_enum)]
    pub faults: Option<Faults>,
    /// What the machines' BMCs speak
    #[arg(long, value_enum, default_value_t = Mix::Half)]
    pub bmcs: Mix,
    /// The machines stay New and off
    #[arg(long)]
    pub idle: bool,
    /// Write this file once everything answers
    #[arg(long)]
    pub ready_file: Option<PathBuf>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Faults {
    /// Nothing
    None,
    /// Once machines are Ready: silent BMC, slow rack, mute machine, lost link, unreachable rack; each heals
    Story,
}

/// Runs it until a signal.
///
/// # Errors
/// When something does not start.
pub fn run(asked: Dev) -> Result<(), Failure> {
    let terminal = std::io::stderr().is_terminal();
    // What a yard does all the time would hide what goes wrong there.
    log_from("warn", terminal);
    let Dev { simulate: machines, racks, seed, speed, bmcs, .. } = asked;
    let layout = Layout { machines, racks, seed, speed, roms: true, bmcs };
    layout.check().map_err(|e| Failure::usage(e.to_string(), "hostler dev --help"))?;
    if asked.idle && asked.faults == Some(Faults::Story) {
        let why = "--idle with --faults story: the story begins with the first machine that is Ready, and none will be";
        return Err(Failure::usage(why, "leave one of them away"));
    }
    asked.ready_file.as_deref().map(|path| options::writable("--ready-file", path)).transpose()?;
    asked.data_dir.as_deref().map(|path| options::folder("--data-dir", path)).transpose()?;
    let temporary = match &asked.data_dir {
        Some(_) => None,
        None => Some(
            tempfile::tempdir().map_err(|e| Failure::failed(format!("no temporary folder: {e}; give --data-dir")))?,
        ),
    };
    let dir = asked.data_dir.clone().or_else(|| temporary.as_ref().map(|t| t.path().to_owned())).unwrap_or_default();
    let done = on_threads(serve(asked, layout, dir, terminal));
    drop(temporary);
    done
}

async fn serve(asked: Dev, layout: Layout, dir: PathBuf, terminal: bool) -> Result<(), Failure> {
    let region = Region::start(RegionPlace { dir: dir.clone(), database: None }).await.map_err(failed)?;
    let link = region.running.link;
    let tokens = region.tokens(layout.racks).await.map_err(failed)?;
    let (mut racks, mut cables) = (Vec::new(), Vec::new());
    for (number, token) in (0..).zip(&tokens) {
        let state = dir.join(format!("rack-{number}"));
        let laid = Cable::lay(link).await;
        let cable = laid.map_err(|e| Failure::failed(format!("no way from a rack to the region: {e}")))?;
        let config = rack_config(state, rack_address(number), cable.address());
        racks.push(yard::start_rack(config, token).await.map_err(failed)?);
        cables.push(cable);
    }
    let ids: Vec<_> = racks.iter().map(|(id, _)| *id).collect();
    let doors = racks.iter().map(|(_, rack)| yard::door(rack)).collect::<Result<_, _>>().map_err(failed)?;
    let fleet = Fleet::new(layout.fleet(doors), tokio::runtime::Handle::current());
    let bmcs = Bmcs::start(&fleet).map_err(|e| Failure::failed(format!("the BMCs did not start: {e}")))?;
    if layout.machines > 0 {
        region.furnish(&ids).await.map_err(failed)?;
    }
    let served = region.open_api(asked.port, annexes(&fleet)).map_err(failed)?;
    let ready = ready(served.address, &region.made, &racks);
    if let Some(path) = &asked.ready_file {
        write_ready(path, &ready)?;
    }
    let login = region.running.app.sessions.link(&region.made.username);
    greet(&ready, login.expose(), &dir, &layout);
    let api = Api::new(&format!("http://{}/", served.address), region.made.api_key.expose()).map_err(failed)?;
    let cables: Arc<[Cable]> = cables.into();
    let stage = Stage { api, fleet, bmcs, cables: cables.clone(), lasts: story::lasts(layout.speed) };
    let tells = asked.faults != Some(Faults::None) && !asked.idle;
    let mut work = vec![tokio::spawn(populate(stage, asked.idle, tells, terminal))];
    if terminal {
        work.push(tokio::spawn(progress(region.running.app.clone())));
    }
    until_told().await?;
    work.iter().for_each(tokio::task::JoinHandle::abort);
    // The racks say goodbye, whatever the story is at.
    cables.iter().for_each(|cable| cable.pull(false));
    for (_, rack) in racks {
        rack.stop().await;
    }
    served.stop().await;
    region.running.stop().await;
    Ok(())
}

fn failed(trouble: Trouble) -> Failure {
    Failure::failed(trouble.to_string())
}

/// Adds the machines, has them commissioned, and tells the story.
async fn populate(stage: Stage, idle: bool, tells: bool, terminal: bool) {
    let Stage { api, fleet, bmcs, .. } = &stage;
    let adding = async {
        if idle {
            return operator::enlist(api, fleet, bmcs).await.map(|_| ());
        }
        operator::bring_up(api, fleet, bmcs).await
    };
    let work = async {
        // The story begins with the first machine that is Ready, not with the last.
        let telling = async { if tells { stage.tell(|line| line_of(terminal, line)).await } else { Ok(()) } };
        tokio::try_join!(adding, telling)
    };
    if let Err(error) = work.await {
        tracing::error!(%error, "the yard's machines are not all under way");
    }
    // The BMCs and the cables live as long as this.
    std::future::pending::<()>().await;
}

/// A line of its own on stderr, in place of the progress line.
fn line_of(terminal: bool, line: &str) {
    // In one piece, since others write there too.
    let line = format!("{}{line}\n", if terminal { CLEAR } else { "" });
    eprint!("{line}");
}

/// How the fleet stands, on one line of the terminal that is written anew.
async fn progress(app: region::app::App) {
    loop {
        tokio::time::sleep(EACH).await;
        let fleet = app.census.fleet(actors::clock::now()).json();
        let statuses = fleet["statuses"].as_object().into_iter().flatten();
        let counts: Vec<_> = statuses.map(|(name, count)| format!("{name} {count}")).collect();
        let line = format!("{CLEAR}{} machines: {}, stuck {}", fleet["machines"], counts.join(", "), fleet["stuck"]);
        eprint!("{line}");
    }
}

/// `hostler yard boot`: a hand switches a machine on.
fn annexes(fleet: &Fleet) -> Annexes {
    let fleet = fleet.clone();
    let boot = move |machine: &actors::machine::Machine| {
        let index = fleet.with_mac(&machine.spec.macs);
        if fleet.is_on(index) {
            let why = format!("{} is on already", machine.spec.hostname);
            return Err((why, format!("switch it off first: hostler machine power off {}", machine.spec.hostname)));
        }
        fleet.power_on(index, true);
        fleet.tell_power(index, true);
        Ok(json!({ "system_id": machine.spec.system_id, "hostname": machine.spec.hostname, "power": "on" }))
    };
    Annexes::from([("boot", Arc::new(boot) as region::api::annex::Annex)])
}

/// The rack's settings: every service on its loopback address, at a free port.
fn rack_config(state: PathBuf, own: Ipv4Addr, region: SocketAddr) -> RackConfig {
    let free = SocketAddrV4::new(own, 0);
    RackConfig {
        state,
        regions: vec![region.to_string()],
        dhcp: Listen::At(vec![free]),
        tftp: free,
        http: free.into(),
        dns: DnsConfig { listen: rack::dns::Listen::At(vec![free.into()]), ..DnsConfig::default() },
        proxy: ProxyConfig { listen: free.into(), ..ProxyConfig::default() },
        ntp: NtpConfig { listen: Listen::At(vec![free]), server: Server::Own, ..NtpConfig::default() },
        syslog: SyslogConfig { listen: Listen::At(vec![free]), ..SyslogConfig::default() },
        power: PowerSettings { loopback_only: true, ..PowerSettings::default() },
        metrics: Some(free.into()),
        ..RackConfig::default()
    }
}

/// The ready file's object (contracts, section 1).
fn ready(api: SocketAddr, made: &init::Initialised, racks: &[(RackId, rack::app::Running)]) -> Value {
    json!({
        "url": format!("http://{api}/MAAS/"),
        "api_key": made.api_key.expose(),
        "admin": { "username": made.username, "password": made.password.expose() },
        "inspect": format!("http://{api}/inspect/v1/"),
        "racks": racks.iter().map(|(id, rack)| services(*id, rack)).collect::<Vec<_>>(),
        "pid": std::process::id(),
    })
}

fn services(id: RackId, rack: &rack::app::Running) -> Value {
    let at = |service| rack.address(service).map(|a| a.to_string());
    json!({
            "id": id,
            "http": at(Service::Http).map(|a| format!("http://{a}")),
            "dhcp": at(Service::Dhcp),
            "tftp": at(Service::Tftp),
            "proxy": at(Service::Proxy),
            "dns": at(Service::Dns),
            "ntp": at(Service::Ntp),
            "syslog": at(Service::Syslog),
            "metrics": rack.metrics.map(|address| format!("http://{address}/metrics")),
    })
}

/// What makes `hostler` this program in another shell; nothing where it is found there already.
fn way_to_itself() -> String {
    let exe = std::env::current_exe().ok();
    let Some(dir) = exe.as_deref().and_then(Path::parent) else { return String::new() };
    let found = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|place| place == dir));
    if found { String::new() } else { format!("  export PATH=\"{}:$PATH\"\n", dir.display()) }
}

fn greet(ready: &Value, login: &str, dir: &Path, layout: &Layout) {
    let text = |path: &str| ready.pointer(path).and_then(Value::as_str).unwrap_or("-").to_owned();
    let (url, key) = (text("/url"), text("/api_key"));
    let page = url.trim_end_matches("MAAS/");
    eprintln!(
        "\n{} racks and {} simulated machines are alive; data in {}. Ctrl-C ends them.\n\n  look   {page}login?once={login}   (signs you in, once)\n  \
         API    {url}\n\nTry, in another shell:\n\n{}  export HOSTLER_URL={url} HOSTLER_KEY={key}\n  hostler machine list\n  \
         hostler machine add fox --mac 52:54:00:12:34:56 --power-type manual\n  hostler machine commission fox\n  hostler explain fox\n  \
         hostler yard boot fox     # a hand switches it on\n  hostler explain fox\n",
        layout.racks,
        layout.machines,
        dir.display(),
        way_to_itself(),
    );
}
