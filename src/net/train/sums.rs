//! What the chunks of a mini-batch give together, in chunk order: gradients, running statistics, losses and predictions.

use rayon::prelude::*;

use crate::communicator::Communicator;
use crate::error::Result;
use crate::loss;
use crate::net::cpu::Run;
use crate::net::cpu::batch::Batch;
use crate::net::instruction::{BatchNormOp, Instruction};
use crate::net::plan::Plan;
use crate::net::program::Section;
use crate::net::rows::{Among, RowValues};
use crate::net::step::MOMENTUM;
use crate::net::{Network, NodeId};
use crate::ops::cpu::batch_norm::Moments;

/// Adds the gradients of `count` chunks, of which each rank has the sinks of its own, to those of the network in chunk order; where they begin a
/// batch, the first takes the place of what is there.
pub(super) fn collect(
    gradients: &mut [Vec<f32>],
    ranks: &Communicator,
    net: &Network,
    sinks: &[&RowValues],
    (count, begins): (usize, bool),
) -> Result<()> {
    let places = Among::all(net);
    let add = |sum: &mut [f32], values: &[f32]| sum.iter_mut().zip(values).for_each(|(g, v)| *g += v);
    if ranks.size() == 1 {
        gradients.par_iter_mut().zip(places).for_each(|(gradient, among)| {
            for (i, sink) in sinks.iter().enumerate() {
                let values = sink.of(among);
                match begins && i == 0 {
                    true => gradient.copy_from_slice(values),
                    false => add(gradient, values),
                }
            }
        });
        return Ok(());
    }
    let all = |sink: &&RowValues| -> Vec<f32> {
        places.iter().map(|&among| sink.of(among)).collect::<Vec<&[f32]>>().concat()
    };
    let own = sinks.iter().map(all).collect();
    let len = gradients.iter().map(Vec::len).sum();
    let before = if begins { vec![] } else { gradients.concat() };
    let sum = ranks.reduce(count, len, Ok(own), |part, chunks| {
        let (first, others) = match chunks {
            [first, others @ ..] if begins => (*first, others),
            chunks => (&before[part], chunks),
        };
        let mut sum = first.to_vec();
        others.iter().for_each(|chunk| add(&mut sum, chunk));
        sum
    })?;
    let mut rest = &sum[..];
    for gradient in gradients {
        let (part, others) = rest.split_at(gradient.len());
        gradient.copy_from_slice(part);
        rest = others;
    }
    Ok(())
}

/// Moves the running statistics of every batch norm by the batch's.
pub(super) fn move_running(net: &mut Network, plan: &Plan, moments: &[(NodeId, Moments)]) {
    for step in plan.program.section(Section::Forward) {
        let Instruction::BatchNorm(BatchNormOp::Forward { node, mean, var, .. }) = &step.instruction else {
            continue;
        };
        let Some((_, moments)) = moments.iter().find(|(of, _)| of == node) else { continue };
        let unbiased = moments.count as f64 / (moments.count as f64 - 1.0).max(1.0);
        let running = &mut net.params[mean.index()].value;
        running.iter_mut().zip(&moments.mean).for_each(|(r, &m)| *r += MOMENTUM * (m as f32 - *r));
        let running = &mut net.params[var.index()].value;
        let var = moments.var.iter().map(|&v| (v * unbiased) as f32);
        running.iter_mut().zip(var).for_each(|(r, v)| *r += MOMENTUM * (v - *r));
    }
}

/// Of each chunk of all ranks, behind the forward section: the sum of its losses, and how many predictions are right.
pub(super) fn score(batch: &Batch, net: &Network) -> Result<Vec<[f64; 2]>> {
    let (classes, width) = (net.classes(), net.label_width());
    let of = |run: &Run| -> Result<[f64; 2]> {
        let (logits, labels) = (run.logits(), run.labels());
        let (mut losses, mut predicted) = (vec![0.0; labels.len() / width], vec![0; labels.len()]);
        net.loss.values(&mut losses, logits, labels, classes)?;
        net.loss.predict(&mut predicted, logits, classes)?;
        let sum = losses.iter().map(|&loss| f64::from(loss)).sum();
        Ok([sum, loss::right(&predicted, labels, width) as f64])
    };
    let all = batch.ranks.gather_values(batch.runs.par_iter().map(of).collect())?;
    batch.ranks.in_order(batch.chunks, all.into_iter().map(Vec::into_iter).collect())
}
