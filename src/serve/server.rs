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
use super::secrets::{self, SecretError};
use super::transport::{self, BoundListener, ListenError, ListenerSpec, Stop, StopTimes, Stopped, TlsSpec, TransportOptions};
use super::webhook;
use crate::config::Config;
use crate::model::change::{Change, NewApp};
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
    stop_times: StopTimes,
    /// Dropped last: its threads carry all of the above.
    workers: Runtime,
}

impl Server {
    /// Starts everything, and returns once clients are accepted.
    ///
    /// # Errors
    /// [`StartError`], naming what cannot be had; then nothing is left running.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        secrets::make_directory(&config.state.directory)?;
        let access_log = config.server.access_log.as_ref().map(AccessLog::open).transpose()?;
        let listeners = bind(config)?;
        let addresses = listeners.iter().map(BoundListener::address).collect();
        let workers = Builder::new_multi_thread().worker_threads(config.server.threads.max(1)).thread_name("worker").enable_all().build();
        let workers = workers.map_err(StartError::Runtime)?;
        let clock = Clock::start();
        let control = Arc::new(Control::new(clock));
        let load = Change::Load(load_apps(config)?);
        if let Err(refused) = control.apply(&load, Owner::Config, DrainOrder::default()) {
            // Checked configurations load; a refusal here is a bug, and starting with no app would hide it.
            return Err(StartError::Runtime(io::Error::other(refused.what)));
        }
        if !control.drains().is_empty() {
            log::warn!("nothing is remembered of an earlier run: releases that are not current drain, since their users may come back");
        }
        let stop = Stop::new();
        let ready = Arc::new(AtomicBool::new(false));
        let operator = Operator::start(config, Arc::clone(&control), Arc::clone(&ready), None)?;
        let prober = {
            let _within = workers.enter();
            Prober::start(Arc::clone(&control))
        };
        workers.block_on(prober.first_round());
        let connectors = prober.connectors();
        let trusted = TrustedProxies(config.trusted_proxies.clone());
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
        opened.map_err(StartError::Runtime)?;
        // Not on a worker: a turn that ends ten thousand sessions must not hold up the users of that worker.
        operator.spawn(turns(Arc::clone(&control)));
        operator.spawn(webhook::run(Arc::clone(&control), config.state.directory.clone(), connectors));
        ready.store(true, Ordering::Release);
        let (grace_period, lame_duck) = (config.server.grace_period, config.server.lame_duck);
        let stop_times = StopTimes { grace_period, lame_duck, ..StopTimes::default() };
        Ok(Server { control, stop, ready, access_log, under_way, addresses, operator, stop_times, workers })
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
        let under_way = Arc::clone(&self.under_way);
        let exchanges = move || under_way.load(Ordering::Acquire);
        let stopped = self.workers.block_on(self.stop.run(self.stop_times, exchanges));
        self.workers.shutdown_background();
        // No order after the last flush: one that was confirmed would be lost.
        self.operator.stop();
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

fn load_apps(config: &Config) -> Result<Vec<NewApp>, SecretError> {
    let load = |spec: &crate::model::settings::AppSpec| {
        let (keyring, hash) = secrets::of_app(&config.state.directory, spec)?;
        // Made now, so that whoever is to check signatures finds it.
        secrets::make_webhook_key(&config.state.directory, &spec.name, &spec.settings.drain)?;
        Ok(NewApp { spec: spec.clone(), keyring, hash, memory: None })
    };
    config.apps.iter().map(load).collect()
}
