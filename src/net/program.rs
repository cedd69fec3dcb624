//! A network's passes as one flat list of instructions over values: what the CPU and CUDA both run.
//!
//! [`super::lower`] makes the list from a network, a purpose and the selected rows. It has three sections. *Forward*
//! computes the values, *backward* the gradient of the loss at them, and *product* a curvature times a direction on what
//! those two left behind; a solver repeats the product alone.
//!
//! Everything else is computed from what the instructions read, write and add to ([`Instruction::operands`]): how long a
//! value is needed, its place in memory, and which values are *kept*, that is written before the product and read
//! in it. Kept values have memory of their own, so that those of a chunk of images can be stored between the products of
//! a solver. All others share memory as their lives allow. The lengths of operands are checked when the program is
//! built, once for both devices. Every value has an element type ([`super::elements`]); memory is counted in floats.

mod again;
mod places;

use std::fmt::Write;
use std::ops::Range;

use super::elements;
use super::instruction::{Access, Instruction, Value};
use super::{Network, NodeId};
use crate::device::cuda::Element;
use crate::error::{Error, Result};
use crate::loss::Weight;

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The forward pass alone.
    Forward,
    /// Forward and backward: the gradient on the selected rows.
    Gradient,
    /// Forward and backward in train form: the gradient of every parameter.
    Train,
    /// Products of the Gauss–Newton matrix: tangent forward, the loss's curvature, plain backward on a kept primal.
    Ggn,
    /// Products of the empirical Fisher matrix, likewise.
    Fisher,
    /// Products of the exact Hessian: tangent forward and tangent backward on a kept primal with its adjoints.
    Hessian,
}

impl Purpose {
    /// Whether it is a curvature, whose products with directions follow the gradient.
    pub fn has_products(self) -> bool {
        match self {
            Purpose::Forward | Purpose::Gradient | Purpose::Train => false,
            Purpose::Ggn | Purpose::Fisher | Purpose::Hessian => true,
        }
    }
}

/// A part of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// The values.
    Forward,
    /// From the loss's gradient back to the selected rows.
    Backward,
    /// A curvature times a direction.
    Product,
}

/// An instruction and the node that it is part of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// The node.
    pub node: NodeId,
    /// What is done.
    pub instruction: Instruction,
}

/// The memory that a value is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Region {
    /// What the product reads of the sections before it, and does not write.
    Kept,
    /// All else.
    Work,
}

/// The place of a value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    /// In which memory.
    pub region: Region,
    /// Which floats of it.
    pub range: Range<usize>,
}

/// A value's name, type and place; `start` is in floats an image.
#[derive(Clone, Debug, PartialEq)]
struct Slot {
    name: String,
    value: Value,
    element: Element,
    region: Region,
    start: usize,
    /// Whether nobody writes it, because nobody reads it.
    absent: bool,
}

/// See the file's opening.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    slots: Vec<Slot>,
    steps: Vec<Step>,
    /// The numbers of the first steps of backward and product.
    bounds: [usize; 2],
    /// The image.
    pub image: Value,
    /// The logits.
    pub logits: Value,
    /// Floats an image of kept values.
    pub kept: usize,
    /// Floats an image of all others.
    pub work: usize,
}

/// Values begin at multiples of this many floats an image: kernels read 16 bytes at once where they can.
const ALIGN: usize = 4;

/// Floats whose memory holds this many values.
fn floats(values: usize, element: Element) -> usize {
    (values * element.bytes()).div_ceil(4)
}

impl Program {
    /// A program of these steps, unchecked and without places.
    pub(super) fn of(list: List, bounds: [usize; 2], image: Value, logits: Value) -> Program {
        let List { slots, steps } = list;
        Program { slots, steps, bounds, image, logits, kept: 0, work: 0 }
    }

    /// The steps of a section.
    pub fn section(&self, section: Section) -> &[Step] {
        let [backward, product] = self.bounds;
        match section {
            Section::Forward => &self.steps[..backward],
            Section::Backward => &self.steps[backward..product],
            Section::Product => &self.steps[product..],
        }
    }

    /// The parts of a section that a chunk runs alone, and between them the batch norms.
    pub fn parts(&self, section: Section) -> impl Iterator<Item = &[Step]> {
        let alone = |step: &Step| !matches!(step.instruction, Instruction::BatchNorm(_));
        self.section(section).chunk_by(move |a, b| alone(a) && alone(b))
    }

    /// Every step.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The place of a value of the first `n` images of a chunk, in memory for `chunk` images.
    pub fn span(&self, value: Value, chunk: usize, n: usize) -> Span {
        let slot = &self.slots[value.index()];
        let start = chunk * slot.start;
        Span { region: slot.region, range: start..start + floats(n * value.len, slot.element) }
    }

    /// The type of a value's elements.
    pub fn element(&self, value: Value) -> Element {
        self.slots[value.index()].element
    }

    /// Gives every value that need not be f32 this type.
    pub(super) fn narrow(&mut self, to: Element) {
        if to == Element::F32 {
            return;
        }
        let all: Vec<_> = self.steps.iter().map(|step| step.instruction.operands()).collect();
        let narrow = elements::narrow(self.slots.len(), &all, &[self.image, self.logits]);
        let slots = self.slots.iter_mut().zip(narrow).filter(|(_, narrow)| *narrow);
        slots.for_each(|(slot, _)| slot.element = to);
    }

    /// Whether an instruction reads a value, or adds to it.
    pub fn reads(&self, value: Value) -> bool {
        let operands = self.steps.iter().flat_map(|step| step.instruction.operands().values);
        operands.into_iter().any(|(other, _, access)| other == value && access != Access::Write)
    }

    /// Whether a batch norm in train form reads the whole batch.
    pub fn has_batch_norm(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.instruction, Instruction::BatchNorm(_)))
    }

    /// Whether the product reads what the backward section wrote.
    pub fn keeps_adjoints(&self) -> bool {
        let mut values = self.slots.iter().zip(self.lives());
        values.any(|(slot, life)| slot.region == Region::Kept && life.start() >= self.bounds[0])
    }

    /// The program in words, one line an instruction: `y3, y3.argument = affine conv1 (y0) scale-shift gelu`. A value that is
    /// not f32 has its type behind it: `y3:bf16`.
    pub fn text(&self, net: &Network) -> Vec<String> {
        let [backward, product] = self.bounds;
        let mut lines = vec![];
        for (i, step) in self.steps.iter().enumerate() {
            let title = match i {
                _ if i == product => Some("product:"),
                _ if i == backward => Some("backward:"),
                0 => Some("forward:"),
                _ => None,
            };
            lines.extend(title.map(String::from));
            lines.push(format!("  {}", self.line(net, &step.instruction)));
        }
        lines
    }

    fn line(&self, net: &Network, instruction: &Instruction) -> String {
        let operands = instruction.operands();
        let names = |which: &dyn Fn(Access) -> bool| {
            let chosen = operands.values.iter().filter(|(.., access)| which(*access));
            let named = chosen.map(|(value, ..)| match &self.slots[value.index()] {
                Slot { name, element: Element::F32, .. } => name.clone(),
                Slot { name, element, .. } => format!("{name}:{}", element.name()),
            });
            named.collect::<Vec<_>>().join(", ")
        };
        let (name, settings) = instruction.describe();
        let added = operands.values.iter().any(|(.., access)| *access == Access::Add);
        let mut line = names(&|access| access != Access::Read);
        if !line.is_empty() {
            line += if added { " += " } else { " = " };
        }
        line += name;
        let layers = operands.layers.iter().map(|at| net.layer(at.layer).name.as_str());
        let params = operands.params.iter().map(|(param, ..)| net.params[param.index()].name.as_str());
        layers.chain(params).for_each(|owner| write!(line, " {owner}").unwrap_or_default());
        let read = names(&|access| access == Access::Read);
        if !read.is_empty() {
            write!(line, " ({read})").unwrap_or_default();
        }
        match settings.is_empty() {
            true => line,
            false => format!("{line} {settings}"),
        }
    }

    pub(super) fn check(&self, net: &Network) -> Result<()> {
        let mut written = vec![false; self.slots.len()];
        written[self.image.index()] = true;
        for step in &self.steps {
            let operands = step.instruction.operands();
            operands.check(net, &|| self.line(net, &step.instruction))?;
            for &(value, _, access) in &operands.values {
                if access != Access::Write && !written[value.index()] {
                    let line = self.line(net, &step.instruction);
                    let found = format!("{} before it is written, in {line}", self.slots[value.index()].name);
                    return Err(Error::shape("program", "values that were written", found));
                }
            }
            let outputs = operands.values.iter().filter(|(.., access)| *access != Access::Read);
            outputs.for_each(|(value, ..)| written[value.index()] = true);
        }
        Ok(())
    }
}

/// Values and steps while they are listed.
#[derive(Default)]
pub(super) struct List {
    slots: Vec<Slot>,
    steps: Vec<Step>,
}

impl List {
    /// A new value.
    pub fn value(&mut self, name: String, len: usize) -> Value {
        let value = Value { id: self.slots.len() as u32, len };
        let (element, region) = (Element::F32, Region::Work);
        self.slots.push(Slot { name, value, element, region, start: 0, absent: false });
        value
    }

    /// A step behind the others.
    pub fn push(&mut self, node: NodeId, instruction: Instruction) {
        self.steps.push(Step { node, instruction });
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.steps.len()
    }
}

/// What makes another loss of the network's: image i's gradient at the logits becomes `factors[i]` times itself, plus
/// `offsets[i]`. With the factor 1 and the offset onehot(y) − q, cross-entropy is against the soft label q.
#[derive(Clone, Copy, Debug)]
pub struct Tilt<'a> {
    /// `[n]`.
    pub factors: &'a [f32],
    /// `[n, classes]`.
    pub offsets: &'a [f32],
}

impl<'a> Tilt<'a> {
    /// Refuses one that is not of `n` images of this many classes.
    pub(crate) fn check(&self, op: &'static str, n: usize, classes: usize) -> Result<()> {
        let (offsets, found) = (n * classes, (self.factors.len(), self.offsets.len()));
        match found == (n, offsets) {
            true => Ok(()),
            false => {
                let found = format!("{} and {}", found.0, found.1);
                Err(Error::shape(op, format!("{n} factors and {offsets} offsets"), found))
            }
        }
    }

    /// That of some of the images.
    pub(crate) fn part(self, images: Range<usize>, classes: usize) -> Tilt<'a> {
        let offsets = &self.offsets[images.start * classes..images.end * classes];
        Tilt { factors: &self.factors[images], offsets }
    }
}

/// What a backward pass begins with at the logits.
#[derive(Clone, Copy)]
pub(crate) enum Seed<'a> {
    /// The gradient of each image's loss.
    Gradient,
    /// The same times weight(number of the image, its loss); the chunk's first image has number `first`.
    Weighted(&'a Weight<'a>, usize),
    /// The gradient of each image's loss, tilted ([`Tilt`]).
    Tilted(Tilt<'a>),
    /// K-FAC's draws, whose second moment is the loss's curvature: those of (seed, number of the image).
    Draws {
        /// The seed.
        seed: u64,
        /// The number of the chunk's first image.
        first: usize,
    },
}

impl Seed<'_> {
    /// That of some of the images.
    pub(crate) fn part(self, images: Range<usize>, classes: usize) -> Self {
        match self {
            Seed::Gradient => Seed::Gradient,
            Seed::Weighted(weight, first) => Seed::Weighted(weight, first + images.start),
            Seed::Tilted(tilt) => Seed::Tilted(tilt.part(images, classes)),
            Seed::Draws { seed, first } => Seed::Draws { seed, first: first + images.start },
        }
    }
}

impl Program {
    /// The value of that name.
    pub fn named(&self, name: &str) -> Option<Value> {
        self.slots.iter().find(|slot| slot.name == name).map(|slot| slot.value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::everything::{everything, some_rows, text};
    use super::super::instruction::PointwiseOp;
    use super::super::rows::Selected;
    use super::*;
    use crate::ops::Precision;

    const PURPOSES: [Purpose; 5] =
        [Purpose::Forward, Purpose::Gradient, Purpose::Ggn, Purpose::Fisher, Purpose::Hessian];

    #[test]
    fn values_alive_together_do_not_overlap_and_memory_is_shared() {
        for net in [everything(), text()] {
            shares_memory(&net.unwrap());
        }
    }

    fn shares_memory(net: &Network) {
        let frozen = net.freeze();
        let all = PURPOSES
            .map(|purpose| Program::new(&frozen, &some_rows(&frozen), purpose, Precision::F32).unwrap());
        let train = Program::new(net, &vec![Selected::All; net.layers.len()], Purpose::Train, Precision::F32)
            .unwrap();
        let half = Program::new(&frozen, &some_rows(&frozen), Purpose::Forward, Precision::Bf16).unwrap();
        assert!(half.work <= all[0].work, "{} and {}", half.work, all[0].work);
        let again = train.again().unwrap();
        assert!(again.work < train.work, "{} and {}", again.work, train.work);
        for program in all.iter().chain([&train, &again, &half]) {
            let lives = program.lives();
            let alive: Vec<_> =
                program.slots.iter().zip(lives).filter(|(_, life)| !life.is_empty()).collect();
            for (i, (a, of_a)) in alive.iter().enumerate() {
                for (b, of_b) in &alive[i + 1..] {
                    let together = a.region == Region::Kept || of_a.meets(of_b);
                    let end = |slot: &Slot| slot.start + floats(slot.value.len, slot.element);
                    let apart = end(a) <= b.start || end(b) <= a.start;
                    assert!(!together || a.region != b.region || apart, "{} {}", a.name, b.name);
                }
            }
            let sum: usize = alive.iter().map(|(slot, _)| slot.value.len).sum();
            assert!(program.kept + program.work < sum, "{} + {} of {sum}", program.kept, program.work);
            let product = program.section(Section::Product).iter();
            let mut outputs = product.flat_map(|step| step.instruction.operands().values);
            assert!(outputs.all(|(value, _, access)| {
                access == Access::Read || program.slots[value.index()].region == Region::Work
            }));
        }
    }

    #[test]
    fn an_operand_of_another_length_or_that_nobody_wrote_is_refused() {
        let net = everything().unwrap().freeze();
        let mut list = List::default();
        let [image, y, z] = [("y0", 3), ("y1", 3), ("y2", 4)].map(|(name, len)| list.value(name.into(), len));
        list.push(NodeId(1), PointwiseOp::Copy { y, x: image }.into());
        let mut program = Program::of(list, [1, 1], image, y);
        program.check(&net).unwrap();
        program.steps[0].instruction = PointwiseOp::Copy { y: z, x: image }.into();
        assert!(program.check(&net).unwrap_err().to_string().contains("y2 = copy (y0)"));
        program.steps[0].instruction = PointwiseOp::Add { y, x: image }.into();
        assert!(program.check(&net).unwrap_err().to_string().contains("before it is written"));
    }

    #[test]
    fn a_program_is_printed_line_by_line() {
        let net = everything().unwrap().freeze();
        let text = Program::new(&net, &some_rows(&net), Purpose::Hessian, Precision::F32).unwrap().text(&net);
        for line in [
            "forward:",
            "  y1 = affine conv1 (y0) scale-shift relu",
            "  y3, y3.argument = affine conv2 (y2, y2) scale-shift gelu",
            "backward:",
            "product:",
            "  t1 += apply conv1 (y0) along v",
            "  weight-gradient conv1 (hz1, y0) with bias",
        ] {
            assert!(text.iter().any(|found| found == line), "{line} in {text:#?}");
        }
    }

    #[test]
    fn a_network_in_train_form_has_no_products() {
        let net = everything().unwrap();
        for purpose in PURPOSES {
            assert!(Program::new(&net, &some_rows(&net), purpose, Precision::F32).is_err());
        }
    }
}
