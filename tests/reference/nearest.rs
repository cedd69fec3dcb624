//! Nearest neighbours by trying all pairs.

/// For each of the columns `[p, n]` and each row: Σ min(R_i, R_j) over the others j nearest by the squared distance in
/// the `chosen` columns and this one, and how many they are; with `first` only the one of the lowest index.
pub fn nearest(columns: &[f64], chosen: &[&[f64]], rank: &[u32], first: bool) -> (Vec<u64>, Vec<u32>) {
    let n = rank.len();
    let (mut sums, mut counts) = (Vec::new(), Vec::new());
    for column in columns.chunks(n) {
        for i in 0..n {
            let distance = |j: usize| {
                let all = chosen.iter().chain(std::iter::once(&column));
                all.fold(0.0, |sum, x| sum + (x[i] - x[j]) * (x[i] - x[j]))
            };
            let others: Vec<usize> = (0..n).filter(|&j| j != i).collect();
            let best = others.iter().map(|&j| distance(j)).fold(f64::INFINITY, f64::min);
            let mut tied: Vec<usize> = others.into_iter().filter(|&j| distance(j) == best).collect();
            tied.truncate(if first { 1 } else { n });
            sums.push(tied.iter().map(|&j| u64::from(rank[i].min(rank[j]))).sum());
            counts.push(tied.len() as u32);
        }
    }
    (sums, counts)
}
