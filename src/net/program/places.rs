//! How long each value of a program is needed, and its place in memory.

use std::ops::Range;

use super::{ALIGN, Program, Region, floats};
use crate::net::instruction::{Access, AttentionOp, Instruction, PoolOp, Value};

/// The steps from the first to the last that use a value. Where backward writes a value of the forward section again before it
/// reads it, it is needed twice, and its place is free between.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Life {
    first: Range<usize>,
    again: Range<usize>,
}

impl Life {
    /// Whether no step uses the value.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The first step.
    pub fn start(&self) -> usize {
        self.first.start
    }

    fn end(&self) -> usize {
        self.first.end.max(self.again.end)
    }

    /// Whether both are needed at a step.
    pub fn meets(&self, other: &Life) -> bool {
        let parts = |life: &Life| [life.first.clone(), life.again.clone()];
        let meet = |a: &Range<usize>, b: &Range<usize>| a.start.max(b.start) < a.end.min(b.end);
        parts(self).iter().any(|a| parts(other).iter().any(|b| meet(a, b)))
    }
}

impl Program {
    /// Of every value.
    pub(super) fn lives(&self) -> Vec<Life> {
        let mut lives = vec![Life::default(); self.slots.len()];
        let backward = self.bounds[0];
        // Somebody fills the image before the first step, and reads the logits behind the values and their gradient.
        lives[self.image.index()].first = 0..1;
        for (i, step) in self.steps.iter().enumerate() {
            for (value, _, access) in step.instruction.operands().values {
                let life = &mut lives[value.index()];
                if !life.again.is_empty() {
                    life.again.end = i + 1;
                } else if life.first.is_empty() {
                    life.first = i..i + 1;
                } else if access == Access::Write && i >= backward && life.first.end <= backward {
                    life.again = i..i + 1;
                } else {
                    life.first.end = i + 1;
                }
            }
        }
        let logits = &mut lives[self.logits.index()];
        if !logits.is_empty() {
            logits.first.end = logits.first.end.max(self.bounds[1]);
        }
        lives
    }

    /// Gives every value its place: kept ones one behind the other, the others at the lowest offset that is free as long
    /// as they are needed.
    pub(in crate::net) fn place(&mut self) {
        let (product, lives) = (self.bounds[1], self.lives());
        let mut placed: Vec<(Range<usize>, Life)> = vec![]; // offsets, life
        (self.kept, self.work) = (0, 0);
        for (slot, life) in self.slots.iter_mut().zip(lives) {
            if life.is_empty() || slot.absent {
                continue;
            }
            let need = floats(slot.value.len, slot.element).next_multiple_of(ALIGN);
            if life.start() < product && product < life.end() {
                (slot.region, slot.start) = (Region::Kept, self.kept);
                self.kept += need;
                continue;
            }
            let mut taken: Vec<&Range<usize>> =
                placed.iter().filter(|(_, other)| other.meets(&life)).map(|(offsets, _)| offsets).collect();
            taken.sort_by_key(|offsets| offsets.start);
            let mut start = 0;
            for offsets in taken {
                if offsets.start >= start + need {
                    break;
                }
                start = start.max(offsets.end);
            }
            (slot.region, slot.start) = (Region::Work, start);
            self.work = self.work.max(start + need);
            placed.push((start..start + need, life));
        }
    }

    /// Takes no memory for the positions of a maximum and the weights of attention where nothing reads them: the device does not
    /// write these.
    pub(in crate::net) fn leave_out_unread(&mut self) {
        let optional = self.steps.iter().filter_map(|step| match step.instruction {
            Instruction::Pool(PoolOp::Max { winners, .. }) => Some(winners),
            Instruction::Attention(AttentionOp::Forward { weights, .. }) => Some(weights),
            _ => None,
        });
        let unread: Vec<Value> = optional.filter(|&value| !self.reads(value)).collect();
        unread.iter().for_each(|value| self.slots[value.index()].absent = true);
        self.place();
    }

    /// Gives every value a place of its own, so that it can be read behind the pass, and a node's instructions can run alone.
    pub fn unshare(&mut self) {
        (self.kept, self.work) = (0, 0);
        for slot in &mut self.slots {
            (slot.region, slot.start) = (Region::Kept, self.kept);
            self.kept += floats(slot.value.len, slot.element);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::net::everything::{everything, some_rows};
    use crate::net::instruction::{AttentionOp, Instruction, PoolOp};
    use crate::net::program::{Program, Purpose};
    use crate::net::{Selected, Shape};
    use crate::ops::Precision;
    use crate::zoo;

    #[test]
    fn what_nothing_reads_takes_no_memory_on_a_gpu() {
        let net = everything().unwrap().freeze();
        for purpose in [Purpose::Forward, Purpose::Hessian] {
            let all = Program::new(&net, &some_rows(&net), purpose, Precision::F32).unwrap();
            let mut program = all.clone();
            program.leave_out_unread();
            let optional = all.steps().iter().filter_map(|step| match step.instruction {
                Instruction::Pool(PoolOp::Max { winners, .. }) => Some(winners),
                Instruction::Attention(AttentionOp::Forward { weights, .. }) => Some(weights),
                _ => None,
            });
            let optional: Vec<_> = optional.collect();
            assert!(optional.len() >= 2);
            assert!(purpose == Purpose::Forward || optional.iter().any(|&value| all.reads(value)));
            for value in optional {
                assert_eq!(program.slots[value.index()].absent, !program.reads(value));
            }
            assert!(program.work + program.kept <= all.work + all.kept);
        }
        // Of many tokens, weights are most of what there is.
        let net = zoo::create("vit:8-1-4-2", Shape::new(16, 16, 1), 3, 1).unwrap().network.freeze();
        let none = vec![Selected::None; net.layers.len()];
        let all = Program::new(&net, &none, Purpose::Forward, Precision::Bf16).unwrap();
        let mut program = all.clone();
        program.leave_out_unread();
        assert!(2 * program.work < all.work, "{} of {}", program.work, all.work);
    }
}
