//! The secant of a training: a curvature of rank one from two models and their gradients.

use super::dot;
use crate::error::{Error, Result};

/// The rank-one curvature ΔgΔgᵀ / (ΔgᵀΔw) between two points of a training, which has Δg = HΔw.
#[derive(Clone, Debug, PartialEq)]
pub struct Secant {
    /// Δg `[p]`.
    pub gradient: Vec<f64>,
    /// Δw `[p]`.
    pub weights: Vec<f64>,
}

impl Secant {
    /// Its one eigenvalue that is not 0; negative or not finite where the gradient did not grow along the way.
    pub fn eigenvalue(&self) -> f64 {
        dot(&self.gradient, &self.gradient) / dot(&self.gradient, &self.weights)
    }

    /// x = (H + λI)⁻¹ b, by Sherman and Morrison.
    ///
    /// # Errors
    /// Where the curvature is not positive, or λ is 0.
    pub fn solve(&self, x: &mut [f64], b: &[f64], damping: f64) -> Result<()> {
        let (gg, gw) = (dot(&self.gradient, &self.gradient), dot(&self.gradient, &self.weights));
        if gw.is_nan() || gw <= 0.0 || damping <= 0.0 {
            let reason = format!(
                "finite differences give ΔgᵀΔw = {gw:e} at a damping of {damping:e}; both must be above 0"
            );
            return Err(Error::Solve { reason });
        }
        let along = dot(&self.gradient, b) / (damping * gw + gg);
        x.iter_mut().zip(b).zip(&self.gradient).for_each(|((x, b), g)| *x = (b - along * g) / damping);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secant_is_the_curvature_along_its_way_and_is_inverted() {
        let (g, w, b) = (vec![2.0, -1.0, 0.5], vec![1.0, 0.5, 3.0], vec![0.3, 1.0, -2.0]);
        let gw = dot(&g, &w);
        let secant = Secant { gradient: g.clone(), weights: w };
        let (mut x, damping) = (vec![0.0; 3], 0.1);
        secant.solve(&mut x, &b, damping).unwrap();
        for i in 0..3 {
            assert!((g[i] * dot(&g, &x) / gw + damping * x[i] - b[i]).abs() < 1e-12);
        }
        assert!((secant.eigenvalue() - 5.25 / gw).abs() < 1e-12);
        let back = Secant { weights: vec![-1.0, 0.0, 0.0], ..secant };
        assert!(matches!(back.solve(&mut x, &b, damping), Err(Error::Solve { .. })));
    }
}
