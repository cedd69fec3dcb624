//! An allocator with a limit: a file for which more is asked ends the process, with the number of bytes, as it might end a
//! user's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that are allocated, by all threads.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// How many may be.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator with a limit.
pub struct Limited;

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// Allows so many bytes more than are allocated now, until the result is dropped.
pub fn limit(bytes: usize) -> Unlimited {
    LIMIT.store(LIVE.load(Relaxed).saturating_add(bytes), Relaxed);
    Unlimited
}

/// Allows any number of bytes, for what is told of a panic.
pub fn unlimited() {
    LIMIT.store(usize::MAX, Relaxed);
}

/// Takes the limit away when it is dropped.
pub struct Unlimited;

impl Drop for Unlimited {
    fn drop(&mut self) {
        unlimited();
    }
}

/// Counts further bytes; the process ends where they are too many.
fn count(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed).saturating_add(bytes);
    if live > LIMIT.load(Relaxed) {
        LIMIT.store(usize::MAX, Relaxed); // for the message
        eprintln!("memory: {bytes} bytes more were asked for, which are more than a file may take");
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator with the same arguments.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (more, less) = (size.saturating_sub(layout.size()), layout.size().saturating_sub(size));
        count(more);
        LIVE.fetch_sub(less, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}
