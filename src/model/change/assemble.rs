//! From specs to apps: slots, pools and look-ups.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;

use super::{Draft, Refused, RefusedKind};
use crate::model::admission::ReleaseState;
use crate::model::backend::{Backend, Live};
use crate::model::balance::Pool;
use crate::model::event::Owner;
use crate::model::identity::{SessionNames, pin_cookie_name};
use crate::model::ledger::Ledger;
use crate::model::memory::AppMemory;
use crate::model::pin::Keyring;
use crate::model::routes::Routes;
use crate::model::session_key::KeyedHash;
use crate::model::settings::{AppSpec, BackendSpec, Current, ReleaseSpec, SessionSettings, Settings};
use crate::model::tally::{AppTally, ReleaseTally};
use crate::model::time::Time;
use crate::model::view::{App, FormerName, Release};

/// An app that appears, with the secrets that the shell keeps for it.
#[derive(Clone)]
pub struct NewApp {
    /// As configured.
    pub spec: AppSpec,
    /// Signs its pins.
    pub keyring: Arc<Keyring>,
    /// Hashes its session ids.
    pub hash: Arc<KeyedHash>,
    /// How a process before left it; its releases are these, and not those of the specification.
    pub memory: Option<AppMemory>,
}

impl Draft {
    pub(super) fn load(&mut self, apps: &[NewApp]) {
        for new in apps {
            // Started without state: whoever has a session there may come back (DESIGN.md §7, reload).
            let app = self.assemble(new, ReleaseState::Draining);
            self.event(Arc::clone(&app.name), format!("loaded with {} releases", app.releases.len()));
            // What was left by a process before has its drains, or had them cancelled.
            for release in app.releases.iter().filter(|r| new.memory.is_none() && r.state == ReleaseState::Draining) {
                self.applied.drains.push(crate::model::target::Target::Release(app.name.to_string(), release.name.to_string()));
            }
            self.applied.view.apps.push(Arc::new(app));
        }
        self.applied.view.routes = Routes::new(self.applied.view.apps.iter().map(|app| app.matches.as_slice()));
    }

    /// `others` is the state of releases that are not current.
    pub(super) fn assemble(&self, new: &NewApp, others: ReleaseState) -> App {
        let spec = &new.spec;
        let session = &spec.settings.session;
        let mut app = App {
            name: spec.name.as_str().into(),
            matches: spec.matches.clone(),
            settings: Arc::new(spec.settings.clone()),
            names: Arc::new(names(session)),
            releases: Vec::new(),
            current: match &spec.current {
                Current::Release(name) => Some(name.as_str().into()),
                Current::ByHealth => None,
            },
            rolled_back_from: None,
            open: Pool::default(),
            backups: Pool::default(),
            backends: Vec::new(),
            by_name: HashMap::new(),
            former: Vec::new(),
            by_route: HashMap::new(),
            pin_cookie: pin_cookie_name(&spec.name).into(),
            ledger: Arc::new(Ledger::new(session.into(), self.now)),
            keyring: Arc::clone(&new.keyring),
            hash: Arc::clone(&new.hash),
            tally: Arc::new(AppTally::default()),
        };
        if let Some(memory) = &new.memory {
            self.recall(&mut app, memory);
            return app;
        }
        for release in &spec.releases {
            let state = match &spec.current {
                Current::ByHealth => ReleaseState::ByHealth,
                Current::Release(name) if *name == release.name => ReleaseState::Current,
                Current::Release(_) => others,
            };
            add_release(&mut app, release, state, Owner::Config, self.now);
        }
        app.refresh();
        app
    }
}

impl Draft {
    /// Releases as they were left.
    fn recall(&self, app: &mut App, memory: &AppMemory) {
        app.current = memory.current.as_deref().map(Into::into);
        app.rolled_back_from = memory.rolled_back_from.as_deref().map(Into::into);
        for release in &memory.releases {
            let lives = release.backends.iter().map(|backend| (Live::recall(backend, release.state), backend.left)).collect();
            add_lives(app, &release.spec(), lives, release.state, release.owner, release.since);
            app.edit(&release.name, |recalled| {
                (recalled.promoted, recalled.staged_at_run_time) = (release.promoted, release.staged_at_run_time);
            });
        }
        for former in &memory.former {
            if let Some(slot) = app.slot(&former.release, &former.backend) {
                let (release, name) = (former.release.as_str().into(), former.name.as_str().into());
                app.former.push(FormerName { release, name, until: former.until, slot });
            }
        }
        app.refresh();
    }
}

/// Appends a release in `state`; its backends get fresh slots.
pub(super) fn add_release(app: &mut App, spec: &ReleaseSpec, state: ReleaseState, owner: Owner, now: Time) {
    let lives = spec.backends.iter().map(|backend| (Live::new(backend, state, now), None)).collect();
    add_lives(app, spec, lives, state, owner, now);
}

/// The same with what lives on of each backend.
fn add_lives(app: &mut App, spec: &ReleaseSpec, lives: Vec<(Live, Option<Time>)>, state: ReleaseState, owner: Owner, now: Time) {
    let name: Arc<str> = spec.name.as_str().into();
    let mut backends = Vec::with_capacity(spec.backends.len());
    for (backend, (live, left)) in spec.backends.iter().zip(lives) {
        let backend = add_live(app, &name, backend, live, left);
        backends.push(backend);
    }
    let pool = pool(&app.settings, backends.iter(), false);
    app.releases.push(Arc::new(Release {
        label: label(&name),
        name,
        state,
        since: now,
        owner,
        promoted: state.open().then_some(now),
        staged_at_run_time: state == ReleaseState::Staged,
        path: spec.path.as_deref().map(Into::into),
        backends,
        pool,
        tally: Arc::new(ReleaseTally::default()),
    }));
}

/// Gives a backend the next slot. Its release does not list it yet, and the ledger hears of it when the view is published: a change
/// that is refused must leave no trace there.
pub(super) fn add_backend(app: &mut App, release: &Arc<str>, spec: &BackendSpec, state: ReleaseState, now: Time) -> Arc<Backend> {
    add_live(app, release, spec, Live::new(spec, state, now), None)
}

fn add_live(app: &mut App, release: &Arc<str>, spec: &BackendSpec, live: Live, left: Option<Time>) -> Arc<Backend> {
    let slot = u32::try_from(app.backends.len()).unwrap_or(u32::MAX);
    let live = Arc::new(live);
    let max_connections = spec.max_connections.or(app.settings.limits.max_connections);
    let backend = Backend { slot, release: Arc::clone(release), spec: Arc::new(spec.clone()), max_connections, live, left };
    let backend = Arc::new(backend);
    app.by_name.entry(Arc::clone(release)).or_default().insert(spec.name.as_str().into(), slot);
    app.backends.push(Some(Arc::clone(&backend)));
    backend
}

/// Where an app's session ids are looked for.
pub(super) fn names(session: &SessionSettings) -> SessionNames {
    SessionNames {
        cookies: session.cookies.clone(),
        path_parameter: session.path_parameter.clone(),
        query_parameter: session.query_parameter.clone(),
        header: session.header.clone(),
    }
}

/// A release's name as a header value. Each is kept for the life of the process: a copy of such a value is a pointer, without a
/// counter that all threads would share, and a few bytes for each release that ever was are its price.
fn label(name: &str) -> HeaderValue {
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    HeaderValue::from_bytes(kept.as_bytes()).map_or(HeaderValue::from_static("?"), |_| HeaderValue::from_static(kept))
}

pub(super) fn pool<'a>(settings: &Settings, backends: impl Iterator<Item = &'a Arc<Backend>>, backups: bool) -> Pool {
    // One whose address left the file takes nobody new, whatever is wanted of it.
    Pool::new(backends.filter(|b| b.spec.backup == backups && b.left.is_none()).cloned(), settings.balance)
}

impl App {
    /// Rebuilds what follows from the releases and their states.
    pub(super) fn refresh(&mut self) {
        let open: Vec<&Arc<Release>> = self.releases.iter().filter(|r| r.state.open()).collect();
        self.open = pool(&self.settings, open.iter().flat_map(|r| &r.backends), false);
        self.backups = pool(&self.settings, open.iter().flat_map(|r| &r.backends), true);
        // A route that a gone release left to another one names the latter, and so does one whose address was changed; the last
        // insertion stays.
        let (gone, here): (Vec<_>, Vec<_>) = self.releases.iter().partition(|r| r.state.gone());
        let (left, stay): (Vec<_>, Vec<_>) = here.into_iter().flat_map(|r| &r.backends).partition(|b| b.left.is_some());
        let all = gone.into_iter().flat_map(|r| &r.backends).chain(left).chain(stay);
        self.by_route = all.map(|b| (b.spec.route.as_str().into(), b.slot)).collect();
    }

    /// Slots of backends that no release lists any more become gaps; their names mean nobody.
    pub(super) fn forget(&mut self, backends: &[Arc<Backend>]) {
        for backend in backends {
            if let Some(place) = usize::try_from(backend.slot).ok().and_then(|slot| self.backends.get_mut(slot)) {
                *place = None;
            }
            if let Some(names) = self.by_name.get_mut(&backend.release) {
                names.retain(|_, slot| *slot != backend.slot);
            }
            self.former.retain(|former| former.slot != backend.slot);
        }
        self.by_name.retain(|_, names| !names.is_empty());
        self.refresh();
    }

    /// Changes one release; pools follow.
    pub(super) fn edit(&mut self, release: &str, change: impl FnOnce(&mut Release)) {
        if let Some(place) = self.releases.iter_mut().find(|r| &*r.name == release) {
            let mut edited = Release::clone(place);
            change(&mut edited);
            *place = Arc::new(edited);
        }
        self.refresh();
    }
}

/// What of a staged release clashes with the app as it is.
pub(super) fn clash(app: &App, spec: &ReleaseSpec) -> Option<Refused> {
    let conflict = |what: String, remedy: &str| Some(Refused::new(RefusedKind::Conflict, what, remedy));
    if app.release(&spec.name).is_some() {
        return conflict(
            format!("release '{}/{}' exists already", app.name, spec.name),
            "releases are immutable: choose another name, or remove the old one first",
        );
    }
    if spec.backends.is_empty() {
        return Some(Refused::new(RefusedKind::Invalid, format!("release '{}' has no backend", spec.name), "add --backend NAME=ADDRESS"));
    }
    for (index, new) in spec.backends.iter().enumerate() {
        if spec.backends.iter().take(index).any(|other| other.name == new.name || other.address == new.address) {
            return conflict(format!("backend '{}' is named or addressed twice", new.name), "give each backend its own name and address");
        }
        for release in app.releases.iter().filter(|r| !r.state.gone()) {
            for backend in &release.backends {
                if backend.spec.route == new.route {
                    let what = format!("route '{}' is taken by backend {}/{}/{}", new.route, app.name, release.name, backend.spec.name);
                    return conflict(what, "routes are unique in an app: choose another backend name");
                }
                if backend.spec.address == new.address && release.path.as_deref() == spec.path.as_deref() {
                    let what = format!("address {} is taken by backend {}/{}/{}", new.address, app.name, release.name, backend.spec.name);
                    return conflict(what, "use another address, or wait until that release is drained");
                }
            }
        }
    }
    None
}
