//! Ranks by counting.

/// R, L and the position in a stable sort, from 1, of each value.
pub fn rank(values: &[f64]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let count = |keep: &dyn Fn(usize, usize) -> bool| {
        (0..values.len())
            .map(|i| (0..values.len()).filter(|&j| keep(i, j)).count() as u32)
            .collect::<Vec<u32>>()
    };
    (
        count(&|i, j| values[j] <= values[i]),
        count(&|i, j| values[j] >= values[i]),
        count(&|i, j| values[j] < values[i] || values[j] == values[i] && j <= i),
    )
}
