//! The cases of `scrubjay bench`.

use super::case::Case;
use super::{affine, codec, layers, whole};
use crate::error::{Error, Result};
use crate::ops::Precision;

/// The case of this name.
///
/// # Errors
/// Where there is none.
pub fn case(name: &str) -> Result<&'static Case> {
    let case = CASES.iter().find(|case| case.name == name);
    case.ok_or_else(|| Error::config(format!("there is no case `{name}`")))
}

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

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::device::Device;

    /// Small sizes for every case.
    fn sizes(case: &Case) -> Vec<usize> {
        let small = |&(axis, size): &(&str, usize)| match axis {
            "copies" | "images" => 2,
            "side" => 16, // a multiple of the patches of a vision transformer
            "width" => 4,
            "depth" => 2,
            "h" | "w" => 7,
            "k" | "stride" | "heads" => size,
            "t" => 10,
            _ => size.min(24),
        };
        case.axes.iter().map(small).collect()
    }

    #[test]
    fn every_case_passes_its_check_and_counts_its_work() {
        let device = Device::on_cpu(2, "a test").unwrap();
        for case in CASES.iter().filter(|case| case.runs_on(&device)) {
            let mut work = (case.make)(&device, &sizes(case)).unwrap();
            let (check, launched) = check(&device, &mut work).unwrap();
            assert!(check.passes() && launched.is_empty(), "{}: {check:?}", case.name);
            assert!(work.bytes > 0.0, "{}", case.name);
            work.kernel.run(3).unwrap();
        }
    }

    #[cfg(feature = "emu")]
    #[test]
    fn every_case_that_cuda_has_passes_its_check_there() {
        let device = Device::emulated(2).unwrap();
        let mut count = 0;
        for case in CASES {
            let mut work = (case.make)(&device, &sizes(case)).unwrap();
            let (check, launched) = check(&device, &mut work).unwrap();
            assert!(check.passes(), "{}: {check:?}", case.name);
            let symbols: Vec<&str> = launched.iter().map(|kernel| kernel.symbol).collect();
            let expected: &[&str] = match case.name {
                "conv_dx" => &["conv_data_f32"],
                "conv_dw" => &["conv_weight_f32", "add_chunks_f32"],
                "conv_bf16" => &["conv_bf16_wide", "narrow_bf16"], // of floats, as the first layer of a network
                "conv_f16" => &["conv_f16_wide", "narrow_f16"],
                "moment_x" => &["input_moment_f32", "add_chunks_f32"],
                "moment_dz" => &["output_moment_f32", "add_chunks_f32"],
                "depthwise" => &["conv_depthwise_f32"],
                "nearest" => &["nearest_f64"],
                "pruned" => &["list_f64", "pruned_f64"],
                _ => &[],
            };
            assert!(
                !symbols.is_empty() && expected.iter().all(|symbol| symbols.contains(symbol)),
                "{symbols:?}"
            );
            assert!(
                launched.iter().all(|kernel| kernel.resources.is_none()),
                "the emulator has no registers"
            );
            work.kernel.run(3).unwrap();
            count += 1;
        }
        assert_eq!(count, CASES.len());
    }
}
