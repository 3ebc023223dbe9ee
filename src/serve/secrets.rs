//! Keys: those of the configuration, or one per app that is made once and kept in the state directory.
//!
//! A lost key is a lost pin for every user, so a key file is written whole before it gets its name, and never overwritten.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::pin::{Keyring, KeyringFault, MIN_SECRET_BYTES};
use crate::model::session_key::KeyedHash;
use crate::model::settings::{AppSpec, DrainSettings};

/// What to do about a damaged key of pins. Pins are bound to hashed session ids, so a lost hash key loses them too.
const WITHOUT_PIN_KEY: &str = "restore it, or delete it and lose all pins";
/// What to do about a damaged key of reports: nothing but reports hangs on it.
const WITHOUT_WEBHOOK_KEY: &str = "restore it, or write another (`openssl rand -hex 32`) and give it to whoever checks the reports";

/// Why keys cannot be had; names the file.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The state directory cannot be made or used.
    #[error("state directory {path}: {source}; make it writable for this user, or set state.directory")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key file cannot be read or made.
    #[error("key file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Keys do not make a keyring.
    #[error("app {app}: session.keys: {source}")]
    Keyring {
        /// The app.
        app: String,
        /// What is wrong.
        source: KeyringFault,
    },
}

/// Makes the state directory (0700) and its parents.
///
/// # Errors
/// [`SecretError::Directory`].
pub fn make_directory(path: &Path) -> Result<(), SecretError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| SecretError::Directory { path: path.to_owned(), source })
}

/// The keyring of an app, and the hash of its session ids.
///
/// # Errors
/// [`SecretError`] when a key cannot be read, made or used.
pub fn of_app(directory: &Path, spec: &AppSpec) -> Result<(Arc<Keyring>, Arc<KeyedHash>), SecretError> {
    let keys = directory.join("keys");
    make_directory(&keys)?;
    let mut secrets = Vec::new();
    for key in &spec.settings.session.keys {
        let path = PathBuf::from(&key.file);
        let secret = fs::read(&path).map_err(|source| SecretError::File { path, source })?;
        secrets.push((key.id.clone(), trimmed(secret)));
    }
    if secrets.is_empty() {
        secrets.push(("auto".to_owned(), read_or_make(&keys.join(format!("{}.pin", spec.name)), <[u8]>::to_vec, WITHOUT_PIN_KEY)?));
    }
    let keyring = Keyring::new(secrets.iter().map(|(id, secret)| (id.as_str(), secret.as_slice())));
    let keyring = keyring.map_err(|source| SecretError::Keyring { app: spec.name.clone(), source })?;
    let hash = read_or_make(&keys.join(format!("{}.hash", spec.name)), <[u8]>::to_vec, WITHOUT_PIN_KEY)?;
    let mut secret = [0; 16];
    for (place, byte) in secret.iter_mut().zip(&hash) {
        *place = *byte;
    }
    Ok((Arc::new(keyring), Arc::new(KeyedHash::new(secret))))
}

/// Sees to it that an app that reports has a key to sign with: a file that cannot be used stops the start, not the first report.
///
/// # Errors
/// [`SecretError`] when it cannot be read, made or used.
pub fn make_webhook_key(directory: &Path, app: &str, settings: &DrainSettings) -> Result<(), SecretError> {
    if settings.webhook.is_none() {
        return Ok(());
    }
    let file = webhook_key_file(directory, app, settings);
    if settings.webhook_key_file.is_none() {
        make_directory(&directory.join("keys"))?;
        // Hexadecimal, so that it can be pasted.
        let hexadecimal = |random: &[u8]| random.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes();
        read_or_make(&file, hexadecimal, WITHOUT_WEBHOOK_KEY)?;
    }
    read_webhook_key(&file).map(drop)
}

/// Where the key of an app's reports is.
pub fn webhook_key_file(directory: &Path, app: &str, settings: &DrainSettings) -> PathBuf {
    let made = || directory.join("keys").join(format!("{app}.webhook"));
    settings.webhook_key_file.as_ref().map_or_else(made, PathBuf::from)
}

/// The key as receivers are given it: the text of its file. Never makes one, since no receiver would know it; and a file that somebody
/// is writing at this moment is refused, since its beginning signs as little as nothing.
///
/// # Errors
/// [`SecretError::File`] when it cannot be read or is too short.
pub fn read_webhook_key(path: &Path) -> Result<Vec<u8>, SecretError> {
    let key = trimmed(fs::read(path).map_err(|source| SecretError::File { path: path.to_owned(), source })?);
    if key.len() < MIN_SECRET_BYTES { Err(damaged(path, key.len(), WITHOUT_WEBHOOK_KEY)) } else { Ok(key) }
}

/// Key files are often written by `openssl rand -hex 32 > file`: the line's end is no part of the key.
fn trimmed(mut secret: Vec<u8>) -> Vec<u8> {
    while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        secret.pop();
    }
    secret
}

fn damaged(path: &Path, length: usize, remedy: &str) -> SecretError {
    let what = format!("{length} bytes of at least {MIN_SECRET_BYTES}; it is damaged: {remedy}");
    SecretError::File { path: path.to_owned(), source: io::Error::other(what) }
}

/// `write` turns random bytes into what the file holds; `remedy` is for a file that is too short.
fn read_or_make(path: &Path, write: impl Fn(&[u8]) -> Vec<u8>, remedy: &str) -> Result<Vec<u8>, SecretError> {
    let fault = |source| SecretError::File { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(secret) if secret.len() >= MIN_SECRET_BYTES => return Ok(secret),
        Ok(secret) => return Err(damaged(path, secret.len(), remedy)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(fault(e)),
    }
    let mut secret = vec![0; MIN_SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|e| fault(io::Error::other(e)))?;
    let secret = write(&secret);
    // A name of its own, never one that a crash may have left linked to another key.
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fault(e)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(fault)?;
    file.write_all(&secret).and_then(|()| file.sync_all()).map_err(fault)?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft).map_err(fault)?;
    match linked {
        Ok(()) => Ok(secret),
        // Whoever was first has the key.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => fs::read(path).map_err(fault),
        Err(e) => Err(fault(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let directory = std::env::temp_dir().join(format!("tidegate-secrets-{}", std::process::id()));
        make_directory(&directory).expect("a temporary directory can be made");
        let path = directory.join("shop.pin");
        let first = read_or_make(&path, <[u8]>::to_vec, WITHOUT_PIN_KEY).expect("a key can be made");
        assert_eq!(read_or_make(&path, <[u8]>::to_vec, WITHOUT_PIN_KEY).expect("a key can be read"), first);
        assert_eq!(fs::metadata(&path).expect("it exists").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).expect("it exists").permissions().mode() & 0o777, 0o700);
        fs::write(&path, b"short").expect("it can be written");
        let error = read_or_make(&path, <[u8]>::to_vec, WITHOUT_PIN_KEY).expect_err("a damaged key is refused").to_string();
        assert!(error.contains("5 bytes of at least 32"), "{error}");
        assert_eq!(fs::read(&path).expect("it is still there"), b"short", "never overwritten");
        fs::remove_dir_all(&directory).expect("it can be removed");
    }

    #[test]
    fn a_key_for_reports_is_made_only_where_reports_are_sent_and_can_be_pasted() {
        let directory = std::env::temp_dir().join(format!("tidegate-webhook-keys-{}", std::process::id()));
        let make = |settings: &DrainSettings| make_webhook_key(&directory, "shop", settings).map_err(|error| error.to_string());
        let read = |settings: &DrainSettings| read_webhook_key(&webhook_key_file(&directory, "shop", settings)).map_err(|e| e.to_string());
        assert_eq!(make(&DrainSettings::default()), Ok(()));
        assert!(!directory.exists());
        let address = crate::model::settings::Address { host: "ci.example.com".to_owned(), port: 443 };
        let url = "https://ci.example.com/".to_owned();
        let webhook = crate::model::settings::WebhookUrl { url, tls: true, address, target: "/".to_owned() };
        let settings = DrainSettings { webhook: Some(webhook), ..DrainSettings::default() };
        read(&settings).expect_err("reading makes no key");
        assert_eq!(make(&settings), Ok(()));
        let key = read(&settings).expect("a key");
        assert!(key.len() == 64 && key.iter().all(u8::is_ascii_hexdigit), "{key:?}");
        assert_eq!((make(&settings), read(&settings)), (Ok(()), Ok(key)), "made once");
        let made = directory.join("keys/shop.webhook");
        fs::write(&made, "0123456789abcdef").expect("it can be written");
        for refused in [make(&settings).map(drop), read(&settings).map(drop)] {
            let error = refused.expect_err("half a key signs nothing");
            assert!(error.contains("16 bytes of at least 32") && error.contains("whoever checks") && !error.contains("pins"), "{error}");
        }
        let own = directory.join("own.key");
        let settings = DrainSettings { webhook_key_file: own.to_str().map(str::to_owned), ..settings };
        make(&settings).expect_err("a file that was named is not made");
        fs::write(&own, "0123456789abcdef0123456789abcdef\n").expect("it can be written");
        assert_eq!(read(&settings).as_deref(), Ok(b"0123456789abcdef0123456789abcdef".as_slice()));
        fs::remove_dir_all(&directory).expect("it can be removed");
    }

    #[test]
    fn the_end_of_a_line_is_no_part_of_a_key() {
        assert_eq!(trimmed(b"abc\r\n".to_vec()), b"abc");
        assert_eq!(trimmed(b"a\nb".to_vec()), b"a\nb");
    }
}
