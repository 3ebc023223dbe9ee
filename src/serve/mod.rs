//! The shell: everything that touches sockets, clocks and Pingora. Rules live in `model`; here they are only carried out.

pub mod access_log;
pub mod admin;
pub mod clock;
pub mod control;
mod date;
pub mod exchange;
mod forecasts;
pub mod history;
pub mod keeping;
pub mod open_tunnels;
pub mod operator;
mod outbound;
mod past;
mod present;
pub mod probe;
pub mod reload;
pub mod remembered;
pub mod secrets;
mod server;
pub mod state;
pub mod supervisor;
pub mod transport;
pub mod upgrade;
pub mod webhook;

pub use server::{Origin, Server, StartError};
