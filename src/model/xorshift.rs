//! Dice for tests: xorshift64*, seeded, so that the seed is the bug report. Never a source of secrets.

/// A generator that repeats itself for the same seed.
pub struct Xorshift(pub u64);

impl Xorshift {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of `choices`.
    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// Up to `most` octets, drawn from all 256 values or, half of the time, from `alphabet`.
    pub fn octets(&mut self, most: usize, alphabet: &[u8]) -> Vec<u8> {
        let wild = self.below(2) == 0;
        (0..self.below(most + 1))
            .map(|_| match wild {
                true => self.next() as u8,
                false => alphabet[self.below(alphabet.len())],
            })
            .collect()
    }
}
