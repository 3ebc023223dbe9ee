//! What the operator wants of backends: serve, drain, maintain.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Draft, Refused, RefusedKind};
use crate::model::admission::{Admission, Health, Intent, ReleaseState};
use crate::model::backend::Backend;
use crate::model::settings::WhenAllDraining;
use crate::model::target::Target;
use crate::model::view::App;

impl Draft {
    pub(super) fn intent(&mut self, target: &Target, intent: Intent, force: bool) -> Result<(), Refused> {
        let backends = target.backends(&self.applied.view);
        if backends.is_empty() {
            return Err(Refused::no_target(target, &self.applied.view));
        }
        if let Target::Release(app, release) = target {
            return self.release_intent(app, release, intent, target);
        }
        if intent != Intent::Serve && !force {
            last_one(&backends, intent)?;
        }
        if intent == Intent::Maintain && !force {
            let live: u64 = backends.iter().map(|(_, b)| b.live.counts.live()).sum();
            if live > 0 {
                let what = format!("target '{target}': {live} live sessions");
                return Err(Refused::new(
                    RefusedKind::Conflict,
                    what,
                    format!("drain it first (tidegate drain {target} --wait), or --force"),
                ));
            }
        }
        let mut backends = backends;
        if intent == Intent::Serve {
            let left = backends.iter().find(|(_, b)| b.left.is_some()).map(|(_, b)| b.spec.address.clone());
            backends.retain(|(_, b)| b.left.is_none());
            if let Some(address) = left.filter(|_| backends.is_empty()) {
                let what = format!("'{target}': its address {address} is not in the file any more");
                return Err(Refused::new(
                    RefusedKind::Conflict,
                    what,
                    "it drains and goes; put the address back into the file, and reload",
                ));
            }
        }
        let same = backends.iter().all(|(_, b)| b.live.gate.read().intent == intent);
        self.applied.intents = backends.iter().map(|(_, b)| (Arc::clone(&b.live), intent)).collect();
        match intent {
            Intent::Drain => self.applied.drains.push(target.clone()),
            Intent::Serve | Intent::Maintain => self.supersede(target, &backends),
        }
        if !same {
            self.event(target.to_string(), intent.as_str());
        }
        Ok(())
    }

    /// No drain is superseded by it: whoever still wants one of these backends out keeps it out.
    pub(super) fn give_back(&mut self, target: &Target, wanted_by: &[Target]) {
        let view = &self.applied.view;
        // Those of releases hold by the state of the release, not by intents.
        let others = wanted_by.iter().filter(|other| !matches!(other, Target::Release(..)));
        let wanted: HashSet<_> = others.flat_map(|other| other.backends(view)).map(|(_, b)| Arc::as_ptr(&b.live)).collect();
        let mut backends = target.backends(view);
        backends.retain(|(_, b)| b.left.is_none() && b.live.gate.read().intent == Intent::Drain && !wanted.contains(&Arc::as_ptr(&b.live)));
        for (app, b) in &backends {
            self.event(format!("{}/{}/{}", app.name, b.release, b.spec.name), Intent::Serve.as_str());
        }
        self.applied.intents = backends.into_iter().map(|(_, b)| (Arc::clone(&b.live), Intent::Serve)).collect();
    }

    /// Drains of these backends are over, and so are those of hosts they are on: such a drain could never end.
    fn supersede(&mut self, target: &Target, backends: &[(Arc<App>, Arc<Backend>)]) {
        let name = |text: &str| text.to_owned();
        let each = backends.iter().flat_map(|(app, b)| {
            [Target::Backend(name(&app.name), name(&b.release), name(&b.spec.name)), Target::Host(name(&b.spec.address.host))]
        });
        self.applied.superseded.push(target.clone());
        for covered in each {
            if !self.applied.superseded.contains(&covered) {
                self.applied.superseded.push(covered);
            }
        }
    }

    /// A release drains by promoting another one; only in an app by health can one of several open releases be drained alone.
    fn release_intent(&mut self, app: &str, release: &str, intent: Intent, target: &Target) -> Result<(), Refused> {
        let (index, found) = self.find(app)?;
        let state = found.release(release).map_or(ReleaseState::Staged, |r| r.state);
        let conflict = |what: String, remedy: String| Err(Refused::new(RefusedKind::Conflict, what, remedy));
        let others = found.releases.iter().filter(|r| r.state.open() && &*r.name != release).count();
        let to = match (intent, state) {
            // The drain that runs, or a new one where the former was cancelled.
            (Intent::Drain, s) if s.emptying() => {
                self.applied.drains.push(target.clone());
                return Ok(());
            }
            (Intent::Drain, s) if s.gone() => return Ok(()),
            (Intent::Drain, ReleaseState::ByHealth) if others > 0 => ReleaseState::Draining,
            (Intent::Drain, s) if s.open() => {
                let remedy = match found.current {
                    Some(_) => format!("promote another one and this one drains: tidegate promote {app} RELEASE"),
                    None => format!("bring another one into service first: tidegate serve {app}/RELEASE"),
                };
                return conflict(format!("release '{target}' takes the new sessions"), remedy);
            }
            (Intent::Serve, ReleaseState::ByHealth | ReleaseState::Current) => return Ok(()),
            (Intent::Serve, _) if found.current.is_none() => ReleaseState::ByHealth,
            (Intent::Serve, _) => {
                let what = format!("release '{target}' is {}", state.as_str());
                return conflict(what, format!("a release returns to service by promotion: tidegate promote {app} {release}"));
            }
            (Intent::Maintain, _) => {
                return conflict(
                    format!("'{target}' is a release"),
                    format!("stop it (tidegate stop {target}), or maintain its backends one by one"),
                );
            }
            (Intent::Drain, _) => {
                return conflict(format!("release '{target}' is {}", state.as_str()), "it has no session to drain".to_owned());
            }
        };
        let (now, owner) = (self.now, self.owner);
        let mut next = App::clone(&found);
        next.edit(release, |r| (r.state, r.since, r.owner) = (to, now, owner));
        match to {
            ReleaseState::Draining => self.applied.drains.push(target.clone()),
            _ => self.applied.superseded.push(target.clone()),
        }
        self.event(target.to_string(), to.as_str());
        self.replace(index, next);
        Ok(())
    }
}

/// Refuses when an app that has an open backend would have none left.
fn last_one(backends: &[(Arc<App>, Arc<Backend>)], intent: Intent) -> Result<(), Refused> {
    let leaving: HashSet<(&str, u32)> = backends.iter().map(|(app, b)| (&*app.name, b.slot)).collect();
    let leaves = |app: &App, b: &Backend| leaving.contains(&(&*app.name, b.slot));
    for (app, _) in backends {
        let all: Vec<_> = app.open.backends().iter().filter(|b| takes_new(b)).collect();
        if !all.is_empty() && all.iter().all(|b| leaves(app, b)) {
            let names: Vec<&str> = all.iter().map(|b| b.spec.name.as_str()).collect();
            let what = format!("app '{}': {} would be the last that takes new sessions", app.name, names.join(", "));
            let then = without_them(app, |b| leaves(app, b), intent);
            let remedy = format!("bring another backend into service first, or --force: then new clients {then}");
            return Err(Refused::new(RefusedKind::Conflict, what, remedy));
        }
    }
    Ok(())
}

fn takes_new(backend: &Backend) -> bool {
    backend.admission() == Admission::Everyone && backend.spec.weight > 0
}

/// What would become of new clients, in the order in which `decide` would ask.
fn without_them(app: &App, leaves: impl Fn(&Backend) -> bool, intent: Intent) -> String {
    let all = || app.releases.iter().flat_map(|release| &release.backends);
    let names = |those: Vec<&Arc<Backend>>| those.iter().map(|b| b.spec.name.as_str()).collect::<Vec<_>>().join(", ");
    if app.settings.when_all_draining == WhenAllDraining::Serve {
        let healthy = |b: &Backend| matches!(b.live.gate.read().health, Health::Up | Health::Draining);
        let draining = |b: &Backend| if leaves(b) { intent == Intent::Drain } else { b.emptying() && b.admission() != Admission::Nobody };
        let draining: Vec<_> = all().filter(|b| healthy(b) && draining(b)).collect();
        if !draining.is_empty() {
            return format!("go to {} though it drains (when_all_draining: serve)", names(draining));
        }
    }
    let backups: Vec<_> = app.backups.backends().iter().filter(|b| takes_new(b) && !leaves(b)).collect();
    if backups.is_empty() { "get 503".to_owned() } else { format!("go to the backup {}", names(backups)) }
}
