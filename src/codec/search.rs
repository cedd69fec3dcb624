//! The lists of a step on the CPU: for each row the others that are nearest in the chosen columns, found in a k-d tree.

use rayon::prelude::*;

use super::boxes::LEAF;
use super::options::Ties;
use super::ranks::Ranks;
use super::runs::drawn;
use super::scan::{Entry, Lists};
use super::tree::Tree;
use super::watch::Watch;

/// The lists of a pass over rows (or groups) take no more than this, unless a single one does.
const LIST_BYTES: usize = 64 << 20;
/// Rows times candidates of a pass at most: between passes the watch is read and progress is reported.
const PASS: usize = 1 << 27;
/// Rows whose lists are read for one block of candidates after another, while they are in the cache.
pub(super) const TILE: usize = 32;

/// Points (rows, or one row of each group of identical rows) by their places in a tree, where near points are near in
/// memory.
pub(super) struct Search {
    pub tree: Tree,
    /// R by place, where points are rows.
    pub r: Vec<u32>,
    /// Entries of a list.
    pub len: usize,
}

/// How many lists of `len` entries are made at a time for `p` candidates and `n` rows.
pub(super) fn list_rows(len: usize, p: usize, n: usize) -> usize {
    let fit = LIST_BYTES / (len.max(1) * size_of::<Entry>());
    fit.min((PASS / p.max(1)).max(TILE)).clamp(1, n.max(1))
}

/// Bytes of the lists of a pass, and of what each thread needs to make those of a leaf.
pub(super) fn list_bytes(len: usize, p: usize, n: usize, threads: usize) -> usize {
    let lists = len.saturating_mul(size_of::<Entry>()).saturating_mul(list_rows(len, p, n));
    let leaf = len.saturating_mul(2 * LEAF * size_of::<(f64, u32)>());
    lists.saturating_add(threads.saturating_mul(leaf))
}

impl Search {
    /// Calls `work` with the lists of the `wanted` places (ascending), some of them at a time, for `p` candidates. `buffer`
    /// keeps its memory between calls.
    pub fn lists(
        &self,
        buffer: &mut Vec<Entry>,
        wanted: &[u32],
        p: usize,
        watch: &Watch,
        mut work: impl FnMut(Lists),
    ) {
        let &Search { ref tree, ref r, len } = self;
        let whole = len == tree.len() - 1;
        if len == 0 {
            return work(Lists { rows: wanted, entries: &[], len, whole });
        }
        let at_once = list_rows(len, p, wanted.len());
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
            leaves.into_par_iter().for_each_init(Vec::new, |scratch, (rows, lists)| {
                let near = tree.nearest(scratch, rows, len);
                for ((list, &row), near) in lists.chunks_exact_mut(len).zip(rows).zip(near) {
                    for (entry, &(distance, j)) in list.iter_mut().zip(near) {
                        *entry = Entry::new(distance, j, r[row as usize].min(r[j as usize]));
                    }
                }
            });
            work(Lists { rows, entries, len, whole });
            watch.advance(rows.len());
        }
    }

    /// [`drawn`], where rows are given by place.
    pub fn drawn(&self, tied: &mut [u32], place: u32, ranks: &Ranks, ties: Ties) -> (u64, u64) {
        let row = |place: u32| self.tree.points()[place as usize];
        tied.iter_mut().for_each(|place| *place = row(*place));
        drawn(tied, row(place), ranks, ties)
    }
}
