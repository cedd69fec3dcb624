//! The shapes and settings that operations take.

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

/// The geometry of an affine layer's use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// `[h, w, c]`.
    pub input: Shape,
    /// `[oh, ow, o]`.
    pub output: Shape,
    /// Filter, stride, padding, dilation, groups.
    pub conv: Conv,
}

impl Geometry {
    /// A convolution.
    pub fn conv(input: Shape, output: Shape, conv: Conv) -> Geometry {
        Geometry { input, output, conv }
    }

    /// A linear layer at every position.
    pub fn linear(input: Shape, output: Shape) -> Geometry {
        Geometry { input, output, conv: Conv::square(1, 1, 0) }
    }

    /// The length of a weight row.
    pub fn fan_in(&self) -> usize {
        self.conv.kernel.0 * self.conv.kernel.1 * self.channels()
    }

    /// How often the taps of a group of average share read a value of the input, those in the padding taken for others.
    pub(crate) fn share_of_squares(&self) -> f64 {
        let (from, to) = (self.input.positions() as f64, self.output.positions() as f64);
        (self.conv.kernel.0 * self.conv.kernel.1) as f64 / self.conv.groups as f64 * to / from
    }

    /// Input channels of one group.
    pub(super) fn channels(&self) -> usize {
        self.input.c / self.conv.groups
    }
}

/// Rows within values: row r begins `first + r · stride` values from their beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strided {
    /// Values before the first row.
    pub first: usize,
    /// Values from the beginning of a row to that of the next; 0: the same row again and again.
    pub stride: usize,
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

impl Activation {
    /// Whether its derivative is read off its argument; that of ReLU is read off its value.
    pub fn needs_argument(self) -> bool {
        self != Activation::Relu
    }
}

/// How the operands of an affine layer's forward pass are rounded. Sums are in f32 always, and so is all else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
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

impl Precision {
    /// `f32`, `tf32`, `bf16` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }
}
