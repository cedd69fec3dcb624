//! A measure for given columns: T(Y, Z | X) (MATH.md, Eq. 2 and 3), or Chatterjee's ξ.

use super::columns::{Columns, Y_STREAM, add_noise, check_sigma};
use super::memory::MemoryEstimate;
use super::neighbours::{self, sum};
use super::options::{Measure, StatisticOptions, Ties};
use super::ranks::{BITS, ONE, Ranks, Sum};
use super::runs::Runs;
use super::{cuda, xi};
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};

/// A value of T or ξ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistic {
    /// T or ξ; none where it is 0/0: Y is constant, or X alone determines Y.
    pub value: Option<f64>,
    /// The numerator of T, where it is a whole number: always under [`Ties::First`] and one draw of [`Ties::Random`],
    /// and else where no row had two equally near neighbours.
    pub numerator: Option<i128>,
    /// The denominator, likewise.
    pub denominator: Option<i128>,
    /// The number of rows.
    pub n: usize,
}

/// T(Y, Z | X): how much `z` tells about `y` beyond `x` (Azadkia and Chatterjee 2021, Eq. 2.2 and 2.3; MATH.md, Eq. 2
/// and 3). 0: nothing; 1: Y is a function of (X, Z). `y` is `[n]`, `z` and `x` are columns of `data` by number, `z` at
/// least one; distances are summed over `x`, then `z`, in the order given. Under [`Measure::Xi`] it is ξ.
///
/// On every device the result is the same, to the last bit.
///
/// # Errors
/// Fewer than 2 rows, shapes that do not fit, a column that does not exist, values that are not finite, ξ of anything but one
/// column, or a failure of the device.
pub fn statistic(
    device: &Device,
    y: &[f64],
    data: &Columns,
    z: &[usize],
    x: &[usize],
    options: &StatisticOptions,
) -> Result<Statistic> {
    device.scope(|| Sample::new(y, data, z, x, options)?.statistic(device.cuda()))
}

/// The memory of [`statistic`] for `n` rows, `z` columns of Z and `x` of X, and of [`super::p_value`] where `permuted`; on
/// CUDA in the device's memory, as much of it as is free now.
///
/// # Errors
/// Where the device does not report its free memory.
pub fn statistic_memory(
    device: &Device,
    n: usize,
    z: usize,
    x: usize,
    permuted: bool,
) -> Result<MemoryEstimate> {
    match device.cuda() {
        Some(cuda) => cuda::sum_estimate(cuda, n, z + x),
        None => Ok(estimate(n, z, x, permuted, device.threads())),
    }
}

/// The memory of [`statistic`] on the CPU.
fn estimate(n: usize, z: usize, x: usize, permuted: bool, threads: usize) -> MemoryEstimate {
    let d = x + z;
    let ranks = n.saturating_mul(size_of::<f64>() + 2 * size_of::<u32>());
    let columns = n.saturating_mul(d).saturating_mul(size_of::<f64>());
    let each = n.saturating_mul(Runs::BYTES + 5 * size_of::<u32>());
    let parts = [
        columns,
        ranks.saturating_mul(2),
        neighbours::bytes(n, d, permuted),
        if permuted && x > 0 { neighbours::bytes(n, x, true) } else { 0 },
        if permuted { each.saturating_mul(threads) } else { 0 },
    ];
    MemoryEstimate {
        bytes: parts.iter().fold(0, |sum, &part| sum.saturating_add(part)),
        bytes_per_chosen: 0,
        method: if d == 1 { "a sorted column" } else { "a k-d tree over the different points" },
    }
}

/// The rows of Y, X and Z, standardised and with their noise.
pub(super) struct Sample {
    pub y: Vec<f64>,
    pub columns: Vec<Vec<f64>>, // X, then Z
    pub given: usize,           // columns of X
    pub measure: Measure,
    pub ties: Ties,
}

impl Sample {
    pub fn new(
        y: &[f64],
        data: &Columns,
        z: &[usize],
        x: &[usize],
        options: &StatisticOptions,
    ) -> Result<Sample> {
        if y.len() != data.n() {
            return Err(Error::shape("codec", format!("{} values of Y", data.n()), y.len().to_string()));
        }
        if z.is_empty() {
            return Err(Error::config("at least one column must be given for Z"));
        }
        if options.measure == Measure::Xi && (z.len() != 1 || !x.is_empty()) {
            return Err(Error::config(
                "ξ (--measure xi) takes one column Z and no column X; T (--measure codec) takes any number",
            ));
        }
        check_sigma(options.noise)?;
        let mut columns = Vec::with_capacity(x.len() + z.len());
        for (at, &j) in x.iter().chain(z).enumerate() {
            if j >= data.p() {
                return Err(Error::config(format!("there is no column {j}, only {}", data.p())));
            }
            let mut column = data.column(j);
            let bad = |column: &[f64]| column.iter().position(|v| !v.is_finite());
            if let Some(i) = bad(&column) {
                return Err(Error::config(format!(
                    "row {i} of column {j} is {}, not a finite number",
                    column[i]
                )));
            }
            options.standardize.apply(&mut column);
            add_noise(&mut column, options.noise, options.seed, at as u32);
            if bad(&column).is_some() {
                return Err(Error::config(format!("column {j} overflows where it is standardised")));
            }
            columns.push(column);
        }
        let mut y = y.to_vec();
        add_noise(&mut y, options.noise, options.seed, Y_STREAM);
        Ok(Sample { y, columns, given: x.len(), measure: options.measure, ties: options.ties })
    }

    /// Some of the rows.
    pub fn rows(&self, rows: &[usize]) -> Sample {
        let take = |column: &Vec<f64>| rows.iter().map(|&i| column[i]).collect::<Vec<f64>>();
        Sample { y: take(&self.y), columns: self.columns.iter().map(take).collect(), ..*self }
    }

    /// The value, on CUDA where it is given.
    pub fn statistic(&self, cuda: Option<&Cuda>) -> Result<Statistic> {
        match cuda {
            _ if self.measure == Measure::Xi => self.xi(cuda),
            Some(cuda) => self.measure(|columns, ranks| cuda::sum(cuda, columns, ranks, self.ties)),
            None => self.measure(|columns, ranks| Ok(sum(columns, ranks, self.ties))),
        }
    }

    fn xi(&self, cuda: Option<&Cuda>) -> Result<Statistic> {
        let (ranks, x) = (Ranks::new(&self.y, self.ties)?, &self.columns[0]);
        let value = match cuda {
            Some(cuda) => xi::OnCuda::new(cuda, x, self.ties)?.xi(&ranks)?,
            None => xi::Order::new(x).xi(&ranks, self.ties),
        };
        Ok(Statistic { value, numerator: None, denominator: None, n: ranks.n() })
    }

    /// T, with A of some columns from `sum`.
    fn measure(&self, sum: impl Fn(&[Vec<f64>], &Ranks) -> Result<Sum>) -> Result<Statistic> {
        let ranks = Ranks::new(&self.y, self.ties)?;
        let n = ranks.n();
        let with = sum(&self.columns, &ranks)?;
        if self.given == 0 {
            let (numerator, part) = ranks.unconditional_numerator(with);
            let whole = part == 0.0;
            return Ok(Statistic {
                value: ranks.unconditional(with),
                numerator: whole.then_some(numerator),
                denominator: Some(ranks.spread),
                n,
            });
        }
        let given = sum(&self.columns[..self.given], &ranks)?;
        let (numerator, denominator) = ranks.conditional_ratio(with, given);
        let whole = |fixed: i128| (fixed & (ONE - 1) == 0).then_some(fixed >> BITS);
        Ok(Statistic {
            value: t(&ranks, with, Some(given)),
            numerator: whole(numerator),
            denominator: whole(denominator),
            n,
        })
    }
}

/// T of A with Z and, where there is an X, A without.
pub(super) fn t(ranks: &Ranks, with: Sum, given: Option<Sum>) -> Option<f64> {
    given.map_or_else(|| ranks.unconditional(with), |given| ranks.conditional(with, given))
}
