//! Training: the pass that gives values and gradients of every parameter for one mini-batch of a network in train form,
//! and the optimizer's step.
//!
//! On the CPU the batch is cut into chunks that run side by side, on one or several ranks; batch norm reads the whole batch, so
//! that there they wait for one another. Forward, between two batch norms every chunk runs alone; a batch norm then takes mean and variance over batch
//! and positions, in f64 and in chunk order, normalises, and moves its running statistics as PyTorch does (momentum 0.1,
//! unbiased variance). Backward runs the same way from the logits down. Every chunk that runs has values and gradients of its
//! own; without a batch norm a few chunks run at a time, as the machine has memory, and with one a few have gradients
//! ([`super::plan::Room`]). Gradients are summed in chunk order either way, to the same bits. On CUDA the batch is one chunk ([`super::cuda`]), and parameters stay on
//! the device.

mod sums;

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::Network;
use super::cpu::batch::Batch;
use super::cpu::few::Few;
use super::cpu::{Arena, Run};
use super::cuda::Training;
use super::plan::{Plan, Room};
use super::program::{Section, Seed, Tilt};
use super::rows::RowValues;
use super::step::{Step, decaying, shortened};
use crate::data::Inputs;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::cpu::optimizer;
use crate::ops::optimizer::{Decayed, Memory, Optimizer, Update};
use sums::{collect, move_running, score};

/// A network that is trained. On CUDA it is the device that has its parameters meanwhile: [`TrainPass::network`] brings
/// them.
pub struct TrainPass<'a> {
    device: &'a Device,
    net: &'a mut Network,
    batch: usize,
    decayed: Decayed,
    place: Place<'a>,
}

/// Where training is, in parts that follow one another.
pub struct State<'a> {
    /// The values.
    pub values: Vec<&'a [f32]>,
    /// What the optimizer remembers.
    pub memory: Vec<Cow<'a, [f32]>>,
}

impl State<'_> {
    /// How many values there are, and what is remembered of them.
    pub fn lens(&self) -> [usize; 2] {
        [self.values.iter().map(|part| part.len()).sum(), self.memory.iter().map(|part| part.len()).sum()]
    }
}

/// Where it is trained.
enum Place<'a> {
    Host(Box<Host>),
    Cuda(Box<Training<'a>>),
}

/// The CPU's side.
struct Host {
    plan: Plan,
    /// Those of this rank that run at a time: all of a batch where there is a batch norm.
    chunks: Vec<Chunk>,
    /// What takes their gradients, where they have none of their own.
    few: Option<Few>,
    gradients: Vec<Vec<f32>>,
    /// Of the parameters that gradients move; of the others none.
    memory: Vec<Option<Memory<Vec<f32>>>>,
}

/// One chunk of the batch.
struct Chunk {
    arena: Arena,
    sink: Option<RowValues>,
    n: usize,
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
            None => Place::Host(Box::new(Host::new(device, net, batch, optimizer)?)),
        };
        Ok(TrainPass { device, net, batch, decayed: Decayed::All, place })
    }

    /// The same, with weight decay on these parameters alone.
    pub fn decaying(self, decayed: Decayed) -> TrainPass<'a> {
        TrainPass { decayed, ..self }
    }

    /// Runs one mini-batch: gradients here, running statistics in the network.
    ///
    /// # Errors
    /// Where the batch is empty, larger than the pass was made for, of another shape, or a label is no class; on CUDA
    /// where the device fails.
    pub fn step(&mut self, batch: &dyn Inputs) -> Result<Step> {
        self.pass(batch, None)
    }

    /// [`TrainPass::step`] whose gradients are of a tilted loss. The result counts the network's own loss.
    ///
    /// # Errors
    /// As [`TrainPass::step`]; where the tilt is not one of that many samples.
    pub fn tilted_step(&mut self, batch: &dyn Inputs, tilt: Tilt) -> Result<Step> {
        tilt.check("train", batch.len(), self.net.classes())?;
        self.pass(batch, Some(tilt))
    }

    fn pass(&mut self, batch: &dyn Inputs, tilt: Option<Tilt>) -> Result<Step> {
        let total = batch.len();
        if total == 0 || total > self.batch || batch.shape() != self.net.input() {
            let expected = format!("1 to {} samples of {:?}", self.batch, self.net.input());
            return Err(Error::shape("train", expected, format!("{total} of {:?}", batch.shape())));
        }
        if batch.label_width() != self.net.label_width() {
            let (expected, found) = (self.net.label_width(), batch.label_width());
            return Err(Error::shape("train", format!("{expected} labels per sample"), found.to_string()));
        }
        match &mut self.place {
            Place::Host(host) => host.step(self.device, self.net, batch, tilt),
            Place::Cuda(cuda) => cuda.step(self.device, batch, tilt),
        }
    }

    /// Shortens the gradients of the last step to the norm `longest` over all parameters together, where they are longer;
    /// returns the norm that they had.
    ///
    /// # Errors
    /// On CUDA, where the device fails.
    pub fn clip(&mut self, longest: f64) -> Result<f64> {
        match &mut self.place {
            Place::Host(host) => Ok(self.device.scope(|| host.clip(longest))),
            Place::Cuda(cuda) => cuda.clip(longest),
        }
    }

    /// Moves every trained parameter by the gradients of the last step.
    ///
    /// # Errors
    /// On CUDA, where the device fails.
    pub fn update(&mut self, update: &Update) -> Result<()> {
        match &mut self.place {
            Place::Host(host) => {
                self.device.scope(|| host.update(self.net, update, self.decayed));
                Ok(())
            }
            Place::Cuda(cuda) => cuda.update(update, self.decayed),
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

    /// Where training is: the values of the parameters, and what the optimizer remembers of them, parameter by parameter.
    ///
    /// # Errors
    /// On CUDA, where the device fails.
    pub fn state(&mut self) -> Result<State<'_>> {
        let memory = match &self.place {
            Place::Host(host) => {
                let parts = host.memory.iter().flatten().flat_map(Memory::parts);
                parts.map(|part| Cow::Borrowed(part.as_slice())).collect()
            }
            Place::Cuda(cuda) => {
                cuda.read(self.net)?;
                vec![Cow::Owned(cuda.memory()?)]
            }
        };
        Ok(State { values: self.net.params.iter().map(|param| &*param.value).collect(), memory })
    }

    /// Makes the optimizer remember what [`TrainPass::state`] gave.
    ///
    /// # Errors
    /// Where that was of another network or optimizer; on CUDA, where the device fails.
    pub fn remember(&mut self, memory: &[f32]) -> Result<()> {
        let mut rest = memory;
        let mut next = |len: usize| -> Result<&[f32]> {
            let (part, others) = rest.split_at_checked(len).ok_or_else(|| {
                Error::shape("train", "what the optimizer remembers", format!("{} values", memory.len()))
            })?;
            rest = others;
            Ok(part)
        };
        match &mut self.place {
            Place::Host(host) => {
                for part in host.memory.iter_mut().flatten().flat_map(Memory::parts_mut) {
                    let values = next(part.len())?;
                    part.copy_from_slice(values);
                }
            }
            Place::Cuda(cuda) => cuda.remember(&mut next)?,
        }
        match rest.is_empty() {
            true => Ok(()),
            false => {
                Err(Error::shape("train", "what the optimizer remembers", format!("{} more", rest.len())))
            }
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
    fn new(device: &Device, net: &Network, batch: usize, optimizer: Optimizer) -> Result<Host> {
        let ranks = device.ranks();
        let (plan, room) = Plan::training_in(net, batch, device.threads(), ranks.size())?;
        // As many on every rank, so that all meet as often.
        let at_once = ranks.gather_values(Ok(vec![room.chunks as u64]))?.concat().into_iter().min();
        let chunks = batch.div_ceil(plan.chunk).div_ceil(ranks.size()).min(at_once.unwrap_or(1) as usize);
        Host::with(net, plan, Room { chunks, ..room }, optimizer)
    }

    fn with(net: &Network, plan: Plan, room: Room, optimizer: Optimizer) -> Result<Host> {
        let few = (room.gradients < room.chunks).then(|| Few::new(net, &plan, room.chunks, room.gradients));
        let chunks = (0..room.chunks).map(|_| Chunk {
            arena: Arena::new(&plan),
            sink: few.is_none().then(|| RowValues::zeros_of_training(net)),
            n: 0,
        });
        let chunks = chunks.collect();
        let gradients = net.params.iter().map(|param| vec![0.0; param.value.len()]).collect();
        let memory = net.params.iter().map(|param| {
            param.trained.then(|| Memory::new(optimizer, || Ok(vec![0.0; param.value.len()]))).transpose()
        });
        Ok(Host { plan, chunks, few, gradients, memory: memory.collect::<Result<_>>()? })
    }

    fn update(&mut self, net: &mut Network, update: &Update, decayed: Decayed) {
        let params = net.params.par_iter_mut().zip(&self.gradients).zip(&mut self.memory);
        params.for_each(|((param, gradient), memory)| {
            if let Some(memory) = memory {
                optimizer::update(&mut param.value, memory, gradient, &decaying(update, decayed, param.role));
            }
        });
    }

    fn clip(&mut self, longest: f64) -> f64 {
        let square = |gradient: &Vec<f32>| gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>();
        let squares: Vec<f64> = self.gradients.par_iter().map(square).collect();
        let norm = squares.iter().sum::<f64>().sqrt();
        let factor = shortened(norm, longest);
        if factor < 1.0 {
            self.gradients.par_iter_mut().flatten().for_each(|g| *g *= factor);
        }
        norm
    }

    fn step(
        &mut self,
        device: &Device,
        net: &mut Network,
        batch: &dyn Inputs,
        tilt: Option<Tilt>,
    ) -> Result<Step> {
        let (total, plan, ranks) = (batch.len(), &self.plan, device.ranks());
        let images = |chunks: Range<usize>| {
            (chunks.start * plan.chunk).min(total)..(chunks.end * plan.chunk).min(total)
        };
        let (count, at_once) = (total.div_ceil(plan.chunk), self.chunks.len() * ranks.size());
        let (mut loss, mut correct) = (0.0, 0.0);
        for first in (0..count).step_by(at_once) {
            let together = first..count.min(first + at_once); // of all ranks
            let own = ranks.own(together.len()).map(|i| images(first + i..first + i + 1));
            let chunks = &mut self.chunks[..own.len()];
            let fill = |(chunk, images): (&mut Chunk, Range<usize>)| {
                chunk.sink.iter_mut().for_each(RowValues::clear);
                chunk.n = chunk.arena.fill(net, plan, batch, images)?;
                Ok(())
            };
            ranks.told(chunks.iter_mut().zip(own.clone()).try_for_each(fill))?;
            let (scores, moments) = device.scope(|| {
                let seed = |images: Range<usize>| match tilt {
                    None => Seed::Gradient,
                    Some(tilt) => Seed::Tilted(tilt.part(images, net.classes())),
                };
                let runs = chunks.iter_mut().zip(own).map(|(Chunk { arena, sink, n }, images)| {
                    let run = Run::new(net, plan, arena, *n);
                    match sink {
                        Some(sink) => run.seeded(seed(images), sink),
                        None => run.beginning(seed(images)),
                    }
                });
                let (runs, chunks) = (runs.collect(), together.len());
                let images = images(together.clone()).len();
                let few = self.few.as_mut().map(|few| few.begin(&mut self.gradients));
                let mut batch = Batch { runs, plan, ranks, chunks, images, moments: vec![], few };
                batch.section(Section::Forward)?;
                let scores = score(&batch, net)?;
                batch.section(Section::Backward)?;
                Ok((scores, batch.end()))
            })?;
            (loss, correct) = scores.iter().fold((loss, correct), |(l, c), [of, right]| (l + of, c + right));
            move_running(net, plan, &moments);
            if self.few.is_none() {
                let sinks: Vec<&RowValues> = chunks.iter().filter_map(|chunk| chunk.sink.as_ref()).collect();
                let count = (together.len(), first == 0);
                device.scope(|| collect(&mut self.gradients, ranks, net, &sinks, count))?;
            }
        }
        let scale = 1.0 / total as f32;
        device.scope(|| self.gradients.par_iter_mut().flatten().for_each(|g| *g *= scale));
        Ok(Step { loss: loss / total as f64, correct: correct as usize })
    }
}

#[cfg(test)]
mod tests;
