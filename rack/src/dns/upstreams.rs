//! Whom to ask for names that are not ours: what was set, the plan's servers, or the host's own; never ourselves.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// Where the host keeps its servers.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// glibc takes three; more help nobody within a client's patience.
const MOST: usize = 4;

/// The servers in the order they are asked. `served`: where we listen ourselves.
pub(super) fn choose(
    set: &[SocketAddr],
    planned: &[IpAddr],
    resolv_conf: &Path,
    served: &[SocketAddr],
) -> Vec<SocketAddr> {
    let at_port = |ip: &IpAddr| SocketAddr::new(*ip, PORT);
    let mut servers: Vec<SocketAddr> = match (set, planned) {
        ([], []) => read(&fs::read_to_string(resolv_conf).unwrap_or_default()).iter().map(at_port).collect(),
        ([], planned) => planned.iter().map(at_port).collect(),
        (set, _) => set.to_vec(),
    };
    servers.retain(|server| !served.contains(server));
    servers.truncate(MOST);
    servers
}

/// The `nameserver` lines of resolv.conf(5).
fn read(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let named = words.next() == Some("nameserver");
        // A link-local address names its interface; ours are asked without one.
        words.next().filter(|_| named)?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_source_that_says_something_counts_and_we_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        let text = "# a comment\nsearch maas\nnameserver 10.77.0.2\nnameserver\t127.0.0.53\nnameserver fe80::1%eth0\noptions edns0\nnameserver x\n";
        fs::write(&file, text).unwrap();
        let own = ["10.77.0.2:53".parse().unwrap()];
        let list = |set: &[SocketAddr], planned: &[IpAddr]| {
            choose(set, planned, &file, &own).iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(list(&[], &[]), ["127.0.0.53:53"]);
        assert_eq!(list(&[], &["192.0.2.1".parse().unwrap(), "10.77.0.2".parse().unwrap()]), ["192.0.2.1:53"]);
        assert_eq!(list(&["192.0.2.9:5353".parse().unwrap()], &["192.0.2.1".parse().unwrap()]), ["192.0.2.9:5353"]);
        assert!(choose(&[], &[], Path::new("/nonexistent"), &own).is_empty());
    }
}
