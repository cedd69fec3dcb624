//! Gradients of the selected rows, and products of a curvature, on a CUDA device.
//!
//! Sums over chunks run in lanes ([`cuda_lanes`]), one after the other in the same memory: those of this rank. What products read of
//! a chunk stays in the arena, or in memory of its own up to a number of bytes, or is computed again. What products launch is
//! recorded and replayed.

use std::ops::Range;

use super::passes::{Arena, Passes, copy, open};
use super::rows::RowBuffers;
use super::run::{Run, Stored};
use crate::data::Inputs;
use crate::device::cuda::{Buffer, In, Out, Repeats};
use crate::device::{Cuda, Device};
use crate::error::{Error, Result};
use crate::net::Network;
use crate::net::lanes::cuda_lanes;
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
    /// The chunks of this rank, lane by lane.
    chunks: Vec<Range<usize>>,
    /// Of each lane of this rank, which chunks are its own.
    own: Vec<Range<usize>>,
    /// Of all ranks.
    lanes: usize,
    chunks_of_all: usize,
    /// The chunk whose primal part the arena has.
    present: Option<usize>,
    /// What products read of the first chunks.
    stored: Vec<Stored>,
    /// Bytes that `stored` may have.
    memory: usize,
    /// What is summed up, and the direction of a product.
    rows: [RowBuffers; 2],
    /// A lane's part of a product, made when it is first asked for.
    lane: Option<Buffer<f64>>,
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
        let (passes, arena) = open(device, cuda, net, rows, purpose, inputs, 0, Precision::F32)?;
        let zeros = RowValues::zeros(net, rows);
        let rows = [RowBuffers::upload(cuda, &zeros)?, RowBuffers::upload(cuda, &zeros)?];
        let (chunk, lanes) = (passes.plan.chunk, cuda_lanes(net, inputs.len()));
        let of_lane = |lane: &Range<usize>| lane.len().div_ceil(chunk);
        let chunks_of_all = lanes.iter().map(of_lane).sum();
        let (mut chunks, mut own) = (vec![], vec![]);
        for lane in device.ranks().own(lanes.len()).map(|lane| lanes[lane].clone()) {
            let first = chunks.len();
            chunks.extend(lane.clone().step_by(chunk).map(|start| start..lane.end.min(start + chunk)));
            own.push(first..chunks.len());
        }
        // Where the lanes' chunks would fit side by side, they are kept as one chunk of all images would be.
        let (whole, free) = (passes.plan.kept_bytes() * chunks.len(), cuda.free()?);
        let whole = if lanes.len() > 1 && whole <= free - free / 8 { whole } else { 0 };
        Ok(Derivatives {
            device,
            passes,
            arena,
            inputs,
            chunks,
            own,
            lanes: lanes.len(),
            chunks_of_all,
            present: None,
            stored: vec![],
            memory: memory.max(whole),
            rows,
            lane: None,
            repeats: Repeats::default(),
        })
    }

    pub fn plan(&self) -> &Plan {
        &self.passes.plan
    }

    /// Lanes of all ranks.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The share of the chunks whose primal part no product computes again.
    ///
    /// # Errors
    /// Where another rank fails.
    pub fn kept_share(&self) -> Result<f64> {
        let lasting = if self.chunks.len() == 1 { 1 } else { self.stored.len() };
        let of_all = self.device.ranks().gather_values(Ok(vec![lasting as u64]))?.concat();
        Ok(of_all.iter().sum::<u64>() as f64 / self.chunks_of_all as f64)
    }

    /// The sums of the gradients over the inputs of each lane of this rank, losses weighted where a weight is given. Keeps for
    /// later products what there is memory for.
    ///
    /// # Errors
    /// Where a label is no class, or the device fails.
    pub fn gradient(&mut self, seed: Seed) -> Result<Vec<RowValues>> {
        let products = self.plan().purpose.has_products();
        let mut sums = vec![];
        for lane in self.own.clone() {
            self.rows[0].clear(&self.passes)?;
            for index in lane {
                self.primal(index, true, seed)?;
                if products && self.chunks.len() > 1 && index == self.stored.len() {
                    self.keep()?;
                }
            }
            sums.push(self.rows[0].download(self.passes.cuda)?);
        }
        self.arena.vectors.clear();
        Ok(sums)
    }

    /// The sums of H v over the inputs of each lane of this rank.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn product(&mut self, v: &RowValues) -> Result<Vec<RowValues>> {
        self.rows[1].write(self.passes.cuda, v)?;
        self.sums()
    }

    /// The same of a vector of the block on the device `[p]`, which is brought to a largest value of 1; and that value.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn product_of(&mut self, v: In<'_, f64>, places: &[Option<Places>]) -> Result<(Vec<RowValues>, f64)> {
        let scale = self.bring(v, places)?;
        Ok((self.sums()?, scale))
    }

    /// hv = H v, the mean over the inputs, both `[p]` on the device, where this rank has all lanes; v is brought to a largest value
    /// of 1 on the way. `places` are those of each layer's selected rows in them.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn product_on(
        &mut self,
        mut hv: Out<'_, f64>,
        v: In<'_, f64>,
        places: &[Option<Places>],
    ) -> Result<()> {
        let (scale, n) = (self.bring(v, places)?, self.inputs.len());
        if self.own.len() > 1 && self.lane.is_none() {
            self.lane = Some(self.passes.cuda.alloc(hv.len())?);
        }
        for (number, lane) in self.own.clone().into_iter().enumerate() {
            self.sum(lane)?;
            let (cuda, rows) = (self.passes.cuda, &self.rows[0]);
            match self.lane.as_mut().filter(|_| number > 0) {
                None => rows.get(cuda, hv.output(), places, n, scale)?,
                Some(part) => {
                    rows.get(cuda, part.output(), places, n, scale)?;
                    vector::combine(cuda, hv.output(), 1.0, Some((1.0, part.input())), 1.0)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a vector of the block the direction of the next product, and returns its largest value, by which it is divided.
    fn bring(&mut self, v: In<'_, f64>, places: &[Option<Places>]) -> Result<f64> {
        let (cuda, mut scale) = (self.passes.cuda, [0.0]);
        let mut parts = cuda.alloc(vector::parts(v.len()))?;
        vector::largest(cuda, parts.output(), v)?;
        cuda.read(&mut scale, parts.input().part(parts.len() - 1..parts.len()))?;
        let scale = f64::MIN_POSITIVE.max(scale[0]);
        self.rows[1].set(cuda, v, places, scale)?;
        Ok(scale)
    }

    /// The products with the second rows, of each lane of this rank.
    fn sums(&mut self) -> Result<Vec<RowValues>> {
        let lanes = self.own.clone().into_iter();
        let lane = |lane| {
            self.sum(lane)?;
            self.rows[0].download(self.passes.cuda)
        };
        lanes.map(lane).collect()
    }

    /// Sums up the products of these chunks with the second rows in the first.
    fn sum(&mut self, chunks: Range<usize>) -> Result<()> {
        self.rows[0].clear(&self.passes)?;
        for index in chunks {
            if index >= self.stored.len() && self.present != Some(index) {
                self.primal(index, false, Seed::Gradient)?;
            }
            let (n, chunk, stored) =
                (self.chunks[index].len(), &mut self.arena.chunk, self.stored.get(index));
            let ([sink, v], passes) = (&mut self.rows, &self.passes);
            self.repeats.run(passes.cuda, Again::Product(stored.map(|_| index), n), || {
                Run::product(passes, chunk, stored, n, v, sink).section(Section::Product)
            })?;
        }
        Ok(())
    }

    fn primal(&mut self, index: usize, summed: bool, seed: Seed) -> Result<()> {
        let range = self.chunks[index].clone();
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
