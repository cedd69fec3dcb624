//! The types of values in device memory, as `kernels/common/element.h` has them.

use half::{bf16, f16};

/// A type of values in device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Element {
    /// f32.
    #[default]
    F32,
    /// 8 bits of exponent, 7 of mantissa.
    Bf16,
    /// 5 bits of exponent, 10 of mantissa.
    F16,
}

impl Element {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 | Element::F16 => 2,
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::Bf16 => "bf16",
            Element::F16 => "f16",
        }
    }
}

/// A value that kernels keep in memory, in any of the types.
pub trait Scalar: Copy + 'static {
    /// Its type.
    const ELEMENT: Element;
    /// Of a family of kernels with one for each type, the number of the one for this.
    const ROW: usize;
}

/// A value of 16 bits.
pub trait Half: Scalar {
    /// Of a family of kernels with one for each type of 16 bits, the number of the one for this.
    const ROW: usize;
}

impl Scalar for f32 {
    const ELEMENT: Element = Element::F32;
    const ROW: usize = 0;
}

impl Scalar for bf16 {
    const ELEMENT: Element = Element::Bf16;
    const ROW: usize = 1;
}

impl Scalar for f16 {
    const ELEMENT: Element = Element::F16;
    const ROW: usize = 2;
}

impl Half for bf16 {
    const ROW: usize = 0;
}

impl Half for f16 {
    const ROW: usize = 1;
}
