//! The positions of an image window by window, and what attention within windows adds to its scores.

/// An order of the positions of an image: bands of `height` rows from the top, each column by column, behind a cyclic
/// shift. The positions of a window of that height are then consecutive. One band of all rows is a transpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bands {
    /// Rows of the image.
    pub rows: usize,
    /// Columns of the image.
    pub columns: usize,
    /// Rows of a band, which divide those of the image.
    pub height: usize,
    /// Row `down` comes first, as behind `torch.roll` by `-down`.
    pub down: usize,
    /// Column `right` comes first.
    pub right: usize,
}

impl Bands {
    /// Where the position that comes `i`-th stands in the image, row by row.
    pub fn place(&self, i: usize) -> usize {
        let (row, column, band) =
            (i % self.height, i / self.height % self.columns, i / self.height / self.columns);
        let row = (band * self.height + row + self.down) % self.rows;
        row * self.columns + (column + self.right) % self.columns
    }
}

/// Square windows of an image whose attention knows relative positions and, behind a shift, what was apart before it (Liu et
/// al. 2021). Tokens of a window come column by column ([`Bands`]), windows row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Rows of a window, and its columns.
    pub side: usize,
    /// Rows of windows.
    pub rows: usize,
    /// Windows in a row.
    pub columns: usize,
    /// The cyclic shift upwards; below `side`.
    pub down: usize,
    /// The cyclic shift to the left; below `side`.
    pub right: usize,
}

impl Windows {
    /// What is added to the score of two tokens that the shift made neighbours.
    pub const APART: f32 = -100.0;

    /// Windows of an image.
    pub fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// Tokens of a window.
    pub fn tokens(&self) -> usize {
        self.side * self.side
    }

    /// Rows of the table of relative positions.
    pub fn offsets(&self) -> usize {
        (2 * self.side).saturating_sub(1).pow(2)
    }

    /// The row of the table for a query and a key: how far the query is below, then how far to the right.
    pub fn offset(&self, query: usize, key: usize) -> usize {
        let apart = |query: usize, key: usize| query + self.side - 1 - key;
        apart(query % self.side, key % self.side) * (2 * self.side - 1)
            + apart(query / self.side, key / self.side)
    }

    /// Whether two tokens of a window were apart in the image before the shift.
    pub fn were_apart(&self, window: usize, a: usize, b: usize) -> bool {
        let wrapped = |last: bool, at: usize, shift: usize| last && at + shift >= self.side;
        let last =
            (window / self.columns % self.rows + 1 == self.rows, window % self.columns + 1 == self.columns);
        let region = |i: usize| {
            (wrapped(last.0, i % self.side, self.down), wrapped(last.1, i / self.side, self.right))
        };
        region(a) != region(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_hold_windows_column_by_column_behind_the_shift() {
        let bands = Bands { rows: 4, columns: 4, height: 2, down: 1, right: 0 };
        let order: Vec<usize> = (0..16).map(|i| bands.place(i)).collect();
        assert_eq!(order, [4, 8, 5, 9, 6, 10, 7, 11, 12, 0, 13, 1, 14, 2, 15, 3]);
        let transpose = Bands { rows: 2, columns: 3, height: 2, down: 0, right: 0 };
        assert_eq!((0..6).map(|i| transpose.place(i)).collect::<Vec<_>>(), [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn offsets_are_of_query_and_key_and_only_the_last_windows_hold_what_was_apart() {
        let windows = Windows { side: 2, rows: 2, columns: 3, down: 1, right: 0 };
        assert_eq!(
            (windows.offsets(), windows.offset(0, 0), windows.offset(0, 1), windows.offset(2, 0)),
            (9, 4, 1, 5)
        );
        let apart = |window| (0..4).filter(|&i| windows.were_apart(window, 0, i)).collect::<Vec<_>>();
        assert_eq!((apart(2), apart(3), apart(5)), (vec![], vec![1, 3], vec![1, 3]));
        let still = Windows { down: 0, ..windows };
        assert!(!still.were_apart(5, 0, 3));
    }
}
