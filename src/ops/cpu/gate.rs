//! The product of a map with a gate that has one value per image and channel: y[n, p, c] = x[n, p, c] g[n, c]
//! (MATH.md, Eq. 8c); `x` and `y` `[n, positions, c]`, `gate` `[n, c]`. With one position an image it is the product of two
//! maps of equal shape.
//!
//! The product is bilinear, so that two functions make all four passes, x' and g' tangents, dy an adjoint:
//!
//! | pass | of x | of the gate |
//! | --- | --- | --- |
//! | forward | y = `apply`(x, g) | |
//! | tangent | y' = `apply`(x', g) | y' += `apply`(x, g') |
//! | backward | dx += `apply`(dy, g) | dg += `gradient`(dy, x) |
//! | tangent backward | dx' += `apply`(dy', g) + `apply`(dy, g') | dg' += `gradient`(dy', x) + `gradient`(dy, x') |

/// `y` = `x` ∘ `gate`, or += that.
pub fn apply(y: &mut [f32], x: &[f32], gate: &[f32], c: usize, accumulate: bool) {
    let image = check(x, y, gate, c);
    for ((y, x), gate) in y.chunks_exact_mut(image).zip(x.chunks_exact(image)).zip(gate.chunks_exact(c)) {
        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for i in 0..c {
                y[i] = if accumulate { y[i] + x[i] * gate[i] } else { x[i] * gate[i] };
            }
        }
    }
}

/// `dgate` += Σ `dy` ∘ `x` over positions, which are added in order, in f64.
pub fn gradient(dgate: &mut [f32], dy: &[f32], x: &[f32], c: usize) {
    let image = check(x, dy, dgate, c);
    let mut sums = vec![0.0; c];
    for ((dgate, dy), x) in dgate.chunks_exact_mut(c).zip(dy.chunks_exact(image)).zip(x.chunks_exact(image)) {
        sums.fill(0.0);
        for (dy, x) in dy.chunks_exact(c).zip(x.chunks_exact(c)) {
            (0..c).for_each(|i| sums[i] += f64::from(dy[i]) * f64::from(x[i]));
        }
        dgate.iter_mut().zip(&sums).for_each(|(dgate, &sum)| *dgate += sum as f32);
    }
}

/// The values of an image.
fn check(x: &[f32], y: &[f32], gate: &[f32], c: usize) -> usize {
    assert_eq!(x.len(), y.len(), "gate: values");
    assert!(
        c > 0 && !gate.is_empty() && gate.len().is_multiple_of(c),
        "gate: {} of {c} channels",
        gate.len()
    );
    let n = gate.len() / c;
    assert!(!x.is_empty() && x.len().is_multiple_of(gate.len()), "gate: {} values of {n} images", x.len());
    x.len() / n
}
