//! The deploy, as an operator would do it: stage, wait for passing probes, promote, wait for the drain, switch the old release off.
//!
//! Every step goes through the same door as the commands ([`Control::apply`]); the demo knows no short cut.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::app::{self, RunningApp};
use super::config::{APP, release};
use super::pace::Pace;
use super::releases::{NEW, NEW_BACKENDS, OLD};
use super::scene::{Act, Scene};
use super::users::Crowd;
use crate::model::admission::Health;
use crate::model::change::{Change, Refused};
use crate::model::drain::DrainState;
use crate::model::event::Owner;
use crate::serve::control::{Control, DrainOrder};

/// How often the story looks whether it may go on.
const LOOK: Duration = Duration::from_millis(50);
/// Probes of a loopback app pass at once; later than this something is broken.
const LONGEST_PROBING: Duration = Duration::from_secs(20);

/// Why the deploy could not be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stuck {
    /// The new release's backends.
    #[error("the new release cannot be started: {0}")]
    App(#[from] io::Error),
    /// A step.
    #[error("{what}; {remedy}", what = .0.what, remedy = .0.remedy)]
    Refused(Refused),
    /// Probing.
    #[error("the new release's probes do not pass")]
    NeverUp,
    /// A promotion without a drain.
    #[error("nothing drains")]
    NoDrain,
}

impl From<Refused> for Stuck {
    fn from(refused: Refused) -> Stuck {
        Stuck::Refused(refused)
    }
}

/// A deploy that can be watched.
pub(super) struct Story {
    control: Arc<Control>,
    crowd: Arc<Crowd>,
    pace: Arc<Pace>,
    started: Instant,
    act: Mutex<Act>,
    drained: OnceLock<bool>,
}

impl Story {
    /// Begins now.
    pub fn new(control: Arc<Control>, crowd: Arc<Crowd>, pace: Arc<Pace>) -> Story {
        Story { control, crowd, pace, started: Instant::now(), act: Mutex::default(), drained: OnceLock::new() }
    }

    /// What there is to see.
    pub fn scene(&self) -> Scene {
        Scene::of(&self.control, APP, self.started.elapsed(), self.act(), self.crowd.census())
    }

    /// Whether the drain finished with nobody disturbed; false for as long as that is not known.
    pub fn good(&self) -> bool {
        self.drained.get().copied().unwrap_or(false) && self.crowd.census().disturbed == 0
    }

    /// Tells it to the end. `old` is the running old release; it is switched off at the end unless `keep`.
    ///
    /// # Errors
    /// [`Stuck`]: the deploy could not be done. A drain that did not finish is no error, only no success.
    pub async fn tell(&self, old: Vec<RunningApp>, keep: Keep) -> Result<Told, Stuck> {
        sleep(self.pace.warm_up).await;
        let new = start(NEW, NEW_BACKENDS, self.pace.idle_timeout).await?;
        self.stage(&new)?;
        self.set(Act::Staged);
        sleep(self.pace.staged).await;
        timeout(LONGEST_PROBING, self.all_up()).await.map_err(|_| Stuck::NeverUp)?;
        let drain = self.promote()?;
        self.set(Act::Draining);
        let drained = timeout(self.pace.longest_drain, self.ended(drain)).await.is_ok_and(|state| state == DrainState::Drained);
        let mut running = new;
        match keep {
            _ if !drained => running.extend(old),
            Keep::BothReleases => {
                self.set(Act::Drained);
                running.extend(old);
            }
            Keep::Nothing => {
                self.set(Act::Drained);
                // Long enough to be read.
                sleep(self.pace.aftermath / 4).await;
                drop(old);
                self.set(Act::SwitchedOff);
                sleep(self.pace.aftermath).await;
            }
        }
        self.drained.get_or_init(|| drained);
        Ok(Told { _running: running })
    }

    fn stage(&self, new: &[RunningApp]) -> Result<(), Refused> {
        let addresses: Vec<_> = new.iter().map(RunningApp::address).collect();
        let change = Change::Stage { app: APP.to_owned(), release: release(NEW, &NEW_BACKENDS, &addresses) };
        self.control.apply(&change, Owner::Operator, DrainOrder::default()).map(drop)
    }

    async fn all_up(&self) {
        let up = || {
            let view = self.control.view();
            let staged = view.app(APP).and_then(|app| app.release(NEW));
            staged.is_some_and(|release| release.backends.iter().all(|backend| backend.live.gate.read().health == Health::Up))
        };
        while !up() {
            sleep(LOOK).await;
        }
    }

    fn promote(&self) -> Result<u64, Stuck> {
        let change = Change::Promote { app: APP.to_owned(), release: NEW.to_owned(), from: Some(OLD.to_owned()), force: false };
        let drains = self.control.apply(&change, Owner::Operator, DrainOrder::default())?;
        // After the promotion is published: whoever comes from now on can only be sent to the new release.
        self.crowd.deployed();
        drains.first().copied().ok_or(Stuck::NoDrain)
    }

    /// Waits for a drain's verdict.
    async fn ended(&self, id: u64) -> DrainState {
        loop {
            match self.control.drain(id) {
                Some(drain) if drain.state.runs() => sleep(LOOK).await,
                Some(drain) => return drain.state,
                // Forgotten drains have ended long ago; nobody can say how.
                None => return DrainState::Superseded,
            }
        }
    }

    fn act(&self) -> Act {
        *self.act.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, act: Act) {
        *self.act.lock().unwrap_or_else(PoisonError::into_inner) = act;
    }
}

/// What goes on after the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It is over.
    Nothing,
    /// Both releases run on, so that a rollback can be tried.
    BothReleases,
}

/// A story that was told; holds what still runs.
pub(super) struct Told {
    _running: Vec<RunningApp>,
}

/// Starts the backends of a release.
///
/// # Errors
/// No port can be had.
pub(super) async fn start(release: &'static str, backends: [&'static str; 2], idle_timeout: Duration) -> io::Result<Vec<RunningApp>> {
    let mut apps = Vec::with_capacity(backends.len());
    for backend in backends {
        apps.push(app::start(release, backend, idle_timeout).await?);
    }
    Ok(apps)
}
