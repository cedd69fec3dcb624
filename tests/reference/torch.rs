//! What PyTorch computes, as plain loops in f64 over the tensors of a checkpoint: images channel by channel (c, h, w),
//! under PyTorch's names. Independent of the network's graph, so that it shows whether a family composes the right one.

use std::collections::BTreeMap;

/// A tensor: shape and values.
pub type Stored = (Vec<usize>, Vec<f32>);

/// Tensors by name.
pub type State = BTreeMap<String, Stored>;

/// A nonlinearity.
pub type Function = fn(f64) -> f64;

/// An image of `c` channels.
#[derive(Clone)]
pub struct Map {
    pub c: usize,
    pub h: usize,
    pub w: usize,
    pub v: Vec<f64>,
}

fn tensor<'a>(state: &'a State, name: &str) -> (&'a [usize], &'a [f32]) {
    let (shape, values) = state.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
    (shape, values)
}

pub fn relu(x: f64) -> f64 {
    x.max(0.0)
}

/// Exact GELU, by the series of the error function.
pub fn gelu(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    if z.abs() > 5.0 {
        return relu(x); // the error function is within 2e-12 of its limit
    }
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    0.5 * x * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * sum)
}

pub fn conv(state: &State, name: &str, x: &Map, stride: usize, pad: usize) -> Map {
    let (shape, weight) = tensor(state, &format!("{name}.weight"));
    let &[o, inner, r, s] = shape else { panic!("{name} {shape:?}") };
    let (groups, size) = (x.c / inner, |side: usize, k: usize| (side + 2 * pad - k) / stride + 1);
    let mut y = Map { c: o, h: size(x.h, r), w: size(x.w, s), v: vec![] };
    for out in 0..o {
        let bias = state.get(&format!("{name}.bias")).map_or(0.0, |(_, bias)| f64::from(bias[out]));
        for (h, w) in (0..y.h).flat_map(|h| (0..y.w).map(move |w| (h, w))) {
            let mut sum = bias;
            for c in 0..inner {
                let from = out / (o / groups) * inner + c;
                for (i, j) in (0..r).flat_map(|i| (0..s).map(move |j| (i, j))) {
                    let at = |at: usize, k: usize, side: usize| {
                        (at * stride + k).checked_sub(pad).filter(|&p| p < side)
                    };
                    if let (Some(p), Some(q)) = (at(h, i, x.h), at(w, j, x.w)) {
                        let weight = weight[((out * inner + c) * r + i) * s + j];
                        sum += f64::from(weight) * x.v[(from * x.h + p) * x.w + q];
                    }
                }
            }
            y.v.push(sum);
        }
    }
    y
}

pub fn batch_norm(state: &State, name: &str, mut x: Map, eps: f64) -> Map {
    let [gamma, beta, mean, var] = ["weight", "bias", "running_mean", "running_var"]
        .map(|end| tensor(state, &format!("{name}.{end}")).1);
    for (i, v) in x.v.iter_mut().enumerate() {
        let c = i / (x.h * x.w);
        let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(|values| f64::from(values[c]));
        *v = (*v - mean) / (var + eps).sqrt() * gamma + beta;
    }
    x
}

pub fn map(mut x: Map, f: Function) -> Map {
    x.v.iter_mut().for_each(|v| *v = f(*v));
    x
}

/// The mean of each channel.
pub fn means(x: &Map) -> Vec<f64> {
    let mean = |c: &[f64]| c.iter().sum::<f64>() / c.len() as f64;
    x.v.chunks(x.h * x.w).map(mean).collect()
}

/// Max pooling, 2×2.
pub fn halved(x: &Map) -> Map {
    let mut y = Map { c: x.c, h: x.h / 2, w: x.w / 2, v: vec![] };
    let (rows, columns) = (y.h, y.w);
    for (c, h, w) in (0..x.c).flat_map(|c| (0..rows).flat_map(move |h| (0..columns).map(move |w| (c, h, w))))
    {
        let at = |i: usize, j: usize| x.v[(c * x.h + 2 * h + i) * x.w + 2 * w + j];
        y.v.push(at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1)));
    }
    y
}

/// Max pooling, 3×3, stride 2, padding 1.
pub fn max_pool(x: &Map) -> Map {
    let mut y = Map { c: x.c, h: (x.h - 1) / 2 + 1, w: (x.w - 1) / 2 + 1, v: vec![] };
    for c in 0..x.c {
        for (h, w) in (0..y.h).flat_map(|h| (0..y.w).map(move |w| (h, w))) {
            let rows = (2 * h).saturating_sub(1)..(2 * h + 2).min(x.h);
            let columns = (2 * w).saturating_sub(1)..(2 * w + 2).min(x.w);
            let values = rows.flat_map(|p| columns.clone().map(move |q| x.v[(c * x.h + p) * x.w + q]));
            y.v.push(values.fold(f64::NEG_INFINITY, f64::max));
        }
    }
    y
}

pub fn linear(state: &State, weight: &str, bias: &str, x: &[f64]) -> Vec<f64> {
    let (shape, weight) = tensor(state, weight);
    let row = |o: usize| x.iter().zip(&weight[o * shape[1]..]).map(|(x, &w)| x * f64::from(w)).sum::<f64>();
    let bias = state.get(bias).map(|(_, bias)| bias);
    (0..shape[0]).map(|o| row(o) + bias.map_or(0.0, |bias| f64::from(bias[o]))).collect()
}

fn named(state: &State, name: &str, x: &[f64]) -> Vec<f64> {
    linear(state, &format!("{name}.weight"), &format!("{name}.bias"), x)
}

fn layer_norm(state: &State, name: &str, x: &[f64], eps: f64) -> Vec<f64> {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let var = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / x.len() as f64;
    let [gamma, beta] = ["weight", "bias"].map(|end| tensor(state, &format!("{name}.{end}")).1);
    let at =
        |(i, x): (usize, &f64)| (x - mean) / (var + eps).sqrt() * f64::from(gamma[i]) + f64::from(beta[i]);
    x.iter().enumerate().map(at).collect()
}

/// A ResNet of basic blocks under torchvision's names.
pub struct ResNet {
    pub stride: usize,
    pub pool: bool,
    pub act: Function,
    pub eps: f64,
    pub shortcut: &'static str,
    pub head: &'static str,
}

impl ResNet {
    pub fn logits(&self, state: &State, x: &Map) -> Vec<f64> {
        let pad = tensor(state, "conv1.weight").0[2] / 2;
        let mut x =
            map(batch_norm(state, "bn1", conv(state, "conv1", x, self.stride, pad), self.eps), self.act);
        if self.pool {
            x = max_pool(&x);
        }
        for stage in 1..=4 {
            for block in 0.. {
                let name = |part: &str| format!("layer{stage}.{block}.{part}");
                if !state.contains_key(&name("conv1.weight")) {
                    break;
                }
                let stride = if stage > 1 && block == 0 { 2 } else { 1 };
                let y = batch_norm(state, &name("bn1"), conv(state, &name("conv1"), &x, stride, 1), self.eps);
                let y = conv(state, &name("conv2"), &map(y, self.act), 1, 1);
                let mut y = batch_norm(state, &name("bn2"), y, self.eps);
                let across = name(&format!("{}.0", self.shortcut));
                if state.contains_key(&format!("{across}.weight")) {
                    let norm = name(&format!("{}.1", self.shortcut));
                    x = batch_norm(state, &norm, conv(state, &across, &x, stride, 0), self.eps);
                }
                y.v.iter_mut().zip(&x.v).for_each(|(y, x)| *y += x);
                x = map(y, self.act);
            }
        }
        named(state, self.head, &means(&x))
    }
}

/// A ViT under torchvision's names: pre-norm blocks, GELU, the class token, eps 1e-6.
pub fn vit(state: &State, x: &Map, heads: usize) -> Vec<f64> {
    let patch = tensor(state, "conv_proj.weight").0[2];
    let x = conv(state, "conv_proj", x, patch, 0);
    let (d, positions) = (x.c, x.h * x.w);
    let mut tokens = vec![tensor(state, "class_token").1.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>()];
    tokens.extend((0..positions).map(|p| (0..d).map(|c| x.v[c * positions + p]).collect()));
    let table = tensor(state, "encoder.pos_embedding").1;
    tokens.iter_mut().flatten().zip(table).for_each(|(t, &p)| *t += f64::from(p));
    for block in 0.. {
        let part = |part: &str| format!("encoder.layers.encoder_layer_{block}.{part}");
        if !state.contains_key(&part("ln_1.weight")) {
            break;
        }
        let (weight, bias) = (part("self_attention.in_proj_weight"), part("self_attention.in_proj_bias"));
        let normed = |t: &Vec<f64>| linear(state, &weight, &bias, &layer_norm(state, &part("ln_1"), t, 1e-6));
        let qkv: Vec<Vec<f64>> = tokens.iter().map(normed).collect();
        let each = d / heads;
        for (i, token) in tokens.iter_mut().enumerate() {
            let mut mixed = vec![];
            for head in 0..heads {
                let q = &qkv[i][head * each..(head + 1) * each];
                let score = |row: &Vec<f64>| {
                    let k = &row[d + head * each..d + (head + 1) * each];
                    (q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (each as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = qkv.iter().map(score).collect();
                let whole: f64 = scores.iter().sum();
                for c in 2 * d + head * each..2 * d + (head + 1) * each {
                    mixed.push(qkv.iter().zip(&scores).map(|(row, score)| row[c] * score / whole).sum());
                }
            }
            let out = named(state, &part("self_attention.out_proj"), &mixed);
            token.iter_mut().zip(out).for_each(|(t, out)| *t += out);
            let y = named(state, &part("mlp.0"), &layer_norm(state, &part("ln_2"), token, 1e-6));
            let y = named(state, &part("mlp.3"), &y.into_iter().map(gelu).collect::<Vec<f64>>());
            token.iter_mut().zip(y).for_each(|(t, y)| *t += y);
        }
    }
    named(state, "heads.head", &layer_norm(state, "encoder.ln", &tokens[0], 1e-6))
}
