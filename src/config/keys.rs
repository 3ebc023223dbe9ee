//! Every key of the configuration, once: its place, what it is unless written, and a sentence.
//!
//! `conf/reference.yaml` is generated from this table and the readers refuse what is not in it. The defaults themselves live in
//! the model; here stands only how they are written, and a test proves that both agree.

/// A key. In `path`, `*` stands for a name that the operator chooses and `[]` for an item of a list.
pub(super) struct Key {
    pub path: &'static str,
    pub value: Value,
    /// One sentence for `conf/reference.yaml`.
    pub about: &'static str,
}

/// What a key holds unless it is written.
pub(super) enum Value {
    /// The default, as YAML.
    Default(&'static str),
    /// Nothing: the key must be written, or is shown as an example of one kind.
    Example(&'static str),
    /// Further keys.
    Section,
    /// Further keys that stand aside until written: the default, as YAML.
    Off(&'static str),
    /// Further keys under names that the operator chooses: an example of one.
    Names(&'static str),
}

use Value::{Default, Example, Names, Off, Section};

/// Names that a later version will give a meaning: using one now would change behaviour by an upgrade.
pub(super) const RESERVED: [&str; 7] = ["choice", "jar", "preview", "ramp", "adopt", "assets", "store"];

const fn key(path: &'static str, value: Value, about: &'static str) -> Key {
    Key { path, value, about }
}

/// In the order of `conf/reference.yaml`; children follow their parent.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("server", Section, "The process."),
    key("server.threads", Default("null"), "Worker threads; null: one per core."),
    key("server.grace_period", Default("30s"), "SIGTERM: longest wait for exchanges under way; ends at once when none is left."),
    key("server.lame_duck", Default("0s"), "SIGTERM: how long /readyz says 503 while clients are still accepted, so that whoever sends them sends them elsewhere."),
    key("server.upgrade_timeout", Default("30s"), "An upgrade: longest time the new process may take for each step (appear, learn, serve) before it is killed and the old one serves on."),
    key("server.header_timeout", Default("10s"), "Longest time a client may take to send the header of a request."),
    key("server.watch", Default("false"), "true: the file is applied whenever it changes; what would lose sessions is refused."),
    key("server.access_log", Section, "One line per exchange; null: none."),
    key("server.access_log.path", Default("stdout"), "stdout, stderr or a file, which USR1 reopens."),
    key("server.access_log.format", Default("json"), "json | combined (as Apache and nginx write it)."),

    key("listeners", Section, "Where clients connect; at least one."),
    key("listeners.[].address", Example("0.0.0.0:8080"), "IP and port; required."),
    key("listeners.[].tls", Off("null"), "TLS with HTTP/2; null: plain HTTP."),
    key("listeners.[].tls.certificates", Section, "Chosen by the name the client asks for (SNI); the first is for all other names."),
    key("listeners.[].tls.certificates.[].certificate", Example("/etc/tidegate/shop.pem"), "PEM file with the certificate and its chain; required."),
    key("listeners.[].tls.certificates.[].key", Default("null"), "PEM file with the private key; null: it is in the certificate file."),

    key("admin", Section, "API, status page, /metrics, /healthz and /readyz."),
    key("admin.address", Default("127.0.0.1:9180"), "IP and port, or unix:/run/tidegate/admin.sock."),
    key("admin.token_file", Default("null"), "Token for changes, and for reading unless the address is loopback; null: `token` in state.directory, else /etc/tidegate/token; made if missing."),

    key("state", Section, "What survives a restart."),
    key("state.directory", Default("./tidegate-state"), "Ledger, release states, drains and keys; must be this process's own. For a service of systemd the default is its StateDirectory=."),

    key("trusted_proxies", Default("[]"), "Networks of proxies in front, whose X-Forwarded-* count, such as 10.0.0.0/8."),

    key("apps", Names("shop"), "By name: lower-case letters, digits, `_` and `-`, at most 32; at least one."),
    key("apps.*.match", Section, "What the app serves: the most specific host wins, then the longest path."),
    key("apps.*.match.[].host", Default("null"), "A host name without port, *.example.com for every name below, or null for any."),
    key("apps.*.match.[].path", Default("/"), "Beginning of the path, in whole segments."),

    key("apps.*.session", Section, "How sessions are recognised, pinned and ended."),
    key("apps.*.session.cookies", Default("[JSESSIONID]"), "The application's session cookie; of several, the first one present wins."),
    key("apps.*.session.path_parameter", Default("jsessionid"), "Name in `/shop;jsessionid=…`; null: none."),
    key("apps.*.session.query_parameter", Default("null"), "Name in `?PHPSESSID=…`; null: none."),
    key("apps.*.session.header", Default("null"), "A header that carries the id both ways, such as Mcp-Session-Id; null: none."),
    key("apps.*.session.pin", Default("cookie"), "cookie (our own, signed) | route (the id's suffix, Tomcat's jvmRoute) | prefix (HAProxy's backend~id) | learn (ledger only)."),
    key("apps.*.session.pin_on", Default("session"), "session (anonymous readers move freely) | first_response."),
    key("apps.*.session.idle_timeout", Default("30m"), "The application's own session timeout."),
    key("apps.*.session.max_lifetime", Default("null"), "Sessions end at this age, however busy; null: never."),
    key("apps.*.session.confirm_within", Default("60s"), "A new session leaves the count when its client has not sent the id back by then."),
    key("apps.*.session.rotation_within", Default("null"), "A new id after a longer silence is a new session, not a renamed one; null: idle_timeout."),
    key("apps.*.session.engaged_within", Default("5m"), "A session is engaged when a foreground path touched it within this time."),
    key("apps.*.session.background_paths", Default("[]"), "Beginnings of paths (pollers, heartbeats) that keep a session alive without engaging it."),
    key("apps.*.session.max_entries", Default("1000000"), "Bound of the ledger, sessions of every kind."),
    key("apps.*.session.ignore", Section, "Clients that are never counted as sessions."),
    key("apps.*.session.ignore.clients", Default("[]"), "Networks, such as 10.9.0.0/16."),
    key("apps.*.session.ignore.user_agents", Default("[]"), "Patterns in which * stands for anything, such as \"kube-probe/*\"."),
    key("apps.*.session.keys", Off("[]"), "Keys that sign pins: the first signs, all verify; []: one is made and kept in the state directory (several proxies need the same)."),
    key("apps.*.session.keys.[].id", Example("k1"), "At most 16 letters, digits, `-` or `_`; pins name it; required."),
    key("apps.*.session.keys.[].file", Example("/etc/tidegate/k1.key"), "A file of at least 32 random bytes; required."),
    key("apps.*.session.count_probe", Off("null"), "Where a backend itself says how many sessions it has; exactly one of tomcat and json."),
    key("apps.*.session.count_probe.url_path", Example("/manager/text/sessions?path=/shop"), "Path on the backend; required."),
    key("apps.*.session.count_probe.user_file", Default("null"), "File with `user:password`."),
    key("apps.*.session.count_probe.tomcat", Example("true"), "The answer is the text of Tomcat's manager."),
    key("apps.*.session.count_probe.json", Default("null"), "The dotted path of a number in a JSON answer, such as sessions.active."),

    key("apps.*.balance", Default("least_sessions"), "For new sessions: least_sessions | least_connections | round_robin | random_two | consistent."),
    key("apps.*.when_all_draining", Default("serve"), "New clients when only draining backends are healthy: serve | refuse (503)."),
    key("apps.*.failover", Default("temporary"), "A live session whose backend is down: temporary (a stand-in answers, the pin stays) | repin | off (503)."),
    key("apps.*.failover_wait", Default("0s"), "How long such a request first waits for its backend."),

    key("apps.*.health", Section, "Probes."),
    key("apps.*.health.tcp", Default("false"), "true: only connect, without HTTP."),
    key("apps.*.health.path", Default("/"), "Path of the probe; where a release has a path of its own, a probe below the app's path is mapped as requests are."),
    key("apps.*.health.method", Default("GET"), "Method of the probe."),
    key("apps.*.health.host", Default("null"), "Host header of the probe; null: the backend's address."),
    key("apps.*.health.port", Default("null"), "Another port than the backend's own."),
    key("apps.*.health.interval", Default("2s"), "Time between the starts of two probes."),
    key("apps.*.health.timeout", Default("1s"), "Longest a probe may take; at most interval."),
    key("apps.*.health.rise", Default("2"), "Passing probes until a backend is up."),
    key("apps.*.health.fall", Default("2"), "Failing probes until it is down or stalled."),
    key("apps.*.health.ready", Default("[200-399]"), "Status codes that mean up."),
    key("apps.*.health.drain", Default("[]"), "Status codes that mean draining (soft stop), such as 404 or 503; they win over ready."),
    key("apps.*.health.instance_header", Default("null"), "A response header whose value changes when the backend restarts: proof that its sessions are lost."),

    key("apps.*.limits", Section, "Bounds per backend and request."),
    key("apps.*.limits.max_connections", Default("null"), "Exchanges at a time on one backend; null: no limit."),
    key("apps.*.limits.queue", Section, "Where exchanges wait for a full backend."),
    key("apps.*.limits.queue.size", Default("100"), "Longest queue; 0: none."),
    key("apps.*.limits.queue.timeout", Default("5s"), "Longest wait."),
    key("apps.*.limits.retry_budget", Section, "How often requests that failed twice are tried again; the first retry is free."),
    key("apps.*.limits.retry_budget.percent", Default("20"), "Such retries per hundred requests, over 10 s."),
    key("apps.*.limits.retry_budget.least_per_second", Default("10"), "Such retries in any case."),
    key("apps.*.limits.max_body", Default("null"), "Largest request body, such as 64MiB; null: no limit."),

    key("apps.*.timeouts", Section, "Timeouts of an exchange with a backend."),
    key("apps.*.timeouts.connect", Default("1s"), "To connect, TLS included."),
    key("apps.*.timeouts.read", Default("60s"), "Between two reads."),
    key("apps.*.timeouts.write", Default("60s"), "Between two writes."),
    key("apps.*.timeouts.idle", Default("55s"), "Of an idle kept connection; stay below the backend's own keep-alive timeout. One that is announced (`Keep-Alive: timeout=5`) is heeded, without TLS."),
    key("apps.*.timeouts.tunnel", Default("1h"), "Silence on a WebSocket or a streaming path."),
    key("apps.*.streaming_paths", Default("[]"), "Beginnings of paths (server-sent events, long polls) with timeouts.tunnel in place of timeouts.read."),
    key("apps.*.slow_start", Default("0s"), "A recovered backend's share of new sessions grows to its weight over this time."),

    key("apps.*.drain", Section, "How drains end."),
    key("apps.*.drain.deadline", Default("null"), "Empty by then, counted from the drain's start; null: no deadline."),
    key("apps.*.drain.then", Default("keep"), "What the deadline does with sessions that are left: keep | move_idle (not the engaged ones) | evict (all)."),
    key("apps.*.drain.evict_per_second", Default("50"), "Rate of evictions, and of WebSockets and event streams that are closed."),
    key("apps.*.drain.tunnels", Default("null"), "Close WebSockets and event streams this long after their session ended; null: wait for them, but not beyond a deadline that evicts."),
    key("apps.*.drain.move_points", Off("[]"), "Requests at which a user carries no state and leaves a draining backend: before they are sent (GET), or after their answer (POST)."),
    key("apps.*.drain.move_points.[].method", Example("GET"), "Method; required."),
    key("apps.*.drain.move_points.[].path", Example("/login"), "Exact public path; required."),
    key("apps.*.drain.no_replay", Default("[]"), "Beginnings of paths (one-time codes) that are not sent once more when a draining backend answers with a new session."),
    key("apps.*.drain.webhook", Default("null"), "A URL (http or https) that the verdict of each drain is posted to, signed; null: none."),
    key("apps.*.drain.webhook_key_file", Default("null"), "File with the key of the signature, at least 32 bytes; null: one is made in the state directory, keys/NAME.webhook."),

    key("apps.*.not_mine", Section, "How a draining backend says that a session is not there and nothing was done: the request is sent once more. Any of these."),
    key("apps.*.not_mine.status", Default("[421]"), "Status codes."),
    key("apps.*.not_mine.header", Default("null"), "The name of a response header."),
    key("apps.*.not_mine.location", Default("null"), "Beginning of a Location."),

    key("apps.*.current", Example("v1"), "The release that takes new sessions, or by_health; may be left out while there is only one. Editing it is a promotion; so is `tidegate promote`."),
    key("apps.*.releases", Names("v1"), "By name: letters, digits, `.`, `_` and `-`, at most 64; at least one."),
    key("apps.*.releases.*.path", Default("null"), "The backend's own path when it differs from the public one, such as /shop-v1."),
    key("apps.*.releases.*.backends", Names("a1"), "By name; `a1: 127.0.0.1:8081` is short for an address alone; at least one."),
    key("apps.*.releases.*.backends.*.address", Example("127.0.0.1:8081"), "Host and port; required."),
    key("apps.*.releases.*.backends.*.route", Default("null"), "What the application appends to its ids (Tomcat's jvmRoute), unique in the app; null: the name."),
    key("apps.*.releases.*.backends.*.weight", Default("1"), "Share of new sessions, 0 to 1000; 0 takes none and keeps its sessions."),
    key("apps.*.releases.*.backends.*.backup", Default("false"), "true: takes new sessions only when no other backend does."),
    key("apps.*.releases.*.backends.*.max_connections", Default("null"), "Overrides limits.max_connections."),
    key("apps.*.releases.*.backends.*.protocol", Default("http1"), "http1 | http2."),
    key("apps.*.releases.*.backends.*.tls", Off("null"), "TLS towards the backend: true, or a section; null: none."),
    key("apps.*.releases.*.backends.*.tls.server_name", Default("null"), "Name to ask for and to find in the certificate; null: the address's host."),
    key("apps.*.releases.*.backends.*.tls.verify", Default("true"), "Whether the certificate is checked."),
];

/// The keys of the section at `path`, with their names.
pub(super) fn children(path: &str) -> impl Iterator<Item = (&'static str, &'static Key)> {
    KEYS.iter().filter_map(move |k| {
        let rest = match path {
            "" => k.path,
            _ => k.path.strip_prefix(path)?.strip_prefix('.')?,
        };
        (!rest.contains('.')).then_some((rest, k))
    })
}

/// Where else `name` is a key, nearest below `path` first: for somebody who indented wrongly.
pub(super) fn elsewhere(path: &str, name: &str) -> Option<&'static str> {
    let parent = |k: &'static Key| k.path.rsplit_once('.').filter(|(_, last)| *last == name).map(|(parent, _)| parent);
    let below = |p: &&str| p.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.starts_with('.'));
    KEYS.iter().filter_map(parent).find(below).or_else(|| KEYS.iter().filter_map(parent).next())
}
