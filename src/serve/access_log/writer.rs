//! The thread that writes the access log.
//!
//! While records come it looks at its queue every few milliseconds in place of waiting for each: a sleeping receiver
//! costs every sender a system call, and the senders are exchanges.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::{AccessLogError, Item, Shared, line};
use crate::config::{LogFormat, LogTarget};

/// Between two looks at the queue: at 8192 records the queue holds 1.6 million exchanges per second for so long.
const LOOK: Duration = Duration::from_millis(5);
/// Looks without a record, until the thread goes to sleep: a tenth of a second.
const QUIET_LOOKS: u32 = 20;
/// Written in one go: what a pipe holds on Linux.
const BATCH: usize = 64 * 1024;
/// Between two complaints about lost records.
const COMPLAIN: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Debug)]
pub enum Sink {
    Stdout,
    Stderr,
    File(PathBuf, File),
}

impl Sink {
    pub fn open(target: &LogTarget) -> Result<Sink, AccessLogError> {
        Ok(match target {
            LogTarget::Stdout => Sink::Stdout,
            LogTarget::Stderr => Sink::Stderr,
            LogTarget::File(path) => {
                let file = append(path).map_err(|source| AccessLogError::Open { path: path.clone(), source })?;
                Sink::File(path.clone(), file)
            }
        })
    }

    /// Keeps the old file when the new one cannot be had: its lines are still worth something.
    fn reopen(&mut self) {
        if let Sink::File(path, file) = self {
            match append(path) {
                Ok(new) => *file = new,
                Err(e) => log::error!("access log {}: {e}; still writing to the file that was open", path.display()),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Sink::Stderr => io::stderr().lock().write_all(bytes),
            Sink::File(_, file) => file.write_all(bytes),
        }
    }
}

/// Readable by the group, as Debian's web servers do it: addresses of users are nobody else's business.
fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

pub struct Writer {
    items: Receiver<Item>,
    sink: Sink,
    format: LogFormat,
    shared: Arc<Shared>,
    batch: Vec<u8>,
    /// Records in the batch.
    records: u64,
    /// Lost records that were already complained about.
    told: u64,
    complained: Option<Instant>,
    /// Why the last write failed.
    fault: Option<io::Error>,
}

impl Writer {
    pub fn new(items: Receiver<Item>, sink: Sink, format: LogFormat, shared: Arc<Shared>) -> Writer {
        let batch = Vec::with_capacity(BATCH + 4096);
        Writer { items, sink, format, shared, batch, records: 0, told: 0, complained: None, fault: None }
    }

    /// Until the last handle is gone; then all that was handed over is written.
    pub fn run(mut self) {
        loop {
            match self.items.recv_timeout(COMPLAIN) {
                Ok(item) => self.take(item),
                Err(RecvTimeoutError::Timeout) => {
                    self.complain();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.busy().is_break() {
                return;
            }
        }
    }

    /// Writes batches while records come. Breaks when the last handle is gone.
    fn busy(&mut self) -> ControlFlow<()> {
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            quiet += 1;
            let end = loop {
                match self.items.try_recv() {
                    Ok(item) => {
                        quiet = 0;
                        self.take(item);
                    }
                    Err(end) => break end,
                }
            };
            self.write_batch();
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.sink.reopen();
            }
            self.complain();
            if end == TryRecvError::Disconnected {
                return ControlFlow::Break(());
            }
            std::thread::park_timeout(LOOK);
        }
        ControlFlow::Continue(())
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Record(record) => {
                if line::write(&mut self.batch, &record, self.format).is_ok() {
                    self.records += 1;
                }
                if self.batch.len() >= BATCH {
                    self.write_batch();
                }
            }
            Item::Redirect(sink, format) => {
                self.write_batch();
                (self.sink, self.format) = (sink, format);
            }
            Item::Wake => {}
            Item::Flush(done) => {
                self.write_batch();
                // Whoever asked may have lost patience.
                done.try_send(()).ok();
            }
        }
    }

    fn write_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Err(e) = self.sink.write(&self.batch) {
            self.shared.dropped.fetch_add(self.records, Ordering::Relaxed);
            self.fault = Some(e);
        }
        self.batch.clear();
        self.records = 0;
    }

    fn complain(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        if dropped == self.told || self.complained.is_some_and(|at| at.elapsed() < COMPLAIN) {
            return;
        }
        let lost = dropped - self.told;
        match self.fault.take() {
            Some(e) => log::error!("access log: {lost} records lost: {e}"),
            None => log::error!("access log: {lost} records lost: its target is too slow"),
        }
        self.told = dropped;
        self.complained = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests;
