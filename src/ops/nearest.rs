//! Nearest neighbours of all rows on CUDA, as far as the statistic needs them; on the CPU they are part of
//! [`crate::codec`], which finds exactly the same ones.
#![allow(unsafe_code)] // launches

use std::ops::Range;

use crate::device::cuda::{Buffer, Cuda, Launch, tiles};
use crate::{Error, Result};

use super::{rows, same};

/// For each of p columns and each of n rows: how many others are nearest, and Σ min(R_i, R_j) over them; `[p, n]`.
pub struct Nearest {
    /// Σ min(R_i, R_j).
    pub sum: Buffer<u64>,
    /// How many.
    pub count: Buffer<u32>,
}

/// What counts where several rows are equally near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tied {
    /// All of them.
    All,
    /// The one of the lowest index.
    First,
    /// So many of them, drawn by Philox of (seed, row, draw). Sorted columns have no path for it.
    Random {
        /// The seed.
        seed: u64,
        /// How many, one at least.
        draws: u32,
    },
}

impl Nearest {
    fn alloc(cuda: &Cuda, p: u32, n: u32) -> Result<Nearest> {
        let len = p as usize * n as usize;
        Ok(Nearest { sum: cuda.alloc(len)?, count: cuda.alloc(len)? })
    }
}

/// The nearest rows in each of the `columns` `[p, n]` alone; `rank` is `[n]`. Columns are sorted, their neighbours lie
/// next to each other. Values are finite.
///
/// # Errors
/// [`Tied::Random`], fewer than 2 rows, shapes that do not fit, or the device fails.
pub fn nearest_sorted(cuda: &Cuda, columns: &Buffer<f64>, rank: &Buffer<u32>, tied: Tied) -> Result<Nearest> {
    if matches!(tied, Tied::Random { .. }) {
        return Err(Error::config("random ties have no path in sorted columns"));
    }
    let (p, n) = shape("nearest_sorted", columns, rank)?;
    let size = n.next_power_of_two();
    let all = p as usize * size as usize;
    let (mut values, mut rows) = (cuda.alloc::<f64>(all)?, cuda.alloc::<u32>(all)?);
    sort(cuda, &mut values, &mut rows, columns, p, n, size)?;
    let mut nearest = Nearest::alloc(cuda, p, n)?;
    let launch = Launch::over("nearest_sorted", columns.len(), tiles::NEAREST_THREADS)?;
    let (sum, count) = (nearest.sum.output(), nearest.count.output());
    let mean = u32::from(tied == Tied::All);
    // SAFETY: sum and count hold p·n, values and rows p·size, rank n; `sort` has put row numbers below n first.
    unsafe {
        cuda.nearest_sorted(launch, sum, count, values.input(), rows.input(), rank.input(), p, n, size, mean)?
    };
    Ok(nearest)
}

/// Sorts each of the `columns` `[p, n]` by (value, row) into `values` and `rows` `[p, size]`, size a power of two not
/// below n; what is beyond n is +∞.
pub(super) fn sort(
    cuda: &Cuda,
    values: &mut Buffer<f64>,
    rows: &mut Buffer<u32>,
    columns: &Buffer<f64>,
    p: u32,
    n: u32,
    size: u32,
) -> Result<()> {
    let all = p as usize * size as usize;
    let tile = size.min(tiles::SORT_TILE);
    let each = Launch::over("sort", all, tiles::SORT_THREADS)?;
    let pairs = Launch::over("sort", (all / 2).max(1), tiles::SORT_THREADS)?;
    let within = Launch::blocks("sort", all / tile as usize, tiles::SORT_THREADS)?;
    // SAFETY: columns hold p·n values, values and rows p·size; size is a multiple of the tile, and both powers of two.
    unsafe {
        cuda.sort_load(each, values.output(), rows.output(), columns.input(), p, n, size)?;
        cuda.sort_tile(within, values.output(), rows.output(), size, 0)?;
        let mut merge = 2 * tile;
        while merge <= size {
            let mut apart = merge / 2;
            while apart >= tile {
                cuda.sort_step(pairs, values.output(), rows.output(), p, size, merge, apart)?;
                apart /= 2;
            }
            cuda.sort_tile(within, values.output(), rows.output(), size, merge)?;
            merge *= 2;
        }
    }
    Ok(())
}

/// Candidate columns, and how much rounding to f32 can move a difference of two values.
pub struct Columns {
    values: Buffer<f64>, // [p, n]
    slack: Buffer<f32>,  // [p]
    n: usize,
}

impl Columns {
    /// Of `values` `[p, n]`, which are finite.
    ///
    /// # Errors
    /// No whole columns, or the device fails.
    pub fn new(cuda: &Cuda, values: Buffer<f64>, n: usize) -> Result<Columns> {
        let p = values.len().checked_div(n).unwrap_or(0);
        same("columns", "values of whole columns", p * n, values.len())?;
        rows("columns", p)?;
        let mut slack = cuda.alloc(p)?;
        let launch = Launch::blocks("slack", p, tiles::NEAREST_THREADS)?;
        // SAFETY: slack holds p values, the columns p·n.
        unsafe { cuda.slack(launch, slack.output(), values.input(), rows("columns", n)?)? };
        Ok(Columns { values, slack, n })
    }

    /// The values `[p, n]`.
    pub fn values(&self) -> &Buffer<f64> {
        &self.values
    }
}

/// Adds chosen `columns` `[k, n]` to the squared distances of some `range` of rows to all n, `[n, width]`, in their
/// order; where `fresh` these begin as zeros. `distance` may be longer than is used.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn distance(
    cuda: &Cuda,
    distance: &mut Buffer<f64>,
    columns: &Buffer<f64>,
    n: usize,
    range: Range<usize>,
    fresh: bool,
) -> Result<()> {
    let (first, width) = panel("distance", distance, n, &range)?;
    let k = columns.len() / n;
    same("distance", "values of whole columns", k * n, columns.len())?;
    let launch = Launch::over("distance", n * range.len(), tiles::NEAREST_THREADS)?;
    let (k, n) = (k as u32, rows("distance", n)?);
    // SAFETY: distance holds n·width values at least, columns k·n; rows first .. first + width are below n.
    unsafe { cuda.distance(launch, distance.output(), columns.input(), k, n, first, width, u32::from(fresh)) }
}

/// The rows nearest to a `range` of rows by the squared `distance` `[n, width]` of the chosen columns and each of the
/// `columns` `[p, n]`; `rank` is `[n]`, the result `[p, width]`. Values are finite.
///
/// # Errors
/// Fewer than 2 rows, shapes that do not fit, or the device fails.
pub fn nearest(
    cuda: &Cuda,
    columns: &Columns,
    distance: &Buffer<f64>,
    range: Range<usize>,
    rank: &Buffer<u32>,
    tied: Tied,
) -> Result<Nearest> {
    same("nearest", "ranks", columns.n, rank.len())?;
    let (p, n) = shape("nearest", &columns.values, rank)?;
    let (first, width) = panel("nearest", distance, columns.n, &range)?;
    let mut nearest = Nearest::alloc(cuda, p, width)?;
    let blocks =
        p.div_ceil(tiles::NEAREST_COLUMNS) as usize * width.div_ceil(tiles::NEAREST_THREADS) as usize;
    let launch = Launch::blocks("nearest", blocks, tiles::NEAREST_THREADS)?;
    let (sum, count) = (nearest.sum.output(), nearest.count.output());
    let (values, slack) = (columns.values.input(), columns.slack.input());
    let mean = u32::from(tied != Tied::First);
    // SAFETY: sum and count hold p·width, columns p·n, slack p, distance n·width at least, rank n; rows
    // first .. first + width are below n.
    unsafe {
        cuda.nearest(
            launch,
            sum,
            count,
            values,
            slack,
            distance.input(),
            rank.input(),
            p,
            n,
            first,
            width,
            mean,
        )?
    };
    if let Tied::Random { seed, draws } = tied {
        let (sum, count) = (nearest.sum.output(), nearest.count.output());
        let (draws, each) =
            (draws.max(1), Launch::over("drawn", p as usize * range.len(), tiles::NEAREST_THREADS)?);
        // SAFETY: as above.
        unsafe {
            let (distance, rank) = (distance.input(), rank.input());
            cuda.drawn(each, sum, count, values, distance, rank, p, n, first, width, seed, draws)?
        };
    }
    Ok(nearest)
}

/// The first of a `range` of rows and how many, where they are among n and `[n, width]` distances are there.
fn panel(op: &'static str, distance: &Buffer<f64>, n: usize, range: &Range<usize>) -> Result<(u32, u32)> {
    if range.is_empty() || range.end > n || n * range.len() > distance.len() {
        let found = format!("rows {range:?} with {} distances", distance.len());
        return Err(Error::shape(op, format!("some of {n} rows, and {n} distances of each"), found));
    }
    Ok((rows(op, range.end)? - range.len() as u32, range.len() as u32))
}

/// p and n of columns `[p, n]` with ranks `[n]`.
fn shape(op: &'static str, columns: &Buffer<f64>, rank: &Buffer<u32>) -> Result<(u32, u32)> {
    let n = rows(op, rank.len())?;
    let p = columns.len() / rank.len();
    if n < 2 || p == 0 || p * rank.len() != columns.len() {
        return Err(Error::shape(
            op,
            format!("at least 2 rows, and whole columns of {n} values"),
            format!("{} values", columns.len()),
        ));
    }
    Ok((rows(op, p)?, n))
}
