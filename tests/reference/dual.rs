//! Numbers that the oracle computes with: f64, f32 (the error of a plain loop), and dual numbers, whose second part is the
//! exact derivative along a direction: a backward pass in dual numbers gives the product of Hessian and direction.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// What the oracle needs of a number.
pub trait Number:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// A constant.
    fn of(value: f64) -> Self;
    /// The value, for comparisons.
    fn value(self) -> f64;
    /// eˣ.
    fn exp(self) -> Self;
    /// log(1 + x).
    fn ln_1p(self) -> Self;
    /// √x.
    fn sqrt(self) -> Self;
    /// erf(x).
    fn erf(self) -> Self;
}

/// erf by the series (2/√π) e^(−x²) Σ 2ⁿ x^(2n+1) / (2n+1)!!, whose terms all have one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

macro_rules! real {
    ($float:ty) => {
        impl Number for $float {
            fn of(value: f64) -> Self {
                value as $float
            }
            fn value(self) -> f64 {
                f64::from(self)
            }
            fn exp(self) -> Self {
                self.exp()
            }
            fn ln_1p(self) -> Self {
                self.ln_1p()
            }
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn erf(self) -> Self {
                erf(f64::from(self)) as $float
            }
        }
    };
}
real!(f32);
real!(f64);

/// value + ε · slope, ε² = 0.
#[derive(Clone, Copy, Debug)]
pub struct Dual<T> {
    /// The value.
    pub value: T,
    /// Its derivative along the direction.
    pub slope: T,
}

/// f(x) and f'(x) carried through.
fn chain<T: Number>(x: Dual<T>, value: T, derivative: T) -> Dual<T> {
    Dual { value, slope: derivative * x.slope }
}

impl<T: Number> Add for Dual<T> {
    type Output = Self;
    fn add(self, b: Self) -> Self {
        Dual { value: self.value + b.value, slope: self.slope + b.slope }
    }
}

impl<T: Number> Sub for Dual<T> {
    type Output = Self;
    fn sub(self, b: Self) -> Self {
        Dual { value: self.value - b.value, slope: self.slope - b.slope }
    }
}

impl<T: Number> Mul for Dual<T> {
    type Output = Self;
    fn mul(self, b: Self) -> Self {
        Dual { value: self.value * b.value, slope: self.slope * b.value + self.value * b.slope }
    }
}

impl<T: Number> Div for Dual<T> {
    type Output = Self;
    fn div(self, b: Self) -> Self {
        let value = self.value / b.value;
        Dual { value, slope: (self.slope - value * b.slope) / b.value }
    }
}

impl<T: Number> Neg for Dual<T> {
    type Output = Self;
    fn neg(self) -> Self {
        Dual { value: -self.value, slope: -self.slope }
    }
}

impl<T: Number> Number for Dual<T> {
    fn of(value: f64) -> Self {
        Dual { value: T::of(value), slope: T::of(0.0) }
    }
    fn value(self) -> f64 {
        self.value.value()
    }
    fn exp(self) -> Self {
        chain(self, self.value.exp(), self.value.exp())
    }
    fn ln_1p(self) -> Self {
        chain(self, self.value.ln_1p(), T::of(1.0) / (T::of(1.0) + self.value))
    }
    fn sqrt(self) -> Self {
        let root = self.value.sqrt();
        chain(self, root, T::of(0.5) / root)
    }
    fn erf(self) -> Self {
        let slope = T::of(std::f64::consts::FRAC_2_SQRT_PI) * (-(self.value * self.value)).exp();
        chain(self, self.value.erf(), slope)
    }
}
