//! The oracle of nonlinear layers and the loss: plain loops, forward and backward, generic over the number.

use scrubjay::net::Activation;

use super::dual::Number;

/// log1p(Σ_{j≠y} exp(z_j − z_y)), shifted by the largest logit where one exceeds z_y.
pub fn loss<T: Number>(z: &[T], label: usize) -> T {
    let top = (0..z.len()).fold(label, |top, j| if z[j].value() > z[top].value() { j } else { top });
    let others = (0..z.len()).filter(|&j| j != top).fold(T::of(0.0), |sum, j| sum + (z[j] - z[top]).exp());
    z[top] - z[label] + others.ln_1p()
}

/// exp(z_j) / Σ exp(z).
pub fn softmax<T: Number>(z: &[T]) -> Vec<T> {
    let top = z.iter().fold(f64::NEG_INFINITY, |top, z| top.max(z.value()));
    let exp: Vec<T> = z.iter().map(|&z| (z - T::of(top)).exp()).collect();
    let sum = exp.iter().fold(T::of(0.0), |sum, &e| sum + e);
    exp.into_iter().map(|e| e / sum).collect()
}

/// The derivative of the loss by the logits, p − onehot.
pub fn slope<T: Number>(z: &[T], label: usize) -> Vec<T> {
    let mut p = softmax(z);
    p[label] = p[label] - T::of(1.0);
    p
}

/// σ(a), by the exponential that does not overflow, whose derivative would be no number.
fn sigmoid<T: Number>(a: T) -> T {
    let one = T::of(1.0);
    if a.value() < 0.0 { a.exp() / (one + a.exp()) } else { one / (one + (-a).exp()) }
}

/// a σ(slope a) and its derivative.
fn swish<T: Number>(a: T, slope: T) -> (T, T) {
    let s = sigmoid(slope * a);
    (a * s, s + slope * a * s * (T::of(1.0) - s))
}

/// f(a) and f'(a); at a kink f' is that of the piece outside, and so is what it is differentiated to.
pub fn activation<T: Number>(kind: Activation, a: T) -> (T, T) {
    let (zero, one) = (T::of(0.0), T::of(1.0));
    match kind {
        Activation::Relu if a.value() > 0.0 => (a, one),
        Activation::Relu => (zero, zero),
        Activation::Gelu => {
            let below = T::of(0.5) * (one + (a * T::of(0.5f64.sqrt())).erf());
            let density = (-(a * a) * T::of(0.5)).exp() * T::of(1.0 / std::f64::consts::TAU.sqrt());
            (a * below, below + a * density)
        }
        Activation::Silu => swish(a, one),
        Activation::Sigmoid => {
            let s = sigmoid(a);
            (s, s * (one - s))
        }
        Activation::Tanh => {
            let t = T::of(2.0) * sigmoid(a + a) - one;
            (t, one - t * t)
        }
        Activation::Softplus if a.value() > 0.0 => (a + (-a).exp().ln_1p(), sigmoid(a)),
        Activation::Softplus => (a.exp().ln_1p(), sigmoid(a)),
        Activation::HardSwish if a.value() <= -3.0 => (zero, zero),
        Activation::HardSwish if a.value() >= 3.0 => (a, one),
        Activation::HardSwish => (a * (a + T::of(3.0)) / T::of(6.0), a / T::of(3.0) + T::of(0.5)),
        Activation::HardSigmoid if a.value() <= -3.0 => (zero, zero),
        Activation::HardSigmoid if a.value() >= 3.0 => (one, zero),
        Activation::HardSigmoid => ((a + T::of(3.0)) / T::of(6.0), one / T::of(6.0)),
        Activation::Relu6 if a.value() <= 0.0 => (zero, zero),
        Activation::Relu6 if a.value() >= 6.0 => (T::of(6.0), zero),
        Activation::Relu6 => (a, one),
        Activation::QuickGelu => swish(a, T::of(1.702)),
        Activation::GeluTanh => {
            let (scale, cube) = (T::of((2.0 / std::f64::consts::PI).sqrt()), T::of(0.044715));
            let u = scale * (a + cube * a * a * a);
            let t = T::of(2.0) * sigmoid(u + u) - one;
            let inner = scale * (one + T::of(3.0) * cube * a * a);
            let half = T::of(0.5);
            (half * a * (one + t), half * (one + t) + half * a * (one - t * t) * inner)
        }
    }
}

/// (x − mean) / √(var + eps) of one position, and 1 / √(var + eps).
pub fn normalise<T: Number>(x: &[T], eps: f32) -> (Vec<T>, T) {
    let count = T::of(x.len() as f64);
    let mean = x.iter().fold(T::of(0.0), |sum, &x| sum + x) / count;
    let var = x.iter().fold(T::of(0.0), |sum, &x| sum + (x - mean) * (x - mean)) / count;
    let r = T::of(1.0) / (var + T::of(f64::from(eps))).sqrt();
    (x.iter().map(|&x| (x - mean) * r).collect(), r)
}

/// The adjoint of [`normalise`] at a position: r (u − mean u − x̂ mean(u x̂)).
pub fn normalise_backward<T: Number>(u: &[T], hat: &[T], r: T) -> Vec<T> {
    let count = T::of(u.len() as f64);
    let mean = u.iter().fold(T::of(0.0), |sum, &u| sum + u) / count;
    let along = u.iter().zip(hat).fold(T::of(0.0), |sum, (&u, &hat)| sum + u * hat) / count;
    u.iter().zip(hat).map(|(&u, &hat)| r * (u - mean - hat * along)).collect()
}
