//! The IPMI driver against OpenIPMI's BMC simulator, through the real `ipmitool`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use actors::errand::{FaultKind, PowerFault, Ran};
use rack::power::{Drivers, PowerSettings};
use schema::{
    power::{PowerAccess, PowerAction, PowerType},
    secret::Secret,
    status::PowerState,
};

const PASSWORD: &str = "labpass-canary";
const PORT: u16 = 6_230;

/// A BMC whose chassis is a directory: `power` and `boot` hold its state, `log` what it was told.
pub(crate) struct Bmc {
    sim: Child,
    dir: tempfile::TempDir,
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
        drivers().run(action, &self.access()).await
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

fn drivers() -> Drivers {
    Drivers::new(&PowerSettings::default())
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
    let bmc = Bmc::start("127.77.201.1").await;
    assert_eq!(bmc.run(PowerAction::Query).await, Ok(Ran::State { state: PowerState::Off }));
    assert_eq!(bmc.run(PowerAction::NetworkBoot).await, Ok(Ran::Accepted { notes: Vec::new() }));
    bmc.becomes(PowerState::On).await;
    assert!(bmc.told().contains("set boot pxe"), "{}", bmc.told());
    assert!(!bmc.told().contains("set power 0"), "an off machine is not cycled:\n{}", bmc.told());
    // On: a cycle.
    bmc.run(PowerAction::NetworkBoot).await.unwrap();
    bmc.becomes(PowerState::On).await;
    assert!(bmc.told().contains("set power 0"), "{}", bmc.told());
    bmc.run(PowerAction::Off).await.unwrap();
    bmc.becomes(PowerState::Off).await;
}

#[tokio::test]
async fn wrong_credentials_suites_and_keys_are_told_apart() {
    let bmc = Bmc::start("127.77.201.2").await;
    let kind =
        async |access: PowerAccess| drivers().run(PowerAction::Query, &access).await.map_err(|f| (f.kind, f.remedy));
    let (wrong, remedy) = kind(access(&bmc.address, "wrong", &[])).await.unwrap_err();
    assert_eq!(wrong, FaultKind::Auth);
    assert!(remedy.contains("power_pass"), "{remedy}");
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

#[tokio::test]
async fn a_missing_tool_names_its_package() {
    let drivers = Drivers::new(&PowerSettings { ipmitool: "/nonexistent/ipmitool".into(), ..PowerSettings::default() });
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
    let drivers = Drivers::new(&PowerSettings { ipmitool: tool, ..PowerSettings::default() });
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
        bmc.run(PowerAction::Query).await.unwrap();
    }
    let (seen_tool, leaked) = sampler.join().unwrap();
    assert!(seen_tool, "the sampler never saw the tool at work");
    assert_eq!(leaked, Vec::<String>::new());
}
