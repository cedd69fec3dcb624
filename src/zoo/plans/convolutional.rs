//! Networks of filters.

use super::super::init::Init;
use super::super::{convnext, densenet, mobilenet, preact, resnet, vgg};
use super::plan::{Plan, Spec};
use crate::error::Result;

/// The first of these that the name is of.
pub(super) fn declare(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    for plan in [resnet, wide_resnet, vgg, densenet, mobilenet_v2, convnext] {
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

/// torchvision's MobileNetV2.
fn mobilenet_v2(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    if spec.name != "mobilenet_v2" || !spec.sizes.is_empty() {
        return Ok(None);
    }
    init.normed("features.0.0", "features.0.1", &[32, spec.image.c, 3, 3]);
    let (mut last, mut at) = (32, 1);
    // Times wider within, channels, blocks.
    for (wider, width, blocks) in
        [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    {
        for _ in 0..blocks {
            let part = |part: &str| format!("features.{at}.conv.{part}");
            let inner = wider * last;
            let mut k = 0;
            if wider > 1 {
                init.normed(&part("0.0"), &part("0.1"), &[inner, last, 1, 1]);
                k = 1;
            }
            init.normed(&part(&format!("{k}.0")), &part(&format!("{k}.1")), &[inner, 1, 3, 3]);
            init.normed(&part(&format!("{}", k + 1)), &part(&format!("{}", k + 2)), &[width, inner, 1, 1]);
            (last, at) = (width, at + 1);
        }
    }
    init.normed("features.18.0", "features.18.1", &[1280, last, 1, 1]);
    init.layer("classifier.1", &[spec.classes, 1280], true);
    Ok(Some(spec.plan(&mobilenet::FAMILY_2)))
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
