//! Drains on one proxy of a pair.

use std::time::Duration;

use super::tables::{IDLE, begin, deployed, exchange, session, steps};
use super::{Drain, Step};
use crate::model::reason::Reason;
use crate::model::settings::KeySpec;
use crate::model::sketch::{self, World};

/// v1 drains, with keys, as where another proxy serves the app too.
fn paired() -> World {
    World::with("v1:a1,a2 >v2:b1", |settings| {
        settings.session.keys = vec![KeySpec { id: "k1".to_owned(), file: "k1.key".to_owned() }];
    })
}

/// Somebody comes by in each of so many seconds.
fn visitors(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.pass(Duration::from_secs(1));
        world.shop().tally.decided(Reason::New);
        world.shop().tally.observe_visits(IDLE, world.now);
    }
}

fn told(world: &World, drain: &Drain) -> String {
    drain.doubt(&world.view, world.now).unwrap_or_default()
}

#[test]
fn a_standby_that_nobody_comes_by_proves_nothing() {
    let nobody = "nobody has come by since the drain began: this proxy may be a standby";
    let mut world = paired();
    let mut drain = begin(&world, "shop/v1");
    for _ in 0..3 {
        world.pass(IDLE);
        steps(&mut world, &mut drain, &[Step::Same]);
        assert_eq!(told(&world, &drain), nobody);
        assert!(drain.stands_by(&world.view, world.now));
    }
    assert_eq!(
        told(&world, &Drain::recall(&drain.remember(&world.view), &world.view).expect("its own words")),
        nobody,
        "nor after a restart"
    );
    // The address moves to it. Whoever is alive comes within one idle timeout, not within the first second.
    visitors(&mut world, 1);
    steps(&mut world, &mut drain, &[Step::Same]);
    assert!(!drain.stands_by(&world.view, world.now));
    world.pass(IDLE - Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Same]);
    assert_eq!(told(&world, &drain), "a1: seen for 29m of 30m");
    world.pass(Duration::from_secs(1));
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
    assert!(!drain.stands_by(&world.view, world.now));
}

#[test]
fn a_proxy_that_people_come_by_is_as_sure_as_a_lone_one_with_the_next_of_them() {
    let mut world = paired();
    visitors(&mut world, 1800);
    let mut drain = begin(&world, "shop/v1");
    steps(&mut world, &mut drain, &[Step::Same]);
    visitors(&mut world, 1);
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
}

#[test]
fn a_proxy_that_took_over_of_late_waits_until_it_has_seen_everybody() {
    let mut world = paired();
    visitors(&mut world, 60);
    let mut drain = begin(&world, "shop/v1");
    visitors(&mut world, 1739);
    steps(&mut world, &mut drain, &[Step::Same]);
    visitors(&mut world, 2);
    steps(&mut world, &mut drain, &[Step::Fencing, Step::Drained]);
}

#[test]
fn only_an_empty_drain_that_lacks_nothing_but_visitors_stands_by() {
    let check = |world: &World, expected: bool| assert_eq!(begin(world, "shop/v1").stands_by(&world.view, world.now), expected);
    let mut world = paired();
    check(&world, true);
    check(&deployed(), false);
    session(&world, 1, "a1", false);
    check(&world, false);
    world.pass(IDLE);
    world.shop().ledger.sweep(world.now);
    check(&world, true);
    let inside = exchange(&world, "a2");
    check(&world, false);
    drop(inside);
    check(&world, true);
    world.now = sketch::START;
    check(&world, false);
}

#[test]
fn a_watchdog_s_own_requests_are_no_visits() {
    let mut world = paired();
    let mut drain = begin(&world, "shop/v1");
    world.shop().tally.ignored();
    world.shop().tally.decided(Reason::New);
    steps(&mut world, &mut drain, &[Step::Same]);
    assert!(told(&world, &drain).starts_with("nobody"));
}
