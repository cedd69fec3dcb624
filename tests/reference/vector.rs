//! A solver's vectors by plain loops.

/// (b y + a x) / over.
pub fn combine(y: &[f64], b: f64, x: &[f64], a: f64, over: f64) -> Vec<f64> {
    y.iter().zip(x).map(|(y, x)| (b * y + a * x) / over).collect()
}

/// Σ x y and Σ |x y|, one after the other.
pub fn dot(x: &[f64], y: &[f64]) -> (f64, f64) {
    let products = x.iter().zip(y).map(|(x, y)| x * y);
    (products.clone().sum(), products.map(f64::abs).sum())
}
