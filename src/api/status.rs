//! What is told: the status document, sessions, explanations, events, errors. Read leniently: a newer process may say more.

use serde::{Deserialize, Serialize};

use super::Named;

/// `GET /api/v1/status`: the whole truth in one document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the process that answers.
    pub version: String,
    /// Told to stop: not ready any more, and gone when the exchanges under way are through.
    #[serde(default)]
    pub stopping: bool,
    /// In the order of the configuration file.
    pub apps: Named<AppStatus>,
    /// All that are remembered, oldest first.
    pub drains: Vec<DrainStatus>,
    /// Where the file and the running process differ, a sentence each.
    #[serde(default)]
    pub differs: Vec<String>,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppStatus {
    /// A release, or `by_health`.
    pub current: String,
    /// In the order in which they came.
    pub releases: Named<ReleaseStatus>,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// `staged` to `stopped`, or `by_health`.
    pub state: String,
    /// Of all its backends.
    pub sessions: Sessions,
    /// In the order of the file.
    pub backends: Named<BackendStatus>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// As configured.
    pub address: String,
    /// What the operator wants: `serve`, `drain`, `maintain`.
    pub intent: String,
    /// What probing found: `untested`, `up`, `draining`, `stalled`, `down`.
    pub health: String,
    /// What follows: `everyone`, `known_sessions`, `preview`, `nobody`.
    pub admission: String,
    /// Which life of its process this is, from 1.
    pub incarnation: u64,
    /// Exchanges under way.
    pub in_flight: u64,
    /// Sessions there.
    pub sessions: Sessions,
    /// What the backend itself last said (`session.count_probe`); null when it is not asked or its answer could not be read.
    #[serde(default)]
    pub counted: Option<u64>,
}

/// Sessions by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Confirmed: `engaged` + `kept_alive`.
    pub live: u64,
    /// Touched on a foreground path of late.
    pub engaged: u64,
    /// Kept alive by pollers, or silent.
    pub kept_alive: u64,
    /// Newborns whose client has not come back; not in `live`.
    pub unconfirmed: u64,
}

/// A drain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Such as `d7`.
    pub id: String,
    /// As in a TARGET.
    pub target: String,
    /// `draining`, `fencing`, or the verdict.
    pub state: String,
    /// `config`, `operator`, `health`, `controller`.
    pub owner: String,
    /// RFC 3339, UTC.
    pub started: String,
    /// Live sessions when it began.
    pub initial: u64,
    /// Live sessions left; the kinds are in `sessions`.
    pub remaining: u64,
    /// Share of `initial` that has left, 0 to 1; 1 is not yet the proof, see `verdict`.
    pub progress: f64,
    /// Whether a count of zero would be the truth.
    pub confident: bool,
    /// Why not, such as `seen for 4m of 30m`; null when it would. A drain that is not confident never reports drained.
    #[serde(default)]
    pub confidence: Option<String>,
    /// It lacks nothing but visitors: this proxy may be the standby of a pair, and the other one's verdict speaks for both.
    #[serde(default)]
    pub stands_by: bool,
    /// Prediction; null until there is one.
    pub eta_seconds: Eta,
    /// Why there is no prediction; null when there is one.
    #[serde(default)]
    pub eta_missing: Option<String>,
    /// When all are gone at the latest if nobody clicks again; null when none is left.
    pub upper_bound_seconds: Option<u64>,
    /// RFC 3339, UTC.
    pub deadline: Option<String>,
    /// Sessions that have gone since it began, by reason.
    pub ended: Ended,
    /// `drained` (with proof), `cancelled`, `superseded`; null while it runs.
    pub verdict: Option<String>,
    /// Until the deadline; 0 when it has passed.
    #[serde(default)]
    pub deadline_in_seconds: Option<u64>,
    /// What the deadline does: `keep`, `move_idle`, `evict`.
    #[serde(default)]
    pub then: String,
    /// Sessions left by kind. Unconfirmed ones keep a drain open too.
    #[serde(default)]
    pub sessions: Sessions,
    /// Exchanges under way: a drain with no session left waits for them.
    #[serde(default)]
    pub in_flight: u64,
    /// Backends it covers.
    #[serde(default)]
    pub backends: u64,
    /// Those of them that are down: with all of them down, nobody can finish there.
    #[serde(default)]
    pub backends_down: u64,
    /// When it reached its verdict; RFC 3339, UTC.
    #[serde(default)]
    pub finished: Option<String>,
}

/// Seconds until a drain is empty, at three levels of certainty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Eta {
    /// As likely as not.
    pub p50: Option<u64>,
    /// Nine times of ten.
    pub p90: Option<u64>,
    /// Nearly always.
    pub p99: Option<u64>,
}

/// Ends by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The application deleted its cookie.
    pub logout: u64,
    /// Silent for the idle timeout.
    pub idle: u64,
    /// Older than the maximal lifetime.
    #[serde(default)]
    pub lifetime: u64,
    /// They went elsewhere.
    pub moved: u64,
    /// Their memory is gone.
    pub lost: u64,
    /// The operator sent them away.
    pub evicted: u64,
    /// Newborns whose client never came back; they were never in `initial`.
    #[serde(default)]
    pub unconfirmed: u64,
}

/// `GET /api/v1/apps/{app}/sessions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionsReport {
    /// The app.
    pub app: String,
    /// All of it.
    pub sessions: Sessions,
    /// In the order in which they came.
    pub releases: Named<Sessions>,
    /// By time since birth.
    pub ages: Vec<Bucket>,
    /// By time since the last touch.
    pub idle: Vec<Bucket>,
    /// With `?list=1`, longest idle first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<SessionEntry>>,
    /// Whether `list` was cut short.
    #[serde(default)]
    pub truncated: bool,
}

/// Confirmed sessions whose span is above the bound before and not above this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Inclusive; null for the last one, which takes the rest.
    pub up_to_seconds: Option<u64>,
    /// How many.
    pub sessions: u64,
}

/// A live session; never its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Names the session to people.
    pub handle: String,
    /// As in a TARGET.
    pub backend: String,
    /// Since birth.
    pub age_seconds: u64,
    /// Since the last touch.
    pub idle_seconds: u64,
    /// Touched on a foreground path of late.
    pub engaged: bool,
    /// Its client sent the id back.
    pub confirmed: bool,
    /// Exchanges under way.
    pub open: u32,
}

/// What would happen to such a request, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainReport {
    /// `forward`, `refuse`, `wait`.
    pub decision: String,
    /// As in a TARGET; null when refused.
    pub backend: Option<String>,
    /// As in the access log.
    pub reason: String,
    /// The reason for people.
    pub sentence: String,
    /// What became of the pin: `none`, `valid`, `expired`, and so on.
    pub pin: String,
    /// `live`, `unknown`, `ended`, `none`.
    pub session: String,
    /// Whether the dead session id would be taken out of the request.
    pub strip: bool,
}

/// An entry of the event log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339, UTC.
    pub at: String,
    /// `config`, `operator`, `health`, `controller`.
    pub owner: String,
    /// As in a TARGET, or an app.
    pub target: String,
    /// What happened.
    pub what: String,
}

/// Any refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What is wrong, naming the object.
    pub error: String,
    /// What to do about it.
    pub remedy: String,
    /// Everything that is wrong, where it is more than one thing or has a place in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a configuration, or with applying it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file; null for what is wrong only at this moment.
    pub file: Option<String>,
    /// In the file.
    pub line: Option<usize>,
    /// Path in the YAML.
    pub at: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// `POST /api/v1/reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// `applied`, `unchanged`; of a dry run `would_apply` or `would_refuse` too.
    pub result: String,
    /// What changes.
    pub changes: Vec<ReloadChange>,
    /// Of a dry run: why it would be refused.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// What drains because of it.
    pub drains: Vec<String>,
}

/// One thing that a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadChange {
    /// As in a TARGET, an app, or a part of the process.
    pub at: String,
    /// For people.
    pub what: String,
    /// Live sessions that it touches; most of them feel nothing.
    pub live: u64,
}
