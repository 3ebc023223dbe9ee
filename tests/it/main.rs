//! Integration tests: the real binary before real backends. One test binary, because each one links Pingora again.
//!
//! `tests/run` installs what they need (Tomcat, HAProxy) and runs them; plain `cargo test` works once that is there.
//! `TIDEGATE_BINARY` names another binary to try than the one just built.
// Helpers here are test code that clippy's `allow-*-in-tests` does not recognise: a panic is how they fail.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
// The harness is a toolbox: what a browser, an operator or a backend can do is there before the test that needs it.
#![allow(dead_code)]

mod client;
mod cookies;
mod deploy_tomcat; // needs the proxy: uncomment when it lands
mod haproxy;
mod harness;
mod http;
mod origin;
mod process;
mod scenarios; // needs the proxy: uncomment when it lands
mod shop;
mod tidegate;
mod tomcat;
mod websocket;
