//! The text of `conf/reference.yaml`: every key with its default and a sentence, rendered from the table of keys.
//!
//! It is a configuration that works and changes nothing; keys that only exist in a section which is off by default stand in comments.

use super::keys::{KEYS, Key, Value, children};

const HEAD: &str = "\
# Every key of tidegate's configuration with its default; what you do not need, leave out (conf/minimal.yaml is a whole configuration).
# Durations: 250ms 5s 30m 12h 7d. Sizes: 512B 16KiB 64MiB 1GiB. `tidegate check -c FILE` shows every mistake at once.
# Only listeners, apps, releases and backends have no default: theirs are examples.
# Made from the program's own table of keys: `UPDATE=1 cargo test reference` writes it anew.
";

/// Every key of the configuration with its default and a sentence, as YAML.
pub fn reference() -> String {
    Page { out: HEAD.to_owned(), open: false }.render()
}

struct Page {
    out: String,
    /// Whether sections that are off by default are shown as if they were on.
    open: bool,
}

impl Page {
    fn render(mut self) -> String {
        self.keys("", 0, "");
        self.out
    }

    /// The keys below `path`, indented; `lead` begins every line, as a comment does.
    fn keys(&mut self, path: &str, indent: usize, lead: &str) {
        let item = path.ends_with("[]");
        for (n, (name, key)) in children(path).filter(|(name, _)| !matches!(*name, "*" | "[]")).enumerate() {
            if indent == 0 {
                self.out.push('\n');
            }
            let first = item && n == 0;
            let outer = if first { indent - 2 } else { indent };
            self.line(lead, outer, &format!("# {}", key.about));
            let start = format!("{}{name}:", if first { "- " } else { "" });
            match key.value {
                Value::Default(text) | Value::Example(text) => self.line(lead, outer, &format!("{start} {text}")),
                Value::Section => {
                    self.line(lead, outer, &start);
                    self.below(key, None, indent, lead);
                }
                Value::Names(name) => {
                    self.line(lead, outer, &start);
                    self.below(key, Some(name), indent, lead);
                }
                Value::Off(_) if self.open => {
                    self.line(lead, outer, &start);
                    self.below(key, None, indent, lead);
                }
                Value::Off(text) => {
                    self.line(lead, outer, &format!("{start} {text}"));
                    let lead = format!("{lead}{}# ", " ".repeat(indent));
                    self.line(&lead, 0, &format!("{name}:"));
                    self.below(key, None, 0, &lead);
                }
            }
        }
    }

    /// What a section holds: keys, named sections or a list of sections.
    fn below(&mut self, key: &Key, name: Option<&str>, indent: usize, lead: &str) {
        match name {
            Some(name) => {
                self.line(lead, indent + 2, &format!("{name}:"));
                self.keys(&format!("{}.*", key.path), indent + 4, lead);
            }
            None if has_items(key) => self.keys(&format!("{}.[]", key.path), indent + 4, lead),
            None => self.keys(key.path, indent + 2, lead),
        }
    }

    fn line(&mut self, lead: &str, indent: usize, text: &str) {
        self.out.push_str(lead);
        self.out.push_str(&" ".repeat(indent));
        self.out.push_str(text);
        self.out.push('\n');
    }
}

fn has_items(key: &Key) -> bool {
    KEYS.iter().any(|k| k.path.strip_prefix(key.path).is_some_and(|rest| rest.starts_with(".[].")))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::{Admin, Config, Listener, Server, State, parse};
    use crate::model::settings::{Address, AppSpec, BackendSpec, Current, Match, Protocol, ReleaseSpec, Settings};

    /// What the reference's examples say, and defaults everywhere else.
    fn defaults() -> Config {
        let address = Address { host: "127.0.0.1".into(), port: 8081 };
        let (name, route) = ("a1".to_owned(), "a1".to_owned());
        let backend =
            BackendSpec { name, address, route, weight: 1, backup: false, max_connections: None, tls: None, protocol: Protocol::Http1 };
        let app = AppSpec {
            name: "shop".into(),
            matches: vec![Match { host: None, path: "/".into() }],
            settings: Settings::default(),
            current: Current::Release("v1".into()),
            releases: vec![ReleaseSpec { name: "v1".into(), path: None, backends: vec![backend] }],
        };
        Config {
            server: Server::default(),
            listeners: vec![Listener { address: ([0, 0, 0, 0], 8080).into(), tls: None }],
            admin: Admin::default(),
            state: State::default(),
            trusted_proxies: Vec::new(),
            apps: vec![app],
        }
    }

    #[test]
    fn the_reference_says_exactly_the_defaults() {
        let page = reference();
        let config = parse(&page, "reference.yaml").unwrap_or_else(|problems| panic!("{problems}\n{page}"));
        assert_eq!(config, defaults());
    }

    #[test]
    fn the_examples_in_comments_work_too() {
        let page = Page { out: String::new(), open: true }.render();
        let config = parse(&page, "open.yaml").unwrap_or_else(|problems| panic!("{problems}\n{page}"));
        assert!(config.listeners[0].tls.is_some());
        assert!(config.apps[0].settings.session.count_probe.is_some());
        assert_eq!(config.apps[0].settings.session.keys.len(), 1);
        for (name, key) in children("apps.*.session") {
            assert!(page.contains(key.about), "{name} is not shown");
        }
    }

    #[test]
    fn conf_reference_yaml_is_up_to_date() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/reference.yaml");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, reference()).unwrap();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), reference(), "run `UPDATE=1 cargo test reference`");
    }

    #[test]
    fn every_key_has_a_sentence_and_a_parent() {
        for key in KEYS {
            assert!(key.about.ends_with('.') && key.about.len() > 6, "{}", key.path);
            let parent = key.path.rsplit_once('.').map_or("", |(parent, _)| parent.trim_end_matches(".[]").trim_end_matches(".*"));
            assert!(parent.is_empty() || KEYS.iter().any(|k| k.path == parent), "{} has no parent", key.path);
            assert_eq!(KEYS.iter().filter(|k| k.path == key.path).count(), 1, "{}", key.path);
        }
        assert!(reference().lines().all(|l| l.len() <= 170), "a line of the reference is too long to read");
    }
}
