//! Builds an ephemeral image with the distribution's own tools. The work is a script (`build.sh`); here are its arguments,
//! the check that its tools are here, and the image's description beside its files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The script and what it puts into the image, carried in the binary.
const SCRIPT: &str = include_str!("build.sh");
const GLUE: [(&str, &str, bool); 8] = [
    ("initramfs-tools/conf.d/hostler", include_str!("glue/initramfs-tools/conf.d/hostler"), false),
    ("initramfs-tools/modules", include_str!("glue/initramfs-tools/modules"), false),
    ("initramfs-tools/hooks/rooturl", include_str!("glue/initramfs-tools/hooks/rooturl"), true),
    ("initramfs-tools/scripts/init-top/rooturl", include_str!("glue/initramfs-tools/scripts/init-top/rooturl"), true),
    (
        "initramfs-tools/scripts/init-bottom/rooturl-names",
        include_str!("glue/initramfs-tools/scripts/init-bottom/rooturl-names"),
        true,
    ),
    ("etc/cloud/cloud.cfg.d/90_hostler.cfg", include_str!("glue/etc/cloud/cloud.cfg.d/90_hostler.cfg"), false),
    ("etc/lldpd.d/hostler.conf", include_str!("glue/etc/lldpd.d/hostler.conf"), false),
    ("etc/network/interfaces", include_str!("glue/etc/network/interfaces"), false),
];

/// Kernel parameters of a Debian image. Its initramfs takes `ip=dhcp` and finds the interface by BOOTIF;
/// the rest is what MAAS's images are told (maas-compatible names, values of our own).
const DEBIAN_PARAMS: &str = "nomodeset ro root=squash:{squashfs_url} ip=dhcp ip6=off overlayroot=tmpfs \
    overlayroot_cfgdisk=disabled cc:{'datasource_list':['MAAS']}end_cc cloud-config-url={preseed_url} apparmor=0 \
    log_host={log_host} log_port={log_port}";

/// What to build.
#[derive(Debug, Clone)]
pub(crate) struct BuildOptions {
    /// Debian's code name: `bookworm`.
    pub(crate) release: String,
    /// Debian's word: `amd64`, `arm64`.
    pub(crate) arch: String,
    /// `generic` knows real hardware, `cloud` only virtual machines.
    pub(crate) kernel: String,
    /// Drivers' firmware from the non-free components.
    pub(crate) firmware: bool,
    /// More packages of the distribution, by name.
    pub(crate) include: Vec<String>,
    /// Where packages come from; empty: the mirrors that this machine's apt uses.
    pub(crate) mirror: String,
    /// The directory for the image's files.
    pub(crate) out: PathBuf,
}

/// Why no image came of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("{field} \"{value}\" is not {admitted}")]
    Option { field: &'static str, value: String, admitted: &'static str },
    #[error("image build needs {0}; install it with: apt-get install {1}")]
    Tool(&'static str, &'static str),
    #[error("image build makes a root file system and needs root; run it with sudo")]
    NotRoot,
    #[error("cannot write to {path}: {source}; choose another directory with --out")]
    Write { path: PathBuf, source: io::Error },
    #[error("the build ended with {0}; its last lines above say why")]
    Failed(std::process::ExitStatus),
}

/// Builds the image into `options.out` and describes it in `image.json` there, as `image add` reads it.
///
/// # Errors
/// When an option is not admitted, a tool or the right is missing, or the build itself fails.
pub(crate) fn build(options: &BuildOptions) -> Result<PathBuf, BuildError> {
    check(options)?;
    let out = absolute(&options.out)?;
    let glue = tempfile::tempdir_in(&out).map_err(|source| BuildError::Write { path: out.clone(), source })?;
    let script = unpack(glue.path()).map_err(|source| BuildError::Write { path: out.clone(), source })?;
    let mirror = if options.mirror.is_empty() { apt_mirror() } else { options.mirror.clone() };
    let status = Command::new("bash")
        .arg(script)
        .arg(&out)
        .args([&options.release, &options.arch, &options.kernel])
        .arg(if options.firmware { "1" } else { "0" })
        .arg(glue.path())
        .arg(mirror)
        .args(&options.include)
        .stdin(Stdio::null())
        .stdout(Stdio::from(io::stderr()))
        .status()
        .map_err(|source| BuildError::Write { path: out.clone(), source })?;
    if !status.success() {
        return Err(BuildError::Failed(status));
    }
    describe(options, &out).map_err(|source| BuildError::Write { path: out.clone(), source })?;
    Ok(out)
}

fn check(options: &BuildOptions) -> Result<(), BuildError> {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let wrong = |field, value: &str, admitted| Err(BuildError::Option { field, value: value.to_owned(), admitted });
    if !word(&options.release) {
        return wrong("--release", &options.release, "a Debian code name such as bookworm");
    }
    if !["amd64", "arm64"].contains(&options.arch.as_str()) {
        return wrong("--arch", &options.arch, "one of amd64, arm64");
    }
    if !["generic", "cloud"].contains(&options.kernel.as_str()) {
        return wrong("--kernel", &options.kernel, "one of generic, cloud");
    }
    // Debian policy 5.6.1: two characters or more, the first a letter or digit.
    let package = |name: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
        name.len() > 1 && name.bytes().all(plain) && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
    };
    if let Some(odd) = options.include.iter().find(|name| !package(name)) {
        return wrong("--include", odd, "the name of a package, as in tcpdump");
    }
    for (tool, package) in [("mmdebstrap", "mmdebstrap"), ("mksquashfs", "squashfs-tools"), ("zstd", "zstd")] {
        if !on_path(tool) {
            return Err(BuildError::Tool(tool, package));
        }
    }
    let root = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if root { Ok(()) } else { Err(BuildError::NotRoot) }
}

/// Whether a program stands on PATH or among the system's own.
pub(crate) fn on_path(tool: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(tool).is_file())
}

fn absolute(out: &Path) -> Result<PathBuf, BuildError> {
    fs::create_dir_all(out)
        .and_then(|()| fs::canonicalize(out))
        .map_err(|source| BuildError::Write { path: out.to_owned(), source })
}

fn unpack(dir: &Path) -> io::Result<PathBuf> {
    for (name, text, executable) in GLUE {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, text)?;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    let script = dir.join("build.sh");
    fs::write(&script, SCRIPT)?;
    Ok(script)
}

/// The mirror that this machine's apt uses; empty where apt does not say, then mmdebstrap's default holds.
fn apt_mirror() -> String {
    let listed = Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]).output();
    let text = listed.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().find(|l| !l.contains("security")).unwrap_or_default().to_owned()
}

/// Writes `image.json`: the name, the architecture, the kernel parameters, and which file is what.
fn describe(options: &BuildOptions, out: &Path) -> io::Result<()> {
    let description = serde_json::json!({
        "name": format!("debian/{}/{}/{}", options.release, options.arch, options.kernel),
        "arch": options.arch,
        "kernel": "boot-kernel",
        "initrd": "boot-initrd",
        "squashfs": "squashfs",
        "kernel_params": DEBIAN_PARAMS,
    });
    fs::write(out.join("image.json"), format!("{description:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_outside_the_admitted_are_named_with_their_bound() {
        let good = BuildOptions {
            release: "bookworm".into(),
            arch: "amd64".into(),
            kernel: "generic".into(),
            firmware: false,
            include: vec!["tcpdump".into()],
            mirror: String::new(),
            out: "x".into(),
        };
        let bad = |change: fn(&mut BuildOptions)| {
            let mut options = good.clone();
            change(&mut options);
            check(&options).unwrap_err().to_string()
        };
        assert!(bad(|o| o.release = "../etc".into()).contains("--release \"../etc\""));
        assert!(bad(|o| o.arch = "i386".into()).contains("amd64, arm64"));
        assert!(bad(|o| o.include.push("a; rm".into())).contains("--include \"a; rm\""));
        assert!(bad(|o| o.kernel = "rt".into()).contains("generic, cloud"));
    }
}
