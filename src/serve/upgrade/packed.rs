//! Sessions as they travel: a byte that says what it is, then fields of fixed length. Backends go by number ([`super::wire::Place`]).

use crate::model::ledger::{EndReason, Found, Noted, Record, Standing};
use crate::model::session_key::SessionKey;
use crate::model::time::Time;

const ENTRY: u8 = b'e';
const GONE: u8 = b'g';
const RENAMED: u8 = b'r';

const UNCONFIRMED: u8 = 0;
const CONFIRMED: u8 = 1;
const CANDIDATE: u8 = 2;
const ENDED: u8 = 3;

const UNSIGNED: u8 = 1;
const TOLD: u8 = 2;

/// Appends a note; `place` numbers the backend of an entry.
pub fn pack(into: &mut Vec<u8>, noted: &Noted, place: u32) {
    match noted {
        Noted::Entry(record) => {
            into.push(ENTRY);
            into.extend(record.key.0);
            into.extend(place.to_le_bytes());
            let (standing, ended) = match record.found.standing {
                Standing::Live { confirmed: false } => (UNCONFIRMED, None),
                Standing::Live { confirmed: true } => (CONFIRMED, None),
                Standing::Candidate => (CANDIDATE, None),
                Standing::Ended(reason) => (ENDED + reason as u8, record.found.ended_at),
            };
            let told = record.found.told_at.map_or(0, |_| TOLD);
            into.extend([standing, told | if record.unsigned { UNSIGNED } else { 0 }, record.doubts]);
            let found = &record.found;
            for time in [found.seen, found.born, found.pinned, record.foreground, ended.unwrap_or_default()] {
                into.extend(time.0.to_le_bytes());
            }
            into.extend(found.birth_scope.to_le_bytes());
        }
        Noted::Gone(key) => {
            into.push(GONE);
            into.extend(key.0);
        }
        Noted::Renamed { old, new } => {
            into.push(RENAMED);
            into.extend(old.0);
            into.extend(new.0);
        }
    }
}

/// Takes the next note off `bytes`; of an entry, `slot` says which backend the number means here. `Ok(None)`: of a backend that
/// does not exist here, and therefore of no concern.
///
/// # Errors
/// Nonsense.
pub fn unpack(bytes: &mut &[u8], slot: impl FnOnce(u32) -> Option<u32>) -> Result<Option<Noted>, &'static str> {
    Ok(match take::<1>(bytes)? {
        [ENTRY] => {
            let key = SessionKey(take(bytes)?);
            let place = u32::from_le_bytes(take(bytes)?);
            let [standing, flags, doubts] = take(bytes)?;
            let mut times = [Time::default(); 5];
            for time in &mut times {
                *time = Time(u64::from_le_bytes(take(bytes)?));
            }
            let [seen, born, pinned, foreground, ended] = times;
            let birth_scope = u32::from_le_bytes(take(bytes)?);
            let standing = match standing {
                UNCONFIRMED => Standing::Live { confirmed: false },
                CONFIRMED => Standing::Live { confirmed: true },
                CANDIDATE => Standing::Candidate,
                reason => {
                    let reason = EndReason::ALL.get(usize::from(reason - ENDED)).copied();
                    Standing::Ended(reason.ok_or("an end of an unknown kind")?)
                }
            };
            let ended_at = matches!(standing, Standing::Ended(_)).then_some(ended);
            let told_at = ended_at.filter(|_| flags & TOLD != 0);
            let Some(slot) = slot(place) else { return Ok(None) };
            let found = Found { slot, standing, seen, born, pinned, open: 0, alias: false, ended_at, told_at, birth_scope };
            Some(Noted::Entry(Record { key, found, foreground, unsigned: flags & UNSIGNED != 0, doubts }))
        }
        [GONE] => Some(Noted::Gone(SessionKey(take(bytes)?))),
        [RENAMED] => Some(Noted::Renamed { old: SessionKey(take(bytes)?), new: SessionKey(take(bytes)?) }),
        _ => return Err("a note of an unknown kind"),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or("half a note")?;
    *bytes = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let found = Found {
            slot: 7,
            standing: Standing::Live { confirmed: true },
            seen: Time(1_795_168_800_100),
            born: Time(1_795_168_000_000),
            pinned: Time(1_795_168_000_200),
            open: 0,
            alias: false,
            ended_at: None,
            told_at: None,
            birth_scope: 0xdead_beef,
        };
        let record = Record { key: SessionKey([9; 16]), found, foreground: Time(1_795_168_800_000), unsigned: true, doubts: 3 };
        let ended = |reason, told_at| {
            let found = Found { standing: Standing::Ended(reason), ended_at: Some(Time(5)), told_at, ..found };
            Noted::Entry(Record { found, unsigned: false, ..record })
        };
        let standing = |standing| Noted::Entry(Record { found: Found { standing, ..found }, ..record });
        let mut all = vec![
            Noted::Gone(SessionKey([1; 16])),
            Noted::Renamed { old: SessionKey([2; 16]), new: SessionKey([3; 16]) },
            Noted::Entry(record),
            standing(Standing::Live { confirmed: false }),
            standing(Standing::Candidate),
            ended(EndReason::Evicted, Some(Time(5))),
        ];
        all.extend(EndReason::ALL.map(|reason| ended(reason, None)));
        let mut bytes = Vec::new();
        all.iter().for_each(|noted| pack(&mut bytes, noted, 40));
        let mut left = bytes.as_slice();
        for noted in &all {
            assert_eq!(unpack(&mut left, |place| Some(place - 33)), Ok(Some(*noted)));
        }
        assert!(left.is_empty());
        let mut left = bytes.as_slice();
        let known = std::iter::from_fn(|| (!left.is_empty()).then(|| unpack(&mut left, |_| None).expect("sense"))).flatten().count();
        assert_eq!(known, 2, "of backends that do not exist here nothing is known");
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&b"x"[..], b"g123", b"e", &[&b"e"[..], &[0; 20], &[99, 0], &[0; 44]].concat()] {
            let mut left = bytes;
            unpack(&mut left, Some).expect_err("nonsense");
        }
    }
}
