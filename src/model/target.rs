//! What a command is aimed at: `shop/v41/a1`, `shop/v41`, or `host:10.0.0.5`.

use std::fmt;
use std::sync::Arc;

use super::backend::Backend;
use super::spelling::distance;
use super::view::{App, View};

/// A release, a backend, or every backend on a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `app/release`.
    Release(String, String),
    /// `app/release/backend`.
    Backend(String, String, String),
    /// `host:ADDRESS`.
    Host(String),
}

impl Target {
    /// Parses a TARGET as typed.
    ///
    /// # Errors
    /// A sentence that says which forms there are.
    pub fn parse(text: &str) -> Result<Target, String> {
        if let Some(host) = text.strip_prefix("host:") {
            return if host.is_empty() {
                Err("host: needs an address, as in host:10.0.0.5".to_owned())
            } else {
                Ok(Target::Host(host.to_owned()))
            };
        }
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [app, release] if !app.is_empty() && !release.is_empty() => Ok(Target::Release((*app).to_owned(), (*release).to_owned())),
            [app, release, backend] if !app.is_empty() && !release.is_empty() && !backend.is_empty() => {
                Ok(Target::Backend((*app).to_owned(), (*release).to_owned(), (*backend).to_owned()))
            }
            _ => Err(format!("'{text}' is no target: write APP/RELEASE, APP/RELEASE/BACKEND or host:ADDRESS")),
        }
    }

    /// The backends it names, each with its app.
    pub fn backends(&self, view: &View) -> Vec<(Arc<App>, Arc<Backend>)> {
        let fits = |app: &App, backend: &Backend| match self {
            Target::Release(a, r) => *a == *app.name && *r == *backend.release,
            Target::Backend(a, r, b) => *a == *app.name && *r == *backend.release && *b == backend.spec.name,
            Target::Host(host) => backend.spec.address.host == *host,
        };
        let all = view.apps.iter().flat_map(|app| app.backends.iter().flatten().map(move |b| (app, b)));
        all.filter(|(app, b)| fits(app, b)).map(|(app, b)| (Arc::clone(app), Arc::clone(b))).collect()
    }

    /// The same as slots in each app's ledger: one walk does for all backends of an app.
    pub fn slots(&self, view: &View) -> Vec<(Arc<App>, Vec<u32>)> {
        let mut apps: Vec<(Arc<App>, Vec<u32>)> = Vec::new();
        for (app, backend) in self.backends(view) {
            match apps.iter_mut().find(|(known, _)| known.name == app.name) {
                Some((_, slots)) => slots.push(backend.slot),
                None => apps.push((app, vec![backend.slot])),
            }
        }
        apps
    }

    /// Names that exist and look like this one, for "did you mean".
    pub fn nearest(&self, view: &View) -> Vec<String> {
        let wanted = self.to_string();
        let mut known: Vec<String> = Vec::new();
        for app in &view.apps {
            for release in &app.releases {
                known.push(format!("{}/{}", app.name, release.name));
                for backend in &release.backends {
                    known.push(format!("{}/{}/{}", app.name, release.name, backend.spec.name));
                    known.push(format!("host:{}", backend.spec.address.host));
                }
            }
        }
        let letters = |name: &str| name.chars().collect::<Vec<_>>();
        let wanted = letters(&wanted);
        known.sort_by_cached_key(|name| (distance(&wanted, &letters(name)), name.clone()));
        known.dedup();
        known.truncate(3);
        known
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Release(app, release) => write!(f, "{app}/{release}"),
            Target::Backend(app, release, backend) => write!(f, "{app}/{release}/{backend}"),
            Target::Host(host) => write!(f, "host:{host}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_release_a_backend_or_a_host() {
        let check = |text: &str, expected: Option<Target>| assert_eq!(Target::parse(text).ok(), expected, "{text}");
        check("shop/v41", Some(Target::Release("shop".into(), "v41".into())));
        check("shop/v41/a1", Some(Target::Backend("shop".into(), "v41".into(), "a1".into())));
        check("host:10.0.0.5", Some(Target::Host("10.0.0.5".into())));
        for bad in ["", "shop", "/", "shop/", "/v41", "shop/v41/", "shop//a1", "a/b/c/d", "host:"] {
            check(bad, None);
        }
    }
}
