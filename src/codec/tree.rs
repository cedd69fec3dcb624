//! A k-d tree over points, walked exactly: the distance to a box is summed in the same order as the distances to its
//! points, and rounding is monotone, so a box that is left out holds no point whose f64 distance is within the radius.
//! Points are kept in the order of the leaves (their *places*), so that what is near lies together in memory; those of a
//! leaf are measured side by side.

use std::ops::Range;

use multiversion::multiversion;

use super::ranks::sort_key;

/// Points and the boxes around them.
pub(super) struct Tree {
    d: usize,
    x: Vec<f64>,              // [points, d], by place
    leaves: Vec<[f64; LEAF]>, // [leaves, d]
    point: Vec<u32>,          // by place
    nodes: Vec<Node>,
    boxes: Vec<f64>, // [nodes, d, 2]: least and greatest coordinate
}

/// Some places: the left child of an inner node is the next node.
struct Node {
    range: Range<u32>,
    right: u32, // 0 where it is a leaf
    leaf: u32,  // its number
}

/// Points in a leaf at most.
const LEAF: usize = 16;
/// Nodes that wait at most: one a level, and halving 2³² points takes 32 levels.
const DEPTH: usize = 40;

impl Tree {
    /// Of points `x` `[points, d]`.
    pub fn new(x: &[f64], d: usize) -> Tree {
        let points = x.len() / d;
        let mut tree = Tree {
            d,
            x: Vec::with_capacity(x.len()),
            point: (0..points as u32).collect(),
            leaves: Vec::with_capacity(points.div_ceil(LEAF / 2) * d),
            nodes: Vec::with_capacity(2 * points.div_ceil(LEAF / 2)),
            boxes: Vec::new(),
        };
        tree.grow(x, 0..points);
        for &point in &tree.point {
            tree.x.extend_from_slice(&x[point as usize * d..][..d]);
        }
        for node in &mut tree.nodes {
            if node.right == 0 {
                node.leaf = (tree.leaves.len() / d) as u32;
                let place = |k: usize, at: usize| (node.range.start as usize + at).min(points - 1) * d + k;
                tree.leaves.extend((0..d).map(|k| std::array::from_fn(|at| tree.x[place(k, at)])));
            }
        }
        tree
    }

    /// The number of points.
    pub fn len(&self) -> usize {
        self.point.len()
    }

    /// The number of the point at each place.
    pub fn points(&self) -> &[u32] {
        &self.point
    }

    /// The squared distance of the points at two places.
    pub fn distance(&self, i: u32, j: u32) -> f64 {
        self.distance_within(f64::INFINITY, i, j, 0.0)
    }

    /// That, and a `gap` more, where they come to no more than a limit; else some number beyond it: sums only grow.
    pub fn distance_within(&self, limit: f64, i: u32, j: u32, gap: f64) -> f64 {
        let (own, other) =
            (&self.x[i as usize * self.d..][..self.d], &self.x[j as usize * self.d..][..self.d]);
        let mut sum = 0.0;
        for (own, other) in own.chunks(4).zip(other.chunks(4)) {
            own.iter().zip(other).for_each(|(a, b)| sum += (a - b) * (a - b));
            if sum + gap > limit {
                break;
            }
        }
        sum + gap
    }

    /// Bytes of a tree over `points` points of `d` coordinates, its making included.
    pub fn bytes(points: usize, d: usize) -> usize {
        let nodes = 2 * points.div_ceil(LEAF / 2);
        points
            .saturating_mul(4 * d * size_of::<f64>() + size_of::<u32>())
            .saturating_add(nodes.saturating_mul(size_of::<Node>() + 2 * d * size_of::<f64>()))
    }

    fn grow(&mut self, x: &[f64], range: Range<usize>) {
        let (node, d) = (self.nodes.len(), self.d);
        self.nodes.push(Node { range: range.start as u32..range.end as u32, right: 0, leaf: 0 });
        let first = self.boxes.len();
        self.boxes.extend([f64::INFINITY, f64::NEG_INFINITY].repeat(d));
        let limits = &mut self.boxes[first..];
        for &point in &self.point[range.clone()] {
            for (limits, &x) in limits.chunks_exact_mut(2).zip(&x[point as usize * d..][..d]) {
                limits[0] = limits[0].min(x);
                limits[1] = limits[1].max(x);
            }
        }
        if range.len() <= LEAF {
            if d == 1 {
                // places are in the order of the points
                self.point[range].sort_unstable_by_key(|&point| (sort_key(x[point as usize]), point));
            }
            return;
        }
        let extent = |limits: &[f64]| limits[1] - limits[0];
        let (mut widest, mut most) = (0, -1.0);
        for (k, limits) in limits.chunks_exact(2).enumerate() {
            if extent(limits) > most {
                (widest, most) = (k, extent(limits));
            }
        }
        let half = range.len() / 2;
        let key = |&point: &u32| (sort_key(x[point as usize * d + widest]), point);
        self.point[range.clone()].select_nth_unstable_by_key(half, key);
        self.grow(x, range.start..range.start + half);
        self.nodes[node].right = self.nodes.len() as u32;
        self.grow(x, range.start + half..range.end);
    }

    /// Calls `visit(place, distance)` for the places other than `own` that lie within the radius of it; the answer is the
    /// radius from then on, which must not grow. Near places come early, in no certain order.
    #[inline]
    pub fn walk(&self, own: usize, radius: f64, visit: impl FnMut(usize, f64) -> f64) {
        match self.d {
            1 => self.walk_in::<1>(own, radius, visit),
            2 => self.walk_in::<2>(own, radius, visit),
            3 => self.walk_in::<3>(own, radius, visit),
            4 => self.walk_in::<4>(own, radius, visit),
            _ => self.walk_in::<0>(own, radius, visit),
        }
    }

    /// [`Tree::walk`] in `D` dimensions, or any number where `D` is 0.
    #[inline]
    fn walk_in<const D: usize>(&self, own: usize, radius: f64, mut visit: impl FnMut(usize, f64) -> f64) {
        let d = if D == 0 { self.d } else { D };
        let q = &self.x[own * d..][..d];
        let bound = |node: usize| {
            let limits = &self.boxes[node * d * 2..][..d * 2];
            let mut sum = 0.0;
            for k in 0..d {
                let gap = (limits[2 * k] - q[k]).max(q[k] - limits[2 * k + 1]).max(0.0);
                sum += gap * gap;
            }
            sum
        };
        let mut radius = radius;
        let mut open = [(0.0, 0); DEPTH];
        let mut held = 1;
        while held > 0 {
            held -= 1;
            let (least, at) = open[held];
            if least > radius {
                continue;
            }
            let node = &self.nodes[at];
            if node.right != 0 {
                let children = [(bound(at + 1), at + 1), (bound(node.right as usize), node.right as usize)];
                let far = usize::from(children[0].0 <= children[1].0);
                open[held] = children[far];
                open[held + 1] = children[1 - far]; // the nearer one is looked at first
                held += 2;
                continue;
            }
            let mut distances = [0.0; LEAF];
            measure(&mut distances, &self.leaves[node.leaf as usize * d..][..d], q);
            for (place, distance) in (node.range.start as usize..node.range.end as usize).zip(distances) {
                if distance <= radius && place != own {
                    radius = visit(place, distance);
                }
            }
        }
    }

    /// The `count` places nearest to `own` (as many as there are) with their distances, ascending; of those at the greatest
    /// distance any.
    pub fn nearest(&self, found: &mut Vec<(f64, u32)>, own: usize, count: usize) {
        found.clear();
        if self.d == 1 {
            return self.beside(found, own, count);
        }
        let order = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0);
        let mut radius = f64::INFINITY;
        self.walk(own, radius, |place, distance| {
            found.push((distance, place as u32));
            if found.len() == 2 * count {
                radius = found.select_nth_unstable_by(count - 1, order).1.0;
                found.truncate(count);
            }
            radius
        });
        if found.len() > count {
            found.select_nth_unstable_by(count - 1, order);
            found.truncate(count);
        }
        found.sort_unstable_by(order);
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

/// The squared distances from `q` `[d]` to the points of a leaf `[d]`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn measure(distances: &mut [f64; LEAF], leaf: &[[f64; LEAF]], q: &[f64]) {
    for (x, q) in leaf.iter().zip(q) {
        for at in 0..LEAF {
            distances[at] += (q - x[at]) * (q - x[at]);
        }
    }
}
