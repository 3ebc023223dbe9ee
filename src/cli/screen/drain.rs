//! A drain as text: its bar, who is left, what it waits for, how the others went.
//!
//! A line is made of parts, so that a narrow terminal breaks it between two of them and never inside one.

use super::medium::{Medium, Text, Tone};
use super::{many, span};
use crate::api;

/// Cells of a progress bar: wide enough to move once in twenty sessions, narrow enough for 80 columns.
const BAR: usize = 20;
/// Between two parts.
const BREAK: &str = "; ";
/// A cell that is filled by so many eighths.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// One drain in one line.
pub fn drain_line(d: &api::DrainStatus, medium: Medium) -> String {
    joined(drain_parts(d, medium)).on(medium)
}

/// The same in parts.
pub fn drain_parts(d: &api::DrainStatus, medium: Medium) -> Vec<Text> {
    let head = Text::of(Tone::Title, format!("{:<4}", d.id)).and(Text::plain(format!(" {:<20} ", d.target)));
    if let Some(verdict) = &d.verdict {
        let at = d.finished.as_deref().map_or_else(String::new, |at| format!(" at {at}"));
        let tone = if verdict == "drained" { Tone::Good } else { Tone::Change };
        return vec![head.and(Text::of(tone, verdict)).and(Text::plain(format!("{at} ("))).and(ways(d)).and(Text::plain(")"))];
    }
    let share = if is_unknown(d) { "?".to_owned() } else { percent(d.progress).to_string() };
    let progress = bar(d, medium).and(Text::plain(format!(" {share:>3}%  ")));
    let mut parts = left_parts(d);
    if let Some(first) = parts.first_mut() {
        *first = head.and(progress).and(std::mem::take(first));
    }
    parts
}

/// Who is left of a running drain, and what it waits for.
pub fn left(d: &api::DrainStatus) -> String {
    joined(left_parts(d)).on(Medium::PLAIN)
}

fn who_is_left(d: &api::DrainStatus) -> String {
    match d.initial {
        0 if is_unknown(d) => return "nobody known to be left".to_owned(),
        initial if is_unknown(d) => return format!("none of {initial} known to be left"),
        _ => {}
    }
    // Newborns that were confirmed since it began may make more of them than there were.
    if d.remaining > d.initial {
        return format!("{} left, of {} at first", d.remaining, d.initial);
    }
    format!("{} of {} left", d.remaining, d.initial)
}

/// Whether nobody is known, and that proves nothing: no share of anything.
fn is_unknown(d: &api::DrainStatus) -> bool {
    d.remaining == 0 && !d.confident
}

fn left_parts(d: &api::DrainStatus) -> Vec<Text> {
    let mut parts = vec![Text::plain(who_is_left(d))];
    let mut say = |words: String| parts.push(Text::plain(words));
    if d.remaining > 0 {
        if let Some(words) = eta(&d.eta_seconds).or_else(|| d.eta_missing.as_ref().map(|why| format!("no forecast: {why}"))) {
            say(words);
        }
        say(format!("{} engaged, {} kept alive", d.sessions.engaged, d.sessions.kept_alive));
    }
    if d.sessions.unconfirmed > 0 {
        say(format!("{} unconfirmed", d.sessions.unconfirmed));
    }
    if d.remaining == 0 && d.in_flight > 0 {
        say(format!("{} under way", many(d.in_flight, "exchange")));
    }
    if let (Some(bound), true) = (d.upper_bound_seconds, d.remaining > 0) {
        say(format!("at most {} if nobody clicks again", span(bound)));
    }
    match d.deadline_in_seconds {
        Some(0) => parts.push(Text::of(Tone::Bad, "deadline passed")),
        Some(left) => parts.push(Text::plain(format!("deadline in {} ({})", span(left), d.then))),
        None => {}
    }
    if !d.confident {
        let why = d.confidence.as_deref().unwrap_or("sessions from before may exist");
        parts.push(Text::of(Tone::Change, format!("not sure yet: {why}")));
    }
    parts
}

fn joined(parts: Vec<Text>) -> Text {
    parts.into_iter().reduce(|line, part| line.and(Text::plain(BREAK)).and(part)).unwrap_or_default()
}

/// Parts in as many lines as fit into `width`; those after the first are indented.
pub fn folded(parts: Vec<Text>, width: usize) -> Vec<Text> {
    let mut lines: Vec<Text> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(last) if last.len() + BREAK.len() + part.len() <= width => *last = joined(vec![std::mem::take(last), part]),
            Some(_) => lines.push(Text::plain("     ").and(part)),
            None => lines.push(part),
        }
    }
    // What still does not fit is cut: a line that wraps by itself cannot be gone over again.
    lines.iter().map(|line| line.cut(width)).collect()
}

/// From as likely as not to nine times of ten; nearly always where that is longer.
fn eta(eta: &api::Eta) -> Option<String> {
    let (p50, p90, p99) = (eta.p50?, eta.p90?, eta.p99?);
    let range = if span(p50) == span(p90) { format!("empty in {}", span(p50)) } else { format!("empty in {} to {}", span(p50), span(p90)) };
    Some(if span(p99) == span(p90) { range } else { format!("{range}, 99%: {}", span(p99)) })
}

/// How those that have gone went.
pub fn gone(d: &api::DrainStatus) -> String {
    ways(d).on(Medium::PLAIN)
}

fn ways(d: &api::DrainStatus) -> Text {
    let ways = [
        (d.ended.logout, "logged out", Tone::Plain),
        (d.ended.idle, "idle", Tone::Plain),
        (d.ended.lifetime, "too old", Tone::Plain),
        (d.ended.moved, "moved", Tone::Plain),
        (d.ended.evicted, "evicted", Tone::Change),
        (d.ended.lost, "LOST", Tone::Bad),
    ];
    let told = ways.into_iter().filter(|(count, ..)| *count > 0).map(|(count, way, tone)| Text::of(tone, format!("{count} {way}")));
    told.reduce(|line, way| line.and(Text::plain(", ")).and(way)).unwrap_or_else(|| Text::plain("nobody had to leave"))
}

/// Rounded down, so that a full bar means that nobody is left.
fn bar(d: &api::DrainStatus, medium: Medium) -> Text {
    let tone = if d.confident { Tone::Good } else { Tone::Change };
    let progress = if is_unknown(d) { 0.0 } else { d.progress.clamp(0.0, 1.0) };
    let eighths = ((progress * (BAR * 8) as f64).floor() as usize).min(BAR * 8);
    let full = eighths / 8;
    if !medium.blocks {
        return Text::plain("[").and(Text::of(tone, "#".repeat(full))).and(Text::plain("-".repeat(BAR - full) + "]"));
    }
    let begun = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
    let rest = BAR - full - usize::from(!begun.is_empty());
    Text::of(tone, "█".repeat(full) + begun).and(Text::of(Tone::Aside, "░".repeat(rest)))
}

fn percent(progress: f64) -> u64 {
    (progress.clamp(0.0, 1.0) * 100.0).floor() as u64
}

/// A drain in its middle, for the tests here and of waiting.
#[cfg(test)]
pub fn example_drain() -> api::DrainStatus {
    let text = r#"{"id":"d7","target":"shop/v41","state":"draining","owner":"operator","started":"2026-11-20T10:00:00Z",
      "initial":40,"remaining":12,"progress":0.7,"confident":true,"eta_seconds":{"p50":null,"p90":null,"p99":null},
      "upper_bound_seconds":1795,"deadline":null,"ended":{"logout":20,"idle":8,"moved":0,"lost":0,"evicted":0},"verdict":null,
      "sessions":{"live":12,"engaged":10,"kept_alive":2,"unconfirmed":3},"in_flight":1,"backends":2,"backends_down":0}"#;
    serde_json::from_str(text).expect("a fixed document")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_says_who_is_left_and_what_it_waits_for() {
        let check = |change: fn(&mut api::DrainStatus), expected: &str| {
            let mut drain = example_drain();
            change(&mut drain);
            assert_eq!(drain_line(&drain, Medium::PLAIN), expected);
        };
        check(
            |_| (),
            "d7   shop/v41             [##############------]  70%  12 of 40 left; 10 engaged, 2 kept alive; 3 unconfirmed; at most 29m55s if nobody clicks again",
        );
        check(
            |d| (d.remaining, d.progress, d.sessions, d.upper_bound_seconds) = (0, 1.0, api::Sessions::default(), None),
            "d7   shop/v41             [####################] 100%  0 of 40 left; 1 exchange under way",
        );
        check(
            |d| (d.remaining, d.progress, d.sessions, d.in_flight, d.confident) = (0, 1.0, api::Sessions::default(), 0, false),
            "d7   shop/v41             [--------------------]   ?%  none of 40 known to be left; not sure yet: sessions from before may exist",
        );
        check(
            |d| (d.remaining, d.progress, d.initial) = (12, 0.0, 8),
            "d7   shop/v41             [--------------------]   0%  12 left, of 8 at first; 10 engaged, 2 kept alive; 3 unconfirmed; at most 29m55s if nobody clicks again",
        );
        check(
            |d| (d.confident, d.confidence) = (false, Some("seen for 4m of 30m".to_owned())),
            "d7   shop/v41             [##############------]  70%  12 of 40 left; 10 engaged, 2 kept alive; 3 unconfirmed; at most 29m55s if nobody clicks again; not sure yet: seen for 4m of 30m",
        );
        check(
            |d| {
                d.eta_seconds = api::Eta { p50: Some(420), p90: Some(1500), p99: Some(5400) };
                (d.deadline_in_seconds, d.then) = (Some(7200), "evict".to_owned());
            },
            "d7   shop/v41             [##############------]  70%  12 of 40 left; empty in 7m00s to 25m00s, 99%: 1h30m; 10 engaged, 2 kept alive; 3 unconfirmed; at most 29m55s if nobody clicks again; deadline in 2h00m (evict)",
        );
        check(
            |d| d.eta_missing = Some("4 sessions of this app have ended so far, a forecast takes 20".to_owned()),
            "d7   shop/v41             [##############------]  70%  12 of 40 left; no forecast: 4 sessions of this app have ended so far, a forecast takes 20; 10 engaged, 2 kept alive; 3 unconfirmed; at most 29m55s if nobody clicks again",
        );
        check(
            |d| (d.verdict, d.finished) = (Some("drained".to_owned()), Some("2026-11-20T10:40:00Z".to_owned())),
            "d7   shop/v41             drained at 2026-11-20T10:40:00Z (20 logged out, 8 idle)",
        );
    }

    #[test]
    fn a_long_line_is_folded_between_its_parts() {
        let parts = ["d7 12 left", "at most 5m", "not sure"].map(Text::plain).to_vec();
        let check = |width, expected: &[&str]| {
            let lines: Vec<String> = folded(parts.clone(), width).iter().map(|line| line.on(Medium::PLAIN)).collect();
            assert_eq!(lines, expected, "{width}");
        };
        check(40, &["d7 12 left; at most 5m; not sure"]);
        check(24, &["d7 12 left; at most 5m", "     not sure"]);
        check(12, &["d7 12 left", "     at most", "     not sur"]);
    }

    #[test]
    fn a_bar_is_full_only_when_nobody_is_left() {
        let check = |progress, expected: &str, blocks: &str, hundredths| {
            let drain = api::DrainStatus { progress, ..example_drain() };
            let drawn = |blocks| bar(&drain, Medium { blocks, ..Medium::PLAIN }).on(Medium::PLAIN);
            assert_eq!((drawn(false).as_str(), drawn(true).as_str(), percent(progress)), (expected, blocks, hundredths), "{progress}");
        };
        check(0.0, "[--------------------]", "░░░░░░░░░░░░░░░░░░░░", 0);
        check(0.5, "[##########----------]", "██████████░░░░░░░░░░", 50);
        check(0.52, "[##########----------]", "██████████▍░░░░░░░░░", 52);
        check(0.999, "[###################-]", "███████████████████▉", 99);
        check(1.0, "[####################]", "████████████████████", 100);
        check(f64::NAN, "[--------------------]", "░░░░░░░░░░░░░░░░░░░░", 0);
    }

    #[test]
    fn a_colour_says_what_a_word_says_too() {
        let colours = Medium { colours: true, ..Medium::PLAIN };
        let check = |change: fn(&mut api::DrainStatus), expected: &str| {
            let mut drain = example_drain();
            change(&mut drain);
            let line = drain_line(&drain, colours);
            assert!(line.contains(expected), "{line:?}");
        };
        check(|_| (), "[\x1b[32m##############\x1b[0m------]");
        check(|d| d.confident = false, "[\x1b[33m##############\x1b[0m------]");
        check(|d| d.confident = false, "\x1b[33mnot sure yet: sessions from before may exist\x1b[0m");
        check(|d| d.deadline_in_seconds = Some(0), "\x1b[1m\x1b[31mdeadline passed\x1b[0m");
        check(|d| d.verdict = Some("drained".to_owned()), "\x1b[32mdrained\x1b[0m (20 logged out, 8 idle)");
        check(|d| d.verdict = Some("superseded".to_owned()), "\x1b[33msuperseded\x1b[0m");
        check(|d| (d.verdict, d.ended.lost) = (Some("drained".to_owned()), 2), "8 idle, \x1b[1m\x1b[31m2 LOST\x1b[0m)");
    }
}
