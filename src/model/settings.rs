//! What the operator decided about an app, checked and without YAML: the model's own view of the configuration.
//!
//! Defaults live here and nowhere else; `conf/reference.yaml` is compared with them by a test.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::pin::MAX_NAME_BYTES;
use super::retry::RetryRules;
use super::session_key::KeyedHash;

mod health;
mod webhook;

pub use health::{HealthSettings, StatusSet};
pub use webhook::WebhookUrl;

/// One app with its releases, as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct AppSpec {
    /// Unique among apps; part of the pin cookie's name, so limited to letters, digits, `-` and `_`.
    pub name: String,
    /// Hosts and path prefixes that this app serves; at least one.
    pub matches: Vec<Match>,
    /// Everything that is not a release.
    pub settings: Settings,
    /// Who takes new sessions.
    pub current: Current,
    /// In the order of the file; names are unique.
    pub releases: Vec<ReleaseSpec>,
}

/// A host and a path prefix of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Lower case without a port; `*.example.com` matches every subdomain; `None` matches any host.
    pub host: Option<String>,
    /// Begins with `/` and has no trailing slash except for `/` itself; matches whole segments.
    pub path: String,
}

/// The release that takes new sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// This one; every other release was staged, drains or is gone.
    Release(String),
    /// Every release is open and each backend's own health decides (blue/green by health endpoint).
    ByHealth,
}

/// One immutable version of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseSpec {
    /// Unique in the app, at most 64 bytes.
    pub name: String,
    /// The backend's own path prefix when it differs from the public one.
    pub path: Option<String>,
    /// In the order of the file; names are unique in the release.
    pub backends: Vec<BackendSpec>,
}

/// One address that serves a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSpec {
    /// Unique in the release, at most 64 bytes.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// What the application appends to its ids (Tomcat's jvmRoute); unique in the app; the name unless configured.
    pub route: String,
    /// Share of new sessions; 0 takes none and keeps its pins.
    pub weight: u32,
    /// Takes new sessions only when no other backend does.
    pub backup: bool,
    /// Exchanges at a time; more wait in the queue. Overrides [`Limits::max_connections`].
    pub max_connections: Option<u32>,
    /// TLS towards the backend.
    pub tls: Option<BackendTls>,
    /// HTTP version towards the backend.
    pub protocol: Protocol,
}

/// The name under which a backend drains whose own name means another address by now: `a1@5f3a91c2`. The same at every proxy; the
/// address is told by a hash, since names are in clients' pins and in metrics. No name of a file has an `@`.
pub fn away_name(name: &str, address: &Address) -> String {
    let [a, b, c, d, ..] = KeyedHash::new([0; 16]).key(address.to_string().as_bytes()).0;
    // Pins have room for no more; names are ASCII.
    let short: String = name.chars().take(MAX_NAME_BYTES - 9).collect();
    format!("{short}@{a:02x}{b:02x}{c:02x}{d:02x}")
}

/// Host and port of a backend. A literal IP never needs the resolver; a name is resolved by the prober, never by a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    /// As written: `10.0.0.5`, `tomcat.internal`, or `::1` without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl Address {
    /// The socket address when the host is a literal IP.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// TLS towards a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendTls {
    /// Name sent by SNI and checked in the certificate; the address's host unless configured.
    pub server_name: Option<String>,
    /// Whether the certificate is checked.
    pub verify: bool,
}

/// HTTP version towards a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 (with TLS by ALPN, without TLS by prior knowledge).
    Http2,
}

/// All settings of an app that are not releases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// How sessions are recognised, pinned and ended.
    pub session: SessionSettings,
    /// How a new session's backend is chosen.
    pub balance: Balance,
    /// What happens to new clients when only draining backends are healthy.
    pub when_all_draining: WhenAllDraining,
    /// What happens to a live session whose backend is down.
    pub failover: Failover,
    /// How long such a request waits for its backend before `failover` acts.
    pub failover_wait: Duration,
    /// Probes.
    pub health: HealthSettings,
    /// Bounds per backend and request.
    pub limits: Limits,
    /// Timeouts of an exchange.
    pub timeouts: Timeouts,
    /// Path prefixes with `timeouts.tunnel` in place of `timeouts.read`.
    pub streaming_paths: Vec<String>,
    /// A recovered backend's share of new sessions grows to its weight over this time.
    pub slow_start: Duration,
    /// How drains end.
    pub drain: DrainSettings,
    /// A backend's word for "this session is not here".
    pub not_mine: NotMine,
}

/// How sessions are recognised, pinned and ended.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSettings {
    /// Alternatives; the first one present wins.
    pub cookies: Vec<String>,
    /// `;name=id` in the path.
    pub path_parameter: Option<String>,
    /// `?name=id`.
    pub query_parameter: Option<String>,
    /// A header that carries the id both ways.
    pub header: Option<String>,
    /// How the pin is carried.
    pub pin: PinMode,
    /// When a client is pinned.
    pub pin_on: PinOn,
    /// The application's own session timeout.
    pub idle_timeout: Duration,
    /// Sessions end at this age, however busy.
    pub max_lifetime: Option<Duration>,
    /// A newborn leaves the count when its client has not sent the id back within this time.
    pub confirm_within: Duration,
    /// A new id after a longer silence is a new session, not a renamed one.
    pub rotation_within: Option<Duration>,
    /// A session is engaged when a foreground path touched it within this time.
    pub engaged_within: Duration,
    /// Path prefixes that keep a session alive without engaging it.
    pub background_paths: Vec<String>,
    /// Bound of the ledger, entries of every kind.
    pub max_entries: usize,
    /// Clients that are never counted as sessions.
    pub ignore: Ignore,
    /// Signing keys, newest first; empty: one is made and kept in the state directory.
    pub keys: Vec<KeySpec>,
    /// Where the backend itself says how many sessions it has.
    pub count_probe: Option<CountProbe>,
}

impl Default for SessionSettings {
    fn default() -> Self {
        SessionSettings {
            cookies: vec!["JSESSIONID".to_owned()],
            path_parameter: Some("jsessionid".to_owned()),
            query_parameter: None,
            header: None,
            pin: PinMode::Cookie,
            pin_on: PinOn::Session,
            // Tomcat's default session-timeout.
            idle_timeout: Duration::from_secs(30 * 60),
            max_lifetime: None,
            // A browser sends the id back with the page's first subresource; a minute leaves room for a slow reader.
            confirm_within: Duration::from_secs(60),
            rotation_within: None,
            engaged_within: Duration::from_secs(5 * 60),
            background_paths: Vec::new(),
            max_entries: 1_000_000,
            ignore: Ignore::default(),
            keys: Vec::new(),
            count_probe: None,
        }
    }
}

/// How the pin is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinMode {
    /// Our own signed cookie `tidegate_<app>`.
    #[default]
    Cookie,
    /// The suffix the application writes into its id (Tomcat's jvmRoute).
    Route,
    /// HAProxy's `backend~id` in the application's cookie.
    Prefix,
    /// The ledger alone; no response is changed.
    Learn,
}

/// When a client is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinOn {
    /// With its session, so anonymous readers and bots move freely.
    #[default]
    Session,
    /// With the first response.
    FirstResponse,
}

/// Clients that are never counted as sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ignore {
    /// Networks.
    pub clients: Vec<IpNet>,
    /// Patterns of User-Agent in which `*` stands for anything.
    pub user_agents: Vec<String>,
}

/// A signing key: an id that pins name, and where the secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// At most 16 letters, digits, `-` or `_`.
    pub id: String,
    /// A file of at least 32 bytes.
    pub file: String,
}

/// Where the backend itself says how many sessions it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountProbe {
    /// Path on the backend.
    pub url_path: String,
    /// File with `user:password`.
    pub user_file: Option<String>,
    /// Tomcat manager's text, or the dotted path of a JSON number.
    pub format: CountFormat,
}

/// How a count probe's answer is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountFormat {
    /// The text of Tomcat's manager.
    Tomcat,
    /// A number in a JSON document, by dotted path.
    Json(String),
}

/// How a new session's backend is chosen; all kinds are weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Fewest live sessions by weight.
    #[default]
    LeastSessions,
    /// Fewest exchanges in flight by weight.
    LeastConnections,
    /// In turn.
    RoundRobin,
    /// The less busy of two drawn at random.
    RandomTwo,
    /// By a hash of the client over backend names.
    Consistent,
}

/// What happens to new clients when only draining backends are healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenAllDraining {
    /// They are served by a draining backend, counted as such.
    #[default]
    Serve,
    /// They get 503.
    Refuse,
}

/// What happens to a live session whose backend is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failover {
    /// A stand-in answers and the pin is kept.
    #[default]
    Temporary,
    /// The session is pinned anew.
    Repin,
    /// 503 with Retry-After.
    Off,
}

/// Bounds per backend and request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Exchanges at a time on one backend.
    pub max_connections: Option<u32>,
    /// Exchanges that may wait for a full backend.
    pub queue_size: u32,
    /// Longest such wait.
    pub queue_timeout: Duration,
    /// Second and later retries.
    pub retry_budget: RetryRules,
    /// Largest request body in bytes.
    pub max_body: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: None,
            queue_size: 100,
            queue_timeout: Duration::from_secs(5),
            retry_budget: RetryRules::default(),
            max_body: None,
        }
    }
}

/// Timeouts of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect to a backend, TLS included.
    pub connect: Duration,
    /// Between two reads from a backend.
    pub read: Duration,
    /// Between two writes to a backend or client.
    pub write: Duration,
    /// Of an idle pooled connection to a backend: below the backend's own keep-alive timeout.
    pub idle: Duration,
    /// Silence on a WebSocket or a streaming path.
    pub tunnel: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(1),
            read: Duration::from_secs(60),
            write: Duration::from_secs(60),
            // Tomcat closes idle connections after 60 s: stay below it, or a request meets a closing connection.
            idle: Duration::from_secs(55),
            tunnel: Duration::from_secs(3600),
        }
    }
}

/// How drains end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// Empty by then, counted from the drain's start.
    pub deadline: Option<Duration>,
    /// What the deadline does.
    pub then: DrainThen,
    /// Rate limit of evictions.
    pub evict_per_second: u32,
    /// Tunnels that outlive their session are closed after this time.
    pub tunnels: Option<Duration>,
    /// Moments at which a user carries no state and may be moved.
    pub move_points: Vec<MovePoint>,
    /// Path prefixes that are never replayed.
    pub no_replay: Vec<String>,
    /// Where verdicts are reported.
    pub webhook: Option<WebhookUrl>,
    /// File with the key that signs reports; `None`: one is made and kept in the state directory.
    pub webhook_key_file: Option<String>,
}

impl Default for DrainSettings {
    fn default() -> Self {
        DrainSettings {
            deadline: None,
            then: DrainThen::Keep,
            evict_per_second: 50,
            tunnels: None,
            move_points: Vec::new(),
            no_replay: Vec::new(),
            webhook: None,
            webhook_key_file: None,
        }
    }
}

/// What a drain's deadline does with the sessions that are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainThen {
    /// Nothing; the drain goes on.
    #[default]
    Keep,
    /// Moves those that are not engaged.
    MoveIdle,
    /// Moves all.
    Evict,
}

/// A request at which a user carries no state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovePoint {
    /// Upper case.
    pub method: String,
    /// Exact path.
    pub path: String,
}

/// A backend's word for "this session is not here"; any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotMine {
    /// Status codes; 421 (Misdirected Request, RFC 9110 §15.5.20) unless configured.
    pub status: StatusSet,
    /// A response header's name.
    pub header: Option<String>,
    /// A prefix of `Location`.
    pub location: Option<String>,
}

impl Default for NotMine {
    fn default() -> Self {
        NotMine { status: StatusSet(vec![(421, 421)]), header: None, location: None }
    }
}
