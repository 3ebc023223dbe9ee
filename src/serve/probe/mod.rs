//! Probes: whether a backend is ready, asks for a soft stop, is silent or gone.
//!
//! | file | holds |
//! |---|---|
//! | `prober` | who is watched: follows the snapshot |
//! | `watch` | one backend under watch: when to probe it, what becomes of it |
//! | `check` | one probe, as Pingora's `HealthCheck` |
//! | `count` | asks a backend for its number of sessions |
//! | `cookies` | what a probe was given and sends back |
//! | `resolver` | from a host name to an address |
//!
//! What the answers make of a backend's health is decided in [`crate::model::health`], not here.

mod check;
mod cookies;
mod count;
mod prober;
mod resolver;
#[cfg(test)]
mod stub;
mod watch;
mod witness;

pub use crate::model::health::ConnectFailure;
pub use check::{BackendProbe, answer_of, describe};
pub use prober::Prober;
