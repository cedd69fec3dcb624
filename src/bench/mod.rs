//! Kernel benchmarks: the time of one operation at a shape, and the least time that the device needs for it.
//!
//! A [`Case`] makes the [`Work`] of a shape: inputs, a run, the bytes that must move and the operations that must be
//! done, and a check of the result against plain loops in f64. [`measure`] times it, on CUDA by events in the stream.
//! Inputs rotate over more memory than a cache holds, and before each run on CUDA the cache is filled with something
//! else. The floor is the larger of bytes over bandwidth and operations over peak, both [`Ceilings`] measured in the same
//! run (roofline; Williams et al., CACM 2009).

mod affine;
mod cases;
mod codec;
mod layers;
mod map;
mod whole;

use std::time::{Duration, Instant};

use rayon::prelude::*;

pub use cases::CASES;

use crate::device::Device;
use crate::device::cuda::{Buffer, Cuda, Launched};
use crate::ops::Strided;
use crate::ops::cpu::gemm::{Matrix, gemm};
use crate::ops::cuda::{ptx, shape};
use crate::{Error, Result};

/// The sizes of one shape, in the order of [`Case::axes`].
pub type Sizes<'a> = &'a [usize];

/// A kernel that can be timed.
pub struct Case {
    /// What `-b` matches.
    pub name: &'static str,
    /// What it computes.
    pub about: &'static str,
    /// The type that its operands are rounded to; below f32 only on CUDA.
    pub dtype: &'static str,
    /// The axes of its shape and their defaults.
    pub axes: &'static [(&'static str, usize)],
    /// Its work at some sizes.
    pub make: fn(&Device, Sizes) -> Result<Work>,
}

/// A kernel at some sizes, on its inputs.
pub struct Work {
    /// Bytes that must be read or written.
    pub bytes: f64,
    /// Floating-point operations that must be done; 0 where only memory matters.
    pub flops: f64,
    /// The kernel.
    pub kernel: Box<dyn Kernel>,
}

/// What is timed.
pub trait Kernel {
    /// Runs on input `i` of those that rotate.
    ///
    /// # Errors
    /// Where the device fails.
    fn run(&mut self, i: usize) -> Result<()>;

    /// Runs on the first input and compares.
    ///
    /// # Errors
    /// Where the device fails.
    fn check(&mut self) -> Result<Check>;

    /// Has its runs timed. State that runs share is made here.
    ///
    /// # Errors
    /// Where a run fails.
    fn timed(&mut self, timer: &Timer) -> Result<Timing> {
        timer(&mut |i| self.run(i))
    }
}

/// Times what it is given, run after run.
pub type Timer<'a> = dyn Fn(&mut dyn FnMut(usize) -> Result<()>) -> Result<Timing> + 'a;

/// How far a result is from plain loops in f64.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Check {
    /// ‖got − want‖ / ‖want‖ over the values that were compared; for integers, how many differ.
    pub error: f64,
    /// The largest error allowed: that of a plain f32 loop, with a margin; 0 for integers.
    pub tolerance: f64,
}

impl Check {
    /// Whether the result is right.
    pub fn passes(&self) -> bool {
        self.error <= self.tolerance // a NaN does not
    }
}

impl Case {
    /// Whether it runs on a device.
    pub fn runs_on(&self, device: &Device) -> bool {
        self.dtype == "f32" || device.cuda().is_some()
    }
}

/// Checks `work`, and returns the kernels it launched: none on the CPU.
///
/// # Errors
/// Where the device fails.
pub fn check(device: &Device, work: &mut Work) -> Result<(Check, Vec<Launched>)> {
    match device.cuda() {
        Some(cuda) => cuda.listen(|| work.kernel.check()),
        None => Ok((work.kernel.check()?, vec![])),
    }
}

/// The times of one kernel at one shape.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Timing {
    /// Runs that were timed.
    pub samples: usize,
    /// Seconds: the median.
    pub median: f64,
    /// Seconds: the least.
    pub least: f64,
    /// Seconds: the quartiles.
    pub quartiles: [f64; 2],
}

impl Timing {
    /// The distance of the quartiles as a share of the median.
    pub fn noise(&self) -> f64 {
        (self.quartiles[1] - self.quartiles[0]) / self.median
    }
}

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

/// Bytes over which inputs rotate, more than any cache holds.
const ROTATE: usize = 256 << 20;

/// How many inputs of `bytes` rotate.
fn rotation(bytes: usize) -> usize {
    (ROTATE / bytes.max(1)).clamp(1, 16)
}

/// The least number of runs and seconds, unless that takes longer than [`LONGEST`].
const SAMPLES: usize = 11;
const SHORTEST: Duration = Duration::from_millis(300);
const LONGEST: Duration = Duration::from_secs(10);

/// Times `work`, after one run that warms it up.
///
/// # Errors
/// Where a run fails.
pub fn measure(device: &Device, work: &mut Work) -> Result<Timing> {
    work.kernel.timed(&|run| repeat(device, run))
}

fn repeat(device: &Device, run: &mut dyn FnMut(usize) -> Result<()>) -> Result<Timing> {
    run(0)?;
    let mut flush = device.cuda().map(Flush::new).transpose()?;
    let started = Instant::now();
    let mut seconds = vec![];
    while (seconds.len() < SAMPLES || started.elapsed() < SHORTEST)
        && (seconds.len() < 3 || started.elapsed() < LONGEST)
    {
        let i = seconds.len() + 1;
        seconds.push(match &mut flush {
            Some(flush) => {
                flush.run()?;
                let before = flush.cuda.event()?;
                run(i)?;
                flush.cuda.event()?.since(&before)?.as_secs_f64()
            }
            None => {
                let before = Instant::now();
                run(i)?;
                before.elapsed().as_secs_f64()
            }
        });
    }
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[(share * (seconds.len() - 1) as f64).round() as usize];
    Ok(Timing { samples: seconds.len(), median: at(0.5), least: seconds[0], quartiles: [at(0.25), at(0.75)] })
}

/// Memory of twice the size of the L2 cache: writing it evicts all inputs.
struct Flush<'a> {
    cuda: &'a Cuda,
    room: Buffer<f32>,
    zero: Buffer<f32>,
}

impl<'a> Flush<'a> {
    fn new(cuda: &'a Cuda) -> Result<Flush<'a>> {
        let room = cuda.alloc((2 * cuda.cache()? / size_of::<f32>()).max(1))?;
        Ok(Flush { cuda, room, zero: cuda.upload(&[0.0])? })
    }

    fn run(&mut self) -> Result<()> {
        let (len, to, from) =
            (self.room.len(), Strided { first: 0, stride: 1 }, Strided { first: 0, stride: 0 });
        shape::copy(self.cuda, self.room.output(), self.zero.input(), len, 1, to, from)
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

    /// Small sizes for every case.
    fn sizes(case: &Case) -> Vec<usize> {
        let small = |&(axis, size): &(&str, usize)| match axis {
            "copies" | "images" => 2,
            "side" => 16, // a multiple of the patches of a vision transformer
            "width" => 4,
            "depth" => 2,
            "h" | "w" => 7,
            "k" | "stride" | "heads" => size,
            "t" => 10,
            _ => size.min(24),
        };
        case.axes.iter().map(small).collect()
    }

    #[test]
    fn every_case_passes_its_check_and_counts_its_work() {
        let device = Device::on_cpu(2, "a test").unwrap();
        for case in CASES.iter().filter(|case| case.runs_on(&device)) {
            let mut work = (case.make)(&device, &sizes(case)).unwrap();
            let (check, launched) = check(&device, &mut work).unwrap();
            assert!(check.passes() && launched.is_empty(), "{}: {check:?}", case.name);
            assert!(work.bytes > 0.0, "{}", case.name);
            work.kernel.run(3).unwrap();
        }
    }

    #[cfg(feature = "emu")]
    #[test]
    fn every_case_that_cuda_has_passes_its_check_there() {
        let device = Device::emulated(2).unwrap();
        let mut count = 0;
        for case in CASES {
            let mut work = (case.make)(&device, &sizes(case)).unwrap();
            let (check, launched) = check(&device, &mut work).unwrap();
            assert!(check.passes(), "{}: {check:?}", case.name);
            let symbols: Vec<&str> = launched.iter().map(|kernel| kernel.symbol).collect();
            let expected: &[&str] = match case.name {
                "conv_dx" => &["conv_data_f32"],
                "conv_dw" => &["conv_weight_f32", "add_chunks_f32"],
                "conv_bf16" => &["conv_bf16"],
                "conv_f16" => &["conv_f16"],
                "moment_x" => &["input_moment_f32", "add_chunks_f32"],
                "moment_dz" => &["output_moment_f32", "add_chunks_f32"],
                "depthwise" => &["conv_depthwise_f32"],
                "nearest" => &["nearest_f64"],
                "pruned" => &["list_f64", "pruned_f64"],
                _ => &[],
            };
            assert!(
                !symbols.is_empty() && expected.iter().all(|symbol| symbols.contains(symbol)),
                "{symbols:?}"
            );
            assert!(
                launched.iter().all(|kernel| kernel.resources.is_none()),
                "the emulator has no registers"
            );
            work.kernel.run(3).unwrap();
            count += 1;
        }
        assert_eq!(count, CASES.len());
    }

    #[test]
    fn a_wrong_result_does_not_pass() {
        let check = |error| Check { error, tolerance: 1e-6 }.passes();
        assert!(check(0.0) && !check(1e-3) && !check(f64::NAN));
    }

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
