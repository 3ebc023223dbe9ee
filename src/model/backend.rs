//! A backend: what was configured, and what of it lives on while snapshots come and go.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::admission::{Admission, Health, Intent, ReleaseState};
use super::count::CountFaults;
use super::gate::Gate;
use super::incarnation::{Instance, Lives, Proof};
use super::ledger::{Counts, Ledger};
use super::memory::BackendMemory;
use super::settings::BackendSpec;
use super::tally::BackendTally;
use super::time::Time;

/// One address that serves a release.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its number in the app's ledger; never given to another backend while the process lives.
    pub slot: u32,
    /// Its release.
    pub release: Arc<str>,
    /// As configured; `spec.name` is unique in the release.
    pub spec: Arc<BackendSpec>,
    /// Bound of exchanges at a time: its own, else the app's.
    pub max_connections: Option<u32>,
    /// Survives snapshots.
    pub live: Arc<Live>,
    /// When its address left the file for another one under the same name: it drains under a name of its own, and goes when it is
    /// empty. `None` for all others.
    pub left: Option<Time>,
}

/// What of a backend changes without a new snapshot.
#[derive(Debug)]
pub struct Live {
    /// Intent, health, release state, fence and exchanges in flight.
    pub gate: Arc<Gate>,
    /// Its sessions.
    pub counts: Arc<Counts>,
    /// Its answers.
    pub tally: BackendTally,
    /// Why its own count of sessions could not be read.
    pub count_faults: CountFaults,
    /// When we began to see its traffic: sessions older than this may be unknown to the ledger.
    pub since: Time,
    /// What a process before had found of its health; `Untested` if there was none.
    pub last_health: Health,
    address: RwLock<Option<SocketAddr>>,
    up_since: AtomicU64,
    /// The lives of its process.
    pub lives: Lives,
    instance: Mutex<Option<Instance>>,
    pool_generation: AtomicU64,
    connect_failures: AtomicU64,
    queued: AtomicU32,
    complained: AtomicU64,
    deadline: AtomicU64,
    evicts_at: AtomicU64,
    counted: Mutex<Option<CountReading>>,
}

/// What a backend itself said of its sessions (`session.count_probe`): the truth on the ground, newborns and strangers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountReading {
    /// Sessions in its memory.
    pub sessions: u64,
    /// What we knew of when it was asked and when it had answered, the smaller: what we learn later explains nothing.
    pub known: u64,
    /// When it was asked.
    pub at: Time,
}

impl CountReading {
    /// Whether it leaves room for nobody whom we have not met.
    pub fn agrees(&self) -> bool {
        self.sessions <= self.known
    }
}

impl Live {
    /// A backend that nothing is known of yet.
    pub fn new(spec: &BackendSpec, state: ReleaseState, now: Time) -> Live {
        Live {
            gate: Arc::new(Gate::new(Intent::Serve, Health::Untested, state)),
            counts: Arc::new(Counts::default()),
            tally: BackendTally::default(),
            count_faults: CountFaults::default(),
            since: now,
            last_health: Health::Untested,
            address: RwLock::new(spec.address.literal()),
            up_since: AtomicU64::new(0),
            lives: Lives::default(),
            instance: Mutex::default(),
            pool_generation: AtomicU64::new(1),
            connect_failures: AtomicU64::new(0),
            queued: AtomicU32::new(0),
            complained: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            evicts_at: AtomicU64::new(0),
            counted: Mutex::default(),
        }
    }

    /// A backend that a process before knew. Its health is to be found again.
    pub fn recall(memory: &BackendMemory, state: ReleaseState) -> Live {
        let live = Live { last_health: memory.health, ..Live::new(&memory.spec, state, memory.since) };
        live.gate.set_intent(memory.intent);
        if memory.fenced {
            live.gate.close_again();
        }
        live.lives.recall(&memory.lives);
        live.counts.recall_doubts(memory.doubts);
        live.instance.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&memory.instance);
        live
    }

    /// Where to connect; `None` while a host name has not been resolved.
    pub fn address(&self) -> Option<SocketAddr> {
        *self.address.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the resolver says. Called by the prober only.
    pub fn resolved(&self, address: SocketAddr) {
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// Records what probing found; returns the former health when it differs.
    pub fn observe(&self, health: Health, now: Time) -> Option<Health> {
        let before = self.gate.set_health(health);
        if before == health {
            return None;
        }
        if health == Health::Up {
            // The very first pass is not a recovery: at process start everybody is new, nobody needs warming up.
            let warm = if before == Health::Untested { Time(0) } else { now };
            self.up_since.store(warm.0, Ordering::Relaxed);
        }
        if health == Health::Down {
            // Connections from before a crash must not be reused after it.
            self.renew_pool();
        }
        Some(before)
    }

    /// The share of its weight that a backend in `slow_start` takes, between 0.05 and 1.
    pub fn warmth(&self, slow_start: Duration, now: Time) -> f64 {
        if slow_start.is_zero() {
            return 1.0;
        }
        let up = now.since(Time(self.up_since.load(Ordering::Relaxed)));
        // Never zero: a lone recovering backend must take what comes.
        (up.as_secs_f64() / slow_start.as_secs_f64()).clamp(0.05, 1.0)
    }

    /// Which life of the backend's process this is, from 1: those that are only suspected count for nothing.
    pub fn incarnation(&self) -> u64 {
        1 + self.lives.begun(Proof::Header) + self.lives.begun(Proof::Operator)
    }

    /// It was away and is back, or its connections have ended, and nothing proves that it is the same process. To be called before its
    /// health says that it is back.
    pub fn suspect(&self) {
        self.lives.suspected(&self.counts);
    }

    /// A proven restart begins the next life and takes the sessions in `slot` of the ledger that are of the life before, which was
    /// last seen at `after`; answers how many. While the gate is closed for being down, or
    /// nobody has been let in yet, nobody can have met the new life: all go.
    pub fn reborn(&self, proof: Proof, ledger: &Ledger, slot: u32, after: Time, now: Time) -> usize {
        self.renew_pool();
        let all = proof == Proof::Operator || matches!(self.gate.read().health, Health::Down | Health::Untested);
        self.lives.proven(proof, (ledger, slot, &self.counts), after, all, now)
    }

    /// The process that answered the last probe, where it says so.
    pub fn instance(&self) -> Option<Instance> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another one answers, or nobody says any more.
    pub fn set_instance(&self, instance: Option<Instance>) {
        *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = instance;
    }

    /// Connections that are pooled now are not used again.
    pub fn renew_pool(&self) {
        self.pool_generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Separates pooled connections of different lives.
    pub fn pool_generation(&self) -> u64 {
        self.pool_generation.load(Ordering::Relaxed)
    }

    /// Counts a connect that failed; returns how many so far.
    pub fn connect_failed(&self) -> u64 {
        self.connect_failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether a failed connect may be logged: once a second, however many users meet it.
    pub fn may_complain(&self, now: Time) -> bool {
        self.complained.swap(now.as_secs(), Ordering::Relaxed) != now.as_secs()
    }

    /// Exchanges that wait because the backend is full.
    pub fn queued(&self) -> u32 {
        self.queued.load(Ordering::Acquire)
    }

    /// One more waits.
    pub fn queue_joined(&self) {
        self.queued.fetch_add(1, Ordering::AcqRel);
    }

    /// One of them waits no more.
    pub fn queue_left(&self) {
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }

    /// By when it is to be empty; `None` unless a drain with a deadline runs.
    pub fn deadline(&self) -> Option<Time> {
        Some(Time(self.deadline.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }

    /// The deadline by which everybody left is evicted (`drain.then: evict`); `None` unless a drain with one runs.
    pub fn evicts_at(&self) -> Option<Time> {
        Some(Time(self.evicts_at.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }

    /// What running drains say of both.
    pub fn set_deadline(&self, at: Option<Time>, evicts_at: Option<Time>) {
        self.deadline.store(at.map_or(0, |at| at.0), Ordering::Relaxed);
        self.evicts_at.store(evicts_at.map_or(0, |at| at.0), Ordering::Relaxed);
    }

    /// What the backend last said of its sessions; `None` when it is not asked, or its last answer could not be read.
    pub fn count_reading(&self) -> Option<CountReading> {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a reading, or the word that there is none.
    pub fn count_read(&self, reading: Option<CountReading>) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = reading;
    }

    /// Whether it still keeps sessions but should lose them: by order, by its release, or by its own word.
    pub fn emptying(&self) -> bool {
        let reading = self.gate.read();
        reading.intent == Intent::Drain || reading.state.emptying() || reading.health == Health::Draining
    }

    /// Failed connects so far; a prober that sees the figure move probes at once.
    pub fn connect_failures(&self) -> u64 {
        self.connect_failures.load(Ordering::Relaxed)
    }
}

impl Backend {
    /// Who may enter now.
    pub fn admission(&self) -> Admission {
        self.live.gate.admission()
    }

    /// As [`Live::emptying`].
    pub fn emptying(&self) -> bool {
        self.live.emptying()
    }

    /// Sessions there, newborns included: what balancing evens out.
    pub fn sessions(&self) -> u64 {
        self.live.counts.live() + self.live.counts.unconfirmed()
    }
}
