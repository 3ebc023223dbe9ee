//! The dashboards as files.
//!
//! The JSON files are the source and are edited by hand, or taken from Grafana's "Export": `UPDATE=1` writes them in the order in which
//! they are kept, so that an edit is a small difference.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What Grafana puts in, as it would be a minute after a look at everything, scraped once a second.
const FILLED_IN: &[(&str, &str)] = &[
    ("$__rate_interval", "5s"),
    ("$__interval", "2s"),
    ("$__range", "60s"),
    ("$job", ".+"),
    ("$instance", ".+"),
    ("$app", ".+"),
    ("$release", ".+"),
    ("$target", ".+"),
];

/// An expression as Grafana would send it.
pub(super) fn filled_in(expression: &str) -> String {
    let text = FILLED_IN.iter().fold(expression.to_owned(), |text, (from, to)| text.replace(from, to));
    assert!(!text.contains('$'), "a variable is left: {text}");
    text
}

/// A dashboard.
pub(super) struct Board {
    /// Its file.
    pub(super) path: PathBuf,
    /// What the file says.
    pub(super) json: Value,
}

impl Board {
    /// All that are shipped.
    pub(super) fn all() -> Vec<Board> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/dashboards");
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        let names: Vec<_> = paths.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["drain.json", "proxy.json"]);
        paths.into_iter().map(Board::read).collect()
    }

    fn read(path: PathBuf) -> Board {
        let text = fs::read_to_string(&path).expect("readable");
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Board { path, json }
    }

    /// Panels, without the rows that head them.
    pub(super) fn panels(&self) -> Vec<&Value> {
        let panels = self.json["panels"].as_array().expect("panels");
        panels.iter().filter(|panel| panel["type"] != "row").collect()
    }

    /// Variables.
    pub(super) fn variables(&self) -> &[Value] {
        self.json["templating"]["list"].as_array().expect("variables")
    }

    /// Annotations that are asked of Prometheus.
    pub(super) fn annotations(&self) -> Vec<&Value> {
        let all = self.json["annotations"]["list"].as_array().expect("annotations");
        all.iter().filter(|annotation| annotation["builtIn"] != 1).collect()
    }

    /// Every expression with its place: of panels, annotations and variables. A variable's question is put as a count of its values.
    pub(super) fn expressions(&self) -> Vec<(String, String)> {
        let title = text(&self.json, "title");
        let mut all = Vec::new();
        for panel in self.panels() {
            for target in panel["targets"].as_array().expect("targets") {
                all.push((format!("{title}, {}", text(panel, "title")), text(target, "expr").to_owned()));
            }
        }
        for annotation in self.annotations() {
            all.push((format!("{title}, annotation {}", text(annotation, "name")), text(&annotation["target"], "expr").to_owned()));
        }
        for variable in self.variables().iter().filter(|variable| variable["type"] == "query") {
            let query = text(&variable["query"], "query");
            let (series, label) = label_values(query).unwrap_or_else(|| panic!("{title}: {query}"));
            all.push((format!("{title}, variable {}", text(variable, "name")), format!("count by ({label}) ({series}) > 0")));
        }
        assert!(all.len() > 20, "{title}: expressions are found");
        all
    }
}

/// `label_values(SERIES, LABEL)`.
pub(super) fn label_values(query: &str) -> Option<(&str, &str)> {
    query.strip_prefix("label_values(")?.strip_suffix(')')?.rsplit_once(", ")
}

/// A text field.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

#[test]
fn the_files_are_written_in_one_order() {
    for board in Board::all() {
        let kept = serde_json::to_string_pretty(&board.json).expect("JSON") + "\n";
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&board.path, &kept).expect("writable");
        }
        let now = fs::read_to_string(&board.path).expect("readable");
        assert!(now == kept, "{}: UPDATE=1 tests/run prometheus::boards writes it in the order that is kept", board.path.display());
    }
}
