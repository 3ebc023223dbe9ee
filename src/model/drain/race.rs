//! The fence against the world: threads that enter, make sessions and leave at any moment, while the drain is stepped.
//!
//! Rounds are short and many, for what is looked for lasts some nanoseconds: the moment between the count and the fence.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};

use super::*;
use crate::model::admission::{Admission, ReleaseState};
use crate::model::decide::{Footing, Forward, PinClaim};
use crate::model::facts::Facts;
use crate::model::ledger::{Adoption, Attention, Standing};
use crate::model::reason::{PinResult, Reason};
use crate::model::session_key::SessionKey;
use crate::model::sketch::World;
use crate::model::visit::{Heard, Visit};
use crate::model::xorshift::Xorshift;

const ROUNDS: u64 = 20_000;
const VISITORS: u64 = 3;
/// What a step of the drain lasts, in turns of [`spin`].
const ABOUT_A_STEP: usize = 800;
/// Backends of the release.
const IDLERS: u64 = 24;
/// Exchanges of each visitor in a round.
const VISITS: u64 = 2;

/// A request without a session.
const NOBODY: Facts = Facts { key: None, carrier: None, session: None, pin: PinClaim::None, refresh: false };

/// What all threads of the race see.
struct Race {
    world: World,
    /// The drain of this round has said so.
    drained: AtomicBool,
    born: AtomicU64,
    refused: AtomicU64,
    turn: Barrier,
    /// Told at the end: a thread that panics would leave the others waiting for it.
    faults: Mutex<BTreeMap<&'static str, u64>>,
}

impl Race {
    /// Comes and goes as an exchange does: the gate, the ledger, the answer, the ledger, the gate; then logs out. Some are strangers
    /// who bring an id from before the ledger.
    fn visit(&self, key: SessionKey, dice: &mut Xorshift) {
        let (backend, ledger, now) = (self.world.backend("a1"), &self.world.shop().ledger, self.world.now);
        let was_drained = self.drained.load(SeqCst);
        let Ok(inside) = backend.live.gate.claim(Admission::KnownSessions, None) else {
            self.refused.fetch_add(1, SeqCst);
            return;
        };
        self.require(!was_drained, "somebody entered behind the fence");
        let forward = Forward {
            backend: Arc::clone(backend),
            need: Admission::KnownSessions,
            reason: Reason::Pinned,
            pin: PinResult::None,
            strip: false,
            footing: Footing::New,
            stands_in: false,
        };
        let (mut visit, _) = Visit::begin(ledger, &NOBODY, &forward, Attention::Foreground, now, now);
        spin(dice, 20);
        if dice.below(4) == 0 {
            ledger.adopt(key, backend.slot, Adoption::Unsigned, now, now);
        } else {
            visit.hear(ledger, Heard::Set(key, 0), now);
        }
        self.born.fetch_add(1, SeqCst);
        self.require(!self.drained.load(SeqCst), "drained while an exchange is in flight");
        drop(inside);
        // Whoever has not logged out lives, and must have kept the drain open.
        let lives = ledger.find(key, now).is_some_and(|found| matches!(found.standing, Standing::Live { .. } | Standing::Candidate));
        self.require(lives, "a session is lost");
        spin(dice, ABOUT_A_STEP);
        self.require(!self.drained.load(SeqCst), "drained while a session lives");
        ledger.end(key, EndReason::Logout, 0, now);
    }

    fn require(&self, holds: bool, or: &'static str) {
        if !holds {
            *self.faults.lock().unwrap().entry(or).or_insert(0) += 1;
        }
    }

    fn visitor(&self, id: u64) {
        let mut dice = Xorshift(id * 7919 + 1);
        for round in 0..ROUNDS {
            self.turn.wait();
            for visit in 0..VISITS {
                spin(&mut dice, ABOUT_A_STEP);
                let mut key = [0; 16];
                // The first half finds the place in the table, the last octet the shard.
                key[..8].copy_from_slice(&(((round * VISITORS + id) * VISITS + visit).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
                key[15] = id as u8;
                self.visit(SessionKey(key), &mut dice);
            }
            self.turn.wait();
        }
    }

    /// Steps a drain until it is drained; answers how often it was opened again.
    fn drain(&self, dice: &mut Xorshift) -> u64 {
        let gate = &self.world.backend("a1").live.gate;
        let target = Target::parse("shop/v1").expect("a target");
        let mut drain = Drain::new(1, target, Owner::Operator, &self.world.view, self.world.now);
        let mut reopened = 0;
        self.turn.wait();
        loop {
            match drain.step(&self.world.view, self.world.now) {
                Step::Drained => break,
                Step::Reopened => reopened += 1,
                // On a busy machine nobody else would come to run: the controller takes a tenth of a second between two steps.
                Step::Fencing if dice.below(2) == 0 => std::thread::yield_now(),
                Step::Fencing => spin(dice, ABOUT_A_STEP),
                Step::Same => {}
            }
        }
        self.drained.store(true, SeqCst);
        self.require(self.world.backend("a1").sessions() == 0, "drained with a session");
        self.require(gate.in_flight() == 0, "drained with an exchange in flight");
        self.require(gate.admission() == Admission::Nobody, "drained with an open gate");
        self.turn.wait();
        self.drained.store(false, SeqCst);
        // Back in service, and out of it again.
        for (_, backend) in drain.target.backends(&self.world.view) {
            backend.live.gate.set_state(ReleaseState::Current);
            backend.live.gate.set_state(ReleaseState::Draining);
        }
        reopened
    }
}

/// Up to so many moments of some ten nanoseconds.
fn spin(dice: &mut Xorshift, most: usize) {
    for _ in 0..dice.below(most) {
        std::hint::spin_loop();
    }
}

#[test]
fn no_race_gets_past_the_fence() {
    // All visit the first one. The others make the moment longer in which it has been counted and not been fenced.
    let idlers: Vec<String> = (1..=IDLERS).map(|n| format!("a{n}")).collect();
    let race = Race {
        world: World::new(&format!("v1:{} >v2:b1", idlers.join(","))),
        drained: AtomicBool::new(false),
        born: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        turn: Barrier::new(VISITORS as usize + 1),
        faults: Mutex::default(),
    };
    let (mut reopened, mut dice) = (0, Xorshift(99));
    std::thread::scope(|scope| {
        for id in 0..VISITORS {
            let race = &race;
            scope.spawn(move || race.visitor(id));
        }
        for _ in 0..ROUNDS {
            reopened += race.drain(&mut dice);
        }
    });
    assert!(race.faults.lock().unwrap().is_empty(), "{:?}", race.faults.lock().unwrap());
    let (born, refused) = (race.born.load(SeqCst), race.refused.load(SeqCst));
    assert_eq!(born + refused, ROUNDS * VISITORS * VISITS);
    assert!(born > ROUNDS && refused > 0 && reopened > 0, "born {born}, refused {refused}, reopened {reopened}");
    println!("born {born}, refused {refused}, reopened {reopened}");
}
