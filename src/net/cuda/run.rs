//! A run of a program over one chunk of images on a CUDA device: the memory that it runs in, and what it takes and gives;
//! [`super::execute`] runs the instructions.

use super::passes::{Chunk, Passes, Work};
use super::rows::{RowBuffers, Sink};
use crate::device::cuda::{Buffer, Flag, In, Out, Scalar};
use crate::net::arena::{self, Rest};
use crate::net::instruction::Value;
use crate::net::program::{Region, Seed, Span};
use crate::ops::Precision;

/// Memory of kept values: written in the first two sections, read in the product.
enum Kept<'a> {
    Written(Out<'a, f32>),
    Read(In<'a, f32>),
}

/// The values of one chunk of `n` images.
pub(super) struct Memory<'a> {
    passes: &'a Passes<'a>,
    kept: Kept<'a>,
    work: Out<'a, f32>,
    n: usize,
}

impl<'a> Memory<'a> {
    fn span(&self, value: Value) -> Span {
        let plan = &self.passes.plan;
        plan.program.span(value, plan.chunk, self.n)
    }

    /// One value, for reading.
    pub fn value<T: Scalar>(&self, value: Value) -> In<'_, T> {
        let span = self.span(value);
        let memory = match (span.region, &self.kept) {
            (Region::Work, _) => self.work.input(),
            (Region::Kept, Kept::Written(kept)) => kept.input(),
            (Region::Kept, Kept::Read(kept)) => *kept,
        };
        memory.part(span.range).holding(count::<T>(self.passes, value, self.n))
    }

    /// These values for writing, and all others for reading.
    pub fn carve<T: Scalar, const N: usize>(&mut self, values: [Value; N]) -> ([Out<'_, T>; N], Others<'_>) {
        let (mut counts, passes, n) = (values.into_iter(), self.passes, self.n);
        let (cut, others) = self.cut(values);
        let typed = cut.map(|out| {
            let len = counts.next().map_or(0, |value| count::<T>(passes, value, n));
            out.holding(len)
        });
        (typed, others)
    }

    /// A value of any type and one of f32 for writing, and all others for reading.
    pub fn carve_two<T: Scalar>(
        &mut self,
        value: Value,
        beside: Value,
    ) -> (Out<'_, T>, Out<'_, f32>, Others<'_>) {
        let len = count::<T>(self.passes, value, self.n);
        let other = count::<f32>(self.passes, beside, self.n);
        let ([out, beside], others) = self.cut([value, beside]);
        (out.holding(len), beside.holding(other), others)
    }

    /// The same, of which the one of f32 is there only where an instruction reads it.
    pub fn carve_read<T: Scalar>(
        &mut self,
        value: Value,
        beside: Value,
    ) -> (Out<'_, T>, Option<Out<'_, f32>>, Others<'_>) {
        if self.passes.plan.program.reads(beside) {
            let (out, beside, others) = self.carve_two(value, beside);
            return (out, Some(beside), others);
        }
        let ([out], others) = self.carve([value]);
        (out, None, others)
    }

    /// The floats that these values are in.
    fn cut<const N: usize>(&mut self, values: [Value; N]) -> ([Out<'_, f32>; N], Others<'_>) {
        let (passes, n, spans) = (self.passes, self.n, values.map(|value| self.span(value)));
        let (len, work) = (self.work.len(), self.work.output());
        let (kept, kept_len) = match &mut self.kept {
            Kept::Written(kept) => {
                let len = kept.len();
                (arena::Kept::Written(kept.output()), len)
            }
            Kept::Read(kept) => (arena::Kept::Read(*kept), kept.len()),
        };
        let (cut, rest) = arena::carve(kept, work, [kept_len, len], spans);
        (cut, Others { rest, passes, n })
    }
}

/// How many values that is in `n` images.
///
/// # Panics
/// Where they are of another type: no kernel is to take what it reads for something else.
fn count<T: Scalar>(passes: &Passes<'_>, value: Value, n: usize) -> usize {
    let (found, expected) = (passes.plan.program.element(value).name(), T::ELEMENT.name());
    assert!(found == expected, "value {} is {found}, and is met as {expected}", value.index());
    n * value.len
}

/// The values that an instruction reads.
pub(super) struct Others<'a> {
    rest: Rest<In<'a, f32>>,
    passes: &'a Passes<'a>,
    n: usize,
}

impl<'a> Others<'a> {
    pub fn get<T: Scalar>(&self, value: Value) -> In<'a, T> {
        let plan = &self.passes.plan;
        let memory = self.rest.get(&plan.program.span(value, plan.chunk, self.n));
        memory.holding(count::<T>(self.passes, value, self.n))
    }
}

/// What products read of a chunk.
pub(super) struct Stored {
    pub values: Buffer<f32>,
    pub labels: Buffer<u32>,
}

/// A run over one chunk of `n` images.
pub(super) struct Run<'a> {
    pub(super) passes: &'a Passes<'a>,
    pub(super) memory: Memory<'a>,
    pub(super) labels: In<'a, u32>,
    pub(super) losses: Out<'a, f32>,
    pub(super) parts: Out<'a, f64>,
    pub(super) moments: Out<'a, f64>,
    pub(super) sums: Out<'a, f32>,
    pub(super) squares: Out<'a, f32>,
    pub(super) halves: Out<'a, u16>,
    /// Of a pass in f16, what notes that a value was beyond it.
    pub(super) overflow: Option<Flag<'a>>,
    pub(super) n: usize,
    /// Every unit's activation `[n, d]`, where it is asked for; zeros at first.
    pub(super) trace: Option<Out<'a, f32>>,
    pub(super) seed: Seed<'a>,
    /// Factors and offsets of [`Seed::Tilted`], as they were brought to the device.
    pub(super) tilt: [In<'a, f32>; 2],
    pub(super) sink: Option<&'a mut dyn Sink>,
    pub(super) v: Option<&'a RowBuffers>,
}

impl<'a> Run<'a> {
    /// A run of forward and backward sections over the first `n` images of a chunk.
    pub fn new(passes: &'a Passes<'a>, chunk: &'a mut Chunk, n: usize) -> Run<'a> {
        let Chunk { kept, labels, losses, tilt, work } = chunk;
        Run::with(passes, Kept::Written(kept.output()), labels.input(), losses, tilt, work, n)
    }

    /// A run of a product with `v`, which adds to `sink`; on kept values and labels that were stored, or else those of
    /// the chunk.
    pub fn product(
        passes: &'a Passes<'a>,
        chunk: &'a mut Chunk,
        stored: Option<&'a Stored>,
        n: usize,
        v: &'a RowBuffers,
        sink: &'a mut dyn Sink,
    ) -> Run<'a> {
        let Chunk { kept, labels, losses, tilt, work } = chunk;
        let (kept, labels) = match stored {
            Some(stored) => (stored.values.input(), stored.labels.input()),
            None => (kept.input(), labels.input()),
        };
        let mut run = Run::with(passes, Kept::Read(kept), labels, losses, tilt, work, n);
        (run.v, run.sink) = (Some(v), Some(sink));
        run
    }

    fn with(
        passes: &'a Passes<'a>,
        kept: Kept<'a>,
        labels: In<'a, u32>,
        losses: &'a mut Buffer<f32>,
        tilt: &'a [Buffer<f32>; 2],
        work: &'a mut Work,
        n: usize,
    ) -> Run<'a> {
        let Work { values, parts, moments, sums, squares, halves, overflow } = work;
        Run {
            passes,
            memory: Memory { passes, kept, work: values.output(), n },
            labels: labels.part(0..n * passes.plan.label_width),
            losses: losses.output(),
            parts: parts.output(),
            moments: moments.output(),
            sums: sums.output(),
            squares: squares.output(),
            halves: halves.output(),
            overflow: (passes.precision == Precision::F16).then(|| overflow.flag()),
            n,
            trace: None,
            seed: Seed::Gradient,
            tilt: tilt.each_ref().map(Buffer::input),
            sink: None,
            v: None,
        }
    }

    /// With every unit's activation added up in `trace` `[n, d]`.
    pub fn traced(mut self, trace: Out<'a, f32>) -> Run<'a> {
        self.trace = Some(trace);
        self
    }

    /// With the gradients going to `sink`, from this seed at the logits.
    pub fn seeded(mut self, seed: Seed<'a>, sink: &'a mut dyn Sink) -> Run<'a> {
        self.seed = seed;
        self.sink = Some(sink);
        self
    }

    /// The image's values, to write them.
    pub fn images(&mut self) -> Out<'_, f32> {
        let ([images], _) = self.memory.carve([self.passes.plan.program.image]);
        images
    }
}
