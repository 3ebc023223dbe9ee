//! The sentences of the page: what the figures mean, for somebody who has never read the manual.
//!
//! They promise no more than the status document does: a range is given as a range, a count that is not sure is called so, and a bar that is
//! full is not yet the proof.

use super::facts::{AppFacts, Facts};
use crate::api;
use crate::model::time::Time;
use crate::serve::date::rfc3339;

/// Backends that a sentence names before it counts.
const NAMED: usize = 4;
/// A ledger so full is told.
const NEARLY_FULL: f64 = 0.9;

/// `1 session`, `37 sessions`.
pub(super) fn many(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Seconds as people say them, two units at most.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..600 if seconds.is_multiple_of(60) => format!("{minutes} min"),
        60..600 => format!("{minutes} min {:02} s", seconds % 60),
        600..3600 => format!("{minutes} min"),
        3600..86_400 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

/// `14:05:09` out of RFC 3339; with its day unless that is today.
pub(super) fn clock(at: &str, now: Time) -> String {
    let (day, time) = at.split_once('T').unwrap_or(("", at));
    let time = time.trim_end_matches('Z');
    if rfc3339(now).starts_with(day) { time.to_owned() } else { format!("{day} {time}") }
}

/// So many seconds from now, to the minute and rounded up: what is to be over by then is.
fn minute(now: Time, seconds: u64) -> String {
    let at = (now.as_secs() + seconds).div_ceil(60) * 60;
    let text = clock(&rfc3339(Time::from_secs(at)), now);
    text.rsplit_once(':').map_or(text.clone(), |(minute, _)| minute.to_owned())
}

fn range(first: &str, last: &str) -> String {
    if first == last { format!("by {first}") } else { format!("by {first}–{last}") }
}

/// What happens to an app, in one sentence.
pub(super) fn glance(name: &str, app: &api::AppStatus, facts: &Facts) -> String {
    let mut parts = Vec::new();
    if app.current == "by_health" {
        let open: Vec<&str> = app.releases.iter().filter(|(_, release)| serving(release) > 0).map(|(name, _)| name).collect();
        parts.push(match open.as_slice() {
            [] => "no release takes new sessions".to_owned(),
            [one] => format!("{one} takes new sessions, by its health"),
            many => format!("{} take new sessions, by their health", many.join(" and ")),
        });
    } else {
        let works = app.releases.get(&app.current).is_some_and(|release| serving(release) > 0);
        parts.push(if works {
            format!("{} takes new sessions", app.current)
        } else {
            format!("{} is current, but none of its backends is open to new sessions", app.current)
        });
    }
    for (release, status) in app.releases.iter().filter(|(_, release)| matches!(release.state.as_str(), "draining" | "fencing")) {
        parts.push(leaving(release, status, facts.running(&format!("{name}/{release}")), facts.now));
    }
    for (release, _) in app.releases.iter().filter(|(_, release)| rests(app, release)) {
        parts.push(format!("{release} is off, and no session is known there"));
    }
    let empty: Vec<&str> = app.releases.iter().filter(|(_, release)| release.state == "drained").map(|(name, _)| name).collect();
    match empty.as_slice() {
        [] => {}
        [one] => parts.push(format!("{one} is drained: it may be switched off")),
        many => parts.push(format!("{} are drained: they may be switched off", many.join(" and "))),
    }
    parts.join("; ") + "."
}

fn leaving(release: &str, status: &api::ReleaseStatus, drain: Option<&api::DrainStatus>, now: Time) -> String {
    let live = status.sessions.live;
    let newborn = many(status.sessions.unconfirmed, "unconfirmed session");
    let Some(drain) = drain.filter(|drain| drain.confident) else {
        // What is not proven is a lower bound, and none seen is not nobody.
        let why = drain.map_or("nothing watches it drain", doubt);
        return match (live, status.sessions.unconfirmed) {
            (0, 0) => format!("no session seen on {release} yet; the count is not sure ({why})"),
            (0, _) => format!("only {newborn} seen on {release} yet; the count is not sure ({why})"),
            _ => format!("at least {}{}", finishing(release, live), drain.map_or_else(String::new, |drain| likely(drain, now))),
        };
    };
    match (live, status.sessions.unconfirmed) {
        (0, 0) => format!("nobody is left on {release}"),
        (0, _) => format!("nobody is left on {release} but {newborn}"),
        _ => finishing(release, live) + &likely(drain, now),
    }
}

fn finishing(release: &str, live: u64) -> String {
    if live == 1 { format!("1 person finishes on {release}") } else { format!("{live} people finish on {release}") }
}

fn likely(drain: &api::DrainStatus, now: Time) -> String {
    match (drain.eta_seconds.p50, drain.eta_seconds.p90, drain.upper_bound_seconds) {
        (Some(p50), Some(p90), _) => format!(", likely done {}", range(&minute(now, p50), &minute(now, p90))),
        (_, _, Some(bound)) => format!(", done by {} if nobody clicks again", minute(now, bound)),
        _ => String::new(),
    }
}

/// Why its zero would prove nothing.
fn doubt(drain: &api::DrainStatus) -> &str {
    drain.confidence.as_deref().unwrap_or("sessions from before may exist")
}

/// The share that has left; unknown where none was seen and that proves nothing.
pub(super) fn share(drain: &api::DrainStatus) -> Option<f64> {
    (drain.confident || drain.remaining > 0).then_some(drain.progress)
}

/// The same in a word.
pub(super) fn percent(drain: &api::DrainStatus) -> String {
    share(drain).map_or_else(|| "unknown".to_owned(), |share| format!("{} %", (share.clamp(0.0, 1.0) * 100.0).floor()))
}

/// Backends of a release that take new sessions.
pub(super) fn serving(release: &api::ReleaseStatus) -> usize {
    release.backends.iter().filter(|(_, backend)| backend.admission == "everyone").count()
}

/// The worst that can be said of an app.
pub(super) fn outage(name: &str, app: &api::AppStatus, draining_serve: bool) -> Option<String> {
    if app.releases.iter().any(|(_, release)| serving(release) > 0) {
        return None;
    }
    let known =
        |backend: &api::BackendStatus| backend.admission == "known_sessions" && matches!(backend.health.as_str(), "up" | "draining");
    let helps = draining_serve && app.releases.iter().any(|(_, release)| release.backends.iter().any(|(_, backend)| known(backend)));
    let then = if helps { "new clients go to those that drain (when_all_draining: serve)" } else { "new clients get 503" };
    Some(format!("{name}: no backend is open to new sessions; {then}"))
}

/// Whatever else is wrong with it; each begins with what it is about.
pub(super) fn problems(name: &str, app: &api::AppStatus, facts: &Facts) -> Vec<String> {
    let mut told = Vec::new();
    let releases = || app.releases.iter();
    for (state, what) in [("down", "down"), ("stalled", "stalled, which is to accept connections and not to answer")] {
        for (release, status) in releases().filter(|(_, release)| matters(app, release)) {
            let wrong = |backend: &api::BackendStatus| backend.health == state && backend.intent != "maintain";
            let those: Vec<&str> = status.backends.iter().filter(|(_, backend)| wrong(backend)).map(|(name, _)| name).collect();
            let verb = if those.len() == 1 { "is" } else { "are" };
            if !those.is_empty() {
                let all = many(status.backends.0.len() as u64, "backend");
                told.push(format!("{name}/{release}: {} {verb} {what} ({} of {all})", listed(&those), those.len()));
            }
        }
    }
    told.extend(facts.apps.get(name).into_iter().flat_map(|app| ledger_problems(name, app)));
    told
}

/// Whether somebody may need it: not what is over, nor what has not begun.
fn matters(app: &api::AppStatus, release: &api::ReleaseStatus) -> bool {
    !matches!(release.state.as_str(), "drained" | "stopped" | "staged") && !rests(app, release)
}

/// The idle one of two colours: it is off, nobody has a session there, and another one serves.
fn rests(app: &api::AppStatus, release: &api::ReleaseStatus) -> bool {
    let off = release.backends.iter().all(|(_, backend)| backend.health == "down");
    let nobody = release.sessions.live + release.sessions.unconfirmed == 0;
    release.state == "by_health" && off && nobody && app.releases.iter().any(|(_, other)| serving(other) > 0)
}

fn ledger_problems(name: &str, app: &AppFacts) -> Vec<String> {
    let (entries, capacity) = app.ledger;
    let mut told = Vec::new();
    if app.unsaved {
        told.push(format!("{name}: sessions cannot be written to the state file, so no drain is sure; the log says why"));
    }
    if capacity > 0 && entries as f64 >= NEARLY_FULL * capacity as f64 {
        told.push(format!("{name}: the ledger holds {entries} of {capacity} entries; raise session.max_entries"));
    }
    told
}

fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whatever is wrong with a drain that runs.
pub(super) fn drain_problems(drain: &api::DrainStatus) -> Vec<String> {
    let (id, target) = (&drain.id, &drain.target);
    let mut told = Vec::new();
    if drain.backends > 0 && drain.backends_down == drain.backends && drain.remaining > 0 {
        told.push(format!("{target}: every backend that drains is down, so nobody can finish there (drain {id})"));
    }
    if drain.deadline_in_seconds == Some(0) && drain.remaining > 0 {
        told.push(format!("{target}: the deadline of drain {id} has passed with {} left", many(drain.remaining, "session")));
    }
    if drain.ended.lost > 0 {
        let were = if drain.ended.lost == 1 { "was" } else { "were" };
        told.push(format!("{target}: {} {were} lost during drain {id}", many(drain.ended.lost, "session")));
    }
    told
}

/// Who is left, by kind.
pub(super) fn left(drain: &api::DrainStatus) -> String {
    let mut parts = Vec::new();
    if drain.remaining > 0 {
        parts.push(format!("{} engaged, {} kept alive", drain.sessions.engaged, drain.sessions.kept_alive));
    }
    if drain.sessions.unconfirmed > 0 {
        parts.push(format!("{} unconfirmed", drain.sessions.unconfirmed));
    }
    if drain.in_flight > 0 {
        parts.push(format!("{} under way", many(drain.in_flight, "exchange")));
    }
    parts.join(", ")
}

/// When it will be empty, or why nobody can say.
pub(super) fn forecast(drain: &api::DrainStatus, now: Time) -> String {
    if drain.remaining == 0 {
        return String::new();
    }
    let eta = drain.eta_seconds;
    if let (Some(p50), Some(p90), Some(p99)) = (eta.p50, eta.p90, eta.p99) {
        let spans = if span(p50) == span(p90) { span(p50) } else { format!("{} to {}", span(p50), span(p90)) };
        let nearly = minute(now, p99);
        return format!("Likely empty in {spans}, {}; nearly surely by {nearly}.", range(&minute(now, p50), &minute(now, p90)));
    }
    drain.eta_missing.as_ref().map_or_else(String::new, |why| format!("No forecast yet: {why}."))
}

/// The bound that needs no forecast.
pub(super) fn bound(drain: &api::DrainStatus, now: Time) -> String {
    match drain.upper_bound_seconds.filter(|_| drain.remaining > 0) {
        Some(bound) => format!("If nobody clicks again, over by {}.", minute(now, bound)),
        None => String::new(),
    }
}

/// What it waits for, in the order in which these things end.
pub(super) fn waits(drain: &api::DrainStatus) -> String {
    let what = if drain.remaining > 0 {
        return String::new();
    } else if drain.sessions.unconfirmed > 0 {
        format!("{} to come back or be given up", many(drain.sessions.unconfirmed, "newborn session"))
    } else if !drain.confident {
        "a count that is sure".to_owned()
    } else if drain.in_flight > 0 {
        format!("{} to end", many(drain.in_flight, "exchange"))
    } else if drain.stands_by {
        "visitors: this proxy has none, and the verdict of the other one of the pair speaks for both".to_owned()
    } else {
        "the fence".to_owned()
    };
    let known = if drain.confident { "Nobody is left." } else { "No session is known, but the count is not sure." };
    format!("{known} It waits for {what}.")
}

/// That its zero would be the truth.
pub(super) fn confidence(drain: &api::DrainStatus) -> String {
    if drain.confident {
        return "The count is sure: zero will be the truth.".to_owned();
    }
    String::new()
}

/// What to say instead.
pub(super) fn unsure(drain: &api::DrainStatus) -> String {
    if drain.confident { String::new() } else { format!("The count is not sure yet: {}.", doubt(drain)) }
}

/// Until when, and what then.
pub(super) fn deadline(drain: &api::DrainStatus, now: Time) -> String {
    let (Some(at), Some(left)) = (&drain.deadline, drain.deadline_in_seconds) else { return String::new() };
    let then = match drain.then.as_str() {
        "evict" => "everybody who is left is evicted by then",
        "move_idle" => "whoever is not engaged is moved by then",
        _ => "nobody is sent away then",
    };
    let when = if left == 0 { "has passed".to_owned() } else { format!("in {}", span(left)) };
    format!("Deadline {} ({when}): {then}.", clock(at, now))
}

/// How those who left did so.
pub(super) fn gone(drain: &api::DrainStatus) -> String {
    let ended = &drain.ended;
    let ways = [
        (ended.logout, "logged out"),
        (ended.idle, "idle"),
        (ended.lifetime, "too old"),
        (ended.moved, "moved"),
        (ended.evicted, "evicted"),
        (ended.lost, "LOST"),
        (ended.unconfirmed, "never confirmed"),
    ];
    let told: Vec<String> = ways.into_iter().filter(|(count, _)| *count > 0).map(|(count, way)| format!("{count} {way}")).collect();
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Time = Time::from_secs(1_795_176_000);

    fn drain(change: impl FnOnce(&mut api::DrainStatus)) -> api::DrainStatus {
        let mut drain = api::DrainStatus { id: "d7".to_owned(), target: "shop/v41".to_owned(), initial: 40, ..Default::default() };
        (drain.remaining, drain.sessions.engaged, drain.sessions.kept_alive, drain.confident) = (12, 10, 2, true);
        change(&mut drain);
        drain
    }

    #[test]
    fn spans_are_said_as_people_say_them() {
        let check = |seconds, expected: &str| assert_eq!(span(seconds), expected);
        check(0, "0 s");
        check(59, "59 s");
        check(60, "1 min");
        check(61, "1 min 01 s");
        check(605, "10 min");
        check(3_660, "1 h 01 min");
        check(90_000, "1 d 1 h");
    }

    #[test]
    fn a_clock_names_the_day_unless_it_is_today() {
        assert_eq!(rfc3339(NOON), "2026-11-20T12:00:00Z");
        assert_eq!(clock("2026-11-20T14:05:09Z", NOON), "14:05:09");
        assert_eq!(clock("2026-11-21T14:05:09Z", NOON), "2026-11-21 14:05:09");
        assert_eq!(minute(NOON, 300), "12:05");
        assert_eq!(minute(NOON, 301), "12:06");
        assert_eq!(minute(NOON, 86_400), "2026-11-21 12:00");
    }

    #[test]
    fn a_drain_says_when_and_why_not() {
        let eta = api::Eta { p50: Some(420), p90: Some(1_500), p99: Some(1_790) };
        let check = |drain: &api::DrainStatus, expected: [&str; 3]| {
            assert_eq!([forecast(drain, NOON), waits(drain), confidence(drain) + &unsure(drain)], expected.map(str::to_owned));
        };
        let sure = "The count is sure: zero will be the truth.";
        let told = "Likely empty in 7 min to 25 min, by 12:07–12:25; nearly surely by 12:30.";
        check(&drain(|d| d.eta_seconds = eta), [told, "", sure]);
        check(&drain(|d| d.eta_missing = Some("3 of 20".to_owned())), ["No forecast yet: 3 of 20.", "", sure]);
        let nobody = |d: &mut api::DrainStatus| (d.remaining, d.in_flight) = (0, 2);
        check(&drain(nobody), ["", "Nobody is left. It waits for 2 exchanges to end.", sure]);
        let newborn = |d: &mut api::DrainStatus| (d.remaining, d.in_flight, d.sessions.unconfirmed) = (0, 2, 1);
        check(&drain(newborn), ["", "Nobody is left. It waits for 1 newborn session to come back or be given up.", sure]);
        let doubted = |d: &mut api::DrainStatus| (d.remaining, d.confident, d.confidence) = (0, false, Some("ledger full".to_owned()));
        let waiting = "No session is known, but the count is not sure. It waits for a count that is sure.";
        check(&drain(doubted), ["", waiting, "The count is not sure yet: ledger full."]);
        assert_eq!(bound(&drain(|d| d.upper_bound_seconds = Some(300)), NOON), "If nobody clicks again, over by 12:05.");
    }

    #[test]
    fn a_share_is_unknown_while_none_is_seen_and_that_is_no_proof() {
        let check = |drain: &api::DrainStatus, expected: (Option<f64>, &str)| {
            assert_eq!((share(drain), percent(drain).as_str()), expected);
        };
        check(&drain(|d| d.progress = 0.755), (Some(0.755), "75 %"));
        check(&drain(|d| (d.progress, d.confident) = (0.7, false)), (Some(0.7), "70 %"));
        check(&drain(|d| (d.progress, d.remaining) = (1.0, 0)), (Some(1.0), "100 %"));
        check(&drain(|d| (d.progress, d.remaining, d.confident) = (1.0, 0, false)), (None, "unknown"));
    }

    #[test]
    fn what_is_wrong_with_a_drain_is_said() {
        let check = |drain: &api::DrainStatus, expected: &[&str]| assert_eq!(drain_problems(drain), expected);
        check(&drain(|_| {}), &[]);
        check(&drain(|d| d.deadline_in_seconds = Some(5)), &[]);
        check(&drain(|d| d.deadline_in_seconds = Some(0)), &["shop/v41: the deadline of drain d7 has passed with 12 sessions left"]);
        check(&drain(|d| d.ended.lost = 1), &["shop/v41: 1 session was lost during drain d7"]);
        let down = ["shop/v41: every backend that drains is down, so nobody can finish there (drain d7)"];
        check(&drain(|d| (d.backends, d.backends_down) = (2, 2)), &down);
        check(&drain(|d| (d.backends, d.backends_down) = (2, 1)), &[]);
    }
}
