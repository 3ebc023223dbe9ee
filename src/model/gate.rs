//! A backend's admission and its exchanges in flight, in one atomic word outside the published snapshot.
//!
//! The word holds intent, health and release state themselves, not the admission derived from them: so a probe result
//! and an operator's order change one field each, and no writer can undo another's. Because a claim checks the
//! admission and counts itself in one step, a fence holds at once, even for a request that decided on an older snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::admission::{Admission, Health, Intent, ReleaseState, admission};

const IN_FLIGHT: u64 = 0xffff_ffff;
const INTENT_SHIFT: u32 = 32;
const HEALTH_SHIFT: u32 = 36;
const STATE_SHIFT: u32 = 40;
const FENCED: u64 = 1 << 44;
const FIELD: u64 = 0xf;

/// The word. Readers see all fields of one moment.
#[derive(Debug)]
pub struct Gate(AtomicU64);

/// All fields of a [`Gate`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateReading {
    /// What the operator wants.
    pub intent: Intent,
    /// What probing found.
    pub health: Health,
    /// Of the release it belongs to.
    pub state: ReleaseState,
    /// A finished drain of this backend or its release closed it.
    pub fenced: bool,
    /// Exchanges under way, tunnels and long answers included.
    pub in_flight: u32,
}

impl GateReading {
    fn unpack(word: u64) -> GateReading {
        let pick = |shift: u32| usize::try_from((word >> shift) & FIELD).unwrap_or_default();
        GateReading {
            intent: Intent::ALL.get(pick(INTENT_SHIFT)).copied().unwrap_or_default(),
            health: Health::ALL.get(pick(HEALTH_SHIFT)).copied().unwrap_or_default(),
            state: ReleaseState::ALL.get(pick(STATE_SHIFT)).copied().unwrap_or_default(),
            fenced: word & FENCED != 0,
            in_flight: u32::try_from(word & IN_FLIGHT).unwrap_or(u32::MAX),
        }
    }

    /// Who may enter now.
    pub fn admission(&self) -> Admission {
        if self.fenced { Admission::Nobody } else { admission(self.intent, self.health, self.state) }
    }
}

impl Gate {
    /// A gate with nothing in flight and no fence.
    pub fn new(intent: Intent, health: Health, state: ReleaseState) -> Gate {
        let gate = Gate(AtomicU64::new(0));
        gate.set_intent(intent);
        gate.set_health(health);
        gate.set_state(state);
        gate
    }

    /// All fields at this moment.
    pub fn read(&self) -> GateReading {
        GateReading::unpack(self.0.load(Ordering::Acquire))
    }

    /// Who may enter at this moment.
    pub fn admission(&self) -> Admission {
        self.read().admission()
    }

    /// Exchanges under way.
    pub fn in_flight(&self) -> u32 {
        self.read().in_flight
    }

    /// Enters, unless the gate admits less than `need`, or `limit` exchanges are under way already.
    ///
    /// The returned guard leaves when it is dropped, also when a panic or an abort drops it.
    ///
    /// # Errors
    /// [`ClaimError`] says which of the two it was.
    pub fn claim(self: &Arc<Gate>, need: Admission, limit: Option<u32>) -> Result<InFlight, ClaimError> {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let reading = GateReading::unpack(word);
            if reading.admission() < need {
                return Err(ClaimError::Closed);
            }
            if limit.is_some_and(|limit| reading.in_flight >= limit) || reading.in_flight == u32::MAX {
                return Err(ClaimError::Full);
            }
            match self.0.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(InFlight(Arc::clone(self))),
                Err(seen) => word = seen,
            }
        }
    }

    /// Sets what the operator wants. Anything but a drain lifts a fence: it was the fence of that drain.
    pub fn set_intent(&self, intent: Intent) {
        let lift = if intent == Intent::Drain { 0 } else { FENCED };
        self.set(INTENT_SHIFT, intent as u64, lift);
    }

    /// Sets what probing found; returns what it was before.
    pub fn set_health(&self, health: Health) -> Health {
        GateReading::unpack(self.set(HEALTH_SHIFT, health as u64, 0)).health
    }

    /// Sets the state of the release. An open state lifts a fence, for the release is back in service; but not that of a
    /// backend whose own drain has ended and whose intent is still to drain.
    pub fn set_state(&self, state: ReleaseState) {
        let change = |word: u64| {
            let lift = if state.open() && GateReading::unpack(word).intent != Intent::Drain { FENCED } else { 0 };
            Some((word & !(FIELD << STATE_SHIFT) & !lift) | ((state as u64) << STATE_SHIFT))
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).unwrap_or_else(|same| same);
    }

    fn set(&self, shift: u32, value: u64, clear: u64) -> u64 {
        let change = |word: u64| Some((word & !(FIELD << shift) & !clear) | (value << shift));
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).unwrap_or_else(|same| same)
    }

    /// Closes the gate if nothing is in flight and it admits at most known sessions; afterwards no claim succeeds.
    ///
    /// A session can only be born while an exchange is in flight, so once this returns true the session count can no
    /// longer grow. The caller reads the count again afterwards, and lifts the fence if it is not zero.
    pub fn fence(&self) -> bool {
        let close = |word: u64| {
            let reading = GateReading::unpack(word);
            (reading.in_flight == 0 && reading.admission() < Admission::Everyone).then_some(word | FENCED)
        };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, close).is_ok()
    }

    /// Closes it as it was left by a process before, whose drain had proven that nobody is inside.
    pub fn close_again(&self) {
        self.0.fetch_or(FENCED, Ordering::AcqRel);
    }

    /// Opens a fenced gate again.
    pub fn lift_fence(&self) {
        self.0.fetch_and(!FENCED, Ordering::AcqRel);
    }
}

/// Why a claim failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// The gate admits less than the claim needs: decide again.
    Closed,
    /// `max_connections` exchanges are under way: queue.
    Full,
}

/// One exchange inside a gate; leaving is dropping it.
#[derive(Debug)]
pub struct InFlight(Arc<Gate>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(state: ReleaseState) -> Arc<Gate> {
        Arc::new(Gate::new(Intent::Serve, Health::Up, state))
    }

    #[test]
    fn a_guard_counts_until_it_is_dropped() {
        let gate = gate(ReleaseState::Current);
        let first = gate.claim(Admission::Everyone, None);
        let second = gate.claim(Admission::KnownSessions, None);
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(gate.in_flight(), 2);
        drop((first, second));
        assert_eq!(gate.in_flight(), 0);
    }

    #[test]
    fn a_claim_needs_admission_and_room() {
        let current = gate(ReleaseState::Current);
        let draining = gate(ReleaseState::Draining);
        assert_eq!(draining.claim(Admission::Everyone, None).err(), Some(ClaimError::Closed));
        assert!(draining.claim(Admission::KnownSessions, None).is_ok());
        let held = current.claim(Admission::Everyone, Some(1));
        assert!(held.is_ok());
        assert_eq!(current.claim(Admission::KnownSessions, Some(1)).err(), Some(ClaimError::Full));
    }

    #[test]
    fn a_fence_waits_for_the_last_exchange_and_then_holds() {
        let gate = gate(ReleaseState::Fencing);
        let last = gate.claim(Admission::KnownSessions, None);
        assert!(!gate.fence(), "an exchange is in flight");
        drop(last);
        assert!(gate.fence());
        assert_eq!(gate.claim(Admission::KnownSessions, None).err(), Some(ClaimError::Closed));
        assert_eq!(gate.admission(), Admission::Nobody);
        gate.lift_fence();
        assert!(gate.claim(Admission::KnownSessions, None).is_ok());
    }

    #[test]
    fn an_open_gate_cannot_be_fenced() {
        assert!(!gate(ReleaseState::Current).fence());
    }

    #[test]
    fn a_promotion_lifts_the_fence_of_its_release_and_not_that_of_a_drained_backend() {
        let check = |intent, fenced: bool| {
            let gate = gate(ReleaseState::Fencing);
            gate.set_intent(intent);
            assert!(gate.fence());
            gate.set_state(ReleaseState::Drained);
            gate.set_state(ReleaseState::Current);
            assert_eq!(gate.read().fenced, fenced, "{intent:?}");
            gate.set_intent(Intent::Serve);
            assert_eq!(gate.admission(), Admission::Everyone);
        };
        check(Intent::Serve, false);
        check(Intent::Drain, true);
    }

    #[test]
    fn fields_do_not_disturb_each_other() {
        let gate = gate(ReleaseState::Draining);
        let held = gate.claim(Admission::KnownSessions, None);
        gate.set_intent(Intent::Drain);
        assert_eq!(gate.set_health(Health::Stalled), Health::Up);
        gate.set_state(ReleaseState::Fencing);
        let expected =
            GateReading { intent: Intent::Drain, health: Health::Stalled, state: ReleaseState::Fencing, fenced: false, in_flight: 1 };
        assert_eq!(gate.read(), expected);
        drop(held);
    }

    #[test]
    fn a_fence_and_racing_claims_never_both_win() {
        for _ in 0..2_000 {
            let gate = gate(ReleaseState::Fencing);
            let (fenced, claimed) = std::thread::scope(|scope| {
                let claimer = scope.spawn(|| gate.claim(Admission::KnownSessions, None));
                let fenced = gate.fence();
                (fenced, claimer.join().expect("the claimer does not panic"))
            });
            if fenced && claimed.is_ok() {
                // The claim came first and had left? It cannot have: its guard is still held here.
                panic!("a fenced gate holds an exchange");
            }
        }
    }
}
