//! Lists the nodes of a network.

use super::{IDS, IMAGE, MASK, Node, Operation, layer_name};
use crate::error::{Error, Result};
use crate::net::{self, LayerId, Network, Op, Order, ParamId, ScaledBy};
use crate::ops::InputKind;

/// The nodes of a network, in its order.
///
/// # Errors
/// Where the network is frozen; [`Network::thaw`] gives the one that is not.
pub fn nodes(net: &Network) -> Result<Vec<Node>> {
    let (mut names, first): (Vec<String>, usize) = match net.kind() {
        InputKind::Image(_) => (vec![IMAGE.into()], 1),
        // The ids and their mask are nodes of the network and of no list.
        InputKind::Text { .. } => (["text", IDS, MASK].map(String::from).into(), 3),
    };
    let mut all = vec![];
    for (i, node) in net.nodes.iter().enumerate().skip(first) {
        let operation = operation(net, node)?;
        let name = format!("{}_{i}", operation.word());
        let inputs = node.inputs.iter().map(|input| names[input.index()].clone()).collect();
        names.push(name.clone());
        all.push(Node { name, inputs, operation });
    }
    Ok(all)
}

fn operation(net: &Network, node: &net::Node) -> Result<Operation> {
    let name = |param: ParamId| net.params[param.index()].name.clone();
    Ok(match &node.op {
        Op::Conv(layer, conv, _) => {
            let (weight, bias, layer) = tensors(net, *layer);
            let (stride, dilation, groups) = (conv.stride, conv.dilation, conv.groups);
            let padding = [conv.padding.0, conv.padding.1];
            let further = [conv.further.0, conv.further.1];
            Operation::Conv { weight, bias, layer, stride, padding, further, dilation, groups }
        }
        Op::Linear(layer, _) => {
            let order = net.params[net.layer(*layer).weight.index()].order;
            let (weight, bias, layer) = tensors(net, *layer);
            Operation::Linear { weight, bias, layer, transposed: matches!(order, Order::RowsLast { .. }) }
        }
        Op::BatchNorm { gamma, beta, mean, var, eps } => {
            let [weight, bias, mean, variance] = [gamma, beta, mean, var].map(|param| name(*param));
            Operation::BatchNorm { weight, bias, mean, variance, eps: *eps }
        }
        Op::LayerNorm { gamma, beta, eps } => {
            Operation::LayerNorm { weight: name(*gamma), bias: name(*beta), eps: *eps }
        }
        Op::GroupNorm { groups, gamma, beta, eps } => {
            Operation::GroupNorm { groups: *groups, weight: name(*gamma), bias: name(*beta), eps: *eps }
        }
        Op::Activation(kind) => Operation::Activation { function: kind.name().into() },
        Op::Scale(_, by) => match *by {
            ScaledBy::Norm => return Err(Error::config("a frozen network has no graph; thaw it first")),
            ScaledBy::Numbers { factor, offset } => Operation::Scale { factor, offset },
            ScaledBy::Normalise { mean, std } => Operation::Normalise { mean: name(mean), std: name(std) },
            ScaledBy::Stored { scale, shift } => {
                Operation::Affine { scale: scale.map(name), shift: shift.map(name) }
            }
        },
        Op::Add => Operation::Add,
        Op::Gate => Operation::Gate,
        Op::Concat => Operation::Concat,
        Op::Reshape => reshape(net, node),
        Op::MaxPool(window) => Operation::MaxPool((*window).into()),
        Op::AveragePool(window) => Operation::AveragePool((*window).into()),
        Op::AdaptivePool => Operation::AdaptivePool { height: node.shape.h, width: node.shape.w },
        Op::GlobalPool => Operation::GlobalPool,
        Op::Embedding { table, .. } => Operation::Embedding { table: name(*table) },
        Op::ClassToken(token) => Operation::ClassToken { token: name(*token) },
        Op::Positions(table) => Operation::Positions { table: name(*table) },
        Op::RowToAll(table) => Operation::RowToAll { table: name(*table) },
        Op::Tokens(first) => {
            let all = net.nodes[node.inputs[0].index()].shape.positions();
            match node.shape.positions() == 1 && all > first + 1 {
                true => Operation::Token { index: *first },
                false => Operation::TokensFrom { first: *first },
            }
        }
        Op::Attention { windows: Some((table, windows)), .. } => Operation::WindowAttention {
            table: name(*table),
            windows: [windows.rows, windows.columns],
            shift: [windows.down, windows.right],
        },
        Op::Attention { heads, .. } => Operation::Attention { heads: *heads },
        Op::Bands { bands, back } => Operation::Bands {
            image: [bands.rows, bands.columns],
            height: bands.height,
            shift: [bands.down, bands.right],
            back: *back,
            shape: [node.shape.h, node.shape.w, node.shape.c],
        },
        Op::Shortcut { stride } => Operation::Shortcut { stride: *stride, channels: node.shape.c },
        Op::Input => return Err(Error::config("the input is no node of a graph")),
    })
}

/// The names of a layer's weight and bias, and of the layer where that of the weight does not tell it.
fn tensors(net: &Network, layer: LayerId) -> (String, Option<String>, Option<String>) {
    let (layer, name) = (net.layer(layer), |param: ParamId| net.params[param.index()].name.clone());
    let weight = name(layer.weight);
    let own = (layer.name != layer_name(&weight)).then(|| layer.name.clone());
    (weight, layer.bias.map(name), own)
}

/// The reshape that gives a node's shape.
fn reshape(net: &Network, node: &net::Node) -> Operation {
    let from = net.nodes[node.inputs[0].index()].shape;
    match node.shape {
        to if to.c == from.len() && to.positions() == 1 => Operation::Flatten,
        to if to.h == 1 => Operation::Tokens,
        to => Operation::Image { height: to.h, width: to.w },
    }
}
