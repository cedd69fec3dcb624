//! Values that another library keeps in the memory of a GPU, copied to and from the host.
//!
//! The other library has streams of its own in the GPU's primary context, which is the one of the CUDA runtime. A copy is put
//! on the stream that it names, behind the work that is there, and waited for.

use std::ffi::c_void;

use cudarc::driver::{DriverError, result, sys};

use super::gpu::{failed, probe};
use crate::error::{Error, Result};

/// Where another library's values begin on a GPU.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// The number of the GPU among those that the driver shows.
    pub ordinal: usize,
    /// The address of the first byte.
    pub address: u64,
    /// The stream (`CUstream`) on which the values are ready, or are wanted; NULL is the default one.
    pub stream: *mut c_void,
}

impl Foreign {
    /// Copies values to the host, and waits for them.
    ///
    /// # Errors
    /// Where there is no such GPU, the values are not all of one allocation there, or the driver fails.
    ///
    /// # Safety
    /// The stream is NULL or one of the GPU's primary context, and nothing writes the values meanwhile but what is on it.
    pub unsafe fn read(&self, into: &mut [u8]) -> Result<()> {
        let to = into.as_mut_ptr().cast::<c_void>();
        self.copy("copy from a tensor on the GPU", into.len(), |stream| {
            // SAFETY: the bytes at `to` are ours until the stream is waited for; those on the GPU are of one allocation.
            unsafe { sys::cuMemcpyDtoHAsync_v2(to, self.address, into.len(), stream) }.result()
        })
    }

    /// Copies values from the host, and waits until they are there.
    ///
    /// # Errors
    /// As [`Foreign::read`].
    ///
    /// # Safety
    /// The stream is NULL or one of the GPU's primary context, and nothing uses the values meanwhile but what is on it.
    pub unsafe fn write(&self, from: &[u8]) -> Result<()> {
        self.copy("copy to a tensor on the GPU", from.len(), |stream| {
            // SAFETY: as in `read`.
            unsafe { sys::cuMemcpyHtoDAsync_v2(self.address, from.as_ptr().cast(), from.len(), stream) }
                .result()
        })
    }

    /// Puts a copy of this many bytes on the stream, and waits for it.
    fn copy(
        &self,
        op: &str,
        bytes: usize,
        put: impl FnOnce(sys::CUstream) -> std::result::Result<(), DriverError>,
    ) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.check(bytes)?;
        let _current = Current::enter(self.ordinal).map_err(failed(op))?;
        let stream = self.stream.cast();
        let done = put(stream);
        // SAFETY: the caller promises that this is a stream of the context that is current.
        let waited = unsafe { sys::cuStreamSynchronize(stream) }.result();
        done.and(waited).map_err(failed(op))
    }

    /// Refuses an address that is not of this GPU, and bytes beyond what was allocated there.
    ///
    /// # Errors
    /// As [`Foreign::read`].
    pub fn check(&self, bytes: usize) -> Result<()> {
        use sys::CUpointer_attribute::*;
        let count = probe()?;
        if self.ordinal >= count {
            let found =
                format!("a tensor is on GPU {}, and the driver shows {count}, numbered from 0", self.ordinal);
            return Err(Error::config(found));
        }
        let place = format!("a tensor at {:#x}", self.address);
        let none = |_| {
            Error::config(format!(
                "{place} is described as on GPU {}, whose driver does not know it",
                self.ordinal
            ))
        };
        let kind: u32 = self.attribute(CU_POINTER_ATTRIBUTE_MEMORY_TYPE).map_err(none)?;
        let ordinal: i32 = self.attribute(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL).map_err(none)?;
        if kind != sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32
            || usize::try_from(ordinal) != Ok(self.ordinal)
        {
            let found = if kind == sys::CUmemorytype::CU_MEMORYTYPE_DEVICE as u32 {
                format!("on GPU {ordinal}")
            } else {
                "in host memory".into()
            };
            return Err(Error::config(format!(
                "{place} is {found}, and is described as on GPU {}",
                self.ordinal
            )));
        }
        let start: u64 = self.attribute(CU_POINTER_ATTRIBUTE_RANGE_START_ADDR).map_err(none)?;
        let size: usize = self.attribute(CU_POINTER_ATTRIBUTE_RANGE_SIZE).map_err(none)?;
        let left = (start as usize).checked_add(size).and_then(|end| end.checked_sub(self.address as usize));
        match left.is_some_and(|left| bytes <= left) {
            true => Ok(()),
            false => {
                let left = left.unwrap_or(0);
                Err(Error::config(format!(
                    "{place} takes {bytes} bytes, and its allocation on the GPU has {left} from there on"
                )))
            }
        }
    }

    /// What the driver knows about the address; `T` is the attribute's own type.
    fn attribute<T: Copy + Default>(
        &self,
        which: sys::CUpointer_attribute,
    ) -> std::result::Result<T, DriverError> {
        let mut value = T::default();
        // SAFETY: the driver writes a value of the attribute's type, which is `T`; it looks the address up and reads nothing there.
        unsafe { sys::cuPointerGetAttribute((&raw mut value).cast(), which, self.address) }.result()?;
        Ok(value)
    }
}

/// The primary context of a GPU, current in this thread; then the one before is again.
struct Current(sys::CUdevice);

impl Current {
    fn enter(ordinal: usize) -> std::result::Result<Current, DriverError> {
        let device = result::device::get(ordinal as i32)?;
        // SAFETY: a device that the driver gave.
        let context = unsafe { result::primary_ctx::retain(device) }?;
        // SAFETY: a context that was retained.
        let pushed = unsafe { sys::cuCtxPushCurrent_v2(context) }.result();
        match pushed {
            Ok(()) => Ok(Current(device)),
            Err(error) => {
                // SAFETY: retained above.
                unsafe { result::primary_ctx::release(device) }?;
                Err(error)
            }
        }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        let mut context = std::ptr::null_mut();
        // SAFETY: pushed by `enter`, in this thread. An error leaves nothing to do.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut context) };
        // SAFETY: retained by `enter`.
        let _ = unsafe { result::primary_ctx::release(self.0) };
    }
}
