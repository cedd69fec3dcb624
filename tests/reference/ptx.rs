//! What single instructions give, by plain arithmetic.

/// x rounded to 10 mantissa bits, ties away from zero.
pub fn tf32(x: f32) -> f64 {
    if x == 0.0 {
        return 0.0;
    }
    let unit = 2f64.powi(f64::from(x).abs().log2().floor() as i32 - 10);
    (f64::from(x) / unit).round() * unit // `round` takes ties away from zero
}

/// x rounded to `bits` mantissa bits, ties to even, as a number of 16 bits whose exponents go from `least` to `most`.
fn narrow(x: f32, bits: i32, least: i32, most: i32) -> f64 {
    let wide = f64::from(x);
    if wide == 0.0 || !wide.is_finite() {
        return wide;
    }
    let unit = 2f64.powi((wide.abs().log2().floor() as i32).max(least) - bits);
    let near = (wide / unit).round_ties_even() * unit;
    if near.abs() >= 2f64.powi(most + 1) { f64::INFINITY.copysign(wide) } else { near }
}

/// x rounded to bf16.
pub fn bf16(x: f32) -> f64 {
    narrow(x, 7, -126, 127)
}

/// x rounded to f16.
pub fn f16(x: f32) -> f64 {
    narrow(x, 10, -14, 15)
}

/// A number of f16.
pub fn of_f16(bits: u32) -> f64 {
    let (exponent, mantissa) = ((bits >> 10 & 31) as i32, f64::from(bits & 1023));
    let size = match exponent {
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        0 => mantissa * 2f64.powi(-24),
        _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}

/// The bits of a number that f16 has; 0 of any other.
pub fn to_f16(x: f64) -> u32 {
    (0..1 << 16).find(|&bits| of_f16(bits).to_bits() == x.to_bits()).unwrap_or(0)
}

/// d + a bᵀ; d `[16, 8]`, a `[16, k]`, b `[8, k]`.
pub fn mma(d: &[f32], a: &[f64], b: &[f64]) -> Vec<f32> {
    let k = b.len() / 8;
    let sum = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum::<f64>();
    (0..128).map(|at| (f64::from(d[at]) + sum(at / 8, at % 8)) as f32).collect()
}

/// d + Σ a b as a tensor core rounds it: of each `terms` products and the sum before them, what lies more than `bits` bits
/// below the leading bit of the largest is cut off (a product's leading bit is the sum of its factors'), and so is what
/// f32 does not hold of the result.
pub fn truncated(d: f32, a: &[f64], b: &[f64], terms: usize, bits: i32) -> f32 {
    let leading = |x: f64| x.abs().log2().floor() as i32;
    let mut sum = f64::from(d);
    for (a, b) in a.chunks(terms).zip(b.chunks(terms)) {
        let products: Vec<(f64, i32)> = a
            .iter()
            .zip(b)
            .filter(|(a, b)| **a != 0.0 && **b != 0.0)
            .map(|(a, b)| (a * b, leading(*a) + leading(*b)))
            .chain((sum != 0.0).then(|| (sum, leading(sum))))
            .collect();
        let Some(top) = products.iter().map(|(_, leading)| *leading).max() else { continue };
        let total: i128 = products.iter().map(|(x, _)| (x * 2f64.powi(bits - top)).trunc() as i128).sum();
        let mut unit = 1;
        while total.abs() / unit >= 1 << 24 {
            unit *= 2;
        }
        sum = (total / unit * unit) as f64 * 2f64.powi(top - bits);
    }
    sum as f32
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
