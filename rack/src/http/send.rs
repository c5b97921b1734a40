//! Bytes to a TCP socket, for every server that sends files: small ones in one call with their head, others by sendfile(2) from the page cache.

use std::{
    fs::File,
    io::{self, IoSlice},
    ops::Range,
    os::unix::fs::FileExt,
    time::Duration,
};

use nix::{
    libc::{MSG_MORE, MSG_NOSIGNAL},
    sys::sendfile::sendfile,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::TcpStream,
};

/// How long a machine may take nothing of what is sent to it.
pub(crate) const STALL: Duration = Duration::from_secs(60);
/// Bytes per sendfile call: enough to be cheap, not so many that one machine holds the thread.
const PIECE: usize = 1 << 20;
/// Bodies up to this are read and go out with their head in one call: cheaper than sendfile's pages.
const SMALL: usize = 16 << 10;
/// Bodies from this on are worth a cork.
const LARGE: u64 = 1 << 20;

/// Sends all of `bytes`.
///
/// # Errors
/// As [`write_both`].
pub(crate) async fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    write_both(stream, bytes, &[]).await
}

/// Sends all of a head and its body, by one call where the socket takes them.
///
/// # Errors
/// When the connection breaks, or the machine takes nothing for [`STALL`].
pub(crate) async fn write_both(stream: &mut TcpStream, mut head: &[u8], mut body: &[u8]) -> io::Result<()> {
    while !(head.is_empty() && body.is_empty()) {
        let parts = [IoSlice::new(head), IoSlice::new(body)];
        let sent = match tokio::time::timeout(STALL, stream.write_vectored(&parts)).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => sent?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let of_head = sent.min(head.len());
        head = head.get(of_head..).unwrap_or_default();
        body = body.get(sent - of_head..).unwrap_or_default();
    }
    Ok(())
}

/// Sends a head and a part of a file, in the way that costs least for its length.
///
/// # Errors
/// When the connection breaks, the file ends before its part does, or the machine takes nothing for [`STALL`].
pub(crate) async fn file(stream: &mut TcpStream, mut head: Vec<u8>, file: &File, range: Range<u64>) -> io::Result<()> {
    let len = range.end.saturating_sub(range.start);
    match usize::try_from(len) {
        Ok(n) if n <= SMALL => {
            let at = head.len();
            head.resize(at + n, 0);
            file.read_exact_at(head.get_mut(at..).unwrap_or_default(), range.start)?;
            write(stream, &head).await
        }
        _ if len < LARGE => {
            write_more(stream, &head).await?;
            copy(stream, file, range).await
        }
        _ => {
            // Only full segments until the end: half as many again per second. Refused it would be slower, not wrong.
            SockRef::from(&*stream).set_tcp_cork(true).ok();
            write(stream, &head).await?;
            copy(stream, file, range).await?;
            SockRef::from(&*stream).set_tcp_cork(false)
        }
    }
}

/// Sends a head that a body follows, so that both share the first segment.
async fn write_more(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = stream
            .async_io(Interest::WRITABLE, || SockRef::from(stream).send_with_flags(bytes, MSG_MORE | MSG_NOSIGNAL))
            .await?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Sends a part of a file.
///
/// # Errors
/// When the connection breaks, the file ends before its part does, or the machine takes nothing for [`STALL`].
pub(crate) async fn copy(stream: &TcpStream, file: &File, range: Range<u64>) -> io::Result<()> {
    let wrong = |_| io::Error::other("a file beyond the kernel's offsets");
    let (mut offset, end) = (i64::try_from(range.start).map_err(wrong)?, i64::try_from(range.end).map_err(wrong)?);
    while offset < end {
        let piece = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
        let sending = stream.async_io(Interest::WRITABLE, || Ok(sendfile(stream, file, Some(&mut offset), piece)?));
        match tokio::time::timeout(STALL, sending).await {
            Ok(Ok(0)) => return Err(io::Error::other("the body is shorter than its name says")),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    Ok(())
}
