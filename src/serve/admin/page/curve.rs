//! The curve of an app: live sessions of each release, stacked, so that one sees the wave go out and the next one come in.
//!
//! The release that came last lies at the bottom in the accent colour: what is older recedes above it. Only the order of releases decides
//! over colours, not who is current, so that a rollback does not repaint the past.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use maud::{Markup, PreEscaped, html};

use super::words::{clock, many, span};
use crate::api;
use crate::model::time::Time;
use crate::serve::date::rfc3339;
use crate::serve::history::{EVERY, Point, Sample};

/// The drawing's own units; the page stretches it.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 150.0;
/// Points along the time axis: more than that no screen shows.
const POINTS: usize = 150;
/// Longer silence between two samples is a gap.
const GAP: Duration = Duration::from_secs(3 * EVERY.as_secs());
/// Shortest and longest time axis, in seconds; in between it holds all samples, in whole minutes.
const WINDOW: [u64; 2] = [120, 3600];
/// Releases with a colour of their own; older ones share the last.
const RANKS: usize = 5;

/// What one release held, sample by sample.
struct Series {
    name: String,
    live: Vec<u64>,
}

/// An app in which nothing changes is drawn anew so often, for the time to move on.
const IDLE: Duration = Duration::from_secs(60);
/// One in which something does: each change at first, and later no more often than a screen can show.
const BUSY: [(u64, Duration); 2] = [(600, EVERY), (u64::MAX, Duration::from_secs(15))];

/// The figures of all apps as they were drawn last. Each is sent to all open pages when it is drawn, and most apps are at rest.
#[derive(Default)]
pub(super) struct Gallery {
    drawn: BTreeMap<String, Drawn>,
    shown: Arc<BTreeMap<String, String>>,
}

/// What a figure was drawn from.
struct Drawn {
    at: Time,
    points: Vec<Point>,
    drains: usize,
}

impl Gallery {
    /// Each app's figure.
    pub(super) fn curves(&mut self, status: &api::Status, samples: &[Arc<Sample>]) -> Arc<BTreeMap<String, String>> {
        let newest = samples.last();
        let age = newest.zip(samples.first()).map_or(0, |(last, first)| last.at.since(first.at).as_secs());
        let pause = BUSY.into_iter().find(|(until, _)| age <= *until).map_or(EVERY, |(_, pause)| pause);
        let mut due = Vec::new();
        for (name, app) in status.apps.iter() {
            let points = newest.into_iter().flat_map(|sample| &sample.points).filter(|point| *point.app == *name).cloned().collect();
            let drains = status.drains.iter().filter(|drain| drain.target.split('/').next() == Some(name)).count();
            let now = Drawn { at: newest.map_or(Time::from_secs(0), |sample| sample.at), points, drains };
            if self.drawn.get(name).is_none_or(|before| before.is_old(&now, pause)) {
                self.drawn.insert(name.to_owned(), now);
                due.push((name.to_owned(), curve(name, app, &status.drains, samples).0));
            }
        }
        let gone = |name: &String| status.apps.get(name).is_none();
        if !due.is_empty() || self.shown.keys().any(gone) {
            let mut shown = BTreeMap::clone(&self.shown);
            shown.extend(due);
            shown.retain(|name, _| !gone(name));
            self.drawn.retain(|name, _| !gone(name));
            self.shown = Arc::new(shown);
        }
        Arc::clone(&self.shown)
    }
}

impl Drawn {
    fn is_old(&self, now: &Drawn, pause: Duration) -> bool {
        let age = now.at.since(self.at);
        let changed = (&self.points, self.drains) != (&now.points, now.drains);
        age >= IDLE || changed && age >= pause
    }
}

fn curve(name: &str, app: &api::AppStatus, drains: &[api::DrainStatus], samples: &[Arc<Sample>]) -> Markup {
    let (Some(first), Some(last)) = (samples.first().map(|s| s.at), samples.last().map(|s| s.at)) else {
        return html! { p.quiet { "The curve of sessions begins in a few seconds." } };
    };
    let age = last.since(first).as_secs();
    let [shortest, longest] = WINDOW;
    let window = (age.div_ceil(60) * 60).clamp(shortest, longest);
    let samples = thinned(samples);
    let series = series(name, app, &samples);
    let newborn: Vec<u64> = samples.iter().map(|s| s.points.iter().filter(|p| *p.app == *name).map(|p| p.unconfirmed).sum()).collect();
    let top = nice((0..samples.len()).map(|i| series.iter().map(|s| at(&s.live, i)).sum::<u64>() + at(&newborn, i)).max().unwrap_or(0));
    let begin = last - Duration::from_secs(window);
    let x = |time: Time| (time.since(begin).as_secs_f64() / window as f64 * WIDTH).min(WIDTH);
    let y = |count: u64| HEIGHT - count as f64 / top as f64 * HEIGHT;
    let times: Vec<Time> = samples.iter().map(|sample| sample.at).collect();
    let id = format!("curve-{name}");
    let mut base = vec![0; samples.len()];
    let mut areas = Vec::new();
    let unconfirmed = Series { name: String::new(), live: newborn };
    for (rank, series) in series.iter().chain([&unconfirmed]).enumerate() {
        let next: Vec<u64> = base.iter().zip(&series.live).map(|(base, live)| base + live).collect();
        let class = if series.name.is_empty() { "newborn".to_owned() } else { format!("r{}", rank.min(RANKS - 1)) };
        areas.push((class, outline(&times, &base, &next, &x, &y), ridge(&times, &next, &x, &y)));
        base = next;
    }
    let marks = drains.iter().filter(|drain| drain.target.split('/').next() == Some(name)).map(|drain| drain.started.as_str());
    let marks: Vec<f64> = marks.filter(|at| *at >= rfc3339(begin.max(first)).as_str()).filter_map(|at| place(at, &times)).map(x).collect();
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-labelledby=(format!("{id}-title {id}-desc")) {
            title id=(format!("{id}-title")) { "Live sessions of " (name) " by release, last " (span(window)) }
            desc id=(format!("{id}-desc")) { (summary(&series)) }
            path.grid d=(format!("M0 {0}H{WIDTH}M0 {1}H{WIDTH}", HEIGHT / 2.0, 0.5)) {}
            @for (class, area, ridge) in &areas {
                path class=(format!("area {class}")) d=(area) {}
                path class=(format!("ridge {class}")) d=(ridge) {}
            }
            @for x in marks { path.mark d=(format!("M{x:.1} 0V{HEIGHT}")) { title { "a drain begins" } } }
        }
        div.scale aria-hidden="true" { span { (top) } span { (top / 2) } span { "0" } }
        div.times aria-hidden="true" { span { (clock(&rfc3339(begin), last)) } span { (span(window)) } span { (clock(&rfc3339(last), last)) " UTC" } }
        (legend(&series, &unconfirmed))
    }
}

/// Names only: the figures of this moment stand below, and a sample is up to five seconds old.
fn legend(series: &[Series], unconfirmed: &Series) -> Markup {
    html! {
        ul.legend {
            @for (rank, series) in series.iter().enumerate() {
                li { (key(&format!("r{}", rank.min(RANKS - 1)))) b { (series.name) } }
            }
            @if unconfirmed.live.iter().any(|count| *count > 0) {
                li { (key("newborn")) "unconfirmed" }
            }
            @if series.is_empty() { li { "no session within this time" } }
        }
    }
}

fn key(class: &str) -> Markup {
    html! { (PreEscaped(format!("<svg class=\"key\" viewBox=\"0 0 20 10\" aria-hidden=\"true\"><path class=\"area {class}\" d=\"M0 3H20V10H0Z\"/><path class=\"ridge {class}\" d=\"M0 3H20\"/></svg>"))) }
}

/// For those who do not see it.
fn summary(series: &[Series]) -> String {
    let told = series.iter().map(|series| {
        let (first, last) = (series.live.first().copied().unwrap_or(0), series.live.last().copied().unwrap_or(0));
        let most = series.live.iter().copied().max().unwrap_or(0);
        format!("{}: {first} at first, {most} at most, {last} at last", series.name)
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { many(0, "session") } else { told.join("; ") + "." }
}

/// Releases that had a session, the last that came first; those that are gone from the app are the oldest.
fn series(name: &str, app: &api::AppStatus, samples: &[Arc<Sample>]) -> Vec<Series> {
    let mut gone: Vec<&str> = Vec::new();
    for point in samples.iter().flat_map(|sample| &sample.points).filter(|point| *point.app == *name) {
        if app.releases.get(&point.release).is_none() && !gone.contains(&&*point.release) {
            gone.push(&point.release);
        }
    }
    let names = app.releases.0.iter().rev().map(|(name, _)| name.as_str()).chain(gone.into_iter().rev());
    let of = |release: &str| -> Vec<u64> {
        let held = |sample: &Arc<Sample>| sample.points.iter().find(|p| *p.app == *name && *p.release == *release).map_or(0, |p| p.live);
        samples.iter().map(held).collect()
    };
    names.map(|release| Series { live: of(release), name: release.to_owned() }).filter(|s| s.live.iter().any(|live| *live > 0)).collect()
}

/// No more samples than can be seen; the first, the last and both sides of each gap stay.
fn thinned(samples: &[Arc<Sample>]) -> Vec<Arc<Sample>> {
    let step = samples.len().div_ceil(POINTS).max(1);
    let edge = |i: usize| {
        let far = |a: Option<&Arc<Sample>>, b: Option<&Arc<Sample>>| a.zip(b).is_none_or(|(a, b)| b.at.since(a.at) > GAP);
        let before = i.checked_sub(1).and_then(|i| samples.get(i));
        far(before, samples.get(i)) || far(samples.get(i), samples.get(i + 1))
    };
    // Counted from the end, so that the thinning does not flicker at the right, where everybody looks.
    let kept = samples.iter().enumerate().filter(|(i, _)| (samples.len() - 1 - i).is_multiple_of(step) || edge(*i));
    kept.map(|(_, sample)| Arc::clone(sample)).collect()
}

fn at(values: &[u64], index: usize) -> u64 {
    values.get(index).copied().unwrap_or(0)
}

/// Runs of samples without a gap, as ranges of indices. Thinned samples are further apart than real ones.
fn runs(times: &[Time]) -> Vec<std::ops::Range<usize>> {
    let usual = times.windows(2).filter_map(|pair| Some(pair.last()?.since(*pair.first()?))).min().unwrap_or(EVERY);
    let gap = GAP.max(usual * 8);
    let (mut runs, mut start) = (Vec::new(), 0);
    for (i, pair) in times.windows(2).enumerate() {
        if pair.last().zip(pair.first()).is_some_and(|(b, a)| b.since(*a) > gap) {
            runs.push(start..i + 1);
            start = i + 1;
        }
    }
    runs.push(start..times.len());
    runs
}

/// The area between two stacked lines.
fn outline(times: &[Time], low: &[u64], high: &[u64], x: &impl Fn(Time) -> f64, y: &impl Fn(u64) -> f64) -> String {
    let mut path = String::new();
    for run in runs(times) {
        let there = run.clone().filter_map(|i| Some((*times.get(i)?, *high.get(i)?)));
        let back = run.rev().filter_map(|i| Some((*times.get(i)?, *low.get(i)?)));
        for (n, (time, count)) in there.chain(back).enumerate() {
            point(&mut path, if n == 0 { 'M' } else { 'L' }, x(time), y(count));
        }
        path.push('Z');
    }
    path
}

/// Its upper edge.
fn ridge(times: &[Time], high: &[u64], x: &impl Fn(Time) -> f64, y: &impl Fn(u64) -> f64) -> String {
    let mut path = String::new();
    for run in runs(times) {
        for (n, (time, count)) in run.filter_map(|i| Some((*times.get(i)?, *high.get(i)?))).enumerate() {
            point(&mut path, if n == 0 { 'M' } else { 'L' }, x(time), y(count));
        }
    }
    path
}

fn point(path: &mut String, command: char, x: f64, y: f64) {
    // Writing to a string cannot fail.
    write!(path, "{command}{x:.1} {y:.1}").unwrap_or_default();
}

/// The sample nearest to a moment written as RFC 3339.
fn place(at: &str, times: &[Time]) -> Option<Time> {
    times.iter().copied().find(|time| rfc3339(*time).as_str() >= at)
}

/// The next round number whose half is one, too, for an axis with a middle.
fn nice(count: u64) -> u64 {
    let small = [4, 6, 8].into_iter().find(|top| *top >= count);
    let mut scale: u64 = 1;
    small.unwrap_or_else(|| {
        loop {
            let tops = [10, 12, 14, 16, 18, 20, 24, 30, 36, 40, 50, 60, 70, 80, 90];
            if let Some(top) = tops.into_iter().map(|top| scale.saturating_mul(top)).find(|top| *top >= count) {
                return top;
            }
            scale = scale.saturating_mul(10);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, counts: &[(&str, u64)]) -> Arc<Sample> {
        let point = |(release, live): &(&str, u64)| Point { app: "shop".into(), release: (*release).into(), live: *live, unconfirmed: 0 };
        Arc::new(Sample { at: Time::from_secs(1_795_176_000 + second), points: counts.iter().map(point).collect() })
    }

    fn app(releases: &[&str]) -> api::AppStatus {
        let release = |name: &&str| {
            let status = api::ReleaseStatus { state: "current".to_owned(), sessions: Default::default(), backends: Default::default() };
            ((*name).to_owned(), status)
        };
        api::AppStatus { current: "v42".to_owned(), releases: releases.iter().map(release).collect() }
    }

    #[test]
    fn the_release_that_came_last_is_at_the_bottom_and_those_without_sessions_are_left_out() {
        let samples = [sample(0, &[("v40", 1), ("v41", 30)]), sample(5, &[("v41", 20), ("v42", 8)])];
        let names = |releases: &[&str]| series("shop", &app(releases), &samples).into_iter().map(|s| s.name).collect::<Vec<_>>();
        assert_eq!(names(&["v41", "v42", "v43"]), ["v42", "v41", "v40"], "v40 is gone from the app");
        let drawn = curve("shop", &app(&["v41", "v42"]), &[], &samples).0;
        assert!(drawn.contains("v41: 30 at first, 30 at most, 20 at last"), "{drawn}");
        assert!(drawn.contains("<b>v42</b>"), "{drawn}");
    }

    #[test]
    fn a_gap_is_not_bridged() {
        let check = |seconds: &[u64], expected: usize| {
            let times: Vec<Time> = seconds.iter().map(|second| Time::from_secs(*second)).collect();
            assert_eq!(runs(&times).len(), expected, "{seconds:?}");
        };
        check(&[0, 5, 10, 15], 1);
        check(&[0, 5, 10, 300, 305], 2);
        check(&[0, 20, 40, 60], 1);
        check(&[0], 1);
    }

    #[test]
    fn a_curve_is_drawn_when_its_app_has_changed_and_once_a_minute_at_rest() {
        let (mut gallery, mut samples, mut told) = (Gallery::default(), Vec::new(), Vec::new());
        let nothing: api::Status = serde_json::from_str(r#"{"version":"0.1.0","apps":{},"drains":[]}"#).unwrap();
        let mut status = nothing.clone();
        status.apps.0.push(("shop".to_owned(), app(&["v42"])));
        let mut before = Arc::default();
        // Somebody comes every five seconds, but for the third minute; and after the tenth minute it is drawn less often.
        for second in (0..780).step_by(5) {
            let live = if (120..180).contains(&second) { 24 } else { second / 5 };
            samples.push(sample(second, &[("v42", live)]));
            let now = gallery.curves(&status, &samples);
            if !Arc::ptr_eq(&now, &before) {
                told.push(second);
            }
            assert!(Arc::ptr_eq(&now, &gallery.curves(&status, &samples)), "no sample, no drawing");
            before = now;
        }
        let within = |from: u64, to: u64| told.iter().filter(|second| (from..to).contains(*second)).count();
        assert_eq!([within(0, 120), within(120, 180), within(180, 600), within(620, 770)], [24, 1, 84, 10], "{told:?}");
        assert!(gallery.curves(&nothing, &samples).is_empty(), "an app that is gone is not drawn");
    }

    #[test]
    fn an_hour_is_thinned_to_what_a_screen_shows() {
        let hour: Vec<_> = (0..720).map(|i| sample(5 * i, &[("v42", i)])).collect();
        let thin = thinned(&hour);
        assert!(thin.len() <= POINTS + 2, "{}", thin.len());
        assert_eq!((thin.first(), thin.last()), (hour.first(), hour.last()));
        assert_eq!(thinned(&hour[..7]).len(), 7);
        let times: Vec<Time> = thin.iter().map(|s| s.at).collect();
        assert_eq!(runs(&times).len(), 1);
    }

    #[test]
    fn the_axis_ends_at_a_round_number() {
        let check = |count, expected| assert_eq!(nice(count), expected, "{count}");
        check(0, 4);
        check(4, 4);
        check(5, 6);
        check(37, 40);
        check(41, 50);
        check(u64::MAX, u64::MAX);
        check(205, 240);
        check(1_000_001, 1_200_000);
    }

    #[test]
    fn without_a_sample_there_is_a_word() {
        assert!(curve("shop", &app(&["v42"]), &[], &[]).0.contains("begins"));
    }
}
