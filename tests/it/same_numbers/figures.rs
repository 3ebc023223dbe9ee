//! Every way in which tidegate tells its figures, read back into one form: name and value.
//!
//! Names are those of the page's cells: `shop/v1/a1.live`, `shop/v1.state`, `d1.remaining`. A source that does not show a figure lacks
//! its name; so no source is compared with what it never says, and the story says how much each must have.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::tidegate::Metrics;

/// By name.
pub type Figures = BTreeMap<String, String>;

/// Kinds of sessions, as documents name them.
const KINDS: [&str; 4] = ["live", "engaged", "kept_alive", "unconfirmed"];
/// How people are told of ends, and how documents name them.
const WAYS: [(&str, &str); 7] = [
    ("logged out", "logout"),
    ("idle", "idle"),
    ("too old", "lifetime"),
    ("moved", "moved"),
    ("evicted", "evicted"),
    ("LOST", "lost"),
    ("never confirmed", "unconfirmed"),
];
/// Who is left.
const LEFT: [(&str, &str); 5] = [
    ("engaged", "engaged"),
    ("kept alive", "kept_alive"),
    ("unconfirmed", "unconfirmed"),
    ("exchange under way", "in_flight"),
    ("exchanges under way", "in_flight"),
];

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| number(value.as_f64().unwrap_or_else(|| panic!("no figure: {value}"))), str::to_owned)
}

fn number(value: f64) -> String {
    format!("{value}")
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The status document, or one that lacks its apps or its drains.
pub fn of_document(status: &Value) -> Figures {
    let mut figures = Figures::new();
    for (app, of) in entries(&status["apps"]) {
        for (release, of) in entries(&of["releases"]) {
            let name = format!("{app}/{release}");
            figures.insert(format!("{name}.state"), plain(&of["state"]));
            let mut in_flight = 0.0;
            for (backend, of) in entries(&of["backends"]) {
                let name = format!("{name}/{backend}");
                for field in ["intent", "health", "admission", "incarnation", "in_flight"] {
                    figures.insert(format!("{name}.{field}"), plain(&of[field]));
                }
                if !of["counted"].is_null() {
                    figures.insert(format!("{name}.counted"), plain(&of["counted"]));
                }
                in_flight += of["in_flight"].as_f64().unwrap_or_default();
                kinds(&mut figures, &name, &of["sessions"]);
            }
            figures.insert(format!("{name}.in_flight"), number(in_flight));
            kinds(&mut figures, &name, &of["sessions"]);
        }
    }
    for drain in status["drains"].as_array().into_iter().flatten() {
        of_drain(&mut figures, drain);
    }
    figures
}

fn kinds(figures: &mut Figures, name: &str, sessions: &Value) {
    for kind in KINDS.into_iter().filter(|kind| !sessions[kind].is_null()) {
        figures.insert(format!("{name}.{kind}"), plain(&sessions[kind]));
    }
}

fn of_drain(figures: &mut Figures, drain: &Value) {
    let id = plain(&drain["id"]);
    for field in ["target", "state", "initial"] {
        figures.insert(format!("{id}.{field}"), plain(&drain[field]));
    }
    for (reason, count) in entries(&drain["ended"]) {
        figures.insert(format!("{id}.ended.{reason}"), plain(count));
    }
    if !drain["verdict"].is_null() {
        return;
    }
    for field in ["remaining", "progress", "in_flight"] {
        figures.insert(format!("{id}.{field}"), plain(&drain[field]));
    }
    let share = drain["progress"].as_f64().unwrap_or_default();
    figures.insert(format!("{id}.percent"), number((share * 100.0).floor()));
    figures.insert(format!("{id}.confident"), drain["confident"].to_string());
    kinds(figures, &id, &drain["sessions"]);
    for (level, seconds) in entries(&drain["eta_seconds"]).filter(|(_, seconds)| !seconds.is_null()) {
        figures.insert(format!("{id}.{level}"), plain(seconds));
    }
    if let Some(bound) = drain["upper_bound_seconds"].as_u64() {
        figures.insert(format!("{id}.bound"), bound.to_string());
        // The page tells the minute by which it will be so. Around its turn two clocks may differ.
        let ends = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + bound;
        if (2..58).contains(&(ends % 60)) && bound > 0 {
            figures.insert(format!("{id}.bound_minute"), format!("{:02}:{:02}", (ends + 60) / 3_600 % 24, (ends + 60) / 60 % 60));
        }
    }
}

/// The document of `sessions`; its list, if there is one, counted by backend.
pub fn of_sessions(report: &Value) -> Figures {
    let mut figures = Figures::new();
    let app = plain(&report["app"]);
    for (release, sessions) in entries(&report["releases"]) {
        kinds(&mut figures, &format!("{app}/{release}"), sessions);
    }
    let mut listed: BTreeMap<String, f64> = BTreeMap::new();
    for session in report["list"].as_array().into_iter().flatten() {
        let kind = match (session["confirmed"] == true, session["engaged"] == true) {
            (false, _) => "unconfirmed",
            (true, true) => "engaged",
            (true, false) => "kept_alive",
        };
        *listed.entry(format!("{}.{kind}", plain(&session["backend"]))).or_default() += 1.0;
    }
    figures.extend(listed.into_iter().map(|(name, count)| (name, number(count))));
    figures
}

/// `/metrics`, asked for whatever `document` has; drains under their numbers.
pub fn of_metrics(metrics: &Metrics, document: &Figures) -> Figures {
    let mut figures = Figures::new();
    let mut put = |name: String, value: f64| figures.insert(name, number(value));
    for (name, value) in document {
        let (place, field) = name.split_once('.').expect("a name has a field");
        let parts: Vec<&str> = place.split('/').collect();
        let labels: Vec<(&str, &str)> = ["app", "release", "backend"].into_iter().zip(parts.iter().copied()).collect();
        let labelled = |more: (&'static str, &'static str)| [labels.as_slice(), &[more]].concat();
        let by_word = |metric: &str, label: &str| {
            let more = [labels.as_slice(), &[(label, value.as_str())]].concat();
            metrics.sum(metric, &more)
        };
        match (parts.len(), field) {
            (2.., "engaged") => drop(put(name.clone(), metrics.sum("tidegate_sessions", &labelled(("kind", "engaged"))))),
            (2.., "kept_alive") => drop(put(name.clone(), metrics.sum("tidegate_sessions", &labelled(("kind", "kept_alive"))))),
            (2.., "live") => drop(put(name.clone(), metrics.sum("tidegate_sessions", &labels))),
            (2.., "unconfirmed") => drop(put(name.clone(), metrics.sum("tidegate_sessions_unconfirmed", &labels))),
            (2.., "in_flight") => drop(put(name.clone(), metrics.sum("tidegate_backend_in_flight", &labels))),
            (2, "state") => assert_eq!(by_word("tidegate_release_state", "state"), 1.0, "{name}: {value}"),
            (3, "intent") => assert_eq!(by_word("tidegate_backend_intent", "intent"), 1.0, "{name}: {value}"),
            (3, "health") => assert_eq!(by_word("tidegate_backend_health", "health"), 1.0, "{name}: {value}"),
            (3, "admission") => assert_eq!(by_word("tidegate_backend_admission", "admission"), 1.0, "{name}: {value}"),
            (3, "counted") => {
                let drift = metrics.sum("tidegate_count_probe_drift", &labels);
                let known = metrics.sum("tidegate_sessions", &labels) + metrics.sum("tidegate_sessions_unconfirmed", &labels);
                put(name.clone(), drift + known);
            }
            (1, "target") => {
                of_drain_metrics(metrics, document, place, value)
                    .into_iter()
                    .for_each(|(field, value)| drop(put(format!("{place}.{field}"), value)));
            }
            _ => {}
        }
    }
    let confident = figures.iter_mut().filter(|(name, _)| name.ends_with(".confident"));
    confident.for_each(|(_, value)| *value = (value == "1").to_string());
    figures
}

fn of_drain_metrics(metrics: &Metrics, document: &Figures, id: &str, target: &str) -> Vec<(&'static str, f64)> {
    let by = |metric: &str, more: &[(&str, &str)]| metrics.sum(metric, &[&[("target", target)], more].concat());
    let left = |kind| by("tidegate_drain_sessions_remaining", &[("kind", kind)]);
    let runs = document.contains_key(&format!("{id}.remaining"));
    if !runs {
        return Vec::new();
    }
    let mut told = vec![
        ("initial", by("tidegate_drain_sessions_initial", &[])),
        ("engaged", left("engaged")),
        ("kept_alive", left("kept_alive")),
        ("unconfirmed", left("unconfirmed")),
        ("remaining", left("engaged") + left("kept_alive")),
        ("in_flight", by("tidegate_drain_in_flight", &[])),
        ("progress", by("tidegate_drain_progress_ratio", &[])),
        ("confident", by("tidegate_drain_confident", &[])),
    ];
    if document.contains_key(&format!("{id}.bound")) {
        told.push(("bound", by("tidegate_drain_upper_bound_seconds", &[]).floor()));
    }
    let etas = [("p50", "0.5"), ("p90", "0.9"), ("p99", "0.99")];
    let etas = etas.into_iter().filter(|(level, _)| document.contains_key(&format!("{id}.{level}")));
    told.extend(etas.map(|(level, quantile)| (level, by("tidegate_drain_eta_seconds", &[("quantile", quantile)]).floor())));
    told
}

/// What `tidegate status` prints.
pub fn of_status_text(text: &str) -> Figures {
    let mut figures = Figures::new();
    let (mut app, mut release) = (String::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let Some((name, _)) = line.split_once(": current ") {
            name.clone_into(&mut app);
        } else if words.first().is_some_and(|word| word.starts_with('d') && word[1..].parse::<u32>().is_ok()) {
            of_drain_line(&mut figures, &words, line);
        } else if line.starts_with(' ') && words.len() >= 9 {
            let name = format!("{app}/{release}/{}", words[0]);
            let fields = ["intent", "health", "admission", "in_flight", "live", "engaged", "unconfirmed", "counted"];
            figures.extend(fields.iter().zip(&words[2..]).map(|(field, word)| (format!("{name}.{field}"), (*word).to_owned())));
        } else if words.len() == 6 && words[0] != "RELEASE" {
            words[0].clone_into(&mut release);
            let fields = ["state", "in_flight", "live", "engaged", "unconfirmed"];
            figures.extend(fields.iter().zip(&words[1..]).map(|(field, word)| (format!("{app}/{release}.{field}"), (*word).to_owned())));
        }
    }
    figures.retain(|_, value| value != "?");
    figures
}

fn of_drain_line(figures: &mut Figures, words: &[&str], line: &str) {
    let id = words[0];
    let mut put = |field: &str, value: String| drop(figures.insert(format!("{id}.{field}"), value));
    put("target", words[1].to_owned());
    if !words[2].starts_with('[') {
        put("state", words[2].to_owned());
        let ways = line.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or_default();
        named(ways, &WAYS).into_iter().for_each(|(way, count)| put(&format!("ended.{way}"), count));
        return;
    }
    put("percent", words[3].trim_end_matches('%').to_owned());
    let (_, told) = line.split_once("%  ").expect("a share");
    put("confident", (!told.contains("not sure yet")).to_string());
    for part in told.split("; ") {
        let words: Vec<&str> = part.split(' ').collect();
        if let [remaining, "of", initial, "left"] = words.as_slice() {
            put("remaining", (*remaining).to_owned());
            put("initial", (*initial).to_owned());
        } else if let Some(spans) = part.strip_prefix("empty in ") {
            let (range, p99) = spans.split_once(", 99%: ").map_or((spans, None), |(range, p99)| (range, Some(p99)));
            let (p50, p90) = range.split_once(" to ").unwrap_or((range, range));
            put("p50", seconds(p50));
            put("p90", seconds(p90));
            put("p99", seconds(p99.unwrap_or(p90)));
        } else if let Some(rest) = part.strip_prefix("at most ") {
            put("bound", seconds(rest.split(' ').next().unwrap_or_default()));
        } else {
            named(part, &LEFT).into_iter().for_each(|(kind, count)| put(kind, count));
        }
    }
}

/// `4 logged out, 2 idle` by the names of documents.
fn named(text: &str, names: &[(&str, &'static str)]) -> Vec<(&'static str, String)> {
    let one = |part: &str| {
        let (count, words) = part.split_once(' ')?;
        let (_, name) = names.iter().find(|(said, _)| *said == words)?;
        count.parse::<u64>().ok()?;
        Some((*name, count.to_owned()))
    };
    text.split(", ").filter_map(one).collect()
}

/// `7m05s` or `7 min 05 s`. Nothing here lasts ten minutes, so nothing is rounded away.
fn seconds(span: &str) -> String {
    let span = span.replace(" min", "m").replace([' ', 's'], "");
    let (minutes, seconds) = span.split_once('m').unwrap_or(("0", &span));
    let number = |text: &str| if text.is_empty() { 0 } else { text.parse::<u64>().unwrap_or_else(|_| panic!("no span: {span}")) };
    (number(minutes) * 60 + number(seconds)).to_string()
}

/// What `tidegate sessions APP` prints.
pub fn of_sessions_text(app: &str, text: &str) -> Figures {
    let mut figures = Figures::new();
    for line in text.lines().skip(1).take_while(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] != "all" {
            figures.extend(KINDS.iter().zip(&words[1..]).map(|(kind, word)| (format!("{app}/{}.{kind}", words[0]), (*word).to_owned())));
        }
    }
    figures
}

/// The page as it is served: its texts and bars by key, and the drains that are over.
pub fn of_page(html: &str) -> Figures {
    let mut cells = Figures::new();
    for piece in html.split(" data-k=\"").skip(1) {
        let (key, rest) = piece.split_once('"').expect("a key ends");
        let text = rest.split_once('>').and_then(|(_, rest)| rest.split('<').next()).unwrap_or_default();
        cells.insert(key.to_owned(), text.to_owned());
    }
    let mut figures = of_cells(cells);
    for piece in html.split(" data-v=\"").skip(1) {
        let (key, rest) = piece.split_once('"').expect("a key ends");
        let share = rest.split("value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        figures.insert(key.to_owned(), share.to_owned());
    }
    for piece in html.split(" data-finished=\"").skip(1) {
        let (id, rest) = piece.split_once('"').expect("a number ends");
        let row = rest.split("</tr>").next().unwrap_or_default();
        let cell = |label: &str| {
            let rest = row.split(&format!("data-label=\"{label}\">")).nth(1).unwrap_or_else(|| panic!("no {label}: {row}"));
            let cell = rest.split("</td>").next().unwrap_or_default();
            cell.rsplit_once("\">").map_or(cell, |(_, word)| word).trim_end_matches("</span>").to_owned()
        };
        figures.insert(format!("{id}.state"), cell("Verdict"));
        figures.insert(format!("{id}.initial"), cell("At first"));
        for (way, count) in named(&cell("They left"), &WAYS) {
            figures.insert(format!("{id}.ended.{way}"), count);
        }
    }
    figures
}

/// A frame of the page's stream that holds everything.
pub fn of_frame(frame: &Value) -> Figures {
    let cells = entries(&frame["cells"]).map(|(key, text)| (key.clone(), plain(text))).collect();
    let mut figures = of_cells(cells);
    figures.extend(entries(&frame["bars"]).map(|(key, share)| (key.clone(), plain(share))));
    figures
}

/// Cells that are a figure by themselves, and the figures in sentences.
fn of_cells(cells: Figures) -> Figures {
    let mut figures = Figures::new();
    for (key, text) in cells {
        let Some((place, field)) = key.rsplit_once('.') else { continue };
        match field {
            "left" => figures.extend(named(&text, &LEFT).into_iter().map(|(kind, count)| (format!("{place}.{kind}"), count))),
            "ended" => {
                let ways = text.trim_start_matches("So far ").trim_end_matches('.');
                figures.extend(named(ways, &WAYS).into_iter().map(|(way, count)| (format!("{place}.ended.{way}"), count)));
            }
            "eta" => {
                if let Some(told) = text.strip_prefix("Likely empty in ").and_then(|rest| rest.split(", by ").next()) {
                    let (p50, p90) = told.split_once(" to ").unwrap_or((told, told));
                    figures.insert(format!("{place}.p50"), seconds(p50));
                    figures.insert(format!("{place}.p90"), seconds(p90));
                }
            }
            "confidence" => drop(figures.insert(format!("{place}.confident"), text.starts_with("The count is sure").to_string())),
            "percent" if text != "unknown" => drop(figures.insert(key, text.trim_end_matches(" %").to_owned())),
            "percent" | "tally" | "unsure" => {}
            "bound" => {
                if let Some(told) = text.strip_prefix("If nobody clicks again, over by ").and_then(|rest| rest.strip_suffix('.')) {
                    let minute = told.rsplit(' ').next().unwrap_or(told);
                    figures.insert(format!("{place}.bound_minute"), minute.to_owned());
                }
            }
            "glance" | "waits" | "deadline" | "backends" => {}
            _ => drop(figures.insert(key, text.replace(' ', "_"))),
        }
    }
    figures.retain(|_, value| value != "?");
    figures
}
