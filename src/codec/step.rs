//! A greedy step of FOCI, as both devices take it (`cpu`, `cuda`): the same sums to the last bit.
//!
//! S is the set of columns that are given so far, in order. A of S and a candidate is Σ_i min(R_i, R_M(i)), M(i) the row
//! nearest to i in S and the candidate together (MATH.md, Eq. 1).

use std::cmp::Reverse;

use super::ranks::Sum;
use crate::error::Result;

/// What a device does in a selection. S is empty at first.
pub(super) trait Step {
    /// A of each column alone.
    fn first(&mut self) -> Result<Vec<Sum>>;

    /// Adds columns to S; distances are summed in this order.
    fn give(&mut self, columns: &[usize]) -> Result<()>;

    /// A of S, which is not empty, and each column.
    fn all(&mut self) -> Result<Vec<Sum>>;

    /// The largest A of S, which is not empty, and one of the `candidates`, which are columns: the candidate's place in
    /// the list, and A. Sums are compared as [`Sum::rounded`]; equal ones go to the first in the list. Where no A exceeds
    /// `bound`, the answer may be any candidate, with an A that does not. None where there are no candidates.
    fn best(&mut self, candidates: &[usize], bound: i128) -> Result<Option<(usize, Sum)>>;

    /// A of S and all columns of a group, for each group.
    fn together(&self, groups: &[&[usize]]) -> Result<Vec<Sum>>;
}

/// Of some `candidates` the one with the largest of `sums`: its place in the list, and its sum; equal ones go to the
/// first. None where there are no candidates.
pub(super) fn largest(candidates: &[usize], sums: &[Sum]) -> Option<(usize, Sum)> {
    let by_sum = |&(place, at): &(usize, &usize)| (Reverse(sums[*at].rounded()), place);
    candidates.iter().enumerate().min_by_key(by_sum).map(|(place, &at)| (place, sums[at]))
}

/// The rule for the length of a row's list of nearest others, with `columns` columns of S that vary: `times` the
/// others^(1/(|S| + 1)) that a search visits on average where points fill a cube; at least [`LEAST`], and no more than
/// there are. Each device has its own `times`.
pub(super) fn list_len(others: usize, columns: usize, times: f64) -> usize {
    let visited = (others as f64).powf(1.0 / (columns + 1) as f64);
    ((times * visited) as usize).max(LEAST).min(others)
}

/// A list is at least this long, where there are as many rows.
const LEAST: usize = 32;
