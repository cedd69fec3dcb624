//! A case: the work of a shape, and how its result is checked.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::device::Device;
use crate::device::cuda::Launched;
use crate::error::{Error, Result};

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
    /// Its name, what it computes, and the axes with their defaults, as JSON.
    pub fn json(&self) -> Value {
        let axes: BTreeMap<_, _> = self.axes.iter().copied().collect();
        json!({"kernel": self.name, "about": self.about, "dtype": self.dtype, "axes": axes})
    }

    /// Sizes in words.
    pub fn shape(&self, sizes: Sizes) -> String {
        let shape = self.axes.iter().zip(sizes).map(|((name, _), size)| format!("{name}={size}"));
        shape.collect::<Vec<_>>().join(",")
    }

    /// Refuses sizes of a program that are no shape of it or beyond sense, and a device that does not run it.
    ///
    /// # Errors
    /// Names what does not fit.
    pub fn check(&self, device: &Device, sizes: Sizes) -> Result<()> {
        let Case { name, axes, .. } = self;
        if !self.runs_on(device) {
            return Err(Error::config(format!("the case {name} is for CUDA alone")));
        }
        if sizes.len() != axes.len() {
            return Err(Error::config(format!(
                "{} sizes for the {} axes of {name}",
                sizes.len(),
                axes.len()
            )));
        }
        if let Some(size) = sizes.iter().find(|size| !(1..=1 << 31).contains(*size)) {
            return Err(Error::config(format!("{size} is no size of an axis of {name}")));
        }
        let all = sizes.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        match all.is_some_and(|all| all <= 1 << 40) {
            true => Ok(()),
            false => Err(Error::config(format!("sizes {sizes:?} are beyond 2^40 in all"))),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_result_does_not_pass() {
        let check = |error| Check { error, tolerance: 1e-6 }.passes();
        assert!(check(0.0) && !check(1e-3) && !check(f64::NAN));
    }
}
