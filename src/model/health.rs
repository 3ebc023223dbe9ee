//! From the answers of probes and the failures of real connects to a backend's health.
//!
//! Silence is not death: a backend that accepts connections and does not answer is `stalled` and keeps its sessions,
//! because that is what a long garbage collection looks like. Only a backend that refuses, cannot be reached or answers
//! nonsense is `down`.

use super::admission::Health;
use super::settings::HealthSettings;

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeAnswer {
    /// A status of `ready`, or an accepted connection where only `tcp` is asked for.
    Ready,
    /// A status of `drain`: the backend asks for a soft stop.
    Drain,
    /// The connection stood and the answer was not complete in time.
    Silent,
    /// Nobody listens there.
    Refused,
    /// No route to the host, or its name does not resolve.
    Unreachable,
    /// No connection in time: a host that is off, a firewall that drops, or a full accept backlog.
    ConnectTimeout,
    /// Any other status, garbage, or a connection closed before its answer.
    Other,
}

/// How a connect of real traffic failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectFailure {
    /// Nobody listens there.
    Refused,
    /// No route to the host.
    Unreachable,
    /// No connection in time.
    TimedOut,
    /// Anything else, a failed TLS handshake for instance.
    Other,
}

impl ConnectFailure {
    /// In a few words, for events.
    pub const fn as_str(self) -> &'static str {
        match self {
            ConnectFailure::Refused => "connect refused",
            ConnectFailure::Unreachable => "no route to host",
            ConnectFailure::TimedOut => "connect timeout",
            ConnectFailure::Other => "connect failed",
        }
    }
}

/// The health of one backend and what the next answers may make of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthTrack {
    health: Health,
    /// Consecutive passing probes while not up.
    passes: u32,
    /// Consecutive failing probes since the health last changed; while stalled only those that are not silence.
    failures: u32,
    /// Whether the run of failing probes contains silence since its last other failure.
    silence: bool,
    /// While stalled or untested: whether it worked before, so that its word for a soft stop counts.
    worked: bool,
}

impl HealthTrack {
    /// Goes on from a health that is already known, of a snapshot before or of a process before.
    pub fn resume(health: Health) -> HealthTrack {
        HealthTrack { health, worked: health == Health::Stalled, ..HealthTrack::default() }
    }

    /// Begins to probe a backend that a process before knew: the first answer decides, and one that worked may ask for a soft stop.
    pub fn recall(last: Health) -> HealthTrack {
        HealthTrack { worked: matches!(last, Health::Up | Health::Draining | Health::Stalled), ..HealthTrack::default() }
    }

    /// The present health.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Feeds the answer of a probe; returns the new health when it changes.
    pub fn observe(&mut self, answer: ProbeAnswer, settings: &HealthSettings) -> Option<Health> {
        match answer {
            ProbeAnswer::Ready => self.passed(settings.rise),
            ProbeAnswer::Drain => self.asked_to_drain(settings.fall),
            ProbeAnswer::Silent | ProbeAnswer::ConnectTimeout if self.health == Health::Stalled => {
                // A paused process fills its accept backlog: then even connecting takes for ever, and it still is paused.
                self.failures = 0;
                self.passes = 0;
                None
            }
            ProbeAnswer::Silent => self.failed(true, settings.fall),
            ProbeAnswer::ConnectTimeout => self.failed(self.silence, settings.fall),
            ProbeAnswer::Refused | ProbeAnswer::Unreachable | ProbeAnswer::Other => self.failed(false, settings.fall),
        }
    }

    /// Feeds a failed connect of real traffic; returns the new health when it changes.
    ///
    /// A timeout decides nothing alone (a full backlog looks the same): the caller probes at once.
    pub fn real_connect_failure(&mut self, kind: ConnectFailure) -> Option<Health> {
        match kind {
            ConnectFailure::Refused | ConnectFailure::Unreachable => self.turn(Health::Down),
            ConnectFailure::TimedOut | ConnectFailure::Other => None,
        }
    }

    fn passed(&mut self, rise: u32) -> Option<Health> {
        self.failures = 0;
        self.silence = false;
        match self.health {
            Health::Up => None,
            // At process start and for a staged release nobody has fallen yet, so nobody has to rise.
            Health::Untested => self.turn(Health::Up),
            Health::Draining | Health::Stalled | Health::Down => {
                self.passes = self.passes.saturating_add(1);
                if self.passes >= rise { self.turn(Health::Up) } else { None }
            }
        }
    }

    fn asked_to_drain(&mut self, fall: u32) -> Option<Health> {
        match self.health {
            Health::Up | Health::Draining => self.turn(Health::Draining),
            Health::Stalled | Health::Untested if self.worked => self.turn(Health::Draining),
            // Where the drain status is 404, an application that failed to deploy says the same. It never worked, so
            // there is no session to keep.
            Health::Untested | Health::Down => self.turn(Health::Down),
            Health::Stalled => self.failed(false, fall),
        }
    }

    fn failed(&mut self, silent: bool, fall: u32) -> Option<Health> {
        self.passes = 0;
        self.silence = silent;
        self.failures = self.failures.saturating_add(1);
        // An untested backend has nobody to lose by waiting, so its first answer decides. Silence still means stalled:
        // pins from before our own start may lead there.
        let decided = self.health == Health::Untested || self.failures >= fall;
        match self.health {
            // A backend that died and does not answer yet is still starting; its sessions are with a stand-in.
            Health::Down => None,
            _ if !decided => None,
            _ if silent => self.turn(Health::Stalled),
            _ => self.turn(Health::Down),
        }
    }

    fn turn(&mut self, health: Health) -> Option<Health> {
        let before = self.health;
        let worked = matches!(before, Health::Up | Health::Draining);
        *self = HealthTrack { health, worked, ..HealthTrack::default() };
        (before != health).then_some(health)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Health as H;

    /// Plays a story from `start`, one letter per answer: `+` ready, `d` drain, `s` silent, `r` refused, `u` unreachable,
    /// `t` connect timeout, `x` other; and real connects that are refused `R`, unreachable `U`, timed out `T`, broken `X`.
    fn play(start: Health, rise: u32, fall: u32, story: &str) -> HealthTrack {
        let settings = HealthSettings { rise, fall, ..HealthSettings::default() };
        let mut track = HealthTrack::resume(start);
        for letter in story.chars() {
            let before = track.health();
            let news = match letter {
                '+' => track.observe(ProbeAnswer::Ready, &settings),
                'd' => track.observe(ProbeAnswer::Drain, &settings),
                's' => track.observe(ProbeAnswer::Silent, &settings),
                'r' => track.observe(ProbeAnswer::Refused, &settings),
                'u' => track.observe(ProbeAnswer::Unreachable, &settings),
                't' => track.observe(ProbeAnswer::ConnectTimeout, &settings),
                'x' => track.observe(ProbeAnswer::Other, &settings),
                'R' => track.real_connect_failure(ConnectFailure::Refused),
                'U' => track.real_connect_failure(ConnectFailure::Unreachable),
                'T' => track.real_connect_failure(ConnectFailure::TimedOut),
                'X' => track.real_connect_failure(ConnectFailure::Other),
                other => panic!("no answer is written {other}"),
            };
            let expected = (before != track.health()).then_some(track.health());
            assert_eq!(news, expected, "{story} at {letter}: a change is reported, and nothing else");
        }
        track
    }

    fn check(start: Health, story: &str, expected: Health) {
        assert_eq!(play(start, 2, 2, story).health(), expected, "from {start:?} with rise 2, fall 2: {story}");
    }

    #[test]
    fn the_first_answer_decides_about_an_untested_backend() {
        check(H::Untested, "", H::Untested);
        check(H::Untested, "+", H::Up);
        check(H::Untested, "x", H::Down);
        check(H::Untested, "r", H::Down);
        check(H::Untested, "u", H::Down);
        check(H::Untested, "t", H::Down);
        check(H::Untested, "R", H::Down);
        check(H::Untested, "T", H::Untested);
    }

    #[test]
    fn a_backend_that_is_silent_when_we_start_keeps_its_pins() {
        check(H::Untested, "s", H::Stalled);
        check(H::Untested, "s++", H::Up);
    }

    #[test]
    fn it_takes_fall_failures_to_go_and_rise_passes_to_return() {
        check(H::Up, "x", H::Up);
        check(H::Up, "xx", H::Down);
        check(H::Up, "rr", H::Down);
        check(H::Up, "ux", H::Down);
        check(H::Up, "x+x", H::Up);
        check(H::Down, "+", H::Down);
        check(H::Down, "++", H::Up);
        check(H::Down, "+x+", H::Down);
        check(H::Stalled, "+", H::Stalled);
        check(H::Stalled, "++", H::Up);
        check(H::Stalled, "+s+", H::Stalled);
        check(H::Draining, "+", H::Draining);
        check(H::Draining, "++", H::Up);
        check(H::Draining, "+d+", H::Draining);
        check(H::Draining, "xx", H::Down);
        assert_eq!(play(H::Up, 2, 3, "xx").health(), H::Up);
        assert_eq!(play(H::Up, 2, 3, "xxx").health(), H::Down);
        assert_eq!(play(H::Up, 1, 1, "x").health(), H::Down);
        assert_eq!(play(H::Down, 1, 1, "+").health(), H::Up);
    }

    #[test]
    fn silence_stalls_and_does_not_kill() {
        check(H::Up, "s", H::Up);
        check(H::Up, "ss", H::Stalled);
        check(H::Draining, "ss", H::Stalled);
        check(H::Up, "ssssssssssssssssssssssss", H::Stalled);
        check(H::Up, "sssss++", H::Up);
        // A process that went away while it was silent.
        check(H::Up, "sr", H::Down);
        check(H::Up, "ssr", H::Stalled);
        check(H::Up, "ssrr", H::Down);
        check(H::Up, "ssrsr", H::Stalled);
        // The last of the failures gives the run its name.
        check(H::Up, "xs", H::Stalled);
    }

    #[test]
    fn a_full_backlog_of_a_paused_backend_is_still_a_pause() {
        check(H::Up, "sstttttttttt", H::Stalled);
        check(H::Up, "st", H::Stalled);
        check(H::Up, "tt", H::Down);
        check(H::Up, "xt", H::Down);
        check(H::Stalled, "xtx", H::Stalled);
        check(H::Stalled, "TTTT", H::Stalled);
    }

    #[test]
    fn a_starting_backend_stays_down_until_it_passes() {
        check(H::Down, "ssss", H::Down);
        check(H::Down, "rrss+", H::Down);
    }

    #[test]
    fn a_soft_stop_counts_at_once_where_the_backend_has_worked() {
        check(H::Up, "d", H::Draining);
        check(H::Up, "xd", H::Draining);
        check(H::Draining, "ddd", H::Draining);
        check(H::Up, "ssd", H::Draining);
        check(H::Draining, "ssd", H::Draining);
    }

    #[test]
    fn an_application_that_failed_to_deploy_stays_down() {
        check(H::Untested, "d", H::Down);
        check(H::Down, "dddd", H::Down);
        check(H::Down, "+d+", H::Down);
        check(H::Untested, "sd", H::Stalled);
        check(H::Untested, "sdd", H::Down);
    }

    #[test]
    fn a_refused_request_counts_at_once_and_a_slow_one_does_not() {
        for health in [H::Up, H::Draining, H::Stalled, H::Down, H::Untested] {
            check(health, "R", H::Down);
            check(health, "U", H::Down);
            check(health, "TTTXXX", health);
        }
        check(H::Up, "R+", H::Down);
        check(H::Up, "R++", H::Up);
        check(H::Up, "++R+R+", H::Down);
    }
}
