//! What cases of operations share: values, runs of an operation into poisoned buffers, and comparisons.
use libtest_mimic::Failed;
use scrubjay::device::Cuda;
use scrubjay::device::cuda::{Buffer, Element, Scalar};
use scrubjay::net::{Network, Op};
use scrubjay::ops::Precision;
use scrubjay::ops::cuda as on_cuda;

use super::dual::{Dual, Number};
use super::ptx;
use super::twice;

/// Values with ties, zeros of both signs and a constant run.
pub fn values(len: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| {
        let x = (((i + 1) * (2 * seed + 37)) as f32 * 0.618_034).fract() * 4.0 - 2.0;
        match i % 7 {
            0 => 0.0,
            1 => -0.0,
            2 | 3 => (x * 2.0).round() / 2.0,
            _ if i % 64 < 9 => 0.3,
            _ => x,
        }
    };
    (0..len).map(value).collect()
}

/// A value of any type that kernels keep in memory.
pub trait Stored: Scalar + bytemuck::Pod {
    /// f32 rounded to it, by plain arithmetic.
    fn rounded(x: f32) -> f32 {
        match Self::ELEMENT {
            Element::F32 => x,
            Element::Bf16 => ptx::bf16(x) as f32,
            Element::F16 => ptx::f16(x) as f32,
        }
    }
    /// A number that it holds.
    fn of(x: f32) -> Self;
    /// The number that it is.
    fn wide(self) -> f32;
}

impl Stored for f32 {
    fn of(x: f32) -> f32 {
        x
    }
    fn wide(self) -> f32 {
        self
    }
}

impl Stored for half::bf16 {
    fn of(x: f32) -> half::bf16 {
        half::bf16::from_f32(x)
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
}

impl Stored for half::f16 {
    fn of(x: f32) -> half::f16 {
        half::f16::from_f32(x)
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
}

/// Values rounded to a type, by plain arithmetic.
pub fn rounded<T: Stored>(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&x| T::rounded(x)).collect()
}

/// Values that a type holds, in memory in that type.
pub fn upload<T: Stored>(cuda: &Cuda, values: &[f32]) -> scrubjay::Result<Buffer<T>> {
    cuda.upload(&values.iter().map(|&x| T::of(x)).collect::<Vec<T>>())
}

/// What `work` writes to values of a type that begin as `start`, twice the same.
pub fn stores<T: Stored>(
    cuda: &Cuda,
    start: &[f32],
    work: impl Fn(on_cuda::Out<'_, T>) -> scrubjay::Result<()>,
) -> Result<Vec<f32>, Failed> {
    let bits = twice(|| {
        let mut out = upload::<T>(cuda, start)?;
        work(out.output())?;
        Ok(cuda.download(&out)?.into_iter().map(|x| x.wide().to_bits()).collect::<Vec<u32>>())
    })?;
    Ok(bits.into_iter().map(f32::from_bits).collect())
}

/// The type of 16 bits that a precision keeps values in, by the name of a case.
pub const HALVES: [Precision; 2] = [Precision::Bf16, Precision::F16];

/// Fails where a bit differs.
pub fn same_bits(what: &str, found: &[f32], expected: &[f32]) -> Result<(), Failed> {
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    match found.iter().zip(expected).position(differs) {
        Some(i) => Err(format!("{what}[{i}]: {:e}, expected {:e}", found[i], expected[i]).into()),
        None if found.len() != expected.len() => Err(format!("{what}: {} values", found.len()).into()),
        None => Ok(()),
    }
}

/// What `work` writes to `start` on the device, twice the same.
pub fn adds(
    cuda: &Cuda,
    start: &[f32],
    work: impl Fn(on_cuda::Out<'_, f32>) -> scrubjay::Result<()>,
) -> Result<Vec<f32>, Failed> {
    let bits = twice(|| {
        let mut out = cuda.upload(start)?;
        work(out.output())?;
        Ok(cuda.download(&out)?.into_iter().map(f32::to_bits).collect::<Vec<u32>>())
    })?;
    Ok(bits.into_iter().map(f32::from_bits).collect())
}

/// What `work` writes to `len` values that begin as NaN.
pub fn writes(
    cuda: &Cuda,
    len: usize,
    work: impl Fn(on_cuda::Out<'_, f32>) -> scrubjay::Result<()>,
) -> Result<Vec<f32>, Failed> {
    adds(cuda, &vec![f32::NAN; len], work)
}

/// Steps of f32 (`f32::EPSILON`) of the whole that the result of one operation may be off by beside what a plain loop is.
const STEPS: f64 = 4.0;

/// What a result may be off by: twice as much as a plain f32 loop, four steps of f32 (`f32::EPSILON`) of its size, and two more
/// for each further product of tensor cores that the values passed through ([`products_passed`]). Tensor cores cut a sum off in one
/// direction after every eight products, by half a step on average: two steps for the 32 products that sums of small networks
/// have.
pub fn allowed_through(products: usize, plain_error: f64, size: f64) -> f64 {
    let steps = STEPS + 2.0 * products.saturating_sub(1) as f64;
    2.0 * plain_error + steps * f64::from(f32::EPSILON) * size
}

/// The products that the longest path through a network has: one of each affine layer, two of each attention.
pub fn products_passed(net: &Network) -> usize {
    net.layers.len() + 2 * net.nodes.iter().filter(|node| matches!(node.op, Op::Attention { .. })).count()
}

/// Fails unless ‖found − exact‖ is at most twice that of a plain f32 loop, and four steps of f32 of ‖exact‖ more.
pub fn close<T: Copy + Into<f64>>(
    what: &str,
    found: &[T],
    exact: &[f64],
    plain: &[f32],
) -> Result<(), Failed> {
    close_through(1, what, found, exact, plain)
}

/// The same of what passed through so many products of tensor cores ([`allowed_through`]).
pub fn close_through<T: Copy + Into<f64>>(
    products: usize,
    what: &str,
    found: &[T],
    exact: &[f64],
    plain: &[f32],
) -> Result<(), Failed> {
    let norm = |f: &dyn Fn(usize) -> f64| (0..exact.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
    let error = norm(&|i| found[i].into() - exact[i]);
    let loop_error = norm(&|i| f64::from(plain[i]) - exact[i]);
    let allowed = allowed_through(products, loop_error, norm(&|i| exact[i]));
    match found.len() == exact.len() && error <= allowed {
        true => Ok(()),
        false => Err(format!(
            "{what}: off by {error:e}, allowed {allowed:e}; a plain loop is off by {loop_error:e}"
        )
        .into()),
    }
}

/// Fails unless ‖found − expected‖ is within 1e-5 of ‖expected‖: two ways of summing in f32.
pub fn near<T: Copy + Into<f64>>(what: &str, found: &[T], expected: &[T]) -> Result<(), Failed> {
    let norm = |f: &dyn Fn(usize) -> f64| (0..expected.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
    let (off, size) = (norm(&|i| found[i].into() - expected[i].into()), norm(&|i| expected[i].into()));
    match found.len() == expected.len() && off <= 1e-5 * size {
        true => Ok(()),
        false => Err(Failed::from(format!("{what}: off by {off:e} of {size:e}"))),
    }
}

/// Values as another number.
pub fn wide<T: Number>(values: &[f32]) -> Vec<T> {
    values.iter().map(|&v| T::of(f64::from(v))).collect()
}

/// Values with a direction.
pub fn dual<T: Number>(values: &[f32], slopes: &[f32]) -> Vec<Dual<T>> {
    let pair = |(value, slope)| Dual { value, slope };
    wide(values).into_iter().zip(wide(slopes)).map(pair).collect()
}

pub fn slopes<T: Copy>(values: &[Dual<T>]) -> Vec<T> {
    values.iter().map(|v| v.slope).collect()
}

/// The sum of two vectors.
pub fn plus<T: Number>(a: &[T], b: &[T]) -> Vec<T> {
    a.iter().zip(b).map(|(&a, &b)| a + b).collect()
}
