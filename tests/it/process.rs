//! Child processes, free ports, scratch directories and waiting, for everything the tests start.
//!
//! A child gets its own process group and dies with its [`Process`] value, also when the test panics;
//! but not when the test binary itself is killed with SIGKILL.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How much of a log a failure shows: its last bytes.
const LOG_TAIL: usize = 3_000;
/// Ports below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes one
/// between two lives of a backend.
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 20_000;

/// A running child process, killed with its whole group on drop.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
    has_heirs: bool,
}

impl Process {
    /// Starts `command` with its output appended to `log`. Panics with the remedy when the program is missing.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Process {
        let out = File::options().create(true).append(true).open(log).expect("the log file is writable");
        let err = out.try_clone().expect("a file handle can be duplicated");
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{name}: {:?} did not start: {error}; `tests/run` installs what the tests need", command.get_program())
        });
        Process { name: name.to_owned(), child, log: log.to_owned(), ended: None, has_heirs: false }
    }

    /// The process id as the operating system shows it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone, not to its group.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{}: has ended already", self.name);
        kill_process(self.pid(), signal).unwrap_or_else(|error| panic!("{}: signal not sent: {error}", self.name));
    }

    /// SIGSTOP, and waits until every thread has stopped: the signal itself only asks for it.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        wait_for(&format!("{} stands still", self.name), Duration::from_secs(10), || {
            let threads = fs::read_dir(format!("/proc/{}/task", self.id())).expect("the process runs");
            threads.flatten().all(|thread| {
                let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('T'))
            })
        });
    }

    /// It may have started others, in its group, that outlive it: they end with this value too.
    pub fn has_heirs(&mut self) {
        self.has_heirs = true;
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child can be waited for");
        }
        self.ended
    }

    /// Waits for the end; panics with the log when it does not come in time.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "{}: still running after {timeout:?}\n{}", self.name, self.log_tail());
            pause_briefly();
        }
    }

    /// SIGTERM, then the end within `timeout`.
    pub fn terminate(&mut self, timeout: Duration) -> ExitStatus {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
        }
        self.wait(timeout)
    }

    /// SIGKILL to the group, and waits until it is gone. Works on a stopped process too.
    pub fn kill(&mut self) {
        if self.ended().is_some() {
            if self.has_heirs {
                kill_process_group(self.pid(), Signal::KILL).ok();
            }
        } else {
            // The group may be gone between the check and the signal: nothing to do then.
            kill_process_group(self.pid(), Signal::KILL).ok();
            self.wait(Duration::from_secs(10));
        }
    }

    /// Panics with the log when the process has ended; for loops that wait for something it should do.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{}: ended with {:?} (signal {:?})\n{}", self.name, status.code(), status.signal(), self.log_tail());
        }
    }

    /// The end of what the process wrote, headed by the file's name.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
            if self.has_heirs {
                kill_process_group(self.pid(), Signal::KILL).ok();
            }
            if self.ended().is_none() {
                // `kill` could panic a second time and abort the whole run.
                kill_process_group(self.pid(), Signal::KILL).ok();
                self.child.wait().ok();
            }
        } else {
            self.kill();
        }
    }
}

/// The last bytes of a log file, headed by its name.
pub fn log_tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let from = text.len().saturating_sub(LOG_TAIL);
    format!("--- {} ---\n{}", path.display(), String::from_utf8_lossy(&text[from..]))
}

/// A port that nobody listened on a moment ago. Another process may take it before the caller does:
/// whoever starts a child on it retries with a new one.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test binaries at once begin at different places.
    let start = (std::process::id() % 97) as u16 * 200;
    for _ in 0..PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + (start.wrapping_add(step)) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST_PORT} and {}", FIRST_PORT + PORTS);
}

/// Polls until `condition` holds; panics with `what` when it does not within `timeout`.
#[track_caller]
pub fn wait_for(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    wait_for_some(what, timeout, || condition().then_some(()));
}

/// Polls until `find` gives something; panics with `what` when it does not within `timeout`.
#[track_caller]
pub fn wait_for_some<T>(what: &str, timeout: Duration, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {timeout:?} in vain until {what}");
        pause_briefly();
    }
}

/// Polls until `read` gives `expected`; the failure shows what it gave last.
#[track_caller]
pub fn wait_until_equal<T: PartialEq + std::fmt::Debug>(what: &str, timeout: Duration, expected: &T, mut read: impl FnMut() -> T) {
    let deadline = Instant::now() + timeout;
    loop {
        let seen = read();
        if seen == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "waited {timeout:?} in vain until {what}: expected {expected:?}, last seen {seen:?}");
        pause_briefly();
    }
}

/// One step of a polling loop, and a script's own delay in [`delay`]: the only places that sleep.
fn pause_briefly() {
    delay(Duration::from_millis(20));
}

/// Whether figures are to be those that are published: more of everything, and longer.
pub fn takes_long() -> bool {
    std::env::var_os("TIDEGATE_LONG").is_some()
}

/// What a scripted backend does when a test asks it to be slow. Never for waiting for somebody else.
#[allow(clippy::disallowed_methods)] // a test thread of its own, no worker of the proxy
pub fn delay(duration: Duration) {
    std::thread::sleep(duration);
}

/// A directory of its own, removed on drop unless the test fails: then its path is printed.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory; `name` helps to recognise it.
    pub fn new(name: &str) -> Scratch {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-it-{}-{count}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file below it, with its folders, and says where.
    pub fn write(&self, file: &str, content: &str) -> PathBuf {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().expect("a file has a folder"))
            .and_then(|()| fs::write(&path, content))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for inspection: {}", self.0.display());
        } else {
            // A leftover in the temporary directory is no reason to fail a test.
            fs::remove_dir_all(&self.0).ok();
        }
    }
}

/// For a test that mounts, changes users or makes namespaces.
pub fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts and changes users: run `tests/run` as root, in a container for instance"
    );
}

/// Names of required programs that are not installed, so that a test can fail with the remedy.
pub fn require_file(path: &str, debian_package: &str) {
    assert!(Path::new(path).exists(), "{path} is missing: `tests/run` installs it, or `apt-get install {debian_package}`");
}
