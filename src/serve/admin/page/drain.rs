//! Drains: each that runs as a card with its bar, those that are over as lines of a table.

use maud::{Markup, html};

use super::cells::Canvas;
use super::facts::Facts;
use super::words;
use crate::api;

/// Finished drains before the rest is folded away: the last deploys.
const FINISHED_SHOWN: usize = 5;

/// Those that run, the latest first.
pub(super) fn running(canvas: &Canvas, facts: &Facts) -> Markup {
    html! {
        section.drains aria-labelledby="drains" {
            h2 #drains tabindex="-1" { "Drains" }
            div.cards { @for drain in facts.drains(true) { (card(canvas, drain, facts)) } }
        }
    }
}

fn card(canvas: &Canvas, drain: &api::DrainStatus, facts: &Facts) -> Markup {
    let (id, now) = (&drain.id, facts.now);
    let key = |field: &str| format!("{id}.{field}");
    let name = format!("drain-{id}");
    let gone = words::gone(drain);
    html! {
        article.drain data-drain=(id) aria-labelledby=(name) {
            header.title {
                h3 #(name) tabindex="-1" { (drain.target) }
                (canvas.word(&key("state"), &drain.state))
                div.orders { button type="button" data-order=(format!("cancel {id}")) aria-label=(format!("Cancel drain {id} of {}", drain.target)) { "Cancel" } }
            }
            (canvas.bar(&key("progress"), words::share(drain), &format!("Share of {} that has left", drain.target)))
            div.state {
            p.tally {
                b.big { (canvas.text(&key("remaining"), drain.remaining)) } " " (canvas.text(&key("tally"), if drain.confident { "left" } else { "known to be left" })) " " span.quiet { "of " (canvas.text(&key("initial"), drain.initial)) " at first" }
                span.percent { (canvas.text(&key("percent"), words::percent(drain))) }
            }
            (canvas.line(&key("left"), "kinds", words::left(drain)))
            }
            div.outlook {
            (canvas.line(&key("eta"), "eta", words::forecast(drain, now)))
            (canvas.line(&key("bound"), "quiet", words::bound(drain, now)))
            (canvas.line(&key("waits"), "waits", words::waits(drain)))
            (canvas.line(&key("deadline"), "deadline", words::deadline(drain, now)))
            (canvas.line(&key("confidence"), "confidence", words::confidence(drain)))
            (canvas.line(&key("unsure"), "confidence unsure", words::unsure(drain)))
            (canvas.line(&key("ended"), "quiet", if gone.is_empty() { String::new() } else { format!("So far {gone}.") }))
            p.quiet { (id) ", begun at " time datetime=(drain.started) { (words::clock(&drain.started, now)) } " by " (drain.owner) }
            }
        }
    }
}

/// Those that are over. Nothing of them changes, so nothing is a cell.
pub(super) fn finished(facts: &Facts) -> Markup {
    let all: Vec<&api::DrainStatus> = facts.drains(false).collect();
    let (shown, rest) = all.split_at(all.len().min(FINISHED_SHOWN));
    html! {
        section.finished aria-labelledby="finished" {
            h2 #finished { "Finished drains" }
            (table(shown, "The latest drains that are over"))
            @if !rest.is_empty() {
                details #finished-before { summary { (rest.len()) " before them" } (table(rest, "Drains before them")) }
            }
        }
    }
}

fn table(drains: &[&api::DrainStatus], caption: &str) -> Markup {
    html! {
        table.verdicts {
            caption.unseen { (caption) }
            thead {
                tr {
                    th scope="col" { "Drain" }
                    th scope="col" { "Verdict" }
                    th scope="col" { "Begun" }
                    th scope="col" { "Over" }
                    th.figure scope="col" { "At first" }
                    th scope="col" { "They left" }
                }
            }
            tbody {
                @for drain in drains {
                    @let verdict = drain.verdict.as_deref().unwrap_or_default();
                    @let gone = words::gone(drain);
                    tr data-finished=(drain.id) {
                        th scope="row" { span.name { (drain.target) } " " span.address { (drain.id) } }
                        td data-label="Verdict" { span.word data-w=(verdict) { (verdict) } }
                        td data-label="Begun" { time datetime=(drain.started) { (day(&drain.started)) } }
                        td data-label="Over" { @if let Some(at) = &drain.finished { time datetime=(at) { (day(at)) } } }
                        td.figure data-label="At first" { (drain.initial) }
                        td data-label="They left" { @if gone.is_empty() { "nobody had to" } @else { (gone) } }
                    }
                }
            }
        }
    }
}

/// Always with its day: what is over must not change at midnight.
fn day(at: &str) -> String {
    at.replace('T', " ").trim_end_matches('Z').to_owned()
}
