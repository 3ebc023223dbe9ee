//! What of apps and drains outlives the process, besides sessions: as plain data that can be written down and read again.
//!
//! A memory holds what commands and drains brought about, never what the file says: settings come from the configuration that was
//! last applied. Releases and backends are told by names; slots are of one process.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::admission::{Health, Intent, ReleaseState};
use super::event::{Event, Owner};
use super::incarnation::{Instance, LivesMemory};
use super::settings::{BackendSpec, DrainThen, ReleaseSpec};
use super::time::Time;
use super::view::{App, FormerName, Release};

/// An app as it was left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppMemory {
    /// The current release; `None` means by health.
    pub current: Option<String>,
    /// The release that failed, if the current one is so by a rollback.
    pub rolled_back_from: Option<String>,
    /// In the order in which they came.
    pub releases: Vec<ReleaseMemory>,
    /// What names of backends meant before.
    #[serde(default)]
    pub former: Vec<FormerMemory>,
}

/// What a backend's name meant up to a reload that changed its address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerMemory {
    /// The release.
    pub release: String,
    /// The backend's name in pins.
    pub name: String,
    /// Pins issued up to then mean `backend`.
    pub until: Time,
    /// The present name of the backend that was meant.
    pub backend: String,
}

/// A release as it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseMemory {
    /// Unique in the app.
    pub name: String,
    /// The backends' own path prefix.
    pub path: Option<String>,
    /// Where it stood.
    pub state: ReleaseState,
    /// Since when.
    pub since: Time,
    /// Who brought it there.
    pub owner: Owner,
    /// When it last became current.
    pub promoted: Option<Time>,
    /// Whether it was staged at run time, not read from the file.
    pub staged_at_run_time: bool,
    /// In the order of the file.
    pub backends: Vec<BackendMemory>,
}

/// A backend as it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendMemory {
    /// As configured or staged.
    pub spec: BackendSpec,
    /// What the operator wanted of it.
    pub intent: Intent,
    /// What probing had found.
    pub health: Health,
    /// A finished drain had closed it.
    pub fenced: bool,
    /// The lives of its process.
    pub lives: LivesMemory,
    /// How often its sessions were in doubt.
    #[serde(default)]
    pub doubts: u32,
    /// The last one, where it says so itself: another one that answers later is proof of a restart in between.
    pub instance: Option<Instance>,
    /// Since when we have seen its traffic.
    pub since: Time,
    /// When its address left the file for another one under the same name.
    pub left: Option<Time>,
}

/// A drain as it was left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainMemory {
    /// Written `d7`.
    pub id: u64,
    /// As typed: `shop/v41`.
    pub target: String,
    /// Who began it.
    pub owner: Owner,
    /// When.
    pub started: Time,
    /// Live sessions when it began.
    pub initial: u64,
    /// Empty by then.
    pub deadline: Option<Time>,
    /// What the deadline does.
    pub then: DrainThen,
    /// `draining`, `fencing`, or its verdict.
    pub state: String,
    /// When it reached its verdict.
    pub finished: Option<Time>,
    /// Ends so far, by reason.
    pub ended: BTreeMap<String, u64>,
    /// What its verdict found; `None` while it runs.
    pub outcome: Option<OutcomeMemory>,
}

/// What a verdict found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutcomeMemory {
    /// Sessions left that were engaged.
    pub engaged: u64,
    /// Sessions left that were kept alive.
    pub kept_alive: u64,
    /// Newborns left.
    pub unconfirmed: u64,
    /// Exchanges under way.
    pub in_flight: u64,
    /// Whether the count was believed.
    pub confident: bool,
    /// Backends it covered.
    pub backends: u64,
    /// Those of them that were down.
    pub down: u64,
}

/// One transition, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMemory {
    /// When.
    pub at: Time,
    /// By whom.
    pub owner: Owner,
    /// What it happened to.
    pub target: String,
    /// What happened.
    pub what: String,
}

impl AppMemory {
    /// What is to be remembered of an app.
    pub fn of(app: &App) -> AppMemory {
        AppMemory {
            current: app.current.as_deref().map(str::to_owned),
            rolled_back_from: app.rolled_back_from.as_deref().map(str::to_owned),
            releases: app.releases.iter().map(|release| ReleaseMemory::of(release)).collect(),
            former: app.former.iter().filter_map(|former| FormerMemory::of(app, former)).collect(),
        }
    }

    /// Whoever may have been born unseen: sessions of the last moment before an end that nobody expected are in no file. Backends
    /// that took new sessions are as young as `now`.
    pub fn doubt_births(&mut self, now: Time) {
        for release in self.releases.iter_mut().filter(|release| release.state.open()) {
            for backend in &mut release.backends {
                backend.since = now;
            }
        }
    }

    /// Nobody knows what happened for a long time before `now`, wherever it was: every backend is as young as that.
    pub fn doubt_all(&mut self, now: Time) {
        for backend in self.releases.iter_mut().flat_map(|release| &mut release.backends) {
            backend.since = now;
        }
    }

    /// Moves all points in time, after the wall clock was set.
    pub fn shift(&mut self, shift: impl Fn(Time) -> Time) {
        self.former.iter_mut().for_each(|former| former.until = shift(former.until));
        for release in &mut self.releases {
            release.since = shift(release.since);
            release.promoted = release.promoted.map(&shift);
            for backend in &mut release.backends {
                backend.since = shift(backend.since);
                backend.left = backend.left.map(&shift);
                if backend.lives.proven > Time(0) {
                    (backend.lives.after, backend.lives.proven) = (shift(backend.lives.after), shift(backend.lives.proven));
                }
                if let Some(instance) = &mut backend.instance {
                    instance.seen = shift(instance.seen);
                }
            }
        }
    }
}

impl FormerMemory {
    fn of(app: &App, former: &FormerName) -> Option<FormerMemory> {
        let backend = app.backend(former.slot)?.spec.name.clone();
        Some(FormerMemory { release: former.release.to_string(), name: former.name.to_string(), until: former.until, backend })
    }
}

impl ReleaseMemory {
    fn of(release: &Release) -> ReleaseMemory {
        let backend = |backend: &Arc<super::backend::Backend>| {
            let gate = backend.live.gate.read();
            BackendMemory {
                spec: (*backend.spec).clone(),
                intent: gate.intent,
                health: gate.health,
                fenced: gate.fenced,
                lives: backend.live.lives.remember(),
                doubts: backend.live.counts.doubts(),
                instance: backend.live.instance(),
                since: backend.live.since,
                left: backend.left,
            }
        };
        ReleaseMemory {
            name: release.name.to_string(),
            path: release.path.as_deref().map(str::to_owned),
            state: release.state,
            since: release.since,
            owner: release.owner,
            promoted: release.promoted,
            staged_at_run_time: release.staged_at_run_time,
            backends: release.backends.iter().map(backend).collect(),
        }
    }

    /// As it was configured or staged.
    pub fn spec(&self) -> ReleaseSpec {
        let backends = self.backends.iter().map(|backend| backend.spec.clone()).collect();
        ReleaseSpec { name: self.name.clone(), path: self.path.clone(), backends }
    }
}

impl DrainMemory {
    /// Moves all points in time, after the wall clock was set.
    pub fn shift(&mut self, shift: impl Fn(Time) -> Time) {
        self.started = shift(self.started);
        self.deadline = self.deadline.map(&shift);
        self.finished = self.finished.map(&shift);
    }
}

impl From<&Event> for EventMemory {
    fn from(event: &Event) -> EventMemory {
        EventMemory { at: event.at, owner: event.owner, target: event.target.to_string(), what: event.what.clone() }
    }
}

impl From<EventMemory> for Event {
    fn from(event: EventMemory) -> Event {
        Event { at: event.at, owner: event.owner, target: event.target.into(), what: event.what }
    }
}
