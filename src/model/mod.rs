//! The rules: pure code without I/O, clocks, dice or logs. Time and chance are arguments.

pub mod admission;
pub mod attendance;
pub mod backend;
pub mod balance;
pub mod change;
pub mod count;
pub mod deadline;
pub mod decide;
pub mod drain;
pub mod event;
pub mod facts;
pub mod forecast;
pub mod gate;
pub mod health;
pub mod identity;
pub mod incarnation;
pub mod ledger;
pub mod memory;
pub mod octets;
pub mod path_map;
pub mod pin;
pub mod reason;
pub mod replay;
pub mod retry;
pub mod routes;
pub mod session_key;
pub mod settings;
#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(crate) mod sketch;
pub mod spelling;
pub mod tally;
pub mod target;
pub mod time;
pub mod view;
pub mod visit;
#[cfg(test)]
pub(crate) mod xorshift;
