//! The file was edited: what of the edit is to be done to the view as it is now.
//!
//! An item has changed when the new file differs from the file that was applied last, not from the view: what was changed by
//! command and not by this edit stays as it is. All refusals are found at once, and one of them is enough to change nothing.
//!
//! | file | holds |
//! |---|---|
//! | `app` | settings, releases and `current` of an app that stays |
//! | `backends` | backends of a release that stays |

mod app;
mod backends;
#[cfg(test)]
mod tables;

use std::sync::Arc;

use super::unsure::unsure;
use super::{Applied, Draft, NewApp, Refused, RefusedKind};
use crate::model::admission::{Admission, Health, Intent, ReleaseState};
use crate::model::backend::Backend;
use crate::model::event::Owner;
use crate::model::routes::Routes;
use crate::model::settings::{AppSpec, WhenAllDraining};
use crate::model::target::Target;
use crate::model::time::Time;
use crate::model::view::{App, View};

/// Two versions of the file's apps.
#[derive(Clone)]
pub struct Reload {
    /// As applied last.
    pub applied: Vec<AppSpec>,
    /// As they are in the file now.
    pub next: Vec<NewApp>,
    /// Also where sessions are lost by it: they are evicted.
    pub force: bool,
    /// Clients are served meanwhile, so that a promotion needs a backend that has passed a probe. At a start nobody was asked yet,
    /// and nobody is served by a refusal.
    pub serving: bool,
}

/// What a reload would do.
#[derive(Debug, Default)]
pub struct Plan {
    /// To be published, unless there is a refusal.
    pub applied: Applied,
    /// What changes; empty when the apps are the same.
    pub lines: Vec<Line>,
    /// Why it may not be done.
    pub refusals: Vec<Refused>,
}

/// One thing that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As in a TARGET, or an app.
    pub at: String,
    /// For people.
    pub what: String,
    /// Confirmed live sessions that it touches; most of them feel nothing.
    pub live: u64,
}

impl Plan {
    /// As every other change; of several refusals one that tells them all.
    pub(super) fn into_applied(self) -> Result<Applied, Refused> {
        let Some(first) = self.refusals.first() else { return Ok(self.applied) };
        let told: Vec<String> = self.refusals.iter().map(|refused| refused.what.clone()).collect();
        Err(Refused { what: told.join("; "), ..first.clone() })
    }
}

/// Computes what a reload does to `view`. Nothing is changed.
pub fn plan(view: &View, reload: &Reload, owner: Owner, now: Time) -> Plan {
    let draft = Draft { applied: Applied { view: view.clone(), ..Applied::default() }, owner, now };
    let mut planner =
        Planner { draft, force: reload.force, serving: reload.serving, lines: Vec::new(), refusals: Vec::new(), gone: Vec::new() };
    for old in reload.applied.iter().filter(|old| !reload.next.iter().any(|new| new.spec.name == old.name)) {
        planner.remove_app(&old.name);
    }
    for new in &reload.next {
        let old = reload.applied.iter().find(|old| old.name == new.spec.name);
        match planner.draft.find(&new.spec.name) {
            Ok((index, app)) => planner.edit_app(index, &app, old, new),
            Err(_) => planner.add_app(new),
        }
    }
    planner.done(view, reload)
}

/// A plan in the making.
struct Planner {
    draft: Draft,
    force: bool,
    serving: bool,
    lines: Vec<Line>,
    refusals: Vec<Refused>,
    /// Backends that are listed no more, with their app.
    gone: Vec<(Arc<App>, Arc<Backend>)>,
}

impl Planner {
    fn line(&mut self, at: impl Into<String>, what: impl Into<String>, live: u64) {
        let (at, what) = (at.into(), what.into());
        self.draft.event(at.as_str(), what.clone());
        self.lines.push(Line { at, what, live });
    }

    fn refuse(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.refusals.push(Refused::new(RefusedKind::Conflict, what, remedy));
    }

    fn remove_app(&mut self, name: &str) {
        let Ok((index, app)) = self.draft.find(name) else { return };
        for release in &app.releases {
            self.leave(&app, &format!("{name}/{}", release.name), &release.backends, "an app that is renamed counts as removed");
        }
        self.draft.applied.view.apps.remove(index);
        let all: Vec<_> = app.releases.iter().flat_map(|r| &r.backends).cloned().collect();
        self.line(name, "removed", told(&all).live);
        self.gone.extend(all.into_iter().map(|b| (Arc::clone(&app), b)));
    }

    fn add_app(&mut self, new: &NewApp) {
        let app = self.draft.assemble(new, ReleaseState::Staged);
        self.line(new.spec.name.as_str(), format!("added with {} releases", app.releases.len()), 0);
        self.draft.applied.view.apps.push(Arc::new(app));
        for release in new.spec.releases.iter().map(|r| r.name.clone()).collect::<Vec<_>>() {
            self.edited(&new.spec.name, |app| app.edit(&release, |r| r.staged_at_run_time = false));
        }
    }

    /// These backends leave the view: refused while sessions live there, unless forced.
    fn leave(&mut self, app: &Arc<App>, at: &str, backends: &[Arc<Backend>], hint: &str) {
        let left = told(backends);
        if left.is_nobody() && (self.force || !self.serving) {
            return;
        }
        if left.is_nobody() {
            return self.leave_nobody(app, at, backends, hint);
        }
        if self.force {
            let slots = backends.iter().map(|b| b.slot).collect();
            self.draft.applied.evict.push((Arc::clone(app), slots));
            self.draft.event(at, format!("{left} are evicted"));
            return;
        }
        self.refuse(format!("{at}: {left}"), format!("{hint}; drain it first, or --force: they are evicted"));
    }

    /// Nobody is counted there. Unknown is not zero: an exchange under way may make a session, and people may be older than the ledger.
    fn leave_nobody(&mut self, app: &App, at: &str, backends: &[Arc<Backend>], hint: &str) {
        let gate = |b: &Backend| b.live.gate.read();
        let under_way: u64 = backends.iter().map(|b| u64::from(gate(b).in_flight)).sum();
        if under_way > 0 {
            let plural = if under_way == 1 { "" } else { "s" };
            return self
                .refuse(format!("{at}: {under_way} exchange{plural} under way"), format!("{hint}; try again in a moment, or --force"));
        }
        if let Some(doubt) = unsure(app, backends, self.draft.now) {
            self.refuse(
                format!("{at}: no session is known, but that is not sure yet: {doubt}"),
                format!("{hint}; drain it first (that waits until it is sure), or --force"),
            );
        }
    }

    fn edited(&mut self, name: &str, change: impl FnOnce(&mut App)) {
        if let Ok((index, app)) = self.draft.find(name) {
            let mut app = App::clone(&app);
            change(&mut app);
            self.draft.replace(index, app);
        }
    }

    /// What can be said only of the whole.
    fn done(mut self, before: &View, reload: &Reload) -> Plan {
        let place = |app: &Arc<App>| reload.next.iter().position(|new| new.spec.name == *app.name);
        self.draft.applied.view.apps.sort_by_key(place);
        let order = |apps: &[Arc<App>]| apps.iter().map(|app| Arc::clone(&app.name)).collect::<Vec<_>>();
        if self.lines.is_empty() && order(&before.apps) != order(&self.draft.applied.view.apps) {
            self.line("apps", "in another order", 0);
        }
        let view = &mut self.draft.applied.view;
        view.routes = Routes::new(view.apps.iter().map(|app| app.matches.as_slice()));
        for (app, backend) in std::mem::take(&mut self.gone) {
            self.draft.supersede_gone(&app.name, &backend.release, std::slice::from_ref(&backend));
        }
        let view = &self.draft.applied.view;
        // A release that stays is no gone target, whatever backend of it went.
        self.draft.applied.superseded.retain(|target| match target {
            Target::Release(app, release) => view.app(app).and_then(|app| app.release(release)).is_none_or(|r| !r.state.emptying()),
            _ => true,
        });
        self.draft.applied.drains.retain(|target| !target.backends(view).is_empty());
        for app in self.draft.applied.view.apps.clone() {
            self.clashes(&app);
            if let Some(was) =
                before.app(&app.name).filter(|was| !Arc::ptr_eq(was, &app) && !self.force && self.serving && self.refusals.is_empty())
            {
                self.keeps_taking(was, &app);
            }
        }
        Plan { applied: self.draft.applied.compared_with(before), lines: self.lines, refusals: self.refusals }
    }

    /// The file is checked; what was staged by command is not in it.
    fn clashes(&mut self, app: &App) {
        let present = app.releases.iter().filter(|r| !r.state.gone());
        let all: Vec<_> = present.flat_map(|r| r.backends.iter().filter(|b| b.left.is_none()).map(move |b| (r, b))).collect();
        for (nth, (release, backend)) in all.iter().enumerate() {
            for (other_release, other) in all.iter().take(nth) {
                let same_place = other.spec.address == backend.spec.address && other_release.path == release.path;
                let what = match () {
                    () if other.spec.route == backend.spec.route => format!("route '{}'", backend.spec.route),
                    () if same_place => format!("address {}", backend.spec.address),
                    () => continue,
                };
                let (one, two) = (format!("{}/{}", release.name, backend.spec.name), format!("{}/{}", other_release.name, other.spec.name));
                let remedy = "one of them was staged while running: drain and remove it, or choose another in the file";
                self.refuse(format!("{}: {what} is used by {two} and by {one}", app.name), remedy);
            }
        }
    }

    /// An edit that leaves an app without anybody who takes new sessions would answer new clients with 503.
    fn keeps_taking(&mut self, was: &App, app: &App) {
        let takes = |b: &Backend| b.admission() == Admission::Everyone && b.spec.weight > 0;
        if !was.open.backends().iter().any(|b| takes(b)) {
            return;
        }
        let intents = &self.draft.applied.intents;
        let intent = |b: &Backend| {
            let ordered = intents.iter().rev().find(|(live, _)| Arc::ptr_eq(live, &b.live)).map(|(_, intent)| *intent);
            ordered.unwrap_or(b.live.gate.read().intent)
        };
        let health = |b: &Backend| b.live.gate.read().health;
        let serves = |b: &&Arc<Backend>| intent(b) == Intent::Serve && health(b) == Health::Up && b.spec.weight > 0;
        let lends = |b: &&Arc<Backend>| {
            let healthy = matches!(health(b), Health::Up | Health::Draining);
            healthy && (intent(b) == Intent::Drain || b.emptying()) && intent(b) != Intent::Maintain && b.spec.weight > 0
        };
        let draining = app.settings.when_all_draining == WhenAllDraining::Serve
            && app.releases.iter().filter(|r| !r.state.gone()).flat_map(|r| &r.backends).any(|b| lends(&b));
        let open = app.open.backends().iter().chain(app.backups.backends());
        if !draining && !open.into_iter().any(|b| serves(&b)) {
            let what = format!("{}: no backend would take new sessions", app.name);
            self.refuse(what, "add the new backends first and take the old ones out when those are up, or --force");
        }
    }
}

/// Sessions of some backends, for people.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    live: u64,
    engaged: u64,
    unconfirmed: u64,
}

impl Told {
    fn is_nobody(&self) -> bool {
        self.live + self.unconfirmed == 0
    }
}

fn told(backends: &[Arc<Backend>]) -> Told {
    let mut sum = Told::default();
    for backend in backends {
        let counts = &backend.live.counts;
        sum.live += counts.live();
        sum.engaged += counts.engaged();
        sum.unconfirmed += counts.unconfirmed();
    }
    sum
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.live == 1 { "" } else { "s" };
        write!(f, "{} live session{plural} ({} engaged)", self.live, self.engaged)?;
        if self.unconfirmed > 0 { write!(f, ", {} unconfirmed", self.unconfirmed) } else { Ok(()) }
    }
}
