//! The innermost loop of FOCI: of one row, the nearest others in the chosen columns and one more, for [`WIDTH`]
//! candidates at a time.
//!
//! A list has the others of a row with D_S, their distance in the chosen columns, so that the walk along it ends where
//! D_S alone exceeds the best of every lane. Values that are f32 are screened in f32 first, with half of the memory and
//! half of the instructions: where the second best is farther by more than rounding can explain, the best is the f64
//! one and alone. Other rows are left to the walk in f64, which counts all that are tied.

use multiversion::multiversion;

use super::columns::{Lanes, WIDTH};
use super::tree::Tree;

/// Counts and sums of tied rows share 64 bits, 24 for the count.
pub(super) const MAX_DENSE_ROWS: usize = 1 << 20;
pub(super) const COUNT: u64 = 1 << 40;

/// Another row in the list of row i.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub distance: f64, // D_S[i, j]
    pub j: u32,
    pub rank: u32, // min(R_i, R_j)
}

/// A distance in f32 is off by at most 4 · 2⁻²⁴ of itself (D_S, a difference twice, a square, a sum), between these.
const APART: f32 = 1.0 + 1.0 / (1 << 20) as f32;
const SMALLEST: f32 = 1e-30;
const LARGEST: f32 = 1e37;
/// After so many rows that are not clear, and more than half of all, the data are full of ties and the rest is left too.
const GIVE_UP: usize = 16;

/// For rows `first ..`, one per list: adds min(R_i, R_j) of the nearest j to `sums`, or puts the list's number into
/// `unclear` where that of some lane is in doubt in f32, or may lie beyond a list that is not `whole`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn screen(
    sums: &mut [u64; WIDTH],
    unclear: &mut Vec<usize>,
    x: &[Lanes<f32>],
    first: usize,
    lists: &[Entry],
    len: usize,
    head: usize,
    whole: bool,
) {
    for (at, list) in lists.chunks_exact(len).enumerate() {
        if unclear.len() > GIVE_UP.max(at / 2) {
            unclear.extend(at..lists.len() / len);
            return;
        }
        let mut nearest = Nearest::new(x[first + at]);
        follow(&mut nearest, x, list, head);
        let within = whole || list.last().is_some_and(|last| !nearest.reaches(last));
        match within && nearest.is_clear() {
            true => sums.iter_mut().zip(nearest.rank).for_each(|(sum, rank)| *sum += u64::from(rank)),
            false => unclear.push(at),
        }
    }
}

/// What the walk along a list keeps in each lane.
trait Walk<T> {
    /// Looks at an entry, the row `other`.
    fn visit(&mut self, entry: &Entry, other: &Lanes<T>);
    /// Whether an entry, or one after it, may still count in some lane.
    fn reaches(&self, entry: &Entry) -> bool;
}

/// Walks along a list as far as it counts: its sorted head four at a time, then part by part.
#[inline(always)]
fn follow<T>(walk: &mut impl Walk<T>, x: &[Lanes<T>], list: &[Entry], head: usize) {
    for few in list[..head].chunks(4) {
        if !walk.reaches(&few[0]) {
            return;
        }
        for entry in few {
            walk.visit(entry, &x[entry.j as usize]);
        }
    }
    let mut part = head..(2 * head).min(list.len());
    while !part.is_empty() && walk.reaches(&list[part.start]) {
        for entry in &list[part.clone()] {
            walk.visit(entry, &x[entry.j as usize]);
        }
        part = part.end..(2 * part.end).min(list.len());
    }
}

/// In f32: the least distance, the one after it, and min(R_i, R_j) of the row at the least.
struct Nearest {
    own: Lanes<f32>,
    least: Lanes<f32>,
    second: Lanes<f32>,
    rank: [u32; WIDTH],
}

impl Nearest {
    #[inline(always)]
    fn new(own: Lanes<f32>) -> Nearest {
        Nearest { own, least: [f32::INFINITY; WIDTH], second: [f32::INFINITY; WIDTH], rank: [0; WIDTH] }
    }

    /// Whether the nearest row of every lane is beyond doubt.
    #[inline(always)]
    fn is_clear(&self) -> bool {
        (0..WIDTH).fold(true, |all, l| {
            let (least, second) = (self.least[l], self.second[l]);
            all & (least > SMALLEST) & (least < LARGEST) & (second > APART * least)
        })
    }
}

impl Walk<f32> for Nearest {
    #[inline(always)]
    fn visit(&mut self, entry: &Entry, other: &Lanes<f32>) {
        let given = entry.distance as f32;
        for l in 0..WIDTH {
            let apart = self.own[l] - other[l];
            let distance = given + apart * apart;
            let beaten = if distance < self.least[l] { self.least[l] } else { distance };
            self.second[l] = if beaten < self.second[l] { beaten } else { self.second[l] };
            let kept = if distance < self.least[l] { 0 } else { self.rank[l] };
            self.rank[l] = kept + if distance < self.least[l] { entry.rank } else { 0 };
            self.least[l] = if distance < self.least[l] { distance } else { self.least[l] };
        }
    }

    #[inline(always)]
    fn reaches(&self, entry: &Entry) -> bool {
        let given = entry.distance as f32;
        self.least.iter().fold(false, |any, &least| any | (given <= APART * least))
    }
}

/// In f64: the least distance, and of the rows at it their number times [`COUNT`] plus Σ min(R_i, R_j).
struct Tied {
    own: Lanes,
    least: Lanes,
    found: [u64; WIDTH],
}

impl Walk<f64> for Tied {
    #[inline(always)]
    fn visit(&mut self, entry: &Entry, other: &Lanes) {
        let one = COUNT | u64::from(entry.rank);
        for l in 0..WIDTH {
            let apart = self.own[l] - other[l];
            let distance = entry.distance + apart * apart;
            let kept = if distance < self.least[l] { 0 } else { self.found[l] };
            self.found[l] = kept + if distance <= self.least[l] { one } else { 0 };
            self.least[l] = if distance < self.least[l] { distance } else { self.least[l] };
        }
    }

    #[inline(always)]
    fn reaches(&self, entry: &Entry) -> bool {
        self.least.iter().fold(false, |any, &least| any | (entry.distance <= least))
    }
}

/// For the lists at `chosen`, those of rows `first ..`: the smallest D_S[i, j] + (x_i − x_j)² in each lane, and of the j that reach it
/// their number times [`COUNT`] plus Σ min(R_i, R_j). Lists are as [`Space::lists`] makes them.
#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn scan(
    best: &mut Vec<Lanes>,
    tied: &mut Vec<[u64; WIDTH]>,
    chosen: &[usize],
    x: &[Lanes],
    first: usize,
    lists: &[Entry],
    len: usize,
    head: usize,
) {
    best.clear();
    tied.clear();
    for &at in chosen {
        let list = &lists[at * len..(at + 1) * len];
        let mut nearest = Tied { own: x[first + at], least: [f64::INFINITY; WIDTH], found: [0; WIDTH] };
        follow(&mut nearest, x, list, head);
        best.push(nearest.least);
        tied.push(nearest.found);
    }
}

/// [`scan`] for the row at place `own` and one list, wholly sorted.
#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn scan_one(best: &mut Lanes, tied: &mut [u64; WIDTH], x: &[Lanes], own: usize, list: &[Entry]) {
    let mut nearest = Tied { own: x[own], least: [f64::INFINITY; WIDTH], found: [0; WIDTH] };
    follow(&mut nearest, x, list, list.len());
    (*best, *tied) = (nearest.least, nearest.found);
}

/// The largest of the lanes.
pub(super) fn most(best: &Lanes) -> f64 {
    best.iter().copied().fold(0.0, f64::max)
}

/// [`scan`] for the row at place `own`, over the tree: what the list found bounds the walk, which starts over.
pub(super) fn walk(
    best: &mut Lanes,
    tied: &mut [u64; WIDTH],
    tree: &Tree,
    own: usize,
    x: &[Lanes],
    rank: &[u32],
) {
    let mut nearest = Tied { own: x[own], least: *best, found: [0; WIDTH] };
    tree.walk(own, most(best), |place, distance| {
        let entry = Entry { distance, j: place as u32, rank: rank[own].min(rank[place]) };
        nearest.visit(&entry, &x[place]);
        most(&nearest.least)
    });
    (*best, *tied) = (nearest.least, nearest.found);
}

/// The places that lie at exactly this distance in lane `l`.
pub(super) fn places_at(tree: &Tree, own: usize, x: &[Lanes], l: usize, best: f64) -> Vec<u32> {
    let mut found = Vec::new();
    tree.walk(own, best, |place, distance| {
        let apart = x[own][l] - x[place][l];
        if distance + apart * apart == best {
            found.push(place as u32);
        }
        best
    });
    found
}

/// The rows of a list that lie at exactly this distance in lane `l`.
pub(super) fn at_distance(list: &[Entry], x: &[Lanes], i: usize, l: usize, best: f64) -> Vec<u32> {
    let distance = |entry: &&Entry| {
        let apart = x[i][l] - x[entry.j as usize][l];
        entry.distance + apart * apart
    };
    list.iter().filter(|entry| distance(entry) == best).map(|entry| entry.j).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::{Stream, Use};

    /// Lists of all others, wholly sorted, by one chosen column.
    fn lists(given: &[f64]) -> Vec<Entry> {
        let n = given.len();
        let list = |i: usize| {
            let entry = |j: usize| Entry {
                distance: (given[i] - given[j]).powi(2),
                j: j as u32,
                rank: (i.min(j) + 1) as u32,
            };
            let mut list: Vec<Entry> = (0..n).filter(|&j| j != i).map(entry).collect();
            list.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.j.cmp(&b.j)));
            list
        };
        (0..n).flat_map(list).collect()
    }

    #[test]
    fn what_f32_calls_clear_is_what_f64_finds_alone() {
        let n = 300;
        let mut stream = Stream::new(1, Use::Ties, 0);
        let given: Vec<f64> = (0..n).map(|_| f64::from(stream.normal())).collect();
        let normal: Vec<Lanes<f32>> = (0..n).map(|_| std::array::from_fn(|_| stream.normal())).collect();
        let like = |make: &dyn Fn(usize, f32) -> f32| -> Vec<Lanes<f32>> {
            normal.iter().enumerate().map(|(i, row)| row.map(|x| make(i, x))).collect()
        };
        let twins: Vec<f64> = given.iter().map(|x| x.round()).collect();
        // values, the chosen column, and how many of the rows are clear, at least and at most
        let cases = [
            (like(&|_, x| x), &given, n - 1..=n),
            (like(&|i, x| if i % 10 == 0 { 1e30 * x } else { x }), &given, n / 2..=n - n / 10),
            (like(&|_, x| 1e-25 * x), &twins, 0..=0),
            (like(&|_, x| x.round()), &twins, 0..=0),
            (like(&|i, _| 1.0 + (i % 3) as f32 * f32::EPSILON), &given, 1..=n),
        ];
        for (x, given, expected) in cases {
            let (lists, len) = (lists(given), n - 1);
            let (mut sums, mut unclear) = ([0; WIDTH], vec![]);
            screen(&mut sums, &mut unclear, &x, 0, &lists, len, len, true);
            assert!(expected.contains(&(n - unclear.len())), "{} of {n} are unclear", unclear.len());
            let wide: Vec<Lanes> = x.iter().map(|row| row.map(f64::from)).collect();
            let clear: Vec<usize> = (0..n).filter(|at| !unclear.contains(at)).collect();
            let (mut best, mut tied) = (vec![], vec![]);
            scan(&mut best, &mut tied, &clear, &wide, 0, &lists, len, len);
            assert!(tied.iter().flatten().all(|tied| tied / COUNT == 1));
            let exact: [u64; WIDTH] = std::array::from_fn(|l| tied.iter().map(|tied| tied[l] % COUNT).sum());
            assert_eq!(sums, exact);
        }
    }
}
