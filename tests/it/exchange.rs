//! One request and its answer on the wire: what the backend sees, what the client gets, what is written down.
//!
//! Where a claim is about bytes, a [`Wire`](crate::client::Wire) speaks; a browser would hide what it repairs.

mod answers;
mod heads;
mod log;
