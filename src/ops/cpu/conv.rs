//! The three bilinear primitives of every affine layer: y = Wx (apply), δx = Wᵀδ (data gradient), dW = δᵀx (weight
//! gradient). A linear layer is a 1×1 convolution over its positions.
//!
//! Each is a sum of matrix products over *fields*, found as `fields.rs` says; but depthwise layers go by `depthwise.rs`.
//!
//! With `rows`, weights and gradients are those of some output channels only, and the cost is theirs.

mod depthwise;
mod fields;

use std::cell::RefCell;
use std::ops::Range;

use fields::{Group, Pixels, Way, sized};

use super::gemm::{Matrix, gemm};
use super::same;
use crate::ops::Geometry;

thread_local! {
    /// The gathered tile, and the selected channels of its outputs.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([vec![], vec![]]) };
}

/// Refuses other lengths of input, output, weights and biases than of `n` images and these rows.
#[track_caller]
fn fits(op: &str, g: &Geometry, n: usize, lens: [usize; 3], bias: Option<usize>, rows: Option<&[u32]>) {
    let count = rows.map_or(g.output.c, <[u32]>::len);
    let expected = [n * g.input.len(), n * g.output.len(), count * g.fan_in()];
    expected.into_iter().zip(lens).for_each(|(expected, len)| same(op, expected, len));
    bias.iter().for_each(|&len| same(op, count, len));
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
    fits("conv", g, n, [x.len(), y.len(), weight.len()], bias.map(<[f32]>::len), rows);
    if g.is_depthwise() {
        return depthwise::apply(y, x, weight, bias, rows, n, g, accumulate);
    }
    let (o, way) = (g.output.c, g.way(n));
    for y in y.chunks_exact_mut(o) {
        match (rows, bias) {
            (None, Some(bias)) if accumulate => y.iter_mut().zip(bias).for_each(|(y, b)| *y += b),
            (None, Some(bias)) => y.copy_from_slice(bias),
            (None, None) if !accumulate => y.fill(0.0),
            (Some(rows), _) => rows.iter().enumerate().for_each(|(i, &row)| {
                let y = &mut y[row as usize];
                *y = if accumulate { *y } else { 0.0 } + bias.map_or(0.0, |bias| bias[i]);
            }),
            (None, None) => break,
        }
    }
    SCRATCH.with_borrow_mut(|[gathered, some]| {
        for pixels in g.sets(n, way) {
            for Group { group, weights, channels, rows } in g.groups(rows) {
                let k = weights.len();
                let w = Rows { values: weight, rows: weights, fan_in: g.fan_in() };
                let Some(rows) = rows else {
                    let out = &mut y[pixels.first * o + channels.start..];
                    g.fields(gathered, x, pixels, group, way, |columns, fields| {
                        gemm(out, pixels.stride * o, fields, w.columns(columns).t(), 1.0, true)
                    });
                    continue;
                };
                some.clear();
                some.resize(pixels.count * k, 0.0);
                g.fields(gathered, x, pixels, group, way, |columns, fields| {
                    gemm(some, k, fields, w.columns(columns).t(), 1.0, true)
                });
                let out = y[pixels.first * o..].chunks_mut(pixels.stride * o);
                for (y, z) in out.zip(some.chunks_exact(k)) {
                    rows.iter().zip(z).for_each(|(&row, z)| y[row as usize] += z);
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
    fits("conv_data", g, n, [dx.len(), dy.len(), weight.len()], None, rows);
    let (fan_in, way) = (g.fan_in(), g.way(n));
    if !accumulate {
        dx.fill(0.0);
    }
    if g.is_depthwise() {
        return depthwise::data_gradient(dx, dy, weight, rows, n, g);
    }
    SCRATCH.with_borrow_mut(|[gathered, some]| {
        for pixels in g.sets(n, way) {
            for Group { group, weights, channels, rows } in g.groups(rows) {
                let d = selected(some, dy, g.output.c, pixels, &channels, rows);
                let w = Rows { values: weight, rows: weights, fan_in };
                if way != Way::Gathered {
                    let distance = g.distance(way);
                    g.standing(pixels, group, way, |columns, to| {
                        gemm(&mut dx[to..], distance, d, w.columns(columns), 1.0, true)
                    });
                    continue;
                }
                let gathered = sized(gathered, pixels.count * fan_in);
                gemm(gathered, fan_in, d, w.columns(0..fan_in), 1.0, false);
                for (field, pixel) in gathered.chunks_exact(fan_in).zip(pixels.first..) {
                    g.runs(pixel, group, |columns, to| {
                        let dx = &mut dx[to..to + columns.len()];
                        dx.iter_mut().zip(&field[columns]).for_each(|(dx, f)| *dx += f);
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
    fits("conv_weight", g, n, [x.len(), dy.len(), dw.len()], db.as_ref().map(|db| db.len()), rows);
    let (o, fan_in, way) = (g.output.c, g.fan_in(), g.way(n));
    if let Some(db) = db {
        for dy in dy.chunks_exact(o) {
            match rows {
                Some(rows) => db.iter_mut().zip(rows).for_each(|(db, &row)| *db += dy[row as usize]),
                None => db.iter_mut().zip(dy).for_each(|(db, dy)| *db += dy),
            }
        }
    }
    if g.is_depthwise() {
        return depthwise::weight_gradient(dw, dy, x, rows, n, g);
    }
    SCRATCH.with_borrow_mut(|[gathered, some]| {
        for pixels in g.sets(n, way) {
            for Group { group, weights, channels, rows } in g.groups(rows) {
                let d = selected(some, dy, o, pixels, &channels, rows);
                let dw = &mut dw[weights.start * fan_in..weights.end * fan_in];
                g.fields(gathered, x, pixels, group, way, |columns, fields| {
                    gemm(&mut dw[columns.start..], fan_in, d.t(), fields, 1.0, true)
                });
            }
        }
    });
}

/// a `[w, w]` += Σ over images and positions of x̄ x̄ᵀ, where x̄ `[w]` is what one group's taps read there, followed by 1
/// where w is one more than a weight row; of what belongs to the 1, only the last row is written.
pub fn input_moment(a: &mut [f32], x: &[f32], w: usize, group: usize, n: usize, g: &Geometry) {
    let (fan_in, way) = (g.fan_in(), g.way(1)); // of one image: never by position, which splits x̄
    SCRATCH.with_borrow_mut(|[gathered, ones]| {
        for pixels in g.sets(n, way) {
            g.fields(gathered, x, pixels, group, way, |_, fields| {
                gemm(a, w, fields.t(), fields, 1.0, true);
                if w > fan_in {
                    ones.clear();
                    ones.resize(pixels.count, 1.0);
                    let ones = Matrix::rows(ones, 1, pixels.count, pixels.count);
                    gemm(&mut a[fan_in * w..], w, ones, fields, 1.0, true);
                    a[w * w - 1] += pixels.count as f32;
                }
            });
        }
    });
}

/// The trace of what [`input_moment`] adds for a group of average share, but for the 1: the fields' squares, taps in the
/// padding taken for others.
pub fn input_square(x: &[f32], g: &Geometry) -> f64 {
    x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() * g.share_of_squares()
}

/// m `[k, k]` += Σ over images and positions of δ δᵀ, where δ is dy at `channels` `[k]`.
pub fn output_moment(m: &mut [f32], dy: &[f32], channels: &[u32], n: usize, g: &Geometry) {
    let (o, k) = (g.output.c, channels.len());
    let all = Pixels { first: 0, count: n * g.output.positions(), stride: 1 };
    SCRATCH.with_borrow_mut(|[_, some]| {
        let d = selected(some, dy, o, all, &(0..o), Some(channels));
        gemm(m, k, d.t(), d, 1.0, true);
    });
}

/// Some rows of the weights that are given, `[.., fan_in]`.
struct Rows<'a> {
    values: &'a [f32],
    rows: Range<usize>,
    fan_in: usize,
}

impl<'a> Rows<'a> {
    /// Their values under some columns.
    fn columns(&self, columns: Range<usize>) -> Matrix<'a> {
        let from = self.rows.start * self.fan_in + columns.start;
        Matrix::rows(&self.values[from..], self.rows.len(), columns.len(), self.fan_in)
    }
}

/// The selected channels of `dy` `[pixels, o]` at some pixels: gathered to `some` where they are not a whole group.
fn selected<'a>(
    some: &'a mut Vec<f32>,
    dy: &'a [f32],
    o: usize,
    pixels: Pixels,
    channels: &Range<usize>,
    rows: Option<&[u32]>,
) -> Matrix<'a> {
    let (dy, stride) = (&dy[pixels.first * o..], pixels.stride * o);
    let Some(rows) = rows else {
        return Matrix::rows(&dy[channels.start..], pixels.count, channels.len(), stride);
    };
    some.clear();
    let all = dy.chunks(stride).take(pixels.count);
    some.extend(all.flat_map(|dy| rows.iter().map(|&row| dy[row as usize])));
    Matrix::rows(some, pixels.count, rows.len(), rows.len())
}

#[cfg(test)]
mod tests {
    use super::fields::MANY_IMAGES;
    use super::*;
    use crate::ops::Conv;
    use crate::ops::Shape;

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

    /// Within the error of a plain loop over `terms` products, a random walk of roundings.
    fn close(got: &[f32], want: &[f64], terms: usize) {
        let norm = want.iter().map(|w| w * w).sum::<f64>().sqrt();
        let error = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum::<f64>().sqrt();
        let tolerance = f64::from(f32::EPSILON) * (terms as f64).sqrt().max(4.0);
        assert!(error <= tolerance * norm.max(1e-3), "{error:e} of {norm:e}, {terms} terms");
    }

    /// Image, filters and options that cover stride, padding, dilation, groups, uneven sides and several tiles.
    fn geometries() -> Vec<Geometry> {
        let shape = |h, w, c, o, conv: Conv| {
            let (r, s) = conv.kernel;
            let out = |size: usize, pad: usize, k: usize| {
                (size + pad - conv.dilation * (k - 1) - 1) / conv.stride + 1
            };
            let (oh, ow) =
                (out(h, conv.padding.0 + conv.behind().0, r), out(w, conv.padding.1 + conv.behind().1, s));
            Geometry::conv(Shape::new(h, w, c), Shape::new(oh, ow, o), conv)
        };
        vec![
            Geometry::linear(Shape::new(1, 1, 7), Shape::new(1, 1, 5)),
            Geometry::linear(Shape::new(1, 3, 4), Shape::new(1, 3, 6)),
            shape(5, 6, 3, 4, Conv::square(3, 1, 1)),
            shape(7, 5, 2, 3, Conv::square(3, 2, 1)),
            shape(8, 8, 3, 2, Conv::square(7, 2, 3)),
            shape(6, 6, 4, 5, Conv::square(1, 2, 0)),
            shape(
                9,
                7,
                4,
                6,
                Conv { kernel: (3, 2), padding: (2, 0), dilation: 2, groups: 2, ..Conv::square(1, 1, 0) },
            ),
            shape(4, 5, 6, 6, Conv { groups: 6, ..Conv::square(3, 1, 1) }),
            shape(8, 7, 3, 4, Conv::square(3, 2, 0).same(8, 7)),
            shape(6, 6, 2, 4, Conv { groups: 2, ..Conv::square(5, 2, 0).same(6, 6) }),
            shape(3, 3, 2, 3, Conv::square(3, 1, 3)), // taps wholly in the padding
            shape(9, 8, 35, 35, Conv { groups: 35, ..Conv::square(7, 1, 3) }),
            shape(9, 7, 20, 40, Conv { groups: 20, ..Conv::square(5, 2, 2) }),
            shape(7, 9, 18, 18, Conv { groups: 18, further: (0, 1), dilation: 2, ..Conv::square(3, 3, 2) }),
            shape(40, 30, 3, 2, Conv::square(3, 1, 1)),
        ]
    }

    #[test]
    fn all_three_agree_with_the_definition() {
        for g in geometries() {
            for n in [1, 3, MANY_IMAGES + 1] {
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
                close(&out, &y, g.fan_in());
                let mut out = vec![f32::NAN; dx.len()];
                data_gradient(&mut out, &dy, &w, None, n, &g, false);
                close(&out, &dx, w.len());
                let mut out = vec![0.0; dw.len()];
                weight_gradient(&mut out, None, &dy, &x, None, n, &g);
                close(&out, &dw, n * g.output.positions());
            }
        }
    }

    #[test]
    fn moments_agree_with_the_definition() {
        for g in geometries() {
            let n = MANY_IMAGES + 1;
            let (o, fan_in, w) = (g.output.c, g.fan_in(), g.fan_in() + 1);
            let (x, dy) = (values(n * g.input.len(), 1), values(n * g.output.len(), 3));
            let (group, each) = (g.conv.groups - 1, o / g.conv.groups);
            // x̄ of each pixel under the last output channel, by the definition of apply with a weight of ones.
            let mut read = vec![vec![0.0; w]; n * g.output.positions()];
            plain(&x, &vec![1.0; o * fan_in], n, &g, |at, _, weight, xv, _| {
                if at % o == group * each {
                    read[at / o][weight % fan_in] = xv;
                }
            });
            read.iter_mut().for_each(|x| x[fan_in] = 1.0);
            let outer = |i: usize, j: usize| read.iter().map(|x| x[i] * x[j]).sum::<f64>();
            let mut a = vec![0.0; w * w];
            input_moment(&mut a, &x, w, group, n, &g);
            let rows = 0..w * w;
            let (got, want): (Vec<f32>, Vec<f64>) = rows
                .filter(|at| at % w < fan_in || at / w == fan_in)
                .map(|at| (a[at], outer(at / w, at % w)))
                .unzip();
            close(&got, &want, read.len());
            let channels: Vec<u32> = (0..o as u32).filter(|c| c % 3 != 1).collect();
            let k = channels.len();
            let mut m = vec![0.0; k * k];
            output_moment(&mut m, &dy, &channels, n, &g);
            let product = |at: usize| {
                let (i, j) = (channels[at / k] as usize, channels[at % k] as usize);
                dy.chunks_exact(o).map(|d| f64::from(d[i]) * f64::from(d[j])).sum()
            };
            close(&m, &(0..k * k).map(product).collect::<Vec<f64>>(), read.len());
        }
    }

    #[test]
    fn selected_rows_are_the_rows_of_the_whole() {
        for g in geometries() {
            for n in [2, MANY_IMAGES] {
                let (o, fan_in) = (g.output.c, g.fan_in());
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
                close(&y, &wide(&want), fan_in);

                let (mut dx, mut want) = (x.clone(), x.clone());
                data_gradient(&mut dx, &dy, &w, Some(&rows), n, &g, true);
                data_gradient(&mut want, &dy, &whole, None, n, &g, true);
                close(&dx, &wide(&want), w.len());

                let (mut dw, mut db) = (vec![0.0; w.len()], vec![0.0; rows.len()]);
                weight_gradient(&mut dw, Some(&mut db), &dy, &x, Some(&rows), n, &g);
                let (mut want, mut want_bias) = (vec![0.0; o * fan_in], vec![0.0; o]);
                weight_gradient(&mut want, Some(&mut want_bias), &dy, &x, None, n, &g);
                for (i, &row) in rows.iter().enumerate() {
                    let row = row as usize;
                    close(
                        &dw[i * fan_in..(i + 1) * fan_in],
                        &wide(&want[row * fan_in..(row + 1) * fan_in]),
                        n * g.output.positions(),
                    );
                    assert_eq!(db[i], want_bias[row]);
                }
            }
        }
    }
}
