//! Waiting for a backend without losing sight of the client: whoever gives up while waiting is noticed at once and never
//! sent on. A waiter that merely slept would send the request of somebody who left long ago.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::model::admission::Admission;
use crate::model::backend::{Backend, Live};
use crate::model::gate::{ClaimError, InFlight};
use crate::model::view::App;

/// Bodies up to this size fit Pingora's retry buffer, which keeps what is read while waiting.
const BUFFERED: u64 = 64 * 1024;
/// How often a waiter looks whether its backend is back.
const LOOK: Duration = Duration::from_millis(50);

/// The queues before full backends, and before apps whose backends are all full; only where there is `max_connections`.
#[derive(Default)]
pub(super) struct Queues(Mutex<HashMap<usize, Arc<Queue>>>);

/// Who waits, first come first served. A free place is offered to the first alone: were all woken, or did newcomers look for
/// themselves, the one who waited longest could lose every race.
struct Queue {
    line: Mutex<VecDeque<Arc<Notify>>>,
    /// Who is offered a place that nobody here wants: a backend's own users come before new clients.
    next: Option<Arc<Queue>>,
    /// What the queue is for. Held, because its address is the queue's name.
    owner: Arc<dyn Any + Send + Sync>,
}

impl Queue {
    fn line(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offer(&self) {
        match (self.line().front(), &self.next) {
            (Some(first), _) => first.notify_one(),
            (None, Some(next)) => next.offer(),
            (None, None) => {}
        }
    }
}

/// A place in a queue.
pub(super) struct Place {
    queue: Arc<Queue>,
    turn: Arc<Notify>,
    since: Instant,
    /// Where the wait is counted.
    live: Arc<Live>,
}

impl Place {
    /// At the end of a queue, unless `size` others wait already.
    fn join(queue: Arc<Queue>, backend: &Backend, size: u32) -> Option<Place> {
        let turn = Arc::new(Notify::new());
        let mut line = queue.line();
        if line.len() >= size as usize {
            return None;
        }
        line.push_back(Arc::clone(&turn));
        drop(line);
        backend.live.queue_joined();
        Some(Place { queue, turn, since: Instant::now(), live: Arc::clone(&backend.live) })
    }

    fn is_first(&self) -> bool {
        self.queue.line().front().is_some_and(|first| Arc::ptr_eq(first, &self.turn))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.line().retain(|waiting| !Arc::ptr_eq(waiting, &self.turn));
        self.live.queue_left();
        // There may be room for the next one too, or the offer was made to one who gave up.
        self.queue.offer();
    }
}

/// Held by an exchange inside a backend with a queue; offers its place when it is dropped.
pub(super) struct QueueTurn(Arc<Queue>);

impl Drop for QueueTurn {
    fn drop(&mut self) {
        self.0.offer();
    }
}

impl Queues {
    fn of(&self, owner: Arc<dyn Any + Send + Sync>, next: Option<Arc<Queue>>) -> Arc<Queue> {
        let key = Arc::as_ptr(&owner).addr();
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&key) {
            return Arc::clone(queue);
        }
        // What nobody but its queue knows any more was removed.
        queues.retain(|_, queue| Arc::strong_count(queue) > 1 || Arc::strong_count(&queue.owner) > 1);
        let queue = Arc::new(Queue { line: Mutex::default(), next, owner });
        queues.insert(key, Arc::clone(&queue));
        queue
    }

    /// By what survives snapshots.
    fn of_app(&self, app: &App) -> Arc<Queue> {
        self.of(app.ledger.clone(), None)
    }

    fn of_backend(&self, app: &App, backend: &Backend) -> Arc<Queue> {
        let next = self.of_app(app);
        self.of(backend.live.clone(), Some(next))
    }

    /// What an exchange holds while it is inside; `None` where there is no bound.
    pub(super) fn turn(&self, app: &App, backend: &Backend) -> Option<QueueTurn> {
        backend.max_connections.map(|_| QueueTurn(self.of_backend(app, backend)))
    }

    /// A place before a backend, for its own users.
    pub(super) fn join(&self, app: &App, backend: &Backend) -> Option<Place> {
        Place::join(self.of_backend(app, backend), backend, app.settings.limits.queue_size)
    }

    /// A place before an app whose backends are all full, for new clients; this one was meant for `backend`.
    pub(super) fn join_crowd(&self, app: &App, backend: &Backend) -> Option<Place> {
        Place::join(self.of_app(app), backend, app.settings.limits.queue_size)
    }

    /// Whether new clients wait already.
    pub(super) fn crowded(&self, app: &App) -> bool {
        !self.of_app(app).line().is_empty()
    }

    /// Whether a backend's own users wait for it.
    pub(super) fn is_awaited(&self, app: &App, backend: &Backend) -> bool {
        backend.live.queued() > 0 && !self.of_backend(app, backend).line().is_empty()
    }
}

/// How a client is watched while its request waits.
pub(super) struct Patience {
    /// The body fits the retry buffer, so it may be read while waiting; that is how a client that leaves is noticed. Otherwise only
    /// its connection is looked at: what was read of a body that does not fit would be lost.
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

    /// Waits for `done`, which takes no longer than [`LOOK`]; fails when the client leaves.
    async fn wait<T>(&self, session: &mut Session, done: impl Future<Output = T>) -> Result<T> {
        if !self.readable && has_gone(session.as_downstream()) {
            return Err(Error::new_down(ErrorType::ConnectionClosed));
        }
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

    /// A moment before the next attempt to connect.
    pub(super) async fn pause(&self, session: &mut Session) -> Result<()> {
        self.wait(session, sleep_until(Instant::now() + LOOK)).await
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
        place: &Place,
        longest: Duration,
        claim: impl Fn() -> std::result::Result<InFlight, ClaimError>,
    ) -> Result<Option<std::result::Result<InFlight, ClaimError>>> {
        loop {
            if place.is_first() {
                match claim() {
                    Err(ClaimError::Full) => {}
                    other => return Ok(Some(other)),
                }
            }
            if !self.until_offered(session, place, longest).await? {
                return Ok(None);
            }
        }
    }

    /// Waits until it is worth trying again for the first in the line; false when that took longer than `longest`.
    pub(super) async fn until_first(&self, session: &mut Session, place: &Place, longest: Duration) -> Result<bool> {
        loop {
            if !self.until_offered(session, place, longest).await? {
                return Ok(false);
            }
            if place.is_first() {
                return Ok(true);
            }
        }
    }

    async fn until_offered(&self, session: &mut Session, place: &Place, longest: Duration) -> Result<bool> {
        let end = place.since + longest;
        if Instant::now() >= end {
            return Ok(false);
        }
        let until = end.min(Instant::now() + LOOK);
        // An offer made since we looked is kept for us.
        self.wait(session, async {
            tokio::select! { () = place.turn.notified() => {}, () = sleep_until(until) => {} }
        })
        .await?;
        Ok(true)
    }
}

/// The kernel's `TCP_ESTABLISHED`.
const ESTABLISHED: u8 = 1;

/// Whether the client has closed its connection, by what the kernel knows of it. A body that fills the kernel's buffers hides that.
fn has_gone(downstream: &ServerSession) -> bool {
    let socket = downstream.digest().and_then(|digest| digest.socket_digest.as_ref());
    socket.and_then(|socket| socket.tcp_info()).is_some_and(|info| info.tcpi_state != ESTABLISHED)
}
