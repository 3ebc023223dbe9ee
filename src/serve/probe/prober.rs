//! Who is watched: every backend of the snapshot, each by a task of its own, so that a slow one delays no other.
//!
//! A backend is known by its `Live`, which outlives snapshots: a backend that is in the next snapshot too keeps its task
//! and what it has learnt.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;

use super::count;
use super::watch::{Subject, Watch};
use crate::model::backend::{Backend, Live};
use crate::model::balance::mix;
use crate::model::health::ConnectFailure;
use crate::model::view::View;
use crate::serve::control::Control;
use crate::serve::outbound::Connectors;

/// A snapshot that changed without an event is noticed after this time: soon enough for a person who staged a release.
const LOOK: Duration = Duration::from_millis(200);
/// What the first round of probes may take beyond the longest timeout: connecting, scheduling, a busy machine.
const FIRST_ROUND_SLACK: Duration = Duration::from_millis(500);

/// Watches all backends until it is dropped.
pub struct Prober {
    roster: Arc<Roster>,
    follower: AbortHandle,
}

impl Prober {
    /// Begins to probe every backend of the snapshot, and follows the snapshot. Needs a tokio runtime.
    pub fn start(control: Arc<Control>) -> Arc<Prober> {
        let roster = Arc::new(Roster { control, connectors: Arc::default(), watched: Mutex::default(), seed: seed() });
        let view = roster.control.view();
        roster.update(&view);
        let follower = tokio::spawn(Arc::clone(&roster).follow(view)).abort_handle();
        Arc::new(Prober { roster, follower })
    }

    /// Waits until every backend was probed once, at most for the longest timeout and half a second.
    pub async fn first_round(&self) {
        let watches: Vec<_> = self.roster.lock().values().map(|watched| Arc::clone(&watched.watch)).collect();
        let limit = watches.iter().map(|watch| watch.timeout()).max().unwrap_or_default() + FIRST_ROUND_SLACK;
        let all = async {
            for watch in &watches {
                watch.first_answer().await;
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            log::warn!("some backends have not been probed within {limit:?}; new sessions go to the others");
        }
    }

    /// What it connects with, for other requests of our own.
    pub fn connectors(&self) -> Arc<Connectors> {
        Arc::clone(&self.roster.connectors)
    }

    /// A connect of real traffic failed; for `fail_to_connect`, where [`ConnectFailure::of`] says of which kind it was.
    pub fn report_connect_failure(&self, backend: &Backend, kind: ConnectFailure) {
        let watch = self.roster.lock().get(&identity(&backend.live)).map(|watched| Arc::clone(&watched.watch));
        // A backend that has left the snapshot is nobody's concern.
        if let Some(watch) = watch {
            watch.connect_failed(kind);
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

struct Roster {
    control: Arc<Control>,
    connectors: Arc<Connectors>,
    watched: Mutex<HashMap<usize, Watched>>,
    seed: u64,
}

/// A watch and its tasks, which end with it.
struct Watched {
    watch: Arc<Watch>,
    task: AbortHandle,
    /// Asks for the number of sessions, where that is configured.
    count: Option<AbortHandle>,
}

impl Watched {
    fn begin_count(&mut self, connectors: &Arc<Connectors>) {
        // It ends by itself when the settings have no count probe any more.
        if self.watch.subject().count_probe.is_some() && self.count.as_ref().is_none_or(AbortHandle::is_finished) {
            self.count = Some(tokio::spawn(count::run(Arc::clone(&self.watch), Arc::clone(connectors))).abort_handle());
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(count) = &self.count {
            count.abort();
        }
    }
}

impl Roster {
    async fn follow(self: Arc<Self>, mut seen: Arc<View>) {
        let mut news = self.control.follow();
        loop {
            let view = self.control.view();
            if !Arc::ptr_eq(&view, &seen) {
                self.update(&view);
                seen = view;
            }
            match tokio::time::timeout(LOOK, news.recv()).await {
                Ok(Err(RecvError::Closed)) => return,
                // Every change has an event, and every event may be a change.
                Ok(Ok(_) | Err(RecvError::Lagged(_))) | Err(_) => {}
            }
        }
    }

    fn update(&self, view: &View) {
        let mut watched = self.lock();
        let mut present = HashMap::with_capacity(watched.len());
        for app in &view.apps {
            for backend in app.backends.iter().flatten() {
                let key = identity(&backend.live);
                let subject = Subject::new(app, backend);
                let mut kept = match watched.entry(key) {
                    Entry::Occupied(known) => {
                        let known = known.remove();
                        known.watch.update(subject);
                        known
                    }
                    Entry::Vacant(_) => self.begin(&backend.live, subject, key),
                };
                kept.begin_count(&self.connectors);
                present.insert(key, kept);
            }
        }
        // What is left in the old table is not in the snapshot any more: dropping it ends its task.
        *watched = present;
    }

    fn begin(&self, live: &Arc<Live>, subject: Subject, key: usize) -> Watched {
        let watch = Arc::new(Watch::new(Arc::clone(&self.control), Arc::clone(live), subject));
        let run = Arc::clone(&watch).run(Arc::clone(&self.connectors), mix(self.seed ^ key as u64));
        Watched { watch, task: tokio::spawn(run).abort_handle(), count: None }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unique while the `Live` is in the table, for the table keeps it alive.
fn identity(live: &Arc<Live>) -> usize {
    Arc::as_ptr(live).addr()
}

/// Without entropy from the system the jitter of two processes is the same: no harm.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_default()
}

#[cfg(test)]
mod tests;
