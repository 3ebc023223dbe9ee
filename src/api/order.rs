//! What is ordered, and the short answers to it. An unknown field is refused: `"forced": true` must not pass for no force.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DrainStatus, Named};

/// `POST /api/v1/apps/{app}/promote`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// Takes all new sessions.
    pub release: String,
    /// Refused with 409 unless this one is current.
    #[serde(default)]
    pub from: Option<String>,
    /// `keep`, `move_idle`, `evict`; the app's setting unless given.
    #[serde(default)]
    pub then: Option<String>,
    /// The drain is to be empty after this time, such as `4h`.
    #[serde(default)]
    pub deadline: Option<String>,
    /// Also without a healthy backend.
    #[serde(default)]
    pub force: bool,
}

/// `POST /api/v1/apps/{app}/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The one that was current before unless given.
    #[serde(default)]
    pub to: Option<String>,
    /// Refused with 409 unless this one is current.
    #[serde(default)]
    pub from: Option<String>,
    /// As in [`Promote`].
    #[serde(default)]
    pub then: Option<String>,
    /// As in [`Promote`].
    #[serde(default)]
    pub deadline: Option<String>,
    /// As in [`Promote`].
    #[serde(default)]
    pub force: bool,
}

/// The answer to a promotion or rollback.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// Who takes the new sessions now.
    #[serde(default)]
    pub current: String,
    /// What drains because of it; empty when nothing had to change.
    pub drains: Vec<String>,
}

/// The answer to an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The process that serves now.
    pub pid: u32,
}

/// `POST /api/v1/apps/{app}/releases`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// New in the app.
    pub name: String,
    /// In this order.
    pub backends: Named<StageBackend>,
    /// The backends' own path prefix.
    #[serde(default)]
    pub path: Option<String>,
}

/// A backend of a staged release: `"127.0.0.1:9181"`, or more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StageBackend {
    /// `HOST:PORT`.
    Address(String),
    /// With settings.
    Full(StageBackendFull),
}

/// As in the configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageBackendFull {
    /// `HOST:PORT`.
    pub address: String,
    /// Share of new sessions.
    #[serde(default)]
    pub weight: Option<u32>,
    /// What the application appends to its ids.
    #[serde(default)]
    pub route: Option<String>,
    /// Takes new sessions only when no other backend does.
    #[serde(default)]
    pub backup: bool,
    /// Exchanges at a time.
    #[serde(default)]
    pub max_connections: Option<u32>,
}

/// `POST /api/v1/apps/{app}/releases/{release}/stop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Also when sessions live there: they are evicted.
    #[serde(default)]
    pub force: bool,
}

/// `POST /api/v1/reload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Also where live sessions would be lost.
    #[serde(default)]
    pub force: bool,
}

/// `POST /api/v1/drains`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainOrder {
    /// A backend or host.
    pub target: String,
    /// Empty after this time, such as `4h`.
    #[serde(default)]
    pub deadline: Option<String>,
    /// `keep`, `move_idle`, `evict`.
    #[serde(default)]
    pub then: Option<String>,
    /// Also the last one that serves.
    #[serde(default)]
    pub force: bool,
}

/// `GET /api/v1/drains`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drains {
    /// All that are remembered, oldest first.
    pub drains: Vec<DrainStatus>,
}

/// `POST /api/v1/intent`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentOrder {
    /// A backend or host.
    pub target: String,
    /// `serve`, `drain`, `maintain`.
    pub intent: String,
    /// Also the last one that serves, and while sessions live.
    #[serde(default)]
    pub force: bool,
}

/// The answer to an intent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentSet {
    /// As ordered.
    pub target: String,
    /// As ordered.
    pub intent: String,
    /// What drains because of it.
    pub drains: Vec<String>,
}

/// `POST /api/v1/evict`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evict {
    /// A release, backend or host.
    pub target: String,
    /// Only sessions silent for this long, such as `15m`.
    #[serde(default)]
    pub idle: Option<String>,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evicted {
    /// Sessions that were sent away.
    pub evicted: u64,
}

/// `POST /api/v1/lost`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// A release, backend or host.
    pub target: String,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsLost {
    /// Sessions that were live there.
    pub lost: u64,
}

/// The answer to stop and remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What was done, in one sentence.
    pub done: String,
}

/// `POST /api/v1/explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// The app.
    pub app: String,
    /// `/` unless given.
    #[serde(default = "root")]
    pub path: String,
    /// By name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

fn root() -> String {
    "/".to_owned()
}
