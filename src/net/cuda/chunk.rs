//! A chunk of images on a CUDA device: its inputs are brought, its values and gradients computed, and what is asked of
//! them read back.

use std::ops::Range;

use rayon::prelude::*;

use super::passes::{Arena, Chunk, Passes};
use super::rows::Sink;
use super::run::Run;
use crate::data::{Inputs, check_words};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::net::program::{Section, Seed};
use crate::ops::Precision;
use crate::ops::cuda::loss;

/// What comes back of a chunk of `n` images.
pub(crate) struct Outputs<'a> {
    /// `[n, d]`, or empty.
    pub activations: &'a mut [f32],
    /// `[n]`.
    pub losses: &'a mut [f32],
    /// `[n, classes]`.
    pub logits: &'a mut [f32],
    /// `[n, width]`.
    pub labels: &'a mut [u32],
}

impl Passes<'_> {
    /// Brings a chunk's images and labels to the device: the host threads make them, or, where they are perturbed
    /// copies of one, the device. Returns how many there are.
    ///
    /// # Errors
    /// Where a label does not fit the network, a token id is beyond its vocabulary, or the device fails.
    pub fn fill(
        &self,
        device: &Device,
        arena: &mut Arena,
        inputs: &dyn Inputs,
        range: Range<usize>,
    ) -> Result<usize> {
        let (n, first, len) = (range.len(), range.start, self.net.input().len());
        let Arena { chunk, host: (x, labels), .. } = arena;
        let width = self.plan.label_width;
        let labels = &mut labels[..n * width];
        let mut run = Run::new(self, chunk, n);
        if let (Some(original), Some(copies)) = (&self.original, inputs.copies()) {
            labels.chunks_exact_mut(width).for_each(|labels| labels.copy_from_slice(copies.labels));
            self.net.check_copies(copies)?;
            copies.fill_on(self.cuda, run.images(), original, first as u32)?;
        } else {
            let x = &mut x[..n * len];
            device.scope(|| {
                let each = x.par_chunks_exact_mut(len).zip(labels.par_chunks_exact_mut(width)).zip(range);
                each.try_for_each(|((x, labels), i)| inputs.fill(x, labels, i..i + 1))
            })?;
            self.net.check_tokens(x, first)?;
            self.cuda.write(run.images(), x)?;
        }
        check_words(labels, self.net.loss, self.net.classes(), first)?;
        self.cuda.write(chunk.labels.output().split_at(labels.len()).0, labels)?;
        Ok(n)
    }

    /// Computes the values of the `n` images that are in the arena: logits, losses and, where they are `traced`, activations.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn compute(&self, arena: &mut Arena, n: usize, traced: bool) -> Result<()> {
        let Arena { chunk, trace, repeats, .. } = arena;
        repeats.run(self.cuda, n, || {
            let mut run = Run::new(self, chunk, n);
            if traced {
                let len = n * self.net.units().len();
                self.clear(trace.output().split_at(len).0)?;
                run = run.traced(trace.output().split_at(len).0);
            }
            run.section(Section::Forward)?;
            self.losses(chunk, n)
        })
    }

    /// Refuses what was computed in f16 so far where a value was beyond it: a ReLU or a sigmoid may hide that.
    ///
    /// # Errors
    /// As above, or where the device fails.
    pub fn check_range(&self, arena: &Arena) -> Result<()> {
        if self.precision != Precision::F16 || self.cuda.download(&arena.chunk.work.overflow)? == [0] {
            return Ok(());
        }
        let reason = "values are not finite: beyond 65504, the largest of f16; try --precision bf16 or f32";
        Err(Error::config(format!("perturbation pass in f16: {reason}")))
    }

    /// [`Passes::compute`], and what is asked of it.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn observe(&self, arena: &mut Arena, n: usize, out: Outputs<'_>) -> Result<()> {
        self.compute(arena, n, !out.activations.is_empty())?;
        let Arena { chunk, trace, host, .. } = arena;
        out.labels.copy_from_slice(&host.1[..n * self.plan.label_width]);
        self.cuda.read(out.losses, chunk.losses.input().part(0..n))?;
        self.cuda.read(out.logits, self.logits(&chunk.kept, &chunk.work, n))?;
        self.cuda.read(out.activations, trace.input().part(0..out.activations.len()))
    }

    /// The values and the gradient of the `n` images that are in the chunk, from this seed at the logits.
    pub(super) fn primal(
        &self,
        chunk: &mut Chunk,
        seed: Seed<'_>,
        sink: &mut dyn Sink,
        n: usize,
    ) -> Result<()> {
        let mut run = Run::new(self, chunk, n).seeded(seed, sink);
        run.section(Section::Forward)?;
        run.section(Section::Backward)
    }

    pub(super) fn losses(&self, chunk: &mut Chunk, n: usize) -> Result<()> {
        let Chunk { kept, labels, losses, work, .. } = chunk;
        let logits = self.logits(&*kept, &*work, n);
        let labels = labels.input().part(0..n * self.plan.label_width);
        loss::values(self.cuda, losses.output().split_at(n).0, logits, labels, self.net.loss)
    }
}
