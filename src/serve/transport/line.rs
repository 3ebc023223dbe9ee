//! Connections to backends over plain HTTP/1, kept from one exchange to the next.
//!
//! Pingora keeps connections too, but starts a task for each at the end of every exchange, asks the kernel for its peer before
//! the next one, and makes two timers per exchange: a tenth of the CPU of a request. Here a connection waits in a list, the last
//! one first out, with one timer for its whole life. Pingora still decides *whether* a connection may be used again; it tells by
//! what it does then, see [`LineSocket::poll_read`].
//!
//! Not for TLS or HTTP/2, whose state lives above the socket: Pingora keeps those.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use hashbrown::{DefaultHashBuilder, HashTable};
use http::header::{CONTENT_LENGTH, HeaderName};
use http::{Method, StatusCode};
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, interval, sleep_until};

use super::dial::{connect, set_option};
use crate::model::octets::{split, split_once};
use crate::serve::clock::monotonic;

/// Idle connections to all backends together, for each worker thread. For one more an old one is closed.
const MOST_KEPT: usize = 4096;

/// Keeps the threads that serve different backends apart.
const SHARDS: usize = 16;

/// How often connections are looked for that idled for too long or that their backend has closed.
const SWEEP: Duration = Duration::from_secs(1);

/// How much earlier than its backend a kept connection is given up.
const CROSSING: Duration = Duration::from_secs(1);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The connections that wait for their next exchange.
pub struct Lines {
    shards: Vec<Mutex<HashTable<Stack>>>,
    hasher: DefaultHashBuilder,
    kept: AtomicUsize,
    most: usize,
}

/// Where a connection leads: an address, and which life of the process there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The backend's.
    pub address: SocketAddr,
    /// Connections of another generation are not used again.
    pub generation: u64,
}

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTimes {
    /// While it is made.
    pub connect: Duration,
    /// While an exchange waits for a byte.
    pub read: Duration,
    /// Between two exchanges.
    pub idle: Duration,
}

/// Those of one place, the last one given back at the end.
struct Stack {
    place: Place,
    kept: VecDeque<Kept>,
}

struct Kept {
    core: Core,
    /// By the coarse clock.
    until: Duration,
}

/// What lives as long as the connection.
struct Core {
    tcp: TcpStream,
    /// Moved only when it goes off or a nearer end is needed: setting a timer costs more than reading a clock.
    alarm: Pin<Box<Sleep>>,
}

impl Lines {
    /// None yet; for so many worker threads.
    pub fn new(threads: usize) -> Arc<Lines> {
        Lines::with_most(threads.max(1).saturating_mul(MOST_KEPT))
    }

    pub(super) fn with_most(most: usize) -> Arc<Lines> {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Arc::new(Lines { shards, hasher: DefaultHashBuilder::default(), kept: AtomicUsize::new(0), most })
    }

    /// One attempt to reach a backend. Make a new one for every attempt.
    pub fn line(self: &Arc<Lines>, place: Place, times: LineTimes) -> Arc<Line> {
        let (kept_before, answered, overdue) = Default::default();
        Arc::new_cyclic(|this| Line {
            this: this.clone(),
            lines: Arc::clone(self),
            place,
            times,
            kept_before,
            answered,
            overdue,
            offered: AtomicU32::new(u32::MAX),
        })
    }

    /// Closes what has idled for too long and what backends have closed, again and again; does not end.
    pub async fn sweep(self: Arc<Lines>) {
        let mut tick = interval(SWEEP);
        loop {
            tick.tick().await;
            self.close_old(monotonic());
        }
    }

    /// How many wait.
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    fn close_old(&self, now: Duration) {
        for shard in &self.shards {
            // Closed when the lock is free again.
            let mut closed = Vec::new();
            let mut stacks = lock(shard);
            stacks.retain(|stack| {
                for _ in 0..stack.kept.len() {
                    let Some(kept) = stack.kept.pop_front() else { break };
                    // Asked once: a byte that came unasked is gone then, and must not be forgotten.
                    let over = kept.until <= now || !kept.core.seems_quiet();
                    if over { closed.push(kept) } else { stack.kept.push_back(kept) }
                }
                !stack.kept.is_empty()
            });
            drop(stacks);
            self.kept.fetch_sub(closed.len(), Ordering::Relaxed);
        }
    }

    fn take(&self, place: Place) -> Option<Core> {
        let now = monotonic();
        let (hash, shard) = self.shard(place)?;
        loop {
            let kept = lock(shard).find_mut(hash, |stack| stack.place == place).and_then(|stack| stack.kept.pop_back())?;
            self.kept.fetch_sub(1, Ordering::Relaxed);
            if kept.until > now && kept.core.is_quiet() {
                return Some(kept.core);
            }
        }
    }

    fn give_back(&self, place: Place, kept: Kept) {
        let Some((hash, shard)) = self.shard(place) else { return };
        let hasher = |stack: &Stack| self.hasher.hash_one(stack.place);
        // Closed when the lock is free again.
        let mut oldest = None;
        let mut stacks = lock(shard);
        let stack = stacks.entry(hash, |stack| stack.place == place, hasher);
        stack.or_insert_with(|| Stack { place, kept: VecDeque::new() }).into_mut().kept.push_back(kept);
        if self.kept.fetch_add(1, Ordering::Relaxed) >= self.most {
            // Whoever has most gives up one, so that a burst to one backend leaves room for the others.
            oldest = stacks.iter_mut().max_by_key(|stack| stack.kept.len()).and_then(|stack| stack.kept.pop_front());
        }
        drop(stacks);
        if oldest.is_some() {
            self.kept.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn shard(&self, place: Place) -> Option<(u64, &Mutex<HashTable<Stack>>)> {
        let hash = self.hasher.hash_one(place);
        // Other bits than the table's.
        Some((hash, self.shards.get((hash >> 40) as usize % SHARDS)?))
    }
}

fn lock(shard: &Mutex<HashTable<Stack>>) -> MutexGuard<'_, HashTable<Stack>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    /// Whether it is open, and nothing has come unasked, as far as tokio has been told.
    fn seems_quiet(&self) -> bool {
        matches!(self.tcp.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same by the kernel's own word: an end or a late byte of this very moment would cost a POST, or answer the wrong request.
    fn is_quiet(&self) -> bool {
        let seen = rustix::net::recv(&self.tcp, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        seen.is_err_and(|e| e == Errno::AGAIN)
    }
}

/// One attempt to reach a backend, and what became of its connection.
pub struct Line {
    this: Weak<Line>,
    lines: Arc<Lines>,
    place: Place,
    times: LineTimes,
    kept_before: AtomicBool,
    answered: AtomicBool,
    overdue: AtomicBool,
    /// Seconds for which the backend has said that it keeps the connection.
    offered: AtomicU32,
}

impl Line {
    /// Whether its connection had served another exchange: its end may then have come before the request.
    pub fn was_kept(&self) -> bool {
        self.kept_before.load(Ordering::Relaxed)
    }

    /// Whether the backend was silent for too long.
    pub fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    /// To be called with the head of the final answer: no hook of Pingora's tells whether it ends there (RFC 9112 §6.3), nor for how
    /// long the backend keeps the connection (`Keep-Alive: timeout=5`, as Node says).
    pub fn head_passed(&self, request: &Method, answer: &ResponseHeader) {
        let ends = *request == Method::HEAD
            || matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || answer.headers.get(CONTENT_LENGTH).is_some_and(|length| is_zero(length.as_bytes()));
        if ends {
            self.answered();
        }
        let offer = answer.headers.get(KEEP_ALIVE).and_then(|value| offered(value.as_bytes()));
        if let Some(seconds) = offer {
            self.offered.store(seconds, Ordering::Relaxed);
        }
    }

    /// How long the connection may wait for its next exchange. Shorter than the backend keeps it, for a request that crosses the
    /// backend's end on its way is lost: a POST is never sent again.
    fn idle(&self) -> Duration {
        let offered = self.offered.load(Ordering::Relaxed);
        self.times.idle.min(Duration::from_secs(offered.into()).saturating_sub(CROSSING))
    }

    /// To be called when the last byte of the answer has passed the proxy's filters. Until then the connection is not kept.
    pub fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("place", &self.place).field("times", &self.times).finish_non_exhaustive()
    }
}

#[async_trait]
impl L4Connect for Line {
    async fn connect(&self, address: &PeerAddress) -> Result<L4Stream> {
        let Some(line) = self.this.upgrade() else {
            return Error::e_explain(ErrorType::InternalError, "a line that nobody holds");
        };
        let core = match self.lines.take(self.place) {
            Some(core) => {
                self.kept_before.store(true, Ordering::Relaxed);
                core
            }
            None => {
                let tcp = connect(address, Some(self.times.connect)).await?;
                Core { tcp, alarm: Box::pin(sleep_until(end(Instant::now(), self.times.read))) }
            }
        };
        let socket = LineSocket { core: Some(core), line, silent_since: None, heard: Duration::ZERO };
        Ok(L4Stream::from(VirtualSocketStream::new(Box::new(socket))))
    }
}

/// The connection as Pingora sees it during one exchange.
struct LineSocket {
    /// `None` once given back.
    core: Option<Core>,
    line: Arc<Line>,
    /// When an exchange began to wait for a byte.
    silent_since: Option<Instant>,
    /// When the backend sent its last byte, by the coarse clock: its patience began then, however slow the client is.
    heard: Duration,
}

impl LineSocket {
    /// Fails once the exchange has waited for too long.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(core) = &mut self.core else { return Poll::Ready(Ok(())) };
        let end = end(*self.silent_since.get_or_insert_with(Instant::now), self.line.times.read);
        if core.alarm.deadline() > end {
            core.alarm.as_mut().reset(end);
        }
        while core.alarm.as_mut().poll(cx).is_ready() {
            if core.alarm.deadline() >= end {
                self.line.overdue.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the backend was silent for too long")));
            }
            core.alarm.as_mut().reset(end);
        }
        Poll::Pending
    }
}

/// Whether a length says that there is no body, in any spelling that Pingora takes for one (`0, 0` is a zero said twice).
fn is_zero(length: &[u8]) -> bool {
    length.contains(&b'0') && length.iter().all(|octet| b"0, \t".contains(octet))
}

/// The seconds of `timeout=5, max=100`.
fn offered(value: &[u8]) -> Option<u32> {
    let parameter = |part: &[u8]| {
        let (name, seconds) = split_once(part, b'=')?;
        let seconds = std::str::from_utf8(seconds.trim_ascii()).ok()?.parse().ok();
        seconds.filter(|_| name.trim_ascii().eq_ignore_ascii_case(b"timeout"))
    };
    split(value, b',').find_map(parameter)
}

/// A timeout without end is one of a year.
fn end(since: Instant, span: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    since + span.min(YEAR)
}

/// What is asked of a connection that was given back.
fn given_back() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for LineSocket {
    /// After the last byte of an answer Pingora reads nothing more. If it finds the connection good for another exchange (the body
    /// is complete, nothing followed it, nobody said `close`), it makes sure that no byte waits, by reading one. That is when the
    /// connection goes back to the list; Pingora is told that it has ended, and forgets it. Any other connection it shuts down or
    /// drops, and it closes.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(core) = &mut this.core else { return Poll::Ready(Ok(())) };
        if let Poll::Ready(done) = Pin::new(&mut core.tcp).poll_read(cx, buf) {
            this.silent_since = None;
            this.heard = monotonic();
            return Poll::Ready(done);
        }
        if buf.remaining() == 1 && this.line.answered.load(Ordering::Relaxed) {
            if let Some(core) = this.core.take() {
                let until = this.heard.saturating_add(this.line.idle());
                this.line.lines.give_back(this.line.place, Kept { core, until });
            }
            return Poll::Ready(Ok(()));
        }
        this.poll_overdue(cx)
    }
}

impl AsyncWrite for LineSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(core) = &mut this.core else { return Poll::Ready(Err(given_back())) };
        // Who sends waits for nothing yet: the patience for the answer begins with the last piece of the request.
        this.silent_since = None;
        Pin::new(&mut core.tcp).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().core {
            Some(core) => Pin::new(&mut core.tcp).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().core {
            Some(core) => Pin::new(&mut core.tcp).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl VirtualSocket for LineSocket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        let Some(core) = &self.core else { return Err(given_back()) };
        match option {
            // Set once, when it was made.
            VirtualSockOpt::NoDelay if self.line.was_kept() => Ok(()),
            option => set_option(&core.tcp, option),
        }
    }
}

impl fmt::Debug for LineSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineSocket").field("line", &self.line).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On one thread, so that nobody listens to the kernel meanwhile.
    #[tokio::test(flavor = "current_thread")]
    async fn an_end_or_a_late_byte_is_found_before_anybody_was_told_of_it() {
        for late in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n"] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let tcp = TcpStream::connect(listener.local_addr().expect("it has one")).await.expect("it listens");
            let (mut backend, _) = listener.accept().expect("it was connected to");
            let core = Core { tcp, alarm: Box::pin(sleep_until(Instant::now())) };
            assert!(core.seems_quiet() && core.is_quiet());
            std::io::Write::write_all(&mut backend, late).expect("the other end is open");
            drop(backend);
            assert!(core.seems_quiet(), "tokio has not been told");
            assert!(!core.is_quiet());
            let place = Place { address: listener.local_addr().expect("it has one"), generation: 0 };
            let lines = Lines::new(1);
            lines.give_back(place, Kept { core, until: Duration::MAX });
            assert!(lines.take(place).is_none());
            assert_eq!(lines.kept(), 0);
        }
    }

    #[test]
    fn an_offer_is_read_as_leniently_as_it_is_made() {
        let check = |value: &str, expected| assert_eq!(offered(value.as_bytes()), expected, "{value}");
        check("timeout=20", Some(20));
        check("timeout=5, max=100", Some(5));
        check("max=100,Timeout = 5 ", Some(5));
        check("timeout=0", Some(0));
        for nothing in ["", "max=100", "timeout", "timeout=", "timeout=soon", "timeout=-1", "timeout=1.5", "timeout=4294967296", "\u{fc}=1"]
        {
            check(nothing, None);
        }
    }
}
