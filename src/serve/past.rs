//! What a process goes on from: the state file of an earlier run, or everything that a running process hands over.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::control::{Control, DrainOrder};
use super::reload::{AppliedFile, load_apps};
use super::remembered::{Life, Remembered};
use super::server::StartError;
use super::state::{StateError, StateFile, StateLock};
use super::upgrade::Succession;
use crate::config::Config;
use crate::model::admission::Health;
use crate::model::change::reload::Reload;
use crate::model::change::{Change, NewApp};
use crate::model::event::Owner;
use crate::model::time::Time;

/// Nothing restarts and is ready again in less, unseen by the process before and by this one.
const UNWATCHED: Duration = Duration::from_secs(10);

/// What is known of before.
pub struct Past {
    remembered: Option<Remembered>,
    /// Open already, unless another process still writes it.
    file: Option<StateFile>,
    /// For so long nobody watched the backends.
    away: Duration,
}

impl Past {
    /// Finds it. Of a start of its own, this also takes the state directory.
    ///
    /// # Errors
    /// [`StateError`]: the directory belongs to another process, or the file cannot be used.
    pub fn find(config: &Config, succession: Option<&Succession>, now: Time) -> Result<Past, StateError> {
        let directory = &config.state.directory;
        let damaged = |what: String| StateError::Damaged { path: directory.join("state.db"), what };
        if let Some(before) = succession {
            let remembered = Remembered::read(&before.documents()).map_err(damaged)?;
            return Ok(Past { remembered, file: None, away: Duration::ZERO });
        }
        let lock = StateLock::take(directory, &admin_words(config))?;
        let (file, remains) = StateFile::open(lock, now)?;
        let mut remembered = Remembered::read(&remains.documents).map_err(damaged)?;
        if let Some(remembered) = &mut remembered {
            remembered.shift(|time| remains.shift.apply(time));
            remembered.doubt(remains.written, now);
        }
        let away = remains.written.map_or(Duration::ZERO, |written| now.since(written));
        Ok(Past { remembered, file: Some(file), away })
    }

    /// Publishes the first snapshot, applies what was edited in the file meanwhile, and fills the ledgers. `force`: also where
    /// that loses sessions.
    ///
    /// # Errors
    /// [`StartError`]: keys, damage, sessions that an edit would lose, or the other process is gone.
    pub fn recall(
        &mut self,
        file: &AppliedFile,
        control: &Arc<Control>,
        succession: Option<&mut Succession>,
        force: bool,
    ) -> Result<(), StartError> {
        let directory = &file.config.state.directory;
        let mut next = load_apps(directory, &file.config.apps)?;
        let file = AppliedFile { at: control.now(), ..file.clone() };
        let Some(remembered) = &self.remembered else {
            let load = Change::Load(next);
            if let Err(refused) = control.apply(&load, Owner::Config, DrainOrder::default()) {
                // Checked configurations load; a refusal here is a bug, and starting with no app would hide it.
                return Err(StartError::Runtime(io::Error::other(refused.what)));
            }
            if !control.drains().is_empty() {
                log::warn!("nothing is remembered of an earlier run: releases that are not current drain, since their users may come back");
            }
            if let Some(before) = succession {
                before.learn(control).map_err(StartError::Succession)?;
            }
            control.reloads.set_applied(file);
            return Ok(());
        };
        let applied = remembered.file.as_ref().and_then(|before| {
            let applied = AppliedFile::resume(Path::new(&before.path), before.text.clone(), before.at);
            let unknown = |problems| log::warn!("the configuration that was applied last is not understood any more:\n{problems}");
            applied.map_err(unknown).ok()
        });
        let applied = applied.unwrap_or_else(|| file.clone());
        let mut apps = Vec::new();
        for spec in &applied.config.apps {
            let memory = remembered.apps.get(&spec.name).cloned();
            // Its keys are where the present file says.
            match next.iter().find(|app| app.spec.name == spec.name) {
                Some(app) => apps.push(NewApp { spec: spec.clone(), memory, ..app.clone() }),
                None => apps.extend(
                    load_apps(directory, std::slice::from_ref(spec))?.into_iter().map(|app| NewApp { memory: memory.clone(), ..app }),
                ),
            }
        }
        let path = directory.join("state.db");
        control.recall(apps, &remembered.drains, remembered.events.clone()).map_err(|what| StateError::Damaged { path, what })?;
        self.teach(control);
        if let Some(state) = &mut self.file {
            let restored = state.restore(&control.view(), control.now())?;
            if restored.entries > 0 {
                log::info!("{} sessions are remembered", restored.entries);
            }
            if restored.strangers > 0 {
                log::warn!("{} remembered sessions belong to backends that are not configured any more", restored.strangers);
            }
        }
        if self.away > UNWATCHED {
            // They may have been restarted meanwhile, with this machine or without: each session's own answer decides.
            for backend in control.view().apps.iter().flat_map(|app| app.backends.iter().flatten()) {
                backend.live.counts.doubt();
            }
        }
        let upgraded = succession.is_some();
        if let Some(before) = succession {
            self.keep_health(control);
            before.learn(control).map_err(StartError::Succession)?;
        }
        for app in &mut next {
            app.memory = None;
        }
        let reload = Reload { applied: applied.config.apps, next, force, serving: upgraded };
        control.reload_at_start(&reload).map_err(StartError::Edited)?;
        control.reloads.set_applied(file);
        Ok(())
    }

    /// The file to write to; of a process that is to be replaced, once that has closed it.
    ///
    /// # Errors
    /// [`StartError`]: it cannot be used, or the other process is gone.
    pub fn file(self, config: &Config, succession: Option<&mut Succession>, now: Time) -> Result<StateFile, StartError> {
        match (self.file, succession) {
            (Some(mut file), _) => {
                // Were they written by and by, a process whose disk was full from its first moment on would be taken for the one
                // before it, which may have ended in order.
                let first = Remembered { life: Life::default(), ..self.remembered.unwrap_or_default() };
                file.begin(&first.documents(), now)?;
                Ok(file)
            }
            (None, Some(before)) => {
                let lock = before.ready(&config.state.directory, &admin_words(config)).map_err(StartError::Succession)?;
                Ok(StateFile::open(lock, now)?.0)
            }
            (None, None) => Err(StartError::Runtime(io::Error::other("no state file"))),
        }
    }

    /// What finished sessions taught.
    fn teach(&self, control: &Control) {
        let view = control.view();
        for (name, taught) in self.remembered.iter().flat_map(|remembered| &remembered.histories) {
            if let Some(app) = view.app(name) {
                app.ledger.recall_history(&taught.rows, taught.at);
            }
        }
    }

    /// The health that the other process found a moment ago.
    fn keep_health(&self, control: &Control) {
        let view = control.view();
        for (name, memory) in self.remembered.iter().flat_map(|remembered| &remembered.apps) {
            let Some(app) = view.app(name) else { continue };
            for release in &memory.releases {
                for backend in release.backends.iter().filter(|backend| backend.health != Health::Untested) {
                    if let Some(here) = app.slot(&release.name, &backend.spec.name).and_then(|slot| app.backend(slot)) {
                        here.live.observe(backend.health, control.now());
                    }
                }
            }
        }
    }
}

/// How this process is reached, for whoever finds the directory taken.
fn admin_words(config: &Config) -> String {
    match &config.admin.address {
        crate::config::AdminAddress::Tcp(address) => format!("http://{address}"),
        crate::config::AdminAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}
