//! Group norm: the c channels of an image form groups of c / `groups` neighbours; over all values of a group, positions
//! and channels, y = γ x̂ + β, x̂ = (x − μ) r, r = 1/√(var + eps), γ and β of each channel; its tangent and both adjoints.
//! The derivatives are layer norm's with means over the group (MATH.md, Eq. 8b).
//!
//! Values are `[n, shape]`; `saved` holds μ and r of each image and group, `[n, groups, 2]`; `gamma` and `beta` `[c]`.
//! Sums are in f64, position by position and channel by channel. Adjoints and gradients add.

use crate::ops::Shape;

/// One group of one image.
#[derive(Clone, Copy)]
struct Group {
    /// Counted over all images.
    number: usize,
    /// Where its first value stands.
    first: usize,
    /// Its first channel, and how many it has.
    channel: usize,
    width: usize,
    shape: Shape,
}

impl Group {
    /// The groups of `n` images of this shape.
    fn all(n: usize, shape: Shape, groups: usize) -> impl Iterator<Item = Group> {
        assert!(groups > 0 && shape.c.is_multiple_of(groups), "{} channels in {groups} groups", shape.c);
        let width = shape.c / groups;
        (0..n * groups).map(move |number| {
            let channel = number % groups * width;
            Group { number, first: number / groups * shape.len() + channel, channel, width, shape }
        })
    }

    /// The index and the channel of each value.
    fn values(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.shape.positions()).flat_map(move |position| {
            (0..self.width).map(move |i| (self.first + position * self.shape.c + i, self.channel + i))
        })
    }

    /// The means of what `f` gives of each value's index and channel.
    fn means<const COUNT: usize>(self, f: impl Fn(usize, usize) -> [f64; COUNT]) -> [f64; COUNT] {
        let mut sums = [0.0; COUNT];
        for (at, channel) in self.values() {
            sums.iter_mut().zip(f(at, channel)).for_each(|(sum, value)| *sum += value);
        }
        sums.map(|sum| sum / (self.shape.positions() * self.width) as f64)
    }
}

/// A group's μ and r, as they were saved.
#[derive(Clone, Copy)]
struct Standard {
    mean: f64,
    r: f64,
}

impl Standard {
    fn of(group: Group, saved: &[f32]) -> Standard {
        let at = 2 * group.number;
        Standard { mean: f64::from(saved[at]), r: f64::from(saved[at + 1]) }
    }

    /// x̂.
    fn hat(self, x: f32) -> f64 {
        (f64::from(x) - self.mean) * self.r
    }
}

/// Refuses other lengths than the shape has; the groups of all images.
fn checked(
    n: usize,
    shape: Shape,
    groups: usize,
    values: &[usize],
    saved: usize,
    parameters: &[usize],
) -> impl Iterator<Item = Group> {
    values.iter().for_each(|&len| assert_eq!(len, n * shape.len(), "group_norm: values"));
    assert_eq!(saved, 2 * n * groups, "group_norm: saved values");
    parameters.iter().for_each(|&len| assert_eq!(len, shape.c, "group_norm: channels"));
    Group::all(n, shape, groups)
}

/// The same with what was saved of each.
fn standardised(
    n: usize,
    shape: Shape,
    groups: usize,
    values: &[usize],
    saved: &[f32],
    parameters: &[usize],
) -> impl Iterator<Item = (Group, Standard)> {
    let all = checked(n, shape, groups, values, saved.len(), parameters);
    all.map(|group| (group, Standard::of(group, saved)))
}

/// y, and μ and r of each image and group to `saved`.
pub fn forward(
    y: &mut [f32],
    saved: &mut [f32],
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    n: usize,
    shape: Shape,
    groups: usize,
    eps: f32,
) {
    let parameters = [gamma.len(), beta.len()];
    for group in checked(n, shape, groups, &[y.len(), x.len()], saved.len(), &parameters) {
        let [mu] = group.means(|at, _| [f64::from(x[at])]);
        let [var] = group.means(|at, _| [(f64::from(x[at]) - mu).powi(2)]);
        saved[2 * group.number] = mu as f32;
        saved[2 * group.number + 1] = (1.0 / (var + f64::from(eps)).sqrt()) as f32;
        let norm = Standard::of(group, saved);
        for (at, i) in group.values() {
            y[at] = (norm.hat(x[at]) * f64::from(gamma[i]) + f64::from(beta[i])) as f32;
        }
    }
}

/// t = γ x̂', x̂' = r (x' − mean x' − x̂ q), q = mean x̂ x'.
pub fn tangent(
    t: &mut [f32],
    tx: &[f32],
    x: &[f32],
    saved: &[f32],
    gamma: &[f32],
    n: usize,
    shape: Shape,
    groups: usize,
) {
    let values = [t.len(), tx.len(), x.len()];
    for (group, norm) in standardised(n, shape, groups, &values, saved, &[gamma.len()]) {
        let moved = |at: usize| f64::from(tx[at]);
        let [shift, q] = group.means(|at, _| [moved(at), norm.hat(x[at]) * moved(at)]);
        for (at, i) in group.values() {
            t[at] = (f64::from(gamma[i]) * norm.r * (moved(at) - shift - norm.hat(x[at]) * q)) as f32;
        }
    }
}

/// dx += r (u − mean u − x̂ m), u = γ dy, m = mean u x̂.
pub fn backward(
    dx: &mut [f32],
    dy: &[f32],
    x: &[f32],
    saved: &[f32],
    gamma: &[f32],
    n: usize,
    shape: Shape,
    groups: usize,
) {
    let values = [dx.len(), dy.len(), x.len()];
    for (group, norm) in standardised(n, shape, groups, &values, saved, &[gamma.len()]) {
        let u = |at: usize, i: usize| f64::from(gamma[i]) * f64::from(dy[at]);
        let [shift, m] = group.means(|at, i| [u(at, i), u(at, i) * norm.hat(x[at])]);
        for (at, i) in group.values() {
            dx[at] += (norm.r * (u(at, i) - shift - norm.hat(x[at]) * m)) as f32;
        }
    }
}

/// The derivative of [`backward`] along x' = `tx` and dy' = `dyt`, added to `dxt`. With q = mean x̂ x' (so r' = −r² q)
/// and m' = mean(u' x̂ + u x̂'): dx' = −r q dx + r (u' − mean u' − x̂' m − x̂ m').
pub fn tangent_backward(
    dxt: &mut [f32],
    dyt: &[f32],
    dy: &[f32],
    tx: &[f32],
    x: &[f32],
    saved: &[f32],
    gamma: &[f32],
    n: usize,
    shape: Shape,
    groups: usize,
) {
    let values = [dxt.len(), dyt.len(), dy.len(), tx.len(), x.len()];
    for (group, norm) in standardised(n, shape, groups, &values, saved, &[gamma.len()]) {
        let hat = |at: usize| norm.hat(x[at]);
        let u = |at: usize, i: usize| f64::from(gamma[i]) * f64::from(dy[at]);
        let ut = |at: usize, i: usize| f64::from(gamma[i]) * f64::from(dyt[at]);
        let [shift_x, q] = group.means(|at, _| [f64::from(tx[at]), hat(at) * f64::from(tx[at])]);
        let moved = |at: usize| norm.r * (f64::from(tx[at]) - shift_x - hat(at) * q);
        let [shift, m] = group.means(|at, i| [u(at, i), u(at, i) * hat(at)]);
        let [shift_t, m_t] = group.means(|at, i| [ut(at, i), ut(at, i) * hat(at) + u(at, i) * moved(at)]);
        for (at, i) in group.values() {
            let dx = norm.r * (u(at, i) - shift - hat(at) * m);
            let change = ut(at, i) - shift_t - moved(at) * m - hat(at) * m_t;
            dxt[at] += (norm.r * change - norm.r * q * dx) as f32;
        }
    }
}

/// dγ += Σ dy x̂ and dβ += Σ dy over images and positions.
pub fn parameter_gradient(
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    dy: &[f32],
    x: &[f32],
    saved: &[f32],
    n: usize,
    shape: Shape,
    groups: usize,
) {
    let (values, parameters) = ([dy.len(), x.len()], [dgamma.len(), dbeta.len()]);
    let mut sums = vec![[0.0; 2]; shape.c];
    for (group, norm) in standardised(n, shape, groups, &values, saved, &parameters) {
        for (at, i) in group.values() {
            sums[i][0] += f64::from(dy[at]) * norm.hat(x[at]);
            sums[i][1] += f64::from(dy[at]);
        }
    }
    for (i, [gamma, beta]) in sums.into_iter().enumerate() {
        dgamma[i] += gamma as f32;
        dbeta[i] += beta as f32;
    }
}
