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
    let backend = Arc::clone(world.backend("a1"));
    let ledger = Arc::clone(&world.shop().ledger);
    ledger.born(KEY, backend.slot, 0, world.now);
    ledger.enter(KEY, Attention::Foreground, world.now);
    let _entry = all.enter(&Arc::clone(world.shop()), &backend, key, tunnel.handle(), world.now);
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
    let entry = all.enter(world.shop(), world.backend("a1"), None, tunnel.handle(), world.now);
    assert_eq!(lock(&all.0.open).len(), 1);
    drop(entry);
    assert_eq!(lock(&all.0.open).len(), 0);
}

/// The number of `count` tunnels without a session that are closed after each second of a drain.
#[track_caller]
fn check_pace(settings: impl FnOnce(&mut crate::model::settings::Settings), evicts_after: Option<u64>, count: usize, expected: &[usize]) {
    let mut world = World::with(">v1:a1 v2:b1", settings);
    promote(&mut world);
    let (all, backend) = (OpenTunnels::default(), Arc::clone(world.backend("a1")));
    let tunnels: Vec<Tunnel> = (0..count).map(|_| Tunnel::new()).collect();
    let app = Arc::clone(world.shop());
    let entries: Vec<_> = tunnels.iter().map(|tunnel| all.enter(&app, &backend, None, tunnel.handle(), world.now)).collect();
    let deadline = evicts_after.map(|after| world.now + Duration::from_secs(after));
    backend.live.set_deadline(deadline, deadline);
    let closed = |_: &usize| {
        world.pass(Duration::from_secs(1));
        all.close_outliving(&world.view, world.now).into_iter().map(|(_, count)| count as usize).sum()
    };
    assert_eq!(expected.iter().map(closed).collect::<Vec<usize>>(), expected);
    drop(entries);
}

#[test]
fn no_more_are_closed_at_a_time_than_sessions_are_evicted() {
    let paced = |settings: &mut crate::model::settings::Settings| {
        settings.drain.tunnels = Some(Duration::ZERO);
        settings.drain.evict_per_second = 2;
    };
    check_pace(paced, None, 5, &[2, 2, 1, 0]);
}

#[test]
fn what_is_in_the_way_of_evictions_is_closed_by_their_deadline_and_begun_in_time() {
    let paced = |settings: &mut crate::model::settings::Settings| settings.drain.evict_per_second = 2;
    check_pace(paced, None, 4, &[0; 12]);
    // Four take two seconds, and it is over two seconds early.
    check_pace(paced, Some(10), 4, &[0, 0, 0, 0, 0, 2, 2, 0, 0, 0]);
    let near = |known: Option<SessionKey>, reason: Option<EndReason>, open: bool| {
        let story = |world: &mut World, _: &mut dyn FnMut(&World)| {
            promote(world);
            if let Some(reason) = reason {
                end(world, reason);
            }
            let now = Some(world.now);
            world.backend("a1").live.set_deadline(now, now);
        };
        check(&format!("{known:?} {reason:?}"), None, known, story, open);
    };
    near(Some(KEY), Some(EndReason::Evicted), false);
    near(Some(KEY), Some(EndReason::Logout), false);
    near(None, None, false);
    near(Some(KEY), None, true);
}

#[test]
fn an_app_is_looked_at_once_a_second() {
    let mut world = world(Some(Duration::ZERO));
    promote(&mut world);
    let (all, tunnel) = (OpenTunnels::default(), Tunnel::new());
    all.close_outliving(&world.view, world.now);
    let _entry = all.enter(&Arc::clone(world.shop()), world.backend("a1"), None, tunnel.handle(), world.now);
    world.pass(LOOK / 2);
    assert_eq!(all.close_outliving(&world.view, world.now), []);
    world.pass(LOOK / 2);
    assert_eq!(all.close_outliving(&world.view, world.now), [("shop/v1/a1".to_owned(), 1)]);
}
