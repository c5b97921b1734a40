//! The names that loaders ask for, and what each means. Knows no machine.

use schema::{boot::Sha256, net::MacAddr};

/// Who reads a boot config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    Ipxe,
    Pxelinux,
    Grub,
}

/// What a name asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// A boot config; `mac` where the name holds one.
    Config { loader: Loader, mac: Option<MacAddr> },
    /// `images/<sha256>/<file>`.
    Image { sha256: Sha256, file: &'a str },
    /// A boot file of the plan. `habit`: loaders ask for it wherever they are, and nobody misses it.
    File { habit: bool },
}

impl Name<'_> {
    /// The MAC that the name holds.
    #[must_use]
    pub fn mac(&self) -> Option<MacAddr> {
        match self {
            Self::Config { mac, .. } => *mac,
            _ => None,
        }
    }
}

/// The name without leading slashes, with `/` for `\` and for `//`; at most 512 characters.
#[must_use]
pub fn plain(name: &str) -> String {
    let parts = name.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".");
    parts.collect::<Vec<_>>().join("/").chars().take(512).collect()
}

/// What a plain name asks for. A name of no pattern is a boot file's.
#[must_use]
pub fn parse(name: &str) -> Name<'_> {
    let config = |loader, mac| Name::Config { loader, mac };
    if let Some(image) = name.strip_prefix("images/").and_then(image) {
        return image;
    }
    if let Some(rest) = name.strip_prefix("ipxe.cfg") {
        return match suffix(rest) {
            Some(mac) => config(Loader::Ipxe, mac),
            None => Name::File { habit: false },
        };
    }
    if let Some(rest) = name.strip_prefix("grub/grub.cfg") {
        return match suffix(rest) {
            Some(mac) => config(Loader::Grub, mac),
            None => Name::File { habit: true },
        };
    }
    if let Some(rest) = name.strip_prefix("pxelinux.cfg/") {
        // 01 is Ethernet's ARP type. UUIDs, hexadecimal addresses and other types are tried on the way to `default`.
        return match rest.strip_prefix("01-").and_then(|mac| mac.parse().ok()) {
            Some(mac) => config(Loader::Pxelinux, Some(mac)),
            None if rest.starts_with("default") => config(Loader::Pxelinux, None),
            None => Name::File { habit: true },
        };
    }
    Name::File { habit: is_habit(name) }
}

/// What stands behind `ipxe.cfg` and `grub/grub.cfg`: nothing, `-<mac>` or `-default-<arch>`. `None`: something else.
fn suffix(rest: &str) -> Option<Option<MacAddr>> {
    if rest.is_empty() || rest.starts_with("-default") {
        return Some(None);
    }
    rest.strip_prefix('-')?.parse().ok().map(Some)
}

fn image(rest: &str) -> Option<Name<'_>> {
    let (sha256, file) = rest.split_once('/')?;
    Some(Name::Image { sha256: sha256.parse().ok()?, file })
}

/// GRUB's module lists, shim's revocations and certificates: a quick "not found" is the usual answer.
fn is_habit(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.ends_with(".lst")
        || file.ends_with(".mod")
        || file.starts_with("revocations_") && file.ends_with(".efi")
        || file.starts_with("shim_certificate") && file.ends_with(".efi")
}

/// Whether a boot file of that name is a loader that firmware or a loader runs.
#[must_use]
pub fn is_loader(name: &str) -> bool {
    [".efi", ".0", ".kpxe", ".pxe", ".kkpxe", ".c32", ".signed"].iter().any(|end| name.ends_with(end))
}
