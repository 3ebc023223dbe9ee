//! What is started to take over, and where it calls.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::SOCKET_VARIABLE;

/// What is started, and with what.
#[derive(Clone, Debug)]
pub struct Program {
    /// As this process was started: another file may be there by now, and that is the point.
    pub path: PathBuf,
    /// Without the name.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// This program, to be started again. To be called early: later the path may name another directory.
    ///
    /// # Errors
    /// The system does not say where it is.
    pub fn current() -> io::Result<Program> {
        let mut words = std::env::args_os();
        // As it was typed: a link to the present version may point to the next one by then. The system knows only where it led.
        let typed = words.next().map(PathBuf::from).and_then(|typed| found(&typed));
        let path = typed.map_or_else(std::env::current_exe, Ok)?;
        // What was forced once, at a start, is not forced for ever.
        Ok(Program { path, arguments: words.filter(|argument| argument != "--force").collect() })
    }

    /// Starts it, to call at `socket`.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn start(&self, socket: &Path) -> io::Result<Newcomer> {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env(SOCKET_VARIABLE, socket).stdin(Stdio::null());
        command.spawn().map(|child| Newcomer(Some(child)))
    }
}

/// The file that a shell runs for this word.
fn found(typed: &Path) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let candidates = match typed.components().count() {
        1 if !typed.has_root() => std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| here.join(folder).join(typed)).collect(),
        _ => vec![here.join(typed)],
    };
    candidates.into_iter().find(|path| path.is_file())
}

/// A new process that is killed unless it is let go: one that hangs must not wake up later and take itself for the owner.
pub(super) struct Newcomer(Option<Child>);

impl Newcomer {
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.as_mut()?.try_wait().ok()?
    }

    pub fn let_go(mut self) -> u32 {
        self.0.take().map_or(0, |child| child.id())
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take()
            && let Err(error) = child.kill().and_then(|()| child.wait())
        {
            log::warn!("the new process cannot be ended: {error}");
        }
    }
}

/// Where the two meet: a socket in the state directory, which is this user's alone.
pub(super) struct Rendezvous {
    listener: UnixListener,
    pub path: PathBuf,
}

impl Rendezvous {
    pub fn open(directory: &Path) -> io::Result<Rendezvous> {
        let path = fs::canonicalize(directory)?.join("upgrade.sock");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Rendezvous { listener, path })
    }

    /// Whether somebody called.
    pub fn look(&self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) if is_own(&stream) => {
                stream.set_nonblocking(false)?;
                Ok(Some(stream))
            }
            Ok(_) => {
                log::warn!("upgrade: somebody else's process called and was turned away");
                Ok(None)
            }
            Err(error) if waits(&error) => Ok(None),
            Err(source) => Err(source),
        }
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

/// Of the same user: nobody else may enter the directory, and who is root needs no socket.
fn is_own(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

pub(super) fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
