//! NVIDIA's driver, opened at run time (cudarc); nothing of CUDA is linked.
//!
//! The library is probed before it is used, since cudarc panics without it. Event tracking is off: there is one stream,
//! and its order is the only one.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{
    CudaContext, CudaEvent, CudaGraph, CudaSlice, CudaStream, DevicePtr, DriverError, result, sys,
};

use super::generated::fatbins::{ARCHITECTURES, FATBINS, MISSING};
use super::launch::{Launch, Resources, Row, pointers};
use crate::error::{Error, Result};

/// An opened GPU with all kernels of the table.
pub struct Gpu {
    stream: Arc<CudaStream>,
    table: &'static [Row],
    functions: Vec<Function>, // by row of the table
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

fn failed(op: &str) -> impl FnOnce(DriverError) -> Error + '_ {
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
fn probe() -> Result<usize> {
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
    /// Opens the first GPU and loads every kernel of the table.
    pub fn open(table: &'static [Row]) -> Result<Gpu> {
        if FATBINS.is_empty() {
            return Err(none(format!("this build has no CUDA kernels: {MISSING}")));
        }
        probe()?;
        let context = context(0)?;
        let name = describe(&context)?;
        let stream = context.new_stream().map_err(failed("stream"))?;
        // SAFETY: everything runs on this one stream, in order.
        unsafe { context.disable_event_tracking() };
        let mut modules = Vec::new();
        for (stem, fatbin) in FATBINS {
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
        let functions = table.iter().map(|row| function(row.symbol)).collect::<Result<_>>()?;
        let uuid = context.uuid().ok().map(|id| uuid(&id.bytes.map(|byte| byte as u8)));
        Ok(Gpu { stream, table, functions, name, uuid })
    }

    pub fn describe(&self) -> String {
        self.name.clone()
    }

    pub fn uuid(&self) -> Option<&str> {
        self.uuid.as_deref()
    }

    pub fn cache(&self) -> Result<usize> {
        let size = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE;
        let found = self.stream.context().attribute(size);
        found.map(|bytes| bytes.max(0) as usize).map_err(failed("size of the cache"))
    }

    pub fn resources(&self, kernel: usize) -> Result<Option<Resources>> {
        let of = |attribute| {
            // SAFETY: the function is loaded, and never unloaded.
            let found =
                unsafe { result::function::get_function_attribute(self.functions[kernel].0, attribute) };
            let found = self.stream.context().bind_to_thread().and(found);
            found.map(|value| value.max(0) as u32).map_err(failed(self.table[kernel].symbol))
        };
        Ok(Some(Resources {
            registers: of(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            shared: of(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
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
        if bytes.is_empty() {
            return Ok(());
        }
        let bound = self.stream.context().bind_to_thread();
        // SAFETY: as of this function.
        let copy = || unsafe { result::memcpy_htod_async(address, bytes, self.stream.cu_stream()) };
        bound.and_then(|()| copy()).map_err(failed("write"))?;
        self.stream.synchronize().map_err(failed("write")) // the caller may change `bytes` at once
    }

    /// # Safety
    /// As many bytes stand at that address of this device.
    pub unsafe fn read(&self, bytes: &mut [u8], address: u64) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let bound = self.stream.context().bind_to_thread();
        // SAFETY: as of this function.
        let mut copy = || unsafe { result::memcpy_dtoh_async(bytes, address, self.stream.cu_stream()) };
        bound.and_then(|()| copy()).map_err(failed("read"))?;
        self.stream.synchronize().map_err(failed("read"))?;
        self.stream.context().check_err().map_err(failed("an earlier call"))
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
    pub unsafe fn launch(&self, kernel: usize, launch: Launch, words: &mut [u64]) -> Result<()> {
        let op = failed(self.table[kernel].symbol);
        let function = self.functions[kernel].0;
        let mut arguments = pointers(words);
        let (grid, block) = ((launch.blocks, 1, 1), (launch.threads, 1, 1));
        let bound = self.stream.context().bind_to_thread();
        // SAFETY: the function is loaded, the stream is alive; the arguments are the caller's promise.
        let launched = bound.and_then(|()| unsafe {
            result::launch_kernel(function, grid, block, 0, self.stream.cu_stream(), &mut arguments)
        });
        launched.map_err(op)
    }
}

/// The time from one event to another.
pub fn elapsed(start: &Event, end: &Event) -> Result<Duration> {
    let milliseconds = start.elapsed_ms(end).map_err(failed("event"))?;
    Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
}
