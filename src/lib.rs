//! tidegate: a load balancer for web applications that keep sessions in memory.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | the rules, without I/O, clocks or dice |
//! | [`serve`] | the shell: sockets, Pingora, clocks |

pub mod model;
pub mod serve;
