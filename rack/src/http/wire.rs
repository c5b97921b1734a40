//! A connection with what was read from it and not used yet, so that whoever takes it over finds every byte. Knows no HTTP.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes of a connection's first buffer. Most heads are shorter; one that is not gets a larger one.
const FIRST: usize = 1_024;

/// The connection.
pub(super) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How many bytes of the buffer are unread.
    unread: usize,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: vec![0; FIRST], unread: 0 }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// What has arrived and was not consumed.
    pub(super) fn unread(&self) -> &[u8] {
        self.buffer.get(..self.unread).unwrap_or_default()
    }

    /// Reads what is there behind the unread bytes, up to `most` of them in all; 0 at the end of the stream, or when it is full.
    /// Loses nothing when it is dropped before its end.
    pub(super) async fn fill(&mut self, most: usize) -> io::Result<usize> {
        if self.unread == self.buffer.len() {
            self.buffer.resize(most, 0);
        }
        let read = self.stream.read(self.buffer.get_mut(self.unread..).unwrap_or_default()).await?;
        self.unread += read;
        Ok(read)
    }

    /// The first `len` unread bytes are used.
    pub(super) fn consume(&mut self, len: usize) {
        let len = len.min(self.unread);
        self.buffer.copy_within(len..self.unread, 0);
        self.unread -= len;
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let len = self.unread.min(into.remaining());
        into.put_slice(self.unread().get(..len).unwrap_or_default());
        self.consume(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
