//! What is asked of the kernel itself: a route's MTU and the bytes a TCP peer has yet to acknowledge (for which there is no safe wrapper),
//! and room for many sockets.

use std::{
    ffi::c_int,
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd},
};

use nix::{
    libc,
    sys::resource::{Resource, getrlimit, setrlimit},
};

/// The MTU in bytes of the route of a connected IPv4 socket (`IP_MTU`, ip(7)).
///
/// # Errors
/// When the socket is not connected.
pub fn route_mtu(socket: &impl AsFd) -> io::Result<u32> {
    let (mut mtu, mut len) = (0 as c_int, size_of::<c_int>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    #[expect(unsafe_code, reason = "nix has no IP_MTU; the pointers are to two locals that outlive the call")]
    let status = unsafe { libc::getsockopt(fd, libc::IPPROTO_IP, libc::IP_MTU, (&raw mut mtu).cast(), &raw mut len) };
    if status == 0 { Ok(u32::try_from(mtu).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that were written to a TCP socket and that the far end has not acknowledged (`SIOCOUTQ`, tcp(7)).
///
/// # Errors
/// When the socket is none of TCP.
pub fn unacknowledged(socket: &impl AsFd) -> io::Result<u32> {
    let mut bytes: c_int = 0;
    #[expect(unsafe_code, reason = "nix has no SIOCOUTQ; the pointer is to a local that outlives the call")]
    let status = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if status == 0 { Ok(u32::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Raises this process's limit of open files: a rack holds a socket for each transfer, connection and BMC session,
/// and the soft limit of 1,024 is there for programs that use select(2).
pub fn raise_open_files() {
    /// Children inherit it, and some close every file that they could have.
    const ENOUGH: u64 = 65_536;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(ENOUGH)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard.min(ENOUGH), hard)
    {
        tracing::warn!(%error, "at most {soft} files and sockets can be open; raise LimitNOFILE");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn the_loopback_route_has_an_mtu_and_read_bytes_are_acknowledged() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        assert!(route_mtu(&socket).unwrap() >= 1_500);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(unacknowledged(&stream).unwrap(), 0);
    }
}
