//! Chatterjee's rank correlation (JASA 2021, Eq. 1.1 and the form with ties after it): with the rows in the order of X,
//!
//! ```text
//! ξ = 1 − n Σ_i |R_{i+1} − R_i| / (2 Σ_i L_i (n − L_i))
//! ```
//!
//! Where X ties, the order of the tied rows is random. Its exact expectation: in a run of c identical x any two
//! successors are any two of its rows, so the run adds (c − 1) times the mean of |R_a − R_b| over its pairs; between
//! two runs any row of one may precede any row of the other, which adds the mean over all such pairs. Both are one pass over
//! the sorted ranks of the runs. The sums of a run are whole numbers, their quotients f64, added in the order of X. On
//! CUDA the sums are the device's, and the same.

use super::options::Ties;
use super::ranks::{Ranks, sort_key};
use crate::device::Cuda;
use crate::device::cuda::Buffer;
use crate::error::Result;
use crate::ops::cuda::xi::{self, Run};
use crate::ops::philox::{Stream, Use};

/// Streams of orders drawn at random, beside those of the noise on columns.
const ORDER_STREAM: u32 = 1 << 31;

/// The rows by ascending X.
pub(super) struct Order {
    rows: Vec<u32>,   // equal ones by ascending index
    runs: Vec<u32>,   // the first position of each run of identical x; the last is n
    run_of: Vec<u32>, // of each row
}

impl Order {
    /// Sorts `x`.
    pub fn new(x: &[f64]) -> Order {
        let mut rows: Vec<u32> = (0..x.len() as u32).collect();
        rows.sort_unstable_by_key(|&i| (sort_key(x[i as usize]), i));
        Order::sorted(x, rows)
    }

    /// From rows that are sorted already.
    fn sorted(x: &[f64], rows: Vec<u32>) -> Order {
        let (mut runs, mut run_of) = (vec![], vec![0; rows.len()]);
        for (at, &i) in rows.iter().enumerate() {
            if at == 0 || x[i as usize] != x[rows[at - 1] as usize] {
                runs.push(at as u32);
            }
            run_of[i as usize] = runs.len() as u32 - 1;
        }
        runs.push(rows.len() as u32);
        Order { rows, runs, run_of }
    }

    /// ξ; none where Y is constant.
    pub fn xi(&self, ranks: &Ranks, ties: Ties) -> Option<f64> {
        let differences = match ties {
            Ties::Mean => self.expected(ranks),
            Ties::First => along(&self.rows, ranks) as f64,
            Ties::Random { seed, draws } => {
                let draws = draws.max(1);
                let sum: u64 = (0..draws).map(|draw| along(&self.drawn(seed, draw), ranks)).sum();
                sum as f64 / f64::from(draws)
            }
        };
        value(ranks, differences)
    }

    /// The rows by ascending X, each run shuffled.
    fn drawn(&self, seed: u64, draw: u32) -> Vec<u32> {
        let mut stream = Stream::new(seed, Use::Ties, ORDER_STREAM | draw);
        let mut rows = self.rows.clone();
        self.runs.windows(2).for_each(|run| stream.shuffle(&mut rows[run[0] as usize..run[1] as usize]));
        rows
    }

    /// Σ |R_{i+1} − R_i|, expected over the orders of tied rows.
    fn expected(&self, ranks: &Ranks) -> f64 {
        let sorted = self.by_run(ranks);
        let run = |at: usize| &sorted[self.runs[at] as usize..self.runs[at + 1] as usize];
        self.expectation((0..self.runs.len() - 1).map(|at| Run {
            within: within(run(at)),
            between: if at == 0 { 0 } else { between(run(at - 1), run(at)) },
        }))
    }

    /// [`Order::expected`] from the sums of the runs, in the order of X.
    fn expectation(&self, each: impl Iterator<Item = Run>) -> f64 {
        let (mut sum, mut before) = (0.0, 0.0);
        for (ends, run) in self.runs.windows(2).zip(each) {
            let own = f64::from(ends[1] - ends[0]);
            if ends[0] > 0 {
                sum += run.between as f64 / (before * own);
            }
            sum += 2.0 * run.within as f64 / own;
            before = own;
        }
        sum
    }

    /// The ranks run by run, ascending within each.
    fn by_run(&self, ranks: &Ranks) -> Vec<u32> {
        let (mut sorted, mut next) = (vec![0; self.rows.len()], self.runs.clone());
        for &i in &ranks.order {
            let at = &mut next[self.run_of[i as usize] as usize];
            sorted[*at as usize] = ranks.r[i as usize];
            *at += 1;
        }
        sorted
    }
}

/// ξ of the sum of differences; none where Y is constant.
fn value(ranks: &Ranks, differences: f64) -> Option<f64> {
    (ranks.spread != 0).then(|| 1.0 - ranks.n() as f64 * differences / (2.0 * ranks.spread as f64))
}

/// Rows of random orders that are on the device at a time (64 MiB), unless a single order has more.
const ROWS_AT_ONCE: usize = 1 << 24;

/// [`Order`] on CUDA, which sorts and sums: ξ of one ranking after another, with the CPU's bits. The host draws random orders
/// and divides the sums of the runs.
pub(super) struct OnCuda<'a> {
    cuda: &'a Cuda,
    order: Order,
    ties: Ties,
    rank: Buffer<u32>,       // [n]
    fixed: Buffer<u32>,      // the runs (mean), or the order (first)
    drawn: Vec<Buffer<u32>>, // all random orders, where they fit at once
    at_once: usize,          // orders
}

impl<'a> OnCuda<'a> {
    /// Sorts `x`.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn new(cuda: &'a Cuda, x: &[f64], ties: Ties) -> Result<OnCuda<'a>> {
        let order = Order::sorted(x, xi::order(cuda, &cuda.upload(x)?)?);
        let fixed = cuda.upload(if ties == Ties::Mean { &order.runs } else { &order.rows })?;
        let at_once = (ROWS_AT_ONCE / x.len()).max(1);
        Ok(OnCuda { rank: cuda.alloc(x.len())?, cuda, order, ties, fixed, drawn: vec![], at_once })
    }

    /// ξ; none where Y is constant.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn xi(&mut self, ranks: &Ranks) -> Result<Option<f64>> {
        let OnCuda { cuda, order, ties, rank, fixed, drawn, at_once } = self;
        let held = if *ties == Ties::Mean { &order.by_run(ranks) } else { &ranks.r };
        cuda.write(rank.output(), held)?;
        let differences = match *ties {
            Ties::Mean => order.expectation(xi::runs(cuda, rank, fixed)?.into_iter()),
            Ties::First => xi::along(cuda, rank, fixed)?.into_iter().sum::<u64>() as f64,
            Ties::Random { seed, draws } => {
                let (draws, mut sum) = (draws.max(1), 0);
                for first in (0..draws).step_by(*at_once) {
                    let some = first..draws.min(first.saturating_add(*at_once as u32));
                    let orders = match drawn.pop() {
                        Some(orders) => orders,
                        None => {
                            let rows: Vec<u32> = some.flat_map(|draw| order.drawn(seed, draw)).collect();
                            cuda.upload(&rows)?
                        }
                    };
                    sum += xi::along(cuda, rank, &orders)?.into_iter().sum::<u64>();
                    if *at_once >= draws as usize {
                        drawn.push(orders);
                    }
                }
                sum as f64 / f64::from(draws)
            }
        };
        Ok(value(ranks, differences))
    }
}

/// Σ |R_{i+1} − R_i| in this order.
fn along(rows: &[u32], ranks: &Ranks) -> u64 {
    let r = |i: u32| ranks.r[i as usize];
    rows.windows(2).map(|two| u64::from(r(two[0]).abs_diff(r(two[1])))).sum()
}

/// Σ |a − b| over the pairs of a sorted run.
fn within(run: &[u32]) -> u128 {
    let (mut sum, mut total) = (0, 0);
    for (at, &b) in run.iter().enumerate() {
        sum += u128::from(b) * at as u128 - total;
        total += u128::from(b);
    }
    sum
}

/// Σ |a − b|, a of one sorted run and b of another.
fn between(one: &[u32], other: &[u32]) -> u128 {
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

    #[cfg(feature = "emu")]
    #[test]
    fn orders_in_parts_give_the_same_as_all_at_once() {
        let (x, y) = ([2.0, 1.0, 2.0, 1.0, 1.0, 7.0], [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]);
        let (cuda, ties) = (Cuda::emulated(2), Ties::Random { seed: 8, draws: 5 });
        let (ranks, order) = (Ranks::new(&y, ties).unwrap(), Order::new(&x));
        let (turned, mut on_cuda) =
            (ranks.permuted(&[5, 4, 3, 2, 1, 0]), OnCuda::new(&cuda, &x, ties).unwrap());
        for at_once in [1, 2, 5] {
            on_cuda.at_once = at_once;
            for ranks in [&ranks, &turned, &ranks] {
                assert_eq!(on_cuda.xi(ranks).unwrap(), order.xi(ranks, ties), "{at_once}");
            }
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
