//! What cases share: a map of f32 values on either device, compared with f64 at places spread over its result.

use rayon::prelude::*;

use super::case::{Check, Kernel, Work};
use super::measure::rotation;
use crate::device::Device;
use crate::device::cuda::{Buffer, Cuda, In, Out};
use crate::error::Result;
use crate::ops::philox::{Use, add_normals};
use crate::ops::{Strided, cuda};

/// The number of values that a check compares, spread over the whole result.
pub(super) const LOOKED_AT: usize = 64;

type OnCpu = dyn Fn(&Device, &mut [f32], &[f32]);
type OnCuda = dyn Fn(&Cuda, Out<'_, f32>, In<'_, f32>) -> Result<()>;
/// The value at a place of the output, from the input, in f64.
type Want = dyn Fn(&[f32], usize) -> f64;

/// f32 values from one input to one output.
pub(super) enum Map {
    Cpu(Box<OnCpu>),
    Cuda(Box<OnCuda>),
}

/// A [`Map`] on inputs that rotate.
pub(super) struct Mapped {
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
    pub fn new(
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
            _ => Err(crate::error::Error::config("a kernel of another device")),
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
pub(super) fn share(
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

/// Zeros.
pub(super) fn clear(cuda: &Cuda, y: Out<'_, f32>, zero: In<'_, f32>) -> Result<()> {
    let len = y.len();
    let (to, from) = (Strided { first: 0, stride: 1 }, Strided { first: 0, stride: 0 });
    cuda::shape::copy(cuda, y, zero, len, 1, to, from)
}

/// `sum` = what `work` adds for all of `n` images of `x`: each thread its own, then together, in order.
pub(super) fn sum_of_images(
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
