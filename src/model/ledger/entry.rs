//! One entry of the ledger: what is known of one session id, 64 bytes.
//!
//! Its public faces are [`Found`] and [`Listed`]; the entry itself never leaves its shard's lock.

use crate::model::session_key::SessionKey;
use crate::model::time::Time;

use super::counts::{EndReason, Gauge};
use super::journal::Waits;
use super::room::Shelf;
use super::rules::Spans;

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A session. Unconfirmed until its client sends the id back.
    Live {
        /// The client sent the id back, or the id was adopted.
        confirmed: bool,
    },
    /// An unknown id that a backend honoured once, without a signed pin.
    Candidate,
    /// A tombstone: over, not counted, remembered so that an expired session can be told from an unknown one.
    Ended(EndReason),
}

/// What [`super::Ledger::find`] knows about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The backend it belongs to.
    pub slot: u32,
    /// Live, candidate or over.
    pub standing: Standing,
    /// Last touch; may lie up to 100 ms in the future (stamps are rounded up).
    pub seen: Time,
    /// Birth, or when it was first met.
    pub born: Time,
    /// Issue time of the pin to `slot`: where ledger and pin disagree, the later issued wins.
    pub pinned: Time,
    /// Exchanges under way, through older ids too.
    pub open: u32,
    /// The id asked for is an older name of the session.
    pub alias: bool,
    /// When it ended; `None` unless `standing` is [`Standing::Ended`].
    pub ended_at: Option<Time>,
    /// When its client was told that it was evicted; `None` until then.
    pub told_at: Option<Time>,
    /// Hash of the cookie's Domain and Path at birth; 0 unknown.
    pub birth_scope: u32,
}

/// A live session in `tidegate sessions --list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Ten hexadecimal digits that name the session to people; neither id nor key can be made from them.
    pub handle: String,
    /// The backend it belongs to.
    pub slot: u32,
    /// Since birth.
    pub age: std::time::Duration,
    /// Since the last touch; zero while an exchange is open.
    pub idle: std::time::Duration,
    /// Touched on a foreground path within `engaged_within`.
    pub engaged: bool,
    /// The client sent the id back.
    pub confirmed: bool,
    /// Exchanges under way.
    pub open: u32,
}

/// One entry as persistence needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The session's present name.
    pub key: SessionKey,
    /// Everything known about it; `alias` is false.
    pub found: Found,
    /// Last touch on a foreground path.
    pub foreground: Time,
    /// It was adopted without a signed pin, and counts towards that cap.
    pub unsigned: bool,
    /// How often its backend had been in doubt when it last vouched for it, modulo 256.
    pub doubts: u8,
}

/// `due` of an entry that nobody will look at.
pub(super) const UNARMED: u32 = u32::MAX;

/// All points in time are ticks since the ledger's epoch. Aligned to a cache line: to read it is to wait for memory once.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Entry {
    pub key: SessionKey,
    pub slot: u32,
    pub seen: u32,
    pub born: u32,
    pub pinned: u32,
    /// Last touch on a foreground path; birth and adoption count as one.
    pub foreground: u32,
    /// Valid while `standing` is `Ended`; of one that was told, when that was.
    pub ended: u32,
    pub scope: u32,
    /// Exchanges under way that carry this very id.
    pub open: u32,
    /// Exchanges under way that carry an alias of this id.
    pub borrowed: u32,
    /// Tick by which the sweep looks at this entry: never later than its next real deadline.
    pub due: u32,
    pub standing: Standing,
    /// How often its backend had been in doubt when it last vouched for this session, modulo 256: a session that sits out 255
    /// restarts and meets the next one is taken for vouched for.
    pub doubts: u8,
    /// Which live gauge counts it once confirmed.
    pub engaged: bool,
    /// Counts towards the cap on unsigned adoption, as a tombstone too: else a patient inventor of ids could fill the
    /// ledger with their tombstones.
    pub unsigned: bool,
    /// Of an evicted session: its client knows.
    pub told: bool,
    /// Whether it waits in the journal.
    pub waits: Waits,
}

/// The next thing that time alone does to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    End(EndReason),
    Disengage,
    Forget,
}

impl Entry {
    /// A session that a response has just made.
    pub fn newborn(key: SessionKey, slot: u32, scope: u32, stamp: u32) -> Entry {
        Entry {
            key,
            slot,
            seen: stamp,
            born: stamp,
            pinned: stamp,
            foreground: stamp,
            ended: 0,
            scope,
            open: 0,
            borrowed: 0,
            due: UNARMED,
            standing: Standing::Live { confirmed: false },
            doubts: 0,
            engaged: false,
            unsigned: false,
            told: false,
            waits: Waits::No,
        }
    }

    /// The same place with a new session; exchanges that still carry the id stay counted.
    pub fn reborn(&mut self, slot: u32, scope: u32, stamp: u32) {
        let fresh = Entry::newborn(self.key, slot, scope, stamp);
        *self = self.content(&fresh);
    }

    /// This name, its exchanges under way and what is to be done about it, with what is known of the id as `known` has it.
    pub fn content(&self, known: &Entry) -> Entry {
        let Entry { key, open, borrowed, due, waits, .. } = *self;
        Entry { key, open, borrowed, due, waits, ..*known }
    }

    pub fn is_live(&self) -> bool {
        matches!(self.standing, Standing::Live { .. })
    }

    /// Exchanges under way under any name.
    pub fn exchanges(&self) -> u32 {
        self.open.saturating_add(self.borrowed)
    }

    /// Confirmed, with no exchange under way.
    pub fn is_silent(&self) -> bool {
        self.standing == Standing::Live { confirmed: true } && self.exchanges() == 0
    }

    /// When the user came: an adopted session is as old as its pin.
    pub fn start(&self) -> u32 {
        self.born.min(self.pinned)
    }

    /// One of those exchanges ended.
    pub fn close(&mut self, by_alias: bool) {
        let count = if by_alias { &mut self.borrowed } else { &mut self.open };
        *count = count.saturating_sub(1);
    }

    pub fn touch(&mut self, stamp: u32) {
        self.seen = self.seen.max(stamp);
    }

    pub fn gauge(&self) -> Gauge {
        match self.standing {
            Standing::Live { confirmed: false } => Gauge::Unconfirmed,
            Standing::Live { confirmed: true } if self.engaged => Gauge::Engaged,
            Standing::Live { confirmed: true } => Gauge::KeptAlive,
            Standing::Candidate => Gauge::Candidate,
            Standing::Ended(_) => Gauge::Nowhere,
        }
    }

    /// Where it waits to be dropped when room is needed. Nothing with exchanges under way is on a shelf: their ends, and
    /// the aliases they may have come by, must find it.
    pub fn shelf(&self) -> Option<Shelf> {
        let shelf = match self.standing {
            Standing::Ended(_) => Shelf::Tombstones,
            Standing::Candidate => Shelf::Candidates,
            Standing::Live { confirmed: false } => Shelf::Unconfirmed,
            Standing::Live { confirmed: true } => return None,
        };
        (self.exchanges() == 0).then_some(shelf)
    }

    /// Since when an entry that is on a shelf has been of no use.
    pub fn shelved_since(&self) -> u32 {
        match self.standing {
            Standing::Ended(_) => self.ended,
            Standing::Candidate => self.seen,
            Standing::Live { .. } => self.born,
        }
    }

    /// When time alone changes this entry next, and how. `None` while only an open exchange holds it.
    pub fn next_event(&self, spans: &Spans) -> Option<(u32, Event)> {
        let idle_at = self.seen.saturating_add(spans.idle);
        let lifetime = spans.lifetime.map(|span| (self.born.saturating_add(span), Event::End(EndReason::Lifetime)));
        match self.standing {
            // The client never came back, whatever else would have ended it meanwhile.
            Standing::Live { confirmed: false } => {
                let span = spans.confirm.min(spans.idle).min(spans.lifetime.unwrap_or(u32::MAX));
                Some((self.born.saturating_add(span), Event::End(EndReason::Unconfirmed)))
            }
            Standing::Live { confirmed: true } => {
                let idle = (self.exchanges() == 0).then_some((idle_at, Event::End(EndReason::Idle)));
                let disengage = self.engaged.then_some((self.foreground.saturating_add(spans.engaged), Event::Disengage));
                // At the same tick the first of these wins: an end is not preceded by a change of gauge.
                [lifetime, idle, disengage].into_iter().flatten().min_by_key(|&(at, _)| at)
            }
            Standing::Candidate => (self.exchanges() == 0).then_some((idle_at, Event::Forget)),
            Standing::Ended(_) => (self.exchanges() == 0).then_some((self.ended.saturating_add(spans.memory), Event::Forget)),
        }
    }

    /// Ten hexadecimal digits made of both halves of the key, so that they are no prefix of it.
    pub fn handle(&self) -> String {
        let bits = u128::from_le_bytes(self.key.0);
        let folded = (bits ^ (bits >> 61)) & 0xff_ffff_ffff;
        format!("{folded:010x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_cache_line() {
        assert_eq!((size_of::<Entry>(), align_of::<Entry>()), (64, 64));
    }

    #[test]
    fn the_earliest_deadline_wins_and_an_open_exchange_has_no_idle_one() {
        let spans = Spans { idle: 100, lifetime: Some(1000), confirm: 50, engaged: 30, memory: 500, rotation: None };
        let confirmed =
            Entry { standing: Standing::Live { confirmed: true }, engaged: true, ..Entry::newborn(SessionKey([0; 16]), 0, 0, 10) };
        let check = |entry: Entry, expected: Option<(u32, Event)>| assert_eq!(entry.next_event(&spans), expected, "{entry:?}");
        check(Entry::newborn(SessionKey([0; 16]), 0, 0, 10), Some((60, Event::End(EndReason::Unconfirmed))));
        check(confirmed, Some((40, Event::Disengage)));
        check(Entry { engaged: false, ..confirmed }, Some((110, Event::End(EndReason::Idle))));
        check(Entry { engaged: false, open: 1, ..confirmed }, Some((1010, Event::End(EndReason::Lifetime))));
        check(Entry { engaged: false, seen: 910, ..confirmed }, Some((1010, Event::End(EndReason::Lifetime))));
        check(Entry { standing: Standing::Candidate, ..confirmed }, Some((110, Event::Forget)));
        let tombstone = Entry { standing: Standing::Ended(EndReason::Logout), ended: 20, ..confirmed };
        check(tombstone, Some((520, Event::Forget)));
        check(Entry { borrowed: 1, ..tombstone }, None);
    }
}
