//! The candidates of a step on the CPU: their sums over batches of rows, and their pruning by an upper bound.
//!
//! A row that is not searched yet adds at most its own rank R_i. So Σ min(R_i, R_M(i)) over the rows searched so far plus
//! Σ R_i over the rest bounds A from above, and a candidate whose bound is below the incumbent's A is pruned. A row whose
//! list ended too early is *open* for a candidate: it is pending, with R_i as its bound, and searched at the end.

use std::cmp::Reverse;
use std::ops::Range;

use rayon::prelude::*;

use super::boxes::{LEAF, ones};
use super::columns::{Packed, STRIP, WIDTH};
use super::extents::Extents;
use super::options::Ties;
use super::ranks::{Ranks, Sum};
use super::scan::{COUNT, Entry, Lists, Open, bits, scan, screen};
use super::search::{Search, TILE};
use super::sorted::Sorted;
use super::tree::Tree;

/// Neighbours from which the loss of a row is estimated.
const SAMPLED: usize = 8;
/// A pass is split into at least this many tasks.
const TASKS: usize = 64;
/// A candidate has few open rows if they are at most this part of all rows, divided by |S|: then boxes skip what is far in
/// S and the candidate together. With more it pays to sort the candidate.
const FEW: usize = 64;

/// What a step may leave out where only the largest A is wanted.
pub(super) struct Pruning<'a> {
    /// By column: whether it is a candidate.
    pub candidates: &'a [bool],
    /// Only an A, rounded, above this is wanted.
    pub bound: i128,
}

/// A candidate column during a step.
pub(super) struct Candidate {
    pub column: usize,
    pub sum: Sum,
    open: RowSet,
    pending: u64, // Σ R of the open rows
    pub pruned: bool,
}

/// A set of rows.
#[derive(Default)]
struct RowSet {
    bits: Vec<u32>, // empty while there are no rows
    count: usize,
}

/// All rows in the order in which they are searched.
pub(super) struct RowOrder {
    rows: Vec<u32>,
    loss: Vec<u64>, // the estimated loss of the rows up to each one
    done: usize,
}

impl RowOrder {
    /// Rows without an estimated loss.
    pub fn plain(rows: Range<u32>) -> RowOrder {
        RowOrder { loss: vec![0; rows.len()], rows: rows.collect(), done: 0 }
    }

    /// Rows with the greatest estimated loss first. A candidate that tells nothing gives a row any of those near in S as
    /// its neighbour, and the row loses what its rank exceeds theirs by.
    pub fn by_loss(search: &Search) -> RowOrder {
        let r = |row: u32| u64::from(search.r[row as usize]);
        let losses = |scratch: &mut Vec<Vec<(f64, u32)>>, leaf: usize| {
            let rows: Vec<u32> = search.tree.places(leaf).map(|place| place as u32).collect();
            let near = search.tree.nearest(scratch, &rows, SAMPLED);
            let loss = |(row, near): (u32, &Vec<(f64, u32)>)| {
                (near.iter().map(|&(_, j)| r(row).saturating_sub(r(j))).sum(), row)
            };
            rows.into_iter().zip(near).map(loss).collect::<Vec<(u64, u32)>>()
        };
        let leaves = (0..search.tree.leaves()).into_par_iter();
        let mut losses: Vec<(u64, u32)> = leaves.map_init(Vec::new, losses).flatten_iter().collect();
        losses.sort_unstable_by_key(|&(loss, row)| (Reverse(loss), row));
        let mut all = 0;
        let each = losses.into_iter().map(|(loss, row)| {
            all += loss;
            (row, all)
        });
        let (rows, loss) = each.unzip();
        RowOrder { rows, loss, done: 0 }
    }

    /// The next batch of rows: up to this share of the whole estimated loss, at least one row if any is left.
    pub fn batch(&mut self, share: f64) -> Vec<u32> {
        let all = self.loss.last().map_or(0.0, |&all| all as f64);
        let end = self.loss.partition_point(|&loss| loss as f64 <= share * all);
        let start = self.done;
        self.done = end.max(start + 1).min(self.rows.len());
        let mut rows = self.rows[start..self.done].to_vec();
        rows.sort_unstable(); // near rows share lines of the cache
        rows
    }
}

impl RowSet {
    /// Adds a row of `n` that is not in the set.
    fn add(&mut self, row: u32, n: usize) {
        if self.bits.is_empty() {
            self.bits = vec![0; n.div_ceil(u32::BITS as usize)];
        }
        self.bits[(row / u32::BITS) as usize] |= 1 << (row % u32::BITS);
        self.count += 1;
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.bits
            .iter()
            .zip(0..)
            .flat_map(|(&bits, at)| ones(bits).map(move |bit| at * u32::BITS + bit as u32))
    }
}

/// What a block of candidates gains in f32.
#[derive(Default)]
struct Scanned {
    sums: [u64; WIDTH],
    open: Vec<Open>,
    unclear: Vec<usize>,
}

/// Searches along these lists for every candidate and adds what their rows contribute.
pub(super) fn search_lists(
    candidates: &mut [Candidate],
    x: &Packed,
    lists: Lists,
    search: &Search,
    ranks: &Ranks,
    ties: Ties,
) {
    let strips: Vec<Range<usize>> =
        (0..x.blocks()).step_by(STRIP).map(|first| first..(first + STRIP).min(x.blocks())).collect();
    let rows = lists.rows.len();
    let parts = TASKS.div_ceil(strips.len()).min(rows.div_ceil(TILE));
    let per_part = rows.div_ceil(parts).next_multiple_of(TILE);
    let task = |task: usize| {
        let (strip, part) = (strips[task / parts].clone(), task % parts);
        let (start, end) = ((part * per_part).min(rows), ((part + 1) * per_part).min(rows));
        let lists = lists.some(start..end);
        let mut found: Vec<Scanned> = strip.clone().map(|_| Scanned::default()).collect();
        for first in (0..end - start).step_by(TILE) {
            let some = lists.some(first..(first + TILE).min(end - start));
            for (block, Scanned { sums, open, unclear }) in strip.clone().zip(&mut found) {
                screen(sums, open, unclear, x.block(block), &some, first);
            }
        }
        let (mut wide, mut distances) = (Vec::new(), Vec::new());
        let each = strip.zip(found).map(|(block, found)| {
            let mut sums = found.sums.map(|whole| Sum::of(whole, 0));
            let mut open = found.open;
            if !found.unclear.is_empty() {
                x.wide(&mut wide, block);
            }
            for at in found.unclear {
                let (row, list) = (lists.rows[at], lists.list(at));
                distances.clear();
                distances.extend(list.iter().map(|entry| search.tree.distance(row, entry.j)));
                let tied = scan(&wide[row as usize], &wide, list, &distances);
                let ends = |best| !lists.whole && distances.last().is_some_and(|&last| best >= last);
                let beyond = tied.least.map(ends);
                if beyond.contains(&true) {
                    open.push(Open { row, lanes: bits(beyond) });
                }
                for (l, sum) in sums.iter_mut().enumerate().filter(|&(l, _)| !beyond[l]) {
                    let best = tied.least[l];
                    let (mut s, mut c) = (tied.found[l] % COUNT, tied.found[l] / COUNT);
                    if c > 1 && ties != Ties::Mean {
                        let at_best = |(entry, given): (&Entry, &f64)| {
                            let difference = wide[row as usize][l] - wide[entry.j as usize][l];
                            (given + difference * difference == best).then_some(entry.j)
                        };
                        let mut rows: Vec<u32> = list.iter().zip(&distances).filter_map(at_best).collect();
                        (s, c) = search.drawn(&mut rows, row, ranks, ties);
                    }
                    sum.add(s, c);
                }
            }
            (block, sums, open)
        });
        each.collect::<Vec<_>>()
    };
    let found: Vec<_> = (0..strips.len() * parts).into_par_iter().map(task).collect();
    for (block, sums, open) in found.into_iter().flatten() {
        let candidates = &mut candidates[block * WIDTH..];
        let alive = candidates.iter_mut().zip(sums).filter(|(candidate, _)| !candidate.pruned);
        alive.for_each(|(candidate, sum)| candidate.sum = candidate.sum.plus(sum));
        for Open { row, lanes } in open {
            let lanes = candidates.iter_mut().take(WIDTH).enumerate().filter(|(l, _)| lanes >> l & 1 == 1);
            for (_, candidate) in lanes.filter(|(_, candidate)| !candidate.pruned) {
                candidate.pending += u64::from(search.r[row as usize]);
                candidate.open.add(row, search.tree.len());
            }
        }
    }
}

/// Searches the open rows of each candidate, until its upper bound is below `floor`: then it is pruned.
pub(super) fn finish(
    candidates: &mut [Candidate],
    x: &Packed,
    search: &Search,
    ranks: &Ranks,
    ties: Ties,
    floor: i128,
) {
    let tree = &search.tree;
    let unfinished = |candidate: &Candidate| !candidate.pruned && candidate.open.count > 0;
    let few = |candidate: &Candidate| candidate.open.count <= tree.len() / (FEW * tree.d());
    let extents = candidates.par_chunks(WIDTH).enumerate().map(|(block, candidates)| {
        let wanted = candidates.iter().any(|candidate| unfinished(candidate) && few(candidate));
        wanted.then(|| Extents::new(tree, x.block(block)))
    });
    let extents: Vec<Option<Extents>> = extents.collect();
    let candidates = candidates.par_iter_mut().enumerate().filter(|(_, candidate)| unfinished(candidate));
    candidates.for_each_init(Order::default, |order, (at, candidate)| {
        let value = |place: u32| x.at(place as usize, at);
        match extents[at / WIDTH].as_ref().filter(|_| few(candidate)) {
            Some(extents) => candidate.finish(floor, search, ranks, ties, |row, radius, visit| {
                let own = value(row);
                extents.walk(tree, row as usize, (at % WIDTH, own), radius, |other, distance| {
                    let difference = own - value(other as u32);
                    visit(other as u32, distance + difference * difference)
                });
            }),
            None => {
                order.arrange(tree, value, x.is_f32(at));
                candidate.finish(floor, search, ranks, ties, |row, radius, visit| {
                    order.walk(tree, row, value(row), radius, visit);
                });
            }
        }
    });
}

impl Candidate {
    pub fn new(column: usize) -> Candidate {
        Candidate { column, sum: Sum::default(), open: RowSet::default(), pending: 0, pruned: false }
    }

    /// An upper bound of A, rounded, where Σ R of the rows still to be searched is `left`.
    pub fn bound(&self, left: u64) -> i128 {
        self.sum.plus(Sum::of(self.pending + left, 0)).rounded()
    }

    /// Searches the open rows until the bound is below `floor`. `walk(row, radius, visit)` calls `visit(other, distance)`
    /// at least for all others within the radius whose distance is finite; the answer is the radius from then on.
    fn finish(
        &mut self,
        floor: i128,
        search: &Search,
        ranks: &Ranks,
        ties: Ties,
        walk: impl Fn(u32, f64, &mut dyn FnMut(u32, f64) -> f64),
    ) {
        let (n, r) = (search.tree.len(), &search.r);
        let mut open: Vec<u32> = std::mem::take(&mut self.open).iter().collect();
        open.sort_unstable_by_key(|&row| Reverse((r[row as usize], row))); // those that can lose most first
        for row in open {
            self.pruned = self.bound(0) < floor;
            if self.pruned {
                break;
            }
            let own = r[row as usize];
            self.pending -= u64::from(own);
            let (mut best, mut found) = (f64::INFINITY, 0);
            walk(row, best, &mut |other, distance| {
                let one = COUNT | u64::from(own.min(r[other as usize]));
                if distance < best {
                    (best, found) = (distance, one);
                } else if distance == best {
                    found += one;
                }
                best
            });
            let all_as_far = best == f64::INFINITY;
            let (mut s, mut c) = match all_as_far {
                true => (ranks.least_sum(own) - u64::from(own), n as u64 - 1),
                false => (found % COUNT, found / COUNT),
            };
            if c > 1 && ties != Ties::Mean {
                let mut rows = Vec::new();
                match all_as_far {
                    true => rows.extend((0..n as u32).filter(|&other| other != row)),
                    false => walk(row, best, &mut |other, distance| {
                        rows.extend((distance == best).then_some(other));
                        best
                    }),
                }
                (s, c) = search.drawn(&mut rows, row, ranks, ties);
            }
            self.sum.add(s, c);
        }
    }
}

/// The rows sorted by a candidate, with their points in tiles of [`LEAF`] side by side. Where the candidate is far wider than S,
/// rows that are near in it are near.
#[derive(Default)]
struct Order {
    sorted: Sorted,
    tiles: Vec<[f64; LEAF]>,
}

impl Order {
    fn arrange(&mut self, tree: &Tree, value: impl Fn(u32) -> f64, narrow: bool) {
        self.sorted.sort((0..tree.len() as u32).map(|place| (value(place), place)), narrow);
        tree.arranged(self.sorted.rows(), &mut self.tiles);
    }

    /// The `walk` of [`Candidate::finish`], from a row whose value is `x`.
    fn walk(&self, tree: &Tree, row: u32, x: f64, mut radius: f64, visit: &mut dyn FnMut(u32, f64) -> f64) {
        self.sorted.walk(x, LEAF, |tile| {
            let (distances, within) = tree.to_tile(row, &self.tiles, tile, radius);
            for at in within {
                match self.sorted.at(tile * LEAF + at) {
                    Some((value, other)) if other != row => {
                        radius = visit(other, distances[at] + (x - value) * (x - value));
                    }
                    Some(_) | None => {} // the row itself, or beyond the last
                }
            }
            radius
        });
    }
}
