//! Tensor maps, by which the copy engine of sm_90a (TMA) takes [`Boxes`] out of a tensor.

use super::boxes::Boxes;
use super::buffer::In;
use super::launch::{Argument, Arguments};
use super::{Cuda, Driver};
use crate::error::{Error, Result};

/// A tensor map as a kernel takes it.
#[derive(Clone, Debug)]
pub struct TensorMap {
    words: [u64; 16],
    address: u64,
}

impl Cuda {
    /// The tensor map of `tensor`, which begins on 16 bytes.
    ///
    /// # Errors
    /// Where the boxes do not fit the tensor or the hardware, or the driver refuses.
    pub fn tensor_map(&self, tensor: In<'_, u16>, boxes: &Boxes) -> Result<TensorMap> {
        let unaligned = (!tensor.address.is_multiple_of(16))
            .then(|| "a tensor that is not aligned to 16 bytes".to_string());
        if let Some(fault) = boxes.fault(tensor.len).or(unaligned) {
            return Err(Error::shape("tensor map", "boxes that TMA can copy", fault));
        }
        let words = self.checked("tensor map", || match &self.opened.driver {
            Driver::Gpu(driver) => driver.tensor_map(tensor.address, boxes),
            #[cfg(feature = "emu")]
            Driver::Emu(driver) => driver.tensor_map(tensor.address, boxes),
        })?;
        Ok(TensorMap { words, address: tensor.address })
    }
}

impl Argument for &TensorMap {
    fn push(self, to: &mut Arguments) {
        to.push(&self.words);
        to.addresses.push(self.address);
    }
}
