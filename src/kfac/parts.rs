//! The selected rows of a block by layer and group, each with a Kronecker product of its own.

use crate::block::Block;
use crate::net::{LayerId, Network, Op};

/// The selected rows of one group of one layer.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub layer: LayerId,
    pub group: usize,
    /// Output channels `[k]`, ascending.
    pub channels: Vec<u32>,
    /// Where each one's values begin in the block's vector.
    pub starts: Vec<usize>,
    /// The length of a weight row with its bias.
    pub width: usize,
    /// Whether there is one.
    pub biased: bool,
    /// Positions at which an image meets them.
    pub positions: usize,
}

/// The rows of the block by layer and group, in the order of the layers.
pub(super) fn parts(net: &Network, block: &Block) -> Vec<Part> {
    let mut parts: Vec<Part> = vec![];
    let mut rows: Vec<_> = (0..block.units().len())
        .map(|i| {
            let (layer, row) = net.units().locate(block.units()[i]);
            (layer, row, block.range(i))
        })
        .collect();
    rows.sort_unstable_by_key(|(layer, row, _)| (layer.index(), *row));
    for (layer, row, range) in rows {
        let at = net.layer(layer);
        let uses = || net.nodes.iter().filter(|node| node.op.layer() == Some(layer));
        let groups = uses().find_map(|node| match &node.op {
            Op::Conv(_, conv, _) => Some(conv.groups),
            _ => None,
        });
        let group = row / (at.outputs / groups.unwrap_or(1));
        let same = |part: &&mut Part| part.layer == layer && part.group == group;
        match parts.last_mut().filter(same) {
            Some(part) => {
                part.channels.push(row as u32);
                part.starts.push(range.start);
            }
            None => parts.push(Part {
                layer,
                group,
                channels: vec![row as u32],
                starts: vec![range.start],
                width: range.len(),
                biased: at.bias.is_some(),
                positions: uses().map(|node| node.shape.positions()).sum(),
            }),
        }
    }
    parts
}
