//! An app that is in both files: its settings, its releases, and who is current.
//!
//! The order matters: releases that come are there before one of them is promoted, and one that goes is no longer current by then.

use std::sync::Arc;

use super::{Planner, told};
use crate::model::admission::ReleaseState;
use crate::model::backend::Backend;
use crate::model::change::NewApp;
use crate::model::change::assemble::{add_release, names, pool};
use crate::model::change::release::healthy;
use crate::model::ledger::Rules;
use crate::model::settings::{AppSpec, Current, PinMode, SessionSettings, Settings};
use crate::model::target::Target;
use crate::model::view::{App, Release};

impl Planner {
    pub(super) fn edit_app(&mut self, index: usize, app: &Arc<App>, old: Option<&AppSpec>, new: &NewApp) {
        let name = app.name.to_string();
        let mut next = App::clone(app);
        self.settings(&mut next, new);
        if next.matches != new.spec.matches {
            next.matches.clone_from(&new.spec.matches);
            self.line(name.as_str(), "match changed", live(app));
        }
        let mut added = Vec::new();
        for spec in &new.spec.releases {
            let before = old.and_then(|old| old.releases.iter().find(|r| r.name == spec.name));
            // Unchanged in the file: whatever commands made of it stays.
            if before == Some(spec) {
                continue;
            }
            match next.release(&spec.name).cloned() {
                Some(found) => self.edit_release(&mut next, &found, before, spec),
                None => {
                    let state = if next.current.is_none() { ReleaseState::ByHealth } else { ReleaseState::Staged };
                    add_release(&mut next, spec, state, self.draft.owner, self.draft.now);
                    next.edit(&spec.name, |r| r.staged_at_run_time = false);
                    self.line(
                        format!("{name}/{}", spec.name),
                        format!("added with {} backends, {}", spec.backends.len(), state.as_str()),
                        0,
                    );
                    added.push(spec.name.as_str());
                }
            }
        }
        next.refresh();
        let changed = self.lines.iter().any(|line| line.at == name || line.at.starts_with(&format!("{name}/")));
        if changed {
            self.draft.replace(index, next);
        }
        if old.is_none_or(|old| old.current != new.spec.current) {
            self.current(&name, &new.spec.current, &added);
        }
        let before = old.map(|old| old.releases.as_slice()).unwrap_or_default();
        for gone in before.iter().filter(|old| !new.spec.releases.iter().any(|r| r.name == old.name)) {
            self.remove_release(&name, &gone.name);
        }
    }

    fn settings(&mut self, app: &mut App, new: &NewApp) {
        let (name, live) = (app.name.to_string(), live(app));
        let settings = &new.spec.settings;
        if !new.keyring.alike(&app.keyring) {
            app.keyring = Arc::clone(&new.keyring);
            self.line(name.as_str(), "session.keys: other keys sign and verify pins", live);
        }
        if *settings == *app.settings {
            return;
        }
        let lost = lost_carriers(&app.settings.session, &settings.session);
        if !lost.is_empty() {
            let all: Vec<Arc<Backend>> = app.releases.iter().flat_map(|r| &r.backends).cloned().collect();
            let hint = format!("sessions are no longer recognised without {}", lost.join(" and "));
            let at = format!("{name}: session");
            self.leave(&Arc::new(app.clone()), &at, &all, &hint);
        }
        for section in sections(&app.settings, settings) {
            self.line(name.as_str(), format!("{section} changed"), live);
        }
        let rules = Rules::from(&settings.session);
        if rules != Rules::from(&app.settings.session) {
            self.draft.applied.rules.push((Arc::clone(&app.ledger), rules, self.draft.now));
        }
        app.names = Arc::new(names(&settings.session));
        app.settings = Arc::new(settings.clone());
        for release in app.releases.clone() {
            let bounded = |b: &Arc<Backend>| {
                let max_connections = b.spec.max_connections.or(settings.limits.max_connections);
                Arc::new(Backend { max_connections, ..Backend::clone(b) })
            };
            list(app, &release, release.backends.iter().map(bounded).collect());
        }
    }

    /// `current:` was edited.
    fn current(&mut self, name: &str, wanted: &Current, added: &[&str]) {
        let Ok((_, app)) = self.draft.find(name) else { return };
        match (&app.current, wanted) {
            (Some(current), Current::Release(release)) if **current == **release => {}
            (_, Current::Release(release)) if added.contains(&release.as_str()) && self.serving && !self.force => self.refuse(
                format!("{name}: '{release}' is new in this file and has not passed a probe yet"),
                format!("reload with the release first and set `current: {release}` when it is up, or --force"),
            ),
            (Some(current), Current::Release(release)) => {
                let drains = app.release(current).map_or(0, |r| r.live());
                let (drafted, already) = (self.draft.applied.events.len(), current.to_string());
                match self.draft.promote(name, release, None, self.force || !self.serving) {
                    Ok(()) => {
                        // One event for one edit.
                        self.draft.applied.events.truncate(drafted);
                        self.line(name, format!("current {already} -> {release}; {already} drains with {drains} live sessions"), drains);
                    }
                    Err(refused) => self.refusals.push(refused),
                }
            }
            (None, Current::Release(release)) => self.single_out(&app, release),
            (Some(current), Current::ByHealth) => {
                let was = current.to_string();
                self.edited(name, to_health);
                for release in app.releases.iter().filter(|r| r.state.emptying()) {
                    self.draft.applied.superseded.push(Target::Release(name.to_owned(), release.name.to_string()));
                }
                self.line(name, format!("current {was} -> by_health: every release is open"), live(&app));
            }
            (None, Current::ByHealth) => {}
        }
    }

    /// One release takes over from all that were open by health.
    fn single_out(&mut self, app: &App, release: &str) {
        let (name, now, owner) = (app.name.to_string(), self.draft.now, self.draft.owner);
        let Some(wanted) = app.release(release) else {
            return self.refuse(
                format!("{name}: release '{release}' was removed while running"),
                "name another one in `current:`, or rename the release",
            );
        };
        if self.serving
            && !self.force
            && let Err(refused) = healthy(app, wanted)
        {
            return self.refusals.push(refused);
        }
        let leaving: Vec<_> = app.releases.iter().filter(|r| r.state.open() && &*r.name != release).cloned().collect();
        self.edited(&name, |app| {
            app.current = Some(release.into());
            for old in &leaving {
                app.edit(&old.name, |r| (r.state, r.since, r.owner) = (ReleaseState::Draining, now, owner));
            }
            app.edit(release, |r| (r.state, r.since, r.owner, r.promoted) = (ReleaseState::Current, now, owner, Some(now)));
        });
        if wanted.state.emptying() {
            self.draft.applied.superseded.push(Target::Release(name.clone(), release.to_owned()));
        }
        let drains = leaving.iter().map(|r| r.live()).sum();
        self.draft.applied.drains.extend(leaving.iter().map(|r| Target::Release(name.clone(), r.name.to_string())));
        self.line(name, format!("current by_health -> {release}; the others drain with {drains} live sessions"), drains);
    }

    fn remove_release(&mut self, name: &str, release: &str) {
        let Ok((_, app)) = self.draft.find(name) else { return };
        // Removed by command already.
        let Some(found) = app.release(release).cloned() else { return };
        let at = format!("{name}/{release}");
        // Where another one was to take over and may not, that was said already.
        if found.state == ReleaseState::Current && self.refusals.is_empty() {
            let remedy = format!("promote another one first: tidegate promote {name} RELEASE");
            return self.refuse(format!("{at}: it takes all new sessions, by command"), remedy);
        }
        self.leave(&app, &at, &found.backends, "a release that is renamed counts as removed");
        self.edited(name, |app| {
            app.releases.retain(|r| &*r.name != release);
            app.forget(&found.backends);
        });
        self.line(at, "removed", told(&found.backends).live);
        self.gone.extend(found.backends.iter().map(|b| (Arc::clone(&app), Arc::clone(b))));
    }
}

/// Every release that may still serve is open again; a promotion's own marks are over.
fn to_health(app: &mut App) {
    (app.current, app.rolled_back_from) = (None, None);
    let open: Vec<_> = app.releases.iter().filter(|r| !r.state.gone()).map(|r| Arc::clone(&r.name)).collect();
    for release in open {
        app.edit(&release, |r| r.state = ReleaseState::ByHealth);
    }
}

/// Gives a release these backends, in this order; pools and look-ups by slot follow.
pub(super) fn list(app: &mut App, release: &Release, backends: Vec<Arc<Backend>>) {
    for backend in &backends {
        if let Some(place) = usize::try_from(backend.slot).ok().and_then(|slot| app.backends.get_mut(slot)) {
            *place = Some(Arc::clone(backend));
        }
    }
    let pool = pool(&app.settings, backends.iter(), false);
    app.edit(&release.name, |r| (r.backends, r.pool) = (backends, pool));
}

fn live(app: &App) -> u64 {
    app.releases.iter().map(|r| r.live()).sum()
}

/// Ways of carrying a session id that the new settings do not know any more.
fn lost_carriers(old: &SessionSettings, new: &SessionSettings) -> Vec<String> {
    let gone = old.cookies.iter().filter(|cookie| !new.cookies.contains(cookie)).map(|cookie| format!("the cookie {cookie}"));
    let mut lost: Vec<String> = gone.collect();
    for (what, old, new) in [
        ("path parameter", &old.path_parameter, &new.path_parameter),
        ("query parameter", &old.query_parameter, &new.query_parameter),
        ("header", &old.header, &new.header),
    ] {
        if let Some(old) = old.as_ref().filter(|_| old != new) {
            lost.push(format!("the {what} {old}"));
        }
    }
    // Browsers go on sending the prefix, and no backend knows such an id.
    if old.pin == PinMode::Prefix && new.pin != PinMode::Prefix {
        lost.push("the prefix in their cookies".to_owned());
    }
    lost
}

/// The keys of the file whose values differ.
fn sections(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let differ = [
        ("session", old.session != new.session),
        ("balance", old.balance != new.balance),
        ("when_all_draining", old.when_all_draining != new.when_all_draining),
        ("failover", old.failover != new.failover),
        ("failover_wait", old.failover_wait != new.failover_wait),
        ("health", old.health != new.health),
        ("limits", old.limits != new.limits),
        ("timeouts", old.timeouts != new.timeouts),
        ("streaming_paths", old.streaming_paths != new.streaming_paths),
        ("slow_start", old.slow_start != new.slow_start),
        ("drain", old.drain != new.drain),
        ("not_mine", old.not_mine != new.not_mine),
    ];
    let named = differ.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect::<Vec<_>>();
    // Whatever key comes to the settings later must not be lost in silence.
    if named.is_empty() { vec!["settings"] } else { named }
}
