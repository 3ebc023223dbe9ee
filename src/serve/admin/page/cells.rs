//! Whatever changes on the page by itself: texts, bars, blocks and offered orders, each under a key.
//!
//! The templates draw on a [`Canvas`], which writes a cell into the HTML and down into [`Cells`] in one step. So the page that is
//! served and the stream that keeps it up to date cannot differ: there is no second list of what goes where.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use maud::{Markup, PreEscaped, html};
use serde::Serialize;

/// Everything that changes without a change of structure.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Cells {
    /// Plain texts.
    #[serde(rename = "cells", skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) texts: BTreeMap<String, String>,
    /// Shares from 0 to 1; none where it is unknown.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) bars: BTreeMap<String, Option<f64>>,
    /// Markup, for what is long or has a shape.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) blocks: BTreeMap<String, String>,
    /// The orders that make sense at present, by target: their words with a blank between.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) offers: BTreeMap<String, String>,
}

impl Cells {
    /// What is new or has another value than before.
    pub(super) fn since(&self, before: &Cells) -> Cells {
        fn changed<V: Clone + PartialEq>(now: &BTreeMap<String, V>, before: &BTreeMap<String, V>) -> BTreeMap<String, V> {
            now.iter().filter(|(key, value)| before.get(*key) != Some(*value)).map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        Cells {
            texts: changed(&self.texts, &before.texts),
            bars: changed(&self.bars, &before.bars),
            blocks: changed(&self.blocks, &before.blocks),
            offers: changed(&self.offers, &before.offers),
        }
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.bars.is_empty() && self.blocks.is_empty() && self.offers.is_empty()
    }
}

/// A button.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// As in `data-order`.
    pub(super) word: &'static str,
    /// As people read it.
    pub(super) label: &'static str,
    /// Whether it makes sense at present.
    pub(super) offered: bool,
}

/// What the templates draw on.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    /// Cells are left empty in the HTML: what remains is its structure.
    blank: bool,
    cells: RefCell<Cells>,
}

impl Canvas {
    /// One that leaves the cells empty.
    pub(super) fn blank() -> Canvas {
        Canvas { blank: true, ..Canvas::default() }
    }

    /// All that was drawn.
    pub(super) fn cells(self) -> Cells {
        self.cells.into_inner()
    }

    fn write(&self, key: &str, text: String) -> String {
        let shown = if self.blank { String::new() } else { text.clone() };
        let before = self.cells.borrow_mut().texts.insert(key.to_owned(), text);
        debug_assert!(before.is_none(), "two cells are called {key}");
        shown
    }

    /// A text within a line.
    pub(super) fn text(&self, key: &str, text: impl ToString) -> Markup {
        let text = self.write(key, text.to_string());
        html! { span data-k=(key) { (text) } }
    }

    /// A line of its own; gone while it is empty.
    pub(super) fn line(&self, key: &str, class: &str, text: impl ToString) -> Markup {
        let text = self.write(key, text.to_string());
        html! { p class=(class) data-k=(key) { (text) } }
    }

    /// A figure in a table: its column is told again for narrow screens, where there is no head.
    pub(super) fn figure(&self, key: &str, column: &str, figure: u64) -> Markup {
        let text = self.write(key, figure.to_string());
        html! { td.figure data-label=(column) { span data-k=(key) { (text) } } }
    }

    /// A word of a small vocabulary, such as a state: drawn with a shape of its own.
    pub(super) fn word(&self, key: &str, word: &str) -> Markup {
        let text = self.write(key, word.replace('_', " "));
        html! { span.word data-k=(key) data-w=(text) { (text) } }
    }

    /// A share of a whole; neither empty nor full while it is unknown.
    pub(super) fn bar(&self, key: &str, share: Option<f64>, label: &str) -> Markup {
        self.cells.borrow_mut().bars.insert(key.to_owned(), share);
        let shown = share.filter(|_| !self.blank);
        html! { progress data-v=(key) max="1" value=[shown] aria-label=(label) {} }
    }

    /// The buttons of a target. All that it can ever have are in the HTML: a backend that is drained must not cost every open page a fetch.
    pub(super) fn orders(&self, target: &str, orders: &[Order]) -> Markup {
        let offered: Vec<&str> = orders.iter().filter(|order| order.offered).map(|order| order.word).collect();
        self.cells.borrow_mut().offers.insert(target.to_owned(), offered.join(" "));
        html! {
            div.orders data-o=(target) {
                @for order in orders {
                    button type="button" data-order=(format!("{} {target}", order.word)) aria-label=(format!("{} {target}", order.label)) hidden[!self.blank && !order.offered] { (order.label) }
                }
            }
        }
    }

    /// A piece of markup that changes as a whole.
    pub(super) fn block(&self, key: &str, class: &str, markup: Markup) -> Markup {
        let shown = if self.blank { String::new() } else { markup.0.clone() };
        self.cells.borrow_mut().blocks.insert(key.to_owned(), markup.0);
        html! { div class=(class) data-b=(key) { (PreEscaped(shown)) } }
    }
}

/// Tells one structure from another: of HTML whose cells are empty.
pub(super) fn structure(blank: &str) -> String {
    let mut hasher = DefaultHasher::new();
    blank.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(canvas: &Canvas, name: &str, live: u64, share: f64) -> String {
        html! {
            (canvas.text("name", name)) table { tr { (canvas.figure("live", "Live", live)) } } (canvas.word("state", "by_health"))
            (canvas.bar("bar", Some(share), "gone")) (canvas.block("more", "", html! { b { (name) } }))
        }
        .0
    }

    #[test]
    fn what_is_drawn_is_what_is_told() {
        let canvas = Canvas::default();
        let html = drawn(&canvas, "<b>&\"'", 7, 0.5);
        let cells = canvas.cells();
        assert_eq!(cells.texts["name"], "<b>&\"'");
        assert_eq!(cells.texts["state"], "by health");
        assert!(html.contains("<span data-k=\"name\">&lt;b&gt;&amp;&quot;'</span>"), "{html}");
        assert!(html.contains("<td class=\"figure\" data-label=\"Live\"><span data-k=\"live\">7</span></td>"), "{html}");
        assert!(html.contains("data-w=\"by health\""), "{html}");
        assert!(html.contains("value=\"0.5\""), "{html}");
        assert!(html.contains(&cells.blocks["more"]), "a block is told as it is drawn: {html}");
        assert_eq!(cells.blocks["more"], "<b>&lt;b&gt;&amp;&quot;'</b>");
    }

    #[test]
    fn a_share_that_is_unknown_is_neither_empty_nor_full() {
        let canvas = Canvas::default();
        assert!(!canvas.bar("bar", None, "gone").0.contains("value"));
        assert_eq!(serde_json::to_value(canvas.cells()).unwrap(), serde_json::json!({"bars": {"bar": null}}), "a page is told so");
    }

    #[test]
    fn an_order_that_makes_no_sense_is_hidden_and_no_change_of_structure() {
        let draw = |canvas: &Canvas, drains: bool| {
            let order = |word, label, offered| Order { word, label, offered };
            canvas
                .orders(
                    "shop/v1/a1",
                    &[order("serve", "Serve", drains), order("drain", "Drain", !drains), order("maintain", "Maintain", true)],
                )
                .0
        };
        let canvas = Canvas::default();
        let html = draw(&canvas, true);
        let hidden: Vec<&str> = html.split("<button").skip(1).filter(|button| button.contains(" hidden>")).collect();
        assert!(matches!(hidden[..], [one] if one.contains("data-order=\"drain shop/v1/a1\"")), "{html}");
        assert_eq!(canvas.cells().offers["shop/v1/a1"], "serve maintain");
        assert_eq!(draw(&Canvas::blank(), true), draw(&Canvas::blank(), false));
    }

    #[test]
    fn figures_do_not_change_the_structure_and_cells_do_not_depend_on_it() {
        let look = |name: &str, live, share| {
            let canvas = Canvas::blank();
            (structure(&drawn(&canvas, name, live, share)), canvas.cells())
        };
        let ((before, cells), (after, later)) = (look("a", 7, 0.5), look("b", 8, 0.75));
        assert_eq!(before, after);
        assert_ne!(before, structure("another"));
        let full = Canvas::default();
        drawn(&full, "a", 7, 0.5);
        assert_eq!(cells, full.cells());
        assert_eq!(later.since(&cells).texts.keys().collect::<Vec<_>>(), ["live", "name"], "the state is the same");
        assert!(later.since(&later).is_empty());
    }
}
