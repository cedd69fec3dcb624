//! The three bilinear primitives of every affine layer: y = Wx (apply), δx = Wᵀδ (data gradient), dW = δᵀx (weight
//! gradient). A linear layer is a 1×1 convolution over its positions.
//!
//! Output pixels are taken in tiles: the receptive fields of one tile are gathered into `[pixels, r·s·c]` (NHWC, so
//! each row of taps is one run), which stays in a core's cache while a matrix product reads it; the whole gathered
//! image never exists. A 1×1 convolution of stride 1 needs no gathering and is one product. With `rows`, weights and
//! gradients are those of some output channels only, and the cost is theirs.

use std::cell::RefCell;
use std::ops::Range;

use super::gemm::{Matrix, gemm};
use super::{Conv, Shape};

/// The geometry of an affine layer's use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// `[h, w, c]`.
    pub input: Shape,
    /// `[oh, ow, o]`.
    pub output: Shape,
    /// Filter, stride, padding, dilation, groups.
    pub conv: Conv,
}

/// Floats of a gathered tile (128 KiB).
const TILE_FLOATS: usize = 1 << 15;

thread_local! {
    /// The gathered tile, and the selected channels of its outputs.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([vec![], vec![]]) };
}

impl Geometry {
    /// A convolution.
    pub fn conv(input: Shape, output: Shape, conv: Conv) -> Geometry {
        Geometry { input, output, conv }
    }

    /// A linear layer at every position.
    pub fn linear(input: Shape, output: Shape) -> Geometry {
        Geometry { input, output, conv: Conv::square(1, 1, 0) }
    }

    /// The length of a weight row.
    pub fn fan_in(&self) -> usize {
        self.conv.kernel.0 * self.conv.kernel.1 * self.channels()
    }

    /// Input channels of one group.
    fn channels(&self) -> usize {
        self.input.c / self.conv.groups
    }

    /// Whether the receptive field of a pixel is the pixel.
    fn is_pointwise(&self) -> bool {
        self.conv == Conv::square(1, 1, 0)
    }

    /// The output pixels of `n` images in tiles.
    fn tiles(&self, n: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let pixels = n * self.output.positions();
        let tile = match self.is_pointwise() {
            true => pixels.max(1),
            false => (TILE_FLOATS / self.fan_in()).clamp(32, 1024),
        };
        (0..pixels).step_by(tile).map(move |start| start..(start + tile).min(pixels))
    }

    /// For each group: its number, its rows among `rows` (or among all), and its first output channel.
    fn groups<'a>(&self, rows: Option<&'a [u32]>) -> impl Iterator<Item = Group<'a>> + use<'a> {
        let (groups, each) = (self.conv.groups, self.output.c / self.conv.groups);
        (0..groups).map(move |group| {
            let channels = group * each..(group + 1) * each;
            let Some(rows) = rows else {
                return Group { group, weights: channels.clone(), channels, rows: None };
            };
            let at = |channel: usize| rows.partition_point(|&row| (row as usize) < channel);
            let weights = at(channels.start)..at(channels.end);
            Group { group, rows: Some(&rows[weights.clone()]), weights, channels }
        })
    }

    /// The runs of input that one group's taps of one output pixel read: offset in the gathered row, offset in `x`,
    /// length. What no run covers is padding.
    fn runs(&self, pixel: usize, group: usize, mut run: impl FnMut(usize, usize, usize)) {
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
                    run((tap_y * s + first) * inner, (base + x) * inner, (end - first) * inner);
                }
                continue;
            }
            for tap_x in 0..s {
                if let Some(x) = along(ox, tap_x, conv.padding.1, input.w) {
                    run((tap_y * s + tap_x) * inner, (base + x) * input.c + group * inner, inner);
                }
            }
        }
    }

    /// The receptive fields of one group's `tile`, `[pixels, fan_in]`: gathered to `room`, or where they stand in `x`.
    fn fields<'a>(
        &self,
        room: &'a mut Vec<f32>,
        x: &'a [f32],
        tile: Range<usize>,
        group: usize,
    ) -> Matrix<'a> {
        let (fan_in, pixels) = (self.fan_in(), tile.len());
        if self.is_pointwise() {
            return Matrix::rows(&x[tile.start * fan_in..tile.end * fan_in], pixels, fan_in, fan_in);
        }
        room.clear();
        room.resize(pixels * fan_in, 0.0);
        for (field, pixel) in room.chunks_exact_mut(fan_in).zip(tile) {
            self.runs(pixel, group, |to, from, len| {
                field[to..to + len].copy_from_slice(&x[from..from + len])
            });
        }
        Matrix::rows(room, pixels, fan_in, fan_in)
    }
}

/// One group of a convolution: which weight rows and which output channels are its own.
struct Group<'a> {
    group: usize,
    /// Its rows within the weights (or gradients) at hand.
    weights: Range<usize>,
    /// Its output channels.
    channels: Range<usize>,
    /// The output channels of those rows, where they are not all.
    rows: Option<&'a [u32]>,
}

/// y `[n, oh, ow, o]` = or += W x + b. With `rows`, `weight` is `[k, fan_in]`, `bias` `[k]`, and only these output
/// channels are touched.
pub fn apply(
    y: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    rows: Option<&[u32]>,
    n: usize,
    g: &Geometry,
    accumulate: bool,
) {
    let (o, fan_in) = (g.output.c, g.fan_in());
    if let (Some(bias), None) = (bias, rows) {
        match accumulate {
            true => y.chunks_exact_mut(o).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b)),
            false => y.chunks_exact_mut(o).for_each(|y| y.copy_from_slice(bias)),
        }
    }
    let accumulate = accumulate || (bias.is_some() && rows.is_none());
    SCRATCH.with_borrow_mut(|[fields, some]| {
        for tile in g.tiles(n) {
            for Group { group, weights, channels, rows } in g.groups(rows) {
                if weights.is_empty() {
                    continue;
                }
                let fields = g.fields(fields, x, tile.clone(), group);
                let k = weights.len();
                let w =
                    Matrix::rows(&weight[weights.start * fan_in..weights.end * fan_in], k, fan_in, fan_in)
                        .t();
                let out = &mut y[tile.start * o..tile.end * o];
                let Some(rows) = rows else {
                    gemm(&mut out[channels.start..], o, fields, w, 1.0, accumulate);
                    continue;
                };
                some.clear();
                some.resize(tile.len() * k, 0.0);
                gemm(some, k, fields, w, 1.0, false);
                let bias = bias.map(|bias| &bias[weights]);
                for (y, z) in out.chunks_exact_mut(o).zip(some.chunks_exact(k)) {
                    for (i, &row) in rows.iter().enumerate() {
                        let z = z[i] + bias.map_or(0.0, |bias| bias[i]);
                        let y = &mut y[row as usize];
                        *y = if accumulate { *y + z } else { z };
                    }
                }
            }
        }
    });
}

/// dx `[n, h, w, c]` = or += Wᵀ dy. With `rows`, `weight` is `[k, fan_in]` and only these channels of dy count.
pub fn data_gradient(
    dx: &mut [f32],
    dy: &[f32],
    weight: &[f32],
    rows: Option<&[u32]>,
    n: usize,
    g: &Geometry,
    accumulate: bool,
) {
    let (o, fan_in) = (g.output.c, g.fan_in());
    if !accumulate {
        dx.fill(0.0);
    }
    SCRATCH.with_borrow_mut(|[fields, some]| {
        for tile in g.tiles(n) {
            for Group { group, weights, channels, rows } in g.groups(rows) {
                if weights.is_empty() {
                    continue;
                }
                let d = selected(some, &dy[tile.start * o..tile.end * o], o, &channels, rows);
                let w = &weight[weights.start * fan_in..weights.end * fan_in];
                let w = Matrix::rows(w, weights.len(), fan_in, fan_in);
                if g.is_pointwise() {
                    gemm(&mut dx[tile.start * fan_in..tile.end * fan_in], fan_in, d, w, 1.0, true);
                    continue;
                }
                fields.clear();
                fields.resize(tile.len() * fan_in, 0.0);
                gemm(fields, fan_in, d, w, 1.0, false);
                for (field, pixel) in fields.chunks_exact(fan_in).zip(tile.clone()) {
                    g.runs(pixel, group, |from, to, len| {
                        let dx = &mut dx[to..to + len];
                        dx.iter_mut().zip(&field[from..from + len]).for_each(|(dx, f)| *dx += f);
                    });
                }
            }
        }
    });
}

/// dw `[o, fan_in]` += δᵀ x, and db `[o]` += Σ δ over images and positions. With `rows`, both hold these rows only.
pub fn weight_gradient(
    dw: &mut [f32],
    db: Option<&mut [f32]>,
    dy: &[f32],
    x: &[f32],
    rows: Option<&[u32]>,
    n: usize,
    g: &Geometry,
) {
    let (o, fan_in) = (g.output.c, g.fan_in());
    if let Some(db) = db {
        for dy in dy.chunks_exact(o) {
            match rows {
                Some(rows) => db.iter_mut().zip(rows).for_each(|(db, &row)| *db += dy[row as usize]),
                None => db.iter_mut().zip(dy).for_each(|(db, dy)| *db += dy),
            }
        }
    }
    SCRATCH.with_borrow_mut(|[fields, some]| {
        for tile in g.tiles(n) {
            for Group { group, weights, channels, rows } in g.groups(rows) {
                if weights.is_empty() {
                    continue;
                }
                let d = selected(some, &dy[tile.start * o..tile.end * o], o, &channels, rows);
                let fields = g.fields(fields, x, tile.clone(), group);
                let dw = &mut dw[weights.start * fan_in..weights.end * fan_in];
                gemm(dw, fan_in, d.t(), fields, 1.0, true);
            }
        }
    });
}

/// The selected channels of `dy` `[pixels, o]`, gathered to `some` where they are not a whole group.
fn selected<'a>(
    some: &'a mut Vec<f32>,
    dy: &'a [f32],
    o: usize,
    channels: &Range<usize>,
    rows: Option<&[u32]>,
) -> Matrix<'a> {
    let pixels = dy.len() / o;
    let Some(rows) = rows else {
        return Matrix::rows(&dy[channels.start..], pixels, channels.len(), o);
    };
    some.clear();
    some.extend(dy.chunks_exact(o).flat_map(|dy| rows.iter().map(|&row| dy[row as usize])));
    Matrix::rows(some, pixels, rows.len(), rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in f64.
    fn plain(
        x: &[f32],
        w: &[f32],
        n: usize,
        g: &Geometry,
        mut each: impl FnMut(usize, usize, usize, f64, f64),
    ) {
        let Geometry { input, output, conv } = *g;
        let (inner, outer) = (input.c / conv.groups, output.c / conv.groups);
        for at in 0..n * output.len() {
            let (pixel, o) = (at / output.c, at % output.c);
            let (image, p) = (pixel / output.positions(), pixel % output.positions());
            for tap in 0..g.fan_in() {
                let (spot, c) = (tap / inner, tap % inner);
                let (r, s) = (spot / conv.kernel.1, spot % conv.kernel.1);
                let y = (p / output.w * conv.stride + r * conv.dilation) as isize - conv.padding.0 as isize;
                let x_ = (p % output.w * conv.stride + s * conv.dilation) as isize - conv.padding.1 as isize;
                if y < 0 || x_ < 0 || y >= input.h as isize || x_ >= input.w as isize {
                    continue;
                }
                let from = ((image * input.h + y as usize) * input.w + x_ as usize) * input.c
                    + o / outer * inner
                    + c;
                let weight = o * g.fan_in() + tap;
                each(at, from, weight, f64::from(x[from]), f64::from(w[weight]));
            }
        }
    }

    fn values(len: usize, seed: u32) -> Vec<f32> {
        let mut s = seed;
        let mut next = || {
            s = s.wrapping_mul(1664525).wrapping_add(1013904223);
            (s >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    fn close(got: &[f32], want: &[f64]) {
        let norm = want.iter().map(|w| w * w).sum::<f64>().sqrt();
        let error = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum::<f64>().sqrt();
        assert!(error <= 1e-6 * norm.max(1e-3), "{error} of {norm}");
    }

    /// Image, filters and options that cover stride, padding, dilation, groups, uneven sides and several tiles.
    fn geometries() -> Vec<Geometry> {
        let shape = |h, w, c, o, conv: Conv| {
            let (r, s) = conv.kernel;
            let out = |size: usize, pad: usize, k: usize| {
                (size + 2 * pad - conv.dilation * (k - 1) - 1) / conv.stride + 1
            };
            let (oh, ow) = (out(h, conv.padding.0, r), out(w, conv.padding.1, s));
            Geometry::conv(Shape::new(h, w, c), Shape::new(oh, ow, o), conv)
        };
        vec![
            Geometry::linear(Shape::new(1, 1, 7), Shape::new(1, 1, 5)),
            Geometry::linear(Shape::new(1, 3, 4), Shape::new(1, 3, 6)),
            shape(5, 6, 3, 4, Conv::square(3, 1, 1)),
            shape(7, 5, 2, 3, Conv::square(3, 2, 1)),
            shape(8, 8, 3, 2, Conv::square(7, 2, 3)),
            shape(6, 6, 4, 5, Conv::square(1, 2, 0)),
            shape(9, 7, 4, 6, Conv { kernel: (3, 2), stride: 1, padding: (2, 0), dilation: 2, groups: 2 }),
            shape(4, 5, 6, 6, Conv { groups: 6, ..Conv::square(3, 1, 1) }),
            shape(3, 3, 2, 3, Conv::square(3, 1, 3)), // taps wholly in the padding
            shape(40, 30, 3, 2, Conv::square(3, 1, 1)),
        ]
    }

    #[test]
    fn all_three_agree_with_the_definition() {
        for g in geometries() {
            for n in [1, 3] {
                let x = values(n * g.input.len(), 1);
                let w = values(g.output.c * g.fan_in(), 2);
                let dy = values(n * g.output.len(), 3);
                let (mut y, mut dx, mut dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
                plain(&x, &w, n, &g, |at, from, weight, xv, wv| {
                    y[at] += xv * wv;
                    dx[from] += f64::from(dy[at]) * wv;
                    dw[weight] += f64::from(dy[at]) * xv;
                });
                let mut out = vec![f32::NAN; y.len()];
                apply(&mut out, &x, &w, None, None, n, &g, false);
                close(&out, &y);
                let mut out = vec![f32::NAN; dx.len()];
                data_gradient(&mut out, &dy, &w, None, n, &g, false);
                close(&out, &dx);
                let mut out = vec![0.0; dw.len()];
                weight_gradient(&mut out, None, &dy, &x, None, n, &g);
                close(&out, &dw);
            }
        }
    }

    #[test]
    fn selected_rows_are_the_rows_of_the_whole() {
        for g in geometries() {
            let (n, o, fan_in) = (2, g.output.c, g.fan_in());
            let rows: Vec<u32> = (0..o as u32).filter(|row| row % 3 != 1).collect();
            let x = values(n * g.input.len(), 4);
            let w = values(rows.len() * fan_in, 5);
            let bias = values(rows.len(), 6);
            let dy = values(n * g.output.len(), 7);
            let (mut whole, mut whole_bias) = (vec![0.0; o * fan_in], vec![0.0; o]);
            for (i, &row) in rows.iter().enumerate() {
                let row = row as usize;
                whole[row * fan_in..(row + 1) * fan_in].copy_from_slice(&w[i * fan_in..(i + 1) * fan_in]);
                whole_bias[row] = bias[i];
            }
            let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();

            let (mut y, mut want) = (dy.clone(), dy.clone());
            apply(&mut y, &x, &w, Some(&bias), Some(&rows), n, &g, true);
            apply(&mut want, &x, &whole, Some(&whole_bias), None, n, &g, true);
            close(&y, &wide(&want));

            let (mut dx, mut want) = (x.clone(), x.clone());
            data_gradient(&mut dx, &dy, &w, Some(&rows), n, &g, true);
            data_gradient(&mut want, &dy, &whole, None, n, &g, true);
            close(&dx, &wide(&want));

            let (mut dw, mut db) = (vec![0.0; w.len()], vec![0.0; rows.len()]);
            weight_gradient(&mut dw, Some(&mut db), &dy, &x, Some(&rows), n, &g);
            let (mut want, mut want_bias) = (vec![0.0; o * fan_in], vec![0.0; o]);
            weight_gradient(&mut want, Some(&mut want_bias), &dy, &x, None, n, &g);
            for (i, &row) in rows.iter().enumerate() {
                let row = row as usize;
                close(&dw[i * fan_in..(i + 1) * fan_in], &wide(&want[row * fan_in..(row + 1) * fan_in]));
                assert_eq!(db[i], want_bias[row]);
            }
        }
    }
}
