//! Gradients of the selected rows, and products of a curvature, on a CUDA device.
//!
//! Sums over chunks run in one lane, in order. What products read of a chunk stays in the arena, or in memory of its own
//! up to a number of bytes, or is computed again. What products launch is recorded and replayed.

use std::ops::Range;

use super::passes::{Arena, Passes, copy, open};
use super::rows::RowBuffers;
use super::run::{Run, Stored};
use crate::data::Inputs;
use crate::device::cuda::{In, Out, Repeats};
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};
use crate::net::Network;
use crate::net::plan::{Plan, Purpose};
use crate::net::program::{Section, Seed};
use crate::net::rows::{RowValues, Selected};
use crate::ops::Precision;
use crate::ops::cuda::vector::{self, Places};

/// Gradients or products of a network over the same inputs, again and again.
pub(crate) struct Derivatives<'a> {
    device: &'a Device,
    passes: Passes<'a>,
    arena: Arena,
    inputs: &'a dyn Inputs,
    /// The chunk whose primal part the arena has.
    present: Option<usize>,
    /// What products read of the first chunks.
    stored: Vec<Stored>,
    /// Bytes that `stored` may have.
    memory: usize,
    /// What is summed up, and the direction of a product.
    rows: [RowBuffers; 2],
    repeats: Repeats<Again>,
}

/// What is launched again and again.
#[derive(Clone, Copy, PartialEq)]
enum Again {
    /// The primal part of this many images, without a sum.
    Primal(usize),
    /// A product on this many images whose primal part is stored under that number, or in the arena.
    Product(Option<usize>, usize),
}

impl<'a> Derivatives<'a> {
    /// Memory for derivatives with these rows selected; products keep up to `memory` bytes of their primal passes beside
    /// it.
    ///
    /// # Errors
    /// [`Error::Memory`] where not even one image at a time fits, or the device fails.
    pub fn new(
        device: &'a Device,
        cuda: &'a Cuda,
        net: &'a Network,
        rows: &[Selected],
        purpose: Purpose,
        inputs: &'a dyn Inputs,
        memory: usize,
    ) -> Result<Derivatives<'a>> {
        let (passes, arena) = open(cuda, net, rows, purpose, inputs, 0, Precision::F32)?;
        let zeros = RowValues::zeros(net, rows);
        let rows = [RowBuffers::upload(cuda, &zeros)?, RowBuffers::upload(cuda, &zeros)?];
        Ok(Derivatives {
            device,
            passes,
            arena,
            inputs,
            present: None,
            stored: vec![],
            memory,
            rows,
            repeats: Repeats::default(),
        })
    }

    pub fn plan(&self) -> &Plan {
        &self.passes.plan
    }

    /// Chunks whose primal part no product computes again.
    pub fn lasting(&self) -> usize {
        if self.chunks() == 1 { 1 } else { self.stored.len() }
    }

    fn chunks(&self) -> usize {
        self.inputs.len().div_ceil(self.plan().chunk)
    }

    /// The sum of the gradients over the inputs, losses weighted where a weight is given. Keeps for later products what
    /// there is memory for.
    ///
    /// # Errors
    /// Where a label is no class, or the device fails.
    pub fn gradient(&mut self, seed: Seed) -> Result<RowValues> {
        let products = self.plan().purpose.has_products();
        self.rows[0].clear(&self.passes)?;
        for index in 0..self.chunks() {
            self.primal(index, true, seed)?;
            if products && self.chunks() > 1 && index == self.stored.len() {
                self.keep()?;
            }
        }
        self.arena.vectors.clear();
        self.rows[0].download(self.passes.cuda)
    }

    /// The sum of H v over the inputs.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn product(&mut self, v: &RowValues) -> Result<RowValues> {
        self.rows[1].write(self.passes.cuda, v)?;
        self.sum()?;
        self.rows[0].download(self.passes.cuda)
    }

    /// hv = H v, the mean over the inputs, both `[p]` on the device; v is brought to a largest value of 1 on the way.
    /// `places` are those of each layer's selected rows in them.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn product_on(&mut self, hv: Out<'_, f64>, v: In<'_, f64>, places: &[Option<Places>]) -> Result<()> {
        let (cuda, mut scale) = (self.passes.cuda, [0.0]);
        let mut parts = cuda.alloc(vector::parts(v.len()))?;
        vector::largest(cuda, parts.output(), v)?;
        cuda.read(&mut scale, parts.input().part(parts.len() - 1..parts.len()))?;
        let scale = f64::MIN_POSITIVE.max(scale[0]);
        self.rows[1].set(cuda, v, places, scale)?;
        self.sum()?;
        self.rows[0].get(cuda, hv, places, self.inputs.len(), scale)
    }

    /// Sums up the products with the second rows in the first.
    fn sum(&mut self) -> Result<()> {
        self.rows[0].clear(&self.passes)?;
        for index in 0..self.chunks() {
            if index >= self.stored.len() && self.present != Some(index) {
                self.primal(index, false, Seed::Gradient)?;
            }
            let (n, chunk, stored) = (self.range(index).len(), &mut self.arena.chunk, self.stored.get(index));
            let ([sink, v], passes) = (&mut self.rows, &self.passes);
            self.repeats.run(passes.cuda, Again::Product(stored.map(|_| index), n), || {
                Run::product(passes, chunk, stored, n, v, sink).section(Section::Product)
            })?;
        }
        Ok(())
    }

    fn range(&self, index: usize) -> Range<usize> {
        let chunk = self.plan().chunk;
        index * chunk..((index + 1) * chunk).min(self.inputs.len())
    }

    fn primal(&mut self, index: usize, summed: bool, seed: Seed) -> Result<()> {
        let range = self.range(index);
        let seed = seed.part(range.clone(), self.passes.net.classes());
        self.present = None;
        let n = self.passes.fill(self.device, &mut self.arena, self.inputs, range)?;
        if let Seed::Tilted(tilt) = seed {
            self.arena.chunk.bring(self.passes.cuda, tilt)?;
        }
        let (passes, chunk) = (&self.passes, &mut self.arena.chunk);
        match summed {
            true => passes.primal(chunk, seed, &mut self.rows[0], n)?,
            false => self.repeats.run(passes.cuda, Again::Primal(n), || {
                let mut run = Run::new(passes, chunk, n);
                run.section(Section::Forward)?;
                match passes.plan.program.keeps_adjoints() {
                    true => run.section(Section::Backward),
                    false => Ok(()),
                }
            })?,
        }
        self.present = Some(index);
        Ok(())
    }

    /// Stores what products read of the chunk that is in the arena, if there is memory.
    fn keep(&mut self) -> Result<()> {
        let (cuda, plan) = (self.passes.cuda, &self.passes.plan);
        let bytes = plan.kept_bytes() + 4 * plan.chunk * plan.label_width;
        if (self.stored.len() + 1) * bytes > self.memory {
            return Ok(());
        }
        let memory = || -> Result<Stored> {
            let labels = cuda.alloc(plan.chunk * plan.label_width)?;
            Ok(Stored { values: cuda.alloc(self.arena.chunk.kept.len())?, labels })
        };
        let mut stored = match memory() {
            Err(Error::Memory { .. }) => return Ok(()),
            memory => memory?,
        };
        copy(cuda, stored.values.output(), self.arena.chunk.kept.input())?;
        cuda.write(stored.labels.output(), &self.arena.host.1)?;
        self.stored.push(stored);
        Ok(())
    }
}
