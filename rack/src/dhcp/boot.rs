//! How a client boots, from what it says of itself (RFC 4578, RFC 3004, iPXE's option 175), and what it is told to fetch. Pure.

use std::net::Ipv4Addr;

use schema::boot::BootMethod;

/// The encapsulated features of option 175 that matter: HTTP, bzImage, EFI.
const IPXE_HTTP: u8 = 19;
const IPXE_BZIMAGE: u8 = 24;
const IPXE_EFI: u8 = 36;

/// What a client says of how it boots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Option 93: one value or a list (RFC 4578 section 2.1), in the client's order of preference.
    archs: Vec<u16>,
    class: Class,
    /// Option 77 says `iPXE`, raw or in RFC 3004's form.
    ipxe_user_class: bool,
    /// Option 175 says that it fetches by HTTP and boots a kernel or an EFI image.
    ipxe_features: bool,
    /// Option 97 (RFC 4578): the board's UUID.
    uuid: Option<[u8; 16]>,
}

/// Option 60 by its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Class {
    #[default]
    Other,
    PxeClient,
    HttpClient,
    /// klibc's ipconfig in an initramfs.
    Initramfs,
}

impl Client {
    /// Option 60.
    pub(super) fn see_vendor_class(&mut self, data: &[u8]) {
        self.class = match data {
            [b'P', b'X', b'E', ..] => Class::PxeClient,
            _ if data.starts_with(b"HTTPClient") => Class::HttpClient,
            _ if data.starts_with(b"Linux ipconfig") => Class::Initramfs,
            _ => Class::Other,
        };
    }

    /// Option 77: iPXE sends the bare word; RFC 3004 puts a length before each class.
    pub(super) fn see_user_class(&mut self, data: &[u8]) {
        let mut rest = data;
        let mut listed = false;
        while let [len, tail @ ..] = rest {
            let Some((class, next)) = tail.split_at_checked(usize::from(*len)) else { break };
            listed |= class == b"iPXE";
            rest = next;
        }
        self.ipxe_user_class = data == b"iPXE" || listed;
    }

    /// Option 97: type 0 and sixteen bytes. A board without a UUID says the same as many others.
    pub(super) fn see_uuid(&mut self, data: &[u8]) {
        if let [0, uuid @ ..] = data {
            self.uuid = <[u8; 16]>::try_from(uuid).ok().filter(|uuid| *uuid != [0; 16] && *uuid != [255; 16]);
        }
    }

    /// Option 93. A length that is odd or zero says nothing.
    pub(super) fn see_archs(&mut self, data: &[u8]) {
        if data.len().is_multiple_of(2) {
            self.archs = data.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
        }
    }

    /// Option 175.
    pub(super) fn see_ipxe(&mut self, data: &[u8]) {
        let (mut http, mut boots) = (false, false);
        let mut rest = data;
        while let [code, len, tail @ ..] = rest {
            let Some((value, next)) = tail.split_at_checked(usize::from(*len)) else { break };
            let on = value.iter().any(|b| *b != 0);
            http |= *code == IPXE_HTTP && on;
            boots |= matches!(*code, IPXE_BZIMAGE | IPXE_EFI) && on;
            rest = next;
        }
        self.ipxe_features = http && boots;
    }

    /// Whether this is firmware (or a loader in its place) that boots: it gets the short lease.
    #[must_use]
    pub fn is_firmware(&self) -> bool {
        matches!(self.class, Class::PxeClient | Class::HttpClient)
    }

    /// Whether it asks in order to boot: firmware, or a kernel that wants its system.
    #[must_use]
    pub fn boots(&self) -> bool {
        self.class != Class::Other
    }

    /// The board's UUID as its own firmware says it. (iPXE may say it the other way round.)
    #[must_use]
    pub fn firmware_uuid(&self) -> Option<[u8; 16]> {
        self.uuid.filter(|_| self.is_firmware() && !self.ipxe_user_class && !self.ipxe_features)
    }

    /// How it boots; `None` for an operating system, and for an architecture that has no loader here.
    #[must_use]
    pub fn method(&self) -> Option<BootMethod> {
        if self.ipxe_user_class || self.ipxe_features {
            return Some(BootMethod::Ipxe);
        }
        if self.archs.is_empty() {
            return (self.class == Class::PxeClient).then_some(BootMethod::Pxe);
        }
        self.archs.iter().find_map(|arch| match arch {
            0 => Some(BootMethod::Pxe),
            7 | 9 => Some(BootMethod::UefiAmd64Tftp),
            16 => Some(BootMethod::UefiAmd64Http),
            11 => Some(BootMethod::UefiArm64Tftp),
            19 => Some(BootMethod::UefiArm64Http),
            _ => None,
        })
    }
}

/// Where this rack's boot servers are, as machines on one subnet reach them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    pub address: Ipv4Addr,
    /// The port of the machine-facing HTTP.
    pub http_port: u16,
}

/// What a client is told about booting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootAnswer {
    pub next_server: Ipv4Addr,
    /// Option 67, and the header's `file` where it fits.
    pub file: String,
    /// Option 210.
    pub path_prefix: Option<String>,
    /// Option 60, which UEFI HTTP boot insists on.
    pub vendor_class: Option<&'static str>,
}

/// The loader for that way of booting.
#[must_use]
pub fn loader(method: BootMethod, server: Server) -> BootAnswer {
    let url = |path: &str| format!("http://{}:{}/{path}", server.address, server.http_port);
    let plain = |file: String| BootAnswer { next_server: server.address, file, path_prefix: None, vendor_class: None };
    let http = |file: &str| BootAnswer { vendor_class: Some("HTTPClient"), ..plain(url(file)) };
    match method {
        BootMethod::Ipxe => plain(url("ipxe.cfg")),
        BootMethod::Pxe => BootAnswer { path_prefix: Some(url("")), ..plain("lpxelinux.0".into()) },
        BootMethod::UefiAmd64Tftp => plain("bootx64.efi".into()),
        BootMethod::UefiArm64Tftp => plain("bootaa64.efi".into()),
        // Debian's signed GRUB knows no HTTP: behind shim it would stand at its prompt. Under Secure Boot firmware refuses iPXE and goes on to
        // its next way of booting, which by TFTP is shim.
        BootMethod::UefiAmd64Http => http("snponly.efi"),
        BootMethod::UefiArm64Http => http("bootaa64.efi"),
    }
}
