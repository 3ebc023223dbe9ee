//! The state file as a whole: kept, restored, refused.

mod damage;
mod kept;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::model::ledger::{Adoption, Ledger};
use crate::model::session_key::SessionKey;
use crate::model::sketch::World;
use crate::model::time::Time;
use crate::model::view::View;

/// A directory that goes with the test.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-state-{name}-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory can be made");
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self) -> PathBuf {
        self.0.join("state.db")
    }

    fn open(&self, now: Time) -> Result<(StateFile, Remains), StateError> {
        StateFile::open(StateLock::take(&self.0, "http://127.0.0.1:9180")?, now)
    }

    /// The next run: a world as drawn, and what comes back to it.
    fn again(&self, drawn: &str, now: Time) -> Result<(World, StateFile, Remains, Restored), StateError> {
        let (mut file, remains) = self.open(now)?;
        let world = World::new(drawn);
        let restored = file.restore(&world.view, now)?;
        Ok((world, file, remains, restored))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// What a keeper is told to keep.
struct Source {
    view: Mutex<Arc<View>>,
    now: Mutex<Time>,
    documents: Mutex<Vec<(String, Vec<u8>)>>,
    changed: Mutex<Vec<(String, Vec<u8>)>>,
    told: Mutex<Vec<Option<String>>>,
}

impl Source {
    fn of(world: &World) -> Arc<Source> {
        Arc::new(Source {
            view: Mutex::new(Arc::new(world.view.clone())),
            now: Mutex::new(world.now),
            documents: Mutex::default(),
            changed: Mutex::default(),
            told: Mutex::default(),
        })
    }

    fn put(&self, name: &str, body: &[u8]) {
        let document = (name.to_owned(), body.to_vec());
        self.documents.lock().unwrap().push(document.clone());
        self.changed.lock().unwrap().push(document);
    }
}

impl StateSource for Source {
    fn now(&self) -> Time {
        *self.now.lock().unwrap()
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.lock().unwrap())
    }

    fn documents(&self, all: bool) -> Vec<(String, Vec<u8>)> {
        let changed = std::mem::take(&mut *self.changed.lock().unwrap());
        if all { self.documents.lock().unwrap().clone() } else { changed }
    }

    fn failed(&self, why: Option<&str>) {
        self.told.lock().unwrap().push(why.map(str::to_owned));
    }
}

fn key(n: u64) -> SessionKey {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    bytes[8..].copy_from_slice(&n.to_le_bytes());
    SessionKey(bytes)
}

/// A confirmed session of a backend.
fn session(ledger: &Ledger, n: u64, slot: u32, now: Time) {
    ledger.adopt(key(n), slot, Adoption::SignedPin { issued: now }, now, now);
}

/// Which backend each of the first `n` sessions is at, by names.
fn whereabouts(world: &World, n: u64, now: Time) -> Vec<Option<String>> {
    let place = |n| {
        let found = world.shop().ledger.find(key(n), now)?;
        let backend = world.shop().backend(found.slot)?;
        Some(format!("{}/{} {:?}", backend.release, backend.spec.name, found.standing))
    };
    (0..n).map(place).collect()
}
