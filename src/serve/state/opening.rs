//! Before a state file is used: is it ours, is it whole, can it be written? And a new one, where there is none.
//!
//! No check changes the file. The order matters: SQLite is shown only what is ours, since it works off the log of any file that it
//! opens for writing.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{Access, access};

use super::fault::StateError;
use super::rows::{APPLICATION_ID, FORMAT, TABLES};

/// How long another reader of the file (a backup) may make us wait at the start.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a file of ours says so, and in which format, in its first bytes.
const HEADER: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";

/// The file of a directory, checked, or a new one; and how it is written from now on.
pub(super) fn open(path: &Path) -> Result<Connection, StateError> {
    let writable = |path: &Path| {
        let allowed = access(path, Access::READ_OK | Access::WRITE_OK);
        allowed.map_err(|errno| StateError::System { path: path.to_owned(), source: errno.into() })
    };
    path.parent().map_or(Ok(()), writable)?;
    match fs::symlink_metadata(path) {
        Ok(_) => {
            writable(path)?;
            check_header(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            set_aside(path)?;
            make(path).map_err(|error| fault(path, error))?;
        }
        Err(source) => return Err(StateError::System { path: path.to_owned(), source }),
    }
    let connection = connect(path).map_err(|error| fault(path, error))?;
    check(&connection, path)?;
    Ok(connection)
}

/// Before SQLite sees the file: it would work off the log of one that is not ours.
fn check_header(path: &Path) -> Result<(), StateError> {
    let mut header = Vec::with_capacity(HEADER);
    let opened = File::open(path).and_then(|file| file.take(HEADER as u64).read_to_end(&mut header));
    opened.map_err(|source| StateError::System { path: path.to_owned(), source })?;
    let word = |at: usize| header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_be_bytes);
    if header.is_empty() {
        return Err(damaged(path, "it is empty"));
    }
    if !header.starts_with(MAGIC) {
        return Err(damaged(path, "it is no SQLite database"));
    }
    check_format(path, word(68), word(60))
}

fn check_format(path: &Path, application_id: i32, user_version: i32) -> Result<(), StateError> {
    if application_id != APPLICATION_ID {
        return Err(StateError::Foreign { path: path.to_owned() });
    }
    match u32::try_from(user_version) {
        Ok(FORMAT) => Ok(()),
        Ok(found) if found > FORMAT => Err(StateError::Later { path: path.to_owned(), found, known: FORMAT }),
        _ => Err(damaged(path, "its format has no number")),
    }
}

/// The log of a file that was moved away would be worked off into the new one.
fn set_aside(path: &Path) -> Result<(), StateError> {
    let beside = |suffix: &str| {
        let mut name: OsString = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let log = beside("-wal");
    if log.exists() {
        let names = (0..1000_u32).map(|n| beside(&if n == 0 { ".damaged-wal".to_owned() } else { format!(".damaged-wal.{n}") }));
        let free = names.into_iter().find(|name| !name.exists()).unwrap_or_else(|| beside(".damaged-wal"));
        fs::rename(&log, free).map_err(|source| StateError::System { path: log, source })?;
    }
    // An index of that log, made anew whenever it is missing.
    let index = beside("-shm");
    match fs::remove_file(&index) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateError::System { path: index, source }),
        _ => Ok(()),
    }
}

/// Whole before it has its name: an empty file of that name is damaged, never new.
fn make(path: &Path) -> rusqlite::Result<()> {
    let draft = path.with_extension("db.new");
    let system = |source: io::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(source));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(error)),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(system)?;
    let connection = Connection::open_with_flags(&draft, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = FULL;")?;
    let tables: String = TABLES.iter().map(|(_, sql)| format!("{sql};")).collect();
    connection
        .execute_batch(&format!("BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; {tables} COMMIT;"))?;
    connection.close().map_err(|(_, error)| error)?;
    fs::rename(&draft, path).map_err(system)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory).and_then(|directory| directory.sync_all())).map_err(system)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Until it is closed in order: a file that is refused is not to be changed by closing it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.busy_timeout(PATIENCE)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
    Ok(connection)
}

/// Everything that can be wrong with the file as a whole, then the way in which it is written.
fn check(connection: &Connection, path: &Path) -> Result<(), StateError> {
    let failed = |error| fault(path, error);
    let number = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0)).map_err(failed);
    check_format(path, number("application_id")?, number("user_version")?)?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found != "ok" {
        return Err(damaged(path, found.lines().last().unwrap_or_default().trim()));
    }
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").map_err(failed)?;
    let tables: Result<Vec<(String, String)>, _> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(|rows| rows.collect());
    let tables = tables.map_err(failed)?;
    if !tables.iter().map(|(name, sql)| (name.as_str(), sql.as_str())).eq(TABLES) {
        return Err(damaged(path, "its tables are others"));
    }
    if connection.is_readonly("main").map_err(failed)? {
        return Err(StateError::System { path: path.to_owned(), source: io::ErrorKind::PermissionDenied.into() });
    }
    // A commit survives a killed process without waiting for the disk; the log is cut back when it was long.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).map_err(failed)?;
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA cache_size = -8192;").map_err(failed)?;
    connection.query_row("PRAGMA journal_size_limit = 16777216", [], |_| Ok(())).map_err(failed)
}

pub(super) fn damaged(path: &Path, what: &str) -> StateError {
    StateError::Damaged { path: path.to_owned(), what: what.to_owned() }
}

/// Whose fault an error at the start is: the machine's, or the file's. What SQLite cannot make sense of is damage.
pub(super) fn fault(path: &Path, error: rusqlite::Error) -> StateError {
    const SHORT_READ: i32 = 522;
    let system = |source| StateError::System { path: path.to_owned(), source };
    match error {
        rusqlite::Error::ToSqlConversionFailure(source) => match source.downcast::<io::Error>() {
            Ok(source) => system(*source),
            Err(source) => damaged(path, &source.to_string()),
        },
        rusqlite::Error::SqliteFailure(code, _) if code.extended_code != SHORT_READ => match code.code {
            ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::SystemIoFailure
            | ErrorCode::DiskFull
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::OutOfMemory => system(io::Error::other(error)),
            _ => damaged(path, &error.to_string()),
        },
        error => damaged(path, &error.to_string()),
    }
}
