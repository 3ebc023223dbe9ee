//! Waiting for drains, and telling the truth with the exit code.
//!
//! Of several proxies each has a drain of its own for one target. They are told as one, which is over when all are; a proxy that does
//! not answer is asked again for as long as the waiting lasts, since the others cannot speak for it. One that answers and says that nobody
//! came by it is not waited for once the others are done.
//!
//! Waiting changes nothing: whoever stops waiting, by Ctrl-C or a timeout, leaves the drain running.

use std::io::Write;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::Client;
use super::screen::{self, Medium, Text, Tone};
use super::{Failure, merge};
use crate::api::DrainStatus;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two lines when nobody watches: a log of a night stays readable.
const LINE: Duration = Duration::from_secs(60);
/// All backends down for this long are dead; a shorter time is a restart or a hiccup of the network.
const DEAD: Duration = Duration::from_secs(15);
/// After a deadline, the last exchanges may take this long to leave, and the fence to close; `serve::webhook` reports by the same rule.
const LEAVING: Duration = Duration::from_secs(10);
/// A process that restarts is back within this time.
const AWAY: Duration = Duration::from_secs(60);

/// How waiting ended. The numbers are the exit codes; of several drains the first that applies in [`Verdict::WORST`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Drained and fenced, nobody lost.
    Done = 0,
    /// Deadline or timeout, with sessions left.
    Late = 2,
    /// A backend died, sessions are lost.
    Died = 3,
    /// Cancelled or superseded.
    Superseded = 4,
}

impl Verdict {
    const WORST: [Verdict; 4] = [Verdict::Died, Verdict::Superseded, Verdict::Late, Verdict::Done];
}

/// What one look at a drain says; `None` while it goes on. `dead` and `late`: for how long all its backends have been down, and
/// its deadline been past.
fn verdict(d: &DrainStatus, dead: Duration, late: Duration) -> Option<Verdict> {
    match d.verdict.as_deref() {
        Some("drained") if d.ended.lost > 0 => Some(Verdict::Died),
        Some("drained") => Some(Verdict::Done),
        Some(_) => Some(Verdict::Superseded),
        None if dead >= DEAD => Some(Verdict::Died),
        None if d.deadline_in_seconds == Some(0) && (late >= LEAVING || stays(d)) => Some(Verdict::Late),
        None => None,
    }
}

/// Whether a deadline that has passed leaves whoever is there. With nobody left the drain may be done in a moment: it gets [`LEAVING`].
fn stays(d: &DrainStatus) -> bool {
    d.then != "evict" && d.remaining > 0
}

/// All backends of a drain are down while sessions are left there.
fn abandoned(d: &DrainStatus) -> bool {
    d.verdict.is_none() && d.remaining > 0 && d.backends > 0 && d.backends_down == d.backends
}

/// One drain under watch.
struct Watched {
    client: Client,
    id: String,
    last: Option<DrainStatus>,
    verdict: Option<Verdict>,
    dead_since: Option<Instant>,
    late_since: Option<Instant>,
    away_since: Option<Instant>,
    /// Whether others are watched too.
    in_company: bool,
}

/// Waits for all of `drains`; answers the worst verdict and the last look at each, those of one target as one.
///
/// # Errors
/// A process no longer knows the drain; the only one cannot be reached for a minute.
pub async fn wait(drains: Vec<(Client, String)>, limit: Option<Duration>, medium: Medium) -> Result<(Verdict, Vec<DrainStatus>), Failure> {
    let in_company = drains.iter().any(|(client, _)| drains.first().is_some_and(|(first, _)| first.url != client.url));
    let new =
        |(client, id)| Watched { client, id, last: None, verdict: None, dead_since: None, late_since: None, away_since: None, in_company };
    let mut watched: Vec<Watched> = drains.into_iter().map(new).collect();
    let mut ids = watched.iter().map(|w| w.id.clone()).collect::<Vec<_>>();
    ids.dedup();
    let looking = look_until_over(&mut watched, limit, medium);
    tokio::select! {
        looked = looking => looked?,
        signal = tokio::signal::ctrl_c() => {
            signal.map_err(|error| Failure::error(error.to_string()))?;
            // Numbers are each proxy's own.
            if in_company {
                ids = groups(&watched).iter().map(|group| together(group).target).collect();
            }
            let how = ids.iter().map(|id| format!("tidegate wait {id}")).collect::<Vec<_>>().join("; ");
            return Err(Failure { exit: 130, ..Failure::error(format!("\nno longer waiting; the drain goes on. To attach again: {how}")) });
        }
    }
    let unanswered = watched.iter().any(|w| w.last.is_none()).then_some(Verdict::Late);
    let each = |group: &Vec<&Watched>| match verdict_of(group) {
        Some(verdict) => vec![verdict],
        None => group.iter().map(|w| w.verdict.unwrap_or(Verdict::Late)).collect(),
    };
    let found: Vec<Verdict> = groups(&watched).iter().flat_map(each).chain(unanswered).collect();
    let worst = Verdict::WORST.into_iter().find(|v| found.contains(v)).unwrap_or(Verdict::Done);
    for group in groups(&watched) {
        let whole = together(&group);
        eprintln!("{}", sentence(&whole, verdict_of(&group)));
        for standby in standbys(&group) {
            eprintln!("{}", merge::not_visited(&whole.target, &standby.client.url));
        }
    }
    for w in watched.iter().filter(|w| w.away_since.is_some() || w.last.is_none()) {
        eprintln!("NO ANSWER from {}: what became of its drain is not known", w.client.url);
    }
    if in_company {
        let mut asked: Vec<&str> = watched.iter().map(|w| w.client.url.as_str()).collect();
        asked.dedup();
        eprintln!("this speaks for the proxies asked: {}", asked.join(", "));
    }
    let last = groups(&watched).iter().map(|group| together(group)).collect();
    Ok((worst, last))
}

/// Those of one target together, in the order of the first of each.
fn groups(watched: &[Watched]) -> Vec<Vec<&Watched>> {
    let mut groups: Vec<Vec<&Watched>> = Vec::new();
    for w in watched.iter().filter(|w| w.last.is_some()) {
        let target = |w: &Watched| w.last.as_ref().map(|last| last.target.clone());
        match groups.iter_mut().find(|group| w.in_company && group.first().is_some_and(|first| target(first) == target(w))) {
            Some(group) => group.push(w),
            None => groups.push(vec![w]),
        }
    }
    groups
}

fn together(group: &[&Watched]) -> DrainStatus {
    let all: Vec<_> = group.iter().filter_map(|w| Some((w.client.url.as_str(), w.last.as_ref()?))).collect();
    match all.as_slice() {
        [(_, only)] => (*only).clone(),
        all => merge::drain(all).0,
    }
}

/// The worst, once all have one; of a standby it is none where the others are drained.
fn verdict_of(group: &[&Watched]) -> Option<Verdict> {
    let spoken = !standbys(group).is_empty();
    let all = group.iter().filter(|w| !(spoken && w.stands_by())).map(|w| w.verdict).collect::<Option<Vec<_>>>()?;
    Verdict::WORST.into_iter().find(|v| all.contains(v))
}

/// Those that nobody came by, once all others are drained.
fn standbys<'w>(group: &[&'w Watched]) -> Vec<&'w Watched> {
    let (standbys, visited): (Vec<_>, Vec<_>) = group.iter().copied().partition(|w| w.stands_by());
    let drained = |w: &Watched| w.last.as_ref().is_some_and(|last| last.verdict.as_deref() == Some("drained"));
    if !visited.is_empty() && visited.into_iter().all(drained) { standbys } else { Vec::new() }
}

/// Whether nothing is to be waited for any more.
fn is_over(watched: &[Watched]) -> bool {
    let groups = groups(watched);
    groups.iter().map(Vec::len).sum::<usize>() == watched.len() && groups.iter().all(|group| verdict_of(group).is_some())
}

async fn look_until_over(watched: &mut [Watched], limit: Option<Duration>, medium: Medium) -> Result<(), Failure> {
    let began = Instant::now();
    let mut shown = Shown { medium, lines: 0, at: None };
    loop {
        for w in watched.iter_mut().filter(|w| w.verdict.is_none()) {
            w.look().await?;
        }
        let over = is_over(watched) || limit.is_some_and(|limit| began.elapsed() >= limit);
        shown.show(watched, over);
        if over {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

impl Watched {
    fn stands_by(&self) -> bool {
        self.in_company && self.last.as_ref().is_some_and(|last| last.stands_by)
    }

    async fn look(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        match self.client.get::<DrainStatus>(&format!("/api/v1/drains/{}", super::client::segment(&self.id))).await {
            // Numbers begin anew with the process: the same number may by now be another drain.
            Ok(status) if self.last.as_ref().is_some_and(|last| (&last.target, &last.started) != (&status.target, &status.started)) => {
                Err(self.forgotten())
            }
            Ok(status) => {
                if self.in_company && self.away_since.take().is_some() {
                    eprintln!("{} answers again", self.client.url);
                }
                self.away_since = None;
                let since = |since: Option<Instant>, holds: bool| holds.then(|| since.unwrap_or(now));
                self.dead_since = since(self.dead_since, abandoned(&status));
                self.late_since = since(self.late_since, status.deadline_in_seconds == Some(0));
                let lasted = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| now - since);
                self.verdict = verdict(&status, lasted(self.dead_since), lasted(self.late_since));
                self.last = Some(status);
                Ok(())
            }
            Err(failure) if failure.lost_contact && self.in_company => {
                if self.away_since.replace(self.away_since.unwrap_or(now)).is_none() {
                    eprintln!("{}; trying again, and nothing is over before it answers", failure.message);
                }
                Ok(())
            }
            // Not on the first look: a wrong address should say so at once.
            Err(failure) if failure.lost_contact && self.last.is_some() => {
                let since = *self.away_since.get_or_insert(now);
                if now - since < AWAY { Ok(()) } else { Err(failure) }
            }
            Err(failure) if failure.not_found && self.last.is_some() => Err(self.forgotten()),
            Err(failure) => Err(failure),
        }
    }

    fn forgotten(&self) -> Failure {
        let at = if self.in_company { format!(" at {}", self.client.url) } else { String::new() };
        Failure::error(format!("drain {} is no longer known{at}: was the process restarted? see tidegate status", self.id))
    }
}

/// What is on the screen.
struct Shown {
    /// Of standard error.
    medium: Medium,
    /// Of a terminal: to go up before the next look is shown.
    lines: usize,
    /// Elsewhere: when the last line was written.
    at: Option<Instant>,
}

impl Shown {
    /// Whether it is time for a line where nobody watches. The end is told by the last word alone.
    fn is_due(&mut self, over: bool, now: Instant) -> bool {
        let due = !over && self.at.is_none_or(|at| now - at >= LINE);
        if due {
            self.at = Some(now);
        }
        due
    }

    fn show(&mut self, watched: &[Watched], over: bool) {
        let mut out = std::io::stderr().lock();
        let terminal = self.medium.redraws;
        if !terminal && !self.is_due(over, Instant::now()) {
            return;
        }
        let mut text = String::new();
        if terminal && self.lines > 0 {
            // Up over the last lines, and clear from there.
            text.push_str(&format!("\x1b[{}A\x1b[J", self.lines));
        }
        self.lines = 0;
        // A line that wraps would be two to go up.
        let width = if terminal { rustix::termios::tcgetwinsize(&out).map_or(0, |size| usize::from(size.ws_col)) } else { usize::MAX };
        // A terminal that nobody has sized (a container's, a recorder's) says 0.
        let width = if width == 0 { 80 } else { width };
        for group in groups(watched) {
            let away = if group.iter().any(|w| w.away_since.is_some()) { "(no contact, trying again) " } else { "" };
            let mut parts = screen::drain_parts(&together(&group), self.medium);
            if let Some(first) = parts.first_mut() {
                *first = Text::of(Tone::Bad, away).and(std::mem::take(first));
            }
            for line in screen::folded(parts, width.max(2) - 1) {
                text.push_str(&line.on(self.medium));
                text.push('\n');
                self.lines += 1;
            }
        }
        // A screen that is gone must not end the waiting.
        if let Err(error) = out.write_all(text.as_bytes()) {
            log::debug!("progress cannot be shown: {error}");
        }
    }
}

/// The last word on a drain.
fn sentence(d: &DrainStatus, verdict: Option<Verdict>) -> String {
    match verdict {
        Some(Verdict::Done) => format!("{} is drained and fenced: {}", d.target, screen::gone(d)),
        Some(Verdict::Died) if d.verdict.is_some() => {
            format!("{} is drained, but {} got lost: a backend died", d.target, screen::many(d.ended.lost, "session"))
        }
        Some(Verdict::Died) => format!("{}: all its backends are down, {}; the drain {} goes on", d.target, sessions_left(d), d.id),
        Some(Verdict::Superseded) => format!("drain {} of {} was {}, {}", d.id, d.target, d.state, sessions_left(d)),
        Some(Verdict::Late) => format!("{}: deadline reached, {}; the drain goes on (tidegate wait {})", d.target, held_by(d), d.id),
        None => format!("{}: timeout, {}; the drain goes on (tidegate wait {})", d.target, held_by(d), d.id),
    }
}

fn sessions_left(d: &DrainStatus) -> String {
    if d.remaining == 0 { "no session left".to_owned() } else { format!("{} left", screen::many(d.remaining, "session")) }
}

/// Why a drain is not over: with no session left that is what the reader asks next.
fn held_by(d: &DrainStatus) -> String {
    let left = sessions_left(d);
    if d.remaining > 0 {
        left
    } else if let (false, Some(why)) = (d.confident, &d.confidence) {
        format!("{left}, but not sure yet ({why})")
    } else if d.sessions.unconfirmed > 0 {
        format!("{left} but {} unconfirmed", d.sessions.unconfirmed)
    } else if d.in_flight > 0 {
        format!("{left} but {} under way", screen::many(d.in_flight, "exchange"))
    } else {
        left
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::example_drain;
    use super::*;

    #[test]
    fn the_verdict_is_what_really_happened() {
        let check = |change: fn(&mut DrainStatus), dead, late, expected: Option<Verdict>| {
            let mut drain = example_drain();
            drain.then = "keep".to_owned();
            change(&mut drain);
            let verdict = verdict(&drain, Duration::from_secs(dead), Duration::from_secs(late));
            assert_eq!(verdict, expected, "{drain:?}");
        };
        let drained = |d: &mut DrainStatus| d.verdict = Some("drained".to_owned());
        check(|_| (), 0, 0, None);
        check(|d| d.remaining = 0, 0, 0, None);
        check(drained, 0, 0, Some(Verdict::Done));
        check(|d| (d.verdict, d.ended.lost) = (Some("drained".to_owned()), 2), 0, 0, Some(Verdict::Died));
        check(|d| d.verdict = Some("cancelled".to_owned()), 0, 0, Some(Verdict::Superseded));
        check(|d| d.verdict = Some("superseded".to_owned()), 0, 0, Some(Verdict::Superseded));
        check(|_| (), 14, 0, None);
        check(|_| (), 15, 0, Some(Verdict::Died));
        // The proof wins over a backend that has gone down since.
        check(drained, 99, 0, Some(Verdict::Done));
        check(|d| d.deadline_in_seconds = Some(1), 0, 0, None);
        check(|d| d.deadline_in_seconds = Some(0), 0, 0, Some(Verdict::Late));
        // Nobody is left: the fence is a moment away.
        check(|d| (d.deadline_in_seconds, d.remaining) = (Some(0), 0), 0, 9, None);
        check(|d| (d.deadline_in_seconds, d.remaining) = (Some(0), 0), 0, 10, Some(Verdict::Late));
        check(|d| (d.deadline_in_seconds, d.then) = (Some(0), "move_idle".to_owned()), 0, 0, Some(Verdict::Late));
        check(|d| (d.deadline_in_seconds, d.then, d.remaining) = (Some(0), "move_idle".to_owned(), 0), 0, 9, None);
        check(|d| (d.deadline_in_seconds, d.then) = (Some(0), "evict".to_owned()), 0, 9, None);
        check(|d| (d.deadline_in_seconds, d.then) = (Some(0), "evict".to_owned()), 0, 10, Some(Verdict::Late));
    }

    #[test]
    fn backends_without_sessions_may_be_down() {
        let check = |remaining, backends, down, expected| {
            let drain = DrainStatus { remaining, backends, backends_down: down, ..example_drain() };
            assert_eq!(abandoned(&drain), expected, "{remaining} {backends} {down}");
        };
        check(12, 2, 2, true);
        check(12, 2, 1, false);
        check(0, 2, 2, false);
        check(12, 0, 0, false);
    }

    #[test]
    fn where_nobody_watches_there_is_one_line_a_minute() {
        let began = Instant::now();
        let mut shown = Shown { medium: Medium::PLAIN, lines: 0, at: None };
        let told = (0..=150).filter(|second| shown.is_due(*second == 150, began + LOOK * *second)).collect::<Vec<_>>();
        assert_eq!(told, [0, 60, 120]);
        assert!(!shown.is_due(true, began + LINE * 9), "the last word is not said twice");
    }

    #[test]
    fn the_last_word_names_target_and_number() {
        let drain = example_drain();
        for (verdict, expected) in [
            (Some(Verdict::Done), "shop/v41 is drained and fenced: 20 logged out, 8 idle"),
            (Some(Verdict::Late), "shop/v41: deadline reached, 12 sessions left; the drain goes on (tidegate wait d7)"),
            (None, "shop/v41: timeout, 12 sessions left; the drain goes on (tidegate wait d7)"),
            (Some(Verdict::Died), "shop/v41: all its backends are down, 12 sessions left; the drain d7 goes on"),
        ] {
            assert_eq!(sentence(&drain, verdict), expected);
        }
    }

    #[test]
    fn with_nobody_left_the_last_word_says_what_holds_the_drain() {
        let check = |change: fn(&mut DrainStatus), expected: &str| {
            let mut drain = DrainStatus { remaining: 0, sessions: Default::default(), in_flight: 0, ..example_drain() };
            change(&mut drain);
            let words = format!("shop/v41: timeout, {expected}; the drain goes on (tidegate wait d7)");
            assert_eq!(sentence(&drain, None), words);
        };
        check(|_| (), "no session left");
        check(|d| d.remaining = 1, "1 session left");
        check(|d| d.sessions.unconfirmed = 3, "no session left but 3 unconfirmed");
        check(|d| d.in_flight = 1, "no session left but 1 exchange under way");
        check(
            |d| (d.confident, d.confidence) = (false, Some("seen for 4m of 30m".to_owned())),
            "no session left, but not sure yet (seen for 4m of 30m)",
        );
    }
}
