//! A table of text: columns as wide as their widest cell.
//!
//! Widths are those of what is seen, so that a table lines up with colours and without.

use super::medium::{Medium, Text, Tone};

/// A heading that begins with `>` aligns its column to the right.
pub struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<Text>>,
}

impl Table {
    /// With its headings.
    pub fn new(headings: &[&str]) -> Table {
        let mut table = Table { right: Vec::new(), rows: vec![Vec::new()] };
        headings.iter().for_each(|heading| table.heading(heading));
        table
    }

    /// One more column; before the first row.
    pub fn heading(&mut self, heading: &str) {
        self.right.push(heading.starts_with('>'));
        self.rows.iter_mut().take(1).for_each(|row| row.push(Text::of(Tone::Title, heading.trim_start_matches('>'))));
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<Text>) {
        self.rows.push(cells);
    }

    /// A line for each row.
    pub fn on(&self, medium: Medium) -> String {
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(Text::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            // Blanks come before what follows them: none end a line.
            let mut blanks = 0;
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let pad = width - cell.len();
                blanks += if *right { pad } else { 0 };
                if cell.len() > 0 {
                    text.push_str(&" ".repeat(blanks));
                    text.push_str(&cell.on(medium));
                    blanks = 0;
                }
                blanks += 2 + if *right { 0 } else { pad };
            }
            text.push('\n');
        }
        text
    }
}
