//! A load that knows each request's fate: users on kept connections, on a new one each, on HTTP/2 and on WebSockets, who all know
//! what their session should show.
//!
//! It judges harder than a browser: nothing is sent a second time, so a connection that was closed while it lay idle is a failure
//! too, of a kind of its own. The one exception is HTTP/2, where a GOAWAY says that a stream was never looked at (RFC 9113 §6.8).
//!
//! The application must answer as [`crate::origin`] does: `backend=`, `session=` and a `counter=` that each request moves by one.
//! So a request that was done twice, or by another memory, shows at the next answer.

mod http1;
mod http2;
#[cfg(test)]
mod tests;
mod tunnel;
mod user;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use self::user::User;
use crate::http::query_value;
use crate::origin::Origin;
use crate::process::wait_for;

/// Failures that a panic shows; the counts are always whole.
const SHOWN: usize = 12;

/// Who comes, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Tasks that keep their HTTP/1.1 connection.
    pub keep_alive: usize,
    /// Tasks that make a connection for each request.
    pub close: usize,
    /// Tasks on HTTP/2 with prior knowledge.
    pub http2: usize,
    /// WebSockets that echo.
    pub websockets: usize,
    /// Users of each task, who take turns.
    pub users: usize,
    /// Between an answer and the task's next request.
    pub think: Duration,
    /// `GET`, or `POST` with a short body.
    pub method: &'static str,
    /// More of the query, such as `&ms=20`.
    pub query: &'static str,
    /// An answer that takes longer is a failure.
    pub patience: Duration,
}

impl Default for Plan {
    fn default() -> Plan {
        let (think, patience) = (Duration::from_millis(10), Duration::from_secs(30));
        Plan { keep_alive: 0, close: 0, http2: 0, websockets: 0, users: 1, think, method: "GET", query: "", patience }
    }
}

impl Plan {
    /// Some of everything.
    pub fn mixed() -> Plan {
        Plan { keep_alive: 4, close: 4, http2: 2, websockets: 5, ..Plan::default() }
    }
}

/// What went wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No connection.
    Refused,
    /// A new connection ended before the first byte of an answer.
    Unanswered,
    /// A kept connection did: "reused connection reset, 0 bytes". The server had closed it while it was idle, or at that moment.
    ReusedReset,
    /// The answer began and did not end.
    CutAnswer,
    /// No whole answer in the plan's patience.
    Silent,
    /// Bytes that are no answer, or a page that is not the application's.
    Garbage,
    /// Another status than 2xx.
    Status(u16),
    /// The session counts otherwise than its requests: one was done twice, or not at all.
    WrongValue,
    /// A user with a session got a new one.
    NewSession,
    /// The session is known on another backend.
    Moved,
    /// A WebSocket ended without being asked to.
    TunnelCut,
    /// A WebSocket was not opened.
    TunnelRefused,
}

/// One failure.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What went wrong.
    pub kind: Kind,
    /// The request and the kind of its connection.
    pub request: String,
    /// When it was noticed, since the start of the load.
    pub at: Duration,
    /// Expectation and reality, or the first bytes that came.
    pub seen: String,
}

/// What became of everything that was sent.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests, openings of WebSockets included.
    pub sent: u64,
    /// Those answered with 2xx and the right page.
    pub answered: u64,
    /// In the order they were noticed.
    pub failures: Vec<Failure>,
    /// Of an answer, with its request and when it came.
    pub longest: (Duration, String, Duration),
    /// WebSockets that were opened.
    pub tunnels: u64,
    /// Messages that came back through them.
    pub echoes: u64,
    /// HTTP/2 streams that the server said it never looked at; they were sent again on a new connection.
    pub untouched_streams: u64,
}

/// The running load. Stops with its drop too, unheard.
pub struct Fate {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    plan: Plan,
    ports: RwLock<Vec<u16>>,
    began: Instant,
    over: AtomicBool,
    report: Mutex<Report>,
}

impl Fate {
    /// Begins against a port of loopback.
    pub fn start(port: u16, plan: Plan) -> Fate {
        Fate::across(&[port], plan)
    }

    /// Begins against several ports: each user goes to the next one with each request.
    pub fn across(ports: &[u16], plan: Plan) -> Fate {
        let shared = Arc::new(Shared {
            plan,
            ports: RwLock::new(ports.to_vec()),
            began: Instant::now(),
            over: AtomicBool::new(false),
            report: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(run(own));
        });
        Fate { shared, thread: Some(thread) }
    }

    /// From now on requests go to these ports, and kept connections to others are closed; requests under way are not disturbed.
    pub fn move_to(&self, ports: &[u16]) {
        *self.shared.ports.write().unwrap() = ports.to_vec();
    }

    /// What happened so far.
    pub fn so_far(&self) -> Report {
        self.shared.report.lock().unwrap().clone()
    }

    /// Waits until so many more requests were answered; fails when that takes longer than a minute.
    pub fn go_on_for(&self, answers: u64) {
        let count = || self.shared.report.lock().unwrap().answered;
        let goal = count() + answers;
        wait_for(&format!("{answers} more answers, of {}", self.so_far()), Duration::from_secs(60), || count() >= goal);
    }

    /// Lets what is under way come to its end, and reports.
    pub fn stop(mut self) -> Report {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the load itself failed");
        }
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        self.end();
    }
}

async fn run(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let plan = &shared.plan;
    for _ in 0..plan.keep_alive {
        tasks.spawn(http1::run(Arc::clone(&shared), true));
    }
    for _ in 0..plan.close {
        tasks.spawn(http1::run(Arc::clone(&shared), false));
    }
    for _ in 0..plan.http2 {
        tasks.spawn(http2::run(Arc::clone(&shared)));
    }
    for _ in 0..plan.websockets {
        tasks.spawn(tunnel::run(Arc::clone(&shared)));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a task of the load ends by itself");
    }
}

/// How one request went, before its user has looked at it.
enum Outcome {
    /// Status, `Set-Cookie` values, body.
    Answered(u16, Vec<String>, String),
    /// With the bytes that came, or the error.
    Failed(Kind, String),
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The port of a task's n-th turn: each user alternates, whatever the numbers of users and ports.
    fn port(&self, turn: usize) -> u16 {
        let ports = self.ports.read().unwrap();
        ports[(turn % self.plan.users + turn / self.plan.users) % ports.len()]
    }

    fn goes_to(&self, port: u16) -> bool {
        self.ports.read().unwrap().contains(&port)
    }

    /// A target that no other request has, of any load.
    fn target(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        format!("/page?fate={}{}", NEXT.fetch_add(1, Ordering::Relaxed), self.plan.query)
    }

    /// Lets the user judge and notes the fate.
    fn note(&self, request: String, begun: Instant, user: &mut User, outcome: Outcome) {
        let wrong = user.judge(&request, outcome);
        let mut report = self.report.lock().unwrap();
        report.sent += 1;
        if begun.elapsed() > report.longest.0 {
            report.longest = (begun.elapsed(), request.clone(), self.began.elapsed());
        }
        match wrong {
            None => report.answered += 1,
            Some((kind, seen)) => report.failures.push(Failure { kind, request, at: self.began.elapsed(), seen }),
        }
    }

    async fn think(&self) {
        tokio::time::sleep(self.plan.think).await;
    }
}

impl Report {
    /// Failures of a kind that `which` picks.
    pub fn count(&self, which: impl Fn(Kind) -> bool) -> usize {
        self.failures.iter().filter(|failure| which(failure.kind)).count()
    }

    /// Panics with the failures, if there is one. A load that sent nothing proves nothing and fails too.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.failures.is_empty(), "{self}");
        assert!(self.answered > 0 || self.echoes > 0, "nothing was sent: {self}");
    }

    /// The numbers (`fate=` in the query) of requests that arrived more than once at these applications.
    pub fn duplicates(&self, origins: &[&Origin]) -> Vec<String> {
        let mut seen = HashSet::new();
        let requests = origins.iter().flat_map(|origin| origin.requests());
        let numbers = requests.filter_map(|request| query_value(request.head.word(1), "fate").map(str::to_owned));
        numbers.filter(|number| !seen.insert(number.clone())).collect()
    }
}

/// The figures in one line, then the failures.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { sent, answered, failures, longest, tunnels, echoes, untouched_streams } = self;
        write!(f, "{sent} sent, {answered} answered, {} failed", failures.len())?;
        write!(f, "; longest {:?} ({} at {:?})", longest.0, longest.1, longest.2)?;
        write!(f, "; {tunnels} WebSockets with {echoes} echoes, {untouched_streams} streams sent again")?;
        let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
        for failure in failures {
            *kinds.entry(failure.kind).or_default() += 1;
        }
        for (kind, count) in kinds {
            write!(f, "\n{count} x {kind:?}")?;
        }
        for Failure { kind, request, at, seen } in failures.iter().take(SHOWN) {
            write!(f, "\n  {at:?}: {kind:?}: {request}: {seen}")?;
        }
        Ok(())
    }
}
