//! Waiting for a backend without losing sight of the client: whoever gives up while waiting is noticed at once and never
//! sent on. A waiter that merely slept would send the request of somebody who left long ago.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use pingora_core::Result;
use pingora_proxy::Session;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::model::admission::Admission;
use crate::model::backend::Backend;
use crate::model::gate::{ClaimError, InFlight};

/// Bodies up to this size fit Pingora's retry buffer, which keeps what is read while waiting.
const BUFFERED: u64 = 64 * 1024;
/// How often a waiter looks whether its backend is back.
const LOOK: Duration = Duration::from_millis(50);

/// The queues before full backends; only those with `max_connections` have one.
#[derive(Default)]
pub(super) struct Queues(Mutex<HashMap<usize, Arc<Queue>>>);

#[derive(Default)]
struct Queue {
    waiting: AtomicU32,
    left: Notify,
}

/// A place in a queue.
pub(super) struct Place(Arc<Queue>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
        // Whoever was woken together with a waiter that gives up must not sleep on.
        self.0.left.notify_one();
    }
}

/// Held by an exchange inside a backend with a queue; wakes the next one when it is dropped.
pub(super) struct QueueTurn(Arc<Queue>);

impl Drop for QueueTurn {
    fn drop(&mut self) {
        self.0.left.notify_one();
    }
}

impl Queues {
    fn of(&self, backend: &Backend) -> Arc<Queue> {
        // By the address of what survives snapshots.
        let key = Arc::as_ptr(&backend.live.gate) as usize;
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }

    /// What an exchange holds while it is inside; `None` where there is no bound.
    pub(super) fn turn(&self, backend: &Backend) -> Option<QueueTurn> {
        backend.max_connections.map(|_| QueueTurn(self.of(backend)))
    }

    /// A place in the queue, unless `size` others wait already.
    pub(super) fn join(&self, backend: &Backend, size: u32) -> Option<Place> {
        let queue = self.of(backend);
        let room = |waiting: u32| (waiting < size).then_some(waiting + 1);
        queue.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Place(queue))
    }
}

/// How a client is watched while its request waits.
pub(super) struct Patience {
    /// The body fits the retry buffer, so it may be read while waiting; that is how a client that leaves is noticed.
    readable: bool,
}

impl Patience {
    pub(super) fn of(session: &mut Session) -> Patience {
        let length = session.req_header().headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        let downstream = session.as_downstream_mut();
        // Asking initialises the body reader; without it the first byte of the next request would be lost.
        let empty = downstream.is_body_empty();
        let readable = empty || length.is_some_and(|length| length <= BUFFERED);
        if readable {
            downstream.enable_retry_buffering();
        }
        Patience { readable }
    }

    /// Waits for `done`; fails when the client leaves.
    async fn wait<T>(&self, session: &mut Session, done: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(done);
        loop {
            let downstream = session.as_downstream_mut();
            let idle = downstream.is_body_done();
            tokio::select! {
                biased;
                value = &mut done => return Ok(value),
                read = downstream.read_body_or_idle(idle), if self.readable => {
                    read.map_err(|e| e.into_down())?;
                }
            }
        }
    }

    /// Waits until the backend admits its sessions again, at most `longest`.
    pub(super) async fn until_admitted(&self, session: &mut Session, backend: &Backend, longest: Duration) -> Result<()> {
        let end = Instant::now() + longest;
        while backend.admission() < Admission::KnownSessions && Instant::now() < end {
            self.wait(session, sleep_until(end.min(Instant::now() + LOOK))).await?;
        }
        Ok(())
    }

    /// Waits for a free place; `None` when it took longer than `longest`.
    pub(super) async fn in_queue(
        &self,
        session: &mut Session,
        place: &mut Place,
        longest: Duration,
        claim: impl Fn() -> std::result::Result<InFlight, ClaimError>,
    ) -> Result<Option<std::result::Result<InFlight, ClaimError>>> {
        let end = Instant::now() + longest;
        let queue = Arc::clone(&place.0);
        loop {
            // Registered before the claim is tried: a place that becomes free in between wakes us.
            let left = queue.left.notified();
            match claim() {
                Err(ClaimError::Full) => {}
                other => return Ok(Some(other)),
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            let until = end.min(Instant::now() + LOOK);
            self.wait(session, async {
                tokio::select! { () = left => {}, () = sleep_until(until) => {} }
            })
            .await?;
        }
    }
}
