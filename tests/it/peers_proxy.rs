//! curl and apt-get through the package proxy of a rack: a machine that reaches nothing but the rack, and a small repository, made by Debian's own
//! tools, behind a plain HTTP server that only the rack reaches.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

const SERVER: &str = "10.79.1.9";
const PROXY: &str = "http://10.79.2.1:8000";

/// Three namespaces in a row: machine, rack, server. Removed at the end with what runs in them.
struct Net {
    name: String,
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Net {
    fn new() -> Self {
        let name = format!("hxp{}", std::process::id());
        let net = Self { name, dir: tempfile::tempdir().unwrap(), children: Vec::new() };
        let n = &net.name;
        for line in [
            format!("netns add {n}m"),
            format!("netns add {n}r"),
            format!("netns add {n}s"),
            format!("link add inner netns {n}r type veth peer name eth0 netns {n}m"),
            format!("link add outer netns {n}r type veth peer name eth0 netns {n}s"),
            format!("-n {n}m addr add 10.79.2.5/24 dev eth0"),
            format!("-n {n}r addr add 10.79.2.1/24 dev inner"),
            format!("-n {n}r addr add 10.79.1.1/24 dev outer"),
            format!("-n {n}s addr add {SERVER}/24 dev eth0"),
        ] {
            sh(&format!("ip {line}"));
        }
        for (side, device) in
            [("m", "lo"), ("m", "eth0"), ("r", "lo"), ("r", "inner"), ("r", "outer"), ("s", "lo"), ("s", "eth0")]
        {
            sh(&format!("ip -n {n}{side} link set {device} up"));
        }
        net
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command on one side: 'm', 'r' or 's'.
    fn command(&self, side: char, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}{side}", self.name), program]);
        command.stdin(Stdio::null()).current_dir(self.dir.path()).env("LC_ALL", "C");
        command
    }

    fn start(&mut self, command: &mut Command) {
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        self.children.push(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let start = actors::clock::tick();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come about\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// curl on the machine, through the proxy.
    fn try_curl(&self, args: &[&str]) -> Output {
        self.command('m', "curl").args(["-sS", "--max-time", "60", "-x", PROXY]).args(args).output().unwrap()
    }

    fn curl(&self, args: &[&str]) -> String {
        let output = self.try_curl(args);
        assert!(output.status.success(), "{args:?}: {}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn status(&self, args: &[&str]) -> String {
        self.curl(&[&["-o", "/dev/null", "-w", "%{http_code}"], args].concat())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        for side in ["m", "r", "s"] {
            Command::new("ip").args(["netns", "del", &format!("{}{side}", self.name)]).status().ok();
        }
    }
}

fn sh(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A repository with one package, and a large file beside it.
fn repository(root: &Path) -> Vec<u8> {
    let package = root.join("hostler-hello");
    fs::create_dir_all(package.join("DEBIAN")).unwrap();
    let control = "Package: hostler-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\nDescription: says hello\n";
    fs::write(package.join("DEBIAN/control"), control).unwrap();
    fs::write(package.join("greeting"), "hello\n").unwrap();
    let repo = root.join("www/debian");
    fs::create_dir_all(repo.join("pool/main")).unwrap();
    fs::create_dir_all(repo.join("dists/lab/main/binary-all")).unwrap();
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(&repo).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run("dpkg-deb", &["--root-owner-group", "-b", package.to_str().unwrap(), "pool/main/hostler-hello_1.0_all.deb"]);
    fs::write(repo.join("dists/lab/main/binary-all/Packages"), run("apt-ftparchive", &["packages", "pool"])).unwrap();
    let field = |field: &str| format!("APT::FTPArchive::Release::{field}");
    let (suite, parts, arches) = (field("Suite=lab"), field("Components=main"), field("Architectures=all amd64"));
    let release = run("apt-ftparchive", &["-o", &suite, "-o", &parts, "-o", &arches, "release", "dists/lab"]);
    fs::write(repo.join("dists/lab/Release"), release).unwrap();
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(repo.join("pool/large.deb"), &large).unwrap();
    large
}

#[test]
fn peers_curl_and_apt_get_packages_through_the_proxy() {
    let mut net = Net::new();
    let body = repository(net.dir.path());
    let mut server = net.command('s', "python3");
    server.args(["-m", "http.server", "80", "--bind", SERVER, "--directory"]).arg(net.path("www"));
    net.start(&mut server);
    fs::write(
        net.path("plan.toml"),
        "[listen]\nproxy = \"0.0.0.0:8000\"\n[[subnets]]\nid = 1\ncidr = \"10.79.2.0/24\"\n",
    )
    .unwrap();
    let mut rack = net.command('r', env!("CARGO_BIN_EXE_hostler"));
    rack.args(["rack", "--only", "proxy", "--plan"]).arg(net.path("plan.toml")).arg("--state").arg(net.path("state"));
    net.start(&mut rack);
    let large = format!("http://{SERVER}/debian/pool/large.deb");
    net.wait_for("a first answer", || net.try_curl(&["-f", "-o", "/dev/null", &large]).status.success());

    // curl: hits over both versions of HTTP, and a download that is resumed.
    for version in ["--http1.1", "--http1.0"] {
        let head = net.curl(&[version, "-D", "-", "-o", "out", &large]);
        assert!(head.contains("cache-status: hostler; hit"), "{head}");
        assert!(fs::read(net.path("out")).unwrap() == body, "{version}");
    }
    fs::write(net.path("out"), &body[..7_000_000]).unwrap();
    net.curl(&["-C", "-", "-o", "out", &large]);
    assert!(fs::read(net.path("out")).unwrap() == body, "curl resumes");
    // What is refused: a method, the rack itself, metadata, a tunnel, a client of no subnet.
    assert_eq!(net.status(&["-d", "x", &large]), "405");
    for house in ["http://10.79.2.1/", "http://10.79.1.1:8080/", "http://127.0.0.1/", "http://169.254.169.254/latest/"]
    {
        assert_eq!(net.status(&[house]), "403", "{house}");
    }
    assert!(!net.try_curl(&[&format!("https://{SERVER}/")]).status.success());
    let stranger = net
        .command('s', "curl")
        .args(["-s", "-w", "%{http_code}", "-o", "out", "-x", "http://10.79.1.1:8000", &large])
        .output();
    assert_eq!(stranger.unwrap().stdout, b"403");

    // apt: indexes and a package, twice; the package comes from its server once.
    let deb = "hostler-hello_1.0_all.deb";
    for turn in ["first", "second"] {
        apt(&net, turn);
        let log = net.log();
        assert!(log.contains("GET /debian/dists/lab/Release"), "{log}");
        assert_eq!(log.matches(deb).count(), 1, "{turn}: {log}");
    }
    // What is here stands in for a server that has gone; what is not, fails.
    let mut server = net.children.remove(0);
    server.kill().unwrap();
    server.wait().unwrap();
    let repository = format!("http://{SERVER}/debian");
    for path in ["dists/lab/Release", "dists/lab/main/binary-all/Packages", &format!("pool/main/{deb}")] {
        assert_eq!(net.status(&[&format!("{repository}/{path}")]), "200", "{path}: {}", net.log());
    }
    assert_eq!(net.status(&[&format!("{repository}/dists/lab/InRelease")]), "502");
}

/// `apt-get update` and the package fetched, by an apt with directories of its own.
fn apt(net: &Net, name: &str) {
    let root = net.path(name);
    for dir in [
        "lists/partial",
        "archives/partial",
        "etc/sources.list.d",
        "etc/preferences.d",
        "etc/apt.conf.d",
        "etc/trusted.gpg.d",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::write(root.join("status"), "").unwrap();
    fs::write(root.join("etc/sources.list"), format!("deb [trusted=yes] http://{SERVER}/debian lab main\n")).unwrap();
    let root = root.to_str().unwrap();
    let options = [
        format!("Acquire::http::Proxy={PROXY}/"),
        format!("Dir::Etc={root}/etc"),
        format!("Dir::State={root}"),
        format!("Dir::State::status={root}/status"),
        format!("Dir::Cache={root}"),
        "APT::Sandbox::User=root".into(),
        "Acquire::Languages=none".into(),
    ];
    let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
    for action in [&["update"][..], &["-y", "--download-only", "install", "hostler-hello"]] {
        let output = net.command('m', "apt-get").args(&options).args(action).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && !said.contains("Err:"), "{name} {action:?}: {said}\n{}", net.log());
    }
    let mut fetched = fs::read_dir(format!("{root}/archives")).unwrap().flatten();
    assert!(
        fetched.any(|file| file.file_name().to_string_lossy().ends_with(".deb")),
        "{name}: the package was fetched"
    );
}
