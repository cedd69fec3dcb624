//! Tiny networks that between them have every operation, every epilogue and every order of the two.

use scrubjay::Result;
use scrubjay::data::{Labels, Samples};
use scrubjay::loss::Loss;
use scrubjay::net::{Activation, Builder, Conv, Network, Role, Shape, Source, Window};
use scrubjay::ops::{Bands, Windows};

/// A network of the table: its name, and what composes it in train form.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    compose: fn(&mut Weights) -> Result<Network>,
}

const SMOOTHED: Loss = Loss::CrossEntropy { smoothing: 0.125 };

/// The table.
pub const CASES: [Case; 18] = [
    Case { name: "softmax", compose: softmax },
    Case { name: "mlp", compose: mlp },
    Case { name: "cnn", compose: cnn },
    Case { name: "residual", compose: residual },
    Case { name: "option_a", compose: option_a },
    Case { name: "vit", compose: vit },
    Case { name: "windows", compose: windows },
    Case { name: "twice", compose: twice },
    Case { name: "norms", compose: norms },
    Case { name: "parts", compose: parts },
    Case { name: "labels_mlp", compose: |w| with(mlp(w)?, Loss::BinaryCrossEntropy) },
    Case { name: "labels_cnn", compose: |w| with(cnn(w)?, Loss::BinaryCrossEntropy) },
    Case { name: "smoothed_mlp", compose: |w| with(mlp(w)?, SMOOTHED) },
    Case { name: "groups", compose: groups },
    Case { name: "squeeze", compose: squeeze },
    Case { name: "kinds", compose: kinds },
    Case { name: "text", compose: text },
    Case { name: "typed_text", compose: |w| with(typed_text(w)?, Loss::BinaryCrossEntropy) },
];

impl Case {
    /// The network of a seed, in train form.
    pub fn network(&self, seed: u64) -> Result<Network> {
        (self.compose)(&mut weights(seed))
    }
}

/// Numbers by a 64-bit linear congruential generator (Knuth's constants).
pub struct Random(pub u64);

impl Random {
    /// Between −1 and 1.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// `n` inputs for a network.
    pub fn samples(&mut self, net: &Network, n: usize) -> Samples {
        let x = match net.vocabulary() {
            None => (0..n * net.input().len()).map(|_| self.next() as f32 * 1.5).collect(),
            Some(rows) => (0..n).flat_map(|_| self.sequence(net.input().w, rows)).collect(),
        };
        let classes = net.classes();
        let mut below = |count: usize| ((self.next() + 1.0) / 2.0 * count as f64) as u32;
        let y = match net.loss {
            Loss::CrossEntropy { .. } => (0..n).map(|_| below(classes)).collect(),
            Loss::BinaryCrossEntropy => {
                Labels::Multi { labels: classes, rows: (0..n * classes).map(|_| below(2)).collect() }
            }
        };
        Samples { kind: net.kind(), x, y, stream: None }
    }

    /// Token ids and their mask, which leaves out the last tokens and some others but never the first.
    fn sequence(&mut self, tokens: usize, rows: usize) -> Vec<f32> {
        let mut below = |n: usize| ((self.next() + 1.0) / 2.0 * n as f64) as usize;
        let ids: Vec<usize> = (0..tokens).map(|_| below(rows)).collect();
        let end = 1 + below(tokens);
        let mask: Vec<bool> = (0..tokens).map(|i| i == 0 || i < end && below(5) > 0).collect();
        let words = ids.into_iter().chain(mask.into_iter().map(usize::from));
        words.map(|word| f32::from_bits(word as u32)).collect()
    }
}

/// Every tensor there could be, of random numbers; only `plain` layers lack a bias.
pub struct Weights(Random);

/// The weights of this seed.
pub fn weights(seed: u64) -> Weights {
    Weights(Random(seed))
}

impl Source for Weights {
    fn tensor(&mut self, _: &str, shape: &[usize], role: Role) -> Result<Vec<f32>> {
        let mut number = || match role {
            Role::Weight(fan_in) => self.0.next() * (4.0 / fan_in as f64).sqrt(),
            Role::One => 1.0 + 0.4 * self.0.next(),
            _ => 0.4 * self.0.next(),
        };
        Ok((0..shape.iter().product()).map(|_| number() as f32).collect())
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        (!name.starts_with("plain")).then_some(&[])
    }
}

/// The network with another loss than plain cross-entropy.
fn with(mut net: Network, loss: Loss) -> Result<Network> {
    net.loss = loss;
    Ok(net)
}

fn softmax(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(2, 2, 3));
    let x = b.flatten(x);
    let x = b.linear(x, "fc", 4)?;
    b.finish(x)
}

fn mlp(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(3, 2, 2));
    let x = b.flatten(x);
    let x = b.linear(x, "fc1", 7)?;
    let x = b.activation(x, Activation::Tanh);
    let x = b.linear(x, "plain", 6)?;
    let x = b.activation(x, Activation::Sigmoid);
    let x = b.linear(x, "fc2", 5)?;
    let x = b.activation(x, Activation::Softplus);
    let x = b.linear(x, "fc3", 3)?;
    b.finish(x)
}

/// Stride, padding, dilation, groups, depthwise, oblong filters, both pools with padding.
fn cnn(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(11, 9, 2));
    let x = b.conv(x, "conv1", 4, Conv::square(3, 2, 1))?;
    let x = b.batch_norm(x, "bn1")?;
    let x = b.relu(x);
    let x = b.max_pool(x, Window::square(3, 1, 1))?;
    let x = b.conv(x, "plain", 6, Conv { groups: 2, dilation: 2, ..Conv::square(3, 1, 2) })?;
    let x = b.activation(x, Activation::Gelu);
    let x = b.conv(x, "depthwise", 6, Conv { groups: 6, ..Conv::square(3, 1, 1) })?;
    let x = b.activation(x, Activation::Silu);
    let oblong = Conv { kernel: (1, 3), padding: (0, 1), ..Conv::square(1, 1, 0) };
    let x = b.conv(x, "oblong", 5, oblong)?;
    let beyond = Window { ceil: true, counts_padding: false, further: (0, 1), ..Window::square(3, 2, 1) };
    let x = b.average_pool(x, beyond)?;
    let x = b.activation(x, Activation::Tanh);
    let x = b.flatten(x);
    let x = b.linear(x, "fc", 4)?;
    b.finish(x)
}

fn residual(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(6, 6, 2));
    let x = b.conv(x, "plain1", 4, Conv::square(3, 1, 1))?;
    let x = b.batch_norm(x, "bn1")?;
    let x = b.relu(x);
    let y = b.conv(x, "plain2", 6, Conv::square(3, 2, 1))?;
    let y = b.batch_norm(y, "bn2")?;
    let y = b.relu(y);
    let y = b.conv(y, "conv3", 6, Conv::square(1, 1, 0))?;
    let y = b.batch_norm(y, "bn3")?;
    let x = b.conv(x, "plain4", 6, Conv::square(1, 2, 0))?;
    let x = b.batch_norm(x, "bn4")?;
    let x = b.add(y, x)?;
    let x = b.activation(x, Activation::Silu);
    let x = b.global_pool(x);
    let x = b.linear(x, "fc", 5)?;
    b.finish(x)
}

fn option_a(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(7, 6, 2));
    let x = b.conv(x, "conv1", 4, Conv::square(3, 1, 1))?;
    let x = b.activation(x, Activation::Gelu);
    let y = b.conv(x, "plain", 8, Conv::square(3, 2, 1))?;
    let y = b.batch_norm(y, "bn")?;
    let x = b.shortcut(x, 2, 8)?;
    let x = b.add(x, y)?;
    let x = b.relu(x);
    let doubled = b.add(x, x)?;
    let x = b.max_pool(doubled, Window::square(2, 2, 0))?;
    let x = b.global_pool(x);
    let x = b.linear(x, "fc", 4)?;
    b.finish(x)
}

fn vit(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(4, 6, 2));
    let x = b.conv(x, "patch", 8, Conv::square(2, 2, 0))?;
    let x = b.tokens(x);
    let x = b.class_token(x, "cls_token")?;
    let x = b.positions(x, "pos_embed")?;
    let y = b.layer_norm(x, "norm1", 1e-6)?;
    let y = b.linear(y, "qkv", 24)?;
    let y = b.attention(y, 2)?;
    let y = b.linear(y, "proj", 8)?;
    let x = b.add(x, y)?;
    let y = b.layer_norm(x, "norm2", 1e-6)?;
    let y = b.linear(y, "fc1", 10)?;
    let y = b.activation(y, Activation::Gelu);
    let y = b.linear(y, "fc2", 8)?;
    let x = b.add(x, y)?;
    let x = b.layer_norm(x, "norm", 1e-6)?;
    let x = b.token(x, 0);
    let x = b.linear(x, "head", 3)?;
    b.finish(x)
}

/// Attention within windows behind a shift, squares of positions joined, and a layer over tokens.
fn windows(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(4, 6, 3));
    let x = b.conv(x, "patch", 4, Conv::square(1, 1, 0))?;
    let y = b.layer_norm(x, "norm1", 1e-5)?;
    let bands = Bands { rows: 4, columns: 6, height: 2, down: 1, right: 1 };
    let y = b.reorder(y, bands, false, Shape::new(6, 4, 4))?;
    let y = b.linear(y, "qkv", 12)?;
    let y = b.window_attention(y, 2, "table", Windows { side: 2, rows: 2, columns: 3, down: 1, right: 1 })?;
    let y = b.reorder(y, bands, true, Shape::new(4, 6, 4))?;
    let x = b.add(x, y)?;
    let x = b.join_squares(x, 2)?;
    let x = b.linear(x, "plain", 5)?;
    let x = b.transpose(x)?;
    let x = b.linear(x, "tokens", 6)?;
    let x = b.activation(x, Activation::Gelu);
    let x = b.transpose(x)?;
    let x = b.global_pool(x);
    let x = b.linear(x, "head", 3)?;
    b.finish(x)
}

/// Layers used twice, and an adaptive pool that shrinks and one that repeats.
fn twice(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(5, 7, 3));
    let x = b.conv(x, "conv", 3, Conv::square(3, 1, 1))?;
    let x = b.activation(x, Activation::Softplus);
    let x = b.conv(x, "conv", 3, Conv::square(3, 1, 1))?;
    let x = b.adaptive_pool(x, 3, 2);
    let x = b.activation(x, Activation::Sigmoid);
    let y = b.global_pool(x);
    let y = b.adaptive_pool(y, 2, 2);
    let y = b.flatten(y);
    let y = b.linear(y, "square", 12)?;
    let y = b.activation(y, Activation::Tanh);
    let y = b.linear(y, "fc1", 12)?;
    let z = b.relu(y);
    let z = b.linear(z, "fc1", 12)?;
    let y = b.add(z, y)?;
    let y = b.linear(y, "fc2", 4)?;
    b.finish(y)
}

/// Norms that follow no layer, before and behind one, and a layer whose output two nodes read.
fn norms(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(4, 4, 4));
    let x = b.batch_norm(x, "bn0")?;
    let x = b.activation(x, Activation::Tanh);
    let x = b.conv(x, "conv", 6, Conv::square(3, 1, 0))?;
    let y = b.batch_norm(x, "bn1")?;
    let x = b.add(y, x)?;
    let x = b.layer_norm(x, "ln", 1e-5)?;
    let x = b.linear(x, "pointwise", 5)?;
    let x = b.relu(x);
    let x = b.batch_norm(x, "bn2")?;
    let x = b.flatten(x);
    let x = b.linear(x, "fc", 3)?;
    b.finish(x)
}

/// Queries, keys and values by layers of their own, one of them in two parts; two learned tokens, and the mean of the others.
fn parts(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(4, 4, 2));
    let x = b.conv(x, "patch", 6, Conv::square(2, 2, 0))?;
    let x = b.tokens(x);
    let x = b.tokens_before(x, "tokens", 2)?;
    let y = b.layer_norm(x, "norm", 1e-6)?;
    let q = b.linear(y, "query", 6)?;
    let k = b.linear(y, "plain", 4)?;
    let v = b.linear(y, "value", 6)?;
    let k2 = b.linear(v, "plain2", 2)?;
    let y = b.concat(&[q, k, k2, v])?;
    let y = b.attention(y, 3)?;
    let x = b.add(x, y)?;
    let x = b.tokens_from(x, 2)?;
    let x = b.global_pool(x);
    let twice = b.concat(&[x, x])?;
    let x = b.linear(twice, "head", 3)?;
    b.finish(x)
}

/// Group norm behind a layer, before one, and of one group, around a residual.
fn groups(w: &mut Weights) -> Result<Network> {
    let (mut b, x) = Builder::new(w, Shape::new(5, 4, 2));
    let x = b.conv(x, "conv1", 6, Conv::square(3, 1, 1))?;
    let x = b.group_norm(x, "gn1", 3, 1e-5)?;
    let x = b.relu(x);
    let y = b.conv(x, "plain", 6, Conv::square(3, 1, 1))?;
    let y = b.group_norm(y, "gn2", 2, 1e-5)?;
    let x = b.add(x, y)?;
    let x = b.activation(x, Activation::Silu);
    let x = b.group_norm(x, "gn3", 1, 1e-5)?;
    let x = b.conv(x, "conv2", 4, Conv::square(3, 2, 1))?;
    let x = b.flatten(x);
    let x = b.linear(x, "fc", 3)?;
    b.finish(x)
}

/// Squeeze and excitation behind a depthwise filter; then a gate that is a constant to the layers before the map, and
/// one of a map by itself.
fn squeeze(w: &mut Weights) -> Result<Network> {
    let (mut b, image) = Builder::new(w, Shape::new(6, 5, 3));
    let x = b.conv(image, "expand", 6, Conv::square(1, 1, 0))?;
    let x = b.batch_norm(x, "bn1")?;
    let x = b.activation(x, Activation::HardSwish);
    let x = b.conv(x, "depthwise", 6, Conv { groups: 6, ..Conv::square(3, 2, 1) })?;
    let x = b.batch_norm(x, "bn2")?;
    let x = b.activation(x, Activation::HardSwish);
    let y = b.global_pool(x);
    let y = b.linear(y, "reduce", 4)?;
    let y = b.activation(y, Activation::Silu);
    let y = b.linear(y, "excite", 6)?;
    let y = b.activation(y, Activation::HardSigmoid);
    let x = b.gate(x, y)?;
    let x = b.conv(x, "project", 3, Conv::square(1, 1, 0))?;
    let mean = b.global_pool(image);
    let x = b.gate(x, mean)?;
    let gate = b.linear(mean, "last", 3)?;
    let y = b.gate(image, gate)?;
    let (x, y) = (b.global_pool(x), b.global_pool(y));
    let x = b.add(x, y)?;
    let x = b.gate(x, x)?;
    let x = b.linear(x, "fc", 3)?;
    b.finish(x)
}

/// Every nonlinearity that the other networks leave out, in the epilogue of a layer and, of a value that many nodes
/// read, as a node of its own.
fn kinds(w: &mut Weights) -> Result<Network> {
    const KINDS: [Activation; 6] = [
        Activation::Silu,
        Activation::HardSwish,
        Activation::HardSigmoid,
        Activation::Relu6,
        Activation::QuickGelu,
        Activation::GeluTanh,
    ];
    let (mut b, x) = Builder::new(w, Shape::new(2, 3, 2));
    let x = b.flatten(x);
    let x = b.linear(x, "first", 8)?;
    let mut sum = x;
    for (i, kind) in KINDS.into_iter().enumerate() {
        let y = b.activation(x, kind);
        let y = b.linear(y, &format!("fc{i}"), 8)?;
        let y = b.activation(y, kind);
        sum = b.add(sum, y)?;
    }
    let x = b.linear(sum, "head", 4)?;
    b.finish(x)
}

/// A transformer of texts: embedding, positions, norm, attention to the tokens of the mask, the first token.
fn text(w: &mut Weights) -> Result<Network> {
    let (mut b, [ids, mask]) = Builder::text(w, 7);
    let x = b.embedding(ids, "words", 11, 8)?;
    let x = b.position_rows(x, "positions", 9)?;
    let x = b.layer_norm(x, "norm", 1e-12)?;
    let y = b.linear(x, "qkv", 24)?;
    let y = b.masked_attention(y, 2, mask)?;
    let y = b.linear(y, "out", 8)?;
    let x = b.add(y, x)?;
    let x = b.layer_norm(x, "norm1", 1e-12)?;
    let y = b.linear(x, "lin1", 6)?;
    let y = b.activation(y, Activation::Gelu);
    let y = b.linear(y, "lin2", 8)?;
    let x = b.add(y, x)?;
    let x = b.layer_norm(x, "norm2", 1e-12)?;
    let x = b.token(x, 0);
    let x = b.linear(x, "pre", 6)?;
    let x = b.relu(x);
    let x = b.linear(x, "head", 4)?;
    b.finish(x)
}

/// The same with a type added to every token, queries, keys and values by layers of their own, and tanh before the head.
fn typed_text(w: &mut Weights) -> Result<Network> {
    let (mut b, [ids, mask]) = Builder::text(w, 6);
    let x = b.embedding(ids, "words", 9, 6)?;
    let x = b.row_to_all(x, "types", 2)?;
    let x = b.position_rows(x, "positions", 6)?;
    let x = b.layer_norm(x, "norm", 1e-12)?;
    // The first unit is of the values, whose gradient does not go through the softmax, where little is left of it.
    let [v, q, k] = ["value", "query", "key"].map(|name| b.linear(x, name, 6));
    let y = b.concat(&[q?, k?, v?])?;
    let y = b.masked_attention(y, 3, mask)?;
    let y = b.linear(y, "out", 6)?;
    let x = b.add(y, x)?;
    let x = b.layer_norm(x, "norm1", 1e-12)?;
    let x = b.token(x, 0);
    let x = b.linear(x, "pooler", 5)?;
    let x = b.activation(x, Activation::Tanh);
    let x = b.linear(x, "head", 3)?;
    b.finish(x)
}
