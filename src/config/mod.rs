//! The configuration file: YAML in, checked settings out, or every problem at once with line, place and remedy.
//!
//! What an app does is the model's ([`AppSpec`]); here is only what the process around it needs. Nothing is resolved, opened or
//! listened on: a configuration without problems can still meet a busy port.
//!
//! | module | holds |
//! |---|---|
//! | `tree` | the YAML with its lines, within budgets |
//! | `keys` | every key once: place, default, a sentence |
//! | `read` | typed readers that collect problems |
//! | `process`, `app`, `session`, `webhook` | the sections |
//! | [`scalar`] | the notations: `30s`, `64MiB`, `10.0.0.5:8080` |
//! | `export` | the way back to YAML |
//! | `reference` | `conf/reference.yaml`, from the table of keys |

mod app;
mod export;
#[cfg(test)]
mod hostile;
mod keys;
mod problem;
mod process;
mod read;
mod reference;
pub mod scalar;
mod session;
#[cfg(test)]
mod tests;
mod tree;
mod webhook;

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use self::export::export;
pub use self::problem::{Problem, Problems, Wrong};
use self::problem::{Report, quote};
use self::read::{Context, Field};
pub use self::reference::reference;
use crate::model::settings::AppSpec;

/// Everything that the file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The process.
    pub server: Server,
    /// Where clients connect; at least one when it comes from a file.
    pub listeners: Vec<Listener>,
    /// Where operators connect.
    pub admin: Admin,
    /// What survives a restart.
    pub state: State,
    /// Whose `X-Forwarded-*` count.
    pub trusted_proxies: Vec<IpNet>,
    /// In the order of the file; names are unique, and so are matches.
    pub apps: Vec<AppSpec>,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Longest wait for exchanges under way at SIGTERM.
    pub grace_period: Duration,
    /// How long SIGTERM is only announced, by `/readyz`: clients are accepted as before.
    pub lame_duck: Duration,
    /// Longest wait for each step of a successor before it is given up.
    pub upgrade_timeout: Duration,
    /// Longest time a client may take to send the header of a request.
    pub header_timeout: Duration,
    /// One line per exchange.
    pub access_log: Option<AccessLog>,
    /// Whether the file is applied whenever it changes.
    pub watch: bool,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            threads: cores(),
            grace_period: Duration::from_secs(30),
            lame_duck: Duration::ZERO,
            upgrade_timeout: Duration::from_secs(30),
            // Enough for a phone in a tunnel; an attacker who trickles headers keeps a connection no longer than this.
            header_timeout: Duration::from_secs(10),
            access_log: Some(AccessLog::default()),
            watch: false,
        }
    }
}

/// The cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where exchanges are written, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLog {
    /// Where to.
    pub path: LogTarget,
    /// How.
    pub format: LogFormat,
}

/// Where a log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// How an exchange is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A JSON object per line.
    #[default]
    Json,
    /// Apache's combined log format.
    Combined,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Port 0 lets the system choose.
    pub address: SocketAddr,
    /// Plain HTTP without.
    pub tls: Option<ListenerTls>,
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// At least one; the first is for clients that ask for no name or for an unknown one.
    pub certificates: Vec<Certificate>,
}

/// A certificate with its key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// The private key, when it is not in the certificate's file.
    pub key: Option<PathBuf>,
}

/// Where operators connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Not loopback only together with a token file.
    pub address: AdminAddress,
    /// May not exist yet.
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Admin { address: AdminAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 9180))), token_file: None }
    }
}

/// A TCP or Unix address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// IP and port.
    Tcp(SocketAddr),
    /// An absolute path that fits into a socket address.
    Unix(PathBuf),
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddress::Tcp(address) => address.fmt(f),
            AdminAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What survives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Made when it does not exist.
    pub directory: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        State { directory: PathBuf::from("./tidegate-state") }
    }
}

impl State {
    /// As [`State::default`], but for a service whose supervisor has made a directory (systemd's `StateDirectory=`) and says so in
    /// `STATE_DIRECTORY`: such a process may often write nowhere else. Of several, separated by colons, the first.
    fn of_service(named: Option<&OsStr>) -> State {
        let first = named.and_then(|paths| std::env::split_paths(paths).next());
        first.filter(|path| path.is_absolute()).map_or_else(State::default, |directory| State { directory })
    }
}

/// A file that was read and checked.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its content, as it was at that moment.
    pub text: String,
    /// What it says.
    pub config: Config,
}

/// Reads and checks a file, and whether the certificates and keys it names can be read. Relative paths are the process's own.
///
/// # Errors
/// Every problem of the file, or that it cannot be read.
pub fn load(path: &Path) -> Result<Config, Problems> {
    read_source(path).map(|source| source.config)
}

/// As [`load`], with the text.
///
/// # Errors
/// As [`load`].
pub fn read_source(path: &Path) -> Result<Source, Problems> {
    source(path, bounded(path))
}

/// As [`read_source`], for a process that serves: it never waits, so a pipe is refused, and so is a file that is being written.
///
/// # Errors
/// As [`load`].
pub fn read_source_again(path: &Path) -> Result<Source, Problems> {
    source(path, read_regular(path))
}

fn source(path: &Path, bytes: io::Result<Vec<u8>>) -> Result<Source, Problems> {
    let name = path.display().to_string();
    let bytes = bytes.map_err(|error| {
        let what = format!("the file cannot be read: {error}");
        Problems::one(&name, 1, Wrong::new(what, "check the path given with -c, and that this user may read it"))
    })?;
    if bytes.len() > tree::MAX_BYTES {
        return Err(Problems::one(&name, 1, tree::too_big()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|b| **b == b'\n').count();
        Problems::one(&name, line, Wrong::new("a byte in this line is not UTF-8", "save the file as UTF-8"))
    })?;
    parse_with(&text, &name, &length_of).map(|config| Source { text, config })
}

/// Checks `text` without touching a disk; `file_name` is only for the problems.
///
/// # Errors
/// Every problem of the text.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Problems> {
    parse_with(text, file_name, &|_| Ok(u64::MAX))
}

fn parse_with(text: &str, file_name: &str, files: &dyn Fn(&Path) -> io::Result<u64>) -> Result<Config, Problems> {
    let report = Report::new(file_name);
    let config = tree::read(text, &report).and_then(|tree| {
        let context = Context { report: &report, files };
        let root = Field::root(&context, &tree);
        root.section(process::config)
    });
    match config {
        Some(config) => report.finish(config),
        None => {
            debug_assert!(report.count() > 0, "no configuration, and nobody said why");
            report.finish(Config::default())
        }
    }
}

/// The content of a regular file, and not much more than the limit of another: a mistyped path may be a disk.
fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = tree::MAX_BYTES as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The content of a regular file, and not much more than the limit of another, without ever waiting for anybody.
///
/// # Errors
/// It cannot be read, is no regular file, or was written meanwhile.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let before = file.metadata()?;
    if !before.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    (&file).take(tree::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let after = file.metadata()?;
    if before.modified()? != after.modified()? || before.len() != after.len() {
        return Err(io::Error::other("it was written while it was read"));
    }
    Ok(bytes)
}

/// The length of a file that can be read. Asked before opening, since opening a pipe would wait for its writer.
fn length_of(path: &Path) -> io::Result<u64> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other(format!("{} is not a regular file", quote(&path.display().to_string()))));
    }
    Ok(File::open(path)?.metadata()?.len())
}
