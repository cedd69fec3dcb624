//! T(Y, Z | X) for given columns (MATH.md, Eq. 2 and 3).

use super::Ties;
use super::columns::{Matrix, Y_STREAM, add_noise, check_sigma};
use super::neighbours::sum;
use super::ranks::{BITS, ONE, Ranks};
use crate::{Error, Result};

/// How [`statistic`] treats ties, and the noise of L-CODEC.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// What counts where several rows are equally near.
    pub ties: Ties,
    /// σ of the normal noise added to Y, Z and X first (L-CODEC); 0 adds none.
    pub noise: f64,
    /// The seed of the noise.
    pub seed: u64,
}

/// A value of T.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistic {
    /// T; none where it is 0/0: Y is constant, or X alone determines Y.
    pub value: Option<f64>,
    /// The numerator, where it is a whole number: always under [`Ties::First`] and [`Ties::Random`], and under
    /// [`Ties::Mean`] where no row had two equally near neighbours.
    pub numerator: Option<i128>,
    /// The denominator, likewise.
    pub denominator: Option<i128>,
    /// The number of rows.
    pub n: usize,
}

/// T(Y, Z | X): how much `z` tells about `y` beyond `x` (Azadkia and Chatterjee 2021, Eq. 2.2 and 2.3; MATH.md, Eq. 2
/// and 3). 0: nothing; 1: Y is a function of (X, Z). `y` is `[n]`, `z` and `x` are columns of `data` by number, `z` at
/// least one; distances are summed over `x`, then `z`, in the order given.
///
/// # Errors
/// Fewer than 2 rows, shapes that do not fit, a column that is not there, or values that are no finite numbers.
pub fn statistic(y: &[f64], data: &Matrix, z: &[usize], x: &[usize], options: &Options) -> Result<Statistic> {
    if y.len() != data.n() {
        return Err(Error::shape("codec", format!("{} values of Y", data.n()), y.len().to_string()));
    }
    if z.is_empty() {
        return Err(Error::config("at least one column must be given for Z"));
    }
    check_sigma(options.noise)?;
    let noisy = |mut column: Vec<f64>, stream: u32| {
        add_noise(&mut column, options.noise, options.seed, stream);
        column
    };
    let mut columns = Vec::with_capacity(x.len() + z.len());
    for (at, &j) in x.iter().chain(z).enumerate() {
        if j >= data.p() {
            return Err(Error::config(format!("there is no column {j}, only {}", data.p())));
        }
        let column = data.column(j);
        if let Some(i) = column.iter().position(|v| !v.is_finite()) {
            return Err(Error::config(format!(
                "row {i} of column {j} is {}, not a finite number",
                column[i]
            )));
        }
        columns.push(noisy(column, at as u32));
    }
    let ranks = Ranks::new(&noisy(y.to_vec(), Y_STREAM), options.ties)?;
    let n = ranks.n();
    let with = sum(&columns, &ranks, options.ties);
    if x.is_empty() {
        let (numerator, part) = ranks.unconditional_numerator(with);
        let whole = part == 0.0;
        return Ok(Statistic {
            value: ranks.unconditional(with),
            numerator: whole.then_some(numerator),
            denominator: Some(ranks.spread),
            n,
        });
    }
    let given = sum(&columns[..x.len()], &ranks, options.ties);
    let (numerator, denominator) = ranks.conditional_ratio(with, given);
    let whole = |fixed: i128| (fixed & (ONE - 1) == 0).then_some(fixed >> BITS);
    Ok(Statistic {
        value: ranks.conditional(with, given),
        numerator: whole(numerator),
        denominator: whole(denominator),
        n,
    })
}
