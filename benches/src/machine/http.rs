//! The machine's HTTP requests as bytes, each in the manner of the program that sends it.

use std::net::{Ipv4Addr, SocketAddrV4};

/// A request, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where it goes; the address is unspecified where a name stands for it.
    pub to: SocketAddrV4,
    /// The host by name, as its program must look it up.
    pub name: Option<String>,
    /// Head and body.
    pub bytes: Vec<u8>,
    /// Whether the program uses this connection for its next request too.
    pub keep: bool,
    /// HEAD: the answer has no body, whatever its length says.
    pub head: bool,
}

/// The program that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agent {
    UefiHead,
    Uefi,
    Ipxe,
    Pxelinux,
    /// busybox.
    Wget,
    /// cloud-init before it has a key.
    CloudInit,
    /// cloud-init's look whether its datasource is there.
    CloudInitSigned,
    /// cloud-init's crawl.
    Requests,
    /// The runner's urllib.
    Runner,
}

impl Agent {
    /// Whether it signs with the node's key.
    pub(super) fn signs(self) -> bool {
        matches!(self, Self::CloudInitSigned | Self::Requests | Self::Runner)
    }

    fn name(self) -> &'static str {
        match self {
            Self::UefiHead | Self::Uefi => "UefiHttpBoot/1.0",
            Self::Ipxe => "iPXE/1.0.0+git-20190125.36a4c85-5.1",
            Self::Pxelinux => "Syslinux/6.04",
            Self::Wget => "Wget",
            Self::CloudInit | Self::CloudInitSigned => "Cloud-Init/22.4.2",
            Self::Requests => "python-requests/2.28.1",
            Self::Runner => "Python-urllib/3.11",
        }
    }

    /// A request's head, each program's fields in its own order.
    fn head(self, line: &str, host: &str, more: &More<'_>) -> String {
        let field = |name: &str, value: Option<&str>| value.map(|v| format!("{name}: {v}\r\n")).unwrap_or_default();
        let length = more.length.map(|length| length.to_string());
        let (authorization, length) =
            (field("Authorization", more.authorization), field("Content-Length", length.as_deref()));
        // OVMF names no port, whatever the URL says.
        let bare = field("Host", host.split(':').next());
        let (host, name) = (field("Host", Some(host)), field("User-Agent", Some(self.name())));
        match self {
            Self::UefiHead | Self::Uefi => format!("{line}{bare}Accept: */*\r\n{name}\r\n"),
            Self::Pxelinux => format!("{line}{host}{name}Connection: keep-alive\r\n\r\n"),
            Self::Ipxe => format!("{line}Connection: keep-alive\r\n{name}{host}\r\n"),
            Self::Wget => format!("{line}{host}{name}Connection: close\r\n\r\n"),
            Self::CloudInit | Self::CloudInitSigned | Self::Requests => format!(
                "{line}{host}{name}Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n{authorization}{length}\r\n"
            ),
            Self::Runner => {
                let kind = field("Content-Type", more.content_type);
                format!(
                    "{line}Accept-Encoding: identity\r\n{length}{host}{name}{authorization}{kind}Connection: close\r\n\r\n"
                )
            }
        }
    }

    /// A nonce from 64 random bits: oauthlib's is a number and the time, the runner's 32 hexadecimal digits.
    pub(super) fn nonce(self, bits: u64, now: i64) -> String {
        match self {
            Self::Runner => format!("{bits:016x}{:016x}", bits.wrapping_mul(0xd134_2543_de82_ef95)),
            _ => format!("{bits}{now}"),
        }
    }

    /// Firmware and loaders keep their connection; Python's programs open one for each request.
    fn keeps(self) -> bool {
        matches!(self, Self::UefiHead | Self::Ipxe | Self::Pxelinux)
    }
}

/// Fields that not every request has.
#[derive(Default)]
struct More<'a> {
    authorization: Option<&'a str>,
    content_type: Option<&'a str>,
    length: Option<usize>,
}

/// `http://HOST[:PORT]/PATH`, taken apart.
struct Place<'a> {
    to: SocketAddrV4,
    name: Option<String>,
    host: &'a str,
    path: &'a str,
}

fn split(url: &str) -> Option<Place<'_>> {
    let rest = url.strip_prefix("http://")?;
    let at = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    let path = if path.is_empty() { "/" } else { path };
    let address = host.parse().ok().or_else(|| Some(SocketAddrV4::new(host.parse().ok()?, 80)));
    if let Some(to) = address {
        return Some(Place { to, name: None, host, path });
    }
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let to = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port.parse().ok()?);
    (!name.is_empty()).then(|| Place { to, name: Some(name.to_owned()), host, path })
}

/// A GET (or UEFI's HEAD).
pub(super) fn get(url: &str, agent: Agent, authorization: Option<String>) -> Option<Request> {
    let Place { to, name, host, path } = split(url)?;
    let head = agent == Agent::UefiHead;
    let method = if head { "HEAD" } else { "GET" };
    let more = More { authorization: authorization.as_deref(), ..More::default() };
    let bytes = agent.head(&format!("{method} {path} HTTP/1.1\r\n"), host, &more).into_bytes();
    Some(Request { to, name, bytes, keep: agent.keeps(), head })
}

/// A signed POST.
pub(super) fn post(
    url: &str,
    agent: Agent,
    authorization: &str,
    content_type: Option<&str>,
    body: &[u8],
) -> Option<Request> {
    let Place { to, name, host, path } = split(url)?;
    let more = More { authorization: Some(authorization), content_type, length: Some(body.len()) };
    let mut bytes = agent.head(&format!("POST {path} HTTP/1.1\r\n"), host, &more).into_bytes();
    bytes.extend_from_slice(body);
    Some(Request { to, name, bytes, keep: false, head: false })
}
