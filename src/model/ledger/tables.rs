//! All entries of a shard: a list of small tables, to which one is added whenever all are as full as they should be.
//!
//! Growth must neither move many entries at once, or some request waits for it, nor let memory lie idle. So tables come in sets. A
//! new table takes its share from the tables of one set, and leaves where they are those it does not take; each set gets one in its
//! turn. Instead of the eighth table it becomes two sets of four. (This is linear hashing with partial expansions, by Larson. One that
//! splits table by table has them a third empty and more; tables that grow on their own have many sizes, and what an allocator
//! keeps of each is lost.) So the longest insertion puts three thousand entries in anew, however many there are. Tables never become
//! fewer.
//!
//! A [`Place`] is valid until the next insertion into the shard, or until its entry is removed.

use super::entry::{Entry, UNARMED};
use super::room::Shelf;
use super::table::{FULL, GROUP, Hash, Table};
use crate::model::session_key::SessionKey;

/// Entries per table on average, once there is more than one. While the sets of four get a fifth table, the last ones to get it
/// have a quarter more: then some of their tables are full, and grow on their own until the set is halved. With more entries per
/// table too many would, with fewer an entry weighs more. (Where entries come and go in that phase, more of them grow: up to a twentieth
/// of memory in all.)
const TABLE: usize = if cfg!(test) { 11 } else { 370 };

/// Groups of a table: with 31 its entries are a little less than 32 KiB, and fit a size that allocators have. Smaller tables would be
/// so many, in a ledger of ten million, that the list of them falls out of the cache; larger ones take longer to halve a set.
const GROUPS: usize = if cfg!(test) { 1 } else { 31 };

/// Tables of a set when it is made by halving another; it is halved when it would get twice as many.
const SET: u32 = 4;

/// Tables whose due entries are fetched at once.
const AT_ONCE: usize = 8;

/// Entries among which the oldest is looked for when room is needed.
const SAMPLE: usize = 16;

/// Tables that are asked for so many: where few entries are on a shelf, one table would have the newest for its oldest.
const SAMPLED: usize = 8;

#[derive(Debug)]
pub(super) struct Tables {
    /// Table `j` of set `n` has the number `j * sets + n`.
    tables: Vec<Table>,
    /// Beside each table: none of its entries need be looked at earlier.
    dues: Vec<u32>,
    len: usize,
    sets: Sets,
    /// By [`Shelf`], a bit for each table that has entries on it.
    stocked: [Vec<u64>; Shelf::ALL.len()],
    cursors: [Cursor; Shelf::ALL.len()],
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    table: u32,
    place: u32,
}

/// A reading of all entries of a shard, under many holds of its lock: `part` of the `parts` sets that there were when it began.
/// What was in a set then stays in the tables of that number, modulo `parts`. So each entry that is here throughout is met exactly
/// once, however the tables grow meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    part: u32,
    parts: u32,
}

impl Part {
    /// The part after this one; `None` after the last.
    pub fn next(self) -> Option<Part> {
        (self.part + 1 < self.parts).then_some(Part { part: self.part + 1, ..self })
    }
}

/// Where the search for something to drop goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    table: u32,
    group: usize,
}

/// How the tables are divided into sets.
#[derive(Clone, Copy, Debug)]
struct Sets {
    /// There are two to the power of this.
    bits: u32,
    /// Tables of a set that has not had its turn.
    tables: u32,
    /// Those below this number have had it: they have one table more. Of sets that would have eight, each is two by then.
    grown: u32,
}

impl Sets {
    /// The number of the table for a hash.
    #[inline]
    fn table(self, hash: Hash) -> u32 {
        let set = hash.set & ((1 << self.bits) - 1);
        let grown = set < self.grown;
        if self.tables + 1 == 2 * SET && grown {
            let bits = self.bits + 1;
            return (member(hash, SET) << bits) + (hash.set & ((1 << bits) - 1));
        }
        (member(hash, self.tables + u32::from(grown)) << self.bits) + set
    }

    fn grow(&mut self) {
        self.grown += 1;
        if self.grown == 1 << self.bits {
            (self.grown, self.tables) = (0, self.tables + 1);
        }
        if self.tables == 2 * SET {
            (self.bits, self.tables) = (self.bits + 1, SET);
        }
    }
}

impl Tables {
    /// One table that has no place yet: an app without visitors costs next to nothing.
    pub fn new() -> Tables {
        let (stocked, cursors) = Default::default();
        let sets = Sets { bits: 0, tables: 1, grown: 0 };
        Tables { tables: vec![Table::default()], dues: vec![UNARMED], len: 0, sets, stocked, cursors }
    }

    /// The place of `key`, which is probably here.
    #[inline]
    pub fn find_known(&self, key: &SessionKey) -> Option<Place> {
        let (hash, number, table) = self.home(key)?;
        table.fetch(hash);
        Some(Place { table: number, place: table.find(hash, key)? })
    }

    pub fn find(&self, key: &SessionKey) -> Option<Place> {
        let (hash, number, table) = self.home(key)?;
        Some(Place { table: number, place: table.find(hash, key)? })
    }

    #[inline]
    fn home(&self, key: &SessionKey) -> Option<(Hash, u32, &Table)> {
        let hash = Hash::of(key);
        let number = self.sets.table(hash);
        Some((hash, number, self.tables.get(number as usize)?))
    }

    /// Puts an entry in, of a key that is not here.
    pub fn insert(&mut self, entry: Entry) -> Place {
        if self.len >= self.tables.len() * TABLE {
            self.grow();
        }
        self.len += 1;
        self.put(entry)
    }

    fn put(&mut self, entry: Entry) -> Place {
        let table = self.sets.table(Hash::of(&entry.key));
        if self.table(table).is_full() {
            // A small app's table may be a third empty for a while; an unlucky one of many must not.
            let grown = match self.table(table).groups() {
                groups if groups < GROUPS => (groups + groups / 2).max(1 + groups).min(GROUPS),
                groups => groups + groups.div_ceil(4),
            };
            let grown = Table::with_groups(grown);
            let former = std::mem::replace(self.table_mut(table), grown);
            for entry in former.entries() {
                self.table_mut(table).insert(*entry);
            }
        }
        let place = self.table_mut(table).insert(entry);
        self.look_by(table, entry.due);
        if let Some(shelf) = entry.shelf() {
            self.restock(table, shelf);
        }
        Place { table, place }
    }

    /// Adds a table, to the set whose turn it is.
    fn grow(&mut self) {
        let Sets { bits, tables, grown } = self.sets;
        let set = (0..tables).map(|member| (member << bits) + grown);
        let new = self.tables.len() as u32;
        // The first set is fitted: it may be all that a small app ever needs.
        let groups = if bits == 0 { TABLE.div_ceil(FULL) } else { GROUPS };
        self.tables.push(Table::with_groups(groups));
        self.dues.push(UNARMED);
        self.sets.grow();
        if tables + 1 == 2 * SET {
            self.halve(set);
            return;
        }
        for table in set {
            for group in 0..self.table(table).groups() {
                for i in self.taken(table, group) {
                    if self.sets.table(Hash::of(&self.at(i).key)) == new {
                        let entry = self.remove(i);
                        self.put(entry);
                        self.len += 1;
                    }
                }
            }
        }
    }

    /// All entries of a set are put in anew.
    fn halve(&mut self, set: impl Iterator<Item = u32>) {
        let mut all = Vec::new();
        for table in set {
            // As large as the entries of a table: what comes and goes in other sizes leaves holes, or goes back to the system.
            let mut entries = Vec::with_capacity(GROUPS * GROUP);
            entries.extend(self.table(table).entries());
            all.push(entries);
            if self.table(table).groups() == GROUPS {
                self.table_mut(table).clear();
            } else {
                *self.table_mut(table) = Table::with_groups(GROUPS);
            }
            self.set_due(table, UNARMED);
            Shelf::ALL.into_iter().for_each(|shelf| self.restock(table, shelf));
        }
        for entry in all.into_iter().flatten() {
            self.put(entry);
        }
    }

    /// Takes an entry out. No other one changes places.
    pub fn remove(&mut self, i: Place) -> Entry {
        self.len -= 1;
        let entry = self.table_mut(i.table).remove(i.place);
        if let Some(shelf) = entry.shelf() {
            self.restock(i.table, shelf);
        }
        entry
    }

    #[inline]
    pub fn at(&self, i: Place) -> &Entry {
        self.table(i.table).at(i.place)
    }

    #[inline]
    pub fn at_mut(&mut self, i: Place) -> &mut Entry {
        self.table_mut(i.table).at_mut(i.place)
    }

    /// The entry at `i` is to be looked at by `due`, which is earlier than before.
    pub fn advance(&mut self, i: Place, due: u32) {
        self.table_mut(i.table).advance(i.place, due);
        self.look_by(i.table, due);
    }

    /// The next table from `from` on that has entries due by `tick`.
    pub fn next_due(&self, from: u32, tick: u32) -> Option<u32> {
        self.dues.iter().skip(from as usize).position(|&due| due <= tick).map(|n| from + n as u32)
    }

    /// Some tables from `from` on that have entries due by `tick`. Begins to fetch what is to be looked at, for all of them at
    /// once: one after the other would wait for memory three times each.
    pub fn fetch_due(&self, from: u32, tick: u32) -> impl Iterator<Item = u32> + use<> {
        let (mut found, mut quarters) = ([None; AT_ONCE], [0; AT_ONCE]);
        let due = (0..).zip(&self.dues).skip(from as usize).filter(|&(_, &due)| due <= tick);
        for (found, (table, _)) in found.iter_mut().zip(due) {
            *found = Some(table);
        }
        let tables = || found.into_iter().flatten().map(|table| self.table(table));
        tables().for_each(Table::fetch_dues);
        for (quarter, table) in quarters.iter_mut().zip(tables()) {
            *quarter = table.next_due(0, tick).unwrap_or(0);
        }
        quarters.into_iter().zip(tables()).for_each(|(quarter, table)| table.fetch_quarter(quarter));
        found.into_iter().flatten()
    }

    /// The next quarter of a group of `table` from `from` on that has such entries.
    pub fn next_due_quarter(&self, table: u32, from: usize, tick: u32) -> Option<usize> {
        self.table(table).next_due(from, tick)
    }

    /// Takes those entries of a quarter that are due by `tick` off the list of what is to be looked at.
    pub fn disarm(&mut self, table: u32, quarter: usize, tick: u32) -> impl Iterator<Item = Place> + use<> {
        self.table_mut(table).disarm(quarter, tick).map(move |place| Place { table, place })
    }

    /// All that was due in `table` has been looked at.
    pub fn looked_at(&mut self, table: u32) {
        let due = self.table(table).due();
        self.set_due(table, due);
    }

    /// The entry at `i` is on another shelf, or on none any more.
    pub fn reshelve(&mut self, i: Place, from: Option<Shelf>, to: Option<Shelf>) {
        self.table_mut(i.table).reshelve(i.place, from, to);
        for shelf in [from, to].into_iter().flatten() {
            self.restock(i.table, shelf);
        }
    }

    /// The oldest entry of some that are on `shelf`: [`SAMPLE`] of up to [`SAMPLED`] tables, each time from where the last search ended. So
    /// all get their turn, and what is found is among the oldest, for a bounded price.
    pub fn oldest(&mut self, shelf: Shelf) -> Option<Place> {
        let mut cursor = self.cursors.get(shelf as usize).copied()?;
        let (mut oldest, mut seen) = (None, 0);
        for _ in 0..SAMPLED {
            let table = self.next_stocked(cursor.table, shelf)?;
            if table != cursor.table {
                cursor = Cursor { table, group: 0 };
            }
            while seen < SAMPLE
                && let Some(next) = self.table(table).next_shelved(cursor.group, shelf)
            {
                for place in self.table(table).taken(next) {
                    let entry = self.table(table).at(place);
                    if entry.shelf() == Some(shelf) {
                        seen += 1;
                        if oldest.is_none_or(|(since, _)| entry.shelved_since() < since) {
                            oldest = Some((entry.shelved_since(), Place { table, place }));
                        }
                    }
                }
                cursor.group = next + 1;
            }
            if seen >= SAMPLE {
                break;
            }
            cursor = Cursor { table: table + 1, group: 0 };
        }
        if let Some(place) = self.cursors.get_mut(shelf as usize) {
            *place = cursor;
        }
        oldest.map(|(_, place)| place)
    }

    /// The next table from `from` on that has entries on `shelf`, the first one after the last.
    fn next_stocked(&self, from: u32, shelf: Shelf) -> Option<u32> {
        let bits = self.stocked.get(shelf as usize)?;
        let from = if (from as usize) < bits.len() * 64 { from } else { 0 };
        let (first, below) = (from as usize / 64, (1 << (from % 64)) - 1);
        let words = (first..bits.len()).chain(0..bits.len().min(first + 1));
        // The first word is looked at without what lies before `from`, and once more, whole, at the end of the round.
        let masks = std::iter::once(!below).chain(std::iter::repeat(u64::MAX));
        words.zip(masks).find_map(|(word, mask)| {
            let bits = bits.get(word)? & mask;
            (bits != 0).then(|| (word * 64) as u32 + bits.trailing_zeros())
        })
    }

    fn restock(&mut self, table: u32, shelf: Shelf) {
        let has_some = self.table(table).shelved(shelf) > 0;
        let (word, bit) = (table as usize / 64, 1 << (table % 64));
        let Some(bits) = self.stocked.get_mut(shelf as usize) else { return };
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        if let Some(bits) = bits.get_mut(word) {
            *bits = if has_some { *bits | bit } else { *bits & !bit };
        }
    }

    /// Where a reading of all entries begins.
    pub fn begin(&self) -> Part {
        Part { part: 0, parts: 1 << self.sets.bits }
    }

    /// The tables of a part.
    pub fn tables_of(&self, part: Part) -> impl Iterator<Item = u32> + use<> {
        (part.part..self.tables.len() as u32).step_by(part.parts as usize)
    }

    pub fn groups(&self, table: u32) -> usize {
        self.table(table).groups()
    }

    /// The entries of a group, by their places.
    pub fn taken(&self, table: u32, group: usize) -> impl Iterator<Item = Place> + use<> {
        self.table(table).taken(group).map(move |place| Place { table, place })
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        let lists = self.tables.capacity() * size_of::<Table>() + self.dues.capacity() * size_of::<u32>();
        lists + self.tables.iter().map(Table::bytes).sum::<usize>()
    }

    fn look_by(&mut self, table: u32, due: u32) {
        if let Some(least) = self.dues.get_mut(table as usize) {
            *least = due.min(*least);
        }
    }

    fn set_due(&mut self, table: u32, due: u32) {
        if let Some(least) = self.dues.get_mut(table as usize) {
            *least = due;
        }
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "numbers of tables come from `Sets` and from places, and tables only become more")]
    fn table(&self, table: u32) -> &Table {
        &self.tables[table as usize]
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "numbers of tables come from `Sets` and from places, and tables only become more")]
    fn table_mut(&mut self, table: u32) -> &mut Table {
        &mut self.tables[table as usize]
    }
}

/// Which of the `count` tables of its set an entry goes to. With one more table it stays where it is, or goes there.
#[inline]
#[expect(clippy::indexing_slicing, reason = "fewer than twice `SET`, and a part of `SLOTS`")]
fn member(hash: Hash, count: u32) -> u32 {
    u32::from(MEMBERS[count as usize][(usize::from(hash.slot) * SLOTS) >> 16])
}

/// Divisible by all numbers of tables in a set.
const SLOTS: usize = 420;

/// By number of tables, which of them a slot leads to.
static MEMBERS: [[u8; SLOTS]; 2 * SET as usize] = members();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn members() -> [[u8; SLOTS]; 2 * SET as usize] {
    let mut rows = [[0; SLOTS]; 2 * SET as usize];
    let mut count = 2;
    while count < rows.len() {
        // Each of the former tables gives an equal share to the new one.
        let share = SLOTS / (count * (count - 1));
        let mut given = [0; 2 * SET as usize];
        let mut slot = 0;
        while slot < SLOTS {
            let former = rows[count - 1][slot];
            let gives = given[former as usize] < share;
            given[former as usize] += gives as usize;
            rows[count][slot] = if gives { count as u8 - 1 } else { former };
            slot += 1;
        }
        count += 1;
    }
    rows
}

#[cfg(test)]
impl Tables {
    pub fn count(&self) -> usize {
        self.tables.len()
    }

    /// How many groups all searches go past, if each entry is looked for once.
    pub fn further_on(&self) -> usize {
        self.tables.iter().map(Table::further_on).sum()
    }

    /// All entries, after a recount of everything that is kept beside them.
    pub fn audited(&self) -> Vec<Entry> {
        let mut all = Vec::new();
        for (n, table) in (0..).zip(&self.tables) {
            let entries = table.audited();
            for entry in &entries {
                assert_eq!(self.find(&entry.key).map(|i| (i.table, self.at(i).key)), Some((n, entry.key)));
            }
            assert!(self.dues[n as usize] <= table.due(), "table {n}");
            for shelf in Shelf::ALL {
                let bit = self.stocked[shelf as usize].get(n as usize / 64).is_some_and(|bits| bits & 1 << (n % 64) != 0);
                assert_eq!(bit, table.shelved(shelf) > 0, "table {n}");
            }
            all.extend(entries);
        }
        assert_eq!(all.len(), self.len);
        assert!(self.len <= self.tables.len() * TABLE);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_table_takes_an_equal_share_of_each_and_nothing_else_moves() {
        for count in 1..MEMBERS.len() {
            for member in 0..count as u8 {
                let slots = MEMBERS[count].iter().filter(|&&of| of == member).count();
                assert_eq!(slots, SLOTS / count, "slots of {member} of {count}");
            }
            let stays = |&(former, now): &(&u8, &u8)| former == now || usize::from(*now) == count - 1;
            assert!(MEMBERS[count - 1].iter().zip(&MEMBERS[count]).all(|pair| count == 1 || stays(&pair)), "{count}");
        }
    }
}
