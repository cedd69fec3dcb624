//! Nearest neighbours of all rows on CUDA, as far as the statistic needs them; on the CPU they are part of
//! [`crate::codec`], which finds exactly the same ones.
#![allow(unsafe_code)] // launches

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
/// Fewer than 2 rows, shapes that do not fit, or the device fails.
pub fn nearest_sorted(cuda: &Cuda, columns: &Buffer<f64>, rank: &Buffer<u32>, tied: Tied) -> Result<Nearest> {
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
fn sort(
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

/// Adds a chosen `column` `[n]` to the squared distances `[n, n]`.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn distance(cuda: &Cuda, distance: &mut Buffer<f64>, column: &Buffer<f64>) -> Result<()> {
    let n = rows("distance", column.len())?;
    same("distance", "squared distances", column.len() * column.len(), distance.len())?;
    let launch = Launch::over("distance", distance.len(), tiles::NEAREST_THREADS)?;
    // SAFETY: distance holds n·n values, column n.
    unsafe { cuda.distance(launch, distance.output(), column.input(), n) }
}

/// The nearest rows by the squared `distance` `[n, n]` of the chosen columns and each of the `columns` `[p, n]`; `rank`
/// is `[n]`. Values are finite.
///
/// # Errors
/// Fewer than 2 rows, shapes that do not fit, or the device fails.
pub fn nearest(
    cuda: &Cuda,
    columns: &Buffer<f64>,
    distance: &Buffer<f64>,
    rank: &Buffer<u32>,
    tied: Tied,
) -> Result<Nearest> {
    let (p, n) = shape("nearest", columns, rank)?;
    same("nearest", "squared distances", rank.len() * rank.len(), distance.len())?;
    let mut nearest = Nearest::alloc(cuda, p, n)?;
    let blocks = p.div_ceil(tiles::NEAREST_COLUMNS) as usize * n.div_ceil(tiles::NEAREST_THREADS) as usize;
    let launch = Launch::blocks("nearest", blocks, tiles::NEAREST_THREADS)?;
    let (sum, count) = (nearest.sum.output(), nearest.count.output());
    let mean = u32::from(tied == Tied::All);
    // SAFETY: sum, count and columns hold p·n, distance n·n, rank n.
    unsafe { cuda.nearest(launch, sum, count, columns.input(), distance.input(), rank.input(), p, n, mean)? };
    Ok(nearest)
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
