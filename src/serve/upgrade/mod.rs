//! Another binary takes over without a connection or a session lost.
//!
//! The old process starts the new one, hands it everything it needs to be ready, and goes on serving meanwhile; only a process that
//! has said that it is ready is told to serve, and only one that has said that it serves is left alone with the clients. In every
//! other case the old one goes on as if nothing had been.
//!
//! | module | holds |
//! |---|---|
//! | `link` | sessions that either learns of during the overlap |
//! | `newcomer` | what is started, and where it calls |
//! | `overlap` | questions of one process to the other, while both serve |
//! | `packed` | sessions in bytes |
//! | `predecessor` | the old process |
//! | `successor` | the new process |
//! | `wire` | what the two say to each other |

pub mod link;
mod newcomer;
pub mod overlap;
mod packed;
mod predecessor;
mod successor;
pub mod wire;

pub use newcomer::Program;
pub use predecessor::{Predecessor, Progress, UpgradeError};
pub use successor::Succession;

/// Where the old process waits for the new one; set for a process that is to take over, and for no other.
pub const SOCKET_VARIABLE: &str = "TIDEGATE_UPGRADE_SOCKET";
