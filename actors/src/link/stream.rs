//! Frames over one QUIC stream: a writer that drains its queue in batches, a reader, and the bound between them. Connections are not made here.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use quinn::{ReadExactError, RecvStream, SendStream};
use schema::codec::{self, Body, CodecError, Deframer, Envelope, Message, PREFIX, TraceParent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use crate::core::TraceId;

/// Frames written in one go at most.
const BATCH: usize = 256;

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection; the sender's own state says what to send when it is back.
    #[error("the link is down")]
    Down,
    /// The queue is full; the peer reads too slowly.
    #[error("the link's queue is full")]
    Busy,
    /// Never sendable as it is.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

struct Queued {
    body: Body,
    parent: TraceParent,
    /// Gives the bytes back to the budget once they are written.
    _room: OwnedSemaphorePermit,
}

/// The sending end of a control stream. Bounded in bytes. Cloned freely.
pub struct Sender<M> {
    queue: mpsc::UnboundedSender<Queued>,
    budget: Arc<Semaphore>,
    total: usize,
    message: PhantomData<fn(M)>,
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), budget: self.budget.clone(), total: self.total, message: PhantomData }
    }
}

impl<M: Message> Sender<M> {
    /// Queues a message, or says why not; never waits.
    ///
    /// # Errors
    /// [`SendError`]. What was queued when a connection ends may be lost: whoever needs more keeps it until acknowledged.
    pub fn try_send(&self, message: &M, trace: TraceId) -> Result<(), SendError> {
        let body = Body::of(message)?;
        let room = self.budget.clone().try_acquire_many_owned(self.cost(&body)).map_err(|e| match e {
            TryAcquireError::NoPermits => SendError::Busy,
            TryAcquireError::Closed => SendError::Down,
        })?;
        self.push(body, trace, room)
    }

    /// Queues a message as soon as there is room.
    ///
    /// # Errors
    /// [`SendError::Down`] and [`SendError::Codec`].
    pub async fn send(&self, message: &M, trace: TraceId) -> Result<(), SendError> {
        let body = Body::of(message)?;
        let room = self.budget.clone().acquire_many_owned(self.cost(&body)).await.map_err(|_| SendError::Down)?;
        self.push(body, trace, room)
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn push(&self, body: Body, trace: TraceId, room: OwnedSemaphorePermit) -> Result<(), SendError> {
        let parent = TraceParent { trace: trace.0, span: 0 };
        self.queue.send(Queued { body, parent, _room: room }).map_err(|_| SendError::Down)
    }

    /// A message larger than the whole budget takes all of it, and so goes alone.
    fn cost(&self, body: &Body) -> u32 {
        u32::try_from(body.frame_len().min(self.total)).unwrap_or(u32::MAX)
    }
}

/// Writes what is queued until the queue's senders are gone or the stream ends.
pub(super) struct Writer {
    queue: mpsc::UnboundedReceiver<Queued>,
    budget: Arc<Semaphore>,
    /// Frames that were written.
    written: Arc<AtomicU64>,
}

/// A sender bounded to `total` bytes under way, and the task that writes for it.
pub(super) fn channel<M>(total: usize) -> (Sender<M>, Writer) {
    let (queue, receiver) = mpsc::unbounded_channel();
    let total = total.clamp(1, u32::MAX as usize / 2);
    let budget = Arc::new(Semaphore::new(total));
    (
        Sender { queue, budget: budget.clone(), total, message: PhantomData },
        Writer { queue: receiver, budget, written: Arc::default() },
    )
}

impl Writer {
    /// With its frames counted there.
    pub(super) fn counted(mut self, written: Arc<AtomicU64>) -> Self {
        self.written = written;
        self
    }

    /// Runs until every [`Sender`] is dropped and the peer has all that was written, or the stream breaks.
    pub(super) async fn run(mut self, mut stream: SendStream) -> Result<(), quinn::WriteError> {
        let (mut batch, mut bytes, mut sequence) = (Vec::with_capacity(BATCH), Vec::new(), 1);
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            bytes.clear();
            for queued in &batch {
                match queued.body.frame(queued.parent, sequence, &mut bytes) {
                    Ok(()) => sequence += 1,
                    Err(e) => tracing::error!(error = %e, "a frame was left out"),
                }
            }
            stream.write_all(&bytes).await?;
            self.written.fetch_add(batch.len() as u64, Relaxed);
            batch.clear();
        }
        stream.finish().ok(); // Already finished or reset: the reader sees the end either way.
        stream.stopped().await.ok(); // All has arrived, or the connection is gone.
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.budget.close(); // Wakes those who wait for room: there is no connection any more.
    }
}

/// Why reading ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the stream broke: {0}")]
    Stream(String),
    #[error("the stream ended within a frame")]
    Cut,
}

/// Reads frames of `M` off a stream.
pub(super) struct Reader {
    stream: RecvStream,
    deframer: Deframer,
}

impl Reader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, deframer: Deframer::default() }
    }

    /// The next message; `None` at the stream's orderly end. Not to be cancelled and called again.
    pub(super) async fn next<M: Message>(&mut self) -> Result<Option<(Envelope, M)>, ReadError> {
        loop {
            if let Some(message) = self.deframer.take::<M>()? {
                return Ok(Some(message));
            }
            match self.stream.read_chunk(64 * 1024, true).await {
                Ok(Some(chunk)) => self.deframer.push(&chunk.bytes),
                Ok(None) if self.deframer.is_empty() => return Ok(None),
                Ok(None) => return Err(ReadError::Cut),
                Err(e) => return Err(ReadError::Stream(e.to_string())),
            }
        }
    }
}

/// Reads one frame and leaves what follows it in the stream.
pub(super) async fn read_one<M: Message>(stream: &mut RecvStream) -> Result<(Envelope, M), ReadError> {
    let mut prefix = [0; PREFIX];
    let wrong = |e: ReadExactError| match e {
        ReadExactError::FinishedEarly(_) => ReadError::Cut,
        ReadExactError::ReadError(e) => ReadError::Stream(e.to_string()),
    };
    stream.read_exact(&mut prefix).await.map_err(wrong)?;
    let mut frame = vec![0; codec::announced::<M>(prefix)?];
    stream.read_exact(&mut frame).await.map_err(wrong)?;
    Ok(codec::decode(&frame)?)
}

/// Writes one frame.
pub(super) async fn write_one<M: Message>(stream: &mut SendStream, message: &M) -> Result<(), ReadError> {
    let frame = codec::encode(message, TraceParent::default(), 1)?;
    stream.write_all(&frame).await.map_err(|e| ReadError::Stream(e.to_string()))
}
