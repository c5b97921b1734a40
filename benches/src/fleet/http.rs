//! One request and its answer over TCP, from the machine's own address. No more of HTTP than racks speak: a length, or the end.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::machine::Request;

/// Longest head in bytes, and longest body: larger than any that a yard serves.
const HEAD: usize = 16 << 10;
const BODY: usize = 1 << 30;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// On the wire.
    pub(crate) bytes: usize,
}

/// A connection between two requests.
pub(crate) struct Connection {
    to: SocketAddrV4,
    stream: TcpStream,
}

impl Connection {
    pub(super) fn to(&self) -> SocketAddrV4 {
        self.to
    }
}

/// Makes the request on a kept connection, or on a new one.
pub(crate) async fn exchange(
    kept: Option<Connection>,
    from: Ipv4Addr,
    request: &Request,
) -> io::Result<(Answer, Option<Connection>)> {
    if let Some(connection) = kept
        && let Ok(done) = on(connection, request).await
    {
        return Ok(done);
    }
    if let Some(name) = &request.name {
        return Err(io::Error::other(format!("{name}: these machines look up no names")));
    }
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddrV4::new(from, 0).into())?;
    let stream = socket.connect(request.to.into()).await?;
    stream.set_nodelay(true)?;
    on(Connection { to: request.to, stream }, request).await
}

async fn on(mut connection: Connection, request: &Request) -> io::Result<(Answer, Option<Connection>)> {
    let stream = &mut connection.stream;
    stream.write_all(&request.bytes).await?;
    let mut buffer = Vec::with_capacity(2_048);
    let head = loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match Head::parse(&buffer)? {
            Some(head) => break head,
            None if buffer.len() > HEAD => return Err(io::Error::other("a head without an end")),
            None => {}
        }
    };
    let length = if request.head || head.status == 204 { Some(0) } else { head.length };
    let mut body = buffer.split_off(head.end);
    if let Some(length) = length {
        if length > BODY {
            return Err(io::Error::other("a body that is too long"));
        }
        body.reserve_exact(length.saturating_sub(body.len()));
    }
    while length.is_none_or(|length| body.len() < length) {
        if stream.read_buf(&mut body).await? == 0 {
            if length.is_some() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            break;
        }
    }
    let answer = Answer { status: head.status, bytes: head.end + body.len(), body };
    Ok((answer, (length.is_some() && !head.close).then_some(connection)))
}

struct Head {
    status: u16,
    length: Option<usize>,
    close: bool,
    end: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut fields);
        let end = match response.parse(bytes).map_err(io::Error::other)? {
            httparse::Status::Complete(end) => end,
            httparse::Status::Partial => return Ok(None),
        };
        let field = |name: &str| {
            let found = response.headers.iter().find(|f| f.name.eq_ignore_ascii_case(name));
            found.and_then(|f| std::str::from_utf8(f.value).ok())
        };
        if field("transfer-encoding").is_some() {
            return Err(io::Error::other("a body in chunks"));
        }
        let length = field("content-length").and_then(|value| value.trim().parse().ok());
        let close = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(Some(Self { status: response.code.unwrap_or(0), length, close, end }))
    }
}
