//! Chatterjee's rank correlation (JASA 2021, Eq. 1.1 and the form with ties after it): with the rows in the order of X,
//!
//! ```text
//! ξ = 1 − n Σ_i |R_{i+1} − R_i| / (2 Σ_i L_i (n − L_i))
//! ```
//!
//! Where X ties, the order of the tied rows is random. Its exact expectation: in a run of c identical x any two
//! successors are any two of its rows, so the run adds (c − 1) times the mean of |R_a − R_b| over its pairs; between
//! two runs any row of one meets any row of the other, which adds the mean over all such pairs. Both are one pass over
//! the sorted ranks of the runs. The sums of a run are whole numbers, their quotients f64, added in the order of X.

use super::Ties;
use super::ranks::{Ranks, sort_key};
use crate::ops::philox::{Stream, Use};

/// Streams of orders drawn at random, beside those of the noise on columns.
const ORDER_STREAM: u32 = 1 << 31;

/// Rows by ascending X.
pub(super) struct Order {
    rows: Vec<u32>,   // equal ones by ascending index
    runs: Vec<usize>, // the first position of each run of identical x, and n
}

impl Order {
    /// Sorts `x`.
    pub fn new(x: &[f64]) -> Order {
        let mut rows: Vec<u32> = (0..x.len() as u32).collect();
        rows.sort_unstable_by_key(|&i| (sort_key(x[i as usize]), i));
        let mut runs = vec![0];
        runs.extend((1..x.len()).filter(|&at| x[rows[at] as usize] != x[rows[at - 1] as usize]));
        runs.push(x.len());
        Order { rows, runs }
    }

    /// ξ; none where Y is constant.
    pub fn xi(&self, ranks: &Ranks, ties: Ties) -> Option<f64> {
        let apart = match ties {
            Ties::Mean => self.expected(ranks),
            Ties::First => along(&self.rows, ranks) as f64,
            Ties::Random { seed, draws } => {
                let draws = draws.max(1);
                let mut sum = 0;
                for draw in 0..draws {
                    let mut stream = Stream::new(seed, Use::Ties, ORDER_STREAM | draw);
                    let mut rows = self.rows.clone();
                    self.runs.windows(2).for_each(|run| stream.shuffle(&mut rows[run[0]..run[1]]));
                    sum += along(&rows, ranks);
                }
                sum as f64 / f64::from(draws)
            }
        };
        (ranks.spread != 0).then(|| 1.0 - ranks.n() as f64 * apart / (2.0 * ranks.spread as f64))
    }

    /// Σ |R_{i+1} − R_i|, expected over the orders of tied rows.
    fn expected(&self, ranks: &Ranks) -> f64 {
        let (mut sum, mut before) = (0.0, Vec::new());
        for run in self.runs.windows(2) {
            let mut own: Vec<u64> =
                self.rows[run[0]..run[1]].iter().map(|&i| u64::from(ranks.r[i as usize])).collect();
            own.sort_unstable();
            if !before.is_empty() {
                sum += between(&before, &own) as f64 / (before.len() as f64 * own.len() as f64);
            }
            sum += 2.0 * within(&own) as f64 / own.len() as f64;
            before = own;
        }
        sum
    }
}

/// Σ |R_{i+1} − R_i| in this order.
fn along(rows: &[u32], ranks: &Ranks) -> u64 {
    let r = |i: u32| ranks.r[i as usize];
    rows.windows(2).map(|two| u64::from(r(two[0]).abs_diff(r(two[1])))).sum()
}

/// Σ |a − b| over the pairs of a sorted run.
fn within(run: &[u64]) -> u128 {
    let (mut sum, mut total) = (0, 0);
    for (at, &b) in run.iter().enumerate() {
        sum += u128::from(b) * at as u128 - total;
        total += u128::from(b);
    }
    sum
}

/// Σ |a − b|, a of one sorted run and b of another.
fn between(one: &[u64], other: &[u64]) -> u128 {
    let total: u128 = one.iter().map(|&a| u128::from(a)).sum();
    let (mut sum, mut below, mut at) = (0, 0, 0);
    for &b in other {
        while at < one.len() && one[at] <= b {
            below += u128::from(one[at]);
            at += 1;
        }
        sum +=
            u128::from(b) * at as u128 - below + (total - below) - u128::from(b) * (one.len() - at) as u128;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of Σ |R_{i+1} − R_i| over all orders, by trying them.
    fn tried(x: &[f64], ranks: &Ranks) -> f64 {
        fn orders(rows: &mut Vec<u32>, left: &[u32], x: &[f64], all: &mut Vec<Vec<u32>>) {
            let Some(least) = left.iter().map(|&i| x[i as usize]).reduce(f64::min) else {
                return all.push(rows.clone());
            };
            for &i in left.iter().filter(|&&i| x[i as usize] == least) {
                rows.push(i);
                orders(rows, &left.iter().copied().filter(|&j| j != i).collect::<Vec<_>>(), x, all);
                rows.pop();
            }
        }
        let mut all = Vec::new();
        orders(&mut Vec::new(), &(0..x.len() as u32).collect::<Vec<_>>(), x, &mut all);
        all.iter().map(|rows| along(rows, ranks) as f64).sum::<f64>() / all.len() as f64
    }

    #[test]
    fn ties_count_by_their_expectation() {
        let y = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0];
        let ranks = Ranks::new(&y, Ties::Mean).unwrap();
        for x in [
            [1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0],
            [0.0, -0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [7.0, 1.0, 5.0, 3.0, 5.0, 4.0, 2.0],
        ] {
            let order = Order::new(&x);
            assert!((order.expected(&ranks) - tried(&x, &ranks)).abs() < 1e-12);
            let many = Ties::Random { seed: 1, draws: 4000 };
            let (mean, random) = (order.xi(&ranks, Ties::Mean).unwrap(), order.xi(&ranks, many).unwrap());
            assert!((mean - random).abs() < 0.03, "{mean} {random}");
        }
    }

    #[test]
    fn without_ties_it_is_1_minus_3_sums_over_n_squared_less_1() {
        let y = [2.0, 7.0, 1.0, 8.0, 3.0];
        let ranks = Ranks::new(&y, Ties::Mean).unwrap();
        let order = Order::new(&[5.0, 4.0, 3.0, 2.0, 1.0]); // R in this order: 3 5 1 4 2
        let expected = 1.0 - 3.0 * (2 + 4 + 3 + 2) as f64 / 24.0;
        for ties in [Ties::Mean, Ties::First, Ties::Random { seed: 4, draws: 3 }] {
            assert!((order.xi(&ranks, ties).unwrap() - expected).abs() < 1e-15);
        }
        assert_eq!(order.xi(&Ranks::new(&[1.0; 5], Ties::Mean).unwrap(), Ties::Mean), None);
    }
}
