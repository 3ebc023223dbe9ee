//! Signs and verifies pins. The app's name is signed without being in the pin: a pin of a sibling app, copied under this app's cookie
//! name, fails like any forgery.
//!
//! On the wire: `1<key id>.<base64url(payload · first 16 octets of HMAC-SHA256)>`, about 70 characters.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use siphasher::sip128::SipHasher24;

use super::recent::{self, KnownPin};
use super::wire::{self, MAX_PAYLOAD_BYTES};
use super::{Pin, PinFault, VerifiedPin};
use crate::model::octets::split_once;

/// Longest key id.
pub const MAX_KEY_ID_BYTES: usize = 16;

/// Shortest secret: half of SHA-256's block would do, but a shorter one is a password, and pins can be attacked offline.
pub const MIN_SECRET_BYTES: usize = 32;

/// The first character of a pin; another layout gets another one.
const VERSION: u8 = b'1';

/// 128 bits: a guess is checked online only, and each wrong one is counted.
const MAC_BYTES: usize = 16;

const MAX_BODY_BYTES: usize = MAX_PAYLOAD_BYTES + MAC_BYTES;

/// The keys of an app: the first signs, all verify. Keyed states are prepared, so that a pin costs no key setup.
#[derive(Clone)]
pub struct Keyring {
    /// Never empty; ids are unique.
    keys: Vec<Key>,
    /// Tells keyrings apart; a clone is the same one.
    number: u64,
}

/// Of the next keyring.
static NUMBER: AtomicU64 = AtomicU64::new(0);

#[derive(Clone)]
struct Key {
    id: String,
    mac: Hmac<Sha256>,
    binding: SipHasher24,
}

/// Why keys do not make a keyring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringFault {
    /// Nothing to sign with.
    #[error("there is no key")]
    NoKey,
    /// The id would not survive in a cookie.
    #[error("key id {0:?}: 1 to 16 letters, digits, - or _")]
    BadId(String),
    /// Pins would be read with the wrong one.
    #[error("key id {0:?} is used twice")]
    DuplicateId(String),
    /// Could be guessed.
    #[error("key {0:?} has {1} bytes of at least 32")]
    ShortSecret(String, usize),
}

impl Keyring {
    /// A keyring of (id, secret), newest first.
    pub fn new<'k>(keys: impl IntoIterator<Item = (&'k str, &'k [u8])>) -> Result<Keyring, KeyringFault> {
        let mut ring = Keyring { keys: Vec::new(), number: NUMBER.fetch_add(1, Ordering::Relaxed) };
        for (id, secret) in keys {
            let legal = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
            if !(1..=MAX_KEY_ID_BYTES).contains(&id.len()) || !id.bytes().all(legal) {
                return Err(KeyringFault::BadId(id.to_owned()));
            }
            if ring.keys.iter().any(|key| key.id == id) {
                return Err(KeyringFault::DuplicateId(id.to_owned()));
            }
            if secret.len() < MIN_SECRET_BYTES {
                return Err(KeyringFault::ShortSecret(id.to_owned(), secret.len()));
            }
            ring.keys.push(Key::new(id, secret));
        }
        if ring.keys.is_empty() { Err(KeyringFault::NoKey) } else { Ok(ring) }
    }

    /// Whether both hold the same keys in the same order: a file may be written anew with the same content.
    pub fn alike(&self, other: &Keyring) -> bool {
        let told = |ring: &Keyring| ring.keys.iter().map(|key| (key.id.clone(), key.binding_of(b"alike"))).collect::<Vec<_>>();
        told(self) == told(other)
    }

    /// The value of the cookie that carries `pin` for `app`.
    pub fn sign(&self, app: &str, pin: &Pin) -> String {
        let Some(key) = self.keys.first() else { return String::new() };
        let mut body = Vec::with_capacity(MAX_BODY_BYTES);
        wire::encode(pin, &mut body);
        let mac = key.mac_of(app, &body).finalize().into_bytes();
        body.extend(mac.iter().take(MAC_BYTES));
        let mut value = String::with_capacity(2 + key.id.len() + body.len().div_ceil(3) * 4);
        value.push(char::from(VERSION));
        value.push_str(&key.id);
        value.push('.');
        URL_SAFE_NO_PAD.encode_string(&body, &mut value);
        value
    }

    /// Reads the value of a pin cookie of `app`, by memory if this thread did so lately.
    pub fn recall(&self, app: &str, value: &[u8]) -> Result<KnownPin, PinFault> {
        recent::known(self.number, app, value, || self.verify(app, value))
    }

    /// Reads the value of a pin cookie of `app`. Allocates nothing; a value that cannot be a pin is refused before any hashing.
    pub fn verify(&self, app: &str, value: &[u8]) -> Result<VerifiedPin, PinFault> {
        let rest = value.strip_prefix(&[VERSION]).ok_or(PinFault::Malformed)?;
        let (id, text) = split_once(rest, b'.').ok_or(PinFault::Malformed)?;
        let mut buffer = [0; MAX_BODY_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer).map_err(|_| PinFault::Malformed)?;
        let body = buffer.get(..length).ok_or(PinFault::Malformed)?;
        let (payload, mac) = body.split_last_chunk::<MAC_BYTES>().ok_or(PinFault::Malformed)?;
        let found = self.keys.iter().enumerate().find(|(_, key)| key.id.as_bytes() == id);
        let (position, key) = found.ok_or(PinFault::UnknownKey)?;
        key.mac_of(app, payload).verify_truncated_left(mac).map_err(|_| PinFault::BadSignature)?;
        let pin = wire::decode(payload).ok_or(PinFault::Malformed)?;
        Ok(VerifiedPin { key: position, ..pin })
    }

    /// What binds a pin that is signed now to the session `id`.
    pub fn binding(&self, id: &[u8]) -> Option<[u8; 16]> {
        self.keys.first().map(|key| key.binding_of(id))
    }

    /// Whether `pin`, verified with this keyring, is bound to the session `id`. A pin without binding is bound to none.
    pub fn is_bound(&self, pin: &VerifiedPin, id: &[u8]) -> bool {
        let expected = self.keys.get(pin.key).map(|key| key.binding_of(id));
        expected.is_some() && expected == pin.binding
    }
}

/// Never shows a secret.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Key {
    fn new(id: &str, secret: &[u8]) -> Key {
        let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        // Derived, so that all proxies with this key bind alike. No pin is signed over such a text: those begin with the version.
        let derived = mac.clone().chain_update(b"tidegate pin binding").finalize().into_bytes();
        let mut secret = [0; 16];
        secret.iter_mut().zip(derived.iter()).for_each(|(to, from)| *to = *from);
        Key { id: id.to_owned(), mac, binding: SipHasher24::new_with_key(&secret) }
    }

    /// The signature's state over everything that must not be exchanged; lengths keep neighbours apart.
    fn mac_of(&self, app: &str, payload: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&[VERSION]);
        for name in [&self.id, app] {
            mac.update(&(name.len() as u64).to_be_bytes());
            mac.update(name.as_bytes());
        }
        mac.update(payload);
        mac
    }

    fn binding_of(&self, id: &[u8]) -> [u8; 16] {
        self.binding.hash(id).as_bytes()
    }
}

#[cfg(test)]
#[path = "forgeries.rs"]
mod forgeries;
