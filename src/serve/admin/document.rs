//! From the snapshot to what the API tells: one source for status, drains, sessions and events.

use std::time::Duration;

use crate::api;
use crate::model::backend::Backend;
use crate::model::drain::Drain;
use crate::model::event::Event;
use crate::model::forecast::Eta;
use crate::model::ledger::{Counts, EndReason, Listed, Summary};
use crate::model::settings::DrainThen;
use crate::model::target::Target;
use crate::model::time::Time;
use crate::model::view::{App, Release, View};
use crate::serve::control::Control;
use crate::serve::date::rfc3339;
use crate::serve::reload::differs;

/// Longest list of sessions in one answer: a million lines help nobody.
const LIST_MAX: usize = 10_000;

/// The status document, of a process that goes on.
pub(super) fn status(control: &Control) -> api::Status {
    // Drains before the view: a drain that begins in between is missing here, rather than its release there.
    let drains = control.drains();
    let view = control.view();
    let now = control.now();
    api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stopping: false,
        apps: view.apps.iter().map(|a| (a.name.to_string(), app(a))).collect(),
        drains: drains.iter().map(|d| drain(control, d, &view, now)).collect(),
        differs: differs(&control.reloads.applied(), &view),
    }
}

fn app(app: &App) -> api::AppStatus {
    api::AppStatus {
        current: app.current.as_deref().unwrap_or("by_health").to_owned(),
        releases: app.releases.iter().map(|r| (r.name.to_string(), release(r))).collect(),
    }
}

fn release(release: &Release) -> api::ReleaseStatus {
    let backends: api::Named<api::BackendStatus> = release.backends.iter().map(|b| (b.spec.name.clone(), backend(b))).collect();
    let sessions = sum(backends.iter().map(|(_, b)| b.sessions));
    api::ReleaseStatus { state: release.state.as_str().to_owned(), sessions, backends }
}

fn backend(backend: &Backend) -> api::BackendStatus {
    // One reading: intent, health and admission must fit together.
    let gate = backend.live.gate.read();
    api::BackendStatus {
        address: backend.spec.address.to_string(),
        intent: gate.intent.as_str().to_owned(),
        health: gate.health.as_str().to_owned(),
        admission: gate.admission().as_str().to_owned(),
        incarnation: backend.live.incarnation(),
        in_flight: u64::from(gate.in_flight),
        sessions: sessions(&backend.live.counts),
        counted: backend.live.count_reading().map(|reading| reading.sessions),
    }
}

fn sessions(counts: &Counts) -> api::Sessions {
    let (engaged, kept_alive) = (counts.engaged(), counts.kept_alive());
    api::Sessions { live: engaged + kept_alive, engaged, kept_alive, unconfirmed: counts.unconfirmed() }
}

fn sum(all: impl Iterator<Item = api::Sessions>) -> api::Sessions {
    all.fold(api::Sessions::default(), |a, b| api::Sessions {
        live: a.live + b.live,
        engaged: a.engaged + b.engaged,
        kept_alive: a.kept_alive + b.kept_alive,
        unconfirmed: a.unconfirmed + b.unconfirmed,
    })
}

/// A drain as it stands.
pub(crate) fn drain(control: &Control, drain: &Drain, view: &View, now: Time) -> api::DrainStatus {
    let progress = drain.progress(view, now);
    let outlook = drain.state.runs().then(|| control.outlook(drain));
    let (eta_seconds, eta_missing) = match outlook.as_ref().map(|outlook| outlook.eta) {
        Some(Ok(eta)) => (seconds(eta), None),
        Some(Err(too_few)) => (api::Eta::default(), Some(too_few.to_string())),
        None => (api::Eta::default(), None),
    };
    let remaining = progress.remaining();
    // Of one that is over nothing moves on, its deadline neither.
    let until = |at: Time| at.since(drain.finished.unwrap_or(now));
    api::DrainStatus {
        id: format!("d{}", drain.id),
        target: drain.target.to_string(),
        state: drain.state.as_str().to_owned(),
        owner: drain.owner.as_str().to_owned(),
        started: rfc3339(drain.started),
        initial: drain.initial,
        remaining,
        progress: progress_ratio(drain.initial, remaining),
        confident: progress.confident,
        confidence: if progress.confident || !drain.state.runs() { None } else { drain.doubt(view, now) },
        stands_by: drain.stands_by(view, now),
        eta_seconds,
        eta_missing,
        upper_bound_seconds: outlook.and_then(|outlook| outlook.upper_bound).map(|left| left.as_secs()),
        deadline: drain.deadline.map(rfc3339),
        ended: ended(progress.ended),
        verdict: (!drain.state.runs()).then(|| drain.state.as_str().to_owned()),
        deadline_in_seconds: drain.deadline.map(|at| whole_seconds(until(at))),
        then: then_name(drain.then).to_owned(),
        sessions: api::Sessions {
            live: remaining,
            engaged: progress.engaged,
            kept_alive: progress.kept_alive,
            unconfirmed: progress.unconfirmed,
        },
        in_flight: progress.in_flight,
        backends: progress.backends,
        backends_down: progress.down,
        finished: drain.finished.map(rfc3339),
    }
}

/// Rounded up: 0 says that the time is over.
fn whole_seconds(span: Duration) -> u64 {
    span.as_millis().div_ceil(1000) as u64
}

fn seconds(eta: Eta) -> api::Eta {
    let seconds = |span: Duration| Some(span.as_secs());
    api::Eta { p50: seconds(eta.p50), p90: seconds(eta.p90), p99: seconds(eta.p99) }
}

/// The share that has left. A drain that had nobody to begin with has nobody left to wait for.
pub(super) fn progress_ratio(initial: u64, remaining: u64) -> f64 {
    if initial == 0 {
        return if remaining == 0 { 1.0 } else { 0.0 };
    }
    initial.saturating_sub(remaining) as f64 / initial as f64
}

fn ended(counts: [u64; EndReason::ALL.len()]) -> api::Ended {
    let mut ended = api::Ended::default();
    for (reason, count) in EndReason::ALL.into_iter().zip(counts) {
        *match reason {
            EndReason::Logout => &mut ended.logout,
            EndReason::Idle => &mut ended.idle,
            EndReason::Lifetime => &mut ended.lifetime,
            EndReason::Lost => &mut ended.lost,
            EndReason::Moved => &mut ended.moved,
            EndReason::Evicted => &mut ended.evicted,
            EndReason::Unconfirmed => &mut ended.unconfirmed,
        } = count;
    }
    ended
}

/// As written in the configuration.
pub(super) const fn then_name(then: DrainThen) -> &'static str {
    match then {
        DrainThen::Keep => "keep",
        DrainThen::MoveIdle => "move_idle",
        DrainThen::Evict => "evict",
    }
}

/// The remembered drain with that target that began last.
pub(super) fn latest_drain(control: &Control, target: &Target) -> Option<Drain> {
    control.drains().into_iter().rev().find(|d| d.target == *target)
}

/// Counts, ages and idleness of an app's sessions. Walks the whole ledger: not for the request path.
pub(super) fn sessions_report(app: &App, with_list: bool, now: Time) -> api::SessionsReport {
    let slots: Vec<u32> = app.backends.iter().flatten().map(|b| b.slot).collect();
    let summary = app.ledger.summary(&slots, now);
    let list = with_list.then(|| {
        let mut list = app.ledger.list(&slots, LIST_MAX, now);
        list.sort_by_key(|s| std::cmp::Reverse(s.idle));
        list.iter().map(|s| entry(app, s)).collect::<Vec<_>>()
    });
    let truncated = list.as_ref().is_some_and(|list| list.len() == LIST_MAX);
    let releases: api::Named<api::Sessions> =
        app.releases.iter().map(|r| (r.name.to_string(), sum(r.backends.iter().map(|b| sessions(&b.live.counts))))).collect();
    api::SessionsReport {
        app: app.name.to_string(),
        sessions: sum(releases.iter().map(|(_, s)| *s)),
        releases,
        ages: buckets(&summary.age),
        idle: buckets(&summary.idle),
        list,
        truncated,
    }
}

fn buckets(counts: &[u64]) -> Vec<api::Bucket> {
    let bounds = Summary::BOUNDS.into_iter().map(Some).chain([None]);
    bounds.zip(counts).map(|(up_to_seconds, sessions)| api::Bucket { up_to_seconds, sessions: *sessions }).collect()
}

fn entry(app: &App, session: &Listed) -> api::SessionEntry {
    let backend = app.backend(session.slot).map_or_else(String::new, |b| format!("{}/{}/{}", app.name, b.release, b.spec.name));
    api::SessionEntry {
        handle: session.handle.clone(),
        backend,
        age_seconds: session.age.as_secs(),
        idle_seconds: session.idle.as_secs(),
        engaged: session.engaged,
        confirmed: session.confirmed,
        open: session.open,
    }
}

/// An entry of the event log.
pub(super) fn event(event: &Event) -> api::Event {
    api::Event { at: rfc3339(event.at), owner: event.owner.as_str().to_owned(), target: event.target.to_string(), what: event.what.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_passed_only_when_no_time_is_left() {
        let check = |millis, expected| assert_eq!(whole_seconds(Duration::from_millis(millis)), expected, "{millis} ms");
        check(0, 0);
        check(1, 1);
        check(1_000, 1);
        check(1_001, 2);
    }

    #[test]
    fn progress_is_the_share_that_has_left() {
        let check = |initial, remaining, expected: f64| assert_eq!(progress_ratio(initial, remaining), expected, "{initial} {remaining}");
        check(40, 40, 0.0);
        check(40, 10, 0.75);
        check(40, 0, 1.0);
        // Adopted meanwhile: more than at the start.
        check(40, 50, 0.0);
        check(0, 0, 1.0);
        check(0, 3, 0.0);
    }
}
