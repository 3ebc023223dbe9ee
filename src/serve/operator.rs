//! Opens the operator's address on threads of its own: a busy proxy can still be asked how it is.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::admin::{self, Access, Admin, AdminListener, Flush, Token, Upgrade};
use super::control::Control;
use super::exchange::explain;
use super::reload::Reloader;
use crate::api::{ExplainReport, PACKAGED_TOKEN};
use crate::config::{AdminAddress, Config, export};
use crate::model::reason::Reason;
use crate::model::view::App;

/// Why the operator's address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The token file.
    #[error("token file {path}: {source}; make it readable for this user, or set admin.token_file")]
    Token {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address, or a public one without a token.
    #[error("{0}")]
    Address(#[from] io::Error),
}

/// The operator's address, served.
pub struct Operator {
    /// Where; `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// The file that holds the token.
    pub token_file: PathBuf,
    stopping: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    door: Arc<Door>,
    served: JoinHandle<()>,
    threads: Runtime,
}

/// What is served there, and how it begins.
pub struct Parts {
    /// The file, and through it the one door for changes.
    pub reloader: Arc<Reloader>,
    /// Whether clients are accepted.
    pub ready: Arc<AtomicBool>,
    /// Of a process before, at the same address.
    pub inherited: Option<OwnedFd>,
    /// Nobody is accepted until [`Door::pause`] says so.
    pub paused: bool,
    /// Writes down what was ordered.
    pub flush: Box<Flush>,
    /// Replaces this process.
    pub upgrade: Box<Upgrade>,
}

/// The operator's address, as far as another process may take it over.
pub struct Door {
    asked: String,
    socket: OwnedFd,
    paused: watch::Sender<bool>,
    left: Arc<AtomicBool>,
}

impl Door {
    /// As configured.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// Its listening socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether nobody is accepted at present, since another process may be about to answer here.
    pub fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Another process answers here from now on: the file of a Unix socket is its.
    pub fn leave_to_successor(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// This process answers here from now on, and takes the file of a Unix socket with it.
    pub fn open(&self) {
        self.left.store(false, Ordering::Release);
        self.pause(false);
    }
}

impl Operator {
    /// Opens and serves the admin address of `config`, or takes it over; paused, it serves from [`Door::pause`] on.
    ///
    /// # Errors
    /// [`OperatorError`], naming the file or address.
    pub fn start(config: &Config, parts: Parts) -> Result<Operator, OperatorError> {
        let Parts { reloader, ready, inherited, paused, flush, upgrade } = parts;
        let token_file = config.admin.token_file.clone();
        let token_file = token_file.unwrap_or_else(|| usual_token_file(&config.state.directory, Path::new(PACKAGED_TOKEN)));
        let token = Token::read_or_make(&token_file).map_err(|source| OperatorError::Token { path: token_file.clone(), source })?;
        let access = Access::new(&config.admin.address, Some(token))?;
        let threads = Builder::new_multi_thread().worker_threads(2).thread_name("admin").enable_all().build()?;
        let listener = match inherited {
            Some(socket) => {
                let _within = threads.enter();
                AdminListener::adopt(&config.admin.address, socket)?
            }
            None => threads.block_on(AdminListener::bind(&config.admin.address))?,
        };
        let (socket, left) = (listener.duplicate()?, listener.left_to_successor());
        // A successor first proves that it can serve.
        let (paused, pause) = watch::channel(paused);
        let door = Arc::new(Door { asked: config.admin.address.to_string(), socket, paused, left });
        let address = listener.local_addr();
        let (stop, stopped) = watch::channel(false);
        let stopping = Arc::new(AtomicBool::new(false));
        let control = Arc::clone(reloader.control());
        let explained = Arc::clone(&control);
        let exported = Arc::clone(&control);
        let admin = Admin {
            control,
            reloader,
            ready,
            stopping: Arc::clone(&stopping),
            explain: Box::new(move |app, target, headers| match explained.view().app(app) {
                Some(app) => report(app, target, headers, &explained),
                None => ExplainReport::default(),
            }),
            export: Box::new(move || export(&super::present::present(&exported.reloads.applied().config, &exported.view()))),
            flush,
            upgrade,
            stop: stopped,
            paused: pause,
            sight: Default::default(),
        };
        let served = threads.spawn(async move {
            if let Err(error) = admin::serve(listener, access, Arc::new(admin)).await {
                log::error!("the admin address is no longer served: {error}");
            }
        });
        match &config.admin.address {
            AdminAddress::Tcp(asked) => log::info!("admin address http://{}", address.unwrap_or(*asked)),
            AdminAddress::Unix(path) => log::info!("admin address unix:{}", path.display()),
        }
        Ok(Operator { address, token_file, stopping, stop, door, served, threads })
    }

    /// Runs a task beside it, away from the workers that serve clients.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.threads.spawn(task));
    }

    /// The status document says from now on that the process stops; everything goes on being answered.
    pub fn announce_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// For an upgrade.
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// Answers what was asked, and nobody any more: another process does. Its tasks go on.
    pub fn hang_up(&self) {
        self.stop.send_replace(true);
    }

    /// Ends it; event streams are closed.
    pub fn stop(self) {
        self.stop.send_replace(true);
        // Whoever ordered the upgrade is still to hear what came of it. That is bounded where it is served.
        if self.door.left.load(Ordering::Acquire)
            && let Err(panic) = self.threads.block_on(self.served)
        {
            log::error!("the admin address: {panic}");
        }
        self.threads.shutdown_background();
    }
}

/// The token's file where the configuration names none. Commands try the same two in the same order. One that this process may not
/// read is somebody else's: it makes its own.
fn usual_token_file(state: &Path, packaged: &Path) -> PathBuf {
    let own = state.join("token");
    if !own.exists() && File::open(packaged).is_ok() { packaged.to_owned() } else { own }
}

fn report(app: &App, target: &str, headers: &[(String, String)], control: &Control) -> ExplainReport {
    let found = explain(app, target, headers, control.now());
    let waits = "its backend is down; it waits for failover_wait, and is then decided anew";
    ExplainReport {
        decision: found.decision.to_owned(),
        backend: found.backend,
        reason: found.reason.map_or("wait", Reason::as_str).to_owned(),
        sentence: found.reason.map_or(waits, Reason::sentence).to_owned(),
        pin: found.pin.as_str().to_owned(),
        session: found.session.to_owned(),
        strip: found.strip,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_token_of_its_own_comes_before_that_of_the_package() {
        let folder = std::env::temp_dir().join(format!("tidegate-operator-{}", std::process::id()));
        fs::create_dir_all(folder.join("state")).unwrap();
        let (state, packaged) = (folder.join("state"), folder.join("packaged"));
        assert_eq!(usual_token_file(&state, &packaged), state.join("token"), "neither is there: it is made here");
        fs::write(&packaged, "").unwrap();
        assert_eq!(usual_token_file(&state, &packaged), packaged);
        fs::write(state.join("token"), "").unwrap();
        assert_eq!(usual_token_file(&state, &packaged), state.join("token"));
        fs::remove_dir_all(folder).unwrap();
    }
}
