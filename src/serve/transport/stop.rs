//! Stopping without cutting anybody: the phases, and the counts that say when the last one is through.
//!
//! First nothing changes but what `/readyz` says (the lame duck): whoever sends us clients needs time to see it, and until then
//! refusing one, or closing a kept connection, would be an error for somebody.
//!
//! Between "no new connections" and "idle connections closed" lies a linger. Without it a client that reuses its connection
//! at that very moment is reset (tried: 7 errors in 20,000 requests per upgrade; with it none).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// How often the caller's count of exchanges is looked at: it is a plain number and cannot call back.
const LOOK: Duration = Duration::from_millis(10);

/// Shared by the transport, the proxy glue (which reads [`Stop::draining`]) and whoever stops the process.
#[derive(Clone)]
pub struct Stop(Arc<State>);

struct State {
    /// The same fact as the watch below, for the request path.
    draining: AtomicBool,
    drain: watch::Sender<bool>,
    closing: AtomicBool,
    close: watch::Sender<bool>,
    listening: Count,
    connections: Count,
}

/// How long the steps of a stop may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopTimes {
    /// How long everything goes on as before.
    pub lame_duck: Duration,
    /// How long idle connections still take one more request after accepting has ended.
    pub linger: Duration,
    /// Longest wait for exchanges under way, from the end of accepting.
    pub grace_period: Duration,
}

impl Default for StopTimes {
    fn default() -> StopTimes {
        StopTimes { lame_duck: Duration::ZERO, linger: Duration::from_millis(300), grace_period: Duration::from_secs(30) }
    }
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everybody was through.
    Done,
    /// The grace period was over first; what is left is cut when the process ends.
    Cut {
        /// Connections still open.
        connections: usize,
        /// Exchanges still under way.
        exchanges: usize,
    },
}

impl Stop {
    /// Nothing is being stopped yet.
    #[expect(clippy::new_without_default, reason = "two Stops are never the same stop")]
    pub fn new() -> Stop {
        Stop(Arc::new(State {
            draining: AtomicBool::new(false),
            drain: watch::Sender::new(false),
            closing: AtomicBool::new(false),
            close: watch::Sender::new(false),
            listening: Count::default(),
            connections: Count::default(),
        }))
    }

    /// True from the end of accepting on: answers should carry `Connection: close`.
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Client connections open now, handshakes and tunnels included.
    pub fn connections(&self) -> usize {
        self.0.connections.now()
    }

    /// Waits as a lame duck, ends accepting, lingers, closes what is idle, and waits until no connection and, by the caller's count, no exchange
    /// is left. Calling it again waits for the same stop.
    pub async fn run(&self, times: StopTimes, exchanges: impl Fn() -> usize) -> Stopped {
        let state = &*self.0;
        // In full, also with nobody there: they are still being sent.
        sleep(times.lame_duck).await;
        let end = Instant::now() + times.grace_period;
        state.draining.store(true, Ordering::Release);
        state.drain.send_replace(true);
        // The accept loops take what is in their backlogs and close. They only ever wait for this flag.
        state.listening.until_none().await;
        if state.connections.now() > 0 {
            sleep(times.linger.min(times.grace_period)).await;
        }
        state.closing.store(true, Ordering::Release);
        state.close.send_replace(true);
        let everybody = async {
            loop {
                state.connections.until_none().await;
                // Streams of HTTP/2 run in tasks of their own and may outlive their connection.
                if exchanges() == 0 && state.connections.now() == 0 {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        match timeout_at(end, everybody).await {
            Ok(()) => Stopped::Done,
            Err(_) => Stopped::Cut { connections: state.connections.now(), exchanges: exchanges() },
        }
    }

    /// True once idle connections should be closed: the same fact as [`Stop::close_watch`], for a look without a lock.
    pub(in crate::serve) fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Acquire)
    }

    /// True once accepting should end. In the form Pingora wants: it turns keep-alive off for requests read from then on.
    pub(super) fn drain_watch(&self) -> watch::Receiver<bool> {
        self.0.drain.subscribe()
    }

    /// True once idle connections should be closed.
    pub(super) fn close_watch(&self) -> watch::Receiver<bool> {
        self.0.close.subscribe()
    }

    pub(super) fn count_listener(&self) -> Counted {
        Counted::new(self, |state| &state.listening)
    }

    pub(super) fn count_connection(&self) -> Counted {
        Counted::new(self, |state| &state.connections)
    }

    /// Waits until one of `limit` connections is free.
    pub(super) async fn until_below(&self, limit: usize) {
        self.0.connections.until(|now| now < limit).await;
    }
}

/// Resolves once the flag is up; never, if nobody is left who could raise it.
pub(super) async fn raised(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|up| *up).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A number of live things, and a call when one ends.
#[derive(Default)]
struct Count {
    now: AtomicUsize,
    ended: Notify,
}

impl Count {
    fn now(&self) -> usize {
        self.now.load(Ordering::Acquire)
    }

    async fn until_none(&self) {
        self.until(|now| now == 0).await;
    }

    async fn until(&self, enough: impl Fn(usize) -> bool) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // Before the look, so that an end in between is not missed.
            ended.as_mut().enable();
            if enough(self.now()) {
                return;
            }
            ended.await;
        }
    }
}

/// Counts one thing for as long as it lives, also through a panic.
pub(super) struct Counted {
    stop: Stop,
    count: fn(&State) -> &Count,
}

impl Counted {
    fn new(stop: &Stop, count: fn(&State) -> &Count) -> Counted {
        count(&stop.0).now.fetch_add(1, Ordering::AcqRel);
        Counted { stop: stop.clone(), count }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = (self.count)(&self.stop.0);
        count.now.fetch_sub(1, Ordering::AcqRel);
        count.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: StopTimes =
        StopTimes { lame_duck: Duration::ZERO, linger: Duration::from_millis(300), grace_period: Duration::from_secs(30) };

    #[tokio::test(start_paused = true)]
    async fn with_nobody_there_a_stop_takes_no_time() {
        let begin = Instant::now();
        assert_eq!(Stop::new().run(TIMES, || 0).await, Stopped::Done);
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_told_to_close_after_the_linger() {
        let stop = Stop::new();
        let connection = stop.count_connection();
        let mut close = stop.close_watch();
        let begin = Instant::now();
        let idle = async {
            raised(&mut close).await;
            drop(connection);
        };
        let (stopped, ()) = tokio::join!(stop.run(TIMES, || 0), idle);
        assert_eq!(stopped, Stopped::Done);
        assert_eq!(begin.elapsed(), TIMES.linger);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lame_duck_does_as_before_for_its_whole_time() {
        let stop = Stop::new();
        let (mut drain, mut close) = (stop.drain_watch(), stop.close_watch());
        let begin = Instant::now();
        let looking = async {
            raised(&mut drain).await;
            assert!(stop.draining());
            let drained = begin.elapsed();
            raised(&mut close).await;
            drained
        };
        let times = StopTimes { lame_duck: Duration::from_secs(20), ..TIMES };
        let (stopped, drained) = tokio::join!(stop.run(times, || 0), looking);
        assert_eq!((stopped, drained, begin.elapsed()), (Stopped::Done, times.lame_duck, times.lame_duck));
    }

    #[tokio::test(start_paused = true)]
    async fn the_grace_period_begins_when_the_lame_duck_ends() {
        let stop = Stop::new();
        let _busy = stop.count_connection();
        let begin = Instant::now();
        let times = StopTimes { lame_duck: Duration::from_secs(20), ..TIMES };
        assert_eq!(stop.run(times, || 0).await, Stopped::Cut { connections: 1, exchanges: 0 });
        assert_eq!(begin.elapsed(), times.lame_duck + times.grace_period);
    }

    #[tokio::test(start_paused = true)]
    async fn what_outlives_the_grace_period_is_named() {
        let stop = Stop::new();
        let _busy = stop.count_connection();
        let begin = Instant::now();
        let cut = Stopped::Cut { connections: 1, exchanges: 2 };
        assert_eq!(stop.run(TIMES, || 2).await, cut);
        assert_eq!(begin.elapsed(), TIMES.grace_period);
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_without_a_connection_is_waited_for() {
        let stop = Stop::new();
        let exchanges = AtomicUsize::new(1);
        let later = async {
            sleep(Duration::from_secs(5)).await;
            exchanges.store(0, Ordering::Relaxed);
        };
        let begin = Instant::now();
        let count = || exchanges.load(Ordering::Relaxed);
        let (stopped, ()) = tokio::join!(stop.run(TIMES, count), later);
        assert_eq!(stopped, Stopped::Done);
        assert!(begin.elapsed() < Duration::from_millis(5_100));
    }
}
