//! Requests, answers, and whether the answer is discarded. A row reads: who drains, what the client brings, what it asks, what the
//! backend says, why it is sent once more.

use std::time::Duration;

use super::*;
use crate::model::decide::{Footing, PinClaim};
use crate::model::ledger::{Attention, EndReason};
use crate::model::reason::{PinResult, Reason};
use crate::model::session_key::SessionKey;
use crate::model::settings::StatusSet;
use crate::model::sketch::World;

/// The world in which v1 drains, with one barred path.
fn world() -> World {
    World::with("v1:a1 >v2:b1", |settings| settings.drain.no_replay = vec!["/callback".to_owned()])
}

fn key(id: &str) -> SessionKey {
    let mut bytes = [0; 16];
    bytes[..id.len()].copy_from_slice(id.as_bytes());
    SessionKey(bytes)
}

/// What the ledger knew of the session `A` when the request was decided: `unknown`, `live`, `candidate`, an end's reason, `none`
/// (it carried no id), `late` (it lives by now, because of another exchange), `stripped` (dead, and taken out).
fn facts(world: &World, session: &str) -> Facts {
    let (ledger, slot) = (&world.shop().ledger, world.backend("a1").slot);
    let ended = EndReason::ALL.into_iter().find(|reason| reason.as_str() == session);
    if session == "live" || ended.is_some() {
        ledger.born(key("A"), slot, 0, world.now);
        ledger.enter(key("A"), Attention::Foreground, world.now);
        ledger.leave(key("A"), world.now);
    }
    if let Some(reason) = ended {
        ledger.end(key("A"), reason, 0, world.now);
    }
    if session == "candidate" {
        ledger.adopt(key("A"), slot, crate::model::ledger::Adoption::Unsigned, world.now, world.now);
    }
    let found = ledger.find(key("A"), world.now);
    if session == "late" {
        ledger.born(key("A"), slot, 0, world.now);
    }
    Facts { key: (session != "none").then_some(key("A")), carrier: None, session: found, pin: PinClaim::None, refresh: false }
}

/// A row: backend, session, `METHOD PATH`, the answer (`new`, `same`, `deleted`, `silent`, `disowns`, `disowns new`), the cause.
type Row = (&'static str, &'static str, &'static str, &'static str, Option<ReplayCause>);

fn check(rows: &[Row]) {
    for (backend, session, request, answer, expected) in rows {
        let world = world();
        let facts = facts(&world, session);
        let (method, path) = request.split_once(' ').expect("METHOD PATH");
        let heard = match answer.split(' ').next_back() {
            Some("new") => Heard::Set(key("B"), 0),
            Some("same") => Heard::Set(key("A"), 0),
            Some("deleted") => Heard::Deleted(0),
            Some("disowns") => Heard::Failure,
            _ => Heard::Nothing,
        };
        let forward = Forward {
            backend: std::sync::Arc::clone(world.backend(backend)),
            need: Admission::KnownSessions,
            reason: Reason::Returned,
            pin: PinResult::None,
            strip: *session == "stripped",
            footing: Footing::Unknown,
            stands_in: false,
        };
        let drain = &world.shop().settings.drain;
        let errand = Errand::of(&Method::from_bytes(method.as_bytes()).expect("a method"), path, drain);
        let answered = Answered { facts: &facts, forward: &forward, errand, path, disowned: answer.starts_with("disowns"), heard };
        let found = answered.replay(&world.shop().ledger, drain, world.now);
        assert_eq!(found, *expected, "{backend} {session} {request} {answer}");
    }
}

const NEW_SESSION: Option<ReplayCause> = Some(ReplayCause::NewSession);
const NOT_MINE: Option<ReplayCause> = Some(ReplayCause::NotMine);

#[test]
fn a_new_session_on_a_draining_backend_is_not_the_clients() {
    check(&[
        ("a1", "unknown", "GET /", "new", NEW_SESSION),
        ("a1", "candidate", "GET /", "new", NEW_SESSION),
        ("a1", "idle", "GET /", "new", NEW_SESSION),
        ("a1", "unconfirmed", "GET /", "new", NEW_SESSION),
        ("a1", "unknown", "HEAD /", "new", NEW_SESSION),
        ("a1", "unknown", "OPTIONS /", "new", NEW_SESSION),
        ("a1", "unknown", "TRACE /", "new", NEW_SESSION),
        // What may have changed something is not done twice.
        ("a1", "unknown", "POST /", "new", None),
        ("a1", "unknown", "PUT /", "new", None),
        ("a1", "unknown", "DELETE /", "new", None),
        ("a1", "unknown", "PATCH /", "new", None),
        ("a1", "unknown", "BREW /", "new", None),
        // Nor what a one-time code unlocked.
        ("a1", "unknown", "GET /callback", "new", None),
        ("a1", "unknown", "GET /callback/github", "new", None),
        ("a1", "unknown", "GET /callbacks", "new", NEW_SESSION),
        // The backend honours the id, or says nothing new.
        ("a1", "unknown", "GET /", "same", None),
        ("a1", "unknown", "GET /", "silent", None),
        ("a1", "unknown", "GET /", "deleted", None),
        // There was nothing to be replaced.
        ("a1", "none", "GET /", "new", None),
        ("a1", "stripped", "GET /", "new", None),
        // It lives, or does by now.
        ("a1", "live", "GET /", "new", None),
        ("a1", "late", "GET /", "new", None),
        // A serving backend may begin what it likes.
        ("b1", "unknown", "GET /", "new", None),
    ]);
}

#[test]
fn by_contract_a_draining_backend_sends_anything_on() {
    check(&[
        ("a1", "unknown", "GET /", "disowns", NOT_MINE),
        ("a1", "unknown", "POST /", "disowns", NOT_MINE),
        ("a1", "evicted", "PUT /", "disowns", NOT_MINE),
        ("a1", "none", "POST /", "disowns", NOT_MINE),
        ("a1", "unknown", "POST /", "disowns new", NOT_MINE),
        // It did nothing with the code.
        ("a1", "unknown", "GET /callback", "disowns", NOT_MINE),
        ("a1", "live", "GET /", "disowns", None),
        ("a1", "late", "POST /", "disowns", None),
        ("b1", "unknown", "GET /", "disowns", None),
    ]);
}

#[test]
fn a_backends_word_is_a_status_a_field_or_a_place() {
    let check = |word: &NotMine, status: u16, fields: &[(&str, &str)], expected: bool| {
        let field = |name: &str| fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes());
        assert_eq!(disowns(word, status, field), expected, "{word:?} {status} {fields:?}");
    };
    let default = NotMine::default();
    check(&default, 421, &[], true);
    check(&default, 200, &[("X-Not-Mine", "1"), ("Location", "/login?expired")], false);
    let word = NotMine { status: StatusSet(vec![(440, 449)]), header: Some("X-Not-Mine".into()), location: Some("/login?expired".into()) };
    check(&word, 421, &[], false);
    check(&word, 440, &[], true);
    check(&word, 200, &[("x-not-mine", "")], true);
    check(&word, 302, &[("Location", "/login?expired=1")], true);
    check(&word, 302, &[("Location", "/login")], false);
}

#[test]
fn an_errand_is_read_from_method_and_path() {
    let point = |method: &str, path: &str| MovePoint { method: method.into(), path: path.into() };
    let drain = DrainSettings { move_points: vec![point("GET", "/login"), point("POST", "/logout")], ..DrainSettings::default() };
    let check = |method: Method, path: &str, expected: Errand| assert_eq!(Errand::of(&method, path, &drain), expected, "{method} {path}");
    check(Method::GET, "/login", Errand::Arrival);
    check(Method::GET, "/login;jsessionid=1", Errand::Arrival);
    check(Method::HEAD, "/login", Errand::Read);
    check(Method::POST, "/login", Errand::Write);
    check(Method::GET, "/login/", Errand::Read);
    check(Method::GET, "/logout", Errand::Read);
    check(Method::POST, "/logout", Errand::Farewell);
    check(Method::DELETE, "/logout", Errand::Write);
}

/// A session that is left at a farewell is over, whatever name the answer gives it.
#[test]
fn a_farewell_leaves_no_session_behind() {
    use crate::model::visit::{PinChange, Visit};
    for (session, heard, ended, change) in [
        ("live", Heard::Nothing, EndReason::Moved, PinChange::Delete),
        ("live", Heard::Set(key("B"), 0), EndReason::Moved, PinChange::Delete),
        ("live", Heard::Deleted(0), EndReason::Logout, PinChange::Delete),
    ] {
        let world = world();
        let (ledger, backend) = (&world.shop().ledger, world.backend("a1"));
        let facts = facts(&world, session);
        let forward = Forward {
            backend: std::sync::Arc::clone(backend),
            need: Admission::KnownSessions,
            reason: Reason::Pinned,
            pin: PinResult::Valid,
            strip: false,
            footing: Footing::Live,
            stands_in: false,
        };
        let later = world.now + Duration::from_secs(1);
        let (mut visit, _) = Visit::begin(ledger, &facts, &forward, Attention::Foreground, world.now, world.now);
        assert_eq!(visit.hear_farewell(ledger, heard, later), change, "{heard:?}");
        let name = if let Heard::Set(name, _) = heard { name } else { key("A") };
        assert_eq!(ledger.find(name, later).map(|found| found.standing), Some(Standing::Ended(ended)), "{heard:?}");
        assert_eq!(backend.sessions(), 0, "{heard:?}");
        assert_eq!(backend.live.counts.ended(ended), 1, "{heard:?}");
    }
    assert!(Errand::Farewell.parts(world().backend("a1"), 302));
    assert!(!Errand::Farewell.parts(world().backend("a1"), 403), "it was refused: the session lives");
    assert!(!Errand::Farewell.parts(world().backend("b1"), 200), "nobody is to leave");
    assert!(!Errand::Write.parts(world().backend("a1"), 200));
}
