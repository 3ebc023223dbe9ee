//! Who may enter a backend: intent × health × release state → admission (DESIGN.md §3).
//!
//! Intent and health are two fields and never one: a passing probe must not end a drain, a drain must not hide a crash.

use serde::{Deserialize, Serialize};

/// What the operator wants of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// It takes part.
    #[default]
    Serve,
    /// Its sessions stay, no new ones.
    Drain,
    /// Nobody goes there.
    Maintain,
}

impl Intent {
    /// Every intent, in the order of the metric's label values.
    pub const ALL: [Intent; 3] = [Intent::Serve, Intent::Drain, Intent::Maintain];

    /// As written in API, CLI and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Intent::Serve => "serve",
            Intent::Drain => "drain",
            Intent::Maintain => "maintain",
        }
    }

    /// The intent of that name.
    pub fn find(name: &str) -> Option<Intent> {
        Intent::ALL.into_iter().find(|i| i.as_str() == name)
    }
}

/// What probing and real connects found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No probe has answered yet.
    #[default]
    Untested,
    /// Probes pass.
    Up,
    /// The backend itself asks for a soft stop.
    Draining,
    /// It accepts connections and stays silent: a long garbage collection is not death.
    Stalled,
    /// Refused, unreachable or answering nonsense.
    Down,
}

impl Health {
    /// Every health, in the order of the metric's label values.
    pub const ALL: [Health; 5] = [Health::Untested, Health::Up, Health::Draining, Health::Stalled, Health::Down];

    /// As written in API, CLI and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::Untested => "untested",
            Health::Up => "up",
            Health::Draining => "draining",
            Health::Stalled => "stalled",
            Health::Down => "down",
        }
    }
}

/// Where a release stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    /// Loaded and hidden.
    #[default]
    Staged,
    /// A share of the new sessions.
    Ramping,
    /// All new sessions.
    Current,
    /// Known sessions only.
    Draining,
    /// Its count is zero, the last exchanges leave.
    Fencing,
    /// Fenced: admits nobody.
    Drained,
    /// Drained by force or order.
    Stopped,
    /// One of the open releases of an app with `current: by_health`.
    ByHealth,
}

impl ReleaseState {
    /// Every state, in the order of the metric's label values.
    pub const ALL: [ReleaseState; 8] = [
        ReleaseState::Staged,
        ReleaseState::Ramping,
        ReleaseState::Current,
        ReleaseState::Draining,
        ReleaseState::Fencing,
        ReleaseState::Drained,
        ReleaseState::Stopped,
        ReleaseState::ByHealth,
    ];

    /// As written in API, CLI and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReleaseState::Staged => "staged",
            ReleaseState::Ramping => "ramping",
            ReleaseState::Current => "current",
            ReleaseState::Draining => "draining",
            ReleaseState::Fencing => "fencing",
            ReleaseState::Drained => "drained",
            ReleaseState::Stopped => "stopped",
            ReleaseState::ByHealth => "by_health",
        }
    }

    /// Whether the release takes new sessions when its backends are healthy.
    pub const fn open(self) -> bool {
        matches!(self, ReleaseState::Current | ReleaseState::Ramping | ReleaseState::ByHealth)
    }

    /// Whether it is on its way out but still keeps its sessions.
    pub const fn emptying(self) -> bool {
        matches!(self, ReleaseState::Draining | ReleaseState::Fencing)
    }

    /// Whether nothing is routed there any more.
    pub const fn gone(self) -> bool {
        matches!(self, ReleaseState::Drained | ReleaseState::Stopped)
    }
}

/// Who may enter. Ordered: whoever is admitted at a lower level is admitted at a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    /// Nobody.
    Nobody,
    /// Only an authorised preview of a staged release.
    Preview,
    /// Those who have a session there.
    KnownSessions,
    /// New clients too.
    Everyone,
}

impl Admission {
    /// Every admission, in the order of the metric's label values.
    pub const ALL: [Admission; 4] = [Admission::Nobody, Admission::Preview, Admission::KnownSessions, Admission::Everyone];

    /// As written in API, CLI and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Admission::Nobody => "nobody",
            Admission::Preview => "preview",
            Admission::KnownSessions => "known_sessions",
            Admission::Everyone => "everyone",
        }
    }
}

/// The table of DESIGN.md §3; the first row that matches decides.
pub const fn admission(intent: Intent, health: Health, state: ReleaseState) -> Admission {
    match (intent, health, state) {
        (Intent::Maintain, _, _) => Admission::Nobody,
        (_, Health::Down, _) => Admission::Nobody,
        (_, _, ReleaseState::Drained | ReleaseState::Stopped) => Admission::Nobody,
        (_, _, ReleaseState::Staged) => Admission::Preview,
        (Intent::Drain, _, _) => Admission::KnownSessions,
        (Intent::Serve, Health::Draining | Health::Stalled | Health::Untested, _) => Admission::KnownSessions,
        (Intent::Serve, Health::Up, ReleaseState::Draining | ReleaseState::Fencing) => Admission::KnownSessions,
        (Intent::Serve, Health::Up, ReleaseState::Current | ReleaseState::Ramping | ReleaseState::ByHealth) => Admission::Everyone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_row_decides() {
        use Admission as A;
        use Health as H;
        use Intent as I;
        use ReleaseState as R;
        let check =
            |intent, health, state, expected| assert_eq!(admission(intent, health, state), expected, "{intent:?} {health:?} {state:?}");
        for health in H::ALL {
            for state in R::ALL {
                check(I::Maintain, health, state, A::Nobody);
            }
        }
        for intent in [I::Serve, I::Drain] {
            for state in R::ALL {
                check(intent, H::Down, state, A::Nobody);
            }
            for health in [H::Untested, H::Up, H::Draining, H::Stalled] {
                check(intent, health, R::Drained, A::Nobody);
                check(intent, health, R::Stopped, A::Nobody);
                check(intent, health, R::Staged, A::Preview);
            }
        }
        for state in [R::Current, R::Ramping, R::ByHealth, R::Draining, R::Fencing] {
            for health in [H::Untested, H::Up, H::Draining, H::Stalled] {
                check(I::Drain, health, state, A::KnownSessions);
            }
            for health in [H::Untested, H::Draining, H::Stalled] {
                check(I::Serve, health, state, A::KnownSessions);
            }
        }
        for state in [R::Draining, R::Fencing] {
            check(I::Serve, H::Up, state, A::KnownSessions);
        }
        for state in [R::Current, R::Ramping, R::ByHealth] {
            check(I::Serve, H::Up, state, A::Everyone);
        }
    }
}
