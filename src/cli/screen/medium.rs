//! Where text is shown, and what it can show: colours, blocks, lines that are drawn over.
//!
//! Colour never says anything alone: each word that has a [`Tone`] says the same without it.

use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};

use crate::cli::args::When;

/// What a stream can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Tones are coloured.
    pub colours: bool,
    /// Bars are drawn with block characters: a terminal whose locale is UTF-8.
    pub blocks: bool,
    /// Somebody watches, and lines can be gone over again.
    pub redraws: bool,
}

impl Medium {
    /// A file, a pipe, a log.
    pub const PLAIN: Medium = Medium { colours: false, blocks: false, redraws: false };

    /// Of standard output or standard error.
    pub fn of(when: When, stream: &impl IsTerminal) -> Medium {
        Medium::from_environment(when, stream.is_terminal(), &|name| std::env::var(name).ok())
    }

    /// `--color` goes before `NO_COLOR` (no-color.org), that before `CLICOLOR_FORCE` (bixense.com/clicolors).
    fn from_environment(when: When, terminal: bool, variable: &dyn Fn(&str) -> Option<String>) -> Medium {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let term = set("TERM");
        let capable = terminal && term.as_deref() != Some("dumb");
        let colours = match when {
            When::Always => true,
            When::Never => false,
            When::Auto if set("NO_COLOR").is_some() => false,
            When::Auto if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
            // A terminal of which nothing is known may print the codes.
            When::Auto => capable && term.is_some(),
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let utf8 = locale.to_ascii_lowercase().replace('-', "").contains("utf8");
        Medium { colours, blocks: capable && utf8, redraws: capable }
    }
}

/// What a word means for whoever looks for trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Nothing in particular.
    Plain,
    /// A heading or a name.
    Title,
    /// As it should be.
    Good,
    /// On the way, or held back on purpose.
    Change,
    /// Somebody is harmed.
    Bad,
    /// Out of the way.
    Aside,
}

impl Tone {
    /// Of a word of the API; one that a newer process says is plain.
    pub fn of(word: &str) -> Tone {
        match word {
            "current" | "by_health" | "ramping" | "up" | "everyone" => Tone::Good,
            "draining" | "fencing" | "drain" | "maintain" | "stalled" | "known_sessions" | "preview" => Tone::Change,
            "down" => Tone::Bad,
            "staged" | "drained" | "stopped" | "untested" | "nobody" => Tone::Aside,
            _ => Tone::Plain,
        }
    }

    fn style(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Title => Style::new().bold(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Change => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Aside => Style::new().dimmed(),
        }
    }
}

/// Words with their tones. Its length is what is seen, whatever the medium adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Vec<(Tone, String)>);

impl Text {
    /// Words in one tone.
    pub fn of(tone: Tone, words: impl Into<String>) -> Text {
        Text(vec![(tone, words.into())])
    }

    /// Plain words.
    pub fn plain(words: impl Into<String>) -> Text {
        Text::of(Tone::Plain, words)
    }

    /// With more behind.
    pub fn and(mut self, more: Text) -> Text {
        self.0.extend(more.0);
        self
    }

    /// In columns.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(_, words)| words.chars().count()).sum()
    }

    /// Its first `width` columns.
    pub fn cut(&self, width: usize) -> Text {
        let mut left = width;
        let cut = |(tone, words): &(Tone, String)| {
            let words: String = words.chars().take(left).collect();
            left -= words.chars().count();
            (*tone, words)
        };
        Text(self.0.iter().map(cut).collect())
    }

    /// As it is written there.
    pub fn on(&self, medium: Medium) -> String {
        let written = |(tone, words): &(Tone, String)| {
            let style = tone.style();
            if medium.colours && !words.is_empty() { format!("{style}{words}{style:#}") } else { words.clone() }
        };
        self.0.iter().map(written).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_shown_where_they_are_seen_or_asked_for() {
        let check = |when, terminal, environment: &str, expected: &str| {
            let variable = |name: &str| {
                let all = environment.split(' ').filter_map(|pair| pair.split_once('='));
                all.filter(|(n, _)| *n == name).map(|(_, value)| value.to_owned()).next()
            };
            let found = Medium::from_environment(when, terminal, &variable);
            let word = |yes, word: &'static str| if yes { word } else { "-" };
            let found = [word(found.colours, "colours"), word(found.blocks, "blocks"), word(found.redraws, "redraws")].join(" ");
            assert_eq!(found, expected, "{when:?} {terminal} {environment}");
        };
        check(When::Auto, true, "TERM=xterm LANG=C", "colours - redraws");
        check(When::Auto, true, "TERM=xterm LANG=de_DE.UTF-8", "colours blocks redraws");
        check(When::Auto, true, "TERM=xterm LANG=C.utf8 LC_ALL=C", "colours - redraws");
        check(When::Auto, true, "TERM=xterm LANG=C LC_ALL= LC_CTYPE=C.UTF-8", "colours blocks redraws");
        check(When::Auto, true, "LANG=C", "- - redraws");
        check(When::Auto, true, "TERM=dumb LANG=C.UTF-8", "- - -");
        check(When::Auto, true, "TERM=xterm NO_COLOR=1 LANG=C.UTF-8", "- blocks redraws");
        check(When::Auto, true, "TERM=xterm NO_COLOR= LANG=C", "colours - redraws");
        check(When::Auto, false, "TERM=xterm LANG=C.UTF-8", "- - -");
        check(When::Auto, false, "TERM=xterm CLICOLOR_FORCE=1 LANG=C.UTF-8", "colours - -");
        check(When::Auto, false, "TERM=xterm CLICOLOR_FORCE=0", "- - -");
        check(When::Auto, false, "CLICOLOR_FORCE=1 NO_COLOR=1", "- - -");
        check(When::Always, false, "NO_COLOR=1 TERM=dumb", "colours - -");
        check(When::Never, true, "TERM=xterm CLICOLOR_FORCE=1 LANG=C.UTF-8", "- blocks redraws");
    }

    #[test]
    fn a_text_is_as_long_as_it_looks() {
        let text = Text::of(Tone::Good, "up").and(Text::plain(", ")).and(Text::of(Tone::Bad, "LOST"));
        assert_eq!((text.len(), text.cut(5).len(), text.cut(99).len()), (8, 5, 8));
        assert_eq!(text.on(Medium::PLAIN), "up, LOST");
        let coloured = Medium { colours: true, ..Medium::PLAIN };
        assert_eq!(text.on(coloured), "\x1b[32mup\x1b[0m, \x1b[1m\x1b[31mLOST\x1b[0m");
        assert_eq!(text.cut(2).on(coloured), "\x1b[32mup\x1b[0m", "what is cut away leaves no codes");
    }
}
