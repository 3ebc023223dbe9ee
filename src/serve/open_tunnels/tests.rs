//! Whose tunnel is closed, and when.

use super::*;
use crate::model::ledger::{Attention, EndReason};
use crate::model::sketch::World;
use crate::serve::transport::Tunnel;

const PATIENCE: Duration = Duration::from_secs(30);
const KEY: SessionKey = SessionKey([7; 16]);

/// An app with `v1` (a1, current) and `v2` (b1, promoted if told so).
fn world(tunnels: Option<Duration>) -> World {
    World::with(">v1:a1 v2:b1", |settings| settings.drain.tunnels = tunnels)
}

/// Tells a story about the tunnel of session [`KEY`] on a1: is it open in the end?
#[track_caller]
fn check(
    what: &str,
    tunnels: Option<Duration>,
    key: Option<SessionKey>,
    story: impl FnOnce(&mut World, &mut dyn FnMut(&World)),
    open: bool,
) {
    let mut world = world(tunnels);
    let (all, tunnel) = (OpenTunnels::default(), Tunnel::new());
    let slot = world.backend("a1").slot;
    let ledger = Arc::clone(&world.shop().ledger);
    ledger.born(KEY, slot, 0, world.now);
    ledger.enter(KEY, Attention::Foreground, world.now);
    let _entry = all.enter(&Arc::clone(world.shop()), slot, key, tunnel.handle(), world.now);
    let mut look = |world: &World| drop(all.close_outliving(&world.view, world.now));
    story(&mut world, &mut look);
    look(&world);
    assert_eq!(!tunnel.handle().is_closed(), open, "{what}");
}

fn promote(world: &mut World) {
    world.command("promote v2").map(drop).expect("v2 can be promoted");
}

fn end(world: &World, reason: EndReason) {
    assert!(world.shop().ledger.end(KEY, reason, 0, world.now));
}

#[test]
fn a_tunnel_is_closed_so_long_after_its_session_ended_where_sessions_drain() {
    let on = Some(PATIENCE);
    let (nearly, more) = (PATIENCE - Duration::from_secs(1), Duration::from_secs(2));
    for reason in [EndReason::Logout, EndReason::Evicted, EndReason::Lifetime, EndReason::Lost] {
        let early = |world: &mut World, _: &mut dyn FnMut(&World)| {
            promote(world);
            end(world, reason);
            world.pass(nearly);
        };
        check("its time has not come", on, Some(KEY), early, true);
        let late = |world: &mut World, look: &mut dyn FnMut(&World)| {
            early(world, look);
            world.pass(more);
        };
        check("ended and waited for", on, Some(KEY), late, false);
        check("waited for without limit", None, Some(KEY), late, true);
    }
    let serving = |world: &mut World, _: &mut dyn FnMut(&World)| {
        end(world, EndReason::Logout);
        world.pass(nearly + more);
    };
    check("on a backend that serves", on, Some(KEY), serving, true);
    let later = |world: &mut World, look: &mut dyn FnMut(&World)| {
        serving(world, look);
        promote(world);
    };
    check("the time counts from the session's end, not from the drain's beginning", on, Some(KEY), later, false);
    let alive = |world: &mut World, look: &mut dyn FnMut(&World)| {
        promote(world);
        for _ in 0..1000 {
            world.pass(PATIENCE);
            look(world);
        }
    };
    check("an open exchange keeps its session alive", on, Some(KEY), alive, true);
}

#[test]
fn a_tunnel_without_a_session_here_is_closed_too() {
    let on = Some(PATIENCE);
    let waited = |world: &mut World, look: &mut dyn FnMut(&World)| {
        promote(world);
        look(world);
        world.pass(PATIENCE);
    };
    check("it never had a session", on, None, waited, false);
    check("the ledger never knew it", on, Some(SessionKey([8; 16])), waited, false);
    let briefly = |world: &mut World, look: &mut dyn FnMut(&World)| {
        world.pass(PATIENCE);
        promote(world);
        look(world);
    };
    check("nobody knows when it ended: the time counts from the first look", on, Some(SessionKey([8; 16])), briefly, true);
    let moved = |world: &mut World, look: &mut dyn FnMut(&World)| {
        promote(world);
        let there = world.backend("b1").slot;
        assert!(world.shop().ledger.relocate(KEY, there, world.now));
        look(world);
        world.pass(PATIENCE);
    };
    check("it lives on another backend now", on, Some(KEY), moved, false);
    let renamed = |world: &mut World, look: &mut dyn FnMut(&World)| {
        promote(world);
        let here = world.backend("a1").slot;
        world.shop().ledger.rotate(KEY, SessionKey([9; 16]), here, 0, None, world.now);
        for _ in 0..10 {
            look(world);
            world.pass(PATIENCE);
        }
    };
    check("it was renamed at login", on, Some(KEY), renamed, true);
}

#[test]
fn an_ended_exchange_leaves_the_open_tunnels() {
    let world = world(Some(PATIENCE));
    let (all, tunnel) = (OpenTunnels::default(), Tunnel::new());
    let entry = all.enter(world.shop(), 0, None, tunnel.handle(), world.now);
    assert_eq!(all.0.lock().len(), 1);
    drop(entry);
    assert_eq!(all.0.lock().len(), 0);
}
