//! The CIFAR ResNets of He et al. (2016), depth 6n + 2: three stages of n blocks, the second and third halving the
//! image; a shortcut across them has no parameters (option A).
//!
//! ```text
//! conv1 bn1 | layer{1,2,3}.{i}.{conv1 bn1 conv2 bn2} | linear
//! ```

use serde_json::Value;

use super::rows;
use crate::Result;
use crate::net::{Builder, Conv, Network, Shape, Source};

pub(super) fn fits(source: &dyn Source) -> bool {
    let has_any = |names: &[&str]| names.iter().any(|name| source.has(name));
    let body =
        ["conv1.weight", "layer1.0.conv1.weight", "layer3.0.conv2.weight"].iter().all(|n| source.has(n));
    // A model that lacks only its head is still of this family: the message is then about the head.
    body && (source.has("linear.weight") || !has_any(&["fc.weight", "layer4.0.conv1.weight"]))
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, _: &Value, _: &[String]) -> Result<Network> {
    let (mut b, x) = Builder::new(source, image);
    let width = rows(&b, "conv1.weight")?;
    let x = b.conv(x, "conv1", width, Conv::square(3, 1, 1))?;
    let x = b.batch_norm(x, "bn1")?;
    let mut x = b.relu(x);
    for stage in 1..=3 {
        for block in 0.. {
            let name = |part: &str| format!("layer{stage}.{block}.{part}");
            if !b.has(&name("conv1.weight")) {
                break;
            }
            let stride = if stage > 1 && block == 0 { 2 } else { 1 };
            let width = rows(&b, &name("conv1.weight"))?;
            let y = b.conv(x, &name("conv1"), width, Conv::square(3, stride, 1))?;
            let y = b.batch_norm(y, &name("bn1"))?;
            let y = b.relu(y);
            let y = b.conv(y, &name("conv2"), width, Conv::square(3, 1, 1))?;
            let y = b.batch_norm(y, &name("bn2"))?;
            let across = match stride == 1 && width == b.shape(x).c {
                true => x,
                false => b.shortcut(x, stride, width)?,
            };
            let y = b.add(y, across)?;
            x = b.relu(y);
        }
    }
    let x = b.global_pool(x);
    let classes = rows(&b, "linear.weight")?;
    let x = b.linear(x, "linear", classes)?;
    b.finish(x)
}
