//! The Redfish driver against OpenStack's emulator (sushy-tools), which `./test` puts into a place of its own.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use actors::errand::{FaultKind, Ran};
use rack::power::{Drivers, PowerSettings};
use schema::{
    power::{PowerAccess, PowerAction, PowerType},
    secret::Secret,
    status::PowerState,
};

const PASSWORD: &str = "labpass-canary";
const HTPASSWD: &str = "maas:$2b$04$dNbsdAn1N6RpJsgl515KJuLPfr0dSkdG/eeVFARQvGbR8RZqEds5u\n";
const UUID: &str = "27946b59-9e44-4fa7-8e91-f3527a1ef094";
const ADDRESS: &str = "127.77.202.1";
const PORT: u16 = 8_001;

struct Emulator(Child, #[expect(dead_code, reason = "it is removed with the emulator")] tempfile::TempDir);

impl Drop for Emulator {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Emulator {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (config, auth) = (dir.path().join("emulator.conf"), dir.path().join("htpasswd"));
        std::fs::write(&auth, HTPASSWD).unwrap();
        let system = format!(
            "dict(uuid='{UUID}', name='m1', power_state='Off', nics=[dict(mac='52:54:00:77:00:01', ip='10.0.0.1')])"
        );
        let text = format!(
            "SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_STATE_DIR = '{0}'\nSUSHY_EMULATOR_AUTH_FILE = '{1}'\n\
             SUSHY_EMULATOR_FAKE_SYSTEMS = [{system}]\n",
            dir.path().display(),
            auth.display()
        );
        std::fs::write(&config, text).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sushy/bin/sushy-emulator");
        let child = Command::new(program)
            .args(["-i", ADDRESS, "-p", &PORT.to_string(), "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sushy-emulator runs (`./test peers` installs it into target/sushy)");
        Self(child, dir)
    }
}

fn access(password: &str) -> PowerAccess {
    let params = [("power_address", format!("http://{ADDRESS}:{PORT}")), ("power_user", "maas".to_owned())];
    PowerAccess {
        power_type: PowerType::Redfish,
        params: params.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        secrets: [("power_pass".to_owned(), Secret::new(password.to_owned()))].into(),
    }
}

#[tokio::test]
async fn boots_from_the_network_and_switches_off() {
    let _emulator = Emulator::start();
    let drivers = Drivers::new(&PowerSettings::default());
    let query = async || drivers.run(PowerAction::Query, &access(PASSWORD)).await;
    let becomes = async |wanted: PowerState| {
        for _ in 0..300 {
            if query().await == Ok(Ran::State { state: wanted }) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never {wanted:?}: {:?}", query().await);
    };
    becomes(PowerState::Off).await;
    let wrong = drivers.run(PowerAction::Query, &access("wrong")).await.unwrap_err();
    assert_eq!(wrong.kind, FaultKind::Auth, "{wrong}");
    let ran = drivers.run(PowerAction::NetworkBoot, &access(PASSWORD)).await;
    assert_eq!(ran, Ok(Ran::Accepted { notes: Vec::new() }));
    let url = format!("http://{ADDRESS}:{PORT}/redfish/v1/Systems/{UUID}");
    let system = Command::new("curl").args(["-s", "-u", &format!("maas:{PASSWORD}"), &url]).output().unwrap();
    let system: serde_json::Value = serde_json::from_slice(&system.stdout).unwrap();
    assert_eq!(system["Boot"]["BootSourceOverrideTarget"], "Pxe");
    // Its machines take up to eleven seconds.
    becomes(PowerState::On).await;
    drivers.run(PowerAction::Off, &access(PASSWORD)).await.unwrap();
    becomes(PowerState::Off).await;
}
