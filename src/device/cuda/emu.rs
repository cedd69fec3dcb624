//! The emulated driver: kernels compiled by the C++ compiler and run on the CPU by `kernels/emu`.
//!
//! Memory has exactly the size asked for, begins as NaN, and lies between guard words that are checked after every
//! launch. Under a sanitizer there are no guards: the sanitizer itself sees the first byte past the end.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::boxes::{Boxes, Take};
use super::launch::{Arguments, Launch, Resources, Row, lock};
use crate::error::{Error, Result};

const ALIGN: usize = 256; // as cudaMalloc
const GUARD: usize =
    if cfg!(any(scrubjay_sanitize = "address", scrubjay_sanitize = "thread")) { 0 } else { ALIGN };
const GUARD_BYTE: u8 = 0xa5;
const UNDEFINED: u8 = 0xff; // a NaN of any width
/// Bytes of memory that the device has by default.
const MEMORY: usize = 1 << 30;

/// The driver.
pub struct Emu {
    table: &'static [Row],
    seed: u64,
    bytes: usize,
    reported: usize,
    live: Arc<Mutex<Vec<Region>>>,
    recording: Mutex<Option<Vec<Call>>>,
    /// Held while work runs: there is one stream.
    stream: Mutex<()>,
    /// Launches until one fails.
    left: AtomicUsize,
    products: AtomicU64,
}

unsafe extern "C" {
    /// The tensor-core multiplications of this thread's last launch.
    fn emu_products() -> u64;
    /// Writes a tensor map as the emulated kernels read it; dimensions from the innermost one, lower null for tiles.
    fn emu_tensor_map(
        map: *mut [u64; 16],
        base: *mut c_void,
        rank: u32,
        dim: *const u64,
        pitch: *const u64,
        take: *const u32,
        lower: *const i32,
        upper: *const i32,
        step: *const u32,
        swizzle: u32,
    );
}

/// A recorded launch.
pub struct Call {
    kernel: usize,
    launch: Launch,
    arguments: Arguments,
}

/// A buffer with its guards.
#[derive(Clone, Copy, PartialEq)]
struct Region {
    start: usize, // of the first guard
    bytes: usize, // between the guards
}

/// Memory of the emulated device.
pub struct Memory {
    region: Region,
    live: Arc<Mutex<Vec<Region>>>,
}

impl Emu {
    pub fn new(seed: u64, table: &'static [Row]) -> Emu {
        Emu::with(seed, MEMORY, MEMORY, table)
    }

    /// A device of `bytes` bytes, which reports `reported` bytes as free while it is empty.
    pub fn with(seed: u64, bytes: usize, reported: usize, table: &'static [Row]) -> Emu {
        Emu {
            table,
            seed,
            bytes,
            reported,
            live: Arc::default(),
            recording: Mutex::new(None),
            stream: Mutex::new(()),
            left: AtomicUsize::new(usize::MAX),
            products: AtomicU64::new(0),
        }
    }

    pub fn fail_after(&self, launches: usize) {
        self.left.store(launches, Ordering::Relaxed);
    }

    pub fn products(&self) -> u64 {
        self.products.load(Ordering::Relaxed)
    }

    pub fn free(&self) -> usize {
        self.reported.saturating_sub(self.used())
    }

    fn used(&self) -> usize {
        lock(&self.live).iter().map(|region| region.bytes).sum()
    }

    pub fn describe(&self) -> String {
        format!("emulated, seed {}", self.seed)
    }

    pub fn uuid(&self) -> Option<&str> {
        None
    }

    /// It has the instructions of all architectures.
    pub fn is_sm90(&self) -> bool {
        true
    }

    /// Few, so that blocks of small cases take several tiles.
    pub fn multiprocessors(&self) -> Result<usize> {
        Ok(3)
    }

    pub fn tensor_map(&self, address: u64, boxes: &Boxes) -> Result<[u64; 16]> {
        let mut map = [0; 16];
        let (dims, pitches) = (boxes.sizes(), boxes.pitches_in_bytes());
        let rank = dims.len() as u32;
        let mut encode = |take: &[u32], lower: *const i32, upper: *const i32, step: &[u32]| {
            // SAFETY: as many dimensions as `rank` says, a pitch and a step less; two corners each where there are any.
            unsafe {
                emu_tensor_map(
                    &raw mut map,
                    address as *mut c_void,
                    rank,
                    dims.as_ptr(),
                    pitches.as_ptr(),
                    take.as_ptr(),
                    lower,
                    upper,
                    step.as_ptr(),
                    boxes.swizzle,
                );
            }
        };
        match &boxes.take {
            Take::Tile(sizes) => encode(sizes, std::ptr::null(), std::ptr::null(), &[]),
            Take::Pixels { channels, pixels, lower, upper, step } => {
                encode(&[*channels, *pixels], lower.as_ptr(), upper.as_ptr(), step);
            }
        }
        Ok(map)
    }

    /// An emulated device has no cache; a small size keeps callers on their usual path.
    pub fn cache(&self) -> Result<usize> {
        Ok(1 << 12)
    }

    /// An emulated kernel uses none.
    pub fn resources(&self, _kernel: usize) -> Result<Option<Resources>> {
        Ok(None)
    }

    pub fn alloc(&self, bytes: usize) -> Result<Memory> {
        let free = self.bytes.saturating_sub(self.used());
        if bytes > free {
            return Err(Error::Memory { op: "alloc".into(), bytes, free, remedy: String::new() });
        }
        let region = Region::new(bytes);
        lock(&self.live).push(region);
        Ok(Memory { region, live: self.live.clone() })
    }

    /// # Safety
    /// As many bytes stand at that address, and nobody else uses them.
    pub unsafe fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let _stream = lock(&self.stream);
        // SAFETY: as of this function.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    /// # Safety
    /// As many bytes stand at that address.
    pub unsafe fn read(&self, bytes: &mut [u8], address: u64) -> Result<()> {
        let _stream = lock(&self.stream);
        // SAFETY: as of this function; launches are over when they return.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    pub fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Vec<Call>> {
        *lock(&self.recording) = Some(Vec::new());
        let done = work();
        let calls = lock(&self.recording).take();
        done.map(|()| calls.unwrap_or_default())
    }

    /// # Safety
    /// As [`Emu::launch`], for every call.
    pub unsafe fn replay(&self, calls: &[Call]) -> Result<()> {
        // SAFETY: as of this function.
        calls.iter().try_for_each(|call| unsafe {
            self.launch(call.kernel, call.launch, &mut call.arguments.clone())
        })
    }

    /// # Safety
    /// The arguments are what the kernel declares, and every address is good for what it does there.
    pub unsafe fn launch(&self, kernel: usize, launch: Launch, arguments: &mut Arguments) -> Result<()> {
        if let Some(calls) = lock(&self.recording).as_mut() {
            calls.push(Call { kernel, launch, arguments: arguments.clone() });
            return Ok(());
        }
        let failed = |reason: String| Error::Device { op: self.table[kernel].symbol.into(), reason };
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(failed("failed as a test asked for".into()));
        }
        let _stream = lock(&self.stream);
        let (grid, block) = ([launch.blocks, 1, 1], [launch.threads, 1, 1]);
        let (row, mut pointers) = (&self.table[kernel], arguments.pointers());
        let shared = row.sm90.unwrap_or(0);
        // SAFETY: grid and block are three words each; the arguments are the caller's promise.
        let error = unsafe {
            (row.emulated)(grid.as_ptr(), block.as_ptr(), shared, pointers.as_mut_ptr(), self.seed)
        };
        // SAFETY: takes nothing, and reads a number of this thread.
        self.products.fetch_add(unsafe { emu_products() }, Ordering::Relaxed);
        if !error.is_null() {
            // SAFETY: an error is a string that lives until this thread's next launch.
            return Err(failed(unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned()));
        }
        match lock(&self.live).iter().find(|region| !region.whole()) {
            Some(region) => Err(failed(format!("wrote beside a buffer of {} bytes", region.bytes))),
            None => Ok(()),
        }
    }
}

impl Region {
    fn new(bytes: usize) -> Region {
        let region = Region { start: 0, bytes };
        let layout = region.layout();
        // SAFETY: the layout has a size above zero; everything written is within it.
        unsafe {
            let start = alloc(layout);
            if start.is_null() {
                handle_alloc_error(layout);
            }
            start.write_bytes(GUARD_BYTE, layout.size());
            start.add(GUARD).write_bytes(UNDEFINED, bytes);
            Region { start: start as usize, bytes }
        }
    }

    fn layout(&self) -> Layout {
        let size = (self.bytes + 2 * GUARD).max(1);
        Layout::from_size_align(size, ALIGN)
            .unwrap_or_else(|_| handle_alloc_error(Layout::new::<[u8; ALIGN]>()))
    }

    fn data(&self) -> *mut u8 {
        (self.start + GUARD) as *mut u8
    }

    /// Whether the guards are intact.
    fn whole(&self) -> bool {
        let guard = |at: usize| {
            // SAFETY: both guards lie within the allocation, which lives as long as its entry in the list.
            unsafe { std::slice::from_raw_parts(at as *const u8, GUARD) }
                .iter()
                .all(|&byte| byte == GUARD_BYTE)
        };
        guard(self.start) && guard(self.start + GUARD + self.bytes)
    }
}

impl Memory {
    pub fn address(&self) -> u64 {
        self.region.data() as u64
    }

    /// Fills it with NaN, as new memory is.
    pub fn forget(&self) {
        // SAFETY: within the allocation, and launches are over when they return.
        unsafe { self.region.data().write_bytes(UNDEFINED, self.region.bytes) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        lock(&self.live).retain(|region| *region != self.region);
        // SAFETY: allocated with this layout, and off the list.
        unsafe { dealloc(self.region.start as *mut u8, self.region.layout()) };
    }
}
