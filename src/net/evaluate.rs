//! A network's outputs for labelled inputs: losses, predictions, and where they are asked for every unit's activation.

use std::ops::Range;

use rayon::prelude::*;

use super::Network;
use super::cpu::{Arena, Run};
use super::cuda::{Outputs, open};
use super::lanes::check;
use super::plan::{Plan, Purpose};
use super::program::Section;
use super::rows::Selected;
use crate::communicator::Communicator;
use crate::data::Inputs;
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};
use crate::loss::{self, Loss};
use crate::ops::Precision;

/// What a network did with `m` inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Inputs.
    pub m: usize,
    /// Units.
    pub d: usize,
    /// `[m, d]`, units in module order.
    pub activations: Vec<f32>,
    /// `[m]`.
    pub losses: Vec<f32>,
    /// `[m, classes]`.
    pub logits: Vec<f32>,
    /// How many inputs the plan took at once.
    pub chunk: usize,
}

impl Trace {
    fn new(m: usize, d: usize, classes: usize, chunk: usize) -> Result<Trace> {
        let (activations, losses, logits) = (zeros(m, d)?, zeros(m, 1)?, zeros(m, classes)?);
        Ok(Trace { m, d, activations, losses, logits, chunk })
    }
}

/// Zeros `[m, columns]` for `m` inputs; numbers of them beyond all memory are an error, where they would end the program.
///
/// # Errors
/// Where there is no memory for them.
pub fn zeros<T: Copy + Default>(m: usize, columns: usize) -> Result<Vec<T>> {
    let len = m.checked_mul(columns).filter(|&len| Vec::<T>::new().try_reserve_exact(len).is_ok());
    len.map(|len| vec![T::default(); len]).ok_or_else(|| {
        Error::config(format!("{m} inputs by {columns} values are more than there is memory for"))
    })
}

/// How well a network does on labelled inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// `[n]`.
    pub losses: Vec<f32>,
    /// `[n]`, as [`crate::loss::Loss::surprisals`].
    pub surprisals: Vec<f32>,
    /// `[n, width]`, as [`crate::loss::Loss::predict`].
    pub predicted: Vec<u32>,
    /// `[n, width]`.
    pub labels: Vec<u32>,
    /// How many inputs the plan took at once.
    pub chunk: usize,
}

impl Scores {
    /// Inputs whose labels are the predicted ones, all of them.
    pub fn correct(&self) -> usize {
        let width = self.labels.len().checked_div(self.losses.len()).unwrap_or(1);
        loss::right(&self.predicted, &self.labels, width)
    }

    /// The share of correct predictions.
    pub fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.losses.len() as f64
    }

    /// For each class, how many of its inputs are predicted right, and of how many; for each of several labels, in how
    /// many inputs it is predicted right, and of how many.
    pub fn by_output(&self, net: &Network) -> Vec<(usize, usize)> {
        let pairs = || self.labels.iter().zip(&self.predicted);
        let count = |pairs: &mut dyn Iterator<Item = (&u32, &u32)>| {
            pairs.fold((0, 0), |(right, all), (label, predicted)| {
                (right + usize::from(label == predicted), all + 1)
            })
        };
        let of = |output: usize| match net.loss {
            Loss::CrossEntropy { .. } => count(&mut pairs().filter(|(label, _)| **label as usize == output)),
            Loss::BinaryCrossEntropy => count(&mut pairs().skip(output).step_by(net.classes())),
        };
        (0..net.classes()).map(of).collect()
    }

    /// The mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / self.losses.len() as f64
    }
}

/// Runs the network over `inputs` and keeps losses and predictions.
///
/// # Errors
/// Where the inputs are none or of another shape, a label does not fit the network, or it is not frozen.
pub fn evaluate(device: &Device, net: &Network, inputs: &dyn Inputs) -> Result<Scores> {
    let (trace, labels) = pass(device, net, inputs, 0, Precision::F32)?;
    let mut predicted = vec![0; labels.len()];
    net.loss.predict(&mut predicted, &trace.logits, net.classes())?;
    let surprisals = surprisals(net, &trace, &labels)?;
    Ok(Scores { losses: trace.losses, surprisals, predicted, labels, chunk: trace.chunk })
}

/// −ln of the probability that the network gives each input's labels, of its trace: see
/// [`crate::loss::Loss::surprisals`].
///
/// # Errors
/// Where the labels `[m, width]` do not fit the trace.
pub fn surprisals(net: &Network, trace: &Trace, labels: &[u32]) -> Result<Vec<f32>> {
    let mut surprisals = trace.losses.clone();
    if net.loss.is_smoothed() {
        net.loss.surprisals(&mut surprisals, &trace.logits, labels, net.classes())?;
    }
    Ok(surprisals)
}

/// Runs the network over `inputs` and keeps losses and logits, no activations (`d` is 0).
///
/// # Errors
/// As [`evaluate`].
pub fn outputs(device: &Device, net: &Network, inputs: &dyn Inputs) -> Result<Trace> {
    Ok(pass(device, net, inputs, 0, Precision::F32)?.0)
}

/// The outputs of one chunk.
struct Chunk<'a> {
    first: usize,
    activations: &'a mut [f32],
    losses: &'a mut [f32],
    logits: &'a mut [f32],
    labels: &'a mut [u32],
}

/// Runs the network over `inputs`, in a lowered `precision` where that is asked for, and keeps losses, logits and labels,
/// and where `d` is the number of units and not 0, their activations.
///
/// # Errors
/// As [`evaluate`]; where the device fails.
pub(crate) fn pass(
    device: &Device,
    net: &Network,
    inputs: &dyn Inputs,
    d: usize,
    precision: Precision,
) -> Result<(Trace, Vec<u32>)> {
    check(net, inputs)?;
    if device.count() > 1 {
        return device.shared(|device| pass(device, net, inputs, d, precision));
    }
    if let Some(cuda) = device.cuda() {
        return run_on_cuda(device, cuda, net, inputs, d, precision);
    }
    let (m, classes) = (inputs.len(), net.classes());
    let plan = Plan::forward(net, m)?;
    let mut trace = Trace::new(m, d, classes, plan.chunk)?;
    let mut labels = vec![0; m * plan.label_width];

    let mut activations = trace.activations.as_mut_slice();
    let mut chunks = vec![];
    let parts = trace.losses.chunks_mut(plan.chunk).zip(trace.logits.chunks_mut(plan.chunk * classes));
    for ((losses, logits), labels) in parts.zip(labels.chunks_mut(plan.chunk * plan.label_width)) {
        let (mine, rest) = activations.split_at_mut(losses.len() * d);
        activations = rest;
        chunks.push(Chunk { first: chunks.len() * plan.chunk, activations: mine, losses, logits, labels });
    }
    // One run of chunks for each rank.
    let (ranks, count) = (device.ranks(), chunks.len());
    let of_rank = |rank: usize| count * rank / ranks.size()..count * (rank + 1) / ranks.size();
    let own = &mut chunks[of_rank(ranks.rank())];
    let done = device.scope(|| {
        // A few chunks per thread and turn, each turn with one arena.
        let turn = own.len().div_ceil(4 * rayon::current_num_threads()).max(1);
        own.par_chunks_mut(turn).try_for_each(|chunks| {
            let mut arena = Arena::new(&plan);
            for out in chunks {
                let n = arena.fill(net, &plan, inputs, out.first..out.first + out.losses.len())?;
                let trace = (d > 0).then_some(&mut *out.activations);
                let mut run = Run::new(net, &plan, &mut arena, n).traced(trace);
                run.section(Section::Forward);
                out.logits.copy_from_slice(run.logits());
                out.labels.copy_from_slice(run.labels());
                net.loss.values(out.losses, out.logits, out.labels, classes)?;
            }
            Ok(())
        })
    });
    match ranks.size() {
        1 => done?,
        _ => {
            let range = of_rank(ranks.rank());
            let inputs = (range.start * plan.chunk).min(m)..(range.end * plan.chunk).min(m);
            gather(ranks, inputs, done, &mut trace, &mut labels)?;
        }
    }
    Ok((trace, labels))
}

/// Makes the outputs of all ranks those of each, of which this one has computed `own` of the inputs.
fn gather(
    ranks: &Communicator,
    own: Range<usize>,
    done: Result<()>,
    trace: &mut Trace,
    labels: &mut Vec<u32>,
) -> Result<()> {
    let (m, d) = (trace.m, trace.d);
    let (classes, width) = (trace.logits.len() / m, labels.len() / m);
    let of = |values: &[f32], columns: usize| values[own.start * columns..own.end * columns].to_vec();
    trace.losses = ranks.gather_values(done.map(|()| of(&trace.losses, 1)))?.concat();
    trace.logits = ranks.gather_values(Ok(of(&trace.logits, classes)))?.concat();
    *labels = ranks.gather_values(Ok(labels[own.start * width..own.end * width].to_vec()))?.concat();
    if d > 0 {
        trace.activations = ranks.gather_values(Ok(of(&trace.activations, d)))?.concat();
    }
    Ok(())
}

/// The same, chunk after chunk on a CUDA device; the host threads make the inputs. Of several ranks each has a run of them.
fn run_on_cuda(
    device: &Device,
    cuda: &Cuda,
    net: &Network,
    inputs: &dyn Inputs,
    d: usize,
    precision: Precision,
) -> Result<(Trace, Vec<u32>)> {
    let (m, classes, ranks) = (inputs.len(), net.classes(), device.ranks());
    let rows = vec![Selected::None; net.layers.len()];
    let (passes, mut arena) = open(device, cuda, net, &rows, Purpose::Forward, inputs, d, precision)?;
    let chunk = passes.plan.chunk;
    let mut trace = Trace::new(m, d, classes, chunk)?;
    let width = net.label_width();
    let mut labels = vec![0; m * width];
    let own = m * ranks.rank() / ranks.size()..m * (ranks.rank() + 1) / ranks.size();
    let done = own.clone().step_by(chunk).try_for_each(|first| {
        let range = first..(first + chunk).min(own.end);
        let n = passes.fill(device, &mut arena, inputs, range.clone())?;
        let out = Outputs {
            activations: &mut trace.activations[range.start * d..range.end * d],
            losses: &mut trace.losses[range.clone()],
            logits: &mut trace.logits[range.start * classes..range.end * classes],
            labels: &mut labels[range.start * width..range.end * width],
        };
        passes.observe(&mut arena, n, out)
    });
    let done = done.and_then(|()| passes.check_range(&arena)); // an error of one rank is that of all
    match ranks.size() {
        1 => done?,
        _ => gather(ranks, own, done, &mut trace, &mut labels)?,
    }
    Ok((trace, labels))
}
