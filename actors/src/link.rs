//! The link between rack and region: QUIC with mutual TLS, framed messages, bulk bodies. What the messages mean is not here.
//!
//! One connection per (rack, region), dialled by the rack. Read [`client`] for the rack's end, [`server`] for the region's,
//! [`enrol`] for how a rack gets its certificate, [`bulk`] for bodies. `docs/protocol.md` says what goes over it.
//!
//! ```no_run
//! # use std::{sync::Arc, path::Path};
//! # use actors::{clock, core::TraceId, link::{Doorkeeper, ca::{Ca, RackIdentity}, client::{ClientConfig, Event, LinkClient},
//! #     enrol, server::{Incoming, LinkServer, ServerConfig}}};
//! # use schema::messages::link::{FromRack, ToRack};
//! # async fn region(keeper: Arc<dyn Doorkeeper>) -> Result<(), Box<dyn std::error::Error>> {
//! // The region:
//! let ca = Ca::open_or_create(Path::new("/var/lib/hostler/ca"), clock::now())?;
//! let token = enrol::Token::mint(&ca, [7; 24]);          // the random part comes from the caller
//! println!("hostler rack enrol --token {}", token.text()); // keep token.hash(), never the token
//! let (server, mut connections) = LinkServer::start(
//!     ServerConfig::new("0.0.0.0:5250".parse()?, "4y3h7n".parse()?), ca, keeper)?;
//! while let Some(mut rack) = connections.recv().await {
//!     tokio::spawn(async move {
//!         rack.sender.send(&ToRack::SendHello, TraceId::default()).await.ok();
//!         while let Some(incoming) = rack.incoming.recv().await {
//!             match incoming {
//!                 Incoming::Message(trace, FromRack::Report(report)) => println!("{trace} {report:?}"),
//!                 Incoming::Message(..) => {}
//!                 Incoming::Bulk(request) => request.refuse("there are no bodies here", "add an image").await,
//!                 Incoming::Closed { why } => println!("{}: {why}", rack.rack), // the last one
//!             }
//!         }
//!     });
//! }
//! server.stop("the region restarts").await;
//! # Ok(()) }
//! # async fn rack() -> Result<(), Box<dyn std::error::Error>> {
//! // The rack, once:
//! let identity = enrol::enrol("region.example:5250", &"TOKEN".parse()?, "rack-1", "0.1.0").await?;
//! identity.save(Path::new("/var/lib/hostler-rack/identity.pem"))?;
//! // and at every start:
//! let identity = RackIdentity::load(Path::new("/var/lib/hostler-rack/identity.pem"))?;
//! let (client, mut events) = LinkClient::start(ClientConfig::new(vec!["region.example:5250".into()]), &identity, || 0.5)?;
//! while let Some(event) = events.recv().await {
//!     match event {
//!         Event::Up { link, welcome } => {
//!             println!("{} is up, has {}", welcome.region, welcome.last_report);
//!             client.send(link, &FromRack::Goodbye, TraceId::default()).await.ok();
//!         }
//!         Event::Down { why, remedy, retry_in, .. } => println!("{why}; {remedy}; again in {retry_in:?}"),
//!         Event::Message { message, .. } => println!("{message:?}"),
//!     }
//! }
//! client.stop().await;
//! # Ok(()) }
//! ```

pub mod bulk;
pub mod ca;
pub mod client;
mod drive;
pub mod enrol;
pub mod server;
pub mod stream;
mod throttle;
pub mod tls;

use std::{net::SocketAddr, pin::Pin, time::Duration};

use schema::{
    boot::Sha256,
    codec::CodecError,
    id::{RackId, ReportSeq},
};

/// The protocol of enrolled racks.
pub const ALPN: &[u8] = b"hostler/1";
/// The protocol of racks that have no certificate yet.
pub const ALPN_ENROL: &[u8] = b"hostler-enrol/1";

/// A boxed future, as the [`Doorkeeper`] returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why somebody is not let in, and what a person can do. Told to both sides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {remedy}")]
pub struct Refusal {
    pub why: String,
    pub remedy: String,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

/// A rack that may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    pub rack: RackId,
    /// The last report of it that is durable here; the rack sends what comes after.
    pub last_report: ReportSeq,
}

/// A rack that asks to be enrolled. Its certificate is already made, but is only handed out when the answer is yes.
#[derive(Debug, Clone)]
pub struct Enrolling {
    /// The SHA-256 of the token's secret half, to be compared with what was kept ([`enrol::Token::hash`]).
    pub token: Sha256,
    pub hostname: String,
    pub version: String,
    pub peer: SocketAddr,
    /// The SHA-256 of the certificate: the pin.
    pub fingerprint: Sha256,
}

/// Who knows the racks: the region's store behind a trait. All answers come from what is durable.
pub trait Doorkeeper: Send + Sync + 'static {
    /// Whether the holder of that certificate may come in. The certificate is of the region's CA and has not expired;
    /// what is left is whether it is pinned to a rack and not revoked.
    fn admit(&self, fingerprint: Sha256) -> Pending<'_, Result<Admitted, Refusal>>;

    /// Uses up the token and pins the certificate to a rack, in one transaction.
    fn enrol(&self, rack: Enrolling) -> Pending<'_, Result<RackId, Refusal>>;

    /// Somebody was refused: for the audit and the dashboard. Called for every refusal; must not block.
    fn refused(&self, peer: SocketAddr, refusal: &Refusal) {
        let _ = (peer, refusal);
    }
}

/// Why a connection is closed on purpose: QUIC's application close code, with a reason in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Close {
    /// That side stops.
    Stopping = 0,
    /// Not let in, or no longer (revoked).
    Refused = 1,
    /// The same rack has come on a newer connection.
    Replaced = 2,
    /// The other side sent what is no frame, or none in time.
    Protocol = 3,
    /// The errand of the connection is done (enrolment).
    Done = 4,
}

impl Close {
    fn close(self, connection: &quinn::Connection, why: &str) {
        if connection.close_reason().is_some() {
            return; // quinn would forget why the other side closed.
        }
        // A reason shares one packet with its frame; longer ones would be cut anyway.
        let end = why.floor_char_boundary(why.len().min(900));
        connection.close((self as u32).into(), why.get(..end).unwrap_or_default().as_bytes());
    }
}

/// Ends when nothing has come from the other side for `limit`, to a sixteenth. QUIC's own idle timer begins anew with the
/// first packet that is sent after the last one received (RFC 9000, 10.1): with something to say, a side would take up
/// to twice as long. Counted in pauses, so that a side that was held up itself does not blame the other.
async fn silence(connection: &quinn::Connection, limit: Duration) {
    const PAUSES: u32 = 16;
    let mut last = connection.stats().udp_rx.datagrams;
    let mut silent = 0;
    while silent < PAUSES {
        tokio::time::sleep(limit / PAUSES).await;
        let now = connection.stats().udp_rx.datagrams;
        silent = if now == last { silent + 1 } else { 0 };
        last = now;
    }
}

/// Times and bounds of a link. The defaults are the product's; tests shorten them.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How often the rack's side keeps the path alive: 1 to 5 s.
    pub keep_alive: Duration,
    /// Silence after which a side takes the other for gone.
    pub idle: Duration,
    /// From the first packet to the Welcome, and for each answer of a bulk stream.
    pub answer: Duration,
    /// The first pause before dialling again; doubles up to `back_off_max`. Each pause is drawn between half and whole.
    pub back_off: Duration,
    /// The longest pause; also the pause after a refusal, since that needs a person.
    pub back_off_max: Duration,
    /// Bytes that may wait to be written on one control stream.
    pub queue: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            // A rack that was killed is to be out of names and plans within 10 s.
            keep_alive: Duration::from_secs(2),
            idle: Duration::from_secs(8),
            answer: Duration::from_secs(10),
            back_off: Duration::from_millis(250),
            back_off_max: Duration::from_secs(30),
            queue: 32 << 20,
        }
    }
}

/// Why a link could not start, or an enrolment failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot listen on udp {address}: {source}; stop what holds the port or set another address")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Ca(#[from] ca::CaError),
    /// Address, then what happened, with its remedy.
    #[error("{address}: {refusal}")]
    Peer { address: String, refusal: Refusal },
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// What the end of a connection means, in words for a person at either end.
pub(crate) fn describe(error: &quinn::ConnectionError) -> Refusal {
    use quinn::ConnectionError as E;
    match error {
        E::ApplicationClosed(close) => {
            Refusal::new(format!("the other side closed: {}", String::from_utf8_lossy(&close.reason)), "see its log")
        }
        E::TimedOut => Refusal::new("no answer", "check that the other side runs and that UDP 5250 passes both ways"),
        E::Reset => Refusal::new("the other side no longer knows this connection", "nothing; the rack dials again"),
        E::LocallyClosed => Refusal::new("closed here", "nothing"),
        E::TransportError(e) => tls::explain(u64::from(e.code), &e.reason, true),
        E::ConnectionClosed(c) => tls::explain(u64::from(c.error_code), &String::from_utf8_lossy(&c.reason), false),
        other => Refusal::new(other.to_string(), "check that both sides run the same version"),
    }
}
