//! Where the values of a program are: how long each is needed, and its place in memory meanwhile.

use std::ops::Range;

use super::{ALIGN, Program, Region, floats};
use crate::net::instruction::{AttentionOp, Instruction, PoolOp, Value};

impl Program {
    /// From the first to the last step that uses each value; none where no step does.
    pub(super) fn lives(&self) -> Vec<Option<Range<usize>>> {
        let mut lives: Vec<Option<Range<usize>>> = vec![None; self.slots.len()];
        // Somebody fills the image before the first step, and reads the logits behind the values and their gradient.
        lives[self.image.index()] = Some(0..1);
        for (i, step) in self.steps.iter().enumerate() {
            for (value, ..) in step.instruction.operands().values {
                lives[value.index()].get_or_insert(i..i + 1).end = i + 1;
            }
        }
        if let Some(life) = &mut lives[self.logits.index()] {
            life.end = life.end.max(self.bounds[1]);
        }
        lives
    }

    /// Gives every value its place: kept ones one behind the other, the others at the lowest offset that is free as long
    /// as they are needed.
    pub(in crate::net) fn place(&mut self) {
        let (product, lives) = (self.bounds[1], self.lives());
        let mut placed: Vec<(Range<usize>, Range<usize>)> = vec![]; // offsets, life
        for (slot, life) in self.slots.iter_mut().zip(lives) {
            let Some(life) = life.filter(|_| !slot.absent) else { continue };
            let need = floats(slot.value.len, slot.element).next_multiple_of(ALIGN);
            if life.start < product && product < life.end {
                (slot.region, slot.start) = (Region::Kept, self.kept);
                self.kept += need;
                continue;
            }
            let alive = |other: &Range<usize>| other.start < life.end && life.start < other.end;
            let mut taken: Vec<&Range<usize>> =
                placed.iter().filter(|(_, other)| alive(other)).map(|(offsets, _)| offsets).collect();
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
        (self.kept, self.work) = (0, 0);
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
