//! The steps of FOCI, and A of given columns, on CUDA: ranks, columns and the distances of the chosen columns stay in
//! device memory, the best candidate and its sum come back. Neighbours and sums are the CPU's to the last bit.
//!
//! Distances of the chosen columns are kept where n × n of them fit in half of the memory that is free; else they are
//! made anew in every step, a panel of rows at a time. Kept ones are symmetric, to the last bit.
//!
//! A step is dense, where all pairs of rows are looked at, or pruned, where lists of the nearest rows in the chosen columns
//! are (`kernels/pruned.cu`). It is pruned where there are [`FULL`] columns at least, so that lists are shared by as many
//! as a warp has lanes, where the list is no longer than half of the rows, and unless more than half of the searches of
//! the last pruned step went beyond their list: then rows are tied in the chosen columns, and all steps from there on are
//! dense. The rule has not been measured. None of this changes a result.

use std::ops::Range;

use super::Ties;
use super::columns::Matrix;
use super::foci::Plan;
use super::ranks::{ONE, Ranks, Sum};
use crate::device::Cuda;
use crate::device::cuda::{Buffer, tiles};
use crate::ops::cuda::nearest::{
    Columns, Tallied, Tally, Tied, distance, distance_by_row, list_len, lists, nearest, nearest_sorted,
    pruned,
};
use crate::ops::cuda::statistic::{self, Sums};
use crate::{Error, Result};

/// Values of the columns that one launch handles, but for whole warps of columns: 12 bytes of results each, 24 where they
/// are sorted.
const VALUES_AT_ONCE: usize = 1 << 24;
/// The distances of a panel take no more bytes than this, unless those of [`tiles::NEAREST_THREADS`] rows do.
const PANEL_BYTES: usize = 256 << 20;
/// Lists take no more bytes than this, unless one alone does.
const LIST_BYTES: usize = 256 << 20;
/// Columns from which on steps may be pruned: the lanes of a warp.
const FULL: usize = 32;
/// Entries of a list, over n^(1/(k+1)), as many rows as are looked at with k columns chosen from a cube.
const LENGTH: f64 = 8.0;

/// How the neighbours of a step are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// Among all rows.
    Dense,
    /// From lists of so many rows, and beyond where they end.
    Pruned(u32),
}

/// What a selection keeps on the device.
pub(super) struct Steps<'a> {
    cuda: &'a Cuda,
    rank: Buffer<u32>,     // [n]
    columns: Vec<Columns>, // some columns each, [.., n]
    left: Buffer<u32>,     // [p]: 0 where a column is chosen
    chosen: Vec<f64>,      // columns chosen, [k, n]
    distance: Buffer<f64>, // of the chosen columns: [n, width], in a pruned step [width, n]
    width: usize,          // rows of a panel; n: distances are kept
    known: usize,          // values of `chosen` that kept distances have
    sums: Sums,
    tied: Tied,
    asked: Option<Search>, // whatever the rule says
    tallied: Tallied,      // by the last pruned step
    beyond: bool,          // most of its searches went beyond their list
    list_bytes: usize,     // that lists may take
}

impl<'a> Steps<'a> {
    /// Copies ranks and columns to the device.
    pub fn new(cuda: &'a Cuda, x: &Matrix, ranks: &Ranks, ties: Ties) -> Result<Steps<'a>> {
        Steps::of_width(cuda, x, ranks, ties, width(cuda, x.n(), x.p())?)
    }

    fn of_width(cuda: &'a Cuda, x: &Matrix, ranks: &Ranks, ties: Ties, width: usize) -> Result<Steps<'a>> {
        let (n, p) = (x.n(), x.p());
        let at_once = at_once(n, p);
        let mut columns = Vec::new();
        for first in (0..p).step_by(at_once) {
            let some: Vec<f64> = (first..p.min(first + at_once)).flat_map(|j| x.column(j)).collect();
            columns.push(Columns::new(cuda, cuda.upload(&some)?, n)?);
        }
        Ok(Steps {
            cuda,
            rank: cuda.upload(&ranks.r)?,
            columns,
            left: cuda.upload(&vec![1; p])?,
            chosen: Vec::new(),
            distance: cuda.alloc(0)?,
            width,
            known: 0,
            sums: Sums::new(cuda, p)?,
            tied: match ties {
                Ties::Mean => Tied::All,
                Ties::First => Tied::First,
                Ties::Random { seed, draws } => Tied::Random { seed, draws },
            },
            asked: None,
            tallied: Tallied::default(),
            beyond: false,
            list_bytes: LIST_BYTES,
        })
    }

    /// Measures every column alone.
    pub fn first(&mut self) -> Result<()> {
        if matches!(self.tied, Tied::Random { .. }) {
            return self.measure(); // draws want the tied rows by index, not by value
        }
        let n = self.rank.len();
        self.sums = Sums::new(self.cuda, self.left.len())?;
        let mut first = 0;
        for columns in &self.columns {
            let near = nearest_sorted(self.cuda, columns.values(), &self.rank, self.tied)?;
            self.sums.add(self.cuda, first, &near, n)?;
            first += columns.p();
        }
        Ok(())
    }

    /// Measures the chosen columns, those of `fresh` `[.., n]` now among them, and each column.
    pub fn step(&mut self, fresh: &[f64]) -> Result<()> {
        self.chosen.extend_from_slice(fresh);
        self.measure()
    }

    /// A of the chosen columns and each column.
    fn measure(&mut self) -> Result<()> {
        let n = self.rank.len();
        let begins = self.distance.is_empty();
        if begins {
            self.distance = self.cuda.alloc(n * self.width)?;
        }
        let fresh = begins || self.width < n;
        let known = if fresh { 0 } else { self.known };
        let chosen = self.cuda.upload(&self.chosen[known..])?;
        self.known = self.chosen.len();
        self.sums = Sums::new(self.cuda, self.left.len())?;
        let search = self.search();
        let mut tally = Tally::new(self.cuda)?;
        for start in (0..n).step_by(self.width) {
            let panel = start..n.min(start + self.width);
            if fresh || !chosen.is_empty() {
                let add = if search == Search::Dense { distance } else { distance_by_row };
                add(self.cuda, &mut self.distance, &chosen, n, panel.clone(), fresh)?;
            }
            match search {
                Search::Dense => self.dense(panel)?,
                Search::Pruned(len) => self.pruned(&mut tally, panel, len)?,
            }
        }
        if matches!(search, Search::Pruned(_)) {
            self.tallied = tally.read(self.cuda)?;
            let searches: usize = self.columns.iter().map(|some| n * some.p().div_ceil(FULL)).sum();
            self.beyond = self.tallied.again > searches as u64 / 2;
        }
        Ok(())
    }

    /// How the next step searches.
    fn search(&self) -> Search {
        let n = self.rank.len();
        match (self.asked, prunes(n, self.left.len(), self.chosen.len() / n)) {
            (Some(asked), _) => asked,
            (None, Some(len)) if !self.beyond => Search::Pruned(len),
            _ => Search::Dense,
        }
    }

    /// Adds the rows of a panel to the sums.
    fn dense(&mut self, panel: Range<usize>) -> Result<()> {
        let mut first = 0;
        for columns in &self.columns {
            let near = nearest(self.cuda, columns, &self.distance, panel.clone(), &self.rank, self.tied)?;
            self.sums.add(self.cuda, first, &near, panel.len())?;
            first += columns.p();
        }
        Ok(())
    }

    /// The same by lists, of as many rows at a time as there is room for.
    fn pruned(&mut self, tally: &mut Tally, panel: Range<usize>, len: u32) -> Result<()> {
        let n = self.rank.len();
        let rows = list_rows(self.list_bytes, len);
        for start in panel.clone().step_by(rows) {
            let range = start..panel.end.min(start + rows);
            let distance =
                self.distance.input().part((start - panel.start) * n..(range.end - panel.start) * n);
            let lists = lists(self.cuda, distance, n, range.clone(), len)?;
            let mut first = 0;
            for columns in &self.columns {
                let near = pruned(self.cuda, tally, columns, distance, &lists, &self.rank, self.tied)?;
                self.sums.add(self.cuda, first, &near, range.len())?;
                first += columns.p();
            }
        }
        Ok(())
    }

    /// The column of the largest A that is left, and A; equal ones by the lowest number.
    pub fn best(&self) -> Result<Option<(usize, Sum)>> {
        let best = self.sums.best(self.cuda, &self.left)?;
        Ok(best.map(|(column, sum)| (column, exact(sum))))
    }

    /// A of every column, as measured last.
    pub fn all(&self) -> Result<Vec<Sum>> {
        Ok(self.sums.all(self.cuda)?.into_iter().map(exact).collect())
    }

    /// The chosen columns.
    pub fn chosen(&self) -> Vec<Vec<f64>> {
        self.chosen.chunks_exact(self.rank.len()).map(<[f64]>::to_vec).collect()
    }

    /// Leaves a column out from now on.
    pub fn take(&mut self, column: usize) -> Result<()> {
        let (_, from) = self.left.output().split_at(column);
        self.cuda.write(from.split_at(1).0, &[0])
    }
}

/// One step of a selection, taken again and again: what `scrubjay bench` times.
pub(crate) struct Again<'a>(Steps<'a>);

impl<'a> Again<'a> {
    /// The step with the columns `chosen` `[k, n]` before it, none of them a column of `x`.
    pub fn new(cuda: &'a Cuda, y: &[f64], x: &Matrix, chosen: &[f64]) -> Result<Again<'a>> {
        let mut steps = Steps::new(cuda, x, &Ranks::new(y, Ties::Mean)?, Ties::Mean)?;
        steps.chosen = chosen.to_vec();
        Ok(Again(steps))
    }

    /// The column it chooses. Distances of the chosen columns are made anew.
    pub fn step(&mut self) -> Result<Option<usize>> {
        self.0.distance = self.0.cuda.alloc(0)?;
        self.0.measure()?;
        Ok(self.0.best()?.map(|(column, _)| column))
    }

    /// A of every column, rounded.
    pub fn all(&self) -> Result<Vec<f64>> {
        Ok(self.0.all()?.into_iter().map(|sum| sum.fixed() as f64 / ONE as f64).collect())
    }
}

/// A of these columns together, in this order.
pub(super) fn sum(cuda: &Cuda, columns: &[Vec<f64>], ranks: &Ranks, ties: Ties) -> Result<Sum> {
    Given::new(cuda, columns, ranks, ties)?.sum(ranks)
}

/// Given columns, whose A is wanted for one permutation of the ranks after another.
pub(super) struct Given<'a>(Steps<'a>);

impl<'a> Given<'a> {
    /// Copies the columns, one at least, to the device.
    pub fn new(cuda: &'a Cuda, columns: &[Vec<f64>], ranks: &Ranks, ties: Ties) -> Result<Given<'a>> {
        let (last, given) =
            columns.split_last().ok_or_else(|| Error::config("at least one column is needed"))?;
        let mut steps = Steps::new(cuda, &Matrix::columns_f64(last, ranks.n(), 1)?, ranks, ties)?;
        steps.chosen = given.concat();
        Ok(Given(steps))
    }

    /// A of the columns together, in their order, for these ranks.
    pub fn sum(&mut self, ranks: &Ranks) -> Result<Sum> {
        let Given(steps) = self;
        steps.cuda.write(steps.rank.output(), &ranks.r)?;
        match steps.chosen.is_empty() {
            true => steps.first()?,
            false => steps.measure()?,
        }
        Ok(steps.all()?.into_iter().next().unwrap_or_default())
    }
}

fn exact(sum: statistic::Sum) -> Sum {
    Sum::of(sum.whole, sum.fraction)
}

/// Rows whose distances are made at a time; all of them where they are kept.
fn width(cuda: &Cuda, n: usize, p: usize) -> Result<usize> {
    let free = cuda.free()?.saturating_sub(bytes(n, p));
    let each = n.saturating_mul(size_of::<f64>());
    if each.saturating_mul(n) <= free / 2 {
        return Ok(n);
    }
    let tile = tiles::NEAREST_THREADS as usize;
    Ok((PANEL_BYTES / each / tile).max(1).saturating_mul(tile).min(n))
}

/// The length of the lists where the rule is for pruning, with k of p columns chosen in n rows.
fn prunes(n: usize, p: usize, k: usize) -> Option<u32> {
    let len = list_len((LENGTH * (n as f64).powf(1.0 / (k + 1) as f64)) as usize);
    (p >= FULL && k > 0 && 2 * len as usize <= n).then_some(len)
}

/// Lists of this length that are made at a time in so many bytes.
fn list_rows(bytes: usize, len: u32) -> usize {
    (bytes / (size_of::<u64>() * len as usize)).max(1)
}

/// The longest list of a selection, that of its first pruned step; 0 where none is.
fn longest(n: usize, p: usize) -> u32 {
    (1..=p.min(64)).find_map(|k| prunes(n, p, k)).unwrap_or(0)
}

/// Columns that one launch handles.
fn at_once(n: usize, p: usize) -> usize {
    (VALUES_AT_ONCE / n.max(1)).max(1).next_multiple_of(FULL).min(p.max(1))
}

/// Bytes on the device beside the distances.
fn bytes(n: usize, p: usize) -> usize {
    let at_once = at_once(n, p);
    let value = size_of::<f64>() + size_of::<f32>(); // and rounded
    let columns = p.saturating_mul(n.saturating_mul(value).saturating_add(size_of::<f32>()));
    let results = n.saturating_mul(at_once).saturating_mul(size_of::<u64>() + size_of::<u32>());
    let sorted =
        n.next_power_of_two().saturating_mul(at_once).saturating_mul(size_of::<f64>() + size_of::<u32>());
    let rest = n.saturating_mul(size_of::<u32>()).saturating_add(p.saturating_mul(4 * size_of::<u64>()));
    let len = longest(n, p);
    let lists = n.min(list_rows(LIST_BYTES, len.max(1))).saturating_mul(len as usize * size_of::<u64>());
    [columns, results, sorted, rest, lists].iter().fold(0, |sum, &part| sum.saturating_add(part))
}

/// What [`Steps`] will hold in device memory, in `n` rows and `p` columns, and how it will go on.
pub(super) fn plan(cuda: &Cuda, n: usize, p: usize) -> Result<Plan> {
    let width = width(cuda, n, p)?;
    let column = n.saturating_mul(size_of::<f64>());
    Ok(Plan {
        bytes: bytes(n, p).saturating_add(column.saturating_mul(width)),
        bytes_per_chosen: column,
        method: match (width == n, longest(n, p) > 0) {
            (true, false) => "CUDA: distances of the chosen columns kept, n by n; all rows searched",
            (true, true) => {
                "CUDA: distances of the chosen columns kept, n by n; lists of the nearest rows searched"
            }
            (false, false) => {
                "CUDA: distances of the chosen columns made anew, a panel of rows at a time; all rows searched"
            }
            (false, true) => {
                "CUDA: distances of the chosen columns made anew, a panel of rows at a time; lists of the nearest rows searched"
            }
        },
    })
}

/// What [`sum`] of `d` columns will hold in device memory, and how.
pub(super) fn sum_plan(cuda: &Cuda, n: usize, d: usize) -> Result<Plan> {
    let plan = plan(cuda, n, 1)?;
    let bytes = plan.bytes.saturating_add(plan.bytes_per_chosen.saturating_mul(d));
    Ok(Plan { bytes, bytes_per_chosen: 0, ..plan })
}

#[cfg(all(test, feature = "emu"))]
mod tests {
    use super::super::neighbours;
    use super::*;
    use crate::ops::philox::{Stream, Use};

    /// Columns without ties, with many, with none but, and with values beyond f32; some of them twice.
    fn columns(n: usize, p: usize, seed: u64) -> Vec<f64> {
        let mut stream = Stream::new(seed, Use::Choice, 0);
        let mut values: Vec<f64> = (0..p * n)
            .map(|at| match at / n % 7 {
                1 | 3 => stream.below(4) as f64,
                4 => f64::from(stream.normal()) * if at % 3 == 0 { 1e200 } else { 1.0 },
                5 => 1e6 + 0.03125 + 1e-3 * f64::from(stream.normal()),
                6 => 0.25,
                _ => f64::from(stream.normal()),
            })
            .collect();
        values.copy_within(0..2 * n, (p - 2) * n);
        values
    }

    const TIES: [Ties; 3] = [Ties::Mean, Ties::First, Ties::Random { seed: 3, draws: 2 }];

    #[test]
    fn panels_give_what_kept_distances_give() {
        let (n, p) = (70, 10);
        let values = columns(n, p, 2);
        let y: Vec<f64> = (0..n).map(|i| (values[i] * values[n + i]).round()).collect();
        let x = Matrix::columns_f64(&values, n, p).unwrap();
        let cuda = Cuda::emulated(2);
        for ties in TIES {
            let ranks = Ranks::new(&y, ties).unwrap();
            let mut kept = Steps::of_width(&cuda, &x, &ranks, ties, n).unwrap();
            let panels = [1, 32, 69].map(|width| Steps::of_width(&cuda, &x, &ranks, ties, width).unwrap());
            kept.first().unwrap();
            let mut chosen = Vec::new();
            for mut steps in panels {
                steps.first().unwrap();
                assert!(steps.all().unwrap() == kept.all().unwrap(), "{ties:?}");
            }
            for j in [1, 0, 5] {
                chosen.extend(x.column(j));
                kept.step(&x.column(j)).unwrap();
                for width in [1, 32, 69] {
                    let mut steps = Steps::of_width(&cuda, &x, &ranks, ties, width).unwrap();
                    steps.step(&chosen).unwrap();
                    assert!(steps.all().unwrap() == kept.all().unwrap(), "{ties:?} {j} {width}");
                    assert!(steps.best().unwrap() == kept.best().unwrap(), "{ties:?} {j} {width}");
                }
            }
        }
    }

    #[test]
    fn pruned_steps_give_what_dense_ones_and_the_cpu_give() {
        let sizes = [(70, 34), (33, 9), (34, 65)];
        let orders = [[1, 0, 4], [6, 3, 2], [4, 1, 5]];
        for (seed, ((n, p), (ties, order))) in sizes.into_iter().zip(TIES.into_iter().zip(orders)).enumerate()
        {
            let values = columns(n, p, seed as u64);
            let y: Vec<f64> = (0..n).map(|i| (values[i] * values[n + i]).round()).collect();
            let x = Matrix::columns_f64(&values, n, p).unwrap();
            let cuda = Cuda::emulated(seed as u64);
            let ranks = Ranks::new(&y, ties).unwrap();
            let (dense, short, long) = (Search::Dense, Search::Pruned(32), Search::Pruned(64));
            let ways = [(n, dense), (n, short), (1, long), (32, short), (69, short)];
            let begin = |(width, search): (usize, Search)| {
                let mut steps = Steps::of_width(&cuda, &x, &ranks, ties, width.min(n)).unwrap();
                steps.asked = Some(search);
                steps.list_bytes = 24 * 32 * size_of::<u64>(); // of 24 rows, or of 12
                steps
            };
            let mut all = ways.map(begin);
            let mut chosen: Vec<Vec<f64>> = Vec::new();
            for j in order {
                chosen.push(x.column(j));
                let together = |j| neighbours::sum(&[&chosen[..], &[x.column(j)]].concat(), &ranks, ties);
                let expected: Vec<Sum> = (0..p).map(together).collect();
                for steps in &mut all {
                    steps.step(&x.column(j)).unwrap();
                    let way = (steps.width, steps.asked);
                    assert!(steps.all().unwrap() == expected, "{n} {ties:?} {j} {way:?}");
                }
            }
        }
    }

    #[test]
    fn a_list_is_walked_as_far_as_the_best_and_left_only_where_it_ends() {
        let (n, p) = (200, 33);
        let line: Vec<f64> = (0..n).map(|i| i as f64).collect();
        let x = line.repeat(p);
        let x = Matrix::columns_f64(&x, n, p).unwrap();
        let cuda = Cuda::emulated(2);
        let ranks = Ranks::new(&line, Ties::Mean).unwrap();
        let step = |column: &[f64], len| {
            let mut steps = Steps::of_width(&cuda, &x, &ranks, Ties::Mean, n).unwrap();
            steps.asked = Some(Search::Pruned(len));
            steps.step(column).unwrap();
            steps
        };
        let searches = 2 * n as u64;
        // the nearest are 2 away, the fifth of a list 9 or more in the chosen column alone
        let tallied = step(&line, 32).tallied;
        assert_eq!(tallied, Tallied { looked: 4 * searches, again: 0 });
        // all rows are alike in the chosen column: the nearest of most are not in the list, and it cannot tell
        let mut steps = step(&vec![0.0; n], 32);
        let everything = searches * (32 + n as u64 - 1);
        assert_eq!(steps.tallied, Tallied { looked: everything, again: searches });
        steps.asked = None;
        assert_eq!(steps.search(), Search::Dense);
        // a list of all others has no end beyond which to look
        assert_eq!(step(&vec![0.0; n], 256).tallied, Tallied { looked: searches * 200, again: 0 });
    }

    #[test]
    fn steps_are_pruned_where_lists_are_short_and_shared() {
        assert_eq!(prunes(1000, FULL, 1), Some(256));
        assert_eq!(prunes(1000, FULL - 1, 1), None);
        assert_eq!(prunes(1000, FULL, 0), None);
        assert_eq!(prunes(511, FULL, 1), None);
        assert_eq!(prunes(200, FULL, 3), Some(32));
        assert_eq!(prunes(1 << 20, FULL, 1), Some(tiles::LIST_MOST));
        let cuda = Cuda::emulated_with(0, 1 << 30, 1 << 30);
        let plan = |n, p| plan(&cuda, n, p).unwrap();
        assert!(plan(1000, 31).method.contains("all rows") && plan(1000, 32).method.contains("lists"));
        let column = 1000 * (size_of::<f64>() + size_of::<f32>());
        assert!(plan(1000, 32).bytes > plan(1000, 31).bytes + column + 1000 * 256 * size_of::<u64>());
    }
}
