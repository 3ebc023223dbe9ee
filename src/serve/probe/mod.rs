//! Probes: whether a backend is ready, asks for a soft stop, is silent or gone.
//!
//! | file | holds |
//! |---|---|
//! | `check` | one probe, as Pingora's `HealthCheck` |
//! | `cookies` | what a probe was given and sends back |
//!
//! What the answers make of a backend's health is decided in [`crate::model::health`], not here.

mod check;
mod cookies;
#[cfg(test)]
mod stub;

pub use check::{BackendProbe, Connectors, answer_of, connect_failure, describe};
