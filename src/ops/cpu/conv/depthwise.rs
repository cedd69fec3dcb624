//! Convolutions whose groups have one input channel each (depthwise), and one output channel or several.
//!
//! A group is too narrow for a matrix product. Instead sixteen output channels are worked on at a time, a *block*, one to a
//! lane. What a block reads is packed row by row to `[columns, 16]`, with zeros for the padding to the left and right, so that
//! a tap is a distance within a packed row and never asks for a border. The last few packed rows are kept, as many as the
//! filter spans. The sums of a strip of columns stay in registers over all taps.
//!
//! The output and the data gradient are the same walk: taps slide over the rows of a source, the input or dy. With stride 2 a
//! tap of the data gradient meets every other column of its target, so the target's columns are taken in two phases.
//!
//! Sums over taps are in f64, where products of f32 are exact; sums over positions, of a weight gradient, are in f32, row by
//! row. Their order depends on the geometry and `n` alone.

use std::ops::Range;

use multiversion::multiversion;

use crate::ops::{Geometry, Shape};

/// Channels of a block.
const LANES: usize = 16;
/// Columns whose sums are in registers at a time.
const STRIP: usize = 2;
/// Taps whose gradients are in registers at a time.
const TAPS: usize = 5;

/// One value of each channel of a block.
type Lanes = [f32; LANES];

const ZERO: Lanes = [0.0; LANES];

/// y `[n, oh, ow, o]` = or += W x + b, as [`super::apply`].
pub(super) fn apply(
    y: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    rows: Option<&[u32]>,
    n: usize,
    g: &Geometry,
    accumulate: bool,
) {
    let walk = Walk::forward(g);
    let mut blocks: Vec<Block> = Block::all(g, rows, &walk).collect();
    for block in &mut blocks {
        block.read(weight);
        block.start = block.lanes(|row| bias.map_or(0.0, |bias| bias[row]));
    }
    for (y, x) in y.chunks_exact_mut(g.output.len()).zip(x.chunks_exact(g.input.len())).take(n) {
        walk.slide(y, x, &mut blocks, accumulate);
    }
}

/// dx `[n, h, w, c]` += Wᵀ dy, as [`super::data_gradient`].
pub(super) fn data_gradient(
    dx: &mut [f32],
    dy: &[f32],
    weight: &[f32],
    rows: Option<&[u32]>,
    n: usize,
    g: &Geometry,
) {
    let walk = Walk::backward(g);
    let mut blocks: Vec<Block> = Block::all(g, rows, &walk).map(Block::reversed).collect();
    blocks.iter_mut().for_each(|block| block.read(weight));
    for (dx, dy) in dx.chunks_exact_mut(g.input.len()).zip(dy.chunks_exact(g.output.len())).take(n) {
        walk.slide(dx, dy, &mut blocks, true);
    }
}

/// dw `[o, fan_in]` += δᵀ x, as [`super::weight_gradient`].
pub(super) fn weight_gradient(
    dw: &mut [f32],
    dy: &[f32],
    x: &[f32],
    rows: Option<&[u32]>,
    n: usize,
    g: &Geometry,
) {
    let walk = Walk::forward(g);
    let mut blocks: Vec<Block> = Block::all(g, rows, &walk).collect();
    for (dy, x) in dy.chunks_exact(g.output.len()).zip(x.chunks_exact(g.input.len())).take(n) {
        walk.correlate(dy, x, &mut blocks);
    }
    for block in &blocks {
        for (lane, row) in block.rows.clone().enumerate() {
            let dw = &mut dw[row * block.weights.len()..][..block.weights.len()];
            dw.iter_mut().zip(&block.weights).for_each(|(dw, sums)| *dw += sums[lane]);
        }
    }
}

/// At most [`LANES`] output channels.
struct Block {
    /// Their rows within the weights at hand.
    rows: Range<usize>,
    source: Channels,
    target: Channels,
    /// By tap; of a weight gradient, its sums.
    weights: Vec<Lanes>,
    /// What every sum begins with.
    start: Lanes,
    /// Rows of the source, `[slots, width]`: row r is in slot r modulo their number.
    packed: Vec<Lanes>,
}

impl Block {
    /// All output channels, or those of `rows`; the source is the input.
    fn all<'a>(g: &Geometry, rows: Option<&'a [u32]>, walk: &Walk) -> impl Iterator<Item = Block> + use<'a> {
        let (count, each) = (rows.map_or(g.output.c, <[u32]>::len), g.output.c / g.input.c);
        let (taps, packed) = (g.fan_in(), walk.slots * walk.width);
        (0..count).step_by(LANES).map(move |first| {
            let of_block = first..(first + LANES).min(count);
            let channels = of_block.clone().map(|i| rows.map_or(i, |rows| rows[i] as usize));
            Block {
                source: Channels::new(channels.clone().map(|channel| channel / each)),
                target: Channels::new(channels),
                rows: of_block,
                weights: vec![ZERO; taps],
                start: ZERO,
                packed: vec![ZERO; packed],
            }
        })
    }

    /// With source and target exchanged.
    fn reversed(self) -> Block {
        Block { source: self.target, target: self.source, ..self }
    }

    /// One value for each lane, by its row.
    fn lanes(&self, of_row: impl Fn(usize) -> f32) -> Lanes {
        let mut lanes = ZERO;
        lanes.iter_mut().zip(self.rows.clone()).for_each(|(lane, row)| *lane = of_row(row));
        lanes
    }

    /// Reads the weights at hand, `[.., fan_in]`.
    fn read(&mut self, weight: &[f32]) {
        let taps = self.weights.len();
        self.weights = (0..taps).map(|tap| self.lanes(|row| weight[row * taps + tap])).collect();
    }
}

/// The channels of a block's lanes in an image.
enum Channels {
    /// [`LANES`] neighbours, from this one.
    Neighbours(usize),
    Any(Vec<usize>),
}

impl Channels {
    fn new(channels: impl Iterator<Item = usize>) -> Channels {
        let channels: Vec<usize> = channels.collect();
        match channels.len() == LANES && channels.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
            true => Channels::Neighbours(channels[0]),
            false => Channels::Any(channels),
        }
    }

    /// Their values at the positions of one row of an image with `c` channels.
    fn read(&self, to: &mut [Lanes], row: &[f32], c: usize) {
        let at = to.iter_mut().zip(row.chunks_exact(c));
        match self {
            Channels::Neighbours(first) => {
                at.for_each(|(to, at)| to.copy_from_slice(&at[*first..first + LANES]))
            }
            Channels::Any(channels) => {
                at.for_each(|(to, at)| to.iter_mut().zip(channels).for_each(|(to, &c)| *to = at[c]))
            }
        }
    }

    /// = or += their values there. Where lanes have the same channel, all are added.
    fn write(&self, row: &mut [f32], c: usize, from: &[Lanes], accumulate: bool) {
        let at = row.chunks_exact_mut(c).zip(from);
        match (self, accumulate) {
            (Channels::Neighbours(first), true) => at.for_each(|(at, from)| {
                at[*first..first + LANES].iter_mut().zip(from).for_each(|(at, from)| *at += from)
            }),
            (Channels::Neighbours(first), false) => {
                at.for_each(|(at, from)| at[*first..first + LANES].copy_from_slice(from))
            }
            (Channels::Any(channels), true) => {
                at.for_each(|(at, from)| channels.iter().zip(from).for_each(|(&c, from)| at[c] += from))
            }
            (Channels::Any(channels), false) => {
                at.for_each(|(at, from)| channels.iter().zip(from).for_each(|(&c, from)| at[c] = *from))
            }
        }
    }
}

/// Columns of the target that meet the same taps: from one, every so many.
struct Phase {
    first: usize,
    count: usize,
    /// Columns of the filter, and the packed column that each reads for the first column of the target.
    taps: Vec<(usize, usize)>,
}

/// A filter sliding over a source.
struct Walk {
    source: Shape,
    target: Shape,
    /// Columns of the filter.
    across: usize,
    /// For each row of the target, rows of the filter and the row of the source that each reads.
    rows: Vec<Vec<(usize, usize)>>,
    phases: Vec<Phase>,
    /// Packed columns from one column of a phase to the next.
    step: usize,
    /// Packed columns before the source's first.
    left: usize,
    /// Columns of a packed row.
    width: usize,
    /// Packed rows that are kept.
    slots: usize,
}

impl Walk {
    /// Over the input, for the output.
    fn forward(g: &Geometry) -> Walk {
        let conv = g.conv;
        let along = |to: usize, tap: usize, pad: usize| {
            Some((to * conv.stride + tap * conv.dilation) as isize - pad as isize)
        };
        Walk::new(g, g.input, g.output, 1, conv.stride, along)
    }

    /// Over the output, for the input.
    fn backward(g: &Geometry) -> Walk {
        let (stride, dilation) = (g.conv.stride as isize, g.conv.dilation);
        let along = |to: usize, tap: usize, pad: usize| {
            let strides = (to + pad) as isize - (tap * dilation) as isize;
            (strides.rem_euclid(stride) == 0).then(|| strides.div_euclid(stride))
        };
        Walk::new(g, g.output, g.input, g.conv.stride, 1, along)
    }

    /// `along(to, tap, padding)` is the coordinate in the source that a tap reads for one of the target.
    fn new(
        g: &Geometry,
        source: Shape,
        target: Shape,
        phases: usize,
        step: usize,
        along: impl Fn(usize, usize, usize) -> Option<isize>,
    ) -> Walk {
        let ((down, across), (above, beside)) = (g.conv.kernel, g.conv.padding);
        let along = &along;
        let row = |to: usize| {
            let read = |tap| {
                along(to, tap, above).and_then(|at| usize::try_from(at).ok()).filter(|&at| at < source.h)
            };
            (0..down).filter_map(|tap| Some((tap, read(tap)?))).collect::<Vec<_>>()
        };
        let rows: Vec<_> = (0..target.h).map(row).collect();
        let (mut slots, mut last) = (0, 0);
        for rows in &rows {
            let all = || rows.iter().map(|(_, row)| *row);
            last = last.max(all().max().unwrap_or(0));
            slots = slots.max(all().min().map_or(0, |first| last - first + 1));
        }
        let taps = |first: usize| (0..across).filter_map(move |tap| Some((tap, along(first, tap, beside)?)));
        let columns = || (0..phases).flat_map(taps).map(|(_, column)| column).chain([0]);
        let (least, most) = (columns().min().unwrap_or(0), columns().max().unwrap_or(0));
        let phase = |first: usize| Phase {
            first,
            count: target.w.saturating_sub(first).div_ceil(phases),
            taps: taps(first).map(|(tap, column)| (tap, (column - least) as usize)).collect(),
        };
        let longest = target.w.div_ceil(phases).next_multiple_of(STRIP);
        Walk {
            source,
            target,
            across,
            rows,
            phases: (0..phases).map(phase).collect(),
            step,
            left: least.unsigned_abs(),
            width: (most - least) as usize + (longest - 1) * step + 1,
            slots,
        }
    }

    /// The rows of the source that a row of the target is the first to read.
    fn fresh(&self, next: &mut usize, row: usize) -> Range<usize> {
        let end = self.rows[row].iter().map(|(_, row)| row + 1).max().unwrap_or(0).max(*next);
        let fresh = (*next).max(end.saturating_sub(self.slots))..end;
        *next = end;
        fresh
    }

    /// Packs rows of the source.
    fn pack(&self, block: &mut Block, source: &[f32], rows: Range<usize>) {
        let Shape { w, c, .. } = self.source;
        for row in rows {
            let packed = &mut block.packed[row % self.slots * self.width..][..self.width];
            block.source.read(&mut packed[self.left..], &source[row * w * c..][..w * c], c);
        }
    }

    /// The taps of a row of the target in a phase: its number in the filter, and where it reads for the first column.
    fn taps(&self, taps: &mut Vec<(usize, usize)>, row: usize, phase: &Phase) {
        taps.clear();
        for &(down, from) in &self.rows[row] {
            let (tap, start) = (down * self.across, from % self.slots * self.width);
            taps.extend(phase.taps.iter().map(|&(across, column)| (tap + across, start + column)));
        }
    }

    /// Every value of the target = or += start + Σ over taps of weight · source.
    fn slide(&self, target: &mut [f32], source: &[f32], blocks: &mut [Block], accumulate: bool) {
        let Shape { w, c, .. } = self.target;
        let count = self.phases.len();
        let mut taps = vec![vec![]; count];
        let mut sums = vec![ZERO; w.div_ceil(count).next_multiple_of(STRIP) * count];
        let mut next = 0;
        for (row, target) in target.chunks_exact_mut(w * c).enumerate() {
            let fresh = self.fresh(&mut next, row);
            self.phases.iter().zip(&mut taps).for_each(|(phase, taps)| self.taps(taps, row, phase));
            for block in &mut *blocks {
                self.pack(block, source, fresh.clone());
                for (phase, taps) in self.phases.iter().zip(&taps) {
                    let columns = (phase.first, phase.count.div_ceil(STRIP), count);
                    strips(&mut sums, &block.packed, &block.weights, &block.start, taps, columns, self.step);
                }
                block.target.write(target, c, &sums, accumulate);
            }
        }
    }

    /// The sum at every tap += Σ over positions of target · source.
    fn correlate(&self, target: &[f32], source: &[f32], blocks: &mut [Block]) {
        let Shape { w, c, .. } = self.target;
        let (mut values, mut taps, mut next) = (vec![ZERO; w], vec![], 0);
        for (row, target) in target.chunks_exact(w * c).enumerate() {
            let fresh = self.fresh(&mut next, row);
            self.taps(&mut taps, row, &self.phases[0]);
            for block in &mut *blocks {
                self.pack(block, source, fresh.clone());
                block.target.read(&mut values, target, c);
                products(&mut block.weights, &values, &block.packed, &taps, self.step);
            }
        }
    }
}

/// sums at the columns of a phase = start + Σ over taps of weight · packed, added up in f64. The phase is its first column,
/// its strips, and the number of phases.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn strips(
    sums: &mut [Lanes],
    packed: &[Lanes],
    weights: &[Lanes],
    start: &Lanes,
    taps: &[(usize, usize)],
    (first, strips, phases): (usize, usize, usize),
    step: usize,
) {
    for strip in 0..strips {
        let mut some = [start.map(f64::from); STRIP];
        for &(tap, at) in taps {
            let (weight, at) = (&weights[tap], at + strip * STRIP * step);
            for i in 0..STRIP {
                let x = &packed[at + i * step];
                for lane in 0..LANES {
                    some[i][lane] += f64::from(weight[lane]) * f64::from(x[lane]);
                }
            }
        }
        for i in 0..STRIP {
            sums[(strip * STRIP + i) * phases + first] = some[i].map(|sum| sum as f32);
        }
    }
}

/// The sum at each tap += Σ over columns of values · packed.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+avx2+fma", "x86_64+avx2+fma"))]
fn products(sums: &mut [Lanes], values: &[Lanes], packed: &[Lanes], taps: &[(usize, usize)], step: usize) {
    for taps in taps.chunks(TAPS) {
        let mut some = [ZERO; TAPS];
        let from: [usize; TAPS] = std::array::from_fn(|i| taps[i.min(taps.len() - 1)].1);
        for (column, value) in values.iter().enumerate() {
            for i in 0..TAPS {
                let x = &packed[from[i] + column * step];
                for lane in 0..LANES {
                    some[i][lane] += value[lane] * x[lane];
                }
            }
        }
        for (&(tap, _), some) in taps.iter().zip(&some) {
            sums[tap].iter_mut().zip(some).for_each(|(sum, some)| *sum += some);
        }
    }
}
