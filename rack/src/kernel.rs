//! What is asked of the kernel itself: a route's MTU, the bytes a TCP peer has yet to acknowledge and how well the clock is kept
//! (for which there is no safe wrapper), room for many sockets, and children that do not outlive this process.

use std::{
    ffi::c_int,
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use nix::{
    libc,
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::{Pid, getpid, getppid},
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
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

/// A child that the kernel tells to end (SIGTERM) when this process ends in whatever way.
#[derive(Debug)]
pub struct Bound {
    pub child: Child,
    /// The kernel means the thread that forked, not the process: it stands until this is dropped.
    _thread: std::sync::mpsc::Sender<()>,
}

/// Starts a program that does not outlive this process, also where nobody can end it any more (`kill -9`; prctl(2), PR_SET_PDEATHSIG).
///
/// # Errors
/// When the thread or the program cannot be started.
pub async fn spawn_bound(mut command: Command) -> io::Result<Bound> {
    let parent = getpid();
    #[expect(
        unsafe_code,
        reason = "between fork and exec only two system calls are made, which are async-signal-safe, and nothing is allocated"
    )]
    unsafe {
        command.pre_exec(move || bind_to(parent));
    }
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (started, child) = oneshot::channel();
    let runtime = Handle::current();
    std::thread::Builder::new().name("child".into()).spawn(move || {
        let spawned = {
            let _entered = runtime.enter();
            command.spawn()
        };
        started.send(spawned).ok(); // Nobody waits: the child has gone with what was sent.
        held.recv().ok(); // Nothing is ever said: it ends when the other end is dropped.
    })?;
    let child = child.await.map_err(|_| io::Error::other("the thread that starts it has died"))??;
    Ok(Bound { child, _thread: hold })
}

/// In the child, before it becomes another program.
fn bind_to(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGTERM)?;
    // It may have ended before the line above.
    if getppid() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
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

/// How well the kernel's clock is kept (adjtimex(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockCare {
    /// Somebody (chrony, ntpd, systemd-timesyncd) keeps it and says that it is right.
    pub synchronised: bool,
    /// Its greatest error as that somebody reckons; grows by itself, 500 us a second.
    pub max_error: Duration,
    /// A leap second at the end of the day: 0 none, 1 one more, 2 one less.
    pub leap: u8,
}

/// How well the clock is kept. Needs no rights: nothing is set.
///
/// # Errors
/// When the kernel does not say.
pub fn clock_care() -> io::Result<ClockCare> {
    #[expect(
        unsafe_code,
        reason = "nix has no adjtimex; a timex is plain numbers, and its pointer is to a local that outlives the call"
    )]
    let (timex, state) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&raw mut timex);
        (timex, state)
    };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    let set = |bit: c_int| timex.status & bit != 0;
    Ok(ClockCare {
        synchronised: !set(libc::STA_UNSYNC) && state != libc::TIME_ERROR,
        max_error: Duration::from_micros(u64::try_from(timex.maxerror).unwrap_or(0)),
        leap: if set(libc::STA_INS) {
            1
        } else if set(libc::STA_DEL) {
            2
        } else {
            0
        },
    })
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

    #[test]
    fn the_kernel_says_how_its_clock_is_kept() {
        let care = clock_care().unwrap();
        assert!(care.leap <= 2 && care.max_error <= Duration::from_secs(3_600), "{care:?}");
    }
}
