//! DLPack 1.x: tensors of other libraries as views, and the library's own values as tensors for others. Nothing is copied.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::entry::entry;
use crate::handle::{Handle, Object};
use crate::layout::Layout;
use crate::passes::TraceObject;
use crate::raw::{In, Out};
use crate::samples::SamplesObject;
use crate::status::{Failure, NULL, Outcome, UNSUPPORTED};
use crate::tensor::{self, Tensor};

/// `DLManagedTensorVersioned`, as DLPack's header declares it.
#[repr(C)]
pub struct Managed {
    version: [u32; 2],
    context: *mut c_void,
    deleter: Option<extern "C" fn(*mut Managed)>,
    flags: u64,
    data: *mut c_void,
    device: [i32; 2],
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

const _: () = assert!(size_of::<Managed>() == 80); // of DLPack 1.0 on 64-bit machines

/// The version that is written; minor ones only add.
const VERSION: [u32; 2] = [1, 0];
const READ_ONLY: u64 = 1;

/// DLPack's numbers of devices: memory of the host, of a GPU, of the host for a GPU, and of both.
const CPU: i32 = 1;
const CUDA: i32 = 2;
const CUDA_HOST: i32 = 3;
const CUDA_MANAGED: i32 = 13;

/// The number of a type in [`crate::tensor::TYPES`], from DLPack's code and bits.
fn dtype(managed: &Managed) -> Outcome<i32> {
    match (managed.code, managed.bits, managed.lanes) {
        (2, 32, 1) => Ok(0),
        (2, 64, 1) => Ok(1),
        (2, 16, 1) => Ok(2),
        (4, 16, 1) => Ok(3),
        (0, 32, 1) => Ok(4),
        (0, 64, 1) => Ok(5),
        (1, 32, 1) => Ok(6),
        (1 | 6, 8, 1) => Ok(7), // also of booleans
        (code, bits, lanes) => Err(Failure::new(
            UNSUPPORTED,
            format!(
                "a DLPack tensor of type code {code}, {bits} bits and {lanes} lanes, which is not taken here"
            ),
        )),
    }
}

/// A tensor that was given out, and what it shows. The tensor comes first, so that a pointer to it is one to the whole.
#[repr(C)]
struct Given<T> {
    managed: Managed,
    _owner: Arc<T>,
}

/// Ends a tensor that was given out.
extern "C" fn delete<T>(managed: *mut Managed) {
    if managed.is_null() {
        return;
    }
    // SAFETY: this is the deleter only of what `give` made by `Box`, whose first field the pointer is to; DLPack calls a
    // deleter once.
    let given = unsafe { Box::from_raw(managed.cast::<Given<T>>()) };
    // A panic must not leave a function of C.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(given)));
}

/// Gives out a read-only tensor of values that `owner` holds.
fn give<T: Object>(
    owner: Arc<T>,
    values: &[f32],
    dtype: &str,
    layout: &Layout,
    out: &Out<*mut Managed>,
) -> Outcome {
    let place = out.open("place of the DLPack tensor")?;
    let managed = described::<T>(values, dtype, layout);
    place.write(Box::into_raw(Box::new(Given { managed, _owner: owner })).cast::<Managed>());
    Ok(())
}

fn described<T>(values: &[f32], dtype: &str, layout: &Layout) -> Managed {
    Managed {
        version: VERSION,
        context: std::ptr::null_mut(),
        deleter: Some(delete::<T>),
        flags: READ_ONLY,
        data: values.as_ptr().cast_mut().cast(),
        device: [CPU, 0],
        ndim: layout.shape().len() as i32,
        code: if dtype == "u32" { 1 } else { 2 }, // the words of texts, or floats
        bits: 32,
        lanes: 1,
        shape: layout.shape().as_ptr(),
        strides: layout.strides().as_ptr(),
        byte_offset: 0,
    }
}

entry! {
    /// A view of another library's tensor.
    fn sj_tensor_from_dlpack(dlpack: In<Managed>, writable: i32, tensor: Out<Tensor>) {
        let (managed, place) = (dlpack.get("DLPack tensor")?, tensor.open("tensor")?);
        let [major, minor] = managed.version;
        if major != VERSION[0] {
            return Err(Failure::new(UNSUPPORTED, format!("a DLPack tensor of version {major}.{minor}; 1.x is taken here")));
        }
        if writable != 0 && managed.flags & READ_ONLY != 0 {
            return Err(Failure::argument("the DLPack tensor is read-only, and is to be written"));
        }
        let (device, device_index) = match managed.device {
            [CPU | CUDA_HOST, _] => (tensor::CPU, 0),
            [CUDA | CUDA_MANAGED, ordinal] => (tensor::CUDA, ordinal),
            [other, _] => {
                let reason = "is neither in host memory nor on a CUDA GPU; copy it to one of these";
                return Err(Failure::new(UNSUPPORTED, format!("the DLPack tensor (device type {other}) {reason}")));
            }
        };
        let dtype = dtype(managed)?;
        if managed.ndim > 0 && managed.shape.is_null() {
            return Err(Failure::new(NULL, "the shape of the DLPack tensor is NULL"));
        }
        let offset = usize::try_from(managed.byte_offset).ok();
        let data = offset.and_then(|offset| (managed.data as usize).checked_add(offset));
        let Some((offset, _)) = offset.zip(data) else {
            return Err(Failure::argument("the byte_offset of the DLPack tensor is beyond what can be addressed"));
        };
        place.write(Tensor {
            data: managed.data.cast::<u8>().wrapping_add(offset).cast(),
            dtype,
            device,
            device_index,
            ndim: managed.ndim,
            shape: In::at(managed.shape),
            strides: In::at(managed.strides),
            stream: std::ptr::null_mut(),
        });
        Ok(())
    }

    /// A part of a trace, for another library.
    fn sj_trace_to_dlpack(trace: Handle<TraceObject>, part: i32, dlpack: Out<*mut Managed>) {
        let owner = trace.get()?;
        let (values, layout) = owner.part(part)?;
        give(owner.clone(), values, "f32", layout, &dlpack)
    }

    /// The inputs of samples, for another library.
    fn sj_samples_to_dlpack(samples: Handle<SamplesObject>, dlpack: Out<*mut Managed>) {
        let owner = samples.get()?;
        let (values, dtype, layout) = owner.x();
        give(owner.clone(), values, dtype, layout, &dlpack)
    }
}
