//! Memory that instructions run in: the values that one writes are cut out of it, and all others can be read meanwhile.
//! One way for slices and for device memory.

use std::ops::Range;

use super::program::{Region, Span};
use crate::device::cuda::{In, Out};

/// Memory that can be written, and divided in two.
pub(super) trait Divide: Sized {
    /// The same memory, for reading.
    type Read: Part;
    /// The first `at` floats, and the rest.
    fn divide(self, at: usize) -> (Self, Self);
    /// For reading from now on.
    fn read(self) -> Self::Read;
}

/// Memory that is read.
pub(super) trait Part: Copy {
    /// These floats of it.
    fn part(self, range: Range<usize>) -> Self;
}

impl<'a> Divide for &'a mut [f32] {
    type Read = &'a [f32];

    fn divide(self, at: usize) -> (Self, Self) {
        self.split_at_mut(at)
    }

    fn read(self) -> &'a [f32] {
        self
    }
}

impl Part for &[f32] {
    fn part(self, range: Range<usize>) -> Self {
        &self[range]
    }
}

impl<'a> Divide for Out<'a, f32> {
    type Read = In<'a, f32>;

    fn divide(self, at: usize) -> (Self, Self) {
        self.split_at(at)
    }

    fn read(self) -> In<'a, f32> {
        self.read_only()
    }
}

impl Part for In<'_, f32> {
    fn part(self, range: Range<usize>) -> Self {
        In::part(self, range)
    }
}

/// The memory of kept values: a product reads it, the sections before write it.
pub(super) enum Kept<W: Divide> {
    Written(W),
    Read(W::Read),
}

/// As many pieces as three values that are cut out leave of two memories.
const PIECES: usize = 5;

/// What is left of the memory, for reading.
pub(super) struct Rest<R> {
    /// Region, first float and the floats of each piece.
    pieces: [Option<(Region, Range<usize>, R)>; PIECES],
}

impl<R: Part> Rest<R> {
    fn keep(&mut self, region: Region, range: Range<usize>, piece: R) {
        if let Some(free) = self.pieces.iter_mut().find(|piece| piece.is_none()) {
            *free = Some((region, range, piece));
        }
    }

    /// The floats of a span.
    ///
    /// # Panics
    /// Where they were cut out.
    pub fn get(&self, span: &Span) -> R {
        let holds = |(region, range, _): &&(Region, Range<usize>, R)| {
            *region == span.region && range.start <= span.range.start && span.range.end <= range.end
        };
        match self.pieces.iter().flatten().find(holds) {
            Some((_, range, piece)) => {
                piece.part(span.range.start - range.start..span.range.end - range.start)
            }
            None => panic!("{span:?} is written while it is read"),
        }
    }
}

/// Cuts up to three spans out of the memory; `lens` are the floats of kept values and of the others.
///
/// # Panics
/// Where two spans overlap, or one is of kept values that are only read.
pub(super) fn carve<W: Divide, const N: usize>(
    kept: Kept<W>,
    work: W,
    lens: [usize; 2],
    spans: [Span; N],
) -> ([W; N], Rest<W::Read>) {
    const { assert!(N + 2 <= PIECES) };
    let mut rest = Rest { pieces: [const { None }; PIECES] };
    let mut cut = [const { None }; N];
    let mut order: [usize; N] = std::array::from_fn(|i| i);
    order.sort_unstable_by_key(|&i| spans[i].range.start);
    let mut divide = |memory: W, region: Region, len: usize| {
        let (mut memory, mut at) = (memory, 0);
        for &i in order.iter().filter(|&&i| spans[i].region == region) {
            let range = &spans[i].range;
            assert!(at <= range.start, "{:?} overlaps another value that is written", spans[i]);
            let (before, tail) = memory.divide(range.start - at);
            let (span, after) = tail.divide(range.len());
            rest.keep(region, at..range.start, before.read());
            cut[i] = Some(span);
            (memory, at) = (after, range.end);
        }
        rest.keep(region, at..len, memory.read());
    };
    divide(work, Region::Work, lens[1]);
    match kept {
        Kept::Written(kept) => divide(kept, Region::Kept, lens[0]),
        Kept::Read(kept) => rest.keep(Region::Kept, 0..lens[0], kept),
    }
    let cut = cut.map(|span| match span {
        Some(span) => span,
        None => panic!("a product writes kept values"),
    });
    (cut, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_cut_out_and_the_rest_is_read() {
        let (mut kept, mut work) = ([0.0, 1.0, 2.0], [3.0, 4.0, 5.0, 6.0, 7.0]);
        let span = |region, range: Range<usize>| Span { region, range };
        let spans = [span(Region::Work, 3..4), span(Region::Kept, 0..1), span(Region::Work, 1..2)];
        let (cut, rest) = carve(Kept::Written(&mut kept[..]), &mut work[..], [3, 5], spans);
        assert_eq!(cut.map(|span| span.to_vec()), [vec![6.0], vec![0.0], vec![4.0]]);
        assert_eq!(rest.get(&span(Region::Kept, 1..3)), [1.0, 2.0]);
        assert_eq!(rest.get(&span(Region::Work, 2..3)), [5.0]);
        assert_eq!(rest.get(&span(Region::Work, 4..5)), [7.0]);
    }

    #[test]
    #[should_panic(expected = "is written while it is read")]
    fn what_is_cut_out_is_not_read() {
        let (mut work, span) = ([0.0; 4], |range| Span { region: Region::Work, range });
        let (_, rest) = carve(Kept::Read(&[][..]), &mut work[..], [0, 4], [span(1..2)]);
        rest.get(&span(0..3));
    }
}
