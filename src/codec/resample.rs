//! How far a value is from chance: a permutation p-value and an m-out-of-n interval.
//!
//! The null of T(Y, Z | X) is that Y and Z are independent given X. Without X, Y is permuted. With X, Y is permuted
//! within cells of rows that are near in X: a cell is halved at the median of its widest column until it has at most
//! [`CELL`] rows or all of them are identical, so on discrete data a cell is a value of X and the test is exact, and on
//! continuous data it is a permutation among nearest neighbours. Neighbours are found once for all permutations.

use rayon::prelude::*;

use super::columns::Matrix;
use super::neighbours::Neighbours;
use super::ranks::{Ranks, sort_key};
use super::statistic::{Measure, Options, Sample, t};
use super::xi::Order;
use crate::ops::philox::{Stream, Use};
use crate::{Error, Result};

/// Rows of a cell at most, where they differ.
const CELL: usize = 8;

/// The value for given ranks of Y.
type Value = dyn Fn(&Ranks) -> Option<f64> + Sync;

/// (1 + b) / (1 + B): b of the B = `permutations` permutations (keyed by `options.seed`) reach the value, or leave it
/// undefined. None where the value itself is undefined. Arguments are those of [`super::statistic`].
///
/// # Errors
/// As [`super::statistic`], and where `permutations` is 0.
pub fn p_value(
    y: &[f64],
    data: &Matrix,
    z: &[usize],
    x: &[usize],
    options: &Options,
    permutations: u32,
) -> Result<Option<f64>> {
    if permutations == 0 {
        return Err(Error::config("at least one permutation is needed"));
    }
    let sample = Sample::new(y, data, z, x, options)?;
    let ranks = Ranks::new(&sample.y, sample.ties)?;
    let value: Box<Value> = match sample.measure {
        Measure::Xi => {
            let order = Order::new(&sample.columns[0]);
            Box::new(move |ranks| order.xi(ranks, sample.ties))
        }
        Measure::Codec => {
            let with = Neighbours::new(&sample.columns, &ranks);
            let given = (sample.given > 0).then(|| Neighbours::new(&sample.columns[..sample.given], &ranks));
            let ties = sample.ties;
            Box::new(move |ranks| {
                t(ranks, with.sum(ranks, ties), given.as_ref().map(|given| given.sum(ranks, ties)))
            })
        }
    };
    let Some(found) = value(&ranks) else { return Ok(None) };
    let cells = cells(&sample.columns[..sample.given], ranks.n());
    let reached = (0..permutations).into_par_iter().filter(|&number| {
        let mut stream = Stream::new(options.seed, Use::Permutation, number);
        let mut from: Vec<u32> = (0..ranks.n() as u32).collect();
        for cell in &cells {
            let mut rows = cell.clone();
            stream.shuffle(&mut rows);
            cell.iter().zip(rows).for_each(|(&i, j)| from[i as usize] = j);
        }
        value(&ranks.permuted(&from)).is_none_or(|value| value >= found)
    });
    Ok(Some((1 + reached.count()) as f64 / (1.0 + f64::from(permutations))))
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

/// The m-out-of-n interval of a level (as 0.95): values of `subsamples` subsamples of m = ⌈n^(2/3)⌉ rows, drawn without
/// replacement (with it, rows would be their own neighbours), centred at their mean and shrunk by √(m / (n − m)), which is
/// the rate √n and the correction for drawing from finitely many (Politis, Romano and Wolf 1999, ch. 2). It is about
/// what the estimate scatters around; where T has a bias at this n, as with many columns, it does not show it.
/// None where the value is undefined. Arguments are those of [`super::statistic`].
///
/// # Errors
/// As [`super::statistic`]; where `level` is not between 0 and 1, there are fewer than 2 subsamples, or fewer than 8 rows.
pub fn interval(
    y: &[f64],
    data: &Matrix,
    z: &[usize],
    x: &[usize],
    options: &Options,
    level: f64,
    subsamples: u32,
) -> Result<Option<Interval>> {
    let n = y.len();
    if !(level > 0.0 && level < 1.0) || subsamples < 2 || n < 8 {
        return Err(Error::config(format!(
            "an interval needs a level between 0 and 1, 2 subsamples and 8 rows, not {level}, {subsamples} and {n}"
        )));
    }
    let sample = Sample::new(y, data, z, x, options)?;
    let Some(value) = sample.statistic()?.value else { return Ok(None) };
    let m = (n as f64).powf(2.0 / 3.0).ceil() as usize;
    let one = |number: u32| {
        let mut stream = Stream::new(options.seed, Use::Choice, number);
        Ok(sample.rows(&stream.choose(n, m)).statistic()?.value)
    };
    let values = (0..subsamples).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
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

    #[test]
    fn cells_part_the_rows_and_keep_identical_ones_together() {
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
}
