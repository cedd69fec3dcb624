//! ResNets as torchvision and timm name them (He et al. 2016, bottlenecks with the stride in the 3×3 filter), ResNeXt
//! and wide ones included. A 7×7 stem has stride 2 and max pooling behind it; a 3×3 stem, as trained on CIFAR, neither.
//!
//! ```text
//! conv1 bn1 | layer{1..4}.{i}.{conv1 bn1 conv2 bn2 [conv3 bn3] [downsample.0 downsample.1]} | fc
//! ```

use serde_json::Value;

use super::rows;
use crate::Result;
use crate::net::{Builder, Conv, Network, NodeId, Shape, Source, Window};

pub(super) fn fits(source: &dyn Source) -> bool {
    ["conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight"].iter().all(|name| source.has(name))
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, _: &Value, _: &[String]) -> Result<Network> {
    let (mut b, x) = Builder::new(source, image);
    let (width, kernel) = (rows(&b, "conv1.weight")?, b.side("conv1.weight", 2)?);
    let stem = if kernel == 7 { Conv::square(7, 2, 3) } else { Conv::square(kernel, 1, kernel / 2) };
    let x = b.conv(x, "conv1", width, stem)?;
    let x = b.batch_norm(x, "bn1")?;
    let mut x = b.relu(x);
    if kernel == 7 {
        x = b.max_pool(x, Window { size: 3, stride: 2, padding: 1 })?;
    }
    for stage in 1..=4 {
        for i in 0.. {
            if !b.has(&format!("layer{stage}.{i}.conv1.weight")) {
                break;
            }
            let stride = if stage > 1 && i == 0 { 2 } else { 1 };
            x = block(&mut b, x, &format!("layer{stage}.{i}"), stride)?;
        }
    }
    let x = b.global_pool(x);
    let classes = rows(&b, "fc.weight")?;
    let x = b.linear(x, "fc", classes)?;
    b.finish(x)
}

fn block(b: &mut Builder, x: NodeId, name: &str, stride: usize) -> Result<NodeId> {
    let bottleneck = b.has(&format!("{name}.conv3.weight"));
    let strides = if bottleneck { [1, stride, 1] } else { [stride, 1, 1] };
    let mut y = x;
    for (i, stride) in (1..=if bottleneck { 3 } else { 2 }).zip(strides) {
        let weight = format!("{name}.conv{i}.weight");
        let (outputs, inner, kernel) = (rows(b, &weight)?, b.side(&weight, 1)?, b.side(&weight, 2)?);
        if i > 1 {
            y = b.relu(y);
        }
        let groups = b.shape(y).c / inner.max(1);
        y = b.conv(
            y,
            &format!("{name}.conv{i}"),
            outputs,
            Conv { groups, ..Conv::square(kernel, stride, kernel / 2) },
        )?;
        y = b.batch_norm(y, &format!("{name}.bn{i}"))?;
    }
    let mut across = x;
    if b.has(&format!("{name}.downsample.0.weight")) {
        let outputs = b.shape(y).c;
        across = b.conv(x, &format!("{name}.downsample.0"), outputs, Conv::square(1, stride, 0))?;
        across = b.batch_norm(across, &format!("{name}.downsample.1"))?;
    }
    let y = b.add(y, across)?;
    Ok(b.relu(y))
}
