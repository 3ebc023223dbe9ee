//! A real Prometheus with the shipped configuration.
//!
//! Of the files only what must differ is replaced: address, token, intervals, and the times of the alerts. A replacement that finds
//! nothing to replace fails, so that an edit of the files cannot leave the test behind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::client::{Browser, Call};
use crate::process::{Process, Scratch, free_port, require_file, wait_for};
use crate::tidegate::Tidegate;

/// Where the files are.
pub(super) const DEPLOYED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");

/// A file of `deploy/prometheus`.
pub(super) fn deployed(file: &str) -> String {
    fs::read_to_string(Path::new(DEPLOYED).join(file)).unwrap_or_else(|error| panic!("deploy/prometheus/{file}: {error}"))
}

/// Each of them at least once.
fn replaced(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (from, to) in pairs {
        assert!(text.contains(from), "nothing says {from} any more:\n{text}");
        text = text.replace(from, to);
    }
    text
}

/// The alerts with their times shortened: an hour without news is ten seconds, and what must last lasts two.
pub(super) fn hurried(alerts: String) -> String {
    let text =
        replaced(alerts, &[("[1h]", "[10s]"), ("offset 1h", "offset 10s"), ("< 3600", "< 10"), ("> 3600", "> 10"), ("- 1800", "- 5")]);
    let lines = text.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 2s\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// The running process. Ends on drop.
pub(super) struct Prometheus {
    port: u16,
    _process: Process,
    _scratch: Scratch,
}

impl Prometheus {
    /// Scrapes that tidegate once a second, with its token.
    pub(super) fn start(tidegate: &Tidegate) -> Prometheus {
        require_file("/usr/bin/prometheus", "prometheus");
        let scratch = Scratch::new("prometheus");
        let target = tidegate.admin_url().trim_start_matches("http://").to_owned();
        let token = tidegate.folder().join("token").display().to_string();
        let config = replaced(
            deployed("prometheus.yml"),
            &[
                ("tidegate:9180", &target),
                ("/etc/prometheus/tidegate.token", &token),
                ("scrape_interval: 5s", "scrape_interval: 1s"),
                ("evaluation_interval: 15s", "evaluation_interval: 1s"),
            ],
        );
        scratch.write("rules.yml", &deployed("rules.yml"));
        scratch.write("alerts.yml", &hurried(deployed("alerts.yml")));
        let config = scratch.write("prometheus.yml", &config);
        let port = free_port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", scratch.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(scratch.path());
        let mut process = Process::start("prometheus", command, &scratch.path().join("prometheus.log"));
        wait_for("prometheus is ready", Duration::from_secs(30), || {
            process.assert_running();
            Browser::new(port).send(Call::get("/-/ready")).is_ok_and(|answer| answer.status == 200)
        });
        Prometheus { port, _process: process, _scratch: scratch }
    }

    /// `http://HOST:PORT`.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Seconds since 1970, as it counts them.
    pub(super) fn now(&self) -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
    }

    /// The series of an expression at each second since then. Panics with its word when it does not like the expression.
    pub(super) fn range(&self, expression: &str, since: f64) -> Vec<Value> {
        let (since, now) = (since.to_string(), self.now().to_string());
        let form = [("query", expression), ("start", &since), ("end", &now), ("step", "1")];
        self.ask("/api/v1/query_range", &form)["result"].as_array().expect("series").clone()
    }

    /// Whether it has brought a number, at any moment since then.
    pub(super) fn has_data(&self, expression: &str, since: f64) -> bool {
        self.brought(expression, since, |value| !value.is_nan())
    }

    /// Whether it has brought such a number, at any moment since then.
    pub(super) fn brought(&self, expression: &str, since: f64, is_such: impl Fn(f64) -> bool) -> bool {
        let is = |sample: &Value| sample[1].as_str().and_then(|value| value.parse::<f64>().ok()).is_some_and(&is_such);
        self.range(expression, since).iter().any(|series| series["values"].as_array().expect("values").iter().any(is))
    }

    /// Whether it has a value now.
    pub(super) fn holds(&self, expression: &str) -> bool {
        !self.ask("/api/v1/query", &[("query", expression)])["result"].as_array().expect("a vector").is_empty()
    }

    /// The alerts that are pending or fire now, with their texts.
    pub(super) fn alerts(&self) -> Vec<Value> {
        let answer = Browser::new(self.port).send_or_panic(Call::get("/api/v1/alerts")).expect_status(200);
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        answer["data"]["alerts"].as_array().expect("alerts").clone()
    }

    fn ask(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let call = Call::post(path, body.join("&")).field("Content-Type", "application/x-www-form-urlencoded");
        let answer = Browser::new(self.port).send_or_panic(call);
        let text = answer.text();
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{form:?}: {error}: {text}"));
        assert!(answer["status"] == "success" && answer["warnings"].is_null(), "{form:?}: {answer}");
        answer["data"].take()
    }
}

/// As in a form.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
