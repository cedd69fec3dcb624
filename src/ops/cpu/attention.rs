//! Multi-head softmax attention over short sequences, its tangent and both adjoints (MATH.md, Eq. 9).
//!
//! Per image and head: S = QKᵀ/√width, P = softmax(S) by rows, O = PV. The input's channels are packed q, k, v, each
//! `heads · width`; the output's are the heads side by side. `saved` holds P, `[n, heads, t, t]`. Adjoints add.
//!
//! A mask takes keys out: P is 0 in their columns, and rows of an image without any key are zeros. Every derivative has P as
//! a factor of what it does with a key, so that `saved` carries the mask to the other passes.

use std::cell::RefCell;

use multiversion::multiversion;

use super::gemm::{Matrix, gemm};
use super::same;
use super::sums::{largest, set, sum};
use crate::ops::{Shape, Windows};

thread_local! {
    /// Square matrices of one head.
    static SCRATCH: RefCell<[Vec<f32>; 5]> = const { RefCell::new([vec![], vec![], vec![], vec![], vec![]]) };
}

/// One head of one image: where its parts stand.
#[derive(Clone, Copy)]
struct Head {
    t: usize,
    width: usize,
    /// Channels of the output, a third of the input's.
    dim: usize,
    qkv: usize,
    out: usize,
    weights: usize,
}

impl Head {
    /// The heads of `n` images whose outputs have this shape.
    fn all(n: usize, shape: Shape, heads: usize) -> impl Iterator<Item = Head> {
        let (t, dim) = (shape.positions(), shape.c);
        let width = dim / heads;
        (0..n * heads).map(move |i| {
            let (image, head) = (i / heads, i % heads);
            let channel = head * width;
            Head {
                t,
                width,
                dim,
                qkv: image * t * 3 * dim + channel,
                out: image * t * dim + channel,
                weights: i * t * t,
            }
        })
    }

    /// 1/√width.
    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Q, K and V of packed values.
    fn parts<'a>(&self, qkv: &'a [f32]) -> [Matrix<'a>; 3] {
        [0, 1, 2]
            .map(|part| Matrix::rows(&qkv[self.qkv + part * self.dim..], self.t, self.width, 3 * self.dim))
    }

    /// This head of an output.
    fn of<'a>(&self, out: &'a [f32]) -> Matrix<'a> {
        Matrix::rows(&out[self.out..], self.t, self.width, self.dim)
    }

    fn square<'a>(&self, values: &'a [f32]) -> Matrix<'a> {
        Matrix::rows(values, self.t, self.t, self.t)
    }

    /// This head's weights P.
    fn weights<'a>(&self, saved: &'a [f32]) -> &'a [f32] {
        &saved[self.weights..self.weights + self.t * self.t]
    }
}

/// Softmax of each row; rows of −∞ alone give NaN.
#[multiversion(targets("x86_64+avx2+fma"))]
fn softmax(s: &mut [f32], t: usize) {
    for row in s.chunks_exact_mut(t) {
        let top = largest(row);
        row.iter_mut().for_each(|s| *s = (*s - top).exp());
        let sum = sum([row], |[s]| s);
        row.iter_mut().for_each(|s| *s = (f64::from(*s) / sum) as f32);
    }
}

/// Each row of `d` minus its mean under `p`, times `p`: softmax's derivative, its own transpose.
#[multiversion(targets("x86_64+avx2+fma"))]
fn through_softmax(d: &mut [f32], p: &[f32], t: usize) {
    for (d, p) in d.chunks_exact_mut(t).zip(p.chunks_exact(t)) {
        let mean = sum([d, p], |[d, p]| d * p);
        d.iter_mut().zip(p).for_each(|(d, &p)| *d = (f64::from(p) * (f64::from(*d) - mean)) as f32);
    }
}

/// dS and dS' of one row, of its P, P', dP and dP'; see [`tangent_backward`].
#[multiversion(targets("x86_64+avx2+fma"))]
fn through_softmax_tangent(
    ds: &mut [f32],
    dst: &mut [f32],
    p: &[f32],
    moved: &[f32],
    dp: &[f32],
    dpt: &[f32],
) {
    let mean = sum([p, dp], |[p, dp]| p * dp);
    let mean_t = sum([p, moved, dp, dpt], |[p, moved, dp, dpt]| moved * dp + p * dpt);
    set(ds, [p, dp], |[p, dp]| p * (dp - mean));
    set(dst, [p, moved, dp, dpt], |[p, moved, dp, dpt]| moved * (dp - mean) + p * (dpt - mean_t));
}

/// Refuses other lengths of packed values, of outputs and of weights than those of `n` images.
#[track_caller]
fn fits(n: usize, shape: Shape, heads: usize, packed: &[usize], outputs: &[usize], saved: usize) {
    packed.iter().for_each(|&len| same("attention", 3 * n * shape.len(), len));
    outputs.iter().for_each(|&len| same("attention", n * shape.len(), len));
    same("attention", n * heads * shape.positions().pow(2), saved);
}

/// O to `y`, P to `saved`. With a `mask` `[n, t]`, keys where it is 0 get no weight. With `windows`, of which there are `n`,
/// and their table of relative positions `[offsets, heads]`, scores have its values and [`Windows::APART`] added.
pub fn forward(
    y: &mut [f32],
    saved: &mut [f32],
    qkv: &[f32],
    n: usize,
    shape: Shape,
    heads: usize,
    mask: Option<&[u32]>,
    windows: Option<(Windows, &[f32])>,
) {
    fits(n, shape, heads, &[qkv.len()], &[y.len()], saved.len());
    if let Some(mask) = mask {
        same("attention mask", n * shape.positions(), mask.len());
    }
    if let Some((windows, table)) = windows {
        same("attention table", windows.offsets() * heads, table.len());
    }
    for (i, head) in Head::all(n, shape, heads).enumerate() {
        let [q, k, v] = head.parts(qkv);
        let p = &mut saved[head.weights..head.weights + head.t * head.t];
        gemm(p, head.t, q, k.t(), head.scale(), false);
        if let Some((windows, table)) = windows {
            for (at, s) in p.iter_mut().enumerate() {
                let (window, query, key) = (i / heads, at / head.t, at % head.t);
                *s += table[windows.offset(query, key) * heads + i % heads];
                *s += if windows.were_apart(window, query, key) { Windows::APART } else { 0.0 };
            }
        }
        match mask.map(|mask| &mask[i / heads * head.t..][..head.t]) {
            Some(keys) if keys.iter().all(|&key| key == 0) => p.fill(0.0),
            keys => {
                for row in p.chunks_exact_mut(head.t).filter(|_| keys.is_some()) {
                    let masked = row.iter_mut().zip(keys.into_iter().flatten()).filter(|(_, key)| **key == 0);
                    masked.for_each(|(s, _)| *s = f32::NEG_INFINITY);
                }
                softmax(p, head.t);
            }
        }
        gemm(&mut y[head.out..], head.dim, head.square(p), v, 1.0, false);
    }
}

/// P' = P ∘ (S' − mean), S' = (Q'Kᵀ + QK'ᵀ)/√width, to `moved`.
fn weights_tangent(moved: &mut Vec<f32>, head: Head, tx: &[f32], x: &[f32], saved: &[f32]) {
    let ([q, k, _], [qt, kt, _]) = (head.parts(x), head.parts(tx));
    moved.resize(head.t * head.t, 0.0);
    gemm(moved, head.t, qt, k.t(), head.scale(), false);
    gemm(moved, head.t, q, kt.t(), head.scale(), true);
    through_softmax(moved, head.weights(saved), head.t);
}

/// O' = P'V + PV'.
pub fn tangent(t: &mut [f32], tx: &[f32], x: &[f32], saved: &[f32], n: usize, shape: Shape, heads: usize) {
    fits(n, shape, heads, &[tx.len(), x.len()], &[t.len()], saved.len());
    SCRATCH.with_borrow_mut(|[moved, ..]| {
        for head in Head::all(n, shape, heads) {
            weights_tangent(moved, head, tx, x, saved);
            let ([.., v], [.., vt]) = (head.parts(x), head.parts(tx));
            gemm(&mut t[head.out..], head.dim, head.square(moved), v, 1.0, false);
            gemm(&mut t[head.out..], head.dim, head.square(head.weights(saved)), vt, 1.0, true);
        }
    });
}

/// dV += Pᵀ dO; dS = P ∘ (dP − mean), dP = dO Vᵀ; dQ += dS K/√width; dK += dSᵀ Q/√width. The gradient of a table of
/// relative positions += the sums of dS, in f64.
pub fn backward(
    dx: &mut [f32],
    dtable: Option<(Windows, &mut [f32])>,
    dy: &[f32],
    x: &[f32],
    saved: &[f32],
    n: usize,
    shape: Shape,
    heads: usize,
) {
    fits(n, shape, heads, &[dx.len(), x.len()], &[dy.len()], saved.len());
    let windows = dtable.as_ref().map(|(windows, _)| *windows);
    let mut sums = vec![0.0; dtable.as_ref().map_or(0, |(_, dtable)| dtable.len())];
    SCRATCH.with_borrow_mut(|[ds, ..]| {
        for (i, head) in Head::all(n, shape, heads).enumerate() {
            let ([q, k, v], d) = (head.parts(x), head.of(dy));
            let p = head.weights(saved);
            ds.resize(head.t * head.t, 0.0);
            gemm(ds, head.t, d, v.t(), 1.0, false);
            through_softmax(ds, p, head.t);
            if let Some(windows) = windows {
                for (at, ds) in ds.iter().enumerate() {
                    sums[windows.offset(at / head.t, at % head.t) * heads + i % heads] += f64::from(*ds);
                }
            }
            let ds = head.square(ds);
            let mut add = |part: usize, a: Matrix, b: Matrix, scale: f32| {
                gemm(&mut dx[head.qkv + part * head.dim..], 3 * head.dim, a, b, scale, true);
            };
            add(0, ds, k, head.scale());
            add(1, ds.t(), q, head.scale());
            add(2, head.square(p).t(), d, 1.0);
        }
    });
    if let Some((_, dtable)) = dtable {
        dtable.iter_mut().zip(sums).for_each(|(d, sum)| *d += sum as f32);
    }
}

/// The derivative of [`backward`] along x' = `tx` and dO' = `dyt`, added to `dxt`. With r the row means of dP under P:
/// dS' = P' ∘ (dP − r) + P ∘ (dP' − r'), r' = rowsum(P' ∘ dP + P ∘ dP').
pub fn tangent_backward(
    dxt: &mut [f32],
    dyt: &[f32],
    dy: &[f32],
    tx: &[f32],
    x: &[f32],
    saved: &[f32],
    n: usize,
    shape: Shape,
    heads: usize,
) {
    fits(n, shape, heads, &[dxt.len(), tx.len(), x.len()], &[dyt.len(), dy.len()], saved.len());
    SCRATCH.with_borrow_mut(|[moved, dp, dpt, ds, dst]| {
        for head in Head::all(n, shape, heads) {
            weights_tangent(moved, head, tx, x, saved);
            let ([q, k, v], [qt, kt, vt]) = (head.parts(x), head.parts(tx));
            let (d, dt, p, t) = (head.of(dy), head.of(dyt), head.weights(saved), head.t);
            [&mut *dp, &mut *dpt, &mut *ds, &mut *dst].into_iter().for_each(|m| m.resize(t * t, 0.0));
            gemm(dp, t, d, v.t(), 1.0, false);
            gemm(dpt, t, dt, v.t(), 1.0, false);
            gemm(dpt, t, d, vt.t(), 1.0, true);
            for row in (0..t).map(|row| row * t..(row + 1) * t) {
                let (ds, dst) = (&mut ds[row.clone()], &mut dst[row.clone()]);
                let [p, moved, dp, dpt] = [p, moved, dp, dpt].map(|values| &values[row.clone()]);
                through_softmax_tangent(ds, dst, p, moved, dp, dpt);
            }
            let (ds, dst) = (head.square(ds), head.square(dst));
            let mut add = |part: usize, a: Matrix, b: Matrix, scale: f32| {
                gemm(&mut dxt[head.qkv + part * head.dim..], 3 * head.dim, a, b, scale, true);
            };
            add(0, dst, k, head.scale());
            add(0, ds, kt, head.scale());
            add(1, dst.t(), q, head.scale());
            add(1, ds.t(), qt, head.scale());
            add(2, head.square(moved).t(), d, 1.0);
            add(2, head.square(p).t(), dt, 1.0);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed * 101) % 53) as f32 / 26.0 - 1.0).collect()
    }

    #[test]
    fn tangents_are_derivatives_and_adjoints_are_transposes() {
        derives(None);
    }

    #[test]
    fn they_are_so_behind_a_mask_and_masked_keys_have_no_part_in_them() {
        derives(Some(&[1, 0, 1, 0, 0, 0]));
    }

    fn derives(mask: Option<&[u32]>) {
        let (n, heads, shape) = (2, 2, Shape::new(1, 3, 4));
        let (inner, outer) = (3 * n * shape.len(), n * shape.len());
        let (x, tx, dy, dyt) = (values(inner, 1), values(inner, 2), values(outer, 3), values(outer, 4));
        let run = |x: &[f32]| {
            let (mut y, mut saved) = (vec![0.0; outer], vec![0.0; n * heads * 9]);
            forward(&mut y, &mut saved, x, n, shape, heads, mask, None);
            (y, saved)
        };
        let back = |x: &[f32], dy: &[f32]| {
            let mut dx = vec![0.0; inner];
            backward(&mut dx, None, dy, x, &run(x).1, n, shape, heads);
            dx
        };
        let h = 1.0 / 256.0;
        let along =
            |v: &[f32], t: &[f32], h: f32| v.iter().zip(t).map(|(v, t)| v + h * t).collect::<Vec<f32>>();
        let (plus, minus) = (along(&x, &tx, h), along(&x, &tx, -h));
        let saved = run(&x).1;
        for (i, p) in saved.iter().enumerate().filter(|_| mask.is_some()) {
            assert_eq!(
                *p == 0.0,
                mask.is_some_and(|mask| mask[i / (heads * 9) * 3 + i % 3] == 0),
                "{i}: {p}"
            );
        }
        let mut t = vec![0.0; outer];
        tangent(&mut t, &tx, &x, &saved, n, shape, heads);
        for i in 0..outer {
            let difference = (run(&plus).0[i] - run(&minus).0[i]) / (2.0 * h);
            assert!((t[i] - difference).abs() < 1e-3, "{i}: {} {difference}", t[i]);
        }
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        assert!((dot(&t, &dy) - dot(&tx, &back(&x, &dy))).abs() < 1e-5);
        let mut dxt = vec![0.0; inner];
        tangent_backward(&mut dxt, &dyt, &dy, &tx, &x, &saved, n, shape, heads);
        let (up, down) = (back(&plus, &along(&dy, &dyt, h)), back(&minus, &along(&dy, &dyt, -h)));
        for i in 0..inner {
            let difference = (up[i] - down[i]) / (2.0 * h);
            assert!((dxt[i] - difference).abs() < 1e-3, "{i}: {} {difference}", dxt[i]);
        }
    }
}
