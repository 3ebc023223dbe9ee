//! Situations and decisions. A row reads: who is there, what happened to them, what the client brings, where it goes and why.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::model::admission::Intent;
use crate::model::incarnation::Proof;
use crate::model::ledger::EndReason;
use crate::model::sketch::World;

/// Half of the default idle timeout, and twice.
const FRESH: Duration = Duration::from_secs(900);
const STALE: Duration = Duration::from_secs(3600);

/// Words about the app and its backends: `a1=down`, `v2=stop`, `repin`, …
fn arrange(drawn: &str, words: &str) -> World {
    let has = |word: &str| words.split_whitespace().any(|w| w == word);
    let mut world = World::with(drawn, |settings| {
        if has("route") {
            settings.session.pin = PinMode::Route;
        }
        if has("refuse") {
            settings.when_all_draining = WhenAllDraining::Refuse;
        }
        if has("repin") {
            settings.failover = Failover::Repin;
        }
        if has("off") {
            settings.failover = Failover::Off;
        }
        if has("patient") {
            settings.failover_wait = Duration::from_secs(5);
        }
    });
    for word in words.split_whitespace() {
        let Some((name, what)) = word.split_once('=') else {
            assert!(["route", "refuse", "repin", "off", "patient"].contains(&word), "unknown word {word}");
            continue;
        };
        let health = Health::ALL.into_iter().find(|h| h.as_str() == what);
        let intent = Intent::find(what.trim_start_matches("order_"));
        match (health, intent, what) {
            (Some(health), None, _) => world.observe(name, health),
            (None, Some(intent), _) | (Some(_), Some(intent), _) if what.starts_with("order_") => {
                world.backend(name).live.gate.set_intent(intent)
            }
            (Some(health), ..) => world.observe(name, health),
            (None, _, "staged") => {
                world.command(&format!("stage {}", name.replace('/', ":"))).expect("staged");
                world.observe(name.split_once('/').expect("RELEASE/BACKEND").1, Health::Up);
            }
            (None, _, "stopped") => drop(world.command(&format!("stop {name} --force")).expect("stopped")),
            // Proven, and last seen in its former life 100 s ago.
            (None, _, "restarted") => {
                let (backend, after) = (world.backend(name), world.now - Duration::from_secs(100));
                backend.live.reborn(Proof::Header, &world.shop().ledger, backend.slot, after, world.now);
            }
            (None, _, "fenced") => assert!(world.backend(name).live.gate.fence(), "{name} can be fenced"),
            _ => panic!("unknown word {word}"),
        }
    }
    world
}

/// Words about the client: `live@a1`, `idle@a1` (a tombstone of that reason), `candidate@a1`, `pin@a1`, `newer@a1` (a pin issued
/// after the ledger's), `later@a1` (issued before it, and seen since), `stale@a1`, `route@a1` (unsigned), `anonymous@a1`, `id`, `unknown` or `forged` (a faulty pin), `tried@a1`,
/// `waited`, `write`, `arrival` (a move point), `disowned`, `told@a1` and `knows@a1` (evicted; its client was told just now, or a while ago).
fn ask(world: &World, words: &str) -> Decision {
    let now = world.now;
    let mut tried = Vec::new();
    let (mut session, mut pin, mut has_id, mut waited) = (None, PinClaim::None, false, false);
    let (mut errand, mut disowned) = (Errand::Read, false);
    for word in words.split_whitespace() {
        let (what, place) = word.split_once('@').unwrap_or((word, ""));
        let slot = if place == "gone" || place.is_empty() { 77 } else { world.backend(place).slot };
        let found = |standing, seen: Duration| Found {
            slot,
            standing,
            seen: now - seen,
            born: now - STALE,
            pinned: now - FRESH,
            open: 0,
            alias: false,
            ended_at: None,
            told_at: None,
            birth_scope: 0,
        };
        let claim =
            |issued: Duration, seen: Duration| PinClaim::Backend { slot, issued: Some(now - issued), seen: Some(now - seen), bound: true };
        let ended = EndReason::ALL.into_iter().find(|reason| reason.as_str() == what);
        match what {
            "live" => session = Some(found(Standing::Live { confirmed: true }, FRESH)),
            "candidate" => session = Some(found(Standing::Candidate, FRESH)),
            "late" => session = Some(found(Standing::Ended(EndReason::Unconfirmed), STALE)),
            _ if ended.is_some() => session = ended.map(|reason| found(Standing::Ended(reason), FRESH)),
            "pin" => pin = claim(STALE, FRESH),
            "newer" => pin = claim(Duration::from_secs(60), Duration::from_secs(60)),
            "later" => pin = claim(STALE, Duration::from_secs(60)),
            "stale" => pin = claim(STALE, STALE),
            "route" => pin = PinClaim::Backend { slot, issued: None, seen: None, bound: true },
            "anonymous" => pin = PinClaim::Backend { slot, issued: Some(now), seen: Some(now), bound: false },
            "unknown" => pin = PinClaim::Fault(PinResult::Unknown),
            "forged" => pin = PinClaim::Fault(PinResult::Forged),
            "tried" => tried.push(slot),
            "waited" => waited = true,
            "told" | "knows" => {
                let told_at = Some(if what == "told" { now - Duration::from_millis(900) } else { now - WORD_SPREADS });
                session = Some(Found { told_at, ..found(Standing::Ended(EndReason::Evicted), FRESH) });
            }
            "write" => errand = Errand::Write,
            "arrival" => errand = Errand::Arrival,
            "disowned" => disowned = true,
            "id" => {}
            _ => panic!("unknown word {word}"),
        }
        has_id |= !matches!(what, "anonymous" | "unknown" | "forged" | "tried" | "waited" | "write" | "arrival" | "disowned");
    }
    let question = Question { now, has_id, session, pin, tried: &tried, waited, errand, disowned, dice: 1, client: 1 };
    let first = decide(world.shop(), &question);
    // The same inputs give the same answer, but for whose turn it is.
    if world.shop().open.backends().len() < 2 {
        assert_eq!(told(&first), told(&decide(world.shop(), &question)), "{words}");
    }
    first
}

/// `a1 pinned valid`, with `strip` at the end where the dead id is taken out.
fn told(decision: &Decision) -> String {
    match decision {
        Decision::Forward(f) => {
            let strip = if f.strip { " strip" } else { "" };
            format!("{} {} {}{strip}", f.backend.spec.name, f.reason.as_str(), f.pin.as_str())
        }
        Decision::Wait(backend, longest) => format!("wait for {} {}s", backend.spec.name, longest.as_secs()),
        Decision::Refuse(reason, pin) => format!("503 {} {}", reason.as_str(), pin.as_str()),
    }
}

type Row = (&'static str, &'static str, &'static str, &'static str);

fn check(rows: &[Row]) {
    let wrong = rows.iter().filter_map(|(drawn, words, client, expected)| {
        let found = told(&ask(&arrange(drawn, words), client));
        (found != *expected).then(|| format!("{drawn} | {words} | {client}: {found}, not {expected}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const TWO: &str = ">v1:a1,a2";
const DEPLOYED: &str = "v1:a1,a2 >v2:b1";

const PINS: &[Row] = &[
    (TWO, "", "live@a1", "a1 pinned none"),
    (TWO, "", "live@a2 pin@a2", "a2 pinned valid"),
    (TWO, "", "id pin@a2", "a2 returned valid"),
    (TWO, "", "id route@a2", "a2 returned valid"),
    // The application decides whether an expired session lives (R2, serving).
    (TWO, "", "idle@a2", "a2 returned none"),
    (TWO, "", "lifetime@a2 pin@a2", "a2 returned valid"),
    (TWO, "", "logout@a2", "a2 returned none"),
    (TWO, "", "id stale@a2", "a2 returned expired"),
    (TWO, "", "unconfirmed@a2", "a2 returned none"),
    (TWO, "", "candidate@a2", "a2 returned none"),
    (TWO, "", "candidate@a2 pin@a1", "a1 returned valid"),
    (TWO, "", "candidate@a2 anonymous@a1", "a2 returned overridden"),
    // A draining release keeps its sessions.
    (DEPLOYED, "", "live@a1", "a1 pinned none"),
    (DEPLOYED, "", "id pin@a1", "a1 returned valid"),
    (DEPLOYED, "", "id route@a1", "a1 returned valid"),
    (DEPLOYED, "", "unconfirmed@a1", "a1 returned none"),
    (DEPLOYED, "", "candidate@a1", "a1 returned none"),
    // Soft stop, order and a long silence of the backend do not disturb them either.
    (TWO, "a1=draining", "live@a1", "a1 pinned none"),
    (TWO, "a1=stalled", "live@a1", "a1 pinned none"),
    (TWO, "a1=untested", "live@a1", "a1 pinned none"),
    (TWO, "a1=order_drain", "live@a1", "a1 pinned none"),
    (">v1:a1*0,a2", "", "live@a1", "a1 pinned none"),
    (">v1:a1*0,a2", "", "id pin@a1", "a1 returned valid"),
    (">v1:a1,a2!", "", "live@a2", "a2 pinned none"),
    // By health: the blue/green proof of concept.
    ("v1:a1 v2:b1", "a1=draining", "live@a1", "a1 pinned none"),
    ("v1:a1 v2:b1", "a1=draining", "", "b1 new none"),
    ("v1:a1 v2:b1", "a1=draining", "idle@a1", "b1 moved expired strip"),
    ("v1:a1 v2:b1", "b1=draining", "", "a1 new none"),
];

const DISAGREEMENTS: &[Row] = &[
    // The ledger's was issued later.
    (TWO, "", "live@a2 pin@a1", "a2 pinned overridden"),
    (TWO, "", "live@a2 route@a1", "a2 pinned overridden"),
    (TWO, "", "idle@a2 pin@a1", "a2 returned overridden"),
    // The pin was: another proxy moved the session.
    (TWO, "", "live@a2 newer@a1", "a1 pinned valid"),
    (TWO, "", "idle@a2 newer@a1", "a1 returned valid"),
    (TWO, "", "unconfirmed@a2 newer@a1", "a1 returned valid"),
    (TWO, "", "evicted@a2 newer@a1", "a1 returned valid"),
    (TWO, "", "live@a2 unknown", "a2 pinned unknown"),
    (TWO, "", "live@a2 forged", "a2 pinned forged"),
];

const DEAD: &[Row] = &[
    // R2, draining.
    (DEPLOYED, "", "idle@a1", "b1 moved expired strip"),
    (DEPLOYED, "", "idle@a1 pin@a1", "b1 moved expired strip"),
    // Silent here, and not before another proxy.
    (DEPLOYED, "", "idle@a1 later@a1", "a1 returned valid"),
    (DEPLOYED, "", "late@a1 later@a1", "a1 returned valid"),
    (DEPLOYED, "", "idle@a1 later@a2", "b1 moved expired strip"),
    (DEPLOYED, "", "lifetime@a1 later@a1", "b1 moved expired strip"),
    (DEPLOYED, "", "logout@a1 later@a1", "b1 moved expired strip"),
    (DEPLOYED, "", "evicted@a1 later@a1", "b1 moved overridden strip"),
    (DEPLOYED, "", "lifetime@a1", "b1 moved expired strip"),
    (DEPLOYED, "", "logout@a1", "b1 moved expired strip"),
    (DEPLOYED, "", "lost@a1", "b1 moved expired strip"),
    (DEPLOYED, "", "id stale@a1", "b1 moved expired strip"),
    (DEPLOYED, "", "late@a1", "b1 moved expired strip"),
    (TWO, "", "late@a1", "a1 returned none"),
    (TWO, "a1=draining", "idle@a1", "a2 moved_within expired strip"),
    (TWO, "a1=order_drain", "idle@a1", "a2 moved_within expired strip"),
    (TWO, "a1=down", "idle@a1", "a2 moved_within expired strip"),
    (TWO, "", "idle@a1 tried@a1", "a2 moved_within expired strip"),
    (DEPLOYED, "", "evicted@a1", "b1 moved overridden strip"),
    (">v1:a1,a2", "a1=order_drain", "evicted@a1", "a2 moved_within overridden strip"),
    (DEPLOYED, "v1=stopped", "live@a1", "b1 moved lost strip"),
    (DEPLOYED, "v1=stopped", "id pin@a1", "b1 moved lost strip"),
    (DEPLOYED, "a1=order_drain a1=fenced", "live@a1", "b1 moved lost strip"),
    (TWO, "a1=order_drain a1=fenced", "live@a1", "a2 moved_within lost strip"),
    (TWO, "a1=order_drain", "live@gone", "a2 moved lost strip"),
    // Unsigned routes never open a staged release, and a signed pin cannot name one truthfully.
    (">v1:a1", "v9/z9=staged", "id route@z9", "a1 moved unknown strip"),
    (">v1:a1", "v9/z9=staged", "id pin@z9", "a1 moved unknown strip"),
    (">v1:a1", "v9/z9=staged", "anonymous@z9", "a1 new overridden"),
];

const RESTARTED: &[Row] = &[
    // Spread over the release, without the dead id.
    (">v1:a1*0,a2", "a1=restarted", "lost@a1", "a2 moved_within lost strip"),
    (">v1:a1*0,a2", "a1=restarted", "lost@a1 pin@a1", "a2 moved_within lost strip"),
    (">v1:a1*0,a2", "a1=restarted", "idle@a1", "a2 moved_within lost strip"),
    (">v1:a1*0,a2", "a1=restarted", "candidate@a1", "a2 moved_within lost strip"),
    (">v1:a1*0,a2", "a1=restarted", "lost@a1 write", "a2 moved_within lost strip"),
    (TWO, "a1=restarted a2=down", "lost@a1", "a1 moved_within lost strip"),
    (DEPLOYED, "a1=restarted", "lost@a1", "b1 moved lost strip"),
    // Unknown here: by its time the pin is of the life before, or of this one.
    (">v1:a1*0,a2", "a1=restarted", "id pin@a1", "a2 moved_within lost strip"),
    (TWO, "a1=restarted", "id newer@a1", "a1 returned valid"),
    (TWO, "a1=restarted", "id route@a1", "a1 returned valid"),
    // Taken over by another proxy meanwhile.
    (TWO, "a1=restarted", "lost@a1 newer@a2", "a2 returned valid"),
    // Its backend is not the one that restarted, or it was seen since.
    (TWO, "a1=restarted", "idle@a2", "a2 returned none"),
    (TWO, "a1=restarted", "live@a1", "a1 pinned none"),
    // Its user is still to be told.
    (TWO, "a1=restarted", "evicted@a1 write", "503 evicted overridden"),
    // Only suspected: the application decides.
    (TWO, "a1=down a1=up", "live@a1", "a1 pinned none"),
    (TWO, "a1=down a1=up", "lost@a1", "a1 returned none"),
    (TWO, "a1=down a1=up", "id pin@a1", "a1 returned valid"),
];

const ABSENT: &[Row] = &[
    (TWO, "a1=down", "live@a1", "a2 stand_in down"),
    (TWO, "a1=down", "id pin@a1", "a2 stand_in down"),
    (TWO, "", "live@a1 tried@a1", "a2 stand_in down"),
    (TWO, "a1=order_maintain", "live@a1", "a2 stand_in down"),
    (TWO, "a1=down repin", "live@a1", "a2 repinned down"),
    (TWO, "a1=down off", "live@a1", "503 backend_down down"),
    (TWO, "off", "live@a1 tried@a1", "503 backend_down down"),
    // Same release first, also while it drains.
    (DEPLOYED, "a1=down", "live@a1", "a2 stand_in down"),
    (DEPLOYED, "a1=down a2=draining", "live@a1", "a2 stand_in down"),
    (DEPLOYED, "a1=down a2=stalled", "live@a1", "b1 stand_in down"),
    (DEPLOYED, "a1=down a2=down", "live@a1", "b1 stand_in down"),
    (DEPLOYED, "a1=down a2=down repin", "live@a1", "b1 repinned down"),
    (TWO, "a1=down a2=down", "live@a1", "503 no_backend down"),
    (TWO, "a1=down", "live@a1 tried@a2", "503 no_backend down"),
    // A backup that stands in is a stand-in: the pin stays.
    (">v1:a1,a2!", "a1=down", "live@a1", "a2 stand_in down"),
    (">v1:a1,a2!", "a1=down repin", "live@a1", "a2 repinned down"),
    // Even when only a draining release is left.
    ("v1:a1 >v2:b1", "b1=down", "live@b1", "a1 stand_in down"),
    // Waiting comes first; a maintained backend is not waited for.
    (TWO, "a1=down patient", "live@a1", "wait for a1 5s"),
    (TWO, "a1=down patient off", "live@a1", "wait for a1 5s"),
    (TWO, "a1=down patient", "live@a1 waited", "a2 stand_in down"),
    (TWO, "a1=order_maintain patient", "live@a1", "a2 stand_in down"),
    (TWO, "patient", "live@a1 tried@a1", "wait for a1 5s"),
    (TWO, "patient", "live@a1 tried@a1 waited", "a1 pinned none"),
    (TWO, "patient", "live@a1 tried@a1 waited tried@a1", "a2 stand_in down"),
];

const NEW: &[Row] = &[
    (">v1:a1", "", "", "a1 new none"),
    (">v1:a1", "", "id", "a1 new none"),
    (">v1:a1", "", "unknown", "a1 new unknown"),
    (">v1:a1", "", "id unknown", "a1 new unknown"),
    (">v1:a1", "", "forged", "a1 new forged"),
    (DEPLOYED, "", "", "b1 new none"),
    (TWO, "a1=draining", "", "a2 new none"),
    (TWO, "a1=stalled", "", "a2 new none"),
    (TWO, "a1=untested", "", "a2 new none"),
    (TWO, "a1=order_drain", "", "a2 new none"),
    (TWO, "a1=down", "", "a2 new none"),
    (TWO, "", "tried@a1", "a2 new none"),
    (">v1:a1*0,a2", "", "", "a2 new none"),
    (">v1:a1*0", "", "", "503 no_backend none"),
    (">v1:a1", "v9/z9=staged a1=down", "", "503 no_backend none"),
    // Pinned with the first response, before there is a session.
    (TWO, "", "anonymous@a2", "a2 anonymous valid"),
    (DEPLOYED, "", "anonymous@a1", "b1 new overridden"),
    (TWO, "a2=draining", "anonymous@a2", "a1 new overridden"),
    (TWO, "a2=down", "anonymous@a2", "a1 new down"),
    (TWO, "", "anonymous@a2 tried@a2", "a1 new down"),
    // A session that we do not know, under a pin from before it: the application knows.
    (TWO, "", "id anonymous@a2", "a2 returned valid"),
    (DEPLOYED, "v1=stopped", "anonymous@a1", "b1 new lost"),
    (">v1:a2", "", "anonymous@gone", "a2 new lost"),
];

/// R5: only draining backends are healthy.
const ALL_DRAINING: &[Row] = &[
    (">v1:a1", "a1=draining", "", "a1 all_draining none"),
    (">v1:a1", "a1=order_drain", "", "a1 all_draining none"),
    ("v1:a1 >v2:b1", "b1=down", "", "a1 all_draining none"),
    // The newest release first.
    ("v1:a1 >v2:b1", "b1=draining", "", "b1 all_draining none"),
    ("v1:a1 v2:b1", "a1=draining b1=draining", "", "b1 all_draining none"),
    // No pin is lost: an expired session has nowhere better to go than to its own backend, cookie intact.
    ("v1:a1 >v2:b1", "b1=draining", "live@a1", "a1 pinned none"),
    ("v1:a1 >v2:b1", "b1=draining", "id pin@a1", "a1 returned valid"),
    ("v1:a1 >v2:b1", "b1=draining", "idle@a1 pin@a1", "a1 returned valid"),
    ("v1:a1 >v2:b1", "b1=draining refuse", "idle@a1", "503 no_backend expired"),
    ("v1:a1 >v2:b1", "b1=draining", "evicted@a1", "b1 all_draining overridden strip"),
    (">v1:a1", "a1=draining refuse", "", "503 no_backend none"),
    (">v1:a1", "a1=draining refuse", "live@a1", "a1 pinned none"),
    // Silent backends take nobody new; those that never took anybody, neither.
    (">v1:a1", "a1=stalled", "", "503 no_backend none"),
    (">v1:a1*0", "a1=draining", "", "503 no_backend none"),
    // Backups come after.
    (">v1:a1,a2!", "a1=draining", "", "a1 all_draining none"),
    (">v1:a1,a2!", "a1=draining refuse", "", "a2 backup none"),
    (">v1:a1,a2!", "a1=down", "", "a2 backup none"),
    (">v1:a1,a2!", "a1=down a2=draining", "", "503 no_backend none"),
];

const REPLAYED: &[Row] = &[
    (DEPLOYED, "", "id pin@a1 disowned", "b1 replayed expired strip"),
    (DEPLOYED, "", "id route@a1 disowned", "b1 replayed expired strip"),
    (DEPLOYED, "", "candidate@a1 disowned", "b1 replayed none strip"),
    (DEPLOYED, "", "idle@a1 disowned write", "b1 replayed none strip"),
    (DEPLOYED, "", "disowned", "b1 replayed none strip"),
    // Another backend of the same release first.
    (TWO, "a1=order_drain", "id pin@a1 disowned", "a2 replayed expired strip"),
    ("v1:a1 >v2:b1", "b1=down", "id pin@a1 disowned", "a1 all_draining expired strip"),
    (DEPLOYED, "b1=down refuse", "id pin@a1 disowned", "503 no_backend expired"),
];

const MOVE_POINTS: &[Row] = &[
    (DEPLOYED, "", "live@a1 arrival", "b1 move_point none strip"),
    (DEPLOYED, "", "live@a1 pin@a1 arrival", "b1 move_point valid strip"),
    (DEPLOYED, "", "id pin@a1 arrival", "b1 move_point valid strip"),
    (DEPLOYED, "", "idle@a1 arrival", "b1 move_point none strip"),
    (TWO, "a1=order_drain", "live@a1 arrival", "a2 move_point none strip"),
    (TWO, "a1=draining", "live@a1 arrival", "a2 move_point none strip"),
    // Whoever drains nothing moves nobody.
    (TWO, "", "live@a1 arrival", "a1 pinned none"),
    (DEPLOYED, "", "live@b1 arrival", "b1 pinned none"),
    (DEPLOYED, "", "arrival", "b1 new none"),
    // Nowhere better to go.
    (DEPLOYED, "b1=down", "live@a1 arrival", "a1 pinned none"),
    (DEPLOYED, "b1=down refuse", "live@a1 arrival", "a1 pinned none"),
    (DEPLOYED, "a1=down", "live@a1 arrival", "a2 stand_in down"),
    (">v1:a1,a2!", "a1=draining refuse", "live@a1 arrival", "a1 pinned none"),
];

const EVICTED: &[Row] = &[
    (DEPLOYED, "", "evicted@a1 pin@a1 write", "503 evicted overridden"),
    (DEPLOYED, "", "evicted@a1 write", "503 evicted overridden"),
    (DEPLOYED, "", "evicted@a1 arrival", "b1 moved overridden strip"),
    (TWO, "a1=order_drain", "evicted@a1 write", "503 evicted overridden"),
    (TWO, "", "evicted@a1 write", "503 evicted overridden"),
    (DEPLOYED, "", "evicted@gone write", "503 evicted overridden"),
    (DEPLOYED, "b1=down", "evicted@a1 write", "503 evicted overridden"),
    // Told, and its pin is gone with the answer: new. Whoever still shows the pin sent it before.
    (DEPLOYED, "", "told@a1 write", "b1 moved overridden strip"),
    (DEPLOYED, "", "told@a1 pin@a1 write", "503 evicted overridden"),
    (DEPLOYED, "", "knows@a1 pin@a1 write", "503 evicted overridden"),
    // Where no pin can go, a moment counts as before.
    (DEPLOYED, "route", "evicted@a1 route@a1 write", "503 evicted overridden"),
    (DEPLOYED, "route", "told@a1 route@a1 write", "503 evicted overridden"),
    (DEPLOYED, "route", "knows@a1 route@a1 write", "b1 moved overridden strip"),
    // Dead of themselves: a new client may do what it likes.
    (DEPLOYED, "", "idle@a1 write", "b1 moved expired strip"),
    (DEPLOYED, "", "moved@a1 pin@a1 write", "b1 moved expired strip"),
];

#[test]
fn a_disowned_request_goes_where_new_clients_go() {
    check(REPLAYED);
}

#[test]
fn a_move_point_moves_whoever_is_on_a_draining_backend() {
    check(MOVE_POINTS);
}

#[test]
fn what_an_evicted_user_may_change_goes_nowhere_until_they_know() {
    check(EVICTED);
}

#[test]
fn a_pin_is_followed_while_its_backend_admits_known_sessions() {
    check(PINS);
}

#[test]
fn of_ledger_and_pin_the_later_issued_wins() {
    check(DISAGREEMENTS);
}

#[test]
fn a_dead_session_is_stripped_and_its_user_is_new() {
    check(DEAD);
}

#[test]
fn a_proven_restart_makes_its_users_new_clients_and_a_suspected_one_changes_nothing() {
    check(RESTARTED);
}

#[test]
fn a_live_session_whose_backend_is_away_goes_by_failover() {
    check(ABSENT);
}

#[test]
fn a_new_client_goes_to_whoever_takes_new_sessions() {
    check(NEW);
}

#[test]
fn when_all_drain_the_policy_decides_and_no_pin_is_lost() {
    check(ALL_DRAINING);
}

#[test]
fn every_reason_that_deciding_gives_is_in_the_tables() {
    let rows = [PINS, DISAGREEMENTS, DEAD, RESTARTED, ABSENT, NEW, ALL_DRAINING, REPLAYED, MOVE_POINTS, EVICTED].concat();
    let seen: BTreeSet<&str> = rows.iter().filter_map(|(_, _, _, expected)| expected.split(' ').nth(1)).collect();
    // Those that the shell finds before or after deciding.
    let elsewhere = [Reason::QueueFull, Reason::QueueTimeout, Reason::RetryBudget, Reason::NoApp, Reason::BadPath, Reason::BodyTooLarge];
    for reason in Reason::ALL {
        assert_eq!(seen.contains(reason.as_str()), !elsewhere.contains(&reason), "{reason:?}");
    }
    let pins: BTreeSet<&str> = rows.iter().filter_map(|(_, _, _, expected)| expected.split(' ').nth(2)).collect();
    for result in PinResult::ALL {
        assert!(pins.contains(result.as_str()), "{result:?}");
    }
}

/// Only who stands for a session may enter a gate that closes to new clients between decision and claim.
#[test]
fn the_claim_needs_what_the_decision_relied_on() {
    let check = |drawn: &str, words: &str, client: &str, need: Admission, footing: Footing| match ask(&arrange(drawn, words), client) {
        Decision::Forward(f) => assert_eq!((f.need, f.footing), (need, footing), "{drawn} | {words} | {client}"),
        other => panic!("{client}: {other:?}"),
    };
    check(TWO, "", "live@a1", Admission::KnownSessions, Footing::Live);
    check(TWO, "", "id pin@a1", Admission::KnownSessions, Footing::Unknown);
    check(TWO, "", "idle@a1", Admission::KnownSessions, Footing::Unknown);
    check(TWO, "", "", Admission::Everyone, Footing::New);
    check(TWO, "", "anonymous@a1", Admission::Everyone, Footing::New);
    check(DEPLOYED, "", "idle@a1", Admission::Everyone, Footing::New);
    check(TWO, "a1=down", "live@a1", Admission::Everyone, Footing::Live);
    check(TWO, "a1=down", "id pin@a1", Admission::Everyone, Footing::Unknown);
    check(DEPLOYED, "a1=down", "live@a1", Admission::KnownSessions, Footing::Live);
    check(">v1:a1", "a1=draining", "", Admission::KnownSessions, Footing::New);
    check(">v1:a1,a2!", "a1=down", "", Admission::Everyone, Footing::New);
}
