//! The rules: pure code without I/O, clocks, dice or logs. Time and chance are arguments.

pub mod ledger;
pub mod session_key;
pub mod settings;
pub mod tally;
pub mod target;
pub mod time;
pub mod view;
#[cfg(test)]
pub(crate) mod xorshift;
