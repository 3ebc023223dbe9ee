//! tidegate: a load balancer for web applications that keep sessions in memory.
//!
//! | module | holds |
//! |---|---|
//! | [`api`] | what the admin port speaks |
//! | [`cli`] | the command line: a subcommand is an admin call |
//! | [`config`] | the YAML file, checked: all problems at once |
//! | [`demo`] | `tidegate demo`: a sample app, simulated users and a deploy, live in the terminal |
//! | [`model`] | the rules, without I/O, clocks or dice |
//! | [`serve`] | the shell: sockets, Pingora, clocks |

pub mod api;
pub mod cli;
pub mod config;
pub mod demo;
pub mod model;
pub mod serve;
