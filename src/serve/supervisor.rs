//! What a supervisor is told that asks for it by `NOTIFY_SOCKET` (systemd's `Type=notify`, `sd_notify(3)`).
//!
//! An upgrade changes the process id: without a word the supervisor takes the end of the old process for the end of the service.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// What happens to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Clients are accepted.
    Ready,
    /// The configuration is read again; [`News::Ready`] follows.
    Reloading,
    /// SIGTERM or the like.
    Stopping,
    /// Another process is the one to look after. It is told by the old one, which is the one that is believed.
    Successor(u32),
}

impl News {
    fn words(self) -> String {
        match self {
            News::Ready => "READY=1".to_owned(),
            News::Reloading => {
                let now = clock_gettime(ClockId::Monotonic);
                format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000)
            }
            News::Stopping => "STOPPING=1".to_owned(),
            News::Successor(pid) => format!("MAINPID={pid}\nREADY=1"),
        }
    }
}

/// Tells the supervisor, if there is one that wants to know.
pub fn tell(news: News) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, &news.words()) {
        log::warn!("the supervisor at {} cannot be told {news:?}: {error}", socket.display());
    }
}

fn send(socket: &OsStr, words: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_reach_a_socket_by_path_or_by_abstract_name() {
        let name = format!("tidegate-supervisor-{}", std::process::id());
        let path = env::temp_dir().join(&name);
        let receivers = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).expect("a socket")),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a short name")).expect("a socket"),
            ),
        ];
        for (address, receiver) in receivers {
            send(&address, &News::Successor(42).words()).expect("somebody listens");
            let mut buffer = [0; 100];
            let length = receiver.recv(&mut buffer).expect("a message");
            assert_eq!(&buffer[..length], b"MAINPID=42\nREADY=1");
        }
        std::fs::remove_file(path).expect("it is there");
    }
}
