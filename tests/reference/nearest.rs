//! Nearest neighbours by trying all pairs.

use scrubjay::ops::cuda::nearest::Tied;
use scrubjay::ops::philox::{Use, philox};

/// For each of the columns `[p, n]` and each row: Σ min(R_i, R_j) over the others j nearest by the squared distance in
/// the `chosen` columns and this one, and how many they are: all, the one of the lowest index, or those drawn.
pub fn nearest(columns: &[f64], chosen: &[&[f64]], rank: &[u32], ties: Tied) -> (Vec<u64>, Vec<u32>) {
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
            match ties {
                Tied::Random { seed, draws } if tied.len() > 1 => {
                    let draw = |draw| {
                        let word =
                            philox([i as u32, draw, 0, Use::Ties as u32], [seed as u32, (seed >> 32) as u32]);
                        let uniform = u128::from(word[0]) << 32 | u128::from(word[1]);
                        tied[((uniform * tied.len() as u128) >> 64) as usize]
                    };
                    tied = (0..draws).map(draw).collect();
                }
                Tied::First => tied.truncate(1),
                _ => (),
            }
            sums.push(tied.iter().map(|&j| u64::from(rank[i].min(rank[j]))).sum());
            counts.push(tied.len() as u32);
        }
    }
    (sums, counts)
}
