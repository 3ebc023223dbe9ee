//! Backends of a release that stays.
//!
//! A backend is what lives at its address: with another weight it is the same, with another address it is somebody else of the same
//! name. Then the former one stays in the release under a name of its own until it is empty. Pins say when they were issued, so
//! those from before the edit still mean it; where pins are unsigned the ledger knows its sessions, and an id that nobody knows
//! goes to the new address, as the file says.

use std::sync::Arc;

use super::Planner;
use super::app::list;
use crate::model::admission::{Intent, ReleaseState};
use crate::model::backend::Backend;
use crate::model::change::Draft;
use crate::model::change::assemble::add_backend;
use crate::model::change::{Refused, no_release};
use crate::model::settings::{BackendSpec, PinMode, ReleaseSpec, away_name};
use crate::model::target::Target;
use crate::model::view::{App, FormerName, Release};

impl Planner {
    pub(super) fn edit_release(&mut self, app: &mut App, found: &Release, before: Option<&ReleaseSpec>, spec: &ReleaseSpec) {
        let at = format!("{}/{}", app.name, spec.name);
        if found.path.as_deref() != spec.path.as_deref() && before.is_none_or(|before| before.path != spec.path) {
            let hint = "sessions live at the path where they were born: add another release instead";
            self.leave(&Arc::new(app.clone()), &format!("{at}: path"), &found.backends, hint);
            app.edit(&spec.name, |r| r.path = spec.path.as_deref().map(Into::into));
            let path = |path: Option<&str>| path.unwrap_or("the public one").to_owned();
            self.line(at.as_str(), format!("path {} -> {}", path(found.path.as_deref()), path(spec.path.as_deref())), found.live());
        }
        if found.staged_at_run_time {
            app.edit(&spec.name, |r| r.staged_at_run_time = false);
            self.line(at.as_str(), "staged while running, and now in the file", found.live());
        }
        let mut backends = found.backends.clone();
        let in_file = |name: &str| spec.backends.iter().any(|b| b.name == name);
        let was_in_file = |name: &str| before.is_none_or(|before| before.backends.iter().any(|b| b.name == name));
        let leaves = |b: &Arc<Backend>| b.left.is_none() && !in_file(&b.spec.name) && was_in_file(&b.spec.name);
        let (gone, stay): (Vec<_>, Vec<_>) = backends.drain(..).partition(leaves);
        backends = stay;
        for backend in gone {
            self.remove_backend(app, &backend);
        }
        for new in &spec.backends {
            let old = before.and_then(|before| before.backends.iter().find(|b| b.name == new.name));
            if old != Some(new) {
                self.edit_backend(app, found, &mut backends, new);
            }
        }
        let place =
            |b: &Arc<Backend>| spec.backends.iter().position(|new| b.left.is_none() && new.name == b.spec.name).unwrap_or(usize::MAX);
        backends.sort_by_key(place);
        if let Some(release) = app.release(&spec.name).cloned() {
            list(app, &release, backends);
        }
    }

    fn remove_backend(&mut self, app: &mut App, backend: &Arc<Backend>) {
        let at = format!("{}/{}/{}", app.name, backend.release, backend.spec.name);
        let former = Arc::new(app.clone());
        self.leave(&former, &at, std::slice::from_ref(backend), "a backend that is renamed counts as removed");
        app.forget(std::slice::from_ref(backend));
        self.line(at, "removed", backend.live.counts.live());
        self.gone.push((former, Arc::clone(backend)));
    }

    fn edit_backend(&mut self, app: &mut App, release: &Release, backends: &mut Vec<Arc<Backend>>, new: &BackendSpec) {
        let at = format!("{}/{}/{}", app.name, release.name, new.name);
        let Some(place) = backends.iter().position(|b| b.left.is_none() && b.spec.name == new.name) else {
            backends.push(add_backend(app, &release.name, new, release.state, self.draft.now));
            return self.line(at, format!("added: {}; new sessions after its first passing probe", new.address), 0);
        };
        let Some(found) = backends.get(place).cloned() else { return };
        if found.spec.address != new.address {
            return self.move_backend(app, release, backends, &found, new);
        }
        let live = found.live.counts.live();
        let written = matches!(app.settings.session.pin, PinMode::Route | PinMode::Prefix);
        if found.spec.route != new.route && written {
            let hint = format!("their ids carry the route '{}'", found.spec.route);
            self.leave(&Arc::new(app.clone()), &format!("{at}: route"), std::slice::from_ref(&found), &hint);
        }
        let what = differences(&found.spec, new);
        if what.is_empty() {
            return;
        }
        let edited = respecified(app, &found, new);
        if let Some(slot) = backends.get_mut(place) {
            *slot = edited;
        }
        self.line(at, what.join(", "), live);
    }

    /// Another address under the same name.
    fn move_backend(&mut self, app: &mut App, release: &Release, backends: &mut Vec<Arc<Backend>>, old: &Arc<Backend>, new: &BackendSpec) {
        let (now, name) = (self.draft.now, release.name.to_string());
        let at = format!("{}/{name}/{}", app.name, new.name);
        let target = |backend: &str| Target::Backend(app.name.to_string(), name.clone(), backend.to_owned());
        let away = away_name(&old.spec.name, &old.spec.address);
        let drains = target(&away);
        let intent = old.live.gate.read().intent;
        let returns = backends
            .iter()
            .position(|b| b.left.is_some() && b.spec.address == new.address && b.spec.name.starts_with(&format!("{}@", new.name)));
        let next = match returns.and_then(|place| backends.get(place).cloned()) {
            // The edit was taken back: who was to leave is still there, and so are its sessions.
            Some(there) => {
                app.former.push(FormerName {
                    release: Arc::clone(&release.name),
                    name: there.spec.name.as_str().into(),
                    until: now,
                    slot: there.slot,
                });
                self.draft.applied.intents.push((Arc::clone(&there.live), intent));
                self.draft.applied.superseded.push(target(&there.spec.name));
                backends.retain(|b| b.slot != there.slot);
                respecified(app, &there, new)
            }
            None => {
                let fresh = add_backend(app, &release.name, new, release.state, now);
                // What the operator wants is said of the name.
                self.draft.applied.intents.push((Arc::clone(&fresh.live), intent));
                fresh
            }
        };
        backends.retain(|b| b.slot != old.slot);
        let mut told = format!("address {} -> {}", old.spec.address, new.address);
        let live = old.live.counts.live();
        if release.state.gone() || release.state == ReleaseState::Staged {
            self.gone.push((Arc::new(app.clone()), Arc::clone(old)));
            app.forget(std::slice::from_ref(old));
        } else {
            let spec = BackendSpec { name: away.clone(), ..BackendSpec::clone(&old.spec) };
            backends.push(Arc::new(Backend { spec: Arc::new(spec), left: Some(now), ..Backend::clone(old) }));
            app.former.push(FormerName { release: Arc::clone(&release.name), name: new.name.as_str().into(), until: now, slot: old.slot });
            app.by_name.entry(Arc::clone(&release.name)).or_default().insert(away.as_str().into(), old.slot);
            self.draft.applied.intents.push((Arc::clone(&old.live), Intent::Drain));
            self.draft.applied.drains.push(drains);
            told += &format!("; the former one drains as {away} with {live} live sessions");
        }
        app.by_name.entry(Arc::clone(&release.name)).or_default().insert(new.name.as_str().into(), next.slot);
        backends.push(next);
        self.line(at, told, live);
    }
}

impl Draft {
    /// A backend whose address left the file has been drained, and goes.
    pub(in crate::model::change) fn retire(&mut self, name: &str, release: &str, backend: &str) -> Result<(), Refused> {
        let (index, app) = self.find(name)?;
        let found = app.release(release).cloned().ok_or_else(|| no_release(&app, release))?;
        let (gone, stay): (Vec<_>, Vec<_>) = found.backends.iter().cloned().partition(|b| b.spec.name == backend && b.left.is_some());
        if gone.is_empty() {
            return Ok(());
        }
        let mut app = App::clone(&app);
        list(&mut app, &found, stay);
        app.forget(&gone);
        self.event(format!("{name}/{release}/{backend}"), "gone: it is empty, and its address is not in the file");
        self.replace(index, app);
        Ok(())
    }
}

/// The same backend with other words about it: health, counts and exchanges under way live on.
fn respecified(app: &App, backend: &Arc<Backend>, spec: &BackendSpec) -> Arc<Backend> {
    let max_connections = spec.max_connections.or(app.settings.limits.max_connections);
    Arc::new(Backend { spec: Arc::new(spec.clone()), max_connections, left: None, ..Backend::clone(backend) })
}

/// What differs besides the address.
fn differences(old: &BackendSpec, new: &BackendSpec) -> Vec<String> {
    let mut told = Vec::new();
    if old.weight != new.weight {
        told.push(format!("weight {} -> {}", old.weight, new.weight));
    }
    if old.route != new.route {
        told.push(format!("route {} -> {}", old.route, new.route));
    }
    let rest = [
        ("backup", old.backup != new.backup),
        ("max_connections", old.max_connections != new.max_connections),
        ("tls", old.tls != new.tls),
        ("protocol", old.protocol != new.protocol),
    ];
    told.extend(rest.iter().filter(|(_, differs)| *differs).map(|(name, _)| format!("{name} changed")));
    told
}
