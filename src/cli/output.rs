//! What the commands print. A reader may close its end of the pipe (`| head -1`): that ends the output, not the work. The
//! macros stand in for those of the standard library, which panic there.

use std::fmt::Arguments;
use std::io::{Error, ErrorKind, Result, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The error that ended standard output.
static ENDED: OnceLock<Error> = OnceLock::new();

/// Whether nothing is printed: another rank does (`ranks.rs`).
static SILENT: AtomicBool = AtomicBool::new(false);

/// Prints nothing from now on, or again.
pub fn silence(silent: bool) {
    SILENT.store(silent, Ordering::Relaxed);
}

/// Whether nothing is printed.
pub fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Prints to standard output.
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::output::text(format_args!($($text)*)) };
}

/// Prints a line to standard output.
macro_rules! println {
    () => { print!("\n") };
    ($($text:tt)*) => { print!("{}\n", format_args!($($text)*)) };
}

/// Prints a line to standard error.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::cli::output::error(format_args!($($text)*)) };
}

/// Standard output; writing to it never fails, and [`failure`] tells at the end whether it did.
pub struct Output;

impl Output {
    fn keep_error(result: Result<()>) {
        if let Err(error) = result {
            ENDED.get_or_init(|| error);
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if ENDED.get().is_none() {
            Output::keep_error(std::io::stdout().write_all(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        if ENDED.get().is_none() {
            Output::keep_error(std::io::stdout().flush());
        }
        Ok(())
    }
}

/// [`print!`]
pub fn text(text: Arguments) {
    if is_silent() {
        return;
    }
    let _ = Output.write(text.to_string().as_bytes()); // never fails
}

/// [`eprintln!`]
pub fn error(text: Arguments) {
    if is_silent() {
        return;
    }
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes()); // there is nowhere left to report a failure
}

/// Why standard output ended early, where that is a failure: a full disk, not a reader that had enough.
pub fn failure() -> Option<&'static Error> {
    let _ = Output.flush(); // never fails
    ENDED.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}
