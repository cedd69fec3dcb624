//! Runs of identical rows, sorted by rank, with prefix sums of the ranks: Σ min(R_i, R_j) over a run of any length is one
//! binary search, so discrete data costs no more than continuous data.

use std::ops::Range;

use super::options::Ties;
use super::ranks::{Ranks, Sum};
use crate::ops::philox::{Use, philox};

/// Rows ordered so that those with identical values are adjacent; within a run by ascending rank.
#[derive(Debug, Default)]
pub(super) struct Runs {
    row: Vec<u32>,    // by position
    rank: Vec<u32>,   // R, by position
    prefix: Vec<u64>, // Σ R of the positions before each one; the last is the sum of all
    start: Vec<u32>,  // the first position of each run; the last is n
}

impl Runs {
    /// Bytes per row.
    pub const BYTES: usize = 3 * size_of::<u32>() + size_of::<u64>();

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.row.clear();
        self.rank.clear();
        self.prefix.clear();
        self.prefix.push(0);
        self.start.clear();
    }

    /// Appends a row, which begins a run or joins the last one.
    #[inline]
    pub fn push(&mut self, row: u32, rank: u32, begins: bool) {
        if begins {
            self.start.push(self.row.len() as u32);
        }
        self.row.push(row);
        self.rank.push(rank);
        self.prefix.push(self.prefix[self.prefix.len() - 1] + u64::from(rank));
    }

    /// Ends the last run: no row follows.
    pub fn close(&mut self) {
        self.start.push(self.row.len() as u32);
    }

    /// The number of runs.
    pub fn len(&self) -> usize {
        self.start.len() - 1
    }

    /// The rows of a run.
    pub fn rows(&self, run: usize) -> &[u32] {
        &self.row[self.positions(run)]
    }

    /// The number of rows in a run.
    #[inline]
    pub fn size(&self, run: usize) -> usize {
        (self.start[run + 1] - self.start[run]) as usize
    }

    /// All runs except one.
    pub fn except(&self, own: usize) -> [Range<usize>; 2] {
        [0..own, own + 1..self.len()]
    }

    /// Adds to `sum` the contribution of each row of run `own`, whose nearest rows are those of the runs `tied` (which
    /// does not contain `own`) and the other rows of its own run.
    #[inline]
    pub fn tally(&self, sum: &mut Sum, own: usize, tied: &[Range<usize>], ranks: &Ranks, ties: Ties) {
        let others: usize = tied.iter().map(|t| (self.start[t.end] - self.start[t.start]) as usize).sum();
        let c = others + self.size(own) - 1;
        for at in self.positions(own) {
            let r = self.rank[at];
            if c == 1 || ties == Ties::Mean {
                let s = if c + 1 == self.row.len() {
                    ranks.least_sum(r) - u64::from(r) // every other row is tied: all distances are infinite
                } else {
                    let others = tied.iter().flat_map(Clone::clone).map(|run| self.min_sum(run, r));
                    let twins = if self.size(own) > 1 { self.min_sum(own, r) - u64::from(r) } else { 0 };
                    others.sum::<u64>() + twins
                };
                sum.add(s, c as u64);
            } else {
                let i = self.row[at];
                let (s, c) = drawn(&mut self.tied_rows(own, tied, i), i, ranks, ties);
                sum.add(s, c);
            }
        }
    }

    /// The rows of the runs `tied` and `own`, except row `i`.
    pub fn tied_rows(&self, own: usize, tied: &[Range<usize>], i: u32) -> Vec<u32> {
        let own = self.rows(own).iter().filter(|&&j| j != i);
        tied.iter().flat_map(Clone::clone).flat_map(|run| self.rows(run)).chain(own).copied().collect()
    }

    /// Σ min(r, R_j) over a run.
    #[inline]
    fn min_sum(&self, run: usize, r: u32) -> u64 {
        let Range { start, end } = self.positions(run);
        if end - start == 1 {
            return u64::from(self.rank[start].min(r));
        }
        let split = start + self.rank[start..end].partition_point(|&other| other <= r);
        self.prefix[split] - self.prefix[start] + u64::from(r) * (end - split) as u64
    }

    fn positions(&self, run: usize) -> Range<usize> {
        self.start[run] as usize..self.start[run + 1] as usize
    }
}

/// Chooses among the `tied` rows (at least one), which are equally near to row `i`: Σ min(R_i, R_j) over the draws, and
/// the number of draws. [`Ties::First`] is one draw, of the lowest index.
pub(super) fn drawn(tied: &mut [u32], i: u32, ranks: &Ranks, ties: Ties) -> (u64, u64) {
    let count = tied.len();
    let mut least = |k: usize| {
        let j = *tied.select_nth_unstable(k).1;
        u64::from(ranks.r[i as usize].min(ranks.r[j as usize]))
    };
    let Ties::Random { seed, draws } = ties else { return (least(0), 1) };
    let draws = draws.max(1);
    let sum = (0..draws).map(|draw| {
        let word = philox([i, draw, 0, Use::Ties as u32], [seed as u32, (seed >> 32) as u32]);
        let uniform = u128::from(u64::from(word[0]) << 32 | u64::from(word[1]));
        least(((uniform * count as u128) >> 64) as usize)
    });
    (sum.sum(), u64::from(draws))
}
