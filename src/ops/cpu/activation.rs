//! Pointwise nonlinearities: value, slope and curve (f, f', f''), and the forms that the four passes use.
//!
//! The derivative of ReLU is read off its value (positive or not), that of every other off its argument. Each kind's
//! loop is compiled on its own, and for AVX2 where the machine has it; all arithmetic is in f64 between f32 ends, so that
//! the machine does not show in the result.

use multiversion::multiversion;

use super::exp::exp;
use super::same;
use crate::ops::Activation;

const INVERSE_SQRT_2: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// 1 / √(2π).
const PEAK: f64 = 0.398_942_280_401_432_7;

/// erf(x)/x as a rational function of x² on [0, 4], fitted by iterated least squares; relative error 2.1e-9.
#[inline(always)]
fn erf(x: f64) -> f64 {
    const P: [f64; 7] = [
        1.1283791693636172,
        0.18520377267205002,
        0.05431691018380203,
        0.003849624969206099,
        0.00037960608400775355,
        4.684688261290758e-6,
        -1.3201804734619127e-8,
    ];
    const Q: [f64; 6] = [
        1.0,
        0.4974659837376452,
        0.11395857828421137,
        0.015462106007082033,
        0.001307568960318577,
        6.310974269586632e-5,
    ];
    let x = x.clamp(-4.0, 4.0); // 1 - erf(4) = 1.5e-8: below half an ulp of f32
    let u = x * x;
    let p = P.iter().rev().fold(0.0, |sum, &c| sum * u + c);
    let q = Q.iter().rev().fold(0.0, |sum, &c| sum * u + c);
    x * p / q
}

#[inline(always)]
fn sigmoid(a: f64) -> f64 {
    1.0 / (1.0 + exp(-a))
}

/// The slope of quick GELU's sigmoid at 0.
const QUICK: f64 = 1.702;
/// √(2/π), and the weight of the cube in the tanh form of GELU.
const TANH_SCALE: f64 = 0.797_884_560_802_865_4;
const TANH_CUBE: f64 = 0.044715;

/// Whether a is strictly between: at a kink and beyond it the derivative is the outer one.
#[inline(always)]
fn between(a: f64, low: f64, high: f64) -> bool {
    low < a && a < high
}

/// tanh of the argument u that the tanh form of GELU has, u' and u''.
#[inline(always)]
fn cubic(a: f64) -> [f64; 3] {
    let u = TANH_SCALE * a * (1.0 + TANH_CUBE * a * a);
    [u.tanh(), TANH_SCALE * (1.0 + 3.0 * TANH_CUBE * a * a), TANH_SCALE * 6.0 * TANH_CUBE * a]
}

/// Φ(a), and the density φ(a).
#[inline(always)]
fn normal(a: f64) -> (f64, f64) {
    (0.5 * (1.0 + erf(a * INVERSE_SQRT_2)), PEAK * exp(-0.5 * a * a))
}

/// f(a).
#[inline(always)]
pub fn value(kind: Activation, a: f64) -> f64 {
    match kind {
        Activation::Relu => a.max(0.0),
        Activation::Gelu => a * 0.5 * (1.0 + erf(a * INVERSE_SQRT_2)),
        Activation::Silu => a * sigmoid(a),
        Activation::Sigmoid => sigmoid(a),
        Activation::Tanh => a.tanh(),
        Activation::Softplus => a.max(0.0) + exp(-a.abs()).ln_1p(),
        Activation::HardSwish => a * (a + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::HardSigmoid => (a + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::Relu6 => a.clamp(0.0, 6.0),
        Activation::QuickGelu => a * sigmoid(QUICK * a),
        Activation::GeluTanh => 0.5 * a * (1.0 + cubic(a)[0]),
    }
}

/// f'(a); for ReLU `a` may also be its value.
#[inline(always)]
pub fn slope(kind: Activation, a: f64) -> f64 {
    match kind {
        Activation::Relu => f64::from(u8::from(a > 0.0)),
        Activation::Gelu => {
            let (below, density) = normal(a);
            below + a * density
        }
        Activation::Silu => {
            let s = sigmoid(a);
            s * (1.0 + a * (1.0 - s))
        }
        Activation::Sigmoid => {
            let s = sigmoid(a);
            s * (1.0 - s)
        }
        Activation::Tanh => {
            let t = a.tanh();
            1.0 - t * t
        }
        Activation::Softplus => sigmoid(a),
        Activation::HardSwish if between(a, -3.0, 3.0) => a / 3.0 + 0.5,
        Activation::HardSwish => f64::from(u8::from(a >= 3.0)),
        Activation::HardSigmoid => f64::from(u8::from(between(a, -3.0, 3.0))) / 6.0,
        Activation::Relu6 => f64::from(u8::from(between(a, 0.0, 6.0))),
        Activation::QuickGelu => {
            let s = sigmoid(QUICK * a);
            s * (1.0 + QUICK * a * (1.0 - s))
        }
        Activation::GeluTanh => {
            let [t, u1, _] = cubic(a);
            0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * u1
        }
    }
}

/// f''(a).
#[inline(always)]
pub fn curve(kind: Activation, a: f64) -> f64 {
    match kind {
        Activation::Relu => 0.0,
        Activation::Gelu => PEAK * (-0.5 * a * a).exp() * (2.0 - a * a),
        Activation::Silu => {
            let s = sigmoid(a);
            s * (1.0 - s) * (2.0 + a * (1.0 - 2.0 * s))
        }
        Activation::Sigmoid => {
            let s = sigmoid(a);
            s * (1.0 - s) * (1.0 - 2.0 * s)
        }
        Activation::Tanh => {
            let t = a.tanh();
            -2.0 * t * (1.0 - t * t)
        }
        Activation::Softplus => {
            let s = sigmoid(a);
            s * (1.0 - s)
        }
        Activation::HardSwish => f64::from(u8::from(between(a, -3.0, 3.0))) / 3.0,
        Activation::HardSigmoid | Activation::Relu6 => 0.0,
        Activation::QuickGelu => {
            let s = sigmoid(QUICK * a);
            QUICK * s * (1.0 - s) * (2.0 + QUICK * a * (1.0 - 2.0 * s))
        }
        Activation::GeluTanh => {
            let [t, u1, u2] = cubic(a);
            (1.0 - t * t) * (u1 + a * (0.5 * u2 - t * u1 * u1))
        }
    }
}

/// Runs a loop with its kind as a constant, so that the kind is not asked for at every value.
macro_rules! of_kind {
    ($kind:expr, $constant:ident, $run:expr) => {
        of_kind!($kind, $constant, $run, Relu Gelu Silu Sigmoid Tanh Softplus HardSwish HardSigmoid Relu6 QuickGelu GeluTanh)
    };
    ($kind:expr, $constant:ident, $run:expr, $($name:ident)*) => {
        match $kind {
            $(Activation::$name => {
                const $constant: Activation = Activation::$name;
                $run
            })*
        }
    };
}

/// y = f(y).
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn forward(y: &mut [f32], kind: Activation) {
    match kind {
        Activation::Relu => y.iter_mut().for_each(|y| *y = y.max(0.0)),
        kind => of_kind!(kind, KIND, y.iter_mut().for_each(|y| *y = value(KIND, f64::from(*y)) as f32)),
    }
}

/// d ∘= f'(a): backward of an adjoint, or forward of a tangent.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn backward(d: &mut [f32], a: &[f32], kind: Activation) {
    same("activation_backward", d.len(), a.len());
    let values = d.iter_mut().zip(a);
    match kind {
        Activation::Relu => values.for_each(|(d, &a)| *d = if a > 0.0 { *d } else { 0.0 }),
        kind => of_kind!(
            kind,
            KIND,
            values.for_each(|(d, &a)| *d = (f64::from(*d) * slope(KIND, f64::from(a))) as f32)
        ),
    }
}

/// dx += f'(a) ∘ dy.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn add_backward(dx: &mut [f32], dy: &[f32], a: &[f32], kind: Activation) {
    [dy, a].iter().for_each(|x| same("activation_backward", dx.len(), x.len()));
    let values = dx.iter_mut().zip(dy).zip(a);
    match kind {
        Activation::Relu => values.for_each(|((dx, &dy), &a)| *dx += if a > 0.0 { dy } else { 0.0 }),
        kind => of_kind!(
            kind,
            KIND,
            values.for_each(|((dx, &dy), &a)| *dx += (f64::from(dy) * slope(KIND, f64::from(a))) as f32)
        ),
    }
}

/// dxt = f'(a) dyt + f''(a) a' dy.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn tangent_backward(dxt: &mut [f32], dyt: &[f32], dy: &[f32], at: &[f32], a: &[f32], kind: Activation) {
    [dyt, dy, at, a].iter().for_each(|x| same("activation_tangent_backward", dxt.len(), x.len()));
    let values = dxt.iter_mut().zip(dyt).zip(dy).zip(at).zip(a);
    of_kind!(
        kind,
        KIND,
        values.for_each(|((((dxt, &dyt), &dy), &at), &a)| *dxt = moved(KIND, f64::from(a), dyt, dy, at))
    )
}

#[inline(always)]
fn moved(kind: Activation, a: f64, dyt: f32, dy: f32, at: f32) -> f32 {
    (slope(kind, a) * f64::from(dyt) + curve(kind, a) * f64::from(at) * f64::from(dy)) as f32
}

/// dxt += f'(a) dyt + f''(a) a' dy.
#[multiversion(targets("x86_64+avx2+fma"))]
pub fn add_tangent_backward(
    dxt: &mut [f32],
    dyt: &[f32],
    dy: &[f32],
    at: &[f32],
    a: &[f32],
    kind: Activation,
) {
    [dyt, dy, at, a].iter().for_each(|x| same("activation_tangent_backward", dxt.len(), x.len()));
    let values = dxt.iter_mut().zip(dyt).zip(dy).zip(at).zip(a);
    of_kind!(
        kind,
        KIND,
        values.for_each(|((((dxt, &dyt), &dy), &at), &a)| *dxt += moved(KIND, f64::from(a), dyt, dy, at))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slope_and_curve_are_derivatives() {
        for kind in Activation::ALL {
            for i in -60..60 {
                let (a, h) = (f64::from(i) / 10.0 + 0.05, 1e-5);
                let slope_by_difference = (value(kind, a + h) - value(kind, a - h)) / (2.0 * h);
                let curve_by_difference = (slope(kind, a + h) - slope(kind, a - h)) / (2.0 * h);
                // erf is fitted to 2e-9, which a difference over 2e-5 shows as 1e-4 at the worst.
                let tolerance = if kind == Activation::Gelu { 1e-4 } else { 1e-8 };
                assert!((slope(kind, a) - slope_by_difference).abs() < tolerance, "{kind:?} {a}");
                assert!((curve(kind, a) - curve_by_difference).abs() < tolerance, "{kind:?} {a}");
            }
        }
    }

    #[test]
    fn derivatives_at_kinks_are_those_of_autograd() {
        let at = |kind, a| [value(kind, a), slope(kind, a), curve(kind, a)];
        assert_eq!(at(Activation::Relu, 0.0), [0.0, 0.0, 0.0]);
        assert_eq!(at(Activation::Relu6, 0.0), [0.0, 0.0, 0.0]);
        assert_eq!(at(Activation::Relu6, 6.0), [6.0, 0.0, 0.0]);
        assert_eq!(at(Activation::HardSigmoid, -3.0), [0.0, 0.0, 0.0]);
        assert_eq!(at(Activation::HardSigmoid, 3.0), [1.0, 0.0, 0.0]);
        assert_eq!(at(Activation::HardSwish, -3.0)[1..], [0.0, 0.0]);
        assert_eq!(at(Activation::HardSwish, 3.0), [3.0, 1.0, 0.0]);
        assert_eq!(at(Activation::HardSwish, 0.0), [0.0, 0.5, 1.0 / 3.0]);
    }

    #[test]
    fn erf_is_right_to_half_an_ulp_of_f32() {
        // Abramowitz & Stegun, table 7.1.
        for (x, want) in
            [(0.0, 0.0), (0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (3.0, 0.9999779095)]
        {
            assert!((erf(x) - want).abs() < 6e-9, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!(erf(9.0) as f32, 1.0);
    }

    #[test]
    fn slices_do_what_the_scalars_say() {
        let a: Vec<f32> = (0..37).map(|i| (i as f32 - 18.0) / 4.0).collect();
        let d: Vec<f32> = (0..37).map(|i| (i * i % 11) as f32 - 5.0).collect();
        let t: Vec<f32> = (0..37).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
        for kind in Activation::ALL {
            let mut y = a.clone();
            forward(&mut y, kind);
            let (mut db, mut dt, mut sum) = (d.clone(), t.clone(), a.clone());
            backward(&mut db, &a, kind);
            tangent_backward(&mut dt, &t, &d, &t, &a, kind);
            add_tangent_backward(&mut sum, &t, &d, &t, &a, kind);
            for i in 0..a.len() {
                let (a64, d64, t64) = (f64::from(a[i]), f64::from(d[i]), f64::from(t[i]));
                assert_eq!(y[i], value(kind, a64) as f32);
                assert_eq!(db[i], (slope(kind, a64) * d64) as f32);
                let want = slope(kind, a64) * t64 + curve(kind, a64) * t64 * d64;
                assert!((f64::from(dt[i]) - want).abs() <= 1e-6 * want.abs(), "{kind:?} {i}");
                assert!(
                    (f64::from(sum[i]) - a64 - want).abs() <= 1e-6 * (a64.abs() + want.abs()),
                    "{kind:?} {i}"
                );
            }
        }
    }
}
