//! Brings the boot loaders out of the distribution's packages: each file under the name that firmware asks for.
//! Uploading them is the command's business.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// (package, file in it, name that firmware or a loader asks for).
const LOADERS: [(&str, &str, &str); 12] = [
    ("pxelinux", "usr/lib/PXELINUX/lpxelinux.0", "lpxelinux.0"),
    ("pxelinux", "usr/lib/PXELINUX/pxelinux.0", "pxelinux.0"),
    ("syslinux-common", "usr/lib/syslinux/modules/bios/ldlinux.c32", "ldlinux.c32"),
    ("syslinux-common", "usr/lib/syslinux/modules/bios/chain.c32", "chain.c32"),
    ("syslinux-common", "usr/lib/syslinux/modules/bios/libcom32.c32", "libcom32.c32"),
    ("syslinux-common", "usr/lib/syslinux/modules/bios/libutil.c32", "libutil.c32"),
    ("syslinux-common", "usr/lib/syslinux/modules/bios/poweroff.c32", "poweroff.c32"),
    ("ipxe", "usr/lib/ipxe/undionly.kpxe", "undionly.kpxe"),
    ("ipxe", "usr/lib/ipxe/snponly.efi", "snponly.efi"),
    ("ipxe", "usr/lib/ipxe/ipxe.efi", "ipxe.efi"),
    ("shim-signed", "usr/lib/shim/shimx64.efi.signed", "bootx64.efi"),
    ("grub-efi-amd64-signed", "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", "grubx64.efi"),
];

/// Why the loaders could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadersError {
    #[error("image loaders needs {0}, Debian's own tool; run it on a Debian or Ubuntu machine")]
    Tool(&'static str),
    #[error("package {package} could not be fetched: {why}; does `apt-get update` work here?")]
    Fetch { package: &'static str, why: String },
    #[error("package {package} holds no {file}; this distribution names it otherwise")]
    Absent { package: &'static str, file: &'static str },
    #[error("cannot use {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// The loaders as (name, file) under `dir`, in the order of the table.
///
/// # Errors
/// When Debian's tools are not here, a package cannot be fetched, or does not hold its file.
pub(crate) fn collect(dir: &Path) -> Result<Vec<(String, PathBuf)>, LoadersError> {
    for tool in ["apt-get", "dpkg-deb"] {
        if !super::build::on_path(tool) {
            return Err(LoadersError::Tool(tool));
        }
    }
    let mut found = Vec::new();
    for (package, file, name) in LOADERS {
        let installed = Path::new("/").join(file);
        let path = if installed.is_file() { installed } else { unpacked(dir, package)?.join(file) };
        if !path.is_file() {
            return Err(LoadersError::Absent { package, file });
        }
        found.push((name.to_owned(), path));
    }
    Ok(found)
}

/// The unpacked package under `dir`, fetched at its first use.
fn unpacked(dir: &Path, package: &'static str) -> Result<PathBuf, LoadersError> {
    let target = dir.join(package);
    if target.is_dir() {
        return Ok(target);
    }
    let failed = |why: String| LoadersError::Fetch { package, why };
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadersError::Io { path, source }
    };
    let fetch = dir.join(format!("{package}.fetch"));
    fs::create_dir_all(&fetch).map_err(io(&fetch))?;
    let run = |command: &mut Command| {
        let output = command.stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(failed(text.lines().last().unwrap_or_default().to_owned())) }
    };
    run(Command::new("apt-get").args(["download", "-q", package]).current_dir(&fetch))?;
    let entry =
        fs::read_dir(&fetch).map_err(io(&fetch))?.flatten().find(|e| e.path().extension().is_some_and(|x| x == "deb"));
    let deb = entry.ok_or_else(|| failed("apt-get left no file".into()))?.path();
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&target))?;
    Ok(target)
}
