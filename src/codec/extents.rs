//! Bounds of candidate columns in the boxes of a tree over the chosen columns: with them a search skips what is far in
//! the chosen columns and the candidate together.

use super::boxes::{FAN, LEAF, Side, nodes, to_sides};
use super::columns::{Lanes, WIDTH};
use super::tree::{Near, Query, Tree};

/// Lower and upper bounds of [`WIDTH`] columns over the points of every box of a tree.
pub(super) struct Extents {
    levels: Vec<Vec<[[[f32; FAN]; 2]; WIDTH]>>, // by level of the tree, [nodes, WIDTH]
}

impl Extents {
    /// Bytes of the extents of one block in a tree over `points` points.
    pub fn bytes(points: usize) -> usize {
        let leaves = points.div_ceil(LEAF).next_power_of_two();
        nodes(leaves).saturating_mul(FAN * 2 * WIDTH * size_of::<f32>())
    }

    /// The extents of a block of columns, whose rows are in the order of places. Where a column has a rounding error, its
    /// bounds allow for it.
    pub fn new(tree: &Tree, (x, error): (&[Lanes<f32>], &Lanes<f32>)) -> Extents {
        let mut extents = Extents { levels: Vec::with_capacity(tree.levels()) };
        for level in 0..tree.levels() {
            let nodes = (0..tree.boxes(level).div_ceil(FAN)).map(|node| {
                let mut sides = [[[f32::INFINITY; FAN], [f32::NEG_INFINITY; FAN]]; WIDTH];
                for (at, inside) in tree.inside(level, node).enumerate() {
                    let [least, greatest] = match level.checked_sub(1) {
                        None => Extents::of(&x[tree.places(inside)], error),
                        Some(below) => Extents::over(&extents.levels[below][inside]),
                    };
                    for (l, sides) in sides.iter_mut().enumerate() {
                        (sides[0][at], sides[1][at]) = (least[l], greatest[l]);
                    }
                }
                sides
            });
            let nodes = nodes.collect();
            extents.levels.push(nodes);
        }
        extents
    }

    /// The bounds of some points.
    fn of(x: &[Lanes<f32>], error: &Lanes<f32>) -> [Lanes<f32>; 2] {
        let (mut least, mut greatest) = ([f32::INFINITY; WIDTH], [f32::NEG_INFINITY; WIDTH]);
        for x in x {
            for l in 0..WIDTH {
                least[l] = if x[l] < least[l] { x[l] } else { least[l] };
                greatest[l] = if x[l] > greatest[l] { x[l] } else { greatest[l] };
            }
        }
        for l in (0..WIDTH).filter(|&l| error[l] > 0.0) {
            (least[l], greatest[l]) = (least[l].next_down(), greatest[l].next_up()); // a value was rounded to the nearest
        }
        [least, greatest]
    }

    /// The bounds of all boxes in a node.
    fn over(node: &[[[f32; FAN]; 2]; WIDTH]) -> [Lanes<f32>; 2] {
        let least = node.map(|[least, _]| least.into_iter().fold(f32::INFINITY, f32::min));
        let greatest = node.map(|[_, greatest]| greatest.into_iter().fold(f32::NEG_INFINITY, f32::max));
        [least, greatest]
    }

    /// Calls `visit(place, distance)` for places other than `own`, `distance` without the column `lane` of the extents, in
    /// which the point at `own` has the value `x`. Every place is visited that lies within the radius in all coordinates
    /// and the column together; the answer is the radius from then on, which must not grow.
    #[inline]
    pub fn walk(
        &self,
        tree: &Tree,
        own: usize,
        (lane, x): (usize, f64),
        radius: f64,
        visit: impl FnMut(usize, f64) -> f64,
    ) {
        let near = Near::new(tree, own, radius, visit);
        tree.answer(tree.leaf(own), &mut NearBeside { near, extents: self, lane, x });
    }
}

/// The places near one place, in the coordinates of the tree and one column more.
struct NearBeside<'a, F> {
    near: Near<'a, F>,
    extents: &'a Extents,
    lane: usize,
    x: f64,
}

impl<F: FnMut(usize, f64) -> f64> Query for NearBeside<'_, F> {
    #[inline]
    fn radius(&self) -> f64 {
        self.near.radius()
    }

    #[inline]
    fn boxes(&self, tree: &Tree, level: usize, node: usize, distances: &mut Side) -> u32 {
        self.near.boxes(tree, level, node, distances);
        to_sides(distances, &self.extents.levels[level][node][self.lane], self.x, self.radius())
    }

    #[inline]
    fn leaf(&mut self, tree: &Tree, leaf: usize) {
        self.near.leaf(tree, leaf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::columns::{Columns, Packed};
    use crate::codec::tree::tests::points;
    use crate::ops::philox::{Stream, Use};

    fn distance(tree: &Tree, own: usize, other: usize) -> f64 {
        tree.distance(own as u32, other as u32)
    }

    #[test]
    fn a_walk_with_one_more_column_visits_fewer_places_and_misses_none() {
        let (n, d) = (700, 3);
        let tree = Tree::new(&points(n, d), d);
        let mut stream = Stream::new(8, Use::Choice, 0);
        let mut values: Vec<f64> = (0..n * WIDTH).map(|_| f64::from(stream.normal())).collect();
        // columns that f32 holds, that it rounds, that are beyond it in some rows and in all, wide and narrow ones
        let change: [fn(usize, f64) -> f64; 7] = [
            |_, x| x,
            |_, x| x / 3.0,
            |_, x| 1e7 + x / 3.0,
            |row, x| if row % 50 == 0 { 1e200 * x } else { x },
            |_, x| 1e200 + 1e184 * x,
            |_, x| 100.0 * x,
            |_, x| 1e-3 * x,
        ];
        for (at, x) in values.iter_mut().enumerate() {
            *x = change[at / n % change.len()](at % n, *x);
        }
        let matrix = Columns::from_columns_f64(&values, n, WIDTH).unwrap();
        let packed = Packed::new(matrix, tree.points().to_vec());
        let extents = Extents::new(&tree, packed.block(0));
        let (mut visited, mut without) = (0, 0);
        for lane in 0..WIDTH {
            for own in 0..n {
                let value = |place: usize| packed.at(place, lane);
                let total = |other: usize| {
                    let difference = value(own) - value(other);
                    distance(&tree, own, other) + difference * difference
                };
                let mut all: Vec<f64> = (0..n).filter(|&other| other != own).map(total).collect();
                all.sort_by(f64::total_cmp);
                let radius = all[0];
                let mut found = Vec::new();
                extents.walk(&tree, own, (lane, value(own)), radius, |other, given| {
                    assert!(other != own && given == distance(&tree, own, other) && given <= radius);
                    visited += 1;
                    found.extend(Some(total(other)).filter(|&total| total <= radius));
                    radius
                });
                found.sort_by(f64::total_cmp);
                let expected = &all[..all.partition_point(|&other| other <= radius)];
                assert_eq!(found, expected, "lane {lane} own {own}");
                tree.walk(own, radius, |_, _| {
                    without += 1;
                    radius
                });
            }
        }
        assert!(visited < without, "{visited} {without}");
    }
}
