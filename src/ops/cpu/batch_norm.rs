//! Batch norm with the statistics of the batch (MATH.md, Eq. 10b). A batch is in chunks, each `[n, c]` over the positions
//! of its images: sums are taken of each chunk, in f64, and added by the caller in the order of the chunks.

/// Mean and (biased) variance per channel over `count` positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// `[c]`.
    pub mean: Vec<f64>,
    /// `[c]`.
    pub var: Vec<f64>,
    /// Positions of the whole batch.
    pub count: usize,
}

impl Moments {
    /// 1/σ of each channel.
    fn inverse(&self, eps: f32) -> Vec<f64> {
        self.var.iter().map(|var| 1.0 / (var + f64::from(eps)).sqrt()).collect()
    }
}

/// Σ x of each channel of one chunk.
pub fn sums(x: &[f32], c: usize) -> Vec<f64> {
    over(x, c, |_, x| x)
}

/// Σ (x − mean)² of each channel of one chunk.
pub fn squares(x: &[f32], mean: &[f64]) -> Vec<f64> {
    over(x, mean.len(), |c, x| (x - mean[c]) * (x - mean[c]))
}

fn over(x: &[f32], c: usize, f: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    assert!(x.len().is_multiple_of(c), "{} values of {c} channels", x.len());
    let mut sum = vec![0.0; c];
    for at in x.chunks_exact(c) {
        at.iter().enumerate().for_each(|(c, &x)| sum[c] += f(c, f64::from(x)));
    }
    sum
}

/// y = γ x̂ + β.
pub fn forward(y: &mut [f32], x: &[f32], moments: &Moments, gamma: &[f32], beta: &[f32], eps: f32) {
    let c = gamma.len();
    assert!(y.len() == x.len() && y.len().is_multiple_of(c), "{} values from {}", y.len(), x.len());
    let maps: Vec<(f32, f32, f32)> = (0..c)
        .map(|c| {
            let scale = f64::from(gamma[c]) / (moments.var[c] + f64::from(eps)).sqrt();
            (moments.mean[c] as f32, scale as f32, beta[c])
        })
        .collect();
    for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
        for ((y, x), (mean, scale, shift)) in y.iter_mut().zip(x).zip(&maps) {
            *y = (x - mean) * scale + shift;
        }
    }
}

/// Σ dy and Σ dy x̂ of each channel of one chunk, `[2, c]`.
pub fn backward_sums(dy: &[f32], x: &[f32], moments: &Moments, eps: f32) -> Vec<f64> {
    let (c, inverse) = (moments.mean.len(), moments.inverse(eps));
    assert!(dy.len() == x.len() && x.len().is_multiple_of(c), "{} values beside {}", dy.len(), x.len());
    let mut sum = vec![0.0; 2 * c];
    for (dy, x) in dy.chunks_exact(c).zip(x.chunks_exact(c)) {
        for i in 0..c {
            sum[i] += f64::from(dy[i]);
            sum[c + i] += f64::from(dy[i]) * ((f64::from(x[i]) - moments.mean[i]) * inverse[i]);
        }
    }
    sum
}

/// dx += γ/σ (dy − mean(dy) − x̂ mean(dy x̂)); `sums` `[2, c]` are those of the whole batch.
pub fn backward(
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    moments: &Moments,
    sums: &[f64],
    gamma: &[f32],
    eps: f32,
) {
    let (c, inverse, count) = (gamma.len(), moments.inverse(eps), moments.count as f64);
    assert!(dx.len() == dy.len() && dy.len() == x.len() && sums.len() == 2 * c, "{} values", dx.len());
    for ((dx, dy), x) in dx.chunks_exact_mut(c).zip(dy.chunks_exact(c)).zip(x.chunks_exact(c)) {
        for i in 0..c {
            let standard = (f64::from(x[i]) - moments.mean[i]) * inverse[i];
            let centred = f64::from(dy[i]) - (sums[i] + standard * sums[c + i]) / count;
            dx[i] += (f64::from(gamma[i]) * inverse[i] * centred) as f32;
        }
    }
}
