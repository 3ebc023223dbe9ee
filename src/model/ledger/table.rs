//! One table of entries: open addressing in groups of 16 places, where an entry is one cache line.
//!
//! A key has a home group, and in it a place that it prefers. A byte of the key, its *tag*, stands beside the group for each entry
//! in it; so a look-up reads one group of tags and, as a rule, one entry. Where a group is full its entries lie further on, and it
//! counts them: a group that sent nobody on ends every search. So nothing is left behind by an entry that goes (no tombstones), and
//! a table whose entries come and go does not become slower and slower: one entry in ten lies beyond its home group then.

use std::hint::black_box;

use super::entry::{Entry, UNARMED};
use super::room::Shelf;
use crate::model::session_key::SessionKey;

/// Places of a group: as many as are compared at once.
pub(super) const GROUP: usize = 16;

/// A table is full when this many places of two groups are taken on average. Strangers are looked for in many groups by then.
pub(super) const FULL: usize = 31;

/// Entries that are looked at together when one of them is due: fewer would cost more memory beside them, more would cost more
/// looks in vain.
const QUARTER: usize = GROUP / 4;

/// Bytes that memory brings at once.
const LINE: usize = 64;

/// The lowest bit of each of 16 bytes, and the highest.
const ONES: u128 = u128::MAX / 0xff;
const HIGHEST: u128 = ONES << 7;

/// The tag of a vacant place.
const VACANT: u8 = 0;

/// What a key says of its place, from bytes that are as good as random (the last byte tells its shard).
#[derive(Clone, Copy)]
pub(super) struct Hash {
    /// Its low bits are the number of its set of tables.
    pub set: u32,
    /// Chooses a table of the set.
    pub slot: u16,
    group: u32,
    tag: u8,
}

impl Hash {
    #[inline]
    pub fn of(key: &SessionKey) -> Hash {
        let bits = u128::from_le_bytes(key.0);
        Hash { set: (bits >> 64) as u32, slot: (bits >> 16) as u16, group: (bits >> 32) as u32, tag: (bits as u8).max(VACANT + 1) }
    }

    /// In the order of the hash, so that a table that grows is read and written in order.
    #[inline]
    fn group(self, groups: usize) -> usize {
        ((u64::from(self.group) * groups as u64) >> 32) as usize
    }

    /// The place in its group that it prefers: a part of the tag, so that the tag of an entry tells whether it lies there.
    #[inline]
    fn preferred(self) -> usize {
        preferred(self.tag)
    }
}

fn preferred(tag: u8) -> usize {
    usize::from(tag) % GROUP
}

/// The next best place: memory often brings two lines where one was asked for.
fn beside(place: usize) -> usize {
    place ^ 1
}

/// What is kept beside the entries of a group.
#[derive(Clone, Copy, Debug)]
struct Group {
    tags: [u8; GROUP],
    /// Entries that lie further on because this group was full when they came. Once at its most it stays there.
    passed: u8,
    /// Entries on each shelf.
    shelved: [u8; Shelf::ALL.len()],
}

impl Group {
    const EMPTY: Group = Group { tags: [VACANT; GROUP], passed: 0, shelved: [0; Shelf::ALL.len()] };

    /// One bit per place with this tag, the highest of eight. Exact: the quicker test that is right about the lowest match alone
    /// would now and then find what was taken out.
    #[inline]
    fn matches(&self, tag: u8) -> u128 {
        let differing = u128::from_le_bytes(self.tags) ^ (ONES * u128::from(tag));
        // Below the highest bit nothing is carried into the next byte.
        !(((differing & !HIGHEST) + !HIGHEST) | differing) & HIGHEST
    }

    /// A vacant place, the one beside `wanted` if it is.
    fn vacant(&self, wanted: usize) -> Option<usize> {
        if self.tags.get(beside(wanted)) == Some(&VACANT) {
            return Some(beside(wanted));
        }
        let vacant = self.matches(VACANT);
        (vacant != 0).then(|| vacant.trailing_zeros() as usize / 8)
    }
}

/// Aligned to a cache line, so that it is one.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Table {
    entries: Box<[Entry]>,
    groups: Box<[Group]>,
    /// None of the entries of each quarter need be looked at earlier.
    dues: Box<[u32]>,
    len: u32,
    shelved: [u32; Shelf::ALL.len()],
}

impl Table {
    pub fn with_groups(groups: usize) -> Table {
        Table {
            entries: vec![Entry::newborn(SessionKey([0; 16]), 0, 0, 0); groups * GROUP].into_boxed_slice(),
            groups: vec![Group::EMPTY; groups].into_boxed_slice(),
            dues: vec![UNARMED; groups * GROUP / QUARTER].into_boxed_slice(),
            ..Table::default()
        }
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.groups.fill(Group::EMPTY);
        self.dues.fill(UNARMED);
        self.entries.iter_mut().for_each(|entry| entry.due = UNARMED);
        (self.len, self.shelved) = Default::default();
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= self.groups.len() * FULL / 2
    }

    /// Begins to fetch the entry from where it prefers to lie: two of three do. Whoever looks for its tag next waits for both at
    /// once.
    #[inline]
    pub fn fetch(&self, hash: Hash) {
        let group = hash.group(self.groups.len());
        black_box(self.entries.get(group * GROUP + hash.preferred()).map(|entry| entry.slot));
    }

    /// The place of `key`.
    #[inline]
    pub fn find(&self, hash: Hash, key: &SessionKey) -> Option<u32> {
        let mut g = hash.group(self.groups.len());
        for _ in 0..self.groups.len() {
            let group = self.groups.get(g)?;
            let mut matches = group.matches(hash.tag);
            while matches != 0 {
                let place = g * GROUP + matches.trailing_zeros() as usize / 8;
                if self.entries.get(place)?.key == *key {
                    return Some(place as u32);
                }
                matches &= matches - 1;
            }
            if group.passed == 0 {
                return None;
            }
            g = self.next(g);
        }
        None
    }

    /// Puts an entry in, of a key that is not here; the table is not full. Entries of its group may change places.
    pub fn insert(&mut self, entry: Entry) -> u32 {
        debug_assert!(!self.is_full(), "a search for a vacant place ends");
        let hash = Hash::of(&entry.key);
        let mut g = hash.group(self.groups.len());
        let (group, vacant) = loop {
            match self.group(g).vacant(hash.preferred()) {
                Some(vacant) => break (g, vacant),
                None => {
                    let group = self.group(g);
                    group.passed = group.passed.saturating_add(1);
                    g = self.next(g);
                }
            }
        };
        let place = self.make_way(group, vacant, hash.preferred());
        let shelf = entry.shelf();
        *self.at_mut((group * GROUP + place) as u32) = entry;
        if let Some(tag) = self.group(group).tags.get_mut(place) {
            *tag = hash.tag;
        }
        self.look_by((group * GROUP + place) as u32, entry.due);
        self.len += 1;
        self.shelve(group, shelf, 1);
        (group * GROUP + place) as u32
    }

    /// Whoever prefers a place gets it from one that does not.
    #[expect(clippy::indexing_slicing, reason = "places of a group and of its entries")]
    fn make_way(&mut self, group: usize, vacant: usize, wanted: usize) -> usize {
        let tags = &mut self.groups[group].tags;
        match tags[wanted] {
            VACANT => wanted,
            tag if preferred(tag) == wanted => vacant,
            tag => {
                tags[vacant] = tag;
                let first = group * GROUP;
                self.entries[first + vacant] = self.entries[first + wanted];
                self.look_by((first + vacant) as u32, self.entries[first + vacant].due);
                wanted
            }
        }
    }

    /// Takes an entry out. No other one changes places.
    pub fn remove(&mut self, place: u32) -> Entry {
        let entry = *self.at(place);
        let hash = Hash::of(&entry.key);
        let home = place as usize / GROUP;
        let mut g = hash.group(self.groups.len());
        while g != home {
            let group = self.group(g);
            if group.passed < u8::MAX {
                group.passed -= 1;
            }
            g = self.next(g);
        }
        if let Some(tag) = self.group(home).tags.get_mut(place as usize % GROUP) {
            debug_assert!(*tag != VACANT, "an entry is removed once");
            *tag = VACANT;
        }
        self.at_mut(place).due = UNARMED;
        self.len -= 1;
        self.shelve(home, entry.shelf(), -1);
        entry
    }

    /// All entries, in the order of the groups.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let tags = self.groups.iter().flat_map(|group| &group.tags);
        self.entries.iter().zip(tags).filter(|&(_, &tag)| tag != VACANT).map(|(entry, _)| entry)
    }

    /// The places of a group that are taken.
    #[inline]
    pub fn taken(&self, group: usize) -> impl Iterator<Item = u32> + use<> {
        let mut bits = self.groups.get(group).map_or(0, |group| !group.matches(VACANT) & HIGHEST);
        let first = (group * GROUP) as u32;
        std::iter::from_fn(move || {
            let place = (bits != 0).then(|| first + bits.trailing_zeros() / 8)?;
            bits &= bits - 1;
            Some(place)
        })
    }

    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "places come from `insert` and `find`; a wrong one is a bug that must not corrupt counts silently"
    )]
    pub fn at(&self, place: u32) -> &Entry {
        &self.entries[place as usize]
    }

    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "places come from `insert` and `find`; a wrong one is a bug that must not corrupt counts silently"
    )]
    pub fn at_mut(&mut self, place: u32) -> &mut Entry {
        &mut self.entries[place as usize]
    }

    /// The entry at `place` is to be looked at by `due`, which is earlier than before.
    pub fn advance(&mut self, place: u32, due: u32) {
        self.at_mut(place).due = due;
        self.look_by(place, due);
    }

    fn look_by(&mut self, place: u32, due: u32) {
        if let Some(least) = self.dues.get_mut(place as usize / QUARTER) {
            *least = due.min(*least);
        }
    }

    /// The next quarter from `from` on with an entry that is due by `tick`.
    pub fn next_due(&self, from: usize, tick: u32) -> Option<usize> {
        self.dues.iter().skip(from).position(|&due| due <= tick).map(|n| from + n)
    }

    /// Takes those entries of a quarter that are due by `tick` off the list of what is to be looked at, and answers their places.
    pub fn disarm(&mut self, quarter: usize, tick: u32) -> impl Iterator<Item = u32> + use<> {
        let first = quarter * QUARTER;
        let (mut least, mut places) = (UNARMED, 0_u8);
        for (n, entry) in self.entries.iter_mut().skip(first).take(QUARTER).enumerate() {
            // Vacant places are never due.
            if entry.due <= tick {
                entry.due = UNARMED;
                places |= 1 << n;
            }
            least = least.min(entry.due);
        }
        if let Some(due) = self.dues.get_mut(quarter) {
            *due = least;
        }
        (0..QUARTER).filter(move |n| places & 1 << n != 0).map(move |n| (first + n) as u32)
    }

    /// Begins to fetch what [`Table::next_due`] reads.
    pub fn fetch_dues(&self) {
        self.dues.iter().step_by(LINE / size_of::<u32>()).for_each(|due| {
            black_box(*due);
        });
    }

    /// Begins to fetch the entries of a quarter.
    pub fn fetch_quarter(&self, quarter: usize) {
        self.entries.iter().skip(quarter * QUARTER).take(QUARTER).for_each(|entry| {
            black_box(entry.due);
        });
    }

    /// None of the entries need be looked at earlier.
    pub fn due(&self) -> u32 {
        self.dues.iter().copied().min().unwrap_or(UNARMED)
    }

    /// The entry at `place` is on another shelf, or on none any more.
    pub fn reshelve(&mut self, place: u32, from: Option<Shelf>, to: Option<Shelf>) {
        self.shelve(place as usize / GROUP, from, -1);
        self.shelve(place as usize / GROUP, to, 1);
    }

    fn shelve(&mut self, group: usize, shelf: Option<Shelf>, change: i8) {
        let Some(shelf) = shelf else { return };
        if let Some(n) = self.group(group).shelved.get_mut(shelf as usize) {
            *n = n.wrapping_add_signed(change);
        }
        if let Some(n) = self.shelved.get_mut(shelf as usize) {
            *n = n.wrapping_add_signed(i32::from(change));
        }
    }

    /// Entries on a shelf.
    pub fn shelved(&self, shelf: Shelf) -> u32 {
        self.shelved.get(shelf as usize).copied().unwrap_or(0)
    }

    /// The next group from `from` on that has entries on a shelf.
    pub fn next_shelved(&self, from: usize, shelf: Shelf) -> Option<usize> {
        let has_some = |group: &Group| group.shelved.get(shelf as usize).is_some_and(|&n| n > 0);
        self.groups.iter().skip(from).position(has_some).map(|n| from + n)
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + size_of_val(&*self.groups) + size_of_val(&*self.dues)
    }

    fn next(&self, group: usize) -> usize {
        if group + 1 == self.groups.len() { 0 } else { group + 1 }
    }

    #[expect(clippy::indexing_slicing, reason = "groups come from a hash and a place, which the number of groups bounds")]
    fn group(&mut self, group: usize) -> &mut Group {
        &mut self.groups[group]
    }
}

#[cfg(test)]
impl Table {
    /// How many groups all searches go past, if each entry is looked for once.
    pub fn further_on(&self) -> usize {
        self.groups.iter().map(|group| usize::from(group.passed)).sum()
    }

    /// All entries, after a recount of everything that is kept beside them.
    pub fn audited(&self) -> Vec<Entry> {
        let entries: Vec<Entry> = self.entries().copied().collect();
        assert_eq!((entries.len(), self.entries.len()), (self.len(), self.groups.len() * GROUP));
        let mut passed = vec![0; self.groups.len()];
        for (g, group) in self.groups.iter().enumerate() {
            let here: Vec<Entry> = self.taken(g).map(|place| *self.at(place)).collect();
            let due = |place: u32| self.dues[place as usize / QUARTER];
            assert!(self.taken(g).all(|place| due(place) <= self.at(place).due), "group {g}");
            let on = |shelf| here.iter().filter(|entry| entry.shelf() == Some(shelf)).count();
            assert_eq!(group.shelved.map(usize::from), Shelf::ALL.map(on), "group {g}");
            for place in self.taken(g) {
                let entry = self.at(place);
                let hash = Hash::of(&entry.key);
                assert_eq!(group.tags[place as usize % GROUP], hash.tag);
                assert_eq!(self.find(hash, &entry.key), Some(place), "{entry:?}");
                let mut from = hash.group(self.groups.len());
                while from != g {
                    passed[from] += 1;
                    from = self.next(from);
                }
            }
        }
        let taken = |n: usize| self.groups[n / GROUP].tags[n % GROUP] != VACANT;
        assert!(self.entries.iter().enumerate().all(|(n, entry)| taken(n) || entry.due == UNARMED), "vacant places wait for nothing");
        for (group, passed) in self.groups.iter().zip(passed) {
            assert!(group.passed == u8::MAX || usize::from(group.passed) == passed);
        }
        let sum = |shelf: usize| self.groups.iter().map(|group| u32::from(group.shelved[shelf])).sum::<u32>();
        assert_eq!(self.shelved, std::array::from_fn(sum));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::simulation::Dice;
    use super::*;

    #[test]
    fn tags_match_those_that_are_alike_and_no_others() {
        let mut dice = Dice(1);
        for _ in 0..20_000 {
            // Neighbours in value too: a carry from one byte into the next would show.
            let few = 1 << dice.below(8);
            let group = Group { tags: std::array::from_fn(|_| dice.below(few + 1) as u8), ..Group::EMPTY };
            for tag in [0, 1, 2, 127, 128, 255, dice.below(256) as u8] {
                let expected = group.tags.iter().rev().fold(0_u128, |bits, &other| bits << 8 | if other == tag { 0x80 } else { 0 });
                assert_eq!(group.matches(tag), expected, "{tag} in {:?}", group.tags);
            }
        }
    }
}
