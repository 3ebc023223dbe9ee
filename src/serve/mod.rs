//! The shell: Pingora glue, probes, the one timer, the live snapshot, admin API and metrics.

pub mod admin;
pub mod clock;
pub mod control;
