//! The YAML file as a tree in which every value knows its line; built within budgets, so no file is a bomb.
//!
//! It holds text, not types: `no`, `on`, `42` and `1e3` stay what was typed until a reader that knows what it expects asks.
//! Anchors, aliases, tags and merge keys are refused altogether: nothing here needs them, and they are how YAML explodes.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::problem::{Place, Report, Wrong, clip, quote};

/// Ten thousand backends fit in this; a file that was meant to be something else usually does not.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// The deepest key of the format is at 8.
const MAX_DEPTH: usize = 32;

/// A value and the line it begins at.
#[derive(Debug)]
pub(super) struct Item {
    pub line: usize,
    pub shape: Shape,
}

/// What a value is made of.
#[derive(Debug)]
pub(super) enum Shape {
    /// `plain` when written without quotes: only then may it mean something other than its text.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Item>),
    /// In the order of the file, keys unique.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub line: usize,
    pub value: Item,
}

impl Item {
    /// Whether this is YAML's nothing: `null`, `~` or an empty value.
    pub fn is_null(&self) -> bool {
        matches!(&self.shape, Shape::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// Reads `text`, or reports why that cannot be done; a tree may come with problems.
pub(super) fn read(text: &str, report: &Report) -> Option<Item> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Err((line, wrong)) = printable(text) {
        report.add(&Place { line, at: String::new() }, wrong);
        return None;
    }
    Builder { text, report, parser: Parser::new_from_str(text), path: Vec::new(), line: 1 }.document().ok().flatten()
}

/// Characters that YAML does not allow; the parser would take a NUL for the end of the file and be silent about the rest.
fn printable(text: &str) -> Result<(), (usize, Wrong)> {
    if text.len() > MAX_BYTES {
        return Err((1, too_big()));
    }
    let bad = |c: char| (c.is_control() && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{feff}');
    for (n, line) in text.split('\n').enumerate() {
        if let Some(c) = line.chars().find(|&c| bad(c)) {
            let what = format!("there is a U+{:04X} character in this line", u32::from(c));
            return Err((n + 1, Wrong::new(what, "remove it: is this a text file, in UTF-8?")));
        }
    }
    Ok(())
}

/// The problem of a file over [`MAX_BYTES`].
pub(super) fn too_big() -> Wrong {
    Wrong::new("the file is larger than 1 MiB", "is this the right file? A configuration is far smaller")
}

/// The reason is in the report already.
struct Stop;

struct Builder<'a> {
    text: &'a str,
    report: &'a Report,
    parser: Parser<'a, StrInput<'a>>,
    path: Vec<String>,
    /// Where the last event began.
    line: usize,
}

impl<'a> Builder<'a> {
    fn document(mut self) -> Result<Option<Item>, Stop> {
        let mut root = None;
        loop {
            match self.next()? {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    self.wrong(Wrong::new(
                        "a second document begins here",
                        "keep one document in the file: remove this `---` and what follows",
                    ));
                    return Err(Stop);
                }
                Event::DocumentStart(_) => {
                    let first = self.next()?;
                    root = Some(self.item(first, 1)?);
                }
                _ => {}
            }
        }
        if root.as_ref().is_none_or(Item::is_null) {
            self.report.add(
                &Place { line: 1, at: String::new() },
                Wrong::new("the file is empty", "start from conf/minimal.yaml; conf/reference.yaml has every key"),
            );
            return Err(Stop);
        }
        Ok(root)
    }

    fn item(&mut self, event: Event<'a>, depth: usize) -> Result<Item, Stop> {
        let line = self.line;
        if depth > MAX_DEPTH {
            self.wrong(Wrong::new(format!("nested more than {MAX_DEPTH} levels deep"), "close the brackets, or check the indentation"));
            return Err(Stop);
        }
        let (anchor, tag) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.as_ref()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag.as_ref()),
            _ => (0, None),
        };
        if anchor != 0 {
            self.wrong(Wrong::new("anchors (`&name`) are not allowed", "write the value out where it is needed"));
        }
        if let Some(tag) = tag {
            let what = format!("tags ({}) are not allowed", quote(&tag.to_string()));
            self.wrong(Wrong::new(what, "remove the tag; quote the value if it must be text"));
        }
        let shape = match event {
            Event::Scalar(text, style, ..) => Shape::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain },
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            Event::Alias(_) => {
                self.wrong(Wrong::new("aliases (`*name`) are not allowed", "write the value out; quote a text that begins with `*`"));
                Shape::Scalar { text: String::new(), plain: true }
            }
            _ => Shape::Scalar { text: String::new(), plain: true },
        };
        Ok(Item { line, shape })
    }

    fn list(&mut self, depth: usize) -> Result<Shape, Stop> {
        let mut items = Vec::new();
        loop {
            let event = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Shape::List(items));
            }
            self.path.push(format!("[{}]", items.len()));
            items.push(self.item(event, depth + 1)?);
            self.path.pop();
        }
    }

    fn map(&mut self, depth: usize) -> Result<Shape, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let event = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Shape::Map(entries));
            }
            let key = self.item(event, depth + 1)?;
            let name = match key.shape {
                Shape::Scalar { text, .. } => Some(text),
                Shape::List(_) | Shape::Map(_) => None,
            };
            self.path.push(name.as_deref().map_or_else(|| "?".to_owned(), clip));
            let place = Place { line: key.line, at: self.at() };
            let event = self.next()?;
            let value = self.item(event, depth + 1)?;
            self.path.pop();
            let Some(name) = name else {
                self.report.add(
                    &place,
                    Wrong::new("a list or mapping stands where a key should", "write `key: value`; quote a key that contains brackets"),
                );
                continue;
            };
            if name == "<<" {
                self.report.add(&place, Wrong::new("merge keys (`<<`) are not allowed", "write the keys out where they are needed"));
            } else if let Some(first) = lines.insert(name.clone(), place.line) {
                // The first stays the one to point at, also for a third.
                lines.insert(name, first);
                self.report.add(&place, Wrong::new(format!("written twice, first in line {first}"), "remove one of the two"));
            } else {
                entries.push(Entry { key: name, line: place.line, value });
            }
        }
    }

    fn next(&mut self) -> Result<Event<'a>, Stop> {
        match self.parser.next_event() {
            Some(Ok((event, Span { start, .. }))) => {
                self.line = start.line();
                Ok(event)
            }
            Some(Err(error)) => {
                let (line, wrong) = syntax(self.text, &error);
                self.report.add(&Place { line, at: String::new() }, wrong);
                Err(Stop)
            }
            None => Ok(Event::StreamEnd),
        }
    }

    fn at(&self) -> String {
        let mut at = String::new();
        for part in &self.path {
            if !at.is_empty() && !part.starts_with('[') {
                at.push('.');
            }
            at.push_str(part);
        }
        at
    }

    fn wrong(&self, wrong: Wrong) {
        self.report.add(&Place { line: self.line, at: self.at() }, wrong);
    }
}

/// A syntax error in an operator's words. The parser's own word is kept: it is what a search engine knows.
fn syntax(text: &str, error: &ScanError) -> (usize, Wrong) {
    // At the end of the file the parser points behind the last line.
    let line = error.marker().line().clamp(1, text.lines().count().max(1));
    let indented_by_tab = |n: usize| {
        let line = text.lines().nth(n.saturating_sub(1)).unwrap_or("");
        line.chars().take_while(|c| matches!(c, ' ' | '\t')).any(|c| c == '\t')
    };
    if let Some(tabbed) = [line, line + 1, line.saturating_sub(1)].into_iter().find(|&n| n > 0 && indented_by_tab(n)) {
        return (tabbed, Wrong::new("indented with a tab", "indent with spaces"));
    }
    if error.info().contains("recursion limit") {
        return (line, Wrong::new(format!("nested more than {MAX_DEPTH} levels deep"), "close the brackets, or check the indentation"));
    }
    let what = format!("not valid YAML: {}", clip(error.info()));
    (line, Wrong::new(what, "check the indentation, quotes, brackets and colons here and in the line before"))
}
