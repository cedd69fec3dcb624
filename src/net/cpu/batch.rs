//! A mini-batch in training: the chunks that are this rank's, side by side. At a batch norm they wait for one another and for
//! those of other ranks: its sums are taken of each chunk and added in the order of all chunks.

use rayon::prelude::*;

use super::Run;
use super::few::Few;
use crate::communicator::Communicator;
use crate::error::Result;
use crate::net::instruction::{BatchNormOp, Instruction, Value};
use crate::net::plan::Plan;
use crate::net::program::Section;
use crate::net::{NodeId, ParamId};
use crate::ops::cpu::batch_norm::{self, Moments};

/// See the file's opening.
pub(crate) struct Batch<'a> {
    /// Of this rank's chunks, ascending.
    pub runs: Vec<Run<'a>>,
    /// Of all chunks.
    pub plan: &'a Plan,
    /// Those that share them.
    pub ranks: &'a Communicator,
    /// Chunks of all ranks.
    pub chunks: usize,
    /// Images of all chunks.
    pub images: usize,
    /// The statistics of every batch norm behind the forward section.
    pub moments: Vec<(NodeId, Moments)>,
    /// Where the runs have no sinks: what takes their gradients, and the sums of these.
    pub few: Option<(&'a mut Few, &'a mut [Vec<f32>])>,
}

impl<'a> Batch<'a> {
    /// Runs one section.
    ///
    /// # Errors
    /// Where another rank fails.
    pub fn section(&mut self, section: Section) -> Result<()> {
        for (number, part) in self.plan.program.parts(section).enumerate() {
            match (&part[0].instruction, &mut self.runs[..]) {
                (Instruction::BatchNorm(op), _) => self.batch_norm(op)?,
                (_, runs) if section == Section::Backward && self.few.is_some() => {
                    self.few.iter_mut().for_each(|(few, sums)| few.run(runs, (number, part), sums));
                }
                (_, [run]) => run.steps(part),
                (_, runs) => runs.par_iter_mut().for_each(|run| run.steps(part)),
            }
        }
        Ok(())
    }

    /// Ends the batch, behind the backward section: the statistics of every batch norm.
    pub fn end(self) -> Vec<(NodeId, Moments)> {
        if let Some((few, sums)) = self.few {
            few.end(self.runs.len(), sums);
        }
        self.moments
    }

    /// The sum over all chunks of `len` values of each.
    fn sums(&self, len: usize, of: &(dyn Fn(&Run<'a>) -> Vec<f64> + Sync)) -> Result<Vec<f64>> {
        let own: Vec<Vec<f64>> = self.runs.par_iter().map(of).collect();
        let all = self.ranks.gather_values(Ok(own.concat()))?;
        let all = self.ranks.in_order(self.chunks, all.iter().map(|one| one.chunks_exact(len)).collect())?;
        Ok(all.iter().fold(vec![0.0; len], |mut sum, one| {
            sum.iter_mut().zip(*one).for_each(|(a, b)| *a += b);
            sum
        }))
    }

    /// y = γ x̂ + β of every chunk, with the statistics of a node.
    fn normalise(&mut self, y: Value, x: Value, node: NodeId, params: [ParamId; 2], eps: f32) {
        let Some((_, moments)) = self.moments.iter().find(|(of, _)| *of == node) else {
            return; // they are taken first
        };
        self.runs.par_iter_mut().for_each(|run| {
            let [gamma, beta] = params.map(|param| run.net.value(param));
            let ([y], others) = run.memory.carve([y]);
            batch_norm::forward(y, others.get(x), moments, gamma, beta, eps);
        });
    }

    fn batch_norm(&mut self, op: &BatchNormOp) -> Result<()> {
        match *op {
            BatchNormOp::Forward { y, x, node, gamma, beta, mean: _, var: _, eps, c } => {
                let count = self.images * (x.len / c);
                let mut mean = self.sums(c, &|run| batch_norm::sums(run.memory.value(x), c))?;
                mean.iter_mut().for_each(|m| *m /= count as f64);
                let mut var = self.sums(c, &|run| batch_norm::squares(run.memory.value(x), &mean))?;
                var.iter_mut().for_each(|v| *v /= count as f64);
                let moments = Moments { mean, var, count };
                self.moments.push((node, moments));
                self.normalise(y, x, node, [gamma, beta], eps);
            }
            BatchNormOp::Again { y, x, node, gamma, beta, eps, c: _ } => {
                self.normalise(y, x, node, [gamma, beta], eps)
            }
            BatchNormOp::Backward { dx, dy, x, node, gamma, beta, eps, c } => {
                let Some((_, moments)) = self.moments.iter().find(|(of, _)| *of == node) else {
                    return Ok(()); // the forward section came first
                };
                let all = self.sums(2 * c, &|run| {
                    batch_norm::backward_sums(run.memory.value(dy), run.memory.value(x), moments, eps)
                })?;
                // They are sums over the batch already, and count once: with the first chunk of all, which is rank 0's.
                let first = self.runs.first_mut().filter(|_| self.ranks.leads());
                let mut sink = first.and_then(|run| run.sink.as_mut());
                for (param, sums) in [(beta, &all[..c]), (gamma, &all[c..])] {
                    let gradient = match (&mut self.few, &mut sink) {
                        (Some((few, sums)), _) => Some(few.of_norm(param, sums)),
                        (None, sink) => sink
                            .as_mut()
                            .and_then(|sink| sink.other().get_mut(param.index()))
                            .map(Vec::as_mut_slice),
                    };
                    let each = gradient.into_iter().flatten().zip(sums);
                    each.for_each(|(g, &sum)| *g += sum as f32);
                }
                let Some(dx) = dx else { return Ok(()) };
                self.runs.par_iter_mut().for_each(|run| {
                    let gamma = run.net.value(gamma);
                    let ([dx], others) = run.memory.carve([dx]);
                    batch_norm::backward(dx, others.get(dy), others.get(x), moments, &all, gamma, eps);
                });
            }
        }
        Ok(())
    }
}
