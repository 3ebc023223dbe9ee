//! What the ledger keeps instead of a session id. The hash is keyed, so that neither a stolen ledger reveals ids nor an
//! outsider can prepare ids that collide.

use siphasher::sip128::SipHasher24;

/// Keyed 128-bit hash of a session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub [u8; 16]);

/// Makes [`SessionKey`]s with one secret (SipHash-2-4, 128 bits). The state directory keeps the secret: with another
/// one, every stored key is a stranger.
#[derive(Clone)]
pub struct KeyedHash(SipHasher24);

impl KeyedHash {
    /// A hash under `secret`.
    pub fn new(secret: [u8; 16]) -> KeyedHash {
        KeyedHash(SipHasher24::new_with_key(&secret))
    }

    /// The key of `id`.
    pub fn key(&self, id: &[u8]) -> SessionKey {
        SessionKey(self.0.hash(id).as_bytes())
    }
}

impl std::fmt::Debug for KeyedHash {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedHash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_the_id_and_on_the_secret() {
        let hash = KeyedHash::new([7; 16]);
        assert_eq!(hash.key(b"abc"), KeyedHash::new([7; 16]).key(b"abc"));
        assert_ne!(hash.key(b"abc"), hash.key(b"abd"));
        assert_ne!(hash.key(b"abc"), KeyedHash::new([8; 16]).key(b"abc"));
    }

    #[test]
    fn the_hash_is_siphash_2_4_with_128_bits() {
        // First two vectors of the reference implementation: key 00..0f, inputs "" and 00.
        let hash = KeyedHash::new(std::array::from_fn(|i| i as u8));
        let empty = [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93];
        let zero = [0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45];
        assert_eq!(hash.key(b""), SessionKey(empty));
        assert_eq!(hash.key(&[0]), SessionKey(zero));
    }
}
