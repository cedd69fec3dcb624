//! Training in less memory: values of the forward section that backward computes again instead of keeping them.
//!
//! ```text
//! forward   S1 | S2 | S3          the values that later segments read are kept, those inside a segment are not
//! backward  B3, S2, B2, S1, B1    S2 and S1 again, as far as B2 and B1 read them
//! ```
//!
//! The same instructions run on the same values, a batch norm with the statistics that it had: all bits are the same. It costs at
//! most one more forward pass. The forward section is cut where few values pass, into segments whose own values are about as
//! large; of several numbers of segments the one that takes least memory is taken.

use std::ops::Range;

use super::{Program, Step, floats};
use crate::net::instruction::{Access, BatchNormOp, Instruction};

/// Into how many segments the forward section is cut, one number after the other.
const SEGMENTS: [usize; 10] = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48];

/// How the forward section uses a value, and whether backward reads it.
#[derive(Clone, Default)]
struct Uses {
    /// From the first to the last step that writes it; empty for what is no value of the section.
    written: Range<usize>,
    /// Behind the last step that reads it.
    read: usize,
    saved: bool,
    floats: usize,
}

impl Program {
    /// The program of training in less memory; none where no cut saves any.
    pub fn again(&self) -> Option<Program> {
        let uses = self.uses();
        let cuts = SEGMENTS.iter().map(|&segments| self.cuts(&uses, segments));
        let programs = cuts.map(|cuts| self.cut(&uses, &cuts));
        programs.min_by_key(|program| program.work).filter(|program| program.work < self.work)
    }

    fn uses(&self) -> Vec<Uses> {
        let [backward, product] = self.bounds;
        let mut uses = vec![Uses::default(); self.slots.len()];
        for (i, step) in self.steps[..product].iter().enumerate() {
            for (value, _, access) in step.instruction.operands().values {
                let of = &mut uses[value.index()];
                match (i < backward, access) {
                    (true, Access::Read) => of.read = i + 1,
                    (true, Access::Write | Access::Add) if of.written.is_empty() => of.written = i..i + 1,
                    (true, Access::Write | Access::Add) => of.written.end = i + 1,
                    (false, Access::Write) => {}
                    (false, Access::Read | Access::Add) => of.saved = true,
                }
            }
        }
        for (slot, of) in self.slots.iter().zip(&mut uses) {
            of.floats = floats(slot.value.len, slot.element);
        }
        // They are there all the time.
        for value in [self.image, self.logits] {
            uses[value.index()] = Uses::default();
        }
        uses
    }

    /// Steps before which the forward section is cut, ascending: a segment ends where its values that backward reads are more than
    /// one of so many parts of all, at the place in its later half where fewest values pass.
    fn cuts(&self, uses: &[Uses], segments: usize) -> Vec<usize> {
        let count = self.bounds[0];
        let (mut saved, mut passing, mut whole) = (vec![0; count], vec![0; count + 1], vec![true; count + 1]);
        for of in uses.iter().filter(|of| !of.written.is_empty()) {
            if of.saved {
                saved[of.written.start] += of.floats;
            }
            (of.written.start + 1..of.read).for_each(|cut| passing[cut] += of.floats);
            // A value is written in one segment.
            (of.written.start + 1..of.written.end).for_each(|cut| whole[cut] = false);
        }
        let budget = saved.iter().sum::<usize>() / segments;
        let (mut cuts, mut first, mut i, mut sum) = (vec![], 0, 0, 0);
        let mut sums = vec![0; count + 1]; // of the segment, before each step
        while i < count {
            sum += saved[i];
            sums[i + 1] = sum;
            i += 1;
            if sum <= budget {
                continue;
            }
            let places =
                (first + 1..i + 1).filter(|&cut| whole[cut] && cut < count && 2 * sums[cut] >= budget);
            if let Some(cut) = places.min_by_key(|&cut| passing[cut]) {
                cuts.push(cut);
                (first, i, sum) = (cut, cut, 0);
            }
        }
        cuts
    }

    /// The program that is cut there, with places.
    fn cut(&self, uses: &[Uses], cuts: &[usize]) -> Program {
        let backward = self.bounds[0];
        let starts = [&[0], cuts].concat();
        let segment = |step: usize| starts.partition_point(|&start| start <= step) - 1;
        // Of each value that is computed again, its segment: no other reads it, and it is not the last.
        let inside = |of: &Uses| -> Option<usize> {
            let at = (!of.written.is_empty()).then(|| segment(of.written.start))?;
            (at + 1 < starts.len() && of.read <= starts[at + 1]).then_some(at)
        };
        let inside: Vec<Option<usize>> = uses.iter().map(inside).collect();
        let mut done = vec![false; starts.len()];
        let mut steps = self.steps[..backward].to_vec();
        for step in &self.steps[backward..] {
            for (value, _, access) in step.instruction.operands().values {
                let at = inside[value.index()].filter(|&at| access != Access::Write && !done[at]);
                if let Some(at) = at {
                    done[at] = true;
                    steps.extend(self.segment_again(starts[at]..starts[at + 1], uses, &inside));
                }
            }
            steps.push(step.clone());
        }
        let mut program = Program { bounds: [backward, steps.len()], steps, ..self.clone() };
        program.place();
        program
    }

    /// The steps of a segment that give the values inside it that backward reads.
    fn segment_again(&self, steps: Range<usize>, uses: &[Uses], inside: &[Option<usize>]) -> Vec<Step> {
        let wanted = uses.iter().zip(inside).map(|(of, inside)| of.saved && inside.is_some());
        let mut wanted: Vec<bool> = wanted.collect();
        let mut again = vec![];
        for step in self.steps[steps].iter().rev() {
            let values = step.instruction.operands().values;
            if values.iter().any(|(value, _, access)| *access != Access::Read && wanted[value.index()]) {
                // What it writes beside, too, from the start.
                let needed = values
                    .iter()
                    .filter(|(value, _, access)| *access != Access::Read || inside[value.index()].is_some());
                needed.for_each(|(value, ..)| wanted[value.index()] = true);
                again.push(known(step));
            }
        }
        again.reverse();
        again
    }
}

/// The same step, a batch norm with the statistics that are known.
fn known(step: &Step) -> Step {
    let instruction = match step.instruction {
        Instruction::BatchNorm(BatchNormOp::Forward { y, x, node, gamma, beta, mean: _, var: _, eps, c }) => {
            BatchNormOp::Again { y, x, node, gamma, beta, eps, c }.into()
        }
        _ => step.instruction.clone(),
    };
    Step { node: step.node, instruction }
}
