//! CONNECT: bytes both ways, to servers that the operator named and nowhere else (RFC 9110 section 9.3.6).

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::TcpStream,
};

use super::{Desk, request::Refusal};

/// How long a tunnel may last: no package takes longer, and what is forgotten ends.
const LONGEST: Duration = Duration::from_secs(4 * 3_600);
/// How long a peer proxy may take to open its part of the way.
const PEER_WAIT: Duration = Duration::from_secs(20);
/// Longest head of a peer's answer, in bytes.
const PEER_HEAD: usize = 8_192;

/// Opens a tunnel for `stream` and waits for its end. `early` holds what the client sent already.
///
/// # Errors
/// Why there is none.
pub(super) async fn run(
    stream: &mut TcpStream,
    early: &mut BytesMut,
    desk: &Desk,
    host: &str,
    port: u16,
) -> Result<(), Refusal> {
    if !desk.shared.connect.iter().any(|allowed| allowed.lead_to(host, port)) {
        let why = format!(
            "CONNECT to {host}:{port} is not allowed here; name the repository with http, or have the operator list it in proxy.connect"
        );
        return Err(Refusal::new(403, "refused_connect", why));
    }
    let (mut server, to_peer) = desk.upstream.open(host, port).await?;
    if to_peer {
        let failed = |e: io::Error| Refusal::new(502, "upstream_failed", format!("the peer proxy gave no tunnel: {e}"));
        let asked = tokio::time::timeout(PEER_WAIT, ask_peer(&mut server, host, port)).await;
        asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
    }
    desk.shared.meter.count("tunnelled");
    let both = async {
        stream.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?;
        server.write_all(early).await?;
        copy_bidirectional(stream, &mut server).await
    };
    tokio::time::timeout(LONGEST, both).await.ok(); // However it ends, both ends see it.
    Ok(())
}

async fn ask_peer(server: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    server.write_all(format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte, since what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > PEER_HEAD {
            return Err(io::Error::other("its answer is too long"));
        }
        head.push(server.read_u8().await?);
    }
    match head.get(..12) {
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'2', ..]) => Ok(()),
        _ => Err(io::Error::other(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned())),
    }
}
