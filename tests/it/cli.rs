//! The operator's commands against a real region: output forms, exit codes, profiles, secrets.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

/// A command's end.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }

    #[track_caller]
    pub(crate) fn fails(&self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains(part), "\"{part}\" is not in: {}", self.err);
    }
}

/// A folder for everything that the commands write.
pub(crate) struct House {
    folder: tempfile::TempDir,
    region: Option<Child>,
}

impl House {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), region: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        for name in ["HOSTLER_URL", "HOSTLER_KEY", "HOSTLER_PROFILE", "HOSTLER_OUTPUT", "HOSTLER_POWER_PASS"] {
            command.env_remove(name);
        }
        command.args(words).env("XDG_CONFIG_HOME", self.path("config")).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Done {
        self.run_with(words, &[])
    }

    fn run_with(&self, words: &[&str], env: &[(&str, &str)]) -> Done {
        let output = self.command(words).envs(env.iter().copied()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    pub(crate) fn init(&self) -> Value {
        let (config, data) = (self.path("region.toml"), self.path("data"));
        let words = ["init", "--config", path(&config), "--data-dir", path(&data), "--api-listen", "127.0.0.1:0"];
        let free = ["--link-listen", "127.0.0.1:0", "--dns-listen", "127.0.0.1:0", "-o", "json"];
        self.run(&[&words[..], &free].concat()).json()
    }

    /// Starts the region; its URL.
    pub(crate) fn start(&mut self) -> String {
        let (config, ready) = (self.path("region.toml"), self.path("ready"));
        let log = std::fs::File::create(self.path("region.log")).unwrap();
        let mut command = self.command(&["region", "--config", path(&config), "--ready-file", path(&ready)]);
        self.region = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        for _ in 0..600 {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                let told: Value = serde_json::from_str(&text).unwrap();
                return told["url"].as_str().unwrap().to_owned();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the region is not ready: {}", std::fs::read_to_string(self.path("region.log")).unwrap());
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(region) = &mut self.region {
            region.kill().ok();
            region.wait().ok();
        }
    }
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_operator_goes_from_nothing_to_a_machine_and_is_told_why_it_cannot_commission() {
    let mut h = House::new();
    let told = h.init();
    let key = told["api_key"].as_str().unwrap().to_owned();
    assert!(told["enrolment_token"].is_string() && told["password"].is_string());
    let config = h.path("region.toml");
    h.run(&["init", "--config", path(&config), "--data-dir", path(&h.path("data"))]).fails(5, "exists already");
    let url = h.start();
    h.run(&["login", "lab", &url, "a:b:c"]).fails(4, "refuses the key");
    assert_eq!(h.run(&["login", "lab", &url, &key]).code, 0);
    let profiles = h.path("config/hostler/profiles.toml");
    assert_eq!(std::fs::metadata(&profiles).unwrap().permissions().mode() & 0o777, 0o600);

    let dynamic = ["subnet", "add", "10.77.0.0/24", "--dynamic", "10.77.0.100-10.77.0.199"];
    h.run(&dynamic).fails(5, "rack");
    let words = ["subnet", "add", "10.77.0.0/24", "--gateway", "10.77.0.1", "-o", "json"];
    assert_eq!(h.run(&words).json()["gateway_ip"], "10.77.0.1");
    let bad = ["subnet", "add", "10.78.0.0/24", "--reserved", "10.79.0.1-10.79.0.9"];
    h.run(&bad).fails(2, "outside");
    assert_eq!(h.run(&["subnet", "list", "-o", "name"]).out, "10.77.0.0/24\n");

    let secret = h.path("pass");
    std::fs::write(&secret, "canary-pass\n").unwrap();
    let words =
        ["machine", "add", "fox", "--mac", "52:54:00:77:00:01", "--power-type", "ipmi", "--power-address", "127.0.0.9"];
    let more =
        ["--power-user", "admin", "--power-pass-file", path(&secret), "--power-parameter", "privilege_level=ADMIN"];
    let made = h.run(&[&words[..], &more, &["-o", "json"]].concat()).json();
    assert_eq!((made["hostname"].as_str(), made["status_name"].as_str()), (Some("fox"), Some("New")));
    let id = made["system_id"].as_str().unwrap();
    h.run(&words).fails(2, "already in use");

    for form in ["table", "json", "yaml", "ndjson", "csv", "name"] {
        let done = h.run(&["machine", "list", "-o", form]);
        assert!(done.code == 0 && done.out.contains(id) && done.err.is_empty(), "{form}: {}{}", done.out, done.err);
        assert!(!done.out.contains("canary-pass"));
    }
    assert_eq!(h.run(&["machine", "show", id, "-o", "json"]).json()["hostname"], "fox");
    assert!(h.run(&["machine", "show", "fox"]).out.contains("52:54:00:77:00:01"));
    h.run(&["machine", "show", "owl"]).fails(3, "no machine \"owl\"");
    h.run(&["machine", "commission", "fox", "--wait"]).fails(5, "rack");
    h.run(&["machine", "abort", "fox", "owl"]).fails(5, "2 of 2 failed");
    assert_eq!(h.run(&["machine", "broken", "fox", "--comment", "smoke", "-o", "name"]).out, format!("{id}\n"));
    let explained = h.run(&["explain", "fox"]);
    assert!(explained.code == 0 && explained.out.contains("smoke"), "{}{}", explained.out, explained.err);
    assert_eq!(h.run(&["explain", "fox", "-o", "json"]).json()["status"], "Broken");
    assert!(h.run(&["machine", "events", "fox"]).out.contains("MARKED_BROKEN"));
    events(&h);
    h.run(&["machine", "results", "fox"]).fails(3, "never commissioned");
    h.run(&["setting", "set", "kernel_opts", "console=ttyS0"]).json_or_empty();
    assert_eq!(h.run(&["setting", "get", "kernel_opts"]).out, "\"console=ttyS0\"\n");
    image(&h);
    assert_eq!(h.run(&["machine", "delete", "fox"]).code, 0);
    let env = [("HOSTLER_URL", "http://127.0.0.1:9"), ("HOSTLER_KEY", key.as_str())];
    h.run_with(&["machine", "list"], &env).fails(6, "cannot be reached");
}

/// What happened is told oldest first, and what happens next to who follows.
fn events(h: &House) {
    let last = h.run(&["event", "tail", "-n", "1", "fox"]);
    assert!(last.code == 0 && last.out.contains(" WARNING fox: ") && last.out.lines().count() == 1, "{}", last.out);
    let all = h.run(&["event", "tail", "-o", "json"]).json();
    let ids: Vec<_> = all.as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(ids.len() > 1 && ids.is_sorted(), "{ids:?}");
    assert_eq!(h.run(&["event", "tail", "--level", "error", "-o", "name"]).out, "");
    h.run(&["event", "tail", "-f", "-o", "json"]).fails(2, "-o ndjson");
    h.run(&["event", "tail", "owl"]).fails(3, "no machine \"owl\"");
    h.run(&["event", "tail", "-n", "0"]).fails(2, "a whole number from 1 to 1000");
    h.run(&["event", "tail", "--level", "grave"]).fails(2, "audit, debug, info, warning, error");

    let mut follower = h.command(&["event", "tail", "-f", "-n", "1", "fox"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some(last.out.trim_end()));
    assert_eq!(h.run(&["machine", "fixed", "fox"]).code, 0);
    let next = lines.next().unwrap();
    assert!(next.contains(" INFO    fox: ") && next.ends_with("(by admin)"), "{next}");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

fn image(h: &House) {
    let folder = h.path("image");
    std::fs::create_dir(&folder).unwrap();
    for name in ["boot-kernel", "boot-initrd", "squashfs"] {
        std::fs::write(folder.join(name), name).unwrap();
    }
    let description = r#"{"name": "debian/bookworm/amd64/generic", "arch": "amd64", "kernel": "boot-kernel", "initrd": "boot-initrd",
        "squashfs": "squashfs", "kernel_params": "ro ip=dhcp"}"#;
    std::fs::write(folder.join("image.json"), description).unwrap();
    let made = h.run(&["image", "add", path(&folder), "--default", "-o", "json"]).json();
    assert_eq!((made["default"].as_bool(), made["squashfs"]["len"].as_u64()), (Some(true), Some(8)));
    assert_eq!(h.run(&["image", "list", "-o", "name"]).out, "debian/bookworm/amd64/generic\n");
    let loader = format!("bootx64.efi={}", path(&folder.join("boot-kernel")));
    assert!(h.run(&["image", "loaders", "--file", &loader]).out.contains("bootx64.efi"));
}

impl Done {
    #[track_caller]
    fn json_or_empty(&self) {
        assert_eq!(self.code, 0, "{}", self.err);
    }
}

#[test]
fn wrong_use_is_2_and_says_what_to_do() {
    let h = House::new();
    h.run(&["machine", "list"]).fails(2, "hostler login");
    h.run(&["fly"]).fails(2, "unrecognized subcommand");
    h.run(&["machine", "commission"]).fails(2, "required");
    h.run(&["machine", "commission", "x", "--timeout", "soon"]).fails(2, "90s, 30m or 2h");
    h.run(&["login", "x", "nowhere", "a:b:c"]).fails(2, "http://HOST:5240/MAAS");
    h.run(&["login", "x", "http://127.0.0.1:9", "a:b"]).fails(2, "three parts");
    h.run(&["login", "x", "http://127.0.0.1:9", "a:b:c"]).fails(6, "cannot be reached");
    let help = h.run(&["--help"]);
    assert!(help.code == 0 && help.out.contains("explain") && help.err.is_empty());
}

#[test]
fn a_configuration_with_several_mistakes_prints_them_all() {
    let h = House::new();
    let config = h.path("region.toml");
    std::fs::write(&config, "[api]\nlisten = \"here\"\n[journal]\ndays = \"many\"\n[link]\nlisten = 7\n").unwrap();
    let done = h.run(&["region", "--config", path(&config)]);
    done.fails(2, "api.listen");
    assert!(done.err.contains("journal.days") && done.err.contains("link.listen"), "{}", done.err);
}
