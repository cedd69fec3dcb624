//! Cases of affine layers: the product, its adjoints, and K-FAC's moments.

use rayon::prelude::*;

use super::case::{Sizes, Work};
use super::map::{Map, Mapped, clear, normals, share, sum_of_images, work};
use crate::device::Device;
use crate::error::Result;
use crate::ops::cpu::conv;
use crate::ops::{Conv, Geometry, Precision, Shape, cuda};

pub(super) fn linear(device: &Device, sizes: Sizes) -> Result<Work> {
    let (m, c, o) = (sizes[0], sizes[1], sizes[2]);
    affine(device, m, Geometry::linear(Shape::new(1, 1, c), Shape::new(1, 1, o)), Precision::F32)
}

/// Images, and the convolution.
fn geometry(sizes: Sizes) -> (usize, Geometry) {
    let [n, h, w, c, o, k, stride] = std::array::from_fn(|i| sizes[i]);
    let conv = Conv::square(k, stride, k / 2);
    let side = |size: usize| (size + 2 * (k / 2) - k) / stride + 1;
    (n, Geometry::conv(Shape::new(h, w, c), Shape::new(side(h), side(w), o), conv))
}

pub(super) fn convolution(device: &Device, sizes: Sizes, precision: Precision) -> Result<Work> {
    let (n, g) = geometry(sizes);
    affine(device, n, g, precision)
}

pub(super) fn depthwise(device: &Device, sizes: Sizes) -> Result<Work> {
    let [n, h, w, c, k, stride] = std::array::from_fn(|i| sizes[i]);
    let (n, mut g) = geometry(&[n, h, w, c, c, k, stride]);
    g.conv.groups = c;
    affine(device, n, g, Precision::F32)
}

/// `x` as a kernel rounds it.
fn rounded(x: f32, precision: Precision) -> f64 {
    let to = |bits: u32, half: u32| f32::from_bits(x.to_bits().wrapping_add(half) & !((1 << bits) - 1));
    f64::from(match precision {
        Precision::Tf32 => to(13, 1 << 12),
        Precision::Bf16 => to(16, 0x7fff + (x.to_bits() >> 16 & 1)),
        Precision::F16 => half::f16::from_f32(x).to_f32(),
        Precision::F32 => x,
    })
}

/// For each tap of output pixel `at` (image, row, column) that lies in the image: its column of the weights, and its
/// pixel of the input.
fn taps(g: &Geometry, pixel: usize, mut each: impl FnMut(usize, usize)) {
    let (image, at) = (pixel / g.output.positions(), pixel % g.output.positions());
    let (r, s) = g.conv.kernel;
    for (i, j) in (0..r).flat_map(|i| (0..s).map(move |j| (i, j))) {
        let y =
            (at / g.output.w * g.conv.stride + i).checked_sub(g.conv.padding.0).filter(|y| *y < g.input.h);
        let x =
            (at % g.output.w * g.conv.stride + j).checked_sub(g.conv.padding.1).filter(|x| *x < g.input.w);
        if let (Some(y), Some(x)) = (y, x) {
            each((i * s + j) * (g.input.c / g.conv.groups), (image * g.input.h + y) * g.input.w + x);
        }
    }
}

fn affine(device: &Device, n: usize, g: Geometry, precision: Precision) -> Result<Work> {
    let (o, fan_in) = (g.output.c, g.fan_in());
    let (x, weight) = (n * g.input.len(), normals(o * fan_in, 1));
    let w = weight.clone();
    let inner = g.input.c / g.conv.groups;
    let want = move |x: &[f32], at: usize| {
        let (mut sum, group) = (0.0, at % o / (o / g.conv.groups));
        taps(&g, at / o, |column, pixel| {
            let w = &w[at % o * fan_in + column..][..inner];
            let x = &x[pixel * g.input.c + group * inner..][..inner];
            let product = |(w, x): (&f32, &f32)| rounded(*w, precision) * rounded(*x, precision);
            sum += w.iter().zip(x).map(product).sum::<f64>();
        });
        sum
    };
    let map = match device.cuda() {
        Some(cuda) => {
            let weight = cuda.upload(&weight)?;
            let scratch = cuda.alloc(cuda::conv::scratch(n, &g, precision, cuda::Element::F32))?;
            let scratch = std::cell::RefCell::new(scratch);
            Map::Cuda(Box::new(move |cuda, y, x| {
                let (weight, plain) = (weight.input(), cuda::conv::Epilogue::default());
                let mut scratch = scratch.borrow_mut();
                let scratch = scratch.output();
                cuda::conv::forward(cuda, y, None, x, weight, None, plain, n, &g, precision, scratch)
            }))
        }
        None => Map::Cpu(Box::new(move |device, y, x| {
            share(device, y, x, n, |y, x, n| conv::apply(y, x, &weight, None, None, n, &g, false));
        })),
    };
    let (y, pixels) = (n * g.output.len(), n * g.output.positions());
    work(
        4 * (x + y + o * fan_in),
        2 * pixels * o * fan_in,
        Mapped::new(device, map, normals(x, 0), y, fan_in, want)?,
    )
}

pub(super) fn data_gradient(device: &Device, sizes: Sizes) -> Result<Work> {
    let (n, g) = geometry(sizes);
    let (o, fan_in, c) = (g.output.c, g.fan_in(), g.input.c);
    let (dy, dx, weight) = (n * g.output.len(), n * g.input.len(), normals(o * fan_in, 1));
    let w = weight.clone();
    let want = move |dy: &[f32], at: usize| {
        let (pixel, channel) = (at / c, at % c);
        let image = pixel / g.input.positions() * g.output.positions();
        let mut sum = 0.0;
        for output in image..image + g.output.positions() {
            taps(&g, output, |column, read| {
                let dy = &dy[output * o..][..o];
                let rows = dy.iter().zip(w.chunks_exact(fan_in));
                if read == pixel {
                    sum += rows.map(|(d, w)| f64::from(*d) * f64::from(w[column + channel])).sum::<f64>();
                }
            });
        }
        sum
    };
    let map = match device.cuda() {
        Some(cuda) => {
            let weight = cuda.upload(&weight)?;
            Map::Cuda(Box::new(move |cuda, dx, dy| {
                cuda::conv::data_gradient(cuda, dx, dy, weight.input(), None, n, &g, false)
            }))
        }
        None => Map::Cpu(Box::new(move |device, dx, dy| {
            share(device, dx, dy, n, |dx, dy, n| conv::data_gradient(dx, dy, &weight, None, n, &g, false));
        })),
    };
    let flops = 2 * n * g.output.positions() * o * fan_in;
    let terms = o * g.conv.kernel.0 * g.conv.kernel.1;
    work(4 * (dx + dy + o * fan_in), flops, Mapped::new(device, map, normals(dy, 0), dx, terms, want)?)
}

pub(super) fn weight_gradient(device: &Device, sizes: Sizes) -> Result<Work> {
    let (n, g) = geometry(sizes);
    let (o, fan_in, c) = (g.output.c, g.fan_in(), g.input.c);
    let (x, dy, dw) = (n * g.input.len(), normals(n * g.output.len(), 1), o * fan_in);
    let d = dy.clone();
    let want = move |x: &[f32], at: usize| {
        let (row, column) = (at / fan_in, at % fan_in);
        let mut sum = 0.0;
        for pixel in 0..n * g.output.positions() {
            taps(&g, pixel, |first, read| {
                if first == column / c * c {
                    sum += f64::from(d[pixel * o + row]) * f64::from(x[read * c + column % c]);
                }
            });
        }
        sum
    };
    let map = match device.cuda() {
        Some(cuda) => {
            let (dy, zero) = (cuda.upload(&dy)?, cuda.upload(&[0.0f32])?);
            let scratch = std::cell::RefCell::new(cuda.alloc::<f32>(cuda::conv::gradient_parts(n, o, &g))?);
            Map::Cuda(Box::new(move |cuda, mut dw, x| {
                clear(cuda, dw.output(), zero.input())?;
                let mut scratch = scratch.borrow_mut();
                cuda::conv::weight_gradient(cuda, dw, None, scratch.output(), dy.input(), x, None, n, &g)
            }))
        }
        None => Map::Cpu(Box::new(move |device, dw, x| {
            // A sum over images: each thread its own, then together, in order.
            let each = n.div_ceil(device.threads());
            let (of_x, of_dy) = (x.len() / n, dy.len() / n);
            let part = |(x, dy): (&[f32], &[f32])| {
                let mut dw = vec![0.0; dw.len()];
                conv::weight_gradient(&mut dw, None, dy, x, None, dy.len() / of_dy, &g);
                dw
            };
            let parts: Vec<Vec<f32>> = device
                .scope(|| x.par_chunks(each * of_x).zip(dy.par_chunks(each * of_dy)).map(part).collect());
            dw.fill(0.0);
            parts.iter().for_each(|part| dw.iter_mut().zip(part).for_each(|(sum, dw)| *sum += dw));
        })),
    };
    let flops = 2 * n * g.output.positions() * o * fan_in;
    let terms = n * g.output.positions();
    let bytes = 4 * (x + n * g.output.len() + dw);
    work(bytes, flops, Mapped::new(device, map, normals(x, 0), dw, terms, want)?)
}

pub(super) fn input_moment(device: &Device, sizes: Sizes) -> Result<Work> {
    let (n, g) = geometry(sizes);
    let (c, w) = (g.input.c, g.fan_in());
    let want = move |x: &[f32], at: usize| {
        let pixels = 0..n * g.output.positions();
        let product = |pixel: usize| {
            let (mut a, mut b) = (0.0, 0.0);
            taps(&g, pixel, |first, read| {
                let value = |column: usize| f64::from(x[read * c + column % c]);
                let of = |column: usize| if first == column / c * c { value(column) } else { 0.0 };
                (a, b) = (a + of(at / w), b + of(at % w));
            });
            a * b
        };
        pixels.map(product).sum()
    };
    let map = match device.cuda() {
        Some(cuda) => {
            let (one, set) = (cuda.upload(&cuda::moments::ONE)?, cuda.upload(&[0])?);
            let scratch =
                std::cell::RefCell::new(cuda.alloc::<f32>(cuda::moments::input_parts(n, 1, w, &g))?);
            let zero = cuda.upload(&[0.0f32])?;
            Map::Cuda(Box::new(move |cuda, mut a, x| {
                clear(cuda, a.output(), zero.input())?;
                let mut scratch = scratch.borrow_mut();
                cuda::moments::input(cuda, a, scratch.output(), x, one.input(), set.input(), w, n, &g)
            }))
        }
        None => Map::Cpu(Box::new(move |device, a, x| {
            sum_of_images(device, a, x, n, |a, x, n| conv::input_moment(a, x, w, 0, n, &g));
        })),
    };
    let (x, pixels) = (n * g.input.len(), n * g.output.positions());
    work(4 * (x + w * w), pixels * w * (w + 1), Mapped::new(device, map, normals(x, 0), w * w, pixels, want)?)
}

pub(super) fn output_moment(device: &Device, sizes: Sizes) -> Result<Work> {
    let (n, g) = geometry(sizes);
    let o = g.output.c;
    let want = move |dz: &[f32], at: usize| {
        dz.chunks_exact(o).map(|dz| f64::from(dz[at / o]) * f64::from(dz[at % o])).sum()
    };
    let map = match device.cuda() {
        Some(cuda) => {
            let scratch =
                std::cell::RefCell::new(cuda.alloc::<f32>(cuda::moments::output_parts(n, o, o, &g))?);
            let zero = cuda.upload(&[0.0f32])?;
            Map::Cuda(Box::new(move |cuda, mut m, dz| {
                clear(cuda, m.output(), zero.input())?;
                cuda::moments::output(cuda, m, scratch.borrow_mut().output(), dz, None, o, n, &g)
            }))
        }
        None => {
            let channels: Vec<u32> = (0..o as u32).collect();
            Map::Cpu(Box::new(move |device, m, dz| {
                sum_of_images(device, m, dz, n, |m, dz, n| conv::output_moment(m, dz, &channels, n, &g));
            }))
        }
    };
    let (dz, pixels) = (n * g.output.len(), n * g.output.positions());
    work(
        4 * (dz + o * o),
        pixels * o * (o + 1),
        Mapped::new(device, map, normals(dz, 0), o * o, pixels, want)?,
    )
}
