//! What switching machines costs: the native IPMI driver, `ipmitool`, and Redfish, against simulated BMCs over loopback.
//! Hypothesis: a process per call costs a hundred times what a session's datagrams cost, and TLS is most of Redfish.
#![allow(clippy::unwrap_used, reason = "a bench that cannot measure says so by panicking")]

mod common;

use std::{
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use actors::clock::tick;
use benches::bmc::{farm::Farm, ipmi, redfish, web::Web};
use rack::power::{Drivers, PowerSettings, ipmi::IpmiBy, redfish::RedfishTls};
use schema::{
    power::{PowerAccess, PowerAction, PowerType},
    secret::Secret,
};
use tokio::runtime::{Builder, Runtime};

const BMCS: u16 = 1_000;
/// Calls of the tool; each is a process.
const CALLS: u16 = 100;
const ROUNDS: u32 = 3;

fn main() {
    let (yard, hands) = (runtime("yard"), runtime("hands"));
    let addresses: Vec<_> = (0..BMCS).map(|n| Ipv4Addr::new(127, 79, (n / 250) as u8, (n % 250 + 1) as u8)).collect();

    let (farm, _events) = yard.block_on(async { Farm::start(0) }).unwrap();
    let at = |address: &Ipv4Addr| format!("{address}:{}", farm.port());
    let bmcs: Vec<_> = addresses.iter().map(|address| access(PowerType::Ipmi, at(address))).collect();
    let fresh = || addresses.iter().for_each(|address| farm.put(*address, ipmi::Bmc::new(ipmi::Setup::at(*address))));
    for _ in 0..ROUNDS {
        fresh();
        let drivers = Drivers::new(&PowerSettings::default());
        round(&hands, &drivers, &bmcs, "ipmi native, new session", PowerAction::NetworkBoot);
        round(&hands, &drivers, &bmcs, "ipmi native, kept session", PowerAction::Query);
        round(&hands, &drivers, &bmcs, "ipmi native, kept session", PowerAction::Off);
        tool(&hands, &bmcs[..usize::from(CALLS)]);
    }

    for tls in [false, true] {
        let (web, _events) = yard.block_on(async { Web::start(0, tls) }).unwrap();
        let bmcs: Vec<_> = addresses.iter().map(|address| access(PowerType::Redfish, web.url(*address))).collect();
        addresses.iter().for_each(|address| web.put(*address, redfish::Bmc::new(redfish::Setup::default())));
        let drivers = Drivers::new(&PowerSettings { redfish_tls: RedfishTls::Pin, ..PowerSettings::default() });
        let how = if tls { "redfish https" } else { "redfish http" };
        round(&hands, &drivers, &bmcs, &format!("{how}, new session"), PowerAction::NetworkBoot);
        round(&hands, &drivers, &bmcs, &format!("{how}, kept session"), PowerAction::Query);
        round(&hands, &drivers, &bmcs, &format!("{how}, kept session"), PowerAction::Off);
    }

    let _inside = hands.enter();
    let open = common::each(Duration::from_millis(300), || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        socket.set_nonblocking(true).unwrap();
        drop(tokio::net::UdpSocket::from_std(socket).unwrap());
    });
    println!("a socket of its own, opened, connected, watched, closed   {:8.1} us", open / 1e3);
}

fn runtime(name: &'static str) -> Runtime {
    Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build().unwrap()
}

fn access(power_type: PowerType, address: String) -> PowerAccess {
    PowerAccess {
        power_type,
        params: [("power_address", address), ("power_user", "maas".into())].map(|(k, v)| (k.to_owned(), v)).into(),
        secrets: [("power_pass".to_owned(), Secret::new("yard".to_owned()))].into(),
    }
}

/// One action on every BMC at once.
fn round(hands: &Runtime, drivers: &Drivers, bmcs: &[PowerAccess], how: &str, action: PowerAction) {
    let (cpu, start) = (common::cpu_of("hands"), tick());
    run_all(hands, drivers, bmcs, action);
    print(how, action, bmcs.len(), start, common::cpu_of("hands") - cpu);
}

/// The same by a process each; its CPU is that of the children.
fn tool(hands: &Runtime, bmcs: &[PowerAccess]) {
    if Command::new("ipmitool").arg("-V").output().is_err() {
        return println!("ipmitool is not here: not measured");
    }
    let drivers = Drivers::new(&PowerSettings { ipmi: IpmiBy::Ipmitool, ..PowerSettings::default() });
    let mut bmcs = bmcs.to_vec();
    bmcs.iter_mut().for_each(|bmc| drop(bmc.params.insert("cipher_suite_id".into(), "17".into())));
    for action in [PowerAction::NetworkBoot, PowerAction::Query] {
        let (cpu, start) = (common::cpu_of("hands") + children(), tick());
        run_all(hands, &drivers, &bmcs, action);
        print("ipmitool", action, bmcs.len(), start, common::cpu_of("hands") + children() - cpu);
    }
}

fn run_all(hands: &Runtime, drivers: &Drivers, bmcs: &[PowerAccess], action: PowerAction) {
    let runs: Vec<_> = bmcs
        .iter()
        .map(|access| {
            let (drivers, access) = (drivers.clone(), access.clone());
            hands.spawn(async move { drivers.run(action, &access).await })
        })
        .collect();
    hands.block_on(async {
        for run in runs {
            run.await.unwrap().unwrap();
        }
    });
}

fn print(how: &str, action: PowerAction, count: usize, start: Instant, cpu: Duration) {
    println!(
        "{how:<28} {:<26} {:9.1} us CPU   {:8.0} actions/s",
        action.label(),
        cpu.as_secs_f64() * 1e6 / count as f64,
        count as f64 / start.elapsed().as_secs_f64()
    );
}

/// CPU time of this process's children that ended, in steps of a tick (10 ms).
fn children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Behind the name, which may hold anything: fields 16 and 17 of proc(5).
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}
