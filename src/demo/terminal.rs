//! Puts scenes where people look: repainted on a terminal, one line at a time anywhere else.
//!
//! A terminal is left as it was found, however the demo ends: the alternate screen goes with a `Drop`.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::cli::args::When;
use crate::cli::screen::Medium;

use super::scene::{Scene, Setting};
use super::screen::{Canvas, Line, Style, clock, one_line, render};

/// Alternate screen on, cursor off.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// Cursor on, alternate screen off.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// In a file or pipe a line is written at most this often, and only when it says something new.
const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

/// Where the demo is watched.
pub(super) trait Watch {
    /// Shows one moment.
    ///
    /// # Errors
    /// Nobody can see it.
    fn show(&mut self, scene: &Scene, setting: &Setting) -> io::Result<()>;
}

/// Standard output: a terminal, or not.
pub(super) fn stdout() -> Box<dyn Watch> {
    if !io::stdout().is_terminal() {
        return Box::new(PlainLines::new(io::stdout()));
    }
    Box::new(Terminal::enter())
}

/// A terminal.
struct Terminal {
    unicode: bool,
    colours: bool,
}

impl Terminal {
    fn enter() -> Terminal {
        // What went wrong with the first write goes wrong with the first frame too, and is reported there.
        write_all(ENTER).unwrap_or_default();
        let medium = Medium::of(When::Auto, &io::stdout());
        Terminal { unicode: medium.blocks, colours: medium.colours }
    }
}

impl Watch for Terminal {
    fn show(&mut self, scene: &Scene, setting: &Setting) -> io::Result<()> {
        // Asked for each frame: windows are resized. A terminal that does not know its size says 0.
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (columns, rows) = size.map_or((80, 24), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        let lines = render(scene, setting, Canvas { columns, rows, unicode: self.unicode });
        write_all(&frame(&lines, self.colours))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        write_all(LEAVE).unwrap_or_default();
    }
}

/// In one write, so that no half frame is seen.
fn write_all(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Line by line over the former frame: clearing first would flicker.
fn frame(lines: &[Line], colours: bool) -> String {
    let mut out = String::from("\x1b[H");
    for (number, line) in lines.iter().enumerate() {
        // No line feed after the last line: on the last row it would scroll.
        if number > 0 {
            out.push_str("\r\n");
        }
        for (style, text) in &line.0 {
            match code(*style).filter(|_| colours) {
                Some(code) => out.push_str(&format!("\x1b[{code}m{text}\x1b[0m")),
                None => out.push_str(text),
            }
        }
        out.push_str("\x1b[K");
    }
    out.push_str("\x1b[J");
    out
}

fn code(style: Style) -> Option<u8> {
    match style {
        Style::Plain => None,
        Style::Bold => Some(1),
        Style::Dim => Some(2),
        Style::Bad => Some(31),
        Style::Good => Some(32),
        Style::Colour(colour) => Some(colour),
    }
}

/// A file or a pipe.
pub(super) struct PlainLines<W> {
    out: W,
    greeted: bool,
    events: usize,
    last: Option<(Duration, String)>,
}

impl<W: Write> PlainLines<W> {
    /// Nothing is written yet.
    pub fn new(out: W) -> PlainLines<W> {
        PlainLines { out, greeted: false, events: 0, last: None }
    }
}

impl<W: Write> Watch for PlainLines<W> {
    fn show(&mut self, scene: &Scene, setting: &Setting) -> io::Result<()> {
        let time = clock(scene.elapsed);
        if !self.greeted {
            writeln!(self.out, "app {}", setting.app_url)?;
            writeln!(self.out, "admin {}", setting.admin_url)?;
            for command in &setting.commands {
                writeln!(self.out, "{command}")?;
            }
            self.greeted = true;
        }
        for (at, event) in scene.events.iter().skip(self.events) {
            writeln!(self.out, "{} {event}", clock(*at))?;
        }
        self.events = scene.events.len();
        let line = one_line(scene);
        let due = self.last.as_ref().is_none_or(|(at, last)| scene.elapsed >= *at + PLAIN_INTERVAL && *last != line);
        if due {
            writeln!(self.out, "{time} {line}")?;
            self.last = Some((scene.elapsed, line));
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_overwrites_and_does_not_scroll() {
        let line = |style, text: &str| Line(vec![(style, text.to_owned())]);
        let lines = [line(Style::Good, "good"), line(Style::Plain, "end")];
        assert_eq!(frame(&lines, true), "\x1b[H\x1b[32mgood\x1b[0m\x1b[K\r\nend\x1b[K\x1b[J");
        assert_eq!(frame(&lines, false), "\x1b[Hgood\x1b[K\r\nend\x1b[K\x1b[J");
    }

    #[test]
    fn plain_lines_come_once_a_second_and_when_something_is_new() {
        let setting = Setting { app_url: "http://a/".to_owned(), admin_url: "http://b/".to_owned(), ..Setting::default() };
        let mut watch = PlainLines::new(Vec::new());
        let mut show = |ms, disturbed, events: &[&str]| {
            let mut scene = Scene { elapsed: Duration::from_millis(ms), ..Scene::default() };
            scene.census.disturbed = disturbed;
            scene.events = events.iter().map(|event| (scene.elapsed, (*event).to_owned())).collect();
            let before = watch.out.len();
            watch.show(&scene, &setting).unwrap();
            String::from_utf8(watch.out[before..].to_vec()).unwrap()
        };
        assert_eq!(show(0, 0, &["loaded"]), "app http://a/\nadmin http://b/\n0:00 loaded\n0:00 people here 0 | disturbed 0\n");
        assert_eq!(show(1200, 0, &["loaded"]), "", "nothing new");
        assert_eq!(show(1400, 1, &["loaded"]), "0:01 people here 0 | disturbed 1\n");
        assert_eq!(show(1600, 2, &["loaded", "staged"]), "0:01 staged\n", "an event at once, the rest a second later");
        assert_eq!(show(2400, 2, &["loaded", "staged"]), "0:02 people here 0 | disturbed 2\n");
    }
}
