//! Cases of what is not affine: a copy, noise, layer norm, attention, the loss.

use rayon::prelude::*;

use super::case::{Sizes, Work};
use super::map::{Map, Mapped, normals, share, work};
use crate::device::Device;
use crate::error::Result;
use crate::loss::{Loss, softmax};
use crate::ops::cpu::{attention, layer_norm};
use crate::ops::philox::{self, Use, add_normals};
use crate::ops::{Shape, cuda, perturb};

pub(super) fn copy(device: &Device, sizes: Sizes) -> Result<Work> {
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

pub(super) fn perturbed(device: &Device, sizes: Sizes) -> Result<Work> {
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

pub(super) fn normed(device: &Device, sizes: Sizes) -> Result<Work> {
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

pub(super) fn attended(device: &Device, sizes: Sizes) -> Result<Work> {
    let [n, t, c, heads] = std::array::from_fn(|i| sizes[i]);
    if heads == 0 || c % heads != 0 {
        return Err(crate::error::Error::config(format!("attention: {c} channels in {heads} heads")));
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
                cuda::attention::forward(
                    cuda,
                    y,
                    Some(saved.borrow_mut().output()),
                    x,
                    n,
                    shape,
                    heads,
                    None,
                    None,
                )
            }))
        }
        None => Map::Cpu(Box::new(move |device, y, x| {
            share(device, y, x, n, |y, x, n| {
                attention::forward(y, &mut vec![0.0; n * heads * t * t], x, n, shape, heads, None, None);
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

pub(super) fn losses(device: &Device, sizes: Sizes) -> Result<Work> {
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
