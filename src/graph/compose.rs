//! Makes a network from a list of nodes.

use std::collections::{HashMap, HashSet};

use super::sizes::within;
use super::{IDS, IMAGE, MASK, Node, Operation, layer_name};
use crate::error::{Error, Result};
use crate::net::{
    Activation, Builder, Conv, LayerTensors, Network, NodeId, Op, ParamId, ScaledBy, Shape, Source,
};
use crate::ops::{Bands, InputKind, Windows};

/// The most values that a node may give an image.
const MOST: u128 = 1 << 31;

/// The network of a list of nodes, whose tensors `source` has; the last node gives the logits.
///
/// # Errors
/// Where two nodes have one name, a node reads one that is not there or comes later, or reads too many; where no node
/// reads one; where shapes do not fit each other or the tensors; where a tensor is missing. The message names the node.
pub fn compose(nodes: &[Node], source: &mut dyn Source, input: InputKind) -> Result<Network> {
    let (mut b, mut known) = match input {
        InputKind::Image(shape) => {
            let (b, x) = Builder::new(source, shape);
            (b, HashMap::from([(IMAGE, x)]))
        }
        InputKind::Text { tokens } => {
            let (b, [ids, mask]) = Builder::text(source, tokens);
            (b, HashMap::from([(IDS, ids), (MASK, mask)]))
        }
    };
    let places: HashMap<&str, usize> = nodes.iter().enumerate().map(|(i, n)| (n.name.as_str(), i)).collect();
    let mut unread: HashSet<&str> = HashSet::new();
    let mut flat: HashSet<NodeId> = HashSet::new();
    let mut last = None;
    for (i, node) in nodes.iter().enumerate() {
        let of_node = |error| about(node, error);
        let mut inputs = vec![];
        for name in &node.inputs {
            unread.remove(name.as_str());
            inputs.push(*known.get(name.as_str()).ok_or_else(|| of_node(unknown(nodes, &places, i, name)))?);
        }
        let (least, most) = node.operation.arity();
        if inputs.len() < least || inputs.len() > most {
            let (found, most) = (inputs.len(), if most == usize::MAX { least } else { most });
            return Err(of_node(Error::config(format!("reads {found} nodes, where {most} were expected"))));
        }
        let reads_flat = inputs.iter().any(|input| flat.contains(input));
        if reads_flat && !node.operation.reads_flattened() {
            let reason = "reads a flattened image, of which only linear and activation know the order";
            return Err(of_node(Error::config(reason)));
        }
        let x = add(&mut b, &node.operation, &inputs).map_err(of_node)?;
        let Shape { h, w, c } = b.shape(x);
        if h as u128 * w as u128 * c as u128 > MOST {
            return Err(of_node(Error::config(format!("gives {h} x {w} x {c} values, too many"))));
        }
        let mixes = |input: &NodeId| b.shape(*input).positions() > 1 && b.shape(*input).c > 1;
        let flattens = matches!(node.operation, Operation::Flatten) && mixes(&inputs[0]);
        let passes = matches!(node.operation, Operation::Activation { .. } | Operation::Flatten);
        if flattens || reads_flat && passes {
            flat.insert(x);
        }
        if known.insert(&node.name, x).is_some() {
            return Err(of_node(Error::config("has the name of an earlier node, or of the input")));
        }
        unread.insert(&node.name);
        last = Some((node, x));
    }
    let Some((node, x)) = last else { return Err(Error::config("\"nodes\" is empty")) };
    unread.remove(node.name.as_str());
    if let Some(name) = nodes.iter().map(|node| &node.name).find(|name| unread.contains(name.as_str())) {
        let reason = format!("no node reads node `{name}`, and it is not the last, which gives the logits");
        return Err(Error::config(reason));
    }
    if flat.contains(&x) {
        return Err(about(node, Error::config("gives the logits and is a flattened image")));
    }
    let net = b.finish(x).map_err(|error| about(node, error))?;
    check_fixed(&net)?;
    Ok(net)
}

/// Why a node of that name cannot be read here.
fn unknown(nodes: &[Node], places: &HashMap<&str, usize>, at: usize, name: &str) -> Error {
    let Some(&place) = places.get(name) else {
        return Error::config(format!("reads `{name}`, which is the name of no node"));
    };
    // Whether the later node reads this one, through others or not.
    let (mut open, mut seen) = (vec![place], HashSet::from([place]));
    while let Some(i) = open.pop() {
        let inputs = nodes[i].inputs.iter().filter_map(|input| places.get(input.as_str()).copied());
        open.extend(inputs.filter(|&input| seen.insert(input)));
    }
    match seen.contains(&at) {
        true => Error::config(format!("reads `{name}`, which itself depends on this node: a cycle")),
        false => {
            Error::config(format!("reads `{name}`, which comes later; a node comes after those it reads"))
        }
    }
}

/// The error of a node, named.
fn about(node: &Node, error: Error) -> Error {
    let of = format!("node `{}` ({})", node.name, node.operation.word());
    match error {
        Error::Checkpoint { path, tensor, reason } => {
            Error::Checkpoint { path, tensor, reason: format!("{reason}, for {of}") }
        }
        Error::Config(reason) => Error::config(format!("{of}: {reason}")),
        Error::Shape { .. } => Error::config(format!("{of}: {error}")),
        other => other,
    }
}

/// Refuses tensors that two layers have, and those that nothing trains and a layer has too: a change of one would leave
/// the other behind.
fn check_fixed(net: &Network) -> Result<()> {
    let mut seen = HashSet::new();
    let tensors = net.layers.iter().flat_map(|layer| [Some(layer.weight), layer.bias]).flatten();
    if let Some(param) = tensors.into_iter().find(|param| !seen.insert(*param)) {
        let name = &net.params[param.index()].name;
        return Err(Error::config(format!("tensor `{name}` is in two layers of different names")));
    }
    let fixed = |op: &Op| -> Vec<ParamId> {
        match op {
            Op::Scale(_, ScaledBy::Normalise { mean, std }) => vec![*mean, *std],
            Op::Scale(_, ScaledBy::Stored { scale, shift }) => {
                [*scale, *shift].into_iter().flatten().collect()
            }
            _ => vec![],
        }
    };
    match net.nodes.iter().flat_map(|node| fixed(&node.op)).find(|param| seen.contains(param)) {
        None => Ok(()),
        Some(param) => Err(Error::config(format!(
            "tensor `{}` is a layer's, and a fixed scale or shift of another node",
            net.params[param.index()].name
        ))),
    }
}

fn eps(eps: f32) -> Result<f32> {
    match eps > 0.0 && eps.is_finite() {
        true => Ok(eps),
        false => Err(Error::config(format!("\"eps\" is {eps}, where a number above 0 was expected"))),
    }
}

/// A layer's tensors.
fn tensors<'a>(layer: &'a Option<String>, weight: &'a str, bias: &'a Option<String>) -> LayerTensors<'a> {
    let layer = layer.as_deref().unwrap_or(layer_name(weight));
    LayerTensors { layer, weight, bias: bias.as_deref() }
}

fn add(b: &mut Builder, operation: &Operation, inputs: &[NodeId]) -> Result<NodeId> {
    let x = inputs[0];
    match operation {
        Operation::Conv { .. } | Operation::Linear { .. } => affine(b, x, operation),
        Operation::BatchNorm { weight, bias, mean, variance, eps: e } => {
            b.batch_norm_of(x, [weight, bias, mean, variance], eps(*e)?)
        }
        Operation::LayerNorm { weight, bias, eps: e } => b.layer_norm_of(x, [weight, bias], eps(*e)?),
        Operation::GroupNorm { groups, weight, bias, eps: e } => {
            b.group_norm_of(x, [weight, bias], *groups, eps(*e)?)
        }
        Operation::Activation { function } => match Activation::named(function) {
            Some(activation) => Ok(b.activation(x, activation)),
            None => {
                let names = Activation::names();
                Err(Error::config(format!(
                    "\"function\": \"{function}\" is not known here; there are {names}"
                )))
            }
        },
        Operation::Scale { factor, offset } => match factor.is_finite() && offset.is_finite() {
            true => Ok(b.scale_and_offset(x, *factor, *offset)),
            false => Err(Error::config("\"factor\" and \"offset\" must be finite")),
        },
        Operation::Affine { scale, shift } => b.scale_by(x, scale.as_deref(), shift.as_deref()),
        Operation::Normalise { mean, std } => b.normalise(x, mean, std),
        Operation::Add => b.add(x, inputs[1]),
        Operation::Gate => b.gate(x, inputs[1]),
        Operation::Concat => b.concat(inputs),
        Operation::Flatten => Ok(b.flatten(x)),
        Operation::Tokens => Ok(b.tokens(x)),
        Operation::Image { height, width } => b.image(x, *height, *width),
        Operation::MaxPool(pool) if !pool.count_padding => {
            Err(Error::config("\"count_padding\" is for means, and this is a max pool"))
        }
        Operation::MaxPool(pool) => b.max_pool(x, pool.window()?),
        Operation::AveragePool(pool) => b.average_pool(x, pool.window()?),
        Operation::AdaptivePool { height, width } => {
            Ok(b.adaptive_pool(x, within("height", *height)?, within("width", *width)?))
        }
        Operation::GlobalPool => Ok(b.global_pool(x)),
        Operation::Embedding { table } => {
            let (rows, c) = (b.side(table, 0)?, b.side(table, 1)?);
            b.embedding(x, table, rows, c)
        }
        Operation::ClassToken { token } => {
            let count = b.side(token, 1).or_else(|_| b.side(token, 0).map(|_| 1));
            let count = within("tokens", count?)?;
            b.tokens_before(x, token, count)
        }
        Operation::Positions { table } => match b.side(table, 2) {
            Ok(_) if !b.is_of_texts() => b.positions(x, table),
            found => {
                let rows = b.side(table, usize::from(found.is_ok()))?;
                b.position_rows(x, table, rows)
            }
        },
        Operation::RowToAll { table } => {
            let rows = b.side(table, 0)?;
            b.row_to_all(x, table, rows)
        }
        Operation::Token { index } => match *index < b.shape(x).positions() {
            true => Ok(b.token(x, *index)),
            false => Err(Error::config(format!("there are {} tokens", b.shape(x).positions()))),
        },
        Operation::TokensFrom { first } => b.tokens_from(x, *first),
        Operation::Attention { heads } => match inputs.get(1) {
            Some(mask) => b.masked_attention(x, *heads, *mask),
            None => b.attention(x, *heads),
        },
        Operation::WindowAttention { .. } | Operation::Bands { .. } => windows(b, x, operation),
        Operation::Shortcut { stride, channels } => {
            b.shortcut(x, within("stride", *stride)?, within("channels", *channels)?)
        }
    }
}

/// Attention within windows, or another order of positions.
fn windows(b: &mut Builder, x: NodeId, operation: &Operation) -> Result<NodeId> {
    match operation {
        Operation::WindowAttention { table, windows: [rows, columns], shift: [down, right] } => {
            let side = (b.shape(x).w as f64).sqrt().round() as usize;
            let (rows, columns) = (within("windows", *rows)?, within("windows", *columns)?);
            let heads = b.side(table, 1)?;
            b.window_attention(x, heads, table, Windows { side, rows, columns, down: *down, right: *right })
        }
        Operation::Bands { image: [rows, columns], height, shift: [down, right], back, shape: [h, w, c] } => {
            let bands = Bands { rows: *rows, columns: *columns, height: *height, down: *down, right: *right };
            b.reorder(x, bands, *back, Shape::new(*h, *w, *c))
        }
        _ => Err(Error::config("is of no windows")),
    }
}

/// A convolution or a linear layer.
fn affine(b: &mut Builder, x: NodeId, operation: &Operation) -> Result<NodeId> {
    match operation {
        Operation::Conv { weight, bias, layer, stride, padding, further, dilation, groups } => {
            let (s, r, outputs) = (b.side(weight, 3)?, b.side(weight, 2)?, b.side(weight, 0)?);
            let kernel = (within("filter", r)?, within("filter", s)?);
            let (stride, dilation) = (within("stride", *stride)?, within("dilation", *dilation)?);
            let [down, right] = *padding;
            let (padding, further) = ((down, right), (further[0], further[1]));
            let conv = Conv { kernel, stride, padding, further, dilation, groups: *groups };
            b.conv_of(x, tensors(layer, weight, bias), outputs, conv)
        }
        Operation::Linear { weight, bias, layer, transposed } => {
            let outputs = b.side(weight, usize::from(*transposed))?;
            b.linear_of(x, tensors(layer, weight, bias), outputs, *transposed)
        }
        _ => Err(Error::config("is no layer")),
    }
}
