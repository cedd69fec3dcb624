//! Units' activations: means over positions (MATH.md, Eq. 6).

use std::ops::Range;

use super::same;
use crate::ops::Shape;

/// Adds the mean over positions of `z` `[n, shape]`, divided by `uses`, to `columns` of `trace` `[n, d]`.
pub fn means(
    trace: &mut [f32],
    z: &[f32],
    n: usize,
    shape: Shape,
    columns: Range<usize>,
    d: usize,
    uses: usize,
) {
    same("means", trace.len(), n * d);
    same("means", z.len(), n * shape.len());
    same("means", columns.len(), shape.c);
    let weight = 1.0 / (shape.positions() * uses) as f64;
    let mut sums = vec![0.0f64; shape.c];
    for i in 0..n {
        sums.fill(0.0);
        for at in z[i * shape.len()..(i + 1) * shape.len()].chunks_exact(shape.c) {
            sums.iter_mut().zip(at).for_each(|(sum, &z)| *sum += f64::from(z));
        }
        let row = &mut trace[i * d..(i + 1) * d][columns.clone()];
        row.iter_mut().zip(&sums).for_each(|(unit, sum)| *unit += (sum * weight) as f32);
    }
}
