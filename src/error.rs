//! The one error of the library. Every variant says what was being read or run, what was expected and what
//! was found; [`Error::code`] is stable and is what the C API returns.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What the library returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation got operands whose shapes do not fit each other.
    #[error("{op}: expected {expected}, found {found}")]
    Shape {
        /// The operation, as named in `ops` or `net`.
        op: &'static str,
        /// The shape or relation that the operation needs.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// The driver refused or failed while `op` was running.
    #[error("{op}: {reason}")]
    Device {
        /// The operation or kernel that was running.
        op: String,
        /// The driver's own words and code.
        reason: String,
    },
    /// The device has no room for what `op` needs.
    #[error("{op}: {bytes} bytes are needed, and {free} are free on the device{remedy}")]
    Memory {
        /// The operation that asked.
        op: String,
        /// What it needs.
        bytes: usize,
        /// What is free.
        free: usize,
        /// What would fit, where that is known; begins with a semicolon.
        remedy: String,
    },
    /// A GPU was asked for and none can be used.
    #[error("no usable GPU: {reason}")]
    NoGpu {
        /// What is missing, and the remedy.
        reason: String,
    },
    /// A model file cannot be read as a model.
    #[error("{}{}: {}", Shown(path.display()), tensor.as_ref().map(|t| format!(": tensor `{}`", Shown(t))).unwrap_or_default(), Shown(reason))]
    Checkpoint {
        /// The file or directory.
        path: PathBuf,
        /// The tensor concerned, where it is one.
        tensor: Option<String>,
        /// What was expected and what was found.
        reason: String,
    },
    /// A data file cannot be read as samples or columns.
    #[error("{}{}: {}", Shown(path.display()), record.as_ref().map(|r| format!(": {}", Shown(r))).unwrap_or_default(), Shown(reason))]
    Data {
        /// The file.
        path: PathBuf,
        /// The line, column, sample or tensor concerned, where it is one.
        record: Option<String>,
        /// What was expected and what was found.
        reason: String,
    },
    /// A linear solve did not reach its tolerance.
    #[error("solve: {reason}")]
    Solve {
        /// The solver's report in words.
        reason: String,
    },
    /// The curvature is negative along a direction and the stated rule forbids to go on.
    #[error("solve: negative curvature {curvature:e} after {products} products; {remedy}")]
    NegativeCurvature {
        /// vᵀ(H + λI)v / vᵀv along the offending direction.
        curvature: f64,
        /// Hessian-vector products spent so far.
        products: usize,
        /// What to change.
        remedy: String,
    },
    /// Options that contradict each other or the data.
    #[error("{}", Shown(.0))]
    Config(String),
    /// The operating system refused a file operation.
    #[error("{}: {source}", Shown(path.display()))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The user asked to stop; what was finished is kept.
    #[error("interrupted; {kept}")]
    Interrupted {
        /// What is on disk and how to go on.
        kept: String,
    },
}

/// Text that may quote a file: without control characters, which a terminal would follow, and cut off where it is very long.
struct Shown<T>(T);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const LONGEST: usize = 4000;
        const LINES: usize = 8; // of our own words; a quoted name with more must not pass for other output
        let text = self.0.to_string();
        let mut lines = 1;
        for (i, c) in text.chars().enumerate() {
            lines += usize::from(c == '\n');
            match c {
                _ if i == LONGEST => return write!(f, " .. ({} bytes in all)", text.len()),
                c if c.is_control() && (c != '\n' || lines > LINES) => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Fails with [`Error::Interrupted`] where the user asked to stop; long work asks between its pieces.
///
/// # Errors
/// Where `stop` is set.
pub fn check_stop(stop: &AtomicBool) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::Interrupted { kept: "the batch that was running is not recorded".into() }),
        false => Ok(()),
    }
}

impl Error {
    /// A stable number per variant: the C API's status, never reused.
    pub fn code(&self) -> i32 {
        match self {
            Error::Shape { .. } => 1,
            Error::Device { .. } => 2,
            Error::NoGpu { .. } => 3,
            Error::Checkpoint { .. } => 4,
            Error::Data { .. } => 5,
            Error::Solve { .. } => 6,
            Error::NegativeCurvature { .. } => 7,
            Error::Config(_) => 8,
            Error::Io { .. } => 9,
            Error::Interrupted { .. } => 10,
            Error::Memory { .. } => 11,
        }
    }

    /// The command line's exit code: 1 failed, 2 usage, 4 no GPU where one was required.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Config(_) => 2,
            Error::NoGpu { .. } => 4,
            _ => 1,
        }
    }

    /// The same error of a device, with the larger operation `op` named before the one that it has.
    pub(crate) fn during(self, op: &str) -> Error {
        match self {
            Error::Device { op: inner, reason } => Error::Device { op: format!("{op}: {inner}"), reason },
            Error::Memory { op: inner, bytes, free, remedy } => {
                Error::Memory { op: format!("{op}: {inner}"), bytes, free, remedy }
            }
            other => other,
        }
    }

    /// [`Error::Config`] from anything printable.
    pub fn config(reason: impl Into<String>) -> Error {
        Error::Config(reason.into())
    }

    /// [`Error::Shape`] of `op`.
    pub fn shape(op: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Shape { op, expected: expected.into(), found: found.into() }
    }

    /// [`Error::Data`] about a whole file.
    pub fn data(path: &Path, reason: impl Into<String>) -> Error {
        Error::Data { path: path.into(), record: None, reason: reason.into() }
    }

    /// [`Error::Data`] about one record (a line, a column, a tensor, a sample) of a file.
    pub fn record(path: &Path, record: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Data { path: path.into(), record: Some(record.into()), reason: reason.into() }
    }

    /// [`Error::Checkpoint`] about a whole file.
    pub fn checkpoint(path: &Path, reason: impl Into<String>) -> Error {
        Error::Checkpoint { path: path.into(), tensor: None, reason: reason.into() }
    }

    /// [`Error::Checkpoint`] about one tensor.
    pub fn tensor(path: &Path, tensor: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Checkpoint { path: path.into(), tensor: Some(tensor.into()), reason: reason.into() }
    }

    /// [`Error::Io`], for `map_err` beside the call that can fail.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.into(), source }
    }
}
