//! One process per state directory.
//!
//! The lock belongs to an open file, not to a process: another process that is handed the descriptor has the lock with it, and
//! nobody can slip in between. It ends with the last descriptor, so a crash leaves none behind; what the file says of its owner
//! is for people only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::fault::StateError;
use crate::serve::secrets::{SecretError, make_directory};

/// The right to write in a state directory.
#[derive(Debug)]
pub struct StateLock {
    file: File,
    directory: PathBuf,
}

impl StateLock {
    /// Makes the directory if need be, and takes it. `admin` is where this process is spoken to, for whoever is refused.
    ///
    /// # Errors
    /// [`StateError::InUse`] names the owner; [`StateError::System`] when the directory cannot be used.
    pub fn take(directory: &Path, admin: &str) -> Result<StateLock, StateError> {
        make_directory(directory).map_err(|error| match error {
            SecretError::Directory { path, source } | SecretError::File { path, source } => StateError::System { path, source },
            SecretError::Keyring { .. } => StateError::System { path: directory.to_owned(), source: io::Error::other(error) },
        })?;
        let path = directory.join("lock");
        let fault = |source| StateError::System { path: path.clone(), source };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = options.map_err(fault)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner).map_err(fault)?;
                let owner = if owner.trim().is_empty() { "another process".to_owned() } else { owner.trim().to_owned() };
                return Err(StateError::InUse { path: directory.to_owned(), owner });
            }
            Err(errno) => return Err(fault(errno.into())),
        }
        let mut lock = StateLock { file, directory: directory.to_owned() };
        match lock.name_owner(admin) {
            // The lock is held by the file, whatever it says: a full disk is no reason not to start.
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(fault(error)),
            _ => Ok(lock),
        }
    }

    /// A lock that another process has handed over.
    ///
    /// # Errors
    /// What the system says when the descriptor is no file that can be written.
    pub fn from_fd(fd: OwnedFd, directory: &Path, admin: &str) -> io::Result<StateLock> {
        let mut lock = StateLock { file: fd.into(), directory: directory.to_owned() };
        match lock.name_owner(admin) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
            _ => Ok(lock),
        }
    }

    /// To be handed to another process.
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    /// The same, while it is kept: until one of the two is dropped both have it.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A second hold on it: the directory is free once both are dropped.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> io::Result<StateLock> {
        Ok(StateLock { file: self.file.try_clone()?, directory: self.directory.clone() })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Says in it whose it is, for whoever is refused.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn name_owner(&mut self, admin: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "process {} (admin {admin})", std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::state::tests::Scratch;

    #[test]
    fn a_second_owner_is_refused_and_told_of_the_first() {
        let scratch = Scratch::new("lock");
        let first = StateLock::take(scratch.path(), "http://127.0.0.1:9180").expect("nobody has it");
        let refused = StateLock::take(scratch.path(), "http://127.0.0.1:9181").expect_err("it is taken").to_string();
        let owner = format!("is in use by process {} (admin http://127.0.0.1:9180)", std::process::id());
        assert!(refused.contains(&owner), "{refused}");
        let handed = StateLock::from_fd(first.into_fd(), scratch.path(), "http://127.0.0.1:9182").expect("a file");
        let refused = StateLock::take(scratch.path(), "").expect_err("handed over, not given up").to_string();
        assert!(refused.contains("9182"), "{refused}");
        drop(handed);
        StateLock::take(scratch.path(), "").expect("given up");
    }
}
