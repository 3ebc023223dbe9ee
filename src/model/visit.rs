//! One exchange's visit to a backend, as the ledger is told of it: at the gate, and when the answer comes.
//!
//! The rules are here and not in the glue, so that the simulation plays the very same ones. A guest at a stand-in is a guest:
//! what the stand-in serves without a word about sessions proves nothing, and only a cookie that it sets moves anybody there.

use super::decide::{Footing, Forward, PinClaim};
use super::facts::Facts;
use super::ledger::{Adopted, Adoption, Attention, EndReason, Entered, Found, Ledger, LossCause, Standing};
use super::reason::Reason;
use super::session_key::SessionKey;
use super::time::Time;

/// A visit under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visit {
    /// The key of the id that reaches the backend; none where a dead one was taken out.
    key: Option<SessionKey>,
    /// The key of the id that the answer set.
    set: Option<SessionKey>,
    /// What the ledger knew of it when the visit was decided.
    session: Option<Found>,
    pin: PinClaim,
    slot: u32,
    stands_in: bool,
    decided_at: Time,
    attention: Attention,
    /// How often its backend had been suspected of a restart when it began: only that life's word is heard in its answer.
    doubts: u32,
    /// The name under which the ledger counts it.
    counted: Option<SessionKey>,
}

/// What an answer says of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It sets this id; `scope` is a hash of the cookie's Domain and Path.
    Set(SessionKey, u32),
    /// It deletes the cookie of this scope.
    Deleted(u32),
    /// Nothing, so it honours the id that came.
    Nothing,
    /// It is an error that says nothing about the session.
    Failure,
}

/// What is to become of the client's pin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinChange {
    /// Left alone, unless it is due to be written anew.
    #[default]
    AsDue,
    /// Pinned here, bound to the id that the answer sets.
    NewSession,
    /// Pinned here, bound to the id that the request carries. Issued when it was decided, not when the answer came: a slow
    /// answer must not outrank a later move.
    SameSession,
    /// Forgotten.
    Delete,
}

impl Visit {
    /// The gate is passed: counts the exchange, and moves the session here if that was decided.
    ///
    /// While [`Visit::counted`] says so, [`Ledger::leave`] must follow.
    pub fn begin(
        ledger: &Ledger,
        facts: &Facts,
        forward: &Forward,
        attention: Attention,
        decided_at: Time,
        now: Time,
    ) -> (Visit, PinChange) {
        let slot = forward.backend.slot;
        let key = facts.key.filter(|_| !forward.strip);
        let mut visit = Visit {
            key,
            set: None,
            session: facts.session,
            pin: facts.pin,
            slot,
            stands_in: forward.stands_in,
            decided_at,
            attention,
            doubts: forward.backend.live.counts.doubts(),
            counted: None,
        };
        let mut change = PinChange::AsDue;
        // Nowhere else is a session left behind while it lives: whoever is moved for another reason had a dead one, and if that has
        // come to life since, by a parallel request, it is that request's.
        if let (Reason::MovePoint, Some(key), Some(found)) = (forward.reason, facts.key, facts.session)
            && matches!(found.standing, Standing::Live { .. })
            && ledger.find(key, now).is_some_and(|present| present.slot == found.slot)
        {
            // Unless a parallel request has taken it elsewhere already.
            ledger.end(key, EndReason::Moved, 0, now);
            if facts.pin.signed() {
                change = PinChange::Delete;
            }
        }
        if let Some(key) = key.filter(|_| forward.footing != Footing::New)
            && ledger.enter(key, attention, now) == Entered::Live
        {
            visit.counted = Some(key);
            let seen = facts.session.map(|found| found.slot);
            // Only from where it was seen: a parallel request may have moved it meanwhile, and once is enough.
            let moves = !forward.stands_in && seen != Some(slot) && ledger.find(key, now).map(|found| found.slot) == seen;
            if moves && ledger.relocate(key, slot, now) {
                change = PinChange::SameSession;
            }
        }
        (visit, change)
    }

    /// The key under which the ledger counts this exchange. [`Visit::hear_tunnel`] may change it; then the former is to be left.
    pub fn counted(&self) -> Option<SessionKey> {
        self.counted
    }

    /// The session of this exchange by what is known now: the one that its answer set, else the one that it came with.
    pub fn session_key(&self) -> Option<SessionKey> {
        self.set.or(self.key)
    }

    /// Tells the ledger what the answer says.
    pub fn hear(&mut self, ledger: &Ledger, heard: Heard, now: Time) -> PinChange {
        match heard {
            Heard::Set(key, scope) => {
                self.set = Some(key);
                self.hear_id(ledger, key, scope, now)
            }
            Heard::Deleted(scope) => self.hear_deletion(ledger, scope, now),
            Heard::Nothing if self.counted.is_some() => {
                self.vouch(ledger, now);
                PinChange::AsDue
            }
            // Also a session that expired while this request waited: the backend honours it.
            Heard::Nothing => match self.key.filter(|_| !self.stands_in) {
                Some(key) if matches!(self.adopt(ledger, key, now), Adopted::Live | Adopted::Known) => {
                    self.count(ledger, key, now);
                    PinChange::SameSession
                }
                _ => PinChange::AsDue,
            },
            Heard::Failure => PinChange::AsDue,
        }
    }

    /// As [`Visit::hear`], of a 101: who holds a tunnel talks, so a session that it opens is confirmed and entered by it, and an
    /// unknown id that it honours has been used twice. Otherwise such a session would end while its tunnel is open.
    ///
    /// Where [`Visit::counted`] changes, the caller leaves the former key: after this, so that a session is at no time without
    /// its open exchange.
    pub fn hear_tunnel(&mut self, ledger: &Ledger, heard: Heard, now: Time) -> PinChange {
        let change = self.hear(ledger, heard, now);
        let is_candidate = |key| ledger.find(key, now).is_some_and(|found| found.standing == Standing::Candidate);
        match heard {
            Heard::Set(key, _) if self.counted != Some(key) => {
                self.count(ledger, key, now);
                change
            }
            Heard::Nothing if self.key.is_some_and(is_candidate) => self.hear(ledger, heard, now),
            _ => change,
        }
    }

    /// Counts it under `key`, if that lives.
    fn count(&mut self, ledger: &Ledger, key: SessionKey, now: Time) {
        if ledger.enter(key, self.attention, now) == Entered::Live {
            self.counted = Some(key);
        }
    }

    /// Tells the ledger what the answer to a farewell says: whatever session it leaves its client with is given up, so that the
    /// next request is a new client's. Its own word that the session is over stands.
    pub fn hear_farewell(&mut self, ledger: &Ledger, heard: Heard, now: Time) -> PinChange {
        let left = match heard {
            Heard::Set(key, _) => {
                self.hear(ledger, heard, now);
                Some(key)
            }
            Heard::Nothing => self.key.filter(|_| !self.stands_in),
            Heard::Deleted(_) | Heard::Failure => return self.hear(ledger, heard, now),
        };
        if let Some(key) = left {
            ledger.end(key, EndReason::Moved, 0, now);
        }
        PinChange::Delete
    }

    /// The session's own backend has honoured it.
    fn vouch(&self, ledger: &Ledger, now: Time) {
        if let Some(key) = self.key.filter(|_| self.doubts > 0 && !self.stands_in) {
            ledger.vouch(key, self.slot, self.doubts, now);
        }
    }

    fn was_live(&self) -> bool {
        self.counted.is_some() || self.session.is_some_and(|found| matches!(found.standing, Standing::Live { .. }))
    }

    fn hear_id(&self, ledger: &Ledger, key: SessionKey, scope: u32, now: Time) -> PinChange {
        let here = self.session.is_some_and(|found| found.slot == self.slot);
        match self.key {
            Some(old) if old == key && self.was_live() && here => {
                self.vouch(ledger, now);
                return PinChange::AsDue;
            }
            // It lives elsewhere, and this backend has begun one of its own under the same id.
            Some(old) if old == key && (self.stands_in || (self.was_live() && !here)) => {
                ledger.born(key, self.slot, scope, now);
            }
            // The same id again: the application says itself that it honours it. That is worth a second click: as a newborn it would
            // leave the count within a minute, whoever is behind it.
            Some(old) if old == key => match self.adopt_as_honoured(ledger, key, now) {
                Adopted::Live | Adopted::Known => return PinChange::SameSession,
                // A request under way at logout raises nobody from the dead.
                Adopted::Ghost => return PinChange::AsDue,
                Adopted::Candidate | Adopted::Capped | Adopted::Untracked => {
                    ledger.born(key, self.slot, scope, now);
                }
            },
            Some(old) if self.was_live() => {
                let silent = self.session.map(|found| self.decided_at.since(found.seen));
                ledger.rotate(old, key, self.slot, scope, silent, now);
            }
            _ => {
                ledger.born(key, self.slot, scope, now);
            }
        }
        PinChange::NewSession
    }

    fn hear_deletion(&self, ledger: &Ledger, scope: u32, now: Time) -> PinChange {
        let Some(key) = self.key else { return PinChange::AsDue };
        let ended = if self.stands_in {
            // It never had the session; the user has lost it all the same.
            ledger.lose_one(key, LossCause::Failover, now)
        } else {
            ledger.end(key, EndReason::Logout, scope, now)
        };
        // A session that we did not know to live had a pin, too.
        let unknown = || ledger.find(key, now).is_none_or(|found| !matches!(found.standing, Standing::Live { .. }));
        if ended || (self.pin.signed() && unknown()) { PinChange::Delete } else { PinChange::AsDue }
    }

    fn adopt_as_honoured(&self, ledger: &Ledger, key: SessionKey, now: Time) -> Adopted {
        match self.adopt(ledger, key, now) {
            Adopted::Candidate => self.adopt(ledger, key, now),
            other => other,
        }
    }

    fn adopt(&self, ledger: &Ledger, key: SessionKey, now: Time) -> Adopted {
        let proof = match self.pin {
            PinClaim::Backend { issued: Some(issued), bound: true, slot, .. } if slot == self.slot => Adoption::SignedPin { issued },
            _ => Adoption::Unsigned,
        };
        ledger.adopt(key, self.slot, proof, self.decided_at, now)
    }
}

#[cfg(test)]
mod tables;
