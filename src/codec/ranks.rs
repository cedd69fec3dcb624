//! Ranks of Y, and the sum A = Σ_i min(R_i, R_M(i)) that every statistic is made of (MATH.md, Eq. 1).
//!
//! A row with one neighbour adds an integer. A row with c equally near neighbours adds s/c (s = Σ min(R_i, R_j) over
//! them): its whole part as an integer, the rest in fixed point with k = 64 fractional bits, rounded down. Sums of
//! integers are the same in any order, so A never depends on how the work was split.

use std::sync::Arc;

use super::options::Ties;
use crate::error::{Error, Result};

/// The ranks of Y, and what the statistics need of them.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    /// R, by row.
    pub r: Vec<u32>,
    /// Rows by ascending R, equal ones by ascending index.
    pub order: Vec<u32>,
    /// Σ R_i.
    pub sum: u64,
    /// Σ L_i².
    pub sum_l2: i128,
    /// Σ L_i (n − L_i): zero where Y is constant.
    pub spread: i128,
    /// By k: Σ R over the first k rows of `order`.
    prefix: Arc<[u64]>,
}

impl Ranks {
    /// R_i = #{j : Y_j ≤ Y_i} and L_i = #{j : Y_j ≥ Y_i}; under [`Ties::First`] R is the position in a stable ascending
    /// sort and L = n + 1 − R.
    pub fn new(y: &[f64], ties: Ties) -> Result<Ranks> {
        let n = y.len();
        if n < 2 {
            return Err(Error::config(format!("at least 2 rows are needed, not {n}")));
        }
        if n > MAX_ROWS {
            return Err(Error::config(format!("at most {MAX_ROWS} rows can be ranked, not {n}")));
        }
        if let Some(i) = y.iter().position(|y| !y.is_finite()) {
            return Err(Error::config(format!("row {i} of Y is {}, not a finite number", y[i])));
        }
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_by(|&a, &b| sort_key(y[a as usize]).cmp(&sort_key(y[b as usize])));
        let mut ranks = Ranks { r: vec![0; n], order, sum: 0, sum_l2: 0, spread: 0, prefix: Arc::default() };
        let mut prefix = vec![0];
        let mut start = 0;
        while start < n {
            let value = y[ranks.order[start] as usize];
            let end = match ties {
                Ties::First => start + 1,
                Ties::Mean | Ties::Random { .. } => {
                    start + ranks.order[start..].partition_point(|&i| y[i as usize] <= value)
                }
            };
            let l = (n - start) as i128;
            for &i in &ranks.order[start..end] {
                ranks.r[i as usize] = end as u32;
                ranks.sum += end as u64;
                prefix.push(ranks.sum);
                ranks.sum_l2 += l * l;
                ranks.spread += l * (n as i128 - l);
            }
            start = end;
        }
        ranks.prefix = prefix.into();
        Ok(ranks)
    }

    /// Row i gets the rank of row `from[i]`; `from` is a permutation.
    pub fn permuted(&self, from: &[u32]) -> Ranks {
        let mut to = vec![0; from.len()];
        from.iter().enumerate().for_each(|(i, &j)| to[j as usize] = i as u32);
        Ranks {
            r: from.iter().map(|&j| self.r[j as usize]).collect(),
            order: self.order.iter().map(|&j| to[j as usize]).collect(),
            prefix: Arc::clone(&self.prefix),
            ..*self
        }
    }

    /// The number of rows.
    pub fn n(&self) -> usize {
        self.r.len()
    }

    /// Σ min(r, R_j) over all rows j, for the rank `r` of one of them: r rows have a rank of at most r.
    pub fn least_sum(&self, r: u32) -> u64 {
        self.prefix[r as usize] + u64::from(r) * (self.n() as u64 - u64::from(r))
    }

    /// T(Y, Z) = (n·A − Σ L²) / Σ L (n − L) for the columns that gave A; none where Y is constant (MATH.md, Eq. 2).
    pub fn unconditional(&self, a: Sum) -> Option<f64> {
        if self.spread == 0 {
            return None;
        }
        let (whole, part) = self.unconditional_numerator(a);
        Some((whole as f64 + part) / self.spread as f64)
    }

    /// n·A − Σ L² as its whole part, rounded down, and the rest.
    pub fn unconditional_numerator(&self, a: Sum) -> (i128, f64) {
        let n = self.n() as i128;
        let fixed = a.fixed();
        let part = n * (fixed & (ONE - 1));
        (n * (fixed >> BITS) - self.sum_l2 + (part >> BITS), (part & (ONE - 1)) as f64 / ONE as f64)
    }

    /// T(Y, Z | X) = (A_XZ − A_X) / (Σ R − A_X); none where X alone determines Y (MATH.md, Eq. 3).
    pub fn conditional(&self, with: Sum, given: Sum) -> Option<f64> {
        let (numerator, denominator) = self.conditional_ratio(with, given);
        (denominator != 0).then(|| numerator as f64 / denominator as f64)
    }

    /// A_XZ − A_X and Σ R − A_X, both in units of 2⁻⁶⁴.
    pub fn conditional_ratio(&self, with: Sum, given: Sum) -> (i128, i128) {
        (with.fixed() - given.fixed(), (i128::from(self.sum) << BITS) - given.fixed())
    }
}

/// The largest number of rows: below it no sum can overflow.
pub(super) const MAX_ROWS: usize = 1 << 30;

/// Fractional bits of a [`Sum`].
pub(super) const BITS: u32 = 64;
/// 1 in fixed point.
pub(super) const ONE: i128 = 1 << BITS;

/// A = Σ_i min(R_i, R_M(i)), exact where every row has one neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    whole: u64,
    fraction: u128,
}

impl Sum {
    /// A sum with this whole part and this many units of 2⁻⁶⁴.
    pub fn of(whole: u64, fraction: u128) -> Sum {
        Sum { whole, fraction }
    }

    /// The sum as words, to be sent.
    pub fn words(self) -> [u64; 3] {
        [self.whole, self.fraction as u64, (self.fraction >> 64) as u64]
    }

    /// The sum of these words.
    pub fn from_words([whole, low, high]: [u64; 3]) -> Sum {
        Sum { whole, fraction: u128::from(high) << 64 | u128::from(low) }
    }

    /// Adds the mean s/c of a row's `c` neighbours.
    #[inline]
    pub fn add(&mut self, s: u64, c: u64) {
        if c == 1 {
            self.whole += s;
        } else {
            // two divisions of 64 by 32 bits: the 64 bits of (s mod c)/c, as c < 2³²
            let high = (s % c) << 32;
            let low = (high % c) << 32;
            self.whole += s / c;
            self.fraction += u128::from(((high / c) << 32) | (low / c));
        }
    }

    /// The sum of two.
    pub fn plus(self, other: Sum) -> Sum {
        Sum { whole: self.whole + other.whole, fraction: self.fraction + other.fraction }
    }

    /// A in units of 2⁻⁶⁴.
    pub fn fixed(self) -> i128 {
        (i128::from(self.whole) << BITS) + self.fraction as i128
    }

    /// A in units of 2⁻³², to nearest: what selections compare, so that sums which are equal but for the rounding of
    /// their fractions are equal.
    pub fn rounded(self) -> i128 {
        (self.fixed() + (1 << 31)) >> 32
    }
}

/// Integers that sort as finite numbers do; -0 and 0 are equal.
#[inline]
pub(super) fn sort_key(x: f64) -> u64 {
    let bits = (x + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tied_values_share_the_greatest_rank() {
        let ranks = Ranks::new(&[2.0, -0.0, 5.0, 0.0, 2.0], Ties::Mean).unwrap();
        assert_eq!(ranks.r, [4, 2, 5, 2, 4]);
        assert_eq!(ranks.sum, 17);
        assert_eq!(ranks.sum_l2, 9 + 25 + 1 + 25 + 9);
        let first = Ranks::new(&[2.0, -0.0, 5.0, 0.0, 2.0], Ties::First).unwrap();
        assert_eq!(first.r, [3, 1, 5, 2, 4]);
    }

    #[test]
    fn a_mean_is_kept_to_64_bits() {
        let mut sum = Sum::default();
        for _ in 0..3 {
            sum.add(22, 7);
        }
        sum.add(5, 1);
        let exact = (66 + 35) as f64 / 7.0;
        assert!((sum.fixed() as f64 / ONE as f64 - exact).abs() < 1e-15);
        assert_eq!(sum.fixed(), 3 * ((22 * ONE) / 7) + 5 * ONE);
        assert_eq!(3 * (((1 << 30) - 1) * ONE / ((1 << 31) - 1)), {
            let mut sum = Sum::default();
            (0..3).for_each(|_| sum.add((1 << 30) - 1, (1 << 31) - 1));
            sum.fixed()
        });
    }

    #[test]
    fn keys_sort_as_the_numbers_do() {
        let values = [-f64::MAX, -1.5, -f64::MIN_POSITIVE, 0.0, 5e-324, 1.0, f64::MAX];
        assert!(values.windows(2).all(|v| sort_key(v[0]) < sort_key(v[1])));
        assert_eq!(sort_key(-0.0), sort_key(0.0));
    }
}
