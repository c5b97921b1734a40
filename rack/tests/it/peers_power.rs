//! The IPMI driver against OpenIPMI's BMC simulator and pyghmi's, natively and through the real `ipmitool`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use actors::errand::{FaultKind, PowerFault, Ran};
use rack::power::{Drivers, PowerSettings, ipmi::IpmiBy};
use schema::{
    power::{PowerAccess, PowerAction, PowerType},
    secret::Secret,
    status::PowerState,
};

pub(crate) const PASSWORD: &str = "labpass-canary";
const PORT: u16 = 6_230;

/// A BMC whose chassis is a directory: `power` and `boot` hold its state, `log` what it was told.
pub(crate) struct Bmc {
    sim: Child,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: String,
}

impl Drop for Bmc {
    fn drop(&mut self) {
        self.sim.kill().ok();
        self.sim.wait().ok();
    }
}

impl Bmc {
    pub(crate) async fn start(host: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("chassis"), CHASSIS).unwrap();
        std::fs::set_permissions(at("chassis"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(at("lan.conf"), lan(host, dir.path())).unwrap();
        std::fs::write(at("emu"), EMU).unwrap();
        std::fs::create_dir(at("state")).unwrap();
        let sim = Command::new("ipmi_sim")
            .args(["-n", "-c"])
            .arg(at("lan.conf"))
            .arg("-f")
            .arg(at("emu"))
            .arg("-s")
            .arg(at("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ipmi_sim runs (install the packages openipmi and ipmitool)");
        let bmc = Self { sim, dir, address: format!("{host}:{PORT}") };
        for _ in 0..50 {
            if bmc.run(PowerAction::Query).await.is_ok() {
                return bmc;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the BMC at {} does not answer", bmc.address);
    }

    pub(crate) fn access(&self) -> PowerAccess {
        access(&self.address, PASSWORD, &[])
    }

    async fn run(&self, action: PowerAction) -> Result<Ran, PowerFault> {
        self.run_by(IpmiBy::Native, action).await
    }

    async fn run_by(&self, by: IpmiBy, action: PowerAction) -> Result<Ran, PowerFault> {
        drivers(by).run(action, &self.access()).await
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn becomes(&self, wanted: PowerState) {
        for _ in 0..100 {
            if self.run(PowerAction::Query).await == Ok(Ran::State { state: wanted }) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never {wanted:?}; told:\n{}", self.told());
    }
}

const CHASSIS: &str = r#"#!/bin/sh
D=${0%/*}
echo "$*" >> "$D/log"
op=$1
shift
while [ $# -gt 0 ]; do
  case $op/$1 in
  get/power) echo "power:$(cat "$D/power" 2>/dev/null || echo 0)"; shift ;;
  get/boot) echo "boot:$(cat "$D/boot" 2>/dev/null || echo none)"; shift ;;
  set/power) echo "$2" > "$D/power"; shift 2 ;;
  set/boot) echo "$2" > "$D/boot"; shift 2 ;;
  *) shift ;;
  esac
done
"#;

const EMU: &str = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                   sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";

fn lan(host: &str, dir: &Path) -> String {
    let levels = ["callback", "user", "operator", "admin"];
    let auths: String = levels.iter().map(|l| format!("    allowed_auths_{l} none md2 md5 straight\n")).collect();
    format!(
        "name \"t\"\nset_working_mc 0x20\n  startlan 1\n    addr {host} {PORT}\n    priv_limit admin\n{auths}\
         \x20   guid a123456789abcdefa123456700000001\n  endlan\n  chassis_control \"{}/chassis\"\n\
         \x20 user 1 true \"\" \"\" user 10 none md2 md5 straight\n\
         \x20 user 2 true \"maas\" \"{PASSWORD}\" admin 10 none md2 md5 straight\n",
        dir.display()
    )
}

fn drivers(ipmi: IpmiBy) -> Drivers {
    Drivers::new(&PowerSettings { ipmi, ..PowerSettings::default() })
}

/// Drivers that know no other way than this program.
fn by_tool(ipmitool: PathBuf) -> Drivers {
    Drivers::new(&PowerSettings { ipmi: IpmiBy::Ipmitool, ipmitool, ..PowerSettings::default() })
}

fn access(address: &str, password: &str, params: &[(&str, &str)]) -> PowerAccess {
    let base = [("power_address", address), ("power_user", "maas")];
    PowerAccess {
        power_type: PowerType::Ipmi,
        params: base.iter().chain(params).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        secrets: BTreeMap::from([("power_pass".to_owned(), Secret::new(password.to_owned()))]),
    }
}

#[tokio::test]
async fn boots_from_the_network_cycles_when_on_and_switches_off() {
    for (by, host) in [(IpmiBy::Native, "127.77.201.1"), (IpmiBy::Ipmitool, "127.77.201.4")] {
        let bmc = Bmc::start(host).await;
        assert_eq!(bmc.run_by(by, PowerAction::Query).await, Ok(Ran::State { state: PowerState::Off }));
        assert_eq!(bmc.run_by(by, PowerAction::NetworkBoot).await, Ok(Ran::Accepted { notes: Vec::new() }));
        bmc.becomes(PowerState::On).await;
        assert!(bmc.told().contains("set boot pxe"), "{}", bmc.told());
        assert!(!bmc.told().contains("set power 0"), "an off machine is not cycled:\n{}", bmc.told());
        // On: a cycle.
        bmc.run_by(by, PowerAction::NetworkBoot).await.unwrap();
        bmc.becomes(PowerState::On).await;
        assert!(bmc.told().contains("set power 0"), "{}", bmc.told());
        bmc.run_by(by, PowerAction::Off).await.unwrap();
        bmc.becomes(PowerState::Off).await;
    }
}

#[tokio::test]
async fn a_bmc_of_ipmi_1_5_is_driven_by_the_tool() {
    let bmc = Bmc::start("127.77.201.5").await;
    let access = access(&bmc.address, PASSWORD, &[("power_driver", "LAN")]);
    let ran = drivers(IpmiBy::Native).run(PowerAction::Query, &access).await;
    assert_eq!(ran, Ok(Ran::State { state: PowerState::Off }));
}

#[tokio::test]
async fn wrong_credentials_suites_and_keys_are_told_apart() {
    let bmc = Bmc::start("127.77.201.2").await;
    for by in [IpmiBy::Native, IpmiBy::Ipmitool] {
        let kind = async |access: PowerAccess| {
            drivers(by).run(PowerAction::Query, &access).await.map_err(|f| (f.kind, f.remedy))
        };
        let (wrong, remedy) = kind(access(&bmc.address, "wrong", &[])).await.unwrap_err();
        assert_eq!(wrong, FaultKind::Auth);
        assert!(remedy.contains("power_pass"), "{remedy}");
        let (wrong, remedy) = kind(access(&bmc.address, PASSWORD, &[("power_user", "nobody")])).await.unwrap_err();
        assert_eq!(wrong, FaultKind::Auth);
        assert!(remedy.contains("power_user"), "{remedy}");
        let (wrong, remedy) = kind(access(&bmc.address, PASSWORD, &[("cipher_suite_id", "17")])).await.unwrap_err();
        assert_eq!(wrong, FaultKind::Auth);
        assert!(remedy.contains("cipher_suite_id"), "{remedy}");
        let mut keyed = bmc.access();
        keyed.secrets.insert("k_g".into(), Secret::new("0x616263".into()));
        let (wrong, remedy) = kind(keyed).await.unwrap_err();
        assert_eq!(wrong, FaultKind::Auth);
        assert!(remedy.contains("k_g"), "{remedy}");
        assert!(kind(access(&bmc.address, PASSWORD, &[("cipher_suite_id", "3")])).await.is_ok());
        let (wrong, _) = kind(access("127.77.201.99:6230", PASSWORD, &[])).await.unwrap_err();
        assert_eq!(wrong, FaultKind::Unreachable);
    }
}

/// pyghmi's BMC, with a chassis of its own.
const PYGHMI: &str = r#"
import sys
from pyghmi.ipmi.bmc import Bmc
class B(Bmc):
    power, boot = 'off', 'default'
    def get_power_state(self): return self.power
    def power_on(self): self.power = 'on'; print('on', self.boot, flush=True); return 0
    def power_off(self): self.power = 'off'; print('off', flush=True); return 0
    def power_cycle(self): print('cycle', self.boot, flush=True); return 0
    def power_reset(self): return 0
    def get_boot_device(self): return self.boot
    def set_boot_device(self, device): self.boot = device
B({'maas': sys.argv[3]}, port=int(sys.argv[2]), address=sys.argv[1]).listen()
"#;

#[tokio::test]
async fn a_bmc_by_pyghmi_boots_and_switches_off() {
    let mut sim = Command::new("/usr/bin/python3")
        .args(["-c", PYGHMI, "127.77.201.6", &PORT.to_string(), PASSWORD])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs (install the package python3-pyghmi)");
    let access = access(&format!("127.77.201.6:{PORT}"), PASSWORD, &[]);
    let drivers = drivers(IpmiBy::Native);
    let mut ran = Err(None);
    for _ in 0..100 {
        ran = drivers.run(PowerAction::NetworkBoot, &access).await.map_err(Some);
        if ran.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let state = drivers.run(PowerAction::Query, &access).await;
    let off = drivers.run(PowerAction::Off, &access).await;
    sim.kill().ok();
    let said = String::from_utf8(sim.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(ran, Ok(Ran::Accepted { notes: Vec::new() }), "{said}");
    assert_eq!(state, Ok(Ran::State { state: PowerState::On }));
    assert_eq!(off, Ok(Ran::Accepted { notes: Vec::new() }));
    assert_eq!(said, "on network\noff\n");
}

#[tokio::test]
async fn a_missing_tool_names_its_package() {
    let drivers = by_tool("/nonexistent/ipmitool".into());
    let fault = drivers.run(PowerAction::On, &access("127.0.0.1", "x", &[])).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unfit);
    assert!(fault.remedy.contains("package ipmitool"), "{fault}");
}

#[tokio::test]
async fn one_bmc_serves_one_run_at_a_time_and_a_dropped_run_ends_its_tool() {
    let dir = tempfile::tempdir().unwrap();
    let tool = dir.path().join("tool");
    // Says when it begins and ends; 150 ms in between.
    let script = format!(
        "#!/bin/sh\necho b >> {0}/log\nsleep 0.15\necho e >> {0}/log\necho Chassis Power is on\n",
        dir.path().display()
    );
    std::fs::write(&tool, script).unwrap();
    std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let drivers = by_tool(tool);
    let same = access("127.0.0.1", "x", &[]);
    let runs = (0..4).map(|_| drivers.run(PowerAction::Query, &same));
    futures_util::future::join_all(runs).await.into_iter().for_each(|r| drop(r.unwrap()));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap().replace('\n', "");
    assert_eq!(log, "be".repeat(4), "two runs at once");
    let run = drivers.run(PowerAction::Query, &same);
    tokio::time::timeout(Duration::from_millis(50), run).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap().replace('\n', "");
    assert_eq!(log, format!("{}b", "be".repeat(4)), "the tool outlived its run");
}

#[tokio::test]
async fn the_password_is_in_no_command_line() {
    let bmc = Bmc::start("127.77.201.3").await;
    let sampler = std::thread::spawn(|| {
        let (mut seen_tool, mut leaked) = (false, Vec::new());
        let end = std::time::Duration::from_secs(3);
        let start = actors::clock::tick();
        while start.elapsed() < end {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let path: PathBuf = entry.path().join("cmdline");
                let line = std::fs::read(path).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                seen_tool |= line.contains("127.77.201.3") && line.starts_with("ipmitool");
                if line.contains(PASSWORD) {
                    leaked.push(line);
                }
            }
        }
        (seen_tool, leaked)
    });
    while !sampler.is_finished() {
        bmc.run_by(IpmiBy::Ipmitool, PowerAction::Query).await.unwrap();
    }
    let (seen_tool, leaked) = sampler.join().unwrap();
    assert!(seen_tool, "the sampler never saw the tool at work");
    assert_eq!(leaked, Vec::<String>::new());
}
