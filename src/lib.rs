//! tidegate: a load balancer for web applications that keep sessions in memory.
//!
//! | module | holds |
//! |---|---|
//! | [`api`] | what the admin port speaks |
//! | [`cli`] | the command line: a subcommand is an admin call |
//! | [`model`] | the rules, without I/O, clocks or dice |
//! | [`serve`] | the shell around them |



pub mod api;
pub mod cli;
pub mod config;
pub mod model;
pub mod serve;
