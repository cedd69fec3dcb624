//! Squared distances to several boxes, or points, side by side, so that the compiler can use vector instructions.
//!
//! Each is summed coordinate by coordinate, like the distance between two points; rounding is monotone, so the distance
//! to a box never exceeds the f64 distance to a point in it.

use multiversion::multiversion;

/// Points in a leaf at most.
pub(super) const LEAF: usize = 16;
/// Boxes in a node at most; each is a leaf or a node of the level below.
pub(super) const FAN: usize = 16;

/// One number of each box in a node.
pub(super) type Side = [f64; FAN];

/// Adds the squared distances from the box between `low` and `high` `[d]` to the boxes of a node `[d]`; sets a bit for each
/// box within the radius.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn to_boxes(
    distances: &mut Side,
    boxes: &[[Side; 2]],
    [low, high]: [&[f64]; 2],
    radius: f64,
) -> u32 {
    for ([least, greatest], (low, high)) in boxes.iter().zip(low.iter().zip(high)) {
        for at in 0..FAN {
            distances[at] += to_side(least[at], greatest[at], [*low, *high]);
        }
    }
    within(distances, radius)
}

/// Adds the squared distances from `q` `[d]` to the points of a leaf `[d]`; sets a bit for each point within the radius.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn to_points(distances: &mut [f64; LEAF], leaf: &[[f64; LEAF]], q: &[f64], radius: f64) -> u32 {
    for (x, q) in leaf.iter().zip(q) {
        for at in 0..LEAF {
            distances[at] += (q - x[at]) * (q - x[at]);
        }
    }
    within(distances, radius)
}

/// Adds the squared distances from `x` to the boxes of a node in one coordinate; sets a bit for each box within the radius.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn to_sides(
    distances: &mut Side,
    [least, greatest]: &[[f32; FAN]; 2],
    x: f64,
    radius: f64,
) -> u32 {
    for at in 0..FAN {
        distances[at] += to_side(f64::from(least[at]), f64::from(greatest[at]), [x; 2]);
    }
    within(distances, radius)
}

/// The squared distance between the interval from `least` to `greatest` and that from `low` to `high`.
#[inline(always)]
pub(super) fn to_side(least: f64, greatest: f64, [low, high]: [f64; 2]) -> f64 {
    let (below, above) = (least - high, low - greatest);
    let gap = if below > above { below } else { above };
    let gap = if gap > 0.0 { gap } else { 0.0 };
    gap * gap
}

/// Sets a bit for each of the points `[d]` whose own radius reaches box `at` of a node `[d]`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn to_box(boxes: &[[Side; 2]], at: usize, points: &[[f64; LEAF]], radii: &[f64; LEAF]) -> u32 {
    let mut distances = [0.0; LEAF];
    for ([least, greatest], x) in boxes.iter().zip(points) {
        for lane in 0..LEAF {
            distances[lane] += to_side(least[at], greatest[at], [x[lane]; 2]);
        }
    }
    (0..LEAF).fold(0, |within, lane| within | u32::from(distances[lane] <= radii[lane]) << lane)
}

/// Sets a bit for each distance within the radius.
#[inline(always)]
pub(super) fn within<const N: usize>(distances: &[f64; N], radius: f64) -> u32 {
    (0..N).fold(0, |within, at| within | u32::from(distances[at] <= radius) << at)
}

/// The positions of the bits that are set, ascending.
pub(super) fn ones(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = bits.trailing_zeros() as usize;
        let any = bits != 0;
        bits &= bits.wrapping_sub(1);
        any.then_some(at)
    })
}

/// The coordinates `[d]` of `count` points of `x` `[points, d]` side by side; the last point fills the rest.
pub(super) fn side_by_side(
    x: &[f64],
    d: usize,
    count: usize,
    point: impl Fn(usize) -> usize,
) -> impl Iterator<Item = [f64; LEAF]> {
    (0..d).map(move |k| std::array::from_fn(|at| x[point(at.min(count - 1)) * d + k]))
}

/// An upper bound on the number of nodes of all levels over this many leaves.
pub(super) fn nodes(leaves: usize) -> usize {
    leaves.div_ceil(FAN - 1) + usize::BITS.div_ceil(FAN.ilog2()) as usize
}
