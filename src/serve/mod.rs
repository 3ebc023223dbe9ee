//! The shell: everything that touches sockets, clocks and Pingora. Rules live in `model`; here they are only carried out.

pub mod admin;
pub mod clock;
pub mod control;
pub mod probe;
pub mod secrets;
pub mod transport;

