//! A measure for given columns: T(Y, Z | X) (MATH.md, Eq. 2 and 3), or Chatterjee's ξ.

use super::columns::{Matrix, Standardize, Y_STREAM, add_noise, check_sigma};
use super::foci::Plan;
use super::neighbours::{self, Runs, sum};
use super::ranks::{BITS, ONE, Ranks, Sum};
use super::{Ties, cuda, xi};
use crate::device::{Cuda, Device};
use crate::{Error, Result};

/// What [`statistic`] measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// T(Y, Z | X) of Azadkia and Chatterjee: the default.
    #[default]
    Codec,
    /// ξ(Z, Y) of Chatterjee (JASA 2021), Z one column: neighbours are successors in the order of Z. Where Z ties,
    /// [`Ties::Mean`] is the expectation over all orders of the tied rows, [`Ties::First`] takes them by index.
    Xi,
}

crate::names::names!(Measure { Codec = "codec", Xi = "xi" });

/// How [`statistic`] measures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// What.
    pub measure: Measure,
    /// What is done to the columns Z and X first; the ranks of Y need nothing.
    pub standardize: Standardize,
    /// What counts where several rows are equally near.
    pub ties: Ties,
    /// σ of the normal noise added to Y, Z and X, after scaling (L-CODEC); 0 adds none.
    pub noise: f64,
    /// The seed of the noise.
    pub seed: u64,
}

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
/// # Errors
/// Fewer than 2 rows, shapes that do not fit, a column that is not there, values that are no finite numbers, or ξ of
/// anything but one column.
pub fn statistic(y: &[f64], data: &Matrix, z: &[usize], x: &[usize], options: &Options) -> Result<Statistic> {
    Sample::new(y, data, z, x, options)?.statistic()
}

/// [`statistic`] on a device: the same result, to the last bit.
///
/// # Errors
/// As [`statistic`], and the device can fail.
pub fn statistic_on(
    device: &Device,
    y: &[f64],
    data: &Matrix,
    z: &[usize],
    x: &[usize],
    options: &Options,
) -> Result<Statistic> {
    device.scope(|| Sample::new(y, data, z, x, options)?.statistic_by(device.cuda()))
}

/// The plan of [`statistic_on`] for `n` rows, `z` columns of Z and `x` of X; on CUDA in the device's memory, as it is
/// free now.
///
/// # Errors
/// Where the device does not say what is free.
pub fn statistic_memory_on(device: &Device, n: usize, z: usize, x: usize) -> Result<Plan> {
    match device.cuda() {
        Some(cuda) => cuda::sum_plan(cuda, n, z + x),
        None => Ok(device.scope(|| statistic_memory(n, z, x, false))),
    }
}

/// The plan of [`statistic`] for `n` rows, `z` columns of Z and `x` of X, or of [`super::p_value`] where `permuted`.
pub fn statistic_memory(n: usize, z: usize, x: usize, permuted: bool) -> Plan {
    let d = x + z;
    let ranks = n.saturating_mul(size_of::<f64>() + 2 * size_of::<u32>());
    let columns = n.saturating_mul(d).saturating_mul(size_of::<f64>());
    let each = n.saturating_mul(Runs::BYTES + 5 * size_of::<u32>());
    let parts = [
        columns,
        ranks.saturating_mul(2),
        neighbours::bytes(n, d, permuted),
        if permuted && x > 0 { neighbours::bytes(n, x, true) } else { 0 },
        if permuted { each.saturating_mul(rayon::current_num_threads()) } else { 0 },
    ];
    Plan {
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
    pub fn new(y: &[f64], data: &Matrix, z: &[usize], x: &[usize], options: &Options) -> Result<Sample> {
        if y.len() != data.n() {
            return Err(Error::shape("codec", format!("{} values of Y", data.n()), y.len().to_string()));
        }
        if z.is_empty() {
            return Err(Error::config("at least one column must be given for Z"));
        }
        if options.measure == Measure::Xi && (z.len() != 1 || !x.is_empty()) {
            return Err(Error::config("ξ is of one column Z and of no X; T has no such limit"));
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

    pub fn statistic(&self) -> Result<Statistic> {
        self.statistic_by(None)
    }

    /// The same, on CUDA where it is given.
    pub fn statistic_by(&self, cuda: Option<&Cuda>) -> Result<Statistic> {
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
