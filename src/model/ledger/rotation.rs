//! Rotated or replaced? An answer to a request with one id sets another (DESIGN §4).
//!
//! The caller says what was known when the request was decided, not now: between decision and answer a parallel
//! request may have logged out, rotated, or met the same end.

use std::time::Duration;

use crate::model::session_key::SessionKey;
use crate::model::time::Time;

use super::alias::Aliases;
use super::counts::{EndReason, LossCause};
use super::entry::Entry;
use super::journal::Origin;
use super::rules::Now;
use super::tables::Place;
use super::{Born, Ledger, lock};

/// What an answer to one id that sets another did to the ledger. In every case the new id is recorded, unless `Untracked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// The same session with a new name; birth, confirmation and exchanges under way are kept.
    Renamed,
    /// The old session was live and is lost; the new one was born.
    Replaced(Born),
    /// The old one was not live; the new one was born.
    NotLive(Born),
}

/// What the old id is found to be.
enum Verdict {
    Same,
    Renamed(Entry),
    Replaced,
    NotLive,
}

impl Ledger {
    /// The backend in `slot` answered a request with id `old` by setting id `new` with cookie scope `scope`. `silent`:
    /// how long `old` had been silent when the request was decided; `None` if it was not live then.
    ///
    /// Parallel rotations from one id, each to an id of its own (A to B and A to C): A leads to B by then, so B is
    /// renamed to C; both A and B lead to C for 30 s. One session stays one. Should the client keep B for longer, B is
    /// adopted and C idles out.
    /// To the same id (A to B twice): the second one only touches.
    /// To an id that is a live session of its own: the old session ends as moved, its exchanges go over; nothing is lost.
    /// To an id that is live on another backend: that one is lost to failover, and the renamed session takes its name.
    /// Back to a name that is still an alias: the names change places.
    pub fn rotate(&self, old: SessionKey, new: SessionKey, slot: u32, scope: u32, silent: Option<Duration>, now: Time) -> Rotated {
        let now = self.clock.now(now);
        let mut aliases = lock(&self.aliases);
        let name = aliases.find(&old, now).unwrap_or(old);
        match self.judge(&aliases, name, new, slot, scope, silent, now) {
            Verdict::Same => Rotated::Renamed,
            Verdict::Renamed(session) => {
                self.rename(&mut aliases, session, new, scope, Origin::Here, now);
                Rotated::Renamed
            }
            Verdict::Replaced => Rotated::Replaced(self.bear(&mut aliases, new, slot, scope, now)),
            Verdict::NotLive => Rotated::NotLive(self.bear(&mut aliases, new, slot, scope, now)),
        }
    }

    /// Decides under one hold of the lock, and takes the session out if it is to be renamed.
    #[expect(clippy::too_many_arguments, reason = "private half of one operation")]
    fn judge(
        &self,
        aliases: &Aliases,
        name: SessionKey,
        new: SessionKey,
        slot: u32,
        scope: u32,
        silent: Option<Duration>,
        now: Now,
    ) -> Verdict {
        let mut shard = self.shard(&name);
        let (Some(silent), Some(i)) = (silent, shard.lookup(&name, now)) else { return Verdict::NotLive };
        let entry = shard.tables.at(i);
        if !entry.is_live() {
            return Verdict::NotLive;
        }
        if entry.slot != slot {
            shard.finish(i, EndReason::Lost, Some(LossCause::Failover), now.stamp, now);
            return Verdict::Replaced;
        }
        // A login and a lost memory look the same here. The user is served alike in both cases; only the counts differ, and after a
        // restart that nothing disproves it is the loss that is likely.
        if shard.in_doubt(i) {
            shard.finish(i, EndReason::Lost, Some(LossCause::Restart), now.stamp, now);
            return Verdict::Replaced;
        }
        if shard.spans.rotation.is_some_and(|longest| silent > longest) {
            shard.finish(i, EndReason::Lost, Some(LossCause::Replaced), now.stamp, now);
            return Verdict::Replaced;
        }
        if name == new {
            shard.born_again(i, slot, scope, now);
            return Verdict::Same;
        }
        // Before the name disappears, so that whoever misses it asks the aliases and waits.
        self.room.set_aliases(aliases.len() + 1);
        Verdict::Renamed(shard.take(i))
    }

    /// `session` was taken out under its old name.
    pub(super) fn rename(&self, aliases: &mut Aliases, mut session: Entry, new: SessionKey, scope: u32, origin: Origin, now: Now) {
        let old = session.key;
        let named = session.open;
        let mut carried = 0;
        if let Some((target, open)) = aliases.remove(&new) {
            carried = open;
            if target == old {
                session.borrowed = session.borrowed.saturating_sub(open);
            } else {
                let mut shard = self.shard(&target);
                if let Some(i) = shard.lookup(&target, now) {
                    shard.give_back(i, open, now);
                }
            }
        }
        {
            let mut shard = self.shard(&new);
            if origin == Origin::Here {
                shard.counts(session.slot).count_rotated();
                session.touch(now.stamp);
                aliases.renamings.note(old, new);
            }
            let known = shard.lookup_new(&new, now);
            let is_here = |i: &Place| shard.tables.at(*i).is_live() && shard.tables.at(*i).slot == session.slot;
            if let Some(i) = known.filter(is_here) {
                match origin {
                    Origin::Here => shard.merge(&session, i, now),
                    Origin::There => shard.as_told(|shard| shard.merge(&session, i, now)),
                }
            } else {
                if let Some(i) = known {
                    shard.end(i, EndReason::Lost, Some(LossCause::Failover), 0, now);
                }
                session.key = new;
                session.pinned = now.stamp;
                session.borrowed = session.borrowed.saturating_add(named);
                session.open = carried;
                session.scope = if scope == 0 { session.scope } else { scope };
                match origin {
                    Origin::Here => shard.put(session, known, now),
                    Origin::There => shard.as_told(|shard| shard.put(session, known, now)),
                }
            }
        }
        aliases.rename(old, new, named, now);
        self.room.set_aliases(aliases.len());
    }
}
