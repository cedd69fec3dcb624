//! The cases of `scrubjay bench`.

use rayon::prelude::*;

use super::{Case, Check, Kernel, Sizes, Work, rotation, whole};
use crate::Result;
use crate::codec::{Columns, FociOptions, foci, statistic};
use crate::device::Device;
use crate::device::cuda::{Buffer, Cuda, In, Out};
use crate::loss::{Loss, softmax};
use crate::ops::cpu::{attention, conv, layer_norm};
use crate::ops::cuda::nearest;
use crate::ops::philox::{self, Use, add_normals};
use crate::ops::{Conv, Geometry, Precision, Shape, Strided, cuda, perturb};

/// Every kernel that can be timed.
pub const CASES: &[Case] = &[
    Case {
        name: "copy",
        about: "y = 1 x + 0, the measure of bandwidth",
        dtype: "f32",
        axes: &[("len", 1 << 25)],
        make: copy,
    },
    Case {
        name: "perturb",
        about: "noisy copies of an image: Philox, Box and Muller",
        dtype: "f32",
        axes: &[("m", 1000), ("len", 3 * 32 * 32)],
        make: perturbed,
    },
    Case {
        name: "linear",
        about: "y [m, o] = x [m, c] times weights [o, c]",
        dtype: "f32",
        axes: &[("m", 1024), ("c", 1024), ("o", 1024)],
        make: linear,
    },
    Case {
        name: "conv",
        about: "convolution with filters of k by k",
        dtype: "f32",
        axes: CONV,
        make: |device, sizes| convolution(device, sizes, Precision::F32),
    },
    Case {
        name: "conv_tf32",
        about: "the same of operands rounded to tf32",
        dtype: "tf32",
        axes: CONV,
        make: |device, sizes| convolution(device, sizes, Precision::Tf32),
    },
    Case {
        name: "conv_bf16",
        about: "the same of operands rounded to bf16",
        dtype: "bf16",
        axes: CONV,
        make: |device, sizes| convolution(device, sizes, Precision::Bf16),
    },
    Case {
        name: "conv_f16",
        about: "the same of operands rounded to f16",
        dtype: "f16",
        axes: CONV,
        make: |device, sizes| convolution(device, sizes, Precision::F16),
    },
    Case {
        name: "conv_dx",
        about: "its adjoint to the input",
        dtype: "f32",
        axes: CONV,
        make: data_gradient,
    },
    Case {
        name: "conv_dw",
        about: "its gradient to the weights",
        dtype: "f32",
        axes: CONV,
        make: weight_gradient,
    },
    Case {
        name: "moment_x",
        about: "x x^T of what its taps read, for K-FAC",
        dtype: "f32",
        axes: CONV,
        make: input_moment,
    },
    Case {
        name: "moment_dz",
        about: "dz dz^T of its output channels, for K-FAC",
        dtype: "f32",
        axes: CONV,
        make: output_moment,
    },
    Case {
        name: "depthwise",
        about: "convolution with a filter of k by k for each channel",
        dtype: "f32",
        axes: &[("n", 64), ("h", 16), ("w", 16), ("c", 128), ("k", 3), ("stride", 1)],
        make: depthwise,
    },
    Case {
        name: "layer_norm",
        about: "layer norm over c channels of n positions",
        dtype: "f32",
        axes: &[("n", 64 * 197), ("c", 768)],
        make: normed,
    },
    Case {
        name: "attention",
        about: "attention of n sequences of t tokens of c channels",
        dtype: "f32",
        axes: &[("n", 16), ("t", 197), ("c", 384), ("heads", 6)],
        make: attended,
    },
    Case {
        name: "cross_entropy",
        about: "the loss of n rows of logits",
        dtype: "f32",
        axes: &[("n", 65_536), ("classes", 100)],
        make: losses,
    },
    Case {
        name: "foci",
        about: "k greedy steps on n rows and p columns",
        dtype: "f32",
        axes: &[("n", 1000), ("p", 1000), ("k", 3)],
        make: selected,
    },
    Case {
        name: "nearest",
        about: "a step of it with k columns chosen: all rows searched",
        dtype: "f64",
        axes: STEP,
        make: |device, sizes| step(device, sizes, false),
    },
    Case {
        name: "pruned",
        about: "the same step: lists of the nearest rows made and searched",
        dtype: "f64",
        axes: STEP,
        make: |device, sizes| step(device, sizes, true),
    },
    Case {
        name: "foci_step",
        about: "a whole step, as a selection takes it: search, sums, best",
        dtype: "f64",
        axes: STEP,
        make: whole::foci_step,
    },
    Case {
        name: "resnet50",
        about: "ResNet-50 over noisy copies: losses, units' means",
        dtype: "f32",
        axes: whole::RESNET,
        make: |device, sizes| whole::copies(device, whole::resnet50(sizes)?, sizes, Precision::F32),
    },
    Case {
        name: "resnet50_bf16",
        about: "the same of operands rounded to bf16",
        dtype: "bf16",
        axes: whole::RESNET,
        make: |device, sizes| whole::copies(device, whole::resnet50(sizes)?, sizes, Precision::Bf16),
    },
    Case {
        name: "resnet50_g",
        about: "its mean gradient over images, of all units",
        dtype: "f32",
        axes: whole::DERIVED,
        make: |device, sizes| whole::gradient(device, whole::resnet50(sizes)?, sizes),
    },
    Case {
        name: "resnet50_hv",
        about: "its Hessian by a vector, as in a solver's loop",
        dtype: "f32",
        axes: whole::DERIVED,
        make: |device, sizes| whole::product(device, whole::resnet50(sizes)?, sizes),
    },
    Case {
        name: "vit16",
        about: "ViT-B/16 over noisy copies: losses, units' means",
        dtype: "f32",
        axes: whole::VIT,
        make: |device, sizes| whole::copies(device, whole::vit16(sizes)?, sizes, Precision::F32),
    },
    Case {
        name: "vit16_bf16",
        about: "the same of operands rounded to bf16",
        dtype: "bf16",
        axes: whole::VIT,
        make: |device, sizes| whole::copies(device, whole::vit16(sizes)?, sizes, Precision::Bf16),
    },
];

const STEP: &[(&str, usize)] = &[("n", 4096), ("p", 1000), ("k", 2)];

const CONV: &[(&str, usize)] =
    &[("n", 64), ("h", 16), ("w", 16), ("c", 128), ("o", 128), ("k", 3), ("stride", 1)];

/// The number of values that a check compares, spread over the whole result.
pub(super) const LOOKED_AT: usize = 64;

type OnCpu = dyn Fn(&Device, &mut [f32], &[f32]);
type OnCuda = dyn Fn(&Cuda, Out<'_, f32>, In<'_, f32>) -> Result<()>;
/// The value at a place of the output, from the input, in f64.
type Want = dyn Fn(&[f32], usize) -> f64;

/// f32 values from one input to one output.
enum Map {
    Cpu(Box<OnCpu>),
    Cuda(Box<OnCuda>),
}

/// A [`Map`] on inputs that rotate.
struct Mapped {
    device: Device,
    map: Map,
    first: Vec<f32>,
    host: Vec<Vec<f32>>,
    on_device: Vec<Buffer<f32>>,
    y: Vec<f32>,
    y_on_device: Option<Buffer<f32>>,
    want: Box<Want>,
    /// The number of terms of a value's sum.
    terms: usize,
}

impl Mapped {
    fn new(
        device: &Device,
        map: Map,
        x: Vec<f32>,
        y: usize,
        terms: usize,
        want: impl Fn(&[f32], usize) -> f64 + 'static,
    ) -> Result<Box<Mapped>> {
        let count = rotation(4 * (x.len() + y));
        let mut mapped = Mapped {
            device: device.clone(),
            map,
            host: vec![],
            on_device: vec![],
            y: vec![],
            y_on_device: None,
            want: Box::new(want),
            terms,
            first: x,
        };
        match device.cuda() {
            Some(cuda) => {
                mapped.y_on_device = Some(cuda.alloc(y)?);
                mapped.on_device = (0..count).map(|_| cuda.upload(&mapped.first)).collect::<Result<_>>()?;
            }
            None => {
                mapped.y = vec![0.0; y];
                mapped.host = vec![mapped.first.clone(); count];
            }
        }
        Ok(Box::new(mapped))
    }
}

impl Kernel for Mapped {
    fn run(&mut self, i: usize) -> Result<()> {
        match (&self.map, self.device.cuda(), &mut self.y_on_device) {
            (Map::Cuda(map), Some(cuda), Some(y)) => {
                map(cuda, y.output(), self.on_device[i % self.on_device.len()].input())
            }
            (Map::Cpu(map), ..) => {
                map(&self.device, &mut self.y, &self.host[i % self.host.len()]);
                Ok(())
            }
            _ => Err(crate::Error::config("a kernel of another device")),
        }
    }

    fn check(&mut self) -> Result<Check> {
        self.run(0)?;
        if let (Some(cuda), Some(y)) = (self.device.cuda(), &self.y_on_device) {
            self.y = cuda.download(y)?;
        }
        let (mut off, mut all) = (0.0, 0.0);
        for i in 0..LOOKED_AT.min(self.y.len()) {
            let at = i * self.y.len() / LOOKED_AT.min(self.y.len());
            let want = (self.want)(&self.first, at);
            off += (f64::from(self.y[at]) - want).powi(2);
            all += want * want;
        }
        let tolerance = 2.0 * f64::from(f32::EPSILON) * (self.terms as f64).sqrt().max(4.0);
        Ok(Check { error: (off / all).sqrt(), tolerance })
    }
}

pub(super) fn normals(len: usize, index: u32) -> Vec<f32> {
    let mut values = vec![0.0; len];
    add_normals(&mut values, &vec![0.0; len], 1.0, 1, Use::Choice, index, 0);
    values
}

/// Deals images (or rows) of `x` and `y` to the threads.
fn share(
    device: &Device,
    y: &mut [f32],
    x: &[f32],
    n: usize,
    work: impl Fn(&mut [f32], &[f32], usize) + Sync,
) {
    let each = n.div_ceil(4 * device.threads());
    let (of_y, of_x) = (y.len() / n, x.len() / n);
    device.scope(|| {
        let parts = y.par_chunks_mut(each * of_y).zip(x.par_chunks(each * of_x));
        parts.for_each(|(y, x)| work(y, x, y.len() / of_y));
    });
}

pub(super) fn work(bytes: usize, flops: usize, kernel: Box<dyn Kernel>) -> Result<Work> {
    Ok(Work { bytes: bytes as f64, flops: flops as f64, kernel })
}

fn copy(device: &Device, sizes: Sizes) -> Result<Work> {
    let len = sizes[0];
    let map = match device.cuda() {
        Some(cuda) => {
            let one = cuda.upload(&[1.0f32])?;
            Map::Cuda(Box::new(move |cuda, y, x| cuda::pointwise::scale(cuda, y, x, one.input())))
        }
        None => Map::Cpu(Box::new(|device, y, x| {
            share(device, y, x, x.len(), |y, x, _| y.copy_from_slice(x));
        })),
    };
    let kernel = Mapped::new(device, map, normals(len, 0), len, 1, |x, at| f64::from(x[at]))?;
    work(8 * len, 0, kernel)
}

fn perturbed(device: &Device, sizes: Sizes) -> Result<Work> {
    const SIGMA: f32 = 0.1;
    let (m, len) = (sizes[0], sizes[1]);
    let map = match device.cuda() {
        Some(_) => Map::Cuda(Box::new(move |cuda, y, x| perturb::perturb_on(cuda, y, x, 7, 3, 0, SIGMA))),
        None => Map::Cpu(Box::new(move |device, y, x| {
            let copy = |(j, y): (usize, &mut [f32])| add_normals(y, x, SIGMA, 7, Use::Noise, 3, j as u32);
            device.scope(|| y.par_chunks_exact_mut(len).enumerate().for_each(copy));
        })),
    };
    let want = move |x: &[f32], at: usize| {
        let normal = philox::normal_wide(7, Use::Noise, 3, (at / len) as u32, at % len);
        f64::from(x[at % len]) + f64::from(SIGMA) * normal
    };
    work(4 * (m + 1) * len, 0, Mapped::new(device, map, normals(len, 0), m * len, 1, want)?)
}

fn linear(device: &Device, sizes: Sizes) -> Result<Work> {
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

fn convolution(device: &Device, sizes: Sizes, precision: Precision) -> Result<Work> {
    let (n, g) = geometry(sizes);
    affine(device, n, g, precision)
}

fn depthwise(device: &Device, sizes: Sizes) -> Result<Work> {
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
            Map::Cuda(Box::new(move |cuda, y, x| {
                let (weight, plain) = (weight.input(), cuda::conv::Epilogue::default());
                cuda::conv::forward(cuda, y, None, x, weight, None, plain, n, &g, precision)
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

fn data_gradient(device: &Device, sizes: Sizes) -> Result<Work> {
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

fn weight_gradient(device: &Device, sizes: Sizes) -> Result<Work> {
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
            let room = std::cell::RefCell::new(cuda.alloc::<f32>(cuda::conv::gradient_parts(n, o, &g))?);
            Map::Cuda(Box::new(move |cuda, mut dw, x| {
                clear(cuda, dw.output(), zero.input())?;
                let mut room = room.borrow_mut();
                cuda::conv::weight_gradient(cuda, dw, None, room.output(), dy.input(), x, None, n, &g)
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

fn input_moment(device: &Device, sizes: Sizes) -> Result<Work> {
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
            let room = std::cell::RefCell::new(cuda.alloc::<f32>(cuda::moments::input_parts(n, 1, w, &g))?);
            let zero = cuda.upload(&[0.0f32])?;
            Map::Cuda(Box::new(move |cuda, mut a, x| {
                clear(cuda, a.output(), zero.input())?;
                let mut room = room.borrow_mut();
                cuda::moments::input(cuda, a, room.output(), x, one.input(), set.input(), w, n, &g)
            }))
        }
        None => Map::Cpu(Box::new(move |device, a, x| {
            sum_of_images(device, a, x, n, |a, x, n| conv::input_moment(a, x, w, 0, n, &g));
        })),
    };
    let (x, pixels) = (n * g.input.len(), n * g.output.positions());
    work(4 * (x + w * w), pixels * w * (w + 1), Mapped::new(device, map, normals(x, 0), w * w, pixels, want)?)
}

fn output_moment(device: &Device, sizes: Sizes) -> Result<Work> {
    let (n, g) = geometry(sizes);
    let o = g.output.c;
    let want = move |dz: &[f32], at: usize| {
        dz.chunks_exact(o).map(|dz| f64::from(dz[at / o]) * f64::from(dz[at % o])).sum()
    };
    let map = match device.cuda() {
        Some(cuda) => {
            let room = std::cell::RefCell::new(cuda.alloc::<f32>(cuda::moments::output_parts(n, o, o, &g))?);
            let zero = cuda.upload(&[0.0f32])?;
            Map::Cuda(Box::new(move |cuda, mut m, dz| {
                clear(cuda, m.output(), zero.input())?;
                cuda::moments::output(cuda, m, room.borrow_mut().output(), dz, None, o, n, &g)
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

/// Zeros.
fn clear(cuda: &Cuda, y: Out<'_, f32>, zero: In<'_, f32>) -> Result<()> {
    let len = y.len();
    let (to, from) = (Strided { first: 0, stride: 1 }, Strided { first: 0, stride: 0 });
    cuda::shape::copy(cuda, y, zero, len, 1, to, from)
}

/// `sum` = what `work` adds for all of `n` images of `x`: each thread its own, then together, in order.
fn sum_of_images(
    device: &Device,
    sum: &mut [f32],
    x: &[f32],
    n: usize,
    work: impl Fn(&mut [f32], &[f32], usize) + Sync,
) {
    let of_x = x.len() / n;
    let part = |x: &[f32]| {
        let mut part = vec![0.0; sum.len()];
        work(&mut part, x, x.len() / of_x);
        part
    };
    let parts: Vec<Vec<f32>> =
        device.scope(|| x.par_chunks(n.div_ceil(device.threads()) * of_x).map(part).collect());
    sum.fill(0.0);
    parts.iter().for_each(|part| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part));
}

fn normed(device: &Device, sizes: Sizes) -> Result<Work> {
    const EPS: f32 = 1e-6;
    let (n, c) = (sizes[0], sizes[1]);
    let (gamma, beta) = (normals(c, 1), normals(c, 2));
    let (g, b) = (gamma.clone(), beta.clone());
    let want = move |x: &[f32], at: usize| {
        let row = &x[at / c * c..][..c];
        let mean = |of: &dyn Fn(f64) -> f64| row.iter().map(|x| of(f64::from(*x))).sum::<f64>() / c as f64;
        let mu = mean(&|x| x);
        let deviation = (mean(&|x| (x - mu).powi(2)) + f64::from(EPS)).sqrt();
        (f64::from(x[at]) - mu) / deviation * f64::from(g[at % c]) + f64::from(b[at % c])
    };
    let map = match device.cuda() {
        Some(cuda) => {
            let (gamma, beta) = (cuda.upload(&gamma)?, cuda.upload(&beta)?);
            let saved = std::cell::RefCell::new(cuda.alloc::<f32>(2 * n)?);
            Map::Cuda(Box::new(move |cuda, y, x| {
                let mut saved = saved.borrow_mut();
                cuda::layer_norm::forward(cuda, y, saved.output(), x, gamma.input(), beta.input(), EPS)
            }))
        }
        None => Map::Cpu(Box::new(move |device, y, x| {
            share(device, y, x, n, |y, x, n| {
                layer_norm::forward(y, &mut vec![0.0; 2 * n], x, &gamma, &beta, EPS);
            });
        })),
    };
    work(4 * (2 * n * c + 2 * n + 2 * c), 0, Mapped::new(device, map, normals(n * c, 0), n * c, 1, want)?)
}

fn attended(device: &Device, sizes: Sizes) -> Result<Work> {
    let [n, t, c, heads] = std::array::from_fn(|i| sizes[i]);
    if heads == 0 || c % heads != 0 {
        return Err(crate::Error::config(format!("attention: {c} channels in {heads} heads")));
    }
    let (shape, width) = (Shape::new(1, t, c), c / heads);
    let want = move |x: &[f32], at: usize| {
        let (image, row, head) = (at / (t * c), at / c % t, at % c / width);
        let value = |part: usize, token: usize, i: usize| {
            f64::from(x[(image * t + token) * 3 * c + part * c + head * width + i])
        };
        let scale = 1.0 / (width as f64).sqrt();
        let score = |j: usize| (0..width).map(|i| value(0, row, i) * value(1, j, i)).sum::<f64>() * scale;
        let scores: Vec<f64> = (0..t).map(score).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let all: f64 = weights.iter().sum();
        weights.iter().enumerate().map(|(j, p)| p * value(2, j, at % width)).sum::<f64>() / all
    };
    let squares = n * heads * t * t;
    let map = match device.cuda() {
        Some(cuda) => {
            let saved = std::cell::RefCell::new(cuda.alloc::<f32>(squares)?);
            Map::Cuda(Box::new(move |cuda, y, x| {
                cuda::attention::forward(cuda, y, saved.borrow_mut().output(), x, n, shape, heads, None)
            }))
        }
        None => Map::Cpu(Box::new(move |device, y, x| {
            share(device, y, x, n, |y, x, n| {
                attention::forward(y, &mut vec![0.0; n * heads * t * t], x, n, shape, heads, None);
            });
        })),
    };
    let (x, y) = (3 * n * t * c, n * t * c);
    work(
        4 * (x + y + squares),
        4 * n * t * t * c,
        Mapped::new(device, map, normals(x, 0), y, t + width, want)?,
    )
}

fn losses(device: &Device, sizes: Sizes) -> Result<Work> {
    let (n, classes) = (sizes[0], sizes[1]);
    let labels: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
    let want = move |x: &[f32], at: usize| {
        let row = &x[at * classes..][..classes];
        row.iter().map(|z| f64::from(*z).exp()).sum::<f64>().ln() - f64::from(row[at % classes])
    };
    let map = match device.cuda() {
        Some(cuda) => {
            let labels = cuda.upload(&labels)?;
            Map::Cuda(Box::new(move |cuda, y, x| {
                cuda::loss::values(cuda, y, x, labels.input(), Loss::default())
            }))
        }
        None => Map::Cpu(Box::new(move |device, y, x| {
            let each = n.div_ceil(4 * device.threads());
            device.scope(|| {
                let parts =
                    y.par_chunks_mut(each).zip(x.par_chunks(each * classes)).zip(labels.par_chunks(each));
                parts.for_each(|((y, x), labels)| {
                    for ((y, z), &label) in y.iter_mut().zip(x.chunks_exact(classes)).zip(labels) {
                        *y = softmax::value(z, label as usize, 0.0) as f32;
                    }
                });
            });
        })),
    };
    work(4 * n * (classes + 2), 0, Mapped::new(device, map, normals(n * classes, 0), n, 1, want)?)
}

/// Whole selections, of columns that make up Y.
struct Selection {
    device: Device,
    y: Vec<f64>,
    x: Vec<f64>,
    sizes: [usize; 3],
}

impl Selection {
    fn select(&self) -> Result<crate::codec::Foci> {
        let [n, p, k] = self.sizes;
        let options = FociOptions { all: true, max_features: Some(k), ..Default::default() };
        foci(&self.device, &self.y, &Columns::from_columns_f64(&self.x, n, p)?, &options)
    }
}

impl Kernel for Selection {
    fn run(&mut self, _: usize) -> Result<()> {
        self.select().map(drop)
    }

    /// The last step's T is that of a k-d tree over its columns.
    fn check(&mut self) -> Result<Check> {
        let [n, p, _] = self.sizes;
        let found = self.select()?;
        let last = found.order.len() - 1;
        let (before, z) = found.order.split_at(last);
        let data = Columns::from_columns_f64(&self.x, n, p)?;
        let tree = statistic(&Device::cpu()?, &self.y, &data, z, before, &Default::default())?.value;
        let error = match (found.conditional[last], tree) {
            (Some(step), Some(tree)) => (step - tree).abs(),
            (step, tree) => f64::from(u8::from(step != tree)),
        };
        Ok(Check { error, tolerance: 1e-12 })
    }
}

fn selected(device: &Device, sizes: Sizes) -> Result<Work> {
    let [n, p, k] = std::array::from_fn(|i| sizes[i]);
    let x: Vec<f64> = normals(n * p, 0).into_iter().map(f64::from).collect();
    let y = (0..n).map(|i| (0..k.min(p)).map(|j| (j + 1) as f64 * x[j * n + i]).sum()).collect();
    let kernel = Selection { device: device.clone(), y, x, sizes: [n, p, k.min(p)] };
    work(8 * n * p * k, 0, Box::new(kernel))
}

/// One step of a selection: the nearest rows by the chosen columns and each candidate.
struct Step {
    cuda: Cuda,
    x: Vec<f64>, // [p + k, n], those chosen last
    sizes: [usize; 3],
    columns: nearest::Candidates,
    distance: Buffer<f64>,
    rank: Buffer<u32>,
    len: Option<u32>,
}

impl Step {
    fn step(&self) -> Result<nearest::Nearest> {
        let (n, tied) = (self.sizes[0], nearest::Tied::All);
        let Some(len) = self.len else {
            return nearest::nearest(&self.cuda, &self.columns, &self.distance, 0..n, &self.rank, tied);
        };
        let mut tally = nearest::Tally::new(&self.cuda)?;
        let distance = self.distance.input();
        let lists = nearest::lists(&self.cuda, distance, n, 0..n, len)?;
        nearest::pruned(&self.cuda, &mut tally, &self.columns, distance, &lists, &self.rank, tied)
    }
}

impl Kernel for Step {
    fn run(&mut self, _: usize) -> Result<()> {
        self.step().map(drop)
    }

    fn check(&mut self) -> Result<Check> {
        let [n, p, _] = self.sizes;
        let (candidates, chosen) = self.x.split_at(p * n);
        let found = self.cuda.download(&self.step()?.sum)?;
        let wrong = |&at: &usize| {
            let (i, column) = (at % n, &candidates[at / n * n..][..n]);
            let all = || chosen.chunks(n).chain([column]);
            let distance = |j: usize| all().fold(0.0, |sum, x| sum + (x[i] - x[j]) * (x[i] - x[j]));
            let best = (0..n).filter(|j| *j != i).map(distance).fold(f64::INFINITY, f64::min);
            let tied = (0..n).filter(|j| *j != i && distance(*j) == best);
            found[at] != tied.map(|j| (i.min(j) + 1) as u64).sum::<u64>()
        };
        let error = (0..n * p).step_by((n * p / LOOKED_AT).max(1)).filter(wrong).count();
        Ok(Check { error: error as f64, tolerance: 0.0 })
    }
}

fn step(device: &Device, sizes: Sizes, pruned: bool) -> Result<Work> {
    let [n, p, k] = std::array::from_fn(|i| sizes[i]);
    let cuda = device.cuda().ok_or_else(|| crate::Error::config("a step alone has no path on the CPU"))?;
    let x: Vec<f64> = normals(n * (p + k), 0).into_iter().map(f64::from).collect();
    let columns = nearest::Candidates::new(cuda, cuda.upload(&x[..n * p])?, n)?;
    let mut distance = cuda.alloc(n * n)?;
    nearest::distance(cuda, &mut distance, &cuda.upload(&x[n * p..])?, n, 0..n, true)?;
    let rank = cuda.upload(&(1..=n as u32).collect::<Vec<u32>>())?;
    let visited = 8.0 * (n as f64).powf(1.0 / (k + 1) as f64); // as in a selection
    let len = pruned.then(|| nearest::list_len(visited as usize));
    let step = Step { cuda: cuda.clone(), x, sizes: [n, p, k], columns, distance, rank, len };
    work(8 * n * (n + p) + 12 * n * p, 0, Box::new(step))
}
