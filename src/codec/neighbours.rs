//! Nearest neighbours of all rows in given columns, and the sum A over them (MATH.md, Eq. 1).
//!
//! Identical rows are grouped into *runs* sorted by rank, with prefix sums of the ranks, so that Σ min(R_i, R_j) over a
//! run of any length is one binary search: discrete data costs no more than continuous data. One column: runs are
//! sorted, and the nearest lie next to each other. Several: a k-d tree over the distinct points (`tree`), by which
//! every row at the smallest f64 distance is found.

use std::ops::Range;

use rayon::prelude::*;

use super::Ties;
use super::columns::Matrix;
use super::ranks::{Ranks, Sum, sort_key};
use super::sorted::Sorted;
use super::tree::Tree;
use crate::ops::philox::{Use, philox};
use crate::{Error, Result};

/// The rows nearest to each row of `x` (itself excluded), ascending: all that lie at the smallest distance.
///
/// # Errors
/// Fewer than 2 rows, no columns, or values that are no numbers.
pub fn nearest(x: &Matrix) -> Result<Vec<Vec<usize>>> {
    if x.n() < 2 || x.p() == 0 {
        return Err(Error::config(format!(
            "at least 2 rows and a column are needed, not {} and {}",
            x.n(),
            x.p()
        )));
    }
    x.check_finite()?;
    let columns: Vec<Vec<f64>> = (0..x.p()).map(|j| x.column(j)).collect();
    let ranks = Ranks::new(&vec![0.0; x.n()], Ties::Mean)?; // any will do
    let points = Points::new(&columns, &ranks);
    let mut all = vec![Vec::new(); x.n()];
    for (own, tied) in points.neighbours().into_iter().enumerate() {
        for &i in points.runs.rows(own) {
            let mut rows = points.runs.tied_rows(own, &tied, i);
            rows.sort_unstable();
            all[i as usize] = rows.into_iter().map(|j| j as usize).collect();
        }
    }
    Ok(all)
}

/// The neighbours of all rows in the space of some columns, for any ranks of Y.
pub(super) struct Neighbours {
    runs: Runs,
    tied: Vec<Vec<Range<usize>>>, // by run
}

impl Neighbours {
    /// Finds them; distances are summed over the columns in this order.
    pub fn new(columns: &[Vec<f64>], ranks: &Ranks) -> Neighbours {
        let points = Points::new(columns, ranks);
        Neighbours { tied: points.neighbours(), runs: points.runs }
    }

    /// A for these ranks.
    pub fn sum(&self, ranks: &Ranks, ties: Ties) -> Sum {
        let mut runs = Runs::default();
        runs.clear();
        let mut rows = Vec::new();
        for own in 0..self.runs.len() {
            rows.clear();
            rows.extend_from_slice(self.runs.rows(own));
            rows.sort_unstable_by_key(|&i| (ranks.r[i as usize], i));
            for (at, &i) in rows.iter().enumerate() {
                runs.push(i, ranks.r[i as usize], at == 0);
            }
        }
        runs.close();
        let mut sum = Sum::default();
        self.tied.iter().enumerate().for_each(|(own, tied)| runs.tally(&mut sum, own, tied, ranks, ties));
        sum
    }
}

/// A = Σ_i min(R_i, R_M(i)), M in the space of these columns, in this order.
pub(super) fn sum(columns: &[Vec<f64>], ranks: &Ranks, ties: Ties) -> Sum {
    match columns {
        [column] => {
            let rows = ranks.order.iter().map(|&row| (column[row as usize], row));
            Sorted::default().sum(rows, false, ranks, ties)
        }
        _ => Points::new(columns, ranks).sum(ranks, ties),
    }
}

/// Bytes at most of the search in `d` columns of `n` rows; with those found kept for all runs where `kept`.
pub(super) fn bytes(n: usize, d: usize, kept: bool) -> usize {
    let found = size_of::<Vec<Range<usize>>>() + 4 * size_of::<Range<usize>>();
    let each = 2 * size_of::<u32>() + Runs::BYTES + if kept { 2 * found } else { 0 };
    n.saturating_mul(each).saturating_add(match d {
        1 => n.saturating_mul(Sorted::BYTES + size_of::<f64>()),
        _ => Tree::bytes(n, d),
    })
}

/// Rows arranged so that identical ones (in the columns at hand) are neighbours, each run of them by ascending rank.
#[derive(Debug, Default)]
pub(super) struct Runs {
    row: Vec<u32>,    // by position
    rank: Vec<u32>,   // R, by position
    prefix: Vec<u64>, // sums of R before each position, and of all
    start: Vec<u32>,  // the first position of each run, and n
}

impl Runs {
    /// Bytes a row.
    pub const BYTES: usize = 3 * size_of::<u32>() + size_of::<u64>();

    /// Starts over.
    pub fn clear(&mut self) {
        self.row.clear();
        self.rank.clear();
        self.prefix.clear();
        self.prefix.push(0);
        self.start.clear();
    }

    /// Appends a row, which begins a run or belongs to the last one.
    #[inline]
    pub fn push(&mut self, row: u32, rank: u32, begins: bool) {
        if begins {
            self.start.push(self.row.len() as u32);
        }
        self.row.push(row);
        self.rank.push(rank);
        self.prefix.push(self.prefix[self.prefix.len() - 1] + u64::from(rank));
    }

    /// No row follows.
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

    /// The rows of a run: how many.
    #[inline]
    pub fn size(&self, run: usize) -> usize {
        (self.start[run + 1] - self.start[run]) as usize
    }

    /// All runs but one.
    pub fn but(&self, own: usize) -> [Range<usize>; 2] {
        [0..own, own + 1..self.len()]
    }

    /// Adds what the rows of run `own` contribute where the runs `tied` (own not among them) are nearest to it. If own
    /// has several rows they are each other's neighbours too.
    #[inline]
    pub fn tally(&self, sum: &mut Sum, own: usize, tied: &[Range<usize>], ranks: &Ranks, ties: Ties) {
        let others: usize = tied.iter().map(|t| (self.start[t.end] - self.start[t.start]) as usize).sum();
        let c = others + self.size(own) - 1;
        for at in self.positions(own) {
            let r = self.rank[at];
            if c == 1 || ties == Ties::Mean {
                let s = if c + 1 == self.row.len() {
                    ranks.least_sum(r) - u64::from(r) // all others, as where every distance is infinite
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

    /// The rows of these runs and of `own`, but for row `i`.
    fn tied_rows(&self, own: usize, tied: &[Range<usize>], i: u32) -> Vec<u32> {
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

/// Where `tied` rows (at least one) are equally near to row `i` and their mean is not wanted: Σ min(R_i, R_j) over the
/// draws, and the number of draws; the row of the lowest index is one.
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

/// Distinct points and a k-d tree over them.
struct Points {
    runs: Runs,
    tree: Tree, // a point is a run
}

impl Points {
    fn new(columns: &[Vec<f64>], ranks: &Ranks) -> Points {
        let mut order = ranks.order.clone();
        let compare = |a: u32, b: u32| {
            let differs = |column: &&Vec<f64>| column[a as usize] != column[b as usize];
            columns.iter().find(differs).map_or(std::cmp::Ordering::Equal, |column| {
                sort_key(column[a as usize]).cmp(&sort_key(column[b as usize]))
            })
        };
        order.par_sort_by(|&a, &b| compare(a, b)); // stable: runs keep the order of ranks
        let (mut runs, mut x) = (Runs::default(), Vec::new());
        runs.clear();
        for (at, &row) in order.iter().enumerate() {
            let begins = at == 0 || compare(order[at - 1], row).is_ne();
            if begins {
                x.extend(columns.iter().map(|column| column[row as usize]));
            }
            runs.push(row, ranks.r[row as usize], begins);
        }
        runs.close();
        Points { runs, tree: Tree::new(&x, columns.len()) }
    }

    /// The runs nearest to each run, as ranges of one.
    fn neighbours(&self) -> Vec<Vec<Range<usize>>> {
        let search = |place: usize| {
            let mut tied = Vec::new();
            self.search(&mut tied, place);
            tied
        };
        let found: Vec<_> = (0..self.tree.len()).into_par_iter().with_min_len(64).map(search).collect();
        let mut by_run = vec![Vec::new(); found.len()];
        found.into_iter().zip(self.tree.points()).for_each(|(tied, &run)| by_run[run as usize] = tied);
        by_run
    }

    /// A for the ranks that the runs are sorted by.
    fn sum(&self, ranks: &Ranks, ties: Ties) -> Sum {
        let add = |(mut sum, mut tied): (Sum, Vec<_>), place: usize| {
            self.search(&mut tied, place);
            self.runs.tally(&mut sum, self.tree.points()[place] as usize, &tied, ranks, ties);
            (sum, tied)
        };
        (0..self.tree.len())
            .into_par_iter()
            .with_min_len(64)
            .fold(|| (Sum::default(), Vec::new()), add)
            .map(|(sum, _)| sum)
            .reduce(Sum::default, Sum::plus)
    }

    /// The runs nearest to the one at a place, as ranges of one; `tied` is overwritten.
    fn search(&self, tied: &mut Vec<Range<usize>>, place: usize) {
        let points = self.tree.points();
        tied.clear();
        let own = points[place] as usize;
        let mut best = if self.runs.size(own) > 1 { 0.0 } else { f64::MAX };
        self.tree.walk(place, best, |other, distance| {
            if distance < best {
                best = distance;
                tied.clear();
            }
            let run = points[other] as usize;
            tied.push(run..run + 1);
            best
        });
        if tied.is_empty() && self.runs.size(own) == 1 {
            tied.extend(self.runs.but(own)); // every distance is infinite
        }
    }
}
