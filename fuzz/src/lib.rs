//! Fuzz targets of every format that scrubjay reads. `docs/FUZZING.md` says how they are run.

pub mod formats;
pub mod memory;

use std::path::Path;

pub use libfuzzer_sys;

/// The folder of what lies beside the files of a target.
pub fn ground() -> formats::Ground {
    formats::Ground::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data"))
}

/// A target: reads every input as a file of a format.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        static GROUND: std::sync::LazyLock<$crate::formats::Ground> =
            std::sync::LazyLock::new($crate::ground);
        $crate::libfuzzer_sys::fuzz_target!(
            |bytes: &[u8]| $crate::formats::format($name).read(&GROUND, bytes)
        );
    };
}
