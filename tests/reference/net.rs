//! The oracle of networks: one image at a time, plain loops, a forward and a backward pass and nothing else, generic over
//! the number. At f64 it is the reference; at [`Dual`] its gradient carries the exact Hessian product, independently of
//! the engine's tangent passes. Train form and frozen form alike; batch norm stands at its running statistics.

use scrubjay::block::Block;
use scrubjay::loss::Loss;
use scrubjay::net::{Activation, Layer, Network, Node, Op, Shape, Window};

use super::dual::{Dual, Number};
use super::layers::{self, activation, normalise, softmax};
use super::{attention, embedding, gate, group_norm, loss};

/// The numbers of every parameter of a network, in the network's order.
pub type Params<T> = Vec<Vec<T>>;

/// What a network does with some inputs.
pub struct Outcome<T> {
    /// `[n]`.
    pub losses: Vec<T>,
    /// `[n, classes]`.
    pub logits: Vec<T>,
    /// `[n, d]`.
    pub activations: Vec<T>,
    /// The gradient of the mean loss, one vector per parameter.
    pub gradient: Params<T>,
}

/// What goes back from the logits: the derivative of the loss, or another vector.
pub type Back<'a, T> = &'a dyn Fn(&[T], &[u32]) -> Vec<T>;

/// The derivative of a loss by the logits: what goes back for a gradient.
pub fn slope<T: Number>(of: Loss) -> impl Fn(&[T], &[u32]) -> Vec<T> {
    move |z, y| match of {
        Loss::CrossEntropy { smoothing: 0.0 } => layers::slope(z, y[0] as usize),
        Loss::CrossEntropy { .. } | Loss::BinaryCrossEntropy => loss::gradient(of, z, y),
    }
}

/// The parameters as constants.
pub fn constants<T: Number>(net: &Network) -> Params<T> {
    net.params.iter().map(|p| p.value.iter().map(|&v| T::of(f64::from(v))).collect()).collect()
}

/// Runs forward and backward over images `x` `[n, h, w, c]` with labels `y` `[n, width]`.
pub fn run<T: Number>(net: &Network, params: &Params<T>, x: &[f32], y: &[u32], back: Back<T>) -> Outcome<T> {
    let zeros = params.iter().map(|p| vec![T::of(0.0); p.len()]).collect();
    let mut out = Outcome { losses: vec![], logits: vec![], activations: vec![], gradient: zeros };
    let n = y.len() / net.label_width();
    for (image, y) in x.chunks_exact(net.input().len()).zip(y.chunks_exact(net.label_width())) {
        let values = forward(net, params, image, None);
        let logits = &values[values.len() - 1].y;
        out.losses.push(value(net.loss, logits, y));
        out.logits.extend_from_slice(logits);
        out.activations.extend(activations(net, &values));
        let scale = T::of(1.0 / n as f64);
        let seed = back(logits, y).into_iter().map(|d| d * scale).collect();
        backward(net, params, &values, seed, &mut out.gradient);
    }
    out
}

/// Where a forward pass of lowered precision rounds.
pub struct Rounding<'a> {
    /// A number to 16 bits.
    pub round: &'a dyn Fn(f64) -> f64,
    /// Which nodes' values are in memory in 16 bits.
    pub narrow: &'a [bool],
}

impl Rounding<'_> {
    fn all<T: Number>(&self, values: &[T]) -> Vec<T> {
        values.iter().map(|x| T::of((self.round)(x.value()))).collect()
    }
}

/// Losses and activations of images, with the values of some nodes rounded, and with the operands of every affine layer
/// but depthwise ones.
#[allow(dead_code)] // of the kernels' tests alone
pub fn observe<T: Number>(net: &Network, x: &[f32], y: &[u32], rounding: &Rounding) -> [Vec<T>; 2] {
    let mut params = constants::<T>(net);
    for node in &net.nodes {
        if let Some(layer) = node.op.layer().filter(|_| !is_depthwise(net, node)) {
            let weight = net.layer(layer).weight.index();
            params[weight] = rounding.all(&params[weight]);
        }
    }
    let (mut losses, mut all) = (vec![], vec![]);
    for (image, y) in x.chunks_exact(net.input().len()).zip(y.chunks_exact(net.label_width())) {
        let values = forward(net, &params, image, Some(rounding));
        losses.push(value(net.loss, &values[values.len() - 1].y, y));
        all.extend(activations(net, &values));
    }
    [losses, all]
}

/// Whether every group has one input channel, and there are several.
fn is_depthwise(net: &Network, node: &Node) -> bool {
    let Op::Conv(_, conv, _) = &node.op else { return false };
    conv.groups > 1 && conv.groups == net.nodes[node.inputs[0].index()].shape.c
}

/// Which matrix a product is of.
#[derive(Clone, Copy, Debug)]
pub enum Matrix {
    /// The Hessian of the mean loss, by dual numbers through both passes.
    Hessian,
    /// The mean of Jᵀ(diag(p) − ppᵀ)J over samples.
    Ggn,
    /// The mean of g gᵀ over samples.
    Fisher,
}

/// The product of a matrix with a direction, per parameter.
pub fn product<T: Number>(
    net: &Network,
    direction: &Params<f64>,
    x: &[f32],
    y: &[u32],
    matrix: Matrix,
) -> Params<T> {
    let moved = towards::<T>(net, direction);
    if matches!(matrix, Matrix::Hessian) {
        let gradient = run(net, &moved, x, y, &slope(net.loss)).gradient;
        return gradient.into_iter().map(|p| p.into_iter().map(|d| d.slope).collect()).collect();
    }
    let constants = constants::<T>(net);
    let mut sum: Params<T> = constants.iter().map(|p| vec![T::of(0.0); p.len()]).collect();
    let count = T::of((y.len() / net.label_width()) as f64);
    for (image, y) in x.chunks_exact(net.input().len()).zip(y.chunks_exact(net.label_width())) {
        let z = forward(net, &moved, image, None).pop().map_or(vec![], |last| last.y);
        let logits: Vec<T> = z.iter().map(|z| z.value).collect();
        let along = |middle: &[T]| middle.iter().zip(&z).fold(T::of(0.0), |sum, (&m, z)| sum + m * z.slope);
        let back: Vec<T> = match (matrix, net.loss) {
            (Matrix::Fisher, _) => {
                let d = slope(net.loss)(&logits, y);
                let along = along(&d);
                d.into_iter().map(|d| d * along).collect()
            }
            (_, Loss::CrossEntropy { .. }) => {
                let p = softmax(&logits);
                let along = along(&p);
                p.into_iter().zip(&z).map(|(p, z)| p * (z.slope - along)).collect()
            }
            (_, Loss::BinaryCrossEntropy) => loss::curvature(net.loss, &z, y),
        };
        let one = run(net, &constants, image, y, &|_, _| back.clone()).gradient;
        for (sum, one) in sum.iter_mut().flatten().zip(one.iter().flatten()) {
            *sum = *sum + *one / count;
        }
    }
    sum
}

/// The entries of a block, in its order.
pub fn of_block<T: Number>(net: &Network, block: &Block, params: &Params<T>) -> Vec<f64> {
    let mut out = vec![];
    for &unit in block.units() {
        let (layer, row) = net.units().locate(unit);
        let layer = net.layer(layer);
        let weight = &params[layer.weight.index()][row * layer.fan_in..(row + 1) * layer.fan_in];
        out.extend(weight.iter().map(|v| v.value()));
        out.extend(layer.bias.map(|bias| params[bias.index()][row].value()));
    }
    out
}

/// A vector of a block, zero elsewhere.
pub fn to_params(net: &Network, block: &Block, v: &[f32]) -> Params<f64> {
    let mut out: Params<f64> = net.params.iter().map(|p| vec![0.0; p.value.len()]).collect();
    for (i, &unit) in block.units().iter().enumerate() {
        let (layer, row) = net.units().locate(unit);
        let (layer, mine) =
            (net.layer(layer), v[block.range(i)].iter().map(|&v| f64::from(v)).collect::<Vec<f64>>());
        let at = row * layer.fan_in;
        out[layer.weight.index()][at..at + layer.fan_in].copy_from_slice(&mine[..layer.fan_in]);
        if let Some(bias) = layer.bias {
            out[bias.index()][row] = mine[layer.fan_in];
        }
    }
    out
}

/// What a node gave: the layer's own output, what stood before the activation, and the result.
struct Value<T> {
    z: Vec<T>,
    before: Vec<T>,
    y: Vec<T>,
}

/// Mean over positions and uses, units in module order.
fn activations<T: Number>(net: &Network, values: &[Value<T>]) -> Vec<T> {
    let mut sums = vec![T::of(0.0); net.units().len()];
    let mut counts = vec![0; sums.len()];
    for (node, value) in net.nodes.iter().zip(values) {
        let Some(layer) = node.op.layer() else { continue };
        let first = net.units().of_layer(layer).start;
        for (i, &z) in value.z.iter().enumerate() {
            let unit = first + i % node.shape.c;
            sums[unit] = sums[unit] + z;
            counts[unit] += 1;
        }
    }
    sums.into_iter().zip(counts).map(|(sum, count)| sum / T::of(f64::from(count))).collect()
}

/// Calls `visit(output, input, weight)` for every product in a layer's output.
fn products(layer: &Layer, node: &Node, from: Shape, mut visit: impl FnMut(usize, usize, usize)) {
    let to = node.shape;
    let Op::Conv(_, conv, _) = &node.op else {
        for i in 0..to.len() {
            for j in 0..from.c {
                visit(i, i / to.c * from.c + j, i % to.c * layer.fan_in + j);
            }
        }
        return;
    };
    let inner = from.c / conv.groups;
    for i in 0..to.len() {
        let (o, column, row) = (i % to.c, i / to.c % to.w, i / to.c / to.w);
        let group = o / (to.c / conv.groups);
        for r in 0..conv.kernel.0 {
            for s in 0..conv.kernel.1 {
                let h = (row * conv.stride + r * conv.dilation).checked_sub(conv.padding.0);
                let w = (column * conv.stride + s * conv.dilation).checked_sub(conv.padding.1);
                let (Some(h), Some(w)) = (h.filter(|h| *h < from.h), w.filter(|w| *w < from.w)) else {
                    continue;
                };
                for c in 0..inner {
                    let weight = o * layer.fan_in + (r * conv.kernel.1 + s) * inner + c;
                    visit(i, (h * from.w + w) * from.c + group * inner + c, weight);
                }
            }
        }
    }
}

/// The rows and columns of an image that a pooling window reads, and how many positions a mean divides by.
fn window(
    (row, column): (usize, usize),
    image: Shape,
    window: Window,
) -> (std::ops::Range<usize>, std::ops::Range<usize>, usize) {
    let side = |at: usize, length: usize, size: usize, padding: usize, further: isize| {
        let places =
            (at * window.stride..at * window.stride + size).map(|place| place as isize - padding as isize);
        let real: Vec<isize> = places.clone().filter(|place| (0..length as isize).contains(place)).collect();
        let counted = places.filter(|&place| place < (length + padding) as isize + further).count();
        let real = real[0] as usize..real[real.len() - 1] as usize + 1;
        let count = if window.counts_padding { counted } else { real.len() };
        (real, count)
    };
    let (rows, down) = side(row, image.h, window.size.0, window.padding.0, window.further.0);
    let (columns, right) = side(column, image.w, window.size.1, window.padding.1, window.further.1);
    (rows, columns, down * right)
}

/// The integers that are the bits of floats.
fn integers<T: Number>(x: &[T]) -> Vec<u32> {
    x.iter().map(|x| (x.value() as f32).to_bits()).collect()
}

/// Which node, and which of its values, stands at output `i` of channels side by side.
fn joined(net: &Network, node: &Node, i: usize) -> (usize, usize) {
    let (position, mut channel) = (i / node.shape.c, i % node.shape.c);
    for input in &node.inputs {
        let c = net.nodes[input.index()].shape.c;
        if channel < c {
            return (input.index(), position * c + channel);
        }
        channel -= c;
    }
    panic!("{node:?} has more channels than its inputs");
}

/// A node that is a linear map without parameters (at these values, for max pooling), as (output, input, weight).
fn links<T: Number>(op: &Op, x: &[T], from: Shape, to: Shape) -> Option<Vec<(usize, usize, f64)>> {
    let mut links = vec![];
    for i in 0..to.len() {
        let (c, column, row) = (i % to.c, i / to.c % to.w, i / to.c / to.w);
        let at = |h: usize, w: usize| (h * from.w + w) * from.c + c;
        let mut field = |rows: std::ops::Range<usize>, columns: std::ops::Range<usize>, weight: f64| {
            for h in rows {
                links.extend(columns.clone().map(|w| (i, at(h, w), weight)));
            }
        };
        match *op {
            Op::Reshape => links.push((i, i, 1.0)),
            Op::Tokens(first) => links.push((i, first * from.c + i, 1.0)),
            Op::ClassToken(_) => {
                let learned = to.len() - from.len();
                links.extend((i >= learned).then(|| (i, i - learned, 1.0)));
            }
            Op::Bands { bands, back } => {
                // From the image: where the shift puts a position, and where it comes in its band.
                let c = to.len() / (bands.rows * bands.columns);
                let (row, column) = (i / c / bands.columns, i / c % bands.columns);
                let row = (row + bands.rows - bands.down) % bands.rows;
                let column = (column + bands.columns - bands.right) % bands.columns;
                let first = row / bands.height * bands.height;
                let j = ((first * bands.columns) + column * bands.height + row - first) * c + i % c;
                links.push(if back { (i, j, 1.0) } else { (j, i, 1.0) });
            }
            Op::Shortcut { stride } => {
                let before = (to.c - from.c) / 2;
                if (before..before + from.c).contains(&c) {
                    links.push((i, (row * stride * from.w + column * stride) * from.c + c - before, 1.0));
                }
            }
            Op::GlobalPool => field(0..from.h, 0..from.w, 1.0 / from.positions() as f64),
            Op::AdaptivePool => {
                let cell =
                    |i: usize, size: usize, cells: usize| i * size / cells..((i + 1) * size).div_ceil(cells);
                let (rows, columns) = (cell(row, from.h, to.h), cell(column, from.w, to.w));
                let weight = 1.0 / (rows.len() * columns.len()) as f64;
                field(rows, columns, weight);
            }
            Op::AveragePool(w) => {
                let (rows, columns, count) = window((row, column), from, w);
                field(rows, columns, 1.0 / count as f64);
            }
            Op::MaxPool(w) => {
                let (rows, columns, _) = window((row, column), from, w);
                let cells = rows.flat_map(|h| columns.clone().map(move |w| (h, w))).map(|(h, w)| at(h, w));
                let best = cells.reduce(|best, j| if x[j].value() > x[best].value() { j } else { best });
                links.extend(best.map(|best| (i, best, 1.0)));
            }
            _ => return None,
        }
    }
    Some(links)
}

/// Scale and shift per channel of batch norm at its running statistics: γ/√(var + eps), and the mean taken off before.
fn batch_norm<T: Number>(var: T, eps: f32) -> T {
    T::of(1.0) / (var + T::of(f64::from(eps))).sqrt()
}

/// The mean loss of a batch in train form: batch norm takes mean and (biased) variance of the batch.
pub fn batch_loss<T: Number>(net: &Network, params: &Params<T>, x: &[f32], y: &[u32]) -> T {
    let images: Vec<&[f32]> = x.chunks_exact(net.input().len()).collect();
    let mut values: Vec<Vec<Value<T>>> = images.iter().map(|_| vec![]).collect();
    for node in &net.nodes {
        let Op::BatchNorm { gamma, beta, eps, .. } = &node.op else {
            for (values, image) in values.iter_mut().zip(&images) {
                let value = evaluate(net, params, node, values, image, None);
                values.push(value);
            }
            continue;
        };
        let (input, c) = (node.inputs[0].index(), node.shape.c);
        let count = T::of((images.len() * node.shape.positions()) as f64);
        let over = |f: &dyn Fn(usize, T) -> T| {
            let mut sums = vec![T::of(0.0); c];
            for x in values.iter().map(|values| &values[input].y) {
                x.iter().enumerate().for_each(|(i, &x)| sums[i % c] = sums[i % c] + f(i % c, x));
            }
            sums.into_iter().map(|sum| sum / count).collect::<Vec<T>>()
        };
        let mean = over(&|_, x| x);
        let var = over(&|c, x| (x - mean[c]) * (x - mean[c]));
        let (gamma, beta) = (&params[gamma.index()], &params[beta.index()]);
        for values in &mut values {
            let x = values[input].y.iter().enumerate();
            let at = |(i, &x): (usize, &T)| {
                let i = i % c;
                (x - mean[i]) * batch_norm(var[i], *eps) * gamma[i] + beta[i]
            };
            let y = x.map(at).collect();
            values.push(Value { z: vec![], before: vec![], y });
        }
    }
    let end = net.nodes.len() - 1;
    let rows = values.iter().zip(y.chunks_exact(net.label_width()));
    let losses = rows.map(|(values, y)| value(net.loss, &values[end].y, y));
    losses.fold(T::of(0.0), |sum, loss| sum + loss) / T::of(images.len() as f64)
}

/// The loss of one row of logits.
fn value<T: Number>(of: Loss, z: &[T], y: &[u32]) -> T {
    match of {
        Loss::CrossEntropy { smoothing: 0.0 } => layers::loss(z, y[0] as usize),
        Loss::CrossEntropy { .. } | Loss::BinaryCrossEntropy => loss::value(of, z, y),
    }
}

/// The derivative of [`batch_loss`] along a direction.
pub fn batch_slope<T: Number>(net: &Network, direction: &Params<f64>, x: &[f32], y: &[u32]) -> T {
    batch_loss(net, &towards::<T>(net, direction), x, y).slope
}

/// The parameters as dual numbers along a direction.
fn towards<T: Number>(net: &Network, direction: &Params<f64>) -> Params<Dual<T>> {
    let pair = |(&v, &d): (&f32, &f64)| Dual { value: T::of(f64::from(v)), slope: T::of(d) };
    (net.params.iter().zip(direction)).map(|(p, d)| p.value.iter().zip(d).map(pair).collect()).collect()
}

fn forward<T: Number>(
    net: &Network,
    params: &Params<T>,
    image: &[f32],
    rounding: Option<&Rounding>,
) -> Vec<Value<T>> {
    let mut values: Vec<Value<T>> = vec![];
    for (i, node) in net.nodes.iter().enumerate() {
        let mut value = evaluate(net, params, node, &values, image, rounding);
        if let Some(rounding) = rounding.filter(|rounding| rounding.narrow[i]) {
            // An activation that the layer's kernel does not apply reads what was rounded.
            let kind = node.op.epilogue().and_then(|epilogue| epilogue.activation);
            let fused = [Activation::Relu, Activation::Gelu];
            if let Some(kind) = kind.filter(|kind| !fused.contains(kind)) {
                value.y = rounding.all(&value.before).into_iter().map(|a| activation(kind, a).0).collect();
            }
            value.y = rounding.all(&value.y);
        }
        values.push(value);
    }
    values
}

/// One node's value, those before it being there.
fn evaluate<T: Number>(
    net: &Network,
    params: &Params<T>,
    node: &Node,
    values: &[Value<T>],
    image: &[f32],
    rounding: Option<&Rounding>,
) -> Value<T> {
    let x: &[T] = node.inputs.first().map_or(&[], |input| &values[input.index()].y);
    let from = node.inputs.first().map_or(node.shape, |input| net.nodes[input.index()].shape);
    let (to, c) = (node.shape, node.shape.c);
    let (mut z, mut before) = (vec![], vec![]);
    // Weights of attention are rounded where its values are.
    let narrow = |rounding: &&Rounding| node.inputs.first().is_some_and(|x| rounding.narrow[x.index()]);
    let rounds = rounding.filter(narrow);
    let weight = |p: T| rounds.map_or(p, |rounding| T::of((rounding.round)(p.value())));
    let y = match &node.op {
        Op::Input => image.iter().map(|&x| T::of(f64::from(x))).collect(),
        Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue) => {
            let layer = net.layer(*layer);
            let weight = &params[layer.weight.index()];
            let rounded = rounding.filter(|_| !is_depthwise(net, node)).map(|rounding| rounding.all(x));
            let x = rounded.as_deref().unwrap_or(x);
            z = vec![T::of(0.0); to.len()];
            products(layer, node, from, |i, j, w| z[i] = z[i] + x[j] * weight[w]);
            if let Some(bias) = layer.bias {
                z.iter_mut().enumerate().for_each(|(i, z)| *z = *z + params[bias.index()][i % c]);
            }
            before = z.clone();
            if let Some(affine) = &epilogue.affine {
                for (i, y) in before.iter_mut().enumerate() {
                    let (scale, shift) = (affine.scale[i % c], affine.shift[i % c]);
                    *y = *y * T::of(f64::from(scale)) + T::of(f64::from(shift));
                }
            }
            if epilogue.residual {
                let other = &values[node.inputs[1].index()].y;
                before.iter_mut().zip(other).for_each(|(y, &x)| *y = *y + x);
            }
            match epilogue.activation {
                Some(kind) => before.iter().map(|&a| activation(kind, a).0).collect(),
                None => before.clone(),
            }
        }
        Op::BatchNorm { gamma, beta, mean, var, eps } => {
            let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(|p| &params[p.index()]);
            let at = |i: usize| (x[i] - mean[i % c]) * batch_norm(var[i % c], *eps);
            (0..to.len()).map(|i| at(i) * gamma[i % c] + beta[i % c]).collect()
        }
        Op::Scale(affine, _) => {
            let at = |i: usize, v: &[f32]| T::of(f64::from(v[i % c]));
            (0..to.len()).map(|i| x[i] * at(i, &affine.scale) + at(i, &affine.shift)).collect()
        }
        Op::LayerNorm { gamma, beta, eps } => {
            let hat: Vec<T> = x.chunks_exact(c).flat_map(|x| normalise(x, *eps).0).collect();
            let (gamma, beta) = (&params[gamma.index()], &params[beta.index()]);
            hat.iter().enumerate().map(|(i, &hat)| hat * gamma[i % c] + beta[i % c]).collect()
        }
        Op::GroupNorm { groups, gamma, beta, eps } => {
            let (gamma, beta) = (&params[gamma.index()], &params[beta.index()]);
            group_norm::forward(x, gamma, beta, to, *groups, *eps)
        }
        Op::Activation(kind) => x.iter().map(|&a| activation(*kind, a).0).collect(),
        Op::Gate => gate::forward(x, &values[node.inputs[1].index()].y, to.positions(), c),
        Op::Embedding { table, .. } => embedding::forward(&integers(x), &params[table.index()], c),
        Op::Add => x.iter().zip(&values[node.inputs[1].index()].y).map(|(&a, &b)| a + b).collect(),
        Op::Concat => (0..to.len()).map(|i| joined(net, node, i)).map(|(k, j)| values[k].y[j]).collect(),
        Op::Positions(table) => x.iter().zip(&params[table.index()]).map(|(&a, &b)| a + b).collect(),
        Op::RowToAll(table) => x.iter().enumerate().map(|(i, &a)| a + params[table.index()][i % c]).collect(),
        Op::Attention { heads, windows: Some((table, windows)), .. } => {
            attention::windowed(x, to, *heads, &params[table.index()], *windows, &weight)
        }
        Op::Attention { heads, masked, windows: None } => {
            let mask = masked.then(|| integers(&values[node.inputs[1].index()].y));
            attention::attention(x, to, *heads, mask.as_deref(), &weight)
        }
        op => {
            let mut y = vec![T::of(0.0); to.len()];
            for (i, j, weight) in links(op, x, from, to).unwrap_or_default() {
                y[i] = y[i] + x[j] * T::of(weight);
            }
            if let Op::ClassToken(token) = op {
                y[..to.len() - from.len()].copy_from_slice(&params[token.index()]);
            }
            y
        }
    };
    Value { z, before, y }
}

fn backward<T: Number>(
    net: &Network,
    params: &Params<T>,
    values: &[Value<T>],
    seed: Vec<T>,
    gradient: &mut Params<T>,
) {
    let mut adjoint: Vec<Vec<T>> = values.iter().map(|v| vec![T::of(0.0); v.y.len()]).collect();
    let last = adjoint.len() - 1;
    adjoint[last] = seed;
    for (at, node) in net.nodes.iter().enumerate().skip(1).rev() {
        let mut d = std::mem::take(&mut adjoint[at]);
        let first = node.inputs[0].index();
        let (x, from) = (&values[first].y, net.nodes[first].shape);
        let (to, c) = (node.shape, node.shape.c);
        let mut dx = std::mem::take(&mut adjoint[first]);
        let mut grow = |p: scrubjay::net::ParamId, i: usize, d: T| {
            let g = &mut gradient[p.index()][i];
            *g = *g + d;
        };
        match &node.op {
            Op::Input => {}
            Op::Linear(layer, epilogue) | Op::Conv(layer, _, epilogue) => {
                if let Some(kind) = epilogue.activation {
                    let before = &values[at].before;
                    d.iter_mut().zip(before).for_each(|(d, &a)| *d = *d * activation(kind, a).1);
                }
                if epilogue.residual {
                    let other = node.inputs[1].index();
                    let into = if other == first { &mut dx } else { &mut adjoint[other] };
                    into.iter_mut().zip(&d).for_each(|(into, &d)| *into = *into + d);
                }
                if let Some(affine) = &epilogue.affine {
                    let scale = |i: usize| T::of(f64::from(affine.scale[i % c]));
                    d.iter_mut().enumerate().for_each(|(i, d)| *d = *d * scale(i));
                }
                let layer = net.layer(*layer);
                let weight = &params[layer.weight.index()];
                products(layer, node, from, |i, j, w| {
                    grow(layer.weight, w, d[i] * x[j]);
                    dx[j] = dx[j] + d[i] * weight[w];
                });
                if let Some(bias) = layer.bias {
                    d.iter().enumerate().for_each(|(i, &d)| grow(bias, i % c, d));
                }
            }
            Op::BatchNorm { gamma, beta, mean, var, eps } => {
                for (i, &d) in d.iter().enumerate() {
                    let r = batch_norm(params[var.index()][i % c], *eps);
                    grow(*gamma, i % c, d * (x[i] - params[mean.index()][i % c]) * r);
                    grow(*beta, i % c, d);
                    dx[i] = dx[i] + d * params[gamma.index()][i % c] * r;
                }
            }
            Op::Scale(affine, _) => {
                for (i, &d) in d.iter().enumerate() {
                    dx[i] = dx[i] + d * T::of(f64::from(affine.scale[i % c]));
                }
            }
            Op::LayerNorm { gamma, beta, eps } => {
                for position in 0..to.positions() {
                    let range = position * c..(position + 1) * c;
                    let (hat, r) = normalise(&x[range.clone()], *eps);
                    let d = &d[range];
                    let inner: Vec<T> = (0..c).map(|i| d[i] * params[gamma.index()][i]).collect();
                    let back = layers::normalise_backward(&inner, &hat, r);
                    for i in 0..c {
                        grow(*gamma, i, d[i] * hat[i]);
                        grow(*beta, i, d[i]);
                        let into = &mut dx[position * c + i];
                        *into = *into + back[i];
                    }
                }
            }
            Op::GroupNorm { groups, gamma, beta, eps } => {
                let hat = group_norm::standard(x, to, *groups, *eps);
                for (i, &d) in d.iter().enumerate() {
                    grow(*gamma, i % c, d * hat[i]);
                    grow(*beta, i % c, d);
                }
                let back = group_norm::backward(&d, x, &params[gamma.index()], to, *groups, *eps);
                dx.iter_mut().zip(back).for_each(|(into, d)| *into = *into + d);
            }
            Op::Gate => {
                let other = node.inputs[1].index();
                let (of_x, of_gate) = gate::backward(&d, x, &values[other].y, to.positions(), c);
                dx.iter_mut().zip(of_x).for_each(|(into, d)| *into = *into + d);
                let into = if other == first { &mut dx } else { &mut adjoint[other] };
                into.iter_mut().zip(of_gate).for_each(|(into, d)| *into = *into + d);
            }
            Op::Embedding { table, .. } => {
                embedding::backward(&mut gradient[table.index()], &d, &integers(x), c);
            }
            Op::Activation(kind) => {
                for (i, &d) in d.iter().enumerate() {
                    dx[i] = dx[i] + d * activation(*kind, x[i]).1;
                }
            }
            Op::Add => {
                let other = node.inputs[1].index();
                dx.iter_mut().zip(&d).for_each(|(into, &d)| *into = *into + d);
                let into = if other == first { &mut dx } else { &mut adjoint[other] };
                into.iter_mut().zip(&d).for_each(|(into, &d)| *into = *into + d);
            }
            Op::Concat => {
                for (i, &d) in d.iter().enumerate() {
                    let (k, j) = joined(net, node, i);
                    let into = if k == first { &mut dx[j] } else { &mut adjoint[k][j] };
                    *into = *into + d;
                }
            }
            Op::Positions(table) => {
                for (i, &d) in d.iter().enumerate() {
                    grow(*table, i, d);
                    dx[i] = dx[i] + d;
                }
            }
            Op::RowToAll(table) => {
                for (i, &d) in d.iter().enumerate() {
                    grow(*table, i % c, d);
                    dx[i] = dx[i] + d;
                }
            }
            Op::Attention { heads, windows: Some((table, windows)), .. } => {
                let (of_table, table) = (&mut gradient[table.index()], &params[table.index()]);
                attention::windowed_backward([&mut dx, of_table], &d, x, to, *heads, table, *windows);
            }
            Op::Attention { heads, masked, windows: None } => {
                let mask = masked.then(|| integers(&values[node.inputs[1].index()].y));
                attention::attention_backward(&mut dx, &d, x, to, *heads, mask.as_deref());
            }
            op => {
                for (i, j, weight) in links(op, x, from, to).unwrap_or_default() {
                    dx[j] = dx[j] + d[i] * T::of(weight);
                }
                if let Op::ClassToken(token) = op {
                    (0..to.len() - from.len()).for_each(|i| grow(*token, i, d[i]));
                }
            }
        }
        adjoint[first] = dx;
    }
}
