//! Shapes and memory of a selection on CUDA: how many rows, columns and lists are handled at a time.

use crate::codec::memory::MemoryEstimate;
use crate::codec::step;
use crate::device::Cuda;
use crate::device::cuda::tiles;
use crate::error::Result;
use crate::ops::cuda::nearest::list_len;

/// Values of the columns of one launch, rounded up to whole warps of columns: 12 bytes of results each, 24 where they are
/// sorted.
const VALUES_AT_ONCE: usize = 1 << 24;
/// The distances of a panel take no more bytes than this, unless those of [`tiles::NEAREST_THREADS`] rows do.
const PANEL_BYTES: usize = 256 << 20;
/// Lists take no more bytes than this, unless a single one does.
pub(super) const LIST_BYTES: usize = 256 << 20;
/// Columns from which on steps may be pruned: the lanes of a warp.
pub(super) const FULL: usize = 32;
/// Lists have [`step::list_len`] of this many times.
const TIMES: f64 = 8.0;

/// Rows whose distances are made at a time; n where all distances are kept.
pub(super) fn panel_rows(cuda: &Cuda, n: usize, p: usize) -> Result<usize> {
    let free = cuda.free()?.saturating_sub(bytes(n, p));
    let each = n.saturating_mul(size_of::<f64>());
    if each.saturating_mul(n) <= free / 2 {
        return Ok(n);
    }
    let tile = tiles::NEAREST_THREADS as usize;
    Ok((PANEL_BYTES / each / tile).max(1).saturating_mul(tile).min(n))
}

/// The length of the lists of a pruned step, with k of p columns chosen in n rows; none where the step is dense.
pub(super) fn pruned_len(n: usize, p: usize, k: usize) -> Option<u32> {
    let len = list_len(step::list_len(n, k, TIMES));
    (p >= FULL && k > 0 && 2 * len as usize <= n).then_some(len)
}

/// How many lists of this length fit in `bytes`, one at least.
pub(super) fn list_rows(bytes: usize, len: u32) -> usize {
    (bytes / (size_of::<u64>() * len as usize)).max(1)
}

/// The longest list of a selection; 0 where no step is pruned.
fn longest(n: usize, p: usize) -> u32 {
    (1..=p.min(64)).filter_map(|k| pruned_len(n, p, k)).max().unwrap_or(0)
}

/// Columns of one launch.
pub(super) fn columns_at_once(n: usize, p: usize) -> usize {
    (VALUES_AT_ONCE / n.max(1)).max(1).next_multiple_of(FULL).min(p.max(1))
}

/// Bytes on the device without the distances.
fn bytes(n: usize, p: usize) -> usize {
    let at_once = columns_at_once(n, p);
    let value = size_of::<f64>() + size_of::<f32>(); // and rounded
    let columns = p.saturating_mul(n.saturating_mul(value).saturating_add(size_of::<f32>()));
    let results = n.saturating_mul(at_once).saturating_mul(size_of::<u64>() + size_of::<u32>());
    let sorted =
        n.next_power_of_two().saturating_mul(at_once).saturating_mul(size_of::<f64>() + size_of::<u32>());
    let rest = n.saturating_mul(size_of::<u32>()).saturating_add(p.saturating_mul(4 * size_of::<u64>()));
    let len = longest(n, p);
    let lists = n.min(list_rows(LIST_BYTES, len.max(1))).saturating_mul(len as usize * size_of::<u64>());
    [columns, results, sorted, rest, lists].iter().fold(0, |sum, &part| sum.saturating_add(part))
}

/// The device memory of a selection among `p` columns of `n` rows, and its method.
pub(in crate::codec) fn estimate(cuda: &Cuda, n: usize, p: usize) -> Result<MemoryEstimate> {
    let rows = panel_rows(cuda, n, p)?;
    let column = n.saturating_mul(size_of::<f64>());
    Ok(MemoryEstimate {
        bytes: bytes(n, p).saturating_add(column.saturating_mul(rows)),
        bytes_per_chosen: column,
        method: match (rows == n, longest(n, p) > 0) {
            (true, false) => "CUDA: distances of the chosen columns kept, n by n; all rows searched",
            (true, true) => {
                "CUDA: distances of the chosen columns kept, n by n; lists of the nearest rows searched"
            }
            (false, false) => {
                "CUDA: distances of the chosen columns made anew, a panel of rows at a time; all rows searched"
            }
            (false, true) => {
                "CUDA: distances of the chosen columns made anew, a panel of rows at a time; lists of the nearest rows searched"
            }
        },
    })
}

/// The device memory of A of `d` given columns, and its method.
pub(in crate::codec) fn sum_estimate(cuda: &Cuda, n: usize, d: usize) -> Result<MemoryEstimate> {
    let one = estimate(cuda, n, 1)?;
    let bytes = one.bytes.saturating_add(one.bytes_per_chosen.saturating_mul(d));
    Ok(MemoryEstimate { bytes, bytes_per_chosen: 0, ..one })
}

#[cfg(all(test, feature = "emu"))]
mod tests {
    use super::*;

    #[test]
    fn steps_are_pruned_where_lists_are_short_and_shared() {
        assert_eq!(pruned_len(1000, FULL, 1), Some(256));
        assert_eq!(pruned_len(1000, FULL - 1, 1), None);
        assert_eq!(pruned_len(1000, FULL, 0), None);
        assert_eq!(pruned_len(511, FULL, 1), None);
        assert_eq!(pruned_len(200, FULL, 3), Some(32));
        assert_eq!(pruned_len(1 << 20, FULL, 1), Some(tiles::LIST_MOST));
        let cuda = Cuda::emulated_with(0, 1 << 30, 1 << 30);
        let estimate = |n, p| estimate(&cuda, n, p).unwrap();
        let dense = estimate(1000, 31);
        assert!(dense.method.contains("all rows") && estimate(1000, 32).method.contains("lists"));
        let column = 1000 * (size_of::<f64>() + size_of::<f32>());
        assert!(estimate(1000, 32).bytes > dense.bytes + column + 1000 * 256 * size_of::<u64>());
    }
}
