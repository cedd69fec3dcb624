//! A column in ascending order. For one column alone it gives A directly, since the nearest rows are adjacent. Beside the
//! chosen columns it is the second way to find neighbours: a row far out in the column has few others near in it, even
//! where many are near in the rest.

use multiversion::multiversion;

use super::options::Ties;
use super::ranks::{Ranks, Sum, sort_key};
use super::runs::{Runs, drawn};

/// A column in ascending order, with scratch memory.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    values: Vec<f64>,
    rows: Vec<u32>,
    ranks: Vec<u32>,
    narrow: [Vec<(u32, u32)>; 2], // keys and rows
    wide: [Vec<(u64, u32)>; 2],
    starts: Vec<u32>,
    runs: Runs,
    distinct: Vec<f64>, // values by run
}

/// From this many equal values on a run is long.
const FEW: usize = 8;
/// Rows that are handled side by side, and values on each side of a row that decide whether it has a single nearest one.
const SOME: usize = 32;
const BESIDE: usize = 2;

impl Sorted {
    /// Bytes per row.
    pub const BYTES: usize = size_of::<f64>() + 2 * size_of::<u32>() + 2 * size_of::<(u64, u32)>();

    /// Sorts values with their rows; equal ones keep their order. `narrow`: every value is an f32.
    pub fn sort(&mut self, column: impl Iterator<Item = (f64, u32)>, narrow: bool) {
        self.rows.clear();
        self.values.clear();
        match narrow {
            true => {
                let [items, spare] = &mut self.narrow;
                items.clear();
                items.extend(column.map(|(value, row)| (narrow_key(value as f32), row)));
                sort_by_digits(items, spare, &mut self.starts, u32::BITS, |item| u64::from(item.0));
                self.rows.extend(items.iter().map(|item| item.1));
                self.values.extend(items.iter().map(|item| f64::from(narrow_value(item.0))));
            }
            false => {
                let [items, spare] = &mut self.wide;
                items.clear();
                items.extend(column.map(|(value, row)| (sort_key(value), row)));
                sort_by_digits(items, spare, &mut self.starts, u64::BITS, |item| item.0);
                self.rows.extend(items.iter().map(|item| item.1));
                self.values.extend(items.iter().map(|item| value_of(item.0)));
            }
        }
    }

    /// A of one column, whose rows come in the order of the ranks.
    pub fn sum(
        &mut self,
        column: impl Iterator<Item = (f64, u32)>,
        narrow: bool,
        ranks: &Ranks,
        ties: Ties,
    ) -> Sum {
        self.sort(column, narrow);
        match self.values.windows(FEW).all(|some| some[0] < some[FEW - 1]) {
            true => self.sum_by_row(ranks, ties),
            false => self.sum_by_run(ranks, ties),
        }
    }

    /// [`Sorted::sum`] where runs of equal values are short.
    fn sum_by_row(&mut self, ranks: &Ranks, ties: Ties) -> Sum {
        let mut sum = Sum::default();
        self.ranks.clear();
        self.ranks.extend(self.rows.iter().map(|&row| ranks.r[row as usize]));
        let n = self.rows.len();
        for start in (0..n).step_by(SOME) {
            let end = (start + SOME).min(n);
            match self.around(start, end).and_then(|(values, ranks)| sum_untied(values, ranks)) {
                Some(whole) => sum.add(whole, 1),
                None => (start..end).for_each(|own| self.add(&mut sum, own, ranks, ties)),
            }
        }
        sum
    }

    /// The values and ranks of these positions and of those beside them; none at the ends.
    fn around(&self, start: usize, end: usize) -> Option<(&Around<f64>, &Around<u32>)> {
        let range = start.checked_sub(BESIDE)?..end + BESIDE;
        Some((self.values.get(range.clone())?.try_into().ok()?, self.ranks.get(range)?.try_into().ok()?))
    }

    /// Adds the contribution of the row at a position.
    fn add(&self, sum: &mut Sum, own: usize, ranks: &Ranks, ties: Ties) {
        let (r, others) = (self.ranks[own], self.rows.len() - 1);
        let best = nearest_beside(&self.values, own);
        if best == f64::INFINITY && (ties == Ties::Mean || others == 1) {
            return sum.add(ranks.least_sum(r) - u64::from(r), others as u64);
        }
        let (low, high) = within(&self.values, own, best);
        if high - low == 2 || ties == Ties::Mean {
            let near = self.ranks[low..own].iter().chain(&self.ranks[own + 1..high]);
            sum.add(near.map(|&other| u64::from(other.min(r))).sum(), (high - low - 1) as u64);
        } else {
            let near = self.rows[low..own].iter().chain(&self.rows[own + 1..high]);
            let (s, c) = drawn(&mut near.copied().collect::<Vec<u32>>(), self.rows[own], ranks, ties);
            sum.add(s, c);
        }
    }

    fn sum_by_run(&mut self, ranks: &Ranks, ties: Ties) -> Sum {
        self.runs.clear();
        self.distinct.clear();
        for (&row, &value) in self.rows.iter().zip(&self.values) {
            let begins = self.distinct.last() != Some(&value);
            if begins {
                self.distinct.push(value);
            }
            self.runs.push(row, ranks.r[row as usize], begins);
        }
        self.runs.close();
        let mut sum = Sum::default();
        for own in 0..self.runs.len() {
            let best = match self.runs.size(own) {
                1 => nearest_beside(&self.distinct, own),
                _ => 0.0,
            };
            if best == f64::INFINITY {
                self.runs.tally(&mut sum, own, &self.runs.except(own), ranks, ties);
                continue;
            }
            let (low, high) = within(&self.distinct, own, best);
            self.runs.tally(&mut sum, own, &[low..own, own + 1..high], ranks, ties);
        }
        sum
    }

    /// The rows in ascending order of their values.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The value and the row at a position.
    #[inline]
    pub fn at(&self, position: usize) -> Option<(f64, u32)> {
        Some((*self.values.get(position)?, self.rows[position]))
    }

    /// Calls `visit(tile)` for tiles of `size` positions, outwards from `x`, while the squared distance of the next value is
    /// finite and within the radius; the answer is the radius from then on.
    #[inline]
    pub fn walk(&self, x: f64, size: usize, mut visit: impl FnMut(usize) -> f64) {
        let n = self.values.len();
        let square = |at: usize| self.values.get(at).map_or(f64::INFINITY, |value| (value - x) * (value - x));
        let own = self.values.partition_point(|&value| value < x).min(n - 1) / size;
        let mut radius = visit(own);
        let (mut low, mut high) = (own * size, (own + 1) * size); // positions from low to high have been visited
        loop {
            let (below, above) = (square(low.wrapping_sub(1)), square(high));
            let nearest = if below < above { below } else { above };
            if nearest > radius || nearest == f64::INFINITY {
                return;
            }
            if below < above {
                low -= size;
                radius = visit(low / size);
            } else {
                radius = visit(high / size);
                high += size;
            }
        }
    }
}

/// One value for each of [`SOME`] positions and those beside them.
type Around<T> = [T; SOME + 2 * BESIDE];

/// Σ min(R_i, R_j) over [`SOME`] rows where each has a single nearest one; none otherwise.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn sum_untied(values: &Around<f64>, ranks: &Around<u32>) -> Option<u64> {
    let (mut sum, mut tied) = (0, false);
    for own in BESIDE..BESIDE + SOME {
        let square = |other: usize| (values[other] - values[own]) * (values[other] - values[own]);
        let (below, above) = (square(own - 1), square(own + 1));
        let best = if below < above { below } else { above };
        tied |= (below == above) | (square(own - 2) <= best) | (square(own + 2) <= best);
        let near = if below < above { ranks[own - 1] } else { ranks[own + 1] };
        sum += u64::from(near.min(ranks[own]));
    }
    (!tied).then_some(sum)
}

/// The positions whose squared distance from that at `own` is at most `best`: the first, and one beyond the last.
#[inline]
fn within(sorted: &[f64], own: usize, best: f64) -> (usize, usize) {
    let square = |other: f64| (other - sorted[own]) * (other - sorted[own]);
    let mut low = own;
    while low > 0 && square(sorted[low - 1]) <= best {
        low -= 1;
    }
    let mut high = own + 1;
    while high < sorted.len() && square(sorted[high]) <= best {
        high += 1;
    }
    (low, high)
}

/// The squared distance from the value at `own` to the nearer of its two neighbours; infinite where it has none.
#[inline]
fn nearest_beside(sorted: &[f64], own: usize) -> f64 {
    let square = |other: &f64| (other - sorted[own]) * (other - sorted[own]);
    let before = own.checked_sub(1).and_then(|at| sorted.get(at)).map_or(f64::INFINITY, square);
    sorted.get(own + 1).map_or(f64::INFINITY, square).min(before)
}

/// [`sort_key`] of an f32.
fn narrow_key(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The value of a [`narrow_key`].
fn narrow_value(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

/// The value of a [`sort_key`].
fn value_of(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key ^ 1 << 63 } else { !key })
}

/// A stable radix sort by keys of `bits` bits, from the lowest digit on.
fn sort_by_digits<T: Copy>(
    items: &mut Vec<T>,
    spare: &mut Vec<T>,
    starts: &mut Vec<u32>,
    bits: u32,
    key: impl Fn(&T) -> u64,
) {
    match items.len() < 4096 {
        true => sort_by_digits_of::<T, { 1 << 8 }>(items, spare, starts, bits, key),
        false => sort_by_digits_of::<T, { 1 << 11 }>(items, spare, starts, bits, key),
    }
}

fn sort_by_digits_of<T: Copy, const DIGITS: usize>(
    items: &mut Vec<T>,
    spare: &mut Vec<T>,
    starts: &mut Vec<u32>,
    bits: u32,
    key: impl Fn(&T) -> u64,
) {
    let width = DIGITS.ilog2();
    let digit = |item: &T, pass: usize| (key(item) >> (pass as u32 * width)) as usize % DIGITS;
    starts.clear();
    starts.resize(bits.div_ceil(width) as usize * DIGITS, 0);
    let (passes, _) = starts.as_chunks_mut::<DIGITS>();
    for item in &*items {
        passes.iter_mut().enumerate().for_each(|(pass, counts)| counts[digit(item, pass)] += 1);
    }
    spare.clear();
    spare.extend_from_slice(items);
    for (pass, counts) in passes.iter_mut().enumerate() {
        if counts.contains(&(items.len() as u32)) {
            continue; // all have the same digit
        }
        let mut before = 0;
        for count in counts.iter_mut() {
            (*count, before) = (before, before + *count);
        }
        for item in &*items {
            let to = &mut counts[digit(item, pass)];
            spare[*to as usize] = *item;
            *to += 1;
        }
        std::mem::swap(items, spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::philox::{Stream, Use};

    #[test]
    fn columns_sort_as_by_comparison() {
        let mut stream = Stream::new(3, Use::Ties, 0);
        for n in [2, 3, 255, 1000, 5000] {
            let kinds: [Vec<f64>; 4] = [
                (0..n).map(|_| f64::from(stream.normal())).collect(),
                (0..n).map(|_| (3.0 * f64::from(stream.normal())).round()).collect(),
                (0..n).map(|i| if i % 2 == 0 { -0.0 } else { 0.0 }).collect(),
                (0..n).map(|i| f64::from(stream.normal()) * 10f64.powi(i % 60 - 30)).collect(),
            ];
            for column in &kinds {
                let rows: Vec<u32> = (0..n as u32).rev().collect();
                let narrow = column.iter().all(|&x| f64::from(x as f32) == x);
                for narrow in [false, narrow] {
                    let mut sorted = Sorted::default();
                    sorted.sort(rows.iter().map(|&row| (column[row as usize], row)), narrow);
                    let mut expected = rows.clone();
                    expected.sort_by_key(|&row| sort_key(column[row as usize]));
                    assert!(sorted.rows == expected);
                    assert!(expected.iter().zip(&sorted.values).all(|(&row, &x)| column[row as usize] == x));
                }
            }
        }
    }

    #[test]
    fn a_walk_goes_outwards_as_far_as_the_radius() {
        let values = [3.0, -1.0, 0.5, 0.0, 8.0, 0.5];
        let mut sorted = Sorted::default();
        sorted.sort(values.into_iter().zip(0..), true);
        assert_eq!(sorted.rows(), [1, 3, 2, 5, 0, 4]);
        let seen = |x: f64, size: usize, then: f64| {
            let mut seen = Vec::new();
            sorted.walk(x, size, |tile| {
                seen.push(tile);
                then
            });
            seen
        };
        assert_eq!(seen(0.5, 1, 6.25), [2, 3, 1, 0, 4]);
        assert_eq!(seen(0.0, 2, 10.0), [0, 1, 2]);
        assert_eq!(seen(9.0, 4, 100.0), [1, 0]);
        assert_eq!(seen(9.0, 4, 72.0), [1]);
        assert_eq!(seen(-1e200, 4, f64::INFINITY), [0]);
    }
}
