//! Statements about many rows at once.
//!
//! A statement has a fixed number of rows, a power of two, so that each text is prepared once.

use std::sync::LazyLock;

/// Statements are for 1, 2, 4, 8, 16 or 32 rows.
const SIZES: usize = 6;
/// Most rows of one statement.
pub(super) const ROWS_MAX: usize = 1 << (SIZES - 1);

/// One text for each size.
pub(super) type Texts = LazyLock<[String; SIZES]>;

pub(super) fn of_sizes(text: fn(usize) -> String) -> [String; SIZES] {
    std::array::from_fn(|size| text(1 << size))
}

/// Cuts rows into parts for which there is a text, the largest first.
pub(super) fn parts<'a, R>(
    rows: &'a [R],
    texts: &'static [String; SIZES],
) -> impl Iterator<Item = (&'a [R], &'static str)> {
    let mut left = rows;
    std::iter::from_fn(move || {
        let (size, text) = texts.iter().enumerate().rev().find(|(size, _)| 1 << size <= left.len())?;
        let (part, rest) = left.split_at_checked(1 << size)?;
        left = rest;
        Some((part, text.as_str()))
    })
}

/// `VALUES` with so many parameters in each row, and the row's number behind them. Parameters have no names: SQLite and sqlx look each
/// name up among all.
pub(super) fn values(rows: usize, parameters: usize) -> String {
    let row = |n| format!("({}{n})", "?, ".repeat(parameters));
    format!("VALUES {}", (0..rows).map(row).collect::<Vec<_>>().join(", "))
}

/// The text for so many rows, [`ROWS_MAX`] at most, and how many it takes: the rest are to be left empty.
pub(super) fn room_for(rows: usize, texts: &'static [String; SIZES]) -> (usize, &'static str) {
    let size = rows.next_power_of_two().trailing_zeros() as usize;
    let size = size.min(SIZES - 1);
    (1 << size, texts.get(size).map_or("", String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_part_that_its_text_is_for() {
        static SIZES_THEMSELVES: Texts = LazyLock::new(|| of_sizes(|rows| rows.to_string()));
        for count in 0..100 {
            let rows: Vec<usize> = (0..count).collect();
            let cut: Vec<_> = parts(&rows, &SIZES_THEMSELVES).collect();
            assert!(cut.iter().all(|(part, text)| part.len().to_string() == *text));
            assert_eq!(cut.iter().flat_map(|(part, _)| *part).copied().collect::<Vec<_>>(), rows);
        }
    }

    #[test]
    fn there_is_room_for_every_row_and_for_less_than_as_many_again() {
        static SIZES_THEMSELVES: Texts = LazyLock::new(|| of_sizes(|rows| rows.to_string()));
        for rows in 1..=ROWS_MAX {
            let (room, text) = room_for(rows, &SIZES_THEMSELVES);
            assert_eq!(text, room.to_string());
            assert!(rows <= room && room < 2 * rows, "{room} for {rows}");
        }
    }
}
