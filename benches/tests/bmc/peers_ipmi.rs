//! Other people's consoles against the simulated BMC: ipmitool, FreeIPMI, pyghmi.

use std::net::Ipv4Addr;

use benches::bmc::{
    chassis::{Boot, PowerEvent},
    farm::{Farm, Powered},
    ipmi::{Bmc, Setup},
};
use rack::power::rmcp::{BootDevice, Suite};
use tokio::{process::Command, sync::mpsc::UnboundedReceiver};

fn bmc(last: u8, setup: impl FnOnce(Setup) -> Setup) -> (Farm, UnboundedReceiver<Powered>, Ipv4Addr) {
    let (farm, events) = Farm::start(0).unwrap();
    let address = Ipv4Addr::new(127, 78, 10, last);
    farm.put(address, Bmc::new(setup(Setup::at(address))));
    (farm, events, address)
}

async fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().await;
    let output = output.unwrap_or_else(|e| panic!("{program} runs (./test names its package): {e}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    said
}

async fn ipmitool(farm: &Farm, address: Ipv4Addr, suite: &str, words: &[&str]) -> String {
    let (address, port) = (address.to_string(), farm.port().to_string());
    let mut args = vec!["-I", "lanplus", "-C", suite, "-H", &address, "-p", &port, "-U", "maas", "-P", "yard"];
    args.extend(words);
    run("ipmitool", &args).await
}

#[tokio::test]
async fn ipmitool_boots_cycles_and_switches_off_with_both_suites() {
    for (last, suite, id) in [(1, Suite::Sha1, "3"), (2, Suite::Sha256, "17")] {
        let (farm, mut events, address) = bmc(last, |setup| Setup { suites: vec![suite], ..setup });
        let said = ipmitool(&farm, address, id, &["chassis", "bootdev", "pxe", "options=efiboot"]).await;
        assert!(said.contains("Set Boot Device to pxe"), "{said}");
        ipmitool(&farm, address, id, &["chassis", "power", "on"]).await;
        let said = ipmitool(&farm, address, id, &["chassis", "power", "status"]).await;
        assert!(said.contains("Chassis Power is on"), "{said}");
        ipmitool(&farm, address, id, &["chassis", "power", "cycle"]).await;
        ipmitool(&farm, address, id, &["chassis", "power", "off"]).await;
        let said = ipmitool(&farm, address, id, &["channel", "getciphers", "ipmi", "1"]).await;
        assert!(said.lines().any(|line| line.trim_start().starts_with(id)), "{said}");
        let mut seen = Vec::new();
        while let Ok(powered) = events.try_recv() {
            seen.push(powered.event);
        }
        let boot = Boot { device: BootDevice::Network, efi: true };
        assert_eq!(seen, [PowerEvent::On(boot), PowerEvent::Restart(Boot::default()), PowerEvent::Off]);
    }
}

#[tokio::test]
async fn freeipmi_asks_for_the_state() {
    let (farm, _events, address) = bmc(3, |setup| setup);
    farm.set_power(address, true);
    let host = format!("{address}:{}", farm.port());
    for suite in ["3", "17"] {
        let args = ["-D", "LAN_2_0", "-I", suite, "-l", "OPERATOR", "-u", "maas", "-p", "yard", "-h", &host, "--stat"];
        let said = run("ipmipower", &args).await;
        assert!(said.contains("on"), "{said}");
    }
}

const PYGHMI: &str = r"
import sys
from pyghmi.ipmi.command import Command
c = Command(bmc=sys.argv[1], userid='maas', password='yard', port=int(sys.argv[2]))
print(c.set_bootdev('network', uefiboot=True))
print(c.get_bootdev())
print(c.set_power('on', wait=10))
print(c.get_power())
print(c.set_power('off', wait=10))
c.ipmi_session.logout()
";

#[tokio::test]
async fn pyghmi_boots_and_switches_off() {
    let (farm, mut events, address) = bmc(4, |setup| setup);
    let said = run("/usr/bin/python3", &["-c", PYGHMI, &address.to_string(), &farm.port().to_string()]).await;
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[1].contains("'bootdev': 'network'") && lines[1].contains("'persistent': False"), "{said}");
    assert_eq!(lines[2..], ["{'powerstate': 'on'}", "{'powerstate': 'on'}", "{'powerstate': 'off'}"], "{said}");
    let first = events.try_recv().unwrap().event;
    assert_eq!(first, PowerEvent::On(Boot { device: BootDevice::Network, efi: true }));
    assert_eq!(events.try_recv().unwrap().event, PowerEvent::Off);
}
