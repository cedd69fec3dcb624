//! What single instructions give, by plain arithmetic.

/// x rounded to 10 mantissa bits, ties away from zero.
pub fn tf32(x: f32) -> f64 {
    if x == 0.0 {
        return 0.0;
    }
    let unit = 2f64.powi(f64::from(x).abs().log2().floor() as i32 - 10);
    (f64::from(x) / unit).round() * unit // `round` takes ties away from zero
}

/// d + a bᵀ; d `[16, 8]`, a `[16, k]`, b `[8, k]`.
pub fn mma(d: &[f32], a: &[f64], b: &[f64]) -> Vec<f32> {
    let k = b.len() / 8;
    let sum = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum::<f64>();
    (0..128).map(|at| (f64::from(d[at]) + sum(at / 8, at % 8)) as f32).collect()
}

/// For each lane: words of the four matrices of 8 × 8 halves as they are, then transposed.
pub fn ldmatrix(words: &[u32]) -> Vec<u32> {
    let half = |matrix: usize, row: usize, column: usize| {
        words[matrix * 32 + row * 4 + column / 2] >> (16 * (column % 2)) & 0xffff
    };
    let mut out = vec![];
    for lane in 0..32 {
        let (row, column) = (lane / 4, 2 * (lane % 4));
        out.extend((0..4).map(|m| half(m, row, column) | half(m, row, column + 1) << 16));
        out.extend((0..4).map(|m| half(m, column, row) | half(m, column + 1, row) << 16));
    }
    out
}
