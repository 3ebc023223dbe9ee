//! One backend under watch: probes it again and again, hears of connects that failed, and says what became of it.
//!
//! Two sources feed one [`HealthTrack`], the probe's answers and the failures of real traffic; the lock around it is held
//! while a change is published, so that the last word on the track is the last word in the gate.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora_core::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora_load_balancing::Backend as ProbeTarget;
use pingora_load_balancing::health_check::HealthCheck;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::check::{BackendProbe, answer_of, describe};
use super::resolver::Resolver;
use super::witness::Witness;
use crate::model::admission::Health;
use crate::model::backend::{Backend, Live};
use crate::model::balance::mix;
use crate::model::event::Owner;
use crate::model::health::{ConnectFailure, HealthTrack, ProbeAnswer};
use crate::model::incarnation::{Lineage, Proof, Told};
use crate::model::ledger::Ledger;
use crate::model::path_map::PathMap;
use crate::model::routes::under;
use crate::model::settings::{BackendSpec, CountProbe, HealthSettings};
use crate::model::time::Time;
use crate::model::view::App;
use crate::serve::control::Control;
use crate::serve::outbound::Connectors;

/// Between the starts of two probes that failed connects asked for: a storm of errors costs four probes a second.
const EAGER: Duration = Duration::from_millis(250);

/// What is probed, and how.
#[derive(Clone)]
pub struct Subject {
    app: Arc<str>,
    release: Arc<str>,
    slot: u32,
    ledger: Arc<Ledger>,
    pub(super) spec: Arc<BackendSpec>,
    pub(super) health: HealthSettings,
    pub(super) count_probe: Option<CountProbe>,
    pub(super) idle_timeout: Duration,
}

impl Subject {
    pub fn new(app: &App, backend: &Backend) -> Subject {
        Subject {
            app: Arc::clone(&app.name),
            release: Arc::clone(&backend.release),
            slot: backend.slot,
            ledger: Arc::clone(&app.ledger),
            spec: Arc::clone(&backend.spec),
            health: health_of(app, &backend.release),
            count_probe: app.settings.session.count_probe.clone(),
            idle_timeout: app.settings.session.idle_timeout,
        }
    }

    /// As in a TARGET.
    pub(super) fn name(&self) -> String {
        format!("{}/{}/{}", self.app, self.release, self.spec.name)
    }

    /// A weight or a name is no matter of probes: what a probe remembers (cookies, the instance header) outlives such an edit.
    fn probed_alike(&self, other: &Subject) -> bool {
        let way = |subject: &Subject| (subject.spec.address.clone(), subject.spec.tls.clone(), subject.spec.protocol);
        way(self) == way(other) && self.health == other.health
    }
}

/// The app's way of probing, for one release: a path below the app's public one is the release's own, as it is for requests. So
/// two releases on one Tomcat each answer for themselves. Other paths are asked for as they are.
fn health_of(app: &App, release: &str) -> HealthSettings {
    let mut health = app.settings.health.clone();
    let Some(own) = app.release(release).and_then(|release| release.path.as_deref()) else { return health };
    let public = app.matches.iter().map(|m| m.path.as_str()).filter(|public| under(public, &health.path));
    if let Some(public) = public.max_by_key(|public| public.len())
        && let Ok(mapped) = PathMap::new(public, own).to_backend(health.path.as_bytes())
        && let Ok(path) = String::from_utf8(mapped.into_owned())
    {
        health.path = path;
    }
    health
}

/// A backend under watch.
pub struct Watch {
    pub(super) control: Arc<Control>,
    pub(super) live: Arc<Live>,
    subject: Mutex<Subject>,
    track: Mutex<HealthTrack>,
    wake: Notify,
    probed: watch::Sender<bool>,
}

impl Watch {
    /// Goes on from the health that the backend's gate shows; of one not tested yet, from what a process before had found.
    pub fn new(control: Arc<Control>, live: Arc<Live>, subject: Subject) -> Watch {
        let track = Mutex::new(match live.gate.read().health {
            Health::Untested => HealthTrack::recall(live.last_health),
            health => HealthTrack::resume(health),
        });
        Watch { control, live, subject: Mutex::new(subject), track, wake: Notify::new(), probed: watch::Sender::new(false) }
    }

    /// Other settings or another spec: they count from the next probe, which comes at once.
    pub fn update(&self, subject: Subject) {
        let alike = {
            let mut current = lock(&self.subject);
            let alike = current.probed_alike(&subject);
            *current = subject;
            alike
        };
        if !alike {
            self.wake.notify_one();
        }
    }

    /// What is probed, and how, by now.
    pub(super) fn subject(&self) -> Subject {
        lock(&self.subject).clone()
    }

    /// A connect of real traffic failed: refused and unreachable decide at once, anything else asks for a probe.
    pub fn connect_failed(&self, kind: ConnectFailure) {
        self.live.connect_failed();
        self.learn(kind.as_str(), |track| track.real_connect_failure(kind));
        self.wake.notify_one();
    }

    /// Waits for the first probe's answer.
    pub async fn first_answer(&self) {
        let mut probed = self.probed.subscribe();
        drop(probed.wait_for(|probed| *probed).await.expect("the sender lives as long as we do"));
    }

    /// How long one probe may take.
    pub fn timeout(&self) -> Duration {
        lock(&self.subject).health.timeout
    }

    /// Probes until it is dropped.
    pub async fn run(self: Arc<Watch>, connectors: Arc<Connectors>, seed: u64) {
        let mut dice = seed;
        let mut subject = lock(&self.subject).clone();
        let mut probe = BackendProbe::new(Arc::clone(&connectors), Arc::clone(&subject.spec), subject.health.clone());
        let mut resolver = Resolver::default();
        let (mut known, mut witness) = (Lineage::resume(self.live.instance()), Witness::default());
        loop {
            let now = lock(&self.subject).clone();
            if !now.probed_alike(&subject) {
                probe = BackendProbe::new(Arc::clone(&connectors), Arc::clone(&now.spec), now.health.clone());
                // The new settings may name another header: its value proves nothing yet.
                (known, witness) = (Lineage::default(), Witness::default());
            }
            subject = now;
            let started = Instant::now();
            self.probe_once(&subject, &probe, &mut resolver, &mut known, &mut witness).await;
            let first = !self.probed.send_replace(true);
            dice = mix(dice);
            self.rest(started, pause(subject.health.interval, first, dice), &mut witness).await;
        }
    }

    async fn probe_once(
        &self,
        subject: &Subject,
        probe: &BackendProbe,
        resolver: &mut Resolver,
        known: &mut Lineage,
        witness: &mut Witness,
    ) {
        match resolver.address(&subject.spec.address, &self.live).await {
            Ok(address) => {
                let target = ProbeTarget { addr: PeerAddress::Inet(address), weight: 1, ext: http::Extensions::new() };
                let asked = self.control.now();
                let result = probe.check(&target).await;
                // First of all: whoever enters because of this answer must meet a ledger that knows of the restart.
                let mut told = self.compare_lives(subject, known, probe.instance(), asked);
                if result.is_err() {
                    witness.survived = false;
                } else if self.is_down() {
                    // Refused, and yet it was there all the time: a firewall, or a rush that filled its backlog.
                    if let Some(connection) = witness.take() {
                        witness.survived = probe.is_answered(connection, address).await;
                    }
                    told |= witness.survived;
                }
                let words = || describe(&result, subject.health.timeout);
                self.learn_lazily(words, told, |track| track.observe(answer_of(&result), &subject.health));
                if result.is_ok() && !self.is_down() {
                    self.live.lives.worked();
                }
                // Of an absence only a connection from before it can tell.
                if let Some(connection) = probe.take_connection().filter(|_| !self.is_down()) {
                    witness.relieve(connection);
                }
            }
            Err(why) => self.learn(&why, |track| track.observe(ProbeAnswer::Unreachable, &subject.health)),
        }
    }

    /// Whether the answer tells which process gave it, and that is no news any more.
    fn compare_lives(&self, subject: &Subject, known: &mut Lineage, seen: Option<Box<[u8]>>, asked: Time) -> bool {
        let Some(value) = seen else { return false };
        let told = known.hear(value, asked);
        self.live.set_instance(known.last());
        match told {
            Told::Same => return true,
            Told::First => {}
            Told::Several { news } => {
                if news {
                    let header = subject.health.instance_header.as_deref().unwrap_or_default();
                    let what = format!("several processes answer at this address, by {header}: no restart can be told by it");
                    self.control.note(Owner::Health, &subject.name(), what);
                }
                return false;
            }
            Told::Another { before } => {
                let lost = self.live.reborn(Proof::Header, &subject.ledger, subject.slot, before, self.control.now());
                self.control.note(
                    Owner::Health,
                    &subject.name(),
                    format!("restarted, as its instance header proves; {lost} sessions lost"),
                );
                return true;
            }
        }
        self.control.changed();
        false
    }

    /// Until the next probe is due, or a failed connect, a change of settings or the end of the process asks for one.
    async fn rest(&self, started: Instant, pause: Duration, witness: &mut Witness) {
        let due = started + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => return,
                () = self.wake.notified() => break,
                untimely = witness.ended() => if untimely && !self.is_down() {
                    // At once: what the next process answers must meet sessions in doubt.
                    self.live.suspect();
                    self.live.renew_pool();
                    let what = format!("its connections ended: perhaps restarted; {}", self.in_doubt());
                    self.control.note(Owner::Health, &lock(&self.subject).name(), what);
                    break;
                }
            }
        }
        tokio::time::sleep_until(due.min(started + EAGER)).await;
    }

    fn in_doubt(&self) -> String {
        format!("of {} sessions each one's own answer decides", self.live.counts.live())
    }

    fn is_down(&self) -> bool {
        self.live.gate.read().health == Health::Down
    }

    fn learn(&self, words: &str, fact: impl FnOnce(&mut HealthTrack) -> Option<Health>) {
        self.learn_lazily(|| words.to_owned(), false, fact);
    }

    /// Feeds a fact to the track and publishes what it changes; words are made for a change only. `told`: which process is behind
    /// the address is known. Where it is not, one that comes back may have another memory.
    fn learn_lazily(&self, words: impl FnOnce() -> String, told: bool, fact: impl FnOnce(&mut HealthTrack) -> Option<Health>) {
        let mut track = lock(&self.track);
        let Some(health) = fact(&mut track) else { return };
        let suspected = !told && self.is_down();
        if suspected {
            self.live.suspect();
        }
        if let Some(before) = self.live.observe(health, self.control.now()) {
            let name = lock(&self.subject).name();
            let doubt = match suspected && self.live.counts.live() > 0 {
                true => format!("; perhaps restarted: {}", self.in_doubt()),
                false => String::new(),
            };
            self.control.note(Owner::Health, &name, format!("{} -> {}: {}{doubt}", before.as_str(), health.as_str(), words()));
        }
    }
}

/// From the start of a probe to the start of the next: a tenth more or less than the interval, so that backends drift
/// apart. The first pause is any part of it, because the first probes all start together.
fn pause(interval: Duration, first: bool, dice: u64) -> Duration {
    // 53 bits are what an f64 holds.
    let chance = (dice >> 11) as f64 / (1_u64 << 53) as f64;
    interval.mul_f64(if first { 0.1 + 0.9 * chance } else { 0.9 + 0.2 * chance })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_stay_near_the_interval_and_spread() {
        let interval = Duration::from_secs(2);
        let check = |first, least: u64, most: u64| {
            let pauses: Vec<_> = (0..1000).map(|n| pause(interval, first, mix(n))).collect();
            let (low, high) = (pauses.iter().min().expect("some"), pauses.iter().max().expect("some"));
            assert!(*low >= Duration::from_millis(least) && *high <= Duration::from_millis(most), "{low:?} {high:?}");
            let width = Duration::from_millis((most - least) * 9 / 10);
            assert!(*high - *low > width, "{low:?} {high:?}");
        };
        check(true, 200, 2000);
        check(false, 1800, 2200);
    }
}
