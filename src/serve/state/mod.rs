//! The state file: what must outlive the process, in an embedded SQLite database of the state directory.
//!
//! A file that is damaged, foreign or of a later version is refused and left as it is: what cannot be read today may be the only
//! trace of a thousand sessions. So every check comes before the first write, and a refused file is not even checkpointed.
//!
//! | file | holds |
//! |---|---|
//! | `fault` | why a state cannot be had, and the way out |
//! | `file` | the open file: reading, transactions |
//! | `lock` | one process per directory |
//! | `moment` | how long nobody was here, and clocks that jumped meanwhile |
//! | `opening` | checks, and a new file |
//! | `rows` | tables, and how a session looks in them |
//! | `writer` | the thread that writes |

mod fault;
mod file;
mod lock;
mod moment;
mod opening;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

pub use fault::StateError;
pub use file::{Remains, Restored, StateFile};
pub use lock::StateLock;
pub use moment::Shift;
pub use rows::Place;
pub use writer::{Keeper, StateSource, WriteFailures};
