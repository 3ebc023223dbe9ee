//! The orders of the API: each reads its body, asks [`Control`] for one change, and tells what became of it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::fault::Fault;
use super::{Admin, document};
use crate::api;
use crate::config::scalar::{parse_address, parse_duration, parse_name};
use crate::model::admission::{Health, Intent};
use crate::model::change::Change;
use crate::model::event::Owner;
use crate::model::settings::{BackendSpec, DrainThen, Protocol, ReleaseSpec};
use crate::model::target::Target;
use crate::serve::control::DrainOrder;

pub(super) type Answer = Result<Response, Fault>;
type Shared = State<Arc<Admin>>;

/// Longest wait for a staged release's first probe before its promotion is refused: a command line should not seem to hang.
const FIRST_PROBE_AT_MOST: Duration = Duration::from_secs(5);
/// Between two looks at the health of such a release.
const FIRST_PROBE_LOOK: Duration = Duration::from_millis(50);

/// Reads a JSON body. An empty one stands for `{}`, so that `curl -X POST` is enough where every field has a default.
pub(super) fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, Fault> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let json = kind.is_some_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")));
    if !json && body != b"{}" {
        let remedy = "send 'Content-Type: application/json' and a JSON object";
        return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not declared as JSON", remedy));
    }
    serde_json::from_slice(body).map_err(|error| {
        Fault::new(
            StatusCode::BAD_REQUEST,
            format!("the body cannot be used: {error}"),
            "the manual lists the fields of every call (section Admin API)",
        )
    })
}

fn target(text: &str) -> Result<Target, Fault> {
    Target::parse(text).map_err(|what| Fault::new(StatusCode::BAD_REQUEST, what, "tidegate status lists what there is"))
}

fn span(field: &str, text: Option<&str>) -> Result<Option<Duration>, Fault> {
    text.map(|text| parse_duration(text).map_err(|wrong| Fault::field(field, &wrong))).transpose()
}

fn drain_order(deadline: Option<&str>, then: Option<&str>) -> Result<DrainOrder, Fault> {
    let kinds = [DrainThen::Keep, DrainThen::MoveIdle, DrainThen::Evict];
    let find = |name: &str| {
        let found = kinds.into_iter().find(|kind| document::then_name(*kind) == name);
        found.ok_or_else(|| Fault::choice("then", name, &kinds.map(document::then_name)))
    };
    Ok(DrainOrder { deadline: span("deadline", deadline)?, then: then.map(find).transpose()? })
}

pub(super) fn ids(drains: &[u64]) -> Vec<String> {
    drains.iter().map(|id| format!("d{id}")).collect()
}

pub(super) async fn promote(State(admin): Shared, Path(app): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::Promote = read(&headers, &body)?;
    let drain = drain_order(order.deadline.as_deref(), order.then.as_deref())?;
    if !order.force {
        first_probe(&admin, &app, &order.release).await;
    }
    let change = Change::Promote { app: app.clone(), release: order.release, from: order.from, force: order.force };
    promoted(&admin, &app, &change, drain)
}

pub(super) async fn rollback(State(admin): Shared, Path(app): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::Rollback = read(&headers, &body)?;
    let drain = drain_order(order.deadline.as_deref(), order.then.as_deref())?;
    if let (Some(to), false) = (&order.to, order.force) {
        first_probe(&admin, &app, to).await;
    }
    let change = Change::Rollback { app: app.clone(), to: order.to, from: order.from, force: order.force };
    promoted(&admin, &app, &change, drain)
}

fn promoted(admin: &Admin, app: &str, change: &Change, drain: DrainOrder) -> Answer {
    let drains = admin.control.apply(change, Owner::Operator, drain)?;
    let current = admin.control.view().app(app).and_then(|app| app.current.clone()).map_or_else(String::new, |name| name.to_string());
    Ok((StatusCode::ACCEPTED, Json(api::Promoted { current, drains: ids(&drains) })).into_response())
}

/// Waits for the verdict on backends that no probe has met yet: `stage` and `promote` in one script must not race the prober.
async fn first_probe(admin: &Admin, app: &str, release: &str) {
    let began = Instant::now();
    loop {
        let view = admin.control.view();
        let Some(app) = view.app(app) else { return };
        let Some(release) = app.release(release) else { return };
        let health: Vec<Health> = release.backends.iter().map(|b| b.live.gate.read().health).collect();
        let bound = FIRST_PROBE_AT_MOST.min(app.settings.health.interval + app.settings.health.timeout);
        if health.contains(&Health::Up) || !health.contains(&Health::Untested) || began.elapsed() >= bound {
            return;
        }
        sleep(FIRST_PROBE_LOOK).await;
    }
}

pub(super) async fn stage(State(admin): Shared, Path(app): Path<String>, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::Stage = read(&headers, &body)?;
    parse_name(&order.name).map_err(|wrong| Fault::field("name", &wrong))?;
    let backends = order.backends.iter().map(|(name, backend)| backend_spec(name, backend)).collect::<Result<_, _>>()?;
    let release = ReleaseSpec { name: order.name.clone(), path: own_prefix(order.path.as_deref())?, backends };
    admin.control.apply(&Change::Stage { app: app.clone(), release }, Owner::Operator, DrainOrder::default())?;
    let status = document::status(&admin.control);
    let staged = status.apps.get(&app).and_then(|a| a.releases.get(&order.name)).cloned();
    Ok((StatusCode::CREATED, Json(staged)).into_response())
}

fn backend_spec(name: &str, backend: &api::StageBackend) -> Result<BackendSpec, Fault> {
    let field = |part: &str| format!("backends.{name}{part}");
    parse_name(name).map_err(|wrong| Fault::field(&field(""), &wrong))?;
    let full = match backend {
        api::StageBackend::Full(full) => full.clone(),
        api::StageBackend::Address(address) => {
            api::StageBackendFull { address: address.clone(), weight: None, route: None, backup: false, max_connections: None }
        }
    };
    let address = parse_address(&full.address).map_err(|wrong| Fault::field(&field(""), &wrong))?;
    let route = full.route.unwrap_or_else(|| name.to_owned());
    parse_name(&route).map_err(|wrong| Fault::field(&field(".route"), &wrong))?;
    if route.contains('.') {
        let what = format!("{}: '{route}' contains a dot", field(".route"));
        return Err(Fault::new(
            StatusCode::BAD_REQUEST,
            what,
            "what follows the last dot of a session id is its route: give the backend a route without one",
        ));
    }
    if full.max_connections == Some(0) {
        return Err(Fault::new(
            StatusCode::BAD_REQUEST,
            format!("{} is 0", field(".max_connections")),
            "at least 1; leave it out for no bound",
        ));
    }
    Ok(BackendSpec {
        name: name.to_owned(),
        address,
        route,
        weight: full.weight.unwrap_or(1),
        backup: full.backup,
        max_connections: full.max_connections,
        tls: None,
        protocol: Protocol::Http1,
    })
}

/// A path prefix of whole, plain segments, without the trailing slash; `/` is no mapping.
fn own_prefix(path: Option<&str>) -> Result<Option<String>, Fault> {
    let Some(path) = path else { return Ok(None) };
    let trimmed = path.trim_end_matches('/');
    let plain =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    match trimmed.strip_prefix('/') {
        None if path.starts_with('/') => Ok(None),
        Some(segments) if segments.split('/').all(plain) => Ok(Some(trimmed.to_owned())),
        _ => Err(Fault::new(
            StatusCode::BAD_REQUEST,
            format!("path: '{path}' is no path prefix"),
            "write one such as /shop-v43: letters, digits, '-', '.', '_', '~'",
        )),
    }
}

pub(super) async fn stop(State(admin): Shared, Path((app, release)): Path<(String, String)>, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::Stop = read(&headers, &body)?;
    let done = format!("release {app}/{release} is stopped");
    let change = Change::Stop { app, release, force: order.force };
    admin.control.apply(&change, Owner::Operator, DrainOrder::default())?;
    Ok(Json(api::Done { done }).into_response())
}

pub(super) async fn remove(State(admin): Shared, Path((app, release)): Path<(String, String)>) -> Answer {
    let done = format!("release {app}/{release} is forgotten");
    admin.control.apply(&Change::Remove { app, release }, Owner::Operator, DrainOrder::default())?;
    Ok(Json(api::Done { done }).into_response())
}

pub(super) async fn drain(State(admin): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::DrainOrder = read(&headers, &body)?;
    let (wanted, how) = (target(&order.target)?, drain_order(order.deadline.as_deref(), order.then.as_deref())?);
    let running = document::latest_drain(&admin.control, &wanted).filter(|d| d.state.runs()).is_some();
    let change = Change::Intent { target: wanted.clone(), intent: Intent::Drain, force: order.force };
    admin.control.apply(&change, Owner::Operator, how)?;
    let Some(drain) = document::latest_drain(&admin.control, &wanted) else {
        let what = format!("'{wanted}' has no session to drain");
        return Err(Fault::new(StatusCode::CONFLICT, what, "none needed: tidegate status shows its state"));
    };
    let status = if running || !drain.state.runs() { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(document::drain(&admin.control, &drain, &admin.control.view(), admin.control.now()))).into_response())
}

pub(super) async fn cancel(State(admin): Shared, Path(id): Path<String>) -> Answer {
    let drain = admin.control.cancel(drain_id(&id)?)?;
    Ok(Json(document::drain(&admin.control, &drain, &admin.control.view(), admin.control.now())).into_response())
}

/// `d7`, and `7` for people who type.
pub(super) fn drain_id(text: &str) -> Result<u64, Fault> {
    let number = text.strip_prefix('d').unwrap_or(text).parse();
    number.map_err(|_| Fault::not_found(format!("drain '{text}' does not exist"), "drains are named d1, d2 and so on: see tidegate status"))
}

pub(super) async fn intent(State(admin): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::IntentOrder = read(&headers, &body)?;
    let wanted = target(&order.target)?;
    let intent = Intent::find(&order.intent).ok_or_else(|| Fault::choice("intent", &order.intent, &Intent::ALL.map(Intent::as_str)))?;
    let change = Change::Intent { target: wanted, intent, force: order.force };
    let drains = admin.control.apply(&change, Owner::Operator, DrainOrder::default())?;
    Ok(Json(api::IntentSet { target: order.target, intent: order.intent, drains: ids(&drains) }).into_response())
}

pub(super) async fn evict(State(admin): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::Evict = read(&headers, &body)?;
    let (target, idle) = (target(&order.target)?, span("idle", order.idle.as_deref())?);
    // Not on a worker: a million entries take a while to walk.
    let evicted = tokio::task::spawn_blocking(move || admin.control.evict(&target, idle)).await;
    let broken = |_| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the sessions could not be evicted", "see the process log");
    let evicted = evicted.map_err(broken)??;
    Ok(Json(api::Evicted { evicted: evicted as u64 }).into_response())
}

pub(super) async fn lost(State(admin): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::Lost = read(&headers, &body)?;
    let target = target(&order.target)?;
    let lost = tokio::task::spawn_blocking(move || admin.control.lost(&target)).await;
    let broken = |_| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the sessions could not be given up", "see the process log");
    Ok(Json(api::SessionsLost { lost: lost.map_err(broken)?? as u64 }).into_response())
}

pub(super) async fn explain(State(admin): Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let order: api::Explain = read(&headers, &body)?;
    super::known_app(&admin, &order.app)?;
    if !order.path.starts_with('/') {
        return Err(Fault::new(
            StatusCode::BAD_REQUEST,
            format!("path: '{}' does not begin with a slash", order.path),
            "write the path as in a URL, such as /cart",
        ));
    }
    let headers: Vec<(String, String)> = order.headers.into_iter().collect();
    Ok(Json((admin.explain)(&order.app, &order.path, &headers)).into_response())
}

pub(super) async fn upgrade(State(admin): State<Arc<Admin>>) -> Answer {
    // It waits for another process: not on a thread that serves others.
    let upgraded = tokio::task::spawn_blocking(move || (admin.upgrade)()).await;
    match upgraded {
        Ok(Ok(pid)) => Ok(Json(api::Upgraded { pid }).into_response()),
        Ok(Err(why)) => Err(Fault::new(StatusCode::CONFLICT, why, "this process serves on: mend what it says, and try again")),
        Err(panic) => Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, panic.to_string(), "see the log")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_made_of_plain_segments() {
        let check = |path: &str, expected: Option<Option<&str>>| {
            assert_eq!(own_prefix(Some(path)).ok(), expected.map(|p| p.map(str::to_owned)), "{path}");
        };
        check("/shop-v43", Some(Some("/shop-v43")));
        check("/a/b/", Some(Some("/a/b")));
        check("/", Some(None));
        for bad in ["", "shop", "/a//b", "/a/../b", "/a b", "/a%2fb", "/a;x", "/a?b"] {
            check(bad, None);
        }
    }

    #[test]
    fn drains_are_named_with_or_without_the_letter() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(drain_id(text).ok(), expected, "{text}");
        check("d7", Some(7));
        check("7", Some(7));
        check("dd7", None);
        check("d", None);
        check("", None);
        check("d-7", None);
    }
}
