//! The name under which the model knows a session. It is never the id itself: whoever makes a key hashes the id with
//! a secret first, so a memory dump, a log or a state file gives no session away.

/// 128 bits of keyed hash of a session id.
///
/// Already uniform and unpredictable to clients, so tables use its bytes as their hash without hashing again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey(pub [u8; 16]);
