//! Commands and what they do to the releases, told as `v1 draining, v2 current`.

use std::time::Duration;

use super::*;
use crate::model::admission::{Admission, Health};
use crate::model::ledger::{Attention, Born};
use crate::model::session_key::SessionKey;
use crate::model::settings::{Settings, WhenAllDraining};
use crate::model::sketch::{self, START, World};

/// A session on `backend` whose client has come back.
fn session(world: &World, id: u8, backend: &str) {
    let (key, slot) = (SessionKey([id; 16]), world.backend(backend).slot);
    assert_eq!(world.shop().ledger.born(key, slot, 0, world.now), Born::New);
    world.shop().ledger.enter(key, Attention::Foreground, world.now);
    world.shop().ledger.leave(key, world.now);
}

fn states(world: &World) -> String {
    let told = |release: &Arc<crate::model::view::Release>| {
        for backend in &release.backends {
            assert_eq!(backend.live.gate.read().state, release.state, "gate of {}", backend.spec.name);
        }
        format!("{} {}", release.name, release.state.as_str())
    };
    world.shop().releases.iter().map(told).collect::<Vec<_>>().join(", ")
}

/// Plays the commands, of which all but the last must succeed, and tells the outcome of the last: the states, or the refusal. A
/// word `a1=down` is a probe, `a1+` a session there, `settle v1 drained` the controller.
fn play(drawn: &str, commands: &[&str]) -> (World, String) {
    let mut world = World::new(drawn);
    let mut outcome = states(&world);
    for (nth, command) in commands.iter().enumerate() {
        world.now = world.now + std::time::Duration::from_secs(60);
        let applied = if let Some((name, health)) = command.split_once('=') {
            world.observe(name, Health::ALL.into_iter().find(|h| h.as_str() == health).expect("a health"));
            Ok(Applied::default())
        } else if let Some(backend) = command.strip_suffix('+') {
            session(&world, nth as u8 + 1, backend);
            Ok(Applied::default())
        } else if let Some((release, state)) = command.strip_prefix("settle ").and_then(|rest| rest.split_once(' ')) {
            let state = ReleaseState::ALL.into_iter().find(|s| s.as_str() == state).expect("a state");
            world.change(&Change::Settle { app: "shop".to_owned(), release: release.to_owned(), state }, Owner::Controller)
        } else {
            world.command(command)
        };
        let current = world.shop().releases.iter().filter(|r| r.state == ReleaseState::Current).count();
        assert_eq!(current, usize::from(world.shop().current.is_some()), "{command}: exactly one current release");
        outcome = match applied {
            Ok(_) => states(&world),
            Err(refused) => format!("{:?}: {}; {}", refused.kind, refused.what, refused.remedy),
        };
        assert!(nth + 1 == commands.len() || !outcome.contains(": "), "{command}: {outcome}");
    }
    (world, outcome)
}

fn check(drawn: &str, commands: &[&str], expected: &str) {
    assert_eq!(play(drawn, commands).1, expected, "{drawn} | {commands:?}");
}

const UP: &str = "b1=up";

#[test]
fn releases_come_and_go_by_command() {
    check(">v1:a1", &[], "v1 current");
    check("v1:a1 >v2:b1", &[], "v1 draining, v2 current");
    check("v1:a1 v2:b1", &[], "v1 by_health, v2 by_health");
    check(">v1:a1", &["stage v2:b1"], "v1 current, v2 staged");
    check("v1:a1", &["stage v2:b1"], "v1 by_health, v2 by_health");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2"], "v1 draining, v2 current");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2 --from v1"], "v1 draining, v2 current");
    check(">v1:a1", &["stage v2:b1", "promote v2 --force"], "v1 draining, v2 current");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "promote v2"], "v1 draining, v2 current");
    // A pipeline that runs twice names the former release both times.
    check(">v1:a1", &["stage v2:b1", UP, "promote v2 --from v1", "promote v2 --from v1"], "v1 draining, v2 current");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback"], "v1 current, v2 draining");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback v1 --from v2"], "v1 current, v2 draining");
    // The same rollback again would bring back the release that failed.
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback", "rollback"], "v1 current, v2 draining");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback --from v2", "rollback --from v2"], "v1 current, v2 draining");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback v1", "rollback", "rollback"], "v1 current, v2 draining");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback", "b1=down", "rollback"], "v1 current, v2 draining");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback", "rollback v2"], "v1 draining, v2 current");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback", "promote v1", "rollback"], "v1 current, v2 draining");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback", "promote v2", "rollback"], "v1 current, v2 draining");
    check("v1:a1 >v2:b1", &["stage v3:c1", "c1=up", "promote v3", "rollback", "rollback"], "v1 draining, v2 current, v3 draining");
    check("v1:a1 v2:b1 >v3:c1", &["rollback v1"], "v1 current, v2 draining, v3 draining");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "settle v1 fencing"], "v1 fencing, v2 current");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "settle v1 drained", "rollback"], "v1 current, v2 draining");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "stop v1"], "v1 stopped, v2 current");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "stop v1", "stop v1"], "v1 stopped, v2 current");
    check(">v1:a1", &["a1+", "stage v2:b1", UP, "promote v2", "stop v1 --force"], "v1 stopped, v2 current");
    check(">v1:a1", &["stage v2:b1", "stop v2"], "v1 current, v2 stopped");
    check(">v1:a1", &["stage v2:b1", "remove v2"], "v1 current");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback", "settle v2 drained", "remove v2"], "v1 current");
    // By health, an open release can be drained alone and comes back by order.
    check("v1:a1 v2:b1", &["drain shop/v1"], "v1 draining, v2 by_health");
    check("v1:a1 v2:b1", &["drain shop/v1", "drain shop/v1"], "v1 draining, v2 by_health");
    check("v1:a1 v2:b1", &["drain shop/v1", "serve shop/v1"], "v1 by_health, v2 by_health");
    check("v1:a1 v2:b1", &["stop v1"], "v1 stopped, v2 by_health");
    check(">v1:a1", &["serve shop/v1"], "v1 current");
    check("v1:a1 >v2:b1", &["drain shop/v1"], "v1 draining, v2 current");
    check("v1:a1 >v2:b1", &["settle v1 drained", "drain shop/v1"], "v1 drained, v2 current");
}

#[test]
fn a_refusal_names_the_object_and_the_remedy() {
    let deployed: &[&str] = &["stage v2:b1", UP, "promote v2"];
    let after = |commands: &[&'static str]| [deployed, commands].concat();
    let check_after = |commands: &[&'static str], expected: &str| check(">v1:a1", &after(commands), expected);
    check(">v1:a1", &["promote v9"], "NotFound: release 'v9' of app 'shop' does not exist; releases are: v1");
    check(
        ">v1:a1",
        &["stage v1:b1"],
        "Conflict: release 'shop/v1' exists already; releases are immutable: choose another name, or remove the old one first",
    );
    check(
        ">v1:a1",
        &["stage v2:a1"],
        "Conflict: route 'a1' is taken by backend shop/v1/a1; routes are unique in an app: choose another backend name",
    );
    check(">v1:a1", &["stage v2:b1,b1"], "Conflict: backend 'b1' is named or addressed twice; give each backend its own name and address");
    check(
        ">v1:a1",
        &["stage v2:b1", "promote v2"],
        "Conflict: release 'shop/v2' has no healthy backend: b1 is untested; start it and wait for a passing probe, or --force",
    );
    check(
        ">v1:a1",
        &["stage v2:b1", UP, "maintain shop/v2/b1", "promote v2"],
        "Conflict: release 'shop/v2' has no healthy backend: b1 is up and told to maintain; start it and wait for a passing probe, or --force",
    );
    check(
        ">v1:a1",
        &["stage v2:b1", "stage v3:c1", UP, "promote v2", "promote v3 --from v1"],
        "Conflict: app 'shop': current is 'v2', not 'v1'; somebody else was first: look at tidegate status and decide again",
    );
    check(
        "v1:a1 v2:b1",
        &["promote v2"],
        "Conflict: app 'shop' has 'current: by_health'; its backends' health endpoints decide; set 'current:' to a release to promote",
    );
    check(
        ">v1:a1",
        &["rollback"],
        "Conflict: app 'shop' has no release that was current before; name one: tidegate rollback shop --to RELEASE",
    );
    check_after(
        &["rollback --from v1"],
        "Conflict: app 'shop': current is 'v2', not 'v1'; somebody else was first: look at tidegate status and decide again",
    );
    check_after(
        &["rollback", "rollback --from v3"],
        "Conflict: app 'shop': current is 'v1', not 'v3'; somebody else was first: look at tidegate status and decide again",
    );
    check_after(
        &["rollback", "rollback --from v1"],
        "Conflict: app 'shop': 'v1' is current by a rollback from 'v2'; name the one to go back to: tidegate rollback shop --to RELEASE",
    );
    check_after(
        &["a1=down", "rollback"],
        "Conflict: release 'shop/v1' has no healthy backend: a1 is down; start it and wait for a passing probe, or --force",
    );
    check(
        ">v1:a1",
        &["stop v1"],
        "Conflict: release 'shop/v1' takes all new sessions; promote another one first: tidegate promote shop RELEASE",
    );
    check(
        "v1:a1",
        &["stop v1"],
        "Conflict: release 'shop/v1' takes all new sessions; bring another one into service first: tidegate serve shop/RELEASE",
    );
    check_after(
        &["a1+", "stop v1"],
        "Conflict: release 'shop/v1': 1 live sessions, 0 unconfirmed; wait for its drain (tidegate stop shop/v1 --wait), or evict them with --force",
    );
    check(">v1:a1", &["remove v1"], "Conflict: release 'shop/v1' comes from the configuration file; take it out of the file and reload");
    check_after(&["remove v2"], "Conflict: release 'shop/v2' is current; wait until it is drained, or stop it first");
    check(">v1:a1", &["settle v1 drained"], "Conflict: release 'shop/v1' is current and does not drain; none needed");
    check(
        ">v1:a1",
        &["drain shop/v1"],
        "Conflict: release 'shop/v1' takes the new sessions; promote another one and this one drains: tidegate promote shop RELEASE",
    );
    check(
        "v1:a1",
        &["drain shop/v1"],
        "Conflict: release 'shop/v1' takes the new sessions; bring another one into service first: tidegate serve shop/RELEASE",
    );
    check(
        "v1:a1 >v2:b1",
        &["serve shop/v1"],
        "Conflict: release 'shop/v1' is draining; a release returns to service by promotion: tidegate promote shop v1",
    );
    check(">v1:a1", &["stage v2:b1", "drain shop/v2"], "Conflict: release 'shop/v2' is staged; it has no session to drain");
    check(
        ">v1:a1",
        &["maintain shop/v1"],
        "Conflict: 'shop/v1' is a release; stop it (tidegate stop shop/v1), or maintain its backends one by one",
    );
    check(">v1:a1", &["drain shop/v1/a2"], "NotFound: target 'shop/v1/a2' does not exist; nearest: shop/v1/a1, shop/v1, host:10.0.0.1");
    check(
        ">v1:a1",
        &["drain host:10.9.9.9"],
        "NotFound: target 'host:10.9.9.9' does not exist; nearest: host:10.0.0.1, shop/v1, shop/v1/a1",
    );
    check(
        ">v1:a1,a2",
        &["a1+", "maintain shop/v1/a1"],
        "Conflict: target 'shop/v1/a1': 1 live sessions; drain it first (tidegate drain shop/v1/a1 --wait), or --force",
    );
    // Released addresses may be taken over, and then their former release does not come back.
    let empty = |world: &World, app: &str| {
        apply(&world.view, &Change::Remove { app: app.to_owned(), release: "v1".to_owned() }, Owner::Operator, START)
    };
    let refused = empty(&World::new(">v1:a1"), "shopp").expect_err("no such app");
    assert_eq!((refused.what.as_str(), refused.remedy.as_str()), ("app 'shopp' does not exist", "apps are: shop"));
    let nothing = ReleaseSpec { name: "v2".to_owned(), path: None, backends: Vec::new() };
    let refused = World::new(">v1:a1").order(&Change::Stage { app: "shop".to_owned(), release: nothing }).expect_err("empty");
    assert_eq!((refused.what.as_str(), refused.remedy.as_str()), ("release 'v2' has no backend", "add --backend NAME=ADDRESS"));
}

#[test]
fn the_last_that_takes_new_sessions_leaves_only_by_force_and_is_told_what_follows() {
    let refused = |drawn: &str, policy: WhenAllDraining, command: &str, then: &str| {
        let mut world = World::with(drawn, |settings| settings.when_all_draining = policy);
        let last = "app 'shop': a1 would be the last that takes new sessions";
        let remedy = format!("bring another backend into service first, or --force: then new clients {then}");
        let said = world.command(command).expect_err("the last one");
        assert_eq!((said.kind, said.what.as_str(), said.remedy), (RefusedKind::Conflict, last, remedy), "{drawn}: {command}");
        world.command(&format!("{command} --force")).expect("by force");
    };
    let (serve, refuse) = (WhenAllDraining::Serve, WhenAllDraining::Refuse);
    let itself = "go to a1 though it drains (when_all_draining: serve)";
    refused(">v1:a1", serve, "drain shop/v1/a1", itself);
    refused(">v1:a1", serve, "drain host:10.0.0.1", itself);
    refused(">v1:a1,a2*0", serve, "drain shop/v1/a1", itself);
    refused(">v1:a1,a2!", serve, "drain shop/v1/a1", itself);
    refused(">v1:a1", serve, "maintain shop/v1/a1", "get 503");
    refused("v0:b2 >v1:a1", serve, "maintain shop/v1/a1", "go to b2 though it drains (when_all_draining: serve)");
    refused("v0:b2 >v1:a1", refuse, "maintain shop/v1/a1", "get 503");
    refused(">v1:a1", refuse, "drain shop/v1/a1", "get 503");
    refused(">v1:a1,a2!", refuse, "drain shop/v1/a1", "go to the backup a2");
}

#[test]
fn an_address_belongs_to_one_release_at_a_time() {
    let (mut world, _) = play(">v1:a1", &["stage v2:b1", UP, "promote v2"]);
    let mut heir = ReleaseSpec { name: "v3".to_owned(), path: None, backends: vec![sketch::backend("c1", 1, false, 8001)] };
    let stage = |release: &ReleaseSpec| Change::Stage { app: "shop".to_owned(), release: release.clone() };
    let refused = world.order(&stage(&heir)).expect_err("v1 still drains");
    assert_eq!(refused.what, "address 10.0.0.1:8001 is taken by backend shop/v1/a1");
    // On one Tomcat, two contexts are two places.
    heir.path = Some("/shop-v3".to_owned());
    world.order(&stage(&heir)).expect("another path");
    heir = ReleaseSpec { name: "v4".to_owned(), path: None, ..heir };
    for backend in &mut heir.backends {
        backend.route = "a1".to_owned();
    }
    world.command("stop v1").expect("empty");
    world.order(&stage(&heir)).expect("v1 has gone");
    let heir_slot = world.shop().slot("v4", "c1");
    assert_eq!(world.shop().by_route.get("a1").copied(), heir_slot);
    let refused = world.command("rollback v1 --force").expect_err("its address has another owner");
    assert_eq!(refused.what, "address 10.0.0.1:8001 of release 'shop/v1' now belongs to v4/c1");
    assert_eq!(refused.remedy, "stage it anew under another name and address");
    world.command("remove v4").expect("never promoted");
    assert_eq!(world.shop().by_route.get("a1").copied(), world.shop().slot("v1", "a1"));
    world.command("rollback v1").expect("its own again");
    assert_eq!(states(&world), "v1 current, v2 draining, v3 staged");
}

#[test]
fn a_release_that_is_removed_leaves_no_name_behind() {
    let (world, _) = play(">v1:a1", &["stage v2:b1", "remove v2"]);
    let app = world.shop();
    assert_eq!((app.slot("v2", "b1"), app.by_route.get("b1"), app.backend(1).is_none()), (None, None, true));
    // Its slot is never given to another backend.
    let (world, _) = play(">v1:a1", &["stage v2:b1", "remove v2", "stage v3:b1"]);
    assert_eq!(world.shop().slot("v3", "b1"), Some(2));
}

#[test]
fn a_removal_waits_for_the_last_exchange() {
    let (mut world, _) = play(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback"]);
    let inside = world.backend("b1").live.gate.claim(Admission::KnownSessions, None).expect("it drains");
    world.command("stop v2").expect("no session");
    let refused = world.command("remove v2").expect_err("an exchange is under way");
    assert_eq!(refused.what, "release 'shop/v2': 1 exchanges are still under way");
    drop(inside);
    world.command("remove v2").expect("it has left");
}

#[test]
fn a_release_is_stopped_only_when_its_zero_is_sure() {
    let check = |seen: u64, command: &str, expected: Result<(), &str>| {
        let (mut world, _) = play(">v1:a1", &["stage v2:b1", UP, "promote v2"]);
        world.backend("a1").live.lives.worked();
        world.now = world.backend("a1").live.since + Duration::from_secs(seen);
        let told = world.command(command).map(|_| ()).map_err(|refused| refused.what);
        assert_eq!(told, expected.map_err(str::to_owned), "{command} after {seen} s");
    };
    check(60, "stop v1", Err("release 'shop/v1': no session is known, but that is not sure yet: seen for 60s of 30m"));
    check(60, "stop v1 --force", Ok(()));
    check(1_800, "stop v1", Ok(()));
}

/// Gates of the new release are open before anybody can be sent there, those of the old close after nobody can.
#[test]
fn gates_open_before_the_view_is_published_and_close_after() {
    let (world, _) = play(">v1:a1", &["stage v2:b1", UP]);
    let promote = Change::Promote { app: "shop".to_owned(), release: "v2".to_owned(), from: None, force: false };
    let applied = apply(&world.view, &promote, Owner::Operator, world.now).expect("healthy");
    let admissions = || (world.backend("a1").admission(), world.backend("b1").admission());
    assert_eq!(admissions(), (Admission::Everyone, Admission::Preview), "computing changes nothing");
    let mut seen = None;
    applied.commit(|_| seen = Some(admissions()));
    assert_eq!(seen, Some((Admission::Everyone, Admission::Everyone)));
    assert_eq!(admissions(), (Admission::KnownSessions, Admission::Everyone));
}

#[test]
fn intents_open_before_and_close_after() {
    let mut world = World::new(">v1:a1,a2");
    let intent = |intent| Change::Intent { target: Target::parse("shop/v1/a1").expect("a target"), intent, force: false };
    for (order, before, at_publish, after) in [
        (Intent::Drain, Admission::Everyone, Admission::Everyone, Admission::KnownSessions),
        (Intent::Serve, Admission::KnownSessions, Admission::Everyone, Admission::Everyone),
        (Intent::Maintain, Admission::Everyone, Admission::Everyone, Admission::Nobody),
    ] {
        let applied = apply(&world.view, &intent(order), Owner::Operator, world.now).expect("allowed");
        assert_eq!(world.backend("a1").admission(), before);
        applied.commit(|_| assert_eq!(world.backend("a1").admission(), at_publish));
        assert_eq!(world.backend("a1").admission(), after);
    }
    let applied = world.order(&intent(Intent::Maintain)).expect("again");
    assert!(applied.events.is_empty(), "the same order again is no event");
}

#[test]
fn a_change_tells_which_drains_begin_and_end() {
    let told = |targets: &[Target]| targets.iter().map(Target::to_string).collect::<Vec<_>>().join(" ");
    let check = |drawn: &str, commands: &[&str], last: &str, drains: &str, superseded: &str| {
        let (mut world, _) = play(drawn, commands);
        let applied = world.command(last).unwrap_or_else(|refused| panic!("{last}: {refused:?}"));
        assert_eq!((told(&applied.drains).as_str(), told(&applied.superseded).as_str()), (drains, superseded), "{commands:?} {last}");
    };
    let deployed: &[&str] = &["stage v2:b1", UP, "promote v2"];
    check(">v1:a1", &deployed[..2], "promote v2", "shop/v1", "");
    check(">v1:a1", deployed, "promote v2", "", "");
    check(">v1:a1", deployed, "rollback", "shop/v2", "shop/v1");
    check(">v1:a1", deployed, "stop v1", "", "shop/v1");
    check(">v1:a1", deployed, "drain shop/v1", "shop/v1", "");
    check(">v1:a1,a2", &[], "drain shop/v1/a1", "shop/v1/a1", "");
    check(">v1:a1,a2", &["drain shop/v1/a1"], "drain shop/v1/a1", "shop/v1/a1", "");
    check(">v1:a1,a2", &["drain shop/v1/a1"], "serve shop/v1/a1", "", "shop/v1/a1 host:10.0.0.1");
    check(">v1:a1,a2", &["drain host:10.0.0.1"], "serve host:10.0.0.1", "", "host:10.0.0.1 shop/v1/a1");
    check(">v1:a1,a2", &["drain shop/v1/a1"], "maintain shop/v1/a1", "", "shop/v1/a1 host:10.0.0.1");
    check(">v1:a1", &["stage v2:b1", UP, "promote v2", "rollback"], "rollback", "", "");
    // Of what has been removed nothing can be proven; a host that has other backends goes on.
    let removed = &["stage v2:b1,c2", UP, "promote v2", "rollback", "stop v2"];
    check(">v1:a1", removed, "remove v2", "", "shop/v2 shop/v2/b1 shop/v2/c2 host:10.0.0.2");
    // Started without state: whoever has a session in another release may come back.
    let spec = sketch::app("shop", "v1:a1 >v2:b1", Settings::default());
    let view = loaded(vec![spec], START);
    assert_eq!(view.apps[0].releases[0].state, ReleaseState::Draining);
}

#[test]
fn what_a_drain_gives_back_serves_unless_others_want_it_out() {
    let check = |commands: &[&str], wanted_by: &[&str], expected: [Admission; 4]| {
        let (mut world, outcome) = play(">v1:a1,b1,c1,d2,e3", commands);
        assert!(!outcome.contains(": "), "{outcome}");
        let target = |text: &&str| Target::parse(text).expect("a target");
        let change = Change::GiveBack { target: target(&"host:10.0.0.1"), wanted_by: wanted_by.iter().map(target).collect() };
        let applied = world.order(&change).expect("no harm in it");
        assert!(applied.superseded.is_empty() && applied.drains.is_empty(), "other drains go on");
        assert_eq!(["a1", "b1", "c1", "d2"].map(|name| world.backend(name).admission()), expected, "{commands:?} {wanted_by:?}");
    };
    let (all, known, nobody) = (Admission::Everyone, Admission::KnownSessions, Admission::Nobody);
    let host = "drain host:10.0.0.1";
    check(&[host], &[], [all, all, all, all]);
    check(&[host], &["shop/v1/a1"], [known, all, all, all]);
    check(&["drain shop/v1/d2", host], &["shop/v1/a1", "shop/v1/d2"], [known, all, all, known]);
    check(&[host, "maintain shop/v1/b1"], &[], [all, nobody, all, all]);
    check(&["drain shop/v1/d2", "maintain shop/v1/c1", host], &["shop/v1/d2"], [all, all, all, known]);
    // A release leaves by its state, whatever its backends are told.
    check(&[host], &["shop/v1"], [all, all, all, all]);
}

#[test]
fn every_event_has_an_owner_a_time_and_an_object() {
    let mut world = World::new(">v1:a1,a2");
    let check = |world: &mut World, command: &str, owner: Owner, target: &str, what: &str| {
        world.now = world.now + std::time::Duration::from_secs(1);
        let change = match command.strip_prefix("settle ") {
            Some(release) => Change::Settle { app: "shop".to_owned(), release: release.to_owned(), state: ReleaseState::Fencing },
            None => world.parse(command),
        };
        let events = world.change(&change, owner).unwrap_or_else(|refused| panic!("{command}: {refused:?}")).events;
        let expected = Event { at: world.now, owner, target: target.into(), what: what.to_owned() };
        assert_eq!(events, [expected], "{command}");
    };
    check(&mut world, "stage v2:b1", Owner::Operator, "shop/v2", "staged with 1 backends");
    world.observe("b1", Health::Up);
    check(&mut world, "promote v2", Owner::Config, "shop/v2", "promoted; v1 drains");
    check(&mut world, "settle v1", Owner::Controller, "shop/v1", "fencing");
    check(&mut world, "drain shop/v1/a1", Owner::Operator, "shop/v1/a1", "drain");
    session(&world, 1, "a2");
    check(&mut world, "stop v1 --force", Owner::Operator, "shop/v1", "stopped; 1 sessions evicted");
    let release = world.shop().release("v1").expect("stopped, not removed");
    assert_eq!((release.owner, release.since), (Owner::Operator, world.now));
    assert_eq!((release.live(), world.shop().release("v2").map(|r| r.live())), (0, Some(0)));
}

#[test]
fn a_refused_change_changes_nothing() {
    let (mut world, _) = play(">v1:a1", &["stage v2:b1", UP, "promote v2", "a1+"]);
    let before = states(&world);
    for command in ["stop v1", "remove v2", "promote v9", "rollback --from v7", "stage v2:c1", "maintain shop/v2/b1", "serve shop/v1"] {
        assert!(world.command(command).is_err(), "{command}");
        assert_eq!(states(&world), before, "{command}");
    }
}
