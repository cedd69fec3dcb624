//! Columns of numbers: a borrowed table of f32 or f64 with strides, and its copy in blocks of [`WIDTH`] neighbouring
//! columns, over which a greedy step runs.

use std::ops::Range;

use rayon::prelude::*;

use super::options::Standardize;
use crate::error::{Error, Result};
use crate::ops::philox::{Stream, Use};

/// Columns that a greedy step handles side by side: as f32 they fill a line of the cache.
pub(super) const WIDTH: usize = 16;

/// The same row of [`WIDTH`] columns.
pub(super) type Lanes<T = f64> = [T; WIDTH];

/// A borrowed table of `n` rows and `p` columns.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    values: Values<'a>,
    n: usize,
    p: usize,
    row: usize,    // stride from one row to the next
    column: usize, // stride from one column to the next
}

#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl<'a> Columns<'a> {
    /// `[n, p]`, row-major, f32: row i begins at `i * stride`.
    ///
    /// # Errors
    /// Where `values` is too short or `stride` is less than `p`.
    pub fn from_rows_f32(values: &'a [f32], n: usize, p: usize, stride: usize) -> Result<Columns<'a>> {
        Columns { values: Values::F32(values), n, p, row: stride, column: 1 }.checked()
    }

    /// `[n, p]`, row-major, f64: row i begins at `i * stride`.
    ///
    /// # Errors
    /// Where `values` is too short or `stride` is less than `p`.
    pub fn from_rows_f64(values: &'a [f64], n: usize, p: usize, stride: usize) -> Result<Columns<'a>> {
        Columns { values: Values::F64(values), n, p, row: stride, column: 1 }.checked()
    }

    /// `[p, n]`: `p` columns of `n` f64 one after the other.
    ///
    /// # Errors
    /// Where `values` is too short.
    pub fn from_columns_f64(values: &'a [f64], n: usize, p: usize) -> Result<Columns<'a>> {
        match n {
            1 => Columns::from_rows_f64(values, 1, p, p),
            _ => Columns { values: Values::F64(values), n, p, row: 1, column: n }.checked(),
        }
    }

    /// A part of the columns, which is not empty.
    pub(super) fn part(&self, columns: Range<usize>) -> Columns<'a> {
        let first = columns.start * self.column;
        let values = match self.values {
            Values::F32(v) => Values::F32(&v[first..]),
            Values::F64(v) => Values::F64(&v[first..]),
        };
        Columns { values, p: columns.len(), ..*self }
    }

    /// The number of rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The number of columns.
    pub fn p(&self) -> usize {
        self.p
    }

    /// Column `j`, as f64.
    ///
    /// # Panics
    /// Where there is no such column.
    pub fn column(&self, j: usize) -> Vec<f64> {
        assert!(j < self.p, "column {j} of {}", self.p);
        (0..self.n).map(|i| self.at(i, j)).collect()
    }

    /// Refuses values that are not finite, and reports the first one.
    pub(super) fn check_finite(&self) -> Result<()> {
        let bad = (0..self.n)
            .into_par_iter()
            .with_min_len(16)
            .find_map_first(|i| (0..self.p).find(|&j| !self.at(i, j).is_finite()).map(|j| (i, j)));
        match bad {
            Some((i, j)) => Err(not_finite(i, j, self.at(i, j))),
            None => Ok(()),
        }
    }

    /// Row `i` of column `j`.
    #[inline]
    pub(super) fn at(&self, i: usize, j: usize) -> f64 {
        let at = i * self.row + j * self.column;
        match self.values {
            Values::F32(v) => f64::from(v[at]),
            Values::F64(v) => v[at],
        }
    }

    /// Row `i` of [`WIDTH`] columns from `first` on, rounded to f32; the last column is repeated beyond the end.
    #[inline]
    fn lanes(&self, i: usize, first: usize) -> Lanes<f32> {
        match self.values {
            Values::F32(v) if self.column == 1 && first + WIDTH <= self.p => {
                let start = i * self.row + first;
                std::array::from_fn(|l| v[start..start + WIDTH][l])
            }
            _ => std::array::from_fn(|l| self.at(i, (first + l).min(self.p - 1)) as f32),
        }
    }

    fn checked(self) -> Result<Columns<'a>> {
        let found = match self.values {
            Values::F32(v) => v.len(),
            Values::F64(v) => v.len(),
        };
        let (outer, inner, stride) = match self.column {
            1 => (self.n, self.p, self.row),
            _ => (self.p, self.n, self.column),
        };
        let needed = outer.checked_sub(1).map_or(Some(0), |o| o.checked_mul(stride)?.checked_add(inner));
        if stride < inner || needed.is_none_or(|needed| found < needed) {
            return Err(Error::shape(
                "codec",
                format!("{} rows by {} columns at stride {stride}", self.n, self.p),
                format!("{found} values"),
            ));
        }
        Ok(self)
    }
}

/// Columns as f32 in blocks of [`WIDTH`], the values of a row side by side, with the rows in a given order (their places).
/// Lanes beyond the last column repeat it.
pub(super) struct Packed<'a> {
    of: Columns<'a>,
    rows: Vec<u32>,         // of the table, by place
    columns: Vec<usize>,    // of the table
    lanes: Vec<Lanes<f32>>, // [blocks, n]
    error: Vec<Lanes<f32>>, // [blocks]
}

/// Blocks that are handled together: a block has one cache line of each row, and lines are fetched in twos or fours.
pub(super) const STRIP: usize = 4;
/// Rows that are copied from one column after another before the next rows.
const PART: usize = 64;

impl<'a> Packed<'a> {
    /// Copies a table, with its rows in this order.
    pub fn new(of: Columns<'a>, rows: Vec<u32>) -> Packed<'a> {
        let mut lanes = vec![[0.0; WIDTH]; of.p.div_ceil(WIDTH) * of.n];
        lanes.par_chunks_mut(STRIP * of.n).enumerate().for_each(|(strip, lanes)| {
            for (place, &row) in rows.iter().enumerate() {
                for (block, lanes) in lanes.chunks_exact_mut(of.n).enumerate() {
                    lanes[place] = of.lanes(row as usize, (strip * STRIP + block) * WIDTH);
                }
            }
        });
        let mut error = vec![[0.0; WIDTH]; of.p.div_ceil(WIDTH)];
        if let Values::F64(_) = of.values {
            lanes.par_chunks(of.n).zip(&mut error).enumerate().for_each(|(block, (lanes, error))| {
                for (row, lanes) in rows.iter().zip(lanes) {
                    for (l, error) in error.iter_mut().enumerate() {
                        let value = of.at(*row as usize, (block * WIDTH + l).min(of.p - 1));
                        let found = (value - f64::from(lanes[l])).abs();
                        if found > f64::from(*error) {
                            *error = (found as f32).next_up();
                        }
                    }
                }
            });
        }
        Packed { of, rows, columns: (0..of.p).collect(), lanes, error }
    }

    /// A copy with the rows in another order. It uses the memory of `lanes`, and [`Packed::into_scratch`] returns it.
    pub fn arranged(&self, rows: &[u32], mut lanes: Vec<Lanes<f32>>) -> Packed<'a> {
        let n = rows.len();
        let mut place = vec![0; n];
        self.rows.iter().zip(0..).for_each(|(&row, at)| place[row as usize] = at);
        let from: Vec<u32> = rows.iter().map(|&row| place[row as usize]).collect();
        lanes.resize(self.lanes.len(), [0.0; WIDTH]);
        lanes.par_chunks_mut(n).zip(self.lanes.par_chunks(n)).for_each(|(to, lanes)| {
            to.iter_mut().zip(&from).for_each(|(to, &from)| *to = lanes[from as usize]);
        });
        Packed {
            of: self.of,
            rows: rows.to_vec(),
            columns: self.columns.clone(),
            lanes,
            error: self.error.clone(),
        }
    }

    /// The memory of the values, for reuse.
    pub fn into_scratch(self) -> Vec<Lanes<f32>> {
        self.lanes
    }

    /// Some of the columns, by their numbers here.
    pub fn some(&self, columns: &[usize]) -> Packed<'a> {
        let (n, blocks) = (self.of.n, columns.len().div_ceil(WIDTH));
        let from = |block: usize, l: usize| {
            let j = columns[(block * WIDTH + l).min(columns.len() - 1)];
            (j / WIDTH, j % WIDTH)
        };
        let mut lanes = vec![[0.0; WIDTH]; blocks * n];
        lanes.par_chunks_mut(n).enumerate().for_each(|(block, to)| {
            // One column at a time, in parts that stay in the first-level cache: the values of a row in all columns may map
            // to the same cache sets.
            for (part, to) in to.chunks_mut(PART).enumerate() {
                for l in 0..WIDTH {
                    let (of, lane) = from(block, l);
                    let values = self.block(of).0[part * PART..].iter();
                    to.iter_mut().zip(values).for_each(|(to, values)| to[l] = values[lane]);
                }
            }
        });
        let error = |block| std::array::from_fn(|l| from(block, l)).map(|(of, lane)| self.error[of][lane]);
        Packed {
            of: self.of,
            rows: self.rows.clone(),
            columns: columns.iter().map(|&j| self.columns[j]).collect(),
            lanes,
            error: (0..blocks).map(error).collect(),
        }
    }

    /// The table that was copied.
    pub fn of(&self) -> &Columns<'a> {
        &self.of
    }

    /// The number of columns.
    pub fn p(&self) -> usize {
        self.columns.len()
    }

    /// The number of blocks.
    pub fn blocks(&self) -> usize {
        self.error.len()
    }

    /// Whether every value of a column is an f32.
    pub fn is_f32(&self, j: usize) -> bool {
        self.error[j / WIDTH][j % WIDTH] == 0.0
    }

    /// Column `j` of the row at a place.
    #[inline]
    pub fn at(&self, place: usize, j: usize) -> f64 {
        match self.is_f32(j) {
            true => f64::from(self.lanes[j / WIDTH * self.of.n + place][j % WIDTH]),
            false => self.of.at(self.rows[place] as usize, self.columns[j]),
        }
    }

    /// A block, and the greatest rounding error of each lane.
    pub fn block(&self, block: usize) -> (&[Lanes<f32>], &Lanes<f32>) {
        (&self.lanes[block * self.of.n..(block + 1) * self.of.n], &self.error[block])
    }

    /// A block as f64, into `out`.
    pub fn wide(&self, out: &mut Vec<Lanes>, block: usize) {
        let column = |l: usize| self.columns[(block * WIDTH + l).min(self.p() - 1)];
        let columns: [usize; WIDTH] = std::array::from_fn(column);
        let (lanes, error) = self.block(block);
        out.clear();
        match error.iter().all(|&error| error == 0.0) {
            true => out.extend(lanes.iter().map(|row| row.map(f64::from))),
            false => out.extend(self.rows.iter().map(|&row| columns.map(|j| self.of.at(row as usize, j)))),
        }
    }
}

/// The first value of a table that is no finite number.
pub(super) fn not_finite(row: usize, column: usize, value: f64) -> Error {
    Error::config(format!("row {row} of column {column} is {value}, not a finite number"))
}

/// x + N(0, σ²) for every value of a column (L-CODEC); the noise is keyed by (seed, stream).
pub(super) fn add_noise(column: &mut [f64], sigma: f64, seed: u64, stream: u32) {
    if sigma > 0.0 {
        let mut normals = Stream::new(seed, Use::Ties, stream);
        column.iter_mut().for_each(|x| *x += sigma * f64::from(normals.normal()));
    }
}

impl Standardize {
    /// Scales a column.
    pub(super) fn apply(self, column: &mut [f64]) {
        match self {
            Standardize::None => {}
            Standardize::Scale => scale(column),
            Standardize::Bounded => {
                let least = column.iter().copied().fold(f64::INFINITY, f64::min);
                let greatest = column.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let width = if greatest > least { greatest - least } else { 1.0 };
                column.iter_mut().for_each(|x| *x = (*x - least) / width);
            }
        }
    }
}

/// Centres a column and divides it by its standard deviation (n − 1); a constant column becomes 0.
fn scale(column: &mut [f64]) {
    let n = column.len() as f64;
    let mean = column.iter().sum::<f64>() / n;
    let deviation = (column.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0)).sqrt();
    let constant = column.iter().all(|&x| x == column[0]);
    column.iter_mut().for_each(|x| *x = if constant { 0.0 } else { (*x - mean) / deviation });
}

/// The noise stream of Y; a column uses its number.
pub(super) const Y_STREAM: u32 = u32::MAX;

/// Refuses a σ that is negative or not finite.
pub(super) fn check_sigma(sigma: f64) -> Result<()> {
    if sigma >= 0.0 && sigma.is_finite() {
        return Ok(());
    }
    Err(Error::config(format!("the noise must be a finite number that is not negative, not {sigma}")))
}
