//! Nearest neighbours of all rows in given columns, and the sum A over them (MATH.md, Eq. 1).
//!
//! Identical rows form one run (`runs`). With one column the runs are sorted, and the nearest are adjacent (`sorted`).
//! With several columns a k-d tree over the distinct points (`tree`) finds every row at the smallest f64 distance.

use std::ops::Range;

use rayon::prelude::*;

use super::columns::Columns;
use super::options::Ties;
use super::ranks::{Ranks, Sum, sort_key};
use super::runs::Runs;
use super::sorted::Sorted;
use super::tree::Tree;
use crate::error::{Error, Result};

/// The rows nearest to each row of `x` (itself excluded), ascending: all that lie at the smallest distance.
///
/// # Errors
/// Fewer than 2 rows, no columns, or values that are not finite.
pub fn nearest(x: &Columns) -> Result<Vec<Vec<usize>>> {
    if x.n() < 2 || x.p() == 0 {
        return Err(Error::config(format!(
            "at least 2 rows and a column are needed, not {} and {}",
            x.n(),
            x.p()
        )));
    }
    x.check_finite()?;
    let columns: Vec<Vec<f64>> = (0..x.p()).map(|j| x.column(j)).collect();
    let ranks = Ranks::new(&vec![0.0; x.n()], Ties::Mean)?; // neighbours do not depend on the ranks
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

/// The neighbours of all rows in given columns; they serve any ranks of Y.
pub(super) struct Neighbours {
    runs: Runs,
    tied: Vec<Vec<Range<usize>>>, // by run
}

impl Neighbours {
    /// Finds the neighbours; distances are summed over the columns in this order.
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

/// A = Σ_i min(R_i, R_M(i)) with M(i) nearest in these columns; distances are summed in this order.
pub(super) fn sum(columns: &[Vec<f64>], ranks: &Ranks, ties: Ties) -> Sum {
    match columns {
        [column] => {
            let rows = ranks.order.iter().map(|&row| (column[row as usize], row));
            Sorted::default().sum(rows, false, ranks, ties)
        }
        _ => Points::new(columns, ranks).sum(ranks, ties),
    }
}

/// At most how many bytes the search in `d` columns of `n` rows takes; `kept`: including the neighbours found, of all
/// runs.
pub(super) fn bytes(n: usize, d: usize, kept: bool) -> usize {
    let found = size_of::<Vec<Range<usize>>>() + 4 * size_of::<Range<usize>>();
    let each = 2 * size_of::<u32>() + Runs::BYTES + if kept { 2 * found } else { 0 };
    n.saturating_mul(each).saturating_add(match d {
        1 => n.saturating_mul(Sorted::BYTES + size_of::<f64>()),
        _ => Tree::bytes(n, d),
    })
}

/// Distinct points and a k-d tree over them.
struct Points {
    runs: Runs,
    tree: Tree, // its points are the runs
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

    /// A for the ranks by which the runs are sorted.
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
            tied.extend(self.runs.except(own)); // every distance is infinite
        }
    }
}
