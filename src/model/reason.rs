//! Why a request went where it went, and what became of its pin. Reported everywhere, steering nothing.

/// Why a decision was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its live session is on this backend.
    Pinned,
    /// Its pin names this backend; the ledger does not know the session as live, so the application decides.
    Returned,
    /// It has no session, but was pinned with its first response.
    Anonymous,
    /// Its backend is down; this one stands in and the pin stays.
    StandIn,
    /// Its backend is down; it is pinned here from now on.
    Repinned,
    /// Its session is dead; another backend of the same release takes it as a new client.
    MovedWithin,
    /// Its session is dead; the current release takes it as a new client.
    Moved,
    /// It is a move point on a draining backend; whoever takes new sessions takes it as a new client.
    MovePoint,
    /// A draining backend did not know its session; it is sent once more, as a new client.
    Replayed,
    /// A new client, balanced.
    New,
    /// A new client, and only draining backends are healthy.
    AllDraining,
    /// A new client, and only backup backends are left.
    Backup,
    /// Refused: nobody admits it.
    NoBackend,
    /// Refused: its session's backend is down and `failover` is off.
    BackendDown,
    /// Refused: its backend and the queue before it are full.
    QueueFull,
    /// Refused: it waited too long for its full backend.
    QueueTimeout,
    /// Refused: it failed more than once, and too many others did.
    RetryBudget,
    /// Refused: its session was evicted, and it may change something.
    Evicted,
    /// Refused: no app serves this host and path.
    NoApp,
    /// Refused: its path cannot be mapped without ambiguity.
    BadPath,
    /// Refused: its body is larger than `limits.max_body`.
    BodyTooLarge,
}

impl Reason {
    /// Every reason, in declaration order: the discriminant is the index.
    pub const ALL: [Reason; 21] = [
        Reason::Pinned,
        Reason::Returned,
        Reason::Anonymous,
        Reason::StandIn,
        Reason::Repinned,
        Reason::MovedWithin,
        Reason::Moved,
        Reason::MovePoint,
        Reason::Replayed,
        Reason::New,
        Reason::AllDraining,
        Reason::Backup,
        Reason::NoBackend,
        Reason::BackendDown,
        Reason::QueueFull,
        Reason::QueueTimeout,
        Reason::RetryBudget,
        Reason::Evicted,
        Reason::NoApp,
        Reason::BadPath,
        Reason::BodyTooLarge,
    ];

    /// As in the access log, metrics, `explain` and the debug header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Pinned => "pinned",
            Reason::Returned => "returned",
            Reason::Anonymous => "anonymous",
            Reason::StandIn => "stand_in",
            Reason::Repinned => "repinned",
            Reason::MovedWithin => "moved_within",
            Reason::Moved => "moved",
            Reason::MovePoint => "move_point",
            Reason::Replayed => "replayed",
            Reason::New => "new",
            Reason::AllDraining => "all_draining",
            Reason::Backup => "backup",
            Reason::NoBackend => "no_backend",
            Reason::BackendDown => "backend_down",
            Reason::QueueFull => "queue_full",
            Reason::QueueTimeout => "queue_timeout",
            Reason::RetryBudget => "retry_budget",
            Reason::Evicted => "evicted",
            Reason::NoApp => "no_app",
            Reason::BadPath => "bad_path",
            Reason::BodyTooLarge => "body_too_large",
        }
    }

    /// One sentence for `tidegate explain` and the manual.
    pub const fn sentence(self) -> &'static str {
        match self {
            Reason::Pinned => "its live session is on this backend",
            Reason::Returned => "its pin names this backend; the session is not known as live, so the application decides",
            Reason::Anonymous => "it has no session, but was pinned with its first response",
            Reason::StandIn => "its backend is down; this one stands in and the pin stays",
            Reason::Repinned => "its backend is down; it is pinned here from now on",
            Reason::MovedWithin => "its session is dead; another backend of the same release takes it as a new client",
            Reason::Moved => "its session is dead; the current release takes it as a new client",
            Reason::MovePoint => "a move point: its session on a draining backend is given up, and it goes on as a new client",
            Reason::Replayed => "a draining backend did not know its session; it was sent once more, as a new client",
            Reason::New => "a new client, balanced over the release that takes new sessions",
            Reason::AllDraining => "a new client, and only draining backends are healthy (when_all_draining: serve)",
            Reason::Backup => "a new client, and only backup backends are left",
            Reason::NoBackend => "refused: no backend admits it",
            Reason::BackendDown => "refused: its session's backend is down and failover is off",
            Reason::QueueFull => "refused: its backend and the queue before it are full",
            Reason::QueueTimeout => "refused: it waited longer than queue.timeout for its full backend",
            Reason::RetryBudget => "refused: several backends failed it, and limits.retry_budget is spent",
            Reason::Evicted => "refused: its session was evicted, and a request that may change something reaches no other backend",
            Reason::NoApp => "refused: no app serves this host and path",
            Reason::BadPath => "refused: its path cannot be mapped without ambiguity",
            Reason::BodyTooLarge => "refused: its body is larger than limits.max_body",
        }
    }
}

/// What became of the pin that a request carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PinResult {
    /// It carried none, or one that belongs to another session.
    #[default]
    None,
    /// It was followed.
    Valid,
    /// Its session had expired.
    Expired,
    /// Its session is gone with its release or backend.
    Lost,
    /// It names a release, backend or key that does not exist.
    Unknown,
    /// Its signature is wrong.
    Forged,
    /// Its backend is down.
    Down,
    /// The ledger knows better: a later pin, or an eviction.
    Overridden,
}

impl PinResult {
    /// Every result, in declaration order: the discriminant is the index.
    pub const ALL: [PinResult; 8] = [
        PinResult::None,
        PinResult::Valid,
        PinResult::Expired,
        PinResult::Lost,
        PinResult::Unknown,
        PinResult::Forged,
        PinResult::Down,
        PinResult::Overridden,
    ];

    /// As in the access log and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            PinResult::None => "none",
            PinResult::Valid => "valid",
            PinResult::Expired => "expired",
            PinResult::Lost => "lost",
            PinResult::Unknown => "unknown",
            PinResult::Forged => "forged",
            PinResult::Down => "down",
            PinResult::Overridden => "overridden",
        }
    }

    /// One sentence for the manual.
    pub const fn sentence(self) -> &'static str {
        match self {
            PinResult::None => "there was none, or it belonged to another session",
            PinResult::Valid => "was followed",
            PinResult::Expired => "belonged to a session that had expired",
            PinResult::Lost => "led to a release or backend that is drained, stopped or removed, or has restarted since",
            PinResult::Unknown => "names a release, backend or key that does not exist",
            PinResult::Forged => "has a wrong signature",
            PinResult::Down => "leads to a backend that is down",
            PinResult::Overridden => "was overruled by the ledger: a later pin, or an eviction",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discriminant_is_the_index() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
        for (index, result) in PinResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, index, "{result:?}");
        }
    }
}
