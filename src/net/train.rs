//! Training: the pass that gives values and gradients of every parameter for one mini-batch of a network in train form,
//! and the optimizer's step.
//!
//! On the CPU the batch is cut into chunks that run side by side; batch norm, which reads the whole batch, is where they
//! meet. Forward, between two batch norms every chunk runs alone; a batch norm then takes mean and variance over batch
//! and positions, in f64 and in chunk order, normalises, and moves its running statistics as PyTorch does (momentum 0.1,
//! unbiased variance). Backward runs the same way from the logits down. On CUDA the batch is one chunk
//! ([`super::cuda`]), and parameters stay on the device.

use rayon::prelude::*;

use super::cuda::Training;
use super::passes::{Arena, Pass, RowValues};
use super::plan::{Plan, Purpose, Rows};
use super::{Network, Op, ParamId};
use crate::data::{Inputs, check_labels};
use crate::device::Device;
use crate::ops::loss;
use crate::ops::optimizer::{self, Memory, Optimizer, Update};
use crate::{Error, Result};

/// PyTorch's default weight of a new batch in batch norm's running statistics.
pub(super) const MOMENTUM: f32 = 0.1;

/// A network that is trained. On CUDA it is the device that has its parameters meanwhile: [`TrainPass::network`] brings
/// them.
pub struct TrainPass<'a> {
    device: &'a Device,
    net: &'a mut Network,
    batch: usize,
    place: Place<'a>,
}

/// Where it is trained.
enum Place<'a> {
    Host(Box<Host>),
    Cuda(Box<Training<'a>>),
}

/// The CPU's side.
struct Host {
    plan: Plan,
    chunks: Vec<Chunk>,
    gradients: Vec<Vec<f32>>,
    /// Of the parameters that gradients move; of the others none.
    memory: Vec<Option<Memory<Vec<f32>>>>,
}

/// One chunk of the batch.
struct Chunk {
    arena: Arena,
    sink: RowValues,
    n: usize,
}

/// What a step gives beside the gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The mean loss of the batch.
    pub loss: f64,
    /// How many of the batch were right.
    pub correct: usize,
}

impl<'a> TrainPass<'a> {
    /// Training in batches of at most `batch` samples.
    ///
    /// # Errors
    /// Where the network is frozen or the batch is empty; [`Error::Memory`] where it is too large for a GPU.
    pub fn new(
        device: &'a Device,
        net: &'a mut Network,
        batch: usize,
        optimizer: Optimizer,
    ) -> Result<TrainPass<'a>> {
        if net.is_frozen() {
            return Err(Error::config("a frozen network cannot be trained"));
        }
        if batch == 0 {
            return Err(Error::config("a batch of no samples"));
        }
        let place = match device.cuda() {
            Some(cuda) => Place::Cuda(Box::new(Training::new(cuda, net, batch, optimizer)?)),
            None => Place::Host(Box::new(Host::new(net, batch, optimizer)?)),
        };
        Ok(TrainPass { device, net, batch, place })
    }

    /// Runs one mini-batch: gradients here, running statistics in the network.
    ///
    /// # Errors
    /// Where the batch is empty, larger than the pass was made for, of another shape, or a label is no class; on CUDA
    /// where the device fails.
    pub fn step(&mut self, batch: &dyn Inputs) -> Result<Step> {
        let total = batch.len();
        if total == 0 || total > self.batch || batch.shape() != self.net.input() {
            let expected = format!("1 to {} samples of {:?}", self.batch, self.net.input());
            return Err(Error::shape("train", expected, format!("{total} of {:?}", batch.shape())));
        }
        match &mut self.place {
            Place::Host(host) => host.step(self.device, self.net, batch),
            Place::Cuda(cuda) => cuda.step(self.device, batch),
        }
    }

    /// Moves every trained parameter by the gradients of the last step.
    ///
    /// # Errors
    /// On CUDA, where the device fails.
    pub fn update(&mut self, update: &Update) -> Result<()> {
        match &mut self.place {
            Place::Host(host) => {
                self.device.scope(|| host.update(self.net, update));
                Ok(())
            }
            Place::Cuda(cuda) => cuda.update(update),
        }
    }

    /// The gradients of the last step's mean loss, one per parameter in the order of [`Network::params`]; zeros for
    /// running statistics.
    ///
    /// # Errors
    /// On CUDA, where the device fails.
    pub fn gradients(&self) -> Result<Vec<Vec<f32>>> {
        match &self.place {
            Place::Host(host) => Ok(host.gradients.clone()),
            Place::Cuda(cuda) => cuda.gradients(),
        }
    }

    /// The network as it is now.
    ///
    /// # Errors
    /// On CUDA, where the device fails.
    pub fn network(&mut self) -> Result<&Network> {
        if let Place::Cuda(cuda) = &self.place {
            cuda.read(self.net)?;
        }
        Ok(self.net)
    }
}

impl Host {
    fn new(net: &Network, batch: usize, optimizer: Optimizer) -> Result<Host> {
        let plan = Plan::new(net, vec![Rows::All; net.layers.len()], Purpose::Train, batch);
        let chunks = (0..batch.div_ceil(plan.chunk)).map(|_| {
            let mut sink = RowValues::zeros(net, &plan.rows);
            sink.other = net.params.iter().map(|param| vec![0.0; param.value.len()]).collect();
            Chunk { arena: Arena::new(&plan), sink, n: 0 }
        });
        let chunks = chunks.collect();
        let gradients = net.params.iter().map(|param| vec![0.0; param.value.len()]).collect();
        let memory = net.params.iter().map(|param| {
            param.trained.then(|| Memory::new(optimizer, || Ok(vec![0.0; param.value.len()]))).transpose()
        });
        Ok(Host { plan, chunks, gradients, memory: memory.collect::<Result<_>>()? })
    }

    fn update(&mut self, net: &mut Network, update: &Update) {
        let params = net.params.par_iter_mut().zip(&self.gradients).zip(&mut self.memory);
        params.for_each(|((param, gradient), memory)| {
            if let Some(memory) = memory {
                optimizer::update(&mut param.value, memory, gradient, update);
            }
        });
    }

    fn step(&mut self, device: &Device, net: &mut Network, batch: &dyn Inputs) -> Result<Step> {
        let total = batch.len();
        let plan = &self.plan;
        let chunk_of = |i: usize| (i * plan.chunk).min(total)..((i + 1) * plan.chunk).min(total);
        for (i, chunk) in self.chunks.iter_mut().enumerate() {
            let range = chunk_of(i);
            let first = range.start;
            chunk.n = range.len();
            chunk.sink.clear();
            let x = &mut chunk.arena.y[plan.y.value(0, chunk.n)];
            batch.fill(x, &mut chunk.arena.labels[..chunk.n], range);
            check_labels(&chunk.arena.labels[..chunk.n], first, net.classes())?;
        }
        let chunks = &mut self.chunks[..total.div_ceil(plan.chunk)];
        let (step, statistics) = device.scope(|| {
            let mut statistics = vec![];
            let pass = Pass { net, plan };
            for segment in segments(net) {
                let Op::BatchNorm { gamma, beta, mean, var, eps } = &net.nodes[segment.start].op else {
                    chunks.par_iter_mut().for_each(|chunk| {
                        segment
                            .clone()
                            .for_each(|node| pass.forward_node(node, &mut chunk.arena.y, chunk.n, None));
                    });
                    continue;
                };
                let moments = moments(pass, chunks, segment.start);
                normalise(pass, chunks, segment.start, &moments, net.value(*gamma), net.value(*beta), *eps);
                statistics.push((segment.start, *mean, *var, moments));
            }
            let step = seed(pass, chunks);
            for segment in segments(net).into_iter().rev() {
                let Op::BatchNorm { gamma, beta, eps, .. } = &net.nodes[segment.start].op else {
                    chunks.par_iter_mut().for_each(|Chunk { arena, sink, n }| {
                        let Arena { y, h, scratch, .. } = arena;
                        for node in segment.clone().rev() {
                            pass.backward_node(node, h, sink, &mut scratch[0], &plan.h, y, *n);
                        }
                    });
                    continue;
                };
                if let Some((.., moments)) = statistics.iter().find(|(node, ..)| *node == segment.start) {
                    denormalise(pass, chunks, segment.start, moments, (*gamma, *beta), *eps);
                }
            }
            (step, statistics)
        });
        self.collect(net, total);
        for (_, mean, var, moments) in statistics {
            let unbiased = moments.count as f64 / (moments.count as f64 - 1.0).max(1.0);
            let running = &mut net.params[mean.index()].value;
            running.iter_mut().zip(&moments.mean).for_each(|(r, &m)| *r += MOMENTUM * (m as f32 - *r));
            let running = &mut net.params[var.index()].value;
            running
                .iter_mut()
                .zip(&moments.var)
                .for_each(|(r, &v)| *r += MOMENTUM * ((v * unbiased) as f32 - *r));
        }
        Ok(step)
    }

    /// The chunks' gradients, summed in chunk order, over the batch.
    fn collect(&mut self, net: &Network, total: usize) {
        let used = total.div_ceil(self.plan.chunk);
        let (first, rest) = self.chunks[..used].split_at_mut(1);
        let sum = &mut first[0].sink;
        rest.iter().for_each(|chunk| sum.add(&chunk.sink));
        let scale = 1.0 / total as f32;
        let mut put = |param: ParamId, values: &[f32]| {
            self.gradients[param.index()].iter_mut().zip(values).for_each(|(g, v)| *g = v * scale);
        };
        (0..net.params.len()).for_each(|i| put(ParamId(i as u32), &sum.other[i]));
        for (l, layer) in net.layers.iter().enumerate() {
            put(layer.weight, &sum.weight[l]);
            if let Some(bias) = layer.bias {
                put(bias, &sum.bias[l]);
            }
        }
    }
}

/// Runs of nodes without a batch norm, and batch norms alone; the image is in none.
fn segments(net: &Network) -> Vec<std::ops::Range<usize>> {
    let mut segments = vec![];
    let mut start = 1;
    for node in 1..net.nodes.len() {
        if matches!(net.nodes[node].op, Op::BatchNorm { .. }) {
            if start < node {
                segments.push(start..node);
            }
            segments.push(node..node + 1);
            start = node + 1;
        }
    }
    if start < net.nodes.len() {
        segments.push(start..net.nodes.len());
    }
    segments
}

/// Mean and (biased) variance per channel over `count` positions.
struct Moments {
    mean: Vec<f64>,
    var: Vec<f64>,
    count: usize,
}

/// Sums over all positions of a batch, `f(chunk)` giving each chunk's sums: chunks side by side, added in order.
fn sums(chunks: &mut [Chunk], c: usize, f: impl Fn(&Chunk) -> Vec<f64> + Sync + Send) -> Vec<f64> {
    let each: Vec<Vec<f64>> = chunks.par_iter().map(f).collect();
    each.iter().fold(vec![0.0; c], |mut all, one| {
        all.iter_mut().zip(one).for_each(|(a, b)| *a += b);
        all
    })
}

fn moments(pass: Pass, chunks: &mut [Chunk], node: usize) -> Moments {
    let input = pass.net.nodes[node].inputs[0].index();
    let shape = pass.net.nodes[node].shape;
    let count = chunks.iter().map(|chunk| chunk.n).sum::<usize>() * shape.positions();
    let over = |chunk: &Chunk, f: &dyn Fn(usize, f64) -> f64| {
        let mut sum = vec![0.0; shape.c];
        for at in chunk.arena.y[pass.plan.y.value(input, chunk.n)].chunks_exact(shape.c) {
            at.iter().enumerate().for_each(|(c, &x)| sum[c] += f(c, f64::from(x)));
        }
        sum
    };
    let mut mean = sums(chunks, shape.c, |chunk| over(chunk, &|_, x| x));
    mean.iter_mut().for_each(|m| *m /= count as f64);
    let mut var = sums(chunks, shape.c, |chunk| over(chunk, &|c, x| (x - mean[c]) * (x - mean[c])));
    var.iter_mut().for_each(|v| *v /= count as f64);
    Moments { mean, var, count }
}

fn normalise(
    pass: Pass,
    chunks: &mut [Chunk],
    node: usize,
    moments: &Moments,
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
) {
    let input = pass.net.nodes[node].inputs[0].index();
    let c = pass.net.nodes[node].shape.c;
    let maps: Vec<(f32, f32, f32)> = (0..c)
        .map(|c| {
            let scale = f64::from(gamma[c]) / (moments.var[c] + f64::from(eps)).sqrt();
            (moments.mean[c] as f32, scale as f32, beta[c])
        })
        .collect();
    chunks.par_iter_mut().for_each(|chunk| {
        let (from, to) = (pass.plan.y.value(input, chunk.n), pass.plan.y.value(node, chunk.n));
        chunk.arena.y.copy_within(from, to.start);
        for at in chunk.arena.y[to].chunks_exact_mut(c) {
            at.iter_mut().zip(&maps).for_each(|(y, (mean, scale, shift))| *y = (*y - mean) * scale + shift);
        }
    });
}

/// Backward of batch norm: dx = γ/σ (dy − mean(dy) − x̂ mean(dy x̂)), dγ = Σ dy x̂, dβ = Σ dy.
fn denormalise(
    pass: Pass,
    chunks: &mut [Chunk],
    node: usize,
    moments: &Moments,
    (gamma, beta): (ParamId, ParamId),
    eps: f32,
) {
    let input = pass.net.nodes[node].inputs[0].index();
    let c = pass.net.nodes[node].shape.c;
    let inverse: Vec<f64> = moments.var.iter().map(|var| 1.0 / (var + f64::from(eps)).sqrt()).collect();
    let standard = |c: usize, x: f32| (f64::from(x) - moments.mean[c]) * inverse[c];
    let both = sums(chunks, 2 * c, |chunk| {
        let mut sum = vec![0.0; 2 * c];
        let dy = chunk.arena.h[pass.plan.h.value(node, chunk.n)].chunks_exact(c);
        let x = chunk.arena.y[pass.plan.y.value(input, chunk.n)].chunks_exact(c);
        for (dy, x) in dy.zip(x) {
            for i in 0..c {
                sum[i] += f64::from(dy[i]);
                sum[c + i] += f64::from(dy[i]) * standard(i, x[i]);
            }
        }
        sum
    });
    for i in 0..c {
        chunks[0].sink.other[beta.index()][i] += both[i] as f32;
        chunks[0].sink.other[gamma.index()][i] += both[c + i] as f32;
    }
    let gamma = pass.net.value(gamma);
    let count = moments.count as f64;
    chunks.par_iter_mut().for_each(|Chunk { arena, n, .. }| {
        let x = &arena.y[pass.plan.y.value(input, *n)];
        pass.add_to_input(node, 0, &mut arena.h, &pass.plan.h, *n, |dx, dy| {
            let rows = dx.chunks_exact_mut(c).zip(dy.chunks_exact(c)).zip(x.chunks_exact(c));
            for ((dx, dy), x) in rows {
                for i in 0..c {
                    let centred = f64::from(dy[i]) - (both[i] + standard(i, x[i]) * both[c + i]) / count;
                    dx[i] += (f64::from(gamma[i]) * inverse[i] * centred) as f32;
                }
            }
        });
    });
}

/// Loss, predictions, and the adjoint of the logits of every chunk.
fn seed(pass: Pass, chunks: &mut [Chunk]) -> Step {
    let classes = pass.net.classes();
    let each: Vec<(f64, usize)> = chunks
        .par_iter_mut()
        .map(|Chunk { arena, n, .. }| {
            let (logits, labels) = (pass.logits(&arena.y, *n), &arena.labels[..*n]);
            let mut losses = vec![0.0; *n];
            loss::cross_entropy(&mut losses, logits, labels, classes);
            let right =
                logits.chunks_exact(classes).zip(labels).filter(|(z, y)| loss::largest(z) == **y).count();
            pass.loss_gradient(&mut arena.h, &pass.plan.h, &arena.y, &arena.labels, *n);
            (losses.iter().map(|&loss| f64::from(loss)).sum(), right)
        })
        .collect();
    let total: usize = chunks.iter().map(|chunk| chunk.n).sum();
    let (loss, correct) = each.iter().fold((0.0, 0), |(l, c), (loss, right)| (l + loss, c + right));
    Step { loss: loss / total as f64, correct }
}
