//! Racks as processes beside a region: their services are shown, a drain holds, and one that is killed is gone within ten seconds.

use std::{
    io::Read,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::cli::{House, path};

/// What the product promises.
const GONE: Duration = Duration::from_secs(10);

struct Rack(Child);

impl Drop for Rack {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl House {
    fn rack_config(&self, region: &str, name: &str, host: &str) -> std::path::PathBuf {
        let (config, state) = (self.path(&format!("{name}.toml")), self.path(name));
        let text = format!(
            "[rack]\nstate = \"{}\"\nonly = [\"dhcp\", \"tftp\", \"http\", \"power\"]\n[region]\naddresses = [\"{region}\"]\n\
             [dhcp]\nlisten = [\"{host}:0\"]\n[tftp]\nlisten = \"{host}:0\"\n[http]\nlisten = \"{host}:0\"\n[metrics]\nlisten = \"{host}:0\"\n",
            state.display()
        );
        std::fs::write(&config, text).unwrap();
        config
    }

    fn enrol(&self, region: &str, config: &std::path::Path) -> String {
        let token = self.run(&["rack", "token", "-o", "json"]).json()["token"].as_str().unwrap().to_owned();
        let words = ["rack", "enrol", "--region", region, "--token", &token, "--config", path(config)];
        let done = self.run(&words);
        assert_eq!(done.code, 0, "{}", done.err);
        done.out.trim().to_owned()
    }

    fn rack(&self, config: &std::path::Path) -> Rack {
        self.rack_that_logs(config, "info")
    }

    fn rack_that_logs(&self, config: &std::path::Path, filter: &str) -> Rack {
        let mut command = self.command(&["rack", "--config", path(config)]);
        command.env("HOSTLER_LOG", filter);
        let log = std::fs::File::create(config.with_extension("log")).unwrap();
        Rack(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn state(&self, rack: &str) -> String {
        self.run(&["rack", "show", rack, "-o", "json"]).json()["state"].as_str().unwrap().to_owned()
    }

    fn until(&self, rack: &str, what: &str, within: Duration, done: impl Fn(&str) -> bool) {
        let started = actors::clock::tick();
        while !done(&self.state(rack)) {
            assert!(started.elapsed() < within, "{rack} is {} and not {what} after {within:?}", self.state(rack));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn until_healthy(&self, rack: &str) {
        self.until(rack, "healthy", Duration::from_secs(60), |state| state == "healthy");
    }
}

/// A house whose region is up and whose operator is signed in; the operator's API key, and where racks dial in.
fn at_home() -> (House, String, String) {
    let mut h = House::new();
    let key = h.init()["api_key"].as_str().unwrap().to_owned();
    let url = h.start();
    assert_eq!(h.run(&["login", "lab", &url, &key]).code, 0);
    let ready: Value = serde_json::from_str(&std::fs::read_to_string(h.path("ready")).unwrap()).unwrap();
    let region = ready["link"].as_str().unwrap().to_owned();
    (h, key, region)
}

#[test]
fn a_killed_rack_is_gone_within_ten_seconds_and_a_drain_holds() {
    let (h, _, region) = at_home();
    let config = h.rack_config(&region, "r1", "127.77.88.2");
    let id = h.enrol(&region, &config);
    let rack = h.rack(&config);
    h.until_healthy(&id);

    let mut services = Value::Null;
    for _ in 0..600 {
        services = h.run(&["rack", "services", &id, "-o", "json"]).json();
        if services.as_array().is_some_and(|all| !all.is_empty()) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let named: Vec<_> = services
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["service"].as_str().unwrap(), s["state"].as_str().unwrap()))
        .collect();
    for wanted in [("dhcp", "running"), ("tftp", "running"), ("http", "running"), ("power", "running")] {
        assert!(named.contains(&wanted), "{named:?}");
    }
    let own = h.run(&["rack", "services", "--state", path(&h.path("r1")), "-o", "csv"]);
    assert!(own.code == 0 && own.out.contains("http,running"), "{}{}", own.out, own.err);
    let racks = h.run(&["rack", "list"]);
    assert!(racks.out.contains("healthy"), "{}", racks.out);

    assert_eq!(h.run(&["rack", "drain", &id, "--wait", "--timeout", "30"]).code, 0);
    assert_eq!(h.state(&id), "drained");
    assert_eq!(h.run(&["rack", "drain", &id, "--undo"]).code, 0);
    h.until_healthy(&id);
    for words in [["rack", "drain", "nobody/x"], ["rack", "show", "nobody/x"], ["rack", "services", "nobody/x"]] {
        h.run(&words).fails(3, "there is no rack \"nobody/x\"");
    }

    drop(rack); // SIGKILL: not a word to the region.
    h.until(&id, "gone", GONE, |state| state != "healthy");
    let services = h.run(&["rack", "services", &id, "-o", "json"]).json();
    assert!(services.as_array().unwrap().iter().all(|s| s["state"] != "running"), "{services}");
    let _again = h.rack(&config);
    h.until_healthy(&id);
}

/// The log of the rack `id`, and all texts, of a bundle that is made now.
fn bundle(h: &House, id: &str) -> (String, String) {
    let file = h.path("bundle.tar");
    assert_eq!(h.run(&["debug", "bundle", "--file", path(&file), "--lines", "5000"]).code, 0);
    let (mut log, mut all) = (String::new(), String::new());
    for entry in tar::Archive::new(std::fs::File::open(&file).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        if name.ends_with(&format!("/racks/{id}/log.txt")) {
            log.clone_from(&text);
        }
        all += &text;
    }
    (log, all)
}

#[test]
fn a_bundle_holds_the_log_of_a_linked_rack_and_no_secret_that_the_rack_was_told() {
    let (h, key, region) = at_home();
    let config = h.rack_config(&region, "r1", "127.77.88.3");
    let id = h.enrol(&region, &config);
    // Everything that our own code may say; the libraries' bytes would push it out.
    let rack = h.rack_that_logs(&config, "info,rack=trace,actors=trace,schema=trace,hostler=trace");
    h.until_healthy(&id);
    // Its BMC answers nothing. The rack is told the password all the same, and tries.
    let words = ["machine", "add", "fox", "--mac", "52:54:00:77:88:03", "--power-type", "ipmi"];
    let bmc = ["--power-address", "127.77.88.99", "--power-user", "operator", "-o", "json"];
    let added =
        h.command(&[&words[..], &bmc].concat()).env("HOSTLER_POWER_PASS", "canary-of-the-bmc").output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let fox: Value = serde_json::from_slice(&added.stdout).unwrap();
    let fox = fox["system_id"].as_str().unwrap();
    assert_eq!(h.run(&["machine", "power", "on", "fox"]).code, 0);
    let tries = || std::fs::read_to_string(config.with_extension("log")).unwrap().contains(fox);
    let started = actors::clock::tick();
    while !tries() {
        assert!(started.elapsed() < Duration::from_secs(60), "the rack does not say that it has to do with {fox}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let (log, all) = bundle(&h, &id);
    assert!(log.contains(fox) && log.len() < 256 << 10, "{} bytes:\n{log}", log.len());
    let secret = key.rsplit(':').next().unwrap();
    let on_disk = std::fs::read_to_string(config.with_extension("log")).unwrap();
    for text in [&all, &on_disk] {
        assert!(!text.contains("canary-of-the-bmc") && !text.contains(secret));
    }
    // One that is gone has no log in it, and that is said.
    drop(rack);
    h.until(&id, "gone", GONE, |state| state != "healthy");
    let (log, all) = bundle(&h, &id);
    assert!(log.is_empty() && all.contains(&format!("log of {id}: rack {id} is not connected")), "{log}");
}
