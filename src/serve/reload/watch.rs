//! `server.watch`: the file is applied whenever it changes.
//!
//! Its directory is watched and not the file: editors write another file and rename it, and Kubernetes swaps a symbolic link beside
//! it. An event says only that it is worth a look; what counts is the file itself, once it has been the same for half a second, so
//! one that is still being written is not read. Where a file system sends no events (NFS), a look now and then finds the change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::Reloader;
use crate::config;

/// The file must have been the same for so long.
const QUIET: Duration = Duration::from_millis(500);
/// Between two looks while it changes.
const STEP: Duration = Duration::from_millis(100);
/// Between two looks without an event.
const IDLE: Duration = Duration::from_secs(5);
/// Between two looks whether watching was switched on by a reload.
const ASLEEP: Duration = Duration::from_secs(1);

/// What tells one state of a file from another without reading it: device, inode, length, time of the last change, also of its
/// permissions.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Watches on a thread of its own, for as long as the process runs; looks only while the applied file says `watch: true`.
pub fn start(reloader: Arc<Reloader>) {
    let thread = std::thread::Builder::new().name("watch".to_owned());
    if let Err(error) = thread.spawn(move || run(&reloader)) {
        log::error!("server.watch: no thread: {error}");
    }
}

fn run(reloader: &Reloader) {
    loop {
        let file = reloader.control().reloads.applied();
        match &file.path {
            Some(path) if file.config.server.watch => watch(reloader, path),
            _ => std::thread::park_timeout(ASLEEP),
        }
    }
}

/// Until a reload switches it off.
fn watch(reloader: &Reloader, path: &Path) {
    let (tell, events) = channel();
    let told = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is no change; and nobody listens once watching was switched off.
        if event.is_ok_and(|event| !event.kind.is_access()) && tell.send(()).is_err() {
            log::debug!("an event after the end of watching");
        }
    });
    let _watcher: Option<RecommendedWatcher> = match told {
        Ok(mut watcher) => {
            for directory in directories(path) {
                if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
                    log::warn!("server.watch: {}: {error}; it is looked at every {IDLE:?}", directory.display());
                }
            }
            Some(watcher)
        }
        Err(error) => {
            log::warn!("server.watch: {error}; the file is looked at every {IDLE:?}");
            None
        }
    };
    // What happened before the watch began may differ from what was applied.
    let mut seen: Stamp = None;
    while reloader.control().reloads.applied().config.server.watch {
        if reloader.control().is_frozen() {
            // An upgrade: where it fails, the edit is looked at after it.
            std::thread::park_timeout(ASLEEP);
            continue;
        }
        let now = settled(path, seen);
        if now != seen {
            seen = now;
            if now.is_some() && changed(reloader, path) {
                reloader.reload_and_log("server.watch");
            }
        }
        wait(&events);
    }
}

/// That of the file, and of the one it is a link to.
fn directories(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut all = vec![parent(path)];
    if let Ok(real) = path.canonicalize() {
        all.push(parent(&real));
    }
    all.dedup();
    all
}

fn wait(events: &Receiver<()>) {
    match events.recv_timeout(IDLE) {
        Ok(()) => while events.try_recv().is_ok() {},
        Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(IDLE),
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

/// Waits until the file has been the same for [`QUIET`]; at once where it is as it was `seen`.
fn settled(path: &Path, seen: Stamp) -> Stamp {
    let (mut last, mut since) = (stamp(path), Instant::now());
    while last != seen && since.elapsed() < QUIET {
        std::thread::park_timeout(STEP);
        let now = stamp(path);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// A file that was only touched is not worth a line in the log.
fn changed(reloader: &Reloader, path: &Path) -> bool {
    // One that cannot be read is reloaded too: the reload says why not.
    config::read_regular(path).map_or(true, |text| text != reloader.control().reloads.applied().text.as_bytes())
}
