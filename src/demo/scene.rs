//! What there is to see at one moment, taken from the same counters that status, metrics and drains use.
//!
//! The demo keeps no count of sessions of its own: what it shows is what tidegate knows. Only the people are counted by themselves.

use std::sync::Arc;
use std::time::Duration;

use super::users::Census;
use crate::model::drain::{Drain, DrainState, Outlook};
use crate::model::event::Event;
use crate::model::ledger::EndReason;
use crate::model::view::{App, Release};
use crate::serve::control::Control;

/// How far the story has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// People come; until the deploy.
    #[default]
    Arriving,
    /// The new release is loaded, hidden and probed.
    Staged,
    /// The new release was promoted.
    Draining,
    /// The old one is fenced.
    Drained,
    /// And no longer runs.
    SwitchedOff,
}

/// What does not change while the demo runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Setting {
    /// For a person's browser.
    pub app_url: String,
    /// For operators.
    pub admin_url: String,
    /// What to type in another terminal, where the demo stays for that.
    pub commands: Vec<String>,
    /// Between the first visitor and the deploy.
    pub warm_up: Duration,
}

/// One moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Scene {
    /// Since the first visitor.
    pub elapsed: Duration,
    /// How far the story has come.
    pub act: Act,
    /// In the order in which they came.
    pub releases: Vec<ReleaseRow>,
    /// The latest drain.
    pub drain: Option<DrainRow>,
    /// The people.
    pub census: Census,
    /// The event log since the demo began, latest last.
    pub events: Vec<(Duration, String)>,
}

/// A release.
#[derive(Clone, Debug, Default)]
pub(super) struct ReleaseRow {
    pub name: String,
    pub state: &'static str,
    /// Confirmed live sessions.
    pub live: u64,
    /// Name, live sessions, health.
    pub backends: Vec<(String, u64, &'static str)>,
}

/// A drain.
#[derive(Clone, Debug)]
pub(super) struct DrainRow {
    pub id: u64,
    pub target: String,
    pub state: DrainState,
    pub initial: u64,
    pub engaged: u64,
    pub silent: u64,
    pub unconfirmed: u64,
    pub in_flight: u64,
    pub ended: [u64; EndReason::ALL.len()],
    /// Why a count of zero would not be the truth yet; `None` when it would be.
    pub doubt: Option<String>,
    /// When it will be over.
    pub outlook: Outlook,
    /// From start to verdict.
    pub took: Option<Duration>,
}

impl Scene {
    /// Takes everything down.
    pub fn of(control: &Control, app: &str, elapsed: Duration, act: Act, census: Census) -> Scene {
        let releases = control.view().app(app).map_or_else(Vec::new, |app| release_rows(app));
        let drain = control.drains().last().map(|drain| DrainRow::of(drain, control));
        let began = control.now() - elapsed;
        let told = |event: &Event| (event.at.since(began), format!("{}: {} ({})", event.target, event.what, event.owner.as_str()));
        let events = control.events().iter().map(told).collect();
        Scene { elapsed, act, releases, drain, census, events }
    }
}

fn release_rows(app: &App) -> Vec<ReleaseRow> {
    let row = |release: &Arc<Release>| ReleaseRow {
        name: release.name.to_string(),
        state: release.state.as_str(),
        live: release.live(),
        backends: release
            .backends
            .iter()
            .map(|b| (b.spec.name.clone(), b.live.counts.live(), b.live.gate.read().health.as_str()))
            .collect(),
    };
    app.releases.iter().map(row).collect()
}

impl DrainRow {
    fn of(drain: &Drain, control: &Control) -> DrainRow {
        let (view, now) = (control.view(), control.now());
        let progress = drain.progress(&view, now);
        DrainRow {
            id: drain.id,
            target: drain.target.to_string(),
            state: drain.state,
            initial: drain.initial,
            engaged: progress.engaged,
            silent: progress.kept_alive,
            unconfirmed: progress.unconfirmed,
            in_flight: progress.in_flight,
            ended: progress.ended,
            doubt: drain.doubt(&view, now),
            outlook: control.outlook(drain),
            took: drain.finished.map(|finished| finished.since(drain.started)),
        }
    }

    /// Confirmed sessions left.
    pub fn remaining(&self) -> u64 {
        self.engaged + self.silent
    }

    /// From 0 to 1. Newborns that were confirmed after the start may outnumber those that ended: that is no progress, and no regress.
    pub fn progress(&self) -> f64 {
        if self.state == DrainState::Drained || self.initial == 0 {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a bar of a hundred cells needs no more than 52 bits")]
        let share = self.remaining() as f64 / self.initial as f64;
        (1.0 - share).max(0.0)
    }

    /// Sessions whose first page was on its way when the drain began: they count from the moment their client comes back.
    pub fn late(&self) -> u64 {
        let confirmed = EndReason::ALL.into_iter().filter(|reason| *reason != EndReason::Unconfirmed);
        let known: u64 = confirmed.map(|reason| self.ended(reason)).sum();
        (known + self.remaining()).saturating_sub(self.initial)
    }

    /// Sessions that ended since the start, for that reason.
    pub fn ended(&self, reason: EndReason) -> u64 {
        self.ended.get(reason as usize).copied().unwrap_or(0)
    }
}
