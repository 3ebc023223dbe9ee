//! Tables of the state file, and how a session looks in them.
//!
//! SQLite finds pages that are broken, but has no checksum over what is in them; so every row ends with a tag over its table,
//! its key and its content. The tag is no signature: who can write the file can make one.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::model::ledger::{EndReason, Found, Record, Standing};
use crate::model::session_key::SessionKey;
use crate::model::time::Time;

/// `tide`, in the header of the file.
pub(super) const APPLICATION_ID: i32 = 0x7469_6465;
/// Of tables and rows; a later one is refused.
pub(super) const FORMAT: u32 = 1;

/// What makes the tables; compared word by word with what a file has.
pub(super) const TABLES: [(&str, &str); 4] = [
    ("documents", "CREATE TABLE documents (name TEXT PRIMARY KEY, body BLOB NOT NULL, tag INTEGER NOT NULL) WITHOUT ROWID"),
    // The one row tells when the file was last written, by two clocks.
    (
        "moments",
        "CREATE TABLE moments (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, since_boot INTEGER NOT NULL, boot TEXT NOT NULL, tag INTEGER NOT NULL)",
    ),
    // Names of backends; one without release and backend is the app itself.
    (
        "places",
        "CREATE TABLE places (id INTEGER PRIMARY KEY, app TEXT NOT NULL, release TEXT NOT NULL, backend TEXT NOT NULL, tag INTEGER NOT NULL)",
    ),
    ("sessions", "CREATE TABLE sessions (app INTEGER, key BLOB, body BLOB NOT NULL, PRIMARY KEY (app, key)) WITHOUT ROWID"),
];

/// A backend by its names: numbers of one run mean nothing in the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The app.
    pub app: Box<str>,
    /// The release.
    pub release: Box<str>,
    /// The backend.
    pub backend: Box<str>,
}

/// A hash over a table's name and the parts of a row.
pub(super) struct Tag(SipHasher13);

impl Tag {
    pub fn of(table: &str) -> Tag {
        let mut hasher = SipHasher13::new_with_keys(0x7469_6465_6761_7465, u64::from(FORMAT));
        hasher.write(table.as_bytes());
        Tag(hasher)
    }

    pub fn number(mut self, n: i64) -> Tag {
        self.0.write(&n.to_le_bytes());
        self
    }

    /// With its length, so that two texts are not taken for two others.
    pub fn text(self, text: &[u8]) -> Tag {
        let mut tag = self.number(text.len() as i64);
        tag.0.write(text);
        tag
    }

    pub fn end(self) -> i64 {
        self.0.finish().cast_signed()
    }
}

const TIME_BYTES: usize = 5;
const TAG_BYTES: usize = 8;
/// Standing, flags, doubts, place, cookie scope, five times, tag.
pub(super) const BODY: usize = 1 + 1 + 1 + 4 + 4 + 5 * TIME_BYTES + TAG_BYTES;

/// Times are stored in ticks of the ledger, which are the same in every run.
const TICK_MS: u64 = 100;

const UNSIGNED: u8 = 1;
const TOLD: u8 = 2;

/// First of the numbers of ends; before are candidate, newborn and confirmed.
const ENDS: u8 = 3;

/// What is stored of a session at `place` of app number `app`.
pub(super) fn encode(app: i64, place: u32, record: &Record) -> [u8; BODY] {
    let found = &record.found;
    let standing = match found.standing {
        Standing::Candidate => 0,
        Standing::Live { confirmed } => 1 + u8::from(confirmed),
        Standing::Ended(reason) => ENDS + EndReason::ALL.iter().position(|&known| known == reason).map_or(0, |n| n as u8),
    };
    let flags = if record.unsigned { UNSIGNED } else { 0 } | if found.told_at.is_some() { TOLD } else { 0 };
    let times = [found.seen, found.born, found.pinned, record.foreground, found.ended_at.unwrap_or_default()];
    let mut body = Vec::with_capacity(BODY);
    body.extend([standing, flags, record.doubts]);
    body.extend(place.to_le_bytes());
    body.extend(found.birth_scope.to_le_bytes());
    for time in times {
        body.extend(time.0.div_ceil(TICK_MS).to_le_bytes().iter().take(TIME_BYTES));
    }
    body.extend(tag(app, &record.key, &body).to_le_bytes());
    let mut fixed = [0; BODY];
    fixed.iter_mut().zip(body).for_each(|(to, from)| *to = from);
    fixed
}

/// The session and the number of its place; `None` if it is not what was stored. Its slot is to be found by the place.
pub(super) fn decode(app: i64, key: &[u8], body: &[u8]) -> Option<(u32, Record)> {
    let key = SessionKey(key.try_into().ok()?);
    let (content, stored) = body.split_last_chunk::<TAG_BYTES>()?;
    if body.len() != BODY || i64::from_le_bytes(*stored) != tag(app, &key, content) {
        return None;
    }
    let ([standing, flags, doubts], rest) = content.split_first_chunk()?;
    let (place, rest) = rest.split_first_chunk()?;
    let (scope, rest) = rest.split_first_chunk()?;
    let mut times = rest.chunks_exact(TIME_BYTES).map(|bytes| {
        let ticks = bytes.iter().rev().fold(0, |ticks, &byte| ticks << 8 | u64::from(byte));
        Time(ticks * TICK_MS)
    });
    let (seen, born, pinned, foreground, ended) = (times.next()?, times.next()?, times.next()?, times.next()?, times.next()?);
    let standing = match *standing {
        0 => Standing::Candidate,
        1 => Standing::Live { confirmed: false },
        2 => Standing::Live { confirmed: true },
        n => Standing::Ended(*EndReason::ALL.get(usize::from(n - ENDS))?),
    };
    let ended_at = matches!(standing, Standing::Ended(_)).then_some(ended);
    let found = Found {
        slot: u32::MAX,
        standing,
        seen,
        born,
        pinned,
        open: 0,
        alias: false,
        ended_at,
        told_at: ended_at.filter(|_| flags & TOLD != 0),
        birth_scope: u32::from_le_bytes(*scope),
    };
    Some((u32::from_le_bytes(*place), Record { key, found, foreground, unsigned: flags & UNSIGNED != 0, doubts: *doubts }))
}

fn tag(app: i64, key: &SessionKey, content: &[u8]) -> i64 {
    Tag::of("sessions").number(app).text(&key.0).text(content).end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_stored_or_not_at_all() {
        let standings = [Standing::Candidate, Standing::Live { confirmed: false }, Standing::Live { confirmed: true }];
        for standing in standings.into_iter().chain(EndReason::ALL.map(Standing::Ended)) {
            let ended_at = matches!(standing, Standing::Ended(_)).then_some(Time(1_700_000_002_100));
            let found = Found {
                slot: u32::MAX,
                standing,
                seen: Time(1_700_000_000_100),
                born: Time(1_600_000_000_000),
                pinned: Time(0),
                open: 0,
                alias: false,
                ended_at,
                told_at: ended_at,
                birth_scope: 0xfedc_ba98,
            };
            let record = Record { key: SessionKey([7; 16]), found, foreground: Time(1_700_000_000_000), unsigned: true, doubts: 3 };
            let body = encode(3, 9, &record);
            assert_eq!(decode(3, &[7; 16], &body), Some((9, record)), "{standing:?}");
            assert_eq!(decode(4, &[7; 16], &body), None, "of another app");
            assert_eq!(decode(3, &[8; 16], &body), None, "of another name");
            for bit in 0..BODY * 8 {
                let mut flipped = body;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(3, &[7; 16], &flipped), None, "bit {bit}");
            }
        }
    }
}
