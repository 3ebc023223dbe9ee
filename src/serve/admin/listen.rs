//! Opening the admin address. Done before the process reports ready, so that a taken port is an error at start and not a
//! line in the log.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::AdminAddress;

/// An open admin address.
#[derive(Debug)]
pub enum AdminListener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket; its file goes with it.
    Unix(UnixListener, SocketFile),
}

impl AdminListener {
    /// Opens `address`; a Unix socket for its owner only (0600).
    ///
    /// # Errors
    /// The address is taken or cannot be used; the message names it.
    pub async fn bind(address: &AdminAddress) -> io::Result<AdminListener> {
        let opened = match address {
            AdminAddress::Tcp(address) => TcpListener::bind(address).await.map(AdminListener::Tcp),
            AdminAddress::Unix(path) => unix(path).await,
        };
        opened.map_err(|error| io::Error::new(error.kind(), format!("admin address {address}: {error}")))
    }

    /// The port that the system chose; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            AdminListener::Tcp(listener) => listener.local_addr().ok(),
            AdminListener::Unix(..) => None,
        }
    }
}

async fn unix(path: &Path) -> io::Result<AdminListener> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
    }
    // A crash leaves the file behind. Renaming over it takes its place in one step, with the mode already right: under the final
    // name it never is open to others.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let listener = UnixListener::bind(&fresh)?;
    let ready = fs::set_permissions(&fresh, Permissions::from_mode(0o600)).and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = ready {
        fs::remove_file(&fresh)?;
        return Err(error);
    }
    let inode = fs::symlink_metadata(path)?.ino();
    Ok(AdminListener::Unix(listener, SocketFile { path: path.to_owned(), inode }))
}

/// Removes the socket's file when it is dropped, unless a successor has put its own there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::debug!("socket {}: {error}", self.path.display());
        }
    }
}
