//! From a scene to lines of text: pure, so that what people see can be tested without a terminal.
//!
//! A block keeps its height from the first frame to the last, so nothing jumps while one reads. Events fill what is left.

use std::time::Duration;

use super::releases::terminal_colour;
use super::scene::{Act, DrainRow, ReleaseRow, Scene, Setting};
use crate::model::drain::DrainState;
use crate::model::forecast::{Eta, TooFew};
use crate::model::ledger::EndReason;

/// Where lines are to fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canvas {
    pub columns: usize,
    pub rows: usize,
    /// Blocks and ticks; without it, what every font has.
    pub unicode: bool,
}

/// How a span looks; on a terminal without colours all look the same, so no fact may hang on a style alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Dim,
    Bold,
    Good,
    Bad,
    /// One of the terminal's sixteen colours.
    Colour(u8),
}

/// A line in spans.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(pub Vec<(Style, String)>);

impl Line {
    fn with(mut self, style: Style, text: impl Into<String>) -> Line {
        self.0.push((style, text.into()));
        self
    }

    fn plain(text: impl Into<String>) -> Line {
        Line::default().with(Style::Plain, text)
    }

    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// Cut to `columns`.
    fn fit(mut self, columns: usize) -> Line {
        let mut left = columns;
        for (_, text) in &mut self.0 {
            *text = text.chars().take(left).collect();
            left -= text.chars().count();
        }
        self
    }
}

/// The whole screen.
pub(super) fn render(scene: &Scene, setting: &Setting, canvas: Canvas) -> Vec<Line> {
    let mut lines = vec![title(scene, canvas), Line::default()];
    lines.push(Line::plain(" app    ").with(Style::Bold, &*setting.app_url).with(Style::Dim, "  open it, log in, click: be one of them"));
    lines.push(Line::plain(" admin  ").with(Style::Bold, &*setting.admin_url).with(Style::Dim, "  the operator's side"));
    lines.extend([Line::default(), steps(scene.act, setting, canvas), Line::default()]);
    let most = scene.releases.iter().map(|release| release.live).chain(scene.drain.as_ref().map(|drain| drain.initial)).max().unwrap_or(0);
    lines.extend(scene.releases.iter().map(|release| release_line(release, most, canvas)));
    if scene.releases.len() < 2 {
        lines.push(Line::default());
    }
    lines.push(Line::default());
    lines.extend(drain_block(scene, setting, canvas));
    lines.push(Line::default());
    lines.extend(people(scene));
    lines.push(Line::default());
    lines.extend(setting.commands.iter().filter(|_| scene.act >= Act::Drained).map(|line| Line::plain(format!(" {line}"))));
    let room = canvas.rows.saturating_sub(lines.len());
    let first = scene.events.len().saturating_sub(room);
    lines.extend(scene.events.iter().skip(first).map(|(at, event)| Line::plain(" ").with(Style::Dim, format!("{} {event}", clock(*at)))));
    lines.truncate(canvas.rows);
    lines.into_iter().map(|line| line.fit(canvas.columns)).collect()
}

fn title(scene: &Scene, canvas: Canvas) -> Line {
    let title = Line::plain(" ").with(Style::Bold, "tidegate demo").with(Style::Plain, "  a deploy, in front of people who have sessions");
    let clock = clock(scene.elapsed);
    let gap = canvas.columns.min(100).saturating_sub(title.width() + clock.len() + 1).max(1);
    title.with(Style::Plain, " ".repeat(gap)).with(Style::Bold, clock)
}

/// Minutes and seconds.
pub(super) fn clock(elapsed: Duration) -> String {
    format!("{}:{:02}", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}

fn steps(act: Act, setting: &Setting, canvas: Canvas) -> Line {
    let (done, now, later) = if canvas.unicode { ("✓", "▸", "·") } else { ("x", ">", ".") };
    let mut steps =
        vec![(Act::Arriving, "people arrive"), (Act::Staged, "v2 staged"), (Act::Draining, "v1 drains"), (Act::Drained, "drained")];
    if setting.commands.is_empty() {
        steps.push((Act::SwitchedOff, "v1 switched off"));
    }
    let last = steps.last().map(|(step, _)| *step);
    let mut line = Line::plain(" ");
    for (step, what) in steps {
        let (mark, style) = match step.cmp(&act) {
            std::cmp::Ordering::Equal if Some(step) != last => (now, Style::Bold),
            std::cmp::Ordering::Less | std::cmp::Ordering::Equal => (done, Style::Good),
            std::cmp::Ordering::Greater => (later, Style::Dim),
        };
        line = line.with(style, format!("{mark} {what}")).with(Style::Plain, "   ");
    }
    line
}

fn release_line(release: &ReleaseRow, most: u64, canvas: Canvas) -> Line {
    let colour = Style::Colour(terminal_colour(&release.name));
    let cells = (canvas.columns.min(120) / 2).saturating_sub(12);
    let full = if most == 0 { 0 } else { cells.min(portion(cells, release.live, most)) };
    let (block, empty) = blocks(canvas);
    let mut line = Line::plain(" ").with(colour, format!("{:<3}", release.name)).with(Style::Plain, format!("{:<9}", release.state));
    line = line.with(colour, block.repeat(full)).with(Style::Dim, empty.repeat(cells - full));
    line = line.with(Style::Bold, format!("{:>4}", release.live)).with(Style::Plain, " sessions  ");
    for (name, live, health) in &release.backends {
        let style = if *health == "up" { Style::Dim } else { Style::Plain };
        line = line.with(style, if *health == "up" { format!("{name} {live}  ") } else { format!("{name} {health}  ") });
    }
    line
}

fn blocks(canvas: Canvas) -> (&'static str, &'static str) {
    if canvas.unicode { ("█", "░") } else { ("#", ".") }
}

/// `cells × part / whole`, and at least one cell for anything that is not zero.
fn portion(cells: usize, part: u64, whole: u64) -> usize {
    let wide = u64::try_from(cells).unwrap_or(u64::MAX);
    let full = usize::try_from(wide.saturating_mul(part) / whole.max(1)).unwrap_or(cells);
    if part > 0 { full.max(1) } else { 0 }
}

/// Always five lines.
fn drain_block(scene: &Scene, setting: &Setting, canvas: Canvas) -> [Line; 5] {
    let Some(drain) = &scene.drain else {
        let first = match scene.act {
            Act::Arriving => {
                let left = setting.warm_up.saturating_sub(scene.elapsed).as_secs();
                format!(" the deploy begins in {left} s; until then tidegate gets to know the sessions")
            }
            _ => " v2 is probed; nobody is sent there yet".to_owned(),
        };
        return [Line::plain(first), Line::default(), Line::default(), Line::default(), Line::default()];
    };
    let cells = canvas.columns.min(120).saturating_sub(9);
    let done = drain.progress();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share between 0 and 1")]
    let percent = (done * 100.0) as u64;
    let full = portion(cells, percent, 100).min(cells);
    let (block, empty) = blocks(canvas);
    let bar = Line::plain(" ").with(Style::Good, block.repeat(full)).with(Style::Dim, empty.repeat(cells - full));
    [
        Line::plain(" ").with(Style::Bold, format!("drain d{} of {}", drain.id, drain.target)).with(Style::Plain, drain_news(drain)),
        bar.with(Style::Bold, format!(" {percent:>3} %")),
        Line::plain(format!(" ended   {}", ended(drain))),
        Line::plain(format!(
            " left    {} clicking, {} silent, {} unconfirmed, {} in flight; {}",
            drain.engaged,
            drain.silent,
            drain.unconfirmed,
            drain.in_flight,
            if drain.doubt.is_none() { "the count is certain" } else { "a lower bound" }
        )),
        Line::plain(format!(" empty   {}", outlook(drain))),
    ]
}

fn drain_news(drain: &DrainRow) -> String {
    match drain.state {
        DrainState::Drained => format!("  drained and fenced after {} s", drain.took.unwrap_or_default().as_secs()),
        DrainState::Fencing => "  no session left, the last requests leave".to_owned(),
        DrainState::Draining => {
            format!("  {} sessions left, {} at the start", drain.remaining(), drain.initial)
        }
        other => format!("  {}", other.as_str()),
    }
}

/// When nobody is left, or why nobody knows.
fn outlook(drain: &DrainRow) -> String {
    match (&drain.doubt, drain.outlook.upper_bound) {
        _ if drain.state == DrainState::Drained => "yes, and nobody can come in any more".to_owned(),
        _ if !drain.state.runs() => "-".to_owned(),
        (Some(doubt), _) => format!("not known yet: {doubt}"),
        (None, Some(bound)) if drain.remaining() > 0 => {
            let forecast = match drain.outlook.eta {
                Ok(Eta { p50, p90, .. }) => format!("in {} s, nine times of ten in {} s", p50.as_secs(), p90.as_secs()),
                Err(TooFew { ended }) => format!("no forecast after {ended} ended sessions"),
            };
            format!("{forecast}; {} s if nobody clicks", bound.as_secs())
        }
        _ => "now, but for the unconfirmed and those in flight".to_owned(),
    }
}

/// How sessions ended. A zero of what would hurt is worth showing.
pub(super) fn ended(drain: &DrainRow) -> String {
    let count = |reason| drain.ended(reason);
    format!(
        "{} logged out, {} timed out, {} moved, {} lost",
        count(EndReason::Logout),
        count(EndReason::Idle),
        count(EndReason::Moved),
        count(EndReason::Lost) + count(EndReason::Evicted)
    )
}

/// Always four lines.
fn people(scene: &Scene) -> [Line; 4] {
    let census = &scene.census;
    let mut news = Line::plain(" new people since the deploy   ");
    if scene.act < Act::Draining {
        news = news.with(Style::Dim, "-");
    } else {
        for release in &scene.releases {
            let arrived = census.newcomers.get(&release.name).copied().unwrap_or(0);
            news = news.with(Style::Colour(terminal_colour(&release.name)), format!("{} {arrived}   ", release.name));
        }
    }
    let disturbed = match census.stories.first() {
        Some(story) => Line::plain(" ").with(Style::Bad, format!("people disturbed: {}   {story}", census.disturbed)),
        None => Line::plain(" ").with(Style::Good, format!("people disturbed: {}", census.disturbed)),
    };
    [
        Line::plain(format!(
            " people  {} here, {} came, {} logged out, {} just left, {} came back later",
            census.present, census.arrived, census.logged_out, census.left, census.returned
        )),
        Line::plain(format!(" {} requests answered as they should be; {} visits of crawlers", census.clicks, census.crawled)),
        news,
        disturbed,
    ]
}

/// One line for where nobody can repaint; without the time, so that lines can be compared.
pub(super) fn one_line(scene: &Scene) -> String {
    let mut parts: Vec<String> = scene.releases.iter().map(|r| format!("{} {} {}", r.name, r.state, r.live)).collect();
    if let Some(drain) = scene.drain.as_ref().filter(|drain| drain.state.runs()) {
        parts.push(format!("{}: {} sessions left, {} at the start ({})", drain.target, drain.remaining(), drain.initial, ended(drain)));
    }
    parts.push(format!("people here {}", scene.census.present));
    parts.push(format!("disturbed {}", scene.census.disturbed));
    parts.join(" | ")
}

/// What happened in the end.
pub(super) fn summary(scene: &Scene) -> Vec<String> {
    let census = &scene.census;
    let mut lines = Vec::new();
    match &scene.drain {
        Some(drain) if drain.state == DrainState::Drained => {
            lines.push(format!("{} is drained and fenced after {} s.", drain.target, drain.took.unwrap_or_default().as_secs()));
            let born = match drain.late() {
                0 => String::new(),
                late => format!(", {late} just being born"),
            };
            lines.push(format!("Sessions: {} at the start{born}; {}.", drain.initial, ended(drain)));
        }
        Some(drain) => lines.push(format!("{} is not drained: {} sessions left.", drain.target, drain.remaining())),
        None => lines.push("Nothing was deployed.".to_owned()),
    }
    if !census.newcomers.is_empty() {
        let by_release: Vec<String> = census.newcomers.iter().map(|(release, people)| format!("{people} on {release}")).collect();
        lines.push(format!("New people since the deploy: {}.", by_release.join(", ")));
    }
    if scene.act == Act::SwitchedOff {
        lines.push("v1 was switched off while people went on clicking.".to_owned());
    }
    lines.push(format!("{} people came, {} requests. People disturbed: {}.", census.arrived, census.clicks, census.disturbed));
    lines.extend(census.stories.iter().map(|story| format!("  {story}")));
    lines
}

#[cfg(test)]
mod tests;
