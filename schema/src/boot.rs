//! Booting: client architectures, boot methods, content-addressed bodies, images and their kernel parameters.

use std::{fmt, str::FromStr};

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A body's SHA-256: its name everywhere (store, plan, link, `/images/<sha256>/<name>`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("\"{text}\" is not a SHA-256; give 64 hexadecimal digits");
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (i, byte) in hash.iter_mut().enumerate() {
            let pair = text.get(2 * i..2 * i + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A body by name: what it is and how long. The bytes are fetched once per rack and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct BodyRef {
    pub sha256: Sha256,
    /// Length in bytes.
    pub len: u64,
}

/// How a client boots, from DHCP option 93 (RFC 4578 section 2.1 and IANA's registry), option 60 and option 77.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootMethod {
    /// BIOS PXE (0): `lpxelinux.0` by TFTP.
    Pxe,
    /// iPXE of any architecture (user class `iPXE` or option 175): a script by HTTP.
    Ipxe,
    /// x64 UEFI PXE (7, 9): `bootx64.efi` by TFTP.
    UefiAmd64Tftp,
    /// x64 UEFI HTTP boot (16): iPXE as `snponly.efi` by HTTP, option 60 `HTTPClient`.
    UefiAmd64Http,
    /// ARM64 UEFI PXE (11).
    UefiArm64Tftp,
    /// ARM64 UEFI HTTP boot (19).
    UefiArm64Http,
}

impl BootMethod {
    /// MAAS's word for `bios_boot_method`.
    #[must_use]
    pub fn bios_boot_method(self) -> &'static str {
        match self {
            Self::Pxe | Self::Ipxe => "pxe",
            _ => "uefi",
        }
    }
}

/// An ephemeral image: a kernel, an initrd, a squashfs (none for an image that lives in its initrd).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Image {
    /// `OS/RELEASE/ARCH/FLAVOUR`, as in `debian/bookworm/amd64/generic`; its name in commands.
    pub name: String,
    /// Debian's word for the architecture: `amd64`.
    pub arch: String,
    pub kernel: BodyRef,
    pub initrd: BodyRef,
    pub squashfs: Option<BodyRef>,
    /// Kernel parameters with placeholders: `{squashfs_url} {hostname} {preseed_url} {log_host} {log_port}`.
    /// They belong to the image, since initramfs implementations differ.
    pub kernel_params: String,
}

/// A boot loader's file: the name that firmware asks for, and its body.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct BootFile {
    /// As asked for, without a leading slash: `bootx64.efi`, `grub/grub.cfg`.
    pub name: String,
    pub body: BodyRef,
}
