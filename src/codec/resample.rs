//! How a value compares with chance: a permutation p-value and an m-out-of-n interval.
//!
//! The null of T(Y, Z | X) is that Y and Z are independent given X. Without X, Y is permuted. With X, Y is permuted
//! within cells of rows that are near in X: a cell is halved at the median of its widest column until it has at most
//! [`CELL`] rows or all of them are identical, so on discrete data a cell is a value of X and the test is exact, and on
//! continuous data it is a permutation among nearest neighbours.

use std::ops::Range;

use rayon::prelude::*;

use super::columns::Columns;
use super::cuda::{Given, Table};
use super::neighbours::{Neighbours, sum};
use super::options::{Measure, StatisticOptions, Ties};
use super::ranks::{Ranks, Sum, sort_key};
use super::statistic::{Sample, t};
use super::xi::{OnCuda, Order};
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};
use crate::ops::philox::{Stream, Use};

/// The most rows of a cell, unless they are identical.
const CELL: usize = 8;

/// The value for given ranks of Y.
type Value<'a> = dyn Fn(&Ranks) -> Option<f64> + Sync + 'a;

/// The same on CUDA, which can fail.
type ValueOnCuda<'a> = dyn FnMut(&Ranks) -> Result<Option<f64>> + 'a;

/// (1 + b) / (1 + B): b of the B = `permutations` permutations (keyed by `options.seed`) reach the value or leave it
/// undefined. None where the value itself is undefined. The other arguments are those of [`super::statistic()`]. The result
/// is the same on every device.
///
/// Several ranks, or GPUs, have a part of the permutations each. On the CPU neighbours are found once for all of them. On CUDA they are searched again for each one; ξ's column is
/// sorted once.
///
/// # Errors
/// As [`super::statistic()`], and where `permutations` is 0.
pub fn p_value(
    device: &Device,
    y: &[f64],
    data: &Columns,
    z: &[usize],
    x: &[usize],
    options: &StatisticOptions,
    permutations: u32,
) -> Result<Option<f64>> {
    let of_ranks = |device: &Device| {
        let (ranks, seed) = (device.ranks(), options.seed);
        let first = |rank: usize| (permutations as usize * rank / ranks.size()) as u32;
        let numbers = first(ranks.rank())..first(ranks.rank() + 1);
        let own = device.scope(|| {
            let permuted = Permuted::new(y, data, z, x, options, permutations)?;
            match device.cuda() {
                Some(cuda) => permuted.reached_on_cuda(cuda, seed, numbers),
                None => Ok(permuted.reached(seed, numbers)),
            }
        });
        // Where the value is undefined, it is on every rank.
        let own = own.map(|own| vec![[u32::from(own.is_some()), own.unwrap_or(0)]]);
        let all = ranks.gather_values(own)?.concat();
        let reached = all
            .iter()
            .all(|&[defined, _]| defined == 1)
            .then(|| all.iter().map(|[_, reached]| reached).sum());
        Ok(reached.map(|reached: u32| (1.0 + f64::from(reached)) / (1.0 + f64::from(permutations))))
    };
    device.shared(of_ranks)
}

/// A sample whose Y is permuted.
struct Permuted {
    sample: Sample,
    ranks: Ranks,
    cells: Vec<Vec<u32>>,
}

impl Permuted {
    fn new(
        y: &[f64],
        data: &Columns,
        z: &[usize],
        x: &[usize],
        options: &StatisticOptions,
        permutations: u32,
    ) -> Result<Permuted> {
        if permutations == 0 {
            return Err(Error::config("at least one permutation is needed"));
        }
        let sample = Sample::new(y, data, z, x, options)?;
        let ranks = Ranks::new(&sample.y, sample.ties)?;
        let cells = cells(&sample.columns[..sample.given], ranks.n());
        Ok(Permuted { sample, ranks, cells })
    }

    /// How many of the permutations with these numbers reach the value; none where it is undefined.
    fn reached(&self, seed: u64, numbers: Range<u32>) -> Option<u32> {
        let Permuted { sample, ranks, .. } = self;
        let ties = sample.ties;
        let value: Box<Value> = match sample.measure {
            Measure::Xi => {
                let order = Order::new(&sample.columns[0]);
                Box::new(move |ranks| order.xi(ranks, ties))
            }
            Measure::Codec => {
                let with = Neighbours::new(&sample.columns, ranks);
                let given =
                    (sample.given > 0).then(|| Neighbours::new(&sample.columns[..sample.given], ranks));
                Box::new(move |ranks| {
                    t(ranks, with.sum(ranks, ties), given.as_ref().map(|given| given.sum(ranks, ties)))
                })
            }
        };
        let found = value(ranks)?;
        let reaches = |&number: &u32| value(&self.ranks(number, seed)).is_none_or(|value| value >= found);
        Some(numbers.into_par_iter().filter(reaches).count() as u32)
    }

    /// [`Permuted::reached`] on CUDA.
    fn reached_on_cuda(&self, cuda: &Cuda, seed: u64, numbers: Range<u32>) -> Result<Option<u32>> {
        let Permuted { sample, ranks, .. } = self;
        let mut value: Box<ValueOnCuda> = match sample.measure {
            Measure::Xi => {
                let mut order = OnCuda::new(cuda, &sample.columns[0], sample.ties)?;
                Box::new(move |ranks| order.xi(ranks))
            }
            Measure::Codec => {
                let mut with = Given::new(cuda, &sample.columns, ranks, sample.ties)?;
                let mut given = match sample.given {
                    0 => None,
                    count => Some(Given::new(cuda, &sample.columns[..count], ranks, sample.ties)?),
                };
                Box::new(move |ranks| {
                    let given = given.as_mut().map(|given| given.sum(ranks)).transpose()?;
                    Ok(t(ranks, with.sum(ranks)?, given))
                })
            }
        };
        let Some(found) = value(ranks)? else { return Ok(None) };
        let mut reached = 0;
        for number in numbers {
            let value = value(&self.ranks(number, seed))?;
            reached += u32::from(value.is_none_or(|value| value >= found));
        }
        Ok(Some(reached))
    }

    /// The ranks under the permutation of this number, within the cells.
    fn ranks(&self, number: u32, seed: u64) -> Ranks {
        let mut stream = Stream::new(seed, Use::Permutation, number);
        let mut from: Vec<u32> = (0..self.ranks.n() as u32).collect();
        for cell in &self.cells {
            let mut rows = cell.clone();
            stream.shuffle(&mut rows);
            cell.iter().zip(rows).for_each(|(&i, j)| from[i as usize] = j);
        }
        self.ranks.permuted(&from)
    }
}

/// The largest T(Y, X_j) over the columns of `x` under each of the permutations of Y with these numbers (which key them,
/// together with `seed`): what FOCI's first step reaches by chance. Columns are sorted once for all permutations. None where
/// Y is constant. The work runs on the host threads of every device; a trace that is on a GPU stays there.
///
/// # Errors
/// As [`super::foci()`].
pub fn permuted_first_steps(
    device: &Device,
    y: &[f64],
    x: &Columns,
    permutations: Range<u32>,
    seed: u64,
) -> Result<Option<Vec<f64>>> {
    device.scope(|| first_steps(y, x, permutations, seed))
}

/// [`permuted_first_steps`] of a table, wherever it is. Of one that is on the device only the largest sums come to the host.
///
/// # Errors
/// As [`super::foci()`].
pub(crate) fn permuted_first_steps_of_table(
    device: &Device,
    y: &[f64],
    x: Table<'_>,
    permutations: Range<u32>,
    seed: u64,
) -> Result<Option<Vec<f64>>> {
    let rows = match x {
        Table::Host(x) => return permuted_first_steps(device, y, &x, permutations, seed),
        Table::Device(rows) => rows,
    };
    let (ranks, permuted) = permuted(y, x, permutations, seed)?;
    let tops = rows.permuted_firsts(&permuted)?;
    Ok(tops.into_iter().map(|top| ranks.unconditional(top)).collect())
}

/// The ranks of Y, and their permutations.
fn permuted(y: &[f64], x: Table<'_>, permutations: Range<u32>, seed: u64) -> Result<(Ranks, Vec<Ranks>)> {
    if y.len() != x.n() {
        return Err(Error::shape("codec", format!("{} values of Y", x.n()), y.len().to_string()));
    }
    x.check_finite()?;
    let ranks = Ranks::new(y, Ties::Mean)?;
    let one = |number| {
        let mut from: Vec<u32> = (0..y.len() as u32).collect();
        Stream::new(seed, Use::Permutation, number).shuffle(&mut from);
        ranks.permuted(&from)
    };
    let permuted = permutations.map(one).collect();
    Ok((ranks, permuted))
}

fn first_steps(y: &[f64], x: &Columns, permutations: Range<u32>, seed: u64) -> Result<Option<Vec<f64>>> {
    let (ranks, permuted) = permuted(y, Table::Host(*x), permutations, seed)?;
    let tops = |tops: Vec<Sum>, j: usize| {
        let column = x.column(j);
        let sums = match Line::new(&column) {
            Some(line) => permuted.iter().map(|ranks| line.sum(&ranks.r)).collect::<Vec<_>>(),
            None => {
                permuted.iter().map(|ranks| sum(std::slice::from_ref(&column), ranks, Ties::Mean)).collect()
            }
        };
        larger(tops, sums)
    };
    let tops = (0..x.p()).into_par_iter().fold(Vec::new, tops).reduce(Vec::new, larger);
    Ok(tops.into_iter().map(|top| ranks.unconditional(top)).collect())
}

/// The larger sum of each pair, as selections compare them, so that every device finds the same one; of equal ones the first.
/// An empty list is no sums yet.
fn larger(a: Vec<Sum>, b: Vec<Sum>) -> Vec<Sum> {
    match a.is_empty() {
        true => b,
        false if b.is_empty() => a,
        false => a.into_iter().zip(b).map(|(a, b)| if b.rounded() > a.rounded() { b } else { a }).collect(),
    }
}

/// A column of distinct values in ascending order: the rows nearest to a row are beside it.
struct Line {
    rows: Vec<u32>,
    /// By place: whether the row before it, and the row after it, is nearest.
    nearest: Vec<(bool, bool)>,
}

impl Line {
    /// None where values are equal, or where more than two are equally near a row (rounding can cause that too).
    fn new(column: &[f64]) -> Option<Line> {
        let mut rows: Vec<u32> = (0..column.len() as u32).collect();
        rows.sort_unstable_by_key(|&i| sort_key(column[i as usize]));
        let square = |place: usize, other: Option<usize>| {
            let difference = column[*rows.get(other?)? as usize] - column[rows[place] as usize];
            Some(difference * difference)
        };
        let beside = |place: usize| {
            let far = f64::INFINITY;
            let [before, behind] =
                [place.checked_sub(1), Some(place + 1)].map(|at| square(place, at).unwrap_or(far));
            let beyond = [place.checked_sub(2), Some(place + 2)].map(|at| square(place, at).unwrap_or(far));
            let best = before.min(behind);
            let plain = best > 0.0 && best < far && beyond.iter().all(|&square| square > best);
            plain.then_some((before == best, behind == best))
        };
        let nearest = (0..rows.len()).map(beside).collect::<Option<Vec<_>>>()?;
        Some(Line { rows, nearest })
    }

    /// A for ranks by row.
    fn sum(&self, r: &[u32]) -> Sum {
        let mut sum = Sum::default();
        let rank = |place: usize| r[self.rows[place] as usize];
        for (place, &nearest) in self.nearest.iter().enumerate() {
            let own = rank(place);
            let (s, c) = match nearest {
                (true, false) => (own.min(rank(place - 1)).into(), 1),
                (false, true) => (own.min(rank(place + 1)).into(), 1),
                _ => (u64::from(own.min(rank(place - 1))) + u64::from(own.min(rank(place + 1))), 2),
            };
            sum.add(s, c);
        }
        sum
    }
}

/// Rows that are near in all columns; all rows where there is no column.
fn cells(columns: &[Vec<f64>], n: usize) -> Vec<Vec<u32>> {
    let (mut open, mut cells) = (vec![(0..n as u32).collect::<Vec<u32>>()], Vec::new());
    while let Some(mut rows) = open.pop() {
        let extent = |column: &&Vec<f64>| {
            let values = rows.iter().map(|&i| column[i as usize]);
            let (least, greatest) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
            greatest - least
        };
        let widest =
            columns.iter().map(|column| (extent(&column), column)).max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, column)) = widest.filter(|&(extent, _)| extent > 0.0 && rows.len() > CELL) else {
            cells.push(rows);
            continue;
        };
        rows.sort_unstable_by_key(|&i| (sort_key(column[i as usize]), i));
        let middle = column[rows[rows.len() / 2] as usize];
        let below = rows.partition_point(|&i| column[i as usize] < middle); // identical rows stay together
        let split = match below {
            0 => rows.partition_point(|&i| column[i as usize] <= middle),
            below => below,
        };
        open.push(rows.split_off(split));
        open.push(rows);
    }
    cells
}

/// An interval by subsamples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// Rows of a subsample.
    pub m: usize,
    /// Subsamples in which the value was defined.
    pub subsamples: usize,
}

/// The m-out-of-n interval of a level (such as 0.95): values of `subsamples` subsamples of m = ⌈n^(2/3)⌉ rows, drawn without
/// replacement (with it, rows would be their own neighbours), centred at their mean and shrunk by √(m / (n − m)), which is
/// the rate √n and the correction for drawing from finitely many (Politis, Romano and Wolf 1999, ch. 2). It shows how the
/// estimate scatters, not its bias at this n, which can be large with many columns. None where the value is undefined. The
/// other arguments are those of [`super::statistic()`]. The result is the same on every device.
///
/// # Errors
/// As [`super::statistic()`]; where `level` is not between 0 and 1, there are fewer than 2 subsamples, or fewer than 8 rows.
pub fn interval(
    device: &Device,
    y: &[f64],
    data: &Columns,
    z: &[usize],
    x: &[usize],
    options: &StatisticOptions,
    level: f64,
    subsamples: u32,
) -> Result<Option<Interval>> {
    device.scope(|| interval_on(device.cuda(), y, data, z, x, options, level, subsamples))
}

/// [`interval`] in the thread pool of the caller.
fn interval_on(
    cuda: Option<&Cuda>,
    y: &[f64],
    data: &Columns,
    z: &[usize],
    x: &[usize],
    options: &StatisticOptions,
    level: f64,
    subsamples: u32,
) -> Result<Option<Interval>> {
    let n = y.len();
    if !(level > 0.0 && level < 1.0) || subsamples < 2 || n < 8 {
        return Err(Error::config(format!(
            "an interval needs a level between 0 and 1, at least 2 subsamples and at least 8 rows; found {level}, {subsamples} and {n}"
        )));
    }
    let sample = Sample::new(y, data, z, x, options)?;
    let Some(value) = sample.statistic(cuda)?.value else { return Ok(None) };
    let m = (n as f64).powf(2.0 / 3.0).ceil() as usize;
    let one = |number: u32| {
        let mut stream = Stream::new(options.seed, Use::Choice, number);
        Ok(sample.rows(&stream.choose(n, m)).statistic(cuda)?.value)
    };
    let values = match cuda {
        Some(_) => (0..subsamples).map(one).collect::<Result<Vec<_>>>()?,
        None => (0..subsamples).into_par_iter().map(one).collect::<Result<Vec<_>>>()?,
    };
    let mut values: Vec<f64> = values.into_iter().flatten().collect();
    if values.len() < 2 {
        return Ok(None);
    }
    values.sort_unstable_by(f64::total_cmp);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let shrink = (m as f64 / (n - m) as f64).sqrt();
    let quantile = |q: f64| values[(q * (values.len() - 1) as f64).round() as usize];
    let end = |q: f64| value - (quantile(q) - mean) * shrink;
    Ok(Some(Interval {
        low: end((1.0 + level) / 2.0),
        high: end((1.0 - level) / 2.0),
        m,
        subsamples: values.len(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::foci::foci;
    use crate::codec::options::FociOptions;

    #[test]
    fn every_row_is_in_one_cell_and_identical_rows_stay_together() {
        let mut stream = Stream::new(1, Use::Choice, 0);
        let a: Vec<f64> = (0..200).map(|_| stream.uniform()).collect();
        let b: Vec<f64> = (0..200).map(|_| (3.0 * stream.uniform()).floor()).collect();
        let found = cells(&[a, b.clone()], 200);
        let mut rows = found.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..200).collect::<Vec<u32>>());
        assert!(found.iter().all(|cell| cell.len() <= CELL) && found.len() < 100);
        let discrete = cells(&[b], 200);
        assert_eq!(discrete.len(), 3);
        assert_eq!(cells(&[], 9), [(0..9).collect::<Vec<u32>>()]);
    }

    #[test]
    fn permuted_first_steps_are_those_of_permuted_rows() {
        let device = Device::cpu().unwrap();
        let mut stream = Stream::new(9, Use::Choice, 0);
        let n = 60;
        let mut columns: Vec<f64> = (0..2 * n).map(|_| f64::from(stream.normal())).collect();
        columns.extend((0..n).map(|i| (i % 4) as f64)); // ties
        columns.extend((0..n).map(|i| if i % 2 == 0 { 1e200 + i as f64 } else { i as f64 })); // differences lost to rounding, and large ones
        columns.extend((0..n).map(|i| (i * i) as f64)); // one nearest
        columns.extend((0..n).map(|i| i as f64)); // two
        let y: Vec<f64> = (0..n).map(|_| stream.below(20) as f64).collect();
        for j in 0..6 {
            let x = Columns::from_columns_f64(&columns[j * n..(j + 1) * n], n, 1).unwrap();
            let found = permuted_first_steps(&device, &y, &x, 5..12, 3).unwrap().unwrap();
            for (number, top) in (5..).zip(found) {
                let mut permuted = y.clone();
                Stream::new(3, Use::Permutation, number).shuffle(&mut permuted);
                let plain = foci(&device, &permuted, &x, &FociOptions::default()).unwrap();
                assert_eq!(plain.first_step, [top], "column {j}");
            }
        }
        let x = Columns::from_columns_f64(&columns, n, 6).unwrap();
        let all = permuted_first_steps(&device, &y, &x, 0..2, 3).unwrap().unwrap();
        let each = (0..6).map(|j| Columns::from_columns_f64(&columns[j * n..(j + 1) * n], n, 1).unwrap());
        let each = each.map(|x| permuted_first_steps(&device, &y, &x, 0..2, 3).unwrap().unwrap()[1]);
        assert_eq!(Some(all[1]), each.reduce(f64::max));
        assert_eq!(permuted_first_steps(&device, &vec![1.0; n], &x, 0..3, 0).unwrap(), None);
    }
}
