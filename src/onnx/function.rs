//! Functions of one value, as graphs compose them of additions, products, clips, error functions and so on. A function is
//! known by its values at some hundred points in f64, and an activation is recognised by what it computes, in whatever
//! steps it is written.

use std::sync::Arc;

use crate::ops::Activation;
use crate::ops::cpu::activation::value;

/// How far values may be apart, as a part of the value plus the function's span, or 1 where that is less: constants of
/// files are rounded to f32.
const TOLERANCE: f64 = 1e-6;

/// Values of x from -30 to 30, and behind them some far off.
fn points() -> impl Iterator<Item = f64> {
    let near = (-REACH..=REACH).map(|i| f64::from(i) * (0.05 + 0.0031 * f64::from(i.abs())));
    near.chain([1e2, 1e4, 1e10, 1e30].into_iter().flat_map(|far: f64| [far, -far]))
}

/// Points on either side of 0 that are not far off.
const REACH: i32 = 90;

/// A function.
#[derive(Clone, Debug)]
pub(super) struct Function {
    at_points: Arc<[f64]>,
    /// The same as g(a x + b), where that is how it was written.
    inner: Option<(f64, f64, Arc<[f64]>)>,
}

/// What a function is, in steps that a network has: scale and offset, then an activation, then scale and offset.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Steps {
    pub before: (f64, f64),
    pub activation: Option<Activation>,
    pub after: (f64, f64),
}

/// x as it is.
const SAME: (f64, f64) = (1.0, 0.0);

impl Steps {
    /// Those that do nothing left out.
    pub fn scales(pair: (f64, f64)) -> Option<(f64, f64)> {
        (pair != SAME).then_some(pair)
    }
}

impl Function {
    /// x.
    pub fn identity() -> Function {
        Function { at_points: points().collect(), inner: None }
    }

    /// Another function of this one's values.
    pub fn then(&self, f: impl Fn(f64) -> f64) -> Function {
        let inner = match (&self.inner, linear(&self.at_points, &Vec::from_iter(points()))) {
            (Some((a, b, g)), _) => Some((*a, *b, g.iter().map(|&v| f(v)).collect())),
            (None, Some(pair)) if pair != SAME => Some((pair.0, pair.1, points().map(&f).collect())),
            _ => None,
        };
        Function { at_points: self.at_points.iter().map(|&v| f(v)).collect(), inner }
    }

    /// A function of this one's and another one's values.
    pub fn with(&self, other: &Function, f: impl Fn(f64, f64) -> f64) -> Function {
        let values = self.at_points.iter().zip(&*other.at_points).map(|(&a, &b)| f(a, b));
        Function { at_points: values.collect(), inner: None }
    }

    /// The factor and the offset, where that is all.
    pub fn linear(&self) -> Option<(f64, f64)> {
        linear(&self.at_points, &Vec::from_iter(points()))
    }

    /// Whether it is x.
    pub fn is_identity(&self) -> bool {
        self.linear() == Some(SAME)
    }

    /// The steps that compute it; none where it is none that is known here.
    pub fn steps(&self) -> Option<Steps> {
        if let Some(after) = self.linear() {
            return Some(Steps { before: SAME, activation: None, after });
        }
        let known = |samples: &[f64]| {
            Activation::ALL.into_iter().find_map(|activation| {
                let values: Vec<f64> = points().map(|x| value(activation, x)).collect();
                linear(samples, &values).map(|after| (activation, after))
            })
        };
        let plain = known(&self.at_points).map(|found| (SAME, found));
        let inner = || self.inner.as_ref().and_then(|(a, b, g)| Some(((*a, *b), known(g)?)));
        let (before, (activation, after)) = plain.or_else(inner)?;
        Some(Steps { before, activation: Some(activation), after })
    }
}

/// The a and b with which a · x + b is y everywhere.
fn linear(y: &[f64], x: &[f64]) -> Option<(f64, f64)> {
    let near = 0..2 * REACH as usize + 1;
    let low = near.clone().min_by(|&i, &j| x[i].total_cmp(&x[j]))?;
    let high = near.max_by(|&i, &j| x[i].total_cmp(&x[j]))?;
    let slope = (y[high] - y[low]) / (x[high] - x[low]);
    let span = (y[high] - y[low]).abs().min(1.0);
    let near = |a: f64, b: f64| {
        let off =
            |(x, y): (&f64, &f64)| y.is_finite() && (a * x + b - y).abs() <= TOLERANCE * (span + y.abs());
        slope != 0.0 && x.iter().zip(y).all(off)
    };
    let offset = y[low] - slope * x[low];
    match near(1.0, 0.0) {
        true => Some(SAME),
        false => {
            near(slope, offset).then_some((slope, if offset.abs() < 1e-9 * span { 0.0 } else { offset }))
        }
    }
}

/// erf(x), of the same accuracy as GELU's.
pub(super) fn erf(x: f64) -> f64 {
    match x {
        0.0 => 0.0,
        // GELU(√2 x) = √2 x (1 + erf x) / 2.
        x => {
            2.0 * value(Activation::Gelu, std::f64::consts::SQRT_2 * x) / (std::f64::consts::SQRT_2 * x) - 1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_recognised_by_what_they_compute_and_others_are_not() {
        let x = Function::identity();
        let is = |f: &Function| f.steps().and_then(|steps| steps.activation);
        let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
        let half = f64::from(std::f32::consts::FRAC_1_SQRT_2);
        let times = |a: f64, b: f64| a * b;
        for (function, activation) in [
            (x.then(|v| v.max(0.0)), Activation::Relu),
            (x.then(|v| v.clamp(0.0, 6.0)), Activation::Relu6),
            (
                x.with(&x.then(|v| v * half).then(erf).then(|v| v + 1.0), times).then(|v| v * 0.5),
                Activation::Gelu,
            ),
            (
                x.then(|v| v * 0.5).with(&x.then(|v| v * half).then(erf).then(|v| v + 1.0), times),
                Activation::Gelu,
            ),
            (x.with(&x.then(sigmoid), times), Activation::Silu),
            (x.with(&x.then(|v| 1.702f32 as f64 * v).then(sigmoid), times), Activation::QuickGelu),
            (
                x.with(&x.then(|v| v + 3.0).then(|v| v.clamp(0.0, 6.0)), times).then(|v| v / 6.0),
                Activation::HardSwish,
            ),
            (x.then(|v| (v * 0.16666667f32 as f64 + 0.5).clamp(0.0, 1.0)), Activation::HardSigmoid),
        ] {
            assert_eq!(is(&function), Some(activation));
            assert_eq!(function.steps().unwrap().after, SAME, "{activation:?}");
        }
        assert!(x.is_identity() && x.then(|v| v * 2.0).then(|v| v / 2.0).is_identity());
        assert_eq!(x.then(|v| v * 3.0).then(|v| v - 1.0).linear(), Some((3.0, -1.0)));
        let shifted = x.then(|v| 2.0 * v).then(|v| v.max(0.0)).then(|v| v + 1.0).steps().unwrap();
        assert_eq!(
            (shifted.before, shifted.activation, shifted.after),
            (SAME, Some(Activation::Relu), (2.0, 1.0))
        );
        let shifted = x.then(|v| v + 1.0).then(|v| v.max(0.0)).steps().unwrap();
        assert_eq!((shifted.before, shifted.activation), ((1.0, 1.0), Some(Activation::Relu)));
        // However small its values are.
        let small = x.then(f64::tanh).then(|v| 1e-7 * v).steps().unwrap();
        assert_eq!((small.activation, small.after), (Some(Activation::Tanh), (1e-7, 0.0)));
        for other in [
            x.then(|v| if v < 0.0 { 0.01 * v } else { v }),
            x.then(|v| v.clamp(-1.0, 1.0)),
            x.then(|v| v * v),
            x.then(|v| v.clamp(0.0, 5.9)),
            x.then(|v| v.clamp(0.0, 1e9)),
            x.then(|v| (v.exp() + 1.0).ln()), // overflows, where softplus does not
            x.then(|_| 1.0),
            x.then(f64::sqrt),
        ] {
            assert_eq!(other.steps(), None);
        }
    }
}
