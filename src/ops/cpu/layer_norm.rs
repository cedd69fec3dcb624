//! Layer norm over the channels of each position: y = γ x̂ + β, x̂ = (x − μ) r, r = 1/√(var + eps); its tangent and both
//! adjoints (MATH.md, Eq. 8). Moments are in f64; `saved` holds μ and r of each position. Adjoints add.

use super::same;

/// Mean of f over the channels.
fn mean(c: usize, f: impl Fn(usize) -> f64) -> f64 {
    (0..c).map(f).sum::<f64>() / c as f64
}

/// Refuses other lengths than positions of `c` channels, with two saved values each.
#[track_caller]
fn fits(c: usize, len: usize, others: &[usize], saved: usize) {
    same("layer_norm", len % c, 0);
    others.iter().for_each(|&other| same("layer_norm", len, other));
    same("layer_norm", 2 * (len / c), saved);
}

/// One position's normalised values.
struct Position<'a> {
    x: &'a [f32],
    mean: f64,
    r: f64,
}

impl<'a> Position<'a> {
    fn new(x: &'a [f32], saved: &[f32]) -> Position<'a> {
        Position { x, mean: f64::from(saved[0]), r: f64::from(saved[1]) }
    }

    /// x̂.
    fn hat(&self, c: usize) -> f64 {
        (f64::from(self.x[c]) - self.mean) * self.r
    }

    /// x̂' = r (x' − mean x' − x̂ q), and q = mean x̂ x'.
    fn tangent<'b>(&'b self, tx: &'b [f32]) -> (impl Fn(usize) -> f64 + 'b, f64) {
        let c = self.x.len();
        let shift = mean(c, |c| f64::from(tx[c]));
        let q = mean(c, |c| self.hat(c) * f64::from(tx[c]));
        (move |c: usize| self.r * (f64::from(tx[c]) - shift - self.hat(c) * q), q)
    }
}

/// y, and μ and r of each position to `saved`.
pub fn forward(y: &mut [f32], saved: &mut [f32], x: &[f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let c = gamma.len();
    fits(c, y.len(), &[x.len()], saved.len());
    same("layer_norm", c, beta.len());
    for ((y, saved), x) in y.chunks_exact_mut(c).zip(saved.chunks_exact_mut(2)).zip(x.chunks_exact(c)) {
        let mu = mean(c, |c| f64::from(x[c]));
        let var = mean(c, |c| (f64::from(x[c]) - mu).powi(2));
        saved[0] = mu as f32;
        saved[1] = (1.0 / (var + f64::from(eps)).sqrt()) as f32;
        let at = Position::new(x, saved);
        for i in 0..c {
            y[i] = (at.hat(i) * f64::from(gamma[i]) + f64::from(beta[i])) as f32;
        }
    }
}

/// t = γ x̂'.
pub fn tangent(t: &mut [f32], tx: &[f32], x: &[f32], saved: &[f32], gamma: &[f32]) {
    let c = gamma.len();
    fits(c, t.len(), &[tx.len(), x.len()], saved.len());
    let rows =
        t.chunks_exact_mut(c).zip(tx.chunks_exact(c)).zip(x.chunks_exact(c)).zip(saved.chunks_exact(2));
    for (((t, tx), x), saved) in rows {
        let at = Position::new(x, saved);
        let (moved, _) = at.tangent(tx);
        for i in 0..c {
            t[i] = (f64::from(gamma[i]) * moved(i)) as f32;
        }
    }
}

/// dx += r (u − mean u − x̂ m), u = γ dy, m = mean u x̂.
pub fn backward(dx: &mut [f32], dy: &[f32], x: &[f32], saved: &[f32], gamma: &[f32]) {
    let c = gamma.len();
    fits(c, dx.len(), &[dy.len(), x.len()], saved.len());
    let rows =
        dx.chunks_exact_mut(c).zip(dy.chunks_exact(c)).zip(x.chunks_exact(c)).zip(saved.chunks_exact(2));
    for (((dx, dy), x), saved) in rows {
        let at = Position::new(x, saved);
        let u = |i: usize| f64::from(gamma[i]) * f64::from(dy[i]);
        let (shift, m) = (mean(c, u), mean(c, |i| u(i) * at.hat(i)));
        for i in 0..c {
            dx[i] += (at.r * (u(i) - shift - at.hat(i) * m)) as f32;
        }
    }
}

/// dγ += Σ dy x̂ and dβ += Σ dy over positions.
pub fn parameter_gradient(dgamma: &mut [f32], dbeta: &mut [f32], dy: &[f32], x: &[f32], saved: &[f32]) {
    let c = dgamma.len();
    fits(c, dy.len(), &[x.len()], saved.len());
    same("layer_norm_parameters", c, dbeta.len());
    for ((dy, x), saved) in dy.chunks_exact(c).zip(x.chunks_exact(c)).zip(saved.chunks_exact(2)) {
        let at = Position::new(x, saved);
        for i in 0..c {
            dgamma[i] += (f64::from(dy[i]) * at.hat(i)) as f32;
            dbeta[i] += dy[i];
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
) {
    let c = gamma.len();
    fits(c, dxt.len(), &[dyt.len(), dy.len(), tx.len(), x.len()], saved.len());
    for (i, dxt) in dxt.chunks_exact_mut(c).enumerate() {
        let row = i * c..(i + 1) * c;
        let (dyt, dy, tx) = (&dyt[row.clone()], &dy[row.clone()], &tx[row.clone()]);
        let at = Position::new(&x[row], &saved[2 * i..2 * i + 2]);
        let (moved, q) = at.tangent(tx);
        let u = |i: usize| f64::from(gamma[i]) * f64::from(dy[i]);
        let ut = |i: usize| f64::from(gamma[i]) * f64::from(dyt[i]);
        let (shift, m) = (mean(c, u), mean(c, |i| u(i) * at.hat(i)));
        let (shift_t, m_t) = (mean(c, ut), mean(c, |i| ut(i) * at.hat(i) + u(i) * moved(i)));
        for i in 0..c {
            let dx = at.r * (u(i) - shift - at.hat(i) * m);
            dxt[i] += (at.r * (ut(i) - shift_t - moved(i) * m - at.hat(i) * m_t) - at.r * q * dx) as f32;
        }
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
