//! Networks of inverted residuals: MobileNets and EfficientNets, as torchvision names and sizes them.

use super::super::init::Init;
use super::super::{efficientnet, efficientnet_v2, mobilenet};
use super::plan::{Plan, Spec};
use crate::error::Result;

/// The first of these that the name is of.
pub(super) fn declare(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    for plan in [mobilenet_v2, mobilenet_v3, efficientnet, efficientnet_v2] {
        if let Some(plan) = plan(init, spec)? {
            return Ok(Some(plan));
        }
    }
    Ok(None)
}

/// The multiple of 8 nearest to a number of channels, of which a tenth at most may be lost.
fn eights(channels: f64) -> usize {
    let nearest = ((channels + 4.0) as usize / 8 * 8).max(8);
    if (nearest as f64) < 0.9 * channels { nearest + 8 } else { nearest }
}

/// A block: channels within, of its depthwise filter and that filter's side; of its squeeze, 0 where there is none; and behind
/// it.
struct Block {
    inner: usize,
    side: usize,
    squeeze: usize,
    outer: usize,
}

/// Declares a block below a name, behind `last` channels.
fn inverted(init: &mut Init, name: &str, last: usize, block: &Block) {
    let Block { inner, side, squeeze, outer } = *block;
    let mut k = 0;
    let mut normed = |k: usize, shape: [usize; 4]| {
        init.normed(&format!("{name}.{k}.0"), &format!("{name}.{k}.1"), &shape);
    };
    if inner != last {
        normed(0, [inner, last, 1, 1]);
        k = 1;
    }
    normed(k, [inner, 1, side, side]);
    if squeeze > 0 {
        init.layer(&format!("{name}.{}.fc1", k + 1), &[squeeze, inner, 1, 1], true);
        init.layer(&format!("{name}.{}.fc2", k + 1), &[inner, squeeze, 1, 1], true);
        k += 1;
    }
    init.normed(&format!("{name}.{}.0", k + 1), &format!("{name}.{}.1", k + 1), &[outer, inner, 1, 1]);
}

/// torchvision's MobileNetV2.
fn mobilenet_v2(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    if spec.name != "mobilenet_v2" {
        return Ok(None);
    }
    let wider = spec.size(32)? as f64 / 32.0;
    let stem = eights(32.0 * wider);
    init.normed("features.0.0", "features.0.1", &[stem, spec.image.c, 3, 3]);
    let (mut last, mut at) = (stem, 1);
    // Times wider within, channels, blocks.
    for (within, width, blocks) in
        [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    {
        for _ in 0..blocks {
            let part = |part: &str| format!("features.{at}.conv.{part}");
            let (inner, outer) = (within * last, eights(f64::from(width) * wider));
            let mut k = 0;
            if within > 1 {
                init.normed(&part("0.0"), &part("0.1"), &[inner, last, 1, 1]);
                k = 1;
            }
            init.normed(&part(&format!("{k}.0")), &part(&format!("{k}.1")), &[inner, 1, 3, 3]);
            init.normed(&part(&format!("{}", k + 1)), &part(&format!("{}", k + 2)), &[outer, inner, 1, 1]);
            (last, at) = (outer, at + 1);
        }
    }
    let features = eights(1280.0 * wider.max(1.0));
    init.normed("features.18.0", "features.18.1", &[features, last, 1, 1]);
    init.layer("classifier.1", &[spec.classes, features], true);
    Ok(Some(spec.plan(&mobilenet::FAMILY_2)))
}

/// Channels within and behind each block, the side of its depthwise filter, and whether it has a squeeze.
type Row = (usize, usize, usize, bool);

const LARGE: [Row; 15] = [
    (16, 16, 3, false),
    (64, 24, 3, false),
    (72, 24, 3, false),
    (72, 40, 5, true),
    (120, 40, 5, true),
    (120, 40, 5, true),
    (240, 80, 3, false),
    (200, 80, 3, false),
    (184, 80, 3, false),
    (184, 80, 3, false),
    (480, 112, 3, true),
    (672, 112, 3, true),
    (672, 160, 5, true),
    (960, 160, 5, true),
    (960, 160, 5, true),
];

const SMALL: [Row; 11] = [
    (16, 16, 3, true),
    (72, 24, 3, false),
    (88, 24, 3, false),
    (96, 40, 5, true),
    (240, 40, 5, true),
    (240, 40, 5, true),
    (120, 48, 5, true),
    (144, 48, 5, true),
    (288, 96, 5, true),
    (576, 96, 5, true),
    (576, 96, 5, true),
];

/// torchvision's MobileNetV3.
fn mobilenet_v3(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let (blocks, features) = match spec.name {
        "mobilenet_v3_large" => (&LARGE[..], 1280.0),
        "mobilenet_v3_small" => (&SMALL[..], 1024.0),
        _ => return Ok(None),
    };
    let wider = spec.size(16)? as f64 / 16.0;
    let scaled = |channels: usize| eights(channels as f64 * wider);
    let mut last = scaled(16);
    init.normed("features.0.0", "features.0.1", &[last, spec.image.c, 3, 3]);
    for (i, &(inner, outer, side, squeezes)) in blocks.iter().enumerate() {
        let (inner, outer) = (scaled(inner), scaled(outer));
        let squeeze = if squeezes { eights((inner / 4) as f64) } else { 0 };
        inverted(init, &format!("features.{}.block", i + 1), last, &Block { inner, side, squeeze, outer });
        last = outer;
    }
    let (end, features) = (format!("features.{}", blocks.len() + 1), eights(features * wider));
    init.normed(&format!("{end}.0"), &format!("{end}.1"), &[6 * last, last, 1, 1]);
    init.layer("classifier.0", &[features, 6 * last], true);
    init.layer("classifier.3", &[spec.classes, features], true);
    Ok(Some(spec.plan(&mobilenet::FAMILY_3)))
}

/// torchvision's EfficientNets B0 to B7.
fn efficientnet(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    // How much wider and deeper than B0.
    let (wider, deeper) = match spec.name {
        "efficientnet_b0" => (1.0, 1.0),
        "efficientnet_b1" => (1.0, 1.1),
        "efficientnet_b2" => (1.1, 1.2),
        "efficientnet_b3" => (1.2, 1.4),
        "efficientnet_b4" => (1.4, 1.8),
        "efficientnet_b5" => (1.6, 2.2),
        "efficientnet_b6" => (1.8, 2.6),
        "efficientnet_b7" => (2.0, 3.1),
        _ => return Ok(None),
    };
    let published = eights(32.0 * wider);
    let wider = wider * spec.size(published)? as f64 / published as f64;
    let scaled = |channels: usize| eights(channels as f64 * wider);
    let mut last = scaled(32);
    init.normed("features.0.0", "features.0.1", &[last, spec.image.c, 3, 3]);
    // Times wider within, side of the depthwise filter, channels, blocks.
    let stages = [
        (1, 3, 16, 1),
        (6, 3, 24, 2),
        (6, 5, 40, 2),
        (6, 3, 80, 3),
        (6, 5, 112, 3),
        (6, 5, 192, 4),
        (6, 3, 320, 1),
    ];
    for (stage, (within, side, width, blocks)) in stages.into_iter().enumerate() {
        let outer = scaled(width);
        for i in 0..(f64::from(blocks) * deeper).ceil() as usize {
            let block =
                Block { inner: eights((within * last) as f64), side, squeeze: (last / 4).max(1), outer };
            inverted(init, &format!("features.{}.{i}.block", stage + 1), last, &block);
            last = outer;
        }
    }
    init.normed("features.8.0", "features.8.1", &[4 * last, last, 1, 1]);
    init.layer("classifier.1", &[spec.classes, 4 * last], true);
    Ok(Some(spec.plan(&efficientnet::FAMILY)))
}

/// A stage of an EfficientNetV2: times wider within, channels, blocks. Three of fused blocks come first.
type Stage = (usize, usize, usize);

/// torchvision's EfficientNetV2.
fn efficientnet_v2(init: &mut Init, spec: &Spec) -> Result<Option<Plan>> {
    let (published, stages): (usize, &[Stage]) = match spec.name {
        "efficientnet_v2_s" => {
            (24, &[(1, 24, 2), (4, 48, 4), (4, 64, 4), (4, 128, 6), (6, 160, 9), (6, 256, 15)])
        }
        "efficientnet_v2_m" => {
            (24, &[(1, 24, 3), (4, 48, 5), (4, 80, 5), (4, 160, 7), (6, 176, 14), (6, 304, 18), (6, 512, 5)])
        }
        "efficientnet_v2_l" => {
            (32, &[(1, 32, 4), (4, 64, 7), (4, 96, 7), (4, 192, 10), (6, 224, 19), (6, 384, 25), (6, 640, 7)])
        }
        _ => return Ok(None),
    };
    let wider = spec.size(published)? as f64 / published as f64;
    let scaled = |channels: usize| eights(channels as f64 * wider);
    let mut last = scaled(published);
    init.normed("features.0.0", "features.0.1", &[last, spec.image.c, 3, 3]);
    for (stage, &(within, width, blocks)) in stages.iter().enumerate() {
        let outer = scaled(width);
        for i in 0..blocks {
            let (name, inner) = (format!("features.{}.{i}.block", stage + 1), eights((within * last) as f64));
            let part = |k: usize, part: usize| format!("{name}.{k}.{part}");
            match (stage < 3, inner == last) {
                (true, true) => init.normed(&part(0, 0), &part(0, 1), &[outer, last, 3, 3]),
                (true, false) => {
                    init.normed(&part(0, 0), &part(0, 1), &[inner, last, 3, 3]);
                    init.normed(&part(1, 0), &part(1, 1), &[outer, inner, 1, 1]);
                }
                (false, _) => {
                    let block = Block { inner, side: 3, squeeze: (last / 4).max(1), outer };
                    inverted(init, &name, last, &block);
                }
            }
            last = outer;
        }
    }
    let (end, features) = (format!("features.{}", stages.len() + 1), scaled(1280));
    init.normed(&format!("{end}.0"), &format!("{end}.1"), &[features, last, 1, 1]);
    init.layer("classifier.1", &[spec.classes, features], true);
    Ok(Some(spec.plan(&efficientnet_v2::FAMILY)))
}
