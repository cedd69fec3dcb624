//! The sums of ξ by their definitions, pair by pair.

/// Σ |R_{i+1} − R_i| along an order.
pub fn along(rank: &[u32], order: &[u32]) -> u64 {
    order.windows(2).map(|two| u64::from(rank[two[0] as usize].abs_diff(rank[two[1] as usize]))).sum()
}

/// Σ |a − b| over the pairs of each run, and over the pairs of one of it and one of the run before.
pub fn runs(ranks: &[u32], runs: &[u32]) -> Vec<(u128, u128)> {
    let run = |r: usize| &ranks[runs[r] as usize..runs[r + 1] as usize];
    let apart = |a: &[u32], b: &[u32]| -> u128 {
        a.iter().flat_map(|a| b.iter().map(move |b| u128::from(a.abs_diff(*b)))).sum()
    };
    let sums = |r: usize| (apart(run(r), run(r)) / 2, if r > 0 { apart(run(r - 1), run(r)) } else { 0 });
    (0..runs.len() - 1).map(sums).collect()
}
