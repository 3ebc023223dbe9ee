//! Which app serves a host and path: the most specific host wins, then the longest path prefix of whole segments.
//!
//! "Specific" is exact before wildcard before any host, and a longer wildcard before a shorter one. A host that matches
//! but has no fitting path does not end the search: the next less specific host is asked.

use std::collections::HashMap;

use super::settings::Match;

/// Compiled matches of all apps.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    exact: HashMap<Box<str>, Paths>,
    /// Without `*`, with the leading dot.
    wildcard: HashMap<Box<str>, Paths>,
    any: Paths,
}

/// Path prefixes with their app, longest first.
type Paths = Vec<(Box<str>, usize)>;

impl Routes {
    /// Compiles the matches of app 0, 1, and so on.
    pub fn new<'a>(apps: impl IntoIterator<Item = &'a [Match]>) -> Routes {
        let mut routes = Routes::default();
        for (app, matches) in apps.into_iter().enumerate() {
            for Match { host, path } in matches {
                let paths = match host.as_deref() {
                    None | Some("*") => &mut routes.any,
                    Some(host) => match host.strip_prefix('*') {
                        Some(suffix) => routes.wildcard.entry(suffix.into()).or_default(),
                        None => routes.exact.entry(host.into()).or_default(),
                    },
                };
                paths.push((path.as_str().into(), app));
            }
        }
        for paths in routes.exact.values_mut().chain(routes.wildcard.values_mut()).chain([&mut routes.any]) {
            paths.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
        routes
    }

    /// The app's index and the prefix that matched. `host` without a port; its case does not matter (RFC 9110 §4.2.3).
    pub fn find(&self, host: Option<&str>, path: &str) -> Option<(usize, &str)> {
        if let Some(host) = host.filter(|_| !self.exact.is_empty() || !self.wildcard.is_empty()) {
            let lower;
            let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
                lower = host.to_ascii_lowercase();
                lower.as_str()
            } else {
                host
            };
            let host = host.strip_suffix('.').unwrap_or(host);
            if let Some(found) = self.exact.get(host).and_then(|paths| longest(paths, path)) {
                return Some(found);
            }
            if !self.wildcard.is_empty() {
                for (dot, _) in host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                    let suffix = host.get(dot..)?;
                    if let Some(found) = self.wildcard.get(suffix).and_then(|paths| longest(paths, path)) {
                        return Some(found);
                    }
                }
            }
        }
        longest(&self.any, path)
    }
}

fn longest<'a>(paths: &'a Paths, path: &str) -> Option<(usize, &'a str)> {
    paths.iter().find(|(prefix, _)| under(prefix, path)).map(|(prefix, app)| (*app, &**prefix))
}

/// Whether `path` lies under `prefix` by whole segments: `/shop` covers `/shop`, `/shop/x` and `/shop;v=1`, not `/shopping`.
pub fn under(prefix: &str, path: &str) -> bool {
    if prefix == "/" {
        return true;
    }
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ';', '?']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let entry = |host: Option<&str>, path: &str| Match { host: host.map(str::to_owned), path: path.to_owned() };
        let apps = [
            vec![entry(Some("shop.example.com"), "/")],
            vec![entry(Some("shop.example.com"), "/api"), entry(Some("*.example.com"), "/api")],
            vec![entry(Some("*.example.com"), "/")],
            vec![entry(None, "/any")],
            vec![entry(Some("*.eu.example.com"), "/only")],
        ];
        Routes::new(apps.iter().map(Vec::as_slice))
    }

    #[test]
    fn the_most_specific_host_then_the_longest_path_wins() {
        let routes = routes();
        let check = |host: Option<&str>, path: &str, expected: Option<usize>| {
            assert_eq!(routes.find(host, path).map(|(app, _)| app), expected, "{host:?} {path}");
        };
        check(Some("shop.example.com"), "/", Some(0));
        check(Some("SHOP.Example.com"), "/x", Some(0));
        check(Some("shop.example.com."), "/x", Some(0));
        check(Some("shop.example.com"), "/api", Some(1));
        check(Some("shop.example.com"), "/api/1", Some(1));
        check(Some("shop.example.com"), "/api;v=1", Some(1));
        check(Some("shop.example.com"), "/apis", Some(0));
        check(Some("other.example.com"), "/", Some(2));
        check(Some("other.example.com"), "/api", Some(1));
        check(Some("a.b.example.com"), "/", Some(2));
        check(Some("a.eu.example.com"), "/only/x", Some(4));
        check(Some("a.eu.example.com"), "/else", Some(2));
        check(Some("example.com"), "/", None);
        check(Some("example.com"), "/any/thing", Some(3));
        check(None, "/any", Some(3));
        check(None, "/", None);
        check(Some(".example.com"), "/", None);
    }
}
