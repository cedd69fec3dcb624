//! Columns of numbers as the measure reads them: a borrowed matrix of f32 or f64 with strides, packed into blocks of
//! [`WIDTH`] neighbouring columns where a greedy step walks over them.

use std::ops::Range;

use rayon::prelude::*;

use crate::ops::philox::{Stream, Use};
use crate::{Error, Result};

/// Columns that a greedy step handles side by side.
pub(super) const WIDTH: usize = 8;

/// The same row of [`WIDTH`] columns.
pub(super) type Lanes<T = f64> = [T; WIDTH];

/// Blocks that are packed together where there are many: rows of a row-major matrix lie far apart, so that what a block
/// alone takes of each would be half a line of the cache. A thousand rows of them are half of a core's second cache.
pub(super) const STRIP: usize = 4;

/// A matrix of `n` rows and `p` columns that somebody else owns.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: Values<'a>,
    n: usize,
    p: usize,
    row: usize,    // distance from a row to the next
    column: usize, // and from a column to the next
}

#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl<'a> Matrix<'a> {
    /// `[n, p]`, row-major, f32: row i begins at `i * stride`.
    ///
    /// # Errors
    /// Where `values` is too short or `stride` is less than `p`.
    pub fn rows_f32(values: &'a [f32], n: usize, p: usize, stride: usize) -> Result<Matrix<'a>> {
        Matrix { values: Values::F32(values), n, p, row: stride, column: 1 }.checked()
    }

    /// `[n, p]`, row-major, f64: row i begins at `i * stride`.
    ///
    /// # Errors
    /// Where `values` is too short or `stride` is less than `p`.
    pub fn rows_f64(values: &'a [f64], n: usize, p: usize, stride: usize) -> Result<Matrix<'a>> {
        Matrix { values: Values::F64(values), n, p, row: stride, column: 1 }.checked()
    }

    /// `[p, n]`: `p` columns of `n` f64 one after the other.
    ///
    /// # Errors
    /// Where `values` is too short.
    pub fn columns_f64(values: &'a [f64], n: usize, p: usize) -> Result<Matrix<'a>> {
        match n {
            1 => Matrix::rows_f64(values, 1, p, p),
            _ => Matrix { values: Values::F64(values), n, p, row: 1, column: n }.checked(),
        }
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

    /// Whether every value is an f32.
    pub(super) fn is_f32(&self) -> bool {
        matches!(self.values, Values::F32(_))
    }

    /// The values as f32, in the same places, where they are f64 and each of them is one.
    pub(super) fn narrowed(&self) -> Option<Vec<f32>> {
        let Values::F64(values) = self.values else { return None };
        let all = values.par_iter().all(|&x| f64::from(x as f32) == x);
        all.then(|| values.par_iter().map(|&x| x as f32).collect())
    }

    /// The same matrix of other values, in the same places.
    pub(super) fn of_f32<'b>(&self, values: &'b [f32]) -> Matrix<'b> {
        Matrix { values: Values::F32(values), ..*self }
    }

    /// The number of blocks of [`WIDTH`] columns.
    pub(super) fn blocks(&self) -> usize {
        self.p.div_ceil(WIDTH)
    }

    /// Strips of blocks that are packed together: [`STRIP`] blocks each where there are enough for all threads, else one.
    pub(super) fn strips(&self) -> Vec<Range<usize>> {
        let width = strip_width(self.p);
        (0..self.blocks()).step_by(width).map(|first| first..(first + width).min(self.blocks())).collect()
    }

    /// The columns of every block of a strip side by side, for these rows; lanes beyond the last column repeat it.
    pub(super) fn pack<T: Real>(
        &self,
        out: &mut [Vec<Lanes<T>>],
        strip: Range<usize>,
        rows: impl Iterator<Item = usize>,
    ) {
        let whole = self.column == 1 && strip.end * WIDTH <= self.p;
        out.iter_mut().for_each(Vec::clear);
        for i in rows {
            for (block, out) in strip.clone().zip(&mut *out) {
                let at = i * self.row + block * WIDTH;
                out.push(match self.values {
                    Values::F32(v) if whole => lanes(&v[at..at + WIDTH]),
                    _ => std::array::from_fn(|l| T::of(self.at(i, (block * WIDTH + l).min(self.p - 1)))),
                });
            }
        }
    }

    /// Refuses values that are no numbers; says where the first one is.
    pub(super) fn check_finite(&self) -> Result<()> {
        let bad = (0..self.n)
            .into_par_iter()
            .with_min_len(16)
            .find_map_first(|i| (0..self.p).find(|&j| !self.at(i, j).is_finite()).map(|j| (i, j)));
        match bad {
            Some((i, j)) => {
                Err(Error::config(format!("row {i} of column {j} is {}, not a finite number", self.at(i, j))))
            }
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

    fn checked(self) -> Result<Matrix<'a>> {
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

/// The blocks of a strip where there are `p` columns.
pub(super) fn strip_width(p: usize) -> usize {
    if p.div_ceil(WIDTH) >= 16 * STRIP { STRIP } else { 1 }
}

/// What columns are packed as: f64, or f32 where every value is one.
pub(super) trait Real {
    /// The nearest number.
    fn of(value: f64) -> Self;
}

impl Real for f32 {
    fn of(value: f64) -> f32 {
        value as f32
    }
}

impl Real for f64 {
    fn of(value: f64) -> f64 {
        value
    }
}

/// As many f32 as there are lanes.
fn lanes<T: Real>(values: &[f32]) -> Lanes<T> {
    std::array::from_fn(|l| T::of(f64::from(values[l])))
}

/// x + N(0, σ²) for every value of a column (L-CODEC); the noise is keyed by (seed, stream).
pub(super) fn add_noise(column: &mut [f64], sigma: f64, seed: u64, stream: u32) {
    if sigma > 0.0 {
        let mut normals = Stream::new(seed, Use::Ties, stream);
        column.iter_mut().for_each(|x| *x += sigma * f64::from(normals.normal()));
    }
}

/// What is done to columns before anything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standardize {
    /// Nothing: the default.
    #[default]
    None,
    /// Each column is centred and divided by its standard deviation (n − 1); constant columns become 0.
    Scale,
    /// Each column is mapped to 0 to 1, its least value and its greatest; constant columns become 0.
    Bounded,
}

impl Standardize {
    /// Standardises a column.
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

/// The stream of noise that belongs to Y; columns use their own numbers.
pub(super) const Y_STREAM: u32 = u32::MAX;

/// Refuses a σ that is none.
pub(super) fn check_sigma(sigma: f64) -> Result<()> {
    if sigma >= 0.0 && sigma.is_finite() {
        return Ok(());
    }
    Err(Error::config(format!("the noise must be a finite number that is not negative, not {sigma}")))
}
