//! Work that lets Python go on meanwhile: it runs in a thread of its own without the interpreter's lock, while the thread that
//! called looks for Ctrl-C and passes progress on.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

/// How long Ctrl-C and progress may wait.
const PAUSE: Duration = Duration::from_millis(30);

/// Sets a flag and wakes a thread when it is dropped, also where the work panics.
struct Wake<'a>(&'a AtomicBool, thread::Thread);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        self.1.unpark();
    }
}

/// Does `work`, and calls `between` now and then. Where that fails, or the user pressed Ctrl-C, `stop` is called once. Returns
/// what the work came to and whether Ctrl-C ended it; anything else that ended it is raised.
pub fn watched<T: Send>(
    py: Python<'_>,
    stop: impl Fn(),
    mut between: impl FnMut() -> PyResult<()>,
    work: impl FnOnce() -> T + Send,
) -> PyResult<(T, bool)> {
    let done = AtomicBool::new(false);
    let mut reason = None;
    let result = thread::scope(|scope| {
        let wake = Wake(&done, thread::current());
        let worker = scope.spawn(move || {
            let _wake = wake;
            work()
        });
        while !done.load(Ordering::Acquire) {
            py.detach(|| thread::park_timeout(PAUSE));
            if reason.is_none()
                && let Err(error) = between().and_then(|()| py.check_signals())
            {
                stop();
                reason = Some(error);
            }
        }
        worker.join()
    });
    let result = result.unwrap_or_else(|panic| resume_unwind(panic));
    match reason {
        Some(reason) if !reason.is_instance_of::<PyKeyboardInterrupt>(py) => Err(reason),
        reason => Ok((result, reason.is_some())),
    }
}

/// [`watched`], of work that nothing can end and that tells nothing: a Ctrl-C is raised when it has ended.
pub fn unlocked<T: Send>(py: Python<'_>, work: impl FnOnce() -> scrubjay::Result<T> + Send) -> PyResult<T> {
    let result = py.detach(work).map_err(crate::errors::raised)?;
    py.check_signals()?;
    Ok(result)
}
