//! Networks of filters.

use super::super::init::Init;
use super::super::{alexnet, convnext, densenet, osnet, preact, regnet, resnet, vgg};
use super::plan::{Plan, Spec};
use crate::error::Result;

/// The first of these that the name is of.
pub(super) fn declare(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    for plan in [resnet, wide_resnet, alexnet, vgg, densenet, regnet, osnet, convnext] {
        if let Some(plan) = plan(init, spec)? {
            return Ok(Some(plan));
        }
    }
    Ok(None)
}

/// torchvision's ResNets, ResNeXt and wide ResNets.
fn resnet(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    // Blocks of each stage; whether they are bottlenecks; groups of the inner filter, and its channels for 64 of the stem.
    let (blocks, bottleneck, groups, inner) = match spec.name {
        "resnet18" => ([2, 2, 2, 2], false, 1, 64),
        "resnet34" => ([3, 4, 6, 3], false, 1, 64),
        "resnet50" => ([3, 4, 6, 3], true, 1, 64),
        "resnet101" => ([3, 4, 23, 3], true, 1, 64),
        "resnet152" => ([3, 8, 36, 3], true, 1, 64),
        "resnext50_32x4d" => ([3, 4, 6, 3], true, 32, 128),
        "wide_resnet50_2" => ([3, 4, 6, 3], true, 1, 128),
        _ => return Ok(None),
    };
    let (width, (side, stem)) = (spec.size(64)?, spec.stem());
    init.normed("conv1", "bn1", &[width, spec.image.c, side, side]);
    let mut last = width;
    for (stage, blocks) in blocks.into_iter().enumerate() {
        let width = width << stage;
        let (inner, outer) = if bottleneck { (width * inner / 64, 4 * width) } else { (width, width) };
        for i in 0..blocks {
            let mut conv = |k: usize, shape: [usize; 4]| {
                let name = |part: &str| format!("layer{}.{i}.{part}{k}", stage + 1);
                init.normed(&name("conv"), &name("bn"), &shape);
            };
            if bottleneck {
                conv(1, [inner, last, 1, 1]);
                conv(2, [inner, inner / groups, 3, 3]);
                conv(3, [outer, inner, 1, 1]);
            } else {
                conv(1, [outer, last, 3, 3]);
                conv(2, [outer, outer, 3, 3]);
            }
            if i == 0 && (stage > 0 || last != outer) {
                let name = |part: usize| format!("layer{}.{i}.downsample.{part}", stage + 1);
                init.normed(&name(0), &name(1), &[outer, last, 1, 1]);
            }
            last = outer;
        }
    }
    init.layer("fc", &[spec.classes, last], true);
    Ok(Some(spec.plan(&resnet::FAMILY).with("stem", stem)))
}

/// Wide ResNets (Zagoruyko & Komodakis 2016) of depth 6n + 4, `wrn-{depth}-{widening}`.
fn wide_resnet(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let numbers = spec.name.strip_prefix("wrn-").and_then(|rest| rest.split_once('-'));
    let numbers = numbers.and_then(|(depth, width)| Some((depth.parse().ok()?, width.parse().ok()?)));
    let Some((depth, widening)) = numbers.filter(|&(depth, widening): &(usize, usize)| {
        depth >= 10 && (depth - 4).is_multiple_of(6) && (1..=64).contains(&widening)
    }) else {
        return Ok(None);
    };
    init.layer("conv1", &[16, spec.image.c, 3, 3], false);
    let mut last = 16;
    for (stage, width) in [16, 32, 64].map(|width| width * widening).into_iter().enumerate() {
        for i in 0..(depth - 4) / 6 {
            let part = |part: &str| format!("block{}.layer.{i}.{part}", stage + 1);
            init.batch_norm(&part("bn1"), last);
            init.normed(&part("conv1"), &part("bn2"), &[width, last, 3, 3]);
            init.layer(&part("conv2"), &[width, width, 3, 3], false);
            if last != width {
                init.layer(&part("convShortcut"), &[width, last, 1, 1], false);
            }
            last = width;
        }
    }
    init.batch_norm("bn1", last);
    init.layer("fc", &[spec.classes, last], true);
    Ok(Some(spec.plan(&preact::FAMILY)))
}

/// torchvision's AlexNet.
fn alexnet(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    if spec.name != "alexnet" {
        return Ok(None);
    }
    let width = spec.size(64)?;
    let mut last = spec.image.c;
    for (at, side, outputs) in
        [(0, 11, width), (3, 5, 3 * width), (6, 3, 6 * width), (8, 3, 4 * width), (10, 3, 4 * width)]
    {
        init.layer(&format!("features.{at}"), &[outputs, last, side, side], true);
        last = outputs;
    }
    init.layer("classifier.1", &[64 * width, 36 * last], true);
    init.layer("classifier.4", &[64 * width, 64 * width], true);
    init.layer("classifier.6", &[spec.classes, 64 * width], true);
    Ok(Some(spec.plan(&alexnet::FAMILY)))
}

/// torchvision's VGG; for images of less than 64 pixels with the one linear layer of common CIFAR code.
fn vgg(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let bare = spec.name.strip_suffix("_bn").unwrap_or(spec.name);
    let stages = match bare {
        "vgg11" => [1, 1, 2, 2, 2],
        "vgg13" => [2, 2, 2, 2, 2],
        "vgg16" => [2, 2, 3, 3, 3],
        "vgg19" => [2, 2, 4, 4, 4],
        _ => return Ok(None),
    };
    let (normed, width) = (bare != spec.name, spec.size(64)?);
    let (mut at, mut last) = (0, spec.image.c);
    for (stage, filters) in stages.into_iter().enumerate() {
        for _ in 0..filters {
            let outputs = width << stage.min(3);
            init.layer(&format!("features.{at}"), &[outputs, last, 3, 3], true);
            if normed {
                init.batch_norm(&format!("features.{}", at + 1), outputs);
            }
            at += if normed { 3 } else { 2 }; // and ReLU
            last = outputs;
        }
        at += 1; // max pooling
    }
    // Five poolings leave one position of 32 pixels; in torchvision's, 7 x 7 are read whatever the image.
    if spec.is_small() {
        let left = (spec.image.h / 32).max(1) * (spec.image.w / 32).max(1);
        init.layer("classifier", &[spec.classes, last * left], true);
    } else {
        init.layer("classifier.0", &[64 * width, 49 * last], true);
        init.layer("classifier.3", &[64 * width, 64 * width], true);
        init.layer("classifier.6", &[spec.classes, 64 * width], true);
    }
    Ok(Some(spec.plan(&vgg::FAMILY)))
}

/// torchvision's DenseNets.
fn densenet(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let (blocks, growth) = match spec.name {
        "densenet121" => ([6, 12, 24, 16], 32),
        "densenet161" => ([6, 12, 36, 24], 48),
        "densenet169" => ([6, 12, 32, 32], 32),
        "densenet201" => ([6, 12, 48, 32], 32),
        _ => return Ok(None),
    };
    let (growth, (side, stem)) = (spec.size(growth)?, spec.stem());
    let mut width = 2 * growth;
    init.normed("features.conv0", "features.norm0", &[width, spec.image.c, side, side]);
    for (block, layers) in blocks.into_iter().enumerate() {
        for layer in 0..layers {
            let part =
                |part: &str| format!("features.denseblock{}.denselayer{}.{part}", block + 1, layer + 1);
            init.batch_norm(&part("norm1"), width);
            init.normed(&part("conv1"), &part("norm2"), &[4 * growth, width, 1, 1]);
            init.layer(&part("conv2"), &[growth, 4 * growth, 3, 3], false);
            width += growth;
        }
        if block < 3 {
            let part = |part: &str| format!("features.transition{}.{part}", block + 1);
            init.batch_norm(&part("norm"), width);
            init.layer(&part("conv"), &[width / 2, width, 1, 1], false);
            width /= 2;
        }
    }
    init.batch_norm("features.norm5", width);
    init.layer("classifier", &[spec.classes, width], true);
    Ok(Some(spec.plan(&densenet::FAMILY).with("stem", stem)))
}

/// torchvision's ConvNeXts. Its layer scales, which are not trained here, are one.
fn convnext(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let (blocks, width) = match spec.name {
        "convnext_tiny" => ([3, 3, 9, 3], 96),
        "convnext_small" => ([3, 3, 27, 3], 96),
        "convnext_base" => ([3, 3, 27, 3], 128),
        "convnext_large" => ([3, 3, 27, 3], 192),
        _ => return Ok(None),
    };
    let first = spec.size(width)?;
    init.layer("features.0.0", &[first, spec.image.c, 4, 4], true);
    init.norm("features.0.1", first);
    for (stage, blocks) in blocks.into_iter().enumerate() {
        let width = first << stage;
        if stage > 0 {
            init.norm(&format!("features.{}.0", 2 * stage), width / 2);
            init.layer(&format!("features.{}.1", 2 * stage), &[width, width / 2, 2, 2], true);
        }
        for i in 0..blocks {
            let part = |part: &str| format!("features.{}.{i}.{part}", 2 * stage + 1);
            init.tensor_of(&part("layer_scale"), &[width, 1, 1]);
            init.layer(&part("block.0"), &[width, 1, 7, 7], true);
            init.norm(&part("block.2"), width);
            init.layer(&part("block.3"), &[4 * width, width], true);
            init.layer(&part("block.5"), &[width, 4 * width], true);
        }
    }
    init.norm("classifier.0", first << 3);
    init.layer("classifier.2", &[spec.classes, first << 3], true);
    Ok(Some(spec.plan(&convnext::FAMILY)))
}

/// A RegNet's depth, first width, slope and quotient of widths, and the channels of a group (Radosavovic et al. 2020, Eq. 2 to 4).
type Design = (usize, f64, f64, f64, usize);

/// torchvision's RegNets, X and, with squeezes, Y.
fn regnet(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let (depth, first, slope, quotient, group): Design = match spec.name {
        "regnet_y_400mf" => (16, 48.0, 27.89, 2.09, 8),
        "regnet_y_800mf" => (14, 56.0, 38.84, 2.4, 16),
        "regnet_y_1_6gf" => (27, 48.0, 20.71, 2.65, 24),
        "regnet_y_3_2gf" => (21, 80.0, 42.63, 2.66, 24),
        "regnet_y_8gf" => (17, 192.0, 76.82, 2.19, 56),
        "regnet_y_16gf" => (18, 200.0, 106.23, 2.48, 112),
        "regnet_y_32gf" => (20, 232.0, 115.89, 2.53, 232),
        "regnet_y_128gf" => (27, 456.0, 160.83, 2.52, 264),
        "regnet_x_400mf" => (22, 24.0, 24.48, 2.54, 16),
        "regnet_x_800mf" => (16, 56.0, 35.73, 2.28, 16),
        "regnet_x_1_6gf" => (18, 80.0, 34.01, 2.25, 24),
        "regnet_x_3_2gf" => (25, 88.0, 26.31, 2.25, 48),
        "regnet_x_8gf" => (23, 80.0, 49.56, 2.88, 120),
        "regnet_x_16gf" => (22, 216.0, 55.59, 2.1, 128),
        "regnet_x_32gf" => (23, 320.0, 69.86, 2.0, 168),
        _ => return Ok(None),
    };
    let stem = spec.size(32)?;
    let width = |block: usize| {
        let power = ((first + slope * block as f64) / first).ln() / f64::ln(quotient);
        (first * quotient.powf(power.round_ties_even()) / 8.0).round_ties_even() as usize * 8
    };
    let widths: Vec<usize> = (0..depth).map(width).collect();
    init.normed("stem.0", "stem.1", &[stem, spec.image.c, 3, 3]);
    let mut last = stem;
    for (stage, blocks) in widths.chunk_by(|a, b| a == b).enumerate() {
        let group = (group.min(blocks[0]) * stem / 32).max(1);
        let width = multiple(blocks[0] * stem / 32, group);
        for i in 0..blocks.len() {
            let name = format!("trunk_output.block{0}.block{0}-{i}", stage + 1);
            let mut normed = |part: &str, shape: [usize; 4]| {
                init.normed(&format!("{name}.{part}.0"), &format!("{name}.{part}.1"), &shape)
            };
            if i == 0 {
                normed("proj", [width, last, 1, 1]);
            }
            normed("f.a", [width, last, 1, 1]);
            normed("f.b", [width, group, 3, 3]);
            normed("f.c", [width, width, 1, 1]);
            if spec.name.starts_with("regnet_y") {
                let squeeze = ((last as f64 / 4.0).round_ties_even() as usize).max(1);
                init.layer(&format!("{name}.f.se.fc1"), &[squeeze, width, 1, 1], true);
                init.layer(&format!("{name}.f.se.fc2"), &[width, squeeze, 1, 1], true);
            }
            last = width;
        }
    }
    init.layer("fc", &[spec.classes, last], true);
    Ok(Some(spec.plan(&regnet::FAMILY)))
}

/// The multiple of a group nearest to a width, of which a tenth at most may be lost.
fn multiple(width: usize, group: usize) -> usize {
    let nearest = ((width + group / 2) / group * group).max(group);
    if 10 * nearest < 9 * width { nearest + group } else { nearest }
}

/// torchreid's OSNets.
fn osnet(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let published = match spec.name {
        "osnet_x1_0" => 64,
        "osnet_x0_75" => 48,
        "osnet_x0_5" => 32,
        "osnet_x0_25" => 16,
        _ => return Ok(None),
    };
    let first = spec.size(published)?;
    let normed = |init: &mut Init, name: &str, shape: [usize; 4]| {
        init.normed(&format!("{name}.conv"), &format!("{name}.bn"), &shape);
    };
    normed(init, "conv1", [first, spec.image.c, 7, 7]);
    let mut last = first;
    for (stage, times) in [(2, 4), (3, 6), (4, 8)] {
        let (outer, inner) = (times * first, times * first / 4);
        for i in 0..2 {
            let name = format!("conv{stage}.{i}");
            normed(init, &format!("{name}.conv1"), [inner, last, 1, 1]);
            let lists = [("b", 2), ("c", 3), ("d", 4)]
                .into_iter()
                .flat_map(|(chain, length)| (0..length).map(move |i| format!("conv2{chain}.{i}")));
            for part in ["conv2a".to_string()].into_iter().chain(lists) {
                init.layer(&format!("{name}.{part}.conv1"), &[inner, inner, 1, 1], false);
                init.normed(&format!("{name}.{part}.conv2"), &format!("{name}.{part}.bn"), &[inner, 1, 3, 3]);
            }
            let squeeze = (inner / 16).max(1);
            init.layer(&format!("{name}.gate.fc1"), &[squeeze, inner, 1, 1], true);
            init.layer(&format!("{name}.gate.fc2"), &[inner, squeeze, 1, 1], true);
            normed(init, &format!("{name}.conv3"), [outer, inner, 1, 1]);
            if last != outer {
                normed(init, &format!("{name}.downsample"), [outer, last, 1, 1]);
            }
            last = outer;
        }
        if stage < 4 {
            normed(init, &format!("conv{stage}.2.0"), [last, last, 1, 1]);
        }
    }
    normed(init, "conv5", [last, last, 1, 1]);
    init.layer("fc.0", &[512, last], true);
    init.batch_norm("fc.1", 512);
    init.layer("classifier", &[spec.classes, 512], true);
    Ok(Some(spec.plan(&osnet::FAMILY)))
}
