//! The cases of `scrubjay bench`.

use super::{Case, affine, codec, layers, whole};
use crate::ops::Precision;

/// Every kernel that can be timed.
pub const CASES: &[Case] = &[
    Case {
        name: "copy",
        about: "y = 1 x + 0, the measure of bandwidth",
        dtype: "f32",
        axes: &[("len", 1 << 25)],
        make: layers::copy,
    },
    Case {
        name: "perturb",
        about: "noisy copies of an image: Philox, Box and Muller",
        dtype: "f32",
        axes: &[("m", 1000), ("len", 3 * 32 * 32)],
        make: layers::perturbed,
    },
    Case {
        name: "linear",
        about: "y [m, o] = x [m, c] times weights [o, c]",
        dtype: "f32",
        axes: &[("m", 1024), ("c", 1024), ("o", 1024)],
        make: affine::linear,
    },
    Case {
        name: "conv",
        about: "convolution with filters of k by k",
        dtype: "f32",
        axes: CONV,
        make: |device, sizes| affine::convolution(device, sizes, Precision::F32),
    },
    Case {
        name: "conv_tf32",
        about: "the same of operands rounded to tf32",
        dtype: "tf32",
        axes: CONV,
        make: |device, sizes| affine::convolution(device, sizes, Precision::Tf32),
    },
    Case {
        name: "conv_bf16",
        about: "the same of operands rounded to bf16",
        dtype: "bf16",
        axes: CONV,
        make: |device, sizes| affine::convolution(device, sizes, Precision::Bf16),
    },
    Case {
        name: "conv_f16",
        about: "the same of operands rounded to f16",
        dtype: "f16",
        axes: CONV,
        make: |device, sizes| affine::convolution(device, sizes, Precision::F16),
    },
    Case {
        name: "conv_dx",
        about: "its adjoint to the input",
        dtype: "f32",
        axes: CONV,
        make: affine::data_gradient,
    },
    Case {
        name: "conv_dw",
        about: "its gradient to the weights",
        dtype: "f32",
        axes: CONV,
        make: affine::weight_gradient,
    },
    Case {
        name: "moment_x",
        about: "x x^T of what its taps read, for K-FAC",
        dtype: "f32",
        axes: CONV,
        make: affine::input_moment,
    },
    Case {
        name: "moment_dz",
        about: "dz dz^T of its output channels, for K-FAC",
        dtype: "f32",
        axes: CONV,
        make: affine::output_moment,
    },
    Case {
        name: "depthwise",
        about: "convolution with a filter of k by k for each channel",
        dtype: "f32",
        axes: &[("n", 64), ("h", 16), ("w", 16), ("c", 128), ("k", 3), ("stride", 1)],
        make: affine::depthwise,
    },
    Case {
        name: "layer_norm",
        about: "layer norm over c channels of n positions",
        dtype: "f32",
        axes: &[("n", 64 * 197), ("c", 768)],
        make: layers::normed,
    },
    Case {
        name: "attention",
        about: "attention of n sequences of t tokens of c channels",
        dtype: "f32",
        axes: &[("n", 16), ("t", 197), ("c", 384), ("heads", 6)],
        make: layers::attended,
    },
    Case {
        name: "cross_entropy",
        about: "the loss of n rows of logits",
        dtype: "f32",
        axes: &[("n", 65_536), ("classes", 100)],
        make: layers::losses,
    },
    Case {
        name: "foci",
        about: "k greedy steps on n rows and p columns",
        dtype: "f32",
        axes: &[("n", 1000), ("p", 1000), ("k", 3)],
        make: codec::selected,
    },
    Case {
        name: "nearest",
        about: "a step of it with k columns chosen: all rows searched",
        dtype: "f64",
        axes: STEP,
        make: |device, sizes| codec::search(device, sizes, false),
    },
    Case {
        name: "pruned",
        about: "the same step: lists of the nearest rows made and searched",
        dtype: "f64",
        axes: STEP,
        make: |device, sizes| codec::search(device, sizes, true),
    },
    Case {
        name: "foci_step",
        about: "a whole step, as a selection takes it: search, sums, best",
        dtype: "f64",
        axes: STEP,
        make: codec::foci_step,
    },
    Case {
        name: "resnet50",
        about: "ResNet-50 over noisy copies: losses, units' means",
        dtype: "f32",
        axes: whole::RESNET,
        make: |device, sizes| whole::copies(device, whole::resnet50(sizes)?, sizes, Precision::F32),
    },
    Case {
        name: "resnet50_bf16",
        about: "the same of operands rounded to bf16",
        dtype: "bf16",
        axes: whole::RESNET,
        make: |device, sizes| whole::copies(device, whole::resnet50(sizes)?, sizes, Precision::Bf16),
    },
    Case {
        name: "resnet50_g",
        about: "its mean gradient over images, of all units",
        dtype: "f32",
        axes: whole::DERIVED,
        make: |device, sizes| whole::gradient(device, whole::resnet50(sizes)?, sizes),
    },
    Case {
        name: "resnet50_hv",
        about: "its Hessian by a vector, as in a solver's loop",
        dtype: "f32",
        axes: whole::DERIVED,
        make: |device, sizes| whole::product(device, whole::resnet50(sizes)?, sizes),
    },
    Case {
        name: "vit16",
        about: "ViT-B/16 over noisy copies: losses, units' means",
        dtype: "f32",
        axes: whole::VIT,
        make: |device, sizes| whole::copies(device, whole::vit16(sizes)?, sizes, Precision::F32),
    },
    Case {
        name: "vit16_bf16",
        about: "the same of operands rounded to bf16",
        dtype: "bf16",
        axes: whole::VIT,
        make: |device, sizes| whole::copies(device, whole::vit16(sizes)?, sizes, Precision::Bf16),
    },
];

const STEP: &[(&str, usize)] = &[("n", 4096), ("p", 1000), ("k", 2)];

const CONV: &[(&str, usize)] =
    &[("n", 64), ("h", 16), ("w", 16), ("c", 128), ("o", 128), ("k", 3), ("stride", 1)];
