//! How backends are probed. What an answer then means is in [`crate::model::health`].

use std::time::Duration;

/// How backends are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// Only connect; an accepted connection is `up`.
    pub tcp: bool,
    /// Path of the probe.
    pub path: String,
    /// Method of the probe.
    pub method: String,
    /// Host header; the backend's address unless set.
    pub host: Option<String>,
    /// Another port than the backend's own.
    pub port: Option<u16>,
    /// Time between the starts of two probes of a backend.
    pub interval: Duration,
    /// Longest a probe may take altogether.
    pub timeout: Duration,
    /// Passing probes until `up`.
    pub rise: u32,
    /// Failing probes until `down` or `stalled`.
    pub fall: u32,
    /// Answers that mean up.
    pub ready: StatusSet,
    /// Answers that mean draining; wins over `ready`.
    pub drain: StatusSet,
    /// A response header whose value changes with each life of the backend's process.
    pub instance_header: Option<String>,
}

impl Default for HealthSettings {
    fn default() -> Self {
        HealthSettings {
            tcp: false,
            path: "/".to_owned(),
            method: "GET".to_owned(),
            host: None,
            port: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 2,
            ready: StatusSet(vec![(200, 399)]),
            drain: StatusSet(Vec::new()),
            instance_header: None,
        }
    }
}

/// Inclusive ranges of status codes, as in `[200-399, 404]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSet(pub Vec<(u16, u16)>);

impl StatusSet {
    /// Whether `status` lies in one of the ranges.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|&(low, high)| (low..=high).contains(&status))
    }
}
