//! The rules: pure code without I/O, clocks, dice or logs. Time and chance are arguments.

pub mod admission;
pub mod event;
pub mod gate;
pub mod health;
pub mod reason;
pub mod routes;
pub mod settings;
pub mod tally;
pub mod time;
