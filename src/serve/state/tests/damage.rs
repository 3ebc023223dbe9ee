//! Files that are not what was written. Each start either restores sessions where they were, or is refused and changes nothing.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::model::xorshift::Xorshift;

const DRAWN: &str = ">v1:a1,a2 v2:b1";
const SESSIONS: u64 = 300;

/// A good file whose sessions moved once; where each has been; and the log beside it, as a crash leaves it.
struct Good {
    file: Vec<u8>,
    log: Vec<u8>,
    been: Vec<HashSet<Option<String>>>,
    now: Time,
}

impl Good {
    /// With `crash` most of it is in the log.
    fn new(crash: bool) -> Good {
        let scratch = Scratch::new("good");
        let (world, file, ..) = scratch.again(DRAWN, World::new(DRAWN).now).expect("nothing is there");
        let source = Source::of(&world);
        source.put("releases", &[42; 3000]);
        let keeper = Keeper::start(file, source, WriteFailures::default(), false).expect("a thread");
        let mut been = vec![HashSet::from([None]); SESSIONS as usize];
        let mut note = || {
            for (been, place) in been.iter_mut().zip(whereabouts(&world, SESSIONS, world.now)) {
                been.insert(place);
            }
        };
        for n in 0..SESSIONS {
            session(&world.shop().ledger, n, (n % 3) as u32, world.now);
        }
        note();
        keeper.flush().expect("a good disk");
        for n in 0..SESSIONS / 2 {
            world.shop().ledger.relocate(key(n), 1, world.now);
        }
        note();
        keeper.flush().expect("a good disk");
        let read = |name| fs::read(scratch.path().join(name)).unwrap_or_default();
        if crash {
            return Good { file: read("state.db"), log: read("state.db-wal"), been, now: world.now };
        }
        assert_eq!(keeper.stop().1, Ok(()));
        Good { file: read("state.db"), log: Vec::new(), been, now: world.now }
    }

    /// How many sessions came back; `None` if it was refused.
    fn start(&self, file: &[u8], log: &[u8], what: &str) -> Option<usize> {
        let scratch = Scratch::new("damaged");
        fs::write(scratch.file(), file).expect("it can be written");
        let beside = scratch.path().join("state.db-wal");
        if !log.is_empty() {
            fs::write(&beside, log).expect("it can be written");
        }
        match scratch.again(DRAWN, self.now) {
            Ok((world, ..)) => {
                let places = whereabouts(&world, SESSIONS, self.now);
                for (n, (place, been)) in places.iter().zip(&self.been).enumerate() {
                    assert!(been.contains(place), "{what}: session {n} at {place:?}, has been at {been:?}");
                }
                Some(places.iter().flatten().count())
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("state.db"), "{what}: {error}");
                assert_eq!(fs::read(scratch.file()).expect("it is there"), file, "{what}: left as it was");
                if !log.is_empty() {
                    assert_eq!(fs::read(&beside).expect("it is there"), log, "{what}: the log was left as it was");
                }
                None
            }
        }
    }
}

#[test]
fn a_file_that_was_cut_is_restored_or_refused() {
    for crash in [false, true] {
        let good = Good::new(crash);
        assert_eq!(good.start(&good.file, &good.log, "whole"), Some(SESSIONS as usize));
        let mut dice = Xorshift(1);
        let mut refused = 0;
        for _ in 0..100 {
            let cut = dice.below(good.file.len());
            refused += u32::from(good.start(&good.file[..cut], &good.log, &format!("cut at {cut}")).is_none());
            if crash {
                let cut = dice.below(good.log.len());
                let found = good.start(&good.file, &good.log[..cut], &format!("log cut at {cut}"));
                assert!(found.is_some(), "a log that ends early is what a crash leaves");
            }
        }
        assert!(crash || refused > 50, "{refused} of 100 refused");
    }
}

#[test]
fn a_file_with_a_flipped_bit_is_restored_or_refused() {
    let mut dice = Xorshift(2);
    let mut refused = [0, 0];
    for crash in [false, true] {
        let good = Good::new(crash);
        for _ in 0..500 {
            let (mut file, mut log) = (good.file.clone(), good.log.clone());
            let (all, what) = if crash { (&mut log, "log, bit") } else { (&mut file, "bit") };
            let (byte, bit) = (dice.below(all.len()), dice.below(8));
            all[byte] ^= 1 << bit;
            refused[usize::from(crash)] += u32::from(good.start(&file, &log, &format!("{what} {byte}.{bit}")).is_none());
        }
    }
    assert!(refused[0] > 200, "{refused:?}");
}

#[test]
fn what_is_no_state_file_of_this_version_is_refused_with_the_way_out() {
    let good = Good::new(false);
    let check = |what: &str, change: &dyn Fn(&Path), expected: &[&str]| {
        let scratch = Scratch::new("refused");
        fs::write(scratch.file(), &good.file).expect("it can be written");
        change(&scratch.file());
        let before = fs::read(scratch.file()).expect("it is there");
        let error = scratch.again(DRAWN, good.now).map(drop).expect_err(what).to_string();
        for word in expected {
            assert!(error.contains(word), "{what}: {error}");
        }
        assert!(error.contains(&scratch.file().display().to_string()), "{what}: {error}");
        assert_eq!(fs::read(scratch.file()).expect("it is there"), before, "{what}");
    };
    let sql = |path: &Path, sql: &str| {
        rusqlite::Connection::open(path).and_then(|connection| connection.execute_batch(sql)).expect("SQL");
    };
    let replace = |path: &Path, body: &[u8]| fs::write(path, body).expect("it can be written");
    check("empty", &|path| replace(path, b""), &["it is empty", "mv ", "state.db.damaged"]);
    check("text", &|path| replace(path, b"apps:\n  shop: {}\n"), &["no SQLite database", "mv "]);
    let foreign = |path: &Path| {
        fs::remove_file(path).expect("it is there");
        sql(path, "CREATE TABLE notes (text TEXT)");
    };
    check("foreign", &foreign, &["not written by tidegate", "move it away"]);
    check("later", &|path| sql(path, "PRAGMA user_version = 9"), &["format 9", "knows up to 1", "state.db.later"]);
    check("no format", &|path| sql(path, "PRAGMA user_version = 0"), &["its format has no number"]);
    check("a document", &|path| sql(path, "UPDATE documents SET body = x'00'"), &["\"releases\" is not what was stored"]);
    check("a place", &|path| sql(path, "UPDATE places SET backend = 'a2' WHERE backend = 'a1'"), &["name of a backend"]);
    check(
        "a session",
        &|path| sql(path, "UPDATE sessions SET key = randomblob(16) WHERE key = (SELECT max(key) FROM sessions)"),
        &["a session"],
    );
    check("another table", &|path| sql(path, "CREATE TABLE more (a)"), &["its tables are others"]);
}

#[test]
fn a_directory_or_file_that_cannot_be_written_is_refused() {
    let good = Good::new(false);
    for name in ["", "state.db", "lock"] {
        let scratch = Scratch::new("read-only");
        fs::write(scratch.file(), &good.file).expect("it can be written");
        fs::write(scratch.path().join("lock"), "").expect("it can be written");
        let mode = |name: &str, mode| {
            let path = if name.is_empty() { scratch.path().to_owned() } else { scratch.path().join(name) };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            path
        };
        ["", "state.db", "lock"].into_iter().for_each(|name| drop(mode(name, 0o777)));
        let path = mode(name, 0o555);
        let start = || {
            as_nobody();
            scratch.again(DRAWN, good.now).map(drop).expect_err("it cannot be written").to_string()
        };
        let error = std::thread::scope(|scope| scope.spawn(start).join()).expect("no panic");
        assert!(error.contains("must be writable") && error.contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::read(scratch.file()).expect("it is there"), good.file);
    }
}

/// Root may write everywhere, so this thread becomes somebody else; of others nothing is asked.
fn as_nobody() {
    if rustix::process::geteuid().is_root() {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).expect("root may be anybody");
    }
}

#[test]
fn a_log_that_a_file_left_behind_is_not_worked_off_into_a_new_one() {
    let good = Good::new(true);
    let scratch = Scratch::new("left-behind");
    fs::write(scratch.path().join("state.db-wal"), &good.log).expect("it can be written");
    let (_, _, remains, restored) = scratch.again(DRAWN, good.now).expect("nothing is there");
    assert!(remains.documents.is_empty() && restored == Restored::default());
    assert_eq!(fs::read(scratch.path().join("state.db.damaged-wal")).expect("set aside"), good.log);
    assert_eq!(fs::metadata(scratch.file()).expect("a new one").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_is_as_old_as_its_last_write() {
    let good = Good::new(false);
    let scratch = Scratch::new("written");
    fs::write(scratch.file(), &good.file).expect("it can be written");
    let (_, _, remains, _) = scratch.again(DRAWN, good.now).expect("a good file");
    assert!(good.now.since(remains.written.expect("it was written")) < Duration::from_secs(60));
}
