//! The steps of FOCI, and A of given columns, on CUDA: ranks, columns and the distances of the chosen columns stay in
//! device memory, the best candidate and its sum come back. Neighbours and sums are the CPU's to the last bit.
//!
//! Distances of the chosen columns are kept where n × n of them fit in half of the memory that is free; else they are
//! made anew in every step, a panel of rows at a time. Which of the two changes no result.

use super::Ties;
use super::columns::Matrix;
use super::foci::Plan;
use super::ranks::{Ranks, Sum};
use crate::device::Cuda;
use crate::device::cuda::{Buffer, tiles};
use crate::ops::nearest::{Columns, Tied, distance, nearest, nearest_sorted};
use crate::ops::statistic::{self, Sums};
use crate::{Error, Result};

/// Values of the columns that one launch handles: 12 bytes of results each, 24 where they are sorted.
const VALUES_AT_ONCE: usize = 1 << 24;
/// The distances of a panel take no more bytes than this, unless those of [`tiles::NEAREST_THREADS`] rows do.
const PANEL_BYTES: usize = 256 << 20;

/// What a selection keeps on the device.
pub(super) struct Steps<'a> {
    cuda: &'a Cuda,
    rank: Buffer<u32>,     // [n]
    columns: Vec<Columns>, // some columns each, [.., n]
    left: Buffer<u32>,     // [p]: 0 where a column is chosen
    chosen: Vec<f64>,      // columns chosen, [k, n]
    distance: Buffer<f64>, // [n, width], of the chosen columns
    width: usize,          // rows of a panel; n: distances are kept
    known: usize,          // values of `chosen` that kept distances have
    sums: Sums,
    tied: Tied,
}

impl<'a> Steps<'a> {
    /// Copies ranks and columns to the device.
    pub fn new(cuda: &'a Cuda, x: &Matrix, ranks: &Ranks, ties: Ties) -> Result<Steps<'a>> {
        Steps::of_width(cuda, x, ranks, ties, width(cuda, x.n(), x.p())?)
    }

    fn of_width(cuda: &'a Cuda, x: &Matrix, ranks: &Ranks, ties: Ties, width: usize) -> Result<Steps<'a>> {
        let (n, p) = (x.n(), x.p());
        let at_once = (VALUES_AT_ONCE / n).clamp(1, p);
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
            first += columns.values().len() / n;
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
        for start in (0..n).step_by(self.width) {
            let range = start..n.min(start + self.width);
            if fresh || !chosen.is_empty() {
                distance(self.cuda, &mut self.distance, &chosen, n, range.clone(), fresh)?;
            }
            let mut first = 0;
            for columns in &self.columns {
                let (distance, rank) = (&self.distance, &self.rank);
                let near = nearest(self.cuda, columns, distance, range.clone(), rank, self.tied)?;
                self.sums.add(self.cuda, first, &near, range.len())?;
                first += columns.values().len() / n;
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

/// Bytes on the device beside the distances.
fn bytes(n: usize, p: usize) -> usize {
    let at_once = (VALUES_AT_ONCE / n.max(1)).clamp(1, p.max(1));
    let columns = p.saturating_mul(n.saturating_mul(size_of::<f64>()).saturating_add(size_of::<f32>()));
    let results = n.saturating_mul(at_once).saturating_mul(size_of::<u64>() + size_of::<u32>());
    let sorted =
        n.next_power_of_two().saturating_mul(at_once).saturating_mul(size_of::<f64>() + size_of::<u32>());
    let rest = n.saturating_mul(size_of::<u32>()).saturating_add(p.saturating_mul(4 * size_of::<u64>()));
    columns.saturating_add(results).saturating_add(sorted).saturating_add(rest)
}

/// What [`Steps`] will hold in device memory, in `n` rows and `p` columns, and how it will go on.
pub(super) fn plan(cuda: &Cuda, n: usize, p: usize) -> Result<Plan> {
    let width = width(cuda, n, p)?;
    let column = n.saturating_mul(size_of::<f64>());
    Ok(Plan {
        bytes: bytes(n, p).saturating_add(column.saturating_mul(width)),
        bytes_per_chosen: column,
        method: match width == n {
            true => "CUDA: distances of the chosen columns kept, n by n",
            false => "CUDA: distances of the chosen columns made anew, a panel of rows at a time",
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
    use super::*;
    use crate::ops::philox::{Stream, Use};

    #[test]
    fn panels_give_what_kept_distances_give() {
        let (n, p) = (70, 10);
        let mut stream = Stream::new(2, Use::Choice, 0);
        let values: Vec<f64> = (0..p * n)
            .map(|at| if at / n % 2 == 0 { f64::from(stream.normal()) } else { stream.below(4) as f64 })
            .collect();
        let y: Vec<f64> = (0..n).map(|i| (values[i] * values[n + i]).round()).collect();
        let x = Matrix::columns_f64(&values, n, p).unwrap();
        let cuda = Cuda::emulated(2);
        for ties in [Ties::Mean, Ties::First, Ties::Random { seed: 3, draws: 2 }] {
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
}
