//! TFTP for machines that boot: codec, transfer and server. Which name holds which bytes is decided behind [`BootFiles`].

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;

mod desk;
pub mod packet;
pub mod receiver;
mod send;
pub mod server;
pub mod transfer;

pub use server::{Counters, Running, StartError, TftpConfig, start};

/// A read request, as the keeper of the files hears it.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// As the client wrote it, with its slashes and backslashes.
    pub name: &'a str,
    pub peer: SocketAddr,
    /// The address that the request came to: the rack as this client reaches it.
    pub local: IpAddr,
}

/// What a read request is answered with.
pub enum Found {
    /// These bytes. The receipt is told how the transfer ended.
    File { bytes: Bytes, receipt: Box<dyn Receipt> },
    /// ERROR 1, at once.
    Missing,
    /// ERROR 0 with this text: it should be here and is not, now.
    Unready(String),
}

/// Is told how one transfer ended; dropped untold when the server stops or when the client only asked for the size.
pub trait Receipt: Send {
    /// The far end acknowledged the last byte.
    fn fetched(self: Box<Self>, bytes: u64, took: Duration);
    /// The transfer ended before that.
    fn aborted(self: Box<Self>, why: &str);
}

/// How transfers with one client are to be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Blocks per acknowledgement at most (RFC 7440), 1..=[`transfer::MAX_WINDOW`].
    pub window: u16,
    /// Largest block in bytes that travels in one frame; `None`: the route's MTU decides.
    pub block: Option<u16>,
    /// Transfers that may be under way at once.
    pub transfers: usize,
}

/// The virtual files. Called on the server's thread: must not wait for a network.
pub trait BootFiles: Send + Sync + 'static {
    /// The bytes of that name for that client, now.
    fn find(&self, ask: &Ask<'_>) -> Found;
    /// The limits for that client.
    fn limits(&self, peer: IpAddr) -> Limits;
}
