//! Status, drains and sessions as text. Pure: what goes in is what the API said, and what the [`Medium`] can show.
//!
//! In a pipe the words are the same, without colours and with bars of ASCII: scripts read them.

mod drain;
mod medium;
mod table;

#[cfg(test)]
pub use drain::example_drain;
pub use drain::{drain_line, drain_parts, folded, gone, left};
pub use medium::{Medium, Text, Tone};
use table::Table;

use crate::api;

/// Finished drains below the running ones: the last deploy and the one before it.
const FINISHED_SHOWN: usize = 3;

/// The status document; only one app when `only` names it.
pub fn status(status: &api::Status, only: Option<&str>, medium: Medium) -> String {
    let mut text = String::new();
    if status.stopping {
        text.push_str(&Text::of(Tone::Change, "stopping").on(medium));
        text.push_str(": exchanges under way may finish, then it ends\n\n");
    }
    for (name, app) in status.apps.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        text.push_str(&format!("{}: current {}\n", Text::of(Tone::Title, name).on(medium), app.current));
        text.push_str(&app_table(app).on(medium));
        text.push('\n');
    }
    if only.is_none() && status.apps.0.is_empty() {
        text.push_str("no app is configured\n\n");
    }
    let differs: Vec<&String> = status.differs.iter().filter(|line| only.is_none_or(|only| of_app(line, only))).collect();
    if !differs.is_empty() {
        text.push_str(&Text::of(Tone::Change, "differs from the file:\n").on(medium));
        for line in differs {
            text.push_str(&format!("  {line}\n"));
        }
        text.push('\n');
    }
    let drains = drains(&status.drains, only, medium);
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

fn app_table(app: &api::AppStatus) -> Table {
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
        let words = [Text::of(Tone::Title, name), toned(&release.state)].into_iter().chain(std::iter::repeat_n(Text::default(), 5));
        let numbers = counts_of(in_flight, release.sessions);
        table.row(words.chain(numbers).chain(counts.then(Text::default)).collect());
        for (name, b) in release.backends.iter() {
            let counted = || Text::plain(b.counted.map_or_else(|| "?".to_owned(), |n| n.to_string()));
            let named = [Text::default(), Text::default(), Text::plain(name), Text::plain(&b.address)];
            let words = named.into_iter().chain([&b.intent, &b.health, &b.admission].map(|word| toned(word)));
            table.row(words.chain(counts_of(b.in_flight, b.sessions)).chain(counts.then(counted)).collect());
        }
    }
    table
}

fn toned(word: &str) -> Text {
    Text::of(Tone::of(word), word)
}

fn counts_of(in_flight: u64, sessions: api::Sessions) -> [Text; 4] {
    [in_flight, sessions.live, sessions.engaged, sessions.unconfirmed].map(|n| Text::plain(n.to_string()))
}

/// Drains that run, then the last that ended.
fn drains(drains: &[api::DrainStatus], app: Option<&str>, medium: Medium) -> String {
    let ours = |d: &&api::DrainStatus| app.is_none_or(|app| d.target.starts_with("host:") || d.target.split('/').next() == Some(app));
    let running = drains.iter().filter(ours).filter(|d| d.verdict.is_none());
    let mut ended: Vec<_> = drains.iter().filter(ours).filter(|d| d.verdict.is_some()).rev().take(FINISHED_SHOWN).collect();
    ended.reverse();
    running.chain(ended).map(|drain| drain_line(drain, medium) + "\n").collect()
}

/// `1 session`, `2 sessions`.
pub fn many(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
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
pub fn sessions(report: &api::SessionsReport, medium: Medium) -> String {
    let mut table = Table::new(&["RELEASE", ">LIVE", ">ENGAGED", ">KEPT ALIVE", ">UNCONFIRMED"]);
    let all = ("all", &report.sessions);
    for (name, s) in report.releases.iter().chain((report.releases.0.len() > 1).then_some(all)) {
        let numbers = [s.live, s.engaged, s.kept_alive, s.unconfirmed].map(|n| Text::plain(n.to_string()));
        table.row(std::iter::once(Text::of(Tone::Title, name)).chain(numbers).collect());
    }
    let mut text = table.on(medium);
    if !report.ages.is_empty() {
        let mut spread = Table::new(&["LIVE SESSIONS", ">BY AGE", ">BY IDLENESS"]);
        for (age, idle) in report.ages.iter().zip(&report.idle) {
            let bound = age.up_to_seconds.map_or_else(|| "longer".to_owned(), |s| format!("up to {}", span(s)));
            spread.row([bound, age.sessions.to_string(), idle.sessions.to_string()].map(Text::plain).to_vec());
        }
        text = text + "\n" + &spread.on(medium);
    }
    if let Some(list) = &report.list {
        let mut table = Table::new(&["HANDLE", "BACKEND", ">AGE", ">IDLE", "ENGAGED", "CONFIRMED", ">OPEN"]);
        let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        for s in list {
            let (age, idle) = (span(s.age_seconds), span(s.idle_seconds));
            let cells = [s.handle.clone(), s.backend.clone(), age, idle, word(s.engaged), word(s.confirmed), s.open.to_string()];
            table.row(cells.map(Text::plain).to_vec());
        }
        text = text + "\n" + &table.on(medium);
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(status(&document, Some("shop"), Medium::PLAIN), expected);
        let coloured = Medium { colours: true, ..Medium::PLAIN };
        let line = "\x1b[1mv41\x1b[0m      \x1b[33mdraining\x1b[0m                                                                   1    12       10            3\n";
        assert!(status(&document, Some("shop"), coloured).contains(line), "{}", status(&document, Some("shop"), coloured));
        let line = "a1       127.0.0.1:8081  serve   \x1b[32mup\x1b[0m      \x1b[33mknown_sessions\x1b[0m          1    12";
        assert!(status(&document, Some("shop"), coloured).contains(line), "colours push nothing out of its column");
        assert!(status(&document, None, Medium::PLAIN).contains("wiki: current by_health\n"));
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
            let table = app_table(&app).on(Medium::PLAIN);
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
