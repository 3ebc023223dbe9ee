//! Opening the admin address. Done before the process reports ready, so that a taken port is an error at start and not a
//! line in the log.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;

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

    /// Takes over the socket on which the process before answered at the same address. To be called within a tokio runtime.
    ///
    /// # Errors
    /// It is no such socket.
    pub fn adopt(address: &AdminAddress, socket: OwnedFd) -> io::Result<AdminListener> {
        match address {
            AdminAddress::Tcp(_) => {
                let listener = std::net::TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(AdminListener::Tcp)
            }
            AdminAddress::Unix(path) => {
                let listener = std::os::unix::net::UnixListener::from(socket);
                listener.set_nonblocking(true)?;
                let file = SocketFile::of(path)?;
                // Still that of the process before, which goes on answering there if this one comes to nothing.
                file.left.store(true, Ordering::Release);
                Ok(AdminListener::Unix(UnixListener::from_std(listener)?, file))
            }
        }
    }

    /// A second descriptor of the socket, for a successor. While it lives the kernel goes on completing connections.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match self {
            AdminListener::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            AdminListener::Unix(listener, _) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// Whether the file of a Unix socket stays when this ends, for another process answers there.
    pub fn left_to_successor(&self) -> Arc<AtomicBool> {
        match self {
            AdminListener::Tcp(_) => Arc::default(),
            AdminListener::Unix(_, file) => Arc::clone(&file.left),
        }
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
    Ok(AdminListener::Unix(listener, SocketFile::of(path)?))
}

/// A listener that does not accept while it is told to pause; connections wait in its backlog.
pub struct Pausable<L> {
    listener: L,
    paused: watch::Receiver<bool>,
}

impl<L> Pausable<L> {
    /// Pauses while `paused` says so.
    pub fn new(listener: L, paused: watch::Receiver<bool>) -> Pausable<L> {
        Pausable { listener, paused }
    }
}

impl<L: axum::serve::Listener> axum::serve::Listener for Pausable<L> {
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (L::Io, L::Addr) {
        loop {
            // Whoever could pause it is gone: it never will be.
            if self.paused.wait_for(|paused| !paused).await.is_err() {
                return self.listener.accept().await;
            }
            tokio::select! {
                accepted = self.listener.accept() => return accepted,
                _ = self.paused.wait_for(|paused| *paused) => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// Removes the socket's file when it is dropped, unless a successor has put its own there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
    left: Arc<AtomicBool>,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino(), left: Arc::default() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = !self.left.load(Ordering::Acquire) && fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            log::debug!("socket {}: {error}", self.path.display());
        }
    }
}
