//! An app with its curve, its releases and their backends.
//!
//! Orders are offered where they make sense by the state of a release or the intent of a backend. Whether one is carried out the
//! API decides: a page may be a second old.

use maud::{Markup, PreEscaped, html};

use super::cells::{Canvas, Order};
use super::facts::Facts;
use super::words::serving;
use crate::api;

/// A release with more backends shows a line until it is opened.
const FOLDED_FROM: usize = 21;

pub(super) fn section(canvas: &Canvas, name: &str, app: &api::AppStatus, facts: &Facts) -> Markup {
    let extra = facts.apps.get(name).cloned().unwrap_or_default();
    let id = format!("app-{name}");
    let curve = facts.curves.get(name).cloned().unwrap_or_default();
    html! {
        section.app #(id) aria-labelledby=(format!("{id}:name")) data-app=(name) data-evict-per-second=(extra.evict_per_second) {
            header.title {
                h2 #(format!("{id}:name")) tabindex="-1" { (name) }
                (canvas.block(&format!("{name}.rollback"), "orders", rollback(name, extra.rollback_to.as_deref())))
            }
            (canvas.block(&format!("{name}.curve"), "curve", PreEscaped(curve)))
            div.releases {
                // The newest first: that is the one that somebody has just deployed.
                @for (release, status) in app.releases.0.iter().rev() { (release_card(canvas, name, app, release, status)) }
            }
        }
    }
}

fn rollback(app: &str, to: Option<&str>) -> Markup {
    html! {
        @if let Some(to) = to {
            button type="button" data-order=(format!("rollback {app}")) data-to=(to) aria-label=(format!("Roll back to {to}: {app}")) { "Roll back to " (to) }
        }
    }
}

fn release_card(canvas: &Canvas, app: &str, of: &api::AppStatus, name: &str, release: &api::ReleaseStatus) -> Markup {
    let target = format!("{app}/{name}");
    let key = |field: &str| format!("{target}.{field}");
    // A colon is in no name, so that no two of them meet.
    let id = format!("release-{app}:{name}");
    let sessions = release.sessions;
    let in_flight: u64 = release.backends.iter().map(|(_, backend)| backend.in_flight).sum();
    let count = release.backends.0.len();
    let counts = [
        ("live", "live", "sessions whose user has come back at least once", sessions.live),
        ("engaged", "engaged", "of them: somebody clicked of late", sessions.engaged),
        ("kept_alive", "kept alive", "of them: silent, or touched by a background request only", sessions.kept_alive),
        ("unconfirmed", "unconfirmed", "newborn: a user, or a crawler that will never come back", sessions.unconfirmed),
        ("in_flight", "in flight", "requests under way", in_flight),
    ];
    html! {
        article.release #(id) aria-labelledby=(format!("{id}:name")) {
            header.title {
                h3 #(format!("{id}:name")) tabindex="-1" { (name) }
                (canvas.word(&key("state"), &release.state))
                (release_orders(canvas, &target, of, name, release))
            }
            dl.counts {
                @for (field, name, title, figure) in counts {
                    div class=(field) { dt { abbr title=(title) { (name) } } dd { (canvas.text(&key(field), figure)) } }
                }
            }
            @if count < FOLDED_FROM {
                (backends(canvas, &target, release))
            } @else {
                details #(format!("{id}:backends")) {
                    summary { (canvas.text(&key("backends"), folded(release))) }
                    (backends(canvas, &target, release))
                }
            }
        }
    }
}

/// Many backends in a line.
fn folded(release: &api::ReleaseStatus) -> String {
    let health = ["up", "draining", "stalled", "untested", "down"].into_iter().filter_map(|health| {
        let count = release.backends.iter().filter(|(_, backend)| backend.health == health).count();
        (count > 0).then(|| format!("{count} {health}"))
    });
    let health: Vec<String> = health.collect();
    format!("{} backends: {}; {} take new sessions", release.backends.0.len(), health.join(", "), serving(release))
}

fn backends(canvas: &Canvas, target: &str, release: &api::ReleaseStatus) -> Markup {
    let counts = release.backends.iter().any(|(_, backend)| backend.counted.is_some());
    html! {
        table.backends {
            caption.unseen { "Backends of " (target) }
            thead {
                tr {
                    th scope="col" { "Backend" }
                    th scope="col" { "Health" }
                    th scope="col" { "Intent" }
                    th scope="col" { "Admits" }
                    th.figure scope="col" { "Live" }
                    th.figure scope="col" { "Engaged" }
                    th.figure scope="col" { "Kept alive" }
                    th.figure scope="col" { "Unconfirmed" }
                    th.figure scope="col" { "In flight" }
                    th.figure scope="col" { abbr title="How often its process has begun" { "Life" } }
                    @if counts { th.figure scope="col" { abbr title="Sessions that the backend itself counts" { "Counted" } } }
                    th.orders scope="col" { span.unseen { "Orders" } }
                }
            }
            tbody {
                @for (name, status) in release.backends.iter() { (backend(canvas, &format!("{target}/{name}"), name, status, &release.state, counts)) }
            }
        }
    }
}

fn backend(canvas: &Canvas, target: &str, name: &str, backend: &api::BackendStatus, state: &str, counts: bool) -> Markup {
    let key = |field: &str| format!("{target}.{field}");
    let sessions = backend.sessions;
    html! {
        tr data-backend=(target) {
            th scope="row" { span.name { (name) } " " span.address { (backend.address) } }
            td data-label="Health" { (canvas.word(&key("health"), &backend.health)) }
            td data-label="Intent" { (canvas.word(&key("intent"), &backend.intent)) }
            td data-label="Admits" { (canvas.word(&key("admission"), &backend.admission)) }
            (canvas.figure(&key("live"), "Live", sessions.live))
            (canvas.figure(&key("engaged"), "Engaged", sessions.engaged))
            (canvas.figure(&key("kept_alive"), "Kept alive", sessions.kept_alive))
            (canvas.figure(&key("unconfirmed"), "Unconfirmed", sessions.unconfirmed))
            (canvas.figure(&key("in_flight"), "In flight", backend.in_flight))
            (canvas.figure(&key("incarnation"), "Life", backend.incarnation))
            @if counts {
                td.figure data-label="Counted" { (canvas.text(&key("counted"), backend.counted.map_or_else(|| "?".to_owned(), |n| n.to_string()))) }
            }
            td.orders { (backend_orders(canvas, target, backend, state)) }
        }
    }
}

fn order(word: &'static str, label: &'static str, offered: bool) -> Order {
    Order { word, label, offered }
}

fn release_orders(canvas: &Canvas, target: &str, app: &api::AppStatus, name: &str, release: &api::ReleaseStatus) -> Markup {
    let state = release.state.as_str();
    let emptying = matches!(state, "draining" | "fencing");
    let evict = order("evict", "Evict", emptying);
    let stop = order("stop", "Stop", emptying || matches!(state, "drained" | "staged"));
    if app.current == "by_health" {
        let serves = state == "by_health";
        canvas.orders(target, &[order("drain", "Drain", serves), order("serve", "Serve", !serves), evict, stop])
    } else {
        canvas.orders(target, &[order("promote", "Promote", app.current != name), evict, stop])
    }
}

fn backend_orders(canvas: &Canvas, target: &str, backend: &api::BackendStatus, state: &str) -> Markup {
    let open = matches!(state, "current" | "ramping" | "by_health" | "staged");
    let emptying = matches!(state, "draining" | "fencing") || backend.intent == "drain" || backend.health == "draining";
    let orders = [
        order("serve", "Serve", backend.intent != "serve"),
        order("drain", "Drain", backend.intent == "serve" && open),
        order("maintain", "Maintain", backend.intent != "maintain"),
        order("evict", "Evict", emptying),
    ];
    canvas.orders(target, &orders)
}
