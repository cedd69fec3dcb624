//! Nearest neighbours of all rows, as the rank statistic needs them: their number and Σ min(R_i, R_j). They are exactly those
//! that the CPU finds in the module `codec`.
#![allow(unsafe_code)] // launches

use std::ops::Range;

use crate::device::cuda::{Buffer, Cuda, In, Launch, tiles};
use crate::error::{Error, Result};

use super::rows;
use crate::ops::same;

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
    /// Some of them, drawn by Philox of (seed, row, draw). Sorted columns do not support it.
    Random {
        /// The seed.
        seed: u64,
        /// How many draws, at least one.
        draws: u32,
    },
}

impl Nearest {
    fn alloc(cuda: &Cuda, p: u32, n: u32) -> Result<Nearest> {
        let len = p as usize * n as usize;
        Ok(Nearest { sum: cuda.alloc(len)?, count: cuda.alloc(len)? })
    }
}

/// The nearest rows in each of the `columns` `[p, n]` alone; `rank` is `[n]`. Columns are sorted, so that neighbours are
/// adjacent. Values are finite.
///
/// # Errors
/// [`Tied::Random`], fewer than 2 rows, shapes that do not fit, or the device fails.
pub fn nearest_sorted(cuda: &Cuda, columns: &Buffer<f64>, rank: &Buffer<u32>, tied: Tied) -> Result<Nearest> {
    Sorted::new(cuda, columns, rank.len())?.nearest(cuda, rank, tied)
}

/// Columns whose rows are sorted by value, so that the nearest ones are adjacent.
pub struct Sorted {
    values: Buffer<f64>, // [p, size]
    rows: Buffer<u32>,   // [p, size]
    p: u32,
    n: u32,
    size: u32,
}

impl Sorted {
    /// Sorts `columns` `[p, n]`, whose values are finite.
    ///
    /// # Errors
    /// Fewer than 2 rows, no whole columns, or the device fails.
    pub fn new(cuda: &Cuda, columns: &Buffer<f64>, n: usize) -> Result<Sorted> {
        let (p, n) = shape("nearest_sorted", columns, n)?;
        let size = n.next_power_of_two();
        let all = p as usize * size as usize;
        let (mut values, mut rows) = (cuda.alloc::<f64>(all)?, cuda.alloc::<u32>(all)?);
        sort(cuda, &mut values, &mut rows, columns, p, n, size)?;
        Ok(Sorted { values, rows, p, n, size })
    }

    /// The nearest rows in each column alone; `rank` is `[n]`.
    ///
    /// # Errors
    /// [`Tied::Random`], other than n ranks, or the device fails.
    pub fn nearest(&self, cuda: &Cuda, rank: &Buffer<u32>, tied: Tied) -> Result<Nearest> {
        if matches!(tied, Tied::Random { .. }) {
            return Err(Error::config("random ties have no path in sorted columns"));
        }
        let Sorted { values, rows, p, n, size } = self;
        same("nearest_sorted", "ranks", *n as usize, rank.len())?;
        let mut nearest = Nearest::alloc(cuda, *p, *n)?;
        let launch = Launch::over("nearest_sorted", nearest.count.len(), tiles::NEAREST_THREADS)?;
        let (sum, count) = (nearest.sum.output(), nearest.count.output());
        let mean = u32::from(tied == Tied::All);
        // SAFETY: sum and count hold p·n, values and rows p·size, rank n; `sort` has put row numbers below n first.
        unsafe {
            let (values, rows) = (values.input(), rows.input());
            cuda.nearest_sorted(launch, sum, count, values, rows, rank.input(), *p, *n, *size, mean)?
        };
        Ok(nearest)
    }
}

/// Sorts each of the `columns` `[p, n]` by (value, row) into `values` and `rows` `[p, size]`, with size a power of two of at
/// least n; values beyond n are +∞.
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
            let mut stride = merge / 2;
            while stride >= tile {
                cuda.sort_step(pairs, values.output(), rows.output(), p, size, merge, stride)?;
                stride /= 2;
            }
            cuda.sort_tile(within, values.output(), rows.output(), size, merge)?;
            merge *= 2;
        }
    }
    Ok(())
}

/// Candidate columns, and the same rounded to f32 for searching.
pub struct Candidates {
    values: Buffer<f64>, // [p, n]
    packed: Buffer<f32>, // [n, 32] of each 32 columns, [n, ..] of the last
    slack: Buffer<f32>,  // [p]: how much rounding can change a difference of two values
    n: usize,
}

impl Candidates {
    /// Packs `values` `[p, n]`, which are finite.
    ///
    /// # Errors
    /// No whole columns, or the device fails.
    pub fn new(cuda: &Cuda, values: Buffer<f64>, n: usize) -> Result<Candidates> {
        let p = values.len().checked_div(n).unwrap_or(0);
        same("columns", "values of whole columns", p * n, values.len())?;
        let (columns, n_) = (rows("columns", p)?, rows("columns", n)?);
        let (mut packed, mut slack) = (cuda.alloc(p * n)?, cuda.alloc(p)?);
        let launch = Launch::blocks("pack", p, tiles::NEAREST_THREADS)?;
        // SAFETY: packed and the columns hold p·n values, slack p.
        unsafe { cuda.pack(launch, packed.output(), slack.output(), values.input(), columns, n_)? };
        Ok(Candidates { values, packed, slack, n })
    }

    /// The number of columns.
    pub fn p(&self) -> usize {
        self.slack.len()
    }

    /// The values `[p, n]`.
    pub fn values(&self) -> &Buffer<f64> {
        &self.values
    }
}

/// Adds chosen `columns` `[k, n]`, in their order, to the squared distances of the rows `down` to the rows `across`,
/// `[down, across]`; both are among the n rows. `fresh`: the distances start at zero. `distance` may be longer than is
/// used. A distance is the same value whichever of its two rows is down.
///
/// # Errors
/// Shapes that do not fit, or the device fails.
pub fn distance(
    cuda: &Cuda,
    distance: &mut Buffer<f64>,
    columns: In<'_, f64>,
    n: usize,
    down: Range<usize>,
    across: Range<usize>,
    fresh: bool,
) -> Result<()> {
    let among = |range: &Range<usize>| !range.is_empty() && range.end <= n;
    if !among(&down) || !among(&across) || down.len() * across.len() > distance.len() {
        let found = format!("rows {down:?} and {across:?} with {} distances", distance.len());
        return Err(Error::shape(
            "distance",
            format!("some of {n} rows, and a distance of each pair"),
            found,
        ));
    }
    let k = columns.len() / n;
    same("distance", "values of whole columns", k * n, columns.len())?;
    let launch = Launch::over("distance", down.len() * across.len(), tiles::NEAREST_THREADS)?;
    let (above, height) = (down.start as u32, down.len() as u32);
    let (first, width) = (across.start as u32, across.len() as u32);
    let (k, n) = (k as u32, rows("distance", n)?);
    // SAFETY: distance holds height·width values at least, columns k·n; rows above .. and first .. are below n.
    unsafe {
        cuda.distance(launch, distance.output(), columns, k, n, above, height, first, width, u32::from(fresh))
    }
}

/// The rows nearest to a `range` of rows by the squared `distance` `[n, width]` of the chosen columns and each of the
/// `columns` `[p, n]`; `rank` is `[n]`, the result `[p, width]`. Values are finite.
///
/// # Errors
/// Fewer than 2 rows, shapes that do not fit, or the device fails.
pub fn nearest(
    cuda: &Cuda,
    columns: &Candidates,
    distance: &Buffer<f64>,
    range: Range<usize>,
    rank: &Buffer<u32>,
    tied: Tied,
) -> Result<Nearest> {
    same("nearest", "ranks", columns.n, rank.len())?;
    let (p, n) = shape("nearest", &columns.values, rank.len())?;
    let (first, width) = panel("nearest", distance.input(), columns.n, &range)?;
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
    draw(cuda, &mut nearest, columns, distance.input(), rank, tied, first, width, (width, 1))?;
    Ok(nearest)
}

/// Replaces tied rows by those drawn, where `tied` asks for it; the distance of row i of the panel to row j
/// is at j · stride.0 + i · stride.1.
fn draw(
    cuda: &Cuda,
    nearest: &mut Nearest,
    columns: &Candidates,
    distance: In<'_, f64>,
    rank: &Buffer<u32>,
    tied: Tied,
    first: u32,
    width: u32,
    stride: (u32, u32),
) -> Result<()> {
    let Tied::Random { seed, draws } = tied else { return Ok(()) };
    let (p, n) = shape("drawn", &columns.values, rank.len())?;
    let launch = Launch::over("drawn", p as usize * width as usize, tiles::NEAREST_THREADS)?;
    let (sum, count) = (nearest.sum.output(), nearest.count.output());
    let (values, rank, draws) = (columns.values.input(), rank.input(), draws.max(1));
    // SAFETY: sum and count hold p·width, columns p·n, rank n, distance n·width at least, in either order; rows
    // first .. first + width are below n.
    unsafe {
        cuda.drawn(
            launch, sum, count, values, distance, rank, p, n, first, width, stride.0, stride.1, seed, draws,
        )
    }
}

/// Lists of the rows nearest in the chosen columns, by ascending distance, for a range of rows.
pub struct Lists {
    entries: Buffer<u64>, // [width, len]
    n: usize,
    range: Range<usize>,
    len: u32,
}

impl Lists {
    /// By row: the upper half of the distance's bits, then the number of the other row; 2⁶⁴ − 2 beyond the last.
    pub fn entries(&self) -> &Buffer<u64> {
        &self.entries
    }
}

/// The length of a list of `wanted` entries: the next power of two, within the lengths that the kernel supports.
pub fn list_len(wanted: usize) -> u32 {
    let most = tiles::LIST_MOST as usize;
    (wanted.min(most).next_power_of_two() as u32).max(tiles::LIST_LEAST)
}

/// Lists of `len` entries, as [`list_len`] has them, for a `range` of rows with `distance` `[width, n]`.
///
/// # Errors
/// Another `len`, shapes that do not fit, or the device fails.
pub fn lists(cuda: &Cuda, distance: In<'_, f64>, n: usize, range: Range<usize>, len: u32) -> Result<Lists> {
    let (first, width) = panel("list", distance, n, &range)?;
    if list_len(len as usize) != len {
        let (least, most) = (tiles::LIST_LEAST, tiles::LIST_MOST);
        return Err(Error::shape("list", format!("a power of two from {least} to {most}"), len.to_string()));
    }
    let mut entries = cuda.alloc(range.len() * len as usize)?;
    let launch = Launch::blocks("list", width as usize, tiles::LIST_THREADS)?;
    // SAFETY: entries hold width·len, distance width·n; len is one that the kernel supports.
    unsafe { cuda.list(launch, entries.output(), distance, rows("list", n)?, first, len)? };
    Ok(Lists { entries, n, range, len })
}

/// Counts of the searches of [`pruned`], on the device.
pub struct Tally(Buffer<u64>);

/// [`Tally`], read back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Rows visited, each for 32 candidates.
    pub looked: u64,
    /// Searches, each of one row for 32 candidates, that went beyond their list and were repeated among all rows.
    pub again: u64,
}

impl Tally {
    /// Counts of zero.
    ///
    /// # Errors
    /// Where there is not enough memory.
    pub fn new(cuda: &Cuda) -> Result<Tally> {
        Ok(Tally(cuda.upload(&[0, 0])?))
    }

    /// The counts so far.
    ///
    /// # Errors
    /// Where a launch failed.
    pub fn read(&self, cuda: &Cuda) -> Result<Tallied> {
        let mut words = [0; 2];
        cuda.read(&mut words, self.0.input())?;
        Ok(Tallied { looked: words[0], again: words[1] })
    }
}

/// [`nearest`] for the rows of `lists`, made of the same `distance` `[width, n]`: the same result.
///
/// # Errors
/// As [`nearest`].
pub fn pruned(
    cuda: &Cuda,
    tally: &mut Tally,
    columns: &Candidates,
    distance: In<'_, f64>,
    lists: &Lists,
    rank: &Buffer<u32>,
    tied: Tied,
) -> Result<Nearest> {
    same("pruned", "ranks", columns.n, rank.len())?;
    same("pruned", "rows that lists were made of", columns.n, lists.n)?;
    let (p, n) = shape("pruned", &columns.values, rank.len())?;
    let (first, width) = panel("pruned", distance, columns.n, &lists.range)?;
    let mut nearest = Nearest::alloc(cuda, p, width)?;
    let blocks = p.div_ceil(32) as usize * width.div_ceil(tiles::NEAREST_THREADS / 32) as usize;
    let launch = Launch::blocks("pruned", blocks, tiles::NEAREST_THREADS)?;
    let mean = u32::from(tied != Tied::First);
    // SAFETY: sum and count hold p·width, tally 2, columns and packed p·n, slack p, distance width·n, the list width·len
    // entries, of which those with a row below n alone are read, rank n; rows first .. first + width are below n.
    unsafe {
        cuda.pruned(
            launch,
            nearest.sum.output(),
            nearest.count.output(),
            tally.0.output(),
            columns.values.input(),
            columns.packed.input(),
            columns.slack.input(),
            distance,
            lists.entries.input(),
            rank.input(),
            p,
            n,
            first,
            width,
            lists.len,
            mean,
        )?
    };
    draw(cuda, &mut nearest, columns, distance, rank, tied, first, width, (1, n))?;
    Ok(nearest)
}

/// The first row of a `range` and its length, if all are among n rows and `distance` has n values for each.
fn panel(op: &'static str, distance: In<'_, f64>, n: usize, range: &Range<usize>) -> Result<(u32, u32)> {
    if range.is_empty() || range.end > n || n * range.len() > distance.len() {
        let found = format!("rows {range:?} with {} distances", distance.len());
        return Err(Error::shape(op, format!("some of {n} rows, and {n} distances of each"), found));
    }
    Ok((rows(op, range.end)? - range.len() as u32, range.len() as u32))
}

/// p and n of columns `[p, n]`.
fn shape(op: &'static str, columns: &Buffer<f64>, n: usize) -> Result<(u32, u32)> {
    let rows_of = rows(op, n)?;
    let p = columns.len() / n;
    if n < 2 || p == 0 || p * n != columns.len() {
        return Err(Error::shape(
            op,
            format!("at least 2 rows, and whole columns of {n} values"),
            format!("{} values", columns.len()),
        ));
    }
    Ok((rows(op, p)?, rows_of))
}
