//! The peak rates of a device, measured, and the least time that they leave for a case.

use rayon::prelude::*;

use super::case::{Check, Kernel, Work};
use super::cases::CASES;
use super::measure::{measure, repeat};
use crate::device::Device;
use crate::device::cuda::Cuda;
use crate::error::{Error, Result};
use crate::ops::cpu::gemm::{Matrix, gemm};
use crate::ops::cuda::ptx;

/// The measured peak rates of the device.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Ceilings {
    /// Bytes per second of a large copy, reads and writes.
    pub bandwidth: f64,
    /// f32 operations per second: of a matrix product that fits the caches of a core, on every core; on CUDA a third of
    /// `tf32`, because one product of f32 takes three of tf32.
    pub peak: f64,
    /// Operations per second of tensor cores by mma.sync in tf32; on CUDA.
    pub tf32: Option<f64>,
    /// The same in bf16 or f16.
    pub half: Option<f64>,
}

impl Ceilings {
    /// The least seconds that `work` of operands of `dtype` can take, and what bounds it: `memory` or `compute`.
    pub fn floor(&self, work: &Work, dtype: &str) -> (f64, &'static str) {
        let peak = match dtype {
            "tf32" => self.tf32,
            "bf16" | "f16" => self.half,
            _ => None,
        };
        let (memory, compute) = (work.bytes / self.bandwidth, work.flops / peak.unwrap_or(self.peak));
        if compute > memory { (compute, "compute") } else { (memory, "memory") }
    }
}

/// Measures both ceilings of a device.
///
/// # Errors
/// Where the device fails.
pub fn ceilings(device: &Device) -> Result<Ceilings> {
    let copy = CASES.iter().find(|case| case.name == "copy");
    let copy = copy.ok_or_else(|| Error::config("there is no copy to measure the bandwidth with"))?;
    let sizes: Vec<usize> = copy.axes.iter().map(|(_, size)| *size).collect();
    let mut work = (copy.make)(device, &sizes)?;
    let bandwidth = work.bytes / measure(device, &mut work)?.least;
    let Some(cuda) = device.cuda() else {
        return Ok(Ceilings { bandwidth, peak: peak(device)?, tf32: None, half: None });
    };
    let (tf32, half) = (tensor_cores(device, cuda, false)?, tensor_cores(device, cuda, true)?);
    Ok(Ceilings { bandwidth, peak: tf32 / 3.0, tf32: Some(tf32), half: Some(half) })
}

/// Operations per second of tensor cores that read nothing.
fn tensor_cores(device: &Device, cuda: &Cuda, bf16: bool) -> Result<f64> {
    const THREADS: usize = 1 << 18; // more than any GPU runs at once
    const STEPS: u32 = 1 << 12;
    let mut out = cuda.alloc(THREADS)?;
    let least = repeat(device, &mut |_| ptx::peak(cuda, &mut out, STEPS, bf16))?.least;
    Ok(ptx::peak_flops(THREADS, STEPS, bf16) / least)
}

/// Operations per second of matrix products of 512³, one on each thread.
fn peak(device: &Device) -> Result<f64> {
    let threads = device.threads();
    let c = vec![0.0; threads * Products::SIDE.pow(2)];
    let products = Products { device: device.clone(), a: vec![1.0; Products::SIDE.pow(2)], c };
    let flops = 2.0 * (threads * Products::SIDE.pow(3)) as f64;
    let mut work = Work { bytes: 0.0, flops, kernel: Box::new(products) };
    Ok(flops / measure(device, &mut work)?.least)
}

struct Products {
    device: Device,
    a: Vec<f32>,
    c: Vec<f32>,
}

impl Products {
    const SIDE: usize = 512;
}

impl Kernel for Products {
    fn run(&mut self, _: usize) -> Result<()> {
        let Products { device, a, c } = self;
        let m = Matrix::rows(a, Products::SIDE, Products::SIDE, Products::SIDE);
        let product = |c: &mut [f32]| gemm(c, Products::SIDE, m, m.t(), 1.0, false);
        device.scope(|| c.par_chunks_exact_mut(Products::SIDE.pow(2)).for_each(product));
        Ok(())
    }

    fn check(&mut self) -> Result<Check> {
        let wrong = self.c.iter().filter(|c| **c != Products::SIDE as f32).count();
        Ok(Check { error: wrong as f64, tolerance: 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_slower_of_memory_and_arithmetic() {
        struct Nothing;
        impl Kernel for Nothing {
            fn run(&mut self, _: usize) -> Result<()> {
                Ok(())
            }
            fn check(&mut self) -> Result<Check> {
                Ok(Check { error: 0.0, tolerance: 0.0 })
            }
        }
        let work = |bytes, flops| Work { bytes, flops, kernel: Box::new(Nothing) };
        let ceilings = Ceilings { bandwidth: 10.0, peak: 100.0, tf32: Some(300.0), half: Some(900.0) };
        assert_eq!(ceilings.floor(&work(20.0, 100.0), "f32"), (2.0, "memory"));
        assert_eq!(ceilings.floor(&work(20.0, 900.0), "f32"), (9.0, "compute"));
        assert_eq!(ceilings.floor(&work(20.0, 900.0), "tf32"), (3.0, "compute"));
        assert_eq!(ceilings.floor(&work(20.0, 900.0), "f16"), (2.0, "memory"));
    }
}
