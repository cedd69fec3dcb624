//! A k-d tree over points with exact searches: a box that is skipped holds no point whose f64 distance is within the
//! radius (`boxes`). Points are stored in the order of the leaves (their *places*), so that near points are near in
//! memory.
//!
//! Space is halved across the widest side, equally often everywhere. Four halvings make one level of boxes, so that the
//! [`FAN`] boxes of a node are measured side by side, and so are the points of a leaf. The neighbours of all places in a
//! leaf are searched together: what is near one is near the others, and is read once.

use std::ops::Range;

use super::boxes::{FAN, LEAF, Side, nodes, ones, side_by_side, to_box, to_boxes, to_points};
use super::ranks::sort_key;

/// Points and the boxes around them.
pub(super) struct Tree {
    d: usize,
    x: Vec<f64>,                 // [points, d], by place
    point: Vec<u32>,             // by place
    starts: Vec<u32>,            // [leaves + 1]: the first place of each; the last is the number of points
    leaves: Vec<[f64; LEAF]>,    // [leaves, d]: coordinates
    levels: Vec<Vec<[Side; 2]>>, // from the leaves up, [nodes, d]: least and greatest coordinates of each box in a node
}

impl Tree {
    /// Builds the tree of points `x` `[points, d]`.
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

    /// The number of levels of nodes over the leaves.
    pub fn levels(&self) -> usize {
        self.levels.len()
    }

    /// The number of boxes in the nodes of a level: they are leaves, or nodes of the level below.
    pub fn boxes(&self, level: usize) -> usize {
        match level.checked_sub(1) {
            None => self.leaves(),
            Some(below) => self.levels[below].len() / self.d,
        }
    }

    /// The boxes in a node of a level, by number.
    pub fn inside(&self, level: usize, node: usize) -> Range<usize> {
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

    /// Bytes of a tree over `points` points of `d` coordinates, including those used while it is built.
    pub fn bytes(points: usize, d: usize) -> usize {
        let leaves = points.div_ceil(LEAF).next_power_of_two();
        let coordinates = points.saturating_mul(2).saturating_add(leaves * LEAF + nodes(leaves) * FAN * 2);
        coordinates
            .saturating_mul(d * size_of::<f64>())
            .saturating_add((points + leaves).saturating_mul(size_of::<u32>()))
    }

    /// Calls `visit(place, distance)` for the places other than `own` within the radius of it; the answer is the radius
    /// from then on, which must not grow. Near places come early, otherwise in no particular order.
    #[inline]
    pub fn walk(&self, own: usize, radius: f64, visit: impl FnMut(usize, f64) -> f64) {
        self.answer(self.leaf(own), &mut Near::new(self, own, radius, visit));
    }

    /// Runs a query: its `own` leaf first, so that distant boxes are skipped from the beginning, then the others.
    pub fn answer(&self, own: usize, query: &mut impl Query) {
        query.leaf(self, own);
        self.answer_in(self.levels.len() - 1, 0, own, query);
    }

    /// Runs a query over the boxes of a node, nearest first, `except` for one leaf.
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

    /// Copies the points at `places` into tiles of [`LEAF`] points side by side, `[tiles, d]`; the last point fills the last
    /// tile.
    pub fn arranged(&self, places: &[u32], tiles: &mut Vec<[f64; LEAF]>) {
        tiles.clear();
        for places in places.chunks(LEAF) {
            tiles.extend(side_by_side(&self.x, self.d, places.len(), |at| places[at] as usize));
        }
    }

    /// The squared distances from the place `own` to the points of a tile, and the numbers of those within the radius.
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

    /// For each place of `own` (at least one, all in one leaf) the `count` others nearest to it, or all others if they are
    /// fewer, with their distances, ascending. Which of those at the greatest distance are included is not specified.
    /// `scratch` may be reused between calls.
    pub fn nearest<'a>(
        &self,
        scratch: &'a mut Vec<Vec<(f64, u32)>>,
        own: &[u32],
        count: usize,
    ) -> &'a [Vec<(f64, u32)>] {
        scratch.resize(scratch.len().max(own.len()), Vec::new());
        let found = &mut scratch[..own.len()];
        found.iter_mut().for_each(Vec::clear);
        if self.d == 1 {
            found
                .iter_mut()
                .zip(own)
                .for_each(|(found, &own)| self.nearest_on_line(found, own as usize, count));
            return found;
        }
        self.answer(self.leaf(own[0] as usize), &mut NearEach::new(self, own, count, found));
        for found in &mut *found {
            if found.len() > count {
                truncate(found, count);
            }
            found.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        }
        found
    }

    /// [`Tree::nearest`] of one place with one coordinate: places then ascend by it.
    fn nearest_on_line(&self, found: &mut Vec<(f64, u32)>, own: usize, count: usize) {
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

/// A search of a tree: it decides which boxes are worth opening and is shown the leaves.
pub(super) trait Query {
    /// Nothing farther away than this need be seen.
    fn radius(&self) -> f64;

    /// Adds the least distances to what the boxes of a node hold, and sets a bit for each box within the radius.
    fn boxes(&self, tree: &Tree, level: usize, node: usize, distances: &mut Side) -> u32;

    /// Looks at the points of a leaf.
    fn leaf(&mut self, tree: &Tree, leaf: usize);
}

/// The places near one place.
pub(super) struct Near<'a, F> {
    own: usize,
    q: &'a [f64],
    radius: f64,
    visit: F,
}

impl<'a, F: FnMut(usize, f64) -> f64> Near<'a, F> {
    /// A search around the place `own`, as of [`Tree::walk`].
    pub fn new(tree: &'a Tree, own: usize, radius: f64, visit: F) -> Near<'a, F> {
        Near { own, q: tree.at(own), radius, visit }
    }
}

impl<F: FnMut(usize, f64) -> f64> Query for Near<'_, F> {
    #[inline]
    fn radius(&self) -> f64 {
        self.radius
    }

    #[inline]
    fn boxes(&self, tree: &Tree, level: usize, node: usize, distances: &mut Side) -> u32 {
        to_boxes(distances, tree.node(level, node), [self.q; 2], self.radius)
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

/// The nearest of each of several places in one leaf: what they look at is read once for all of them.
struct NearEach<'a> {
    own: &'a [u32],
    points: Vec<[f64; LEAF]>, // [d]: side by side
    sides: [Vec<f64>; 2],     // [d]: least and greatest coordinates
    radii: [f64; LEAF],       // by place; below 0 beyond the last
    radius: f64,              // the largest
    count: usize,
    found: &'a mut [Vec<(f64, u32)>],
}

impl<'a> NearEach<'a> {
    fn new(tree: &Tree, own: &'a [u32], count: usize, found: &'a mut [Vec<(f64, u32)>]) -> NearEach<'a> {
        let points: Vec<_> = side_by_side(&tree.x, tree.d, own.len(), |at| own[at] as usize).collect();
        let least = points.iter().map(|x| x.iter().copied().fold(f64::INFINITY, f64::min)).collect();
        let greatest = points.iter().map(|x| x.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect();
        let radii = std::array::from_fn(|lane| if lane < own.len() { f64::INFINITY } else { -1.0 });
        NearEach { own, points, sides: [least, greatest], radii, radius: f64::INFINITY, count, found }
    }
}

impl Query for NearEach<'_> {
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

/// Keeps the `count` nearest and returns the greatest distance among them.
fn truncate(found: &mut Vec<(f64, u32)>, count: usize) -> f64 {
    let radius = found.select_nth_unstable_by(count - 1, |a, b| a.0.total_cmp(&b.0)).1.0;
    found.truncate(count);
    radius
}

/// Halves the places `halvings` times, so that they are in the order of leaves; calls `leaf` with the size of each.
fn halve(places: &mut [u32], x: &[f64], d: usize, halvings: u32, leaf: &mut impl FnMut(usize)) {
    let key = |k: usize| move |&point: &u32| (sort_key(x[point as usize * d + k]), point);
    if halvings == 0 {
        if d == 1 {
            places.sort_unstable_by_key(key(0)); // with one coordinate places ascend by it
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::philox::{Stream, Use};

    /// Points with `d` coordinates; of these some are few numbers.
    pub fn points(n: usize, d: usize) -> Vec<f64> {
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
        let mut scratch = Vec::new();
        for count in [1, 40, 3] {
            let found = tree.nearest(&mut scratch, own, count);
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
}
