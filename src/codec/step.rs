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
//! which is exact: no later j can come nearer. A list has the nearest rows in S, found in a k-d tree, and the columns are
//! copied in the order of its leaves, so that what a row looks at lies together in memory. Where a candidate comes to the
//! end of a list, the row is left open and looked for at last: few such rows by boxes of the tree, which leave out what is far
//! in S and the candidate together; many by the candidate's own order (`sorted`), outwards, [`LEAF`] rows side by side. So a
//! column that is far wider than those of S takes a few times as long as others, not as long as all pairs of rows.
//!
//! A selection wants the largest A alone. Then rows that can lose most go first. After a short first lap A of the candidate
//! in front is taken whole; another falls out once R_i for every row that is left would not bring it there. The next lap is
//! as long as half of them should need to fall out: laps are few, since each reads all columns from memory.
//!
//! Where S leaves many rows identical (discrete data) the list holds groups of identical rows instead, and within a group
//! the nearest are found by binary search in the sorted candidate. Lists are made for as many rows at a time as fit in
//! [`LIST_BYTES`]. Sums are integers (`ranks`), so nothing depends on how the work was split.

use std::cmp::Reverse;
use std::ops::Range;

use rayon::prelude::*;

use super::Ties;
use super::columns::{Lanes, Packed, STRIP, Standardize, WIDTH};
use super::foci::{FociOptions, Plan, Watch};
use super::neighbours::{Runs, drawn, sum};
use super::ranks::{Ranks, Sum, sort_key};
use super::scan::{COUNT, Entry, Lists, Open, bits, scan, screen};
use super::sorted::Sorted;
use super::tree::{Beside, Extents, LEAF, Tree, ones};

/// A of every column alone; the rows of `x` are in the order of the ranks.
pub(super) fn first_step(x: &Packed, ranks: &Ranks, ties: Ties, watch: &Watch) -> Vec<Sum> {
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

/// The lists of a pass over rows (or groups) are no larger than this, unless one alone is.
const LIST_BYTES: usize = 64 << 20;
/// Rows times candidates of a pass at most: between passes it is seen whether to stop, and progress is shown.
const PASS: usize = 1 << 27;
/// Rows identical to a row, on average, from which on groups are cheaper than lists of rows.
const GROUPED: usize = 32;
/// Candidates from which on they race; the share of what all rows may lose in the first lap, and in others at least.
const RACE: usize = 4 * WIDTH;
const FIRST_LAP: f64 = 0.15;
const LAP: f64 = 0.03;
/// Lists are so many times |S| n^(1/(|S| + 1)) long where all candidates go to their end; and where most fall out before
/// their open rows are looked for.
const LONG: f64 = 8.0;
const SHORT: f64 = 4.0;
/// The open rows of a candidate are few where they are no more than this part of all, divided by |S|: then boxes leave out what
/// is far in the chosen columns and the candidate together, else it is worth while to sort the candidate.
const FEW: usize = 64;
/// Neighbours by which it is judged what a row may lose.
const SAMPLED: usize = 8;
/// Tasks of a pass at least.
const TASKS: usize = 64;
/// Rows whose lists are read for [`STRIP`] blocks one after the other, while the cache has them.
const TILE: usize = 32;

/// The plan of a selection among `p` columns of `n` rows with this many threads.
pub(super) fn plan(n: usize, p: usize, options: &FociOptions, threads: usize) -> Plan {
    let others = n.saturating_sub(1);
    let races = p >= RACE && options.groups.iter().all(|group| group.len() == 1);
    let times = if races { SHORT } else { LONG };
    let least = least_len(p).max(2 * GROUPED);
    let chosen = 1..=1 + options.initial.len(); // any of which may be constant
    let len = chosen.map(|chosen| list_len(others, least, chosen, times)).max().unwrap_or(least);
    let rows = list_rows(len, p, n); // of a pass
    let lists = len.saturating_mul(size_of::<Entry>()).saturating_mul(rows);
    let near = threads.saturating_mul(len).saturating_mul(2 * LEAF * size_of::<(f64, u32)>()); // of a leaf's rows
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
        lists.saturating_add(near),
        packed.saturating_mul(if races { 11 } else { 8 }) / 4, // by rank, by place, and those that are left
        if changes { column.saturating_mul(p) } else { 0 },
        threads.saturating_mul(lanes.max(sorting)),
        open.saturating_add(extents),
        column.saturating_mul(11), // ranks, groups, places, laps, their orders, and what is sorted by them
        p.saturating_mul(size_of::<Runner>() + 2 * size_of::<Sum>()),
    ];
    Plan {
        bytes: parts.iter().fold(0, |sum, &part| sum.saturating_add(part)),
        bytes_per_chosen: column
            .saturating_mul(2 + threads)
            .saturating_add(Tree::bytes(n, 1) - Tree::bytes(n, 0)),
        method: "a k-d tree over the chosen columns, the nearest rows of each, and each column's order",
    }
}

/// Lists of `len` entries that are made at a time for `p` candidates and some of `n` rows.
fn list_rows(len: usize, p: usize, n: usize) -> usize {
    let fit = LIST_BYTES / (len.max(1) * size_of::<Entry>());
    fit.min((PASS / p.max(1)).max(TILE)).clamp(1, n.max(1))
}

/// The entries of a list of `others` with `chosen` columns that vary: |S| and so many `times` the n^(1/(|S| + 1)) that are visited
/// on average, and `least` where there are so many.
fn list_len(others: usize, least: usize, chosen: usize, times: f64) -> usize {
    let visited = (others as f64).powf(1.0 / (chosen + 1) as f64);
    ((times * chosen as f64 * visited) as usize).max(32).max(least).min(others)
}

/// A list's entries at least: beside so many candidates it costs little.
fn least_len(p: usize) -> usize {
    p / 8
}

/// The chosen columns, and what follows from them.
pub(super) struct Space {
    n: usize,
    /// In order of choice.
    pub columns: Vec<Vec<f64>>,
    varying: usize,         // of them, not constant
    group: Vec<u32>,        // by row: rows of the same group are identical
    groups: Vec<u32>,       // by group: one of its rows
    pairs: usize,           // of identical rows, ordered
    entries: Vec<Entry>,    // space for lists
    lanes: Vec<Lanes<f32>>, // and for columns
}

/// Points (rows, or one of each group of identical rows) by their places in a tree, where what is near lies together.
struct Search {
    tree: Tree,
    r: Vec<u32>, // R by place, of rows
    len: usize,  // entries of a list
}

/// A candidate on its way.
struct Runner {
    column: usize,
    sum: Sum,
    open: Rows,
    owed: u64, // Σ R of the open rows
    out: bool,
}

/// Some of all rows.
#[derive(Default)]
struct Rows {
    bits: Vec<u32>, // none where there are no rows
    count: usize,
}

/// The rows in the order in which they are taken, and what they and those before them may lose.
struct Course {
    rows: Vec<u32>,
    lost: Vec<u64>,
    done: usize,
}

/// What is wanted of a step where only the largest A is.
pub(super) struct Race<'a> {
    /// By column: whether it can win.
    pub candidates: &'a [bool],
    /// No A is wanted that is not greater than this, rounded.
    pub beaten: i128,
}

impl Course {
    /// Of rows that lose nothing.
    fn of(rows: Range<u32>) -> Course {
        Course { lost: vec![0; rows.len()], rows: rows.collect(), done: 0 }
    }

    /// The next rows, up to this share of all that may be lost.
    fn lap(&mut self, share: f64) -> Vec<u32> {
        let all = self.lost.last().map_or(0.0, |&all| all as f64);
        let end = self.lost.partition_point(|&lost| lost as f64 <= share * all);
        let start = self.done;
        self.done = end.max(start + 1).min(self.rows.len());
        let mut rows = self.rows[start..self.done].to_vec();
        rows.sort_unstable(); // what is near shares lines of the cache
        rows
    }
}

impl Rows {
    /// One more of `n`, which is not among them.
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

impl Runner {
    fn new(column: usize) -> Runner {
        Runner { column, sum: Sum::default(), open: Rows::default(), owed: 0, out: false }
    }

    /// No less than A, rounded, where the rows still to come have ranks of this sum.
    fn most(&self, left: u64) -> i128 {
        self.sum.plus(Sum::of(self.owed + left, 0)).rounded()
    }
}

/// What a block of candidates comes to in f32.
#[derive(Default)]
struct Scanned {
    sums: [u64; WIDTH],
    open: Vec<Open>,
    unclear: Vec<usize>,
}

impl Space {
    /// None yet, of `n` rows.
    pub fn new(n: usize) -> Space {
        Space {
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

    /// One more.
    pub fn add(&mut self, column: Vec<f64>) {
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

    /// A of the chosen columns and each column of `x`. In a race only the largest is right, and only where it is not
    /// beaten; others may be 0.
    pub fn step(
        &mut self,
        x: &Packed,
        ranks: &Ranks,
        ties: Ties,
        race: Option<&Race>,
        watch: &Watch,
    ) -> Vec<Sum> {
        match ties == Ties::Mean && self.pairs > GROUPED * self.n {
            true => self.step_by_group(x, ranks, watch),
            false => self.step_by_row(x, ranks, ties, race.filter(|_| x.p() >= RACE), watch),
        }
    }

    /// These rows among each other, with lists as in [`list_len`].
    fn search(&self, rows: impl Iterator<Item = u32>, least: usize, times: f64, ranks: &Ranks) -> Search {
        let coordinates = |i: u32| self.columns.iter().map(move |column| column[i as usize]);
        let x: Vec<f64> = rows.flat_map(coordinates).collect();
        let tree = Tree::new(&x, self.columns.len());
        let r = tree.points().iter().map(|&point| ranks.r[point as usize]).collect();
        Search { len: list_len(tree.len() - 1, least, self.varying, times), tree, r }
    }

    /// Calls `work` with the lists of some of the `wanted` places (ascending) at a time, for `p` candidates.
    fn lists(
        &mut self,
        search: &Search,
        wanted: &[u32],
        p: usize,
        watch: &Watch,
        mut work: impl FnMut(Lists),
    ) {
        let &Search { ref tree, ref r, len } = search;
        let whole = len == tree.len() - 1;
        if len == 0 {
            return work(Lists { rows: wanted, entries: &[], len, whole });
        }
        let at_once = list_rows(len, p, wanted.len());
        let mut buffer = std::mem::take(&mut self.entries);
        buffer.resize(buffer.len().max(at_once * len), Entry::new(0.0, 0, 0));
        for rows in wanted.chunks(at_once) {
            if watch.stopped() {
                break;
            }
            let entries = &mut buffer[..rows.len() * len];
            let (mut rest, mut leaves) = (&mut *entries, Vec::new());
            for rows in rows.chunk_by(|&a, &b| tree.leaf(a as usize) == tree.leaf(b as usize)) {
                let (lists, after) = rest.split_at_mut(rows.len() * len);
                leaves.push((rows, lists));
                rest = after;
            }
            leaves.into_par_iter().for_each_init(Vec::new, |space, (rows, lists)| {
                let near = tree.nearest(space, rows, len);
                for ((list, &row), near) in lists.chunks_exact_mut(len).zip(rows).zip(near) {
                    for (entry, &(distance, j)) in list.iter_mut().zip(near) {
                        *entry = Entry::new(distance, j, r[row as usize].min(r[j as usize]));
                    }
                }
            });
            work(Lists { rows, entries, len, whole });
            watch.advance(rows.len());
        }
        self.entries = buffer;
    }

    fn step_by_row(
        &mut self,
        x: &Packed,
        ranks: &Ranks,
        ties: Ties,
        race: Option<&Race>,
        watch: &Watch,
    ) -> Vec<Sum> {
        let n = self.n;
        let identical = self.pairs / n; // to a row, on average
        let times = if race.is_some() { SHORT } else { LONG };
        let search = self.search(0..n as u32, least_len(x.p()).max(2 * identical), times, ranks);
        let mut runners: Vec<Runner> = (0..x.p()).map(Runner::new).collect();
        let mut floor = i128::MIN;
        if let Some(race) = race {
            floor = race.beaten.saturating_add(1);
            runners.iter_mut().for_each(|runner| runner.out = !race.candidates[runner.column]);
        }
        let mut course = if race.is_some() { search.course() } else { Course::of(0..n as u32) };
        let mut leader = None;
        let mut left = ranks.sum;
        let placed = x.arranged(search.tree.points(), std::mem::take(&mut self.lanes));
        let mut fewer: Option<Packed> = None; // the columns of those that are left
        let mut share = FIRST_LAP;
        watch.begin(n);
        loop {
            let (rows, packed) = (course.lap(share), fewer.as_ref().unwrap_or(&placed));
            left -= rows.iter().map(|&row| u64::from(search.r[row as usize])).sum::<u64>();
            self.lists(&search, &rows, x.p(), watch, |lists| {
                run(&mut runners, packed, lists, &search, ranks, ties);
            });
            if race.is_none() || watch.stopped() {
                break;
            }
            let running = runners.iter_mut().filter(|runner| !runner.out);
            if let Some(first) = running.max_by_key(|runner| runner.most(0)).filter(|_| leader.is_none()) {
                let candidate = x.of().column(first.column);
                let sum = sum(&[&self.columns[..], &[candidate]].concat(), ranks, ties);
                floor = floor.max(sum.rounded());
                first.out = true;
                leader = Some((first.column, sum));
            }
            runners.iter_mut().for_each(|runner| runner.out |= runner.most(left) < floor);
            let kept: Vec<usize> = (0..runners.len()).filter(|&at| !runners[at].out).collect();
            if kept.is_empty() || left == 0 {
                break;
            }
            let lost = |most: i128| ((i128::from(ranks.sum) << 32) - most) as f64;
            let needed = |&at: &usize| share * lost(floor) / lost(runners[at].most(left));
            let mut needed: Vec<f64> = kept.iter().map(needed).collect();
            let middle = needed.len() / 2;
            share = needed.select_nth_unstable_by(middle, f64::total_cmp).1.max(share + LAP);
            if 4 * kept.len() < 3 * runners.len() {
                fewer = Some(packed.some(&kept));
                runners.retain(|runner| !runner.out);
            }
        }
        if !watch.stopped() {
            finish(&mut runners, fewer.as_ref().unwrap_or(&placed), &search, ranks, ties, floor);
        }
        self.lanes = placed.into_space();
        let mut sums = vec![Sum::default(); x.p()];
        runners.iter().filter(|runner| !runner.out).for_each(|runner| sums[runner.column] = runner.sum);
        leader.into_iter().for_each(|(column, sum)| sums[column] = sum);
        sums
    }

    fn step_by_group(&mut self, x: &Packed, ranks: &Ranks, watch: &Watch) -> Vec<Sum> {
        let (group, groups) = (self.group.clone(), self.groups.clone());
        let search = self.search(groups.iter().copied(), 0, SHORT, ranks);
        let wanted: Vec<u32> = (0..groups.len() as u32).collect();
        let mut sums = vec![Sum::default(); x.p()];
        watch.begin(wanted.len());
        self.lists(&search, &wanted, 1, watch, |lists| {
            sums.par_iter_mut().enumerate().for_each_init(Grouped::default, |grouped, (j, sum)| {
                grouped.arrange(|position| x.at(position, j), &group, ranks);
                for (at, &own) in lists.rows.iter().enumerate() {
                    grouped.tally(sum, own, lists.list(at), &lists, &search.tree, ranks);
                }
            });
        });
        sums
    }
}

impl Search {
    /// Rows that can lose most first: a candidate that tells nothing puts a row beside any of those near in S, at whose
    /// ranks it loses what is above them.
    fn course(&self) -> Course {
        let r = |row: u32| u64::from(self.r[row as usize]);
        let losses = |space: &mut Vec<Vec<(f64, u32)>>, leaf: usize| {
            let rows: Vec<u32> = self.tree.places(leaf).map(|place| place as u32).collect();
            let near = self.tree.nearest(space, &rows, SAMPLED);
            let loss = |(row, near): (u32, &Vec<(f64, u32)>)| {
                (near.iter().map(|&(_, j)| r(row).saturating_sub(r(j))).sum(), row)
            };
            rows.into_iter().zip(near).map(loss).collect::<Vec<(u64, u32)>>()
        };
        let leaves = (0..self.tree.leaves()).into_par_iter();
        let mut losses: Vec<(u64, u32)> = leaves.map_init(Vec::new, losses).flatten_iter().collect();
        losses.sort_unstable_by_key(|&(loss, row)| (Reverse(loss), row));
        let mut all = 0;
        let each = losses.into_iter().map(|(loss, row)| {
            all += loss;
            (row, all)
        });
        let (rows, lost) = each.unzip();
        Course { rows, lost, done: 0 }
    }

    /// [`drawn`] by place.
    fn drawn(&self, tied: &mut [u32], place: u32, ranks: &Ranks, ties: Ties) -> (u64, u64) {
        let row = |place: u32| self.tree.points()[place as usize];
        tied.iter_mut().for_each(|place| *place = row(*place));
        drawn(tied, row(place), ranks, ties)
    }
}

/// Takes every candidate over the rows of these lists.
fn run(runners: &mut [Runner], x: &Packed, lists: Lists, search: &Search, ranks: &Ranks, ties: Ties) {
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
                let beyond =
                    tied.least.map(|best| !lists.whole && distances.last().is_some_and(|&last| best >= last));
                if beyond.contains(&true) {
                    open.push(Open { row, lanes: bits(beyond) });
                }
                for (l, sum) in sums.iter_mut().enumerate().filter(|&(l, _)| !beyond[l]) {
                    let best = tied.least[l];
                    let (mut s, mut c) = (tied.found[l] % COUNT, tied.found[l] / COUNT);
                    if c > 1 && ties != Ties::Mean {
                        let at_best = |(entry, given): (&Entry, &f64)| {
                            let apart = wide[row as usize][l] - wide[entry.j as usize][l];
                            (given + apart * apart == best).then_some(entry.j)
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
        let runners = &mut runners[block * WIDTH..];
        let running = runners.iter_mut().zip(sums).filter(|(runner, _)| !runner.out);
        running.for_each(|(runner, sum)| runner.sum = runner.sum.plus(sum));
        for Open { row, lanes } in open {
            let lanes = runners.iter_mut().take(WIDTH).enumerate().filter(|(l, _)| lanes >> l & 1 == 1);
            for (_, runner) in lanes.filter(|(_, runner)| !runner.out) {
                runner.owed += u64::from(search.r[row as usize]);
                runner.open.add(row, search.tree.len());
            }
        }
    }
}

/// Adds the open rows of each candidate, unless it falls below the floor.
fn finish(runners: &mut [Runner], x: &Packed, search: &Search, ranks: &Ranks, ties: Ties, floor: i128) {
    let tree = &search.tree;
    let running = |runner: &Runner| !runner.out && runner.open.count > 0;
    let few = |runner: &Runner| runner.open.count <= tree.len() / (FEW * tree.d());
    let extents = runners.par_chunks(WIDTH).enumerate().map(|(block, runners)| {
        let wanted = runners.iter().any(|runner| running(runner) && few(runner));
        wanted.then(|| Extents::new(tree, x.block(block)))
    });
    let extents: Vec<Option<Extents>> = extents.collect();
    let runners = runners.par_iter_mut().enumerate().filter(|(_, runner)| running(runner));
    runners.for_each_init(Order::default, |order, (at, runner)| {
        let value = |place: u32| x.at(place as usize, at);
        match extents[at / WIDTH].as_ref().filter(|_| few(runner)) {
            Some(extents) => runner.finish(floor, search, ranks, ties, |row, radius, visit| {
                let beside = Beside { x: value(row), extents, lane: at % WIDTH };
                tree.walk_beside(row as usize, Some(beside), radius, |other, distance| {
                    let apart = beside.x - value(other as u32);
                    visit(other as u32, distance + apart * apart)
                });
            }),
            None => {
                order.arrange(tree, value, x.is_f32(at));
                runner.finish(floor, search, ranks, ties, |row, radius, visit| {
                    order.walk(tree, row, value(row), radius, visit);
                });
            }
        }
    });
}

impl Runner {
    /// Adds the open rows, unless it falls below the floor. `walk(row, radius, visit)` calls `visit(other, distance)` at least
    /// for all others within the radius that are not infinitely far; the answer is the radius from then on.
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
        open.sort_unstable_by_key(|&row| Reverse((r[row as usize], row))); // what can lose most first
        for row in open {
            self.out = self.most(0) < floor;
            if self.out {
                break;
            }
            let own = r[row as usize];
            self.owed -= u64::from(own);
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

/// The rows in the order of a candidate, and their points, [`LEAF`] after [`LEAF`] side by side: where the candidate is wide, what
/// is near in it is near.
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

    /// As [`Runner::finish`] has it, from a row at `x`.
    fn walk(&self, tree: &Tree, row: u32, x: f64, mut radius: f64, visit: &mut dyn FnMut(u32, f64) -> f64) {
        self.sorted.walk(x, LEAF, |tile| {
            let (distances, within) = tree.to_tile(row, &self.tiles, tile, radius);
            for at in within {
                match self.sorted.at(tile * LEAF + at) {
                    Some((value, other)) if other != row => {
                        radius = visit(other, distances[at] + (x - value) * (x - value));
                    }
                    _ => {} // itself, or beyond the last
                }
            }
            radius
        });
    }
}

/// A candidate sorted within each group of rows that the chosen columns do not tell apart.
#[derive(Default)]
struct Grouped {
    keys: Vec<(u32, u64, u32)>,
    runs: Runs,
    x: Vec<f64>,       // by run
    start: Vec<usize>, // by group: its first run; and the number of runs
    tied: Vec<Range<usize>>,
}

impl Grouped {
    fn arrange(&mut self, value: impl Fn(usize) -> f64, group: &[u32], ranks: &Ranks) {
        let key = |(position, &row): (usize, &u32)| {
            (group[row as usize], sort_key(value(position)), position as u32)
        };
        self.keys.clear();
        self.keys.extend(ranks.order.iter().enumerate().map(key));
        self.keys.sort_unstable();
        self.runs.clear();
        self.x.clear();
        self.start.clear();
        let mut last = None;
        for &(group, key, position) in &self.keys {
            let row = ranks.order[position as usize];
            let begins = last != Some((group, key));
            if self.start.len() == group as usize {
                self.start.push(self.x.len());
            }
            if begins {
                self.x.push(value(position as usize));
            }
            self.runs.push(row, ranks.r[row as usize], begins);
            last = Some((group, key));
        }
        self.runs.close();
        self.start.push(self.x.len());
    }

    /// Adds what the rows of the group at a place contribute; `list` has other places.
    fn tally(
        &mut self,
        sum: &mut Sum,
        place: u32,
        list: &[Entry],
        lists: &Lists,
        tree: &Tree,
        ranks: &Ranks,
    ) {
        let at = |place: u32| tree.points()[place as usize] as usize;
        let group = at(place);
        for run in self.start[group]..self.start[group + 1] {
            let x = self.x[run];
            let mut best = if self.runs.size(run) > 1 { 0.0 } else { f64::INFINITY };
            self.tied.clear();
            self.beside(&mut best, group, x, Some(run), 0.0);
            for entry in list {
                if entry.least() > best {
                    break;
                }
                self.beside(&mut best, at(entry.j), x, None, tree.distance(place, entry.j));
            }
            if !lists.whole && list.last().is_some_and(|last| best >= last.least()) {
                self.tied.clear();
                self.beside(&mut best, group, x, Some(run), 0.0);
                tree.walk(place as usize, best, |place, distance| {
                    self.beside(&mut best, at(place as u32), x, None, distance);
                    best
                });
            }
            self.runs.tally(sum, run, &self.tied, ranks, Ties::Mean);
        }
    }

    /// Looks in one group for runs that come as near to `x` as `best` or nearer; `own` is not looked at.
    fn beside(&mut self, best: &mut f64, group: usize, x: f64, own: Option<usize>, distance: f64) {
        let Range { start, end } = self.start[group]..self.start[group + 1];
        let (below, above) = match own {
            Some(own) => (own, own + 1),
            None => {
                let at = start + self.x[start..end].partition_point(|&other| other < x);
                (at, at)
            }
        };
        let total = |other: f64| distance + (x - other) * (x - other);
        let mut nearest = f64::INFINITY;
        if below > start {
            nearest = total(self.x[below - 1]);
        }
        if above < end {
            nearest = nearest.min(total(self.x[above]));
        }
        if nearest > *best {
            return;
        }
        if nearest < *best {
            *best = nearest;
            self.tied.clear();
        }
        let mut low = below;
        while low > start && total(self.x[low - 1]) == nearest {
            low -= 1;
        }
        let mut high = above;
        while high < end && total(self.x[high]) == nearest {
            high += 1;
        }
        self.tied.extend([low..below, above..high].into_iter().filter(|t| !t.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::columns::Matrix;
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
    fn a_step_is_one_search_after_another_and_a_race_has_the_same_winner() {
        let n = 300;
        let columns = columns(n);
        let values = columns.concat();
        let narrow: Vec<f64> =
            values.iter().map(|&v| f64::from((v as f32).clamp(f32::MIN, f32::MAX))).collect();
        let matrix = |values| Matrix::columns_f64(values, n, columns.len()).unwrap();
        let packed = |values, rows: &[u32]| Packed::new(matrix(values), rows.to_vec());
        let y: Vec<f64> =
            (0..n).map(|i| (3.0 * columns[0][i] * columns[8][i]).round() + columns[2][i]).collect();
        let (mut open, mut fell) = (0, 0);
        for order in [[0, 8, 9], [1, 2, 0], [1, 8, 9], [4, 3, 1], [6, 10, 2], [5, 0, 11], [2, 3, 4]] {
            for ties in [Ties::Mean, Ties::First, Ties::Random { seed: 1, draws: 2 }] {
                let ranks = Ranks::new(&y, ties).unwrap();
                let (wide, narrow) = (packed(&values, &ranks.order), packed(&narrow, &ranks.order));
                assert!((0..columns.len()).all(|j| narrow.is_f32(j)) && !wide.is_f32(5));
                let mut space = Space::new(n);
                for j in order {
                    space.add(columns[j].clone());
                    for x in [&wide, &narrow] {
                        let watch = Watch::default();
                        let expected = space.step(x, &ranks, ties, None, &watch);
                        let direct = |at: usize| {
                            let candidate = x.of().column(at);
                            sum(&[&space.columns[..], &[candidate]].concat(), &ranks, ties)
                        };
                        assert!((0..x.p()).all(|at| direct(at) == expected[at]), "{order:?} {j} {ties:?}");
                        let best = expected.iter().map(|sum| sum.rounded()).max().unwrap();
                        for beaten in [i128::MIN, best - 1] {
                            let race = Race { candidates: &vec![true; x.p()], beaten };
                            let found = space.step_by_row(x, &ranks, ties, Some(&race), &watch);
                            let winner = |sums: &[Sum]| {
                                (0..x.p())
                                    .min_by_key(|&at| (-sums[at].rounded(), at))
                                    .map(|at| (at, sums[at]))
                            };
                            assert!(winner(&found) == winner(&expected), "{order:?} {j} {ties:?}");
                            let zero = found.iter().filter(|sum| **sum == Sum::default()).count();
                            assert!((0..x.p()).all(|at| [expected[at], Sum::default()].contains(&found[at])));
                            fell += zero;
                        }
                    }
                    let search = space.search(0..n as u32, 0, SHORT, &ranks);
                    open += usize::from(search.len < n - 1);
                }
            }
        }
        assert!(open > 20 && fell > 100, "{open} {fell}");
    }
}
