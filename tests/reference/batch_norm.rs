//! The oracle of batch norm with the statistics of the batch: plain loops over `[n, c]`, generic over the number.

use super::dual::Number;
use super::layers;

/// What a batch gives.
pub struct Norm<T> {
    /// x̂, `[n, c]`.
    pub hat: Vec<T>,
    /// 1 / √(var + eps), `[c]`.
    pub r: Vec<T>,
}

/// One channel of `[n, c]`.
pub fn channel<T: Number>(values: &[T], c: usize, i: usize) -> Vec<T> {
    values.iter().skip(i).step_by(c).copied().collect()
}

/// Mean and biased variance of one channel's values.
pub fn moments<T: Number>(x: &[T]) -> (T, T) {
    let count = T::of(x.len() as f64);
    let mean = x.iter().fold(T::of(0.0), |sum, &x| sum + x) / count;
    (mean, x.iter().fold(T::of(0.0), |sum, &x| sum + (x - mean) * (x - mean)) / count)
}

/// x̂ by channel.
pub fn normalise<T: Number>(x: &[T], c: usize, eps: f32) -> Norm<T> {
    let (mut hat, mut r) = (vec![T::of(0.0); x.len()], vec![T::of(0.0); c]);
    for i in 0..c {
        let (of_channel, one) = layers::normalise(&channel(x, c, i), eps);
        hat.iter_mut().skip(i).step_by(c).zip(of_channel).for_each(|(to, from)| *to = from);
        r[i] = one;
    }
    Norm { hat, r }
}

/// γ x̂ + β.
pub fn forward<T: Number>(x: &[T], gamma: &[T], beta: &[T], eps: f32) -> Vec<T> {
    let c = gamma.len();
    let hat = normalise(x, c, eps).hat;
    (0..x.len()).map(|at| gamma[at % c] * hat[at] + beta[at % c]).collect()
}

/// Σ dy and Σ dy x̂ of each channel, one behind the other.
pub fn sums<T: Number>(dy: &[T], x: &[T], c: usize, eps: f32) -> Vec<T> {
    let hat = normalise(x, c, eps).hat;
    let mut sums = vec![T::of(0.0); 2 * c];
    for at in 0..x.len() {
        sums[at % c] = sums[at % c] + dy[at];
        sums[c + at % c] = sums[c + at % c] + dy[at] * hat[at];
    }
    sums
}

/// The adjoint of dy.
pub fn backward<T: Number>(dy: &[T], x: &[T], gamma: &[T], eps: f32) -> Vec<T> {
    let c = gamma.len();
    let Norm { hat, r } = normalise(x, c, eps);
    let mut dx = vec![T::of(0.0); x.len()];
    for i in 0..c {
        let u: Vec<T> = channel(dy, c, i).into_iter().map(|dy| gamma[i] * dy).collect();
        let of_channel = layers::normalise_backward(&u, &channel(&hat, c, i), r[i]);
        dx.iter_mut().skip(i).step_by(c).zip(of_channel).for_each(|(to, from)| *to = from);
    }
    dx
}
