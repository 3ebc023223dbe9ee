//! `deploy/prometheus` and `deploy/grafana` before a real Prometheus that scrapes a real tidegate.
//!
//! What is judged is read from the files that are shipped: every expression of the dashboards must bring data and every alert must
//! fire, after each fault was really provoked. Only times are shortened, by [`server::hurried`].
//!
//! | file | holds |
//! |---|---|
//! | `server` | a Prometheus with the shipped configuration, and questions to it |
//! | `play` | a deploy in which nothing goes wrong, then everything that can |
//! | `boards` | the dashboards as files: expressions, variables, panels |
//! | `linter` | the rules of Grafana's dashboard linter |
//! | `schema` | the dashboards by Grafana's own model of one |

mod boards;
mod linter;
mod play;
mod schema;
mod server;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_yaml::Value;
use tidegate::serve::admin::metrics::METRICS;

use self::boards::Board;
use self::play::Stage;
use self::server::{DEPLOYED, Prometheus, deployed};
use crate::client::Call;
use crate::process::{Scratch, require_file, wait_for, wait_for_some};

/// From a fault to the alert, on a busy machine.
const FIRES: Duration = Duration::from_secs(45);

/// Runs promtool in `deploy/prometheus`; it must find nothing, warnings neither.
fn promtool(arguments: &[&str]) {
    require_file("/usr/bin/promtool", "prometheus");
    let ended = Command::new("promtool").args(arguments).current_dir(DEPLOYED).output().expect("promtool runs");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && !said.to_lowercase().contains("warning"), "promtool {arguments:?}: {said}");
}

/// The rules of a file: those with that key, and all of its fields.
fn rules(file: &str, key: &str) -> Vec<Value> {
    let text: Value = serde_yaml::from_str(&deployed(file)).expect("YAML");
    let groups = text["groups"].as_sequence().expect("groups");
    let all: Vec<Value> = groups.iter().flat_map(|group| group["rules"].as_sequence().expect("rules")).cloned().collect();
    assert!(all.len() > 5 && all.iter().all(|rule| rule[key].is_string()), "{file}: rules are found, and each is one of {key}");
    all
}

fn word<'a>(rule: &'a Value, key: &str) -> &'a str {
    rule[key].as_str().unwrap_or_else(|| panic!("{key} in {rule:?}"))
}

#[test]
fn promtool_finds_nothing_in_rules_alerts_and_configuration_and_the_alerts_keep_their_times() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yml", "alerts.yml"]);
    promtool(&["check", "config", "--syntax-only", "--lint=all", "--lint-fatal", "prometheus.yml"]);
    promtool(&["test", "rules", "tests.yml"]);
    let tests = deployed("tests.yml");
    for alert in rules("alerts.yml", "alert") {
        assert!(tests.contains(&format!("\"{}\"", word(&alert, "alert"))), "{} has no test of its times", word(&alert, "alert"));
    }
}

#[test]
fn each_alert_says_how_bad_it_is_what_to_type_and_where_to_read_on() {
    let runbook = deployed("README.md");
    let mut names = BTreeSet::new();
    for alert in rules("alerts.yml", "alert") {
        let name = word(&alert, "alert");
        assert!(names.insert(name.to_owned()), "{name} twice");
        assert!(["critical", "warning", "info"].contains(&word(&alert["labels"], "severity")), "{name}");
        let notes = &alert["annotations"];
        assert!(word(notes, "summary").contains("{{"), "{name}: the summary names what it is about");
        assert!(word(notes, "description").len() > 60, "{name}: {notes:?}");
        assert_eq!(word(notes, "runbook_url"), format!("deploy/prometheus/README.md#{}", name.to_lowercase()));
        let part = runbook.split(&format!("\n### {name}\n")).nth(1).unwrap_or_else(|| panic!("the runbook has no part {name}"));
        let part = part.split("\n### ").next().expect("a part");
        assert!(part.len() > 80, "{name}: {part}");
        let after = alert["for"].as_str().map_or_else(String::new, |time| format!(", after {time}"));
        let first = format!("*{}{after}.*", word(&alert["labels"], "severity"));
        assert!(part.trim_start().starts_with(&first), "{name}: the runbook begins with {first}");
    }
    let parts = runbook.matches("\n### ").count();
    assert_eq!(parts, names.len(), "a part of the runbook for each alert, and no other");
    // Level, metric, operation.
    for rule in rules("rules.yml", "record") {
        let parts: Vec<&str> = word(&rule, "record").split(':').collect();
        assert!(parts.len() == 3 && parts[1].starts_with("tidegate_") && parts[0].starts_with("instance"), "{parts:?}");
    }
}

#[test]
fn dashboards_and_alerts_name_metrics_that_exist_and_show_every_one() {
    let mut asked: Vec<(String, String)> = Vec::new();
    for board in Board::all() {
        asked.extend(board.expressions());
    }
    let shown: String = asked.iter().map(|(_, expression)| expression.as_str()).collect();
    for (file, key) in [("rules.yml", "record"), ("alerts.yml", "alert")] {
        asked.extend(rules(file, key).iter().map(|rule| (word(rule, key).to_owned(), word(rule, "expr").to_owned())));
    }
    let recorded: BTreeSet<String> = rules("rules.yml", "record").iter().map(|rule| word(rule, "record").to_owned()).collect();
    let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    for (place, expression) in &asked {
        let names = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        for name in names.filter(|name| name.contains("tidegate_")) {
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
            assert!(known.contains(plain) || known.contains(name) || recorded.contains(name), "{place}: no metric {name}");
        }
    }
    let missing: Vec<&&str> = known.iter().filter(|name| !shown.contains(**name)).collect();
    assert!(missing.is_empty(), "in neither dashboard: {missing:?}");
}

#[test]
fn a_proxy_that_starts_again_marks_no_promotion_anew() {
    // Two of them; `b` is away for some seconds. v2 is current before that, v3 from second 20 on, when v2 begins to drain.
    let series = |name: &str, of: &str, [a, b]: [&str; 2]| {
        [("a", a), ("b", b)].map(|(instance, values)| {
            format!("      - {{series: '{name}{{job=\"tidegate\", instance=\"{instance}\"{of}}}', values: '{values}'}}\n")
        })
    };
    let state = |release: &str, state: &str, values| {
        series("tidegate_release_state", &format!(", app=\"shop\", release=\"{release}\", state=\"{state}\""), values).concat()
    };
    let mut tests = "evaluation_interval: 1s\ntests:\n  - interval: 1s\n    input_series:\n".to_owned();
    tests += &series("tidegate_build_info", ", version=\"0.1.0\"", ["1x40", "1x8 stale _x3 1x28"]).concat();
    tests += &state("v2", "current", ["1x19 0x20", "1x8 stale _x3 1x6 0x20"]);
    tests += &state("v1", "drained", ["1x40", "1x8 stale _x3 1x28"]);
    tests += &state("v3", "current", ["0x19 1x20", "0x8 stale _x3 0x6 1x20"]);
    tests += &state("v2", "drained", ["0x19 1x20", "0x8 stale _x3 0x6 1x20"]);
    tests += "    promql_expr_test:\n";
    for board in Board::all() {
        for annotation in board.annotations().into_iter().filter(|annotation| annotation["name"] != "Drains") {
            let expression = boards::filled_in(boards::text(&annotation["target"], "expr"));
            let marked = if annotation["name"] == "Promotions" { "v3" } else { "v2" };
            for second in 5..25 {
                let seen = if (20..22).contains(&second) {
                    format!("{{labels: '{{app=\"shop\", release=\"{marked}\"}}', value: 1}}")
                } else {
                    String::new()
                };
                tests += &format!("      - {{expr: '{expression}', eval_time: {second}s, exp_samples: [{seen}]}}\n");
            }
        }
    }
    assert_eq!(tests.matches("eval_time").count(), 2 * 2 * 20, "two annotations of each dashboard");
    let scratch = Scratch::new("annotations");
    let file = scratch.write("tests.yml", &tests);
    promtool(&["test", "rules", &file.display().to_string()]);
}

/// What some of them are about: with several apps, one could fire for the fault of another.
const ABOUT: &[(&str, &str)] = &[
    ("TidegateDrainStuck", "target=\"shop/v1\""),
    ("TidegateDrainDeadlineMissed", "target=\"shop/v1\""),
    ("TidegateDrainNotConfident", "target=\"small/v2\""),
    ("TidegateDrainHeldByExchange", "target=\"shop/v1\""),
    ("TidegateSessionsLost", "app=\"shop\",release=\"v2\",cause=\"restart\""),
    ("TidegateSessionsReplaced", "app=\"small\",cause=\"replaced\""),
    ("TidegateSessionsEvicted", "app=\"small\",cause=\"evicted\""),
    ("TidegateLedgerNearlyFull", "app=\"small\""),
    ("TidegateCountProbeDrift", "backend=\"b1\""),
    ("TidegateCountProbeFails", "backend=\"a2\""),
    ("TidegateNoReadyBackend", "app=\"gone\""),
    ("TidegateBackendDown", "backend=\"d1\",health=\"down\""),
    ("TidegateBackendFlapping", "backend=\"d1\""),
    ("TidegateBackendQueue", "backend=\"c1\""),
    ("TidegateRequestsFail", "app=\"gone\""),
    ("TidegateCertificateExpiresSoon", "name=\"shop.test\""),
];

/// Names of the alerts that have fired since then.
fn fired(prometheus: &Prometheus, since: f64) -> BTreeSet<String> {
    let series = prometheus.range("ALERTS{alertstate=\"firing\"}", since);
    series.iter().map(|one| one["metric"]["alertname"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn every_expression_of_both_dashboards_has_data_and_every_alert_fires_when_its_fault_is_provoked() {
    let began = Instant::now();
    let mut stage = Stage::new();
    let prometheus = Prometheus::start(stage.tidegate());
    let since = prometheus.now();
    wait_for("the first scrape", FIRES, || prometheus.has_data("up == 1", since));
    println!("{:?}: scraped", began.elapsed());
    stage.deploy_well(&prometheus);
    assert_eq!(fired(&prometheus, since), BTreeSet::new(), "a run in which nothing goes wrong");
    draw(&prometheus);
    println!("{:?}: deployed and rolled back", began.elapsed());

    let all: BTreeSet<String> = rules("alerts.yml", "alert").iter().map(|alert| word(alert, "alert").to_owned()).collect();
    stage.everything_goes_wrong(&prometheus, |name| {
        assert!(all.contains(name), "no alert {name}");
        wait_for(&format!("{name} fires"), FIRES, || fired(&prometheus, since).contains(name));
        println!("{:?}: {name}", began.elapsed());
    });
    for (name, labels) in ABOUT {
        let question = format!("ALERTS{{alertstate=\"firing\",alertname=\"{name}\",{labels}}}");
        assert!(prometheus.has_data(&question, since), "{name} fired, but not for {labels}");
    }
    assert!(!prometheus.has_data("ALERTS{app=\"colours\"}", since), "an idle colour that is down is none of the faults");
    check_metrics(&stage);
    let mut empty = Vec::new();
    for board in Board::all() {
        for (place, expression) in board.expressions() {
            // Zero is data only where nothing is to be seen: each fault was provoked.
            if !prometheus.brought(&boards::filled_in(&expression), since, |value| !value.is_nan() && value != 0.0) {
                empty.push(format!("{place}: {expression}"));
            }
        }
    }
    for rule in rules("rules.yml", "record") {
        if !prometheus.has_data(word(&rule, "record"), since) {
            empty.push(word(&rule, "record").to_owned());
        }
    }
    assert!(empty.is_empty(), "without data:\n{}", empty.join("\n"));
    println!("{:?}: every expression has data", began.elapsed());

    // With their texts: a template that fails leaves its error in the annotation.
    let told = prometheus.alerts();
    stage.ends();
    wait_for("TidegateGone fires", FIRES, || fired(&prometheus, since).contains("TidegateGone"));
    assert_eq!(fired(&prometheus, since), all, "each was provoked");
    assert!(told.len() > 5);
    for alert in &told {
        let text = alert["annotations"].to_string();
        assert!(!["<error", "<no value>", "%!", "{{"].iter().any(|fault| text.contains(fault)), "{alert}");
    }
    println!("{:?}: done", began.elapsed());
}

/// The picture in README is made by this program, from the demo; here from the drain of v2, which is over.
fn draw(prometheus: &Prometheus) {
    require_file("/usr/bin/python3", "python3-venv");
    let scratch = Scratch::new("picture");
    let file = scratch.path().join("drain.svg");
    let plot = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/pictures/plot.py");
    let picture = wait_for_some("the picture shows the verdict", FIRES, || {
        let mut command = Command::new("/usr/bin/python3");
        command.args([plot, "--prometheus", &prometheus.url(), "--minutes", "1", "-o"]).arg(&file);
        let ended = command.output().expect("python3 runs");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        let picture = std::fs::read_to_string(&file).expect("a picture");
        // It looks at whole seconds, and the present one is not over.
        picture.contains("v2 empties, v1 fills, and the end is proven").then_some(picture)
    });
    assert_eq!((picture.matches("<polygon class=\"area").count(), picture.matches("drained, seen after").count()), (2, 1), "{picture}");
    assert!(!picture.contains("nan") && picture.trim_end().ends_with("</svg>"), "{picture}");
}

/// What is exposed while everything is wrong, so that every metric has samples.
fn check_metrics(stage: &Stage) {
    let exposed = stage.tidegate().admin(Call::get("/metrics")).expect_status(200).text();
    for metric in METRICS {
        assert!(exposed.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind.as_str())), "{} has no sample", metric.name);
    }
    let scratch = Scratch::new("metrics");
    let file = scratch.write("metrics", &exposed);
    let ended = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(file).expect("just written"))
        .output()
        .expect("promtool runs");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.is_empty(), "promtool check metrics: {said}");
}
