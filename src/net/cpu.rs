//! A network on the CPU: the memory that a program runs in, and what a pass takes and gives; [`execute`] runs the
//! instructions.
//!
//! A chunk of images runs on one thread; in training, the chunks of a [`batch`] run side by side.

pub mod batch;
mod execute;
pub mod few;

use std::ops::Range;

use super::Network;
use super::arena::{self, Rest};
use super::instruction::{LayerUse, RowSource, Value};
use super::plan::Plan;
use super::program::{Region, Seed};
use super::rows::{RowValues, Selected};
use crate::data::{Inputs, check_words};
use crate::error::Result;
use crate::ops::Strided;
use crate::ops::cpu::conv;

/// What takes the gradients of a backward pass.
pub(crate) trait Sink: Send + Sync {
    /// Takes one use of a layer with selected rows: its input `x` and `dz` `[n, positions, o]`, the adjoint of its own
    /// output; without a `bias`, dz does not count for the bias.
    fn take(&mut self, plan: &Plan, at: &LayerUse, dz: &[f32], x: &[f32], bias: bool, n: usize);

    /// In training, the gradients by parameter of those that belong to no layer; else empty.
    fn other(&mut self) -> &mut [Vec<f32>];
}

/// Gradients of the selected rows.
impl Sink for RowValues {
    fn take(&mut self, plan: &Plan, at: &LayerUse, dz: &[f32], x: &[f32], bias: bool, n: usize) {
        let layer = at.layer.index();
        let rows = &plan.rows[layer];
        if *rows != Selected::None {
            let db = Some(self.bias[layer].as_mut_slice()).filter(|db| bias && !db.is_empty());
            conv::weight_gradient(&mut self.weight[layer], db, dz, x, rows.subset(), n, &at.geometry);
        }
    }

    fn other(&mut self) -> &mut [Vec<f32>] {
        &mut self.other
    }
}

/// What one worker computes in; sized by the plan, filled anew for every chunk.
pub(crate) struct Arena {
    /// What products read of the other sections.
    pub kept: Vec<f32>,
    /// All else.
    pub work: Vec<f32>,
    /// Labels of the chunk, `[chunk, width]`.
    pub labels: Vec<u32>,
}

impl Arena {
    /// An arena for `plan`.
    pub fn new(plan: &Plan) -> Arena {
        let zeros = |len: usize| vec![0.0; plan.chunk * len];
        let labels = vec![0; plan.chunk * plan.label_width];
        Arena { kept: zeros(plan.program.kept), work: zeros(plan.program.work), labels }
    }

    /// Reads a chunk's images and labels; returns how many there are.
    ///
    /// # Errors
    /// Where a label does not fit the network, or a token id is beyond its vocabulary.
    pub fn fill(
        &mut self,
        net: &Network,
        plan: &Plan,
        inputs: &dyn Inputs,
        range: Range<usize>,
    ) -> Result<usize> {
        let (n, first) = (range.len(), range.start);
        let mut run = Run::new(net, plan, self, n);
        let ([images], _) = run.memory.carve([plan.program.image]);
        let mut labels = vec![0; n * plan.label_width];
        inputs.fill(images, &mut labels, range)?;
        net.check_tokens(images, first)?;
        check_words(&labels, net.loss, net.classes(), first)?;
        self.labels[..labels.len()].copy_from_slice(&labels);
        Ok(n)
    }
}

/// Memory of kept values: written in the first two sections, read in the product.
enum Kept<'a> {
    Written(&'a mut [f32]),
    Read(&'a [f32]),
}

/// The values of one chunk of `n` images.
struct Memory<'a> {
    plan: &'a Plan,
    kept: Kept<'a>,
    work: &'a mut [f32],
    n: usize,
}

impl<'a> Memory<'a> {
    /// One value, for reading.
    fn value(&self, value: Value) -> &[f32] {
        let span = self.plan.program.span(value, self.plan.chunk, self.n);
        match (span.region, &self.kept) {
            (Region::Work, _) => &self.work[span.range],
            (Region::Kept, Kept::Written(kept)) => &kept[span.range],
            (Region::Kept, Kept::Read(kept)) => &kept[span.range],
        }
    }

    /// These values for writing, and all others for reading.
    fn carve<const N: usize>(&mut self, values: [Value; N]) -> ([&mut [f32]; N], Others<'_>) {
        let (plan, n) = (self.plan, self.n);
        let kept = match &mut self.kept {
            Kept::Written(kept) => arena::Kept::Written(&mut **kept),
            Kept::Read(kept) => arena::Kept::Read(*kept),
        };
        let lens = [plan.chunk * plan.program.kept, plan.chunk * plan.program.work];
        let spans = values.map(|value| plan.program.span(value, plan.chunk, n));
        let (cut, rest) = arena::carve(kept, &mut *self.work, lens, spans);
        (cut, Others { rest, plan, n })
    }
}

/// The values that an instruction reads.
struct Others<'a> {
    rest: Rest<&'a [f32]>,
    plan: &'a Plan,
    n: usize,
}

impl<'a> Others<'a> {
    fn get(&self, value: Value) -> &'a [f32] {
        self.rest.get(&self.plan.program.span(value, self.plan.chunk, self.n))
    }

    fn source(&self, net: &'a Network, source: &RowSource) -> (&'a [f32], Strided) {
        match *source {
            RowSource::Value(x, from) => (self.get(x), from),
            RowSource::Param(param) => (net.value(param), Strided { first: 0, stride: 0 }),
        }
    }
}

/// A run over one chunk of `n` images.
pub(crate) struct Run<'a> {
    net: &'a Network,
    plan: &'a Plan,
    memory: Memory<'a>,
    labels: &'a [u32],
    n: usize,
    /// Every unit's activation `[n, d]`, where it is asked for.
    trace: Option<&'a mut [f32]>,
    seed: Seed<'a>,
    sink: Option<&'a mut dyn Sink>,
    v: Option<&'a RowValues>,
}

impl<'a> Run<'a> {
    /// A run of forward and backward sections over the first `n` images of an arena.
    pub fn new(net: &'a Network, plan: &'a Plan, arena: &'a mut Arena, n: usize) -> Run<'a> {
        let Arena { kept, work, labels } = arena;
        Run {
            net,
            plan,
            memory: Memory { plan, kept: Kept::Written(kept), work, n },
            labels: &labels[..n * plan.label_width],
            n,
            trace: None,
            seed: Seed::Gradient,
            sink: None,
            v: None,
        }
    }

    /// A run of a product with `v` on kept values, which adds to `sink`.
    pub fn product(
        net: &'a Network,
        plan: &'a Plan,
        (kept, work): (&'a [f32], &'a mut [f32]),
        labels: &'a [u32],
        v: &'a RowValues,
        sink: &'a mut dyn Sink,
    ) -> Run<'a> {
        let (n, seed) = (labels.len() / plan.label_width, Seed::Gradient);
        let (sink, v): (Option<&mut dyn Sink>, _) = (Some(sink), Some(v));
        let memory = Memory { plan, kept: Kept::Read(kept), work, n };
        Run { net, plan, memory, labels, n, trace: None, seed, sink, v }
    }

    /// With every unit's activation added up in `trace` `[n, d]`.
    pub fn traced(mut self, trace: Option<&'a mut [f32]>) -> Run<'a> {
        self.trace = trace;
        self.trace.iter_mut().for_each(|trace| trace.fill(0.0));
        self
    }

    /// With the gradients going to `sink`, from this seed at the logits.
    pub fn seeded(self, seed: Seed<'a>, sink: &'a mut dyn Sink) -> Run<'a> {
        Run { seed, sink: Some(sink), ..self }
    }

    /// From this seed at the logits, with the gradients going nowhere yet.
    pub fn beginning(self, seed: Seed<'a>) -> Run<'a> {
        Run { seed, ..self }
    }

    /// The same run with the gradients going to another sink for a while.
    pub fn lent<'b>(&'b mut self, sink: &'b mut dyn Sink) -> Run<'b> {
        let Memory { plan, kept, work, n } = &mut self.memory;
        let kept = match kept {
            Kept::Written(kept) => Kept::Written(kept),
            Kept::Read(kept) => Kept::Read(kept),
        };
        let memory = Memory { plan, kept, work, n: *n };
        let Run { net, plan, labels, n, seed, v, .. } = *self;
        Run { net, plan, memory, labels, n, trace: None, seed, sink: Some(sink), v }
    }

    /// The logits, `[n, classes]`, behind the forward section.
    pub fn logits(&self) -> &[f32] {
        self.memory.value(self.plan.program.logits)
    }

    /// Any value, where the plan gives each a place of its own.
    pub fn value(&self, value: Value) -> &[f32] {
        self.memory.value(value)
    }

    /// The labels, `[n, width]`.
    pub fn labels(&self) -> &'a [u32] {
        self.labels
    }
}

#[cfg(test)]
mod tests {
    use super::super::everything::{everything, some_rows, text};
    use super::super::instruction::Instruction;
    use super::super::plan::Purpose;
    use super::super::program::{Section, Step};
    use super::*;
    use crate::data::Samples;
    use crate::ops::philox::{Stream, Use};

    #[test]
    fn token_ids_beyond_the_vocabulary_are_refused_where_inputs_are_read() {
        let net = text().unwrap().freeze();
        let plan = Plan::new(&net, some_rows(&net), Purpose::Forward, 8).unwrap();
        let mut words = [6, 0, 1, 2, 3, 1, 1, 1, 1, 0].repeat(3);
        let fill = |words: &[u32]| {
            let x = words.iter().map(|&word| f32::from_bits(word)).collect();
            let samples = Samples { kind: net.kind(), x, y: vec![0; 3].into(), stream: None };
            Arena::new(&plan).fill(&net, &plan, &samples, 2..3)
        };
        assert_eq!(fill(&words).unwrap(), 1);
        words[22] = 7;
        let error = fill(&words).unwrap_err().to_string();
        assert!(["sample 2", "token 7 at place 2"].iter().all(|part| error.contains(part)), "{error}");
    }

    /// ⟨J v, u⟩ = ⟨v, Jᵀ u⟩ at every node, J its derivative by inputs and selected rows.
    #[test]
    fn every_nodes_backward_pass_is_the_transpose_of_its_tangent_pass() {
        let normals = |x: &mut [f32], stream: &mut Stream| x.fill_with(|| stream.normal());
        transposes(&everything().unwrap().freeze(), 0, normals);
        // Token ids and masks, in which the last tokens are padding. Ids, mask, embedding, positions and norm have no tangent.
        let word =
            |i: usize| f32::from_bits(if i % 10 < 5 { i as u32 * 3 % 7 } else { u32::from(i % 10 < 8) });
        let words = |x: &mut [f32], _: &mut Stream| (0..x.len()).for_each(|i| x[i] = word(i));
        transposes(&text().unwrap().freeze(), 5, words);
    }

    /// The same for a network, of which this many nodes require no tangent.
    fn transposes(net: &Network, constant: usize, fill: impl Fn(&mut [f32], &mut Stream)) {
        let mut plan = Plan::new(net, some_rows(net), Purpose::Hessian, 64).unwrap();
        plan.program.unshare();
        let (plan, n, mut seen) = (&plan, plan.chunk, 0);
        let mut stream = Stream::new(2, Use::Choice, 0);
        let mut arena = Arena::new(plan);
        let mut run = Run::new(net, plan, &mut arena, n);
        let ([images], _) = run.memory.carve([plan.program.image]);
        fill(images, &mut stream);
        run.section(Section::Forward);
        let product = plan.program.section(Section::Product);
        let loss = product.iter().position(|step| matches!(step.instruction, Instruction::Loss(_))).unwrap();
        for node in 1..net.nodes.len() {
            let of_node = |steps: &[Step]| -> Vec<Instruction> {
                let mine = steps.iter().filter(|step| step.node.index() == node);
                mine.map(|step| step.instruction.clone())
                    .filter(|op| !matches!(op, Instruction::Loss(_)))
                    .collect()
            };
            let mut inputs: Vec<usize> = net.nodes[node].inputs.iter().map(|input| input.index()).collect();
            inputs.dedup();
            let named = |name: &str, node: usize| plan.program.named(&format!("{name}{node}"));
            if named("t", node).is_none() {
                continue;
            }
            let mut v = RowValues::zeros(net, &plan.rows);
            v.all().for_each(|values| values.fill_with(|| stream.normal()));
            let mut sink = RowValues::zeros(net, &plan.rows);
            let mut run = Run { v: Some(&v), sink: Some(&mut sink), ..Run::new(net, plan, &mut arena, n) };
            for value in inputs.iter().filter_map(|&input| named("t", input)) {
                let ([t], _) = run.memory.carve([value]);
                t.fill_with(|| stream.normal());
            }
            of_node(&product[..loss]).iter().for_each(|op| run.execute(op));
            for value in inputs.iter().filter_map(|&input| named("d", input)) {
                let ([d], _) = run.memory.carve([value]);
                d.fill(0.0);
            }
            let d = named("d", node).unwrap();
            let ([u], _) = run.memory.carve([d]);
            u.fill_with(|| stream.normal());
            of_node(plan.program.section(Section::Backward)).iter().for_each(|op| run.execute(op));

            // The sum of products, and what rounding each factor once could change of it.
            let dot = |a: &[f32], b: &[f32]| {
                let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
                    a.iter().zip(b).map(|(&a, &b)| f(a.into(), b.into())).sum()
                };
                (
                    sum(&|a, b| a * b),
                    f64::from(f32::EPSILON) * (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt(),
                )
            };
            let read = |value| run.memory.value(value);
            let (there, mut off) = dot(read(named("t", node).unwrap()), read(d));
            let pairs = inputs.iter().filter_map(|&input| Some((named("t", input)?, named("d", input)?)));
            let mut parts: Vec<(f64, f64)> = pairs.map(|(t, d)| dot(read(t), read(d))).collect();
            parts.extend(v.all().zip(sink.all()).map(|(v, sink)| dot(v, sink)));
            let back: f64 = parts.iter().map(|(sum, _)| sum).sum();
            off += parts.iter().map(|(_, off)| off).sum::<f64>();
            let op = &net.nodes[node].op;
            assert!(there != 0.0 && (there - back).abs() <= off, "{op:?}: {there} {back}, allowed {off:e}");
            seen += 1;
        }
        assert_eq!(seen + constant, net.nodes.len() - 1);
    }
}
