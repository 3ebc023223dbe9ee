//! Integration tests: the real binary before real backends. One test binary, because each one links Pingora again.
//!
//! `tests/run` installs what they need (Tomcat, HAProxy, Apache, nginx) and runs them; plain `cargo test` works once that is there.
//! `TIDEGATE_BINARY` names another binary to try than the one just built.
// Helpers here are test code that clippy's `allow-*-in-tests` does not recognise: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
// The harness is a toolbox: what a browser, an operator or a backend can do is there before the test that needs it.
#![allow(dead_code)]

mod adoption;
mod apache;
mod browser_deploy;
mod chromium;
mod client;
mod closing_tunnels;
mod cookies;
mod count_probe;
mod deadline;
mod deploy_tomcat;
mod drain_tomcat;
mod examples;
mod exchange;
mod failover;
mod failover_judged;
mod fate;
mod haproxy;
mod harness;
mod health;
mod http;
mod http2;
mod identity;
mod licences;
mod limits;
mod lives;
mod manual;
mod nginx;
mod origin;
mod outside;
mod packages;
mod page;
mod path_mapping;
mod pipeline;
mod process;
mod prometheus;
mod relay;
mod reload;
mod replay;
mod rolling_restart;
mod same_numbers;
mod scenarios;
mod shell;
mod shop;
mod speaker;
mod state;
mod stopping;
mod tidegate;
mod tls;
mod tomcat;
mod tunnels;
mod two_proxies;
mod upgrade;
mod waiting;
mod webhook;
mod websocket;
