//! Status, drains and sessions as text. Pure: what goes in is what the API said.

use crate::api;

/// Cells of a progress bar: wide enough to move once in twenty sessions, narrow enough for 80 columns.
const BAR: usize = 20;
/// Finished drains below the running ones: the last deploy and the one before it.
const FINISHED_SHOWN: usize = 3;

/// The status document; only one app when `only` names it.
pub fn status(status: &api::Status, only: Option<&str>) -> String {
    let mut text = String::new();
    if status.stopping {
        text.push_str("stopping: exchanges under way may finish, then it ends\n\n");
    }
    for (name, app) in status.apps.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        text.push_str(&format!("{name}: current {}\n", app.current));
        text.push_str(&app_table(app));
        text.push('\n');
    }
    if only.is_none() && status.apps.0.is_empty() {
        text.push_str("no app is configured\n\n");
    }
    let differs: Vec<&String> = status.differs.iter().filter(|line| only.is_none_or(|only| of_app(line, only))).collect();
    if !differs.is_empty() {
        text.push_str("differs from the file:\n");
        for line in differs {
            text.push_str(&format!("  {line}\n"));
        }
        text.push('\n');
    }
    let drains = drains(&status.drains, only);
    if drains.is_empty() {
        text.push_str("no drains\n");
    }
    text + &drains
}

/// A line such as `shop/v41: …` or `shop: …`.
fn of_app(line: &str, app: &str) -> bool {
    line.strip_prefix(app).is_some_and(|rest| rest.starts_with(['/', ':']))
}

/// What a reload did or would do.
pub fn reloaded(done: &api::Reloaded) -> String {
    let mut lines: Vec<String> = done
        .changes
        .iter()
        .map(|change| {
            let live = if change.live > 0 { format!(" ({} live sessions there)", change.live) } else { String::new() };
            format!("{}: {}{live}", change.at, change.what)
        })
        .collect();
    lines.extend(done.problems.iter().map(|wrong| format!("refused: {}", problem(wrong))));
    lines.push(match done.result.as_str() {
        "unchanged" => "the file says what is applied already".to_owned(),
        "would_apply" => "this would be applied; nothing was changed".to_owned(),
        "would_refuse" => "this would be refused; nothing was changed".to_owned(),
        _ if done.drains.is_empty() => "applied".to_owned(),
        _ => format!("applied; drains: {}", done.drains.join(", ")),
    });
    lines.join("\n")
}

/// As `tidegate check` writes it.
pub fn problem(problem: &api::Problem) -> String {
    let place = match (&problem.file, problem.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        _ => String::new(),
    };
    let at = if problem.at.is_empty() { String::new() } else { format!("{}: ", problem.at) };
    format!("{place}{at}{}; {}", problem.what, problem.remedy)
}

fn app_table(app: &api::AppStatus) -> String {
    let mut table = Table::new(&[
        "RELEASE",
        "STATE",
        "BACKEND",
        "ADDRESS",
        "INTENT",
        "HEALTH",
        "ADMISSION",
        ">IN FLIGHT",
        ">LIVE",
        ">ENGAGED",
        ">UNCONFIRMED",
    ]);
    // What backends say themselves, where any is asked and answers.
    let counts = app.releases.iter().any(|(_, release)| release.backends.iter().any(|(_, b)| b.counted.is_some()));
    if counts {
        table.heading(">COUNTED");
    }
    for (name, release) in app.releases.iter() {
        let in_flight: u64 = release.backends.iter().map(|(_, b)| b.in_flight).sum();
        table.row([name, &release.state, "", "", "", "", ""], in_flight, release.sessions, counts.then(String::new));
        for (name, b) in release.backends.iter() {
            let counted = || b.counted.map_or_else(|| "?".to_owned(), |n| n.to_string());
            let words = ["", "", name, &b.address, &b.intent, &b.health, &b.admission];
            table.row(words, b.in_flight, b.sessions, counts.then(counted));
        }
    }
    table.text()
}

/// Drains that run, then the last that ended.
fn drains(drains: &[api::DrainStatus], app: Option<&str>) -> String {
    let ours = |d: &&api::DrainStatus| app.is_none_or(|app| d.target.starts_with("host:") || d.target.split('/').next() == Some(app));
    let running = drains.iter().filter(ours).filter(|d| d.verdict.is_none());
    let mut ended: Vec<_> = drains.iter().filter(ours).filter(|d| d.verdict.is_some()).rev().take(FINISHED_SHOWN).collect();
    ended.reverse();
    running.chain(ended).map(|drain| drain_line(drain) + "\n").collect()
}

/// One drain in one line.
pub fn drain_line(d: &api::DrainStatus) -> String {
    let head = format!("{:<4} {:<20}", d.id, d.target);
    if let Some(verdict) = &d.verdict {
        let at = d.finished.as_deref().map_or_else(String::new, |at| format!(" at {at}"));
        return format!("{head} {verdict}{at} ({})", gone(d));
    }
    format!("{head} [{}] {:>3}%  {}", bar(d.progress), percent(d.progress), left(d))
}

/// Who is left of a running drain, and what it waits for.
pub fn left(d: &api::DrainStatus) -> String {
    let mut parts = vec![format!("{} of {} left", d.remaining, d.initial)];
    if d.remaining > 0 {
        parts.extend(eta(&d.eta_seconds).or_else(|| d.eta_missing.as_ref().map(|why| format!("no forecast: {why}"))));
    }
    if d.remaining > 0 {
        parts.push(format!("{} engaged, {} kept alive", d.sessions.engaged, d.sessions.kept_alive));
    }
    if d.sessions.unconfirmed > 0 {
        parts.push(format!("{} unconfirmed", d.sessions.unconfirmed));
    }
    if d.remaining == 0 && d.in_flight > 0 {
        parts.push(format!("{} under way", many(d.in_flight, "exchange")));
    }
    if let (Some(bound), true) = (d.upper_bound_seconds, d.remaining > 0) {
        parts.push(format!("at most {} if nobody clicks again", span(bound)));
    }
    match d.deadline_in_seconds {
        Some(0) => parts.push("deadline passed".to_owned()),
        Some(left) => parts.push(format!("deadline in {} ({})", span(left), d.then)),
        None => {}
    }
    if !d.confident {
        let why = d.confidence.as_deref().unwrap_or("sessions from before may exist");
        parts.push(format!("not sure yet: {why}"));
    }
    parts.join("; ")
}

/// A line in as many as fit into `width`, broken where its parts end; those after the first are indented.
pub fn folded(line: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in line.split("; ") {
        match lines.last_mut() {
            Some(last) if last.chars().count() + 2 + part.chars().count() <= width => *last += &format!("; {part}"),
            Some(_) => lines.push(format!("{:5}{part}", "")),
            None => lines.push(part.to_owned()),
        }
    }
    // What still does not fit is cut: a line that wraps by itself cannot be gone over again.
    lines.iter().map(|line| line.chars().take(width).collect()).collect()
}

/// From as likely as not to nine times of ten; nearly always where that is longer.
fn eta(eta: &api::Eta) -> Option<String> {
    let (p50, p90, p99) = (eta.p50?, eta.p90?, eta.p99?);
    let range = if span(p50) == span(p90) { format!("empty in {}", span(p50)) } else { format!("empty in {} to {}", span(p50), span(p90)) };
    Some(if span(p99) == span(p90) { range } else { format!("{range}, 99%: {}", span(p99)) })
}

/// How those that have gone went.
pub fn gone(d: &api::DrainStatus) -> String {
    let ways = [
        (d.ended.logout, "logged out"),
        (d.ended.idle, "idle"),
        (d.ended.lifetime, "too old"),
        (d.ended.moved, "moved"),
        (d.ended.evicted, "evicted"),
        (d.ended.lost, "LOST"),
    ];
    let told: Vec<String> = ways.into_iter().filter(|(count, _)| *count > 0).map(|(count, way)| format!("{count} {way}")).collect();
    if told.is_empty() { "nobody had to leave".to_owned() } else { told.join(", ") }
}

/// `1 session`, `2 sessions`.
pub fn many(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn bar(progress: f64) -> String {
    // Down, so that a full bar means that nobody is left.
    let full = ((progress.clamp(0.0, 1.0) * BAR as f64).floor() as usize).min(BAR);
    "#".repeat(full) + &"-".repeat(BAR - full)
}

fn percent(progress: f64) -> u64 {
    (progress.clamp(0.0, 1.0) * 100.0).floor() as u64
}

/// Seconds as people say them: two units at most.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The sessions of an app.
pub fn sessions(report: &api::SessionsReport) -> String {
    let mut table = Table::new(&["RELEASE", ">LIVE", ">ENGAGED", ">KEPT ALIVE", ">UNCONFIRMED"]);
    let all = ("all", &report.sessions);
    for (name, s) in report.releases.iter().chain((report.releases.0.len() > 1).then_some(all)) {
        table.cells(vec![name.to_owned(), s.live.to_string(), s.engaged.to_string(), s.kept_alive.to_string(), s.unconfirmed.to_string()]);
    }
    let mut text = table.text();
    if !report.ages.is_empty() {
        let mut spread = Table::new(&["LIVE SESSIONS", ">BY AGE", ">BY IDLENESS"]);
        for (age, idle) in report.ages.iter().zip(&report.idle) {
            let bound = age.up_to_seconds.map_or_else(|| "longer".to_owned(), |s| format!("up to {}", span(s)));
            spread.cells(vec![bound, age.sessions.to_string(), idle.sessions.to_string()]);
        }
        text = text + "\n" + &spread.text();
    }
    if let Some(list) = &report.list {
        let mut table = Table::new(&["HANDLE", "BACKEND", ">AGE", ">IDLE", "ENGAGED", "CONFIRMED", ">OPEN"]);
        let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        for s in list {
            let (age, idle) = (span(s.age_seconds), span(s.idle_seconds));
            table.cells(vec![s.handle.clone(), s.backend.clone(), age, idle, word(s.engaged), word(s.confirmed), s.open.to_string()]);
        }
        text = text + "\n" + &table.text();
        if report.truncated {
            text.push_str("(there are more)\n");
        }
    }
    text
}

/// What would happen to a request.
pub fn explained(r: &api::ExplainReport) -> String {
    let to = r.backend.as_deref().map_or_else(String::new, |backend| format!(" to {backend}"));
    let strip = if r.strip { "\nits dead session cookie would be taken out of the request" } else { "" };
    format!("{}{to}\nbecause: {} ({})\npin: {}; session: {}{strip}", r.decision, r.sentence, r.reason, r.pin, r.session)
}

/// An event in one line.
pub fn event(e: &api::Event) -> String {
    format!("{}  {:<10}  {}  {}", e.at, e.owner, e.target, e.what)
}

/// Columns as wide as their widest cell; a `>` before a heading aligns to the right.
struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(headings: &[&str]) -> Table {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        Table { right, rows: vec![headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect()] }
    }

    fn cells(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// One more column.
    fn heading(&mut self, heading: &str) {
        self.right.push(heading.starts_with('>'));
        self.rows.iter_mut().take(1).for_each(|row| row.push(heading.trim_start_matches('>').to_owned()));
    }

    fn row(&mut self, words: [&str; 7], in_flight: u64, sessions: api::Sessions, last: Option<String>) {
        let numbers = [in_flight, sessions.live, sessions.engaged, sessions.unconfirmed];
        self.cells(words.into_iter().map(str::to_owned).chain(numbers.map(|n| n.to_string())).chain(last).collect());
    }

    fn text(&self) -> String {
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row
                .iter()
                .zip(&widths)
                .zip(&self.right)
                .map(|((cell, width), right)| if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A drain in its middle, for the tests here and of waiting.
#[cfg(test)]
pub(super) fn example_drain() -> api::DrainStatus {
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
            assert_eq!(drain_line(&drain), expected);
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
            "d7   shop/v41             [####################] 100%  0 of 40 left; not sure yet: sessions from before may exist",
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
        let check = |width, expected: &[&str]| assert_eq!(folded("d7 12 left; at most 5m; not sure", width), expected, "{width}");
        check(40, &["d7 12 left; at most 5m; not sure"]);
        check(24, &["d7 12 left; at most 5m", "     not sure"]);
        check(12, &["d7 12 left", "     at most", "     not sur"]);
    }

    #[test]
    fn a_bar_is_full_only_when_nobody_is_left() {
        let check = |progress, expected: &str, hundredths| assert_eq!((bar(progress).as_str(), percent(progress)), (expected, hundredths));
        check(0.0, "--------------------", 0);
        check(0.5, "##########----------", 50);
        check(0.999, "###################-", 99);
        check(1.0, "####################", 100);
        check(f64::NAN, "--------------------", 0);
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (60, "1m00s"), (3_599, "59m59s"), (3_600, "1h00m"), (90_000, "1d01h")] {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn the_status_is_a_table_for_each_app() {
        let text = r#"{"version":"0.1.0","apps":{"shop":{"current":"v42","releases":{"v41":{"state":"draining",
          "sessions":{"live":12,"engaged":10,"kept_alive":2,"unconfirmed":3},"backends":{"a1":{"address":"127.0.0.1:8081",
          "intent":"serve","health":"up","admission":"known_sessions","incarnation":1,"in_flight":1,
          "sessions":{"live":12,"engaged":10,"kept_alive":2,"unconfirmed":3}}}}}},"wiki":{"current":"by_health","releases":{}}},"drains":[]}"#;
        let document: api::Status = serde_json::from_str(text).unwrap();
        let expected = "shop: current v42\n\
            RELEASE  STATE     BACKEND  ADDRESS         INTENT  HEALTH  ADMISSION       IN FLIGHT  LIVE  ENGAGED  UNCONFIRMED\n\
            v41      draining                                                                   1    12       10            3\n\
            \x20                  a1       127.0.0.1:8081  serve   up      known_sessions          1    12       10            3\n\
            \n\
            no drains\n";
        assert_eq!(status(&document, Some("shop")), expected);
        assert!(status(&document, None).contains("wiki: current by_health\n"));
    }

    #[test]
    fn what_backends_count_themselves_has_a_column_where_any_is_asked() {
        let check = |first: Option<u64>, second: Option<u64>, expected: [&str; 3]| {
            let b = r#"{"address":"h:1","intent":"serve","health":"up","admission":"everyone","incarnation":1,"in_flight":0,
              "sessions":{"live":2,"engaged":2,"kept_alive":0,"unconfirmed":0}}"#;
            let text = format!(
                r#"{{"current":"v1","releases":{{"v1":{{"state":"current","sessions":{{"live":4,"engaged":4,"kept_alive":0,"unconfirmed":0}},
                  "backends":{{"a1":{b},"a2":{b}}}}}}}}}"#
            );
            let mut app: api::AppStatus = serde_json::from_str(&text).unwrap();
            let backends = &mut app.releases.0[0].1.backends.0;
            (backends[0].1.counted, backends[1].1.counted) = (first, second);
            let table = app_table(&app);
            let ends: Vec<&str> = table.lines().map(|line| line.rsplit("  ").next().unwrap().trim()).collect();
            assert_eq!([ends[0], ends[2], ends[3]], expected, "{table}");
        };
        check(None, None, ["UNCONFIRMED", "0", "0"]);
        check(Some(7), Some(12), ["COUNTED", "7", "12"]);
        check(Some(7), None, ["COUNTED", "7", "?"]);
    }

    #[test]
    fn an_explanation_names_the_backend_and_the_reason() {
        let report = api::ExplainReport {
            decision: "forward".to_owned(),
            backend: Some("shop/v41/a1".to_owned()),
            reason: "pinned".to_owned(),
            sentence: "its live session is on this backend".to_owned(),
            pin: "valid".to_owned(),
            session: "live".to_owned(),
            strip: false,
        };
        assert_eq!(
            explained(&report),
            "forward to shop/v41/a1\nbecause: its live session is on this backend (pinned)\npin: valid; session: live"
        );
    }
}
