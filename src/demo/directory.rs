//! A directory of the demo's own, gone with it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A temporary directory that is removed with its content when it is dropped.
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes one that only this user can look into: the admin token will be in it.
    ///
    /// # Errors
    /// It cannot be made, or somebody else has put something in its place.
    pub fn new() -> io::Result<Directory> {
        // Short, since people will type it; random, since another user of this machine must not get there first.
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let path = std::env::temp_dir().join(format!("tidegate-demo-{:08x}", u32::from_ne_bytes(bytes)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Directory(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!("{} stays behind: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_its_content() {
        let directory = Directory::new().unwrap();
        let path = directory.path().to_owned();
        std::fs::write(path.join("token"), "secret").unwrap();
        drop(directory);
        assert!(!path.exists());
    }
}
