//! Releases come, are promoted, drain, stop and are forgotten.

use std::sync::Arc;

use super::assemble::{add_release, clash};
use super::unsure::unsure;
use super::{Draft, Refused, RefusedKind, no_release};
use crate::model::admission::{Health, Intent, ReleaseState};
use crate::model::backend::Backend;
use crate::model::settings::ReleaseSpec;
use crate::model::target::Target;
use crate::model::view::{App, Release};

impl Draft {
    pub(super) fn stage(&mut self, name: &str, spec: &ReleaseSpec) -> Result<(), Refused> {
        let (index, app) = self.find(name)?;
        if let Some(refused) = clash(&app, spec) {
            return Err(refused);
        }
        let mut app = App::clone(&app);
        // In an app by health every release is open; its backends' first passing probe lets new sessions in.
        let state = if app.current.is_none() { ReleaseState::ByHealth } else { ReleaseState::Staged };
        add_release(&mut app, spec, state, self.owner, self.now);
        app.edit(&spec.name, |release| release.staged_at_run_time = true);
        self.event(format!("{name}/{}", spec.name), format!("staged with {} backends", spec.backends.len()));
        self.replace(index, app);
        Ok(())
    }

    pub(super) fn promote(&mut self, name: &str, release: &str, from: Option<&str>, force: bool) -> Result<(), Refused> {
        let (index, app) = self.find(name)?;
        let Some(current) = app.current.clone() else {
            let what = format!("app '{name}' has 'current: by_health'");
            return Err(Refused::new(
                RefusedKind::Conflict,
                what,
                "its backends' health endpoints decide; set 'current:' to a release to promote",
            ));
        };
        let wanted = app.release(release).ok_or_else(|| no_release(&app, release))?;
        // The same promotion again is no change, whatever `from` says: a pipeline may be run twice.
        if &*current == release {
            return Ok(());
        }
        compare(&app, &current, from)?;
        taken_over(&app, wanted)?;
        if !force {
            healthy(&app, wanted)?;
        }
        let (state, now, owner) = (wanted.state, self.now, self.owner);
        let mut app = App::clone(&app);
        (app.current, app.rolled_back_from) = (Some(release.into()), None);
        app.edit(&current, |old| (old.state, old.since, old.owner) = (ReleaseState::Draining, now, owner));
        app.edit(release, |new| {
            (new.state, new.since, new.owner, new.promoted) = (ReleaseState::Current, now, owner, Some(now));
        });
        if state.emptying() {
            self.applied.superseded.push(Target::Release(name.to_owned(), release.to_owned()));
        }
        self.applied.drains.push(Target::Release(name.to_owned(), current.to_string()));
        self.event(format!("{name}/{release}"), format!("promoted; {current} drains"));
        self.replace(index, app);
        Ok(())
    }

    pub(super) fn rollback(&mut self, name: &str, to: Option<&str>, from: Option<&str>, force: bool) -> Result<(), Refused> {
        let (_, app) = self.find(name)?;
        let before = app.current.clone();
        match (to, &app.rolled_back_from) {
            (Some(to), _) => self.promote(name, to, from, force)?,
            // The same rollback again is no change: the release before this one is the one that failed.
            (None, Some(left)) if from.is_none_or(|from| from == &**left) => {}
            (None, Some(left)) => {
                let current = before.as_deref().unwrap_or_default();
                compare(&app, current, from)?;
                let what = format!("app '{name}': '{current}' is current by a rollback from '{left}'");
                return Err(Refused::new(
                    RefusedKind::Conflict,
                    what,
                    format!("name the one to go back to: tidegate rollback {name} --to RELEASE"),
                ));
            }
            (None, None) => self.promote_former(&app, from, force)?,
        }
        let (index, app) = self.find(name)?;
        if app.current != before {
            let mut app = App::clone(&app);
            app.rolled_back_from = before;
            self.replace(index, app);
        }
        Ok(())
    }

    /// The release that was current before this one.
    fn promote_former(&mut self, app: &App, from: Option<&str>, force: bool) -> Result<(), Refused> {
        let name = &*app.name;
        if let Some(current) = &app.current {
            compare(app, current, from)?;
        }
        let older = app.releases.iter().filter(|r| app.current.as_ref() != Some(&r.name) && r.promoted.is_some());
        // A release that was never current but drains was so in an earlier life of this process.
        let drains = || app.releases.iter().rev().find(|r| r.state.emptying() || r.state == ReleaseState::Drained);
        match older.max_by_key(|r| r.promoted).or_else(drains).map(|r| r.name.to_string()) {
            Some(previous) => self.promote(name, &previous, from, force),
            None => {
                let what = format!("app '{name}' has no release that was current before");
                Err(Refused::new(RefusedKind::Conflict, what, format!("name one: tidegate rollback {name} --to RELEASE")))
            }
        }
    }

    pub(super) fn settle(&mut self, name: &str, release: &str, state: ReleaseState) -> Result<(), Refused> {
        let (index, app) = self.find(name)?;
        let found = app.release(release).ok_or_else(|| no_release(&app, release))?;
        if !found.state.emptying() {
            let what = format!("release '{name}/{release}' is {} and does not drain", found.state.as_str());
            return Err(Refused::new(RefusedKind::Conflict, what, "none needed"));
        }
        if found.state == state {
            return Ok(());
        }
        let (now, owner) = (self.now, self.owner);
        let mut app = App::clone(&app);
        app.edit(release, |r| (r.state, r.since, r.owner) = (state, now, owner));
        self.event(format!("{name}/{release}"), state.as_str());
        self.replace(index, app);
        Ok(())
    }

    pub(super) fn stop(&mut self, name: &str, release: &str, force: bool) -> Result<(), Refused> {
        let (index, app) = self.find(name)?;
        let found = app.release(release).ok_or_else(|| no_release(&app, release))?;
        if found.state == ReleaseState::Stopped {
            return Ok(());
        }
        if found.state.open() && (app.current.is_some() || app.releases.iter().filter(|r| r.state.open()).count() == 1) {
            let what = format!("release '{name}/{release}' takes all new sessions");
            let remedy = match app.current {
                Some(_) => format!("promote another one first: tidegate promote {name} RELEASE"),
                None => format!("bring another one into service first: tidegate serve {name}/RELEASE"),
            };
            return Err(Refused::new(RefusedKind::Conflict, what, remedy));
        }
        let sessions = found.live() + found.unconfirmed();
        if sessions > 0 && !force {
            let what = format!("release '{name}/{release}': {} live sessions, {} unconfirmed", found.live(), found.unconfirmed());
            let remedy = format!("wait for its drain (tidegate stop {name}/{release} --wait), or evict them with --force");
            return Err(Refused::new(RefusedKind::Conflict, what, remedy));
        }
        if let (Some(doubt), false) = (unsure(&app, &found.backends, self.now), force) {
            let what = format!("release '{name}/{release}': no session is known, but that is not sure yet: {doubt}");
            let remedy = format!("wait for its drain (tidegate stop {name}/{release} --wait), or --force if you know better");
            return Err(Refused::new(RefusedKind::Conflict, what, remedy));
        }
        let slots: Vec<u32> = found.backends.iter().map(|b| b.slot).collect();
        let (now, owner) = (self.now, self.owner);
        self.applied.evict.push((Arc::clone(&app), slots));
        self.applied.superseded.push(Target::Release(name.to_owned(), release.to_owned()));
        let mut app = App::clone(&app);
        app.edit(release, |r| (r.state, r.since, r.owner) = (ReleaseState::Stopped, now, owner));
        self.event(
            format!("{name}/{release}"),
            if sessions > 0 { format!("stopped; {sessions} sessions evicted") } else { "stopped".to_owned() },
        );
        self.replace(index, app);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str, release: &str) -> Result<(), Refused> {
        let (index, app) = self.find(name)?;
        let found = app.release(release).ok_or_else(|| no_release(&app, release))?;
        let target = format!("{name}/{release}");
        let conflict = |what: String, remedy: &str| Err(Refused::new(RefusedKind::Conflict, what, remedy));
        if !found.staged_at_run_time {
            return conflict(format!("release '{target}' comes from the configuration file"), "take it out of the file and reload");
        }
        // A release that was staged and never promoted has no session to lose.
        if !found.state.gone() && found.state != ReleaseState::Staged {
            return conflict(format!("release '{target}' is {}", found.state.as_str()), "wait until it is drained, or stop it first");
        }
        if found.in_flight() > 0 {
            return conflict(
                format!("release '{target}': {} exchanges are still under way", found.in_flight()),
                "try again when they have ended",
            );
        }
        let found = Arc::clone(found);
        let mut app = App::clone(&app);
        app.releases.retain(|r| &*r.name != release);
        app.forget(&found.backends);
        self.event(target, "removed");
        self.replace(index, app);
        self.supersede_gone(name, release, &found.backends);
        Ok(())
    }

    /// Drains of what has been removed can prove nothing any more.
    pub(super) fn supersede_gone(&mut self, app: &str, release: &str, backends: &[Arc<Backend>]) {
        let name = |text: &str| text.to_owned();
        self.applied.superseded.push(Target::Release(name(app), name(release)));
        for backend in backends {
            let host = Target::Host(name(&backend.spec.address.host));
            let mut gone = vec![Target::Backend(name(app), name(release), name(&backend.spec.name))];
            gone.extend(Some(host).filter(|host| host.backends(&self.applied.view).is_empty()));
            gone.retain(|target| !self.applied.superseded.contains(target));
            self.applied.superseded.append(&mut gone);
        }
    }
}

fn compare(app: &App, current: &str, from: Option<&str>) -> Result<(), Refused> {
    match from {
        Some(from) if from != current => {
            let what = format!("app '{}': current is '{current}', not '{from}'", app.name);
            Err(Refused::new(RefusedKind::Conflict, what, "somebody else was first: look at tidegate status and decide again"))
        }
        _ => Ok(()),
    }
}

/// A drained or stopped release may have left its address to another one: back in service it would send users to a stranger.
fn taken_over(app: &App, wanted: &Release) -> Result<(), Refused> {
    let others = || app.releases.iter().filter(|r| r.name != wanted.name && !r.state.gone());
    for backend in wanted.backends.iter().filter(|_| wanted.state.gone()) {
        for (other, release) in others().flat_map(|r| r.backends.iter().map(move |b| (b, r))) {
            let place = other.spec.address == backend.spec.address && release.path == wanted.path;
            if place || other.spec.route == backend.spec.route {
                let what = if place { format!("address {}", backend.spec.address) } else { format!("route '{}'", backend.spec.route) };
                let what = format!("{what} of release '{}/{}' now belongs to {}/{}", app.name, wanted.name, release.name, other.spec.name);
                return Err(Refused::new(RefusedKind::Conflict, what, "stage it anew under another name and address"));
            }
        }
    }
    Ok(())
}

pub(super) fn healthy(app: &App, release: &Release) -> Result<(), Refused> {
    let reading = |b: &Backend| b.live.gate.read();
    let serves = |b: &Backend| b.spec.weight > 0 && reading(b).health == Health::Up && reading(b).intent == Intent::Serve;
    if release.backends.iter().any(|b| serves(b)) {
        return Ok(());
    }
    let told = |b: &Arc<Backend>| match reading(b) {
        gate if gate.intent != Intent::Serve => format!("{} is {} and told to {}", b.spec.name, gate.health.as_str(), gate.intent.as_str()),
        gate => format!("{} is {}", b.spec.name, gate.health.as_str()),
    };
    let states: Vec<String> = release.backends.iter().map(told).collect();
    let what = format!("release '{}/{}' has no healthy backend: {}", app.name, release.name, states.join(", "));
    Err(Refused::new(RefusedKind::Conflict, what, "start it and wait for a passing probe, or --force"))
}
