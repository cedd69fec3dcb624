//! Where in an image a convolutional network is active.

use super::cpu::{Arena, Run};
use super::plan::Plan;
use super::program::Section;
use super::{Network, NodeId, Op};
use crate::data::Inputs;
use crate::device::Device;
use crate::error::{Error, Result};

/// The fewest rows and columns of an output that is worth a map.
const SIDE: usize = 4;

/// The node of the last convolution with an output of at least 4 by 4 positions; none of a network with attention, or
/// without such a convolution.
pub fn mapped(net: &Network) -> Option<NodeId> {
    let attends = net.nodes.iter().any(|node| matches!(node.op, Op::Attention { .. }));
    let fits = |at: &usize| {
        let node = &net.nodes[*at];
        matches!(node.op, Op::Conv(..)) && node.shape.h.min(node.shape.w) >= SIDE
    };
    (0..net.nodes.len()).rev().find(fits).filter(|_| !attends).map(|at| NodeId(at as u32))
}

/// The mean over channels of the absolute output of a node, `[n, h, w]`; computed on the CPU.
///
/// # Errors
/// Where an input cannot be read, or is none of the network's.
pub fn activation_maps(
    device: &Device,
    net: &Network,
    inputs: &dyn Inputs,
    node: NodeId,
) -> Result<Vec<f32>> {
    let (n, shape) = (inputs.len(), net.nodes[node.index()].shape);
    let mut plan = Plan::forward(net, n)?;
    plan.program.unshare();
    let name = format!("y{}", node.index());
    let value =
        plan.program.named(&name).ok_or_else(|| Error::config(format!("the program has no {name}")))?;
    let mut maps = Vec::with_capacity(n * shape.h * shape.w);
    device.scope(|| {
        let mut arena = Arena::new(&plan);
        for first in (0..n).step_by(plan.chunk) {
            let count = arena.fill(net, &plan, inputs, first..n.min(first + plan.chunk))?;
            let mut run = Run::new(net, &plan, &mut arena, count);
            run.section(Section::Forward);
            let mean = |pixel: &[f32]| pixel.iter().map(|value| value.abs()).sum::<f32>() / shape.c as f32;
            maps.extend(run.value(value).chunks_exact(shape.c).map(mean));
        }
        Ok(())
    })?;
    Ok(maps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Samples;
    use crate::net::Shape;
    use crate::zoo;

    #[test]
    fn a_map_is_that_of_plain_loops() {
        let shape = Shape::new(6, 5, 1);
        let net = zoo::create("cnn:3", shape, 2, 1).unwrap().network.freeze();
        let n = 70; // several chunks
        let x: Vec<f32> = (0..n * shape.len()).map(|i| (i * i % 17) as f32 / 17.0 - 0.4).collect();
        let samples = Samples { kind: shape.into(), x, y: vec![0; n].into(), stream: None };
        let node = mapped(&net).unwrap();
        let maps = activation_maps(&Device::cpu().unwrap(), &net, &samples, node).unwrap();
        assert_eq!(maps.len(), n * 30);
        let Op::Conv(layer, _, epilogue) = &net.nodes[node.index()].op else { panic!() };
        let weight = net.value(net.layers[layer.index()].weight);
        let affine = epilogue.affine.as_ref().unwrap();
        for (at, &found) in maps.iter().enumerate() {
            let (i, row, column) = (at / 30, at % 30 / 5, at % 5);
            let mut sum = 0.0;
            for o in 0..3 {
                let mut z = 0.0f64;
                for (r, s) in (0..9).map(|k| (k / 3, k % 3)) {
                    let (h, w) = (row + r, column + s); // both are one more, for the padding
                    if (1..=6).contains(&h) && (1..=5).contains(&w) {
                        let pixel = samples.x[i * 30 + (h - 1) * 5 + w - 1];
                        z += f64::from(weight[o * 9 + r * 3 + s]) * f64::from(pixel);
                    }
                }
                sum += (f64::from(affine.scale[o]) * z + f64::from(affine.shift[o])).max(0.0);
            }
            assert!((f64::from(found) - sum / 3.0).abs() < 1e-5 * (1.0 + sum), "{at}: {found} {}", sum / 3.0);
        }
        assert!(mapped(&zoo::create("mlp:4", shape, 2, 1).unwrap().network).is_none());
    }
}
