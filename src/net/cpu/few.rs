//! Gradients of a mini-batch of which a few chunks at a time have some.
//!
//! Between two batch norms, backward adds to the gradients of few parameters. So every chunk need not have all of them until the
//! pass ends: as many chunks as there are threads run such a part, what they give is added to the sums of the batch in chunk
//! order, and the next ones take their place. Parameters that several parts add to have a gradient for each chunk all the same,
//! because a chunk's own sum comes before that over chunks. The bits are those of a gradient for each chunk.

use rayon::prelude::*;

use super::Run;
use crate::net::instruction::Instruction;
use crate::net::plan::Plan;
use crate::net::program::{Section, Step};
use crate::net::rows::{Among, RowValues};
use crate::net::{Network, ParamId};

/// Floats that one thread adds at a time.
const PIECE: usize = 1 << 14;

/// See the file's opening.
pub(crate) struct Few {
    /// Of the chunks that run at a time.
    workers: Vec<RowValues>,
    /// Of every chunk, what several parts add to.
    own: Vec<RowValues>,
    /// Of each part of the backward section, the parameters that it alone adds to, and the others.
    alone: Vec<Vec<Among>>,
    several: Vec<Vec<Among>>,
}

impl Few {
    /// For `chunks` chunks, this many at a time.
    pub fn new(net: &Network, plan: &Plan, chunks: usize, at_once: usize) -> Few {
        let places = Among::all(net);
        let sections: Vec<&[Step]> = plan.program.parts(Section::Backward).collect();
        let by_norm = |part: &[Step]| matches!(part[0].instruction, Instruction::BatchNorm(_));
        let added: Vec<Vec<bool>> = sections.iter().map(|part| added(net, part)).collect();
        let each = |param: usize| sections.iter().zip(&added).filter(move |(_, added)| added[param]);
        let is_several = |among: &Among| {
            let param = among.param();
            each(param).count() > 1 && each(param).any(|(part, _)| !by_norm(part))
        };
        let of = |several: bool| -> Vec<Vec<Among>> {
            let of_part = |(part, added): (&&[Step], &Vec<bool>)| {
                let here =
                    |among: &&Among| !by_norm(part) && added[among.param()] && is_several(among) == several;
                places.iter().filter(here).copied().collect()
            };
            sections.iter().zip(&added).map(of_part).collect()
        };
        let zeros = |several: bool| RowValues::zeros_of(net, |among| is_several(among) == several);
        Few {
            workers: (0..at_once).map(|_| zeros(false)).collect(),
            own: (0..chunks).map(|_| zeros(true)).collect(),
            alone: of(false),
            several: of(true),
        }
    }

    /// Begins a batch, whose sums are `sums`; gives both.
    pub fn begin<'a>(&'a mut self, sums: &'a mut [Vec<f32>]) -> (&'a mut Few, &'a mut [Vec<f32>]) {
        self.own.par_iter_mut().for_each(RowValues::clear);
        sums.par_iter_mut().for_each(|sum| sum.fill(0.0));
        (self, sums)
    }

    /// Runs a part of the backward section, its number and its steps.
    pub fn run(&mut self, runs: &mut [Run], (number, part): (usize, &[Step]), sums: &mut [Vec<f32>]) {
        let Few { workers, own, alone, several } = self;
        let (alone, several, at_once) = (&alone[number], &several[number], workers.len());
        if alone.is_empty() && several.is_empty() {
            return runs.par_iter_mut().for_each(|run| run.steps(part));
        }
        for (wave, (runs, own)) in runs.chunks_mut(at_once).zip(own.chunks_mut(at_once)).enumerate() {
            let count = runs.len();
            runs.par_iter_mut().zip(own).zip(&mut *workers).for_each(|((run, own), worker)| {
                alone.iter().for_each(|&among| worker.of_mut(among).fill(0.0));
                swap(several, worker, own);
                run.lent(worker).steps(part);
                swap(several, worker, own);
            });
            add(alone, &workers[..count], sums, wave == 0);
        }
    }

    /// The gradient that a batch norm adds to.
    pub fn of_norm<'a>(&'a mut self, param: ParamId, sums: &'a mut [Vec<f32>]) -> &'a mut [f32] {
        let own = self.own.first_mut().and_then(|own| own.other.get_mut(param.index()));
        match own.filter(|own| !own.is_empty()) {
            Some(own) => own,
            None => &mut sums[param.index()],
        }
    }

    /// Ends a batch of this many chunks.
    pub fn end(&mut self, chunks: usize, sums: &mut [Vec<f32>]) {
        let mut several = self.several.concat();
        several.sort_unstable();
        several.dedup();
        add(&several, &self.own[..chunks], sums, true);
    }
}

fn swap(places: &[Among], a: &mut RowValues, b: &mut RowValues) {
    places.iter().for_each(|&among| std::mem::swap(a.of_mut(among), b.of_mut(among)));
}

/// Adds the gradients of these parameters in order; where they begin, the first takes the place of what is there.
fn add(places: &[Among], of: &[RowValues], sums: &mut [Vec<f32>], begins: bool) {
    for &among in places {
        sums[among.param()].par_chunks_mut(PIECE).enumerate().for_each(|(piece, sum)| {
            for (i, values) in of.iter().enumerate() {
                let values = &values.of(among)[piece * PIECE..][..sum.len()];
                match begins && i == 0 {
                    true => sum.copy_from_slice(values),
                    false => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
                }
            }
        });
    }
}

/// By parameter, whether these steps add to its gradient.
fn added(net: &Network, part: &[Step]) -> Vec<bool> {
    let mut added = vec![false; net.params.len()];
    for step in part {
        let operands = step.instruction.operands();
        let of_layers = operands.layer_gradients.iter().flat_map(|&layer| {
            let layer = net.layer(layer);
            [Some(layer.weight), layer.bias].into_iter().flatten()
        });
        of_layers.chain(operands.gradients.iter().copied()).for_each(|param| added[param.index()] = true);
    }
    added
}
