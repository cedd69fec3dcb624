//! The axes of a tensor in an ONNX graph, in terms of the values that a node gives here: each axis runs over parts of the
//! batch, the positions or the channels, so that transposing, splitting and joining axes moves no value.

/// What a factor runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Batch,
    /// Positions, row by row.
    Position,
    Channel,
}

/// A part of an axis: `size` steps of `stride` positions or channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Factor {
    pub run: Run,
    pub size: usize,
    pub stride: usize,
}

/// An axis is the product of factors, the last one fastest; one of length 1 has none, so that it may stand anywhere.
pub(super) type Axis = Vec<Factor>;

/// An axis over this run alone.
pub(super) fn over(run: Run, size: usize, stride: usize) -> Axis {
    if size == 1 { vec![] } else { vec![Factor { run, size, stride }] }
}

/// The axes batch, channels, rows, columns of an image.
pub(super) fn image(batch: usize, c: usize, h: usize, w: usize) -> Vec<Axis> {
    let positions = |size, stride| over(Run::Position, size, stride);
    vec![over(Run::Batch, batch, 1), over(Run::Channel, c, 1), positions(h, w), positions(w, 1)]
}

/// The length of an axis.
pub(super) fn length(axis: &[Factor]) -> usize {
    axis.iter().map(|factor| factor.size).product()
}

/// The lengths of all axes.
pub(super) fn lengths(axes: &[Axis]) -> Vec<usize> {
    axes.iter().map(|axis| length(axis)).collect()
}

/// The factors with those joined that run on in each other.
fn joined(factors: impl IntoIterator<Item = Factor>) -> Axis {
    let mut all: Axis = vec![];
    for next in factors {
        match all.last_mut() {
            Some(last) if last.run == next.run && last.stride == next.stride * next.size => {
                *last = Factor { run: next.run, size: last.size * next.size, stride: next.stride };
            }
            _ => all.push(next),
        }
    }
    all
}

/// The same values on axes of these lengths; none where an axis would begin or end within a factor that is not divided by
/// it.
pub(super) fn regrouped(axes: &[Axis], lengths: &[usize]) -> Option<Vec<Axis>> {
    let mut left: Vec<Factor> = joined(axes.iter().flatten().copied());
    left.reverse();
    let mut all = vec![];
    for &length in lengths {
        let (mut axis, mut need) = (vec![], length);
        while need > 1 {
            let next = left.pop()?;
            if need.is_multiple_of(next.size) {
                need /= next.size;
                axis.push(next);
            } else if next.size.is_multiple_of(need) && next.run != Run::Batch {
                let inner = next.size / need;
                axis.push(Factor { size: need, stride: next.stride * inner, ..next });
                left.push(Factor { size: inner, ..next });
                need = 1;
            } else {
                return None;
            }
        }
        all.push(joined(axis));
    }
    left.is_empty().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(run: Run, size: usize, stride: usize) -> Factor {
        Factor { run, size, stride }
    }

    #[test]
    fn axes_are_split_and_joined_as_a_reshape_does() {
        use Run::{Batch, Channel, Position};
        for batch in [1, 7] {
            let axes = image(batch, 6, 4, 5);
            // Flattened, and back.
            let flat = regrouped(&axes, &[batch, 120]).unwrap();
            assert_eq!(flat[1], [f(Channel, 6, 1), f(Position, 20, 1)]);
            assert_eq!(regrouped(&flat, &[batch, 6, 4, 5]).unwrap(), axes);
            // Tokens of three parts with two heads each.
            let tokens = vec![over(Batch, batch, 1), over(Position, 20, 1), over(Channel, 6, 1)];
            let parts = regrouped(&tokens, &[batch, 20, 3, 2, 1]).unwrap();
            assert_eq!(parts[2..], [vec![f(Channel, 3, 2)], vec![f(Channel, 2, 1)], vec![]]);
            assert_eq!(lengths(&parts), [batch, 20, 3, 2, 1]);
            let moved = [parts[1].clone(), parts[0].clone(), parts[2].clone()];
            let merged = regrouped(&moved, &[20, 3 * batch]).unwrap();
            assert_eq!(merged[1], [over(Batch, batch, 1), vec![f(Channel, 3, 2)]].concat());
            // 20 positions and 6 channels do not make axes of 8 and 15.
            assert_eq!(regrouped(&tokens, &[batch, 8, 15]), None);
            assert_eq!(regrouped(&tokens, &[batch, 20, 5]), None);
        }
    }
}
