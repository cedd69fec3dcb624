//! Statuses and messages: every entry point returns a code, and the message of a failure is kept for `sj_last_error`, by
//! thread, and by each handle that the call was given.

use std::cell::RefCell;
use std::collections::BTreeMap;

use scrubjay::Error;

/// All went well.
pub const OK: i32 = 0;
/// A pointer that may not be NULL is NULL.
pub const NULL: i32 = 100;
/// A handle that is freed, of another kind, or never was one.
pub const HANDLE: i32 = 101;
/// An argument that means nothing: a size, a shape, strides, a type, text that is not UTF-8, a pointer that is not aligned.
pub const ARGUMENT: i32 = 102;
/// A defect of the library, caught at its border.
pub const PANIC: i32 = 103;
/// Something that this library cannot do, as data on another device.
pub const UNSUPPORTED: i32 = 104;
/// A buffer of the caller's that is too small; the call says what is needed.
pub const BUFFER: i32 = 105;

/// The name of every status, as in the header.
pub const NAMES: [(i32, &std::ffi::CStr); 18] = [
    (OK, c"SJ_OK"),
    (1, c"SJ_ERR_SHAPE"),
    (2, c"SJ_ERR_DEVICE"),
    (3, c"SJ_ERR_NO_GPU"),
    (4, c"SJ_ERR_CHECKPOINT"),
    (5, c"SJ_ERR_DATA"),
    (6, c"SJ_ERR_SOLVE"),
    (7, c"SJ_ERR_NEGATIVE_CURVATURE"),
    (8, c"SJ_ERR_CONFIG"),
    (9, c"SJ_ERR_IO"),
    (10, c"SJ_ERR_INTERRUPTED"),
    (11, c"SJ_ERR_MEMORY"),
    (NULL, c"SJ_ERR_NULL"),
    (HANDLE, c"SJ_ERR_HANDLE"),
    (ARGUMENT, c"SJ_ERR_ARGUMENT"),
    (PANIC, c"SJ_ERR_PANIC"),
    (UNSUPPORTED, c"SJ_ERR_UNSUPPORTED"),
    (BUFFER, c"SJ_ERR_BUFFER"),
];

/// A failed call.
#[derive(Debug)]
pub struct Failure {
    /// Its status.
    pub code: i32,
    /// Why.
    pub message: String,
}

/// What the inside of an entry point returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this status.
    pub fn new(code: i32, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// [`ARGUMENT`].
    pub fn argument(message: impl Into<String>) -> Failure {
        Failure::new(ARGUMENT, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(error.code(), error.to_string())
    }
}

/// Messages of one thread.
#[derive(Default)]
struct Messages {
    /// Of the last failed call.
    last: String,
    /// Of the last failed call that was given a handle, by its number.
    of_handle: BTreeMap<u64, String>,
    /// The handles that the call which is running was given.
    given: Vec<u64>,
}

thread_local! {
    static MESSAGES: RefCell<Messages> = RefCell::default();
}

/// Handles whose messages a thread keeps before it drops those of the oldest.
const KEPT: usize = 256;

/// Begins a call; returns what [`end`] takes, since a callback may call the library from within a call.
pub fn begin() -> Vec<u64> {
    let taken = MESSAGES.try_with(|messages| std::mem::take(&mut messages.borrow_mut().given));
    taken.unwrap_or_default() // where the thread ends, there is no one left to ask
}

/// Notes that the running call was given a handle.
pub fn given(handle: u64) {
    let _ = MESSAGES.try_with(|messages| messages.borrow_mut().given.push(handle));
}

/// Ends a call, keeps its message, and returns its status.
pub fn end(outer: Vec<u64>, result: Outcome) -> i32 {
    let code = result.as_ref().map_or_else(|failure| failure.code, |()| OK);
    let _ = MESSAGES.try_with(|messages| {
        let mut messages = messages.borrow_mut();
        let given = std::mem::replace(&mut messages.given, outer);
        if let Err(failure) = result {
            for handle in given {
                messages.of_handle.insert(handle, failure.message.clone());
            }
            while messages.of_handle.len() > KEPT {
                messages.of_handle.pop_first();
            }
            messages.last = failure.message;
        }
    });
    code
}

/// The message of this thread's last failed call, or of the last one that was given this handle; empty where there was none.
pub fn message(handle: Option<u64>) -> String {
    let found = MESSAGES.try_with(|messages| {
        let messages = messages.borrow();
        match handle {
            None => messages.last.clone(),
            Some(handle) => messages.of_handle.get(&handle).cloned().unwrap_or_default(),
        }
    });
    found.unwrap_or_default()
}

/// Ends a call that keeps no message.
pub fn restore(outer: Vec<u64>) {
    let _ = MESSAGES.try_with(|messages| messages.borrow_mut().given = outer);
}
