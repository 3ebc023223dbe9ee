//! The ledger: the table of live sessions of one app. It answers "is this id a session, whose, and since when", and it
//! keeps the counts by which a drain knows that it is finished.
//!
//! It holds three kinds of entries (see [`Standing`]), and only live ones are counted. Expiry is evaluated whenever an
//! entry is looked up; [`Ledger::sweep`] only makes sure that counts fall when nobody looks.
//!
//! Locks: a shard's lock is held for one operation on one entry, or for up to three thousand of a sweep or scan; never two
//! shards at once. Aliases have a lock of their own, taken before a shard's and never after, and only by operations on
//! names that their shard does not know. Renaming holds it throughout, so a name that is missing in its shard while a
//! session moves is found once the lock is free. (Holding both shards in order instead was rejected: it needs the same
//! alias lock besides.)
//!
//! | file | holds |
//! |---|---|
//! | `alias` | older ids of renamed sessions |
//! | `counts` | gauges and totals per backend |
//! | `elsewhere` | what an earlier run or another process knows |
//! | `future` | what is to be expected of live sessions |
//! | `entry` | what is known of one id, and its deadlines |
//! | `journal` | what has changed, for those who keep a copy |
//! | `occupancy` | how full it is, and what it could not do |
//! | `recent` | how a total has grown of late |
//! | `room` | places, counted and bounded across shards |
//! | `rotation` | an answer to one id sets another |
//! | `rules` | settings, ticks |
//! | `shard` | entries and transitions behind one lock |
//! | `survey` | what looks at many sessions: evictions, losses, lists |
//! | `table`, `tables` | where entries lie, when each is looked at, and what may be dropped |

mod alias;
mod counts;
mod elsewhere;
mod entry;
mod future;
mod journal;
mod occupancy;
mod recent;
mod room;
mod rotation;
mod rules;
mod shard;
mod survey;
mod table;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::alias::Aliases;
pub use self::counts::{Counts, EndReason, LossCause};
pub use self::entry::{Found, Listed, Record, Standing};
pub use self::future::Future;
use self::future::Learned;
pub use self::journal::{Noted, Notes, Origin, Page};
use self::room::{Room, Shelf};
pub use self::rotation::Rotated;
pub use self::rules::Rules;
use self::rules::{Clock, Now, Spans};
use self::shard::Shard;
pub use self::survey::Summary;
use self::tables::Place;
use crate::model::session_key::SessionKey;
use crate::model::time::Time;

/// A power of two. 32 keep two threads apart.
const SHARDS: usize = 32;

/// Entries looked at under one hold of a lock, about: some 50 µs.
const BATCH: usize = 1024;

/// Whether a person is likely to be behind an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attention {
    /// Engages the session.
    #[default]
    Foreground,
    /// A poller or heartbeat: keeps it alive.
    Background,
}

/// What [`Ledger::enter`] met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The exchange is counted; [`Ledger::leave`] must follow.
    Live,
    /// Unknown, a candidate, or over. Nothing is counted and no `leave` may follow.
    NotLive,
}

/// What a response that set an id did to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Born {
    /// A new, unconfirmed session.
    New,
    /// The session was here already; touched.
    Known,
    /// It was live on another backend and is new here: a stand-in set the cookie, the former session is lost.
    Moved {
        /// Where it was.
        from: u32,
    },
    /// The ledger is full of live sessions: served without being counted, so drains are not confident.
    Untracked,
}

/// What speaks for an unknown id besides the backend's honouring it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// A signed pin bound to this id.
    SignedPin {
        /// The pin's issue time.
        issued: Time,
    },
    /// Nothing.
    Unsigned,
}

/// What became of an unknown id that a backend honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// Counted as a live session from now on.
    Live,
    /// Remembered; the second such exchange on the same backend makes it live.
    Candidate,
    /// It was live already (a parallel exchange was faster). Touched if it lives on this backend.
    Known,
    /// It ended after this exchange was decided: a request under way at logout raises nobody from the dead.
    Ghost,
    /// The cap on unsigned adoption is reached, or there is no room below it; nothing was recorded.
    Capped,
    /// The ledger is full of live sessions.
    Untracked,
}

/// The table of live sessions of one app.
#[derive(Debug)]
pub struct Ledger {
    shards: Vec<Mutex<Shard>>,
    aliases: Mutex<Aliases>,
    learned: Mutex<Learned>,
    room: Arc<Room>,
    clock: Clock,
    unsaved: AtomicBool,
    /// When it was last looked for exchanges under way.
    looked: AtomicU32,
}

impl Ledger {
    /// An empty ledger that can tell times from a year before `now` on, for 12 years; earlier ones count as that.
    pub fn new(rules: Rules, now: Time) -> Ledger {
        Ledger::with_shards(SHARDS, rules, Clock::reaching_back_from(now).epoch)
    }

    /// `shards` is a power of two.
    fn with_shards(shards: usize, rules: Rules, epoch: Time) -> Ledger {
        debug_assert!(shards.is_power_of_two(), "each shard is found by some bits of a key");
        let (room, clock, spare) = (Arc::new(Room::new(&rules)), Clock { epoch }, Arc::default());
        let shard = || Mutex::new(Shard::new(Spans::from(&rules), clock, Arc::clone(&room), Arc::clone(&spare)));
        let shards = std::iter::repeat_with(shard).take(shards).collect();
        let (aliases, learned, unsaved, looked) = Default::default();
        Ledger { shards, aliases, learned, room, clock, unsaved, looked }
    }

    /// Makes `counts` those of backend `slot`. To be done before the slot's first session; the first registration of a
    /// slot stays. Sessions of slots that were never registered are kept, but counted nowhere.
    pub fn register(&self, slot: u32, counts: &Arc<Counts>) {
        for shard in &self.shards {
            lock(shard).register(slot, Arc::clone(counts));
        }
    }

    /// Goes by new rules from `now` on, for sessions that exist too. Entries beyond a lower bound are dropped, except
    /// confirmed sessions. Until this returns, a look-up may still go by the former deadline of an entry.
    pub fn set_rules(&self, rules: Rules, now: Time) {
        let now = self.clock.now(now);
        self.room.set_rules(&rules);
        for shard in &self.shards {
            lock(shard).set_spans(Spans::from(&rules));
        }
        self.visit(|shard, i| shard.rearm(i, now));
        while self.room.entries() > self.room.capacity() && self.drop_one(&Shelf::ALL, 0, now) {}
    }

    /// What is known of an id.
    pub fn find(&self, key: SessionKey, now: Time) -> Option<Found> {
        let now = self.clock.now(now);
        self.with(key, now, |shard, i, alias| {
            let entry = shard.tables.at(i);
            Found { alias, ..entry.found(self.clock) }
        })
    }

    /// An exchange that carries this id begins: the session is touched, and a newborn is confirmed since its client sent
    /// the id back.
    pub fn enter(&self, key: SessionKey, attention: Attention, now: Time) -> Entered {
        let now = self.clock.now(now);
        {
            let mut shard = self.shard(&key);
            if let Some(i) = shard.lookup(&key, now) {
                return if shard.enter(i, attention, false, now) { Entered::Live } else { Entered::NotLive };
            }
        }
        if self.room.aliases() == 0 {
            return Entered::NotLive;
        }
        let mut aliases = lock(&self.aliases);
        let alias = aliases.find(&key, now);
        let name = alias.unwrap_or(key);
        let mut shard = self.shard(&name);
        match shard.lookup(&name, now) {
            Some(i) if shard.enter(i, attention, alias.is_some(), now) => {
                aliases.enter(&key);
                Entered::Live
            }
            _ => Entered::NotLive,
        }
    }

    /// The end of an exchange for which [`Ledger::enter`] answered `Live`, with the same key, however often the session
    /// was renamed since.
    pub fn leave(&self, key: SessionKey, now: Time) {
        let now = self.clock.now(now);
        {
            let mut shard = self.shard(&key);
            if let Some(i) = shard.lookup(&key, now) {
                return shard.leave(i, false, now);
            }
        }
        if self.room.aliases() == 0 {
            return;
        }
        let mut aliases = lock(&self.aliases);
        let alias = aliases.find(&key, now);
        let name = alias.unwrap_or(key);
        if alias.is_some() && !aliases.leave(&key, now) {
            return;
        }
        self.room.set_aliases(aliases.len());
        let mut shard = self.shard(&name);
        if let Some(i) = shard.lookup(&name, now) {
            shard.leave(i, alias.is_some(), now);
        }
    }

    /// A response of the backend in `slot` set this id. `scope` is a hash of the cookie's Domain and Path, 0 if unknown.
    ///
    /// An alias that is set again touches its session. Where the session lived on another backend, the name becomes a
    /// session of its own.
    pub fn born(&self, key: SessionKey, slot: u32, scope: u32, now: Time) -> Born {
        let now = self.clock.now(now);
        {
            let mut shard = self.shard(&key);
            if let Some(i) = shard.lookup_new(&key, now) {
                return shard.born_again(i, slot, scope, now);
            }
            if self.room.aliases() == 0 && self.room.reserve() {
                shard.insert_newborn(key, slot, scope, 0, now);
                return Born::New;
            }
        }
        self.bear(&mut lock(&self.aliases), key, slot, scope, now)
    }

    /// The backend in `slot` honoured an unknown or expired id: its answer did not replace it. `decided_at` is when the
    /// request was decided.
    ///
    /// An idle, lifetime or unconfirmed tombstone revives with either proof, for its birth was seen; one that ended
    /// otherwise only if the request was decided later. Revived sessions keep their birth, except that a new lifetime
    /// begins where the former one was over.
    pub fn adopt(&self, key: SessionKey, slot: u32, proof: Adoption, decided_at: Time, now: Time) -> Adopted {
        let now = self.clock.now(now);
        if let Some(adopted) = self.with(key, now, |shard, i, _| shard.adopt(i, slot, proof, decided_at, now)) {
            return adopted;
        }
        let mut aliases = lock(&self.aliases);
        let open = self.dissolve(&mut aliases, &key, now);
        let unsigned = proof == Adoption::Unsigned;
        if unsigned && !self.room.reserve_unsigned() {
            self.refuse(&key, now);
            return Adopted::Capped;
        }
        // An invented id may push out a tombstone, never a newborn.
        if !self.reserve(if unsigned { &[Shelf::Tombstones] } else { &Shelf::ALL }, &key, now) {
            if !unsigned {
                self.overflow(&key, now);
                return Adopted::Untracked;
            }
            self.room.release_unsigned();
            self.refuse(&key, now);
            return Adopted::Capped;
        }
        let mut shard = self.shard(&key);
        match shard.lookup(&key, now) {
            Some(i) => {
                self.room.release();
                if unsigned {
                    self.room.release_unsigned();
                }
                shard.adopt(i, slot, proof, decided_at, now)
            }
            None => shard.insert_adopted(key, slot, proof, open, now),
        }
    }

    /// The session is over for `reason`; false if it was not live. `scope` is that of a deletion cookie, 0 otherwise: a
    /// deletion of another scope than the birth's deletes another cookie, and is no end.
    ///
    /// A tombstone takes a later logout's reason and time uncounted, so that no request under way revives it. A
    /// candidate is forgotten. For [`EndReason::Lost`] use [`Ledger::lose_one`], which names the cause.
    pub fn end(&self, key: SessionKey, reason: EndReason, scope: u32, now: Time) -> bool {
        let now = self.clock.now(now);
        let cause = match reason {
            EndReason::Lost => Some(LossCause::Replaced),
            EndReason::Evicted => Some(LossCause::Evicted),
            _ => None,
        };
        self.with(key, now, |shard, i, _| shard.end(i, reason, cause, scope, now)).unwrap_or(false)
    }

    /// The session's memory is gone, by what its own backend answered; false if it was not live.
    pub fn lose_one(&self, key: SessionKey, cause: LossCause, now: Time) -> bool {
        let now = self.clock.now(now);
        self.with(key, now, |shard, i, _| shard.end(i, EndReason::Lost, Some(cause), 0, now)).unwrap_or(false)
    }

    /// The backend in `slot` knows the session: what made that doubtful is settled. `doubts`: how often it had been in doubt when it
    /// was asked; a former life's word is worth nothing.
    pub fn vouch(&self, key: SessionKey, slot: u32, doubts: u32, now: Time) {
        let now = self.clock.now(now);
        self.with(key, now, |shard, i, _| {
            if shard.tables.at(i).slot == slot && shard.counts(slot).doubts() == doubts {
                shard.vouch(i);
            }
        });
    }

    /// The live session belongs to backend `to_slot` from now on (`failover: repin`): it ended there as moved and
    /// arrived here. False if it was not live, or here already.
    pub fn relocate(&self, key: SessionKey, to_slot: u32, now: Time) -> bool {
        let now = self.clock.now(now);
        self.with(key, now, |shard, i, _| shard.relocate(i, to_slot, now)).unwrap_or(false)
    }

    /// The client of an evicted session is being told so, by an answer of our own. The first time counts.
    pub fn tell_evicted(&self, key: SessionKey, now: Time) {
        let now = self.clock.now(now);
        self.with(key, now, |shard, i, _| shard.tell_evicted(i, now));
    }

    /// Lets time act on all that is due. One timer calls it every 100 ms; when nothing is due it costs one lock per shard
    /// and a look at one number per table, that is per 370 sessions.
    pub fn sweep(&self, now: Time) {
        self.learn_in_time(now);
        let now = self.clock.now(now);
        for shard in &self.shards {
            // In steps of its own statement: the lock is free between two of them.
            while lock(shard).advance(now, BATCH) {}
        }
        if self.room.aliases() > 0 {
            loop {
                let mut aliases = lock(&self.aliases);
                let more = aliases.expire(now, BATCH);
                self.room.set_aliases(aliases.len());
                if !more {
                    break;
                }
            }
        }
        self.room.swept(now);
    }

    /// A birth under the aliases' lock: whatever `key` names now, it is a session of `slot` afterwards.
    fn bear(&self, aliases: &mut Aliases, key: SessionKey, slot: u32, scope: u32, now: Now) -> Born {
        let mut born = Born::New;
        if let Some(name) = aliases.find(&key, now) {
            let mut shard = self.shard(&name);
            if let Some(i) = shard.lookup(&name, now).filter(|&i| shard.tables.at(i).is_live()) {
                let from = shard.tables.at(i).slot;
                if from == slot {
                    return shard.born_again(i, slot, scope, now);
                }
                shard.end(i, EndReason::Lost, Some(LossCause::Failover), 0, now);
                born = Born::Moved { from };
            }
        }
        let open = self.dissolve(aliases, &key, now);
        let known = self.shard(&key).lookup(&key, now).is_some();
        let reserved = !known && self.reserve(&Shelf::ALL, &key, now);
        let mut shard = self.shard(&key);
        match shard.lookup(&key, now) {
            Some(i) => {
                if reserved {
                    self.room.release();
                }
                shard.born_again(i, slot, scope, now)
            }
            None if reserved || self.room.reserve() => {
                shard.insert_newborn(key, slot, scope, open, now);
                born
            }
            None => {
                self.room.count_untracked(now, &shard.spans);
                Born::Untracked
            }
        }
    }

    /// `key` is no alias any more. Answers the exchanges under way by it, which its session no longer counts.
    fn dissolve(&self, aliases: &mut Aliases, key: &SessionKey, now: Now) -> u32 {
        let Some((name, open)) = aliases.remove(key) else { return 0 };
        self.room.set_aliases(aliases.len());
        if open > 0 {
            let mut shard = self.shard(&name);
            if let Some(i) = shard.lookup(&name, now) {
                shard.give_back(i, open, now);
            }
        }
        open
    }

    /// Runs `act` on the entry that `key` names, now or formerly (then with `true`).
    fn with<R>(&self, key: SessionKey, now: Now, act: impl FnOnce(&mut Shard, Place, bool) -> R) -> Option<R> {
        {
            let mut shard = self.shard(&key);
            if let Some(i) = shard.lookup(&key, now) {
                return Some(act(&mut shard, i, false));
            }
        }
        if self.room.aliases() == 0 {
            return None;
        }
        let mut aliases = lock(&self.aliases);
        let alias = aliases.find(&key, now);
        let name = alias.unwrap_or(key);
        let mut shard = self.shard(&name);
        let i = shard.lookup(&name, now)?;
        Some(act(&mut shard, i, alias.is_some()))
    }

    /// Takes a place for one entry, if need be of an entry on one of the `shelves`. No shard may be locked.
    fn reserve(&self, shelves: &[Shelf], key: &SessionKey, now: Now) -> bool {
        if self.room.reserve() {
            return true;
        }
        let dropped = self.drop_one(shelves, self.shard_of(key), now);
        if dropped {
            self.room.reserve_dropped();
        }
        dropped
    }

    /// Drops an entry of the first shelf that has one, roughly its oldest in one shard: the one at `start`, else the next
    /// that has any.
    fn drop_one(&self, shelves: &[Shelf], start: usize, now: Now) -> bool {
        let order = || self.shards.iter().cycle().skip(start).take(self.shards.len());
        shelves.iter().any(|&shelf| self.room.shelved(shelf) > 0 && order().any(|shard| lock(shard).drop_old(shelf, now)))
    }

    fn overflow(&self, key: &SessionKey, now: Now) {
        let spans = self.shard(key).spans;
        self.room.count_untracked(now, &spans);
    }

    fn refuse(&self, key: &SessionKey, now: Now) {
        let spans = self.shard(key).spans;
        self.room.refuse_unsigned(now, &spans);
    }

    fn shard_of(&self, key: &SessionKey) -> usize {
        let [.., last] = key.0;
        usize::from(last) & (self.shards.len() - 1)
    }

    #[expect(clippy::indexing_slicing, reason = "the length is a power of two")]
    fn shard(&self, key: &SessionKey) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.shard_of(key)])
    }
}

/// A panic elsewhere must not take the ledger with it: its entries are consistent between any two calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
