//! Requests in the four pin modes and what they say, told as `id pin`.

use std::time::Duration;

use super::*;
use crate::model::identity::PinAttributes;
use crate::model::ledger::Attention;
use crate::model::pin::{Keyring, Pin};
use crate::model::sketch::World;

/// A draining release with a1, the current one with b1.
fn world(mode: PinMode) -> World {
    World::with("v1:a1,a2 >v2:b1", |settings| {
        settings.session.pin = mode;
        settings.session.header = Some("Mcp-Session-Id".to_owned());
        settings.session.query_parameter = Some("PHPSESSID".to_owned());
    })
}

/// A pin cookie for `id` (unbound if empty) issued so many seconds ago.
fn pin(world: &World, place: &str, id: &str, seconds: u64) -> String {
    let app = world.shop();
    let (release, backend) = place.split_once('/').expect("RELEASE/BACKEND");
    let binding = if id.is_empty() { None } else { app.keyring.binding(id.as_bytes()) };
    let issued = world.now - Duration::from_secs(seconds);
    let pin = Pin { release, backend, binding, issued, seen: issued, attributes: PinAttributes::OVER_PLAIN };
    format!("; {}={}", app.pin_cookie, app.keyring.sign("shop", &pin))
}

/// The id it carries out of the given ones, where its pin says it belongs, and whether the pin is due for a refresh.
fn told(world: &World, cookies: &str, path: &str, query: Option<&str>, ids: &[&str]) -> String {
    let app = world.shop();
    let facts = Facts::read(app, [cookies.as_bytes()], |_| None, path.as_bytes(), query.map(str::as_bytes), world.now);
    assert_eq!(facts.key.is_none(), facts.carrier.is_none());
    let id = match facts.key {
        None => "none",
        Some(key) => ids.iter().find(|id| app.hash.key(id.as_bytes()) == key).expect("one of the ids"),
    };
    let live = if facts.session.is_some_and(|found| matches!(found.standing, Standing::Live { .. })) { " live" } else { "" };
    let pin = match facts.pin {
        PinClaim::None => "none".to_owned(),
        PinClaim::Fault(result) => result.as_str().to_owned(),
        PinClaim::Backend { slot, issued, seen, bound } => {
            assert_eq!(issued, seen, "both or none, and written together");
            let signed = if issued.is_some() { " signed" } else { "" };
            format!("{}{signed}{}", world.name(slot), if bound { "" } else { " unbound" })
        }
    };
    format!("{id}{live}, pin {pin}{}", if facts.refresh { ", refresh" } else { "" })
}

fn check(world: &World, cookies: &str, expected: &str) {
    assert_eq!(
        told(world, cookies, "/shop", None, &["abc", "abc.a1", "abc.zz", "a1~abc", "zz~abc", "def", "x", "a1~"]),
        expected,
        "{cookies}"
    );
}

#[test]
fn a_signed_pin_speaks_for_the_id_it_is_bound_to() {
    let world = world(PinMode::Cookie);
    let with = |id: &str, pin: String| format!("JSESSIONID={id}{pin}");
    check(&world, "", "none, pin none");
    check(&world, "JSESSIONID=abc", "abc, pin none");
    check(&world, &with("abc", pin(&world, "v1/a1", "abc", 5)), "abc, pin a1 signed");
    check(&world, &with("abc", pin(&world, "v1/a1", "abc", 1000)), "abc, pin a1 signed, refresh");
    check(&world, &with("abc", pin(&world, "v1/a1", "def", 5)), "abc, pin none");
    check(&world, &with("abc", pin(&world, "v1/a1", "", 5)), "abc, pin a1 signed unbound");
    // Before there is a session; a bound one means nothing without its id.
    check(&world, &pin(&world, "v2/b1", "", 5), "none, pin b1 signed unbound");
    check(&world, &pin(&world, "v2/b1", "abc", 5), "none, pin none");
    // A release that never existed, and what was never signed.
    check(&world, &with("abc", pin(&world, "v9/z1", "abc", 5)), "abc, pin unknown");
    check(&world, &with("abc", pin(&world, "v1/z1", "abc", 5)), "abc, pin unknown");
    check(&world, "JSESSIONID=abc; tidegate_shop=1k.AAAA", "abc, pin forged");
    check(&world, "JSESSIONID=abc; tidegate_shop=junk", "abc, pin forged");
    // Ids that look like routes are just ids here.
    check(&world, "JSESSIONID=abc.a1", "abc.a1, pin none");
    check(&world, "JSESSIONID=a1~abc", "a1~abc, pin none");
}

#[test]
fn of_several_pins_the_latest_issued_counts() {
    let world = world(PinMode::Cookie);
    let (old, new) = (pin(&world, "v1/a1", "abc", 60), pin(&world, "v2/b1", "abc", 5));
    check(&world, &format!("JSESSIONID=abc{old}{new}"), "abc, pin b1 signed");
    check(&world, &format!("JSESSIONID=abc{new}{old}"), "abc, pin b1 signed");
    check(&world, &format!("JSESSIONID=abc{old}; tidegate_shop=junk"), "abc, pin a1 signed");
    // One that is bound elsewhere says nothing, however new it is.
    let stranger = pin(&world, "v2/b1", "def", 1);
    check(&world, &format!("JSESSIONID=abc{stranger}{old}"), "abc, pin a1 signed");
    check(&world, &format!("JSESSIONID=abc{old}{stranger}"), "abc, pin a1 signed");
}

#[test]
fn of_several_ids_the_living_one_counts_then_the_bound_one_then_the_first() {
    let world = world(PinMode::Cookie);
    check(&world, "JSESSIONID=abc; JSESSIONID=def", "abc, pin none");
    let bound = pin(&world, "v1/a1", "def", 5);
    check(&world, &format!("JSESSIONID=abc; JSESSIONID=def{bound}"), "def, pin a1 signed");
    check(&world, &format!("JSESSIONID=abc; JSESSIONID=def; JSESSIONID=x{bound}"), "def, pin a1 signed");
    let key = world.shop().hash.key(b"x");
    world.shop().ledger.born(key, world.backend("a2").slot, 0, world.now);
    world.shop().ledger.enter(key, Attention::Foreground, world.now);
    check(&world, &format!("JSESSIONID=abc; JSESSIONID=def; JSESSIONID=x{bound}"), "x live, pin none");
}

#[test]
fn a_pin_of_an_old_key_is_due_for_a_new_one() {
    let mut world = world(PinMode::Cookie);
    let pin = pin(&world, "v1/a1", "abc", 5);
    let mut app = App::clone(world.shop());
    let (new, old) = ([9u8; 32], [7u8; 32]);
    app.keyring = Keyring::new([("k2", new.as_slice()), ("test", old.as_slice())]).expect("two keys").into();
    world.view.apps = vec![app.clone().into()];
    check(&world, &format!("JSESSIONID=abc{pin}"), "abc, pin a1 signed, refresh");
    app.keyring = Keyring::new([("k2", new.as_slice())]).expect("one key").into();
    world.view.apps = vec![app.into()];
    check(&world, &format!("JSESSIONID=abc{pin}"), "abc, pin unknown");
}

#[test]
fn a_route_is_what_follows_the_last_dot() {
    let world = world(PinMode::Route);
    check(&world, "JSESSIONID=abc.a1", "abc.a1, pin a1");
    check(&world, "JSESSIONID=abc.zz", "abc.zz, pin unknown");
    check(&world, "JSESSIONID=abc", "abc, pin none");
    // Signed pins mean nothing in this mode.
    check(&world, &format!("JSESSIONID=abc{}", pin(&world, "v1/a1", "abc", 5)), "abc, pin none");
    assert_eq!(told(&world, "", "/shop/x;jsessionid=abc.a1", None, &["abc.a1"]), "abc.a1, pin a1");
    assert_eq!(told(&world, "", "/shop", Some("PHPSESSID=abc.a1"), &["abc.a1"]), "abc.a1, pin a1");
    let app = world.shop();
    let facts = Facts::read(app, [], |name| (name == "Mcp-Session-Id").then_some(b"abc.a1".as_slice()), b"/", None, world.now);
    assert_eq!((facts.carrier, facts.pin), (Some(Carrier::Header), by_route(app, b"a1")));
}

#[test]
fn a_prefix_is_taken_off_only_if_it_names_a_backend() {
    let world = world(PinMode::Prefix);
    check(&world, "JSESSIONID=a1~abc", "abc, pin a1");
    check(&world, "JSESSIONID=abc", "abc, pin none");
    // It came before us: the whole value is the application's own.
    check(&world, "JSESSIONID=zz~abc", "zz~abc, pin none");
    assert_eq!(known_prefix(world.shop(), b"a1~"), (Some(b"a1".as_slice()), b"".as_slice()));
}

#[test]
fn in_learn_mode_only_the_ledger_knows() {
    let world = world(PinMode::Learn);
    check(&world, &format!("JSESSIONID=abc.a1{}", pin(&world, "v1/a1", "abc.a1", 5)), "abc.a1, pin none");
    let key = world.shop().hash.key(b"abc.a1");
    world.shop().ledger.born(key, world.backend("a2").slot, 0, world.now);
    check(&world, "JSESSIONID=abc.a1", "abc.a1 live, pin none");
}
