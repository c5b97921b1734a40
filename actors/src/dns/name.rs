//! Names as they stand in packets: labels behind their lengths, a zero at the end. In lower case, so that equal names are equal bytes.

use std::net::Ipv4Addr;

use schema::dns::DnsName;

/// Bytes of a name at most (RFC 1035 section 3.1).
pub const NAME_MAX: usize = 255;

/// The name's bytes.
#[must_use]
pub fn wire(name: &DnsName) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.as_str().len() + 2);
    for label in name.labels() {
        bytes.push(u8::try_from(label.len()).unwrap_or(0)); // 63 at most, by `DnsName`.
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The text of a name's bytes; `None` when it has characters that no [`DnsName`] has.
#[must_use]
pub fn text(wire: &[u8]) -> Option<DnsName> {
    let labels: Option<Vec<_>> = labels(wire).map(|label| std::str::from_utf8(label).ok()).collect();
    let text = labels?.join(".");
    if text.is_empty() { ".".parse().ok() } else { text.parse().ok() }
}

/// The labels, the host's first.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (len, tail) = rest.split_first().filter(|(len, _)| **len > 0)?;
        let (label, tail) = tail.split_at_checked(usize::from(*len))?;
        rest = tail;
        Some(label)
    })
}

/// The name without its first label; `None` for the root.
#[must_use]
pub fn parent(wire: &[u8]) -> Option<&[u8]> {
    let len = usize::from(*wire.first()?);
    if len == 0 { None } else { wire.get(len + 1..) }
}

/// The address in a label like `10-77-0-100`, in its one canonical form.
#[must_use]
pub fn dashed(label: &[u8]) -> Option<Ipv4Addr> {
    let text = std::str::from_utf8(label).ok()?;
    let address: Ipv4Addr = text.replace('-', ".").parse().ok()?;
    (dashes(address) == text).then_some(address)
}

/// `10-77-0-100`.
#[must_use]
pub fn dashes(address: Ipv4Addr) -> String {
    address.to_string().replace('.', "-")
}

/// The address that `100.0.77.10.in-addr.arpa` stands for.
#[must_use]
pub fn reversed(wire: &[u8]) -> Option<Ipv4Addr> {
    let name = text(wire)?;
    let head = name.as_str().strip_suffix(".in-addr.arpa")?;
    let backwards: Ipv4Addr = head.parse().ok()?;
    let [d, c, b, a] = backwards.octets();
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_to_bytes_and_back() {
        let name: DnsName = "fox.maas".parse().unwrap();
        let bytes = wire(&name);
        assert_eq!(bytes, b"\x03fox\x04maas\0");
        assert_eq!(text(&bytes), Some(name));
        assert_eq!(parent(&bytes), Some(&b"\x04maas\0"[..]));
        assert_eq!((text(&[0]), parent(&[0])), (Some(".".parse().unwrap()), None));
        assert_eq!(text(b"\x03a.b\0").map(|n| n.to_string()), Some("a.b".into()), "a dot inside a label is lost");
    }

    #[test]
    fn addresses_are_read_out_of_names() {
        assert_eq!(dashed(b"10-77-0-100"), Some(Ipv4Addr::new(10, 77, 0, 100)));
        assert_eq!((dashed(b"10-77-0"), dashed(b"10.77-0-1"), dashed(b"010-77-0-1")), (None, None, None));
        let name = wire(&DnsName::reverse("10.77.0.100".parse().unwrap()));
        assert_eq!(reversed(&name), Some(Ipv4Addr::new(10, 77, 0, 100)));
        assert_eq!(reversed(b"\x0410.1\x04maas\0"), None);
    }
}
