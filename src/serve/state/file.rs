//! The open state file: checked once, read once, then written in transactions.
//!
//! Opening writes nothing to a file that exists. A write-ahead log that a crash left is normal and is read with it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::fault::StateError;
use super::lock::StateLock;
use super::moment::{Moment, Shift};
use super::opening::{self, damaged, fault};
use super::rows::{Place, Tag, decode, encode};
use crate::model::ledger::Record;
use crate::model::session_key::SessionKey;
use crate::model::time::Time;
use crate::model::view::View;

/// Sessions of backends that the configuration does not name are kept this long: a start with the wrong file costs nobody.
const STRANGERS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Sessions whose times are moved at a time: a few megabytes.
const MOVED_AT_ONCE: u32 = 10_000;

/// Until when sessions may live that no ledger counts, by app, in milliseconds: see [`Ledger::uncounted_until`].
///
/// [`Ledger::uncounted_until`]: crate::model::ledger::Ledger::uncounted_until
pub(super) type Uncounted = BTreeMap<String, [u64; 2]>;

/// The document that holds it; the only one of our own.
pub(super) const UNCOUNTED: &str = "uncounted";

/// The state file of one directory, which this process owns.
pub struct StateFile {
    connection: Connection,
    lock: StateLock,
    path: PathBuf,
    moment: Moment,
    shift: Shift,
    places: HashMap<Place, i64>,
    /// By app, as they were stored.
    uncounted: Uncounted,
    /// To be deleted at the first write.
    outdated: Vec<(i64, SessionKey)>,
}

/// What an earlier run left besides sessions.
#[derive(Debug)]
pub struct Remains {
    /// By name, as they were stored.
    pub documents: BTreeMap<String, Vec<u8>>,
    /// To be applied to every time in them; sessions are read with it.
    pub shift: Shift,
    /// When it last wrote, as that is called today; `None` if there was none.
    pub written: Option<Time>,
}

/// What became of stored sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Entries that are in their ledgers again.
    pub entries: u64,
    /// Those whose backend the configuration does not name.
    pub strangers: u64,
}

impl StateFile {
    /// Opens the file of a directory, or makes one. Sessions are to be read next, by [`StateFile::restore`].
    ///
    /// # Errors
    /// [`StateError`]; then nothing was changed.
    pub fn open(lock: StateLock, now: Time) -> Result<(StateFile, Remains), StateError> {
        let path = lock.directory().join("state.db");
        let connection = opening::open(&path)?;
        let last = read_moment(&connection, &path)?;
        let mut documents = read_documents(&connection, &path)?;
        let uncounted = documents.remove(UNCOUNTED).map_or_else(|| Ok(Uncounted::default()), |body| serde_json::from_slice(&body));
        let uncounted = uncounted.map_err(|error| damaged(&path, &format!("document {UNCOUNTED:?}: {error}")))?;
        let places = read_places(&connection, &path)?;
        let moment = Moment::of(now);
        let shift = last.as_ref().map_or_else(Shift::default, |last| moment.shift_since(last));
        if shift != Shift::default() {
            log::warn!("the clock was set by {} s since {} was written: stored times move with it", shift.millis() / 1000, path.display());
        }
        let remains = Remains { documents, shift, written: last.map(|last| shift.apply(last.at)) };
        Ok((StateFile { connection, lock, path, moment, shift, places, uncounted, outdated: Vec::new() }, remains))
    }

    /// Reads every stored session, with today's times and no slot.
    ///
    /// # Errors
    /// [`StateError`] at the first that is damaged; what was read before is to be thrown away.
    pub fn load(&self, mut each: impl FnMut(i64, &Place, Record)) -> Result<(), StateError> {
        let places: HashMap<i64, &Place> = self.places.iter().map(|(place, &id)| (id, place)).collect();
        let failed = |error| fault(&self.path, error);
        let mut statement = self.connection.prepare("SELECT app, key, body FROM sessions").map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let read = || -> Result<_, rusqlite::Error> {
                let (app, key, body) = (row.get_ref(0)?.as_i64()?, row.get_ref(1)?.as_blob()?, row.get_ref(2)?.as_blob()?);
                Ok((app, decode(app, key, body)))
            };
            let (app, decoded) = read().map_err(failed)?;
            let known = decoded.and_then(|(place, record)| Some((*places.get(&i64::from(place))?, record)));
            let Some((place, mut record)) = known else { return Err(damaged(&self.path, "a session is not what was stored")) };
            shifted(&mut record, self.shift);
            each(app, place, record);
        }
        Ok(())
    }

    /// Puts every stored session into the ledger of its app, and has those ledgers keep a journal from then on.
    ///
    /// # Errors
    /// [`StateError`] when one is damaged; the ledgers are to be thrown away.
    pub fn restore(&mut self, view: &View, now: Time) -> Result<Restored, StateError> {
        let mut restored = Restored::default();
        let mut outdated = Vec::new();
        let homes: HashMap<&Place, _> = self
            .places
            .keys()
            .filter_map(|place| {
                let app = view.app(&place.app)?;
                Some((place, (app, app.slot(&place.release, &place.backend)?)))
            })
            .collect();
        self.load(|number, place, mut record| match homes.get(place) {
            Some((app, slot)) => {
                record.found.slot = *slot;
                restored.entries += u64::from(app.ledger.restore(&record, now));
            }
            None => {
                restored.strangers += 1;
                if now.since(record.found.seen) > STRANGERS_KEPT {
                    outdated.push((number, record.key));
                }
            }
        })?;
        self.outdated = outdated;
        for app in &view.apps {
            if let Some(until) = self.uncounted.get(&*app.name) {
                app.ledger.recall_uncounted(until.map(|ms| self.shift.apply(Time(ms))));
            }
            app.ledger.keep_journal();
        }
        Ok(restored)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first words of a run, ahead of the thread that writes: these documents, and every stored time as it is called today. Were
    /// times left as they are, the next run would take them for those of this run's clock.
    ///
    /// # Errors
    /// [`StateError`]: nothing can be written, and nothing was.
    pub fn begin(&mut self, documents: &BTreeMap<String, Vec<u8>>, now: Time) -> Result<(), StateError> {
        let shift = std::mem::take(&mut self.shift);
        let mut uncounted = self.uncounted.clone();
        uncounted.values_mut().flatten().for_each(|ms| *ms = shift.apply(Time(*ms)).0);
        let written = self.write(now, |batch| {
            if shift != Shift::default() {
                batch.move_sessions(shift)?;
                batch.put_document(UNCOUNTED, &serde_json::to_vec(&uncounted).unwrap_or_default())?;
            }
            documents.iter().try_for_each(|(name, body)| batch.put_document(name, body))
        });
        written.map_err(|error| fault(&self.path, error))
    }

    /// One transaction, all or nothing, that also notes the present.
    pub(super) fn write(&mut self, now: Time, act: impl FnOnce(&mut Batch<'_>) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        self.moment.renew(now);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch { transaction: &transaction, places: &mut self.places };
        let written = act(&mut batch).and_then(|()| {
            batch.delete_sessions(&self.outdated)?;
            batch.put_moment(&self.moment)
        });
        if let Err(error) = written.and_then(|()| transaction.commit()) {
            // Numbers that were given in vain; the next attempt asks the file.
            self.places.clear();
            return Err(error);
        }
        self.outdated = Vec::new();
        Ok(())
    }

    /// Whether numbers of places that were given out are still good: not after a failure.
    pub(super) fn knows_places(&self) -> bool {
        !self.places.is_empty()
    }

    /// Brings everything into the one file and closes it. The lock stays with the caller.
    pub(super) fn close(self) -> (StateLock, rusqlite::Result<()>) {
        let checkpoint = |connection: &Connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map(drop)
        };
        let written = checkpoint(&self.connection);
        let closed = self.connection.close().map_err(|(_, error)| error);
        (self.lock, written.and(closed))
    }

    /// For tests of what happens when the disk is full: no more than these pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, most: u32) {
        let set = self.connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(()));
        set.expect("a pragma of every version");
    }
}

/// A transaction under way.
pub(super) struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    places: &'a mut HashMap<Place, i64>,
}

impl Batch<'_> {
    /// The number of an app: that of a place without release and backend.
    pub fn app(&mut self, app: &str) -> rusqlite::Result<i64> {
        self.place(app, "", "")
    }

    /// The number of a backend.
    pub fn place(&mut self, app: &str, release: &str, backend: &str) -> rusqlite::Result<i64> {
        let place = Place { app: app.into(), release: release.into(), backend: backend.into() };
        if let Some(&id) = self.places.get(&place) {
            return Ok(id);
        }
        let known = self
            .transaction
            .prepare_cached("SELECT id FROM places WHERE app = ?1 AND release = ?2 AND backend = ?3")?
            .query_row([app, release, backend], |row| row.get(0));
        let id = match known {
            Ok(id) => id,
            Err(rusqlite::Error::QueryReturnedNoRows) => {
                let id: i64 = self.transaction.query_row("SELECT coalesce(max(id), 0) + 1 FROM places", [], |row| row.get(0))?;
                let insert = "INSERT INTO places (id, app, release, backend, tag) VALUES (?1, ?2, ?3, ?4, ?5)";
                self.transaction.prepare_cached(insert)?.execute((id, app, release, backend, place_tag(id, &place)))?;
                id
            }
            Err(error) => return Err(error),
        };
        self.places.insert(place, id);
        Ok(id)
    }

    pub fn put_session(&mut self, app: i64, place: i64, record: &Record) -> rusqlite::Result<()> {
        let body = encode(app, u32::try_from(place).unwrap_or(u32::MAX), record);
        let put = "INSERT INTO sessions (app, key, body) VALUES (?1, ?2, ?3) ON CONFLICT (app, key) DO UPDATE SET body = excluded.body";
        self.transaction.prepare_cached(put)?.execute((app, record.key.0.as_slice(), body.as_slice())).map(drop)
    }

    pub fn delete_session(&mut self, app: i64, key: &SessionKey) -> rusqlite::Result<()> {
        self.transaction.prepare_cached("DELETE FROM sessions WHERE app = ?1 AND key = ?2")?.execute((app, key.0.as_slice())).map(drop)
    }

    pub fn delete_all_of(&mut self, app: i64) -> rusqlite::Result<()> {
        self.transaction.prepare_cached("DELETE FROM sessions WHERE app = ?1")?.execute([app]).map(drop)
    }

    pub fn put_document(&mut self, name: &str, body: &[u8]) -> rusqlite::Result<()> {
        let put = "INSERT OR REPLACE INTO documents (name, body, tag) VALUES (?1, ?2, ?3)";
        self.transaction.prepare_cached(put)?.execute((name, body, document_tag(name, body))).map(drop)
    }

    /// Times of all sessions, of those too whose backend nobody knows at present.
    fn move_sessions(&mut self, shift: Shift) -> rusqlite::Result<()> {
        let mut last = (i64::MIN, Vec::new());
        loop {
            // By pages: a table is not to be changed while it is read.
            let page: Vec<(i64, Vec<u8>, Vec<u8>)> = self
                .transaction
                .prepare_cached("SELECT app, key, body FROM sessions WHERE (app, key) > (?1, ?2) ORDER BY app, key LIMIT ?3")?
                .query_map((last.0, &last.1, MOVED_AT_ONCE), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (app, key, body) in &page {
                // All were read a moment ago.
                let (place, mut record) = decode(*app, key, body).ok_or(rusqlite::Error::InvalidQuery)?;
                shifted(&mut record, shift);
                self.put_session(*app, i64::from(place), &record)?;
            }
            match page.into_iter().next_back() {
                Some((app, key, _)) => last = (app, key),
                None => return Ok(()),
            }
        }
    }

    fn delete_sessions(&mut self, keys: &[(i64, SessionKey)]) -> rusqlite::Result<()> {
        keys.iter().try_for_each(|(app, key)| self.delete_session(*app, key))
    }

    fn put_moment(&mut self, moment: &Moment) -> rusqlite::Result<()> {
        let (at, since_boot) = (moment.at.0.cast_signed(), moment.since_boot.cast_signed());
        let put = "INSERT OR REPLACE INTO moments (id, at, since_boot, boot, tag) VALUES (1, ?1, ?2, ?3, ?4)";
        self.transaction.prepare_cached(put)?.execute((at, since_boot, &moment.boot, moment_tag(at, since_boot, &moment.boot))).map(drop)
    }
}

fn shifted(record: &mut Record, shift: Shift) {
    let found = &mut record.found;
    for time in [&mut found.seen, &mut found.born, &mut found.pinned, &mut record.foreground] {
        *time = shift.apply(*time);
    }
    found.ended_at = found.ended_at.map(|time| shift.apply(time));
    found.told_at = found.told_at.map(|time| shift.apply(time));
}

fn document_tag(name: &str, body: &[u8]) -> i64 {
    Tag::of("documents").text(name.as_bytes()).text(body).end()
}

fn place_tag(id: i64, place: &Place) -> i64 {
    let names = [&place.app, &place.release, &place.backend];
    names.into_iter().fold(Tag::of("places").number(id), |tag, name| tag.text(name.as_bytes())).end()
}

fn moment_tag(at: i64, since_boot: i64, boot: &str) -> i64 {
    Tag::of("moments").number(at).number(since_boot).text(boot.as_bytes()).end()
}

fn read_moment(connection: &Connection, path: &Path) -> Result<Option<Moment>, StateError> {
    let read = connection.query_row("SELECT at, since_boot, boot, tag FROM moments", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?, row.get::<_, i64>(3)?))
    });
    match read {
        Ok((at, since_boot, boot, tag)) if tag == moment_tag(at, since_boot, &boot) => {
            Ok(Some(Moment { at: Time(at.cast_unsigned()), since_boot: since_boot.cast_unsigned(), boot }))
        }
        Ok(_) => Err(damaged(path, "the time of its last write is not what was stored")),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
        Err(error) => Err(fault(path, error)),
    }
}

fn read_documents(connection: &Connection, path: &Path) -> Result<BTreeMap<String, Vec<u8>>, StateError> {
    let failed = |error| fault(path, error);
    let mut statement = connection.prepare("SELECT name, body, tag FROM documents").map_err(failed)?;
    let rows: Result<Vec<(String, Vec<u8>, i64)>, _> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).and_then(|rows| rows.collect());
    let mut documents = BTreeMap::new();
    for (name, body, tag) in rows.map_err(failed)? {
        if tag != document_tag(&name, &body) {
            return Err(damaged(path, &format!("document {name:?} is not what was stored")));
        }
        documents.insert(name, body);
    }
    Ok(documents)
}

fn read_places(connection: &Connection, path: &Path) -> Result<HashMap<Place, i64>, StateError> {
    let failed = |error| fault(path, error);
    let mut statement = connection.prepare("SELECT id, app, release, backend, tag FROM places").map_err(failed)?;
    let rows = statement.query_map([], |row| {
        let text = |n: usize| row.get::<_, String>(n).map(String::into_boxed_str);
        Ok((row.get::<_, i64>(0)?, Place { app: text(1)?, release: text(2)?, backend: text(3)? }, row.get::<_, i64>(4)?))
    });
    let rows: Result<Vec<_>, _> = rows.and_then(|rows| rows.collect());
    let mut places = HashMap::new();
    for (id, place, tag) in rows.map_err(failed)? {
        if tag != place_tag(id, &place) {
            return Err(damaged(path, "the name of a backend is not what was stored"));
        }
        places.insert(place, id);
    }
    Ok(places)
}
