//! Tunnels (WebSockets) that are open, and `drain.tunnels`: those that outlive their session on a backend that empties are closed.
//!
//! A tunnel of a live session is never closed here: as an open exchange it keeps its session alive. The controller looks at all of
//! them in its turn; there is no timer per tunnel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::ledger::{Found, Standing};
use crate::model::session_key::SessionKey;
use crate::model::time::Time;
use crate::model::view::{App, View};
use crate::serve::transport::TunnelHandle;

/// All open tunnels. Clones share them.
#[derive(Clone, Default)]
pub struct OpenTunnels(Arc<Shared>);

#[derive(Default)]
struct Shared {
    open: Mutex<HashMap<u64, OpenTunnel>>,
    last: AtomicU64,
}

/// One of them.
struct OpenTunnel {
    app: Arc<App>,
    /// The backend at its other end.
    slot: u32,
    /// The session that it came with, or that its 101 made.
    key: Option<SessionKey>,
    opened: Time,
    /// When it was first seen without a live session, for ends that the ledger remembers nothing of.
    alone_since: Option<Time>,
    handle: TunnelHandle,
}

/// Keeps a tunnel among the open ones; to be dropped with its exchange.
pub struct TunnelEntry {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for TunnelEntry {
    fn drop(&mut self) {
        self.shared.lock().remove(&self.number);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, OpenTunnel>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenTunnels {
    /// A tunnel has opened to the backend in `slot`.
    pub fn enter(&self, app: &Arc<App>, slot: u32, key: Option<SessionKey>, handle: TunnelHandle, now: Time) -> TunnelEntry {
        let number = self.0.last.fetch_add(1, Ordering::Relaxed);
        let tunnel = OpenTunnel { app: Arc::clone(app), slot, key, opened: now, alone_since: None, handle };
        self.0.lock().insert(number, tunnel);
        TunnelEntry { shared: Arc::clone(&self.0), number }
    }

    /// Closes the tunnels on emptying backends whose session ended at least `drain.tunnels` ago. Answers how many on each backend,
    /// named as in a TARGET.
    pub fn close_outliving(&self, view: &View, now: Time) -> Vec<(String, u64)> {
        let mut closed: Vec<(String, u64)> = Vec::new();
        for tunnel in self.0.lock().values_mut() {
            // Settings and backends of today, also for a tunnel of yesterday's snapshot.
            let own = Arc::clone(&tunnel.app);
            let app = view.app(&own.name).unwrap_or(&own);
            let Some(patience) = app.settings.drain.tunnels else { continue };
            let Some(backend) = app.backend(tunnel.slot).or_else(|| own.backend(tunnel.slot)) else { continue };
            if !backend.emptying() || tunnel.handle.is_closed() {
                continue;
            }
            let found = tunnel.key.and_then(|key| own.ledger.find(key, now));
            if !tunnel.outlives(found, patience, now) {
                continue;
            }
            tunnel.handle.close();
            backend.live.tally.tunnel_closed();
            let name = format!("{}/{}/{}", app.name, backend.release, backend.spec.name);
            match closed.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => closed.push((name, 1)),
            }
        }
        closed
    }
}

impl OpenTunnel {
    /// Whether its session has been over for `patience`.
    fn outlives(&mut self, found: Option<Found>, patience: Duration, now: Time) -> bool {
        let since = match found.map(|found| (found.standing, found.slot, found.ended_at)) {
            Some((Standing::Live { .. }, slot, _)) if slot == self.slot => None,
            // Perhaps a person from before; the second use makes it live, or the idle timeout ends it.
            Some((Standing::Candidate, ..)) => None,
            Some((Standing::Ended(_), _, Some(ended))) => Some(ended),
            // Where the ledger has no room for everybody, an id that it does not know may be anybody's.
            None if self.key.is_some() && self.app.ledger.overflowed() => None,
            None if self.key.is_none() => Some(self.opened),
            // It moved to another backend, or its end was forgotten.
            _ => Some(self.alone_since.unwrap_or(now)),
        };
        self.alone_since = since;
        since.is_some_and(|since| now.since(since) >= patience)
    }
}

#[cfg(test)]
mod tests;
