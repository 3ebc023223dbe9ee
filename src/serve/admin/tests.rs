//! The admin port as its users meet it: real sockets, a real `Control`, no proxy.

mod page;
mod strangers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::config::AdminAddress;
use crate::model::admission::Health;
use crate::model::backend::CountReading;
use crate::model::change::{Change, NewApp};
use crate::model::count::CountFault;
use crate::model::event::Owner;
use crate::model::pin::Keyring;
use crate::model::session_key::KeyedHash;
use crate::model::settings::{Address, AppSpec, BackendSpec, Current, Match, Protocol, ReleaseSpec, Settings};
use crate::serve::clock::Clock;
use crate::serve::control::DrainOrder;

/// The token of every [`Port`].
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn release(name: &str, backends: &[(&str, u16)]) -> ReleaseSpec {
    let backend = |(name, port): &(&str, u16)| BackendSpec {
        name: (*name).to_owned(),
        address: Address { host: "127.0.0.1".to_owned(), port: *port },
        route: (*name).to_owned(),
        weight: 1,
        backup: false,
        max_connections: None,
        tls: None,
        protocol: Protocol::Http1,
    };
    ReleaseSpec { name: name.to_owned(), path: None, backends: backends.iter().map(backend).collect() }
}

fn loaded_control(idle_timeout: Duration) -> Arc<Control> {
    let control = Control::new(Clock::start());
    let mut settings = Settings::default();
    settings.session.idle_timeout = idle_timeout;
    let spec = AppSpec {
        name: "shop".to_owned(),
        matches: vec![Match { host: None, path: "/".to_owned() }],
        settings,
        current: Current::Release("v41".to_owned()),
        releases: vec![release("v41", &[("a1", 8081), ("a2", 8082)]), release("v42", &[("b1", 9081)])],
    };
    let app = NewApp {
        spec,
        keyring: Arc::new(Keyring::new([("k", [7; 32].as_slice())]).unwrap()),
        hash: Arc::new(KeyedHash::new([7; 16])),
        memory: None,
    };
    control.apply(&Change::Load(vec![app]), Owner::Config, DrainOrder::default()).unwrap();
    up(&control, &["v41", "v42"]);
    Arc::new(control)
}

fn up(control: &Control, releases: &[&str]) {
    for backend in control.view().apps[0].backends.iter().flatten().filter(|b| releases.contains(&&*b.release)) {
        backend.live.observe(Health::Up, control.now());
    }
}

/// An admin port with an app `shop`: v41 (a1, a2) is current, v42 (b1) drains.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    pub(crate) control: Arc<Control>,
    ready: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<io::Result<()>>,
}

fn admin(control: &Arc<Control>) -> (Arc<Admin>, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let explain = |app: &str, path: &str, headers: &[(String, String)]| api::ExplainReport {
        decision: "forward".to_owned(),
        backend: Some(format!("{app}/v41/a1")),
        sentence: format!("{path} {headers:?}"),
        ..Default::default()
    };
    let admin = Admin {
        control: Arc::clone(control),
        reloader: Arc::new(Reloader::new(Arc::clone(control), std::env::temp_dir(), Default::default(), None)),
        ready: Arc::new(AtomicBool::new(false)),
        stopping: Arc::default(),
        explain: Box::new(explain),
        export: Box::new(|| "apps: {}\n".to_owned()),
        flush: Box::new(|| Ok(())),
        upgrade: Box::new(|| Err("nobody upgrades here".to_owned())),
        stop: stopped,
        paused: watch::channel(false).1,
        sight: Sight::default(),
    };
    (Arc::new(admin), stop)
}

/// Serves on a free loopback port, by the rules of `as_address`.
async fn port(as_address: &str) -> Port {
    port_with(as_address, Duration::from_secs(1800)).await
}

/// As [`port`], with sessions that end after this silence.
pub(crate) async fn port_with(as_address: &str, idle_timeout: Duration) -> Port {
    let control = loaded_control(idle_timeout);
    let (admin, stop) = admin(&control);
    let ready = Arc::clone(&admin.ready);
    let rules = AdminAddress::Tcp(as_address.parse().unwrap());
    let access = Access::new(&rules, Some(Token::from_text(SECRET))).unwrap();
    let listener = AdminListener::bind(&AdminAddress::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let address = listener.local_addr().unwrap();
    Port { address, control, ready, stop, served: tokio::spawn(serve(listener, access, admin)) }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

impl Port {
    async fn raw(&self, request: &str) -> Answer {
        exchange(TcpStream::connect(self.address).await.unwrap(), request).await
    }

    /// With the token and a `Host` that is fine.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let body = body.map_or_else(String::new, |body| body.to_string());
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.raw(&request).await
    }

    /// Asks, and expects this status; refusals must carry an error and a remedy.
    async fn check(&self, method: &str, path: &str, body: Option<Value>, expected: u16) -> Value {
        let answer = self.ask(method, path, body.clone()).await;
        assert_eq!(answer.status, expected, "{method} {path} {body:?}: {}", answer.body);
        let value = answer.json();
        if expected >= 400 {
            let said = |field: &str| value[field].as_str().is_some_and(|text| !text.is_empty());
            assert!(said("error") && said("remedy"), "{method} {path}: {value}");
        }
        value
    }

    /// A confirmed session on that backend.
    pub(crate) fn open_session(&self, release: &str, backend: &str, id: &[u8]) {
        let view = self.control.view();
        let app = view.app("shop").unwrap();
        let slot = app.slot(release, backend).unwrap();
        let (key, now) = (app.hash.key(id), self.control.now());
        app.ledger.born(key, slot, 0, now);
        app.ledger.enter(key, crate::model::ledger::Attention::Foreground, now);
        app.ledger.leave(key, now);
    }
}

#[tokio::test]
async fn a_release_is_staged_promoted_rolled_back_stopped_and_removed() {
    let port = port("127.0.0.1:9180").await;
    let stage = json!({"name": "v43", "backends": {"c1": "127.0.0.1:9181", "c2": {"address": "127.0.0.1:9182", "weight": 2}}});
    let staged = port.check("POST", "/api/v1/apps/shop/releases", Some(stage.clone()), 201).await;
    assert_eq!((&staged["state"], &staged["backends"]["c2"]["health"]), (&json!("staged"), &json!("untested")));
    port.check("POST", "/api/v1/apps/shop/releases", Some(stage), 409).await;
    port.check("POST", "/api/v1/apps/shop/promote", Some(json!({"release": "v43", "from": "v42"})), 409).await;

    // Its first probe passes while the promotion waits for it.
    let (control, later) = (Arc::clone(&port.control), Duration::from_millis(120));
    let probe = tokio::spawn(async move {
        tokio::time::sleep(later).await;
        up(&control, &["v43"]);
    });
    let promoted = port.check("POST", "/api/v1/apps/shop/promote", Some(json!({"release": "v43", "from": "v41"})), 202).await;
    probe.await.unwrap();
    assert_eq!(promoted["current"], "v43");
    assert_eq!(promoted["drains"].as_array().map(Vec::len), Some(1), "{promoted}");
    let again = port.check("POST", "/api/v1/apps/shop/promote", Some(json!({"release": "v43", "from": "v41"})), 202).await;
    assert_eq!(again["drains"].as_array().unwrap().last(), promoted["drains"].as_array().unwrap().last());

    let status = port.check("GET", "/api/v1/status", None, 200).await;
    assert_eq!(status["apps"]["shop"]["releases"]["v41"]["state"], "draining");
    assert_eq!(status["apps"]["shop"]["releases"]["v41"]["backends"]["a1"]["admission"], "known_sessions");
    port.check("POST", "/api/v1/apps/shop/releases/v43/stop", None, 409).await;
    let back = port.check("POST", "/api/v1/apps/shop/rollback", None, 202).await;
    assert_eq!(back["current"], "v41");
    port.check("DELETE", "/api/v1/apps/shop/releases/v43", None, 409).await;
    port.check("POST", "/api/v1/apps/shop/releases/v43/stop", Some(json!({"force": true})), 200).await;
    port.check("DELETE", "/api/v1/apps/shop/releases/v43", None, 200).await;
    port.check("DELETE", "/api/v1/apps/shop/releases/v43", None, 404).await;
    port.check("DELETE", "/api/v1/apps/shop/releases/v42", None, 409).await;
}

#[tokio::test]
async fn a_release_without_a_passing_probe_is_refused_after_a_bounded_wait() {
    let port = port("127.0.0.1:9180").await;
    let stage = json!({"name": "v43", "backends": {"c1": "127.0.0.1:9181"}});
    port.check("POST", "/api/v1/apps/shop/releases", Some(stage), 201).await;
    let began = std::time::Instant::now();
    port.check("POST", "/api/v1/apps/shop/promote", Some(json!({"release": "v43"})), 409).await;
    // interval 2 s + timeout 1 s
    assert!((Duration::from_millis(2900)..Duration::from_secs(6)).contains(&began.elapsed()), "{:?}", began.elapsed());
    port.check("POST", "/api/v1/apps/shop/promote", Some(json!({"release": "v43", "force": true})), 202).await;
}

#[tokio::test]
async fn a_backend_drains_is_watched_and_serves_again() {
    let port = port("127.0.0.1:9180").await;
    for id in [b"one".as_slice(), b"two"] {
        port.open_session("v41", "a1", id);
    }
    let order = json!({"target": "shop/v41/a1", "deadline": "4h", "then": "evict"});
    let drain = port.check("POST", "/api/v1/drains", Some(order.clone()), 201).await;
    let id = drain["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&drain["initial"], &drain["remaining"], &drain["then"], &drain["verdict"]),
        (&json!(2), &json!(2), &json!("evict"), &Value::Null)
    );
    assert_eq!(drain["eta_seconds"], json!({"p50": null, "p90": null, "p99": null}));
    assert!(drain["upper_bound_seconds"].as_u64().is_some_and(|s| (1700..=1800).contains(&s)), "{drain}");
    assert!(drain["deadline"].as_str().is_some_and(|at| at.ends_with('Z')));
    assert_eq!(port.check("POST", "/api/v1/drains", Some(order), 200).await["id"], json!(id));
    assert_eq!(port.check("GET", &format!("/api/v1/drains/{id}"), None, 200).await["target"], "shop/v41/a1");
    assert_eq!(
        port.check("GET", "/api/v1/drains", None, 200).await["drains"].as_array().map(Vec::len),
        Some(2),
        "v42 drains since the start"
    );

    // The other one is the last that serves now.
    port.check("POST", "/api/v1/drains", Some(json!({"target": "shop/v41/a2"})), 409).await;
    port.check("POST", "/api/v1/intent", Some(json!({"target": "shop/v41/a1", "intent": "maintain"})), 409).await;
    assert_eq!(port.check("POST", "/api/v1/evict", Some(json!({"target": "shop/v41/a1"})), 200).await["evicted"], 2);
    let emptied = port.check("GET", &format!("/api/v1/drains/{id}"), None, 200).await;
    assert_eq!((&emptied["remaining"], &emptied["progress"], &emptied["ended"]["evicted"]), (&json!(0), &json!(1.0), &json!(2)));

    let cancelled = port.check("DELETE", &format!("/api/v1/drains/{id}"), None, 200).await;
    assert_eq!(cancelled["verdict"], "cancelled");
    port.check("DELETE", &format!("/api/v1/drains/{id}"), None, 409).await;
    assert_eq!(
        port.check("POST", "/api/v1/intent", Some(json!({"target": "host:127.0.0.1", "intent": "serve"})), 200).await["intent"],
        "serve"
    );
    let text = port.ask("GET", "/metrics", None).await.body;
    assert!(text.contains("tidegate_drains_finished_total{verdict=\"cancelled\"} 1"), "{text}");
    assert!(text.contains("tidegate_sessions_ended_total{app=\"shop\",release=\"v41\",backend=\"a1\",reason=\"evicted\"} 2"), "{text}");
}

#[tokio::test]
async fn refusals_name_the_object_and_the_remedy() {
    let port = port("127.0.0.1:9180").await;
    let large = "x".repeat(BODY_MAX);
    for (request, body, expected, word) in [
        ("GET /api/v2/status", None, 404, "/api/v2/status"),
        ("GET /api/v1/apps/shop/promote", None, 405, "GET"),
        ("PUT /api/v1/status", None, 405, "PUT"),
        ("POST /api/v1/apps/shap/promote", Some(json!({"release": "v42"})), 404, "shap"),
        ("POST /api/v1/apps/shop/promote", Some(json!({"release": "v99"})), 404, "v99"),
        ("POST /api/v1/apps/shop/promote", Some(json!({"release": "v42", "then": "drop"})), 400, "drop"),
        ("POST /api/v1/apps/shop/promote", Some(json!({"release": "v42", "deadline": "4"})), 400, "deadline"),
        ("POST /api/v1/apps/shop/promote", Some(json!({"release": "v42", "form": "v41"})), 400, "form"),
        ("POST /api/v1/apps/shop/promote", Some(json!({"release": large})), 413, "65536"),
        ("POST /api/v1/apps/shop/rollback", Some(json!({"from": "v42"})), 409, "v41"),
        ("POST /api/v1/apps/shop/releases", Some(json!({"name": "v43", "backends": {}})), 400, "v43"),
        ("POST /api/v1/apps/shop/releases", Some(json!({"name": "v 43", "backends": {"c1": "h:1"}})), 400, "name"),
        ("POST /api/v1/apps/shop/releases", Some(json!({"name": "v43", "backends": {"c1": "http://h:1"}})), 400, "backends.c1"),
        ("POST /api/v1/apps/shop/releases", Some(json!({"name": "v43", "backends": {"c.1": "h:1"}})), 400, "dot"),
        ("POST /api/v1/apps/shop/releases", Some(json!({"name": "v43", "backends": {"c1": "127.0.0.1:8081"}})), 409, "a1"),
        ("POST /api/v1/apps/shop/releases", Some(json!({"name": "v43", "path": "x", "backends": {"c1": "h:1"}})), 400, "path"),
        ("POST /api/v1/apps/shop/releases/v41/stop", None, 409, "v41"),
        ("POST /api/v1/apps/shop/releases/v9/stop", None, 404, "v9"),
        ("POST /api/v1/drains", Some(json!({"target": "shop"})), 400, "shop"),
        ("POST /api/v1/drains", Some(json!({"target": "shop/v41"})), 409, "shop/v41"),
        ("POST /api/v1/drains", Some(json!({"target": "shop/v41/a9"})), 404, "a9"),
        ("GET /api/v1/drains/d99", None, 404, "d99"),
        ("GET /api/v1/drains/x", None, 404, "x"),
        ("DELETE /api/v1/drains/d99", None, 404, "d99"),
        ("POST /api/v1/intent", Some(json!({"target": "shop/v41/a1", "intent": "stop"})), 400, "stop"),
        ("POST /api/v1/intent", Some(json!({"target": "host:10.9.9.9", "intent": "serve"})), 404, "10.9.9.9"),
        ("POST /api/v1/evict", Some(json!({"target": "shop/v41", "idle": "soon"})), 400, "idle"),
        ("POST /api/v1/evict", Some(json!({"target": "shop/v49"})), 404, "v49"),
        ("GET /api/v1/apps/shap/sessions", None, 404, "shap"),
        ("POST /api/v1/explain", Some(json!({"app": "shap"})), 404, "shap"),
        ("POST /api/v1/explain", Some(json!({"app": "shop", "path": "x"})), 400, "path"),
        ("POST /api/v1/reload", Some(json!({"dry_run": true})), 409, "without a file"),
        ("POST /api/v1/upgrade", None, 409, "upgrade"),
        ("GET /api/v1/drains/%ff", None, 400, "read"),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        let refused = port.check(method, path, body, expected).await;
        assert!(refused["error"].as_str().unwrap().contains(word), "{request}: {refused}");
    }
    let form = format!(
        "POST /api/v1/evict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {SECRET}\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 21\r\n\r\n{{\"target\":\"shop/v41\"}}"
    );
    assert_eq!(port.raw(&form).await.status, 415);
}

#[tokio::test]
async fn sessions_are_told_without_their_ids() {
    let port = port("127.0.0.1:9180").await;
    port.open_session("v41", "a2", b"very-secret-id");
    let plain = port.check("GET", "/api/v1/apps/shop/sessions", None, 200).await;
    assert_eq!((&plain["sessions"]["live"], &plain["releases"]["v41"]["live"], &plain["list"]), (&json!(1), &json!(1), &Value::Null));
    assert_eq!(plain["ages"][0], json!({"up_to_seconds": 60, "sessions": 1}));
    let listed = port.ask("GET", "/api/v1/apps/shop/sessions?list=1", None).await;
    assert_eq!(listed.json()["list"][0]["backend"], "shop/v41/a2");
    assert!(!listed.body.contains("very-secret-id"));
}

#[tokio::test]
async fn questions_to_the_request_path_are_handed_on() {
    let port = port("127.0.0.1:9180").await;
    let order = json!({"app": "shop", "path": "/cart", "headers": {"cookie": "a=b"}});
    let report = port.check("POST", "/api/v1/explain", Some(order), 200).await;
    assert_eq!(report["sentence"], "/cart [(\"cookie\", \"a=b\")]");
    assert_eq!(port.ask("GET", "/api/v1/export", None).await.body, "apps: {}\n");
    assert!(port.ask("GET", "/", None).await.body.contains("/api/v1/status"));
}

#[tokio::test]
async fn ready_is_what_the_process_says() {
    let port = port("127.0.0.1:9180").await;
    for (ready, expected) in [(false, 503), (true, 200), (false, 503)] {
        port.ready.store(ready, Ordering::Release);
        assert_eq!(port.ask("GET", "/readyz", None).await.status, expected);
        assert_eq!(port.ask("GET", "/healthz", None).await.status, 200);
    }
}

#[tokio::test]
async fn events_are_told_from_the_past_on_and_end_with_the_process() {
    let port = port("127.0.0.1:9180").await;
    let past = port.ask("GET", "/api/v1/events?follow=0", None).await;
    assert!(past.head.contains("content-type: text/event-stream"));
    assert!(past.body.contains("\"target\":\"shop\",\"what\":\"loaded with 2 releases\""), "{}", past.body);

    let mut stream = BufReader::new(TcpStream::connect(port.address).await.unwrap());
    stream.get_mut().write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut line = String::new();
    while !line.contains("loaded with") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0);
    }
    port.control.note(Owner::Health, "shop/v41/a1", "up to down");
    while !line.contains("up to down") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).await.unwrap(), 0);
    }
    let event: api::Event = serde_json::from_str(line.trim().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((event.owner.as_str(), event.target.as_str()), ("health", "shop/v41/a1"));

    port.stop.send(true).unwrap();
    let mut rest = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(5), port.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn half_a_request_does_not_keep_the_process_alive() {
    let port = port("127.0.0.1:9180").await;
    let mut half = TcpStream::connect(port.address).await.unwrap();
    half.write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: loc").await.unwrap();
    assert_eq!(port.ask("GET", "/healthz", None).await.status, 200, "the half request is under way");
    port.stop.send(true).unwrap();
    tokio::time::timeout(LEAVING * 2, port.served).await.unwrap().unwrap().unwrap();
    drop(half);
}

#[tokio::test]
async fn a_unix_socket_is_for_its_owner_and_takes_the_place_of_a_dead_one() {
    use std::os::unix::fs::PermissionsExt;
    let directory = std::env::temp_dir().join(format!("tidegate-admin-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path: PathBuf = directory.join("admin.sock");
    // What a crash leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = AdminAddress::Unix(path.clone());
    let control = loaded_control(Duration::from_secs(1800));
    let (admin, stop) = admin(&control);
    let access = Access::new(&address, Some(Token::from_text(SECRET))).unwrap();
    let listener = AdminListener::bind(&address).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let served = tokio::spawn(serve(listener, access, admin));
    assert!(AdminListener::bind(&address).await.unwrap_err().to_string().contains("another process"));

    let stream = || UnixStream::connect(&path);
    let question = "GET /api/v1/status HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(stream().await.unwrap(), question).await.status, 200);
    let order = "POST /api/v1/upgrade HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(stream().await.unwrap(), order).await.status, 401);
    stop.send(true).unwrap();
    served.await.unwrap().unwrap();
    assert!(!path.exists());
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn the_exposition_names_every_metric_that_has_a_sample() {
    let port = port("127.0.0.1:9180").await;
    let view = port.control.view();
    let a1 = view.apps[0].backend(0).unwrap();
    a1.live.count_read(Some(CountReading { sessions: 3, known: 0, at: port.control.now() }));
    a1.live.count_faults.met(CountFault::Status);
    let answer = port.ask("GET", "/metrics", None).await;
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"));
    // Certificates belong to listeners, and here are none; nor has the drain a deadline.
    let shown = |metric: &&metrics::Described| !metric.name.starts_with("tidegate_certificate") && !metric.name.contains("_deadline_");
    for metric in metrics::METRICS.iter().filter(shown) {
        assert!(answer.body.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind.as_str())), "{}", metric.name);
    }
    assert!(
        answer.body.contains("tidegate_request_duration_seconds_bucket{app=\"shop\",release=\"v41\",le=\"+Inf\"} 0"),
        "{}",
        answer.body
    );
    let of_a1 = "app=\"shop\",release=\"v41\",backend=\"a1\"";
    assert!(answer.body.contains(&format!("tidegate_count_probe_drift{{{of_a1}}} 3\n")), "{}", answer.body);
    assert!(answer.body.contains(&format!("tidegate_count_probe_failures_total{{{of_a1},cause=\"status\"}} 1\n")), "{}", answer.body);
    assert!(answer.body.contains("tidegate_release_state{app=\"shop\",release=\"v42\",state=\"draining\"} 1"));
}

#[tokio::test]
async fn a_paused_address_leaves_its_clients_to_a_successor() {
    let (paused, pause) = watch::channel(true);
    let first = AdminListener::bind(&AdminAddress::Tcp("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let (address, socket) = (first.local_addr().unwrap(), first.duplicate().unwrap());
    let AdminListener::Tcp(listener) = first else { panic!("TCP was asked for") };
    let mut first = super::listen::Pausable::new(listener, pause);
    let client = tokio::net::TcpStream::connect(address).await.unwrap();
    let here = client.local_addr().unwrap();
    let AdminListener::Tcp(second) = AdminListener::adopt(&AdminAddress::Tcp(address), socket).unwrap() else { panic!("TCP") };
    {
        let mut waits = std::pin::pin!(axum::serve::Listener::accept(&mut first));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut waits).await.is_err(), "it pauses");
        assert_eq!(second.accept().await.unwrap().1, here);
        // The successor fails: the first one goes on.
        let _client = tokio::net::TcpStream::connect(address).await.unwrap();
        paused.send_replace(false);
        waits.await;
    }
}
