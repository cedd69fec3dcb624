//! Every file of `tests/corpus` goes through the readers of its format, whole and cut off, as the fuzz targets do it: a value
//! or a short error, no panic, in bounded memory and time. `docs/FUZZING.md` says where the files come from.

#![allow(clippy::unwrap_used, clippy::expect_used)] // in the helpers of tests too

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};

#[path = "../fuzz/src/formats.rs"]
mod formats;
mod hostile;
#[path = "../fuzz/src/memory.rs"]
mod memory;

use formats::{FORMATS, Ground};

/// The longest that the readers of a format may take for a file of a few kilobytes, on a machine with other work.
const LONGEST: Duration = Duration::from_secs(20);

static TESTS: LazyLock<PathBuf> = LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::new(&TESTS.join("data")));

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1); // the memory of the whole process is counted
    // Without the frames, whose names take more memory than a file may.
    std::panic::set_hook(Box::new(|panic| {
        memory::unlimited();
        eprintln!("{panic}");
    }));
    let trials = FORMATS.iter().flat_map(|format| {
        let files = files(format.name);
        assert!(!files.is_empty(), "tests/corpus/{} has no files", format.name);
        files.into_iter().map(move |path| trial(format, path))
    });
    libtest_mimic::run(&arguments, trials.chain(hostile::trials()).collect()).exit();
}

fn files(format: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(TESTS.join("corpus").join(format));
    let mut files: Vec<PathBuf> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn trial(format: &'static formats::Format, path: PathBuf) -> Trial {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Trial::test(format!("{}/{name}", format.name), move || {
        let bytes = std::fs::read(&path)?;
        LazyLock::force(&GROUND);
        // A download that was cut off is a file too.
        for end in [bytes.len(), bytes.len() * 3 / 4, bytes.len() / 2, bytes.len() / 8] {
            let begun = Instant::now();
            let read = catch_unwind(AssertUnwindSafe(|| format.read(&GROUND, &bytes[..end])));
            let said = |panic: Box<dyn std::any::Any + Send>| {
                let text = panic.downcast::<String>().map_or("a panic".into(), |text| *text);
                format!("the first {end} bytes: {text}")
            };
            read.map_err(said)?;
            if begun.elapsed() > LONGEST {
                return Err(format!("the first {end} bytes took {:?}", begun.elapsed()).into());
            }
        }
        Ok(())
    })
}
