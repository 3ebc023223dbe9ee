//! What the ledger makes of answers. A row reads: what it knows of session `A` on a1, what the answer says, and what is then live there
//! and open, by name.

use std::sync::Arc;

use super::*;
use crate::model::admission::Admission;
use crate::model::reason::PinResult;
use crate::model::sketch::World;

const A: SessionKey = SessionKey([1; 16]);
const B: SessionKey = SessionKey([2; 16]);

fn forward(world: &World, backend: &str, reason: Reason) -> Forward {
    let moves = reason != Reason::Returned;
    Forward {
        backend: Arc::clone(world.backend(backend)),
        need: Admission::KnownSessions,
        reason,
        pin: PinResult::None,
        strip: moves,
        footing: if moves { Footing::New } else { Footing::Unknown },
        stands_in: false,
    }
}

/// A world in which v1 drains, and in which the ledger knows `A` as told: `live`, `candidate`, `unknown`.
fn world(known: &str) -> World {
    let world = World::new("v1:a1 >v2:b1");
    let (ledger, slot) = (&world.shop().ledger, world.backend("a1").slot);
    match known {
        "live" => {
            ledger.born(A, slot, 0, world.now);
            ledger.enter(A, Attention::Foreground, world.now);
            ledger.leave(A, world.now);
        }
        "candidate" => {
            assert_eq!(ledger.adopt(A, slot, Adoption::Unsigned, world.now, world.now), Adopted::Candidate);
        }
        _ => {}
    }
    world
}

fn facts(world: &World, key: Option<SessionKey>) -> Facts {
    let session = key.and_then(|key| world.shop().ledger.find(key, world.now));
    Facts { key, carrier: None, session, pin: PinClaim::None, refresh: false }
}

fn begin(world: &World, facts: &Facts, forward: &Forward) -> Visit {
    Visit::begin(&world.shop().ledger, facts, forward, Attention::Foreground, world.now, world.now).0
}

/// Opens a WebSocket on a1: whose session is confirmed and has how many open exchanges while it is open, and in the end.
#[track_caller]
fn check(known: &str, heard: Heard, open: Option<SessionKey>) {
    let mut world = world(known);
    let ledger = Arc::clone(&world.shop().ledger);
    let facts = facts(&world, (known != "none").then_some(A));
    let mut visit = begin(&world, &facts, &forward(&world, "a1", Reason::Returned));
    let former = visit.counted();
    visit.hear_tunnel(&ledger, heard, world.now);
    if let Some(former) = former.filter(|former| visit.counted() != Some(*former)) {
        ledger.leave(former, world.now);
    }
    assert_eq!(visit.counted(), open, "{known} {heard:?}");
    let idle = world.shop().settings.session.idle_timeout;
    for _ in 0..3 {
        world.pass(idle);
    }
    let found = open.and_then(|key| ledger.find(key, world.now)).map(|found| (found.standing, found.open));
    let lives = (Standing::Live { confirmed: true }, 1);
    assert_eq!(found, open.map(|_| lives), "{known} {heard:?}: alive while it is open");
    assert_eq!(world.backend("a1").live.counts.live(), u64::from(open.is_some()), "{known} {heard:?}");
    let Some(key) = visit.counted() else { return };
    ledger.leave(key, world.now);
    world.pass(idle);
    assert_eq!(ledger.find(key, world.now).map(|found| found.standing), Some(Standing::Ended(EndReason::Idle)), "{known} {heard:?}");
}

#[test]
fn a_session_is_alive_while_a_tunnel_is_open() {
    check("none", Heard::Nothing, None);
    check("none", Heard::Set(B, 0), Some(B));
    check("unknown", Heard::Nothing, Some(A));
    check("unknown", Heard::Set(A, 0), Some(A));
    check("unknown", Heard::Set(B, 0), Some(B));
    check("unknown", Heard::Failure, None);
    check("candidate", Heard::Nothing, Some(A));
    check("candidate", Heard::Set(B, 0), Some(B));
    check("live", Heard::Nothing, Some(A));
    // Renamed: it is held by its new name, so the older one need not live as long as the tunnel.
    check("live", Heard::Set(B, 0), Some(B));
}

#[test]
fn a_session_is_left_behind_at_a_move_point_only() {
    let check = |reason, lives: bool| {
        let world = world("live");
        begin(&world, &facts(&world, Some(A)), &forward(&world, "b1", reason));
        let found = world.shop().ledger.find(A, world.now).map(|found| found.standing);
        let expected = if lives { Standing::Live { confirmed: true } } else { Standing::Ended(EndReason::Moved) };
        assert_eq!(found, Some(expected), "{reason:?}");
    };
    check(Reason::MovePoint, false);
    // Not the session of a parallel request, which came to life while this one was sent on.
    check(Reason::Replayed, true);
    check(Reason::Moved, true);
    check(Reason::MovedWithin, true);
}

/// After its backend was away, the answers to requests of session `A` that were all decided before the first of them: what a1's
/// counts are then, as sessions lost, renamed, born and alive.
#[track_caller]
fn check_doubt(answers: &[Heard], expected: [u64; 4]) {
    let world = world("live");
    let (ledger, live) = (&world.shop().ledger, &world.backend("a1").live);
    live.counts.doubt();
    let facts = facts(&world, Some(A));
    let visits = answers.iter().map(|heard| (begin(&world, &facts, &forward(&world, "a1", Reason::Returned)), heard));
    for (mut visit, heard) in visits.collect::<Vec<_>>() {
        visit.hear(ledger, *heard, world.now);
    }
    let counts = &live.counts;
    let found = [counts.lost(LossCause::Restart), counts.rotated(), counts.born(), counts.live() + counts.unconfirmed()];
    assert_eq!(found, expected, "{answers:?}");
}

#[test]
fn after_a_suspected_restart_each_session_is_judged_by_its_own_answer() {
    const C: SessionKey = SessionKey([3; 16]);
    check_doubt(&[Heard::Set(B, 0)], [1, 0, 2, 1]);
    check_doubt(&[Heard::Nothing, Heard::Set(B, 0)], [0, 1, 1, 1]);
    check_doubt(&[Heard::Set(A, 0), Heard::Set(B, 0)], [0, 1, 1, 1]);
    // An error says nothing.
    check_doubt(&[Heard::Failure, Heard::Set(B, 0)], [1, 0, 2, 1]);
    // A page and its parts ask at once, and each gets a session of its own: one was lost.
    check_doubt(&[Heard::Set(B, 0), Heard::Set(C, 0)], [1, 0, 3, 2]);
    check_doubt(&[Heard::Set(B, 0), Heard::Nothing], [1, 0, 2, 1]);
}
