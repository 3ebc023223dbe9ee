//! The signed pin: which release and backend a session belongs to, told to us by the client. It is believed only because
//! of its signature, and it says names and times, never list positions or counters: two proxies with the same keys and
//! differently ordered files must read the same.

mod keyring;
mod recent;
mod wire;

use std::fmt;
use std::time::Duration;

pub use keyring::{Keyring, KeyringFault, MAX_KEY_ID_BYTES, MIN_SECRET_BYTES};
pub use recent::KnownPin;
pub use wire::MAX_NAME_BYTES;

use super::identity::{PinAttributes, SameSite};
use super::reason::PinResult;
use super::time::Time;

/// A pin to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin<'a> {
    /// At most 64 bytes.
    pub release: &'a str,
    /// At most 64 bytes.
    pub backend: &'a str,
    /// [`Keyring::binding`] of the session id, `None` before there is a session. A pin bound to another id is none.
    pub binding: Option<[u8; 16]>,
    /// When the session was pinned there; where ledger and pin disagree, the later one wins. Kept in whole seconds.
    pub issued: Time,
    /// When the client was last seen, as of the last refresh. Kept in whole seconds.
    pub seen: Time,
    /// Of the cookie that carries the pin, so that a refresh can repeat them.
    pub attributes: PinAttributes<'a>,
}

/// A pin whose signature holds. The names are copies on the stack, at most 64 bytes each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifiedPin {
    release: wire::Name,
    backend: wire::Name,
    /// As in [`Pin`]; ask [`Keyring::is_bound`], which knows the key that made it.
    pub binding: Option<[u8; 16]>,
    /// As in [`Pin`].
    pub issued: Time,
    /// As in [`Pin`].
    pub seen: Time,
    domain: Option<wire::Name>,
    same_site: Option<SameSite>,
    secure: bool,
    partitioned: bool,
    expires: Option<Time>,
    /// Which key of the keyring signed it.
    key: usize,
}

/// Why a value is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinFault {
    /// Not of our making.
    Malformed,
    /// Signed with a key that is not, or no longer, configured.
    UnknownKey,
    /// Altered, or another app's.
    BadSignature,
}

impl PinFault {
    /// The label `result` of `tidegate_pins_total`.
    pub fn result(self) -> PinResult {
        match self {
            PinFault::Malformed | PinFault::BadSignature => PinResult::Forged,
            PinFault::UnknownKey => PinResult::Unknown,
        }
    }
}

impl VerifiedPin {
    /// The release's name.
    pub fn release(&self) -> &str {
        self.release.as_str()
    }

    /// The backend's name.
    pub fn backend(&self) -> &str {
        self.backend.as_str()
    }

    /// The attributes its cookie was set with.
    pub fn attributes(&self) -> PinAttributes<'_> {
        PinAttributes {
            domain: self.domain.as_ref().map(wire::Name::as_str),
            same_site: self.same_site,
            secure: self.secure,
            partitioned: self.partitioned,
            expires: self.expires,
        }
    }

    /// The same pin with another last-seen, to be signed again with the first key. `session_id` must be the one it [is
    /// bound](Keyring::is_bound) to, if it is bound: another key binds differently.
    pub fn refreshed(&self, now: Time, keyring: &Keyring, session_id: Option<&[u8]>) -> Pin<'_> {
        let binding = match session_id {
            Some(id) if self.binding.is_some() => keyring.binding(id),
            _ => self.binding,
        };
        Pin { release: self.release(), backend: self.backend(), binding, issued: self.issued, seen: now, attributes: self.attributes() }
    }

    /// Whether the client should get a fresh pin: this one's last-seen is older than a tenth of the idle timeout, or an old key
    /// signed it. More often would make answers uncacheable for nothing; less often would let a proxy without the ledger
    /// take a living session for an idle one.
    pub fn needs_refresh(&self, now: Time, idle_timeout: Duration) -> bool {
        self.key > 0 || now.since(self.seen) > idle_timeout / 10
    }
}

impl fmt::Debug for VerifiedPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedPin({}/{}", self.release(), self.backend())?;
        write!(f, ", issued {}, seen {}, key {})", self.issued.as_secs(), self.seen.as_secs(), self.key)
    }
}
