//! A running tidegate: from a checked configuration to open listeners, and back to nothing.
//!
//! The order at the start matters: everything that can fail comes before the first client is accepted, and one round of
//! probes comes before the listeners open, so that nobody meets a backend that was never looked at.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use pingora_timeout::fast_timeout::set_fast_timeout_to_tokio_threshold;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{MissedTickBehavior, interval};

use super::access_log::{AccessLog, AccessLogError};
use super::clock::Clock;
use super::control::{Control, DrainOrder};
use super::exchange::{Gateway, TrustedProxies};
use super::operator::{Operator, OperatorError};
use super::probe::Prober;
use super::reload::{AppliedFile, Reloader, load_apps, watch};
use super::secrets::{self, SecretError};
use super::transport::{self, BoundListener, ListenError, ListenerSpec, Stop, StopTimes, Stopped, TlsSpec, TransportOptions};
use super::webhook;
use crate::config::Config;
use crate::model::change::Change;
use crate::model::event::Owner;

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
    /// A runtime.
    #[error("cannot start worker threads: {0}")]
    Runtime(#[source] io::Error),
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
    operator: Operator,
    reloader: Arc<Reloader>,
    /// Dropped last: its threads carry all of the above.
    workers: Runtime,
}

impl Server {
    /// Starts everything, and returns once clients are accepted.
    ///
    /// # Errors
    /// [`StartError`], naming what cannot be had; then nothing is left running.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        Server::start_from(AppliedFile { config: config.clone(), ..AppliedFile::default() })
    }

    /// As [`Server::start`], from a file that can be reloaded.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_from(file: AppliedFile) -> Result<Server, StartError> {
        let config = &file.config;
        secrets::make_directory(&config.state.directory)?;
        let access_log = config.server.access_log.as_ref().map(AccessLog::open).transpose()?;
        let listeners = bind(config)?;
        let addresses = listeners.iter().map(BoundListener::address).collect();
        let workers = Builder::new_multi_thread().worker_threads(config.server.threads.max(1)).thread_name("worker").enable_all().build();
        let workers = workers.map_err(StartError::Runtime)?;
        let clock = Clock::start();
        let control = Arc::new(Control::new(clock));
        let load = Change::Load(load_apps(&config.state.directory, &config.apps)?);
        if let Err(refused) = control.apply(&load, Owner::Config, DrainOrder::default()) {
            // Checked configurations load; a refusal here is a bug, and starting with no app would hide it.
            return Err(StartError::Runtime(io::Error::other(refused.what)));
        }
        if !control.drains().is_empty() {
            log::warn!("nothing is remembered of an earlier run: releases that are not current drain, since their users may come back");
        }
        control.reloads.set_applied(AppliedFile { at: control.now(), ..file.clone() });
        let trusted = TrustedProxies::new(config.trusted_proxies.clone());
        let directory = config.state.directory.clone();
        let reloader = Arc::new(Reloader::new(Arc::clone(&control), directory, trusted.clone(), access_log.clone()));
        let stop = Stop::new();
        let ready = Arc::new(AtomicBool::new(false));
        let operator = Operator::start(config, Arc::clone(&reloader), Arc::clone(&ready))?;
        let prober = {
            let _within = workers.enter();
            Prober::start(Arc::clone(&control))
        };
        workers.block_on(prober.first_round());
        let connectors = prober.connectors();
        let gateway = Gateway::new(Arc::clone(&control), prober, trusted, stop.clone(), access_log.clone());
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
        let opened = transport::serve(workers.handle(), listeners, proxy, options, stop.clone());
        control.reloads.set_listeners(opened.map_err(StartError::Runtime)?);
        watch::start(Arc::clone(&reloader));
        // Not on a worker: a turn that ends ten thousand sessions must not hold up the users of that worker.
        operator.spawn(turns(Arc::clone(&control)));
        operator.spawn(webhook::run(Arc::clone(&control), config.state.directory.clone(), connectors));
        ready.store(true, Ordering::Release);
        Ok(Server { control, stop, ready, access_log, under_way, addresses, operator, reloader, workers })
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

    /// Stops accepting, lets exchanges under way finish, and ends as soon as none is left or the grace period is over.
    pub fn stop(self) -> Stopped {
        self.ready.store(false, Ordering::Release);
        let under_way = Arc::clone(&self.under_way);
        let exchanges = move || under_way.load(Ordering::Acquire);
        let times = StopTimes { grace_period: self.control.reloads.applied().config.server.grace_period, ..StopTimes::default() };
        let stopped = self.workers.block_on(self.stop.run(times, exchanges));
        self.operator.stop();
        self.workers.shutdown_background();
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

fn bind(config: &Config) -> Result<Vec<BoundListener>, ListenError> {
    let spec = |listener: &crate::config::Listener| ListenerSpec {
        address: listener.address,
        tls: listener.tls.as_ref().map(|tls| TlsSpec {
            certificates: tls
                .certificates
                .iter()
                .map(|c| (c.certificate.clone(), c.key.clone()))
                .collect::<Vec<(PathBuf, Option<PathBuf>)>>(),
        }),
    };
    config.listeners.iter().map(|listener| BoundListener::bind(&spec(listener))).collect()
}
