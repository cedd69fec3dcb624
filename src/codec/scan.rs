//! The innermost loop of FOCI: of one row, the nearest others in the chosen columns and one more, for [`WIDTH`]
//! candidates at a time.
//!
//! A list holds the others of a row by D_S, their distance in the chosen columns, so that the search along it ends where
//! D_S alone exceeds the best of a lane. Columns are screened in f32, with half of the memory and half of the
//! instructions: where the second best is farther by more than rounding can explain, the best is the f64 one, and the
//! only one. Lanes advance side by side until few are left, which continue alone. Rows that are not clear are left to the
//! search in f64, which counts all ties; lanes whose best may lie beyond the list are reported as open (`pruning`).
//!
//! How far rounding can go: let u = 2⁻²⁴, e the greatest f32 error in a column, d a distance and d' its f32. A list's D_S has
//! the relative error 2u, a difference the errors 2e and u, its square and the sum u each, so that
//!
//! ```text
//! (d − 4e√d) (1 − 5u)  ≤  d'  ≤  (d + 4e√d + 4e²) (1 + 5u)
//! ```
//!
//! Let d' be the least. Any with d'' − d' > 2⁻¹⁹ d'' + 12 e √d'' + 80 e² is farther than d (√d ≥ 8e gives d ≤ 2.1 d''), and
//! d ≤ (d' + 2²³ e²) (1 + 2⁻¹⁹), as 4e√d ≤ 2⁻²⁰ d + 2²² e².

use std::ops::Range;

use multiversion::multiversion;

use super::columns::{Lanes, WIDTH};

/// The most rows of a step after the first: the count and the sum of tied rows share 64 bits.
pub(super) const MAX_DENSE_ROWS: usize = 1 << 20;
/// One row in such a count, which has the upper 24 bits.
pub(super) const COUNT: u64 = 1 << 40;

/// An entry in the list of row i: another row.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    given: f32, // D_S[i, j], rounded down
    pub j: u32,
    rank: u32, // min(R_i, R_j)
}

impl Entry {
    /// The row j at this distance; `rank` is min(R_i, R_j).
    pub fn new(distance: f64, j: u32, rank: u32) -> Entry {
        let given = distance as f32;
        Entry { given: if f64::from(given) > distance { given.next_down() } else { given }, j, rank }
    }

    /// A lower bound of D_S.
    pub fn least(&self) -> f64 {
        f64::from(self.given)
    }
}

/// The lists of some rows, each of `len` entries.
#[derive(Clone, Copy)]
pub(super) struct Lists<'a> {
    pub rows: &'a [u32],
    pub entries: &'a [Entry],
    pub len: usize,
    /// Whether a list holds all other rows.
    pub whole: bool,
}

impl<'a> Lists<'a> {
    /// The list of row number `at` of `rows`.
    pub fn list(&self, at: usize) -> &'a [Entry] {
        &self.entries[at * self.len..(at + 1) * self.len]
    }

    /// The lists of some of the rows.
    pub fn some(self, range: Range<usize>) -> Lists<'a> {
        let entries = &self.entries[range.start * self.len..range.end * self.len];
        Lists { rows: &self.rows[range], entries, ..self }
    }
}

/// A row with the lanes (a bit each) whose nearest row may lie beyond the list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub row: u32,
    pub lanes: u16,
}

/// Distances outside this range are not clear: there f32 has fewer digits.
const SMALLEST: f32 = 1e-30;
const LARGEST: f32 = 1e37;
/// After this many rows that are not clear, and more than half of all, the data have many ties: the remaining rows are left
/// to f64 too.
const GIVE_UP: usize = 16;
/// At most this many lanes continue alone.
const FEW: u32 = 2;
/// Entries that are visited between two checks of whether the next can count; and between two counts of the lanes in which it
/// can.
const STRIDE: usize = 4;
const STRETCH: usize = 32;

/// For each list: adds min(R_i, R_j) of the nearest j to `sums`, and appends the lanes whose nearest row may lie beyond the
/// list to `open`. Where f32 leaves some lane in doubt it only appends the list's number, counted from `first`, to
/// `unclear`. `error` is e of each lane.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn screen(
    sums: &mut [u64; WIDTH],
    open: &mut Vec<Open>,
    unclear: &mut Vec<usize>,
    (x, error): (&[Lanes<f32>], &Lanes<f32>),
    lists: &Lists,
    first: usize,
) {
    let exact = error.iter().all(|&error| error == 0.0);
    for (at, &row) in lists.rows.iter().enumerate() {
        if unclear.len() > GIVE_UP.max((first + at) / 2) {
            unclear.extend(first + at..first + lists.rows.len());
            return;
        }
        let list = lists.list(at);
        let mut nearest = Nearest::new(x[row as usize], error);
        let mut rest = list;
        'side_by_side: while !rest.is_empty() {
            let (some, after) = rest.split_at(rest.len().min(STRETCH));
            for some in some.chunks(STRIDE) {
                if !nearest.reaches(&some[0]) {
                    break 'side_by_side;
                }
                some.iter().for_each(|entry| nearest.visit(entry, &x[entry.j as usize]));
            }
            rest = after;
            let mut lanes = rest.first().map_or(0, |entry| nearest.reaching(entry));
            if lanes.count_ones() <= FEW {
                while lanes != 0 {
                    nearest.alone(lanes.trailing_zeros() as usize, x, rest);
                    lanes &= lanes - 1;
                }
                break;
            }
        }
        let mut beyond = [false; WIDTH];
        if let Some(last) = list.last().filter(|_| !lists.whole) {
            beyond = std::array::from_fn(|l| last.given <= nearest.limit(l));
        }
        let is_clear = match exact {
            true => nearest.is_clear(&beyond, |_, second| second / (1 << 19) as f32),
            false => nearest.is_clear(&beyond, |l, second| {
                second / (1 << 19) as f32 + 12.0 * error[l] * second.sqrt() + 80.0 * error[l] * error[l]
            }),
        };
        if !is_clear {
            unclear.push(first + at);
            continue;
        }
        for l in 0..WIDTH {
            sums[l] += if beyond[l] { 0 } else { u64::from(nearest.rank[l]) };
        }
        if beyond.contains(&true) {
            open.push(Open { row, lanes: bits(beyond) });
        }
    }
}

/// In f32: the least distance, min(R_i, R_j) of the row at it, and the distance after it.
struct Nearest {
    own: Lanes<f32>,
    least: Lanes<f32>,
    second: Lanes<f32>,
    rank: [u32; WIDTH],
    margin: Lanes<f32>, // 2²³ e²
}

impl Nearest {
    #[inline(always)]
    fn new(own: Lanes<f32>, error: &Lanes<f32>) -> Nearest {
        Nearest {
            own,
            least: [f32::INFINITY; WIDTH],
            second: [f32::INFINITY; WIDTH],
            rank: [0; WIDTH],
            margin: std::array::from_fn(|l| (1 << 23) as f32 * error[l] * error[l]),
        }
    }

    /// Looks at an entry, the row `other`.
    #[inline(always)]
    fn visit(&mut self, entry: &Entry, other: &Lanes<f32>) {
        for l in 0..WIDTH {
            let difference = self.own[l] - other[l];
            let distance = entry.given + difference * difference;
            let loser = if distance < self.least[l] { self.least[l] } else { distance };
            self.second[l] = if loser < self.second[l] { loser } else { self.second[l] };
            let kept = if distance < self.least[l] { 0 } else { self.rank[l] };
            self.rank[l] = kept + if distance < self.least[l] { entry.rank } else { 0 };
            self.least[l] = if distance < self.least[l] { distance } else { self.least[l] };
        }
    }

    /// A row can count only where D_S, rounded down, does not exceed this.
    #[inline(always)]
    fn limit(&self, l: usize) -> f32 {
        const WIDER: f32 = 1.0 + 1.0 / (1 << 19) as f32;
        WIDER * (self.least[l] + self.margin[l])
    }

    /// Whether an entry or a later one can still count in some lane.
    #[inline(always)]
    fn reaches(&self, entry: &Entry) -> bool {
        (0..WIDTH).fold(false, |any, l| any | (entry.given <= self.limit(l)))
    }

    /// The lanes in which an entry or a later one can still count, a bit each.
    #[inline(always)]
    fn reaching(&self, entry: &Entry) -> u32 {
        (0..WIDTH).fold(0, |lanes, l| lanes | u32::from(entry.given <= self.limit(l)) << l)
    }

    /// Continues with one lane alone.
    #[inline(always)]
    fn alone(&mut self, l: usize, x: &[Lanes<f32>], list: &[Entry]) {
        let own = self.own[l];
        let (mut least, mut second, mut rank) = (self.least[l], self.second[l], self.rank[l]);
        for some in list.chunks(STRIDE) {
            if some[0].given > self.limit(l) {
                return;
            }
            for entry in some {
                let difference = own - x[entry.j as usize][l];
                let distance = entry.given + difference * difference;
                let loser = if distance < least { least } else { distance };
                second = if loser < second { loser } else { second };
                rank = if distance < least { entry.rank } else { rank };
                least = if distance < least { distance } else { least };
            }
            (self.least[l], self.second[l], self.rank[l]) = (least, second, rank);
        }
    }

    /// Whether, in every lane whose nearest row does not lie `beyond` the list, the second distance exceeds the least by
    /// more than the `doubt`.
    #[inline(always)]
    fn is_clear(&self, beyond: &[bool; WIDTH], doubt: impl Fn(usize, f32) -> f32) -> bool {
        (0..WIDTH).fold(true, |all, l| {
            let (least, second) = (self.least[l], self.second[l]);
            all & (beyond[l] | ((least > SMALLEST) & (least < LARGEST) & (second - least > doubt(l, second))))
        })
    }
}

/// The lanes as bits.
pub(super) fn bits(lanes: [bool; WIDTH]) -> u16 {
    (0..WIDTH).fold(0, |bits, l| bits | u16::from(lanes[l]) << l)
}

/// In f64: the least distance, and for the rows at that distance their number times [`COUNT`] plus Σ min(R_i, R_j).
#[derive(Clone, Copy)]
pub(super) struct Tied {
    pub least: Lanes,
    pub found: [u64; WIDTH],
}

/// Of row i with the values `own`: the least D_S[i, j] + (x_i − x_j)² in each lane, and the rows that attain it. `distances` are
/// D_S of the list.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn scan(own: &Lanes, x: &[Lanes], list: &[Entry], distances: &[f64]) -> Tied {
    let mut tied = Tied { least: [f64::INFINITY; WIDTH], found: [0; WIDTH] };
    for (some, distances) in list.chunks(STRIDE).zip(distances.chunks(STRIDE)) {
        if !tied.least.iter().fold(false, |any, &least| any | (distances[0] <= least)) {
            break;
        }
        for (entry, given) in some.iter().zip(distances) {
            let other = &x[entry.j as usize];
            let one = COUNT | u64::from(entry.rank);
            for l in 0..WIDTH {
                let difference = own[l] - other[l];
                let distance = given + difference * difference;
                let kept = if distance < tied.least[l] { 0 } else { tied.found[l] };
                tied.found[l] = kept + if distance <= tied.least[l] { one } else { 0 };
                tied.least[l] = if distance < tied.least[l] { distance } else { tied.least[l] };
            }
        }
    }
    tied
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::{Stream, Use};

    /// Lists of all others by one chosen column, and their distances.
    fn lists(given: &[f64]) -> (Vec<Entry>, Vec<f64>) {
        let n = given.len();
        let list = |i: usize| {
            let difference = |j: usize| (given[i] - given[j]) * (given[i] - given[j]);
            let mut list: Vec<(f64, usize)> =
                (0..n).filter(|&j| j != i).map(|j| (difference(j), j)).collect();
            list.sort_by(|a, b| a.0.total_cmp(&b.0));
            list
        };
        let all: Vec<(f64, usize)> = (0..n).flat_map(list).collect();
        let rank = |at: usize, j: usize| (at / (n - 1)).min(j) as u32 + 1;
        let entry = |(at, &(d, j)): (usize, &(f64, usize))| Entry::new(d, j as u32, rank(at, j));
        (all.iter().enumerate().map(entry).collect(), all.iter().map(|&(d, _)| d).collect())
    }

    #[test]
    fn what_f32_calls_clear_is_what_f64_finds_alone() {
        let n = 300;
        let mut stream = Stream::new(1, Use::Ties, 0);
        let given: Vec<f64> = (0..n).map(|_| f64::from(stream.normal())).collect();
        let normal: Vec<Lanes> =
            (0..n).map(|_| std::array::from_fn(|_| f64::from(stream.normal()))).collect();
        let like = |make: &dyn Fn(usize, f64) -> f64| -> Vec<Lanes> {
            normal.iter().enumerate().map(|(i, row)| row.map(|x| make(i, x))).collect()
        };
        let twins: Vec<f64> = given.iter().map(|x| x.round()).collect();
        // values, the chosen column, and how many of the rows are clear, at least and at most
        let cases = [
            (like(&|_, x| x), &given, n - 1..=n),
            (like(&|_, x| x + x / 3.0 * 1e-3), &given, n - 9..=n),
            (like(&|_, x| 100.0 + x / 3.0), &given, n / 2..=n),
            (like(&|_, x| 1e4 + x / 3.0), &given, 0..=n / 10),
            (like(&|_, x| 1e9 + x), &given, 0..=0),
            (
                like(&|i, x| if i % 10 == 0 { f64::from(1e30 * x as f32) } else { x }),
                &given,
                n / 2..=n - n / 10,
            ),
            (like(&|i, x| if i % 10 == 0 { 1e30 * x } else { x }), &given, 0..=0),
            (like(&|_, x| 1e-25 * x), &twins, 0..=0),
            (like(&|_, x| x.round()), &twins, 0..=0),
            (like(&|i, _| 1.0 + (i % 3) as f64 * f64::from(f32::EPSILON)), &given, 1..=n),
        ];
        for (case, (x, given, expected)) in cases.into_iter().enumerate() {
            let (entries, distances) = lists(given);
            let rows: Vec<u32> = (0..n as u32).collect();
            let narrow: Vec<Lanes<f32>> = x.iter().map(|row| row.map(|x| x as f32)).collect();
            let mut error = [0.0_f32; WIDTH];
            for (x, narrow) in x.iter().zip(&narrow) {
                for l in 0..WIDTH {
                    let found = (x[l] - f64::from(narrow[l])).abs();
                    error[l] = error[l].max(if found > 0.0 { (found as f32).next_up() } else { 0.0 });
                }
            }
            for len in [n - 1, 40] {
                let some = |all: &[f64]| -> Vec<f64> {
                    all.chunks(n - 1).flat_map(|list| list[..len].to_vec()).collect()
                };
                let distances = some(&distances);
                let entries: Vec<Entry> =
                    entries.chunks(n - 1).flat_map(|list| list[..len].to_vec()).collect();
                let lists = Lists { rows: &rows, entries: &entries, len, whole: len == n - 1 };
                let (mut sums, mut open, mut unclear) = ([0; WIDTH], vec![], vec![]);
                screen(&mut sums, &mut open, &mut unclear, (&narrow, &error), &lists, 0);
                let clear = n - unclear.len();
                assert!(!lists.whole || expected.contains(&clear), "case {case}: {clear} of {n} are clear");
                assert!(open.is_empty() || !lists.whole);
                let mut exact = [0; WIDTH];
                for at in (0..n).filter(|at| !unclear.contains(at)) {
                    let distances = &distances[at * len..(at + 1) * len];
                    let tied = scan(&x[at], &x, lists.list(at), distances);
                    for l in 0..WIDTH {
                        if !open.iter().any(|open| open.row == at as u32 && open.lanes >> l & 1 == 1) {
                            assert!(tied.found[l] / COUNT == 1, "case {case}");
                            assert!(lists.whole || tied.least[l] < distances[len - 1], "case {case}");
                            exact[l] += tied.found[l] % COUNT;
                        }
                    }
                }
                assert_eq!(sums, exact, "case {case}");
            }
        }
    }
}
