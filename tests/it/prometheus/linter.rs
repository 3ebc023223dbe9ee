//! The rules of Grafana's dashboard linter, by their names there, and a few of our own.
//!
//! All of them are kept but those about Loki (`target-logql-rule`, `target-logql-auto-rule`): nothing here asks Loki. That expressions
//! are valid PromQL (`target-promql-rule`, `template-label-promql-rule`) is judged by a real Prometheus, which evaluates every one of
//! them. One exception: totals of the time shown are `increase(...[$__range])`, which no `$__rate_interval` can say.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::boards::{Board, label_values, text};

/// What our panels count in, by Grafana's names of units.
const UNITS: &[&str] = &["short", "none", "s", "percentunit", "reqps", "cpm", "dateTimeFromNow", "dtdurations"];

fn data_source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

#[test]
fn template_rules_each_dashboard_can_be_pointed_at_another_data_source_job_and_instance() {
    for board in Board::all() {
        let variables = board.variables();
        let named = |name: &str| variables.iter().find(|v| v["name"] == name).unwrap_or_else(|| panic!("no variable {name}"));
        // template-datasource-rule
        let source = named("datasource");
        assert_eq!((text(source, "type"), text(source, "query"), text(source, "label")), ("datasource", "prometheus", "Data source"));
        // template-job-rule, template-instance-rule, and of ours
        for (name, label) in [("job", "Job"), ("instance", "Instance"), ("app", "App"), ("release", "Release")] {
            assert_eq!(text(named(name), "label"), label);
        }
        for variable in variables.iter().filter(|variable| variable["type"] != "datasource") {
            assert_eq!((text(variable, "type"), &variable["datasource"]), ("query", &data_source()), "{variable}");
            assert!(variable["multi"] == true && variable["includeAll"] == true && variable["allValue"] == ".+", "{variable}");
            // template-on-time-change-reload-rule: a release that came since is in the list.
            assert_eq!(variable["refresh"], 2, "{variable}");
            let (series, label) = label_values(text(&variable["query"], "query")).expect("label_values(SERIES, LABEL)");
            assert_eq!(variable["definition"], variable["query"]["query"]);
            assert!(label == text(variable, "name"), "{variable}");
            assert!(label == "job" || series.contains("job=~\"$job\""), "what is offered belongs to the job chosen: {series}");
        }
    }
}

#[test]
fn panel_rules_each_panel_says_what_it_shows_and_in_which_unit() {
    for board in Board::all() {
        let (mut titles, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for panel in board.panels() {
            // panel-title-description-rule
            let title = text(panel, "title");
            assert!(!title.is_empty() && titles.insert(title), "{title}: a title, and no other panel's");
            assert!(text(panel, "description").len() > 25, "{title}: a description");
            assert!(ids.insert(panel["id"].as_u64()), "{title}: an id of its own");
            // panel-datasource-rule, panel-no-targets-rule
            assert_eq!(panel["datasource"], data_source(), "{title}");
            let targets = panel["targets"].as_array().expect("targets");
            assert!(!targets.is_empty() && targets.iter().all(|target| target["datasource"] == data_source()), "{title}");
            assert!(targets.iter().all(|target| !text(target, "legendFormat").is_empty()), "{title}: a legend of its own for each");
            // panel-units-rule
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(UNITS.contains(&text(defaults, "unit")), "{title}: {}", defaults["unit"]);
            if panel["type"] == "state-timeline" {
                assert!(defaults["mappings"].as_array().is_some_and(|all| !all.is_empty()), "{title}: a state is a word");
            }
        }
    }
}

#[test]
fn panels_lie_beside_each_other_below_the_row_that_heads_them() {
    for board in Board::all() {
        let all = board.json["panels"].as_array().expect("panels");
        assert_eq!(all[0]["type"], "row");
        let place = |panel: &Value| ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        for (at, panel) in all.iter().enumerate() {
            let [x, y, w, h] = place(panel);
            assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
            for other in &all[..at] {
                let [ox, oy, ow, oh] = place(other);
                let apart = x >= ox + ow || ox >= x + w || y >= oy + oh || oy >= y + h;
                assert!(apart, "{} covers {}", panel["title"], other["title"]);
                assert!(other["type"] != "row" || y > oy, "{} stands above its row", panel["title"]);
            }
        }
    }
}

#[test]
fn target_rules_every_question_is_about_the_job_and_instance_chosen_and_counters_are_rates() {
    for board in Board::all() {
        for (place, expression) in board.expressions() {
            if place.contains(", variable ") {
                continue;
            }
            let mut selectors = 0;
            for (at, _) in expression.match_indices("tidegate_") {
                let name_ends = expression[at..].find(|c: char| !(c.is_ascii_lowercase() || c == '_')).expect("a selector follows");
                let (name, rest) = (&expression[at..at + name_ends], &expression[at + name_ends..]);
                let selector = rest.strip_prefix('{').unwrap_or_else(|| panic!("{place}: {name} has no selector"));
                let (selector, behind) = selector.split_once('}').expect("a selector ends");
                selectors += 1;
                // target-job-rule, target-instance-rule
                for matcher in ["job=~\"$job\"", "instance=~\"$instance\""] {
                    assert!(selector.contains(matcher), "{place}: {matcher} in {expression}");
                }
                // target-counter-agg-rule, target-rate-interval-rule
                if ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)) {
                    let before = &expression[..at];
                    let spans = match before {
                        _ if before.ends_with("rate(") => &["[$__rate_interval]"][..],
                        _ if before.ends_with("increase(") => &["[$__rate_interval]", "[$__range]"][..],
                        _ => &[][..],
                    };
                    assert!(spans.iter().any(|span| behind.starts_with(span)), "{place}: {expression}");
                } else {
                    assert!(!behind.starts_with('['), "{place}: a gauge has no rate: {expression}");
                }
            }
            assert!(selectors > 0, "{place}: {expression}");
        }
    }
}

#[test]
fn whole_boards_are_uneditable_findable_and_mark_promotions_and_drains() {
    let mut uids = BTreeSet::new();
    for board in Board::all() {
        let json = &board.json;
        // uneditable-dashboard-rule: an edit would be lost with the next start.
        assert_eq!(json["editable"], false);
        assert!(uids.insert(text(json, "uid").to_owned()) && text(json, "uid").starts_with("tidegate-"));
        assert!(json["tags"].as_array().expect("tags").contains(&"tidegate".into()));
        assert!(json["schemaVersion"].as_u64() >= Some(39), "Grafana 11");
        assert!(!text(json, "refresh").is_empty() && json["time"]["to"] == "now" && json["id"].is_null());
        let names: Vec<&str> = board.annotations().iter().map(|annotation| text(annotation, "name")).collect();
        assert_eq!(names, ["Promotions", "Drained", "Drains"]);
        for annotation in board.annotations() {
            assert_eq!(annotation["datasource"], data_source());
            // Grafana 11 reads one, later ones the other.
            assert_eq!(annotation["expr"], annotation["target"]["expr"]);
        }
        let whole = json.to_string();
        let uids = whole.matches("\"uid\":").count();
        let ours = whole.matches("\"uid\":\"${datasource}\"").count();
        assert_eq!(uids, ours + 2, "its own, Grafana's own, and no data source by name");
    }
}
