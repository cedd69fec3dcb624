//! The shapes and settings that operations take.

use crate::names::names;

/// What one node gives per image: `h × w` positions of `c` channels. Tokens are `1 × t`, plain features `1 × 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Height.
    pub h: usize,
    /// Width, or tokens.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// `h × w` positions of `c` channels.
    pub const fn new(h: usize, w: usize, c: usize) -> Shape {
        Shape { h, w, c }
    }

    /// `h · w`.
    pub const fn positions(self) -> usize {
        self.h * self.w
    }

    /// `h · w · c`, the floats of one image.
    pub const fn len(self) -> usize {
        self.h * self.w * self.c
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// The geometry of a convolution; its input and output channels follow from the node and the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Filter height and width.
    pub kernel: (usize, usize),
    /// Step in both directions.
    pub stride: usize,
    /// Zero padding on each side.
    pub padding: (usize, usize),
    /// Distance between filter taps.
    pub dilation: usize,
    /// Independent channel groups.
    pub groups: usize,
}

impl Conv {
    /// An ungrouped, undilated square convolution.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Conv {
        Conv { kernel: (kernel, kernel), stride, padding: (padding, padding), dilation: 1, groups: 1 }
    }
}

/// A pooling window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the square window.
    pub size: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Padding on each side: −∞ for max, and for average zeros that count in the mean (PyTorch's default).
    pub padding: usize,
}

/// A pointwise nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0); its derivative at 0 is 0.
    Relu,
    /// x Φ(x), by erf.
    Gelu,
    /// x σ(x).
    Silu,
    /// σ(x).
    Sigmoid,
    /// tanh(x).
    Tanh,
    /// log(1 + eˣ).
    Softplus,
}

/// How the operands of an affine layer's forward pass are rounded. Sums are in f32 always, and so is all else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As exact as f32: every value in two parts of tf32.
    #[default]
    F32,
    /// 10 bits of mantissa.
    Tf32,
    /// 7 bits of mantissa.
    Bf16,
    /// 10 bits of mantissa, values up to 65504.
    F16,
}

names!(Precision { F32 = "f32", Tf32 = "tf32", Bf16 = "bf16", F16 = "f16" });
