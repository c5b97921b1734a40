//! Bodies on streams of their own: fetched or stored from an offset, so that a cut costs only what was under way. Where bodies live is not known here.
//!
//! Both ways: [`BulkHeader`], [`BulkAnswer`], raw bytes. A store ends with a second answer, [`BulkAnswer::Held`], once the
//! body is whole, verified and durable in the region. The receiver hashes what it has, so no byte is trusted unread.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use quinn::{RecvStream, SendStream};
use schema::{
    boot::{BodyRef, Sha256},
    messages::link::{BulkAnswer, BulkHeader},
};
use sha2::Digest;
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, BufWriter},
    time::timeout,
};

use super::{
    Refusal, describe,
    stream::{ReadError, read_one, write_one},
};

/// Bytes read or written in one go.
const CHUNK: usize = 256 * 1024;

/// Why a body did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// There is no connection.
    #[error("the link is down; the transfer goes on when it is up")]
    Down,
    /// The other side has it not, or will not take it.
    #[error(transparent)]
    Refused(Refusal),
    /// The stream ended early; what came is kept.
    #[error("the transfer broke off after {done} bytes: {why}; it goes on from there")]
    Broke { done: u64, why: String },
    /// The bytes are not those of that name; they were thrown away.
    #[error("the body {expected} came with SHA-256 {seen}; it was thrown away and must be fetched anew")]
    Wrong { expected: Sha256, seen: Sha256 },
    #[error("{path}: {source}")]
    Disk { path: PathBuf, source: io::Error },
}

fn disk(path: &Path) -> impl Fn(io::Error) -> BulkError + '_ {
    move |source| BulkError::Disk { path: path.into(), source }
}

/// The rack's end: opens streams on the live connection.
#[derive(Clone)]
pub(super) struct Bulk {
    connection: quinn::Connection,
    answer: Duration,
}

impl Bulk {
    pub(super) fn new(connection: quinn::Connection, answer: Duration) -> Self {
        Self { connection, answer }
    }

    pub(super) async fn fetch(&self, body: BodyRef, partial: &Path) -> Result<u64, BulkError> {
        let mut gathering = Gathering::open(body, partial).await?;
        let offset = gathering.done;
        if offset < body.len {
            let (mut send, mut recv) = self.open(&BulkHeader::Fetch { body, offset }).await?;
            send.finish().ok(); // Nothing more to say; a broken stream shows in the answer.
            match self.answer(&mut recv).await? {
                BulkAnswer::Ready { offset: from, len }
                    if from == offset && from.checked_add(len) == Some(body.len) =>
                {
                    gathering.take(&mut recv, self.answer).await.map_err(|e| self.reason(e))?;
                }
                BulkAnswer::Refused { why, remedy } => return Err(BulkError::Refused(Refusal::new(why, remedy))),
                other => return Err(unexpected(&other)),
            }
        }
        gathering.verify().await?;
        Ok(body.len - offset)
    }

    pub(super) async fn store(&self, body: BodyRef, path: &Path) -> Result<(), BulkError> {
        let (mut send, mut recv) = self.open(&BulkHeader::Store { body }).await?;
        match self.answer(&mut recv).await? {
            BulkAnswer::Held => return Ok(()),
            BulkAnswer::Ready { offset, len } if offset.checked_add(len) == Some(body.len) => {
                pour(path, offset, len, &mut send).await.map_err(|e| self.reason(e))?;
            }
            BulkAnswer::Refused { why, remedy } => return Err(BulkError::Refused(Refusal::new(why, remedy))),
            other => return Err(unexpected(&other)),
        }
        // The region hashes and syncs before it answers; a large body takes it longer than a word does.
        let patience = self.answer + Duration::from_secs(body.len >> 24);
        match timeout(patience, read_one::<BulkAnswer>(&mut recv)).await {
            Ok(Ok((_, BulkAnswer::Held))) => Ok(()),
            Ok(Ok((_, BulkAnswer::Refused { why, remedy }))) => Err(BulkError::Refused(Refusal::new(why, remedy))),
            Ok(Ok((_, other))) => Err(unexpected(&other)),
            Ok(Err(e)) => Err(self.broke(body.len, &e)),
            Err(_) => Err(BulkError::Broke { done: body.len, why: "the region did not confirm in time".into() }),
        }
    }

    async fn open(&self, header: &BulkHeader) -> Result<(SendStream, RecvStream), BulkError> {
        let open = async {
            let (mut send, recv) =
                self.connection.open_bi().await.map_err(|e| BulkError::Broke { done: 0, why: describe(&e).why })?;
            write_one(&mut send, header).await.map_err(|e| self.broke(0, &e))?;
            Ok((send, recv))
        };
        let late = || BulkError::Broke { done: 0, why: "no stream was free in time".into() };
        timeout(self.answer, open).await.map_err(|_| late())?
    }

    async fn answer(&self, recv: &mut RecvStream) -> Result<BulkAnswer, BulkError> {
        match timeout(self.answer, read_one::<BulkAnswer>(recv)).await {
            Ok(Ok((_, answer))) => Ok(answer),
            Ok(Err(e)) => Err(self.broke(0, &e)),
            Err(_) => Err(BulkError::Broke { done: 0, why: "the region did not answer in time".into() }),
        }
    }

    fn broke(&self, done: u64, error: &ReadError) -> BulkError {
        self.reason(BulkError::Broke { done, why: error.to_string() })
    }

    /// Why the connection ended, where that is what broke the stream.
    fn reason(&self, error: BulkError) -> BulkError {
        match (error, self.connection.close_reason()) {
            (BulkError::Broke { done, .. }, Some(reason)) => BulkError::Broke { done, why: describe(&reason).why },
            (error, _) => error,
        }
    }
}

fn unexpected(answer: &BulkAnswer) -> BulkError {
    BulkError::Refused(Refusal::new(
        format!("the region answered {answer:?}, which does not fit"),
        "upgrade the older side",
    ))
}

/// A bulk stream that a rack opened, in the region's hands.
pub struct BulkRequest {
    pub header: BulkHeader,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) answer: Duration,
    pub(super) _open: Open,
}

/// One open stream, counted as long as this lives.
pub(super) struct Open(Arc<AtomicUsize>);

impl Open {
    pub(super) fn among(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Relaxed);
        Self(streams.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl BulkRequest {
    /// Says no.
    pub async fn refuse(mut self, why: impl Into<String>, remedy: impl Into<String>) {
        self.last(&BulkAnswer::Refused { why: why.into(), remedy: remedy.into() }).await;
    }

    /// Says that the body of a [`BulkHeader::Store`] is here and durable: at once, or after [`BulkRequest::receive`].
    pub async fn held(mut self) {
        self.last(&BulkAnswer::Held).await;
    }

    /// Answers a [`BulkHeader::Fetch`] with the file at `path`; the bytes sent.
    ///
    /// # Errors
    /// [`BulkError`], after the rack was told. A rack that is gone is [`BulkError::Broke`].
    pub async fn serve(mut self, path: &Path) -> Result<u64, BulkError> {
        let BulkHeader::Fetch { body, offset } = self.header else {
            return Err(self.mismatch("a store cannot be served").await);
        };
        let held = tokio::fs::metadata(path).await.map_err(disk(path));
        let len = match held {
            Ok(meta) if meta.len() == body.len && offset <= body.len => body.len - offset,
            Ok(meta) => {
                let why = format!(
                    "the body {} has {} bytes here; {} from {offset} were asked for",
                    body.sha256,
                    meta.len(),
                    body.len
                );
                return Err(self.mismatch(&why).await);
            }
            Err(e) => {
                self.refuse(format!("the body {} cannot be read", body.sha256), "see the region's log").await;
                return Err(e);
            }
        };
        let broke = |e: ReadError| BulkError::Broke { done: 0, why: e.to_string() };
        write_one(&mut self.send, &BulkAnswer::Ready { offset, len }).await.map_err(broke)?;
        pour(path, offset, len, &mut self.send).await?;
        Ok(len)
    }

    /// Answers a [`BulkHeader::Store`] by gathering the body in `partial`, going on where that file ends. When it returns, the
    /// file is whole and its SHA-256 is right; keep it for good, then call [`BulkRequest::held`].
    ///
    /// # Errors
    /// [`BulkError`], after the rack was told.
    pub async fn receive(&mut self, partial: &Path) -> Result<BodyRef, BulkError> {
        let BulkHeader::Store { body } = self.header else {
            let error = Refusal::new("a fetch brings no body", "upgrade the older side");
            return Err(BulkError::Refused(error));
        };
        let mut gathering = Gathering::open(body, partial).await?;
        let ready = BulkAnswer::Ready { offset: gathering.done, len: body.len - gathering.done };
        let broke = |e: ReadError| BulkError::Broke { done: 0, why: e.to_string() };
        write_one(&mut self.send, &ready).await.map_err(broke)?;
        gathering.take(&mut self.recv, self.answer).await?;
        if let Err(e) = gathering.verify().await {
            self.last(&BulkAnswer::Refused { why: e.to_string(), remedy: "send it again".into() }).await;
            return Err(e);
        }
        Ok(body)
    }

    async fn mismatch(mut self, why: &str) -> BulkError {
        let refusal = Refusal::new(why, "fetch the plan anew; if it stays, see the region's log");
        self.last(&BulkAnswer::Refused { why: refusal.why.clone(), remedy: refusal.remedy.clone() }).await;
        BulkError::Refused(refusal)
    }

    /// The last word on this stream. A rack that is gone asks again.
    async fn last(&mut self, answer: &BulkAnswer) {
        write_one(&mut self.send, answer).await.ok();
        self.send.finish().ok();
    }
}

/// Writes `len` bytes of the file from `offset` and ends the stream.
async fn pour(path: &Path, offset: u64, len: u64, send: &mut SendStream) -> Result<(), BulkError> {
    let mut file = File::open(path).await.map_err(disk(path))?;
    file.seek(io::SeekFrom::Start(offset)).await.map_err(disk(path))?;
    let mut file = file.take(len);
    let (mut done, mut chunk) = (0, vec![0; CHUNK]);
    loop {
        let n = file.read(&mut chunk).await.map_err(disk(path))?;
        let Some(bytes) = chunk.get(..n).filter(|b| !b.is_empty()) else { break };
        send.write_all(bytes).await.map_err(|e| BulkError::Broke { done, why: e.to_string() })?;
        done += n as u64;
    }
    if done < len {
        return Err(disk(path)(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("ends after {} bytes", offset + done),
        )));
    }
    send.finish().ok(); // Already reset: the other side knows.
    Ok(())
}

/// A body that comes in: the file so far and the hash over it.
struct Gathering<'a> {
    body: BodyRef,
    path: &'a Path,
    file: BufWriter<File>,
    hash: sha2::Sha256,
    done: u64,
}

impl<'a> Gathering<'a> {
    /// Opens the partial file and hashes what is there. One that is too long starts anew.
    async fn open(body: BodyRef, path: &'a Path) -> Result<Self, BulkError> {
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).await.map_err(disk(path))?;
        if file.metadata().await.map_err(disk(path))?.len() > body.len {
            file.set_len(0).await.map_err(disk(path))?;
        }
        let (mut hash, mut done, mut chunk) = (sha2::Sha256::new(), 0, vec![0; CHUNK]);
        loop {
            let n = file.read(&mut chunk).await.map_err(disk(path))?;
            let Some(bytes) = chunk.get(..n).filter(|b| !b.is_empty()) else { break };
            hash.update(bytes);
            done += n as u64;
        }
        Ok(Self { body, path, file: BufWriter::with_capacity(CHUNK, file), hash, done })
    }

    /// Takes the rest off the stream. What came before a break is on disk.
    async fn take(&mut self, recv: &mut RecvStream, silence: Duration) -> Result<(), BulkError> {
        let end = self.take_until_end(recv, silence).await;
        self.file.flush().await.map_err(disk(self.path))?;
        end
    }

    async fn take_until_end(&mut self, recv: &mut RecvStream, silence: Duration) -> Result<(), BulkError> {
        while self.done < self.body.len {
            let room = usize::try_from(self.body.len - self.done).unwrap_or(CHUNK).min(CHUNK);
            let broke = |why: String| BulkError::Broke { done: self.done, why };
            let chunk = match timeout(silence, recv.read_chunk(room, true)).await {
                Ok(Ok(Some(chunk))) => chunk.bytes,
                Ok(Ok(None)) => return Err(broke("the stream ended".into())),
                Ok(Err(e)) => return Err(broke(e.to_string())),
                Err(_) => return Err(broke(format!("nothing came for {silence:?}"))),
            };
            self.hash.update(&chunk);
            self.file.write_all(&chunk).await.map_err(disk(self.path))?;
            self.done += chunk.len() as u64;
        }
        Ok(())
    }

    /// Whether the body is the one of that name; a wrong one is emptied, a right one is durable.
    async fn verify(mut self) -> Result<(), BulkError> {
        let seen = Sha256(self.hash.finalize().into());
        let file = self.file.get_mut();
        if seen != self.body.sha256 {
            file.set_len(0).await.map_err(disk(self.path))?;
            return Err(BulkError::Wrong { expected: self.body.sha256, seen });
        }
        file.sync_all().await.map_err(disk(self.path))
    }
}
