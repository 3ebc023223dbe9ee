//! Everything that changes the snapshot: one `apply`, for startup, commands and the controller alike.
//!
//! `apply` computes the next view and a list of effects, or refuses and changes nothing. The caller publishes the view
//! between the two halves of [`Applied::commit`]: gates that open are opened before the new view can send anybody there,
//! gates that close are closed after nobody new can be sent.

mod assemble;
mod intent;
mod release;
pub mod reload;
#[cfg(test)]
mod tables;
mod unsure;

use std::sync::Arc;

use super::admission::{Intent, ReleaseState};
use super::backend::{Backend, Live};
use super::event::{Event, Owner};
use super::ledger::{Ledger, Rules};
use super::pin::Keyring;
use super::session_key::KeyedHash;
use super::settings::{AppSpec, ReleaseSpec};
use super::target::Target;
use super::time::Time;
use super::view::{App, View};

pub use assemble::NewApp;
use reload::Reload;

/// What is to change.
#[derive(Clone)]
pub enum Change {
    /// Apps appear, as read from the file at startup.
    Load(Vec<NewApp>),
    /// A release appears, hidden.
    Stage {
        /// The app.
        app: String,
        /// Its new release.
        release: ReleaseSpec,
    },
    /// A release takes all new sessions; the former current one drains.
    Promote {
        /// The app.
        app: String,
        /// The release.
        release: String,
        /// Refused unless this one is current: two pipelines cannot fight.
        from: Option<String>,
        /// Also without a healthy backend.
        force: bool,
    },
    /// The release that was current before is promoted. Where the current one is so by a rollback already, nothing changes unless
    /// `to` is given: the release before it is the one that failed.
    Rollback {
        /// The app.
        app: String,
        /// An older one than that.
        to: Option<String>,
        /// Refused unless this one is current.
        from: Option<String>,
        /// Also without a healthy backend.
        force: bool,
    },
    /// What the operator wants of backends.
    Intent {
        /// Which.
        target: Target,
        /// What.
        intent: Intent,
        /// Also when nobody is left to serve, or sessions live there.
        force: bool,
    },
    /// A cancelled drain of a backend or host gives back what it took: its backends serve again.
    GiveBack {
        /// What it emptied.
        target: Target,
        /// What other drains empty: their backends stay out, and so do those in maintenance.
        wanted_by: Vec<Target>,
    },
    /// The controller moves a draining release on.
    Settle {
        /// The app.
        app: String,
        /// The release.
        release: String,
        /// Draining, fencing or drained.
        state: ReleaseState,
    },
    /// A release is closed.
    Stop {
        /// The app.
        app: String,
        /// The release.
        release: String,
        /// Also when sessions live there: they are evicted.
        force: bool,
    },
    /// A release that was staged at run time is forgotten.
    Remove {
        /// The app.
        app: String,
        /// The release.
        release: String,
    },
    /// The file was edited.
    Reload(Reload),
    /// A backend whose address left the file is empty, and goes.
    Retire {
        /// The app.
        app: String,
        /// The release.
        release: String,
        /// The name under which it drained.
        backend: String,
    },
}

/// A change that was computed and not yet published.
#[derive(Debug, Default)]
pub struct Applied {
    /// The next snapshot.
    pub view: View,
    /// For the event log.
    pub events: Vec<Event>,
    /// Drains that begin.
    pub drains: Vec<Target>,
    /// Drains that end because their target is back in service or gone.
    pub superseded: Vec<Target>,
    /// Sessions in these slots are evicted.
    pub evict: Vec<(Arc<App>, Vec<u32>)>,
    intents: Vec<(Arc<Live>, Intent)>,
    rules: Vec<(Arc<Ledger>, Rules, Time)>,
    fresh: Vec<(Arc<Ledger>, Arc<Backend>)>,
}

impl Applied {
    /// Opens gates, calls `publish` with the new view, then closes gates.
    pub fn commit(&self, publish: impl FnOnce(View)) {
        for (ledger, backend) in &self.fresh {
            ledger.register(backend.slot, &backend.live.counts);
        }
        self.gates(ReleaseState::open);
        for (live, intent) in self.intents.iter().filter(|(_, intent)| *intent == Intent::Serve) {
            live.gate.set_intent(*intent);
        }
        publish(self.view.clone());
        self.gates(|state| !state.open());
        for (live, intent) in self.intents.iter().filter(|(_, intent)| *intent != Intent::Serve) {
            live.gate.set_intent(*intent);
        }
        for (ledger, rules, now) in &self.rules {
            ledger.set_rules(*rules, *now);
        }
    }

    /// Notes the backends that `before` has not: slots only grow.
    fn compared_with(mut self, before: &View) -> Applied {
        for app in &self.view.apps {
            let known =
                before.app(&app.name).filter(|known| Arc::ptr_eq(&known.ledger, &app.ledger)).map_or(0, |known| known.backends.len());
            let fresh = app.backends.iter().skip(known).flatten();
            self.fresh.extend(fresh.map(|backend| (Arc::clone(&app.ledger), Arc::clone(backend))));
        }
        self
    }

    fn gates(&self, which: impl Fn(ReleaseState) -> bool) {
        for release in self.view.apps.iter().flat_map(|app| &app.releases).filter(|r| which(r.state)) {
            for backend in &release.backends {
                if backend.live.gate.read().state != release.state {
                    backend.live.gate.set_state(release.state);
                }
            }
        }
    }
}

/// Why a change was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Of what kind.
    pub kind: RefusedKind,
    /// What is wrong, naming the object.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// Kinds of refusals, as the API tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedKind {
    /// An app, release or backend does not exist.
    NotFound,
    /// It would do harm, or somebody else was first.
    Conflict,
    /// It makes no sense.
    Invalid,
}

impl Refused {
    pub(crate) fn new(kind: RefusedKind, what: impl Into<String>, remedy: impl Into<String>) -> Refused {
        Refused { kind, what: what.into(), remedy: remedy.into() }
    }

    /// Nothing is called that; the remedy names what looks like it.
    pub(crate) fn no_target(target: &Target, view: &View) -> Refused {
        let nearest = target.nearest(view).join(", ");
        Refused::new(RefusedKind::NotFound, format!("target '{target}' does not exist"), format!("nearest: {nearest}"))
    }
}

/// Computes the view after `change`.
///
/// # Errors
/// [`Refused`] when the change names what does not exist, would lose sessions without being forced to, or comes too late.
pub fn apply(view: &View, change: &Change, owner: Owner, now: Time) -> Result<Applied, Refused> {
    let mut next = Draft { applied: Applied { view: view.clone(), ..Applied::default() }, owner, now };
    match change {
        Change::Load(apps) => next.load(apps),
        Change::Stage { app, release } => next.stage(app, release)?,
        Change::Promote { app, release, from, force } => next.promote(app, release, from.as_deref(), *force)?,
        Change::Rollback { app, to, from, force } => next.rollback(app, to.as_deref(), from.as_deref(), *force)?,
        Change::Intent { target, intent, force } => next.intent(target, *intent, *force)?,
        Change::GiveBack { target, wanted_by } => next.give_back(target, wanted_by),
        Change::Settle { app, release, state } => next.settle(app, release, *state)?,
        Change::Stop { app, release, force } => next.stop(app, release, *force)?,
        Change::Remove { app, release } => next.remove(app, release)?,
        Change::Reload(reload) => return reload::plan(view, reload, owner, now).into_applied(),
        Change::Retire { app, release, backend } => next.retire(app, release, backend)?,
    }
    Ok(next.applied.compared_with(view))
}

/// A view in the making.
struct Draft {
    applied: Applied,
    owner: Owner,
    now: Time,
}

impl Draft {
    fn find(&self, app: &str) -> Result<(usize, Arc<App>), Refused> {
        let apps = &self.applied.view.apps;
        match apps.iter().position(|a| &*a.name == app) {
            Some(index) => Ok((index, apps.get(index).map(Arc::clone).unwrap_or_else(|| unreachable!("position is in range")))),
            None => {
                let known: Vec<&str> = apps.iter().map(|a| &*a.name).collect();
                Err(Refused::new(RefusedKind::NotFound, format!("app '{app}' does not exist"), format!("apps are: {}", known.join(", "))))
            }
        }
    }

    fn replace(&mut self, index: usize, app: App) {
        if let Some(place) = self.applied.view.apps.get_mut(index) {
            *place = Arc::new(app);
        }
    }

    fn event(&mut self, target: impl Into<Arc<str>>, what: impl Into<String>) {
        let event = Event { at: self.now, owner: self.owner, target: target.into(), what: what.into() };
        self.applied.events.push(event);
    }
}

fn no_release(app: &App, release: &str) -> Refused {
    let known: Vec<&str> = app.releases.iter().map(|r| &*r.name).collect();
    let what = format!("release '{release}' of app '{}' does not exist", app.name);
    Refused::new(RefusedKind::NotFound, what, format!("releases are: {}", known.join(", ")))
}

/// For tests and benches: an app spec becomes a view with all backends `up`.
#[doc(hidden)]
pub fn loaded(specs: Vec<AppSpec>, now: Time) -> View {
    let secret = [7u8; 32];
    let keyring = || Keyring::new([("test", secret.as_slice())]).unwrap_or_else(|fault| unreachable!("a fixed good key: {fault:?}"));
    let apps = specs.into_iter().map(|spec| NewApp {
        spec,
        keyring: Arc::new(keyring()),
        hash: Arc::new(KeyedHash::new(secret.first_chunk().copied().unwrap_or_default())),
        memory: None,
    });
    let change = Change::Load(apps.collect());
    let applied = apply(&View::default(), &change, Owner::Config, now).unwrap_or_default();
    applied.commit(|_| ());
    for app in &applied.view.apps {
        for backend in app.backends.iter().flatten() {
            backend.live.observe(super::admission::Health::Up, now);
        }
    }
    applied.view
}
