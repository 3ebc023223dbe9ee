//! What the page is drawn from. Every figure comes from the status document of the API, so that the two agree by construction; the
//! few facts beside it are those that the document has no place for.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use crate::api;
use crate::model::admission::ReleaseState;
use crate::model::settings::WhenAllDraining;
use crate::model::time::Time;
use crate::model::view::App;
use crate::serve::admin::{Admin, document};
use crate::serve::date::rfc3339;

/// Events on the page; the API has more.
const EVENTS: usize = 50;

/// Empty where it cannot be read: then the page does without.
static HOST: LazyLock<String> =
    LazyLock::new(|| fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default());

/// Everything that can be seen.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The figures.
    pub(super) status: api::Status,
    /// When they were true.
    pub(super) now: Time,
    /// The machine's name: whoever operates ten of them has ten such pages open.
    pub(super) host: String,
    /// Whether clients are accepted.
    pub(super) ready: bool,
    /// By app.
    pub(super) apps: BTreeMap<String, AppFacts>,
    /// Newest first.
    pub(super) events: Vec<api::Event>,
    /// When and why the last reload changed nothing.
    pub(super) reload_fault: Option<(String, String)>,
    /// The curve of each app, as SVG.
    pub(super) curves: Arc<BTreeMap<String, String>>,
}

/// Of an app.
#[derive(Clone, Debug, Default)]
pub(super) struct AppFacts {
    /// Where a rollback would lead.
    pub(super) rollback_to: Option<String>,
    /// Whether draining backends take new sessions when nobody else does.
    pub(super) draining_serve: bool,
    /// How fast people are sent away.
    pub(super) evict_per_second: u32,
    /// Entries of the ledger, and most entries.
    pub(super) ledger: (usize, usize),
    /// Sessions cannot be written down at present.
    pub(super) unsaved: bool,
}

impl Facts {
    /// As they are at this moment, but for the curves.
    pub(super) fn gather(admin: &Admin) -> Facts {
        let control = &admin.control;
        let stopping = admin.stopping.load(Ordering::Acquire);
        let status = api::Status { stopping, ..document::status(control) };
        let view = control.view();
        Facts {
            status,
            now: control.now(),
            host: HOST.clone(),
            ready: admin.ready.load(Ordering::Acquire),
            apps: view.apps.iter().map(|app| (app.name.to_string(), AppFacts::of(app))).collect(),
            events: control.events().iter().rev().take(EVENTS).map(document::event).collect(),
            reload_fault: control.reloads.fault().map(|(at, why)| (rfc3339(at), why)),
            curves: Arc::default(),
        }
    }

    /// Drains that run, or those that are over, the latest first.
    pub(super) fn drains(&self, running: bool) -> impl Iterator<Item = &api::DrainStatus> {
        self.status.drains.iter().rev().filter(move |drain| drain.verdict.is_none() == running)
    }

    /// The drain that runs on exactly this target.
    pub(super) fn running(&self, target: &str) -> Option<&api::DrainStatus> {
        self.drains(true).find(|drain| drain.target == target)
    }
}

impl AppFacts {
    fn of(app: &App) -> AppFacts {
        AppFacts {
            rollback_to: rollback_to(app),
            draining_serve: app.settings.when_all_draining == WhenAllDraining::Serve,
            evict_per_second: app.settings.drain.evict_per_second,
            ledger: (app.ledger.entries(), app.ledger.capacity()),
            unsaved: app.ledger.unsaved(),
        }
    }
}

/// The release that was current before this one; `None` after a rollback, when the one before is the one that failed, and where nobody
/// knows of one that was. The page names it in its order, so that nothing else is promoted should that have changed meanwhile.
fn rollback_to(app: &App) -> Option<String> {
    let current = app.current.as_ref().filter(|_| app.rolled_back_from.is_none())?;
    let former = app.releases.iter().filter(|release| release.name != *current && release.state != ReleaseState::Stopped);
    let latest = former.filter(|release| release.promoted.is_some()).max_by_key(|release| release.promoted);
    latest.map(|release| release.name.to_string())
}
