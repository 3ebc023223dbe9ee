//! What is remembered of an exchange from hook to hook. Private to the glue; the counts it holds are guards, so that a
//! dropped task leaks none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use pingora_core::{Error, ErrorType, Result};

use super::client::Client;
use super::patience::QueueTurn;
use crate::model::admission::Admission;
use crate::model::decide::Forward;
use crate::model::facts::Facts;
use crate::model::gate::InFlight;
use crate::model::ledger::Ledger;
use crate::model::reason::{PinResult, Reason};
use crate::model::replay::Errand;
use crate::model::session_key::SessionKey;
use crate::model::time::Time;
use crate::model::view::{App, Release};
use crate::model::visit::{PinChange, Visit};
use crate::serve::clock::Clock;
use crate::serve::open_tunnels::TunnelEntry;
use crate::serve::transport::{Line, Tunnel};

/// Backends that one exchange tries to reach before it gives up; each is a connect that failed.
const TRIED_MAX: usize = 8;

/// The context of one exchange.
pub struct Exchange {
    pub(super) started: Instant,
    /// Of the snapshot in which the exchange was decided; a later one changes nothing for it.
    pub(super) app: Option<Arc<App>>,
    /// Length of the public prefix that matched.
    pub(super) prefix: usize,
    pub(super) client: Client,
    pub(super) facts: Option<Facts>,
    pub(super) decided_at: Time,
    pub(super) claim: Option<Claim>,
    pub(super) visit: Visit,
    /// The visit's count in the ledger.
    pub(super) stay: Option<Stay>,
    /// What it is about.
    pub(super) errand: Errand,
    /// Whether a draining backend disowned its session: it is a new client's, and not replayed again.
    pub(super) disowned: bool,
    /// Whether its first answer is being discarded.
    pub(super) replaying: bool,
    /// Whether its decision has been counted.
    pub(super) tallied: bool,
    pub(super) tried: Tried,
    /// Further tries so far.
    pub(super) retries: u32,
    /// Whether it was sent again after a connection that broke without an answer.
    pub(super) repeated: bool,
    pub(super) waited: bool,
    pub(super) ignored: bool,
    /// The path as the backend knows it, where that differs.
    pub(super) mapped: Option<Box<[u8]>>,
    pub(super) max_body: Option<u64>,
    /// The present attempt's way to its backend; `None` where Pingora keeps the connection.
    pub(super) line: Option<Arc<Line>>,
    pub(super) tunnel: Option<Tunnel>,
    /// Among the open tunnels, once the backend has agreed.
    pub(super) tunnel_entry: Option<TunnelEntry>,
    /// What entering made of the client's pin.
    pub(super) pin_change: PinChange,
    /// The line that sets or deletes the client's pin with this answer.
    pub(super) pin_line: Option<String>,
    /// Whether the next attempt waits a moment: its backend is paused, not gone.
    pub(super) pause: bool,
    _counted: Counted,
    pub(super) request_id: RequestId,
    pub(super) reason: Option<Reason>,
    pub(super) pin: PinResult,
    pub(super) refused: Option<Reason>,
    pub(super) first_byte: Option<Duration>,
    pub(super) debug: bool,
}

/// What the exchange is called in logs, here and at the backend.
pub(super) enum RequestId {
    /// By us: 32 hexadecimal digits.
    Made([u8; 32]),
    /// By a trusted proxy.
    Kept(HeaderValue),
}

impl RequestId {
    pub(super) fn value(&self) -> Option<HeaderValue> {
        match self {
            RequestId::Made(digits) => HeaderValue::from_bytes(digits).ok(),
            RequestId::Kept(value) => Some(value.clone()),
        }
    }
}

/// A backend, entered.
pub struct Claim {
    pub(super) forward: Forward,
    pub(super) release: Arc<Release>,
    /// Declared before `turn`, so dropped before it: whoever is woken finds the place free.
    _in_flight: InFlight,
    _turn: Option<QueueTurn>,
}

impl Claim {
    pub(super) fn new(forward: Forward, release: Arc<Release>, in_flight: InFlight, turn: Option<QueueTurn>) -> Claim {
        Claim { forward, release, _in_flight: in_flight, _turn: turn }
    }

    /// Whether the backend closed before anything was sent, so that the exchange must be decided anew.
    pub(super) fn closed(&self) -> bool {
        self.forward.backend.admission() < Admission::KnownSessions
    }
}

/// A live session's open exchange, counted in the ledger while this lives.
pub struct Stay {
    ledger: Arc<Ledger>,
    key: SessionKey,
    clock: Clock,
}

impl Stay {
    /// For a visit that the ledger counts.
    pub(super) fn of(visit: &Visit, ledger: &Arc<Ledger>, clock: Clock) -> Option<Stay> {
        Some(Stay { ledger: Arc::clone(ledger), key: visit.counted()?, clock })
    }
}

/// An exchange under way, waiting ones included; a stop waits for it.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Counted {
        count.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.ledger.leave(self.key, self.clock.now());
    }
}

/// Slots whose connect failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tried {
    slots: [u32; TRIED_MAX],
    count: usize,
}

impl Tried {
    pub(super) fn as_slice(&self) -> &[u32] {
        self.slots.get(..self.count).unwrap_or_default()
    }

    /// False when there is no room for another attempt.
    pub(super) fn add(&mut self, slot: u32) -> bool {
        match self.slots.get_mut(self.count) {
            Some(place) => {
                *place = slot;
                self.count += 1;
                true
            }
            None => false,
        }
    }
}

impl Exchange {
    pub(super) fn new(under_way: &Arc<AtomicUsize>) -> Exchange {
        Exchange {
            started: Instant::now(),
            app: None,
            prefix: 0,
            client: Client::default(),
            facts: None,
            decided_at: Time(0),
            claim: None,
            visit: Visit::default(),
            stay: None,
            errand: Errand::Read,
            disowned: false,
            replaying: false,
            tallied: false,
            tried: Tried::default(),
            retries: 0,
            repeated: false,
            waited: false,
            ignored: false,
            mapped: None,
            max_body: None,
            line: None,
            tunnel: None,
            tunnel_entry: None,
            pin_change: PinChange::AsDue,
            pin_line: None,
            pause: false,
            _counted: Counted::new(under_way),
            request_id: RequestId::Made([b'0'; 32]),
            reason: None,
            pin: PinResult::None,
            refused: None,
            first_byte: None,
            debug: false,
        }
    }

    /// Counts where it went and why. Once, when that is final: a decision that did not last is none.
    pub(super) fn tally(&mut self) {
        if let (Some(app), Some(reason), false) = (&self.app, self.reason, self.tallied) {
            if self.ignored {
                app.tally.ignored();
            }
            app.tally.decided(reason);
            if self.refused.is_none() {
                app.tally.pinned(self.pin);
            }
            self.tallied = true;
        }
    }

    /// Fails once a body without Content-Length has grown past `limits.max_body`.
    pub(super) fn body_within_limit(&mut self, read: usize) -> Result<()> {
        match self.max_body {
            Some(max) if read as u64 > max => {
                self.refuse(Reason::BodyTooLarge);
                Error::e_explain(ErrorType::HTTPStatus(413), "request body larger than limits.max_body")
            }
            _ => Ok(()),
        }
    }
}
