//! tidegate: a load balancer for web applications that keep sessions in memory.
//!
//! | module | holds |
//! |---|---|
//! | [`api`] | what the admin port speaks |
//! | [`config`] | the YAML file, checked: all problems at once |
//! | [`model`] | the rules, without I/O, clocks or dice |
//! | [`serve`] | the shell: sockets, Pingora, clocks |

pub mod api;
pub mod cli;
pub mod config;
pub mod model;
pub mod serve;
