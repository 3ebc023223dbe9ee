//! tidegate: a load balancer for web applications that keep sessions in memory.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | the rules, without I/O, clocks or dice |

pub mod model;
