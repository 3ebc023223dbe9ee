//! A running tidegate: from a checked configuration to open listeners, and back to nothing.
//!
//! The order at the start matters: everything that can fail comes before the first client is accepted, and one round of
//! probes comes before the listeners open, so that nobody meets a backend that was never looked at.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use pingora_timeout::fast_timeout::set_fast_timeout_to_tokio_threshold;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::access_log::{AccessLog, AccessLogError};
use super::clock::Clock;
use super::control::Control;
use super::exchange::{Gateway, TrustedProxies};
use super::keeping::Keeping;
use super::operator::{Operator, OperatorError, Parts};
use super::past::Past;
use super::probe::Prober;
use super::reload::{AppliedFile, Reloader, watch};
use super::remembered::{AppliedText, Scribe};
use super::secrets::SecretError;
use super::state::StateError;
use super::transport::{self, BoundListener, Lines, ListenError, ListenerSpec, Stop, StopTimes, Stopped, TlsSpec, TransportOptions};
use super::upgrade::{Predecessor, Program, Progress, Succession};
use super::webhook;
use crate::config::Config;
use crate::model::change::Refused;

/// Turn of the controller: a session's end shows within this time, and a drain's verdict within two of them.
const TICK: Duration = Duration::from_millis(100);

/// Idle connections to backends that are kept, all backends together.
const POOL: usize = 4096;

/// Total attempts of one exchange; what is worth an attempt is decided in `exchange::peer`.
const ATTEMPTS: usize = 256;

/// Why tidegate cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// State directory or keys.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Admin address or token.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// Access log.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file was edited, and what is remembered speaks against it.
    #[error("{}", edited(.0))]
    Edited(Vec<Refused>),
    /// The process that was to be replaced.
    #[error("the process before: {0}")]
    Succession(#[source] io::Error),
    /// A runtime.
    #[error("cannot start worker threads: {0}")]
    Runtime(#[source] io::Error),
}

fn edited(refused: &[Refused]) -> String {
    let lines: Vec<String> = refused.iter().map(|refused| format!("  {}; {}\n", refused.what, refused.remedy)).collect();
    format!(
        "the file was edited since it was applied last, and that would lose sessions:\n{}drain first, or reload it \
         with --force, and upgrade then",
        lines.concat()
    )
}

/// A running tidegate.
pub struct Server {
    control: Arc<Control>,
    stop: Stop,
    ready: Arc<AtomicBool>,
    access_log: Option<AccessLog>,
    /// Exchanges, those that wait for a backend included.
    under_way: Arc<AtomicUsize>,
    addresses: Vec<SocketAddr>,
    keeping: Arc<Keeping>,
    predecessor: Arc<OnceLock<Predecessor>>,
    replaced: Arc<Notify>,
    operator: Operator,
    reloader: Arc<Reloader>,
    /// Dropped last: its threads carry all of the above.
    workers: Runtime,
}

/// Where a process comes from.
#[derive(Default)]
pub struct Origin {
    /// Another process that is to be replaced; `None` goes on from the state directory.
    pub succession: Option<Succession>,
    /// What an upgrade starts; `None` where there is nothing to start.
    pub program: Option<Program>,
    /// Apply the file also where that loses sessions that are remembered.
    pub force: bool,
}

impl Server {
    /// Starts everything, and returns once clients are accepted.
    ///
    /// # Errors
    /// [`StartError`], naming what cannot be had; then nothing is left running, and a process that was to be replaced serves on.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        Server::start_from(AppliedFile { config: config.clone(), ..AppliedFile::default() }, Origin::default())
    }

    /// As [`Server::start`], from a file that can be reloaded.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_from(file: AppliedFile, origin: Origin) -> Result<Server, StartError> {
        let Origin { mut succession, program, force } = origin;
        let started = Server::begin(file, &mut succession, program, force);
        if let (Err(error), Some(succession)) = (&started, &mut succession) {
            succession.refuse(&error.to_string());
        }
        started
    }

    fn begin(file: AppliedFile, succession: &mut Option<Succession>, program: Option<Program>, force: bool) -> Result<Server, StartError> {
        let config = &file.config;
        if let Some(before) = succession.as_ref() {
            before.same_directory(&config.state.directory).map_err(StartError::Succession)?;
        }
        let clock = succession.as_ref().map_or_else(Clock::start, |before| Clock::with_origin(before.clock_origin()));
        let mut past = Past::find(config, succession.as_ref(), clock.now())?;
        let access_log = config.server.access_log.as_ref().map(AccessLog::open).transpose()?;
        let listeners = bind(config, succession.as_mut())?;
        let addresses = listeners.iter().map(BoundListener::address).collect();
        let workers = Builder::new_multi_thread().worker_threads(config.server.threads.max(1)).thread_name("worker").enable_all().build();
        let workers = workers.map_err(StartError::Runtime)?;
        let control = Arc::new(Control::new(clock));
        past.recall(&file, &control, succession.as_mut(), force)?;
        let remembered = {
            let control = Arc::clone(&control);
            move || {
                let applied = control.reloads.applied();
                let path = applied.path.as_ref()?.display().to_string();
                Some(AppliedText { path, text: applied.text.clone(), at: applied.at })
            }
        };
        let keeping = Arc::new(Keeping::new(Arc::clone(&control), Scribe::new(Arc::clone(&control), remembered)));
        let trusted = TrustedProxies::new(config.trusted_proxies.clone());
        let directory = config.state.directory.clone();
        let reloader = Arc::new(Reloader::new(Arc::clone(&control), directory, trusted.clone(), access_log.clone()));
        let stop = Stop::new();
        let ready = Arc::new(AtomicBool::new(false));
        let predecessor: Arc<OnceLock<Predecessor>> = Arc::default();
        let replaced = Arc::new(Notify::new());
        let operator = {
            let (predecessor, replaced, kept) = (Arc::clone(&predecessor), Arc::clone(&replaced), Arc::clone(&keeping));
            let parts = Parts {
                reloader: Arc::clone(&reloader),
                ready: Arc::clone(&ready),
                inherited: succession.as_mut().and_then(|before| before.admin(&config.admin.address.to_string())),
                paused: succession.is_some(),
                flush: Box::new(move || kept.flush()),
                upgrade: Box::new(move || upgrade(&predecessor, &replaced)),
            };
            Operator::start(config, parts)?
        };
        let prober = {
            let _within = workers.enter();
            Prober::start(Arc::clone(&control))
        };
        workers.block_on(prober.first_round());
        let connectors = prober.connectors();
        let lines = Lines::new(config.server.threads);
        workers.spawn(Arc::clone(&lines).sweep());
        let gateway = Gateway::new(Arc::clone(&control), prober, trusted, stop.clone(), lines, access_log.clone());
        let under_way = Arc::clone(&gateway.under_way);
        // Pingora keeps its own timers in a tree until they are due, cancelled or not: with a timeout of a minute on every request
        // that is thousands of entries, and searching them costs more than tokio's wheel.
        set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
        let conf = ServerConf {
            threads: config.server.threads.max(1),
            upstream_keepalive_pool_size: POOL,
            max_retries: ATTEMPTS,
            ..ServerConf::default()
        };
        let proxy = Arc::new(http_proxy(&Arc::new(conf), gateway));
        let options = TransportOptions { header_timeout: config.server.header_timeout, ..TransportOptions::default() };
        // The last thing that can fail. A process that is to be replaced has written everything by then, and writes no more.
        let file = past.file(config, succession.as_mut(), clock.now())?;
        keeping.begin(file, false).map_err(StartError::Runtime)?;
        if let Some(before) = succession.as_mut() {
            before.link(&control, &keeping).map_err(StartError::Succession)?;
        }
        let opened = transport::serve(workers.handle(), listeners, proxy, options, stop.clone());
        let listeners = opened.map_err(StartError::Runtime)?;
        control.reloads.set_listeners(listeners.clone());
        if let Some(before) = succession.take() {
            before.serving(&control, &config.admin.address.to_string());
        }
        if let Some(program) = program {
            let (door, directory) = (Arc::clone(operator.door()), config.state.directory.clone());
            let (control, keeping, stop) = (Arc::clone(&control), Arc::clone(&keeping), stop.clone());
            let progress = Progress::default();
            drop(predecessor.set(Predecessor { control, keeping, listeners, door, directory, stop, program, progress }));
        }
        watch::start(Arc::clone(&reloader));
        // Not on a worker: a turn that ends ten thousand sessions must not hold up the users of that worker.
        operator.spawn(turns(Arc::clone(&control)));
        operator.spawn(webhook::run(Arc::clone(&control), config.state.directory.clone(), connectors));
        ready.store(true, Ordering::Release);
        // Not before: whoever asks this process whether it is ready must not be told no when the one before was.
        operator.door().open();
        Ok(Server { control, stop, ready, access_log, under_way, addresses, keeping, predecessor, replaced, operator, reloader, workers })
    }

    /// Replaces this process by another one, and blocks until that serves or has failed; then [`Server::replaced`] says so too.
    pub fn upgrade(&self) -> impl FnOnce() + Send + 'static {
        let (predecessor, replaced) = (Arc::clone(&self.predecessor), Arc::clone(&self.replaced));
        // What became of it is in the log.
        move || drop(upgrade(&predecessor, &replaced))
    }

    /// Resolves once another process serves in place of this one, which is to be stopped then.
    pub async fn replaced(&self) {
        self.replaced.notified().await;
    }

    /// Where clients connect, in the order of the configuration; port 0 is replaced by the real one.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where operators connect.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The one door for changes.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Applies the configuration file.
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Reopens log files, after they were moved away.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
    }

    /// Says that it is not ready, accepts on for the lame duck's time, lets exchanges under way finish, and ends as soon as none is
    /// left or the grace period is over. The operator's address answers until then.
    pub fn stop(self) -> Stopped {
        self.ready.store(false, Ordering::Release);
        self.operator.announce_stop();
        if let Some(predecessor) = self.predecessor.get() {
            predecessor.abandon();
        }
        let successor = self.predecessor.get().filter(|predecessor| predecessor.handed_over());
        let server = &self.control.reloads.applied().config.server;
        let mut times = StopTimes { grace_period: server.grace_period, lame_duck: server.lame_duck, ..StopTimes::default() };
        if successor.is_some() {
            // Another process is asked already, and clients are accepted there.
            self.operator.hang_up();
            times.lame_duck = Duration::ZERO;
        }
        let under_way = Arc::clone(&self.under_way);
        let exchanges = move || under_way.load(Ordering::Acquire);
        let stopped = self.workers.block_on(self.stop.run(times, exchanges));
        self.workers.shutdown_background();
        if let Some(successor) = successor {
            successor.farewell();
        }
        // No order after the last flush: one that was confirmed would be lost.
        self.operator.stop();
        self.keeping.end_in_order();
        // Now nothing changes any more. Whatever is written behind the exchanges' backs is flushed here.
        if let Some(log) = self.access_log {
            log.flush();
        }
        stopped
    }
}

/// The controller's turns. A blocked worker must not make it hurry afterwards: what counts is the present.
async fn turns(control: Arc<Control>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        control.tick();
    }
}

fn upgrade(predecessor: &OnceLock<Predecessor>, replaced: &Notify) -> Result<u32, String> {
    let predecessor = predecessor.get().ok_or_else(|| "this process does not serve yet; try again in a moment".to_owned())?;
    let pid = predecessor.upgrade().map_err(|error| error.to_string())?;
    replaced.notify_one();
    Ok(pid)
}

fn bind(config: &Config, mut succession: Option<&mut Succession>) -> Result<Vec<BoundListener>, ListenError> {
    let bind = |listener: &crate::config::Listener| {
        let tls = listener.tls.as_ref().map(|tls| TlsSpec {
            certificates: tls
                .certificates
                .iter()
                .map(|c| (c.certificate.clone(), c.key.clone()))
                .collect::<Vec<(PathBuf, Option<PathBuf>)>>(),
        });
        let spec = ListenerSpec { address: listener.address, tls };
        match succession.as_mut().and_then(|before| before.listener(listener.address)) {
            Some(socket) => BoundListener::adopt(&spec, socket.into()),
            None => BoundListener::bind(&spec),
        }
    };
    config.listeners.iter().map(bind).collect()
}
