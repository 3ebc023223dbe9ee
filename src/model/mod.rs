//! The rules: pure code without I/O, clocks, dice or logs. Time and chance are arguments.

pub mod identity;
pub mod octets;
pub mod path_map;
pub mod pin;
pub mod session_key;
pub mod settings;
pub mod time;
#[cfg(test)]
pub(crate) mod xorshift;
