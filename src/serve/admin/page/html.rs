//! The page itself: its frame, the glance at the top, the log at the end, and the form for signing in.
//!
//! Whatever changes by itself is drawn as a cell (see `cells`); anything else that differs between two drawings is a change of structure,
//! upon which browsers fetch the page again. So structure is only which apps, releases, backends and drains exist: anything else that is
//! not drawn as a cell costs every open page a fetch whenever it changes.
//!
//! Scripts and tests find things by: `main[data-structure]`, `[data-k=KEY]` (text), `progress[data-v=KEY]`, `[data-b=KEY]` (block),
//! `[data-o=TARGET]` (orders), `section#app-NAME`, `article[id="release-APP:RELEASE"]`, `tr[data-backend="APP/RELEASE/BACKEND"]`,
//! `article[data-drain="d7"]`, `button[data-order="WORD TARGET"]` (promote, rollback, drain, serve, maintain, evict, stop, cancel; hidden
//! while it makes no sense), `#connection[data-state]` (`off`, `live`, `lost`), `dialog#order` with `#confirm`, `#cancel`, `#refusal`,
//! `dialog#sign-in` with `#token`, `#result`.
//! Keys: `APP/RELEASE/BACKEND.FIELD`, `APP/RELEASE.FIELD`, `APP.FIELD`, `d7.FIELD`, where FIELD is as in the status document.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::cells::{Canvas, Cells, structure};
use super::facts::Facts;
use super::words;
use super::{BUILD, app, drain};
use crate::api;

/// The mark: two waves before a gate.
const MARK: &str = concat!(
    "<svg class=\"mark\" viewBox=\"0 0 32 32\" aria-hidden=\"true\"><path class=\"gate\" d=\"M16 3V29\"/>",
    "<path class=\"wave\" d=\"M3 12q3.25-4 6.5 0t6.5 0\"/><path class=\"wave\" d=\"M3 20q3.25-4 6.5 0t6.5 0\"/>",
    "<path class=\"wave new\" d=\"M16 20q3.25-4 6.5 0t6.5 0\"/></svg>"
);

/// Problems that are seen at once; a machine that is gone takes a hundred backends with it.
const PROBLEMS_SHOWN: usize = 6;

/// Its structure, and the whole page.
pub(super) fn page(facts: &Facts) -> (String, String) {
    let (structure, _) = skeleton(facts);
    let canvas = Canvas::default();
    let markup = whole(&canvas, facts, &structure);
    (structure, markup.0)
}

/// What a stream tells: the structure, and everything within it.
pub(super) fn skeleton(facts: &Facts) -> (String, Cells) {
    let canvas = Canvas::blank();
    let markup = html! { (standing(&canvas, facts)) (body(&canvas, facts)) };
    (structure(&markup.0), canvas.cells())
}

fn whole(canvas: &Canvas, facts: &Facts, structure: &str) -> Markup {
    let content = html! {
        main id="page" tabindex="-1" data-structure=(structure) { (body(canvas, facts)) }
        (order_dialog())
        (sign_in_dialog())
    };
    shell(&format!("tidegate {}", facts.host), &standing(canvas, facts), &content)
}

/// For readers who must show the token first: nothing of what this process knows.
pub(super) fn sign_in() -> String {
    let content = html! {
        main id="page" tabindex="-1" data-signed-out {
            section.gatehouse {
                h1 { "Sign in" }
                p { "This admin address can be reached by others, so reading it needs the token, too." }
                (token_form("Sign in"))
                noscript { p { "Signing in needs JavaScript. Without it ask from a terminal: " code { "tidegate status" } } }
            }
        }
    };
    shell("tidegate", &html! {}, &content).0
}

fn shell(title: &str, standing: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-build=(*BUILD) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title.trim()) }
                link rel="icon" type="image/svg+xml" href="/favicon.svg";
                link rel="stylesheet" href="/page.css";
                // Not deferred: it chooses between dark and light before anything is painted.
                script src="/page.js" {}
                script src="/orders.js" defer {}
            }
            body {
                a.skip href="#page" { "Skip to the state" }
                header.top {
                    div.brand { (PreEscaped(MARK)) span.name { "tidegate" } }
                    (standing)
                    div.tools {
                        p #connection data-state="off" { span.dot {} span.says { "not live" } }
                        button.quiet #forget type="button" hidden { "Forget token" }
                        button.quiet #theme type="button" aria-label="Switch between dark and light" { span.sun aria-hidden="true" {} span { "Theme" } }
                    }
                }
                p #stale role="alert" hidden {}
                (content)
                p #result role="status" {}
                p #news role="status" {}
            }
        }
    }
}

/// Of the process.
fn standing(canvas: &Canvas, facts: &Facts) -> Markup {
    let state = match (facts.status.stopping, facts.ready) {
        (true, _) => "stopping",
        (_, true) => "ready",
        (_, false) => "starting",
    };
    html! {
        p.standing { @if !facts.host.is_empty() { b { (facts.host) } } span { "version " (canvas.text("version", &facts.status.version)) } (canvas.word("process", state)) }
    }
}

fn body(canvas: &Canvas, facts: &Facts) -> Markup {
    let status = &facts.status;
    html! {
        noscript {
            p.notice { "This page shows the state of the moment at which it was loaded: reload it to see more. Orders are given by the command line: " code { "tidegate --help" } "." }
        }
        (glance(canvas, facts))
        @if facts.drains(true).next().is_some() { (drain::running(canvas, facts)) }
        @for (name, status) in status.apps.iter() { (app::section(canvas, name, status, facts)) }
        @if facts.drains(false).next().is_some() { (drain::finished(facts)) }
        (canvas.block("differs", "", differs(&status.differs)))
        section.log aria-labelledby="log" {
            h2 #log { "Event log" }
            div.scrolls tabindex="0" role="group" aria-label="Newest first" { (canvas.block("events", "", events(facts))) }
        }
        footer { p { "Times are UTC. In a terminal: " code { "tidegate status --watch" } ". Documents: " a href="/api/v1/status" { "status" } ", " a href="/api/v1/export" { "configuration" } ", " a href="/metrics" { "metrics" } "." } }
    }
}

fn glance(canvas: &Canvas, facts: &Facts) -> Markup {
    let apps = &facts.status.apps;
    html! {
        section.glance aria-labelledby="glance" {
            h1 #glance { "At a glance" }
            (canvas.block("problems", "problems", problems(facts)))
            @if apps.0.is_empty() {
                p.sentence { "No app is configured, so every request is answered with 404." }
                p { "Write one into the configuration file, then " code { "tidegate reload" } "." }
            }
            @if apps.0.len() == 1 {
                @for (name, app) in apps.iter() { (canvas.line(&format!("{name}.glance"), "sentence", words::glance(name, app, facts))) }
            } @else if !apps.0.is_empty() {
                ul.glances {
                    @for (name, app) in apps.iter() {
                        li { a href=(format!("#app-{name}")) { (name) } " " (canvas.text(&format!("{name}.glance"), words::glance(name, app, facts))) }
                    }
                }
            }
        }
    }
}

/// Everything that is wrong, in one place, the worst first.
fn problems(facts: &Facts) -> Markup {
    let apps = || facts.status.apps.iter();
    let helps = |name: &str| facts.apps.get(name).is_some_and(|app| app.draining_serve);
    let outages = apps().filter_map(|(name, app)| words::outage(name, app, helps(name)));
    let reload = facts.reload_fault.iter().map(|(at, why)| format!("The reload of {} changed nothing: {why}", words::clock(at, facts.now)));
    let drains = facts.drains(true).flat_map(words::drain_problems);
    let others = apps().flat_map(|(name, app)| words::problems(name, app, facts));
    let all: Vec<String> = outages.chain(reload).chain(drains).chain(others).collect();
    let (shown, rest) = all.split_at(all.len().min(PROBLEMS_SHOWN));
    html! {
        @if !shown.is_empty() {
            ul aria-label="What is wrong" { @for problem in shown { li { (problem) } } }
        }
        @if !rest.is_empty() {
            details #problems-more {
                summary { (rest.len()) " more" }
                ul aria-label="What else is wrong" { @for problem in rest { li { (problem) } } }
            }
        }
    }
}

fn differs(lines: &[String]) -> Markup {
    html! {
        @if !lines.is_empty() {
            section.differs aria-labelledby="differs" {
                h2 #differs { "Differs from the file" }
                ul { @for line in lines { li { (line) } } }
            }
        }
    }
}

fn events(facts: &Facts) -> Markup {
    html! {
        ol.events {
            @for event in &facts.events { (one_event(event, facts)) }
        }
    }
}

fn one_event(event: &api::Event, facts: &Facts) -> Markup {
    html! {
        li {
            time datetime=(event.at) { (words::clock(&event.at, facts.now)) } " "
            span.owner { (event.owner) } " "
            b { (event.target) } " " span.what { (event.what) }
        }
    }
}

/// What will happen, in figures, before it does.
fn order_dialog() -> Markup {
    html! {
        dialog #order aria-labelledby="order-title" {
            form method="dialog" {
                h2 #order-title {}
                div #order-says {}
                div #order-options {
                    label #deadline-row hidden { span { "Deadline" } input #deadline name="deadline" placeholder="none, or 30m, 4h" autocomplete="off" size="16"; }
                    label #then-row hidden {
                        span { "At the deadline" }
                        select #then name="then" {
                            option value="" { "as configured" }
                            option value="keep" { "keep: only say so" }
                            option value="move_idle" { "move whoever is not engaged" }
                            option value="evict" { "evict everybody who is left" }
                        }
                    }
                    label #idle-row hidden { span { "Only those silent for" } input #idle name="idle" placeholder="anybody, or 15m" autocomplete="off" size="16"; }
                    label.check #force-row hidden { input #force type="checkbox" name="force"; span { "Do it all the same (force)" } }
                }
                div #refusal role="alert" {}
                div.buttons {
                    button #cancel type="button" value="cancel" { "Do nothing" }
                    button.primary #confirm type="submit" value="confirm" { "Confirm" }
                }
            }
        }
    }
}

fn sign_in_dialog() -> Markup {
    html! {
        dialog #sign-in aria-labelledby="sign-in-title" {
            h2 #sign-in-title { "The token, please" }
            p { "Every change needs it. It stands in " code { "admin.token_file" } "; this tab keeps it until it is closed." }
            (token_form("Go on"))
        }
    }
}

fn token_form(word: &str) -> Markup {
    html! {
        form.token {
            label for="token" { "Token" }
            input #token type="password" name="token" autocomplete="off" required spellcheck="false";
            p #token-refusal role="alert" {}
            div.buttons {
                button #token-cancel type="button" { "Cancel" }
                button.primary #token-go type="submit" { (word) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
