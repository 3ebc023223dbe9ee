//! Edits of the file and what comes of them, told as drawings of the app before and after.

use std::time::Duration;

use super::{Plan, Reload, plan};
use crate::model::admission::{Admission, Health, Intent};
use crate::model::change::{Change, NewApp};
use crate::model::event::Owner;
use crate::model::ledger::{Attention, Born, EndReason};
use crate::model::pin::Keyring;
use crate::model::session_key::SessionKey;
use crate::model::settings::{Address, AppSpec, PinMode, Settings, away_name};
use crate::model::sketch::{self, World};
use crate::model::target::Target;
use std::sync::Arc;

/// The app as drawn; `a1=9001` in place of `a1` sets the port of its address.
fn spec(drawn: &str, settings: &Settings) -> AppSpec {
    let mut ports = Vec::new();
    let plain: String = drawn
        .split_inclusive([' ', ',', ':', '>'])
        .map(|word| {
            let (text, end) = word.split_at(word.trim_end_matches([' ', ',', ':', '>']).len());
            let Some((name, port)) = text.split_once('=') else { return word.to_owned() };
            ports.push((name.trim_end_matches('!').split('*').next().unwrap().to_owned(), port.parse::<u16>().unwrap()));
            format!("{name}{end}")
        })
        .collect();
    let mut app = sketch::app("shop", &plain, settings.clone());
    // By name and not by place: adding a backend must not move its neighbours.
    for backend in app.releases.iter_mut().flat_map(|r| &mut r.backends) {
        let letters: u16 = backend.name.bytes().map(u16::from).fold(0, |sum, byte| (sum * 31 + byte) % 10_000);
        backend.address.port = 20_000 + letters;
        if let Some((_, port)) = ports.iter().find(|(name, _)| *name == backend.name) {
            backend.address.port = *port;
        }
    }
    app
}

struct Shop {
    world: World,
    file: Vec<AppSpec>,
    settings: Settings,
    born: u8,
}

impl Shop {
    fn new(drawn: &str) -> Shop {
        Shop::with(drawn, Settings::default())
    }

    fn with(drawn: &str, settings: Settings) -> Shop {
        let file = vec![spec(drawn, &settings)];
        Shop { world: World::of(file.clone()), file, settings, born: 0 }
    }

    /// A confirmed session on that backend; its key.
    fn session(&mut self, backend: &str) -> SessionKey {
        self.born += 1;
        let (key, slot) = (SessionKey([self.born; 16]), self.world.backend(backend).slot);
        let (app, now) = (self.world.shop(), self.world.now);
        assert_eq!(app.ledger.born(key, slot, 0, now), Born::New);
        app.ledger.enter(key, Attention::Foreground, now);
        app.ledger.leave(key, now);
        key
    }

    fn reload_of(&self, next: &[AppSpec], force: bool) -> Reload {
        let shop = self.world.view.app("shop");
        let apps = next.iter().map(|spec| NewApp {
            spec: spec.clone(),
            keyring: shop.map_or_else(|| Arc::new(Keyring::new([("k", [7u8; 32].as_slice())]).unwrap()), |app| Arc::clone(&app.keyring)),
            hash: Arc::clone(&self.world.view.apps[0].hash),
            memory: None,
        });
        Reload { applied: self.file.clone(), next: apps.collect(), force, serving: true }
    }

    fn plan(&self, next: &[AppSpec], force: bool) -> Plan {
        plan(&self.world.view, &self.reload_of(next, force), Owner::Config, self.world.now)
    }

    /// Reloads, and tells what became of it: refusals, or states.
    fn reload(&mut self, next: Vec<AppSpec>, force: bool) -> String {
        self.world.now = self.world.now + Duration::from_secs(60);
        let refusals = self.plan(&next, force).refusals;
        if !refusals.is_empty() {
            return refusals.iter().map(|r| r.what.clone()).collect::<Vec<_>>().join(" | ");
        }
        let change = Change::Reload(self.reload_of(&next, force));
        self.world.change(&change, Owner::Config).unwrap();
        self.file = next;
        self.told()
    }

    fn edit(&mut self, drawn: &str) -> String {
        let next = vec![spec(drawn, &self.settings)];
        self.reload(next, false)
    }

    fn force(&mut self, drawn: &str) -> String {
        let next = vec![spec(drawn, &self.settings)];
        self.reload(next, true)
    }

    /// `v1 current a1 a2, v2 staged b1`.
    fn told(&self) -> String {
        let told = |r: &Arc<crate::model::view::Release>| {
            let names: Vec<&str> = r.backends.iter().map(|b| b.spec.name.as_str()).collect();
            format!("{} {} {}", r.name, r.state.as_str(), names.join(" "))
        };
        self.world.shop().releases.iter().map(told).collect::<Vec<_>>().join(", ")
    }
}

/// Loads one drawing, plays what is between, and reloads the other.
fn check(drawn: &str, between: &[&str], edited: &str, expected: &str) {
    let mut shop = Shop::new(drawn);
    play(&mut shop, between);
    assert_eq!(shop.edit(edited), expected, "{drawn} | {between:?} | {edited}");
}

/// `a1+` is a session, `b1=up` a probe, `edit DRAWING` another reload, the rest commands.
fn play(shop: &mut Shop, words: &[&str]) {
    for word in words {
        if let Some(backend) = word.strip_suffix('+') {
            shop.session(backend);
        } else if let Some(drawn) = word.strip_prefix("edit ") {
            shop.edit(drawn);
        } else if let Some((name, health)) = word.split_once('=') {
            shop.world.observe(name, Health::ALL.into_iter().find(|h| h.as_str() == health).unwrap());
        } else {
            shop.world.command(word).unwrap_or_else(|refused| panic!("{word}: {}", refused.what));
        }
    }
}

#[test]
fn an_edited_current_is_a_promotion_and_a_new_release_waits() {
    check(">v1:a1", &[], ">v1:a1", "v1 current a1");
    check(">v1:a1", &[], ">v1:a1 v2:b1", "v1 current a1, v2 staged b1");
    check(">v1:a1", &["edit >v1:a1 v2:b1", "b1=up"], "v1:a1 >v2:b1", "v1 draining a1, v2 current b1");
    check(">v1:a1", &["edit >v1:a1 v2:b1"], "v1:a1 >v2:b1", "release 'shop/v2' has no healthy backend: b1 is untested");
    check(">v1:a1", &[], "v1:a1 >v2:b1", "shop: 'v2' is new in this file and has not passed a probe yet");
    // Promoted by command already: the file says the same now.
    check(">v1:a1", &["edit >v1:a1 v2:b1", "b1=up", "promote v2"], "v1:a1 >v2:b1", "v1 draining a1, v2 current b1");
    // Back again.
    check("v1:a1 >v2:b1", &[], ">v1:a1 v2:b1", "v1 current a1, v2 draining b1");
    check(">v1:a1", &["edit >v1:a1 v2:b1"], "v1:a1 v2:b1", "v1 by_health a1, v2 by_health b1");
    check("v1:a1 v2:b1", &[], "v1:a1 >v2:b1", "v1 draining a1, v2 current b1");
    check("v1:a1 v2:b1", &["b1=down"], "v1:a1 >v2:b1", "release 'shop/v2' has no healthy backend: b1 is down");
    check("v1:a1", &[], "v1:a1 v2:b1", "v1 by_health a1, v2 by_health b1");
    let mut shop = Shop::new(">v1:a1");
    assert_eq!(shop.force("v1:a1 >v2:b1"), "v1 draining a1, v2 current b1");
}

#[test]
fn at_a_start_the_file_promotes_without_a_probe_and_still_loses_no_session() {
    let mut shop = Shop::new(">v1:a1");
    shop.session("a1");
    let start = |shop: &Shop, drawn: &str| Reload { serving: false, ..shop.reload_of(&[spec(drawn, &shop.settings)], false) };
    let removed = start(&shop, ">v2:b1");
    assert_eq!(plan(&shop.world.view, &removed, Owner::Config, shop.world.now).refusals[0].what, "shop/v1: 1 live session (1 engaged)");
    let known = start(&shop, "v1:a1 >v2:b1");
    shop.world.change(&Change::Reload(known), Owner::Config).unwrap();
    assert_eq!(shop.told(), "v1 draining a1, v2 current b1");
}

#[test]
fn what_was_changed_by_command_stays_unless_the_edit_is_about_it() {
    check(">v1:a1", &["stage v9:z1"], ">v1:a1*2", "v1 current a1, v9 staged z1");
    check(">v1:a1", &["stage v9:z1", "z1=up", "promote v9"], ">v1:a1*2", "v1 draining a1, v9 current z1");
    check("v1:a1 >v2:b1", &["stop v1"], "v1:a1 >v2:b1*2", "v1 stopped a1, v2 current b1");
    check(">v1:a1,a2", &["drain shop/v1/a2"], ">v1:a1*2,a2", "v1 current a1 a2");
    let mut shop = Shop::new(">v1:a1,a2");
    play(&mut shop, &["drain shop/v1/a2", "edit >v1:a1*2,a2"]);
    assert_eq!(shop.world.backend("a2").live.gate.read().intent.as_str(), "drain");
    // Current by command, and taken out of the file.
    check("v1:a1 >v2:b1", &["promote v1"], ">v2:b1", "shop/v1: it takes all new sessions, by command");
    check(">v1:a1", &["stage v9:z1"], ">v1:a1 v9:z1", "v1 current a1, v9 staged z1");
}

#[test]
fn what_would_lose_sessions_is_refused_in_figures_and_all_at_once() {
    check("v1:a1 >v2:b1", &[], ">v2:b1", "v2 current b1");
    check("v1:a1 >v2:b1", &["a1+", "a1+"], ">v2:b1", "shop/v1: 2 live sessions (2 engaged)");
    check(">v1:a1,a2", &[], ">v1:a1", "v1 current a1");
    check(">v1:a1,a2", &["a2+"], ">v1:a1", "shop/v1/a2: 1 live session (1 engaged)");
    check("v1:a1 >v2:b1,b2", &["a1+", "b2+"], ">v2:b1", "shop/v2/b2: 1 live session (1 engaged) | shop/v1: 1 live session (1 engaged)");
    check(
        ">v1:a1",
        &["a1+"],
        ">v2:a1",
        "shop: 'v2' is new in this file and has not passed a probe yet | shop/v1: 1 live session (1 engaged)",
    );
    let mut shop = Shop::new("v1:a1 >v2:b1");
    let key = shop.session("a1");
    let ledger = Arc::clone(&shop.world.shop().ledger);
    let live = Arc::clone(&shop.world.backend("a1").live);
    assert_eq!(shop.force(">v2:b1"), "v2 current b1");
    assert_eq!((live.counts.live(), live.counts.ended(EndReason::Evicted)), (0, 1), "counted");
    assert!(ledger.find(key, shop.world.now).is_some());
}

#[test]
fn an_app_is_never_left_without_anybody_for_new_clients() {
    check(">v1:a1", &[], ">v1:z1", "shop: no backend would take new sessions");
    check(">v1:a1", &[], ">v1:a1*0", "shop: no backend would take new sessions");
    check(">v1:a1", &["edit >v1:a1,z1", "z1=up"], ">v1:z1", "v1 current z1");
    // It was so before.
    check(">v1:a1", &["a1=down"], ">v1:z1", "v1 current z1");
}

#[test]
fn a_weight_resets_nothing() {
    let mut shop = Shop::new(">v1:a1,a2");
    play(&mut shop, &["a1+", "a2=draining"]);
    let (before, turns) = (shop.world.backend("a1").clone(), Arc::clone(&shop.world.shop().tally));
    let hash = Arc::clone(&shop.world.shop().hash);
    assert_eq!(shop.edit(">v1:a1*7,a2"), "v1 current a1 a2");
    let after = shop.world.backend("a1");
    assert_eq!((after.spec.weight, after.slot), (7, before.slot));
    assert!(Arc::ptr_eq(&after.live, &before.live) && Arc::ptr_eq(&turns, &shop.world.shop().tally));
    assert!(Arc::ptr_eq(&hash, &shop.world.shop().hash));
    assert_eq!(shop.world.shop().open.backends().iter().map(|b| b.spec.weight).collect::<Vec<_>>(), [7, 1]);
    assert_eq!(shop.world.backend("a2").live.gate.read().health, Health::Draining);
}

/// What a backend at that port of 10.0.0.1 is called once its name means another.
fn away(name: &str, port: u16) -> String {
    away_name(name, &Address { host: "10.0.0.1".to_owned(), port })
}

#[test]
fn a_changed_address_drains_the_old_one_and_moves_nobody() {
    let mut shop = Shop::new(">v1:a1=9001,a2");
    let key = shop.session("a1");
    let old = shop.world.backend("a1").slot;
    let before = shop.world.now;
    let (first, second) = (away("a1", 9001), away("a1", 9002));
    assert_eq!(shop.edit(">v1:a1=9002,a2"), format!("v1 current a1 a2 {first}"));
    let app = shop.world.shop();
    let (away, new) = (shop.world.backend(&first), shop.world.backend("a1"));
    assert_eq!((away.slot, away.live.gate.read().intent.as_str(), away.sessions()), (old, "drain", 1));
    assert!(new.slot != old && new.live.gate.read().health == Health::Untested && new.sessions() == 0);
    assert_eq!(app.ledger.find(key, shop.world.now).unwrap().slot, old);
    // Signed pins say when they were issued: those of then mean the old one, for every proxy.
    assert_eq!(app.pinned_slot("v1", "a1", before, None), Some(old));
    assert_eq!(app.pinned_slot("v1", "a1", shop.world.now + Duration::from_secs(1), None), Some(new.slot));
    // An answer under way wrote it then: the ledger knows better.
    assert_eq!(app.pinned_slot("v1", "a1", shop.world.now + Duration::from_secs(1), Some(old)), Some(old));
    assert_eq!(app.pinned_slot("v1", &first, shop.world.now, None), Some(old));
    // An unsigned route that the ledger does not know goes where the file says.
    assert_eq!(app.by_route.get("a1"), Some(&new.slot));
    // Taken back: whoever was to leave stays, and the other one leaves.
    let (changed, newer) = (shop.world.now, new.slot);
    assert_eq!(shop.edit(">v1:a1=9001,a2"), format!("v1 current a1 a2 {second}"));
    let app = shop.world.shop();
    assert_eq!((shop.world.backend("a1").slot, shop.world.backend("a1").live.gate.read().intent.as_str()), (old, "serve"));
    let pins = [before, changed + Duration::from_secs(5), shop.world.now + Duration::from_secs(5)];
    assert_eq!(pins.map(|at| app.pinned_slot("v1", "a1", at, None)), [Some(old), Some(newer), Some(old)]);
    assert_eq!(app.pinned_slot("v1", &first, changed, None), Some(old), "as it was called meanwhile");
    // Empty and drained, it goes.
    let retire = Change::Retire { app: "shop".into(), release: "v1".into(), backend: second };
    shop.world.change(&retire, Owner::Controller).unwrap();
    assert_eq!(shop.told(), "v1 current a1 a2");
    assert_eq!(
        shop.world.shop().pinned_slot("v1", "a1", changed + Duration::from_secs(5), None),
        Some(old),
        "the name is all that is left"
    );
}

#[test]
fn addresses_may_be_exchanged() {
    let mut shop = Shop::new(">v1:a1=9001,b1=9002");
    play(&mut shop, &["a1+", "b1+"]);
    let (a, b) = (shop.world.backend("a1").slot, shop.world.backend("b1").slot);
    let (first, second) = (away("a1", 9001), away("b1", 9002));
    assert_eq!(shop.edit(">v1:a1=9002,b1=9001"), format!("v1 current a1 b1 {first} {second}"));
    assert_eq!((shop.world.backend(&first).slot, shop.world.backend(&second).slot), (a, b));
}

#[test]
fn a_session_that_could_not_be_recognised_any_more_counts_as_lost() {
    let check = |set: fn(&mut Settings), edit: fn(&mut Settings), expected: &str| {
        let mut settings = Settings::default();
        set(&mut settings);
        let mut shop = Shop::with(">v1:a1", settings.clone());
        shop.session("a1");
        edit(&mut settings);
        assert_eq!(shop.reload(vec![spec(">v1:a1", &settings)], false), expected);
    };
    let (fine, lost) = ("v1 current a1", "shop: session: 1 live session (1 engaged)");
    check(|_| (), |s| s.session.cookies = vec!["SID".into()], lost);
    check(|_| (), |s| s.session.cookies.push("SID".into()), fine);
    check(|_| (), |s| s.session.path_parameter = None, lost);
    check(|_| (), |s| s.session.header = Some("Mcp-Session-Id".into()), fine);
    check(|_| (), |s| s.session.pin = PinMode::Learn, fine);
    check(|s| s.session.pin = PinMode::Prefix, |s| s.session.pin = PinMode::Cookie, lost);
    check(|_| (), |s| s.session.idle_timeout = Duration::from_secs(60), fine);
    check(|_| (), |s| s.limits.max_connections = Some(5), fine);
}

#[test]
fn settings_take_effect_everywhere() {
    let mut shop = Shop::new(">v1:a1");
    let mut settings = shop.settings.clone();
    (settings.limits.max_connections, settings.session.max_entries) = (Some(5), 100);
    shop.reload(vec![spec(">v1:a1", &settings)], false);
    assert_eq!(shop.world.backend("a1").max_connections, Some(5));
    assert_eq!(shop.world.shop().release("v1").unwrap().pool.backends()[0].max_connections, Some(5));
    assert_eq!(shop.world.shop().ledger.capacity(), 100);
}

#[test]
fn apps_come_and_go_and_a_renamed_one_does_both() {
    let mut shop = Shop::new(">v1:a1");
    let named = |name: &str| AppSpec {
        name: name.to_owned(),
        matches: sketch::app(name, ">v1:a1", Settings::default()).matches,
        ..spec(">v1:a1", &Settings::default())
    };
    let both = vec![named("blog"), shop.file[0].clone()];
    shop.reload(both, false);
    assert_eq!(shop.world.view.apps.iter().map(|app| &*app.name).collect::<Vec<_>>(), ["blog", "shop"]);
    assert_eq!(shop.world.view.route(None, "/shop").map(|(app, _)| &*app.name), Some("shop"));
    shop.session("a1");
    let refused = shop.plan(&[named("blog"), named("store")], false).refusals;
    assert_eq!(refused[0].what, "shop/v1: 1 live session (1 engaged)");
}

#[test]
fn what_was_staged_by_command_may_not_clash_with_the_file() {
    check(">v1:a1", &["stage v9:z1"], ">v1:a1 v2:z1", "shop: route 'z1' is used by v9/z1 and by v2/z1");
}

#[test]
fn nothing_in_the_file_changed_is_nothing_to_do() {
    let shop = Shop::new("v1:a1 >v2:b1");
    assert!(shop.plan(&shop.file, false).lines.is_empty());
}

#[test]
fn a_zero_that_nobody_can_be_sure_of_is_no_reason_to_remove() {
    let check = |seen: u64, under_way: bool, expected: &str| {
        let mut shop = Shop::new(">v1:a1 v2:b1");
        shop.world.now = sketch::START + Duration::from_secs(seen);
        shop.world.backend("b1").live.lives.worked();
        let gate = Arc::clone(&shop.world.backend("b1").live.gate);
        let _exchange = under_way.then(|| gate.claim(Admission::KnownSessions, None).unwrap());
        let next = [spec(">v1:a1", &shop.settings)];
        let refusals = shop.plan(&next, false).refusals;
        let told: Vec<_> = refusals.iter().map(|refused| refused.what.as_str()).collect();
        assert_eq!(told.join("; "), expected, "seen for {seen} s, under way: {under_way}");
        assert!(shop.plan(&next, true).refusals.is_empty(), "forced");
    };
    check(1_800, false, "");
    check(60, false, "shop/v2: no session is known, but that is not sure yet: seen for 60s of 30m");
    check(1_800, true, "shop/v2: 1 exchange under way");
    // Who came while we watched, and was never asked for anything, may go as he came.
    let mut shop = Shop::new(">v1:a1");
    shop.edit(">v1:a1,a2");
    shop.world.observe("a2", Health::Up);
    assert_eq!(shop.edit(">v1:a1"), "v1 current a1");
}

#[test]
fn who_left_the_file_takes_nobody_new_whatever_is_ordered() {
    let mut shop = Shop::new(">v1:a1=9001,a2");
    shop.session("a1");
    shop.edit(">v1:a1=9002,a2");
    let first = away("a1", 9001);
    let serve = |target: &str| Change::Intent { target: Target::parse(target).unwrap(), intent: Intent::Serve, force: true };
    let refused = shop.world.change(&serve(&format!("shop/v1/{first}")), Owner::Operator).unwrap_err();
    assert!(refused.what.contains("is not in the file any more"), "{}", refused.what);
    // The others on its host may be told to.
    shop.world.change(&serve("host:10.0.0.1"), Owner::Operator).unwrap();
    assert_eq!(shop.world.backend(&first).live.gate.read().intent, Intent::Drain);
    assert!(shop.world.shop().open.backends().iter().all(|b| b.spec.name != first));
}
