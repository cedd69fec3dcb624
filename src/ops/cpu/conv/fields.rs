//! Fields: a set of output pixels, and what they read of x under some columns of the weights, as a matrix with a row per
//! pixel. There are three ways to find fields; all keep to one group.
//!
//! * A 1×1 convolution of stride 1 reads x as it stands: one field.
//! * On few positions (the late layers of a network on small images), the pixels of a field are one position of every
//!   image: what a row of taps reads there stands in x at equal distances, so nothing is gathered, and taps in the
//!   padding cost nothing (on 2×2 positions, 5 of the 9 taps of a 3×3 filter).
//! * Else pixels are taken in tiles whose whole fields are gathered to a few cache lines' worth of rows (NHWC: each row
//!   of taps is one run), which a core's cache holds while the product reads them; the gathered image never exists.

use std::ops::Range;

use super::super::gemm::Matrix;
use crate::ops::{Conv, Geometry};

/// Floats of a gathered tile (128 KiB), and its least pixels: products of fewer rows spend their time on the weights.
const TILE_FLOATS: usize = 1 << 15;
const TILE_PIXELS: usize = 128;

/// The most positions that are taken one by one, and the least images that make it worth while.
const FEW_POSITIONS: usize = 16;
pub(super) const MANY_IMAGES: usize = 16;

/// The first `len` values of `values`, whatever they are.
pub(super) fn sized(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if values.len() < len {
        values.resize(len, 0.0);
    }
    &mut values[..len]
}

/// Output pixels that are worked on together: `count` of them, `stride` apart, from `first`.
#[derive(Clone, Copy)]
pub(super) struct Pixels {
    pub first: usize,
    pub count: usize,
    pub stride: usize,
}

/// How fields are found; see the file's opening.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    AsItStands,
    ByPosition,
    Gathered,
}

/// One group of a convolution: which weight rows and which output channels are its own.
pub(super) struct Group<'a> {
    pub group: usize,
    /// Its rows within the weights (or gradients) that are given.
    pub weights: Range<usize>,
    /// Its output channels.
    pub channels: Range<usize>,
    /// The output channels of those rows, where they are not all.
    pub rows: Option<&'a [u32]>,
}

impl Geometry {
    pub(super) fn way(&self, n: usize) -> Way {
        let positions = self.output.positions();
        match self.conv {
            conv if conv == Conv::square(1, 1, 0) => Way::AsItStands,
            Conv { groups: 1, .. } if positions <= FEW_POSITIONS && n >= MANY_IMAGES => Way::ByPosition,
            _ => Way::Gathered,
        }
    }

    /// The output pixels of `n` images, in the sets that are worked on together.
    pub(super) fn sets(&self, n: usize, way: Way) -> impl Iterator<Item = Pixels> + use<> {
        let positions = self.output.positions();
        let pixels = n * positions;
        let (sets, size) = match way {
            Way::AsItStands => (pixels.min(1), pixels),
            Way::ByPosition => (positions, n),
            Way::Gathered => {
                let tile = (TILE_FLOATS / self.fan_in()).clamp(TILE_PIXELS, 1024);
                (pixels.div_ceil(tile), tile)
            }
        };
        (0..sets).map(move |set| match way {
            Way::ByPosition => Pixels { first: set, count: n, stride: positions },
            _ => Pixels { first: set * size, count: size.min(pixels - set * size), stride: 1 },
        })
    }

    /// For each group: its number, its rows among `rows` (or among all), and its output channels. Groups without rows
    /// are left out.
    pub(super) fn groups<'a>(&self, rows: Option<&'a [u32]>) -> impl Iterator<Item = Group<'a>> + use<'a> {
        let (groups, each) = (self.conv.groups, self.output.c / self.conv.groups);
        let group = move |group: usize| {
            let channels = group * each..(group + 1) * each;
            let Some(rows) = rows else {
                return Group { group, weights: channels.clone(), channels, rows: None };
            };
            let at = |channel: usize| rows.partition_point(|&row| (row as usize) < channel);
            let weights = at(channels.start)..at(channels.end);
            Group { group, rows: Some(&rows[weights.clone()]), weights, channels }
        };
        (0..groups).map(group).filter(|group| !group.weights.is_empty())
    }

    /// The runs of input that one group's taps of one output pixel read: the columns of the weights, and the offset in
    /// `x`. What no run covers is padding.
    pub(super) fn runs(&self, pixel: usize, group: usize, mut run: impl FnMut(Range<usize>, usize)) {
        let Geometry { input, output, conv } = *self;
        let (image, at) = (pixel / output.positions(), pixel % output.positions());
        let (oy, ox) = (at / output.w, at % output.w);
        let inner = self.channels();
        let (r, s) = conv.kernel;
        // Input coordinate of a tap, if it lies in the image.
        let along = |o: usize, tap: usize, pad: usize, size: usize| {
            (o * conv.stride + tap * conv.dilation).checked_sub(pad).filter(|&i| i < size)
        };
        for tap_y in 0..r {
            let Some(y) = along(oy, tap_y, conv.padding.0, input.h) else { continue };
            let base = (image * input.h + y) * input.w;
            if conv.dilation == 1 && conv.groups == 1 {
                // The taps of a row are neighbours in x: one run.
                let left = ox * conv.stride;
                let first = conv.padding.1.saturating_sub(left);
                let end = s.min((input.w + conv.padding.1).saturating_sub(left));
                if first < end {
                    let x = left + first - conv.padding.1;
                    run((tap_y * s + first) * inner..(tap_y * s + end) * inner, (base + x) * inner);
                }
                continue;
            }
            for tap_x in 0..s {
                if let Some(x) = along(ox, tap_x, conv.padding.1, input.w) {
                    let column = (tap_y * s + tap_x) * inner;
                    run(column..column + inner, (base + x) * input.c + group * inner);
                }
            }
        }
    }

    /// Whether some tap of an output pixel lies in the padding.
    fn meets_padding(&self, pixel: usize) -> bool {
        let Geometry { input, output, conv } = *self;
        let at = pixel % output.positions();
        let meets = |o: usize, kernel: usize, pad: usize, size: usize| {
            let first = o * conv.stride;
            first < pad || first + (kernel - 1) * conv.dilation >= size + pad
        };
        meets(at / output.w, conv.kernel.0, conv.padding.0, input.h)
            || meets(at % output.w, conv.kernel.1, conv.padding.1, input.w)
    }

    /// The fields of one set of pixels under one group that stand in `x`: `each(columns, offset in x)`; their rows are
    /// [`Geometry::distance`] apart.
    pub(super) fn standing(
        &self,
        pixels: Pixels,
        group: usize,
        way: Way,
        mut each: impl FnMut(Range<usize>, usize),
    ) {
        match way {
            Way::AsItStands => each(0..self.fan_in(), pixels.first * self.fan_in()),
            _ => self.runs(pixels.first, group, each),
        }
    }

    /// Between the rows of a standing field, in floats of x.
    pub(super) fn distance(&self, way: Way) -> usize {
        match way {
            Way::AsItStands => self.fan_in(),
            _ => self.input.len(),
        }
    }

    /// The fields of one set of pixels under one group: `each(columns, matrix)`; `gathered` holds them if gathered.
    pub(super) fn fields(
        &self,
        gathered: &mut Vec<f32>,
        x: &[f32],
        pixels: Pixels,
        group: usize,
        way: Way,
        mut each: impl FnMut(Range<usize>, Matrix),
    ) {
        let fan_in = self.fan_in();
        if way != Way::Gathered {
            let distance = self.distance(way);
            return self.standing(pixels, group, way, |columns, from| {
                each(columns.clone(), Matrix::rows(&x[from..], pixels.count, columns.len(), distance))
            });
        }
        let gathered = sized(gathered, pixels.count * fan_in);
        for (field, pixel) in gathered.chunks_exact_mut(fan_in).zip(pixels.first..) {
            if self.meets_padding(pixel) {
                field.fill(0.0);
            }
            self.runs(pixel, group, |columns, from| {
                let len = columns.len();
                field[columns].copy_from_slice(&x[from..from + len])
            });
        }
        each(0..fan_in, Matrix::rows(gathered, pixels.count, fan_in, fan_in));
    }
}
