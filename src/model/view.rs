//! The one published snapshot: apps, releases, backends and compiled routes.
//!
//! A view is never changed; `change::apply` makes the next one. What moves between two views (health, counts, exchanges in
//! flight) lives behind `Arc`s that both share.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::admission::{Admission, ReleaseState};
use super::backend::Backend;
use super::balance::Pool;
use super::event::Owner;
use super::identity::SessionNames;
use super::ledger::Ledger;
use super::pin::Keyring;
use super::routes::Routes;
use super::session_key::KeyedHash;
use super::settings::{Match, Settings};
use super::tally::{AppTally, ReleaseTally};
use super::time::Time;

/// The snapshot.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// In the order of the file.
    pub apps: Vec<Arc<App>>,
    /// Which app serves a host and path.
    pub routes: Routes,
}

impl View {
    /// The app of that name.
    pub fn app(&self, name: &str) -> Option<&Arc<App>> {
        self.apps.iter().find(|app| &*app.name == name)
    }

    /// The app that serves this host and path, and its public prefix.
    pub fn route(&self, host: Option<&str>, path: &str) -> Option<(&Arc<App>, &str)> {
        let (app, prefix) = self.routes.find(host, path)?;
        Some((self.apps.get(app)?, prefix))
    }
}

/// What a host and path prefix serves.
#[derive(Clone)]
pub struct App {
    /// Unique.
    pub name: Arc<str>,
    /// Where it is reached.
    pub matches: Vec<Match>,
    /// Everything that is not a release.
    pub settings: Arc<Settings>,
    /// Where session ids are looked for.
    pub names: Arc<SessionNames>,
    /// The name of its pin cookie.
    pub pin_cookie: Arc<str>,
    /// In the order in which they came; a promotion does not reorder them.
    pub releases: Vec<Arc<Release>>,
    /// The current release; `None` means by health.
    pub current: Option<Arc<str>>,
    /// The release that the current one replaced, if it is current by a rollback; a later promotion clears it.
    pub rolled_back_from: Option<Arc<str>>,
    /// Where new clients go.
    pub open: Pool,
    /// Where they go when nobody else is left.
    pub backups: Pool,
    /// By slot; a removed backend leaves a gap.
    pub backends: Vec<Option<Arc<Backend>>>,
    /// Slots by release and backend name.
    pub by_name: HashMap<Arc<str>, HashMap<Box<str>, u32>>,
    /// Names that stood for another backend before a reload; empty unless an address was changed.
    pub former: Vec<FormerName>,
    /// By the suffix or prefix that the application or HAProxy writes.
    pub by_route: HashMap<Box<str>, u32>,
    /// Live sessions.
    pub ledger: Arc<Ledger>,
    /// Signs and verifies pins.
    pub keyring: Arc<Keyring>,
    /// Turns session ids into ledger keys.
    pub hash: Arc<KeyedHash>,
    /// What happened so far.
    pub tally: Arc<AppTally>,
}

impl App {
    /// The backend in that slot.
    pub fn backend(&self, slot: u32) -> Option<&Arc<Backend>> {
        self.backends.get(usize::try_from(slot).ok()?)?.as_ref()
    }

    /// The release of that name.
    pub fn release(&self, name: &str) -> Option<&Arc<Release>> {
        self.releases.iter().find(|r| &*r.name == name)
    }

    /// The slot of a backend by names.
    pub fn slot(&self, release: &str, backend: &str) -> Option<u32> {
        self.by_name.get(release)?.get(backend).copied()
    }

    /// The slot that a pin means which was issued then: a name whose address was changed since means the backend that had it. Where
    /// the ledger knows the id at a backend that once had the name, that one is meant: an answer under way at the change, or another proxy that
    /// had not read the file yet, wrote the name later than that.
    pub fn pinned_slot(&self, release: &str, backend: &str, issued: Time, known_at: Option<u32>) -> Option<u32> {
        let same_name = |former: &&FormerName| *former.release == *release && *former.name == *backend;
        let named = || self.former.iter().filter(same_name).filter(|former| self.backend(former.slot).is_some());
        if let Some(home) = named().find(|former| Some(former.slot) == known_at) {
            return Some(home.slot);
        }
        let former = named().filter(|former| issued.as_secs() <= former.until.as_secs()).min_by_key(|former| former.until);
        former.map(|former| former.slot).or_else(|| self.slot(release, backend))
    }

    /// When a pin that calls a backend by its present name is to say that it was issued: pins count seconds, and in the second in
    /// which the name passed to it a pin would still mean the backend before.
    pub fn issue_time(&self, backend: &Backend, now: Time) -> Time {
        let before =
            |former: &&FormerName| *former.release == *backend.release && *former.name == *backend.spec.name && former.slot != backend.slot;
        let passed = self.former.iter().filter(before).map(|former| former.until.as_secs()).max();
        if passed == Some(now.as_secs()) { now + Duration::from_secs(1) } else { now }
    }

    /// The newest release that takes new sessions: what `X-Tidegate-Current` says.
    pub fn newest(&self) -> Option<&Arc<Release>> {
        match &self.current {
            Some(name) => self.release(name),
            None => {
                let open = || self.releases.iter().rev().filter(|r| r.state.open());
                let serves = |r: &&Arc<Release>| r.backends.iter().any(|b| b.admission() == Admission::Everyone);
                open().find(serves).or_else(|| open().next())
            }
        }
    }
}

/// What a backend's name meant up to a reload that changed its address.
#[derive(Clone, Debug)]
pub struct FormerName {
    /// The release.
    pub release: Arc<str>,
    /// The backend's name in pins.
    pub name: Box<str>,
    /// Pins issued up to then mean `slot`. Time decides and no counter, so that two proxies agree.
    pub until: Time,
    /// The backend that was meant.
    pub slot: u32,
}

impl fmt::Debug for App {
    /// The name only: keys are secrets, and the ledger is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One immutable version of an app.
#[derive(Clone, Debug)]
pub struct Release {
    /// Unique in the app.
    pub name: Arc<str>,
    /// The name as a header value.
    pub label: HeaderValue,
    /// Where it stands.
    pub state: ReleaseState,
    /// Since when.
    pub since: Time,
    /// Who brought it there.
    pub owner: Owner,
    /// When it last became current; rollback goes to the latest before the present one.
    pub promoted: Option<Time>,
    /// Whether it was staged at run time, not read from the file.
    pub staged_at_run_time: bool,
    /// The backends' own path prefix.
    pub path: Option<Arc<str>>,
    /// In the order of the file.
    pub backends: Vec<Arc<Backend>>,
    /// Those that take new sessions, for moves within the release.
    pub pool: Pool,
    /// How long its exchanges took.
    pub tally: Arc<ReleaseTally>,
}

impl Release {
    /// Confirmed live sessions.
    pub fn live(&self) -> u64 {
        self.backends.iter().map(|b| b.live.counts.live()).sum()
    }

    /// Newborns whose client has not come back yet.
    pub fn unconfirmed(&self) -> u64 {
        self.backends.iter().map(|b| b.live.counts.unconfirmed()).sum()
    }

    /// Exchanges under way.
    pub fn in_flight(&self) -> u64 {
        self.backends.iter().map(|b| u64::from(b.live.gate.in_flight())).sum()
    }
}
