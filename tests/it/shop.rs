//! The configuration most tests need: one app `shop` for host [`HOST`], scripted backends with quick probes.
//!
//! The first release named is the current one. Timeouts are short so that tests wait for real ends, not for hours.

use crate::client::HOST;
use crate::origin::{Origin, OriginSpec};
use crate::tidegate::Tidegate;

/// The ways a pin can be carried.
pub const PINS: [&str; 4] = ["cookie", "route", "prefix", "learn"];

/// A configuration under construction.
#[derive(Debug, Clone)]
pub struct Shop {
    process: String,
    path: String,
    session: Vec<String>,
    app: Vec<String>,
    probed: String,
    health: String,
    releases: Vec<Release>,
}

#[derive(Debug, Clone)]
struct Release {
    name: String,
    path: Option<String>,
    backends: Vec<String>,
}

impl Shop {
    /// Pinned in that way, sessions by `JSESSIONID`, everything else as by default.
    pub fn new(pin: &str) -> Shop {
        Shop {
            process: String::new(),
            path: "/".to_owned(),
            session: vec![format!("pin: {pin}"), "path_parameter: jsessionid".to_owned()],
            app: Vec::new(),
            probed: "/health".to_owned(),
            health: "interval: 100ms, timeout: 1s, rise: 1, fall: 1".to_owned(),
            releases: Vec::new(),
        }
    }

    /// A top-level line; `@folder` and `@port` are tidegate's own.
    pub fn process(mut self, line: &str) -> Shop {
        self.process += &format!("{line}\n");
        self
    }

    /// Another public path than `/`.
    pub fn below(mut self, path: &str) -> Shop {
        path.clone_into(&mut self.path);
        self
    }

    /// A line below `session:`; `cookies: [JSESSIONID]` is there unless a line sets it.
    pub fn session(mut self, line: &str) -> Shop {
        self.session.push(line.to_owned());
        self
    }

    /// A line below the app.
    pub fn app(mut self, line: &str) -> Shop {
        self.app.push(line.to_owned());
        self
    }

    /// Another path to probe.
    pub fn probed(mut self, path: &str) -> Shop {
        path.clone_into(&mut self.probed);
        self
    }

    /// Other times and thresholds of probes than quick ones.
    pub fn probes(mut self, keys: &str) -> Shop {
        keys.clone_into(&mut self.health);
        self
    }

    /// Probes that forgive a starved machine: for tests that make it so.
    pub fn patient_probes(self) -> Shop {
        self.probes("interval: 2s, timeout: 2s, rise: 1, fall: 5")
    }

    /// More keys of `health`.
    pub fn health(mut self, keys: &str) -> Shop {
        self.health += &format!(", {keys}");
        self
    }

    /// A release with these backends.
    pub fn release(self, name: &str, origins: &[&Origin]) -> Shop {
        let weighted: Vec<(&Origin, u32)> = origins.iter().map(|origin| (*origin, 1)).collect();
        self.weighted_release(name, &weighted)
    }

    /// A release whose backends have weights.
    pub fn weighted_release(self, name: &str, origins: &[(&Origin, u32)]) -> Shop {
        let backends = origins.iter().map(|(origin, weight)| {
            let (name, address) = (origin.name(), origin.address());
            format!("{name}: {{address: \"{address}\", weight: {weight}}}")
        });
        self.release_of(name, backends.collect())
    }

    /// A release with backends written as YAML lines, `name: address`.
    pub fn release_of(mut self, name: &str, backends: Vec<String>) -> Shop {
        self.releases.push(Release { name: name.to_owned(), path: None, backends });
        self
    }

    /// The last release named is at another path on its backends.
    pub fn at_path(mut self, path: &str) -> Shop {
        self.releases.last_mut().expect("a release comes first").path = Some(path.to_owned());
        self
    }

    /// The YAML.
    pub fn yaml(&self) -> String {
        let Shop { process, path, probed, health, .. } = self;
        let mut text =
            format!("{process}apps:\n  shop:\n    match: [{{host: {HOST}, path: {path}}}]\n    health: {{path: {probed}, {health}}}\n");
        if !self.app.iter().any(|line| line.starts_with("current:")) {
            let current = self.releases.first().expect("a shop has a release");
            text += &format!("    current: {}\n", current.name);
        }
        for line in &self.app {
            text += &format!("    {line}\n");
        }
        text += "    session:\n";
        if !self.session.iter().any(|line| line.starts_with("cookies:")) {
            text += "      cookies: [JSESSIONID]\n";
        }
        for line in &self.session {
            text += &format!("      {line}\n");
        }
        text += "    releases:\n";
        for Release { name, path, backends } in &self.releases {
            text += &format!("      {name}:\n");
            if let Some(path) = path {
                text += &format!("        path: {path}\n");
            }
            text += "        backends:\n";
            for backend in backends {
                text += &format!("          {backend}\n");
            }
        }
        text
    }

    /// Starts tidegate with it and waits until every backend is up.
    pub fn start(&self) -> Tidegate {
        let tidegate = Tidegate::start(&self.yaml());
        for Release { name: release, backends, .. } in &self.releases {
            for backend in backends {
                let (name, _) = backend.split_once(':').expect("`name: address`");
                tidegate.wait_for_backend("shop", release, name, "health", "up");
            }
        }
        tidegate
    }

    /// Starts tidegate with it, whatever its backends do.
    pub fn start_as_it_is(&self) -> Tidegate {
        Tidegate::start(&self.yaml())
    }
}

/// A scripted backend that writes its name as the route, which every pin mode can live with.
pub fn backend(release: &str, name: &str) -> Origin {
    Origin::start(OriginSpec::new(release, name).with_route())
}
