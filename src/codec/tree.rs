//! A tree of boxes over points, walked exactly: the distance to a box is summed in the same order as the distances to its
//! points, and rounding is monotone, so a box that is left out holds no point whose f64 distance is within the radius.
//! Points are kept in the order of the leaves (their *places*), so that what is near lies together in memory.
//!
//! Space is halved as in a k-d tree, across the widest side, as often everywhere. Four halvings are one level of boxes,
//! so that the [`FAN`] boxes in a node are measured side by side, and so are the points of a leaf. The nearest of places in
//! one leaf are looked for together: what is near one is near the others, and is read once.

use std::ops::Range;

use multiversion::multiversion;

use super::columns::{Lanes, WIDTH};
use super::ranks::sort_key;

/// Points and the boxes around them.
pub(super) struct Tree {
    d: usize,
    x: Vec<f64>,                 // [points, d], by place
    point: Vec<u32>,             // by place
    starts: Vec<u32>,            // [leaves + 1]: the first place of each, and beyond the last
    leaves: Vec<[f64; LEAF]>,    // [leaves, d]: coordinates
    levels: Vec<Vec<[Side; 2]>>, // from the leaves up, [nodes, d]: least and greatest coordinates of the boxes in a node
}

/// One number of each box in a node.
type Side = [f64; FAN];

/// Points in a leaf at most.
pub(super) const LEAF: usize = 16;
/// Boxes in a node at most: leaves, or nodes of the level below.
const FAN: usize = 16;

impl Tree {
    /// Of points `x` `[points, d]`.
    pub fn new(x: &[f64], d: usize) -> Tree {
        let points = x.len() / d;
        let halvings = points.div_ceil(LEAF).next_power_of_two().ilog2();
        let mut point: Vec<u32> = (0..points as u32).collect();
        let mut starts = Vec::with_capacity((1 << halvings) + 1);
        let mut place = 0;
        halve(&mut point, x, d, halvings, &mut |size| {
            starts.push(place);
            place += size as u32;
        });
        starts.push(place);
        let mut tree = Tree {
            d,
            x: point.iter().flat_map(|&point| &x[point as usize * d..][..d]).copied().collect(),
            point,
            starts,
            leaves: Vec::new(),
            levels: Vec::new(),
        };
        for leaf in 0..tree.leaves() {
            let places = tree.places(leaf);
            tree.leaves.extend(side_by_side(&tree.x, d, places.len(), |at| places.start + at));
        }
        while tree.levels.last().is_none_or(|nodes| nodes.len() > d) {
            let level = tree.levels.len();
            let node = |node: usize| (0..d).map(move |k| (node, k));
            let nodes = (0..tree.boxes(level).div_ceil(FAN)).flat_map(node).map(|(node, k)| {
                let mut sides = [[f64::INFINITY; FAN], [f64::NEG_INFINITY; FAN]];
                for (at, inside) in tree.inside(level, node).enumerate() {
                    let [least, greatest] = match level {
                        0 => [tree.leaves[inside * d + k]; 2],
                        _ => tree.levels[level - 1][inside * d + k],
                    };
                    sides[0][at] = least.into_iter().fold(f64::INFINITY, f64::min);
                    sides[1][at] = greatest.into_iter().fold(f64::NEG_INFINITY, f64::max);
                }
                sides
            });
            let nodes = nodes.collect();
            tree.levels.push(nodes);
        }
        tree
    }

    /// The number of points.
    pub fn len(&self) -> usize {
        self.point.len()
    }

    /// The number of coordinates.
    pub fn d(&self) -> usize {
        self.d
    }

    /// The number of the point at each place.
    pub fn points(&self) -> &[u32] {
        &self.point
    }

    /// The number of leaves.
    pub fn leaves(&self) -> usize {
        self.starts.len() - 1
    }

    /// The boxes in the nodes of a level: leaves, or nodes of the one below.
    fn boxes(&self, level: usize) -> usize {
        match level.checked_sub(1) {
            None => self.leaves(),
            Some(below) => self.levels[below].len() / self.d,
        }
    }

    /// The boxes in a node of a level.
    fn inside(&self, level: usize, node: usize) -> Range<usize> {
        node * FAN..self.boxes(level).min((node + 1) * FAN)
    }

    /// The places of a leaf.
    pub fn places(&self, leaf: usize) -> Range<usize> {
        self.starts[leaf] as usize..self.starts[leaf + 1] as usize
    }

    /// The squared distance of the points at two places.
    pub fn distance(&self, i: u32, j: u32) -> f64 {
        let (own, other) = (self.at(i as usize), self.at(j as usize));
        own.iter().zip(other).fold(0.0, |sum, (a, b)| sum + (a - b) * (a - b))
    }

    /// Bytes of a tree over `points` points of `d` coordinates, its making included.
    pub fn bytes(points: usize, d: usize) -> usize {
        let leaves = points.div_ceil(LEAF).next_power_of_two();
        let coordinates = points.saturating_mul(2).saturating_add(leaves * LEAF + nodes(leaves) * FAN * 2);
        coordinates
            .saturating_mul(d * size_of::<f64>())
            .saturating_add((points + leaves).saturating_mul(size_of::<u32>()))
    }

    /// Calls `visit(place, distance)` for the places other than `own` that lie within the radius of it; the answer is the
    /// radius from then on, which must not grow. Near places come early, in no certain order.
    #[inline]
    pub fn walk(&self, own: usize, radius: f64, visit: impl FnMut(usize, f64) -> f64) {
        self.walk_beside(own, None, radius, visit);
    }

    /// [`Tree::walk`] where points have a coordinate more: boxes are left out by that too, and places visited that lie
    /// within the radius but for it.
    #[inline]
    pub fn walk_beside(
        &self,
        own: usize,
        beside: Option<Beside>,
        radius: f64,
        visit: impl FnMut(usize, f64) -> f64,
    ) {
        self.answer(self.leaf(own), &mut Around { own, q: self.at(own), beside, radius, visit });
    }

    /// Shows a query its own leaf, so that boxes far away are left out from the beginning, and then the others.
    fn answer(&self, own: usize, query: &mut impl Query) {
        query.leaf(self, own);
        self.answer_in(self.levels.len() - 1, 0, own, query);
    }

    /// What is in a node of a level, but for one leaf.
    fn answer_in(&self, level: usize, node: usize, except: usize, query: &mut impl Query) {
        let mut distances = [0.0; FAN];
        let within = query.boxes(self, level, node, &mut distances);
        let inside = self.inside(level, node);
        let mut near = [(0.0, 0); FAN];
        let mut held = 0;
        for at in ones(within & ((1 << inside.len()) - 1)) {
            let this = (distances[at], inside.start + at);
            let mut to = held;
            while to > 0 && near[to - 1].0 > this.0 {
                near[to] = near[to - 1];
                to -= 1;
            }
            near[to] = this;
            held += 1;
        }
        for &(distance, inside) in &near[..held] {
            if distance > query.radius() {
                break;
            }
            if level > 0 {
                self.answer_in(level - 1, inside, except, query);
            } else if inside != except {
                query.leaf(self, inside);
            }
        }
    }

    /// The squared distances from `q` `[d]` to the points of a leaf, and the numbers of those within the radius.
    #[inline]
    fn to_leaf(&self, leaf: usize, q: &[f64], radius: f64) -> ([f64; LEAF], impl Iterator<Item = usize>) {
        let mut distances = [0.0; LEAF];
        let within = to_points(&mut distances, &self.leaves[leaf * self.d..][..self.d], q, radius);
        (distances, ones(within & ((1 << self.places(leaf).len()) - 1)))
    }

    /// The sides of the boxes in a node, `[d]`.
    fn node(&self, level: usize, node: usize) -> &[[Side; 2]] {
        &self.levels[level][node * self.d..][..self.d]
    }

    /// The leaf of a place.
    pub fn leaf(&self, place: usize) -> usize {
        self.starts.partition_point(|&start| start as usize <= place) - 1
    }

    /// The point at a place.
    fn at(&self, place: usize) -> &[f64] {
        &self.x[place * self.d..][..self.d]
    }

    /// The points at places in some order, [`LEAF`] after [`LEAF`] side by side, `[tiles, d]`; the last one fills its tile.
    pub fn arranged(&self, places: &[u32], tiles: &mut Vec<[f64; LEAF]>) {
        tiles.clear();
        for places in places.chunks(LEAF) {
            tiles.extend(side_by_side(&self.x, self.d, places.len(), |at| places[at] as usize));
        }
    }

    /// The squared distances from a place to the points of a tile, and the numbers of those within the radius.
    #[inline]
    pub fn to_tile(
        &self,
        own: u32,
        tiles: &[[f64; LEAF]],
        tile: usize,
        radius: f64,
    ) -> ([f64; LEAF], impl Iterator<Item = usize>) {
        let mut distances = [0.0; LEAF];
        let tile = &tiles[tile * self.d..][..self.d];
        let within = to_points(&mut distances, tile, self.at(own as usize), radius);
        (distances, ones(within))
    }

    /// For each of some places in one leaf (at least one) the `count` others nearest to it (as many as there are) with their
    /// distances, ascending; of those at the greatest distance any. `space` may be used again.
    pub fn nearest<'a>(
        &self,
        space: &'a mut Vec<Vec<(f64, u32)>>,
        own: &[u32],
        count: usize,
    ) -> &'a [Vec<(f64, u32)>] {
        space.resize(space.len().max(own.len()), Vec::new());
        let found = &mut space[..own.len()];
        found.iter_mut().for_each(Vec::clear);
        if self.d == 1 {
            found.iter_mut().zip(own).for_each(|(found, &own)| self.beside(found, own as usize, count));
            return found;
        }
        self.answer(self.leaf(own[0] as usize), &mut AroundEach::new(self, own, count, found));
        for found in &mut *found {
            if found.len() > count {
                truncate(found, count);
            }
            found.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        }
        found
    }

    /// [`Tree::nearest`] in one dimension, where places are in the order of the points.
    fn beside(&self, found: &mut Vec<(f64, u32)>, own: usize, count: usize) {
        let square = |at: usize| {
            self.x.get(at).map_or(f64::INFINITY, |other| (other - self.x[own]) * (other - self.x[own]))
        };
        let (mut low, mut high) = (own, own + 1);
        let (mut below, mut above) = (square(low.wrapping_sub(1)), square(high));
        for _ in 0..count.min(self.len() - 1) {
            match low > 0 && (below <= above || high == self.len()) {
                true => {
                    low -= 1;
                    found.push((below, low as u32));
                    below = square(low.wrapping_sub(1));
                }
                false => {
                    found.push((above, high as u32));
                    high += 1;
                    above = square(high);
                }
            }
        }
    }
}

/// What is asked of a tree.
trait Query {
    /// What is farther away need not be seen.
    fn radius(&self) -> f64;

    /// The least distances to what is in the boxes of a node; a bit for each that is within the radius.
    fn boxes(&self, tree: &Tree, level: usize, node: usize, distances: &mut Side) -> u32;

    /// Sees the points of a leaf.
    fn leaf(&mut self, tree: &Tree, leaf: usize);
}

/// What lies around one place.
struct Around<'a, F> {
    own: usize,
    q: &'a [f64],
    beside: Option<Beside<'a>>,
    radius: f64,
    visit: F,
}

impl<F: FnMut(usize, f64) -> f64> Query for Around<'_, F> {
    #[inline]
    fn radius(&self) -> f64 {
        self.radius
    }

    #[inline]
    fn boxes(&self, tree: &Tree, level: usize, node: usize, distances: &mut Side) -> u32 {
        let within = to_boxes(distances, tree.node(level, node), [self.q; 2], self.radius);
        match self.beside {
            Some(Beside { x, extents, lane }) => {
                to_sides(distances, &extents.levels[level][node][lane], x, self.radius)
            }
            None => within,
        }
    }

    #[inline]
    fn leaf(&mut self, tree: &Tree, leaf: usize) {
        let (distances, within) = tree.to_leaf(leaf, self.q, self.radius);
        let start = tree.places(leaf).start;
        for at in within {
            if distances[at] <= self.radius && start + at != self.own {
                self.radius = (self.visit)(start + at, distances[at]);
            }
        }
    }
}

/// The nearest of each of some places in one leaf, so that what they look at is read once for all.
struct AroundEach<'a> {
    own: &'a [u32],
    points: Vec<[f64; LEAF]>, // [d]: side by side
    sides: [Vec<f64>; 2],     // [d]: least and greatest coordinates
    radii: [f64; LEAF],       // of each, less than 0 where there is none
    radius: f64,              // the largest
    count: usize,
    found: &'a mut [Vec<(f64, u32)>],
}

impl<'a> AroundEach<'a> {
    fn new(tree: &Tree, own: &'a [u32], count: usize, found: &'a mut [Vec<(f64, u32)>]) -> AroundEach<'a> {
        let points: Vec<_> = side_by_side(&tree.x, tree.d, own.len(), |at| own[at] as usize).collect();
        let least = points.iter().map(|x| x.iter().copied().fold(f64::INFINITY, f64::min)).collect();
        let greatest = points.iter().map(|x| x.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect();
        let radii = std::array::from_fn(|lane| if lane < own.len() { f64::INFINITY } else { -1.0 });
        AroundEach { own, points, sides: [least, greatest], radii, radius: f64::INFINITY, count, found }
    }
}

impl Query for AroundEach<'_> {
    fn radius(&self) -> f64 {
        self.radius
    }

    fn boxes(&self, tree: &Tree, level: usize, node: usize, distances: &mut Side) -> u32 {
        to_boxes(distances, tree.node(level, node), self.sides.each_ref().map(Vec::as_slice), self.radius)
    }

    fn leaf(&mut self, tree: &Tree, leaf: usize) {
        let start = tree.places(leaf).start;
        for lane in ones(to_box(tree.node(0, leaf / FAN), leaf % FAN, &self.points, &self.radii)) {
            let (own, found) = (self.own[lane], &mut self.found[lane]);
            let (distances, within) = tree.to_leaf(leaf, tree.at(own as usize), self.radii[lane]);
            let near = within.map(|at| (distances[at], (start + at) as u32));
            found.extend(near.filter(|&(_, place)| place != own));
            if found.len() >= 2 * self.count {
                self.radii[lane] = truncate(found, self.count);
                self.radius = self.radii.into_iter().fold(0.0, f64::max);
            }
        }
    }
}

/// Leaves the `count` nearest, and says how far the last of them is.
fn truncate(found: &mut Vec<(f64, u32)>, count: usize) -> f64 {
    let radius = found.select_nth_unstable_by(count - 1, |a, b| a.0.total_cmp(&b.0)).1.0;
    found.truncate(count);
    radius
}

/// Points of `x` `[points, d]` side by side, `[d]`: so many, and the last one again.
fn side_by_side(
    x: &[f64],
    d: usize,
    count: usize,
    point: impl Fn(usize) -> usize,
) -> impl Iterator<Item = [f64; LEAF]> {
    (0..d).map(move |k| std::array::from_fn(|at| x[point(at.min(count - 1)) * d + k]))
}

/// The nodes of all levels over so many leaves, or a few more.
fn nodes(leaves: usize) -> usize {
    leaves.div_ceil(FAN - 1) + usize::BITS.div_ceil(FAN.ilog2()) as usize
}

/// Puts the places in the order of leaves, each of which has been halved so often; says how many are in each.
fn halve(places: &mut [u32], x: &[f64], d: usize, halvings: u32, leaf: &mut impl FnMut(usize)) {
    let key = |k: usize| move |&point: &u32| (sort_key(x[point as usize * d + k]), point);
    if halvings == 0 {
        if d == 1 {
            places.sort_unstable_by_key(key(0)); // places are in the order of the points
        }
        return leaf(places.len());
    }
    let mut sides = vec![[f64::INFINITY, f64::NEG_INFINITY]; d];
    for &point in &*places {
        for (side, &x) in sides.iter_mut().zip(&x[point as usize * d..][..d]) {
            *side = [side[0].min(x), side[1].max(x)];
        }
    }
    let (mut widest, mut most) = (0, -1.0);
    for (k, side) in sides.iter().enumerate() {
        if side[1] - side[0] > most {
            (widest, most) = (k, side[1] - side[0]);
        }
    }
    let half = places.len() / 2;
    places.select_nth_unstable_by_key(half, key(widest));
    let (low, high) = places.split_at_mut(half);
    halve(low, x, d, halvings - 1, leaf);
    halve(high, x, d, halvings - 1, leaf);
}

/// The squared distances to the boxes in a node `[d]` from the box between `low` and `high` `[d]`; a bit for each that is
/// within the radius.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn to_boxes(distances: &mut Side, boxes: &[[Side; 2]], [low, high]: [&[f64]; 2], radius: f64) -> u32 {
    for ([least, greatest], (low, high)) in boxes.iter().zip(low.iter().zip(high)) {
        for at in 0..FAN {
            distances[at] += to_side(least[at], greatest[at], [*low, *high]);
        }
    }
    within(distances, radius)
}

/// The squared distances from `q` `[d]` to the points of a leaf `[d]`; a bit for each that is within the radius.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn to_points(distances: &mut [f64; LEAF], leaf: &[[f64; LEAF]], q: &[f64], radius: f64) -> u32 {
    for (x, q) in leaf.iter().zip(q) {
        for at in 0..LEAF {
            distances[at] += (q - x[at]) * (q - x[at]);
        }
    }
    within(distances, radius)
}

/// What [`WIDTH`] columns have in the boxes of a tree: the least and the greatest value, or beyond them.
pub(super) struct Extents {
    levels: Vec<Vec<[[[f32; FAN]; 2]; WIDTH]>>, // as those of the tree, [nodes, WIDTH]
}

/// A coordinate that the points of a tree have besides, a column of `extents`: it is `x` where the walk begins.
#[derive(Clone, Copy)]
pub(super) struct Beside<'a> {
    pub x: f64,
    pub extents: &'a Extents,
    pub lane: usize,
}

impl Extents {
    /// Bytes of those of a block in a tree over `points` points.
    pub fn bytes(points: usize) -> usize {
        let leaves = points.div_ceil(LEAF).next_power_of_two();
        nodes(leaves).saturating_mul(FAN * 2 * WIDTH * size_of::<f32>())
    }

    /// Of a block of columns by place; where one is off, its values were rounded to the nearest f32.
    pub fn new(tree: &Tree, (x, off): (&[Lanes<f32>], &Lanes<f32>)) -> Extents {
        let mut extents = Extents { levels: Vec::with_capacity(tree.levels.len()) };
        for level in 0..tree.levels.len() {
            let nodes = (0..tree.boxes(level).div_ceil(FAN)).map(|node| {
                let mut sides = [[[f32::INFINITY; FAN], [f32::NEG_INFINITY; FAN]]; WIDTH];
                for (at, inside) in tree.inside(level, node).enumerate() {
                    let [least, greatest] = match level.checked_sub(1) {
                        None => Extents::of(&x[tree.places(inside)], off),
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

    /// Of some points.
    fn of(x: &[Lanes<f32>], off: &Lanes<f32>) -> [Lanes<f32>; 2] {
        let (mut least, mut greatest) = ([f32::INFINITY; WIDTH], [f32::NEG_INFINITY; WIDTH]);
        for x in x {
            for l in 0..WIDTH {
                least[l] = if x[l] < least[l] { x[l] } else { least[l] };
                greatest[l] = if x[l] > greatest[l] { x[l] } else { greatest[l] };
            }
        }
        for l in (0..WIDTH).filter(|&l| off[l] > 0.0) {
            (least[l], greatest[l]) = (least[l].next_down(), greatest[l].next_up()); // a value was rounded to the nearest
        }
        [least, greatest]
    }

    /// Of all boxes in a node.
    fn over(node: &[[[f32; FAN]; 2]; WIDTH]) -> [Lanes<f32>; 2] {
        let least = node.map(|[least, _]| least.into_iter().fold(f32::INFINITY, f32::min));
        let greatest = node.map(|[_, greatest]| greatest.into_iter().fold(f32::NEG_INFINITY, f32::max));
        [least, greatest]
    }
}

/// Adds the squared distances from `x` to the boxes of a node in one coordinate; a bit for each that is within the radius.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn to_sides(distances: &mut Side, [least, greatest]: &[[f32; FAN]; 2], x: f64, radius: f64) -> u32 {
    for at in 0..FAN {
        distances[at] += to_side(f64::from(least[at]), f64::from(greatest[at]), [x; 2]);
    }
    within(distances, radius)
}

/// The squared distance between an interval and that from `low` to `high`.
#[inline(always)]
fn to_side(least: f64, greatest: f64, [low, high]: [f64; 2]) -> f64 {
    let (below, above) = (least - high, low - greatest);
    let gap = if below > above { below } else { above };
    let gap = if gap > 0.0 { gap } else { 0.0 };
    gap * gap
}

/// A bit for each of some points `[d]` whose distance from a box in a node `[d]` is within its radius.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn to_box(boxes: &[[Side; 2]], at: usize, points: &[[f64; LEAF]], radii: &[f64; LEAF]) -> u32 {
    let mut distances = [0.0; LEAF];
    for ([least, greatest], x) in boxes.iter().zip(points) {
        for lane in 0..LEAF {
            distances[lane] += to_side(least[at], greatest[at], [x[lane]; 2]);
        }
    }
    (0..LEAF).fold(0, |within, lane| within | u32::from(distances[lane] <= radii[lane]) << lane)
}

/// A bit for each distance that is within the radius.
#[inline(always)]
fn within<const N: usize>(distances: &[f64; N], radius: f64) -> u32 {
    (0..N).fold(0, |within, at| within | u32::from(distances[at] <= radius) << at)
}

/// The numbers of the bits that are set, ascending.
pub(super) fn ones(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = bits.trailing_zeros() as usize;
        let any = bits != 0;
        bits &= bits.wrapping_sub(1);
        any.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::columns::{Matrix, Packed};
    use crate::ops::philox::{Stream, Use};

    /// Points with `d` coordinates; of these some are few numbers.
    fn points(n: usize, d: usize) -> Vec<f64> {
        let mut stream = Stream::new(7, Use::Choice, d as u32);
        let coordinate = |at: usize| {
            let x = f64::from(stream.normal());
            if at % d % 3 == 2 { (2.0 * x).round() } else { x }
        };
        (0..n * d).map(coordinate).collect()
    }

    fn distance(tree: &Tree, own: usize, other: usize) -> f64 {
        let d = tree.d;
        let pairs = tree.x[own * d..][..d].iter().zip(&tree.x[other * d..][..d]);
        pairs.map(|(a, b)| (a - b) * (a - b)).sum()
    }

    #[test]
    fn the_nearest_are_those_of_a_plain_search() {
        for n in [1, 2, 15, 16, 17, 33, 255, 256, 257, 300, 4200] {
            for d in [1, 2, 3, 5, 9] {
                let x = points(n, d);
                let tree = Tree::new(&x, d);
                let mut seen: Vec<u32> = tree.points().to_vec();
                seen.sort_unstable();
                assert_eq!(seen, (0..n as u32).collect::<Vec<_>>());
                for (&point, at) in tree.points().iter().zip(tree.x.chunks(d)) {
                    assert_eq!(&x[point as usize * d..][..d], at);
                }
                for leaf in (0..tree.leaves()).step_by(tree.leaves().div_ceil(9)) {
                    let places: Vec<u32> = tree.places(leaf).map(|place| place as u32).collect();
                    let some: Vec<u32> = places.iter().copied().skip(1).step_by(3).collect();
                    let [first, second] = [&places[..1], &places[1..places.len().min(2)]];
                    for own in [first, second, &places, &some].into_iter().filter(|own| !own.is_empty()) {
                        check_nearest(&tree, own);
                    }
                }
            }
        }
    }

    fn check_nearest(tree: &Tree, own: &[u32]) {
        let others = |&own: &u32| {
            let others = (0..tree.len()).filter(|&other| other != own as usize);
            let mut all: Vec<f64> = others.map(|other| distance(tree, own as usize, other)).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let expected: Vec<Vec<f64>> = own.iter().map(others).collect();
        let mut space = Vec::new();
        for count in [1, 40, 3] {
            let found = tree.nearest(&mut space, own, count);
            assert_eq!(found.len(), own.len());
            for ((&own, found), expected) in own.iter().zip(found).zip(&expected) {
                let given: Vec<f64> = found.iter().map(|near| near.0).collect();
                assert_eq!(given, expected[..count.min(expected.len())], "n {} own {own}", tree.len());
                let right = |&(given, other): &(f64, u32)| {
                    other != own && given == distance(tree, own as usize, other as usize)
                };
                assert!(found.iter().all(right));
                let mut places: Vec<u32> = found.iter().map(|near| near.1).collect();
                places.sort_unstable();
                places.dedup();
                assert_eq!(places.len(), found.len());
            }
        }
    }

    #[test]
    fn boxes_are_left_out_by_a_coordinate_besides_only_where_they_may_be() {
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
        let matrix = Matrix::columns_f64(&values, n, WIDTH).unwrap();
        let packed = Packed::new(matrix, tree.points().to_vec());
        let extents = Extents::new(&tree, packed.block(0));
        let (mut visited, mut without) = (0, 0);
        for lane in 0..WIDTH {
            for own in 0..n {
                let value = |place: usize| packed.at(place, lane);
                let total = |other: usize| {
                    let apart = value(own) - value(other);
                    distance(&tree, own, other) + apart * apart
                };
                let mut all: Vec<f64> = (0..n).filter(|&other| other != own).map(total).collect();
                all.sort_by(f64::total_cmp);
                let radius = all[0];
                let beside = Some(Beside { x: value(own), extents: &extents, lane });
                let mut found = Vec::new();
                tree.walk_beside(own, beside, radius, |other, given| {
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
