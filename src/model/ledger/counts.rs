//! What is counted per backend: sessions now (gauges) and what became of sessions (totals). Reading never locks.
//!
//! Engaged and kept-alive sessions share one atomic word. With two words a reader could see a session in neither while
//! it changes from one to the other, and a drain would take that moment for zero.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::recent::Recent;
use crate::model::time::Time;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The application deleted its cookie.
    Logout,
    /// Silent for `idle_timeout`.
    Idle,
    /// Older than `max_lifetime`.
    Lifetime,
    /// Its memory is gone; [`LossCause`] says how.
    Lost,
    /// It went to another backend, or its user went on in another live session.
    Moved,
    /// The operator sent it away.
    Evicted,
    /// Its client never sent the id back.
    Unconfirmed,
}

impl EndReason {
    /// In the order of the metrics' documentation.
    pub const ALL: [EndReason; 7] = [
        EndReason::Logout,
        EndReason::Idle,
        EndReason::Lifetime,
        EndReason::Lost,
        EndReason::Moved,
        EndReason::Evicted,
        EndReason::Unconfirmed,
    ];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            EndReason::Logout => "logout",
            EndReason::Idle => "idle",
            EndReason::Lifetime => "lifetime",
            EndReason::Lost => "lost",
            EndReason::Moved => "moved",
            EndReason::Evicted => "evicted",
            EndReason::Unconfirmed => "unconfirmed",
        }
    }
}

/// How a user lost a confirmed session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossCause {
    /// The backend's process began anew.
    Restart,
    /// A stand-in made a session of its own.
    Failover,
    /// The application answered a long silent id with a new session.
    Replaced,
    /// The operator sent it away.
    Evicted,
}

impl LossCause {
    /// In the order of the metrics' documentation.
    pub const ALL: [LossCause; 4] = [LossCause::Restart, LossCause::Failover, LossCause::Replaced, LossCause::Evicted];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            LossCause::Restart => "restart",
            LossCause::Failover => "failover",
            LossCause::Replaced => "replaced",
            LossCause::Evicted => "evicted",
        }
    }
}

/// Sessions of one backend.
///
/// Always true when nothing is under way: `born + adopted + arrived + restored = live + unconfirmed + every ended`, and
/// `every lost = ended(Lost) + ended(Evicted)`.
#[derive(Debug, Default)]
pub struct Counts {
    /// Engaged in the low half, kept alive in the high half.
    live: AtomicU64,
    unconfirmed: AtomicU64,
    candidates: AtomicU64,
    born: AtomicU64,
    adopted: AtomicU64,
    arrived: AtomicU64,
    restored: AtomicU64,
    rotated: AtomicU64,
    ended: [AtomicU64; EndReason::ALL.len()],
    lost: [AtomicU64; LossCause::ALL.len()],
    out_of_sight: Recent,
    doubts: AtomicU32,
}

impl Counts {
    /// Confirmed sessions, read in one step.
    pub fn live(&self) -> u64 {
        let both = self.live.load(Relaxed);
        (both & LOW) + (both >> 32)
    }

    /// Confirmed sessions with a recent foreground touch.
    pub fn engaged(&self) -> u64 {
        self.live.load(Relaxed) & LOW
    }

    /// Confirmed sessions that only background paths keep alive, or that are silent.
    pub fn kept_alive(&self) -> u64 {
        self.live.load(Relaxed) >> 32
    }

    /// Newborns whose client has not sent the id back.
    pub fn unconfirmed(&self) -> u64 {
        self.unconfirmed.load(Relaxed)
    }

    /// Unknown ids that the backend honoured once: no sessions for us, but somebody who is older than the ledger begins so.
    pub fn candidates(&self) -> u64 {
        self.candidates.load(Relaxed)
    }

    /// What the backend's own count may be without anybody whom we have not met: sessions, newborns, and what left the count
    /// within `span`, an idle timeout, behind the application's back.
    pub fn known(&self, span: Duration, now: Time) -> u64 {
        self.live() + self.unconfirmed() + self.out_of_sight(span, now)
    }

    /// Sessions this backend has made.
    pub fn born(&self) -> u64 {
        self.born.load(Relaxed)
    }

    /// Unknown or expired ids that the backend honoured.
    pub fn adopted(&self) -> u64 {
        self.adopted.load(Relaxed)
    }

    /// Sessions relocated here from another backend.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    /// Sessions that an earlier run or another process made known.
    pub fn restored(&self) -> u64 {
        self.restored.load(Relaxed)
    }

    /// Renamings of a session.
    pub fn rotated(&self) -> u64 {
        self.rotated.load(Relaxed)
    }

    /// Sessions that are over for this reason.
    pub fn ended(&self, reason: EndReason) -> u64 {
        self.ended.get(reason as usize).map_or(0, |total| total.load(Relaxed))
    }

    /// Confirmed sessions that users lost by this cause.
    pub fn lost(&self, cause: LossCause) -> u64 {
        self.lost.get(cause as usize).map_or(0, |total| total.load(Relaxed))
    }

    /// Sessions that left the count within `span` and that the application itself may still remember: newborns whose client never
    /// came back, and users that were sent or moved away.
    pub fn out_of_sight(&self, span: Duration, now: Time) -> u64 {
        self.out_of_sight.within(self.out_of_sight_total(), span, now)
    }

    /// Keeps [`Counts::out_of_sight`] true; to be called several times within the span.
    pub fn sample(&self, span: Duration, now: Time) {
        self.out_of_sight.sample(self.out_of_sight_total(), span, now);
    }

    /// From now on it is in doubt whether the backend still knows its sessions.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Relaxed);
    }

    /// As often as before this process.
    pub fn recall_doubts(&self, doubts: u32) {
        self.doubts.store(doubts, Relaxed);
    }

    /// How often that happened so far.
    pub fn doubts(&self) -> u32 {
        self.doubts.load(Relaxed)
    }

    fn out_of_sight_total(&self) -> u64 {
        [EndReason::Unconfirmed, EndReason::Evicted, EndReason::Moved].into_iter().map(|reason| self.ended(reason)).sum()
    }

    /// One session changes from one gauge to another, in one step where both are live.
    pub(super) fn shift(&self, from: Gauge, to: Gauge) {
        if from == to {
            return;
        }
        if let Some(gauge) = self.word_of_its_own(to) {
            gauge.fetch_add(1, Relaxed);
        }
        let change = to.word().wrapping_sub(from.word());
        if change != 0 {
            self.live.fetch_add(change, Relaxed);
        }
        if let Some(gauge) = self.word_of_its_own(from) {
            gauge.fetch_sub(1, Relaxed);
        }
    }

    fn word_of_its_own(&self, gauge: Gauge) -> Option<&AtomicU64> {
        match gauge {
            Gauge::Candidate => Some(&self.candidates),
            Gauge::Unconfirmed => Some(&self.unconfirmed),
            Gauge::Nowhere | Gauge::Engaged | Gauge::KeptAlive => None,
        }
    }

    pub(super) fn count_born(&self) {
        self.born.fetch_add(1, Relaxed);
    }

    pub(super) fn count_adopted(&self) {
        self.adopted.fetch_add(1, Relaxed);
    }

    pub(super) fn count_arrived(&self) {
        self.arrived.fetch_add(1, Relaxed);
    }

    pub(super) fn count_restored(&self) {
        self.restored.fetch_add(1, Relaxed);
    }

    pub(super) fn count_rotated(&self) {
        self.rotated.fetch_add(1, Relaxed);
    }

    pub(super) fn count_ended(&self, reason: EndReason) {
        if let Some(total) = self.ended.get(reason as usize) {
            total.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn count_lost(&self, cause: LossCause) {
        if let Some(total) = self.lost.get(cause as usize) {
            total.fetch_add(1, Relaxed);
        }
    }
}

const LOW: u64 = 0xffff_ffff;

/// The gauge in which an entry is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gauge {
    /// Not counted: tombstones.
    Nowhere,
    /// Not counted as a session, but no proof of emptiness either.
    Candidate,
    Unconfirmed,
    Engaged,
    KeptAlive,
}

impl Gauge {
    /// The share in the word of live sessions.
    const fn word(self) -> u64 {
        match self {
            Gauge::Nowhere | Gauge::Candidate | Gauge::Unconfirmed => 0,
            Gauge::Engaged => 1,
            Gauge::KeptAlive => 1 << 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_never_seen_in_no_gauge_while_it_changes() {
        let counts = Counts::default();
        for (from, to, expected) in [
            (Gauge::Nowhere, Gauge::Unconfirmed, (0, 0, 1, 0)),
            (Gauge::Unconfirmed, Gauge::Engaged, (1, 0, 0, 0)),
            (Gauge::Engaged, Gauge::KeptAlive, (0, 1, 0, 0)),
            (Gauge::Nowhere, Gauge::Engaged, (1, 1, 0, 0)),
            (Gauge::KeptAlive, Gauge::Engaged, (2, 0, 0, 0)),
            (Gauge::Engaged, Gauge::Nowhere, (1, 0, 0, 0)),
            (Gauge::Nowhere, Gauge::Candidate, (1, 0, 0, 1)),
            (Gauge::Candidate, Gauge::Candidate, (1, 0, 0, 1)),
            (Gauge::Candidate, Gauge::Engaged, (2, 0, 0, 0)),
        ] {
            counts.shift(from, to);
            let found = (counts.engaged(), counts.kept_alive(), counts.unconfirmed(), counts.candidates());
            assert_eq!(found, expected, "{from:?} to {to:?}");
            assert_eq!(counts.live(), expected.0 + expected.1);
        }
    }

    #[test]
    fn labels_are_distinct_and_totals_have_a_place_for_each() {
        let counts = Counts::default();
        for reason in EndReason::ALL {
            counts.count_ended(reason);
            assert_eq!(counts.ended(reason), 1, "{}", reason.as_str());
        }
        for cause in LossCause::ALL {
            counts.count_lost(cause);
            assert_eq!(counts.lost(cause), 1, "{}", cause.as_str());
        }
        let labels: std::collections::HashSet<_> = EndReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), EndReason::ALL.len());
    }
}
