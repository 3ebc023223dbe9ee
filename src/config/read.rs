//! Readers of the tree: each takes one value or reports why not, and the walk goes on, so every problem shows at once.
//!
//! Only keys of `keys::KEYS` can be read (a test run panics otherwise) and every other key in the file is a problem:
//! the table, the readers and the reference cannot drift apart.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::keys::{self, Value};
use super::problem::{Place, Report, Wrong, clip, nearest, quote};
use super::scalar;
use super::tree::{Entry, Item, Shape};

/// What every reader needs.
pub(super) struct Context<'a> {
    pub report: &'a Report,
    /// The length of a file that can be read. A closure, so that parsing touches no disk unless it is asked to.
    pub files: &'a dyn Fn(&Path) -> io::Result<u64>,
}

/// A value, its place in the file and its place in the table of keys.
#[derive(Clone)]
pub(super) struct Field<'a> {
    context: &'a Context<'a>,
    item: &'a Item,
    place: Place,
    pattern: String,
}

impl<'a> Field<'a> {
    pub fn root(context: &'a Context<'a>, item: &'a Item) -> Field<'a> {
        Field { context, item, place: Place { line: 1, at: String::new() }, pattern: String::new() }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn is_null(&self) -> bool {
        self.item.is_null()
    }

    pub fn is_section(&self) -> bool {
        matches!(self.item.shape, Shape::Map(_))
    }

    /// Reports a list or mapping in which nothing is written; one whose items are all bad has its problems already.
    pub fn not_empty(&self, what: &str, remedy: &str) {
        let empty = match &self.item.shape {
            Shape::List(items) => items.is_empty(),
            Shape::Map(entries) => entries.is_empty(),
            Shape::Scalar { .. } => false,
        };
        if empty {
            self.wrong::<()>(Wrong::new(what, remedy));
        }
    }

    pub fn wrong<T>(&self, wrong: Wrong) -> Option<T> {
        self.context.report.add(&self.place, wrong);
        None
    }

    /// Reports what `parse` has against the text.
    pub fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let text = self.text()?;
        parse(text).map_or_else(|wrong| self.wrong(wrong), Some)
    }

    /// Reports what `parse` has against the name under which this value stands.
    pub fn parsed_name(&self, name: &str, parse: impl FnOnce(&str) -> Result<(), Wrong>) {
        if let Err(wrong) = parse(name) {
            self.context.report.add(&self.place, wrong);
        }
    }

    /// Any scalar as it was typed; `null` must be quoted to be text.
    pub fn text(&self) -> Option<&'a str> {
        match &self.item.shape {
            Shape::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => self.expected("a text", "write one value"),
        }
    }

    pub fn flag(&self) -> Option<bool> {
        let text = self.text()?;
        match serde_yaml::from_str::<bool>(text) {
            Ok(flag) if self.is_plain() => Some(flag),
            _ => {
                let remedy = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "y" | "1" | "true" => "write true",
                    "no" | "off" | "n" | "0" | "false" => "write false",
                    _ => "write true or false",
                };
                self.wrong(Wrong::new(format!("{} is neither true nor false", quote(text)), remedy))
            }
        }
    }

    pub fn whole<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        let text = self.text()?;
        let (low, high) = (range.start(), range.end());
        // Digits only: YAML would also take 0x10, and reads 010 as eight or ten, depending on its version.
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        let number = if digits { serde_yaml::from_str::<u64>(text).ok() } else { None };
        match number {
            Some(n) if range.contains(&n) => T::try_from(n).ok(),
            Some(_) => self.wrong(Wrong::new(format!("{} is out of range", quote(text)), format!("write a number from {low} to {high}"))),
            None => {
                self.wrong(Wrong::new(format!("{} is not a whole number", quote(text)), format!("write a number from {low} to {high}")))
            }
        }
    }

    pub fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = self.parsed(scalar::parse_duration)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let (low, high) = (scalar::format_duration(*range.start()), scalar::format_duration(*range.end()));
        let what = format!("{} is out of range", quote(&scalar::format_duration(duration)));
        self.wrong(Wrong::new(what, format!("write a time from {low} to {high}")))
    }

    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let meant = nearest(text, names.iter().copied()).map(|n| format!("did you mean {n}? ")).unwrap_or_default();
        self.wrong(Wrong::new(format!("{} is not one of the choices", quote(text)), format!("{meant}write one of: {}", names.join(", "))))
    }

    /// The values that could be read, of a list; a problem in one hides none in the next.
    pub fn list<T>(&self, mut read: impl FnMut(&Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Shape::List(items) = &self.item.shape else {
            return match &self.item.shape {
                Shape::Scalar { text, .. } if !text.is_empty() && !self.is_null() => {
                    self.expected("a list", &format!("write it in brackets: [{}]", clip(text)))
                }
                _ => self.expected("a list", "write its values in brackets, or each in a line of its own after `- `; [] for none"),
            };
        };
        let field = |(n, item): (usize, &'a Item)| {
            let place = Place { line: item.line, at: format!("{}[{n}]", self.place.at) };
            Field { context: self.context, item, place, pattern: format!("{}.[]", self.pattern) }
        };
        Some(items.iter().enumerate().map(field).filter_map(|f| read(&f)).collect())
    }

    /// Like [`Field::list`], and the same value twice is a problem.
    pub fn set<T: Hash + Eq + Clone>(&self, mut read: impl FnMut(&Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        let mut seen = Unique::default();
        self.list(|f| {
            let value = read(f)?;
            match seen.insert(value.clone(), f.place()) {
                Some(first) => {
                    f.wrong(Wrong::new(format!("this value is in the list already, in line {}", first.line), "remove one of the two"))
                }
                None => Some(value),
            }
        })
    }

    /// A mapping under names that the operator chose.
    pub fn names<T>(&self, mut read: impl FnMut(&str, &Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Shape::Map(entries) = &self.item.shape else {
            return self.expected("names with a section each", "write `NAME:` and indent what belongs to it");
        };
        let field = |entry: &'a Entry| {
            let place = Place { line: entry.line, at: format!("{}.{}", self.place.at, clip(&entry.key)) };
            let pattern = format!("{}.*", self.pattern);
            (entry.key.as_str(), Field { context: self.context, item: &entry.value, place, pattern })
        };
        Some(entries.iter().map(field).filter_map(|(name, f)| read(name, &f)).collect())
    }

    /// A mapping with keys of the table; nothing at all stands for one in which every key was left out.
    pub fn section<T>(&self, read: impl FnOnce(&mut Section<'a>) -> T) -> Option<T> {
        let entries: &[Entry] = match &self.item.shape {
            Shape::Map(entries) => entries,
            _ if self.is_null() => &[],
            _ => {
                let known: Vec<&str> = keys::children(&self.pattern).map(|(name, _)| name).take(3).collect();
                return self.expected("a section", &format!("write its keys, each as `key: value`: {}, …", known.join(", ")));
            }
        };
        let mut section = Section { field: self.clone(), entries, read: Vec::new(), problems_before: self.context.report.count() };
        let value = read(&mut section);
        section.finish();
        Some(value)
    }

    /// The length of the file named by this value, if it can be read.
    pub fn file(&self) -> Option<(String, u64)> {
        let name = self.parsed(scalar::file_name)?;
        match (self.context.files)(Path::new(&name)) {
            Ok(length) => Some((name, length)),
            Err(error) => self.wrong(Wrong::new(
                format!("the file {} cannot be read: {error}", quote(&name)),
                "check the path, and that this user may read it",
            )),
        }
    }

    fn is_plain(&self) -> bool {
        matches!(self.item.shape, Shape::Scalar { plain: true, .. })
    }

    fn expected<T>(&self, wanted: &str, remedy: &str) -> Option<T> {
        let found = match &self.item.shape {
            _ if self.is_null() => "nothing".to_owned(),
            Shape::Scalar { text, .. } => quote(text),
            Shape::List(_) => "a list".to_owned(),
            Shape::Map(_) => "a section".to_owned(),
        };
        self.wrong(Wrong::new(format!("{wanted} is expected, not {found}"), remedy))
    }
}

/// A mapping whose keys are in the table.
pub(super) struct Section<'a> {
    field: Field<'a>,
    entries: &'a [Entry],
    read: Vec<&'static str>,
    problems_before: usize,
}

impl<'a> Section<'a> {
    pub fn place(&self) -> &Place {
        self.field.place()
    }

    /// Where `key` stands, or would stand.
    pub fn place_of(&self, key: &str) -> Place {
        let line = self.entries.iter().find(|e| e.key == key).map_or(self.field.place.line, |e| e.line);
        Place { line, at: self.at(key) }
    }

    /// Whether all that was read so far was good. What a bad value is replaced by must not clash with its neighbours.
    pub fn is_good(&self) -> bool {
        self.field.context.report.count() == self.problems_before
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|e| e.key == key)
    }

    pub fn wrong_at(&self, key: &str, wrong: Wrong) {
        self.field.context.report.add(&self.place_of(key), wrong);
    }

    pub fn wrong_place(&self, place: &Place, wrong: Wrong) {
        self.field.context.report.add(place, wrong);
    }

    /// The value of `key` when it is written.
    pub fn take(&mut self, key: &'static str) -> Option<Field<'a>> {
        debug_assert!(self.declared(key).is_some(), "{}.{key} is not in the table of keys", self.field.pattern);
        self.read.push(key);
        let entry = self.entries.iter().find(|e| e.key == key)?;
        let pattern = if self.field.pattern.is_empty() { key.to_owned() } else { format!("{}.{key}", self.field.pattern) };
        Some(Field { context: self.field.context, item: &entry.value, place: Place { line: entry.line, at: self.at(key) }, pattern })
    }

    /// The value of a key that has one in any case.
    pub fn or<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(&Field<'a>) -> Option<T>) -> T {
        match self.take(key) {
            None => default,
            Some(field) if field.is_null() => {
                let usual = match self.declared(key) {
                    Some(Value::Default(text) | Value::Off(text)) => format!("write {} (the default), or remove the line", quote(text)),
                    _ => "write a value, or remove the line".to_owned(),
                };
                field.wrong(Wrong::new("has no value", usual)).unwrap_or(default)
            }
            Some(field) => read(&field).unwrap_or(default),
        }
    }

    /// The value of a key that may be null.
    pub fn optional<T>(&mut self, key: &'static str, default: Option<T>, read: impl FnOnce(&Field<'a>) -> Option<T>) -> Option<T> {
        match self.take(key) {
            None => default,
            Some(field) if field.is_null() => None,
            Some(field) => read(&field),
        }
    }

    /// A section that may be left out, or be empty, which is the same as all its keys left out.
    pub fn section<T: Default>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        self.take(key).and_then(|field| field.section(read)).unwrap_or_default()
    }

    /// The value of a key that must be written.
    pub fn required<T>(&mut self, key: &'static str, read: impl FnOnce(&Field<'a>) -> Option<T>) -> Option<T> {
        match self.take(key) {
            Some(field) if !field.is_null() => read(&field),
            // The misspelt key is reported as unknown, with the right one as its remedy.
            None if self.misspelt(key) => None,
            found => {
                let remedy = match self.declared(key) {
                    Some(Value::Example(text)) => format!("add it, for example `{key}: {text}`"),
                    Some(Value::Names(name)) => format!("add `{key}:` and below it a name such as `{name}:`"),
                    _ => format!("add `{key}:`; conf/reference.yaml shows how"),
                };
                self.wrong_at(key, Wrong::new(if found.is_some() { "has no value" } else { "is missing" }, remedy));
                None
            }
        }
    }

    /// Whether an unknown key is nearest to `key`. Among the first few keys only: a real section is small.
    fn misspelt(&self, key: &str) -> bool {
        let known = || keys::children(&self.field.pattern).map(|(name, _)| name);
        let unknown = self.entries.iter().filter(|e| self.declared(&e.key).is_none());
        unknown.take(20).any(|e| nearest(&e.key, known()) == Some(key))
    }

    fn declared(&self, key: &str) -> Option<&'static Value> {
        keys::children(&self.field.pattern).find(|(name, _)| *name == key).map(|(_, k)| &k.value)
    }

    fn at(&self, key: &str) -> String {
        let at = &self.field.place.at;
        if at.is_empty() { clip(key) } else { format!("{at}.{}", clip(key)) }
    }

    /// Every key that is in the file but not in the table is a problem.
    fn finish(self) {
        let pattern = self.field.pattern.as_str();
        debug_assert!(
            keys::children(pattern).all(|(name, _)| self.read.contains(&name)),
            "{pattern}: a key of the table is read by nobody; read were {:?}",
            self.read
        );
        for entry in self.entries.iter().filter(|e| self.declared(&e.key).is_none()) {
            let place = Place { line: entry.line, at: self.at(&entry.key) };
            self.field.context.report.add_with(&place, || unknown(pattern, &entry.key));
        }
    }
}

/// The problem of a key that means nothing where it stands.
fn unknown(pattern: &str, key: &str) -> Wrong {
    if keys::RESERVED.contains(&key) {
        return Wrong::new(format!("{} is reserved for a later version", quote(key)), "remove it: this version does not know it");
    }
    let known: Vec<&str> = keys::children(pattern).map(|(name, _)| name).collect();
    let spoken = |p: &str| p.replace(".[]", "").replace('*', "NAME");
    let elsewhere = keys::elsewhere(pattern, key);
    let near = nearest(key, known.iter().copied());
    let remedy = match (elsewhere, near) {
        (Some(""), _) => "move it to the top of the file, without indentation".to_owned(),
        (Some(home), _) if home.starts_with(pattern) || near.is_none() => format!("it belongs under `{}`", spoken(home)),
        (_, Some(name)) => format!("did you mean `{name}`?"),
        _ if keys::KEYS.iter().any(|k| k.path == key) => "it belongs to the top of the file, without indentation".to_owned(),
        _ => format!("known here: {}", known.join(", ")),
    };
    Wrong::new("unknown key", remedy)
}

/// Finds what stands twice although it may stand only once.
pub(super) struct Unique<K>(HashMap<K, Place>);

impl<K> Default for Unique<K> {
    fn default() -> Self {
        Unique(HashMap::new())
    }
}

impl<K: Hash + Eq> Unique<K> {
    /// Where `key` stood first, when this is not the first time.
    pub fn insert(&mut self, key: K, place: &Place) -> Option<&Place> {
        match self.0.entry(key) {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.into_mut()),
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(place.clone());
                None
            }
        }
    }
}
