//! NVIDIA's driver, opened at run time (cudarc); nothing of CUDA is linked.
//!
//! The library is probed before it is used, since cudarc panics without it. Event tracking is off: there is one stream,
//! and its order is the only one.

use std::ffi::CString;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cudarc::driver::{
    CudaContext, CudaEvent, CudaGraph, CudaSlice, CudaStream, DevicePtr, DriverError, result, sys,
};

use super::boxes::{Boxes, Take};
use super::generated::fatbins::{ARCHITECTURES, FATBINS, MISSING};
use super::launch::{Arguments, Launch, Resources, Row, lock};
use super::staging::{Engine, Staging};
use crate::error::{Error, Result};

/// An opened GPU with all kernels of the table.
pub struct Gpu {
    stream: Arc<CudaStream>,
    staging: Mutex<Staging<CudaStream>>,
    table: &'static [Row],
    functions: Vec<Option<Function>>, // by row of the table; none of a kernel for another architecture
    sm90: bool,
    name: String,
    uuid: Option<String>,
}

struct Function(sys::CUfunction);
// SAFETY: a function handle belongs to the context, not to a thread; the driver locks.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// Device memory.
pub type Memory = Bytes;
/// A recorded event.
pub type Event = CudaEvent;
/// A recorded sequence of launches.
pub struct Graph(CudaGraph);
// SAFETY: a graph belongs to the context, not to a thread; it is not Sync, so that one thread at a time has it.
unsafe impl Send for Graph {}

/// Device memory with its address.
pub struct Bytes {
    address: u64,
    _slice: CudaSlice<u8>, // frees the memory when dropped
}

impl Bytes {
    pub fn address(&self) -> u64 {
        self.address
    }
}

pub fn failed(op: &str) -> impl FnOnce(DriverError) -> Error + '_ {
    move |error| Error::Device { op: op.into(), reason: error.to_string() }
}

fn none(reason: impl Into<String>) -> Error {
    Error::NoGpu { reason: reason.into() }
}

/// Every GPU that the driver shows, in words, whether or not this build has kernels for it.
///
/// # Errors
/// [`Error::NoGpu`] with the reason.
pub fn list() -> Result<Vec<String>> {
    let count = probe()?;
    (0..count).map(|ordinal| describe(&*context(ordinal)?)).collect()
}

/// How many GPUs the driver shows, at least one.
pub fn probe() -> Result<usize> {
    // SAFETY: only tries to open the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(none("libcuda was not found; install the NVIDIA driver"));
    }
    let count = result::init().and_then(|()| CudaContext::device_count());
    match count.map_err(|error| none(format!("the driver cannot be used: {error}")))? {
        count if count > 0 => Ok(count as usize),
        _ => Err(none("the driver shows no GPU; see CUDA_VISIBLE_DEVICES")),
    }
}

fn context(ordinal: usize) -> Result<Arc<CudaContext>> {
    CudaContext::new(ordinal).map_err(|error| none(format!("GPU {ordinal} cannot be opened: {error}")))
}

fn describe(context: &CudaContext) -> Result<String> {
    let name = context.name().map_err(failed("device name"))?;
    let (major, minor) = context.compute_capability().map_err(failed("compute capability"))?;
    let memory = context.total_mem().map_err(failed("device memory"))?;
    Ok(format!("{name}, sm_{major}{minor}, {:.0} GiB", memory as f64 / f64::from(1 << 30)))
}

/// As NVML writes it.
fn uuid(bytes: &[u8; 16]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let groups = [0..4, 4..6, 6..8, 8..10, 10..16].map(|group| hex[group].concat());
    format!("GPU-{}", groups.join("-"))
}

impl Gpu {
    /// Opens a GPU and loads every kernel of the table that it can run.
    pub fn open(ordinal: usize, table: &'static [Row]) -> Result<Gpu> {
        if FATBINS.is_empty() {
            return Err(none(format!("this build has no CUDA kernels: {MISSING}")));
        }
        let count = probe()?;
        if ordinal >= count {
            return Err(none(format!(
                "GPU {ordinal} was asked for, but the driver shows {count}, numbered from 0"
            )));
        }
        let context = context(ordinal)?;
        let name = describe(&context)?;
        let stream = context.new_stream().map_err(failed("stream"))?;
        // SAFETY: everything runs on this one stream, in order.
        unsafe { context.disable_event_tracking() };
        let sm90 = context.compute_capability().map_err(failed("compute capability"))? == (9, 0);
        let mut modules = Vec::new();
        for (stem, fatbin) in FATBINS.iter().filter(|(stem, _)| sm90 || !stem.ends_with("_sm90")) {
            // SAFETY: a whole fatbin, as nvcc wrote it.
            let module = unsafe { result::module::load_data(fatbin.as_ptr().cast()) };
            modules.push(module.map_err(|error| {
                none(format!("{name} cannot run {stem}.cu, built for {ARCHITECTURES}: {error}; SCRUBJAY_CUDA_ARCHS adds others"))
            })?);
        }
        let function = |symbol: &str| {
            let text = CString::new(symbol).map_err(|_| none(format!("{symbol} is no symbol")))?;
            // SAFETY: the modules are loaded and never unloaded.
            let found =
                modules.iter().find_map(|&m| unsafe { result::module::get_function(m, text.clone()) }.ok());
            let missing = || Error::Device { op: symbol.into(), reason: "no fatbin has this kernel".into() };
            found.map(Function).ok_or_else(missing)
        };
        let load = |row: &Row| {
            let Some(shared) = row.sm90 else { return function(row.symbol).map(Some) };
            if !sm90 {
                return Ok(None);
            }
            let found = function(row.symbol)?;
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is loaded.
            let set = unsafe { result::function::set_function_attribute(found.0, most, shared as i32) };
            set.map(|()| Some(found)).map_err(failed(row.symbol))
        };
        let functions = table.iter().map(load).collect::<Result<_>>()?;
        let uuid = context.uuid().ok().map(|id| uuid(&id.bytes.map(|byte| byte as u8)));
        Ok(Gpu { stream, staging: Mutex::default(), table, functions, sm90, name, uuid })
    }

    pub fn describe(&self) -> String {
        self.name.clone()
    }

    pub fn uuid(&self) -> Option<&str> {
        self.uuid.as_deref()
    }

    pub fn cache(&self) -> Result<usize> {
        self.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)
    }

    pub fn is_sm90(&self) -> bool {
        self.sm90
    }

    pub fn multiprocessors(&self) -> Result<usize> {
        self.attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
    }

    fn attribute(&self, attribute: sys::CUdevice_attribute) -> Result<usize> {
        let found = self.stream.context().attribute(attribute);
        found.map(|value| value.max(0) as usize).map_err(failed("an attribute of the device"))
    }

    /// The function of a row.
    fn function(&self, kernel: usize) -> Result<sys::CUfunction> {
        let missing =
            || Error::Device { op: self.table[kernel].symbol.into(), reason: "needs sm_90a".into() };
        self.functions[kernel].as_ref().map(|function| function.0).ok_or_else(missing)
    }

    pub fn tensor_map(&self, address: u64, boxes: &Boxes) -> Result<[u64; 16]> {
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let (dims, pitches) = (boxes.sizes(), boxes.pitches_in_bytes());
        let (rank, base) = (dims.len() as u32, address as *mut std::ffi::c_void);
        let swizzle = match boxes.swizzle {
            32 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            64 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            128 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            _ => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        };
        let kind = sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT16;
        let plain = sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE;
        let cached = sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B;
        let zeros = sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
        let encoded = match &boxes.take {
            // SAFETY: as many dimensions, sizes and steps as `rank` says, and a pitch less.
            Take::Tile(sizes) => unsafe {
                sys::cuTensorMapEncodeTiled(
                    &raw mut map,
                    kind,
                    rank,
                    base,
                    dims.as_ptr(),
                    pitches.as_ptr(),
                    sizes.as_ptr(),
                    [1; 4].as_ptr(),
                    plain,
                    swizzle,
                    cached,
                    zeros,
                )
            },
            // SAFETY: four dimensions, three pitches, two corners each, four steps.
            Take::Pixels { channels, pixels, lower, upper, step: [across, down] } => unsafe {
                sys::cuTensorMapEncodeIm2col(
                    &raw mut map,
                    kind,
                    rank,
                    base,
                    dims.as_ptr(),
                    pitches.as_ptr(),
                    lower.as_ptr(),
                    upper.as_ptr(),
                    *channels,
                    *pixels,
                    [1, *across, *down, 1].as_ptr(),
                    plain,
                    swizzle,
                    cached,
                    zeros,
                )
            },
        };
        encoded.result().map_err(failed("tensor map"))?;
        Ok(map.opaque)
    }

    pub fn resources(&self, kernel: usize) -> Result<Option<Resources>> {
        let function = self.function(kernel)?;
        let of = |attribute| {
            // SAFETY: the function is loaded, and never unloaded.
            let found = unsafe { result::function::get_function_attribute(function, attribute) };
            let found = self.stream.context().bind_to_thread().and(found);
            found.map(|value| value.max(0) as u32).map_err(failed(self.table[kernel].symbol))
        };
        Ok(Some(Resources {
            registers: of(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            shared: of(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?
                + self.table[kernel].sm90.unwrap_or(0),
            local: of(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
        }))
    }

    pub fn alloc(&self, bytes: usize) -> Result<Memory> {
        // SAFETY: bytes of any value are bytes; nothing reads them before a kernel writes them.
        let slice = unsafe { self.stream.alloc::<u8>(bytes.max(1)) }.map_err(|error| match error {
            DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY) => {
                let free = self.free().unwrap_or(0);
                Error::Memory { op: "alloc".into(), bytes, free, remedy: String::new() }
            }
            error => failed("alloc")(error),
        })?;
        let address = slice.device_ptr(&self.stream).0;
        Ok(Bytes { address, _slice: slice })
    }

    pub fn free(&self) -> Result<usize> {
        Ok(self.stream.context().mem_get_info().map_err(failed("free memory"))?.0)
    }

    /// # Safety
    /// As many bytes stand at that address of this device, and nobody else uses them.
    pub unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.bind("write")?;
        // SAFETY: as of this function.
        unsafe { lock(&self.staging).write(&self.stream, address, bytes) }
    }

    /// # Safety
    /// As many bytes stand at that address of this device.
    pub unsafe fn read(&self, bytes: &mut [u8], address: u64) -> Result<()> {
        self.bind("read")?;
        // SAFETY: as of this function.
        unsafe { lock(&self.staging).read(&self.stream, bytes, address)? };
        self.stream.context().check_err().map_err(failed("an earlier call"))
    }

    fn bind(&self, op: &str) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(failed(op))
    }

    pub fn event(&self) -> Result<Event> {
        self.stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed("event"))
    }

    pub fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(failed("record"))?;
        let done = work();
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(failed("record"))?;
        done?;
        graph
            .map(Graph)
            .ok_or_else(|| Error::Device { op: "record".into(), reason: "nothing was launched".into() })
    }

    /// # Safety
    /// As [`Gpu::launch`], for every recorded launch.
    pub unsafe fn replay(&self, graph: &Graph) -> Result<()> {
        graph.0.launch().map_err(failed("replay"))
    }

    /// # Safety
    /// The arguments are what the kernel declares, and every address is good for what it does there.
    pub unsafe fn launch(&self, kernel: usize, launch: Launch, arguments: &mut Arguments) -> Result<()> {
        let op = failed(self.table[kernel].symbol);
        let (function, shared) = (self.function(kernel)?, self.table[kernel].sm90.unwrap_or(0));
        let mut pointers = arguments.pointers();
        let (grid, block) = ((launch.blocks, 1, 1), (launch.threads, 1, 1));
        let bound = self.stream.context().bind_to_thread();
        // SAFETY: the function is loaded, the stream is alive; the arguments are the caller's promise.
        let launched = bound.and_then(|()| unsafe {
            result::launch_kernel(function, grid, block, shared, self.stream.cu_stream(), &mut pointers)
        });
        launched.map_err(op)
    }
}

/// Pinned memory of the host.
pub struct Pinned {
    start: *mut u8,
    bytes: usize,
    context: Arc<CudaContext>,
}
// SAFETY: memory of the host belongs to no thread.
unsafe impl Send for Pinned {}

impl AsMut<[u8]> for Pinned {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as many bytes were allocated there, were made zeros, and are ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Whatever fails here, the process goes on: the memory is then lost until it ends.
        let done = self.context.bind_to_thread().and_then(|()| self.context.synchronize());
        // SAFETY: allocated by `pinned`, and no copy uses it any more.
        let _ = done.and_then(|()| unsafe { result::free_host(self.start.cast()) });
    }
}

impl Engine for CudaStream {
    type Event = CudaEvent;
    type Pinned = Pinned;

    fn pinned(&self, bytes: usize) -> Result<Pinned> {
        // SAFETY: the bytes are made zeros before anybody reads them; freed when it is dropped.
        let start = unsafe { result::malloc_host(bytes, 0) }.map_err(failed("pinned memory"))?.cast::<u8>();
        // SAFETY: as many bytes are there.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Pinned { start, bytes, context: self.context().clone() })
    }

    unsafe fn send(&self, address: u64, from: &[u8]) -> Result<()> {
        // SAFETY: as of this function.
        unsafe { result::memcpy_htod_async(address, from, self.cu_stream()) }.map_err(failed("write"))
    }

    unsafe fn receive(&self, to: &mut [u8], address: u64) -> Result<()> {
        // SAFETY: as of this function.
        unsafe { result::memcpy_dtoh_async(to, address, self.cu_stream()) }.map_err(failed("read"))
    }

    fn event(&self) -> Result<CudaEvent> {
        self.record_event(None).map_err(failed("event"))
    }

    fn wait(&self, event: &CudaEvent) -> Result<()> {
        event.synchronize().map_err(failed("read"))
    }
}

/// The time from one event to another.
pub fn elapsed(start: &Event, end: &Event) -> Result<Duration> {
    let milliseconds = start.elapsed_ms(end).map_err(failed("event"))?;
    Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
}
