//! Why a state cannot be had. Each message names the file and the way out, since whoever reads it wants to start, now.

use std::io;
use std::path::PathBuf;

/// What it costs to start without the file.
const WAY_OUT: &str = "users then come back by their pins, and counts are a lower bound for one idle timeout";

/// Why a state file cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has the directory.
    #[error("state directory {path} is in use by {owner}; stop it first, or set another state.directory")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// As in `process 1234 (admin http://127.0.0.1:9180)`.
        owner: String,
    },
    /// The directory or a file in it cannot be made, read or written.
    #[error("state: {path}: {source}; it must be writable for this user and on a disk that is not full, or set another state.directory")]
    System {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no file of ours.
    #[error("state file {path} was not written by tidegate; move it away, or set another state.directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later version wrote it.
    #[error(
        "state file {path} has format {found}, this version knows up to {known}; run the later version again, or start without it: \
         mv {path} {path}.later; {WAY_OUT}"
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The latest that is known here.
        known: u32,
    },
    /// It is not what was written.
    #[error("state file {path} is damaged ({what}) and was left as it is; to start without it: mv {path} {path}.damaged; {WAY_OUT}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}
