//! The vectors that a solver keeps: on the host, or on a CUDA device, from which only scalars come back.

use crate::device::Cuda;
use crate::device::cuda::{Buffer, In, Out};
use crate::error::{Error, Result};
use crate::ops::cuda::vector;

/// A vector in f64 and what solvers do with it; vectors of one solve are of one length and device.
///
/// # Errors
/// All fail where the device does.
pub trait Vector: Sized {
    /// These values on the same device.
    fn like(&self, values: &[f64]) -> Result<Self>;

    /// The values, on the host.
    fn values(&self) -> Result<Vec<f64>>;

    /// How many there are.
    fn dimension(&self) -> usize;

    /// self = x.
    fn set(&mut self, x: &Self) -> Result<()>;

    /// self += a x.
    fn add(&mut self, a: f64, x: &Self) -> Result<()>;

    /// self = x + keep · self.
    fn mix(&mut self, x: &Self, keep: f64) -> Result<()>;

    /// self = self / by.
    fn divide(&mut self, by: f64) -> Result<()>;

    /// Σ self · x.
    fn dot(&self, x: &Self) -> Result<f64>;

    /// As long, of zeros.
    fn zeros(&self) -> Result<Self> {
        self.like(&vec![0.0; self.dimension()])
    }

    /// The same values once more.
    fn copy(&self) -> Result<Self> {
        let mut copy = self.zeros()?;
        copy.set(self)?;
        Ok(copy)
    }

    /// The root of Σ self².
    fn norm(&self) -> Result<f64> {
        Ok(self.dot(self)?.sqrt())
    }
}

impl Vector for Vec<f64> {
    fn like(&self, values: &[f64]) -> Result<Self> {
        Ok(values.to_vec())
    }

    fn values(&self) -> Result<Vec<f64>> {
        Ok(self.clone())
    }

    fn dimension(&self) -> usize {
        self.len()
    }

    fn set(&mut self, x: &Self) -> Result<()> {
        self.copy_from_slice(x);
        Ok(())
    }

    fn add(&mut self, a: f64, x: &Self) -> Result<()> {
        self.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
        Ok(())
    }

    fn mix(&mut self, x: &Self, keep: f64) -> Result<()> {
        self.iter_mut().zip(x).for_each(|(y, x)| *y = x + keep * *y);
        Ok(())
    }

    fn divide(&mut self, by: f64) -> Result<()> {
        self.iter_mut().for_each(|y| *y /= by);
        Ok(())
    }

    fn dot(&self, x: &Self) -> Result<f64> {
        Ok(self.iter().zip(x).map(|(a, b)| a * b).sum())
    }
}

/// A vector of a block where the block's products run: on the host, or on a CUDA device.
///
/// [`Curvature::vector`] and [`Inverse::product`] hide behind it which of the two it is, so that whoever solves is
/// written once.
///
/// [`Curvature::vector`]: crate::curvature::Curvature::vector
/// [`Inverse::product`]: crate::kfac::Inverse::product
pub enum BlockVector {
    /// In the host's memory.
    Host(Vec<f64>),
    /// In the memory of a CUDA device.
    Cuda(CudaVector),
}

/// The error of two vectors that are not on one device.
fn mixed<T>() -> Result<T> {
    Err(Error::config("an operation on a vector on the CPU and one on CUDA"))
}

impl BlockVector {
    fn with<R>(
        &mut self,
        x: &BlockVector,
        host: impl FnOnce(&mut Vec<f64>, &Vec<f64>) -> Result<R>,
        cuda: impl FnOnce(&mut CudaVector, &CudaVector) -> Result<R>,
    ) -> Result<R> {
        match (self, x) {
            (BlockVector::Host(own), BlockVector::Host(x)) => host(own, x),
            (BlockVector::Cuda(own), BlockVector::Cuda(x)) => cuda(own, x),
            (BlockVector::Host(_), BlockVector::Cuda(_)) | (BlockVector::Cuda(_), BlockVector::Host(_)) => {
                mixed()
            }
        }
    }
}

impl Vector for BlockVector {
    fn like(&self, values: &[f64]) -> Result<Self> {
        match self {
            BlockVector::Host(own) => own.like(values).map(BlockVector::Host),
            BlockVector::Cuda(own) => own.like(values).map(BlockVector::Cuda),
        }
    }

    fn values(&self) -> Result<Vec<f64>> {
        match self {
            BlockVector::Host(own) => own.values(),
            BlockVector::Cuda(own) => own.values(),
        }
    }

    fn dimension(&self) -> usize {
        match self {
            BlockVector::Host(own) => own.dimension(),
            BlockVector::Cuda(own) => own.dimension(),
        }
    }

    fn set(&mut self, x: &Self) -> Result<()> {
        self.with(x, |own, x| own.set(x), |own, x| own.set(x))
    }

    fn add(&mut self, a: f64, x: &Self) -> Result<()> {
        self.with(x, |own, x| own.add(a, x), |own, x| own.add(a, x))
    }

    fn mix(&mut self, x: &Self, keep: f64) -> Result<()> {
        self.with(x, |own, x| own.mix(x, keep), |own, x| own.mix(x, keep))
    }

    fn divide(&mut self, by: f64) -> Result<()> {
        match self {
            BlockVector::Host(own) => own.divide(by),
            BlockVector::Cuda(own) => own.divide(by),
        }
    }

    fn dot(&self, x: &Self) -> Result<f64> {
        match (self, x) {
            (BlockVector::Host(own), BlockVector::Host(x)) => own.dot(x),
            (BlockVector::Cuda(own), BlockVector::Cuda(x)) => own.dot(x),
            (BlockVector::Host(_), BlockVector::Cuda(_)) | (BlockVector::Cuda(_), BlockVector::Host(_)) => {
                mixed()
            }
        }
    }
}

/// A vector in the memory of a CUDA device.
pub struct CudaVector {
    cuda: Cuda,
    values: Buffer<f64>,
}

impl CudaVector {
    /// These values on a device.
    ///
    /// # Errors
    /// Where the memory is not there.
    pub fn new(cuda: &Cuda, values: &[f64]) -> Result<CudaVector> {
        Ok(CudaVector { cuda: cuda.clone(), values: cuda.upload(values)? })
    }

    /// As what an operation reads.
    pub fn input(&self) -> In<'_, f64> {
        self.values.input()
    }

    /// As what an operation writes.
    pub fn output(&mut self) -> Out<'_, f64> {
        self.values.output()
    }

    /// The largest |value|.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn largest(&self) -> Result<f64> {
        let (mut scratch, mut top) = (self.cuda.alloc(vector::parts(self.values.len()))?, [0.0]);
        vector::largest(&self.cuda, scratch.output(), self.values.input())?;
        self.cuda.read(&mut top, scratch.input().part(scratch.len() - 1..scratch.len()))?;
        Ok(top[0])
    }

    fn combine(&mut self, b: f64, added: Option<(f64, &CudaVector)>, over: f64) -> Result<()> {
        let added = added.map(|(a, x)| (a, x.values.input()));
        vector::combine(&self.cuda, self.values.output(), b, added, over)
    }
}

impl Vector for CudaVector {
    fn like(&self, values: &[f64]) -> Result<Self> {
        CudaVector::new(&self.cuda, values)
    }

    fn values(&self) -> Result<Vec<f64>> {
        self.cuda.download(&self.values)
    }

    fn dimension(&self) -> usize {
        self.values.len()
    }

    fn set(&mut self, x: &Self) -> Result<()> {
        self.combine(0.0, Some((1.0, x)), 1.0)
    }

    fn add(&mut self, a: f64, x: &Self) -> Result<()> {
        self.combine(1.0, Some((a, x)), 1.0)
    }

    fn mix(&mut self, x: &Self, keep: f64) -> Result<()> {
        self.combine(keep, Some((1.0, x)), 1.0)
    }

    fn divide(&mut self, by: f64) -> Result<()> {
        self.combine(1.0, None, by)
    }

    fn dot(&self, x: &Self) -> Result<f64> {
        let (mut scratch, mut sum) = (self.cuda.alloc(vector::parts(self.values.len()))?, [0.0]);
        vector::dot(&self.cuda, scratch.output(), self.values.input(), x.values.input())?;
        self.cuda.read(&mut sum, scratch.input().part(scratch.len() - 1..scratch.len()))?;
        Ok(sum[0])
    }
}
