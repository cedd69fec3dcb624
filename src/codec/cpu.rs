//! A step of FOCI on the CPU: A of the chosen columns S and each candidate, all candidates at once.
//!
//! The first step sorts each column. A later step is one pass over the rows:
//!
//! ```text
//! for each row i: the others j by ascending D_S[i, j]
//! for each block of WIDTH candidates side by side: for each row i:
//!     for j in the list while D_S[i, j] ≤ the largest best of the block:
//!         best = min(best, D_S[i, j] + (x_i − x_j)²), with the count and Σ min(R_i, R_j) of the ties
//! ```
//!
//! which is exact: no later j can come nearer. A list has the nearest rows in S, found in a k-d tree (`search`), and the
//! columns are copied in the order of its leaves, so that the rows of a list are near in memory. Where the list of a row
//! ends too early for a candidate, the row is searched at the end (`pruning`): if there are few such rows, by the boxes of
//! the tree and the candidate's range in each; if there are many, outwards in the candidate's own order (`sorted`). So a
//! column far wider than those of S takes a few times as long as others, not as long as all pairs of rows.
//!
//! A selection wants the largest A alone. Then the rows that can lose most go first. After a short first batch A of the
//! candidate with the highest bound is computed exactly: it is the incumbent. Every candidate whose upper bound is below it
//! is pruned. The next batch is as long as half of the remaining candidates are expected to need until they are pruned:
//! batches are few, since each reads all columns from memory.
//!
//! Where many rows are identical in S (discrete data) the lists hold groups of identical rows instead (`grouped`). Sums are
//! integers (`ranks`), so nothing depends on how the work was split.

use rayon::prelude::*;

use super::columns::{Columns, Lanes, Packed, WIDTH};
use super::extents::Extents;
use super::grouped::Grouped;
use super::memory::MemoryEstimate;
use super::neighbours::sum;
use super::options::{FociOptions, Standardize, Ties};
use super::pruning::{Candidate, Pruning, RowOrder, finish, search_lists};
use super::ranks::{Ranks, Sum, sort_key};
use super::runs::Runs;
use super::scan::{Entry, Open};
use super::search::{Search, list_bytes, list_rows};
use super::sorted::Sorted;
use super::step::{Step, largest, list_len};
use super::tree::Tree;
use super::watch::Watch;
use crate::error::Result;

/// Rows identical to a row, on average, from which on groups are cheaper than lists of rows.
const GROUPED: usize = 32;
/// Candidates from which on a step prunes.
const PRUNES: usize = 4 * WIDTH;
/// Lists have [`list_len`] of this many times |S|: where every candidate is searched along its whole list, and where most are
/// pruned before a list that is too short costs them anything.
const WHOLE: f64 = 8.0;
const PRUNED: f64 = 4.0;
/// The first batch of rows, as a share of the estimated loss of all rows; and by how much the share grows at least.
const FIRST_BATCH: f64 = 0.15;
const BATCH: f64 = 0.03;

/// The steps of a selection on the CPU.
pub(super) struct CpuStep<'a> {
    of: Columns<'a>, // S is chosen from these
    x: Packed<'a>,   // the candidates, with rows in the order of the ranks
    ranks: &'a Ranks,
    ties: Ties,
    watch: &'a Watch,
    chosen: Chosen,
}

impl<'a> CpuStep<'a> {
    pub fn new(x: Columns<'a>, ranks: &'a Ranks, ties: Ties, watch: &'a Watch) -> CpuStep<'a> {
        CpuStep::of_part(x, x, ranks, ties, watch)
    }

    /// Steps whose candidates are a `part` of the columns of a table: they have numbers of their own, from 0, and the columns
    /// that are given those of the table.
    pub fn of_part(
        of: Columns<'a>,
        part: Columns<'a>,
        ranks: &'a Ranks,
        ties: Ties,
        watch: &'a Watch,
    ) -> CpuStep<'a> {
        let x = Packed::new(part, ranks.order.clone());
        CpuStep { of, x, ranks, ties, watch, chosen: Chosen::new(of.n()) }
    }
}

impl Step for CpuStep<'_> {
    fn first(&mut self) -> Result<Vec<Sum>> {
        Ok(first_step(&self.x, self.ranks, self.ties, self.watch))
    }

    fn give(&mut self, columns: &[usize]) -> Result<()> {
        columns.iter().for_each(|&j| self.chosen.add(self.of.column(j)));
        Ok(())
    }

    fn all(&mut self) -> Result<Vec<Sum>> {
        Ok(self.chosen.step(&self.x, self.ranks, self.ties, None, self.watch))
    }

    fn best(&mut self, candidates: &[usize], bound: i128) -> Result<Option<(usize, Sum)>> {
        let mut offered = vec![false; self.x.p()];
        candidates.iter().for_each(|&j| offered[j] = true);
        let pruning = Pruning { candidates: &offered, bound };
        let sums = self.chosen.step(&self.x, self.ranks, self.ties, Some(&pruning), self.watch);
        Ok(largest(candidates, &sums))
    }

    fn together(&self, groups: &[&[usize]]) -> Result<Vec<Sum>> {
        self.watch.begin(groups.len());
        let one = |group: &&[usize]| {
            if self.watch.stopped() {
                return Sum::default();
            }
            let columns = group.iter().map(|&j| self.of.column(j));
            let columns: Vec<Vec<f64>> = self.chosen.columns.iter().cloned().chain(columns).collect();
            self.watch.advance(1);
            sum(&columns, self.ranks, self.ties)
        };
        Ok(groups.par_iter().map(one).collect())
    }
}

/// A of every column alone; the rows of `x` are in the order of the ranks.
fn first_step(x: &Packed, ranks: &Ranks, ties: Ties, watch: &Watch) -> Vec<Sum> {
    watch.begin(x.blocks());
    let block = |sorted: &mut Sorted, block: usize| {
        let columns = block * WIDTH..x.p().min((block + 1) * WIDTH);
        if watch.stopped() {
            return vec![Sum::default(); columns.len()];
        }
        let one = |j: usize| {
            let values = (0..ranks.n()).map(|place| x.at(place, j));
            sorted.sum(values.zip(ranks.order.iter().copied()), x.is_f32(j), ranks, ties)
        };
        let sums = columns.map(one).collect();
        watch.advance(1);
        sums
    };
    let sums: Vec<Vec<Sum>> = (0..x.blocks()).into_par_iter().map_init(Sorted::default, block).collect();
    sums.into_iter().flatten().collect()
}

/// The memory of a selection among `p` columns of `n` rows with this many threads.
pub(super) fn estimate(n: usize, p: usize, options: &FociOptions, threads: usize) -> MemoryEstimate {
    let others = n.saturating_sub(1);
    let prunes = p >= PRUNES && options.groups.iter().all(|group| group.len() == 1);
    let least = least_len(p).max(2 * GROUPED);
    let chosen = 1..=1 + options.initial.len(); // any of which may be constant
    let times = if prunes { PRUNED } else { WHOLE };
    let row_len = |chosen: usize| row_list_len(others, least, chosen, times);
    let len = chosen.map(row_len).max().unwrap_or(least);
    let rows = list_rows(len, p, n); // of a pass
    let (column, blocks) = (n.saturating_mul(size_of::<f64>()), p.div_ceil(WIDTH));
    let packed = blocks.saturating_mul(n).saturating_mul(size_of::<Lanes<f32>>());
    let lanes = n.saturating_mul(size_of::<Lanes>());
    let changes = options.noise > 0.0 || options.standardize != Standardize::None;
    let sorting = n.saturating_mul(Sorted::BYTES + Runs::BYTES + size_of::<f64>() + size_of::<u32>());
    let found = rows.saturating_mul(blocks).saturating_mul(2 * size_of::<Open>()); // as vectors grow
    let open = (n.saturating_mul(p) / 8).saturating_add(found);
    let extents = blocks.saturating_mul(Extents::bytes(n));
    let parts = [
        Tree::bytes(n, 0),
        list_bytes(len, p, n, threads),
        packed.saturating_mul(if prunes { 11 } else { 8 }) / 4, // by rank, by place, and of the remaining candidates
        if changes { column.saturating_mul(p) } else { 0 },
        threads.saturating_mul(lanes.max(sorting)),
        open.saturating_add(extents),
        column.saturating_mul(11), // ranks, groups, places, batches, the order of rows, and what is sorted for them
        p.saturating_mul(size_of::<Candidate>() + 2 * size_of::<Sum>()),
    ];
    MemoryEstimate {
        bytes: parts.iter().fold(0, |sum, &part| sum.saturating_add(part)),
        bytes_per_chosen: column
            .saturating_mul(2 + threads)
            .saturating_add(Tree::bytes(n, 1) - Tree::bytes(n, 0)),
        method: "a k-d tree over the chosen columns, the nearest rows of each, and each column's order",
    }
}

/// [`list_len`] of `times` |S|, but at least `least` where there are as many others.
fn row_list_len(others: usize, least: usize, varying: usize, times: f64) -> usize {
    list_len(others, varying, times * varying as f64).max(least).min(others)
}

/// The least length of a list: beside this many candidates it costs little.
fn least_len(p: usize) -> usize {
    p / 8
}

/// The chosen columns S and the groups of rows that are identical in them.
struct Chosen {
    n: usize,
    columns: Vec<Vec<f64>>, // in order of choice
    varying: usize,         // how many of them are not constant
    group: Vec<u32>,        // by row: rows of the same group are identical
    groups: Vec<u32>,       // by group: one of its rows
    pairs: usize,           // of identical rows, ordered
    entries: Vec<Entry>,    // scratch for lists
    lanes: Vec<Lanes<f32>>, // scratch for columns
}

impl Chosen {
    /// No columns yet, of `n` rows.
    fn new(n: usize) -> Chosen {
        Chosen {
            n,
            columns: Vec::new(),
            varying: 0,
            group: vec![0; n],
            groups: Vec::new(),
            pairs: 0,
            entries: Vec::new(),
            lanes: Vec::new(),
        }
    }

    /// Adds a column.
    fn add(&mut self, column: Vec<f64>) {
        let n = self.n;
        let mut order: Vec<u32> = (0..n as u32).collect();
        let key = |i: u32| (self.group[i as usize], sort_key(column[i as usize]));
        order.sort_unstable_by_key(|&i| (key(i), i));
        let mut group = vec![0; n];
        self.groups.clear();
        self.pairs = 0;
        for run in order.chunk_by(|&a, &b| key(a) == key(b)) {
            run.iter().for_each(|&i| group[i as usize] = self.groups.len() as u32);
            self.groups.push(run[0]);
            self.pairs += run.len() * (run.len() - 1);
        }
        self.group = group;
        self.varying += usize::from(column.iter().any(|&x| x != column[0]));
        self.columns.push(column);
    }

    /// A of S and each column of `x`. With pruning only the largest A among the candidates is exact, and only where it
    /// exceeds the bound; others may be 0.
    fn step(
        &mut self,
        x: &Packed,
        ranks: &Ranks,
        ties: Ties,
        pruning: Option<&Pruning>,
        watch: &Watch,
    ) -> Vec<Sum> {
        match ties == Ties::Mean && self.pairs > GROUPED * self.n {
            true => self.step_by_group(x, ranks, watch),
            false => self.step_by_row(x, ranks, ties, pruning.filter(|_| x.p() >= PRUNES), watch),
        }
    }

    /// A search among these rows, with lists as of [`row_list_len`].
    fn search(&self, rows: impl Iterator<Item = u32>, least: usize, times: f64, ranks: &Ranks) -> Search {
        let coordinates = |i: u32| self.columns.iter().map(move |column| column[i as usize]);
        let x: Vec<f64> = rows.flat_map(coordinates).collect();
        let tree = Tree::new(&x, self.columns.len());
        let r = tree.points().iter().map(|&point| ranks.r[point as usize]).collect();
        Search { len: row_list_len(tree.len() - 1, least, self.varying, times), tree, r }
    }

    fn step_by_row(
        &mut self,
        x: &Packed,
        ranks: &Ranks,
        ties: Ties,
        pruning: Option<&Pruning>,
        watch: &Watch,
    ) -> Vec<Sum> {
        let n = self.n;
        let identical = self.pairs / n; // to a row, on average
        let times = if pruning.is_some() { PRUNED } else { WHOLE };
        let search = self.search(0..n as u32, least_len(x.p()).max(2 * identical), times, ranks);
        let mut candidates: Vec<Candidate> = (0..x.p()).map(Candidate::new).collect();
        let mut floor = i128::MIN; // candidates whose bound is below it are pruned
        if let Some(pruning) = pruning {
            floor = pruning.bound.saturating_add(1);
            candidates.iter_mut().for_each(|one| one.pruned = !pruning.candidates[one.column]);
        }
        let mut order = match pruning {
            Some(_) => RowOrder::by_loss(&search),
            None => RowOrder::plain(0..n as u32),
        };
        let mut incumbent = None;
        let mut left = ranks.sum; // Σ R of the rows not yet searched
        let placed = x.arranged(search.tree.points(), std::mem::take(&mut self.lanes));
        let mut fewer: Option<Packed> = None; // the columns of the remaining candidates
        let mut share = FIRST_BATCH;
        let mut entries = std::mem::take(&mut self.entries);
        watch.begin(n);
        loop {
            let (rows, packed) = (order.batch(share), fewer.as_ref().unwrap_or(&placed));
            left -= rows.iter().map(|&row| u64::from(search.r[row as usize])).sum::<u64>();
            search.lists(&mut entries, &rows, x.p(), watch, |lists| {
                search_lists(&mut candidates, packed, lists, &search, ranks, ties);
            });
            if pruning.is_none() || watch.stopped() {
                break;
            }
            let alive = candidates.iter_mut().filter(|one| !one.pruned);
            if let Some(first) = alive.max_by_key(|one| one.bound(0)).filter(|_| incumbent.is_none()) {
                let column = x.of().column(first.column);
                let exact = sum(&[&self.columns[..], &[column]].concat(), ranks, ties);
                floor = floor.max(exact.rounded());
                first.pruned = true; // its sum is known
                incumbent = Some((first.column, exact));
            }
            candidates.iter_mut().for_each(|one| one.pruned |= one.bound(left) < floor);
            let kept: Vec<usize> = (0..candidates.len()).filter(|&at| !candidates[at].pruned).collect();
            if kept.is_empty() || left == 0 {
                break;
            }
            let loss = |bound: i128| ((i128::from(ranks.sum) << 32) - bound) as f64;
            let needed = |&at: &usize| share * loss(floor) / loss(candidates[at].bound(left));
            let mut needed: Vec<f64> = kept.iter().map(needed).collect();
            let middle = needed.len() / 2;
            share = needed.select_nth_unstable_by(middle, f64::total_cmp).1.max(share + BATCH);
            if 4 * kept.len() < 3 * candidates.len() {
                fewer = Some(packed.some(&kept));
                candidates.retain(|one| !one.pruned);
            }
        }
        if !watch.stopped() {
            finish(&mut candidates, fewer.as_ref().unwrap_or(&placed), &search, ranks, ties, floor);
        }
        (self.lanes, self.entries) = (placed.into_scratch(), entries);
        let mut sums = vec![Sum::default(); x.p()];
        candidates.iter().filter(|one| !one.pruned).for_each(|one| sums[one.column] = one.sum);
        incumbent.into_iter().for_each(|(column, sum)| sums[column] = sum);
        sums
    }

    fn step_by_group(&mut self, x: &Packed, ranks: &Ranks, watch: &Watch) -> Vec<Sum> {
        let search = self.search(self.groups.iter().copied(), 0, PRUNED, ranks);
        let wanted: Vec<u32> = (0..self.groups.len() as u32).collect();
        let mut sums = vec![Sum::default(); x.p()];
        watch.begin(wanted.len());
        let group = &self.group;
        search.lists(&mut self.entries, &wanted, 1, watch, |lists| {
            sums.par_iter_mut().enumerate().for_each_init(Grouped::default, |grouped, (j, sum)| {
                grouped.arrange(|position| x.at(position, j), group, ranks);
                for (at, &own) in lists.rows.iter().enumerate() {
                    grouped.tally(sum, own, lists.list(at), &lists, &search.tree, ranks);
                }
            });
        });
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::{Stream, Use};

    /// Columns with many ties, few and none.
    fn columns(n: usize) -> Vec<Vec<f64>> {
        let mut stream = Stream::new(5, Use::Choice, 0);
        let mut column = |of: &dyn Fn(f64, f64) -> f64| {
            (0..n).map(|_| of(f64::from(stream.normal()), stream.uniform())).collect::<Vec<f64>>()
        };
        let mut all = vec![
            column(&|x, _| x),
            column(&|x, coin| if coin < 0.6 { 0.0 } else { x }),
            column(&|x, _| (4.0 * x).round()),
            column(&|_, coin| f64::from(u8::from(coin < 0.5))),
            column(&|_, _| 0.25),
            column(&|x, _| 1e200 * x),
            column(&|x, _| 1e6 + 1e-3 * x),
        ];
        all.push(all[0].clone());
        all.extend((0..6).map(|_| column(&|x, _| x)));
        all
    }

    #[test]
    fn a_step_is_one_search_after_another_and_pruning_keeps_the_winner() {
        let n = 300;
        let columns = columns(n);
        let values = columns.concat();
        let narrow: Vec<f64> =
            values.iter().map(|&v| f64::from((v as f32).clamp(f32::MIN, f32::MAX))).collect();
        let matrix = |values| Columns::from_columns_f64(values, n, columns.len()).unwrap();
        let packed = |values, rows: &[u32]| Packed::new(matrix(values), rows.to_vec());
        let y: Vec<f64> =
            (0..n).map(|i| (3.0 * columns[0][i] * columns[8][i]).round() + columns[2][i]).collect();
        let (mut open, mut pruned) = (0, 0);
        for order in [[0, 8, 9], [1, 2, 0], [1, 8, 9], [4, 3, 1], [6, 10, 2], [5, 0, 11], [2, 3, 4]] {
            for ties in [Ties::Mean, Ties::First, Ties::Random { seed: 1, draws: 2 }] {
                let ranks = Ranks::new(&y, ties).unwrap();
                let (wide, narrow) = (packed(&values, &ranks.order), packed(&narrow, &ranks.order));
                assert!((0..columns.len()).all(|j| narrow.is_f32(j)) && !wide.is_f32(5));
                let mut chosen = Chosen::new(n);
                for j in order {
                    chosen.add(columns[j].clone());
                    for x in [&wide, &narrow] {
                        let watch = Watch::default();
                        let expected = chosen.step(x, &ranks, ties, None, &watch);
                        let direct = |at: usize| {
                            let candidate = x.of().column(at);
                            sum(&[&chosen.columns[..], &[candidate]].concat(), &ranks, ties)
                        };
                        assert!((0..x.p()).all(|at| direct(at) == expected[at]), "{order:?} {j} {ties:?}");
                        let best = expected.iter().map(|sum| sum.rounded()).max().unwrap();
                        for bound in [i128::MIN, best - 1] {
                            let pruning = Pruning { candidates: &vec![true; x.p()], bound };
                            let found = chosen.step_by_row(x, &ranks, ties, Some(&pruning), &watch);
                            let winner = |sums: &[Sum]| {
                                (0..x.p())
                                    .min_by_key(|&at| (-sums[at].rounded(), at))
                                    .map(|at| (at, sums[at]))
                            };
                            assert!(winner(&found) == winner(&expected), "{order:?} {j} {ties:?}");
                            let zero = found.iter().filter(|sum| **sum == Sum::default()).count();
                            assert!((0..x.p()).all(|at| [expected[at], Sum::default()].contains(&found[at])));
                            pruned += zero;
                        }
                    }
                    let search = chosen.search(0..n as u32, 0, PRUNED, &ranks);
                    open += usize::from(search.len < n - 1);
                }
            }
        }
        assert!(open > 20 && pruned > 100, "{open} {pruned}");
    }
}
