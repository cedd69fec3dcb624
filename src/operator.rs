//! The curvature operator: products with H and with K-FAC's inverse on vectors that are wherever these products run.
//!
//! On the CPU a vector is the host's; on CUDA it stays on the device, and only scalars come back. A solver is written
//! once over [`BlockVector`] and does not know which of the two it has.

use crate::curvature::Curvature;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::kfac::Inverse;
use crate::solve::BlockVector;

fn mixed<T>() -> Result<T> {
    Err(Error::config("a product of a vector on the CPU and one on CUDA"))
}

impl Curvature<'_> {
    /// These values `[p]` as a vector for [`Curvature::product`].
    ///
    /// # Errors
    /// Where the memory is not there.
    pub fn block_vector(&self, values: &[f64]) -> Result<BlockVector> {
        Ok(match self.vector(values)? {
            Some(vector) => BlockVector::Cuda(vector),
            None => BlockVector::Host(values.to_vec()),
        })
    }

    /// `hv` = H v, both `[p]`: the mean over the inputs, without damping or weight decay. On the CPU it costs `[p]` f32
    /// of scratch.
    ///
    /// # Errors
    /// Where a vector is not of the block's length, is not from [`Curvature::block_vector`], or the device fails.
    pub fn product(&self, hv: &mut BlockVector, v: &BlockVector) -> Result<()> {
        match (hv, v) {
            (BlockVector::Host(hv), BlockVector::Host(v)) => {
                let mut scratch = vec![0.0f32; v.len()];
                self.apply_wide(hv, v, &mut scratch)
            }
            (BlockVector::Cuda(hv), BlockVector::Cuda(v)) => self.apply_on(hv, v),
            (BlockVector::Host(_), BlockVector::Cuda(_)) | (BlockVector::Cuda(_), BlockVector::Host(_)) => {
                mixed()
            }
        }
    }
}

impl Inverse {
    /// `out` = (H + λI)⁻¹ v, both `[p]`, without moving either between the devices.
    ///
    /// # Errors
    /// Where a vector is not of the block's length or not where the inverse is, or the device fails.
    pub fn product(&self, device: &Device, out: &mut BlockVector, v: &BlockVector) -> Result<()> {
        match (out, v) {
            (BlockVector::Host(out), BlockVector::Host(v)) => self.apply(device, out, v),
            (BlockVector::Cuda(out), BlockVector::Cuda(v)) => self.apply_on(out, v),
            (BlockVector::Host(_), BlockVector::Cuda(_)) | (BlockVector::Cuda(_), BlockVector::Host(_)) => {
                mixed()
            }
        }
    }
}
