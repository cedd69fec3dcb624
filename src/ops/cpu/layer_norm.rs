//! Layer norm over the channels of each position: y = γ x̂ + β, x̂ = (x − μ) r, r = 1/√(var + eps); its tangent and both
//! adjoints (MATH.md, Eq. 8). Moments are in f64; `saved` holds μ and r of each position. Adjoints add.

use multiversion::multiversion;

use super::same;
use super::sums::{add, set, sum};

/// Mean of f over the channels.
#[inline(always)]
fn mean<const N: usize>(rows: [&[f32]; N], f: impl Fn([f64; N]) -> f64) -> f64 {
    sum(rows, f) / rows[0].len() as f64
}

/// Refuses other lengths than positions of `c` channels, with two saved values each.
#[track_caller]
fn fits(c: usize, len: usize, others: &[usize], saved: usize) {
    same("layer_norm", len % c, 0);
    others.iter().for_each(|&other| same("layer_norm", len, other));
    same("layer_norm", 2 * (len / c), saved);
}

/// One position's moments, as they were saved.
#[derive(Clone, Copy)]
struct Moments {
    mean: f64,
    r: f64,
}

impl Moments {
    #[inline(always)]
    fn of(saved: &[f32]) -> Moments {
        Moments { mean: f64::from(saved[0]), r: f64::from(saved[1]) }
    }

    /// x̂.
    #[inline(always)]
    fn hat(self, x: f64) -> f64 {
        (x - self.mean) * self.r
    }
}

/// The means that a position's tangent x̂' = r (x' − mean x' − x̂ q) takes, q = mean x̂ x'.
#[derive(Clone, Copy)]
struct Tangent {
    at: Moments,
    shift: f64,
    q: f64,
}

impl Tangent {
    #[inline(always)]
    fn new(at: Moments, x: &[f32], tx: &[f32]) -> Tangent {
        let q = mean([x, tx], |[x, tx]| at.hat(x) * tx);
        Tangent { at, shift: mean([tx], |[tx]| tx), q }
    }

    /// x̂'.
    #[inline(always)]
    fn hat(self, x: f64, tx: f64) -> f64 {
        self.at.r * (tx - self.shift - self.at.hat(x) * self.q)
    }
}

/// y, and μ and r of each position to `saved`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn forward(y: &mut [f32], saved: &mut [f32], x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let c = gamma.len();
    fits(c, y.len(), &[x.len()], saved.len());
    same("layer_norm", c, beta.len());
    for ((y, saved), x) in y.chunks_exact_mut(c).zip(saved.chunks_exact_mut(2)).zip(x.chunks_exact(c)) {
        let mu = mean([x], |[x]| x);
        let var = mean([x], |[x]| (x - mu) * (x - mu));
        saved[0] = mu as f32;
        saved[1] = (1.0 / (var + f64::from(eps)).sqrt()) as f32;
        let at = Moments::of(saved);
        set(y, [x, gamma, beta], |[x, gamma, beta]| at.hat(x) * gamma + beta);
    }
}

/// t = γ x̂'.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn tangent(t: &mut [f32], tx: &[f32], x: &[f32], saved: &[f32], gamma: &[f32]) {
    let c = gamma.len();
    fits(c, t.len(), &[tx.len(), x.len()], saved.len());
    let rows =
        t.chunks_exact_mut(c).zip(tx.chunks_exact(c)).zip(x.chunks_exact(c)).zip(saved.chunks_exact(2));
    for (((t, tx), x), saved) in rows {
        let moved = Tangent::new(Moments::of(saved), x, tx);
        set(t, [tx, x, gamma], |[tx, x, gamma]| gamma * moved.hat(x, tx));
    }
}

/// dx += r (u − mean u − x̂ m), u = γ dy, m = mean u x̂.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn backward(dx: &mut [f32], dy: &[f32], x: &[f32], saved: &[f32], gamma: &[f32]) {
    let c = gamma.len();
    fits(c, dx.len(), &[dy.len(), x.len()], saved.len());
    let rows =
        dx.chunks_exact_mut(c).zip(dy.chunks_exact(c)).zip(x.chunks_exact(c)).zip(saved.chunks_exact(2));
    for (((dx, dy), x), saved) in rows {
        let at = Moments::of(saved);
        let shift = mean([gamma, dy], |[gamma, dy]| gamma * dy);
        let m = mean([gamma, dy, x], |[gamma, dy, x]| gamma * dy * at.hat(x));
        add(dx, [gamma, dy, x], |[gamma, dy, x]| at.r * (gamma * dy - shift - at.hat(x) * m));
    }
}

/// dγ += Σ dy x̂ and dβ += Σ dy over positions.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn parameter_gradient(dgamma: &mut [f32], dbeta: &mut [f32], dy: &[f32], x: &[f32], saved: &[f32]) {
    let c = dgamma.len();
    fits(c, dy.len(), &[x.len()], saved.len());
    same("layer_norm_parameters", c, dbeta.len());
    for ((dy, x), saved) in dy.chunks_exact(c).zip(x.chunks_exact(c)).zip(saved.chunks_exact(2)) {
        let at = Moments::of(saved);
        add(dgamma, [dy, x], |[dy, x]| dy * at.hat(x));
        add(dbeta, [dy], |[dy]| dy);
    }
}

/// The derivative of [`backward`] along x' = `tx` and dy' = `dyt`, added to `dxt`. With q = mean x̂ x' (so r' = −r² q)
/// and m' = mean(u' x̂ + u x̂'): dx' = −r q dx + r (u' − mean u' − x̂' m − x̂ m').
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn tangent_backward(
    dxt: &mut [f32],
    dyt: &[f32],
    dy: &[f32],
    tx: &[f32],
    x: &[f32],
    saved: &[f32],
    gamma: &[f32],
) {
    let c = gamma.len();
    fits(c, dxt.len(), &[dyt.len(), dy.len(), tx.len(), x.len()], saved.len());
    for (i, dxt) in dxt.chunks_exact_mut(c).enumerate() {
        let row = i * c..(i + 1) * c;
        let [dyt, dy, tx, x] = [dyt, dy, tx, x].map(|values| &values[row.clone()]);
        let at = Moments::of(&saved[2 * i..2 * i + 2]);
        let moved = Tangent::new(at, x, tx);
        let shift = mean([gamma, dy], |[gamma, dy]| gamma * dy);
        let m = mean([gamma, dy, x], |[gamma, dy, x]| gamma * dy * at.hat(x));
        let shift_t = mean([gamma, dyt], |[gamma, dyt]| gamma * dyt);
        let m_t = mean([gamma, dyt, dy, tx, x], |[gamma, dyt, dy, tx, x]| {
            gamma * dyt * at.hat(x) + gamma * dy * moved.hat(x, tx)
        });
        add(dxt, [gamma, dyt, dy, tx, x], |[gamma, dyt, dy, tx, x]| {
            let dx = at.r * (gamma * dy - shift - at.hat(x) * m);
            at.r * (gamma * dyt - shift_t - moved.hat(x, tx) * m - at.hat(x) * m_t) - at.r * moved.q * dx
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed * 101) % 53) as f32 / 26.0 - 1.0).collect()
    }

    #[test]
    fn tangents_are_derivatives_and_adjoints_are_transposes() {
        let (c, rows) = (6, 4);
        let (x, tx) = (values(rows * c, 1), values(rows * c, 2));
        let (dy, dyt, gamma, beta) = (values(rows * c, 3), values(rows * c, 4), values(c, 5), values(c, 6));
        let run = |x: &[f32]| {
            let (mut y, mut saved) = (vec![0.0; rows * c], vec![0.0; 2 * rows]);
            forward(&mut y, &mut saved, x, &gamma, &beta, 1e-5);
            (y, saved)
        };
        let (_, saved) = run(&x);
        let h = 1.0 / 512.0;
        let along =
            |v: &[f32], t: &[f32], h: f32| v.iter().zip(t).map(|(v, t)| v + h * t).collect::<Vec<f32>>();
        let (plus, minus) = (along(&x, &tx, h), along(&x, &tx, -h));
        let mut t = vec![0.0; rows * c];
        tangent(&mut t, &tx, &x, &saved, &gamma);
        for i in 0..rows * c {
            let difference = (run(&plus).0[i] - run(&minus).0[i]) / (2.0 * h);
            assert!((t[i] - difference).abs() < 2e-3, "{i}: {} {difference}", t[i]);
        }
        let mut dx = vec![0.0; rows * c];
        backward(&mut dx, &dy, &x, &saved, &gamma);
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        assert!((dot(&t, &dy) - dot(&tx, &dx)).abs() < 1e-5);

        let back = |x: &[f32], dy: &[f32]| {
            let mut dx = vec![0.0; rows * c];
            backward(&mut dx, dy, x, &run(x).1, &gamma);
            dx
        };
        let mut dxt = vec![0.0; rows * c];
        tangent_backward(&mut dxt, &dyt, &dy, &tx, &x, &saved, &gamma);
        let (up, down) = (back(&plus, &along(&dy, &dyt, h)), back(&minus, &along(&dy, &dyt, -h)));
        for i in 0..rows * c {
            let difference = (up[i] - down[i]) / (2.0 * h);
            assert!((dxt[i] - difference).abs() < 5e-3, "{i}: {} {difference}", dxt[i]);
        }
    }
}
