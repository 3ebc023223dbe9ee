//! The configuration file, read again: compared with what was applied last, applied whole or not at all.
//!
//! Everything that can fail comes before the first thing that changes: file, keys, certificates, log target, and the live sessions
//! that an edit would cost. "Changed" means since the file that was applied last, so that file is kept, text and all.
//!
//! | file | holds |
//! |---|---|
//! | `process` | what of the process around the apps may change while it runs |
//! | `differs` | where file and running process differ |
//! | `watch` | `server.watch`: the file is applied whenever it changes |

mod differs;
mod process;
pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;

use self::process::{Preparation, prepare};
use super::access_log::AccessLog;
use super::control::Control;
use super::exchange::TrustedProxies;
use super::secrets;
use super::transport::ListenerHandle;
use crate::config::{self, Config, Problems, Source};
use crate::model::change::reload::{Line, Reload};
use crate::model::change::{NewApp, Refused};
use crate::model::settings::AppSpec;
use crate::model::time::Time;

pub use differs::differs;

/// A file that was applied.
#[derive(Clone, Debug, Default)]
pub struct AppliedFile {
    /// Where it was read; `None` when the configuration came from no file.
    pub path: Option<PathBuf>,
    /// Its content, as it was then.
    pub text: String,
    /// What it says.
    pub config: Config,
    /// When it was applied.
    pub at: Time,
}

impl AppliedFile {
    /// A file that was just read.
    pub fn new(path: Option<&Path>, source: Source, at: Time) -> AppliedFile {
        AppliedFile { path: path.map(Path::to_owned), text: source.text, config: source.config, at }
    }

    /// The text that an earlier process applied. Files that it names may be gone by now: only a reload looks at them.
    ///
    /// # Errors
    /// What of it this version does not understand.
    pub fn resume(path: &Path, text: String, at: Time) -> Result<AppliedFile, Problems> {
        let config = config::parse(&text, &path.display().to_string())?;
        Ok(AppliedFile { path: Some(path.to_owned()), text, config, at })
    }
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// Something changed.
    Applied,
    /// The file says what it said before.
    Unchanged,
    /// It would lose sessions, or needs an upgrade.
    Refused,
    /// The file, or one that it names, cannot be used.
    Failed,
}

impl ReloadResult {
    /// All, in the order of their counters.
    pub const ALL: [ReloadResult; 4] = [ReloadResult::Applied, ReloadResult::Unchanged, ReloadResult::Refused, ReloadResult::Failed];

    /// As written in metrics and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReloadResult::Applied => "applied",
            ReloadResult::Unchanged => "unchanged",
            ReloadResult::Refused => "refused",
            ReloadResult::Failed => "failed",
        }
    }
}

/// What is known of reloads: for status, export and metrics.
#[derive(Debug, Default)]
pub struct Reloads {
    applied: ArcSwap<AppliedFile>,
    results: [AtomicU64; ReloadResult::ALL.len()],
    listeners: OnceLock<Vec<ListenerHandle>>,
    /// When and why the last reload changed nothing; `None` once one succeeds.
    fault: Mutex<Option<(Time, String)>>,
}

impl Reloads {
    /// The file that was applied last.
    pub fn applied(&self) -> Arc<AppliedFile> {
        self.applied.load_full()
    }

    /// At the start, or after a reload.
    pub fn set_applied(&self, file: AppliedFile) {
        self.applied.store(Arc::new(file));
    }

    /// Listeners that serve, once they do: those whose certificates may be replaced.
    pub fn set_listeners(&self, listeners: Vec<ListenerHandle>) {
        if self.listeners.set(listeners).is_err() {
            log::error!("listeners are opened once");
        }
    }

    /// None before clients are accepted.
    pub fn listeners(&self) -> &[ListenerHandle] {
        self.listeners.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// How often each result was met.
    pub fn results(&self) -> [(ReloadResult, u64); ReloadResult::ALL.len()] {
        ReloadResult::ALL.map(|result| (result, self.results.get(result as usize).map_or(0, |count| count.load(Ordering::Relaxed))))
    }

    /// When and why the last one failed or was refused; `None` when it did not.
    pub fn fault(&self) -> Option<(Time, String)> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_fault(&self, fault: Option<(Time, String)>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn count(&self, result: ReloadResult) {
        if let Some(count) = self.results.get(result as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How a reload is to be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReloadOrder {
    /// Only say what would change.
    pub dry_run: bool,
    /// Also where live sessions would be lost.
    pub force: bool,
}

/// What a reload did, or would do.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Of a dry run: whether anything was done is known beforehand.
    pub dry_run: bool,
    /// What changes; empty when the file says what it said before.
    pub lines: Vec<Line>,
    /// Of a dry run: why it would be refused.
    pub refusals: Vec<Refused>,
    /// Drains that begin.
    pub drains: Vec<u64>,
}

/// Why nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Rejected {
    /// The configuration came from no file.
    #[error("this process was started without a file")]
    NoFile,
    /// The file is wrong.
    #[error("{0}")]
    Problems(Problems),
    /// A file that it names cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// It would lose sessions, or needs an upgrade.
    #[error("{}", .0.iter().map(|refused| format!("{}; {}", refused.what, refused.remedy)).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refused>),
}

/// Applies the file.
pub struct Reloader {
    control: Arc<Control>,
    /// As at the start: it cannot change while the process runs.
    directory: PathBuf,
    trusted: TrustedProxies,
    access_log: Option<AccessLog>,
    /// One at a time: two would compare with the same former file.
    turn: Mutex<()>,
}

impl Reloader {
    /// What it needs of the process. The file is the one that [`Reloads`] knows.
    pub fn new(control: Arc<Control>, directory: PathBuf, trusted: TrustedProxies, access_log: Option<AccessLog>) -> Reloader {
        Reloader { control, directory, trusted, access_log, turn: Mutex::default() }
    }

    /// The one door for changes.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Reads the file again and applies what has changed. Reads files: not for a worker thread.
    ///
    /// # Errors
    /// [`Rejected`]; then nothing has changed.
    pub fn reload(&self, order: ReloadOrder) -> Result<Report, Rejected> {
        let done = {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.reload_in_turn(order)
        };
        let result = match &done {
            Ok(report) if report.lines.is_empty() => ReloadResult::Unchanged,
            Ok(_) => ReloadResult::Applied,
            Err(Rejected::Refused(_)) => ReloadResult::Refused,
            Err(_) => ReloadResult::Failed,
        };
        if !order.dry_run {
            self.control.reloads.count(result);
            self.control.reloads.set_fault(done.as_ref().err().map(|rejected| (self.control.now(), rejected.to_string())));
        }
        done
    }

    /// As [`Reloader::reload`], with its outcome in the process log: for a signal, whose sender hears nothing.
    pub fn reload_and_log(&self, why: &str) {
        match self.reload(ReloadOrder::default()) {
            Ok(report) if report.lines.is_empty() => log::info!("{why}: the file says what it said before"),
            Ok(report) => log::info!("{why}: applied, {} changes", report.lines.len()),
            Err(rejected) => log::error!("{why}: nothing was changed:\n{rejected}"),
        }
    }

    fn reload_in_turn(&self, order: ReloadOrder) -> Result<Report, Rejected> {
        let reloads = &self.control.reloads;
        let before = reloads.applied();
        let path = before.path.clone().ok_or(Rejected::NoFile)?;
        let source = config::read_source_again(&path).map_err(Rejected::Problems)?;
        let config = source.config.clone();
        let prepared = prepare(&before.config, &config, reloads.listeners(), self.access_log.as_ref())?;
        let reload = Reload { applied: before.config.apps.clone(), next: self.apps(&config.apps)?, force: order.force, serving: true };
        let plan = self.control.plan(&reload);
        let refusals: Vec<Refused> = prepared.refusals.iter().cloned().chain(plan.refusals).collect();
        let mut lines = prepared.lines.clone();
        if order.dry_run || !refusals.is_empty() {
            lines.extend(plan.lines);
            let report = Report { dry_run: true, lines, refusals, drains: Vec::new() };
            return if order.dry_run { Ok(report) } else { Err(Rejected::Refused(report.refusals)) };
        }
        let (changed, drains) = self.control.reload(&reload).map_err(Rejected::Refused)?;
        lines.extend(changed);
        self.publish(prepared, &config);
        // Last: a crash before it has the same edit applied again, which changes nothing; one after a file that is noted too early
        // would lose the edit.
        reloads.set_applied(AppliedFile::new(Some(&path), source, self.control.now()));
        self.control.changed();
        Ok(Report { dry_run: false, lines, refusals: Vec::new(), drains })
    }

    /// Nothing here can fail.
    fn publish(&self, prepared: Preparation, config: &Config) {
        for line in &prepared.lines {
            self.control.note(crate::model::event::Owner::Config, &line.at, line.what.clone());
        }
        for certificates in prepared.certificates {
            certificates.show();
        }
        self.trusted.replace(config.trusted_proxies.clone());
        if let (Some(log), Some(to)) = (&self.access_log, prepared.redirection) {
            log.redirect(to);
        }
    }

    fn apps(&self, specs: &[AppSpec]) -> Result<Vec<NewApp>, Rejected> {
        load_apps(&self.directory, specs).map_err(|error| Rejected::Unusable(error.to_string()))
    }
}

/// Apps with their secrets, which are made where there are none yet.
///
/// # Errors
/// A key that cannot be read, made or used.
pub fn load_apps(directory: &Path, specs: &[AppSpec]) -> Result<Vec<NewApp>, secrets::SecretError> {
    let load = |spec: &AppSpec| {
        let (keyring, hash) = secrets::of_app(directory, spec)?;
        // Made now, so that whoever is to check signatures finds it.
        secrets::make_webhook_key(directory, &spec.name, &spec.settings.drain)?;
        Ok(NewApp { spec: spec.clone(), keyring, hash, memory: None })
    };
    specs.iter().map(load).collect()
}
