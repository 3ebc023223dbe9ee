//! The access log: one line per exchange, written by a thread of its own.
//!
//! | file | holds |
//! |---|---|
//! | `line` | a record as JSON or in Apache's combined format |
//! | `clean` | request targets without session ids |
//! | `writer` | the thread that writes |
//!
//! An exchange hands a [`Record`] over and never waits. When the disk or the reader of a pipe cannot keep up, records are
//! dropped and counted: a slow log must not become a slow application.

mod clean;
mod line;
mod writer;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Version};

pub use clean::{referer_without_session, without_session};

use crate::config;
use crate::model::reason::{PinResult, Reason};
use crate::model::settings::BackendSpec;
use crate::model::time::Time;

/// Records under way to the thread: some 2 MiB, and a tenth of a second at 80,000 exchanges per second.
const QUEUE: usize = 8192;
/// Longest wait for the last lines when we stop: a pipe that nobody reads must not keep the process alive.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// One exchange. It never holds a session's id or a pin's value: the caller gives the path without them.
#[derive(Clone, Debug)]
pub struct Record {
    /// When its head was read.
    pub time: Time,
    /// The user's address.
    pub client: IpAddr,
    /// As asked for, without a port.
    pub host: Option<Box<str>>,
    /// As asked for.
    pub method: Method,
    /// Path and query, any bytes; from [`without_session`].
    pub path: Box<[u8]>,
    /// Of the client's connection.
    pub protocol: Version,
    /// What the client saw; 0 when it saw none.
    pub status: u16,
    /// Body bytes sent to the client.
    pub bytes: u64,
    /// Body bytes read from the client.
    pub request_bytes: u64,
    /// From its head to its last byte.
    pub duration: Duration,
    /// Until the first byte of the backend's answer.
    pub backend_duration: Option<Duration>,
    /// That serves its host and path.
    pub app: Option<Arc<str>>,
    /// That answered it.
    pub release: Option<Arc<str>>,
    /// That answered it.
    pub backend: Option<Arc<BackendSpec>>,
    /// Why it went there.
    pub reason: Option<Reason>,
    /// What became of the pin it carried.
    pub pin: PinResult,
    /// `X-Request-Id`.
    pub request_id: Option<HeaderValue>,
    /// `User-Agent`.
    pub user_agent: Option<HeaderValue>,
    /// `Referer`, from [`referer_without_session`].
    pub referer: Option<HeaderValue>,
}

/// Why there is no access log.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// Its file cannot be opened.
    #[error("access log {path}: {source}; make its directory writable for this user, or set server.access_log.path")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No thread.
    #[error("access log: cannot start its thread: {0}")]
    Thread(#[source] io::Error),
}

/// A handle on the thread that writes; clones share it.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
}

/// Another target of the log, open already.
#[derive(Debug)]
pub struct Redirection {
    sink: writer::Sink,
    format: config::LogFormat,
}

/// What handles and thread share.
#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
    reopen: AtomicBool,
}

/// What travels to the thread.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every item is a record; a box would be an allocation per exchange")]
enum Item {
    Record(Record),
    /// Write what comes after to another target, or otherwise.
    Redirect(writer::Sink, config::LogFormat),
    /// Look at the flags.
    Wake,
    /// Write all that came before, then say so.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// [`AccessLogError`], with the remedy.
    pub fn open(settings: &config::AccessLog) -> Result<AccessLog, AccessLogError> {
        let sink = writer::Sink::open(&settings.path)?;
        let (queue, items) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let writer = writer::Writer::new(items, sink, settings.format, Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        drop(thread.spawn(move || writer.run()).map_err(AccessLogError::Thread)?);
        Ok(AccessLog { queue, shared })
    }

    /// Hands a record over, or drops it when the queue is full.
    pub fn write(&self, record: Record) {
        if self.queue.try_send(Item::Record(record)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records lost so far, to a full queue or to a target that fails.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Opens the file anew, after it was moved away.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // A full queue needs no wake-up: its thread is busy and looks at the flag after each batch.
        self.queue.try_send(Item::Wake).ok();
    }

    /// Opens another target, without writing to it yet.
    ///
    /// # Errors
    /// [`AccessLogError`], with the remedy.
    pub fn prepare(&self, settings: &config::AccessLog) -> Result<Redirection, AccessLogError> {
        Ok(Redirection { sink: writer::Sink::open(&settings.path)?, format: settings.format })
    }

    /// Writes what is handed over from now on there. Blocks while the queue is full: not for a worker thread.
    pub fn redirect(&self, to: Redirection) {
        if self.queue.send(Item::Redirect(to.sink, to.format)).is_err() {
            log::error!("access log: its thread has ended");
        }
    }

    /// Waits until everything handed over before is written, at most two seconds. Blocks: not for a worker thread.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_PATIENCE;
        let (done, written) = sync_channel(1);
        let mut item = Item::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(item) {
            if Instant::now() >= deadline {
                return;
            }
            item = back;
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if written.recv_timeout(left).is_err() {
            log::warn!("the access log did not take its last lines within {FLUSH_PATIENCE:?}");
        }
    }
}
