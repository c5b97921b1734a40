//! DNS over TCP (RFC 7766): messages behind their lengths, and the bounds that keep slow and greedy clients from the others.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::listen::Server;

/// How long a connection may be without a query.
const IDLE: Duration = Duration::from_secs(10);
/// How long a query may take to arrive once it has begun, and an answer to be taken.
const TRANSIT: Duration = Duration::from_secs(5);
/// Bytes of a query; longer ones are no queries that anybody sends.
const QUERY_MAX: usize = 4_096;

/// How many connections there are, of all listeners together. Cloned freely.
#[derive(Debug, Clone)]
pub struct Connections {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// At once, from all.
    most: usize,
    /// At once, from one address.
    each: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Self { open: Arc::default(), most: 256, each: 16 }
    }
}

impl Connections {
    /// One more from that address; `None` when there are too many.
    fn admit(&self, from: IpAddr) -> Option<Open> {
        let mut open = self.open();
        let own = open.get(&from).copied().unwrap_or(0);
        if own >= self.each || open.values().sum::<usize>() >= self.most {
            return None;
        }
        open.insert(from, own + 1);
        Some(Open { all: self.clone(), from })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Open {
    all: Connections,
    from: IpAddr,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.all.open();
        if let Some(own) = open.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.from);
            }
        }
    }
}

/// Serves until it is aborted; its connections end with it.
pub(super) async fn serve<S: Server>(listener: TcpListener, server: Arc<S>, connections: Connections) {
    let mut talks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = talks.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Beyond the bound a connection is closed at once: its client sees that, and tries again.
                let Some(open) = connections.admit(peer.ip().to_canonical()) else { continue };
                let server = server.clone();
                talks.spawn(async move {
                    let _open = open;
                    if let Err(error) = converse(stream, peer, &*server).await {
                        tracing::debug!(%peer, %error, "a DNS connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a DNS listener does not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse<S: Server>(mut stream: TcpStream, peer: SocketAddr, server: &S) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    loop {
        let mut first = [0];
        if timeout(IDLE, stream.read(&mut first)).await.map_err(late)?? == 0 {
            return Ok(());
        }
        let message = timeout(TRANSIT, message(&mut stream, first[0])).await.map_err(late)??;
        let answers = server.message(&message, peer).await;
        if answers.is_empty() {
            return Ok(());
        }
        for answer in answers {
            let Ok(len) = u16::try_from(answer.len()) else { return Ok(()) };
            let framed = [&len.to_be_bytes()[..], &answer].concat();
            timeout(TRANSIT, stream.write_all(&framed)).await.map_err(late)??;
        }
    }
}

/// The message whose length begins with `first`.
async fn message(stream: &mut TcpStream, first: u8) -> io::Result<Vec<u8>> {
    let len = usize::from(u16::from_be_bytes([first, stream.read_u8().await?]));
    if len > QUERY_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a query of {len} bytes exceeds {QUERY_MAX}")));
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
