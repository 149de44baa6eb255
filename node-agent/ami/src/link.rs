//! The two tasks of one connection. The reader always reads and waits for nobody; the writer writes only
//! what its sender has not taken back.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::ActionIds;
use crate::decoder::{Block, Decoder, Limits};
use crate::router::Router;
use crate::tamper::TamperCounters;

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Asterisk or the network ended the stream properly.
    #[error("the PBX closed the connection")]
    PeerClosed,
    /// Reading or writing failed.
    #[error("the connection failed: {0}")]
    Io(String),
    /// No answer to a ping in time.
    #[error("the PBX did not answer a ping in time")]
    PingTimeout,
    /// What answered does not speak AMI.
    #[error("what answered is no Asterisk manager: its first line is {banner:?}")]
    NotAsterisk {
        /// The first 80 bytes of its first line.
        banner: String,
    },
    /// The login was refused.
    #[error("the PBX refused the login")]
    LoginRefused,
    /// Every handle was dropped or [`crate::Session::close`] was called.
    #[error("closed by this program")]
    ClosedHere,
}

/// Whether a frame's bytes may have left. Two sides race for it: the writer to start, its sender to
/// take it back; whoever changes `QUEUED` first has won, and that is the proof behind `NotSent`.
#[derive(Debug, Default)]
pub(crate) struct Departure(AtomicU8);

const QUEUED: u8 = 0;
const STARTED: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Departure {
    fn leave(&self, to: u8) -> bool {
        self.0.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn start(&self) -> bool {
        self.leave(STARTED)
    }

    /// True if no byte has left, and none will.
    pub(crate) fn withdraw(&self) -> bool {
        self.leave(WITHDRAWN) || self.0.load(Ordering::Acquire) == WITHDRAWN
    }
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) departure: Arc<Departure>,
}

/// Frames waiting for the writer. Each is one action; senders beyond wait for room.
pub(crate) const FRAMES_MAX: usize = 256;

/// Bytes that one `write` collects, so that a burst of Originates needs few system calls.
const WRITE_BYTES: usize = 32 * 1024;

/// How long TLS may take to say good-bye.
const SHUTDOWN_MAX: Duration = Duration::from_secs(1);

/// Thousands of sessions hold such a buffer each.
const READ_BYTES: usize = 16 * 1024;

/// What the handles and the tasks of one connection have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    router: Mutex<Router>,
    pub(crate) frames: mpsc::Sender<Frame>,
    pub(crate) closed: watch::Sender<Option<CloseReason>>,
    pub(crate) banner: watch::Sender<Option<String>>,
    pub(crate) counters: Arc<TamperCounters>,
    pub(crate) in_flight: Semaphore,
    pub(crate) ids: ActionIds,
    pub(crate) ping_rtt_us: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        router: Router,
        frames: mpsc::Sender<Frame>,
        counters: Arc<TamperCounters>,
        in_flight_max: usize,
        ids: ActionIds,
    ) -> Self {
        Self {
            router: Mutex::new(router),
            frames,
            closed: watch::Sender::new(None),
            banner: watch::Sender::new(None),
            counters,
            in_flight: Semaphore::new(in_flight_max),
            ids,
            ping_rtt_us: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn router(&self) -> MutexGuard<'_, Router> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        let first = self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert_with(|| reason.clone());
            first
        });
        if first {
            self.router().link_lost(&reason);
        }
    }

    pub(crate) async fn until_closed(&self) -> CloseReason {
        let mut closed = self.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await.map(|reason| reason.clone());
        // The sender lives in `self`, so waiting cannot fail.
        reason.ok().flatten().unwrap_or(CloseReason::ClosedHere)
    }
}

pub(crate) async fn read_link<R: AsyncRead + Unpin>(
    shared: Arc<Shared>,
    mut stream: R,
    limits: Limits,
    quiet: Duration,
) {
    let mut decoder = Decoder::new(limits);
    let mut buffer = vec![0; READ_BYTES];
    let mut silent_at = Instant::now();
    let closed = shared.until_closed();
    tokio::pin!(closed);
    loop {
        let holds = shared.router().holds();
        tokio::select! {
            biased;
            _ = &mut closed => return,
            read = stream.read(&mut buffer) => {
                let taken = match read {
                    Ok(0) => return shared.close(CloseReason::PeerClosed),
                    Ok(count) => buffer.get(..count).unwrap_or_default(),
                    Err(error) => return shared.close(CloseReason::Io(error.to_string())),
                };
                decoder.push(taken);
                silent_at = Instant::now() + quiet;
                if let Err(reason) = take_blocks(&shared, &mut decoder) {
                    return shared.close(reason);
                }
            }
            () = sleep_until(silent_at), if holds => {
                shared.router().silence(decoder.beginning());
                silent_at = Instant::now() + quiet;
            }
        }
    }
}

fn take_blocks(shared: &Shared, decoder: &mut Decoder) -> Result<(), CloseReason> {
    let mut router = shared.router();
    loop {
        match decoder.next_block() {
            Ok(Some(Block::Message(message))) => router.block(message),
            Ok(Some(Block::Banner(line))) => {
                let banner = String::from_utf8_lossy(line.get(..80).unwrap_or(&line)).into_owned();
                if !banner.starts_with("Asterisk Call Manager/") {
                    return Err(CloseReason::NotAsterisk { banner });
                }
                shared.banner.send_replace(Some(banner));
            }
            Ok(None) => return Ok(()),
            Err(bound) => {
                tracing::warn!(%bound, "skipped an AMI block");
                router.oversized();
            }
        }
    }
}

pub(crate) async fn write_link<W: AsyncWrite + Unpin>(
    shared: Arc<Shared>,
    mut stream: W,
    mut frames: mpsc::Receiver<Frame>,
) {
    let closed = shared.until_closed();
    tokio::pin!(closed);
    loop {
        let first = tokio::select! {
            biased;
            _ = &mut closed => break,
            frame = frames.recv() => frame,
        };
        let Some(first) = first else { break };
        let mut out = Vec::new();
        let mut next = Some(first);
        while let Some(frame) = next {
            if frame.departure.start() {
                out.extend_from_slice(&frame.bytes);
            }
            next = if out.len() < WRITE_BYTES { frames.try_recv().ok() } else { None };
        }
        let out = Bytes::from(out);
        let written = tokio::select! {
            biased;
            _ = &mut closed => break,
            written = async { stream.write_all(&out).await?; stream.flush().await } => written,
        };
        if let Err(error) = written {
            return shared.close(CloseReason::Io(error.to_string()));
        }
    }
    // Best effort: the other side may be gone already, or take no bytes.
    let _ = timeout(SHUTDOWN_MAX, stream.shutdown()).await;
}
