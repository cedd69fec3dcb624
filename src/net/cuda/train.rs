//! Training on a CUDA device: parameters, gradients and what the optimizer remembers stay there. A step brings the batch,
//! takes back its loss and how much of it was right, and allocates nothing; what it launches is recorded when it comes a
//! second time, and from then on replayed. So is what the optimizer launches: the rate and the like are in device memory.
//!
//! A batch norm reads the whole batch, so that there is one chunk, and no smaller one where memory is short: the backward pass
//! then computes some values again.

use std::borrow::Cow;

use super::passes::{Arena, Chunk, Passes};
use super::rows::RowBuffers;
use super::sizes::Sizes;
use crate::data::Inputs;
use crate::device::cuda::{Buffer, Repeats};
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};
use crate::net::instruction::{BatchNormOp, Instruction};
use crate::net::plan::{Plan, Purpose};
use crate::net::program::{Section, Seed, Tilt};
use crate::net::rows::{RowValues, Selected};
use crate::net::step::{MOMENTUM, Step, decaying, shortened};
use crate::net::{Network, ParamId};
use crate::ops::Precision;
use crate::ops::cuda::{batch_norm, loss, optimizer, vector};
use crate::ops::optimizer::{Decayed, Memory, Optimizer, Update};

/// A network that is trained.
pub struct Training<'a> {
    passes: Passes<'a>,
    arena: Arena,
    /// Sums over the batch.
    gradients: RowBuffers,
    /// Of the parameters that gradients move; of the others none.
    memory: Vec<Option<Memory<Buffer<f32>>>>,
    /// `[batch, width]`.
    predicted: Buffer<u32>,
    /// The sum of the losses, and how many predictions are right.
    scores: Buffer<f64>,
    /// What the optimizer reads of a step.
    now: Buffer<f32>,
    /// Sums of squares of the gradients; made when they are first asked for.
    squares: Option<Buffer<f64>>,
    /// Samples of the last step, and what its gradients are shortened by.
    n: usize,
    clip: f32,
    repeats: Repeats<Again>,
}

/// What is launched again and again.
#[derive(PartialEq)]
enum Again {
    /// The pass over this many samples, of the network's loss or a tilted one.
    Pass(usize, bool),
    /// The squares of the gradients.
    Squares,
    /// The optimizer's step, of this momentum and weight decay, on these parameters.
    Update(f32, f32, Decayed),
}

impl<'a> Training<'a> {
    /// Memory for training in batches of at most `batch` samples.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is too little memory, or the device fails.
    pub fn new(cuda: &'a Cuda, net: &Network, batch: usize, optimizer: Optimizer) -> Result<Training<'a>> {
        let free = cuda.free()?;
        let (plan, sizes) = sized(net, batch, optimizer, free)?;
        let bytes = sizes.bytes();
        let short = |free: usize, remedy: String| Error::Memory {
            op: format!("training in batches of {batch}, which a batch norm reads whole"),
            bytes,
            free,
            remedy,
        };
        if !fits(&sizes, free) {
            // The largest batch that fits, between one that does and one that does not.
            let (mut below, mut above) = (0, batch);
            while above - below > 1 {
                let middle = below.midpoint(above);
                let fits = fits(&sized(net, middle, optimizer, free)?.1, free);
                *(if fits { &mut below } else { &mut above }) = middle;
            }
            let remedy = match below {
                0 => format!("; one sample takes {}", sized(net, 1, optimizer, free)?.1.bytes()),
                below => format!("; a batch of {below} would fit"),
            };
            return Err(short(free, remedy));
        }
        Training::with(cuda, net, plan, sizes, optimizer).map_err(|error| match error {
            Error::Memory { free, .. } => short(free, "; a smaller batch takes less".into()),
            error => error,
        })
    }

    fn with(
        cuda: &'a Cuda,
        net: &Network,
        plan: Plan,
        sizes: Sizes,
        optimizer: Optimizer,
    ) -> Result<Training<'a>> {
        let zeros = RowValues::zeros_of_training(net);
        let (passes, arena) = Passes::new(cuda, Cow::Owned(net.clone()), plan, sizes, None, Precision::F32)?;
        let memory = net.params.iter().map(|param| {
            let zeros = || cuda.upload(&vec![0.0; param.value.len()]);
            param.trained.then(|| Memory::new(optimizer, zeros)).transpose()
        });
        Ok(Training {
            gradients: RowBuffers::upload(cuda, &zeros)?,
            memory: memory.collect::<Result<_>>()?,
            predicted: cuda.alloc(sizes.labels)?,
            scores: cuda.alloc(2)?,
            now: cuda.alloc(4)?,
            squares: None,
            n: 0,
            clip: 1.0,
            repeats: Repeats::default(),
            passes,
            arena,
        })
    }

    /// One pass over a batch: gradients, of a tilted loss where there is a tilt, and running statistics.
    ///
    /// # Errors
    /// Where a label does not fit the network, or the device fails.
    pub fn step(&mut self, device: &Device, batch: &dyn Inputs, tilt: Option<Tilt>) -> Result<Step> {
        let Training { passes, arena, gradients, predicted, scores, .. } = self;
        let (n, cuda) = (passes.fill(device, arena, batch, 0..batch.len())?, passes.cuda);
        (self.n, self.clip) = (n, 1.0);
        if let Some(tilt) = tilt {
            arena.chunk.bring(cuda, tilt)?;
        }
        let seed = tilt.map_or(Seed::Gradient, Seed::Tilted);
        self.repeats.run(cuda, Again::Pass(n, tilt.is_some()), || {
            gradients.clear(passes)?;
            passes.primal(&mut arena.chunk, seed, gradients, n)?;
            passes.losses(&mut arena.chunk, n)?;
            let Chunk { kept, labels, losses, work, .. } = &arena.chunk;
            let (logits, words) = (passes.logits(kept, work, n), n * passes.plan.label_width);
            loss::predict(cuda, predicted.output().split_at(words).0, logits, passes.net.loss)?;
            let (losses, predicted) = (losses.input().part(0..n), predicted.input().part(0..words));
            let labels = labels.input().part(0..words);
            loss::score(cuda, scores.output(), losses, predicted, labels)?;
            passes.move_running(&arena.chunk, n)
        })?;
        let mut found = [0.0; 2];
        cuda.read(&mut found, scores.input())?;
        Ok(Step { loss: found[0] / n as f64, correct: found[1] as usize })
    }

    /// Shortens the mean gradient of the last step to this norm, where it is longer; returns the norm that it had.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn clip(&mut self, longest: f64) -> Result<f64> {
        let Training { passes, gradients, memory, squares, .. } = self;
        let (cuda, net) = (passes.cuda, &passes.net);
        let trained: Vec<usize> = (0..memory.len()).filter(|&i| memory[i].is_some()).collect();
        let parts = |i: usize| vector::parts(net.params[i].value.len());
        let squares = match squares {
            Some(squares) => squares,
            None => squares.insert(cuda.alloc(trained.iter().map(|&i| parts(i)).sum())?),
        };
        self.repeats.run(cuda, Again::Squares, || {
            let mut rest = squares.output();
            for &i in &trained {
                let (scratch, others) = rest.split_at(parts(i));
                vector::squares(cuda, scratch, gradient(net, gradients, i).input())?;
                rest = others;
            }
            Ok(())
        })?;
        let (all, mut end, mut sum) = (cuda.download(squares)?, 0, 0.0);
        for &i in &trained {
            end += parts(i);
            sum += all[end - 1];
        }
        let norm = sum.sqrt() / self.n.max(1) as f64;
        self.clip = shortened(norm, longest);
        Ok(norm)
    }

    /// Moves the parameters by the gradients of the last step.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn update(&mut self, update: &Update, decayed: Decayed) -> Result<()> {
        let Training { passes, gradients, memory, now, .. } = self;
        let cuda = passes.cuda;
        cuda.write(now.output(), &optimizer::now(self.clip / self.n.max(1) as f32, update))?;
        self.repeats.run(cuda, Again::Update(update.momentum, update.decay, decayed), || {
            for (i, memory) in memory.iter_mut().enumerate() {
                let Some(memory) = memory else { continue };
                let gradient = gradient(&passes.net, gradients, i).input();
                let update = decaying(update, decayed, passes.net.params[i].role);
                optimizer::update(cuda, passes.trained[i].output(), memory, gradient, now.input(), &update)?;
            }
            Ok(())
        })
    }

    /// The gradients of the last step's mean loss, as [`crate::net::TrainPass::gradients`].
    ///
    /// # Errors
    /// Where the device fails.
    pub fn gradients(&self) -> Result<Vec<Vec<f32>>> {
        let (cuda, factor) = (self.passes.cuda, self.clip / self.n.max(1) as f32);
        let each = (0..self.memory.len()).map(|i| {
            let mut values = cuda.download(gradient(&self.passes.net, &self.gradients, i))?;
            values.iter_mut().for_each(|g| *g *= factor);
            Ok(values)
        });
        each.collect()
    }

    /// What the optimizer remembers, as [`crate::net::TrainPass::state`].
    ///
    /// # Errors
    /// Where the device fails.
    pub fn memory(&self) -> Result<Vec<f32>> {
        let parts = self.memory.iter().flatten().flat_map(Memory::parts);
        let parts = parts.map(|part| self.passes.cuda.download(part)).collect::<Result<Vec<_>>>()?;
        Ok(parts.concat())
    }

    /// Takes what the optimizer is to remember from `next`, this many values at a time.
    ///
    /// # Errors
    /// That of `next`; where the device fails.
    pub fn remember<'b>(&mut self, next: &mut dyn FnMut(usize) -> Result<&'b [f32]>) -> Result<()> {
        let cuda = self.passes.cuda;
        let mut parts = self.memory.iter_mut().flatten().flat_map(Memory::parts_mut);
        parts.try_for_each(|part| {
            let values = next(part.len())?;
            cuda.write(part.output(), values)
        })
    }

    /// Brings the parameters to `net`.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn read(&self, net: &mut Network) -> Result<()> {
        let mut pairs = net.params.iter_mut().zip(&self.passes.trained);
        pairs.try_for_each(|(param, trained)| self.passes.cuda.read(&mut param.value, trained.input()))
    }
}

/// The plan of a batch, and what it takes. Where that does not fit, some values are computed again.
fn sized(net: &Network, batch: usize, optimizer: Optimizer, free: usize) -> Result<(Plan, Sizes)> {
    let rows = vec![Selected::All; net.layers.len()];
    let plan = Plan::on_cuda(net, &rows, Purpose::Train, batch, Precision::F32)?;
    let of = |plan: &Plan| {
        let mut sizes = Sizes::new(net, plan, 0, Precision::F32);
        // Beside each value its gradient, and what is remembered of it; predictions; scores, and four numbers of a step.
        sizes.fixed = (2 + optimizer.remembers()) * net.parameters() + sizes.labels + 4 + 4;
        sizes
    };
    let sizes = of(&plan);
    if fits(&sizes, free) {
        return Ok((plan, sizes));
    }
    let plan = plan.less();
    let sizes = of(&plan);
    Ok((plan, sizes))
}

/// Whether there is memory, and kernels can number the values.
fn fits(sizes: &Sizes, free: usize) -> bool {
    sizes.bytes() <= free && sizes.numbered()
}

/// The gradient of a parameter.
fn gradient<'b>(net: &Network, gradients: &'b RowBuffers, param: usize) -> &'b Buffer<f32> {
    let of = |of: Option<ParamId>| of.is_some_and(|of| of.index() == param);
    let weight = net.layers.iter().position(|layer| of(Some(layer.weight)));
    let bias = net.layers.iter().position(|layer| of(layer.bias));
    match (weight, bias) {
        (Some(layer), _) => &gradients.weight[layer],
        (_, Some(layer)) => &gradients.bias[layer],
        _ => &gradients.other[param],
    }
}

impl Passes<'_> {
    /// Moves the running statistics of every batch norm by the moments of a batch of `n`.
    fn move_running(&mut self, chunk: &Chunk, n: usize) -> Result<()> {
        for step in self.plan.program.section(Section::Forward) {
            let Instruction::BatchNorm(BatchNormOp::Forward { x, node, mean, var, c, .. }) =
                &step.instruction
            else {
                continue;
            };
            let moments = chunk.work.moments.input().part(self.moments(*node));
            let count = (n * (x.len / c)) as f64;
            let unbiased = count / (count - 1.0).max(1.0);
            for (running, moment, factor) in [(mean, 0, 1.0), (var, 1, unbiased)] {
                let moment = moments.part(moment * c..(moment + 1) * c);
                let running = self.trained[running.index()].output();
                batch_norm::move_running(self.cuda, running, moment, factor, MOMENTUM)?;
            }
        }
        Ok(())
    }
}
