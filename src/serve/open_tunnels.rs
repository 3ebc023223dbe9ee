//! Tunnels (WebSockets) and event streams that are open, and `drain.tunnels`: those that outlive their session on a backend that
//! empties are closed. What is said of tunnels here holds for streams.
//!
//! A tunnel of a live session is never closed here: as an open exchange it keeps its session alive. The controller looks at all of
//! them in its turn; there is no timer per tunnel. Every open and close of a tunnel needs the lock of the table, so it is held for
//! neither a look at a ledger nor more than one walk.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::backend::Backend;
use crate::model::ledger::{Found, Standing};
use crate::model::session_key::SessionKey;
use crate::model::time::Time;
use crate::model::view::{App, View};
use crate::serve::transport::TunnelHandle;

/// Between two looks, unless a deadline is near.
const LOOK: Duration = Duration::from_secs(1);
/// Those in the way of a deadline begin to be closed so much earlier than their number needs: their sessions are evicted until a second
/// before it, and what is closed then has to leave.
const MARGIN: Duration = Duration::from_secs(2);

/// All open tunnels. Clones share them.
#[derive(Clone, Default)]
pub struct OpenTunnels(Arc<Shared>);

#[derive(Default)]
struct Shared {
    open: Mutex<HashMap<u64, OpenTunnel>>,
    last: AtomicU64,
    /// Taken by the controller alone, before `open`.
    looks: Mutex<Looks>,
}

/// One of them.
#[derive(Clone)]
struct OpenTunnel {
    app: Arc<App>,
    /// At its other end.
    backend: Arc<Backend>,
    /// The session that it came with, or that its answer made.
    key: Option<SessionKey>,
    opened: Time,
    /// When it was first seen without a live session, for ends that the ledger remembers nothing of.
    alone_since: Option<Time>,
    handle: TunnelHandle,
}

/// By its place in the table.
type Numbered = (u64, OpenTunnel);

/// Keeps a tunnel among the open ones; to be dropped with its exchange.
pub struct TunnelEntry {
    shared: Arc<Shared>,
    number: u64,
    handle: TunnelHandle,
}

impl TunnelEntry {
    /// Whether it was closed from here.
    pub fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }
}

impl Drop for TunnelEntry {
    fn drop(&mut self) {
        lock(&self.shared.open).remove(&self.number);
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The controller's looks.
#[derive(Default)]
struct Looks {
    next: Time,
    /// By app: closing all at once would be a rush of clients that come back.
    paces: HashMap<Arc<str>, Pace>,
}

/// How many may be closed.
struct Pace {
    credit: f64,
    at: Time,
}

impl Looks {
    /// How many of an app may be closed now; at most a second's worth.
    fn pace(&mut self, app: &App, rate: f64, now: Time) -> &mut Pace {
        let pace = self.paces.entry(Arc::clone(&app.name)).or_insert(Pace { credit: rate, at: now });
        pace.credit = (pace.credit + now.since(pace.at).as_secs_f64() * rate).min(rate);
        pace.at = now;
        pace
    }
}

impl OpenTunnels {
    /// Tunnels proper, without streams: each is a client connection that brings no other exchange.
    pub fn tunnels(&self) -> usize {
        lock(&self.0.open).values().filter(|tunnel| tunnel.handle.is_tunnel()).count()
    }

    /// A tunnel has opened to `backend`.
    pub fn enter(&self, app: &Arc<App>, backend: &Arc<Backend>, key: Option<SessionKey>, handle: TunnelHandle, now: Time) -> TunnelEntry {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed);
        let (app, backend) = (Arc::clone(app), Arc::clone(backend));
        let tunnel = OpenTunnel { app, backend, key, opened: now, alone_since: None, handle: handle.clone() };
        lock(&self.0.open).insert(number, tunnel);
        TunnelEntry { shared: Arc::clone(&self.0), number, handle }
    }

    /// Closes the tunnels on emptying backends whose session ended at least `drain.tunnels` ago, and those without a live session
    /// that are in the way of a deadline with `then: evict`; no more than `evict_per_second` of an app. Answers how many on each
    /// backend, named as in a TARGET.
    pub fn close_outliving(&self, view: &View, now: Time) -> Vec<(String, u64)> {
        let mut closed = Vec::new();
        let mut looks = lock(&self.0.looks);
        if now < looks.next {
            return closed;
        }
        looks.next = now + LOOK;
        let apps: Vec<&Arc<App>> = view.apps.iter().filter(|app| closes(app)).collect();
        looks.paces.retain(|name, _| apps.iter().any(|app| app.name == *name));
        if apps.is_empty() {
            return closed;
        }
        // By their ledgers: those survive snapshots, and name their app also to a tunnel of yesterday's.
        let mut found: Vec<(&Arc<App>, Vec<Numbered>)> = apps.into_iter().map(|app| (app, Vec::new())).collect();
        for (&number, tunnel) in lock(&self.0.open).iter().filter(|(_, tunnel)| tunnel.backend.emptying() && !tunnel.handle.is_closed()) {
            if let Some((_, of_app)) = found.iter_mut().find(|(app, _)| Arc::ptr_eq(&app.ledger, &tunnel.app.ledger)) {
                of_app.push((number, tunnel.clone()));
            }
        }
        for (app, tunnels) in found {
            self.look_at(&mut looks, app, tunnels, now, &mut closed);
        }
        closed
    }

    fn look_at(&self, looks: &mut Looks, app: &App, mut tunnels: Vec<Numbered>, now: Time, closed: &mut Vec<(String, u64)>) {
        let rate = f64::from(app.settings.drain.evict_per_second.max(1));
        let needed = Duration::from_secs_f64(tunnels.len() as f64 / rate) + MARGIN;
        let is_late = |tunnel: &OpenTunnel| tunnel.backend.live.evicts_at().is_some_and(|at| now + needed >= at);
        if tunnels.iter().any(|(_, tunnel)| is_late(tunnel)) {
            looks.next = now;
        }
        let mut due = Vec::new();
        for (number, tunnel) in &mut tunnels {
            let session = tunnel.key.and_then(|key| app.ledger.find(key, now));
            tunnel.look(session, now);
            let waited = tunnel.alone_since.zip(app.settings.drain.tunnels).is_some_and(|(since, patience)| now.since(since) >= patience);
            if waited || (is_late(tunnel) && !tunnel.lives(session)) {
                due.push(*number);
            }
        }
        let pace = looks.pace(app, rate, now);
        due.truncate(pace.credit as usize);
        pace.credit -= due.len() as f64;
        let mut open = lock(&self.0.open);
        for (number, tunnel) in &tunnels {
            if let Some(known) = open.get_mut(number) {
                known.alone_since = tunnel.alone_since;
            }
        }
        for number in due {
            // Under the lock: a connection may serve another exchange once this one has left.
            let Some(tunnel) = open.get(&number) else { continue };
            tunnel.handle.close();
            tunnel.backend.live.tally.tunnel_closed();
            let name = format!("{}/{}/{}", app.name, tunnel.backend.release, tunnel.backend.spec.name);
            match closed.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => closed.push((name, 1)),
            }
        }
    }
}

/// Whether tunnels of this app may have to be closed.
fn closes(app: &App) -> bool {
    app.settings.drain.tunnels.is_some() || app.backends.iter().flatten().any(|backend| backend.live.evicts_at().is_some())
}

impl OpenTunnel {
    /// Whether its session lives where it leads to.
    fn lives(&self, session: Option<Found>) -> bool {
        session.is_some_and(|found| matches!(found.standing, Standing::Live { .. }) && found.slot == self.backend.slot)
    }

    /// Notes since when its session has been over.
    fn look(&mut self, session: Option<Found>, now: Time) {
        self.alone_since = match session.map(|found| (found.standing, found.ended_at)) {
            _ if self.lives(session) => None,
            // Perhaps a person from before; the second use makes it live, or the idle timeout ends it.
            Some((Standing::Candidate, _)) => None,
            Some((Standing::Ended(_), Some(ended))) => Some(ended),
            // Where the ledger has no room for everybody, an id that it does not know may be anybody's.
            None if self.key.is_some() && self.app.ledger.overflowed() => None,
            None if self.key.is_none() => Some(self.opened),
            // It moved to another backend, or its end was forgotten.
            _ => Some(self.alone_since.unwrap_or(now)),
        };
    }
}

#[cfg(test)]
mod tests;
