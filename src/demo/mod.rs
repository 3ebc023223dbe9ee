//! `tidegate demo`: a stateful app in two releases, simulated users, a deploy, live in the terminal.
//!
//! Nothing is staged for the audience: the proxy is the real one, the users talk to it over sockets, and the figures are its own.
//! Everything lives in this process and in one temporary directory; both are gone afterwards.
//!
//! | module | holds |
//! |---|---|
//! | `app`, `page` | the sample app, which knows nothing of tidegate |
//! | `releases` | its two releases |
//! | `browser`, `users` | the simulated users |
//! | `config`, `pace` | what would be in the file, and every duration |
//! | `story` | the deploy, step by step |
//! | `scene`, `screen`, `terminal` | what is seen: facts, lines, ANSI |

mod app;
mod browser;
mod config;
mod directory;
mod pace;
mod page;
mod releases;
mod scene;
mod screen;
mod story;
mod terminal;
mod users;

use std::future::poll_fn;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use self::config::{APP, config, release};
use self::directory::Directory;
use self::pace::Pace;
use self::releases::{OLD, OLD_BACKENDS};
use self::scene::{Scene, Setting};
use self::story::{Keep, Story, Stuck};
use self::terminal::Watch;
use self::users::Crowd;
use crate::serve::control::Control;
use crate::serve::{Server, StartError};

/// Plays the demo; with `keep` it goes on until Ctrl-C. Success means: drained, and nobody was disturbed.
pub fn run(keep: bool) -> ExitCode {
    let keep = if keep { Keep::BothReleases } else { Keep::Nothing };
    match play(Pace::minute(), keep, terminal::stdout) {
        Ok(played) => {
            // Where nobody reads there is nobody to tell.
            screen::summary(&played.last).iter().try_for_each(|line| print_line(line)).unwrap_or_default();
            if played.good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("tidegate demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `println!` panics when the reader of a pipe has gone.
fn print_line(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Proxy(#[from] StartError),
    #[error(transparent)]
    Stuck(#[from] Stuck),
}

/// A demo that was played, or interrupted.
struct Played {
    last: Scene,
    good: bool,
}

fn play(pace: Pace, keep: Keep, watch: impl FnOnce() -> Box<dyn Watch>) -> Result<Played, DemoError> {
    // The order is the order of cleaning up, backwards: the directory goes last.
    let directory = Directory::new()?;
    let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("demo").enable_all().build()?;
    let interruption = {
        let _within = runtime.enter();
        Interruption::new()?
    };
    let old = runtime.block_on(story::start(OLD, OLD_BACKENDS, pace.idle_timeout))?;
    let addresses: Vec<_> = old.iter().map(app::RunningApp::address).collect();
    // Outside of the runtime: the proxy brings its own, and one cannot be started within another.
    let server = Server::start(&config(&pace, release(OLD, &OLD_BACKENDS, &addresses), directory.path()))?;
    let performance = Performance { setting: setting(&server, &pace, keep), pace: Arc::new(pace), keep, watch: watch() };
    let played = match server.addresses().first() {
        Some(&address) => runtime.block_on(performance.perform(Arc::clone(server.control()), address, old, interruption)),
        None => Err(io::Error::from(io::ErrorKind::AddrNotAvailable).into()),
    };
    // People first: whoever is in the middle of a request must not see the proxy go.
    runtime.shutdown_background();
    server.stop();
    played
}

fn setting(server: &Server, pace: &Pace, keep: Keep) -> Setting {
    let url = |address: Option<SocketAddr>| address.map_or_else(String::new, |address| format!("http://{address}/"));
    let operator = server.operator();
    let admin_url = url(operator.address);
    let commands = match keep {
        Keep::Nothing => Vec::new(),
        Keep::BothReleases => vec![
            format!("Ctrl-C ends it. In another terminal: tidegate rollback {APP}"),
            format!("  --admin {} --token-file {}", admin_url.trim_end_matches('/'), operator.token_file.display()),
        ],
    };
    Setting { app_url: url(server.addresses().first().copied()), admin_url, commands, warm_up: pace.warm_up }
}

/// One evening.
struct Performance {
    setting: Setting,
    pace: Arc<Pace>,
    keep: Keep,
    watch: Box<dyn Watch>,
}

impl Performance {
    async fn perform(
        mut self,
        control: Arc<Control>,
        address: SocketAddr,
        old: Vec<app::RunningApp>,
        mut interruption: Interruption,
    ) -> Result<Played, DemoError> {
        let crowd = Arc::new(Crowd::default());
        tokio::spawn(users::arrive(Arc::clone(&crowd), address, Arc::clone(&self.pace)));
        let story = Story::new(control, crowd, Arc::clone(&self.pace));
        let keep = self.keep;
        tokio::select! {
            told = async {
                let told = story.tell(old, keep).await?;
                if keep == Keep::BothReleases {
                    // Until it is interrupted, with both releases running.
                    std::future::pending::<()>().await;
                }
                drop(told);
                Ok::<_, DemoError>(())
            } => told?,
            gone = self.paint(&story) => return Err(gone.into()),
            () = interruption.comes() => {}
        }
        Ok(Played { last: story.scene(), good: story.good() })
    }

    /// Frame after frame, for as long as somebody can see them.
    async fn paint(&mut self, story: &Story) -> io::Error {
        let mut frames = interval(self.pace.frame);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            frames.tick().await;
            if let Err(error) = self.watch.show(&story.scene(), &self.setting) {
                return error;
            }
        }
    }
}

/// What ends the demo early. Without it a signal would leave the directory and a strange screen behind.
struct Interruption {
    signals: Vec<Signal>,
}

impl Interruption {
    fn new() -> io::Result<Interruption> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Interruption { signals: kinds.into_iter().map(signal).collect::<io::Result<_>>()? })
    }

    async fn comes(&mut self) {
        poll_fn(|context| match self.signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

#[cfg(test)]
mod tests;
