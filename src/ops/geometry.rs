//! The shapes and settings that operations take.

use crate::device::Device;
use crate::error::{Error, Result};
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

    /// `h · w · c`, the values of one image.
    pub const fn len(self) -> usize {
        self.h * self.w * self.c
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What one input of a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// An image, normalised, NHWC.
    Image(Shape),
    /// A text: a sequence of this many token ids, and its mask.
    Text {
        /// t.
        tokens: usize,
    },
}

impl InputKind {
    /// The shape that an input has in memory: the image's, or a row of t ids and one of t words of mask.
    pub const fn shape(self) -> Shape {
        match self {
            InputKind::Image(shape) => shape,
            InputKind::Text { tokens } => Shape::new(2, tokens, 1),
        }
    }
}

impl From<Shape> for InputKind {
    fn from(image: Shape) -> InputKind {
        InputKind::Image(image)
    }
}

impl std::fmt::Display for InputKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InputKind::Image(Shape { h, w, c }) => write!(f, "images of {h}x{w} and {c} channels"),
            InputKind::Text { tokens } => write!(f, "texts of {tokens} tokens"),
        }
    }
}

/// The geometry of a convolution; its input and output channels follow from the node and the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Filter height and width.
    pub kernel: (usize, usize),
    /// Step in both directions.
    pub stride: usize,
    /// Zero padding above and below, and to the left and right.
    pub padding: (usize, usize),
    /// Further zeros below, and to the right; fewer where negative.
    pub further: (isize, isize),
    /// Distance between filter taps.
    pub dilation: usize,
    /// Independent channel groups.
    pub groups: usize,
}

impl Conv {
    /// An ungrouped, undilated square convolution.
    pub const fn square(kernel: usize, stride: usize, padding: usize) -> Conv {
        let padding = (padding, padding);
        Conv { kernel: (kernel, kernel), stride, padding, further: (0, 0), dilation: 1, groups: 1 }
    }

    /// Zero padding below, and to the right.
    pub fn behind(&self) -> (usize, usize) {
        behind(self.padding, self.further)
    }

    /// Padded as TensorFlow does by SAME: the output has as many positions as strides begin in an image of these sides, and
    /// where the zeros for it are odd in number, one more is below, or to the right.
    pub fn same(self, h: usize, w: usize) -> Conv {
        let along = |size: usize, kernel: usize| {
            let covered =
                (size.div_ceil(self.stride).max(1) - 1) * self.stride + (kernel - 1) * self.dilation + 1;
            let zeros = covered.saturating_sub(size);
            (zeros / 2, (zeros % 2) as isize)
        };
        let (down, right) = (along(h, self.kernel.0), along(w, self.kernel.1));
        Conv { padding: (down.0, right.0), further: (down.1, right.1), ..self }
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

    /// Whether every group has one input channel, and there are several.
    pub fn is_depthwise(&self) -> bool {
        self.conv.groups > 1 && self.conv.groups == self.input.c
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

/// Padding at the end of both sides.
fn behind(padding: (usize, usize), further: (isize, isize)) -> (usize, usize) {
    (padding.0.saturating_add_signed(further.0), padding.1.saturating_add_signed(further.1))
}

/// The windows of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns of a window.
    pub size: (usize, usize),
    /// Step in both directions.
    pub stride: usize,
    /// Padding above and below, and to the left and right: −∞ for max, zeros for an average.
    pub padding: (usize, usize),
    /// Further padding below, and to the right; less where negative.
    pub further: (isize, isize),
    /// Whether the last window of a side may reach beyond the padding (PyTorch's `ceil_mode`).
    pub ceil: bool,
    /// Whether an average counts the zeros of the padding (`count_include_pad`). What lies beyond the padding never counts.
    pub counts_padding: bool,
}

impl Window {
    /// Square windows, as PyTorch takes them by default.
    pub const fn square(size: usize, stride: usize, padding: usize) -> Window {
        let (size, padding) = ((size, size), (padding, padding));
        Window { size, stride, padding, further: (0, 0), ceil: false, counts_padding: true }
    }

    /// How many windows an image has downwards and to the right; `None` where one would hold nothing of the image.
    pub fn over(&self, h: usize, w: usize) -> Option<(usize, usize)> {
        let along = |image: usize, size: usize, padding: usize, further: isize| {
            let padded = padding.checked_add_signed(further)?.checked_add(padding)?.checked_add(image)?;
            let (way, within) = (padded.checked_sub(size)?, image + padding);
            let floor = way.checked_div(self.stride)?;
            // One more where it begins before the padding at the end does.
            let more = self.ceil && floor * self.stride < way && (floor + 1) * self.stride < within;
            let last = floor + usize::from(more);
            (padding < size && last * self.stride < within).then_some(last + 1)
        };
        let down = along(h, self.size.0, self.padding.0, self.further.0)?;
        Some((down, along(w, self.size.1, self.padding.1, self.further.1)?))
    }

    /// Rows and columns of an `h × w` image with what an average counts of its padding; `None` where that is nothing.
    pub(crate) fn counted(&self, h: usize, w: usize) -> Option<(usize, usize)> {
        let ((down, right), (below, beside)) = (self.padding, behind(self.padding, self.further));
        self.counts_padding.then_some((h + down + below, w + right + beside))
    }
}

/// A pointwise nonlinearity. Where one has a kink, its derivatives there are those of PyTorch's autograd.
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
    /// x · clamp(x + 3, 0, 6) / 6; its derivative at −3 is 0 and at 3 is 1, its second there 0 (PyTorch up to 2.6 has
    /// −1/2 and 3/2 for the first).
    HardSwish,
    /// clamp(x + 3, 0, 6) / 6; its derivative at −3 and 3 is 0.
    HardSigmoid,
    /// clamp(x, 0, 6); its derivative at 0 and 6 is 0.
    Relu6,
    /// x σ(1.702 x).
    QuickGelu,
    /// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
    GeluTanh,
}

impl Activation {
    /// Every activation, in the order of their numbers in kernels/activation.cu.
    pub const ALL: [Activation; 11] = [
        Activation::Relu,
        Activation::Gelu,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Softplus,
        Activation::HardSwish,
        Activation::HardSigmoid,
        Activation::Relu6,
        Activation::QuickGelu,
        Activation::GeluTanh,
    ];

    /// The words that configs have for it, the one used here first.
    fn words(self) -> &'static [&'static str] {
        match self {
            Activation::Relu => &["relu"],
            Activation::Gelu => &["gelu", "gelu_python"],
            Activation::Silu => &["silu", "swish"],
            Activation::Sigmoid => &["sigmoid"],
            Activation::Tanh => &["tanh"],
            Activation::Softplus => &["softplus"],
            Activation::HardSwish => &["hard_swish", "hardswish"],
            Activation::HardSigmoid => &["hard_sigmoid", "hardsigmoid"],
            Activation::Relu6 => &["relu6"],
            Activation::QuickGelu => &["quick_gelu"],
            Activation::GeluTanh => {
                &["gelu_tanh", "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate"]
            }
        }
    }

    /// Its name, as in `hard_swish`.
    pub fn name(self) -> &'static str {
        self.words()[0]
    }

    /// The activation that a config calls so: by its name here, or Hugging Face's or PyTorch's word for it.
    pub fn named(word: &str) -> Option<Activation> {
        Activation::ALL.into_iter().find(|activation| activation.words().contains(&word))
    }

    /// The names of all, for messages.
    pub fn names() -> String {
        Activation::ALL.map(Activation::name).join(", ")
    }
}

impl Activation {
    /// Whether its derivative is read off its argument; that of ReLU is read off its value.
    pub fn needs_argument(self) -> bool {
        self != Activation::Relu
    }
}

/// How the operands of an affine layer's forward pass are rounded. Sums are in f32 always; in bf16 and f16 the values of a
/// perturbation pass are in memory in that type where every instruction that uses them accepts that.
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

names!(Precision {
    F32 = "f32": "23 bits of mantissa",
    Tf32 = "tf32": "10 bits of mantissa",
    Bf16 = "bf16": "7 bits of mantissa",
    F16 = "f16": "10 bits of mantissa, values up to 65504",
});

impl Precision {
    /// Refuses a precision that a device does not have.
    ///
    /// # Errors
    /// Where it is below f32 and the device is the CPU.
    pub fn check(self, device: &Device) -> Result<()> {
        match device.cuda() {
            None if self != Precision::F32 => {
                let reason = "needs CUDA; the CPU observes in f32";
                Err(Error::config(format!("--precision {} {reason} ({})", self.name(), device.why())))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_activation_has_its_number_and_words_of_its_own() {
        let mut words: Vec<&str> = vec![];
        for (i, activation) in Activation::ALL.into_iter().enumerate() {
            assert_eq!(activation as usize, i);
            assert_eq!(Activation::named(activation.name()), Some(activation));
            words.extend(activation.words());
        }
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
        assert_eq!(Activation::named("swish"), Some(Activation::Silu));
        assert_eq!(Activation::named("mish"), None);
    }
}
